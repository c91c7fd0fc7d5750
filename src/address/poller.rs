//! When to ask Weave's router again, and what its answers changed: one schedule for all containers
//! that wait for an address.
//!
//! Pure: the clock is an argument, the asking is somebody else's (`router`). The owner loops:
//! [`Poller::next`] says when to ask (`None`: nothing to wait for, no timer, no thread);
//! [`Poller::asked`] before asking, then [`Poller::answered`] or [`Poller::failed`].
//!
//! No event says that Weave's proxy has attached a container. Measured from Docker's `start`, the
//! name appears after 0.4 s alone and after up to 6 s in a burst of forty, so any fixed wait is
//! wrong both ways; asking costs about 1 ms.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::report::{Answer, Owned};
use super::status_dns::ID_CHARS;
use super::weave::{Query, Verdict, View, elsewhere, look_up};

/// How long a container waits for weaveDNS. The slowest of a burst of forty took 6.2 s.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// When a container is asked about first, after it was wanted.
const FIRST_ASKS: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
];

/// How often from then on: within half a second of the registration, with time to reload in it.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Least time between two asks; forty containers that start one by one share their asks.
const GAP_MIN: Duration = Duration::from_millis(25);

/// Most that a slow answer puts off the next ask. Up to this, a router is left alone for as long
/// as it took to answer.
const GAP_MAX: Duration = Duration::from_secs(1);

/// Longest wait between two tries while the router cannot be asked.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);

/// A change of the router's health, for the log: each is reported once, not once per try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// It cannot be asked, or answers what we cannot use: the words say where and why.
    Lost(String),
    /// It answers again, after so long.
    Back(Duration),
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Notice::Lost(why) => write!(
                f,
                "{why}; containers keep their Weave addresses, new ones wait"
            ),
            Notice::Back(after) => {
                write!(f, "Weave's router answers again after {}s", after.as_secs())
            }
        }
    }
}

/// What an answer or a failure meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// The view is another than before: a pass is due.
    pub changed: bool,
    /// Something to tell the operator at `warn`.
    pub notice: Option<Notice>,
}

#[derive(Debug)]
struct Pending {
    wanted: Instant,
    deadline: Instant,
    /// Full name in weaveDNS, if it will have one there.
    name: String,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    tries: u32,
}

/// The schedule and what has been learnt.
#[derive(Debug)]
pub struct Poller {
    deadline: Duration,
    pending: HashMap<String, Pending>,
    /// Names of the containers that are no longer pending, for answers that come later.
    names: HashMap<String, String>,
    view: View,
    /// An ask that serves no container in particular.
    refresh: Option<Instant>,
    in_flight: Option<Instant>,
    last_asked: Option<Instant>,
    not_before: Option<Instant>,
    outage: Option<Outage>,
}

impl Default for Poller {
    fn default() -> Self {
        Poller::new(DEADLINE)
    }
}

impl Poller {
    /// A poller that waits this long for each container.
    pub fn new(deadline: Duration) -> Self {
        Poller {
            deadline,
            pending: HashMap::new(),
            names: HashMap::new(),
            view: View::default(),
            refresh: None,
            in_flight: None,
            last_asked: None,
            not_before: None,
            outage: None,
        }
    }

    /// Begins to wait for a container's address. `hostname` and `domainname` are inspect's: they
    /// tell whether weaveDNS will ever have it. Without effect for one that is waited for, found,
    /// or given up: call it freely in every pass.
    pub fn want(&mut self, id: &str, hostname: &str, domainname: &str, now: Instant) {
        if self.pending.contains_key(id) || self.names.contains_key(id) {
            return;
        }
        let name = if domainname.is_empty() {
            hostname.to_owned()
        } else {
            format!("{hostname}.{domainname}")
        };
        self.pending.insert(
            id.to_owned(),
            Pending {
                wanted: now,
                deadline: now + self.deadline,
                name,
            },
        );
        // A start that came through Weave's proxy is a sign of life of the router.
        if let (Some(not_before), Some(asked)) = (self.not_before, self.last_asked) {
            self.not_before = Some(not_before.min(asked + ASK_EVERY));
        }
    }

