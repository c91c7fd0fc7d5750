//! What the operator is told: explain, plan, status, history, rollback, resume, the log's fields, metrics.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::deadline::{SOON, stays, wait_for};
use crate::support::fake_docker::{Container, Status};
use crate::support::metrics::Page;
use crate::support::sandbox::{Output, Sandbox};
use crate::support::wire::Reply;

fn web(name: &str, ip: &str) -> Container {
    Container::serving(name, ip, "web", "web.example")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("no JSON: {e}; {output}"))
}

/// What stands in the state folder, with its content, to see that nothing was changed.
fn files(sandbox: &Sandbox) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let mut folders = vec![sandbox.state()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let bytes = fs::read(&path).expect("a file");
                all.push((path.display().to_string(), bytes));
            }
        }
    }
    all.sort();
    all
}

/// A host with a container of every kind.
fn mixed(name: &str) -> Sandbox {
    let sandbox = Sandbox::new(name);
    let docker = &sandbox.docker;
    docker.add(web("asteroid-a", "10.7.0.2").with_exposed("8080/tcp"));
    docker.add(
        Container::serving("asteroid-label", "10.7.0.3", "api", "api")
            .with_env("PORT", "81")
            .with_label("cosmonaut.port", "9000")
            .with_label("cosmonaut.config-mode", "path"),
    );
    docker.add(web("asteroid-bad", "10.7.0.4").with_env("PORT", "80a"));
    docker.add(Container::new("asteroid-none", "10.7.0.5").with_env("SERVICENAME", "web"));
    docker.add(web("asteroid-off", "10.7.0.6").with_label("cosmonaut.enable", "false"));
    docker.add(
        web("asteroid-sick", "10.7.0.7")
            .with_exposed("8080/tcp")
            .with_health("unhealthy"),
    );
    docker.add(web("asteroid-late", "10.7.0.8").with_status(Status::Exited));
    docker.add(Container::serving(
        "asteroid-rival",
        "10.7.0.9",
        "rival",
        "web.example",
    ));
    docker.add(
        Container::serving("asteroid-port", "10.7.0.12", "port", "port.example")
            .with_exposed("5000/tcp")
            .with_env("PORT", "81"),
    );
    docker.add(web("planet-x", "10.7.0.10"));
    docker.add(Container::new("database", "10.7.0.11"));
    sandbox
}

#[test]
fn explain_tells_what_decided_each_container() {
    let sandbox = mixed("explain");
    let output = sandbox.run("explain", &[]).exits(0);
    assert_eq!(output.stderr, "", "the answer is on stdout");
    let id = |name: &str| sandbox.docker.id(name)[..12].to_owned();
    for expected in [
        format!(
            "asteroid-a ({0}): routed\n    because      its name holds \"asteroid\" (--keyword) and it describes a service\n    \
             SERVICE_NAME web  [variable SERVICE_NAME]\n    PREDICATE    web.example  [variable PREDICATE]\n    \
             CONFIG_MODE  host  [default]\n    PORT         8080  [default: the only exposed TCP port]\n    \
             address      10.7.0.2:8080  [network apps]\n    haproxy.cfg  backend be_web, server {0}\n",
            id("asteroid-a")
        ),
        "PORT         9000  [label cosmonaut.port, beats the variable's \"81\"]".to_owned(),
        "CONFIG_MODE  path  [label cosmonaut.config-mode]".to_owned(),
        format!(
            "asteroid-bad ({}): left out\n    because      PORT=\"80a\": want a number from 1 to 65535",
            id("asteroid-bad")
        ),
        "PORT         80  [default: no TCP port is exposed]".to_owned(),
        "note         it exposes TCP port 5000, but requests go to 81: is PORT right?".to_owned(),
        "because      SERVICE_NAME is missing".to_owned(),
        "is \"SERVICENAME\" meant to be it?".to_owned(),
        "because      its label cosmonaut.enable is false".to_owned(),
        "because      its health check fails".to_owned(),
        "conflict: services rival and web both claim host web.example".to_owned(),
        "not monitored: 2 more running (database, planet-x)".to_owned(),
    ] {
        assert!(
            output.stdout.contains(&expected),
            "no {expected:?}; {output}"
        );
    }
    assert!(!output.stdout.contains("asteroid-late"), "{output}");
    // What it says is what a pass does.
    sandbox.sync(&[]).exits(0);
    let explained = json(&sandbox.run("explain", &["--json"]).exits(0));
    let mut routed: Vec<&str> = explained["containers"]
        .as_array()
        .expect("containers")
        .iter()
        .filter_map(|one| one["route"]["address"].as_str())
        .collect();
    routed.sort_unstable();
    assert_eq!(sandbox.routes().all(), routed);
}

