//! One pass, from Docker to HAProxy: look, ask, apply. `sync` runs one, `watch` one on each wake.
//!
//! It joins modules that do not know each other: Docker's containers become services, services a payload,
//! the payload a config, and HAProxy gets the config. It keeps what is known between two passes. Nothing
//! is applied before everything was looked at once: knowing no containers is not the same as there being none.

mod before;
mod said;
mod touched;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::address::weave::{self, Elsewhere, View};
use crate::address::{self, Address, Context};
use crate::config;
use crate::description::Reading;
use crate::docker::container::{Container, Inspected};
use crate::docker::{Answer, Docker};
use crate::error::{Error, Kind, Result};
use crate::flapping::Flapping;
use crate::guard::Guard;
use crate::haproxy::{self, Haproxy};
use crate::inbox::News;
use crate::inventory::{Interest, Inventory, Known, LENDERS_DEEP_MAX};
use crate::lock;
use crate::order;
use crate::overlay::Overlay;
use crate::ready::{Facts, Ready};
use crate::registry::{Payload, Registry, Running, Standing};
use crate::report::history::{self, Entry, History, Hold};
use crate::report::record::{Answers, Counts, Ended, Failure, Record, Stage};
use crate::room;
use crate::roster::Roster;
use crate::service::{self, Monitored, Selection, Told};
use crate::sorted::Map;
use crate::survey::{self, Survey};
use crate::transport;
use before::Before;
use said::Said;

/// How long a pass waits for another one, of a `sync` beside a `watch`, to finish.
const PASS_LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How long a pass waits for inspects that are not answered at once, all of them together; half a millisecond
/// is usual. What is late then is looked for in later passes.
struct Patience;

impl Patience {
    /// When nothing is known yet: a container that is left out now is one that HAProxy loses.
    const AT_FIRST: Duration = Duration::from_secs(5);
    /// When everything is looked at and what is known stands.
    const LOOK: Duration = Duration::from_secs(1);
    /// When an event is acted on: somebody else's death may wait behind it.
    const EVENT: Duration = Duration::from_millis(250);
    /// For each that is asked when the above is used up, or that was late before.
    const LEAST: Duration = Duration::from_millis(50);
    /// Most late answers of one look; who was not asked then is asked first in the next one.
    const LATE_MAX: u32 = 16;
}

/// Longest wait for one port that is probed: the kernel of a container on this host answers within one, and who is
/// late is probed again soon.
const PROBE_LIMIT: Duration = Duration::from_millis(10);
/// Longest time that one pass spends on ports that do not even refuse; somebody's death may wait behind it.
const PROBES_LIMIT: Duration = Duration::from_millis(30);
/// Longest look of a command that only tells: 10,000 containers take some 5 s.
const SURVEY_LIMIT: Duration = Duration::from_secs(20);
/// Pause before a second look at what has vanished: a daemon that starts may know a part of its containers.
const SECOND_LOOK_AFTER: Duration = Duration::from_millis(500);

/// How much of Docker a pass looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Look {
    /// What events named, nothing else.
    Changes,
    /// The list, and what differs from what is known.
    List,
    /// The list, and every container that concerns us.
    Afresh,
}

/// What a pass joins.
pub struct Parts {
    /// Docker's client.
    pub docker: Docker,
    /// Which containers concern us.
    pub interest: Interest,
    /// `--network`.
    pub network: Option<String>,
    /// This host's address, for containers in its network, where HAProxy can reach it.
    pub host: Option<IpAddr>,
    /// Weave's side; `None` with `--weave never`.
    pub overlay: Option<Overlay>,
    /// How long a pass waits for addresses that Weave's router does not know yet: zero in `watch`, which
    /// hears of them later.
    pub address_patience: Duration,
    /// `--ready`: how long a new container may be held out until its port accepts a connection.
    pub ready: Duration,
    /// The registry, and the table asked for.
    pub registry: Box<dyn Registry>,
    /// Table of the registry.
    pub table: String,
    /// HAProxy.
    pub haproxy: Haproxy,
    /// Folder with the pass lock.
    pub state_dir: PathBuf,
    /// Whether somebody asked us to end: what would only wait is not waited for then.
    pub stopping: Box<dyn Fn() -> bool + Send>,
}

