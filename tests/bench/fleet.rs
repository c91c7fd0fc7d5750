//! One `watch` for each number of containers, all at once: memory, idle life, and what a lone change costs.

use std::time::{Duration, Instant};

use crate::daemon::{Container, Daemon};
use crate::floor::ms;
use crate::process;
use crate::table::{Row, Unit, median};
use crate::tool::{Kind, Programs, Tool};

/// A change this long after the last one is a lone one: past the longest wait of a burst, twice.
const CALM: Duration = Duration::from_millis(2200);
/// How long a change may take to show.
const SHOWN: Duration = Duration::from_secs(20);

/// One size: how many containers, and how many of them are ours.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub all: usize,
    pub ours: usize,
}

impl Size {
    fn id(self) -> String {
        if self.all == self.ours {
            self.all.to_string()
        } else {
            format!("{}-of-{}", self.ours, self.all)
        }
    }

    fn what(self) -> String {
        if self.all == self.ours {
            format!("{} containers", self.all)
        } else {
            format!("{} containers, {} ours", self.all, self.ours)
        }
    }

    /// What a `watch` of this size may hold in MiB.
    fn memory(self) -> Option<f64> {
        match self.all {
            10_000 => Some(16.0),
            1000 => Some(5.0),
            20 | 100 => Some(3.5),
            _ => None,
        }
    }
}

/// What one size came to; also what the chart shows.
pub struct Point {
    pub size: Size,
    pub memory: (f64, f64),
    pub floor_memory: f64,
    pub start: Vec<f64>,
    pub die: Vec<f64>,
    pub floor_start: Vec<f64>,
    pub floor_die: Vec<f64>,
}

struct Pair {
    point: Point,
    daemon: Daemon,
    ours: Tool,
    floor_daemon: Daemon,
    floor: Tool,
}

fn daemon_of(size: Size) -> Daemon {
    crate::daemon(
        (0..size.all)
            .map(|n| Container::new(n, n < size.ours))
            .collect(),
    )
}

/// Runs the fleet.
pub fn fleet(programs: &Programs, runs: usize, quick: bool) -> (Vec<Row>, Vec<Point>) {
    let mut sizes: Vec<Size> = [20, 100, 1000, 10_000]
        .map(|n| Size { all: n, ours: n })
        .to_vec();
    if !quick {
        sizes.extend([300, 3000].map(|n| Size { all: n, ours: n }));
    }
    sizes.push(Size {
        all: 10_000,
        ours: 20,
    });
    let mut pairs: Vec<Pair> = sizes.iter().map(|size| pair(programs, *size)).collect();
    let mut rows = idle(&pairs, quick);
    for run in 0..runs {
        for start in [true, false] {
            std::thread::sleep(CALM);
            for pair in &mut pairs {
                let newcomer = Container::new(100_000 + run, true);
                let (daemon, floor) = (&pair.floor_daemon, &pair.floor);
                let time = lone(daemon, floor, &newcomer, start);
                let samples = if start {
                    &mut pair.point.floor_start
                } else {
                    &mut pair.point.floor_die
                };
                samples.push(time);
                let asked = pair.daemon.asked();
                let time = lone(&pair.daemon, &pair.ours, &newcomer, start);
                let samples = if start {
                    &mut pair.point.start
                } else {
                    &mut pair.point.die
                };
                samples.push(time);
                let asked_now = pair.daemon.asked();
                assert!(
                    asked_now.0 == asked.0 && asked_now.1 == asked.1 + u64::from(start),
                    "a lone change asks the daemon too much: {asked:?} -> {asked_now:?}"
                );
            }
        }
    }
    for pair in &pairs {
        rows.extend(lone_rows(&pair.point, &pairs[0].point));
    }
    rows.extend(pairs.iter_mut().map(again));
    (rows, pairs.into_iter().map(|pair| pair.point).collect())
}

fn pair(programs: &Programs, size: Size) -> Pair {
    let (daemon, floor_daemon) = (daemon_of(size), daemon_of(size));
    let extra: &[&str] = &["--resync", "0", "-q"];
    let floor = programs.watch(Kind::Yardstick, &floor_daemon, &[]);
    let ours = programs.watch(Kind::Cosmonaut, &daemon, extra);
    let point = Point {
        size,
        memory: process::memory(ours.pid()),
        floor_memory: process::memory(floor.pid()).0,
        start: Vec::new(),
        die: Vec::new(),
        floor_start: Vec::new(),
        floor_die: Vec::new(),
    };
    Pair {
        point,
        daemon,
        ours,
        floor_daemon,
        floor,
    }
}

