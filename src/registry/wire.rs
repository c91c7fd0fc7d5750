//! What of a payload goes over the wire to the real Cosmos, and what cannot. Pure.
//!
//! Its template pastes values without quotes and matches whole host names only; its store is
//! poisoned by services without containers. Rules: what the real service's code was seen to do.

use std::collections::{HashMap, HashSet};

use super::{Candidate, Instance, Mode, Payload};
use crate::order;

/// Patterns that fit on the one acl line of the real service's template.
const PATTERNS_MAX: usize = 50;

/// Names that the real service's template would give to a backend and an acl, and HAProxy refuses:
/// words of its conditions, its own frontend (3.3), a reserved backend (3.4). `or` is one in any case.
const NAMES_REFUSED: &[&str] = &["or", "if", "unless", "http", "default"];

/// Whether the real service can route a candidate as it is meant; the reason if it cannot.
///
/// Its template matches whole host names only and pastes values without quotes.
/// Such a candidate is left out by the caller with this reason.
///
/// # Errors
/// The reason, for the operator.
pub fn can_send(candidate: &Candidate) -> std::result::Result<(), String> {
    let name = candidate.service_name.as_str();
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
    };
    if !is_name(name) {
        return Err(format!(
            "{name:?} cannot be a service name with Cosmos: letters, digits and `_.:-` only"
        ));
    }
    if NAMES_REFUSED.contains(&name) || name.eq_ignore_ascii_case("or") {
        return Err(format!(
            "Cosmos names the backend and the acl after the service, and HAProxy refuses the name {name:?}"
        ));
    }
    if candidate.patterns().count() > PATTERNS_MAX {
        return Err(format!(
            "more than {PATTERNS_MAX} predicates do not fit on Cosmos's one line"
        ));
    }
    if candidate.patterns().next().is_none() {
        return Err("it has no predicate".to_owned());
    }
    for pattern in candidate.patterns() {
        if candidate.config_mode == Mode::Host && pattern.starts_with('*') {
            return Err(format!(
                "Cosmos matches whole host names only, so the wildcard {pattern} would never match; the built-in registry knows wildcards"
            ));
        }
        let odd = pattern
            .find(|char: char| char.is_control() || !char.is_ascii() || "#\"'\\<>".contains(char));
        if odd.is_some() || pattern.starts_with('-') {
            return Err(format!(
                "Cosmos writes the predicate {pattern:?} into the config without quotes, where it would mean something else"
            ));
        }
    }
    if let Some(cookie) = candidate.cookie.as_deref()
        && !is_name(cookie)
    {
        return Err(format!("{cookie:?} cannot be a cookie's name with Cosmos"));
    }
    if let Some(bad) = candidate.containers.iter().find(|one| !is_name(&one.id)) {
        return Err(format!(
            "{:?} cannot be a container's id with Cosmos",
            bad.id
        ));
    }
    Ok(())
}

/// The candidates that Cosmos gets: those with an instance. One stored without containers would make
/// every later call fail (seen on the real service); without its backend it answers 503 all the same.
pub(super) fn sendable(payload: &Payload) -> impl Iterator<Item = &Candidate> {
    payload
        .candidates
        .iter()
        .filter(|candidate| !candidate.containers.is_empty())
}

/// A payload as it is sent. The template puts one `/` before a path predicate, so further ones get
/// theirs here.
pub(super) fn complete(payload: &Payload) -> Payload {
    let candidates = sendable(payload).map(|candidate| {
        let mut candidate = candidate.clone();
        if candidate.config_mode == Mode::Path {
            candidate.predicate = candidate.patterns().collect::<Vec<_>>().join(" /");
        }
        candidate.cookie = candidate.cookie.filter(|cookie| !cookie.is_empty());
        candidate
    });
    Payload {
        candidates: candidates.collect(),
        ..payload.clone()
    }
}

/// The payload that always works: nothing is running, everything is a candidate. Instances that only
/// `running` knew (those of other hosts) become containers of their service.
pub(super) fn without_running(payload: &Payload) -> Payload {
    let mut others: HashMap<&str, Vec<Instance>> = HashMap::new();
    for entry in &payload.running {
        others
            .entry(&entry.service_name)
            .or_default()
            .push(Instance {
                id: entry.id.clone(),
                ip: entry.ip.clone(),
            });
    }
    let mut again = Payload {
        table: payload.table.clone(),
        running: Vec::new(),
        candidates: payload.candidates.clone(),
    };
    for candidate in &mut again.candidates {
        let mut known: HashSet<String> = candidate
            .containers
            .iter()
            .map(|one| one.id.clone())
            .collect();
        let others = others
            .remove(candidate.service_name.as_str())
            .unwrap_or_default();
        candidate.containers.extend(
            others
                .into_iter()
                .filter(|one| known.insert(one.id.clone())),
        );
        order::sort(&mut candidate.containers);
    }
    again
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cosmos_cannot_route_is_left_out_with_a_reason() {
        let good = Candidate {
            service_name: "web".to_owned(),
            port: 80,
            config_mode: Mode::Host,
            predicate: "web.example.com".to_owned(),
            cookie: Some("SID".to_owned()),
            containers: vec![Instance {
                id: "aaaaaaaaaaaa".to_owned(),
                ip: "10.0.0.1".to_owned(),
            }],
        };
        assert_eq!(can_send(&good), Ok(()));
        let with = |change: &dyn Fn(&mut Candidate)| {
            let mut candidate = good.clone();
            change(&mut candidate);
            can_send(&candidate).expect_err("not for Cosmos")
        };
        assert!(with(&|c| c.predicate = "*.example.com".to_owned()).contains("wildcard"));
        assert!(with(&|c| c.predicate = "a#b".to_owned()).contains("without quotes"));
        assert!(with(&|c| c.predicate = "-f".to_owned()).contains("without quotes"));
        assert!(with(&|c| c.predicate = " ".to_owned()).contains("no predicate"));
        assert!(with(&|c| c.predicate = "a ".repeat(51)).contains("more than 50"));
        for name in ["or", "Or"] {
            assert!(with(&|c| c.service_name = name.to_owned()).contains("refuses the name"));
        }
        assert!(with(&|c| c.service_name = "a b".to_owned()).contains("service name"));
        assert!(with(&|c| c.cookie = Some("a b".to_owned())).contains("cookie"));
        assert!(with(&|c| c.containers[0].id = "x y".to_owned()).contains("id"));
    }
}
