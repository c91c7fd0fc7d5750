//! The soak: random life on a real Docker daemon of its own, two real HAProxies in containers, one `watch` for each (one
//! asks the built-in registry, one a Cosmos that fails now and then), a load through both, and a checker of its own.
//! Run by scripts/soak, which says what is needed; it writes the report and fails when something was lost.
//!
//! It is a bench target only so that `cargo test` leaves it out. It knows nothing of our own code: Docker's truth comes
//! from the docker command, HAProxy's from its master socket, and what users get from requests.

mod checker;
mod life;
mod load;
mod log;
mod report;
#[allow(
    dead_code,
    unused_imports,
    reason = "the integration tests use what this does not"
)]
#[path = "../it/support/mod.rs"]
mod support;
mod watched;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use checker::Checker;
use life::Life;
use load::Load;
use log::{Log, now};
use support::deadline::wait_for;
use support::fake_cosmos::FakeCosmos;
use support::real_docker::{BUSYBOX, Docker, HAPROXY};
use watched::Watched;

/// Services, and containers of each at most. The first container of the first two services is never touched.
const SERVICES: usize = 6;
const SLOTS: usize = 3;
const STEADY_SERVICES: usize = 2;

/// The containers' network, in the daemon's own namespace: dynamic addresses in its lower half, HAProxies above.
const SUBNET: (&str, &str) = ("10.231.0.0/24", "10.231.0.0/25");
/// How long everything is left alone at the end before it is looked at for the last time.
const QUIET: Duration = Duration::from_secs(20);
/// Memory at the start is measured after this time: by then each kind of pass has run.
const WARM: Duration = Duration::from_secs(120);

