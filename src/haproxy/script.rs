//! The reload script: how it is called, and what its exit codes mean.
//!
//! Contract: first lines of `scripts/update_haproxy.sh`, and cosmonaut(1).

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use crate::error::{Error, Kind, Result};
use crate::program;

/// The script that is built in.
pub const BUILT_IN: &str = include_str!("../../scripts/update_haproxy.sh");

/// What runs the built-in script.
pub const SHELL: &str = "/bin/sh";

/// Told to a check of a text without this word, so that no program need look for it; most texts are.
const NO_CHROOT: (&str, &str) = ("COSMONAUT_CHROOT", "none");

/// Most lines of the script's output that one message repeats.
const OUTPUT_LINES_MAX: usize = 8;
/// What to do about a script that hangs.
const TIMEOUT_HINT: &str = "--script-timeout sets the limit; run the script by hand with the same arguments to see where it waits";
/// `ENOEXEC`: the file is no program that the kernel can start.
const ENOEXEC: i32 = 8;

/// `check`: accepted.
const ACCEPTED: i32 = 0;
/// `check`: refused by HAProxy.
const REFUSED: i32 = 1;
/// `check`: there is nothing here to check with.
const CANNOT_CHECK: i32 = 3;
/// `reload`: HAProxy is not running.
const NOT_RUNNING: i32 = 4;

/// What the check said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// HAProxy accepts the config.
    Accepted,
    /// HAProxy refuses it, with its words.
    Refused(String),
    /// It cannot be checked here, with the script's words.
    Unknown(String),
}

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reloaded {
    /// HAProxy runs the config.
    Live,
    /// HAProxy is not running, with the script's words; it takes the file when it starts.
    NotRunning(String),
    /// It failed, with the words of whoever refused.
    Failed(String),
}

/// What the haproxy program of this host calls its version, as in `2.6.12-1+deb12u3`.
///
/// Its first line is `HAProxy version 2.6.12-1+deb12u3 2025/10/03 - https://haproxy.org/`. `folder` is where its
/// output goes through.
pub fn version_of_program(limit: Duration, folder: &Path) -> Option<String> {
    let path = program::find("haproxy").unwrap_or_else(|| PathBuf::from("/usr/sbin/haproxy"));
    let mut command = Command::new(path);
    command.arg("-v");
    let ended = program::run(command, "haproxy -v", limit, folder, |error, _| error).ok()?;
    let mut words = ended.output.split_whitespace();
    words.find(|word| *word == "version")?;
    words.next().map(str::to_owned)
}

/// The reload script and what it is told.
#[derive(Debug)]
pub struct Script {
    path: Option<PathBuf>,
    limit: Duration,
    state_dir: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

impl Script {
    /// `path` `None` is the built-in script, run by `/bin/sh`. `environment` is set on top of our own.
    pub fn new(
        path: Option<PathBuf>,
        limit: Duration,
        state_dir: PathBuf,
        environment: Vec<(OsString, OsString)>,
    ) -> Self {
        Script {
            path,
            limit,
            state_dir,
            environment,
        }
    }

    /// Has the target's own HAProxy check the config `text`, staged in this file, and does `beside` meanwhile.
    ///
    /// # Errors
    /// When the script cannot be run, ends in a way that is not in its contract, or exceeds its time.
    pub fn check(
        &self,
        staged: &Path,
        text: &str,
        fingerprint: &str,
        beside: impl FnOnce(),
    ) -> Result<Checked> {
        // An image from scratch has no shell; there HAProxy's own answer to the reload is the check.
        if self.path.is_none() && !Path::new(SHELL).exists() {
            return Ok(Checked::Unknown(format!(
                "there is no {SHELL} here for the built-in script"
            )));
        }
        let mut command = self.command("check", staged, fingerprint);
        if !text.contains("chroot") {
            command.env(NO_CHROOT.0, NO_CHROOT.1);
        }
        let (status, words) = self.run(command, "check", staged, beside)?;
        match status.code() {
            Some(ACCEPTED) => Ok(Checked::Accepted),
            Some(REFUSED) => Ok(Checked::Refused(words)),
            Some(CANNOT_CHECK) if words.is_empty() => Ok(Checked::Unknown(format!(
                "{} cannot check here (exit code {CANNOT_CHECK})",
                self.name()
            ))),
            Some(CANNOT_CHECK) => Ok(Checked::Unknown(words)),
            _ => Err(self.failed("check", staged, status, &words)),
        }
    }