/// What a pass holds while it gives HAProxy a config: who has it can end the program without breaking that off.
pub type Changing = Arc<Mutex<()>>;

/// Passes, and what is known between them.
pub struct Syncer {
    docker: Docker,
    inventory: Inventory,
    network: Option<String>,
    host: Option<IpAddr>,
    overlay: Option<Overlay>,
    address_patience: Duration,
    registry: Box<dyn Registry>,
    table: String,
    haproxy: Haproxy,
    state_dir: PathBuf,
    stopping: Box<dyn Fn() -> bool + Send>,
    changing: Changing,
    /// The look that is still owed; nothing is applied before it succeeded.
    owed: Look,
    list_again: Option<Instant>,
    selection: Selection,
    /// What the last pass asked the registry for and HAProxy has, if the next one may go by what was touched.
    roster: Option<Roster>,
    /// When everything is sorted again, after passes that went by what was touched.
    sort_again: Option<Instant>,
    guard: Guard,
    flapping: Flapping,
    ready: Ready,
    /// Read when a container first waits for Weave's router.
    before: Option<Before>,
    said: Said,
    history: History,
    hold_said: bool,
    /// SIGHUP has asked to end a rollback's hold.
    resume: bool,
    /// The registry is to be asked again, be it the same, until HAProxy has what it answers: somebody wants it, or
    /// everything is to be sorted again.
    ask: bool,
    record: Record,
}

impl Syncer {
    /// Knows nothing yet; the first pass looks at everything.
    pub fn new(parts: Parts) -> Self {
        Syncer {
            docker: parts.docker,
            inventory: Inventory::new(parts.interest),
            network: parts.network,
            host: parts.host,
            overlay: parts.overlay,
            address_patience: parts.address_patience,
            registry: parts.registry,
            table: parts.table,
            haproxy: parts.haproxy,
            history: History::new(&parts.state_dir),
            state_dir: parts.state_dir,
            stopping: parts.stopping,
            changing: Changing::default(),
            owed: Look::Afresh,
            list_again: None,
            selection: Selection::default(),
            roster: None,
            sort_again: None,
            guard: Guard::default(),
            flapping: Flapping::default(),
            ready: Ready::new(parts.ready),
            before: None,
            said: Said::default(),
            hold_said: false,
            resume: false,
            ask: false,
            record: Record::begin("nothing"),
        }
    }

    /// Speaks the API version that another connection to this daemon negotiated.
    pub fn use_api(&mut self, api: &str) {
        self.docker.use_api(api);
    }

    /// What the last pass made of the containers.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// What the last pass came to.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Fingerprint of the config that HAProxy last took.
    pub fn taken(&self) -> Option<String> {
        self.haproxy.taken()
    }

    /// When something must be looked at again without any news.
    pub fn next_due(&self) -> Option<Instant> {
        let looks = self.inventory.next_due().into_iter();
        let looks = looks
            .chain(self.list_again)
            .chain(self.flapping.next_due())
            .chain(self.ready.next_due());
        if self.record.ended == Ended::Held {
            // Nothing is asked or applied while a rollback holds, so what is due there stays due.
            return looks.min();
        }
        looks
            .chain(self.haproxy.next_due())
            .chain(self.registry_due())
            // A look that is owed has its own time.
            .chain(self.sort_again.filter(|_| self.owed == Look::Changes))
            .min()
    }

    /// When a registry whose answer was a makeshift is worth asking again.
    fn registry_due(&self) -> Option<Instant> {
        match self.registry.standing() {
            Standing::BuiltIn { next_try, .. } => Some(next_try),
            Standing::Fresh | Standing::Held { .. } => None,
        }
    }

    /// When a container whose inspect failed is tried again, if there is one.
    pub fn inspect_due(&self) -> Option<Instant> {
        self.inventory.inspect_due()
    }

    /// When a container that is held until its port accepts a connection is probed again, if there is one.
    pub fn probe_due(&self) -> Option<Instant> {
        self.ready.next_due()
    }

    /// Held by a pass while it gives HAProxy a config. At all other times a pass can be dropped.
    pub fn changing(&self) -> Changing {
        Arc::clone(&self.changing)
    }

    /// Weave's side, if it is looked at.
    pub fn overlay(&mut self) -> Option<&mut Overlay> {
        self.overlay.as_mut()
    }

