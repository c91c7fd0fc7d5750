//! What was done and when, shared by the threads of the soak: the excuses that a failed request or a difference may have.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds of the wall clock: the load is another process.
pub fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// What was away for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Away {
    Dockerd,
    /// The HAProxy of this site.
    Haproxy(usize),
    Cosmos,
}

impl Away {
    /// Whether it concerns the HAProxy of this site at all.
    pub fn concerns(self, site: usize) -> bool {
        match self {
            Away::Dockerd => true,
            Away::Haproxy(of) => of == site,
            Away::Cosmos => site == 1,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Away::Dockerd => "dockerd away",
            Away::Haproxy(_) => "HAProxy away",
            Away::Cosmos => "Cosmos away",
        }
    }
}

/// A span of the wall clock; open until `to` is known.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub from: f64,
    pub to: Option<f64>,
}

impl Span {
    pub fn meets(&self, from: f64, to: f64) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }
}

#[derive(Default)]
struct Book {
    deeds: BTreeMap<&'static str, usize>,
    outages: Vec<(Away, Span)>,
    /// (service, slot) -> when it was touched.
    touches: BTreeMap<(usize, usize), Vec<Span>>,
    requests: u64,
    faults: Vec<String>,
}

/// The one log; clones share it.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Book>>);

impl Log {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn deed(&self, what: &'static str) {
        *self.book().deeds.entry(what).or_default() += 1;
    }

    pub fn deeds(&self) -> BTreeMap<&'static str, usize> {
        self.book().deeds.clone()
    }

    /// Runs `act` while `what` counts as away.
    pub fn away<T>(&self, what: Away, act: impl FnOnce() -> T) -> T {
        let at = {
            let mut book = self.book();
            book.outages.push((
                what,
                Span {
                    from: now(),
                    to: None,
                },
            ));
            book.outages.len() - 1
        };
        let done = act();
        self.book().outages[at].1.to = Some(now());
        done
    }

    pub fn outages(&self) -> Vec<(Away, Span)> {
        self.book().outages.clone()
    }

    /// Runs `act` on one slot and notes that it was touched meanwhile.
    pub fn touch<T>(&self, slot: (usize, usize), act: impl FnOnce() -> T) -> T {
        self.begin(slot);
        let done = act();
        if let Some(span) = self.book().touches.entry(slot).or_default().last_mut() {
            span.to = Some(now());
        }
        done
    }

    fn begin(&self, slot: (usize, usize)) {
        let span = Span {
            from: now(),
            to: None,
        };
        self.book().touches.entry(slot).or_default().push(span);
    }

    /// Whether a slot was touched between these times.
    pub fn touched(&self, slot: (usize, usize), from: f64, to: f64) -> bool {
        self.book()
            .touches
            .get(&slot)
            .is_some_and(|spans| spans.iter().rev().any(|span| span.meets(from, to)))
    }

    pub fn requests(&self, done: u64) {
        self.book().requests = done;
    }

    /// Something that must not be.
    pub fn fault(&self, what: String) {
        eprintln!("soak: FAULT: {what}");
        self.book().faults.push(what);
    }

    pub fn faults(&self) -> Vec<String> {
        self.book().faults.clone()
    }

    pub fn summary(&self) -> String {
        let book = self.book();
        format!(
            "{} deeds, {} requests, {} faults",
            book.deeds.values().sum::<usize>(),
            book.requests,
            book.faults.len()
        )
    }
}
