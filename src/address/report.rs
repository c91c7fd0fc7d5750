//! The Weave router's answers to `GET /report` and `GET /ip`, from bytes to what we use of them.
//!
//! Nothing here knows how the bytes came or when to ask again. A single bad entry is skipped and
//! counted; it never fails the answer. `null` means empty, unknown fields are no error, and only
//! the fields below are read (`Router.Peers[].UID` alone would overflow an `i64`).
//!
//! Rules: the router's `/report` has had these fields since 1.1.0 (2015) and `/ip` since 2.0.0;
//! 2.8.1 and the fork's 2.9.0 send the same.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;

use crate::json;
use serde::Deserialize;
use serde_json::Value;

/// Why an answer of the router cannot be used at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unusable {
    /// The body is not JSON of the expected shape; the words say where.
    Malformed(String),
    /// JSON, but of something that is no Weave router: neither `Router`, `IPAM` nor `DNS` in it.
    Foreign,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unusable::Malformed(what) => write!(f, "not a Weave report: {what}"),
            Unusable::Foreign => {
                f.write_str("not a Weave report: it has neither Router, IPAM nor DNS")
            }
        }
    }
}

/// An IPv4 subnet such as Weave's `10.32.0.0/12`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Subnet {
    address: Ipv4Addr,
    mask: u32,
}

impl Subnet {
    /// Reads `ADDRESS/PREFIX`; `None` for anything else.
    pub fn parse(text: &str) -> Option<Subnet> {
        let (address, prefix) = text.split_once('/')?;
        let address = address.parse().ok()?;
        let prefix: u32 = prefix.parse().ok().filter(|prefix| *prefix <= 32)?;
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        Some(Subnet { address, mask })
    }

    /// Whether the address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask == self.address.to_bits() & self.mask
    }
}

/// One name that weaveDNS holds, of this host or of any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The full name with its domain and final dot, as registered: any case, any characters.
    pub name: String,
    /// The peer that registered it, a MAC-like text.
    pub origin: String,
    /// A container's full id; or `weave:expose`, `weave:extern`, or whatever a client made up.
    /// From `weave status dns` only its first 12 characters.
    pub id: String,
    /// Its address; `0.0.0.0` stands for an IPv6 registration.
    pub address: Ipv4Addr,
    /// It was removed; routers keep the record for 30 minutes.
    pub removed: bool,
}

/// What this host's address allocator says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Owned {
    /// The router has no allocator, or the address we ask has no `/ip`: it answered 404.
    Off,
    /// It could not be asked or understood this time.
    #[default]
    Unknown,
    /// Addresses by full container id; those of a dead container stay for 30 seconds.
    Listed(HashMap<String, Vec<Ipv4Addr>>),
}

/// All that one look at the router told us.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Answer {
    /// The router's own peer name; `None` if it did not say (the command's output does not).
    pub peer: Option<String>,
    /// weaveDNS's domain with its final dot; `None` without weaveDNS.
    pub domain: Option<String>,
    /// The subnet from which containers get addresses unless they ask for another.
    pub default_subnet: Option<Subnet>,
    /// What weaveDNS holds, in the router's order.
    pub entries: Vec<Entry>,
    /// What the allocator holds.
    pub owned: Owned,
    /// The ids of `entries` are only 12 characters long, and names lack the domain.
    pub short: bool,
    /// Entries or lines that made no sense and were left out.
    pub skipped: usize,
}

#[derive(Deserialize)]
struct WireReport<'a> {
    #[serde(rename = "Router", borrow)]
    router: Option<WireRouter<'a>>,
    #[serde(rename = "IPAM", borrow)]
    ipam: Option<WireIpam<'a>>,
    #[serde(rename = "DNS", borrow)]
    dns: Option<WireDns<'a>>,
}

#[derive(Deserialize)]
struct WireRouter<'a> {
    #[serde(rename = "Name", borrow)]
    name: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct WireIpam<'a> {
    #[serde(rename = "DefaultSubnet", borrow)]
    default_subnet: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct WireDns<'a> {
    #[serde(rename = "Domain", borrow)]
    domain: Option<Cow<'a, str>>,
    #[serde(rename = "Entries")]
    entries: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct WireOwned {
    owned: Option<Vec<Value>>,
}

/// One name of Weave's DNS; `None` for what is none, which is passed over instead of failing the list.
fn entry(wire: &Value) -> Option<Entry> {
    let text = |key| wire.get(key).and_then(Value::as_str);
    Some(Entry {
        name: text("Hostname")?.to_owned(),
        origin: text("Origin")?.to_owned(),
        id: text("ContainerID")?.to_owned(),
        address: text("Address")?.parse().ok()?,
        removed: match wire.get("Tombstone") {
            Some(tombstone) => tombstone.as_i64()? != 0,
            None => false,
        },
    })
}

/// The id and the addresses of one allocation, likewise.
fn allocation(wire: &Value) -> Option<(&str, Vec<&str>)> {
    let addresses = match wire.get("addrs") {
        Some(Value::Array(addresses)) => {
            addresses.iter().map(Value::as_str).collect::<Option<_>>()?
        }
        Some(Value::Null) | None => Vec::new(),
        Some(_) => return None,
    };
    Some((wire.get("containerid")?.as_str()?, addresses))
}

