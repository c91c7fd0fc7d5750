//! A Cosmos (Lambda Registry) for tests, with two faces: the real service's behaviour with all
//! its bugs (`model.rs`, proved against captured answers in `proof.rs`), and any fault on command.

pub mod model;
mod proof;

use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

pub use model::Model;

use super::wire::{self, Asked, Listener, Place, Reply, Stream};

#[derive(Default)]
struct Book {
    requests: Vec<(Instant, Asked)>,
    replies: VecDeque<Reply>,
    /// What every call gets once the queue of replies is empty; `None` = the model answers.
    always: Option<Reply>,
    connections: Vec<Stream>,
    closed: bool,
    /// Calls in the house, and the most there ever were at once.
    inside: usize,
    inside_max: usize,
}

struct Shared {
    book: Mutex<Book>,
    changed: Condvar,
    model: Model,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fake service. Dropping it closes everything.
pub struct FakeCosmos {
    shared: Arc<Shared>,
    place: Place,
}

impl FakeCosmos {
    /// A service with an empty store, on a port of its own.
    pub fn start() -> FakeCosmos {
        let mut place = Place::Tcp(0);
        let listener = Listener::open(&mut place).expect("the fake Cosmos can listen");
        let shared = Arc::new(Shared {
            book: Mutex::default(),
            changed: Condvar::new(),
            model: Model::default(),
        });
        let for_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("fake cosmos".to_owned())
            .spawn(move || {
                while let Ok(stream) = listener.accept() {
                    let shared = Arc::clone(&for_thread);
                    let mut book = shared.book();
                    if book.closed {
                        return;
                    }
                    book.connections.extend(stream.try_clone());
                    drop(book);
                    thread::spawn(move || {
                        let clone = stream.try_clone();
                        serve(&shared, stream);
                        if let Ok(stream) = clone {
                            // The book's clone keeps the socket open: the client must see the end.
                            stream.shut_down();
                        }
                    });
                }
            })
            .expect("a thread for the fake Cosmos");
        FakeCosmos { shared, place }
    }

    fn port(&self) -> u16 {
        match self.place {
            Place::Tcp(port) => port,
            Place::Unix(_) => 0,
        }
    }

    /// The invoke URL, without `/generate`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/api", self.port())
    }

    /// What the model has stored.
    pub fn model(&self) -> &Model {
        &self.shared.model
    }

    /// Gives `reply` to the next call that has none yet.
    pub fn next(&self, reply: Reply) {
        self.shared.book().replies.push_back(reply);
    }

    /// Gives `reply` to every call; `None`: the model answers again.
    pub fn always(&self, reply: Option<Reply>) {
        self.shared.book().always = reply;
    }

    /// How many calls came.
    pub fn calls(&self) -> usize {
        self.shared.book().requests.len()
    }

    /// The most calls that were in the house at one time.
    pub fn most_at_once(&self) -> usize {
        self.shared.book().inside_max
    }

    /// All calls as they stood on the wire.
    pub fn requests(&self) -> Vec<Asked> {
        self.shared
            .book()
            .requests
            .iter()
            .map(|(_, asked)| asked.clone())
            .collect()
    }

    /// The payloads of all calls, as text.
    pub fn payloads(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|asked| String::from_utf8_lossy(&asked.body).into_owned())
            .collect()
    }

    /// Waits until that many calls came.
    #[track_caller]
    pub fn wait_calls(&self, count: usize, limit: Duration) {
        let end = Instant::now() + limit;
        let mut book = self.shared.book();
        while book.requests.len() < count {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let came = book.requests.len();
                drop(book);
                panic!("waited {limit:?} in vain for {count} calls to Cosmos; {came} came");
            }
            book = self
                .shared
                .changed
                .wait_timeout(book, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// What was asked, one call a line: for a failing test.
    pub fn transcript(&self) -> String {
        let book = self.shared.book();
        let Some((first, _)) = book.requests.first() else {
            return "(nothing)\n".to_owned();
        };
        book.requests
            .iter()
            .map(|(at, asked)| {
                format!(
                    "{:8.1} ms  {} {} {}\n",
                    (*at - *first).as_secs_f64() * 1e3,
                    asked.method,
                    asked.target,
                    String::from_utf8_lossy(&asked.body)
                )
            })
            .collect()
    }
}

fn serve(shared: &Shared, mut stream: Stream) {
    let mut left = Vec::new();
    while let Some(asked) = wire::read_request(&mut stream, &mut left) {
        let mut book = shared.book();
        book.requests.push((Instant::now(), asked.clone()));
        book.inside += 1;
        book.inside_max = book.inside_max.max(book.inside);
        let reply = book.replies.pop_front().or_else(|| book.always.clone());
        drop(book);
        shared.changed.notify_all();
        // A call is over when its answer begins: the client may make its next one before we look again.
        let raw = matches!(reply, Some(Reply::Raw(_)));
        if raw {
            shared.book().inside -= 1;
        }
        let usual = reply
            .as_ref()
            .is_none_or(|reply| wire::play(&mut stream, reply));
        if !raw {
            shared.book().inside -= 1;
        }
        let mut sent = Ok(());
        if usual {
            let (status, body) = answer(shared, &asked);
            let mut head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n");
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
            head.push_str("x-amzn-RequestId: 0d5c1f6e-made-up\r\nConnection: keep-alive\r\n\r\n");
            let body = if asked.method == "HEAD" {
                String::new()
            } else {
                body
            };
            sent = stream.write_all(&[head.into_bytes(), body.into_bytes()].concat());
        }
        if !usual || sent.is_err() {
            return;
        }
    }
}

/// The gateway in front of the function: which requests reach it at all.
fn answer(shared: &Shared, asked: &Asked) -> (&'static str, String) {
    if asked.method != "POST" || asked.target != "/api/generate" {
        return (
            "403 Forbidden",
            r#"{"message":"Missing Authentication Token"}"#.to_owned(),
        );
    }
    let text = String::from_utf8_lossy(&asked.body);
    let body: Value = if text.trim().is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        match serde_json::from_str(&text) {
            Ok(body) => body,
            Err(_) => {
                return (
                    "400 Bad Request",
                    r#"{"message": "Could not parse request body into json: Unexpected end of JSON input"}"#.to_owned(),
                );
            }
        }
    };
    ("200 OK", shared.model.call(&body))
}

impl Drop for FakeCosmos {
    fn drop(&mut self) {
        let mut book = self.shared.book();
        book.closed = true;
        let connections = std::mem::take(&mut book.connections);
        drop(book);
        for stream in connections {
            stream.shut_down();
        }
        drop(Stream::connect(&self.place));
    }
}