    /// Whether a look at everything failed and is owed.
    pub fn look_owed(&self) -> bool {
        self.owed != Look::Changes
    }

    /// One pass, made for this cause. [`Syncer::record`] tells all about it.
    ///
    /// # Errors
    /// When Docker, the registry or HAProxy fails. The running config stands then.
    pub fn pass(&mut self, news: &News, look: Look, cause: &str) -> Result<Ended> {
        let mut record = Record::begin(cause);
        let ended = self.steps(news, look, &mut record);
        let refused = self.haproxy.held().all().iter();
        record.refused = refused
            .map(|(service, held)| (service.clone(), held.words.clone()))
            .collect();
        record.end(ended.as_ref().copied());
        self.record = record;
        ended
    }

    fn steps(&mut self, news: &News, look: Look, record: &mut Record) -> Result<Ended> {
        self.owed = self.owed.max(look);
        self.resume |= news.resume;
        // Whatever becomes of this pass, it is not due at once again.
        let now = Instant::now();
        self.ask |= news.asked || self.sort_again.take_if(|at| *at <= now).is_some();
        let _lock = self.lock().inspect_err(|_| {
            // The news was taken out of the inbox and is not told again.
            if !news.changes.is_empty() {
                self.owed = Look::Afresh;
            }
        })?;
        let started = Instant::now();
        record.stage = Stage::Look;
        self.haproxy.tend(started);
        self.look(news)?;
        self.want_addresses(look, started);
        self.probe_ports();
        let held = self.held()?;
        // It stands again when this pass has gone well.
        let mut roster = self.roster.take();
        let old = roster.take_if(|_| look != Look::Changes);
        let touched = self.inventory.take_touched();
        if let Some(roster) = roster.filter(|_| !held && !self.ask)
            && let Some(change) = self.change(roster, touched)
        {
            record.look = Some(started.elapsed());
            return self.amend(change, started, record);
        }
        let room = self.make_room(old);
        let mut payload = self.payload();
        if held {
            self.said.say(&self.selection);
            record.look = Some(started.elapsed());
            record.counts = Some(self.counts(payload.candidates.len()));
            return Ok(Ended::Held);
        }
        if self.guard.is_new() {
            self.guard
                .has(self.haproxy.servers().iter().map(String::as_str));
        }
        if let Some(missing) = self.guard.objection(&payload, &self.selection) {
            self.look_twice(&missing)?;
            payload = self.payload();
        }
        self.said.say(&self.selection);
        record.look = Some(started.elapsed());
        record.counts = Some(self.counts(payload.candidates.len()));

        record.stage = Stage::Ask;
        let looked = Instant::now();
        let digest = payload.digest();
        // HAProxy may have what another registry answered to the same.
        let asked = |registry: &dyn Registry| digest.clone() + &registry.origin();
        // Cosmos writes to its table for each question, so only somebody who asks for it asks the same again.
        let asked_for = self.ask
            || (look != Look::Changes && !self.registry.is_remote())
            || self.registry_due().is_some_and(|at| at <= started);
        if !asked_for && self.haproxy.holds(&asked(&*self.registry)) {
            log::debug!("nothing to do: HAProxy runs the config for these services already");
            self.will_have(&payload);
            self.guard.took();
            record.answers = Some(match self.answers() {
                // What it failed to answer to is over: what runs now it has answered to.
                Answers::Held => Answers::Fresh,
                answers => answers,
            });
            return Ok(Ended::Unchanged);
        }
        let text = self.registry.config(&payload)?;
        let request = asked(&*self.registry);
        self.sort_again = None;
        record.ask = Some(looked.elapsed());
        // What is asked is as large as what is known, and the answer is to be read against another one: all that is
        // needed of it is taken out of it first. What was made first goes first: the allocator keeps some of the
        // first blocks that it is given back, and nothing that lies before those can go back to the kernel.
        self.will_have(&payload);
        let room = room.filter(|_| self.goes_by_touched());
        let roster = room.and_then(|room| room.filled(&payload, &self.selection));
        drop(payload.candidates);
        drop(payload.running);
        let mounts = self.inventory.haproxy_mounts();
        let (haproxy, changing) = (&mut self.haproxy, &self.changing);
        let ended = apply(haproxy, changing, mounts, &text, &request, None, record);
        drop(text);
        record.answers = Some(self.answers());
        match ended {
            Ok(_) => self.guard.took(),
            Err(_) => self.guard.did_not_take(),
        }
        let ended = ended?;
        self.ask = false;
        self.roster = roster;
        // The history reads the whole file once more.
        self.keep(ended, record);
        Ok(ended)
    }

