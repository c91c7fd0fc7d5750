//! The body of Docker's event stream, cut into lines, and the few events that matter here.
//!
//! Pure: bytes in, events out. An event says only "look at this container again"; the truth is what an
//! inspect says then, so nothing but ids, names and the stop signal is taken from one.
//! Reads `Type`, `Action`, `Actor` and `timeNano` alone: Docker 29 dropped `status`, `id` and `from`.
//! Rules: Docker Engine API, "SystemEvents"; differences found on Podman 4.3.

use memchr::memchr;
use serde::Deserialize;

use super::container::signal_number;
use super::text::Text;
use crate::json;

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
    /// It got another name; the event's name is the new one.
    Renamed,
    /// Something about it changed: pause, health, limits, or (on Podman) a signal it does not name.
    Changed,
    /// Podman ran its health check; it says so shortly before an inspect knows what came of it.
    Probed,
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
            let end = memchr(b'\n', unseen);
            self.scanned += end.map_or(unseen.len(), |end| end + 1);
            let line = self.start..self.scanned;
            if end.is_none() {
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
                // Nobody knows what it would have told; one look for a stream, for somebody may send nothing else.
                Err(NotAnEvent) => {
                    self.bad += 1;
                    if self.bad == 1 {
                        return Some(missed(0));
                    }
                }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    // serde takes an array for a struct too.
    if line.first() != Some(&b'{') {
        return Err(NotAnEvent);
    }
    let message = match plain(line) {
        Some(message) => message,
        None => json::read(line).map_err(|_| NotAnEvent)?,
    };
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
                "rename" => What::Renamed,
                "pause" | "unpause" | "update" | "restore" => What::Changed,
                "health_status" => What::Probed,
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
#[derive(Debug, Deserialize, Default, PartialEq, Eq)]
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

#[derive(Debug, Deserialize, Default, PartialEq, Eq)]
struct Actor<'a> {
    #[serde(borrow, rename = "ID", default)]
    id: Text<'a>,
    #[serde(borrow, rename = "Attributes", default)]
    attributes: Option<Attributes<'a>>,
}

/// Labels stand among these and can hide `signal`; `name` and `container` are the daemon's own.
#[derive(Debug, Deserialize, Default, PartialEq, Eq)]
struct Attributes<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(borrow, default)]
    container: Text<'a>,
    #[serde(borrow, default)]
    signal: Text<'a>,
}

/// What a storm consists of: a line as the daemons write it, without blanks, escapes and surprises.
///
/// serde_json reads every other line: `None` says that this is one. Unlike serde_json it does not mind a control
/// character, or bytes that are not UTF-8, in a part that nobody asked for.
fn plain(line: &[u8]) -> Option<Message<'_>> {
    if memchr(b'\\', line).is_some() {
        return None;
    }
    let mut message = Message::default();
    let mut line = Plain(line);
    line.object(&mut |line, key| match key {
        b"Type" => line.text_into(&mut message.kind),
        b"Action" => line.text_into(&mut message.action),
        b"Actor" if message.actor.is_none() => {
            let actor = message.actor.insert(Actor::default());
            line.object(&mut |line, key| match key {
                b"ID" => line.text_into(&mut actor.id),
                b"Attributes" if actor.attributes.is_none() => {
                    let attributes = actor.attributes.insert(Attributes::default());
                    line.object(&mut |line, key| match key {
                        b"name" => line.text_into(&mut attributes.name),
                        b"container" => line.text_into(&mut attributes.container),
                        b"signal" => line.text_into(&mut attributes.signal),
                        _ => line.text().map(|_| ()),
                    })
                }
                _ => None,
            })
        }
        b"timeNano" if message.time_nano.is_none() => {
            message.time_nano = Some(line.number()?);
            Some(())
        }
        b"Actor" | b"timeNano" => None,
        _ if line.0.first() == Some(&b'"') => line.text().map(|_| ()),
        _ => line.number().map(|_| ()),
    })?;
    line.0.is_empty().then_some(message)
}

/// The rest of a line that is read as [`plain`]; there is no backslash in it.
struct Plain<'a>(&'a [u8]);

/// What is done with a value, given its key; `None` where it is not plain.
type Value<'v, 'a> = &'v mut dyn FnMut(&mut Plain<'a>, &'a [u8]) -> Option<()>;

