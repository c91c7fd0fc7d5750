//! Reads one HTTP/1.1 response out of bytes: the head, then the pieces of the body.
//!
//! httparse reads heads and chunk sizes; this file decides where a body ends (RFC 9112 section 6.3).
//! No I/O and no clock: the caller brings bytes and keeps those that were not consumed. Serves Docker and
//! Weave, and knows neither. Only answers to `GET` are understood (an answer to `HEAD` has no body).

use std::fmt;

/// Interim (1xx) heads skipped before one answer; servers send one at most, an endless row is an attack.
const INTERIM_HEADS_MAX: usize = 8;

/// What one response may take before it is refused.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest head (status line and header fields) in bytes; the caller's buffer must hold it.
    pub head_bytes: usize,
    /// Most header fields in a head or trailer.
    pub headers: usize,
    /// Longest chunk line (size and extensions) in bytes.
    pub chunk_line_bytes: usize,
    /// Longest trailer section in bytes.
    pub trailer_bytes: usize,
}

impl Default for Limits {
    /// Docker's heads have 8 fields and 300 bytes; proxies add some. 64 fields in 16 KiB are far past both.
    fn default() -> Self {
        Limits {
            head_bytes: 16 << 10,
            headers: 64,
            chunk_line_bytes: 1 << 10,
            trailer_bytes: 8 << 10,
        }
    }
}

/// Status line and header fields of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Status code, 100 to 999.
    pub status: u16,
    /// Reason phrase; may be empty.
    pub reason: String,
    fields: Vec<(String, String)>,
    /// HTTP/1.x: x.
    minor: u8,
}

impl Head {
    /// The first field of that name, in any case; bytes that are not UTF-8 are replaced.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.fields
            .iter()
            .filter(move |(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// All members of a comma-separated field, over all its lines (RFC 9110 section 5.6.1).
    fn members(&self, name: &str) -> impl Iterator<Item = &str> {
        self.all(name)
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|member| !member.is_empty())
    }
}

/// What comes next out of the bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// Bring more bytes.
    More,
    /// The head of the final answer.
    Head(Head),
    /// A piece of the body; its borders mean nothing.
    Data(&'a [u8]),
    /// The response is complete; bytes after it belong to the next one.
    End,
}

/// Why bytes are no response, or one that we refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// Not a status line with header fields.
    Head,
    /// Past [`Limits::head_bytes`].
    HeadTooLong,
    /// Past [`Limits::headers`].
    TooManyHeaders,
    /// More interim answers than any server sends.
    TooManyInterim,
    /// 101: the server speaks another protocol from here on; we never ask for one.
    SwitchedProtocol,
    /// `Content-Length` is not one number.
    ContentLength,
    /// A chunk size that is none, or a chunk that does not end where it said.
    Chunk,
    /// Past [`Limits::chunk_line_bytes`].
    ChunkLineTooLong,
    /// The fields after the last chunk are none.
    Trailer,
    /// Past [`Limits::trailer_bytes`].
    TrailerTooLong,
    /// The connection ended before any byte of an answer.
    NoAnswer,
    /// The connection ended inside the head.
    CutHead,
    /// The connection ended inside the body.
    CutBody,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HttpError::Head => "the answer is not HTTP",
            HttpError::HeadTooLong => "the head of the answer is too long",
            HttpError::TooManyHeaders => "the answer has too many header fields",
            HttpError::TooManyInterim => "interim answers without end",
            HttpError::SwitchedProtocol => "the server switched to another protocol",
            HttpError::ContentLength => "the Content-Length of the answer is not a number",
            HttpError::Chunk => "the answer has a malformed chunk",
            HttpError::ChunkLineTooLong => "the answer has an endless chunk line",
            HttpError::Trailer => "the answer has malformed trailer fields",
            HttpError::TrailerTooLong => "the trailer fields of the answer are too long",
            HttpError::NoAnswer => "the connection was closed without an answer",
            HttpError::CutHead => "the connection was closed inside the head of the answer",
            HttpError::CutBody => "the connection was closed inside the answer",
        })
    }
}

impl std::error::Error for HttpError {}

