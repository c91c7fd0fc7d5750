//! Whatever a container says of itself, no line of its own gets into the config: descriptions made of nasty
//! pieces go all the way (description, service, payload, built-in registry), and what comes out is parsed
//! and given to the real `haproxy -c`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use cosmonaut::address::{Address, Source};
use cosmonaut::config::Config;
use cosmonaut::description::{self, Reading};
use cosmonaut::docker::container::{self, Container};
use cosmonaut::registry::Registry;
use cosmonaut::registry::embedded::Embedded;
use cosmonaut::registry::store::Store;
use cosmonaut::registry::template::Base;
use cosmonaut::service::{self, Monitored, Told};

use crate::support::dice::Dice;
use crate::support::host_haproxy::program;
use crate::support::real_docker::left_out;

/// Configs that are made, and every how many of them HAProxy sees.
const CONFIGS: u64 = 400;
const CHECKED_EVERY: u64 = 20;
/// Containers of one config.
const CONTAINERS: u64 = 8;

/// What values are made of: directives, quotes, ends of lines, sections, expressions, and good pieces.
const PIECES: &[&str] = &[
    "web",
    "api",
    "a.example",
    "*.b.example",
    "xn--bcher-kva.example",
    "/",
    "v1",
    "..",
    ".",
    "-",
    "_",
    "80",
    "8080",
    "0",
    "65536",
    "host",
    "path",
    "SID",
    " ",
    "\t",
    "\n",
    "\r",
    "\r\n",
    "\0",
    "'",
    "\"",
    "\\",
    "#",
    ";",
    "$HOME",
    "%[env(HOME)]",
    "\n    use_backend be_evil",
    "\n    default_backend be_evil",
    "\nbackend be_evil\n    server x 127.0.0.1:1",
    "\nglobal\n    lua-load /tmp/x",
    "\nprogram x\n    command id",
    " redir http://evil.example",
    " prefix nocache",
    "-f /etc/shadow",
    "-i",
    "-m",
    "reg",
    "{",
    "}",
    "!",
    "or",
    "||",
    "always_true",
    "hdr(host)",
    "be_",
    "is_",
    "default",
    "http_in",
    "ä",
    "\u{feff}",
    "\u{202e}",
    "if",
    "https://a.example/",
    "a.example:8080",
    ",",
    "..a..",
    "a..b",
    "%0a",
    "&",
    "|",
    "`id`",
    "$(id)",
    "*",
    "?",
];

fn value(dice: &mut Dice, good: &[&str]) -> String {
    if dice.roll(2) == 0 {
        return good[dice.roll(good.len())].to_owned();
    }
    let pieces = 1 + dice.roll(4);
    (0..pieces)
        .map(|_| PIECES[dice.roll(PIECES.len())])
        .collect()
}

fn settings(dice: &mut Dice) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for (name, good) in [
        (
            "SERVICE_NAME",
            &["web", "api", "shop.v2", "Web", "9lives"][..],
        ),
        (
            "PREDICATE",
            &[
                "a.example",
                "*.b.example c.example",
                "/v1",
                "v1/x v2",
                "d.example",
            ],
        ),
        ("CONFIG_MODE", &["host", "path", "PATH"]),
        ("PORT", &["80", "8080", "65535"]),
        ("COOKIE", &["SID", "JSESSIONID", ""]),
    ] {
        if name == "SERVICE_NAME" || name == "PREDICATE" || dice.roll(2) == 0 {
            all.push((name.to_owned(), value(dice, good)));
        }
    }
    all
}

fn containers(dice: &mut Dice) -> Vec<(Container, Reading)> {
    (0..CONTAINERS)
        .map(|number| {
            let id = format!("{:064x}", (number + 1) * 0x0123_4567_89ab_cdef);
            let json = serde_json::json!({
                "Id": id, "Name": format!("/asteroid-{number}"), "Created": format!("2026-01-01T00:00:0{number}Z"),
                "State": {"Running": true, "StartedAt": "2026-01-01T00:00:09Z"},
                "Config": {}, "HostConfig": {"NetworkMode": "apps"}, "NetworkSettings": {"Networks": {}},
            });
            let container = container::inspected(json.to_string().as_bytes()).expect("an inspect").container;
            let settings = settings(dice);
            let reading = if dice.roll(3) == 0 {
                let label = |(name, value): (String, String)| {
                    (format!("cosmonaut.{}", name.to_lowercase().replace('_', "-")), value)
                };
                description::read(&[], &settings.into_iter().map(label).collect::<Vec<_>>())
            } else {
                description::read(&settings, &[])
            };
            (container, reading)
        })
        .collect()
}

