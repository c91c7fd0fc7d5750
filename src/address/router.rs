//! Asks Weave's router: where it listens, one look over its HTTP API, and the `weave` command as
//! the way out.
//!
//! Only reads: `GET /report` and `GET /ip`. Other requests of that API allocate addresses and
//! change names, so none is ever sent. `/report` answers JSON to exactly one `Accept` header. No
//! proxy is used, whatever the environment says: the API is open to loopback only.
//!
//! The schedule is `poller`'s, the meaning `weave`'s. Programs are not run here: the `weave`
//! command is a function that the caller hands in.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::poller::{Notice, Poller};
use super::report::{self, Answer, Owned};
use super::status_dns;
use crate::error::{Error, Kind, Result};
use crate::http::{Decoder, HttpError, Item, Limits};
use crate::transport::{self, Address};

/// Port of the router's control API.
pub const HTTP_PORT: u16 = 6784;

/// Port of the router's read-only API: `/report` is there, `/ip` is not.
pub const STATUS_PORT: u16 = 6782;

/// Longest run of the `weave` command; it starts a container, 0.2 s when all is well. For the
/// function that runs it.
pub const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

/// Connecting is within this host.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A whole request; 5,000 names take 17 ms.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// Longest answer in bytes: fifty thousand names.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How much is read at once.
const READ_BYTES: usize = 64 << 10;

/// Least time between two runs of the `weave` command: each starts a container, with all its events.
const COMMAND_EVERY: Duration = Duration::from_secs(1);

/// How long a pass that must end waits for a router that cannot be asked at all.
const UNREACHABLE_PATIENCE: Duration = Duration::from_secs(2);

/// How much of an answer we repeat in an error, in characters.
const QUOTE_CHARS: usize = 120;

/// The `weave` command as the caller runs it: `weave status dns`, its output, one run per call,
/// within [`COMMAND_TIMEOUT`]. An exit code other than 0 is an error.
pub type Command<'a> = &'a mut dyn FnMut() -> Result<String>;

