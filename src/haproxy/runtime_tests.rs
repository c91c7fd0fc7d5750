//! What is said on the runtime socket, to a HAProxy of the test's own that answers as 2.6 and 3.0 do
//! (their texts were recorded) and keeps its servers in a table.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// A HAProxy as far as its runtime socket goes.
#[derive(Default)]
struct Fake {
    version: &'static str,
    description: String,
    /// Address, maintenance, checks on.
    servers: BTreeMap<String, (Address, bool, bool)>,
    /// Servers that are refused to be deleted.
    busy: BTreeSet<String>,
    /// Answers instead of its own, by the beginning of the command.
    instead: BTreeMap<&'static str, &'static str>,
    /// It does as it is told by a command that begins so, and its answer is lost.
    lost: Option<&'static str>,
    /// It takes connections and says nothing.
    hangs: bool,
    said: Vec<String>,
}

impl Fake {
    fn answer(&mut self, command: &str) -> String {
        if let Some((_, instead)) = self
            .instead
            .iter()
            .find(|(start, _)| command.starts_with(**start))
        {
            return (*instead).to_owned();
        }
        if command == "show info" {
            return format!(
                "Name: HAProxy\nVersion: {}\nPid: 7\ndescription: {}\n\n",
                self.version, self.description
            );
        }
        if command == "show servers state" {
            let mut reply =
                "1\n# be_id be_name srv_id srv_name srv_addr srv_admin_state srv_port\n".to_owned();
            for (name, (address, maintenance, _)) in &self.servers {
                let (backend, server) = name.split_once('/').expect("a server's name");
                let row = format!(
                    "3 {backend} 1 {server} {} {} {}\n",
                    address.ip(),
                    u8::from(*maintenance),
                    address.port()
                );
                reply.push_str(&row);
            }
            return reply + "\n";
        }
        self.said.push(command.to_owned());
        let words: Vec<&str> = command.split_whitespace().collect();
        let name = (*words.get(2).unwrap_or(&"")).to_owned();
        let sticky = words.contains(&"cookie") && self.version.starts_with("2.");
        match (words.as_slice(), self.servers.get_mut(&name)) {
            (["add", "server", ..], Some(_)) => {
                "Already exists a server with the same name in backend.\n\n".to_owned()
            }
            (["add", "server", ..], None) if sticky => {
                "'cookie' option is not accepted for dynamic server\n\n".to_owned()
            }
            (["add", "server", _, address, ..], None) => {
                let address = address.parse().expect("an address");
                self.servers.insert(name, (address, true, false));
                "New server registered.\n".to_owned()
            }
            (_, None) => "No such server.\n\n".to_owned(),
            (["enable", "health", ..], Some(server)) => {
                server.2 = true;
                "\n".to_owned()
            }
            (["set", "server", _, "state", state], Some(server)) => {
                server.1 = *state == "maint";
                "\n".to_owned()
            }
            (["set", "server", _, "addr", ip, "port", port], Some(server)) => {
                server.0 = Address::new(ip.parse().expect("an ip"), port.parse().expect("a port"));
                "IP changed from '10.0.0.1' to '10.0.0.2' by 'stats socket command'\n\n".to_owned()
            }
            (["del", "server", ..], Some(_)) if self.busy.contains(&name) => {
                "Server still has connections attached to it, cannot remove it.\n".to_owned()
            }
            (["del", "server", ..], Some((_, true, _))) => {
                self.servers.remove(&name);
                "Server deleted.\n".to_owned()
            }
            (["del", "server", ..], Some(_)) => {
                "Only servers in maintenance mode can be deleted.\n".to_owned()
            }
            _ => format!("Unknown command: {command}\n"),
        }
    }
}

/// A fake that listens, and the runtime that talks to it.
struct Stage {
    fake: Arc<Mutex<Fake>>,
    runtime: Runtime,
    path: PathBuf,
}

impl Stage {
    fn new(version: &'static str, config: &str) -> Stage {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("csm-rt-{}-{number}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).expect("a socket");
        let fake = Arc::new(Mutex::new(Fake {
            version,
            description: "cosmonaut:aaaaaaaaaaaaaaaa".to_owned(),
            servers: table(config),
            ..Fake::default()
        }));
        let shared = fake.clone();
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                if shared.lock().expect("the fake").hangs {
                    unanswered.push(stream);
                    continue;
                }
                let mut line = String::new();
                let _ = BufReader::new(&stream).read_line(&mut line);
                let mut fake = shared.lock().expect("the fake");
                let answer = fake.answer(line.trim());
                let lost = fake.lost.is_some_and(|lost| line.starts_with(lost));
                drop(fake);
                let answer = if lost { "lost\n" } else { &answer };
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        let address = SocketAddr::Path(path.clone());
        Stage {
            fake,
            runtime: Runtime::new(address),
            path,
        }
    }

