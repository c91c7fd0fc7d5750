//! A real Podman in folders and a network namespace of its own: its service, which speaks Docker's API, and its
//! command line. Everything that it starts is gone when it is dropped.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::deadline::{poll, wait_for};

/// Made here from the machine's own busybox.
const IMAGE: &str = "cosmonaut-test/busybox";
/// A service that starts opens its stores first.
const START_MAX: Duration = Duration::from_secs(30);
/// One podman command, in seconds: the slowest starts a container.
const COMMAND_MAX_S: &str = "60";

static NUMBER: AtomicUsize = AtomicUsize::new(0);

pub struct Podman {
    folder: PathBuf,
    /// Keeps the network namespace.
    namespace: Child,
    service: Option<Child>,
}

impl Podman {
    /// A Podman with an image and no container, whose service runs; fails with what is missing.
    #[track_caller]
    pub fn start() -> Podman {
        let version = Command::new("podman").arg("--version").output();
        assert!(
            version.is_ok(),
            "these tests need podman with netavark (scripts/test installs the packages; COSMONAUT_TEST_WITHOUT=podman leaves them out): {version:?}"
        );
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("csm-pod-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("image/bin")).expect("a folder for podman");
        let namespace = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare (package util-linux) and root are needed for a podman of our own");
        let mut podman = Podman {
            folder,
            namespace,
            service: None,
        };
        wait_for("the new network namespace", Duration::from_secs(10), || {
            let comm = format!("/proc/{}/comm", podman.namespace.id());
            (fs::read_to_string(comm).ok()?.trim() == "cat").then_some(())
        });
        podman.events("file");
        podman.start_service();
        let busybox = ["/bin/busybox", "/usr/bin/busybox"]
            .into_iter()
            .find(|path| fs::metadata(path).is_ok())
            .expect("busybox (package busybox-static)");
        let image = podman.folder.join("image");
        // The second one is its shell, which health checks are run by.
        for name in ["bin/busybox", "bin/sh"] {
            fs::copy(busybox, image.join(name)).expect("busybox copied");
        }
        let tar = podman.folder.join("image.tar");
        let made = Command::new("tar")
            .arg("-C")
            .arg(&image)
            .arg("-cf")
            .arg(&tar)
            .arg(".")
            .status();
        assert!(made.is_ok_and(|status| status.success()), "tar");
        podman.run(&["import", &tar.display().to_string(), IMAGE]);
        podman
    }

    /// Writes its configuration; a service that runs already keeps its own.
    pub fn events(&self, logger: &str) {
        // Without these limits it wants more than an ordinary machine gives away.
        let text = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n[engine]\nevents_logger = \"{logger}\"\ncgroup_manager = \"cgroupfs\"\n[network]\nnetwork_backend = \"netavark\"\n"
        );
        fs::write(self.folder.join("containers.conf"), text).expect("podman's configuration");
    }

    /// What DOCKER_HOST must say to reach it.
    pub fn docker_host(&self) -> String {
        format!("unix://{}/p.sock", self.folder.display())
    }

    fn command(&self) -> Command {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/proc/{}/ns/net", self.namespace.id()))
            .args(["podman", "--storage-driver", "vfs"])
            .args(["--root", &at("root"), "--runroot", &at("run")])
            .args(["--tmpdir", &at("tmp"), "--network-config-dir", &at("net")])
            .env("CONTAINERS_CONF", at("containers.conf"))
            .stdin(Stdio::null());
        command
    }

    /// Starts its service and waits until that answers.
    #[track_caller]
    pub fn start_service(&mut self) {
        let log = fs::File::create(self.folder.join("log")).expect("a log");
        let service = self
            .command()
            .args(["system", "service", "--time", "0", &self.docker_host()])
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("podman");
        self.service = Some(service);
        let socket = self.folder.join("p.sock");
        let answers = poll(START_MAX, || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
        assert!(
            answers.is_some(),
            "podman's service does not answer:\n{}",
            fs::read_to_string(self.folder.join("log")).unwrap_or_default()
        );
    }

    /// Ends its service by SIGTERM; the containers live on.
    pub fn stop_service(&mut self) {
        let Some(mut service) = self.service.take() else {
            return;
        };
        let pid = service.id().to_string();
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -s TERM \"$1\"", "sh", &pid])
            .status();
        if poll(Duration::from_secs(10), || {
            service.try_wait().ok().flatten()
        })
        .is_none()
        {
            let _ = service.kill();
            let _ = service.wait();
        }
        // One that a crash leaves would be taken for the next service's.
        let _ = fs::remove_file(self.folder.join("p.sock"));
    }

    /// Runs `podman ARGS`: its output, or its words of refusal.
    pub fn try_run(&self, args: &[&str]) -> Result<String, String> {
        let podman = self.command();
        let mut command = Command::new("timeout");
        command.arg(COMMAND_MAX_S).arg(podman.get_program());
        command.args(podman.get_args()).args(args);
        command
            .env("CONTAINERS_CONF", self.folder.join("containers.conf"))
            .stdin(Stdio::null());
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Runs `podman ARGS`, which must succeed.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        match self.try_run(args) {
            Ok(text) => text,
            Err(words) => panic!("podman {args:?}: {words}"),
        }
    }

    /// `podman run -d` of a container that a service `web` has; its address.
    #[track_caller]
    pub fn serve(&self, name: &str, more: &[&str]) -> String {
        let mut args = vec!["run", "-d", "--name", name];
        args.extend(["-e", "SERVICE_NAME=web", "-e", "PREDICATE=web.example"]);
        args.extend(more);
        args.extend([IMAGE, "/bin/busybox", "sleep", "1000"]);
        self.run(&args);
        self.address(name)
    }

    /// A container's address.
    #[track_caller]
    pub fn address(&self, name: &str) -> String {
        self.run(&[
            "inspect",
            "--format",
            "{{.NetworkSettings.IPAddress}}",
            name,
        ])
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("--- podman ps -a:\n{:?}", self.try_run(&["ps", "-a"]));
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            println!("--- podman's log:\n{log}");
        }
        let _ = self.try_run(&["rm", "-f", "-a", "-t", "0"]);
        self.stop_service();
        let folder = self.folder.display().to_string();
        let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
        let all = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let mut all: Vec<&str> = all.filter(|path| path.starts_with(&folder)).collect();
        all.sort_unstable();
        for path in all.iter().rev() {
            let _ = Command::new("umount").args(["-l", path]).status();
        }
        let _ = self.namespace.kill();
        let _ = self.namespace.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
