//! A name's addresses within a time limit.
//!
//! The system's resolver cannot be given one: with a nameserver that does not answer it takes 10 s and more
//! for each search domain. So it runs on a thread of its own, which is left to itself when its time is over;
//! the resolver's own limit ends it. An address written as such needs no resolver and no thread.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// All addresses of `host`, in the resolver's order.
///
/// # Errors
/// What the resolver says; `TimedOut` when it has said nothing by `deadline`.
pub(super) fn resolve(host: &str, port: u16, deadline: Instant) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = host.to_owned();
    within(deadline, move || {
        (name.as_str(), port)
            .to_socket_addrs()
            .map(Iterator::collect)
    })
}

fn within(
    deadline: Instant,
    ask: impl FnOnce() -> io::Result<Vec<SocketAddr>> + Send + 'static,
) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = channel();
    thread::Builder::new()
        .name("resolver".to_owned())
        .spawn(move || {
            // Nobody listens any more when it took too long.
            let _ = sender.send(ask());
        })?;
    let left: Duration = deadline.saturating_duration_since(Instant::now());
    match receiver.recv_timeout(left) {
        Ok(answer) => answer,
        Err(RecvTimeoutError::Timeout) => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "no nameserver answers for that name",
        )),
        Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the resolver broke off")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_no_resolver_and_names_do() {
        let soon = Instant::now() + Duration::from_secs(20);
        for (host, shown) in [("10.1.2.3", "10.1.2.3:7"), ("fe80::1", "[fe80::1]:7")] {
            // Not even with no time left.
            let found = resolve(host, 7, Instant::now()).expect(host);
            assert_eq!(found[0].to_string(), shown);
        }
        let found = resolve("localhost", 7, soon).expect("localhost");
        assert!(found.iter().all(|one| one.ip().is_loopback()), "{found:?}");
    }

    #[test]
    fn a_resolver_that_hangs_is_left_to_itself() {
        let begun = Instant::now();
        let slow = || {
            thread::sleep(Duration::from_secs(3));
            Ok(Vec::new())
        };
        let error = within(begun + Duration::from_millis(50), slow).expect_err("no answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < Duration::from_secs(2), "{begun:?}");
    }
}
