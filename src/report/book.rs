//! The book that a `watch` keeps of itself: what it knows of Docker's event stream and of its passes, and
//! when that is written to the status file and the metrics file.
//!
//! A change is written down at once; passes that changed nothing at most once a second, for events may come
//! by the thousand. It must not know how a pass is made.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::atomic_file::{self, Durability};
use crate::error::{Error, Result};
use crate::order;
use crate::report::history::History;
use crate::report::metrics::Metrics;
use crate::report::moment;
use crate::report::record::{Answers, Ended, Record, Stage};
use crate::report::status::{self, Containers, Docker, Owed, Pass, Registry, Status, Taken};
use crate::sorted::Map;
use crate::timestamp::Timestamp;

/// Shortest time between two writings of passes that changed nothing.
const QUIET: Duration = Duration::from_secs(1);

/// How it stands with Docker's event stream, as its reader tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It is open; the API version.
    Up(String),
    /// It is not; why.
    Down(String),
}

/// What the book is about.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The state folder.
    pub state_dir: PathBuf,
    /// The config that HAProxy reads.
    pub config: PathBuf,
    /// The registry's name.
    pub registry: &'static str,
    /// `--metrics-file`.
    pub metrics_file: Option<PathBuf>,
}

/// The book.
#[derive(Debug)]
pub struct Book {
    status: Status,
    subject: Subject,
    history: History,
    metrics: Option<Metrics>,
    /// Something is not written yet, and since when that may be written.
    unwritten: Option<Instant>,
    written: Option<Instant>,
    trouble: Option<String>,
}

impl Book {
    /// An empty book.
    pub fn new(subject: Subject) -> Self {
        let now = moment::now();
        let history = History::new(&subject.state_dir);
        let status = Status {
            format: status::VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: now,
            written: now,
            docker: None,
            last_pass: None,
            last_change: None,
            config: None,
            owed: None,
            next_try: None,
            registry: None,
            containers: None,
            refused: Map::default(),
            hold: None,
        };
        Book {
            status,
            history,
            metrics: subject.metrics_file.as_deref().map(Metrics::new),
            subject,
            unwritten: None,
            written: None,
            trouble: None,
        }
    }

    /// Notes that Docker's events are followed at this address; not yet, at the beginning.
    pub fn follows(&mut self, address: &str) {
        self.status.docker = Some(Docker {
            address: address.to_owned(),
            connected: false,
            since: moment::now(),
            api: None,
            why: None,
            last_event: None,
        });
        self.unwritten = Some(Instant::now());
    }

    /// Notes that the event stream opened or ended.
    pub fn link(&mut self, link: Link, at: Timestamp) {
        let Some(docker) = &mut self.status.docker else {
            return;
        };
        let (connected, api, why) = match link {
            Link::Up(api) => (true, Some(api), None),
            Link::Down(why) => (false, None, Some(why)),
        };
        if connected || docker.connected || docker.why.is_none() {
            docker.since = at;
        }
        (docker.connected, docker.api, docker.why) = (connected, api, why);
        self.unwritten = Some(Instant::now());
    }

    /// Notes that events came.
    pub fn events(&mut self) {
        if let Some(docker) = &mut self.status.docker {
            docker.last_event = Some(moment::now());
        }
    }

