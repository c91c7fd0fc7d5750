//! What is in force while Cosmos fails: the last good config, or the built-in registry.
//!
//! Three rungs: fresh (Cosmos answers), held (it does not; the running config stands), built-in (it has
//! not for longer than the operator cares to wait, and the built-in registry renders instead). The way
//! back up is by itself: while the built-in registry stands in, Cosmos is asked again now and then, with
//! one short try, and no change waits for it.

use std::time::{Duration, Instant};

use super::cosmos::Cosmos;
use super::embedded::Embedded;
use super::{Candidate, Payload, Registry, Standing, retry};
use crate::error::Result;

/// How often Cosmos is tried while the built-in registry stands in: first wait and longest one.
const PROBES: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// Cosmos, and what stands in for it.
#[derive(Debug)]
pub struct Ladder {
    cosmos: Cosmos,
    stand_in: Option<StandIn>,
    outage: Option<Outage>,
}

/// The built-in registry, for when Cosmos has failed for this long.
#[derive(Debug)]
struct StandIn {
    registry: Embedded,
    after: Duration,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    /// While the built-in registry stands in: when Cosmos is tried next, and the wait after that.
    probe: Option<(Instant, Duration)>,
}

impl Ladder {
    /// Cosmos alone: while it fails the running config stands.
    pub fn holding(cosmos: Cosmos) -> Self {
        Ladder {
            cosmos,
            stand_in: None,
            outage: None,
        }
    }

    /// With the built-in registry, which takes over when Cosmos has failed for `after`.
    pub fn falling_back(cosmos: Cosmos, registry: Embedded, after: Duration) -> Self {
        Ladder {
            cosmos,
            stand_in: Some(StandIn { registry, after }),
            outage: None,
        }
    }

    fn ask_cosmos(&mut self, payload: &Payload, now: Instant) -> Result<String> {
        self.cosmos
            .set_patience(match (&self.stand_in, &self.outage) {
                // The built-in registry stands in already: one try, so that no change waits for long.
                (Some(_), Some(Outage { probe: Some(_), .. })) => Duration::ZERO,
                (Some(stand_in), Some(outage)) => stand_in.after.saturating_sub(now - outage.since),
                // It is to stand in after that time, not after all tries of one pass. Where it stands in at once, the
                // tries were the wait.
                (Some(stand_in), None) if !stand_in.after.is_zero() => stand_in.after,
                _ => retry::START_MAX,
            });
        let answer = self.cosmos.config(payload);
        match &answer {
            Ok(_) => {
                if let Some(outage) = self.outage.take() {
                    log::info!(
                        "Cosmos at {} answers again, after {} s",
                        self.cosmos.shown(),
                        outage.since.elapsed().as_secs()
                    );
                }
            }
            Err(_) => {
                self.outage.get_or_insert(Outage {
                    since: now,
                    probe: None,
                });
            }
        }
        answer
    }
}

