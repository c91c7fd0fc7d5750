//! System calls that fail, by strace's fault injection.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Part;
use crate::place::{Place, Standing, Stood, binary, container, is_whole};
use crate::support::deadline::poll;

/// How each call can fail; strace makes a call fail by not making it. So `close` is not here: when it fails, Linux has
/// closed the file all the same, and one that is not made keeps the lock of a pass for ever (`short.rs` makes it fail as
/// Linux does). Nor is `futex`: a thread that is not woken would be a fault of the kernel. Any other call that
/// is not here cannot fail for us (getpid), is the loader's (access), or its failure is the end (set_tid_address).
const ERRORS: &[(&str, &[&str])] = &[
    (
        "openat",
        &[
            "EMFILE", "ENFILE", "ENOMEM", "EIO", "EACCES", "ENOSPC", "EINTR",
        ],
    ),
    ("read", &["EIO", "EINTR", "ECONNRESET"]),
    ("pread64", &["EIO"]),
    ("recvfrom", &["ECONNRESET", "EINTR", "ENOMEM", "ETIMEDOUT"]),
    ("recvmsg", &["ECONNRESET", "EINTR"]),
    ("write", &["ENOSPC", "EIO", "EINTR", "EPIPE", "EDQUOT"]),
    ("writev", &["ENOSPC", "EPIPE"]),
    ("sendto", &["EPIPE", "ECONNRESET", "EINTR", "ENOBUFS"]),
    ("socket", &["EMFILE", "ENOMEM", "EAFNOSUPPORT"]),
    (
        "connect",
        &["ECONNREFUSED", "EAGAIN", "EINTR", "ENOENT", "EACCES"],
    ),
    ("setsockopt", &["EINVAL", "ENOMEM"]),
    ("getsockname", &["ENOBUFS"]),
    ("bind", &["EADDRINUSE"]),
    ("socketpair", &["EMFILE"]),
    ("pipe2", &["EMFILE"]),
    ("dup", &["EMFILE"]),
    ("fsync", &["EIO", "ENOSPC", "EINVAL"]),
    ("fdatasync", &["EIO"]),
    ("rename", &["EIO", "ENOSPC", "EACCES", "EBUSY", "EXDEV"]),
    ("renameat2", &["EIO", "ENOSPC"]),
    ("unlink", &["EIO", "EBUSY"]),
    ("mkdir", &["EIO", "ENOSPC", "EACCES"]),
    ("ftruncate", &["EIO", "EINTR"]),
    ("fchmod", &["EPERM", "EIO"]),
    ("fchown", &["EPERM", "EIO"]),
    ("flock", &["ENOLCK", "EINTR", "EIO"]),
    ("fcntl", &["EMFILE", "EINVAL"]),
    ("ioctl", &["EINVAL"]),
    ("lseek", &["EINVAL", "EIO"]),
    ("statx", &["EIO", "ENOMEM", "EACCES"]),
    ("newfstatat", &["EIO"]),
    ("fstat", &["EIO"]),
    ("getdents64", &["EIO"]),
    ("readlink", &["EIO", "ENOMEM"]),
    ("getcwd", &["ENOENT"]),
    ("poll", &["EINTR", "ENOMEM"]),
    ("ppoll", &["EINTR", "ENOMEM"]),
    ("pidfd_open", &["EMFILE", "ENOSYS", "ENOMEM"]),
    ("waitid", &["EINTR"]),
    ("wait4", &["EINTR"]),
    ("kill", &["EPERM"]),
    ("clone", &["EAGAIN", "ENOMEM"]),
    ("clone3", &["EAGAIN", "ENOMEM", "ENOSYS"]),
    ("vfork", &["EAGAIN"]),
    ("getrandom", &["ENOSYS", "EINTR"]),
    ("clock_nanosleep", &["EINTR"]),
    ("nanosleep", &["EINTR"]),
    ("mmap", &["ENOMEM"]),
    ("brk", &["ENOMEM"]),
    ("munmap", &["ENOMEM"]),
    ("mprotect", &["ENOMEM"]),
    ("prlimit64", &["EPERM"]),
    ("sched_getaffinity", &["ENOMEM"]),
];
/// Calls whose failure may end the program, as a kill would: there is no memory, or a library gives up. What stands
/// afterwards is looked at all the same. The loader, before our first line, ends with 127 whatever fails.
const MAY_END: &[&str] = &[
    "mmap",
    "brk",
    "munmap",
    "mprotect",
    "pread64",
    "getrandom",
    "poll",
];
/// At most so many occurrences of one call are tried one by one.
const OCCURRENCES_MAX: usize = 60;
/// One pass under strace, on a busy machine.
const PASS_MAX: Duration = Duration::from_secs(60);
/// How long a watch has to be right again by itself after a fault.
const RIGHT_WITHIN: Duration = Duration::from_secs(40);
/// Changes in which a call is waited for that a watch made so often before.
const ATTEMPTS: usize = 3;

