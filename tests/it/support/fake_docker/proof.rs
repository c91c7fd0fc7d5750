//! The fake against the captured answers and events of a real daemon: what it says of a life
//! is what Docker said of the same life, and each misbehaviour is the one it promises.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::deadline::SOON;
use super::super::wire::{Place, Reply, Stream};
use super::{Container, FakeDocker};

const LIFE: &str = include_str!("../../../data/it/docker/events-lifecycle.ndjson");

impl FakeDocker {
    /// A client's connection with one request sent, for these tests.
    fn ask(&self, target: &str) -> Stream {
        let mut stream = Stream::connect(&self.place).expect("the fake listens");
        stream.set_read_timeout(Some(SOON)).expect("a timeout");
        write!(stream, "GET {target} HTTP/1.1\r\nHost: docker\r\n\r\n").expect("sent");
        stream
    }

    /// Status line, headers and body of an answer with a length or chunks.
    fn get(&self, target: &str) -> (String, String) {
        let mut stream = self.ask(target);
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let low = head.to_lowercase();
                if low.contains("transfer-encoding: chunked") && body.ends_with("0\r\n\r\n") {
                    return (head.to_owned(), dechunked(body));
                }
                if let Some((_, rest)) = low.split_once("content-length: ") {
                    let length: usize = rest
                        .lines()
                        .next()
                        .and_then(|one| one.parse().ok())
                        .expect("a length");
                    if body.len() == length {
                        return (head.to_owned(), body.to_owned());
                    }
                }
            }
            let count = stream.read(&mut buffer).expect("an answer in time");
            assert!(count > 0, "cut: {text}");
            bytes.extend_from_slice(&buffer[..count]);
        }
    }
}

fn dechunked(mut text: &str) -> String {
    let mut body = String::new();
    while let Some((size, rest)) = text.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk size");
        body.push_str(&rest[..size]);
        text = &rest[size + 2..];
    }
    body
}

fn fake() -> FakeDocker {
    let fake = FakeDocker::tcp();
    fake.add(Container::serving(
        "asteroid-a",
        "172.17.0.2",
        "web",
        "a.example",
    ));
    fake
}

/// Reads until `end` stands in the stream, or to the end of the stream.
fn read_until(stream: &mut Stream, end: &str) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&bytes).contains(end) {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            Err(error) => panic!(
                "no {end:?} in time ({error}): {}",
                String::from_utf8_lossy(&bytes)
            ),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What matters of an event.
#[derive(Debug, PartialEq, Eq)]
struct Gist {
    kind: String,
    action: String,
    /// All but ids, sorted.
    attributes: Vec<(String, String)>,
    /// The keys of the event itself.
    keys: Vec<String>,
}

fn gist(line: &str) -> Option<Gist> {
    let event: Value = serde_json::from_str(line).expect("an event is JSON");
    let kind = event["Type"].as_str()?.to_owned();
    let action = event["Action"].as_str()?.to_owned();
    let attributes = event["Actor"]["Attributes"].as_object()?;
    let mut pairs: Vec<(String, String)> = attributes
        .iter()
        .filter(|(key, _)| *key != "container")
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    pairs.sort();
    let keys = event.as_object()?.keys().cloned().collect();
    Some(Gist {
        kind,
        action,
        attributes: pairs,
        keys,
    })
}

#[test]
fn a_life_gives_the_events_that_docker_gave() {
    let noise = ["exec_", "update", "archive-path"];
    let mut captured = Vec::new();
    for line in LIFE.lines() {
        let event: Value = serde_json::from_str(line).expect("captured JSON");
        let actor = &event["Actor"];
        let of_life = actor["ID"]
            .as_str()
            .is_some_and(|id| id.starts_with("b99d97a159e5"))
            || actor["Attributes"]["container"]
                .as_str()
                .is_some_and(|id| id.starts_with("b99d97a159e5"));
        let action = event["Action"].as_str().unwrap_or_default();
        if of_life && !noise.iter().any(|one| action.starts_with(one)) {
            captured.extend(gist(line));
        }
    }
    assert_eq!(captured.len(), 33, "the captured life is whole");

    let fake = FakeDocker::tcp();
    let mut stream = fake.ask("/v1.41/events");
    fake.wait_subscribed(1);
    let mut one = Container::new("life", "172.17.0.9")
        .with_label("cosmonaut", "1")
        .with_label("com.example.weird", "a=b,c \"q\" é");
    let net = one.networks.remove("apps").expect("its network");
    one.networks.insert("labnet".to_owned(), net);
    read_until(&mut stream, "\r\n\r\n");
    fake.run(one);
    fake.health("life", "unhealthy");
    fake.pause("life");
    fake.unpause("life");
    fake.rename("life", "life2");
    fake.connect("life2", "labnet2", "172.18.0.2");
    fake.disconnect("life2", "labnet2");
    fake.signal("life2", "1");
    fake.restart("life2", None);
    fake.stop("life2");
    fake.start("life2");
    fake.kill("life2");
    fake.start("life2");
    fake.remove("life2");
    fake.end_streams(true);
    let text = read_until(&mut stream, "0\r\n\r\n");
    let body = dechunked(&text);
    let ours: Vec<_> = body.lines().filter_map(gist).collect();
    assert_eq!(ours, captured);
}

#[test]
fn list_and_inspect_answer_on_one_connection_in_dockers_frames() {
    let fake = fake();
    let (head, body) = fake.get("/v1.41/containers/json");
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n"),
        "{head}"
    );
    assert!(
        head.contains("Content-Length: "),
        "small bodies have a length: {head}"
    );
    let rows: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(rows[0]["Names"][0], "/asteroid-a");
    let id = fake.id("asteroid-a");
    let (head, body) = fake.get(&format!("/v1.41/containers/{id}/json"));
    assert!(
        head.contains("Transfer-Encoding: chunked"),
        "large bodies come chunked: {head}"
    );
    let one: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(
        one["NetworkSettings"]["Networks"]["apps"]["IPAddress"],
        "172.17.0.2"
    );
    assert!(
        fake.get("/v1.41/containers/nobody/json")
            .0
            .starts_with("HTTP/1.1 404")
    );
    assert!(
        fake.get("/v1.42/_ping")
            .1
            .contains("client version 1.42 is too new")
    );
    assert!(
        fake.get("/v1.11/_ping")
            .1
            .contains("client version 1.11 is too old")
    );
    assert_eq!(fake.get("/_ping").1, "OK");
    let paths: Vec<String> = fake
        .requests()
        .iter()
        .map(|one| one.path().to_owned())
        .collect();
    assert_eq!(paths[0], "/containers/json");
    assert_eq!(paths.len(), 6);
}