    /// Notes what a pass came to; `next_try` is when a failed one is made again.
    pub fn passed(&mut self, record: &Record, next_try: Option<Instant>) {
        let pass = Pass::of(record);
        let urgent = record.ended != Ended::Unchanged
            || self.status.last_pass.as_ref().map(|p| &p.outcome) != Some(&pass.outcome);
        let status = &mut self.status;
        if record.ended == Ended::Applied {
            status.last_change = Some(pass.clone());
        }
        status.last_pass = Some(pass);
        if let Some(counts) = record.counts {
            status.containers = Some(Containers {
                routed: counts.routed,
                pending: counts.pending,
                left_out: counts.left_out,
                services: counts.services,
            });
        }
        let state = record.answers.map(Answers::word);
        if let Some(state) = state
            && status.registry.as_ref().map(|known| known.state.as_str()) != Some(state)
        {
            status.registry = Some(Registry {
                name: self.subject.registry.to_owned(),
                state: state.to_owned(),
                since: record.at,
            });
        }
        match (&record.failure, &mut status.owed) {
            (Some(failure), owed) if record.stage >= Stage::Check => {
                let since = owed.as_ref().map_or(record.at, |owed| owed.since);
                *owed = Some(Owed {
                    since,
                    why: failure.why.clone(),
                });
            }
            // A pass that failed before it came to HAProxy has paid nothing.
            (Some(_), _) => {}
            (None, owed) => *owed = None,
        }
        if record.ended != Ended::Failed {
            status.refused = order::gathered(record.refused.iter().cloned());
        }
        status.next_try = record.failure.as_ref().and(next_try).map(moment::at);
        status.hold = if record.ended == Ended::Held {
            // The pass has just read it; if it is out of reach now, the next pass says so.
            self.history.hold().ok().flatten()
        } else {
            None
        };
        if let Some(metrics) = &mut self.metrics {
            metrics.count(record);
        }
        let now = Instant::now();
        let due = match self.written {
            Some(written) if !urgent => (written + QUIET).max(now),
            _ => now,
        };
        self.unwritten = Some(self.unwritten.map_or(due, |earlier| earlier.min(due)));
    }

    /// Notes what HAProxy has.
    pub fn taken(&mut self, fingerprint: Option<String>) {
        let known = self.status.config.as_ref().map(|taken| &taken.fingerprint);
        if known == fingerprint.as_ref() {
            return;
        }
        let newest_of = |fingerprint: &String| {
            let entries = self.history.entries().ok()?;
            let entry = entries
                .into_iter()
                .find(|e| e.fingerprint == *fingerprint)?;
            Some(entry.time)
        };
        self.status.config = fingerprint.map(|fingerprint| Taken {
            path: self.subject.config.clone(),
            since: newest_of(&fingerprint),
            fingerprint,
        });
    }

    /// When something must be written that is not.
    pub fn due(&self) -> Option<Instant> {
        self.unwritten
    }

    /// Writes what is due; a failure is said once and never stops a pass.
    pub fn write(&mut self) {
        let now = Instant::now();
        if self.unwritten.is_none_or(|at| at > now) {
            return;
        }
        self.unwritten = None;
        self.written = Some(now);
        self.status.written = moment::now();
        let written = self.write_status(&self.subject.state_dir);
        self.tell(written.and_then(|()| self.write_metrics()));
    }

    /// Writes the metrics alone: for a `sync`.
    pub fn write_only_metrics(&mut self) {
        let written = self.write_metrics();
        self.tell(written);
    }

    fn write_status(&self, state_dir: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec(&self.status)
            .map_err(|e| Error::new("cannot write down the status", e))?;
        bytes.push(b'\n');
        let path = state_dir.join(status::FILE);
        atomic_file::replace_with(&path, &[&bytes], Durability::Kernel).map(drop)
    }

    fn write_metrics(&self) -> Result<()> {
        match &self.metrics {
            Some(metrics) => metrics.write(&self.status),
            None => Ok(()),
        }
    }

