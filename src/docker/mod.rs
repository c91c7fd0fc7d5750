//! The Docker client: version, list, inspect, and the event stream.
//!
//! `GET` only, on four paths: `/_ping`, `/events`, `/containers/json`, `/containers/{id}/json`; a socket proxy needs
//! to allow no more. List and inspect share one connection that is kept open, events have their own.
//! Does not know what a container is wanted for, and never decides that one is gone because the daemon failed.
//! Rules: Docker Engine API 1.24 to 1.56, Podman's compatible API; traps found on Docker 20.10 and Podman 4.3.

pub mod container;
pub mod endpoint;
pub mod events;
#[cfg(test)]
mod fixture;
mod refusal;
#[cfg(test)]
pub(crate) mod sample;
mod stream;
#[cfg(test)]
mod tests;
mod text;
mod version;
mod wire;

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::http::Head;
use crate::timestamp::Timestamp;
use crate::transport::{self, Address, Hangup};

use container::{Inspected, Row};
use refusal::Ask;
pub use stream::EventStream;
use version::Version;
use wire::{Fault, Partial, Piece, Sink, Wire};

/// How long the daemon may take for each thing.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// To be connected. A daemon that is alive accepts at once; the kernel does it for it.
    connect: Duration,
    /// To the first answer of a daemon that has not answered yet: dockerd opens its socket first and answers only
    /// when it has brought its containers up again (14 s for 31 of them).
    first_answer: Duration,
    /// For a list; 100 containers take 10 ms.
    list: Duration,
    /// For an inspect that is waited for; one stuck container makes its own hang for ever and no other.
    inspect: Duration,
    /// For an inspect that nobody waits for ([`Answer::Late`]), until it is asked again: dockerd answers it when
    /// the container comes loose, a proxy in between may never.
    late: Duration,
    /// A kept connection that has been idle for longer is not used again; daemons close theirs after 300 s,
    /// proxies sooner.
    idle: Duration,
}

const LIMITS: Limits = Limits {
    connect: Duration::from_secs(5),
    first_answer: Duration::from_secs(60),
    list: Duration::from_secs(15),
    inspect: Duration::from_secs(5),
    late: Duration::from_secs(15),
    idle: Duration::from_secs(60),
};

/// Longest list, in bytes: about 80,000 containers.
const LIST_BYTES_MAX: usize = 64 << 20;
/// Longest inspect, in bytes; 5 KB are usual, labels and environment have no limit of Docker's.
const INSPECT_BYTES_MAX: usize = 4 << 20;
/// Longest body of a ping or of a refusal, in bytes.
const WORDS_BYTES_MAX: usize = 64 << 10;

/// Most inspects that are left open for a late answer: each keeps a connection, over ssh a process.
const LATE_MAX: usize = 4;

/// A client of one daemon.
#[derive(Debug)]
pub struct Docker {
    address: Address,
    limits: Limits,
    /// What `DOCKER_API_VERSION` wants; nothing is negotiated then.
    pinned: Option<Version>,
    /// What was negotiated; forgotten when the daemon goes away, since another may come back.
    negotiated: Option<Version>,
    /// The connection of the last list or inspect, and since when it is idle.
    kept: Option<(Wire, Instant)>,
    /// Inspects whose answer is late, oldest first.
    late: Vec<Late>,
    /// Whether the daemon has answered since it was last away.
    answered: bool,
}

/// An inspect that was asked and not answered within the patience of who asked.
#[derive(Debug)]
struct Late {
    id: String,
    wire: Wire,
    partial: Partial,
    asked: Instant,
}

/// What came of an inspect that is not waited for beyond some patience.
#[derive(Debug)]
pub enum Answer {
    /// What Docker says of the container.
    Found(Box<Inspected>),
    /// There is no such container.
    Gone,
    /// No answer yet. The question stands: asking again looks whether its answer has come.
    Late,
}

/// An answer, or the connection on which it may still come.
enum Got {
    Answer(Head, Vec<u8>),
    Late(Box<Wire>, Partial, Fault),
}

/// The answer to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    /// The version of the API that we speak from now on, as in `1.41`.
    pub api: String,
    /// The daemon's clock, in whole seconds.
    pub daemon_time: Option<Timestamp>,
    /// What the daemon calls itself, as in `Docker/20.10.24 (linux)` or `Libpod/4.3.1 (linux)`.
    pub engine: Option<String>,
}

