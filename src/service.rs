//! Containers -> services, and for each container what became of it and why. Pure.
//!
//! One bad container never stops the others: it is left out with the reason. Where containers disagree
//! the oldest one's word counts, so that a newcomer cannot take over what runs; who lost is reported.
//! The same containers give the same services in the same order, whatever order they came in.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crate::address::{Address, Source};
use crate::description::{Description, Reading};
use crate::docker::container::{Container, Health};
use crate::order;
use crate::registry::{self, Candidate, Instance, Mode, Payload, Running};
use crate::room;
use crate::sorted::Set;

/// PORT when it is not given and not exactly one TCP port is exposed.
const DEFAULT_PORT: u16 = 80;
/// Shortest form of a container id, as Docker shows it; a server's name in HAProxy.
const SHORT_ID: usize = 12;

/// Two services that are in each other's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// One sentence with both names.
    pub sentence: String,
    /// Both are routed: only their names are easily taken for each other.
    pub both_routed: bool,
}

/// A monitored container with what was found out about it.
#[derive(Debug)]
pub struct Monitored<'a> {
    /// Docker's account.
    pub container: &'a Container,
    /// Its own account.
    pub reading: &'a Reading,
    /// Where it can be reached.
    pub address: Address,
    /// It got its stop signal.
    pub leaving: bool,
    /// Why it is held out for now, if it is.
    pub held: Option<String>,
}

/// What became of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// HAProxy routes to it.
    Routed {
        /// Its server's name in HAProxy.
        server: String,
        /// Its address.
        ip: IpAddr,
        /// Where the address comes from.
        source: Source,
        /// Its port.
        port: u16,
    },
    /// It will be routed when its address is known.
    Pending(String),
    /// It is not routed. `fault` when somebody must mend something, else it is the way of things.
    LeftOut {
        /// The rule or variable that decided it.
        why: String,
        /// Whether it is worth a warning.
        fault: bool,
    },
}

/// One container's verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Container id.
    pub id: String,
    /// Container name.
    pub name: String,
    /// The service it names, if its description is valid.
    pub service: Option<String>,
    /// What became of it.
    pub finding: Finding,
    /// What else its owner should know: settings of its own that do not count.
    pub notes: Vec<String>,
}

/// What the containers came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Services in the order of their rules. One whose containers are all out for now has no instances:
    /// its requests get 503, not another service's page.
    pub services: Vec<Candidate>,
    /// A verdict for each monitored container of which [`Told`] wants one, by name.
    pub verdicts: Vec<Verdict>,
    /// Services that are in each other's way.
    pub conflicts: Vec<Conflict>,
    /// How many containers are routed, with and without a verdict.
    pub routed: usize,
}

/// Of which containers a selection tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// Of all.
    All,
    /// Of those that are not routed, or of which there is more to say: a pass over thousands needs no more.
    Trouble,
}

/// A container whose description is valid.
struct Member<'a> {
    monitored: &'a Monitored<'a>,
    description: &'a Description,
    port: u16,
}

