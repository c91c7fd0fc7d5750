//! What we know of Docker's containers between two passes, and what must be asked of Docker next. Pure.
//!
//! Events say which container to look at; inspect says what is true; a list says only what exists.
//! Docker 20.10 lists a dead container as running for up to 400 ms after its `die`, so a container that
//! died within the last second is not taken back because a list says so: only a `start` or a later look does.
//! An inspect that fails leaves what was known of that container and is tried again on its own, so one
//! hanging container stops nobody else.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::Fingerprint;
use crate::description::{self, Reading};
use crate::docker::container::{Container, Inspected, NetworkMode, Row};
use crate::names::Names;
use crate::order;
use crate::roll::{Identified, Roll};
use crate::room;
use crate::sorted::Set;

/// For this long after a `die`, a list that shows the container is not believed.
const DEAD_LISTED_MAX: Duration = Duration::from_secs(1);
/// From this many remembered deaths on, those that no longer matter are forgotten.
const DIED_KEPT: usize = 1000;
/// First wait before a failed inspect is tried again.
const INSPECT_RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two tries of an inspect.
const INSPECT_RETRY_MAX: Duration = Duration::from_secs(60);
/// First and longest wait before a late answer to an inspect is looked for.
const LATE_LOOK: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long after Podman's word of a health check an inspect knows what came of it.
const PROBED_AFTER: Duration = Duration::from_millis(500);
/// A container that got its stop signal is taken back this long after its stop timeout, if it still runs.
const SURVIVED_AFTER: Duration = Duration::from_secs(2);
/// Containers that lend their network to others may themselves borrow one; Docker allows no chain, Podman a short one.
pub const LENDERS_DEEP_MAX: u32 = 3;
/// The signal that nothing survives.
const SIGKILL: u8 = 9;

/// The word that a monitored container's name holds, without regard to case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyword(String);

impl Keyword {
    /// An empty word matches every name; then only containers that name a service are monitored.
    pub fn new(word: &str) -> Self {
        Keyword(word.to_lowercase())
    }

    /// Whether a container of this name is monitored.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_empty() || name.to_lowercase().contains(&self.0)
    }

    /// Whether every name matches.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which containers may concern us, by name alone: cheap enough to ask for each event.
#[derive(Debug, Clone)]
pub struct Interest {
    /// The keyword of monitored containers.
    pub keyword: Keyword,
    /// Name of HAProxy's container.
    pub haproxy: String,
}

impl Interest {
    /// Whether a container of this name may concern us. An empty name is one that we were not told.
    pub fn in_name(&self, name: &str) -> bool {
        name.is_empty() || name == self.haproxy || self.keyword.matches(name)
    }

    fn monitors(&self, name: &str, reading: &Reading) -> bool {
        let names_a_service = description::names_a_service(reading);
        self.keyword.matches(name)
            && (names_a_service || !(name == self.haproxy || self.keyword.is_empty()))
    }
}

/// One container, as the last inspect told.
#[derive(Debug)]
pub struct Known {
    /// Docker's account.
    pub container: Container,
    /// Its own account of its service.
    pub reading: Reading,
    /// It got its stop signal and is given until then to be gone.
    pub leaving_until: Option<Instant>,
    /// Whether it is one of ours, and not only known for another's sake.
    monitored: bool,
    /// Digest of the list row that the inspect belongs to; `None` after an event.
    digest: Option<u64>,
}

impl Known {
    /// The service that it names, if it is monitored and its description is valid.
    fn service(&self) -> Option<&str> {
        match &self.reading {
            Reading::Service(description) if self.monitored => Some(&description.service),
            _ => None,
        }
    }
}

/// Two services may have the same.
fn hash_of(service: &str) -> u32 {
    let mut hash = Fingerprint::default();
    hash.add(service.as_bytes());
    (hash.finish() >> 32) as u32
}

fn short_of(id: &str) -> Short {
    let mut short = Short::default();
    for (to, from) in short.iter_mut().zip(id.bytes()) {
        *to = from;
    }
    short
}

impl Identified for Known {
    fn id(&self) -> &str {
        &self.container.id
    }
}

/// An inspect that is owed: it failed, or the container could not be asked yet.
#[derive(Debug)]
struct Owed {
    at: Instant,
    wait: Duration,
    /// Its answer was late: others are asked first.
    late: bool,
}

/// What may be another now than when it was last asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Touched {
    /// Only these.
    These {
        /// Ids of monitored containers, and of those that were.
        containers: Set<String>,
        /// The services that they name.
        services: Set<String>,
    },
    /// Everything: HAProxy's own networks, the list, a container whose network others share, one that names no
    /// service.
    All,
}

impl Touched {
    /// Nothing.
    fn none() -> Touched {
        Touched::These {
            containers: Set::default(),
            services: Set::default(),
        }
    }
}

/// The first characters of an id, as [`crate::service::short`] has them; zeros where it is shorter.
type Short = [u8; 12];

