//! The remote registry from outside: the bytes that are sent, right answers out of a service
//! that loses services, and faults that touch nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::deadline::{SOON, wait_for};
use crate::support::dice::Dice;
use crate::support::fake_cosmos::FakeCosmos;
use crate::support::fake_docker::{Container, Request, Status};
use crate::support::sandbox::Sandbox;
use crate::support::wire::{Reply, answer};

fn web(name: &str, ip: &str) -> Container {
    Container::serving(name, ip, "web", "web.example")
}

fn short(id: &str) -> &str {
    &id[..12]
}

#[test]
fn the_payload_is_what_the_service_takes() {
    let sandbox = Sandbox::cosmos("payload");
    let docker = &sandbox.docker;
    docker.add(web("asteroid-b", "10.6.0.3"));
    docker.add(web("asteroid-a", "10.6.0.2").with_created(1_794_000_000));
    docker.add(
        Container::new("asteroid-api", "10.6.0.4")
            .with_env("SERVICE_NAME", "api")
            .with_env("PREDICATE", "/api")
            .with_env("CONFIG_MODE", "Path")
            .with_env("COOKIE", "")
            .with_env("PORT", "8080"),
    );
    docker.add(
        Container::new("asteroid-api2", "10.6.0.5")
            .with_env("SERVICE_NAME", "apiv2")
            .with_env("PREDICATE", "api/v2")
            .with_env("CONFIG_MODE", "path")
            .with_env("COOKIE", "SID"),
    );
    docker.add(Container::serving(
        "asteroid-x",
        "10.6.0.6",
        "a.first",
        "zzz.example",
    ));
    docker.add(Container::new("asteroid-bad", "10.6.0.7").with_env("SERVICE_NAME", "bad"));
    sandbox.sync(&[]).exits(0);

    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    let request = cosmos.requests().into_iter().next().expect("a call");
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/api/generate")
    );
    assert_eq!(request.header("content-type"), Some("application/json"));
    let payload = String::from_utf8(request.body).expect("UTF-8");
    let of = |name: &str| docker.id(name)[..12].to_owned();
    let mut webs = vec![
        (of("asteroid-a"), "10.6.0.2"),
        (of("asteroid-b"), "10.6.0.3"),
    ];
    webs.sort();
    let candidate = |service: &str,
                     port: u16,
                     mode: &str,
                     predicate: &str,
                     cookie: &str,
                     all: &[(String, &str)]| {
        let containers: Vec<String> = all
            .iter()
            .map(|(id, ip)| format!(r#"{{"id":"{id}","ip":"{ip}"}}"#))
            .collect();
        format!(
            r#"{{"serviceName":"{service}","port":{port},"configMode":"{mode}","predicate":"{predicate}",{cookie}"containers":[{}]}}"#,
            containers.join(",")
        )
    };
    // Host rules by name, then path rules, the longest first.
    let candidates = [
        candidate(
            "a.first",
            80,
            "host",
            "zzz.example",
            "",
            &[(of("asteroid-x"), "10.6.0.6")],
        ),
        candidate("web", 80, "host", "web.example", "", &webs),
        candidate(
            "apiv2",
            80,
            "path",
            "api/v2",
            r#""cookie":"SID","#,
            &[(of("asteroid-api2"), "10.6.0.5")],
        ),
        candidate(
            "api",
            8080,
            "path",
            "api",
            "",
            &[(of("asteroid-api"), "10.6.0.4")],
        ),
    ];
    let all: Value = serde_json::from_str(&payload).expect("JSON");
    let mut running: Vec<Value> = all["running"].as_array().expect("running").clone();
    assert!(
        payload.starts_with(r#"{"table":"astro","running":[{"serviceName":""#),
        "{payload}"
    );
    assert!(
        payload.ends_with(&format!(r#""candidates":[{}]}}"#, candidates.join(","))),
        "sent:    {payload}\nexpected: {}",
        candidates.join(",")
    );
    let mut expected = vec![
        json!({"serviceName": "a.first", "id": of("asteroid-x"), "ip": "10.6.0.6"}),
        json!({"serviceName": "web", "id": webs[0].0, "ip": webs[0].1}),
        json!({"serviceName": "web", "id": webs[1].0, "ip": webs[1].1}),
        json!({"serviceName": "api", "id": of("asteroid-api"), "ip": "10.6.0.4"}),
        json!({"serviceName": "apiv2", "id": of("asteroid-api2"), "ip": "10.6.0.5"}),
    ];
    running.sort_by_key(Value::to_string);
    expected.sort_by_key(Value::to_string);
    assert_eq!(running, expected, "running is truthful and complete");

    // The same state, the same bytes.
    sandbox.sync(&[]).exits(0);
    for later in &cosmos.payloads()[1..] {
        let later: Value = serde_json::from_str(later).expect("JSON");
        assert_eq!(later["candidates"], all["candidates"]);
    }
}

#[test]
fn the_answer_is_made_fit_for_haproxy() {
    let sandbox = Sandbox::cosmos("fit");
    sandbox
        .docker
        .add(web("asteroid-a", "10.6.0.2").with_env("COOKIE", "SID"));
    sandbox
        .docker
        .add(web("asteroid-b", "10.6.0.3").with_env("COOKIE", "SID"));
    sandbox.sync(&[]).exits(0);
    let config = sandbox.config();
    assert!(
        config.ends_with('\n'),
        "the real answers end without a newline"
    );
    assert!(config.contains("description cosmonaut:"), "{config}");
    let servers = &sandbox.routes().services["web"];
    assert_eq!(servers.len(), 2);
    for server in servers {
        assert_eq!(
            server.cookie.as_ref(),
            Some(&server.id),
            "one cookie value per server:\n{config}"
        );
    }
    assert_eq!(sandbox.script.order(), ["check", "reload"]);
}

#[test]
fn a_header_is_sent_and_never_told() {
    let sandbox = Sandbox::cosmos("header");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let secret = "kept-to-itself-4711";
    let header = format!("x-api-key: {secret}");
    let output = sandbox
        .sync(&["--cosmos-header", &header, "--log-level", "trace"])
        .exits(0);
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    assert_eq!(cosmos.requests()[0].header("x-api-key"), Some(secret));
    assert!(
        !output.stderr.contains(secret) && !output.stdout.contains(secret),
        "{output}"
    );
    cosmos.always(Some(Reply::Raw(answer(
        "403 Forbidden",
        "application/json",
        r#"{"message":"Forbidden"}"#,
    ))));
    sandbox.docker.add(web("asteroid-b", "10.6.0.3"));
    let output = sandbox
        .sync(&["--cosmos-header", &header, "--log-level", "trace"])
        .exits(1);
    assert!(!output.stderr.contains(secret), "{output}");
    for entry in std::fs::read_dir(sandbox.state())
        .expect("the state")
        .flatten()
    {
        let text = std::fs::read(entry.path()).unwrap_or_default();
        assert!(
            !String::from_utf8_lossy(&text).contains(secret),
            "{:?}",
            entry.path()
        );
    }
}

#[test]
fn a_watch_asks_only_when_something_changed_and_never_twice_at_once() {
    let sandbox = Sandbox::cosmos("quiet");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let watch = sandbox.settled_watch(&[]);
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    let calls = cosmos.calls();
    let listed = sandbox.docker.count(|request| request.is_list());
    watch.signal("HUP");
    sandbox
        .docker
        .wait_requests("the look after SIGHUP", SOON, |all| {
            all.iter().filter(|request| request.is_list()).count() > listed
        });
    sandbox.docker.health("asteroid-a", "healthy");
    // A slow service and a burst: the calls follow each other.
    cosmos.next(Reply::Late(Duration::from_millis(400)));
    for at in 0..10 {
        sandbox.docker.run(web(
            &format!("asteroid-n{at}"),
            &format!("10.6.1.{}", at + 2),
        ));
    }
    sandbox.wait_config("all eleven", SOON, |routes| routes.all().len() == 11);
    assert!(
        cosmos.calls() <= calls + 8,
        "{} calls for one burst",
        cosmos.calls() - calls
    );
    assert_eq!(cosmos.most_at_once(), 1);
    watch.stop();
}

#[test]
fn a_slow_cosmos_does_not_stop_the_reading_of_events() {
    let sandbox = Sandbox::cosmos("slow");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let watch = sandbox.settled_watch(&[]);
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    let calls = cosmos.calls();
    cosmos.next(Reply::Late(Duration::from_secs(6)));
    sandbox.docker.run(web("asteroid-b", "10.6.0.3"));
    cosmos.wait_calls(calls + 1, SOON);
    let delivered = sandbox.docker.delivered();
    sandbox.docker.storm("asteroid-a", "unpause", 2_000);
    sandbox
        .docker
        .wait_delivered(delivered + 2_000, Duration::from_secs(5));
    assert_eq!(cosmos.calls(), calls + 1, "the slow call is still out");
    sandbox.wait_config("both", SOON, |routes| routes.all().len() == 2);
    watch.stop();
}

/// One random thing that happens on a host.
fn happens(sandbox: &Sandbox, dice: &mut Dice, host: usize, step: usize, names: &mut Vec<String>) {
    let docker = &sandbox.docker;
    let ip = format!("10.{}.{}.{}", 20 + host, step / 250, step % 250 + 2);
    let pick =
        |dice: &mut Dice, names: &[String]| names.get(dice.roll(names.len().max(1))).cloned();
    match (dice.roll(6), pick(dice, names)) {
        // Stopped or started again.
        (0, Some(name)) => docker.with(&name, |one| {
            one.status = if one.status == Status::Running {
                Status::Exited
            } else {
                Status::Running
            };
        }),
        // Restarted at another address.
        (1, Some(name)) => docker.with(&name, |one| {
            if let Some(net) = one.networks.values_mut().next() {
                net.ipv4 = ip;
            }
        }),
        // Removed.
        (2, Some(name)) => {
            docker.remove(&name);
            names.retain(|one| *one != name);
        }
        // Deployed anew with other settings: all containers of the service.
        (3, Some(name)) => {
            let service = docker.with(&name, |one| one.env[1].clone());
            for other in names.iter() {
                docker.with(other, |one| {
                    if one.env[1] == service {
                        one.env.retain(|line| !line.starts_with("PORT="));
                        one.env.push(format!("PORT={}", 8_000 + step));
                    }
                });
            }
        }
        // A new one, of one of seven services.
        _ => {
            let service = format!("h{host}-s{}", dice.roll(7));
            let name = format!("asteroid-{host}-{step}");
            let port = names
                .iter()
                .find_map(|other| {
                    docker.with(other, |one| {
                        (one.env[1] == format!("SERVICE_NAME={service}")).then(|| {
                            one.env
                                .iter()
                                .find(|line| line.starts_with("PORT="))
                                .cloned()
                        })
                    })
                })
                .flatten();
            let mut one = Container::serving(&name, &ip, &service, &format!("{service}.example"))
                .with_created(1_790_000_000 + step as u64);
            one.env.extend(port);
            docker.add(one);
            names.push(name);
        }
    }
}

/// Service -> its servers (id and address), as Docker's world says they must be.
fn expected(sandbox: &Sandbox, names: &[String]) -> BTreeMap<String, Vec<(String, String)>> {
    let mut all: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for name in names {
        sandbox.docker.with(name, |one| {
            if one.status != Status::Running {
                return;
            }
            let value = |key: &str| {
                one.env
                    .iter()
                    .rev()
                    .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                    .map(str::to_owned)
            };
            let port = value("PORT").unwrap_or_else(|| "80".to_owned());
            all.entry(value("SERVICE_NAME").unwrap_or_default())
                .or_default()
                .push((
                    short(&one.id).to_owned(),
                    format!("{}:{port}", one.networks["apps"].ipv4),
                ));
        });
    }
    for servers in all.values_mut() {
        servers.sort();
    }
    all
}

/// A life of one host: after each step a sync must give exactly what runs, whatever the service lost.
fn life(host: usize, steps: usize, url: &str) {
    let sandbox = Sandbox::new(&format!("life{host}"));
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15 ^ (host as u64 + 1));
    let mut names = Vec::new();
    for step in 0..steps {
        happens(&sandbox, &mut dice, host, step, &mut names);
        sandbox
            .sync(&["--cosmos-url", url, "--cosmos-table", "astro"])
            .exits(0);
        let routes = sandbox.routes();
        let got: BTreeMap<String, Vec<(String, String)>> = routes
            .services
            .iter()
            .map(|(service, servers)| {
                let servers = servers
                    .iter()
                    .map(|one| (one.id.clone(), one.address.clone()))
                    .collect();
                (service.clone(), servers)
            })
            .collect();
        assert_eq!(got, expected(&sandbox, &names), "host {host}, step {step}");
        for service in got.keys() {
            assert_eq!(
                routes.rules[service],
                [format!("{service}.example")],
                "host {host}, step {step}"
            );
        }
        if let Some(last) = sandbox.script.of("reload").pop() {
            assert_eq!(
                last.config,
                sandbox.config(),
                "host {host}, step {step}: what is on disk is live"
            );
        }
    }
}

fn lives(hosts: usize, steps: usize) {
    let cosmos = FakeCosmos::start();
    let url = cosmos.url();
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..hosts)
            .map(|host| {
                let url = &url;
                scope.spawn(move || life(host, steps, url))
            })
            .collect();
        for one in all {
            if let Err(panic) = one.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    assert!(
        cosmos.calls() >= hosts * steps / 2,
        "only {} calls came",
        cosmos.calls()
    );
}

#[test]
fn a_life_on_one_host_is_right_every_time() {
    lives(1, 60);
}

#[test]
fn lives_on_two_hosts_are_right_every_time() {
    lives(2, 30);
}

#[test]
fn lives_on_four_hosts_in_parallel_are_right_every_time() {
    lives(4, 20);
}

#[test]
fn a_poisoned_store_is_healed() {
    let sandbox = Sandbox::cosmos("poisoned");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    // What an original client may have left: a service without containers blocks every call that names it.
    cosmos.model().set_stored(&json!([
        {"serviceName": "web", "port": 80, "configMode": "host", "predicate": "web.example", "containers": []}
    ]));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.6.0.2:80"]);
    // And one with an old address of the same id: two servers of one name.
    let id = sandbox.docker.id("asteroid-a");
    cosmos.model().set_stored(&json!([
        {"serviceName": "web", "port": 80, "configMode": "host", "predicate": "web.example",
         "containers": [{"id": short(&id), "ip": "10.6.9.9"}]}
    ]));
    sandbox.docker.with("asteroid-a", |one| {
        one.env.push("PORT=8080".to_owned());
    });
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.6.0.2:8080"]);
}

/// A right answer for one container, to be spoilt by a fault.
fn right(id: &str) -> String {
    let model = crate::support::fake_cosmos::Model::default();
    let body = model.call(&json!({
        "table": "astro", "running": [],
        "candidates": [{"serviceName": "web", "port": 80, "configMode": "host", "predicate": "web.example",
                        "containers": [{"id": short(id), "ip": "10.6.0.2"}, {"id": "0123456789ab", "ip": "10.6.0.3"}]}],
    }));
    serde_json::from_str(&body).expect("a config")
}

fn ok(body: &str) -> Reply {
    Reply::Raw(answer("200 OK", "application/json", body))
}

/// Every fault, and words of which at least one must be in the message.
fn faults(id_a: &str, id_b: &str) -> Vec<(&'static str, Reply, Vec<&'static str>)> {
    let config = right(id_a).replace("0123456789ab", short(id_b));
    let with = |from: &str, to: &str| ok(&Value::String(config.replacen(from, to, 1)).to_string());
    let error = |words: &str| ok(&json!({ "errorMessage": words }).to_string());
    let mut cut = answer(
        "200 OK",
        "application/json",
        Value::String(config.clone()).to_string(),
    );
    cut.truncate(cut.len() - 200);
    let huge = format!("\"global{}\"", "\\n# x".repeat(12 << 20));
    vec![
        ("connection closed", Reply::closed(), vec!["closed", "connection", "disconnected", "eof"]),
        ("500 with HTML", Reply::Raw(answer("500 Internal Server Error", "text/html", "<html>oops</html>")), vec!["500"]),
        ("502", Reply::Raw(answer("502 Bad Gateway", "application/json", r#"{"message":"Internal server error"}"#)), vec!["502"]),
        ("504", Reply::Raw(answer("504 Gateway Timeout", "application/json", r#"{"message":"Endpoint request timed out"}"#)), vec!["504"]),
        ("403", Reply::Raw(answer("403 Forbidden", "application/json", r#"{"message":"Missing Authentication Token"}"#)), vec!["Missing Authentication Token"]),
        ("429", Reply::Raw(answer("429 Too Many Requests", "application/json", r#"{"message":"Too Many Requests"}"#)), vec!["429"]),
        ("200 null", ok("null"), vec!["null"]),
        ("errorMessage: TypeError", error("TypeError: Cannot read property 'filter' of undefined\n    at fn (index.js:222)"), vec!["Cannot read property 'filter'"]),
        ("errorMessage: ValidationError", error("ValidationError: \"cookie\" is not allowed to be empty"), vec!["ValidationError"]),
        ("errorMessage: timeout", error("2026-11-22T10:00:00.000Z 1-2-3 Task timed out after 20.00 seconds"), vec!["Task timed out"]),
        ("cut body", Reply::Raw(cut), vec!["cut", "short", "body", "eof", "end", "closed", "disconnected"]),
        ("redirect", Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: http://portal.example/login\r\nContent-Length: 0\r\n\r\n".to_vec()), vec!["302", "redirect"]),
        ("huge body", ok(&huge), vec!["large", "limit", "more than", "too big", "exceed"]),
        ("captive portal", Reply::Raw(answer("200 OK", "text/html", "<!DOCTYPE html><html>Please log in</html>")), vec!["html"]),
        ("not JSON", ok("global\n    maxconn 10\n"), vec!["json"]),
        ("an object", ok("{}"), vec!["object", "string", "{}"]),
        ("an empty string", ok("\"\""), vec!["empty", "no config"]),
        ("no config", ok("\"hello\""), vec!["config", "hello"]),
        ("a directive that loads code", with("    daemon\n", "    daemon\n    lua-load /tmp/evil.lua\n"), vec!["lua-load"]),
        ("a directive that starts programs", with("    daemon\n", "    daemon\n    external-check\n"), vec!["external-check"]),
        ("a program section", ok(&Value::String(format!("{config}\nprogram evil\n    command /bin/sh\n")).to_string()), vec!["program"]),
        ("a foreign bind", with("    bind :80\n", "    bind :80\n    bind :6666\n"), vec!["6666", "bind"]),
        ("a foreign server", with("10.6.0.3:80", "192.0.2.66:80"), vec!["192.0.2.66", "10.6.0.3", short_static(id_b)]),
        ("a lost service", ok(&Value::String(config[..config.find("    acl").unwrap_or(0)].to_owned() + "\n\n# Define backends\n").to_string()), vec!["web"]),
        ("a rule led astray", with("hdr(host) -i web.example", "hdr(host) -i evil.example"), vec!["web.example", "evil.example", "web"]),
    ]
}

/// The first 12 digits, for as long as the test runs.
fn short_static(id: &str) -> &'static str {
    Box::leak(short(id).to_owned().into_boxed_str())
}

/// How many faults are tried at one time: most of the time of one is the waits between its tries.
const FAULTS_AT_ONCE: usize = 9;

#[test]
fn no_fault_touches_the_config_or_the_script() {
    let count = faults(&"a".repeat(64), &"b".repeat(64)).len();
    assert!(count >= 15);
    for first in (0..count).step_by(FAULTS_AT_ONCE) {
        std::thread::scope(|scope| {
            for number in first..count.min(first + FAULTS_AT_ONCE) {
                scope.spawn(move || fault(number));
            }
        });
    }
}

fn fault(number: usize) {
    let sandbox = Sandbox::cosmos("fault");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    sandbox.sync(&[]).exits(0);
    let config = sandbox.config();
    let calls = sandbox.script.calls().len();
    sandbox.docker.add(web("asteroid-b", "10.6.0.3"));
    let (id_a, id_b) = (
        sandbox.docker.id("asteroid-a"),
        sandbox.docker.id("asteroid-b"),
    );
    let (name, reply, words) = faults(&id_a, &id_b).swap_remove(number);
    cosmos.always(Some(reply));
    let output = sandbox.sync(&[]);
    assert_eq!(output.code(), Some(1), "{name}; {output}");
    let told = output.stderr.to_lowercase();
    assert!(
        words.iter().any(|word| told.contains(&word.to_lowercase())),
        "{name}: the message names none of {words:?}; {output}"
    );
    assert!(
        output.stderr.lines().all(|line| line.len() < 2_000),
        "{name}: the service's words are cut to a line"
    );
    assert_eq!(
        sandbox.config(),
        config,
        "{name}: the running config stands"
    );
    assert_eq!(
        sandbox.script.calls().len(),
        calls,
        "{name}: nothing was asked of the script"
    );
    cosmos.always(None);
    sandbox.sync(&[]).exits(0);
    assert_eq!(
        sandbox.routes().all(),
        ["10.6.0.2:80", "10.6.0.3:80"],
        "{name}: the next run does what was owed"
    );
}

#[test]
fn a_cosmos_that_refuses_connections_touches_nothing() {
    let sandbox = Sandbox::new("refused");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let output = sandbox.sync(&["--cosmos-url", "http://127.0.0.1:1/api", "-t", "astro"]);
    output.exits(1).says(&["127.0.0.1:1", "refused"]);
    assert_eq!(sandbox.script.calls().len(), 0);
    assert_eq!(sandbox.config(), "");
}

#[test]
fn a_cosmos_that_never_answers_is_given_up() {
    let sandbox = Sandbox::cosmos("hangs");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    cosmos.always(Some(Reply::Silence));
    let mut run = sandbox.spawn(sandbox.usual_command("sync", &[]));
    cosmos.wait_calls(1, SOON);
    // The function itself may take 20 s, the gateway 30: given up after that, not before.
    assert!(
        run.ended(Duration::from_secs(20)).is_none(),
        "given up too early:\n{}",
        run.stderr()
    );
    let status = run
        .ended(Duration::from_secs(150))
        .expect("it gives up by itself");
    assert_eq!(status.code(), Some(1));
    assert!(run.stderr().contains("within"), "{}", run.stderr());
    assert_eq!(sandbox.script.calls().len(), 0);
}

#[test]
fn trust_lets_a_foreign_directive_pass() {
    let sandbox = Sandbox::cosmos("trust");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    sandbox.docker.add(web("asteroid-b", "10.6.0.3"));
    let config = right(&sandbox.docker.id("asteroid-a"))
        .replace("0123456789ab", short(&sandbox.docker.id("asteroid-b")));
    let config = config.replacen("    bind :80\n", "    bind :80\n    bind :6666\n", 1);
    cosmos.always(Some(ok(&Value::String(config).to_string())));
    sandbox.sync(&[]).exits(1);
    sandbox.sync(&["--trust-cosmos"]).exits(0);
    assert!(sandbox.config().contains("bind :6666"));
}

#[test]
fn the_first_calls_to_a_new_table_are_tried_again() {
    let sandbox = Sandbox::cosmos("first");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    cosmos.next(ok("null"));
    cosmos.next(ok(
        r#"{"errorMessage":"ResourceNotFoundException: Requested resource not found\n    at x"}"#,
    ));
    let watch = sandbox.settled_watch(&[]);
    assert_eq!(sandbox.routes().all(), ["10.6.0.2:80"]);
    assert!(cosmos.calls() >= 3);
    watch.stop();
}

#[test]
fn what_will_not_get_better_is_not_tried_again_and_again() {
    let sandbox = Sandbox::cosmos("no-retry");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    cosmos.always(Some(ok(
        r#"{"errorMessage":"ValidationError: weight is not allowed"}"#,
    )));
    sandbox.sync(&[]).exits(1).says(&[
        "ValidationError: weight is not allowed",
        "--log-level debug",
    ]);
    assert!(cosmos.calls() <= 2, "{} calls", cosmos.calls());
    // What the hint promises.
    sandbox
        .sync(&["--log-level", "debug"])
        .exits(1)
        .says(&[r#""predicate":"web.example""#]);
}

#[test]
fn an_outage_holds_the_last_good_config_and_goes_on_by_itself() {
    let sandbox = Sandbox::cosmos("outage");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    cosmos.always(Some(Reply::Raw(answer(
        "503 Service Unavailable",
        "application/json",
        r#"{"message":"down"}"#,
    ))));
    let config = sandbox.config();
    sandbox.docker.run(web("asteroid-b", "10.6.0.3"));
    watch.wait_log("503", SOON);
    assert_eq!(sandbox.config(), config);
    cosmos.always(None);
    sandbox.wait_config("both, without a further event", SOON, |routes| {
        routes.all().len() == 2
    });
    watch.stop();
}

/// Who sends SIGHUP wants Cosmos asked. A pass that failed to is tried again, and must not find then that nothing has
/// changed since.
#[test]
fn who_asks_for_it_has_cosmos_asked_until_it_answers() {
    let sandbox = Sandbox::cosmos("asked");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    let refusal = answer("403 Forbidden", "application/json", r#"{"message":"no"}"#);
    cosmos.always(Some(Reply::Raw(refusal)));
    watch.signal("HUP");
    watch.wait_log("403", SOON);
    cosmos.always(None);
    let calls = cosmos.calls();
    cosmos.wait_calls(calls + 1, SOON);
    // It has answered, and nobody asks again.
    let calls = cosmos.calls();
    let listed = sandbox.docker.count(|request| request.is_list());
    sandbox
        .docker
        .run(Container::new("asteroid-none", "10.6.0.3"));
    let id = sandbox.docker.id("asteroid-none");
    sandbox.docker.wait_requests("the look", SOON, |all| {
        let of_it = |request: &Request| request.is_inspect() && request.path().contains(&id);
        all.iter().any(of_it)
    });
    assert_eq!(sandbox.docker.count(|request| request.is_list()), listed);
    assert_eq!(cosmos.calls(), calls);
    watch.stop();
}

/// A container came while Cosmos was away, and went again: HAProxy has what Cosmos answered to what runs, and nothing
/// is held any more.
#[test]
fn an_outage_that_nobody_needs_an_answer_in_is_none() {
    let sandbox = Sandbox::cosmos("needless");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let mut watch = sandbox.settled_watch(&[]);
    let state = |wanted: &str| {
        wait_for("the state of the registry", SOON, || {
            let status = sandbox.run("status", &["--json"]);
            let status: Value = serde_json::from_str(&status.stdout).ok()?;
            (status["watch"]["registry"]["state"] == wanted).then_some(())
        });
    };
    state("fresh");
    let refusal = answer("403 Forbidden", "application/json", r#"{"message":"no"}"#);
    cosmos.always(Some(Reply::Raw(refusal)));
    sandbox.docker.run(web("asteroid-b", "10.6.0.3"));
    watch.wait_log("403", SOON);
    state("held");
    sandbox.docker.crash("asteroid-b");
    state("fresh");
    watch.stop();
}

/// What HAProxy has is the built-in registry's, or another Cosmos's: nothing has changed but who is to be asked.
#[test]
fn a_cosmos_that_did_not_make_the_running_config_is_asked() {
    let sandbox = Sandbox::cosmos("whose");
    let cosmos = sandbox.cosmos.as_ref().expect("a Cosmos");
    sandbox.docker.add(web("asteroid-a", "10.6.0.2"));
    let refusal = answer("403 Forbidden", "application/json", r#"{"message":"no"}"#);
    cosmos.always(Some(Reply::Raw(refusal)));
    sandbox.sync(&["--on-outage", "built-in"]).exits(0);
    let is_built_in = || sandbox.config().contains("# cosmonaut: rules");
    assert!(is_built_in(), "{}", sandbox.config());
    cosmos.always(None);
    let watch = sandbox.watch(&["--on-outage", "built-in"]);
    wait_for("the config of Cosmos", SOON, || {
        (!is_built_in()).then_some(())
    });
    watch.stop();

    let other = FakeCosmos::start();
    let watch = sandbox.watch(&["--cosmos-url", &other.url()]);
    other.wait_calls(1, SOON);
    watch.stop();
    // Its own answer is not asked for again.
    let calls = other.calls();
    let watch = sandbox.watch(&["--cosmos-url", &other.url()]);
    wait_for("a pass", SOON, || {
        let status = sandbox.run("status", &["--json"]);
        let status: Value = serde_json::from_str(&status.stdout).ok()?;
        let told = &status["watch"];
        (told["pid"] == status["pid"] && told["last_pass"]["outcome"] == "unchanged").then_some(())
    });
    watch.stop();
    assert_eq!(other.calls(), calls);
}
