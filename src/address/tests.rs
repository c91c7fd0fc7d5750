//! The address rules: the table of real containers on a Weave host, then Docker's cases by hand.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::poller::Poller;
use super::report::{self, Owned};
use super::*;
use crate::docker::container::{self, State};
use crate::timestamp::Timestamp;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../../tests/data/weave/", $name))
    };
}

/// Real containers by name.
fn captured() -> HashMap<String, Container> {
    let all: Vec<serde_json::Value> =
        serde_json::from_str(data!("docker-inspect.json")).expect("a list");
    all.iter()
        .map(|one| {
            let one = container::inspected(one.to_string().as_bytes()).expect("an inspect");
            (one.container.name.to_string(), one.container)
        })
        .collect()
}

/// The view after one answer of the captured router, asked about what the rules say must be asked.
fn asked(containers: &HashMap<String, Container>, mode: Mode, waited: Duration) -> View {
    let mut answer = report::report(data!("report-docker.json").as_bytes()).expect("a report");
    let (listed, _) = report::owned(data!("ip-docker.json").as_bytes()).expect("allocations");
    answer.owned = Owned::Listed(listed);
    let mut poller = Poller::default();
    let now = Instant::now();
    let find = |id: &str| containers.values().find(|c| *c.id == *id || *c.name == *id);
    let empty = View::default();
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode,
        weave: &empty,
        find: &find,
    };
    for container in containers.values() {
        if let Some(owner) = asks_router_for(container, &context) {
            poller.want(&owner.id, owner.hostname(), &owner.domainname, now);
        }
    }
    if poller.next().is_some() {
        poller.asked(now + waited);
        poller.answered(now + waited, &answer);
    }
    poller.view().clone()
}

/// One line: the addresses and their source; `pending` or `none` and the reason.
fn line(address: &Address) -> String {
    match address {
        Address::Known { ip, others, source } => {
            let ips: Vec<String> = [ip]
                .into_iter()
                .chain(others)
                .map(IpAddr::to_string)
                .collect();
            format!("{} by {source}", ips.join(" "))
        }
        Address::Pending(why) => format!("pending: {why}"),
        Address::None(why) => format!("none: {why}"),
    }
}

const HOSTNET: &str =
    "none: is on the host's network, and no address of the host is known but loopback";
const LATER: Duration = Duration::from_secs(20);

fn check_captured(mode: Mode, waited: Duration, expected: &[(&str, &str)]) {
    let containers = captured();
    let view = asked(&containers, mode, waited);
    let find = |id: &str| containers.values().find(|c| *c.id == *id || *c.name == *id);
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode,
        weave: &view,
        find: &find,
    };
    for (name, expected) in expected {
        assert_eq!(&line(&of(&containers[*name], &context)), expected, "{name}");
    }
    assert_eq!(expected.len(), containers.len());
}

#[test]
fn every_container_of_a_real_weave_host_has_its_address() {
    let multi = "10.32.0.3 10.40.1.1 10.99.1.5 by Weave";
    let billing = "billing-reconciliation-worker-with-a-very-long-container-name-eu-west-1";
    check_captured(
        Mode::Auto,
        Duration::ZERO,
        &[
            ("api", "10.32.0.1 by Weave"),
            ("web", "10.32.0.2 by Weave network weave"),
            ("multi", multi),
            // WEAVE_CIDR=none: the proxy leaves it alone, so it is a plain container.
            ("optout", "172.30.0.4 by network bridge"),
            ("own-hostname", "10.32.0.4 by Weave"),
            (billing, "10.32.0.5 by Weave"),
            ("payment-gateway-7f9c", "10.32.0.6 by Weave"),
            ("plain", "172.18.0.2 by network appnet"),
            ("late", "10.32.0.7 by Weave network weave"),
            ("sidecar", "10.32.0.1 by the network of container api"),
            ("hostnet", HOSTNET),
        ],
    );
    let none = "none: has no Weave address: Weave's router knows no address of it, \
                neither in weaveDNS nor in /ip (waited 15s)";
    check_captured(
        Mode::Always,
        LATER,
        &[
            ("api", "10.32.0.1 by Weave"),
            ("web", "10.32.0.2 by Weave network weave"),
            ("multi", multi),
            ("optout", none),
            ("own-hostname", "10.32.0.4 by Weave"),
            (billing, "10.32.0.5 by Weave"),
            ("payment-gateway-7f9c", "10.32.0.6 by Weave"),
            ("plain", none),
            ("late", "10.32.0.7 by Weave network weave"),
            ("sidecar", "10.32.0.1 by the network of container api"),
            ("hostnet", HOSTNET),
        ],
    );
    check_captured(
        Mode::Never,
        LATER,
        &[
            ("api", "172.30.0.2 by network bridge"),
            ("web", "10.32.0.2 by network weave"),
            ("multi", "172.30.0.3 by network bridge"),
            ("optout", "172.30.0.4 by network bridge"),
            ("own-hostname", "172.30.0.5 by network bridge"),
            (billing, "172.30.0.6 by network bridge"),
            ("payment-gateway-7f9c", "172.30.0.7 by network bridge"),
            ("plain", "172.18.0.2 by network appnet"),
            (
                "late",
                "none: is on several networks (appnet, weave) and there is no container of \
                 HAProxy's to share one with; choose one by --network",
            ),
            ("sidecar", "172.30.0.2 by the network of container api"),
            ("hostnet", HOSTNET),
        ],
    );
}

