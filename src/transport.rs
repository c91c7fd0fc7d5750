//! A byte stream to a daemon: Unix socket, TCP, TLS, or ssh as a child process.
//!
//! Connects within a time limit, reads and writes up to a deadline, and can be hung up from another thread.
//! Knows nothing of what is spoken over it.

mod resolve;
mod ssh;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};

use crate::error::{Error, Kind, Result};

/// Silence on a TCP connection before the kernel asks whether the peer is still there.
///
/// A peer whose link is gone is found after 30 + 3 x 10 s; with the kernel's own 7,200 s a dead event
/// stream would stay unnoticed for two hours.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
/// Time between two such questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Questions without an answer until the connection counts as dead.
const KEEPALIVE_COUNT: u32 = 3;
/// Longest time that sent bytes may stay unacknowledged; keepalive alone does not look at them.
const USER_TIMEOUT_MILLISECONDS: u32 = 30_000;
/// Shortest share of the time limit that one of several addresses of a name gets.
const CONNECT_SHARE_MIN: Duration = Duration::from_secs(1);

/// Where a daemon listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, with TLS or without.
    Tcp {
        /// Name or address; IPv6 without brackets.
        host: String,
        /// Port.
        port: u16,
        /// How to speak TLS; `None` is plain HTTP.
        tls: Option<Tls>,
    },
    /// A host reached by the user's ssh, where `docker system dial-stdio` speaks to the daemon.
    Ssh {
        /// Login name; ssh's own configuration decides without one.
        user: Option<String>,
        /// Name or address; may be an alias of ssh's configuration.
        host: String,
        /// Port.
        port: Option<u16>,
        /// The daemon's Unix socket over there, if not the usual one.
        socket: Option<String>,
    },
}

impl fmt::Display for Address {
    /// As the user would write it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix://{}", path.display()),
            Address::Tcp { host, port, .. } => write!(f, "tcp://{}:{port}", Bracketed(host)),
            Address::Ssh {
                user,
                host,
                port,
                socket,
            } => {
                f.write_str("ssh://")?;
                if let Some(user) = user {
                    write!(f, "{user}@")?;
                }
                write!(f, "{}", Bracketed(host))?;
                if let Some(port) = port {
                    write!(f, ":{port}")?;
                }
                f.write_str(socket.as_deref().unwrap_or_default())
            }
        }
    }
}

/// A host as it stands in an address: IPv6 in brackets.
struct Bracketed<'a>(&'a str);

impl fmt::Display for Bracketed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.contains(':') {
            write!(f, "[{}]", self.0)
        } else {
            f.write_str(self.0)
        }
    }
}

/// Where the certificates are; they are read anew for each connection, so a renewed one is taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that we trust (PEM); without it those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate and its private key (PEM), for daemons that ask for one.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Whether the server must prove who it is; only a Docker context can say no.
    pub verify: bool,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: Stream,
}

#[derive(Debug)]
enum Stream {
    Plain(Timed),
    #[cfg(feature = "tls")]
    Tls(Box<tls::Session>),
    Ssh(ssh::Tunnel),
}

/// The address under which this host reaches others, without sending anything: that of its default route.
///
/// `None` on a host that has no route beyond itself.
pub fn host_address() -> Option<IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849): a UDP socket that connects only asks the routing table.
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .find_map(|(local, far)| {
            let socket = UdpSocket::bind(local).ok()?;
            socket.connect(far).ok()?;
            socket.local_addr().ok().map(|address| address.ip())
        })
}

/// The same for somebody who knows one: it is kept as long as this host has it, whatever its default route is by now,
/// and while this host has no other.
pub fn host_address_now(known: Option<IpAddr>) -> Option<IpAddr> {
    let is_ours = |ip: &IpAddr| UdpSocket::bind((*ip, 0)).is_ok();
    known.filter(is_ours).or_else(host_address).or(known)
}

/// Whether somebody accepts a TCP connection there within `timeout`; nothing is said to him.
pub fn accepts(address: SocketAddr, timeout: Duration) -> bool {
    TcpStream::connect_timeout(&address, timeout).is_ok()
}

/// Connects, for TLS up to the end of the handshake; all of it within `timeout`.
///
/// Of several addresses of a name each is tried with its share of `timeout`. For ssh only the program is
/// started: it has 30 s of its own to connect.
///
/// # Errors
/// What cannot be connected to and why, with a kind: `Unreachable`, `TimedOut` or `Denied`.
pub fn connect(address: &Address, timeout: Duration) -> Result<Connection> {
    connect_and_shake(address, timeout, timeout)
}

