//! The HAProxy processes of this machine, by `/proc`: which files they read, and as what they run.
//!
//! Reads only; never signals one. A process in a container is seen like any other, as far as this process may
//! look; what it may not see is simply not there. Rules: proc(5), HAProxy management guide, "Starting HAProxy".

use crate::order;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Most processes that are looked at; a host with more has other troubles.
const PROCESSES_MAX: usize = 100_000;
/// Longest file of a process that is read, in bytes: the mounts of a host with many containers are the longest.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A HAProxy that is nobody's worker: a master, or a plain one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid, as this machine counts.
    pub pid: u32,
    /// The files and folders it was told to read (`-f`), as it sees them.
    pub files: Vec<PathBuf>,
    /// It runs as a master (`-W`, `-Ws`), so it can load a file again.
    pub master: bool,
    /// It lives in another pid namespace: in a container.
    pub contained: bool,
    /// Its workers; more than one means that old ones still serve.
    pub workers: Vec<u32>,
    /// Where its `/proc` folder is.
    folder: PathBuf,
}

/// All of them; `proc` is `/proc` but in tests.
pub fn all(proc: &Path) -> Vec<Process> {
    let mut found: Vec<(u32, Option<u32>)> = pids(proc)
        .into_iter()
        .filter(|pid| is_haproxy(&proc.join(pid.to_string())))
        .map(|pid| (pid, parent(&proc.join(pid.to_string()))))
        .collect();
    order::sort(&mut found);
    let mut all = Vec::new();
    for (pid, parent) in &found {
        let is_worker = found.iter().any(|(other, _)| Some(*other) == *parent);
        if is_worker {
            continue;
        }
        let folder = proc.join(pid.to_string());
        let arguments = arguments(&folder);
        if arguments.iter().all(String::is_empty) {
            // It has ended, and its parent has not taken note yet.
            continue;
        }
        all.push(Process {
            pid: *pid,
            files: files(&folder, &arguments),
            master: arguments.iter().any(|word| word == "-W" || word == "-Ws"),
            contained: is_contained(&folder),
            workers: found
                .iter()
                .filter(|(_, parent)| *parent == Some(*pid))
                .map(|(worker, _)| *worker)
                .collect(),
            folder,
        });
    }
    all
}

/// All process ids, in no order.
pub fn pids(proc: &Path) -> Vec<u32> {
    fs::read_dir(proc)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .take(PROCESSES_MAX)
        .collect()
}

/// Whether a process belongs to the container with this id: its control group says so, or a file of the
/// container's that is mounted in it.
pub fn is_of_container(folder: &Path, id: &str) -> bool {
    let names = |file: &str| read(&folder.join(file)).is_some_and(|text| text.contains(id));
    !id.is_empty() && (names("cgroup") || names("mountinfo"))
}

impl Process {
    /// Whether it is one of the container with this id.
    pub fn is_of(&self, id: &str) -> bool {
        is_of_container(&self.folder, id)
    }

    /// Whether one of its files is the very file at `path`. A folder stands for the files in it.
    pub fn reads(&self, path: &Path) -> bool {
        let Ok(wanted) = fs::metadata(path) else {
            return false;
        };
        self.as_seen_from_here(path).iter().any(|seen| {
            fs::metadata(seen).is_ok_and(|is| (is.dev(), is.ino()) == (wanted.dev(), wanted.ino()))
        })
    }

    /// Whether one of its files has the text of the one at `path`: a copy, or a mount that is still right.
    pub fn reads_text(&self, path: &Path) -> bool {
        let Some(wanted) = read(path) else {
            return false;
        };
        self.as_seen_from_here(path)
            .iter()
            .any(|seen| read(seen).is_some_and(|text| text == wanted))
    }

    /// The one of its files that is a mount point itself: it stays the old file when the one outside is replaced.
    pub fn mounted_alone(&self) -> Option<&Path> {
        let mounts = read(&self.folder.join("mountinfo"))?;
        let points: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(4))
            .collect();
        let is_point = |file: &&PathBuf| {
            let escaped = file.to_string_lossy().replace(' ', "\\040");
            points.contains(&escaped.as_str()) && !self.below_root(file).is_dir()
        };
        self.files.iter().find(is_point).map(PathBuf::as_path)
    }

    /// A path of its own, as seen from here.
    pub fn below_root(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").unwrap_or(path);
        self.folder.join("root").join(inside)
    }

    fn as_seen_from_here(&self, config: &Path) -> Vec<PathBuf> {
        let name = config.file_name().unwrap_or_default();
        self.files
            .iter()
            .map(|file| self.below_root(file))
            .flat_map(|seen| [seen.join(name), seen])
            .collect()
    }
}

fn is_haproxy(folder: &Path) -> bool {
    read(&folder.join("comm")).is_some_and(|name| name.starts_with("haproxy"))
}

