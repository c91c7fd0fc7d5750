//! A real Docker daemon, driven by the docker command as an operator would: the one that
//! answers already, or one of our own in its own network namespace that may be killed.
//! Everything started here carries one prefix and is removed on drop.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::deadline::{poll, wait_for};

/// Made by scripts/setup from this machine's own programs.
pub const BUSYBOX: &str = "cosmonaut-test/busybox";
pub const HAPROXY: &str = "cosmonaut-test/haproxy";

/// The image of HAProxy; `COSMONAUT_TEST_HAPROXY_IMAGE` names another one, with another version.
pub fn haproxy_image() -> String {
    std::env::var("COSMONAUT_TEST_HAPROXY_IMAGE")
        .ok()
        .filter(|image| !image.is_empty())
        .unwrap_or_else(|| HAPROXY.to_owned())
}

/// A first start of a daemon makes its stores; a start with containers starts them, too.
const DAEMON_START_MAX: Duration = Duration::from_secs(60);
/// One docker command: the slowest is a stop, which waits 10 s for its container.
const COMMAND_MAX_S: &str = "60";

static NUMBER: AtomicUsize = AtomicUsize::new(0);

/// Whether COSMONAUT_TEST_WITHOUT names this part, so that its tests are left out on request.
pub fn left_out(part: &str) -> bool {
    let without = std::env::var("COSMONAUT_TEST_WITHOUT").unwrap_or_default();
    let found = without.split([' ', ',']).any(|one| one == part);
    if found {
        println!("left out: COSMONAUT_TEST_WITHOUT names {part}");
    }
    found
}

/// A daemon, and what this test has put into it.
pub struct Docker {
    /// What DOCKER_HOST must say; none = as this process sees it.
    host: Option<String>,
    /// First part of all names.
    pub prefix: String,
    own: Option<Own>,
}

/// A daemon of this test's own.
struct Own {
    folder: PathBuf,
    /// Keeps the network namespace while the daemon is down.
    namespace: Child,
    daemon: Option<Child>,
    /// More options of the daemon.
    options: Vec<String>,
}

impl Docker {
    /// The daemon that answers, with the images that the tests need; fails with what is missing.
    #[track_caller]
    pub fn shared() -> Docker {
        let docker = Docker::named(None, None);
        let version = docker.try_run(&["version", "--format", "{{.Server.Version}}"]);
        assert!(
            version.is_ok(),
            "these tests need a Docker daemon that answers (scripts/test starts one; COSMONAUT_TEST_WITHOUT=docker leaves them out): {version:?}"
        );
        for image in [BUSYBOX, &haproxy_image()] {
            let found = docker.try_run(&["image", "inspect", "--format", "{{.Id}}", image]);
            assert!(
                found.is_ok(),
                "these tests need the image {image}, which scripts/test makes (COSMONAUT_TEST_WITHOUT=\"docker haproxy\" leaves them out): {found:?}"
            );
        }
        docker
    }

    /// A second daemon beside it, with its images, in a network namespace of its own.
    #[track_caller]
    pub fn own(images: &[&str]) -> Docker {
        Docker::own_with(images, &[])
    }