    /// Keeps a config that HAProxy took in the history.
    fn keep(&self, ended: Ended, record: &Record) {
        if ended == Ended::Applied
            && let Some(live) = self.haproxy.on_disk()
        {
            self.history.keep(&live, &record.cause, &record.changes);
        }
    }

    /// Gives HAProxy an earlier config and holds it: passes change nothing until the hold ends.
    ///
    /// # Errors
    /// When HAProxy does not take it, or has its configs from another file. Nothing new is held then.
    pub fn roll_back(&mut self, wanted: Option<u32>) -> Result<(Entry, Ended)> {
        let _lock = self.lock()?;
        self.haproxy.last_took_this_file()?;
        let entries = self.history.entries()?;
        let earlier = self.history.hold()?;
        let present = self.haproxy.taken();
        let entry = history::choose(&entries, wanted, present.as_deref(), earlier.as_ref())?;
        let text = self.history.text(entry)?;
        let config = config::split_fingerprint(&text).0;
        self.look_at_haproxy();
        // Held before it is live: a watch that comes in between must not take it back.
        self.history.set_hold(&Hold::of(entry))?;
        let mut record = Record::begin("rollback");
        let request = format!("rollback to {}", entry.fingerprint);
        let mounts = self.inventory.haproxy_mounts();
        let ended = apply(
            &mut self.haproxy,
            &self.changing,
            mounts,
            config,
            &request,
            None,
            &mut record,
        );
        match ended {
            Ok(ended) => {
                // A service that HAProxy refuses today may be left out of it.
                if let Some(live) = self.haproxy.on_disk()
                    && let Some(fingerprint) = config::split_fingerprint(&live).1
                    && fingerprint != entry.fingerprint
                {
                    self.history.set_hold(&Hold {
                        fingerprint: fingerprint.to_owned(),
                        ..Hold::of(entry)
                    })?;
                }
                Ok((entry.clone(), ended))
            }
            Err(error) => {
                match &earlier {
                    Some(hold) => self.history.set_hold(hold)?,
                    None => drop(self.history.end_hold()?),
                }
                Err(error)
            }
        }
    }

    /// Learns what HAProxy's container has mounted, without a look at any other. A Docker that is away keeps nobody
    /// from going back to an earlier config.
    fn look_at_haproxy(&mut self) {
        let name = self.inventory.haproxy_name().to_owned();
        match self.docker.container_soon(&name, Patience::AT_FIRST) {
            Ok(Answer::Found(found)) => self.inventory.inspected(&name, Some(*found), None),
            Ok(Answer::Gone) => {}
            Ok(Answer::Late) => self.inventory.haproxy_may_be_there(),
            Err(error) => {
                log::debug!("{error}");
                self.inventory.haproxy_may_be_there();
            }
        }
    }

    /// HAProxy is to have what this payload asks for.
    fn will_have(&mut self, payload: &Payload) {
        let known = self.inventory.monitored();
        self.guard
            .will_have(payload, known.map(|known| &*known.container.id));
    }

    fn lock(&self) -> Result<lock::Lock> {
        let (dir, stopping) = (&self.state_dir, &*self.stopping);
        let lock = lock::take_unless(dir, lock::PASS, PASS_LOCK_PATIENCE, stopping);
        lock.map_err(|error| {
            if error.is(Kind::Denied) {
                error.hint("it is in the middle of a pass that does not end; see what it waits for")
            } else {
                error
            }
        })
    }

