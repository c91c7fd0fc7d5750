//! Random life: one deed after another on the containers, the HAProxies, the daemon and the Cosmos, by the docker command.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::log::{Away, Log};
use crate::support::dice::Dice;
use crate::support::fake_cosmos::FakeCosmos;
use crate::support::real_docker::Docker;
use crate::support::wire::Reply;
use crate::{SERVICES, SLOTS, STEADY_SERVICES, Site};

/// Longest pause between two deeds.
const PAUSE_MAX: Duration = Duration::from_millis(1500);
/// Between two restarts of the daemon, of a HAProxy, and between two outages of the Cosmos: never less than this.
const DAEMON_EVERY: Duration = Duration::from_secs(420);
const HAPROXY_EVERY: Duration = Duration::from_secs(100);
const COSMOS_EVERY: Duration = Duration::from_secs(150);
/// Containers in one burst, at most.
const BURST_MAX: u64 = 8;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Absent,
    Running,
    Stopped,
    Paused,
    Renamed,
    Disconnected,
    /// A command failed: look before the next deed.
    Unsure,
}

pub struct Life {
    dice: Dice,
    network: String,
    sites: Arc<Vec<Site>>,
    log: Log,
    slots: Vec<State>,
    daemon_last: Instant,
    haproxy_last: Instant,
    cosmos_last: Instant,
    /// Answers again at this time; the outage itself is in the log.
    cosmos_back: Option<thread::JoinHandle<()>>,
    kills: usize,
}

impl Life {
    /// The same seed, the same life, as far as the machine's timing allows.
    pub fn new(seed: u64, network: String, sites: Arc<Vec<Site>>, log: Log) -> Life {
        Life {
            dice: Dice::new(seed | 1),
            network,
            sites,
            log,
            slots: vec![State::Absent; SERVICES * SLOTS],
            daemon_last: Instant::now(),
            haproxy_last: Instant::now(),
            cosmos_last: Instant::now(),
            cosmos_back: None,
            kills: 0,
        }
    }

    /// One deed, and the pause after it.
    pub fn step(&mut self, docker: &mut Docker, cosmos: &Arc<FakeCosmos>) {
        for service in 0..STEADY_SERVICES {
            if self.slots[service * SLOTS] == State::Absent {
                self.on_slot(docker, service * SLOTS);
            }
        }
        if self.cosmos_last.elapsed() > COSMOS_EVERY {
            self.cosmos_outage(cosmos);
        }
        if self.daemon_last.elapsed() > DAEMON_EVERY {
            self.restart_daemon(docker);
        } else if self.haproxy_last.elapsed() > HAPROXY_EVERY {
            self.restart_haproxy(docker);
        } else if self.dice.below(15) == 0 {
            self.burst(docker);
        } else {
            let slot = self.pick();
            self.on_slot(docker, slot);
        }
        let pause = self.dice.below(PAUSE_MAX.as_millis() as u64);
        thread::sleep(Duration::from_millis(pause));
    }

    /// Everything back in its place: nothing paused, renamed or away.
    pub fn calm(&mut self, docker: &mut Docker, cosmos: &Arc<FakeCosmos>) {
        if let Some(back) = self.cosmos_back.take() {
            let _ = back.join();
        }
        cosmos.always(None);
        for slot in 0..self.slots.len() {
            if matches!(
                self.slots[slot],
                State::Paused | State::Renamed | State::Disconnected
            ) {
                self.on_slot(docker, slot);
            }
        }
    }

    /// A container to do something to; more often one that is out, so that most are in.
    fn pick(&mut self) -> usize {
        let first = self.pick_any();
        match self.slots[first] {
            State::Running => self.pick_any(),
            _ => first,
        }
    }

    fn pick_any(&mut self) -> usize {
        loop {
            let slot = self.dice.roll(self.slots.len());
            if !slot.is_multiple_of(SLOTS) || slot / SLOTS >= STEADY_SERVICES {
                return slot;
            }
        }
    }

    fn burst(&mut self, docker: &Docker) {
        self.log.deed("burst");
        let mut all: Vec<(usize, State, u64)> = Vec::new();
        for _ in 0..=self.dice.below(BURST_MAX) {
            let slot = self.pick();
            if !all.iter().any(|(one, ..)| *one == slot) {
                all.push((slot, self.slots[slot], self.dice.number()));
            }
        }
        let (network, log) = (self.network.as_str(), &self.log);
        let after: Vec<(usize, State)> = thread::scope(|scope| {
            let running: Vec<_> = all
                .iter()
                .map(|&(slot, state, roll)| {
                    scope.spawn(move || (slot, deed(docker, network, log, slot, state, roll)))
                })
                .collect();
            running
                .into_iter()
                .map(|one| one.join().expect("a deed does not panic"))
                .collect()
        });
        for (slot, state) in after {
            self.slots[slot] = state;
        }
    }

    fn on_slot(&mut self, docker: &Docker, slot: usize) {
        let roll = self.dice.number();
        self.slots[slot] = deed(
            docker,
            &self.network,
            &self.log,
            slot,
            self.slots[slot],
            roll,
        );
    }

    fn restart_haproxy(&mut self, docker: &Docker) {
        self.haproxy_last = Instant::now();
        let site = self.dice.roll(self.sites.len());
        let name = self.sites[site].haproxy.clone();
        let hard = self.dice.below(2) == 0;
        self.log.deed(if hard {
            "kill HAProxy"
        } else {
            "restart HAProxy"
        });
        let log = self.log.clone();
        log.away(Away::Haproxy(site), || {
            if hard {
                let _ = docker.try_run(&["kill", &name]);
                // It is missed by a few changes.
                for _ in 0..self.dice.below(3) {
                    let slot = self.pick();
                    self.on_slot(docker, slot);
                }
                let _ = docker.try_run(&["start", &name]);
            } else {
                let _ = docker.try_run(&["restart", "-t", "3", &name]);
            }
        });
    }

