//! registry/template
