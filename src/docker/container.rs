//! Docker's JSON for the list and the inspect of containers, as our own types.
//!
//! Pure. Reads only the fields that survive API 1.52 (`Networks.*`, `Config.*`, `State.*`,
//! `HostConfig.NetworkMode`) and that Podman has too; everything else is skipped while parsing and never held.
//! What a container is used for is not known here.
//! Rules: Docker Engine API, "ContainerList" and "ContainerInspect"; traps found on Docker 20.10 and Podman 4.3.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::marker::PhantomData;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};

use super::text::Text;
use crate::json;
use crate::names::Names;
use crate::order;
use crate::room;
use crate::sorted::Map;
use crate::timestamp::Timestamp;

/// The stop signal when the image names none: SIGTERM (`docker stop`).
const STOP_SIGNAL_DEFAULT: u8 = 15;

/// How many seconds `docker stop` waits when the container does not say.
const STOP_SECONDS_DEFAULT: u32 = 10;

/// What a stop timeout of -1 (wait for ever) and absurd ones become, so that sums with clocks cannot overflow.
const STOP_SECONDS_MAX: u32 = 24 * 3600;
/// Length of the id's beginning that is a container's host name unless somebody chose one.
const SHORT_ID: usize = 12;
/// How much is kept of an answer that is no list, for the error.
const NO_LIST_BYTES_MAX: usize = 4 << 10;

/// One container of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Full id.
    pub id: String,
    /// Name without the slash; empty while a container is half removed.
    pub name: String,
    /// Changes whenever an inspect could say something else: state, health, names, networks and their
    /// endpoints. Never by the mere passing of time. Only comparable within one run of the program.
    pub digest: u64,
}

/// What an inspect says of a container as long as it runs, but for its environment and labels.
///
/// There may be ten thousand of them for months, so nothing in it has room to grow, and what many of them have in
/// common ([`Container::share`]) is there once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Full id.
    pub id: Box<str>,
    /// Name without the slash.
    pub name: Box<str>,
    /// When it was created; the epoch if the daemon's text is no time.
    pub created: Timestamp,
    /// Whether it runs, and how well.
    pub state: State,
    /// The networks that it is attached to, sorted by name. Empty for one that shares another container's
    /// network, also where Podman repeats the other one's here.
    pub networks: Box<[Network]>,
    /// How it got its network.
    pub network_mode: NetworkMode,
    /// TCP ports that the image exposes or the user published, sorted, each once.
    pub exposed_tcp_ports: Numbers,
    /// Host name inside the container where it is not the usual one; see [`Container::hostname`].
    pub own_hostname: Option<Box<str>>,
    /// Domain name inside the container; usually empty.
    pub domainname: Arc<str>,
    /// The program that runs (`Path`).
    pub entrypoint: Arc<str>,
    /// Number of the signal that asks it to stop.
    pub stop_signal: u8,
    /// How many seconds it may take to stop before it is killed; at most a day.
    pub stop_seconds: u32,
    /// How often the daemon restarted it by its restart policy.
    pub restarts: u32,
}

/// Port numbers; most containers have one, which needs no place of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Numbers {
    /// Only this.
    One(u16),
    /// None or several.
    Others(Box<[u16]>),
}

impl From<Vec<u16>> for Numbers {
    fn from(numbers: Vec<u16>) -> Self {
        match *numbers {
            [only] => Numbers::One(only),
            _ => Numbers::Others(numbers.into()),
        }
    }
}

impl Deref for Numbers {
    type Target = [u16];

    fn deref(&self) -> &[u16] {
        match self {
            Numbers::One(only) => std::slice::from_ref(only),
            Numbers::Others(numbers) => numbers,
        }
    }
}

impl Container {
    /// Host name inside the container: the first characters of its id, as Docker shows it, unless somebody chose one.
    pub fn hostname(&self) -> &str {
        let usual = || self.id.get(..SHORT_ID).unwrap_or(&self.id);
        self.own_hostname.as_deref().unwrap_or_else(usual)
    }

    /// Has the names that other containers have, too, in common with them.
    pub fn share(&mut self, names: &mut Names) {
        names.share(&mut self.domainname);
        names.share(&mut self.entrypoint);
        if let NetworkMode::Named(name) = &mut self.network_mode {
            names.share(name);
        }
        for network in &mut self.networks {
            names.share(&mut network.name);
        }
    }
}

/// Whether a container runs, and how well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// A process is there; also true while paused and (on Docker) between two restarts.
    pub running: bool,
    /// Frozen by `docker pause`.
    pub paused: bool,
    /// Between two restarts.
    pub restarting: bool,
    /// Half removed.
    pub dead: bool,
    /// When it was last started; the year 1 if never.
    pub started: Timestamp,
    /// What its health check found; `None` without a health check.
    pub health: Option<Health>,
}

impl State {
    /// Whether it can answer requests: running, and neither paused, restarting nor dead.
    pub fn serves(&self) -> bool {
        self.running && !self.paused && !self.restarting && !self.dead
    }
}

