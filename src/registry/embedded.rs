//! The registry in our own process: stored services + payload -> services -> config.
//!
//! The same contract as Cosmos, without its bugs: all stored services
//! count, a service lives as long as one of its containers runs, containers are keyed by id, bad
//! candidates are left out and named, an error changes nothing. It must not know files: what it
//! remembers goes through [`Memory`], which `store.rs` keeps on disk.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::template::{self, Base, LeftOut, Places, Server, Service};
use super::{Amended, Candidate, Edit, Instance, Payload, Registry, Running};
use crate::config::Fingerprint;
use crate::error::{Error, Result};
use crate::order;
use crate::room;

/// Most services of one table. Four times what HAProxy was measured with.
const SERVICES_MAX: usize = 20_000;

/// Most instances of one table, all services together.
const INSTANCES_MAX: usize = 100_000;

/// What the registry remembers of one table: the services whose containers ran last, by name.
/// `S` is `&str` on its way to the memory: it is as large as all that is known of the containers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(bound(deserialize = "S: Default + Deserialize<'de>"))]
pub struct State<S = String> {
    /// The services, sorted by name, their containers by id.
    pub services: Vec<Candidate<S>>,
}

impl<S> Default for State<S> {
    fn default() -> Self {
        State {
            services: Vec::new(),
        }
    }
}

#[cfg(test)]
impl State<&str> {
    /// As it comes back from a memory.
    pub(super) fn remembered(&self) -> State {
        let json = serde_json::to_string(self).expect("JSON");
        serde_json::from_str(&json).expect("a state")
    }
}

/// Where the state is kept between two runs.
pub trait Memory {
    /// The state of a table; empty when there is none or when it was damaged.
    ///
    /// # Errors
    /// When it can neither be read nor put aside.
    fn load(&mut self, table: &str) -> Result<State>;

    /// Whether exactly this is what is kept of a table, told without having all of it in memory where that can be.
    ///
    /// # Errors
    /// As [`Memory::load`].
    fn holds(&mut self, table: &str, state: &State<&str>) -> Result<bool> {
        Ok(hash(&self.load(table)?) == hash(state))
    }

    /// Keeps the state of a table.
    ///
    /// # Errors
    /// The old state is then still there, whole.
    fn save(&mut self, table: &str, state: &State<&str>) -> Result<()>;
}

/// The built-in registry.
pub struct Embedded {
    base: Base,
    memory: Box<dyn Memory + Send>,
    /// Hashes of the table and of its state as it is in the memory: the state itself is as large as all that is
    /// known of the containers, and seldom needed.
    saved: Option<(u64, u64)>,
    left_out: Vec<LeftOut>,
    save_failed: Option<String>,
    /// Where the candidates of the last payload stand in the last text.
    places: Places,
    /// The fingerprint of that text, if each of them stands in it. The text itself is as large as all the rest, and
    /// lies on the disk.
    print: Option<u64>,
}

/// What one payload makes of the stored state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Merged<'p> {
    /// The state to keep.
    pub state: State<&'p str>,
    /// The services to render, in order.
    pub services: Vec<Service<'p>>,
    /// Candidates and instances that cannot be routed.
    pub left_out: Vec<LeftOut>,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").finish_non_exhaustive()
    }
}

impl Embedded {
    /// A registry that renders into `base` and remembers in `memory`.
    pub fn new(base: Base, memory: Box<dyn Memory + Send>) -> Self {
        Embedded {
            base,
            memory,
            saved: None,
            left_out: Vec::new(),
            save_failed: None,
            places: Places::default(),
            print: None,
        }
    }

    /// What the last config leaves out, and why.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Says what is left out, once as long as it stays so.
    fn tell(&mut self, left_out: Vec<LeftOut>) {
        for LeftOut { service, why } in left_out.iter().filter(|new| !self.left_out.contains(new)) {
            log::warn!("service {service} is not routed as asked: {why}");
        }
        self.left_out = left_out;
    }

    fn keep(&mut self, table: &str, state: &State<&str>) -> Result<()> {
        let name = hash_of(table);
        let saved = Some((name, hash(state)));
        if self.saved == saved {
            return Ok(());
        }
        let is_new = self.saved.is_none_or(|(last, _)| last != name);
        if is_new && self.memory.holds(table, state)? {
            self.saved = saved;
            return Ok(());
        }
        match self.memory.save(table, state) {
            Ok(()) => {
                self.saved = saved;
                self.save_failed = None;
            }
            // The state can be made again from Docker; the config that follows from it cannot wait
            // for it. The next pass tries to keep it again.
            Err(error) => {
                let words = error.to_string();
                if self.save_failed.as_ref() != Some(&words) {
                    log::warn!("{words}; routing goes on without it");
                    self.save_failed = Some(words);
                }
            }
        }
        Ok(())
    }
}

