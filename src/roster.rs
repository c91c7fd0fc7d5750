//! The services that the registry was asked for last, in their order: what changes with one of thousands is told
//! from them without sorting all the others again. Pure.
//!
//! A pass over everything makes a roster; a pass over what was touched makes [`Edit`]s of it. What it cannot follow
//! (services in each other's way, other hosts' instances) it refuses, and everything is sorted again: it saves
//! work, it never decides. Of a service it keeps what its place and its claims need, not its words.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::ops::Range;

use crate::config::Fingerprint;
use crate::registry::{Candidate, Digest, Edit, Mode, Payload, Rank};
use crate::room;
use crate::service::Selection;
use crate::sorted::Set;

/// From this many services on that were touched at once, sorting all again costs no more.
pub const TOUCHED_MAX: usize = 32;

/// The services of one payload.
#[derive(Debug)]
pub struct Roster {
    table: String,
    /// In the order of the payload.
    services: Vec<Entry>,
    /// The names of the services, one behind the other in no order. A piece of memory for each would lie wherever a
    /// pass over everything left room, and keep the allocator from giving back what is around it.
    names: String,
    /// How much of the names belongs to services that are gone.
    unused: usize,
    /// Hashes of what only one service may have: a predicate of a mode, a name but for upper and lower case.
    claims: HashSet<u64>,
    digest: Digest,
}

#[derive(Debug)]
struct Entry {
    rank: Rank,
    /// Where its name is.
    name: Range<u32>,
    instances: u32,
    /// Besides that of its name.
    claims: Claims,
    digest: Digest,
}

/// Hashes of a service's predicates; most have one.
#[derive(Debug)]
enum Claims {
    One(u64),
    Several(Box<[u64]>),
}

impl Claims {
    fn of(candidate: &Candidate) -> Claims {
        let mode = [candidate.config_mode as u8];
        let hash = |pattern: &str| hash(&[&mode, pattern.as_bytes()]);
        let mut patterns = candidate.patterns();
        match (patterns.next(), patterns.next()) {
            (Some(only), None) => Claims::One(hash(only)),
            _ => Claims::Several(candidate.patterns().map(hash).collect()),
        }
    }

    fn as_slice(&self) -> &[u64] {
        match self {
            Claims::One(only) => std::slice::from_ref(only),
            Claims::Several(claims) => claims,
        }
    }
}

/// What only one service may have of its name.
fn name_claim(name: &str) -> u64 {
    hash(&[b"name", name.to_lowercase().as_bytes()])
}

fn hash(words: &[&[u8]]) -> u64 {
    let mut hash = Fingerprint::default();
    words.iter().for_each(|word| hash.add(word));
    hash.finish()
}

impl Roster {
    /// Of no service of this table, with room for so many, whose names have so many bytes all together; in the place of an old one.
    pub fn empty(old: Option<Roster>, table: &str, services: usize, names: usize) -> Roster {
        let mut roster = old.unwrap_or_else(|| Roster {
            table: table.to_owned(),
            services: Vec::new(),
            names: String::new(),
            unused: 0,
            claims: HashSet::new(),
            digest: Digest::default(),
        });
        (roster.unused, roster.digest) = (0, Digest::default());
        room::for_all(&mut roster.services, services);
        let mut bytes = std::mem::take(&mut roster.names).into_bytes();
        room::for_all(&mut bytes, names);
        roster.names = String::from_utf8(bytes).unwrap_or_default();
        roster.claims.clear();
        roster.claims.reserve(2 * services);
        roster
    }

    /// Of a payload, and of the selection that it was made of. `None` when there is more in it than this host's
    /// services, each apart from the others.
    pub fn filled(mut self, payload: &Payload, selection: &Selection) -> Option<Roster> {
        let candidates = &payload.candidates;
        let instances: usize = candidates.iter().map(|one| one.containers.len()).sum();
        if !selection.conflicts.is_empty() || payload.running.len() != instances {
            return None;
        }
        for candidate in candidates {
            let at = self.services.len();
            self.insert(at, candidate)?;
        }
        Some(self)
    }

    /// How many services there are.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether there is no service.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// What the registry is asked, as [`Payload::digest`] has it.
    pub fn digest(&self) -> String {
        self.digest.in_table(&self.table)
    }

    /// How many instances these services have, all together.
    pub fn instances(&self, services: &Set<String>) -> usize {
        let places = services.iter().filter_map(|name| self.place(name, &[]));
        let entries = places.filter_map(|at| self.services.get(at));
        entries.map(|entry| entry.instances as usize).sum()
    }

    /// What makes the last payload one with `touched` as they are in `now`, which has no other services. `None`
    /// when they get in each other's way: the roster is of no use then.
    pub fn edits(&mut self, touched: &Set<String>, now: Vec<Candidate>) -> Option<Vec<Edit>> {
        let mut edits = Vec::new();
        let mut now = now;
        for name in touched.iter() {
            let old = self.place(name, &now);
            let new = now.iter().position(|one| one.service_name == *name);
            let new = new.map(|at| now.swap_remove(at));
            edits.extend(self.exchange(old, new)?);
        }
        // Whoever is left belongs to no service that was touched.
        now.is_empty().then_some(edits)
    }

