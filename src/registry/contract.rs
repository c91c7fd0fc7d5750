//! What both registries must do alike, and what HAProxy does with the result.
//!
//! Each file of `tests/data/registry/contract` is a life: payloads one after the other. Both
//! registries must give, for each, a config that holds exactly what was asked for and that HAProxy
//! accepts. The second half sends real requests through a real HAProxy.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::canned::{Reply, serve};
use super::cosmos::{Cosmos, Settings};
use super::embedded::{Embedded, Memory, State};
use super::haproxy_check::{assert_accepted, verdict};
use super::template::{self, Base, Service};
use super::{Mode, Payload, Registry, answer};
use crate::config::Config;
use crate::error::Result;

/// Remembers nothing beyond the process.
struct Forgetful;

impl Memory for Forgetful {
    fn load(&mut self, _: &str) -> Result<State> {
        Ok(State::default())
    }

    fn save(&mut self, _: &str, _: &State<&str>) -> Result<()> {
        Ok(())
    }
}

#[test]
fn both_registries_hold_exactly_what_was_asked_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/registry/contract");
    let mut lives = 0;
    for entry in std::fs::read_dir(folder).expect("the contract is there") {
        let path = entry.expect("a file").path();
        let bytes = std::fs::read(&path).expect("a life");
        let life: Vec<Payload> = serde_json::from_slice(&bytes).expect("payloads");
        lives += 1;
        let replies = life.iter().map(|_| Reply::Config).collect();
        let server = serve(replies);
        let base = Base::built_in(None).expect("the built-in base is good");
        let registries: [Box<dyn Registry>; 2] = [
            Box::new(Embedded::new(base, Box::new(Forgetful))),
            Box::new(
                Cosmos::new(&Settings::new(&server.url), Box::new(|_| false)).expect("settings"),
            ),
        ];
        for mut registry in registries {
            for payload in &life {
                let mut sorted = payload.clone();
                super::sort(&mut sorted);
                assert_eq!(&sorted, payload, "{}: in the pinned order", path.display());
                let text = registry.config(payload).expect("a config");
                assert!(text.ends_with('\n'));
                assert_accepted(&text);
                let config = Config::parse(&text);
                assert_eq!(answer::missing(payload, &config, false), [""; 0], "{text}");
                let asked: Vec<_> = payload
                    .candidates
                    .iter()
                    .map(|candidate| candidate.service_name.as_str())
                    .collect();
                assert_eq!(config.services(), asked);
                for backend in config.backends() {
                    for server in backend.servers() {
                        let value = server.option("cookie");
                        assert!(value.is_none_or(|value| value == server.name), "{text}");
                    }
                }
            }
        }
    }
    assert!(lives > 0);
}

/// A running HAProxy; killed at the end.
struct Haproxy {
    child: Child,
    port: u16,
    config: std::path::PathBuf,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.config);
    }
}

/// Longest wait for HAProxy to listen, on a busy machine.
const START_MAX: Duration = Duration::from_secs(20);

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("an address").port()
}

fn start(services: &[Service]) -> Option<Haproxy> {
    let port = free_port();
    let base = template::render(&Base::built_in(None).expect("good"), &[]).text;
    let base = base.replace("bind :80", &format!("bind 127.0.0.1:{port}"));
    let rendered = template::render(&Base::new(&base).expect("a good base"), services);
    assert_eq!(rendered.left_out, []);
    assert_eq!(verdict(&rendered.text)?, "");
    let config = std::env::temp_dir().join(format!("cosmonaut-contract-{port}.cfg"));
    std::fs::write(&config, &rendered.text).expect("a config file");
    let child = Command::new("haproxy")
        .arg("-db")
        .arg("-f")
        .arg(&config)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("haproxy starts");
    let haproxy = Haproxy {
        child,
        port,
        config,
    };
    let end = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < end, "haproxy does not listen");
        thread::sleep(Duration::from_millis(5));
    }
    Some(haproxy)
}

/// A server that answers every request with its own name, and sets a cookie if it is told one.
fn instance(address: &str, cookie: Option<&'static str>) {
    let listener = TcpListener::bind(address).expect("a loopback address");
    let name = address.to_owned();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(mut stream), name) = (stream, name.clone()) else {
                return;
            };
            thread::spawn(move || {
                let mut buffer = [0; 8192];
                if stream.read(&mut buffer).unwrap_or(0) == 0 {
                    return;
                }
                let cookie = cookie.map_or_else(String::new, |c| format!("Set-Cookie: {c}\r\n"));
                let _ = stream.write_all(
                    format!(
                        "HTTP/1.1 200 OK\r\n{cookie}Content-Length: {}\r\nConnection: close\r\n\r\n{name}",
                        name.len()
                    )
                    .as_bytes(),
                );
            });
        }
    });
}

/// The whole response to one request.
fn get(port: u16, host: &str, path: &str, cookie: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("haproxy listens");
    stream
        .set_read_timeout(Some(START_MAX))
        .expect("a time limit");
    let cookie = match cookie {
        "" => String::new(),
        cookie => format!("Cookie: {cookie}\r\n"),
    };
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{cookie}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut response = String::new();
    stream.read_to_string(&mut response).expect("an answer");
    response
}

