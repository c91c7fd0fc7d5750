//! Asking against a fake router: a thread that answers as it is told, and misbehaves on purpose.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc;

use super::super::status_dns::ID_CHARS;
use super::super::weave::Standing;
use super::*;

macro_rules! data {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/weave/", $name))
    };
}

/// What the fake does with one request.
enum Reply {
    /// These bytes, then close.
    Bytes(Vec<u8>),
    /// Close without a word.
    Close,
    /// These bytes, then nothing until the client goes.
    Hang(Vec<u8>),
}

fn http(status: &str, body: &str) -> Reply {
    let length = body.len();
    Reply::Bytes(
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes(),
    )
}

fn not_found() -> Reply {
    http("404 Not Found", "404 page not found\n")
}

/// A captured `http-*.txt`: head and body, with the line ends that the capture took out.
fn captured(text: &str) -> Reply {
    let (head, body) = text.split_once("\n\n").expect("a head");
    Reply::Bytes(format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n")).into_bytes())
}

/// Answers every connection of a listener by `reply(path, how many requests before)`, until the
/// process ends. Checks that each request is one that a router must get.
fn serve<C: Read + io::Write + Send + 'static>(
    mut accept: impl FnMut() -> C + Send + 'static,
    mut reply: impl FnMut(&str, usize) -> Reply + Send + 'static,
) {
    thread::spawn(move || {
        for count in 0.. {
            let mut connection = accept();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n > 0)
            {
                request.push(byte[0]);
            }
            let request = String::from_utf8(request).expect("text");
            let path = request.split(' ').nth(1).unwrap_or_default();
            assert!(request.starts_with("GET "), "{request}");
            assert!(
                request.contains("\r\nAccept: application/json\r\n"),
                "{request}"
            );
            match reply(path, count) {
                Reply::Bytes(bytes) => drop(connection.write_all(&bytes)),
                Reply::Close => {}
                Reply::Hang(bytes) => {
                    drop(connection.write_all(&bytes));
                    drop(connection.read(&mut byte));
                }
            }
        }
    });
}

fn accept_from(listener: TcpListener) -> impl FnMut() -> TcpStream + Send {
    move || listener.accept().expect("a connection").0
}

fn fake(reply: impl FnMut(&str, usize) -> Reply + Send + 'static) -> Router {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    serve(accept_from(listener), reply);
    Router::new(address(&at, 1).expect("an address"))
}

/// An address where nobody listens.
fn nobody() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    address(&at, 1).expect("an address")
}

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn report_of(numbers: impl Iterator<Item = usize>) -> String {
    let mut entries = String::new();
    for number in numbers {
        let comma = if entries.is_empty() { "" } else { "," };
        write!(
            entries,
            r#"{comma}{{"Hostname":"c{number}.weave.local.","Origin":"here","ContainerID":"{}",
                "Address":"10.32.0.{number}","Version":0,"Tombstone":0}}"#,
            id(number)
        )
        .expect("memory");
    }
    format!(
        r#"{{"Ready":true,"Router":{{"Name":"here"}},"IPAM":{{"DefaultSubnet":"10.32.0.0/12"}},
            "DNS":{{"Domain":"weave.local.","Entries":[{entries}]}}}}"#
    )
}

#[test]
fn addresses_in_every_form() {
    for (text, expected) in [
        ("", "tcp://127.0.0.1:6784"),
        ("127.0.0.1:6784", "tcp://127.0.0.1:6784"),
        ("10.1.2.3", "tcp://10.1.2.3:6784"),
        (":7000", "tcp://127.0.0.1:7000"),
        ("router.example", "tcp://router.example:6784"),
        ("router.example:7000", "tcp://router.example:7000"),
        ("http://router.example:7000/", "tcp://router.example:7000"),
        ("tcp://router.example", "tcp://router.example:6784"),
        ("0.0.0.0:6782", "tcp://127.0.0.1:6782"),
        ("[::]:6782", "tcp://[::1]:6782"),
        ("::1", "tcp://[::1]:6784"),
        ("[::1]", "tcp://[::1]:6784"),
        ("[fd00::1]:7000", "tcp://[fd00::1]:7000"),
        ("/run/weave/http.sock", "unix:///run/weave/http.sock"),
        ("unix:///run/weave/http.sock", "unix:///run/weave/http.sock"),
        (" 10.1.2.3:7000 ", "tcp://10.1.2.3:7000"),
    ] {
        let read = address(text, HTTP_PORT).expect(text);
        assert_eq!(read.to_string(), expected, "{text:?}");
    }
    for text in [
        "host:",
        "host:0",
        "host:65536",
        "host:+80",
        "host:x",
        "a:b:c",
        "[::1",
        "[::1]7",
        "[x]:1",
        "a b",
        "https://host",
        "host/path",
        "run/http.sock",
        "ho\nst",
        ":",
        "http://",
    ] {
        let read = address(text, HTTP_PORT);
        if text == "http://" {
            assert!(read.is_ok());
            continue;
        }
        let error = read.expect_err(text);
        assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        assert!(error.hint_text().is_some());
    }
}

