//! One function a command: builds the parts, runs them, prints the result, picks the exit code.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::FAILED;
use crate::assembly::{
    COSMOS_OUTAGE, Patience, apart, base, built_in, cosmos, docker, haproxy, impatient, interest,
    looking, overlay, parts, registry, script_environment, socket_address, variable,
};
use crate::cli::{Action, Options};
use crate::docker::endpoint;
use crate::error::{Error, Result};
use crate::haproxy::script::Script;
use crate::inbox::{Inbox, News};
use crate::lock;
use crate::notify::Notify;
use crate::registry::store::Store;
use crate::report::book::{Book, Subject};
use crate::report::doctor::{self, Ask};
use crate::report::explain::{self, Explanation};
use crate::report::history::{self, History, Hold};
use crate::report::record::Ended;
use crate::report::{moment, plan, status};
use crate::schedule::Schedule;
use crate::service;
use crate::sorted::Map;
use crate::sync::{Look, Syncer};
use crate::{transport, watch};

/// Exit code of a plan that would change something.
const WOULD_CHANGE: u8 = 3;
/// How often `sync` tries to inspect a container, with waits of 1 s and 2 s between.
const INSPECTS_MAX: u32 = 3;
/// Shortest pause between two passes of a `sync` that waits for somebody.
const PAUSE_LEAST: Duration = Duration::from_millis(50);
/// How long a starting `watch` waits for its lock: `status` and `resume` look at it for microseconds.
const WATCH_LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Does what the command line asks for; returns the exit code.
///
/// The commands that end by themselves are functions of their own in the program, too: a `watch` does without them in
/// memory (see `scripts/release.ld`).
///
/// # Errors
/// When it fails; nothing was broken then.
pub(crate) fn act(action: &Action, options: &Options) -> Result<u8> {
    apart(options)?;
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
    let mut book = options
        .metrics_file
        .is_some()
        .then(|| Book::new(subject(options, &state_dir)));
    let mut ended = syncer.pass(&asked, Look::Afresh, "sync");
    let mut inspects = 1;
    while let Ok(Ended::Applied | Ended::Unchanged) = &ended {
        // Whoever is not ready is held for `--ready` at most; the others have what is theirs already.
        let due = match (syncer.probe_due(), syncer.inspect_due()) {
            (Some(probe), _) => probe,
            (None, Some(inspect)) if inspects < INSPECTS_MAX => {
                inspects += 1;
                inspect
            }
            _ => break,
        };
        print_changes(&ended, &syncer)?;
        if let Some(book) = &mut book {
            book.passed(syncer.record(), None);
        }
        let wait = due.saturating_duration_since(Instant::now());
        std::thread::sleep(wait.max(PAUSE_LEAST));
        ended = syncer.pass(&News::default(), Look::Changes, "sync");
    }
    if let Some(book) = &mut book {
        book.passed(syncer.record(), None);
        book.write_only_metrics();
    }
    print_changes(&ended, &syncer)?;
    let ended = ended?;
    if ended == Ended::NotRunning {
        syncer.record().log_trouble(log::Level::Warn, "");
    }
    if ended != Ended::Held && syncer.inspect_due().is_some() {
        return Err(Error::new(
            "not all containers could be inspected",
            "those that HAProxy has stay, new ones are not routed yet; all others are as they should be",
        ));
    }
    Ok(())
}

fn print_changes(ended: &Result<Ended>, syncer: &Syncer) -> Result<()> {
    match ended {
        Ok(Ended::Applied) => print(&format!("{}\n", syncer.record().changes)),
        _ => Ok(()),
    }
}

#[inline(never)]
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
        _ => Map::default(),
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

#[inline(never)]
fn show_plan(options: &Options, ask: bool) -> Result<u8> {
    let store = Store::read_only(&options.state_dir);
    let stand_in = options.cosmos_url.is_some() && !ask;
    let registry = if stand_in {
        Box::new(built_in(options, store)?)
    } else {
        registry(options, store, impatient())?
    };
    let mut syncer = Syncer::new(looking(options, registry)?);
    let survey = syncer.survey()?;
    for (id, why) in survey.unread.iter() {
        log::warn!(
            "container {}: {why}; what HAProxy has of it stays",
            service::short(id)
        );
    }
    let planned = syncer.plan()?;
    if let Some(hold) = hold_or_word(&History::new(&options.state_dir)) {
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

#[inline(never)]
fn show_status(options: &Options, json: bool) -> Result<u8> {
    let dir = &options.state_dir;
    let now = moment::now();
    let view = status::View::new(
        status::read(dir)?,
        lock::holder(dir, lock::WATCH),
        hold_or_word(&History::new(dir)),
        now,
    );
    if json {
        print_json(&view)?;
    } else {
        print(&view.in_words(now))?;
    }
    Ok(if view.ok { 0 } else { FAILED })
}

/// What a rollback holds, for commands that only show: that it cannot be told must not keep the rest back.
fn hold_or_word(history: &History) -> Option<Hold> {
    history.hold().unwrap_or_else(|error| {
        log::warn!("{error}");
        None
    })
}

#[inline(never)]
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
        hold_or_word(&history).as_ref(),
    ))
}

#[inline(never)]
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

#[inline(never)]
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

fn watch_on(options: &Options) -> Result<()> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    let _lock = lock::take(&state_dir, lock::WATCH, WATCH_LOCK_PATIENCE)
        .map_err(|error| error.hint("only one watch may run with one --state-dir"))?;
    let inbox = Inbox::default();
    let (waiting, stopping) = (inbox.clone(), inbox.clone());
    let patience = Patience {
        pause: Box::new(move |time| waiting.pause(time)),
        take_over: COSMOS_OUTAGE,
        addresses: Duration::ZERO,
        stopping: Box::new(move || stopping.stopping()),
    };
    let parts = parts(options, patience)?;
    let events = docker(options)?;
    let interest = parts.interest.clone();
    let schedule = Schedule::new(options.settle, options.settle_max, options.resync);
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
#[inline(never)]
fn examine(options: &Options, ask: bool, json: bool) -> Result<u8> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let state_dir = absolute(&options.state_dir);
    // A program's output needs a folder to go through; the state folder may not be there yet.
    let work = std::fs::canonicalize(&state_dir).unwrap_or_else(|_| std::env::temp_dir());
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

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Error::new("cannot write the answer as JSON", e))?;
    print(&format!("{text}\n"))
}

/// Prints a result.
///
/// # Errors
/// When stdout cannot be written; a reader that has read enough is no error.
pub(crate) fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has read enough, as `head` does.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => done.map_err(|e| Error::new("cannot write to stdout", e)),
    }
}
