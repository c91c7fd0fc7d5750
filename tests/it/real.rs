//! Against a real dockerd and a real HAProxy.
