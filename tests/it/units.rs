//! The unit files: understood by systemd, tight, and in step with each other and with the program.

use std::process::Command;

use crate::support::real_docker::left_out;

const WATCH: &str = include_str!("../../scripts/cosmonaut.service");
const SYNC: &str = include_str!("../../scripts/cosmonaut-sync.service");

/// The most that `systemd-analyze security` may say, in tenths.
const EXPOSURE_MAX: u32 = 30;

/// Assignments of a unit that are part of its sandbox, in order.
fn sandbox(unit: &str) -> Vec<&str> {
    let start = "CapabilityBoundingSet=";
    unit.lines()
        .skip_while(|line| !line.starts_with(start))
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .collect()
}

#[test]
fn the_timers_service_has_the_same_sandbox() {
    assert!(sandbox(WATCH).len() > 20, "{:?}", sandbox(WATCH));
    assert_eq!(sandbox(WATCH), sandbox(SYNC));
}

#[test]
fn systemd_understands_them_and_finds_them_tight() {
    if left_out("systemd") {
        return;
    }
    let folder = std::env::temp_dir().join(format!("csm-units-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let timer = include_str!("../../scripts/cosmonaut-sync.timer");
    let units = [
        ("cosmonaut.service", WATCH),
        ("cosmonaut-sync.service", SYNC),
        ("cosmonaut-sync.timer", timer),
    ];
    let mut verify = Command::new("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    for (name, text) in units {
        // The program need not be installed here.
        let text = text.replace("/usr/bin/cosmonaut", "/bin/true");
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a unit");
        verify.arg(path);
    }
    let said = verify.output().expect(
        "systemd-analyze (package systemd; COSMONAUT_TEST_WITHOUT=systemd leaves this out)",
    );
    let words = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{words}");
    assert!(!words.contains("osmonaut"), "{words}");

    for (name, _) in &units[..2] {
        let said = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--no-pager"])
            .arg(folder.join(name))
            .output()
            .expect("systemd-analyze");
        let words = String::from_utf8_lossy(&said.stdout);
        let level = words
            .lines()
            .find_map(|line| line.split("Overall exposure level for ").nth(1))
            .and_then(|line| line.split(": ").nth(1))
            .and_then(|level| {
                level
                    .split(' ')
                    .next()?
                    .replace('.', "")
                    .parse::<u32>()
                    .ok()
            });
        assert!(level.is_some_and(|level| level < EXPOSURE_MAX), "{words}");
    }
    std::fs::remove_dir_all(folder).expect("removed");
}
