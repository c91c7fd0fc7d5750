//! The built-in registry's memory on disk: `<state-dir>/<table>.json`.
//!
//! Versioned and replaced in one step, so it survives `kill -9` and a full disk. It can be made again
//! from Docker at any time (every payload carries all containers of this host): a damaged file is put
//! aside with a warning, and it is written without fsync. An fsync costs a disk's latency, often more
//! than the whole budget of a lone event, and would only save, over a power cut, what the next pass
//! finds anyway. It must not know what the services mean.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::embedded::{Memory, State};
use crate::atomic_file::{self, Durability};
use crate::error::{Error, Kind, Result};

/// Version of the file's format. A file of another version is put aside, not guessed at.
const VERSION: u32 = 1;

/// Largest state read, in bytes: ten times 20,000 services of one instance.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Longest name of a table.
const TABLE_BYTES_MAX: usize = 128;

/// Names of other files in the state dir that a table must not take.
const TABLES_RESERVED: &[&str] = &["status", "taken"];

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize)]
struct Written<'s> {
    version: u32,
    #[serde(flatten)]
    state: &'s State,
}

/// State files in one folder.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
    read_only: bool,
}

impl Store {
    /// A store in that folder (the state dir), which must exist by the time something is saved.
    pub fn new(folder: &Path) -> Self {
        Store {
            folder: folder.to_path_buf(),
            read_only: false,
        }
    }

    /// A store that reads and changes nothing, for `plan`.
    pub fn read_only(folder: &Path) -> Self {
        Store {
            folder: folder.to_path_buf(),
            read_only: true,
        }
    }

    /// Where a table's state is.
    ///
    /// # Errors
    /// When the name cannot be that of a file in this folder.
    pub fn path(&self, table: &str) -> Result<PathBuf> {
        let good = (1..=TABLE_BYTES_MAX).contains(&table.len())
            && !table.starts_with('.')
            && table
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !good || TABLES_RESERVED.contains(&table) {
            return Err(Error::new(
                format!("cannot use table {table:?} with the built-in registry"),
                format!(
                    "its state is a file of that name in {}",
                    self.folder.display()
                ),
            )
            .hint(format!(
                "a table's name is 1 to {TABLE_BYTES_MAX} letters, digits, `_`, `.`, `-`, no `.` first, and not one of: {}",
                TABLES_RESERVED.join(", ")
            )));
        }
        Ok(self.folder.join(format!("{table}.json")))
    }

    /// Renames a file that we cannot use, so that a person can look at it.
    fn put_aside(&self, path: &Path, why: &str) -> Result<()> {
        if self.read_only {
            log::warn!("{} is not used: {why}", path.display());
            return Ok(());
        }
        // One name only: a fault that comes back must not fill the disk.
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        let aside = PathBuf::from(aside);
        fs::rename(path, &aside).map_err(|cause| {
            Error::new(
                format!("cannot put {} aside as {}", path.display(), aside.display()),
                cause,
            )
            .hint(format!("it cannot be used ({why}); remove it"))
        })?;
        log::warn!(
            "{} is not used and was put aside as {}: {why}; it is made again from the containers that run",
            path.display(),
            aside.display()
        );
        Ok(())
    }
}

impl Memory for Store {
    fn load(&mut self, table: &str) -> Result<State> {
        let path = self.path(table)?;
        let bytes = match read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(cause) if cause.kind() == io::ErrorKind::FileTooLarge => {
                self.put_aside(&path, &format!("it is larger than {STATE_BYTES_MAX} bytes"))?;
                return Ok(State::default());
            }
            Err(cause) => {
                let denied = cause.kind() == io::ErrorKind::PermissionDenied;
                let error = Error::new(format!("cannot read {}", path.display()), cause);
                return Err(if denied {
                    error
                        .kind(Kind::Denied)
                        .hint("the user that runs cosmonaut needs to read and write it")
                } else {
                    error
                });
            }
        };
        match decode(&bytes) {
            Ok(state) => Ok(state),
            Err(why) => {
                self.put_aside(&path, &why)?;
                Ok(State::default())
            }
        }
    }

    fn save(&mut self, table: &str, state: &State) -> Result<()> {
        let path = self.path(table)?;
        if self.read_only {
            return Ok(());
        }
        atomic_file::replace_with(&path, &encode(state), Durability::Kernel).map(drop)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(STATE_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// The bytes of a state file.
fn encode(state: &State) -> Vec<u8> {
    let written = Written {
        version: VERSION,
        state,
    };
    // Strings, numbers and lists only: nothing that JSON could refuse.
    let mut bytes = serde_json::to_vec(&written).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// The state in a file's bytes, or why it cannot be used.
fn decode(bytes: &[u8]) -> std::result::Result<State, String> {
    let Version { version } =
        serde_json::from_slice(bytes).map_err(|cause| format!("it is damaged ({cause})"))?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, and this program knows version {VERSION}"
        ));
    }
    serde_json::from_slice(bytes).map_err(|cause| format!("it is damaged ({cause})"))
}
