//! docker/container
