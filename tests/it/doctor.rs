//! `cosmonaut doctor`: a host that is well, and the ten commonest mistakes, each found and mended in one command.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::fake_docker::{Container, Status};
use crate::support::host_haproxy::HostHaproxy;
use crate::support::real_docker::{Docker, left_out};
use crate::support::sandbox::{Output, Sandbox};
use crate::support::wire::Reply;

/// It promises to end within 20 s; the rest is a busy machine.
const LIMIT: Duration = Duration::from_secs(25);
/// A user who is not root.
const NOBODY: u32 = 65_534;

/// The line of a check with this verdict that holds all the words.
#[track_caller]
fn line<'a>(output: &'a Output, verdict: &str, check: &str, words: &[&str]) -> &'a str {
    let start = format!("{verdict:<4} {check}: ");
    let found = output
        .stdout
        .lines()
        .find(|line| line.starts_with(&start) && words.iter().all(|word| line.contains(word)));
    found.unwrap_or_else(|| panic!("no line {start:?} with {words:?} in\n{output}"))
}

/// A fake Docker with a HAProxy that has our folder mounted, and one service.
fn well(name: &str) -> Sandbox {
    let sandbox = Sandbox::new(name);
    haproxy(&sandbox, |container| container);
    sandbox.docker.add(web("asteroid-web-1"));
    sandbox
}

fn web(name: &str) -> Container {
    Container::serving(name, "10.2.0.2", "web", "web.example")
}

fn haproxy(sandbox: &Sandbox, change: impl FnOnce(Container) -> Container) {
    let state = sandbox.state().display().to_string();
    sandbox.docker.add(change(
        Container::new("haproxy", "10.2.0.9").with_mount(&state, "/usr/local/etc/haproxy"),
    ));
}

/// Runs it; it must exit 1, with the mistake in a `fail` line whose mend holds `mend`.
#[track_caller]
fn finds(sandbox: &Sandbox, more: &[&str], check: &str, words: &[&str], mend: &str) -> Output {
    let output = sandbox.run("doctor", more).exits(1);
    let found = line(&output, "fail", check, words);
    let said = found.split_once("; mend: ").expect("a fail has a mend").1;
    assert!(said.contains(mend), "the mend lacks {mend:?}: {found}");
    output
}

/// After the mend no line of this check fails.
#[track_caller]
fn is_mended(sandbox: &Sandbox, more: &[&str], check: &str) {
    let output = sandbox.run("doctor", more);
    let start = format!("fail {check}: ");
    assert!(
        !output.stdout.lines().any(|line| line.starts_with(&start)),
        "{output}"
    );
}

#[test]
fn a_host_that_is_well_is_said_to_be_and_nothing_is_changed() {
    let sandbox = well("doc-well");
    sandbox.sync(&[]).exits(0);
    let before = sandbox.config();
    let calls = sandbox.script.of("reload").len();
    let output = sandbox.run("doctor", &[]).exits(0);
    for (check, words) in [
        (
            "docker",
            &["(by --docker-host)", "API 1.41", "2 containers run"][..],
        ),
        ("docker-events", &[]),
        ("keyword", &["\"asteroid\"", "1 container"]),
        ("weave", &["never"]),
        (
            "services",
            &["1 routed in 1 service, 0 pending, 0 left out"],
        ),
        ("network", &["haproxy reaches 1 container"]),
        ("registry", &["built-in"]),
        ("state-dir", &["can be written"]),
        ("lock", &["no watch"]),
        ("config", &["of cosmonaut's making"]),
        ("script", &["accepts"]),
        ("haproxy", &["runs in the container haproxy"]),
        ("haproxy-file", &["mounted"]),
        ("haproxy-socket", &["none given"]),
    ] {
        line(&output, "ok", check, words);
    }
    assert!(!output.stdout.contains("fail "), "{output}");
    assert_eq!(sandbox.config(), before);
    assert_eq!(sandbox.script.of("reload").len(), calls);

    // The same as JSON, for machines: four fields each, in the same order.
    let json = sandbox.run("doctor", &["--json"]).exits(0);
    let all: Vec<Value> = serde_json::from_str(&json.stdout).expect("an array");
    assert_eq!(all[0]["check"], "docker");
    assert_eq!(all[0]["verdict"], "ok");
    assert!(all.iter().all(|one| {
        one.as_object().is_some_and(|one| one.len() == 4)
            && one["message"].is_string()
            && (one["mend"].is_null() == (one["verdict"] == "ok"))
    }));
}

