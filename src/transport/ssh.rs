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
