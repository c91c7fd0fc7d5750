//! `cosmonaut sync`: one pass from Docker to the script, and what stands after it failed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::deadline::{SOON, wait_for};
use crate::support::fake_docker::{Container, Status};
use crate::support::sandbox::{Output, Sandbox};
use crate::support::tmpfs::{self, Bound, Tmpfs};
use crate::support::wire::Reply;

/// A user who is not root: `nobody` wherever there is one.
const NOBODY: u32 = 65_534;

fn web(name: &str, ip: &str) -> Container {
    Container::serving(name, ip, "web", "web.example")
}

/// Services of two instances each, `count` containers in all.
fn crowd(count: usize) -> Vec<Container> {
    (0..count)
        .map(|at| {
            let service = format!("s{:03}", at / 2);
            let ip = format!("10.2.{}.{}", at / 200, at % 200 + 2);
            Container::serving(
                &format!("asteroid-{at}"),
                &ip,
                &service,
                &format!("{service}.example"),
            )
            .with_env("PORT", "8080")
        })
        .collect()
}

#[track_caller]
fn crowd_is_routed(sandbox: &Sandbox, count: usize) {
    let containers = crowd(count);
    for one in &containers {
        sandbox.docker.add(one.clone());
    }
    sandbox.sync(&[]).exits(0);
    let routes = sandbox.routes();
    let mut expected: Vec<String> = containers
        .iter()
        .map(|one| format!("{}:8080", one.networks["apps"].ipv4))
        .collect();
    expected.sort();
    assert_eq!(routes.all(), expected);
    assert_eq!(routes.services.len(), count.div_ceil(2));
    for (service, servers) in &routes.services {
        assert_eq!(routes.rules[service], [format!("{service}.example")]);
        for server in servers {
            let one = containers
                .iter()
                .find(|one| one.id.starts_with(&server.id))
                .expect("a server is named by its container's id");
            assert_eq!(server.id.len(), 12);
            assert!(one.env.contains(&format!("SERVICE_NAME={service}")));
        }
    }
    assert_eq!(sandbox.script.order(), ["check", "reload"]);
    assert_eq!(sandbox.docker.count(|request| request.is_list()), 1);
    assert_eq!(sandbox.docker.count(|request| request.is_inspect()), count);

    // A second run finds nothing to do, says nothing, and asks nothing of the script.
    let before = sandbox.config();
    let again = sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.config(), before);
    assert_eq!(sandbox.script.order(), ["check", "reload"]);
    assert_eq!(again.stdout, "");
}

#[test]
fn one_container_over_a_unix_socket() {
    crowd_is_routed(&Sandbox::new("one"), 1);
}

#[test]
fn twenty_containers_over_tcp() {
    crowd_is_routed(&Sandbox::tcp("twenty"), 20);
}

#[test]
fn a_hundred_containers_over_a_unix_socket() {
    crowd_is_routed(&Sandbox::new("hundred"), 100);
}

#[test]
fn no_container_at_all_is_a_config_too() {
    let sandbox = Sandbox::new("none");
    sandbox.sync(&[]).exits(0);
    assert!(
        sandbox.config().contains("frontend"),
        "{}",
        sandbox.config()
    );
    assert_eq!(sandbox.routes().all(), [""; 0]);
    assert_eq!(sandbox.script.order(), ["check", "reload"]);
}

#[test]
fn the_script_is_handed_what_its_contract_says() {
    let sandbox = Sandbox::new("contract");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox
        .sync(&[
            "--haproxy-container",
            "edge",
            "--haproxy-master",
            "/run/none/master.sock",
        ])
        .code();
    let calls = sandbox.script.calls();
    let check = calls.first().expect("a check");
    let config = sandbox.config_path();
    assert_eq!(check.mode, "check");
    assert_ne!(
        check.path, config,
        "the staged file is checked, not the target"
    );
    assert_eq!(
        check.path.parent(),
        config.parent(),
        "staged beside the target"
    );
    assert!(check.config.contains("10.2.0.2:80"), "{}", check.config);
    assert_eq!(check.target, "", "nothing is swapped before the check");
    let fingerprint = &check.env["COSMONAUT_FINGERPRINT"];
    assert_eq!(fingerprint.len(), 16, "{fingerprint}");
    assert!(
        check.config.ends_with(&format!(
            "global\n    description cosmonaut:{fingerprint}\n"
        )),
        "{}",
        check.config
    );
    assert_eq!(check.env["COSMONAUT_CONFIG"], config.display().to_string());
    assert_eq!(
        check.env["COSMONAUT_STATE_DIR"],
        sandbox.state().display().to_string()
    );
    assert_eq!(check.env["COSMONAUT_HAPROXY_CONTAINER"], "edge");
    assert_eq!(
        check.env["COSMONAUT_HAPROXY_MASTER"],
        "/run/none/master.sock"
    );
    assert_eq!(check.env["DOCKER_HOST"], sandbox.docker.docker_host());
    assert_eq!(check.env["COSMONAUT_CHROOT"], "none");
    assert_eq!(
        check
            .env
            .get("COSMONAUT_HAPROXY_SOCKET")
            .map_or("", String::as_str),
        ""
    );
}