impl Registry for Embedded {
    fn config(&mut self, payload: &Payload) -> Result<String> {
        self.print = None;
        let instances = payload.running.len()
            + payload
                .candidates
                .iter()
                .map(|candidate| candidate.containers.len())
                .sum::<usize>();
        if payload.candidates.len() > SERVICES_MAX || instances > 2 * INSTANCES_MAX {
            return Err(Error::new(
                format!("cannot render table {}", payload.table),
                format!(
                    "{} services and {instances} entries are more than the built-in registry takes ({SERVICES_MAX} services, {INSTANCES_MAX} instances)",
                    payload.candidates.len()
                ),
            )
            .hint("does the keyword match more containers than meant?"));
        }
        let stored = if asks_for_stored(payload) {
            let stored = self.memory.load(&payload.table)?;
            self.saved = Some((hash_of(&payload.table), hash(&stored)));
            stored
        } else {
            State::default()
        };
        let Merged {
            state,
            services,
            mut left_out,
        } = merge(&stored, payload);
        // The state goes before the text is made.
        self.keep(&payload.table, &state)?;
        drop(state);
        let places = std::mem::take(&mut self.places);
        let rendered = template::render_again(&self.base, &services, places);
        left_out.extend(rendered.left_out);
        let each = left_out.is_empty() && rendered.places.len() == payload.candidates.len();
        self.tell(left_out);
        self.places = rendered.places;
        self.print = each.then(|| hash_of(&rendered.text));
        Ok(rendered.text)
    }

    /// What is remembered of the table waits for the next whole payload: it is as long as the config, and only
    /// asked for what nobody can be asked about any more, and HAProxy's config does not tell either.
    fn amended(&mut self, edits: &[Edit], last: String) -> Option<Amended> {
        let print = self.print.take()?;
        if hash_of(&last) != print {
            return None;
        }
        let mut amended = Amended {
            text: last,
            before: String::new(),
            after: String::new(),
        };
        for edit in edits {
            let service = match &edit.now {
                Some(candidate) => Some(alone(candidate)?),
                None => None,
            };
            let (places, text) = (&mut self.places, &mut amended.text);
            let (before, after) =
                places.edit(text, &self.base, edit.at, edit.was, service.as_ref())?;
            amended.before.push_str(&before);
            amended.after.push_str(&after);
        }
        if self.places.len() > SERVICES_MAX {
            return None;
        }
        self.print = Some(hash_of(&amended.text));
        Some(amended)
    }

    fn make_room(&mut self, services: usize) {
        if self.places.is_empty() {
            self.places.make_room(services);
        }
    }

    fn is_remote(&self) -> bool {
        false
    }

    fn can_route(&self, candidate: &Candidate) -> std::result::Result<(), String> {
        template::fault(&settings(candidate)).map_or(Ok(()), Err)
    }
}

/// Whether something runs that only the stored state can tell the settings or the address of.
fn asks_for_stored(payload: &Payload) -> bool {
    let candidates: HashSet<&str> = payload
        .candidates
        .iter()
        .map(|candidate| candidate.service_name.as_str())
        .collect();
    payload
        .running
        .iter()
        .any(|entry| entry.ip.is_empty() || !candidates.contains(entry.service_name.as_str()))
}

fn hash_of(text: &str) -> u64 {
    let mut hash = Fingerprint::default();
    hash.add(text.as_bytes());
    hash.finish()
}