#[test]
fn a_dead_container_haunts_the_list_but_not_its_inspect() {
    let fake = fake();
    fake.manner(|manner| manner.ghost = Duration::from_millis(150));
    let died = Instant::now();
    fake.kill("asteroid-a");
    let (_, list) = fake.get("/containers/json");
    assert!(
        list.contains("\"State\":\"running\"") && list.contains("172.17.0.2"),
        "{list}"
    );
    let (_, inspect) = fake.get(&format!("/containers/{}/json", fake.id("asteroid-a")));
    assert!(inspect.contains("\"Status\":\"exited\""), "{inspect}");
    super::super::deadline::wait_for("the ghost to leave", SOON, || {
        (fake.get("/containers/json").1.trim() == "[]").then_some(())
    });
    assert!(died.elapsed() >= Duration::from_millis(150));
}

#[test]
fn events_are_filtered_and_remembered_as_docker_does() {
    let fake = fake();
    fake.stop("asteroid-a");
    let filters = "%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22die%22%5D%7D";
    let mut stream = fake.ask(&format!("/v1.41/events?since=0&filters={filters}"));
    let text = read_until(&mut stream, "}\n\r\n");
    assert!(text.contains("\"Action\":\"die\""), "{text}");
    assert!(
        !text.contains("\"Action\":\"kill\"") && !text.contains("\"Action\":\"stop\""),
        "{text}"
    );
    let mut stream = fake.ask("/v1.41/events?since=9999999999.000000000");
    fake.wait_subscribed(2);
    read_until(&mut stream, "\r\n\r\n");
    fake.start("asteroid-a");
    assert!(read_until(&mut stream, "\"start\"").contains("connect"));
}

#[test]
fn podman_speaks_its_own_way() {
    let fake = fake();
    fake.manner(|manner| manner.podman = true);
    let mut stream =
        fake.ask("/v1.41/events?filters=%7B%22event%22%3A%5B%22died%22%2C%22remove%22%5D%7D");
    fake.wait_subscribed(1);
    read_until(&mut stream, "\r\n\r\n");
    fake.remove("asteroid-a");
    let text = read_until(&mut stream, "\"remove\"");
    assert!(
        text.contains("\"Action\":\"die\""),
        "the event says die, its filter died: {text}"
    );
    assert!(
        !text.contains("destroy") && !text.contains("network"),
        "{text}"
    );
}

