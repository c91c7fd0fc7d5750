//! `--ready`: a new container that would be all that its service has waits until its port accepts a
//! connection, or its time is over. Pure; the probe and the clock are arguments.
//!
//! Where a service has other instances HAProxy's checks, retries and redispatch keep requests off one
//! that does not answer yet, so it is not held. Nor is one with a health check of its own, which Docker
//! asks, nor one that HAProxy had already when we were started.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::order;
use crate::service::{self, Finding, Selection};
use crate::sorted::Set;
use crate::timestamp::Timestamp;

/// Time between two probes of one port.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// What a probe needs to know of a container.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// When its present life began.
    pub started: Timestamp,
    /// Docker checks its health.
    pub checked: bool,
}

#[derive(Debug)]
struct Wait {
    since: Instant,
    next: Instant,
}

/// Who has proved to be ready, and who is waited for.
#[derive(Debug)]
pub struct Ready {
    limit: Duration,
    /// What HAProxy had when we were started.
    before: Set<String>,
    first: bool,
    proved: HashMap<String, Timestamp>,
    waiting: HashMap<String, Wait>,
}

impl Ready {
    /// `limit` zero holds nobody.
    pub fn new(limit: Duration) -> Self {
        Ready {
            limit,
            before: Set::default(),
            first: true,
            proved: HashMap::new(),
            waiting: HashMap::new(),
        }
    }

    /// Whether nobody is ever held.
    pub fn is_off(&self) -> bool {
        self.limit.is_zero()
    }

    /// Notes once, at the beginning, which servers HAProxy has.
    pub fn begin(&mut self, servers: impl FnOnce() -> Vec<String>) {
        if std::mem::take(&mut self.first) {
            let servers = servers().into_iter();
            self.before = servers.map(|id| service::short(&id).to_owned()).collect();
        }
    }

    /// Takes in what would be routed if nobody were held, and probes those who wait, if it is time; `probe` says
    /// `None` when this look has no time left for it. Returns what an operator should hear.
    pub fn consider(
        &mut self,
        selection: &Selection,
        facts: impl Fn(&str) -> Option<Facts>,
        now: Instant,
        mut probe: impl FnMut(SocketAddr) -> Option<bool>,
    ) -> Vec<String> {
        let mut said = Vec::new();
        let monitored: Set<&str> =
            order::gathered(selection.verdicts.iter().map(|one| one.id.as_str()));
        for id in monitored.iter() {
            if let (true, Some(facts)) = (self.before.contains(service::short(id)), facts(id)) {
                self.proved.insert((*id).to_owned(), facts.started);
            }
        }
        self.before.clear();
        self.proved.retain(|id, started| {
            monitored.contains(id.as_str())
                && facts(id).is_some_and(|facts| facts.started == *started)
        });
        let mut routed = Vec::new();
        for verdict in &selection.verdicts {
            if let (Finding::Routed { ip, port, .. }, Some(service), Some(facts)) =
                (&verdict.finding, &verdict.service, facts(&verdict.id))
            {
                let address = SocketAddr::new(*ip, *port);
                let member = (&*verdict.id, &*verdict.name, address, facts);
                routed.push((&**service, member));
            }
        }
        order::sort_by_key(&mut routed, |(service, _)| *service);
        let same = routed.chunk_by(|(one, _), (other, _)| one == other);
        let mut services: Vec<Vec<_>> = same
            .map(|members| members.iter().map(|(_, member)| *member).collect())
            .collect();
        // Who was not probed for the longest time goes first: a few that do not even refuse use up a look's time.
        let turn = |id: &str| self.waiting.get(id).map(|wait| wait.next);
        for members in &mut services {
            order::sort_by_key(members, |(id, ..)| turn(id));
        }
        order::sort_by_key(&mut services, |members| {
            members.first().map(|(id, ..)| turn(id))
        });
        let mut still = Vec::new();
        for members in &services {
            let mut any = members
                .iter()
                .any(|(id, _, _, facts)| facts.checked || self.proved.contains_key(*id));
            for (id, name, address, _) in members {
                if any {
                    break;
                }
                let wait = self.waiting.entry((*id).to_owned()).or_insert(Wait {
                    since: now,
                    next: now,
                });
                let waited = now - wait.since;
                if waited >= self.limit {
                    said.push(format!(
                        "container {name} has accepted no connection at {address} within {:?}; it is routed all the same",
                        self.limit
                    ));
                    any = true;
                } else if wait.next <= now
                    && let Some(accepts) = probe(*address)
                {
                    wait.next = now + PROBE_EVERY;
                    any = accepts;
                }
            }
            for (id, _, _, facts) in members {
                if any {
                    self.proved.insert((*id).to_owned(), facts.started);
                } else {
                    still.push(*id);
                }
            }
        }
        let still: Set<&str> = order::gathered(still);
        self.waiting.retain(|id, _| still.contains(id.as_str()));
        said
    }

