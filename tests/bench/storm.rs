//! Storms of events: as fast as they are read, at a rate, and of health checks that concern nobody.

use std::time::{Duration, Instant};

use crate::daemon::{self, Container, Daemon};
use crate::floor::ms;
use crate::process;
use crate::table::{Row, Unit};
use crate::tool::{Kind, Programs, Tool};

/// Events of one storm.
pub const EVENTS: usize = 100_000;
/// Containers that the storm is about.
const CONTAINERS: usize = 20;
/// How long the end of a storm may take to show.
const SHOWN: Duration = Duration::from_secs(30);
/// After this long without a change the next one counts as a lone one.
const CALM: Duration = Duration::from_millis(2200);
/// How often a storm at a rate is fed.
const BEAT: Duration = Duration::from_millis(5);

/// `count` events, die and start in turn.
pub fn events(containers: &[Container], count: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(count * 512);
    for n in 0..count {
        let one = &containers[n / 2 % containers.len()];
        bytes.extend(daemon::event(one, if n % 2 == 0 { "die" } else { "start" }));
    }
    bytes
}

/// What one storm cost.
#[derive(Default, Clone)]
struct Cost {
    wall: Vec<f64>,
    cpu: Vec<f64>,
    growth: Vec<f64>,
    writes: Vec<f64>,
    right: usize,
}

fn full_speed(programs: &Programs, kind: Kind, runs: usize) -> Cost {
    let daemon = crate::daemon(crate::daemon_of(CONTAINERS));
    let tool = programs.watch(kind, &daemon, &[]);
    let mut cost = Cost::default();
    for run in 0..runs {
        std::thread::sleep(CALM);
        let newcomer = Container::new(1000 + run, true);
        let short = newcomer.id[..12].to_owned();
        let storm = events(&daemon.containers()[..CONTAINERS], EVENTS);
        process::forget_peak(tool.pid());
        let (memory, _) = process::memory(tool.pid());
        let cpu = process::cpu(tool.pid());
        tool.replaced.count();
        let begun = Instant::now();
        let taken = daemon.send(&storm);
        daemon.add(newcomer.clone());
        daemon.send(&daemon.starts(&newcomer.id));
        let writes = std::cell::Cell::new(0);
        let whole = |text: &str| {
            writes.set(writes.get() + 1);
            text.contains(&short) && servers(text) == CONTAINERS + 1
        };
        let shown = tool.wait_for(SHOWN, whole);
        std::thread::sleep(CALM);
        cost.cpu
            .push(ms(process::cpu(tool.pid()).saturating_sub(cpu)));
        cost.growth
            .push((process::peak(tool.pid()) - memory).max(0.0));
        cost.writes
            .push((writes.get() + tool.replaced.count()) as f64);
        cost.wall
            .push(shown.map_or(f64::INFINITY, |at| ms(at - begun)));
        // Awake: a lone change after it shows, too.
        daemon.send(&daemon.dies(&newcomer.id));
        let awake = tool.wait_for(SHOWN, |text| {
            !text.contains(&short) && servers(text) == CONTAINERS
        });
        cost.right += usize::from(taken && shown.is_some() && awake.is_some());
    }
    cost
}

/// How many servers a config has; the yardstick's looks the same.
pub fn servers(text: &str) -> usize {
    text.lines()
        .filter(|line| line.trim_start().starts_with("server "))
        .count()
}

pub fn storm(programs: &Programs, runs: usize, quick: bool) -> Vec<Row> {
    let runs = if quick { runs } else { runs.max(20) };
    let floor = full_speed(programs, Kind::Yardstick, runs.min(9));
    let ours = full_speed(programs, Kind::Cosmonaut, runs);
    let wall = crate::table::median(&floor.wall);
    let cpu = crate::table::median(&floor.cpu);
    let wrong = (runs - ours.right) as f64;
    vec![
        Row::new(
            "storm-wrong",
            &format!("storm, 100,000 events: wrong or deaf, of {runs}"),
            Unit::Count,
            vec![wrong],
        )
        .budget(0.0),
        Row::new(
            "storm-wall",
            "storm: first byte to the right file",
            Unit::Ms,
            ours.wall,
        )
        .floor(wall, 6.0)
        .budget(300.0),
        Row::new("storm-cpu", "storm: processor time", Unit::Ms, ours.cpu)
            .floor(cpu, 5.0)
            .budget(150.0),
        Row::new(
            "storm-memory",
            "storm: peak over the memory before it, worst",
            Unit::MiB,
            ours.growth,
        )
        .worst()
        .budget(1.0),
        Row::new(
            "storm-reloads",
            "storm: reloads, worst",
            Unit::Count,
            ours.writes,
        )
        .worst()
        .budget(5.0),
    ]
}

