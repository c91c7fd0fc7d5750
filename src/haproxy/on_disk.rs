//! The config file as it lies at its path: its words are read when somebody needs them, and only then.
//!
//! A config of 10,000 services has megabytes. What we have read or written ourselves is known by its fingerprint as
//! long as the file is the same one and nobody has written to it; that the kernel's stamps tell. The file stays
//! open, so that its words can still be read when another one is in its place.

use std::cell::OnceCell;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::carries;
use crate::config::{self, Printed};
use crate::room;

/// Longest config that is read back from disk, in bytes.
const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// What is another number as soon as a file is another one or has other bytes: device, inode, length, time of its
/// last change in seconds and nanoseconds. Nobody can set that time back as he can that of the last writing.
type Stamp = (u64, u64, u64, i64, i64);

fn stamp(file: &fs::Metadata) -> Stamp {
    (
        file.dev(),
        file.ino(),
        file.len(),
        file.ctime(),
        file.ctime_nsec(),
    )
}

/// A file that held a config of ours when we last looked.
///
/// It is made in the middle of a pass and stays, so it has no memory of its own: nothing that lies before that could be
/// given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    stamp: Stamp,
    fingerprint: u64,
}

impl Seen {
    /// Of the file at this path, if it is the very one that we have just put there.
    pub fn installed(path: &Path, inode: u64, fingerprint: &str) -> Option<Seen> {
        let file = fs::metadata(path).ok()?;
        let fingerprint = digits(fingerprint)?;
        (file.ino() == inode).then(|| Seen {
            stamp: stamp(&file),
            fingerprint,
        })
    }
}

/// What the digits of a fingerprint stand for.
fn digits(fingerprint: &str) -> Option<u64> {
    u64::from_str_radix(fingerprint, 16).ok()
}

/// The file at the config's path.
#[derive(Debug)]
pub struct OnDisk {
    file: Option<(File, Stamp)>,
    seen: Option<Seen>,
    /// As text, or what is in no encoding of ours.
    read: OnceCell<Option<Result<String, Vec<u8>>>>,
}

impl OnDisk {
    /// What lies there now. No file, or one that cannot be read, has no words.
    pub fn open(path: &Path, seen: Option<Seen>) -> OnDisk {
        let file = File::open(path).ok();
        let file = file.and_then(|file| {
            let stamp = stamp(&file.metadata().ok()?);
            Some((file, stamp))
        });
        let same = |seen: &Seen| matches!(&file, Some((_, stamp)) if *stamp == seen.stamp);
        OnDisk {
            seen: seen.filter(same),
            file,
            read: OnceCell::new(),
        }
    }

    /// Its words; `None` when there is no text of sane size.
    pub fn text(&self) -> Option<&str> {
        self.read().as_ref()?.as_deref().ok()
    }

    /// What it holds, be it text or not; `None` when there is no file of sane size.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self.read().as_ref()? {
            Ok(text) => Some(text.as_bytes()),
            Err(bytes) => Some(bytes),
        }
    }

    fn read(&self) -> &Option<Result<String, Vec<u8>>> {
        let read = || {
            let (file, (_, _, length, ..)) = self.file.as_ref()?;
            if *length > CONFIG_BYTES_MAX {
                return None;
            }
            let length = usize::try_from(*length).ok()?;
            // Also for what somebody may put into it: one that is full would be twice as long.
            let mut bytes = room::passing(length + length / 64 + 1);
            let mut file = file.take(CONFIG_BYTES_MAX + 1);
            file.read_to_end(&mut bytes).ok()?;
            let text = String::from_utf8(bytes).map_err(|error| error.into_bytes());
            let length = text.as_ref().map_or_else(Vec::len, String::len);
            (length as u64 <= CONFIG_BYTES_MAX).then_some(text)
        };
        self.read.get_or_init(read)
    }

    /// [`OnDisk::text`], to keep.
    pub fn into_text(self) -> Option<String> {
        self.read();
        self.read.into_inner()??.ok()
    }

    /// Whether its words need not be read to tell what it is.
    pub fn is_known(&self) -> bool {
        self.seen.is_some()
    }

    /// Whether it is the config of this fingerprint.
    pub fn carries(&self, fingerprint: &str) -> bool {
        match self.seen {
            Some(seen) => Some(seen.fingerprint) == digits(fingerprint),
            None => self.text().is_some_and(|text| carries(text, fingerprint)),
        }
    }

    /// Whether it holds exactly this.
    pub fn is(&self, wanted: &Printed<'_>) -> bool {
        match self.seen {
            Some(seen) => Some(seen.fingerprint) == digits(wanted.fingerprint()),
            None => self.text().is_some_and(|text| wanted.is(text)),
        }
    }

    /// Its config, without our fingerprint.
    pub fn config(&self) -> Option<&str> {
        self.text().map(|text| config::split_fingerprint(text).0)
    }

    /// What is known of it now, after somebody found that it carries this fingerprint.
    pub fn found(&self, fingerprint: &str) -> Option<Seen> {
        let (file, before) = self.file.as_ref()?;
        // Nobody has written to it while it was read.
        let after = stamp(&file.metadata().ok()?);
        let fingerprint = digits(fingerprint)?;
        (*before == after).then_some(Seen {
            stamp: after,
            fingerprint,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_is_known_until_somebody_touches_it() {
        let path = std::env::temp_dir().join(format!("csm-on-disk-{}", std::process::id()));
        let config = Printed::new("backend b\n".into());
        let [text, print] = config.pieces();
        let write = |words: &str| {
            // Older kernels' clocks for files tick every few milliseconds.
            std::thread::sleep(Duration::from_millis(20));
            fs::write(&path, words).expect("a file");
        };
        let whole = format!("{text}{print}");
        write(&whole);
        let first = OnDisk::open(&path, None);
        assert!(!first.is_known() && first.is(&config));
        assert!(first.carries(config.fingerprint()));
        let seen = first.found(config.fingerprint()).expect("nobody wrote");
        let again = OnDisk::open(&path, Some(seen));
        assert!(again.is_known() && again.is(&config) && again.carries(config.fingerprint()));
        assert!(!again.carries("another") && again.text() == Some(&*whole));

        // The same length, another word.
        write(&whole.replace("backend b", "backend c"));
        let changed = OnDisk::open(&path, Some(seen));
        assert!(!changed.is_known() && !changed.is(&config));
        assert!(!changed.carries(config.fingerprint()));
        // Another file of the same words in its place: to be read once.
        fs::remove_file(&path).expect("there");
        write(&whole);
        let other = OnDisk::open(&path, Some(seen));
        assert!(!other.is_known() && other.is(&config));
        fs::remove_file(&path).expect("there");
        assert_eq!(other.config(), Some("backend b\n"), "still open");
        let gone = OnDisk::open(&path, Some(seen));
        assert!(gone.text().is_none() && !gone.is(&config) && !gone.is_known());
    }
}
