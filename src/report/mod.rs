//! What the operator is told: each pass leaves a [`record::Record`], and the log line, the status file, the
//! metrics and the history are read from it, so that nothing is computed twice and no two of them disagree.
//!
//! `explain` and `plan` look at Docker themselves and change nothing. Nothing here decides what is routed.

pub mod book;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod history;
pub mod metrics;
pub mod moment;
pub mod plan;
pub mod record;
pub mod status;
