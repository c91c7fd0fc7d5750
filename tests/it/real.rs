//! The main job on a real Docker daemon and a real HAProxy in a container, with the built-in
//! reload script: what requests get is what counts.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::Duration;

use crate::support::deadline::{stays, wait_for};
use crate::support::real_docker::{BUSYBOX, Docker, haproxy_image, left_out};
use crate::support::sandbox::{Running, Sandbox};
use crate::support::tmpfs::Tmpfs;

/// How long a change may take to show in requests: docker's own commands, checks and a reload on a busy machine.
const SHOWN: Duration = Duration::from_secs(30);

/// A network with a HAProxy on it, and a folder with its config.
struct Site {
    sandbox: Sandbox,
    docker: Docker,
    network: String,
    haproxy: String,
}

impl Site {
    /// None when docker or haproxy is left out on request.
    #[track_caller]
    fn shared(name: &str) -> Option<Site> {
        (!left_out("docker") && !left_out("haproxy")).then(|| Site::on(name, Docker::shared(), &[]))
    }

    #[track_caller]
    fn on(name: &str, docker: Docker, haproxy_options: &[&str]) -> Site {
        let sandbox = Sandbox::new(name);
        let volume = format!("{}:/usr/local/etc/haproxy:ro", sandbox.state().display());
        Site::mounted(sandbox, docker, &volume, haproxy_options)
    }

    /// HAProxy's container has this volume with its config.
    #[track_caller]
    fn mounted(sandbox: Sandbox, docker: Docker, volume: &str, haproxy_options: &[&str]) -> Site {
        // HAProxy runs as another user in its container and must be able to read its folder.
        std::fs::set_permissions(sandbox.state(), std::fs::Permissions::from_mode(0o755))
            .expect("chmod");
        let network = docker.network("net");
        let mut site = Site {
            sandbox,
            network,
            haproxy: docker.name("haproxy"),
            docker,
        };
        // The first config comes before HAProxy and is there when it starts.
        site.sync(0);
        site.haproxy = site
            .docker
            .haproxy_with(&site.network, volume, haproxy_options);
        site.wait("an answer of HAProxy", |site| {
            (site.ask("nobody.example")? == (503, String::new())).then_some(())
        });
        site
    }

