//! What HAProxy is handed, and how: services that it refuses, changes without a reload, reloads without a
//! script, and faults between any two steps. A fake Docker, and a real HAProxy as a process of this host.

use std::time::Duration;

use crate::support::deadline::{SOON, stays, wait_for};
use crate::support::fake_docker::Container;
use crate::support::host_haproxy::{HostHaproxy, program};
use crate::support::metrics::Page;
use crate::support::real_docker::left_out;
use crate::support::sandbox::{Output, Running, Sandbox};
use crate::support::tmpfs::{self, Tmpfs};
use crate::support::wire::{Reply, answer};

fn serving(name: &str, ip: &str, service: &str) -> Container {
    Container::serving(
        &format!("asteroid-{name}"),
        ip,
        service,
        &format!("{service}.example"),
    )
}

/// Refuses a text, in HAProxy's manner, with the number of the line.
fn refuse(text: &str) -> String {
    format!(
        "n=$(grep -n -m1 '{text}' \"$2\" | cut -d: -f1); if [ -n \"$n\" ]; then echo \"[ALERT] (1) : config : parsing [/dev/stdin:$n] : cannot stand {text}\" >&2; status=1; fi"
    )
}

/// The same without a number: nothing points at the offender.
fn refuse_in_silence(text: &str) -> String {
    format!("if grep -q '{text}' \"$2\"; then echo 'fatal errors found' >&2; status=1; fi")
}

#[test]
fn a_service_that_haproxy_refuses_is_left_out_and_named() {
    for fragment in [refuse("evil.example"), refuse_in_silence("evil.example")] {
        let sandbox = Sandbox::new("offender");
        sandbox.script.on("check", &fragment);
        for (at, service) in ["api", "evil", "shop", "web", "wiki"].iter().enumerate() {
            sandbox
                .docker
                .add(serving(service, &format!("10.2.0.{}", at + 2), service));
        }
        sandbox
            .sync(&[])
            .exits(0)
            .says(&["error", "refuses service evil", "left out"]);
        let routes = sandbox.routes();
        assert_eq!(routes.order, ["api", "shop", "web", "wiki"]);
        assert!(!routes.services.contains_key("evil"));
        assert_eq!(sandbox.script.of("reload").len(), 1);
        assert!(sandbox.script.of("check").len() <= 8);
        // Nothing is remembered as done: when HAProxy takes it, it is served.
        sandbox.script.well("check");
        sandbox.sync(&[]).exits(0);
        assert_eq!(sandbox.routes().services.len(), 5);
        assert_eq!(sandbox.leftovers(), [""; 0]);
    }
}

#[test]
fn an_offender_keeps_its_last_good_block_and_others_are_not_slowed() {
    let sandbox = Sandbox::new("keeps");
    for (name, ip, service) in [("a", "10.2.0.2", "api"), ("w", "10.2.0.3", "web")] {
        sandbox.docker.add(serving(name, ip, service));
    }
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.script.on("check", &refuse_in_silence("10.2.0.9"));
    sandbox.docker.run(serving("w2", "10.2.0.9", "web"));
    watch.wait_log("refuses service web", SOON);
    sandbox.docker.run(serving("a2", "10.2.0.5", "api"));
    let routes = sandbox.wait_config("the other service's new server", SOON, |routes| {
        routes.has("10.2.0.5:80")
    });
    assert_eq!(routes.all(), ["10.2.0.2:80", "10.2.0.3:80", "10.2.0.5:80"]);
    let checks = sandbox.script.of("check").len();
    sandbox.docker.run(serving("a3", "10.2.0.6", "api"));
    sandbox.wait_config("one more", SOON, |routes| routes.has("10.2.0.6:80"));
    assert_eq!(
        sandbox.script.of("check").len(),
        checks + 1,
        "a block known as refused costs the others no check"
    );
    let named = |watch: &Running| watch.stderr().matches("refuses service web").count();
    assert_eq!(named(&watch), 1);
    // It is owed: tried again by itself, and served when HAProxy takes it.
    sandbox.script.well("check");
    sandbox.wait_config("the offender's server", SOON, |routes| {
        routes.has("10.2.0.9:80")
    });
    watch.wait_log("accepts service web", SOON);
    assert_eq!(named(&watch), 1);
    watch.stop();
}

