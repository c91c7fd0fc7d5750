//! The same on a real Docker daemon, and with a real HAProxy on this host.
//!
//! Times are from the event's own `timeNano`. Containers carry the label that `scripts/bench` removes by.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::floor::{shell, timed};
use crate::folder::Folder;
use crate::once;
use crate::table::{Row, Unit, median};
use crate::tool::{Kind, Programs, Tool};
use crate::yardstick;

/// After this long without a change the next one counts as a lone one.
const CALM: Duration = Duration::from_millis(2200);
/// How long anything may take to show.
const SHOWN: Duration = Duration::from_secs(30);
/// Docker commands that run at a time.
const WORKERS: usize = 4;
/// Containers of a burst, and how long its starts take.
const BURST: (usize, Duration) = (20, Duration::from_secs(3));
/// Bursts that a median is of.
const BURSTS: usize = 5;
/// What the yardstick's lone change takes when the daemon does nothing else, at 20 containers.
const CALM_CHANGE_MS: f64 = 2.0;

/// The daemon, as this run sees it.
pub struct Site {
    host: String,
    socket: PathBuf,
    label: String,
    prefix: String,
}

impl Site {
    /// From what `scripts/bench` sets.
    pub fn from_environment() -> Site {
        let host = std::env::var("DOCKER_HOST")
            .unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let socket = host
            .strip_prefix("unix://")
            .expect("a daemon on a Unix socket")
            .into();
        let label = std::env::var("COSMONAUT_BENCH_LABEL")
            .expect("scripts/bench sets COSMONAUT_BENCH_LABEL");
        Site {
            host,
            socket,
            label,
            prefix: format!("bench{}", std::process::id()),
        }
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output = Command::new("docker")
            .env("DOCKER_HOST", &self.host)
            .args(arguments)
            .output()
            .expect("docker");
        assert!(
            output.status.success(),
            "docker {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// `create` or `run -d` of a container of a service.
    fn make(&self, how: &[&str], service: &str, name: &str) -> String {
        let full = format!("{}-{name}", self.prefix);
        let (service, host) = (
            format!("SERVICE_NAME={service}"),
            format!("PREDICATE={service}.example.com"),
        );
        let mut arguments = how.to_vec();
        arguments.extend([
            "--label",
            &self.label,
            "--name",
            &full,
            "-e",
            &service,
            "-e",
            &host,
            "-e",
            "PORT=8080",
        ]);
        arguments.extend([
            "cosmonaut-test/busybox",
            "httpd",
            "-f",
            "-p",
            "8080",
            "-h",
            "/etc",
        ]);
        self.docker(&arguments)
    }

    fn remove(&self, names: &[String]) {
        for names in names.chunks(20) {
            let mut arguments = vec!["rm", "-f", "-v"];
            let names: Vec<String> = names
                .iter()
                .map(|name| format!("{}-{name}", self.prefix))
                .collect();
            arguments.extend(names.iter().map(String::as_str));
            self.docker(&arguments);
        }
    }

    /// Starts that many containers, some at a time.
    fn run_all(&self, names: &[String]) {
        std::thread::scope(|scope| {
            for share in names.chunks(names.len().div_ceil(WORKERS).max(1)) {
                scope.spawn(move || {
                    share
                        .iter()
                        .for_each(|name| drop(self.make(&["run", "-d"], name, name)))
                });
            }
        });
    }

    /// Follows the daemon: action, id and time of each start, kill and die.
    fn events(&self) -> Receiver<Told> {
        let mut stream = UnixStream::connect(&self.socket).expect("the daemon");
        let path = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22start%22%2C%22kill%22%2C%22die%22%5D%7D";
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .expect("the daemon");
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let Ok(event) = serde_json::from_str::<serde_json::Value>(&line) else {
                    continue;
                };
                let text =
                    |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                if let Some(at) = event["timeNano"].as_u64() {
                    let _ = sender.send((
                        text(&event["Action"]),
                        text(&event["Actor"]["ID"]),
                        u128::from(at),
                    ));
                }
            }
        });
        receiver
    }

    fn watch(&self, programs: &Programs, extra: &[&str]) -> Tool {
        let folder = Folder::new("real");
        let mut command = Command::new(&programs.cosmonaut);
        command.args([
            "watch",
            "--weave",
            "never",
            "-H",
            &self.host,
            "-k",
            &self.prefix,
            "--config",
        ]);
        command
            .arg(folder.join("haproxy.cfg"))
            .arg("--state-dir")
            .arg(folder.join("state"))
            .args(extra);
        command.arg("--script").arg(&programs.script);
        let tool = Tool::start(command, folder);
        tool.settle();
        tool
    }
}

