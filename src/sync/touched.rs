//! A pass that goes by what was touched: of thousands of services the few that may be others now are sorted out, and
//! exchanged in what the registry was asked for last and gave.
//!
//! It saves work and decides nothing: where it cannot be sure that the others are as they were, it leaves everything
//! to the pass that sorts all. In tests' builds the two are compared each time.

use std::time::{Duration, Instant};

use super::{Ended, Record, Result, Stage, Syncer, apply};
use crate::inventory::Touched;
use crate::order;
use crate::overlay::Overlay;
use crate::registry::Edit;
use crate::roster::{self, Roster};
use crate::service::{self, Told};
use crate::sorted::Set;

/// A minute after a pass that went by what was touched everything is sorted again, if no look at the list has done
/// that: what was remembered of it is written down then, and a mistake would not last.
const SORTED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// What a pass that goes by what was touched has found.
pub(super) struct Change {
    /// As it will be.
    roster: Roster,
    /// What makes the last payload this one.
    edits: Vec<Edit>,
    /// Ids of the containers concerned that are routed now.
    routed: Vec<String>,
    /// Ids of those that are not.
    gone: Vec<String>,
}

impl Syncer {
    /// Whether what was not touched is as it was: Cosmos wants to be told of all, and Weave's router and HAProxy's
    /// earlier config may tell of any container something new.
    pub(super) fn goes_by_touched(&self) -> bool {
        let alone = self.overlay.as_ref().is_none_or(Overlay::knows_nothing);
        alone
            && !self.registry.is_remote()
            && self.before.is_none()
            && self.flapping.next_due().is_none()
            && self.ready.is_off()
            && self.inventory.unseen().next().is_none()
    }

    /// What the containers that were touched since the last pass change of it. `None` where that is not all that may
    /// be another now, and everything is sorted again.
    pub(super) fn change(&mut self, mut roster: Roster, touched: Touched) -> Option<Change> {
        let Touched::These {
            containers,
            services,
        } = touched
        else {
            return None;
        };
        let before = roster.instances(&services);
        if services.len() > roster::TOUCHED_MAX
            || !self.goes_by_touched()
            || !self.haproxy.held().is_empty()
            || self.guard.doubts(before)
        {
            return None;
        }
        let mut members = Vec::new();
        for service in services.iter() {
            members.extend(self.inventory.of_service(service)?);
        }
        let ids = members.iter().map(|known| known.container.id.to_string());
        let containers: Set<String> = order::gathered(containers.into_iter().chain(ids));
        let count = members.len();
        let mut selection = self.select_of(members.into_iter(), count, Told::Trouble, &|_| None);
        let now = std::mem::take(&mut selection.services);
        let instances = now.iter().flat_map(|one| &one.containers);
        let routed: Set<&str> = order::gathered(instances.map(|one| one.id.as_str()));
        let (routed, gone): (Vec<String>, Vec<String>) = containers
            .iter()
            .cloned()
            .partition(|id| routed.contains(service::short(id)));
        let edits = roster.edits(&services, now)?;
        self.selection.routed = (self.selection.routed + selection.routed).checked_sub(before)?;
        self.selection.replace(&containers, selection.verdicts);
        Some(Change {
            roster,
            edits,
            routed,
            gone,
        })
    }

    /// The end of a pass that changes a few services of what the last one came to.
    pub(super) fn amend(
        &mut self,
        change: Change,
        started: Instant,
        record: &mut Record,
    ) -> Result<Ended> {
        let Change {
            roster,
            edits,
            routed,
            gone,
        } = change;
        self.said.say(&self.selection);
        record.counts = Some(self.counts(roster.len()));
        record.stage = Stage::Ask;
        record.answers = Some(self.answers());
        let looked = Instant::now();
        let request = roster.digest();
        if edits.is_empty() && self.haproxy.holds(&request) {
            log::debug!("nothing to do: HAProxy runs the config for these services already");
            self.guard.changed(&routed, &gone);
            self.roster = Some(roster);
            return Ok(Ended::Unchanged);
        }
        debug_assert!(self.is_whole(&request), "sorted again it is the same");
        log::debug!(
            "{} of {} services are others now",
            edits.len(),
            roster.len()
        );
        let last = self.haproxy.installed();
        let (text, exchanged) = match last.and_then(|last| self.registry.amended(&edits, last)) {
            Some(amended) => (amended.text, Some((amended.before, amended.after))),
            None => {
                let payload = self.payload();
                (self.registry.config(&payload)?, None)
            }
        };
        let exchanged = exchanged.as_ref();
        let exchanged = exchanged.map(|(before, after)| (before.as_str(), after.as_str()));
        record.ask = Some(looked.elapsed());
        let mounts = self.inventory.haproxy_mounts();
        let ended = apply(
            &mut self.haproxy,
            &self.changing,
            mounts,
            &text,
            &request,
            exchanged,
            record,
        )?;
        drop(text);
        self.guard.changed(&routed, &gone);
        self.roster = Some(roster);
        self.sort_again.get_or_insert(started + SORTED_AGAIN_AFTER);
        self.keep(ended, record);
        Ok(ended)
    }

    /// Whether what a pass that went by what was touched has come to is what all containers come to.
    fn is_whole(&self, request: &str) -> bool {
        let mut all = self.select(Told::Trouble, &|_| None);
        let same = (all.routed, &all.verdicts) == (self.selection.routed, &self.selection.verdicts);
        same && all.payload(&self.table, Vec::new()).digest() == request
    }
}
