//! The fault campaign: each system call of ours that can fail is made to fail, at each of its occurrences in a pass of
//! `sync` and of `watch`; the program is killed at random moments; the disk fills up; the clock jumps. After each, what
//! stands is looked at: the config is the old or the new one, whole; HAProxy was handed nothing else; nothing is locked;
//! the next pass is right. Run by scripts/faults, which says what is needed; it writes the report.
//!
//! A bench target only so that `cargo test` leaves it out. Faults are injected by strace into our own threads, not into
//! the reload script: that one is the operator's.

mod clock;
mod disk;
mod inject;
mod kills;
mod place;
mod short;
#[allow(
    dead_code,
    unused_imports,
    reason = "the integration tests use what this does not"
)]
#[path = "../it/support/mod.rs"]
mod support;

use std::process::ExitCode;

/// Longest account of one fault; whole configs are in some.
const FAULT_CHARS_MAX: usize = 600;

/// How the report is read.
const LEGEND: &str = "\
Each row counts what stood after each fault: HAProxy runs the old config or the new one, whole (a script that plays it
and takes nothing else; a real one under the kills); the file is one of the two, too; the lock of a pass can be had; the
next pass, with nothing in its way, brings both to the new config (of a `watch`: its own next pass, within 40 s). `Done
all the same`: exit 0, or nothing said above debug. `Said`: exit 1 with `cosmonaut: error: ...`, or a warning or an error
in the log. Calls are made to fail by strace, which leaves them out, `close` by a shim that closes first, as Linux does.
What is not as it should be is a line that begins with FAULT.
";

/// What one part of the campaign found.
struct Part {
    title: &'static str,
    /// Lines of the report, Markdown.
    lines: Vec<String>,
    /// What must not be.
    faults: Vec<String>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    // Every n-th case only.
    let every: usize = words
        .first()
        .and_then(|word| word.parse().ok())
        .unwrap_or(1);
    let wanted = |name: &str| words.len() < 2 || words.iter().skip(1).any(|word| word == name);
    let mut parts = Vec::new();
    for (name, run) in [
        ("sync", inject::sync as fn(usize) -> Part),
        ("watch", inject::watch),
        ("short", short::run),
        ("kills", kills::run),
        ("disk", disk::run),
        ("clock", clock::run),
    ] {
        if wanted(name) {
            eprintln!("faults: {name}");
            parts.push(run(every));
        }
    }
    println!(
        "# Faults\n\nMade by `scripts/faults`{}.",
        if every == 1 {
            String::new()
        } else {
            format!(", each {every}th case only")
        }
    );
    println!("\n{}", LEGEND.trim_end());
    let mut good = true;
    for part in &parts {
        println!("\n## {}\n", part.title);
        for line in &part.lines {
            println!("{line}");
        }
        for fault in &part.faults {
            good = false;
            let line: String = fault
                .replace('\n', " / ")
                .chars()
                .take(FAULT_CHARS_MAX)
                .collect();
            println!("- FAULT: {line}");
        }
        if part.faults.is_empty() {
            println!("\nNothing was lost.");
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
