//! Measures cosmonaut against its budgets, beside what this machine needs at least for the same work.
//!
//! `scripts/bench` builds it and passes its arguments on. Everything is measured from outside, on the real
//! binary; only rendering is called directly. The daemon is a fake one unless a row says `real`.

mod away;
mod chart;
mod daemon;
mod fleet;
mod floor;
mod folder;
mod instructions;
mod once;
mod packages;
mod process;
mod real;
mod render;
mod size;
mod storm;
mod table;
mod tool;
mod yardstick;

use std::path::PathBuf;
use std::process::ExitCode;

use daemon::{Container, Daemon};
use folder::Folder;
use table::{Row, Verdict};
use tool::Programs;

/// Fewest runs of which a median is told.
const RUNS: usize = 9;

/// `n` containers, each of a service of its own.
fn daemon_of(n: usize) -> Vec<Container> {
    (0..n).map(|n| Container::new(n, true)).collect()
}

/// A daemon on a socket of its own.
fn daemon(containers: Vec<Container>) -> Daemon {
    // Its folder lives as long as this process; it is removed with the others by `scripts/bench`.
    let folder = std::mem::ManuallyDrop::new(Folder::new("docker"));
    Daemon::new(&folder.join("docker.sock"), containers)
}

struct Arguments {
    cosmonaut: PathBuf,
    quick: bool,
    json: bool,
    only: Vec<String>,
    runs: usize,
    /// Other builds, `name=path`, of which only the size counts.
    binaries: Vec<String>,
    /// Where the chart goes.
    chart: Option<PathBuf>,
    write_baseline: bool,
}

