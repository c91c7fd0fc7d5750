//! A connection through the user's ssh: `ssh ... docker system dial-stdio`, as the docker CLI does it.
//!
//! The child's stdin and stdout are one end of a socket pair, so that time limits and hanging up work as for
//! any socket. Its stderr is read along while we wait, and its last words become the error.
//! Rules: docker/cli, `cli/connhelper`.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::{Socket, Timed};

/// How much of ssh's last words is kept; the reason stands in the last line.
const LAST_WORDS_BYTES_MAX: usize = 2 << 10;
/// How long an ssh that has closed its side may take to end and say why.
const END_WAIT: Duration = Duration::from_secs(2);
/// How long an ssh that was asked to end gets before it is killed.
const TERM_WAIT: Duration = Duration::from_millis(500);

/// A running ssh.
#[derive(Debug)]
pub(super) struct Tunnel {
    timed: Timed,
    child: Child,
    stderr: Option<ChildStderr>,
    last_words: Vec<u8>,
    /// Whether the daemon behind ssh has said anything yet.
    heard: bool,
}

/// What ssh is given; everything that the user wrote stands where it cannot be taken for an option.
fn arguments(
    user: Option<&str>,
    host: &str,
    port: Option<u16>,
    socket: Option<&str>,
) -> Vec<String> {
    let mut arguments: Vec<String> = [
        "-o",
        "ConnectTimeout=30",
        "-o",
        "ServerAliveInterval=15",
        "-T",
    ]
    .map(str::to_owned)
    .to_vec();
    if let Some(user) = user {
        arguments.extend(["-l".to_owned(), user.to_owned()]);
    }
    if let Some(port) = port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    arguments.extend(["--", host, "docker"].map(str::to_owned));
    if let Some(socket) = socket {
        arguments.extend(["--host".to_owned(), format!("unix://{socket}")]);
    }
    arguments.extend(["system", "dial-stdio"].map(str::to_owned));
    arguments
}