    /// Forgets a container, at its `die`: its address is nobody's until it is wanted again. True if
    /// it had one.
    pub fn forget(&mut self, id: &str) -> bool {
        self.pending.remove(id);
        self.names.remove(id);
        self.view.missing.remove(id);
        self.view.found.remove(id).is_some()
    }

    /// Forgets every container but these, such as after a reconnect to Docker.
    pub fn retain(&mut self, is_there: &dyn Fn(&str) -> bool) {
        self.pending.retain(|id, _| is_there(id));
        self.names.retain(|id, _| is_there(id));
        self.view.missing.retain(|id, _| is_there(id));
        self.view.found.retain(|id, _| is_there(id));
    }

    /// Asks once more even if no container waits: for the names of other hosts, for containers
    /// that were given up, and for addresses that have changed. Meant for each resync.
    pub fn refresh(&mut self, now: Instant) {
        self.refresh.get_or_insert(now);
    }

    /// When to ask; possibly past. `None` while nothing is waited for, or an ask is under way.
    pub fn next(&self) -> Option<Instant> {
        if self.in_flight.is_some() {
            return None;
        }
        let due = self
            .pending
            .values()
            .map(|pending| due(pending.wanted, self.last_asked))
            .chain(self.refresh)
            .min()?;
        Some(self.not_before.map_or(due, |earliest| due.max(earliest)))
    }

    /// An ask begins. Its result must come by [`Self::answered`] or [`Self::failed`].
    pub fn asked(&mut self, now: Instant) {
        self.in_flight = Some(now);
        self.last_asked = Some(now);
    }

    /// The router answered.
    pub fn answered(&mut self, now: Instant, answer: &Answer) -> Outcome {
        let before = self.view.clone();
        let begun = self.end_ask(now);
        let took = now.saturating_duration_since(begun);
        self.not_before = Some(now + took.clamp(GAP_MIN, GAP_MAX));
        let outage = self.outage.take();
        self.view.trouble = None;
        if outage.is_some() {
            // The wait for weaveDNS begins when there is a router to wait for.
            for pending in self.pending.values_mut() {
                pending.deadline = pending.deadline.max(now + self.deadline);
            }
        }

        let mut settled = Vec::new();
        for (id, pending) in &self.pending {
            // An answer that was asked for before the container started is of its former life.
            if begun < pending.wanted {
                continue;
            }
            let late = begun >= pending.deadline;
            match self.look_up(answer, id, &pending.name, late) {
                Verdict::Found(addresses) => settled.push((id.clone(), Ok(addresses))),
                Verdict::Absent(why) if late => settled.push((id.clone(), Err(why))),
                Verdict::Absent(_) => {}
            }
        }
        // Without the allocator an answer cannot tell whose an address is: keep what is known.
        if answer.owned != Owned::Unknown {
            for (id, name) in &self.names {
                if let Verdict::Found(addresses) = self.look_up(answer, id, name, true) {
                    settled.push((id.clone(), Ok(addresses)));
                }
            }
        }
        for (id, result) in settled {
            if let Some(pending) = self.pending.remove(&id) {
                self.names.insert(id.clone(), pending.name);
            }
            match result {
                Ok(addresses) => {
                    self.view.missing.remove(&id);
                    self.view.found.insert(id, addresses);
                }
                Err(why) => {
                    let waited = self.deadline.as_secs();
                    let why = format!("{why} (waited {waited}s)");
                    self.view.missing.insert(id, why);
                }
            }
        }
        self.view.elsewhere = elsewhere(answer);
        Outcome {
            changed: self.view != before,
            notice: outage.map(|outage| Notice::Back(now.saturating_duration_since(outage.since))),
        }
    }

