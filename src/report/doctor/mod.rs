//! `doctor`: looks at everything that a pass needs, in the order in which a pass needs it.
//!
//! It changes nothing: no file is written but those without a name for a program's output, nothing is reloaded,
//! and Cosmos, which stores what it is asked, is asked only on request. Each look has a limit of its own and all
//! of them one together, so that it ends within 20 s on a host where nothing answers.
//!
//! `fail` is what keeps a pass, or the requests of a service, from working as they are meant; `warn` what works
//! and yet deserves a look. Each says what to do.

mod containers;
mod docker;
mod files;
mod haproxy;
mod listening;
mod registry;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::docker::endpoint::Resolved;
use crate::error::{Error, Result};
use crate::haproxy::script::Script;
use crate::haproxy::socket::SocketAddr;
use crate::inventory::Interest;
use crate::overlay::Overlay;
use crate::registry::cosmos::Cosmos;

/// All looks together; what is left over then is named and not done.
const TIME_MAX: Duration = Duration::from_secs(18);

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// Works, and deserves a look.
    Warn,
    /// Does not work.
    Fail,
}

/// One line of the doctor's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at: a word that stays the same from version to version.
    pub check: &'static str,
    /// How it came out.
    pub verdict: Verdict,
    /// What was found.
    pub message: String,
    /// What to do about it; `None` when there is nothing to do.
    pub mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, message: impl Into<String>) -> Finding {
        Finding {
            check,
            verdict: Verdict::Ok,
            message: message.into(),
            mend: None,
        }
    }

    fn warn(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Warn,
            mend: Some(mend.into()),
            ..Finding::ok(check, message)
        }
    }

    fn fail(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Finding {
        Finding {
            verdict: Verdict::Fail,
            ..Finding::warn(check, message, mend)
        }
    }

    /// A failure of ours; its hint is the mend, `mend` stands in where it has none.
    fn error(check: &'static str, error: &Error, mend: &str) -> Finding {
        let mend = error.hint_text().unwrap_or(mend);
        Finding::fail(check, error.to_string(), mend)
    }
}

/// One line for people.
pub fn line(finding: &Finding) -> String {
    let word = match finding.verdict {
        Verdict::Ok => "ok  ",
        Verdict::Warn => "warn",
        Verdict::Fail => "fail",
    };
    let one_line = |text: &str| -> String {
        text.chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect()
    };
    let mend = match &finding.mend {
        Some(mend) => format!("; mend: {}", one_line(mend)),
        None => String::new(),
    };
    format!(
        "{word} {}: {}{mend}\n",
        finding.check,
        one_line(&finding.message)
    )
}

/// Everything that is looked at, as far as it could be built from the options.
pub struct Subject {
    /// Where Docker is, and who said so.
    pub docker: Result<Resolved>,
    /// The keyword as it was given.
    pub keyword: String,
    /// Which containers concern us.
    pub interest: Interest,
    /// `--network`.
    pub network: Option<String>,
    /// An address of this host.
    pub host: Option<IpAddr>,
    /// Weave's side; `None` with `--weave never`.
    pub overlay: Result<Option<Overlay>>,
    /// The registry.
    pub registry: Registry,
    /// The registry's table.
    pub table: String,
    /// Folder of ours, as it was given.
    pub state_dir: PathBuf,
    /// haproxy.cfg, absolute.
    pub config: PathBuf,
    /// `--script`, if one was given.
    pub script_path: Option<PathBuf>,
    /// The script, with a limit of the doctor's.
    pub script: Script,
    /// Runtime socket.
    pub socket: Result<Option<SocketAddr>>,
    /// Master socket.
    pub master: Result<Option<SocketAddr>>,
}

/// The registry that passes ask.
pub enum Registry {
    /// The built-in one, with the path of `--base` if one was given: whether its base can be used.
    BuiltIn(Option<PathBuf>, Result<()>),
    /// Cosmos, and whether it may be asked.
    Cosmos(Box<Result<Cosmos>>, Ask),
}

/// Whether Cosmos, which stores what it is asked, may be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// It may.
    Yes,
    /// It may not.
    No,
}

/// The longest time that one script check may take here.
pub const SCRIPT_MAX: Duration = Duration::from_secs(6);

/// How much time is left.
#[derive(Debug, Clone, Copy)]
struct Budget(Instant);

impl Budget {
    /// At most `own`, and never more than what is left; `None` when nothing is.
    fn at_most(&self, own: Duration) -> Option<Duration> {
        let left = self.0.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| own.min(left))
    }

    /// The same, with the line that says that there was no time.
    fn take(&self, check: &'static str, own: Duration) -> std::result::Result<Duration, Finding> {
        self.at_most(own).ok_or_else(|| {
            Finding::warn(
                check,
                format!(
                    "not looked at: the looks before took {} s",
                    TIME_MAX.as_secs()
                ),
                "mend what is named above, then run it again",
            )
        })
    }
}

/// Looks at everything; each finding is told as soon as it is made.
pub fn examine(mut subject: Subject, tell: &mut dyn FnMut(Finding)) {
    let budget = Budget(Instant::now() + TIME_MAX);
    let seen = docker::look(&subject, budget, tell);
    if let Some(seen) = seen {
        containers::look(
            &mut subject,
            seen.docker,
            &seen.rows,
            seen.local,
            budget,
            tell,
            &seen.haproxy,
        );
        registry::look(&subject, budget, tell);
        files::look(&subject, tell);
        haproxy::look(&subject, Some((&seen.haproxy, seen.local)), budget, tell);
    } else {
        registry::look(&subject, budget, tell);
        files::look(&subject, tell);
        haproxy::look(&subject, None, budget, tell);
    }
}
