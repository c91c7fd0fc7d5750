//! The last configs that HAProxy took, in `<state-dir>/history`, and the hold that a rollback sets.
//!
//! One file for each config (`NUMBER.cfg`, as HAProxy read it, fingerprint and all) and one `index.json`
//! that tells them; the index is written last, so that it names only files that are whole. Losing any of it
//! costs a way back and nothing else: it is said and the pass goes on. All writing happens under the pass
//! lock. It must not know how a config is made or goes live.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, Durability};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::report::moment;
use crate::timestamp::Timestamp;

/// Configs that are kept: enough to find the last good one of a bad day, little enough to read.
const KEPT: usize = 10;
/// Version of the files' shape.
const VERSION: u32 = 1;
/// Largest index or hold that is read, in bytes; ten entries need a few thousand.
const INDEX_BYTES_MAX: u64 = 1 << 20;
/// Largest config that is read, in bytes: the same as HAProxy's own file may have.
const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Longest words of a cause or change that are kept, in bytes.
const WORDS_BYTES_MAX: usize = 1_000;

/// One config that HAProxy took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Counts up for ever; names the file.
    pub number: u64,
    /// When HAProxy took it.
    pub time: Timestamp,
    /// Why the pass was made.
    pub cause: String,
    /// What changed, in words.
    pub changes: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Backends in it.
    pub services: usize,
    /// Servers in it.
    pub servers: usize,
}

/// A rollback holds this config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Since when; `None` when its file cannot be understood, which holds all the same.
    pub since: Option<Timestamp>,
    /// The entry's number.
    pub number: u64,
    /// Its fingerprint.
    pub fingerprint: String,
}

impl Hold {
    /// A hold of this entry that begins now.
    pub fn of(entry: &Entry) -> Self {
        Hold {
            since: Some(moment::now()),
            number: entry.number,
            fingerprint: entry.fingerprint.clone(),
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Index {
    version: u32,
    /// Newest last.
    configs: Vec<Entry>,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// The history in this state folder. Nothing is made before something is kept.
    pub fn new(state_dir: &Path) -> Self {
        History {
            folder: state_dir.join("history"),
        }
    }

    /// The entries, the newest first; none when there is no history yet.
    ///
    /// # Errors
    /// When the index cannot be read or understood.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let path = self.index();
        let tried = || format!("cannot read the history {}", path.display());
        let bytes = match read(&path, INDEX_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(denied(Error::new(tried(), &e), &e)),
        };
        let index: Index = json::read(&bytes).map_err(|e| {
            Error::new(tried(), e).hint("remove it; a new one begins with the next change")
        })?;
        if index.version != VERSION {
            let why = format!("it has version {}, known is {VERSION}", index.version);
            return Err(
                Error::new(tried(), why).hint("remove it; a new one begins with the next change")
            );
        }
        let mut entries = index.configs;
        entries.reverse();
        Ok(entries)
    }

    /// The config of an entry, as HAProxy read it.
    ///
    /// # Errors
    /// When its file cannot be read or is not that config any more.
    pub fn text(&self, entry: &Entry) -> Result<String> {
        let path = self.config(entry.number);
        let tried = || format!("cannot take the config {}", path.display());
        let bytes = read(&path, CONFIG_BYTES_MAX).map_err(|e| Error::new(tried(), e))?;
        let text = String::from_utf8(bytes).map_err(|e| Error::new(tried(), e))?;
        let (body, said) = config::split_fingerprint(&text);
        let whole = said == Some(entry.fingerprint.as_str())
            && config::fingerprint(body) == entry.fingerprint;
        if whole {
            Ok(text)
        } else {
            Err(
                Error::new(tried(), "it is not the config that HAProxy took then")
                    .hint("somebody changed the file; choose another one of the history"),
            )
        }
    }

    /// Keeps a config that HAProxy took, `text` being the whole file. One that is the newest already is
    /// not kept twice. A failure is only said.
    pub fn keep(&self, text: &str, cause: &str, changes: &str) {
        let Some(fingerprint) = config::split_fingerprint(text).1 else {
            return;
        };
        let mut entries = self.entries().unwrap_or_else(|error| {
            log::warn!("{error}; a new history begins");
            Vec::new()
        });
        if entries
            .first()
            .is_some_and(|newest| newest.fingerprint == fingerprint)
        {
            return;
        }
        let (services, servers) = config::size(text);
        let entry = Entry {
            number: self.free_number(&entries),
            time: moment::now(),
            cause: cut(cause),
            changes: cut(changes),
            fingerprint: fingerprint.to_owned(),
            services,
            servers,
        };
        let file = self.config(entry.number);
        entries.insert(0, entry);
        entries.truncate(KEPT);
        let written = self
            .make()
            .and_then(|()| {
                atomic_file::replace_with(&file, &[text.as_bytes()], Durability::Kernel).map(drop)
            })
            .and_then(|()| self.write_index(&entries));
        match written {
            Ok(()) => self.remove_all_but(&entries),
            Err(error) => log::warn!("{error}; this config will be missing from the history"),
        }
    }

    /// What a rollback holds, if one does. A file that says nothing usable holds all the same: somebody put it there.
    ///
    /// # Errors
    /// When that cannot be told: the file is there, or may be, and cannot be read.
    pub fn hold(&self) -> Result<Option<Hold>> {
        let file = self.hold_file();
        let unknown = Hold {
            since: None,
            number: 0,
            fingerprint: String::new(),
        };
        let error = match read(&file, INDEX_BYTES_MAX) {
            Ok(bytes) => return Ok(Some(json::read(&bytes).unwrap_or(unknown))),
            Err(e) if e.kind() == io::ErrorKind::FileTooLarge => return Ok(Some(unknown)),
            Err(e) => e,
        };
        // What cannot be opened for want of memory or descriptors may not be there at all.
        if is_absent(&error) || fs::symlink_metadata(&file).is_err_and(|e| is_absent(&e)) {
            return Ok(None);
        }
        let tried = format!(
            "cannot read {}, which tells whether a rollback holds the config",
            file.display()
        );
        let mend = "nothing changes until it can be read; `cosmonaut resume` removes it, and the containers count again";
        Err(Error::new(tried, error).hint(mend))
    }

    /// Holds from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn set_hold(&self, hold: &Hold) -> Result<()> {
        self.make()?;
        let bytes = serde_json::to_vec(hold)
            .map_err(|e| Error::new("cannot write down what is held", e))?;
        atomic_file::replace(&self.hold_file(), &bytes).map(drop)
    }

    /// Ends the hold; false when there was none.
    ///
    /// # Errors
    /// When the file cannot be removed.
    pub fn end_hold(&self) -> Result<bool> {
        let path = self.hold_file();
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => {
                let error = Error::new(format!("cannot remove {}", path.display()), &e);
                Err(denied(error, &e))
            }
        }
    }

