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
//! - Only `program` (and `transport` for ssh) runs programs; only `transport`, `registry/cosmos` and
//!   `haproxy/socket` open sockets; only `watch` starts threads (and `transport` one for the resolver, which
//!   has no time limit); only `main` prints errors.
//! - Pure modules (`cli`, `http`, `config`, `description`, `service`, `inventory`, `schedule`, `timestamp`,
//!   `docker/{container,events}`, `address/mod`, `registry/{mod,answer,embedded,template}`) name no file,
//!   network, process, thread, environment or clock. `tests/it` scans for it.
//! - No async runtime, no listener, no queue that can fill, no unsafe code, no wait without a limit.
//!
//! # The modules, in flow order
//!
//! [`cli`] -> [`docker`] over [`transport`] and [`http`] -> [`inbox`], [`schedule`], [`watch`] ->
//! [`inventory`], [`description`], [`address`], [`service`] -> [`registry`] -> [`haproxy`], joined by [`sync`].

pub mod address;
pub mod atomic_file;
pub mod cli;
pub mod config;
pub mod description;
pub mod docker;
pub mod error;
pub mod guard;
pub mod haproxy;
pub mod http;
pub mod inbox;
pub mod inventory;
pub mod lock;
pub mod logging;
pub mod overlay;
pub mod program;
pub mod refrain;
pub mod registry;
pub mod report;
pub mod schedule;
pub mod service;
pub mod sync;
pub mod timestamp;
pub mod transport;
pub mod watch;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use address::poller;
use address::router::Router;
use address::{router, weave};
use cli::{Action, Command, OnOutage, Options, WeaveUse};
use docker::{Docker, endpoint};
use error::{Error, Result};
use haproxy::Haproxy;
use haproxy::script::{self, Script};
use haproxy::socket::SocketAddr;
use inbox::{Inbox, News};
use inventory::{Interest, Keyword};
use overlay::{Asker, Overlay};
use registry::Registry;
use registry::cosmos::{self, Cosmos};
use registry::embedded::Embedded;
use registry::ladder::Ladder;
use registry::store::Store;
use registry::template::Base;
use sync::{Look, Outcome, Syncer};

/// Exit code of a failure: nothing was broken, the running config stands.
const FAILED: u8 = 1;
/// For how long Cosmos may fail before the built-in registry takes over, with `--on-outage built-in`.
const COSMOS_OUTAGE: Duration = Duration::from_secs(30);
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
            exit_code: if error.is(error::Kind::Usage) {
                USAGE
            } else {
                FAILED
            },
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
        Command::Print(text) => print(&text)?,
        Command::Run(action, options) => {
            let journal = logging::is_journal(std::env::var_os("JOURNAL_STREAM").as_deref());
            logging::init(options.log_level, options.log_format, journal);
            act(&action, &options)?;
        }
    }
    Ok(0)
}

fn act(action: &Action, options: &Options) -> Result<()> {
    match action {
        Action::Sync => sync_once(options),
        Action::Watch => watch_on(options),
        _ => Err(Error::new(
            "this command is not there yet",
            "it comes with a later version",
        )),
    }
}

fn sync_once(options: &Options) -> Result<()> {
    let patience = Patience {
        pause: Box::new(|time| {
            std::thread::sleep(time);
            true
        }),
        // A pass that must end cannot wait: the tries within it were the wait.
        take_over: Duration::ZERO,
        addresses: poller::DEADLINE,
    };
    let mut syncer = Syncer::new(parts(options, patience)?);
    let asked = News {
        asked: true,
        ..News::default()
    };
    match syncer.pass(&asked, Look::Afresh)? {
        Outcome::Unchanged => Ok(()),
        Outcome::NotRunning(words) => {
            log::warn!("the config is in its place, but HAProxy is not running ({words})");
            Ok(())
        }
        Outcome::Applied(report) => print(&format!("{}\n", report.changes)),
    }
}

fn watch_on(options: &Options) -> Result<()> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    let _lock = lock::take(&state_dir, lock::WATCH, Duration::ZERO)
        .map_err(|error| error.hint("only one watch may run with one --state-dir"))?;
    let inbox = Inbox::default();
    let waiting = inbox.clone();
    let patience = Patience {
        pause: Box::new(move |time| waiting.pause(time)),
        take_over: COSMOS_OUTAGE,
        addresses: Duration::ZERO,
    };
    let parts = parts(options, patience)?;
    let events = docker(options)?;
    let interest = parts.interest.clone();
    let schedule = schedule::Schedule::new(options.settle, options.settle_max, options.resync);
    watch::run(Syncer::new(parts), events, interest, inbox, schedule)
}

/// How long a pass waits for others.
struct Patience {
    /// The wait between two tries of Cosmos.
    pause: cosmos::Pause,
    /// For how long it may fail before the built-in registry takes over, with `--on-outage built-in`.
    take_over: Duration,
    /// How long a pass waits for addresses that Weave's router does not know yet.
    addresses: Duration,
}

