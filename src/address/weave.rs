//! What Weave Net knows of containers: who must be asked about, and what an answer means for one.
//!
//! Pure: answers are handed in (`report`, `status_dns`), the asking is `router`'s, the when is
//! `poller`'s.
//!
//! Which containers are Weave's:
//! - One on a network named `weave`, the name that Weave's plugin gives its network: Docker's
//!   inspect has the address. A network's driver would be the surer sign, but we may not ask the
//!   daemon for networks (`GET` of list, inspect and events is all that a socket proxy lets
//!   through), so a plugin network of another name is treated as any other Docker network, which
//!   gives the same address by `--network`, by being shared with HAProxy, or by being the only one.
//!   The router could confirm an address as its own, but then a container's address would hang on
//!   whether the router had been asked by then.
//! - One that Weave's Docker proxy started: its first program is `/w/w`, which waits for the
//!   interface. Inspect has only the bridge address, which is never used; the router knows the
//!   right one, some hundred milliseconds later.
//!
//! How an answer is read, per container id: weaveDNS has an entry once the interface is up, so that
//! is the signal. The allocator (`/ip`) knows the address some 0.3 s before the interface is there,
//! so it alone counts only for names that weaveDNS will never hold, or when waiting is over; and it
//! tells a container's own addresses from those that somebody else registered under its id.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use super::refusal;
use super::report::{Answer, Owned, Subnet};
use super::status_dns::ID_CHARS;
use crate::order;
use crate::sorted::Set;

/// The first program of every container that Weave's Docker proxy started.
pub const PROXY_ENTRYPOINT: &str = "/w/w";

/// The name that Weave's plugin gives its network.
pub const PLUGIN_NETWORK: &str = "weave";

/// Length of a full container id; shorter ones in weaveDNS are no containers.
const FULL_ID_CHARS: usize = 64;

/// The value of `--weave`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// The router is asked about containers that its proxy started.
    #[default]
    Auto,
    /// The router is asked about every container that could be attached, such as by `weave attach`.
    Always,
    /// Weave is not looked at; plain Docker rules for all.
    Never,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Mode::Auto),
            "always" => Ok(Mode::Always),
            "never" => Ok(Mode::Never),
            _ => Err(format!("{text:?} is not auto, always or never")),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Auto => "auto",
            Mode::Always => "always",
            Mode::Never => "never",
        })
    }
}

/// Whether Weave's Docker proxy started a container with this first program (`Path` of inspect).
pub fn is_proxied(entrypoint: &str) -> bool {
    entrypoint == PROXY_ENTRYPOINT
}

/// Whether an image is one of Weave's own, whose containers come and go with each start that its
/// proxy serves and with each call of the `weave` command. They must not cause a pass.
pub fn is_own_image(image: &str) -> bool {
    let name = image.split('@').next().unwrap_or(image);
    let Some((repository, last)) = name.rsplit_once('/') else {
        return false;
    };
    let last = last.split(':').next().unwrap_or(last);
    !repository.is_empty() && matches!(last, "weave" | "weaveexec" | "weavedb" | "net-plugin")
}

/// A name of another host's container, held by weaveDNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elsewhere {
    /// Its name less the domain: what is compared with service names.
    pub name: String,
    /// The container's id: 64 characters, or 12 from the command's output.
    pub id: String,
    /// Its primary address.
    pub ip: IpAddr,
}

/// What is known of one container that the router is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Its addresses, the primary one first; never empty.
    Found(&'a [IpAddr]),
    /// Not there yet; with the router's trouble, if it cannot be asked.
    Waiting(Option<&'a str>),
    /// The router has been asked for long enough; why it has none.
    Missing(&'a str),
}

/// All that has been learnt from the router so far. The poller fills it; address rules read it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct View {
    pub(super) found: HashMap<String, Vec<IpAddr>>,
    pub(super) missing: HashMap<String, String>,
    pub(super) elsewhere: Vec<Elsewhere>,
    pub(super) trouble: Option<String>,
}

impl View {
    /// What is known of the container with this full id. One never asked about is waiting.
    pub fn standing(&self, id: &str) -> Standing<'_> {
        if let Some(addresses) = self.found.get(id) {
            Standing::Found(addresses)
        } else if let Some(why) = self.missing.get(id) {
            Standing::Missing(why)
        } else {
            Standing::Waiting(self.trouble.as_deref())
        }
    }

    /// Why the router cannot be asked just now, if so.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Containers of other hosts whose name is one that `is_service` knows; sorted by name and id,
    /// one per name and id. `is_local` names the containers of this host by full id or by its first
    /// 12 characters, which is how the command's output calls them.
    pub fn elsewhere(
        &self,
        is_service: &dyn Fn(&str) -> bool,
        is_local: &dyn Fn(&str) -> bool,
    ) -> Vec<Elsewhere> {
        self.elsewhere
            .iter()
            .filter(|other| is_service(&other.name) && !is_local(&other.id))
            .cloned()
            .collect()
    }
}