    fn index(&self) -> PathBuf {
        self.folder.join("index.json")
    }

    fn hold_file(&self) -> PathBuf {
        self.folder.join("hold.json")
    }

    fn config(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number}.cfg"))
    }

    fn make(&self) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .map_err(|e| Error::new(format!("cannot make {}", self.folder.display()), e))
    }

    fn write_index(&self, newest_first: &[Entry]) -> Result<()> {
        let index = Index {
            version: VERSION,
            configs: newest_first.iter().rev().cloned().collect(),
        };
        let bytes = serde_json::to_vec(&index)
            .map_err(|e| Error::new("cannot write down the history", e))?;
        atomic_file::replace_with(&self.index(), &[&bytes], Durability::Kernel).map(drop)
    }

    /// One past every number in use, also past files that a lost index told of.
    fn free_number(&self, entries: &[Entry]) -> u64 {
        let told = entries.iter().map(|entry| entry.number);
        let there = self.numbers().into_iter();
        told.chain(there).max().unwrap_or(0).saturating_add(1)
    }

    fn numbers(&self) -> Vec<u64> {
        let Ok(folder) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        folder
            .flatten()
            .filter_map(|file| {
                let name = file.file_name();
                name.to_str()?.strip_suffix(".cfg")?.parse().ok()
            })
            .collect()
    }

    fn remove_all_but(&self, entries: &[Entry]) {
        for number in self.numbers() {
            if entries.iter().all(|entry| entry.number != number) {
                // A file too many does no harm, and the next change tries again.
                let _ = fs::remove_file(self.config(number));
            }
        }
    }
}

