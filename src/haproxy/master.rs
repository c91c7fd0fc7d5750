//! A reload by HAProxy's master socket (`haproxy -W -S ADDR`): needs no script and no docker command.
//!
//! From 2.7 on the answer to `reload` comes when it is over: `Success=1` or `Success=0`, then the log.
//! Before, the connection is just closed, and `show proc` before and after tells: it counts reloads and
//! failed ones (the latter from 2.5 on) and names the workers. While a reload runs the socket refuses,
//! resets or says `Success=0` without a reason, never a false `Success=1` (measured on 2.4 to 3.4).
//! Source: HAProxy management guide, "Master CLI".

use std::time::{Duration, Instant};

use super::script::Reloaded;
use super::socket::{self, SocketAddr};
use crate::error::{Error, Kind, Result};
use crate::sorted::Set;

/// Time limit for one question to the master.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// Time limit for `reload`, which is answered when the new worker is up: 0.5 s with 5,000 services.
const RELOAD_LIMIT: Duration = Duration::from_secs(15);
/// How long a master that was not told anything yet may refuse connections before it counts as not running.
const DOWN_AFTER: Duration = Duration::from_secs(2);
/// How long a reload may take to show in `show proc`: a master that cannot bind tries for seconds, and
/// answers nobody meanwhile; on a machine that is short of processors it refuses for seconds while it loads.
/// One that refuses to the end of this has ended.
const SHOWN_WITHIN: Duration = Duration::from_secs(10);
/// How long another reload that runs is waited for.
const BUSY_MAX: Duration = Duration::from_secs(10);
/// First and longest pause between two questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(100));
/// Most lines of HAProxy's log that one message repeats.
const WORDS_LINES_MAX: usize = 8;

/// What `show proc` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Processes {
    /// Reloads since the master started.
    pub reloads: u64,
    /// Those that failed since the last good one; `None` before 2.5.
    pub failed: Option<u64>,
    /// Process ids of the present workers.
    pub workers: Set<u32>,
}

/// Makes the master load its file again.
///
/// # Errors
/// When the socket cannot be used although somebody listens there (rights, another program).
pub fn reload(address: &SocketAddr) -> Result<Reloaded> {
    let busy_until = Instant::now() + BUSY_MAX;
    loop {
        let before = match processes(address, DOWN_AFTER) {
            Ok(before) => before,
            Err(error) if error.is(Kind::Unreachable) => {
                return Ok(Reloaded::NotRunning(error.to_string()));
            }
            Err(error) => return Err(error),
        };
        match socket::command(address, "reload", RELOAD_LIMIT) {
            Ok(reply) => match answer(&reply) {
                Answer::Live => return Ok(Reloaded::Live),
                Answer::Refused(words) => return Ok(Reloaded::Failed(words)),
                Answer::Silent => return watch(address, &before),
                Answer::Busy if Instant::now() < busy_until => std::thread::sleep(PAUSES.1),
                Answer::Busy => {
                    return Ok(Reloaded::Failed(format!(
                        "another reload was still running after {BUSY_MAX:?}"
                    )));
                }
            },
            // It closed in our face: it reloads, for us or for somebody else. What it did shows after.
            Err(error) => {
                log::debug!("{error}; looking at what became of the reload");
                return watch(address, &before);
            }
        }
    }
}

/// Waits for the end of a reload that was not answered. No sign of it counts as done: the fingerprint,
/// which is asked for next, tells, and a reload that was lost is asked for again.
fn watch(address: &SocketAddr, before: &Processes) -> Result<Reloaded> {
    let until = Instant::now() + SHOWN_WITHIN;
    let mut pause = PAUSES.0;
    while Instant::now() < until {
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
        let left = until.saturating_duration_since(Instant::now());
        let now = match processes(address, left) {
            Ok(now) => now,
            Err(error) if error.is(Kind::Unreachable) => {
                return Ok(Reloaded::Failed(format!(
                    "HAProxy ended while it took the new config: {error}"
                )));
            }
            // Other troubles pass with the reload, or show in the questions that come after it.
            Err(error) => {
                log::debug!("{error}; it is at work");
                continue;
            }
        };
        let fresh = now.workers.iter().any(|pid| !before.workers.contains(pid));
        if now.failed.is_some_and(|failed| failed > 0) && now.reloads > before.reloads {
            return Ok(Reloaded::Failed(
                "HAProxy refused the new config and still runs the old one; its own log says why"
                    .to_owned(),
            ));
        }
        // A master that was started anew counts from zero, and has loaded the file, too.
        if fresh {
            return Ok(Reloaded::Live);
        }
    }
    Ok(Reloaded::Live)
}

