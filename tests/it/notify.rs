//! What `watch` tells a service manager: a socket of the test stands in for systemd's.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::support::deadline::SOON;
use crate::support::fake_docker::Container;
use crate::support::sandbox::{Running, Sandbox};

/// Reads messages until one holds `wanted`; all that came on the way, it included.
#[track_caller]
fn until(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut all = Vec::new();
    let end = Instant::now() + SOON;
    let mut buffer = [0; 4096];
    while Instant::now() < end {
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("a socket option");
        if let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
            if all.last().is_some_and(|last| last.contains(wanted)) {
                return all;
            }
        }
    }
    panic!("the service manager was not told {wanted:?}; it heard {all:?}");
}

fn watch(sandbox: &Sandbox, socket: &str, variables: &[(&str, &str)]) -> Running {
    let mut command = sandbox.usual_command("watch", &["--resync", "0"]);
    command.env("NOTIFY_SOCKET", socket);
    command.envs(variables.iter().copied());
    sandbox.spawn(command)
}

#[test]
fn the_manager_hears_of_start_passes_reload_and_end() {
    let sandbox = Sandbox::new("notify");
    let path = sandbox.root.join("notify.sock");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    sandbox.docker.add(Container::serving(
        "asteroid-a",
        "10.2.0.2",
        "web",
        "web.example",
    ));
    let watch = watch(&sandbox, &path.display().to_string(), &[]);
    assert_eq!(until(&socket, "READY=1"), ["READY=1"]);
    until(&socket, "STATUS=1 routed, 0 pending, 0 left out");

    watch.signal("HUP");
    let heard = until(&socket, "READY=1");
    let micros = heard[0].strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
    assert!(
        micros.is_some_and(|micros| micros.parse::<u64>().is_ok()),
        "{heard:?}"
    );
    assert!(
        heard
            .iter()
            .any(|message| message.starts_with("STATUS=1 routed")),
        "the pass comes before the end of the reload: {heard:?}"
    );
    watch.signal("TERM");
    let heard = until(&socket, "STOPPING=1");
    assert!(
        !heard.iter().any(|message| message.contains("WATCHDOG")),
        "no sign of life that nobody asked for: {heard:?}"
    );

    // The reload script must not speak to the manager in our name.
    for call in std::fs::read_dir(sandbox.root.join("script/calls")).expect("calls") {
        let env = std::fs::read_to_string(call.expect("a call").path().join("env")).expect("env");
        assert!(!env.contains("NOTIFY_SOCKET"), "{env}");
    }
}

#[test]
fn a_docker_that_is_away_is_told_and_a_watchdog_is_fed() {
    let mut sandbox = Sandbox::new("watchdog");
    sandbox.docker.stop_daemon();
    let name = format!("cosmonaut-it-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let socket = UnixDatagram::bind_addr(&address).expect("a socket");
    let watch = watch(
        &sandbox,
        &format!("@{name}"),
        &[("WATCHDOG_USEC", "400000")],
    );
    until(&socket, "STATUS=cannot connect to unix://");
    for _ in 0..3 {
        until(&socket, "WATCHDOG=1");
    }
    watch.stop();
}