/// The script has to look for it then, whatever our own environment says.
#[test]
fn a_check_of_a_text_with_a_chroot_is_not_told_that_it_has_none() {
    let sandbox = Sandbox::new("chroot");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    let base = sandbox.root.join("base.cfg");
    let text = "global\n    chroot /var/lib/haproxy\ndefaults\n    mode http\nfrontend web\n    bind :80\n";
    std::fs::write(&base, text).expect("a base");
    let mut command = sandbox.usual_command("sync", &["--base", &base.display().to_string()]);
    command.env("COSMONAUT_CHROOT", "none");
    sandbox.finish(command).exits(0);
    let calls = sandbox.script.calls();
    let check = calls.first().expect("a check");
    assert!(check.config.contains("chroot"), "{}", check.config);
    assert_eq!(
        check.env.get("COSMONAUT_CHROOT").map_or("", String::as_str),
        ""
    );
}

#[test]
fn the_reload_sees_the_swapped_file() {
    let sandbox = Sandbox::new("swapped");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0);
    let calls = sandbox.script.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!(calls[1].mode, "reload");
    assert_eq!(calls[1].path, sandbox.config_path());
    assert_eq!(calls[1].config, calls[0].config);
    assert_eq!(calls[1].config, sandbox.config());
    assert_eq!(
        calls[1].env["COSMONAUT_FINGERPRINT"],
        calls[0].env["COSMONAUT_FINGERPRINT"]
    );
    assert_eq!(sandbox.leftovers(), [""; 0], "no staged file stays behind");
}

