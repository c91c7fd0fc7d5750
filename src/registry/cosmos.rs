//! The remote registry, over ureq: Cosmos, also called Lambda Registry.
//!
//! The real service loses services, repeats servers and calls failures a success (facts/cosmos.md,
//! section 2), so nothing it says is believed: the answer is decoded strictly, compared with what was
//! asked for, and searched for what a config from outside may not hold. First the truthful payload;
//! if the answer is not right, once more with `running: []`, which always works. It must not know
//! Docker or where the config goes. Header values and credentials never reach a log or an error.

mod reach;

pub use reach::Reached;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::header::{HeaderName, HeaderValue};
use ureq::http::{Uri, uri::Scheme};
use ureq::{Agent, Proxy};

use super::answer::{self, Fault};
use super::retry::Retry;
use super::{Candidate, Instance, Mode, Payload, Registry, policy, proxy};
use crate::config::Config;
use crate::error::{Error, Kind, Result};

/// Longest time to connect, TLS and DNS included. A host that takes longer is as good as down.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Longest time of one whole call. The function may run for 20 s and the gateway waits for about 30.
const CALL_MAX: Duration = Duration::from_secs(35);

/// Largest answer, in bytes: 1,000 services are 245 KB.
pub const BODY_BYTES_MAX: u64 = 16 << 20;

/// Largest CA file, in bytes: the bundle of all web roots is 220 KB.
const CA_BYTES_MAX: u64 = 4 << 20;

/// How long an idle connection is kept for the second question of the same pass.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Most faults of an answer that an error names.
const FAULTS_NAMED_MAX: usize = 5;

/// Patterns that fit on the one acl line of the real service's template.
const PATTERNS_MAX: usize = 50;

/// Names that the real service's template would give to a backend and an acl, and HAProxy refuses:
/// words of its conditions, its own frontend (3.3), a reserved backend (3.4).
const NAMES_REFUSED: &[&str] = &["or", "if", "unless", "http", "default"];

/// Waits for a time; `false` means that somebody asked us to stop.
pub type Pause = Box<dyn Fn(Duration) -> bool + Send>;

/// What a Cosmos needs to be asked.
#[derive(Clone)]
pub struct Settings {
    /// Its URL up to the stage, `https://….amazonaws.com/api`; `/generate` is added.
    pub url: String,
    /// Further request headers, for API keys.
    pub headers: Vec<(String, String)>,
    /// A PEM file with certificate authorities that count besides the web's.
    pub ca: Option<PathBuf>,
    /// Whether its config may hold whatever it likes.
    pub trust: bool,
    /// Largest answer that is read, in bytes.
    pub body_bytes_max: u64,
}

