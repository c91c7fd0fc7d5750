//! What `watch` says of itself in `<state-dir>/status.json`, and what `cosmonaut status` makes of it.
//!
//! The file alone proves nothing: `watch` runs if it holds its lock. So the words of a dead one are shown
//! as what they are. It must not know how a pass is made.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decimal::Decimal;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::report::history::{self, Hold};
use crate::report::moment;
use crate::report::record::{self, Record};
use crate::sorted::Map;
use crate::timestamp::Timestamp;

/// Name of the file in the state folder.
pub const FILE: &str = "status.json";
/// Version of the file's shape; another one is not guessed at.
pub const VERSION: u32 = 1;
/// Largest file that is read, in bytes; ours has a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A config that is owed for longer is a failure of `status` too.
pub const OWED_MAX: Duration = Duration::from_secs(60);

/// The whole file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the file's shape.
    pub format: u32,
    /// Version of the program.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started.
    pub started: Timestamp,
    /// When this was written.
    pub written: Timestamp,
    /// The event stream; `None` in a `sync`, which has none.
    pub docker: Option<Docker>,
    /// The last pass.
    pub last_pass: Option<Pass>,
    /// The last pass that changed something.
    pub last_change: Option<Pass>,
    /// The config that HAProxy last took.
    pub config: Option<Taken>,
    /// What HAProxy has not taken, though it should have.
    pub owed: Option<Owed>,
    /// When the next pass is made without any news, after a failure.
    pub next_try: Option<Timestamp>,
    /// The registry.
    pub registry: Option<Registry>,
    /// What the containers came to in the last pass that could look at them.
    pub containers: Option<Containers>,
    /// Services that HAProxy refuses while all others are served, with its words.
    #[serde(default)]
    pub refused: Map<String, String>,
    /// What a rollback holds.
    pub hold: Option<Hold>,
}

/// How it stands with Docker's event stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Docker {
    /// The daemon's address.
    pub address: String,
    /// Whether the stream is open.
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
    /// API version while it is open.
    pub api: Option<String>,
    /// Why it is not open.
    pub why: Option<String>,
    /// When the last event that concerned us came.
    pub last_event: Option<Timestamp>,
}

/// One pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pass {
    /// When it began.
    pub at: Timestamp,
    /// Why it was made.
    pub cause: String,
    /// unchanged, applied, held or failed.
    pub outcome: String,
    /// Where it failed.
    pub stage: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// The mend.
    pub hint: Option<String>,
    /// What changed, in words.
    pub changes: Option<String>,
    /// How HAProxy took it.
    pub how: Option<String>,
    /// How long it took, in milliseconds.
    pub took_ms: f64,
}

/// The config that HAProxy last took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Where it is.
    pub path: PathBuf,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Since when HAProxy has it, as far as the history knows.
    pub since: Option<Timestamp>,
}

/// What HAProxy has not taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owed {
    /// Since when.
    pub since: Timestamp,
    /// Why, in HAProxy's words.
    pub why: String,
}

/// The registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// built-in or cosmos.
    pub name: String,
    /// fresh, held or built-in.
    pub state: String,
    /// Since when.
    pub since: Timestamp,
}

/// Counts of the monitored containers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containers {
    /// Containers that HAProxy routes to.
    pub routed: usize,
    /// Containers that wait for their address.
    pub pending: usize,
    /// Monitored containers that are not routed.
    pub left_out: usize,
    /// Services.
    pub services: usize,
}

impl Pass {
    /// What is told of a pass.
    pub fn of(record: &Record) -> Self {
        let failure = record.failure.as_ref();
        let applied = record.applied.as_ref();
        Pass {
            at: record.at,
            cause: record.cause.clone(),
            outcome: record.ended.word().to_owned(),
            stage: failure.map(|_| record.stage.word().to_owned()),
            error: failure.map(|failure| failure.why.clone()),
            hint: failure.and_then(|failure| failure.hint.clone()),
            changes: applied.map(|_| record.changes.clone()),
            how: applied.map(|applied| record::how(applied).to_owned()),
            took_ms: record::ms(Some(record.took)).into(),
        }
    }
}

/// Reads the file; `None` when there is none.
///
/// # Errors
/// When it cannot be read or understood.
pub fn read(state_dir: &Path) -> Result<Option<Status>> {
    let path = state_dir.join(FILE);
    let tried = || format!("cannot read {}", path.display());
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    match read {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            return Err(Error::new(tried(), e)
                .kind(Kind::Denied)
                .hint("run it as the user that runs watch"));
        }
        Err(e) => return Err(Error::new(tried(), e)),
        Ok(_) => {}
    }
    let mend =
        "is it of another version of cosmonaut? the running watch writes it anew within a minute";
    let status: Status = json::read(&bytes).map_err(|e| Error::new(tried(), e).hint(mend))?;
    if status.format != VERSION {
        let why = format!("it has format {}, known is {VERSION}", status.format);
        return Err(Error::new(tried(), why).hint(mend));
    }
    Ok(Some(status))
}

