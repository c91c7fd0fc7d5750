//! The load: small requests through every HAProxy to every service, from inside the daemon's network, as a process of
//! its own (only a process can be in another network namespace). It prints each failure; who is to blame is decided later.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::log::{Log, now};
use crate::{SERVICES, Site};

/// Pause between two requests of one client.
const PAUSE: Duration = Duration::from_millis(80);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 10;

/// A request that got no good answer.
#[derive(Debug, Clone)]
pub struct Failed {
    pub from: f64,
    pub to: f64,
    pub site: usize,
    pub service: usize,
    pub how: String,
}

/// What came of the load.
#[derive(Default)]
pub struct Requests {
    pub done: u64,
    pub failed: Vec<Failed>,
}

pub struct Load {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: thread::JoinHandle<()>,
    got: Arc<Mutex<Requests>>,
}

impl Load {
    pub fn start(namespace: u32, sites: &[Site], log: &Log) -> Load {
        let mut child = Command::new("nsenter")
            .arg(format!("--net=/proc/{namespace}/ns/net"))
            .arg(std::env::current_exe().expect("this program has a path"))
            .arg("load")
            .args(sites.iter().map(|site| site.ip))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("nsenter (package util-linux)");
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().expect("its output is piped");
        let got = Arc::new(Mutex::new(Requests::default()));
        let (shared, log) = (Arc::clone(&got), log.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let mut got = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match line.splitn(6, ' ').collect::<Vec<_>>().as_slice() {
                    ["done", count] => {
                        got.done = count.parse().unwrap_or(got.done);
                        log.requests(got.done);
                    }
                    ["failed", from, to, site, service, how] => got.failed.push(Failed {
                        from: from.parse().unwrap_or(0.0),
                        to: to.parse().unwrap_or(0.0),
                        site: site.parse().unwrap_or(0),
                        service: service.parse().unwrap_or(0),
                        how: (*how).to_owned(),
                    }),
                    _ => eprintln!("soak: the load says: {line}"),
                }
            }
        });
        Load {
            child,
            stdin,
            reader,
            got,
        }
    }

    /// Ends it and gives all that it saw.
    pub fn end(mut self) -> Requests {
        drop(self.stdin.take());
        let _ = self.child.wait();
        let _ = self.reader.join();
        std::mem::take(&mut self.got.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The load's own process: runs until its stdin ends.
pub fn run(sites: &[String]) {
    let done = Arc::new(AtomicU64::new(0));
    let out = Arc::new(Mutex::new(std::io::stdout()));
    for (site, ip) in sites.iter().enumerate() {
        let address: SocketAddr = format!("{ip}:80").parse().expect("an address");
        for service in 0..SERVICES {
            for keeps_alive in [false, true] {
                let (done, out) = (Arc::clone(&done), Arc::clone(&out));
                thread::spawn(move || {
                    let mut client = Client {
                        address,
                        service,
                        keeps_alive,
                        stream: None,
                    };
                    loop {
                        let from = now();
                        if let Err(how) = client.ask() {
                            client.stream = None;
                            let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
                            let _ = writeln!(out, "failed {from} {} {site} {service} {how}", now());
                        }
                        done.fetch_add(1, Ordering::Relaxed);
                        thread::sleep(PAUSE);
                    }
                });
            }
        }
    }
    let count = Arc::clone(&done);
    thread::spawn(move || {
        loop {
            thread::sleep(Duration::from_secs(5));
            let _ = writeln!(
                out.lock().unwrap_or_else(PoisonError::into_inner),
                "done {}",
                count.load(Ordering::Relaxed)
            );
        }
    });
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    println!("done {}", done.load(Ordering::Relaxed));
    std::process::exit(0);
}

struct Client {
    address: SocketAddr,
    service: usize,
    keeps_alive: bool,
    stream: Option<TcpStream>,
}

impl Client {
    /// One request; as a browser does, once more on a new connection when a kept one was closed before an answer began.
    fn ask(&mut self) -> Result<(), String> {
        if let Some(stream) = self.stream.take() {
            match self.exchange(stream) {
                Err((_, false)) => {}
                other => return other.map_err(|(how, _)| how),
            }
        }
        let stream = TcpStream::connect_timeout(&self.address, ANSWER_MAX)
            .map_err(|e| format!("connect: {e}"))?;
        self.exchange(stream).map_err(|(how, _)| how)
    }

    /// The error tells whether an answer had begun.
    fn exchange(&mut self, mut stream: TcpStream) -> Result<(), (String, bool)> {
        let io = |e: std::io::Error, begun: bool| (format!("connection: {e}"), begun);
        stream
            .set_read_timeout(Some(ANSWER_MAX))
            .map_err(|e| io(e, true))?;
        let connection = if self.keeps_alive {
            "keep-alive"
        } else {
            "close"
        };
        write!(
            stream,
            "GET / HTTP/1.1\r\nHost: s{}.example\r\nConnection: {connection}\r\n\r\n",
            self.service
        )
        .map_err(|e| io(e, false))?;
        let mut got = Vec::new();
        let mut piece = [0; 4096];
        loop {
            let length = match stream.read(&mut piece) {
                Ok(length) => length,
                // Silence is an answer that did not come, not a connection that had gone before.
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err((format!("no answer within {ANSWER_MAX:?}"), true));
                }
                Err(e) => return Err(io(e, !got.is_empty())),
            };
            got.extend_from_slice(&piece[..length]);
            if let Some(answer) = whole(&got, length == 0) {
                let last = length == 0 || answer.closes;
                if self.keeps_alive && !last {
                    self.stream = Some(stream);
                }
                return self.judge(&answer).map_err(|how| (how, true));
            }
            if length == 0 || got.len() > ANSWER_BYTES_MAX {
                return Err(("the answer ends too early".to_owned(), !got.is_empty()));
            }
        }
    }

    fn judge(&self, answer: &Answer) -> Result<(), String> {
        if answer.status != 200 {
            return Err(format!("status {}", answer.status));
        }
        if answer.body.contains(&format!("-s{}-", self.service)) {
            Ok(())
        } else {
            Err(format!("MISROUTED: answered by {:?}", answer.body.trim()))
        }
    }
}

struct Answer {
    status: u16,
    body: String,
    closes: bool,
}

/// The answer, once it is whole: by its length, or by the end of the connection.
fn whole(got: &[u8], ended: bool) -> Option<Answer> {
    let text = String::from_utf8_lossy(got);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let lower = head.to_lowercase();
    let length: Option<usize> = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let complete = match length {
        Some(length) => body.len() >= length,
        None => ended,
    };
    complete.then(|| Answer {
        status: head
            .split(' ')
            .nth(1)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0),
        body: body.to_owned(),
        closes: lower.contains("connection: close") || length.is_none(),
    })
}
