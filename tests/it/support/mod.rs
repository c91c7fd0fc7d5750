//! What the tests stand on: a Docker and a Cosmos that can be told to misbehave, and a
//! folder in which the real binary runs with a script that writes down what it saw.

pub mod deadline;
pub mod dice;
pub mod fake_cosmos;
pub mod fake_docker;
pub mod fake_weave;
pub mod host_haproxy;
pub mod load;
pub mod md5;
pub mod metrics;
pub mod real_docker;
pub mod real_podman;
pub mod routes;
pub mod sandbox;
pub mod script;
pub mod tmpfs;
pub mod wire;
