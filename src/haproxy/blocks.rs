//! A config as the blocks of its services (acls, rules, backend) beside the last good one's, and the
//! texts that mix the two: for a config that HAProxy refuses because of some services. Pure.
//!
//! A service that is held back keeps its last good block, or is left out if it never had one. Its old
//! rules go where the last good config had them, behind the same neighbour: the order of rules decides who
//! gets a request. Of its old servers those that are gone from the new config are dropped, unless that
//! leaves none; one whose address another service has taken by now is dropped in any case.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use crate::config::{self, Config, Part, PartKind};
use crate::order;
use crate::sorted::Set;

/// A new config and the last good one, by services.
pub struct Blocks<'c> {
    new: &'c Config<'c>,
    new_parts: Vec<Part<'c>>,
    old: Option<&'c Config<'c>>,
    old_parts: Vec<Part<'c>>,
}

impl<'c> Blocks<'c> {
    /// `old` is the last good config, if there is one; neither carries our fingerprint.
    pub fn new(new: &'c Config<'c>, old: Option<&'c Config<'c>>) -> Self {
        Blocks {
            new_parts: new.parts(),
            new,
            old_parts: old.map(Config::parts).unwrap_or_default(),
            old,
        }
    }

    /// The new config's services, those whose block differs from the last good one's first.
    pub fn suspects(&self) -> (Vec<&'c str>, Vec<&'c str>) {
        let new = texts(self.new, &self.new_parts);
        let old = self
            .old
            .map(|old| texts(old, &self.old_parts))
            .unwrap_or_default();
        self.new
            .services()
            .into_iter()
            .partition(|service| new.get(service) != old.get(service))
    }

    /// Whether the last good config has a block of this service.
    pub fn has_old(&self, service: &str) -> bool {
        self.old_parts.iter().any(|part| part.service == service)
    }

    /// Tells one block of a service from another; empty for a service that is not there.
    pub fn digest(&self, service: &str) -> String {
        let mut text = String::new();
        for part in self.new_parts.iter().filter(|part| part.service == service) {
            text.push_str(piece(self.new, &part.bytes));
        }
        if text.is_empty() {
            return text;
        }
        config::fingerprint(&text)
    }