/// As [`connect`], with another limit for TLS's handshake: a daemon that is still starting takes connections,
/// since the kernel does it for it, and shakes hands when it is ready.
///
/// # Errors
/// As [`connect`].
pub fn connect_and_shake(
    address: &Address,
    timeout: Duration,
    handshake: Duration,
) -> Result<Connection> {
    let tried = || format!("cannot connect to {address}");
    let stream = match address {
        Address::Unix(path) => Stream::Plain(Timed::new(Socket::Unix(
            unix_stream(path, timeout).map_err(|error| refused(tried(), &error, None))?,
        ))),
        Address::Tcp { host, port, tls } => {
            let deadline = Instant::now() + timeout;
            let socket = connect_tcp(host, *port, deadline).map_err(|(place, error)| {
                refused(tried(), &error, place.filter(|place| place != host))
            })?;
            let timed = Timed::new(Socket::Tcp(socket));
            let deadline = Instant::now() + handshake;
            match tls {
                None => Stream::Plain(timed),
                #[cfg(feature = "tls")]
                Some(tls) => Stream::Tls(Box::new(
                    tls::Session::start(tls, host, timed, deadline).map_err(
                        |error| match error {
                            tls::Failure::Files(error) => error,
                            tls::Failure::Handshake(error) => {
                                let mend = mend(&error, address);
                                let error = refused(tried(), &error, None);
                                match mend {
                                    Some(mend) => error.hint(mend),
                                    None => error,
                                }
                            }
                        },
                    )?,
                )),
                #[cfg(not(feature = "tls"))]
                Some(_) => {
                    let _ = (timed, deadline);
                    return Err(Error::new(tried(), "this cosmonaut was built without TLS")
                        .hint("build it with the feature tls, or reach the daemon over ssh:// or a Unix socket"));
                }
            }
        }
        Address::Ssh {
            user,
            host,
            port,
            socket,
        } => Stream::Ssh(
            ssh::Tunnel::start(
                "ssh".as_ref(),
                user.as_deref(),
                host,
                *port,
                socket.as_deref(),
            )
            .map_err(|error| {
                let missing = error.kind() == io::ErrorKind::NotFound;
                let error = Error::new(tried(), format!("cannot start ssh: {error}"));
                if missing {
                    error.hint("an ssh:// address needs the OpenSSH client; is it installed?")
                } else {
                    error
                }
            })?,
        ),
    };
    Ok(Connection { stream })
}

/// The failure of a connect, with its kind; `place` is the address tried where the name does not say it.
fn refused(tried: String, error: &io::Error, place: Option<String>) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Kind::TimedOut,
        io::ErrorKind::PermissionDenied => Kind::Denied,
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Kind::Failed,
        _ => Kind::Unreachable,
    };
    match place {
        None => Error::new(tried, Plain(error)),
        Some(place) => Error::new(tried, format!("{} (at {place})", Plain(error))),
    }
    .kind(kind)
}

/// What the operator can do about a failed read or write, if TLS is the reason.
///
/// With TLS 1.3 a server refuses our certificate only after the handshake, so this can be needed late.
pub(crate) fn mend(error: &io::Error, address: &Address) -> Option<String> {
    #[cfg(feature = "tls")]
    if let Address::Tcp {
        host,
        tls: Some(tls),
        ..
    } = address
    {
        let gone = matches!(
            error.kind(),
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
        );
        if gone && tls.identity.is_none() {
            return Some(
                "the daemon may want a client certificate: put cert.pem and key.pem beside ca.pem"
                    .to_owned(),
            );
        }
        return tls::mend(error, host);
    }
    let _ = (error, address);
    None
}

/// An I/O error in plain words, without the number that the system has for it.
pub(crate) struct Plain<'a>(pub(crate) &'a io::Error);

impl fmt::Display for Plain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = self.0;
        if let Some(own) = error.get_ref() {
            return fmt::Display::fmt(own, f);
        }
        let text = error.to_string();
        f.write_str(match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused",
            io::ErrorKind::ConnectionReset => "connection reset",
            io::ErrorKind::PermissionDenied => "permission denied",
            io::ErrorKind::NotFound => "no such file or directory",
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "no answer in time",
            _ => text
                .split_once(" (os error ")
                .map_or(text.as_str(), |(words, _)| words),
        })
    }
}

/// std's connect to a Unix socket waits for ever while the listener's queue is full (a frozen daemon); the send
/// timeout bounds it.
fn unix_stream(path: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(timeout))?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, None)?;
    Ok(UnixStream::from(socket))
}

/// A Unix socket of a neighbour that speaks no HTTP. Connecting, reading and writing end by `deadline`.
pub(crate) fn unix_socket(path: &Path, deadline: Instant) -> io::Result<Timed> {
    let left = deadline.saturating_duration_since(Instant::now());
    // No time at all would mean no limit to the socket.
    let stream = unix_stream(path, left.max(Duration::from_millis(1)))?;
    Ok(Timed::until(Socket::Unix(stream), deadline))
}

