//! The fake daemon's life and its connections: listen, answer, stream, stop.

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use super::super::wire::{self, Listener, Place, Stream};
use super::{FakeDocker, Manner, Push, Request, Shared, Subscriber, bare_path};

impl FakeDocker {
    /// Listens again (TCP: at the same port). Containers and their state are as they were left.
    pub fn start_daemon(&mut self) {
        let listener = Listener::open(&mut self.place).expect("the fake daemon can listen");
        let mut world = self.shared.world();
        world.listening = true;
        let life = world.life;
        drop(world);
        let shared = Arc::clone(&self.shared);
        thread::Builder::new()
            .name("fake docker".to_owned())
            .spawn(move || {
                while let Ok(stream) = listener.accept() {
                    let mut world = shared.world();
                    if world.life != life {
                        return;
                    }
                    world.connections_made += 1;
                    let number = world.connections_made;
                    let Ok(clone) = stream.try_clone() else {
                        continue;
                    };
                    world.connections.push((number, clone));
                    drop(world);
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        serve(&shared, stream, number);
                        let mut world = shared.world();
                        if let Some(at) = world.connections.iter().position(|one| one.0 == number) {
                            // The clone keeps the socket open: the client must see the end.
                            world.connections.remove(at).1.shut_down();
                        }
                    });
                }
            })
            .expect("a thread for the fake daemon");
    }

    /// As SIGKILL of a daemon that owns its socket: every connection ends without a last chunk,
    /// and new ones are refused (a Unix socket's file stays).
    pub fn kill_daemon(&mut self) {
        let mut world = self.shared.world();
        if !world.listening {
            return;
        }
        world.listening = false;
        world.life += 1;
        world.subscribers.clear();
        world.ring.clear();
        let connections = std::mem::take(&mut world.connections);
        drop(world);
        for (_, stream) in connections {
            stream.shut_down();
        }
        // Wakes the accepting thread, which sees that its life is over and drops the listener.
        drop(Stream::connect(&self.place));
        super::super::deadline::poll(super::super::deadline::SOON, || {
            Stream::connect(&self.place).is_err().then_some(())
        });
    }

    /// As SIGTERM: like [`kill_daemon`](Self::kill_daemon), and a Unix socket's file is removed.
    pub fn stop_daemon(&mut self) {
        self.kill_daemon();
        if let Place::Unix(path) = &self.place {
            let _ = std::fs::remove_file(path);
        }
    }

    /// A daemon that accepts and never answers, as when frozen by SIGSTOP. Ends with `behave`.
    pub fn freeze(&self) {
        self.misbehave("/", usize::MAX, wire::Reply::Silence);
    }

    /// Ends every event stream, with or without the last chunk.
    pub fn end_streams(&self, clean: bool) {
        let mut world = self.shared.world();
        for subscriber in std::mem::take(&mut world.subscribers) {
            let _ = subscriber.sender.send(Push::End { clean });
        }
    }
}

/// Serves one connection until its end.
fn serve(shared: &Arc<Shared>, mut stream: Stream, connection: usize) {
    let mut left = Vec::new();
    while let Some(asked) = wire::read_request(&mut stream, &mut left) {
        let mut world = shared.world();
        world.requests.push(Request {
            method: asked.method.clone(),
            target: asked.target.clone(),
            at: Instant::now(),
            connection,
            headers: asked.headers.clone(),
        });
        let reply = world
            .troubles
            .iter_mut()
            .find(|trouble| trouble.times > 0 && asked.target.contains(&trouble.on))
            .map(|trouble| {
                trouble.times -= 1;
                trouble.reply.clone()
            });
        let manner = world.manner.clone();
        drop(world);
        shared.changed.notify_all();
        if let Some(reply) = reply
            && !wire::play(&mut stream, &reply)
        {
            return;
        }
        let done = if bare_path(&asked.target) == "/events" && asked.method == "GET" {
            stream_events(shared, &mut stream, &asked.target, &manner);
            true
        } else {
            let answer = answer(shared, &asked, &manner);
            stream.write_all(&answer).is_err() || manner.closes
        };
        if done {
            return;
        }
    }
}

