//! The containers: does the keyword find any, which are left out, can HAProxy reach the others, is Weave there.
//!
//! The same modules that a pass joins decide; only what is in the way is said, and how many are well.

use std::time::{Duration, Instant};

use super::listening::{self, Listening};
use super::{Budget, Finding, Registry, Subject};
use crate::address::weave::{self, View};
use crate::address::{self, Context, Source};
use crate::description::{self, Reading};
use crate::docker::Docker;
use crate::docker::container::{Container, Inspected, NetworkMode, Row};
use crate::inventory::Inventory;
use crate::registry::wire;
use crate::service::{self, Finding as Became, Monitored, Selection, Told, Verdict};
use crate::sorted::Map;
use crate::survey;
use crate::transport;

/// All inspects together; a hundred take 30 ms.
const INSPECT_MAX: Duration = Duration::from_secs(4);
/// Most containers that are named in one line.
const NAMED_MAX: usize = 5;
/// Most containers outside of the keyword that are looked into, for one that names a service.
const OTHERS_MAX: usize = 30;
/// All questions to Weave's router together.
const WEAVE_MAX: Duration = Duration::from_secs(2);
/// One connection to a server: within one host it stands within a millisecond.
const CONNECT_MAX: Duration = Duration::from_millis(300);
/// All connections together.
const CONNECTS_MAX: Duration = Duration::from_secs(3);

/// Looks at the containers of the list.
pub fn look(
    subject: &mut Subject,
    mut docker: Docker,
    rows: &[Row],
    local: bool,
    budget: Budget,
    tell: &mut dyn FnMut(Finding),
    haproxy: &Option<Inspected>,
) {
    let limit = match budget.take("containers", INSPECT_MAX) {
        Ok(limit) => limit,
        Err(finding) => return tell(finding),
    };
    let until = Instant::now() + limit;
    let Some(inventory) = surveyed(subject, &mut docker, rows, limit, tell) else {
        return;
    };
    let monitored = inventory.monitored().count();
    if monitored == 0 && inventory.unseen().next().is_some() {
        return;
    }
    if monitored == 0 {
        tell(nothing_monitored(subject, &mut docker, rows, until));
        return;
    }
    tell(Finding::ok(
        "keyword",
        if subject.keyword.is_empty() {
            format!(
                "no keyword: {} that names a service",
                count(monitored, "container")
            )
        } else {
            format!(
                "{:?} is in the name of {}",
                subject.keyword,
                count(monitored, "container")
            )
        },
    ));
    settle_weave(subject, &inventory, budget);
    let overlay = subject.overlay.as_ref().ok().and_then(Option::as_ref);
    let nothing = View::default();
    let find = |id: &str| inventory.find(id);
    let context = Context {
        network: subject.network.as_deref(),
        haproxy: inventory.haproxy(),
        host: subject.host,
        mode: overlay.map_or(weave::Mode::Never, |overlay| overlay.mode()),
        weave: overlay.map_or(&nothing, |overlay| overlay.view()),
        find: &find,
    };
    let all: Vec<Monitored<'_>> = inventory
        .monitored()
        .map(|known| Monitored {
            container: &known.container,
            reading: &known.reading,
            address: address::of(&known.container, &context),
            leaving: false,
            held: None,
        })
        .collect();
    let selection = service::select(&all, Told::All, |candidate| match subject.registry {
        Registry::Cosmos(..) => wire::can_send(candidate),
        _ => Ok(()),
    });
    tell(weave_finding(subject, &inventory, &context));
    verdicts(&selection, tell);
    for conflict in &selection.conflicts {
        let sentence = conflict.sentence.clone();
        tell(if conflict.both_routed {
            let mend = "nothing if that is meant; else spell SERVICE_NAME alike in all containers of a service";
            Finding::warn("service-names", sentence, mend)
        } else {
            let mend = "give each service a PREDICATE of its own; until then only the first one gets the requests";
            Finding::fail("predicates", sentence, mend)
        });
    }
    let haproxy = inventory
        .haproxy()
        .or(haproxy.as_ref().map(|found| &found.container));
    tell(shared_network(&selection, haproxy, &context));
    if local {
        tell(servers_answer(&selection, &inventory, budget));
    }
}

