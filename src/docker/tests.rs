//! The client against servers that misbehave on purpose: threads of this process on Unix sockets and TCP.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::container::Health;
use super::events::What;
use super::fixture::bytes;
use super::*;
use crate::error::Kind;

/// No test waits longer than this for a thing that must come.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the server does with one request.
#[derive(Clone)]
enum Reply {
    /// Answers with these bytes.
    Say(Vec<u8>),
    /// Waits first.
    Late(Duration, Vec<u8>),
    /// One byte at a time.
    Trickle(Duration, Vec<u8>),
    /// Says nothing until the client gives up.
    Hang,
    /// Closes without an answer.
    Close,
}

fn say(name: &str) -> Reply {
    Reply::Say(bytes(name))
}

fn text(status: &str, fields: &str, body: &str) -> Reply {
    Reply::Say(
        format!(
            "HTTP/1.1 {status}\r\n{fields}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes(),
    )
}

fn ping(version: &str) -> Reply {
    text(
        "200 OK",
        &format!("api-version: {version}\r\nDate: Sun, 22 Nov 2026 11:18:38 GMT\r\n"),
        "OK",
    )
}

fn chunked(pieces: &[&str], end: bool) -> Reply {
    let mut answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    for piece in pieces {
        answer += &format!("{:X}\r\n{piece}\r\n", piece.len());
    }
    if end {
        answer += "0\r\n\r\n";
    }
    Reply::Say(answer.into_bytes())
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

/// Serves one connection: a reply for each request, then closes. The paths that were asked for.
fn serve(stream: &mut dyn Stream, replies: Vec<Reply>) -> Vec<String> {
    let mut asked = Vec::new();
    for reply in replies {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte) {
                Ok(0) => return asked,
                Ok(_) => request.extend_from_slice(&byte),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return asked,
            }
        }
        let request = String::from_utf8(request).expect("an ASCII request");
        assert!(request.contains("\r\nHost: docker\r\n"), "{request}");
        let line = request.lines().next().unwrap_or_default();
        let path = line
            .strip_prefix("GET ")
            .and_then(|rest| rest.strip_suffix(" HTTP/1.1"));
        asked.push(path.unwrap_or(line).to_owned());
        // A client that is gone is what some tests are about.
        let _ = match reply {
            Reply::Say(answer) => stream.write_all(&answer),
            Reply::Late(wait, answer) => {
                thread::sleep(wait);
                stream.write_all(&answer)
            }
            Reply::Trickle(pause, answer) => answer.iter().try_for_each(|byte| {
                thread::sleep(pause);
                stream.write_all(&[*byte])
            }),
            Reply::Hang => stream.read(&mut byte).map(drop),
            Reply::Close => return asked,
        };
    }
    asked
}

/// A server on a socket of its own; its thread ends when each connection of the script was served.
struct Server {
    address: Address,
    thread: JoinHandle<Vec<String>>,
    _file: Option<SocketFile>,
}

impl Server {
    fn unix(script: Vec<Vec<Reply>>) -> Server {
        let file = SocketFile::new();
        let listener = UnixListener::bind(&file.0).expect("a socket");
        let thread = thread::spawn(move || {
            script
                .into_iter()
                .flat_map(|replies| {
                    let (mut stream, _) = listener.accept().expect("a connection");
                    serve(&mut stream, replies)
                })
                .collect()
        });
        Server {
            address: Address::Unix(file.0.clone()),
            thread,
            _file: Some(file),
        }
    }

