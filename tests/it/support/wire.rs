//! Sockets and the least of HTTP that a fake server needs: one listener for Unix and TCP,
//! request heads in, bytes out exactly as told.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;

/// Longest request a fake takes, in bytes: a payload of 1,000 services is a tenth of it.
const REQUEST_BYTES_MAX: usize = 8 << 20;

/// Where a fake listens.
#[derive(Debug, Clone)]
pub enum Place {
    Unix(PathBuf),
    /// Port 0 until it listens for the first time; the same port ever after.
    Tcp(u16),
}

pub enum Listener {
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    /// Listens at `place`, over whatever a former life left there.
    pub fn open(place: &mut Place) -> io::Result<Listener> {
        match place {
            Place::Unix(path) => {
                let _ = std::fs::remove_file(&path);
                Ok(Listener::Unix(UnixListener::bind(path)?))
            }
            Place::Tcp(port) => {
                let listener = TcpListener::bind(("127.0.0.1", *port))?;
                *port = listener.local_addr()?.port();
                Ok(Listener::Tcp(listener))
            }
        }
    }

    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(listener) => Ok(Stream::Unix(listener.accept()?.0)),
            Listener::Tcp(listener) => {
                let stream = listener.accept()?.0;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

pub enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub fn connect(place: &Place) -> io::Result<Stream> {
        match place {
            Place::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path)?)),
            Place::Tcp(port) => Ok(Stream::Tcp(TcpStream::connect(("127.0.0.1", *port))?)),
        }
    }

    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            Stream::Unix(stream) => Ok(Stream::Unix(stream.try_clone()?)),
            Stream::Tcp(stream) => Ok(Stream::Tcp(stream.try_clone()?)),
        }
    }

    pub fn shut_down(&self) {
        let _ = match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Both),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.set_read_timeout(limit),
            Stream::Tcp(stream) => stream.set_read_timeout(limit),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(buffer),
            Stream::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a client sent, as it stood on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    pub method: String,
    /// With the query.
    pub target: String,
    /// Header lines as sent, without the request line.
    pub headers: Vec<String>,
    pub body: Vec<u8>,
}

impl Asked {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Reads one request; `None` when the client has closed or the connection was shut down.
///
/// `left` holds what was read past the end of the request and belongs to the next one.
pub fn read_request(stream: &mut Stream, left: &mut Vec<u8>) -> Option<Asked> {
    let end = loop {
        if let Some(at) = find(left, b"\r\n\r\n") {
            break at;
        }
        fill(stream, left)?;
    };
    let head = String::from_utf8_lossy(&left[..end]).into_owned();
    left.drain(..end + 4);
    let mut lines = head.split("\r\n").map(str::to_owned);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let mut asked = Asked {
        method: words.next()?.to_owned(),
        target: words.next()?.to_owned(),
        headers: lines.collect(),
        body: Vec::new(),
    };
    if asked
        .header("transfer-encoding")
        .is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
    {
        asked.body = read_chunked(stream, left)?;
    } else if let Some(length) = asked.header("content-length") {
        let length: usize = length.parse().ok()?;
        while left.len() < length {
            fill(stream, left)?;
        }
        asked.body = left.drain(..length).collect();
    }
    Some(asked)
}

fn read_chunked(stream: &mut Stream, left: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = loop {
            if let Some(at) = find(left, b"\r\n") {
                break at;
            }
            fill(stream, left)?;
        };
        let size = std::str::from_utf8(&left[..end]).ok()?.trim().to_owned();
        let size = usize::from_str_radix(&size, 16).ok()?;
        while left.len() < end + 2 + size + 2 {
            fill(stream, left)?;
        }
        body.extend_from_slice(&left[end + 2..end + 2 + size]);
        left.drain(..end + 2 + size + 2);
        if size == 0 {
            return Some(body);
        }
    }
}

fn fill(stream: &mut Stream, left: &mut Vec<u8>) -> Option<()> {
    if left.len() > REQUEST_BYTES_MAX {
        return None;
    }
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) | Err(_) => None,
        Ok(count) => {
            left.extend_from_slice(&buffer[..count]);
            Some(())
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

/// One chunk as HTTP/1.1 frames it.
pub fn chunk(bytes: &[u8], upper_hex: bool) -> Vec<u8> {
    let mut framed = if upper_hex {
        format!("{:X}\r\n", bytes.len()).into_bytes()
    } else {
        format!("{:x}\r\n", bytes.len()).into_bytes()
    };
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

/// A whole answer with its length said.
pub fn answer(status: &str, content_type: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What a fake does instead of its usual answer.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Nothing, for as long as the client waits.
    Silence,
    /// The usual answer, later.
    Late(Duration),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then nothing more, and the connection stays open.
    Held(Vec<u8>),
    /// Header lines without end.
    EndlessHead,
}

impl Reply {
    /// The connection is closed without a byte.
    pub fn closed() -> Reply {
        Reply::Raw(Vec::new())
    }

    /// A daemon that fails and says no more than that.
    pub fn broken() -> Reply {
        Reply::Raw(answer(
            "500 Internal Server Error",
            "application/json",
            r#"{"message":"broken"}"#,
        ))
    }
}

/// Plays a reply on the wire; `true` when the usual answer is to follow.
pub fn play(stream: &mut Stream, reply: &Reply) -> bool {
    match reply {
        Reply::Late(time) => {
            // Only the server's own slowness is a sleep; it ends early if the client leaves.
            let _ = stream.set_read_timeout(Some(*time));
            let gone = stream.read(&mut [0; 1]).is_ok();
            let _ = stream.set_read_timeout(None);
            return !gone;
        }
        Reply::Raw(bytes) => {
            let _ = stream.write_all(bytes);
        }
        Reply::Silence => wait_for_end(stream),
        Reply::Held(bytes) => {
            let _ = stream.write_all(bytes);
            wait_for_end(stream);
        }
        Reply::EndlessHead => {
            let mut sent = stream.write_all(b"HTTP/1.1 200 OK\r\n");
            let lines = "X-More: and more of it\r\n".repeat(100);
            while sent.is_ok() {
                sent = stream.write_all(lines.as_bytes());
            }
        }
    }
    false
}

/// Blocks until the client closes or the connection is shut down.
pub fn wait_for_end(stream: &mut Stream) {
    let mut buffer = [0; 256];
    while matches!(stream.read(&mut buffer), Ok(count) if count > 0) {}
}

/// Undoes percent-encoding, as in a query.
pub fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = tail
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                rest = &tail[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of one key of a target's query, decoded.
pub fn query(target: &str, key: &str) -> Option<String> {
    let (_, query) = target.split_once('?')?;
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == key).then(|| percent_decoded(value))
    })
}
