//! The shrink guard: before most servers are taken away at once, somebody must have said why. Pure.
//!
//! A list can lie by omission: a daemon that is starting, a proxy in front of it that cuts an answer
//! short, a network that has lost its addresses. So a pass that would take away more than half of at least
//! four servers, of whose containers neither an event nor an inspect said that they stopped or changed,
//! has to look again first. What the second look says counts.

use std::collections::HashSet;

use crate::id::Id;
use crate::order;
use crate::registry::Payload;
use crate::room;
use crate::service::{self, Finding, Selection};
use crate::sorted::Set;

/// From this many servers on; of fewer, a half is quickly gone for good reasons.
const SERVERS_MIN: usize = 4;

/// What HAProxy last had, and what was heard since.
#[derive(Debug, Default)]
pub struct Guard {
    /// Container ids in the longest form known, sorted. There may be thousands, and they stay.
    routed: Vec<Id>,
    /// They are known: not before the first pass.
    known: bool,
    heard_of: Set<String>,
}

impl Guard {
    /// Docker said something of this container.
    pub fn heard_of(&mut self, id: &str) {
        self.heard_of.insert(service::short(id).to_owned());
    }

    /// Whether this life of ours knows what HAProxy has.
    pub fn is_new(&self) -> bool {
        !self.known
    }

    /// Has room for so many servers before they are known.
    pub fn make_room(&mut self, count: usize) {
        if self.routed.is_empty() {
            room::for_all(&mut self.routed, count);
        }
    }

