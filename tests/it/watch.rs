//! `cosmonaut watch`: what is asked of Docker and of the script when containers come and go,
//! daemons restart and signals come.

use std::time::{Duration, Instant};

use crate::support::deadline::{SOON, stays, wait_for};
use crate::support::fake_docker::{Container, FakeDocker};
use crate::support::sandbox::{Running, Sandbox};
use crate::support::tmpfs::{self, Bound, Tmpfs};
use crate::support::wire::Reply;

/// What "at once" means on a busy test machine: far below any settle, retry or resync of seconds.
const AT_ONCE: Duration = Duration::from_secs(2);

fn web(name: &str, ip: &str) -> Container {
    Container::serving(name, ip, "web", "web.example")
}

/// Two containers of one service, and a watch that has routed them.
fn two(name: &str) -> Sandbox {
    let sandbox = Sandbox::new(name);
    sandbox.docker.add(web("asteroid-a", "10.4.0.2"));
    sandbox.docker.add(web("asteroid-b", "10.4.0.3"));
    sandbox
}

/// How long a burst is waited out in the tests of a lone change: one that is taken for a burst comes later.
const SETTLE: Duration = Duration::from_millis(1_500);

/// A watch with a long settle, and nothing has happened for longer than that.
#[track_caller]
fn quiet_watch(sandbox: &Sandbox) -> Running {
    let watch = sandbox.settled_watch(&["--settle", "1500ms", "--settle-max", "1500ms"]);
    let calls = sandbox.script.calls().len();
    stays("quiet", SETTLE + Duration::from_millis(300), || {
        sandbox.script.calls().len() == calls
    });
    watch
}

fn lists(docker: &FakeDocker) -> usize {
    docker.count(|request| request.is_list())
}

#[test]
fn it_subscribes_before_it_looks() {
    let sandbox = two("subscribes");
    let watch = sandbox.settled_watch(&[]);
    let requests = sandbox.docker.requests();
    let first = |which: fn(&crate::support::fake_docker::Request) -> bool| {
        requests.iter().position(which).expect("it was asked")
    };
    assert!(
        first(|one| one.is_events()) < first(|one| one.is_list()),
        "{}",
        sandbox.docker.transcript()
    );
    assert!(
        requests.iter().all(|one| one.method == "GET"),
        "GET is all it needs"
    );
    let named = |line: &String| line == "Host: docker";
    assert!(
        requests.iter().all(|one| one.headers.iter().any(named)),
        "{:?}",
        requests[0].headers
    );
    let events = requests.iter().find(|one| one.is_events()).expect("events");
    let others = requests.iter().filter(|one| !one.is_events());
    assert!(
        others
            .clone()
            .all(|one| one.connection != events.connection),
        "the stream has its own connection"
    );
    assert_eq!(sandbox.routes().all(), ["10.4.0.2:80", "10.4.0.3:80"]);
    watch.stop();
}

#[test]
fn a_lone_start_is_acted_on_at_once_and_nothing_is_listed() {
    let sandbox = two("lone-start");
    let watch = quiet_watch(&sandbox);
    let (listed, calls) = (lists(&sandbox.docker), sandbox.script.calls().len());
    let inspected = sandbox.docker.count(|request| request.is_inspect());
    let begun = Instant::now();
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("the new container", AT_ONCE, |routes| {
        routes.has("10.4.0.4:80")
    });
    assert!(
        begun.elapsed() < SETTLE,
        "the long settle did not hold a lone change back"
    );
    wait_for("the reload", SOON, || {
        (sandbox.script.calls().len() == calls + 2).then_some(())
    });
    assert_eq!(lists(&sandbox.docker), listed, "no list after an event");
    let id = sandbox.docker.id("asteroid-c");
    let asked: Vec<String> = sandbox
        .docker
        .requests()
        .into_iter()
        .filter(|request| request.is_inspect())
        .skip(inspected)
        .map(|request| request.path().to_owned())
        .collect();
    assert!(
        !asked.is_empty() && asked.iter().all(|path| path.contains(&id)),
        "only the one that started is inspected: {asked:?}"
    );
    watch.stop();
}

#[test]
fn a_die_asks_nothing_of_the_daemon() {
    let sandbox = two("lone-die");
    let watch = quiet_watch(&sandbox);
    // A daemon that would not answer shows best that it was not asked.
    sandbox.docker.freeze();
    let asked = sandbox.docker.requests().len();
    sandbox.docker.crash("asteroid-a");
    sandbox.wait_config("the dead one gone", SETTLE, |routes| {
        routes.all() == ["10.4.0.3:80"]
    });
    let later: Vec<String> = sandbox
        .docker
        .requests()
        .split_off(asked)
        .into_iter()
        .map(|one| one.target)
        .collect();
    assert_eq!(later, [""; 0], "the die alone is enough");
    sandbox.docker.behave();
    watch.stop();
}

