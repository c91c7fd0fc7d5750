//! No request is lost: real containers that finish what they accepted, a real HAProxy, and clients that
//! ask all the time while containers are stopped, started, replaced and killed.
//!
//! | variable | |
//! |---|---|
//! | `COSMONAUT_ROUNDS` | rounds of each kind, 2 unless given |
//! | `COSMONAUT_ROUNDS_S` | seconds after which a kind starts no further round; no limit unless given |
//! | `COSMONAUT_TEST_PLACE` | `host` or `container`: where HAProxy runs; `host` unless given |
//! | `COSMONAUT_TEST_WAYS` | by what HAProxy is told, of `signal master runtime`; all unless given |
//! | `COSMONAUT_REPORT` | a file to which each play adds a line (scripts/rounds makes tables of them) |

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::deadline::{SOON, wait_for};
use crate::support::host_haproxy::{self, HostHaproxy, ask};
use crate::support::load::{Load, Tally};
use crate::support::real_docker::{BUSYBOX, Docker, haproxy_image, left_out};
use crate::support::sandbox::{Running, Sandbox};

/// Rounds of each kind when nothing else is said.
const ROUNDS: usize = 2;
/// A change that is shown by HAProxy.
const SHOWN: Duration = Duration::from_secs(30);
/// Clients of each kind of connection.
const CLIENTS: usize = 4;
/// Lives of `watch` for each round: one change each.
const LIVES: usize = 4;
/// Most rounds with a slow starter: each shows the same.
const SLOW_ROUNDS_MAX: usize = 5;
/// Pause between two looks at HAProxy's servers: this is not to be what keeps the machine busy.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long a slow starter's port is closed.
const SLOW: Duration = Duration::from_secs(3);

fn rounds() -> usize {
    said("COSMONAUT_ROUNDS")
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(ROUNDS)
}

/// The time for one kind is over.
fn is_over(begun: Instant) -> bool {
    let limit = said("COSMONAUT_ROUNDS_S").and_then(|seconds| seconds.parse().ok());
    limit.is_some_and(|seconds| begun.elapsed() > Duration::from_secs(seconds))
}

fn said(variable: &str) -> Option<String> {
    std::env::var(variable).ok().filter(|said| !said.is_empty())
}

/// Where HAProxy runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Host,
    Container,
}

impl Place {
    fn said() -> Place {
        match said("COSMONAUT_TEST_PLACE").as_deref() {
            None | Some("host") => Place::Host,
            Some("container") => Place::Container,
            Some(other) => panic!("COSMONAUT_TEST_PLACE is host or container, not {other}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Place::Host => "host",
            Place::Container => "container",
        }
    }

    /// By what HAProxy can be told there; those that are wanted.
    fn ways(self) -> Vec<Way> {
        let all: &[Way] = match self {
            Place::Host => &[Way::Master, Way::Runtime],
            Place::Container => &[Way::Signal, Way::Master, Way::Runtime],
        };
        let wanted = said("COSMONAUT_TEST_WAYS");
        let is_wanted = |way: &&Way| {
            let wanted = wanted.as_deref();
            wanted.is_none_or(|wanted| wanted.split([' ', ',']).any(|one| one == way.name()))
        };
        all.iter().filter(is_wanted).copied().collect()
    }
}

/// By what HAProxy is told of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The script, which sends a signal.
    Signal,
    /// Its master socket.
    Master,
    /// Its runtime socket.
    Runtime,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Signal => "signal",
            Way::Master => "master",
            Way::Runtime => "runtime",
        }
    }
}

/// A HAProxy with its sockets.
enum Haproxy {
    Host(HostHaproxy),
    /// A container's name and address, and the folder of the sockets, which has the same path inside.
    Container(String, String, PathBuf),
}

impl Haproxy {
    fn address(&self) -> SocketAddr {
        match self {
            Haproxy::Host(haproxy) => SocketAddr::from(([127, 0, 0, 1], haproxy.port)),
            Haproxy::Container(_, ip, _) => format!("{ip}:80").parse().expect("an address"),
        }
    }

    fn socket(&self) -> PathBuf {
        match self {
            Haproxy::Host(haproxy) => haproxy.socket(),
            Haproxy::Container(_, _, folder) => folder.join("h.sock"),
        }
    }