/// What `cosmonaut status` says.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// Whether a `watch` runs now.
    pub running: bool,
    /// Its process, or none.
    pub pid: Option<u32>,
    /// Whether all is well: it runs and owes nothing for over a minute.
    pub ok: bool,
    /// What the file says, of the running `watch` or of the last one.
    pub watch: Option<Status>,
}

impl View {
    /// Puts together what the file says and who holds the lock; a hold is what its own file says now.
    pub fn new(
        status: Option<Status>,
        holder: Option<u32>,
        hold: Option<Hold>,
        now: Timestamp,
    ) -> Self {
        let owed_too_long = status
            .as_ref()
            .and_then(|status| status.owed.as_ref())
            .is_some_and(|owed| moment::age(owed.since, now) > OWED_MAX);
        let watch = status.map(|status| Status { hold, ..status });
        View {
            running: holder.is_some(),
            pid: holder,
            ok: holder.is_some() && !owed_too_long,
            watch,
        }
    }

    /// For people.
    pub fn in_words(&self, now: Timestamp) -> String {
        let mut text = String::new();
        let mut line = |name: &str, words: String| {
            let words = words.replace('\n', "\n            ");
            let _ = writeln!(text, "{name:<11} {words}");
        };
        let Some(status) = &self.watch else {
            line(
                "watch",
                match self.pid {
                    Some(pid) => format!("pid {pid} starts; it has said nothing yet"),
                    None => "does not run, and has left no status in this state directory; start cosmonaut watch, or name its --state-dir".to_owned(),
                },
            );
            return text;
        };
        let ago =
            |then: Timestamp| format!("{then} ({} ago)", moment::in_words(moment::age(then, now)));
        line(
            "watch",
            match self.pid {
                Some(pid) if pid == status.pid => format!(
                    "runs since {}, pid {pid}, version {}",
                    ago(status.started),
                    status.version
                ),
                Some(pid) => format!(
                    "pid {pid} starts; what follows is of pid {}, written {}",
                    status.pid,
                    ago(status.written)
                ),
                None => format!(
                    "DOES NOT RUN; what follows is of pid {}, written {}",
                    status.pid,
                    ago(status.written)
                ),
            },
        );
        if let Some(docker) = &status.docker {
            line("Docker", docker.in_words(&ago));
        }
        line(
            "last pass",
            match &status.last_pass {
                Some(pass) => pass.in_words(&ago),
                None => "none yet".to_owned(),
            },
        );
        match (&status.last_pass, &status.last_change) {
            (Some(pass), Some(change)) if pass != change => {
                line("last change", change.in_words(&ago));
            }
            _ => {}
        }
        if let Some(taken) = &status.config {
            let since = taken
                .since
                .map_or(String::new(), |since| format!(", since {}", ago(since)));
            line(
                "config",
                format!("{} {}{since}", taken.path.display(), taken.fingerprint),
            );
        }
        line(
            "owed",
            match &status.owed {
                Some(owed) => format!(
                    "HAProxy HAS NOT TAKEN the newest config, since {}: {}",
                    ago(owed.since),
                    owed.why
                ),
                None => "nothing".to_owned(),
            },
        );
        if let Some(next) = status.next_try {
            let until = moment::in_words(moment::age(now, next));
            line("next try", format!("{} (in {until})", next.to_seconds()));
        }
        if let Some(registry) = &status.registry {
            line(
                "registry",
                format!(
                    "{}, {} since {}",
                    registry.name,
                    registry.state,
                    ago(registry.since)
                ),
            );
        }
        if let Some(containers) = &status.containers {
            line(
                "containers",
                format!(
                    "{} routed, {} pending, {} left out; services: {}",
                    containers.routed, containers.pending, containers.left_out, containers.services
                ),
            );
        }
        for (service, words) in status.refused.iter() {
            line("refused", format!("service {service}: {words}"));
        }
        if let Some(hold) = &status.hold {
            line("held", history::hold_in_words(hold));
        }
        text
    }
}

impl Docker {
    fn in_words(&self, ago: &impl Fn(Timestamp) -> String) -> String {
        let mut words = if self.connected {
            let api = self.api.as_deref().unwrap_or("unknown");
            format!(
                "{}, connected since {}, API {api}",
                self.address,
                ago(self.since)
            )
        } else {
            format!("{}, NOT CONNECTED since {}", self.address, ago(self.since))
        };
        if let Some(why) = &self.why {
            let _ = write!(words, ": {why}");
        }
        if let Some(last) = self.last_event {
            let _ = write!(words, "\nlast event {}", ago(last));
        }
        words
    }
}

