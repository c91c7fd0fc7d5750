//! A folder in which the real binary runs with a clean environment, beside the fakes it talks
//! to. Kept and named when the test fails, with all that happened; removed when it passes.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::deadline::{SOON, poll, wait_for};
use super::fake_cosmos::FakeCosmos;
use super::fake_docker::FakeDocker;
use super::routes::Routes;
use super::script::Script;

/// Longest run of a command that ends by itself: above every limit of the binary that a test leaves at its default.
const RUN_MAX: Duration = Duration::from_secs(90);

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// What a finished run said.
#[derive(Debug, Clone)]
pub struct Output {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Exit code; none after a signal.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails the test unless the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert_eq!(self.code(), Some(code), "exit code; {self}");
        self
    }

    /// Fails the test unless stderr holds each of `words`, in any case of letters.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Output {
        for word in words {
            assert!(
                self.stderr.to_lowercase().contains(&word.to_lowercase()),
                "stderr does not say {word:?}; {self}"
            );
        }
        self
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}\nstdout:\n{}\nstderr:\n{}",
            self.status, self.stdout, self.stderr
        )
    }
}

/// One test's folder, script and fakes.
pub struct Sandbox {
    pub root: PathBuf,
    pub script: Script,
    pub docker: FakeDocker,
    pub cosmos: Option<FakeCosmos>,
    /// Every command that was run, with what it said, for a failing test.
    told: Mutex<Vec<(String, PathBuf)>>,
}

impl Sandbox {
    /// A folder with an obeying script and a fake Docker on a Unix socket.
    pub fn new(name: &str) -> Sandbox {
        Sandbox::build(name, false, false)
    }

    /// The same with Docker on TCP.
    pub fn tcp(name: &str) -> Sandbox {
        Sandbox::build(name, true, false)
    }

    /// The same with a Cosmos.
    pub fn cosmos(name: &str) -> Sandbox {
        Sandbox::build(name, false, true)
    }

    fn build(name: &str, tcp: bool, cosmos: bool) -> Sandbox {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // Short: a Unix socket's path has room for 107 bytes.
        let root = std::env::temp_dir().join(format!("csm-{}-{number}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        for folder in ["script", "state", "home", "out"] {
            fs::create_dir_all(root.join(folder)).expect("the test's folders");
        }
        Sandbox {
            script: Script::write(&root.join("script")),
            docker: if tcp {
                FakeDocker::tcp()
            } else {
                FakeDocker::unix(&root.join("d.sock"))
            },
            cosmos: cosmos.then(FakeCosmos::start),
            told: Mutex::default(),
            root,
        }
    }

    pub fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// The haproxy.cfg of the default place.
    pub fn config_path(&self) -> PathBuf {
        self.state().join("haproxy.cfg")
    }

    /// Text of the config, empty when there is none.
    pub fn config(&self) -> String {
        fs::read_to_string(self.config_path()).unwrap_or_default()
    }

    pub fn routes(&self) -> Routes {
        Routes::of(&self.config())
    }

    /// Waits until the config on disk satisfies `look`.
    #[track_caller]
    pub fn wait_config(
        &self,
        what: &str,
        limit: Duration,
        look: impl Fn(&Routes) -> bool,
    ) -> Routes {
        wait_for(
            &format!("a config with {what}; it is:\n{}", self.config()),
            limit,
            || {
                let routes = self.routes();
                look(&routes).then_some(routes)
            },
        )
    }

    /// The options that every run here needs: script, state folder, Docker, no Weave.
    pub fn usual(&self) -> Vec<String> {
        let mut all = vec![
            "--docker-host".to_owned(),
            self.docker.docker_host(),
            "--state-dir".to_owned(),
            self.state().display().to_string(),
            "--script".to_owned(),
            self.script.path().display().to_string(),
            "--weave".to_owned(),
            "never".to_owned(),
        ];
        if let Some(cosmos) = &self.cosmos {
            all.extend(
                ["--cosmos-url", &cosmos.url(), "--cosmos-table", "astro"].map(str::to_owned),
            );
        }
        all
    }

    /// A command with a clean environment and nothing but `args`.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cosmonaut"));
        command
            .args(args)
            .env_clear()
            .env("PATH", super::host_haproxy::path())
            .env("HOME", self.root.join("home"))
            .env("LC_ALL", "C")
            .current_dir(&self.root)
            .stdin(Stdio::null());
        command
    }

    /// Runs `args` and nothing else to its end.
    #[track_caller]
    pub fn bare(&self, args: &[&str]) -> Output {
        self.finish(self.command(args))
    }

    /// Runs a subcommand with the usual options and `more`, to its end.
    #[track_caller]
    pub fn run(&self, subcommand: &str, more: &[&str]) -> Output {
        self.finish(self.usual_command(subcommand, more))
    }

    /// `sync` with the usual options and `more`.
    #[track_caller]
    pub fn sync(&self, more: &[&str]) -> Output {
        self.run("sync", more)
    }