/// One container, as an answer is searched for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query<'a> {
    /// Full id.
    pub id: &'a str,
    /// Host name with its domain, without a final dot; lower or upper case as it is.
    pub name: &'a str,
    /// Waiting for weaveDNS is over.
    pub late: bool,
    /// No other container asked about begins with the same 12 characters.
    pub alone: bool,
}

/// What an answer says of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Its addresses, the primary one first.
    Found(Vec<IpAddr>),
    /// Not there; the reason in case nothing better comes.
    Absent(String),
}

/// Searches an answer for one container.
pub(super) fn look_up(answer: &Answer, query: Query<'_>) -> Verdict {
    let absent = |why: &str| Verdict::Absent(why.to_owned());
    let mut live: Set<Ipv4Addr> = Set::default();
    let mut removed: Set<Ipv4Addr> = Set::default();
    let mut origins: Set<&str> = Set::default();
    for entry in answer.entries.iter().filter(|entry| {
        if answer.short {
            entry.id.len() == ID_CHARS && query.id.starts_with(&entry.id)
        } else {
            entry.id == query.id
        }
    }) {
        if entry.removed {
            removed.insert(entry.address);
        } else if refusal(entry.address.into()).is_none() {
            live.insert(entry.address);
            origins.insert(&entry.origin);
        }
    }
    removed.retain(|address| !live.contains(address));
    if answer.short && !live.is_empty() && (!query.alone || origins.len() > 1) {
        return absent(
            "the first 12 characters of its id, all that the weave command shows, \
                       stand for another container too",
        );
    }
    let owned: Option<Set<Ipv4Addr>> = match &answer.owned {
        Owned::Listed(listed) => listed.get(query.id).map(|addresses| {
            let addresses = addresses.iter().copied();
            order::gathered(addresses.filter(|address| refusal((*address).into()).is_none()))
        }),
        Owned::Off | Owned::Unknown => None,
    };
    let addresses = match owned {
        Some(owned) if !owned.is_empty() => {
            let attached = live.iter().any(|address| owned.contains(address));
            // Several addresses of one container come into weaveDNS one after the other, so what
            // the allocator lists is the whole; what was taken out of weaveDNS stays out.
            if attached || query.late || !is_named(answer, query.name) {
                let kept: Set<Ipv4Addr> = order::gathered(
                    owned
                        .iter()
                        .copied()
                        .filter(|address| !removed.contains(address)),
                );
                if kept.is_empty() { owned } else { kept }
            } else {
                Set::default()
            }
        }
        _ => live,
    };
    if addresses.is_empty() {
        return match (&answer.domain, &answer.owned) {
            (None, Owned::Off) => {
                absent("Weave's router runs without weaveDNS and without address allocation")
            }
            (_, Owned::Listed(_)) => {
                absent("Weave's router knows no address of it, neither in weaveDNS nor in /ip")
            }
            _ => absent("weaveDNS has no entry of it"),
        };
    }
    Verdict::Found(ordered(addresses, answer.default_subnet))
}

/// Whether weaveDNS will hold the container in time: its name is under the router's domain.
fn is_named(answer: &Answer, name: &str) -> bool {
    answer
        .domain
        .as_deref()
        .is_some_and(|domain| less_domain(name, domain).is_some())
}

/// A name without the domain and the dot between them; `None` when it is not under the domain.
fn less_domain<'a>(name: &'a str, domain: &str) -> Option<&'a str> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let domain = domain.strip_suffix('.').unwrap_or(domain);
    let at = name.len().checked_sub(domain.len())?;
    let (head, tail) = name.split_at_checked(at)?;
    let head = head.strip_suffix('.')?;
    (!head.is_empty() && tail.eq_ignore_ascii_case(domain)).then_some(head)
}