type Told = (String, String, u128);

/// Waits for one container's event; its time. Others are held for later.
fn event_of(held: &mut Vec<Told>, events: &Receiver<Told>, action: &str, id: &str) -> u128 {
    let until = Instant::now() + SHOWN;
    loop {
        if let Some(at) = held
            .iter()
            .position(|(what, who, _)| what == action && who == id)
        {
            return held.remove(at).2;
        }
        let left = until.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(told) => held.push(told),
            Err(_) => panic!("the daemon tells no {action} of {id}"),
        }
    }
}

fn nanos(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos()
}

fn since(event: u128, clock: u128) -> f64 {
    (clock as f64 - event as f64) / 1e6
}

/// `wanted` says which of `real`, `burst` and `served` are to be measured.
pub fn rows(programs: &Programs, runs: usize, wanted: &dyn Fn(&str) -> bool) -> Vec<Row> {
    let site = Site::from_environment();
    let mut rows = Vec::new();
    let names: Vec<String> = (0..100).map(|n| format!("s{n:03}")).collect();
    let (few, more) = names.split_at(20);
    site.run_all(few);
    if wanted("served") {
        rows.extend(served(&site, programs, runs));
    }
    if wanted("burst") {
        rows.extend(burst(&site, programs));
    }
    if wanted("real") {
        rows.extend(sync(&site, programs, 20, runs));
        rows.extend(lone(&site, programs, 20, runs));
        site.run_all(more);
        rows.extend(sync(&site, programs, 100, runs));
        rows.extend(lone(&site, programs, 100, runs));
        site.remove(more);
    }
    site.remove(few);
    rows
}

/// One pass, beside a list and an inspect of each over one raw connection.
fn sync(site: &Site, programs: &Programs, count: usize, runs: usize) -> Vec<Row> {
    let (mut floor, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        floor.extend(timed(1, || {
            let mut connection = UnixStream::connect(&site.socket).expect("the daemon");
            for id in yardstick::list(&mut connection).expect("a list") {
                yardstick::get(&mut connection, &format!("/containers/{id}/json"))
                    .expect("an inspect");
            }
            shell();
            shell();
        }));
        let folder = Folder::new("sync");
        let mut command = programs.command(Kind::Cosmonaut, "sync", &site.host, &folder);
        command.args(["-k", &site.prefix]);
        ours.push(once::run(command).0);
    }
    let what = format!("real Docker: sync, {count} containers: wall");
    let budget = if count == 20 { 15.0 } else { 50.0 };
    vec![
        Row::new(&format!("real-sync-{count}"), &what, Unit::Ms, ours)
            .floor(median(&floor), 2.0)
            .budget(budget),
    ]
}