/// Reads an address of the router as `--weave-addr`, `WEAVE_HTTP_ADDR` and `WEAVE_STATUS_ADDR` have
/// it: `HOST`, `:PORT`, `HOST:PORT`, IPv6 with or without brackets, or the absolute path of a Unix
/// socket. Empty means loopback and the default port. `http://` and `unix://` before it are
/// allowed. An unspecified address, such as the plugin's `0.0.0.0:6782`, means loopback.
///
/// # Errors
/// Says what is wrong with the value.
pub fn address(text: &str, default_port: u16) -> Result<Address> {
    let bad = |cause: &str| {
        Error::new(
            format!("cannot read {text:?} as the address of Weave's router"),
            cause,
        )
        .hint("HOST, :PORT, HOST:PORT or the absolute path of a Unix socket")
        .kind(Kind::Usage)
    };
    let plain = text.trim();
    let plain = plain.strip_prefix("unix://").unwrap_or(plain);
    if plain.starts_with('/') {
        return Ok(Address::Unix(PathBuf::from(plain)));
    }
    let plain = plain
        .strip_prefix("http://")
        .or_else(|| plain.strip_prefix("tcp://"))
        .unwrap_or(plain);
    let plain = plain.strip_suffix('/').unwrap_or(plain);
    let port_of = |digits: &str| match digits.parse::<u16>() {
        Ok(port) if port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err(bad("the port is not a number from 1 to 65535")),
    };
    let (host, port) = if let Some(rest) = plain.strip_prefix('[') {
        let Some((host, rest)) = rest.split_once(']') else {
            return Err(bad("a bracket is not closed"));
        };
        if host.parse::<Ipv6Addr>().is_err() {
            return Err(bad("there is no IPv6 address in the brackets"));
        }
        match rest.strip_prefix(':') {
            Some(port) => (host, port_of(port)?),
            None if rest.is_empty() => (host, default_port),
            None => return Err(bad("there is more after the bracket than a port")),
        }
    } else if plain.parse::<Ipv6Addr>().is_ok() {
        (plain, default_port)
    } else {
        match plain.split_once(':') {
            Some((host, port)) => (host, port_of(port)?),
            None => (plain, default_port),
        }
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    if !host.bytes().all(is_name) {
        return Err(bad("that is no host name"));
    }
    let host = match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        Ok(IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        _ if host.is_empty() => Ipv4Addr::LOCALHOST.to_string(),
        _ => host.to_owned(),
    };
    Ok(Address::Tcp {
        host,
        port,
        tls: None,
    })
}

/// One address of the router.
#[derive(Debug)]
struct Door {
    address: Address,
    /// It answered 404 to `/ip`: not asked again until it has been away.
    no_ip: bool,
}

/// Weave's router, as we ask it.
#[derive(Debug)]
pub struct Router {
    doors: Vec<Door>,
    command_only: bool,
    command_run: Option<Instant>,
    told_no_dns: bool,
    told_skipped: bool,
    told_command: bool,
}

impl Router {
    /// The router at this address, asked over its API.
    pub fn new(address: Address) -> Self {
        Router {
            doors: vec![Door {
                address,
                no_ip: false,
            }],
            command_only: false,
            command_run: None,
            told_no_dns: false,
            told_skipped: false,
            told_command: false,
        }
    }

    /// A second address, tried when nobody listens at the first: that of `WEAVE_STATUS_ADDR`.
    #[must_use]
    pub fn or_else(mut self, address: Address) -> Self {
        self.doors.push(Door {
            address,
            no_ip: false,
        });
        self
    }

    /// `--weave-cli`: the command instead of the API.
    #[must_use]
    pub fn command_only(mut self, yes: bool) -> Self {
        self.command_only = yes;
        self
    }

    /// One look: `/report` and `/ip`. With a `command`, that is run when nobody listens at any
    /// address (or always, with [`Self::command_only`]); at most once a second, so this may sleep.
    ///
    /// # Errors
    /// What was asked where, and why there is nothing usable: `Unreachable` when nobody listens,
    /// `TimedOut` when a limit ran out, `Failed` for an answer that is no report.
    pub fn ask(&mut self, command: Option<Command<'_>>) -> Result<Answer> {
        let answer = match command {
            Some(command) if self.command_only => self.run(command)?,
            None if self.command_only => {
                return Err(Error::new("cannot run weave status dns", "no such command")
                    .hint("--weave-cli needs the weave command in PATH"));
            }
            command => match (self.ask_api(), command) {
                (Err(error), Some(command)) if error.is(Kind::Unreachable) => {
                    if !self.told_command {
                        log::info!("{error}; running weave status dns instead");
                        self.told_command = true;
                    }
                    self.run(command).map_err(|_| error)?
                }
                (answer, _) => answer?,
            },
        };
        self.tell(&answer);
        Ok(answer)
    }

    fn ask_api(&mut self) -> Result<Answer> {
        let mut first_error = None;
        for door in &mut self.doors {
            match door.ask() {
                Err(error) if error.is(Kind::Unreachable) => {
                    first_error.get_or_insert(error);
                }
                other => return other,
            }
        }
        Err(first_error.unwrap_or_else(|| Error::new("cannot ask Weave's router", "no address")))
    }

    fn run(&mut self, command: Command<'_>) -> Result<Answer> {
        if let Some(last) = self.command_run {
            thread::sleep(COMMAND_EVERY.saturating_sub(last.elapsed()));
        }
        let output = command();
        self.command_run = Some(Instant::now());
        Ok(status_dns::parse(&output?))
    }

    /// What an operator should hear once about answers that are odd, but used.
    fn tell(&mut self, answer: &Answer) {
        if answer.domain.is_none() && !self.told_no_dns {
            log::warn!(
                "Weave's router runs without weaveDNS: its allocator alone gives addresses, \
                 some 0.3 s before a container can use them"
            );
            self.told_no_dns = true;
        }
        if answer.skipped > 0 && !self.told_skipped {
            let skipped = answer.skipped;
            log::debug!("left out {skipped} entries of Weave's answer that make no sense");
            self.told_skipped = true;
        }
    }
}

impl Door {
    fn ask(&mut self) -> Result<Answer> {
        let answer = self.look();
        if answer.is_err() {
            // It may come back as another one, with an allocator.
            self.no_ip = false;
        }
        answer
    }

    fn look(&mut self) -> Result<Answer> {
        let report = get(&self.address, "/report")?;
        let refused = |cause: String| {
            Error::new(
                format!("cannot ask Weave's router at {}", self.address),
                cause,
            )
        };
        // 503 comes with a whole report while the router starts; it holds what it had before.
        let mut answer = match report.status {
            200 | 503 => report::report(&report.body).map_err(|error| {
                refused(format!("{} with {error}", report.status)).hint("is that Weave's router?")
            })?,
            404 => {
                return Err(refused("404 to /report".to_owned())
                    .hint("is that Weave's router? it listens on port 6784"));
            }
            status => return Err(refused(format!("{status} {}", report.quote()))),
        };
        if self.no_ip {
            answer.owned = Owned::Off;
            return Ok(answer);
        }
        let allocations = get(&self.address, "/ip")?;
        match allocations.status {
            200 | 503 => match report::owned(&allocations.body) {
                Ok((listed, skipped)) => {
                    answer.owned = Owned::Listed(listed);
                    answer.skipped += skipped;
                }
                Err(error) => log::debug!("cannot use /ip of Weave's router: {error}"),
            },
            404 | 405 => {
                self.no_ip = true;
                answer.owned = Owned::Off;
            }
            status => log::debug!("/ip of Weave's router: {status} {}", allocations.quote()),
        }
        Ok(answer)
    }
}

struct Response {
    status: u16,
    body: Vec<u8>,
}

impl Response {
    /// The beginning of the body as one printable line.
    fn quote(&self) -> String {
        String::from_utf8_lossy(&self.body)
            .chars()
            .map(|char| if char.is_control() { ' ' } else { char })
            .take(QUOTE_CHARS)
            .collect::<String>()
            .trim()
            .to_owned()
    }
}

/// Why one try of a request failed.
enum Failure {
    /// The connection broke; a busy router does that now and then, and a second try works.
    Broken(String),
    /// Final.
    Error(Error),
}

/// One `GET`, tried again once on a broken connection, within one time limit.
fn get(address: &Address, path: &str) -> Result<Response> {
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    let mut result = get_once(address, path, deadline);
    if let Err(Failure::Broken(_)) = result {
        result = get_once(address, path, deadline);
    }
    result.map_err(|failure| match failure {
        Failure::Broken(cause) => failed(address, path, cause),
        Failure::Error(error) => error,
    })
}

fn failed(address: &Address, path: &str, cause: impl std::fmt::Display) -> Error {
    Error::new(
        format!("cannot ask Weave's router for {path} at {address}"),
        cause,
    )
}

fn get_once(
    address: &Address,
    path: &str,
    deadline: Instant,
) -> std::result::Result<Response, Failure> {
    let classify = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Failure::Error(
            failed(
                address,
                path,
                format!("no answer in {}s", REQUEST_TIMEOUT.as_secs()),
            )
            .kind(Kind::TimedOut),
        ),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof => Failure::Broken(error.to_string()),
        _ => Failure::Error(failed(address, path, error)),
    };
    let cut = |error: HttpError| match error {
        HttpError::NoAnswer | HttpError::CutHead | HttpError::CutBody => {
            Failure::Broken(error.to_string())
        }
        _ => Failure::Error(failed(address, path, error).hint("is that Weave's router?")),
    };
    let patience = deadline.saturating_duration_since(Instant::now());
    let mut connection = transport::connect(address, CONNECT_TIMEOUT.min(patience))
        .map_err(|error| Failure::Error(unreachable(address, &error)))?;
    connection.set_deadline(Some(deadline));
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\
         Connection: close\r\n\r\n"
    );
    connection
        .write_all(request.as_bytes())
        .and_then(|()| connection.flush())
        .map_err(classify)?;

    let mut decoder = Decoder::new(Limits::default());
    let mut status = 0;
    let mut body = Vec::new();
    let mut buffer: Vec<u8> = Vec::new();
    let mut chunk = vec![0; READ_BYTES];
    loop {
        let mut used_all = 0;
        let ended = loop {
            let (used, item) = decoder
                .decode(buffer.get(used_all..).unwrap_or_default())
                .map_err(cut)?;
            used_all += used;
            match item {
                Item::More => break false,
                Item::End => break true,
                Item::Head(head) => status = head.status,
                Item::Data(data) if body.len() + data.len() > BODY_BYTES_MAX => {
                    return Err(Failure::Error(failed(
                        address,
                        path,
                        format!("the answer is longer than {BODY_BYTES_MAX} bytes"),
                    )));
                }
                Item::Data(data) => body.extend_from_slice(data),
            }
        };
        if ended {
            return Ok(Response { status, body });
        }
        buffer.drain(..used_all.min(buffer.len()));
        // Read errors and deadlines apply between any two reads, so a drip of bytes ends too.
        match connection.read(&mut chunk).map_err(classify)? {
            0 => {
                decoder.end_of_input().map_err(cut)?;
                return Ok(Response { status, body });
            }
            count => buffer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

/// A router that nobody can connect to; the cause is the transport's, the words are ours.
fn unreachable(address: &Address, error: &Error) -> Error {
    let kind = if error.is(Kind::Denied) {
        Kind::Denied
    } else {
        Kind::Unreachable
    };
    Error::new(
        format!("cannot ask Weave's router at {address}"),
        error.cause(),
    )
    .kind(kind)
    .hint(
        "is Weave running? --weave-addr or WEAVE_HTTP_ADDR says where; --weave never does without",
    )
}

/// One ask of a poller that is due, with its notices logged. True if the view changed.
pub fn step(poller: &mut Poller, ask: &mut dyn FnMut() -> Result<Answer>) -> bool {
    poller.asked(Instant::now());
    let result = ask();
    take_in(poller, result)
}

/// The result of an ask that [`Poller::asked`] began, with its notices logged. True if the view changed.
pub fn take_in(poller: &mut Poller, result: Result<Answer>) -> bool {
    let now = Instant::now();
    let outcome = match result {
        Ok(answer) => poller.answered(now, &answer),
        Err(error) => {
            log::debug!("{error}");
            let outcome = poller.failed(now, &error.to_string());
            if let (Some(_), Some(hint)) = (&outcome.notice, error.hint_text()) {
                log::info!("{hint}");
            }
            outcome
        }
    };
    match &outcome.notice {
        Some(notice @ Notice::Lost(_)) => log::warn!("{notice}"),
        Some(notice @ Notice::Back(_)) => log::info!("{notice}"),
        None => {}
    }
    outcome.changed
}

/// For a pass that must end: asks until nothing waits any more, or `limit` is over, or the next try
/// at an unreachable router would be two seconds after the first. What waits then stays pending. True if the view changed.
pub fn settle(
    poller: &mut Poller,
    limit: Duration,
    ask: &mut dyn FnMut() -> Result<Answer>,
) -> bool {
    let end = Instant::now() + limit;
    let mut changed = false;
    while let Some(next) = poller.next() {
        let now = Instant::now();
        let lost = poller
            .unreachable_for(next.max(now))
            .is_some_and(|away| away > UNREACHABLE_PATIENCE);
        if lost || next.max(now) > end {
            break;
        }
        thread::sleep(next.saturating_duration_since(now));
        changed |= step(poller, ask);
    }
    changed
}

#[cfg(test)]
mod tests;
