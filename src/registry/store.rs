//! registry/store