#[test]
fn explain_of_one_container_monitored_or_not_running_or_not() {
    let sandbox = mixed("explain-one");
    for (name, verdict, because) in [
        ("asteroid-a", "routed", "its name holds"),
        ("asteroid-sick", "left out", "health check"),
        ("asteroid-late", "left out", "it is not running"),
        ("planet-x", "left out", "does not hold the keyword"),
    ] {
        for name in [name, &sandbox.docker.id(name)] {
            let one = json(&sandbox.run("explain", &[name, "--json"]).exits(0));
            let all = one["containers"].as_array().expect("containers");
            assert_eq!(all.len(), 1, "{one}");
            assert_eq!(all[0]["verdict"], verdict, "{one}");
            let words = all[0]["because"].as_str().expect("why");
            assert!(words.contains(because), "{name}: {words}");
            assert_eq!(all[0]["settings"][0]["value"], "web", "{one}");
        }
    }
    // Only what touches it is told with it.
    let one = json(&sandbox.run("explain", &["asteroid-a", "--json"]).exits(0));
    assert_eq!(one["conflicts"].as_array().map(Vec::len), Some(1), "{one}");
    let other = json(
        &sandbox
            .run("explain", &["asteroid-label", "--json"])
            .exits(0),
    );
    assert_eq!(
        other["conflicts"].as_array().map(Vec::len),
        Some(0),
        "{other}"
    );
    sandbox
        .run("explain", &["asteroid-ab"])
        .exits(1)
        .says(&["asteroid-ab", "did you mean asteroid-a?"]);
}

#[test]
fn a_service_without_a_server_is_told_as_its_registry_routes_it() {
    for (sandbox, told, there) in [
        (
            Sandbox::new("no-server"),
            "backend be_web answers 503",
            true,
        ),
        (
            Sandbox::cosmos("no-server-cosmos"),
            "Cosmos leaves its rules out",
            false,
        ),
    ] {
        sandbox
            .docker
            .add(web("asteroid-a", "10.7.0.2").with_health("unhealthy"));
        let output = sandbox.run("explain", &[]).exits(0);
        assert!(output.stdout.contains(told), "{output}");
        sandbox.sync(&[]).exits(0);
        assert_eq!(sandbox.routes().services.contains_key("web"), there);
    }
}

#[test]
fn a_value_from_a_container_cannot_steer_the_terminal() {
    let sandbox = Sandbox::new("explain-escape");
    sandbox
        .docker
        .add(web("asteroid-a", "10.7.0.2").with_env("COOKIE", "x\x1b[2Jy"));
    let output = sandbox.run("explain", &[]).exits(0);
    assert!(output.stdout.contains("\\u{1b}[2Jy"), "{output}");
    assert!(!output.stdout.contains('\x1b'), "{output}");
}

#[test]
fn containers_that_hang_cost_explain_and_plan_seconds_and_are_named() {
    let sandbox = Sandbox::new("explain-hangs");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    for at in 0..5 {
        sandbox.docker.add(web(
            &format!("asteroid-z{at}"),
            &format!("10.7.0.{}", at + 3),
        ));
    }
    sandbox.sync(&[]).exits(0);
    for at in 0..5 {
        let id = sandbox.docker.id(&format!("asteroid-z{at}"));
        sandbox.docker.misbehave(&id, usize::MAX, Reply::Silence);
    }
    for (command, told) in [("explain", "Docker does not tell of it"), ("plan", "stays")] {
        let begun = Instant::now();
        let output = sandbox.run(command, &[]).exits(0);
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "{command} took {took:?}");
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(said.matches(told).count(), 5, "{output}");
    }
}

#[test]
fn explain_and_plan_change_nothing() {
    let sandbox = mixed("look-only");
    fs::remove_dir_all(sandbox.state()).expect("no state folder at all");
    sandbox.run("explain", &[]).exits(0);
    sandbox.run("plan", &[]).exits(3);
    assert!(!sandbox.state().exists(), "no state folder is made");
    sandbox.sync(&[]).exits(0);
    sandbox
        .docker
        .add(web("asteroid-new", "10.7.0.20").with_exposed("8080/tcp"));
    let (before, calls) = (files(&sandbox), sandbox.script.order());
    sandbox.run("explain", &[]).exits(0);
    sandbox.run("plan", &[]).exits(3);
    sandbox.run("status", &[]).exits(1);
    sandbox.run("history", &[]).exits(0);
    assert_eq!(files(&sandbox), before);
    assert_eq!(sandbox.script.order(), calls, "the script is not asked");
}

