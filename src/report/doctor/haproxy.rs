//! HAProxy: the script that checks and reloads it, where it runs, whether it reads our file, its sockets, and
//! what it shows against what the file says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Budget, Finding, SCRIPT_MAX, Subject};
use crate::config::{self, Config};
use crate::docker::container::Inspected;
use crate::haproxy::memory::Memory;
use crate::haproxy::process::{self, Process};
use crate::haproxy::script::{self, Checked};
use crate::haproxy::socket::{self, Info, SocketAddr};

/// One question to a socket.
const SOCKET_MAX: Duration = Duration::from_millis(1500);
/// `haproxy -v`.
const VERSION_MAX: Duration = Duration::from_secs(1);
/// Longest config that is read, in bytes.
const CONFIG_BYTES_MAX: u64 = 64 << 20;
/// Old workers beyond this are worth a look: each serves what it still has, with all its memory.
const OLD_WORKERS_MAX: usize = 3;
/// The oldest HAProxy that we know, major and minor number.
const OLDEST: (u32, u32) = (2, 4);
/// How HAProxy is started on a host, and in a container.
const START: &str = "start it: systemctl start haproxy, or docker start";

/// Looks at HAProxy. `container` is what Docker says of HAProxy's container, and whether Docker is of this machine;
/// `None` when Docker does not answer.
pub fn look(
    subject: &Subject,
    container: Option<(&Option<Inspected>, bool)>,
    budget: Budget,
    tell: &mut dyn FnMut(Finding),
) {
    let text = read(&subject.config);
    tell(script_check(subject, text.as_deref(), budget));
    let found = container.and_then(|(found, _)| found.as_ref());
    let local = container.is_none_or(|(_, local)| local);
    let processes = process::all(Path::new("/proc"));
    let place = place(subject, found, local, &processes);
    tell(place.finding());
    if let Some(finding) = place.file(subject, found, local) {
        tell(finding);
    }
    sockets(subject, &place, text.as_deref(), budget, tell);
    if let Some(process) = place.process() {
        tell(workers(process.workers.len().saturating_sub(1)));
    }
}

// --------------------------------------------------------------------------------------------------------------
// The script

fn script_check(subject: &Subject, text: Option<&str>, budget: Budget) -> Finding {
    const CHECK: &str = "script";
    let name = subject.script.name();
    let path = subject
        .script_path
        .as_deref()
        .unwrap_or(Path::new(script::SHELL));
    let no_shell = subject.script_path.is_none() && !path.exists();
    if no_shell && matches!(subject.master, Ok(Some(_))) {
        return Finding::ok(
            CHECK,
            format!(
                "there is no {} to run one; HAProxy is reloaded by its master socket",
                script::SHELL
            ),
        );
    }
    if no_shell {
        return Finding::fail(
            CHECK,
            format!("there is no {} to run the built-in one", script::SHELL),
            "--haproxy-master names HAProxy's master socket (haproxy -S), by which it is reloaded without a shell",
        );
    }
    match fs::metadata(path) {
        Err(error) => {
            return Finding::fail(
                CHECK,
                format!("{} cannot be found: {error}", path.display()),
                "--script names the reload script; leave it away for the built-in one",
            );
        }
        Ok(file) if !file.is_file() => {
            return Finding::fail(
                CHECK,
                format!("{} is no file", path.display()),
                "--script names the reload script; leave it away for the built-in one",
            );
        }
        Ok(file) if file.permissions().mode() & 0o111 == 0 => {
            return Finding::fail(
                CHECK,
                format!("{} is not executable", path.display()),
                format!("chmod +x {}", path.display()),
            );
        }
        Ok(_) => {}
    }
    let Some(text) = text else {
        return Finding::ok(
            CHECK,
            format!("{name} is there; it has no config to check yet"),
        );
    };
    if budget.at_most(SCRIPT_MAX) != Some(SCRIPT_MAX) {
        return Finding::warn(
            CHECK,
            format!("{name} is there; its check was not tried, no time was left"),
            "mend what is named above, then run it again",
        );
    }
    let shown = subject.config.display();
    let said = config::split_fingerprint(text).1.unwrap_or_default();
    match subject.script.check(&subject.config, text, said, || ()) {
        Ok(Checked::Accepted) => {
            Finding::ok(CHECK, format!("{name} checks; HAProxy accepts {shown}"))
        }
        Ok(Checked::Refused(words)) => Finding::fail(
            CHECK,
            format!("HAProxy refuses {shown} as it stands: {words}"),
            "cosmonaut sync writes it anew; if that is refused too, the words name the line of --base or the service",
        ),
        Ok(Checked::Unknown(words)) => Finding::warn(
            CHECK,
            format!("{name} cannot check a config here: {words}"),
            "give it a HAProxy that it can ask: start HAProxy's container, or install haproxy",
        ),
        Err(error) => Finding::error(CHECK, &error, "run it by hand with the same arguments"),
    }
}