#[test]
fn a_base_that_is_refused_is_no_services_fault() {
    let sandbox = Sandbox::new("base-fault");
    sandbox.docker.add(serving("a", "10.2.0.2", "api"));
    sandbox.sync(&[]).exits(0);
    let before = sandbox.config();
    sandbox.docker.add(serving("b", "10.2.0.3", "web"));
    sandbox.script.on("check", &refuse("frontend"));
    sandbox.sync(&[]).exits(1).says(&["cannot stand frontend"]);
    assert_eq!(sandbox.config(), before);
    assert!(sandbox.script.of("check").len() <= 5);
}

/// A sandbox whose HAProxy is a process of this host, already running its first config.
struct Host {
    haproxy: HostHaproxy,
    sandbox: Sandbox,
    runtime: bool,
    master: bool,
}

impl Host {
    #[track_caller]
    fn new(name: &str, runtime: bool, master: bool) -> Option<Host> {
        if left_out("haproxy") {
            return None;
        }
        let sandbox = Sandbox::new(name);
        let mut host = Host {
            haproxy: HostHaproxy::new(&sandbox.root, &sandbox.config_path()),
            sandbox,
            runtime,
            master,
        };
        host.sandbox.docker.add(serving("a", "10.2.0.2", "web"));
        // Nobody is there to load it yet; another test's HAProxy may be, which the script finds odd.
        host.run("sync", &[]);
        host.haproxy.start();
        host.sync();
        Some(host)
    }

    /// Our own options with the built-in script.
    fn options(&self) -> Vec<String> {
        let mut all: Vec<String> = [
            "--docker-host",
            &self.sandbox.docker.docker_host(),
            "--state-dir",
            &self.sandbox.state().display().to_string(),
            "--base",
            &self.haproxy.base().display().to_string(),
            "--weave",
            "never",
        ]
        .map(str::to_owned)
        .to_vec();
        let path = |path: std::path::PathBuf| path.display().to_string();
        if self.runtime {
            all.extend(["--haproxy-socket".to_owned(), path(self.haproxy.socket())]);
        }
        if self.master {
            all.extend(["--haproxy-master".to_owned(), path(self.haproxy.master())]);
        }
        all
    }

    fn run(&self, command: &str, more: &[&str]) -> Output {
        let options = self.options();
        let mut args = vec![command];
        args.extend(options.iter().map(String::as_str));
        args.extend(more);
        self.sandbox.bare(&args)
    }

    #[track_caller]
    fn sync(&self) -> Output {
        self.run("sync", &[]).exits(0)
    }

    #[track_caller]
    fn watch(&self) -> Running {
        self.watch_with(&[])
    }

    #[track_caller]
    fn watch_with(&self, more: &[&str]) -> Running {
        let options = self.options();
        let mut args = vec!["watch", "--resync", "0"];
        args.extend(options.iter().map(String::as_str));
        args.extend(more);
        let streams = self.sandbox.docker.streams();
        let watch = self.sandbox.spawn(self.sandbox.command(&args));
        self.sandbox.docker.wait_subscribed(streams + 1);
        watch
    }

    /// `sync` where a folder of the system is empty; `None` where that is left out on request.
    #[track_caller]
    fn sync_without(&self, folder: &str) -> Option<Output> {
        let options = self.options();
        let hide = "mount -t tmpfs none \"$0\" && exec \"$@\"";
        let isolated = |args: &[&str]| {
            let mut command = std::process::Command::new("unshare");
            command.args(["-m", "sh", "-c", hide, folder]).args(args);
            command.env("HOME", self.sandbox.root.join("home"));
            command
        };
        if tmpfs::left_out() {
            return None;
        }
        let tried = isolated(&[env!("CARGO_BIN_EXE_cosmonaut"), "--version"]).output();
        assert!(
            tried.is_ok_and(|tried| tried.status.success()),
            "to hide {folder} needs root and unshare"
        );
        let mut args = vec![env!("CARGO_BIN_EXE_cosmonaut"), "sync"];
        args.extend(options.iter().map(String::as_str));
        Some(self.sandbox.finish(isolated(&args)))
    }

    /// Waits until HAProxy itself has exactly these addresses in its service.
    #[track_caller]
    fn has(&self, addresses: &[&str]) {
        let mut last = Vec::new();
        let found = crate::support::deadline::poll(SOON, || {
            last = self.haproxy.servers();
            let mut seen: Vec<&str> = last
                .iter()
                .filter_map(|server| server.split_once(' '))
                .map(|(_, address)| address)
                .collect();
            seen.sort_unstable();
            (seen == addresses).then_some(())
        });
        assert!(found.is_some(), "HAProxy has {last:?}, not {addresses:?}");
    }

