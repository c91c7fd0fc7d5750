//! When the next pass is due: at once for a lone change, collected in a burst, again after a failure,
//! and now and then without any cause. Pure; the clock is an argument.
//!
//! The first change after a calm time is acted on at once. Changes that come soon after a pass that
//! events caused and that changed something belong to a burst: they wait until none has come for a quiet
//! time, and never longer than `settle_max`. The quiet time starts at `settle` and doubles with each pass of the
//! burst up to a quarter of `settle_max`: containers that start 150 ms apart would otherwise cost a
//! reload each, and the end of a burst is still served within a quarter of a second.

use std::time::{Duration, Instant};

/// First wait after a failed pass.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Longest wait between two tries.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// A burst is over when nothing has come for this many times `settle`, at most `settle_max`.
const CALM_SETTLES: u32 = 3;
/// Least time between a pass and a look that is due by itself.
const RECHECK_MIN: Duration = Duration::from_millis(100);
/// The quiet time of a burst grows up to `settle_max` divided by this.
const QUIET_SHARE: u32 = 4;

/// Since when changes wait to be acted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// When the first one came.
    pub first: Instant,
    /// When the newest one came.
    pub last: Instant,
    /// When one came that was long waited for; it gathers others for `settle` at most.
    pub urgent: Option<Instant>,
}

/// Why a pass is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Something changed.
    Change,
    /// The pass before failed or left something owed.
    Retry,
    /// Something known must be looked at again at this time.
    Recheck,
    /// The slow look at everything, for what a silent network loses.
    Resync,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Run a pass.
    Pass(Due),
    /// Wait for the first change, at most until then.
    Idle(Option<Instant>),
    /// Changes wait already; let them gather until then.
    Gather(Instant),
}

/// How a pass ended, as far as the next one's time depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Nothing was changed.
    Unchanged,
    /// HAProxy got something new.
    Changed,
    /// It failed; it is owed.
    Failed,
}

/// The state of the clockwork.
#[derive(Debug)]
pub struct Schedule {
    settle: Duration,
    settle_max: Duration,
    resync: Option<Duration>,
    /// End of the last pass that events caused and that changed something, and how many did so in one burst.
    burst: Option<(Instant, u32)>,
    retry: Option<(Instant, Duration)>,
    recheck: Option<Instant>,
    looked: Option<Instant>,
}

impl Schedule {
    /// `resync` `None` means that nothing is looked at without a cause.
    pub fn new(settle: Duration, settle_max: Duration, resync: Option<Duration>) -> Self {
        Schedule {
            settle: settle.min(settle_max),
            settle_max,
            resync,
            burst: None,
            retry: None,
            recheck: None,
            looked: None,
        }
    }

    /// What to do at `now`, given since when changes wait.
    pub fn step(&self, waiting: Option<Waiting>, now: Instant) -> Step {
        if let Some(waiting) = waiting {
            let due = self.change_due(waiting);
            return if due <= now {
                Step::Pass(Due::Change)
            } else {
                Step::Gather(due)
            };
        }
        // While a pass is owed, its wait is the only clock: what else is due would fail the same way at once.
        let timers = match self.retry {
            Some((at, _)) => [(Some(at), Due::Retry), (None, Due::Recheck)],
            None => [
                (self.recheck, Due::Recheck),
                (self.resync_due(), Due::Resync),
            ],
        };
        let next = timers
            .into_iter()
            .filter_map(|(at, due)| at.map(|at| (at, due)))
            .min_by_key(|(at, _)| *at);
        match next {
            Some((at, due)) if at <= now => Step::Pass(due),
            Some((at, _)) => Step::Idle(Some(at)),
            None => Step::Idle(None),
        }
    }

