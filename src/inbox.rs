//! What other threads have to tell the main loop: one place that merges instead of a queue that fills.
//!
//! The event reader must never wait (Docker drops events of a slow reader, silently), and the main loop
//! may be busy for half a minute with Cosmos or the script. A channel would have to be unbounded or lose
//! something; what counts is the state of each container, not the number of its events. So events are
//! merged here, one small record for each container, at most `CHANGES_MAX` of them; past that the
//! records are dropped and everything is looked at.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::docker::events::{Event, What};
use crate::overlay::Asked;
use crate::report::book::Link;
use crate::report::moment;
use crate::schedule::Waiting;
use crate::timestamp::Timestamp;
use crate::transport::Hangup;

/// Most containers whose changes are kept one by one.
const CHANGES_MAX: usize = 20_000;

/// What events have said of one container since the last pass, merged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// It started, at this time of the daemon's clock (Unix nanoseconds).
    pub started: Option<i64>,
    /// It died or was removed, at this time, and has not started since.
    pub gone: Option<i64>,
    /// A signal was sent to it: number and time; it may be about to stop.
    pub signal: Option<(u8, i64)>,
    /// Something about it changed: inspect it.
    pub look: bool,
    /// What an inspect says of its health is true only a moment later.
    pub probed: bool,
    /// A network was connected or disconnected: inspect it if it is one of ours.
    pub network: bool,
}

impl Change {
    fn merge(&mut self, event: &Event) {
        let at = event.time_nano;
        match event.what {
            What::Started => {
                *self = Change {
                    started: Some(at),
                    look: true,
                    ..Change::default()
                }
            }
            // Live order is not strict: a `die` older than the `start` seen before it is of an earlier life.
            What::Gone if self.started.is_some_and(|started| at < started) => {}
            What::Gone => {
                *self = Change {
                    gone: Some(at),
                    ..Change::default()
                }
            }
            What::Leaving { signal } => self.signal = Some((signal, at)),
            // Docker disconnects the networks of a dead container; asking about it would block for 50 ms.
            What::Changed | What::Renamed | What::Probed | What::Network if self.gone.is_some() => {
            }
            What::Changed | What::Renamed => self.look = true,
            What::Probed => {
                self.look = true;
                self.probed = true;
            }
            What::Network => self.network = true,
            What::Missed => {}
        }
    }
}

/// Everything that came in since it was last taken.
#[derive(Default)]
pub struct News {
    /// Changes by container id.
    pub changes: HashMap<String, Change>,
    /// A new event stream stands: the API version that its daemon speaks, and the handle to end it.
    pub connected: Option<Connected>,
    /// Look at everything: too much was missed, or the operator asked (SIGHUP).
    pub look: bool,
    /// The operator asked for a look (SIGHUP).
    pub asked: bool,
    /// The operator wants what a rollback holds to end (SIGHUP).
    pub resume: bool,
    /// Weave's router knows more addresses.
    pub addresses: bool,
    /// How many events were merged, and the first one's kind and container, for the log.
    pub events: u64,
    /// The first event, in words; one of a network only while there is no other.
    pub first: Option<String>,
    /// The first one was of a network.
    pub first_is_weak: bool,
}

/// A new event stream.
pub struct Connected {
    /// API version negotiated with the daemon.
    pub api: String,
    /// Ends the stream from outside its thread.
    pub hangup: Hangup,
}

#[derive(Default)]
struct State {
    news: News,
    waiting: Option<Waiting>,
    asked: Option<Asked>,
    opening: Option<Hangup>,
    link: Option<(Link, Timestamp)>,
    stop: bool,
}