    fn apply(&mut self, old: &str, new: &str) -> Result<String, Doubt> {
        let shown = Shown {
            loaded: "aaaaaaaaaaaaaaaa",
            current: "bbbbbbbbbbbbbbbb",
        };
        self.runtime
            .apply(&Config::parse(old), &Config::parse(new), shown)
    }

    fn said(&self) -> Vec<String> {
        std::mem::take(&mut self.fake.lock().expect("the fake").said)
    }

    fn fake(&self, change: impl FnOnce(&mut Fake)) {
        change(&mut self.fake.lock().expect("the fake"));
    }

    /// Whether it runs exactly this, with checks on where they are asked for.
    #[track_caller]
    fn runs(&self, config: &str) {
        let fake = self.fake.lock().expect("the fake");
        let live: Vec<_> = fake
            .servers
            .iter()
            .filter(|(_, (_, maintenance, _))| !maintenance)
            .map(|(name, (address, ..))| (name.clone(), *address))
            .collect();
        let wanted: Vec<_> = table(config)
            .into_iter()
            .map(|(name, (address, ..))| (name, address))
            .collect();
        assert_eq!(live, wanted);
        assert!(
            fake.servers
                .values()
                .all(|(_, maintenance, checks)| *maintenance || *checks)
        );
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn table(config: &str) -> BTreeMap<String, (Address, bool, bool)> {
    Config::parse(config)
        .backends()
        .flat_map(|backend| {
            backend.servers().map(move |server| {
                let address = server.address.parse().expect("an address");
                (
                    format!("{}/{}", backend.name(), server.name),
                    (address, false, true),
                )
            })
        })
        .collect()
}

/// What a change gives back is of no interest.
fn ignore<T>(_: T) {}

/// A config with these server lines in its backend.
fn config(servers: &[&str]) -> String {
    let lines: String = servers
        .iter()
        .map(|server| format!("    server {server}\n"))
        .collect();
    format!(
        "defaults\n    default-server inter 2s fall 2\nfrontend f\n    # cosmonaut: rules\n    acl is_w path '/'\n    use_backend be_w if is_w\nbackend be_w\n    default-server rise 1\n    balance roundrobin\n{lines}"
    )
}

const A: &str = "a 10.0.0.1:80 check";
const B: &str = "b 10.0.0.2:80 check";
const B_ELSEWHERE: &str = "b [fd00::2]:81 check";
const STICKY: &str = "c 10.0.0.3:80 check cookie c";

#[test]
fn servers_come_move_and_go_without_a_reload() {
    let add = "add server be_w/b 10.0.0.2:80 inter 2s fall 2 rise 1 check";
    for (version, old, new, said) in [
        (
            "2.6.12-1+deb12u4",
            &[A][..],
            &[A, B][..],
            &[add, "enable health be_w/b", "set server be_w/b state ready"][..],
        ),
        ("2.6.12", &[A, B], &[A], &["set server be_w/b state maint"]),
        (
            "2.8.0",
            &[A, STICKY],
            &[A],
            &["set server be_w/c state maint"],
        ),
        (
            "2.6.12",
            &[A, B],
            &[A, B_ELSEWHERE],
            &[
                "set server be_w/b state maint",
                "set server be_w/b addr fd00::2 port 81",
                "set server be_w/b state ready",
            ],
        ),
        (
            "3.0.11",
            &[A],
            &[A, STICKY],
            &[
                "add server be_w/c 10.0.0.3:80 inter 2s fall 2 rise 1 check cookie c",
                "enable health be_w/c",
                "set server be_w/c state ready",
            ],
        ),
        (
            "3.4.0",
            &[],
            &[B],
            &[add, "enable health be_w/b", "set server be_w/b state ready"],
        ),
        ("2.6.12", &[A], &[A], &[]),
    ] {
        let (old, new) = (config(old), config(new));
        let mut stage = Stage::new(version, &old);
        assert_eq!(stage.apply(&old, &new), Ok("aaaaaaaaaaaaaaaa".to_owned()));
        assert_eq!(stage.said(), said);
        stage.runs(&new);
    }
}

const SHOWN: Shown<'static> = Shown {
    loaded: "aaaaaaaaaaaaaaaa",
    current: "bbbbbbbbbbbbbbbb",
};

#[test]
fn what_was_added_ahead_of_the_check_is_not_added_again() {
    let (old, new) = (config(&[A]), config(&[A, B]));
    let mut stage = Stage::new("2.6.12", &old);
    let parsed = (Config::parse(&old), Config::parse(&new));
    let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
    assert_eq!(added, Ok(()));
    stage.runs(&new);
    assert_eq!(stage.said().len(), 3);
    assert_eq!(stage.apply(&old, &new).map(ignore), Ok(()));
    assert_eq!(stage.said(), [""; 0]);
    stage.runtime.take_back();
    assert_eq!(stage.said(), [""; 0], "it was made");
    stage.runs(&new);
}

#[test]
fn what_was_added_ahead_of_a_refused_check_is_taken_back_and_deleted() {
    let (old, new) = (config(&[A]), config(&[A, B]));
    let mut stage = Stage::new("2.6.12", &old);
    let parsed = (Config::parse(&old), Config::parse(&new));
    let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
    assert_eq!(added, Ok(()));
    stage.runtime.take_back();
    stage.runs(&old);
    let due = Instant::now() + DELETE_WAITS.0 * 2;
    assert_eq!(stage.runtime.tend(Some(&parsed.0), Some(SHOWN), due), None);
    assert_eq!(stage.fake.lock().expect("the fake").servers.len(), 1);
}

/// Where an answer is lost nobody knows how far an addition has come: what is taken back of it is not taken for a
/// server that is whole, and has its checks on when it comes again.
#[test]
fn what_was_added_half_is_taken_back_and_comes_back_whole() {
    let (old, new) = (config(&[A]), config(&[A, B]));
    let parsed = (Config::parse(&old), Config::parse(&new));
    for half in [
        "add server",
        "enable health",
        "set server be_w/b state ready",
    ] {
        let mut stage = Stage::new("2.6.12", &old);
        stage.fake(|fake| fake.lost = Some(half));
        let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
        assert!(added.is_err(), "{half}");
        stage.runs(&old);
        stage.fake(|fake| fake.lost = None);
        assert_eq!(stage.apply(&old, &new).map(ignore), Ok(()), "{half}");
        stage.runs(&new);
    }
}

#[test]
fn what_was_let_in_again_half_is_taken_back() {
    let (old, new) = (config(&[A]), config(&[A, B]));
    let parsed = (Config::parse(&old), Config::parse(&new));
    let mut stage = Stage::new("2.6.12", &new);
    assert_eq!(stage.apply(&new, &old).map(ignore), Ok(()));
    stage.fake(|fake| fake.lost = Some("set server be_w/b state ready"));
    let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
    assert!(added.is_err());
    stage.runs(&old);
}

#[test]
fn nothing_is_ahead_where_there_is_a_doubt() {
    type Change = fn(&mut Fake);
    let more = config(&[A, B]).replace("path '/'", "path '/x'");
    for (new, change) in [
        (more, (|_| ()) as Change),
        (config(&[A, B_ELSEWHERE, "d 10.0.0.4:80 ssl"]), |_| ()),
        (config(&[A, B]), |fake| fake.version = "2.5.9"),
        (config(&[A, B]), |fake| {
            fake.description = "cosmonaut:cccccccccccccccc".to_owned();
        }),
        (config(&[A, B]), |fake| {
            fake.instead.insert("enable health", "No.\n");
        }),
    ] {
        let old = config(&[A]);
        let mut stage = Stage::new("2.6.12", &old);
        stage.fake(change);
        let parsed = (Config::parse(&old), Config::parse(&new));
        let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
        assert!(added.is_err(), "a doubt");
        stage.runs(&old);
    }
}

#[test]
fn a_haproxy_that_was_reloaded_behind_an_addition_is_a_doubt() {
    let (old, new) = (config(&[A]), config(&[A, B]));
    let mut stage = Stage::new("2.6.12", &old);
    let parsed = (Config::parse(&old), Config::parse(&new));
    let added = stage.runtime.add_ahead(&parsed.0, &parsed.1, SHOWN);
    assert_eq!(added, Ok(()));
    stage.fake(|fake| {
        let other = "Version: 2.6.12\nPid: 8\ndescription: cosmonaut:aaaaaaaaaaaaaaaa\n\n";
        fake.instead.insert("show info", other);
    });
    let doubt = stage.apply(&old, &new).expect_err("a doubt");
    assert!(doubt.contains("reloaded meanwhile"), "{doubt}");
}

#[test]
fn a_haproxy_that_hangs_costs_one_wait_however_many_servers_are_to_be_deleted() {
    let (old, new) = (config(&[A, B, STICKY, "d 10.0.0.4:80 check"]), config(&[A]));
    let mut stage = Stage::new("2.6.12", &old);
    assert_eq!(stage.apply(&old, &new).map(ignore), Ok(()));
    stage.fake(|fake| fake.hangs = true);
    let asked = Instant::now();
    let shown = Shown {
        loaded: "aaaaaaaaaaaaaaaa",
        current: "aaaaaaaaaaaaaaaa",
    };
    let later = asked + DELETE_WAITS.0 * 2;
    assert_eq!(
        stage
            .runtime
            .tend(Some(&Config::parse(&new)), Some(shown), later),
        None
    );
    let took = asked.elapsed();
    assert!(took < COMMAND_LIMIT * 3 / 2, "it took {took:?}");
    assert!(
        stage.runtime.next_due() > later,
        "and the next pass need not wait as long again"
    );
    stage.fake(|fake| fake.hangs = false);
    let due = stage.runtime.next_due() + DELETE_WAITS.1;
    stage
        .runtime
        .tend(Some(&Config::parse(&new)), Some(shown), due);
    stage.runs(&new);
    assert_eq!(stage.fake.lock().expect("the fake").servers.len(), 1);
}

#[test]
fn a_doubt_is_named() {
    type Change = fn(&mut Fake);
    let rules = config(&[A]).replace("path '/'", "path '/x'");
    for (version, old, new, change, expected) in [
        (
            "2.6.12",
            config(&[A]),
            rules,
            (|_| ()) as Change,
            "more than servers",
        ),
        (
            "2.5.9",
            config(&[A]),
            config(&[A, B]),
            |_| (),
            "2.5.9 cannot add",
        ),
        (
            "2.9.1",
            config(&[A]),
            config(&[A, STICKY]),
            |_| (),
            "2.9 cannot add sticky",
        ),
        ("odd", config(&[A]), config(&[A, B]), |_| (), "not known"),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, "b 10.0.0.2:80 check ssl"]),
            |_| (),
            "\"ssl\" needs a reload",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, "b 10.0.0.2:80 weight"]),
            |_| (),
            "\"weight\" is odd",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, "b web.example:80"]),
            |_| (),
            "is not an IP and a port",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&["a 10.0.0.1:80"]),
            |_| (),
            "options of server a changed",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, B]),
            |fake| fake.description = "cosmonaut:cccccccccccccccc".to_owned(),
            "runs another config",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, B]),
            |fake| ignore(fake.instead.insert("add server", "Permission denied\n")),
            "Permission denied",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, B]),
            |fake| ignore(fake.instead.insert("set server", "\n")),
            "b is in maintenance",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, B]),
            |fake| {
                ignore(fake.servers.insert(
                    "be_w/z".to_owned(),
                    ("10.0.0.9:80".parse().expect("one"), false, true),
                ))
            },
            "be_w/z too many",
        ),
        (
            "2.6.12",
            config(&[A]),
            config(&[A, B]),
            |fake| fake.servers.clear(),
            "no server be_w/a",
        ),
    ] {
        let mut stage = Stage::new(version, &config(&[A]));
        stage.fake(change);
        let doubt = stage.apply(&old, &new).expect_err(expected);
        assert!(doubt.contains(expected), "{doubt} / {expected}");
    }
    let mut nobody = Runtime::new(SocketAddr::Path("/nonexistent/socket".into()));
    let (old, new) = (config(&[A]), config(&[A, B]));
    let shown = Shown {
        loaded: "",
        current: "",
    };
    assert!(
        nobody
            .apply(&Config::parse(&old), &Config::parse(&new), shown)
            .is_err()
    );
}

