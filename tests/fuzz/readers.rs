//! Everything that reads bytes from outside, through the library's public functions: one function a target, which takes
//! any bytes and panics when something does not hold. Shared by the deterministic fuzzer of `cargo test` (`main.rs`)
//! and the coverage-guided one (`guided/`). What holds everywhere: no panic, and the same bytes in other pieces mean the same.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cosmonaut::address::{self, Context, report, router, status_dns, weave};
use cosmonaut::config::{self, Config};
use cosmonaut::description::{self, Reading};
use cosmonaut::docker::container::{self, Container, Inspected};
use cosmonaut::docker::events::{self, Lines, What};
use cosmonaut::docker::{Docker, endpoint};
use cosmonaut::error::Error;
use cosmonaut::haproxy::blocks::Blocks;
use cosmonaut::haproxy::runtime::{Runtime, Shown};
use cosmonaut::haproxy::socket::{self, SocketAddr};
use cosmonaut::haproxy::{changes, master, memory, process, servers};
use cosmonaut::http::{Decoder, Head, HttpError, Item, Limits};
use cosmonaut::inventory::{Interest, Keyword};
use cosmonaut::lock;
use cosmonaut::registry::cosmos::Settings;
use cosmonaut::registry::embedded::{Embedded, Memory as _, State};
use cosmonaut::registry::store::Store;
use cosmonaut::registry::template::Base;
use cosmonaut::registry::url::redacted;
use cosmonaut::registry::{Payload, Registry, answer, policy, proxy, wire};
use cosmonaut::report::explain::{Asked, Explanation};
use cosmonaut::report::status::{self, View};
use cosmonaut::report::{diff, history};
use cosmonaut::service::{self, Monitored, Selection, Told};
use cosmonaut::sorted::{Map, Set};
use cosmonaut::survey::Survey;
use cosmonaut::timestamp::Timestamp;
use cosmonaut::transport::Address;
use cosmonaut::{cli, registry};

/// A target: its name, what runs it, and which of our fixtures are its seeds (parts of their paths).
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    #[allow(dead_code, reason = "the guided fuzzer is handed them as files")]
    pub seeds: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "http",
        run: http,
        seeds: &[".http", "http-"],
    },
    Target {
        name: "events",
        run: events,
        seeds: &["events-"],
    },
    Target {
        name: "docker",
        run: docker,
        seeds: &[".http", "http-", "fuzz/seeds/docker"],
    },
    Target {
        name: "list",
        run: list,
        seeds: &["list", "containers-json"],
    },
    Target {
        name: "inspect",
        run: inspect,
        seeds: &["inspect"],
    },
    Target {
        name: "labels",
        run: labels,
        seeds: &["fuzz/seeds/labels"],
    },
    Target {
        name: "answer",
        run: answer,
        seeds: &["registry/", "it/cosmos/", "fuzz/seeds/answer"],
    },
    Target {
        name: "config",
        run: config,
        seeds: &[".cfg", "registry/refused"],
    },
    Target {
        name: "base",
        run: base,
        seeds: &[".cfg"],
    },
    Target {
        name: "weave",
        run: weave,
        seeds: &["weave/"],
    },
    Target {
        name: "state",
        run: state,
        seeds: &["fuzz/seeds/state"],
    },
    Target {
        name: "history",
        run: history,
        seeds: &["fuzz/seeds/history"],
    },
    Target {
        name: "process",
        run: process,
        seeds: &["fuzz/seeds/process"],
    },
    Target {
        name: "runtime",
        run: runtime,
        seeds: &["fuzz/seeds/runtime"],
    },
    Target {
        name: "socket",
        run: socket,
        seeds: &["fuzz/seeds/socket"],
    },
    Target {
        name: "options",
        run: options,
        seeds: &["fuzz/seeds/options"],
    },
    Target {
        name: "endpoint",
        run: endpoint,
        seeds: &["docker/contexts", "fuzz/seeds/endpoint"],
    },
    Target {
        name: "url",
        run: url,
        seeds: &["fuzz/seeds/url"],
    },
    Target {
        name: "time",
        run: time,
        seeds: &["fuzz/seeds/time"],
    },
];

/// What a person reads: no byte of it moves a cursor, and it is not the whole of what came in.
fn readable(words: &str, chars_max: usize) {
    assert!(
        !words.contains(char::is_control),
        "a control character in a message: {words:?}"
    );
    let chars = words.chars().count();
    assert!(
        chars < chars_max,
        "a message of {chars} characters: {words:.200}"
    );
}

/// An error and its hint, as `main` prints them.
fn told(error: &Error) {
    readable(&error.to_string(), MESSAGE_CHARS_MAX);
    readable(error.hint_text().unwrap_or_default(), MESSAGE_CHARS_MAX);
}

/// No message is longer; the longest that are meant repeat some lines of a page or of HAProxy's log.
const MESSAGE_CHARS_MAX: usize = 4000;

/// Cuts `bytes` into pieces whose lengths follow from `seed`.
fn pieces(bytes: &[u8], mut seed: u64) -> Vec<&[u8]> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let roll = (seed >> 33) as usize;
        let length = match roll % 4 {
            0 => 1,
            1 => 1 + roll / 4 % 7,
            _ => 1 + roll / 4 % 300,
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        all.push(piece);
        rest = after;
    }
    all
}

/// A seed for the cuts, out of the bytes themselves.
fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A response: heads, whole body, and how it ended.
type Response = (Vec<Head>, Vec<u8>, Result<bool, HttpError>);

