//! The independent checker: every second it compares what Docker says runs (the docker command) with the servers that
//! HAProxy has (its master socket), and when they differ it looks ten times a second until they agree.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::Site;
use crate::log::{Away, Log, now};
use crate::support::deadline::poll;
use crate::support::real_docker::Docker;

const EVERY: Duration = Duration::from_secs(1);
const EVERY_WHILE_DIFFERENT: Duration = Duration::from_millis(100);
const SOCKET_MAX: Duration = Duration::from_secs(2);
const RELOADING_MAX: Duration = Duration::from_secs(6);

/// Service -> `IP:PORT` of each instance.
type Servers = BTreeMap<String, BTreeSet<String>>;

/// A time during which HAProxy had other servers than Docker containers.
#[derive(Debug, Clone)]
pub struct Apart {
    pub site: usize,
    pub from: f64,
    pub to: f64,
    /// When Docker's truth last changed within it: from then on nothing but us was late.
    pub changed: f64,
    /// What differed, at its end.
    pub what: String,
}

impl Apart {
    /// Whether it lasted into this time, or ended just before: a look takes a moment.
    pub fn meets(&self, from: f64, to: f64) -> bool {
        self.from <= to && self.to + 1.0 >= from
    }
}

/// What the checker saw.
#[derive(Default)]
pub struct Checked {
    pub looks: u64,
    pub apart: Vec<Apart>,
    /// Looks at which Docker or a HAProxy did not answer.
    pub blind: u64,
    /// When which (service, slot) ran, look by look.
    pub ran: Vec<(f64, BTreeSet<(usize, usize)>)>,
}

pub struct Checker {
    host: String,
    prefix: String,
    sites: Arc<Vec<Site>>,
    log: Log,
    ends: Arc<AtomicBool>,
}

struct Truth {
    servers: Servers,
    slots: BTreeSet<(usize, usize)>,
}

impl Checker {
    pub fn start(
        docker: &Docker,
        sites: Arc<Vec<Site>>,
        log: Log,
        ends: Arc<AtomicBool>,
    ) -> thread::JoinHandle<Checked> {
        let checker = Checker {
            host: docker.docker_host(),
            prefix: docker.prefix.clone(),
            sites,
            log,
            ends,
        };
        thread::spawn(move || checker.run())
    }