#[test]
fn the_keyword_chooses_by_name_in_any_case() {
    let sandbox = Sandbox::new("keyword");
    sandbox.docker.add(web("my-AsTeRoId-1", "10.2.0.2"));
    sandbox.docker.add(web("planet-1", "10.2.0.3"));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80"]);
    sandbox.sync(&["--keyword", "PLANET"]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.3:80"]);
    sandbox.docker.add(Container::new("no-service", "10.2.0.4"));
    sandbox.sync(&["--keyword", ""]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.3:80"]);
}

#[test]
fn only_running_containers_are_routed() {
    let sandbox = Sandbox::new("states");
    sandbox.docker.add(web("asteroid-runs", "10.2.0.2"));
    for (name, ip, status) in [
        ("asteroid-paused", "10.2.0.3", Status::Paused),
        ("asteroid-restarting", "10.2.0.4", Status::Restarting),
        ("asteroid-exited", "10.2.0.5", Status::Exited),
        ("asteroid-created", "10.2.0.6", Status::Created),
    ] {
        sandbox.docker.add(web(name, ip).with_status(status));
    }
    sandbox
        .docker
        .add(web("asteroid-sick", "10.2.0.7").with_health("unhealthy"));
    sandbox
        .docker
        .add(web("asteroid-new", "10.2.0.8").with_health("starting"));
    sandbox
        .docker
        .add(web("asteroid-well", "10.2.0.9").with_health("healthy"));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.9:80"]);
}

#[test]
fn a_service_whose_containers_are_all_out_keeps_its_backend() {
    let sandbox = Sandbox::new("all-out");
    sandbox
        .docker
        .add(web("asteroid-sick", "10.2.0.7").with_health("unhealthy"));
    sandbox.sync(&[]).exits(0);
    let routes = sandbox.routes();
    assert_eq!(routes.all(), [""; 0]);
    assert_eq!(
        routes.rules.get("web").map(Vec::as_slice),
        Some(&["web.example".to_owned()][..])
    );
}

#[test]
fn a_description_is_read_by_the_rules() {
    let sandbox = Sandbox::new("described");
    let docker = &sandbox.docker;
    docker.add(
        web("asteroid-exposed", "10.2.0.2")
            .with_exposed("8080/tcp")
            .with_exposed("9090/udp"),
    );
    docker.add(
        Container::new("asteroid-path", "10.2.0.3")
            .with_env("SERVICE_NAME", "api")
            .with_env("CONFIG_MODE", "PATH")
            .with_env("PREDICATE", "/api/v1")
            .with_env("PORT", "9000")
            .with_env("COOKIE", "SID"),
    );
    docker.add(
        Container::serving("asteroid-label", "10.2.0.4", "wrong", "wrong.example")
            .with_label("cosmonaut.service-name", "labelled")
            .with_label("cosmonaut.predicate", "label.example")
            .with_label("cosmonaut.port", "7000"),
    );
    docker.add(web("asteroid-off", "10.2.0.5").with_label("cosmonaut.enable", "false"));
    // The last duplicate wins, as it does inside the container.
    docker.add(
        Container::serving("asteroid-twice", "10.2.0.6", "first", "twice.example")
            .with_env("SERVICE_NAME", "last"),
    );
    sandbox.sync(&[]).exits(0);
    let routes = sandbox.routes();
    let of = |service: &str| routes.addresses().get(service).cloned().unwrap_or_default();
    assert_eq!(of("web"), ["10.2.0.2:8080"]);
    assert_eq!(of("api"), ["10.2.0.3:9000"]);
    assert_eq!(of("labelled"), ["10.2.0.4:7000"]);
    assert_eq!(of("last"), ["10.2.0.6:80"]);
    assert_eq!(routes.services.len(), 4, "{routes:?}");
    assert_eq!(routes.rules["api"], ["api/v1"]);
    let server = &routes.services["api"][0];
    assert_eq!(
        server.cookie.as_ref(),
        Some(&server.id),
        "each server has a cookie value of its own"
    );
}

/// One bad container: what is wrong with it, and the words that must name it.
const BAD: &[(&str, &str, &[&str])] = &[
    ("PORT", "eighty", &["PORT", "eighty"]),
    ("PORT", "0", &["PORT"]),
    ("PORT", "65536", &["PORT", "65536"]),
    ("CONFIG_MODE", "tcp", &["CONFIG_MODE", "tcp"]),
    (
        "PREDICATE",
        "a.example\n    default_backend be_evil",
        &["PREDICATE"],
    ),
    ("PREDICATE", "a'b", &["PREDICATE"]),
    ("PREDICATE", "", &["PREDICATE"]),
    ("PREDICATE", "-f /etc/shadow", &["PREDICATE"]),
    ("SERVICE_NAME", "we b", &["SERVICE_NAME"]),
    ("SERVICE_NAME", "", &["SERVICE_NAME"]),
    ("COOKIE", "SRV prefix nocache", &["COOKIE"]),
    ("COOKIE", "a\nb", &["COOKIE"]),
];

#[test]
fn a_bad_container_is_named_and_the_others_are_served() {
    for (variable, value, words) in BAD {
        let sandbox = Sandbox::new("bad");
        sandbox.docker.add(web("asteroid-good", "10.2.0.2"));
        sandbox.docker.add(
            Container::serving("asteroid-bad", "10.2.0.3", "bad", "bad.example")
                .with_env(variable, value),
        );
        let output = sandbox
            .sync(&[])
            .exits(0)
            .says(&["asteroid-bad"])
            .says(words);
        assert_eq!(
            sandbox.routes().all(),
            ["10.2.0.2:80"],
            "{variable}={value:?}; {output}"
        );
        assert!(!sandbox.config().contains("evil"), "{}", sandbox.config());
        assert!(!output.stderr.contains("asteroid-good"), "{output}");
    }
}

#[test]
fn a_misspelt_variable_gets_a_hint() {
    let sandbox = Sandbox::new("typo");
    sandbox.docker.add(
        Container::new("asteroid-typo", "10.2.0.3")
            .with_env("SERVICENAME", "web")
            .with_env("PREDICATE", "web.example"),
    );
    sandbox
        .sync(&[])
        .exits(0)
        .says(&["asteroid-typo", "SERVICENAME", "SERVICE_NAME"]);
}

#[test]
fn a_container_without_an_address_is_left_out_with_its_networks() {
    let sandbox = Sandbox::new("networks");
    sandbox
        .docker
        .add(web("asteroid-two", "10.2.0.2").with_network("backyard", "10.3.0.2"));
    sandbox.docker.add(web("asteroid-one", "10.2.0.3"));
    sandbox
        .sync(&[])
        .exits(0)
        .says(&["asteroid-two", "apps", "backyard"]);
    assert_eq!(sandbox.routes().all(), ["10.2.0.3:80"]);
    sandbox.sync(&["--network", "backyard"]).exits(0);
    assert!(sandbox.routes().has("10.3.0.2:80"));
    // The network that HAProxy is on decides when nothing is said.
    let mut haproxy = Container::new("haproxy", "10.2.0.9");
    haproxy.created -= 100;
    sandbox.docker.add(haproxy);
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.3:80"]);
}

/// Puts a good config in place, then gives the world something new to say.
fn standing(name: &str) -> (Sandbox, String) {
    let sandbox = Sandbox::new(name);
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0);
    let config = sandbox.config();
    assert!(config.contains("10.2.0.2:80"));
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    (sandbox, config)
}

#[track_caller]
fn stands(sandbox: &Sandbox, config: &str, output: Output, words: &[&str]) {
    let output = output.exits(1).says(words).says(&["error"]);
    assert_eq!(output.stdout, "");
    assert_eq!(sandbox.config(), config, "the running config stands");
    assert_eq!(sandbox.leftovers(), [""; 0], "no staged file stays behind");
}

/// After the fault is mended the next run does what was owed.
#[track_caller]
fn heals(sandbox: &Sandbox) {
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.3:80"]);
    let last = sandbox.script.calls().pop().expect("a reload");
    assert_eq!(
        (last.mode.as_str(), last.config),
        ("reload", sandbox.config())
    );
}

#[test]
fn a_missing_script_breaks_nothing() {
    let (sandbox, config) = standing("no-script");
    let hidden = sandbox.root.join("hidden");
    fs::rename(sandbox.script.path(), &hidden).expect("renamed");
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["script.sh", "hint"]);
    fs::rename(hidden, sandbox.script.path()).expect("renamed");
    heals(&sandbox);
}