/// A lone start and a lone end, from the daemon's time of the event to the file. A container leaves the file with
/// the signal that ends it: its `die` comes later.
///
/// The floor is the yardstick on the same daemon, in turn with ours (the other one is stopped meanwhile): while a
/// container starts or ends, the daemon, its shim, runc and the kernel keep the processors and the disk busy, and
/// whoever forks, waits for the disk and renames then takes longer than in a calm moment. That difference, measured
/// on the yardstick, is added to the budget.
fn lone(site: &Site, programs: &Programs, count: usize, runs: usize) -> Vec<Row> {
    let tool = site.watch(programs, &["--resync", "0"]);
    let folder = Folder::new("real-floor");
    let command = programs.command(Kind::Yardstick, "watch", &site.host, &folder);
    let yardstick = Tool::start(command, folder);
    let events = site.events();
    let mut samples: [[Vec<f64>; 2]; 2] = Default::default();
    for _ in 0..runs {
        for (who, measured, other) in [(0, &yardstick, &tool), (1, &tool, &yardstick)] {
            other.pause(true);
            measured.pause(false);
            // Another one each time: one that starts again and again is held out, and its kill changes nothing.
            let id = site.make(&["create"], "lone", "lone");
            for (what, action) in ["start", "kill"].into_iter().enumerate() {
                std::thread::sleep(CALM);
                measured.replaced.count();
                let watched = std::thread::scope(|scope| {
                    let replaced = scope.spawn(|| measured.replaced.wait(SHOWN));
                    site.docker(&[action, &id]);
                    replaced.join().expect("waited")
                });
                let at = event_of(&mut Vec::new(), &events, action, &id);
                let took = watched.map_or(f64::INFINITY, |moment| since(at, nanos(moment.clock)));
                samples[who][what].push(took);
            }
            site.remove(&["lone".to_owned()]);
        }
    }
    yardstick.pause(false);
    for (tool, samples) in [&yardstick, &tool].into_iter().zip(&samples) {
        if samples.iter().flatten().any(|sample| sample.is_infinite()) {
            eprintln!(
                "{:?} missed a change; it says: {}",
                tool.folder.0,
                tool.log()
            );
        }
    }
    let path = format!("/containers/{}-s000/json", site.prefix);
    let mut connection = UnixStream::connect(&site.socket).expect("the daemon");
    let inspect = timed(runs, || drop(yardstick::get(&mut connection, &path)));
    let file = tool.folder.join("floor.cfg");
    let bytes = tool.config();
    let write = median(&timed(runs, || {
        let _ = yardstick::replace(&file, bytes.as_bytes(), &|_| {
            shell();
            Ok(())
        });
    }));
    let [floors, ours] = samples;
    let calm = [median(&inspect) + write, write];
    let rows = ["start", "kill"].into_iter().zip(floors.iter().zip(ours));
    rows.zip(calm)
        .map(|((what, (floor, ours)), calm)| {
            let floor = median(floor);
            Row::new(
                &format!("real-{what}-{count}"),
                &format!("real Docker: lone {what} to file, {count} containers"),
                Unit::Ms,
                ours,
            )
            .floor(floor, 2.5)
            .budget(4.0 + (floor - calm).max(0.0))
        })
        .collect()
}

/// What bursts of one kind came to.
#[derive(Default)]
struct Bursts {
    wrong: Vec<f64>,
    writes: Vec<f64>,
    first: Vec<f64>,
    last: Vec<f64>,
}

/// 20 starts in 3 s, then 20 kills as fast as it goes; some times, since the first change is one moment of each.
///
/// The first change of the yardstick, in turn with ours, tells what the machine needs for one while the daemon starts
/// or ends four containers at a time; what that is more than the lone change of a calm moment is added to the budget.
fn burst(site: &Site, programs: &Programs) -> Vec<Row> {
    let tool = site.watch(programs, &["--resync", "0"]);
    let folder = Folder::new("burst-floor");
    let command = programs.command(Kind::Yardstick, "watch", &site.host, &folder);
    let yardstick = Tool::start(command, folder);
    let events = site.events();
    let names: Vec<String> = (0..BURST.0).map(|n| format!("burst{n:02}")).collect();
    let ids: Vec<String> = names
        .iter()
        .map(|name| site.make(&["create"], name, name))
        .collect();
    let mut held = Vec::new();
    let kinds = [("start", BURST.1 / 20), ("kill", Duration::ZERO)];
    let mut bursts: [[Bursts; 2]; 2] = Default::default();
    for _ in 0..BURSTS {
        for (who, measured, other) in [(0, &yardstick, &tool), (1, &tool, &yardstick)] {
            other.pause(true);
            measured.pause(false);
            for (kind, (action, pace)) in kinds.into_iter().enumerate() {
                std::thread::sleep(CALM);
                let moments = one_burst(site, measured, action, pace, &ids);
                let times: Vec<u128> = ids
                    .iter()
                    .map(|id| event_of(&mut held, &events, action, id))
                    .collect();
                let (first, last) = (
                    times.iter().min().copied().unwrap_or(0),
                    times.iter().max().copied().unwrap_or(0),
                );
                let right = names
                    .iter()
                    .filter(|name| measured.config().contains(&format!("be_{name}")))
                    .count();
                let wanted = if action == "start" { BURST.0 } else { 0 };
                let late = |moment: Option<&u128>, since: u128| {
                    moment.map_or(f64::INFINITY, |at| self::since(since, *at))
                };
                let bursts = &mut bursts[who][kind];
                bursts.wrong.push(right.abs_diff(wanted) as f64);
                bursts.writes.push(moments.len() as f64);
                bursts.first.push(late(moments.first(), first));
                bursts.last.push(late(moments.last(), last).max(0.0));
            }
        }
    }
    yardstick.pause(false);
    let mut rows = Vec::new();
    let [floors, ours] = bursts;
    for ((action, _), (floor, ours)) in kinds.into_iter().zip(floors.into_iter().zip(ours)) {
        let id = |what: &str| format!("burst-{action}-{what}");
        let what = |what: &str| format!("real burst of 20, {action}: {what}");
        let first = median(&floor.first);
        rows.extend([
            Row::new(
                &id("wrong"),
                &what("wrong at the end"),
                Unit::Count,
                ours.wrong,
            )
            .worst()
            .budget(0.0),
            Row::new(&id("writes"), &what("writes"), Unit::Count, ours.writes).budget(6.0),
            Row::new(&id("first"), &what("first change"), Unit::Ms, ours.first)
                .floor(first, 3.0)
                .budget(10.0 + (first - CALM_CHANGE_MS).max(0.0)),
            // Our own waits decide this, not the machine.
            Row::new(
                &id("last"),
                &what("right after the last"),
                Unit::Ms,
                ours.last,
            )
            .floor(300.0, 1.5)
            .budget(300.0),
        ]);
    }
    site.remove(&names);
    rows
}