    fn restart_daemon(&mut self, docker: &mut Docker) {
        let signal = if self.kills.is_multiple_of(2) {
            "TERM"
        } else {
            "KILL"
        };
        self.kills += 1;
        self.log.deed(if signal == "TERM" {
            "restart dockerd"
        } else {
            "kill -9 dockerd"
        });
        let away = Duration::from_millis(self.dice.below(8000));
        let log = self.log.clone();
        log.away(Away::Dockerd, || {
            docker.end_daemon(signal);
            thread::sleep(away);
            docker.start_daemon();
            // Up again is when the HAProxies, which it restarts, are.
            for site in self.sites.iter() {
                crate::support::deadline::poll(Duration::from_secs(60), || {
                    crate::checker::servers(&site.master).ok()
                });
            }
        });
        self.slots.fill(State::Unsure);
        for slot in 0..self.slots.len() {
            self.slots[slot] = look(docker, slot);
        }
        self.daemon_last = Instant::now();
        self.haproxy_last = Instant::now();
    }

    fn cosmos_outage(&mut self, cosmos: &Arc<FakeCosmos>) {
        self.cosmos_last = Instant::now();
        self.log.deed("Cosmos outage");
        let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
        let reply = match self.dice.below(4) {
            0 => raw("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
            1 => raw(
                "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 29\r\n\r\n{\"message\":\"Timed out\"}      ",
            ),
            2 => raw(""),
            _ => raw("HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n\"global\\n"),
        };
        let span = Duration::from_millis(3000 + self.dice.below(20_000));
        let (log, cosmos) = (self.log.clone(), Arc::clone(cosmos));
        cosmos.always(Some(reply));
        self.cosmos_back = Some(thread::spawn(move || {
            log.away(Away::Cosmos, || thread::sleep(span));
            cosmos.always(None);
        }));
    }
}

/// What Docker says of a slot.
fn look(docker: &Docker, slot: usize) -> State {
    let name = name(docker, slot);
    let away = elsewhere(&name);
    let told = |name: &str| {
        docker.try_run(&[
            "inspect",
            "--format",
            "{{.State.Running}} {{.State.Paused}} {{len .NetworkSettings.Networks}}",
            name,
        ])
    };
    match (told(&name), told(&away)) {
        (Err(_), Ok(_)) => State::Renamed,
        (Err(_), Err(_)) => State::Absent,
        (Ok(said), _) => match said.split(' ').collect::<Vec<_>>().as_slice() {
            ["true", "true", _] => State::Paused,
            [_, _, "0"] => State::Disconnected,
            ["true", ..] => State::Running,
            _ => State::Stopped,
        },
    }
}

fn name(docker: &Docker, slot: usize) -> String {
    docker.name(&format!("s{}-{}", slot / SLOTS, slot % SLOTS))
}

/// A name without the keyword.
fn elsewhere(name: &str) -> String {
    name.chars().rev().collect()
}

fn deed(docker: &Docker, network: &str, log: &Log, slot: usize, state: State, roll: u64) -> State {
    let name = name(docker, slot);
    let away = elsewhere(&name);
    let run = |what: &'static str, args: &[&str], then: State| {
        log.deed(what);
        match docker.try_run(args) {
            Ok(_) => then,
            Err(_) => State::Unsure,
        }
    };
    log.touch((slot / SLOTS, slot % SLOTS), || match state {
        State::Unsure => look(docker, slot),
        State::Absent => {
            log.deed("run");
            serve(docker, network, slot)
        }
        State::Stopped if roll.is_multiple_of(4) => run("rm", &["rm", "-v", &name], State::Absent),
        State::Stopped => run("start", &["start", &name], State::Running),
        State::Paused => run("unpause", &["unpause", &name], State::Running),
        State::Renamed => run("rename", &["rename", &away, &name], State::Running),
        State::Disconnected => run(
            "network connect",
            &["network", "connect", network, &name],
            State::Running,
        ),
        State::Running => match roll % 10 {
            0 | 1 => run("stop", &["stop", "-t", "3", &name], State::Stopped),
            2 | 3 => run("kill", &["kill", &name], State::Stopped),
            4 | 5 => run("restart", &["restart", "-t", "3", &name], State::Running),
            6 => run("pause", &["pause", &name], State::Paused),
            7 => run("rename", &["rename", &name, &away], State::Renamed),
            8 => run(
                "network disconnect",
                &["network", "disconnect", network, &name],
                State::Disconnected,
            ),
            _ => run("rm -f", &["rm", "-f", "-v", &name], State::Absent),
        },
    })
}

fn serve(docker: &Docker, network: &str, slot: usize) -> State {
    let steady = slot.is_multiple_of(SLOTS) && slot / SLOTS < STEADY_SERVICES;
    let (service, rest) = (slot / SLOTS, slot % SLOTS);
    let more: &[&str] = if steady {
        &["--restart", "always"]
    } else {
        &[]
    };
    let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        docker.serve(
            &format!("s{service}-{rest}"),
            network,
            &format!("s{service}"),
            more,
        )
    }));
    match made {
        Ok(_) => State::Running,
        Err(_) => State::Unsure,
    }
}