/// What a health check found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Not known yet.
    Starting,
    /// The check passes.
    Healthy,
    /// The check failed often enough.
    Unhealthy,
}

/// A network that a container is attached to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Its name.
    pub name: Arc<str>,
    /// The container's IPv4 address there; `None` while it has none.
    pub ipv4: Option<Ipv4Addr>,
    /// The container's global IPv6 address there.
    pub ipv6: Option<Ipv6Addr>,
}

/// How a container got its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetworkMode {
    /// The host's own.
    Host,
    /// None at all.
    None,
    /// That of the container with this id (or name).
    Container(Box<str>),
    /// A network by name; Docker's `default` is given as `bridge`, its real name.
    Named(Arc<str>),
}

/// The whole answer to an inspect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What is kept.
    pub container: Container,
    /// The image as it was asked for.
    pub image: String,
    /// `Config.Env` in its order, split at the first `=`; entries without one are left out (Docker sets
    /// nothing for them), duplicates are kept (the last one holds).
    pub env: Vec<(String, String)>,
    /// `Config.Labels`, sorted by name.
    pub labels: Vec<(String, String)>,
    /// What of the host is mounted where: source and destination, sorted by destination.
    pub mounts: Vec<(String, String)>,
}

/// Reads the answer to `GET /containers/json`.
///
/// # Errors
/// What is wrong with the JSON, and where; one bad row spoils the list, since a list with holes would
/// take containers away.
pub fn list(json: &[u8]) -> Result<Vec<Row>, String> {
    let mut list = List::default();
    list.push(json);
    list.end()
}

/// [`list`] of an answer that comes in pieces: never more than one row of it is held.
///
/// A list of 10,000 containers is 10 MB; to hold it once leaves the process that much larger, for the
/// allocator keeps what it may need again.
#[derive(Debug, Default)]
pub struct List {
    rows: Vec<Row>,
    at: At,
    /// The row that is not whole yet; or all of an answer that is no list.
    held: Vec<u8>,
    /// Open brackets of the row, whether a text is open in it, and whether its last byte was a backslash.
    depth: u32,
    text: bool,
    escaped: bool,
    bad: Option<String>,
}

/// What a list's next byte belongs to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Start,
    /// Behind the bracket: a row or the end.
    First,
    /// Behind a comma: a row.
    Row,
    Inside,
    /// Behind a row: a comma or the end.
    Behind,
    End,
    /// It did not begin with a bracket.
    NoList,
}

impl List {
    /// Adds bytes; their borders mean nothing.
    pub fn push(&mut self, mut json: &[u8]) {
        while self.bad.is_none() {
            if self.at == At::Inside {
                let (used, whole) = self.scan(json);
                let (part, rest) = json.split_at(used);
                json = rest;
                if !whole {
                    self.held.extend_from_slice(part);
                    return;
                }
                self.at = At::Behind;
                if self.held.is_empty() {
                    self.row(part);
                } else {
                    let mut row = std::mem::take(&mut self.held);
                    row.extend_from_slice(part);
                    self.row(&row);
                    row.clear();
                    self.held = row;
                }
                continue;
            }
            if self.at == At::NoList {
                // Only its first words are of use, for the error.
                let room = NO_LIST_BYTES_MAX.saturating_sub(self.held.len());
                self.held
                    .extend_from_slice(json.get(..room).unwrap_or(json));
                return;
            }
            let Some((byte, rest)) = json.split_first() else {
                return;
            };
            self.at = match (self.at, byte) {
                (at, b' ' | b'\t' | b'\r' | b'\n') => at,
                (At::Start, b'[') => At::First,
                (At::Start, _) => At::NoList,
                (At::First | At::Row, b'{') => At::Inside,
                (At::Behind, b',') => At::Row,
                (At::First | At::Behind, b']') => At::End,
                _ => {
                    let row = self.rows.len() + 1;
                    self.bad = Some(format!("an unexpected byte {byte:#04x} at row {row}"));
                    return;
                }
            };
            if !matches!(self.at, At::Inside | At::NoList) {
                json = rest;
            }
        }
    }