impl Docker {
    /// A client that connects when it is first asked for something.
    ///
    /// `api_version` is the value of `DOCKER_API_VERSION`; one that is no version is ignored here (`endpoint::resolve`
    /// refuses it).
    pub fn new(address: Address, api_version: Option<String>) -> Docker {
        Docker {
            address,
            limits: LIMITS,
            pinned: api_version.as_deref().and_then(Version::parse),
            negotiated: None,
            kept: None,
            late: Vec::new(),
            answered: false,
        }
    }

    /// Waits for nothing longer than this, also where a daemon that starts would be given more.
    #[must_use]
    pub fn at_most(mut self, patience: Duration) -> Docker {
        let limits = &mut self.limits;
        for limit in [
            &mut limits.connect,
            &mut limits.first_answer,
            &mut limits.list,
            &mut limits.inspect,
        ] {
            *limit = patience.min(*limit);
        }
        self
    }

    /// Asks whether the daemon is there, and agrees on the version of the API.
    ///
    /// A proxy that forbids the question does not matter: the version is then found by trying.
    ///
    /// # Errors
    /// When nobody answers, or somebody else than Docker.
    pub fn ping(&mut self) -> Result<Ping> {
        self.negotiated = None;
        // Asked after the stream broke, too: the daemon that closed it may be starting again.
        let limit = self.limits.first_answer;
        let (head, body) = self.get(Ask::Ping, "/_ping", limit, WORDS_BYTES_MAX, None)?;
        if !matches!(head.status, 200 | 403 | 404 | 405) {
            return Err(refusal::refused(Ask::Ping, &self.address, &head, &body));
        }
        let version = Version::negotiated(head.header("Api-Version"));
        self.negotiated = Some(version);
        Ok(Ping {
            api: self.pinned.unwrap_or(version).to_string(),
            daemon_time: head.header("Date").and_then(Timestamp::parse_http_date),
            engine: head.header("Server").map(str::to_owned),
        })
    }

    /// Speaks the version that another client of this daemon has negotiated, without a ping of its own.
    pub fn use_api(&mut self, api: &str) {
        self.negotiated = Version::parse(api);
    }

    /// Where the daemon is reached.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// All containers that run, are paused or restart.
    ///
    /// Right after an event this can still show what was before it.
    ///
    /// # Errors
    /// When there is no answer or a refusal; that never means that there are no containers.
    pub fn containers(&mut self) -> Result<Vec<Row>> {
        let ask = Ask::List;
        let mut list = container::List::default();
        let (path, limit) = ("/containers/json", self.limits.list);
        let mut each = |piece: &[u8]| list.push(piece);
        let (head, body) = self.get_versioned(ask, path, limit, LIST_BYTES_MAX, Some(&mut each))?;
        if head.status != 200 {
            return Err(refusal::refused(ask, &self.address, &head, &body));
        }
        list.end().map_err(|cause| self.unreadable(ask, &cause))
    }

    /// Inspects a container by id or name; `None` when there is none.
    ///
    /// # Errors
    /// When there is no answer (`TimedOut` for a stuck container; the others can still be asked) or a refusal.
    pub fn container(&mut self, id: &str) -> Result<Option<Inspected>> {
        if id.is_empty() {
            return Ok(None);
        }
        let ask = Ask::Inspect(id);
        let limit = self.limits.inspect;
        let (head, body) =
            self.get_versioned(ask, &inspect_path(id), limit, INSPECT_BYTES_MAX, None)?;
        self.read_inspect(ask, &head, &body)
    }

    /// Inspects a container by id, but waits no longer than `patience`.
    ///
    /// A question that is not answered by then stays open on a connection of its own, so that a container that
    /// is stuck, or a daemon that is slow, costs its patience once: asking again waits for that same answer.
    /// Once it is there it may be older than what has happened since; [`Docker::forget`] makes the next question a new one.
    ///
    /// # Errors
    /// When the daemon is away (`Unreachable`) or refuses.
    pub fn container_soon(&mut self, id: &str, patience: Duration) -> Result<Answer> {
        let ask = Ask::Inspect(id);
        if let Some(at) = self.late.iter().position(|late| late.id == id) {
            let late = self.late.remove(at);
            if let Some(answer) = self.go_on(late, patience) {
                return answer;
            }
        }
        let version = self.version()?;
        let path = format!("/v{version}{}", inspect_path(id));
        match self.ask(ask, &path, patience, INSPECT_BYTES_MAX, None)? {
            Got::Late(wire, partial, _) => {
                if self.late.len() >= LATE_MAX {
                    self.late.remove(0);
                }
                self.late.push(Late {
                    id: id.to_owned(),
                    wire: *wire,
                    partial,
                    asked: Instant::now(),
                });
                Ok(Answer::Late)
            }
            // The version is settled by the list or the stream that was asked for before; this is the rare rest.
            Got::Answer(head, body) if self.other_version(version, &head, &body).is_some() => {
                Ok(self
                    .container(id)?
                    .map_or(Answer::Gone, |found| Answer::Found(Box::new(found))))
            }
            Got::Answer(head, body) => self.answered_inspect(ask, &head, &body),
        }
    }