impl Pass {
    fn in_words(&self, ago: &impl Fn(Timestamp) -> String) -> String {
        let mut words = format!(
            "{}: {}, {}, {} ms",
            ago(self.at),
            self.cause,
            self.outcome,
            Decimal::from(self.took_ms)
        );
        if let (Some(changes), Some(how)) = (&self.changes, &self.how) {
            let _ = write!(words, "\n{changes}; {how}");
        }
        if let (Some(error), Some(stage)) = (&self.error, &self.stage) {
            let _ = write!(words, "\nat {stage}: {error}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(words, "\nhint: {hint}");
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let at = |text| Timestamp::parse(text).expect("a time");
        Status {
            format: VERSION,
            version: "0.1.0".to_owned(),
            pid: 7,
            started: at("2026-11-22T10:00:00Z"),
            written: at("2026-11-22T11:59:00Z"),
            docker: Some(Docker {
                address: "unix:///var/run/docker.sock".to_owned(),
                connected: true,
                since: at("2026-11-22T10:00:01Z"),
                api: Some("1.41".to_owned()),
                why: None,
                last_event: Some(at("2026-11-22T11:58:57Z")),
            }),
            last_pass: Some(Pass {
                at: at("2026-11-22T11:58:57Z"),
                cause: "start of asteroid-a".to_owned(),
                outcome: "failed".to_owned(),
                stage: Some("check".to_owned()),
                error: Some("HAProxy's check refuses it: line 3".to_owned()),
                hint: Some("mend the base".to_owned()),
                changes: None,
                how: None,
                took_ms: 12.5,
            }),
            last_change: None,
            config: Some(Taken {
                path: "/etc/haproxy/haproxy.cfg".into(),
                fingerprint: "0123456789abcdef".to_owned(),
                since: Some(at("2026-11-22T10:00:02Z")),
            }),
            owed: Some(Owed {
                since: at("2026-11-22T11:58:57Z"),
                why: "line 3".to_owned(),
            }),
            next_try: Some(at("2026-11-22T12:00:05Z")),
            registry: Some(Registry {
                name: "cosmos".to_owned(),
                state: "held".to_owned(),
                since: at("2026-11-22T11:00:00Z"),
            }),
            containers: Some(Containers {
                routed: 3,
                pending: 1,
                left_out: 2,
                services: 2,
            }),
            refused: Map::from_iter([("odd".to_owned(), "line 9: no".to_owned())]),
            hold: None,
        }
    }

    #[test]
    fn it_comes_back_from_its_json() {
        let json = serde_json::to_string(&status()).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Status>(&json).expect(&json),
            status()
        );
    }

    #[test]
    fn well_means_that_it_runs_and_owes_nothing_for_long() {
        let owed = status().owed.expect("owed").since;
        let later = |seconds| Timestamp {
            seconds: owed.seconds + seconds,
            ..owed
        };
        let settled = Status {
            owed: None,
            ..status()
        };
        for (status, holder, seconds, ok) in [
            (Some(status()), Some(7), 60, true),
            (Some(status()), Some(7), 61, false),
            (Some(status()), None, 0, false),
            (Some(settled.clone()), Some(7), 9_999, true),
            (Some(settled), None, 0, false),
            (None, Some(7), 0, true),
            (None, None, 0, false),
        ] {
            let view = View::new(status, holder, None, later(seconds));
            assert_eq!(view.ok, ok, "{holder:?} {seconds}");
        }
    }

    #[test]
    fn words_for_people() {
        let now = Timestamp::parse("2026-11-22T12:00:00Z").expect("a time");
        let hold = Hold {
            since: None,
            number: 3,
            fingerprint: "fedcba9876543210".to_owned(),
        };
        let words = View::new(Some(status()), Some(7), Some(hold.clone()), now).in_words(now);
        let expected = "\
watch       runs since 2026-11-22T10:00:00Z (2h 0m ago), pid 7, version 0.1.0
Docker      unix:///var/run/docker.sock, connected since 2026-11-22T10:00:01Z (1h 59m ago), API 1.41
            last event 2026-11-22T11:58:57Z (1m 3s ago)
last pass   2026-11-22T11:58:57Z (1m 3s ago): start of asteroid-a, failed, 12.5 ms
            at check: HAProxy's check refuses it: line 3
            hint: mend the base
config      /etc/haproxy/haproxy.cfg 0123456789abcdef, since 2026-11-22T10:00:02Z (1h 59m ago)
owed        HAProxy HAS NOT TAKEN the newest config, since 2026-11-22T11:58:57Z (1m 3s ago): line 3
next try    2026-11-22T12:00:05Z (in 5s)
registry    cosmos, held since 2026-11-22T11:00:00Z (1h 0m ago)
containers  3 routed, 1 pending, 2 left out; services: 2
refused     service odd: line 9: no
held        a rollback holds config fedcba9876543210; `cosmonaut resume` or SIGHUP ends that
";
        assert_eq!(words, expected);
        let dead = View::new(Some(status()), None, Some(hold), now).in_words(now);
        assert!(
            dead.starts_with(
                "watch       DOES NOT RUN; what follows is of pid 7, written 2026-11-22T11:59:00Z"
            ),
            "{dead}"
        );
        let none = View::new(None, None, None, now).in_words(now);
        assert!(none.starts_with("watch       does not run"), "{none}");
    }
}