/// A host without a clock of its own boots in the future, starts its containers, and is set right by the network.
#[test]
fn a_die_counts_when_the_daemons_clock_was_set_back() {
    let sandbox = two("clock-set-back");
    // Podman tells of no network that a dead container leaves, Docker of none on the host's.
    sandbox.docker.manner(|manner| manner.podman = true);
    sandbox
        .docker
        .with("asteroid-a", |one| one.started = 2_000_000_000);
    let watch = sandbox.settled_watch(&["--resync", "0"]);
    sandbox.docker.crash("asteroid-a");
    sandbox.wait_config("the dead one gone", AT_ONCE, |routes| {
        routes.all() == ["10.4.0.3:80"]
    });
    watch.stop();
}

#[test]
fn a_stale_list_does_not_bring_the_dead_back() {
    let sandbox = two("stale");
    sandbox
        .docker
        .manner(|manner| manner.ghost = Duration::from_millis(900));
    let mut watch = sandbox.settled_watch(&[]);
    let listed = lists(&sandbox.docker);
    sandbox.docker.kill("asteroid-a");
    sandbox.wait_config("the dead one gone", AT_ONCE, |routes| {
        routes.all() == ["10.4.0.3:80"]
    });
    // Look now, while the list still says that it runs.
    watch.signal("HUP");
    sandbox
        .docker
        .wait_requests("the look after SIGHUP", SOON, |all| {
            all.iter().filter(|request| request.is_list()).count() > listed
        });
    stays("the dead one is out", Duration::from_millis(1_500), || {
        !sandbox.routes().has("10.4.0.2:80")
    });
    // And it is no grudge: when it starts again it is back.
    sandbox.docker.start("asteroid-a");
    sandbox.wait_config("it is back", SOON, |routes| routes.has("10.4.0.2:80"));
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_burst_costs_few_reloads() {
    let sandbox = two("burst");
    let watch = sandbox.settled_watch(&["--settle", "300ms", "--settle-max", "3s"]);
    let before = sandbox.script.of("reload").len();
    for at in 0..40 {
        sandbox.docker.run(web(
            &format!("asteroid-burst-{at}"),
            &format!("10.4.1.{}", at + 2),
        ));
    }
    sandbox.wait_config("all forty", SOON, |routes| routes.all().len() == 42);
    let quiet = sandbox.script.wait_reload("all forty", SOON, |call| {
        call.config.matches("10.4.1.").count() >= 40
    });
    assert_eq!(quiet.config, sandbox.config());
    let reloads = sandbox.script.of("reload").len() - before;
    assert!(reloads <= 4, "{reloads} reloads for one burst");
    watch.stop();
}

#[test]
fn a_storm_without_pause_is_not_put_off_for_ever() {
    let sandbox = two("storm");
    let watch = sandbox.settled_watch(&["--settle", "200ms", "--settle-max", "700ms"]);
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    let begun = Instant::now();
    wait_for("the new container in spite of the storm", SOON, || {
        sandbox.docker.health("asteroid-b", "healthy");
        sandbox.routes().has("10.4.0.4:80").then_some(())
    });
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "it took {:?}",
        begun.elapsed()
    );
    watch.stop();
}

#[test]
fn events_are_read_while_the_script_hangs() {
    let sandbox = two("reads-on");
    let watch = sandbox.settled_watch(&["--script-timeout", "60s"]);
    let hold = sandbox.root.join("hold");
    std::fs::write(&hold, "").expect("a file");
    sandbox.script.on(
        "reload",
        &format!("while [ -e '{}' ]; do sleep 0.02; done", hold.display()),
    );
    let reloads = sandbox.script.of("reload").len();
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.script.wait_reloads(reloads + 1, SOON);
    let delivered = sandbox.docker.delivered();
    sandbox.docker.storm("asteroid-b", "unpause", 1_000);
    sandbox.docker.run(web("asteroid-d", "10.4.0.5"));
    sandbox.docker.kill("asteroid-a");
    sandbox.docker.storm("asteroid-b", "unpause", 1_000);
    // Far more than a socket holds: all of it left only if somebody read it.
    sandbox.docker.wait_delivered(delivered + 2_000, SOON);
    assert!(
        !sandbox.script.of("reload").last().expect("a reload").ended,
        "the script still hangs"
    );
    std::fs::remove_file(&hold).expect("released");
    sandbox.wait_config("the end state", SOON, |routes| {
        routes.all() == ["10.4.0.3:80", "10.4.0.4:80", "10.4.0.5:80"]
    });
    let more = sandbox.script.of("reload").len() - reloads;
    assert!(more <= 4, "{more} reloads");
    watch.stop();
}

