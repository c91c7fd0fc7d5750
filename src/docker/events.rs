//! The body of Docker's event stream, cut into lines, and the few events that matter here.
//!
//! Pure: bytes in, events out. An event says only "look at this container again"; the truth is what an
//! inspect says then, so nothing but ids, names and the stop signal is taken from one.
//! Reads `Type`, `Action`, `Actor` and `timeNano` alone: Docker 29 dropped `status`, `id` and `from`.
//! Rules: Docker Engine API, "SystemEvents"; differences found on Podman 4.3.

use std::io::BufRead;

use serde::Deserialize;

use super::container::signal_number;
use super::text::Text;

/// Longest line that is held, in bytes.
///
/// Docker sends one JSON object a line and sets no limit on the labels in it; events of 300 KB were seen.
/// A line past this is skipped and reported as [`What::Missed`].
pub const LINE_BYTES_MAX: usize = 4 << 20;

/// What a buffer may keep between two lines, so that one giant line does not stay in memory.
const IDLE_BYTES_MAX: usize = 128 << 10;

/// The `filters` value of the subscription, as JSON.
///
/// `died` and `remove` are Podman's words for `die` and `destroy`; Docker ignores words it does not know.
/// `health_status` makes Docker compare prefixes, so `health_status: healthy` passes too. No label filter:
/// network events carry no labels and would be lost.
pub const FILTERS: &str = r#"{"type":["container","network"],"event":["start","kill","die","died","destroy","remove","rename","pause","unpause","update","health_status","connect","disconnect"]}"#;

/// One event that can change what is routed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Full id of the container; empty with [`What::Missed`].
    pub id: String,
    /// The container's name without the slash; empty for network events and where the daemon gives none.
    pub name: String,
    /// What happened.
    pub what: What,
    /// When, by the daemon's clock, in nanoseconds since the epoch; 0 if it did not say. Not strictly
    /// rising: resume from the largest one seen.
    pub time_nano: i64,
}

/// What happened to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// It was started.
    Started,
    /// It ended or was removed; true without asking.
    Gone,
    /// It was sent this signal, which may or may not be its stop signal.
    Leaving {
        /// The signal's number.
        signal: u8,
    },
    /// Something about it changed: name, pause, health, limits, or (on Podman) a signal it does not name.
    Changed,
    /// It joined or left a network.
    Network,
    /// Something happened that could not be told: look at everything.
    Missed,
}

/// Cuts bytes into lines and lines into events: [`push`](Lines::push), then [`next_event`](Lines::next_event) until `None`.
#[derive(Debug, Default)]
pub struct Lines {
    buffer: Vec<u8>,
    /// Where the first line that was not read yet begins.
    start: usize,
    /// Up to where there is known to be no line end.
    scanned: usize,
    /// The rest of a line that is too long goes by.
    skipping: bool,
    lines: u64,
    bad: u64,
}

impl Lines {
    /// Nothing read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds body bytes; their borders mean nothing.
    pub fn push(&mut self, data: &[u8]) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            self.buffer.shrink_to(IDLE_BYTES_MAX);
            self.start = 0;
            self.scanned = 0;
        }
        self.buffer.extend_from_slice(data);
    }

    /// The next event that matters; `None` when more bytes are needed.
    pub fn next_event(&mut self) -> Option<Event> {
        loop {
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            let mut rest = unseen;
            // Reading from a slice cannot fail; std's search for the line end is the fast one.
            let seen = rest.skip_until(b'\n').unwrap_or_default();
            let whole = seen > 0 && unseen.get(seen - 1) == Some(&b'\n');
            self.scanned += seen;
            let line = self.start..self.scanned;
            if !whole {
                if line.len() > LINE_BYTES_MAX {
                    self.skipping = true;
                }
                if self.skipping {
                    self.start = self.scanned;
                } else if self.start > 0 {
                    self.buffer.drain(..self.start);
                    self.scanned -= self.start;
                    self.start = 0;
                }
                return None;
            }
            self.start = self.scanned;
            self.lines += 1;
            if self.skipping || line.len() > LINE_BYTES_MAX {
                self.skipping = false;
                return Some(missed(0));
            }
            let line = self.buffer.get(line).unwrap_or_default();
            match event(line) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(NotAnEvent) => self.bad += 1,
            }
        }
    }

    /// How many lines were read, of whatever kind.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// How many lines were no event at all, and skipped.
    pub fn bad_lines(&self) -> u64 {
        self.bad
    }
}

/// The line is not the JSON of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAnEvent;

/// Reads one line; `None` for events that change nothing here and for empty lines.
///
/// # Errors
/// When the line is not a JSON object of the event's shape.
pub fn event(line: &[u8]) -> Result<Option<Event>, NotAnEvent> {
    let line = line.trim_ascii();
    if line.is_empty() {
        return Ok(None);
    }
    let message: Message = serde_json::from_slice(line).map_err(|_| NotAnEvent)?;
    let time_nano = message.time_nano.unwrap_or_default();
    let action = message.action.as_str();
    let actor = message.actor.unwrap_or_default();
    let attributes = actor.attributes.unwrap_or_default();
    let (what, id, name) = match message.kind.as_str() {
        "container" => {
            let what = match action {
                "start" => What::Started,
                "die" | "died" | "destroy" | "remove" => What::Gone,
                "kill" => match signal_number(attributes.signal.as_str()) {
                    Some(signal) => What::Leaving { signal },
                    None => What::Changed,
                },
                "rename" | "pause" | "unpause" | "update" | "restore" => What::Changed,
                _ if action.starts_with("health_status") => What::Changed,
                _ => return Ok(None),
            };
            (what, actor.id, attributes.name)
        }
        // Podman's actor is the container itself, Docker's is the network.
        "network" if matches!(action, "connect" | "disconnect") => {
            let id = if attributes.container.is_empty() {
                actor.id
            } else {
                attributes.container
            };
            (What::Network, id, Text::default())
        }
        _ => return Ok(None),
    };
    if id.is_empty() {
        return Ok(Some(missed(time_nano)));
    }
    let name = name.as_str();
    Ok(Some(Event {
        id: id.0.into_owned(),
        name: name.strip_prefix('/').unwrap_or(name).to_owned(),
        what,
        time_nano,
    }))
}

fn missed(time_nano: i64) -> Event {
    Event {
        id: String::new(),
        name: String::new(),
        what: What::Missed,
        time_nano,
    }
}

/// An event as it is on the wire.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, rename = "Type", default)]
    kind: Text<'a>,
    #[serde(borrow, rename = "Action", default)]
    action: Text<'a>,
    #[serde(borrow, rename = "Actor", default)]
    actor: Option<Actor<'a>>,
    #[serde(rename = "timeNano", default)]
    time_nano: Option<i64>,
}

#[derive(Deserialize, Default)]
struct Actor<'a> {
    #[serde(borrow, rename = "ID", default)]
    id: Text<'a>,
    #[serde(borrow, rename = "Attributes", default)]
    attributes: Option<Attributes<'a>>,
}

/// Labels stand among these and can hide `signal`; `name` and `container` are the daemon's own.
#[derive(Deserialize, Default)]
struct Attributes<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    container: Text<'a>,
    #[serde(borrow, default)]
    signal: Text<'a>,
}