impl<'a> Plain<'a> {
    fn byte(&mut self, wanted: u8) -> Option<()> {
        let (byte, rest) = self.0.split_first()?;
        if *byte != wanted {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    /// An object with at least one key.
    fn object(&mut self, value: Value<'_, 'a>) -> Option<()> {
        self.byte(b'{')?;
        loop {
            let key = self.text()?;
            self.byte(b':')?;
            value(self, key)?;
            if self.byte(b',').is_none() {
                return self.byte(b'}');
            }
        }
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        self.byte(b'"')?;
        let (text, rest) = self.0.split_at_checked(memchr(b'"', self.0)?)?;
        self.0 = rest;
        self.byte(b'"')?;
        Some(text)
    }

    /// Two with one key are no event to serde, and an empty first one would not be seen here.
    fn text_into(&mut self, place: &mut Text<'a>) -> Option<()> {
        let text = self.text()?;
        if text.is_empty() || !place.is_empty() || text.iter().any(|byte| *byte < 0x20) {
            return None;
        }
        *place = Text(std::str::from_utf8(text).ok()?.into());
        Some(())
    }

    /// A whole number from 1 on.
    fn number(&mut self) -> Option<i64> {
        let mut number: i64 = 0;
        while let Some((digit, rest)) = self.0.split_first()
            && digit.is_ascii_digit()
        {
            let digit = i64::from(*digit - b'0');
            number = number.checked_mul(10)?.checked_add(digit)?;
            // JSON has no number that begins with a zero.
            if number == 0 {
                return None;
            }
            self.0 = rest;
        }
        (number > 0).then_some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::body;
    use super::*;

    fn all(pieces: &[&[u8]]) -> (Vec<Event>, u64) {
        let mut lines = Lines::new();
        let mut events = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(event) = lines.next_event() {
                events.push(event);
            }
        }
        (events, lines.bad_lines())
    }

    /// The events of a capture, as words.
    fn shown(name: &str) -> String {
        let (events, bad) = all(&[&body(name)]);
        assert_eq!(bad, 0, "{name}");
        events
            .iter()
            .map(|event| {
                assert!(event.id.len() == 64 && event.time_nano > 1_700_000_000_000_000_000);
                match event.what {
                    What::Leaving { signal } => format!("Leaving({signal})"),
                    What::Network => {
                        assert!(event.name.is_empty());
                        "Network".to_owned()
                    }
                    what => {
                        assert!(!event.name.is_empty() && !event.name.contains('/'));
                        format!("{what:?}")
                    }
                }
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn captured_streams_give_the_events_that_matter() {
        for (name, expected) in [
            ("docker-20.10.24/events-lifecycle.http", DOCKER_LIFECYCLE),
            ("docker-20.10.24/events-filtered-health.http", DOCKER_HEALTH),
            ("docker-20.10.24/events-shutdown.http", DOCKER_SHUTDOWN),
            ("docker-20.10.24/events-header-only.http", ""),
            ("docker-20.10.24/events-past-empty.http", ""),
            ("docker-20.10.24/events-big-one-chunk.http", ""),
            ("podman-4.3.1/events-lifecycle.http", PODMAN_LIFECYCLE),
            ("podman-4.3.1/events-shutdown.http", PODMAN_SHUTDOWN),
            ("podman-4.3.1/events-bad-since-200-empty.http", ""),
        ] {
            assert_eq!(shown(name), expected, "{name}");
        }
    }

    // From the captures by a script of its own, not by this parser.
    const DOCKER_LIFECYCLE: &str = "Network Started Changed Changed Changed Renamed Changed Network Network Network Leaving(1) Leaving(15) Gone Network Network Started Leaving(15) Gone Network Network Started Leaving(9) Gone Network Network Started Leaving(9) Gone Network Gone Network Started Gone Network Gone Network Started Gone Network Network Started Gone Network Network Started Gone Network Gone Network Started Gone Network Gone";
    const DOCKER_HEALTH: &str = "Network Started Changed Changed Changed Changed Network Changed Changed Renamed Gone Network Network Gone";
    const DOCKER_SHUTDOWN: &str = "Leaving(15) Leaving(15) Leaving(15) Gone Network Leaving(9) Leaving(9) Gone Gone Network Network";
    const PODMAN_LIFECYCLE: &str = "Started Probed Probed Probed Changed Changed Renamed Network Network Changed Gone Started Gone Started Changed Gone Started Gone Gone Started Gone Gone Started Gone Started Gone Started Gone Gone";
    const PODMAN_SHUTDOWN: &str = "Gone Started";

    #[test]
    fn a_stream_cut_anywhere_gives_the_same_events() {
        for (name, step) in [
            ("docker-20.10.24/events-lifecycle.http", 97),
            ("docker-20.10.24/events-filtered-health.http", 1),
            ("podman-4.3.1/events-shutdown.http", 1),
            ("podman-4.3.1/events-lifecycle.http", 89),
        ] {
            let bytes = body(name);
            let whole = all(&[&bytes]);
            for cut in (0..=bytes.len()).step_by(step) {
                let (front, back) = bytes.split_at(cut);
                assert_eq!(all(&[front, back]), whole, "{name} at {cut}");
            }
            for size in [1, 2, 3, 7, 100, 4096] {
                let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
                assert_eq!(all(&pieces), whole, "{name} in pieces of {size}");
            }
        }
        let short = body("docker-20.10.24/events-filtered-health.http");
        let whole = all(&[&short]);
        for first in (0..short.len()).step_by(61) {
            for second in (first..short.len()).step_by(59) {
                let (front, rest) = short.split_at(second);
                let (front, middle) = front.split_at(first);
                assert_eq!(all(&[front, middle, rest]), whole, "{first} {second}");
            }
        }
    }

    /// The lines of a capture's body.
    fn lines(name: &str) -> Vec<String> {
        let text = String::from_utf8(body(name)).expect("text");
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn a_plain_line_is_read_as_serde_reads_it() {
        let mut plain_ones = 0;
        let captures = [
            "docker-20.10.24/events-lifecycle.http",
            "podman-4.3.1/events-lifecycle.http",
        ];
        for line in captures.into_iter().flat_map(lines) {
            let compare = |line: &str| {
                let Some(message) = plain(line.as_bytes()) else {
                    return 0;
                };
                assert_eq!(serde_json::from_str(line).ok(), Some(message), "{line}");
                1
            };
            plain_ones += compare(&line);
            for at in (0..line.len()).filter(|at| line.is_char_boundary(*at)) {
                let (front, back) = line.split_at(at);
                compare(front);
                for nasty in [
                    "\"",
                    "\\",
                    "{",
                    "}",
                    "[",
                    ",",
                    ":",
                    "0",
                    "-",
                    " ",
                    "null",
                    "\"a\":1,",
                    "\"name\":\"b\",",
                ] {
                    compare(&format!("{front}{nasty}{back}"));
                    compare(&format!(
                        "{front}{nasty}{}",
                        back.get(1..).unwrap_or_default()
                    ));
                }
            }
        }
        assert!(plain_ones > 30, "only {plain_ones} lines are plain");
    }

    fn line(json: &str) -> Result<Option<(What, String, String)>, NotAnEvent> {
        Ok(event(json.as_bytes())?.map(|event| (event.what, event.id, event.name)))
    }

    #[test]
    fn lines_are_read() {
        let found = |what, id: &str, name: &str| Ok(Some((what, id.to_owned(), name.to_owned())));
        let missed = found(What::Missed, "", "");
        for (json, expected) in [
            // Docker 29: no status, id, from.
            (
                r#"{"Type":"container","Action":"start","Actor":{"ID":"a","Attributes":{"image":"i","name":"web"}},"scope":"local","time":1,"timeNano":2}"#,
                found(What::Started, "a", "web"),
            ),
            (
                r#"{"Type":"container","Action":"health_status: healthy","Actor":{"ID":"a"}}"#,
                found(What::Changed, "a", ""),
            ),
            (
                r#"{"Type":"container","Action":"health_status","Actor":{"ID":"a"},"HealthStatus":"starting"}"#,
                found(What::Probed, "a", ""),
            ),
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"SIGTERM"}}}"#,
                found(What::Leaving { signal: 15 }, "a", ""),
            ),
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":9}}}"#,
                found(What::Leaving { signal: 9 }, "a", ""),
            ),
            // A label can hide the signal.
            (
                r#"{"Type":"container","Action":"kill","Actor":{"ID":"a","Attributes":{"signal":"my label"}}}"#,
                found(What::Changed, "a", ""),
            ),
            (
                r#"{"Type":"container","Action":"died","Actor":{"ID":"a","Attributes":null}}"#,
                found(What::Gone, "a", ""),
            ),
            (
                r#"{"Type":"container","Action":"rename","Actor":{"ID":"a","Attributes":{"name":"new","oldName":"/old"}}}"#,
                found(What::Renamed, "a", "new"),
            ),
            (
                r#"{"Type":"container","Action":"\u0073tart","Actor":{"ID":"\u0061","Attributes":{"name":"\/w\"b"}}}"#,
                found(What::Started, "a", "w\"b"),
            ),
            (
                r#"{"Type":"network","Action":"connect","Actor":{"ID":"n","Attributes":{"container":"a","name":"net"}}}"#,
                found(What::Network, "a", ""),
            ),
            (
                r#"{"Type":"network","Action":"disconnect","Actor":{"ID":"a","Attributes":{"name":"web"}}}"#,
                found(What::Network, "a", ""),
            ),
            (
                r#"{"Type":"network","Action":"disconnect","Actor":{"ID":""}}"#,
                missed.clone(),
            ),
            (r#"{"Type":"network","Action":"connect"}"#, missed.clone()),
            (r#"{"Type":"container","Action":"start"}"#, missed),
            (
                r#"{"Type":"network","Action":"destroy","Actor":{"ID":"n"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":"container","Action":"exec_start: sh -c start","Actor":{"ID":"a"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":"container","Action":"exec_die","Actor":{"ID":"a"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":"container","Action":"create","Actor":{"ID":"a"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":"image","Action":"tag","Actor":{"ID":"a"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":"daemon","Action":"reload","Actor":{"ID":"a"}}"#,
                Ok(None),
            ),
            (
                r#"{"Type":null,"Action":null,"Actor":null,"timeNano":null}"#,
                Ok(None),
            ),
            ("{}", Ok(None)),
            ("  \r", Ok(None)),
            ("", Ok(None)),
            ("[]", Err(NotAnEvent)),
            ("null", Err(NotAnEvent)),
            ("\"start\"", Err(NotAnEvent)),
            ("{\"Type\":\"container\"", Err(NotAnEvent)),
            ("{\"Type\":\"container\"} {}", Err(NotAnEvent)),
            ("<html>", Err(NotAnEvent)),
            ("\u{0}", Err(NotAnEvent)),
        ] {
            assert_eq!(line(json), expected, "{json}");
        }
        assert_eq!(event(b"{\"Type\":\"\xff\"}"), Err(NotAnEvent));
    }

    #[test]
    fn a_bad_line_is_skipped_and_counted_and_the_first_one_missed() {
        let good = r#"{"Type":"container","Action":"start","Actor":{"ID":"a"},"timeNano":5}"#;
        let text = format!("{good}\nnonsense\n\n{good}\nnonsense\n{good}\n{good}");
        let (events, bad) = all(&[text.as_bytes()]);
        let what: Vec<What> = events.iter().map(|event| event.what).collect();
        assert_eq!(
            what,
            [What::Started, What::Missed, What::Started, What::Started]
        );
        assert_eq!(bad, 2);
    }

    #[test]
    fn a_line_past_the_limit_is_missed_and_the_next_one_read() {
        let good = br#"{"Type":"container","Action":"start","Actor":{"ID":"a"}}"#;
        let label = "x".repeat(100 << 10);
        for (pieces, kind) in [(30, What::Started), (41, What::Missed), (200, What::Missed)] {
            let mut lines = Lines::new();
            lines.push(
                br#"{"Type":"container","Action":"start","Actor":{"ID":"b","Attributes":{"l":""#,
            );
            let mut largest = 0;
            for _ in 0..pieces {
                lines.push(label.as_bytes());
                assert_eq!(lines.next_event(), None);
                largest = largest.max(lines.buffer.capacity());
            }
            lines.push(b"\"}}}\n");
            lines.push(good);
            lines.push(b"\n");
            assert_eq!(
                lines.next_event().map(|event| event.what),
                Some(kind),
                "{pieces}"
            );
            assert_eq!(
                lines.next_event().map(|event| event.id),
                Some("a".to_owned())
            );
            assert_eq!(lines.next_event(), None);
            assert_eq!((lines.lines(), lines.bad_lines()), (2, 0));
            assert!(largest <= 3 * LINE_BYTES_MAX, "{largest}");
            lines.push(good);
            assert!(lines.buffer.capacity() <= IDLE_BYTES_MAX, "given back");
        }
    }

    #[test]
    fn an_event_of_70_kilobytes_is_one_event() {
        let create = body("docker-20.10.24/events-big-one-chunk.http");
        let start =
            String::from_utf8_lossy(&create).replace(r#""Action":"create""#, r#""Action":"start""#);
        assert!(start.len() > 70_000);
        let pieces: Vec<&[u8]> = start.as_bytes().chunks(1448).collect();
        let (events, bad) = all(&pieces);
        assert_eq!((events.len(), bad), (1, 0));
        assert_eq!(events[0].what, What::Started);
    }

    #[test]
    fn the_filter_asks_for_all_that_is_read() {
        let filters: serde_json::Value = serde_json::from_str(FILTERS).expect("JSON");
        let asked: Vec<&str> = filters["event"]
            .as_array()
            .expect("a list")
            .iter()
            .filter_map(serde_json::Value::as_str)
            .collect();
        for action in asked {
            let kind = if action.ends_with("connect") {
                "network"
            } else {
                "container"
            };
            let json = format!(r#"{{"Type":"{kind}","Action":"{action}","Actor":{{"ID":"a"}}}}"#);
            assert!(matches!(line(&json), Ok(Some(_))), "{action}");
        }
    }
}
