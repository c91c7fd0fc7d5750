//! kill -9 at random moments, with a real HAProxy on this machine, the built-in script and requests all the time.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::Part;
use crate::place::{Place, binary, container, is_whole};
use crate::support::deadline::{poll, wait_for};
use crate::support::dice::Dice;

/// Kills that hit a pass.
const KILLS: usize = 200;
/// Passes that are timed first: the moments are spread over as long as they take, check, reload and all.
const TIMED: u32 = 6;
/// So many times as many are begun at most, since some have ended before their moment.
const TRIES: usize = 4;
/// For a sync that must succeed.
const SYNC_MAX: Duration = Duration::from_secs(60);

/// HAProxy as a master with a worker, ended with this.
struct Haproxy(Child);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -s TERM \"$1\"", "sh", &self.0.id().to_string()])
            .status();
        if poll(Duration::from_secs(5), || self.0.try_wait().ok().flatten()).is_none() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

pub fn run(every: usize) -> Part {
    let place = Place::new("kills");
    let port = free_port();
    let answers = thread_server();
    let base = place.root.join("base.cfg");
    let text = format!(
        "global\n    hard-stop-after 5s\n    stats socket '{0}/admin.sock' mode 600 level admin expose-fd listeners\ndefaults\n    mode http\n    \
         timeout connect 1s\n    timeout client 5s\n    timeout server 5s\n    option redispatch 1\n    retries 3\nfrontend in\n    bind 127.0.0.1:{port}\n    \
         http-request return status 200 content-type text/plain string steady if {{ path /steady }}\n",
        place.root.display()
    );
    fs::write(&base, text).expect("written");
    // scripts/faults gives this network all the addresses of the fake containers, so that one of them can be real.
    let real = container(20, "real").with_env("PORT", &answers.to_string());
    place.docker.add(real);
    let options = || {
        let mut all: Vec<String> = place
            .options()
            .chunks(2)
            .filter(|pair| pair[0] != "--script")
            .flatten()
            .cloned()
            .collect();
        all.extend(["--base".to_owned(), base.display().to_string()]);
        all.extend([
            "--haproxy-socket".to_owned(),
            format!("{}/admin.sock", place.root.display()),
        ]);
        all
    };
    let sync = || {
        let mut command = place.command(&binary());
        command.arg("sync").args(options());
        command.env(
            "PATH",
            "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
        );
        command
    };
    let config = place.state().join("haproxy.cfg");
    // No HAProxy yet: the config is put in its place.
    let first = sync().output().expect("the program can be started");
    assert!(
        first.status.success(),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    let haproxy = Haproxy(
        Command::new("haproxy")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            )
            .args(["-W", "-db", "-f"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(place.root.join("haproxy.log")).expect("a log"))
            .spawn()
            .expect("haproxy"),
    );
    wait_for("HAProxy to serve", Duration::from_secs(20), || {
        get(port, "/steady", "x")
    });

    let stop = Arc::new(AtomicBool::new(false));
    let (asked, lost) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let client = {
        let (stop, asked, lost) = (Arc::clone(&stop), Arc::clone(&asked), Arc::clone(&lost));
        thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let count = if get(port, "/steady", "x").is_some() {
                    &asked
                } else {
                    &lost
                };
                count.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(10));
            }
        })
    };
    let mut faults = Vec::new();
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15);
    let (mut killed, mut before, mut whole) = (0, 0, 0);
    let (mut serving, mut free, mut passes, mut good) = (0, 0, 0, 0);
    let mut there = false;
    // Something to change each time.
    let mut change = || {
        let flag = container(30, "flag");
        if there {
            place.docker.remove(&flag.name);
        } else {
            place.docker.add(flag);
        }
        there = !there;
        there
    };
    let mut pass = Duration::ZERO;
    for _ in 0..TIMED {
        change();
        let began = Instant::now();
        let output = sync().output().expect("the program can be started");
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr);
            faults.push(format!("a pass before any kill: {}", words.trim()));
        }
        pass += began.elapsed() / TIMED;
    }
    let count = KILLS.div_ceil(every);
    let mut number = 0;
    while killed < count && number < count * TRIES {
        number += 1;
        let there = change();
        let moment = Duration::from_micros(dice.below((pass.as_micros() as u64).max(1)));
        let mut child = sync()
            .process_group(0)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be started");
        thread::sleep(moment);
        if child.try_wait().ok().flatten().is_some() {
            before += 1;
            continue;
        }
        killed += 1;
        // Every other time the script lives on, as it does when only we are killed.
        let target = if number % 4 < 2 {
            format!("-{}", child.id())
        } else {
            child.id().to_string()
        };
        let _ = Command::new("/bin/sh")
            .args(["-c", "kill -s KILL -- \"$1\"", "sh", &target])
            .status();
        let _ = child.wait();
        match answer(port, "/", "real.example") {
            Ok(_) => serving += 1,
            Err(why) => faults.push(format!(
                "kill {number} after {moment:?}: the service is not served: {why}"
            )),
        }
        if place.lock_is_free() {
            free += 1;
        } else {
            faults.push(format!("kill {number} after {moment:?}: the lock is held"));
        }
        // The file starts, whatever was in hand.
        let checked = Command::new("haproxy")
            .env(
                "PATH",
                "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            )
            .args(["-c", "-f"])
            .arg(&config)
            .output();
        if checked.is_ok_and(|output| output.status.success()) {
            whole += 1;
        } else {
            faults.push(format!(
                "kill {number} after {moment:?}: HAProxy does not accept the file"
            ));
        }
        // Every other time kills pile up.
        if killed % 2 == 0 {
            passes += 1;
            let began = Instant::now();
            let output = sync().output().expect("the program can be started");
            let routes = fs::read_to_string(&config).unwrap_or_default();
            if output.status.success()
                && began.elapsed() < SYNC_MAX
                && routes.contains("10.2.0.30:") == there
                && is_whole(&routes)
                && get(port, "/", "real.example").is_some()
            {
                good += 1;
            } else {
                faults.push(format!(
                    "kill {number} after {moment:?}: the next pass: {} after {:?}: {}",
                    output.status,
                    began.elapsed(),
                    String::from_utf8_lossy(&output.stderr).trim()
                ));
            }
        }
    }
    if killed < count {
        faults.push(format!("only {killed} of {count} kills hit a pass"));
    }
    let last = sync().output().expect("the program can be started");
    if !last.status.success() {
        faults.push(format!(
            "the last pass: {}",
            String::from_utf8_lossy(&last.stderr).trim()
        ));
    }
    stop.store(true, Ordering::Relaxed);
    let _ = client.join();
    drop(haproxy);
    let lost = lost.load(Ordering::Relaxed);
    if lost > 0 {
        faults.push(format!("{lost} requests got no answer"));
    }
    let lines = vec![
        "| what | |".to_owned(),
        "|---|---|".to_owned(),
        format!(
            "| killed within a pass of {} ms, at random moments (half of them with the script) | {killed} |",
            pass.as_millis()
        ),
        format!("| passes that had ended before their moment, and do not count | {before} |"),
        format!("| HAProxy served right after the kill | {serving} |"),
        format!("| file whole: `haproxy -c` accepted it | {whole} |"),
        format!("| lock free | {free} |"),
        format!("| next pass right (one after every other kill) | {good} of {passes} |"),
        format!(
            "| requests through HAProxy meanwhile, answered and lost | {} and {lost} |",
            asked.load(Ordering::Relaxed)
        ),
        format!(
            "| staged files left behind at the end | {} |",
            place.leftovers().len()
        ),
    ];
    Part {
        title: "kill -9 at random moments, with a real HAProxy",
        lines,
        faults,
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("its address").port()
}

/// A server for the real container; gives its port.
fn thread_server() -> u16 {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut stream = stream;
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(
                    b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                );
            });
        }
    });
    port
}

fn get(port: u16, path: &str, host: &str) -> Option<()> {
    answer(port, path, host).ok()
}

/// Asks HAProxy once; why there is no good answer, and after how long.
fn answer(port: u16, path: &str, host: &str) -> Result<(), String> {
    let began = Instant::now();
    let ask = || -> std::io::Result<String> {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        )?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    let said = ask();
    match &said {
        Ok(text) if text.starts_with("HTTP/1.1 200") => Ok(()),
        other => Err(format!("{other:?} after {:?}", began.elapsed())),
    }
}