    /// Waits on for a late answer; `None` when it has been waited for long enough, or its connection is gone:
    /// then the question must be asked again.
    fn go_on(&mut self, mut late: Late, patience: Duration) -> Option<Result<Answer>> {
        late.wire.set_deadline(Some(Instant::now() + patience));
        match late.wire.answer(&mut late.partial, INSPECT_BYTES_MAX, None) {
            Ok(head) => {
                Some(self.answered_inspect(Ask::Inspect(&late.id), &head, &late.partial.body))
            }
            Err(fault) if fault.timed_out() && late.asked.elapsed() < self.limits.late => {
                self.late.push(late);
                Some(Ok(Answer::Late))
            }
            Err(_) => None,
        }
    }

    /// Drops the question about this container that is still open: its answer may be older than what has
    /// happened since.
    pub fn forget(&mut self, id: &str) {
        self.late.retain(|late| late.id != id);
    }

    fn answered_inspect(&self, ask: Ask, head: &Head, body: &[u8]) -> Result<Answer> {
        Ok(match self.read_inspect(ask, head, body)? {
            Some(found) => Answer::Found(Box::new(found)),
            None => Answer::Gone,
        })
    }

    fn read_inspect(&self, ask: Ask, head: &Head, body: &[u8]) -> Result<Option<Inspected>> {
        match head.status {
            200 => container::inspected(body)
                .map(Some)
                .map_err(|cause| self.unreadable(ask, &cause)),
            404 if refusal::no_such_container(body) => Ok(None),
            _ => Err(refusal::refused(ask, &self.address, head, body)),
        }
    }

    /// Opens the event stream on a connection of its own; its head has been read.
    ///
    /// `since` repeats what the daemon still remembers from that moment on, in nanoseconds since the epoch by
    /// its own clock. It remembers little (256 events of all kinds), so a look at everything must follow.
    ///
    /// # Errors
    /// When there is no answer within a minute, or a refusal.
    pub fn events(&mut self, since: Option<i64>) -> Result<EventStream> {
        self.events_opening(since, &mut |_| {})
    }

    /// As [`Docker::events`]; `opening` is handed the means to end the wait for the head from another thread.
    ///
    /// # Errors
    /// As [`Docker::events`], and when that thread ended the wait.
    pub fn events_opening(
        &mut self,
        since: Option<i64>,
        opening: &mut dyn FnMut(Hangup),
    ) -> Result<EventStream> {
        let ask = Ask::Events;
        let mut path = format!("/events?filters={}", percent_encoded(events::FILTERS));
        if let Some(since) = since {
            let since = Timestamp::from_unix_nanos(since.max(0));
            path += &format!("&since={}.{:09}", since.seconds, since.nanos);
        }
        let mut version = self.version()?;
        let mut again = self.pinned.is_none();
        loop {
            let mut wire = self.connect()?;
            opening(wire.hangup()?);
            wire.set_deadline(Some(Instant::now() + self.limits.first_answer));
            let opened = wire
                .send(&format!("/v{version}{path}"))
                .and_then(|()| wire.next_piece());
            let head = match opened {
                Ok(Piece::Head(head)) => head,
                Ok(_) => return Err(Error::new(ask.tried(&self.address), "no head")),
                Err(fault) => return Err(self.failed(ask, &fault)),
            };
            self.answered = true;
            if head.status == 200 {
                return Ok(EventStream::new(wire, self.address.clone()));
            }
            let mut partial = Partial {
                head: Some(head),
                ..Partial::default()
            };
            let head = wire
                .answer(&mut partial, WORDS_BYTES_MAX, None)
                .map_err(|fault| self.failed(ask, &fault))?;
            let body = partial.body;
            match self.other_version(version, &head, &body) {
                Some(other) if again => {
                    again = false;
                    version = other;
                }
                _ => return Err(refusal::refused(ask, &self.address, &head, &body)),
            }
        }
    }

    /// The version to speak, asking the daemon if that is not known.
    fn version(&mut self) -> Result<Version> {
        if let Some(version) = self.pinned.or(self.negotiated) {
            return Ok(version);
        }
        self.ping()?;
        Ok(self.negotiated.unwrap_or(version::WANTED))
    }

