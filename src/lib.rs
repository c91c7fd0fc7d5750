//! cosmonaut
/// address
pub mod address;
/// atomic_file
pub mod atomic_file;
/// cli
pub mod cli;
/// config
pub mod config;
/// description
pub mod description;
/// docker
pub mod docker;
/// error
pub mod error;
/// haproxy
pub mod haproxy;
/// http
pub mod http;
/// inbox
pub mod inbox;
/// inventory
pub mod inventory;
/// logging
pub mod logging;
/// registry
pub mod registry;
/// report
pub mod report;
/// schedule
pub mod schedule;
/// service
pub mod service;
/// sync
pub mod sync;
/// timestamp
pub mod timestamp;
/// transport
pub mod transport;
/// watch
pub mod watch;