    /// The file and HAProxy agree; HAProxy has what is new first.
    #[track_caller]
    fn agrees(&self) {
        wait_for("the file and HAProxy to agree", SOON, || {
            let mut all = self.sandbox.routes().all();
            all.sort();
            let servers = self.haproxy.servers();
            let mut seen: Vec<&str> = servers
                .iter()
                .filter_map(|server| server.split_once(' '))
                .map(|(_, address)| address)
                .collect();
            seen.sort_unstable();
            (seen == all).then_some(())
        });
    }
}

#[test]
fn changes_of_servers_need_no_reload() {
    let Some(host) = Host::new("runtime", true, false) else {
        return;
    };
    host.has(&["10.2.0.2:80"]);
    let docker = &host.sandbox.docker;
    let mut watch = host.watch();
    let before = host.haproxy.reloads();
    docker.run(serving("b", "10.2.0.3", "web"));
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    watch.wait_log("without a reload", SOON);
    docker.stop("asteroid-a");
    host.has(&["10.2.0.3:80"]);
    docker.start("asteroid-a");
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    docker.restart("asteroid-b", Some("10.2.0.7"));
    host.has(&["10.2.0.2:80", "10.2.0.7:80"]);
    for at in 10..20 {
        docker.run(serving(&format!("n{at}"), &format!("10.2.0.{at}"), "web"));
    }
    for at in 10..20 {
        docker.kill(&format!("asteroid-n{at}"));
    }
    host.has(&["10.2.0.2:80", "10.2.0.7:80"]);
    assert_eq!(host.haproxy.reloads(), before, "no reload at all");
    host.agrees();
    // What has left is deleted.
    wait_for("maintenance to end", SOON, || {
        let state = host.haproxy.tell("show servers state be_web");
        (state.lines().filter(|line| line.contains("be_web")).count() == 2).then_some(())
    });
    // A new service is more than servers, and after its reload the socket serves again.
    docker.run(serving("s", "10.2.0.30", "shop"));
    host.has(&["10.2.0.2:80", "10.2.0.30:80", "10.2.0.7:80"]);
    assert_eq!(host.haproxy.reloads(), before + 1);
    docker.run(serving("s2", "10.2.0.31", "shop"));
    host.has(&["10.2.0.2:80", "10.2.0.30:80", "10.2.0.31:80", "10.2.0.7:80"]);
    assert_eq!(host.haproxy.reloads(), before + 1);
    host.agrees();
    // What HAProxy shows is the config of its last load, and that is known.
    let file = host.sandbox.config();
    assert!(!file.contains(&host.haproxy.fingerprint().expect("one")));
    watch.stop();
    host.sync();
    assert_eq!(host.haproxy.reloads(), before + 1);
    host.agrees();
}

/// The check is slower than all else together; who answers already need not wait for it.
#[test]
fn a_new_server_is_there_before_its_file_is_checked_and_goes_when_that_is_refused() {
    let Some(host) = Host::new("ahead", true, false) else {
        return;
    };
    let (docker, script) = (&host.sandbox.docker, &host.sandbox.script);
    let path = script.path().display().to_string();
    let mut watch = host.watch_with(&["--script", &path]);
    let before = host.haproxy.reloads();
    let go = host.sandbox.root.join("go");
    let wait = format!("while [ ! -e '{}' ]; do sleep 0.01; done", go.display());
    script.on("check", &wait);
    let file = host.sandbox.config();
    docker.run(serving("b", "10.2.0.3", "web"));
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    assert_eq!(host.sandbox.config(), file, "it is not checked yet");
    std::fs::write(&go, "").expect("a file");
    watch.wait_log("without a reload", SOON);
    host.agrees();
    // Refused, whatever is left out of it: nothing has changed in the end.
    let file = host.sandbox.config();
    std::fs::remove_file(&go).expect("removed");
    let refused = format!("{wait}; echo 'fatal errors found' >&2; status=1");
    script.on("check", &refused);
    docker.run(serving("c", "10.2.0.4", "web"));
    host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
    std::fs::write(&go, "").expect("a file");
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    watch.wait_log("fatal errors found", SOON);
    stays("what was accepted", Duration::from_millis(300), || {
        host.haproxy.servers().len() == 2
    });
    assert_eq!(host.sandbox.config(), file);
    assert_eq!(host.haproxy.reloads(), before);
    // It is tried again, and taken.
    script.well("check");
    host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
    wait_for("the file", SOON, || {
        host.sandbox.config().contains("10.2.0.4").then_some(())
    });
    host.agrees();
    assert_eq!(host.haproxy.reloads(), before);
    watch.stop();
}

