//! Our folder, HAProxy's config, the script: there, ours to write, and with room to write.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::Access;

use super::{Finding, Subject};
use crate::config;
use crate::lock;

/// Below this a pass may fail at any moment, in bytes: two configs of a thousand services and the state.
const FREE_LEAST: u64 = 2 << 20;
/// Below this it is time to look, in bytes.
const FREE_LOW: u64 = 50 << 20;

/// Looks at folders and files.
pub fn look(subject: &Subject, tell: &mut dyn FnMut(Finding)) {
    tell(state_dir(&subject.state_dir));
    tell(locks(&subject.state_dir));
    tell(config_file(&subject.config, &subject.state_dir));
}

fn state_dir(path: &Path) -> Finding {
    let shown = path.display();
    let mend = "--state-dir names a folder that cosmonaut may write; its default needs root";
    let (there, exists) = match nearest(path) {
        Some(there) if there == path => (there, true),
        Some(there) => (there, false),
        None => return Finding::fail("state-dir", format!("{shown} cannot be looked at"), mend),
    };
    if !there.is_dir() {
        return Finding::fail(
            "state-dir",
            format!("{} is no folder", there.display()),
            mend,
        );
    }
    if let Err(error) = rustix::fs::access(&there, Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::fail(
            "state-dir",
            format!("{} cannot be written: {error}", there.display()),
            mend,
        );
    }
    let state = if exists {
        "can be written"
    } else {
        "is not there yet and can be made"
    };
    room("state-dir", &there)
        .unwrap_or_else(|| Finding::ok("state-dir", format!("{shown} {state}")))
}

/// The finding about a lack of room, if there is one.
fn room(check: &'static str, folder: &Path) -> Option<Finding> {
    let disk = rustix::fs::statvfs(folder).ok()?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    // File systems without inodes of their own, such as btrfs, say 0 of 0.
    let no_inodes = disk.f_files > 0 && disk.f_favail == 0;
    let message = if no_inodes {
        format!("the file system of {} has no inode left", folder.display())
    } else {
        format!(
            "{} KiB are free on the file system of {}",
            free >> 10,
            folder.display()
        )
    };
    let mend = "make room; until then the running config stands";
    if free < FREE_LEAST || no_inodes {
        Some(Finding::fail(check, message, mend))
    } else if free < FREE_LOW {
        Some(Finding::warn(check, message, "make room before it is full"))
    } else {
        None
    }
}

fn locks(state_dir: &Path) -> Finding {
    let pass = match lock::holder(state_dir, lock::PASS) {
        Some(pid) => format!(", and a pass runs just now (pid {pid})"),
        None => String::new(),
    };
    match lock::holder(state_dir, lock::WATCH) {
        Some(pid) => Finding::ok("lock", format!("watch runs as pid {pid}{pass}")),
        None => Finding::ok("lock", format!("no watch runs with this folder{pass}")),
    }
}

fn config_file(path: &Path, state_dir: &Path) -> Finding {
    let shown = path.display();
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().unwrap_or(Path::new("/")).to_owned();
    let Some(there) = nearest(&folder) else {
        return Finding::fail(
            "config",
            format!("{shown} cannot be looked at"),
            "--config names haproxy.cfg",
        );
    };
    if there != folder {
        return if folder == state_dir {
            Finding::ok(
                "config",
                format!("{shown} is not there yet; the first pass writes it"),
            )
        } else {
            Finding::fail(
                "config",
                format!("there is no folder {}", folder.display()),
                format!(
                    "mkdir -p {}, or name another file by --config",
                    folder.display()
                ),
            )
        };
    }
    if let Err(error) = rustix::fs::access(&folder, Access::WRITE_OK | Access::EXEC_OK) {
        return Finding::fail(
            "config",
            format!("{} cannot be written: {error}", folder.display()),
            "the config is replaced by a rename, for which its folder must be writable: run as its owner, or name another file by --config",
        );
    }
    if let Some(finding) = room("config", &folder) {
        return finding;
    }
    match fs::read(&target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::ok(
            "config",
            format!("{shown} is not there yet; the first pass writes it"),
        ),
        Err(error) => Finding::fail(
            "config",
            format!("{shown} cannot be read: {error}"),
            "make it readable",
        ),
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let (body, said) = config::split_fingerprint(&text);
            match said {
                Some(said) if config::fingerprint(body) == said => Finding::ok(
                    "config",
                    format!("{shown} is of cosmonaut's making ({said})"),
                ),
                Some(said) => Finding::warn(
                    "config",
                    format!("{shown} was changed by hand since cosmonaut wrote it ({said})"),
                    "put what you need into a file for --base: the next change replaces the whole file",
                ),
                None => Finding::warn(
                    "config",
                    format!("{shown} is not of cosmonaut's making"),
                    format!(
                        "keep a copy (cp {shown} {shown}.before), and name its global, defaults and frontend by --base: the first pass replaces the whole file"
                    ),
                ),
            }
        }
    }
}

/// The path, or the nearest folder above it that exists.
fn nearest(path: &Path) -> Option<PathBuf> {
    path.ancestors()
        .find(|path| !path.as_os_str().is_empty() && fs::symlink_metadata(path).is_ok())
        .map(Path::to_owned)
}