/// Chooses what a rollback goes to, out of the entries, newest first: number `wanted` counted from 1, or
/// without it the one before `present`, the fingerprint of what HAProxy has now.
///
/// While a rollback holds, the one before is the one before what is held: going back twice goes back two.
///
/// # Errors
/// When there is no such entry.
pub fn choose<'e>(
    entries: &'e [Entry],
    wanted: Option<u32>,
    present: Option<&str>,
    hold: Option<&Hold>,
) -> Result<&'e Entry> {
    let tried = match wanted {
        Some(number) => format!("cannot go back to config {number}"),
        None => "cannot go back".to_owned(),
    };
    if entries.is_empty() {
        return Err(Error::new(tried, "there is no history yet")
            .hint("it begins with the first config that HAProxy takes from cosmonaut"));
    }
    if let Some(number) = wanted {
        let at = usize::try_from(number).unwrap_or(usize::MAX);
        return entries.get(at.wrapping_sub(1)).ok_or_else(|| {
            Error::new(tried, format!("the history has {}", entries.len()))
                .hint("cosmonaut history lists them")
        });
    }
    let held = hold.and_then(|hold| entries.iter().position(|e| e.number == hold.number));
    let now = held.or_else(|| {
        entries
            .iter()
            .position(|entry| Some(entry.fingerprint.as_str()) == present)
    });
    // What HAProxy has now may have come from elsewhere; then the newest that it took is before it.
    let first = now.map_or(0, |at| at + 1);
    let other = |entry: &&Entry| Some(entry.fingerprint.as_str()) != present;
    entries.iter().skip(first).find(other).ok_or_else(|| {
        Error::new(tried, "there is no config before the present one")
            .hint("cosmonaut history lists them")
    })
}

/// The history for people, the newest first; `present` is the fingerprint of what HAProxy has now.
pub fn in_words(entries: &[Entry], present: Option<&str>, hold: Option<&Hold>) -> String {
    let mut text = String::new();
    // The same config may stand there twice; HAProxy has it from the newest of them, or by the rollback.
    let live = hold
        .and_then(|hold| entries.iter().position(|e| e.number == hold.number))
        .filter(|at| entries.get(*at).map(|e| e.fingerprint.as_str()) == present)
        .or_else(|| {
            entries
                .iter()
                .position(|entry| Some(entry.fingerprint.as_str()) == present)
        });
    for (at, entry) in entries.iter().enumerate() {
        let mark = match (live == Some(at), hold) {
            (true, Some(_)) => "  <- live, held",
            (true, None) => "  <- live",
            _ => "",
        };
        text.push_str(&format!(
            "{:>2}  {}  {}  {:>4} services {:>5} servers{mark}\n    {} ({})\n",
            at + 1,
            entry.time.to_seconds(),
            entry.fingerprint,
            entry.services,
            entry.servers,
            entry.changes,
            entry.cause,
        ));
    }
    text
}

/// A sentence on a hold, for the log and for status.
pub fn hold_in_words(hold: &Hold) -> String {
    let since = hold.since.map_or(String::new(), |since| {
        format!(" since {}", since.to_seconds())
    });
    let what = if hold.fingerprint.is_empty() {
        "the present config (history/hold.json cannot be understood)".to_owned()
    } else {
        format!("config {}", hold.fingerprint)
    };
    format!("a rollback holds {what}{since}; `cosmonaut resume` or SIGHUP ends that")
}

/// Whether there is no such file, and not only none that can be read.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

fn denied(error: Error, cause: &io::Error) -> Error {
    if cause.kind() == io::ErrorKind::PermissionDenied {
        error
            .kind(Kind::Denied)
            .hint("run it as the user that runs watch")
    } else {
        error
    }
}