    /// Whether a rollback holds the config. SIGHUP ends it.
    ///
    /// A pass that cannot tell fails: to take it for a hold would leave HAProxy behind without an alarm, and to take
    /// it for none would undo what a person chose.
    fn held(&mut self) -> Result<bool> {
        let found = match self.history.hold() {
            Err(error) if !self.resume => return Err(error),
            found => found,
        };
        let resume = std::mem::take(&mut self.resume);
        let hold = match found {
            Ok(None) => {
                self.hold_said = false;
                return Ok(false);
            }
            Ok(Some(hold)) => hold,
            // Who asks for the end of a hold need not know what it holds.
            Err(_) => return self.end_hold(),
        };
        let on_disk = self.haproxy.on_disk();
        let on_disk = on_disk
            .as_deref()
            .and_then(|text| config::split_fingerprint(text).1);
        let taken = self.haproxy.taken();
        let is_there = [on_disk, taken.as_deref()].contains(&Some(hold.fingerprint.as_str()));
        if hold.since.is_some() && !is_there {
            // The hold is written first and the config second; no rollback is under way while we have the lock.
            self.history.end_hold()?;
            log::warn!(
                "a rollback was cut short before HAProxy got its config: the containers count again"
            );
            return Ok(false);
        }
        if resume {
            return self.end_hold();
        }
        if !std::mem::replace(&mut self.hold_said, true) {
            log::warn!("{}", history::hold_in_words(&hold));
        }
        Ok(true)
    }

    /// The answer of [`Self::held`] once somebody asked for the end of the hold.
    fn end_hold(&mut self) -> Result<bool> {
        self.history.end_hold()?;
        log::info!("the rollback is over: the containers count again");
        Ok(false)
    }

    /// Looks at everything once and sorts it into services, without lock, and without changing anything.
    ///
    /// # Errors
    /// When Docker cannot be asked. A container that cannot be inspected is in the survey.
    pub fn survey(&mut self) -> Result<Survey> {
        let now = Instant::now();
        let running = self.docker.containers()?;
        let survey = survey::take(&mut self.docker, &mut self.inventory, running, SURVEY_LIMIT)?;
        self.want_addresses(Look::Afresh, now);
        self.selection = self.select(Told::All, &|_| None);
        Ok(survey)
    }

    /// Docker's account of one container by name or id, also of a stopped one.
    ///
    /// # Errors
    /// When Docker cannot be asked; `None` when there is no such container.
    pub fn inspect_one(&mut self, name: &str) -> Result<Option<Inspected>> {
        self.docker.container(name)
    }

    /// What a pass would do now, after a [`Syncer::survey`]. The registry is asked.
    ///
    /// # Errors
    /// When the registry fails.
    pub fn plan(&mut self) -> Result<haproxy::Plan> {
        let payload = self.payload();
        let text = self.registry.config(&payload)?;
        Ok(self.haproxy.plan(&text))
    }

    /// What stays of a pass over everything has its place before what goes again, and keeps it from pass to pass.
    fn make_room(&mut self, old: Option<Roster>) -> Option<Roster> {
        let (mut services, mut names) = (0, 0);
        for known in self.inventory.monitored() {
            if let Reading::Service(description) = &known.reading {
                services += 1;
                names += description.service.len();
            }
        }
        self.guard.make_room(services);
        self.registry.make_room(services);
        let roster = self.goes_by_touched();
        roster.then(|| Roster::empty(old, &self.table, services, names))
    }

    /// Sorts what is known into services; what a registry is asked for them.
    fn payload(&mut self) -> Payload {
        self.flapping.let_in(Instant::now());
        self.selection = self.select(Told::Trouble, &|id| self.ready.held(id));
        let unseen = self.unseen();
        if !unseen.is_empty() {
            self.bring_back(&unseen);
        }
        let mut others = self.elsewhere();
        others.extend(unseen);
        self.selection.payload(&self.table, others)
    }

    fn answers(&self) -> Answers {
        match self.registry.standing() {
            Standing::Fresh => Answers::Fresh,
            Standing::Held { .. } => Answers::Held,
            Standing::BuiltIn { .. } => Answers::BuiltIn,
        }
    }

    fn counts(&self, services: usize) -> Counts {
        let (routed, pending, left_out) = self.selection.counts();
        Counts {
            routed,
            pending,
            left_out,
            services,
        }
    }

    /// Probes new containers that would be all that their service has. Those that are not ready yet are come
    /// back to; nobody else waits for them.
    fn probe_ports(&mut self) {
        if self.ready.is_off() {
            return;
        }
        let haproxy = &self.haproxy;
        self.ready.begin(|| haproxy.servers());
        let all = self.select(Told::All, &|_| None);
        let now = Instant::now();
        let inventory = &self.inventory;
        let facts = |id: &str| {
            inventory.find(id).map(|container| Facts {
                started: container.state.started,
                checked: container.state.health.is_some(),
            })
        };
        let probe = |address| {
            (now.elapsed() < PROBES_LIMIT).then(|| transport::accepts(address, PROBE_LIMIT))
        };
        for sentence in self.ready.consider(&all, facts, now, probe) {
            log::warn!("{sentence}");
        }
    }