/// Asks `show proc`; a master that refuses for longer than `patience` is unreachable.
fn processes(address: &SocketAddr, patience: Duration) -> Result<Processes> {
    let until = Instant::now() + patience;
    let mut pause = PAUSES.0;
    loop {
        let asked = socket::command(address, "show proc", COMMAND_LIMIT).and_then(|reply| {
            read(&reply).ok_or_else(|| {
                let said = reply.lines().next().unwrap_or("nothing");
                Error::new(
                    format!("cannot read what HAProxy's master at {address} says"),
                    said,
                )
                .hint("--haproxy-master names the socket of `haproxy -W -S ADDR`, not a `stats socket`")
            })
        });
        match asked {
            Ok(processes) => return Ok(processes),
            Err(error) if error.is(Kind::Denied) || Instant::now() >= until => return Err(error),
            Err(_) => std::thread::sleep(pause),
        }
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// What the answer to `reload` means.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// The new worker serves.
    Live,
    /// It does not, and why.
    Refused(String),
    /// Another reload runs.
    Busy,
    /// Versions before 2.7 say nothing.
    Silent,
}

/// Reads the answer to `reload`.
pub fn answer(reply: &str) -> Answer {
    let words = |reply: &str| {
        let lines: Vec<&str> = reply
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && *line != "--" && !line.starts_with("Success="))
            .filter(|line| !line.starts_with("[NOTICE]"))
            .collect();
        let from = lines.len().saturating_sub(WORDS_LINES_MAX);
        lines.get(from..).unwrap_or_default().join("; ")
    };
    match reply.trim() {
        "" => Answer::Silent,
        said if said.contains("Success=1") => Answer::Live,
        said if said.contains("still in progress") => Answer::Busy,
        said if said.contains("Success=0") && !said.contains("[ALERT]") => Answer::Busy,
        said => Answer::Refused(words(said)),
    }
}

/// Reads the answer to `show proc`; `None` when it is another one.
pub fn read(reply: &str) -> Option<Processes> {
    let mut found = Processes::default();
    let mut master = false;
    let mut old = false;
    for line in reply.lines() {
        if line.starts_with('#') {
            old = line.contains("old workers");
            continue;
        }
        let mut words = line.split_whitespace();
        let (Some(pid), Some(kind), Some(reloads)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        match kind {
            "master" => {
                master = true;
                found.reloads = reloads.parse().ok()?;
                found.failed = line
                    .split_once("[failed: ")
                    .and_then(|(_, rest)| rest.split_once(']'))
                    .and_then(|(failed, _)| failed.parse().ok());
            }
            "worker" if !old => {
                found.workers.insert(pid.parse().ok()?);
            }
            _ => {}
        }
    }
    master.then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_processes_of_each_version() {
        let of = |reloads, failed, workers: &[u32]| Processes {
            reloads,
            failed,
            workers: workers.iter().copied().collect(),
        };
        for (reply, expected) in [
            // 2.6.12, after a reload that failed.
            (
                "#<PID>          <type>          <reloads>       <uptime>        <version>      \n26096           master          2 [failed: 1]   0d00h00m04s     2.6.12-1+deb12u4\n# workers\n30346           worker          1               0d00h00m02s     2.6.12-1+deb12u4\n# programs\n\n",
                Some(of(2, Some(1), &[30346])),
            ),
            // 2.4 has no count of failed ones; old workers do not count.
            (
                "#<PID> <type> <relative PID> <reloads> <uptime> <version>\n7 master 3 0d00h00m04s 2.4.0\n# workers\n9 worker 0 0d 2.4.0\n# old workers\n8 worker 1 0d 2.4.0\n",
                Some(of(3, None, &[9])),
            ),
            ("Unknown command: 'show proc', but maybe\n", None),
            ("", None),
        ] {
            assert_eq!(read(reply), expected, "{reply}");
        }
    }

    /// Seen on a busy machine: HAProxy was taken for dead while it loaded, and the old config put back.
    #[test]
    fn a_master_that_refuses_for_seconds_while_it_loads_has_not_ended() {
        use std::io::{Read, Write};
        use std::os::unix::net::UnixListener;

        let path = std::env::temp_dir().join(format!("csm-master-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listen = |path: &std::path::Path| UnixListener::bind(path).expect("a socket");
        let show = |listener: &UnixListener, reply: &str| {
            let (mut stream, _) = listener.accept().expect("a question");
            let mut question = String::new();
            stream.read_to_string(&mut question).expect("a line");
            stream.write_all(reply.as_bytes()).expect("an answer");
            question
        };
        let listener = listen(&path);
        let at = path.clone();
        let master = std::thread::spawn(move || {
            let before = show(
                &listener,
                "1 master 0 0d 2.6\n# workers\n2 worker 0 0d 2.6\n",
            );
            let reload = show(&listener, "");
            // Nobody listens, and the file of the socket is still there.
            drop(listener);
            std::thread::sleep(DOWN_AFTER + Duration::from_secs(1));
            let _ = std::fs::remove_file(&at);
            let listener = listen(&at);
            let after = show(
                &listener,
                "1 master 1 0d 2.6\n# workers\n3 worker 0 0d 2.6\n",
            );
            [before, reload, after]
        });
        let reloaded = reload(&SocketAddr::Path(path.clone())).expect("it answers");
        assert_eq!(reloaded, Reloaded::Live);
        let asked = master.join().expect("the master");
        assert_eq!(asked, ["show proc\n", "reload\n", "show proc\n"]);
        let _ = std::fs::remove_file(path);
    }

    #[test]
    fn the_answer_decides() {
        let refused = "Success=0\n--\n[NOTICE] (1) : haproxy version\n[ALERT] (1) : config : parsing [h.cfg:22] : unknown keyword 'bad'\n\n";
        for (reply, expected) in [
            ("", Answer::Silent),
            ("\n", Answer::Silent),
            ("Success=1\n--\n[NOTICE] Loading success.\n", Answer::Live),
            (
                refused,
                Answer::Refused(
                    "[ALERT] (1) : config : parsing [h.cfg:22] : unknown keyword 'bad'".to_owned(),
                ),
            ),
            ("Success=0\n--\n", Answer::Busy),
            ("Another reload is still in progress.\n", Answer::Busy),
            (
                "Permission denied\n",
                Answer::Refused("Permission denied".to_owned()),
            ),
        ] {
            assert_eq!(answer(reply), expected, "{reply}");
        }
    }
}