impl Tunnel {
    /// Starts `program` with ssh's arguments; it connects on its own time.
    pub(super) fn start(
        program: &OsStr,
        user: Option<&str>,
        host: &str,
        port: Option<u16>,
        socket: Option<&str>,
    ) -> io::Result<Tunnel> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(program)
            .args(arguments(user, host, port, socket))
            .stdin(Stdio::from(OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        if let Some(stderr) = &stderr {
            rustix::io::ioctl_fionbio(stderr, true)?;
        }
        Ok(Tunnel {
            timed: Timed::new(Socket::Unix(ours)),
            child,
            stderr,
            last_words: Vec::new(),
            heard: false,
        })
    }

    pub(super) fn timed(&self) -> &Timed {
        &self.timed
    }

    pub(super) fn timed_mut(&mut self) -> &mut Timed {
        &mut self.timed
    }

    /// Waits until the daemon or ssh itself has something to say.
    fn wait_readable(&mut self) -> io::Result<()> {
        loop {
            let left = self
                .timed
                .left()?
                .and_then(|left| Timespec::try_from(left).ok());
            let mut waiting = vec![PollFd::new(&self.timed.socket, PollFlags::IN)];
            if let Some(stderr) = &self.stderr {
                waiting.push(PollFd::new(stderr, PollFlags::IN));
            }
            match poll(&mut waiting, left.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let ready = |place: usize| {
                waiting
                    .get(place)
                    .is_some_and(|waited| !waited.revents().is_empty())
            };
            let (daemon, ssh) = (ready(0), ready(1));
            if ssh {
                self.listen();
            }
            if daemon {
                return Ok(());
            }
        }
    }

    /// Takes what ssh has written to stderr, so that it never blocks on it; keeps the end.
    fn listen(&mut self) {
        let mut piece = [0; 1024];
        while let Some(stderr) = &mut self.stderr {
            match stderr.read(&mut piece) {
                Ok(bytes) if bytes > 0 => {
                    self.last_words
                        .extend_from_slice(piece.get(..bytes).unwrap_or_default());
                    let extra = self.last_words.len().saturating_sub(LAST_WORDS_BYTES_MAX);
                    self.last_words.drain(..extra);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => self.stderr = None,
            }
        }
    }

    /// Why nothing came: ssh's exit status and its last line.
    fn explain(&mut self) -> io::Error {
        let status = if wait(&self.child, END_WAIT) {
            match self.child.try_wait() {
                Ok(Some(status)) => match status.code() {
                    Some(code) => format!("ssh ended with {code}"),
                    None => "ssh was killed".to_owned(),
                },
                _ => "ssh ended".to_owned(),
            }
        } else {
            "ssh closed the connection".to_owned()
        };
        self.listen();
        let words = String::from_utf8_lossy(&self.last_words);
        let lines: Vec<&str> = words
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        let kind = io::ErrorKind::ConnectionRefused;
        match lines.last() {
            Some(line) => io::Error::new(kind, format!("{status}: {line}")),
            None => io::Error::new(kind, status),
        }
    }
}

/// Waits for the child's end without reaping it; false when it still runs after `limit`.
fn wait(child: &Child, limit: Duration) -> bool {
    let Some(pidfd) = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
    else {
        return false;
    };
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(left) = Timespec::try_from(left) else {
            return false;
        };
        let mut waiting = [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        match poll(&mut waiting, Some(&left)) {
            Ok(ready) => return ready > 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

impl Read for Tunnel {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_readable()?;
        match self.timed.read(buffer) {
            Ok(bytes) if bytes > 0 => {
                self.heard = true;
                Ok(bytes)
            }
            // Before the first byte the end of the stream is ssh's own failure and not the daemon's.
            Ok(_) | Err(_) if !self.heard && !buffer.is_empty() => Err(self.explain()),
            other => other,
        }
    }
}

impl Write for Tunnel {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.timed.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe && !self.heard => {
                Err(self.explain())
            }
            other => other,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Tunnel {
    /// Ends ssh and reaps it: first by the closed connection and SIGTERM, then by force.
    fn drop(&mut self) {
        if let Socket::Unix(socket) = &self.timed.socket {
            let _ = socket.shutdown(std::net::Shutdown::Both);
        }
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if !wait(&self.child, TERM_WAIT) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n\r\n";

    fn start(user: Option<&str>, host: &str, port: Option<u16>, socket: Option<&str>) -> Tunnel {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/docker/fake-ssh");
        let mut tunnel =
            Tunnel::start(program.as_ref(), user, host, port, socket).expect("the stand-in");
        tunnel.timed.deadline = Some(Instant::now() + Duration::from_secs(20));
        tunnel
    }

    /// Sends a request and reads until the body says the last argument.
    fn answer(tunnel: &mut Tunnel) -> io::Result<String> {
        tunnel.write_all(REQUEST)?;
        let mut bytes = Vec::new();
        let mut piece = [0; 512];
        while !bytes.ends_with(b"dial-stdio") {
            let read = tunnel.read(&mut piece)?;
            assert_ne!(read, 0, "cut: {}", String::from_utf8_lossy(&bytes));
            bytes.extend_from_slice(&piece[..read]);
        }
        let text = String::from_utf8(bytes).expect("text");
        let (_, arguments) = text.split_once("\r\n\r\n").expect("a head");
        Ok(arguments.to_owned())
    }

    fn gone(pid: u32) -> bool {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn ssh_is_started_as_docker_starts_it() {
        let always = "-o ConnectTimeout=30 -o ServerAliveInterval=15 -T";
        for (user, host, port, socket, expected) in [
            (None, "host", None, None, "-- host docker system dial-stdio"),
            (
                Some("me"),
                "example.com",
                Some(2222),
                None,
                "-l me -p 2222 -- example.com docker system dial-stdio",
            ),
            (
                Some("u"),
                "h",
                None,
                Some("/run/user/1000/docker.sock"),
                "-l u -- h docker --host unix:///run/user/1000/docker.sock system dial-stdio",
            ),
            (
                Some("-oProxyCommand=x"),
                "h",
                None,
                None,
                "-l -oProxyCommand=x -- h docker system dial-stdio",
            ),
        ] {
            let mut tunnel = start(user, host, port, socket);
            let arguments = answer(&mut tunnel).expect("an answer");
            assert_eq!(arguments, format!("{always} {expected}"));
        }
    }

    #[test]
    fn the_reason_is_sshs_last_line() {
        let mut tunnel = start(None, "refused", None, None);
        let error = answer(&mut tunnel).expect_err("refused");
        assert_eq!(
            error.to_string(),
            "ssh ended with 255: ssh: connect to host refused port 22: Connection refused"
        );
    }

    #[test]
    fn a_chatty_ssh_never_blocks_on_its_stderr() {
        let mut tunnel = start(None, "chatty", None, None);
        answer(&mut tunnel).expect("an answer");
        assert!(tunnel.last_words.len() <= LAST_WORDS_BYTES_MAX);
    }

    #[test]
    fn the_end_after_an_answer_is_an_end() {
        let mut tunnel = start(None, "ends", None, None);
        answer(&mut tunnel).expect("an answer");
        assert_eq!(tunnel.read(&mut [0; 8]).expect("an end"), 0);
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_ssh_is_reaped() {
        for host in ["silent", "stubborn"] {
            let mut tunnel = start(None, host, None, None);
            let pid = tunnel.child.id();
            tunnel.timed.deadline = Some(Instant::now() + Duration::from_millis(100));
            let error = answer(&mut tunnel).expect_err("no answer");
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            let begun = Instant::now();
            drop(tunnel);
            assert!(begun.elapsed() < Duration::from_secs(5));
            assert!(gone(pid), "{host}");
        }
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = Tunnel::start("/nonexistent/ssh".as_ref(), None, "h", None, None)
            .expect_err("no such program");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn another_thread_hangs_up() {
        let mut tunnel = start(None, "silent", None, None);
        let Socket::Unix(socket) = &tunnel.timed.socket else {
            panic!("a socket pair");
        };
        let other = socket.try_clone().expect("a handle");
        let reader = std::thread::spawn(move || tunnel.read(&mut [0; 8]).map_err(|e| e.kind()));
        std::thread::sleep(Duration::from_millis(20));
        other.shutdown(std::net::Shutdown::Both).expect("hung up");
        assert!(reader.join().expect("the reader").is_err());
    }
}