fn respond(pieces: &[&[u8]]) -> Response {
    let mut decoder = Decoder::new(Limits::default());
    let (mut heads, mut body, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (used, more) = match decoder.decode(&buffer) {
                Err(error) => return (heads, body, Err(error)),
                Ok((used, item)) => {
                    assert!(
                        used <= buffer.len(),
                        "used {used} of {} bytes",
                        buffer.len()
                    );
                    match item {
                        Item::More => (used, true),
                        Item::Head(head) => {
                            heads.push(head);
                            (used, false)
                        }
                        Item::Data(data) => {
                            assert!(
                                !data.is_empty(),
                                "an empty piece would be asked for for ever"
                            );
                            body.extend_from_slice(data);
                            (used, false)
                        }
                        Item::End => return (heads, body, Ok(decoder.keeps_alive())),
                    }
                }
            };
            buffer.drain(..used);
            if more {
                break;
            }
        }
        assert!(
            buffer.len() <= Limits::default().head_bytes + piece.len(),
            "{} bytes are kept without being asked to the limit",
            buffer.len()
        );
    }
    let end = decoder.end_of_input().map(|()| decoder.keeps_alive());
    (heads, body, end)
}

fn http(bytes: &[u8]) {
    let whole = respond(&[bytes]);
    let cut = respond(&pieces(bytes, seed(bytes)));
    assert_eq!(whole, cut, "the same bytes in pieces");
    assert!(whole.0.len() <= 1, "one response has one final head");
}

fn events(bytes: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let mut lines = Lines::new();
        let mut all = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(event) = lines.next_event() {
                assert!(
                    event.what == What::Missed || !event.id.is_empty(),
                    "{event:?}"
                );
                all.push(event);
            }
        }
        (all, lines.lines(), lines.bad_lines())
    };
    let whole = read(&[bytes]);
    assert_eq!(
        whole,
        read(&pieces(bytes, seed(bytes))),
        "the same bytes in pieces"
    );
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = events::event(line);
    }
}

fn list(bytes: &[u8]) {
    let whole = container::list(bytes);
    let mut list = container::List::default();
    for piece in pieces(bytes, seed(bytes)) {
        list.push(piece);
    }
    assert_eq!(
        whole,
        list.end(),
        "the same bytes in pieces, the same digests"
    );
    match whole {
        Ok(rows) => {
            assert!(rows.iter().all(|row| !row.id.is_empty()));
            // A row too few would take a container out of service.
            let json: Vec<serde::de::IgnoredAny> =
                serde_json::from_slice(bytes).expect("what gives rows is a list");
            assert_eq!(rows.len(), json.len(), "each of them is there");
        }
        Err(words) => readable(&words, MESSAGE_CHARS_MAX),
    }
}

/// What a daemon, or whatever stands in its place, says to one question after the other, with NULs between them.
fn docker(bytes: &[u8]) {
    thread_local! {
        static DAEMON: Server = Server::new(|request| request.ends_with(b"\r\n\r\n"));
    }
    DAEMON.with(|daemon| {
        let parts: Vec<Vec<u8>> = bytes.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        let mut parts = parts.into_iter();
        let mut last = Vec::new();
        // Asked more than it has answers, it says the last one again.
        daemon.answer(Box::new(move |_| {
            if let Some(next) = parts.next() {
                last = next;
            }
            last.clone()
        }));
        let address = Address::Unix(daemon.path.clone());
        let mut docker = Docker::new(address, None).at_most(Duration::from_secs(5));
        match docker.ping() {
            Ok(ping) => {
                let digits = |part: &str| part.parse::<u16>().is_ok();
                assert!(ping.api.split('.').all(digits), "{:?}", ping.api);
            }
            Err(error) => told(&error),
        }
        match docker.containers() {
            Ok(rows) => assert!(rows.iter().all(|row| !row.id.is_empty())),
            Err(error) => told(&error),
        }
        match docker.container("aaaaaaaaaaaa") {
            Ok(found) => assert!(found.is_none_or(|one| !one.container.id.is_empty())),
            Err(error) => told(&error),
        }
        match docker.container_soon("aaaaaaaaaaaa", Duration::from_secs(5)) {
            Ok(_) => {}
            Err(error) => told(&error),
        }
        match docker.events(Some(1)) {
            Err(error) => told(&error),
            Ok(mut stream) => loop {
                match stream.next() {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => {
                        told(&error);
                        break;
                    }
                }
            },
        }
    });
}

fn inspect(bytes: &[u8]) {
    let all: Vec<Inspected> = bytes
        .split(|byte| *byte == 0)
        .filter_map(|json| container::inspected(json).ok())
        .collect();
    routed(&all);
}

/// Lines `NAME=value` are variables, lines `name: value` labels, an empty line begins the next container.
fn labels(bytes: &[u8]) {
    routed(&described(bytes));
}

/// Containers with these descriptions, all running and with an address.
fn described(bytes: &[u8]) -> Vec<Inspected> {
    let text = String::from_utf8_lossy(bytes);
    text.split("\n\n")
        .take(20)
        .enumerate()
        .map(|(number, block)| {
            let mut one = plain(number);
            for line in block.lines() {
                if let Some((name, value)) = line.split_once(": ") {
                    one.labels.push((name.to_owned(), value.to_owned()));
                } else if let Some((name, value)) = line.split_once('=') {
                    one.env
                        .push((name.to_owned(), value.replace('\u{b6}', "\n")));
                }
            }
            one
        })
        .collect()
}

