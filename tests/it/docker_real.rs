//! Docker however it is reached: a real daemon over TLS, a real Podman, a real socket proxy, networks that break.
//! Parts that a machine lacks fail here with a sentence; COSMONAUT_TEST_WITHOUT leaves them out.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::deadline::{SOON, stays, wait_for};
use crate::support::fake_docker::Container;
use crate::support::real_docker::{BUSYBOX, Docker, inside, left_out};
use crate::support::real_podman::Podman;
use crate::support::sandbox::{Output, Running, Sandbox};

/// How long a change on a real daemon may take to show on a busy machine.
const SHOWN: Duration = Duration::from_secs(30);
/// How long we may need to find a daemon that answers again: its own start is not counted.
const FOUND_AGAIN: Duration = Duration::from_secs(2);

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A command with the options that every run needs but for the daemon's address, which the environment names.
fn command(
    sandbox: &Sandbox,
    action: &str,
    keyword: &str,
    environment: &[(&str, &str)],
) -> Command {
    let state = sandbox.state().display().to_string();
    let script = sandbox.script.path().display().to_string();
    let mut args = vec![action, "--state-dir", &state, "--script", &script];
    args.extend(["--weave", "never", "--keyword", keyword]);
    if action == "watch" {
        args.extend(["--resync", "0"]);
    }
    let mut command = sandbox.command(&args);
    command.envs(environment.iter().copied());
    command
}

/// How many lines of the log hold these words, but for those of debug and trace.
fn said(watch: &Running, words: &str) -> usize {
    let log = watch.stderr();
    log.lines()
        .filter(|line| !line.contains(" debug ") && !line.contains(" trace "))
        .filter(|line| line.contains(words))
        .count()
}

/// A folder of certificates as DOCKER_CERT_PATH names it, from these files of tests/data/tls.
fn certificates(sandbox: &Sandbox, name: &str, files: &[(&str, &str)]) -> String {
    let folder = sandbox.root.join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    for (from, to) in files {
        std::fs::copy(data("tls").join(from), folder.join(to)).expect("a certificate");
    }
    folder.display().to_string()
}