fn cut(words: &str) -> String {
    words
        .get(..words.floor_char_boundary(WORDS_BYTES_MAX))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let dir =
            std::env::temp_dir().join(format!("cosmonaut-history-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    fn text(n: usize) -> String {
        config::with_fingerprint(&format!("backend be_web\n    server a 10.0.0.{n}:80\n"))
    }

    fn print_of(n: usize) -> String {
        let text = text(n);
        config::split_fingerprint(&text)
            .1
            .expect("a fingerprint")
            .to_owned()
    }

    #[test]
    fn the_last_ten_are_kept_and_can_be_read() {
        let dir = folder("ten");
        let history = History::new(&dir);
        assert_eq!(history.entries().expect("no history"), []);
        for n in 0..14 {
            history.keep(&text(n), "start of a", "more");
            history.keep(&text(n), "retry", "the same once more");
        }
        let entries = history.entries().expect("a history");
        assert_eq!(entries.len(), KEPT);
        assert_eq!(history.numbers().len(), KEPT, "surplus files are removed");
        for (at, entry) in entries.iter().enumerate() {
            assert_eq!(history.text(entry).expect("a config"), text(13 - at));
            assert_eq!((entry.services, entry.servers), (1, 1));
        }
        // A file that somebody edited is not handed to HAProxy.
        let first = entries.first().expect("ten");
        fs::write(history.config(first.number), "backend evil\n").expect("written");
        assert!(history.text(first).is_err());
        // A damaged index begins anew and overwrites nothing.
        fs::write(history.index(), "{").expect("written");
        assert!(history.entries().is_err());
        history.keep(&text(99), "start", "x");
        let entries = history.entries().expect("a new one");
        assert_eq!(entries.len(), 1);
        assert!(entries[0].number > first.number);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_hold_is_there_until_it_is_ended_also_when_it_is_damaged() {
        let dir = folder("hold");
        let history = History::new(&dir);
        history.keep(&text(1), "start", "x");
        assert_eq!(history.hold().expect("told"), None);
        assert!(!history.end_hold().expect("nothing to end"));
        let entry = history.entries().expect("one").remove(0);
        history.set_hold(&Hold::of(&entry)).expect("held");
        let hold = history.hold().expect("told").expect("held");
        assert_eq!(hold.number, entry.number);
        let too_long = "x".repeat(INDEX_BYTES_MAX as usize + 1);
        for damaged in ["", &too_long] {
            fs::write(history.hold_file(), damaged).expect("damaged");
            let hold = history.hold().expect("told").expect("still held");
            assert_eq!(hold.since, None);
            let words = hold_in_words(&hold);
            assert!(
                words.contains("cosmonaut resume") && words.contains("hold.json"),
                "{words}"
            );
        }
        assert!(history.end_hold().expect("ended"));
        assert_eq!(history.hold().expect("told"), None);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn a_hold_that_cannot_be_read_is_neither_there_nor_absent() {
        let dir = folder("unreadable");
        let history = History::new(&dir);
        // A folder of that name can be opened and not read, by root as well.
        fs::create_dir_all(history.hold_file()).expect("a folder");
        let error = history.hold().expect_err("it cannot be told");
        assert!(error.to_string().contains("hold.json"), "{error}");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("cosmonaut resume")),
            "{error:?}"
        );
        // Without a history there is nothing that could hold.
        fs::remove_dir_all(&history.folder).expect("removed");
        fs::write(&history.folder, "").expect("a file in its place");
        assert_eq!(history.hold().expect("told"), None);
        fs::remove_dir_all(dir).expect("removed");
    }

    #[test]
    fn what_a_rollback_goes_to() {
        let dir = folder("choose");
        let history = History::new(&dir);
        // Newest first: 3 2 1 2 1
        for n in [1, 2, 1, 2, 3] {
            history.keep(&text(n), "c", "x");
        }
        let entries = history.entries().expect("five");
        let hold_at = |at: usize| Hold {
            since: None,
            number: entries[at].number,
            fingerprint: entries[at].fingerprint.clone(),
        };
        let (one, two, three) = (print_of(1), print_of(2), print_of(3));
        let other = "0123456789abcdef".to_owned();
        for (wanted, present, held, expected) in [
            (Some(1), &three, None, Some(0)),
            (Some(5), &three, None, Some(4)),
            (Some(6), &three, None, None),
            (None, &three, None, Some(1)),
            (None, &two, Some(1), Some(2)),
            (None, &one, Some(4), None),
            // HAProxy has what the history does not know.
            (None, &other, None, Some(0)),
        ] {
            let hold = held.map(hold_at);
            let found = choose(&entries, wanted, Some(present), hold.as_ref()).ok();
            let expected = expected.map(|at: usize| &entries[at]);
            assert_eq!(found, expected, "{wanted:?} {present} {held:?}");
        }
        assert!(choose(&[], None, None, None).is_err());

        let words = in_words(&entries, Some(&two), Some(&hold_at(3)));
        let marked: Vec<&str> = words.lines().filter(|line| line.contains("<-")).collect();
        assert!(
            marked.len() == 1 && marked[0].starts_with(" 4 ") && marked[0].ends_with("live, held"),
            "{words}"
        );
        fs::remove_dir_all(dir).expect("removed");
    }
}