#[test]
fn plan_is_the_diff_that_a_pass_makes() {
    let sandbox = Sandbox::new("plan");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    let first = sandbox.run("plan", &[]).exits(3);
    assert!(
        first.stdout.contains("--- /dev/null\n") && first.stdout.contains("+backend be_web\n"),
        "{first}"
    );
    sandbox.sync(&[]).exits(0);
    let nothing = sandbox.run("plan", &[]).exits(0);
    assert_eq!(
        nothing.stdout,
        "# HAProxy would be told nothing: it runs this config already.\n"
    );
    sandbox.docker.add(web("asteroid-b", "10.7.0.3"));
    let planned = sandbox.run("plan", &[]).exits(3);
    let before = sandbox.root.join("before.cfg");
    fs::copy(sandbox.config_path(), &before).expect("a copy");
    let added: Vec<&str> = planned
        .stdout
        .lines()
        .filter(|line| line.starts_with('+') && line.contains("server "))
        .collect();
    assert!(
        added.len() == 1 && added[0].contains("10.7.0.3:80"),
        "{planned}"
    );
    // The fingerprint is told too: what is planned is what comes.
    sandbox.sync(&[]).exits(0);
    let print = sandbox.config();
    let print = print.trim_end().rsplit(' ').next().expect("a fingerprint");
    assert!(planned.stdout.contains(print), "{planned}");
}

#[test]
fn plan_does_not_ask_a_cosmos_unless_told() {
    let sandbox = Sandbox::cosmos("plan-cosmos");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    let output = sandbox.run("plan", &[]).exits(3);
    assert!(
        output.stdout.starts_with("# Cosmos was not asked"),
        "{output}"
    );
    assert!(output.stdout.contains("+    server "), "{output}");
    assert_eq!(cosmos.requests().len(), 0);
    let output = sandbox.run("plan", &["--ask"]).exits(3);
    assert!(!output.stdout.contains("Cosmos was not asked"), "{output}");
    assert!(!cosmos.requests().is_empty());
}

#[test]
fn status_follows_the_watch() {
    let mut sandbox = Sandbox::new("status");
    let none = sandbox.run("status", &[]).exits(1);
    assert!(none.stdout.contains("does not run"), "{none}");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    sandbox
        .docker
        .add(web("asteroid-bad", "10.7.0.4").with_env("PORT", "0"));
    let mut watch = sandbox.settled_watch(&[]);
    let when = |sandbox: &Sandbox, what: &str, look: &dyn Fn(&Value) -> bool| {
        wait_for(what, SOON, || {
            let status = json(&sandbox.run("status", &["--json"]));
            look(&status).then_some(status)
        })
    };
    let first = when(&sandbox, "the first pass", &|s| {
        s["watch"]["last_pass"].is_object()
    });
    assert_eq!(first["ok"], true, "{first}");
    assert_eq!(first["pid"], watch.pid());
    let told = &first["watch"];
    assert_eq!(told["docker"]["connected"], true);
    assert_eq!(told["docker"]["api"], "1.41");
    assert_eq!(told["registry"]["name"], "built-in");
    assert_eq!(told["registry"]["state"], "fresh");
    assert_eq!(told["containers"]["routed"], 1);
    assert_eq!(told["containers"]["left_out"], 1);
    assert_eq!(told["last_pass"]["outcome"], "applied");
    let print = told["config"]["fingerprint"]
        .as_str()
        .expect("a fingerprint");
    assert!(sandbox.config().contains(print), "{told}");

    sandbox.docker.run(web("asteroid-b", "10.7.0.3"));
    let second = when(&sandbox, "the event's pass", &|s| {
        s["watch"]["containers"]["routed"] == 2
    });
    let cause = second["watch"]["last_change"]["cause"].as_str();
    assert!(
        cause.is_some_and(|cause| cause.contains("asteroid-b")),
        "{second}"
    );
    assert!(
        second["watch"]["docker"]["last_event"].is_string(),
        "{second}"
    );

    // HAProxy does not take the next one.
    sandbox
        .script
        .on("check", "echo 'line 3 is odd' >&2; status=1");
    sandbox.docker.run(web("asteroid-c", "10.7.0.5"));
    let owed = when(&sandbox, "what is owed", &|s| {
        s["watch"]["owed"].is_object()
    });
    assert_eq!(owed["ok"], true, "not for a minute yet");
    assert_eq!(owed["watch"]["last_pass"]["stage"], "check");
    assert!(owed["watch"]["next_try"].is_string(), "{owed}");
    let words = sandbox.run("status", &[]).exits(0);
    assert!(
        words.stdout.contains("HAS NOT TAKEN") && words.stdout.contains("line 3 is odd"),
        "{words}"
    );
    sandbox.script.well("check");
    watch.signal("HUP");
    when(&sandbox, "nothing owed", &|s| {
        s["watch"]["owed"].is_null() && s["watch"]["containers"]["routed"] == 3
    });

    // Nothing is written while nothing happens.
    let written =
        || fs::metadata(sandbox.state().join("status.json")).and_then(|meta| meta.modified());
    let before = written().expect("a time");
    stays("an idle status file", Duration::from_millis(1_500), || {
        written().is_ok_and(|now| now == before)
    });

    // A daemon that is gone.
    sandbox.docker.stop_daemon();
    when(&sandbox, "the lost connection", &|s| {
        s["watch"]["docker"]["connected"] == false
    });
    sandbox.docker.start_daemon();
    when(&sandbox, "the new connection", &|s| {
        s["watch"]["docker"]["connected"] == true
    });

    // Dead: the file is there, and said to be stale.
    watch.kill();
    let dead = sandbox.run("status", &[]).exits(1);
    assert!(dead.stdout.contains("DOES NOT RUN"), "{dead}");
    let dead = json(&sandbox.run("status", &["--json"]));
    assert_eq!(dead["running"], false);
}