/// A handle to the one inbox; clones share it.
#[derive(Clone, Default)]
pub struct Inbox {
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Inbox {
    /// Puts in what one event says.
    pub fn event(&self, event: Event) {
        self.put(|news| {
            news.events += 1;
            // A container's network comes before its start; the start says more.
            let weak = event.what == What::Network;
            if news.first.is_none() || (news.first_is_weak && !weak) {
                news.first = Some(cause(&event));
                news.first_is_weak = weak;
            }
            if event.what == What::Missed {
                news.look = true;
            } else if let Some(change) = news.changes.get_mut(&event.id) {
                let before = *change;
                change.merge(&event);
                return *change != before;
            } else if news.changes.len() < CHANGES_MAX {
                let mut change = Change::default();
                change.merge(&event);
                news.changes.insert(event.id, change);
            } else {
                news.changes = HashMap::new();
                news.look = true;
            }
            true
        });
    }

    /// Hands over the means to end the wait for the head of an event stream.
    pub fn opening(&self, hangup: Hangup) {
        self.lock().opening = Some(hangup);
    }

    /// Ends the wait for the head of an event stream, if one goes on.
    pub fn hang_up_opening(&self) {
        if let Some(opening) = self.lock().opening.take() {
            opening.hang_up();
        }
    }

    /// Says that a new event stream stands; everything must be looked at.
    pub fn connected(&self, connected: Connected) {
        self.link(Link::Up(connected.api.clone()));
        self.put(|news| {
            news.look = true;
            news.connected = Some(connected);
            true
        });
        self.lock().opening = None;
    }

    /// Says how it stands with the event stream, for those who report it.
    pub fn link(&self, link: Link) {
        self.lock().link = Some((link, moment::now()));
        self.shared.1.notify_all();
    }

    /// Takes out how it stands with the event stream, and since when, if that has changed.
    pub fn take_link(&self) -> Option<(Link, Timestamp)> {
        self.lock().link.take()
    }

    /// Says that the event stream ended. What is known stands until the daemon answers again.
    pub fn lost(&self, why: &str) {
        self.lock().news.connected = None;
        self.link(Link::Down(why.to_owned()));
    }

    /// Asks for a look at everything (SIGHUP).
    pub fn look(&self) {
        self.put(|news| {
            news.look = true;
            news.asked = true;
            news.resume = true;
            true
        });
    }

    /// Says that more addresses are known. A pass for them does not wait for the end of a burst: they were
    /// waited for already.
    pub fn addresses(&self) {
        self.put(|news| {
            news.addresses = true;
            true
        });
        let mut state = self.lock();
        if let Some(waiting) = &mut state.waiting {
            waiting.urgent.get_or_insert(waiting.last);
        }
    }

    /// Brings what Weave's router answered.
    pub fn answered(&self, asked: Asked) {
        self.lock().asked = Some(asked);
        self.shared.1.notify_all();
    }

    /// Takes out what Weave's router answered.
    pub fn take_answer(&self) -> Option<Asked> {
        self.lock().asked.take()
    }

    /// Asks the main loop to end.
    pub fn stop(&self) {
        self.lock().stop = true;
        self.shared.1.notify_all();
    }

    /// Whether the main loop was asked to end.
    pub fn stopping(&self) -> bool {
        self.lock().stop
    }

    /// Since when something waits here.
    pub fn waiting(&self) -> Option<Waiting> {
        self.lock().waiting
    }

    /// Takes everything out.
    pub fn take(&self) -> News {
        let mut state = self.lock();
        state.waiting = None;
        std::mem::take(&mut state.news)
    }

    /// Waits for the first news, an answer or the stop, at most until `until`.
    pub fn wait(&self, until: Option<Instant>) {
        self.wait_while(until, |state| {
            state.waiting.is_none() && state.asked.is_none() && state.link.is_none()
        });
    }

    /// Lets news gather until `until`; only an answer or the stop ends it earlier.
    pub fn gather(&self, until: Instant) {
        self.wait_while(Some(until), |state| state.asked.is_none());
    }

    /// Waits out this time; false when stopped meanwhile.
    pub fn pause(&self, time: Duration) -> bool {
        self.wait_while(Some(Instant::now() + time), |_| true);
        !self.stopping()
    }

    fn wait_while(&self, until: Option<Instant>, keep_waiting: impl Fn(&State) -> bool) {
        let mut state = self.lock();
        while !state.stop && keep_waiting(&state) {
            match until {
                None => state = self.shared.1.wait(state).expect(POISONED),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    state = self.shared.1.wait_timeout(state, left).expect(POISONED).0;
                }
            }
        }
    }

