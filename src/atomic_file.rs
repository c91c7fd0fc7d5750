//! Replaces a file in one step: whoever reads it sees the old bytes or the new ones, whole.
//!
//! Stage beside the target, fsync, rename, fsync the folder. The mode and owner of the file that is
//! replaced are kept. It must not know what is in the files. Rules from POSIX `rename` and from
//! what HAProxy does: the staged name is hidden and has no `.cfg` suffix (HAProxy loads every `*.cfg`
//! of a folder), and a file that is a mount point of its own (a container's single-file bind mount)
//! cannot be renamed over and is written in place.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags};

use crate::error::{Error, Kind, Result};

/// Mode of a file that did not exist before: HAProxy in a container reads it under another user.
const NEW_FILE_MODE: u32 = 0o644;

/// Most names tried for a staged file before we say that the folder is odd.
const NAME_ATTEMPTS_MAX: u32 = 100;

/// How much is gathered before it is written.
const BUFFER_BYTES: usize = 32 << 10;

/// A staged file of this age belongs to nobody any more: no pass takes so long.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// How far the bytes must have got before the old file is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk: after a power cut the file is the old or the new one. Costs an fsync of the file
    /// and one of its folder.
    Disk,
    /// In the kernel: whole after `kill -9`, but a power cut may leave an empty file. For what can
    /// be made again.
    Kernel,
}

/// How the bytes came to the target's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Installed {
    /// By a rename: in one step.
    Renamed,
    /// Written into the existing file, because its name is a mount point and cannot be replaced, or because
    /// somebody has that very file mounted.
    InPlace,
}

/// New bytes beside their target, not yet in its place. Dropping it removes the file.
#[derive(Debug)]
pub struct Staged {
    file: File,
    path: PathBuf,
    target: PathBuf,
    durability: Durability,
    synced: bool,
    installed: bool,
}

/// Writes these bytes, one piece behind the other, to a new hidden file beside `target`, with the target's mode and owner.
///
/// A target that is a symbolic link is followed: the file it points to is what gets replaced.
///
/// # Errors
/// Names the path and the mend: missing folder, not writable, disk full, read-only file system, a
/// folder, a device, a pipe or a socket at the target's name.
pub fn stage(target: &Path, pieces: &[&[u8]]) -> Result<Staged> {
    stage_with(target, pieces, Durability::Disk)
}

/// Replaces `target` by `bytes`, safe against a power cut. See [`stage`] and [`Staged::install`].
///
/// # Errors
/// As [`stage`] and [`Staged::install`].
pub fn replace(target: &Path, bytes: &[u8]) -> Result<Installed> {
    stage(target, &[bytes])?.install()
}

/// [`replace`] with the durability of choice.
///
/// # Errors
/// As [`stage`] and [`Staged::install`].
pub fn replace_with(target: &Path, pieces: &[&[u8]], durability: Durability) -> Result<Installed> {
    stage_with(target, pieces, durability)?.install()
}

/// [`replace_with`] what `write` writes, of which nothing is held here: for what is long and made bit by bit.
///
/// # Errors
/// As [`stage`] and [`Staged::install`].
pub fn replace_by(
    target: &Path,
    durability: Durability,
    write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>,
) -> Result<Installed> {
    let buffered = |file: &File| {
        let mut buffer = io::BufWriter::with_capacity(BUFFER_BYTES, file);
        write(&mut buffer)?;
        buffer.flush()
    };
    stage_by(target, durability, buffered)?.install()
}

fn stage_with(target: &Path, pieces: &[&[u8]], durability: Durability) -> Result<Staged> {
    stage_by(target, durability, |mut file| {
        pieces.iter().try_for_each(|piece| file.write_all(piece))
    })
}

