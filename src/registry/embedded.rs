//! registry/embedded