#[test]
fn mistake_1_no_right_to_the_socket() {
    let sandbox = well("doc-rights");
    let socket = sandbox.root.join("d.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).expect("chmod");
    for folder in [&sandbox.root, &sandbox.state()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("chmod");
    }
    let mut command = sandbox.usual_command("doctor", &[]);
    command.uid(NOBODY).gid(NOBODY);
    let output = sandbox.finish(command).exits(1);
    line(
        &output,
        "fail",
        "docker",
        &["ermission denied", "usermod -aG docker"],
    );
}

#[test]
fn mistake_2_a_keyword_that_matches_nothing() {
    let sandbox = Sandbox::new("doc-keyword");
    haproxy(&sandbox, |container| container);
    sandbox.docker.add(web("shop-web-1"));
    sandbox.docker.add(web("shop-web-2"));
    sandbox.docker.add(Container::new("db", "10.2.0.7"));
    let words = ["\"asteroid\"", "shop-web-1, shop-web-2"];
    finds(&sandbox, &[], "keyword", &words, "--keyword shop-web");
    is_mended(&sandbox, &["--keyword", "shop-web"], "keyword");
    is_mended(&sandbox, &["--keyword", ""], "keyword");

    // A host on which no service runs yet is not ill.
    let sandbox = Sandbox::new("doc-none");
    haproxy(&sandbox, |container| container);
    let output = sandbox.run("doctor", &[]).exits(0);
    line(&output, "warn", "keyword", &["none runs"]);
}

#[test]
fn mistake_3_no_service_name() {
    let sandbox = well("doc-name");
    sandbox
        .docker
        .add(Container::new("asteroid-x", "10.2.0.3").with_env("SERVICENAME", "x"));
    let words = ["asteroid-x", "SERVICE_NAME is missing", "SERVICENAME"];
    finds(&sandbox, &[], "containers", &words, "docker run -e");
}

#[test]
fn mistake_4_a_port_on_which_nobody_listens() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let docker = Docker::shared();
    let network = docker.network("net");
    let sandbox = Sandbox::new("doc-port");
    let name = docker.serve("a", &network, "web", &["-e", "PORT=8081"]);
    let args = |keyword: &str| -> Vec<String> {
        [
            "doctor",
            "-H",
            &docker.docker_host(),
            "--keyword",
            keyword,
            "--weave",
            "never",
            "--state-dir",
            &sandbox.state().display().to_string(),
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let run = |args: Vec<String>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        sandbox.bare(&args)
    };
    let listens = crate::support::deadline::wait_for("the server to listen", LIMIT, || {
        let output = run(args(&docker.prefix));
        output
            .stdout
            .contains("it listens on 8080")
            .then_some(output)
    });
    let words = [
        name.as_str(),
        "refuses connections on port 8081",
        "PORT=8080",
    ];
    line(&listens.exits(1), "fail", "servers", &words);
    docker.run(&["rm", "-f", &name]);
    docker.serve("a", &network, "web", &[]);
    crate::support::deadline::wait_for("connections", LIMIT, || {
        let output = run(args(&docker.prefix));
        output
            .stdout
            .contains("ok   servers: 1 server takes connections")
            .then_some(())
    });
}

#[test]
fn mistake_5_haproxy_on_another_network() {
    let sandbox = Sandbox::new("doc-network");
    haproxy(&sandbox, |mut container| {
        container.networks.clear();
        container.network_mode = "edge".to_owned();
        container.with_network("edge", "10.9.0.2")
    });
    sandbox.docker.add(web("asteroid-web-1"));
    let words = [
        "haproxy is not on the network apps",
        "asteroid-web-1",
        "it is on edge",
    ];
    finds(
        &sandbox,
        &[],
        "network",
        &words,
        "docker network connect apps haproxy",
    );
    sandbox.docker.connect("haproxy", "apps", "10.2.0.9");
    is_mended(&sandbox, &[], "network");
}

#[test]
fn mistake_6_the_config_mounted_as_a_single_file() {
    let sandbox = Sandbox::new("doc-mount");
    let config = sandbox.config_path().display().to_string();
    sandbox.docker.add(web("asteroid-web-1"));
    sandbox.docker.add(
        Container::new("haproxy", "10.2.0.9")
            .with_mount(&config, "/usr/local/etc/haproxy/haproxy.cfg"),
    );
    sandbox.sync(&[]).exits(0);
    let mend = format!("-v {}:/usr/local/etc/haproxy ", sandbox.state().display());
    finds(&sandbox, &[], "haproxy-file", &["single file"], &mend);
    // Not mounted at all is as bad.
    sandbox
        .docker
        .with("haproxy", |container| container.mounts.clear());
    finds(
        &sandbox,
        &[],
        "haproxy-file",
        &["does not see"],
        &mend.replace("haproxy ", "haproxy:ro"),
    );
    let state = sandbox.state().display().to_string();
    sandbox.docker.with("haproxy", |container| {
        container.mounts = vec![(state, "/usr/local/etc/haproxy".to_owned())];
    });
    is_mended(&sandbox, &[], "haproxy-file");
}

#[test]
fn mistake_7_a_wrong_url_of_cosmos() {
    let sandbox = Sandbox::cosmos("doc-url");
    haproxy(&sandbox, |container| container);
    sandbox.docker.add(web("asteroid-web-1"));
    for (url, words) in [
        ("http://127.0.0.1:9/api", "refused"),
        (
            "http://no-such-host.invalid/api",
            "http://no-such-host.invalid/api",
        ),
    ] {
        let output = sandbox.run("doctor", &["--cosmos-url", url]).exits(1);
        let found = line(&output, "fail", "cosmos", &[words]);
        assert!(found.contains("; mend: "), "{found}");
    }
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    // Right host, wrong path: only a question can tell, and it is only put on request.
    let wrong = cosmos.url().replace("/api", "/nowhere");
    let output = sandbox
        .run("doctor", &["--cosmos-url", &wrong, "--ask"])
        .exits(1);
    line(&output, "fail", "cosmos-answer", &["403"]);

    let posts = || {
        let all = cosmos.requests();
        all.iter().filter(|one| one.method == "POST").count()
    };
    let asked = posts();
    let output = sandbox.run("doctor", &[]).exits(0);
    line(&output, "ok", "cosmos", &["within reach"]);
    line(&output, "ok", "cosmos-answer", &["not asked", "--ask"]);
    assert_eq!(posts(), asked, "nothing is stored unasked");
    let output = sandbox.run("doctor", &["--ask"]).exits(0);
    line(&output, "ok", "cosmos-answer", &["astro", "bytes"]);
    assert_eq!(posts(), asked + 1);
}

#[test]
fn mistake_8_haproxy_is_down() {
    let sandbox = well("doc-down");
    sandbox
        .docker
        .with("haproxy", |container| container.status = Status::Exited);
    finds(
        &sandbox,
        &[],
        "haproxy",
        &["down", "does not run"],
        "docker start haproxy",
    );
    sandbox
        .docker
        .with("haproxy", |container| container.status = Status::Paused);
    finds(
        &sandbox,
        &[],
        "haproxy",
        &["is paused"],
        "docker unpause haproxy",
    );
    sandbox
        .docker
        .with("haproxy", |container| container.status = Status::Running);
    is_mended(&sandbox, &[], "haproxy");
}

#[test]
fn mistake_9_two_services_with_one_predicate() {
    let sandbox = well("doc-predicate");
    sandbox.docker.add(Container::serving(
        "asteroid-b",
        "10.2.0.4",
        "other",
        "web.example",
    ));
    finds(
        &sandbox,
        &[],
        "predicates",
        &["web", "other", "web.example"],
        "a PREDICATE of its own",
    );
}

/// Both are routed: a slip of the finger perhaps, and no failure.
#[test]
fn names_that_differ_in_case_alone_are_a_warning() {
    let sandbox = well("doc-case");
    sandbox.sync(&[]).exits(0);
    sandbox.docker.add(Container::serving(
        "asteroid-b",
        "10.2.0.4",
        "Web",
        "other.example",
    ));
    let output = sandbox.run("doctor", &[]).exits(0);
    let found = line(&output, "warn", "service-names", &["Web and web"]);
    assert!(found.contains("SERVICE_NAME"), "{found}");
}

#[test]
fn mistake_10_weave_is_down() {
    let sandbox = well("doc-weave");
    let mut proxied = web("asteroid-w");
    proxied.entrypoint = "/w/w".to_owned();
    sandbox.docker.add(proxied);
    let weave = ["--weave", "auto", "--weave-addr", "127.0.0.1:9"];
    let words = ["1 container needs an address of Weave's", "127.0.0.1:9"];
    finds(&sandbox, &weave, "weave", &words, "weave launch");
    is_mended(&sandbox, &["--weave", "never"], "weave");
}

#[test]
fn files_and_script_are_looked_at() {
    let sandbox = well("doc-files");
    let at = |name: &str| sandbox.root.join(name).display().to_string();
    fs::write(at("plain"), "").expect("a file");
    fs::write(at("script.txt"), "#!/bin/sh\n").expect("a file");
    for (more, check, words, mend) in [
        (
            &["--state-dir", &at("plain/state")][..],
            "state-dir",
            "no folder",
            "--state-dir",
        ),
        (
            &["--config", &at("none/haproxy.cfg")],
            "config",
            "there is no folder",
            "mkdir -p",
        ),
        (
            &["--script", &at("none.sh")],
            "script",
            "cannot be found",
            "--script",
        ),
        (
            &["--script", &at("script.txt")],
            "script",
            "not executable",
            "chmod +x",
        ),
        (
            &["--haproxy-socket", "/no/such.sock"],
            "haproxy-socket",
            "/no/such.sock",
            "stats socket",
        ),
        (
            &["--haproxy-master", "nonsense"],
            "haproxy-master",
            "nonsense",
            "HOST:PORT",
        ),
        (&["--base", &at("none.cfg")], "base", "none.cfg", "--base"),
    ] {
        finds(&sandbox, more, check, &[words], mend);
    }
    // A config of somebody else is worth a copy before it is replaced.
    fs::write(at("own.cfg"), "global\n").expect("a file");
    let output = sandbox.run("doctor", &["--config", &at("own.cfg")]);
    line(
        &output,
        "warn",
        "config",
        &["not of cosmonaut's making", ".before"],
    );
    sandbox
        .script
        .on("check", "echo 'bad line 7' >&2; status=1");
    finds(
        &sandbox,
        &["--config", &at("own.cfg")],
        "script",
        &["bad line 7"],
        "cosmonaut sync",
    );
    sandbox
        .script
        .on("check", "echo 'no haproxy' >&2; status=3");
    let output = sandbox.run("doctor", &["--config", &at("own.cfg")]);
    line(&output, "warn", "script", &["no haproxy"]);
}

#[test]
fn containers_that_docker_does_not_tell_of_are_named_together() {
    let sandbox = well("doc-hangs");
    sandbox.sync(&[]).exits(0);
    for name in ["asteroid-b", "asteroid-c"] {
        sandbox.docker.add(web(name));
        let id = sandbox.docker.id(name);
        sandbox.docker.misbehave(&id, usize::MAX, Reply::Silence);
    }
    let words = ["does not tell of asteroid-b, asteroid-c", "in time"];
    let output = finds(&sandbox, &[], "containers", &words, "docker inspect");
    line(&output, "ok", "services", &["1 routed"]);
}

#[test]
fn it_ends_in_time_where_nothing_answers() {
    let sandbox = Sandbox::new("doc-silent");
    sandbox.docker.misbehave("/", 1_000, Reply::Silence);
    sandbox.script.on("check", "sleep 60");
    fs::write(sandbox.config_path(), "global\n").expect("a file");
    let began = Instant::now();
    let output = sandbox
        .run("doctor", &["--haproxy-socket", "/no/such.sock"])
        .exits(1);
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
    line(&output, "fail", "docker", &[]);
    line(&output, "fail", "script", &["still running"]);
}

/// A real HAProxy in a container, with our folder mounted and with the file alone.
#[test]
fn a_real_container_of_haproxy_is_looked_into() {
    if left_out("docker") || left_out("haproxy") {
        return;
    }
    let docker = Docker::shared();
    let network = docker.network("net");
    let sandbox = Sandbox::new("doc-real");
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o755)).expect("chmod");
    docker.serve("a", &network, "web", &[]);
    let haproxy = docker.name("haproxy");
    let run = |command: &str| {
        let mut args = vec![command.to_owned()];
        let state = sandbox.state().display().to_string();
        let host = docker.docker_host();
        args.extend(
            [
                "-H",
                &host,
                "--keyword",
                &docker.prefix,
                "--weave",
                "never",
                "--state-dir",
                &state,
                "--haproxy-container",
                &haproxy,
            ]
            .map(str::to_owned),
        );
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        sandbox.bare(&args)
    };
    run("sync");
    docker.haproxy(&network, &sandbox.state(), &[]);
    let output = crate::support::deadline::wait_for("HAProxy to be well", LIMIT, || {
        let output = run("doctor");
        (output.code() == Some(0)).then_some(output)
    });
    line(&output, "ok", "haproxy-file", &["it reads", "haproxy.cfg"]);
    line(&output, "ok", "script", &["accepts"]);
    line(&output, "ok", "network", &[&haproxy]);

    docker.run(&["rm", "-f", &haproxy]);
    let volume = format!(
        "{}:/usr/local/etc/haproxy/haproxy.cfg:ro",
        sandbox.config_path().display()
    );
    let image = crate::support::real_docker::haproxy_image();
    docker.start("haproxy", &["--network", &network, "-v", &volume, &image]);
    let output = run("doctor").exits(0);
    line(
        &output,
        "warn",
        "haproxy-file",
        &["single file", "in place", "mount its folder"],
    );
    // Somebody has put another file in its place: the container has the old one.
    let other = sandbox.state().join("other");
    fs::copy(sandbox.config_path(), &other).expect("a copy");
    fs::rename(&other, sandbox.config_path()).expect("in its place");
    let output = run("doctor").exits(1);
    line(
        &output,
        "fail",
        "haproxy-file",
        &["single file", "mount its folder"],
    );
}