    /// Where a service is; one that goes by its path is looked for among its like, unless it is where it would be now.
    fn place(&self, name: &str, now: &[Candidate]) -> Option<usize> {
        let hosts = (Mode::Host, Reverse(0));
        let ranks = now.iter().filter(|one| one.service_name == *name);
        let mut ranks = ranks.map(Candidate::rank).chain([hosts]);
        let found = ranks.find_map(|rank| self.search(rank, name).ok());
        found.or_else(|| {
            let paths = self
                .services
                .partition_point(|entry| entry.rank.0 == Mode::Host);
            let mut entries = self.services.iter().enumerate().skip(paths);
            entries
                .find(|(_, entry)| self.name(entry) == name)
                .map(|(at, _)| at)
        })
    }

    fn search(&self, rank: Rank, name: &str) -> Result<usize, usize> {
        self.services
            .binary_search_by(|entry| (entry.rank, self.name(entry)).cmp(&(rank, name)))
    }

    fn exchange(&mut self, old: Option<usize>, new: Option<Candidate>) -> Option<Vec<Edit>> {
        let mut edits = Vec::with_capacity(2);
        let candidate = new.clone();
        let before = old.and_then(|at| self.services.get(at).map(|entry| (at, entry)));
        if let (Some((at, before)), Some(new)) = (before, &new)
            && (before.rank, self.name(before)) == (new.rank(), &*new.service_name)
        {
            if before.digest == Digest::of(new) {
                return Some(edits);
            }
            edits.push(Edit {
                at,
                was: true,
                now: candidate,
            });
        } else {
            if let Some((at, _)) = before {
                edits.push(Edit {
                    at,
                    was: true,
                    now: None,
                });
            }
            if let Some(new) = &new {
                let (Ok(at) | Err(at)) = self.search(new.rank(), &new.service_name);
                // The one that goes makes room.
                let gone = before.is_some_and(|(gone, _)| gone < at);
                edits.push(Edit {
                    at: at - usize::from(gone),
                    was: false,
                    now: candidate,
                });
            }
        }
        if let Some(at) = old {
            self.remove(at);
        }
        if let Some(new) = new {
            let at = edits.last().map_or(0, |edit| edit.at);
            self.insert(at, &new)?;
        }
        Some(edits)
    }

    fn name(&self, entry: &Entry) -> &str {
        let bytes = entry.name.start as usize..entry.name.end as usize;
        self.names.get(bytes).unwrap_or_default()
    }

    /// `None` when somebody else claims the same.
    fn insert(&mut self, at: usize, candidate: &Candidate) -> Option<()> {
        let claims = Claims::of(candidate);
        let all = [name_claim(&candidate.service_name)];
        let mut all = all.iter().chain(claims.as_slice());
        all.all(|claim| self.claims.insert(*claim)).then_some(())?;
        let end = |names: &str| u32::try_from(names.len()).ok();
        let start = end(&self.names)?;
        self.names.push_str(&candidate.service_name);
        let entry = Entry {
            rank: candidate.rank(),
            name: start..end(&self.names)?,
            instances: u32::try_from(candidate.containers.len()).unwrap_or(u32::MAX),
            claims,
            digest: Digest::of(candidate),
        };
        self.digest.add(entry.digest);
        room::for_one_more(&mut self.services);
        self.services.insert(at, entry);
        Some(())
    }

