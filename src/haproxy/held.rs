//! Services that HAProxy refuses, while others are served: what is known of each between two passes.
//!
//! A service that was refused is not tried again with each change of another one, which would cost two
//! checks each time; it is tried when its own block changes, and now and then, since a missing file or an
//! older HAProxy may be mended. It is named once.

use std::time::{Duration, Instant};

use super::bisect::Offender;
use super::blocks::Blocks;
use crate::order;
use crate::sorted::{Map, Set};

/// First and longest wait before a refused block is tried again.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// One service that is held back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldBack {
    /// HAProxy's words.
    pub words: String,
    /// It still has its last good block; else it is left out.
    pub kept: bool,
    block: String,
    wait: Duration,
    again: Instant,
}

/// All that are held back.
#[derive(Debug, Default)]
pub struct Held(Map<String, HeldBack>);

impl Held {
    /// The services of a new config that are held back without a question.
    pub fn unasked<'c>(
        &self,
        services: &[&'c str],
        blocks: &Blocks<'c>,
        now: Instant,
    ) -> Set<&'c str> {
        let unasked = |service: &&str| {
            self.0
                .get(*service)
                .is_some_and(|held| held.again > now && held.block == blocks.digest(service))
        };
        order::gathered(services.iter().copied().filter(unasked))
    }

    /// Takes in what a search found; `unasked` were held back before it and stay as they are.
    pub fn found(
        &mut self,
        offenders: &[Offender<'_>],
        unasked: &Set<&str>,
        blocks: &Blocks<'_>,
        now: Instant,
    ) {
        let before = std::mem::take(&mut self.0);
        for service in unasked.iter() {
            if let Some(held) = before.get(*service) {
                self.0.insert((*service).to_owned(), held.clone());
            }
        }
        for Offender { service, words } in offenders {
            let block = blocks.digest(service);
            let kept = blocks.has_old(service);
            let again = before.get(*service).filter(|held| held.block == block);
            let wait = again.map_or(RETRY.0, |held| (held.wait * 2).min(RETRY.1));
            if again.is_none_or(|held| held.kept != kept) {
                let fate = if kept {
                    "it keeps its last good rules and servers"
                } else {
                    "it is left out"
                };
                log::error!(
                    "HAProxy refuses service {service}: {words}; {fate}, all others are served, and it is tried again"
                );
            }
            self.0.insert(
                (*service).to_owned(),
                HeldBack {
                    words: words.clone(),
                    kept,
                    block,
                    wait,
                    again: now + wait,
                },
            );
        }
        for service in before.keys() {
            if self.0.contains_key(service) || blocks.digest(service).is_empty() {
                continue;
            }
            log::info!("HAProxy accepts service {service} now");
        }
    }

    /// Whether nothing is held back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The services that are held back, by name.
    pub fn all(&self) -> &Map<String, HeldBack> {
        &self.0
    }

    /// When one of them is to be tried again.
    pub fn next_due(&self) -> Option<Instant> {
        self.0.values().map(|held| held.again).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn text(predicate: &str) -> String {
        format!(
            "frontend f\n    # cosmonaut: rules\n    acl is_a hdr(host) -i '{predicate}'\n    use_backend be_a if is_a\nbackend be_a\n"
        )
    }

    #[test]
    fn a_refused_block_waits_and_a_changed_one_does_not() {
        let start = Instant::now();
        let (one, two) = (text("one"), text("two"));
        let (one, two) = (Config::parse(&one), Config::parse(&two));
        let (one, two) = (Blocks::new(&one, None), Blocks::new(&two, None));
        let offenders = [Offender {
            service: "a",
            words: "no".to_owned(),
        }];
        let mut held = Held::default();
        held.found(&offenders, &Set::default(), &one, start);
        let again = held.next_due().expect("a retry");
        assert_eq!(again, start + RETRY.0);
        assert!(held.unasked(&["a"], &one, start).contains("a"));
        assert!(held.unasked(&["a"], &one, again).is_empty());
        assert!(held.unasked(&["a"], &two, start).is_empty());
        held.found(&offenders, &Set::default(), &one, again);
        assert_eq!(held.next_due(), Some(again + RETRY.0 * 2));
        held.found(&[], &Set::from_iter(["a"]), &one, again);
        assert!(!held.is_empty());
        held.found(&[], &Set::default(), &one, again);
        assert!(held.is_empty());
    }
}