/// The file cannot be written: HAProxy is not given and taken the server again with each try.
#[test]
fn a_new_server_does_not_come_and_go_while_the_disk_is_full() {
    if tmpfs::left_out() {
        return;
    }
    let Some(host) = Host::new("ahead-full", true, false) else {
        return;
    };
    let state = host.sandbox.state();
    let move_to = |from: &std::path::Path, to: &std::path::Path| {
        let copied = std::process::Command::new("cp")
            .arg("-a")
            .arg(from.join("."))
            .arg(to)
            .status();
        assert!(copied.is_ok_and(|status| status.success()));
    };
    let copy = host.sandbox.root.join("copy");
    std::fs::create_dir(&copy).expect("a folder");
    move_to(&state, &copy);
    let disk = Tmpfs::over(&state, 256);
    move_to(&copy, &state);
    let mut watch = host.watch();
    stays("nothing to do", Duration::from_millis(500), || true);
    let ballast = disk.fill();
    host.sandbox.docker.run(serving("b", "10.2.0.3", "web"));
    watch.wait_log("no space left", SOON);
    let shown = || {
        host.haproxy
            .tell("show servers state be_web")
            .contains("10.2.0.3")
    };
    // It may be there for a moment the first time, and is deleted when that is due.
    wait_for("the new server to be gone", SOON, || {
        (!shown()).then_some(())
    });
    stays("without the new server", Duration::from_secs(5), || {
        !shown()
    });
    std::fs::remove_file(ballast).expect("removed");
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    watch.stop();
    drop(disk);
}

/// What HAProxy has of a service that is held back is what was accepted of it, whatever way other changes take.
#[test]
fn a_service_that_is_held_back_gets_no_server_by_the_runtime_socket() {
    let Some(host) = Host::new("held-runtime", true, true) else {
        return;
    };
    let (docker, script) = (&host.sandbox.docker, &host.sandbox.script);
    script.on("check", &refuse_in_silence("10.2.0.9"));
    let path = script.path().display().to_string();
    let mut watch = host.watch_with(&["--script", &path]);
    let before = host.haproxy.reloads();
    docker.run(serving("bad", "10.2.0.9", "web"));
    watch.wait_log("refuses service web", SOON);
    docker.run(serving("s", "10.2.0.30", "zoo"));
    host.has(&["10.2.0.2:80", "10.2.0.30:80"]);
    assert_eq!(host.haproxy.reloads(), before + 1, "a new service");
    docker.run(serving("s2", "10.2.0.31", "zoo"));
    host.has(&["10.2.0.2:80", "10.2.0.30:80", "10.2.0.31:80"]);
    // One more of the service itself, with nothing wrong about it but its fellow.
    let checks = script.of("check").len();
    docker.run(serving("good", "10.2.0.10", "web"));
    wait_for("the changed service to be tried", SOON, || {
        (script.of("check").len() >= checks + 2).then_some(())
    });
    docker.run(serving("s3", "10.2.0.32", "zoo"));
    let held = [
        "10.2.0.2:80",
        "10.2.0.30:80",
        "10.2.0.31:80",
        "10.2.0.32:80",
    ];
    host.has(&held);
    // The last one that was accepted of it is kept: without it nobody could tell what HAProxy takes.
    docker.stop("asteroid-a");
    docker.run(serving("s4", "10.2.0.33", "zoo"));
    let held = [&held[..], &["10.2.0.33:80"]].concat();
    host.has(&held);
    stays("what was accepted", Duration::from_millis(500), || {
        host.haproxy.servers().len() == held.len()
    });
    host.agrees();
    script.well("check");
    host.has(&[
        "10.2.0.10:80",
        "10.2.0.30:80",
        "10.2.0.31:80",
        "10.2.0.32:80",
        "10.2.0.33:80",
        "10.2.0.9:80",
    ]);
    host.agrees();
    assert_eq!(host.haproxy.reloads(), before + 1, "all else were servers");
    watch.stop();
}