#[test]
fn weaves_own_view_of_the_interfaces_agrees() {
    let containers = captured();
    let view = asked(&containers, Mode::Auto, Duration::ZERO);
    let find = |id: &str| containers.values().find(|c| *c.id == *id || *c.name == *id);
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode: Mode::Auto,
        weave: &view,
        find: &find,
    };
    let mut seen = 0;
    for row in data!("ps-docker.txt").lines() {
        let mut fields = row.split_ascii_whitespace();
        let id = fields.next().expect("an id");
        let Some(container) = containers.values().find(|c| c.id.starts_with(id)) else {
            assert_eq!(id, "weave:expose");
            continue;
        };
        let attached: BTreeSet<IpAddr> = fields
            .skip(1)
            .map(|cidr| cidr.split('/').next().unwrap().parse().unwrap())
            .collect();
        let Address::Known { ip, others, .. } = of(container, &context) else {
            panic!("{id} has no address")
        };
        let ours: BTreeSet<IpAddr> = others.into_iter().chain([ip]).collect();
        assert_eq!(ours, attached, "{id}");
        seen += 1;
    }
    assert_eq!(seen, 8);
}

#[test]
fn the_network_that_is_taken_for_weaves_is_the_one_with_its_driver() {
    let networks: Vec<serde_json::Value> =
        serde_json::from_str(data!("docker-networks.json")).expect("a list");
    for network in networks {
        let by_driver = network["Driver"] == "weavemesh";
        assert_eq!(network["Name"] == PLUGIN_NETWORK, by_driver, "{network}");
    }
}

#[test]
fn before_the_router_has_spoken_a_proxied_container_is_pending_never_on_the_bridge() {
    let containers = captured();
    let find = |id: &str| containers.values().find(|c| *c.id == *id || *c.name == *id);
    let trouble = View {
        trouble: Some("cannot ask Weave's router: refused".into()),
        ..View::default()
    };
    for (view, tail) in [
        (&View::default(), "waits for Weave to give it an address"),
        (
            &trouble,
            "waits for its Weave address, but cannot ask Weave's router: refused",
        ),
    ] {
        let context = Context {
            // Not even by the networks that HAProxy shares or that were asked for.
            network: Some("bridge"),
            haproxy: Some(&containers["optout"]),
            host: None,
            mode: Mode::Auto,
            weave: view,
            find: &find,
        };
        for name in ["api", "multi", "own-hostname", "payment-gateway-7f9c"] {
            assert_eq!(
                line(&of(&containers[name], &context)),
                format!("pending: {tail}")
            );
        }
        assert_eq!(
            line(&of(&containers["sidecar"], &context)),
            format!("pending: shares the network of api: {tail}")
        );
        let asked: Vec<&str> = containers
            .values()
            .filter_map(|c| Some(asks_router_for(c, &context)?.name.as_ref()))
            .collect();
        assert_eq!(asked.len(), 6);
        assert_eq!(asked.iter().filter(|name| **name == "api").count(), 2);
    }
}