/// All that is known.
#[derive(Debug)]
pub struct Inventory {
    interest: Interest,
    /// Changed by [`Inventory::put`] and [`Inventory::take`] alone, which keep what is told of it below.
    known: Roll<Known>,
    /// Who is in a service: the hash of its name, and the container's id. Sorted; a tree of thousands would be
    /// twice as large.
    members: Vec<(u32, Short)>,
    /// Ids of containers of the name of HAProxy's.
    haproxies: Set<String>,
    /// Ids of containers that got their stop signal.
    leaving: Set<String>,
    /// How many use the network of another container.
    borrowers: usize,
    touched: Touched,
    died: HashMap<String, Instant>,
    owed: HashMap<String, Owed>,
    /// HAProxy's container as it was last seen, while it does not run. It comes back to the same networks, and
    /// until then its absence must not change how the others are reached.
    haproxy_away: Option<Box<Container>>,
    /// HAProxy's container is there, as a list said, or may be: its id, or its name.
    haproxy_there: Option<String>,
    /// What HAProxy's container has mounted of the host, by source, when it was last inspected.
    haproxy_mounts: Option<Vec<String>>,
    /// The names that containers have in common.
    names: Names,
}

impl Inventory {
    /// Knows nothing yet.
    pub fn new(interest: Interest) -> Self {
        Inventory {
            interest,
            known: Roll::default(),
            members: Vec::new(),
            haproxies: Set::default(),
            leaving: Set::default(),
            borrowers: 0,
            touched: Touched::All,
            died: HashMap::new(),
            owed: HashMap::new(),
            haproxy_away: None,
            haproxy_there: None,
            haproxy_mounts: None,
            names: Names::default(),
        }
    }

    /// Takes in a list asked for at `asked`; returns the ids to inspect with the digests of their rows.
    ///
    /// `afresh` inspects every container that concerns us, also those whose row is as before: after a
    /// restart of the daemon the same ids may have other addresses.
    pub fn listed(
        &mut self,
        rows: Vec<Row>,
        asked: Instant,
        afresh: bool,
    ) -> Vec<(String, Option<u64>)> {
        self.died.retain(|_, at| *at + DEAD_LISTED_MAX > asked);
        let lenders: Set<String> = order::gathered(self.lenders().into_iter().map(str::to_owned));
        let mut inspect = room::passing(rows.len());
        let mut listed = Vec::new();
        self.haproxy_there = None;
        for row in rows {
            if row.name == self.interest.haproxy {
                self.haproxy_there = Some(row.id.clone());
            }
            let concerns = self.interest.in_name(&row.name) || lenders.contains(&row.id);
            if !concerns || self.died.contains_key(&row.id) {
                continue;
            }
            let as_before = self
                .known
                .get(&row.id)
                .is_some_and(|known| known.digest == Some(row.digest));
            if afresh || !as_before {
                inspect.push((row.id.clone(), Some(row.digest)));
            }
            listed.push(row.id);
        }
        let listed: Set<String> = order::gathered(listed);
        let gone = |known: &Known| !listed.contains(&*known.container.id);
        if let Some(haproxy) = self.haproxy_here().filter(|known| gone(known)) {
            self.haproxy_away = Some(Box::new(haproxy.container.clone()));
        }
        let gone = self.known.values().map(|known| &*known.container.id);
        let gone = gone.filter(|id| !listed.contains(*id)).map(str::to_owned);
        for id in gone.collect::<Vec<_>>() {
            self.take(&id);
        }
        self.owed.retain(|id, _| listed.contains(id));
        self.touched = Touched::All;
        if self.is_empty() {
            self.known.make_room(inspect.len());
            room::for_all(&mut self.members, inspect.len());
        }
        inspect
    }

    /// How many containers are known.
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// What may be another now than when this was last called.
    pub fn take_touched(&mut self) -> Touched {
        std::mem::replace(&mut self.touched, Touched::none())
    }

    /// Makes this known, in the place of what was known of the same container.
    fn put(&mut self, known: Known) {
        let id = known.container.id.to_string();
        self.take(&id);
        if let NetworkMode::Container(_) = known.container.network_mode {
            self.borrowers += 1;
        }
        if *known.container.name == self.interest.haproxy {
            self.haproxies.insert(id.clone());
        }
        if let Some(service) = known.service() {
            let member = (hash_of(service), short_of(&id));
            if let Err(at) = self.members.binary_search(&member) {
                room::for_one_more(&mut self.members);
                self.members.insert(at, member);
            }
        }
        if known.leaving_until.is_some() {
            self.leaving.insert(id.clone());
        }
        self.known.insert(known);
        self.touch(&id);
    }