    /// The services that HAProxy's words point at, each with the line that names it.
    pub fn named_in(&self, words: &str) -> Vec<(&'c str, String)> {
        let lines: Vec<&str> = words.split("; ").collect();
        let any_alert = lines.iter().any(|line| line.contains("[ALERT]"));
        let mut names: HashMap<&str, &'c str> = HashMap::new();
        for line in self.new.lines() {
            // The third word of a rule is `if`; an acl's name is the second word of both.
            if let Some(service) = self.service_at(line.start) {
                match line.keyword() {
                    "acl" | "use_backend" | "backend" => names.insert(line.word(1), service),
                    _ => None,
                };
            }
        }
        let mut named: Vec<(&'c str, String)> = Vec::new();
        for line in lines {
            if any_alert && !line.contains("[ALERT]") {
                continue;
            }
            let by_number = line_number(line)
                .and_then(|number| self.new.lines().find(|line| line.number == number))
                .and_then(|line| self.service_at(line.start));
            let by_name = line.split('\'').skip(1).step_by(2).find_map(|quoted| {
                names
                    .get(quoted.split('/').next().unwrap_or(quoted))
                    .copied()
            });
            if let Some(service) = by_number.or(by_name)
                && !named.iter().any(|(known, _)| *known == service)
            {
                named.push((service, line.trim().to_owned()));
            }
        }
        named
    }

    /// The new config with these services as the last good one has them, or not at all.
    pub fn holding_back(&self, back: &Set<&str>) -> String {
        let new = self.new.text();
        let mut inserts: Vec<(usize, String)> = Vec::new();
        if let Some(old) = self.old {
            self.insert_rules(old, back, &mut inserts);
            self.insert_backends(old, back, &mut inserts);
        }
        // Stable: what goes to one place stays in the last good config's order.
        order::sort_by_key(&mut inserts, |(at, _)| *at);
        let cuts = self
            .new_parts
            .iter()
            .filter(|part| back.contains(part.service));
        let mut text = String::with_capacity(new.len());
        let mut inserts = inserts.into_iter().peekable();
        let mut from = 0;
        let mut copy = |text: &mut String, from: usize, to: usize| {
            let mut from = from;
            while let Some((at, insert)) = inserts.next_if(|(at, _)| *at <= to) {
                text.push_str(new.get(from..at).unwrap_or_default());
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text.push_str(&insert);
                from = at.max(from);
            }
            text.push_str(new.get(from..to).unwrap_or_default());
        };
        for cut in cuts {
            copy(&mut text, from, cut.bytes.start);
            from = cut.bytes.end;
        }
        copy(&mut text, from, new.len());
        text
    }

    /// Old rules of the services held back, each behind the line that it followed.
    fn insert_rules(&self, old: &Config<'_>, back: &Set<&str>, inserts: &mut Vec<(usize, String)>) {
        let rules = |parts: &'_ [Part<'c>]| -> Vec<Part<'c>> {
            let mut rules = parts.to_vec();
            rules.retain(|part| part.kind == PartKind::Rule);
            rules
        };
        let new_rules = rules(&self.new_parts);
        let Some(first) = new_rules.first().map(|part| part.bytes.start) else {
            return;
        };
        let ends: HashMap<&str, usize> = new_rules
            .iter()
            .filter(|part| !back.contains(part.service))
            .map(|part| (piece(self.new, &part.bytes).trim(), part.bytes.end))
            .collect();
        let mut at = first;
        for part in rules(&self.old_parts) {
            let line = piece(old, &part.bytes);
            if !back.contains(part.service) {
                at = ends.get(line.trim()).copied().unwrap_or(at);
            } else if self.is_new(part.service) {
                inserts.push((at, whole_lines(line)));
            }
        }
    }

    /// Old backends of the services held back, each where the new one stood.
    fn insert_backends(
        &self,
        old: &Config<'_>,
        back: &Set<&str>,
        inserts: &mut Vec<(usize, String)>,
    ) {
        let servers = |config: &Config<'_>, parts: &[Part<'c>]| {
            let mut by_service: HashMap<&str, Vec<ServerLine>> = HashMap::new();
            let backends: HashMap<usize, &'c str> = parts
                .iter()
                .filter(|part| part.kind == PartKind::Backend)
                .map(|part| (part.bytes.start, part.service))
                .collect();
            for backend in config.backends() {
                let Some(service) = backends.get(&backend.bytes().start) else {
                    continue;
                };
                let lines = backend.lines().filter(|line| line.keyword() == "server");
                by_service
                    .entry(service)
                    .or_default()
                    .extend(lines.map(|line| {
                        // With its line end, which only the last line of a file may lack.
                        let end = (line.start + line.text.len() + 1).min(config.text().len());
                        let bytes = line.start..end;
                        (line.word(1).to_owned(), line.word(2).to_owned(), bytes)
                    }));
            }
            by_service
        };
        let new_servers = servers(self.new, &self.new_parts);
        let old_servers = servers(old, &self.old_parts);
        let taken: HashMap<&str, &str> = new_servers
            .iter()
            .filter(|(service, _)| !back.contains(*service))
            .flat_map(|(service, servers)| {
                servers
                    .iter()
                    .map(|(_, address, _)| (address.as_str(), *service))
            })
            .collect();
        for part in self
            .old_parts
            .iter()
            .filter(|part| part.kind == PartKind::Backend && back.contains(part.service))
        {
            let Some(place) = self
                .new_parts
                .iter()
                .filter(|new| new.service == part.service)
                .max_by_key(|new| (new.kind == PartKind::Backend, new.bytes.start))
            else {
                continue;
            };
            let at = match place.kind {
                PartKind::Backend => place.bytes.start,
                PartKind::Rule => self.new.text().len(),
            };
            let still: HashSet<(&str, &str)> = new_servers
                .get(part.service)
                .into_iter()
                .flatten()
                .map(|(name, address, _)| (name.as_str(), address.as_str()))
                .collect();
            let own = old_servers.get(part.service);
            let own = || own.into_iter().flatten();
            let any_left =
                own().any(|(name, address, _)| still.contains(&(name.as_str(), address.as_str())));
            let mut text = String::new();
            let mut from = part.bytes.start;
            for (name, address, bytes) in own() {
                let gone = any_left && !still.contains(&(name.as_str(), address.as_str()));
                if (gone || taken.contains_key(address.as_str()))
                    && part.bytes.contains(&bytes.start)
                {
                    text.push_str(piece(old, &(from..bytes.start)));
                    from = bytes.end;
                }
            }
            text.push_str(piece(old, &(from..part.bytes.end)));
            inserts.push((at, whole_lines(&text)));
        }
    }

    fn is_new(&self, service: &str) -> bool {
        self.new_parts.iter().any(|part| part.service == service)
    }

    fn service_at(&self, byte: usize) -> Option<&'c str> {
        let at = self
            .new_parts
            .partition_point(|part| part.bytes.start <= byte);
        let part = self.new_parts.get(at.checked_sub(1)?)?;
        part.bytes.contains(&byte).then_some(part.service)
    }
}

/// Name and address of a server, and where its line lies.
type ServerLine = (String, String, Range<usize>);

/// The whole text of each service.
fn texts<'c>(config: &'c Config<'_>, parts: &[Part<'c>]) -> HashMap<&'c str, String> {
    let mut texts: HashMap<&str, String> = HashMap::new();
    for part in parts {
        texts
            .entry(part.service)
            .or_default()
            .push_str(piece(config, &part.bytes).trim_end());
    }
    texts
}

