//! registry/answer
