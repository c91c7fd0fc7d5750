//! Docker: found where and by what, may we ask, which engine and API, do events come. And HAProxy's container.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Budget, Finding, Subject};
use crate::docker::Docker;
use crate::docker::container::{Inspected, Row};
use crate::haproxy::process;
use crate::timestamp::Timestamp;
use crate::transport::Address;

/// A daemon that is well answers within milliseconds; one that starts may take longer, and is said to be slow.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A clock that is off by more spoils TLS, log lines and the order of events.
const CLOCK_OFF_MAX_S: i64 = 30;

/// What is known of Docker when it answers.
pub struct Seen {
    /// The client, connected.
    pub docker: Docker,
    /// The list.
    pub rows: Vec<Row>,
    /// HAProxy's container, running or not.
    pub haproxy: Option<Inspected>,
    /// The daemon is on this machine: its paths and processes are ours.
    pub local: bool,
}

/// Looks at Docker; `None` when nothing more can be asked of it.
pub fn look(subject: &Subject, budget: Budget, tell: &mut dyn FnMut(Finding)) -> Option<Seen> {
    let found = match &subject.docker {
        Ok(found) => found,
        Err(error) => {
            tell(Finding::error(
                "docker",
                error,
                "set DOCKER_HOST or --docker-host to the daemon's address",
            ));
            return None;
        }
    };
    let by = match found.origin.as_str() {
        "default" => "the usual place",
        "-H" => "--docker-host",
        other => other,
    };
    let place = format!("{} (by {by})", found.address);
    let limit = match budget.take("docker", ANSWER_MAX) {
        Ok(limit) => limit,
        Err(finding) => {
            tell(finding);
            return None;
        }
    };
    let mut docker = Docker::new(found.address.clone(), found.api_version.clone()).at_most(limit);
    let asked = docker
        .ping()
        .and_then(|ping| Ok((ping, docker.containers()?)));
    let (ping, rows) = match asked {
        Ok(answers) => answers,
        Err(error) => {
            tell(Finding::error(
                "docker",
                &error,
                &format!(
                    "start the daemon at {place}, or name another one by DOCKER_HOST or --docker-host"
                ),
            ));
            return None;
        }
    };
    let engine = ping.engine.as_deref().unwrap_or("an engine without a name");
    let containers = match rows.len() {
        1 => "1 container runs".to_owned(),
        n => format!("{n} containers run"),
    };
    tell(Finding::ok(
        "docker",
        format!("{place} is {engine}, API {}; {containers}", ping.api),
    ));
    tell(clock("docker-clock", "Docker's", ping.daemon_time));
    tell(match docker.events(None) {
        Ok(_) => Finding::ok("docker-events", "the event stream opens"),
        Err(error) => Finding::error(
            "docker-events",
            &error,
            "watch needs GET /events; a proxy before Docker must allow it",
        ),
    });
    let local = match &found.address {
        Address::Unix(_) => true,
        Address::Tcp { host, .. } => matches!(host.as_str(), "localhost" | "127.0.0.1" | "::1"),
        Address::Ssh { .. } => false,
    };
    let haproxy = docker
        .container(&subject.interest.haproxy)
        .unwrap_or_else(|error| {
            tell(Finding::error(
                "haproxy-container",
                &error,
                "see what the daemon says of it: docker inspect",
            ));
            None
        });
    // A container of this very daemon has paths and processes of its own.
    let ours = Path::new("/proc/self");
    let inside = rows
        .iter()
        .any(|row| process::is_of_container(ours, &row.id));
    Some(Seen {
        docker,
        rows,
        haproxy,
        local: local && !inside,
    })
}

/// Whether a clock agrees with ours.
pub fn clock(check: &'static str, whose: &str, theirs: Option<Timestamp>) -> Finding {
    let ours = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
        });
    match theirs.map(|theirs| ours.saturating_sub(theirs.seconds)) {
        None => Finding::ok(check, format!("{whose} clock is not told")),
        Some(off) if off.abs() <= CLOCK_OFF_MAX_S => {
            Finding::ok(check, format!("{whose} clock agrees with this host's"))
        }
        Some(off) => Finding::warn(
            check,
            format!(
                "this host's clock is {} s {} {whose}",
                off.abs(),
                if off > 0 { "ahead of" } else { "behind" }
            ),
            "let one time service set both (timedatectl set-ntp true)",
        ),
    }
}