    /// Forgets a container.
    fn take(&mut self, id: &str) -> Option<Box<Known>> {
        self.touch(id);
        let known = self.known.remove(id)?;
        if let NetworkMode::Container(_) = known.container.network_mode {
            self.borrowers = self.borrowers.saturating_sub(1);
        }
        self.haproxies.remove(id);
        self.leaving.remove(id);
        if let Some(service) = known.service() {
            let member = (hash_of(service), short_of(id));
            // Another one may have the same first characters.
            let same = |other: &Known| other.service() == Some(service);
            if !self.of_short(short_of(id)).any(same)
                && let Ok(at) = self.members.binary_search(&member)
            {
                self.members.remove(at);
            }
        }
        Some(known)
    }

    /// Notes that this container, if it is known, is another one, has come or goes.
    fn touch(&mut self, id: &str) {
        let Some(known) = self.known.get(id) else {
            return;
        };
        let alone = *known.container.name != self.interest.haproxy
            && self.borrowers == 0
            && (known.service().is_some() || !known.monitored);
        match &mut self.touched {
            Touched::These {
                containers,
                services,
            } if alone => {
                if let Some(service) = known.service() {
                    containers.insert(id.to_owned());
                    if !services.contains(service) {
                        services.insert(service.to_owned());
                    }
                }
            }
            touched => *touched = Touched::All,
        }
    }

    /// Containers whose ids begin so.
    fn of_short(&self, short: Short) -> impl Iterator<Item = &Known> {
        let from = std::str::from_utf8(&short).unwrap_or_default();
        let from = self.known.from(from.trim_end_matches('\0'));
        from.skip_while(move |known| short_of(&known.container.id) < short)
            .take_while(move |known| short_of(&known.container.id) == short)
    }

    /// Monitored containers of one service, by id; `None` when one of them has the first characters of its id in
    /// common with another container.
    pub fn of_service(&self, service: &str) -> Option<Vec<&Known>> {
        let hash = hash_of(service);
        let mut found = Vec::new();
        let from = self.members.partition_point(|(other, _)| *other < hash);
        let members = self.members.iter().skip(from);
        for (_, short) in members.take_while(|(other, _)| *other == hash) {
            let mut same = self.of_short(*short);
            let (one, None) = (same.next()?, same.next()) else {
                return None;
            };
            if one.service() == Some(service) {
                found.push(one);
            }
        }
        Some(found)
    }

    /// Takes in what inspect said: `None` when there is no such container.
    pub fn inspected(&mut self, id: &str, found: Option<Inspected>, digest: Option<u64>) {
        self.owed.remove(id);
        let Some(Inspected {
            mut container,
            env,
            labels,
            mounts,
            ..
        }) = found
        else {
            self.take(id);
            if id == self.interest.haproxy {
                self.touched = Touched::All;
                self.haproxy_away = None;
            }
            return;
        };
        if *container.name == self.interest.haproxy {
            self.touched = Touched::All;
            self.haproxy_mounts = Some(mounts.into_iter().map(|(source, _)| source).collect());
        }
        let state = &container.state;
        let exists = state.running || state.paused || state.restarting;
        if !exists || state.dead {
            self.take(id);
            let seen = |away: &Container| away.id == container.id;
            if *container.name == self.interest.haproxy
                && !self.haproxy_away.as_deref().is_some_and(seen)
            {
                self.haproxy_away = Some(Box::new(container));
            }
            return;
        }
        let reading = match self.known.get(id) {
            // Env and labels never change in a container's life.
            Some(known) => known.reading.clone(),
            None => description::read(&env, &labels),
        };
        let leaving_until = self.known.get(id).and_then(|known| {
            let same_life = known.container.state.started == container.state.started;
            known.leaving_until.filter(|_| same_life)
        });
        self.died.remove(id);
        if *container.name == self.interest.haproxy {
            self.haproxy_away = None;
        }
        container.share(&mut self.names);
        self.touch(id);
        if let Some(known) = self.known.get_mut(id)
            && (&known.container, known.leaving_until) == (&container, leaving_until)
        {
            // What is kept of it stays where it is: thousands that move leave holes that nothing else fills.
            known.digest = digest;
            return;
        }
        let monitored = self.interest.monitors(&container.name, &reading);
        self.put(Known {
            container,
            reading,
            leaving_until,
            monitored,
            digest,
        });
    }

    /// Notes that an inspect failed; what was known of the container stands. Returns when it is tried again.
    pub fn inspect_failed(&mut self, id: &str, now: Instant) -> Instant {
        let wait = match self.owed.get(id) {
            Some(owed) => (owed.wait * 2).min(INSPECT_RETRY_MAX),
            None => INSPECT_RETRY_FIRST,
        };
        let owed = Owed {
            at: now + wait,
            wait,
            late: self.was_late(id),
        };
        self.owed.insert(id.to_owned(), owed);
        now + wait
    }

    /// Containers that are there and were never inspected, since that failed.
    pub fn unseen(&self) -> impl Iterator<Item = &str> {
        self.owed
            .keys()
            .filter(|id| !self.known.contains_key(id))
            .map(String::as_str)
    }