/// Builds what a pass joins from what the user asked for.
fn parts(options: &Options, patience: Patience) -> Result<sync::Parts> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    Ok(sync::Parts {
        docker: docker(options)?,
        interest: Interest {
            keyword: Keyword::new(&options.keyword),
            haproxy: options.haproxy_container.clone(),
        },
        network: options.network.clone(),
        host: transport::host_address(),
        overlay: overlay(options, &state_dir)?,
        address_patience: patience.addresses,
        registry: registry(options, &state_dir, patience)?,
        table: options.cosmos_table.clone(),
        haproxy: haproxy(options, &state_dir)?,
        state_dir,
    })
}

fn docker(options: &Options) -> Result<Docker> {
    let variable = |name: &str| std::env::var(name).ok();
    let found = endpoint::resolve(options.docker_host.as_deref(), &variable)?;
    log::debug!("Docker is at {} ({})", found.address, found.origin);
    Ok(Docker::new(found.address, found.api_version))
}

fn overlay(options: &Options, state_dir: &Path) -> Result<Option<Overlay>> {
    let mode = match options.weave {
        WeaveUse::Auto => weave::Mode::Auto,
        WeaveUse::Always => weave::Mode::Always,
        WeaveUse::Never => return Ok(None),
    };
    let mut router = Router::new(router::address(&options.weave_addr, router::HTTP_PORT)?)
        .command_only(options.weave_cli);
    if let Ok(status) = std::env::var("WEAVE_STATUS_ADDR") {
        router = router.or_else(router::address(&status, router::STATUS_PORT)?);
    }
    let asker = Asker::new(router, program::find("weave"), state_dir.to_owned());
    Ok(Some(Overlay::new(mode, asker)))
}

/// The registry that the options name; `patience` is how the built-in one takes over from Cosmos.
fn registry(options: &Options, state_dir: &Path, patience: Patience) -> Result<Box<dyn Registry>> {
    let Some(url) = &options.cosmos_url else {
        return Ok(Box::new(built_in(options, state_dir)?));
    };
    let settings = cosmos::Settings {
        headers: options.cosmos_headers.0.clone(),
        ca: options.cosmos_ca.clone(),
        trust: options.trust_cosmos,
        ..cosmos::Settings::new(url)
    };
    let cosmos = Cosmos::new(&settings, patience.pause)?;
    Ok(Box::new(match options.on_outage {
        OnOutage::Hold => Ladder::holding(cosmos),
        OnOutage::BuiltIn => {
            Ladder::falling_back(cosmos, built_in(options, state_dir)?, patience.take_over)
        }
    }))
}

fn built_in(options: &Options, state_dir: &Path) -> Result<Embedded> {
    let socket = options
        .haproxy_socket
        .as_deref()
        .filter(|address| address.starts_with('/'));
    let base = match &options.base {
        None => Base::built_in(socket),
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Error::new(format!("cannot read the base config {}", path.display()), e)
            })?;
            Base::new(&text)
        }
    };
    let base = base.map_err(|why| Error::new("the base config cannot be used", why))?;
    Ok(Embedded::new(base, Box::new(Store::new(state_dir))))
}

fn haproxy(options: &Options, state_dir: &Path) -> Result<Haproxy> {
    let config = std::path::absolute(&options.config).map_err(|e| {
        Error::new(
            format!("cannot find the folder of {}", options.config.display()),
            e,
        )
    })?;
    let text = |value: &Option<String>| OsString::from(value.clone().unwrap_or_default());
    let mut environment = vec![
        ("COSMONAUT_CONFIG".into(), config.clone().into_os_string()),
        (
            "COSMONAUT_STATE_DIR".into(),
            state_dir.as_os_str().to_owned(),
        ),
        (
            "COSMONAUT_HAPROXY_CONTAINER".into(),
            OsString::from(&options.haproxy_container),
        ),
        (
            "COSMONAUT_HAPROXY_SOCKET".into(),
            text(&options.haproxy_socket),
        ),
        (
            "COSMONAUT_HAPROXY_MASTER".into(),
            text(&options.haproxy_master),
        ),
    ];
    // Without the flag the script finds Docker as we did: by the same variables and contexts.
    if let Some(host) = &options.docker_host {
        environment.push(("DOCKER_HOST".into(), host.into()));
    }
    let socket = |address: &Option<String>, option: &str| {
        let parse = |text: &String| {
            SocketAddr::parse(text)
                .map_err(|why| Error::new(format!("{option} is not usable"), why))
        };
        address.as_ref().map(parse).transpose()
    };
    Ok(Haproxy::new(haproxy::Settings {
        config,
        state_dir: state_dir.to_owned(),
        script: Script::new(
            options.script.clone(),
            options.script_timeout,
            state_dir.to_owned(),
            environment,
        ),
        socket: socket(&options.haproxy_socket, "--haproxy-socket")?,
        master: socket(&options.haproxy_master, "--haproxy-master")?,
    }))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has read enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Error::new("cannot write to stdout", e)),
    }
}
