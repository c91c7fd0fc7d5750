//! The command line from outside: what is refused before anything starts, and where words go.

use std::os::unix::ffi::OsStrExt;

use crate::support::fake_docker::Container;
use crate::support::sandbox::{Output, Sandbox};

/// Command lines that are wrong, and what the refusal must name.
const REFUSED: &[(&[&str], &[&str])] = &[
    (&[], &["sync", "watch"]),
    (&["snyc"], &["snyc", "sync"]),
    (&["wacth"], &["watch"]),
    (&["sync", "--keywrod", "x"], &["--keywrod", "--keyword"]),
    (&["sync", "--settel=1s"], &["--settel", "--settle"]),
    (&["sync", "watch"], &["watch"]),
    (&["sync", "--keyword"], &["--keyword"]),
    (&["sync", "--docker-host", ""], &["docker-host"]),
    (&["sync", "-H", "ftp://x"], &["ftp://x"]),
    (
        &["sync", "-H", "/var/run/docker.sock"],
        &["unix:///var/run/docker.sock"],
    ),
    (&["sync", "-H", "tcp://localhost:99999"], &["99999"]),
    (
        &["sync", "--cosmos-url", "http://c.example/api"],
        &["--cosmos-table"],
    ),
    (
        &["sync", "--cosmos-url", "not a url", "-t", "astro"],
        &["not a url"],
    ),
    (
        &["sync", "--cosmos-url", "ftp://c.example", "-t", "astro"],
        &["ftp://c.example"],
    ),
    (
        &[
            "sync",
            "-u",
            "http://c.example",
            "-t",
            "astro",
            "--cosmos-header",
            "no colon",
        ],
        &["cosmos-header"],
    ),
    (&["sync", "--script-timeout", "soon"], &["soon", "30s"]),
    (&["sync", "--settle", "5"], &["5", "ms"]),
    (&["sync", "--settle", "-1s"], &["settle"]),
    (
        &["sync", "--weave", "perhaps"],
        &["perhaps", "auto", "always", "never"],
    ),
    (
        &["sync", "--on-outage", "panic"],
        &["panic", "hold", "built-in"],
    ),
    (&["sync", "--log-level", "loud"], &["loud", "debug"]),
    (&["sync", "--log-format", "xml"], &["xml", "json"]),
    (&["sync", "stray"], &["stray"]),
    (
        &["sync", "--haproxy-socket", "run/haproxy.sock"],
        &["--haproxy-socket", "run/haproxy.sock", "HOST:PORT"],
    ),
    (
        &["sync", "--haproxy-master", "x:0"],
        &["--haproxy-master", "x:0"],
    ),
    (&["sync", "--weave-addr", "x:0"], &["x:0", "HOST:PORT"]),
    (&["sync", "-t", "status"], &["status", "taken"]),
    (
        &["sync", "-c", "/nowhere/h.cfg", "--base", "/nowhere/./h.cfg"],
        &["--base", "--config", "a file of its own"],
    ),
    (
        &["watch", "-c", "/proc/self/exe", "-s", "/proc/self/exe"],
        &["--script", "--config"],
    ),
    (
        &["plan", "-c", "h.cfg", "--metrics-file", "h.cfg"],
        &["--metrics-file", "--config"],
    ),
    (
        &["doctor", "--metrics-file", "b.cfg", "--base", "b.cfg"],
        &["--base", "--metrics-file"],
    ),
];

