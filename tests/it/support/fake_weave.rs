//! A Weave router for tests: `GET /report` and `GET /ip` over HTTP, with names that are registered when a
//! test says so, and the ways in which a real one fails.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::wire::{self, Asked, Listener, Place, Stream};

/// How the router answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Well,
    /// Milliseconds after its start: 503, with a whole body.
    Starting,
    /// Started with `--no-dns`: the report has no `DNS`.
    NoDns,
    /// Something that is no report.
    Garbage,
    /// It takes the question and closes.
    Closes,
    /// It takes the question and says nothing.
    Silent,
}

/// The router's own peer name.
const HERE: &str = "7a:c4:8b:a1:e2:9a";

struct Name {
    hostname: String,
    id: String,
    address: String,
    here: bool,
    from: Instant,
}

struct State {
    mood: Mood,
    names: Vec<Name>,
    asked: Vec<(Instant, String, Option<String>)>,
}

/// The fake router.
pub struct FakeWeave {
    state: Arc<Mutex<State>>,
    place: Place,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl FakeWeave {
    /// A router that knows nobody, on a port of its own.
    pub fn start() -> FakeWeave {
        let mut place = Place::Tcp(0);
        let listener = Listener::open(&mut place).expect("the fake router can listen");
        let state = Arc::new(Mutex::new(State {
            mood: Mood::Well,
            names: Vec::new(),
            asked: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            while let Ok(stream) = listener.accept() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &shared));
            }
        });
        FakeWeave { state, place }
    }

    /// For `--weave-addr`.
    pub fn address(&self) -> String {
        match &self.place {
            Place::Tcp(port) => format!("127.0.0.1:{port}"),
            Place::Unix(path) => path.display().to_string(),
        }
    }

    pub fn mood(&self, mood: Mood) {
        lock(&self.state).mood = mood;
    }

    /// Knows a container of this host under its name from `after` on.
    pub fn register(&self, hostname: &str, id: &str, address: &str, after: Duration) {
        self.add(hostname, id, address, true, after);
    }

    /// Knows a container of another host.
    pub fn register_elsewhere(&self, hostname: &str, id: &str, address: &str) {
        self.add(hostname, id, address, false, Duration::ZERO);
    }

    fn add(&self, hostname: &str, id: &str, address: &str, here: bool, after: Duration) {
        lock(&self.state).names.push(Name {
            hostname: format!("{hostname}.weave.local."),
            id: id.to_owned(),
            address: address.to_owned(),
            here,
            from: Instant::now() + after,
        });
    }

    /// Forgets a container, as at its `die`.
    pub fn forget(&self, id: &str) {
        lock(&self.state).names.retain(|name| name.id != id);
    }

    /// What was asked: path and `Accept`.
    pub fn asked(&self) -> Vec<(Instant, String, Option<String>)> {
        lock(&self.state).asked.clone()
    }
}

fn serve(mut stream: Stream, state: &Mutex<State>) {
    let mut left = Vec::new();
    while let Some(asked) = wire::read_request(&mut stream, &mut left) {
        let (mood, reply) = {
            let mut state = lock(state);
            let accept = asked.header("accept").map(str::to_owned);
            state
                .asked
                .push((Instant::now(), asked.target.clone(), accept));
            (state.mood, reply(&state, &asked))
        };
        match mood {
            Mood::Closes => return,
            Mood::Silent => return wire::wait_for_end(&mut stream),
            _ if stream.write_all(&reply).is_err() => return,
            _ => {}
        }
    }
}

fn reply(state: &State, asked: &Asked) -> Vec<u8> {
    if asked.method != "GET" {
        return wire::answer(
            "405 Method Not Allowed",
            "text/plain",
            "only GET is ever right here",
        );
    }
    if state.mood == Mood::Garbage {
        return wire::answer("200 OK", "application/json", "<html>not a report</html>");
    }
    let now = Instant::now();
    let known = state.names.iter().filter(|name| name.from <= now);
    match asked.target.as_str() {
        "/report" if asked.header("accept") != Some("application/json") => {
            wire::answer("400 Bad Request", "text/plain", "No template specified")
        }
        "/report" => {
            let entries: Vec<_> = known
                .map(|name| {
                    json!({
                        "Hostname": name.hostname, "Origin": if name.here { HERE } else { "be:ef:00:00:00:02" }, "ContainerID": name.id,
                        "Address": name.address, "Version": 0, "Tombstone": 0,
                    })
                })
                .collect();
            let mut report = json!({
                "Ready": state.mood != Mood::Starting, "Version": "2.8.1",
                "Router": {"Name": HERE, "NickName": "host1"},
                "IPAM": {"DefaultSubnet": "10.32.0.0/12"},
            });
            if state.mood != Mood::NoDns {
                report["DNS"] = json!({"Domain": "weave.local.", "TTL": 1, "Entries": entries});
            }
            let status = if state.mood == Mood::Starting {
                "503 Service Unavailable"
            } else {
                "200 OK"
            };
            wire::answer(status, "application/json", report.to_string())
        }
        "/ip" => {
            let mut owned: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for name in known.filter(|name| name.here) {
                owned
                    .entry(&name.id)
                    .or_default()
                    .push(format!("{}/12", name.address));
            }
            let owned: Vec<_> = owned
                .into_iter()
                .map(|(id, addrs)| json!({"containerid": id, "addrs": addrs}))
                .collect();
            wire::answer(
                "200 OK",
                "application/json",
                json!({"owned": owned}).to_string(),
            )
        }
        _ => wire::answer("404 Not Found", "text/plain", "404 page not found"),
    }
}