fn plain(number: usize) -> Inspected {
    let json = format!(
        r#"{{"Id":"{number:064x}","Name":"/asteroid-{number}","Created":"2026-01-01T00:00:{:02}Z","Path":"sh",
        "State":{{"Running":true,"StartedAt":"2026-01-01T00:00:00Z"}},"HostConfig":{{"NetworkMode":"bridge"}},
        "Config":{{"Image":"web","ExposedPorts":{{"8080/tcp":{{}}}}}},
        "NetworkSettings":{{"Networks":{{"bridge":{{"IPAddress":"172.17.0.{}","NetworkID":"n"}}}}}}}}"#,
        number % 60,
        number % 250 + 2
    );
    container::inspected(json.as_bytes()).expect("an inspect of our own is read")
}

struct Forgetful;

impl registry::embedded::Memory for Forgetful {
    fn load(&mut self, _: &str) -> cosmonaut::error::Result<State> {
        Ok(State::default())
    }

    fn save(&mut self, _: &str, _: &State<&str>) -> cosmonaut::error::Result<()> {
        Ok(())
    }
}

fn built_in() -> Embedded {
    Embedded::new(
        Base::built_in(None).expect("the built-in base"),
        Box::new(Forgetful),
    )
}

/// What containers become: descriptions, services, a payload, a config. Gives the payload and the config.
fn routed(all: &[Inspected]) -> (Payload, String) {
    let readings: Vec<Reading> = all
        .iter()
        .map(|one| description::read(&one.env, &one.labels))
        .collect();
    for reading in &readings {
        match reading {
            Reading::Bad(problem) | Reading::NoService(problem) => {
                readable(&problem.to_string(), 2000);
            }
            Reading::Service(_) | Reading::Disabled => {}
        }
    }
    let nothing = weave::View::default();
    let find = |id: &str| -> Option<&Container> {
        all.iter()
            .map(|one| &one.container)
            .find(|one| *one.id == *id || *one.name == *id)
    };
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode: weave::Mode::Never,
        weave: &nothing,
        find: &find,
    };
    let monitored: Vec<Monitored<'_>> = all
        .iter()
        .zip(&readings)
        .map(|(one, reading)| Monitored {
            container: &one.container,
            reading,
            address: address::of(&one.container, &context),
            leaving: false,
            held: None,
        })
        .collect();
    let mut registry = built_in();
    let mut selection = service::select(&monitored, Told::All, |one| registry.can_route(one));
    explained(all, &selection);
    let payload = selection.payload("fuzz", Vec::new());
    for candidate in &payload.candidates {
        let _ = wire::can_send(candidate);
    }
    let text = registry
        .config(&payload)
        .expect("the built-in registry routes what it can route");
    let config = Config::parse(&text);
    assert_eq!(
        answer::missing(&payload, &config, false),
        [""; 0],
        "what was asked for is there, and no more"
    );
    let violations = policy::violations(&config);
    assert!(
        violations.is_empty(),
        "containers brought in {violations:?}"
    );
    assert_eq!(config.backends().count(), payload.candidates.len());
    let usual = Config::parse(&registry_without_services())
        .sections()
        .count();
    assert_eq!(
        config.sections().count(),
        usual + payload.candidates.len(),
        "a section that is no service's:\n{text}"
    );
    assert_eq!(
        built_in().config(&payload).expect("the same again"),
        text,
        "same services, same bytes"
    );
    (payload, text)
}

/// What `explain` prints of them: a container cannot say a line in the name of another one, or move the cursor.
fn explained(all: &[Inspected], selection: &Selection) {
    let nothing = Map::default();
    let interest = Interest {
        keyword: Keyword::new("asteroid"),
        haproxy: "haproxy".to_owned(),
    };
    let survey = Survey {
        settings: all
            .iter()
            .map(|one| {
                let said = description::said(&one.env, &one.labels);
                (one.container.id.to_string(), said)
            })
            .collect(),
        ..Survey::default()
    };
    let asked = Asked {
        interest: &interest,
        keyword: "asteroid",
        cosmos: false,
        refused: &nothing,
    };
    let explanation = Explanation::all(&survey, selection, asked);
    let text = explanation.in_words();
    assert!(
        !text.contains(|c: char| c.is_control() && c != '\n'),
        "{text:?}"
    );
    let heads = text
        .lines()
        .filter(|line| !line.starts_with("    "))
        .count();
    let others = explanation.conflicts.len() + explanation.services.len() + 1;
    assert!(
        heads <= explanation.containers.len() + others,
        "a line that is nobody's: {text}"
    );
}

fn registry_without_services() -> String {
    built_in().config(&Payload::default()).expect("no services")
}

/// The config that descriptions become, if any of them is a service: for a real HAProxy to check.
#[allow(dead_code, reason = "the guided fuzzer does not use it")]
pub fn config_of_labels(bytes: &[u8]) -> Option<String> {
    let (payload, text) = routed(&described(bytes));
    (!payload.candidates.is_empty()).then_some(text)
}