#[test]
fn a_script_that_is_not_executable_breaks_nothing() {
    let (sandbox, config) = standing("not-exec");
    fs::set_permissions(sandbox.script.path(), fs::Permissions::from_mode(0o644)).expect("chmod");
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["script.sh", "chmod"]);
    fs::set_permissions(sandbox.script.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    heals(&sandbox);
}

#[test]
fn a_refused_config_is_never_swapped_in() {
    let (sandbox, config) = standing("refused");
    let before = sandbox.script.of("reload").len();
    sandbox.script.on(
        "check",
        "echo '[ALERT] parsing [x:3]: unknown keyword frobnicate' >&2; status=1",
    );
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["unknown keyword frobnicate"]);
    assert_eq!(
        sandbox.script.of("reload").len(),
        before,
        "no reload after a refusal"
    );
    sandbox.script.well("check");
    heals(&sandbox);
}

#[test]
fn a_check_that_cannot_be_made_is_warned_about_and_passed() {
    let (sandbox, _) = standing("uncheckable");
    sandbox
        .script
        .on("check", "echo 'no haproxy here' >&2; status=3");
    sandbox.sync(&[]).exits(0).says(&["warn", "check"]);
    assert!(sandbox.routes().has("10.2.0.3:80"));
}

#[test]
fn a_failed_reload_puts_the_last_good_file_back_and_stays_owed() {
    let (sandbox, config) = standing("reload-fails");
    let before = sandbox.script.of("reload").len();
    sandbox.script.on(
        "reload",
        "if grep -q 10.2.0.3 \"$2\"; then echo 'cannot bind socket [:::80]' >&2; status=5; fi",
    );
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["cannot bind socket"]);
    let reloads = sandbox.script.of("reload").split_off(before);
    assert!(
        reloads[0].config.contains("10.2.0.3"),
        "the new one was tried"
    );
    let last = reloads.last().expect("a reload");
    assert_eq!(last.config, config, "and the old one was made live again");
    sandbox.script.well("reload");
    heals(&sandbox);
}

/// A file that cannot be replaced in one step has the old bytes again where there is no room for the new ones.
#[test]
fn a_mounted_file_on_a_full_disk_stays_whole() {
    if tmpfs::left_out() {
        return;
    }
    let sandbox = Sandbox::new("mounted-full");
    let small = sandbox.root.join("small");
    fs::create_dir_all(&small).expect("a folder");
    let disk = Tmpfs::over(&small, 8);
    let bound = Bound::file(&small.join("haproxy.cfg"), &sandbox.config_path());
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0).says(&["written in place"]);
    let config = sandbox.config();
    assert!(config.contains("10.2.0.2:80"));
    for container in crowd(200).split_off(100) {
        sandbox.docker.add(container);
    }
    let output = sandbox.sync(&[]);
    let words = [
        "cannot write into",
        "no space left",
        "the old file is still in place",
    ];
    stands(&sandbox, &config, output, &words);
    drop((bound, disk));
}