    /// Looks again at everything, and at each of these containers, before they are believed to be gone.
    fn look_twice(&mut self, missing: &[String]) -> Result<()> {
        log::warn!(
            "{} of {} servers would go, and Docker has not said that their containers stopped; looking again",
            missing.len(),
            self.guard.size()
        );
        std::thread::sleep(SECOND_LOOK_AFTER);
        self.owed = Look::Afresh;
        self.look(&News::default())?;
        // One that hangs, or that Docker cannot tell of, is there, and keeps nobody else from being served.
        let unlisted = missing.iter().filter(|id| !self.inventory.has(id));
        let unlisted = order::gathered(unlisted.map(|id| (id.clone(), None)));
        let mut patience = Patience::LOOK;
        self.inspect(unlisted, &mut patience)?;
        let there = |id: &&String| self.inventory.has(id) || self.inventory.concerns(id);
        let found = missing.iter().filter(there).count();
        log::warn!(
            "{found} of the {} are still there; the second look counts",
            missing.len()
        );
        Ok(())
    }

    /// Brings the inventory up to date.
    fn look(&mut self, news: &News) -> Result<()> {
        let now = Instant::now();
        let mut inspect = Vec::new();
        for (id, change) in &news.changes {
            self.guard.heard_of(id);
            // One that still counts after its die died in a former life, or the daemon's clock was set back since it
            // started: an inspect tells.
            let mut look = change.look;
            if let Some(at) = change.gone
                && !self.inventory.gone(id, at, now)
            {
                look |= self.inventory.find(id).is_some();
            }
            if let (Some(overlay), true) = (
                &mut self.overlay,
                change.gone.is_some() || change.started.is_some(),
            ) {
                overlay.died(id);
            }
            if let Some((signal, at)) = change.signal {
                self.inventory.signalled(id, signal, at, now);
            }
            if look || (change.network && self.inventory.concerns(id)) {
                // An answer that is still on its way may be older than this event.
                self.docker.forget(id);
                inspect.push((id.clone(), None));
            }
        }
        inspect.extend(self.inventory.due(now).into_iter().map(|id| (id, None)));
        let mut inspect: Map<String, Option<u64>> = order::gathered(inspect);
        if self.list_again.is_some_and(|at| at <= now) {
            self.owed = self.owed.max(Look::List);
        }
        let look = self.owed;
        let mut patience = match look {
            Look::Changes => Patience::EVENT,
            _ if self.inventory.is_empty() => Patience::AT_FIRST,
            _ => Patience::LOOK,
        };
        if look != Look::Changes {
            // At boot the network may come later than we, and a lease may end.
            self.host = transport::host_address_now(self.host);
            let rows = self
                .docker
                .containers()
                .inspect_err(|_| self.owe(&inspect, now))?;
            let listed = self.inventory.listed(rows, now, look == Look::Afresh);
            for (id, _) in &listed {
                self.docker.forget(id);
            }
            inspect.extend(listed);
            self.list_again = self.inventory.list_again(now);
        }
        self.inspect(inspect, &mut patience)?;
        for _ in 0..LENDERS_DEEP_MAX {
            let lenders = self.inventory.lenders_wanted();
            if lenders.is_empty() {
                break;
            }
            let lenders = order::gathered(lenders.into_iter().map(|id| (id, None)));
            self.inspect(lenders, &mut patience)?;
        }
        if look != Look::Changes
            && self.network.is_none()
            && let Some(name) = self.inventory.haproxy_wanted().map(str::to_owned)
        {
            self.inspect(order::gathered([(name, None)]), &mut patience)?;
        }
        for (id, change) in &news.changes {
            if change.probed {
                self.inventory.probed(id, now);
            }
            // Again, for a container that started and was told to stop before this look: it is known only now.
            if let Some((signal, at)) = change.signal {
                self.inventory.signalled(id, signal, at, now);
            }
        }
        self.owed = Look::Changes;
        Ok(())
    }