fn answer(bytes: &[u8]) {
    let payload = thread_payload();
    for (status, kind) in [
        (200, Some("application/json")),
        (200, None),
        (502, Some("text/html")),
    ] {
        match answer::decode(status, kind, bytes) {
            Err(fault) => {
                readable(&fault.to_string(), MESSAGE_CHARS_MAX);
                let _ = (fault.hint(), fault.is_passing());
            }
            Ok(text) => judged(&payload, &text),
        }
    }
    let text = String::from_utf8_lossy(bytes);
    judged(&payload, &text);
    assert!(answer::unescaped(&text).len() <= text.len());
    let line = answer::one_line(&text);
    assert!(!line.contains('\n'), "{line:?}");
}

fn judged(payload: &Payload, text: &str) {
    let own = answer::with_own_cookies(text.to_owned());
    assert_eq!(
        answer::with_own_cookies(own.clone()),
        own,
        "done twice is done once"
    );
    let (before, after) = (Config::parse(text), Config::parse(&own));
    assert_eq!(
        before.lines().count(),
        after.lines().count(),
        "only cookies change"
    );
    for trust in [false, true] {
        if !answer::missing(payload, &after, trust).is_empty() {
            continue;
        }
        // By another way than the config's own reader: what was asked for is somewhere in the text.
        for candidate in &payload.candidates {
            for instance in &candidate.containers {
                let place = format!("{}:{}", instance.ip, candidate.port);
                assert!(
                    unquoted(&own).contains(&place),
                    "no {place} in an answer that lacks nothing:\n{own}"
                );
            }
        }
    }
    if policy::violations(&after).is_empty() {
        for line in own.lines() {
            let word = unquoted(line.split_whitespace().next().unwrap_or_default());
            assert!(!RUN_CODE.contains(&word.as_str()), "{line:?} is let in");
        }
    }
}

/// Directives that run or load code wherever they stand.
const RUN_CODE: &[&str] = &[
    "lua-load",
    "lua-load-per-thread",
    "program",
    "external-check",
    "insecure-fork-wanted",
    "use-fcgi-app",
    "filter",
];

/// Without what HAProxy takes away: quotes, and backslashes before what they do not mean otherwise.
fn unquoted(text: &str) -> String {
    text.replace(['"', '\'', '\\'], "")
}

fn thread_payload() -> Payload {
    serde_json::from_str(
        r#"{"table":"t","running":[{"serviceName":"web","id":"aaaaaaaaaaaa","ip":"10.0.0.1"}],"candidates":[
        {"serviceName":"web","port":80,"configMode":"host","predicate":"a.example b.example","cookie":"S","containers":[{"id":"aaaaaaaaaaaa","ip":"10.0.0.1"}]},
        {"serviceName":"api","port":8080,"configMode":"path","predicate":"api/v2 api","containers":[{"id":"bbbbbbbbbbbb","ip":"fd00::2"}]}]}"#,
    )
    .expect("a payload of our own")
}

/// Two configs, with a NUL between them.
fn config(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == 0);
    let old = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let new = halves.next().map_or_else(
        || format!("{old}backend be_more\n    server a 10.9.9.9:80\n"),
        |new| String::from_utf8_lossy(new).into_owned(),
    );
    for text in [&old, &new] {
        let parsed = Config::parse(text);
        for section in parsed.sections() {
            assert_eq!(&text[section.bytes()], section.text());
            assert!(section.end_of_own_lines() <= section.bytes().end);
            let _ = (section.name(), section.keyword(), section.servers().count());
        }
        let printed = config::with_fingerprint(text);
        let (back, print) = config::split_fingerprint(&printed);
        assert_eq!(back.trim_end_matches('\n'), text.trim_end_matches('\n'));
        assert_eq!(print, Some(config::fingerprint(back).as_str()));
        let same = config::server_changes(&parsed, &parsed);
        assert!(
            same.is_none_or(|changes| changes.is_empty()),
            "nothing differs from itself"
        );
        let _ = policy::violations(&parsed);
        let _ = changes::in_words(None, text);
    }
    let (before, after) = (Config::parse(&old), Config::parse(&new));
    compared(&before, &after);
    let _ = changes::in_words(Some(&old), &new);
    assert_eq!(
        patched(&old, &diff::unified(&old, &new, "a", "b")),
        new,
        "the diff leads from one to the other"
    );
    let blocks = Blocks::new(&after, Some(&before));
    let (suspects, _) = blocks.suspects();
    let _ = blocks.named_in(&new);
    let all: Set<&str> = suspects.into_iter().collect();
    let held_back = blocks.holding_back(&all);
    for service in all.iter().filter(|service| !blocks.has_old(service)) {
        assert!(
            !Config::parse(&held_back).services().contains(service),
            "{service:?} is held back and is there:\n{held_back}"
        );
    }
}

/// What differs in servers: the same seen from both sides, and nothing but servers.
fn compared(before: &Config<'_>, after: &Config<'_>) {
    let (there, back) = (
        config::server_changes(before, after),
        config::server_changes(after, before),
    );
    let (Some(there), Some(back)) = (&there, &back) else {
        assert_eq!(there.is_some(), back.is_some(), "only one way");
        return;
    };
    let pairs: Vec<_> = there.iter().zip(back).collect();
    assert_eq!((pairs.len(), pairs.len()), (there.len(), back.len()));
    for (there, back) in pairs {
        assert_eq!(there.backend, back.backend);
        let names = |servers: &[config::Server<'_>]| -> BTreeSet<String> {
            servers.iter().map(|one| one.name.to_owned()).collect()
        };
        assert_eq!(names(&there.added), names(&back.removed));
        assert_eq!(names(&there.removed), names(&back.added));
        assert_eq!(there.changed.len(), back.changed.len());
    }
    let others = |config: &Config<'_>| -> Vec<Vec<String>> {
        config
            .lines()
            .filter(|line| line.keyword() != "server")
            .filter(|line| !line.word(1).starts_with(config::DESCRIPTION_PREFIX))
            .map(|line| line.words.iter().map(|word| word.to_string()).collect())
            .collect()
    };
    assert_eq!(others(before), others(after), "more than servers differs");
}

