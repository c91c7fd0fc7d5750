//! `watch`: follows Docker until it is stopped. The only place that starts threads.
//!
//! Three threads: the main one runs the schedule and the passes and owns all state; `docker-events` reads
//! the event stream without pause, whatever the main one does, and opens it again when it ends, for ever;
//! `signals` waits for signals. They meet in the [`Inbox`].
//!
//! A stream is opened before everything is looked at, so nothing falls between the two. A stream that ends
//! is routine (a daemon restarts, a proxy cuts what is quiet): what is known stands until the next look.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::docker::events::What;
use crate::docker::{Docker, EventStream};
use crate::error::{Error, Kind, Result};
use crate::inbox::{Connected, Inbox, News};
use crate::inventory::Interest;
use crate::notify::Notify;
use crate::refrain::Refrain;
use crate::report::book::{Book, Link};
use crate::report::record::{self, Stage};
use crate::schedule::{Due, Ended, Schedule, Step};
use crate::sync::{Changing, Look, Syncer};
use crate::transport::{Address, Hangup};

/// First and longest wait before the event stream is opened again.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Longest wait while nobody answers. A try costs one connect then, and a daemon that is back must be found
/// soon; over ssh it costs a process, and the longest wait above holds.
const RECONNECT_AWAY: Duration = Duration::from_secs(1);
/// A stream that lived this long was a good one: its end is routine and the waits start anew.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// Events are asked for from this long before the newest one seen: live order is not strict.
const SINCE_OVERLAP_NANOS: i64 = 1_000_000_000;
/// The newest event counts for that only when it is about as old as this on the daemon's clock, or younger:
/// everything is looked at anyway, and a clock may have been set back meanwhile.
const SINCE_WITHIN_NANOS: i64 = 10_000_000_000;
/// The daemon tells its time in whole seconds, so its newest event may seem to be from the future.
const DATE_STEP_NANOS: i64 = 1_000_000_000;
/// After so many streams in a row that ended at once, the daemon keeps no events (Podman can be told so).
const EVENTLESS_AFTER: u32 = 3;
/// How often a daemon without events is looked at.
const EVENTLESS_LOOK: Duration = Duration::from_secs(5);
/// How long a pass may take to end after a signal to stop, before it is dropped.
const PASS_DROPPED_AFTER: Duration = Duration::from_secs(2);
/// How long a trouble with Docker lasts before it is worth a warning: a daemon that restarts is routine.
const TROUBLE_SAID_AFTER: Duration = Duration::from_secs(3);

/// Follows Docker until a signal ends it.
///
/// `events` is a client of its own for the event stream.
///
/// # Errors
/// When the signals cannot be caught or a thread cannot be started.
pub fn run(
    mut syncer: Syncer,
    events: Docker,
    interest: Interest,
    inbox: Inbox,
    mut schedule: Schedule,
    mut notify: Notify,
    mut book: Book,
) -> Result<()> {
    book.follows(&events.address().to_string());
    start_signals(inbox.clone(), notify.clone(), syncer.changing())?;
    start_events(events, interest, inbox.clone(), notify.clone())?;
    notify.ready();
    let mut stream: Option<Hangup> = None;
    let mut refrain = Refrain::default();
    while !inbox.stopping() {
        notify.beat(Instant::now());
        if let Some((link, at)) = inbox.take_link() {
            book.link(link, at);
        }
        book.write();
        let ask_due = overlay(&mut syncer, &inbox)
            .into_iter()
            .chain(notify.beat_due(Instant::now()))
            .chain(book.due())
            .min();
        let earlier = |until: Instant| ask_due.map_or(until, |at| at.min(until));
        match schedule.step(inbox.waiting(), Instant::now()) {
            Step::Idle(until) => inbox.wait(until.map(earlier).or(ask_due)),
            Step::Gather(until) => inbox.gather(earlier(until)),
            Step::Pass(due) => {
                let waiting = inbox.waiting();
                let mut news = inbox.take();
                if let Some(connected) = news.connected.take() {
                    syncer.use_api(&connected.api);
                    stream = Some(connected.hangup);
                }
                let look_due = syncer.look_owed() || news.look || due == Due::Resync;
                let ended = pass(&mut syncer, &news, due, &mut refrain, &inbox);
                notify.status(&status(&syncer, ended));
                if news.asked {
                    // The answer to SIGHUP, also when the pass failed: the manager must not wait for ever.
                    notify.ready();
                }
                // One that could not even begin, for its lock, says nothing of the daemon.
                let looked = syncer.record().stage == Stage::Look;
                if ended == Ended::Failed && looked && syncer.look_owed() {
                    // The daemon does not answer on a new connection: the old one may be half open.
                    if let Some(stream) = stream.take() {
                        stream.hang_up();
                    }
                    inbox.hang_up_opening();
                }
                let now = Instant::now();
                if look_due && !syncer.look_owed() {
                    schedule.looked(now);
                }
                schedule.passed(ended, waiting.filter(|_| news.events > 0), now);
                if let Some(at) = syncer.next_due() {
                    schedule.recheck(at, now);
                }
                if news.events > 0 {
                    book.events();
                }
                book.taken(syncer.taken());
                book.passed(syncer.record(), schedule.retry_at());
            }
        }
    }
    notify.stopping();
    log::info!("stopped");
    Ok(())
}

