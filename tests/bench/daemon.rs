//! A Docker daemon for measuring: fast, well-behaved, with as many containers as a row needs.
//!
//! Answers are cut from real ones (Docker 20.10), so that they are as long and as nested as what a tool meets.
//! Knows nothing of the tool. What a daemon may do wrong is the integration tests' business, not this one's.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const INSPECT: &str = include_str!("../data/docker/docker-20.10.24/inspect-default-bridge.http");
const LIST: &str = include_str!("../data/docker/docker-20.10.24/containers-json.http");
/// How long a reader may leave its stream full before it counts as deaf.
const DEAF: Duration = Duration::from_secs(20);

/// One container.
#[derive(Clone)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub service: String,
    pub ip: String,
    pub running: bool,
    pub started: u128,
}

impl Container {
    /// The `n`th container, of a service of its own. `ours` decides whether its name holds the keyword.
    pub fn new(n: usize, ours: bool) -> Container {
        let prefix = if ours { "asteroid" } else { "other" };
        Container {
            id: format!("{n:012x}{:052x}", n * 7919 + 1),
            name: format!("{prefix}-s{n:05}-1"),
            service: format!("s{n:05}"),
            ip: format!("10.{}.{}.{}", n / 62_500 + 1, n / 250 % 250, n % 250 + 2),
            running: true,
            started: now(),
        }
    }
}

/// The daemon; its threads live as long as the process.
#[derive(Clone)]
pub struct Daemon {
    shared: Arc<Mutex<State>>,
    pub socket: PathBuf,
}

struct State {
    containers: Vec<Container>,
    /// Where in `containers` an id is.
    places: HashMap<String, usize>,
    /// The list, as long as nothing changed.
    list: Option<Arc<Vec<u8>>>,
    open: Vec<UnixStream>,
    streams: Vec<UnixStream>,
    inspects: u64,
    lists: u64,
    template: Arc<Template>,
}

struct Template {
    inspect: Vec<String>,
    row: Vec<String>,
}

impl Daemon {
    pub fn new(socket: &Path, containers: Vec<Container>) -> Daemon {
        let template = Arc::new(Template::from_captures());
        let daemon = Daemon {
            shared: Arc::new(Mutex::new(State {
                places: containers
                    .iter()
                    .enumerate()
                    .map(|(at, one)| (one.id.clone(), at))
                    .collect(),
                containers,
                list: None,
                open: Vec::new(),
                streams: Vec::new(),
                inspects: 0,
                lists: 0,
                template,
            })),
            socket: socket.to_owned(),
        };
        daemon.come_back();
        daemon
    }