#[test]
fn misbehaviours_are_the_promised_ones() {
    let mut fake = fake();
    // Cut in the middle of a chunk.
    fake.misbehave(
        "/containers/json",
        1,
        Reply::Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[".to_vec()),
    );
    let mut stream = fake.ask("/v1.41/containers/json");
    let text = read_until(&mut stream, "no such thing");
    assert!(text.ends_with("ff\r\n["), "{text}");
    // Closed before the first byte, and right again after.
    fake.misbehave("/_ping", 1, Reply::closed());
    assert_eq!(read_until(&mut fake.ask("/_ping"), "x"), "");
    assert_eq!(fake.get("/_ping").1, "OK");
    // Late.
    fake.misbehave("/_ping", 1, Reply::Late(Duration::from_millis(60)));
    let asked = Instant::now();
    assert_eq!(fake.get("/_ping").1, "OK");
    assert!(asked.elapsed() >= Duration::from_millis(60));
    // Silent, and an endless head.
    fake.misbehave("/_ping", 1, Reply::Silence);
    let mut stream = fake.ask("/_ping");
    stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .expect("a timeout");
    assert!(
        stream.read(&mut [0; 16]).is_err(),
        "nothing comes, and it stays open"
    );
    fake.misbehave("/_ping", 1, Reply::EndlessHead);
    let mut stream = fake.ask("/_ping");
    let mut total = 0;
    let mut buffer = [0; 65_536];
    while total < 1_000_000 {
        total += stream.read(&mut buffer).expect("more of the head");
    }
    drop(stream);
    // As behind a proxy.
    fake.manner(|manner| manner.proxied = true);
    let (head, _) = fake.get(&format!("/containers/{}/json", fake.id("asteroid-a")));
    assert!(
        head.contains("api-version: 1.41") && !head.contains("Api-Version"),
        "{head}"
    );
    fake.manner(|manner| {
        manner.proxied = false;
        manner.interim = true;
    });
    let text = read_until(&mut fake.ask("/_ping"), "OK\r\nApi");
    assert!(text.starts_with("HTTP/1.1 103 "), "{text}");
    fake.manner(|manner| manner.interim = false);
    // A stream without an event log ends at once and cleanly; a cut one has no last chunk.
    fake.manner(|manner| manner.no_event_log = true);
    assert!(read_until(&mut fake.ask("/events"), "\r\n0\r\n\r\n").ends_with("\r\n0\r\n\r\n"));
    fake.manner(|manner| manner.no_event_log = false);
    let mut stream = fake.ask("/events");
    read_until(&mut stream, "\r\n\r\n");
    fake.kill_daemon();
    assert_eq!(read_until(&mut stream, "x"), "");
    assert!(
        Stream::connect(&fake.place).is_err(),
        "a dead daemon refuses"
    );
    fake.start_daemon();
    assert_eq!(fake.get("/_ping").1, "OK");
}

#[test]
fn a_restart_keeps_the_port_and_moves_addresses() {
    let mut fake = fake();
    fake.add(Container::serving(
        "asteroid-b",
        "172.17.0.3",
        "web",
        "a.example",
    ));
    let before = fake.docker_host();
    fake.kill_daemon();
    fake.permute_addresses();
    fake.start_daemon();
    assert_eq!(fake.docker_host(), before);
    let (_, list) = fake.get("/containers/json");
    let rows: Value = serde_json::from_str(&list).expect("JSON");
    for row in rows.as_array().expect("rows") {
        let ip = row["NetworkSettings"]["Networks"]["apps"]["IPAddress"].as_str();
        let expected = if row["Names"][0] == "/asteroid-a" {
            "172.17.0.3"
        } else {
            "172.17.0.2"
        };
        assert_eq!(ip, Some(expected));
    }
}

#[test]
fn events_are_cut_and_joined_on_command() {
    let fake = fake();
    fake.manner(|manner| manner.event_pieces = 3);
    let mut stream = fake.ask("/events");
    fake.wait_subscribed(1);
    read_until(&mut stream, "\r\n\r\n");
    fake.pause("asteroid-a");
    fake.end_streams(true);
    let text = read_until(&mut stream, "0\r\n\r\n");
    assert_eq!(
        text.matches("\r\n").count(),
        2 * 3 + 2,
        "three chunks and the last: {text}"
    );
    assert_eq!(dechunked(&text).lines().count(), 1);
    assert!(gist(dechunked(&text).trim()).is_some());
}

#[test]
fn a_unix_socket_goes_with_its_daemon() {
    let path = std::env::temp_dir().join(format!("cosmonaut-proof-{}.sock", std::process::id()));
    let mut fake = FakeDocker::unix(&path);
    assert!(matches!(&fake.place, Place::Unix(at) if *at == path));
    assert_eq!(fake.get("/_ping").1, "OK");
    fake.kill_daemon();
    assert!(path.exists(), "SIGKILL leaves the file");
    assert!(Stream::connect(&fake.place).is_err());
    fake.start_daemon();
    fake.stop_daemon();
    assert!(!path.exists(), "SIGTERM removes it");
}