    fn master(&self) -> PathBuf {
        match self {
            Haproxy::Host(haproxy) => haproxy.master(),
            Haproxy::Container(_, _, folder) => folder.join("m.sock"),
        }
    }

    fn servers(&self) -> Vec<String> {
        host_haproxy::servers(&self.socket())
    }

    /// How often it has loaded its file again, where there is a master's socket to ask.
    #[track_caller]
    fn reloads(&self) -> Option<u64> {
        let master = self.master();
        master.exists().then(|| host_haproxy::reloads(&master))
    }

    /// As it calls itself.
    fn version(&self) -> String {
        let info = ask(&self.socket(), "show info").unwrap_or_default();
        let version = info.lines().find_map(|line| line.strip_prefix("Version: "));
        version.unwrap_or("?").trim().to_owned()
    }
}

/// A HAProxy that serves containers of a real daemon, and clients at work.
struct Site {
    load: Option<Load>,
    watch: Option<Running>,
    haproxy: Haproxy,
    docker: Docker,
    network: String,
    sandbox: Sandbox,
    place: Place,
    way: Way,
    /// Rounds so far.
    played: usize,
}

impl Site {
    #[track_caller]
    fn new(name: &str, place: Place, way: Way, more: &[&str]) -> Option<Site> {
        if left_out("docker") || left_out("haproxy") {
            return None;
        }
        let sandbox = Sandbox::new(&format!("ll-{name}-{}", way.name()));
        let docker = Docker::shared();
        let network = docker.network("net");
        let haproxy = match place {
            Place::Host => Haproxy::Host(HostHaproxy::new(&sandbox.root, &sandbox.config_path())),
            Place::Container => {
                // HAProxy is another user in there: it reads one folder and has its sockets in the other.
                let run = sandbox.root.join("run");
                std::fs::create_dir(&run).expect("a folder for sockets");
                readable(&sandbox.state(), 0o755);
                readable(&run, 0o777);
                let base = host_haproxy::base(":80", &run.join("h.sock"), (2, 6));
                std::fs::write(sandbox.root.join("base.cfg"), base).expect("the base config");
                Haproxy::Container(docker.name("haproxy"), String::new(), run)
            }
        };
        let mut site = Site {
            load: None,
            watch: None,
            haproxy,
            docker,
            network,
            sandbox,
            place,
            way,
            played: 0,
        };
        for number in 0..4 {
            site.serve(&format!("n{number}"));
        }
        // Nobody is there to load it yet; another test's HAProxy may be, which the script finds odd.
        let options = site.options();
        let mut args = vec!["sync"];
        args.extend(options.iter().map(String::as_str));
        site.sandbox.bare(&args);
        site.start_haproxy();
        let mut watch = site.spawn_watch(more);
        watch.wait_log("1 service, 4 servers", SHOWN);
        site.watch = Some(watch);
        site.has(4);
        site.load = Some(Load::start(
            site.haproxy.address(),
            "web.example",
            &["/", "/", "/", "/cgi-bin/slow"],
            CLIENTS,
        ));
        Some(site)
    }

    fn spawn_watch(&self, more: &[&str]) -> Running {
        let options = self.options();
        let mut args = vec!["watch"];
        args.extend(options.iter().map(String::as_str));
        args.extend(more);
        self.sandbox.spawn(self.sandbox.command(&args))
    }

    #[track_caller]
    fn start_haproxy(&mut self) {
        match &mut self.haproxy {
            Haproxy::Host(haproxy) => haproxy.start(),
            Haproxy::Container(name, ip, run) => {
                let config = format!(
                    "{}:/usr/local/etc/haproxy:ro",
                    self.sandbox.state().display()
                );
                let run_volume = format!("{0}:{0}", run.display());
                let master = run.join("m.sock").display().to_string();
                let mut args = vec!["--network", &self.network, "-v", &config, "-v", &run_volume];
                let image = haproxy_image();
                args.extend(["--stop-signal", "SIGUSR1", &image]);
                if self.way != Way::Signal {
                    args.extend(["haproxy", "-S", &master]);
                    args.extend(["-f", "/usr/local/etc/haproxy/haproxy.cfg"]);
                }
                self.docker.start("haproxy", &args);
                *ip = self
                    .docker
                    .address(name, &self.network)
                    .expect("HAProxy's address");
                let socket = run.join("h.sock");
                wait_for("HAProxy's socket", SOON, || {
                    ask(&socket, "show info").filter(|info| info.contains("Pid:"))
                });
            }
        }
    }

