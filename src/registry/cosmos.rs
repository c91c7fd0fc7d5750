//! The remote registry, over ureq: Cosmos, also called Lambda Registry.
//!
//! The real service loses services, repeats servers and calls failures a success (measured on its
//! own code), so nothing it says is believed: the answer is decoded strictly, compared with what was
//! asked for, and searched for what a config from outside may not hold. First the truthful payload;
//! if the answer is not right, once more with `running: []`, which always works. It must not know
//! Docker or where the config goes. Header values and credentials never reach a log or an error.

mod reach;

pub use reach::Reached;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ureq::http::header::{HeaderName, HeaderValue};
use ureq::{Agent, Proxy};

use super::answer::{self, Fault};
use super::retry::{self, Retry};
use super::url::{base64, redacted, target_of};
use super::{Payload, Registry, policy, proxy, wire};
use crate::config::{Config, fingerprint};
use crate::error::{Error, Kind, Result};

/// Longest time to connect, TLS and DNS included. A host that takes longer is as good as down.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// Longest time of one whole call. The function may run for 20 s and the gateway waits for about 30.
const CALL_MAX: Duration = Duration::from_secs(35);

/// Largest answer, in bytes: 1,000 services are 245 KB.
pub const BODY_BYTES_MAX: u64 = 16 << 20;