    /// How much of this belongs to the row, and whether that ends it.
    fn scan(&mut self, json: &[u8]) -> (usize, bool) {
        let mut bytes = json.iter();
        loop {
            // Most of a row is text: its end is looked for by itself.
            if self.text {
                if std::mem::take(&mut self.escaped) && bytes.next().is_none() {
                    self.escaped = true;
                }
                match bytes.find(|byte| matches!(byte, b'"' | b'\\')) {
                    Some(b'"') => self.text = false,
                    Some(_) => self.escaped = true,
                    None => return (json.len(), false),
                }
                continue;
            }
            match bytes.find(|byte| matches!(byte, b'"' | b'{' | b'[' | b'}' | b']')) {
                Some(b'"') => self.text = true,
                Some(b'{' | b'[') => self.depth += 1,
                Some(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        return (json.len() - bytes.len(), true);
                    }
                }
                None => return (json.len(), false),
            }
        }
    }

    fn row(&mut self, json: &[u8]) {
        match json::read::<Listed>(json) {
            Ok(listed) if listed.id.is_empty() => {
                self.bad = Some("a container without an id".to_owned());
            }
            Ok(listed) => {
                room::for_one_more_now(&mut self.rows);
                self.rows.push(listed.into());
            }
            Err(error) => self.bad = Some(format!("{error} of row {}", self.rows.len() + 1)),
        }
    }

    /// The rows, when all bytes have come.
    ///
    /// # Errors
    /// As [`list`].
    pub fn end(self) -> Result<Vec<Row>, String> {
        match (self.bad, self.at) {
            (Some(bad), _) => Err(bad),
            (None, At::End) => Ok(self.rows),
            (None, At::NoList) => Err(match json::read::<IgnoredAny>(&self.held) {
                Ok(_) => "it is no list of containers".to_owned(),
                Err(error) => error.to_string(),
            }),
            (None, _) => Err("the list ends before its end".to_owned()),
        }
    }
}

/// Reads the answer to `GET /containers/{id}/json`.
///
/// # Errors
/// What is wrong with the JSON, and where; or that it is no container.
pub fn inspected(json: &[u8]) -> Result<Inspected, String> {
    let answer: Answer = json::read(json).map_err(|error| error.to_string())?;
    if answer.id.is_empty() {
        return Err("the answer has no container id".to_owned());
    }
    Ok(answer.into())
}

/// One element of the list as it is on the wire.
#[derive(Deserialize)]
struct Listed<'a> {
    #[serde(borrow, rename = "Id", default)]
    id: Text<'a>,
    #[serde(borrow, rename = "Names", default)]
    names: Option<Vec<Text<'a>>>,
    #[serde(borrow, rename = "State", default)]
    state: Text<'a>,
    #[serde(borrow, rename = "Status", default)]
    status: Text<'a>,
    /// Newer than API 1.51.
    #[serde(borrow, rename = "Health", default)]
    health: Option<ListedHealth<'a>>,
    #[serde(borrow, rename = "NetworkSettings", default)]
    network_settings: Option<Networks<'a>>,
}

#[derive(Deserialize, Hash)]
struct ListedHealth<'a> {
    #[serde(borrow, rename = "Status", default)]
    status: Text<'a>,
}

impl From<Listed<'_>> for Row {
    fn from(listed: Listed<'_>) -> Row {
        let names = listed.names.unwrap_or_default();
        let mut hash = DefaultHasher::new();
        listed.state.hash(&mut hash);
        for remark in remarks(listed.status.as_str()) {
            remark.hash(&mut hash);
        }
        listed.health.hash(&mut hash);
        names.hash(&mut hash);
        let settings = listed.network_settings.unwrap_or_default();
        for (name, endpoint) in settings.networks.0.iter() {
            (name, endpoint).hash(&mut hash);
        }
        Row {
            id: listed.id.0.into_owned(),
            name: own_name(&names).to_owned(),
            digest: hash.finish(),
        }
    }
}

/// The name with exactly one slash; the others are link aliases (`/other/alias`) and can stand first.
fn own_name<'n>(names: &'n [Text<'_>]) -> &'n str {
    names
        .iter()
        .filter_map(|name| name.as_str().strip_prefix('/'))
        .find(|name| !name.contains('/'))
        .unwrap_or_default()
}

/// The parts of `Status` in parentheses (`healthy`, `Paused`, an exit code); the rest is the uptime
/// in words, which changes by itself.
fn remarks(status: &str) -> impl Iterator<Item = &str> {
    status
        .split('(')
        .skip(1)
        .filter_map(|part| part.split_once(')'))
        .map(|(remark, _)| remark)
}

/// `NetworkSettings`, of a list or an inspect.
#[derive(Deserialize, Default)]
struct Networks<'a> {
    #[serde(borrow, rename = "Networks", default)]
    networks: ByName<'a, Endpoint<'a>>,
    #[serde(borrow, rename = "Ports", default)]
    ports: Ports<'a>,
}

/// An object whose keys are names: networks, labels. Sorted, since the order on the wire says nothing.
struct ByName<'a, T>(Map<Cow<'a, str>, T>);

impl<T> Default for ByName<'_, T> {
    fn default() -> Self {
        ByName(Map::default())
    }
}

#[derive(Deserialize, Default, Hash)]
struct Endpoint<'a> {
    #[serde(borrow, rename = "NetworkID", default)]
    network_id: Text<'a>,
    /// New on every start, so a restart between two lists shows in the digest.
    #[serde(borrow, rename = "EndpointID", default)]
    endpoint_id: Text<'a>,
    #[serde(borrow, rename = "IPAddress", default)]
    ipv4: Text<'a>,
    #[serde(borrow, rename = "GlobalIPv6Address", default)]
    ipv6: Text<'a>,
}