    /// Inspects these containers, those that were late before last; one that does not answer holds up the
    /// others for what is left of `patience`, once.
    fn inspect(&mut self, ids: Map<String, Option<u64>>, patience: &mut Duration) -> Result<()> {
        let (mut slow, mut quick) = (Vec::new(), room::passing(ids.len()));
        for one in ids {
            if self.inventory.was_late(&one.0) {
                slow.push(one);
            } else if self.inventory.is_haproxy(&one.0) {
                // How the others are reached depends on it, and how its config is replaced.
                quick.insert(0, one);
            } else {
                quick.push(one);
            }
        }
        let mut ids = quick;
        order::sort_by_key(&mut slow, |(id, _)| self.inventory.owed_since(id));
        let quick = ids.len();
        ids.extend(slow);
        let mut ids = ids.into_iter().enumerate();
        let mut late = 0;
        while let Some((at, (id, digest))) = ids.next() {
            let asked = Instant::now();
            let left = if at < quick {
                (*patience).max(Patience::LEAST)
            } else {
                Patience::LEAST
            };
            match self.docker.container_soon(&id, left) {
                Ok(Answer::Found(found)) => {
                    self.inventory.inspected(&id, Some(*found), digest);
                    self.count_starts(&id);
                }
                Ok(Answer::Gone) => self.inventory.inspected(&id, None, digest),
                Ok(Answer::Late) => {
                    let now = Instant::now();
                    *patience = patience.saturating_sub(now - asked);
                    if self.inventory.inspect_late(&id, now) {
                        log::warn!(
                            "Docker does not answer an inspect of container {} yet; what was known of it stands, the others go on",
                            service::short(&id)
                        );
                    }
                    late += 1;
                    if late >= Patience::LATE_MAX {
                        ids.for_each(|(_, (id, _))| self.inventory.put_off(&id, now));
                        return Ok(());
                    }
                }
                // The daemon is gone, and not that container: the whole look is owed, and nothing is known
                // of those that were not asked yet.
                Err(error) if error.is(Kind::Unreachable) => {
                    let now = Instant::now();
                    self.inventory.inspect_failed(&id, now);
                    self.owe(&order::gathered(ids.map(|(_, one)| one)), now);
                    return if self.owed == Look::Changes {
                        log::debug!("{error}; what was known stands");
                        Ok(())
                    } else {
                        Err(error)
                    };
                }
                Err(error) => {
                    let now = Instant::now();
                    let again = self.inventory.inspect_failed(&id, now) - now;
                    log::warn!("{error}; what was known of it stands, next try in {again:?}");
                }
            }
        }
        Ok(())
    }

    /// Holds out a container that starts again and again.
    fn count_starts(&mut self, id: &str) {
        let Some(container) = self.inventory.find(id) else {
            return;
        };
        let (started, restarts) = (container.state.started, container.restarts);
        if let Some(wait) = self.flapping.seen(id, started, restarts, Instant::now()) {
            log::warn!(
                "container {} starts again and again; it is held out for {wait:?} after its last start, longer each time",
                container.name
            );
        }
    }

    /// Notes that these containers are still to be inspected.
    fn owe(&mut self, ids: &Map<String, Option<u64>>, now: Instant) {
        for id in ids.keys() {
            self.inventory.inspect_failed(id, now);
        }
    }

    /// Tells the overlay which containers wait for an address of its router.
    fn want_addresses(&mut self, look: Look, now: Instant) {
        let Some(overlay) = &self.overlay else { return };
        let find = |id: &str| self.inventory.find(id);
        let context = self.context(&find, overlay.view());
        let wanted: Vec<(String, String, String)> = self
            .inventory
            .monitored()
            .filter(|known| matches!(known.reading, Reading::Service(_)))
            .filter_map(|known| address::asks_router_for(&known.container, &context))
            .map(|owner| {
                (
                    owner.id.to_string(),
                    owner.hostname().to_owned(),
                    owner.domainname.to_string(),
                )
            })
            .collect();
        if !wanted.is_empty() && self.before.is_none() {
            self.before = Some(Before::of(&self.haproxy));
        }
        if let Some(overlay) = &mut self.overlay {
            overlay.want(&wanted, now);
            if look != Look::Changes {
                overlay.refresh(now);
            }
            if !self.address_patience.is_zero() {
                overlay.settle(self.address_patience);
            }
        }
    }

