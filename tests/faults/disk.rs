//! A disk that is full, or nearly: a small file system for the state folder, with every number of free pages.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Part;
use crate::place::Place;

const PAGE_BYTES: usize = 4096;
/// Size of the file system, and most free pages that are tried: a pass needs fewer.
const PAGES: usize = 64;
const FREE_PAGES_MAX: usize = 20;
/// Services that make the config several pages long, so that the disk is full in the middle of it, too.
const OTHERS: usize = 60;

struct Mount<'p>(&'p Path);

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

pub fn run(_: usize) -> Part {
    let place = Place::among("disk", OTHERS);
    let state = place.state();
    let mounted = Command::new("mount")
        .args([
            "-t",
            "tmpfs",
            "-o",
            &format!("size={}k", PAGES * PAGE_BYTES / 1024),
            "tmpfs",
        ])
        .arg(&state)
        .status();
    assert!(
        mounted.is_ok_and(|status| status.success()),
        "a tmpfs for the state folder needs root"
    );
    let _mount = Mount(&state);
    let mut lines = vec![
        "| free pages | exit code | the file | what HAProxy runs | lock free | next pass right | said |"
            .to_owned(),
        "|---|---|---|---|---|---|---|".to_owned(),
    ];
    let mut faults = Vec::new();
    for free in 0..=FREE_PAGES_MAX {
        for entry in fs::read_dir(&state).expect("the folder").flatten() {
            let _ = fs::remove_file(entry.path());
        }
        place.refill();
        let ballast = state.join("ballast");
        let bytes = (0..=PAGES)
            .rev()
            .map(|pages| pages * PAGE_BYTES)
            .find(|bytes| fs::write(&ballast, vec![b'x'; *bytes]).is_ok())
            .unwrap_or(0);
        fs::write(
            &ballast,
            vec![b'x'; bytes.saturating_sub(free * PAGE_BYTES)],
        )
        .expect("less fits");
        let output = place.sync();
        let words = String::from_utf8_lossy(&output.stderr)
            .trim()
            .replace('\n', " / ");
        let state = |text: String| match text {
            text if text == place.old => "old, whole",
            text if text == place.new => "new, whole",
            _ => "DAMAGED",
        };
        let (file, live) = (state(place.config()), state(place.live()));
        let code = output.status.code();
        let fault = match code {
            Some(0) if place.live() != place.new => Some("it says that all is done, but it is not"),
            Some(1) if words.is_empty() => Some("it failed without a word"),
            Some(0 | 1) => None,
            _ => Some("it ended in another way"),
        };
        faults.extend(fault.map(|what| format!("{free} free pages: {what}")));
        let _ = fs::remove_file(&ballast);
        let stood = place.stood();
        let code = code.map_or("none".to_owned(), |code| code.to_string());
        let yes = |is: bool| if is { "yes" } else { "NO" };
        lines.push(format!(
            "| {free} | {code} | {file} | {live} | {} | {} | {words} |",
            yes(stood.lock),
            yes(stood.next)
        ));
        faults.extend(
            stood
                .damage
                .into_iter()
                .map(|what| format!("{free} free pages: {what}")),
        );
        let leftovers = place.leftovers();
        if !leftovers.is_empty() {
            faults.push(format!(
                "{free} free pages: left in the folder: {leftovers:?}"
            ));
        }
    }
    Part {
        title: "A full disk",
        lines,
        faults,
    }
}