    /// Our own options: no recording script, the built-in one is what is tested.
    fn options(&self) -> Vec<String> {
        [
            "--docker-host",
            &self.docker.docker_host(),
            "--state-dir",
            &self.sandbox.state().display().to_string(),
            "--keyword",
            &self.docker.prefix,
            "--haproxy-container",
            &self.haproxy,
            "--weave",
            "never",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    #[track_caller]
    fn sync(&self, code: i32) {
        let options = self.options();
        let mut args = vec!["sync"];
        args.extend(options.iter().map(String::as_str));
        self.sandbox.bare(&args).exits(code);
    }

    #[track_caller]
    fn watch(&self) -> Running {
        let options = self.options();
        let mut args = vec!["watch", "--resync", "0"];
        args.extend(options.iter().map(String::as_str));
        self.sandbox.spawn(self.sandbox.command(&args))
    }

    /// One request through HAProxy; the body of an error page is left out.
    fn ask(&self, host: &str) -> Option<(u16, String)> {
        let ip = self.docker.address(&self.haproxy, &self.network)?;
        let (status, body) = self.docker.get(&ip, host)?;
        Some((status, if status == 200 { body } else { String::new() }))
    }

    #[track_caller]
    fn wait<T>(&self, what: &str, look: impl Fn(&Site) -> Option<T>) -> T {
        wait_for(
            &format!("{what}; the config:\n{}", self.sandbox.config()),
            SHOWN,
            || look(self),
        )
    }

    /// Waits until requests to a service reach exactly these containers.
    #[track_caller]
    fn reaches(&self, service: &str, names: &[&str]) {
        let expected: BTreeSet<String> = names.iter().map(|name| self.docker.name(name)).collect();
        let host = format!("{service}.example");
        self.wait(&format!("{service} to be served by {expected:?}"), |site| {
            let mut seen = BTreeSet::new();
            for _ in 0..(2 * expected.len()).max(2) {
                match site.ask(&host)? {
                    (200, name) => seen.insert(name),
                    (503, _) if expected.is_empty() => false,
                    _ => return None,
                };
            }
            (seen == expected).then_some(())
        });
    }

    #[track_caller]
    fn serve(&self, rest: &str, service: &str) {
        self.docker.serve(rest, &self.network, service, &[]);
    }
}

#[test]
fn sync_routes_real_requests() {
    let Some(site) = Site::shared("real-sync") else {
        return;
    };
    site.serve("web-1", "web");
    site.serve("web-2", "web");
    site.serve("api-1", "api");
    site.sync(0);
    site.reaches("web", &["web-1", "web-2"]);
    site.reaches("api", &["api-1"]);
    // A port in the Host header changes nothing, and a stranger gets 503.
    site.wait("an answer to web.example:80", |site| {
        (site.ask("web.example:80")?.0 == 200).then_some(())
    });
    assert_eq!(site.ask("stranger.example").map(|one| one.0), Some(503));
    let before = site.sandbox.config();
    site.sync(0);
    assert_eq!(site.sandbox.config(), before);
}

#[test]
fn watch_follows_real_lives() {
    let Some(site) = Site::shared("real-lives") else {
        return;
    };
    let watch = site.watch();
    let docker = &site.docker;
    let name = |rest: &str| docker.name(rest);
    site.serve("a", "web");
    site.reaches("web", &["a"]);
    site.serve("b", "web");
    site.reaches("web", &["a", "b"]);
    docker.run(&["stop", "-t", "5", &name("a")]);
    site.reaches("web", &["b"]);
    docker.run(&["start", &name("a")]);
    site.reaches("web", &["a", "b"]);
    docker.run(&["kill", &name("b")]);
    site.reaches("web", &["a"]);
    docker.run(&["start", &name("b")]);
    site.reaches("web", &["a", "b"]);
    docker.run(&["restart", "-t", "5", &name("a")]);
    site.reaches("web", &["a", "b"]);
    docker.run(&["pause", &name("b")]);
    site.reaches("web", &["a"]);
    docker.run(&["unpause", &name("b")]);
    site.reaches("web", &["a", "b"]);
    // Out of the keyword and back; the name in its page is the one it was started with.
    let elsewhere = docker.prefix.chars().rev().collect::<String>();
    docker.run(&["rename", &name("b"), &elsewhere]);
    site.reaches("web", &["a"]);
    docker.run(&["rename", &elsewhere, &name("b")]);
    site.reaches("web", &["a", "b"]);
    docker.run(&["network", "disconnect", &site.network, &name("a")]);
    site.reaches("web", &["b"]);
    docker.run(&["network", "connect", &site.network, &name("a")]);
    site.reaches("web", &["a", "b"]);
    docker.run(&["rm", "-f", &name("a")]);
    site.reaches("web", &["b"]);
    docker.run(&["rm", "-f", &name("b")]);
    site.reaches("web", &[]);
    watch.stop();
}

#[test]
fn twenty_containers_at_once() {
    let Some(site) = Site::shared("real-twenty") else {
        return;
    };
    let watch = site.watch();
    std::thread::scope(|scope| {
        for at in 0..20 {
            let site = &site;
            scope.spawn(move || site.serve(&format!("n{at}"), &format!("s{}", at / 2)));
        }
    });
    for service in 0..10 {
        let names = [format!("n{}", 2 * service), format!("n{}", 2 * service + 1)];
        site.reaches(&format!("s{service}"), &[&names[0], &names[1]]);
    }
    let all: Vec<String> = (0..20)
        .map(|at| site.docker.name(&format!("n{at}")))
        .collect();
    let mut args = vec!["rm", "-f"];
    args.extend(all.iter().map(String::as_str));
    site.docker.run(&args);
    for service in 0..10 {
        site.reaches(&format!("s{service}"), &[]);
    }
    watch.stop();
}

#[test]
fn haproxy_that_starts_later_or_again_is_served() {
    let Some(site) = Site::shared("real-again") else {
        return;
    };
    let watch = site.watch();
    site.serve("a", "web");
    site.reaches("web", &["a"]);
    site.docker.run(&["kill", &site.haproxy]);
    site.serve("b", "web");
    wait_for("the config for a HAProxy that is down", SHOWN, || {
        (site.sandbox.routes().all().len() == 2).then_some(())
    });
    site.docker.run(&["start", &site.haproxy]);
    site.reaches("web", &["a", "b"]);
    site.docker.run(&["kill", &site.docker.name("a")]);
    site.reaches("web", &["b"]);
    watch.stop();
}

/// The daemon goes and comes, by SIGKILL and by SIGTERM; addresses may move, and nobody helps.
#[test]
fn a_daemon_that_goes_and_comes_is_followed() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let docker = Docker::own(&[BUSYBOX, &haproxy_image()]);
    let always = ["--restart", "always"];
    let mut site = Site::on("real-dockerd", docker, &always);
    let mut watch = site.watch();
    for (name, service) in [("a", "web"), ("b", "web"), ("c", "api")] {
        site.docker.serve(name, &site.network, service, &always);
    }
    site.reaches("web", &["a", "b"]);
    site.reaches("api", &["c"]);
    for signal in ["KILL", "TERM"] {
        site.docker.end_daemon(signal);
        watch.still_runs();
        site.docker.start_daemon();
        site.reaches("web", &["a", "b"]);
        site.reaches("api", &["c"]);
        watch.still_runs();
    }
    // It still hears events, too.
    site.docker.run(&["kill", &site.docker.name("a")]);
    site.reaches("web", &["b"]);
    watch.stop();
}

/// The config is mounted into HAProxy's container as one file, which must stay the same one: it is written in
/// place, and that is said.
#[test]
fn a_config_that_is_mounted_alone_is_written_in_place() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let sandbox = Sandbox::new("real-alone");
    let config = sandbox.config_path();
    let volume = format!("{}:/usr/local/etc/haproxy/haproxy.cfg:ro", config.display());
    let site = Site::mounted(sandbox, Docker::shared(), &volume, &[]);
    let inode = || std::fs::metadata(&config).expect("the config").ino();
    let before = inode();
    let mut watch = site.watch();
    site.serve("a", "web");
    site.reaches("web", &["a"]);
    site.serve("b", "web");
    site.reaches("web", &["a", "b"]);
    site.docker.run(&["kill", &site.docker.name("a")]);
    site.reaches("web", &["b"]);
    assert_eq!(inode(), before, "the file is still the one that is mounted");
    watch.wait_log("written in place", SHOWN);
    assert_eq!(watch.stderr().matches("written in place").count(), 1);
    // What it was given is what it starts with.
    site.docker.run(&["restart", &site.haproxy]);
    site.reaches("web", &["b"]);
    assert_eq!(site.sandbox.leftovers(), [""; 0]);
    watch.stop();
}