/// A service that HAProxy refuses is named by status and explain, and a hold does not make watch spin.
#[test]
fn a_refused_service_is_told_and_waits_while_a_rollback_holds() {
    let sandbox = Sandbox::new("refused");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    let watch = sandbox.settled_watch(&["-v"]);
    sandbox.docker.run(web("asteroid-b", "10.7.0.3"));
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    sandbox.script.on(
        "check",
        "if grep -q odd.example \"$2\"; then echo 'no odd things' >&2; status=1; fi",
    );
    sandbox.docker.run(Container::serving(
        "asteroid-odd",
        "10.7.0.4",
        "odd",
        "odd.example",
    ));
    let status = wait_for("the refused service", SOON, || {
        let status = json(&sandbox.run("status", &["--json"]));
        status["watch"]["refused"]["odd"]
            .is_string()
            .then_some(status)
    });
    assert_eq!(status["ok"], true, "{status}");
    let explained = sandbox.run("explain", &["asteroid-odd"]).exits(0);
    assert!(
        explained
            .stdout
            .contains("HAProxy refuses what is new of service odd")
            && explained.stdout.contains("no odd things"),
        "{explained}"
    );
    sandbox.run("rollback", &["2"]).exits(0);
    // Past the first retry of the refused service, five seconds later.
    stays("few passes", Duration::from_millis(6_500), || {
        watch.stderr().matches("pass: ").count() < 12
    });
    watch.stop();
}

/// HAProxy's container would not see another file in the place of the one that it has mounted.
#[test]
fn a_rollback_writes_into_a_file_that_is_mounted_alone() {
    use std::os::unix::fs::MetadataExt;
    let sandbox = Sandbox::new("rollback-alone");
    let path = sandbox.config_path();
    let haproxy = Container::new("haproxy", "10.7.0.200");
    let source = path.display().to_string();
    sandbox
        .docker
        .add(haproxy.with_mount(&source, "/usr/local/etc/haproxy/haproxy.cfg"));
    sandbox.docker.add(web("asteroid-0", "10.7.0.2"));
    sandbox.sync(&[]).exits(0);
    let config = sandbox.config();
    let inode = || fs::metadata(&path).expect("the file").ino();
    let mounted = inode();
    sandbox.docker.add(web("asteroid-1", "10.7.0.3"));
    sandbox.sync(&[]).exits(0).says(&["written in place"]);
    sandbox.run("rollback", &[]).exits(0);
    assert_eq!(sandbox.config(), config);
    assert_eq!(inode(), mounted, "the file that HAProxy has mounted");
    // A Docker that is away keeps nobody from going back.
    sandbox.run("resume", &[]).exits(0);
    sandbox.sync(&[]).exits(0);
    let away = ["--docker-host", "unix:///nobody/there"];
    sandbox.run("rollback", &away).exits(0);
    assert_eq!(sandbox.config(), config);
}