/// A real HAProxy of this host: its sockets, its version, what it shows against what the file says.
#[test]
fn a_haproxy_of_the_host_is_asked_on_its_sockets() {
    if left_out("haproxy") {
        return;
    }
    let sandbox = Sandbox::new("doc-host");
    let mut haproxy = HostHaproxy::new(&sandbox.root, &sandbox.config_path());
    let path = |path: std::path::PathBuf| path.display().to_string();
    let run = |command: &str, runtime: bool| {
        let mut args = vec![
            command.to_owned(),
            "-H".to_owned(),
            sandbox.docker.docker_host(),
            "--state-dir".to_owned(),
            path(sandbox.state()),
            "--base".to_owned(),
            path(sandbox.root.join("base.cfg")),
            "--weave".to_owned(),
            "never".to_owned(),
            "--haproxy-master".to_owned(),
            path(sandbox.root.join("m.sock")),
        ];
        if runtime {
            args.extend([
                "--haproxy-socket".to_owned(),
                path(sandbox.root.join("h.sock")),
            ]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        sandbox.bare(&args)
    };
    sandbox.docker.add(web("asteroid-a"));
    run("sync", true);
    let output = run("doctor", true).exits(1);
    // Another HAProxy of this machine may be taken for one that reads the wrong file.
    line(&output, "fail", "haproxy", &["haproxy.cfg"]);
    haproxy.start();
    run("sync", true).exits(0);
    let first = sandbox.config();
    let output = run("doctor", true).exits(0);
    line(&output, "ok", "haproxy", &["runs on this host as process"]);
    line(&output, "ok", "haproxy-file", &["it reads"]);
    line(&output, "ok", "haproxy-version", &["HAProxy "]);
    line(&output, "ok", "fingerprint", &["runs what"]);
    line(&output, "ok", "haproxy-socket", &["h.sock answers"]);
    line(&output, "ok", "haproxy-master", &["m.sock answers"]);

    // A change by the runtime socket, after which HAProxy still shows what it loaded.
    let mut second = web("asteroid-b");
    second.networks.clear();
    sandbox.docker.add(second.with_network("apps", "10.2.0.3"));
    run("sync", true).exits(0);
    let output = run("doctor", true).exits(0);
    line(&output, "ok", "fingerprint", &["runs what"]);

    // A reload, and then somebody puts the old file back.
    sandbox.docker.add(Container::serving(
        "asteroid-c",
        "10.2.0.4",
        "api",
        "api.example",
    ));
    run("sync", false).exits(0);
    fs::write(sandbox.config_path(), first).expect("a file");
    let output = run("doctor", true).exits(1);
    line(
        &output,
        "fail",
        "fingerprint",
        &["HAProxy runs the config", "cosmonaut sync"],
    );
    haproxy.kill();
    let output = run("doctor", true).exits(1);
    line(&output, "fail", "haproxy-socket", &["stats socket"]);
    line(&output, "fail", "haproxy-master", &["-S"]);
}