#[test]
fn a_leaving_server_is_drained_first_unless_its_backend_would_be_empty() {
    for (old, new, drained) in [
        (
            &[A, B][..],
            &[A][..],
            &["set server be_w/b state maint"][..],
        ),
        // Nothing to wait for: it is the last one.
        (&[B], &[], &["set server be_w/b state maint"]),
        // Its successor comes first.
        (&[A], &[B], &[]),
    ] {
        let (old, new) = (config(old), config(new));
        let mut stage = Stage::new("2.6.12", &old);
        stage
            .runtime
            .drain(&Config::parse(&old), &Config::parse(&new));
        assert_eq!(stage.said(), drained);
        assert!(stage.apply(&old, &new).is_ok());
        stage.runs(&new);
    }
}

#[test]
fn a_drained_server_is_deleted_when_it_has_finished() {
    let (old, new) = (config(&[A, B]), config(&[A]));
    let mut stage = Stage::new("2.6.12", &old);
    stage.fake(|fake| ignore(fake.busy.insert("be_w/b".to_owned())));
    stage.apply(&old, &new).expect("taken out");
    stage.said();
    let mut now = stage.runtime.next_due();
    // The comparison is due first, at once.
    let parsed = Config::parse(&new);
    let shown = Shown {
        loaded: "aaaaaaaaaaaaaaaa",
        current: "bbbbbbbbbbbbbbbb",
    };
    assert_eq!(stage.runtime.tend(Some(&parsed), Some(shown), now), None);
    for _ in 0..3 {
        now = stage.runtime.next_due();
        assert_eq!(stage.runtime.tend(Some(&parsed), Some(shown), now), None);
        assert_eq!(stage.said(), ["del server be_w/b"]);
    }
    stage.fake(|fake| fake.busy.clear());
    now = stage.runtime.next_due();
    stage.runtime.tend(Some(&parsed), Some(shown), now);
    stage.fake(|fake| assert!(!fake.servers.contains_key("be_w/b")));
    assert!(stage.runtime.next_due() > now + Duration::from_secs(60));
}