// --------------------------------------------------------------------------------------------------------------
// Where it runs

/// Where HAProxy runs.
enum Place<'a> {
    /// In the container that is named, with its master process if that is to be seen.
    Container {
        found: &'a Inspected,
        process: Option<&'a Process>,
        name: &'a str,
    },
    /// In the container that is named, which does not serve.
    Down { found: &'a Inspected, name: &'a str },
    /// On this machine.
    Host(&'a Process),
    /// Somewhere here, but not as we were told.
    Astray {
        process: &'a Process,
        container: &'a str,
        config: &'a Path,
    },
    /// Nowhere that can be seen from here.
    Nowhere {
        container: &'a str,
        config: &'a Path,
    },
}

fn place<'a>(
    subject: &'a Subject,
    found: Option<&'a Inspected>,
    local: bool,
    processes: &'a [Process],
) -> Place<'a> {
    let name = subject.interest.haproxy.as_str();
    // As the reload script has it: a process of the host that reads our file goes first.
    let host = processes.iter().find(|one| {
        !one.contained && (one.reads(&subject.config) || one.files.contains(&subject.config))
    });
    if let Some(process) = host {
        return Place::Host(process);
    }
    if let Some(found) = found {
        if !found.container.state.serves() {
            return Place::Down { found, name };
        }
        let process = processes
            .iter()
            .find(|one| local && one.is_of(&found.container.id));
        return Place::Container {
            found,
            process,
            name,
        };
    }
    match processes.first() {
        Some(process) => Place::Astray {
            process,
            container: name,
            config: &subject.config,
        },
        None => Place::Nowhere {
            container: name,
            config: &subject.config,
        },
    }
}