#[test]
fn one_look_is_report_and_ip() {
    let mut router = fake(|path, _| match path {
        "/report" => http("200 OK", data!("report-docker.json")),
        "/ip" => http("200 OK", data!("ip-docker.json")),
        _ => not_found(),
    });
    let answer = router.ask(None).expect("an answer");
    assert_eq!(answer.entries.len(), 11);
    assert!(matches!(&answer.owned, Owned::Listed(listed) if listed.len() == 8));
}

#[test]
fn over_a_unix_socket() {
    let folder = std::env::temp_dir().join(format!("cosmonaut-router-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("http.sock");
    let listener = UnixListener::bind(&path).expect("a socket");
    serve(
        move || listener.accept().expect("a connection").0,
        |path, _| match path {
            "/report" => http("200 OK", data!("report-one.json")),
            _ => http("200 OK", data!("ip-empty.json")),
        },
    );
    let mut router = Router::new(address(path.to_str().expect("text"), 1).expect("an address"));
    let answer = router.ask(None);
    std::fs::remove_dir_all(&folder).expect("gone");
    assert_eq!(answer.expect("an answer").entries.len(), 1);
}

/// Asks a fake that answers `/report` by the first and `/ip` by the second.
fn check(
    report: impl Fn() -> Reply + Send + 'static,
    ip: impl Fn() -> Reply + Send + 'static,
) -> Result<Answer> {
    fake(
        move |path, _| {
            if path == "/report" { report() } else { ip() }
        },
    )
    .ask(None)
}

#[test]
fn status_codes() {
    let one = || http("200 OK", data!("report-one.json"));
    let none = || http("200 OK", data!("ip-empty.json"));
    let not_ready = data!("derived-report-future-fields-not-ready.json");

    // 503 with a valid body is an answer; also for /ip.
    let answer = check(
        move || http("503 Service Unavailable", not_ready),
        || http("503 Service Unavailable", data!("ip-docker.json")),
    );
    let answer = answer.expect("an answer");
    assert_eq!(answer.entries.len(), 23);
    assert!(matches!(answer.owned, Owned::Listed(_)));

    // Without the allocator, without weaveDNS.
    let answer = check(one, || captured(data!("http-ip-no-ipam.txt"))).expect("an answer");
    assert_eq!(answer.owned, Owned::Off);
    let answer = check(|| http("200 OK", data!("report-no-dns.json")), none).expect("an answer");
    assert_eq!((answer.domain, answer.entries.len()), (None, 0));

    // What /ip gets wrong costs only /ip.
    for ip in [
        || http("500 Internal Server Error", "oops"),
        || http("200 OK", "garbage"),
        || http("503 Service Unavailable", "wait"),
    ] {
        let answer = check(one, ip).expect("an answer");
        assert_eq!((answer.owned, answer.entries.len()), (Owned::Unknown, 1));
    }

    // Nothing usable: the status and the beginning of the body are in the words.
    for (reply, words) in [
        (
            data!("http-report-without-accept.txt"),
            "400 error: must supply one format parameter",
        ),
        (data!("http-404.txt"), "404 to /report"),
        (
            data!("http-status-dns-no-dns.txt"),
            "500 error during template execution",
        ),
        (
            data!("http-status-dns-not-ready.txt"),
            "503 with not a Weave report",
        ),
    ] {
        let error = check(move || captured(reply), none).expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is(Kind::Unreachable));
    }
    for body in ["", "<html>", "{}", "[1,2", "null"] {
        let error = check(move || http("200 OK", body), none).expect_err(body);
        assert!(error.to_string().contains("not a Weave report"), "{error}");
    }
}

#[test]
fn a_broken_connection_is_tried_once_more() {
    let ip = || http("200 OK", data!("ip-empty.json"));
    let cut = || Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_vec());
    for broken in [
        || Reply::Close,
        || Reply::Bytes(b"HTTP/1.1 2".to_vec()),
        cut,
    ] {
        let mut router = fake(move |path, count| match (path, count) {
            ("/report", 0) => broken(),
            ("/report", _) => http("200 OK", data!("report-one.json")),
            _ => ip(),
        });
        assert_eq!(router.ask(None).expect("an answer").entries.len(), 1);
        let (sender, asked) = mpsc::channel();
        let mut router = fake(move |_, count| {
            sender.send(count).expect("a test");
            broken()
        });
        let error = router.ask(None).expect_err("broken twice");
        assert!(error.to_string().contains("closed") || error.to_string().contains("reset"));
        assert_eq!(asked.try_iter().count(), 2, "{error}");
    }
}