#[test]
fn history_rollback_and_resume() {
    let sandbox = Sandbox::new("history");
    let empty = sandbox.run("history", &[]).exits(0);
    assert_eq!(empty.stdout, "");
    sandbox
        .run("rollback", &[])
        .exits(1)
        .says(&["no history yet"]);
    let mut configs = Vec::new();
    for at in 0..3 {
        sandbox.docker.add(web(
            &format!("asteroid-{at}"),
            &format!("10.7.0.{}", at + 2),
        ));
        sandbox.sync(&[]).exits(0);
        configs.push(sandbox.config());
    }
    let history = sandbox.run("history", &[]).exits(0);
    let heads: Vec<&str> = history
        .stdout
        .lines()
        .filter(|line| !line.starts_with("    "))
        .collect();
    assert_eq!(heads.len(), 3, "{history}");
    assert!(
        heads[0].starts_with(" 1  ") && heads[0].ends_with("<- live"),
        "{history}"
    );
    assert!(
        history.stdout.contains("+web/") && history.stdout.contains("(sync)"),
        "{history}"
    );

    let back = sandbox.run("rollback", &[]).exits(0);
    assert!(back.stdout.contains("HAProxy took config"), "{back}");
    assert_eq!(sandbox.config(), configs[1], "byte for byte what it was");
    assert_eq!(
        sandbox.script.order(),
        ["check", "reload"].repeat(4),
        "checked and reloaded like any other"
    );
    // Held: a sync changes nothing and says so; another rollback goes further back.
    sandbox
        .sync(&[])
        .exits(0)
        .says(&["a rollback holds", "resume"]);
    assert_eq!(sandbox.config(), configs[1]);
    sandbox.run("rollback", &[]).exits(0);
    assert_eq!(sandbox.config(), configs[0]);
    sandbox
        .run("rollback", &[])
        .exits(1)
        .says(&["no config before"]);
    let held = sandbox.run("history", &[]).exits(0);
    assert!(
        held.stdout
            .lines()
            .any(|line| line.starts_with(" 3 ") && line.ends_with("live, held")),
        "{held}"
    );
    sandbox.run("rollback", &["2"]).exits(0);
    assert_eq!(sandbox.config(), configs[1]);
    sandbox
        .run("rollback", &["9"])
        .exits(1)
        .says(&["the history has 3"]);
    // Without the options of the others it would be written where HAProxy does not look.
    let elsewhere = sandbox.state().join("elsewhere.cfg").display().to_string();
    sandbox
        .run("rollback", &["2", "--config", &elsewhere])
        .exits(2)
        .says(&["elsewhere.cfg", "give the options of watch: --config"]);
    assert!(!std::path::Path::new(&elsewhere).exists());
    sandbox
        .run("plan", &[])
        .exits(3)
        .says(&["a rollback holds"]);

    let over = sandbox.run("resume", &[]).exits(0);
    assert!(over.stdout.contains("the next sync"), "{over}");
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.config(), configs[2]);
    assert_eq!(
        sandbox.run("resume", &[]).exits(0).stdout,
        "nothing was held\n"
    );
}

/// Whether a rollback holds cannot be told: nothing changes, and it is an error that says what to do.
#[test]
fn a_hold_that_cannot_be_read_is_an_error_and_not_a_hold() {
    let sandbox = Sandbox::new("hold-unreadable");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    sandbox.sync(&[]).exits(0);
    let before = sandbox.config();
    // A folder of that name cannot be read, by root neither.
    let hold = sandbox.state().join("history/hold.json");
    fs::create_dir_all(&hold).expect("a folder");
    sandbox.docker.add(web("asteroid-b", "10.7.0.3"));
    let run =
        sandbox
            .sync(&[])
            .exits(1)
            .says(&["error: cannot read", "hold.json", "cosmonaut resume"]);
    assert!(!run.stderr.contains("a rollback holds config"), "{run}");
    assert_eq!(sandbox.config(), before);
    // What only shows says so and shows the rest.
    for command in ["plan", "history"] {
        let shown = sandbox
            .run(command, &[])
            .says(&["cannot read", "hold.json"]);
        assert!(!shown.stdout.is_empty(), "{shown}");
    }
    let mut watch = sandbox.watch(&[]);
    watch.wait_log("hold.json", SOON);
    fs::remove_dir(&hold).expect("removed");
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    watch.stop();
}