/// Sorts monitored containers into services. A service that the registry cannot route as it is meant is left
/// out, with the reasons; `can_route` is asked before its containers are in it.
pub fn select(
    monitored: &[Monitored<'_>],
    told: Told,
    can_route: impl Fn(&Candidate) -> Result<(), String>,
) -> Selection {
    let clashing = clashing(monitored);
    let mut selection = Selection::default();
    let mut members = room::passing(monitored.len());
    for monitored in monitored {
        match described(monitored) {
            Ok(member) => members.push(member),
            Err(finding) => {
                selection
                    .verdicts
                    .push(verdict(monitored, None, finding, Vec::new()));
            }
        }
    }
    order::sort_by(&mut members, |a, b| {
        let (one, other) = (a.monitored.container, b.monitored.container);
        let by_service = a.description.service.cmp(&b.description.service);
        by_service
            .then_with(|| one.created.cmp(&other.created))
            .then_with(|| one.id.cmp(&other.id))
    });
    let same = |a: &Member<'_>, b: &Member<'_>| a.description.service == b.description.service;
    // At once: a list that grows is there twice while it does.
    room::for_now(&mut selection.services, members.chunk_by(same).count());
    for members in members.chunk_by(same) {
        service(members, &clashing, told, &can_route, &mut selection);
    }
    order::sort_by(&mut selection.services, registry::in_order);
    selection.sort_verdicts();
    selection.conflicts = conflicts(&selection.services);
    selection
}

impl Selection {
    /// What a registry is asked: every service as a candidate, and all that runs, `elsewhere` being
    /// instances on other hosts. The services are handed over: thousands are not copied.
    pub fn payload(&mut self, table: &str, elsewhere: Vec<Running>) -> Payload {
        let candidates = std::mem::take(&mut self.services);
        let running_here = candidates.iter().flat_map(|service| {
            service.containers.iter().map(|instance| Running {
                service_name: service.service_name.clone(),
                id: instance.id.clone(),
                ip: instance.ip.clone(),
            })
        });
        let count = candidates.iter().map(|one| one.containers.len()).sum();
        let mut running: Vec<Running> = room::passing(count);
        running.extend(running_here);
        if !elsewhere.is_empty() {
            let here: HashSet<&str> = running.iter().map(|one| one.id.as_str()).collect();
            let others: Vec<Running> = elsewhere
                .into_iter()
                .filter(|other| !here.contains(other.id.as_str()))
                .collect();
            running.extend(others);
        }
        let mut payload = Payload {
            table: table.to_owned(),
            running,
            candidates,
        };
        registry::sort(&mut payload);
        payload
    }

    /// Exchanges the verdicts of these containers.
    pub fn replace(&mut self, containers: &Set<String>, verdicts: Vec<Verdict>) {
        self.verdicts
            .retain(|verdict| !containers.contains(&verdict.id));
        if verdicts.is_empty() {
            return;
        }
        self.verdicts.extend(verdicts);
        self.sort_verdicts();
    }

    fn sort_verdicts(&mut self) {
        order::sort_by(&mut self.verdicts, |a, b| {
            (&a.name, &a.id).cmp(&(&b.name, &b.id))
        });
    }

    /// The names of the services, until [`Selection::payload`] has handed them over.
    pub fn service_names(&self) -> Set<&str> {
        let services = self.services.iter();
        order::gathered(services.map(|one| one.service_name.as_str()))
    }

    /// How many containers are routed, pending and left out.
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |wanted: fn(&Finding) -> bool| {
            self.verdicts.iter().filter(|v| wanted(&v.finding)).count()
        };
        (
            self.routed,
            count(|finding| matches!(finding, Finding::Pending(_))),
            count(|finding| matches!(finding, Finding::LeftOut { .. })),
        )
    }
}

fn described<'a>(monitored: &'a Monitored<'a>) -> Result<Member<'a>, Finding> {
    let fault = |why: String| Finding::LeftOut { why, fault: true };
    match monitored.reading {
        Reading::Service(description) => {
            let port = description
                .port
                .unwrap_or(match *monitored.container.exposed_tcp_ports {
                    [only] => only,
                    _ => DEFAULT_PORT,
                });
            Ok(Member {
                monitored,
                description,
                port,
            })
        }
        Reading::NoService(problem) | Reading::Bad(problem) => Err(fault(problem.to_string())),
        Reading::Disabled => Err(Finding::LeftOut {
            why: "its label cosmonaut.enable is false".to_owned(),
            fault: false,
        }),
    }
}

