//! What `mount` makes for a test, gone with it; it needs root.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this is left out on request: without Docker there need be no root either.
pub fn left_out() -> bool {
    super::real_docker::left_out("docker")
}

/// A small file system.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    #[track_caller]
    pub fn over(folder: &Path, kib: usize) -> Tmpfs {
        let size = format!("size={kib}k,mode=755");
        mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder);
        Tmpfs(folder.to_owned())
    }

    /// Fills it to the last page.
    pub fn fill(&self) -> PathBuf {
        let ballast = self.0.join("ballast");
        let mut file = File::create(&ballast).expect("a file");
        while file.write_all(&[b'x'; 512]).is_ok() {}
        ballast
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A file that is a mount of its own, as a container has it.
pub struct Bound(PathBuf);

impl Bound {
    /// `file` is seen at `at`, too, and `at` cannot be replaced. Neither need be there.
    #[track_caller]
    pub fn file(file: &Path, at: &Path) -> Bound {
        for path in [file, at] {
            File::options()
                .append(true)
                .create(true)
                .open(path)
                .expect("a file");
        }
        mount(&["--bind", &file.display().to_string()], at);
        Bound(at.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

#[track_caller]
fn mount(arguments: &[&str], at: &Path) {
    let mounted = Command::new("mount").args(arguments).arg(at).status();
    assert!(
        mounted.is_ok_and(|status| status.success()),
        "to mount something needs root"
    );
}

fn unmount(at: &Path) {
    let _ = Command::new("umount").arg("-l").arg(at).status();
}