    /// Notes the end of a pass, and since when the changes had waited that it was about: `None` for one
    /// that no event caused, which is no part of a burst.
    pub fn passed(&mut self, ended: Ended, waited: Option<Waiting>, now: Instant) {
        if let (true, Some(waited)) = (ended != Ended::Unchanged, waited) {
            let passes = match self.burst {
                Some((last, passes)) if waited.first < last + self.calm() => passes + 1,
                _ => 1,
            };
            self.burst = Some((now, passes));
        }
        self.retry = match (ended, self.retry) {
            // A change came in between: its try neither puts off nor rarefies those that need none.
            (Ended::Failed, Some(owed)) if owed.0 > now => Some(owed),
            (Ended::Failed, Some((_, wait))) => {
                let wait = (wait * 2).min(RETRY_MAX);
                Some((now + wait, wait))
            }
            (Ended::Failed, None) => Some((now + RETRY_FIRST, RETRY_FIRST)),
            _ => None,
        };
        if self.recheck.is_some_and(|at| at <= now) {
            self.recheck = None;
        }
    }

    /// Notes that everything was looked at.
    pub fn looked(&mut self, now: Instant) {
        self.looked = Some(now);
    }

    /// Asks for a look at `at`, or earlier if one is asked for already; never sooner than a moment after
    /// `now`, so that a look which changes nothing about its cause cannot follow itself without pause.
    pub fn recheck(&mut self, at: Instant, now: Instant) {
        let at = at.max(now + RECHECK_MIN);
        self.recheck = Some(self.recheck.map_or(at, |known| known.min(at)));
    }

    /// When the owed pass is tried again.
    pub fn retry_at(&self) -> Option<Instant> {
        self.retry.map(|(at, _)| at)
    }

    fn resync_due(&self) -> Option<Instant> {
        Some(self.looked? + self.resync?)
    }

    fn calm(&self) -> Duration {
        (self.settle * CALM_SETTLES).min(self.settle_max)
    }