/// Does that to all of these containers; when the file was replaced, by the clock.
fn one_burst(site: &Site, tool: &Tool, action: &str, pace: Duration, ids: &[String]) -> Vec<u128> {
    tool.replaced.count();
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut moments = Vec::new();
            while let Some(moment) =
                tool.replaced
                    .wait(if moments.is_empty() { SHOWN } else { CALM })
            {
                moments.push(nanos(moment.clock));
            }
            moments
        });
        for worker in 0..WORKERS {
            scope.spawn(move || {
                for (n, id) in ids.iter().enumerate().skip(worker).step_by(WORKERS) {
                    let at = begun + pace * u32::try_from(n).unwrap_or_default();
                    std::thread::sleep(at.saturating_duration_since(Instant::now()));
                    site.docker(&[action, id]);
                }
            });
        }
        watching.join().expect("watched")
    })
}

/// A real HAProxy in master mode on this host.
struct Haproxy {
    child: Child,
    port: u16,
    socket: PathBuf,
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        let _ = self.child.wait();
    }
}

fn haproxy() -> &'static str {
    ["/usr/sbin/haproxy", "/usr/local/sbin/haproxy"]
        .into_iter()
        .find(|path| Path::new(path).exists())
        .unwrap_or("haproxy")
}

impl Haproxy {
    /// The operator's part of the config: a bind of our own and a socket.
    fn base(folder: &Path, port: u16) -> String {
        format!(
            "global\n    maxconn 1000\n    stats socket {}/haproxy.sock mode 600 level admin expose-fd listeners\n    stats timeout 30s\n\
             defaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
             frontend web\n    bind 127.0.0.1:{port}\n",
            folder.display()
        )
    }