#[test]
fn a_real_daemon_over_tls() {
    if left_out("docker") || !cfg!(feature = "tls") {
        return;
    }
    let tls = |name: &str| data("tls").join(name).display().to_string();
    let mut docker = Docker::own_with(
        &[BUSYBOX],
        &[
            "--host",
            "tcp://0.0.0.0:2376",
            "--tlsverify",
            "--tlscacert",
            &tls("ca.pem"),
            "--tlscert",
            &tls("server.pem"),
            "--tlskey",
            &tls("server.key"),
        ],
    );
    let sandbox = Sandbox::new("tls");
    let network = docker.network("net");
    let first = docker.serve("a", &network, "web", &["--restart", "always"]);
    let own = ["ca.pem", "cert.pem", "key.pem"].map(|name| (name, name));
    let good = certificates(&sandbox, "good", &own);
    let bare = certificates(&sandbox, "bare", &own[..1]);
    let stranger = certificates(&sandbox, "stranger", &[("other-ca.pem", "ca.pem")]);
    let run = |action: &str, environment: &[(&str, &str)]| {
        docker.inside(command(&sandbox, action, &docker.prefix, environment))
    };
    let sync =
        |environment: &[(&str, &str)]| -> Output { sandbox.finish(run("sync", environment)) };
    let at = "tcp://127.0.0.1:2376";

    // What is wrong comes with the mend.
    for (host, folder, words) in [
        (
            at,
            stranger.as_str(),
            vec!["UnknownIssuer", "ca.pem is not the authority that signed"],
        ),
        (at, &bare, vec!["received fatal alert", "cert.pem"]),
        (
            "tcp://127.0.0.2:2376",
            &good,
            vec!["not valid for name", "subjectAltName=IP:127.0.0.2"],
        ),
        (at, "", vec!["HTTPS server", "DOCKER_TLS_VERIFY=1"]),
        (
            at,
            "/nonexistent",
            vec!["/nonexistent/ca.pem: no such file"],
        ),
    ] {
        sync(&[("DOCKER_HOST", host), ("DOCKER_CERT_PATH", folder)])
            .exits(1)
            .says(&words);
    }
    assert_eq!(sandbox.config(), "", "no daemon, no config");

    // By the environment, and by a context that the real docker command wrote.
    let environment = [
        ("DOCKER_HOST", at),
        ("DOCKER_TLS_VERIFY", "1"),
        ("DOCKER_CERT_PATH", good.as_str()),
    ];
    sync(&environment).exits(0);
    let address = |name: &str| {
        format!(
            "{}:8080",
            docker.address(name, &network).unwrap_or_default()
        )
    };
    assert_eq!(sandbox.routes().all(), [address(&first)]);
    let cli = sandbox.root.join("cli").display().to_string();
    let context = |args: &[&str]| {
        let output = Command::new("docker")
            .args(["--config", &cli, "context"])
            .args(args)
            .env_remove("DOCKER_HOST")
            .output()
            .expect("the docker command (package docker.io)");
        assert!(output.status.success(), "{output:?}");
    };
    let endpoint = format!("host={at},ca={good}/ca.pem,cert={good}/cert.pem,key={good}/key.pem");
    context(&["create", "lab", "--docker", &endpoint]);
    context(&["use", "lab"]);
    sync(&[("DOCKER_CONFIG", &cli)]).exits(0);
    let skipping = format!(
        "host=tcp://127.0.0.2:2376,ca={good}/ca.pem,cert={good}/cert.pem,key={good}/key.pem,skip-tls-verify=true"
    );
    context(&["create", "skips", "--docker", &skipping]);
    sync(&[("DOCKER_CONFIG", &cli), ("DOCKER_CONTEXT", "skips")]).exits(0);
    sync(&[("DOCKER_CONFIG", &cli), ("DOCKER_CONTEXT", "gone")])
        .exits(1)
        .says(&["gone", "docker context ls"]);

    // And it is followed, over a start and a restart of the daemon.
    let mut watch = sandbox.spawn(run("watch", &environment));
    watch.wait_log("following", SOON);
    let second = docker.serve("b", &network, "web", &["--restart", "always"]);
    let routed = |docker: &Docker, names: &[&str]| {
        let mut expected: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "{}:8080",
                    docker.address(name, &network).unwrap_or_default()
                )
            })
            .collect();
        expected.sort();
        sandbox.wait_config(&format!("{expected:?}"), SHOWN, |routes| {
            routes.all() == expected
        });
    };
    routed(&docker, &[&first, &second]);
    docker.end_daemon("KILL");
    docker.start_daemon();
    let third = docker.serve("c", &network, "web", &[]);
    routed(&docker, &[&first, &second, &third]);
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_real_podman_is_followed() {
    if left_out("podman") {
        return;
    }
    let mut podman = Podman::start();
    let sandbox = Sandbox::new("podman-real");
    let first = podman.serve("asteroid-a", &[]);
    let host = podman.docker_host();
    let environment = [("DOCKER_HOST", host.as_str())];
    let mut watch = sandbox.spawn(command(&sandbox, "watch", "asteroid", &environment));
    let routed = |what: &str, expected: &[&str]| {
        let mut expected: Vec<String> = expected.iter().map(|ip| format!("{ip}:80")).collect();
        expected.sort();
        sandbox.wait_config(&format!("{what}: {expected:?}"), SHOWN, |routes| {
            routes.all() == expected
        });
    };
    routed("what ran before", &[&first]);
    let second = podman.serve("asteroid-b", &[]);
    routed("a start", &[&first, &second]);
    podman.run(&["kill", "asteroid-a"]);
    routed("a death", &[&second]);
    podman.run(&["start", "asteroid-a"]);
    let first = podman.address("asteroid-a");
    routed("a start again", &[&first, &second]);
    podman.run(&["rm", "-f", "-t", "0", "asteroid-a"]);
    routed("rm -f", &[&second]);

    // One with a health check is routed when its check has passed, and not after it has failed.
    let health = [
        "--health-cmd",
        "/bin/busybox test -e /well",
        "--health-interval",
        "disable",
        "--health-retries",
        "1",
    ];
    let third = podman.serve("asteroid-h", &health);
    podman.run(&["exec", "asteroid-h", "/bin/busybox", "touch", "/well"]);
    podman.run(&["healthcheck", "run", "asteroid-h"]);
    routed("a healthy one", &[&second, &third]);
    podman.run(&["exec", "asteroid-h", "/bin/busybox", "rm", "/well"]);
    let _ = podman.try_run(&["healthcheck", "run", "asteroid-h"]);
    routed("an unhealthy one", &[&second]);

    // The service goes and comes; what happened meanwhile is found.
    podman.stop_service();
    podman.run(&["rm", "-f", "-t", "0", "asteroid-h"]);
    let fourth = podman.serve("asteroid-d", &[]);
    podman.start_service();
    let back = Instant::now();
    routed(
        "what happened while the service was away",
        &[&second, &fourth],
    );
    println!("found {:?} after the service was back", back.elapsed());

    // One that keeps no events is looked at; that is said once.
    podman.stop_service();
    podman.events("none");
    podman.start_service();
    watch.wait_log("ends its event stream at once", SHOWN);
    podman.run(&["rm", "-f", "-t", "0", "asteroid-d"]);
    routed("a container that went without an event", &[&second]);
    assert_eq!(said(&watch, "ends its event stream at once"), 1);
    assert_eq!(said(&watch, " error "), 0, "{}", watch.stderr());
    watch.still_runs();
    watch.stop();
}