impl<'de: 'a, 'a, T: Deserialize<'de> + Default> Deserialize<'de> for ByName<'a, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Entries<T> {
            type Value = ByName<'de, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("values by name")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // As many as somebody likes, in any order.
                let mut entries = Vec::new();
                while let Some((name, value)) = map.next_entry::<Text<'de>, Option<T>>()? {
                    entries.push((name.0, value.unwrap_or_default()));
                }
                Ok(ByName(order::gathered(entries)))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(ByName::default())
            }
        }
        deserializer.deserialize_any(Entries(PhantomData))
    }
}

/// The keys of `ExposedPorts` or `Ports` (`80/tcp`).
#[derive(Default)]
struct Ports<'a>(Vec<Text<'a>>);

impl<'de: 'a, 'a> Deserialize<'de> for Ports<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Ports<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("ports")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut ports = Vec::new();
                while let Some((port, IgnoredAny)) = map.next_entry::<Text<'de>, IgnoredAny>()? {
                    ports.push(port);
                }
                Ok(Ports(ports))
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Ports::default())
            }
        }
        deserializer.deserialize_any(Keys)
    }
}

impl Ports<'_> {
    fn tcp(&self) -> impl Iterator<Item = u16> {
        self.0.iter().filter_map(|port| {
            let (number, protocol) = port
                .as_str()
                .split_once('/')
                .unwrap_or((port.as_str(), "tcp"));
            (protocol == "tcp").then(|| number.parse().ok()).flatten()
        })
    }
}

/// An inspect as it is on the wire.
#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, rename = "Id", default)]
    id: Text<'a>,
    #[serde(borrow, rename = "Name", default)]
    name: Text<'a>,
    #[serde(borrow, rename = "Created", default)]
    created: Text<'a>,
    #[serde(borrow, rename = "Path", default)]
    path: Text<'a>,
    #[serde(rename = "RestartCount", default)]
    restart_count: Option<u32>,
    #[serde(borrow, rename = "State", default)]
    state: Option<AnswerState<'a>>,
    #[serde(borrow, rename = "Config", default)]
    config: Option<AnswerConfig<'a>>,
    #[serde(borrow, rename = "HostConfig", default)]
    host_config: Option<HostConfig<'a>>,
    #[serde(borrow, rename = "NetworkSettings", default)]
    network_settings: Option<Networks<'a>>,
    #[serde(borrow, rename = "Mounts", default)]
    mounts: Option<Vec<Mount<'a>>>,
}

#[derive(Deserialize)]
struct Mount<'a> {
    #[serde(borrow, rename = "Source", default)]
    source: Text<'a>,
    #[serde(borrow, rename = "Destination", default)]
    destination: Text<'a>,
}

#[derive(Deserialize, Default)]
struct AnswerState<'a> {
    #[serde(rename = "Running", default)]
    running: Option<bool>,
    #[serde(rename = "Paused", default)]
    paused: Option<bool>,
    #[serde(rename = "Restarting", default)]
    restarting: Option<bool>,
    #[serde(rename = "Dead", default)]
    dead: Option<bool>,
    #[serde(borrow, rename = "StartedAt", default)]
    started_at: Text<'a>,
    #[serde(borrow, rename = "Health", default)]
    health: Option<ListedHealth<'a>>,
}

#[derive(Deserialize, Default)]
struct AnswerConfig<'a> {
    #[serde(borrow, rename = "Hostname", default)]
    hostname: Text<'a>,
    #[serde(borrow, rename = "Domainname", default)]
    domainname: Text<'a>,
    #[serde(borrow, rename = "Env", default)]
    env: Option<Vec<Text<'a>>>,
    #[serde(borrow, rename = "ExposedPorts", default)]
    exposed_ports: Ports<'a>,
    #[serde(borrow, rename = "Image", default)]
    image: Text<'a>,
    #[serde(borrow, rename = "Labels", default)]
    labels: ByName<'a, Text<'a>>,
    #[serde(borrow, rename = "StopSignal", default)]
    stop_signal: Text<'a>,
    #[serde(rename = "StopTimeout", default)]
    stop_timeout: Option<i64>,
}

#[derive(Deserialize, Default)]
struct HostConfig<'a> {
    #[serde(borrow, rename = "NetworkMode", default)]
    network_mode: Text<'a>,
}