/// Looks at what concerns us; who could not be looked at is named with the reason.
fn surveyed(
    subject: &Subject,
    docker: &mut Docker,
    rows: &[Row],
    limit: Duration,
    tell: &mut dyn FnMut(Finding),
) -> Option<Inventory> {
    const MEND: &str = "see what holds it up: docker inspect, the daemon's load and log";
    let mut inventory = Inventory::new(subject.interest.clone());
    let survey = match survey::take(docker, &mut inventory, rows.to_vec(), limit) {
        Ok(survey) => survey,
        Err(error) => {
            tell(Finding::error("containers", &error, MEND));
            return None;
        }
    };
    let mut reasons: Map<&str, Vec<&str>> = Map::default();
    for row in rows {
        if let Some(why) = survey.unread.get(&row.id) {
            reasons.or_default(why).push(&row.name);
        }
    }
    for (why, names) in reasons {
        let names = named(names.into_iter());
        tell(Finding::fail(
            "containers",
            format!("Docker does not tell of {names}: {why}"),
            MEND,
        ));
    }
    Some(inventory)
}

/// No container is monitored: the commonest mistake, or a host that has none yet.
fn nothing_monitored(
    subject: &Subject,
    docker: &mut Docker,
    rows: &[Row],
    until: Instant,
) -> Finding {
    let others: Vec<&Row> = rows
        .iter()
        .filter(|row| row.name != subject.interest.haproxy && !row.name.is_empty())
        .collect();
    let lacks = if subject.keyword.is_empty() {
        "no running container names a service (SERVICE_NAME)".to_owned()
    } else {
        format!(
            "the name of no running container holds the keyword {:?}",
            subject.keyword
        )
    };
    if others.is_empty() {
        return Finding::warn(
            "keyword",
            format!("{lacks}: none runs"),
            "start one, with SERVICE_NAME and PREDICATE",
        );
    }
    let mut serving = Vec::new();
    for row in others.iter().take(OTHERS_MAX) {
        if Instant::now() >= until {
            break;
        }
        if let Ok(Some(found)) = docker.container(&row.id)
            && description::names_a_service(&description::read(&found.env, &found.labels))
        {
            serving.push(row.name.as_str());
        }
    }
    if serving.is_empty() {
        let names = named(others.iter().map(|row| row.name.as_str()));
        return Finding::warn(
            "keyword",
            format!("{lacks}; {names} run, and none names a service"),
            "set SERVICE_NAME and PREDICATE on the containers to be routed, and --keyword to a word of their names",
        );
    }
    Finding::fail(
        "keyword",
        format!(
            "{lacks}, but these name a service: {}",
            named(serving.iter().copied())
        ),
        format!(
            "--keyword {} (or COSMONAUT_KEYWORD), the empty word '' for every container that names a service, or rename them: docker rename",
            common_word(&serving)
        ),
    )
}

/// The longest beginning that the names share, without what comes after its last separator; else the first name.
fn common_word<'a>(names: &[&'a str]) -> &'a str {
    let Some(first) = names.first() else {
        return "''";
    };
    let shared = first
        .char_indices()
        .map(|(at, c)| at + c.len_utf8())
        .take_while(|end| {
            names
                .iter()
                .all(|name| name.get(..*end) == first.get(..*end))
        })
        .last()
        .unwrap_or(0);
    let word = first.get(..shared).unwrap_or_default();
    let word = match word.rfind(['-', '_', '.']) {
        Some(at) if names.len() > 1 || at > 0 => word.get(..at).unwrap_or_default(),
        _ => word,
    };
    if word.is_empty() { "''" } else { word }
}

/// Asks Weave's router for those who need it, for a moment.
fn settle_weave(subject: &mut Subject, inventory: &Inventory, budget: Budget) {
    let Ok(Some(overlay)) = &mut subject.overlay else {
        return;
    };
    let Some(limit) = budget.at_most(WEAVE_MAX) else {
        return;
    };
    let find = |id: &str| inventory.find(id);
    let nothing = View::default();
    let context = Context {
        network: None,
        haproxy: inventory.haproxy(),
        host: None,
        mode: overlay.mode(),
        weave: &nothing,
        find: &find,
    };
    let wanted: Vec<(String, String, String)> = inventory
        .monitored()
        .filter(|known| matches!(known.reading, Reading::Service(_)))
        .filter_map(|known| address::asks_router_for(&known.container, &context))
        .map(|owner| {
            (
                owner.id.to_string(),
                owner.hostname().to_owned(),
                owner.domainname.to_string(),
            )
        })
        .collect();
    overlay.want(&wanted, Instant::now());
    overlay.settle(limit);
}