    fn start(folder: &Path, port: u16) -> Haproxy {
        let log = std::fs::File::create(folder.join("haproxy.log")).expect("a log");
        let child = Command::new(haproxy())
            .args(["-W", "-db", "-f"])
            .arg(folder.join("haproxy.cfg"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("haproxy starts");
        let haproxy = Haproxy {
            child,
            port,
            socket: folder.join("haproxy.sock"),
        };
        let until = Instant::now() + SHOWN;
        while haproxy.worker().is_none() {
            assert!(
                Instant::now() < until,
                "HAProxy does not answer: {}",
                std::fs::read_to_string(folder.join("haproxy.log")).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        haproxy
    }

    /// The pid of the worker that answers.
    fn worker(&self) -> Option<String> {
        let mut socket = UnixStream::connect(&self.socket).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
        socket.write_all(b"show info\n").ok()?;
        let mut text = String::new();
        socket.read_to_string(&mut text).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pid: "))
            .map(str::to_owned)
    }

    /// A reload until a new worker answers.
    fn reload(&self) {
        let before = self.worker();
        let _ = Command::new("kill")
            .args(["-USR2", &self.child.id().to_string()])
            .status();
        let until = Instant::now() + SHOWN;
        while self.worker().is_none_or(|now| Some(now) == before) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether a request for this host is served.
    fn serves(&self, host: &str) -> bool {
        let ask = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            stream.write_all(
                format!("GET /passwd HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
                    .as_bytes(),
            )?;
            let mut head = [0; 12];
            stream.read_exact(&mut head)?;
            Ok(&head == b"HTTP/1.1 200" || &head == b"HTTP/1.0 200")
        };
        ask().unwrap_or(false)
    }
}

/// A HAProxy of its own, and who keeps its config.
struct Side {
    folder: Folder,
    haproxy: Haproxy,
    keeper: Keeper,
}

impl Side {
    /// A HAProxy with the operator's part of a config, and a folder for the rest.
    fn haproxy(name: &str) -> (Folder, Haproxy) {
        let folder = Folder::new(name);
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|any| any.local_addr())
            .map(|address| address.port())
            .expect("a port");
        let base = Haproxy::base(&folder.0, port);
        std::fs::write(folder.join("base.cfg"), &base).expect("a base");
        std::fs::write(folder.join("haproxy.cfg"), &base).expect("a config");
        let haproxy = Haproxy::start(&folder.0, port);
        (folder, haproxy)
    }

    /// The yardstick, with the least that a script can do: the same check, and the signal.
    fn of_yardstick(site: &Site, programs: &Programs) -> Side {
        let (folder, haproxy) = Side::haproxy("served-floor");
        let script = folder.join("script");
        let text = format!(
            "#!/bin/sh\ncase $1 in check) exec {} -W -c -f \"$2\" ;; reload) kill -USR2 {} ;; esac\n",
            self::haproxy(),
            haproxy.child.id()
        );
        std::fs::write(&script, text).expect("a script");
        let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(&script, mode).expect("chmod");
        let mut command = Command::new(&programs.bench);
        command.args(["yardstick", "watch"]).arg(&site.socket);
        command.arg(folder.join("haproxy.cfg")).arg(&script);
        command.arg(folder.join("base.cfg"));
        let keeper = Keeper::start(command, &folder);
        Side {
            folder,
            haproxy,
            keeper,
        }
    }

    /// Ours, with the built-in script and the runtime socket.
    fn of_cosmonaut(site: &Site, programs: &Programs) -> Side {
        let (folder, haproxy) = Side::haproxy("served");
        let mut command = Command::new(&programs.cosmonaut);
        command.args(["watch", "--weave", "never", "--resync", "0"]);
        command.args(["-H", &site.host, "-k", &site.prefix, "--config"]);
        command.arg(folder.join("haproxy.cfg"));
        command.arg("--base").arg(folder.join("base.cfg"));
        command.arg("--state-dir").arg(folder.join("state"));
        command.arg("--haproxy-socket").arg(&haproxy.socket);
        let keeper = Keeper::start(command, &folder);
        Side {
            folder,
            haproxy,
            keeper,
        }
    }
}

/// From a container's start until something holds; milliseconds from the daemon's time of the event.
fn start_until(
    site: &Site,
    events: &Receiver<Told>,
    id: &str,
    ready: impl Fn() -> bool + Sync,
) -> f64 {
    let shown = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let until = Instant::now() + SHOWN;
            while Instant::now() < until {
                if ready() {
                    return Some(nanos(SystemTime::now()));
                }
                std::thread::sleep(Duration::from_micros(500));
            }
            None
        });
        site.docker(&["start", id]);
        asking.join().expect("asked")
    });
    let at = event_of(&mut Vec::new(), events, "start", id);
    shown.map_or(f64::INFINITY, |shown| since(at, shown))
}

/// So many times as many runs, each with HAProxys of their own: a start of HAProxy takes 30 ms or 50 by chance, and two
/// of them are in each sample, ours and the floor's. The medians of nine of each differ by 20 ms for one and the same
/// program.
const SERVED_ROUNDS: usize = 3;

