//! Everything that reads bytes from outside, through the library's public functions: one function a target, which takes
//! any bytes and panics when something does not hold. Shared by the deterministic fuzzer of `cargo test` (`main.rs`)
//! and the coverage-guided one (`guided/`). What holds everywhere: no panic, and the same bytes in other pieces mean the same.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use cosmonaut::address::{self, Context, report, router, status_dns, weave};
use cosmonaut::config::{self, Config};
use cosmonaut::description::{self, Reading};
use cosmonaut::docker::container::{self, Container, Inspected};
use cosmonaut::docker::endpoint;
use cosmonaut::docker::events::{self, Lines, What};
use cosmonaut::haproxy::socket::{self, SocketAddr};
use cosmonaut::haproxy::{changes, memory};
use cosmonaut::http::{Decoder, Head, HttpError, Item, Limits};
use cosmonaut::registry::embedded::{Embedded, Memory as _, State};
use cosmonaut::registry::store::Store;
use cosmonaut::registry::template::Base;
use cosmonaut::registry::{Payload, Registry, answer, policy, wire};
use cosmonaut::service::{self, Monitored, Told};
use cosmonaut::timestamp::Timestamp;
use cosmonaut::{cli, registry};

/// A target: its name, what runs it, and which of our fixtures are its seeds (parts of their paths).
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: &'static [&'static str],
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target {
        name: "http",
        run: http,
        seeds: &[".http", "http-"],
    },
    Target {
        name: "events",
        run: events,
        seeds: &["events-"],
    },
    Target {
        name: "list",
        run: list,
        seeds: &["list", "containers-json"],
    },
    Target {
        name: "inspect",
        run: inspect,
        seeds: &["inspect"],
    },
    Target {
        name: "labels",
        run: labels,
        seeds: &["fuzz/seeds/labels"],
    },
    Target {
        name: "answer",
        run: answer,
        seeds: &["registry/", "it/cosmos/", "fuzz/seeds/answer"],
    },
    Target {
        name: "config",
        run: config,
        seeds: &[".cfg", "registry/refused"],
    },
    Target {
        name: "base",
        run: base,
        seeds: &[".cfg"],
    },
    Target {
        name: "weave",
        run: weave,
        seeds: &["weave/"],
    },
    Target {
        name: "state",
        run: state,
        seeds: &["fuzz/seeds/state"],
    },
    Target {
        name: "socket",
        run: socket,
        seeds: &["fuzz/seeds/socket"],
    },
    Target {
        name: "options",
        run: options,
        seeds: &["fuzz/seeds/options"],
    },
    Target {
        name: "endpoint",
        run: endpoint,
        seeds: &["docker/contexts", "fuzz/seeds/endpoint"],
    },
    Target {
        name: "time",
        run: time,
        seeds: &["fuzz/seeds/time"],
    },
];

/// Cuts `bytes` into pieces whose lengths follow from `seed`.
fn pieces(bytes: &[u8], mut seed: u64) -> Vec<&[u8]> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let roll = (seed >> 33) as usize;
        let length = match roll % 4 {
            0 => 1,
            1 => 1 + roll / 4 % 7,
            _ => 1 + roll / 4 % 300,
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        all.push(piece);
        rest = after;
    }
    all
}

/// A seed for the cuts, out of the bytes themselves.
fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// A response: heads, whole body, and how it ended.
type Response = (Vec<Head>, Vec<u8>, Result<bool, HttpError>);

