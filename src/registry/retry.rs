//! When to ask a registry again, and when to give up. Pure: the time that has passed is handed in.
//!
//! Measured on the real service: a first call to a new table takes 2 s to more than 20 s and
//! fails once or twice; writes are the bottleneck, so waits grow.

use std::time::Duration;

/// First wait; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(500);

/// Longest wait between two tries.
const WAIT_MAX: Duration = Duration::from_secs(8);

/// No try begins after this: with the longest call (35 s) a pass ends within 75 s.
pub const START_MAX: Duration = Duration::from_secs(40);

/// The tries of one pass.
#[derive(Debug, Clone)]
pub struct Retry {
    failed: u32,
    waited: Duration,
    start_max: Duration,
}

impl Retry {
    /// Tries that begin within `patience`, at most [`START_MAX`].
    pub fn new(patience: Duration) -> Self {
        Retry {
            failed: 0,
            waited: Duration::ZERO,
            start_max: patience.min(START_MAX),
        }
    }

    /// How long to wait before the next try, when this one failed `passed` after the first began;
    /// `None` when it is time to give up.
    pub fn wait(&mut self, passed: Duration) -> Option<Duration> {
        let wait = WAIT_FIRST
            .saturating_mul(1 << self.failed.min(10))
            .min(WAIT_MAX);
        self.failed += 1;
        // Whoever waits for us may come back early; the waits count in full all the same. The last try begins when
        // time is over, not a whole wait before.
        let wait = wait.min(self.start_max.saturating_sub(passed.max(self.waited)));
        self.waited += wait;
        (!wait.is_zero()).then_some(wait)
    }

    /// How many tries have failed.
    pub fn failed(&self) -> u32 {
        self.failed
    }

    /// Whether a call may still begin.
    pub fn may_start(passed: Duration) -> bool {
        passed <= START_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls of one length until the pass gives up: the waits in ms, and the end in seconds.
    fn pass(call: Duration) -> (Vec<u128>, u64) {
        let (mut retry, mut now, mut waits) = (Retry::new(START_MAX), Duration::ZERO, Vec::new());
        loop {
            now += call;
            match retry.wait(now) {
                None => return (waits, now.as_secs()),
                Some(wait) => {
                    waits.push(wait.as_millis());
                    now += wait;
                }
            }
        }
    }

    #[test]
    fn waits_grow_and_a_pass_ends_in_time() {
        let (waits, end) = pass(Duration::ZERO);
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000, 8000, 500]);
        assert_eq!(end, 40);
        let (waits, end) = pass(Duration::from_secs(35));
        assert_eq!(waits, [500]);
        assert!(end <= 75, "{end}");
        for seconds in 0..=35 {
            assert!(pass(Duration::from_secs(seconds)).1 <= 75);
        }
    }
}