#[test]
fn it_follows_whatever_happens_to_a_container() {
    let sandbox = two("lives");
    let docker = &sandbox.docker;
    let watch = sandbox.settled_watch(&[]);
    let listed = lists(docker);
    let gone =
        |what: &str| sandbox.wait_config(what, SOON, |routes| routes.all() == ["10.4.0.3:80"]);
    let back = |what: &str| sandbox.wait_config(what, SOON, |routes| routes.has("10.4.0.2:80"));
    docker.pause("asteroid-a");
    gone("the paused one gone");
    docker.unpause("asteroid-a");
    back("the unpaused one");
    docker.rename("asteroid-a", "planet-a");
    gone("the renamed one gone");
    docker.rename("planet-a", "asteroid-z");
    back("the one renamed back");
    docker.stop("asteroid-z");
    gone("the stopped one gone");
    docker.start("asteroid-z");
    back("the started one");
    docker.remove("asteroid-z");
    gone("the removed one gone");
    docker.run(web("asteroid-h", "10.4.0.9").with_health("starting"));
    docker.health("asteroid-h", "healthy");
    sandbox.wait_config("the healthy one", SOON, |routes| routes.has("10.4.0.9:80"));
    docker.health("asteroid-h", "unhealthy");
    gone("the unhealthy one gone");
    docker.restart("asteroid-b", Some("10.4.0.33"));
    sandbox.wait_config("the restarted one at its new address", SOON, |routes| {
        routes.all() == ["10.4.0.33:80"]
    });
    docker.disconnect("asteroid-b", "apps");
    sandbox.wait_config("the disconnected one gone", SOON, |routes| {
        routes.all().is_empty()
    });
    docker.connect("asteroid-b", "other", "10.5.0.3");
    sandbox.wait_config("the one connected elsewhere", SOON, |routes| {
        routes.all() == ["10.5.0.3:80"]
    });
    assert_eq!(lists(docker), listed, "all of it without a list");
    watch.stop();
}

#[test]
fn noise_costs_nothing() {
    let sandbox = two("noise");
    sandbox.docker.manner(|manner| manner.ignore_filters = true);
    sandbox.docker.add(Container::new("planet-x", "10.4.0.99"));
    let watch = sandbox.settled_watch(&[]);
    let calls = sandbox.script.calls().len();
    let delivered = sandbox.docker.delivered();
    for _ in 0..50 {
        sandbox.docker.probe("asteroid-a");
    }
    for _ in 0..5 {
        sandbox.docker.restart("planet-x", None);
    }
    sandbox.docker.wait_delivered(delivered + 150 + 5 * 7, SOON);
    sandbox.docker.crash("asteroid-a");
    sandbox.wait_config("the dead one gone", SOON, |routes| {
        routes.all() == ["10.4.0.3:80"]
    });
    sandbox.script.wait_reload("the end state", SOON, |call| {
        !call.config.contains("10.4.0.2")
    });
    assert_eq!(
        sandbox.script.calls().len(),
        calls + 2,
        "one pass, for the one change"
    );
    let probed = sandbox.docker.id("asteroid-a");
    let inspects = sandbox
        .docker
        .count(|request| request.target.contains(&probed));
    assert_eq!(inspects, 1, "a probe is no reason to inspect");
    watch.stop();
}

#[test]
fn a_stop_signal_drains_and_other_signals_do_nothing() {
    let sandbox = two("drain");
    let watch = sandbox.settled_watch(&[]);
    let calls = sandbox.script.calls().len();
    let delivered = sandbox.docker.delivered();
    for signal in ["1", "10", "12", "28"] {
        sandbox.docker.signal("asteroid-a", signal);
    }
    let wanted = sandbox.docker.delivered();
    if wanted > delivered {
        // Only if it asked for `kill` events at all do they reach it.
        sandbox.docker.wait_delivered(delivered + 4, SOON);
    }
    sandbox.docker.signal("asteroid-b", "15");
    sandbox.wait_config("the one that was told to stop drained", AT_ONCE, |routes| {
        routes.all() == ["10.4.0.2:80"]
    });
    assert!(
        sandbox.script.calls().len() <= calls + 2,
        "the other signals did nothing"
    );
    watch.stop();
}

/// The daemon repeats what happened just before the stream, and a look may know a later life by then.
#[test]
fn a_stop_signal_of_a_former_life_drains_nobody() {
    let sandbox = two("former-life");
    let watch = sandbox.settled_watch(&[]);
    let id = sandbox.docker.id("asteroid-b");
    let line = format!(
        r#"{{"Type":"container","Action":"kill","Actor":{{"ID":"{id}","Attributes":{{"name":"asteroid-b","signal":"15"}}}},"timeNano":1}}"#
    );
    sandbox.docker.emit_raw(&line);
    sandbox.docker.signal("asteroid-a", "15");
    sandbox.wait_config("the one that is told now drained", AT_ONCE, |routes| {
        routes.all() == ["10.4.0.3:80"]
    });
    watch.stop();
}

#[test]
fn one_that_is_told_to_stop_before_it_was_looked_at_is_not_let_in() {
    let sandbox = two("start-stop");
    let watch = sandbox.settled_watch(&[]);
    // Both events of the newcomer wait while this pass goes on.
    sandbox.script.on("reload", "sleep 1");
    sandbox.docker.crash("asteroid-b");
    sandbox.wait_config("the dead one gone", SOON, |routes| {
        routes.all() == ["10.4.0.2:80"]
    });
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.docker.signal("asteroid-c", "15");
    sandbox.docker.run(web("asteroid-d", "10.4.0.5"));
    sandbox.wait_config("the one that stays", SOON, |routes| {
        routes.has("10.4.0.5:80")
    });
    assert_eq!(sandbox.routes().all(), ["10.4.0.2:80", "10.4.0.5:80"]);
    watch.stop();
}

