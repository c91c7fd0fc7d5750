//! Making HAProxy load the file: by its master socket, or by the script; once more when the reload was
//! lost; and the proof, which is the fingerprint on HAProxy's own socket.

use std::path::Path;
use std::time::{Duration, Instant};

use super::script::Reloaded;
use super::{Settings, master, socket};
use crate::config;
use crate::error::{Error, Result};

/// How long HAProxy has to show the fingerprint of a new config after a reload.
const VERIFY_WITHIN: Duration = Duration::from_secs(5);
/// How often a reload is triggered: HAProxy loses a signal that comes while it starts, silently.
const RELOADS_MAX: u32 = 3;
/// Time limit for one question to HAProxy's socket.
const SOCKET_LIMIT: Duration = Duration::from_secs(2);
/// First and longest pause between two looks at HAProxy's socket.
const LOOK_PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));

/// By what a config went live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// The reload script.
    Script,
    /// The master socket.
    Master,
    /// The runtime socket, without a reload.
    Socket,
    /// HAProxy itself, which was started after the file was put in its place.
    Itself,
}

/// What a reload came to.
#[derive(Debug)]
pub enum Live {
    /// HAProxy runs it; `confirmed` by its own socket, or only by whoever reloaded.
    Yes {
        /// By what.
        by: By,
        /// Whether the fingerprint was seen.
        confirmed: bool,
    },
    /// Nobody is there to load it, in whose words.
    NotRunning(String),
}

/// Reloads, and where a socket is given makes sure that HAProxy shows the fingerprint.
///
/// # Errors
/// HAProxy's words, or that it shows another config however often it is asked.
pub fn reload(settings: &Settings, path: &Path, fingerprint: &str) -> Result<Live> {
    let by = match settings.master {
        Some(_) => By::Master,
        None => By::Script,
    };
    for attempt in 1..=RELOADS_MAX {
        let reloaded = match &settings.master {
            Some(address) => master::reload(address)?,
            None => settings.script.reload(path, fingerprint)?,
        };
        match reloaded {
            Reloaded::Live => {}
            Reloaded::NotRunning(words) => return Ok(Live::NotRunning(words)),
            Reloaded::Failed(words) => {
                return Err(Error::new("HAProxy did not take the config", words));
            }
        }
        match confirmed(settings, fingerprint)? {
            None => {
                return Ok(Live::Yes {
                    by,
                    confirmed: false,
                });
            }
            Some(true) => {
                return Ok(Live::Yes {
                    by,
                    confirmed: true,
                });
            }
            Some(false) => log::warn!(
                "HAProxy still runs another config {VERIFY_WITHIN:?} after reload {attempt} of {RELOADS_MAX}; \
                 a reload that is asked for while one runs is lost"
            ),
        }
    }
    Err(Error::new(
        "HAProxy did not take the config",
        format!("{RELOADS_MAX} reloads had no effect"),
    )
    .hint("does HAProxy read the file that --config names? a file mounted alone keeps its old content; mount its folder"))
}

/// Whether HAProxy shows this fingerprint now.
pub fn shows(settings: &Settings, fingerprint: &str) -> bool {
    shown(settings).is_some_and(|shown| shown.is_ok_and(|shown| shown == description(fingerprint)))
}

/// What HAProxy shows: by its runtime socket, or where that does not answer by its master's. `None` when
/// there is no socket to ask.
fn shown(settings: &Settings) -> Option<Result<String>> {
    let ask =
        |address, master| socket::info(address, master, SOCKET_LIMIT).map(|info| info.description);
    let by_master = || settings.master.as_ref().map(|address| ask(address, true));
    match settings.socket.as_ref().map(|address| ask(address, false)) {
        None => by_master(),
        Some(Ok(shown)) => Some(Ok(shown)),
        Some(Err(error)) => Some(by_master().and_then(Result::ok).ok_or(error)),
    }
}

fn description(fingerprint: &str) -> String {
    format!("{}{fingerprint}", config::DESCRIPTION_PREFIX)
}

/// Whether HAProxy shows the fingerprint; `None` when there is no socket to ask, or no fingerprint (a
/// config that was not ours).
fn confirmed(settings: &Settings, fingerprint: &str) -> Result<Option<bool>> {
    if fingerprint.is_empty() {
        return Ok(None);
    }
    let wanted = description(fingerprint);
    let until = Instant::now() + VERIFY_WITHIN;
    let mut pause = LOOK_PAUSES.0;
    loop {
        match shown(settings) {
            None => return Ok(None),
            Some(Ok(shown)) if shown == wanted => return Ok(Some(true)),
            Some(Ok(_)) if Instant::now() >= until => return Ok(Some(false)),
            Some(Err(error)) if Instant::now() >= until => return Err(error),
            // While it reloads, the socket may refuse, time out, or be the old worker's.
            Some(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(LOOK_PAUSES.1);
    }
}