    fn remove(&mut self, at: usize) {
        let entry = self.services.remove(at);
        self.digest.take(entry.digest);
        let name = name_claim(self.name(&entry));
        for claim in [name].iter().chain(entry.claims.as_slice()) {
            self.claims.remove(claim);
        }
        self.unused += entry.name.len();
        if self.unused > self.names.len() / 2 {
            let mut names = String::with_capacity(self.names.len() - self.unused);
            for entry in &mut self.services {
                let bytes = entry.name.start as usize..entry.name.end as usize;
                let start = names.len() as u32;
                names.push_str(self.names.get(bytes).unwrap_or_default());
                entry.name = start..names.len() as u32;
            }
            (self.names, self.unused) = (names, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{self, Instance, Running};

    fn candidate(name: &str, mode: Mode, predicate: &str, ids: &[&str]) -> Candidate {
        Candidate {
            service_name: name.to_owned(),
            port: 80,
            config_mode: mode,
            predicate: predicate.to_owned(),
            cookie: None,
            containers: ids
                .iter()
                .map(|id| Instance {
                    id: (*id).to_owned(),
                    ip: format!("10.0.0.{id}"),
                })
                .collect(),
        }
    }

    fn host(name: &str, ids: &[&str]) -> Candidate {
        candidate(name, Mode::Host, &format!("{name}.example.com"), ids)
    }

    fn payload(candidates: &[Candidate]) -> Payload {
        let mut payload = Payload {
            table: "t".to_owned(),
            running: candidates
                .iter()
                .flat_map(|one| {
                    one.containers.iter().map(|instance| Running {
                        service_name: one.service_name.clone(),
                        id: instance.id.clone(),
                        ip: instance.ip.clone(),
                    })
                })
                .collect(),
            candidates: candidates.to_vec(),
        };
        registry::sort(&mut payload);
        payload
    }

    fn roster(candidates: &[Candidate]) -> Option<Roster> {
        Roster::empty(None, "t", 0, 0).filled(&payload(candidates), &Selection::default())
    }

    /// Edits the first payload's roster towards the second; the candidates that the edits make of the first.
    fn edited(before: &[Candidate], after: &[Candidate]) -> Option<Vec<Candidate>> {
        let mut roster = roster(before)?;
        let names = |all: &[Candidate]| -> Vec<String> {
            all.iter().map(|one| one.service_name.clone()).collect()
        };
        let touched: Set<String> = names(before)
            .into_iter()
            .chain(names(after))
            .filter(|name| {
                let find =
                    |all: &[Candidate]| all.iter().find(|one| one.service_name == *name).cloned();
                find(before) != find(after)
            })
            .collect();
        let fresh = after
            .iter()
            .filter(|one| touched.contains(&one.service_name))
            .cloned()
            .collect();
        let mut made = payload(before).candidates;
        for Edit { at, was, now } in roster.edits(&touched, fresh)? {
            match (was, now) {
                (true, Some(now)) => made[at] = now,
                (true, None) => drop(made.remove(at)),
                (false, Some(now)) => made.insert(at, now),
                (false, None) => {}
            }
        }
        assert_eq!(roster.digest(), payload(after).digest());
        assert_eq!(roster.len(), after.len());
        Some(made)
    }

    #[test]
    fn edits_make_of_one_payload_the_other() {
        let all = [
            host("a", &["1"]),
            host("b", &["2", "3"]),
            host("c", &["4"]),
            candidate("p", Mode::Path, "api/v2 api", &["5"]),
            candidate("q", Mode::Path, "api/v1", &["6"]),
            candidate("r", Mode::Path, "x", &["7"]),
        ];
        let mut moved = all.to_vec();
        moved[4].predicate = "a/much/longer/path".to_owned();
        moved[0] = candidate("a", Mode::Path, "a", &["1"]);
        let mut other = all.to_vec();
        other[1].containers.pop();
        other[2].port = 81;
        other[3].cookie = Some("c".to_owned());
        for (before, after) in [
            (&all[..], &all[1..]),
            (&all[1..], &all[..]),
            (&all[..4], &all[2..]),
            (&all[..], &[]),
            (&[], &all[..]),
            (&all[..], &moved[..]),
            (&moved[..], &all[..]),
            (&all[..], &other[..]),
        ] {
            assert_eq!(edited(before, after), Some(payload(after).candidates));
        }
    }

    #[test]
    fn names_of_services_that_are_gone_are_not_kept() {
        let all: Vec<Candidate> = (0..20).map(|n| host(&format!("s{n}"), &["1"])).collect();
        let mut roster = roster(&all).expect("a roster");
        for turn in 0..100 {
            let one = &all[turn % all.len()];
            let name = Set::from_iter([one.service_name.clone()]);
            assert!(roster.edits(&name, Vec::new()).is_some());
            assert!(roster.edits(&name, vec![one.clone()]).is_some());
        }
        assert_eq!(roster.digest(), payload(&all).digest());
        let length: usize = all.iter().map(|one| one.service_name.len()).sum();
        assert!(roster.names.len() <= 2 * length + 3);
    }

    #[test]
    fn services_in_each_others_way_are_refused() {
        let all = [host("a", &["1"]), host("b", &["2"])];
        let same = [
            all[0].clone(),
            candidate("b", Mode::Host, "a.example.com", &["2"]),
        ];
        assert!(roster(&same).is_none());
        assert_eq!(edited(&all, &same), None);
        let name = [all[0].clone(), host("A", &["2"])];
        assert!(roster(&name).is_none());
        // One goes and another one takes over its name: that is fine.
        let heir = [candidate("b", Mode::Host, "a.example.com", &["2"])];
        assert_eq!(edited(&all, &heir), Some(heir.to_vec()));
    }

    #[test]
    fn instances_of_other_hosts_are_refused() {
        let mut payload = payload(&[host("a", &["1"])]);
        payload.running.push(Running {
            service_name: "a".to_owned(),
            id: "2".to_owned(),
            ip: "10.0.0.2".to_owned(),
        });
        let none = Roster::empty(None, "t", 0, 0).filled(&payload, &Selection::default());
        assert!(none.is_none());
    }
}