/// Where the reader stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// Body bytes to come by `Content-Length`.
    Length(u64),
    /// Body until the connection ends.
    Close,
    /// A chunk line comes next.
    ChunkLine,
    /// Bytes of the current chunk to come.
    Chunk(u64),
    /// The line end after a chunk.
    ChunkEnd,
    Trailer,
    Done,
}

/// Reads one response; make a new one for the next.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    state: State,
    interim: usize,
    started: bool,
    keep_alive: bool,
}

impl Decoder {
    /// A reader for one answer to a `GET`.
    pub fn new(limits: Limits) -> Self {
        Decoder {
            limits,
            state: State::Head,
            interim: 0,
            started: false,
            keep_alive: false,
        }
    }

    /// Takes what it can from `input`: how many bytes are used up, and what they were.
    ///
    /// With [`Item::More`] the rest of `input` must be given again, with more bytes behind it;
    /// the used bytes can be some even then (chunk framing).
    ///
    /// # Errors
    /// [`HttpError`]; the response cannot be read further after one.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> Result<(usize, Item<'a>), HttpError> {
        let mut used = 0;
        loop {
            let rest = input.get(used..).unwrap_or_default();
            self.started |= !rest.is_empty();
            match self.state {
                State::Head => match self.head(rest)? {
                    None => return Ok((used, Item::More)),
                    Some((bytes, None)) => used += bytes,
                    Some((bytes, Some(head))) => return Ok((used + bytes, Item::Head(head))),
                },
                State::Length(0) | State::Done => {
                    self.state = State::Done;
                    return Ok((used, Item::End));
                }
                State::Chunk(0) => self.state = State::ChunkEnd,
                _ if rest.is_empty() => return Ok((used, Item::More)),
                State::Close => return Ok((used + rest.len(), Item::Data(rest))),
                State::Length(left) => {
                    let data = piece(rest, left);
                    self.state = State::Length(left - data.len() as u64);
                    return Ok((used + data.len(), Item::Data(data)));
                }
                State::Chunk(left) => {
                    let data = piece(rest, left);
                    self.state = State::Chunk(left - data.len() as u64);
                    return Ok((used + data.len(), Item::Data(data)));
                }
                State::ChunkLine => match self.chunk_line(rest)? {
                    None => return Ok((used, Item::More)),
                    Some((bytes, size)) => {
                        used += bytes;
                        self.state = if size == 0 {
                            State::Trailer
                        } else {
                            State::Chunk(size)
                        };
                    }
                },
                // RFC 9112 section 7.1: chunk-data is followed by CRLF.
                State::ChunkEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        used += 2;
                        self.state = State::ChunkLine;
                    }
                    [b'\r'] => return Ok((used, Item::More)),
                    _ => return Err(HttpError::Chunk),
                },
                State::Trailer => match self.trailer(rest)? {
                    None => return Ok((used, Item::More)),
                    Some(bytes) => {
                        used += bytes;
                        self.state = State::Done;
                    }
                },
            }
        }
    }

    /// The connection has ended after all bytes given so far.
    ///
    /// # Errors
    /// `NoAnswer`, `CutHead` or `CutBody` unless the response was complete or a body that ends
    /// with the connection (RFC 9112 section 8).
    pub fn end_of_input(&mut self) -> Result<(), HttpError> {
        match self.state {
            State::Done | State::Close | State::Length(0) => {
                self.state = State::Done;
                Ok(())
            }
            State::Head if !self.started => Err(HttpError::NoAnswer),
            State::Head => Err(HttpError::CutHead),
            _ => Err(HttpError::CutBody),
        }
    }

    /// Whether the connection can carry another request now: the response is complete and
    /// neither side said that it closes (RFC 9112 section 9.3).
    pub fn keeps_alive(&self) -> bool {
        self.keep_alive && matches!(self.state, State::Done | State::Length(0))
    }

    /// `Some((bytes, None))` for an interim head, `Some((bytes, Some(head)))` for the final one.
    fn head(&mut self, input: &[u8]) -> Result<Option<(usize, Option<Head>)>, HttpError> {
        let shown = input.get(..self.limits.head_bytes).unwrap_or(input);
        let mut fields = vec![httparse::EMPTY_HEADER; self.limits.headers];
        let mut response = httparse::Response::new(&mut fields);
        let bytes = match response.parse(shown) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) if shown.len() == self.limits.head_bytes => {
                return Err(HttpError::HeadTooLong);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(HttpError::TooManyHeaders),
            Err(_) => return Err(HttpError::Head),
        };
        let head = Head {
            status: response.code.unwrap_or_default(),
            reason: response.reason.unwrap_or_default().to_owned(),
            minor: response.version.unwrap_or_default(),
            fields: response
                .headers
                .iter()
                .map(|field| {
                    (
                        field.name.to_owned(),
                        String::from_utf8_lossy(field.value).into_owned(),
                    )
                })
                .collect(),
        };
        match head.status {
            101 => return Err(HttpError::SwitchedProtocol),
            // RFC 9110 section 15.2: a client must read past interim answers that it did not expect.
            100..=199 => {
                self.interim += 1;
                if self.interim > INTERIM_HEADS_MAX {
                    return Err(HttpError::TooManyInterim);
                }
                return Ok(Some((bytes, None)));
            }
            200..=999 => {}
            _ => return Err(HttpError::Head),
        }
        let (state, whole) = body(&head)?;
        self.state = state;
        self.keep_alive = whole && persists(&head);
        Ok(Some((bytes, Some(head))))
    }

    fn chunk_line(&self, input: &[u8]) -> Result<Option<(usize, u64)>, HttpError> {
        let limit = self.limits.chunk_line_bytes;
        let shown = input.get(..limit).unwrap_or(input);
        // httparse takes a line without digits for zero, which would end the body.
        if !shown.first().is_some_and(u8::is_ascii_hexdigit) {
            return Err(HttpError::Chunk);
        }
        match httparse::parse_chunk_size(shown) {
            Ok(httparse::Status::Complete(line)) => Ok(Some(line)),
            Ok(httparse::Status::Partial) if shown.len() == limit => {
                Err(HttpError::ChunkLineTooLong)
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(_) => Err(HttpError::Chunk),
        }
    }

    /// How many bytes the trailer section takes, its empty line included (RFC 9112 section 7.1.2).
    fn trailer(&self, input: &[u8]) -> Result<Option<usize>, HttpError> {
        let limit = self.limits.trailer_bytes;
        let shown = input.get(..limit).unwrap_or(input);
        let mut fields = vec![httparse::EMPTY_HEADER; self.limits.headers];
        match httparse::parse_headers(shown, &mut fields) {
            Ok(httparse::Status::Complete((bytes, _))) => Ok(Some(bytes)),
            Ok(httparse::Status::Partial) if shown.len() == limit => Err(HttpError::TrailerTooLong),
            Ok(httparse::Status::Partial) => Ok(None),
            Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooManyHeaders),
            Err(_) => Err(HttpError::Trailer),
        }
    }
}