    fn change_due(&self, waiting: Waiting) -> Instant {
        let Some((last, passes)) = self.burst else {
            return waiting.first;
        };
        if waiting.first >= last + self.calm() {
            return waiting.first;
        }
        let widest = (self.settle_max / QUIET_SHARE).max(self.settle);
        let quiet = (self.settle * (1u32 << passes.saturating_sub(1).min(10))).min(widest);
        let due = (waiting.last + quiet).min(waiting.first + self.settle_max);
        waiting
            .urgent
            .map_or(due, |urgent| due.min(urgent + self.settle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn schedule() -> (Schedule, Instant) {
        (
            Schedule::new(ms(100), ms(1000), Some(ms(60_000))),
            Instant::now(),
        )
    }

    fn waiting(start: Instant, first: u64, last: u64) -> Option<Waiting> {
        Some(Waiting {
            first: start + ms(first),
            last: start + ms(last),
            urgent: None,
        })
    }

    /// Plays changes at these milliseconds, each pass taking `pass` ms; returns when passes began.
    fn play(changes: &[u64], pass: u64) -> Vec<u64> {
        let (mut schedule, start) = schedule();
        let mut begun = Vec::new();
        let mut now = 0;
        let mut taken = 0;
        while taken < changes.len() {
            let here: Vec<u64> = changes[taken..]
                .iter()
                .copied()
                .take_while(|at| *at <= now)
                .collect();
            let waiting = here.first().map(|first| Waiting {
                first: start + ms(*first),
                last: start + ms(*here.last().unwrap_or(first)),
                urgent: None,
            });
            match schedule.step(waiting, start + ms(now)) {
                Step::Pass(_) => {
                    begun.push(now);
                    taken += here.len();
                    now += pass;
                    schedule.passed(Ended::Changed, waiting, start + ms(now));
                }
                Step::Gather(_) | Step::Idle(_) => now += 1,
            }
        }
        begun
    }

    #[test]
    fn a_lone_change_is_acted_on_at_once() {
        assert_eq!(play(&[5], 3), [5]);
        assert_eq!(play(&[5, 350, 700], 3), [5, 350, 700]);
    }

    #[test]
    fn a_burst_costs_few_passes_and_its_end_is_served_soon() {
        let starts: Vec<u64> = (0..20).map(|n| n * 150).collect();
        let passes = play(&starts, 3);
        assert!(passes.len() <= 6, "{passes:?}");
        assert_eq!(passes[0], 0);
        assert!(*passes.last().unwrap() <= 19 * 150 + 300, "{passes:?}");

        let kills: Vec<u64> = (0..20).map(|n| n * 65).collect();
        let passes = play(&kills, 100);
        assert!(passes.len() <= 4, "{passes:?}");
        assert!(*passes.last().unwrap() <= 19 * 65 + 300, "{passes:?}");
    }

    #[test]
    fn a_storm_cannot_put_a_pass_off_for_ever() {
        let storm: Vec<u64> = (0..10_000).collect();
        let passes = play(&storm, 3);
        assert!(
            passes.windows(2).all(|pair| pair[1] - pair[0] <= 1010),
            "{passes:?}"
        );
        assert!(passes.len() <= 14, "{passes:?}");
    }

    #[test]
    fn a_failure_is_tried_again_with_growing_waits() {
        let (mut schedule, start) = schedule();
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..8 {
            schedule.passed(Ended::Failed, None, now);
            let Step::Idle(Some(at)) = schedule.step(None, now) else {
                panic!("a retry is due later")
            };
            waits.push((at - now).as_secs());
            assert_eq!(schedule.step(None, at), Step::Pass(Due::Retry));
            now = at;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        schedule.passed(Ended::Unchanged, None, now);
        assert_eq!(schedule.step(None, now), Step::Idle(None));
    }

    #[test]
    fn a_change_does_not_wait_for_the_retry() {
        let (mut schedule, start) = schedule();
        schedule.passed(Ended::Failed, waiting(start, 0, 0), start);
        assert_eq!(
            schedule.step(waiting(start, 10, 10), start + ms(10)),
            Step::Gather(start + ms(110))
        );
        assert_eq!(
            schedule.step(waiting(start, 10, 10), start + ms(110)),
            Step::Pass(Due::Change)
        );
    }

    #[test]
    fn changes_that_fail_too_do_not_make_the_retries_rare() {
        let (mut schedule, start) = schedule();
        schedule.passed(Ended::Failed, None, start);
        for at in [100, 200, 300, 400, 500, 900] {
            schedule.passed(Ended::Failed, waiting(start, at, at), start + ms(at));
        }
        assert_eq!(schedule.retry_at(), Some(start + ms(1000)));
        schedule.passed(Ended::Failed, None, start + ms(1000));
        assert_eq!(schedule.retry_at(), Some(start + ms(3000)));
    }

    #[test]
    fn resync_and_recheck_come_in_their_time() {
        let (mut schedule, start) = schedule();
        assert_eq!(schedule.step(None, start), Step::Idle(None));
        schedule.looked(start);
        assert_eq!(
            schedule.step(None, start),
            Step::Idle(Some(start + ms(60_000)))
        );
        schedule.recheck(start + ms(2000), start);
        schedule.recheck(start + ms(1000), start);
        assert_eq!(
            schedule.step(None, start + ms(1000)),
            Step::Pass(Due::Recheck)
        );
        schedule.passed(Ended::Unchanged, None, start + ms(1001));
        assert_eq!(
            schedule.step(None, start + ms(60_000)),
            Step::Pass(Due::Resync)
        );
    }

    #[test]
    fn an_unchanged_pass_does_not_make_a_burst() {
        let (mut schedule, start) = schedule();
        schedule.passed(Ended::Unchanged, waiting(start, 0, 0), start);
        assert_eq!(
            schedule.step(waiting(start, 1, 1), start + ms(1)),
            Step::Pass(Due::Change)
        );
    }

    #[test]
    fn what_is_due_cannot_follow_itself_without_pause() {
        let (mut schedule, start) = schedule();
        schedule.looked(start);
        let late = start + ms(61_000);
        assert_eq!(schedule.step(None, late), Step::Pass(Due::Resync));
        schedule.passed(Ended::Failed, None, late);
        schedule.recheck(start, late);
        assert_eq!(
            schedule.step(None, late),
            Step::Idle(Some(late + ms(1000))),
            "neither the resync nor the recheck goes before the retry"
        );
        schedule.passed(Ended::Unchanged, None, late);
        schedule.looked(late);
        schedule.recheck(start, late);
        assert_eq!(schedule.step(None, late), Step::Idle(Some(late + ms(100))));
    }
}
