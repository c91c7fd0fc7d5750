//! A Docker daemon for tests: answers, events and their order as measured on 20.10.24
//! (and Podman 4.3.1), and every misbehaviour on command. Plain threads, one per connection.

pub mod container;
mod proof;
mod server;
mod verbs;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use container::{Container, Status};

use super::wire::{Place, Reply, Stream};

/// Events that a real daemon remembers for `since`.
const RING_MAX: usize = 256;

/// What the fake was asked, and when.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub target: String,
    pub at: Instant,
    /// Which connection, counted from 1.
    pub connection: usize,
    pub headers: Vec<String>,
}

impl Request {
    /// The path without API version and query.
    pub fn path(&self) -> &str {
        bare_path(&self.target)
    }

    pub fn is_list(&self) -> bool {
        self.path() == "/containers/json"
    }

    pub fn is_inspect(&self) -> bool {
        self.path().starts_with("/containers/") && !self.is_list()
    }

    pub fn is_events(&self) -> bool {
        self.path() == "/events"
    }
}

/// The path without API version and query.
fn bare_path(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    match path
        .strip_prefix("/v")
        .and_then(|rest| rest.find('/').map(|at| (rest, at)))
    {
        Some((rest, at))
            if rest[..at]
                .bytes()
                .all(|byte| byte.is_ascii_digit() || byte == b'.') =>
        {
            &rest[at..]
        }
        _ => path,
    }
}

/// How the fake writes what it says.
#[derive(Debug, Clone)]
pub struct Manner {
    /// Newest API version it speaks, the minor number of 1.x.
    pub api_max: u32,
    pub api_min: u32,
    pub podman: bool,
    /// As behind HAProxy: header names in lower case, chunk sizes in upper-case hex.
    pub proxied: bool,
    /// `103` before every answer.
    pub interim: bool,
    /// Answers without a length, ended by closing: what a plain proxy does.
    pub closes: bool,
    /// Every event is cut into so many chunks.
    pub event_pieces: usize,
    /// Ignores the filters of `/events`, as an old proxy or Podman may.
    pub ignore_filters: bool,
    /// How long the list shows a dead container as running.
    pub ghost: Duration,
    /// The event stream ends at once, cleanly: Podman without an event log.
    pub no_event_log: bool,
}

impl Default for Manner {
    fn default() -> Manner {
        Manner {
            api_max: 41,
            api_min: 12,
            podman: false,
            proxied: false,
            interim: false,
            closes: false,
            event_pieces: 1,
            ignore_filters: false,
            ghost: Duration::ZERO,
            no_event_log: false,
        }
    }
}

/// A reply put in the place of the usual one.
struct Trouble {
    /// Part of the request target.
    on: String,
    /// How many more times.
    times: usize,
    reply: Reply,
}

/// What travels to the thread that writes one event stream.
enum Push {
    /// One event, a line with its LF.
    Event(Arc<str>),
    /// Bytes as they are, framing included.
    Raw(Vec<u8>),
    /// The stream ends: with the `0` chunk, or by a cut.
    End { clean: bool },
}

struct Subscriber {
    /// Which of Docker's types and actions it wants; `None` = all.
    filters: Option<serde_json::Value>,
    sender: Sender<Push>,
}

struct Emitted {
    kind: String,
    action: String,
    time_nano: i64,
    line: Arc<str>,
}

#[derive(Default)]
struct World {
    containers: Vec<Container>,
    requests: Vec<Request>,
    troubles: Vec<Trouble>,
    manner: Manner,
    subscribers: Vec<Subscriber>,
    ring: VecDeque<Emitted>,
    last_nano: i64,
    /// Events that were written to a socket whole.
    delivered: usize,
    /// Clones of the open connections, to cut them.
    connections: Vec<(usize, Stream)>,
    connections_made: usize,
    /// Event streams opened so far: subscribed, head written.
    streams: usize,
    /// Grows with each stop; a listener of an older life ends.
    life: usize,
    listening: bool,
}

pub(crate) struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        // A test that failed while it held the lock must still be able to print what was asked.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake daemon. Dropping it closes everything.
pub struct FakeDocker {
    shared: Arc<Shared>,
    place: Place,
}

impl FakeDocker {
    /// A daemon without containers on a Unix socket at `path`.
    pub fn unix(path: &Path) -> FakeDocker {
        FakeDocker::at(Place::Unix(path.to_owned()))
    }