    /// `change` says whether it says anything new. What does not, such as the network of a dead container a tenth of a
    /// second after it, does not put off what waits.
    fn put(&self, change: impl FnOnce(&mut News) -> bool) {
        let now = Instant::now();
        let mut state = self.lock();
        let is_new = change(&mut state.news);
        match &mut state.waiting {
            Some(waiting) if is_new => waiting.last = now,
            Some(_) => {}
            None => {
                state.waiting = Some(Waiting {
                    first: now,
                    last: now,
                    urgent: None,
                });
                self.shared.1.notify_all();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect(POISONED)
    }
}

/// Why a poisoned lock cannot be met: the program is built to abort on a panic, and nothing panics under it.
const POISONED: &str = "no thread panics while it holds the inbox";

fn cause(event: &Event) -> String {
    let what = match event.what {
        What::Started => "start",
        What::Gone => "die",
        What::Leaving { .. } => "kill",
        What::Changed => "change",
        What::Probed => "health check",
        What::Renamed => "rename",
        What::Network => "network",
        What::Missed => return "events were missed".to_owned(),
    };
    let who = if event.name.is_empty() {
        event.id.get(..12).unwrap_or(&event.id)
    } else {
        &event.name
    };
    format!("{what} of {who}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str, what: What, time_nano: i64) -> Event {
        Event {
            id: id.to_owned(),
            name: format!("{id}-name"),
            what,
            time_nano,
        }
    }

    fn merged(events: &[(What, i64)]) -> Change {
        let inbox = Inbox::default();
        for (what, at) in events {
            inbox.event(event("a", *what, *at));
        }
        inbox.take().changes.remove("a").expect("one record")
    }

    #[test]
    fn the_last_word_on_a_container_counts() {
        let started = Change {
            started: Some(5),
            look: true,
            ..Change::default()
        };
        let gone = Change {
            gone: Some(5),
            ..Change::default()
        };
        for (events, expected) in [
            (&[(What::Gone, 1), (What::Started, 5)][..], &started),
            (&[(What::Started, 1), (What::Gone, 5)], &gone),
            (
                &[
                    (What::Leaving { signal: 15 }, 1),
                    (What::Gone, 5),
                    (What::Network, 6),
                ],
                &gone,
            ),
            (&[(What::Gone, 5), (What::Changed, 6)], &gone),
            (&[(What::Started, 5), (What::Gone, 4)], &started),
        ] {
            assert_eq!(merged(events), *expected, "{events:?}");
        }
        let leaving = merged(&[(What::Changed, 1), (What::Leaving { signal: 15 }, 2)]);
        assert!(leaving.look && leaving.signal == Some((15, 2)));
    }

    #[test]
    fn what_says_nothing_new_puts_nothing_off() {
        let inbox = Inbox::default();
        inbox.event(event("a", What::Leaving { signal: 9 }, 1));
        inbox.event(event("a", What::Gone, 2));
        let last = |inbox: &Inbox| inbox.waiting().expect("something waits").last;
        let died = last(&inbox);
        inbox.event(event("a", What::Network, 3));
        assert_eq!(last(&inbox), died);
        inbox.event(event("b", What::Network, 4));
        assert!(last(&inbox) > died);
        let news = inbox.take();
        assert_eq!((news.events, news.changes.len()), (4, 2));
    }

    #[test]
    fn a_storm_of_many_containers_ends_in_one_full_look() {
        let inbox = Inbox::default();
        for n in 0..=CHANGES_MAX {
            inbox.event(event(&n.to_string(), What::Started, 1));
        }
        let news = inbox.take();
        assert!(news.look && news.changes.len() < CHANGES_MAX);
        assert_eq!(news.first.as_deref(), Some("start of 0-name"));
        assert!(inbox.waiting().is_none());
    }

    #[test]
    fn waiting_ends_with_news_and_gathering_does_not() {
        let inbox = Inbox::default();
        let reader = inbox.clone();
        let thread = std::thread::spawn(move || reader.event(event("a", What::Started, 1)));
        inbox.wait(None);
        thread.join().expect("the thread ended");
        assert!(inbox.pause(Duration::from_millis(2)));
        inbox.stop();
        assert!(!inbox.pause(Duration::from_secs(60)));
    }
}
