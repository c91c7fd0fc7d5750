//! The daemon goes away, one container leaves and one comes meanwhile, the stream is cut inside an event.

use std::time::{Duration, Instant};

use crate::daemon::Container;
use crate::floor::ms;
use crate::process;
use crate::storm::servers;
use crate::table::{Row, Unit};
use crate::tool::{Kind, Programs};

/// Containers of each daemon.
const CONTAINERS: usize = 20;
/// How long the right config may take.
const SHOWN: Duration = Duration::from_secs(30);

/// One daemon that is away for `time`; how long until the config is right, and the processor time meanwhile
/// for each five seconds.
fn once(programs: &Programs, time: Duration) -> (f64, f64) {
    let daemon = crate::daemon(crate::daemon_of(CONTAINERS));
    let tool = programs.watch(Kind::Cosmonaut, &daemon, &[]);
    let newcomer = Container::new(1000, true);
    let leaver = daemon.containers()[0].id.clone();
    let half = crate::daemon::event(&newcomer, "start");
    daemon.send(&half[..half.len() / 2]);
    daemon.go_away();
    let cpu = process::cpu(tool.pid());
    std::thread::sleep(time);
    let cpu = ms(process::cpu(tool.pid()) - cpu) * 5.0 / time.as_secs_f64();
    assert_eq!(
        tool.replaced.count(),
        0,
        "a daemon that is away is not one without containers"
    );
    daemon.add(newcomer.clone());
    daemon.dies(&leaver);
    let begun = Instant::now();
    daemon.come_back();
    let right = |text: &str| {
        servers(text) == CONTAINERS
            && text.contains(&newcomer.id[..12])
            && !text.contains(&leaver[..12])
    };
    let shown = tool.wait_for(SHOWN, right);
    (shown.map_or(f64::INFINITY, |at| ms(at - begun)), cpu)
}

pub fn away(programs: &Programs, runs: usize, quick: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let times: &[u64] = if quick { &[5] } else { &[5, 25] };
    for &seconds in times {
        let time = Duration::from_secs(seconds);
        let all: Vec<(f64, f64)> = std::thread::scope(|scope| {
            let each: Vec<_> = (0..runs)
                .map(|_| scope.spawn(|| once(programs, time)))
                .collect();
            each.into_iter()
                .map(|one| one.join().expect("measured"))
                .collect()
        });
        let (back, cpu): (Vec<f64>, Vec<f64>) = all.into_iter().unzip();
        let what = format!("daemon away {seconds} s, cut inside an event");
        // Our own waits decide it, not the machine: the floor is the second that is asked for.
        rows.push(
            Row::new(
                &format!("away-{seconds}"),
                &format!("{what}: right after its return"),
                Unit::Ms,
                back,
            )
            .floor(1000.0, 1.0)
            .budget(1000.0),
        );
        rows.push(
            Row::new(
                &format!("away-cpu-{seconds}"),
                &format!("{what}: processor time per 5 s, in us"),
                Unit::Count,
                cpu.iter().map(|ms| ms * 1000.0).collect(),
            )
            .budget(5000.0),
        );
    }
    rows
}
