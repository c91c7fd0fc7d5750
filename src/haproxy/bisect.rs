//! Finds the services that make HAProxy refuse a config, with few checks. Pure: the check is a closure.
//!
//! A check costs 30 to 110 ms, so the most suspicious are tried first: those that HAProxy's words point
//! at, then those that changed, by halving, then all. What cannot be cleared within the limit is held back.

use crate::order;
use crate::sorted::Set;

/// Most checks of one search: enough for five offenders among a thousand services.
pub const CHECKS_MAX: u32 = 48;

/// A service that HAProxy refuses, and its words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender<'s> {
    /// The service's name.
    pub service: &'s str,
    /// What HAProxy said.
    pub words: String,
}

/// What is known before the search.
#[derive(Debug)]
pub struct Suspects<'s> {
    /// Those that the words of the refusal point at, each with its own words.
    pub named: Vec<(&'s str, String)>,
    /// Those whose block is another than in the last good config.
    pub changed: Vec<&'s str>,
    /// All others.
    pub others: Vec<&'s str>,
}

/// Services that are tried together.
struct Group<'s> {
    services: Vec<&'s str>,
    /// Of the refusal that they had a part in.
    words: String,
    /// It is known that they are refused.
    refused: bool,
    /// The other half lies below it on the pile.
    first_half: bool,
}

/// Finds a set of services without whose new blocks HAProxy accepts the config, `words` being those of
/// its refusal. `check` says whether the config with these services held back is accepted; `None` is yes.
///
/// `None` when it is refused even with every service held back: then no service is to blame.
///
/// # Errors
/// The check's own.
pub fn search<'s, E>(
    suspects: &Suspects<'s>,
    words: &str,
    checks_max: u32,
    mut check: impl FnMut(&Set<&'s str>) -> Result<Option<String>, E>,
) -> Result<Option<Vec<Offender<'s>>>, E> {
    let mut checks = 0;
    let mut refused = |back: &Set<&'s str>| {
        checks += 1;
        check(back).map(|words| (words, checks))
    };
    if !suspects.named.is_empty() {
        let back = order::gathered(suspects.named.iter().map(|(service, _)| *service));
        if refused(&back)?.0.is_none() {
            let offender = |(service, words): &(&'s str, String)| Offender {
                service,
                words: words.clone(),
            };
            return Ok(Some(suspects.named.iter().map(offender).collect()));
        }
    }
    let all: Vec<&str> = suspects
        .changed
        .iter()
        .chain(&suspects.others)
        .copied()
        .collect();
    let mut group = suspects.changed.clone();
    let mut back: Set<&str> = order::gathered(group.iter().copied());
    if group.is_empty() || refused(&back)?.0.is_some() {
        if suspects.others.is_empty() {
            return Ok(None);
        }
        group = all;
        back = order::gathered(group.iter().copied());
        if refused(&back)?.0.is_some() {
            return Ok(None);
        }
    }

    // Held back: what is not cleared yet. Each group on the pile is tried with its new blocks.
    let mut offenders: Vec<Offender<'s>> = Vec::new();
    let mut pile = vec![Group {
        services: group,
        words: words.to_owned(),
        refused: true,
        first_half: false,
    }];
    while let Some(mut group) = pile.pop() {
        if !group.refused {
            let mut fewer = back.clone();
            for service in &group.services {
                fewer.remove(service);
            }
            let (said, done) = refused(&fewer)?;
            let Some(said) = said else {
                back = fewer;
                // Then it is the other half that makes the whole refused.
                if let Some(other) = pile.last_mut().filter(|_| group.first_half) {
                    other.refused = true;
                }
                continue;
            };
            group.words = said;
            if done >= checks_max {
                pile.push(group);
                break;
            }
        }
        if let [service] = group.services.as_slice() {
            offenders.push(Offender {
                service,
                words: group.words,
            });
            continue;
        }
        let (one, two) = group.services.split_at(group.services.len() / 2);
        for (services, first_half) in [(two, false), (one, true)] {
            pile.push(Group {
                services: services.to_vec(),
                words: group.words.clone(),
                refused: false,
                first_half,
            });
        }
    }
    for Group {
        services: group,
        words,
        ..
    } in pile
    {
        offenders.extend(group.into_iter().map(|service| Offender {
            service,
            words: words.clone(),
        }));
    }
    Ok(Some(offenders))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays a HAProxy that refuses these; returns offenders and the number of checks.
    fn play(
        changed: &[&'static str],
        others: &[&'static str],
        named: &[&'static str],
        bad: &[&str],
        checks_max: u32,
    ) -> (Option<Vec<String>>, u32) {
        let suspects = Suspects {
            named: named
                .iter()
                .map(|name| (*name, format!("no {name}")))
                .collect(),
            changed: changed.to_vec(),
            others: others.to_vec(),
        };
        let mut checks = 0;
        let check = |back: &Set<&str>| -> Result<_, ()> {
            checks += 1;
            let left: Vec<&str> = bad
                .iter()
                .copied()
                .filter(|bad| !back.contains(bad))
                .collect();
            Ok((!left.is_empty()).then(|| format!("no {}", left.join(" "))))
        };
        let found = search(&suspects, "refused", checks_max, check).expect("the check works");
        let names = found.map(|found| {
            let mut names: Vec<String> = found
                .into_iter()
                .map(|offender| {
                    assert!(!offender.words.is_empty());
                    offender.service.to_owned()
                })
                .collect();
            names.sort();
            names
        });
        (names, checks)
    }

    #[test]
    fn finds_exactly_the_offenders() {
        let six = ["a", "b", "c", "d", "e", "f"];
        for (changed, others, named, bad, checks) in [
            (&six[..1], &six[1..], &[][..], &["a"][..], 1),
            (&six[..1], &six[1..], &["a"], &["a"], 1),
            (&six[..], &[], &[], &["c"], 5),
            (&six[..], &[], &["a"], &["c", "f"], 8),
            (&six[..2], &six[2..], &[], &["e"], 6),
            (&six[..], &[], &[], &six, 11),
            (&[], &six, &[], &["b"], 6),
        ] {
            let (found, used) = play(changed, others, named, bad, CHECKS_MAX);
            let mut expected: Vec<String> = bad.iter().map(|&bad| bad.to_owned()).collect();
            expected.sort();
            assert_eq!(found, Some(expected), "{bad:?}");
            assert!(used <= checks, "{bad:?}: {used} checks");
        }
    }

    #[test]
    fn blames_no_service_for_what_stands_around_them() {
        let (found, checks) = play(&["a"], &["b"], &[], &["base"], CHECKS_MAX);
        assert_eq!((found, checks), (None, 2));
        assert_eq!(play(&[], &[], &[], &["base"], CHECKS_MAX), (None, 0));
    }

    #[test]
    fn one_among_a_thousand_takes_few_checks_and_many_end_at_the_limit() {
        let names: Vec<&'static str> = (0..1000)
            .map(|n| &*Box::leak(format!("s{n:04}").into_boxed_str()))
            .collect();
        let (found, checks) = play(&names, &[], &[], &["s0777"], CHECKS_MAX);
        assert_eq!(found, Some(vec!["s0777".to_owned()]));
        assert!(checks <= 18, "{checks}");
        let bad: Vec<&str> = names.iter().copied().step_by(7).collect();
        let (found, checks) = play(&names, &[], &[], &bad, CHECKS_MAX);
        let found = found.expect("it ends");
        assert!(bad.iter().all(|bad| found.iter().any(|name| name == bad)));
        assert!(checks <= CHECKS_MAX, "{checks}");
    }
}
