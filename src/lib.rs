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
//! - Pure modules (`cli`, `http`, `config`, `description`, `service`, `inventory`, `schedule`, `timestamp`,
//!   `docker/{container,events}`, `address/mod`, `registry/{mod,answer,embedded,template}`, `report/{diff,explain,plan}`) name no file,
//!   network, process, thread, environment or clock. `tests/it` scans for it.
//! - No async runtime, no listener, no queue that can fill, no unsafe code, no wait without a limit.
//!
//! # The modules, in flow order
//!
//! [`cli`] -> [`docker`] over [`transport`] and [`http`] -> [`inbox`], [`schedule`], [`watch`] ->
//! [`inventory`], [`description`], [`address`], [`service`] -> [`registry`] -> [`haproxy`], joined by [`sync`]. What a
//! pass came to is a record that [`report`] tells: log line, status, metrics, history; and `explain` and `plan`.

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
pub mod notify;
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

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
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
use notify::Notify;
use overlay::{Asker, Overlay};
use registry::Registry;
use registry::cosmos::{self, Cosmos};
use registry::embedded::Embedded;
use registry::ladder::Ladder;
use registry::store::Store;
use registry::template::Base;
use report::book::{Book, Subject};
use report::doctor::{self, Ask};
use report::explain::{self, Explanation};
use report::history::{self, History};
use report::record::Ended;
use report::{moment, plan, status};
use sync::{Look, Syncer};

/// Exit code of a failure: nothing was broken, the running config stands.
const FAILED: u8 = 1;
/// For how long Cosmos may fail before the built-in registry takes over, with `--on-outage built-in`.
const COSMOS_OUTAGE: Duration = Duration::from_secs(30);
/// Exit code of a wrong command line.
const USAGE: u8 = 2;
/// Exit code of a plan that would change something.
const WOULD_CHANGE: u8 = 3;
/// How long `explain` and `plan` wait for addresses of Weave's router; what it does not know then is pending.
const LOOK_ADDRESSES: Duration = Duration::from_secs(3);
/// How long a starting `watch` waits for its lock: `status` and `resume` look at it for microseconds.
const WATCH_LOCK_PATIENCE: Duration = Duration::from_millis(200);

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
            return Ok(act(&action, &options)?);
        }
    }
    Ok(0)
}

fn act(action: &Action, options: &Options) -> Result<u8> {
    match action {
        Action::Sync => sync_once(options)?,
        Action::Watch => watch_on(options)?,
        Action::Plan { ask } => return show_plan(options, *ask),
        Action::Explain { container, json } => {
            show_explanation(options, container.as_deref(), *json)?
        }
        Action::Doctor { ask, json } => return examine(options, *ask, *json),
        Action::Status { json } => return show_status(options, *json),
        Action::History => show_history(options)?,
        Action::Rollback(number) => roll_back(options, *number)?,
        Action::Resume => resume(options)?,
    }
    Ok(0)
}

fn sync_once(options: &Options) -> Result<()> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    let mut syncer = Syncer::new(parts(options, impatient())?);
    let asked = News {
        asked: true,
        ..News::default()
    };
    let ended = syncer.pass(&asked, Look::Afresh, "sync");
    if options.metrics_file.is_some() {
        let mut book = Book::new(subject(options, &state_dir));
        book.passed(syncer.record(), None);
        book.write_only_metrics();
    }
    match ended? {
        Ended::Applied => print(&format!("{}\n", syncer.record().changes)),
        Ended::NotRunning => {
            syncer.record().log_trouble(log::Level::Warn, "");
            Ok(())
        }
        _ => Ok(()),
    }
}

fn show_explanation(options: &Options, container: Option<&str>, json: bool) -> Result<()> {
    let mut syncer = Syncer::new(looking(
        options,
        registry(options, Store::read_only(&options.state_dir), impatient())?,
    )?);
    let survey = syncer.survey()?;
    let interest = interest(options);
    // What HAProxy itself refuses only a watch knows; without its status the rest is told.
    let refused = match status::read(&options.state_dir) {
        Ok(Some(status)) => status.refused,
        _ => BTreeMap::new(),
    };
    let asked = explain::Asked {
        interest: &interest,
        keyword: &options.keyword,
        cosmos: options.cosmos_url.is_some(),
        refused: &refused,
    };
    let mut explanation = Explanation::all(&survey, syncer.selection(), asked);
    if let Some(name) = container {
        let found = syncer
            .inspect_one(name)?
            .ok_or_else(|| explain::unknown(name, &survey))?;
        explanation = Explanation::one(&found, explanation, &interest);
    }
    if json {
        print_json(&explanation)
    } else {
        print(&explanation.in_words())
    }
}

