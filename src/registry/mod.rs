//! The contract with a registry: a payload in, the text of haproxy.cfg out.
//!
//! Two registries keep it: [`cosmos`] (the remote one) and [`embedded`] (in our own process). Field
//! names on the wire are Cosmos's and stand here only, in serde attributes. Rules: what the
//! real service's code was seen to take. It must not know Docker or HAProxy's state.

pub mod answer;
#[cfg(feature = "tls")]
pub mod authorities;
#[cfg(test)]
pub(crate) mod canned;
#[cfg(test)]
mod contract;
pub mod cosmos;
pub mod embedded;
#[cfg(test)]
pub(crate) mod expected;
#[cfg(test)]
pub(crate) mod haproxy_check;
pub mod ladder;
pub mod policy;
pub mod proxy;
pub mod retry;
pub mod store;
pub mod template;
pub mod url;
pub mod wire;

use std::cmp::{Ordering, Reverse};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::config::Fingerprint;
use crate::error::Result;
use crate::order;

/// How requests are told apart: by host name or by the first part of the path.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// By the `Host` header.
    #[default]
    Host,
    /// By a prefix of the path.
    Path,
}

/// What a registry gets: everything that is routed on this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payload {
    /// Name of the table that keeps the services.
    pub table: String,
    /// Every instance that runs, truthful and complete, those of other hosts included.
    pub running: Vec<Running>,
    /// Every service of this host, one entry each.
    pub candidates: Vec<Candidate>,
}

/// One running instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The service it belongs to.
    #[serde(rename = "serviceName")]
    pub service_name: String,
    /// The container's id, 12 hex digits (more on a clash).
    pub id: String,
    /// Its address, IPv4 or IPv6, without brackets.
    pub ip: String,
}

/// One service as this host wants it routed. `S` is `&str` where the words are somebody else's.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Candidate<S = String> {
    /// The service's name.
    #[serde(rename = "serviceName")]
    pub service_name: S,
    /// The port of every instance, 1 to 65535.
    pub port: u16,
    /// How requests for it are recognised.
    #[serde(rename = "configMode", default)]
    pub config_mode: Mode,
    /// Host names, or path prefixes without a leading `/`; joined by one blank.
    pub predicate: S,
    /// Name of the cookie for sticky sessions; left out on the wire when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<S>,
    /// The instances on this host.
    #[serde(default)]
    pub containers: Vec<Instance<S>>,
}

/// One instance of a candidate. The order of the fields is that of the wire: Cosmos takes an `ip`
/// before the `id` for another container (seen on the real service).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Instance<S = String> {
    /// The container's id, 12 hex digits (more on a clash).
    pub id: S,
    /// Its address, IPv4 or IPv6, without brackets.
    pub ip: S,
}

/// Whoever turns a payload into a config.
pub trait Registry {
    /// The full text of haproxy.cfg for this payload, with a final newline, without fingerprint.
    ///
    /// # Errors
    /// Nothing may be changed then: the running config stands.
    fn config(&mut self, payload: &Payload) -> Result<String>;

    /// The same for a payload that differs from the last one by these edits alone, of which each is made on what
    /// the ones before it left; `last` is the text that was given for that one. `None` where only a whole payload can
    /// tell; the next call must bring one then.
    fn amended(&mut self, edits: &[Edit], last: String) -> Option<Amended> {
        let _ = (edits, last);
        None
    }

    /// The next payload has about so many services: what stays of them can have its place before that payload is made.
    fn make_room(&mut self, services: usize) {
        let _ = services;
    }

    /// Whether asking costs somebody something, so that the same is not asked twice.
    fn is_remote(&self) -> bool;

    /// Whether this registry can route a service as it is meant.
    ///
    /// # Errors
    /// The reason if it cannot, for the operator; the service is left out then.
    fn can_route(&self, candidate: &Candidate) -> std::result::Result<(), String>;

    /// What the last answer was worth.
    fn standing(&self) -> Standing {
        Standing::Fresh
    }

    /// Tells the last answer from that of another registry to the same payload; empty for the built-in one.
    fn origin(&self) -> String {
        String::new()
    }
}

/// One service of a payload that is another one now, has come or has gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Its place in the order of the candidates.
    pub at: usize,
    /// Whether that place is taken by what was known of it before, which goes.
    pub was: bool,
    /// What comes there.
    pub now: Option<Candidate>,
}

