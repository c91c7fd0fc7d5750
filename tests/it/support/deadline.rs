//! Waiting for a thing, never for a time: the condition is looked at until it holds or the
//! deadline is over, and only the deadline can make a test slow.

use std::time::{Duration, Instant};

/// How long a test waits for something that should happen soon.
///
/// Far above what any of it takes, since the machine may be busy with other tests; a test
/// that promises a speed says its own figure.
pub const SOON: Duration = Duration::from_secs(20);

/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Looks until `look` gives something; `None` once `limit` is over.
pub fn poll<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `look` gives something, and fails the test with `what` if it does not.
#[track_caller]
pub fn wait_for<T>(what: &str, limit: Duration, look: impl FnMut() -> Option<T>) -> T {
    match poll(limit, look) {
        Some(found) => found,
        None => panic!("waited {limit:?} in vain for {what}"),
    }
}

/// Watches for all of `span` that `holds` stays true, and fails the test at the first moment it does not.
#[track_caller]
pub fn stays(what: &str, span: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        assert!(holds(), "did not stay so: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}