fn respond(pieces: &[&[u8]]) -> Response {
    let mut decoder = Decoder::new(Limits::default());
    let (mut heads, mut body, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (used, more) = match decoder.decode(&buffer) {
                Err(error) => return (heads, body, Err(error)),
                Ok((used, item)) => {
                    assert!(
                        used <= buffer.len(),
                        "used {used} of {} bytes",
                        buffer.len()
                    );
                    match item {
                        Item::More => (used, true),
                        Item::Head(head) => {
                            heads.push(head);
                            (used, false)
                        }
                        Item::Data(data) => {
                            assert!(
                                !data.is_empty(),
                                "an empty piece would be asked for for ever"
                            );
                            body.extend_from_slice(data);
                            (used, false)
                        }
                        Item::End => return (heads, body, Ok(decoder.keeps_alive())),
                    }
                }
            };
            buffer.drain(..used);
            if more {
                break;
            }
        }
        assert!(
            buffer.len() <= Limits::default().head_bytes + piece.len(),
            "{} bytes are kept without being asked to the limit",
            buffer.len()
        );
    }
    let end = decoder.end_of_input().map(|()| decoder.keeps_alive());
    (heads, body, end)
}

fn http(bytes: &[u8]) {
    let whole = respond(&[bytes]);
    let cut = respond(&pieces(bytes, seed(bytes)));
    assert_eq!(whole, cut, "the same bytes in pieces");
    assert!(whole.0.len() <= 1, "one response has one final head");
}

fn events(bytes: &[u8]) {
    let read = |pieces: &[&[u8]]| {
        let mut lines = Lines::new();
        let mut all = Vec::new();
        for piece in pieces {
            lines.push(piece);
            while let Some(event) = lines.next_event() {
                assert!(
                    event.what == What::Missed || !event.id.is_empty(),
                    "{event:?}"
                );
                all.push(event);
            }
        }
        (all, lines.lines(), lines.bad_lines())
    };
    let whole = read(&[bytes]);
    assert_eq!(
        whole,
        read(&pieces(bytes, seed(bytes))),
        "the same bytes in pieces"
    );
    for line in bytes.split(|byte| *byte == b'\n') {
        let _ = events::event(line);
    }
}

fn list(bytes: &[u8]) {
    if let Ok(rows) = container::list(bytes) {
        assert!(rows.iter().all(|row| !row.id.is_empty()));
        assert_eq!(
            container::list(bytes).as_deref(),
            Ok(rows.as_slice()),
            "the same bytes, the same digests"
        );
    }
}

fn inspect(bytes: &[u8]) {
    let all: Vec<Inspected> = bytes
        .split(|byte| *byte == 0)
        .filter_map(|json| container::inspected(json).ok())
        .collect();
    routed(&all);
}

/// Lines `NAME=value` are variables, lines `name: value` labels, an empty line begins the next container.
fn labels(bytes: &[u8]) {
    routed(&described(bytes));
}

/// Containers with these descriptions, all running and with an address.
fn described(bytes: &[u8]) -> Vec<Inspected> {
    let text = String::from_utf8_lossy(bytes);
    text.split("\n\n")
        .take(20)
        .enumerate()
        .map(|(number, block)| {
            let mut one = plain(number);
            for line in block.lines() {
                if let Some((name, value)) = line.split_once(": ") {
                    one.labels.push((name.to_owned(), value.to_owned()));
                } else if let Some((name, value)) = line.split_once('=') {
                    one.env
                        .push((name.to_owned(), value.replace('\u{b6}', "\n")));
                }
            }
            one
        })
        .collect()
}

fn plain(number: usize) -> Inspected {
    let json = format!(
        r#"{{"Id":"{number:064x}","Name":"/asteroid-{number}","Created":"2026-01-01T00:00:{:02}Z","Path":"sh",
        "State":{{"Running":true,"StartedAt":"2026-01-01T00:00:00Z"}},"HostConfig":{{"NetworkMode":"bridge"}},
        "Config":{{"Image":"web","ExposedPorts":{{"8080/tcp":{{}}}}}},
        "NetworkSettings":{{"Networks":{{"bridge":{{"IPAddress":"172.17.0.{}","NetworkID":"n"}}}}}}}}"#,
        number % 60,
        number % 250 + 2
    );
    container::inspected(json.as_bytes()).expect("an inspect of our own is read")
}

struct Forgetful;

impl registry::embedded::Memory for Forgetful {
    fn load(&mut self, _: &str) -> cosmonaut::error::Result<State> {
        Ok(State::default())
    }

