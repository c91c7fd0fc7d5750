//! registry/mod
/// answer
pub mod answer;
/// cosmos
pub mod cosmos;
/// embedded
pub mod embedded;
/// store
pub mod store;
/// template
pub mod template;
