//! From a container to the address at which HAProxy reaches it, or why there is none (yet).
//!
//! Pure: containers, HAProxy's own container, the host's address and what Weave's router has said
//! are handed in. Nothing here asks Docker or Weave, and nothing knows services.
//!
//! The order, the first that applies:
//! 1. A container that shares another one's network (`--network container:X`) has X's address.
//! 2. On the network `weave`: the address that inspect has there (`weave` says why by name).
//! 3. Started by Weave's Docker proxy: the router's word, never the bridge address that inspect has.
//! 4. Host network: the host's address, if HAProxy stands on the host's network too.
//! 5. The network of `--network`; else one that it shares with HAProxy's container; else its only
//!    one; else none, with the names of its networks as the reason.
//!
//! Docker's network drivers cannot be told apart here (see `weave`), nor need they: a macvlan or
//! plugin network has its address in the same place. Addresses that HAProxy would take as "the one
//! that the client connected to", as the host's own, or that need an interface name are refused.

pub mod poller;
pub mod report;
pub mod router;
pub mod status_dns;
pub mod weave;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::docker::container::{Container, Network, NetworkMode};
use weave::{Mode, PLUGIN_NETWORK, Standing, View};

/// Longest chain of containers that share each other's network. Docker has no longer ones: the
/// second cannot share with a third. Podman's may, and a crafted answer could go round.
const SHARES_MAX: usize = 4;

/// Docker's and Podman's default networks. HAProxy is often there only by default, so a network
/// that somebody made for the purpose goes before them.
const DEFAULT_NETWORKS: [&str; 2] = ["bridge", "podman"];

/// Names that stand for no network of a container's own.
const NO_NETWORKS: [&str; 2] = ["host", "none"];

/// Where a container is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// It has an address.
    Known {
        /// The one to route to.
        ip: IpAddr,
        /// Further ones of it there: more Weave subnets, the other address family.
        others: Vec<IpAddr>,
        /// Where the address comes from.
        source: Source,
    },
    /// None yet: the poller or an event will bring it. Why, in words that follow its name.
    Pending(String),
    /// None: why, in words that follow its name.
    None(String),
}

/// Where an address comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Docker network, by name.
    Network(Arc<str>),
    /// Weave's router.
    Weave,
    /// A network of Weave's plugin, by name.
    WeaveNetwork(Arc<str>),
    /// The host's own network.
    Host,
    /// The container whose network it shares, by name.
    Container(String),
    /// What HAProxy has had of it since before this life of ours.
    Before,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Network(name) => write!(f, "network {name}"),
            Source::Weave => f.write_str("Weave"),
            Source::WeaveNetwork(name) => write!(f, "Weave network {name}"),
            Source::Host => f.write_str("the host's network"),
            Source::Container(name) => write!(f, "the network of container {name}"),
            Source::Before => {
                f.write_str("what HAProxy has; Weave's router has not told of it yet")
            }
        }
    }
}

/// What the rules need to know besides the container.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// `--network`.
    pub network: Option<&'a str>,
    /// HAProxy's container, running or as it was last seen; `None` when there is none of that name, so it runs on
    /// the host.
    pub haproxy: Option<&'a Container>,
    /// An address of the host that is neither loopback nor link-local, if one is known.
    pub host: Option<IpAddr>,
    /// `--weave`.
    pub mode: Mode,
    /// What Weave's router has said.
    pub weave: &'a View,
    /// A container of this host by full id or name, monitored or not.
    pub find: &'a dyn Fn(&str) -> Option<&'a Container>,
}

/// The address of a container.
pub fn of<'a>(container: &'a Container, context: &Context<'a>) -> Address {
    if !container.state.running {
        return Address::None("does not run".to_owned());
    }
    let NetworkMode::Container(shared) = &container.network_mode else {
        return own(container, context);
    };
    let owner = match network_owner(container, context) {
        Ok(owner) => owner,
        // Podman has the other container's networks here too; good enough when it cannot be found.
        Err(_) if !networks(container).is_empty() => {
            return match docker(container, context) {
                Address::Known { ip, others, .. } => Address::Known {
                    ip,
                    others,
                    source: Source::Container(shared.to_string()),
                },
                other => other,
            };
        }
        Err(why) => return Address::None(why),
    };
    let name = &owner.name;
    if !owner.state.running {
        return Address::None(format!(
            "shares the network of {name}, which does not run; start {name}, then this one"
        ));
    }
    match own(owner, context) {
        Address::Known { ip, others, .. } => Address::Known {
            ip,
            others,
            source: Source::Container(name.to_string()),
        },
        Address::Pending(why) => Address::Pending(format!("shares the network of {name}: {why}")),
        Address::None(why) => Address::None(format!("shares the network of {name}: {why}")),
    }
}

