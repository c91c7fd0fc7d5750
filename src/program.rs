//! Runs a program: with a time limit, a bounded account of its output, and nothing left behind.
//!
//! The program is the operator's; it may hang, flood its output, or leave a grandchild that holds the
//! output open. So it runs in a process group of its own, its output goes to a file that nobody waits
//! for, the wait is on the process itself, and at the end of its time the whole group is killed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{MemfdFlags, OFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Error, Kind, Result};

/// Longest output that is kept, in bytes, counted from its end: HAProxy's complaints fit many times over.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// Longest output before a program is stopped, in bytes: one in a loop must not fill the disk.
const FLOOD_BYTES_MAX: u64 = 8 << 20;
/// How often the size of a running program's output is looked at.
const FLOOD_LOOK: Duration = Duration::from_secs(1);
/// First and longest pause between two looks at a program where the kernel cannot wake us when it ends.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(20));
/// How long a program has to go after SIGTERM, before SIGKILL.
const GRACE: Duration = Duration::from_millis(500);

/// How a program ended, and what it said at the end on stdout and stderr together.
#[derive(Debug)]
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// The end of its output.
    pub output: String,
}

/// Runs a program to its end, without input. `name` is what it is called in messages; `folder` is where
/// its output is kept meanwhile, in a file without a name, on a kernel that has no files in memory.
///
/// # Errors
/// When it cannot be started (the kind of `std::io::Error` is then in `on_start`'s hands), runs longer
/// than `limit` (kind `TimedOut`), or writes without end.
pub fn run(
    command: Command,
    name: &str,
    limit: Duration,
    folder: &Path,
    on_start: impl FnOnce(Error, &std::io::Error) -> Error,
) -> Result<Ended> {
    run_beside(command, name, limit, folder, on_start, || ())
}

/// [`run`], and `beside` once it is started: short work of our own that needs not wait for its end.
///
/// # Errors
/// As [`run`].
pub fn run_beside(
    mut command: Command,
    name: &str,
    limit: Duration,
    folder: &Path,
    on_start: impl FnOnce(Error, &std::io::Error) -> Error,
    beside: impl FnOnce(),
) -> Result<Ended> {
    let tried = || format!("cannot run {name}");
    let mut output = output_file(folder)?;
    let writer = |file: &File| file.try_clone().map_err(|e| Error::new(tried(), e));
    command
        .stdin(Stdio::null())
        .stdout(writer(&output)?)
        .stderr(writer(&output)?)
        .process_group(0);
    let mut child = command
        .spawn()
        .map_err(|e| on_start(Error::new(tried(), &e), &e))?;
    beside();
    let why = match wait(&mut child, limit, &output) {
        Ok(Some(status)) => {
            stop_leftovers(&child, name);
            return Ok(Ended {
                status,
                output: tail(&mut output),
            });
        }
        Ok(None) => format!("it was still running after {limit:?} and was stopped"),
        Err(cause) => cause,
    };
    let group = Pid::from_child(&child);
    let _ = rustix::process::kill_process_group(group, Signal::TERM);
    let _ = wait(&mut child, GRACE, &output);
    // The group's number is still its own: its leader has not been waited for, or members are left.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
    let _ = child.wait();
    Err(Error::new(tried(), with_words(&why, &tail(&mut output))).kind(Kind::TimedOut))
}

/// Finds a program in `PATH`.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|candidate| {
            std::fs::metadata(candidate)
                .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        })
}

/// `how`, with a program's words behind it if it had any.
pub fn with_words(how: &str, words: &str) -> String {
    if words.is_empty() {
        how.to_owned()
    } else {
        format!("{how}: {words}")
    }
}

/// The last lines of some output as one line, at most `lines` of them, without control characters.
pub fn last_lines(output: &str, lines: usize) -> String {
    let clean = |line: &str| -> String {
        line.trim_end()
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    let all: Vec<String> = output
        .lines()
        .map(clean)
        .filter(|line| !line.trim().is_empty())
        .collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("; ")
}

/// Stops what a program that has ended left running in its process group.
fn stop_leftovers(child: &Child, name: &str) {
    let group = Pid::from_child(child);
    if rustix::process::test_kill_process_group(group).is_ok() {
        log::warn!(
            "{name} ended but left processes running; they were stopped (a daemon belongs in a session of its own: setsid)"
        );
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
    }
}

/// A file without a name, so that nothing is left behind even by kill -9; in memory where the kernel has that,
/// since a file that is made waits for the file system's journal, which Docker keeps busy just then.
fn output_file(folder: &Path) -> Result<File> {
    if let Ok(memory) = rustix::fs::memfd_create("output", MemfdFlags::CLOEXEC)
        && rustix::fs::fcntl_setfl(&memory, OFlags::APPEND).is_ok()
    {
        return Ok(File::from(memory));
    }
    // Two threads may run a program each, and in containers every process may be number 1.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let path = folder.join(format!(
        ".output-{}-{}-{}",
        std::process::id(),
        now.unwrap_or_default().as_nanos(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    let open = || {
        let file = File::options()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    };
    open().map_err(|e: std::io::Error| {
        Error::new(
            format!("cannot write {} for a program's output", path.display()),
            e,
        )
        .hint("--state-dir must be a folder that cosmonaut can write")
    })
}

/// Waits for the child; `None` when its time is over, an error when it floods its output.
fn wait(
    child: &mut Child,
    limit: Duration,
    output: &File,
) -> std::result::Result<Option<ExitStatus>, String> {
    let broken = |e: &dyn std::fmt::Display| format!("cannot wait for it: {e}");
    let until = Instant::now() + limit;
    let pidfd = match rustix::process::pidfd_open(Pid::from_child(child), PidfdFlags::empty()) {
        Ok(pidfd) => Some(pidfd),
        // Kernels before 5.3, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => None,
        Err(e) => return Err(broken(&e)),
    };
    let mut pause = LOOK_PAUSES.0;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(Some(status)),
            Ok(None) => {}
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(broken(&e)),
        }
        if output
            .metadata()
            .is_ok_and(|file| file.len() > FLOOD_BYTES_MAX)
        {
            return Err(format!(
                "it wrote more than {} MiB and was stopped",
                FLOOD_BYTES_MAX >> 20
            ));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let Some(pidfd) = &pidfd else {
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LOOK_PAUSES.1);
            continue;
        };
        let slice = Timespec::try_from(left.min(FLOOD_LOOK)).map_err(|e| broken(&e))?;
        match rustix::event::poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&slice)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(broken(&e)),
        }
    }
}

/// The end of the output.
fn tail(output: &mut File) -> String {
    let length = output.metadata().map_or(0, |file| file.len());
    let mut bytes = Vec::new();
    let read = output
        .seek(SeekFrom::Start(length.saturating_sub(OUTPUT_BYTES_MAX)))
        .and_then(|_| output.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(e) => format!("(its output cannot be read: {e})"),
    }
}
