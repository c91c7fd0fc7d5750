//! Tells the service manager how `watch` is: ready, reloading, stopping, one line of status, and still alive.
//!
//! Datagrams to the socket that `NOTIFY_SOCKET` names, a path or an abstract name; without the variable nothing
//! is sent and nothing is woken. What is sent is advice: a manager that does not listen stops nobody.
//! It must not know what a pass is. Source: sd_notify(3) of systemd, which promises this protocol to stay.

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Longest line of status, in bytes; `systemctl status` shows one line.
const STATUS_BYTES_MAX: usize = 400;
/// Shortest time between two signs of life; a watchdog that wants more is misconfigured.
const BEAT_MIN: Duration = Duration::from_millis(100);

/// The environment, by name.
type Env<'a> = &'a dyn Fn(&str) -> Option<std::ffi::OsString>;

/// The service manager, if one wants to hear from us. Clones talk to the same one.
#[derive(Debug, Clone, Default)]
pub struct Notify {
    socket: Option<SocketAddr>,
    /// How often it wants a sign of life: half of its limit.
    every: Option<Duration>,
    beaten: Option<Instant>,
}

impl Notify {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`; `pid` is our own.
    ///
    /// A watchdog that is meant for another process is none. A socket that cannot be understood (systemd has
    /// `vsock:` for virtual machines) is said at debug and left alone.
    pub fn from_env(env: Env, pid: u32) -> Notify {
        let Some(name) = env("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Notify::default();
        };
        let Some(socket) = address(&name) else {
            log::debug!("NOTIFY_SOCKET={} is not understood", name.display());
            return Notify::default();
        };
        let number = |name: &str| env(name)?.to_str()?.trim().parse::<u64>().ok();
        let ours = env("WATCHDOG_PID").is_none() || number("WATCHDOG_PID") == Some(pid.into());
        Notify {
            socket: Some(socket),
            every: number("WATCHDOG_USEC")
                .filter(|limit| ours && *limit > 0)
                .map(|limit| (Duration::from_micros(limit) / 2).max(BEAT_MIN)),
            beaten: None,
        }
    }

    /// Signals and locks are ours: units that wait for this one may start. Also the end of a reload.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// The operator asked for a look (SIGHUP); [`Notify::ready`] ends it.
    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// We are about to end.
    pub fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=stopping");
    }

    /// One line for `systemctl status`.
    pub fn status(&self, words: &str) {
        if self.socket.is_some() {
            self.send(&format!("STATUS={}", one_line(words)));
        }
    }

    /// When the next sign of life is due; `None` when nobody asks for any.
    pub fn beat_due(&self, now: Instant) -> Option<Instant> {
        Some(
            self.beaten
                .map_or(now, |beaten| beaten + self.every.unwrap_or_default()),
        )
        .filter(|_| self.every.is_some())
    }

    /// Gives the sign of life if it is due. To be called by the loop whose health it stands for.
    pub fn beat(&mut self, now: Instant) {
        if self.beat_due(now).is_some_and(|due| due <= now) {
            self.send("WATCHDOG=1");
            self.beaten = Some(now);
        }
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        let sent = UnixDatagram::unbound().and_then(|from| {
            // A manager that does not read must not hold up a pass.
            from.set_nonblocking(true)?;
            from.send_to_addr(message.as_bytes(), socket)
        });
        if let Err(error) = sent {
            log::debug!("cannot tell the service manager {message:?}: {error}");
        }
    }
}

/// A path, or an abstract name behind `@`.
fn address(name: &OsStr) -> Option<SocketAddr> {
    let bytes = name.as_bytes();
    match bytes.first() {
        Some(b'/') => SocketAddr::from_pathname(name).ok(),
        Some(b'@') => SocketAddr::from_abstract_name(bytes.get(1..)?).ok(),
        _ => None,
    }
}

/// A line feed would begin another assignment.
fn one_line(words: &str) -> String {
    let mut line: String = words
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if line.len() > STATUS_BYTES_MAX {
        let end = (0..=STATUS_BYTES_MAX)
            .rev()
            .find(|at| line.is_char_boundary(*at));
        line.truncate(end.unwrap_or(0));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn notify(variables: &[(&str, &str)]) -> Notify {
        let find = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        };
        Notify::from_env(&find, 42)
    }

    /// What arrives at `socket` by now.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        socket.set_nonblocking(true).expect("a socket option");
        let mut all = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            all.push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
        all
    }

    #[test]
    fn says_what_the_manager_understands_on_both_kinds_of_socket() {
        let path = std::env::temp_dir().join(format!("cosmonaut-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let name = format!("cosmonaut-notify-test-{}", std::process::id());
        let by_path = UnixDatagram::bind(&path).expect("a socket");
        let abstract_name = SocketAddr::from_abstract_name(&name).expect("a name");
        let by_name = UnixDatagram::bind_addr(&abstract_name).expect("a socket");
        for (socket, value) in [
            (&by_path, path.display().to_string()),
            (&by_name, format!("@{name}")),
        ] {
            let notify = notify(&[("NOTIFY_SOCKET", &value)]);
            notify.ready();
            notify.status("3 routed\nREADY=0");
            notify.reloading();
            notify.stopping();
            let heard = heard(socket);
            assert_eq!(heard[0], "READY=1");
            assert_eq!(heard[1], "STATUS=3 routed READY=0");
            let micros = heard[2].strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
            assert!(micros.is_some_and(|micros| micros.parse::<u64>().is_ok_and(|at| at > 0)));
            assert!(heard[3].starts_with("STOPPING=1\n"), "{heard:?}");
        }
        std::fs::remove_file(path).expect("removed");
    }

    #[test]
    fn a_watchdog_is_fed_at_half_its_time_and_only_when_it_is_ours() {
        let now = Instant::now();
        for (variables, every) in [
            (&[][..], None),
            (&[("NOTIFY_SOCKET", "/none")][..], None),
            (&[("WATCHDOG_USEC", "1000000")], None),
            (
                &[("NOTIFY_SOCKET", "vsock:2:1"), ("WATCHDOG_USEC", "1000000")],
                None,
            ),
            (&[("NOTIFY_SOCKET", "/none"), ("WATCHDOG_USEC", "0")], None),
            (
                &[("NOTIFY_SOCKET", "/none"), ("WATCHDOG_USEC", "soon")],
                None,
            ),
            (
                &[
                    ("NOTIFY_SOCKET", "/none"),
                    ("WATCHDOG_USEC", "10000000"),
                    ("WATCHDOG_PID", "41"),
                ],
                None,
            ),
            (
                &[
                    ("NOTIFY_SOCKET", "/none"),
                    ("WATCHDOG_USEC", "10000000"),
                    ("WATCHDOG_PID", "42"),
                ],
                Some(Duration::from_secs(5)),
            ),
            (
                &[("NOTIFY_SOCKET", "/none"), ("WATCHDOG_USEC", "10")],
                Some(BEAT_MIN),
            ),
        ] {
            let mut notify = notify(variables);
            assert_eq!(notify.beat_due(now), every.map(|_| now), "{variables:?}");
            notify.beat(now);
            assert_eq!(
                notify.beat_due(now),
                every.map(|every| now + every),
                "{variables:?}"
            );
        }
    }

    #[test]
    fn a_manager_that_does_not_listen_stops_nobody() {
        let notify = notify(&[("NOTIFY_SOCKET", "/no/such/socket")]);
        notify.ready();
        let long = "é".repeat(STATUS_BYTES_MAX);
        assert!(one_line(&long).len() <= STATUS_BYTES_MAX);
    }
}
