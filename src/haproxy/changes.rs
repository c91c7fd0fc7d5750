//! What differs between two configs, in words for a log line. Pure.

use std::collections::HashMap;

use crate::config::{self, BackendChange, Config};
use crate::order;
use crate::sorted::Set;

/// Most servers that are named one by one; past that they are counted.
const NAMED_MAX: usize = 6;

/// Says what `new` changes against `old`, `None` being no config at all.
///
/// Only the backends whose text differs are read in full: a change of one among thousands costs little.
pub fn in_words(old: Option<&str>, new: &str) -> String {
    let Some(old) = old else {
        return format!("first config: {}", held(new));
    };
    exchanged(unlike(old, new), new)
}

/// The same, where the backends that differ are known: all that `new` has in the place of others.
pub fn exchanged((old, now): (&str, &str), new: &str) -> String {
    let held = held(new);
    let (old, new) = (Backends::of(old), Backends::of(now));

    let mut words = Vec::new();
    for backend in new.missing_in(&old) {
        words.push(format!("added {}", service(backend)));
    }
    for backend in old.missing_in(&new) {
        words.push(format!("removed {}", service(backend)));
    }
    let added = new.servers_missing_in(&old, '+');
    let removed = old.servers_missing_in(&new, '-');
    if added.len() + removed.len() <= NAMED_MAX {
        words.extend(added.into_iter().chain(removed));
    } else {
        words.push(format!("+{} -{} servers", added.len(), removed.len()));
    }
    if words.is_empty() {
        words.push("rules or settings changed".to_owned());
    }
    format!("{}; now {held}", words.join(", "))
}

/// The commands of the runtime socket that make these changes, but for options and health.
pub fn in_commands(changes: &[BackendChange<'_>]) -> Vec<String> {
    let mut commands = Vec::new();
    for change in changes {
        let backend = change.backend;
        let added = change.added.iter();
        commands
            .extend(added.map(|one| format!("add server {backend}/{} {}", one.name, one.address)));
        let moved = change.changed.iter();
        commands.extend(
            moved.map(|(_, one)| format!("set server {backend}/{} addr {}", one.name, one.address)),
        );
        let removed = change.removed.iter();
        commands.extend(removed.map(|one| format!("del server {backend}/{}", one.name)));
    }
    commands
}

/// What is left of two configs without what comes before their first backends, and without the backends that both
/// begin and end with: of thousands of services one has changed.
fn unlike<'c>(old: &'c str, new: &'c str) -> (&'c str, &'c str) {
    const BACKEND: &str = "\nbackend ";
    let backends = |text: &'c str| match text.find(BACKEND) {
        Some(at) if !text.starts_with(BACKEND.trim_start()) => text.split_at(at).1,
        _ => text,
    };
    let (old, new) = (backends(old), backends(new));
    let (one, other) = (old.as_bytes(), new.as_bytes());
    let pieces = one.chunks(PIECE).zip(other.chunks(PIECE));
    let both = old.get(..alike(pieces, false)).unwrap_or_default();
    let begin = both.rfind(BACKEND).unwrap_or(0);
    let (old, new) = (old.split_at(begin).1, new.split_at(begin).1);
    let (one, other) = (old.as_bytes(), new.as_bytes());
    let both = alike(one.rchunks(PIECE).zip(other.rchunks(PIECE)), true);
    let end = |text: &'c str| {
        let from = text.len() - both;
        let found = text.get(from..).and_then(|both| both.find(BACKEND));
        text.split_at(found.map_or(text.len(), |at| from + at)).0
    };
    (end(old), end(new))
}

/// Compared at once: bytes one by one take ten times as long.
const PIECE: usize = 1 << 10;

/// How many bytes are the same in these pieces, from their beginning on, or from their end.
fn alike<'c>(pieces: impl Iterator<Item = (&'c [u8], &'c [u8])>, from_end: bool) -> usize {
    let mut count = 0;
    for (one, other) in pieces {
        if one == other {
            count += one.len();
            continue;
        }
        let same = |(one, other): &(&u8, &u8)| one == other;
        return count
            + if from_end {
                let both = one.iter().rev().zip(other.iter().rev());
                both.take_while(same).count()
            } else {
                one.iter().zip(other).take_while(same).count()
            };
    }
    count
}

/// The backends of one config by name, each as its text.
struct Backends<'c>(HashMap<&'c str, &'c str>);

impl<'c> Backends<'c> {
    /// Reads no more than the first word of each line: a section begins where a line is not indented, as
    /// both registries write it.
    fn of(text: &'c str) -> Self {
        let mut texts = HashMap::new();
        let mut open: Option<(&str, usize)> = None;
        let mut at = 0;
        for line in text.split_inclusive('\n') {
            let start = at;
            at += line.len();
            if line.starts_with([' ', '\t', '\n', '\r', '#']) {
                continue;
            }
            if let Some((name, from)) = open.take() {
                texts.insert(name, text.get(from..start).unwrap_or_default());
            }
            let mut words = line.split_whitespace();
            if words.next() == Some("backend") {
                open = words.next().map(|name| (name, start));
            }
        }
        if let Some((name, from)) = open {
            texts.insert(name, text.get(from..).unwrap_or_default());
        }
        Backends(texts)
    }