/// Takes in what Weave's router answered and asks it again when that is due, on a thread that lives for
/// one question. Returns when the next question is due.
fn overlay(syncer: &mut Syncer, inbox: &Inbox) -> Option<Instant> {
    let overlay = syncer.overlay()?;
    if inbox
        .take_answer()
        .is_some_and(|answer| overlay.answered(answer))
    {
        inbox.addresses();
    }
    let now = Instant::now();
    if overlay.due().is_some_and(|at| at <= now)
        && let Some(asker) = overlay.begin(now)
    {
        // Handed over by way of a slot, so that it is still ours where no thread can be started.
        let slot = Arc::new(Mutex::new(Some(asker)));
        let (taken, back) = (Arc::clone(&slot), inbox.clone());
        let ask = move || {
            if let Some(asker) = taken.lock().ok().and_then(|mut slot| slot.take()) {
                back.answered(asker.ask());
            }
        };
        if let Err(e) = thread::Builder::new().name("weave".to_owned()).spawn(ask)
            && let Some(asker) = slot.lock().ok().and_then(|mut slot| slot.take())
        {
            let error = Error::new("cannot start the thread that asks Weave's router", e);
            overlay.answered(asker.not_asked(error));
        }
    }
    overlay.due()
}

/// Runs one pass and tells what came of it.
fn pass(syncer: &mut Syncer, news: &News, due: Due, refrain: &mut Refrain, inbox: &Inbox) -> Ended {
    let look = look(news, due);
    let cause = cause(news, due);
    log::debug!("pass: {cause}");
    let ended = syncer.pass(news, look, &cause);
    let record = syncer.record();
    let ended = match ended {
        Ok(record::Ended::Applied) => {
            record.log_applied();
            Ended::Changed
        }
        // A Docker that is away is the follower's to tell, once.
        Err(error) if error.is(Kind::Unreachable) && syncer.look_owed() => {
            log::debug!("{error}; what was known stands");
            return Ended::Failed;
        }
        Err(error) if inbox.stopping() => {
            log::debug!("{error}; not waited for any longer");
            return Ended::Failed;
        }
        Ok(record::Ended::NotRunning) | Err(_) => {
            let level = if refrain.is_news(&record.trouble(), Instant::now()) {
                record.loudness()
            } else {
                log::Level::Debug
            };
            record.log_trouble(level, "; it is tried again");
            return Ended::Failed;
        }
        Ok(_) => Ended::Unchanged,
    };
    refrain.over();
    ended
}

/// How much a pass looks at. A new event stream may have come while a resync was decided upon, and wants more than that.
fn look(news: &News, due: Due) -> Look {
    match due {
        _ if news.look => Look::Afresh,
        Due::Resync => Look::List,
        _ => Look::Changes,
    }
}

/// One line for the service manager.
fn status(syncer: &Syncer, ended: Ended) -> String {
    let (routed, pending, left_out) = syncer.selection().counts();
    let last = match ended {
        Ended::Failed => "the last pass failed and is tried again; the running config stands",
        Ended::Changed | Ended::Unchanged => "HAProxy runs the config for them",
    };
    format!("{routed} routed, {pending} pending, {left_out} left out; {last}")
}

fn cause(news: &News, due: Due) -> String {
    match (&news.first, due) {
        (_, Due::Resync) => "resync".to_owned(),
        (_, Due::Retry) if news.events == 0 => "retry".to_owned(),
        (_, Due::Recheck) if news.events == 0 => "look again".to_owned(),
        (Some(first), _) if news.events > 1 => {
            let more = news.events - 1;
            let plural = if more == 1 { "" } else { "s" };
            format!("{first} and {more} more event{plural}")
        }
        (Some(first), _) => first.clone(),
        (None, _) if news.asked => "SIGHUP".to_owned(),
        (None, _) if news.addresses => "new addresses".to_owned(),
        (None, _) => "connected to Docker".to_owned(),
    }
}

