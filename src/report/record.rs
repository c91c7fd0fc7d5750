//! What one pass came to: the only account of it. The log line is made here; status, metrics and history
//! read the fields.
//!
//! It knows no file and no container by name. Times are spans; `at` is the one reading of the clock.

use std::time::{Duration, Instant};

use crate::decimal::Decimal;
use crate::error::Error;
use crate::haproxy::{Applied, By};
use crate::report::moment;
use crate::timestamp::Timestamp;

/// What log lines of passes are marked with, `pass` in JSON.
const LOG_TARGET: &str = "cosmonaut::pass";

/// How far a pass came; in a failed one, where it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Stage {
    /// Waiting for another pass to end.
    #[default]
    Lock,
    /// Looking at Docker.
    Look,
    /// Asking the registry.
    Ask,
    /// HAProxy's check of the staged config.
    Check,
    /// Putting it in place and making it live.
    Apply,
}

impl Stage {
    /// Every stage, in the order of a pass.
    pub const ALL: [Stage; 5] = [
        Stage::Lock,
        Stage::Look,
        Stage::Ask,
        Stage::Check,
        Stage::Apply,
    ];

    /// Its name in status, metrics and log.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Lock => "lock",
            Stage::Look => "look",
            Stage::Ask => "ask",
            Stage::Check => "check",
            Stage::Apply => "apply",
        }
    }
}

/// How a pass ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ended {
    /// HAProxy ran the right config before.
    #[default]
    Unchanged,
    /// HAProxy took a new one.
    Applied,
    /// A rollback holds the config; nothing was asked or changed.
    Held,
    /// The config is in its place, but HAProxy does not run; it is still owed.
    NotRunning,
    /// It failed at its stage; the running config stands.
    Failed,
}

impl Ended {
    /// Every end.
    pub const ALL: [Ended; 5] = [
        Ended::Unchanged,
        Ended::Applied,
        Ended::Held,
        Ended::NotRunning,
        Ended::Failed,
    ];

    /// Its name in status, metrics and log.
    pub fn word(self) -> &'static str {
        match self {
            Ended::Unchanged => "unchanged",
            Ended::Applied => "applied",
            Ended::Held => "held",
            Ended::NotRunning => "not_running",
            Ended::Failed => "failed",
        }
    }
}

/// How it stands with the registry's answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// The config is the registry's answer to what runs now.
    Fresh,
    /// The registry does not answer; the last config is held.
    Held,
    /// Cosmos does not answer and the built-in registry stands in.
    BuiltIn,
}

impl Answers {
    /// Every state.
    pub const ALL: [Answers; 3] = [Answers::Fresh, Answers::Held, Answers::BuiltIn];

    /// Its name in status and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Answers::Fresh => "fresh",
            Answers::Held => "held",
            Answers::BuiltIn => "built-in",
        }
    }
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub why: String,
    /// The mend, if we can guess it.
    pub hint: Option<String>,
}

/// How many containers came to what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Containers that HAProxy routes to.
    pub routed: usize,
    /// Containers that wait for their address.
    pub pending: usize,
    /// Monitored containers that are not routed.
    pub left_out: usize,
    /// Services.
    pub services: usize,
}

/// One pass.
#[derive(Debug, Clone)]
pub struct Record {
    /// When it began.
    pub at: Timestamp,
    /// Why it was made.
    pub cause: String,
    /// How far it came.
    pub stage: Stage,
    /// How it ended.
    pub ended: Ended,
    /// Why it failed, or why HAProxy could not take it.
    pub failure: Option<Failure>,
    /// What the containers came to; `None` when they could not be looked at.
    pub counts: Option<Counts>,
    /// How it stands with the registry; `None` when the pass did not come so far.
    pub answers: Option<Answers>,
    /// What changed, in words; empty when nothing did.
    pub changes: String,
    /// Services that HAProxy refuses while all others are served, with its words.
    pub refused: Vec<(String, String)>,
    /// How HAProxy took it, if it took something.
    pub applied: Option<Applied>,
    /// Time spent looking at Docker.
    pub look: Option<Duration>,
    /// Time spent asking the registry.
    pub ask: Option<Duration>,
    /// Time spent on everything.
    pub took: Duration,
    begun: Instant,
}

