//! What differs between two configs, in words for a log line. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::{BackendChange, Config};

/// Most servers that are named one by one; past that they are counted.
const NAMED_MAX: usize = 6;

/// Says what `new` changes against `old`, `None` being no config at all.
pub fn in_words(old: Option<&str>, new: &str) -> String {
    let new = servers(&Config::parse(new));
    let Some(old) = old else {
        return format!("first config: {}", size(&new));
    };
    let old = servers(&Config::parse(old));

    let mut words = Vec::new();
    for backend in new.keys().filter(|backend| !old.contains_key(*backend)) {
        words.push(format!("added {}", service(backend)));
    }
    for backend in old.keys().filter(|backend| !new.contains_key(*backend)) {
        words.push(format!("removed {}", service(backend)));
    }
    let difference = |from: &Servers, to: &Servers, sign: char| -> Vec<String> {
        let none = BTreeSet::new();
        to.iter()
            .flat_map(|(backend, servers)| {
                let known = from.get(backend).unwrap_or(&none);
                servers
                    .difference(known)
                    .map(move |server| format!("{sign}{}/{server}", service(backend)))
            })
            .collect()
    };
    let added = difference(&old, &new, '+');
    let removed = difference(&new, &old, '-');
    if added.len() + removed.len() <= NAMED_MAX {
        words.extend(added.into_iter().chain(removed));
    } else {
        words.push(format!("+{} -{} servers", added.len(), removed.len()));
    }
    if words.is_empty() {
        words.push("rules or settings changed".to_owned());
    }
    format!("{}; now {}", words.join(", "), size(&new))
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

/// `NAME ADDRESS` of the servers of each backend.
type Servers = BTreeMap<String, BTreeSet<String>>;

fn servers(config: &Config<'_>) -> Servers {
    config
        .backends()
        .map(|backend| {
            let servers = backend
                .servers()
                .map(|server| format!("{} {}", server.name, server.address))
                .collect();
            (backend.name().to_owned(), servers)
        })
        .collect()
}

/// The service's name: backends of the built-in registry are prefixed.
fn service(backend: &str) -> &str {
    backend.strip_prefix("be_").unwrap_or(backend)
}

fn size(servers: &Servers) -> String {
    let plural = |n: usize, word: &str| {
        if n == 1 {
            format!("1 {word}")
        } else {
            format!("{n} {word}s")
        }
    };
    let all = servers.values().map(BTreeSet::len).sum();
    format!(
        "{}, {}",
        plural(servers.len(), "service"),
        plural(all, "server")
    )
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