fn with_hint(error: &Error) -> String {
    match error.hint_text() {
        Some(hint) => format!("{error} (hint: {hint})"),
        None => error.to_string(),
    }
}

fn start_signals(inbox: Inbox, notify: Notify, changing: Changing) -> Result<()> {
    let failed = |e: std::io::Error| Error::new("cannot catch signals", e);
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(failed)?;
    let listen = move || {
        for signal in signals.forever() {
            if signal == SIGHUP {
                log::info!("SIGHUP: looking at everything");
                notify.reloading();
                inbox.look();
            } else if inbox.stopping() {
                // Whatever is in hand is dropped; files are replaced in one step, so that is safe.
                std::process::exit(1);
            } else {
                log::info!("stopping; a second signal ends it at once");
                inbox.stop();
                let (notify, changing) = (notify.clone(), Arc::clone(&changing));
                // Without a thread the pass ends by its own limits.
                let _ = thread::Builder::new()
                    .name("drop-pass".to_owned())
                    .spawn(move || drop_pass(&notify, &changing));
            }
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(listen)
        .map(drop)
        .map_err(failed)
}

/// Ends the program although a pass goes on, as soon as that only waits for an answer of Docker or Cosmos, which may
/// take a minute. Returns never: the program ends before, when the pass is over.
fn drop_pass(notify: &Notify, changing: &Changing) -> ! {
    loop {
        thread::sleep(PASS_DROPPED_AFTER);
        if let Ok(_held) = changing.try_lock() {
            notify.stopping();
            log::info!(
                "stopped; the pass in hand is dropped: it waits for an answer and has changed nothing"
            );
            std::process::exit(0);
        }
    }
}

fn start_events(docker: Docker, interest: Interest, inbox: Inbox, notify: Notify) -> Result<()> {
    let follow = move || {
        Follower {
            docker,
            interest,
            inbox,
            notify,
            newest: None,
            trouble: None,
            eventless: 0,
        }
        .run()
    };
    thread::Builder::new()
        .name("docker-events".to_owned())
        .spawn(follow)
        .map(drop)
        .map_err(|e| Error::new("cannot start the thread that reads Docker's events", e))
}

/// Reads the event stream, for ever.
struct Follower {
    docker: Docker,
    interest: Interest,
    inbox: Inbox,
    notify: Notify,
    /// Newest event's time on the daemon's clock.
    newest: Option<i64>,
    trouble: Option<Trouble>,
    /// How many streams in a row ended at once.
    eventless: u32,
}

/// Since when Docker cannot be followed.
struct Trouble {
    since: Instant,
    said: bool,
}

impl Follower {
    fn run(mut self) {
        let mut wait = RECONNECT.0;
        while !self.inbox.stopping() {
            let mut longest = RECONNECT.1;
            match self.connect() {
                Ok(mut stream) => {
                    let began = Instant::now();
                    let why = self.read(&mut stream);
                    self.inbox.lost(&why);
                    self.trouble.get_or_insert(Trouble {
                        since: Instant::now(),
                        said: false,
                    });
                    log::debug!("Docker's event stream ended: {why}");
                    self.count_eventless(stream.ended_at_once());
                    if began.elapsed() >= GOOD_STREAM {
                        wait = RECONNECT.0;
                    }
                }
                Err(error) => {
                    self.cannot_connect(&error);
                    let away = error.is(Kind::Unreachable) || error.is(Kind::TimedOut);
                    if away && !matches!(self.docker.address(), Address::Ssh { .. }) {
                        longest = RECONNECT_AWAY;
                    }
                }
            }
            let pause = if self.eventless >= EVENTLESS_AFTER {
                EVENTLESS_LOOK
            } else {
                jittered(wait.min(longest))
            };
            if !self.inbox.pause(pause) {
                return;
            }
            wait = (wait * 2).min(longest);
        }
    }

    fn connect(&mut self) -> Result<EventStream> {
        let ping = self.docker.ping()?;
        let daemon_now = ping.daemon_time.map(|time| time.unix_nanos());
        let inbox = &self.inbox;
        let stream = self
            .docker
            .events_opening(since(self.newest, daemon_now), &mut |hangup| {
                inbox.opening(hangup);
            })?;
        self.inbox.connected(Connected {
            api: ping.api.clone(),
            hangup: stream.hangup()?,
        });
        match self.trouble.take() {
            Some(trouble) if !trouble.said => log::debug!("following Docker again"),
            _ => log::info!("following {} (API {})", self.docker.address(), ping.api),
        }
        Ok(stream)
    }

    /// Reads until the stream ends; says how it ended.
    fn read(&mut self, stream: &mut EventStream) -> String {
        loop {
            match stream.next() {
                Ok(Some(event)) => {
                    self.count_eventless(false);
                    self.newest = self.newest.max(Some(event.time_nano));
                    // A new name says nothing about who it was: it may be one of ours that left.
                    if event.what == What::Renamed || self.interest.in_name(&event.name) {
                        self.inbox.event(event);
                    }
                }
                Ok(None) => return "closed by the daemon".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    /// Counts streams that end at once; a daemon that does nothing else is looked at now and then.
    fn count_eventless(&mut self, at_once: bool) {
        if at_once {
            self.eventless = self.eventless.saturating_add(1);
            if self.eventless == EVENTLESS_AFTER {
                log::warn!(
                    "{} ends its event stream at once, again and again; it is looked at every {EVENTLESS_LOOK:?} instead (hint: on Podman, set events_logger in containers.conf to file or journald)",
                    self.docker.address()
                );
            }
        } else if std::mem::take(&mut self.eventless) >= EVENTLESS_AFTER {
            log::info!("{} sends events again", self.docker.address());
        }
    }

    fn cannot_connect(&mut self, error: &Error) {
        let first = self.trouble.is_none() && self.newest.is_none();
        if self.trouble.is_none() {
            self.inbox.link(Link::Down(with_hint(error)));
        }
        let trouble = self.trouble.get_or_insert(Trouble {
            since: Instant::now(),
            said: false,
        });
        if !trouble.said && (first || trouble.since.elapsed() >= TROUBLE_SAID_AFTER) {
            trouble.said = true;
            self.notify
                .status(&format!("{error}; the running config stands"));
            log::warn!(
                "{}; the running config stands, trying until it answers",
                with_hint(error)
            );
        } else {
            log::debug!("{error}");
        }
    }
}

/// From when on the daemon is asked to repeat events, in nanoseconds of its clock: what happens between its
/// answer and its subscription would be lost otherwise.
fn since(newest: Option<i64>, daemon_now: Option<i64>) -> Option<i64> {
    let from = match (newest, daemon_now) {
        (Some(newest), Some(now))
            if newest <= now.saturating_add(DATE_STEP_NANOS)
                && newest >= now.saturating_sub(SINCE_WITHIN_NANOS) =>
        {
            newest
        }
        (newest, now) => now.or(newest)?,
    };
    Some(from.saturating_sub(SINCE_OVERLAP_NANOS))
}

/// A wait of three quarters to five quarters of the given one, so that many hosts do not come at once.
fn jittered(wait: Duration) -> Duration {
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    wait * 3 / 4 + wait * (clock.subsec_micros() % 1000) / 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_stream_is_looked_at_afresh_whatever_else_is_due() {
        for due in [Due::Change, Due::Retry, Due::Recheck, Due::Resync] {
            let mut news = News::default();
            let usual = if due == Due::Resync {
                Look::List
            } else {
                Look::Changes
            };
            assert_eq!(look(&news, due), usual, "{due:?}");
            news.look = true;
            assert_eq!(look(&news, due), Look::Afresh, "{due:?}");
        }
    }

    #[test]
    fn events_are_repeated_from_the_newest_one_unless_the_clock_was_set() {
        const S: i64 = 1_000_000_000;
        for (newest, now, expected) in [
            (None, None, None),
            (None, Some(100 * S), Some(99 * S)),
            (Some(90 * S), None, Some(89 * S)),
            (Some(95 * S), Some(100 * S), Some(94 * S)),
            // The date has no fractions.
            (Some(100 * S + 7), Some(100 * S), Some(99 * S + 7)),
            // Long ago: everything is looked at anyway, and Podman would repeat its whole log.
            (Some(10 * S), Some(100 * S), Some(99 * S)),
            // The daemon's clock was set back.
            (Some(3_700 * S), Some(100 * S), Some(99 * S)),
            (Some(i64::MIN), Some(100 * S), Some(99 * S)),
            // Dates of the years 1 and 9999.
            (Some(100 * S), Some(i64::MIN), Some(i64::MIN)),
            (Some(100 * S), Some(i64::MAX), Some(i64::MAX - S)),
        ] {
            assert_eq!(since(newest, now), expected, "{newest:?} {now:?}");
        }
    }
}
