//! A real HAProxy as a process of this host, with a master socket and a runtime socket.
//!
//! `COSMONAUT_TEST_HAPROXY` names another program than the installed one (scripts/setup fetches other
//! versions); it then is the `haproxy` of everything that a test starts.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use super::deadline::{SOON, wait_for};

/// The program to test with.
pub fn program() -> PathBuf {
    named_program().unwrap_or_else(|| PathBuf::from("haproxy"))
}

fn named_program() -> Option<PathBuf> {
    let named = std::env::var_os("COSMONAUT_TEST_HAPROXY").filter(|named| !named.is_empty())?;
    let program = PathBuf::from(named);
    assert!(
        program.is_absolute() && program.ends_with("haproxy") && program.is_file(),
        "COSMONAUT_TEST_HAPROXY is to be the path of a program called haproxy: {}",
        program.display()
    );
    Some(program)
}

/// PATH for what a test starts: the program to test with is its first `haproxy`.
pub fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(folder) = named_program().and_then(|program| Some(program.parent()?.to_owned()))
    else {
        return path;
    };
    let all = std::iter::once(folder).chain(std::env::split_paths(&path));
    std::env::join_paths(all).expect("a folder without a colon")
}

/// Major and minor version of the program to test with.
pub fn version() -> (u32, u32) {
    static VERSION: OnceLock<(u32, u32)> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new(program()).arg("-v").output();
        let output = output.expect("haproxy is installed");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut numbers = text
            .split_whitespace()
            .find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
            .into_iter()
            .flat_map(|word| word.split('.'))
            .map_while(|number| number.parse().ok());
        numbers
            .next()
            .zip(numbers.next())
            .unwrap_or_else(|| panic!("no version in {text:?}"))
    })
}

/// A base config like the built-in one, with a runtime socket.
pub fn base(bind: &str, socket: &Path, version: (u32, u32)) -> String {
    // Conditions are from 2.4 on; what they guard is from 2.5 on.
    let idle = if version >= (2, 4) {
        ".if version_atleast(2.5)\n    option idle-close-on-response\n.endif\n"
    } else {
        ""
    };
    // Two threads also where a test has one processor: most HAProxies have several.
    format!(
        "global
    nbthread 2
    log stdout format raw local0 info
    hard-stop-after 30s
    stats socket {} mode 660 level admin expose-fd listeners
defaults
    mode http
    option redispatch 1
    retries 10
    retry-on conn-failure empty-response
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
    timeout queue 5s
    timeout check 1s
    default-server inter 2s fastinter 500ms downinter 1s fall 2 rise 1
{idle}frontend http_in
    bind {bind}
    http-request disable-l7-retry if !{{ method GET HEAD OPTIONS }}
",
        socket.display()
    )
}

/// HAProxy in a test's folder. It ends with its test.
pub struct HostHaproxy {
    folder: PathBuf,
    config: PathBuf,
    pub port: u16,
    process: Option<Child>,
}

impl HostHaproxy {
    /// Writes a base config into `folder` and starts nothing yet; `config` is what it will read.
    pub fn new(folder: &Path, config: &Path) -> HostHaproxy {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let haproxy = HostHaproxy {
            folder: folder.to_owned(),
            config: config.to_owned(),
            port,
            process: None,
        };
        let bind = format!("127.0.0.1:{port}");
        let base = base(&bind, &haproxy.socket(), version());
        std::fs::write(haproxy.base(), base).expect("the base config");
        haproxy
    }

    pub fn base(&self) -> PathBuf {
        self.folder.join("base.cfg")
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("h.sock")
    }

    pub fn master(&self) -> PathBuf {
        self.folder.join("m.sock")
    }

    /// Starts it and waits until its socket answers.
    #[track_caller]
    pub fn start(&mut self) {
        let log = std::fs::File::create(self.folder.join("haproxy.log")).expect("a log");
        let process = Command::new(program())
            .env("PATH", path())
            .args(["-W", "-S"])
            .arg(self.master())
            .arg("-f")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("haproxy is installed");
        self.process = Some(process);
        wait_for("HAProxy's socket", SOON, || {
            ask(&self.socket(), "show info").filter(|info| info.contains("Pid:"))
        });
    }

    /// Ends master and workers at once.
    pub fn kill(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        let workers = Command::new("pgrep")
            .args(["-P", &process.id().to_string()])
            .output()
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default();
        let _ = process.kill();
        let _ = process.wait();
        for worker in workers.split_whitespace() {
            let _ = Command::new("kill").args(["-9", worker]).status();
        }
    }

    /// How often its master has loaded the file again.
    #[track_caller]
    pub fn reloads(&self) -> u64 {
        reloads(&self.master())
    }

    /// `BACKEND/SERVER ADDRESS:PORT` of the servers that take requests, sorted.
    pub fn servers(&self) -> Vec<String> {
        servers(&self.socket())
    }

    /// The fingerprint that it shows.
    pub fn fingerprint(&self) -> Option<String> {
        let info = ask(&self.socket(), "show info")?;
        let line = info.lines().find(|line| line.starts_with("description:"))?;
        Some(line.split_once("cosmonaut:")?.1.trim().to_owned())
    }

    /// One command on its runtime socket.
    pub fn tell(&self, command: &str) -> String {
        ask(&self.socket(), command).unwrap_or_default()
    }
}

impl Drop for HostHaproxy {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("haproxy.log"));
            println!("--- HAProxy said:\n{}", log.unwrap_or_default());
            println!("--- HAProxy has: {:?}", self.servers());
        }
        self.kill();
    }
}

/// How often the master behind this socket has loaded its file again.
#[track_caller]
pub fn reloads(master: &Path) -> u64 {
    wait_for("HAProxy's master", SOON, || {
        let reply = ask(master, "show proc")?;
        let line = reply.lines().find(|line| line.contains("master"))?;
        // Before 2.5 there is a column more: the number of the process among its like.
        let at = if reply.contains("<relative PID>") {
            3
        } else {
            2
        };
        line.split_whitespace().nth(at)?.parse().ok()
    })
}

/// `BACKEND/SERVER ADDRESS:PORT` of the servers behind this runtime socket that take requests, sorted.
pub fn servers(socket: &Path) -> Vec<String> {
    let reply = ask(socket, "show servers state").unwrap_or_default();
    let mut all: Vec<String> = reply
        .lines()
        .skip(2)
        .filter_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            let (backend, server) = (words.get(1)?, words.get(3)?);
            // Before 2.5 the master's own way to its worker is listed, too.
            (*backend != "MASTER" && words.get(6) == Some(&"0"))
                .then(|| format!("{backend}/{server} {}:{}", words[4], words[18]))
        })
        .collect();
    all.sort();
    all
}

pub fn ask(socket: &Path, command: &str) -> Option<String> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{command}\n").as_bytes()).ok()?;
    stream.shutdown(Shutdown::Write).ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    Some(reply)
}