impl Settings {
    /// The usual settings for a URL.
    pub fn new(url: impl Into<String>) -> Self {
        Settings {
            url: url.into(),
            headers: Vec::new(),
            ca: None,
            trust: false,
            body_bytes_max: BODY_BYTES_MAX,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("Settings")
            .field("url", &redacted(&self.url))
            .field("headers", &names)
            .field("ca", &self.ca)
            .field("trust", &self.trust)
            .field("body_bytes_max", &self.body_bytes_max)
            .finish()
    }
}

/// A URL as it may be shown: without credentials, query and fragment.
pub fn redacted(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = url.split_once("://") else {
        // Without a scheme what stands before an `@` may still be a password.
        return url.rsplit('@').next().unwrap_or_default().to_owned();
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

/// The remote registry.
pub struct Cosmos {
    /// The URL to post to, without credentials.
    target: String,
    /// The URL as it may be shown.
    shown: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// One agent per set of trusted authorities, and the one that worked last.
    agents: Vec<Agent>,
    agent: usize,
    trust: bool,
    body_bytes_max: u64,
    pause: Pause,
    /// What the last truthful answer lacked, so that it is said once.
    told: String,
}

impl fmt::Debug for Cosmos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cosmos")
            .field("url", &self.shown)
            .finish_non_exhaustive()
    }
}

/// One call that gave no config.
struct Failure {
    error: Error,
    /// Worth asking again.
    passing: bool,
    /// The stored services may be at fault: `running: []` gets past them.
    heals: bool,
}

impl Cosmos {
    /// A client for these settings. Nothing is sent yet.
    ///
    /// # Errors
    /// A URL that is none, a header that cannot be sent, a CA file that cannot be read.
    pub fn new(settings: &Settings, pause: Pause) -> Result<Self> {
        let shown = redacted(&settings.url);
        let (target, credentials, host) = target_of(&settings.url, &shown)?;
        let is_https = target.starts_with("https://");
        if is_https && !cfg!(feature = "tls") {
            return Err(Error::new(
                format!("cannot use Cosmos at {shown}"),
                "this cosmonaut was built without TLS",
            )
            .hint("build it with the feature `tls`, or give an http:// URL"));
        }
        let mut headers = Vec::with_capacity(settings.headers.len() + 1);
        if let Some(credentials) = credentials {
            headers.push((
                ureq::http::header::AUTHORIZATION,
                secret(&format!("Basic {}", base64(&credentials)))
                    .ok_or_else(|| bad_header("Authorization"))?,
            ));
        }
        for (name, value) in &settings.headers {
            let header = HeaderName::from_bytes(name.trim().as_bytes()).ok();
            let pair = header.zip(secret(value.trim()));
            headers.push(pair.ok_or_else(|| bad_header(name))?);
        }
        let proxy = proxy::of(is_https, &host, &|name| std::env::var(name).ok());
        let proxy = match proxy {
            None => None,
            Some(proxy) => Some(Proxy::new(&proxy).map_err(|_| {
                Error::new(
                    format!("cannot use the proxy {}", redacted(&proxy)),
                    "it is not a proxy's URL",
                )
                .hint("https_proxy, http_proxy or all_proxy in the environment name it; http://HOST:PORT")
            })?),
        };
        Ok(Cosmos {
            target,
            shown,
            headers,
            agents: agents(settings.ca.as_deref(), proxy.as_ref())?,
            agent: 0,
            trust: settings.trust,
            body_bytes_max: settings.body_bytes_max,
            pause,
            told: String::new(),
        })
    }

    /// The URL as it may be shown, without credentials.
    pub fn shown(&self) -> &str {
        &self.shown
    }

    fn tried(&self) -> String {
        format!("cannot get a config from Cosmos at {}", self.shown)
    }

    /// Asks until there is a config, a fault that stays, or no time left.
    fn ask(
        &mut self,
        payload: &Payload,
        begun: Instant,
        retry: &mut Retry,
    ) -> std::result::Result<String, Failure> {
        // Strings, numbers and lists only: nothing that JSON could refuse.
        let body = serde_json::to_vec(payload).unwrap_or_default();
        log::debug!(
            "asking Cosmos at {}: {} candidates, {} running, {} bytes",
            self.shown,
            payload.candidates.len(),
            payload.running.len(),
            body.len()
        );
        loop {
            let failure = match self.call(&body) {
                Ok(config) => return Ok(config),
                Err(failure) => failure,
            };
            if !failure.passing {
                return Err(failure);
            }
            let Some(wait) = retry.wait(begun.elapsed()) else {
                let error = failure.error;
                let tries = retry.failed();
                return Err(Failure {
                    error: Error::new(
                        self.tried(),
                        format!(
                            "{}, after {tries} tries in {} s",
                            error.cause(),
                            begun.elapsed().as_secs()
                        ),
                    )
                    .kind(kind_of(&error))
                    .hint(error.hint_text().unwrap_or("the running config stands")),
                    ..failure
                });
            };
            log::info!("{}; asking again in {} ms", failure.error, wait.as_millis());
            if !(self.pause)(wait) {
                return Err(Failure {
                    error: Error::new(self.tried(), "stopped while waiting to ask again"),
                    passing: false,
                    heals: false,
                });
            }
        }
    }

    /// One call, with the authorities that worked last and then with the others.
    fn call(&mut self, body: &[u8]) -> std::result::Result<String, Failure> {
        let mut first = None;
        for step in 0..self.agents.len() {
            let index = (self.agent + step) % self.agents.len();
            match self.call_with(index, body) {
                Err(Called::Ureq(cause)) if is_certificate(&cause) => {
                    first.get_or_insert(cause);
                }
                other => {
                    self.agent = index;
                    return other.map_err(|called| self.failure(called));
                }
            }
        }
        let cause = first.unwrap_or(ureq::Error::ConnectionFailed);
        Err(self.failure(Called::Ureq(cause)))
    }