/// Builds one service of its members, oldest first, and a verdict for each of them that is to be told of.
fn service(
    members: &[Member<'_>],
    clashing: &Set<&str>,
    told: Told,
    can_route: impl Fn(&Candidate) -> Result<(), String>,
    selection: &mut Selection,
) {
    // A container that is on its way out no longer says how its successors are routed.
    let leader = members
        .iter()
        .find(|member| !member.monitored.leaving)
        .or(members.first());
    let Some(leader) = leader else { return };
    let mut candidate = Candidate {
        service_name: leader.description.service.to_string(),
        port: leader.port,
        config_mode: leader.description.mode,
        predicate: leader.description.predicate.to_string(),
        cookie: leader.description.cookie.as_deref().map(str::to_owned),
        containers: Vec::with_capacity(members.len()),
    };
    let refusal = can_route(&candidate).err();
    for member in members {
        let mut notes = Vec::new();
        let placed = match (out_of_service(member.monitored), &refusal) {
            (_, Some(why)) => Err(Finding::LeftOut {
                why: why.clone(),
                fault: true,
            }),
            (Some(finding), None) => Err(finding),
            (None, None) if member.port != leader.port => Err(Finding::LeftOut {
                why: format!(
                    "PORT {} differs from PORT {} of {}, the oldest container of service {}; \
                     one service has one port",
                    member.port,
                    leader.port,
                    leader.monitored.container.name,
                    leader.description.service
                ),
                fault: true,
            }),
            (None, None) => {
                notes = differences(member, leader);
                reached(member)
            }
        };
        let finding = match placed {
            Ok((ip, source)) => {
                let server = server_name(&member.monitored.container.id, clashing);
                selection.routed += 1;
                candidate.containers.push(Instance {
                    id: server.to_owned(),
                    ip: ip.to_string(),
                });
                if told == Told::Trouble && notes.is_empty() {
                    continue;
                }
                Finding::Routed {
                    server: server.to_owned(),
                    ip,
                    source: source.clone(),
                    port: member.port,
                }
            }
            Err(finding) => finding,
        };
        selection.verdicts.push(verdict(
            member.monitored,
            Some(&leader.description.service),
            finding,
            notes,
        ));
    }
    if refusal.is_none() {
        order::sort_by(&mut candidate.containers, |a, b| a.id.cmp(&b.id));
        selection.services.push(candidate);
    }
}

/// Why a container takes no requests for now, if so.
fn out_of_service(monitored: &Monitored<'_>) -> Option<Finding> {
    let state = &monitored.container.state;
    let why = if monitored.leaving {
        "it got its stop signal".to_owned()
    } else if let Some(why) = &monitored.held {
        why.clone()
    } else if state.dead || !state.running {
        "it is not running".to_owned()
    } else if state.paused {
        "it is paused".to_owned()
    } else if state.restarting {
        "it is restarting".to_owned()
    } else {
        match state.health {
            Some(Health::Starting) => "its health check has not passed yet".to_owned(),
            Some(Health::Unhealthy) => "its health check fails".to_owned(),
            Some(Health::Healthy) | None => return None,
        }
    };
    Some(Finding::LeftOut { why, fault: false })
}

/// Where it can be reached, and how we know.
fn reached<'a>(member: &'a Member<'_>) -> Result<(IpAddr, &'a Source), Finding> {
    match &member.monitored.address {
        Address::Known { ip, source, .. } => Ok((*ip, source)),
        Address::Pending(why) => Err(Finding::Pending(why.clone())),
        Address::None(why) => Err(Finding::LeftOut {
            why: why.clone(),
            fault: true,
        }),
    }
}

/// The name of a container's server.
fn server_name<'a>(id: &'a str, clashing: &Set<&str>) -> &'a str {
    if clashing.contains(short(id)) {
        id
    } else {
        short(id)
    }
}

fn differences(member: &Member<'_>, leader: &Member<'_>) -> Vec<String> {
    let (own, rule) = (member.description, leader.description);
    let mut notes = Vec::new();
    if (own.mode, &own.predicate, &own.cookie) == (rule.mode, &rule.predicate, &rule.cookie) {
        return notes;
    }
    let mut note = |variable: &str, own: String, rule: String| {
        if own != rule {
            notes.push(format!(
                "its {variable} {own} does not count: {}, the oldest container of service {}, says {rule}",
                leader.monitored.container.name, leader.description.service
            ));
        }
    };
    note(
        "CONFIG_MODE",
        mode_word(own.mode).to_owned(),
        mode_word(rule.mode).to_owned(),
    );
    note(
        "PREDICATE",
        format!("{:?}", own.predicate),
        format!("{:?}", rule.predicate),
    );
    let cookie = |cookie: &Option<Box<str>>| cookie.as_deref().unwrap_or("(none)").to_owned();
    note("COOKIE", cookie(&own.cookie), cookie(&rule.cookie));
    notes
}

fn verdict(
    monitored: &Monitored<'_>,
    service: Option<&str>,
    finding: Finding,
    notes: Vec<String>,
) -> Verdict {
    Verdict {
        id: monitored.container.id.to_string(),
        name: monitored.container.name.to_string(),
        service: service.map(str::to_owned),
        finding,
        notes,
    }
}

/// The first twelve characters of a container's id, as Docker shows it.
pub fn short(id: &str) -> &str {
    id.get(..SHORT_ID).unwrap_or(id)
}