#[test]
fn it_reconnects_for_ever() {
    let sandbox = two("reconnects");
    let mut watch = sandbox.settled_watch(&[]);
    let calls = sandbox.script.calls().len();
    for round in 0..6 {
        sandbox.docker.end_streams(round % 2 == 0);
        sandbox.docker.wait_subscribed(round + 2);
    }
    watch.still_runs();
    assert_eq!(
        sandbox.script.calls().len(),
        calls,
        "the same world, the same config"
    );
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("the start after it all", SOON, |routes| {
        routes.has("10.4.0.4:80")
    });
    watch.stop();
}

#[test]
fn what_happened_while_nobody_listened_is_found() {
    let sandbox = two("missed");
    let watch = sandbox.settled_watch(&[]);
    sandbox.docker.with("asteroid-a", |one| {
        one.status = crate::support::fake_docker::Status::Exited
    });
    sandbox.docker.add(web("asteroid-c", "10.4.0.4"));
    sandbox.docker.end_streams(false);
    sandbox.wait_config("what was missed", SOON, |routes| {
        routes.all() == ["10.4.0.3:80", "10.4.0.4:80"]
    });
    watch.stop();
}

#[test]
fn a_daemon_restart_that_permutes_addresses_is_followed() {
    let mut sandbox = Sandbox::tcp("permuted");
    for (name, service, ip) in [
        ("asteroid-a", "one", "10.4.0.2"),
        ("asteroid-b", "two", "10.4.0.3"),
        ("asteroid-c", "three", "10.4.0.4"),
    ] {
        sandbox.docker.add(Container::serving(
            name,
            ip,
            service,
            &format!("{service}.example"),
        ));
    }
    let mut watch = sandbox.settled_watch(&[]);
    let before = sandbox.config();
    assert_eq!(sandbox.routes().addresses()["one"], ["10.4.0.2:80"]);
    sandbox.docker.kill_daemon();
    watch.wait_log("docker", SOON);
    stays(
        "the config while Docker is away",
        Duration::from_millis(700),
        || sandbox.config() == before,
    );
    sandbox.docker.permute_addresses();
    sandbox.docker.start_daemon();
    let back = Instant::now();
    sandbox.wait_config("the addresses after the restart", SOON, |routes| {
        let of = |service: &str| routes.addresses().get(service).cloned().unwrap_or_default();
        of("one") == ["10.4.0.3:80"]
            && of("two") == ["10.4.0.4:80"]
            && of("three") == ["10.4.0.2:80"]
    });
    assert!(
        back.elapsed() < Duration::from_secs(8),
        "it took {:?}",
        back.elapsed()
    );
    watch.stop();
}

#[test]
fn it_waits_for_a_docker_that_is_not_up_yet() {
    let mut sandbox = two("early");
    sandbox.docker.stop_daemon();
    let mut watch = sandbox.watch(&[]);
    watch.wait_log("d.sock", SOON);
    watch.still_runs();
    assert_eq!(sandbox.config(), "", "nothing is known, nothing is written");
    assert_eq!(sandbox.script.calls().len(), 0);
    sandbox.docker.start_daemon();
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    watch.stop();
}

#[test]
fn a_list_that_fails_takes_nobody_away() {
    let sandbox = two("list-fails");
    let mut watch = sandbox.settled_watch(&[]);
    let config = sandbox.config();
    let calls = sandbox.script.calls().len();
    let refusal = crate::support::wire::answer(
        "500 Internal Server Error",
        "application/json",
        r#"{"message":"broken"}"#,
    );
    sandbox
        .docker
        .misbehave("/containers/json", 3, Reply::Raw(refusal));
    sandbox.docker.end_streams(false);
    watch.wait_log("broken", SOON);
    assert_eq!(sandbox.config(), config);
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("the new one, once Docker answers", SOON, |routes| {
        routes.all().len() == 3
    });
    sandbox
        .script
        .wait_reload("the new one", SOON, |call| call.config.contains("10.4.0.4"));
    assert_eq!(
        sandbox.script.calls().len(),
        calls + 2,
        "one pass once Docker answered"
    );
    watch.stop();
}