    fn tell(&mut self, written: Result<()>) {
        let words = written.err().map(|error| match error.hint_text() {
            Some(hint) => format!("{error} (hint: {hint})"),
            None => error.to_string(),
        });
        if let Some(words) = &words
            && self.trouble.as_ref() != Some(words)
        {
            log::warn!("{words}; routing goes on without it");
        }
        self.trouble = words;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::record::Failure;

    fn record(ended: Ended, stage: Stage) -> Record {
        let mut record = Record::begin("test");
        record.ended = ended;
        record.stage = stage;
        if matches!(ended, Ended::Failed | Ended::NotRunning) {
            record.failure = Some(Failure {
                why: format!("{} failed", stage.word()),
                hint: None,
            });
        }
        record.answers = match (ended, stage) {
            (_, Stage::Lock | Stage::Look) => None,
            (Ended::Failed, Stage::Ask) => Some(Answers::Held),
            _ => Some(Answers::Fresh),
        };
        record
    }

    fn book(name: &str) -> Book {
        let state_dir =
            std::env::temp_dir().join(format!("cosmonaut-book-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&state_dir).expect("a folder");
        Book::new(Subject {
            state_dir,
            config: "/etc/haproxy/haproxy.cfg".into(),
            registry: "cosmos",
            metrics_file: None,
        })
    }

    #[test]
    fn what_is_owed_and_how_the_registry_stands() {
        let mut book = book("owed");
        for (ended, stage, owed, registry) in [
            (Ended::Failed, Stage::Look, None, None),
            (Ended::Applied, Stage::Apply, None, Some("fresh")),
            (Ended::Failed, Stage::Ask, None, Some("held")),
            (
                Ended::Failed,
                Stage::Check,
                Some("check failed"),
                Some("fresh"),
            ),
            (
                Ended::Failed,
                Stage::Apply,
                Some("apply failed"),
                Some("fresh"),
            ),
            // What is owed stays owed while the pass does not come that far.
            (
                Ended::Failed,
                Stage::Look,
                Some("apply failed"),
                Some("fresh"),
            ),
            (Ended::Unchanged, Stage::Ask, None, Some("fresh")),
            (
                Ended::NotRunning,
                Stage::Apply,
                Some("apply failed"),
                Some("fresh"),
            ),
            (Ended::Held, Stage::Look, None, Some("fresh")),
        ] {
            let since = book.status.owed.as_ref().map(|owed| owed.since);
            let soon = Instant::now() + Duration::from_secs(9);
            book.passed(&record(ended, stage), Some(soon));
            let status = &book.status;
            let why = status.owed.as_ref().map(|owed| owed.why.as_str());
            assert_eq!(why, owed, "{ended:?} {stage:?}");
            let state = status.registry.as_ref().map(|known| known.state.as_str());
            assert_eq!(state, registry, "{ended:?} {stage:?}");
            let failed = matches!(ended, Ended::Failed | Ended::NotRunning);
            assert_eq!(status.next_try.is_some(), failed, "{ended:?}");
            if let (Some(before), Some(now)) = (since, &status.owed) {
                assert_eq!(now.since, before, "it counts from the first failure");
            }
        }
        std::fs::remove_dir_all(&book.subject.state_dir).expect("removed");
    }

    #[test]
    fn what_changes_nothing_is_written_once_a_second() {
        let mut book = book("quiet");
        book.follows("unix:///d.sock");
        let path = book.subject.state_dir.join(status::FILE);
        let mut written = || {
            let _ = std::fs::remove_file(&path);
            book.write();
            path.exists()
        };
        assert!(written(), "the beginning");
        assert!(!written(), "nothing is new");
        book.passed(&record(Ended::Applied, Stage::Apply), None);
        let mut written = |ended| {
            let _ = std::fs::remove_file(&path);
            book.passed(&record(ended, Stage::Apply), None);
            book.write();
            path.exists()
        };
        assert!(written(Ended::Unchanged), "the outcome is another one");
        for _ in 0..50 {
            assert!(!written(Ended::Unchanged), "the same again");
        }
        assert!(written(Ended::Applied));
        assert!(book.due().is_none());
        book.link(Link::Down("closed".to_owned()), moment::now());
        book.write();
        let status = status::read(&book.subject.state_dir)
            .expect("good")
            .expect("there");
        assert_eq!(
            status.docker.expect("docker").why.as_deref(),
            Some("closed")
        );
        std::fs::remove_dir_all(&book.subject.state_dir).expect("removed");
    }
}