impl Place<'_> {
    fn process(&self) -> Option<&Process> {
        match self {
            Place::Container { process, .. } => *process,
            Place::Host(process) => Some(process),
            _ => None,
        }
    }

    fn finding(&self) -> Finding {
        const CHECK: &str = "haproxy";
        match self {
            Place::Host(process) if !process.master => Finding::warn(
                CHECK,
                format!(
                    "runs on this host as process {} without a master (-W)",
                    process.pid
                ),
                "it is replaced by a new process at each change; start it with -W or -Ws and it reloads without a gap",
            ),
            Place::Host(process) => Finding::ok(
                CHECK,
                format!("runs on this host as process {}", process.pid),
            ),
            Place::Container {
                found,
                process: Some(process),
                name,
            } if !process.master => Finding::fail(
                CHECK,
                format!(
                    "runs in the container {name} ({}) without a master (-W), so it cannot load a file again",
                    found.image
                ),
                "start it as the official image does: haproxy -W -db -f ...",
            ),
            Place::Container { found, name, .. } => Finding::ok(
                CHECK,
                format!("runs in the container {name} ({})", found.image),
            ),
            Place::Down { found, name } => {
                let state = &found.container.state;
                let (what, mend) = if state.paused {
                    ("is paused", "docker unpause")
                } else if state.restarting {
                    ("restarts again and again", "see why: docker logs")
                } else {
                    ("does not run", "docker start")
                };
                Finding::fail(
                    CHECK,
                    format!("HAProxy is down: its container {name} {what}"),
                    format!("{mend} {name}"),
                )
            }
            Place::Astray {
                process,
                container,
                config,
            } if process.contained => Finding::fail(
                CHECK,
                format!(
                    "there is no container {container}; a HAProxy runs in another container (process {})",
                    process.pid
                ),
                format!(
                    "name its container by --haproxy-container, and let it read {}",
                    config.display()
                ),
            ),
            Place::Astray {
                process,
                container,
                config,
            } => {
                let files: Vec<String> = process
                    .files
                    .iter()
                    .map(|file| file.display().to_string())
                    .collect();
                Finding::fail(
                    CHECK,
                    format!(
                        "HAProxy (process {}) reads {} and not {}, and there is no container {container}",
                        process.pid,
                        if files.is_empty() {
                            "no file".to_owned()
                        } else {
                            files.join(", ")
                        },
                        config.display()
                    ),
                    format!(
                        "name the file that it reads by --config, or start it with -f {}",
                        config.display()
                    ),
                )
            }
            Place::Nowhere { container, config } => Finding::fail(
                CHECK,
                format!(
                    "HAProxy is down: there is no container {container}, and no haproxy process here"
                ),
                format!(
                    "{START} (--haproxy-container names the container); it must read {}",
                    config.display()
                ),
            ),
        }
    }

    /// Whether it reads the file that we write; `None` where that cannot be told or was said already.
    fn file(&self, subject: &Subject, found: Option<&Inspected>, local: bool) -> Option<Finding> {
        const CHECK: &str = "haproxy-file";
        let config = fs::canonicalize(&subject.config).unwrap_or_else(|_| subject.config.clone());
        let shown = config.display();
        let folder = config.parent().unwrap_or(Path::new("/"));
        let name = &subject.interest.haproxy;
        let alone = |inside: &Path| {
            let mend = format!(
                "mount its folder: docker run -v {}:{} ...",
                folder.display(),
                inside.parent().unwrap_or(Path::new("/")).display()
            );
            let mounted = format!("the container {name} has {shown} mounted as a single file");
            // The very same file still: it is written in place to keep that so.
            if self.process().is_some_and(|process| process.reads(&config)) {
                Finding::warn(
                    CHECK,
                    format!(
                        "{mounted}: it is written in place, and a HAProxy that starts meanwhile reads a part"
                    ),
                    mend,
                )
            } else {
                Finding::fail(
                    CHECK,
                    format!(
                        "{mounted}: it keeps the old file when a new one takes its place, so nothing ever changes"
                    ),
                    mend,
                )
            }
        };
        match self {
            Place::Host(process) => Some(if !config.exists() || process.reads(&config) {
                Finding::ok(CHECK, format!("it reads {shown}"))
            } else {
                Finding::fail(
                    CHECK,
                    format!("it does not read the file that is at {shown} now"),
                    "systemctl restart haproxy",
                )
            }),
            Place::Container { .. } | Place::Down { .. } if !local => Some(Finding::ok(
                CHECK,
                "Docker is on another machine or this is a container: whether HAProxy reads our file cannot be seen from here",
            )),
            Place::Container { .. } | Place::Down { .. } => {
                let mounts = &found?.mounts;
                let as_here = |source: &str| {
                    fs::canonicalize(source).unwrap_or_else(|_| PathBuf::from(source))
                };
                if let Some((_, inside)) =
                    mounts.iter().find(|(source, _)| as_here(source) == config)
                {
                    return Some(alone(Path::new(inside)));
                }
                if let Some(process) = self.process() {
                    if let Some(inside) = process.mounted_alone() {
                        return Some(alone(inside));
                    }
                    if process.reads(&config) {
                        return Some(Finding::ok(CHECK, format!("it reads {shown}")));
                    }
                    if process.reads_text(&config) {
                        return Some(Finding::warn(
                            CHECK,
                            format!("it reads a copy of {shown}, which is not the same file"),
                            "mount the folder of --config into the container",
                        ));
                    }
                }
                let mounted = mounts
                    .iter()
                    .find(|(source, _)| config.starts_with(as_here(source)));
                Some(match (mounted, self.process()) {
                    (Some((_, inside)), None) => Finding::ok(
                        CHECK,
                        format!("the folder of {shown} is mounted in {name} at {inside}"),
                    ),
                    (Some((_, inside)), Some(_)) if !config.exists() => Finding::ok(
                        CHECK,
                        format!("the folder of {shown} is mounted in {name} at {inside}"),
                    ),
                    (_, process) => {
                        let reads = process.and_then(|process| process.files.first());
                        let reads = reads
                            .cloned()
                            .unwrap_or_else(|| PathBuf::from("/usr/local/etc/haproxy/haproxy.cfg"));
                        let inside = reads.parent().unwrap_or(Path::new("/"));
                        Finding::fail(
                            CHECK,
                            format!(
                                "the container {name} does not see {shown}; it reads {} of its own",
                                reads.display()
                            ),
                            format!(
                                "docker run -v {}:{}:ro ..., or name by --config the file that it has mounted",
                                folder.display(),
                                inside.display()
                            ),
                        )
                    }
                })
            }
            Place::Astray { .. } | Place::Nowhere { .. } => None,
        }
    }
}