#[test]
fn a_container_whose_inspect_hangs_holds_nobody_up_for_long() {
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{\"Id\":\"".to_vec();
    for (name, reply) in [("stuck", Reply::Silence), ("half", Reply::Held(half))] {
        let sandbox = two(name);
        let mut watch = sandbox.settled_watch(&[]);
        let stuck = web("asteroid-stuck", "10.4.0.66");
        sandbox.docker.misbehave(&stuck.id, usize::MAX, reply);
        sandbox.docker.run(stuck);
        sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
        sandbox.wait_config("the other one", Duration::from_secs(12), |routes| {
            routes.has("10.4.0.4:80")
        });
        assert!(
            sandbox.routes().has("10.4.0.2:80"),
            "those known before stay"
        );
        // When the daemon gets over it, the container is found without any further event.
        sandbox.docker.behave();
        sandbox.wait_config("the stuck one at last", Duration::from_secs(30), |routes| {
            routes.has("10.4.0.66:80")
        });
        watch.still_runs();
        watch.stop();
    }
}

#[test]
fn many_inspects_that_hang_hold_nobody_up_for_long() {
    let sandbox = two("many-stuck");
    let mut watch = sandbox.settled_watch(&[]);
    for at in 0..60 {
        let stuck = web(
            &format!("asteroid-stuck-{at}"),
            &format!("10.4.7.{}", at + 2),
        );
        sandbox
            .docker
            .misbehave(&stuck.id, usize::MAX, Reply::Silence);
        sandbox.docker.add(stuck);
    }
    watch.signal("HUP");
    let stuck = |line: &str| line.contains("does not answer an inspect");
    wait_for("all of them to be asked once", 3 * SOON, || {
        (watch.stderr().lines().filter(|line| stuck(line)).count() == 60).then_some(())
    });
    for at in 0..3 {
        let ip = format!("10.4.0.{}", at + 4);
        let begun = Instant::now();
        sandbox.docker.run(web(&format!("asteroid-new-{at}"), &ip));
        sandbox.wait_config("the new one", SOON, |routes| {
            routes.has(&format!("{ip}:80"))
        });
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(3), "it took {took:?}");
    }
    // Found without any event, but for the few whose question is still open on a connection that stays silent.
    sandbox.docker.behave();
    sandbox.wait_config("nearly all of them at last", SOON, |routes| {
        routes.all().len() >= 60
    });
    watch.still_runs();
    watch.stop();
}

#[test]
fn while_haproxys_container_is_down_the_others_are_reached_as_before() {
    let sandbox = Sandbox::new("haproxy-away");
    sandbox.docker.add(Container::new("haproxy", "10.4.0.9"));
    sandbox
        .docker
        .add(web("asteroid-a", "10.4.0.2").with_network("database", "10.5.0.2"));
    let watch = sandbox.settled_watch(&[]);
    assert_eq!(sandbox.routes().all(), ["10.4.0.2:80"]);
    sandbox.docker.stop("haproxy");
    // A pass that certainly comes after it.
    sandbox.docker.run(web("asteroid-b", "10.4.0.3"));
    sandbox.wait_config("the new one", SOON, |routes| routes.has("10.4.0.3:80"));
    let both = ["10.4.0.2:80", "10.4.0.3:80"];
    assert_eq!(sandbox.routes().all(), both);
    watch.stop();
    // Nor does it matter that nobody of ours has seen it run.
    sandbox.docker.kill("asteroid-b");
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.4.0.2:80"]);
}

#[test]
fn a_failed_reload_is_tried_again_without_an_event() {
    let sandbox = two("retries");
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.script.on(
        "reload",
        "if grep -q 10.4.0.4 \"$2\"; then echo 'bind trouble' >&2; status=5; fi",
    );
    let config = sandbox.config();
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    watch.wait_log("bind trouble", SOON);
    wait_for("the last good file put back", SOON, || {
        (sandbox.config() == config).then_some(())
    });
    sandbox.script.well("reload");
    sandbox
        .script
        .wait_reload("the new container, owed", SOON, |call| {
            call.config.contains("10.4.0.4")
        });
    wait_for("the config that was owed", SOON, || {
        sandbox.routes().has("10.4.0.4:80").then_some(())
    });
    watch.stop();
}

#[test]
fn a_last_good_file_that_haproxy_did_not_take_back_is_not_believed_live() {
    let sandbox = two("not-taken-back");
    let mut watch = sandbox.settled_watch(&[]);
    let config = sandbox.config();
    sandbox
        .script
        .on("reload", "echo 'no daemon' >&2; status=5");
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    watch.wait_log("does not take it either", SOON);
    // All is as it was, and the file says so; what HAProxy runs nobody knows.
    sandbox.docker.kill("asteroid-c");
    sandbox.script.well("reload");
    let before = sandbox.script.of("reload").len();
    let reloads = sandbox.script.wait_reloads(before + 1, SOON);
    assert_eq!(reloads.last().map(|call| &call.config), Some(&config));
    watch.stop();
    // The same where the process that knew of it has ended.
    sandbox
        .script
        .on("reload", "echo 'no daemon' >&2; status=5");
    sandbox.docker.run(web("asteroid-d", "10.4.0.5"));
    sandbox.sync(&[]).exits(1);
    sandbox.docker.kill("asteroid-d");
    sandbox.script.well("reload");
    let before = sandbox.script.of("reload").len();
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.config(), config);
    assert_eq!(sandbox.script.of("reload").len(), before + 1);
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.script.of("reload").len(), before + 1);
}