impl From<Answer<'_>> for Inspected {
    fn from(answer: Answer<'_>) -> Inspected {
        let state = answer.state.unwrap_or_default();
        let config = answer.config.unwrap_or_default();
        let settings = answer.network_settings.unwrap_or_default();
        let network_mode =
            network_mode(answer.host_config.unwrap_or_default().network_mode.as_str());
        let shares = matches!(network_mode, NetworkMode::Container(_));
        let mut ports: Vec<u16> = config.exposed_ports.tcp().collect();
        // Podman shows some exposed ports only here; with a shared network they are the other one's.
        if !shares {
            ports.extend(settings.ports.tcp());
        }
        order::sort(&mut ports);
        ports.dedup();
        let networks = if shares {
            Box::default()
        } else {
            settings
                .networks
                .0
                .into_iter()
                .map(|(name, endpoint)| Network {
                    name: name.into(),
                    ipv4: endpoint.ipv4.as_str().parse().ok(),
                    ipv6: endpoint.ipv6.as_str().parse().ok(),
                })
                .collect()
        };
        let name = answer.name.as_str();
        let hostname = config.hostname.as_str();
        let usual = answer.id.as_str().get(..SHORT_ID) == Some(hostname);
        Inspected {
            container: Container {
                name: name.strip_prefix('/').unwrap_or(name).into(),
                own_hostname: (!usual).then(|| hostname.into()),
                id: answer.id.0.into(),
                created: Timestamp::parse(answer.created.as_str()).unwrap_or_default(),
                state: State {
                    running: state.running.unwrap_or_default(),
                    paused: state.paused.unwrap_or_default(),
                    restarting: state.restarting.unwrap_or_default(),
                    dead: state.dead.unwrap_or_default(),
                    started: Timestamp::parse(state.started_at.as_str()).unwrap_or_default(),
                    health: state
                        .health
                        .and_then(|health| match health.status.as_str() {
                            "starting" => Some(Health::Starting),
                            "healthy" => Some(Health::Healthy),
                            "unhealthy" => Some(Health::Unhealthy),
                            _ => None,
                        }),
                },
                networks,
                network_mode,
                exposed_tcp_ports: ports.into(),
                domainname: config.domainname.0.into(),
                entrypoint: answer.path.0.into(),
                stop_signal: signal_number(config.stop_signal.as_str())
                    .unwrap_or(STOP_SIGNAL_DEFAULT),
                stop_seconds: stop_seconds(config.stop_timeout),
                restarts: answer.restart_count.unwrap_or_default(),
            },
            image: config.image.0.into_owned(),
            env: config
                .env
                .unwrap_or_default()
                .iter()
                .filter_map(|entry| entry.as_str().split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            labels: config
                .labels
                .0
                .into_iter()
                .map(|(name, value)| (name.into_owned(), value.0.into_owned()))
                .collect(),
            mounts: {
                let mut mounts: Vec<(String, String)> = answer
                    .mounts
                    .unwrap_or_default()
                    .into_iter()
                    .map(|mount| {
                        (
                            mount.source.0.into_owned(),
                            mount.destination.0.into_owned(),
                        )
                    })
                    .collect();
                order::sort_by(&mut mounts, |a, b| a.1.cmp(&b.1));
                mounts
            },
        }
    }
}

fn network_mode(mode: &str) -> NetworkMode {
    match mode {
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        "" | "default" => NetworkMode::Named("bridge".into()),
        _ => match mode.strip_prefix("container:") {
            Some(other) => NetworkMode::Container(other.into()),
            None => NetworkMode::Named(mode.into()),
        },
    }
}

fn stop_seconds(seconds: Option<i64>) -> u32 {
    match seconds {
        None => STOP_SECONDS_DEFAULT,
        Some(seconds) => {
            u32::try_from(seconds).map_or(STOP_SECONDS_MAX, |seconds| seconds.min(STOP_SECONDS_MAX))
        }
    }
}

/// The number of a signal as Docker lets one write it: `15`, `TERM`, `SIGTERM`, `SIGRTMIN+3`, any case.
///
/// Numbers of Linux on x86, ARM, RISC-V and POWER; `None` for anything else.
pub(super) fn signal_number(text: &str) -> Option<u8> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
        "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    /// glibc keeps 32 and 33 for its threads.
    const REALTIME: std::ops::RangeInclusive<u8> = 34..=64;

    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let realtime = if let Some(above) = name.strip_prefix("RTMIN") {
        offset(above, '+').and_then(|above| REALTIME.start().checked_add(above))
    } else if let Some(below) = name.strip_prefix("RTMAX") {
        offset(below, '-').and_then(|below| REALTIME.end().checked_sub(below))
    } else {
        let name = match name {
            "IOT" => "ABRT",
            "CLD" => "CHLD",
            "POLL" => "IO",
            name => name,
        };
        let place = NAMES.iter().position(|known| *known == name)?;
        return u8::try_from(place + 1).ok();
    };
    realtime.filter(|number| REALTIME.contains(number))
}