/// Reads the body of `GET /report` with `Accept: application/json`.
///
/// `owned` of the result is `Unknown`; the caller fills it from [`owned`].
///
/// # Errors
/// `Malformed` when it is not JSON or a section is not what it should be, `Foreign` when it is not
/// a Weave router's.
pub fn report(body: &[u8]) -> Result<Answer, Unusable> {
    let wire: WireReport<'_> =
        json::read(body).map_err(|error| Unusable::Malformed(error.to_string()))?;
    if wire.router.is_none() && wire.ipam.is_none() && wire.dns.is_none() {
        return Err(Unusable::Foreign);
    }
    let mut answer = Answer {
        peer: wire
            .router
            .and_then(|router| router.name)
            .map(Cow::into_owned),
        default_subnet: wire
            .ipam
            .and_then(|ipam| ipam.default_subnet)
            .and_then(|subnet| Subnet::parse(&subnet)),
        ..Answer::default()
    };
    if let Some(dns) = wire.dns {
        answer.domain = Some(dns.domain.map(Cow::into_owned).unwrap_or_default());
        for wire in dns.entries.unwrap_or_default() {
            match entry(&wire) {
                Some(entry) => answer.entries.push(entry),
                None => answer.skipped += 1,
            }
        }
    }
    Ok(answer)
}