fn show_plan(options: &Options, ask: bool) -> Result<u8> {
    let store = Store::read_only(&options.state_dir);
    let stand_in = options.cosmos_url.is_some() && !ask;
    let registry = if stand_in {
        Box::new(built_in(options, store)?)
    } else {
        registry(options, store, impatient())?
    };
    let mut syncer = Syncer::new(looking(options, registry)?);
    syncer.survey()?;
    let planned = syncer.plan()?;
    if let Some(hold) = History::new(&options.state_dir).hold() {
        log::warn!(
            "{}; this is what a pass would do then",
            history::hold_in_words(&hold)
        );
    }
    print(&plan::in_words(&planned, stand_in))?;
    Ok(if plan::changes(&planned) {
        WOULD_CHANGE
    } else {
        0
    })
}

fn show_status(options: &Options, json: bool) -> Result<u8> {
    let dir = &options.state_dir;
    let now = moment::now();
    let view = status::View::new(
        status::read(dir)?,
        lock::holder(dir, lock::WATCH),
        History::new(dir).hold(),
        now,
    );
    if json {
        print_json(&view)?;
    } else {
        print(&view.in_words(now))?;
    }
    Ok(if view.ok { 0 } else { FAILED })
}

fn show_history(options: &Options) -> Result<()> {
    let history = History::new(&options.state_dir);
    let entries = history.entries()?;
    if entries.is_empty() {
        log::info!("there is no history in {}", options.state_dir.display());
    }
    let present = haproxy(options, &options.state_dir)?.taken();
    print(&history::in_words(
        &entries,
        present.as_deref(),
        history.hold().as_ref(),
    ))
}

fn roll_back(options: &Options, number: Option<u32>) -> Result<()> {
    let mut syncer = Syncer::new(parts(options, impatient())?);
    let (entry, ended) = syncer.roll_back(number)?;
    let how = match ended {
        Ended::Applied => "HAProxy took",
        Ended::NotRunning => "HAProxy does not run and will start with",
        _ => "HAProxy runs",
    };
    print(&format!(
        "{how} config {} of {} ({}); it is held until `cosmonaut resume` or SIGHUP\n",
        entry.fingerprint,
        entry.time.to_seconds(),
        entry.changes
    ))
}

fn resume(options: &Options) -> Result<()> {
    let dir = &options.state_dir;
    if !History::new(dir).end_hold()? {
        return print("nothing was held\n");
    }
    let told = match lock::holder(dir, lock::WATCH) {
        None => "the next sync or watch follows the containers again".to_owned(),
        Some(pid) => match wake(pid) {
            Ok(()) => format!("watch (pid {pid}) follows the containers again"),
            Err(why) => format!(
                "watch (pid {pid}) follows the containers again with its next pass; it could not be told now: {why}"
            ),
        },
    };
    print(&format!("the rollback is over: {told}\n"))
}

/// Makes a running `watch` look now.
fn wake(pid: u32) -> std::result::Result<(), String> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or("its pid makes no sense")?;
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).map_err(|e| e.to_string())
}

/// How a command that ends by itself waits for a Cosmos that fails.
fn impatient() -> Patience {
    Patience {
        pause: Box::new(|time| {
            std::thread::sleep(time);
            true
        }),
        // What must end cannot wait: the tries within one question were the wait.
        take_over: Duration::ZERO,
        addresses: poller::DEADLINE,
    }
}

fn watch_on(options: &Options) -> Result<()> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    let _lock = lock::take(&state_dir, lock::WATCH, WATCH_LOCK_PATIENCE)
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
    let notify = Notify::from_env(&|name| std::env::var_os(name), std::process::id());
    let book = Book::new(subject(options, &state_dir));
    watch::run(
        Syncer::new(parts),
        events,
        interest,
        inbox,
        schedule,
        notify,
        book,
    )
}

/// `doctor`: tells each finding as soon as it is made, or all of them as JSON.
fn examine(options: &Options, ask: bool, json: bool) -> Result<u8> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let state_dir = absolute(&options.state_dir);
    // A program's output needs a folder to go through; the state folder may not be there yet.
    let work = std::fs::canonicalize(&state_dir).unwrap_or_else(|_| std::env::temp_dir());
    let variable = |name: &str| std::env::var(name).ok();
    let script_timeout = options.script_timeout.min(doctor::SCRIPT_MAX);
    let ask = if ask { Ask::Yes } else { Ask::No };
    let subject = doctor::Subject {
        docker: endpoint::resolve(options.docker_host.as_deref(), &variable),
        keyword: options.keyword.clone(),
        interest: interest(options),
        network: options.network.clone(),
        host: transport::host_address(),
        overlay: overlay(options, &work),
        registry: match &options.cosmos_url {
            Some(url) => {
                doctor::Registry::Cosmos(Box::new(cosmos(options, url, Box::new(|_| false))), ask)
            }
            None => doctor::Registry::BuiltIn(options.base.clone(), base(options).map(drop)),
        },
        table: options.cosmos_table.clone(),
        state_dir,
        config: absolute(&options.config),
        script_path: options.script.clone(),
        script: Script::new(
            options.script.clone(),
            script_timeout,
            work.clone(),
            script_environment(options, &work)?,
        ),
        socket: socket_address(&options.haproxy_socket, "--haproxy-socket"),
        master: socket_address(&options.haproxy_master, "--haproxy-master"),
    };
    let mut findings = Vec::new();
    let mut printed = Ok(());
    doctor::examine(subject, &mut |finding| {
        if !json && printed.is_ok() {
            printed = print(&doctor::line(&finding));
        }
        findings.push(finding);
    });
    printed?;
    if json {
        print_json(&findings)?;
    }
    let failed = findings
        .iter()
        .any(|finding| finding.verdict == doctor::Verdict::Fail);
    Ok(if failed { FAILED } else { 0 })
}