#[test]
fn sync_uses_the_runtime_socket_too_and_mends_what_it_finds() {
    let Some(mut host) = Host::new("runtime-sync", true, false) else {
        return;
    };
    let before = host.haproxy.reloads();
    host.sandbox.docker.add(serving("b", "10.2.0.3", "web"));
    host.sync();
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    assert_eq!(host.haproxy.reloads(), before);
    // Started again by somebody: it has the file, and shows its fingerprint.
    host.haproxy.kill();
    host.haproxy.start();
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    host.sandbox.docker.add(serving("c", "10.2.0.4", "web"));
    host.sync();
    host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
    assert_eq!(host.haproxy.reloads(), 0);
    // A drain that was cut short, a server that nobody knows, one that is missing: a reload mends it.
    let server = |ip: &str| {
        let all = host.haproxy.servers();
        let found = all.iter().find(|server| server.contains(ip));
        found
            .and_then(|server| server.split(' ').next())
            .expect("a server")
            .to_owned()
    };
    let first = server("10.2.0.2");
    let foreign = "add server be_web/foreign 10.9.9.9:80; set server be_web/foreign state ready";
    let maintenance = format!("set server {first} state maint");
    let deleted = format!("set server {first} state maint; del server {first}");
    for (reloads, command) in [foreign, &maintenance, &deleted].iter().enumerate() {
        host.haproxy.tell(command);
        host.sync().says(&["reload"]);
        host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
        assert_eq!(host.haproxy.reloads(), reloads as u64 + 1, "{command}");
    }
}

#[test]
fn a_stop_signal_drains_at_once_and_a_survivor_comes_back() {
    let Some(host) = Host::new("drain", true, false) else {
        return;
    };
    host.sandbox.docker.add(serving("b", "10.2.0.3", "web"));
    let watch = host.watch();
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    let before = host.haproxy.reloads();
    let docker = &host.sandbox.docker;
    docker.signal("asteroid-b", "1");
    stays("a HUP drains nobody", Duration::from_millis(500), || {
        host.haproxy.servers().len() == 2
    });
    docker.signal("asteroid-b", "15");
    host.has(&["10.2.0.2:80"]);
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    assert_eq!(host.haproxy.reloads(), before);
    watch.stop();
}

#[test]
fn a_haproxy_that_dies_is_told_apart_and_served_when_it_is_back() {
    for (runtime, master) in [(true, false), (false, true), (true, true)] {
        let Some(mut host) = Host::new("dies", runtime, master) else {
            return;
        };
        let mut watch = host.watch();
        host.haproxy.kill();
        host.sandbox.docker.run(serving("b", "10.2.0.3", "web"));
        watch.wait_log("not running", SOON);
        host.haproxy.start();
        host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
        host.sandbox.docker.run(serving("c", "10.2.0.4", "web"));
        host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
        assert!(!watch.stderr().contains("ERROR"), "{}", watch.stderr());
        watch.stop();
    }
}