/// From a start to the first request that is served: a new service is a reload, one more instance of a service
/// is a matter of the runtime socket.
///
/// The floor of the reload is the yardstick, in turn with ours, each with a HAProxy of its own: what a check and a
/// reload take while the daemon has just started a container, and not in a calm moment.
fn served(site: &Site, programs: &Programs, runs: usize) -> Vec<Row> {
    let sides = || {
        (
            Side::of_yardstick(site, programs),
            Side::of_cosmonaut(site, programs),
        )
    };
    let (mut floor, mut ours) = sides();
    std::thread::sleep(CALM);
    let calm = calm(&ours, runs);
    std::thread::sleep(CALM);
    let events = site.events();
    let mut samples: [Vec<f64>; 2] = Default::default();
    for run in 0..runs * SERVED_ROUNDS {
        if run > 0 && run % runs == 0 {
            (floor, ours) = sides();
            std::thread::sleep(CALM);
        }
        for (who, measured, other) in [(0, &floor, &ours), (1, &ours, &floor)] {
            other.keeper.pause(true);
            measured.keeper.pause(false);
            std::thread::sleep(CALM);
            let name = format!("served{run:02}-{who}");
            let id = site.make(&["create"], &name, &name);
            let host = format!("{name}.example.com");
            let ready = || measured.haproxy.serves(&host);
            samples[who].push(start_until(site, &events, &id, ready));
            site.remove(&[name]);
        }
    }
    floor.keeper.pause(true);
    let mut by_socket = Vec::new();
    for run in 0..runs {
        std::thread::sleep(CALM);
        // A container of its own makes each start one of a server that HAProxy does not know.
        let name = format!("more{run:02}");
        let id = site.make(&["create"], "s000", &name);
        let ready = || ours.haproxy.has_server(id.get(..12).unwrap_or(&id));
        by_socket.push(start_until(site, &events, &id, ready));
        site.remove(&[name]);
    }
    // The server is added before the check: an inspect, and four words with HAProxy.
    let path = format!("/containers/{}-s000/json", site.prefix);
    let mut connection = UnixStream::connect(&site.socket).expect("the daemon");
    let words = timed(runs, || {
        let _ = yardstick::get(&mut connection, &path);
        (0..4).for_each(|_| drop(ours.haproxy.worker()));
    });
    for (side, missed) in [
        (&floor, samples[0].as_slice()),
        (&ours, samples[1].as_slice()),
        (&ours, by_socket.as_slice()),
    ] {
        if missed.iter().any(|sample| sample.is_infinite()) {
            eprintln!("{:?}: {}", side.folder.0, side.keeper.log());
        }
    }
    let [floors, samples] = samples;
    let floor = median(&floors);
    let mut rows = calm;
    let what = "start to first request served, check and verified reload";
    rows.push(
        Row::new("served", what, Unit::Ms, samples)
            .floor(floor, 1.5)
            .budget(floor + 10.0),
    );
    let what = "start to a server that is up, runtime socket";
    rows.push(
        Row::new("served-socket", what, Unit::Ms, by_socket)
            .floor(median(&words), 10.0)
            .budget(10.0),
    );
    rows
}

/// What HAProxy's own check and reload take when nothing else happens.
fn calm(side: &Side, runs: usize) -> Vec<Row> {
    let config = side.folder.join("haproxy.cfg");
    let check = timed(runs, || {
        let status = Command::new(self::haproxy())
            .arg("-c")
            .arg("-f")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "haproxy -c refuses the config"
        );
    });
    // A master that has hardly loaded its file ignores the next signal.
    let reload = (0..runs).flat_map(|_| {
        std::thread::sleep(Duration::from_millis(300));
        timed(1, || side.haproxy.reload())
    });
    let reload = reload.collect();
    vec![
        Row::new("floor-check", "haproxy -c, 20 services", Unit::Ms, check),
        Row::new(
            "floor-reload",
            "reload until a new worker answers, 20 services",
            Unit::Ms,
            reload,
        ),
    ]
}

impl Haproxy {
    /// Whether this server of any backend is up.
    fn has_server(&self, name: &str) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut socket = UnixStream::connect(&self.socket)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            socket.write_all(b"show stat -1 4 -1\n")?;
            let mut text = String::new();
            socket.read_to_string(&mut text)?;
            Ok(text)
        };
        let text = ask().unwrap_or_default();
        text.lines().any(|line| {
            line.split(',')
                .nth(1)
                .is_some_and(|server| server.contains(name))
                && line.contains(",UP")
        })
    }
}

/// A program that keeps the config of a HAProxy in a folder that others use, too.
struct Keeper(Child, PathBuf);

impl Keeper {
    fn start(mut command: Command, folder: &Folder) -> Keeper {
        let log = folder.join("keeper.log");
        let file = std::fs::File::create(&log).expect("a log");
        let child = command
            .env("COSMONAUT_LOG", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("it starts");
        Keeper(child, log)
    }

    /// Stops it while another is measured, or lets it go on: what it missed it finds in its socket.
    fn pause(&self, pause: bool) {
        crate::process::pause(&self.0, pause);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.1).unwrap_or_default()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