    fn call_with(&self, agent: usize, body: &[u8]) -> std::result::Result<String, Called> {
        let agent = self
            .agents
            .get(agent)
            .ok_or(Called::Ureq(ureq::Error::ConnectionFailed))?;
        let mut request = agent
            .post(&self.target)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let mut response = request.send(body).map_err(Called::Ureq)?;
        let status = response.status().as_u16();
        let text = |name: &str| {
            let value = response.headers().get(name)?;
            Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let content_type = text("content-type");
        let location = text("location").map(|to| redacted(&to));
        let bytes = response
            .body_mut()
            .with_config()
            .limit(self.body_bytes_max)
            .read_to_vec()
            .map_err(Called::Ureq)?;
        answer::decode(status, content_type.as_deref(), &bytes).map_err(|fault| match fault {
            Fault::Status { status, .. } if (300..400).contains(&status) => {
                Called::Fault(Fault::Status {
                    status,
                    words: location.map_or_else(String::new, |to| {
                        answer::one_line(&format!("it redirects to {to}"))
                    }),
                })
            }
            fault => Called::Fault(fault),
        })
    }

    fn failure(&self, called: Called) -> Failure {
        match called {
            Called::Fault(fault) => {
                let mut error = Error::new(self.tried(), &fault);
                if let Some(hint) = fault.hint() {
                    error = error.hint(hint);
                }
                if matches!(
                    fault,
                    Fault::Status {
                        status: 401 | 403,
                        ..
                    }
                ) {
                    error = error.kind(Kind::Denied);
                }
                let heals = match &fault {
                    Fault::Service { words, passing } => {
                        !passing && !words.contains("ValidationError")
                    }
                    _ => false,
                };
                Failure {
                    error,
                    passing: fault.is_passing(),
                    heals,
                }
            }
            Called::Ureq(cause) => self.transport_failure(&cause),
        }
    }

    fn transport_failure(&self, cause: &ureq::Error) -> Failure {
        let error = |words: &str| Error::new(self.tried(), words);
        let (error, passing) = match cause {
            _ if is_certificate(cause) => (
                error(&format!("its certificate is not trusted: {}", io_words(cause))).hint(
                    "a private Cosmos needs its authority as --cosmos-ca PATH; is this machine's clock right?",
                ),
                false,
            ),
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => (
                error(&format!("no connection within {} s", CONNECT_MAX.as_secs()))
                    .kind(Kind::TimedOut)
                    .hint("is the address right, and may this host reach it?"),
                true,
            ),
            ureq::Error::Timeout(_) => (
                error(&format!("no whole answer within {} s", CALL_MAX.as_secs()))
                    .kind(Kind::TimedOut),
                true,
            ),
            ureq::Error::HostNotFound => (
                error("the host name is not known")
                    .kind(Kind::Unreachable)
                    .hint("is the URL right, and does name resolution work on this host?"),
                true,
            ),
            ureq::Error::BodyExceedsLimit(_) => (
                error(&format!("the answer is larger than {} bytes", self.body_bytes_max)),
                false,
            ),
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::ConnectionRefused => (
                error("connection refused")
                    .kind(Kind::Unreachable)
                    .hint("does Cosmos listen on that address and port?"),
                true,
            ),
            ureq::Error::Io(io)
                if matches!(
                    io.kind(),
                    io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable
                ) =>
            {
                (
                    error(&io.to_string())
                        .kind(Kind::Unreachable)
                        .hint("is this host's network up?"),
                    true,
                )
            }
            ureq::Error::Io(io) if is_tls_io(io) => (
                error(&format!("TLS failed: {io}")).hint("does that address speak HTTPS?"),
                false,
            ),
            ureq::Error::Io(io) if io.kind() == io::ErrorKind::UnexpectedEof => {
                (error("the connection ended in the middle of the answer"), true)
            }
            ureq::Error::Io(io) => (error(&io.to_string()), true),
            ureq::Error::ConnectionFailed => {
                (error("no connection").kind(Kind::Unreachable), true)
            }
            ureq::Error::Protocol(_) => (
                error(&format!("the answer is not HTTP as it should be: {cause}")),
                true,
            ),
            other => (error(&answer::one_line(&other.to_string())), false),
        };
        Failure {
            error,
            passing,
            heals: false,
        }
    }

    /// The config, if it holds exactly what was asked for; else what is wrong with it.
    fn checked(
        &self,
        asked: &Payload,
        text: String,
    ) -> Result<std::result::Result<String, Vec<String>>> {
        let config = Config::parse(&text);
        if !self.trust {
            let violations = policy::violations(&config);
            if !violations.is_empty() {
                let words: Vec<_> = violations.iter().map(ToString::to_string).collect();
                return Err(Error::new(
                    format!("will not use the config from Cosmos at {}", self.shown),
                    summary(&words),
                )
                .hint(
                    "if this Cosmos is yours and its template is meant to do that: --trust-cosmos",
                ));
            }
        }
        let missing = answer::missing(asked, &config, self.trust);
        if missing.is_empty() {
            Ok(Ok(answer::with_own_cookies(text)))
        } else {
            Ok(Err(missing))
        }
    }
}

impl Registry for Cosmos {
    fn config(&mut self, payload: &Payload) -> Result<String> {
        let begun = Instant::now();
        let mut retry = Retry::default();
        let asked = wire(payload);
        // What the answer is compared with has the patterns one by one, not as they are sent.
        let wanted = Payload {
            candidates: sendable(payload).cloned().collect(),
            ..payload.clone()
        };
        let lacks = match self.ask(&asked, begun, &mut retry) {
            Ok(text) => match self.checked(&wanted, text)? {
                Ok(config) => {
                    self.told.clear();
                    return Ok(config);
                }
                Err(missing) => summary(&missing),
            },
            Err(failure) if failure.heals && !asked.running.is_empty() => {
                failure.error.cause().to_owned()
            }
            Err(failure) => return Err(failure.error),
        };
        let wrong = |lacks: &str, shown: &str| {
            Error::new(
                format!("the config from Cosmos at {shown} is not what was asked for"),
                lacks,
            )
            .hint("the running config stands; does another client write to the same Cosmos?")
        };
        if asked.running.is_empty() {
            return Err(wrong(&lacks, &self.shown));
        }
        if self.told != lacks {
            log::warn!(
                "the answer of Cosmos at {} is not what was asked for, asking once more with running: []: {lacks}",
                self.shown
            );
            self.told = lacks;
        }
        if !Retry::may_start(begun.elapsed()) {
            return Err(wrong(&self.told, &self.shown));
        }
        let wanted = without_running(&wanted);
        let asked = without_running(&asked);
        let text = self
            .ask(&asked, begun, &mut retry)
            .map_err(|failure| failure.error)?;
        self.checked(&wanted, text)?
            .map_err(|missing| wrong(&summary(&missing), &self.shown))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn can_route(&self, candidate: &Candidate) -> std::result::Result<(), String> {
        can_send(candidate)
    }
}

enum Called {
    Ureq(ureq::Error),
    Fault(Fault),
}

/// The first few of a list, and how many more there are.
fn summary(all: &[String]) -> String {
    let mut words = all
        .iter()
        .take(FAULTS_NAMED_MAX)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join("; ");
    if all.len() > FAULTS_NAMED_MAX {
        words.push_str(&format!("; and {} more", all.len() - FAULTS_NAMED_MAX));
    }
    words
}

/// Whether the real service can route a candidate as it is meant; the reason if it cannot.
///
/// Its template matches whole host names only and pastes values without quotes (facts/cosmos.md,
/// 2.14 to 2.17). Such a candidate is left out by the caller with this reason.
///
/// # Errors
/// The reason, for the operator.
pub fn can_send(candidate: &Candidate) -> std::result::Result<(), String> {
    let name = candidate.service_name.as_str();
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
    };
    if !is_name(name) {
        return Err(format!(
            "{name:?} cannot be a service name with Cosmos: letters, digits and `_.:-` only"
        ));
    }
    if NAMES_REFUSED.contains(&name) {
        return Err(format!(
            "Cosmos names the backend and the acl after the service, and HAProxy refuses the name {name:?}"
        ));
    }
    if candidate.patterns().count() > PATTERNS_MAX {
        return Err(format!(
            "more than {PATTERNS_MAX} predicates do not fit on Cosmos's one line"
        ));
    }
    if candidate.patterns().next().is_none() {
        return Err("it has no predicate".to_owned());
    }
    for pattern in candidate.patterns() {
        if candidate.config_mode == Mode::Host && pattern.starts_with('*') {
            return Err(format!(
                "Cosmos matches whole host names only, so the wildcard {pattern} would never match; the built-in registry knows wildcards"
            ));
        }
        let odd = pattern
            .find(|char: char| char.is_control() || !char.is_ascii() || "#\"'\\<>".contains(char));
        if odd.is_some() || pattern.starts_with('-') {
            return Err(format!(
                "Cosmos writes the predicate {pattern:?} into the config without quotes, where it would mean something else"
            ));
        }
    }
    if let Some(cookie) = candidate.cookie.as_deref()
        && !is_name(cookie)
    {
        return Err(format!("{cookie:?} cannot be a cookie's name with Cosmos"));
    }
    if let Some(bad) = candidate.containers.iter().find(|one| !is_name(&one.id)) {
        return Err(format!(
            "{:?} cannot be a container's id with Cosmos",
            bad.id
        ));
    }
    Ok(())
}

/// The candidates that Cosmos gets: those with an instance. One stored without containers would make
/// every later call fail (facts/cosmos.md, bug 6); without its backend it answers 503 all the same.
fn sendable(payload: &Payload) -> impl Iterator<Item = &Candidate> {
    payload
        .candidates
        .iter()
        .filter(|candidate| !candidate.containers.is_empty())
}

/// A payload as it is sent. The template puts one `/` before a path predicate, so further ones get
/// theirs here.
fn wire(payload: &Payload) -> Payload {
    let candidates = sendable(payload).map(|candidate| {
        let mut candidate = candidate.clone();
        if candidate.config_mode == Mode::Path {
            candidate.predicate = candidate.patterns().collect::<Vec<_>>().join(" /");
        }
        candidate.cookie = candidate.cookie.filter(|cookie| !cookie.is_empty());
        candidate
    });
    Payload {
        candidates: candidates.collect(),
        ..payload.clone()
    }
}

/// The payload that always works: nothing is running, everything is a candidate. Instances that only
/// `running` knew (those of other hosts) become containers of their service.
fn without_running(payload: &Payload) -> Payload {
    let mut others: HashMap<&str, Vec<Instance>> = HashMap::new();
    for entry in &payload.running {
        others
            .entry(&entry.service_name)
            .or_default()
            .push(Instance {
                id: entry.id.clone(),
                ip: entry.ip.clone(),
            });
    }
    let mut again = Payload {
        table: payload.table.clone(),
        running: Vec::new(),
        candidates: payload.candidates.clone(),
    };
    for candidate in &mut again.candidates {
        let mut known: HashSet<String> = candidate
            .containers
            .iter()
            .map(|one| one.id.clone())
            .collect();
        let others = others
            .remove(candidate.service_name.as_str())
            .unwrap_or_default();
        candidate.containers.extend(
            others
                .into_iter()
                .filter(|one| known.insert(one.id.clone())),
        );
        candidate.containers.sort();
    }
    again
}

/// The URL to post to, the credentials in it, and its host.
fn target_of(url: &str, shown: &str) -> Result<(String, Option<String>, String)> {
    let refuse = |why: &str| {
        Error::new(format!("cannot use {shown:?} as the URL of Cosmos"), why)
            .hint("it is that of the stage, such as https://HOST/api; /generate is added to it")
    };
    let (bare, query) = match url.split_once(['?', '#']) {
        Some((bare, _)) => (bare, url.get(bare.len()..).unwrap_or_default()),
        None => (url, ""),
    };
    let query = query.split('#').next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else {
        return Err(refuse("it has no http:// or https:// before the host"));
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (credentials, host) = match authority.rsplit_once('@') {
        Some((credentials, host)) => (Some(percent_decoded(credentials)), host),
        None => (None, authority),
    };
    let path = path.trim_end_matches('/');
    let path = path.strip_suffix("/generate").unwrap_or(path);
    let target = format!("{scheme}://{host}{path}/generate{query}");
    let uri: Uri = target.parse().map_err(|_| refuse("it is not a URL"))?;
    if ![Some(&Scheme::HTTP), Some(&Scheme::HTTPS)].contains(&uri.scheme()) {
        return Err(refuse("only http:// and https:// are spoken"));
    }
    match uri.host() {
        Some(host) if !host.is_empty() => Ok((target, credentials, host.to_owned())),
        _ => Err(refuse("it names no host")),
    }
}

fn secret(value: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(value).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn bad_header(name: &str) -> Error {
    Error::new(
        format!(
            "cannot send the header {:?} to Cosmos",
            answer::one_line(name)
        ),
        "its name or its value holds a character that HTTP does not allow",
    )
    .hint("--cosmos-header 'NAME: VALUE'")
}

fn kind_of(error: &Error) -> Kind {
    [Kind::Unreachable, Kind::TimedOut, Kind::Denied]
        .into_iter()
        .find(|kind| error.is(*kind))
        .unwrap_or(Kind::Failed)
}

/// `user:password` of a URL, with `%40` and the like undone.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        let hex = tail
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match hex {
            Some(byte) => {
                bytes.push(byte);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Base64 for the one header that needs it (RFC 4648, section 4).
fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::with_capacity(text.len() * 4 / 3 + 4);
    for chunk in text.as_bytes().chunks(3) {
        let byte = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            if digit <= chunk.len() {
                let index = (bits >> (18 - 6 * digit)) & 63;
                encoded.push(char::from(DIGITS[index as usize]));
            } else {
                encoded.push('=');
            }
        }
    }
    encoded
}

/// One agent for the extra authorities, if there are any, and one for the web's.
///
/// ureq trusts either a given list or the web's roots, not both; a certificate that one does not know
/// is shown to the other before anything is sent.
fn agents(ca: Option<&Path>, proxy: Option<&Proxy>) -> Result<Vec<Agent>> {
    let config = || {
        Agent::config_builder()
            .proxy(proxy.cloned())
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_resolve(Some(CONNECT_MAX))
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_global(Some(CALL_MAX))
            .max_idle_age(IDLE_MAX)
            .user_agent(concat!("cosmonaut/", env!("CARGO_PKG_VERSION")))
    };
    let mut agents = Vec::with_capacity(2);
    if let Some(path) = ca {
        #[cfg(feature = "tls")]
        {
            let tls = ureq::tls::TlsConfig::builder()
                .root_certs(authorities(path)?)
                .build();
            agents.push(config().tls_config(tls).build().new_agent());
        }
        #[cfg(not(feature = "tls"))]
        return Err(Error::new(
            format!("cannot use the authorities in {}", path.display()),
            "this cosmonaut was built without TLS",
        ));
    }
    agents.push(config().build().new_agent());
    Ok(agents)
}

#[cfg(feature = "tls")]
fn authorities(path: &Path) -> Result<ureq::tls::RootCerts> {
    let tried = || format!("cannot read the authorities in {}", path.display());
    let mut pem = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CA_BYTES_MAX + 1).read_to_end(&mut pem))
        .map_err(|cause| {
            let denied = cause.kind() == io::ErrorKind::PermissionDenied;
            let error = Error::new(tried(), cause).hint("--cosmos-ca names a PEM file");
            if denied {
                error.kind(Kind::Denied)
            } else {
                error
            }
        })?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(Error::new(
            tried(),
            format!("it is larger than {CA_BYTES_MAX} bytes"),
        ));
    }
    let mut certificates = Vec::new();
    for item in ureq::tls::parse_pem(&pem) {
        match item {
            Ok(ureq::tls::PemItem::Certificate(certificate)) => certificates.push(certificate),
            Ok(_) => {}
            Err(cause) => return Err(Error::new(tried(), cause)),
        }
    }
    if certificates.is_empty() {
        return Err(Error::new(tried(), "it holds no certificate")
            .hint("it must be PEM, with -----BEGIN CERTIFICATE----- lines"));
    }
    Ok(ureq::tls::RootCerts::new_with_certs(&certificates))
}

/// The words of a transport error without ureq's own prefix.
fn io_words(cause: &ureq::Error) -> String {
    match cause {
        ureq::Error::Io(io) => answer::one_line(&io.to_string()),
        other => answer::one_line(&other.to_string()),
    }
}

/// Whether the other side's certificate is at fault: nothing was sent then.
fn is_certificate(cause: &ureq::Error) -> bool {
    match cause {
        #[cfg(feature = "tls")]
        ureq::Error::Rustls(rustls::Error::InvalidCertificate(_)) => true,
        #[cfg(feature = "tls")]
        ureq::Error::Io(io) => matches!(
            io.get_ref()
                .and_then(|inner| inner.downcast_ref::<rustls::Error>()),
            Some(rustls::Error::InvalidCertificate(_))
        ),
        _ => false,
    }
}

fn is_tls_io(cause: &io::Error) -> bool {
    #[cfg(feature = "tls")]
    return cause
        .get_ref()
        .is_some_and(|inner| inner.is::<rustls::Error>());
    #[cfg(not(feature = "tls"))]
    {
        let _ = cause;
        false
    }
}