/// A HAProxy as a socket proxy before a daemon; ended when dropped.
struct SocketProxy {
    child: Child,
    socket: PathBuf,
}

impl SocketProxy {
    #[track_caller]
    fn start(sandbox: &Sandbox, docker: &str, paths: &str, idle: &str) -> SocketProxy {
        let socket = sandbox.root.join("proxy.sock");
        let _ = std::fs::remove_file(&socket);
        let log = std::fs::File::create(sandbox.root.join("proxy.log")).expect("a log");
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin";
        let child = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(data("docker/least-privilege/haproxy.cfg"))
            .env("PATH", path)
            .env("PROXY_BIND", &socket)
            .env("PROXY_PATHS", paths)
            .env("PROXY_IDLE", idle)
            .env("DOCKER_SOCKET", docker.trim_start_matches("unix://"))
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("this test needs haproxy (COSMONAUT_TEST_WITHOUT=haproxy leaves it out)");
        let proxy = SocketProxy { child, socket };
        wait_for("the socket proxy", SOON, || {
            std::os::unix::net::UnixStream::connect(&proxy.socket).ok()
        });
        proxy
    }

    fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }
}

impl Drop for SocketProxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All that we need; the rule that the README gives.
const FOUR_PATHS: &str = "_ping|events|containers/json|containers/[a-zA-Z0-9_.-]+/json";