fn network(name: &str, v4: &str, v6: &str) -> Network {
    Network {
        name: name.into(),
        ipv4: v4.parse::<Ipv4Addr>().ok(),
        ipv6: v6.parse::<Ipv6Addr>().ok(),
    }
}

/// A running container: `host`, `none`, `container:X`, or networks `name=ipv4/ipv6` joined by blanks.
fn made(name: &str, how: &str) -> Container {
    let mode = match how {
        "host" => NetworkMode::Host,
        "none" => NetworkMode::None,
        _ => match how
            .split(' ')
            .next()
            .and_then(|h| h.strip_prefix("container:"))
        {
            Some(other) => NetworkMode::Container(other.into()),
            None => NetworkMode::Named(how.split('=').next().unwrap().into()),
        },
    };
    let networks = how
        .split(' ')
        .filter_map(|part| {
            let (name, ips) = part.split_once('=')?;
            let (v4, v6) = ips.split_once('/').unwrap_or((ips, ""));
            Some(network(name, v4, v6))
        })
        .collect();
    let time = Timestamp {
        seconds: 0,
        nanos: 0,
    };
    Container {
        id: format!("id-{name}").into(),
        name: name.into(),
        created: time,
        state: State {
            running: true,
            paused: false,
            restarting: false,
            dead: false,
            started: time,
            health: None,
        },
        networks,
        network_mode: mode,
        exposed_tcp_ports: Vec::new().into(),
        own_hostname: Some(name.into()),
        domainname: "".into(),
        entrypoint: "httpd".into(),
        stop_signal: 15,
        stop_seconds: 10,
        restarts: 0,
    }
}

/// Places one container beside HAProxy (`""`: none) and others, and compares the line.
fn check(how: &str, haproxy: &str, wanted: Option<&str>, expected: &str) {
    let web = made("web", how);
    let haproxy = (!haproxy.is_empty()).then(|| made("haproxy", haproxy));
    let mut gone = made("gone", "app=172.18.0.9");
    gone.state.running = false;
    let others = [
        made("db", "app=172.18.0.5"),
        made("hosted", "host"),
        made("chain", "container:db"),
        made("ring", "container:ring2"),
        made("ring2", "container:ring"),
        gone,
    ];
    let find = |id: &str| others.iter().find(|c| *c.id == *id || *c.name == *id);
    let view = View::default();
    let context = Context {
        network: wanted,
        haproxy: haproxy.as_ref(),
        host: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))),
        mode: Mode::Auto,
        weave: &view,
        find: &find,
    };
    let seen = line(&of(&web, &context));
    assert_eq!(seen, expected, "{how:?} {wanted:?}");
}

#[test]
fn docker_networks() {
    let app = "app=172.18.0.2";
    let both = "app=172.18.0.2 db=172.19.0.2";
    for (how, haproxy, wanted, expected) in [
        (app, "", None, "172.18.0.2 by network app"),
        (app, "edge=172.20.0.2", None, "172.18.0.2 by network app"),
        (app, "host", None, "172.18.0.2 by network app"),
        (both, "db=172.19.0.9", None, "172.19.0.2 by network db"),
        // HAProxy is stopped: its networks still say which one is shared.
        (both, "db=", None, "172.19.0.2 by network db"),
        // HAProxy itself shares a network.
        (both, "container:db", None, "172.18.0.2 by network app"),
        // Several are shared: the first by name, but the default one last and one with an address first.
        (
            both,
            "app=172.18.0.9 db=172.19.0.9",
            None,
            "172.18.0.2 by network app",
        ),
        (
            "bridge=172.17.0.2 db=172.19.0.2",
            "bridge=172.17.0.9 db=172.19.0.9",
            None,
            "172.19.0.2 by network db",
        ),
        (
            "app= db=172.19.0.2",
            "app=172.18.0.9 db=172.19.0.9",
            None,
            "172.19.0.2 by network db",
        ),
        (
            "app= db=",
            "app=172.18.0.9 db=172.19.0.9",
            None,
            "pending: has no address on the network app yet",
        ),
        // --network goes first.
        (
            both,
            "app=172.18.0.9",
            Some("db"),
            "172.19.0.2 by network db",
        ),
        (
            both,
            "app=172.18.0.9",
            Some("edge"),
            "none: is not on the network edge of --network; its networks: app, db",
        ),
        (
            "app=",
            "",
            Some("app"),
            "pending: has no address on the network app yet",
        ),
        (
            both,
            "",
            None,
            "none: is on several networks (app, db) and there is no container of HAProxy's to share one with; choose one by --network",
        ),
        (
            both,
            "edge=172.20.0.2",
            None,
            "none: is on several networks (app, db) and HAProxy's container haproxy is on none of them; choose one by --network",
        ),
        (
            both,
            "host",
            None,
            "none: is on several networks (app, db) and HAProxy's container haproxy is on none of them; choose one by --network",
        ),
        (
            "app=",
            "",
            None,
            "pending: has no address on the network app yet",
        ),
        ("gone", "", None, "none: is connected to no network"),
        (
            "none",
            "",
            None,
            "none: has no network (its network mode is none)",
        ),
        ("none=", "", None, "none: is connected to no network"),
        // The network of Weave's plugin goes before --network.
        (
            "app=172.18.0.2 weave=10.32.0.7",
            "app=172.18.0.9",
            Some("app"),
            "10.32.0.7 by Weave network weave",
        ),
        (
            "app=172.18.0.2 weave=",
            "app=172.18.0.9",
            None,
            "pending: has no address on the network weave yet",
        ),
    ] {
        check(how, haproxy, wanted, expected);
    }
}