fn workers(old: usize) -> Finding {
    const CHECK: &str = "old-workers";
    if old > OLD_WORKERS_MAX {
        Finding::warn(
            CHECK,
            format!("{old} old workers still serve what they began before a reload"),
            "set hard-stop-after in the global section of --base, such as: hard-stop-after 60s",
        )
    } else {
        Finding::ok(CHECK, format!("{old} old workers"))
    }
}

// --------------------------------------------------------------------------------------------------------------
// Sockets

fn sockets(
    subject: &Subject,
    place: &Place<'_>,
    text: Option<&str>,
    budget: Budget,
    tell: &mut dyn FnMut(Finding),
) {
    let mut info: Option<Info> = None;
    for (check, option, address, master) in [
        ("haproxy-socket", "--haproxy-socket", &subject.socket, false),
        ("haproxy-master", "--haproxy-master", &subject.master, true),
    ] {
        let address = match address {
            Ok(Some(address)) => address,
            Ok(None) => {
                let words = if master {
                    "none given: reloads are made by the script"
                } else {
                    "none given: every change is a reload"
                };
                tell(Finding::ok(check, words));
                continue;
            }
            Err(error) => {
                tell(Finding::error(check, error, "want /PATH or HOST:PORT"));
                continue;
            }
        };
        let limit = match budget.take(check, SOCKET_MAX) {
            Ok(limit) => limit,
            Err(finding) => {
                tell(finding);
                continue;
            }
        };
        match socket::info(address, master, limit) {
            Ok(answer) => {
                tell(Finding::ok(
                    check,
                    format!("{address} answers: HAProxy {}", answer.version),
                ));
                if !master && let Some(finding) = level(address, limit) {
                    tell(finding);
                }
                info.get_or_insert(answer);
            }
            Err(error) => tell(Finding::fail(
                check,
                error.to_string(),
                if master {
                    format!("start HAProxy with -S {address}, or leave {option} away")
                } else {
                    format!(
                        "put 'stats socket {address} level admin' into the global section, or leave {option} away"
                    )
                },
            )),
        }
    }
    if info.is_none() {
        info = own_socket(place, text).and_then(|address| {
            let limit = budget.at_most(SOCKET_MAX)?;
            socket::info(&address, false, limit).ok()
        });
    }
    match &info {
        Some(info) => {
            tell(version(&info.version));
            if let Some(finding) = fingerprint(info, text, subject) {
                tell(finding);
            }
        }
        None => {
            if let Some(version_text) = version_of_host(place, budget) {
                tell(version(&version_text));
            }
        }
    }
}