/// The disk of the config is full: HAProxy serves on with what it has, and what is owed is done when there is room.
#[test]
fn a_full_disk_leaves_haproxy_serving() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let sandbox = Sandbox::new("real-full");
    let disk = Tmpfs::over(&sandbox.state(), 256);
    let volume = format!("{}:/usr/local/etc/haproxy:ro", sandbox.state().display());
    let site = Site::mounted(sandbox, Docker::shared(), &volume, &[]);
    let mut watch = site.watch();
    site.serve("a", "web");
    site.reaches("web", &["a"]);
    let before = site.sandbox.config();
    let ballast = disk.fill();
    site.serve("b", "web");
    site.serve("c", "api");
    watch.wait_log("no space left", SHOWN);
    stays("HAProxy serves what it has", Duration::from_secs(2), || {
        site.ask("web.example")
            .is_some_and(|(status, body)| status == 200 && body == site.docker.name("a"))
    });
    assert_eq!(site.sandbox.config(), before, "the file is whole");
    watch.still_runs();
    // It would start with it, too.
    site.docker.run(&["restart", &site.haproxy]);
    site.reaches("web", &["a"]);
    std::fs::remove_file(ballast).expect("removed");
    site.reaches("web", &["a", "b"]);
    site.reaches("api", &["c"]);
    watch.stop();
    // The folder goes with its sandbox, and cannot while something is mounted there.
    drop(disk);
    drop(site);
}
