//! docker/endpoint