/// Reads the body of `GET /ip`: addresses by id, and how many entries made no sense.
///
/// # Errors
/// `Malformed` when it is not JSON of that shape.
pub fn owned(body: &[u8]) -> Result<(HashMap<String, Vec<Ipv4Addr>>, usize), Unusable> {
    let wire: WireOwned =
        json::read(body).map_err(|error| Unusable::Malformed(error.to_string()))?;
    let mut listed: HashMap<String, Vec<Ipv4Addr>> = HashMap::new();
    let mut skipped = 0;
    for wire in wire.owned.unwrap_or_default() {
        let Some((id, cidrs)) = allocation(&wire) else {
            skipped += 1;
            continue;
        };
        let addresses = listed.entry(id.to_owned()).or_default();
        for cidr in cidrs {
            let text = cidr.split_once('/').map_or(cidr, |(address, _)| address);
            match text.parse() {
                Ok(address) => addresses.push(address),
                Err(_) => skipped += 1,
            }
        }
    }
    Ok((listed, skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name address id-prefix` of the live entries, and how many were removed and skipped.
    fn check(body: &str, live: usize, removed: usize, domain: Option<&str>) -> Answer {
        let answer = report(body.as_bytes()).expect("a report");
        let gone = answer.entries.iter().filter(|entry| entry.removed).count();
        assert_eq!((answer.entries.len() - gone, gone), (live, removed));
        assert_eq!(answer.domain.as_deref(), domain);
        assert_eq!(answer.default_subnet, Subnet::parse("10.32.0.0/12"));
        assert_eq!(answer.skipped, 0);
        assert_eq!(answer.owned, Owned::Unknown);
        assert!(!answer.short);
        answer
    }

    macro_rules! data {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/weave/", $name))
        };
    }

    #[test]
    fn every_captured_report_reads_as_it_was_seen() {
        let weave = Some("weave.local.");
        check(data!("report-empty.json"), 0, 0, weave);
        let one = check(data!("report-one.json"), 1, 0, weave);
        assert_eq!(one.peer.as_deref(), Some("7a:c4:8b:a1:e2:9a"));
        assert_eq!(
            one.entries,
            [Entry {
                name: "api.weave.local.".into(),
                origin: "7a:c4:8b:a1:e2:9a".into(),
                id: "5dd80892943653db3a5bb990e3365ac94bea8494c2f247dd11cfc2f762c268af".into(),
                address: Ipv4Addr::new(10, 32, 0, 1),
                removed: false,
            }]
        );
        let mixed = check(data!("report-mixed.json"), 10, 0, weave);
        let fork = check(data!("report-mixed-fork-2.9.0.json"), 10, 0, weave);
        assert_eq!(mixed, fork);
        check(data!("report-tombstones.json"), 7, 3, weave);
        let odd = check(data!("report-odd.json"), 16, 3, weave);
        let names: Vec<&str> = odd
            .entries
            .iter()
            .map(|entry| entry.name.as_str())
            .collect();
        for name in [
            "nl\nx.weave.local.",
            "tab\tx.weave.local.",
            "тест.weave.local.",
            "x..weave.local.",
            "Mixed.WEAVE.Local.",
        ] {
            assert!(names.contains(&name), "{name:?}");
        }
        check(data!("report-docker.json"), 10, 1, weave);
        check(data!("report-two-hosts-at-host1.json"), 8, 19, weave);
        check(
            data!("derived-report-future-fields-not-ready.json"),
            6,
            17,
            weave,
        );
        check(data!("report-no-dns.json"), 0, 0, None);
    }

    #[test]
    fn every_captured_allocation_reads_as_it_was_seen() {
        for (body, ids, addresses) in [
            (data!("ip-empty.json"), 0, 0),
            (data!("ip-docker.json"), 8, 10),
            (data!("ip-two-hosts-at-host1.json"), 3, 3),
            (data!("ip-two-hosts-at-host2.json"), 3, 3),
        ] {
            let (listed, skipped) = owned(body.as_bytes()).expect("allocations");
            assert_eq!(listed.len(), ids);
            assert_eq!(listed.values().map(Vec::len).sum::<usize>(), addresses);
            assert_eq!(skipped, 0);
        }
    }

    #[test]
    fn the_routers_other_views_agree_with_the_report() {
        let answer = report(data!("report-docker.json").as_bytes()).expect("a report");
        let status = data!("status-docker.txt");
        assert!(status.contains("DefaultSubnet: 10.32.0.0/12"));
        assert!(status.contains(&format!("Domain: {}", answer.domain.unwrap())));
        assert!(status.contains(&format!("Name: {}(host1)", answer.peer.unwrap())));
        #[derive(Deserialize)]
        struct Name {
            #[serde(rename = "ContainerID")]
            id: String,
            #[serde(rename = "Hostname")]
            name: String,
            #[serde(rename = "Addr")]
            address: String,
        }
        let names: Vec<Name> = serde_json::from_str(data!("name-docker.json")).expect("names");
        assert_eq!(names.len(), answer.entries.len());
        for (name, entry) in names.iter().zip(&answer.entries) {
            assert_eq!(name.id, entry.id);
            assert_eq!(name.name, entry.name);
            assert_eq!(name.address, entry.address.to_string());
        }
    }

    #[test]
    fn a_bad_entry_costs_only_itself() {
        let body = r#"{"Router":{"Name":"p","Peers":[{"UID":18446744073709551615}]},
            "IPAM":{"DefaultSubnet":"nonsense"},
            "DNS":{"Domain":"weave.local.","Entries":[
              null, 7, "x", [], {"Hostname":"a."},
              {"Hostname":"b.","Origin":"p","ContainerID":"i","Address":"10.32.0.300","Tombstone":0},
              {"Hostname":"c.","Origin":"p","ContainerID":"i","Address":"fd00::1","Tombstone":0},
              {"Hostname":"d.","Origin":"p","ContainerID":7,"Address":"10.32.0.3","Tombstone":0},
              {"Hostname":"e.","Origin":"p","ContainerID":"i","Address":"10.32.0.4","New":{"x":[1]}}]}}"#;
        let answer = report(body.as_bytes()).expect("a report");
        assert_eq!(answer.skipped, 8);
        assert_eq!(answer.entries.len(), 1);
        assert_eq!(answer.entries[0].name, "e.");
        assert_eq!(answer.default_subnet, None);
        let (listed, skipped) = owned(
            br#"{"owned":[null,{"containerid":"a","addrs":["10.1.0.1/8","x/8","10.1.0.2"]},
                {"containerid":"b","addrs":null},{"addrs":[]}],"more":1}"#,
        )
        .expect("allocations");
        assert_eq!(skipped, 3);
        assert_eq!(
            listed["a"],
            [Ipv4Addr::new(10, 1, 0, 1), Ipv4Addr::new(10, 1, 0, 2)]
        );
        assert!(listed["b"].is_empty());
    }

    #[test]
    fn garbage_is_told_from_an_answer() {
        for body in [
            "",
            "404 page not found",
            "{\"Router\":",
            "[]",
            "7",
            "{\"DNS\":{\"Entries\":{}}}",
            "\u{0}\u{1}",
        ] {
            assert!(
                matches!(report(body.as_bytes()), Err(Unusable::Malformed(_))),
                "{body:?}"
            );
        }
        for body in ["{}", "{\"error\":\"x\"}", "null"] {
            assert!(report(body.as_bytes()).is_err(), "{body:?}");
        }
        assert_eq!(report(b"{}"), Err(Unusable::Foreign));
        for body in ["", "x", "[]", "{\"owned\":7}"] {
            assert!(owned(body.as_bytes()).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_report_cut_anywhere_is_refused_and_never_panics() {
        let whole = data!("report-docker.json").trim_end().as_bytes();
        for end in 0..whole.len() {
            assert!(report(&whole[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn subnets() {
        let subnet = Subnet::parse("10.32.0.0/12").unwrap();
        assert!(subnet.contains(Ipv4Addr::new(10, 47, 255, 254)));
        assert!(!subnet.contains(Ipv4Addr::new(10, 48, 0, 0)));
        assert!(
            Subnet::parse("0.0.0.0/0")
                .unwrap()
                .contains(Ipv4Addr::new(9, 9, 9, 9))
        );
        assert!(
            Subnet::parse("10.0.0.1/32")
                .unwrap()
                .contains(Ipv4Addr::new(10, 0, 0, 1))
        );
        for text in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "x/8",
            "10.0.0.0/",
            "fd00::/8",
        ] {
            assert_eq!(Subnet::parse(text), None, "{text}");
        }
    }
}
