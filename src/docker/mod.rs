//! docker/mod
/// container
pub mod container;
/// endpoint
pub mod endpoint;
/// events
pub mod events;
