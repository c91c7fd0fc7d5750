//! What the operator was told of containers and services, so that nothing is told twice.

use crate::order;
use crate::service::{Finding, Selection};
use crate::sorted::{Map, Set};

/// What the operator was told already: each trouble is told once, and again only when it changed.
#[derive(Debug, Default)]
pub(super) struct Said {
    containers: Map<String, String>,
    conflicts: Set<String>,
}

impl Said {
    pub(super) fn say(&mut self, selection: &Selection) {
        let mut now = Map::default();
        for verdict in &selection.verdicts {
            let text = match &verdict.finding {
                Finding::LeftOut { why, fault: true } => format!("is left out: {why}"),
                _ if verdict.notes.is_empty() => continue,
                _ => verdict.notes.join("; "),
            };
            if self.containers.get(&verdict.id) != Some(&text) {
                log::warn!("container {}: {text}", verdict.name);
            }
            now.insert(verdict.id.clone(), text);
        }
        self.containers = now;
        let conflicts = selection.conflicts.iter().map(|one| &one.sentence);
        for conflict in conflicts.clone() {
            if !self.conflicts.contains(conflict) {
                log::warn!("{conflict}");
            }
        }
        self.conflicts = order::gathered(conflicts.cloned());
    }
}