    fn run(&self) -> Checked {
        let mut checked = Checked::default();
        let mut open: Vec<Option<Apart>> = vec![None; self.sites.len()];
        let mut last = Servers::new();
        loop {
            let began = Instant::now();
            let ending = self.ends.load(Ordering::Relaxed);
            checked.looks += 1;
            let at = now();
            match self.truth() {
                None => checked.blind += 1,
                Some(truth) => {
                    let changed = truth.servers != last;
                    last.clone_from(&truth.servers);
                    checked.ran.push((at, truth.slots));
                    for (index, site) in self.sites.iter().enumerate() {
                        self.compare(
                            index,
                            site,
                            &last,
                            changed,
                            at,
                            &mut open[index],
                            &mut checked,
                        );
                    }
                }
            }
            if ending {
                for apart in open.into_iter().flatten() {
                    self.log
                        .fault(format!("out of step at the end: {}", apart.what));
                    checked.apart.push(apart);
                }
                return checked;
            }
            let every = if open.iter().any(Option::is_some) {
                EVERY_WHILE_DIFFERENT
            } else {
                EVERY
            };
            thread::sleep(every.saturating_sub(began.elapsed()));
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one step of the loop above")]
    fn compare(
        &self,
        index: usize,
        site: &Site,
        truth: &Servers,
        changed: bool,
        at: f64,
        open: &mut Option<Apart>,
        checked: &mut Checked,
    ) {
        // A master that re-executes itself for a reload refuses for a moment.
        let answer = poll(RELOADING_MAX, || servers(&site.master).ok());
        let has = match answer.map_or_else(|| servers(&site.master), Ok) {
            Ok(has) => has,
            Err(why) => {
                checked.blind += 1;
                let away = self.log.outages().iter().any(|(what, span)| {
                    *what != Away::Cosmos && what.concerns(index) && span.meets(at - 10.0, at)
                });
                if !away {
                    self.log
                        .fault(format!("{} does not answer: {why}", site.haproxy));
                }
                return;
            }
        };
        if has == *truth {
            if let Some(mut apart) = open.take() {
                apart.to = now();
                checked.apart.push(apart);
            }
            return;
        }
        let what = difference(truth, &has);
        let apart = open.get_or_insert(Apart {
            site: index,
            from: at,
            to: at,
            changed: at,
            what: String::new(),
        });
        if changed {
            apart.changed = at;
        }
        apart.to = now();
        apart.what = what;
    }

    fn docker(&self, args: &[&str]) -> Option<Vec<u8>> {
        let output = Command::new("timeout")
            .args(["10", "docker"])
            .args(args)
            .env("DOCKER_HOST", &self.host)
            .stdin(Stdio::null())
            .output()
            .ok()?;
        // A container that went between list and inspect is no failure; a daemon that went is.
        let words = String::from_utf8_lossy(&output.stderr);
        let gone = words.lines().all(|line| line.contains("No such object"));
        (output.status.success() || gone && !words.is_empty()).then_some(output.stdout)
    }

    /// Docker's truth: who runs, in the network, under a name of ours.
    fn truth(&self) -> Option<Truth> {
        let label = format!("label=cosmonaut-it={}", self.prefix);
        let ids = self.docker(&["ps", "-q", "--no-trunc", "--filter", &label])?;
        let ids = String::from_utf8_lossy(&ids).into_owned();
        let mut truth = Truth {
            servers: Servers::new(),
            slots: BTreeSet::new(),
        };
        let mut args = vec!["inspect"];
        args.extend(ids.split_whitespace());
        if args.len() == 1 {
            return Some(truth);
        }
        let json: Value = serde_json::from_slice(&self.docker(&args)?).ok()?;
        for one in json.as_array()? {
            let state = &one["State"];
            let is = |what: &str| state[what].as_bool() == Some(true);
            let name = one["Name"].as_str().unwrap_or("").trim_start_matches('/');
            let service = one["Config"]["Env"]
                .as_array()
                .into_iter()
                .flatten()
                .find_map(|pair| pair.as_str()?.strip_prefix("SERVICE_NAME="));
            let ip = one["NetworkSettings"]["Networks"]
                .as_object()
                .into_iter()
                .flatten()
                .find_map(|(_, network)| network["IPAddress"].as_str().filter(|ip| !ip.is_empty()));
            let runs = is("Running") && !is("Paused") && !is("Restarting") && !is("Dead");
            let (true, true, Some(service), Some(ip)) =
                (runs, name.contains(&self.prefix), service, ip)
            else {
                continue;
            };
            truth
                .servers
                .entry(service.to_owned())
                .or_default()
                .insert(format!("{ip}:8080"));
            let slot = name.rsplit_once("-s").and_then(|(_, rest)| {
                let (service, slot) = rest.split_once('-')?;
                Some((service.parse().ok()?, slot.parse().ok()?))
            });
            truth.slots.extend(slot);
        }
        Some(truth)
    }
}

fn difference(truth: &Servers, has: &Servers) -> String {
    let flat = |servers: &Servers| -> BTreeSet<String> {
        servers
            .iter()
            .flat_map(|(service, all)| all.iter().map(move |one| format!("{service}/{one}")))
            .collect()
    };
    let (truth, has) = (flat(truth), flat(has));
    let missing = truth.difference(&has).map(|one| format!("lacks {one}"));
    let extra = has.difference(&truth).map(|one| format!("still has {one}"));
    missing.chain(extra).collect::<Vec<_>>().join(", ")
}

/// The servers of a HAProxy that take new requests, by its master socket.
pub fn servers(master: &Path) -> Result<Servers, String> {
    let reply = ask(master, "@1 show servers state\n").map_err(|e| e.to_string())?;
    let mut lines = reply.lines();
    if lines.next() != Some("1") {
        return Err(format!("no list of servers: {:?}", reply.lines().next()));
    }
    let mut servers = Servers::new();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let (Some(backend), Some(ip), Some(admin), Some(port)) =
            (words.get(1), words.get(4), words.get(6), words.get(18))
        else {
            continue;
        };
        // Drained or in maintenance: it has the server, but sends nobody there.
        if *admin == "0" {
            let service = backend.strip_prefix("be_").unwrap_or(backend).to_owned();
            servers
                .entry(service)
                .or_default()
                .insert(format!("{ip}:{port}"));
        }
    }
    Ok(servers)
}

fn ask(master: &Path, command: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(master)?;
    stream.set_read_timeout(Some(SOCKET_MAX))?;
    stream.write_all(command.as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    Ok(reply)
}