#[test]
fn a_last_good_file_that_cannot_be_put_back_is_not_said_to_be_there() {
    let (sandbox, _) = standing("not-back");
    sandbox.script.on(
        "reload",
        "rm -f \"$2\"; mkdir \"$2\"; echo 'odd trouble' >&2; status=5",
    );
    let output = sandbox.sync(&[]).exits(1);
    let output = output.says(&["odd trouble", "cannot be put back", "a folder of that name"]);
    assert!(!output.stderr.contains("was put back"), "{output}");
    fs::remove_dir(sandbox.config_path()).expect("removed");
    sandbox.script.well("reload");
    heals(&sandbox);
}

/// Somebody's own config, in the encoding of his time.
#[test]
fn a_first_config_that_is_not_in_utf_8_is_put_back_too() {
    let sandbox = Sandbox::new("latin");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    let own = b"# f\xfcr alle\nfrontend own\n    bind :80\n";
    fs::write(sandbox.config_path(), own).expect("a config");
    let fragment = "if ! grep -q 'frontend own' \"$2\"; then echo 'odd trouble' >&2; status=5; fi";
    sandbox.script.on("reload", fragment);
    sandbox
        .sync(&[])
        .exits(1)
        .says(&["odd trouble", "was put back and is live"]);
    assert_eq!(fs::read(sandbox.config_path()).expect("a config"), own);
}

#[test]
fn a_haproxy_that_is_down_takes_the_file_when_it_starts() {
    let (sandbox, _) = standing("down");
    sandbox
        .script
        .on("reload", "echo 'haproxy is not running' >&2; status=4");
    sandbox
        .sync(&[])
        .exits(0)
        .says(&["not running", "haproxy is not running"]);
    assert!(
        sandbox.routes().has("10.2.0.3:80"),
        "the new file waits for it"
    );
    sandbox.script.well("reload");
    let before = sandbox.script.of("reload").len();
    sandbox.sync(&[]).exits(0);
    assert_eq!(
        sandbox.script.of("reload").len(),
        before + 1,
        "the reload was still owed"
    );
}

#[test]
fn a_script_without_a_word_is_told_by_what_it_means() {
    let (sandbox, _) = standing("wordless");
    sandbox.script.on("check", "status=3");
    sandbox.script.on("reload", "status=4");
    let output = sandbox.sync(&[]).exits(0).says(&[
        "configs are installed unchecked: ",
        "cannot check here (exit code 3)",
        "HAProxy is not running",
    ]);
    assert!(!output.stderr.contains("()"), "{output}");
}

#[test]
fn a_script_that_hangs_is_ended_with_all_its_children() {
    let (sandbox, config) = standing("hangs");
    let pid_file = sandbox.root.join("grandchild");
    sandbox.script.on(
        "check",
        &format!(
            "sleep 300 & echo $! > '{}'; echo 'still thinking' >&2; wait",
            pid_file.display()
        ),
    );
    let begun = Instant::now();
    let output = sandbox.sync(&["--script-timeout", "400ms"]);
    assert!(
        begun.elapsed() < Duration::from_secs(15),
        "took {:?}",
        begun.elapsed()
    );
    stands(&sandbox, &config, output, &["400ms", "still thinking"]);
    let pid = fs::read_to_string(pid_file).expect("the grandchild wrote its pid");
    wait_for("the grandchild's end", SOON, || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
    sandbox.script.well("check");
    heals(&sandbox);
}

#[test]
fn a_grandchild_that_keeps_the_output_open_holds_nothing_up() {
    let (sandbox, _) = standing("grandchild");
    let pid_file = sandbox.root.join("grandchild");
    let fragment = format!("sleep 300 & echo $! > '{}'", pid_file.display());
    sandbox.script.on("reload", &fragment);
    let begun = Instant::now();
    sandbox.sync(&["--script-timeout", "20s"]).exits(0);
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "took {:?}",
        begun.elapsed()
    );
    assert!(sandbox.routes().has("10.2.0.3:80"));
    let pid = fs::read_to_string(pid_file).expect("its pid");
    let _ = Command::new("/bin/sh")
        .args(["-c", &format!("kill {pid} 2>/dev/null")])
        .status();
}

#[test]
fn a_script_that_talks_without_end_costs_no_memory() {
    let (sandbox, config) = standing("talks");
    sandbox.script.on("check", "head -c 20000000 /dev/zero | tr '\\0' 'x' >&2; echo >&2; echo 'the last word' >&2; status=1");
    let output = sandbox.sync(&[]);
    assert!(
        output.stderr.len() < 100_000,
        "{} bytes on stderr",
        output.stderr.len()
    );
    stands(&sandbox, &config, output, &["the last word"]);
}

