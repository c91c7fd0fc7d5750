//! The binary against everything that may stand on Docker's wire: proxies, old and new API
//! versions, Podman, events in pieces, garbage.

use std::time::Duration;

use crate::support::deadline::{SOON, stays};
use crate::support::fake_docker::Container;
use crate::support::sandbox::Sandbox;
use crate::support::wire::{Reply, chunk};

/// Longest event line that is kept (the crate's own limit): one byte more is skipped.
const LINE_BYTES_MAX: usize = 4 << 20;

fn web(name: &str, ip: &str) -> Container {
    Container::serving(name, ip, "web", "web.example")
}

/// A watch over one container, in a manner of the daemon; then a start must be followed.
#[track_caller]
fn follows(name: &str, tcp: bool, prepare: impl Fn(&Sandbox)) {
    let sandbox = if tcp {
        Sandbox::tcp(name)
    } else {
        Sandbox::new(name)
    };
    // Large enough to be chunked.
    for at in 0..6 {
        let ip = format!("10.3.1.{}", at + 2);
        sandbox.docker.add(web(&format!("asteroid-{at}"), &ip));
    }
    prepare(&sandbox);
    let watch = sandbox.settled_watch(&[]);
    assert_eq!(sandbox.routes().all().len(), 6);
    sandbox.docker.run(web("asteroid-new", "10.3.1.99"));
    sandbox.wait_config("the new container", SOON, |routes| {
        routes.has("10.3.1.99:80")
    });
    sandbox.docker.stop("asteroid-new");
    sandbox.wait_config("the new container gone", SOON, |routes| {
        !routes.has("10.3.1.99:80")
    });
    watch.stop();
}

#[test]
fn plain_unix_and_tcp() {
    follows("unix", false, |_| {});
    follows("tcp", true, |_| {});
}

#[test]
fn behind_a_proxy_with_lower_case_headers_and_upper_case_sizes() {
    follows("proxied", true, |sandbox| {
        sandbox.docker.manner(|manner| manner.proxied = true)
    });
}

#[test]
fn interim_answers_are_passed_over() {
    follows("interim", false, |sandbox| {
        sandbox.docker.manner(|manner| manner.interim = true)
    });
}

#[test]
fn bodies_that_end_with_the_connection() {
    follows("closes", false, |sandbox| {
        sandbox.docker.manner(|manner| manner.closes = true)
    });
}

#[test]
fn events_cut_into_many_chunks() {
    follows("pieces", false, |sandbox| {
        sandbox.docker.manner(|manner| manner.event_pieces = 50)
    });
}

#[test]
fn unfiltered_events() {
    follows("unfiltered", false, |sandbox| {
        sandbox.docker.manner(|manner| manner.ignore_filters = true)
    });
}

#[test]
fn podman_is_followed() {
    follows("podman", false, |sandbox| {
        sandbox.docker.manner(|manner| manner.podman = true)
    });
}

#[test]
fn every_api_version_is_spoken() {
    for (min, max) in [(12, 41), (12, 24), (24, 44), (44, 53), (40, 56)] {
        follows("version", false, |sandbox| {
            sandbox.docker.manner(|manner| {
                manner.api_min = min;
                manner.api_max = max;
            });
        });
    }
}

#[test]
fn a_proxy_that_denies_the_ping_is_no_obstacle() {
    follows("no-ping", true, |sandbox| {
        let html = crate::support::wire::answer("403 Forbidden", "text/html", "<html>no</html>");
        sandbox
            .docker
            .misbehave("/_ping", usize::MAX, Reply::Raw(html));
    });
}

#[test]
fn what_is_no_event_is_skipped() {
    let sandbox = Sandbox::new("garbage");
    sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    for line in [
        "nonsense",
        "{",
        "[]",
        "null",
        "{}",
        "{\"Type\":5}",
        "\u{0}\u{1}",
        "\"start\"",
        "",
        "{\"Type\":\"container\",\"Action\":\"start\"}",
        "{\"Type\":\"volume\",\"Action\":\"create\",\"Actor\":{\"ID\":\"v\",\"Attributes\":{}}}",
        "{\"Type\":\"container\",\"Action\":\"start\",\"Actor\":{\"ID\":\"../../x y\",\"Attributes\":{}}}",
    ] {
        sandbox.docker.emit_raw(line);
    }
    sandbox.docker.run(web("asteroid-b", "10.3.0.3"));
    sandbox.wait_config("the start after the garbage", SOON, |routes| {
        routes.has("10.3.0.3:80")
    });
    let odd = sandbox
        .docker
        .count(|request| request.target.contains("/../") || request.target.contains(' '));
    assert_eq!(
        odd,
        0,
        "what an event says never leaves its place in a path:\n{}",
        sandbox.docker.transcript()
    );
    watch.still_runs();
    assert_eq!(
        sandbox.docker.count(|request| request.is_events()),
        1,
        "the stream was kept"
    );
}