/// The primary address first: the lowest of the default subnet, else the lowest.
fn ordered(addresses: Set<Ipv4Addr>, subnet: Option<Subnet>) -> Vec<IpAddr> {
    let mut sorted: Vec<Ipv4Addr> = addresses.into_iter().collect();
    order::sort_by_key(&mut sorted, |address| {
        let inside = subnet.is_some_and(|subnet| subnet.contains(*address));
        (!inside, *address)
    });
    sorted.into_iter().map(IpAddr::V4).collect()
}

/// The names of other hosts' containers in an answer, sorted.
///
/// From the API an entry is another host's by its origin; the command's output does not say which
/// peer we are, so all of it is kept and the reader leaves out the containers that run here.
pub fn elsewhere(answer: &Answer) -> Vec<Elsewhere> {
    let mut names: Vec<((String, &str), Ipv4Addr)> = Vec::new();
    for entry in &answer.entries {
        let chars = if answer.short {
            ID_CHARS
        } else {
            FULL_ID_CHARS
        };
        let is_container = entry.id.len() == chars
            && entry
                .id
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_ours = answer.peer.as_deref() == Some(entry.origin.as_str());
        if entry.removed || is_ours || !is_container || refusal(entry.address.into()).is_some() {
            continue;
        }
        let name = if answer.short {
            // The command has trimmed the domain; a name that still ends in a dot is not under it.
            Some(entry.name.as_str()).filter(|name| !name.ends_with('.'))
        } else {
            answer
                .domain
                .as_deref()
                .and_then(|domain| less_domain(&entry.name, domain))
        };
        if let Some(name) = name {
            names.push(((name.to_owned(), &entry.id), entry.address));
        }
    }
    order::sort(&mut names);
    names
        .chunk_by(|(one, _), (other, _)| one == other)
        .filter_map(|same| {
            let ((name, id), _) = same.first()?;
            let addresses = order::gathered(same.iter().map(|(_, address)| *address));
            Some(Elsewhere {
                name: name.clone(),
                id: (*id).to_owned(),
                ip: *ordered(addresses, answer.default_subnet).first()?,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{report, status_dns};
    use super::*;

    macro_rules! data {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/weave/", $name))
        };
    }

    const API: &str = "ff7a8ce6a29f52f2ba3385e0bcc809240ef592d474eb025f5057f8c74350cd00";
    const MULTI: &str = "d01adc40567bb03820204396e0743404ef93821e54747c6b1c7bac0575597ee1";

    fn docker() -> Answer {
        let mut answer = report::report(data!("report-docker.json").as_bytes()).unwrap();
        let (listed, _) = report::owned(data!("ip-docker.json").as_bytes()).unwrap();
        answer.owned = Owned::Listed(listed);
        answer
    }

    fn entry(name: &str, id: &str, address: &str, removed: bool) -> report::Entry {
        report::Entry {
            name: name.into(),
            origin: "here".into(),
            id: id.into(),
            address: address.parse().unwrap(),
            removed,
        }
    }

    fn owned(id: &str, addresses: &[&str]) -> Owned {
        let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
        Owned::Listed(HashMap::from([(id.to_owned(), addresses)]))
    }

    /// Looks `id` up and compares the addresses, joined by blanks; "" for none.
    fn check(answer: &Answer, id: &str, name: &str, late: bool, expected: &str) {
        let query = Query {
            id,
            name,
            late,
            alone: true,
        };
        let seen = match look_up(answer, query) {
            Verdict::Found(addresses) => addresses
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Verdict::Absent(why) => {
                assert!(!why.is_empty());
                String::new()
            }
        };
        assert_eq!(seen, expected, "{id} {name} late={late}");
    }

    #[test]
    fn several_addresses_are_all_kept_and_the_default_subnets_lowest_is_first() {
        let answer = docker();
        let all = "10.32.0.3 10.40.1.1 10.99.1.5";
        check(&answer, MULTI, "multi.weave.local", false, all);
        let mut elsewhere = answer.clone();
        elsewhere.default_subnet = Subnet::parse("10.99.1.0/24");
        let all = "10.99.1.5 10.32.0.3 10.40.1.1";
        check(&elsewhere, MULTI, "multi.weave.local", false, all);
        // Half of them registered yet: the allocator has the whole, so the primary is stable.
        let mut half = answer.clone();
        half.entries
            .retain(|e| e.id != MULTI || e.address.octets()[1] == 99);
        check(
            &half,
            MULTI,
            "multi.weave.local",
            false,
            "10.32.0.3 10.40.1.1 10.99.1.5",
        );
        // Without the allocator, what weaveDNS has.
        half.owned = Owned::Off;
        check(&half, MULTI, "multi.weave.local", false, "10.99.1.5");
    }

    #[test]
    fn the_allocator_alone_is_believed_only_when_weavedns_will_not_say() {
        let mut answer = Answer {
            domain: Some("weave.local.".into()),
            owned: owned(API, &["10.32.0.1"]),
            ..Answer::default()
        };
        for (name, early) in [
            ("api.weave.local", ""),
            ("API.Weave.Local", ""),
            ("api.eu.weave.local", ""),
            ("custom", "10.32.0.1"),
            ("", "10.32.0.1"),
            ("weave.local", "10.32.0.1"),
            (".weave.local", "10.32.0.1"),
            ("api.myweave.local", "10.32.0.1"),
            ("éweave.local", "10.32.0.1"),
        ] {
            check(&answer, API, name, false, early);
            check(&answer, API, name, true, "10.32.0.1");
        }
        answer.domain = None;
        check(&answer, API, "api.weave.local", false, "10.32.0.1");
        answer.owned = Owned::Off;
        check(&answer, API, "api.weave.local", true, "");
        answer.owned = Owned::Unknown;
        check(&answer, API, "api.weave.local", true, "");
    }

    #[test]
    fn what_is_not_the_containers_own_is_left_out() {
        let name = "api.weave.local";
        let mut answer = Answer {
            domain: Some("weave.local.".into()),
            entries: vec![entry("api.weave.local.", API, "10.32.200.1", false)],
            owned: owned(API, &["10.32.0.1"]),
            ..Answer::default()
        };
        // Only somebody's dns-add so far: the container is not attached yet.
        check(&answer, API, name, false, "");
        check(&answer, API, name, true, "10.32.0.1");
        answer
            .entries
            .push(entry("api.weave.local.", API, "10.32.0.1", false));
        check(&answer, API, name, false, "10.32.0.1");
        // The allocator does not list this id (another host's, or it has none): weaveDNS is it.
        answer.owned = owned(MULTI, &["10.32.0.9"]);
        check(&answer, API, name, false, "10.32.0.1 10.32.200.1");
    }

    #[test]
    fn removed_unusable_and_foreign_entries_are_never_found() {
        let name = "api.weave.local";
        let mut answer = Answer {
            domain: Some("weave.local.".into()),
            entries: vec![
                entry("api.weave.local.", API, "10.32.0.1", true),
                entry("api.weave.local.", API, "0.0.0.0", false),
                entry("api.weave.local.", API, "127.0.0.1", false),
                entry("api.weave.local.", API, "169.254.1.1", false),
                entry("api.weave.local.", MULTI, "10.32.0.3", false),
                entry("api.weave.local.", &API[..12], "10.32.0.4", false),
                entry("api.weave.local.", "weave:expose", "10.32.0.5", false),
            ],
            ..Answer::default()
        };
        check(&answer, API, name, true, "");
        answer.owned = owned(API, &["0.0.0.0"]);
        check(&answer, API, name, true, "");
        // Taken out of weaveDNS while another address of it stays.
        answer.owned = owned(API, &["10.32.0.1", "10.40.0.7"]);
        answer
            .entries
            .push(entry("api.weave.local.", API, "10.40.0.7", false));
        check(&answer, API, name, false, "10.40.0.7");
        // Removed and registered again: live.
        answer
            .entries
            .push(entry("www.weave.local.", API, "10.32.0.1", false));
        check(&answer, API, name, false, "10.32.0.1 10.40.0.7");
        // A restart under a name that weaveDNS does not hold: old tombstones say nothing.
        answer.entries.truncate(1);
        answer.owned = owned(API, &["10.32.0.1"]);
        check(&answer, API, "custom", false, "10.32.0.1");
    }

    #[test]
    fn the_commands_short_ids_match_one_container_or_none() {
        let answer = status_dns::parse(data!("status-dns-docker.txt"));
        check(&answer, API, "api.weave.local", false, "10.32.0.1");
        check(
            &answer,
            MULTI,
            "multi.weave.local",
            false,
            "10.32.0.3 10.40.1.1 10.99.1.5",
        );
        let query = Query {
            id: API,
            name: "api.weave.local",
            late: true,
            alone: false,
        };
        assert!(matches!(look_up(&answer, query), Verdict::Absent(why) if why.contains("12")));
        let two_peers = status_dns::parse(
            "api 10.32.0.1 ff7a8ce6a29f 7a:c4:8b:a1:e2:9a\n\
             api 10.44.0.1 ff7a8ce6a29f 02:42:ac:11:00:02\n",
        );
        check(&two_peers, API, "api.weave.local", true, "");
        let odd = status_dns::parse(data!("status-dns-odd.txt"));
        check(&odd, "short", "short.weave.local", true, "");
        check(
            &odd,
            "3e8286044388886ee0875bb280f40fc655f55c2016794d6eee8a6012f9555f29",
            "six.weave.local",
            true,
            "",
        );
    }

    fn names(answer: &Answer) -> Vec<String> {
        elsewhere(answer)
            .iter()
            .map(|e| format!("{} {} {}", e.name, &e.id[..12], e.ip))
            .collect()
    }

    #[test]
    fn other_hosts_names_are_told_from_ours() {
        let report = report::report(data!("report-two-hosts-at-host1.json").as_bytes()).unwrap();
        let theirs = [
            "api 4f890c9f8853 10.44.0.0",
            "api 88c533fed917 10.44.0.2",
            "worker a9567b43ce01 10.44.0.1",
        ];
        assert_eq!(names(&report), theirs);
        let fixture = data!("derived-report-future-fields-not-ready.json");
        assert_eq!(names(&report::report(fixture.as_bytes()).unwrap()), theirs);
        assert!(names(&docker()).is_empty());

        let view = View {
            elsewhere: elsewhere(&report),
            ..View::default()
        };
        let api = view.elsewhere(&|name| name == "api", &|_| false);
        assert_eq!(api.len(), 2);
        assert!(api.iter().all(|other| other.name == "api"));
        let worker = view.elsewhere(&|name| name == "worker", &|id| {
            id.starts_with("a9567b43ce01")
        });
        assert!(worker.is_empty());

        // The command does not say which peer we are: who runs here is left out by id.
        let text = status_dns::parse(data!("status-dns-two-hosts-at-host1.txt"));
        let view = View {
            elsewhere: elsewhere(&text),
            ..View::default()
        };
        let local = ["bcc85ebcd9a9", "312f9dab5e35", "d8694be562d1"];
        let seen = view.elsewhere(&|_| true, &|id| local.contains(&id));
        let seen: Vec<String> = seen
            .iter()
            .map(|e| format!("{} {} {}", e.name, e.id, e.ip))
            .collect();
        assert_eq!(seen, theirs);
    }

    #[test]
    fn other_hosts_odd_names_are_no_services() {
        let mut answer = report::report(data!("report-odd.json").as_bytes()).unwrap();
        answer.peer = Some("another".into());
        let seen = names(&answer);
        assert!(seen.contains(&"Mixed 3b8b91c75627 10.32.0.15".to_owned()));
        assert!(seen.contains(&"Frontend 75a288c0d689 10.32.0.11".to_owned()));
        for id in [
            "7e6e9877fff0",
            "3e8286044388",
            "659a7fb2af47",
            "weave:exp",
            "sp id",
        ] {
            assert!(!seen.iter().any(|name| name.contains(id)), "{id}");
        }
    }

    #[test]
    fn weaves_own_images() {
        for (image, own) in [
            ("weaveworks/weaveexec:2.8.1", true),
            ("weaveworks/weave", true),
            ("rajchaudhuri/weave:2.9.0", true),
            ("registry:5000/weaveworks/weaveexec@sha256:0123", true),
            ("weaveworks/weavedb:latest", true),
            ("weave", false),
            ("shop/weaver:1", false),
            ("weaveworks/scope:1", false),
            ("weaveexec:1", false),
            ("", false),
            ("/weave", false),
        ] {
            assert_eq!(is_own_image(image), own, "{image}");
        }
    }

    #[test]
    fn modes() {
        for mode in [Mode::Auto, Mode::Always, Mode::Never] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        assert!("Auto".parse::<Mode>().is_err());
    }
}