/// The last good file is known by heart then: it is what lay there, though it was written over.
#[test]
fn what_was_written_over_is_put_back_where_the_last_good_file_is_damaged() {
    if tmpfs::left_out() {
        return;
    }
    let sandbox = two("written-over");
    let bound = Bound::file(&sandbox.root.join("bound.cfg"), &sandbox.config_path());
    sandbox.sync(&[]).exits(0);
    let mut watch = sandbox.watch(&[]);
    sandbox.docker.wait_subscribed(1);
    stays("nothing to do", Duration::from_millis(500), || {
        sandbox.script.of("reload").len() == 1
    });
    let config = sandbox.config();
    std::fs::write(sandbox.state().join("last-good.cfg"), "global\n").expect("damaged");
    sandbox.script.on(
        "reload",
        "if grep -q 10.4.0.4 \"$2\"; then echo 'bind trouble' >&2; status=5; fi",
    );
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    watch.wait_log("bind trouble", SOON);
    watch.wait_log("was put back", SOON);
    assert_eq!(sandbox.config(), config);
    watch.stop();
    drop(bound);
}

/// The config lies elsewhere; what HAProxy took cannot be written down.
#[test]
fn a_full_state_directory_makes_no_reload_of_every_look() {
    if tmpfs::left_out() {
        return;
    }
    let sandbox = two("full-state");
    let disk = Tmpfs::over(&sandbox.state(), 64);
    let config = sandbox.root.join("haproxy.cfg").display().to_string();
    let watch = sandbox.settled_watch(&["--config", &config, "--resync", "1s"]);
    disk.fill();
    let before = sandbox.script.of("reload").len();
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.script.wait_reloads(before + 1, SOON);
    stays("no more reloads", Duration::from_secs(4), || {
        sandbox.script.of("reload").len() <= before + 1
    });
    watch.stop();
    drop(disk);
}

#[test]
fn a_refused_config_is_reported_and_others_go_on() {
    let sandbox = two("refuses");
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.script.on(
        "check",
        "if grep -q 10.4.0.66 \"$2\"; then echo 'no such thing as 10.4.0.66' >&2; status=1; fi",
    );
    sandbox.docker.run(Container::serving(
        "asteroid-odd",
        "10.4.0.66",
        "odd",
        "odd.example",
    ));
    watch.wait_log("no such thing as", SOON);
    assert!(!sandbox.routes().has("10.4.0.66:80"));
    sandbox.docker.remove("asteroid-odd");
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("the good one", SOON, |routes| routes.has("10.4.0.4:80"));
    watch.still_runs();
    watch.stop();
}

#[test]
fn sigterm_and_sigint_end_it_in_good_order() {
    for signal in ["TERM", "INT"] {
        let sandbox = two("signal");
        let mut watch = sandbox.settled_watch(&[]);
        let config = sandbox.config();
        watch.signal(signal);
        assert_eq!(watch.wait_exit(AT_ONCE), 0, "{}", watch.stderr());
        assert_eq!(sandbox.config(), config, "what was routed stays routed");
        assert_eq!(sandbox.leftovers(), [""; 0]);
    }
}

#[test]
fn sigterm_ends_it_while_docker_is_away() {
    let mut sandbox = two("signal-away");
    sandbox.docker.stop_daemon();
    let mut watch = sandbox.watch(&[]);
    watch.wait_log("d.sock", SOON);
    watch.signal("TERM");
    assert_eq!(watch.wait_exit(AT_ONCE), 0, "{}", watch.stderr());
}

#[test]
fn sigterm_ends_it_while_docker_is_silent() {
    let sandbox = two("signal-silent");
    sandbox.docker.freeze();
    let mut watch = sandbox.watch(&[]);
    sandbox
        .docker
        .wait_requests("a first request", SOON, |all| !all.is_empty());
    watch.signal("TERM");
    assert_eq!(
        watch.wait_exit(Duration::from_secs(5)),
        0,
        "{}",
        watch.stderr()
    );
}

/// The list would be waited for a minute.
#[test]
fn sigterm_drops_a_pass_that_waits_for_docker() {
    let sandbox = two("signal-waits");
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.docker.freeze();
    let before = sandbox.docker.requests().len();
    watch.signal("HUP");
    sandbox
        .docker
        .wait_requests("the pass asks", SOON, |all| all.len() > before);
    watch.signal("TERM");
    assert_eq!(watch.wait_exit(SOON), 0, "{}", watch.stderr());
    assert!(watch.stderr().contains("dropped"), "{}", watch.stderr());
}

#[test]
fn sigterm_drops_a_pass_that_waits_for_cosmos() {
    let sandbox = Sandbox::cosmos("signal-cosmos");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.4.0.2"));
    cosmos.always(Some(Reply::Silence));
    let mut watch = sandbox.watch(&[]);
    cosmos.wait_calls(1, SOON);
    watch.signal("TERM");
    assert_eq!(watch.wait_exit(SOON), 0, "{}", watch.stderr());
}

#[test]
fn the_first_signal_waits_for_the_script_and_the_second_does_not() {
    let sandbox = two("twice");
    let mut watch = sandbox.settled_watch(&["--script-timeout", "120s"]);
    let reloads = sandbox.script.of("reload").len();
    sandbox.script.on("reload", "sleep 60");
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.script.wait_reloads(reloads + 1, SOON);
    watch.signal("INT");
    watch.wait_log("stopping", SOON);
    watch.signal("INT");
    watch.wait_exit(AT_ONCE);
    // Whatever was under way, the file is one of the two, whole.
    let config = sandbox.config();
    assert!(
        config.contains("description cosmonaut:") && config.ends_with('\n'),
        "{config}"
    );
    let script_pids = sandbox.script.of("reload").len();
    assert_eq!(script_pids, reloads + 1);
}