#[test]
fn a_real_daemon_behind_a_proxy_that_lets_four_paths_pass() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let docker = Docker::shared();
    let sandbox = Sandbox::new("least");
    let network = docker.network("net");
    // It cuts what is silent for a second: Docker's events mostly are.
    let proxy = SocketProxy::start(&sandbox, &docker.docker_host(), FOUR_PATHS, "1s");
    let host = proxy.host();
    let environment = [("DOCKER_HOST", host.as_str()), ("COSMONAUT_LOG", "debug")];
    let mut watch = sandbox.spawn(command(&sandbox, "watch", &docker.prefix, &environment));
    watch.wait_log("following", SOON);
    wait_for("three cuts of the idle stream", SOON, || {
        (watch.stderr().matches("event stream ended").count() >= 3).then_some(())
    });
    assert_eq!(
        said(&watch, "following"),
        1,
        "a routine end is not told: {}",
        watch.stderr()
    );
    let routed = |names: &[&str]| {
        let mut expected: Vec<String> = names
            .iter()
            .map(|name| {
                format!(
                    "{}:8080",
                    docker.address(name, &network).unwrap_or_default()
                )
            })
            .collect();
        expected.sort();
        sandbox.wait_config(&format!("{expected:?}"), SHOWN, |routes| {
            routes.all() == expected
        });
    };
    let first = docker.serve("a", &network, "web", &[]);
    let second = docker.serve("b", &network, "web", &[]);
    routed(&[&first, &second]);
    docker.run(&["kill", &first]);
    routed(&[&second]);
    for level in [" warn ", " error "] {
        assert_eq!(said(&watch, level), 0, "{}", watch.stderr());
    }
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_proxy_that_lets_less_pass_is_named_with_the_permission() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let docker = Docker::shared();
    let sandbox = Sandbox::new("less");
    for (paths, words) in [
        (
            "_ping|events",
            ["cannot list containers", "answer 403", "CONTAINERS=1"],
        ),
        (
            "_ping|containers/.*",
            ["cannot follow events", "answer 403", "EVENTS=1"],
        ),
    ] {
        let proxy = SocketProxy::start(&sandbox, &docker.docker_host(), paths, "1m");
        let host = proxy.host();
        let environment = [("DOCKER_HOST", host.as_str())];
        let mut watch = sandbox.spawn(command(&sandbox, "watch", "no-such-name", &environment));
        for word in words {
            watch.wait_log(word, SOON);
        }
        watch.still_runs();
        watch.stop();
    }
    // Without the ping it works all the same.
    let proxy = SocketProxy::start(
        &sandbox,
        &docker.docker_host(),
        "events|containers/.*",
        "1m",
    );
    let host = proxy.host();
    let environment = [("DOCKER_HOST", host.as_str())];
    let run = command(&sandbox, "sync", "no-such-name", &environment);
    sandbox.finish(run).exits(0);
}

/// Programs that stay until the end of a test.
struct Kept(Vec<Child>);