    /// The router could not be asked, or its answer could not be used. What is known stays.
    pub fn failed(&mut self, now: Instant, why: &str) -> Outcome {
        let begun = self.end_ask(now);
        let first = self.outage.is_none();
        let outage = self.outage.get_or_insert(Outage {
            since: begun,
            tries: 0,
        });
        let doubled = ASK_EVERY.saturating_mul(1 << outage.tries.min(8));
        outage.tries = outage.tries.saturating_add(1);
        self.not_before = Some(now + doubled.min(BACK_OFF_MAX));
        // The reason may change from try to try; that is no cause for a pass.
        self.view.trouble = Some(why.to_owned());
        Outcome {
            changed: false,
            notice: first.then(|| Notice::Lost(why.to_owned())),
        }
    }

    /// What has been learnt so far.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Whether no container waits, has got or was refused an address: the router is of no use then.
    pub fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.names.is_empty()
    }

    /// The ids that are waited for.
    pub fn pending(&self) -> impl Iterator<Item = &str> {
        self.pending.keys().map(String::as_str)
    }

    /// How long the router has been unreachable, if it is.
    pub fn unreachable_for(&self, now: Instant) -> Option<Duration> {
        self.outage
            .as_ref()
            .map(|outage| now.saturating_duration_since(outage.since))
    }

    fn end_ask(&mut self, now: Instant) -> Instant {
        let begun = self.in_flight.take().unwrap_or(now);
        if self.refresh.is_some_and(|refresh| refresh <= begun) {
            self.refresh = None;
        }
        begun
    }

    fn look_up(&self, answer: &Answer, id: &str, name: &str, late: bool) -> Verdict {
        let alone = !answer.short || {
            let prefix = id.get(..ID_CHARS).unwrap_or(id);
            self.pending
                .keys()
                .chain(self.names.keys())
                .all(|other| other == id || !other.starts_with(prefix))
        };
        let query = Query {
            id,
            name,
            late,
            alone,
        };
        look_up(answer, query)
    }
}

/// When one container is to be asked about next.
fn due(wanted: Instant, last_asked: Option<Instant>) -> Instant {
    let Some(since) = last_asked.and_then(|asked| asked.checked_duration_since(wanted)) else {
        return wanted;
    };
    if let Some(first) = FIRST_ASKS.into_iter().find(|first| *first > since) {
        return wanted + first;
    }
    let [.., last] = FIRST_ASKS;
    let rounds = since.saturating_sub(last).as_millis() / ASK_EVERY.as_millis();
    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX - 1) + 1;
    wanted + last + ASK_EVERY.saturating_mul(rounds)
}

#[cfg(test)]
mod tests {
    use super::super::report::Entry;
    use super::super::weave::Standing;
    use super::*;

    const DOMAIN: &str = "weave.local";

    /// A made-up clock and router, driven from next to next.
    struct Stage {
        start: Instant,
        now: Instant,
        poller: Poller,
        asks: Vec<u64>,
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn id(number: usize) -> String {
        format!("{number:064x}")
    }

    fn address(number: usize) -> std::net::Ipv4Addr {
        std::net::Ipv4Addr::from_bits(0x0a20_0000 + 1 + u32::try_from(number).unwrap())
    }

    /// An answer that has these containers in weaveDNS.
    fn answer(numbers: impl IntoIterator<Item = usize>) -> Answer {
        Answer {
            peer: Some("here".into()),
            domain: Some("weave.local.".into()),
            owned: Owned::Listed(HashMap::new()),
            entries: numbers
                .into_iter()
                .map(|number| Entry {
                    name: format!("c{number}.weave.local."),
                    origin: "here".into(),
                    id: id(number),
                    address: address(number),
                    removed: false,
                })
                .collect(),
            ..Answer::default()
        }
    }

    impl Stage {
        fn new() -> Stage {
            let start = Instant::now();
            Stage {
                start,
                now: start,
                poller: Poller::default(),
                asks: Vec::new(),
            }
        }

        fn at(&mut self, millis: u64) -> &mut Poller {
            self.now = self.start + ms(millis);
            &mut self.poller
        }

        fn want(&mut self, millis: u64, number: usize) {
            let now = self.start + ms(millis);
            self.poller
                .want(&id(number), &format!("c{number}"), DOMAIN, now);
        }