    /// A daemon without containers on a TCP port of its own.
    pub fn tcp() -> FakeDocker {
        FakeDocker::at(Place::Tcp(0))
    }

    fn at(place: Place) -> FakeDocker {
        let shared = Arc::new(Shared {
            world: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut fake = FakeDocker { shared, place };
        fake.start_daemon();
        fake
    }

    /// What `DOCKER_HOST` must say to reach it.
    pub fn docker_host(&self) -> String {
        match &self.place {
            Place::Unix(path) => format!("unix://{}", path.display()),
            Place::Tcp(port) => format!("tcp://127.0.0.1:{port}"),
        }
    }

    /// Changes how it speaks, from the next request on.
    pub fn manner(&self, change: impl FnOnce(&mut Manner)) {
        change(&mut self.shared.world().manner);
    }

    /// Gives `reply` instead of the usual answer to the next `times` requests whose target holds `on`.
    pub fn misbehave(&self, on: &str, times: usize, reply: Reply) {
        self.shared.world().troubles.push(Trouble {
            on: on.to_owned(),
            times,
            reply,
        });
    }

    /// From now on every answer is the usual one.
    pub fn behave(&self) {
        self.shared.world().troubles.clear();
    }

    /// Everything asked so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.world().requests.clone()
    }

    /// How many requests so far satisfy `which`.
    pub fn count(&self, which: impl Fn(&Request) -> bool) -> usize {
        self.shared
            .world()
            .requests
            .iter()
            .filter(|request| which(request))
            .count()
    }

    /// Waits until `look` says so of the requests so far.
    #[track_caller]
    pub fn wait_requests(&self, what: &str, limit: Duration, look: impl Fn(&[Request]) -> bool) {
        let end = Instant::now() + limit;
        let mut world = self.shared.world();
        while !look(&world.requests) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let asked = describe(&world.requests);
                drop(world);
                panic!("waited {limit:?} in vain for {what}; asked so far:\n{asked}");
            }
            world = self
                .shared
                .changed
                .wait_timeout(world, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until so many event streams were opened, from the first one on, the last ready to be sent to.
    #[track_caller]
    pub fn wait_subscribed(&self, streams: usize) {
        super::deadline::wait_for(
            &format!(
                "event stream number {streams}; asked so far:\n{}",
                self.transcript()
            ),
            super::deadline::SOON,
            || (self.streams() >= streams).then_some(()),
        );
    }

    /// Event streams opened so far, refused ones not counted.
    pub fn streams(&self) -> usize {
        self.shared.world().streams
    }

    /// Waits until so many events have left for the reader's socket, since the daemon was made.
    #[track_caller]
    pub fn wait_delivered(&self, events: usize, limit: Duration) {
        super::deadline::wait_for(&format!("{events} events to be read"), limit, || {
            (self.shared.world().delivered >= events).then_some(())
        });
    }

    /// Events written whole so far.
    pub fn delivered(&self) -> usize {
        self.shared.world().delivered
    }

    /// The container's id, by name.
    #[track_caller]
    pub fn id(&self, name: &str) -> String {
        self.with(name, |container| container.id.clone())
    }

    /// Looks at or changes one container, without an event.
    #[track_caller]
    pub fn with<T>(&self, name: &str, change: impl FnOnce(&mut Container) -> T) -> T {
        let mut world = self.shared.world();
        let Some(found) = world.containers.iter_mut().find(|one| one.name == name) else {
            drop(world);
            panic!("the test names no container {name}");
        };
        change(found)
    }

    /// What was asked, one request a line: for a failing test.
    pub fn transcript(&self) -> String {
        describe(&self.shared.world().requests)
    }

    fn now_nano(world: &mut World) -> i64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as i64);
        world.last_nano = now.max(world.last_nano + 1);
        world.last_nano
    }
}

fn describe(requests: &[Request]) -> String {
    let Some(first) = requests.first() else {
        return "(nothing)\n".to_owned();
    };
    requests
        .iter()
        .map(|request| {
            format!(
                "{:8.1} ms  #{} {} {}\n",
                (request.at - first.at).as_secs_f64() * 1e3,
                request.connection,
                request.method,
                request.target
            )
        })
        .collect()
}

impl Drop for FakeDocker {
    fn drop(&mut self) {
        self.stop_daemon();
    }
}