#[test]
fn a_router_that_hangs_or_never_ends_is_left() {
    let begun = Instant::now();
    let error = fake(|_, _| Reply::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()))
        .ask(None)
        .expect_err("no answer");
    assert!(error.is(Kind::TimedOut), "{error}");
    assert!(error.to_string().contains("no answer in 3s"), "{error}");
    let took = begun.elapsed();
    assert!(
        took >= REQUEST_TIMEOUT && took < REQUEST_TIMEOUT * 2,
        "{took:?}"
    );

    let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    endless.resize(BODY_BYTES_MAX + 1024, b' ');
    let mut endless = Some(endless);
    let error = fake(move |_, _| Reply::Bytes(endless.take().unwrap_or_default()))
        .ask(None)
        .expect_err("too long");
    assert!(error.to_string().contains("longer than"), "{error}");
}

#[test]
fn a_large_fleet_is_read_whole_and_chunked() {
    let body = report_of(0..=255);
    let mut chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for piece in body.as_bytes().chunks(1000) {
        chunked.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend(piece);
        chunked.extend(b"\r\n");
    }
    chunked.extend(b"0\r\n\r\n");
    let answer = check(move || Reply::Bytes(chunked.clone()), not_found);
    assert_eq!(answer.expect("an answer").entries.len(), 256);
}