#[test]
fn a_rollback_that_haproxy_refuses_holds_nothing() {
    let sandbox = Sandbox::new("rollback-refused");
    for at in 0..2 {
        sandbox.docker.add(web(
            &format!("asteroid-{at}"),
            &format!("10.7.0.{}", at + 2),
        ));
        sandbox.sync(&[]).exits(0);
    }
    let before = sandbox.config();
    sandbox
        .script
        .on("check", "echo 'no such keyword' >&2; status=1");
    sandbox
        .run("rollback", &[])
        .exits(1)
        .says(&["no such keyword"]);
    assert_eq!(sandbox.config(), before);
    assert_eq!(
        sandbox.run("resume", &[]).exits(0).stdout,
        "nothing was held\n"
    );
}

#[test]
fn a_watch_holds_what_a_rollback_chose() {
    let sandbox = Sandbox::new("hold");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.docker.run(web("asteroid-b", "10.7.0.3"));
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    wait_for("both in the history", SOON, || {
        let history = sandbox.run("history", &[]);
        (history.stdout.lines().count() == 4).then_some(())
    });
    sandbox.run("rollback", &[]).exits(0);
    let status = json(&sandbox.run("status", &["--json"]).exits(0));
    assert!(status["watch"]["hold"].is_object(), "{status}");
    sandbox.docker.run(web("asteroid-c", "10.7.0.4"));
    watch.wait_log("a rollback holds config", SOON);
    sandbox.docker.run(web("asteroid-d", "10.7.0.5"));
    stays(
        "the config of the rollback",
        Duration::from_millis(500),
        || sandbox.routes().all() == ["10.7.0.2:80"],
    );
    assert_eq!(
        watch.stderr().matches("a rollback holds").count(),
        1,
        "said once"
    );
    let over = sandbox.run("resume", &[]).exits(0);
    assert!(
        over.stdout.contains("follows the containers again"),
        "{over}"
    );
    sandbox.wait_config("all four", SOON, |routes| routes.all().len() == 4);
    // And by SIGHUP.
    wait_for("the history of it", SOON, || {
        sandbox
            .run("rollback", &["2"])
            .code()
            .filter(|code| *code == 0)
    });
    sandbox.wait_config("the rollback", SOON, |routes| routes.all().len() < 4);
    watch.signal("HUP");
    sandbox.wait_config("all four again", SOON, |routes| routes.all().len() == 4);
    watch.stop();
}

#[test]
fn a_pass_that_changed_something_is_one_line_with_stable_fields() {
    let sandbox = Sandbox::new("log-json");
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    let mut watch = sandbox.settled_watch(&["--log-format", "json"]);
    watch.wait_log("first config", SOON);
    sandbox.docker.run(web("asteroid-b", "10.7.0.3"));
    watch.wait_log("now 1 service, 2 servers", SOON);
    let quiet = watch.stderr();
    // Nothing is logged while nothing happens.
    sandbox.docker.run(Container::new("planet", "10.7.0.9"));
    stays("silence", Duration::from_millis(300), || {
        watch.stderr() == quiet
    });
    let lines: Vec<Value> = quiet
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is JSON"))
        .collect();
    let applied: Vec<&Value> = lines
        .iter()
        .filter(|line| line["changes"].is_string())
        .collect();
    assert_eq!(applied.len(), 2, "{quiet}");
    let second = applied[1];
    assert_eq!(second["level"], "info");
    assert_eq!(second["target"], "pass");
    let cause = second["cause"].as_str().expect("a cause");
    assert!(cause.starts_with("start of asteroid-b"), "{cause}");
    assert_eq!(second["how"], "script");
    assert_eq!(second["services"], 1);
    assert_eq!(second["routed"], 2);
    for step in [
        "look_ms", "ask_ms", "check_ms", "swap_ms", "live_ms", "total_ms",
    ] {
        assert!(second[step].is_number(), "{step}: {second}");
    }
    let changes = second["changes"].as_str().expect("words");
    assert!(
        changes.contains("+web/") && changes.contains("10.7.0.3:80"),
        "{changes}"
    );
    // A failed one tells its stage.
    sandbox.script.on("check", "echo odd >&2; status=1");
    sandbox.docker.run(web("asteroid-c", "10.7.0.4"));
    watch.wait_log("\"stage\":\"check\"", SOON);
    watch.stop();
}