    /// The version to use from now on if this answer refuses the one that was used.
    fn other_version(&mut self, used: Version, head: &Head, body: &[u8]) -> Option<Version> {
        if head.status != 400 {
            return None;
        }
        let other = used.after_refusal(head.header("Api-Version"), &refusal::words(body))?;
        self.negotiated = Some(other);
        Some(other)
    }

    /// An answer to a path behind the version; once more if the daemon refuses the version.
    fn get_versioned(
        &mut self,
        ask: Ask,
        path: &str,
        limit: Duration,
        body_bytes_max: usize,
        mut each: Option<Sink>,
    ) -> Result<(Head, Vec<u8>)> {
        let version = self.version()?;
        let first = format!("/v{version}{path}");
        let (head, body) = self.get(ask, &first, limit, body_bytes_max, reborrowed(&mut each))?;
        if self.pinned.is_none()
            && let Some(other) = self.other_version(version, &head, &body)
        {
            return self.get(
                ask,
                &format!("/v{other}{path}"),
                limit,
                body_bytes_max,
                each,
            );
        }
        Ok((head, body))
    }

    /// An answer over the kept connection or a new one; `each` as in [`Wire::answer`]: a connection that fails
    /// before its first byte has handed over nothing.
    fn get(
        &mut self,
        ask: Ask,
        path: &str,
        limit: Duration,
        body_bytes_max: usize,
        each: Option<Sink>,
    ) -> Result<(Head, Vec<u8>)> {
        let limit = if self.answered {
            limit
        } else {
            self.limits.first_answer.max(limit)
        };
        match self.ask(ask, path, limit, body_bytes_max, each)? {
            Got::Answer(head, body) => Ok((head, body)),
            Got::Late(_, _, fault) => Err(self.failed(ask, &fault)),
        }
    }

    /// Asks over the kept connection or a new one, and waits for the answer no longer than `limit`.
    fn ask(
        &mut self,
        ask: Ask,
        path: &str,
        limit: Duration,
        body_bytes_max: usize,
        mut each: Option<Sink>,
    ) -> Result<Got> {
        loop {
            let kept = self
                .kept
                .take()
                .filter(|(_, idle)| idle.elapsed() <= self.limits.idle);
            let reused = kept.is_some();
            let mut wire = match kept {
                Some((wire, _)) => wire,
                None => self.connect()?,
            };
            wire.set_deadline(Some(Instant::now() + limit));
            let mut partial = Partial::default();
            match wire
                .send(path)
                .and_then(|()| wire.answer(&mut partial, body_bytes_max, reborrowed(&mut each)))
            {
                Ok(head) => {
                    self.answered = true;
                    if wire.keeps_alive() {
                        self.kept = Some((wire, Instant::now()));
                    }
                    return Ok(Got::Answer(head, partial.body));
                }
                // It was closed while it was idle; that says nothing about the daemon.
                Err(fault) if reused && fault.closed() && !wire.heard() => {}
                Err(fault) if fault.timed_out() => {
                    return Ok(Got::Late(Box::new(wire), partial, fault));
                }
                Err(fault) => return Err(self.failed(ask, &fault)),
            }
        }
    }

    fn connect(&mut self) -> Result<Wire> {
        let limits = &self.limits;
        let handshake = if self.answered {
            limits.connect
        } else {
            limits.first_answer.max(limits.connect)
        };
        match transport::connect_and_shake(&self.address, limits.connect, handshake) {
            Ok(connection) => Ok(Wire::new(connection)),
            Err(error) => {
                self.went_away();
                let others = endpoint::other_sockets(&|name| std::env::var(name).ok());
                Err(refusal::unreachable(error, &self.address, &others))
            }
        }
    }

    fn failed(&mut self, ask: Ask, fault: &wire::Fault) -> Error {
        // A stuck inspect is no sign that the daemon went away; a broken connection is.
        if !fault.timed_out() {
            self.went_away();
        }
        refusal::unanswered(ask, &self.address, fault)
    }

    /// Whoever answers next may be another daemon, and may still be starting.
    fn went_away(&mut self) {
        self.answered = false;
        self.negotiated = None;
        self.kept = None;
        self.late.clear();
    }

    fn unreadable(&self, ask: Ask, cause: &str) -> Error {
        Error::new(
            ask.tried(&self.address),
            format!("cannot read the answer: {cause}"),
        )
    }
}

fn inspect_path(id: &str) -> String {
    format!("/containers/{}/json", percent_encoded(id))
}

/// The same sink, for one more try.
fn reborrowed<'a>(each: &'a mut Option<Sink>) -> Option<Sink<'a>> {
    match each {
        Some(each) => Some(&mut **each),
        None => None,
    }
}

/// All but unreserved characters as `%XX` (RFC 3986 section 2.3).
fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