fn hash<S: Hash>(state: &State<S>) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Puts a payload and the stored services together.
///
/// Settings come from the candidate, else from the store; an instance's address from the candidate,
/// else from `running`, else from the store. A stored service without a running container is
/// forgotten. A candidate without instances is rendered (it answers 503) but not stored. Order: the
/// candidates' own, then services known only from the store, by name.
pub fn merge<'p>(stored: &'p State, payload: &'p Payload) -> Merged<'p> {
    let mut left_out = Vec::new();
    // Stable: of two addresses of one instance the later one counts.
    let mut running: Vec<&Running> = payload.running.iter().collect();
    order::sort_by(&mut running, |a, b| {
        (&a.service_name, &a.id).cmp(&(&b.service_name, &b.id))
    });
    let known: HashMap<&str, &Candidate> = stored
        .services
        .iter()
        .map(|service| (service.service_name.as_str(), service))
        .collect();

    let mut order: Vec<Entry<'_>> = room::passing(payload.candidates.len());
    let mut places: HashMap<&str, usize> = HashMap::with_capacity(payload.candidates.len());
    for candidate in &payload.candidates {
        let again = places.get(candidate.service_name.as_str());
        if let Some(entry) = again.and_then(|&place| order.get_mut(place)) {
            entry.again.push(candidate);
            continue;
        }
        let service = settings(candidate);
        if let Some(why) = template::fault(&service) {
            left_out.push(LeftOut {
                service: service.name.to_owned(),
                why,
            });
            continue;
        }
        places.insert(&candidate.service_name, order.len());
        order.push(Entry {
            candidate,
            service,
            instances: &candidate.containers,
            again: Vec::new(),
        });
    }
    let mut forgotten_no_more: Vec<&Candidate> = stored
        .services
        .iter()
        .filter(|service| !places.contains_key(service.service_name.as_str()))
        .filter(|service| !of(&running, &service.service_name).is_empty())
        .filter(|service| template::fault(&settings(service)).is_none())
        .collect();
    order::sort_by(&mut forgotten_no_more, |a, b| {
        a.service_name.cmp(&b.service_name)
    });
    order.extend(forgotten_no_more.into_iter().map(|candidate| Entry {
        candidate,
        service: settings(candidate),
        instances: &[],
        again: Vec::new(),
    }));

    let mut state: State<&str> = State {
        services: room::passing(order.len()),
    };
    let mut services = room::passing(order.len());
    for entry in order {
        let Entry {
            candidate,
            mut service,
            instances,
            again,
        } = entry;
        let name = candidate.service_name.as_str();
        let stored_ip = |id: &str| {
            known
                .get(name)
                .and_then(|service| service.containers.iter().find(|stored| stored.id == id))
                .map(|stored| stored.ip.as_str())
        };
        let mut addresses: Vec<(&str, &str)> = Vec::with_capacity(instances.len());
        for Running { id, ip, .. } in of(&running, name) {
            let ip = if ip.is_empty() {
                stored_ip(id)
            } else {
                Some(ip.as_str())
            };
            addresses.push((id, ip.unwrap_or_default()));
        }
        addresses.extend(
            instances
                .iter()
                .chain(again.iter().flat_map(|candidate| &candidate.containers))
                .map(|one| (one.id.as_str(), one.ip.as_str())),
        );
        // Stable: what was said last of an id counts.
        order::sort_by_key(&mut addresses, |(id, _)| *id);
        let mut containers: Vec<Instance<&str>> = Vec::with_capacity(addresses.len());
        service.servers.reserve_exact(addresses.len());
        for (at, &(id, ip)) in addresses.iter().enumerate() {
            if addresses.get(at + 1).is_some_and(|(next, _)| *next == id) {
                continue;
            }
            match ip.parse::<IpAddr>() {
                Ok(address) if !address.is_unspecified() && template::is_server_name(id) => {
                    service.servers.push(Server { id, ip: address });
                    containers.push(Instance { id, ip });
                }
                _ => left_out.push(LeftOut {
                    service: name.to_owned(),
                    why: format!("container {id:?} has no usable address: {ip:?}"),
                }),
            }
        }
        services.push(service);
        if !containers.is_empty() {
            state.services.push(Candidate {
                service_name: &candidate.service_name,
                port: candidate.port,
                config_mode: candidate.config_mode,
                predicate: &candidate.predicate,
                cookie: candidate.cookie.as_deref(),
                containers,
            });
        }
    }
    order::sort_by_key(&mut state.services, |service| service.service_name);
    let mut seen = HashSet::new();
    left_out.retain(|entry| seen.insert((entry.service.clone(), entry.why.clone())));
    Merged {
        state,
        services,
        left_out,
    }
}

/// A service on its way through [`merge`].
struct Entry<'p> {
    candidate: &'p Candidate,
    service: Service<'p>,
    instances: &'p [Instance],
    /// Further candidates of this name, of which the instances count.
    again: Vec<&'p Candidate>,
}

