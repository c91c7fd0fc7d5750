//! The built-in registry's memory on disk: `<state-dir>/<table>.json`.
//!
//! Versioned and replaced in one step, so it survives `kill -9` and a full disk. It can be made again
//! from Docker at any time (every payload carries all containers of this host): a damaged file is put
//! aside with a warning, and it is written without fsync. An fsync costs a disk's latency, often more
//! than the whole budget of a lone event, and would only save, over a power cut, what the next pass
//! finds anyway. It must not know what the services mean.

use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::embedded::{Memory, State};
use crate::atomic_file::{self, Durability};
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::room;

/// Version of the file's format. A file of another version is put aside, not guessed at.
const VERSION: u32 = 1;

/// Largest state read, in bytes: ten times 20,000 services of one instance.
const STATE_BYTES_MAX: u64 = 64 << 20;

/// Longest name of a table, as the command line has it.
const TABLE_BYTES_MAX: usize = 64;

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
    state: &'s State<&'s str>,
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

    /// The state in this file; empty when there is none or it was put aside.
    fn usable<S: Default + DeserializeOwned>(&self, path: &Path) -> Result<State<S>> {
        let bytes = match read(path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(cause) if cause.kind() == io::ErrorKind::FileTooLarge => {
                self.put_aside(path, &format!("it is larger than {STATE_BYTES_MAX} bytes"))?;
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
                self.put_aside(path, &why)?;
                Ok(State::default())
            }
        }
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
        self.usable(&self.path(table)?)
    }

    fn holds(&mut self, table: &str, state: &State<&str>) -> Result<bool> {
        let path = self.path(table)?;
        if is(&path, state).unwrap_or_default() {
            return Ok(true);
        }
        // A person is to see what cannot be used before it is written over.
        let services = self.usable::<IgnoredAny>(&path)?.services;
        Ok(services.is_empty() && state.services.is_empty())
    }

    fn save(&mut self, table: &str, state: &State<&str>) -> Result<()> {
        let path = self.path(table)?;
        if self.read_only {
            return Ok(());
        }
        let write = |file: &mut dyn io::Write| encode(state, file);
        atomic_file::replace_by(&path, Durability::Kernel, write).map(drop)
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let length = file.metadata()?.len().min(STATE_BYTES_MAX);
    let mut bytes = room::passing(usize::try_from(length).unwrap_or_default() + 1);
    file.take(STATE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > STATE_BYTES_MAX {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// Whether a file is that of this state, byte by byte.
fn is(path: &Path, state: &State<&str>) -> io::Result<bool> {
    let mut same = Same(BufReader::new(File::open(path)?));
    encode(state, &mut same)?;
    Ok(same.0.fill_buf()?.is_empty())
}

/// Takes what is in the file already, and nothing else.
struct Same(BufReader<File>);

impl io::Write for Same {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let there = self.0.fill_buf()?;
        let count = there.len().min(bytes.len());
        if count == 0 || there.get(..count) != bytes.get(..count) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.0.consume(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the bytes of a state file: of 10,000 services they are megabytes, and nobody needs them at once.
fn encode(state: &State<&str>, mut file: &mut dyn io::Write) -> io::Result<()> {
    let written = Written {
        version: VERSION,
        state,
    };
    serde_json::to_writer(&mut file, &written)?;
    file.write_all(b"\n")
}

/// The state in a file's bytes, or why it cannot be used.
fn decode<S: Default + DeserializeOwned>(bytes: &[u8]) -> std::result::Result<State<S>, String> {
    let Version { version } =
        json::read(bytes).map_err(|cause| format!("it is damaged ({cause})"))?;
    if version != VERSION {
        return Err(format!(
            "it has version {version}, and this program knows version {VERSION}"
        ));
    }
    json::read(bytes).map_err(|cause| format!("it is damaged ({cause})"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::embedded::Embedded;
    use crate::registry::haproxy_check::assert_accepted;
    use crate::registry::template::Base;
    use crate::registry::{Candidate, Instance, Mode, Payload, Registry, Running};

    /// A folder of its own for one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("cosmonaut-store-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("a folder for the test");
            Folder(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn registry(store: Store) -> Embedded {
        Embedded::new(Base::built_in(None).expect("good"), Box::new(store))
    }

    fn running(id: &str, ip: &str) -> Running {
        Running {
            service_name: "web".to_owned(),
            id: id.to_owned(),
            ip: ip.to_owned(),
        }
    }

    fn payload(instances: &[(&str, &str)]) -> Payload {
        Payload {
            table: "t".to_owned(),
            running: instances.iter().map(|(id, ip)| running(id, ip)).collect(),
            candidates: vec![Candidate {
                service_name: "web".to_owned(),
                port: 80,
                config_mode: Mode::Host,
                predicate: "web.example.com".to_owned(),
                cookie: None,
                containers: instances
                    .iter()
                    .map(|(id, ip)| Instance {
                        id: (*id).to_owned(),
                        ip: (*ip).to_owned(),
                    })
                    .collect(),
            }],
        }
    }

    #[test]
    fn services_known_only_from_the_store_are_routed_while_they_run() {
        let folder = Folder::new("stored");
        let first = payload(&[("aaaaaaaaaaaa", "10.0.0.1")]);
        registry(Store::new(&folder.0))
            .config(&first)
            .expect("a config");
        // A new process, no candidates, and an instance on another host.
        let mut next = payload(&[]);
        next.candidates.clear();
        next.running = vec![running("aaaaaaaaaaaa", ""), running("host2", "10.0.9.9")];
        let text = registry(Store::new(&folder.0))
            .config(&next)
            .expect("a config");
        assert!(text.contains("acl is_web "), "{text}");
        assert!(
            text.contains("server aaaaaaaaaaaa 10.0.0.1:80 check\n"),
            "{text}"
        );
        assert!(text.contains("server host2 10.0.9.9:80 check\n"), "{text}");
        assert_accepted(&text);
        next.running.clear();
        let text = registry(Store::new(&folder.0))
            .config(&next)
            .expect("a config");
        assert!(!text.contains("web"), "{text}");
        assert_eq!(Store::new(&folder.0).load("t"), Ok(State::default()));
    }

    #[test]
    fn an_unchanged_state_is_not_written_and_tables_do_not_mix() {
        let folder = Folder::new("unchanged");
        let mut embedded = registry(Store::new(&folder.0));
        let asked = payload(&[("aaaaaaaaaaaa", "10.0.0.1")]);
        let text = embedded.config(&asked).expect("a config");
        let file = folder.0.join("t.json");
        fs::remove_file(&file).expect("it was written");
        assert_eq!(embedded.config(&asked).expect("a config"), text);
        assert!(!file.exists());
        let mut other = asked.clone();
        other.table = "other".to_owned();
        other.candidates.clear();
        assert!(!embedded.config(&other).expect("a config").contains("web"));
        embedded
            .config(&payload(&[("aaaaaaaaaaaa", "10.0.0.2")]))
            .expect("a config");
        assert!(file.exists());
    }

    #[test]
    fn a_damaged_or_unknown_file_is_put_aside_and_made_again() {
        let folder = Folder::new("damaged");
        let file = folder.0.join("t.json");
        let asked = payload(&[("aaaaaaaaaaaa", "10.0.0.1")]);
        registry(Store::new(&folder.0))
            .config(&asked)
            .expect("a config");
        let good = fs::read(&file).expect("the state");
        let mut bad: Vec<Vec<u8>> = (0..good.len() - 1)
            .map(|cut| good[..cut].to_vec())
            .collect();
        bad.push(br#"{"version":2,"services":[]}"#.to_vec());
        bad.push(br#"{"version":1}"#.to_vec());
        bad.push(vec![0; 4096]);
        for bad in bad {
            fs::write(&file, &bad).expect("a damaged file");
            let reading = Store::read_only(&folder.0).load("t");
            assert_eq!(reading, Ok(State::default()));
            assert_eq!(fs::read(&file).expect("untouched"), bad);
            let text = registry(Store::new(&folder.0))
                .config(&asked)
                .expect("a config");
            assert!(text.contains("server aaaaaaaaaaaa"));
            assert_eq!(fs::read(&file).expect("made again"), good);
            assert_eq!(
                fs::read(folder.0.join("t.json.damaged")).expect("put aside"),
                bad
            );
        }
    }

    #[test]
    fn a_table_cannot_leave_the_folder() {
        let store = Store::new(Path::new("/state"));
        for table in [
            "",
            ".",
            "..",
            "../x",
            "a/b",
            ".hidden",
            "a\0",
            "a b",
            "status",
            &"x".repeat(65),
        ] {
            assert!(store.path(table).is_err(), "{table:?}");
        }
        let error = store.path("status").expect_err("a name that is taken");
        assert!(
            error
                .hint_text()
                .is_some_and(|hint| hint.contains("1 to 64 letters")),
            "{error:?}"
        );
        assert_eq!(
            store.path("a-B_1.x"),
            Ok(PathBuf::from("/state/a-B_1.x.json"))
        );
    }

    #[test]
    fn a_state_that_cannot_be_written_does_not_stop_routing() {
        let folder = Folder::new("gone");
        let missing = folder.0.join("missing");
        let asked = payload(&[("aaaaaaaaaaaa", "10.0.0.1")]);
        let text = registry(Store::new(&missing))
            .config(&asked)
            .expect("a config");
        assert!(text.contains("server aaaaaaaaaaaa"));
        let text = registry(Store::read_only(&missing))
            .config(&asked)
            .expect("a config");
        assert!(text.contains("server aaaaaaaaaaaa"));
    }

    #[test]
    fn bad_candidates_are_left_out_and_named() {
        let folder = Folder::new("left-out");
        let mut asked = payload(&[("aaaaaaaaaaaa", "10.0.0.1"), ("bbbbbbbbbbbb", "nowhere")]);
        let mut bad = asked.candidates[0].clone();
        bad.service_name = "b c".to_owned();
        asked.candidates.push(bad);
        let mut embedded = registry(Store::new(&folder.0));
        let text = embedded.config(&asked).expect("a config");
        assert_accepted(&text);
        assert!(text.contains("server aaaaaaaaaaaa") && !text.contains("bbbbbbbbbbbb"));
        let named: Vec<_> = embedded
            .left_out()
            .iter()
            .map(|l| l.service.as_str())
            .collect();
        assert_eq!(named, ["b c", "web"]);
    }

    #[test]
    fn a_service_without_instances_keeps_its_backend() {
        let folder = Folder::new("empty");
        let text = registry(Store::new(&folder.0))
            .config(&payload(&[]))
            .expect("a config");
        assert!(text.contains("use_backend be_web if is_web\n"), "{text}");
        assert!(text.contains("backend be_web\n"), "{text}");
        assert_accepted(&text);
    }
}
