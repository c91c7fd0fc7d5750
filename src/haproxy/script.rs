//! haproxy/script
