//! `sync`: one pass of a new process.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::floor::ms;
use crate::folder::Folder;
use crate::table::{Row, Unit, median};
use crate::tool::{Kind, Programs};

/// What one run cost: wall and processor time in milliseconds.
pub fn run(mut command: Command) -> (f64, f64) {
    let begun = Instant::now();
    let mut child = command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let pid = Pid::from_child(&child);
    // Not reaped yet: its account can still be read.
    let _ = waitid(
        WaitId::Pid(pid),
        WaitIdOptions::EXITED | WaitIdOptions::NOWAIT,
    );
    let wall = ms(begun.elapsed());
    let cpu = crate::process::cpu(child.id());
    assert!(
        child.wait().is_ok_and(|status| status.success()),
        "{command:?} fails"
    );
    (wall, ms(cpu))
}

/// Highest memory of a run, in MiB: the kernel's own mark, read until the process is gone.
fn peak(mut command: Command) -> f64 {
    let quiet = std::process::Stdio::null;
    let mut child = command
        .stdout(quiet())
        .stderr(quiet())
        .spawn()
        .expect("it was started before");
    let mut peak: f64 = 0.0;
    while let Ok(None) = child.try_wait() {
        peak = peak.max(crate::process::peak(child.id()));
        std::thread::sleep(Duration::from_micros(100));
    }
    peak
}

/// Rows of `sync` against a daemon of that many containers; `name` tells daemons apart.
pub fn rows(
    programs: &Programs,
    name: &str,
    docker_host: &str,
    count: usize,
    runs: usize,
) -> Vec<Row> {
    let mut floor = (Vec::new(), Vec::new());
    let mut ours = (Vec::new(), Vec::new());
    let mut peaks = Vec::new();
    for _ in 0..runs {
        for (kind, samples) in [(Kind::Yardstick, &mut floor), (Kind::Cosmonaut, &mut ours)] {
            let folder = Folder::new("sync");
            let action = if kind == Kind::Yardstick {
                "once"
            } else {
                "sync"
            };
            let (wall, cpu) = run(programs.command(kind, action, docker_host, &folder));
            samples.0.push(wall);
            samples.1.push(cpu);
        }
        let folder = Folder::new("sync");
        peaks.push(peak(programs.command(
            Kind::Cosmonaut,
            "sync",
            docker_host,
            &folder,
        )));
    }
    let row = |id: &str, what: &str, unit: Unit, samples: Vec<f64>| {
        Row::new(
            &format!("sync-{id}{name}-{count}"),
            &format!("sync{name}, {count} containers: {what}"),
            unit,
            samples,
        )
    };
    let wall_budget = if count <= 20 { 15.0 } else { 50.0 };
    vec![
        row("wall", "wall", Unit::Ms, ours.0)
            .floor(median(&floor.0), 2.0)
            .budget(wall_budget),
        row("cpu", "processor time", Unit::Ms, ours.1)
            .floor(median(&floor.1), 3.0)
            .budget(10.0),
        row("peak", "peak memory", Unit::MiB, peaks).budget(4.0),
    ]
}

pub fn sync(programs: &Programs, runs: usize) -> Vec<Row> {
    let mut all = Vec::new();
    for count in [20, 100] {
        let daemon = crate::daemon(crate::daemon_of(count));
        std::thread::sleep(Duration::from_millis(50));
        let host = format!("unix://{}", daemon.socket.display());
        all.extend(rows(programs, "", &host, count, runs));
    }
    all
}
