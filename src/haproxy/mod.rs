//! haproxy/mod
/// script
pub mod script;
/// socket
pub mod socket;