fn arguments(given: &[String]) -> Result<Arguments, String> {
    let mut arguments = Arguments {
        cosmonaut: PathBuf::new(),
        quick: false,
        json: false,
        only: Vec::new(),
        runs: RUNS,
        binaries: Vec::new(),
        chart: None,
        write_baseline: false,
    };
    let mut given = given.iter();
    while let Some(argument) = given.next() {
        let mut value = || given.next().ok_or(format!("{argument} wants a value"));
        match argument.as_str() {
            "--cosmonaut" => arguments.cosmonaut = value()?.into(),
            "--only" => arguments.only.push(value()?.clone()),
            "--runs" => arguments.runs = value()?.parse().map_err(|e| format!("--runs: {e}"))?,
            "--binary" => arguments.binaries.push(value()?.clone()),
            "--chart" => arguments.chart = Some(value()?.into()),
            "--write-baseline" => arguments.write_baseline = true,
            "--quick" => arguments.quick = true,
            "--json" => arguments.json = true,
            // What cargo adds.
            "--bench" => {}
            other => {
                return Err(format!(
                    "unknown argument {other}; there are --quick, --json, --only ROW, --runs N, --chart FILE, --write-baseline"
                ));
            }
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    end_with_the_first_panic();
    let given: Vec<String> = std::env::args().skip(1).collect();
    if given.first().is_some_and(|first| first == "yardstick") {
        return match yardstick::run(&given[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("yardstick: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if let [first, socket, count] = given.as_slice()
        && first == "daemon"
    {
        return by_hand(socket, count);
    }
    if let [first, name, times] = given.as_slice()
        && first == "work"
    {
        instructions::work(name, times.parse().unwrap_or(1));
        return ExitCode::SUCCESS;
    }
    match arguments(&given) {
        Ok(arguments) => {
            process::end_with_the_parent();
            bench(&arguments)
        }
        Err(why) => {
            eprintln!("bench: {why}");
            ExitCode::from(2)
        }
    }
}

/// A step that fails in any thread ends the whole run: the others would wait for what never comes. Programs that were
/// started are ended by `scripts/bench`.
fn end_with_the_first_panic() {
    let say = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |what| {
        say(what);
        std::process::exit(101);
    }));
}

/// `daemon SOCKET N`: only the daemon, to profile against; each line on stdin starts or ends one more container.
fn by_hand(socket: &str, count: &str) -> ExitCode {
    let count = count.parse().unwrap_or(20);
    let daemon = Daemon::new(std::path::Path::new(socket), daemon_of(count));
    let newcomer = Container::new(count, true);
    daemon.add(newcomer.clone());
    daemon.dies(&newcomer.id);
    let mut runs = false;
    for line in std::io::stdin().lines() {
        if line.is_err() {
            break;
        }
        runs = !runs;
        daemon.send(&if runs {
            daemon.starts(&newcomer.id)
        } else {
            daemon.dies(&newcomer.id)
        });
    }
    ExitCode::SUCCESS
}

type Stage<'a> = (&'a [&'a str], Box<dyn Fn() -> Vec<Row> + 'a>);

fn bench(arguments: &Arguments) -> ExitCode {
    let folder = Folder::new("programs");
    let script = folder.join("no-op");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").expect("a script");
    let mode = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("chmod");
    let programs = Programs {
        cosmonaut: arguments.cosmonaut.clone(),
        bench: std::env::current_exe().expect("our own path"),
        script,
    };
    let (programs, runs, quick) = (&programs, arguments.runs, arguments.quick);
    let binaries = &arguments.binaries;
    let wanted = |name: &str| {
        let only = &arguments.only;
        only.is_empty() || only.iter().any(|only| only.starts_with(name))
    };
    let stages: Vec<Stage<'_>> = vec![
        (&["floor"], Box::new(move || floor::rows(runs))),
        (
            &["size"],
            Box::new(move || size::rows(&programs.cosmonaut, binaries)),
        ),
        (&["deps"], Box::new(packages::rows)),
        (&["render"], Box::new(move || render::rows(runs))),
        (&["sync"], Box::new(move || once::sync(programs, runs))),
        (FLEET, Box::new(move || fleet(arguments, programs))),
        (
            &["storm"],
            Box::new(move || storm::storm(programs, runs, quick)),
        ),
        (
            &["rate"],
            Box::new(move || storm::rates(programs, runs, quick)),
        ),
        (&["noise"], Box::new(move || storm::noise(programs, runs))),
        (
            &["away"],
            Box::new(move || away::away(programs, runs, quick)),
        ),
        (
            &["real", "burst", "served"],
            Box::new(move || real::rows(programs, runs, &wanted)),
        ),
        (
            &["instructions"],
            Box::new(move || instructions::rows(programs, arguments.write_baseline)),
        ),
    ];
    // With --json stdout is for machines.
    let say = |line: &str| {
        if arguments.json {
            eprintln!("{line}");
        } else {
            println!("{line}");
        }
    };
    say(&table::header());
    let mut rows: Vec<Row> = Vec::new();
    for (names, run) in &stages {
        if !names.iter().any(|name| wanted(name)) {
            continue;
        }
        for row in run() {
            say(&table::line(&row, quick));
            rows.push(row);
        }
    }
    if arguments.json {
        println!("{:#}", table::json(&rows, machine(), quick));
    }
    let over: Vec<&str> = rows
        .iter()
        .filter(|row| row.verdict(quick) == Verdict::Over)
        .map(|row| row.id.as_str())
        .collect();
    say(&format!(
        "{} rows, {} over budget: {}",
        rows.len(),
        over.len(),
        over.join(" ")
    ));
    if over.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The rows that one `watch` for each number of containers gives.
const FLEET: &[&str] = &[
    "memory",
    "anonymous",
    "wakeups",
    "idle-cpu",
    "threads",
    "start",
    "die",
    "fleet",
];

fn fleet(arguments: &Arguments, programs: &Programs) -> Vec<Row> {
    let (rows, points) = fleet::fleet(programs, arguments.runs, arguments.quick);
    if let Some(path) = &arguments.chart {
        std::fs::write(path, chart::draw(&points))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    rows
}

/// What the figures depend on.
fn machine() -> serde_json::Value {
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    serde_json::json!({
        "kernel": read("/proc/sys/kernel/osrelease"),
        "cpus": cpus,
        "load": read("/proc/loadavg"),
    })
}
