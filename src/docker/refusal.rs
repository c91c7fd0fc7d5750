//! What went wrong between us and the daemon, in words for the operator, with the mend.
//!
//! Reads status, head and body of answers that are no success; decides nothing but the words and the kind.

use std::fmt;
use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::text::Text;
use super::wire::Fault;
use crate::error::{Error, Kind};
use crate::http::Head;
use crate::json;
use crate::transport::{self, Address};

/// How much of a refusal's body is repeated; a proxy's page can be long.
const WORDS_CHARS_MAX: usize = 200;

/// What was asked of the daemon, as the end of "cannot".
#[derive(Debug, Clone, Copy)]
pub(super) enum Ask<'a> {
    Ping,
    List,
    Inspect(&'a str),
    Events,
}

impl fmt::Display for Ask<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ask::Ping => f.write_str("ask for the version of Docker"),
            Ask::List => f.write_str("list containers"),
            Ask::Inspect(id) => write!(f, "inspect container {}", short(id)),
            Ask::Events => f.write_str("follow events"),
        }
    }
}

impl Ask<'_> {
    pub(super) fn tried(&self, address: &Address) -> String {
        format!("cannot {self} at {address}")
    }

    /// What a socket proxy must allow for it.
    fn permission(&self) -> &'static str {
        match self {
            Ask::Ping => "PING=1 (Tecnativa) or -allowGET=/_ping (wollomatic)",
            Ask::List | Ask::Inspect(_) => {
                "CONTAINERS=1 (Tecnativa) or -allowGET=(/v1\\.[0-9]+)?/containers/(json|[a-zA-Z0-9_.-]+/json) (wollomatic)"
            }
            Ask::Events => "EVENTS=1 (Tecnativa) or -allowGET=(/v1\\.[0-9]+)?/events (wollomatic)",
        }
    }
}

/// The first twelve characters, as Docker's own listings show an id; names stay whole.
fn short(id: &str) -> &str {
    if id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        id.get(..12).unwrap_or(id)
    } else {
        id
    }
}

/// The daemon could not be connected to.
pub(super) fn unreachable(error: Error, address: &Address, others: &[PathBuf]) -> Error {
    if error.hint_text().is_some() {
        return error;
    }
    match address {
        Address::Unix(path) if error.is(Kind::Denied) => error.hint(format!(
            "may this user use {}? add it to the group that owns the socket (usually docker: usermod -aG docker USER, then log in again), or run as root",
            path.display()
        )),
        Address::Unix(path) if error.is(Kind::Unreachable) => {
            let others: Vec<String> = others
                .iter()
                .filter(|other| *other != path)
                .map(|other| format!("unix://{}", other.display()))
                .collect();
            if others.is_empty() {
                error.hint("is the Docker daemon running? DOCKER_HOST or --docker-host names another address")
            } else {
                error.hint(format!(
                    "is the Docker daemon running? another one is at {}: name it by DOCKER_HOST or --docker-host",
                    others.join(", ")
                ))
            }
        }
        Address::Unix(_) if error.is(Kind::TimedOut) => {
            error.hint("the daemon takes no more connections; is it frozen?")
        }
        Address::Tcp { .. } => error.hint("DOCKER_HOST or --docker-host selects the daemon; does it listen on that address?"),
        _ => error,
    }
}

/// No whole answer came.
pub(super) fn unanswered(ask: Ask, address: &Address, fault: &Fault) -> Error {
    let mut error = Error::new(ask.tried(address), fault);
    if let Fault::Io(reason) = fault
        && let Some(mend) = transport::mend(reason, address)
    {
        error = error.hint(mend);
    }
    if let (Address::Ssh { user, host, .. }, Fault::Io(_)) = (address, fault) {
        let user = user
            .as_ref()
            .map(|user| format!("{user}@"))
            .unwrap_or_default();
        error = error.hint(format!(
            "does `ssh {user}{host} docker version` work for this user, without asking for anything?"
        ));
    }
    let kind = match fault {
        _ if fault.timed_out() => Kind::TimedOut,
        Fault::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => Kind::Denied,
        Fault::Io(_) => Kind::Unreachable,
        _ if fault.closed() => Kind::Unreachable,
        _ => Kind::Failed,
    };
    error.kind(kind)
}

/// The daemon, or something before it, answered with something else than success.
pub(super) fn refused(ask: Ask, address: &Address, head: &Head, body: &[u8]) -> Error {
    let said = words(body);
    let cause = if said.is_empty() {
        format!("answer {} {}", head.status, head.reason)
    } else {
        format!("answer {}: {said}", head.status)
    };
    let error = Error::new(ask.tried(address), cause.trim_end());
    match head.status {
        401 | 403 => error.kind(Kind::Denied).hint(format!(
            "a socket proxy before Docker must allow this: {}",
            ask.permission()
        )),
        // What a proxy says while the daemon behind it is away.
        502..=504 => error.kind(Kind::Unreachable),
        301 | 302 | 307 | 308 => match head.header("Location") {
            Some(place) => error.hint(format!("it points to {place}; is this Docker's API?")),
            None => error,
        },
        400 if said.contains("HTTPS server") => error.hint(
            "the daemon speaks TLS there: set DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH to the folder with ca.pem, cert.pem and key.pem",
        ),
        400 if said.contains("too old") || said.contains("too new") => {
            error.hint("the version comes from DOCKER_API_VERSION; unset it to have it negotiated")
        }
        404 => error.hint("is this Docker's API, and not another server?"),
        _ => error,
    }
}

/// Whether a 404 means that there is no such container, and not that the path is unknown.
pub(super) fn no_such_container(body: &[u8]) -> bool {
    json::read::<Message>(body).is_ok_and(|said| {
        !said.message.is_empty() && !said.message.as_str().eq_ignore_ascii_case("page not found")
    })
}

/// Docker's and Podman's JSON for errors.
#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow, default)]
    message: Text<'a>,
}

/// A refusal's body in one line: the message of Docker's JSON, or the text of a proxy's page without its tags.
pub(super) fn words(body: &[u8]) -> String {
    let text = match json::read::<Message>(body) {
        Ok(said) => said.message.0.into_owned(),
        Err(_) => without_tags(&String::from_utf8_lossy(body)),
    };
    let mut line = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(WORDS_CHARS_MAX) {
        Some((end, _)) => {
            line.truncate(end);
            line.push('…');
            line
        }
        None => line,
    }
}

fn without_tags(text: &str) -> String {
    if !text.trim_start().starts_with('<') {
        return text.to_owned();
    }
    let mut plain = String::new();
    for part in text.split('<') {
        let (_, after) = part.split_once('>').unwrap_or(("", part));
        plain.push_str(after);
        plain.push(' ');
    }
    plain
}