    fn save(&mut self, _: &str, _: &State<&str>) -> cosmonaut::error::Result<()> {
        Ok(())
    }
}

fn built_in() -> Embedded {
    Embedded::new(
        Base::built_in(None).expect("the built-in base"),
        Box::new(Forgetful),
    )
}

/// What containers become: descriptions, services, a payload, a config. Gives the payload and the config.
fn routed(all: &[Inspected]) -> (Payload, String) {
    let readings: Vec<Reading> = all
        .iter()
        .map(|one| description::read(&one.env, &one.labels))
        .collect();
    for reading in &readings {
        match reading {
            Reading::Bad(problem) | Reading::NoService(problem) => {
                let words = problem.to_string();
                assert!(
                    !words.contains(char::is_control),
                    "a control character in a message: {words:?}"
                );
                assert!(words.len() < 2000, "a message of {} bytes", words.len());
            }
            Reading::Service(_) | Reading::Disabled => {}
        }
    }
    let nothing = weave::View::default();
    let find = |id: &str| -> Option<&Container> {
        all.iter()
            .map(|one| &one.container)
            .find(|one| one.id == id || one.name == id)
    };
    let context = Context {
        network: None,
        haproxy: None,
        host: None,
        mode: weave::Mode::Never,
        weave: &nothing,
        find: &find,
    };
    let monitored: Vec<Monitored<'_>> = all
        .iter()
        .zip(&readings)
        .map(|(one, reading)| Monitored {
            container: &one.container,
            reading,
            address: address::of(&one.container, &context),
            leaving: false,
            held: None,
        })
        .collect();
    let mut registry = built_in();
    let mut selection = service::select(&monitored, Told::All, |one| registry.can_route(one));
    let payload = selection.payload("fuzz", Vec::new());
    for candidate in &payload.candidates {
        let _ = wire::can_send(candidate);
    }
    let text = registry
        .config(&payload)
        .expect("the built-in registry routes what it can route");
    let config = Config::parse(&text);
    assert_eq!(
        answer::missing(&payload, &config, false),
        [""; 0],
        "what was asked for is there, and no more"
    );
    let violations = policy::violations(&config);
    assert!(
        violations.is_empty(),
        "containers brought in {violations:?}"
    );
    assert_eq!(config.backends().count(), payload.candidates.len());
    let usual = Config::parse(&registry_without_services())
        .sections()
        .count();
    assert_eq!(
        config.sections().count(),
        usual + payload.candidates.len(),
        "a section that is no service's:\n{text}"
    );
    assert_eq!(
        built_in().config(&payload).expect("the same again"),
        text,
        "same services, same bytes"
    );
    (payload, text)
}

fn registry_without_services() -> String {
    built_in().config(&Payload::default()).expect("no services")
}

/// The config that descriptions become, if any of them is a service: for a real HAProxy to check.
#[allow(dead_code, reason = "the guided fuzzer does not use it")]
pub fn config_of_labels(bytes: &[u8]) -> Option<String> {
    let (payload, text) = routed(&described(bytes));
    (!payload.candidates.is_empty()).then_some(text)
}

fn answer(bytes: &[u8]) {
    let payload = thread_payload();
    for (status, kind) in [
        (200, Some("application/json")),
        (200, None),
        (502, Some("text/html")),
    ] {
        match answer::decode(status, kind, bytes) {
            Err(fault) => {
                let words = fault.to_string();
                assert!(
                    !words.contains(char::is_control),
                    "a control character in a message: {words:?}"
                );
                assert!(words.len() < 4000, "a message of {} bytes", words.len());
                let _ = (fault.hint(), fault.is_passing());
            }
            Ok(text) => judged(&payload, &text),
        }
    }
    let text = String::from_utf8_lossy(bytes);
    judged(&payload, &text);
    assert!(answer::unescaped(&text).len() <= text.len());
    let line = answer::one_line(&text);
    assert!(!line.contains('\n'), "{line:?}");
}