/// The answer to everything but the event stream.
fn answer(shared: &Shared, asked: &wire::Asked, manner: &Manner) -> Vec<u8> {
    if let Some(refusal) = refused_version(&asked.target, manner) {
        return refusal;
    }
    if asked.method != "GET" {
        return message(manner, "405 Method Not Allowed", "the fake serves GET only");
    }
    let path = bare_path(&asked.target);
    if path == "/_ping" {
        return whole(manner, "200 OK", "text/plain; charset=utf-8", b"OK");
    }
    let world = shared.world();
    let now = Instant::now();
    if path == "/containers/json" {
        let all =
            wire::query(&asked.target, "all").is_some_and(|value| value == "1" || value == "true");
        // The newest first, as Docker lists them.
        let mut rows: Vec<Value> = world
            .containers
            .iter()
            .filter(|one| {
                all || one.listed(manner.podman) || one.ghost_until.is_some_and(|until| now < until)
            })
            .map(|one| one.row(manner.podman, now))
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row["Created"].as_u64()));
        return json_answer(manner, "200 OK", &Value::Array(rows));
    }
    if let Some(id) = path
        .strip_prefix("/containers/")
        .and_then(|rest| rest.strip_suffix("/json"))
    {
        return match world
            .containers
            .iter()
            .find(|one| one.id == id || one.name == id)
        {
            Some(one) => json_answer(manner, "200 OK", &one.inspect(manner.podman)),
            None => message(manner, "404 Not Found", &format!("No such container: {id}")),
        };
    }
    message(manner, "404 Not Found", "page not found")
}

/// The 400 of a daemon that does not speak the version in the path, in 20.10's words.
fn refused_version(target: &str, manner: &Manner) -> Option<Vec<u8>> {
    if manner.podman {
        return None;
    }
    let minor: u32 = target
        .strip_prefix("/v1.")?
        .split('/')
        .next()?
        .parse()
        .ok()?;
    if minor > manner.api_max {
        let text = format!(
            "client version 1.{minor} is too new. Maximum supported API version is 1.{}",
            manner.api_max
        );
        return Some(message(manner, "400 Bad Request", &text));
    }
    if minor < manner.api_min {
        let text = format!(
            "client version 1.{minor} is too old. Minimum supported API version is 1.{}, please upgrade your client to a newer version",
            manner.api_min
        );
        return Some(message(manner, "400 Bad Request", &text));
    }
    None
}

fn message(manner: &Manner, status: &str, text: &str) -> Vec<u8> {
    json_answer(manner, status, &json!({ "message": text }))
}

fn json_answer(manner: &Manner, status: &str, value: &Value) -> Vec<u8> {
    whole(
        manner,
        status,
        "application/json",
        (value.to_string() + "\n").as_bytes(),
    )
}