/// How long an idle connection is kept for the second question of the same pass.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Most faults of an answer that an error names.
const FAULTS_NAMED_MAX: usize = 5;

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
    /// No try begins after this.
    patience: Duration,
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
            patience: retry::START_MAX,
            told: String::new(),
        })
    }

    /// From now on, no try of a pass begins after this; zero means one try.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
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
                log::debug!("it was asked {}", String::from_utf8_lossy(&body));
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
                error(&format!("timed out: no connection within {} s", CONNECT_MAX.as_secs()))
                    .kind(Kind::TimedOut)
                    .hint("is the address right, and may this host reach it?"),
                true,
            ),
            ureq::Error::Timeout(_) => (
                error(&format!("timed out: no whole answer within {} s", CALL_MAX.as_secs()))
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
        let mut retry = Retry::new(self.patience);
        let asked = wire::complete(payload);
        // What the answer is compared with has the patterns one by one, not as they are sent.
        let wanted = Payload {
            candidates: wire::sendable(payload).cloned().collect(),
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
        let wanted = wire::without_running(&wanted);
        let asked = wire::without_running(&asked);
        let text = self
            .ask(&asked, begun, &mut retry)
            .map_err(|failure| failure.error)?;
        self.checked(&wanted, text)?
            .map_err(|missing| wrong(&summary(&missing), &self.shown))
    }

    fn is_remote(&self) -> bool {
        true
    }

    fn can_route(&self, candidate: &super::Candidate) -> std::result::Result<(), String> {
        super::wire::can_send(candidate)
    }

    fn origin(&self) -> String {
        // It is written down, and the URL may hold a key.
        fingerprint(&self.target)
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
                .root_certs(super::authorities::read(path)?)
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::registry::canned::{Reply, Server, json, real_template, serve};
    use crate::registry::haproxy_check::assert_accepted;
    use crate::registry::{Candidate, Instance, Mode, Running, sort};

    /// A pause that does not wait but notes how long it should have.
    fn noted() -> (Pause, Arc<Mutex<Vec<u128>>>) {
        let waits = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&waits);
        let pause: Pause = Box::new(move |wait| {
            notes
                .lock()
                .expect("no test panics here")
                .push(wait.as_millis());
            true
        });
        (pause, waits)
    }

    fn payload() -> Payload {
        let instance = |id: &str, ip: &str| Instance {
            id: id.to_owned(),
            ip: ip.to_owned(),
        };
        let running = |name: &str, id: &str, ip: &str| Running {
            service_name: name.to_owned(),
            id: id.to_owned(),
            ip: ip.to_owned(),
        };
        let mut payload = Payload {
            table: "t".to_owned(),
            running: vec![
                running("web", "aaaaaaaaaaaa", "10.0.0.1"),
                running("api", "bbbbbbbbbbbb", "10.0.0.2"),
            ],
            candidates: vec![
                Candidate {
                    service_name: "api".to_owned(),
                    port: 8080,
                    config_mode: Mode::Path,
                    predicate: "api v2/a&b".to_owned(),
                    cookie: None,
                    containers: vec![instance("bbbbbbbbbbbb", "10.0.0.2")],
                },
                Candidate {
                    service_name: "web".to_owned(),
                    port: 80,
                    config_mode: Mode::Host,
                    predicate: "web.example.com".to_owned(),
                    cookie: Some("SID".to_owned()),
                    containers: vec![instance("aaaaaaaaaaaa", "10.0.0.1")],
                },
            ],
        };
        sort(&mut payload);
        payload
    }

    fn ask(server: &Server, payload: &Payload) -> (Result<String>, Vec<u128>) {
        let (pause, waits) = noted();
        let mut cosmos = Cosmos::new(&Settings::new(&server.url), pause).expect("good settings");
        let answer = cosmos.config(payload);
        let waits = waits.lock().expect("no test panics here").clone();
        (answer, waits)
    }

    #[test]
    fn the_payload_on_the_wire_and_the_config_from_the_answer() {
        let server = serve(vec![Reply::Config]);
        let (answer, waits) = ask(&server, &payload());
        let config = answer.expect("a config");
        assert_eq!(waits, [0; 0]);
        let (head, body) = server.requests.recv().expect("one request");
        assert!(
            head.starts_with("POST /api/generate HTTP/1.1\r\n"),
            "{head}"
        );
        assert!(
            head.to_ascii_lowercase()
                .contains("content-type: application/json\r\n")
        );
        assert_eq!(
            body,
            r#"{"table":"t","running":[{"serviceName":"api","id":"bbbbbbbbbbbb","ip":"10.0.0.2"},{"serviceName":"web","id":"aaaaaaaaaaaa","ip":"10.0.0.1"}],"candidates":[{"serviceName":"web","port":80,"configMode":"host","predicate":"web.example.com","cookie":"SID","containers":[{"id":"aaaaaaaaaaaa","ip":"10.0.0.1"}]},{"serviceName":"api","port":8080,"configMode":"path","predicate":"api /v2/a&b","containers":[{"id":"bbbbbbbbbbbb","ip":"10.0.0.2"}]}]}"#
        );
        assert!(config.contains("server aaaaaaaaaaaa 10.0.0.1:80 check cookie aaaaaaaaaaaa\n"));
        assert!(config.contains("url_beg /api /v2/a&b\n"), "{config}");
        assert!(config.ends_with('\n'));
        assert_accepted(&config);
    }

    #[test]
    fn a_wrong_answer_is_asked_for_once_more_without_running() {
        let mut less = payload();
        less.candidates.pop();
        let wrong = serde_json::to_string(&real_template(&less)).expect("a string");
        for first in [
            wrong.as_str(),
            r#"{"errorMessage":"TypeError: Cannot read property 'filter' of undefined"}"#,
        ] {
            let mut asked = payload();
            asked.running.push(Running {
                service_name: "web".to_owned(),
                id: "other-host".to_owned(),
                ip: "10.0.1.1".to_owned(),
            });
            let server = serve(vec![json("200 OK", first), Reply::Config]);
            let (answer, _) = ask(&server, &asked);
            let config = answer.expect("a config");
            assert!(
                config.contains("server other-host 10.0.1.1:80 check"),
                "{config}"
            );
            server.requests.recv().expect("the first request");
            let (_, second) = server.requests.recv().expect("the second request");
            let second: Payload = serde_json::from_str(&second).expect("a payload");
            assert_eq!(second.running, []);
            assert_eq!(second.candidates.len(), 2);
        }
        let server = serve(vec![json("200 OK", &wrong), json("200 OK", &wrong)]);
        let error = ask(&server, &payload()).0.expect_err("still wrong");
        assert!(
            error.to_string().contains("backend api is missing"),
            "{error}"
        );
    }

    #[test]
    fn faults_are_named_and_only_passing_ones_asked_again() {
        let cut = |body: &str| {
            Reply::Raw(
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999\r\n\r\n{body}")
                    .into_bytes(),
            )
        };
        let stays: Vec<(Reply, &str)> = vec![
            (json("200 OK", "{}"), "the answer is an object"),
            (json("403 Forbidden", r#"{"message":"Missing Authentication Token"}"#), "status 403: Missing Authentication Token"),
            (json("200 OK", r#"{"errorMessage":"ValidationError: x"}"#), "ValidationError: x"),
            (json("200 OK", "<html>Log in"), "HTML"),
            (json("200 OK", "\"hello\""), "no config"),
            (Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: http://u:p@portal/login?token=secret\r\nContent-Length: 0\r\n\r\n".to_vec()), "status 302: it redirects to http://portal/login"),
            (Reply::Raw(b"HTTP/1.1 308 Permanent\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n".to_vec()), "status 308"),
            (json("200 OK", &format!("\"global{}\"", " ".repeat(70_000))), "larger than 65536 bytes"),
        ];
        for (reply, words) in stays {
            let server = serve(vec![reply]);
            let (pause, waits) = noted();
            let settings = Settings {
                body_bytes_max: 65_536,
                ..Settings::new(&server.url)
            };
            let mut cosmos = Cosmos::new(&settings, pause).expect("good settings");
            let error = cosmos.config(&payload()).expect_err(words);
            assert!(error.to_string().contains(words), "{error}");
            assert!(!error.to_string().contains("secret"), "{error}");
            assert_eq!(
                *waits.lock().expect("no test panics here"),
                [0; 0],
                "{words}"
            );
        }
        let passing = vec![
            json("200 OK", "null"),
            json(
                "200 OK",
                r#"{"errorMessage":"ResourceNotFoundException: x"}"#,
            ),
            json(
                "200 OK",
                r#"{"errorMessage":"2026 Task timed out after 20.00 seconds"}"#,
            ),
            json("429 Too Many Requests", "{}"),
            json("503 Service Unavailable", "<html>"),
            cut("\"global"),
            Reply::Raw(Vec::new()),
            Reply::Config,
        ];
        let server = serve(passing);
        let (answer, waits) = ask(&server, &payload());
        assert!(answer.is_ok(), "{answer:?}");
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000, 8000, 8000]);
    }

    #[test]
    fn nobody_there_is_tried_until_the_time_is_up_and_a_stop_ends_it() {
        let closed = {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
            listener.local_addr().expect("an address")
        };
        let url = format!("http://user:hunter2@{closed}/api?key=hunter3");
        let (pause, waits) = noted();
        let mut cosmos = Cosmos::new(&Settings::new(&url), pause).expect("good settings");
        let error = cosmos.config(&payload()).expect_err("nobody listens");
        assert!(error.is(Kind::Unreachable), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "cannot get a config from Cosmos at http://{closed}/api: connection refused, after 10 tries in 0 s"
            )
        );
        assert_eq!(waits.lock().expect("no test panics here").len(), 9);
        let mut cosmos = Cosmos::new(&Settings::new(&url), Box::new(|_| false)).expect("good");
        let error = cosmos.config(&payload()).expect_err("stopped");
        assert!(error.cause().contains("stopped"), "{error}");
        assert!(!format!("{cosmos:?}{:?}", Settings::new(&url)).contains("hunter"));
    }

    #[test]
    fn headers_and_credentials_are_sent_but_never_shown() {
        let server = serve(vec![Reply::Config, Reply::Config]);
        let url = server.url.replace("http://", "http://ann:p%40ss@") + "/generate?x=1";
        let settings = Settings {
            headers: vec![("X-Api-Key".to_owned(), "hunter2".to_owned())],
            ..Settings::new(&url)
        };
        let mut cosmos = Cosmos::new(&settings, noted().0).expect("good settings");
        cosmos.config(&payload()).expect("a config");
        let (head, _) = server.requests.recv().expect("one request");
        let head = head.to_ascii_lowercase();
        assert!(head.starts_with("post /api/generate?x=1 "), "{head}");
        assert!(head.contains("x-api-key: hunter2\r\n"), "{head}");
        assert!(
            head.contains(&format!(
                "authorization: basic {}\r\n",
                base64("ann:p@ss").to_ascii_lowercase()
            )),
            "{head}"
        );
        let bad = Settings {
            headers: vec![("X-Key".to_owned(), "hunter2\nX-Evil: 1".to_owned())],
            ..Settings::new(&server.url)
        };
        let error = Cosmos::new(&bad, noted().0).expect_err("a line break");
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
        ] {
            assert_eq!(base64(text), encoded);
        }
    }

    #[test]
    fn a_config_that_starts_programs_is_refused_unless_trusted() {
        let text = real_template(&wire::complete(&payload())).replacen(
            "global\n",
            "global\n    lua-load /tmp/x.lua\n",
            1,
        );
        let text = serde_json::to_string(&text).expect("a string");
        let server = serve(vec![json("200 OK", &text), json("200 OK", &text)]);
        let (answer, _) = ask(&server, &payload());
        let error = answer.expect_err("lua");
        assert!(
            error
                .to_string()
                .contains("`lua-load /tmp/x.lua` (line 2): it loads code"),
            "{error}"
        );
        let trusted = Settings {
            trust: true,
            ..Settings::new(&server.url)
        };
        let mut cosmos = Cosmos::new(&trusted, noted().0).expect("good settings");
        assert!(
            cosmos
                .config(&payload())
                .expect("trusted")
                .contains("lua-load")
        );
    }

    #[test]
    fn urls_are_checked_before_anything_is_sent() {
        for (url, words) in [
            ("", "no http:// or https://"),
            ("cosmos.example.com", "no http:// or https://"),
            ("ftp://cosmos.example.com", "only http:// and https://"),
            ("http://", "not a URL"),
            ("http:// x", "not a URL"),
            ("user:hunter2@host/api", "no http:// or https://"),
        ] {
            let error = Cosmos::new(&Settings::new(url), noted().0).expect_err(url);
            assert!(error.to_string().contains(words), "{url}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[cfg(feature = "tls")]
    #[test]
    fn a_ca_file_must_hold_certificates() {
        let settings = |path: &str| Settings {
            ca: Some(PathBuf::from(path)),
            ..Settings::new("https://cosmos.example.com/api")
        };
        let missing = Cosmos::new(&settings("/nonexistent.pem"), noted().0).expect_err("missing");
        assert!(
            missing
                .to_string()
                .contains("cannot read the authorities in /nonexistent.pem")
        );
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        let none = Cosmos::new(&settings(manifest), noted().0).expect_err("no PEM");
        assert!(none.to_string().contains("holds no certificate"), "{none}");
    }

    /// A private authority counts besides the web's, and without it nothing is sent.
    #[cfg(feature = "tls")]
    #[test]
    fn a_private_authority_is_trusted_only_when_named() {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};

        use crate::registry::canned::serve_over;

        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/registry/tls");
        let chain = CertificateDer::from_pem_file(format!("{folder}/server.pem"));
        let key = PrivateKeyDer::from_pem_file(format!("{folder}/server.key"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![chain.expect("a certificate")], key.expect("a key"))
            .expect("they fit together");
        let config = Arc::new(config);
        let server = serve_over("https", vec![Reply::Config], move |stream| {
            let tls = rustls::ServerConnection::new(Arc::clone(&config)).expect("a connection");
            Box::new(rustls::StreamOwned::new(tls, stream))
        });
        let (answer, waits) = ask(&server, &payload());
        let error = answer.expect_err("nobody knows that authority");
        assert!(
            error.to_string().contains("its certificate is not trusted"),
            "{error}"
        );
        assert!(
            error
                .hint_text()
                .unwrap_or_default()
                .contains("--cosmos-ca"),
            "{error:?}"
        );
        assert_eq!(waits, [0; 0]);
        let settings = Settings {
            ca: Some(PathBuf::from(format!("{folder}/ca.pem"))),
            ..Settings::new(&server.url)
        };
        let mut cosmos = Cosmos::new(&settings, noted().0).expect("good settings");
        cosmos.config(&payload()).expect("a config over TLS");
        assert_eq!(server.requests.try_iter().count(), 1);
    }
}