fn stage_by(
    target: &Path,
    durability: Durability,
    write: impl FnOnce(&File) -> io::Result<()>,
) -> Result<Staged> {
    let tried = || format!("cannot write {}", target.display());
    let target = followed(target).map_err(|cause| failure(tried(), target, &cause))?;
    let old = match fs::metadata(&target) {
        Ok(old) if old.is_dir() => {
            return Err(Error::new(tried(), "there is a folder of that name")
                .hint("remove the folder or choose another path"));
        }
        // Root would lose /dev/null to a rename, and with it all that writes there.
        Ok(old) if !old.is_file() => {
            return Err(Error::new(tried(), "it is a device, a pipe or a socket")
                .hint("choose the path of a file; what is there would be replaced"));
        }
        Ok(old) => Some(old),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => None,
        Err(cause) => return Err(failure(tried(), &target, &cause)),
    };
    remove_leftovers(&target);
    let (file, path) = create_beside(&target).map_err(|cause| failure(tried(), &target, &cause))?;
    let staged = Staged {
        file,
        path,
        target,
        durability,
        synced: false,
        installed: false,
    };
    write(&staged.file)
        .and_then(|()| finish(&staged.file, old.as_ref()))
        .map_err(|cause| failure(tried(), &staged.path, &cause))?;
    Ok(staged)
}

impl Staged {
    /// Where the bytes are now.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's number in its file system, which a rename leaves as it is.
    pub fn inode(&self) -> Option<u64> {
        self.file.metadata().ok().map(|file| file.ino())
    }