fn judged(payload: &Payload, text: &str) {
    let own = answer::with_own_cookies(text.to_owned());
    assert_eq!(
        answer::with_own_cookies(own.clone()),
        own,
        "done twice is done once"
    );
    let (before, after) = (Config::parse(text), Config::parse(&own));
    assert_eq!(
        before.lines().count(),
        after.lines().count(),
        "only cookies change"
    );
    for trust in [false, true] {
        let _ = answer::missing(payload, &after, trust);
    }
    let _ = policy::violations(&after);
}

fn thread_payload() -> Payload {
    serde_json::from_str(
        r#"{"table":"t","running":[{"serviceName":"web","id":"aaaaaaaaaaaa","ip":"10.0.0.1"}],"candidates":[
        {"serviceName":"web","port":80,"configMode":"host","predicate":"a.example b.example","cookie":"S","containers":[{"id":"aaaaaaaaaaaa","ip":"10.0.0.1"}]},
        {"serviceName":"api","port":8080,"configMode":"path","predicate":"api/v2 api","containers":[{"id":"bbbbbbbbbbbb","ip":"fd00::2"}]}]}"#,
    )
    .expect("a payload of our own")
}

/// Two configs, with a NUL between them.
fn config(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == 0);
    let old = String::from_utf8_lossy(halves.next().unwrap_or_default()).into_owned();
    let new = halves.next().map_or_else(
        || format!("{old}backend be_more\n    server a 10.9.9.9:80\n"),
        |new| String::from_utf8_lossy(new).into_owned(),
    );
    for text in [&old, &new] {
        let parsed = Config::parse(text);
        for section in parsed.sections() {
            assert_eq!(&text[section.bytes()], section.text());
            assert!(section.end_of_own_lines() <= section.bytes().end);
            let _ = (section.name(), section.keyword(), section.servers().count());
        }
        let printed = config::with_fingerprint(text);
        let (back, print) = config::split_fingerprint(&printed);
        assert_eq!(back.trim_end_matches('\n'), text.trim_end_matches('\n'));
        assert_eq!(print, Some(config::fingerprint(back).as_str()));
        let same = config::server_changes(&parsed, &parsed);
        assert!(
            same.is_none_or(|changes| changes.is_empty()),
            "nothing differs from itself"
        );
        let _ = policy::violations(&parsed);
        let _ = changes::in_words(None, text);
    }
    let (before, after) = (Config::parse(&old), Config::parse(&new));
    let _ = config::server_changes(&before, &after);
    let _ = changes::in_words(Some(&old), &new);
    for service in after.services() {
        let without = after
            .without_service(service)
            .expect("a service that it routes");
        assert!(
            !Config::parse(&without).services().contains(&service),
            "{service:?} is still there in\n{without}"
        );
        if let Some(with) = after.with_service_of(service, &before) {
            assert!(
                Config::parse(&with).services().contains(&service),
                "{service:?} was lost in\n{with}"
            );
        }
    }
}

/// An operator's base: what is accepted takes a service and keeps its own text.
fn base(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(base) = Base::new(&text) else { return };
    let mut registry = Embedded::new(base, Box::new(Forgetful));
    let rendered = registry.config(&thread_payload()).expect("it was accepted");
    let mut rest = rendered.as_str();
    for line in text.lines() {
        let at = rest
            .find(line)
            .unwrap_or_else(|| panic!("the base's line {line:?} is not in\n{rendered}"));
        rest = &rest[at + line.len()..];
    }
}

fn weave(bytes: &[u8]) {
    if let Err(unusable) = report::report(bytes) {
        let _ = unusable.to_string();
    }
    let _ = report::owned(bytes);
    let text = String::from_utf8_lossy(bytes);
    let _ = status_dns::parse(&text);
    let _ = report::Subnet::parse(&text);
}