/// The container that Weave's router must be asked about for this one's address: itself, or the one
/// whose network it shares. `None` when its address does not come from the router. To be handed to
/// [`poller::Poller::want`].
pub fn asks_router_for<'a>(
    container: &'a Container,
    context: &Context<'a>,
) -> Option<&'a Container> {
    let owner = network_owner(container, context).ok()?;
    let running = container.state.running && owner.state.running;
    (running && weave_network(owner, context).is_none() && is_asked_about(owner, context.mode))
        .then_some(owner)
}

/// Why an address cannot be a server of HAProxy's, if so.
///
/// HAProxy takes an unspecified one as "where the client connected to", a loopback one as itself; a
/// link-local one means nothing without an interface, and a multicast one has no server behind it.
pub fn refusal(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Some("stands for no host"),
        ip if ip.is_loopback() => Some("is a loopback address"),
        ip if ip.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(ip) if ip.is_link_local() => Some("is a link-local address"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("is a link-local address"),
        _ => None,
    }
}

/// The container that the network belongs to: the end of a chain of `container:X`.
fn network_owner<'a>(
    container: &'a Container,
    context: &Context<'a>,
) -> Result<&'a Container, String> {
    let mut owner = container;
    for _ in 0..=SHARES_MAX {
        let NetworkMode::Container(next) = &owner.network_mode else {
            return Ok(owner);
        };
        owner = (context.find)(next)
            .ok_or_else(|| format!("shares the network of container {next}, which is not there"))?;
    }
    Err(format!(
        "shares the network of a container that shares another's, more than {SHARES_MAX} times"
    ))
}

/// The address of a container on its own network.
fn own<'a>(container: &'a Container, context: &Context<'a>) -> Address {
    if let Some(network) = weave_network(container, context) {
        return on(network, Source::WeaveNetwork(network.name.clone()));
    }
    if is_asked_about(container, context.mode) {
        return match context.weave.standing(&container.id) {
            Standing::Found([ip, others @ ..]) => Address::Known {
                ip: *ip,
                others: others.to_vec(),
                source: Source::Weave,
            },
            Standing::Found([]) | Standing::Waiting(None) => {
                Address::Pending("waits for Weave to give it an address".to_owned())
            }
            Standing::Waiting(Some(trouble)) => {
                Address::Pending(format!("waits for its Weave address, but {trouble}"))
            }
            Standing::Missing(why) => Address::None(format!("has no Weave address: {why}")),
        };
    }
    match &container.network_mode {
        NetworkMode::Host => host(context),
        NetworkMode::None => Address::None("has no network (its network mode is none)".to_owned()),
        NetworkMode::Container(_) | NetworkMode::Named(_) => docker(container, context),
    }
}

/// Whether the router is asked about a container on its own network.
fn is_asked_about(container: &Container, mode: Mode) -> bool {
    match mode {
        Mode::Never => false,
        Mode::Auto => weave::is_proxied(&container.entrypoint),
        // Weave attaches to a network namespace of the container's own only.
        Mode::Always => !matches!(
            container.network_mode,
            NetworkMode::Host | NetworkMode::Container(_)
        ),
    }
}

/// Weave's plugin network among those of a container.
fn weave_network<'a>(container: &'a Container, context: &Context<'_>) -> Option<&'a Network> {
    if context.mode == Mode::Never {
        return None;
    }
    networks(container)
        .into_iter()
        .find(|network| &*network.name == PLUGIN_NETWORK)
}

/// The networks that can have an address.
fn networks(container: &Container) -> Vec<&Network> {
    container
        .networks
        .iter()
        .filter(|network| !NO_NETWORKS.contains(&&*network.name))
        .collect()
}