fn piece<'c>(config: &'c Config<'_>, bytes: &Range<usize>) -> &'c str {
    config.text().get(bytes.clone()).unwrap_or_default()
}

fn whole_lines(text: &str) -> String {
    let mut lines = text.to_owned();
    if !lines.ends_with('\n') {
        lines.push('\n');
    }
    lines
}

/// The number in HAProxy's `[FILE:NUMBER]`.
fn line_number(line: &str) -> Option<usize> {
    line.split('[')
        .filter_map(|piece| piece.split_once(']'))
        .filter_map(|(place, _)| place.rsplit_once(':'))
        .find_map(|(_, number)| number.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = "\
frontend f
    bind :80
    # cosmonaut: rules
    acl is_a hdr(host) -i 'a'
    use_backend be_a if is_a
    acl is_b hdr(host) -i 'bad
    use_backend be_b if is_b
    acl is_c path '/c'
    use_backend be_c if is_c

backend be_a
    server a1 10.0.0.1:80 check

backend be_b
    server b2 10.0.0.4:80 check

backend be_c
    server c1 10.0.0.3:80 check
";
    const OLD: &str = "\
frontend f
    bind :80
    # cosmonaut: rules
    acl is_a hdr(host) -i 'a'
    use_backend be_a if is_a
    acl is_c path '/c'
    use_backend be_c if is_c
    acl is_b path '/b'
    use_backend be_b if is_b

backend be_a
    server a1 10.0.0.1:80 check

backend be_b
    server b1 10.0.0.2:80 check
    server b2 10.0.0.4:80 check
    server b3 10.0.0.3:80 check

backend be_c
    server c1 10.0.0.9:80 check
";

    #[track_caller]
    fn check(back: &[&str], old: Option<&str>, expected: &str) {
        let new = Config::parse(NEW);
        let old = old.map(Config::parse);
        let blocks = Blocks::new(&new, old.as_ref());
        let back = back.iter().copied().collect();
        assert_eq!(blocks.holding_back(&back), expected);
    }

    #[test]
    fn a_service_held_back_keeps_its_last_good_block_in_its_old_place() {
        let expected = NEW
            .replace(
                "    acl is_b hdr(host) -i 'bad\n    use_backend be_b if is_b\n",
                "",
            )
            .replace(
                "    use_backend be_c if is_c\n",
                "    use_backend be_c if is_c\n    acl is_b path '/b'\n    use_backend be_b if is_b\n",
            );
        // b1 is gone, and b3's address is another service's now.
        check(&["b"], Some(OLD), &expected);
    }

    #[test]
    fn servers_that_are_all_gone_stay_unless_their_address_is_taken() {
        let old = OLD.replace("b2 10.0.0.4", "b4 10.0.0.8");
        let new = Config::parse(NEW);
        let config = Config::parse(&old);
        let text = Blocks::new(&new, Some(&config)).holding_back(&Set::from_iter(["b"]));
        assert!(text.contains("b1 10.0.0.2:80") && text.contains("b4 10.0.0.8:80"));
        assert!(!text.contains("b3"), "{text}");
    }

    #[test]
    fn a_service_that_never_was_good_is_left_out() {
        let expected = NEW
            .replace(
                "    acl is_b hdr(host) -i 'bad\n    use_backend be_b if is_b\n",
                "",
            )
            .replace("backend be_b\n    server b2 10.0.0.4:80 check\n\n", "");
        check(&["b"], None, &expected);
        let nothing = "frontend f\n    bind :80\n    # cosmonaut: rules\n\n";
        check(&["a", "b", "c"], None, nothing);
        check(&[], Some(OLD), NEW);
    }

    #[test]
    fn suspects_are_what_changed_and_what_haproxy_points_at() {
        let (new, old) = (Config::parse(NEW), Config::parse(OLD));
        let blocks = Blocks::new(&new, Some(&old));
        assert_eq!(blocks.suspects(), (vec!["b", "c"], vec!["a"]));
        for (words, expected) in [
            (
                "[ALERT]    (7) : config : parsing [/dev/stdin:6] : bad",
                vec!["b"],
            ),
            (
                "[WARNING] (7) : config : parsing [/dev/stdin:4] : odd; [ALERT] (7) : config : proxy 'be_c': bad",
                vec!["c"],
            ),
            (
                "[ALERT] : unable to find 'is_a'; [ALERT] : parsing [x:7] : bad",
                vec!["a", "b"],
            ),
            ("[ALERT] : parsing [x:2] : cannot bind", vec![]),
            ("no words at all", vec![]),
        ] {
            let named: Vec<&str> = blocks
                .named_in(words)
                .into_iter()
                .map(|one| one.0)
                .collect();
            assert_eq!(named, expected, "{words}");
        }
    }
}