/// One of the two HAProxies.
struct Site {
    /// `built-in` or `cosmos`: its registry.
    kind: &'static str,
    haproxy: String,
    ip: &'static str,
    /// HAProxy's master socket, as this machine sees it.
    master: PathBuf,
    state: PathBuf,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    match words.split_first() {
        Some((first, sites)) if first == "load" => {
            load::run(sites);
            ExitCode::SUCCESS
        }
        Some((minutes, _)) => match minutes.parse::<f64>() {
            Ok(minutes) if minutes > 0.0 => soak(Duration::from_secs_f64(minutes * 60.0)),
            _ => usage(),
        },
        None => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: soak MINUTES (see scripts/soak)");
    ExitCode::from(2)
}

fn soak(span: Duration) -> ExitCode {
    let seed = std::env::var("SOAK_SEED")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| now().to_bits());
    let mut docker = Docker::own(&[BUSYBOX, HAPROXY]);
    let root = std::env::temp_dir().join(format!("csm-soak-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    let network = docker.name("net");
    docker.run(&[
        "network",
        "create",
        "--subnet",
        SUBNET.0,
        "--ip-range",
        SUBNET.1,
        &network,
    ]);
    let cosmos = Arc::new(FakeCosmos::start());
    let log = Log::default();
    let mut sites = Vec::new();
    let mut watches = Vec::new();
    for (kind, ip) in [("built-in", "10.231.0.250"), ("cosmos", "10.231.0.251")] {
        let (site, watched) = start(&docker, &network, &cosmos, &root, kind, ip);
        sites.push(site);
        watches.push(watched);
    }
    let sites = Arc::new(sites);
    let pid = docker.namespace_pid().expect("a daemon of our own");
    let load = Load::start(pid, &sites, &log);
    let ends = Arc::new(AtomicBool::new(false));
    let checker = Checker::start(&docker, Arc::clone(&sites), log.clone(), Arc::clone(&ends));

    let began = Instant::now();
    let mut life = Life::new(seed, network, Arc::clone(&sites), log.clone());
    let mut told = Instant::now();
    let mut dead = Vec::new();
    while began.elapsed() < span {
        life.step(&mut docker, &cosmos);
        for watched in &mut watches {
            watched.sample(began.elapsed() >= WARM.min(span / 4));
            if let Some(how) = watched.ended() {
                dead.push(format!("{} ended by itself: {how}", watched.kind));
            }
        }
        if !dead.is_empty() {
            break;
        }
        if told.elapsed() >= Duration::from_secs(60) {
            told = Instant::now();
            eprintln!(
                "soak: {:.0} of {:.0} minutes; {}",
                began.elapsed().as_secs_f64() / 60.0,
                span.as_secs_f64() / 60.0,
                log.summary()
            );
        }
    }
    life.calm(&mut docker, &cosmos);
    std::thread::sleep(QUIET);
    let ran = began.elapsed();
    for watched in &mut watches {
        watched.sample(true);
    }
    let requests = load.end();
    ends.store(true, Ordering::Relaxed);
    let checked = checker.join().expect("the checker ended in good order");
    let watched: Vec<_> = watches
        .into_iter()
        .map(|watched| watched.end(&log))
        .collect();
    let text = report::write(&report::Soak {
        seed,
        ran,
        log: &log,
        requests: &requests,
        checked: &checked,
        watched: &watched,
        dead: &dead,
        sites: &sites,
    });
    print!("{}", text.body);
    if text.good {
        let _ = fs::remove_dir_all(&root);
        ExitCode::SUCCESS
    } else {
        eprintln!("soak: logs are kept in {}", root.display());
        ExitCode::FAILURE
    }
}

/// A HAProxy with a first config from `sync`, and the `watch` that keeps it in step.
fn start(
    docker: &Docker,
    network: &str,
    cosmos: &FakeCosmos,
    root: &std::path::Path,
    kind: &'static str,
    ip: &'static str,
) -> (Site, Watched) {
    let (state, run) = (root.join(kind), root.join(format!("{kind}-run")));
    for (folder, mode) in [(&state, 0o755), (&run, 0o777)] {
        fs::create_dir_all(folder).expect("a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(mode)).expect("its mode");
    }
    let site = Site {
        kind,
        haproxy: docker.name(&format!("haproxy-{kind}")),
        ip,
        master: run.join("master.sock"),
        state,
    };
    let socket = run.join("admin.sock");
    let mut options: Vec<String> = [
        "--docker-host",
        &docker.docker_host(),
        "--state-dir",
        &site.state.display().to_string(),
        "--keyword",
        &docker.prefix,
        "--haproxy-container",
        &site.haproxy,
        "--weave",
        "never",
    ]
    .map(str::to_owned)
    .to_vec();
    if kind == "cosmos" {
        options
            .extend(["--cosmos-url", &cosmos.url(), "--cosmos-table", "soak"].map(str::to_owned));
    } else {
        options.extend(["--haproxy-socket", &socket.display().to_string()].map(str::to_owned));
    }
    if kind == "cosmos" {
        // A real Cosmos gives no config before there is a service; HAProxy needs a file to start with.
        let first = "defaults\n    mode http\n    timeout connect 1s\n    timeout client 9s\n    timeout server 9s\nfrontend http\n    bind :80\n";
        fs::write(site.state.join("haproxy.cfg"), first).expect("a first config");
    } else {
        Watched::sync(&options);
    }
    let (config, shared) = (
        format!("{}:/usr/local/etc/haproxy:ro", site.state.display()),
        format!("{0}:{0}", run.display()),
    );
    let master = site.master.display().to_string();
    docker.start(
        &format!("haproxy-{kind}"),
        &[
            "--network",
            network,
            "--ip",
            ip,
            "--restart",
            "always",
            "--stop-signal",
            "SIGUSR1",
            "-v",
            &config,
            "-v",
            &shared,
            HAPROXY,
            "haproxy",
            "-S",
            &master,
            "-f",
            "/usr/local/etc/haproxy/haproxy.cfg",
        ],
    );
    wait_for("HAProxy's master socket", Duration::from_secs(20), || {
        checker::servers(&site.master).ok()
    });
    let watched = Watched::start(kind, &site.state, root, &options);
    (site, watched)
}