    /// Brings the staged bytes to the disk, if that is asked for and was not done yet. [`Staged::install`]
    /// does it otherwise; this is for who has something to wait for meanwhile.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync(&mut self) -> Result<()> {
        if self.durability == Durability::Disk && !self.synced {
            let tried = || format!("cannot write {}", self.target.display());
            self.file
                .sync_all()
                .map_err(|cause| failure(tried(), &self.path, &cause))?;
            self.synced = true;
        }
        Ok(())
    }

    /// Puts the staged file in the target's place.
    ///
    /// # Errors
    /// The target is then unchanged, or is again what it was. Where it must be written in place and that cannot be
    /// done either, the error says so.
    pub fn install(mut self) -> Result<Installed> {
        self.sync()?;
        let tried = format!("cannot replace {}", self.target.display());
        match fs::rename(&self.path, &self.target) {
            Ok(()) => self.installed = true,
            Err(cause) if is_mount_error(&cause) => {
                return self.write_in_place().map(|()| Installed::InPlace);
            }
            Err(cause) => return Err(failure(tried, &self.target, &cause)),
        }
        if self.durability == Durability::Disk {
            let folder = folder_of(&self.target);
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .or_else(|cause| match cause.kind() {
                    // Some file systems (network, FUSE) cannot sync a folder; the rename stands.
                    io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => Ok(()),
                    _ => Err(cause),
                })
                .map_err(|cause| failure(tried, folder, &cause))?;
        }
        Ok(Installed::Renamed)
    }

    /// Writes the staged bytes into the file that is there, which stays the same one for whoever has it mounted
    /// by itself. Where there is none, as [`Staged::install`].
    ///
    /// # Errors
    /// As [`Staged::install`].
    pub fn install_in_place(self) -> Result<Installed> {
        if !self.target.exists() {
            return self.install();
        }
        self.write_in_place().map(|()| Installed::InPlace)
    }

    fn write_in_place(&self) -> Result<()> {
        let failed = |path: &Path, cause: &io::Error| {
            failure(
                format!("cannot write into {}", self.target.display()),
                path,
                cause,
            )
        };
        let read = |path: &Path| fs::read(path).map_err(|cause| failed(path, &cause));
        let (old, new) = (read(&self.target)?, read(&self.path)?);
        let mut file = OpenOptions::new()
            .write(true)
            .open(&self.target)
            .map_err(|cause| failed(&self.target, &cause))?;
        let mut write = |bytes: &[u8]| {
            file.rewind()?;
            file.write_all(bytes)?;
            file.set_len(bytes.len() as u64)?;
            file.sync_all()
        };
        write(&new).map_err(|cause| {
            // What has been there has room there.
            let put_back = write(&old);
            let error = failed(&self.target, &cause);
            match put_back {
                Ok(()) => error,
                Err(_) => error.hint(
                    "the file is a mount of its own and may now hold a part; mount its folder instead",
                ),
            }
        })
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.installed {
            // Nothing sensible can be done about a leftover here; it is hidden and not a *.cfg.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The path with its last link followed, so that a link to the file stays a link.
fn followed(target: &Path) -> io::Result<PathBuf> {
    match fs::symlink_metadata(target) {
        Ok(meta) if meta.is_symlink() => match fs::canonicalize(target) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                let to = fs::read_link(target)?;
                Ok(folder_of(target).join(to))
            }
            other => other,
        },
        _ => Ok(target.to_path_buf()),
    }
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Removes what passes that were killed have left beside the target. A folder that cannot be read is somebody
/// else's trouble.
fn remove_leftovers(target: &Path) {
    let Some(name) = target.file_name() else {
        return;
    };
    let entries = fs::read_dir(folder_of(target)).into_iter().flatten();
    for entry in entries.flatten() {
        let Some(pid) = stager(&entry.file_name(), name) else {
            continue;
        };
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| at.elapsed().is_ok_and(|age| age >= LEFTOVER_AGE));
        // One of our own number is a predecessor's: in a container each is the first process.
        let dead = || !Path::new("/proc").join(pid.to_string()).exists();
        if old && (pid == process::id() || dead()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The process that staged a file of this name for `target`, if one did.
fn stager(name: &OsStr, target: &OsStr) -> Option<u32> {
    let rest = name
        .as_bytes()
        .strip_prefix(b".")?
        .strip_prefix(target.as_bytes())?
        .strip_prefix(b".")?
        .strip_suffix(b".tmp")?;
    let (pid, count) = std::str::from_utf8(rest).ok()?.split_once('-')?;
    count.parse::<u32>().ok()?;
    pid.parse().ok()
}

/// A new file of a name that nobody uses: `.NAME.PID-N.tmp`.
fn create_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path names no file"))?;
    for _ in 0..NAME_ATTEMPTS_MAX {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut hidden = OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}-{count}.tmp", process::id()));
        let path = folder_of(target).join(hidden);
        let opened = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        match opened {
            Ok(file) => return Ok((file, path)),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            Err(cause) => return Err(cause),
        }
    }
    Err(io::Error::new(
        io::ErrorKind::AlreadyExists,
        "too many leftover .tmp files of that name",
    ))
}

fn finish(file: &File, old: Option<&fs::Metadata>) -> io::Result<()> {
    let mode = old.map_or(NEW_FILE_MODE, |old| old.mode() & 0o7777);
    if let Some(old) = old {
        let own = file.metadata()?;
        if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
            // Without the right to give files away (not root) the file simply becomes ours, as
            // with any editor; its readers are served by the mode.
            match rustix::fs::fchown(
                file,
                Some(rustix::fs::Uid::from_raw(old.uid())),
                Some(rustix::fs::Gid::from_raw(old.gid())),
            ) {
                Ok(()) | Err(rustix::io::Errno::PERM) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
    }
    // After fchown, which clears set-id bits; and past the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Whether a file is a mount of its own and so cannot be replaced by another one; also where the kernel (before 5.8)
/// does not tell.
pub fn is_mount(path: &Path) -> bool {
    let file = rustix::fs::statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    let root = StatxAttributes::MOUNT_ROOT;
    !file.is_ok_and(|file| {
        file.stx_attributes_mask.contains(root) && !file.stx_attributes.contains(root)
    })
}

fn is_mount_error(cause: &io::Error) -> bool {
    matches!(
        cause.kind(),
        io::ErrorKind::ResourceBusy | io::ErrorKind::CrossesDevices
    )
}

/// An error with the mend that fits its cause.
fn failure(tried: String, path: &Path, cause: &io::Error) -> Error {
    let folder = folder_of(path).display();
    let error = Error::new(tried, cause);
    match cause.kind() {
        io::ErrorKind::NotFound if !folder_of(path).exists() => {
            error.hint(format!("the folder {folder} does not exist; create it"))
        }
        io::ErrorKind::PermissionDenied => error.kind(Kind::Denied).hint(format!(
            "the user that runs cosmonaut needs to write in the folder {folder}"
        )),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => error.hint(format!(
            "free some space where {folder} is; the old file is still in place"
        )),
        io::ErrorKind::ReadOnlyFilesystem => error.hint(format!(
            "{folder} is on a file system mounted read-only; choose another path or mount it read-write"
        )),
        io::ErrorKind::NotADirectory => {
            error.hint("a part of the path is a file, not a folder")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own for one test, removed at its end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("cosmonaut-{}-{name}", process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).expect("a folder for the test");
            Folder(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(&self.0)
                .expect("the folder is there")
                .map(|entry| {
                    entry
                        .expect("an entry")
                        .file_name()
                        .to_string_lossy()
                        .into_owned()
                })
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_socket_or_a_device_is_not_replaced() {
        use std::os::unix::fs::FileTypeExt;
        let folder = Folder::new("special");
        let target = folder.0.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&target).expect("a socket");
        let link = folder.0.join("link");
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        for path in [&target, &link] {
            let error = replace(path, b"new").expect_err("no file");
            assert!(error.to_string().contains("device"), "{error}");
        }
        let is = |path: &Path| fs::metadata(path).expect("it is there").file_type();
        assert!(is(&target).is_socket());
        assert!(is(&link).is_char_device());
    }

    #[test]
    fn a_file_is_made_and_replaced_with_its_mode() {
        let folder = Folder::new("replace");
        let target = folder.0.join("haproxy.cfg");
        assert_eq!(replace(&target, b"one"), Ok(Installed::Renamed));
        let mode = |path: &Path| fs::metadata(path).expect("the file").mode() & 0o7777;
        assert_eq!(mode(&target), NEW_FILE_MODE);
        fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).expect("chmod");
        assert_eq!(
            replace_with(&target, &[b"t", b"wo"], Durability::Kernel),
            Ok(Installed::Renamed)
        );
        assert_eq!(
            (fs::read(&target).expect("the file"), mode(&target)),
            (b"two".to_vec(), 0o640)
        );
        assert_eq!(folder.names(), ["haproxy.cfg"]);
    }

    #[test]
    fn a_staged_file_is_hidden_and_goes_away_unless_installed() {
        let folder = Folder::new("staged");
        let target = folder.0.join("haproxy.cfg");
        fs::write(&target, "old").expect("the old file");
        let staged = stage(&target, &[b"new"]).expect("staged");
        let name = staged
            .path()
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        assert!(
            name.starts_with(".haproxy.cfg.") && name.ends_with(".tmp"),
            "{name}"
        );
        assert_eq!(fs::read(staged.path()).expect("staged"), b"new");
        drop(staged);
        assert_eq!(folder.names(), ["haproxy.cfg"]);
        assert_eq!(fs::read(&target).expect("the old file"), b"old");
    }

    /// Found by the fault campaign: each kill between staging and renaming left a file for ever.
    #[test]
    fn what_killed_passes_left_is_removed_in_time() {
        let folder = Folder::new("leftovers");
        let target = folder.0.join("haproxy.cfg");
        let ours = format!(".haproxy.cfg.{}-0.tmp", process::id());
        let fresh = format!(".haproxy.cfg.{}-1000.tmp", process::id());
        let hours_ago = std::time::SystemTime::now() - 2 * LEFTOVER_AGE;
        for (name, old) in [
            (".haproxy.cfg.4294967295-0.tmp", true),
            (".haproxy.cfg.4294967295-1.tmp", false),
            (".haproxy.cfg.1-0.tmp", true),
            (ours.as_str(), true),
            (fresh.as_str(), false),
            (".haproxy.cfg.mine.tmp", true),
            (".other.cfg.4294967295-0.tmp", true),
        ] {
            let file = File::create(folder.0.join(name)).expect("a file");
            if old {
                file.set_modified(hours_ago).expect("its time");
            }
        }
        replace(&target, b"new").expect("replaced");
        let mut kept = [
            ".haproxy.cfg.4294967295-1.tmp",
            ".haproxy.cfg.1-0.tmp",
            fresh.as_str(),
            ".haproxy.cfg.mine.tmp",
            ".other.cfg.4294967295-0.tmp",
            "haproxy.cfg",
        ];
        kept.sort_unstable();
        assert_eq!(folder.names(), kept);
    }

    #[test]
    fn the_owner_is_kept_and_a_link_stays_a_link() {
        let folder = Folder::new("owner");
        let target = folder.0.join("real.cfg");
        fs::write(&target, "old").expect("the old file");
        let ours = fs::metadata(&target).expect("the file").uid();
        let owner = if ours == 0 { 99 } else { ours };
        std::os::unix::fs::chown(&target, Some(owner), Some(owner).filter(|_| ours == 0))
            .expect("chown");
        let link = folder.0.join("link.cfg");
        std::os::unix::fs::symlink("real.cfg", &link).expect("a link");
        replace(&link, b"new").expect("replaced");
        assert!(fs::symlink_metadata(&link).expect("the link").is_symlink());
        assert_eq!(fs::read(&target).expect("the file"), b"new");
        assert_eq!(fs::metadata(&target).expect("the file").uid(), owner);
        let dangling = folder.0.join("dangling.cfg");
        std::os::unix::fs::symlink("made.cfg", &dangling).expect("a link");
        replace(&dangling, b"made").expect("made");
        assert_eq!(
            fs::read(folder.0.join("made.cfg")).expect("the file"),
            b"made"
        );
    }

    #[test]
    fn every_error_names_the_path_and_the_mend() {
        let folder = Folder::new("errors");
        let file = folder.0.join("file");
        fs::write(&file, "").expect("a file");
        fs::create_dir(folder.0.join("dir")).expect("a folder");
        for (target, hint) in [
            (
                folder.0.join("none/haproxy.cfg"),
                "does not exist; create it",
            ),
            (file.join("haproxy.cfg"), "is a file, not a folder"),
            (folder.0.join("dir"), "remove the folder"),
            (PathBuf::from("/proc/haproxy.cfg"), ""),
        ] {
            let error = replace(&target, b"x").expect_err("it cannot be written");
            assert!(
                error.to_string().contains(&target.display().to_string()),
                "{error}"
            );
            assert!(
                error.hint_text().unwrap_or_default().contains(hint),
                "{error:?}"
            );
        }
        assert_eq!(folder.names(), ["dir", "file"]);
    }

    #[test]
    fn a_name_that_cannot_be_replaced_is_written_in_place() {
        let folder = Folder::new("inplace");
        let target = folder.0.join("haproxy.cfg");
        fs::write(&target, "a longer old text").expect("the old file");
        let staged = stage(&target, &[b"new"]).expect("staged");
        staged.write_in_place().expect("written");
        drop(staged);
        assert_eq!(fs::read(&target).expect("the file"), b"new");
        assert!(is_mount_error(&io::Error::from_raw_os_error(16)));
    }

    /// Readers see the old bytes or the new ones, never a part.
    #[test]
    fn readers_never_see_a_part() {
        let folder = Folder::new("readers");
        let target = folder.0.join("haproxy.cfg");
        let whole = |n: usize| vec![b'a' + u8::try_from(n % 26).unwrap_or(0); 50_000];
        replace_with(&target, &[&whole(0)], Durability::Kernel).expect("replaced");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for n in 0..200 {
                    replace_with(&target, &[&whole(n)], Durability::Kernel).expect("replaced");
                }
            });
            while !writer.is_finished() {
                let bytes = fs::read(&target).expect("always there");
                assert_eq!(bytes.len(), 50_000);
                assert!(bytes.iter().all(|byte| Some(byte) == bytes.first()));
            }
        });
    }
}