/// The same by `HOST:PORT`, name resolution included.
pub(crate) fn tcp_socket(address: &str, deadline: Instant) -> io::Result<Timed> {
    let (host, port) = address
        .rsplit_once(':')
        .and_then(|(host, port)| Some((host, port.parse().ok()?)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "want HOST:PORT"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = connect_tcp(host, port, deadline).map_err(|(_, error)| error)?;
    Ok(Timed::until(Socket::Tcp(stream), deadline))
}

/// Tries all addresses of a name in the resolver's order; on failure the last address tried.
fn connect_tcp(
    host: &str,
    port: u16,
    deadline: Instant,
) -> std::result::Result<TcpStream, (Option<String>, io::Error)> {
    let addresses = resolve::resolve(host, port, deadline).map_err(|error| (None, error))?;
    let mut last = (
        None,
        io::Error::new(io::ErrorKind::NotFound, "the name has no address"),
    );
    for (place, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let waiting = u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        let share = (left / waiting).max(CONNECT_SHARE_MIN).min(left);
        if share.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, share).and_then(|socket| {
            keep_alive(&socket)?;
            Ok(socket)
        }) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = (Some(address.ip().to_string()), error),
        }
    }
    Err(last)
}

fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    // A request is one small write; it must not wait for the answer to an earlier one.
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(socket, KEEPALIVE_COUNT)?;
    sockopt::set_tcp_user_timeout(socket, USER_TIMEOUT_MILLISECONDS)?;
    Ok(())
}

impl Connection {
    /// Reads and writes that are not done by then fail with `TimedOut`; `None` waits for ever.
    pub fn set_deadline(&mut self, deadline: Option<Instant>) {
        self.timed().deadline = deadline;
    }

    /// A handle with which another thread can end this connection.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn hangup(&self) -> Result<Hangup> {
        let timed = match &self.stream {
            Stream::Plain(timed) => timed,
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.timed(),
            Stream::Ssh(tunnel) => tunnel.timed(),
        };
        match &timed.socket {
            Socket::Unix(socket) => socket.try_clone().map(Socket::Unix),
            Socket::Tcp(socket) => socket.try_clone().map(Socket::Tcp),
        }
        .map(Hangup)
        .map_err(|error| Error::new("cannot duplicate a socket", Plain(&error)))
    }

    fn timed(&mut self) -> &mut Timed {
        match &mut self.stream {
            Stream::Plain(timed) => timed,
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.timed_mut(),
            Stream::Ssh(tunnel) => tunnel.timed_mut(),
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.read(buffer),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.read(buffer),
            Stream::Ssh(tunnel) => tunnel.read(buffer),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.write(bytes),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.write(bytes),
            Stream::Ssh(tunnel) => tunnel.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(timed) => timed.flush(),
            #[cfg(feature = "tls")]
            Stream::Tls(session) => session.flush(),
            Stream::Ssh(tunnel) => tunnel.flush(),
        }
    }
}

/// Ends a connection from another thread: its reader sees the end of the stream at once.
#[derive(Debug)]
pub struct Hangup(Socket);

impl Hangup {
    /// Shuts the connection down in both directions; more than once does no harm.
    pub fn hang_up(&self) {
        // The only failure is that the peer was faster.
        let _ = match &self.0 {
            Socket::Unix(socket) => socket.shutdown(std::net::Shutdown::Both),
            Socket::Tcp(socket) => socket.shutdown(std::net::Shutdown::Both),
        };
    }
}

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Unix(socket) => socket.as_fd(),
            Socket::Tcp(socket) => socket.as_fd(),
        }
    }
}

/// A socket whose every read and write ends by a deadline.
#[derive(Debug)]
pub(crate) struct Timed {
    socket: Socket,
    deadline: Option<Instant>,
    /// Whether the socket has a receive or a send timeout now, to save the system call that takes it off.
    receive_armed: bool,
    send_armed: bool,
}

impl Timed {
    fn new(socket: Socket) -> Self {
        Timed {
            socket,
            deadline: None,
            receive_armed: false,
            send_armed: false,
        }
    }

    fn until(socket: Socket, deadline: Instant) -> Self {
        let mut timed = Timed::new(socket);
        timed.deadline = Some(deadline);
        timed
    }

