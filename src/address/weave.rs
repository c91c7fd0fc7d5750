//! address/weave