/// The address of a container on the host's network.
fn host(context: &Context<'_>) -> Address {
    let haproxy_on_host = match context.haproxy {
        // One that was never seen to run may be of former days, and HAProxy on this host by now.
        Some(haproxy) if !haproxy.state.running => true,
        None => true,
        Some(haproxy) => network_owner(haproxy, context)
            .is_ok_and(|owner| owner.network_mode == NetworkMode::Host),
    };
    if !haproxy_on_host {
        return Address::None(
            "is on the host's network, which HAProxy's container is not on; \
             give it a network that HAProxy shares, or run HAProxy with --network host"
                .to_owned(),
        );
    }
    match context.host {
        None => Address::None(
            "is on the host's network, and no address of the host is known but loopback".to_owned(),
        ),
        Some(ip) => match refusal(ip) {
            Some(why) => Address::None(format!("is on the host's network, and {ip} {why}")),
            None => Address::Known {
                ip: ip.to_canonical(),
                others: Vec::new(),
                source: Source::Host,
            },
        },
    }
}

/// The address of a container by its Docker networks.
fn docker<'a>(container: &'a Container, context: &Context<'a>) -> Address {
    let networks = networks(container);
    let names = || {
        let names: Vec<&str> = networks.iter().map(|n| &*n.name).collect();
        names.join(", ")
    };
    let source = |network: &Network| Source::Network(network.name.clone());
    if networks.is_empty() {
        return Address::None("is connected to no network".to_owned());
    }
    if let Some(wanted) = context.network {
        return match networks.iter().find(|network| &*network.name == wanted) {
            Some(network) => on(network, source(network)),
            None => Address::None(format!(
                "is not on the network {wanted} of --network; its networks: {}",
                names()
            )),
        };
    }
    let haproxy = context
        .haproxy
        .and_then(|haproxy| network_owner(haproxy, context).ok());
    if let Some(network) = haproxy.and_then(|haproxy| shared(&networks, haproxy)) {
        return on(network, source(network));
    }
    if let [network] = networks[..] {
        return on(network, source(network));
    }
    let haproxy = match context.haproxy {
        Some(haproxy) => format!("HAProxy's container {} is on none of them", haproxy.name),
        None => "there is no container of HAProxy's to share one with".to_owned(),
    };
    Address::None(format!(
        "is on several networks ({}) and {haproxy}; choose one by --network",
        names()
    ))
}

/// The network to use of those that HAProxy is on as well: one with an address before one without,
/// one made by somebody before the default, then the first by name. Names alone decide between
/// equals, so that the choice is the same in every pass.
fn shared<'a>(networks: &[&'a Network], haproxy: &Container) -> Option<&'a Network> {
    networks
        .iter()
        .filter(|network| haproxy.networks.iter().any(|h| h.name == network.name))
        .min_by_key(|network| {
            (
                usable(network).is_empty(),
                DEFAULT_NETWORKS.contains(&&*network.name),
                &network.name,
            )
        })
        .copied()
}

/// The addresses on a network that HAProxy can be given, IPv4 first.
fn usable(network: &Network) -> Vec<IpAddr> {
    given(network).filter(|ip| refusal(*ip).is_none()).collect()
}

fn given(network: &Network) -> impl Iterator<Item = IpAddr> {
    let (v4, v6) = (network.ipv4, network.ipv6);
    v4.map(IpAddr::V4)
        .into_iter()
        .chain(v6.map(IpAddr::V6))
        .map(|ip| ip.to_canonical())
}

/// The address on one network.
fn on(network: &Network, source: Source) -> Address {
    let name = &network.name;
    if let [ip, others @ ..] = &usable(network)[..] {
        return Address::Known {
            ip: *ip,
            others: others.to_vec(),
            source,
        };
    }
    let refused = given(network).find_map(|ip| Some((ip, refusal(ip)?)));
    match refused {
        Some((ip, why)) => Address::None(format!("has {ip} on the network {name}, which {why}")),
        None => Address::Pending(format!("has no address on the network {name} yet")),
    }
}

#[cfg(test)]
mod tests;