fn service<'s>(
    name: &'s str,
    mode: Mode,
    patterns: &[&'s str],
    port: u16,
    ips: &[&str],
) -> Service<'s> {
    Service {
        name,
        mode,
        patterns: patterns.to_vec(),
        port,
        cookie: None,
        servers: ips
            .iter()
            .map(|ip| template::Server {
                id: format!("aaaaaaaaa{:0>3}", ip.rsplit('.').next().unwrap_or_default()).leak(),
                ip: ip.parse().expect("an address"),
            })
            .collect(),
    }
}

#[test]
fn real_requests_reach_the_service_that_they_name() {
    let port = free_port();
    for ip in [
        "127.0.0.11",
        "127.0.0.12",
        "127.0.0.13",
        "127.0.0.14",
        "127.0.0.15",
    ] {
        instance(&format!("{ip}:{port}"), None);
    }
    let services = [
        service("any", Mode::Host, &["*.example.com"], port, &["127.0.0.12"]),
        service(
            "web",
            Mode::Host,
            &["web.example.com"],
            port,
            &["127.0.0.11"],
        ),
        service("out", Mode::Host, &["out.example.com"], port, &[]),
        service("v2", Mode::Path, &["api/v2"], port, &["127.0.0.13"]),
        service("api", Mode::Path, &["api"], port, &["127.0.0.14"]),
        service(
            "mixed",
            Mode::Path,
            &["api/v2/deep", "m"],
            port,
            &["127.0.0.15"],
        ),
    ];
    let Some(haproxy) = start(&services) else {
        return;
    };
    for (host, path, expected) in [
        ("web.example.com", "/", "127.0.0.11"),
        ("WEB.Example.COM:8080", "/", "127.0.0.11"),
        ("other.example.com", "/", "127.0.0.12"),
        ("a.b.example.com:80", "/api", "127.0.0.12"),
        ("example.com", "/", "503"),
        ("web.example.com.evil.org", "/", "503"),
        ("notexample.com", "/", "503"),
        ("out.example.com", "/", "503"),
        ("x", "/api", "127.0.0.14"),
        ("x", "/api/", "127.0.0.14"),
        ("x", "/api?q=1", "127.0.0.14"),
        ("x", "/api/v1", "127.0.0.14"),
        ("x", "/apis", "503"),
        ("x", "/apix/v2", "503"),
        ("x", "/api/v2", "127.0.0.13"),
        ("x", "/api/v2/x", "127.0.0.13"),
        ("x", "/api/v22", "127.0.0.14"),
        ("x", "/api/v2/deep/er", "127.0.0.15"),
        ("x", "/m", "127.0.0.15"),
        ("x", "/", "503"),
    ] {
        let response = get(haproxy.port, host, path, "");
        assert!(response.contains(expected), "{host}{path}: {response}");
    }
}

/// The cookie of a response that a browser would send back.
fn set_cookie(response: &str) -> Option<String> {
    let line = response
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("set-cookie: "))?;
    let pair = line.split_once(": ")?.1;
    Some(pair.split(';').next().unwrap_or_default().to_owned())
}

#[test]
fn sessions_stick_with_and_without_the_applications_cookie() {
    for (cookie, ips) in [
        (None, ["127.0.0.21", "127.0.0.22"]),
        (Some("SID=app; Path=/"), ["127.0.0.23", "127.0.0.24"]),
    ] {
        let port = free_port();
        for ip in ips {
            instance(&format!("{ip}:{port}"), cookie);
        }
        let mut sticky = service("web", Mode::Host, &["web"], port, &ips);
        sticky.cookie = Some("SID");
        let Some(haproxy) = start(&[sticky]) else {
            return;
        };
        let body = |response: &str| {
            response
                .rsplit("\r\n")
                .next()
                .unwrap_or_default()
                .to_owned()
        };
        let mut opened = Vec::new();
        for _ in 0..6 {
            let first = get(haproxy.port, "web", "/", "");
            let mut jar = set_cookie(&first).expect("a cookie");
            if cookie.is_some() {
                assert!(
                    jar.ends_with("~app"),
                    "the application's value is kept: {jar}"
                );
            }
            for _ in 0..5 {
                let next = get(haproxy.port, "web", "/", &jar);
                assert_eq!(body(&next), body(&first), "{jar}");
                if cookie.is_none() {
                    assert_eq!(set_cookie(&next), None, "a good cookie is not set again");
                }
                jar = set_cookie(&next).unwrap_or(jar);
            }
            opened.push(body(&first));
        }
        opened.sort();
        opened.dedup();
        assert_eq!(opened.len(), 2, "both instances get sessions");
        // The server of this session is gone: the value moves to another server and sticks there.
        let moved = get(haproxy.port, "web", "/", "SID=bbbbbbbbbbbb~old");
        if cookie.is_none() {
            let jar = set_cookie(&moved).expect("a cookie for the new server");
            assert!(jar.ends_with("~old"), "{jar}");
            for _ in 0..3 {
                assert_eq!(body(&get(haproxy.port, "web", "/", &jar)), body(&moved));
            }
        }
    }
}
