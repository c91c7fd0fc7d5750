//! A wall clock that jumps while `watch` runs, by libfaketime (Debian package faketime); the monotonic clock does not.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Part;
use crate::place::{Place, Standing, Stood, binary, container, is_whole};
use crate::support::deadline::poll;

/// Offsets in the order in which they come.
const JUMPS: &[&str] = &["+0", "+1h", "-1h", "+400d", "-400d", "+20y", "-20y", "+0"];
/// How long a change may take after a jump.
const RIGHT_WITHIN: Duration = Duration::from_secs(20);

fn library() -> Option<PathBuf> {
    fs::read_dir("/usr/lib")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.exists())
}

pub fn run(_: usize) -> Part {
    let mut part = Part {
        title: "A clock that jumps",
        lines: vec![
            format!(
                "| jump to | s until a new container was routed | s until it was gone again | {} |",
                Standing::COLUMNS
            ),
            format!("|---|---|---|{}|", Standing::RULE),
        ],
        faults: Vec::new(),
    };
    let Some(library) = library() else {
        part.lines =
            vec!["Not tried: libfaketime (Debian package faketime) is not installed.".to_owned()];
        return part;
    };
    let place = Place::new("clock");
    let offset = place.root.join("offset");
    fs::write(&offset, "+0\n").expect("written");
    let log = fs::File::create(place.root.join("log")).expect("a log");
    let mut child = place
        .command(&binary())
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &offset)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .arg("watch")
        .args(place.options())
        .args(["--resync", "0"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the program can be started");
    let one = container(9, "web");
    for (round, jump) in JUMPS.iter().enumerate() {
        if round > 0 {
            fs::write(&offset, format!("{jump}\n")).expect("written");
        } else if poll(RIGHT_WITHIN, || (place.live() == place.new).then_some(())).is_none() {
            part.faults
                .push("the watch does not begin under libfaketime".to_owned());
        }
        let mut took = Vec::new();
        for there in [true, false] {
            let began = Instant::now();
            if there {
                place.docker.run(one.clone());
            } else {
                place.docker.remove(&one.name);
            }
            let right = poll(RIGHT_WITHIN, || {
                (place.live().contains("10.2.0.9:") == there).then_some(())
            });
            match right {
                Some(()) => took.push(format!("{:.2}", began.elapsed().as_secs_f64())),
                None => {
                    took.push("never".to_owned());
                    part.faults
                        .push(format!("after the jump to {jump} a change is not followed"));
                }
            }
        }
        // Both changes were passes after the jump.
        let stood = Stood {
            serving: is_whole(&place.live()),
            file: is_whole(&place.config()),
            lock: place.lock_is_free(),
            next: !took.iter().any(|time| time == "never"),
            damage: Vec::new(),
        };
        if !(stood.serving && stood.file && stood.lock) {
            part.faults
                .push(format!("after the jump to {jump}: not whole, or locked"));
        }
        let yes = |is: bool| if is { "yes" } else { "NO" };
        let cells = [stood.serving, stood.file, stood.lock, stood.next].map(yes);
        part.lines.push(format!(
            "| {jump} | {} | {} |",
            took.join(" | "),
            cells.join(" | ")
        ));
        if let Ok(Some(status)) = child.try_wait() {
            part.faults
                .push(format!("it ended after the jump to {jump}: {status}"));
            break;
        }
    }
    let _ = child.kill();
    let _ = child.wait();
    part
}