    fn options(&self) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut all: Vec<String> = [
            "--docker-host",
            &self.docker.docker_host(),
            "--state-dir",
            &path(&self.sandbox.state()),
            "--keyword",
            &self.docker.prefix,
            "--weave",
            "never",
        ]
        .map(str::to_owned)
        .to_vec();
        // A container with a runtime socket has the base that is built in: its port is free in there.
        if self.place == Place::Host || self.way != Way::Runtime {
            let base = self.sandbox.root.join("base.cfg");
            all.extend(["--base".to_owned(), path(&base)]);
        }
        if let Haproxy::Container(name, _, _) = &self.haproxy {
            all.extend(["--haproxy-container".to_owned(), name.clone()]);
        }
        match self.way {
            Way::Signal => {}
            Way::Master => {
                all.extend(["--haproxy-master".to_owned(), path(&self.haproxy.master())])
            }
            Way::Runtime => {
                all.extend(["--haproxy-socket".to_owned(), path(&self.haproxy.socket())])
            }
        }
        all
    }

    /// An HTTP server that finishes what it accepted: told to stop, it serves on for a moment, then closes
    /// its door, then waits for the requests at work however long they take, and a moment more for their last
    /// packets: with the container its network goes, and what is still on its way through that is lost.
    fn serve(&self, rest: &str) {
        self.serve_as(rest, "web", Duration::ZERO);
    }

    /// The same, of this service, whose port is closed at first.
    fn serve_as(&self, rest: &str, service: &str, closed: Duration) {
        let command = format!(
            "mkdir -p /tmp/www/cgi-bin; echo hello >/tmp/www/index.html
printf '#!/bin/sh\\nsleep 0.3\\nprintf \"Content-Type: text/plain\\\\r\\\\nContent-Length: 4\\\\r\\\\n\\\\r\\\\nslow\"\\n' >/tmp/www/cgi-bin/slow
chmod 755 /tmp/www/cgi-bin/slow; sleep {}
httpd -f -p 8080 -h /tmp/www & trap 'sleep 0.5; kill $!; while pidof httpd >/tmp/left; do sleep 0.1; done; sleep 0.3; exit 0' TERM; wait",
            closed.as_secs()
        );
        let name = format!("SERVICE_NAME={service}");
        let predicate = format!("PREDICATE={service}.example");
        self.docker.start(
            rest,
            &[
                "--network",
                &self.network,
                "-e",
                &name,
                "-e",
                &predicate,
                "-e",
                "PORT=8080",
                BUSYBOX,
                "sh",
                "-c",
                &command,
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
            || {
                let has = self.haproxy.servers().len() == servers;
                if !has {
                    std::thread::sleep(LOOK_EVERY);
                }
                has.then_some(())
            },
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
    fn lost_nothing(mut self, what: &str, begun: Instant, before: Option<u64>) {
        let reloads = self.haproxy.reloads().zip(before);
        let reloads = reloads.map(|(now, before)| now - before);
        let tally = self.load.take().expect("the load").stop();
        self.report(what, &tally, reloads, begun.elapsed());
        let Tally {
            good,
            again,
            mut failed,
            ..
        } = tally;
        // An answer that has begun cannot be given by another container.
        if what == "kill" {
            let begun: u64 = failed.values().sum();
            failed.retain(|how, _| !how.contains("closed after") || how.contains("after 0 bytes"));
            assert!(
                begun <= (self.played * CLIENTS * 2) as u64,
                "{what}: {begun} answers"
            );
        }
        if closes_after_answers(&self.haproxy.version()) {
            assert_eq!(again, 0, "{what}: of {good} asked again");
        }
        let watch = self.watch.take().expect("the watch");
        let said = watch.stderr();
        watch.stop();
        assert!(
            failed.is_empty(),
            "{what}: {good} good, failed: {failed:?}\n{said}"
        );
        assert!(good > 100, "{what}: only {good} requests");
        if self.way == Way::Runtime && adds_servers(&self.haproxy.version()) {
            assert_eq!(reloads.unwrap_or(0), 0, "{what}: reloads");
        }
    }

    /// One line of what was measured.
    fn report(&self, what: &str, tally: &Tally, reloads: Option<u64>, took: Duration) {
        let or_none = |text: String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text
            }
        };
        let failed: Vec<String> = tally
            .failed
            .iter()
            .map(|(how, count)| format!("{count} {how}"))
            .collect();
        let fields = [
            self.haproxy.version(),
            self.place.name().to_owned(),
            self.way.name().to_owned(),
            what.to_owned(),
            self.played.to_string(),
            (tally.good + tally.failed.values().sum::<u64>()).to_string(),
            tally.failed.values().sum::<u64>().to_string(),
            tally.again.to_string(),
            or_none(reloads.map(|count| count.to_string()).unwrap_or_default()),
            tally.within(0.5).to_string(),
            tally.within(0.999).to_string(),
            tally.within(1.0).to_string(),
            took.as_secs().to_string(),
            or_none(failed.join("; ")),
        ];
        write_down(&fields);
    }
}