/// `old` after a unified diff, by the rules of `patch`, with no fuzz.
fn patched(old: &str, diff: &str) -> String {
    if diff.is_empty() {
        return old.to_owned();
    }
    let mut rest = old.split_inclusive('\n');
    let mut new = String::new();
    let mut at = 0;
    let mut lines = diff.split_inclusive('\n').skip(2).peekable();
    while let Some(line) = lines.next() {
        if let Some(span) = line.strip_prefix("@@ -") {
            let mut numbers = span.split([',', ' ']).map(str::parse::<usize>);
            let start = numbers.next().expect("a start").expect("a number");
            let is_empty = span
                .split(' ')
                .next()
                .is_some_and(|one| one.ends_with(",0"));
            let skip = if is_empty { start } else { start - 1 };
            while at < skip {
                new.push_str(rest.next().expect("a line to skip"));
                at += 1;
            }
            continue;
        }
        let (sign, text) = line.split_at(1);
        let ended = lines
            .next_if(|next| next.starts_with("\\ No newline"))
            .is_some();
        let text = if ended { &text[..text.len() - 1] } else { text };
        if sign != "+" {
            assert_eq!(rest.next(), Some(text), "a line of the old text");
            at += 1;
        }
        if sign != "-" {
            new.push_str(text);
        }
    }
    rest.for_each(|line| new.push_str(line));
    new
}

/// An operator's base: what is accepted takes a service and keeps its own text.
fn base(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(base) = Base::new(&text) else { return };
    let mut registry = Embedded::new(base, Box::new(Forgetful));
    let rendered = registry.config(&thread_payload()).expect("it was accepted");
    let mut rest = &*rendered;
    for line in text.lines() {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("the base's line {line:?} is not in\n{rendered}"));
        rest = &rest[at + line.len()..];
    }
}

/// Instances of other hosts: each is a container with an address that can be routed to, and was told.
fn instances(answer: &report::Answer) {
    for one in weave::elsewhere(answer) {
        assert_eq!(address::refusal(one.ip), None, "{one:?}");
        assert!(
            one.id.len() >= status_dns::ID_CHARS
                && one.id.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{one:?}"
        );
        assert!(
            answer
                .entries
                .iter()
                .any(|entry| entry.id == one.id && one.ip == entry.address && !entry.removed),
            "{one:?}"
        );
    }
}

fn weave(bytes: &[u8]) {
    match report::report(bytes) {
        Ok(answer) => instances(&answer),
        Err(unusable) => readable(&unusable.to_string(), MESSAGE_CHARS_MAX),
    }
    if let Err(unusable) = report::owned(bytes) {
        readable(&unusable.to_string(), MESSAGE_CHARS_MAX);
    }
    let text = String::from_utf8_lossy(bytes);
    let answer = status_dns::parse(&text);
    let lines = text.split('\n').filter(|line| !line.trim_end().is_empty());
    assert_eq!(
        answer.entries.len() + answer.skipped,
        lines.count(),
        "each line is an entry or is counted"
    );
    instances(&answer);
    for entry in &answer.entries {
        assert!(entry.id.chars().count() <= status_dns::ID_CHARS);
    }
    for line in text.lines() {
        if let (Some(subnet), Some((address, _))) =
            (report::Subnet::parse(line), line.split_once('/'))
        {
            let address = address.parse().expect("it was read");
            assert!(subnet.contains(address), "{line}");
        }
    }
}

/// A folder of this thread, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("csm-fuzz-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_folder(name: &'static str, act: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDERS: RefCell<Vec<(&'static str, Folder)>> = const { RefCell::new(Vec::new()) };
    }
    FOLDERS.with_borrow_mut(|folders| {
        if !folders.iter().any(|(one, _)| *one == name) {
            folders.push((name, Folder::new(name)));
        }
        let found = folders.iter().find(|(one, _)| *one == name);
        act(&found.expect("it was just made").1.0);
    });
}

/// Our own files, as a crash, an older version or a person may leave them; with a NUL between two of them.
fn state(bytes: &[u8]) {
    in_folder("state", |folder| {
        let mut parts = bytes.splitn(2, |byte| *byte == 0);
        let (first, second) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let file = folder.join("fuzz.json");
        fs::write(&file, first).expect("written");
        let mut store = Store::read_only(folder);
        let state = store.load("fuzz").expect("a file that can be read");
        let mut registry = Embedded::new(Base::built_in(None).expect("a base"), Box::new(store));
        let payload = Payload {
            table: "fuzz".to_owned(),
            ..thread_payload()
        };
        let text = registry.config(&payload).expect("whatever the store says");
        let config = Config::parse(&text);
        assert_eq!(
            answer::missing(&payload, &config, false),
            [""; 0],
            "stored: {state:?}"
        );
        fs::write(folder.join("taken.json"), first).expect("written");
        fs::write(folder.join("last-good.cfg"), second).expect("written");
        let memory = memory::Memory::new(folder, &folder.join("haproxy.cfg"));
        if let Some((text, print)) = memory.last_good() {
            assert!(text.contains(&print));
        }
        let _ = memory.taken();
    });
}

