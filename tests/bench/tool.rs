//! The programs that are measured: cosmonaut, and the yardstick that does the same work without any care.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::daemon::Daemon;
use crate::folder::{Folder, Replaced};
use crate::process;

/// How long the first config may take: 10,000 inspects on a busy machine.
const FIRST_CONFIG: Duration = Duration::from_secs(60);
/// A process that used no time for this long has settled.
const CALM: Duration = Duration::from_millis(500);

/// Which program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Cosmonaut,
    Yardstick,
}

/// Where the programs are, and what each is given.
#[derive(Clone)]
pub struct Programs {
    pub cosmonaut: PathBuf,
    /// This program; it is also the yardstick.
    pub bench: PathBuf,
    /// A reload script that does nothing.
    pub script: PathBuf,
}

impl Programs {
    /// A command line for one run on `daemon`, with config and state in `folder`.
    pub fn command(&self, kind: Kind, action: &str, docker_host: &str, folder: &Folder) -> Command {
        let config = folder.join("haproxy.cfg");
        match kind {
            Kind::Yardstick => {
                let mut command = Command::new(&self.bench);
                command
                    .args(["yardstick", action])
                    .arg(docker_host.trim_start_matches("unix://"));
                command.arg(config).arg(&self.script);
                command
            }
            Kind::Cosmonaut => {
                let mut command = Command::new(&self.cosmonaut);
                command
                    .arg(action)
                    .args(["--weave", "never", "-H", docker_host, "--config"])
                    .arg(config);
                command
                    .arg("--state-dir")
                    .arg(folder.join("state"))
                    .arg("--script")
                    .arg(&self.script);
                command
            }
        }
    }

    /// Starts `watch` and waits for its first config and for it to settle.
    pub fn watch(&self, kind: Kind, daemon: &Daemon, extra: &[&str]) -> Tool {
        let folder = Folder::new("watch");
        let host = format!("unix://{}", daemon.socket.display());
        let mut command = self.command(kind, "watch", &host, &folder);
        if kind == Kind::Cosmonaut {
            command.args(extra);
        }
        let tool = Tool::start(command, folder);
        tool.settle();
        tool
    }
}

/// A running program; stopped at its end.
pub struct Tool {
    command: Command,
    child: Child,
    pub folder: Folder,
    pub replaced: Replaced,
}

impl Tool {
    /// Starts it and waits for its first config.
    pub fn start(mut command: Command, folder: Folder) -> Tool {
        let replaced = Replaced::new(&folder.join("haproxy.cfg"));
        let log = std::fs::File::create(folder.join("log")).expect("a log");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let tool = Tool {
            child: spawn(&mut command),
            command,
            folder,
            replaced,
        };
        if tool.replaced.wait(FIRST_CONFIG).is_none() {
            panic!(
                "{:?} writes no config; it says: {}",
                tool.command,
                tool.log()
            );
        }
        tool
    }

    /// Kills it and starts it again on the files that it left.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.child = spawn(&mut self.command);
        self.settle();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it while something else is measured, or lets it go on: what it missed it finds in its socket.
    pub fn pause(&self, pause: bool) {
        process::pause(&self.child, pause);
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    pub fn config(&self) -> String {
        std::fs::read_to_string(self.folder.join("haproxy.cfg")).unwrap_or_default()
    }

    /// Waits until it does nothing.
    pub fn settle(&self) {
        let until = Instant::now() + FIRST_CONFIG;
        let mut before = process::cpu(self.pid());
        loop {
            std::thread::sleep(CALM);
            let now = process::cpu(self.pid());
            if now == before || Instant::now() > until {
                break;
            }
            before = now;
        }
        self.replaced.count();
    }

    /// Waits until the config satisfies this; returns when the last file that was needed came.
    pub fn wait_for(&self, limit: Duration, good: impl Fn(&str) -> bool) -> Option<Instant> {
        let until = Instant::now() + limit;
        loop {
            let moment = self
                .replaced
                .wait(until.saturating_duration_since(Instant::now()))?;
            if good(&self.config()) {
                return Some(moment.instant);
            }
        }
    }
}

fn spawn(command: &mut Command) -> Child {
    command
        .spawn()
        .unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"))
}

impl Drop for Tool {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
