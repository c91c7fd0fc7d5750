//! HAProxy's runtime and master sockets: one command, its whole reply, within limits.
//!
//! There are no error codes on these sockets: a reply is text, and what it means is decided by whoever
//! asked. Source: HAProxy management guide, chapters "Unix Socket commands" and "Master CLI".

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};
use crate::transport::{self, Timed};

/// Longest reply, in bytes: `show servers state` of 5,000 servers is 0.4 MiB.
const REPLY_BYTES_MAX: u64 = 16 << 20;

/// Where a socket is: a path, or a host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SocketAddr {
    /// `PATH` or `unix@PATH`.
    Path(PathBuf),
    /// `HOST:PORT`, `ipv4@HOST:PORT` or `ipv6@HOST:PORT`.
    Tcp(String),
}

impl SocketAddr {
    /// Reads an address as HAProxy's `stats socket` and `-S` spell it.
    ///
    /// # Errors
    /// When it is neither an absolute path nor a host with a port.
    pub fn parse(text: &str) -> std::result::Result<Self, String> {
        let path = text.strip_prefix("unix@").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(SocketAddr::Path(PathBuf::from(path)));
        }
        let tcp = ["ipv4@", "ipv6@", "tcp@", "tcp://"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix));
        let tcp = tcp.unwrap_or(text);
        match tcp.rsplit_once(':') {
            Some((host, port))
                if !host.is_empty()
                    && !host.contains(['@', '/'])
                    && port.parse::<u16>().is_ok_and(|port| port > 0) =>
            {
                Ok(SocketAddr::Tcp(tcp.to_owned()))
            }
            _ => Err(format!(
                "{text} is no socket address; want /PATH or HOST:PORT"
            )),
        }
    }
}

impl fmt::Display for SocketAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddr::Path(path) => write!(f, "{}", path.display()),
            SocketAddr::Tcp(address) => f.write_str(address),
        }
    }
}

/// What `show info` says of the process that answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// `Version`.
    pub version: String,
    /// `Pid` of the worker.
    pub pid: String,
    /// `description` of the config it runs, ours when it starts with `cosmonaut:`.
    pub description: String,
}

/// Sends one line of commands (without line feed) and reads the reply to its end.
///
/// # Errors
/// When nobody listens there, the reply is not complete within `limit`, or is too long.
pub fn command(address: &SocketAddr, line: &str, limit: Duration) -> Result<String> {
    let until = Instant::now() + limit;
    let tried = || format!("cannot ask HAProxy at {address}");
    let failed = |e: std::io::Error| {
        let error = match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Error::new(tried(), format!("no answer within {limit:?}")).kind(Kind::TimedOut)
            }
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                Error::new(tried(), &e).kind(Kind::Unreachable)
            }
            ErrorKind::PermissionDenied => Error::new(tried(), &e).kind(Kind::Denied),
            _ => Error::new(tried(), &e),
        };
        error.hint("is HAProxy running, and does its config have a `stats socket` at that address?")
    };
    let socket = match address {
        SocketAddr::Path(path) => transport::unix_socket(path, until),
        SocketAddr::Tcp(host) => transport::tcp_socket(host, until),
    };
    let reply = socket
        .and_then(|socket| exchange(socket, line))
        .map_err(failed)?;
    if reply.len() as u64 > REPLY_BYTES_MAX {
        return Err(Error::new(
            tried(),
            format!("its reply is longer than {} MiB", REPLY_BYTES_MAX >> 20),
        ));
    }
    Ok(String::from_utf8_lossy(&reply).into_owned())
}

/// Asks for `show info`, through the master's socket when `master`.
///
/// # Errors
/// As [`command`], and when the answer is not that of a HAProxy.
pub fn info(address: &SocketAddr, master: bool, limit: Duration) -> Result<Info> {
    let reply = command(
        address,
        if master { "@1 show info" } else { "show info" },
        limit,
    )?;
    let value = |name: &str| {
        reply
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .unwrap_or("")
            .trim()
            .to_owned()
    };
    let info = Info {
        version: value("Version"),
        pid: value("Pid"),
        description: value("description"),
    };
    if info.version.is_empty() {
        let said = reply
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("nothing")
            .to_owned();
        return Err(Error::new(
            format!("cannot read what HAProxy at {address} says of itself"),
            said,
        ));
    }
    Ok(info)
}

/// Says one line and hears what comes until the other side closes, or is too long.
fn exchange(mut socket: Timed, line: &str) -> std::io::Result<Vec<u8>> {
    socket.write_all(format!("{line}\n").as_bytes())?;
    socket.said_all()?;
    let mut reply = Vec::new();
    socket.take(REPLY_BYTES_MAX + 1).read_to_end(&mut reply)?;
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_as_haproxy_spells_them() {
        for (text, expected) in [
            ("/run/haproxy/admin.sock", "/run/haproxy/admin.sock"),
            ("unix@/run/a", "/run/a"),
            ("127.0.0.1:9999", "127.0.0.1:9999"),
            ("ipv6@[::1]:9999", "[::1]:9999"),
        ] {
            assert_eq!(SocketAddr::parse(text).expect(text).to_string(), expected);
        }
        for text in [
            "",
            "run/a",
            "host",
            "host:",
            ":80",
            "host:0",
            "host:99999",
            "tcp://ipv6@:9",
        ] {
            assert!(SocketAddr::parse(text).is_err(), "{text}");
        }
    }
}