/// Docker's headers around a body: up to 2,048 bytes with a length, larger ones chunked.
fn whole(manner: &Manner, status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let framing = if manner.closes {
        "Connection: close".to_owned()
    } else if body.len() > 2_048 {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", body.len())
    };
    let mut bytes = head(manner, status, content_type, &framing);
    if framing.starts_with("Transfer") {
        // Several chunks, as a large body comes.
        for part in body.chunks(4_096) {
            bytes.extend(wire::chunk(part, manner.proxied));
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    } else {
        bytes.extend_from_slice(body);
    }
    bytes
}

fn head(manner: &Manner, status: &str, content_type: &str, framing: &str) -> Vec<u8> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut lines = vec![
        format!("Api-Version: 1.{}", manner.api_max),
        format!("Content-Type: {content_type}"),
    ];
    if manner.podman {
        lines.push("Libpod-Api-Version: 4.3.1".to_owned());
        lines.push("Server: Libpod/4.3.1 (linux)".to_owned());
    } else {
        lines.push("Docker-Experimental: false".to_owned());
        lines.push("Ostype: linux".to_owned());
        lines.push("Server: Docker/20.10.24+dfsg1 (linux)".to_owned());
    }
    lines.push(format!("Date: {}", http_date(now)));
    lines.push(framing.to_owned());
    let mut text = String::new();
    if manner.interim {
        text.push_str("HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n");
    }
    text.push_str(&format!("HTTP/1.1 {status}\r\n"));
    for line in lines {
        match line.split_once(':') {
            Some((name, value)) if manner.proxied => {
                text.push_str(&format!("{}:{value}\r\n", name.to_lowercase()));
            }
            _ => text.push_str(&format!("{line}\r\n")),
        }
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// IMF-fixdate (RFC 9110, 5.6.7).
fn http_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let date = super::container::rfc3339(seconds);
    let month: usize = date[5..7].parse().expect("two digits");
    format!(
        "{}, {} {} {} {} GMT",
        DAYS[(seconds / 86_400 % 7) as usize],
        &date[8..10],
        MONTHS[month - 1],
        &date[..4],
        &date[11..19]
    )
}

/// Writes the event stream until it ends or the client leaves.
fn stream_events(shared: &Arc<Shared>, stream: &mut Stream, target: &str, manner: &Manner) {
    if let Some(refusal) = refused_version(target, manner) {
        let _ = stream.write_all(&refusal);
        return;
    }
    let mut first = head(
        manner,
        "200 OK",
        "application/json",
        "Transfer-Encoding: chunked",
    );
    if manner.no_event_log {
        first.extend_from_slice(b"0\r\n\r\n");
        let _ = stream.write_all(&first);
        return;
    }
    let filters = wire::query(target, "filters")
        .filter(|_| !manner.ignore_filters)
        .and_then(|text| serde_json::from_str::<Value>(&text).ok());
    let since = wire::query(target, "since").and_then(|text| nanos(&text));
    let (sender, receiver) = channel();
    let mut world = shared.world();
    if let Some(since) = since {
        for old in &world.ring {
            if old.time_nano >= since && wants(filters.as_ref(), &old.kind, &old.action) {
                let _ = sender.send(Push::Event(Arc::clone(&old.line)));
            }
        }
    }
    world.subscribers.push(Subscriber { filters, sender });
    drop(world);
    if stream.write_all(&first).is_ok() {
        shared.world().streams += 1;
        write_events(shared, stream, &receiver, manner);
    }
}

fn write_events(shared: &Shared, stream: &mut Stream, events: &Receiver<Push>, manner: &Manner) {
    while let Ok(push) = events.recv() {
        let mut bytes = Vec::new();
        let mut count = 0;
        let mut end = false;
        // What waits is written in one go: a storm is as fast as the socket takes it.
        let mut next = Some(push);
        while let Some(push) = next.take() {
            match push {
                Push::Event(line) => {
                    count += 1;
                    let size = line.len().div_ceil(manner.event_pieces.max(1));
                    for part in line.as_bytes().chunks(size) {
                        bytes.extend(wire::chunk(part, manner.proxied));
                    }
                }
                Push::Raw(raw) => bytes.extend(raw),
                Push::End { clean } => {
                    if clean {
                        bytes.extend_from_slice(b"0\r\n\r\n");
                    }
                    end = true;
                }
            }
            if !end && bytes.len() < 64 * 1024 {
                next = events.try_recv().ok();
            }
        }
        if stream.write_all(&bytes).is_err() {
            return;
        }
        shared.world().delivered += count;
        if end {
            return;
        }
    }
}

/// `sec.nnnnnnnnn` or seconds, as nanoseconds.
fn nanos(text: &str) -> Option<i64> {
    let (seconds, rest) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let rest: i64 = format!("{rest:0<9}").get(..9)?.parse().ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(rest)
}

/// Docker's filter: values of one key are alternatives, keys must all match.
pub(super) fn wants(filters: Option<&Value>, kind: &str, action: &str) -> bool {
    let Some(filters) = filters else {
        return true;
    };
    let values = |key: &str| -> Option<Vec<String>> {
        match filters.get(key)? {
            Value::Array(all) => Some(
                all.iter()
                    .filter_map(|one| one.as_str().map(str::to_owned))
                    .collect(),
            ),
            Value::Object(all) => Some(all.keys().cloned().collect()),
            _ => None,
        }
    };
    let kind_fits = values("type").is_none_or(|all| all.iter().any(|one| one == kind));
    let action_fits = values("event").is_none_or(|all| {
        all.iter().any(|one| {
            one == action || (one == "health_status" && action.starts_with("health_status"))
        })
    });
    kind_fits && action_fits
}