/// The front of `rest` that belongs to a body part of which `left` bytes are to come.
fn piece(rest: &[u8], left: u64) -> &[u8] {
    let bytes = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
    rest.get(..bytes).unwrap_or(rest)
}

/// How the body ends (RFC 9112 section 6.3), and whether its framing can be trusted
/// enough to read another response behind it.
fn body(head: &Head) -> Result<(State, bool), HttpError> {
    // Rule 1: these never have a body, whatever the fields say.
    if matches!(head.status, 204 | 304) {
        return Ok((State::Done, true));
    }
    let codings: Vec<&str> = head.members("transfer-encoding").collect();
    let mut lengths = head.members("content-length").peekable();
    // Rules 3 and 4: Transfer-Encoding overrides Content-Length. Both together, or chunks under
    // HTTP/1.0, may be an attempt to smuggle: the connection is not used again (section 6.1).
    if let Some(last) = codings.last() {
        let suspect = lengths.peek().is_some() || head.minor == 0;
        return Ok(if last.eq_ignore_ascii_case("chunked") {
            (State::ChunkLine, !suspect)
        } else {
            (State::Close, false)
        });
    }
    // Rule 5: the same number several times is one; anything else cannot be trusted at all.
    let Some(first) = lengths.next() else {
        // Rule 8: no length, so the connection ends the body.
        return if head.header("content-length").is_some() {
            Err(HttpError::ContentLength)
        } else {
            Ok((State::Close, false))
        };
    };
    if !first.bytes().all(|byte| byte.is_ascii_digit()) || lengths.any(|other| other != first) {
        return Err(HttpError::ContentLength);
    }
    let length = first.parse().map_err(|_| HttpError::ContentLength)?;
    Ok((State::Length(length), true))
}