/// Whether the runtime socket may change servers: without `level admin` every change stays a reload.
fn level(address: &SocketAddr, limit: Duration) -> Option<Finding> {
    let reply = socket::command(address, "show cli level", limit).ok()?;
    let level = reply.split_whitespace().next()?.to_owned();
    (level != "admin").then(|| {
        Finding::warn(
            "haproxy-socket",
            format!("{address} is of level {level}, which may not change servers"),
            "say 'level admin' on its 'stats socket' line",
        )
    })
}

/// The runtime socket that the config itself names, as seen from here.
fn own_socket(place: &Place<'_>, text: Option<&str>) -> Option<SocketAddr> {
    let process = place.process()?;
    let config = Config::parse(text?);
    let path = config.lines().find_map(|line| {
        let words = (line.keyword(), line.word(1));
        let path = line.word(2);
        let path = path.strip_prefix("unix@").unwrap_or(path);
        (words == ("stats", "socket") && path.starts_with('/')).then(|| PathBuf::from(path))
    })?;
    let seen = if process.contained {
        process.below_root(&path)
    } else {
        path
    };
    seen.exists().then_some(SocketAddr::Path(seen))
}

fn version(text: &str) -> Finding {
    const CHECK: &str = "haproxy-version";
    let mut numbers = text
        .split(['.', '-'])
        .map_while(|number| number.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST => Finding::warn(
            CHECK,
            format!("HAProxy {text} is older than {}.{}", OLDEST.0, OLDEST.1),
            "bring it up to date; the built-in config may not work with it",
        ),
        _ => Finding::ok(CHECK, format!("HAProxy {text}")),
    }
}

/// Version of the program on this host.
fn version_of_host(place: &Place<'_>, budget: Budget) -> Option<String> {
    let Place::Host(_) = place else { return None };
    let limit = budget.at_most(VERSION_MAX)?;
    script::version_of_program(limit, &std::env::temp_dir())
}

/// What HAProxy runs against what the file says.
fn fingerprint(info: &Info, text: Option<&str>, subject: &Subject) -> Option<Finding> {
    const CHECK: &str = "fingerprint";
    let said = config::split_fingerprint(text?).1?;
    let shown = subject.config.display();
    Some(
        match info.description.strip_prefix(config::DESCRIPTION_PREFIX) {
            Some(runs) if runs == said => {
                Finding::ok(CHECK, format!("HAProxy runs what {shown} says ({said})"))
            }
            // Changes by the runtime socket leave the description as it was loaded.
            Some(runs) if loaded_before(subject, said).as_deref() == Some(runs) => Finding::ok(
                CHECK,
                format!(
                    "HAProxy runs what {shown} says ({said}): it loaded {runs}, and its servers were changed since"
                ),
            ),
            Some(runs) => Finding::fail(
                CHECK,
                format!("HAProxy runs the config {runs}, {shown} says {said}"),
                "cosmonaut sync reloads it; if it stays so, HAProxy reads another file or the socket is another HAProxy's",
            ),
            None => Finding::fail(
                CHECK,
                format!("HAProxy runs a config that is not cosmonaut's, {shown} says {said}"),
                "make HAProxy read that file (-f), or name by --config the file that it reads",
            ),
        },
    )
}

/// The config that HAProxy had loaded when it took, by its runtime socket, the one that the file says.
fn loaded_before(subject: &Subject, said: &str) -> Option<String> {
    let state_dir = fs::canonicalize(&subject.state_dir).ok()?;
    let taken = Memory::new(&state_dir, &subject.config).taken()?;
    (taken.fingerprint == said).then_some(taken.loaded)
}

fn read(path: &Path) -> Option<String> {
    let length = fs::metadata(path).ok()?.len();
    let bytes = (length <= CONFIG_BYTES_MAX).then(|| fs::read(path).ok())??;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}