/// One row of the table: a call and an error.
#[derive(Default)]
struct Row {
    tried: usize,
    /// It came to its new config all the same.
    fine: usize,
    /// It said what failed; the old config stood, or the new one was owed.
    said: usize,
    /// It ended by a signal.
    ended: usize,
    standing: Standing,
    faults: Vec<String>,
}

type Rows = BTreeMap<(&'static str, &'static str), Row>;

fn part(title: &'static str, rows: Rows, missed: usize, unknown: &[String]) -> Part {
    let mut lines = vec![
        format!(
            "| call | error | occurrences | done all the same | said, and nothing broken | ended as if killed | {} | faults |",
            Standing::COLUMNS
        ),
        format!("|---|---|---|---|---|---|{}|---|", Standing::RULE),
    ];
    let mut faults = Vec::new();
    let mut total = 0;
    for ((call, error), row) in rows {
        total += row.tried;
        lines.push(format!(
            "| {call} | {error} | {} | {} | {} | {} | {} | {} |",
            row.tried,
            row.fine,
            row.said,
            row.ended,
            row.standing.cells(),
            row.faults.len()
        ));
        faults.extend(row.faults);
    }
    lines.push(format!(
        "\n{total} faults injected; {missed} more were meant for an occurrence that did not come again. Calls that were seen and cannot fail for us: {}.",
        unknown.join(", ")
    ));
    Part {
        title,
        lines,
        faults,
    }
}

/// How often each call occurs: from a trace with one call a line.
fn counted(trace: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let line = line.trim_start_matches(|one: char| one.is_ascii_digit() || one == ' ');
        if let Some((name, _)) = line.split_once('(')
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            *counts.entry(name.to_owned()).or_default() += 1;
        }
    }
    counts
}

fn unknown(counts: &BTreeMap<String, usize>) -> Vec<String> {
    counts
        .keys()
        .filter(|name| *name != "close" && !ERRORS.iter().any(|(call, _)| call == name))
        .cloned()
        .collect()
}

/// Every fault in one pass of `sync` that has something to change.
pub fn sync(every: usize) -> Part {
    let place = Place::new("sync");
    let trace = place.root.join("trace");
    let traced = |inject: Option<&str>| {
        let mut command = place.command(Path::new("strace"));
        command.arg("-o").arg(&trace);
        match inject {
            Some(what) => command
                .args(["-e", &format!("inject={what}"), "-e"])
                .arg(format!(
                    "trace={}",
                    what.split(':').next().unwrap_or_default()
                )),
            None => &mut command,
        };
        command.arg(binary()).arg("sync").args(place.options());
        let output = command.output().expect("strace (package strace)");
        (output, fs::read_to_string(&trace).unwrap_or_default())
    };
    let (_, text) = traced(None);
    let counts = counted(&text);
    let mut rows = Rows::new();
    let (mut number, mut missed) = (0, 0);
    for (call, errors) in ERRORS {
        for occurrence in 1..=counts.get(*call).copied().unwrap_or(0).min(OCCURRENCES_MAX) {
            for error in *errors {
                number += 1;
                if number % every != 0 {
                    continue;
                }
                place.reset();
                let case = format!("{call}:error={error}:when={occurrence}");
                let (output, text) = traced(Some(&case));
                if !text.contains("INJECTED") {
                    missed += 1;
                    continue;
                }
                let row = rows.entry((call, error)).or_default();
                row.tried += 1;
                let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let mut damage = Vec::new();
                match output.status.code() {
                    Some(0) => {
                        row.fine += 1;
                        if place.config() != place.new || place.live() != place.new {
                            damage.push("it says that all is done, but it is not".to_owned());
                        }
                    }
                    Some(1) if words.contains("cosmonaut: error: ") => row.said += 1,
                    Some(127)
                        if MAY_END.contains(call)
                            || ["openat", "read", "newfstatat", "fstat"].contains(call) =>
                    {
                        row.ended += 1
                    }
                    None | Some(101 | 134..) if MAY_END.contains(call) => row.ended += 1,
                    _ => damage.push(format!("it ended with {}", output.status)),
                }
                if words.contains("panicked") && !MAY_END.contains(call) {
                    damage.push("it panicked".to_owned());
                }
                let stood = place.stood();
                row.standing.count(&stood);
                damage.extend(stood.damage);
                row.faults.extend(
                    damage
                        .into_iter()
                        .map(|what| format!("sync, {case}: {what} (stderr: {words})")),
                );
            }
        }
    }
    part(
        "System calls that fail in one `sync`",
        rows,
        missed,
        &unknown(&counts),
    )
}

