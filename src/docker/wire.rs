//! One connection to the daemon: sends a request, reads the answer piece by piece.
//!
//! Joins the pure HTTP reader to a transport. Knows neither what is asked nor what an answer means.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::time::Instant;

use crate::http::{Decoder, Head, HttpError, Item, Limits};
use crate::transport::{Connection, Hangup, Plain};

/// Read buffer of a connection; must hold the longest head that [`Limits`] lets pass.
const BUFFER_BYTES: usize = 32 << 10;

/// Why no whole answer came.
#[derive(Debug)]
pub(super) enum Fault {
    /// The connection failed.
    Io(io::Error),
    /// The answer is not HTTP, or was cut.
    Http(HttpError),
    /// The body is longer than this many bytes.
    TooLong(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Io(error) => Plain(error).fmt(f),
            Fault::Http(error) => error.fmt(f),
            Fault::TooLong(limit) => write!(f, "the answer is longer than {limit} bytes"),
        }
    }
}

impl Fault {
    /// The time limit ran out.
    pub(super) fn timed_out(&self) -> bool {
        matches!(self, Fault::Io(error) if error.kind() == io::ErrorKind::TimedOut)
    }

    /// The peer is gone, in whatever way; nothing it said was wrong.
    ///
    /// TLS without a farewell is among them: that is how dockerd ends its streams.
    pub(super) fn closed(&self) -> bool {
        match self {
            Fault::Io(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::NotConnected
            ),
            Fault::Http(error) => matches!(
                error,
                HttpError::NoAnswer | HttpError::CutHead | HttpError::CutBody
            ),
            Fault::TooLong(_) => false,
        }
    }
}

/// What came next; body bytes are looked up with [`Wire::data`].
pub(super) enum Piece {
    Head(Head),
    Data(Range<usize>),
    End,
}

/// Takes a body piece by piece.
pub(super) type Sink<'a> = &'a mut dyn FnMut(&[u8]);

/// As much of an answer as has come.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// Its head, once it is there.
    pub(super) head: Option<Head>,
    /// Its body so far, unless somebody else took it.
    pub(super) body: Vec<u8>,
    /// Length of its body so far.
    pub(super) bytes: usize,
}

/// A connection with its read buffer and the answer that is being read.
#[derive(Debug)]
pub(super) struct Wire {
    connection: Connection,
    decoder: Decoder,
    buffer: Vec<u8>,
    /// Bytes that were received and not yet decoded.
    pending: Range<usize>,
    /// Whether a byte of the current answer has come.
    heard: bool,
}

impl Wire {
    pub(super) fn new(connection: Connection) -> Self {
        Wire {
            connection,
            decoder: Decoder::new(Limits::default()),
            buffer: vec![0; BUFFER_BYTES],
            pending: 0..0,
            heard: false,
        }
    }

    /// Sends a `GET`; the answer is read with [`Wire::next_piece`]. No deadline holds until the next one is set.
    pub(super) fn send(&mut self, path: &str) -> Result<(), Fault> {
        // Docker wants a Host and ignores what it says; one with a slash in it is refused.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: docker\r\nUser-Agent: cosmonaut/{}\r\n\r\n",
            env!("CARGO_PKG_VERSION")
        );
        self.decoder = Decoder::new(Limits::default());
        self.heard = false;
        self.connection
            .write_all(request.as_bytes())
            .and_then(|()| self.connection.flush())
            .map_err(Fault::Io)
    }

    pub(super) fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.connection.set_deadline(deadline);
    }

    /// The next piece of the answer, waiting for it.
    pub(super) fn next_piece(&mut self) -> Result<Piece, Fault> {
        loop {
            let input = self.buffer.get(self.pending.clone()).unwrap_or_default();
            let (used, item) = self.decoder.decode(input).map_err(Fault::Http)?;
            self.pending.start += used;
            match item {
                Item::Head(head) => return Ok(Piece::Head(head)),
                Item::Data(data) => {
                    return Ok(Piece::Data(
                        self.pending.start - data.len()..self.pending.start,
                    ));
                }
                Item::End => return Ok(Piece::End),
                Item::More => {}
            }
            if !self.receive()? {
                return match self.decoder.end_of_input() {
                    Ok(()) => Ok(Piece::End),
                    Err(error) => Err(Fault::Http(error)),
                };
            }
        }
    }

    /// The bytes of a piece, until the next one is asked for.
    pub(super) fn data(&self, piece: Range<usize>) -> &[u8] {
        self.buffer.get(piece).unwrap_or_default()
    }

    /// Reads more bytes behind those that are pending; false at the end of the connection.
    fn receive(&mut self) -> Result<bool, Fault> {
        self.buffer.copy_within(self.pending.clone(), 0);
        self.pending = 0..self.pending.len();
        let free = self.buffer.get_mut(self.pending.end..).unwrap_or_default();
        let bytes = match self.connection.read(free) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(Fault::Io(error)),
        };
        self.heard |= bytes > 0;
        self.pending.end += bytes;
        Ok(bytes > 0)
    }

    /// Reads the whole answer into `partial`, its body up to `body_bytes_max`. With `each`, a body that comes
    /// with 200 is handed over piece by piece and not kept.
    ///
    /// After a deadline that ran out it can be called again: what has come is kept there.
    pub(super) fn answer(
        &mut self,
        partial: &mut Partial,
        body_bytes_max: usize,
        mut each: Option<Sink>,
    ) -> Result<Head, Fault> {
        loop {
            match self.next_piece()? {
                Piece::Head(head) => partial.head = Some(head),
                Piece::Data(piece) => {
                    let data = self.data(piece);
                    partial.bytes += data.len();
                    if partial.bytes > body_bytes_max {
                        return Err(Fault::TooLong(body_bytes_max));
                    }
                    let good = partial.head.as_ref().is_some_and(|head| head.status == 200);
                    match &mut each {
                        Some(each) if good => each(data),
                        _ => partial.body.extend_from_slice(data),
                    }
                }
                Piece::End => {
                    return partial.head.take().ok_or(Fault::Http(HttpError::Head));
                }
            }
        }
    }

    /// Whether a byte of the current answer has come.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    /// Whether the next request can go over this connection.
    pub(super) fn keeps_alive(&self) -> bool {
        // Bytes behind the answer belong to nothing that we asked for.
        self.decoder.keeps_alive() && self.pending.is_empty()
    }

    pub(super) fn hangup(&self) -> crate::error::Result<Hangup> {
        self.connection.hangup()
    }
}