    /// Tells the other side that nothing more will be said.
    pub(crate) fn said_all(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(socket) => socket.shutdown(std::net::Shutdown::Write),
            Socket::Tcp(socket) => socket.shutdown(std::net::Shutdown::Write),
        }
    }

    /// What is left until the deadline; `TimedOut` when it has passed.
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else {
            return Ok(None);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }

    fn arm_receive(&mut self) -> io::Result<()> {
        let left = self.left()?;
        if left.is_some() || self.receive_armed {
            sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Recv, left)?;
            self.receive_armed = left.is_some();
        }
        Ok(())
    }

    fn arm_send(&mut self) -> io::Result<()> {
        let left = self.left()?;
        if left.is_some() || self.send_armed {
            sockopt::set_socket_timeout(&self.socket, sockopt::Timeout::Send, left)?;
            self.send_armed = left.is_some();
        }
        Ok(())
    }
}

/// Tries again what a timeout of the socket or a signal has ended: both lead back to the deadline, which decides.
fn until_done(mut attempt: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match attempt() {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            other => return other,
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        until_done(|| {
            self.arm_receive()?;
            match &mut self.socket {
                Socket::Unix(socket) => socket.read(buffer),
                Socket::Tcp(socket) => socket.read(buffer),
            }
        })
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        until_done(|| {
            self.arm_send()?;
            match &mut self.socket {
                Socket::Unix(socket) => socket.write(bytes),
                Socket::Tcp(socket) => socket.write(bytes),
            }
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp {
            host: host.to_owned(),
            port,
            tls: None,
        }
    }

    #[test]
    fn a_dead_tcp_peer_is_found_within_a_minute() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut connection = connect(&tcp("127.0.0.1", port), LIMIT).expect("a connection");
        let socket = &connection.timed().socket;
        assert!(sockopt::socket_keepalive(socket).expect("an option"));
        let idle = sockopt::tcp_keepidle(socket).expect("an option");
        let interval = sockopt::tcp_keepintvl(socket).expect("an option");
        let count = sockopt::tcp_keepcnt(socket).expect("an option");
        assert_eq!(idle + interval * count, Duration::from_secs(60));
        let sent = sockopt::tcp_user_timeout(socket).expect("an option");
        assert_eq!(sent, 30_000);
        assert!(sockopt::tcp_nodelay(socket).expect("an option"));
    }

    #[test]
    fn an_address_of_this_host_is_kept_and_another_one_is_not() {
        let ours = Some(IpAddr::from([127, 0, 0, 1]));
        assert_eq!(host_address_now(ours), ours);
        let gone = Some(IpAddr::from([192, 0, 2, 7]));
        assert_eq!(host_address_now(gone), host_address().or(gone));
        assert_eq!(host_address_now(None), host_address());
    }

    #[test]
    fn all_addresses_of_a_name_are_tried() {
        // localhost is ::1 first where there is IPv6, and nobody listens there.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        connect(&tcp("localhost", port), LIMIT).expect("the second address");
        drop(listener);
        let error = connect(&tcp("localhost", port), LIMIT).expect_err("nobody listens");
        let said = error.to_string();
        assert!(error.is(Kind::Unreachable), "{said}");
        assert!(
            said.contains(&format!("tcp://localhost:{port}: connection refused (at ")),
            "{said}"
        );
    }

    #[test]
    fn a_name_without_an_address_is_named() {
        let error = connect(&tcp("no-such-host.invalid", 1), LIMIT).expect_err("no address");
        let said = error.to_string();
        assert!(
            said.starts_with("cannot connect to tcp://no-such-host.invalid:1: "),
            "{said}"
        );
        assert!(error.is(Kind::Unreachable), "{error:?}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error() {
        let address = Address::Unix(format!("/{}", "x".repeat(200)).into());
        assert!(connect(&address, LIMIT).is_err());
    }

    #[test]
    fn reads_and_writes_end_at_the_deadline_and_not_without_one() {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let mut timed = Timed::new(Socket::Unix(ours));
        timed.deadline = Some(Instant::now() + Duration::from_millis(30));
        let error = timed.read(&mut [0; 8]).expect_err("nothing comes");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        timed.deadline = Some(Instant::now() + Duration::from_millis(30));
        let error = loop {
            if let Err(error) = timed.write(&[0; 65_536]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // Without a deadline the timeout is taken off the socket again.
        timed.deadline = None;
        let mut theirs = theirs;
        let writer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(60));
            theirs.write_all(b"late").expect("written");
            theirs
        });
        assert_eq!(timed.read(&mut [0; 8]).expect("it comes"), 4);
        drop(writer.join().expect("the writer"));
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn without_tls_that_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let address = Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
            tls: Some(Tls {
                ca: None,
                identity: None,
                verify: true,
            }),
        };
        let error = connect(&address, LIMIT).expect_err("no TLS");
        assert!(error.to_string().contains("built without TLS"), "{error}");
    }
}