impl Kept {
    fn add(&mut self, program: &str, args: &[&str]) -> u32 {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let pid = child.id();
        self.0.push(child);
        pid
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
fn shell(line: &str) {
    let status = Command::new("/bin/sh").args(["-e", "-c", line]).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "this test needs root, ip (package iproute2) and nsenter (package util-linux): {line}"
    );
}

/// A network namespace that lives as long as `kept`.
fn namespace(kept: &mut Kept) -> String {
    let pid = kept.add(
        "unshare",
        &["--net", "sh", "-c", "ip link set lo up; exec cat"],
    );
    wait_for("a network namespace", SOON, || {
        let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (comm.trim() == "cat").then_some(())
    });
    format!("/proc/{pid}/ns/net")
}

/// The link to the daemon's host goes without a word, and comes back.
#[test]
fn a_half_open_connection_is_found_within_a_minute() {
    if left_out("haproxy") {
        return; // It needs socat, which comes with it.
    }
    let sandbox = Sandbox::new("half-open");
    sandbox.docker.add(Container::serving(
        "asteroid-a",
        "10.4.0.2",
        "web",
        "web.example",
    ));
    let mut kept = Kept(Vec::new());
    let (ours, theirs) = (namespace(&mut kept), namespace(&mut kept));
    let pid = theirs.split('/').nth(2).expect("a pid").to_owned();
    shell(&format!(
        "nsenter --net={ours} ip link add v0 type veth peer name v1 netns {pid}
         nsenter --net={ours} ip addr add 10.255.0.1/24 dev v0
         nsenter --net={ours} ip link set v0 up
         nsenter --net={theirs} ip addr add 10.255.0.2/24 dev v1
         nsenter --net={theirs} ip link set v1 up"
    ));
    let daemon = sandbox.docker.docker_host();
    let daemon = format!("UNIX-CONNECT:{}", daemon.trim_start_matches("unix://"));
    let net = format!("--net={theirs}");
    kept.add(
        "nsenter",
        &[&net, "socat", "TCP-LISTEN:2375,fork,reuseaddr", &daemon],
    );
    let environment = [
        ("DOCKER_HOST", "tcp://10.255.0.2:2375"),
        ("COSMONAUT_LOG", "debug"),
    ];
    let run = command(&sandbox, "watch", "asteroid", &environment);
    let mut watch = sandbox.spawn(inside(&ours, run));
    sandbox.wait_config("the first", SOON, |routes| routes.has("10.4.0.2:80"));
    stays("the first stream", Duration::from_millis(300), || {
        watch.stderr().matches("event stream ended").count() == 0
    });
    shell(&format!("nsenter {net} ip link set v1 down"));
    let down = Instant::now();
    // No event told of it, and nobody asked anything: only keepalive can find it.
    watch.wait_log("event stream ended", Duration::from_secs(60));
    println!("found {:?} after the link went", down.elapsed());
    watch.wait_log("the running config stands", SOON);
    sandbox.docker.add(Container::serving(
        "asteroid-b",
        "10.4.0.3",
        "web",
        "web.example",
    ));
    shell(&format!("nsenter {net} ip link set v1 up"));
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    assert_eq!(
        said(&watch, "the running config stands"),
        1,
        "{}",
        watch.stderr()
    );
    watch.still_runs();
    watch.stop();
}

/// A container in the host's network, on a host whose network comes later than we, and whose address is another one later.
#[test]
fn the_hosts_address_is_looked_up_again() {
    let sandbox = Sandbox::new("host-address");
    let mut on_host = Container::serving("asteroid-a", "", "web", "web.example");
    on_host.network_mode = "host".to_owned();
    on_host.networks.clear();
    sandbox.docker.add(on_host);
    let mut kept = Kept(Vec::new());
    let net = namespace(&mut kept);
    let plain = sandbox.usual_command("watch", &["--resync", "1s"]);
    let mut run = Command::new("nsenter");
    run.arg(format!("--net={net}"))
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .stdin(Stdio::null());
    for (key, value) in plain.get_envs() {
        run.env(key, value.unwrap_or_default());
    }
    let mut watch = sandbox.spawn(run);
    watch.wait_log("no address of the host is known", SOON);
    let inside = format!("nsenter --net={net}");
    for (address, line) in [
        (
            "192.0.2.2:80",
            "ip link add d0 type veth peer name d1; IN ip link set d0 up; IN ip link set d1 up; IN ip addr add 192.0.2.2/24 dev d0; IN ip route add default via 192.0.2.1",
        ),
        (
            "192.0.2.3:80",
            "ip addr flush dev d0; IN ip addr add 192.0.2.3/24 dev d0; IN ip route add default via 192.0.2.1",
        ),
    ] {
        shell(&format!("{inside} {}", line.replace("IN", &inside)));
        sandbox.wait_config("the host's address", SOON, |routes| {
            routes.all() == [address]
        });
    }
    watch.stop();
}

/// Nameservers that swallow every question.
#[test]
fn name_resolution_that_hangs_has_a_limit() {
    let sandbox = Sandbox::new("resolver");
    let resolv = sandbox.root.join("resolv.conf");
    std::fs::write(&resolv, "nameserver 192.0.2.53\nnameserver 192.0.2.54\n").expect("a file");
    let environment = [("DOCKER_HOST", "tcp://docker.cosmonaut.test:2375")];
    let plain = command(&sandbox, "sync", "asteroid", &environment);
    let line = format!(
        "ip link set lo up; ip link add d0 type veth peer name d1; ip addr add 192.0.2.2/24 dev d0; ip link set d0 up; ip link set d1 up; for ns in 53 54; do ip neigh add 192.0.2.$ns lladdr 02:00:00:00:00:$ns dev d0; done; mount --bind {} /etc/resolv.conf; exec \"$0\" \"$@\"",
        resolv.display()
    );
    let mut run = Command::new("unshare");
    run.args(["--net", "--mount", "sh", "-e", "-c", &line])
        .arg(plain.get_program())
        .args(plain.get_args())
        .env_clear()
        .current_dir(&sandbox.root)
        .stdin(Stdio::null());
    for (key, value) in plain.get_envs() {
        run.env(key, value.unwrap_or_default());
    }
    let begun = Instant::now();
    let output = sandbox.finish(run).exits(1);
    assert!(
        output
            .stderr
            .contains("docker.cosmonaut.test:2375: no nameserver answers"),
        "{output}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "it took {:?}",
        begun.elapsed()
    );
}

/// Over a Unix socket a daemon that is back is found soon, however long it was away.
#[test]
fn a_daemon_that_is_back_is_found_at_once_and_told_once() {
    let mut sandbox = Sandbox::new("back");
    sandbox.docker.add(Container::serving(
        "asteroid-a",
        "10.4.0.2",
        "web",
        "web.example",
    ));
    let mut watch = sandbox.settled_watch(&[]);
    assert_eq!(said(&watch, "following"), 1);
    // Away for a moment: nothing is said.
    sandbox.docker.stop_daemon();
    sandbox.docker.start_daemon();
    sandbox.docker.wait_subscribed(2);
    assert_eq!(watch.stderr().lines().count(), 2, "{}", watch.stderr());
    // Away for longer: said once, and once more when it is back.
    sandbox.docker.stop_daemon();
    watch.wait_log("the running config stands", SOON);
    stays("one line about it", Duration::from_secs(3), || {
        watch.stderr().lines().count() == 3
    });
    sandbox.docker.add(Container::serving(
        "asteroid-b",
        "10.4.0.3",
        "web",
        "web.example",
    ));
    sandbox.docker.manner(|manner| {
        // Another daemon: it does not speak the old version any more.
        manner.api_min = 44;
        manner.api_max = 52;
    });
    let asked = sandbox.docker.requests().len();
    sandbox.docker.start_daemon();
    let back = Instant::now();
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    assert!(back.elapsed() < FOUND_AGAIN, "it took {:?}", back.elapsed());
    wait_for("one line that it is back", SOON, || {
        (said(&watch, "following") == 2).then_some(())
    });
    let refused: Vec<String> = sandbox
        .docker
        .requests()
        .split_off(asked)
        .into_iter()
        .map(|request| request.target)
        .filter(|target| !target.starts_with("/v1.44/") && target != "/_ping")
        .collect();
    assert_eq!(
        refused, [""; 0],
        "the new version from the first question on"
    );
    watch.still_runs();
    watch.stop();
}

/// One of a hundred containers hangs: it costs the others one limit, once.
#[test]
fn one_that_hangs_among_a_hundred_costs_one_limit_once() {
    let web = |at: usize| {
        let ip = format!("10.5.{}.{}", at / 200, at % 200 + 2);
        Container::serving(&format!("asteroid-{at:03}"), &ip, "web", "web.example")
    };
    let hundred = |name: &str| {
        let sandbox = Sandbox::new(name);
        for at in 0..100 {
            sandbox.docker.add(web(at));
        }
        sandbox
    };
    // What the same costs on this machine now when nobody hangs.
    let plain = hundred("hundred-plain");
    let begun = Instant::now();
    plain.settled_watch(&[]).stop();
    let usual = begun.elapsed();
    let sandbox = hundred("hundred");
    let stuck = sandbox.docker.id("asteroid-050");
    let silence = crate::support::wire::Reply::Silence;
    sandbox
        .docker
        .misbehave(&stuck, usize::MAX, silence.clone());
    let begun = Instant::now();
    let mut watch = sandbox.settled_watch(&[]);
    assert_eq!(sandbox.routes().all().len(), 99);
    assert!(
        begun.elapsed() < Duration::from_secs(8) + usual * 3,
        "it took {:?}, and {usual:?} when nobody hangs",
        begun.elapsed()
    );
    // From now on it holds up nobody: neither a death nor a reconnect with a look at everything.
    let quick = |what: &str, servers: usize| {
        let begun = Instant::now();
        sandbox.wait_config(what, SOON, |routes| routes.all().len() == servers);
        assert!(
            begun.elapsed() < FOUND_AGAIN + usual * 3,
            "{what} took {:?}; a hundred that do not hang took {usual:?}",
            begun.elapsed()
        );
    };
    sandbox.docker.kill("asteroid-001");
    quick("a death", 98);
    // A new one that hangs, and a death in the same moment.
    let second = web(150);
    sandbox.docker.misbehave(&second.id, usize::MAX, silence);
    sandbox.docker.run(second);
    sandbox.docker.kill("asteroid-002");
    quick("a death beside a start that hangs", 97);
    sandbox.docker.add(web(160));
    sandbox.docker.end_streams(false);
    quick("a look at everything", 98);
    assert_eq!(
        said(&watch, "does not answer an inspect"),
        2,
        "{}",
        watch.stderr()
    );
    sandbox.docker.behave();
    sandbox.wait_config("those that hung", SHOWN, |routes| routes.all().len() == 100);
    watch.still_runs();
    watch.stop();
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok())
        .expect("VmRSS of a running process")
}