    fn tcp(host: &str, script: Vec<Vec<Reply>>) -> Server {
        let listener = TcpListener::bind((host, 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let thread = thread::spawn(move || {
            script
                .into_iter()
                .flat_map(|replies| {
                    let (mut stream, _) = listener.accept().expect("a connection");
                    serve(&mut stream, replies)
                })
                .collect()
        });
        Server {
            address: Address::Tcp {
                host: host.to_owned(),
                port,
                tls: None,
            },
            thread,
            _file: None,
        }
    }

    fn client(&self) -> Docker {
        Docker::new(self.address.clone(), None)
    }

    /// What it was asked for, in order; waits for the last connection to end.
    fn asked(self) -> Vec<String> {
        let begun = Instant::now();
        while !self.thread.is_finished() {
            assert!(begun.elapsed() < PATIENCE, "the server still waits");
            thread::sleep(Duration::from_millis(2));
        }
        self.thread.join().expect("the server")
    }
}

/// A socket path of its own for each test, gone when the test ends.
struct SocketFile(PathBuf);

impl SocketFile {
    fn new() -> SocketFile {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        SocketFile(std::env::temp_dir().join(format!(
            "cosmonaut-docker-{}-{number}.sock",
            std::process::id()
        )))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn says(error: &Error) -> String {
    format!("{error} | {}", error.hint_text().unwrap_or_default())
}

const LIST: &str = "docker-20.10.24/containers-json.http";
const HEALTHY: &str = "docker-20.10.24/inspect-healthy.http";

#[test]
fn one_connection_serves_ping_list_and_inspect() {
    for server in [Server::unix, |script| Server::tcp("127.0.0.1", script)] {
        let server = server(vec![vec![
            say("docker-20.10.24/ping.http"),
            say(LIST),
            say(HEALTHY),
            say("docker-20.10.24/err-404-container.http"),
            say("podman-4.3.1/err-404-container.http"),
        ]]);
        let mut docker = server.client();
        let ping = docker.ping().expect("a ping");
        assert_eq!(ping.api, "1.41");
        assert_eq!(
            ping.daemon_time.map(|time| time.to_string()).as_deref(),
            Some("2026-11-22T11:18:38Z")
        );
        assert_eq!(docker.containers().expect("a list").len(), 8);
        let found = docker
            .container("427a1d71b05e")
            .expect("an inspect")
            .expect("a container");
        assert_eq!(found.container.state.health, Some(Health::Healthy));
        assert_eq!(docker.container("nope").expect("an answer"), None);
        assert_eq!(docker.container("a/b c").expect("an answer"), None);
        assert_eq!(docker.container("").expect("no question"), None);
        drop(docker);
        assert_eq!(
            server.asked(),
            [
                "/_ping",
                "/v1.41/containers/json",
                "/v1.41/containers/427a1d71b05e/json",
                "/v1.41/containers/nope/json",
                "/v1.41/containers/a%2Fb%20c/json",
            ]
        );
    }
}

#[test]
fn an_ipv6_daemon_is_reached() {
    if TcpListener::bind(("::1", 0)).is_err() {
        return; // No IPv6 on this machine.
    }
    let server = Server::tcp("::1", vec![vec![ping("1.41")]]);
    assert!(server.client().ping().is_ok());
    assert!(server.address.to_string().starts_with("tcp://[::1]:"));
}

#[test]
fn the_version_is_negotiated() {
    for (reply, expected) in [
        (ping("1.24"), "1.24"),
        (ping("1.41"), "1.41"),
        (ping("1.56"), "1.44"),
        (ping("2.0"), "1.44"),
        (ping("strange"), "1.44"),
        (text("200 OK", "", "OK"), "1.44"),
        (text("403 Forbidden", "", "<h1>403 Forbidden</h1>"), "1.44"),
        (text("404 Not Found", "", "{}"), "1.44"),
        (text("405 Method Not Allowed", "", ""), "1.44"),
    ] {
        let server = Server::unix(vec![vec![reply, text("200 OK", "", "[]")]]);
        let mut docker = server.client();
        // Without a ping before it, a list asks itself.
        assert_eq!(docker.containers().expect("a list"), []);
        drop(docker);
        assert_eq!(
            server.asked(),
            ["/_ping".to_owned(), format!("/v{expected}/containers/json")]
        );
    }
}

#[test]
fn a_given_version_is_not_negotiated() {
    let server = Server::unix(vec![vec![text("200 OK", "", "[]"), ping("1.41")]]);
    let mut docker = Docker::new(server.address.clone(), Some("v1.40".to_owned()));
    docker.containers().expect("a list");
    assert_eq!(docker.ping().expect("a ping").api, "1.40");
    drop(docker);
    assert_eq!(server.asked(), ["/v1.40/containers/json", "/_ping"]);

    let server = Server::unix(vec![vec![text("200 OK", "", "[]")]]);
    let mut docker = server.client();
    docker.use_api("1.43");
    docker.containers().expect("a list");
    drop(docker);
    assert_eq!(server.asked(), ["/v1.43/containers/json"]);

    let server = Server::unix(vec![vec![say("docker-20.10.24/err-400-too-new.http")]]);
    let mut docker = Docker::new(server.address.clone(), Some("1.99".to_owned()));
    let error = says(&docker.containers().expect_err("a refusal"));
    assert!(
        error.contains("Maximum supported API version is 1.41")
            && error.contains("DOCKER_API_VERSION"),
        "{error}"
    );
}

#[test]
fn a_refused_version_is_replaced_once() {
    let denied = text("403 Forbidden", "", "");
    let old = text(
        "400 Bad Request",
        "Api-Version: 1.60\r\n",
        "client version 1.44 is too old. Minimum supported API version is 1.50",
    );
    for (refusal, version) in [
        (say("docker-20.10.24/err-400-too-new.http"), "1.41"),
        (old, "1.60"),
    ] {
        let server = Server::unix(vec![vec![
            denied.clone(),
            refusal,
            text("200 OK", "", "[]"),
            text("200 OK", "", "[]"),
        ]]);
        let mut docker = server.client();
        docker.containers().expect("a list");
        docker.containers().expect("a list");
        drop(docker);
        assert_eq!(
            server.asked(),
            [
                "/_ping".to_owned(),
                "/v1.44/containers/json".to_owned(),
                format!("/v{version}/containers/json"),
                format!("/v{version}/containers/json"),
            ]
        );
    }
    // A 400 for another reason is an error at once, and so is a second one.
    let other = say("docker-20.10.24/err-400-bad-filter.http");
    let server = Server::unix(vec![vec![ping("1.41"), other]]);
    let error = server.client().containers().expect_err("a refusal");
    assert!(says(&error).contains("Invalid filter 'bogus'"), "{error}");
    let too_new = say("docker-20.10.24/err-400-too-new.http");
    let server = Server::unix(vec![vec![denied, too_new.clone(), too_new]]);
    assert!(server.client().containers().is_err());
}

#[test]
fn a_kept_connection_that_died_is_replaced() {
    let server = Server::unix(vec![
        vec![ping("1.41")],
        vec![say(LIST), Reply::Close],
        vec![say(HEALTHY)],
    ]);
    let mut docker = server.client();
    docker.ping().expect("a ping");
    assert_eq!(docker.containers().expect("a second try").len(), 8);
    assert!(docker.container("a").expect("a second try").is_some());
    assert_eq!(server.asked().len(), 4);
}

#[test]
fn a_new_connection_that_dies_is_an_error_at_once() {
    let server = Server::unix(vec![vec![ping("1.41")], vec![Reply::Close]]);
    let mut docker = server.client();
    docker.ping().expect("a ping");
    let error = docker.containers().expect_err("nobody answers");
    assert!(error.is(Kind::Unreachable), "{error:?}");
    assert!(
        says(&error).contains("cannot list containers at unix://"),
        "{error}"
    );
    drop(docker);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn an_answer_that_was_cut_is_not_asked_for_again() {
    let cut = bytes(LIST)[..600].to_vec();
    let server = Server::unix(vec![vec![ping("1.41"), Reply::Say(cut)]]);
    let mut docker = server.client();
    docker.ping().expect("a ping");
    let error = docker.containers().expect_err("a cut");
    assert!(says(&error).contains("closed inside the answer"), "{error}");
    assert!(error.is(Kind::Unreachable));
}

#[test]
fn an_idle_connection_is_not_used_again() {
    let server = Server::unix(vec![vec![ping("1.41")], vec![say(LIST)]]);
    let mut docker = server.client();
    docker.limits.idle = Duration::ZERO;
    docker.ping().expect("a ping");
    thread::sleep(Duration::from_millis(2));
    docker.containers().expect("a list");
    drop(docker);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_hanging_inspect_stops_no_other() {
    let server = Server::unix(vec![
        vec![ping("1.41"), say(LIST), Reply::Hang],
        vec![say(HEALTHY)],
    ]);
    let mut docker = server.client();
    docker.limits.inspect = Duration::from_millis(100);
    docker.ping().expect("a ping");
    docker.containers().expect("a list");
    let begun = Instant::now();
    let error = docker.container("stuck").expect_err("no answer");
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(error.is(Kind::TimedOut), "{error:?}");
    assert!(
        says(&error).contains("cannot inspect container stuck at unix://"),
        "{error}"
    );
    assert!(says(&error).contains("no answer in time"), "{error}");
    assert!(docker.container("other").expect("an inspect").is_some());
    drop(docker);
    // The version is still known: a stuck container is no new daemon.
    assert_eq!(server.asked()[3], "/v1.41/containers/other/json");
}

#[test]
fn a_trickling_answer_does_not_outlast_its_limit() {
    let slow = Reply::Trickle(Duration::from_millis(10), bytes(HEALTHY));
    let server = Server::unix(vec![vec![ping("1.41"), slow]]);
    let mut docker = server.client();
    docker.limits.inspect = Duration::from_millis(200);
    docker.ping().expect("a ping");
    let begun = Instant::now();
    let error = docker.container("slow").expect_err("too slow");
    assert!(error.is(Kind::TimedOut), "{error:?}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_starting_daemon_gets_its_time_and_a_running_one_does_not() {
    let late = Duration::from_millis(300);
    let server = Server::unix(vec![vec![
        Reply::Late(late, bytes("docker-20.10.24/ping.http")),
        say(LIST),
        Reply::Late(late, bytes(HEALTHY)),
    ]]);
    let mut docker = server.client();
    docker.limits.list = Duration::from_millis(100);
    docker.limits.inspect = Duration::from_millis(100);
    docker.containers().expect("the first answer may take long");
    let error = docker.container("a").expect_err("later ones may not");
    assert!(error.is(Kind::TimedOut), "{error:?}");
}

#[test]
fn a_daemon_that_came_back_is_asked_for_its_version_anew() {
    let server = Server::unix(vec![
        vec![ping("1.41")],
        vec![Reply::Close],
        vec![ping("1.44"), say(LIST)],
    ]);
    let mut docker = server.client();
    docker.ping().expect("a ping");
    docker.containers().expect_err("it went away");
    docker.containers().expect("it is back");
    drop(docker);
    assert_eq!(server.asked()[2..], ["/_ping", "/v1.44/containers/json"]);
}

#[test]
fn refusals_say_what_to_do() {
    let html = "socket-proxy-haproxy-2.6/err-403-containers.http";
    for (reply, kind, parts) in [
        (
            say(html),
            Kind::Denied,
            vec![
                "answer 403: 403 Forbidden Request forbidden by administrative rules.",
                "CONTAINERS=1",
                "-allowGET",
            ],
        ),
        (
            say("socket-proxy-haproxy-2.6/err-503-daemon-down.http"),
            Kind::Unreachable,
            vec!["No server is available"],
        ),
        (
            say("docker-20.10.24/err-404-page.http"),
            Kind::Failed,
            vec!["page not found", "Docker's API, and not"],
        ),
        (
            say("podman-4.3.1/err-404-page.http"),
            Kind::Failed,
            vec!["Not Found"],
        ),
        (
            say("podman-4.3.1/err-500-bad-filter.http"),
            Kind::Failed,
            vec!["answer 500: bogus is an invalid filter"],
        ),
        (
            say("docker-20.10.24/err-400-plain-http-on-tls-port.http"),
            Kind::Failed,
            vec!["HTTPS server", "DOCKER_TLS_VERIFY=1"],
        ),
        (
            say("docker-20.10.24/err-301-double-slash.http"),
            Kind::Failed,
            vec!["answer 301 Moved Permanently", "/v1.41/_ping"],
        ),
        (
            text("200 OK", "", "<html>hello"),
            Kind::Failed,
            vec!["cannot read the answer", "line 1 column 1"],
        ),
        (
            Reply::Say(b"220 smtp ready\r\n".to_vec()),
            Kind::Failed,
            vec!["the answer is not HTTP"],
        ),
        (
            text("500 Oh", "", &"word ".repeat(500)),
            Kind::Failed,
            vec!["word …"],
        ),
        (
            text("500 Oh", "", "a\u{1b}[31mred\u{7}\r\nb"),
            Kind::Failed,
            vec!["answer 500: a [31mred b"],
        ),
    ] {
        let server = Server::unix(vec![vec![ping("1.41"), reply]]);
        let error = server.client().containers().expect_err("a refusal");
        let said = says(&error);
        assert!(
            said.starts_with("cannot list containers at unix://"),
            "{said}"
        );
        assert!(error.is(kind), "{error:?}");
        assert!(said.chars().count() < 700, "{said}");
        for part in parts {
            assert!(said.contains(part), "{said}");
        }
    }
    for name in [
        "docker-20.10.24/err-404-page.http",
        "podman-4.3.1/err-404-page.http",
    ] {
        let server = Server::unix(vec![vec![ping("1.41"), say(name)]]);
        assert!(
            server.client().container("a").is_err(),
            "{name} is not a missing container"
        );
    }
}

#[test]
fn a_body_without_end_is_refused() {
    let endless = || {
        let mut answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..70 {
            answer.extend_from_slice(b"10000\r\n");
            answer.extend(std::iter::repeat_n(b' ', 0x10000));
            answer.extend_from_slice(b"\r\n");
        }
        Reply::Say(answer)
    };
    let server = Server::unix(vec![vec![ping("1.41"), endless()]]);
    let mut docker = server.client();
    let error = docker.container("a").expect_err("too long");
    assert!(
        says(&error).contains("longer than 4194304 bytes"),
        "{error}"
    );
    drop(docker);
    server.asked();
}

#[test]
fn a_missing_daemon_is_named_with_the_mend() {
    let file = SocketFile::new();
    let path = &file.0;
    let mut docker = Docker::new(Address::Unix(path.clone()), None);
    let error = docker.ping().expect_err("nobody there");
    assert!(error.is(Kind::Unreachable), "{error:?}");
    let said = says(&error);
    assert!(said.contains("no such file or directory"), "{said}");
    assert!(said.contains("is the Docker daemon running?"), "{said}");
    // A socket without a listener stays behind when a daemon is killed.
    drop(UnixListener::bind(path).expect("a socket"));
    let error = docker.ping().expect_err("nobody listens");
    assert!(says(&error).contains("connection refused"), "{error}");
    assert!(error.is(Kind::Unreachable));
    let closed = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = closed.local_addr().expect("an address").port();
    drop(closed);
    let mut docker = Docker::new(
        Address::Tcp {
            host: "127.0.0.1".into(),
            port,
            tls: None,
        },
        None,
    );
    let error = says(&docker.ping().expect_err("nobody listens"));
    assert!(
        error.contains(&format!(
            "cannot connect to tcp://127.0.0.1:{port}: connection refused"
        )),
        "{error}"
    );
    assert!(error.contains("DOCKER_HOST"), "{error}");
}

#[test]
fn refusal_hints_name_the_group_and_the_other_sockets() {
    let address = Address::Unix("/var/run/docker.sock".into());
    let denied = Error::new("cannot connect", "permission denied").kind(Kind::Denied);
    let said = says(&refusal::unreachable(denied, &address, &[]));
    assert!(said.contains("usermod -aG docker"), "{said}");
    let missing = Error::new("cannot connect", "no such file").kind(Kind::Unreachable);
    let others = [
        PathBuf::from("/var/run/docker.sock"),
        PathBuf::from("/run/podman/podman.sock"),
    ];
    let said = says(&refusal::unreachable(missing, &address, &others));
    assert!(
        said.contains("another one is at unix:///run/podman/podman.sock"),
        "{said}"
    );
}

#[test]
fn an_ssh_that_fails_says_what_to_try() {
    let address = Address::Ssh {
        user: Some("me".into()),
        host: "edge".into(),
        port: None,
        socket: None,
    };
    let reason = std::io::Error::new(ErrorKind::ConnectionRefused, "ssh ended with 255: no");
    let error = refusal::unanswered(Ask::Ping, &address, &wire::Fault::Io(reason));
    assert!(error.is(Kind::Unreachable));
    let said = says(&error);
    assert!(
        said.contains("at ssh://me@edge: ssh ended with 255: no")
            && said.contains("ssh me@edge docker version"),
        "{said}"
    );
}

#[test]
fn a_frozen_daemon_does_not_hold_a_connect_for_ever() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let file = SocketFile::new();
    let path = &file.0;
    let frozen = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
    bind(&frozen, &SocketAddrUnix::new(path).expect("a path")).expect("a name");
    listen(&frozen, 0).expect("a queue of one");
    let mut waiting = Vec::new();
    let begun = Instant::now();
    let error = loop {
        assert!(begun.elapsed() < PATIENCE && waiting.len() < 100);
        match transport::connect(&Address::Unix(path.clone()), Duration::from_millis(100)) {
            Ok(connection) => waiting.push(connection),
            Err(error) => break error,
        }
    };
    assert!(error.is(Kind::TimedOut), "{error:?}");
    assert!(says(&error).contains("no answer in time"), "{error}");
    let said = says(&refusal::unreachable(
        error,
        &Address::Unix(path.clone()),
        &[],
    ));
    assert!(said.contains("frozen"), "{said}");
}

/// All events until the end.
fn drain(stream: &mut EventStream) -> Vec<What> {
    let mut seen = Vec::new();
    while let Some(event) = stream.next().expect("no error") {
        seen.push(event.what);
    }
    seen
}

const START: &str = "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"a\"}}\n";

#[test]
fn events_come_however_they_are_cut() {
    let (front, back) = START.split_at(30);
    let three = START.repeat(3);
    for (pieces, end) in [
        (vec![START, START, START], true),
        (vec![START, START, START], false),
        (vec![three.as_str()], true),
        (vec![front, back, START, front, back], true),
        (vec![START, START, START, front], false),
    ] {
        let server = Server::unix(vec![vec![ping("1.41")], vec![chunked(&pieces, end)]]);
        let mut docker = server.client();
        docker.ping().expect("a ping");
        let mut stream = docker
            .events(Some(1_795_359_066_194_833_019))
            .expect("a stream");
        assert_eq!(drain(&mut stream), [What::Started; 3]);
        assert!(!stream.ended_at_once());
        assert_eq!(stream.bad_lines(), 0);
        drop((stream, docker));
        let asked = server.asked();
        assert!(
            asked[1].starts_with("/v1.41/events?filters=%7B%22type%22%3A%5B%22container%22"),
            "{asked:?}"
        );
        assert!(
            asked[1].ends_with("&since=1795359066.194833019"),
            "{asked:?}"
        );
    }
}

#[test]
fn ends_of_a_stream_are_no_errors() {
    for (reply, empty, at_once) in [
        (say("docker-20.10.24/events-header-only.http"), true, false),
        (say("docker-20.10.24/events-past-empty.http"), true, true),
        (
            say("podman-4.3.1/events-bad-since-200-empty.http"),
            true,
            true,
        ),
        (say("docker-20.10.24/events-shutdown.http"), false, false),
        (say("podman-4.3.1/events-shutdown.http"), false, false),
        (
            say("docker-20.10.24/events-http10-unchunked.http"),
            false,
            false,
        ),
        (
            say("socket-proxy-haproxy-2.6/events-lowercase-headers.http"),
            false,
            false,
        ),
    ] {
        let server = Server::unix(vec![vec![reply]]);
        let mut docker = server.client();
        docker.use_api("1.41");
        let mut stream = docker.events(None).expect("a stream");
        let seen = drain(&mut stream);
        assert_eq!(seen.is_empty(), empty);
        assert_eq!(stream.ended_at_once(), at_once);
        assert_eq!(stream.next().expect("still no error"), None);
    }
}

#[test]
fn a_stream_is_hung_up_from_another_thread() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for server in [Server::unix, |script| Server::tcp("127.0.0.1", script)] {
        let server = server(vec![vec![Reply::Say(head.into()), Reply::Hang]]);
        let mut docker = server.client();
        docker.use_api("1.41");
        let mut stream = docker.events(None).expect("a stream");
        let hangup = stream.hangup().expect("a handle");
        let reader = thread::spawn(move || stream.next());
        thread::sleep(Duration::from_millis(20));
        assert!(!reader.is_finished(), "it waits");
        hangup.hang_up();
        hangup.hang_up();
        assert_eq!(reader.join().expect("the reader"), Ok(None));
        server.asked();
    }
}

#[test]
fn a_stream_that_is_dropped_ends_whoever_has_a_handle_of_it() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n";
    let server = Server::unix(vec![vec![Reply::Say(head.into()), Reply::Hang]]);
    let mut docker = server.client();
    docker.use_api("1.41");
    let mut stream = docker.events(None).expect("a stream");
    let handle = stream.hangup().expect("a handle");
    stream.next().expect_err("that is no chunk");
    drop(stream);
    // The server sees the end.
    server.asked();
    drop(handle);
}

#[test]
fn the_wait_for_the_head_of_a_stream_is_ended_from_another_thread() {
    let server = Server::unix(vec![vec![Reply::Hang]]);
    let mut docker = server.client();
    docker.use_api("1.41");
    let begun = Instant::now();
    let error = docker
        .events_opening(None, &mut |hangup| {
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                hangup.hang_up();
            });
        })
        .expect_err("hung up");
    assert!(error.is(Kind::Unreachable), "{error:?}");
    assert!(begun.elapsed() < PATIENCE);
    drop(docker);
    server.asked();
}

/// A late answer in two pieces, the second one after this time.
fn late_healthy(wait: Duration) -> Reply {
    Reply::Late(wait, bytes(HEALTHY))
}

const SHORT: Duration = Duration::from_millis(20);

#[test]
fn a_late_inspect_is_not_waited_for_and_not_lost() {
    let server = Server::unix(vec![
        vec![ping("1.41"), late_healthy(Duration::from_millis(300))],
        vec![say(HEALTHY)],
    ]);
    let mut docker = server.client();
    docker.ping().expect("a ping");
    let begun = Instant::now();
    let first = docker.container_soon("slow", SHORT).expect("no error");
    assert!(matches!(first, Answer::Late), "{first:?}");
    let again = docker.container_soon("slow", SHORT).expect("no error");
    assert!(matches!(again, Answer::Late), "{again:?}");
    assert!(begun.elapsed() < Duration::from_millis(300), "{begun:?}");
    let found = docker.container_soon("slow", PATIENCE).expect("an answer");
    assert!(matches!(found, Answer::Found(_)), "{found:?}");
    // Others have a connection of their own.
    let other = docker.container_soon("other", PATIENCE).expect("an answer");
    assert!(matches!(other, Answer::Found(_)), "{other:?}");
    drop(docker);
    let asked = server.asked();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert_eq!(asked[1], "/v1.41/containers/slow/json");
    assert_eq!(asked[2], "/v1.41/containers/other/json");
}

#[test]
fn a_late_answer_that_is_outdated_or_cut_is_asked_for_again() {
    for forget in [true, false] {
        let stuck = if forget { Reply::Hang } else { Reply::Close };
        let server = Server::unix(vec![
            vec![
                ping("1.41"),
                Reply::Trickle(SHORT * 10, b"HT".to_vec()),
                stuck,
            ],
            vec![say("docker-20.10.24/err-404-container.http")],
        ]);
        let mut docker = server.client();
        docker.ping().expect("a ping");
        let first = docker.container_soon("slow", SHORT).expect("no error");
        assert!(matches!(first, Answer::Late), "{first:?}");
        if forget {
            docker.forget("slow");
        } else {
            docker.late[0].wire.hangup().expect("a handle").hang_up();
        }
        let second = docker.container_soon("slow", PATIENCE).expect("an answer");
        assert!(matches!(second, Answer::Gone), "{second:?}");
        assert!(docker.late.is_empty());
        drop(docker);
        server.asked();
    }
}

#[test]
fn inspects_that_never_come_hold_few_connections() {
    let file = SocketFile::new();
    // Connections wait in its queue, and nobody ever answers.
    let _listener = UnixListener::bind(&file.0).expect("a socket");
    let mut docker = Docker::new(Address::Unix(file.0.clone()), None);
    docker.use_api("1.41");
    for number in 0..LATE_MAX + 2 {
        let answer = docker.container_soon(&format!("c{number}"), SHORT);
        assert!(matches!(answer, Ok(Answer::Late)), "{answer:?}");
    }
    let held: Vec<&str> = docker.late.iter().map(|late| late.id.as_str()).collect();
    assert_eq!(held, ["c2", "c3", "c4", "c5"], "the oldest were given up");
    docker.limits.late = Duration::ZERO;
    let answer = docker.container_soon("c2", SHORT);
    assert!(
        matches!(answer, Ok(Answer::Late)),
        "asked again: {answer:?}"
    );
    assert_eq!(docker.late.len(), LATE_MAX);
}

#[test]
fn a_refused_stream_is_an_error_with_the_mend() {
    let server = Server::unix(vec![vec![say(
        "socket-proxy-haproxy-2.6/err-403-containers.http",
    )]]);
    let mut docker = server.client();
    docker.use_api("1.41");
    let error = docker.events(None).expect_err("a refusal");
    assert!(error.is(Kind::Denied));
    assert!(says(&error).contains("EVENTS=1"), "{error}");

    // Too new for it: once more with its own version, on a new connection.
    let server = Server::unix(vec![
        vec![say("docker-20.10.24/err-400-too-new.http")],
        vec![chunked(&[START], true)],
    ]);
    let mut docker = server.client();
    docker.use_api("1.44");
    let mut stream = docker.events(None).expect("a stream");
    assert_eq!(drain(&mut stream), [What::Started]);
    drop((stream, docker));
    assert!(server.asked()[1].starts_with("/v1.41/events?"));

    let server = Server::unix(vec![vec![Reply::Hang]]);
    let mut docker = server.client();
    docker.limits.first_answer = Duration::from_millis(50);
    docker.use_api("1.41");
    let error = docker.events(None).expect_err("no head");
    assert!(error.is(Kind::TimedOut), "{error:?}");
    drop(docker);
    server.asked();
}

#[test]
fn a_stream_of_nonsense_is_an_error() {
    let nonsense = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n".to_vec();
    let server = Server::unix(vec![vec![Reply::Say(nonsense)]]);
    let mut docker = server.client();
    docker.use_api("1.41");
    let mut stream = docker.events(None).expect("a stream");
    let error = stream.next().expect_err("a bad chunk");
    assert!(says(&error).contains("malformed chunk"), "{error}");
    assert_eq!(stream.next().expect("the end"), None);
}