#[test]
fn many_events_in_one_chunk_and_one_event_in_many() {
    let sandbox = Sandbox::new("joined");
    for (name, ip) in [
        ("asteroid-a", "10.3.0.2"),
        ("asteroid-b", "10.3.0.3"),
        ("asteroid-c", "10.3.0.4"),
    ] {
        sandbox.docker.add(web(name, ip));
    }
    let watch = sandbox.settled_watch(&[]);
    // All three die in one chunk.
    let lines: String = ["asteroid-a", "asteroid-b", "asteroid-c"]
        .iter()
        .map(|name| sandbox.docker.event_line(name, "die") + "\n")
        .collect();
    sandbox.docker.emit_bytes(&chunk(lines.as_bytes(), false));
    sandbox.wait_config("nobody", SOON, |routes| routes.all().is_empty());
    // One start, byte by byte.
    let line = sandbox.docker.event_line("asteroid-b", "start") + "\n";
    for byte in line.as_bytes() {
        sandbox.docker.emit_bytes(&chunk(&[*byte], true));
    }
    sandbox.wait_config("one again", SOON, |routes| routes.all() == ["10.3.0.3:80"]);
    watch.stop();
}

#[test]
fn a_line_past_the_limit_makes_it_look_at_everything() {
    let sandbox = Sandbox::new("long-line");
    sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    // A container comes without an event of its own: the long line hid it.
    sandbox.docker.add(web("asteroid-b", "10.3.0.3"));
    let part = "x".repeat(64 * 1024);
    sandbox
        .docker
        .emit_bytes(&chunk(b"{\"Type\":\"container\",\"Action\":\"", false));
    for _ in 0..=LINE_BYTES_MAX / part.len() {
        sandbox.docker.emit_bytes(&chunk(part.as_bytes(), false));
    }
    sandbox.docker.emit_bytes(&chunk(b"\"}\n", false));
    sandbox.wait_config("the hidden container", SOON, |routes| {
        routes.has("10.3.0.3:80")
    });
    watch.still_runs();
    // The lines after it are read as ever.
    sandbox.docker.kill("asteroid-a");
    sandbox.wait_config("the one that died after it gone", SOON, |routes| {
        !routes.has("10.3.0.2:80")
    });
    assert_eq!(
        sandbox.docker.count(|request| request.is_events()),
        1,
        "the stream was kept"
    );
}

#[test]
fn a_stream_cut_in_the_middle_of_a_chunk_is_opened_again() {
    let sandbox = Sandbox::new("cut-chunk");
    sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
    let watch = sandbox.settled_watch(&[]);
    let line = sandbox.docker.event_line("asteroid-a", "die");
    let half = &chunk(line.as_bytes(), false)[..60];
    sandbox.docker.emit_bytes(half);
    sandbox.docker.add(web("asteroid-b", "10.3.0.3"));
    sandbox.docker.end_streams(false);
    sandbox.wait_config("both", SOON, |routes| {
        routes.all() == ["10.3.0.2:80", "10.3.0.3:80"]
    });
    watch.stop();
}

#[test]
fn bytes_that_are_no_chunk_end_the_stream_and_nothing_else() {
    let sandbox = Sandbox::new("no-chunk");
    sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.docker.emit_bytes(b"zz not a size\r\n\r\n\xff\xfe");
    sandbox.docker.wait_subscribed(2);
    sandbox.docker.run(web("asteroid-b", "10.3.0.3"));
    sandbox.wait_config("both", SOON, |routes| {
        routes.all() == ["10.3.0.2:80", "10.3.0.3:80"]
    });
    watch.still_runs();
}

#[test]
fn a_daemon_without_an_event_log_is_looked_at_from_time_to_time() {
    let sandbox = Sandbox::new("no-log");
    sandbox.docker.manner(|manner| {
        manner.podman = true;
        manner.no_event_log = true;
    });
    sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
    let watch = sandbox.watch(&[]);
    sandbox.wait_config("the first one", SOON, |routes| routes.has("10.3.0.2:80"));
    sandbox.docker.run(web("asteroid-b", "10.3.0.3"));
    sandbox.wait_config("the new one", SOON, |routes| routes.has("10.3.0.3:80"));
    let before = sandbox.docker.requests().len();
    stays("no tight loop of requests", Duration::from_secs(3), || {
        sandbox.docker.requests().len() < before + 30
    });
    watch.stop();
}

#[test]
fn bad_answers_to_the_subscription_are_outlived() {
    for (name, reply) in [
        (
            "html",
            Reply::Raw(crate::support::wire::answer(
                "503 Service Unavailable",
                "text/html",
                "<html>down</html>",
            )),
        ),
        (
            "500",
            Reply::Raw(crate::support::wire::answer(
                "500 Internal Server Error",
                "application/json",
                r#"{"message":"broken"}"#,
            )),
        ),
        ("closed", Reply::closed()),
        ("endless", Reply::EndlessHead),
        ("garbage", Reply::Raw(b"\x00\x01\x02\r\n\r\n".to_vec())),
    ] {
        let sandbox = Sandbox::new(name);
        sandbox.docker.add(web("asteroid-a", "10.3.0.2"));
        sandbox.docker.misbehave("/events", 2, reply);
        let mut watch = sandbox.watch(&[]);
        sandbox.docker.wait_subscribed(1);
        assert!(
            sandbox.docker.count(|request| request.is_events()) >= 3,
            "{name}"
        );
        sandbox.wait_config("the container", SOON, |routes| routes.has("10.3.0.2:80"));
        watch.still_runs();
        watch.stop();
    }
}