/// Says it, and adds it to the report.
fn write_down(fields: &[String]) {
    let line = fields.join("\t");
    println!("{line}");
    let Some(report) = said("COSMONAUT_REPORT") else {
        return;
    };
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&report);
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    written.unwrap_or_else(|error| panic!("COSMONAUT_REPORT={report}: {error}"));
}

fn readable(folder: &Path, mode: u32) {
    let mode = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(folder, mode).expect("chmod");
}

/// Whether this version of HAProxy adds servers at run time.
fn adds_servers(version: &str) -> bool {
    numbers(version) >= (2, 6)
}

fn numbers(version: &str) -> (u32, u32) {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether this version closes a kept connection after an answer only, however often it is reloaded
/// (`option idle-close-on-response`).
fn closes_after_answers(version: &str) -> bool {
    numbers(version) >= (2, 5)
}

/// Plays rounds of one kind, in each way that there is.
#[track_caller]
fn play(what: &str, round: impl Fn(&Site, usize)) {
    play_in(Place::said(), what, round);
}

#[track_caller]
fn play_in(place: Place, what: &str, round: impl Fn(&Site, usize)) {
    for way in place.ways() {
        let Some(mut site) = Site::new(what, place, way, &[]) else {
            return;
        };
        let reloads = site.haproxy.reloads();
        let begun = Instant::now();
        for number in 0..rounds() {
            round(&site, number);
            site.played += 1;
            if is_over(begun) {
                break;
            }
        }
        site.lost_nothing(what, begun, reloads);
    }
}

fn stop_and_start_one(site: &Site, number: usize) {
    let one = format!("n{}", number % 4);
    site.run(&["stop"], &one);
    site.has(3);
    site.run(&["start"], &one);
    site.has(4);
}

fn replace_all(site: &Site, number: usize) {
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
}

#[test]
fn stop_and_start() {
    play("stop", stop_and_start_one);
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
    play("rolling", replace_all);
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

/// The same with HAProxy in a container, by each way to tell it; all kinds with `COSMONAUT_TEST_PLACE=container`.
#[test]
fn in_a_container() {
    if Place::said() == Place::Host {
        play_in(Place::Container, "stop", stop_and_start_one);
        play_in(Place::Container, "rolling", replace_all);
    }
}

/// `watch` is killed again and again, between any two steps of what it does: the file on disk always starts,
/// HAProxy serves on, and the next life makes good what the last one owed.
#[test]
fn watch_is_killed_between_any_two_steps() {
    for way in Place::said().ways() {
        let Some(mut site) = Site::new("killed", Place::said(), way, &[]) else {
            return;
        };
        let begun = Instant::now();
        for number in 0..rounds() * LIVES {
            // Stopped, then started: one of four is out at a time.
            let one = format!("n{}", number / 2 % 4);
            let command = if number % 2 == 0 { "stop" } else { "start" };
            let mut watch = site.watch.take().expect("the watch");
            std::thread::scope(|scope| {
                scope.spawn(|| site.run(&[command], &one));
                // From before the event to after the end of the pass.
                std::thread::sleep(Duration::from_millis(37 * (number as u64 * 7 % 20)));
                watch.kill();
            });
            let checked = Command::new(host_haproxy::program())
                .args(["-c", "-q", "-f"])
                .arg(site.sandbox.config_path())
                .status();
            assert!(
                checked.is_ok_and(|status| status.success()),
                "{}",
                site.sandbox.config()
            );
            site.watch = Some(site.spawn_watch(&[]));
            if number % 2 == 1 {
                site.has(4);
                site.played += 1;
            }
        }
        site.lost_nothing("watch killed", begun, None);
    }
}

/// What reloads alone cost, without a change.
#[test]
fn reloads_alone() {
    for way in Place::said().ways() {
        if way != Way::Master {
            continue;
        }
        let Some(mut site) = Site::new("alone", Place::said(), way, &[]) else {
            return;
        };
        let reloads = site.haproxy.reloads();
        let begun = Instant::now();
        for _ in 0..rounds() {
            let before = site.haproxy.reloads();
            ask(&site.haproxy.master(), "reload");
            wait_for("the reload", SHOWN, || {
                (site.haproxy.reloads() > before).then_some(())
            });
            std::thread::sleep(Duration::from_millis(300));
            site.played += 1;
            if is_over(begun) {
                break;
            }
        }
        site.lost_nothing("reload", begun, reloads);
    }
}

/// A container whose port is closed for 3 s after its start, beside four that serve: nobody notices.
#[test]
fn a_slow_starter_among_others() {
    for ready in ["0", "10s"] {
        for way in Place::said().ways() {
            let what = format!("slow starter among four, --ready {ready}");
            let name = format!("among{ready}");
            let Some(mut site) = Site::new(&name, Place::said(), way, &["--ready", ready]) else {
                return;
            };
            let reloads = site.haproxy.reloads();
            let begun = Instant::now();
            for number in 0..rounds().div_ceil(2).min(SLOW_ROUNDS_MAX) {
                site.played += 1;
                let one = format!("s{number}");
                site.serve_as(&one, "web", SLOW);
                site.has(5);
                std::thread::sleep(SLOW + Duration::from_secs(2));
                site.run(&["stop"], &one);
                site.run(&["rm"], &one);
                site.has(4);
            }
            site.lost_nothing(&what, begun, reloads);
        }
    }
}

/// The same where it is all that its service has: until it answers there is nobody who could.
#[test]
fn a_slow_starter_alone() {
    for ready in ["0", "10s"] {
        for way in Place::said().ways() {
            let name = format!("only{ready}");
            let Some(mut site) = Site::new(&name, Place::said(), way, &["--ready", ready]) else {
                return;
            };
            let (mut tally, mut waits) = (Tally::default(), Vec::new());
            let begun = Instant::now();
            for number in 0..rounds().div_ceil(2).min(SLOW_ROUNDS_MAX) {
                site.played += 1;
                let one = format!("late{number}");
                site.serve_as(&one, &format!("late{number}"), SLOW);
                let started = Instant::now();
                let host = format!("late{number}.example");
                let load = Load::start(site.haproxy.address(), &host, &["/"], CLIENTS);
                wait_for("its first answer", SHOWN, || {
                    (load.tally().good > 0).then_some(())
                });
                waits.push(started.elapsed().saturating_sub(SLOW).as_millis());
                std::thread::sleep(Duration::from_secs(2));
                let mut one = load.stop();
                tally.good += one.good;
                tally.again += one.again;
                for (ms, count) in std::mem::take(&mut one.took) {
                    *tally.took.entry(ms).or_default() += count;
                }
                for (how, count) in one.failed {
                    *tally.failed.entry(how).or_default() += count;
                }
            }
            waits.sort_unstable();
            let what = format!(
                "slow starter alone, --ready {ready}: first answer {} to {} ms after its port opened",
                waits.first().unwrap_or(&0),
                waits.last().unwrap_or(&0)
            );
            site.report(&what, &tally, None, begun.elapsed());
            // Nobody is there: that is said, and nothing else.
            let other: BTreeMap<_, _> = tally
                .failed
                .iter()
                .filter(|(how, _)| !how.contains("status 503"))
                .collect();
            assert!(other.is_empty(), "{what}: {other:?}");
            assert!(*waits.last().unwrap_or(&0) < 10_000, "{what}");
            // Others have not noticed.
            let others = site.load.take().expect("the load").stop();
            assert!(others.failed.is_empty(), "{what}: {:?}", others.failed);
        }
    }
}