#[test]
fn metrics_of_a_watch() {
    let sandbox = Sandbox::new("metrics");
    let path = sandbox.root.join("cosmonaut.prom");
    let file = path.display().to_string();
    sandbox.docker.add(web("asteroid-a", "10.7.0.2"));
    sandbox
        .docker
        .add(web("asteroid-bad", "10.7.0.4").with_env("PORT", "0"));
    let watch = sandbox.settled_watch(&["--metrics-file", &file]);
    let when = |what: &str, look: &dyn Fn(&Page) -> bool| {
        wait_for(what, SOON, || {
            let page = Page::parse(&fs::read_to_string(&path).unwrap_or_default());
            look(&page).then_some(page)
        })
    };
    let applied = "cosmonaut_passes_total{outcome=\"applied\"}";
    let page = when("the first pass", &|page| page.get(applied) == Some(1.0));
    for (series, value) in [
        ("cosmonaut_reloads_total", 1.0),
        ("cosmonaut_runtime_updates_total", 0.0),
        ("cosmonaut_containers{verdict=\"routed\"}", 1.0),
        ("cosmonaut_containers{verdict=\"left_out\"}", 1.0),
        ("cosmonaut_services", 1.0),
        ("cosmonaut_docker_connected", 1.0),
        (
            "cosmonaut_registry_state{registry=\"built-in\",state=\"fresh\"}",
            1.0,
        ),
        (
            "cosmonaut_registry_state{registry=\"built-in\",state=\"held\"}",
            0.0,
        ),
        ("cosmonaut_step_duration_seconds_count{step=\"live\"}", 1.0),
        ("cosmonaut_owed", 0.0),
        ("cosmonaut_held", 0.0),
        (
            concat!(
                "cosmonaut_build_info{version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"}"
            ),
            1.0,
        ),
    ] {
        assert_eq!(page.get(series), Some(value), "{series}");
    }
    assert!(page.get("cosmonaut_step_duration_seconds_sum{step=\"total\"}") > Some(0.0));
    sandbox.script.on("reload", "echo odd >&2; status=9");
    sandbox.docker.run(web("asteroid-b", "10.7.0.3"));
    let page = when("a failure", &|page| {
        page.get("cosmonaut_failures_total{stage=\"apply\"}") >= Some(1.0)
    });
    assert_eq!(page.get("cosmonaut_owed"), Some(1.0));
    assert!(page.get("cosmonaut_owed_since_timestamp_seconds") > Some(1.7e9));
    assert!(page.get("cosmonaut_docker_last_event_timestamp_seconds") > Some(1.7e9));
    watch.stop();
}

#[test]
fn metrics_of_syncs_add_up() {
    let sandbox = Sandbox::new("metrics-sync");
    let path = sandbox.root.join("m.prom");
    let file = path.display().to_string();
    let page = || Page::parse(&fs::read_to_string(&path).expect("a file"));
    for at in 0..3 {
        sandbox.docker.add(web(
            &format!("asteroid-{at}"),
            &format!("10.7.0.{}", at + 2),
        ));
        sandbox.sync(&["--metrics-file", &file]).exits(0);
    }
    sandbox.sync(&["--metrics-file", &file]).exits(0);
    assert_eq!(
        page().get("cosmonaut_passes_total{outcome=\"applied\"}"),
        Some(3.0)
    );
    assert_eq!(
        page().get("cosmonaut_passes_total{outcome=\"unchanged\"}"),
        Some(1.0)
    );
    assert_eq!(
        page().get("cosmonaut_step_duration_seconds_count{step=\"total\"}"),
        Some(4.0)
    );
    assert_eq!(
        page().get("cosmonaut_docker_connected"),
        None,
        "a sync follows nobody"
    );
    // A metrics file that cannot be written is said, and the pass is made all the same.
    sandbox.docker.add(web("asteroid-9", "10.7.0.99"));
    let gone = sandbox.root.join("gone/m.prom").display().to_string();
    sandbox
        .sync(&["--metrics-file", &gone])
        .exits(0)
        .says(&["gone/m.prom", "routing goes on"]);
    assert!(sandbox.routes().has("10.7.0.99:80"));
}
