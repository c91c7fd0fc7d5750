//! Containers that start again and again: held out for a while, so that they cost the others no reloads
//! and their service no requests. Pure; the clock is an argument.
//!
//! A container that has started more than `STARTS_MAX` times within a minute is held out; each start
//! while it is held out doubles the wait, counted from that start.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use crate::timestamp::Timestamp;

/// Most starts after the first one within `WINDOW`.
const STARTS_MAX: usize = 5;
/// The time in which starts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// First and longest time that a container is held out after its last start.
const WAITS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));
/// Containers that are remembered; past that, those that have been calm are forgotten.
const KEPT: usize = 1000;

/// One container's starts.
#[derive(Debug)]
struct Life {
    started: Timestamp,
    restarts: u32,
    /// Those after the first one; most have none.
    again: Option<Box<Again>>,
}

#[derive(Debug)]
struct Again {
    starts: VecDeque<Instant>,
    wait: Duration,
    until: Option<Instant>,
}

/// The starts of all containers, by the hash of their ids: a thousand ids are longer than all the rest.
#[derive(Debug, Default)]
pub struct Flapping(HashMap<u64, Life>);

impl Flapping {
    /// Takes in what inspect says of a container: when it started, and how often Docker has restarted it.
    /// Returns for how long it is held out, when that begins.
    pub fn seen(
        &mut self,
        id: &str,
        started: Timestamp,
        restarts: u32,
        now: Instant,
    ) -> Option<Duration> {
        let key = key(id);
        let Some(life) = self.0.get_mut(&key) else {
            if self.0.len() >= KEPT {
                self.0
                    .retain(|_, life| life.is_held(now) || life.recent(now) > 0);
            }
            let life = Life {
                started,
                restarts,
                again: None,
            };
            self.0.insert(key, life);
            return None;
        };
        if life.started == started {
            return None;
        }
        // Several starts may have passed between two looks; Docker counts those that it made itself.
        let starts = restarts.saturating_sub(life.restarts).max(1) as usize;
        life.started = started;
        life.restarts = restarts;
        let again = life.again.get_or_insert_with(|| {
            Box::new(Again {
                starts: VecDeque::new(),
                wait: WAITS.0,
                until: None,
            })
        });
        for _ in 0..starts.min(STARTS_MAX + 1) {
            again.starts.push_back(now);
        }
        let held = again.is_held(now);
        let recent = again.recent(now);
        if held {
            again.wait = (again.wait * 2).min(WAITS.1);
        } else if recent > STARTS_MAX {
            again.wait = WAITS.0;
        } else {
            again.until = None;
            return None;
        }
        again.until = Some(now + again.wait);
        (!held).then_some(again.wait)
    }

    /// Why a container is held out, if it is.
    pub fn held(&self, id: &str, now: Instant) -> Option<String> {
        self.0.get(&key(id)).filter(|life| life.is_held(now)).map(|_| {
            format!("it started more than {STARTS_MAX} times within a minute and is held out for a while")
        })
    }

    /// Lets in whose time is over at `now`.
    pub fn let_in(&mut self, now: Instant) {
        let again = self.0.values_mut().filter_map(|life| life.again.as_mut());
        for again in again {
            again.until = again.until.filter(|until| *until > now);
        }
    }

    /// When somebody is to be let in; past while nobody has let him in.
    pub fn next_due(&self) -> Option<Instant> {
        let again = self.0.values().filter_map(|life| life.again.as_ref());
        again.filter_map(|again| again.until).min()
    }
}

impl Life {
    fn is_held(&self, now: Instant) -> bool {
        self.again.as_ref().is_some_and(|again| again.is_held(now))
    }

    fn recent(&mut self, now: Instant) -> usize {
        self.again.as_mut().map_or(0, |again| again.recent(now))
    }
}

impl Again {
    fn is_held(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until > now)
    }

    /// How many starts there were in the window.
    fn recent(&mut self, now: Instant) -> usize {
        while self.starts.front().is_some_and(|at| *at + WINDOW <= now) {
            self.starts.pop_front();
        }
        self.starts.len()
    }
}

fn key(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays starts at these seconds, with Docker's count; returns the seconds when it is held out,
    /// looked at each second up to `end`.
    fn held(starts: &[(u64, u32)], end: u64) -> Vec<u64> {
        let zero = Instant::now();
        let at = |seconds| zero + Duration::from_secs(seconds);
        let mut flapping = Flapping::default();
        let mut seconds = Vec::new();
        for second in 0..end {
            for (number, (start, restarts)) in starts.iter().enumerate() {
                if *start == second {
                    let started = Timestamp {
                        seconds: number as i64,
                        nanos: 0,
                    };
                    flapping.seen("a", started, *restarts, at(second));
                    flapping.seen("a", started, *restarts, at(second));
                }
            }
            if flapping.held("a", at(second)).is_some() {
                let due = flapping.next_due().expect("an end");
                assert!(due > at(second));
                seconds.push(second);
            }
        }
        seconds
    }

    #[test]
    fn more_than_five_restarts_in_a_minute_hold_a_container_out() {
        let every = |step: u64, count: u64| -> Vec<(u64, u32)> {
            (0..count).map(|n| (n * step, 0)).collect()
        };
        for (starts, expected) in [
            // The first start is no restart.
            (every(2, 6), vec![]),
            (every(2, 7), (12..22).collect::<Vec<u64>>()),
            (every(13, 9), vec![]),
            // Docker's own count tells of starts that nobody saw.
            (vec![(0, 0), (3, 7)], (3..13).collect()),
        ] {
            assert_eq!(held(&starts, 100), expected, "{starts:?}");
        }
    }

    #[test]
    fn each_start_while_it_is_held_out_doubles_the_wait() {
        let starts: Vec<(u64, u32)> = (0..9).map(|n| (n * 2, 0)).collect();
        // Held from 12 on; starts at 14 and 16 make it 20 s and 40 s.
        assert_eq!(held(&starts, 200), (12..56).collect::<Vec<u64>>());
        let always: Vec<(u64, u32)> = (0..400).map(|n| (n * 2, 0)).collect();
        assert_eq!(held(&always, 800), (12..800).collect::<Vec<u64>>());
    }

    #[test]
    fn many_calm_containers_are_forgotten() {
        let zero = Instant::now();
        let mut flapping = Flapping::default();
        let started = Timestamp {
            seconds: 0,
            nanos: 0,
        };
        for number in 0..3 * KEPT {
            flapping.seen(&number.to_string(), started, 0, zero);
        }
        assert!(flapping.0.len() <= KEPT);
    }
}