/// A folder of this thread, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("csm-fuzz-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a folder");
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn in_folder(name: &'static str, act: impl FnOnce(&Path)) {
    thread_local! {
        static FOLDERS: RefCell<Vec<(&'static str, Folder)>> = const { RefCell::new(Vec::new()) };
    }
    FOLDERS.with_borrow_mut(|folders| {
        if !folders.iter().any(|(one, _)| *one == name) {
            folders.push((name, Folder::new(name)));
        }
        let found = folders.iter().find(|(one, _)| *one == name);
        act(&found.expect("it was just made").1.0);
    });
}

/// Our own files, as a crash, an older version or a person may leave them; with a NUL between two of them.
fn state(bytes: &[u8]) {
    in_folder("state", |folder| {
        let mut parts = bytes.splitn(2, |byte| *byte == 0);
        let (first, second) = (
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        );
        let file = folder.join("fuzz.json");
        fs::write(&file, first).expect("written");
        let mut store = Store::read_only(folder);
        let state = store.load("fuzz").expect("a file that can be read");
        let mut registry = Embedded::new(Base::built_in(None).expect("a base"), Box::new(store));
        let payload = Payload {
            table: "fuzz".to_owned(),
            ..thread_payload()
        };
        let text = registry.config(&payload).expect("whatever the store says");
        let config = Config::parse(&text);
        assert_eq!(
            answer::missing(&payload, &config, false),
            [""; 0],
            "stored: {state:?}"
        );
        fs::write(folder.join("taken.json"), first).expect("written");
        fs::write(folder.join("last-good.cfg"), second).expect("written");
        let memory = memory::Memory::new(folder, &folder.join("haproxy.cfg"));
        if let Some((text, print)) = memory.last_good() {
            assert!(text.contains(&print));
        }
        let _ = memory.taken();
    });
}

/// What a HAProxy (or something else) says on its socket.
fn socket(bytes: &[u8]) {
    thread_local! {
        static SERVER: (Arc<Mutex<Vec<u8>>>, SocketAddr) = serve();
    }
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        if let Ok(address) = SocketAddr::parse(line) {
            let shown = address.to_string();
            assert_eq!(
                SocketAddr::parse(&shown),
                Ok(address),
                "{shown} is read back"
            );
        }
    }
    SERVER.with(|(reply, address)| {
        bytes.clone_into(&mut reply.lock().unwrap_or_else(PoisonError::into_inner));
        match socket::info(address, false, Duration::from_secs(5)) {
            Ok(info) => assert!(!info.version.is_empty()),
            Err(error) => {
                let _ = error.to_string();
            }
        }
    });
}

fn serve() -> (Arc<Mutex<Vec<u8>>>, SocketAddr) {
    use std::sync::atomic::{AtomicUsize, Ordering};
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = format!(
        "csm-fuzz-{}-{}.sock",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    );
    let path = std::env::temp_dir().join(name);
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).expect("a socket");
    let reply = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&reply);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let bytes = shared
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let half = bytes.len() / 2;
            let _ = stream
                .write_all(&bytes[..half])
                .and_then(|()| stream.write_all(&bytes[half..]));
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    (reply, SocketAddr::Path(path))
}

/// A command line: one argument a line; lines `$NAME=value` are variables.
fn options(bytes: &[u8]) {
    let mut arguments = Vec::new();
    let mut variables: Vec<(String, OsString)> = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        let setting = line.strip_prefix(b"$").and_then(|rest| {
            let at = rest.iter().position(|byte| *byte == b'=')?;
            let (name, value) = rest.split_at(at);
            Some((
                String::from_utf8_lossy(name).into_owned(),
                OsString::from_vec(value[1..].to_vec()),
            ))
        });
        match setting {
            Some(pair) => variables.push(pair),
            None => arguments.push(OsString::from_vec(line.to_vec())),
        }
    }
    let variable = |name: &str| {
        variables
            .iter()
            .rev()
            .find(|(one, _)| one == name)
            .map(|(_, value)| value.clone())
    };
    match cli::parse(arguments, &variable, "#!/bin/sh\n") {
        Ok(cli::Command::Print(text)) => assert!(!text.is_empty()),
        Ok(cli::Command::Run(_, options)) => {
            assert!(options.settle <= options.settle_max);
            assert!(!options.cosmos_table.is_empty());
            let _ = router::address(&options.weave_addr, 6784);
            for socket in [&options.haproxy_socket, &options.haproxy_master]
                .into_iter()
                .flatten()
            {
                let _ = SocketAddr::parse(socket);
            }
        }
        Err(error) => {
            let words = error.to_string();
            assert!(
                !words.is_empty() && words.len() < 4000 + 2 * bytes.len(),
                "{words}"
            );
            let _ = error.hint_text();
        }
    }
}

