//! docker/events