fn weave_finding<'a>(
    subject: &Subject,
    inventory: &'a Inventory,
    context: &Context<'a>,
) -> Finding {
    match &subject.overlay {
        Err(error) => Finding::error("weave", error, "mend --weave-addr, or --weave never"),
        Ok(None) => Finding::ok("weave", "not used (--weave never)"),
        Ok(Some(_)) => {
            let needing = inventory
                .monitored()
                .filter(|known| address::asks_router_for(&known.container, context).is_some())
                .count();
            match (needing, context.weave.trouble()) {
                (0, _) => Finding::ok("weave", "no container gets its address from Weave's router"),
                (n, None) => Finding::ok(
                    "weave",
                    format!("the router answers; {} of it", count(n, "container")),
                ),
                (n, Some(trouble)) => Finding::fail(
                    "weave",
                    format!(
                        "{} an address of Weave's, and {trouble}",
                        if n == 1 {
                            "1 container needs".to_owned()
                        } else {
                            format!("{n} containers need")
                        }
                    ),
                    "start the router (weave launch), say where it listens by --weave-addr, or do without by --weave never",
                ),
            }
        }
    }
}

/// One line for each reason to be left out, one for those that are well.
fn verdicts(selection: &Selection, tell: &mut dyn FnMut(Finding)) {
    let mut reasons: [Map<&str, Vec<&str>>; 2] = Default::default();
    for verdict in &selection.verdicts {
        let (fault, why) = match &verdict.finding {
            Became::Routed { .. } => continue,
            Became::Pending(why) => (false, why),
            Became::LeftOut { why, fault } => (*fault, why),
        };
        let [meant, faults] = &mut reasons;
        let among = if fault { faults } else { meant };
        among.or_default(why).push(&verdict.name);
    }
    let [meant, faults] = reasons;
    let reasons = meant.into_iter().map(|one| (false, one));
    for (fault, (why, names)) in reasons.chain(faults.into_iter().map(|one| (true, one))) {
        let message = format!("not routed: {}: {why}", named(names.iter().copied()));
        tell(if fault {
            Finding::fail(
                "containers",
                message,
                "start it again with what is missing or wrong set right: docker run -e NAME=VALUE, or a label",
            )
        } else {
            Finding::warn(
                "containers",
                message,
                "nothing if that is meant; it is routed once that is over",
            )
        });
    }
    for verdict in &selection.verdicts {
        if !verdict.notes.is_empty() {
            tell(Finding::warn(
                "containers",
                format!("{}: {}", verdict.name, verdict.notes.join("; ")),
                "give all containers of a service the same settings",
            ));
        }
    }
    let (routed, pending, left_out) = selection.counts();
    let services = count(selection.services.len(), "service");
    let summary = format!("{routed} routed in {services}, {pending} pending, {left_out} left out");
    tell(if routed == 0 {
        Finding::warn("services", summary, "see the lines above")
    } else {
        Finding::ok("services", summary)
    });
}

/// Whether HAProxy is where the containers' addresses are.
fn shared_network(
    selection: &Selection,
    haproxy: Option<&Container>,
    context: &Context<'_>,
) -> Finding {
    let Some(haproxy) = haproxy else {
        return Finding::ok(
            "network",
            "HAProxy runs in no container here, so it reaches what this host reaches",
        );
    };
    let owner = match &haproxy.network_mode {
        NetworkMode::Container(id) => (context.find)(id).unwrap_or(haproxy),
        _ => haproxy,
    };
    if owner.network_mode == NetworkMode::Host {
        return Finding::ok(
            "network",
            format!("{} is on the host's network", haproxy.name),
        );
    }
    let mut missing: Map<&str, Vec<&str>> = Map::default();
    let mut shared = 0;
    for verdict in &selection.verdicts {
        match &verdict.finding {
            Became::Routed {
                source: Source::Network(network),
                ..
            } if !owner.networks.iter().any(|one| one.name == *network) => {
                missing.or_default(network).push(&verdict.name);
            }
            Became::Routed { .. } => shared += 1,
            _ => {}
        }
    }
    let Some((network, names)) = missing.iter().next() else {
        return Finding::ok(
            "network",
            format!("{} reaches {}", haproxy.name, count(shared, "container")),
        );
    };
    let own = named(owner.networks.iter().map(|one| &*one.name));
    Finding::fail(
        "network",
        format!(
            "HAProxy's container {} is not on the network {network} of {}; it is on {own}",
            haproxy.name,
            named(names.iter().copied())
        ),
        format!("docker network connect {network} {}", haproxy.name),
    )
}