/// What a HAProxy (or something else) says on its socket.
fn socket(bytes: &[u8]) {
    thread_local! {
        static SERVER: Server = Server::new(|question| question.ends_with(b"\n"));
    }
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Ok(address) = SocketAddr::parse(line) {
            let shown = address.to_string();
            assert_eq!(
                SocketAddr::parse(&shown),
                Ok(address),
                "{shown} is read back"
            );
        }
    }
    SERVER.with(|server| {
        let reply = bytes.to_vec();
        server.answer(Box::new(move |_| reply.clone()));
        let address = SocketAddr::Path(server.path.clone());
        match socket::info(&address, false, Duration::from_secs(5)) {
            Ok(info) => assert!(!info.version.is_empty()),
            Err(error) => told(&error),
        }
    });
}

/// What a HAProxy says to each of our commands, with NULs between: `show info`, `show servers state`, `add server`, all
/// others. A change by the socket counts as made only if all of it says so.
fn runtime(bytes: &[u8]) {
    const OLD: &str = "backend be_web\n    server a1 10.0.0.1:80 check\n";
    const NEW: &str =
        "backend be_web\n    server a1 10.0.0.1:80 check\n    server a2 10.0.0.2:80 check\n";
    thread_local! {
        static SERVER: Server = Server::new(|question| question.ends_with(b"\n"));
    }
    let parts: Vec<Vec<u8>> = bytes
        .splitn(4, |byte| *byte == 0)
        .map(<[u8]>::to_vec)
        .collect();
    let part = |at: usize| parts.get(at).cloned().unwrap_or_default();
    let text = |at: usize| String::from_utf8_lossy(&part(at)).into_owned();
    for at in 0..4 {
        let _ = (master::answer(&text(at)), servers::read(&text(at)));
        if let Some(processes) = master::read(&text(at)) {
            assert!(text(at).contains("master"), "{processes:?}");
        }
    }
    SERVER.with(|server| {
        let replies = parts.clone();
        server.answer(Box::new(move |question| {
            let at = match question {
                b"show info\n" => 0,
                b"show servers state\n" => 1,
                _ if question.starts_with(b"add server ") => 2,
                _ => 3,
            };
            replies.get(at).cloned().unwrap_or_default()
        }));
        let mut runtime = Runtime::new(SocketAddr::Path(server.path.clone()));
        let (old, new) = (Config::parse(OLD), Config::parse(NEW));
        let shown = Shown {
            loaded: "0123456789abcdef",
            current: "fedcba9876543210",
        };
        match runtime.apply(&old, &new, shown) {
            Ok(print) => {
                assert!([shown.loaded, shown.current].contains(&print.as_str()));
                assert!(
                    text(0).contains(&format!("cosmonaut:{print}")),
                    "HAProxy shows another config"
                );
                assert_eq!(text(2).trim(), "New server registered.");
                assert_eq!(text(3).trim(), "");
                let rows = text(1);
                for address in ["10.0.0.1", "10.0.0.2"] {
                    assert!(
                        rows.lines().any(|row| row.contains(address)
                            && row.contains("be_web")
                            && row.contains("80")),
                        "no server at {address} in {rows}"
                    );
                }
            }
            Err(doubt) => assert!(!doubt.is_empty()),
        }
    });
}

/// Makes an answer of a question.
type Reply = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

/// A Unix socket that answers one question on each connection, in two pieces, and closes it.
struct Server {
    path: PathBuf,
    reply: Arc<Mutex<Reply>>,
}

impl Server {
    /// `is_whole` tells when a question has come to its end.
    fn new(is_whole: fn(&[u8]) -> bool) -> Server {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!(
            "csm-fuzz-{}-{}.sock",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let reply: Arc<Mutex<Reply>> = Arc::new(Mutex::new(Box::new(|_| Vec::new())));
        let shared = Arc::clone(&reply);
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let (mut question, mut piece) = (Vec::new(), [0; 4096]);
                while !is_whole(&question) {
                    match stream.read(&mut piece) {
                        Ok(1..) if question.len() > 1 << 16 => break,
                        Ok(0) | Err(_) => break,
                        Ok(length) => question.extend_from_slice(&piece[..length]),
                    }
                }
                let bytes = (shared.lock().unwrap_or_else(PoisonError::into_inner))(&question);
                let half = bytes.len() / 2;
                let _ = stream
                    .write_all(&bytes[..half])
                    .and_then(|()| stream.write_all(&bytes[half..]));
            }
        });
        Server { path, reply }
    }

    fn answer(&self, reply: Reply) {
        *self.reply.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The processes of this machine; any container's is among them, with the name and the words that it likes. They are
/// parted by lines `--`, and their files (comm, stat, cmdline, status, mountinfo, cgroup) by lines `-`.
fn process(bytes: &[u8]) {
    const FILES: [&str; 6] = ["comm", "stat", "cmdline", "status", "mountinfo", "cgroup"];
    in_folder("proc", |folder| {
        let config = folder.join("haproxy.cfg");
        fs::write(&config, "global\n").expect("written");
        let mut pids = Vec::new();
        for (number, process) in split_at(bytes, b"\n--\n").into_iter().take(4).enumerate() {
            let pid = 10 + number;
            let of_process = folder.join(pid.to_string());
            fs::create_dir_all(of_process.join("root/etc")).expect("a folder");
            fs::write(of_process.join("root/etc/haproxy.cfg"), "global\n").expect("written");
            let parts = split_at(process, b"\n-\n");
            for (file, part) in FILES
                .iter()
                .zip(parts.iter().chain(std::iter::repeat(&&b""[..])))
            {
                fs::write(of_process.join(file), part).expect("written");
            }
            pids.push(pid as u32);
        }
        let all = process::all(folder);
        for one in &all {
            assert!(pids.contains(&one.pid), "{one:?}");
            let is_worker = |other: &process::Process| other.workers.contains(&one.pid);
            assert!(!all.iter().any(is_worker), "{one:?} is somebody's worker");
            assert!(one.files.iter().all(|file| file.is_absolute()), "{one:?}");
            assert!(!one.is_of(""), "no container has no id");
            let _ = (one.reads(&config), one.is_of("0123456789ab"));
            if one.reads_text(&config) {
                assert!(!one.files.is_empty());
            }
            if let Some(file) = one.mounted_alone() {
                assert!(one.files.iter().any(|known| known == file));
            }
        }
        for pid in pids {
            let _ = fs::remove_dir_all(folder.join(pid.to_string()));
        }
    });
}

fn split_at<'b>(bytes: &'b [u8], border: &[u8]) -> Vec<&'b [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest
        .windows(border.len())
        .position(|window| window == border)
    {
        parts.push(&rest[..at]);
        rest = &rest[at + border.len()..];
    }
    parts.push(rest);
    parts
}

