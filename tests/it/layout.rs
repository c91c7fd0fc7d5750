//! Who may know what: the rules of `src/lib.rs`, held against the sources.

use std::path::{Path, PathBuf};

/// All Rust files below `src`, with their path from there and their text up to the first test module.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder)
            .expect("a folder of sources")
            .flatten()
        {
            let path: PathBuf = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(&root)
                    .expect("below src")
                    .display()
                    .to_string();
                let text = std::fs::read_to_string(&path).expect("a source");
                found.push((name, without_tests(&text)));
            }
        }
    }
    found.retain(|(name, _)| !is_test_only(name));
    found.sort();
    assert!(found.len() > 40, "only {} sources were found", found.len());
    found
}

/// Files that are compiled into tests alone.
fn is_test_only(name: &str) -> bool {
    const HELPERS: [&str; 5] = [
        "docker/fixture.rs",
        "docker/sample.rs",
        "registry/canned.rs",
        "registry/expected.rs",
        "registry/haproxy_check.rs",
    ];
    name.ends_with("tests.rs")
        || name.ends_with("contract.rs")
        || name.ends_with("cli/pages.rs")
        || HELPERS.contains(&name)
}

/// The code alone: comments and everything from the first test module on are left out.
fn without_tests(text: &str) -> String {
    let code = text
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or_default();
    let is_comment = |line: &&str| !line.trim_start().starts_with("//");
    code.lines()
        .filter(is_comment)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Complains of every source that `applies` names and that holds one of these words.
#[track_caller]
fn forbid(what: &str, words: &[&str], applies: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    let mut looked = 0;
    for (name, text) in sources() {
        if !applies(&name) {
            continue;
        }
        looked += 1;
        for word in words {
            if text.contains(word) {
                wrong.push(format!("src/{name} names {word}"));
            }
        }
    }
    assert!(looked > 0, "no source was looked at: {what}");
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
}

#[test]
fn pure_files_touch_nothing_outside() {
    const PURE: [&str; 27] = [
        "http.rs",
        "config.rs",
        "timestamp.rs",
        "sorted.rs",
        "decimal.rs",
        "description.rs",
        "service.rs",
        "inventory.rs",
        "id.rs",
        "names.rs",
        "roll.rs",
        "room.rs",
        "roster.rs",
        "schedule.rs",
        "docker/events.rs",
        "docker/container.rs",
        "address/mod.rs",
        "address/weave.rs",
        "address/report.rs",
        "address/status_dns.rs",
        "registry/answer.rs",
        "registry/embedded.rs",
        "registry/template.rs",
        "haproxy/changes.rs",
        "report/diff.rs",
        "report/explain.rs",
        "report/plan.rs",
    ];
    let all: Vec<String> = sources().into_iter().map(|(name, _)| name).collect();
    for name in PURE {
        assert!(
            all.iter().any(|known| known == name),
            "src/{name} is not there"
        );
    }
    let outside = [
        "std::fs",
        "std::env",
        "std::process",
        "std::thread",
        "TcpStream",
        "UnixStream",
        "UdpSocket",
        "Instant::now",
        "SystemTime",
        "rustix",
    ];
    forbid("pure files are handed what they need", &outside, |name| {
        PURE.contains(&name) || name.starts_with("cli/")
    });
}

#[test]
fn modules_that_are_joined_by_sync_do_not_know_each_other() {
    for (module, others) in [
        (
            "docker/",
            ["crate::address", "crate::registry", "crate::haproxy"],
        ),
        (
            "registry/",
            ["crate::address", "crate::docker", "crate::haproxy"],
        ),
        (
            "haproxy/",
            ["crate::address", "crate::registry", "crate::docker"],
        ),
        (
            "address/",
            ["crate::registry", "crate::haproxy", "crate::inventory"],
        ),
    ] {
        forbid("only sync joins them", &others, |name| {
            name.starts_with(module)
        });
    }
}

#[test]
fn programs_sockets_and_threads_have_their_places() {
    forbid(
        "only these run programs",
        &["process::Command", "Command::new"],
        |name| {
            !matches!(
                name,
                "program.rs" | "overlay.rs" | "haproxy/script.rs" | "transport/ssh.rs"
            )
        },
    );
    forbid(
        "only these open sockets",
        &[
            "TcpStream::connect",
            "UnixStream::connect",
            "UdpSocket::bind",
            "TcpListener",
        ],
        |name| !name.starts_with("transport") && name != "haproxy/socket.rs" && name != "notify.rs",
    );
    forbid(
        "only watch starts threads, and the resolver one that it may leave to itself",
        &["thread::Builder", "thread::spawn", "thread::scope"],
        |name| !matches!(name, "watch.rs" | "transport/resolve.rs"),
    );
    forbid(
        "only main prints errors, only lib prints results",
        &["println!", "eprintln!", "print!(", "dbg!"],
        |_| true,
    );
}

#[test]
fn docker_speaks_with_four_paths_and_never_writes() {
    forbid(
        "Docker is only read",
        &["POST ", "DELETE ", "PUT ", "HEAD "],
        |name| name.starts_with("docker/") || name.starts_with("transport"),
    );
    forbid(
        "Docker's paths are named in docker/ alone",
        &["/containers/", "/events?"],
        |name| !name.starts_with("docker/"),
    );
}

#[test]
fn no_async_runtime_is_in_the_tree() {
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.lock");
    let lock = std::fs::read_to_string(lock).expect("Cargo.lock");
    let names: Vec<&str> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .collect();
    for runtime in [
        "tokio",
        "async-std",
        "smol",
        "hyper",
        "reqwest",
        "mio",
        "futures",
    ] {
        assert!(!names.contains(&runtime), "{runtime} is in Cargo.lock");
    }
}