/// One container more or less; milliseconds from the event to the file that shows it.
fn lone(daemon: &Daemon, tool: &Tool, container: &Container, start: bool) -> f64 {
    let short = container.id[..12].to_owned();
    if start {
        daemon.add(container.clone());
    }
    tool.replaced.count();
    let event = if start {
        daemon.starts(&container.id)
    } else {
        daemon.dies(&container.id)
    };
    let begun = Instant::now();
    assert!(
        daemon.send(&event),
        "nobody reads events any more: {}",
        tool.log()
    );
    let shown = tool.wait_for(SHOWN, |text| text.contains(&short) == start);
    shown.map_or(f64::INFINITY, |at| ms(at - begun))
}

fn idle(pairs: &[Pair], quick: bool) -> Vec<Row> {
    let window = Duration::from_secs(if quick { 10 } else { 60 });
    let before: Vec<_> = pairs
        .iter()
        .map(|pair| {
            (
                process::switches(pair.ours.pid()),
                process::cpu(pair.ours.pid()),
            )
        })
        .collect();
    std::thread::sleep(window);
    let minute = 60.0 / window.as_secs_f64();
    let mut woke: f64 = 0.0;
    let mut cpu: f64 = 0.0;
    let mut rows = Vec::new();
    for (pair, (switches, time)) in pairs.iter().zip(before) {
        woke = woke.max((process::switches(pair.ours.pid()) - switches) as f64 * minute);
        cpu = cpu.max(ms(process::cpu(pair.ours.pid()) - time) * minute);
        let Point {
            size,
            memory,
            floor_memory,
            ..
        } = &pair.point;
        let row = |id: &str, what: &str, value: f64| {
            Row::new(
                &format!("{id}-{}", size.id()),
                &format!("{what}, {}", size.what()),
                Unit::MiB,
                vec![value],
            )
        };
        let mut resident =
            row("memory", "memory, watch idle", memory.0).floor(*floor_memory, f64::INFINITY);
        let mut anonymous = row("anonymous", "of it anonymous", memory.1);
        if let Some(budget) = size.memory() {
            resident = resident.budget(budget);
        }
        if size.all <= 100 {
            anonymous = anonymous.budget(1.0);
        }
        rows.extend([resident, anonymous]);
    }
    rows.push(
        Row::new(
            "wakeups",
            "wake-ups in an idle minute, no resync, worst",
            Unit::Count,
            vec![woke],
        )
        .budget(1.0),
    );
    // Not by ratio: the floor does nothing at all.
    rows.push(
        Row::new(
            "idle-cpu",
            "processor time of an idle minute, in us",
            Unit::Count,
            vec![cpu * 1000.0],
        )
        .budget(3000.0),
    );
    let threads = pairs
        .iter()
        .map(|pair| process::threads(pair.ours.pid()) as f64)
        .collect();
    rows.push(
        Row::new("threads", "threads", Unit::Count, threads)
            .worst()
            .budget(3.0),
    );
    rows
}

/// What it holds when it is started on the files of an earlier life, as after each boot of the host.
fn again(pair: &mut Pair) -> Row {
    pair.ours.restart();
    let (resident, _) = process::memory(pair.ours.pid());
    let size = pair.point.size;
    let row = Row::new(
        &format!("memory-again-{}", size.id()),
        &format!("memory, watch started again, {}", size.what()),
        Unit::MiB,
        vec![resident],
    );
    match size.memory() {
        Some(budget) => row.budget(budget),
        None => row,
    }
}

fn lone_rows(point: &Point, smallest: &Point) -> Vec<Row> {
    let mut rows = Vec::new();
    let kinds = [
        (
            "start",
            &point.start,
            &point.floor_start,
            &smallest.floor_start,
        ),
        ("die", &point.die, &point.floor_die, &smallest.floor_die),
    ];
    for (id, ours, floor, smallest) in kinds {
        let (floor, smallest) = (median(floor), median(smallest));
        // What a longer file costs the machine, whoever writes it, is not ours to save.
        let longer = (floor - smallest).max(0.0);
        let budgeted = [20, 100, 1000, 10_000].contains(&point.size.all);
        let mut row = Row::new(
            &format!("{id}-{}", point.size.id()),
            &format!("lone {id} to file, {}", point.size.what()),
            Unit::Ms,
            ours.clone(),
        )
        .floor(floor, 2.5);
        if budgeted {
            row = row.budget(4.0 + longer);
        }
        rows.push(row);
    }
    rows
}