#[test]
fn ipv6_and_addresses_that_cannot_be_servers() {
    for (ips, expected) in [
        ("/fd00:18::2", "fd00:18::2 by network app"),
        (
            "172.18.0.2/fd00:18::2",
            "172.18.0.2 fd00:18::2 by network app",
        ),
        ("/2001:db8::2", "2001:db8::2 by network app"),
        ("/::ffff:172.18.0.2", "172.18.0.2 by network app"),
        ("169.254.9.9/fd00:18::2", "fd00:18::2 by network app"),
        ("172.18.0.2/fe80::2", "172.18.0.2 by network app"),
        ("10.44.0.0", "10.44.0.0 by network app"),
        (
            "/fe80::2",
            "none: has fe80::2 on the network app, which is a link-local address",
        ),
        (
            "/::",
            "none: has :: on the network app, which stands for no host",
        ),
        (
            "/::1",
            "none: has ::1 on the network app, which is a loopback address",
        ),
        (
            "/ff02::1",
            "none: has ff02::1 on the network app, which is a multicast address",
        ),
        (
            "/::ffff:127.0.0.1",
            "none: has 127.0.0.1 on the network app, which is a loopback address",
        ),
        (
            "0.0.0.0",
            "none: has 0.0.0.0 on the network app, which stands for no host",
        ),
        (
            "127.8.8.8",
            "none: has 127.8.8.8 on the network app, which is a loopback address",
        ),
        (
            "224.0.0.1",
            "none: has 224.0.0.1 on the network app, which is a multicast address",
        ),
        (
            "169.254.9.9",
            "none: has 169.254.9.9 on the network app, which is a link-local address",
        ),
        (
            "255.255.255.255",
            "none: has 255.255.255.255 on the network app, which is the broadcast address",
        ),
    ] {
        check(&format!("app={ips}"), "", None, expected);
    }
}

#[test]
fn the_hosts_network_and_others_networks() {
    let refused = "none: is on the host's network, which HAProxy's container is not on; \
                   give it a network that HAProxy shares, or run HAProxy with --network host";
    for (how, haproxy, expected) in [
        ("host", "", "192.0.2.10 by the host's network"),
        ("host", "host", "192.0.2.10 by the host's network"),
        (
            "host",
            "container:hosted",
            "192.0.2.10 by the host's network",
        ),
        ("host", "app=172.18.0.9", refused),
        (
            "container:hosted",
            "host",
            "192.0.2.10 by the network of container hosted",
        ),
        (
            "container:db",
            "",
            "172.18.0.5 by the network of container db",
        ),
        (
            "container:id-db",
            "app=172.18.0.9",
            "172.18.0.5 by the network of container db",
        ),
        (
            "container:chain",
            "",
            "172.18.0.5 by the network of container db",
        ),
        (
            "container:missing",
            "",
            "none: shares the network of container missing, which is not there",
        ),
        (
            "container:gone",
            "",
            "none: shares the network of gone, which does not run; start gone, then this one",
        ),
        (
            "container:ring",
            "",
            "none: shares the network of a container that shares another's, more than 4 times",
        ),
        // Podman repeats the other one's networks: the rules are the same, X known or not.
        (
            "container:db app=172.18.0.5",
            "",
            "172.18.0.5 by the network of container db",
        ),
        (
            "container:missing app=172.18.0.7",
            "",
            "172.18.0.7 by the network of container missing",
        ),
    ] {
        check(how, haproxy, None, expected);
    }
}