#[test]
fn nobody_listens_the_second_address_then_the_command() {
    let error = Router::new(nobody()).ask(None).expect_err("nobody");
    assert!(error.is(Kind::Unreachable));
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(
        error
            .hint_text()
            .is_some_and(|hint| hint.contains("WEAVE_HTTP_ADDR"))
    );

    // The read-only port has no /ip, and is not asked for it twice.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let at = listener.local_addr().expect("an address").to_string();
    let (sender, asked) = mpsc::channel();
    serve(accept_from(listener), move |path, _| {
        sender.send(path.to_owned()).expect("a test");
        match path {
            "/report" => http("200 OK", data!("report-one.json")),
            _ => not_found(),
        }
    });
    let mut router = Router::new(nobody()).or_else(address(&at, 1).expect("an address"));
    for _ in 0..2 {
        assert_eq!(router.ask(None).expect("an answer").owned, Owned::Off);
    }
    let asked: Vec<String> = asked.try_iter().collect();
    assert_eq!(asked, ["/report", "/ip", "/report"]);

    let mut runs = Vec::new();
    let mut command = || {
        runs.push(Instant::now());
        Ok(data!("derived-status-dns-crlf.txt").to_owned())
    };
    let mut router = Router::new(nobody());
    for _ in 0..2 {
        let answer = router.ask(Some(&mut command)).expect("an answer");
        assert!(answer.short && answer.entries.len() == 8);
    }
    assert!(runs[1] - runs[0] >= COMMAND_EVERY);
    // Its failure says less than that of the API.
    let mut fails = || {
        Err(Error::new(
            "weave",
            data!("cli-not-running.stderr.txt").trim(),
        ))
    };
    let error = Router::new(nobody())
        .ask(Some(&mut fails))
        .expect_err("both fail");
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[test]
fn the_command_alone_when_asked_for_and_never_for_a_router_that_answers() {
    let mut runs = 0;
    let mut command = || {
        runs += 1;
        Ok(data!("status-dns-one.txt").to_owned())
    };
    let mut router = fake(|_, _| http("500 Internal Server Error", "no"));
    assert!(router.ask(Some(&mut command)).is_err());
    assert_eq!(runs, 0);
    let mut router = Router::new(nobody()).command_only(true);
    let mut fails = || {
        Err(Error::new(
            "weave status dns",
            data!("cli-not-running.stderr.txt"),
        ))
    };
    let error = router.ask(Some(&mut fails)).expect_err("it fails");
    assert!(
        error.to_string().contains("Have you launched it?"),
        "{error}"
    );
    assert!(router.ask(None).is_err());
    let answer = Router::new(nobody())
        .command_only(true)
        .ask(Some(&mut || Ok(data!("status-dns-one.txt").to_owned())))
        .expect("an answer");
    assert_eq!(answer.entries[0].id.len(), ID_CHARS);
}

fn poller_for(count: usize) -> Poller {
    let mut poller = Poller::default();
    let now = Instant::now();
    for number in 0..count {
        poller.want(&id(number), &format!("c{number}"), "weave.local", now);
    }
    poller
}

#[test]
fn a_burst_of_forty_is_found_as_it_registers_by_a_router_that_misbehaves() {
    // The measured delays (0.7 to 6.2 s) a tenth as long, so the whole takes less than a second.
    let begun = Instant::now();
    let appears = |number: usize| Duration::from_millis(70 + 14 * number as u64);
    let mut router = fake(move |path, count| match (path, count % 7) {
        (_, 3) => Reply::Close,
        ("/report", 5) => http("500 Internal Server Error", "restarting"),
        ("/report", _) => {
            let there = (0..40).filter(|number| appears(*number) <= begun.elapsed());
            let status = if count < 8 {
                "503 Service Unavailable"
            } else {
                "200 OK"
            };
            http(status, &report_of(there))
        }
        _ => http("200 OK", data!("ip-empty.json")),
    });
    let mut poller = poller_for(40);
    let mut found: BTreeMap<usize, Duration> = BTreeMap::new();
    while let Some(next) = poller.next() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "{} found",
            found.len()
        );
        thread::sleep(next.saturating_duration_since(Instant::now()));
        step(&mut poller, &mut || router.ask(None));
        for number in 0..40 {
            if let Standing::Found(ips) = poller.view().standing(&id(number)) {
                assert_eq!(ips, [IpAddr::from([10, 32, 0, number as u8])]);
                found.entry(number).or_insert(begun.elapsed());
            }
        }
    }
    assert_eq!(found.len(), 40);
    assert!(found.iter().all(|(number, at)| *at >= appears(*number)));
}

#[test]
fn settle_ends_when_all_are_there_when_time_is_up_or_nobody_listens() {
    let mut router = fake(|path, count| match path {
        "/report" => http("200 OK", &report_of(0..count.min(3))),
        _ => http("200 OK", data!("ip-empty.json")),
    });
    let mut poller = poller_for(3);
    let long = Duration::from_secs(30);
    let begun = Instant::now();
    assert!(settle(&mut poller, long, &mut || router.ask(None)));
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(poller.pending().count(), 0);
    // Nothing waits: nothing is asked.
    assert!(!settle(&mut poller, long, &mut || panic!("asked")));

    let mut poller = poller_for(4);
    let begun = Instant::now();
    settle(&mut poller, Duration::from_millis(300), &mut || {
        router.ask(None)
    });
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(poller.pending().collect::<Vec<_>>(), [id(3)]);

    let mut router = Router::new(nobody());
    let mut poller = poller_for(1);
    let begun = Instant::now();
    assert!(!settle(&mut poller, long, &mut || router.ask(None)));
    assert!(begun.elapsed() < UNREACHABLE_PATIENCE * 2);
    let standing = poller.view().standing(&id(0)).to_owned();
    assert!(matches!(standing, Standing::Waiting(Some(why)) if why.contains("refused")));
}
