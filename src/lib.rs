//! Keeps the HAProxy of a Docker host in step with its containers.
//!
//! # The flow
//!
//! ```text
//! Docker events ─ bytes ─> http ─> docker/events ─> inbox ─> schedule ─ "now" ─┐
//!                                                                               v
//! sync:  docker list, inspect ─> inventory ─> address ─> service ─> Payload ─> registry ─> config ─> haproxy
//!                                                                  (Cosmos or embedded)   (compare, check, swap,
//!                                                                                          make live, verify)
//! ```
//!
//! `sync` is one pass; `watch` is the same pass on each wake. An event says only "look at this container
//! again" (or "it died", which needs no look); the truth is what inspect says then.
//!
//! # What must hold, and what is absent on purpose
//!
//! - Nothing is applied before everything was looked at once. A Docker that does not answer is not a Docker
//!   without containers: the config stands.
//! - A config is staged, checked, renamed into place, reloaded, verified; what fails is put back, and what
//!   HAProxy has not taken stays owed. It may be killed between any two steps.
//! - Only `docker` names Docker's JSON fields and paths; only `registry` names Cosmos's JSON; only
//!   `registry/template` and `config` write HAProxy syntax. These never import each other; `sync` joins them.
//! - Only `program` (and `transport` for ssh) runs programs; only `transport`, `registry/cosmos`,
//!   `haproxy/socket` and `notify` open sockets; only `watch` starts threads (and `transport` one for the
//!   resolver, which has no time limit); only `main` prints errors.
//! - Pure modules (`cli`, `http`, `config`, `decimal`, `description`, `service`, `inventory`, `id`, `names`, `roll`, `room`, `roster`, `schedule`, `sorted`,
//!   `timestamp`, `docker/{container,events}`, `address/mod`, `registry/{mod,answer,embedded,template}`, `report/{diff,explain,plan}`) name no file,
//!   network, process, thread, environment or clock. `tests/it` scans for it.
//! - No async runtime, no listener, no queue that can fill, no unsafe code, no wait without a limit.
//!
//! # The modules, in flow order
//!
//! [`cli`] -> `commands` (one function a command) -> `assembly` (options -> parts) -> [`watch`] and [`sync`].
//! In a pass: [`docker`] over [`transport`] and [`http`] -> [`inbox`], [`schedule`] -> [`inventory`] (with [`names`], [`roll`]),
//! [`description`], [`address`] (with [`overlay`] for Weave), [`service`], [`guard`] (with [`id`]) -> [`registry`] ->
//! [`haproxy`]. [`report`] reads what a pass left behind, or what a [`survey`] found where none is made.
//!
//! What one container changes is found without the others: the inventory says which services were touched, these alone
//! are sorted out, a [`roster`] of the last payload tells where they stand in it, and the built-in registry exchanges
//! them in its last text. Where more may have changed (a list, HAProxy's networks, Weave, Cosmos, services in each
//! other's way), everything is sorted out again.

pub mod address;
mod assembly;
pub mod atomic_file;
pub mod cli;
mod commands;
pub mod config;
pub mod decimal;
pub mod description;
pub mod docker;
pub mod error;
pub mod flapping;
pub mod guard;
pub mod haproxy;
pub mod http;
pub mod id;
pub mod inbox;
pub mod inventory;
mod json;
pub mod lock;
pub mod logging;
pub mod names;
pub mod notify;
mod order;
pub mod overlay;
pub mod program;
pub mod ready;
pub mod refrain;
pub mod registry;
pub mod report;
pub mod roll;
mod room;
pub mod roster;
pub mod schedule;
pub mod service;
pub mod sorted;
pub mod survey;
pub mod sync;
pub mod timestamp;
pub mod transport;
pub mod watch;

use std::ffi::OsString;

use cli::Command;
use error::{Error, Kind};
use haproxy::script;

/// Exit code of a failure: nothing was broken, the running config stands.
const FAILED: u8 = 1;
/// Exit code of a wrong command line.
const USAGE: u8 = 2;

/// Why the program ends with another code than 0, for `main` to print.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    /// The mend, if we can guess it.
    pub hint: Option<String>,
    /// Exit code.
    pub exit_code: u8,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
            exit_code: if error.is(Kind::Usage) { USAGE } else { FAILED },
        }
    }
}

/// Runs one command line (without the program's name) in the process's environment; returns the exit code.
///
/// # Errors
/// What `main` is to print, with the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> std::result::Result<u8, Failure> {
    let variable = |name: &str| std::env::var_os(name);
    let command = cli::parse(arguments, &variable, script::BUILT_IN).map_err(|error| Failure {
        message: error.to_string(),
        hint: error.hint_text().map(str::to_owned),
        exit_code: USAGE,
    })?;
    match command {
        Command::Print(text) => commands::print(&text)?,
        Command::Run(action, options) => {
            let journal = logging::is_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
            logging::init(options.log_level, options.log_format, journal);
            return Ok(commands::act(&action, &options)?);
        }
    }
    Ok(0)
}