    /// HAProxy has these servers: container ids, whole or short.
    pub fn has<'i>(&mut self, ids: impl IntoIterator<Item = &'i str>) {
        let mut routed: Vec<&str> = ids.into_iter().collect();
        order::sort(&mut routed);
        routed.dedup_by(|one, other| service::short(one) == service::short(other));
        room::for_all(&mut self.routed, routed.len());
        self.routed.extend(routed.into_iter().map(Id::new));
        self.known = true;
    }

    /// HAProxy is to have what this pass came to; `known` are the whole ids of this host's containers, sorted.
    /// [`Guard::took`] or [`Guard::did_not_take`] tells what became of it.
    pub fn will_have<'i>(&mut self, payload: &Payload, known: impl IntoIterator<Item = &'i str>) {
        let mut ids: Vec<&str> = payload.running.iter().map(|one| one.id.as_str()).collect();
        order::sort(&mut ids);
        let mut known = known.into_iter().peekable();
        for id in &mut ids {
            while known
                .next_if(|whole| service::short(whole) < service::short(id))
                .is_some()
            {}
            if let Some(whole) = known.peek().filter(|whole| whole.starts_with(*id)) {
                *id = whole;
            }
        }
        self.has(ids);
    }

    /// HAProxy has it.
    pub fn took(&mut self) {
        self.heard_of.clear();
    }

    /// HAProxy has what it had before, which has to be looked up, and what was heard since still counts.
    pub fn did_not_take(&mut self) {
        self.known = false;
    }

    /// The ids of servers that this pass would take away without a word of Docker's, if they are too many.
    pub fn objection(&self, payload: &Payload, selection: &Selection) -> Option<Vec<String>> {
        if self.is_new() {
            return None;
        }
        let routed = &self.routed;
        let running = payload.running.iter();
        let now: HashSet<&str> = running.map(|one| service::short(&one.id)).collect();
        // What inspect says of a container that is known: stopping, paused, not healthy.
        let explained: Set<&str> = order::gathered(
            selection
                .verdicts
                .iter()
                .filter(|verdict| matches!(verdict.finding, Finding::LeftOut { fault: false, .. }))
                .map(|verdict| service::short(&verdict.id)),
        );
        let missing: Vec<String> = routed
            .iter()
            .map(Id::text)
            .filter(|id| {
                let short = service::short(id);
                !now.contains(short) && !explained.contains(short) && !self.heard_of.contains(short)
            })
            .map(|id| id.to_owned())
            .collect();
        (routed.len() >= SERVERS_MIN && missing.len() * 2 > routed.len()).then_some(missing)
    }

    /// Whether there could be an [`objection`](Guard::objection) to a pass that takes away as many servers.
    pub fn doubts(&self, gone: usize) -> bool {
        self.is_new() || (self.size() >= SERVERS_MIN && gone * 2 > self.size())
    }

    /// HAProxy has the servers of these containers too, of which the whole ids are given, and no longer those of
    /// the ones that are gone.
    pub fn changed(&mut self, come: &[String], gone: &[String]) {
        self.heard_of.clear();
        if self.is_new() {
            return;
        }
        let routed = &mut self.routed;
        let place = |routed: &[Id], id: &str| {
            routed.binary_search_by(|one| service::short(&one.text()).cmp(service::short(id)))
        };
        for id in gone {
            if let Ok(at) = place(routed, id) {
                routed.remove(at);
            }
        }
        for id in come {
            if let Err(at) = place(routed, id) {
                room::for_one_more(routed);
                routed.insert(at, Id::new(id));
            }
        }
    }

    /// How many servers HAProxy has.
    pub fn size(&self) -> usize {
        self.routed.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Running;
    use crate::service::Verdict;

    fn payload(ids: &[&str]) -> Payload {
        Payload {
            table: String::new(),
            running: ids
                .iter()
                .map(|id| Running {
                    service_name: "s".to_owned(),
                    id: (*id).to_owned(),
                    ip: "10.0.0.1".to_owned(),
                })
                .collect(),
            candidates: Vec::new(),
        }
    }

    fn paused(ids: &[&str]) -> Selection {
        let verdict = |id: &&str| Verdict {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            service: None,
            finding: Finding::LeftOut {
                why: "it is paused".to_owned(),
                fault: false,
            },
            notes: Vec::new(),
        };
        Selection {
            verdicts: ids.iter().map(verdict).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn most_servers_do_not_go_without_a_word() {
        for (had, has, heard, inspected, expected) in [
            (
                &["a", "b", "c", "d"][..],
                &["a"][..],
                &[][..],
                &[][..],
                Some(&["b", "c", "d"][..]),
            ),
            (
                &["a", "b", "c", "d"],
                &[],
                &[],
                &[],
                Some(&["a", "b", "c", "d"]),
            ),
            (
                &["a", "b", "c", "d"],
                &["x", "y", "z"],
                &[],
                &[],
                Some(&["a", "b", "c", "d"]),
            ),
            // Half is not more than half, and three are too few.
            (&["a", "b", "c", "d"], &["a", "b"], &[], &[], None),
            (&["a", "b", "c"], &[], &[], &[], None),
            // Events or inspects have told of them.
            (&["a", "b", "c", "d"], &["a"], &["b"], &[], None),
            (&["a", "b", "c", "d"], &["a"], &[], &["c"], None),
            (
                &["a", "b", "c", "d"],
                &[],
                &["b"],
                &[],
                Some(&["a", "c", "d"]),
            ),
            (&[], &["a", "b", "c", "d"], &[], &[], None),
        ] {
            let mut guard = Guard::default();
            assert_eq!(guard.objection(&payload(has), &paused(inspected)), None);
            guard.will_have(&payload(had), []);
            guard.took();
            heard.iter().for_each(|id| guard.heard_of(id));
            let objection = guard.objection(&payload(has), &paused(inspected));
            let expected = expected.map(|ids| ids.iter().map(|&id| id.to_owned()).collect());
            assert_eq!(objection, expected, "{had:?} -> {has:?}");
        }
    }

    #[test]
    fn what_haproxy_did_not_take_is_not_what_it_has() {
        let had = payload(&["a", "b", "c", "d"]);
        let mut guard = Guard::default();
        guard.will_have(&had, []);
        guard.took();
        guard.heard_of("b");
        guard.will_have(&payload(&["a", "b"]), []);
        guard.did_not_take();
        assert!(guard.is_new());
        // As HAProxy's last good config says.
        guard.has(["a", "b", "c", "d"]);
        let objection = |guard: &Guard, has| guard.objection(&payload(has), &paused(&[]));
        let missing = Some(vec!["b".to_owned(), "c".to_owned(), "d".to_owned()]);
        assert_eq!(objection(&guard, &["a"]), None, "b was heard of");
        guard.took();
        assert_eq!(objection(&guard, &["a"]), missing);
    }

    #[test]
    fn ids_are_compared_by_their_first_twelve_characters() {
        let whole = [
            "1".repeat(64),
            "2".repeat(64),
            "3".repeat(64),
            "4".repeat(64),
        ];
        let short: Vec<&str> = whole.iter().map(|id| service::short(id)).collect();
        let mut guard = Guard::default();
        guard.will_have(&payload(&short), whole.iter().map(String::as_str));
        assert_eq!(guard.size(), 4);
        let objection = guard.objection(&payload(&[]), &Selection::default());
        assert_eq!(
            objection.as_deref(),
            Some(&whole[..]),
            "asked for by whole ids"
        );
        whole.iter().for_each(|id| guard.heard_of(id));
        assert_eq!(guard.objection(&payload(&[]), &Selection::default()), None);
    }
}
