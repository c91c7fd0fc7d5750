//! The least that a tool of this kind can do: list, inspect, follow, write one file and run a script for it.
//!
//! One thread, no JSON, no validation, no retry: it shows what the machine needs for the work, not how to do it.
//! The file is as long as cosmonaut's, is written as durably, and the script runs as often.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long changes gather after one that was acted on.
const QUIET: Duration = Duration::from_millis(50);

struct Yardstick {
    socket: PathBuf,
    file: PathBuf,
    script: PathBuf,
    /// What the file begins with.
    base: String,
    connection: UnixStream,
    known: BTreeMap<String, (String, String)>,
}

/// `once|watch SOCKET FILE SCRIPT [BASE]`
pub fn run(arguments: &[String]) -> std::io::Result<()> {
    let [action, socket, file, script, base @ ..] = arguments else {
        return Err(std::io::Error::other(
            "yardstick once|watch SOCKET FILE SCRIPT [BASE]",
        ));
    };
    let base = base.first().map(std::fs::read_to_string).transpose()?;
    let mut yardstick = Yardstick {
        socket: socket.into(),
        file: file.into(),
        script: script.into(),
        base: base.unwrap_or_default(),
        connection: UnixStream::connect(socket)?,
        known: BTreeMap::new(),
    };
    if action == "watch" {
        yardstick.follow()
    } else {
        yardstick.look()
    }
}

impl Yardstick {
    fn look(&mut self) -> std::io::Result<()> {
        for id in list(&mut self.connection)? {
            self.inspect(&id)?;
        }
        self.write()
    }

    fn inspect(&mut self, id: &str) -> std::io::Result<()> {
        let body = get(&mut self.connection, &format!("/containers/{id}/json"))?;
        let Some(name) = value(&body, b"SERVICE_NAME=") else {
            return Ok(());
        };
        let ip = body
            .windows(13)
            .rposition(|part| part == b"\"IPAddress\":\"")
            .and_then(|at| value(&body[at..], b"\"IPAddress\":\""));
        self.known
            .insert(id.to_owned(), (name, ip.unwrap_or_default()));
        Ok(())
    }

    fn write(&self) -> std::io::Result<()> {
        let mut text = String::with_capacity(1024 + 256 * self.known.len());
        text += &self.base;
        for (name, _) in self.known.values() {
            text += &format!("    acl is_{name} hdr(host),field(1,:) -i '{name}.example.com'\n");
            text += &format!("    use_backend be_{name} if is_{name}\n");
        }
        for (id, (name, ip)) in &self.known {
            text +=
                &format!("\nbackend be_{name}\n    balance roundrobin\n    option forwardfor\n");
            text += &format!("    server {} {ip}:8080 check\n", &id[..12]);
        }
        replace(&self.file, text.as_bytes(), &|staged| {
            self.script("check", staged)
        })?;
        self.script("reload", &self.file)
    }

    fn script(&self, mode: &str, path: &Path) -> std::io::Result<()> {
        Command::new(&self.script)
            .arg(mode)
            .arg(path)
            .status()
            .map(drop)
    }

    fn follow(&mut self) -> std::io::Result<()> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")?;
        self.look()?;
        let mut buffer = vec![0; 64 << 10];
        let mut pending = Vec::new();
        let mut look = BTreeSet::new();
        let (mut changed, mut calm) = (false, true);
        loop {
            stream.set_read_timeout((changed || !calm).then_some(QUIET))?;
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(bytes) => {
                    pending.extend_from_slice(&buffer[..bytes]);
                    changed |= self.take(&mut pending, &mut look);
                    if !changed || !calm {
                        continue;
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                // It was paused while another was measured.
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            calm = !changed;
            if std::mem::take(&mut changed) {
                for id in std::mem::take(&mut look) {
                    self.inspect(&id)?;
                }
                self.write()?;
            }
        }
    }

    /// Reads whole lines; whether one of them changes anything.
    fn take(&mut self, pending: &mut Vec<u8>, look: &mut BTreeSet<String>) -> bool {
        let (mut start, mut changed) = (0, false);
        loop {
            let mut rest = &pending[start..];
            let length = rest.skip_until(b'\n').unwrap_or_default();
            let line = &pending[start..start + length];
            if !line.ends_with(b"\n") {
                break;
            }
            start += length;
            let Some(id) = value(line, b"\"id\":\"") else {
                continue;
            };
            match value(line, b"\"status\":\"").as_deref() {
                Some("start") => {
                    look.insert(id);
                    changed = true;
                }
                // Of a real daemon the signal that ends it, then its end.
                Some("kill" | "die") => {
                    let looked = look.remove(&id);
                    changed |= self.known.remove(&id).is_some() || looked;
                }
                _ => {}
            }
        }
        pending.drain(..start);
        changed
    }
}

/// What stands behind `before`, up to a quote.
fn value(text: &[u8], before: &[u8]) -> Option<String> {
    let at = text.windows(before.len()).position(|part| part == before)? + before.len();
    let end = text[at..].iter().position(|byte| *byte == b'"')? + at;
    Some(String::from_utf8_lossy(&text[at..end]).into_owned())
}

/// The ids of a list.
pub fn list(connection: &mut UnixStream) -> std::io::Result<Vec<String>> {
    let body = get(connection, "/containers/json")?;
    let text = String::from_utf8_lossy(&body);
    Ok(text
        .split("\"Id\":\"")
        .skip(1)
        .map(|rest| rest[..64].to_owned())
        .collect())
}

/// One answer's body over a connection that stays open.
pub fn get(connection: &mut UnixStream, path: &str) -> std::io::Result<Vec<u8>> {
    connection.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut bytes = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = connection.read(&mut buffer)?;
        bytes.extend_from_slice(&buffer[..count]);
        let head = bytes
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map(|at| at + 4);
        let Some(head) = head else { continue };
        let length = bytes[..head]
            .windows(16)
            .position(|part| part == b"Content-Length: ");
        let done = match length {
            Some(at) => {
                let digits = String::from_utf8_lossy(&bytes[at + 16..head]).into_owned();
                let length: usize = digits
                    .lines()
                    .next()
                    .and_then(|n| n.parse().ok())
                    .unwrap_or(0);
                bytes.len() >= head + length
            }
            None => bytes.ends_with(b"\r\n0\r\n\r\n"),
        };
        if done || count == 0 {
            return Ok(bytes.split_off(head));
        }
    }
}

/// Replaces a file so that it survives a power cut; `check` is run on the staged one.
pub fn replace(
    file: &Path,
    bytes: &[u8],
    check: &dyn Fn(&Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let staged = file.with_extension("staged");
    let mut new = std::fs::File::create(&staged)?;
    new.write_all(bytes)?;
    new.sync_all()?;
    check(&staged)?;
    std::fs::rename(&staged, file)?;
    std::fs::File::open(file.parent().expect("a folder"))?.sync_all()
}
