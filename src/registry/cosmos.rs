//! registry/cosmos