    /// Makes HAProxy take the installed config.
    ///
    /// # Errors
    /// When the script cannot be run or exceeds its time.
    pub fn reload(&self, config: &Path, fingerprint: &str) -> Result<Reloaded> {
        let command = self.command("reload", config, fingerprint);
        let (status, words) = self.run(command, "reload", config, || ())?;
        Ok(match status.code() {
            Some(0) => Reloaded::Live,
            Some(NOT_RUNNING) => Reloaded::NotRunning(words),
            _ => Reloaded::Failed(self.failed("reload", config, status, &words).to_string()),
        })
    }

    /// What the script is called in messages.
    pub fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the built-in script".to_owned(),
        }
    }

    fn run(
        &self,
        command: Command,
        mode: &str,
        path: &Path,
        beside: impl FnOnce(),
    ) -> Result<(ExitStatus, String)> {
        let name = format!("{} {mode} {}", self.name(), path.display());
        let ended = program::run_beside(
            command,
            &name,
            self.limit,
            &self.state_dir,
            |error, cause| self.cannot_start(error, cause),
            beside,
        )
        .map_err(|error| {
            if error.is(Kind::TimedOut) {
                error.hint(TIMEOUT_HINT)
            } else {
                error
            }
        })?;
        Ok((
            ended.status,
            program::last_lines(&ended.output, OUTPUT_LINES_MAX),
        ))
    }

    fn command(&self, mode: &str, path: &Path, fingerprint: &str) -> Command {
        let mut command = match &self.path {
            Some(script) => Command::new(script),
            None => {
                let mut shell = Command::new(SHELL);
                shell.args(["-c", BUILT_IN, "update_haproxy.sh"]);
                shell
            }
        };
        command.arg(mode).arg(path);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("COSMONAUT_FINGERPRINT", fingerprint);
        // Keys for Cosmos are none of the script's business; what a text has not is said of one text.
        for name in ["COSMONAUT_COSMOS_HEADERS", NO_CHROOT.0] {
            command.env_remove(name);
        }
        // A HAProxy that it starts would speak to our service manager in our name.
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        command
    }

    fn cannot_start(&self, error: Error, cause: &std::io::Error) -> Error {
        match (cause.kind(), &self.path) {
            (std::io::ErrorKind::NotFound, Some(path)) if path.exists() => {
                error.hint("its first line names an interpreter that is not there")
            }
            (std::io::ErrorKind::NotFound, Some(_)) => {
                error.hint("--script names the reload script; is the path right?")
            }
            (std::io::ErrorKind::NotFound, None) => error
                .hint("without a shell HAProxy is reloaded by its master socket: --haproxy-master"),
            (std::io::ErrorKind::PermissionDenied, Some(path)) => {
                error.hint(format!("make it executable: chmod +x {}", path.display()))
            }
            _ if cause.raw_os_error() == Some(ENOEXEC) => {
                error.hint("its first line must name an interpreter, such as #!/bin/sh")
            }
            _ => error,
        }
    }

    fn failed(&self, mode: &str, path: &Path, status: ExitStatus, words: &str) -> Error {
        let how = match (status.code(), status.signal()) {
            (Some(code), _) => format!("exit code {code}"),
            (None, Some(signal)) => format!("killed by signal {signal}"),
            (None, None) => "ended in an unknown way".to_owned(),
        };
        Error::new(
            format!("{} {mode} {} failed", self.name(), path.display()),
            program::with_words(&how, words),
        )
    }
}