#[test]
fn a_config_folder_that_is_missing_is_named() {
    let sandbox = Sandbox::new("no-folder");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    let path = sandbox
        .root
        .join("not/there/haproxy.cfg")
        .display()
        .to_string();
    sandbox
        .sync(&["--config", &path])
        .exits(1)
        .says(&["not/there", "hint"]);
    assert_eq!(sandbox.script.of("reload").len(), 0);
    let file = sandbox.root.join("file");
    fs::write(&file, "x").expect("a file");
    let path = file.join("haproxy.cfg").display().to_string();
    sandbox.sync(&["--config", &path]).exits(1).says(&[&path]);
    assert_eq!(sandbox.script.of("reload").len(), 0);
}

/// The same command as a user without rights; the binary is copied where that user can start it.
fn as_nobody(sandbox: &Sandbox, more: &[&str]) -> Command {
    let copy = sandbox.root.join("cosmonaut");
    fs::copy(env!("CARGO_BIN_EXE_cosmonaut"), &copy).expect("a copy of the binary");
    let usual = sandbox.usual();
    let mut command = Command::new(copy);
    command
        .arg("sync")
        .args(usual)
        .args(more)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/");
    if is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

#[test]
fn a_docker_socket_without_permission_names_the_group() {
    let sandbox = Sandbox::new("denied");
    fs::set_permissions(sandbox.state(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let socket = sandbox.root.join("d.sock");
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).expect("chmod");
    let output = sandbox.finish(as_nobody(&sandbox, &[]));
    output
        .exits(1)
        .says(&["permission denied", "d.sock", "docker", "group", "hint"]);
    assert_eq!(sandbox.script.calls().len(), 0);
}

#[test]
fn a_config_folder_without_permission_is_named() {
    let sandbox = Sandbox::new("read-only");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    fs::set_permissions(
        sandbox.root.join("d.sock"),
        fs::Permissions::from_mode(0o777),
    )
    .expect("chmod");
    for folder in ["state", "script/calls"] {
        fs::set_permissions(sandbox.root.join(folder), fs::Permissions::from_mode(0o777))
            .expect("chmod");
    }
    let closed = sandbox.root.join("closed");
    fs::create_dir(&closed).expect("a folder");
    let config = closed.join("haproxy.cfg");
    fs::write(&config, "# the operator's\n").expect("a config");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o555)).expect("chmod");
    let path = config.display().to_string();
    let output = sandbox.finish(as_nobody(&sandbox, &["--config", &path]));
    output
        .exits(1)
        .says(&["closed", "permission denied", "hint"]);
    assert_eq!(
        fs::read_to_string(&config).expect("it stands"),
        "# the operator's\n"
    );
    assert_eq!(sandbox.script.of("reload").len(), 0);
}

#[test]
fn an_unreachable_docker_is_named_with_what_to_check() {
    let (mut sandbox, config) = standing("unreachable");
    sandbox.docker.kill_daemon();
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["d.sock", "refused", "hint"]);
    sandbox.docker.stop_daemon();
    let _ = fs::remove_file(sandbox.root.join("d.sock"));
    let output = sandbox.sync(&[]);
    stands(&sandbox, &config, output, &["d.sock", "hint"]);
    let output = sandbox.sync(&["-H", "tcp://127.0.0.1:1"]);
    stands(
        &sandbox,
        &config,
        output,
        &["tcp://127.0.0.1:1", "refused", "hint"],
    );
}