/// Feeds `rate` events a second for `time`; returns the processor time, scaled to five seconds.
fn at_rate(daemon: &Daemon, tool: &Tool, rate: usize, time: Duration) -> f64 {
    let containers = daemon.containers();
    let cpu = process::cpu(tool.pid());
    let begun = Instant::now();
    let mut beats = 0;
    while begun.elapsed() < time {
        // Made anew for each beat: an event that repeats the time of an earlier one says nothing new.
        daemon.send(&events(&containers, rate / 200));
        beats += 1;
        std::thread::sleep((begun + BEAT * beats).saturating_duration_since(Instant::now()));
    }
    std::thread::sleep(Duration::from_millis(600));
    ms(process::cpu(tool.pid()) - cpu) * 5.0 / time.as_secs_f64()
}

pub fn rates(programs: &Programs, runs: usize, quick: bool) -> Vec<Row> {
    let time = Duration::from_secs(if quick { 2 } else { 5 });
    let measure = |rate: usize, kind: Kind| {
        let daemon = crate::daemon(crate::daemon_of(CONTAINERS));
        let tool = programs.watch(kind, &daemon, &[]);
        let samples: Vec<f64> = (0..runs)
            .map(|_| {
                std::thread::sleep(Duration::from_millis(500));
                at_rate(&daemon, &tool, rate, time)
            })
            .collect();
        samples
    };
    let mut rows = Vec::new();
    for rate in [1000, 5000] {
        // Side by side: both see the same moments of the machine.
        let (floor, ours) = std::thread::scope(|scope| {
            let floor = scope.spawn(|| measure(rate, Kind::Yardstick));
            let ours = measure(rate, Kind::Cosmonaut);
            (floor.join().expect("measured"), ours)
        });
        let what = format!("{rate} events/s for 5 s: processor time");
        let floor = crate::table::median(&floor);
        rows.push(
            Row::new(&format!("rate-{rate}"), &what, Unit::Ms, ours)
                .floor(floor, 2.5)
                .budget(150.0),
        );
    }
    rows
}

/// A daemon that ignores the filter: health checks as far as the eye can see.
pub fn noise(programs: &Programs, runs: usize) -> Vec<Row> {
    let measure = |kind: Kind| {
        let daemon = crate::daemon(crate::daemon_of(CONTAINERS));
        let tool = programs.watch(kind, &daemon, &[]);
        let containers = daemon.containers();
        let mut noise = Vec::new();
        for n in 0..EVENTS {
            let action = [
                "exec_create: sh -c true",
                "exec_start: sh -c true",
                "exec_die",
            ][n % 3];
            noise.extend(daemon::event(&containers[n / 3 % CONTAINERS], action));
        }
        let mut cpu = Vec::new();
        for _ in 0..runs {
            let before = process::cpu(tool.pid());
            daemon.send(&noise);
            std::thread::sleep(Duration::from_millis(700));
            cpu.push(ms(process::cpu(tool.pid()) - before));
        }
        (cpu, tool.replaced.count() as f64, daemon.asked())
    };
    let (floor, _, _) = measure(Kind::Yardstick);
    let (ours, writes, _) = measure(Kind::Cosmonaut);
    let floor = crate::table::median(&floor);
    vec![
        Row::new(
            "noise-writes",
            "100,000 exec_* events, filter ignored: writes",
            Unit::Count,
            vec![writes],
        )
        .budget(0.0),
        Row::new(
            "noise-cpu",
            "100,000 exec_* events, filter ignored: processor time",
            Unit::Ms,
            ours,
        )
        .floor(floor, 3.0)
        .budget(100.0),
    ]
}