fn subject(options: &Options, state_dir: &Path) -> Subject {
    Subject {
        state_dir: state_dir.to_owned(),
        config: options.config.clone(),
        registry: if options.cosmos_url.is_some() {
            "cosmos"
        } else {
            "built-in"
        },
        metrics_file: options.metrics_file.clone(),
    }
}

fn interest(options: &Options) -> Interest {
    Interest {
        keyword: Keyword::new(&options.keyword),
        haproxy: options.haproxy_container.clone(),
    }
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
    let addresses = patience.addresses;
    let registry = registry(options, Store::new(&state_dir), patience)?;
    joined(options, state_dir.clone(), &state_dir, registry, addresses)
}

/// The same for commands that only look: nothing is made, locked or written in the state folder.
fn looking(options: &Options, registry: Box<dyn Registry>) -> Result<sync::Parts> {
    joined(
        options,
        options.state_dir.clone(),
        &std::env::temp_dir(),
        registry,
        LOOK_ADDRESSES,
    )
}

/// `scratch` is where output of the `weave` command goes.
fn joined(
    options: &Options,
    state_dir: PathBuf,
    scratch: &Path,
    registry: Box<dyn Registry>,
    addresses: Duration,
) -> Result<sync::Parts> {
    Ok(sync::Parts {
        docker: docker(options)?,
        interest: interest(options),
        network: options.network.clone(),
        host: transport::host_address(),
        overlay: overlay(options, scratch)?,
        address_patience: addresses,
        registry,
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
fn registry(options: &Options, store: Store, patience: Patience) -> Result<Box<dyn Registry>> {
    let Some(url) = &options.cosmos_url else {
        return Ok(Box::new(built_in(options, store)?));
    };
    let cosmos = cosmos(options, url, patience.pause)?;
    Ok(Box::new(match options.on_outage {
        OnOutage::Hold => Ladder::holding(cosmos),
        OnOutage::BuiltIn => {
            Ladder::falling_back(cosmos, built_in(options, store)?, patience.take_over)
        }
    }))
}

fn cosmos(options: &Options, url: &str, pause: cosmos::Pause) -> Result<Cosmos> {
    let settings = cosmos::Settings {
        headers: options.cosmos_headers.0.clone(),
        ca: options.cosmos_ca.clone(),
        trust: options.trust_cosmos,
        ..cosmos::Settings::new(url)
    };
    Cosmos::new(&settings, pause)
}

fn built_in(options: &Options, store: Store) -> Result<Embedded> {
    let base = base(options)?;
    Ok(Embedded::new(base, Box::new(store)))
}

/// What the built-in registry's config begins with.
fn base(options: &Options) -> Result<Base> {
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
    base.map_err(|why| Error::new("the base config cannot be used", why))
}

fn haproxy(options: &Options, state_dir: &Path) -> Result<Haproxy> {
    let config = config_path(options)?;
    Ok(Haproxy::new(haproxy::Settings {
        config,
        state_dir: state_dir.to_owned(),
        script: Script::new(
            options.script.clone(),
            options.script_timeout,
            state_dir.to_owned(),
            script_environment(options, state_dir)?,
        ),
        socket: socket_address(&options.haproxy_socket, "--haproxy-socket")?,
        master: socket_address(&options.haproxy_master, "--haproxy-master")?,
    }))
}

fn config_path(options: &Options) -> Result<PathBuf> {
    std::path::absolute(&options.config).map_err(|e| {
        Error::new(
            format!("cannot find the folder of {}", options.config.display()),
            e,
        )
    })
}

/// What the reload script is told.
fn script_environment(options: &Options, state_dir: &Path) -> Result<Vec<(OsString, OsString)>> {
    let config = config_path(options)?;
    let text = |value: &Option<String>| OsString::from(value.clone().unwrap_or_default());
    let mut environment = vec![
        ("COSMONAUT_CONFIG".into(), config.into_os_string()),
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
    Ok(environment)
}

fn socket_address(address: &Option<String>, option: &str) -> Result<Option<SocketAddr>> {
    let parse = |text: &String| {
        SocketAddr::parse(text).map_err(|why| Error::new(format!("{option} is not usable"), why))
    };
    address.as_ref().map(parse).transpose()
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new("cannot write the answer as JSON", e))?;
    print(&format!("{text}\n"))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has read enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Error::new("cannot write to stdout", e)),
    }
}
