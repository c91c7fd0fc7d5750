//! One `cosmonaut watch` under observation: memory, descriptors, threads, children, and what it leaves behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::log::Log;
use crate::support::deadline::poll;

/// How long it may take to leave after SIGTERM.
const LEAVES_WITHIN: Duration = Duration::from_secs(40);
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// The program under test: the one that scripts/soak built, else the one that cargo built with this.
fn binary() -> PathBuf {
    std::env::var_os("COSMONAUT_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_cosmonaut").into(), PathBuf::from)
}

/// What /proc says of it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sample {
    pub rss_kib: u64,
    pub anonymous_kib: u64,
    pub descriptors: usize,
    pub threads: u64,
    pub children: usize,
    /// Hundredths of a second of CPU time, its own.
    pub cpu_cs: u64,
}

/// What is left of it once it has ended.
pub struct Ended {
    pub kind: &'static str,
    pub start: Sample,
    pub most: Sample,
    pub end: Sample,
    /// From its log: lines by level, and passes.
    pub errors: Vec<String>,
    pub warnings: usize,
    pub applied: usize,
}

pub struct Watched {
    pub kind: &'static str,
    child: Child,
    state: PathBuf,
    log: PathBuf,
    start: Option<Sample>,
    most: Sample,
    last: Sample,
    sampled: Option<Instant>,
}

impl Watched {
    /// One `sync` with these options, which must succeed.
    pub fn sync(options: &[String]) {
        let output = Command::new(binary())
            .arg("sync")
            .args(options)
            .env("COSMONAUT_LOG", "info")
            .output()
            .expect("the program can be started");
        assert!(
            output.status.success(),
            "the first sync: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    pub fn start(kind: &'static str, state: &Path, root: &Path, options: &[String]) -> Watched {
        let log = root.join(format!("{kind}.log"));
        let child = Command::new(binary())
            .arg("watch")
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("a log"))
            .spawn()
            .expect("the program can be started");
        Watched {
            kind,
            child,
            state: state.to_owned(),
            log,
            start: None,
            most: Sample::default(),
            last: Sample::default(),
            sampled: None,
        }
    }

    pub fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok().flatten()?;
        Some(format!(
            "{status}; last words: {}",
            self.text().lines().next_back().unwrap_or("")
        ))
    }

    fn text(&self) -> String {
        fs::read(&self.log).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    }

    /// Looks at it; `warm` once the first of these samples may count as its start.
    pub fn sample(&mut self, warm: bool) {
        if self.sampled.is_some_and(|at| at.elapsed() < SAMPLE_EVERY) {
            return;
        }
        self.sampled = Some(Instant::now());
        let Some(sample) = look(self.child.id()) else {
            return;
        };
        if warm {
            self.start.get_or_insert(sample);
        }
        self.last = sample;
        let most = &mut self.most;
        most.rss_kib = most.rss_kib.max(sample.rss_kib);
        most.anonymous_kib = most.anonymous_kib.max(sample.anonymous_kib);
        most.descriptors = most.descriptors.max(sample.descriptors);
        most.threads = most.threads.max(sample.threads);
        most.children = most.children.max(sample.children);
        most.cpu_cs = sample.cpu_cs;
    }

    /// Ends it by SIGTERM and looks at what stays: processes of its own, staged files, the lock.
    pub fn end(mut self, log: &Log) -> Ended {
        let _ = Command::new("/bin/sh")
            .args([
                "-c",
                "kill -s TERM \"$1\"",
                "sh",
                &self.child.id().to_string(),
            ])
            .status();
        let status = poll(LEAVES_WITHIN, || self.child.try_wait().ok().flatten());
        match status {
            Some(status) if status.success() => {}
            other => log.fault(format!("watch of {}: after SIGTERM {other:?}", self.kind)),
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        let orphans = with_state_dir(&self.state);
        if !orphans.is_empty() {
            log.fault(format!(
                "left behind by {}: processes {orphans:?}",
                self.kind
            ));
        }
        let staged: Vec<String> = fs::read_dir(&self.state)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("tmp"))
            .collect();
        if !staged.is_empty() {
            log.fault(format!("left behind by {}: {staged:?}", self.kind));
        }
        let text = self.text();
        let of = |level: &str| -> Vec<String> {
            text.lines()
                .filter(|line| line.to_lowercase().contains(level))
                .map(str::to_owned)
                .collect()
        };
        Ended {
            kind: self.kind,
            start: self.start.unwrap_or_default(),
            most: self.most,
            end: self.last,
            errors: of("error"),
            warnings: of("warn").len(),
            applied: text.matches("; reload").count(),
        }
    }
}

fn look(pid: u32) -> Option<Sample> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let number = |name: &str| -> u64 {
        status
            .lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_whitespace()
                    .next()?
                    .parse()
                    .ok()
            })
            .unwrap_or(0)
    };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let after: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let cpu = |at: usize| -> u64 {
        after
            .get(at)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    let children = fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .map(|text| text.split_whitespace().count())
        .sum();
    Some(Sample {
        rss_kib: number("VmRSS:"),
        anonymous_kib: number("RssAnon:"),
        threads: number("Threads:"),
        descriptors: fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count),
        children,
        cpu_cs: cpu(11) + cpu(12),
    })
}

/// Processes that were given this state folder: children of ours, and theirs.
fn with_state_dir(state: &Path) -> Vec<String> {
    let wanted = format!("COSMONAUT_STATE_DIR={}", state.display());
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            fs::read(entry.path().join("environ"))
                .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&wanted))
        })
        .map(|entry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            format!(
                "{} {}",
                entry.file_name().to_string_lossy(),
                String::from_utf8_lossy(&line).replace('\0', " ")
            )
        })
        .collect()
}