/// Bad answers of Docker, what they answer to, and words that must name them.
#[test]
fn a_docker_that_answers_wrongly_breaks_nothing() {
    let html = |status: &str| {
        Reply::Raw(crate::support::wire::answer(
            status,
            "text/html",
            "<html><body><h1>no</h1></body></html>",
        ))
    };
    let cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n[{\"Id\":".to_vec();
    let short = b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n[]".to_vec();
    let json = |body: &str| {
        Reply::Raw(crate::support::wire::answer(
            "200 OK",
            "application/json",
            body,
        ))
    };
    let cases: Vec<(&str, Reply, &[&str])> = vec![
        (
            "list: 500",
            Reply::Raw(crate::support::wire::answer(
                "500 Internal Server Error",
                "application/json",
                r#"{"message":"layer does not exist"}"#,
            )),
            &["500", "layer does not exist"],
        ),
        ("list: HTML 403", html("403 Forbidden"), &["403"]),
        ("list: HTML 503", html("503 Service Unavailable"), &["503"]),
        ("list: cut in a chunk", Reply::Raw(cut), &["list"]),
        (
            "list: shorter than its length",
            Reply::Raw(short),
            &["list"],
        ),
        ("list: closed", Reply::closed(), &["list"]),
        (
            "list: garbage",
            Reply::Raw(b"\x16\x03\x01\x02garbage\r\n\r\n".to_vec()),
            &["list"],
        ),
        ("list: no JSON", json("nonsense"), &["list"]),
        ("list: an object", json("{}"), &["list"]),
        ("list: null", json("null"), &["list"]),
        ("list: endless head", Reply::EndlessHead, &["list"]),
        (
            "list: redirect",
            Reply::Raw(
                b"HTTP/1.1 301 Moved Permanently\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n"
                    .to_vec(),
            ),
            &["301"],
        ),
    ];
    let (sandbox, config) = standing("wrong-answers");
    let mut wrong = Vec::new();
    for (name, reply, words) in cases {
        sandbox
            .docker
            .misbehave("/containers/json", usize::MAX, reply);
        let before = sandbox.script.calls().len();
        let output = sandbox.sync(&[]);
        if output.code() != Some(1) {
            wrong.push(format!("{name}: {output}"));
        }
        for word in words {
            if !output.stderr.to_lowercase().contains(word) {
                wrong.push(format!("{name}: does not say {word:?}; {output}"));
            }
        }
        if sandbox.config() != config || sandbox.script.calls().len() != before {
            wrong.push(format!("{name}: the running config does not stand"));
        }
        sandbox.docker.behave();
        if sandbox.config() != config {
            // What one answer broke is not blamed on the next.
            std::fs::write(sandbox.config_path(), &config).expect("put back");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    heals(&sandbox);
}

#[test]
fn an_inspect_that_says_gone_means_gone() {
    let sandbox = Sandbox::new("gone");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    let gone = crate::support::wire::answer(
        "404 Not Found",
        "application/json",
        r#"{"message":"No such container: x"}"#,
    );
    let id = sandbox.docker.id("asteroid-b");
    sandbox.docker.misbehave(&id, usize::MAX, Reply::Raw(gone));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80"]);
}

/// Found by the fault campaign: a `sync` knows nothing from before, so an inspect that failed took the container away,
/// with exit code 0.
#[test]
fn an_inspect_that_fails_takes_nobody_away() {
    takes_nobody_away(&Sandbox::new("unseen"));
}

/// The same where nobody but HAProxy's config knows the service of a container that Docker does not tell of.
#[test]
fn an_inspect_that_fails_takes_nobody_away_with_cosmos() {
    takes_nobody_away(&Sandbox::cosmos("unseen-cosmos"));
}

fn takes_nobody_away(sandbox: &Sandbox) {
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    let alone = Container::serving("asteroid-d", "10.2.0.9", "api", "api.example");
    sandbox.docker.add(alone.with_env("COOKIE", "S"));
    sandbox.sync(&[]).exits(0);
    for name in ["asteroid-b", "asteroid-d"] {
        let id = sandbox.docker.id(name);
        let reply = Reply::broken();
        sandbox.docker.misbehave(&id, usize::MAX, reply);
    }
    for (name, ip) in [("asteroid-c", "10.2.0.4"), ("asteroid-e", "10.2.0.5")] {
        sandbox.docker.add(web(name, ip));
        sandbox
            .sync(&[])
            .exits(1)
            .says(&["broken", "stands", "not all containers"]);
        let routes = sandbox.routes();
        for address in ["10.2.0.2:80", "10.2.0.3:80", "10.2.0.9:80"] {
            assert!(routes.has(address), "{}", sandbox.config());
        }
        assert!(routes.has(&format!("{ip}:80")), "the others go on");
        assert_eq!(routes.rules["api"], ["api.example"]);
    }
    // One that went meanwhile goes, inspected or not.
    sandbox.docker.remove("asteroid-b");
    sandbox.sync(&[]).exits(1);
    assert!(!sandbox.routes().has("10.2.0.3:80"));
    assert!(sandbox.routes().has("10.2.0.9:80"));
}

/// What HAProxy took is written down in two files, and the second one is missing after a kill between them.
#[test]
fn an_inspect_that_fails_takes_nobody_away_after_half_a_memory() {
    let sandbox = Sandbox::new("half");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0);
    let taken = sandbox.state().join("taken.json");
    let earlier = fs::read(&taken).expect("what was taken first");
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    sandbox.sync(&[]).exits(0);
    fs::write(&taken, earlier).expect("as before");
    let id = sandbox.docker.id("asteroid-b");
    sandbox.docker.misbehave(&id, usize::MAX, Reply::broken());
    sandbox.docker.add(web("asteroid-c", "10.2.0.4"));
    sandbox.sync(&[]).exits(1).says(&["broken", "stands"]);
    let all = ["10.2.0.2:80", "10.2.0.3:80", "10.2.0.4:80"];
    assert_eq!(sandbox.routes().all(), all);
}

/// Found by the fault campaign: exit code 0, and a new container was not there.
#[test]
fn an_inspect_that_fails_once_is_tried_again() {
    let sandbox = Sandbox::new("again");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    let broken = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{".to_vec();
    let id = sandbox.docker.id("asteroid-b");
    sandbox.docker.misbehave(&id, 1, Reply::Raw(broken));
    sandbox.sync(&[]).exits(0).says(&["next try in 1s"]);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.3:80"]);
}

#[test]
fn an_idle_connection_that_the_daemon_closed_is_tried_once_more() {
    let sandbox = Sandbox::new("reused");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    let id = sandbox.docker.id("asteroid-a");
    sandbox.docker.misbehave(&id, 1, Reply::closed());
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80"]);
}

#[test]
fn a_slow_daemon_is_waited_for() {
    let sandbox = Sandbox::new("slow");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox
        .docker
        .misbehave("/_ping", 1, Reply::Late(Duration::from_secs(4)));
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80"]);
}

#[test]
fn a_table_names_the_state_file_of_the_built_in_registry() {
    let sandbox = Sandbox::new("table");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&["--cosmos-table", "office"]).exits(0);
    assert!(sandbox.state().join("office.json").exists());
    sandbox.sync(&[]).exits(0);
    assert!(sandbox.state().join("cosmonaut.json").exists());
}

/// It may have the very file mounted, and would never see another one in its place.
#[test]
fn a_haproxy_that_docker_does_not_tell_of_keeps_its_file() {
    use std::os::unix::fs::MetadataExt;
    let sandbox = Sandbox::new("untold");
    let path = sandbox.config_path();
    let source = path.display().to_string();
    let haproxy = Container::new("haproxy", "10.2.0.200");
    sandbox
        .docker
        .add(haproxy.with_mount(&source, "/usr/local/etc/haproxy/haproxy.cfg"));
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0);
    let inode = || fs::metadata(&path).expect("the file").ino();
    let mounted = inode();
    let id = sandbox.docker.id("haproxy");
    sandbox.docker.misbehave(&id, usize::MAX, Reply::broken());
    sandbox.docker.add(web("asteroid-b", "10.2.0.3"));
    sandbox.sync(&[]).says(&["may be mounted"]);
    assert_eq!(sandbox.routes().all(), ["10.2.0.2:80", "10.2.0.3:80"]);
    assert_eq!(inode(), mounted, "the file that HAProxy has mounted");
}

#[test]
fn a_config_changed_behind_our_back_is_put_right() {
    let sandbox = Sandbox::new("behind");
    sandbox.docker.add(web("asteroid-a", "10.2.0.2"));
    sandbox.sync(&[]).exits(0);
    let config = sandbox.config();
    fs::write(sandbox.config_path(), "# somebody was here\n").expect("written");
    sandbox.sync(&[]).exits(0);
    assert_eq!(sandbox.config(), config);
}

#[test]
fn the_configs_mode_is_kept() {
    let (sandbox, _) = standing("mode");
    fs::set_permissions(sandbox.config_path(), fs::Permissions::from_mode(0o640)).expect("chmod");
    sandbox.sync(&[]).exits(0);
    assert!(sandbox.routes().has("10.2.0.3:80"));
    let mode = fs::metadata(sandbox.config_path())
        .expect("the config")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o640);
}

/// The words on stdout are of what changed since HAProxy last took a config, not since the last write.
#[test]
fn sync_says_what_changed() {
    let sandbox = Sandbox::new("sync-words");
    sandbox.docker.add(web("asteroid-1", "10.2.0.2"));
    let first = sandbox.sync(&[]).exits(0);
    assert_eq!(first.stdout, "first config: 1 service, 1 server\n");
    let second = Container::serving("asteroid-2", "10.2.0.3", "api", "api.example");
    sandbox.docker.add(second);
    let said = sandbox.sync(&[]).exits(0).stdout;
    assert!(said.starts_with("added api, +api/"), "{said}");
    assert!(said.ends_with("; now 2 services, 2 servers\n"), "{said}");
}