/// The history's index, a config of it, the file of a hold, that of the status and a lock, with NULs between them.
fn history(bytes: &[u8]) {
    in_folder("history", |folder| {
        let parts: Vec<&[u8]> = bytes.splitn(5, |byte| *byte == 0).collect();
        let part = |at: usize| parts.get(at).copied().unwrap_or_default();
        let of_history = folder.join("history");
        let _ = fs::remove_dir_all(&of_history);
        fs::create_dir_all(&of_history).expect("a folder");
        for (path, at) in [
            (of_history.join("index.json"), 0),
            (of_history.join("1.cfg"), 1),
            (of_history.join("hold.json"), 2),
            (folder.join("status.json"), 3),
            (folder.join("watch.lock"), 4),
        ] {
            fs::write(path, part(at)).expect("written");
        }
        assert_eq!(lock::holder(folder, lock::WATCH), None, "nobody holds it");
        let now = Timestamp::from_unix_nanos(1_800_000_000_000_000_000);
        let history = history::History::new(folder);
        let hold = history.hold().expect("a file that can be read");
        assert!(hold.is_some(), "whatever it says, it holds");
        match status::read(folder) {
            Ok(status) => {
                let view = View::new(status, None, hold.clone(), now);
                assert!(!view.ok, "nobody runs");
                let _ = view.in_words(now);
            }
            Err(error) => told(&error),
        }
        match history.entries() {
            Ok(entries) => {
                let _ = history::in_words(&entries, None, hold.as_ref());
                for entry in entries.iter().take(20) {
                    match history.text(entry) {
                        Ok(text) => {
                            let (body, print) = config::split_fingerprint(&text);
                            assert_eq!(print, Some(config::fingerprint(body).as_str()));
                        }
                        Err(error) => assert!(!error.to_string().is_empty()),
                    }
                }
                if let Ok(entry) = history::choose(&entries, None, None, hold.as_ref()) {
                    assert!(entries.contains(entry));
                }
            }
            Err(error) => told(&error),
        }
        // Whatever was there, the next config is kept and can be had again.
        let next = config::with_fingerprint("backend be_web\n    server a 10.0.0.1:80\n");
        history.keep(&next, "start", "+web");
        let entries = history.entries().expect("an index of our own");
        let newest = entries.first().expect("the one that was just kept");
        assert_eq!(
            Some(newest.fingerprint.as_str()),
            config::split_fingerprint(&next).1
        );
        assert!(entries.len() <= 10, "{} are kept", entries.len());
    });
}

/// Four lines: what stands before a password, what stands after it, a host, a list of hosts. No message shows the password.
fn url(bytes: &[u8]) {
    const PASSWORD: &str = "hunter2";
    let text = String::from_utf8_lossy(bytes);
    if text.contains(PASSWORD) {
        return;
    }
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default();
    let (before, after, host, names) = (line(), line(), line(), line());
    for scheme in ["https://", "http://", ""] {
        let url = format!("{scheme}{before}{PASSWORD}@{after}");
        let arguments = ["sync", "--cosmos-url", &url, "-t", "t"].map(OsString::from);
        match cli::parse(arguments, &|_| None, "") {
            Err(error) => {
                let words = format!("{error} {}", error.hint_text().unwrap_or_default());
                assert!(!words.contains(PASSWORD), "{words}");
            }
            // Behind a slash it is a path, and not a password.
            Ok(_) if before.contains(['/', '?', '#']) => {}
            Ok(_) => {
                let shown = format!("{} {:?}", redacted(&url), Settings::new(&url));
                assert!(!shown.contains(PASSWORD), "{shown}");
            }
        }
    }
    for line in text.lines() {
        if let Ok(address) = router::address(line, 6784) {
            let shown = address.to_string();
            let again = router::address(&shown, 1).expect("its own words");
            assert_eq!(again.to_string(), shown, "of {line:?}");
        }
    }
    let variable = |no_proxy: &str| {
        let no_proxy = no_proxy.to_owned();
        move |name: &str| match name {
            "all_proxy" => Some("http://proxy:3128".to_owned()),
            "no_proxy" => Some(no_proxy.clone()),
            _ => None,
        }
    };
    let proxy = proxy::of(true, host, &variable(names));
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    assert!(
        !proxy::is_loopback(bare) || proxy.is_none(),
        "{host:?} by a proxy"
    );
    assert_eq!(
        proxy::of(true, host, &variable(&format!("{names},*"))),
        None,
        "all are named"
    );
    assert_eq!(
        proxy::of(false, host, &variable(names)).is_some(),
        proxy.is_some()
    );
}

