//! address/mod
/// weave
pub mod weave;
