//! What only other programs can judge: completions under bash, and the man page under mandoc.

use cosmonaut::cli::{self, Command};
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;
use std::process;

/// The completion script of a shell, in a file of this test's own.
fn completions(shell: &str) -> PathBuf {
    let no_variables = |_: &str| -> Option<OsString> { None };
    let Ok(Command::Print(text)) = cli::parse(["completions", shell], &no_variables, "") else {
        panic!("no completions for {shell}");
    };
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("completions.{shell}"));
    fs::write(&path, text).expect("write the completion script");
    path
}

/// What bash offers for the words, the last one being typed.
fn bash_offers(words: &[&str]) -> Vec<String> {
    let harness = "source \"$1\" || exit; shift; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _cosmonaut; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let output = process::Command::new("bash")
        .args(["--norc", "-c", harness, "bash"])
        .arg(completions("bash"))
        .args(words)
        .output()
        .expect("run bash");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{errors}");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect()
}

#[test]
fn bash_completes_what_the_table_says() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("with blank");
    fs::create_dir_all(&folder).expect("make a folder");
    let folder = folder.to_str().expect("a UTF-8 path");
    let start = folder.strip_suffix("lank").expect("its own name");
    let cases: &[(&[&str], &[&str])] = &[
        (&["cosmonaut", "w"], &["watch"]),
        (&["cosmonaut", "--weave", ""], &["auto", "always", "never"]),
        (&["cosmonaut", "--weave", "=", "a"], &["auto", "always"]),
        (&["cosmonaut", "--weave", "="], &["auto", "always", "never"]),
        (&["cosmonaut", "sync", "--settle-"], &["--settle-max"]),
        (&["cosmonaut", "help", "s"], &["sync", "status", "script"]),
        (&["cosmonaut", "-c", "x", "completions", "z"], &["zsh"]),
        (
            &["cosmonaut", "--config", "=", "x", "completions", "z"],
            &["zsh"],
        ),
        (&["cosmonaut", "-k", ""], &[]),
        (&["cosmonaut", "sync", ""], &[]),
        (&["cosmonaut", "--state-dir", start], &[folder]),
    ];
    for (words, expected) in cases {
        assert_eq!(bash_offers(words), *expected, "{words:?}");
    }
}

/// zsh and fish read their script, where they are installed.
#[test]
fn zsh_and_fish_read_their_script() {
    for (shell, options) in [("zsh", ["-f", "-n"]), ("fish", ["--no-config", "-n"])] {
        let script = completions(shell);
        let output = process::Command::new(shell)
            .args(options)
            .arg(script)
            .output();
        let Ok(output) = output else {
            eprintln!("{shell} is not installed: not checked");
            continue;
        };
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{shell}: {errors}");
    }
}

/// Where mandoc is installed; the setup of the tests installs it.
#[test]
fn the_man_page_has_no_warnings() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/cosmonaut.1");
    let lint = process::Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning", page])
        .output();
    let Ok(output) = lint else {
        eprintln!("mandoc is not installed: not checked");
        return;
    };
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