#[test]
fn a_wrong_command_line_is_named_and_starts_nothing() {
    let sandbox = Sandbox::new("usage");
    let mut wrong = Vec::new();
    for (args, words) in REFUSED {
        let output = sandbox.bare(args);
        wrong.extend(not_refused(&format!("{args:?}"), &output, words));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(sandbox.docker.requests().len(), 0);
    assert_eq!(sandbox.script.calls().len(), 0);
}

/// What is wrong with a refusal, one line a fault.
fn not_refused(name: &str, output: &Output, words: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    if output.code() != Some(2) {
        wrong.push(format!("{name}: {}, not exit code 2", output.status));
    }
    if !output.stdout.is_empty() {
        wrong.push(format!("{name}: wrote to stdout: {}", output.stdout));
    }
    for word in words {
        if !output.stderr.contains(word) {
            wrong.push(format!("{name}: does not name {word:?}: {}", output.stderr));
        }
    }
    wrong
}

/// Variables that are wrong: the refusal names the variable, not a flag that nobody wrote.
#[test]
fn a_wrong_variable_is_named() {
    let sandbox = Sandbox::new("usage-env");
    let mut wrong = Vec::new();
    for (variable, value) in [
        ("COSMONAUT_SETTLE", "soon"),
        ("COSMONAUT_LOG", "loud"),
        ("COSMONAUT_WEAVE", "perhaps"),
        ("DOCKER_HOST", "ftp://x"),
        ("COSMONAUT_COSMOS_URL", "not a url"),
        ("DOCKER_API_VERSION", "new"),
    ] {
        let mut command = sandbox.command(&["sync", "-t", "astro"]);
        command.env(variable, value);
        let output = sandbox.finish(command);
        wrong.extend(not_refused(
            &format!("{variable}={value}"),
            &output,
            &[variable, value],
        ));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(sandbox.docker.requests().len(), 0);
}

/// Another daemon than the one that is meant must not be taken.
#[test]
fn an_address_of_docker_that_is_no_text_is_refused() {
    let sandbox = Sandbox::new("no-text");
    let address = std::ffi::OsStr::from_bytes(b"\xff://x");
    let mut command = sandbox.command(&["sync"]);
    command.env("DOCKER_HOST", address);
    let wrong = not_refused("DOCKER_HOST", &sandbox.finish(command), &["DOCKER_HOST"]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn help_and_version_go_to_stdout() {
    let sandbox = Sandbox::new("help");
    for args in [
        &["--help"][..],
        &["-h"],
        &["help"],
        &["help", "watch"],
        &["sync", "--help"],
    ] {
        let output = sandbox.bare(args).exits(0);
        assert!(output.stdout.contains("cosmonaut"), "{args:?}; {output}");
        assert_eq!(output.stderr, "", "{args:?}");
    }
    let help = sandbox.bare(&["--help"]).stdout;
    for word in [
        "sync",
        "watch",
        "plan",
        "explain",
        "doctor",
        "status",
        "--cosmos-url",
        "COSMONAUT_COSMOS_URL",
        "--keyword",
        "asteroid",
        "--settle-max",
        "--haproxy-master",
        "COSMONAUT_LOG",
    ] {
        assert!(help.contains(word), "help does not show {word}:\n{help}");
    }
    for args in [&["-V"][..], &["--version"]] {
        let output = sandbox.bare(args).exits(0);
        assert_eq!(
            output.stdout.trim(),
            concat!("cosmonaut ", env!("CARGO_PKG_VERSION"))
        );
    }
    sandbox.bare(&["help", "snyc"]).exits(2).says(&["sync"]);
}

#[test]
fn flag_beats_environment_beats_default() {
    let sandbox = Sandbox::new("order");
    sandbox.docker.add(Container::serving(
        "comet-a",
        "10.1.0.2",
        "comet",
        "comet.example",
    ));
    sandbox.docker.add(Container::serving(
        "asteroid-a",
        "10.1.0.3",
        "asteroid",
        "asteroid.example",
    ));
    sandbox.docker.add(Container::serving(
        "meteor-a",
        "10.1.0.4",
        "meteor",
        "meteor.example",
    ));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.1.0.3:80"]);
    let mut command = sandbox.usual_command("sync", &[]);
    command.env("COSMONAUT_KEYWORD", "comet");
    sandbox.finish(command).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.1.0.2:80"]);
    let mut command = sandbox.usual_command("sync", &["-k", "meteor"]);
    command.env("COSMONAUT_KEYWORD", "comet");
    sandbox.finish(command).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.1.0.4:80"]);
}

#[test]
fn options_may_stand_before_the_command_and_docker_host_is_the_usual_variable() {
    let sandbox = Sandbox::new("before");
    sandbox.docker.add(Container::serving(
        "asteroid-a",
        "10.1.0.3",
        "web",
        "web.example",
    ));
    let state = sandbox.state().display().to_string();
    let script = sandbox.script.path().display().to_string();
    let mut command = sandbox.command(&[
        "--weave=never",
        "-s",
        &script,
        "sync",
        "--state-dir",
        &state,
    ]);
    command.env("DOCKER_HOST", sandbox.docker.docker_host());
    sandbox.finish(command).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.1.0.3:80"]);
}

#[test]
fn the_built_in_base_has_the_socket_however_it_is_spelled() {
    let sandbox = Sandbox::new("socket-spelling");
    for socket in ["/run/h.sock", "unix@/run/h.sock"] {
        let output = sandbox.run("plan", &["--haproxy-socket", socket]).exits(3);
        assert!(
            output.stdout.contains("stats socket '/run/h.sock' mode"),
            "{socket}: {output}"
        );
    }
    let output = sandbox.run("plan", &["--haproxy-socket", "127.0.0.1:99"]);
    assert!(!output.stdout.contains("stats socket"), "{output}");
}