#[test]
fn a_server_that_comes_back_is_let_in_again() {
    let (both, one) = (config(&[A, "c 10.0.0.3:80 check cookie c"]), config(&[A]));
    for busy in [true, false] {
        let mut stage = Stage::new("2.6.12", &both);
        if busy {
            stage.fake(|fake| ignore(fake.busy.insert("be_w/c".to_owned())));
        }
        stage.apply(&both, &one).expect("taken out");
        // Sticky, and yet no reload: the server is still there as it was.
        assert!(stage.apply(&one, &both).is_ok());
        stage.runs(&both);
    }
    // It survived, and the file never changed: its removal was refused.
    let mut stage = Stage::new("2.6.12", &both);
    stage
        .runtime
        .drain(&Config::parse(&both), &Config::parse(&one));
    assert_eq!(stage.runtime.readmit(&Config::parse(&both)), Ok(()));
    stage.runs(&both);
}

#[test]
fn what_haproxy_has_is_compared_with_the_file() {
    type Change = fn(&mut Fake);
    for (change, expected) in [
        ((|_| ()) as Change, None),
        (
            |fake| fake.description = "cosmonaut:bbbbbbbbbbbbbbbb".to_owned(),
            None,
        ),
        (
            |fake| fake.description = "of somebody else".to_owned(),
            Some("another config"),
        ),
        (
            |fake| ignore(fake.servers.remove("be_w/b")),
            Some("no server be_w/b"),
        ),
        (
            |fake| {
                fake.servers.get_mut("be_w/b").expect("b").0 = "10.9.9.9:80".parse().expect("one")
            },
            Some("another address"),
        ),
        (
            |fake| fake.servers.get_mut("be_w/b").expect("b").1 = true,
            Some("in maintenance"),
        ),
        (
            |fake| ignore(fake.instead.insert("show servers", "Permission denied\n")),
            None,
        ),
    ] {
        let text = config(&[A, B]);
        let mut stage = Stage::new("2.6.12", &text);
        stage.fake(change);
        let shown = Shown {
            loaded: "aaaaaaaaaaaaaaaa",
            current: "bbbbbbbbbbbbbbbb",
        };
        let doubt = stage
            .runtime
            .tend(Some(&Config::parse(&text)), Some(shown), Instant::now());
        assert_eq!(
            doubt.is_some(),
            expected.is_some(),
            "{doubt:?} / {expected:?}"
        );
        assert!(
            doubt
                .unwrap_or_default()
                .contains(expected.unwrap_or_default())
        );
    }
    // Later, a server in maintenance is the operator's doing.
    let text = config(&[A, B]);
    let mut stage = Stage::new("2.6.12", &text);
    stage.runtime.reloaded(Instant::now());
    stage.fake(|fake| fake.servers.get_mut("be_w/b").expect("b").1 = true);
    let shown = Shown {
        loaded: "aaaaaaaaaaaaaaaa",
        current: "",
    };
    let later = stage.runtime.next_due();
    assert_eq!(
        stage
            .runtime
            .tend(Some(&Config::parse(&text)), Some(shown), later),
        None
    );
}
