//! The command line of `scripts/`: said at once, before anything is started, installed or built.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// A script that reads its command line first is done long before; one that builds or starts a daemon is not.
const AT_ONCE: Duration = Duration::from_secs(10);

/// The scripts that people call, and their texts. The reload script is not one of them, and has a test of its own.
fn all() -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .expect("the scripts")
        .map(|entry| entry.expect("a script").path())
        .filter(|path| !path.ends_with("update_haproxy.sh"))
        .map(|path| (path.clone(), std::fs::read_to_string(path).expect("text")))
        .filter(|(_, text)| text.starts_with("#!/bin/sh"))
        .collect();
    found.sort();
    assert!(found.len() > 7, "{found:?}");
    found
}

/// What a script says to one argument. Its limit is timeout's: a script that goes on would start a daemon.
fn said(script: &PathBuf, argument: &str) -> Output {
    let began = Instant::now();
    let output = Command::new("timeout")
        .arg(AT_ONCE.as_secs().to_string())
        .arg(script)
        .arg(argument)
        .output()
        .expect("timeout is there");
    assert!(began.elapsed() < AT_ONCE, "{} {argument}", script.display());
    output
}

#[test]
fn help_is_the_head_of_the_script() {
    for (script, text) in all() {
        let head: String = text
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with('#'))
            .map(|line| format!("{}\n", line.strip_prefix("# ").unwrap_or(&line[1..])))
            .collect();
        for argument in ["-h", "--help"] {
            let output = said(&script, argument);
            assert_eq!(output.status.code(), Some(0), "{}", script.display());
            assert_eq!(String::from_utf8_lossy(&output.stdout), head);
        }
    }
}

#[test]
fn an_unknown_option_is_named() {
    for (script, _) in all() {
        let output = said(&script, "--nonsense");
        let words = String::from_utf8_lossy(&output.stderr);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{}: {words}",
            script.display()
        );
        assert!(
            words.contains("--nonsense"),
            "{}: {words}",
            script.display()
        );
        assert_eq!(words.lines().count(), 1, "{}: {words}", script.display());
    }
}

/// dash takes `kill -KILL -- -PID` for two processes, the first without a number, and ends neither.
#[test]
fn the_bench_ends_all_that_it_has_started() {
    let scripts = all();
    let ends = scripts
        .iter()
        .flat_map(|(_, text)| text.lines())
        .find(|line| line.contains("kill -KILL") && line.contains("-$bench"))
        .expect("the line that ends the bench's group");
    let group = "setsid sh -c 'sleep 60 & wait' & bench=$!; sleep 0.3";
    let left = "sleep 0.2; for one in /proc/[0-9]*/stat; do read -r _ _ state _ pgrp _ <$one || continue; \
                [ $pgrp != $bench ] || [ $state = Z ] || echo left; done";
    let output = Command::new("sh")
        .args(["-c", &format!("{group}\n{ends}\n{left}")])
        .output()
        .expect("sh");
    let words = String::from_utf8_lossy(&output.stdout);
    assert_eq!(words, "", "{}", String::from_utf8_lossy(&output.stderr));
}