impl Registry for Ladder {
    fn config(&mut self, payload: &Payload) -> Result<String> {
        let now = Instant::now();
        let probe_later = self
            .outage
            .as_ref()
            .and_then(|outage| outage.probe)
            .is_some_and(|(next, _)| next > now);
        let answer = match (probe_later, &mut self.stand_in) {
            (true, Some(stand_in)) => return stand_in.registry.config(payload),
            _ => self.ask_cosmos(payload, now),
        };
        let (Err(error), Some(stand_in), Some(outage)) =
            (&answer, &mut self.stand_in, &mut self.outage)
        else {
            return answer;
        };
        if outage.since.elapsed() < stand_in.after {
            return answer;
        }
        let wait = match outage.probe {
            None => {
                log::warn!("{error}; the built-in registry stands in until it answers again");
                PROBES.0
            }
            Some((_, wait)) => {
                log::debug!("{error}; the built-in registry still stands in");
                (wait * 2).min(PROBES.1)
            }
        };
        outage.probe = Some((Instant::now() + wait, wait));
        stand_in.registry.config(payload)
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn can_route(&self, candidate: &Candidate) -> std::result::Result<(), String> {
        self.cosmos.can_route(candidate)
    }

    fn origin(&self) -> String {
        match self.standing() {
            Standing::BuiltIn { .. } => String::new(),
            Standing::Fresh | Standing::Held { .. } => self.cosmos.origin(),
        }
    }

    fn standing(&self) -> Standing {
        match &self.outage {
            None => Standing::Fresh,
            Some(Outage { since, probe: None }) => Standing::Held { since: *since },
            Some(Outage {
                since,
                probe: Some((next, _)),
            }) => Standing::BuiltIn {
                since: *since,
                next_try: *next,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::cosmos::Settings;
    use crate::registry::embedded::{Memory, State};
    use crate::registry::template::Base;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    /// Forgets everything.
    struct Nothing;

    impl Memory for Nothing {
        fn load(&mut self, _: &str) -> Result<State> {
            Ok(State::default())
        }
        fn save(&mut self, _: &str, _: &State<&str>) -> Result<()> {
            Ok(())
        }
    }

    /// A Cosmos that answers an empty config while it is `up`, else 403, which is not worth a second try.
    struct Server {
        url: String,
        up: Arc<AtomicBool>,
        calls: Arc<AtomicUsize>,
    }

    fn serve() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}/api", listener.local_addr().expect("an address"));
        let (up, calls) = (
            Arc::new(AtomicBool::new(true)),
            Arc::new(AtomicUsize::new(0)),
        );
        let (is_up, counted) = (up.clone(), calls.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                answer(stream, is_up.load(Ordering::SeqCst));
            }
        });
        Server { url, up, calls }
    }

    fn answer(mut stream: TcpStream, up: bool) {
        let mut request = Vec::new();
        let mut byte = [0];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n > 0) {
            request.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&request).to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        let _ = stream.read_exact(&mut body);
        let config = "\"global\\n    daemon\\n\\ndefaults\\n    mode http\\n\\nfrontend http\\n    bind :80\\n\"";
        let (status, body) = if up {
            ("200 OK", config)
        } else {
            ("403 Forbidden", "{\"message\":\"Forbidden\"}")
        };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
    }

    fn cosmos(server: &Server) -> Cosmos {
        Cosmos::new(&Settings::new(&server.url), Box::new(|_| true)).expect("a client")
    }

    #[test]
    fn held_until_it_answers_again() {
        let server = serve();
        let mut ladder = Ladder::holding(cosmos(&server));
        let payload = Payload::default();
        ladder.config(&payload).expect("fresh");
        assert_eq!(ladder.standing(), Standing::Fresh);
        server.up.store(false, Ordering::SeqCst);
        ladder.config(&payload).expect_err("held");
        assert!(matches!(ladder.standing(), Standing::Held { .. }));
        server.up.store(true, Ordering::SeqCst);
        ladder.config(&payload).expect("fresh again");
        assert_eq!(ladder.standing(), Standing::Fresh);
    }

    #[test]
    fn the_built_in_registry_stands_in_and_no_change_waits_for_cosmos() {
        let server = serve();
        let base = Base::built_in(None).expect("a base");
        let stand_in = Embedded::new(base, Box::new(Nothing));
        let mut ladder = Ladder::falling_back(cosmos(&server), stand_in, Duration::ZERO);
        server.up.store(false, Ordering::SeqCst);
        let payload = Payload::default();
        let text = ladder.config(&payload).expect("rendered here");
        assert!(text.contains("# cosmonaut: rules"), "{text}");
        let Standing::BuiltIn { next_try, .. } = ladder.standing() else {
            panic!("it stands in")
        };
        assert!(next_try > Instant::now());
        let before = server.calls.load(Ordering::SeqCst);
        ladder.config(&payload).expect("rendered here");
        assert_eq!(
            server.calls.load(Ordering::SeqCst),
            before,
            "Cosmos is left alone until its next try"
        );

        server.up.store(true, Ordering::SeqCst);
        ladder.outage.as_mut().expect("an outage").probe = Some((Instant::now(), PROBES.0));
        let text = ladder.config(&payload).expect("fresh");
        assert!(!text.contains("# cosmonaut: rules"), "{text}");
        assert_eq!(ladder.standing(), Standing::Fresh);
    }
}