        /// Runs the schedule until `until`, each ask answered at once by `router`; returns the
        /// times at which the view changed.
        fn run(
            &mut self,
            until: u64,
            mut router: impl FnMut(u64) -> Result<Answer, String>,
        ) -> Vec<u64> {
            let mut changes = Vec::new();
            while let Some(next) = self.poller.next() {
                self.now = self.now.max(next);
                let millis = u64::try_from((self.now - self.start).as_millis()).unwrap();
                if millis > until {
                    break;
                }
                self.poller.asked(self.now);
                self.asks.push(millis);
                let outcome = match router(millis) {
                    Ok(answer) => self.poller.answered(self.now, &answer),
                    Err(why) => self.poller.failed(self.now, &why),
                };
                if outcome.changed {
                    changes.push(millis);
                }
            }
            changes
        }

        fn found(&self, number: usize) -> bool {
            match self.poller.view().standing(&id(number)) {
                Standing::Found(addresses) => {
                    assert_eq!(addresses, [std::net::IpAddr::V4(address(number))]);
                    true
                }
                _ => false,
            }
        }
    }

    #[test]
    fn nothing_wanted_nothing_asked() {
        let mut stage = Stage::new();
        assert_eq!(stage.poller.next(), None);
        assert!(stage.run(60_000, |_| unreachable!()).is_empty());
    }

    #[test]
    fn asks_at_once_then_soon_then_four_times_a_second() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        let changes = stage.run(60_000, |now| Ok(answer((now >= 1000).then_some(1))));
        assert_eq!(stage.asks, [0, 50, 100, 200, 450, 700, 950, 1200]);
        assert_eq!(changes, [1200]);
        assert!(stage.found(1));
        assert_eq!(stage.poller.next(), None);
    }

