//! Writes that take a part, reads that give one byte: by a preloaded shim, since strace can only replace a result.

use std::path::PathBuf;
use std::process::Command;

use crate::Part;
use crate::place::{Place, binary};

/// Occurrences of each kind that are tried; 0 is all of them at once.
const OCCURRENCES: std::ops::Range<usize> = 0..20;

pub fn run(every: usize) -> Part {
    let place = Place::new("short");
    let shim = place.root.join("short.so");
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/faults/short.c");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&shim)
        .arg(source)
        .arg("-ldl")
        .status()
        .expect("cc (package gcc)");
    assert!(built.success(), "the shim does not build");
    let mut lines = vec![
        "| call | tried | right all the same |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let mut faults = Vec::new();
    for kind in ["SHORT_WRITE", "SHORT_SEND", "SHORT_READ", "SHORT_RECV"] {
        let (mut tried, mut right) = (0, 0);
        for occurrence in OCCURRENCES.step_by(every) {
            place.reset();
            let output = place
                .command(&binary())
                .env("LD_PRELOAD", &shim)
                .env(kind, occurrence.to_string())
                .arg("sync")
                .args(place.options())
                .output()
                .expect("the program can be started");
            tried += 1;
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.success() && place.config() == place.new && place.live() == place.new {
                right += 1;
            } else {
                faults.push(format!("{kind}={occurrence}: {}: {words}", output.status));
            }
            faults.extend(
                place
                    .damage()
                    .into_iter()
                    .map(|what| format!("{kind}={occurrence}: {what}")),
            );
        }
        lines.push(format!(
            "| {} | {tried} | {right} |",
            kind.to_lowercase().replace('_', " ")
        ));
    }
    Part {
        title: "Short writes and reads (one at a time, and all of them)",
        lines,
        faults,
    }
}