/// A running watch, and the container that comes and goes.
pub struct Watched {
    place: Place,
    child: Child,
    there: bool,
}

impl Watched {
    fn start() -> Watched {
        Watched::start_with(&[])
    }

    /// With these variables besides.
    pub fn start_with(variables: &[(&str, &str)]) -> Watched {
        let place = Place::new("watch");
        let log = fs::File::create(place.root.join("log")).expect("a log");
        let child = place
            .command(&binary())
            .arg("watch")
            .args(place.options())
            .args(["--resync", "5s", "-v"])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program can be started");
        let mut watched = Watched {
            place,
            child,
            there: false,
        };
        assert!(watched.is_right(), "the watch does not begin");
        watched
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.place.root.join("log")).unwrap_or_default()
    }

    /// Waits until file and HAProxy show whether the container is there.
    pub fn is_right(&mut self) -> bool {
        poll(RIGHT_WITHIN, || {
            let right =
                |text: &str| text.contains("10.2.0.9:") == self.there && text.contains("10.2.0.5:");
            (right(&self.place.config()) && right(&self.place.live())).then_some(())
        })
        .is_some()
    }

    pub fn change(&mut self) {
        let one = container(9, "web");
        if self.there {
            self.place.docker.remove(&one.name);
        } else {
            self.place.docker.run(one);
        }
        self.there = !self.there;
    }

    fn threads(&self) -> Vec<(String, String)> {
        fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .into_iter()
            .flatten()
            .flatten()
            .map(|task| {
                let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
                (
                    task.file_name().to_string_lossy().into_owned(),
                    name.trim().to_owned(),
                )
            })
            .collect()
    }

    /// Runs `act` under strace of one thread; gives the trace.
    fn traced(
        &mut self,
        thread: &str,
        inject: Option<&str>,
        act: impl FnOnce(&mut Watched),
    ) -> String {
        let trace = self.place.root.join("trace");
        let _ = fs::remove_file(&trace);
        let mut command = Command::new("strace");
        command.args(["-p", thread, "-o"]).arg(&trace);
        if let Some(what) = inject {
            command
                .args(["-e", &format!("inject={what}"), "-e"])
                .arg(format!(
                    "trace={}",
                    what.split(':').next().unwrap_or_default()
                ));
        }
        let mut strace = command
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("strace (package strace)");
        // It has attached once the thread says who traces it.
        let status = format!("/proc/{}/task/{thread}/status", self.child.id());
        let attached = poll(PASS_MAX, || {
            let text = fs::read_to_string(&status).unwrap_or_default();
            text.lines()
                .find_map(|line| line.strip_prefix("TracerPid:"))
                .is_some_and(|pid| pid.trim() != "0")
                .then_some(())
        });
        if attached.is_some() {
            act(self);
        }
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -s INT \"$1\"", "sh", &strace.id().to_string()])
            .status();
        if poll(Duration::from_secs(10), || strace.try_wait().ok().flatten()).is_none() {
            let _ = strace.kill();
            let _ = strace.wait();
        }
        fs::read_to_string(&trace).unwrap_or_default()
    }

    /// What stands; the pass after a fault is the watch's own, and right when all came right.
    pub fn stood(&mut self, right: bool) -> Stood {
        let mut damage = Vec::new();
        let (file, serving) = (is_whole(&self.place.config()), is_whole(&self.place.live()));
        for (is, what) in [(file, "the file"), (serving, "what HAProxy runs")] {
            if !is {
                damage.push(format!("{what} is not whole"));
            }
        }
        let lock = self.place.lock_is_free();
        if !lock {
            damage.push("the lock of a pass is held".to_owned());
        }
        // One that has ended is as good as killed: the next one must come right.
        let next = right || self.ended().is_some() && self.place.sync().status.success();
        Stood {
            serving,
            file,
            lock,
            next,
            damage,
        }
    }

    fn ended(&mut self) -> Option<String> {
        self.child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| status.to_string())
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every fault in each thread of a `watch`, while a container comes or goes.
pub fn watch(every: usize) -> Part {
    let mut watched = Watched::start();
    let mut rows = Rows::new();
    let mut seen = BTreeMap::new();
    let (mut number, mut missed) = (0, 0);
    let names: Vec<String> = watched
        .threads()
        .into_iter()
        .map(|(_, name)| name)
        .collect();
    for name in names {
        let thread = |watched: &Watched| {
            watched
                .threads()
                .into_iter()
                .find(|(_, one)| *one == name)
                .map(|(id, _)| id)
        };
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        // One pass in each direction, and a daemon that restarts: the thread that reads events has little else to do.
        for _ in 0..2 {
            let Some(id) = thread(&watched) else { continue };
            let text = watched.traced(&id, None, |watched| {
                watched.change();
                watched.is_right();
            });
            for (call, count) in counted(&text) {
                let most = counts.entry(call).or_default();
                *most = count.max(*most);
            }
        }
        seen.extend(counts.clone());
        for (call, errors) in ERRORS {
            for occurrence in 1..=counts.get(*call).copied().unwrap_or(0).min(OCCURRENCES_MAX) {
                for error in *errors {
                    number += 1;
                    // That thread reads from a pair of sockets whose other end is our own: only signals interrupt it.
                    let cannot_be = name == "signals" && *error != "EINTR";
                    if number % every != 0 || cannot_be {
                        continue;
                    }
                    let case = format!("{call}:error={error}:when={occurrence}");
                    let (mut before, mut began) = (0, Instant::now());
                    let mut right = false;
                    // Not each pass makes as many calls: of some there are fewer when events come together.
                    let struck = (0..ATTEMPTS).any(|_| {
                        let Some(id) = thread(&watched) else {
                            return false;
                        };
                        before = watched.log().len();
                        began = Instant::now();
                        let text = watched.traced(&id, Some(&case), |watched| {
                            watched.change();
                            right = watched.is_right();
                        });
                        text.contains("INJECTED")
                    });
                    if !struck {
                        missed += 1;
                        continue;
                    }
                    let row = rows.entry((call, error)).or_default();
                    row.tried += 1;
                    let words = watched
                        .log()
                        .get(before..)
                        .unwrap_or_default()
                        .trim()
                        .to_owned();
                    let mut fault = |what: String| {
                        row.faults.push(format!(
                            "watch, thread {name}, {case}: {what}; log: {words}"
                        ));
                    };
                    if words.contains("panicked") && !MAY_END.contains(call) {
                        fault("it panicked".to_owned());
                    }
                    let stood = watched.stood(right);
                    row.standing.count(&stood);
                    for what in stood.damage {
                        fault(what);
                    }
                    if let Some(how) = watched.ended() {
                        row.ended += 1;
                        if !MAY_END.contains(call) {
                            row.faults.push(format!(
                                "watch, thread {name}, {case}: it ended: {how}; log: {words}"
                            ));
                        }
                        watched = Watched::start();
                        continue;
                    }
                    if !right {
                        fault(format!("it was not right after {:?}", began.elapsed()));
                        watched = Watched::start();
                        continue;
                    }
                    if words.to_lowercase().contains("error")
                        || words.to_lowercase().contains("warn")
                    {
                        row.said += 1;
                    } else {
                        row.fine += 1;
                    }
                }
            }
        }
    }
    // It still follows, and leaves in good order.
    watched.change();
    let mut result = part(
        "System calls that fail in a running `watch`, in each of its threads",
        rows,
        missed,
        &unknown(&seen),
    );
    if !watched.is_right() {
        result
            .faults
            .push("the watch does not follow any more at the end".to_owned());
    }
    let leftovers = watched.place.leftovers();
    if !leftovers.is_empty() {
        result
            .faults
            .push(format!("left in the state folder: {leftovers:?}"));
    }
    result
}