impl Record {
    /// A pass that begins now.
    pub fn begin(cause: &str) -> Self {
        Record {
            at: moment::now(),
            cause: cause.to_owned(),
            stage: Stage::Lock,
            ended: Ended::Unchanged,
            failure: None,
            counts: None,
            answers: None,
            changes: String::new(),
            refused: Vec::new(),
            applied: None,
            look: None,
            ask: None,
            took: Duration::ZERO,
            begun: Instant::now(),
        }
    }

    /// Notes what the end of the pass was.
    pub fn end(&mut self, ended: Result<Ended, &Error>) {
        self.took = self.begun.elapsed();
        match ended {
            Ok(ended) => self.ended = ended,
            Err(error) => {
                self.ended = Ended::Failed;
                self.failure = Some(Failure {
                    why: error.to_string(),
                    hint: error.hint_text().map(str::to_owned),
                });
                if self.stage == Stage::Ask {
                    self.answers = Some(Answers::Held);
                }
            }
        }
    }

    /// Logs the one line of a pass that changed something: why, what, how HAProxy took it, and how long
    /// each step took. In JSON the same stands in fields of its own.
    pub fn log_applied(&self) {
        let Some(applied) = &self.applied else { return };
        let (look, ask) = (ms(self.look), ms(self.ask));
        let (check, swap, reload) = (
            ms(Some(applied.check)),
            ms(Some(applied.swap)),
            ms(Some(applied.reload)),
        );
        let counts = self.counts.unwrap_or_default();
        log::info!(
            target: LOG_TARGET,
            cause = self.cause.as_str(),
            changes = self.changes.as_str(),
            how = how(applied),
            confirmed = applied.confirmed,
            services = counts.services,
            routed = counts.routed,
            look_ms = f64::from(look),
            ask_ms = f64::from(ask),
            check_ms = f64::from(check),
            swap_ms = f64::from(swap),
            live_ms = f64::from(reload),
            total_ms = f64::from(ms(Some(self.took)));
            "{} ({}); {}; look {look:.1} ms, ask {ask:.1} ms, check {check:.1} ms, swap {swap:.1} ms, live {reload:.1} ms",
            self.changes,
            self.cause,
            in_words(applied),
        );
    }

    /// How loud a pass that did not do its work is told: a HAProxy that is down needs no mending of ours.
    pub fn loudness(&self) -> log::Level {
        match self.ended {
            Ended::NotRunning => log::Level::Warn,
            _ => log::Level::Error,
        }
    }

    /// Why the pass did not do its work, with the mend; empty if it did.
    pub fn trouble(&self) -> String {
        let Some(failure) = &self.failure else {
            return String::new();
        };
        match &failure.hint {
            Some(hint) => format!("{} (hint: {hint})", failure.why),
            None => failure.why.clone(),
        }
    }

    /// Logs that the pass did not do its work, and what happens `next`.
    pub fn log_trouble(&self, level: log::Level, next: &str) {
        let hint = self
            .failure
            .as_ref()
            .and_then(|failure| failure.hint.as_deref());
        log::log!(
            target: LOG_TARGET,
            level,
            cause = self.cause.as_str(),
            stage = self.stage.word(),
            hint = hint.unwrap_or_default();
            "{}{next}",
            self.trouble()
        );
    }
}

/// The way by which a config went live, as one word for machines.
pub fn how(applied: &Applied) -> &'static str {
    match applied.by {
        By::Script => "script",
        By::Master => "master",
        By::Socket => "socket",
        By::Itself => "itself",
    }
}

/// The same for people.
pub fn in_words(applied: &Applied) -> &'static str {
    match (applied.by, applied.confirmed) {
        (By::Socket, _) => "without a reload",
        (By::Itself, _) => "HAProxy took it as it started",
        (By::Script | By::Master, true) => "reloaded and confirmed",
        (By::Script | By::Master, false) => "reloaded",
    }
}

/// Milliseconds to a tenth.
pub fn ms(time: Option<Duration>) -> Decimal {
    Decimal::milliseconds(time.unwrap_or_default())
}
