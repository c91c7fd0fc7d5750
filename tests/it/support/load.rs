//! A client that asks without pause and says of each request that failed, how.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long one request may take; HAProxy's own limits are shorter.
const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two requests of one client: a load that leaves the machine room for what is tested.
const PAUSE: Duration = Duration::from_millis(20);

/// A kept connection that was closed while the request was on its way.
const STALE: &str = "closed after 0 bytes in a kept connection";

/// Requests in a keep-alive connection or one of its own each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Connections {
    New,
    KeptAlive,
}

/// What came of all requests so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    pub good: u64,
    /// How long good answers took, in ms, counted.
    pub took: BTreeMap<u64, u64>,
    /// Kept connections that were closed before a byte of an answer came: the request was asked again on a
    /// new one, as every HTTP client does (RFC 9112, 9.3.1). HAProxy before 2.5 leaves some at each reload; any
    /// version does so when no server answered a request that was not the first of its connection, however
    /// often it tried: then it is as bad as a 502.
    pub again: u64,
    /// How requests failed, and how many each way.
    pub failed: BTreeMap<String, u64>,
}

impl Tally {
    /// The time in ms within which this part of the good answers came.
    pub fn within(&self, part: f64) -> u64 {
        let wanted = (self.good as f64 * part).ceil() as u64;
        let mut seen = 0;
        for (&ms, &count) in &self.took {
            seen += count;
            if seen >= wanted {
                return ms;
            }
        }
        0
    }
}

/// Clients that run until they are stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    /// `clients` of each kind of connection, each of which asks `address` for one of these paths of a host: slow
    /// answers do not keep the others from asking.
    pub fn start(address: SocketAddr, host: &str, paths: &[&str], clients: usize) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let tally = Arc::new(Mutex::new(Tally::default()));
        let mut threads = Vec::new();
        for connections in [Connections::New, Connections::KeptAlive] {
            for number in 0..clients {
                let (stop, tally) = (stop.clone(), tally.clone());
                let host = host.to_owned();
                let path = paths[number % paths.len()].to_owned();
                threads.push(std::thread::spawn(move || {
                    let mut client = Client {
                        address,
                        host,
                        connections,
                        stream: None,
                    };
                    while !stop.load(Ordering::Relaxed) {
                        let asked = Instant::now();
                        let mut came = client.ask(&path);
                        if came.as_ref().is_err_and(|how| how == STALE) {
                            tally.lock().expect("the tally").again += 1;
                            came = client.ask(&path);
                        }
                        let mut tally = tally.lock().expect("the tally");
                        match came {
                            Ok(()) => {
                                tally.good += 1;
                                let ms = asked.elapsed().as_millis() as u64;
                                *tally.took.entry(ms).or_default() += 1;
                            }
                            Err(how) => {
                                let how = format!("{connections:?} {path}: {how}");
                                *tally.failed.entry(how).or_default() += 1;
                            }
                        }
                        drop(tally);
                        std::thread::sleep(PAUSE);
                    }
                }));
            }
        }
        Load {
            stop,
            tally,
            clients: threads,
        }
    }

    /// So far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().expect("the tally").clone()
    }

    /// Ends all clients after their last request.
    pub fn stop(mut self) -> Tally {
        self.end();
        self.tally()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients.drain(..) {
            let _ = client.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

struct Client {
    address: SocketAddr,
    host: String,
    connections: Connections,
    stream: Option<TcpStream>,
}

impl Client {
    fn ask(&mut self, path: &str) -> Result<(), String> {
        let reused = self.stream.is_some();
        let came = self.exchange(path);
        if came.is_err() || self.connections == Connections::New {
            self.stream = None;
        }
        came.map_err(|how| {
            if reused {
                format!("{how} in a kept connection")
            } else {
                how
            }
        })
    }

    fn exchange(&mut self, path: &str) -> Result<(), String> {
        let step = |step: &str, e: std::io::Error| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer ({step})"),
            ErrorKind::ConnectionRefused => "refused".to_owned(),
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => format!("reset ({step})"),
            kind => format!("{kind:?} ({step})"),
        };
        if self.stream.is_none() {
            let stream = TcpStream::connect_timeout(&self.address, PATIENCE)
                .map_err(|e| step("connect", e))?;
            stream
                .set_read_timeout(Some(PATIENCE))
                .map_err(|e| step("limit", e))?;
            self.stream = Some(stream);
        }
        let stream = self.stream.as_mut().expect("it was opened");
        let close = match self.connections {
            Connections::New => "Connection: close\r\n",
            Connections::KeptAlive => "",
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{close}\r\n", self.host);
        stream
            .write_all(request.as_bytes())
            .map_err(|e| step("write", e))?;
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let head = bytes
                .windows(4)
                .position(|four| four == b"\r\n\r\n")
                .map(|at| at + 4);
            if let Some(head) = head {
                let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
                let status = text.split(' ').nth(1).unwrap_or("?").to_owned();
                let length = text
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length:"))
                    .and_then(|length| length.trim().parse::<usize>().ok());
                let chunked = text.contains("transfer-encoding: chunked");
                let whole = match length {
                    Some(length) => bytes.len() >= head + length,
                    None if chunked => bytes.ends_with(b"0\r\n\r\n"),
                    None => false,
                };
                if whole {
                    if text.contains("connection: close") {
                        self.stream = None;
                    }
                    return if status == "200" {
                        Ok(())
                    } else {
                        Err(format!("status {status}"))
                    };
                }
            }
            match stream.read(&mut piece) {
                Ok(0) => return Err(format!("closed after {} bytes", bytes.len())),
                Ok(read) => bytes.extend_from_slice(&piece[..read]),
                Err(e) => return Err(step("read", e)),
            }
        }
    }
}