/// Whether the servers take connections, as far as that can be tried from here.
fn servers_answer(selection: &Selection, inventory: &Inventory, budget: Budget) -> Finding {
    let Some(limit) = budget.at_most(CONNECTS_MAX) else {
        return Finding::warn(
            "servers",
            "not tried: no time was left",
            "mend what is named above, then run it again",
        );
    };
    let until = Instant::now() + limit;
    let (mut well, mut silent, mut untried) = (0, Vec::new(), 0);
    for verdict in &selection.verdicts {
        let Became::Routed { ip, port, .. } = &verdict.finding else {
            continue;
        };
        if Instant::now() >= until {
            untried += 1;
            continue;
        }
        let address = transport::Address::Tcp {
            host: ip.to_string(),
            port: *port,
            tls: None,
        };
        match transport::connect(&address, CONNECT_MAX) {
            Ok(_) => well += 1,
            Err(error)
                if error.is(crate::error::Kind::Unreachable)
                    && error.cause().contains("refused") =>
            {
                return refuses(verdict, *port, inventory);
            }
            Err(_) => silent.push(verdict.name.as_str()),
        }
    }
    let mut words = match well {
        1 => "1 server takes connections".to_owned(),
        n => format!("{n} servers take connections"),
    };
    if untried > 0 {
        words.push_str(&format!(", {untried} were not tried"));
    }
    if silent.is_empty() {
        return Finding::ok("servers", words);
    }
    Finding::warn(
        "servers",
        format!(
            "{words}; no answer from here: {}",
            named(silent.iter().copied())
        ),
        "if HAProxy reaches them, all is well; else see their network and firewall",
    )
}

/// A server that refuses connections: nearly always its PORT is another than the one it listens on.
fn refuses(verdict: &Verdict, port: u16, inventory: &Inventory) -> Finding {
    let name = &verdict.name;
    let exposed = inventory
        .find(&verdict.id)
        .map(|container| container.exposed_tcp_ports.to_vec())
        .unwrap_or_default();
    let (what, mend) = match listening::of_container(&verdict.id) {
        Some(Listening { ports, .. }) if !ports.is_empty() => {
            let ports = listed(&ports);
            (
                format!("it listens on {ports}"),
                format!("start it again with PORT={ports}"),
            )
        }
        Some(Listening { loopback, .. }) if loopback.contains(&port) => (
            format!("it listens on {port} for itself alone (127.0.0.1)"),
            "let it listen on 0.0.0.0".to_owned(),
        ),
        Some(_) => (
            "it listens on no port".to_owned(),
            format!("see why: docker logs {name}"),
        ),
        None if !exposed.is_empty() && !exposed.contains(&port) => {
            let ports = listed(&exposed);
            (
                format!("its image exposes {ports}"),
                format!("start it again with PORT={ports}"),
            )
        }
        None => (
            "where it listens cannot be seen from here".to_owned(),
            format!("set PORT to the port that it listens on (docker exec {name} netstat -tln)"),
        ),
    };
    Finding::fail(
        "servers",
        format!("{name} refuses connections on port {port}; {what}"),
        mend,
    )
}

fn listed(ports: &[u16]) -> String {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    ports.join(" or ")
}

/// The first few names, and how many more there are.
fn named<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    let first = all
        .iter()
        .take(NAMED_MAX)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    match all.len().saturating_sub(NAMED_MAX) {
        0 if all.is_empty() => "none".to_owned(),
        0 => first,
        more => format!("{first} and {more} more"),
    }
}

fn count(n: usize, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

#[cfg(test)]
mod tests {
    use super::common_word;

    #[test]
    fn a_keyword_is_found_that_all_names_hold() {
        for (names, expected) in [
            (&["web-1", "web-2"][..], "web"),
            (&["shop_api_1", "shop_web_1"], "shop"),
            (&["web-1"], "web"),
            (&["web"], "web"),
            (&["a", "b"], "''"),
            (&["webshop", "webmail"], "web"),
            (&[], "''"),
        ] {
            assert_eq!(common_word(names), expected, "{names:?}");
        }
    }
}