    fn context<'a>(
        &'a self,
        find: &'a dyn Fn(&str) -> Option<&'a Container>,
        weave: &'a View,
    ) -> Context<'a> {
        Context {
            network: self.network.as_deref(),
            haproxy: self.inventory.haproxy(),
            host: self.host,
            mode: self
                .overlay
                .as_ref()
                .map_or(weave::Mode::Never, Overlay::mode),
            weave,
            find,
        }
    }

    /// Where a container is reached; while Weave's router has not told yet, where HAProxy has it since before.
    fn address<'a>(&self, container: &'a Container, context: &Context<'a>) -> Address {
        let address = address::of(container, context);
        let (Address::Pending(_), Some(before)) = (&address, &self.before) else {
            return address;
        };
        match address::asks_router_for(container, context) {
            Some(owner) => before.address_of(container, owner).unwrap_or(address),
            None => address,
        }
    }

    /// `unready` says why a container waits for its port, if it does.
    fn select(&self, told: Told, unready: &dyn Fn(&str) -> Option<String>) -> Selection {
        let count = self.inventory.len();
        self.select_of(self.inventory.monitored(), count, told, unready)
    }

    /// [`Syncer::select`] of some of the containers: of a service all or none.
    fn select_of<'k>(
        &self,
        containers: impl Iterator<Item = &'k Known>,
        count_max: usize,
        told: Told,
        unready: &dyn Fn(&str) -> Option<String>,
    ) -> Selection {
        let now = Instant::now();
        let find = |id: &str| self.inventory.find(id);
        let nothing = View::default();
        let context = self.context(&find, self.overlay.as_ref().map_or(&nothing, Overlay::view));
        // Nearly never, and there may be thousands to ask for.
        let flapping = self.flapping.next_due().is_some();
        let mut monitored: Vec<Monitored<'_>> = room::passing(count_max);
        for known in containers {
            monitored.push(Monitored {
                container: &known.container,
                reading: &known.reading,
                address: self.address(&known.container, &context),
                leaving: known.leaving_until.is_some(),
                held: flapping
                    .then(|| self.flapping.held(&known.container.id, now))
                    .flatten()
                    .or_else(|| unready(&known.container.id)),
            });
        }
        service::select(&monitored, told, |one| self.registry.can_route(one))
    }

    /// Instances of our services on other hosts, as far as Weave's names tell.
    fn elsewhere(&self) -> Vec<Running> {
        let Some(overlay) = &self.overlay else {
            return Vec::new();
        };
        let services = self.selection.service_names();
        let others = overlay
            .view()
            .elsewhere(&|name| services.contains(name), &|id| {
                self.inventory.has(id)
            });
        let running = |other: Elsewhere| Running {
            service_name: other.name,
            id: service::short(&other.id).to_owned(),
            ip: other.ip.to_string(),
        };
        others.into_iter().map(running).collect()
    }
}

/// Hands a config to HAProxy, whose container has `mounts` of this host; `exchanged` as in
/// [`Haproxy::apply_exchanged`].
fn apply(
    haproxy: &mut Haproxy,
    changing: &Changing,
    mounts: Option<&[String]>,
    text: &str,
    request: &str,
    exchanged: Option<(&str, &str)>,
    record: &mut Record,
) -> Result<Ended> {
    record.stage = Stage::Apply;
    let _held = changing.lock().unwrap_or_else(PoisonError::into_inner);
    haproxy.has_mounted(mounts);
    match haproxy.apply_exchanged(text, request, exchanged)? {
        haproxy::Outcome::Unchanged => Ok(Ended::Unchanged),
        haproxy::Outcome::Applied { how, changes } => {
            record.changes = changes;
            record.applied = Some(how);
            Ok(Ended::Applied)
        }
        haproxy::Outcome::NotRunning(words) => {
            let mut why = "the config is in its place, but HAProxy is not running".to_owned();
            if !words.is_empty() {
                why.push_str(&format!(" ({words})"));
            }
            record.failure = Some(Failure { why, hint: None });
            Ok(Ended::NotRunning)
        }
        haproxy::Outcome::Refused(words) => {
            record.stage = Stage::Check;
            Err(Error::new(
                "HAProxy's check refuses the new config; the running one stands",
                words,
            ))
        }
    }
}