/// RFC 9112 section 9.3: "close" ends it; else HTTP/1.1 goes on, HTTP/1.0 only with "keep-alive".
fn persists(head: &Head) -> bool {
    let says = |option: &str| {
        head.members("connection")
            .any(|member| member.eq_ignore_ascii_case(option))
    };
    !says("close") && (head.minor > 0 || says("keep-alive"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    /// All that an answer is: status, body, bytes behind it, and whether the connection goes on.
    #[derive(Debug, PartialEq, Eq, Clone)]
    struct Answer {
        status: u16,
        body: Vec<u8>,
        behind: usize,
        keeps_alive: bool,
    }

    /// Reads `pieces` one after the other as a connection would bring them, then its end.
    fn read(pieces: &[&[u8]], limits: Limits) -> Result<Answer, HttpError> {
        let mut decoder = Decoder::new(limits);
        let mut pending = Vec::new();
        let mut head = None;
        let mut body = Vec::new();
        let mut ended = false;
        for piece in pieces {
            pending.extend_from_slice(piece);
            loop {
                let (used, item) = decoder.decode(&pending)?;
                let (more, end) = (item == Item::More, item == Item::End);
                match item {
                    Item::Head(found) => assert!(head.replace(found).is_none(), "two heads"),
                    Item::Data(data) => {
                        assert!(head.is_some() && !data.is_empty());
                        body.extend_from_slice(data);
                    }
                    Item::End => ended = true,
                    Item::More => {}
                }
                pending.drain(..used);
                if more || end {
                    break;
                }
            }
        }
        if !ended {
            decoder.end_of_input()?;
        }
        Ok(Answer {
            status: head.expect("a head").status,
            body,
            behind: pending.len(),
            keeps_alive: decoder.keeps_alive(),
        })
    }

    fn fixtures() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/docker");
        let mut found = Vec::new();
        for folder in [
            "docker-20.10.24",
            "podman-4.3.1",
            "socket-proxy-haproxy-2.6",
        ] {
            for entry in std::fs::read_dir(root.join(folder)).expect("fixtures") {
                let path = entry.expect("fixture").path();
                if path.extension().is_some_and(|ext| ext == "http") {
                    found.push(path);
                }
            }
        }
        assert!(found.len() > 60, "{found:?}");
        found
    }

    #[test]
    fn captures_cut_anywhere_give_the_same_answer() {
        for path in fixtures() {
            let bytes = std::fs::read(&path).expect("fixture");
            let whole = read(&[&bytes], Limits::default());
            // A large one is cut at each place of its framing and here and there in its text.
            let step = bytes.len() / 4_000 + 1;
            for cut in (0..=bytes.len()).step_by(step) {
                let (front, back) = bytes.split_at(cut);
                assert_eq!(
                    read(&[front, back], Limits::default()),
                    whole,
                    "{} at {cut}",
                    path.display()
                );
            }
        }
    }

    #[test]
    fn captures_byte_by_byte_and_at_every_pair_of_cuts() {
        for path in fixtures() {
            let bytes = std::fs::read(&path).expect("fixture");
            let whole = read(&[&bytes], Limits::default());
            if bytes.len() < 8_000 {
                let single: Vec<&[u8]> = bytes.chunks(1).collect();
                assert_eq!(
                    read(&single, Limits::default()),
                    whole,
                    "{}",
                    path.display()
                );
            }
        }
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nA;x=\"y\"\r\n0123456789\r\n1\r\na\r\n0\r\nT: x\r\n\r\nrest";
        let whole = read(&[bytes], Limits::default());
        assert_eq!(whole.as_ref().map(|answer| answer.behind), Ok(4));
        for first in 0..bytes.len() {
            for second in first..bytes.len() {
                let (front, rest) = bytes.split_at(second);
                let (front, middle) = front.split_at(first);
                let cut = read(&[front, middle, rest], Limits::default());
                assert_eq!(cut.map(|answer| answer.body), Ok(b"0123456789a".to_vec()));
            }
        }
    }

    #[test]
    fn captured_answers_have_the_bodies_that_curl_saw() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/docker");
        for (name, body) in [
            ("docker-20.10.24/containers-json-all", "json"),
            ("docker-20.10.24/inspect-multi", "json"),
            ("podman-4.3.1/containers-json-all", "json"),
        ] {
            let bytes = std::fs::read(root.join(format!("{name}.http"))).expect("fixture");
            let plain = std::fs::read(root.join(format!("{name}.{body}"))).expect("fixture");
            let answer = read(&[&bytes], Limits::default()).expect("an answer");
            assert_eq!(answer.body.trim_ascii(), plain.trim_ascii(), "{name}");
            assert!(answer.keeps_alive && answer.behind == 0, "{name}");
        }
        // The capture of a stream stops where it stopped: all events, then a cut.
        for name in [
            "docker-20.10.24/events-lifecycle",
            "podman-4.3.1/events-lifecycle",
        ] {
            let bytes = std::fs::read(root.join(format!("{name}.http"))).expect("fixture");
            assert_eq!(
                read(&[&bytes], Limits::default()),
                Err(HttpError::CutBody),
                "{name}"
            );
        }
    }

    fn head(text: &str) -> Head {
        match Decoder::new(Limits::default()).decode(text.as_bytes()) {
            Ok((_, Item::Head(head))) => head,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn header_names_have_no_case() {
        let head =
            head("HTTP/1.1 200 OK\r\napi-version: 1.41\r\nDATE: x\r\nX: ä\r\ndate: y\r\n\r\n");
        assert_eq!(head.header("Api-Version"), Some("1.41"));
        assert_eq!(head.header("Date"), Some("x"));
        assert_eq!(head.header("Server"), None);
        assert_eq!(head.reason, "OK");
    }

    #[test]
    fn bodies_end_where_the_rfc_says() {
        for (text, status, body, behind, keeps_alive) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOKx",
                200,
                "OK",
                1,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                200,
                "",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nContent-Length: 2\r\n\r\nOK",
                200,
                "OK",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nConnection: foo, Close\r\nContent-Length: 2\r\n\r\nOK",
                200,
                "OK",
                0,
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nOK",
                200,
                "OK",
                0,
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nOK",
                200,
                "OK",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\n\r\nto the end",
                200,
                "to the end",
                0,
                false,
            ),
            ("HTTP/1.1 200\r\n\r\n", 200, "", 0, false),
            (
                "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                204,
                "",
                0,
                true,
            ),
            (
                "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
                204,
                "",
                0,
                true,
            ),
            ("HTTP/1.1 304 Not Modified\r\n\r\n", 304, "", 0, true),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
                200,
                "a",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                200,
                "",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n00a \t;ext\r\n0123456789\r\n0;x\r\nA: b\r\nC: d\r\n\r\n",
                200,
                "0123456789",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                200,
                "a",
                0,
                false,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
                200,
                "a",
                0,
                true,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nzzz",
                200,
                "zzz",
                0,
                false,
            ),
            (
                "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n1\r\na\r\n0\r\n\r\n",
                200,
                "a",
                0,
                false,
            ),
        ] {
            let expected = Answer {
                status,
                body: body.into(),
                behind,
                keeps_alive,
            };
            assert_eq!(
                read(&[text.as_bytes()], Limits::default()),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn malformed_answers_are_refused() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = |body: &str| format!("{chunked}{body}");
        let many = |field: &str, times: usize| field.repeat(times);
        for (text, error) in [
            (String::new(), HttpError::NoAnswer),
            ("HTTP/1.1 200 OK\r\nA: b".into(), HttpError::CutHead),
            ("SSH-2.0-OpenSSH_9.2\r\n".into(), HttpError::Head),
            ("HTTP/2 200 OK\r\n\r\n".into(), HttpError::Head),
            ("HTTP/1.1 20 OK\r\n\r\n".into(), HttpError::Head),
            ("HTTP/1.1 000 OK\r\n\r\n".into(), HttpError::Head),
            ("HTTP/1.1 200 OK\r\nA b\r\n\r\n".into(), HttpError::Head),
            (
                "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n".into(),
                HttpError::Head,
            ),
            ("\x15\x03\x03\0\x02\x02\x46".into(), HttpError::Head),
            (
                "HTTP/1.1 101 Switching\r\n\r\n".into(),
                HttpError::SwitchedProtocol,
            ),
            (
                many("HTTP/1.1 100 Continue\r\n\r\n", 9),
                HttpError::TooManyInterim,
            ),
            (
                format!("HTTP/1.1 200 OK\r\n{}\r\n", many("A: b\r\n", 65)),
                HttpError::TooManyHeaders,
            ),
            (
                format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", many("b", 16 << 10)),
                HttpError::HeadTooLong,
            ),
            (many("\r\n", 16 << 10), HttpError::HeadTooLong),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nOK".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n".into(),
                HttpError::ContentLength,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nOK".into(),
                HttpError::CutBody,
            ),
            (body(""), HttpError::CutBody),
            (body("5\r\nhel"), HttpError::CutBody),
            (body("5\r\nhello\r\n"), HttpError::CutBody),
            (body("5\r\nhello\r\n0\r\n"), HttpError::CutBody),
            (body("5\r\nhelloworld"), HttpError::Chunk),
            (body("5\r\nhello\rX"), HttpError::Chunk),
            (body("\r\n"), HttpError::Chunk),
            (body(";x\r\n"), HttpError::Chunk),
            (body("-1\r\n"), HttpError::Chunk),
            (body("0x5\r\nhello"), HttpError::Chunk),
            (body("5\nhello"), HttpError::Chunk),
            (body("ffffffffffffffff0\r\n"), HttpError::Chunk),
            (
                body(&format!("5;{}", many("x", 1 << 10))),
                HttpError::ChunkLineTooLong,
            ),
            (body("0\r\nno colon\r\n\r\n"), HttpError::Trailer),
            (
                body(&format!("0\r\nA: {}", many("b", 8 << 10))),
                HttpError::TrailerTooLong,
            ),
            (
                body(&format!("0\r\n{}\r\n", many("A: b\r\n", 65))),
                HttpError::TooManyHeaders,
            ),
        ] {
            let shown = text.chars().take(120).collect::<String>();
            assert_eq!(
                read(&[text.as_bytes()], Limits::default()),
                Err(error),
                "{shown}"
            );
        }
    }

    #[test]
    fn no_row_of_nasty_words_panics_or_never_ends() {
        const WORDS: [&str; 22] = [
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 204 x\r\n",
            "HTTP/1.1 100 C\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\n",
            "Content-Length: 18446744073709551615\r\n",
            "Connection: close\r\n",
            "\r\n",
            "\r",
            "\n",
            "0",
            "1",
            "ffffffffffffffff",
            "A",
            ";",
            " ",
            ":",
            "\0",
            "\u{ff}",
            "\t",
            "0\r\n\r\n",
            "x: y\r\n",
        ];
        fn try_all(prefix: &str, left: usize) {
            let bytes = prefix.as_bytes();
            let whole = read_quietly(&[bytes]);
            let (front, back) = bytes.split_at(bytes.len() / 2);
            assert_eq!(read_quietly(&[front, back]), whole, "{prefix:?}");
            if left > 0 {
                for word in WORDS {
                    try_all(&format!("{prefix}{word}"), left - 1);
                }
            }
        }
        fn read_quietly(pieces: &[&[u8]]) -> Result<Vec<u8>, HttpError> {
            read(pieces, Limits::default()).map(|answer| answer.body)
        }
        try_all("", 3);
        try_all("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 3);
        try_all("HTTP/1.1 200 OK\r\n", 3);
    }
}