/// The parent's pid; the second field, the name, may hold anything, so reading starts behind it.
fn parent(folder: &Path) -> Option<u32> {
    let stat = read(&folder.join("stat"))?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn arguments(folder: &Path) -> Vec<String> {
    let line = read(&folder.join("cmdline")).unwrap_or_default();
    line.split('\0').map(str::to_owned).collect()
}

/// The values of `-f`, and all that stands behind `--`.
fn files(folder: &Path, arguments: &[String]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut words = arguments.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-f" => files.extend(words.next().map(PathBuf::from)),
            "--" => files.extend(words.by_ref().filter(|w| !w.is_empty()).map(PathBuf::from)),
            _ => {}
        }
    }
    let cwd = fs::read_link(folder.join("cwd")).unwrap_or_else(|_| PathBuf::from("/"));
    files.into_iter().map(|file| cwd.join(file)).collect()
}

fn is_contained(folder: &Path) -> bool {
    read(&folder.join("status")).is_some_and(|status| {
        status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))
            .is_some_and(|pids| pids.split_whitespace().count() > 1)
    })
}

/// The text of a file; a process of a container may name a pipe as its config, and to open that would wait for ever.
fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    if !fs::metadata(path).ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` with these processes: pid, name, parent, command line, inner pid.
    fn proc(name: &str, all: &[(u32, &str, u32, &str, &str)]) -> PathBuf {
        let root =
            std::env::temp_dir().join(format!("cosmonaut-proc-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for (pid, comm, parent, line, inner) in all {
            let folder = root.join(pid.to_string());
            fs::create_dir_all(folder.join("root/etc")).expect("a folder");
            let write =
                |file: &str, text: String| fs::write(folder.join(file), text).expect("a file");
            write("comm", format!("{comm}\n"));
            write("stat", format!("{pid} ({comm} :) x) S {parent} 1 1"));
            write("cmdline", line.replace(' ', "\0"));
            write("status", format!("Name:\t{comm}\nNSpid:\t{pid}{inner}\n"));
            write(
                "mountinfo",
                "1 0 0:1 / / rw - ext4 x rw\n2 1 0:1 /x /etc/alone.cfg rw - ext4 x rw\n".to_owned(),
            );
            write("cgroup", format!("0::/docker/{}\n", "ab".repeat(32)));
        }
        root
    }

    #[test]
    fn masters_are_told_from_workers_and_plain_ones() {
        let root = proc(
            "all",
            &[
                (
                    10,
                    "haproxy",
                    1,
                    "/usr/sbin/haproxy -Ws -f /etc/haproxy.cfg -p /run/h.pid",
                    "",
                ),
                (
                    11,
                    "haproxy",
                    10,
                    "/usr/sbin/haproxy -sf 9 -Ws -f /etc/haproxy.cfg",
                    "",
                ),
                (
                    12,
                    "haproxy",
                    10,
                    "/usr/sbin/haproxy -Ws -f /etc/haproxy.cfg",
                    "",
                ),
                (20, "haproxy", 15, "haproxy -W -db -f /etc/alone.cfg", "\t1"),
                (
                    30,
                    "haproxy",
                    1,
                    "haproxy -D -f /etc/a.cfg -- /etc/b.cfg",
                    "",
                ),
                (40, "sh", 1, "sh -c haproxy", ""),
                (50, "haproxy", 1, "", ""),
            ],
        );
        let all = all(&root);
        let pids: Vec<u32> = all.iter().map(|process| process.pid).collect();
        assert_eq!(pids, [10, 20, 30]);
        assert_eq!(all[0].workers, [11, 12]);
        assert_eq!(
            (
                all[0].master,
                all[0].contained,
                all[1].contained,
                all[2].master
            ),
            (true, false, true, false)
        );
        assert_eq!(
            all[2].files,
            [Path::new("/etc/a.cfg"), Path::new("/etc/b.cfg")]
        );
        assert_eq!(all[1].mounted_alone(), Some(Path::new("/etc/alone.cfg")));
        assert_eq!(all[0].mounted_alone(), None);
        assert!(
            all[1].is_of(&"ab".repeat(32)) && !all[1].is_of(&"cd".repeat(32)) && !all[1].is_of("")
        );
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn a_file_is_known_by_what_it_is_and_not_by_its_name() {
        let root = proc("file", &[(10, "haproxy", 1, "haproxy -W -f /etc", "")]);
        let inside = root.join("10/root/etc/haproxy.cfg");
        fs::write(&inside, "global\n").expect("a file");
        let outside = root.join("haproxy.cfg");
        let copy = root.join("copy").join("haproxy.cfg");
        fs::create_dir_all(root.join("copy")).expect("a folder");
        fs::write(&copy, "global\n").expect("a file");
        fs::hard_link(&inside, &outside).expect("a link");
        let process = &all(&root)[0];
        assert!(process.reads(&outside) && process.reads_text(&outside));
        assert!(!process.reads(&copy) && process.reads_text(&copy));
        fs::remove_file(&inside).expect("removed");
        let made = std::process::Command::new("mkfifo").arg(&inside).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        assert!(!process.reads_text(&copy), "nobody writes into the pipe");
        fs::write(&copy, "other\n").expect("a file");
        assert!(!process.reads_text(&copy) && !process.reads(&root.join("none")));
        fs::remove_dir_all(root).expect("removed");
    }
}