    /// Listens, again.
    pub fn come_back(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let listener = UnixListener::bind(&self.socket).expect("a socket for the fake daemon");
        let daemon = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let daemon = daemon.clone();
                std::thread::spawn(move || daemon.serve(stream));
            }
        });
    }

    /// Hangs up on everybody and is not there any more.
    pub fn go_away(&self) {
        let _ = std::fs::remove_file(&self.socket);
        let mut state = self.state();
        state.streams.clear();
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Starts a container without a word; returns its event.
    pub fn starts(&self, id: &str) -> Vec<u8> {
        self.turns(id, true, "start")
    }

    /// Ends a container without a word; returns its event.
    pub fn dies(&self, id: &str) -> Vec<u8> {
        self.turns(id, false, "die")
    }

    fn turns(&self, id: &str, running: bool, action: &str) -> Vec<u8> {
        let mut state = self.state();
        state.list = None;
        let at = state.places[id];
        let one = &mut state.containers[at];
        one.running = running;
        if running {
            one.started = now();
        }
        event(one, action)
    }

    /// Sends bytes to every reader of events; false when one does not read.
    pub fn send(&self, bytes: &[u8]) -> bool {
        let streams: Vec<UnixStream> = {
            let state = self.state();
            let again = |stream: &UnixStream| stream.try_clone().expect("a descriptor");
            state.streams.iter().map(again).collect()
        };
        !streams.is_empty()
            && streams
                .into_iter()
                .all(|mut stream| stream.write_all(bytes).is_ok())
    }

    pub fn add(&self, container: Container) {
        let mut state = self.state();
        state.list = None;
        let place = state.containers.len();
        state.places.insert(container.id.clone(), place);
        state.containers.push(container);
    }

    pub fn containers(&self) -> Vec<Container> {
        self.state().containers.clone()
    }

    /// How many lists and inspects were asked for.
    pub fn asked(&self) -> (u64, u64) {
        let state = self.state();
        (state.lists, state.inspects)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock().expect("no thread panics with it")
    }

    fn serve(&self, mut stream: UnixStream) {
        if let Ok(again) = stream.try_clone() {
            self.state().open.push(again);
        }
        let mut pending = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let end = loop {
                if let Some(at) = pending.windows(4).position(|four| four == b"\r\n\r\n") {
                    break at + 4;
                }
                match stream.read(&mut buffer) {
                    Ok(bytes) if bytes > 0 => pending.extend_from_slice(&buffer[..bytes]),
                    _ => return,
                }
            };
            let head = String::from_utf8_lossy(&pending[..end]).into_owned();
            pending.drain(..end);
            let path = head.split(' ').nth(1).unwrap_or_default();
            if self.answer(&mut stream, path).is_err() {
                return;
            }
        }
    }

    fn answer(&self, stream: &mut UnixStream, path: &str) -> std::io::Result<()> {
        let path = path.split('?').next().unwrap_or_default();
        let path = match path.strip_prefix("/v1.") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => path,
        };
        if path == "/events" {
            stream.set_write_timeout(Some(DEAF))?;
            stream.write_all(head("Transfer-Encoding: chunked").as_bytes())?;
            let again = stream.try_clone()?;
            self.state().streams.push(again);
            return Ok(());
        }
        if path == "/containers/json" {
            let body = self.list();
            return respond(stream, &body);
        }
        let id = path
            .strip_prefix("/containers/")
            .and_then(|rest| rest.strip_suffix("/json"));
        let Some(id) = id else {
            return stream.write_all((head("Content-Length: 2") + "OK").as_bytes());
        };
        let (found, template) = {
            let mut state = self.state();
            state.inspects += 1;
            let found = state.places.get(id).map(|at| state.containers[*at].clone());
            (found, state.template.clone())
        };
        match found {
            Some(one) => respond(stream, fill(&template.inspect, &one).as_bytes()),
            None => {
                let words = r#"{"message":"No such container: x"}"#;
                let head = head(&format!("Content-Length: {}", words.len()));
                stream.write_all((head.replace("200 OK", "404 Not Found") + words).as_bytes())
            }
        }
    }

    fn list(&self) -> Arc<Vec<u8>> {
        let mut state = self.state();
        state.lists += 1;
        if let Some(list) = &state.list {
            return list.clone();
        }
        let rows: Vec<String> = state
            .containers
            .iter()
            .filter(|one| one.running)
            .map(|one| fill(&state.template.row, one))
            .collect();
        let list = Arc::new(format!("[{}]\n", rows.join(",")).into_bytes());
        state.list = Some(list.clone());
        list
    }
}

fn head(framing: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
         Docker-Experimental: false\r\nOstype: linux\r\nServer: Docker/20.10.24 (linux)\r\n\
         Date: Sun, 22 Nov 2026 10:57:58 GMT\r\n{framing}\r\n\r\n"
    )
}

