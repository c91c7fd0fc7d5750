//! The reload script of the tests: it follows the contract and writes down each call with the
//! path, environment and content it saw. What it does besides is a shell fragment that a test
//! may change at any time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::deadline::wait_for;

/// One call that the script saw from its start to its end (or until it was killed: `ended` is false).
#[derive(Debug, Clone)]
pub struct Call {
    /// `check` or `reload`.
    pub mode: String,
    pub path: PathBuf,
    /// Variables with our prefix, and DOCKER_HOST.
    pub env: BTreeMap<String, String>,
    /// The file at the path, as the script found it.
    pub config: String,
    /// The config's own path at that moment: what a HAProxy that restarts by itself would read.
    pub target: String,
    pub ended: bool,
}

/// The script and its book, in a folder of their own.
#[derive(Debug, Clone)]
pub struct Script {
    folder: PathBuf,
}

impl Script {
    /// Writes the script into `folder`, which must exist.
    pub fn write(folder: &Path) -> Script {
        let script = Script {
            folder: folder.to_owned(),
        };
        let dir = folder.display();
        let text = format!(
            r#"#!/bin/sh
# Recording script of a test. $1 = check or reload, $2 = path.
book='{dir}'
number=$(($(ls "$book/calls" | wc -l) + 1))
call=$(printf '%s/calls/%04d' "$book" "$number")
while ! mkdir "$call" 2>/dev/null; do
    # The test may be over, and its folder gone.
    [ -d "$book/calls" ] || exit 1
    number=$((number + 1))
    call=$(printf '%s/calls/%04d' "$book" "$number")
done
printf '%s' "$1" > "$call/mode"
printf '%s' "$2" > "$call/path"
env > "$call/env"
cp "$2" "$call/config" 2>/dev/null
cp "$COSMONAUT_CONFIG" "$call/target" 2>/dev/null
: > "$call/begun"
status=0
if [ -f "$book/$1.do" ]; then . "$book/$1.do"; fi
: > "$call/ended"
exit $status
"#
        );
        fs::create_dir_all(folder.join("calls")).expect("a folder for the calls");
        fs::write(script.path(), text).expect("the script can be written");
        fs::set_permissions(script.path(), fs::Permissions::from_mode(0o755)).expect("its mode");
        script
    }

    pub fn path(&self) -> PathBuf {
        self.folder.join("script.sh")
    }

    /// What the script does in this mode from now on, in shell, after it wrote its book; `status=N` sets the exit code.
    pub fn on(&self, mode: &str, fragment: &str) {
        let new = self.folder.join(format!("{mode}.new"));
        fs::write(&new, fragment).expect("a fragment can be written");
        fs::rename(new, self.folder.join(format!("{mode}.do"))).expect("and put in place");
    }

    /// Back to success in this mode.
    pub fn well(&self, mode: &str) {
        let _ = fs::remove_file(self.folder.join(format!("{mode}.do")));
    }

    /// All calls so far, in order.
    pub fn calls(&self) -> Vec<Call> {
        let mut folders: Vec<PathBuf> = fs::read_dir(self.folder.join("calls"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|call| call.join("begun").exists())
            .collect();
        folders.sort();
        folders.iter().map(|folder| read_call(folder)).collect()
    }

    /// The calls of one mode.
    pub fn of(&self, mode: &str) -> Vec<Call> {
        let mut calls = self.calls();
        calls.retain(|call| call.mode == mode);
        calls
    }

    /// `check, reload, …`: the order of the modes.
    pub fn order(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.mode).collect()
    }

    /// Waits until the script was asked at least so often to reload.
    #[track_caller]
    pub fn wait_reloads(&self, count: usize, limit: Duration) -> Vec<Call> {
        wait_for(
            &format!("reload number {count} of the script"),
            limit,
            || {
                let calls = self.of("reload");
                (calls.len() >= count).then_some(calls)
            },
        )
    }

    /// Waits until the last finished reload satisfies `look`, and gives it.
    #[track_caller]
    pub fn wait_reload(&self, what: &str, limit: Duration, look: impl Fn(&Call) -> bool) -> Call {
        wait_for(&format!("a reload with {what}"), limit, || {
            self.of("reload")
                .into_iter()
                .next_back()
                .filter(|call| call.ended && look(call))
        })
    }
}

fn read_call(folder: &Path) -> Call {
    let text = |name: &str| {
        fs::read(folder.join(name)).map_or_else(
            |_| String::new(),
            |bytes| String::from_utf8_lossy(&bytes).into_owned(),
        )
    };
    let env = text("env")
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(key, _)| key.starts_with("COSMONAUT_") || *key == "DOCKER_HOST")
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect();
    Call {
        mode: text("mode"),
        path: text("path").into(),
        env,
        config: text("config"),
        target: text("target"),
        ended: folder.join("ended").exists(),
    }
}
