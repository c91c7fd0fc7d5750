//! What the kernel says of a process: memory, time on the processor, how often it woke.

use std::fs;
use std::process::Child;
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

/// Ends this process and all that it started once its parent has ended, in whatever way: a `scripts/bench` that got
/// SIGKILL ends nothing any more. Only where this process leads a group, so that nobody else is in it.
pub fn end_with_the_parent() {
    let Some(parent) = rustix::process::getppid() else {
        return;
    };
    let Ok(parent) = rustix::process::pidfd_open(parent, PidfdFlags::empty()) else {
        return;
    };
    if rustix::process::getpgrp() != rustix::process::getpid() {
        return;
    }
    thread::spawn(move || {
        let mut waiting = [PollFd::new(&parent, PollFlags::IN)];
        while poll(&mut waiting, None) == Err(Errno::INTR) {}
        let _ = rustix::process::kill_current_process_group(Signal::KILL);
    });
}

/// Resident memory and its anonymous part, in MiB.
pub fn memory(pid: u32) -> (f64, f64) {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    (
        field(&text, "Rss:") / 1024.0,
        field(&text, "Anonymous:") / 1024.0,
    )
}

/// Highest resident memory since [`forget_peak`], in MiB.
pub fn peak(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    field(&text, "VmHWM:") / 1024.0
}

/// Starts the account of the highest resident memory anew; false where the kernel does not let us.
pub fn forget_peak(pid: u32) -> bool {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").is_ok()
}

/// Time on the processor of all its living threads, to the nanosecond.
pub fn cpu(pid: u32) -> Duration {
    let nanos = of_threads(pid, "schedstat", |text| {
        text.split(' ')
            .next()
            .and_then(|first| first.parse().ok())
            .unwrap_or_default()
    });
    Duration::from_nanos(nanos)
}

/// Context switches of all its threads, wanted or not.
pub fn switches(pid: u32) -> u64 {
    of_threads(pid, "status", |text| {
        (field(text, "\nvoluntary_ctxt_switches:") + field(text, "nonvoluntary_ctxt_switches:"))
            as u64
    })
}

/// Stops a program for a while, or lets it go on.
pub fn pause(child: &Child, pause: bool) {
    let signal = if pause { Signal::STOP } else { Signal::CONT };
    rustix::process::kill_process(Pid::from_child(child), signal).expect("it runs");
}

/// How many threads it has.
pub fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count)
}

fn of_threads(pid: u32, file: &str, read: impl Fn(&str) -> u64) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let texts = threads.into_iter().flatten().flatten();
    texts
        .filter_map(|thread| fs::read_to_string(thread.path().join(file)).ok())
        .map(|text| read(&text))
        .sum()
}

fn field(text: &str, name: &str) -> f64 {
    let after = text.split(name).nth(1).unwrap_or_default();
    after
        .split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_default()
}