    /// The same with more options of dockerd.
    #[track_caller]
    pub fn own_with(images: &[&str], options: &[&str]) -> Docker {
        let shared = Docker::shared();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("csm-own-{}-{number}", std::process::id()));
        // In processes of its own each soak has the number of one before, which may have been killed.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("a folder for a daemon");
        // A namespace without a way out; `cat` holds it until its stdin is closed.
        let namespace = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare (package util-linux) and root are needed for a daemon of our own");
        let host = format!("unix://{}/docker.sock", folder.display());
        let own = Own {
            folder,
            namespace,
            daemon: None,
            options: options.iter().map(|one| (*one).to_owned()).collect(),
        };
        let mut docker = Docker::named(Some(host), Some(own));
        wait_for("the new network namespace", Duration::from_secs(10), || {
            let pid = docker.namespace_pid()?;
            let theirs = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (Some(theirs) != fs::read_link("/proc/self/ns/net").ok() && name.trim() == "cat")
                .then_some(())
        });
        docker.start_daemon();
        for image in images {
            let file = docker
                .own
                .as_ref()
                .map(|own| own.folder.join("image.tar"))
                .expect("our own");
            shared.run(&["save", "-o", &file.display().to_string(), image]);
            docker.run(&["load", "-i", &file.display().to_string()]);
            let _ = fs::remove_file(file);
        }
        docker
    }

    fn named(host: Option<String>, own: Option<Own>) -> Docker {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Docker {
            host,
            prefix: format!("csmit{}x{number}", std::process::id()),
            own,
        }
    }

    /// What DOCKER_HOST must say to reach it.
    pub fn docker_host(&self) -> String {
        self.host
            .clone()
            .or_else(|| {
                std::env::var("DOCKER_HOST")
                    .ok()
                    .filter(|host| !host.is_empty())
            })
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("timeout");
        command
            .args([COMMAND_MAX_S, "docker"])
            .args(args)
            .stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// Runs `docker ARGS`: its output, or its words of refusal.
    pub fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let output = self
            .command(args)
            .output()
            .map_err(|error| format!("docker: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Runs `docker ARGS`, which must succeed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        match self.try_run(args) {
            Ok(text) => text,
            Err(words) => panic!("docker {args:?}: {words}"),
        }
    }

    /// A name of this test.
    pub fn name(&self, rest: &str) -> String {
        format!("{}-{rest}", self.prefix)
    }

    /// The label with which scripts/test finds what a crash of the tests leaves behind.
    fn label() -> String {
        std::env::var("COSMONAUT_TEST_LABEL")
            .ok()
            .filter(|label| !label.is_empty())
            .unwrap_or_else(|| "cosmonaut-run=tests".to_owned())
    }

    /// The label of this test's own containers, whatever they are renamed to.
    fn mark(&self) -> String {
        format!("cosmonaut-it={}", self.prefix)
    }

    /// A bridge network of this test.
    #[track_caller]
    pub fn network(&self, rest: &str) -> String {
        let name = self.name(rest);
        self.run(&["network", "create", "--label", &Docker::label(), &name]);
        name
    }

    /// `docker run -d` with our prefix and label; `more` are options, then image and command.
    #[track_caller]
    pub fn start(&self, rest: &str, more: &[&str]) -> String {
        let (name, label, ours) = (self.name(rest), Docker::label(), self.mark());
        let mut args = vec![
            "run", "-d", "--name", &name, "--label", &label, "--label", &ours,
        ];
        args.extend(more);
        self.run(&args);
        name
    }

    /// An HTTP server of a service that answers with its own name.
    #[track_caller]
    pub fn serve(&self, rest: &str, network: &str, service: &str, more: &[&str]) -> String {
        let name = self.name(rest);
        let (service_name, predicate) = (
            format!("SERVICE_NAME={service}"),
            format!("PREDICATE={service}.example"),
        );
        // As the main process it gets no default action for SIGTERM: the shell in front ends it.
        let command = format!(
            "mkdir -p /tmp/www; echo {name} >/tmp/www/index.html; httpd -f -p 8080 -h /tmp/www & trap 'kill $!; exit 0' TERM; wait"
        );
        let mut all = vec![
            "--network",
            network,
            "-e",
            &service_name,
            "-e",
            &predicate,
            "-e",
            "PORT=8080",
        ];
        all.extend(more);
        all.extend([BUSYBOX, "sh", "-c", &command]);
        self.start(rest, &all)
    }

    /// A HAProxy like the official image, reading `folder`/haproxy.cfg.
    #[track_caller]
    pub fn haproxy(&self, network: &str, folder: &Path, more: &[&str]) -> String {
        let volume = format!("{}:/usr/local/etc/haproxy:ro", folder.display());
        self.haproxy_with(network, &volume, more)
    }

    /// The same with another volume that holds the config.
    #[track_caller]
    pub fn haproxy_with(&self, network: &str, volume: &str, more: &[&str]) -> String {
        let mut all = vec![
            "--network",
            network,
            "-v",
            volume,
            "--stop-signal",
            "SIGUSR1",
        ];
        all.extend(more);
        let image = haproxy_image();
        all.push(&image);
        self.start("haproxy", &all)
    }

    /// A container's address on a network.
    pub fn address(&self, name: &str, network: &str) -> Option<String> {
        let format = format!("{{{{(index .NetworkSettings.Networks \"{network}\").IPAddress}}}}");
        self.try_run(&["inspect", "--format", &format, name])
            .ok()
            .filter(|ip| !ip.is_empty())
    }

    /// The same command where our own daemon's network is.
    pub fn inside(&self, command: Command) -> Command {
        let pid = self.namespace_pid().expect("a daemon of our own");
        inside(&format!("/proc/{pid}/ns/net"), command)
    }

    /// A process in the network namespace of a daemon of our own.
    pub fn namespace_pid(&self) -> Option<u32> {
        self.own.as_ref().map(|own| own.namespace.id())
    }

    /// Asks `ip`:80 for `/` of a host: status and body.
    pub fn get(&self, ip: &str, host: &str) -> Option<(u16, String)> {
        let text = match self.namespace_pid() {
            None => {
                let address = format!("{ip}:80").parse().ok()?;
                let mut stream =
                    TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
                stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
                write!(
                    stream,
                    "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
                )
                .ok()?;
                let mut text = String::new();
                stream.read_to_string(&mut text).ok()?;
                text
            }
            Some(pid) => {
                let output = Command::new("nsenter")
                    .arg(format!("--net=/proc/{pid}/ns/net"))
                    .args([
                        "curl",
                        "-s",
                        "-i",
                        "-m",
                        "5",
                        "-H",
                        &format!("Host: {host}"),
                        &format!("http://{ip}/"),
                    ])
                    .output()
                    .ok()?;
                String::from_utf8_lossy(&output.stdout).into_owned()
            }
        };
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some((status, body.trim().to_owned()))
    }

    /// Starts our own daemon and waits until it answers.
    #[track_caller]
    pub fn start_daemon(&mut self) {
        let pid = self
            .namespace_pid()
            .expect("only our own daemon is started");
        let own = self.own.as_mut().expect("only our own daemon is started");
        let at = |name: &str| own.folder.join(name).display().to_string();
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(own.folder.join("log"))
            .expect("the daemon's log");
        let _ = fs::remove_file(at("pid"));
        forget_dead_containerd(&own.folder);
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/proc/{pid}/ns/net"))
            .args([
                "dockerd",
                "--host",
                &format!("unix://{}", at("docker.sock")),
            ])
            .args([
                "--data-root",
                &at("data"),
                "--exec-root",
                &at("exec"),
                "--pidfile",
                &at("pid"),
            ])
            .args(&own.options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("dockerd (package docker.io)");
        own.daemon = Some(daemon);
        let log = own.folder.join("log");
        let answers = poll(DAEMON_START_MAX, || self.try_run(&["version"]).ok());
        assert!(
            answers.is_some(),
            "our own dockerd does not answer; its log:\n{}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }

    /// Ends our own daemon by a signal and waits for its end. Its containers live on after KILL.
    #[track_caller]
    pub fn end_daemon(&mut self, signal: &str) {
        let own = self.own.as_mut().expect("only our own daemon is ended");
        let Some(mut daemon) = own.daemon.take() else {
            return;
        };
        let _ = Command::new("/bin/sh")
            .args([
                "-c",
                "kill -s \"$1\" \"$2\"",
                "sh",
                signal,
                &daemon.id().to_string(),
            ])
            .status();
        let ended = poll(Duration::from_secs(40), || daemon.try_wait().ok().flatten());
        if ended.is_none() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

/// The same command, with nothing but its own environment, in another network namespace.
pub fn inside(namespace: &str, command: Command) -> Command {
    let mut inside = Command::new("nsenter");
    inside
        .arg(format!("--net={namespace}"))
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .stdin(Stdio::null());
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(key, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        inside.current_dir(folder);
    }
    inside
}

/// A killed dockerd takes its containerd along. Where nobody reaps orphans its zombie looks alive
/// to the next dockerd, which then waits for it without end.
fn forget_dead_containerd(folder: &Path) {
    let file = folder.join("exec/containerd/containerd.pid");
    let Ok(pid) = fs::read_to_string(&file) else {
        return;
    };
    let dead = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    if poll(Duration::from_secs(10), || dead().then_some(())).is_some() {
        let _ = fs::remove_file(file);
    }
}

/// Ends what a daemon that is gone has left running: the shims that name its folder, and their containers.
fn end_orphans(folder: &Path) {
    let folder = folder.display().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let Some(pid) = entry
            .file_name()
            .to_str()
            .filter(|pid| pid.bytes().all(|one| one.is_ascii_digit()))
            .map(str::to_owned)
        else {
            continue;
        };
        if !line.contains("containerd-shim") || !line.contains(&folder) {
            continue;
        }
        let children =
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        for one in children.split_whitespace().chain([pid.as_str()]) {
            let _ = Command::new("/bin/sh")
                .args(["-c", "kill -s KILL \"$1\" 2>/dev/null", "sh", one])
                .status();
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!(
                "--- docker ps -a:\n{}",
                self.try_run(&["ps", "-a", "--filter", &format!("label={}", self.mark())])
                    .unwrap_or_else(|words| words)
            );
        }
        if let Ok(all) = self.try_run(&["ps", "-aq", "--filter", &format!("label={}", self.mark())])
        {
            let mut args = vec!["rm", "-f", "-v"];
            args.extend(all.lines());
            if args.len() > 3 {
                let _ = self.try_run(&args);
            }
        }
        if let Ok(all) = self.try_run(&[
            "network",
            "ls",
            "-q",
            "--filter",
            &format!("name={}", self.prefix),
        ]) {
            for network in all.lines() {
                let _ = self.try_run(&["network", "rm", network]);
            }
        }
        if self.own.is_some() {
            self.end_daemon("TERM");
        }
        if let Some(own) = self.own.as_mut() {
            end_orphans(&own.folder);
            // What a killed daemon leaves mounted below its folder would keep the files.
            let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
            let folder = own.folder.display().to_string();
            let mut all: Vec<&str> = mounts
                .lines()
                .filter_map(|line| line.split(' ').nth(1))
                .filter(|path| path.starts_with(&folder))
                .collect();
            all.sort_unstable();
            for path in all.iter().rev() {
                let _ = Command::new("umount").args(["-l", path]).status();
            }
            let _ = own.namespace.kill();
            let _ = own.namespace.wait();
            let _ = fs::remove_dir_all(&own.folder);
        }
    }
}