    /// Notes that an inspect is not answered yet; what was known of the container stands. Returns whether this
    /// is new of it.
    pub fn inspect_late(&mut self, id: &str, now: Instant) -> bool {
        let before = self.owed.get(id).map(|owed| owed.wait);
        let wait = before.map_or(LATE_LOOK.0, |wait| (wait * 2).min(LATE_LOOK.1));
        let new = !self.was_late(id);
        let owed = Owed {
            at: now + wait,
            wait,
            late: true,
        };
        self.owed.insert(id.to_owned(), owed);
        new
    }

    /// Notes that a container could not be asked in this look: others took too long.
    pub fn put_off(&mut self, id: &str, now: Instant) {
        self.owed.entry(id.to_owned()).or_insert(Owed {
            at: now + LATE_LOOK.0,
            wait: LATE_LOOK.0,
            late: false,
        });
    }

    /// When an owed inspect became due; those that wait the longest come first.
    pub fn owed_since(&self, id: &str) -> Option<Instant> {
        self.owed.get(id).map(|owed| owed.at)
    }

    /// Notes that a health check of this container just ran: what it came to is asked for in a moment.
    pub fn probed(&mut self, id: &str, now: Instant) {
        if self.known.contains_key(id) {
            self.owed.entry(id.to_owned()).or_insert(Owed {
                at: now + PROBED_AFTER,
                wait: PROBED_AFTER,
                late: false,
            });
        }
    }

    /// Whether nothing is known at all.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// Whether this container's answer to an inspect is owed because it was late.
    pub fn was_late(&self, id: &str) -> bool {
        self.owed.get(id).is_some_and(|owed| owed.late)
    }

    /// Takes a dead container out. `time_nano` is the daemon's time of the event: an event older than
    /// the container's present life is not about it. Returns whether it was known.
    pub fn gone(&mut self, id: &str, time_nano: i64, now: Instant) -> bool {
        if self
            .known
            .get(id)
            .is_some_and(|known| known.container.state.started.unix_nanos() > time_nano)
        {
            return false;
        }
        self.owed.remove(id);
        if self.died.len() >= DIED_KEPT {
            self.died.retain(|_, at| *at + DEAD_LISTED_MAX > now);
        }
        self.died.insert(id.to_owned(), now);
        let known = self.take(id);
        let was_known = known.is_some();
        if let Some(known) = known.filter(|known| *known.container.name == self.interest.haproxy) {
            self.haproxy_away = Some(Box::new(known.container));
        }
        was_known
    }

    /// Notes a signal. Its stop signal, or the one that nothing survives, takes a container out for as
    /// long as it may take to stop; returns then until when. Other signals mean nothing to us, nor does one of a
    /// former life, which a stream that is taken up again repeats: `time_nano` is the daemon's time of the event, 0
    /// when it does not say.
    pub fn signalled(
        &mut self,
        id: &str,
        signal: u8,
        time_nano: i64,
        now: Instant,
    ) -> Option<Instant> {
        let known = self.known.get_mut(id)?;
        if time_nano > 0 && time_nano < known.container.state.started.unix_nanos() {
            return None;
        }
        if signal != known.container.stop_signal && signal != SIGKILL {
            return None;
        }
        let until = now + Duration::from_secs(known.container.stop_seconds.into()) + SURVIVED_AFTER;
        known.leaving_until = Some(until);
        self.leaving.insert(id.to_owned());
        self.touch(id);
        Some(until)
    }

