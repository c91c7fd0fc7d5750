//! A folder of one measurement, and the moment a file in it is replaced.

use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

/// Removed at its end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(name: &str) -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!(
            "cosmonaut-bench-{}-{count}-{name}",
            std::process::id()
        ));
        std::fs::create_dir_all(&path).expect("a folder in the temporary folder");
        Folder(path)
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Notices each time a file is renamed to one name.
pub struct Replaced {
    notify: OwnedFd,
    name: String,
}

/// When a file was replaced.
#[derive(Clone, Copy)]
pub struct Moment {
    pub instant: Instant,
    pub clock: SystemTime,
}

impl Replaced {
    pub fn new(file: &Path) -> Replaced {
        let notify = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
            .expect("inotify");
        let folder = file.parent().expect("a file in a folder");
        inotify::add_watch(&notify, folder, inotify::WatchFlags::MOVED_TO).expect("inotify");
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        Replaced {
            notify,
            name: name.unwrap_or_default(),
        }
    }

    /// Waits until it is replaced; `None` when that takes longer than `limit`.
    pub fn wait(&self, limit: Duration) -> Option<Moment> {
        let until = Instant::now() + limit;
        loop {
            if self.count() > 0 {
                return Some(Moment {
                    instant: Instant::now(),
                    clock: SystemTime::now(),
                });
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            let left = Timespec::try_from(left).expect("a short time");
            let _ =
                rustix::event::poll(&mut [PollFd::new(&self.notify, PollFlags::IN)], Some(&left));
        }
    }

    /// How often it was replaced since this was last asked.
    pub fn count(&self) -> usize {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.notify, &mut buffer);
        let mut count = 0;
        while let Ok(event) = reader.next() {
            let name = event
                .file_name()
                .map(|name| name.to_string_lossy().into_owned());
            count += usize::from(name.as_deref() == Some(self.name.as_str()));
        }
        count
    }
}