#[test]
fn the_master_socket_reloads_without_a_script() {
    let Some(mut host) = Host::new("master", false, true) else {
        return;
    };
    let before = host.haproxy.reloads();
    // No shell, no docker, no haproxy in reach: as in an image with nothing but us.
    let options = host.options();
    let run = |code: i32| {
        let mut args = vec!["sync", "--script", "/nonexistent/script"];
        args.extend(options.iter().map(String::as_str));
        host.sandbox.bare(&args).exits(code)
    };
    host.sandbox.docker.add(serving("b", "10.2.0.3", "web"));
    run(1).says(&["/nonexistent/script", "hint"]);
    host.sync();
    assert_eq!(host.haproxy.reloads(), before + 1);
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    // HAProxy refuses what its check had not seen: put back, and live.
    let good = host.sandbox.config();
    host.sandbox.docker.add(serving("c", "10.2.0.4", "web"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("its port").port();
    let base = std::fs::read_to_string(host.haproxy.base()).expect("the base");
    let with_bind = format!("{base}    bind 127.0.0.1:{port}\n");
    std::fs::write(host.haproxy.base(), with_bind).expect("a worse base");
    let mut args = vec!["sync"];
    args.extend(options.iter().map(String::as_str));
    host.sandbox
        .bare(&args)
        .exits(1)
        .says(&["refused", "put back and is live"]);
    assert_eq!(host.sandbox.config(), good);
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    std::fs::write(host.haproxy.base(), base).expect("the base again");
    host.sync();
    host.has(&["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"]);
    host.haproxy.kill();
}

/// Without a shell for the script, or without the program of the HAProxy that runs, nothing can be checked; that
/// is said, and is no refusal.
#[test]
fn what_cannot_be_checked_is_not_refused() {
    for (folder, words) in [("/usr/bin", "no /bin/sh"), ("/usr/sbin", "cannot check")] {
        let Some(host) = Host::new("no-check", false, true) else {
            return;
        };
        let before = host.haproxy.reloads();
        host.sandbox.docker.add(serving("b", "10.2.0.3", "web"));
        let Some(output) = host.sync_without(folder) else {
            return;
        };
        let output = output.exits(0).says(&["installed unchecked", words]);
        assert!(!output.stderr.contains("refuse"), "{output}");
        host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
        assert_eq!(host.haproxy.reloads(), before + 1);
    }
}

/// Six services' containers, known to a watch; the list forgets most of them without a word.
#[test]
fn a_list_that_forgets_most_containers_is_not_believed_at_once() {
    let sandbox = Sandbox::new("shrink");
    let names: Vec<String> = (0..6).map(|at| format!("asteroid-n{at}")).collect();
    for (at, name) in names.iter().enumerate() {
        let ip = format!("10.2.0.{}", at + 2);
        sandbox
            .docker
            .add(Container::serving(name, &ip, "web", "web.example"));
    }
    let mut watch = sandbox.settled_watch(&[]);
    let all = sandbox.routes().all();
    assert_eq!(all.len(), 6);
    let lie = Reply::Raw(answer("200 OK", "application/json", "[]"));
    sandbox.docker.misbehave("/containers/json", 1, lie);
    let lists = sandbox.docker.count(|request| request.is_list());
    watch.signal("HUP");
    watch.wait_log("looking again", SOON);
    sandbox
        .docker
        .wait_requests("a second list", SOON, |requests| {
            requests.iter().filter(|one| one.is_list()).count() >= lists + 2
        });
    stays("the config", Duration::from_secs(1), || {
        sandbox.routes().all() == all
    });
    // What is really gone, though nobody said so, goes after the second look.
    for name in &names[..5] {
        sandbox.docker.with(name, |one| {
            one.status = crate::support::fake_docker::Status::Exited
        });
    }
    watch.signal("HUP");
    sandbox.wait_config("the one that is left", SOON, |routes| {
        routes.all() == ["10.2.0.7:80"]
    });
    // What events tell of goes at once.
    for (at, name) in names[..5].iter().enumerate() {
        let ip = format!("10.2.0.{}", at + 2);
        sandbox
            .docker
            .run(Container::serving(name, &ip, "web", "web.example"));
    }
    sandbox.wait_config("all again", SOON, |routes| routes.all().len() == 6);
    let looks = watch.stderr().matches("looking again").count();
    for name in &names {
        sandbox.docker.kill(name);
    }
    sandbox.wait_config("none", SOON, |routes| routes.all().is_empty());
    assert_eq!(watch.stderr().matches("looking again").count(), looks);
    watch.stop();
}

#[test]
fn a_second_look_does_not_wait_for_one_that_docker_cannot_tell_of() {
    let sandbox = Sandbox::new("shrink-broken");
    for at in 0..6 {
        sandbox.docker.add(serving(
            &format!("n{at}"),
            &format!("10.2.0.{}", at + 2),
            "web",
        ));
    }
    let mut watch = sandbox.settled_watch(&[]);
    let broken = sandbox.docker.id("asteroid-n0");
    let words = r#"{"message":"layer does not exist"}"#;
    let reply = Reply::Raw(answer(
        "500 Internal Server Error",
        "application/json",
        words,
    ));
    sandbox.docker.misbehave(&broken, usize::MAX, reply);
    for at in 0..6 {
        sandbox.docker.with(&format!("asteroid-n{at}"), |one| {
            one.status = crate::support::fake_docker::Status::Exited
        });
    }
    watch.signal("HUP");
    watch.wait_log("1 of the 6 are still there", SOON);
    sandbox.wait_config("the one that nobody can tell of", SOON, |routes| {
        routes.all() == ["10.2.0.2:80"]
    });
    watch.stop();
}

#[test]
fn a_failure_that_repeats_is_said_once() {
    let sandbox = Sandbox::new("repeats");
    sandbox.docker.add(serving("a", "10.2.0.2", "web"));
    let mut watch = sandbox.settled_watch(&[]);
    for (fragment, words, level) in [
        (
            "echo \"[ALERT] ($$) : no $$\" >&2; status=5",
            "[ALERT]",
            "error",
        ),
        ("echo 'nobody there' >&2; status=4", "not running", "warn"),
    ] {
        sandbox.script.on("reload", fragment);
        let before = sandbox.script.of("reload").len();
        let ip = if level == "error" {
            "10.2.0.3"
        } else {
            "10.2.0.4"
        };
        sandbox
            .docker
            .run(serving(&format!("for-{level}"), ip, "web"));
        watch.wait_log(words, SOON);
        sandbox.script.wait_reloads(before + 2, SOON);
        let said = watch.stderr();
        let lines = said.lines().filter(|line| line.contains(words)).count();
        assert_eq!(lines, 1, "{said}");
    }
    sandbox.script.well("reload");
    sandbox
        .script
        .wait_reload("everything", SOON, |call| call.config.contains("10.2.0.4"));
    watch.stop();
}

#[test]
fn a_container_that_flaps_is_held_out_and_others_are_not() {
    let sandbox = Sandbox::new("flaps");
    sandbox.docker.add(serving("calm", "10.2.0.2", "web"));
    sandbox.docker.add(serving("flaps", "10.2.0.3", "web"));
    let mut watch = sandbox.settled_watch(&["--settle", "1ms", "--settle-max", "10ms"]);
    for restart in 1..=6 {
        sandbox
            .docker
            .restart("asteroid-flaps", Some(&format!("10.2.1.{restart}")));
        if restart < 6 {
            let address = format!("10.2.1.{restart}:80");
            sandbox.wait_config("the restarted one", SOON, |routes| routes.has(&address));
        }
    }
    watch.wait_log("asteroid-flaps starts again and again", SOON);
    sandbox.wait_config("the calm one alone", SOON, |routes| {
        routes.all() == ["10.2.0.2:80"]
    });
    sandbox.docker.run(serving("new", "10.2.0.4", "web"));
    sandbox.wait_config("a new one at once", SOON, |routes| {
        routes.all() == ["10.2.0.2:80", "10.2.0.4:80"]
    });
    // It stays up now.
    sandbox.wait_config("the one that flapped", SOON, |routes| {
        routes.has("10.2.1.6:80")
    });
    watch.stop();
}

/// An address of this host that is not the loopback's, and a port of it that nobody listens on yet; `None` where that is
/// left out on request: with Docker there is its bridge.
#[track_caller]
fn port_of_this_host() -> Option<std::net::SocketAddr> {
    if left_out("docker") {
        return None;
    }
    // Each address, and below it what it is.
    let table = std::fs::read_to_string("/proc/net/fib_trie").expect("addresses");
    let lines = table.lines().zip(table.lines().skip(1));
    let ip = lines
        .filter(|(_, kind)| kind.trim() == "/32 host LOCAL")
        .filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse().ok())
        .find(|ip: &std::net::Ipv4Addr| !ip.is_loopback())
        .expect("this host has no address but the loopback's, and no Docker bridge");
    let listener = std::net::TcpListener::bind((ip, 0)).expect("a port");
    Some(listener.local_addr().expect("an address"))
}

#[test]
fn the_only_instance_of_a_service_waits_for_its_port() {
    let Some(address) = port_of_this_host() else {
        return;
    };
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let late = |name: &str| serving(name, &ip, "late").with_env("PORT", &port);
    for ready in ["8s", "0"] {
        let sandbox = Sandbox::new("ready");
        sandbox.docker.add(serving("old", "10.2.0.2", "web"));
        let watch = sandbox.settled_watch(&["--ready", ready]);
        sandbox.docker.run(late("slow"));
        // Another one of a service that has instances, and one whose health Docker checks, do not wait.
        sandbox.docker.run(serving("more", "10.2.0.3", "web"));
        sandbox
            .docker
            .run(serving("checked", "10.2.0.4", "checked").with_health("starting"));
        sandbox.docker.health("asteroid-checked", "healthy");
        sandbox.wait_config("those that do not wait", SOON, |routes| {
            routes.has("10.2.0.3:80") && routes.has("10.2.0.4:80")
        });
        let there = |sandbox: &Sandbox| sandbox.routes().has(&address.to_string());
        if ready == "0" {
            wait_for("all at once", SOON, || there(&sandbox).then_some(()));
            watch.stop();
            continue;
        }
        stays("it is held", Duration::from_millis(500), || {
            !there(&sandbox)
        });
        let listener = std::net::TcpListener::bind(address).expect("the port");
        wait_for("the one that is ready", SOON, || {
            there(&sandbox).then_some(())
        });
        drop(listener);
        watch.stop();
        // A pass that must end waits itself; and nobody waits for ever.
        sandbox
            .docker
            .run(serving("never", &ip, "never").with_env("PORT", &port));
        let begun = std::time::Instant::now();
        sandbox.sync(&["--ready", "700ms"]).exits(0).says(&[
            "asteroid-never",
            "accepted no connection",
            "700ms",
        ]);
        assert!(begun.elapsed() >= Duration::from_millis(700));
        assert_eq!(sandbox.routes().services["never"].len(), 1);
        assert_eq!(
            sandbox.routes().services["late"].len(),
            1,
            "it was there before"
        );
    }
}

#[test]
fn nobody_waits_for_one_that_is_not_ready() {
    let Some(address) = port_of_this_host() else {
        return;
    };
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let sandbox = Sandbox::new("ready-sync");
    sandbox
        .docker
        .add(serving("never", &ip, "late").with_env("PORT", &port));
    sandbox
        .docker
        .add(serving("checked", "10.2.0.4", "web").with_health("healthy"));
    let begun = std::time::Instant::now();
    let metrics = sandbox.root.join("metrics.prom");
    let options = [
        "--ready",
        "3s",
        "--metrics-file",
        &metrics.display().to_string(),
    ];
    let mut sync = sandbox.spawn(sandbox.usual_command("sync", &options));
    sandbox.wait_config("the one that is ready", SOON, |routes| {
        routes.all() == ["10.2.0.4:80"]
    });
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    let status = sync.ended(SOON).expect("it ends when the time is over");
    assert!(status.success());
    assert!(begun.elapsed() >= Duration::from_secs(3));
    assert_eq!(sandbox.routes().all().len(), 2);
    let page = Page::parse(&std::fs::read_to_string(metrics).expect("the metrics"));
    let applied = page.get("cosmonaut_passes_total{outcome=\"applied\"}");
    assert_eq!(applied, Some(2.0), "each pass counts");
}

/// Killed at any moment between two steps: the file is whole and HAProxy starts with it, HAProxy goes on
/// serving, and the next pass heals.
#[test]
fn killed_between_any_two_steps() {
    for runtime in [true, false] {
        let Some(host) = Host::new("killed", runtime, !runtime) else {
            return;
        };
        let options = host.options();
        let mut args = vec!["sync"];
        args.extend(options.iter().map(String::as_str));
        let mut cut_short = 0;
        for round in 0..20_u64 {
            let name = format!("n{}", round % 3);
            if round % 6 < 3 {
                let ip = format!("10.2.3.{}", round + 1);
                host.sandbox.docker.add(serving(&name, &ip, "web"));
            } else {
                host.sandbox.docker.remove(&format!("asteroid-{name}"));
            }
            let mut run = host.sandbox.spawn(host.sandbox.command(&args));
            let time = Duration::from_millis(8 * (round % 12));
            if run.ended(time).is_none() {
                cut_short += 1;
            }
            run.kill();
            let config = host.sandbox.config();
            assert!(
                config
                    .trim_end()
                    .lines()
                    .last()
                    .is_some_and(|line| line.contains("cosmonaut:"))
            );
            let check = std::process::Command::new(program())
                .args(["-c", "-q", "-f"])
                .arg(host.sandbox.config_path())
                .status();
            assert!(check.expect("haproxy is installed").success(), "{config}");
            assert!(host.haproxy.fingerprint().is_some(), "HAProxy serves");
            if round % 5 == 4 {
                host.sync();
                host.agrees();
            }
        }
        assert!(cut_short >= 5, "only {cut_short} runs were cut short");
        host.sync();
        host.agrees();
        // What a killed run had staged stays hidden, and is no config for HAProxy.
        let cfgs = std::fs::read_dir(host.sandbox.state())
            .expect("the state folder")
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().ends_with(".cfg"))
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'));
        for entry in cfgs {
            let name = entry.file_name();
            assert!(name == "haproxy.cfg" || name == "last-good.cfg", "{name:?}");
        }
    }
}

/// The socket is closed in the middle of a change: the file is right, and a reload makes it so.
#[test]
fn a_runtime_socket_that_breaks_off_ends_in_a_reload() {
    let Some(mut host) = Host::new("breaks", true, true) else {
        return;
    };
    let before = host.haproxy.reloads();
    // Nobody answers there any more; HAProxy itself is well.
    host.sandbox.docker.add(serving("b", "10.2.0.3", "web"));
    let moved = host.sandbox.root.join("elsewhere.sock");
    std::fs::rename(host.haproxy.socket(), &moved).expect("the socket moves");
    // The master's socket proves the reload then.
    host.sync();
    assert_eq!(host.haproxy.reloads(), before + 1);
    std::fs::rename(&moved, host.haproxy.socket()).expect("the socket is back");
    host.has(&["10.2.0.2:80", "10.2.0.3:80"]);
    host.haproxy.kill();
}