/// What runs of one service, in a list sorted by service.
fn of<'r, 'p>(running: &'r [&'p Running], service: &str) -> &'r [&'p Running] {
    let from = running.partition_point(|entry| entry.service_name.as_str() < service);
    let rest = running.get(from..).unwrap_or_default();
    let length = rest.partition_point(|entry| entry.service_name == service);
    rest.get(..length).unwrap_or_default()
}

/// A candidate with all its instances, when each of them can be routed.
fn alone(candidate: &Candidate) -> Option<Service<'_>> {
    let mut service = settings(candidate);
    for Instance { id, ip } in &candidate.containers {
        let ip = ip.parse().ok()?;
        service.servers.push(Server { id, ip });
    }
    Some(service)
}

/// A candidate's settings, without its instances.
fn settings(candidate: &Candidate) -> Service<'_> {
    Service {
        name: &candidate.service_name,
        mode: candidate.config_mode,
        patterns: {
            // Most have one, for which `collect` would have room for four.
            let mut patterns = Vec::with_capacity(candidate.patterns().count());
            patterns.extend(candidate.patterns());
            patterns
        },
        port: candidate.port,
        cookie: candidate
            .cookie
            .as_deref()
            .filter(|cookie| !cookie.is_empty()),
        servers: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Config;
    use crate::registry::haproxy_check::assert_accepted;
    use crate::registry::{Mode, answer};

    fn large(services: usize, instances: usize) -> Payload {
        let mut payload = Payload::default();
        for service in 0..services {
            let name = format!("s{service:04}");
            let containers: Vec<_> = (0..instances)
                .map(|instance| Instance {
                    id: format!("{service:06x}{instance:06x}"),
                    ip: format!("10.{}.{}.{}", service / 250, service % 250, instance % 250),
                })
                .collect();
            payload.running.extend(containers.iter().map(|one| Running {
                service_name: name.clone(),
                id: one.id.clone(),
                ip: one.ip.clone(),
            }));
            payload.candidates.push(Candidate {
                predicate: format!("{name}.example.com"),
                service_name: name,
                port: 80,
                config_mode: Mode::Host,
                cookie: None,
                containers,
            });
        }
        payload
    }

    /// Time that this thread was on a processor: on a busy machine the longer work is interrupted more often.
    fn on_processor() -> Duration {
        // The kernel brings the account up to date when a thread steps back.
        std::thread::yield_now();
        let text =
            std::fs::read_to_string("/proc/thread-self/schedstat").expect("a kernel's account");
        let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
        Duration::from_nanos(nanos.expect("a number"))
    }

    /// Merge, render, parse and compare: four times the services take about four times as long.
    /// A quadratic step would take sixteen times; eight leaves room for a busy machine.
    #[test]
    fn many_services_and_many_instances_take_time_in_proportion() {
        let base = Base::built_in(None).expect("the built-in base is good");
        let run = |payload: &Payload| {
            let begun = on_processor();
            let nothing = State::default();
            let merged = merge(&nothing, payload);
            let remembered = merged.state.remembered();
            let again = merge(&remembered, payload);
            assert_eq!(again.state, merged.state);
            let text = template::render(&base, &again.services).text;
            let config = Config::parse(&text);
            assert_eq!(answer::missing(payload, &config, false), [""; 0]);
            (on_processor() - begun, text)
        };
        let best = |payload: &Payload| (0..5).map(|_| run(payload).0).min().unwrap_or_default();
        for (few, many) in [((500, 1), (2_000, 1)), ((5, 300), (5, 1_200))] {
            let (few, many) = (best(&large(few.0, few.1)), best(&large(many.0, many.1)));
            assert!(many < few * 8, "{few:?} -> {many:?}");
        }
        assert_accepted(&run(&large(1_000, 1)).1);
        assert_accepted(&run(&large(10, 300)).1);
    }

    #[test]
    fn too_much_is_refused_before_anything_changes() {
        struct Untouched;
        impl Memory for Untouched {
            fn load(&mut self, _: &str) -> Result<State> {
                unreachable!("nothing is read");
            }
            fn save(&mut self, _: &str, _: &State<&str>) -> Result<()> {
                unreachable!("nothing is written");
            }
        }
        let base = Base::built_in(None).expect("the built-in base is good");
        let mut embedded = Embedded::new(base, Box::new(Untouched));
        let error = embedded
            .config(&large(SERVICES_MAX + 1, 0))
            .expect_err("too many services");
        assert!(error.to_string().contains("20001 services"), "{error}");
    }
}