    /// Why a container is held out, if it is.
    pub fn held(&self, id: &str) -> Option<String> {
        self.waiting
            .contains_key(id)
            .then(|| "its port accepts no connection yet".to_owned())
    }

    /// When somebody is to be probed next.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting.values().map(|wait| wait.next).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Source;
    use crate::service::Verdict;

    fn selection(routed: &[(&str, &str)]) -> Selection {
        let verdict = |(number, (id, service)): (usize, &(&str, &str))| Verdict {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            service: Some((*service).to_owned()),
            finding: Finding::Routed {
                server: (*id).to_owned(),
                ip: [10, 0, 0, number as u8 + 1].into(),
                source: Source::Host,
                port: 80,
            },
            notes: Vec::new(),
        };
        Selection {
            verdicts: routed.iter().enumerate().map(verdict).collect(),
            ..Selection::default()
        }
    }

    /// What would be routed (id, service), whether ports accept, and who is held then.
    type Look<'l> = (&'l [(&'l str, &'l str)], bool, &'l [&'l str]);

    /// Plays looks each 50 ms: what is routed, whether ports accept, and who is held after each.
    #[track_caller]
    fn play(before: &[&str], looks: &[Look<'_>]) -> usize {
        let zero = Instant::now();
        let mut ready = Ready::new(Duration::from_millis(300));
        ready.begin(|| before.iter().map(|&id| id.to_owned()).collect());
        let mut probes = 0;
        for (number, (routed, accepts, expected)) in looks.iter().enumerate() {
            let facts = |id: &str| {
                Some(Facts {
                    started: Timestamp {
                        seconds: i64::from(id.ends_with('2')),
                        nanos: 0,
                    },
                    checked: id.starts_with("checked"),
                })
            };
            let now = zero + Duration::from_millis(50) * number as u32;
            ready.consider(&selection(routed), facts, now, |_| {
                probes += 1;
                Some(*accepts)
            });
            let held: Vec<&str> = routed
                .iter()
                .map(|(id, _)| *id)
                .filter(|id| ready.held(id).is_some())
                .collect();
            assert_eq!(held, *expected, "look {number}");
            assert_eq!(ready.next_due().is_some(), !expected.is_empty());
        }
        probes
    }

    #[test]
    fn the_only_instance_waits_for_its_port() {
        let one = &[("a", "web")][..];
        let two = &[("a", "web"), ("b", "web")][..];
        let probes = play(
            &[],
            &[
                (one, false, &["a"]),
                (one, false, &["a"]),
                (one, true, &[]),
                (one, false, &[]),
            ],
        );
        assert_eq!(probes, 2);
        // Others of its service are there, or it was there before us, or Docker checks it.
        assert_eq!(play(&["a"], &[(one, false, &[]), (two, false, &[])]), 0);
        assert_eq!(play(&[], &[(&[("checked", "web")], false, &[])]), 0);
        assert_eq!(
            play(&[], &[(&[("checked", "web"), ("b", "web")], false, &[])]),
            0
        );
        // All of them are new: the first that accepts lets all in.
        play(
            &[],
            &[
                (two, false, &["a", "b"]),
                (two, false, &["a", "b"]),
                (two, true, &[]),
            ],
        );
        // Two services do not wait for each other.
        play(&["a"], &[(&[("a", "web"), ("b", "api")], false, &["b"])]);
    }

    #[test]
    fn time_is_over_at_some_point_and_a_new_life_waits_anew() {
        let one = &[("a", "web")][..];
        let held = (one, false, &["a"][..]);
        play(
            &[],
            &[held, held, held, held, held, held, (one, false, &[])],
        );
        play(
            &["a"],
            &[(one, false, &[]), (&[], false, &[]), (one, false, &["a"])],
        );
    }

    #[test]
    fn those_that_do_not_even_refuse_take_nobodys_turn() {
        let zero = Instant::now();
        let mut ready = Ready::new(Duration::from_secs(60));
        let routed = [("a", "1"), ("b", "2"), ("c", "3"), ("d", "4")];
        let facts = |_: &str| {
            Some(Facts {
                started: Timestamp::default(),
                checked: false,
            })
        };
        let mut probed = Vec::new();
        for look in 0..4 {
            let now = zero + PROBE_EVERY * look;
            // There is time for one probe only.
            let mut left = 1;
            ready.consider(&selection(&routed), facts, now, |address| {
                (left > 0).then(|| {
                    left -= 1;
                    probed.push(address.to_string());
                    false
                })
            });
        }
        probed.sort();
        assert_eq!(
            probed,
            ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80"]
        );
    }

    #[test]
    fn off_is_off() {
        assert!(Ready::new(Duration::ZERO).is_off());
    }
}
