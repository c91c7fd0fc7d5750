//! What HAProxy had before this life of ours knew it: addresses that Weave's router has not told yet, and containers
//! that nobody could look at.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use super::Syncer;
use crate::address::{Address, Source};
use crate::config;
use crate::docker::container::Container;
use crate::haproxy::Haproxy;
use crate::order;
use crate::registry::{self, Running, answer};
use crate::service;
use crate::sorted::{Map, Set};

impl Syncer {
    /// Services of which nothing but these containers is there, which nobody could look at: the registry is asked for
    /// them as HAProxy has them. What the built-in one remembers of them may be a minute older, if we were killed.
    pub(super) fn bring_back(&mut self, unseen: &[Running]) {
        let known = self.selection.service_names();
        let lost: Set<&str> = order::gathered(
            unseen
                .iter()
                .map(|one| one.service_name.as_str())
                .filter(|service| !known.contains(service)),
        );
        if lost.is_empty() {
            return;
        }
        let Some(text) = self.haproxy.last_good() else {
            return;
        };
        let config = config::Config::parse(&text);
        for service in lost {
            if let Some(mut candidate) = answer::candidate_of(&config, service) {
                let is_unseen = |id: &str| unseen.iter().any(|one| one.id == id);
                candidate.containers.retain(|one| is_unseen(&one.id));
                if self.registry.can_route(&candidate).is_ok() {
                    self.selection.services.push(candidate);
                }
            }
        }
        order::sort_by(&mut self.selection.services, registry::in_order);
    }

    /// What HAProxy has of containers that this life of ours could not inspect yet: an inspect that fails
    /// takes nobody away, in the first pass no more than later.
    pub(super) fn unseen(&self) -> Vec<Running> {
        let unseen: Set<&str> = order::gathered(self.inventory.unseen().map(service::short));
        if unseen.is_empty() {
            return Vec::new();
        }
        let routed = self.haproxy.routed().into_iter();
        let known = routed.filter(|(_, id, _)| unseen.contains(service::short(id)));
        known
            .map(|(service_name, id, ip)| Running {
                service_name,
                id,
                ip: ip.to_string(),
            })
            .collect()
    }
}

/// Where HAProxy had the containers when this life of ours began: what Weave's router told another process.
pub(super) struct Before {
    /// When HAProxy took that, in Unix nanoseconds.
    at: i64,
    /// By short id.
    ips: Map<String, IpAddr>,
}

impl Before {
    pub(super) fn of(haproxy: &Haproxy) -> Self {
        let since = haproxy
            .routed_at()
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let ips = haproxy.routed().into_iter();
        Before {
            at: since.map_or(i64::MIN, |since| {
                i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
            }),
            ips: order::gathered(ips.map(|(_, id, ip)| (service::short(&id).to_owned(), ip))),
        }
    }

    /// The address of a container, of whose network `owner` is the owner: the same as long as both are in the
    /// same life; one that started since may have another, and somebody else this one.
    pub(super) fn address_of(&self, container: &Container, owner: &Container) -> Option<Address> {
        let same_life = |one: &Container| one.state.started.unix_nanos() <= self.at;
        let ip = *self.ips.get(service::short(&container.id))?;
        (same_life(container) && same_life(owner)).then(|| Address::Known {
            ip,
            others: Vec::new(),
            source: Source::Before,
        })
    }
}
