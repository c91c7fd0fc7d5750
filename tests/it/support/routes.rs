//! A haproxy.cfg read back as what matters to a request: which rule leads to which service,
//! and which servers it has. Knows both registries' spelling, and nothing of our own code.

use std::collections::BTreeMap;

/// One `server` line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    pub id: String,
    /// `IP:PORT`, as written.
    pub address: String,
    pub cookie: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routes {
    /// Service -> its servers, sorted.
    pub services: BTreeMap<String, Vec<Server>>,
    /// Service -> the patterns that lead to it, in file order.
    pub rules: BTreeMap<String, Vec<String>>,
    /// Services in the order of their `use_backend` lines.
    pub order: Vec<String>,
}

impl Routes {
    pub fn of(config: &str) -> Routes {
        let mut routes = Routes::default();
        let mut backend: Option<String> = None;
        let mut acls: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in config.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["backend", name, ..] => {
                    let name = plain(name);
                    routes.services.entry(name.clone()).or_default();
                    backend = Some(name);
                }
                ["global" | "defaults" | "frontend" | "listen", ..] => backend = None,
                ["acl", name, rest @ ..] => acls
                    .entry((*name).to_owned())
                    .or_default()
                    .extend(patterns(rest)),
                ["use_backend", name, "if", acl, ..] => {
                    let name = plain(name);
                    if let Some(patterns) = acls.get(*acl) {
                        let known = routes.rules.entry(name.clone()).or_default();
                        for pattern in patterns {
                            if !known.contains(pattern) {
                                known.push(pattern.clone());
                            }
                        }
                    }
                    if !routes.order.contains(&name) {
                        routes.order.push(name);
                    }
                }
                ["server", id, address, options @ ..] => {
                    if let Some(backend) = &backend {
                        let cookie = options
                            .windows(2)
                            .find(|pair| pair[0] == "cookie")
                            .map(|pair| pair[1].to_owned());
                        routes
                            .services
                            .entry(backend.clone())
                            .or_default()
                            .push(Server {
                                id: (*id).to_owned(),
                                address: (*address).to_owned(),
                                cookie,
                            });
                    }
                }
                _ => {}
            }
        }
        for servers in routes.services.values_mut() {
            servers.sort();
        }
        routes
    }

    /// Service -> addresses, sorted: what most tests compare.
    pub fn addresses(&self) -> BTreeMap<String, Vec<String>> {
        self.services
            .iter()
            .map(|(name, servers)| {
                let mut all: Vec<String> = servers
                    .iter()
                    .map(|server| server.address.clone())
                    .collect();
                all.sort();
                (name.clone(), all)
            })
            .collect()
    }

    /// Every server's address, sorted.
    pub fn all(&self) -> Vec<String> {
        let mut all: Vec<String> = self.addresses().into_values().flatten().collect();
        all.sort();
        all
    }

    /// Whether some service has a server at this address.
    pub fn has(&self, address: &str) -> bool {
        self.all().iter().any(|one| one == address)
    }
}

/// A backend's name without the prefix of the built-in registry.
fn plain(name: &str) -> String {
    name.strip_prefix("be_").unwrap_or(name).to_owned()
}

/// The patterns of an acl: all words after the fetch and its flags, without quotes or a leading slash.
fn patterns(words: &[&str]) -> Vec<String> {
    words
        .iter()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .map(|word| word.trim_matches('\'').trim_start_matches('/').to_owned())
        .map(|word| word.trim_end_matches('/').to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[test]
fn both_spellings_are_read() {
    let cosmos = "frontend http\n    acl web hdr(host) -i a.example\n    use_backend web if web\nbackend web\n    server a1 10.0.0.1:80 check cookie S\n";
    let ours = "frontend http\n    acl is_web hdr(host),field(1,:) -i 'a.example'\n    use_backend be_web if is_web\nbackend be_web\n    server a1 10.0.0.1:80 check cookie S\nglobal\n    description x\n";
    assert_eq!(Routes::of(cosmos), Routes::of(ours));
    let routes = Routes::of(ours);
    assert_eq!(routes.rules["web"], ["a.example"]);
    assert_eq!(routes.all(), ["10.0.0.1:80"]);
    assert_eq!(routes.services["web"][0].cookie.as_deref(), Some("S"));
    assert_eq!(routes.order, ["web"]);
}
