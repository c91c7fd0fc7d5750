//! What this machine needs at least for the single steps; printed first, so that everything else can be judged.

use std::io::BufRead;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::table::{Row, Unit};
use crate::yardstick;

/// Length of a usual config, in bytes.
const CONFIG_BYTES: usize = 10 << 10;

pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Runs something some times; how long each run took, in milliseconds.
pub fn timed(runs: usize, mut work: impl FnMut()) -> Vec<f64> {
    let one = |_| {
        let begun = Instant::now();
        work();
        ms(begun.elapsed())
    };
    (0..runs).map(one).collect()
}

/// Processor time of the calling thread.
pub fn thread_cpu() -> Duration {
    // The kernel brings the account up to date when a thread steps back.
    std::thread::yield_now();
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|first| first.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// fork and exec of a shell that does nothing.
pub fn shell() {
    let status = Command::new("sh")
        .args(["-c", ":"])
        .stdin(Stdio::null())
        .status();
    assert!(status.is_ok_and(|status| status.success()), "sh -c : fails");
}

/// The single steps of this machine.
pub fn rows(runs: usize) -> Vec<Row> {
    let folder = Folder::new("floor");
    let file = folder.join("haproxy.cfg");
    let bytes = vec![b'x'; CONFIG_BYTES];
    let row = |id: &str, what: &str, samples| Row::new(id, what, Unit::Ms, samples);
    let mut rows = vec![
        row(
            "floor-shell",
            "fork and exec of sh -c :",
            timed(runs, shell),
        ),
        row(
            "floor-replace",
            "10 KB: write, fsync, rename, fsync of the folder",
            timed(runs, || {
                yardstick::replace(&file, &bytes, &|_| Ok(())).expect("a file is replaced")
            }),
        ),
    ];
    let storm = crate::storm::events(&crate::daemon_of(20), crate::storm::EVENTS);
    let mut cpu = Vec::new();
    for _ in 0..runs {
        let begun = thread_cpu();
        let mut rest = storm.as_slice();
        let mut lines = 0;
        while rest.skip_until(b'\n').is_ok_and(|bytes| bytes > 0) {
            lines += 1;
        }
        assert!(lines >= crate::storm::EVENTS);
        cpu.push(ms(thread_cpu() - begun));
    }
    rows.push(row(
        "floor-split",
        "100,000 events, in memory: find the line ends",
        cpu,
    ));
    rows
}