    pub fn usual_command(&self, subcommand: &str, more: &[&str]) -> Command {
        let usual = self.usual();
        let mut args: Vec<&str> = vec![subcommand];
        args.extend(usual.iter().map(String::as_str));
        args.extend(more);
        self.command(&args)
    }

    /// Runs a command to its end, within `RUN_MAX`.
    #[track_caller]
    pub fn finish(&self, command: Command) -> Output {
        let mut run = self.spawn(command);
        let Some(status) = run.ended(RUN_MAX) else {
            panic!("still running after {RUN_MAX:?}: {}", run.line);
        };
        Output {
            status,
            stdout: run.stdout(),
            stderr: run.stderr(),
        }
    }

    /// Starts a command whose streams go to files of this folder.
    #[track_caller]
    pub fn spawn(&self, mut command: Command) -> Running {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let out = self.root.join("out").join(format!("{:03}", told.len()));
        let line = format!("{command:?}");
        let stream =
            |kind: &str| fs::File::create(out.with_extension(kind)).expect("a file for a stream");
        let child = command
            .stdout(stream("stdout"))
            .stderr(stream("stderr"))
            .spawn()
            .expect("the binary can be started");
        told.push((line.clone(), out.clone()));
        Running { child, out, line }
    }

    /// `watch` with the usual options, without a periodic resync, and `more`.
    #[track_caller]
    pub fn watch(&self, more: &[&str]) -> Running {
        let mut args = vec!["--resync", "0"];
        args.extend(more);
        self.spawn(self.usual_command("watch", &args))
    }

    /// `watch` that has subscribed and has put its first config in place.
    #[track_caller]
    pub fn settled_watch(&self, more: &[&str]) -> Running {
        let before = self.script.of("reload").len();
        let streams = self.docker.streams();
        let watch = self.watch(more);
        self.docker.wait_subscribed(streams + 1);
        wait_for("the first reload of the watch", SOON, || {
            let calls = self.script.of("reload");
            (calls.len() > before && calls.last().is_some_and(|call| call.ended)).then_some(())
        });
        watch
    }

    /// Files of the state folder that do not belong there once nothing runs.
    pub fn leftovers(&self) -> Vec<String> {
        let mut all: Vec<String> = fs::read_dir(self.state())
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.contains("tmp") || name.contains("stage") || name.contains(".new"))
            .collect();
        all.sort();
        all
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = fs::remove_dir_all(&self.root);
            return;
        }
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        println!("kept: {}", self.root.display());
        for (line, out) in self
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
        {
            println!("--- ran: {line}");
            println!("stdout:\n{}", read(&out.with_extension("stdout")));
            println!("stderr:\n{}", read(&out.with_extension("stderr")));
        }
        println!("--- config:\n{}", self.config());
        println!("--- the script was asked: {:?}", self.script.order());
        println!("--- Docker was asked:\n{}", self.docker.transcript());
        if let Some(cosmos) = &self.cosmos {
            println!("--- Cosmos was asked:\n{}", cosmos.transcript());
        }
    }
}

/// A running command. Killed when dropped.
pub struct Running {
    child: Child,
    out: PathBuf,
    line: String,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        read_lossy(&self.out.with_extension("stdout"))
    }

    pub fn stderr(&self) -> String {
        read_lossy(&self.out.with_extension("stderr"))
    }

    /// Waits until stderr holds `text`, in any case of letters.
    #[track_caller]
    pub fn wait_log(&mut self, text: &str, limit: Duration) {
        let wanted = text.to_lowercase();
        wait_for(&format!("{text:?} on stderr"), limit, || {
            self.stderr().to_lowercase().contains(&wanted).then_some(())
        });
    }

    /// Sends a signal by its name (`TERM`).
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let status = Command::new("/bin/sh")
            .args([
                "-c",
                "kill -s \"$1\" \"$2\"",
                "sh",
                name,
                &self.pid().to_string(),
            ])
            .status()
            .expect("a shell");
        assert!(status.success(), "cannot signal {}", self.line);
    }

    /// Its exit status, once it has ended within `limit`.
    pub fn ended(&mut self, limit: Duration) -> Option<ExitStatus> {
        poll(limit, || self.child.try_wait().expect("a child of ours"))
    }

    /// Waits for the end and gives the exit code (a signal as 128 + its number).
    #[track_caller]
    pub fn wait_exit(&mut self, limit: Duration) -> i32 {
        let status = wait_for("the end of the watch", limit, || {
            self.child.try_wait().expect("a child of ours")
        });
        status
            .code()
            .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Fails the test if it has ended.
    #[track_caller]
    pub fn still_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child of ours") {
            panic!("it ended by itself with {status}:\n{}", self.stderr());
        }
    }

    /// Stops it by SIGTERM and checks that it leaves in good order.
    #[track_caller]
    pub fn stop(mut self) {
        self.still_runs();
        self.signal("TERM");
        assert_eq!(
            self.wait_exit(SOON),
            0,
            "exit code after SIGTERM:\n{}",
            self.stderr()
        );
    }

    /// As by `kill -9`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

fn read_lossy(path: &Path) -> String {
    fs::read(path).map_or_else(
        |_| String::new(),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}