/// The short ids that more than one container has; those containers' servers are named by the whole id.
fn clashing<'a>(monitored: &'a [Monitored<'_>]) -> Set<&'a str> {
    let mut shorts: Vec<&str> = monitored
        .iter()
        .map(|one| short(&one.container.id))
        .collect();
    order::sort(&mut shorts);
    let twice = shorts.windows(2).filter_map(|pair| match pair {
        [one, next] if one == next => Some(*one),
        _ => None,
    });
    order::gathered(twice)
}

/// Services that claim one predicate, or differ in case alone. The first in rule order gets the requests.
fn conflicts(services: &[Candidate]) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut claims: HashMap<(Mode, &str), &str> = HashMap::with_capacity(services.len());
    let mut spelled: HashMap<String, &str> = HashMap::new();
    // Names without a capital are told apart as they stand.
    let upper = |service: &Candidate| service.service_name.bytes().any(|b| b.is_ascii_uppercase());
    let any_upper = services.iter().any(upper);
    for service in services {
        let name = service.service_name.as_str();
        for pattern in service.patterns() {
            match claims.get(&(service.config_mode, pattern)) {
                Some(first) => conflicts.push(Conflict {
                    sentence: format!(
                        "services {first} and {name} both claim {} {pattern}: {first} gets its requests, since its rule comes first",
                        mode_word(service.config_mode)
                    ),
                    both_routed: false,
                }),
                None => {
                    claims.insert((service.config_mode, pattern), name);
                }
            }
        }
        if any_upper && let Some(other) = spelled.insert(name.to_lowercase(), name) {
            conflicts.push(Conflict {
                sentence: format!(
                    "services {other} and {name} differ in upper and lower case alone; they are two services"
                ),
                both_routed: true,
            });
        }
    }
    conflicts
}