    /// Ids whose time to be asked about has come: failed inspects, and containers that outlived their stop
    /// signal, which count again from now on.
    pub fn due(&mut self, now: Instant) -> Vec<String> {
        let mut due: Vec<String> = self
            .owed
            .iter()
            .filter(|(_, owed)| owed.at <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let over = |known: &Known| known.leaving_until.is_some_and(|until| until <= now);
        let leaving = self.leaving.iter();
        let over = leaving.filter(|id| self.known.get(id).is_some_and(over));
        for id in over.cloned().collect::<Vec<_>>() {
            if let Some(known) = self.known.get_mut(&id) {
                known.leaving_until = None;
            }
            self.leaving.remove(&id);
            self.touch(&id);
            due.push(id);
        }
        due
    }

    /// When [`Inventory::due`] or a list has something new to say at the earliest.
    pub fn next_due(&self) -> Option<Instant> {
        let leaving = self.leaving.iter().filter_map(|id| self.known.get(id));
        let leaving = leaving.filter_map(|known| known.leaving_until);
        self.inspect_due().into_iter().chain(leaving).min()
    }

    /// When a container whose inspect failed is tried again, if there is one.
    pub fn inspect_due(&self) -> Option<Instant> {
        self.owed.values().map(|owed| owed.at).min()
    }

    /// When a list made at `asked` is worth repeating because it may have shown the dead, if it is.
    pub fn list_again(&self, asked: Instant) -> Option<Instant> {
        self.died
            .values()
            .map(|at| *at + DEAD_LISTED_MAX)
            .filter(|at| *at > asked)
            .max()
    }

    /// Whether this id is known; containers that lend their network to a known one are known too.
    pub fn concerns(&self, id: &str) -> bool {
        self.known.contains_key(id) || self.owed.contains_key(id)
    }

    /// Ids of containers that are not known but lend their network to one that is.
    pub fn lenders_wanted(&self) -> Vec<String> {
        if self.borrowers == 0 {
            return Vec::new();
        }
        let unknown = |id: &&str| !self.known.contains_key(id) && !self.owed.contains_key(*id);
        self.lenders()
            .into_iter()
            .filter(unknown)
            .map(str::to_owned)
            .collect()
    }

    /// HAProxy's own container; while it does not run, as it was when it was last seen.
    pub fn haproxy(&self) -> Option<&Container> {
        let here = self.haproxy_here().map(|known| &known.container);
        here.or(self.haproxy_away.as_deref())
    }

    /// What HAProxy's container is called, be it there or not.
    pub fn haproxy_name(&self) -> &str {
        &self.interest.haproxy
    }

    /// Nobody could tell whether HAProxy's container is there.
    pub fn haproxy_may_be_there(&mut self) {
        self.haproxy_there = Some(self.interest.haproxy.clone());
    }

    /// Whether this is HAProxy's container, as the last list said.
    pub fn is_haproxy(&self, id: &str) -> bool {
        self.haproxy_there.as_deref() == Some(id)
    }

    /// What HAProxy's container has mounted of the host, by source; `None` while it is or may be there and never
    /// could be looked at.
    pub fn haproxy_mounts(&self) -> Option<&[String]> {
        match &self.haproxy_mounts {
            None if self.haproxy_there.is_some() => None,
            mounts => Some(mounts.as_deref().unwrap_or_default()),
        }
    }

    /// The name of HAProxy's container, when it does not run as far as is known and its networks could make a
    /// difference: it may be there all the same, which no list says.
    pub fn haproxy_wanted(&self) -> Option<&str> {
        let undecided = |known: &Known| known.container.networks.len() > 1;
        let mut known = self.known.values();
        let wanted = self.haproxy_here().is_none() && known.any(undecided);
        wanted.then_some(self.haproxy_name())
    }

    fn haproxy_here(&self) -> Option<&Known> {
        let id = self.haproxies.first()?;
        self.known.get(id)
    }

    /// The container of this id.
    pub fn find(&self, id: &str) -> Option<&Container> {
        self.known.get(id).map(|known| &known.container)
    }

    /// Whether a container of this id is known, by its whole id or the first characters of it.
    pub fn has(&self, id: &str) -> bool {
        self.known
            .from(id)
            .next()
            .is_some_and(|known| known.container.id.starts_with(id))
    }

    /// Monitored containers, by id. HAProxy's own is none, unless its name holds the keyword and it
    /// names a service; with an empty keyword only containers that name a service are monitored.
    pub fn monitored(&self) -> impl Iterator<Item = &Known> {
        let known = self.known.values();
        known.filter(|known| known.monitored)
    }

    /// Ids of containers that lend their network to a known one.
    fn lenders(&self) -> Set<&str> {
        fn lender(known: &Known) -> Option<&str> {
            match &known.container.network_mode {
                NetworkMode::Container(id) => Some(id),
                _ => None,
            }
        }
        order::gathered(self.known.values().filter_map(lender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::docker::sample;

    const SECOND: Duration = Duration::from_secs(1);

    fn inventory() -> (Inventory, Instant) {
        let interest = Interest {
            keyword: Keyword::new("Asteroid"),
            haproxy: "haproxy".to_owned(),
        };
        (Inventory::new(interest), Instant::now())
    }

    fn row(id: &str, name: &str, digest: u64) -> Row {
        Row {
            id: id.to_owned(),
            name: name.to_owned(),
            digest,
        }
    }

    /// Lists these rows at `at`; returns the ids that must be inspected.
    fn listed(
        inventory: &mut Inventory,
        rows: &[(&str, &str, u64)],
        at: Instant,
        afresh: bool,
    ) -> Vec<String> {
        let rows = rows
            .iter()
            .map(|(id, name, digest)| row(id, name, *digest))
            .collect();
        let inspect = inventory.listed(rows, at, afresh);
        inspect.into_iter().map(|(id, _)| id).collect()
    }

    /// Inspects a container that runs since `second`.
    fn runs(inventory: &mut Inventory, id: &str, name: &str, second: u8, digest: Option<u64>) {
        let found = sample::inspected(id, name, second, &["SERVICE_NAME=web", "PREDICATE=x"]);
        inventory.inspected(id, Some(found), digest);
    }

    fn names(inventory: &Inventory) -> Vec<&str> {
        inventory
            .monitored()
            .map(|known| &*known.container.name)
            .collect()
    }

    const NANOS: i64 = 1_000_000_000;

    #[test]
    fn each_list_tells_anew_whether_haproxys_container_is_there() {
        let (mut inventory, now) = inventory();
        assert!(inventory.haproxy_mounts().is_some(), "none so far");
        inventory.haproxy_may_be_there();
        assert_eq!(inventory.haproxy_mounts(), None);
        let rows = [("h", "haproxy", 1)];
        listed(&mut inventory, &[], now, false);
        assert_eq!(inventory.haproxy_mounts(), Some(&[][..]));
        listed(&mut inventory, &rows, now, false);
        assert!(inventory.is_haproxy("h"));
        assert_eq!(inventory.haproxy_mounts(), None, "not looked at yet");
        listed(&mut inventory, &[], now, false);
        assert!(!inventory.is_haproxy("h"));
        assert!(inventory.haproxy_mounts().is_some());
    }

    #[test]
    fn only_names_that_concern_us_are_inspected() {
        let (mut inventory, now) = inventory();
        let rows = [
            ("a", "ASTEROID-1", 1),
            ("b", "other", 1),
            ("c", "haproxy", 1),
            ("d", "my-asteroid", 1),
        ];
        assert_eq!(listed(&mut inventory, &rows, now, true), ["a", "c", "d"]);
        runs(&mut inventory, "a", "ASTEROID-1", 1, Some(1));
        runs(&mut inventory, "c", "haproxy", 1, Some(1));
        assert_eq!(names(&inventory), ["ASTEROID-1"]);
        assert_eq!(
            inventory.haproxy().map(|container| &*container.id),
            Some("c")
        );
    }

    #[test]
    fn haproxys_container_is_remembered_while_it_does_not_run() {
        let name = |inventory: &Inventory| inventory.haproxy().map(|one| one.id.clone());
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "c", "haproxy", 1, Some(1));
        inventory.gone("c", 2 * NANOS, now);
        assert_eq!(name(&inventory).as_deref(), Some("c"), "it died");
        runs(&mut inventory, "d", "haproxy", 3, Some(1));
        assert_eq!(name(&inventory).as_deref(), Some("d"), "another one");
        listed(&mut inventory, &[], now, false);
        assert_eq!(name(&inventory).as_deref(), Some("d"), "not listed");
        inventory.inspected("haproxy", None, None);
        assert_eq!(name(&inventory), None, "removed");
        let mut stopped = sample::inspected("e", "haproxy", 1, &[]);
        stopped.container.state.running = false;
        inventory.inspected("haproxy", Some(stopped), None);
        assert_eq!(name(&inventory).as_deref(), Some("e"), "found stopped");
    }

    #[test]
    fn a_haproxy_that_does_not_run_is_asked_for_only_where_its_networks_decide() {
        let (mut inventory, _) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        assert_eq!(
            inventory.haproxy_wanted(),
            None,
            "one network is no question"
        );
        let mut several = sample::inspected("b", "asteroid-b", 1, &[]);
        let networks = &mut several.container.networks;
        *networks = [&**networks, &**networks].concat().into();
        inventory.inspected("b", Some(several), None);
        assert_eq!(inventory.haproxy_wanted(), Some("haproxy"));
        runs(&mut inventory, "c", "haproxy", 1, Some(1));
        assert_eq!(inventory.haproxy_wanted(), None, "it runs");
    }

    #[test]
    fn a_list_asks_again_only_about_what_differs() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        runs(&mut inventory, "b", "asteroid-b", 1, Some(1));
        let rows = [("a", "asteroid-a", 1), ("b", "asteroid-b", 2)];
        assert_eq!(listed(&mut inventory, &rows, now, false), ["b"]);
        assert_eq!(
            listed(&mut inventory, &rows, now, true),
            ["a", "b"],
            "afresh"
        );
        assert_eq!(listed(&mut inventory, &rows[..1], now, false), [""; 0]);
        assert_eq!(
            names(&inventory),
            ["asteroid-a"],
            "what is not listed is not there"
        );
    }

    #[test]
    fn a_list_does_not_bring_the_dead_back() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        assert!(inventory.gone("a", 2 * NANOS, now));
        assert_eq!(names(&inventory), [""; 0]);
        let stale = [("a", "asteroid-a", 1)];
        assert_eq!(
            listed(&mut inventory, &stale, now + SECOND / 10, true),
            [""; 0]
        );
        assert_eq!(inventory.list_again(now + SECOND / 10), Some(now + SECOND));
        assert_eq!(
            listed(&mut inventory, &stale, now + SECOND, false),
            ["a"],
            "a second later it is asked about"
        );
        assert_eq!(inventory.list_again(now + SECOND), None);
    }

    #[test]
    fn a_start_brings_the_dead_back_and_an_old_die_does_not_take_it_away() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, None);
        inventory.gone("a", 2 * NANOS, now);
        runs(&mut inventory, "a", "asteroid-a", 3, None);
        assert_eq!(names(&inventory), ["asteroid-a"]);
        assert!(
            !inventory.gone("a", 2 * NANOS, now),
            "that was its former life"
        );
        assert_eq!(names(&inventory), ["asteroid-a"]);
        inventory.inspected("a", None, None);
        assert_eq!(names(&inventory), [""; 0], "404");
    }

    #[test]
    fn an_inspect_that_fails_leaves_what_is_known_and_is_owed() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        let waits: Vec<u64> = (0..8)
            .map(|_| (inventory.inspect_failed("a", now) - now).as_secs())
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(names(&inventory), ["asteroid-a"]);
        assert_eq!(inventory.due(now), [""; 0]);
        assert_eq!(inventory.next_due(), Some(now + 60 * SECOND));
        assert_eq!(inventory.due(now + 60 * SECOND), ["a"]);
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        assert_eq!(inventory.next_due(), None);
    }

    #[test]
    fn a_late_inspect_is_looked_for_soon_and_told_once() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        let mut told = Vec::new();
        let waits: Vec<u128> = (0..6)
            .map(|_| {
                told.push(inventory.inspect_late("a", now));
                (inventory.next_due().expect("it is owed") - now).as_millis()
            })
            .collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(told, [true, false, false, false, false, false]);
        assert_eq!(names(&inventory), ["asteroid-a"], "what was known stands");
        // One that is asked for again and fails then is still one that others go before.
        inventory.inspect_failed("a", now);
        assert!(inventory.was_late("a"));
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        assert!(!inventory.was_late("a") && inventory.next_due().is_none());
        inventory.inspect_failed("a", now);
        assert!(!inventory.was_late("a"), "a failure alone is not late");
    }

    #[test]
    fn what_a_health_check_came_to_is_asked_for_a_moment_later() {
        let (mut inventory, now) = inventory();
        inventory.probed("a", now);
        assert_eq!(inventory.next_due(), None, "nobody of ours");
        runs(&mut inventory, "a", "asteroid-a", 1, Some(1));
        inventory.probed("a", now);
        inventory.probed("a", now + SECOND / 4);
        assert_eq!(inventory.next_due(), Some(now + SECOND / 2));
        assert_eq!(inventory.due(now + SECOND / 2), ["a"]);
    }

    #[test]
    fn only_its_stop_signal_takes_a_container_out_and_a_survivor_comes_back() {
        let (mut inventory, now) = inventory();
        runs(&mut inventory, "a", "asteroid-a", 1, None);
        for other in [1, 10, 12] {
            assert_eq!(inventory.signalled("a", other, 0, now), None);
        }
        let until = inventory.signalled("a", 15, 0, now).expect("it is leaving");
        assert_eq!(until, now + 12 * SECOND);
        let leaving = |inventory: &Inventory| {
            inventory
                .monitored()
                .any(|known| known.leaving_until.is_some())
        };
        runs(&mut inventory, "a", "asteroid-a", 1, None);
        assert!(
            leaving(&inventory),
            "an inspect in the same life changes nothing"
        );
        assert_eq!(inventory.due(until), ["a"], "it outlived its stop signal");
        assert!(!leaving(&inventory));
        inventory.signalled("a", 9, 0, now);
        runs(&mut inventory, "a", "asteroid-a", 2, None);
        assert!(!leaving(&inventory), "a new life");
        let started = inventory.find("a").expect("known").state.started;
        let before = started.unix_nanos() - 1;
        assert_eq!(
            inventory.signalled("a", 9, before, now),
            None,
            "a former life"
        );
        assert!(!leaving(&inventory));
        assert!(inventory.signalled("a", 9, before + 1, now).is_some());
    }

    #[test]
    fn with_an_empty_keyword_only_containers_that_name_a_service_are_monitored() {
        let interest = Interest {
            keyword: Keyword::new(""),
            haproxy: "haproxy".to_owned(),
        };
        let mut inventory = Inventory::new(interest);
        runs(&mut inventory, "a", "anything", 1, None);
        inventory.inspected("b", Some(sample::inspected("b", "database", 1, &[])), None);
        inventory.inspected("c", Some(sample::inspected("c", "haproxy", 1, &[])), None);
        assert_eq!(names(&inventory), ["anything"]);
    }

    #[test]
    fn who_lends_its_network_is_wanted_and_kept() {
        let (mut inventory, now) = inventory();
        let mut borrower = sample::inspected("a", "asteroid-a", 1, &[]);
        borrower.container.network_mode = NetworkMode::Container("lender".into());
        inventory.inspected("a", Some(borrower), Some(1));
        assert_eq!(inventory.lenders_wanted(), ["lender"]);
        runs(&mut inventory, "lender", "other", 1, Some(1));
        assert_eq!(inventory.lenders_wanted(), [""; 0]);
        let rows = [("a", "asteroid-a", 1), ("lender", "other", 1)];
        assert_eq!(listed(&mut inventory, &rows, now, false), [""; 0]);
        assert!(inventory.find("lender").is_some());
    }

    fn touched(containers: &[&str], services: &[&str]) -> Touched {
        let set = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Touched::These {
            containers: set(containers),
            services: set(services),
        }
    }

    fn of(inventory: &Inventory, service: &str) -> Option<Vec<String>> {
        let members = inventory.of_service(service)?;
        Some(
            members
                .iter()
                .map(|one| one.container.id.to_string())
                .collect(),
        )
    }

    /// A container of a service, with an id of this beginning.
    fn member(id: &str, service: &str) -> Inspected {
        let (name, predicate) = (format!("SERVICE_NAME={service}"), "PREDICATE=example.com");
        let whole = format!("{id:0<64}");
        sample::inspected(&whole, &format!("asteroid-{id}"), 1, &[&name, predicate])
    }

    #[test]
    fn what_is_as_it_was_stays_where_it_is() {
        let (mut inventory, now) = inventory();
        let found = member("a", "web");
        let id = found.container.id.to_string();
        let at = |inventory: &Inventory| {
            let known = inventory.find(&id).expect("it is known");
            known.id.as_ptr()
        };
        inventory.inspected(&id, Some(found.clone()), Some(1));
        let first = at(&inventory);
        inventory.inspected(&id, Some(found.clone()), Some(2));
        assert_eq!(at(&inventory), first);
        assert_eq!(
            inventory.known.get(&id).and_then(|known| known.digest),
            Some(2)
        );
        // A stop signal that it has survived holds until the next life.
        inventory.signalled(&id, 15, 0, now);
        inventory.inspected(&id, Some(found.clone()), None);
        let mut again = found;
        again.container.state.started.seconds += 1;
        inventory.inspected(&id, Some(again.clone()), None);
        assert_eq!(inventory.find(&id), Some(&again.container));
        assert!(
            inventory
                .monitored()
                .all(|known| known.leaving_until.is_none())
        );
    }

    #[test]
    fn what_was_touched_is_told_once_and_nothing_else() {
        let (mut inventory, now) = inventory();
        assert_eq!(
            inventory.take_touched(),
            Touched::All,
            "nothing is known yet"
        );
        assert_eq!(inventory.take_touched(), touched(&[], &[]));
        let take_in = |inventory: &mut Inventory, found: Inspected| {
            let id = found.container.id.to_string();
            inventory.inspected(&id, Some(found), None);
            id
        };
        let a = take_in(&mut inventory, member("a", "web"));
        let b = take_in(&mut inventory, member("b", "web"));
        let c = take_in(&mut inventory, member("c", "api"));
        assert_eq!(
            inventory.take_touched(),
            touched(&[&a, &b, &c], &["api", "web"])
        );
        assert_eq!(of(&inventory, "web"), Some(vec![a.clone(), b.clone()]));
        assert_eq!(of(&inventory, "api"), Some(vec![c.clone()]));
        assert_eq!(of(&inventory, "other"), Some(vec![]));

        assert!(inventory.signalled(&b, 15, 0, now).is_some());
        assert_eq!(inventory.take_touched(), touched(&[&b], &["web"]));
        let later = inventory.next_due().expect("it may survive");
        assert_eq!(inventory.due(later), [b.as_str()]);
        assert_eq!(inventory.take_touched(), touched(&[&b], &["web"]));
        assert_eq!(inventory.next_due(), None);

        assert!(inventory.gone(&b, i64::MAX, now));
        assert!(!inventory.gone(&b, i64::MAX, now));
        inventory.inspected(&c, None, None);
        assert_eq!(
            inventory.take_touched(),
            touched(&[&b, &c], &["api", "web"])
        );
        assert_eq!(of(&inventory, "web"), Some(vec![a.clone()]));
        assert_eq!(of(&inventory, "api"), Some(vec![]));

        // The same first characters: their servers are named otherwise.
        let twin = format!("{a:.12}{}", "f".repeat(52));
        let mut found = member("a", "web");
        found.container.id = twin.as_str().into();
        take_in(&mut inventory, found);
        assert_eq!(of(&inventory, "web"), None);
        assert!(inventory.gone(&twin, i64::MAX, now));
        assert_eq!(of(&inventory, "web"), Some(vec![a.clone()]));
        inventory.take_touched();

        for more_than_one in [
            // One that names no service: only its verdict counts.
            sample::inspected("x", "asteroid-x", 1, &[]),
            sample::inspected("h", "haproxy", 1, &[]),
            Inspected {
                container: Container {
                    network_mode: NetworkMode::Container(a.as_str().into()),
                    ..member("d", "web").container
                },
                ..member("d", "web")
            },
        ] {
            take_in(&mut inventory, more_than_one);
            assert_eq!(inventory.take_touched(), Touched::All);
        }
        take_in(&mut inventory, member("a", "web"));
        assert_eq!(
            inventory.take_touched(),
            Touched::All,
            "it lends its network"
        );
        listed(&mut inventory, &[], now, false);
        assert_eq!(inventory.take_touched(), Touched::All);
        assert_eq!(of(&inventory, "web"), Some(vec![]));
    }
}
