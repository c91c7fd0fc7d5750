//! The real binary against a fake Docker and a fake Cosmos, and against a real Docker and a
//! real HAProxy. One test binary, so that it links once.

mod cli;
mod command_line;
mod cosmos;
mod docker_real;
mod doctor;
mod haproxy;
mod hostile;
mod layout;
mod lives;
mod lossless;
mod notify;
mod real;
mod report;
mod scripts;
mod support;
mod sync;
mod units;
mod watch;
mod weave;
mod wire;
