//! A config text -> HAProxy: compare, stage, check, swap, make live, verify, remember; on failure put the
//! last good one back. One path for every change.
//!
//! What must hold at every moment, also when this process is killed between any two steps: the file at the
//! config's path is whole and was accepted, and what HAProxy has not taken yet is known to be owed.
//! So a config is compared with what HAProxy last took, not with what was last written.
//!
//! It knows neither Docker nor registries.

pub mod changes;
pub mod memory;
pub mod script;
pub mod socket;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::atomic_file;
use crate::config;
use crate::error::{Error, Kind, Result};
use memory::{Memory, Taken};
use script::{Checked, Reloaded, Script};
use socket::SocketAddr;

/// How long HAProxy has to show the fingerprint of a new config after a reload.
const VERIFY_WITHIN: Duration = Duration::from_secs(5);
/// How often a reload is triggered: HAProxy loses a signal that comes while it starts, silently.
const RELOADS_MAX: u32 = 3;
/// Time limit for one question to HAProxy's socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause between two looks at HAProxy's socket.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Longest config that is read back from disk, in bytes.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// What came of handing over a config.
#[derive(Debug)]
pub enum Outcome {
    /// HAProxy runs exactly this already.
    Unchanged,
    /// HAProxy took it.
    Applied {
        /// How it went live.
        how: Applied,
        /// What changed, in words.
        changes: String,
    },
    /// It is installed, HAProxy is not running and takes it when it starts; it is still owed.
    NotRunning(String),
    /// HAProxy's check refused it, with its words; nothing was changed.
    Refused(String),
}

/// How a config went live, and how long each step took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Staging and checking.
    pub check: Duration,
    /// Putting the file in its place.
    pub swap: Duration,
    /// Reload and verification.
    pub reload: Duration,
    /// Whether HAProxy's own socket confirmed the fingerprint.
    pub confirmed: bool,
}

/// What handing over a config would come to.
#[derive(Debug)]
pub struct Plan {
    /// Path of haproxy.cfg.
    pub path: PathBuf,
    /// What it holds now, `None` when there is no such file.
    pub before: Option<String>,
    /// What it would hold.
    pub wanted: String,
    /// What HAProxy would be told.
    pub told: Told,
}

/// What HAProxy would be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It runs exactly this already.
    Nothing,
    /// To reload.
    Reload,
}

/// Where HAProxy is told what it runs, and by what it is verified.
#[derive(Debug)]
pub struct Settings {
    /// Path of haproxy.cfg.
    pub config: PathBuf,
    /// Folder of ours.
    pub state_dir: PathBuf,
    /// The reload script.
    pub script: Script,
    /// Runtime socket, if any.
    pub socket: Option<SocketAddr>,
    /// Master socket, if any.
    pub master: Option<SocketAddr>,
}

/// HAProxy, as far as it is ours to steer.
#[derive(Debug)]
pub struct Haproxy {
    settings: Settings,
    memory: Memory,
    unchecked_said: bool,
}

impl Haproxy {
    /// Remembers what an earlier run left in the state folder.
    pub fn new(settings: Settings) -> Self {
        let memory = Memory::new(&settings.state_dir, &settings.config);
        Haproxy {
            settings,
            memory,
            unchecked_said: false,
        }
    }

    /// Whether HAProxy last took the answer to the request of this `digest`, and the file still says so.
    pub fn holds(&self, request: &str) -> bool {
        self.memory.taken().is_some_and(|taken| {
            taken.request == request
                && self
                    .on_disk()
                    .is_some_and(|text| carries(&text, &taken.fingerprint))
        })
    }

    /// Fingerprint of the config that HAProxy last took, if that is known.
    pub fn taken(&self) -> Option<String> {
        self.memory.taken().map(|taken| taken.fingerprint)
    }

    /// What [`Haproxy::apply`] would do with this config. Changes nothing.
    pub fn plan(&self, text: &str) -> Plan {
        let wanted = config::with_fingerprint(text);
        let before = self.on_disk();
        let taken = self.taken();
        let said = config::split_fingerprint(&wanted).1;
        let told = if before.as_deref() == Some(wanted.as_str()) && taken.as_deref() == said {
            Told::Nothing
        } else {
            Told::Reload
        };
        Plan {
            path: self.target(),
            before,
            wanted,
            told,
        }
    }

    /// Hands a config to HAProxy; `request` is the digest of what the registry was asked.
    ///
    /// # Errors
    /// When a step fails. HAProxy then runs what it ran before, and so does the file say.
    pub fn apply(&mut self, text: &str, request: &str) -> Result<Outcome> {
        let wanted = config::with_fingerprint(text);
        let fingerprint = config::split_fingerprint(&wanted)
            .1
            .unwrap_or_default()
            .to_owned();
        let path = self.target();
        let before = self.on_disk();
        let taken = self.memory.taken();
        let in_place = before.as_deref() == Some(wanted.as_str());
        if in_place
            && taken
                .as_ref()
                .is_some_and(|taken| taken.fingerprint == fingerprint)
        {
            if taken.is_some_and(|taken| taken.request != request) {
                self.memory.remember(
                    &Taken {
                        fingerprint,
                        request: request.to_owned(),
                    },
                    &wanted,
                );
            }
            return Ok(Outcome::Unchanged);
        }

        let started = Instant::now();
        let mut checked = started;
        if !in_place {
            let staged = atomic_file::stage(&path, wanted.as_bytes())?;
            match self.settings.script.check(staged.path(), &fingerprint)? {
                Checked::Accepted => {}
                Checked::Refused(words) => return Ok(Outcome::Refused(words)),
                Checked::Unknown(words) => self.say_unchecked(&words),
            }
            checked = Instant::now();
            staged.install()?;
        }
        let swapped = Instant::now();
        match self.make_live(&path, &fingerprint) {
            Ok(Live::Yes { confirmed }) => {
                self.memory.remember(
                    &Taken {
                        fingerprint,
                        request: request.to_owned(),
                    },
                    &wanted,
                );
                let reload = swapped.elapsed();
                let how = Applied {
                    check: checked - started,
                    swap: swapped - checked,
                    reload,
                    confirmed,
                };
                Ok(Outcome::Applied {
                    how,
                    changes: changes::in_words(before.as_deref(), &wanted),
                })
            }
            Ok(Live::NotRunning(words)) => Ok(Outcome::NotRunning(words)),
            Err(error) => Err(self.roll_back(&path, before, error)),
        }
    }

