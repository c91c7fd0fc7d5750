//! The open event stream.

use std::time::{Duration, Instant};

use super::events::{Event, Lines};
use super::refusal::{self, Ask};
use super::wire::{Piece, Wire};
use crate::error::Result;
use crate::transport::{Address, Hangup};

/// A stream that ends sooner than this without a line was never a stream: Podman without an event log does it.
const AT_ONCE: Duration = Duration::from_secs(1);

/// An open event stream on a connection of its own.
#[derive(Debug)]
pub struct EventStream {
    wire: Wire,
    lines: Lines,
    address: Address,
    opened: Instant,
    ended: bool,
    /// It ended as the daemon wanted, and was not cut.
    clean: bool,
}

impl EventStream {
    /// The head was read, the body follows.
    pub(super) fn new(mut wire: Wire, address: Address) -> Self {
        wire.set_deadline(None);
        EventStream {
            wire,
            lines: Lines::new(),
            address,
            opened: Instant::now(),
            ended: false,
            clean: false,
        }
    }

    /// Waits for the next event, for ever if need be; `None` when the stream has ended.
    ///
    /// It ends in many routine ways (the daemon or a proxy closes it, with the last chunk or without);
    /// none of them is an error.
    ///
    /// # Errors
    /// When the bytes are no HTTP, or a dead peer was found by the keepalive (`TimedOut`).
    #[expect(
        clippy::should_implement_trait,
        reason = "an iterator could not say that it failed and go on"
    )]
    pub fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(event) = self.lines.next_event() {
                return Ok(Some(event));
            }
            if self.ended {
                return Ok(None);
            }
            match self.wire.next_piece() {
                Ok(Piece::Data(piece)) => self.lines.push(self.wire.data(piece)),
                Ok(Piece::End | Piece::Head(_)) => {
                    self.ended = true;
                    self.clean = true;
                }
                Err(fault) => {
                    self.ended = true;
                    if !fault.closed() {
                        return Err(refusal::unanswered(Ask::Events, &self.address, &fault));
                    }
                }
            }
        }
    }

    /// A handle with which another thread can end this stream.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn hangup(&self) -> Result<Hangup> {
        self.wire.hangup()
    }

    /// Whether it was ended, not cut, within a second and without one line.
    ///
    /// A daemon that does so again and again keeps no events (Podman with `events_logger=none`):
    /// looking every few seconds is all that is left.
    pub fn ended_at_once(&self) -> bool {
        self.clean && self.lines.lines() == 0 && self.opened.elapsed() < AT_ONCE
    }

    /// How many lines were no event at all, and skipped.
    pub fn bad_lines(&self) -> u64 {
        self.lines.bad_lines()
    }
}

impl Drop for EventStream {
    /// Whoever has a handle keeps the connection open, and Docker is slowed down by a stream that nobody reads.
    fn drop(&mut self) {
        if let Ok(handle) = self.hangup() {
            handle.hang_up();
        }
    }
}