#[test]
fn sigterm_ends_it_while_it_waits_for_another_pass() {
    let sandbox = two("lock-stop");
    sandbox.script.on("reload", "sleep 6");
    let mut sync = sandbox.spawn(sandbox.usual_command("sync", &[]));
    sandbox.script.wait_reloads(1, SOON);
    let mut watch = sandbox.watch(&[]);
    sandbox.docker.wait_subscribed(1);
    stays("it waits", Duration::from_millis(300), || {
        sandbox.script.of("reload").len() == 1
    });
    watch.signal("TERM");
    assert_eq!(watch.wait_exit(AT_ONCE), 0);
    let said = watch.stderr();
    assert!(!said.contains("error"), "{said}");
    assert!(sync.ended(2 * SOON).is_some_and(|status| status.success()));
}

#[test]
fn a_pass_that_cannot_be_locked_ends_no_event_stream() {
    let sandbox = two("no-lock");
    let mut watch = sandbox.settled_watch(&[]);
    let streams = sandbox.docker.streams();
    let away = sandbox.root.join("away");
    std::fs::rename(sandbox.state(), &away).expect("moved");
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    watch.wait_log("cannot lock", SOON);
    stays("the stream", Duration::from_millis(500), || {
        sandbox.docker.streams() == streams
    });
    std::fs::rename(&away, sandbox.state()).expect("moved back");
    sandbox.wait_config("what is owed", SOON, |routes| routes.has("10.4.0.4:80"));
    assert_eq!(sandbox.docker.streams(), streams);
    watch.stop();
}

#[test]
fn sigterm_during_a_pass_lets_the_script_finish() {
    let sandbox = two("finishes");
    let mut watch = sandbox.settled_watch(&[]);
    let reloads = sandbox.script.of("reload").len();
    let hold = sandbox.root.join("hold");
    std::fs::write(&hold, "").expect("a file");
    sandbox.script.on(
        "reload",
        &format!("while [ -e '{}' ]; do sleep 0.02; done", hold.display()),
    );
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.script.wait_reloads(reloads + 1, SOON);
    watch.signal("TERM");
    watch.wait_log("stopping", SOON);
    std::fs::remove_file(&hold).expect("released");
    assert_eq!(watch.wait_exit(SOON), 0, "{}", watch.stderr());
    assert!(
        sandbox.script.of("reload")[reloads].ended,
        "the script was not cut off"
    );
    assert!(sandbox.routes().has("10.4.0.4:80"));
}

