//! No request is lost: real containers that finish what they accepted, a real HAProxy, and clients that
//! ask all the time while containers are stopped, started, replaced and killed.
//!
//! `COSMONAUT_ROUNDS` sets the number of rounds of each kind (the evidence was made with 100).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::deadline::wait_for;
use crate::support::host_haproxy::HostHaproxy;
use crate::support::load::{Load, Tally};
use crate::support::real_docker::{BUSYBOX, Docker, left_out};
use crate::support::sandbox::{Running, Sandbox};

/// Rounds of each kind when nothing else is said.
const ROUNDS: usize = 2;
/// A change that is shown by HAProxy.
const SHOWN: Duration = Duration::from_secs(30);
/// Clients of each kind of connection.
const CLIENTS: usize = 4;

fn rounds() -> usize {
    std::env::var("COSMONAUT_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

/// A HAProxy on this host that serves containers of a real daemon, and clients at work.
struct Site {
    load: Option<Load>,
    watch: Option<Running>,
    haproxy: HostHaproxy,
    docker: Docker,
    network: String,
    sandbox: Sandbox,
    runtime: bool,
}

impl Site {
    #[track_caller]
    fn new(name: &str, runtime: bool) -> Option<Site> {
        if left_out("docker") || left_out("haproxy") {
            return None;
        }
        let sandbox = Sandbox::new(name);
        let docker = Docker::shared();
        let network = docker.network("net");
        let haproxy = HostHaproxy::new(&sandbox.root, &sandbox.config_path());
        let mut site = Site {
            load: None,
            watch: None,
            haproxy,
            docker,
            network,
            sandbox,
            runtime,
        };
        for number in 0..4 {
            site.serve(&format!("n{number}"));
        }
        let options = site.options();
        let args = |command| -> Vec<&str> {
            let options = options.iter().map(String::as_str);
            std::iter::once(command).chain(options).collect()
        };
        // Nobody is there to load it yet; another test's HAProxy may be, which the script finds odd.
        site.sandbox.bare(&args("sync"));
        site.haproxy.start();
        let mut watch = site.sandbox.spawn(site.sandbox.command(&args("watch")));
        watch.wait_log("1 service, 4 servers", SHOWN);
        site.watch = Some(watch);
        site.has(4);
        site.load = Some(Load::start(
            SocketAddr::from(([127, 0, 0, 1], site.haproxy.port)),
            "web.example",
            &["/", "/", "/", "/cgi-bin/slow"],
            CLIENTS,
        ));
        Some(site)
    }

    fn options(&self) -> Vec<String> {
        let mut all: Vec<String> = [
            "--docker-host",
            &self.docker.docker_host(),
            "--state-dir",
            &self.sandbox.state().display().to_string(),
            "--base",
            &self.haproxy.base().display().to_string(),
            "--keyword",
            &self.docker.prefix,
            "--weave",
            "never",
        ]
        .map(str::to_owned)
        .to_vec();
        let socket = self.haproxy.socket().display().to_string();
        let master = self.haproxy.master().display().to_string();
        if self.runtime {
            all.extend(["--haproxy-socket".to_owned(), socket]);
        } else {
            all.extend(["--haproxy-master".to_owned(), master]);
        }
        all
    }

    /// An HTTP server that finishes what it accepted: told to stop, it serves on for a moment, then closes
    /// its door, then waits for the requests at work.
    fn serve(&self, rest: &str) {
        let command = "mkdir -p /tmp/www/cgi-bin; echo hello >/tmp/www/index.html
printf '#!/bin/sh\\nsleep 0.3\\nprintf \"Content-Type: text/plain\\\\r\\\\nContent-Length: 4\\\\r\\\\n\\\\r\\\\nslow\"\\n' >/tmp/www/cgi-bin/slow
chmod 755 /tmp/www/cgi-bin/slow
httpd -f -p 8080 -h /tmp/www & trap 'sleep 0.5; kill $!; sleep 0.8; exit 0' TERM; wait";
        self.docker.start(
            rest,
            &[
                "--network",
                &self.network,
                "-e",
                "SERVICE_NAME=web",
                "-e",
                "PREDICATE=web.example",
                "-e",
                "PORT=8080",
                BUSYBOX,
                "sh",
                "-c",
                command,
            ],
        );
    }

    /// Waits until HAProxy has this many servers that take requests.
    #[track_caller]
    fn has(&self, servers: usize) {
        wait_for(
            &format!(
                "{servers} servers; HAProxy has {:?}",
                self.haproxy.servers()
            ),
            SHOWN,
            || (self.haproxy.servers().len() == servers).then_some(()),
        );
    }

    fn run(&self, command: &[&str], rest: &str) {
        let name = self.docker.name(rest);
        let mut args = command.to_vec();
        args.push(&name);
        self.docker.run(&args);
    }

    /// Ends load and watch; nothing may have failed.
    #[track_caller]
    fn lost_nothing(mut self, what: &str, begun: Instant) {
        let Tally { good, failed } = self.load.take().expect("the load").stop();
        println!(
            "{what}: {good} requests in {:?}, failed: {failed:?}",
            begun.elapsed()
        );
        let watch = self.watch.take().expect("the watch");
        let said = watch.stderr();
        watch.stop();
        assert!(
            failed.is_empty(),
            "{what}: {good} good, failed: {failed:?}\n{said}"
        );
        assert!(good > 100, "{what}: only {good} requests");
    }
}

/// Plays rounds of one kind, with and without the runtime socket.
#[track_caller]
fn play(what: &str, round: impl Fn(&Site, usize)) {
    for runtime in [false, true] {
        let name = if runtime { "runtime" } else { "reload" };
        let Some(site) = Site::new(&format!("ll-{what}-{name}"), runtime) else {
            return;
        };
        let reloads = site.haproxy.reloads();
        let begun = Instant::now();
        for number in 0..rounds() {
            round(&site, number);
        }
        if runtime {
            assert_eq!(site.haproxy.reloads(), reloads, "{what}: reloads");
        }
        site.lost_nothing(&format!("{what}, {name}"), begun);
    }
}

#[test]
fn stop_and_start() {
    play("stop", |site, number| {
        let one = format!("n{}", number % 4);
        site.run(&["stop"], &one);
        site.has(3);
        site.run(&["start"], &one);
        site.has(4);
    });
}

#[test]
fn restart() {
    play("restart", |site, number| {
        let one = format!("n{}", number % 4);
        site.run(&["restart"], &one);
        site.has(4);
    });
}

#[test]
fn scale_up_and_down() {
    play("scale", |site, _| {
        for rest in ["x", "y", "z"] {
            site.serve(rest);
        }
        site.has(7);
        std::thread::scope(|scope| {
            for rest in ["x", "y", "z"] {
                scope.spawn(move || {
                    site.run(&["stop"], rest);
                    site.run(&["rm"], rest);
                });
            }
        });
        site.has(4);
    });
}

#[test]
fn rolling_replacement() {
    play("rolling", |site, number| {
        for one in 0..4 {
            let old = match number {
                0 => format!("n{one}"),
                number => format!("n{one}-{}", number - 1),
            };
            site.serve(&format!("n{one}-{number}"));
            site.has(5);
            site.run(&["stop"], &old);
            site.run(&["rm"], &old);
            site.has(4);
        }
    });
}

/// What was at work in the killed container is tried again elsewhere, since it may be.
#[test]
fn kill() {
    play("kill", |site, number| {
        let one = format!("n{}", number % 4);
        site.run(&["kill"], &one);
        site.has(3);
        site.run(&["start"], &one);
        site.has(4);
    });
}
