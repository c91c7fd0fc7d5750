//! What HAProxy last took, across restarts of ours: `taken.json` and `last-good.cfg` in the state folder.
//!
//! Both may be lost or stale at any time without harm: then a reload more is made. A last good config is
//! only believed if it carries the fingerprint of its own text.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::atomic_file::{self, Durability};
use crate::json;

/// Version of the file's shape.
const VERSION: u32 = 1;

/// What HAProxy last took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Fingerprint of the config.
    pub fingerprint: String,
    /// Digest of what the registry was asked for it; empty when HAProxy did not take all of the answer.
    pub request: String,
    /// Fingerprint of the config that HAProxy last loaded, and so the one that it shows: changes by the
    /// runtime socket since then make it run `fingerprint` all the same. Empty while nobody can tell what it runs.
    pub loaded: String,
}

impl Taken {
    /// Whether HAProxy runs what it last took, as far as is known: a reload that failed may have left it with
    /// another config.
    pub fn is_sure(&self) -> bool {
        !self.loaded.is_empty()
    }
}

#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    config: PathBuf,
    fingerprint: String,
    request: String,
    /// Absent in files of versions without a runtime socket: then it is `fingerprint`.
    #[serde(default)]
    loaded: Option<String>,
}

fn read(bytes: &[u8]) -> Option<Record> {
    let record: Record = json::read(bytes).ok()?;
    (record.version == VERSION).then_some(record)
}

/// The two files.
#[derive(Debug, Clone)]
pub struct Memory {
    taken: PathBuf,
    last_good: PathBuf,
    config: PathBuf,
    /// What could not be written down; it counts as long as the first file has these bytes.
    unwritten: Option<(Option<Vec<u8>>, Taken)>,
}

impl Memory {
    /// Memory of one config file, kept in the state folder.
    pub fn new(state_dir: &Path, config: &Path) -> Self {
        Memory {
            taken: state_dir.join("taken.json"),
            last_good: state_dir.join("last-good.cfg"),
            config: config.to_owned(),
            unwritten: None,
        }
    }

    /// What HAProxy last took, if it is known and was for this config file.
    pub fn taken(&self) -> Option<Taken> {
        let written = std::fs::read(&self.taken).ok();
        if let Some((before, taken)) = &self.unwritten
            && *before == written
        {
            return Some(taken.clone());
        }
        let record = read(&written?).filter(|record| record.config == self.config)?;
        Some(Taken {
            loaded: record.loaded.unwrap_or_else(|| record.fingerprint.clone()),
            fingerprint: record.fingerprint,
            request: record.request,
        })
    }

    /// The config file that HAProxy last took, if it is there and not the one that this is about.
    pub fn other_config(&self) -> Option<PathBuf> {
        let record = read(&std::fs::read(&self.taken).ok()?)?;
        let (other, ours) = (
            record.config.canonicalize().ok()?,
            self.config.canonicalize(),
        );
        (ours.ok().as_ref() != Some(&other)).then_some(record.config)
    }

    /// The last config that HAProxy took, with its fingerprint.
    pub fn last_good(&self) -> Option<(String, String)> {
        let taken = self.taken()?;
        let text = super::read_text(&self.last_good)?;
        super::carries(&text, &taken.fingerprint).then_some((text, taken.fingerprint))
    }

    /// When HAProxy took the last good config.
    pub fn last_good_at(&self) -> Option<SystemTime> {
        std::fs::metadata(&self.last_good).ok()?.modified().ok()
    }

    /// Whether there is a last good config to read, perhaps.
    pub fn has_last_good(&self) -> bool {
        self.last_good.exists()
    }

    /// Remembers that HAProxy took this text, piece by piece. A failure costs a reload later, so it is only said.
    pub fn remember(&mut self, taken: &Taken, text: &[&str]) {
        let text: Vec<&[u8]> = text.iter().map(|piece| piece.as_bytes()).collect();
        let record = Record {
            version: VERSION,
            config: self.config.clone(),
            fingerprint: taken.fingerprint.clone(),
            request: taken.request.clone(),
            loaded: Some(taken.loaded.clone()),
        };
        let written = serde_json::to_vec(&record)
            .map_err(|e| crate::error::Error::new("cannot write down what HAProxy took", e))
            .and_then(|bytes| {
                atomic_file::replace_with(&self.last_good, &text, Durability::Kernel)?;
                atomic_file::replace_with(&self.taken, &[&bytes], Durability::Kernel)
            });
        self.unwritten = None;
        if let Err(error) = written {
            log::warn!("{error}; the next start will reload HAProxy once more");
            self.unwritten = Some((std::fs::read(&self.taken).ok(), taken.clone()));
        }
    }
}