/// A text that was made of the last one by edits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Amended {
    /// The new text.
    pub text: String,
    /// The backends that were exchanged, as they were.
    pub before: String,
    /// The backends that are in their place.
    pub after: String,
}

/// What a registry's last answer was worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It answered.
    Fresh,
    /// It fails; the running config stands.
    Held {
        /// Since when.
        since: Instant,
    },
    /// It fails, and the built-in registry stands in for it.
    BuiltIn {
        /// Since when it fails.
        since: Instant,
        /// When it is worth asking again.
        next_try: Instant,
    },
}

impl Candidate {
    /// The patterns of the predicate one by one.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.predicate.split_ascii_whitespace()
    }

    /// Its place in the order of a payload, but for its name; see [`sort`].
    pub fn rank(&self) -> Rank {
        let longest = match self.config_mode {
            Mode::Host => 0,
            Mode::Path => self.patterns().map(str::len).max().unwrap_or(0),
        };
        (self.config_mode, Reverse(longest))
    }

    /// A hash that tells two candidates apart.
    fn hash(&self) -> u64 {
        let mut hash = Fingerprint::default();
        hash.add(self.service_name.as_bytes());
        hash.add(&self.port.to_le_bytes());
        hash.add(&[match self.config_mode {
            Mode::Host => 0,
            Mode::Path => 1,
        }]);
        hash.add(self.predicate.as_bytes());
        // None and an empty cookie are two things on the wire.
        hash.add(&[u8::from(self.cookie.is_some())]);
        hash.add(self.cookie.as_deref().unwrap_or_default().as_bytes());
        hash.add(&(self.containers.len() as u64).to_le_bytes());
        for Instance { id, ip } in &self.containers {
            hash.add(id.as_bytes());
            hash.add(ip.as_bytes());
        }
        hash.finish()
    }
}

/// What tells two payloads apart, without a copy of them: a sum over their entries, so that one of thousands is
/// exchanged without a look at the others. A payload has one order only ([`sort`]), so the sum says all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest(u64);

impl Digest {
    /// Of one service: its candidate, and its instances as they stand in `running`.
    pub fn of(candidate: &Candidate) -> Digest {
        let mut digest = Digest(candidate.hash());
        for Instance { id, ip } in &candidate.containers {
            digest.run(&candidate.service_name, id, ip);
        }
        digest
    }

    /// Adds an entry of `running`.
    fn run(&mut self, service: &str, id: &str, ip: &str) {
        let mut hash = Fingerprint::default();
        for word in [service, id, ip] {
            hash.add(word.as_bytes());
        }
        self.0 = self.0.wrapping_add(hash.finish());
    }

    /// Adds all of another one.
    pub fn add(&mut self, other: Digest) {
        self.0 = self.0.wrapping_add(other.0);
    }

    /// Takes another one out again.
    pub fn take(&mut self, other: Digest) {
        self.0 = self.0.wrapping_sub(other.0);
    }

    /// The digest of the payload that these are the entries of.
    pub fn in_table(self, table: &str) -> String {
        let mut hash = Fingerprint::default();
        hash.add(table.as_bytes());
        hash.add(&self.0.to_le_bytes());
        hash.to_string()
    }
}

impl Payload {
    /// What tells this payload from another one.
    pub fn digest(&self) -> String {
        let mut digest = Digest::default();
        for Running {
            service_name,
            id,
            ip,
        } in &self.running
        {
            digest.run(service_name, id, ip);
        }
        for candidate in &self.candidates {
            digest.add(Digest(candidate.hash()));
        }
        digest.in_table(&self.table)
    }
}

/// Brings a payload into the one order that the same services always have: host rules first, then
/// path rules with the longest predicate first, then by name; containers and `running` by id. First
/// match wins in HAProxy, so `api/v2` must stand before `api`.
pub fn sort(payload: &mut Payload) {
    order::sort_by(&mut payload.candidates, in_order);
    for candidate in &mut payload.candidates {
        order::sort(&mut candidate.containers);
    }
    order::sort_by(&mut payload.running, |a, b| {
        (&a.service_name, &a.id, &a.ip).cmp(&(&b.service_name, &b.id, &b.ip))
    });
}

/// The order of two candidates in a payload; see [`sort`].
pub fn in_order(a: &Candidate, b: &Candidate) -> Ordering {
    a.rank()
        .cmp(&b.rank())
        .then_with(|| a.service_name.cmp(&b.service_name))
}

/// What comes first in the order of a payload, before the name: the mode, and the longest path.
pub type Rank = (Mode, Reverse<usize>);
