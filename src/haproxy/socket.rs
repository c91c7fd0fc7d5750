//! haproxy/socket