/// A command line: one argument a line; lines `$NAME=value` are variables.
fn options(bytes: &[u8]) {
    let mut arguments = Vec::new();
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let setting = line.strip_prefix(b"$").and_then(|rest| {
            let at = rest.iter().position(|byte| *byte == b'=')?;
            let (name, value) = rest.split_at(at);
            Some((
                String::from_utf8_lossy(name).into_owned(),
                OsString::from_vec(value[1..].to_vec()),
            ))
        });
        match setting {
            Some(pair) => variables.push(pair),
            None => arguments.push(OsString::from_vec(line.to_vec())),
        }
    }
    let variable = |name: &str| {
        variables
            .iter()
            .rev()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.clone())
    };
    match cli::parse(arguments, &variable, "#!/bin/sh\n") {
        Ok(cli::Command::Print(text)) => assert!(!text.is_empty()),
        Ok(cli::Command::Run(_, options)) => {
            assert!(options.settle <= options.settle_max);
            assert!(!options.cosmos_table.is_empty());
            let _ = router::address(&options.weave_addr, 6784);
            for socket in [&options.haproxy_socket, &options.haproxy_master]
                .into_iter()
                .flatten()
            {
                let _ = SocketAddr::parse(socket);
            }
        }
        Err(error) => {
            let words = error.to_string();
            assert!(
                !words.is_empty() && words.len() < 4000 + 2 * bytes.len(),
                "{words}"
            );
            let _ = error.hint_text();
        }
    }
}

/// `DOCKER_HOST`, then config.json, then a context's meta.json, with NULs between them; one part alone is each in turn.
fn endpoint(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.splitn(3, |byte| *byte == 0).collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or(bytes);
    in_folder("endpoint", |folder| {
        let meta =
            META.with_borrow_mut(|found| found.get_or_insert_with(|| context_meta(folder)).clone());
        fs::write(folder.join("config.json"), part(1)).expect("written");
        fs::write(meta.join("meta.json"), part(2)).expect("written");
        let text = String::from_utf8_lossy(part(0)).into_owned();
        let home = folder.display().to_string();
        for (host, context) in [
            (Some(text.as_str()), None),
            (None, None),
            (None, Some(CONTEXT)),
            (None, Some(text.as_str())),
        ] {
            let env = |name: &str| match name {
                "DOCKER_CONFIG" | "HOME" => Some(home.clone()),
                "DOCKER_CONTEXT" => context.map(str::to_owned),
                _ => None,
            };
            match endpoint::resolve(host, &env) {
                Ok(found) => {
                    let shown = found.address.to_string();
                    assert!(!shown.contains(char::is_control), "{shown:?}");
                    let none = |_: &str| None;
                    let again = endpoint::resolve(Some(&shown), &none).expect("its own words");
                    assert_eq!(again.address.to_string(), shown);
                }
                Err(error) => told(&error),
            }
        }
    });
}

thread_local! {
    static META: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// A context of our fixtures.
const CONTEXT: &str = "lab-tls";

/// The folder of that context, among copies of our fixtures.
fn context_meta(folder: &Path) -> PathBuf {
    copy(&fixtures().join("docker/contexts"), folder);
    fs::read_dir(folder.join("contexts/meta"))
        .expect("the contexts of our fixtures")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            fs::read_to_string(path.join("meta.json")).is_ok_and(|text| text.contains(CONTEXT))
        })
        .expect("a context of that name")
}

/// Our fixtures, from the package of the tests or from that of the guided fuzzer.
fn fixtures() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = [package.join("tests/data"), package.join("../../data")];
    found
        .into_iter()
        .find(|path| path.is_dir())
        .expect("the fixtures are beside the tests")
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of fixtures").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            let _ = fs::create_dir_all(&target);
            copy(&path, &target);
        } else {
            let _ = fs::copy(&path, &target);
        }
    }
}

fn time(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        for moment in [Timestamp::parse(line), Timestamp::parse_http_date(line)]
            .into_iter()
            .flatten()
        {
            let shown = moment.to_string();
            // Offsets can lead out of the years of four digits that RFC 3339 has.
            if (0..=9999).contains(&year(&shown)) {
                assert_eq!(
                    Timestamp::parse(&shown),
                    Some(moment),
                    "{shown} is read back"
                );
            }
            let nanos = moment.unix_nanos();
            if nanos != i64::MIN && nanos != i64::MAX {
                assert_eq!(Timestamp::from_unix_nanos(nanos).unix_nanos(), nanos);
            }
        }
        let arguments = ["sync", "--settle", line, "--settle-max", "1h"].map(OsString::from);
        let _ = cli::parse(arguments, &|_| None, "");
    }
}

fn year(shown: &str) -> i64 {
    let digits = shown.strip_prefix('-').unwrap_or(shown);
    let number: i64 = digits
        .split('-')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1);
    if shown.starts_with('-') {
        -number - 1
    } else {
        number
    }
}
