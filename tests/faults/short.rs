//! Writes that take a part, reads that give one byte, closes that close and say that they failed: by a preloaded shim,
//! since strace can only leave a call out and replace its result.

use std::path::PathBuf;
use std::process::Command;

use crate::Part;
use crate::inject::Watched;
use crate::place::{Place, Standing, binary};

/// Each kind, and how many occurrences of it are tried; 0 is all of them at once.
const KINDS: &[(&str, usize)] = &[
    ("SHORT_WRITE", 20),
    ("SHORT_SEND", 20),
    ("SHORT_READ", 20),
    ("SHORT_RECV", 20),
    ("CLOSE_EINTR", 45),
    ("CLOSE_EIO", 45),
];
/// Changes that a watch follows while all calls of one kind are so.
const CHANGES: usize = 6;

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
        format!(
            "| of `sync` | tried | right all the same | {} |",
            Standing::COLUMNS
        ),
        format!("|---|---|---|{}|", Standing::RULE),
    ];
    let mut faults = Vec::new();
    let said = |kind: &str| kind.to_lowercase().replace('_', " ");
    for (kind, occurrences) in KINDS {
        let (mut tried, mut right) = (0, 0);
        let mut standing = Standing::default();
        for occurrence in (0..*occurrences).step_by(every) {
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
            let stood = place.stood();
            standing.count(&stood);
            let damage = stood.damage.into_iter();
            faults.extend(damage.map(|what| format!("{kind}={occurrence}: {what}")));
        }
        lines.push(format!(
            "| {} | {tried} | {right} | {} |",
            said(kind),
            standing.cells()
        ));
    }
    lines.push(String::new());
    lines.push(format!(
        "| of a `watch`, all of them | changes | followed | {} |",
        Standing::COLUMNS
    ));
    lines.push(format!("|---|---|---|{}|", Standing::RULE));
    let shim = shim.display().to_string();
    for (kind, _) in KINDS {
        let mut watched = Watched::start_with(&[("LD_PRELOAD", &shim), (kind, "0")]);
        let mut standing = Standing::default();
        let mut followed = 0;
        for change in 0..CHANGES {
            watched.change();
            let right = watched.is_right();
            followed += usize::from(right);
            let stood = watched.stood(right);
            standing.count(&stood);
            let late = (!right).then(|| format!("not followed; log: {}", watched.log()));
            let damage = stood.damage.into_iter().chain(late);
            faults.extend(damage.map(|what| format!("watch, {kind}, change {change}: {what}")));
        }
        lines.push(format!(
            "| {} | {CHANGES} | {followed} | {} |",
            said(kind),
            standing.cells()
        ));
    }
    Part {
        title: "Short writes and reads, closes that fail (one at a time, and all of them)",
        lines,
        faults,
    }
}