/// The number behind a sign, zero when there is neither.
fn offset(text: &str, sign: char) -> Option<u8> {
    if text.is_empty() {
        return Some(0);
    }
    text.strip_prefix(sign)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::body;
    use super::*;

    /// State, mode, networks with their addresses and ports of a captured inspect, in one line.
    fn shown(name: &str) -> String {
        let Inspected { container, .. } =
            inspected(&body(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let state = &container.state;
        let mut words = vec![container.name.to_string()];
        for (holds, word) in [
            (state.running, "running"),
            (state.paused, "paused"),
            (state.restarting, "restarting"),
            (state.dead, "dead"),
            (state.serves(), "serves"),
        ] {
            if holds {
                words.push(word.to_owned());
            }
        }
        if let Some(health) = state.health {
            words.push(format!("{health:?}"));
        }
        words.push(match container.network_mode {
            NetworkMode::Container(id) => format!("container:{}", id.get(..6).unwrap_or(&id)),
            NetworkMode::Named(name) => format!("mode:{name}"),
            mode => format!("{mode:?}"),
        });
        for network in &container.networks {
            words.push(format!(
                "{}={}{}",
                network.name,
                network.ipv4.map(|ip| ip.to_string()).unwrap_or_default(),
                network.ipv6.map(|ip| format!("+{ip}")).unwrap_or_default()
            ));
        }
        words.extend(container.exposed_tcp_ports.iter().map(u16::to_string));
        words.join(" ")
    }

    #[test]
    fn captured_inspects_say_what_docker_said() {
        for (name, expected) in EXPECTED {
            assert_eq!(shown(name), expected, "{name}");
        }
    }

    const EXPECTED: [(&str, &str); 25] = [
        (
            "docker-20.10.24/inspect-created.http",
            "created mode:labnet labnet=",
        ),
        (
            "docker-20.10.24/inspect-dead.http",
            "deadone dead mode:labnet labnet=",
        ),
        (
            "docker-20.10.24/inspect-default-bridge.http",
            "lab-db running serves mode:bridge bridge=172.17.0.3 5432",
        ),
        (
            "docker-20.10.24/inspect-disconnected.http",
            "lab-db running serves mode:bridge 5432",
        ),
        (
            "docker-20.10.24/inspect-envbad.http",
            "envbad running serves None none=",
        ),
        (
            "docker-20.10.24/inspect-envs.http",
            "envs running serves None none=",
        ),
        (
            "docker-20.10.24/inspect-exited2.http",
            "exited2 mode:labnet labnet= 80",
        ),
        (
            "docker-20.10.24/inspect-healthy.http",
            "healthy running serves Healthy mode:labnet labnet=172.17.0.6",
        ),
        (
            "docker-20.10.24/inspect-hostmode.http",
            "hostmode running serves Host host= 80",
        ),
        (
            "docker-20.10.24/inspect-macvlan.http",
            "macv running serves mode:macnet macnet=10.88.0.2",
        ),
        (
            "docker-20.10.24/inspect-multi.http",
            "multi running serves mode:labnet intnet=10.99.0.2 labnet=172.17.0.2 labnet2=172.18.0.2 net6=10.77.0.50+fd00:dead::50 80 443 7000 7001 7002 8080",
        ),
        (
            "docker-20.10.24/inspect-nonemode.http",
            "nonemode running serves None none=",
        ),
        (
            "docker-20.10.24/inspect-paused.http",
            "paused running paused mode:labnet labnet=172.17.0.3",
        ),
        (
            "docker-20.10.24/inspect-restarting.http",
            "restarting running restarting mode:labnet labnet=",
        ),
        (
            "docker-20.10.24/inspect-sidecar.http",
            "sidecar running serves container:7ae17d",
        ),
        (
            "docker-20.10.24/inspect-six.http",
            "six running serves mode:net6 net6=10.77.0.2+fd00:dead::2",
        ),
        (
            "podman-4.3.1/inspect-created.http",
            "created mode:bridge labnet=",
        ),
        (
            "podman-4.3.1/inspect-defnet.http",
            "defnet running serves mode:bridge podman=10.88.0.2",
        ),
        (
            "podman-4.3.1/inspect-exited2.http",
            "exited2 mode:bridge labnet= 80",
        ),
        (
            "podman-4.3.1/inspect-hcp.http",
            "hcp running serves Healthy mode:bridge labnet=10.89.0.16",
        ),
        (
            "podman-4.3.1/inspect-hostmode.http",
            "hostmode running serves Host",
        ),
        (
            "podman-4.3.1/inspect-multi.http",
            "multi running serves mode:bridge labnet=10.89.0.13 n2=10.89.1.2 80 8080",
        ),
        (
            "podman-4.3.1/inspect-nonemode.http",
            "nonemode running serves None",
        ),
        (
            "podman-4.3.1/inspect-paused.http",
            "paused running paused mode:bridge labnet=10.89.0.14",
        ),
        // Podman repeats the other container's networks and ports here.
        (
            "podman-4.3.1/inspect-sidecar.http",
            "sidecar running serves container:5a82b2",
        ),
    ];

    #[test]
    fn the_environment_is_kept_as_it_is() {
        let found = inspected(&body("docker-20.10.24/inspect-envs.http")).expect("an inspect");
        let long = "x".repeat(3_000);
        let expected = [
            ("DUP", "1"),
            ("DUP", "2"),
            ("EMPTY", ""),
            ("EQ", "a=b=c"),
            ("NL", "line1\nline2"),
            ("TAB", "a\tb"),
            ("QUOTE", "\"q\" 'x' \\ $HOME"),
            ("UTF8", "héllo ☃ 😀"),
            ("SPACE KEY", "v"),
            ("lower", "1"),
            ("LOWER", "2"),
            ("TRAIL", " v "),
            ("CTRL", "\u{1}\u{7f}"),
            ("HTML", "<a>&</a>"),
            ("LS", "\u{2028}\u{2029}"),
            ("BIG", &long),
        ];
        let shown: Vec<(&str, &str)> = found
            .env
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(shown, expected);
        assert_eq!(
            found.container.created.to_string(),
            "2026-11-22T10:56:01.868672062Z"
        );
        assert_eq!(found.container.hostname(), "0e1082f41c66");
        assert_eq!(found.container.own_hostname, None);
        assert_eq!(&*found.container.entrypoint, "sleep");
        assert_eq!(found.image, "bb:1");
        assert!(found.container.state.started > found.container.created);
    }

    #[test]
    fn lists_are_read() {
        let names = |name: &str| -> Vec<String> {
            list(&body(name))
                .unwrap_or_else(|error| panic!("{name}: {error}"))
                .into_iter()
                .map(|row| row.name)
                .collect()
        };
        assert_eq!(
            names("docker-20.10.24/containers-json.http"),
            [
                "healthy",
                "restarting",
                "paused",
                "six",
                "sidecar",
                "nonemode",
                "hostmode",
                "multi"
            ]
        );
        // The link alias stands first there.
        assert_eq!(
            names("docker-20.10.24/containers-json-links.http"),
            ["alab-web", "zlab-db"]
        );
        assert_eq!(
            names("docker-20.10.24/containers-json-dead.http"),
            ["deadone"]
        );
        assert!(names("docker-20.10.24/containers-json-empty.http").is_empty());
        // Null networks, no HostConfig.
        assert_eq!(
            names("podman-4.3.1/containers-json.http"),
            ["nonemode", "hostmode", "multi", "sidecar", "defnet", "hcp"]
        );
        // Taken for "no containers" it would take everybody away.
        list(b"null").expect_err("no list");
    }

    /// A row as Docker writes it, with these parts.
    fn digest(names: &str, state: &str, status: &str, networks: &str) -> u64 {
        let json = format!(
            r#"[{{"Id":"a","Names":{names},"Created":1,"State":"{state}","Status":"{status}","NetworkSettings":{{"Networks":{networks}}}}}]"#
        );
        list(json.as_bytes()).expect("a list")[0].digest
    }

    #[test]
    fn the_digest_follows_what_an_inspect_would_say_and_nothing_else() {
        let net = |ip: &str, endpoint: &str| {
            format!(
                r#"{{"n":{{"IPAddress":"{ip}","EndpointID":"{endpoint}","GlobalIPv6Address":""}}}}"#
            )
        };
        let usual = digest(
            r#"["/a"]"#,
            "running",
            "Up 4 seconds (healthy)",
            &net("10.0.0.1", "e"),
        );
        for (names, state, status, networks) in [
            (
                r#"["/a"]"#,
                "running",
                "Up 5 seconds (healthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up About a minute (healthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 2 weeks (healthy)",
                net("10.0.0.1", "e"),
            ),
        ] {
            assert_eq!(digest(names, state, status, &networks), usual, "{status}");
        }
        for (names, state, status, networks) in [
            (
                r#"["/b"]"#,
                "running",
                "Up 4 seconds (healthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/x/b","/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/a"]"#,
                "paused",
                "Up 4 seconds (healthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (unhealthy)",
                net("10.0.0.1", "e"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (health: starting)",
                net("10.0.0.1", "e"),
            ),
            (r#"["/a"]"#, "running", "Up 4 seconds", net("10.0.0.1", "e")),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                net("10.0.0.2", "e"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                net("10.0.0.1", "restarted"),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                "{}".to_owned(),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                "null".to_owned(),
            ),
            (
                r#"["/a"]"#,
                "running",
                "Up 4 seconds (healthy)",
                r#"{"n":null}"#.to_owned(),
            ),
        ] {
            assert_ne!(
                digest(names, state, status, &networks),
                usual,
                "{names} {state} {status} {networks}"
            );
        }
        let health = |status: &str| {
            let json =
                format!(r#"[{{"Id":"a","Health":{{"Status":"{status}","FailingStreak":0}}}}]"#);
            list(json.as_bytes()).expect("a list")[0].digest
        };
        assert_ne!(health("healthy"), health("unhealthy"), "API 1.52");
    }

    #[test]
    fn what_is_no_answer_of_docker_is_refused() {
        for json in [
            "",
            "{}",
            "[",
            "[{}]",
            r#"[{"Id":null}]"#,
            r#"[{"Id":[]}]"#,
            r#"[{"Id":"a"}"#,
            "<html>",
            "[1]",
            r#"["a"]"#,
            r#"[{"Id":"a","Names":"/a"}]"#,
        ] {
            assert!(list(json.as_bytes()).is_err(), "{json}");
        }
        for json in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"Id":""}"#,
            r#"{"Id":"a""#,
            r#"{"Id":"a","State":1}"#,
            "\u{0}",
        ] {
            assert!(inspected(json.as_bytes()).is_err(), "{json}");
        }
    }

    #[test]
    fn missing_and_null_fields_are_nothing() {
        for json in [
            r#"{"Id":"a"}"#,
            r#"{"Id":"a","Name":null,"Created":null,"Path":null,"RestartCount":null,"State":null,"Config":null,"HostConfig":null,"NetworkSettings":null}"#,
            r#"{"Id":"a","Created":"soon","State":{"Running":null,"StartedAt":"","Health":null},"Config":{"Env":null,"ExposedPorts":null,"Labels":null,"StopSignal":"","StopTimeout":null},"HostConfig":{"NetworkMode":""},"NetworkSettings":{"Networks":null,"Ports":null}}"#,
            r#"{"Id":"a","State":{"Health":{"Status":""}},"Config":{"Env":["A","no=",""],"ExposedPorts":{"53/udp":{},"x/tcp":{},"65536/tcp":{}}}}"#,
        ] {
            let found =
                inspected(json.as_bytes()).unwrap_or_else(|error| panic!("{json}: {error}"));
            let container = found.container;
            assert!(!container.state.serves(), "{json}");
            assert_eq!(container.state.health, None, "{json}");
            assert_eq!(*container.networks, [], "{json}");
            assert_eq!(*container.exposed_tcp_ports, [0_u16; 0], "{json}");
            assert_eq!(
                container.network_mode,
                NetworkMode::Named("bridge".into()),
                "{json}"
            );
            assert_eq!(
                (container.stop_signal, container.stop_seconds),
                (15, STOP_SECONDS_DEFAULT),
                "{json}"
            );
            assert_eq!(found.labels, [], "{json}");
            assert!(found.env.iter().all(|(name, _)| name == "no"), "{json}");
        }
    }

    #[test]
    fn an_inspect_of_docker_29_has_all_that_is_read() {
        let json = r#"{"Id":"a","Name":"/web","Created":"2026-01-02T03:04:05Z","Path":"nginx","RestartCount":2,
            "State":{"Status":"running","Running":true,"StartedAt":"2026-01-02T03:04:06Z","Health":{"Status":"starting"}},
            "HostConfig":{"NetworkMode":"front"},"Config":{"Hostname":"h","Domainname":"d","Env":["A=1"],"Image":"i","StopSignal":"SIGQUIT","StopTimeout":-1,
            "ExposedPorts":{"80":{},"81/tcp":{}},"Labels":{"b":"2","a":"1"}},
            "NetworkSettings":{"SandboxID":"s","Ports":{"80/tcp":null},"Networks":{"front":{"IPAddress":"10.0.0.9","DNSNames":["web"],"GwPriority":0,"NetworkID":"n"}}}}"#;
        let found = inspected(json.as_bytes()).expect("an inspect");
        let container = found.container;
        assert!(container.state.serves());
        assert_eq!(container.state.health, Some(Health::Starting));
        assert_eq!(*container.exposed_tcp_ports, [80, 81]);
        assert_eq!(container.stop_signal, 3);
        assert_eq!(container.stop_seconds, STOP_SECONDS_MAX);
        assert_eq!(container.restarts, 2);
        assert_eq!((container.hostname(), &*container.domainname), ("h", "d"));
        assert_eq!(container.networks.len(), 1);
        assert_eq!(
            found.labels,
            [
                ("a".to_owned(), "1".to_owned()),
                ("b".to_owned(), "2".to_owned())
            ]
        );
    }

    #[test]
    fn signals_are_read_as_docker_takes_them() {
        for (text, number) in [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("QUIT", Some(3)),
            ("SigWinch", Some(28)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMIN", Some(34)),
            ("SIGRTMAX-1", Some(63)),
            ("rtmax", Some(64)),
            ("CLD", Some(17)),
            ("64", Some(64)),
            ("0", None),
            ("65", None),
            ("-1", None),
            ("300", None),
            ("", None),
            ("SIG", None),
            ("SIGFOO", None),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMAX-31", None),
            ("RTMIN+300", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }

    #[test]
    fn any_cut_of_an_answer_is_refused() {
        let list_json = body("docker-20.10.24/containers-json.http");
        let inspect_json = body("docker-20.10.24/inspect-healthy.http");
        for end in (0..list_json.trim_ascii().len()).step_by(7) {
            let (front, back) = list_json.split_at(end);
            assert!(list(front).is_err(), "{end}");
            let mut pieces = List::default();
            pieces.push(front);
            pieces.push(back);
            assert_eq!(pieces.end(), list(&list_json), "{end}");
        }
        for end in (0..inspect_json.trim_ascii().len()).step_by(7) {
            assert!(inspected(&inspect_json[..end]).is_err(), "{end}");
        }
    }
}