    fn missing_in(&self, other: &Self) -> Set<&'c str> {
        let missing = self.0.keys().filter(|name| !other.0.contains_key(*name));
        order::gathered(missing.copied())
    }

    /// `SERVICE/NAME ADDRESS` of the servers that the other one lacks, with a sign before each.
    fn servers_missing_in(&self, other: &Self, sign: char) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, text) in &self.0 {
            let known = other.0.get(name).copied().unwrap_or_default();
            if known == *text {
                continue;
            }
            let known = servers(known);
            for server in servers(text)
                .iter()
                .filter(|server| !known.contains(*server))
            {
                missing.push(format!("{sign}{}/{server}", service(name)));
            }
        }
        order::sort(&mut missing);
        missing.dedup();
        missing
    }
}

/// How much a config holds.
fn held(text: &str) -> String {
    let (services, servers) = config::size(text);
    let plural = |n: usize, word: &str| {
        if n == 1 {
            format!("1 {word}")
        } else {
            format!("{n} {word}s")
        }
    };
    format!(
        "{}, {}",
        plural(services, "service"),
        plural(servers, "server")
    )
}

/// `NAME ADDRESS` of the servers in a backend's text.
fn servers(text: &str) -> Set<String> {
    let config = Config::parse(text);
    let backends = config.backends();
    let servers = backends.flat_map(|backend| backend.servers());
    order::gathered(servers.map(|server| format!("{} {}", server.name, server.address)))
}

/// The service's name: backends of the built-in registry are prefixed.
fn service(backend: &str) -> &str {
    backend.strip_prefix("be_").unwrap_or(backend)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "backend be_web\n    server a 10.0.0.1:80 check\nbackend be_api\n    server c 10.0.0.3:80\n";

    #[test]
    fn tells_services_and_servers() {
        for (old, new, expected) in [
            (None, OLD, "first config: 2 services, 2 servers"),
            (
                Some(OLD),
                "backend be_web\n    server a 10.0.0.1:80 check\n    server b 10.0.0.2:80 check\n",
                "removed api, +web/b 10.0.0.2:80, -api/c 10.0.0.3:80; now 1 service, 2 servers",
            ),
            (
                Some(OLD),
                OLD,
                "rules or settings changed; now 2 services, 2 servers",
            ),
        ] {
            assert_eq!(in_words(old, new), expected);
        }
        let many: String = (0..9)
            .map(|n| format!("    server s{n} 10.0.0.{n}:80\n"))
            .collect();
        let many = format!("backend be_web\n{many}");
        assert_eq!(
            in_words(Some(OLD), &many),
            "removed api, +9 -2 servers; now 1 service, 9 servers"
        );
    }

    #[test]
    fn one_of_many_is_found_wherever_it_stands() {
        let backend = |n: usize, address: &str| {
            format!("\nbackend be_s{n}\n    balance roundrobin\n    server a{n} {address}:80\n")
        };
        let config = |changed: Option<(usize, &str)>| -> String {
            let backends = (0..200).map(|n| match changed {
                Some((which, address)) if which == n => match address {
                    "" => String::new(),
                    _ => backend(n, address),
                },
                _ => backend(n, "10.0.0.1"),
            });
            format!("frontend f\n    bind :80\n{}", backends.collect::<String>())
        };
        let old = config(None);
        for n in [0, 1, 100, 198, 199] {
            let new = config(Some((n, "10.0.0.17")));
            assert_eq!(
                in_words(Some(&old), &new),
                format!(
                    "+s{n}/a{n} 10.0.0.17:80, -s{n}/a{n} 10.0.0.1:80; now 200 services, 200 servers"
                )
            );
            let (one, other) = unlike(&old, &new);
            assert!(one.len() < 300 && other.len() < 300);
            let without = config(Some((n, "")));
            assert_eq!(
                in_words(Some(&old), &without),
                format!("removed s{n}, -s{n}/a{n} 10.0.0.1:80; now 199 services, 199 servers")
            );
            assert_eq!(
                in_words(Some(&without), &old),
                format!("added s{n}, +s{n}/a{n} 10.0.0.1:80; now 200 services, 200 servers")
            );
        }
    }

    #[test]
    fn commands_of_the_runtime_socket() {
        let new = "backend be_web\n    server a 10.0.0.9:80 check\n    server b 10.0.0.2:80\nbackend be_api\n";
        let (old, new) = (Config::parse(OLD), Config::parse(new));
        let changes = crate::config::server_changes(&old, &new).expect("servers alone");
        assert_eq!(
            in_commands(&changes),
            [
                "add server be_web/b 10.0.0.2:80",
                "set server be_web/a addr 10.0.0.9:80",
                "del server be_api/c",
            ]
        );
    }
}