/// CONFIG_MODE's word.
fn mode_word(mode: Mode) -> &'static str {
    match mode {
        Mode::Host => "host",
        Mode::Path => "path",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description;
    use crate::docker::container::{Inspected, NetworkMode};
    use crate::docker::sample;
    use std::net::Ipv4Addr;

    /// Selects among these containers, each at 10.0.0.N of its second.
    fn selected(containers: &[Inspected]) -> Selection {
        let readings: Vec<Reading> = containers
            .iter()
            .map(|one| description::read(&one.env, &one.labels))
            .collect();
        let monitored: Vec<Monitored<'_>> = containers
            .iter()
            .zip(&readings)
            .map(|(one, reading)| Monitored {
                container: &one.container,
                reading,
                address: address(&one.container),
                leaving: one.container.hostname() == "leaving",
                held: None,
            })
            .collect();
        select(&monitored, Told::All, |_| Ok(()))
    }

    fn address(container: &Container) -> Address {
        match (
            &container.network_mode,
            container.networks.first().and_then(|network| network.ipv4),
        ) {
            (NetworkMode::None, _) => Address::None("has no network".to_owned()),
            (_, Some(ip)) => Address::Known {
                ip: IpAddr::V4(ip),
                others: Vec::new(),
                source: Source::Network("net".into()),
            },
            (_, None) => Address::Pending("its address is not known yet".to_owned()),
        }
    }

    /// One line a service, then one a container, then the conflicts.
    fn told(selection: &Selection) -> Vec<String> {
        let services = selection.services.iter().map(|service| {
            let instances: Vec<String> = service
                .containers
                .iter()
                .map(|one| format!("{}@{}", one.id, one.ip))
                .collect();
            let mode = mode_word(service.config_mode);
            format!(
                "{} {mode} {}:{} [{}]",
                service.service_name,
                service.predicate,
                service.port,
                instances.join(" ")
            )
        });
        let verdicts = selection.verdicts.iter().map(|verdict| {
            let finding = match &verdict.finding {
                Finding::Routed { ip, port, .. } => format!("routed {ip}:{port}"),
                Finding::Pending(why) => format!("pending: {why}"),
                Finding::LeftOut { why, fault } => {
                    format!("left out{}: {why}", if *fault { "!" } else { "" })
                }
            };
            let notes: String = verdict
                .notes
                .iter()
                .map(|note| format!("; {note}"))
                .collect();
            format!("{}: {finding}{notes}", verdict.name)
        });
        services
            .chain(verdicts)
            .chain(selection.conflicts.iter().map(|one| one.sentence.clone()))
            .collect()
    }

    fn web(id: &str, second: u8, more: &[&str]) -> Inspected {
        let env: Vec<&str> = ["SERVICE_NAME=web", "PREDICATE=web.example"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        sample::inspected(id, &format!("c-{id}"), second, &env)
    }

    #[test]
    fn containers_of_one_service_become_its_instances_in_any_order() {
        let (a, b) = (web("aaaaaaaaaaaa1", 2, &[]), web("bbbbbbbbbbbb2", 1, &[]));
        let expected = [
            "web host web.example:80 [aaaaaaaaaaaa@10.0.0.2 bbbbbbbbbbbb@10.0.0.1]",
            "c-aaaaaaaaaaaa1: routed 10.0.0.2:80",
            "c-bbbbbbbbbbbb2: routed 10.0.0.1:80",
        ];
        assert_eq!(told(&selected(&[a.clone(), b.clone()])), expected);
        assert_eq!(told(&selected(&[b, a])), expected);
    }

    #[test]
    fn ids_that_share_their_beginning_name_their_servers_in_full() {
        let selection = selected(&[web("aaaaaaaaaaaa1", 1, &[]), web("aaaaaaaaaaaa2", 2, &[])]);
        let ids: Vec<&str> = selection.services[0]
            .containers
            .iter()
            .map(|one| one.id.as_str())
            .collect();
        assert_eq!(ids, ["aaaaaaaaaaaa1", "aaaaaaaaaaaa2"]);
    }

    #[test]
    fn the_only_exposed_port_is_the_port() {
        let port = |exposed: &[u16], env: &[&str]| {
            let mut one = web("a", 1, env);
            one.container.exposed_tcp_ports = exposed.to_vec().into();
            selected(&[one]).services[0].port
        };
        assert_eq!(port(&[8080], &[]), 8080);
        assert_eq!(port(&[8080, 9090], &[]), 80);
        assert_eq!(port(&[], &[]), 80);
        assert_eq!(port(&[8080], &["PORT=81"]), 81);
    }

    #[test]
    fn the_oldest_container_says_how_the_service_is_routed() {
        let old = web("a", 1, &["PORT=8080"]);
        let other_rule = web(
            "b",
            2,
            &["PORT=8080", "PREDICATE=new.example", "COOKIE=SRV"],
        );
        let other_port = web("c", 3, &["PORT=9090"]);
        assert_eq!(
            told(&selected(&[other_port.clone(), other_rule, old.clone()])),
            [
                "web host web.example:8080 [a@10.0.0.1 b@10.0.0.2]",
                "c-a: routed 10.0.0.1:8080",
                "c-b: routed 10.0.0.2:8080; its PREDICATE \"new.example\" does not count: c-a, the oldest container of \
                 service web, says \"web.example\"; its COOKIE SRV does not count: c-a, the oldest container of service \
                 web, says (none)",
                "c-c: left out!: PORT 9090 differs from PORT 8080 of c-a, the oldest container of service web; one \
                 service has one port",
            ]
        );
        let mut leaving = old;
        leaving.container.own_hostname = Some("leaving".into());
        assert_eq!(
            told(&selected(&[leaving, other_port])),
            [
                "web host web.example:9090 [c@10.0.0.3]",
                "c-a: left out: it got its stop signal",
                "c-c: routed 10.0.0.3:9090",
            ],
            "one that leaves no longer decides"
        );
    }

    #[test]
    fn a_service_whose_containers_are_all_out_keeps_its_place() {
        let out = |change: fn(&mut Container)| {
            let mut one = web("a", 1, &[]);
            change(&mut one.container);
            told(&selected(&[one]))
        };
        for (change, why) in [
            (
                (|c| c.state.health = Some(Health::Unhealthy)) as fn(&mut Container),
                "left out: its health check fails",
            ),
            (
                |c| c.state.health = Some(Health::Starting),
                "left out: its health check has not passed yet",
            ),
            (|c| c.state.paused = true, "left out: it is paused"),
            (|c| c.state.restarting = true, "left out: it is restarting"),
            (
                |c| c.networks = Box::default(),
                "pending: its address is not known yet",
            ),
            (
                |c| c.network_mode = NetworkMode::None,
                "left out!: has no network",
            ),
        ] {
            assert_eq!(
                out(change),
                [
                    "web host web.example:80 []".to_owned(),
                    format!("c-a: {why}")
                ]
            );
        }
        let mut healthy = web("a", 1, &[]);
        healthy.container.state.health = Some(Health::Healthy);
        healthy.container.networks[0].ipv4 = Some(Ipv4Addr::new(10, 9, 9, 9));
        assert_eq!(told(&selected(&[healthy]))[1], "c-a: routed 10.9.9.9:80");
    }

    #[test]
    fn one_bad_container_stops_nobody_else() {
        let bad = sample::inspected(
            "b",
            "bad",
            2,
            &["SERVICE_NAME=web", "PREDICATE=web.example", "PORT=80a"],
        );
        let none = sample::inspected("n", "none", 3, &["SERVICENAME=web"]);
        let lines = told(&selected(&[web("a", 1, &[]), bad, none]));
        assert_eq!(lines[0], "web host web.example:80 [a@10.0.0.1]");
        assert!(
            lines[1].starts_with("bad: left out!: PORT=\"80a\": want a number"),
            "{lines:?}"
        );
        assert!(
            lines[3].contains("is \"SERVICENAME\" meant to be it?"),
            "{lines:?}"
        );
    }

    #[test]
    fn rules_stand_in_order_and_conflicts_are_told() {
        let one = |id: &str, second, name: &str, mode: &str, predicate: &str| {
            let env = [
                format!("SERVICE_NAME={name}"),
                format!("CONFIG_MODE={mode}"),
                format!("PREDICATE={predicate}"),
            ];
            let env: Vec<&str> = env.iter().map(String::as_str).collect();
            sample::inspected(id, name, second, &env)
        };
        let lines = told(&selected(&[
            one("a", 1, "api", "path", "api"),
            one("b", 2, "deep", "path", "api/v2"),
            one("c", 3, "zoo", "host", "x.example"),
            one("d", 4, "Ape", "host", "X.example"),
            one("e", 5, "ape", "host", "y.example"),
        ]));
        let rules: Vec<&str> = lines[..5]
            .iter()
            .filter_map(|line| line.split(' ').next())
            .collect();
        assert_eq!(rules, ["Ape", "ape", "zoo", "deep", "api"]);
        assert_eq!(
            lines[10..],
            [
                "services Ape and ape differ in upper and lower case alone; they are two services",
                "services Ape and zoo both claim host x.example: Ape gets its requests, since its rule comes first",
            ]
        );
    }

    #[test]
    fn a_payload_is_complete_truthful_and_always_the_same() {
        let mut selection = selected(&[web("b", 2, &[]), web("a", 1, &[])]);
        let other = |id: &str| Running {
            service_name: "web".to_owned(),
            id: id.to_owned(),
            ip: "10.9.0.1".to_owned(),
        };
        let payload = selection.payload("astro", vec![other("z"), other("a")]);
        assert_eq!(
            serde_json::to_string(&payload).expect("JSON"),
            r#"{"table":"astro","running":[{"serviceName":"web","id":"a","ip":"10.0.0.1"},{"serviceName":"web","id":"b","ip":"10.0.0.2"},{"serviceName":"web","id":"z","ip":"10.9.0.1"}],"candidates":[{"serviceName":"web","port":80,"configMode":"host","predicate":"web.example","containers":[{"id":"a","ip":"10.0.0.1"},{"id":"b","ip":"10.0.0.2"}]}]}"#
        );
        let empty = Selection::default().payload("astro", Vec::new());
        assert_eq!(
            serde_json::to_string(&empty).expect("JSON"),
            r#"{"table":"astro","running":[],"candidates":[]}"#
        );
    }

    #[test]
    fn what_the_registry_cannot_route_is_left_out() {
        let one = web("a", 1, &[]);
        let reading = description::read(&one.env, &one.labels);
        let monitored = [Monitored {
            container: &one.container,
            reading: &reading,
            address: address(&one.container),
            leaving: false,
            held: None,
        }];
        let selection = select(
            &monitored,
            Told::Trouble,
            |_| Err("no wildcards".to_owned()),
        );
        assert_eq!(told(&selection), ["c-a: left out!: no wildcards"]);
        assert_eq!(selection.counts(), (0, 0, 1));
    }
}