#[test]
fn sighup_looks_now() {
    let sandbox = two("hup");
    let mut watch = sandbox.settled_watch(&[]);
    sandbox.docker.add(web("asteroid-c", "10.4.0.4"));
    watch.signal("HUP");
    sandbox.wait_config("what no event told", SOON, |routes| routes.all().len() == 3);
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_periodic_resync_finds_what_no_event_told() {
    let sandbox = two("resync");
    let mut watch = sandbox.spawn(sandbox.usual_command("watch", &["--resync", "1s"]));
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    sandbox.docker.add(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("the third", SOON, |routes| routes.all().len() == 3);
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_second_watch_is_refused_with_the_first_ones_pid() {
    let sandbox = two("second");
    let mut first = sandbox.settled_watch(&[]);
    let output = sandbox.run("watch", &[]).exits(1);
    assert!(output.stderr.contains(&first.pid().to_string()), "{output}");
    first.still_runs();
    // The lock goes with its holder, also by kill -9.
    first.kill();
    let third = sandbox.watch(&[]);
    sandbox.docker.wait_subscribed(2);
    sandbox.docker.run(web("asteroid-c", "10.4.0.4"));
    sandbox.wait_config("all three", SOON, |routes| routes.all().len() == 3);
    third.stop();
}

#[test]
fn a_sync_beside_a_watch_never_interleaves() {
    let sandbox = two("beside");
    let mut watch = sandbox.settled_watch(&[]);
    let busy = sandbox.root.join("busy");
    let fragment = format!(
        "if ! mkdir '{0}' 2>/dev/null; then : > '{0}.twice'; fi; sleep 0.05; rmdir '{0}'",
        busy.display()
    );
    sandbox.script.on("check", &fragment);
    sandbox.script.on("reload", &fragment);
    for at in 0..5 {
        sandbox.docker.run(web(
            &format!("asteroid-s{at}"),
            &format!("10.4.2.{}", at + 2),
        ));
        let output = sandbox.sync(&[]);
        assert!(matches!(output.code(), Some(0 | 1)), "{output}");
    }
    sandbox.wait_config("all seven", SOON, |routes| routes.all().len() == 7);
    assert!(
        !busy.with_extension("twice").exists(),
        "two scripts ran at once"
    );
    watch.still_runs();
    watch.stop();
}

#[test]
fn a_damaged_state_is_put_aside_and_rebuilt() {
    let sandbox = two("damaged");
    sandbox.sync(&[]).exits(0);
    std::fs::write(sandbox.state().join("cosmonaut.json"), "{\"vers").expect("damaged");
    sandbox.docker.add(web("asteroid-c", "10.4.0.4"));
    sandbox.sync(&[]).exits(0).says(&["cosmonaut.json"]);
    assert_eq!(sandbox.routes().all().len(), 3);
}

#[test]
fn killed_at_any_moment_it_leaves_a_whole_file() {
    let sandbox = two("kill-9");
    sandbox.sync(&[]).exits(0);
    let whole = |text: &str| text.contains("description cosmonaut:") && text.ends_with('\n');
    for round in 0..12u64 {
        let ip = format!("10.4.3.{}", round + 2);
        sandbox.docker.add(web(&format!("asteroid-k{round}"), &ip));
        let mut run = sandbox.spawn(sandbox.usual_command("sync", &[]));
        // Another moment each time, over the length of a pass.
        let moment = Duration::from_millis(4 * round);
        if run.ended(moment).is_none() {
            run.kill();
        }
        let config = sandbox.config();
        assert!(whole(&config), "after {moment:?}:\n{config}");
    }
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all().len(), 14);
    let last = sandbox.script.of("reload").pop().expect("a reload");
    assert_eq!(
        last.config,
        sandbox.config(),
        "what is on disk was made live"
    );
}

/// Of many services only those that were touched are sorted out, and what comes of it is what a look at all gives:
/// the programs of these tests compare the two in each pass besides.
#[test]
fn a_change_among_many_goes_by_what_was_touched() {
    let sandbox = Sandbox::new("touched");
    let one = |n: usize, service: usize| {
        let (ip, service) = (format!("10.4.1.{n}"), format!("s{service:02}"));
        Container::serving(
            &format!("asteroid-{n}"),
            &ip,
            &service,
            &format!("{service}.example"),
        )
    };
    for n in 10..60 {
        sandbox.docker.add(one(n, n));
    }
    let mut watch = sandbox.settled_watch(&["-v"]);
    let there = |ip: &str, is: bool| {
        sandbox.wait_config(ip, SOON, |routes| routes.has(&format!("{ip}:80")) == is);
    };
    sandbox.docker.run(one(60, 60));
    there("10.4.1.60", true);
    watch.wait_log("1 of 51 services are others now", SOON);
    sandbox.docker.run(one(61, 30));
    there("10.4.1.61", true);
    sandbox.docker.crash("asteroid-30");
    there("10.4.1.30", false);
    sandbox.docker.crash("asteroid-12");
    there("10.4.1.12", false);
    watch.wait_log("1 of 50 services are others now", SOON);
    let touched = sandbox.config();
    let listed = lists(&sandbox.docker);
    watch.signal("HUP");
    sandbox.docker.wait_requests("the look", SOON, |all| {
        all.iter().filter(|request| request.is_list()).count() > listed
    });
    stays(
        "a look at all changes nothing",
        Duration::from_secs(1),
        || sandbox.config() == touched,
    );

    // Somebody writes into the file, as long as it was: what is made of it must not go by what was there.
    let foreign = touched.replace("maxconn 2000", "maxconn 2001");
    assert_ne!(foreign, touched);
    std::fs::write(sandbox.config_path(), foreign).expect("the file is there");
    sandbox.docker.run(one(62, 62));
    there("10.4.1.62", true);
    let config = sandbox.config();
    assert!(config.contains("maxconn 2000") && !config.contains("maxconn 2001"));
    watch.still_runs();
    watch.stop();
}

/// A lone change is not written into the state file at once. Who is killed before that, and cannot inspect the
/// container when it is back, knows its service from HAProxy's config all the same.
#[test]
fn a_lone_change_outlives_a_kill_and_an_inspect_that_fails() {
    let sandbox = two("lone-kill-9");
    sandbox.docker.add(Container::serving(
        "asteroid-old",
        "10.4.0.4",
        "api",
        "old.example",
    ));
    let mut watch = sandbox.settled_watch(&["-v"]);
    sandbox.docker.run(Container::serving(
        "asteroid-new",
        "10.4.0.5",
        "new",
        "new.example",
    ));
    watch.wait_log("1 of 3 services are others now", SOON);
    watch.wait_log("10.4.0.5:80", SOON);
    sandbox.docker.crash("asteroid-old");
    sandbox.docker.run(Container::serving(
        "asteroid-api",
        "10.4.0.6",
        "api",
        "api.example",
    ));
    watch.wait_log("10.4.0.6:80", SOON);
    watch.kill();
    for name in ["asteroid-new", "asteroid-api"] {
        let id = sandbox.docker.id(name);
        let reply = Reply::broken();
        sandbox.docker.misbehave(&id, usize::MAX, reply);
    }
    sandbox.sync(&[]).exits(1);
    let routes = sandbox.routes();
    assert!(
        routes.has("10.4.0.5:80") && routes.has("10.4.0.6:80"),
        "{}",
        sandbox.config()
    );
    assert_eq!(routes.rules["new"], ["new.example"]);
    assert_eq!(routes.rules["api"], ["api.example"]);
}
