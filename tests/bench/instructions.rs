//! Instructions, counted by valgrind: they do not depend on how busy the machine is, so a small loss shows.
//!
//! A piece of work is run once and three times in a process of its own; half the difference is what it costs,
//! without starting up and making the input. A pass is one `sync` on the fake daemon, whole. The counts are
//! compared with `baseline.json`, which holds for one compiler and one processor; `--write-baseline` makes it anew.
//! The length of the binary is watched in the same way.

use std::path::{Path, PathBuf};
use std::process::Command;

use cosmonaut::docker::container;
use cosmonaut::docker::events::Lines;
use cosmonaut::registry::template::Base;
use serde_json::{Value, json};

use crate::folder::Folder;
use crate::render;
use crate::table::{Row, Unit};
use crate::tool::{Kind, Programs};
use crate::yardstick;

/// What is counted in a process of its own.
const WORK: &[(&str, &str)] = &[
    ("events", "10,000 event lines"),
    ("list", "list of 1,000 containers"),
    ("inspect", "1,000 inspects"),
    ("render", "1,000 services"),
];
/// Containers of the pass.
const PASS_CONTAINERS: usize = 20;
/// More than this over the baseline has to be explained and committed with a new baseline.
const GROWTH_MAX: f64 = 1.05;

/// Does a piece of work that many times: what valgrind runs.
pub fn work(name: &str, times: usize) {
    match name {
        "events" => {
            // As they come out of their chunks.
            let stream = crate::storm::events(&crate::daemon_of(20), 10_000);
            let lines = stream.split_inclusive(|byte| *byte == b'\n');
            let bytes: Vec<u8> = lines
                .filter(|line| line.starts_with(b"{"))
                .flatten()
                .copied()
                .collect();
            for _ in 0..times {
                let mut lines = Lines::new();
                let mut count = 0;
                for piece in bytes.chunks(32 << 10) {
                    lines.push(piece);
                    count += std::iter::from_fn(|| lines.next_event()).count();
                }
                assert_eq!(count, 10_000);
            }
        }
        "list" => {
            let body = answer("/containers/json", 1000);
            for _ in 0..times {
                assert_eq!(container::list(&body).map(|rows| rows.len()), Ok(1000));
            }
        }
        "inspect" => {
            let id = &crate::daemon_of(1)[0].id;
            let body = answer(&format!("/containers/{id}/json"), 1);
            for _ in 0..times * 1000 {
                assert!(container::inspected(&body).is_ok());
            }
        }
        "render" => {
            let base = Base::built_in(None).expect("the built-in base is good");
            let payload = render::payload(1000);
            for _ in 0..times {
                assert!(render::render(&base, &payload) > 0);
            }
        }
        other => panic!("there is no work {other}"),
    }
}

/// The body of one of the fake daemon's answers.
fn answer(path: &str, containers: usize) -> Vec<u8> {
    let daemon = crate::daemon(crate::daemon_of(containers));
    let mut connection =
        std::os::unix::net::UnixStream::connect(&daemon.socket).expect("the fake daemon");
    let chunked = yardstick::get(&mut connection, path).expect("an answer");
    // This process ends without its destructors, and `scripts/bench` knows only its parent's folders.
    if let Some(folder) = daemon.socket.parent() {
        let _ = std::fs::remove_dir_all(folder);
    }
    let from = chunked
        .iter()
        .position(|byte| *byte == b'\n')
        .expect("a chunk")
        + 1;
    chunked[from..chunked.len() - b"\r\n0\r\n\r\n".len()].to_vec()
}

fn counted(command: &Command) -> Result<f64, String> {
    let folder = Folder::new("valgrind");
    let out = folder.join("callgrind.out");
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--error-exitcode=0"])
        .arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(command.get_program()).args(command.get_args());
    let output = valgrind.output().map_err(|e| format!("valgrind: {e}"))?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        return Err(format!("valgrind {command:?}: {text}"));
    }
    let line = text
        .lines()
        .find(|line| line.contains("Collected :"))
        .ok_or(format!("no count in: {text}"))?;
    line.rsplit(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .ok_or(format!("no count in: {line}"))
}

fn measure(programs: &Programs) -> Result<Vec<(String, String, f64)>, String> {
    let mut counts = Vec::new();
    for (name, what) in WORK {
        let run = |times: &str| {
            let mut command = Command::new(&programs.bench);
            command.args(["work", name, times]);
            counted(&command)
        };
        counts.push((
            (*name).to_owned(),
            format!("instructions in thousands: {what}"),
            (run("3")? - run("1")?) / 2.0,
        ));
    }
    let daemon = crate::daemon(crate::daemon_of(PASS_CONTAINERS));
    let host = format!("unix://{}", daemon.socket.display());
    let folder = Folder::new("pass");
    let pass = counted(&programs.command(Kind::Cosmonaut, "sync", &host, &folder))?;
    counts.push((
        "pass".to_owned(),
        format!("instructions in thousands: sync, {PASS_CONTAINERS} containers"),
        pass,
    ));
    let binary = std::fs::metadata(&programs.cosmonaut).map_err(|e| format!("the binary: {e}"))?;
    counts.push((
        "binary".to_owned(),
        "bytes in thousands: the binary".to_owned(),
        binary.len() as f64,
    ));
    Ok(counts)
}

fn baseline_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench/baseline.json")
}

/// What the counts depend on besides our code.
fn conditions() -> Value {
    let rustc = Command::new("rustc")
        .arg("-V")
        .output()
        .map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned());
    // valgrind shows programs one of two processors, with AVX2 where the real one has it; the C library copies and
    // compares bytes accordingly.
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let avx2 = processor
        .split_ascii_whitespace()
        .any(|flag| flag == "avx2");
    json!({ "rustc": rustc.unwrap_or_default(), "arch": std::env::consts::ARCH, "avx2": avx2 })
}

pub fn rows(programs: &Programs, write: bool) -> Vec<Row> {
    let counts = match measure(programs) {
        Ok(counts) => counts,
        Err(why) => {
            // Not left out in silence: it fails.
            eprintln!("instructions cannot be counted: {why}");
            return vec![
                Row::new(
                    "instructions",
                    "instructions: cannot be counted, see above",
                    Unit::Count,
                    vec![1.0],
                )
                .budget(0.0),
            ];
        }
    };
    if write {
        let all: serde_json::Map<String, Value> = counts
            .iter()
            .map(|(id, _, count)| (id.clone(), json!(count)))
            .collect();
        let text = format!(
            "{:#}\n",
            json!({ "conditions": conditions(), "counts": all })
        );
        std::fs::write(baseline_path(), text).expect("the baseline can be written");
    }
    let text = std::fs::read_to_string(baseline_path()).unwrap_or_default();
    let baseline: Value = serde_json::from_str(&text).unwrap_or_default();
    let comparable = baseline["conditions"] == conditions();
    if !comparable {
        println!(
            "instructions are told, not judged: the baseline is of {}, this is {}",
            baseline["conditions"],
            conditions()
        );
    }
    let row = |(id, what, count): (String, String, f64)| {
        let row = Row::new(
            &format!("instructions-{id}"),
            &what,
            Unit::Count,
            vec![count / 1000.0],
        );
        match baseline["counts"][&id].as_f64() {
            Some(before) if comparable => row
                .floor(before / 1000.0, GROWTH_MAX)
                .budget(before / 1000.0 * GROWTH_MAX),
            Some(before) => row.floor(before / 1000.0, f64::INFINITY),
            None => row,
        }
    };
    counts.into_iter().map(row).collect()
}