#[test]
fn a_storm_of_events_leaves_the_right_config_and_no_memory_behind() {
    const EVENTS: usize = 100_000;
    let sandbox = Sandbox::new("storm-100k");
    for at in 0..20 {
        let ip = format!("10.4.0.{}", at + 2);
        sandbox.docker.add(Container::serving(
            &format!("asteroid-{at}"),
            &ip,
            "web",
            "web.example",
        ));
    }
    let mut watch = sandbox.settled_watch(&["--script-timeout", "60s"]);
    let before = resident(watch.pid());
    // The script hangs meanwhile, so nothing is taken out of what gathers.
    let hold = sandbox.root.join("hold");
    std::fs::write(&hold, "").expect("a file");
    let wait = format!("while [ -e '{}' ]; do sleep 0.02; done", hold.display());
    sandbox.script.on("reload", &wait);
    let reloads = sandbox.script.of("reload").len();
    sandbox.docker.kill("asteroid-0");
    sandbox.script.wait_reloads(reloads + 1, SOON);
    let delivered = sandbox.docker.delivered();
    for at in 1..=20 {
        sandbox
            .docker
            .storm(&format!("asteroid-{}", at % 20), "unpause", EVENTS / 20);
    }
    sandbox.docker.kill("asteroid-1");
    sandbox.docker.wait_delivered(delivered + EVENTS, SHOWN);
    let in_storm = resident(watch.pid());
    std::fs::remove_file(&hold).expect("released");
    sandbox.wait_config("the end state", SHOWN, |routes| routes.all().len() == 18);
    let grown = in_storm.max(resident(watch.pid())).saturating_sub(before);
    assert!(grown < 8 << 10, "{grown} KiB more than before the storm");
    let more = sandbox.script.of("reload").len() - reloads;
    assert!(more <= 4, "{more} reloads");
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_stream_without_a_head_is_no_obstacle_to_the_end() {
    let sandbox = Sandbox::new("headless");
    sandbox
        .docker
        .misbehave("/events", usize::MAX, crate::support::wire::Reply::Silence);
    let mut watch = sandbox.watch(&[]);
    sandbox
        .docker
        .wait_requests("the subscription", SOON, |all| {
            all.iter().any(|request| request.is_events())
        });
    watch.signal("TERM");
    assert_eq!(watch.wait_exit(FOUND_AGAIN), 0, "{}", watch.stderr());
}