#[test]
fn a_haproxy_that_was_never_seen_to_run_keeps_nobody_off_the_hosts_network() {
    let mut haproxy = made("haproxy", "app=");
    haproxy.state.running = false;
    let view = View::default();
    let context = Context {
        network: None,
        haproxy: Some(&haproxy),
        host: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10))),
        mode: Mode::Auto,
        weave: &view,
        find: &|_| None,
    };
    let web = made("web", "host");
    let expected = "192.0.2.10 by the host's network";
    assert_eq!(line(&of(&web, &context)), expected);
}

#[test]
fn the_hosts_address_must_be_one_that_can_be_a_server() {
    let web = made("web", "host");
    let view = View::default();
    for (host, expected) in [
        (
            "127.0.0.1",
            "none: is on the host's network, and 127.0.0.1 is a loopback address",
        ),
        (
            "fe80::1",
            "none: is on the host's network, and fe80::1 is a link-local address",
        ),
        ("2001:db8::1", "2001:db8::1 by the host's network"),
    ] {
        let context = Context {
            network: Some("app"),
            haproxy: None,
            host: Some(host.parse().unwrap()),
            mode: Mode::Always,
            weave: &view,
            find: &|_| None,
        };
        assert_eq!(line(&of(&web, &context)), expected);
    }
}

#[test]
fn a_container_that_does_not_run_has_no_address() {
    // Docker keeps the address of one whose start failed.
    let mut web = made("web", "app=172.18.0.2");
    web.state.running = false;
    let mut proxied = web.clone();
    proxied.entrypoint = weave::PROXY_ENTRYPOINT.into();
    let view = View {
        found: HashMap::from([(web.id.to_string(), vec![Ipv4Addr::new(10, 32, 0, 1).into()])]),
        ..View::default()
    };
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode: Mode::Auto,
        weave: &view,
        find: &|_| None,
    };
    for container in [&web, &proxied] {
        assert_eq!(line(&of(container, &context)), "none: does not run");
        assert!(asks_router_for(container, &context).is_none());
    }
    // Between two restarts Docker calls it running, without an address.
    let mut restarting = made("web", "app=");
    restarting.state.restarting = true;
    assert!(matches!(of(&restarting, &context), Address::Pending(_)));
}

#[test]
fn dockers_events_lead_to_the_containers_that_the_rules_know() {
    use crate::docker::events::{self, What};

    let containers = captured();
    let seen = |text: &str| -> Vec<(String, What)> {
        text.lines()
            .filter_map(|line| events::event(line.as_bytes()).expect("an event"))
            .map(|event| {
                let known = containers.values().find(|c| *c.id == *event.id);
                let name = known.map_or("unknown", |container| &container.name);
                (name.to_owned(), event.what)
            })
            .collect()
    };
    let expect = |rows: &[(&str, What)]| -> Vec<(String, What)> {
        rows.iter()
            .map(|(n, what)| (n.to_string(), *what))
            .collect()
    };
    // Weave's short-lived helper is in there; it is nobody's container, and dead before anyone looks.
    assert_eq!(
        seen(data!("events-proxy-start.jsonl")),
        expect(&[
            ("api", What::Network),
            ("api", What::Started),
            ("unknown", What::Network),
            ("unknown", What::Started),
            ("unknown", What::Gone),
            ("unknown", What::Network),
            ("unknown", What::Gone),
        ])
    );
    // On the plugin's network the address is there before the start.
    assert_eq!(
        seen(data!("events-plugin-start.jsonl")),
        expect(&[("web", What::Network), ("web", What::Started)])
    );
    assert_eq!(
        seen(data!("events-network-connect.jsonl")),
        expect(&[("late", What::Network)])
    );
}
