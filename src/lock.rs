//! Who is at work in the state folder: a lock held for one pass, and one held for the life of `watch`.
//!
//! `sync` and `watch` never interleave: both take the pass lock. Only one `watch` runs: it holds the watch
//! lock as long as it lives. The kernel frees both when their holder dies, however it dies; the files stay,
//! each with the pid of its last holder in it.

use std::fs::{File, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Kind, Result};

/// File of the lock that a pass holds.
pub const PASS: &str = "pass.lock";
/// File of the lock that `watch` holds.
pub const WATCH: &str = "watch.lock";

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(50));
/// Longest pid that is read back, in bytes.
const PID_BYTES_MAX: u64 = 20;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // To close it would do, but for a child that another thread has just forked: until it becomes its program it
        // has the file, too, and so the lock.
        let _ = self.file.unlock();
    }
}

/// Takes the lock of this name in the state folder, waiting `patience` for another holder to finish.
///
/// # Errors
/// When the folder cannot be written, or somebody else still holds the lock: his pid is in the error,
/// whose kind is then `Denied`.
pub fn take(state_dir: &Path, name: &str, patience: Duration) -> Result<Lock> {
    take_unless(state_dir, name, patience, &|| false)
}

/// The same; the wait ends when `stopping` says so.
///
/// # Errors
/// As [`take`].
pub fn take_unless(
    state_dir: &Path,
    name: &str,
    patience: Duration,
    stopping: &dyn Fn() -> bool,
) -> Result<Lock> {
    let path = state_dir.join(name);
    let tried = || format!("cannot lock {}", path.display());
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| {
            let hint = match e.kind() {
                // It was there at the start. Made again by us it would lack the lock of who is at work.
                ErrorKind::NotFound => {
                    "the state directory is gone: start cosmonaut anew, which makes it"
                }
                _ => "--state-dir must be a folder that cosmonaut can write",
            };
            Error::new(tried(), e).hint(hint)
        })?;
    let until = Instant::now() + patience;
    let mut pause = PAUSES.0;
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Interrupted => continue,
            Err(TryLockError::Error(e)) => return Err(Error::new(tried(), e)),
            Err(TryLockError::WouldBlock) if Instant::now() >= until || stopping() => {
                let who = holder_in(&mut file)
                    .map_or("another cosmonaut".to_owned(), |pid| format!("pid {pid}"));
                return Err(Error::new(tried(), format!("{who} holds it")).kind(Kind::Denied));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
    // The pid is for people; a lock without it is a lock all the same. Each pass takes it, and a file that is
    // written waits for the file system's journal while Docker works with it.
    let pid = std::process::id();
    if holder_in(&mut file) != Some(pid) {
        let _ = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| file.write_all(pid.to_string().as_bytes()));
    }
    Ok(Lock { file })
}

/// The pid of who holds the lock now, if somebody does.
pub fn holder(state_dir: &Path, name: &str) -> Option<u32> {
    let mut file = File::open(state_dir.join(name)).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => holder_in(&mut file),
        _ => None,
    }
}

/// Makes the state folder if it is missing.
///
/// # Errors
/// When it cannot be made.
pub fn make_state_dir(path: &Path) -> Result<PathBuf> {
    std::fs::create_dir_all(path)
        .and_then(|()| std::fs::canonicalize(path))
        .map_err(|e| {
            Error::new(
                format!("cannot make the state folder {}", path.display()),
                e,
            )
            .hint("--state-dir names a folder that cosmonaut may write; its default needs root")
        })
}

fn holder_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let dir = std::env::temp_dir().join(format!("cosmonaut-lock-{}", std::process::id()));
        let dir = make_state_dir(&dir).expect("a folder");
        assert_eq!(holder(&dir, PASS), None);
        let held = take(&dir, PASS, Duration::ZERO).expect("free");
        assert_eq!(holder(&dir, PASS), Some(std::process::id()));
        let refused = take(&dir, PASS, Duration::from_millis(5)).expect_err("held");
        assert!(refused.is(Kind::Denied), "{refused}");
        assert!(
            refused
                .to_string()
                .ends_with(&format!("pid {} holds it", std::process::id())),
            "{refused}"
        );
        drop(held);
        let held = take(&dir, PASS, Duration::ZERO).expect("free again");
        // As in a child that another thread has just forked.
        let also = held.file.try_clone().expect("the same file once more");
        drop(held);
        take(&dir, PASS, Duration::ZERO).expect("free although somebody has the file");
        drop(also);
        std::fs::remove_dir_all(&dir).expect("removed");
        let gone = take(&dir, PASS, Duration::ZERO).expect_err("no folder");
        let hint = gone.hint_text().unwrap_or_default();
        assert!(hint.contains("is gone"), "{gone}: {hint}");
    }
}