/// One chunk, as Go's encoder sends it.
fn respond(stream: &mut UnixStream, body: &[u8]) -> std::io::Result<()> {
    let mut bytes = head("Transfer-Encoding: chunked").into_bytes();
    bytes.extend_from_slice(format!("{:x}\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(b"\r\n0\r\n\r\n");
    stream.write_all(&bytes)
}

pub fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_nanos()
}

/// An event as a chunk of the stream.
pub fn event(one: &Container, action: &str) -> Vec<u8> {
    let Container {
        id, name, service, ..
    } = one;
    let at = now();
    let line = format!(
        "{{\"status\":\"{action}\",\"id\":\"{id}\",\"from\":\"registry.example/team/{service}:1.7\",\
         \"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"{id}\",\"Attributes\":\
         {{\"image\":\"registry.example/team/{service}:1.7\",\"maintainer\":\"team@example.com\",\
         \"name\":\"{name}\"}}}},\"scope\":\"local\",\"time\":{},\"timeNano\":{at}}}\n",
        at / 1_000_000_000
    );
    format!("{:x}\r\n{line}\r\n", line.len()).into_bytes()
}

/// Marks in a template, and what they stand for.
const MARKS: &str = "\u{1}\u{2}\u{3}\u{4}\u{5}\u{6}";

impl Template {
    fn from_captures() -> Template {
        let body = |capture: &str| {
            let start = capture.find("\r\n\r\n").expect("a head") + 4;
            let from = capture[start..].find('\n').expect("a chunk size") + start + 1;
            let to = capture[from..].find('\n').expect("a line end") + from;
            capture[from..to].to_owned()
        };
        let inspect = body(INSPECT);
        let id = between(&inspect, "\"Id\":\"", "\"");
        let inspect = inspect
            .replace(&id, "\u{1}")
            .replace(id.get(..12).expect("an id"), "\u{6}")
            .replace("\"Name\":\"/lab-db\"", "\"Name\":\"/\u{2}\"")
            .replace("\"IPAddress\":\"172.17.0.3\"", "\"IPAddress\":\"\u{3}\"")
            .replace(
                "\"Env\":null",
                "\"Env\":[\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\
                 \"SERVICE_NAME=\u{4}\",\"PREDICATE=\u{4}.example.com\",\"PORT=8080\"]",
            )
            .replace(
                "\"StartedAt\":\"2026-11-22T10:57:57.884155834Z\"",
                "\"StartedAt\":\"\u{5}\"",
            );
        let list = body(LIST);
        let row = &list[1..list.find("},{\"Id\"").expect("a second row") + 1];
        let id = between(row, "\"Id\":\"", "\"");
        let ip = between(row, "\"IPAddress\":\"", "\"");
        let row = row
            .replace(&id, "\u{1}")
            .replace("/healthy", "/\u{2}")
            .replace(&ip, "\u{3}");
        let template = Template {
            inspect: cut(&inspect),
            row: cut(&row),
        };
        for mark in MARKS.chars() {
            assert!(
                inspect.contains(mark),
                "the capture of an inspect is not as it was"
            );
        }
        template
    }
}

fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split(before).nth(1).unwrap_or_default();
    rest.split(after).next().unwrap_or_default().to_owned()
}

/// Text and marks in turn.
fn cut(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for letter in text.chars() {
        if MARKS.contains(letter) {
            parts.push(letter.to_string());
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    parts
}

fn fill(template: &[String], one: &Container) -> String {
    let mut text = String::with_capacity(6000);
    for part in template {
        match part.as_str() {
            "\u{1}" => text.push_str(&one.id),
            "\u{2}" => text.push_str(&one.name),
            "\u{3}" => text.push_str(&one.ip),
            "\u{4}" => text.push_str(&one.service),
            "\u{5}" => push_time(&mut text, one.started),
            "\u{6}" => text.push_str(&one.id[..12]),
            plain => text.push_str(plain),
        }
    }
    if one.running {
        return text;
    }
    text.replace(
        "\"Status\":\"running\",\"Running\":true",
        "\"Status\":\"exited\",\"Running\":false",
    )
}

/// RFC 3339, UTC (the civil calendar by Howard Hinnant's algorithm).
fn push_time(text: &mut String, nanos: u128) {
    let seconds = i64::try_from(nanos / 1_000_000_000).expect("this century");
    let (days, second) = (
        seconds.div_euclid(86_400) + 719_468,
        seconds.rem_euclid(86_400),
    );
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let date = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    let _ = write!(
        text,
        "{year:04}-{month:02}-{date:02}T{:02}:{:02}:{:02}.{:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        nanos % 1_000_000_000
    );
}