    #[test]
    fn an_ask_under_way_is_waited_for() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        let start = stage.start;
        stage.at(0).asked(start);
        assert_eq!(stage.poller.next(), None);
        // Three seconds for an answer: the router is left alone for a while after it.
        stage.poller.answered(start + ms(3000), &answer([]));
        assert_eq!(stage.poller.next(), Some(start + ms(4000)));
    }

    #[test]
    fn a_container_that_never_appears_is_given_up_after_the_deadline() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        let changes = stage.run(60_000, |_| Ok(answer([])));
        assert_eq!(changes.len(), 1);
        assert!(
            (15_000..15_250).contains(&changes[0]),
            "given up at {}",
            changes[0]
        );
        assert_eq!(stage.poller.next(), None);
        assert_eq!(stage.asks.len(), 64);
        let standing = stage.poller.view().standing(&id(1)).to_owned();
        assert!(matches!(standing, Standing::Missing(why) if why.ends_with("(waited 15s)")));
        // Wanting it in each pass does not begin again; its next life does, and so does a resync.
        stage.want(20_000, 1);
        assert_eq!(stage.poller.next(), None);
        stage.at(30_000);
        stage.poller.refresh(stage.now);
        assert_eq!(stage.run(40_000, |_| Ok(answer([1]))), [30_000]);
        assert!(stage.found(1));
    }

    #[test]
    fn the_allocator_answers_at_the_deadline_or_at_once() {
        let owned = |_| {
            let mut answer = answer([]);
            let listed = HashMap::from([(id(1), vec![address(1)]), (id(2), vec![address(2)])]);
            answer.owned = Owned::Listed(listed);
            Ok(answer)
        };
        let mut stage = Stage::new();
        stage.want(0, 1);
        stage.poller.want(&id(2), "custom", "", stage.start);
        let changes = stage.run(60_000, owned);
        assert_eq!(changes[0], 0);
        assert!((15_000..15_250).contains(&changes[1]));
        assert_eq!(changes.len(), 2);
        assert!(stage.found(1) && stage.found(2));
    }

    #[test]
    fn bursts_of_forty_cost_few_asks_and_find_each_within_half_a_second() {
        // Registration after start, as measured: forty, sixteen at a time, median 4.1 s, at most 6.2.
        let appears = |n: u64| 700 + n * 140;
        let mut stage = Stage::new();
        for round in 0..20u64 {
            let base = round * 10_000;
            stage.asks.clear();
            let numbers = |now: u64| {
                (0..40u64)
                    .filter(move |n| base + appears(*n) <= now)
                    .map(move |n| usize::try_from(round * 40 + n).unwrap())
            };
            let mut found_at = HashMap::new();
            let mut step = base + 780;
            for n in 0..40u64 {
                let start = base + n * 20;
                stage.run(start.saturating_sub(1), |now| Ok(answer(numbers(now))));
                stage.now = stage.now.max(stage.start + ms(start));
                stage.want(start, usize::try_from(round * 40 + n).unwrap());
            }
            while step < base + 9_000 {
                step += 10;
                stage.run(step, |now| Ok(answer(numbers(now))));
                for n in 0..40u64 {
                    if stage.found(usize::try_from(round * 40 + n).unwrap()) {
                        found_at.entry(n).or_insert(step);
                    }
                }
            }
            for n in 0..40u64 {
                let delay = found_at[&n] - (base + appears(n));
                assert!(delay <= 260, "container {n} was found {delay} ms late");
            }
            assert!(stage.asks.len() < 240, "{} asks", stage.asks.len());
            assert!(
                stage.asks.windows(2).all(|pair| pair[1] - pair[0] >= 25),
                "{:?}",
                stage.asks
            );
            for n in 0..40u64 {
                stage
                    .poller
                    .forget(&id(usize::try_from(round * 40 + n).unwrap()));
            }
        }
    }

    #[test]
    fn a_dead_container_is_neither_waited_for_nor_kept() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        stage.want(0, 2);
        stage.run(300, |_| Ok(answer([1])));
        assert!(stage.found(1));
        assert!(stage.poller.forget(&id(1)));
        assert!(!stage.poller.forget(&id(2)));
        assert!(!stage.found(1));
        assert_eq!(stage.poller.next(), None);
        // Its entry is still in an answer that comes now: nobody asked.
        stage.poller.refresh(stage.now);
        stage.run(10_000, |_| Ok(answer([1, 2])));
        assert!(!stage.found(1) && !stage.found(2));
    }

    #[test]
    fn an_answer_asked_for_before_the_restart_is_not_believed() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        let start = stage.start;
        stage.poller.asked(start + ms(50));
        stage.poller.forget(&id(1));
        stage.want(60, 1);
        let outcome = stage.poller.answered(start + ms(70), &answer([1]));
        assert!(!outcome.changed);
        assert!(!stage.found(1));
        stage.at(70);
        assert_eq!(stage.run(1_000, |_| Ok(answer([1]))), [95]);
        assert!(stage.found(1));
    }

    #[test]
    fn an_unreachable_router_is_tried_ever_more_rarely_and_reported_once() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        let mut notices = Vec::new();
        let mut asks = Vec::new();
        while let Some(next) = stage.poller.next() {
            let millis = u64::try_from((next - stage.start).as_millis()).unwrap();
            if millis > 60_000 {
                break;
            }
            asks.push(millis);
            stage.poller.asked(next);
            let outcome = if millis < 40_000 {
                stage.poller.failed(next, "cannot ask: refused")
            } else {
                stage.poller.answered(next, &answer([1]))
            };
            notices.extend(outcome.notice);
        }
        assert_eq!(
            asks,
            [
                0, 250, 750, 1750, 3750, 7750, 12750, 17750, 22750, 27750, 32750, 37750, 42750
            ]
        );
        assert_eq!(
            notices,
            [
                Notice::Lost("cannot ask: refused".into()),
                Notice::Back(ms(42_750))
            ]
        );
        assert!(stage.found(1));
    }

    #[test]
    fn the_deadline_does_not_run_while_there_is_no_router() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        stage.run(30_000, |_| Err("refused".into()));
        let standing = stage.poller.view().standing(&id(1));
        assert_eq!(standing, Standing::Waiting(Some("refused")));
        assert!(stage.poller.unreachable_for(stage.now) > Some(ms(20_000)));
        // Back, but the container is not in weaveDNS yet.
        let changes = stage.run(45_000, |now| Ok(answer((now >= 36_000).then_some(1))));
        assert_eq!(stage.poller.unreachable_for(stage.now), None);
        assert!(
            (36_000..36_250).contains(changes.last().unwrap()),
            "{changes:?}"
        );
        assert!(stage.found(1));
    }

    #[test]
    fn a_start_while_the_router_is_away_is_a_reason_to_try_again() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        stage.run(13_000, |_| Err("refused".into()));
        let waits_until = stage.poller.next().unwrap();
        assert_eq!(waits_until, stage.start + ms(17_750));
        stage.want(14_000, 2);
        assert!(stage.poller.next().unwrap() <= stage.start + ms(14_000));
    }

    #[test]
    fn what_is_known_outlives_the_router_and_an_unsure_answer() {
        let mut stage = Stage::new();
        stage.want(0, 1);
        stage.run(1_000, |_| Ok(answer([1])));
        stage.poller.refresh(stage.now);
        stage.run(10_000, |now| {
            if now < 3_000 {
                Err("reset".into())
            } else {
                Ok(answer([]))
            }
        });
        assert!(stage.found(1));
        // Without the allocator somebody's dns-add would look like the container's own.
        let mut unsure = answer([2]);
        unsure.entries[0].id = id(1);
        unsure.owned = Owned::Unknown;
        stage.poller.refresh(stage.now);
        stage.run(20_000, |_| Ok(unsure.clone()));
        assert!(stage.found(1));
        // A sure one moves it.
        unsure.owned = Owned::Off;
        stage.poller.refresh(stage.now);
        assert_eq!(stage.run(30_000, |_| Ok(unsure.clone())).len(), 1);
        let standing = stage.poller.view().standing(&id(1));
        assert_eq!(standing, Standing::Found(&[address(2).into()]));
    }

    #[test]
    fn other_hosts_names_come_with_any_answer_and_only_changes_count() {
        let mut stage = Stage::new();
        let mut theirs = answer([7]);
        theirs.entries[0].origin = "there".into();
        stage.poller.refresh(stage.now);
        assert_eq!(stage.run(1_000, |_| Ok(theirs.clone())).len(), 1);
        let seen = stage
            .poller
            .view()
            .elsewhere(&|name| name == "c7", &|_| false);
        assert_eq!(seen.len(), 1);
        stage.poller.refresh(stage.now);
        assert!(stage.run(2_000, |_| Ok(theirs.clone())).is_empty());
        stage.poller.refresh(stage.now);
        assert_eq!(stage.run(3_000, |_| Ok(answer([]))).len(), 1);
    }

    #[test]
    fn two_of_our_ids_with_one_prefix_are_refused_from_the_command() {
        let mut stage = Stage::new();
        let (one, two) = (
            format!("ff7a8ce6a29f{:052x}", 1),
            format!("ff7a8ce6a29f{:052x}", 2),
        );
        let text = "api 10.32.0.1 ff7a8ce6a29f 7a:c4:8b:a1:e2:9a\n";
        let command = super::super::status_dns::parse(text);
        stage.poller.want(&one, "api", DOMAIN, stage.start);
        stage.poller.want(&two, "db", DOMAIN, stage.start);
        stage.run(60_000, |_| Ok(command.clone()));
        for id in [&one, &two] {
            let standing = stage.poller.view().standing(id);
            assert!(
                matches!(standing, Standing::Missing(why) if why.contains("another container"))
            );
        }
        stage.poller.forget(&two);
        stage.poller.refresh(stage.now);
        stage.run(70_000, |_| Ok(command.clone()));
        assert!(matches!(
            stage.poller.view().standing(&one),
            Standing::Found(_)
        ));
    }

    #[test]
    fn retain_keeps_only_who_is_there() {
        let mut stage = Stage::new();
        for number in 1..=4 {
            stage.want(0, number);
        }
        stage.run(300, |_| Ok(answer([1, 2])));
        stage
            .poller
            .retain(&|other| other == id(1) || other == id(3));
        assert!(stage.found(1) && !stage.found(2));
        assert_eq!(stage.poller.pending().collect::<Vec<_>>(), [id(3)]);
    }
}