    /// Reloads, and where a socket is given makes sure that HAProxy shows the fingerprint.
    fn make_live(&self, path: &Path, fingerprint: &str) -> Result<Live> {
        for attempt in 1..=RELOADS_MAX {
            match self.settings.script.reload(path, fingerprint)? {
                Reloaded::Live => {}
                Reloaded::NotRunning(words) => return Ok(Live::NotRunning(words)),
                Reloaded::Failed(words) => {
                    return Err(Error::new("HAProxy did not take the config", words));
                }
            }
            match self.confirmed(fingerprint)? {
                None => return Ok(Live::Yes { confirmed: false }),
                Some(true) => return Ok(Live::Yes { confirmed: true }),
                Some(false) => log::warn!(
                    "HAProxy still runs another config {VERIFY_WITHIN:?} after reload {attempt} of {RELOADS_MAX}; \
                     a reload that is asked for while one runs is lost"
                ),
            }
        }
        Err(Error::new("HAProxy did not take the config", format!("{RELOADS_MAX} reloads had no effect"))
            .hint("does HAProxy read the file that --config names? a file mounted alone keeps its old content; mount its folder"))
    }

    /// Whether HAProxy shows the fingerprint; `None` when there is no socket to ask.
    fn confirmed(&self, fingerprint: &str) -> Result<Option<bool>> {
        let (address, master) = match (&self.settings.socket, &self.settings.master) {
            (Some(socket), _) => (socket, false),
            (None, Some(master)) => (master, true),
            (None, None) => return Ok(None),
        };
        let wanted = format!("{}{fingerprint}", config::DESCRIPTION_PREFIX);
        let until = Instant::now() + VERIFY_WITHIN;
        let mut pause = LOOK_PAUSES.0;
        loop {
            match socket::info(address, master, SOCKET_LIMIT) {
                Ok(info) if info.description == wanted => return Ok(Some(true)),
                Ok(_) if Instant::now() >= until => return Ok(Some(false)),
                Err(error) if Instant::now() >= until => return Err(error),
                // While it reloads, the socket may refuse, time out, or be the old worker's.
                Ok(_) | Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(LOOK_PAUSES.1);
        }
    }

    /// Puts back what HAProxy ran before, and makes it live again in case HAProxy was lost on the way.
    fn roll_back(&self, path: &Path, before: Option<String>, error: Error) -> Error {
        let hint = error.hint_text().map(str::to_owned);
        let Some((text, fingerprint)) = self
            .memory
            .last_good()
            .or_else(|| before.map(|text| (text, String::new())))
        else {
            return error;
        };
        let put_back = atomic_file::replace(path, text.as_bytes())
            .and_then(|_| self.make_live(path, &fingerprint));
        let now = match put_back {
            Ok(Live::Yes { .. }) => "the last good config was put back and is live".to_owned(),
            Ok(Live::NotRunning(_)) => {
                "the last good config was put back; HAProxy is not running".to_owned()
            }
            Err(e) => format!(
                "the last good config was put back, but HAProxy does not take it either: {e}"
            ),
        };
        let error = Error::new(error.to_string(), now).kind(Kind::Failed);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn say_unchecked(&mut self, words: &str) {
        if !std::mem::replace(&mut self.unchecked_said, true) {
            log::warn!("configs are installed unchecked: {words}");
        }
    }

    /// The config's own file, past symbolic links: a link is not to be replaced by a file.
    fn target(&self) -> PathBuf {
        std::fs::canonicalize(&self.settings.config)
            .unwrap_or_else(|_| self.settings.config.clone())
    }

    /// The config at its path, as HAProxy would read it.
    pub fn on_disk(&self) -> Option<String> {
        read_text(&self.target())
    }
}

/// What a reload came to.
enum Live {
    Yes { confirmed: bool },
    NotRunning(String),
}

/// Whether a text is the config of this fingerprint: it says so, and its content agrees.
fn carries(text: &str, fingerprint: &str) -> bool {
    let (config, said) = config::split_fingerprint(text);
    said == Some(fingerprint) && config::fingerprint(config) == fingerprint
}

/// A text file of sane size, `None` when there is none.
fn read_text(path: &Path) -> Option<String> {
    let length = std::fs::metadata(path).ok()?.len();
    if length > CONFIG_BYTES_MAX {
        return None;
    }
    std::fs::read_to_string(path).ok()
}