/// Every line of a config is the base's, or one that was asked for.
#[track_caller]
fn holds_only_what_was_asked_for(
    text: &str,
    empty: &str,
    services: &BTreeMap<String, (Option<String>, BTreeSet<String>)>,
) {
    assert!(!text.contains(['\0', '\r', '\t']), "{text:?}");
    let base: Vec<&str> = empty.lines().collect();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.starts_with(&base), "the base is changed:\n{text}");
    let config = Config::parse(text);
    let sections: BTreeSet<&str> = config.sections().map(|section| section.keyword()).collect();
    assert_eq!(
        sections,
        BTreeSet::from(["backend", "defaults", "frontend", "global"])
            .into_iter()
            .filter(|word| *word != "backend" || !services.is_empty())
            .collect()
    );
    let backends: BTreeMap<&str, BTreeSet<String>> = config
        .backends()
        .map(|backend| {
            let servers = backend.servers().map(|server| {
                let words: Vec<&str> = server.options.iter().map(|word| word.as_ref()).collect();
                let known = words == ["check"] || words == ["check", "cookie", server.name];
                assert!(known, "server options {words:?}");
                format!("{} {}", server.name, server.address)
            });
            (backend.name(), servers.collect())
        })
        .collect();
    let wanted: BTreeMap<String, BTreeSet<String>> = services
        .iter()
        .map(|(name, (_, servers))| (format!("be_{name}"), servers.clone()))
        .collect();
    let found: BTreeMap<String, BTreeSet<String>> = backends
        .into_iter()
        .map(|(name, servers)| (name.to_owned(), servers))
        .collect();
    assert_eq!(found, wanted, "{text}");
    for section in config.sections() {
        match section.keyword() {
            "frontend" => {
                for line in section.lines().filter(|line| line.number > base.len()) {
                    let words: Vec<&str> = line.words.iter().map(|word| word.as_ref()).collect();
                    let acl_of_ours = |acl: &str| {
                        let acl = acl.strip_prefix("is_").unwrap_or_default();
                        services.contains_key(acl.split(':').next().unwrap_or_default())
                    };
                    let known = match words.as_slice() {
                        ["acl", acl, "hdr(host),field(1,:)", "-i", "-m", "end", _]
                        | ["acl", acl, "path" | "path_beg", _] => acl_of_ours(acl),
                        ["acl", acl, "hdr(host),field(1,:)", "-i", names @ ..] => {
                            acl_of_ours(acl) && names.iter().all(|name| !name.starts_with('-'))
                        }
                        ["use_backend", backend, "if", acl] => {
                            acl_of_ours(acl) && wanted.contains_key(*backend)
                        }
                        _ => false,
                    };
                    assert!(known, "line {}: {:?}", line.number, line.text);
                    assert!(words.len() <= 64);
                }
            }
            "backend" => {
                let (cookie, _) = &services[section.name().strip_prefix("be_").unwrap_or_default()];
                for line in section.lines() {
                    let known = match line.keyword() {
                        "server" => true,
                        "balance" => line.words == ["balance", "roundrobin"],
                        "cookie" | "acl" | "http-request" | "http-response" => cookie.is_some(),
                        _ => false,
                    };
                    assert!(known, "line {}: {:?}", line.number, line.text);
                    if line.keyword() == "cookie" {
                        let name = cookie.as_deref().unwrap_or_default();
                        assert_eq!(line.words, ["cookie", name, "prefix", "nocache"]);
                    }
                }
            }
            _ => {}
        }
    }
}

fn haproxy_accepts(text: &str) {
    let mut haproxy = Command::new(program())
        .args(["-dW", "-c", "-f", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("haproxy is installed");
    let mut stdin = haproxy.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    let output = haproxy.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}\n{text}");
}

#[test]
fn no_description_brings_a_line_of_its_own() {
    let mut dice = Dice::new(0x2016_c05a_0a07_1701);
    let folder = std::env::temp_dir().join(format!("csm-hostile-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let (mut routed, mut refused) = (0, 0);
    for number in 0..CONFIGS {
        let all = containers(&mut dice);
        let monitored: Vec<Monitored<'_>> = all
            .iter()
            .enumerate()
            .map(|(at, (container, reading))| Monitored {
                container,
                reading,
                address: Address::Known {
                    ip: IpAddr::V4(Ipv4Addr::new(10, 2, 0, at as u8 + 2)),
                    others: Vec::new(),
                    source: Source::Network("apps".into()),
                },
                leaving: false,
                held: None,
            })
            .collect();
        let mut selection = service::select(&monitored, Told::All, |_| Ok(()));
        // A table of its own each time: what was stored before is not asked for.
        let payload = selection.payload(&format!("t{number}"), Vec::new());
        let registry = || {
            let base = Base::built_in(None).expect("the base");
            Embedded::new(base, Box::new(Store::new(&folder)))
        };
        let text = registry().config(&payload).expect("a config");
        let mut nothing = payload.clone();
        nothing.table = "nothing".to_owned();
        nothing.running.clear();
        nothing.candidates.clear();
        let empty = registry().config(&nothing).expect("a config");
        let services = payload
            .candidates
            .iter()
            .map(|one| {
                let servers = one
                    .containers
                    .iter()
                    .map(|instance| format!("{} {}:{}", instance.id, instance.ip, one.port));
                (
                    one.service_name.clone(),
                    (one.cookie.clone(), servers.collect()),
                )
            })
            .collect();
        holds_only_what_was_asked_for(&text, &empty, &services);
        routed += selection.counts().0;
        refused += selection.counts().2;
        if number % CHECKED_EVERY == 0 && !left_out("haproxy") {
            haproxy_accepts(&text);
        }
        let _ = std::fs::remove_file(folder.join(format!("t{number}.json")));
    }
    let _ = std::fs::remove_dir_all(&folder);
    assert!(
        routed > 150 && refused > 1000,
        "{routed} routed, {refused} refused"
    );
}