/// `DOCKER_HOST`, then config.json, then a context's meta.json, with NULs between them; one part alone is each in turn.
fn endpoint(bytes: &[u8]) {
    let parts: Vec<&[u8]> = bytes.splitn(3, |byte| *byte == 0).collect();
    let part = |at: usize| parts.get(at).copied().unwrap_or(bytes);
    in_folder("endpoint", |folder| {
        let meta =
            META.with_borrow_mut(|found| found.get_or_insert_with(|| context_meta(folder)).clone());
        fs::write(folder.join("config.json"), part(1)).expect("written");
        fs::write(meta.join("meta.json"), part(2)).expect("written");
        let text = String::from_utf8_lossy(part(0)).into_owned();
        let home = folder.display().to_string();
        for (host, context) in [
            (Some(text.as_str()), None),
            (None, None),
            (None, Some(CONTEXT)),
            (None, Some(text.as_str())),
        ] {
            let env = |name: &str| match name {
                "DOCKER_CONFIG" | "HOME" => Some(home.clone()),
                "DOCKER_CONTEXT" => context.map(str::to_owned),
                _ => None,
            };
            match endpoint::resolve(host, &env) {
                Ok(found) => {
                    let _ = found.address.to_string();
                }
                Err(error) => {
                    let _ = error.to_string();
                }
            }
        }
    });
}

thread_local! {
    static META: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// A context of our fixtures.
const CONTEXT: &str = "lab-tls";

/// The folder of that context, among copies of our fixtures.
fn context_meta(folder: &Path) -> PathBuf {
    copy(&fixtures().join("docker/contexts"), folder);
    fs::read_dir(folder.join("contexts/meta"))
        .expect("the contexts of our fixtures")
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            fs::read_to_string(path.join("meta.json")).is_ok_and(|text| text.contains(CONTEXT))
        })
        .expect("a context of that name")
}

/// Our fixtures, from the package of the tests or from that of the guided fuzzer.
fn fixtures() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = [package.join("tests/data"), package.join("../../data")];
    found
        .into_iter()
        .find(|path| path.is_dir())
        .expect("the fixtures are beside the tests")
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder of fixtures").flatten() {
        let (path, target) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            let _ = fs::create_dir_all(&target);
            copy(&path, &target);
        } else {
            let _ = fs::copy(&path, &target);
        }
    }
}

fn time(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    for line in text.lines() {
        for moment in [Timestamp::parse(line), Timestamp::parse_http_date(line)]
            .into_iter()
            .flatten()
        {
            let shown = moment.to_string();
            // Offsets can lead out of the years of four digits that RFC 3339 has.
            if (0..=9999).contains(&year(&shown)) {
                assert_eq!(
                    Timestamp::parse(&shown),
                    Some(moment),
                    "{shown} is read back"
                );
            }
            let nanos = moment.unix_nanos();
            if nanos != i64::MIN && nanos != i64::MAX {
                assert_eq!(Timestamp::from_unix_nanos(nanos).unix_nanos(), nanos);
            }
        }
        let arguments = ["sync", "--settle", line, "--settle-max", "1h"].map(OsString::from);
        let _ = cli::parse(arguments, &|_| None, "");
    }
}

fn year(shown: &str) -> i64 {
    let digits = shown.strip_prefix('-').unwrap_or(shown);
    let number: i64 = digits
        .split('-')
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1);
    if shown.starts_with('-') {
        -number - 1
    } else {
        number
    }
}
