//! Does a registry's answer hold what was asked for? Pure.
//!
//! Two steps. [`decode`] turns the body of a response into the text of a config, or says what else
//! it is. [`missing`] compares the config with the payload: backends, servers (id, address, port),
//! rules, cookies, and their order where it decides. [`with_own_cookies`] is the one change that we
//! make to the text. Rules: what the real service's code was seen to answer.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;

use super::{Candidate, Instance, Mode, Payload};
use crate::config::{BACKEND_PREFIX, Config, Line, Section};
use crate::json;
use crate::order;
use crate::sorted::Map;

/// Longest piece of somebody else's words that we repeat, in bytes.
const WORDS_BYTES_MAX: usize = 300;

/// Error messages of the real service that go away by themselves.
const PASSING: &[&str] = &[
    "ResourceNotFoundException",
    "ResourceInUse",
    "Throughput",
    "Throttling",
    "Task timed out",
    "Process exited",
];

const CAPTIVE: &str = "a proxy or a login page of the network answers instead of Cosmos";

/// Why a response is no config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The service says that it failed. `passing`: worth asking again.
    Service {
        /// Its own words, on one line.
        words: String,
        /// Whether the cause goes away by itself.
        passing: bool,
    },
    /// A status other than 2xx.
    Status {
        /// The status code.
        status: u16,
        /// Its own words, on one line; may be empty.
        words: String,
    },
    /// 2xx with a JSON `null`: the handler ended without an answer.
    Null,
    /// Not JSON, or JSON cut short.
    NotJson {
        /// What it looks like, or the JSON error.
        what: String,
    },
    /// JSON, but no string.
    NotString {
        /// What it is instead.
        what: String,
    },
    /// 2xx with a content type that is not JSON's.
    ContentType {
        /// The content type.
        found: String,
        /// The beginning of the body.
        start: String,
    },
    /// A string that is no config.
    NotConfig {
        /// Its beginning.
        start: String,
    },
}

impl Fault {
    /// Whether asking again may help.
    pub fn is_passing(&self) -> bool {
        match self {
            Fault::Service { passing, .. } => *passing,
            Fault::Status { status, .. } => *status == 429 || *status >= 500,
            Fault::Null => true,
            Fault::NotJson { .. }
            | Fault::NotString { .. }
            | Fault::ContentType { .. }
            | Fault::NotConfig { .. } => false,
        }
    }

    /// The mend, where it can be guessed.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Fault::Status {
                status: 401 | 403, ..
            } => Some(
                "is the URL right, up to the stage (…/api)? an API key goes into --cosmos-header",
            ),
            Fault::Status { status: 404, .. } => {
                Some("is the URL right, up to the stage (…/api)? /generate is added to it")
            }
            Fault::Status {
                status: 300..=399, ..
            } => Some(
                "redirects are not followed: give the address that it redirects to as --cosmos-url",
            ),
            Fault::NotJson { what } if what.contains("HTML") => Some(CAPTIVE),
            Fault::ContentType { .. } => Some(CAPTIVE),
            Fault::Service { words, .. } if words.contains("ValidationError") => Some(
                "Cosmos refuses a value of one of the candidates; --log-level debug shows what it was asked",
            ),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Service { words, .. } => write!(f, "it failed: {words}"),
            Fault::Status { status, words } if words.is_empty() => {
                write!(f, "it answered with status {status}")
            }
            Fault::Status { status, words } => {
                write!(f, "it answered with status {status}: {words}")
            }
            Fault::Null => f.write_str("it answered null: the service ended without an answer"),
            Fault::NotJson { what } => write!(f, "the answer is not JSON: {what}"),
            Fault::NotString { what } => {
                write!(f, "the answer is {what}, not a JSON string with a config")
            }
            Fault::ContentType { found, start } => {
                write!(
                    f,
                    "the answer is {found} and not JSON: it begins with {start:?}"
                )
            }
            Fault::NotConfig { start } => {
                write!(
                    f,
                    "the answer is a string but no config: it begins with {start:?}"
                )
            }
        }
    }
}

/// The config in a response: entities undone in one pass, with a final newline.
///
/// # Errors
/// [`Fault`]: everything that is not 2xx with a JSON string that begins a config.
pub fn decode(status: u16, content_type: Option<&str>, body: &[u8]) -> Result<String, Fault> {
    if !(200..300).contains(&status) {
        return Err(Fault::Status {
            status,
            words: words_of(body),
        });
    }
    if let Some(found) = content_type
        && !found.to_ascii_lowercase().contains("json")
    {
        return Err(Fault::ContentType {
            found: one_line(found),
            start: one_line(&String::from_utf8_lossy(body)),
        });
    }
    let value: serde_json::Value = match json::read(body) {
        Ok(value) => value,
        Err(cause) => {
            let text = String::from_utf8_lossy(body);
            let what = if body.is_empty() {
                "it is empty".to_owned()
            } else if text.trim_start().starts_with('<') {
                format!("it is HTML or XML: {}", one_line(&text))
            } else if cause.is_eof() {
                format!("it is cut short after {} bytes", body.len())
            } else {
                format!("{cause}: {}", one_line(&text))
            };
            return Err(Fault::NotJson { what });
        }
    };
    let escaped = match value {
        serde_json::Value::String(escaped) => escaped,
        serde_json::Value::Null => return Err(Fault::Null),
        serde_json::Value::Object(object) => {
            let message = ["errorMessage", "message", "Message"]
                .into_iter()
                .find_map(|key| object.get(key)?.as_str());
            return Err(match message {
                Some(message) => Fault::Service {
                    words: one_line(message),
                    passing: PASSING.iter().any(|words| message.contains(words)),
                },
                None => Fault::NotString {
                    what: "an object".to_owned(),
                },
            });
        }
        serde_json::Value::Array(_) => {
            return Err(Fault::NotString {
                what: "an array".to_owned(),
            });
        }
        other => {
            return Err(Fault::NotString {
                what: format!("the value {}", one_line(&other.to_string())),
            });
        }
    };
    let mut config = unescaped(&escaped).into_owned();
    if !begins_config(&config) {
        return Err(Fault::NotConfig {
            start: one_line(&config),
        });
    }
    if !config.ends_with('\n') {
        config.push('\n');
    }
    Ok(config)
}

/// The service's own words in the body of an error: its message, or the beginning of the text.
fn words_of(body: &[u8]) -> String {
    let message = json::read::<serde_json::Value>(body)
        .ok()
        .and_then(|value| {
            ["message", "errorMessage", "Message"]
                .into_iter()
                .find_map(|key| value.get(key)?.as_str().map(one_line))
        });
    message.unwrap_or_else(|| one_line(&String::from_utf8_lossy(body)))
}

/// The first line, without control characters, cut to a length that fits a log.
pub fn one_line(text: &str) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default();
    let mut cut = String::new();
    for char in line.trim_end().chars() {
        if cut.len() + char.len_utf8() > WORDS_BYTES_MAX {
            cut.push('…');
            break;
        }
        cut.push(if char.is_control() { ' ' } else { char });
    }
    cut
}

/// A config begins, after comments, with a section; the real service's with `global`.
fn begins_config(text: &str) -> bool {
    let config = Config::parse(text);
    config.preamble().next().is_none() && config.sections().next().is_some()
}

/// Undoes the five entities of the service's template engine, each once.
pub fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('&') {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('&') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        let entity = [
            ("&amp;", '&'),
            ("&lt;", '<'),
            ("&gt;", '>'),
            ("&quot;", '"'),
            ("&#39;", '\''),
        ]
        .into_iter()
        .find(|(entity, _)| rest.starts_with(entity));
        let (length, char) = entity.map_or((1, '&'), |(entity, char)| (entity.len(), char));
        plain.push(char);
        rest = &rest[length..];
    }
    plain.push_str(rest);
    Cow::Owned(plain)
}

/// The config with a cookie value of its own on every server line: the server's name.
///
/// The real service gives all servers of a service the cookie's name as value, so every returning
/// client goes to the first one (seen 10 times of 10). Nothing else is touched.
pub fn with_own_cookies(text: String) -> String {
    let config = Config::parse(&text);
    let mut own = String::new();
    let mut from = 0;
    for section in config.backends() {
        for line in section.lines().filter(|line| line.keyword() == "server") {
            let Some(value) = cookie_value(&line) else {
                continue;
            };
            let name = line.word(1);
            if text[value.clone()] == *name {
                continue;
            }
            // `text` of a line is a slice of the whole text.
            own.push_str(&text[from..value.start]);
            own.push_str(name);
            from = value.end;
        }
    }
    if from == 0 {
        return text;
    }
    own.push_str(&text[from..]);
    own
}

/// Where the value of a server's `cookie` option stands in the whole text. The real service does not
/// quote; in a line where somebody does, words are not what blanks separate, and it is left as it is.
fn cookie_value(line: &Line<'_>) -> Option<std::ops::Range<usize>> {
    let text = line.text.split('#').next().unwrap_or_default();
    if text.contains(['\'', '"', '\\']) {
        return None;
    }
    let mut offset = 0;
    let mut words = text.split_ascii_whitespace().map(|word| {
        let at = text[offset..].find(word).unwrap_or(0) + offset;
        offset = at + word.len();
        (at, word)
    });
    words.by_ref().take(3).for_each(drop);
    words.find(|(_, word)| *word == "cookie")?;
    let (at, word) = words.next()?;
    Some(line.start + at..line.start + at + word.len())
}

/// How a rule recognises requests.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Pattern {
    Host(String),
    Path(String),
    Other(String),
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Host(host) => write!(f, "host {host}"),
            Pattern::Path(path) => write!(f, "path /{path}"),
            Pattern::Other(words) => write!(f, "{words}"),
        }
    }
}

/// What a config routes, in words that both registries' forms share.
struct Routes<'c> {
    /// Service and patterns, in the order of the rules.
    rules: Vec<(&'c str, Vec<Pattern>)>,
    backends: Map<&'c str, Vec<Section<'c>>>,
    /// Rules that are not one service's: a default backend, a condition of another shape.
    foreign: Vec<String>,
}

/// What the payload asks for and the config does not hold, or holds without being asked: one
/// sentence each, empty when all is right.
///
/// `trust`: additions of the operator's own Cosmos (backends, rules, a default backend) are fine.
pub fn missing(payload: &Payload, config: &Config<'_>, trust: bool) -> Vec<String> {
    let routes = Routes::of(config);
    let mut missing = Vec::new();
    let running = running_by_service(payload);
    let asked: HashMap<&str, &Candidate> = payload
        .candidates
        .iter()
        .map(|candidate| (candidate.service_name.as_str(), candidate))
        .collect();

    let mut ruled: HashMap<&str, Vec<&Pattern>> = HashMap::new();
    for (service, patterns) in &routes.rules {
        ruled.entry(service).or_default().extend(patterns);
    }
    for candidate in &payload.candidates {
        let name = candidate.service_name.as_str();
        match routes.backends.get(name).map(Vec::as_slice) {
            None | Some([]) => missing.push(format!("backend {name} is missing")),
            Some([backend]) => backend_faults(candidate, running.get(name), backend, &mut missing),
            Some(_) => missing.push(format!("backend {name} is there twice")),
        }
        let wanted: HashSet<Pattern> = wanted_patterns(candidate).collect();
        let found: HashSet<&Pattern> = ruled.get(name).into_iter().flatten().copied().collect();
        if found.is_empty() {
            missing.push(format!("the rule of {name} is missing"));
        } else if found.len() != wanted.len() || !found.iter().all(|one| wanted.contains(*one)) {
            let mut found: Vec<_> = found.iter().map(ToString::to_string).collect();
            order::sort(&mut found);
            missing.push(format!(
                "the rule of {name} matches {} instead of {}",
                found.join(", "),
                wanted_patterns(candidate)
                    .map(|pattern| pattern.to_string())
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
    }
    if !trust {
        for (name, backends) in routes.backends.iter() {
            if asked.contains_key(name) {
                continue;
            }
            // A stored service of which we said that it runs is what `running` is for.
            let alive = running.get(name);
            let all_run = backends
                .iter()
                .flat_map(Section::servers)
                .all(|server| alive.is_some_and(|alive| alive.contains_key(server.name)));
            if alive.is_none() || !all_run {
                missing.push(format!("backend {name} was not asked for"));
            }
        }
        missing.extend(routes.foreign.iter().cloned());
    }
    if missing.is_empty() {
        missing.extend(wrong_order(payload, &routes));
    }
    missing
}

/// A service as a config routes it, by either registry: what to ask for where nobody else knows it any more. `None`
/// when the config does not hold it, or not in one of our forms.
pub fn candidate_of(config: &Config<'_>, service: &str) -> Option<Candidate> {
    let routes = Routes::of(config);
    let mut mode = None;
    let mut words: Vec<&str> = Vec::new();
    let rules = routes.rules.iter().filter(|(name, _)| *name == service);
    for pattern in rules.flat_map(|(_, patterns)| patterns) {
        let (own, word) = match pattern {
            Pattern::Host(host) => (Mode::Host, host),
            Pattern::Path(path) => (Mode::Path, path),
            Pattern::Other(_) => return None,
        };
        if *mode.get_or_insert(own) != own {
            return None;
        }
        if !words.contains(&word.as_str()) {
            words.push(word);
        }
    }
    let [backend] = routes.backends.get(service)?.as_slice() else {
        return None;
    };
    let mut port = None;
    let mut containers = Vec::new();
    for server in backend.servers() {
        let (host, its_port) = server.address.rsplit_once(':')?;
        port = Some(its_port.parse().ok()?);
        containers.push(Instance {
            id: server.name.to_owned(),
            ip: host.trim_matches(['[', ']']).to_owned(),
        });
    }
    let cookie = backend.lines().find(|line| line.keyword() == "cookie");
    Some(Candidate {
        service_name: service.to_owned(),
        port: port?,
        config_mode: mode?,
        predicate: words.join(" "),
        cookie: cookie.map(|line| line.word(1).to_owned()),
        containers,
    })
}

fn running_by_service(payload: &Payload) -> HashMap<&str, HashMap<&str, &str>> {
    let mut running: HashMap<&str, HashMap<&str, &str>> = HashMap::new();
    for entry in &payload.running {
        running
            .entry(&entry.service_name)
            .or_default()
            .insert(&entry.id, &entry.ip);
    }
    running
}

fn wanted_patterns(candidate: &Candidate) -> impl Iterator<Item = Pattern> {
    candidate
        .patterns()
        .map(|pattern| match candidate.config_mode {
            Mode::Host => Pattern::Host(pattern.to_ascii_lowercase()),
            Mode::Path => Pattern::Path(pattern.trim_matches('/').to_owned()),
        })
}

/// Compares the servers and the cookie of one backend.
fn backend_faults(
    candidate: &Candidate,
    running: Option<&HashMap<&str, &str>>,
    backend: &Section<'_>,
    missing: &mut Vec<String>,
) {
    let name = candidate.service_name.as_str();
    let asked = candidate.cookie.as_deref().filter(|name| !name.is_empty());
    let mut wanted: Map<&str, &str> = Map::default();
    wanted.extend(running.into_iter().flatten().map(|(id, ip)| (*id, *ip)));
    for instance in &candidate.containers {
        wanted.insert(&instance.id, &instance.ip);
    }
    let mut found = HashSet::new();
    for server in backend.servers() {
        match wanted.get(server.name) {
            _ if !found.insert(server.name) => {
                missing.push(format!("server {} of {name} is there twice", server.name));
            }
            None => missing.push(format!(
                "server {} of {name} was not asked for",
                server.name
            )),
            Some(ip) if !is_address(server.address, ip, candidate.port) => {
                missing.push(format!(
                    "server {} of {name} has address {} instead of {ip} port {}",
                    server.name, server.address, candidate.port
                ));
            }
            Some(_) if server.option("cookie").is_some() != asked.is_some() => {
                missing.push(format!(
                    "server {} of {name} has the wrong cookie",
                    server.name
                ));
            }
            Some(_) => {}
        }
    }
    for id in wanted.keys().filter(|id| !found.contains(*id)) {
        missing.push(format!("server {id} of {name} is missing"));
    }
    let cookie = backend
        .lines()
        .find(|line| line.keyword() == "cookie")
        .map(|line| line.word(1));
    if cookie != asked {
        missing.push(format!(
            "backend {name} has {} instead of {}",
            cookie_words(cookie),
            cookie_words(asked)
        ));
    }
}

fn cookie_words(cookie: Option<&str>) -> String {
    cookie.map_or_else(|| "no cookie".to_owned(), |name| format!("cookie {name}"))
}

/// Whether a server's address is this one; IPv6 with or without brackets, HAProxy reads both.
fn is_address(address: &str, ip: &str, port: u16) -> bool {
    let Some((host, found)) = address.rsplit_once(':') else {
        return false;
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    found == port.to_string() && host == ip
}

impl<'c> Routes<'c> {
    fn of(config: &'c Config<'_>) -> Routes<'c> {
        let mut routes = Routes {
            rules: Vec::new(),
            backends: Map::default(),
            foreign: Vec::new(),
        };
        let mut backends = Vec::new();
        let plain = plain_backends(config);
        for section in config.sections() {
            match section.keyword() {
                "backend" => backends.push((service_of(section.name(), &plain), section)),
                "frontend" | "listen" => routes.add_rules(&section, &plain),
                _ => {}
            }
        }
        // Somebody else's text may name thousands in any order: they are sorted once.
        order::sort_by(&mut backends, |(one, _), (other, _)| one.cmp(other));
        let mut grouped: Vec<(&str, Vec<Section<'_>>)> = Vec::new();
        for (service, section) in backends {
            match grouped.last_mut() {
                Some((last, sections)) if *last == service => sections.push(section),
                _ => grouped.push((service, vec![section])),
            }
        }
        routes.backends.extend(grouped);
        routes
    }

    fn add_rules(&mut self, frontend: &Section<'c>, plain: &HashSet<&str>) {
        let mut acls: HashMap<&str, Vec<Line<'c>>> = HashMap::new();
        for line in frontend.lines().filter(|line| line.keyword() == "acl") {
            acls.entry(line.word(1)).or_default().push(line);
        }
        for line in frontend.lines() {
            let by_one_acl = match line.keyword() {
                "use_backend" => line.word(2) == "if" && line.words.len() == 4,
                "default_backend" => false,
                _ => continue,
            };
            // A name without a line is one of HAProxy's own, such as TRUE.
            match acls.get(line.word(3)).filter(|_| by_one_acl) {
                Some(acl) => {
                    let patterns = acl.iter().flat_map(patterns_of).collect();
                    self.rules.push((service_of(line.word(1), plain), patterns));
                }
                None => self
                    .foreign
                    .push(format!("rule `{}` was not asked for", one_line(line.text))),
            }
        }
    }
}

/// The backends whose rule has an acl of their own name: that is Cosmos's form, in which they have the service's name.
fn plain_backends<'c>(config: &'c Config<'_>) -> HashSet<&'c str> {
    let lines = config.lines();
    let rules = lines.filter(|line| line.keyword() == "use_backend");
    rules
        .filter(|line| line.word(1) == line.word(3))
        .map(|line| line.word(1))
        .collect()
}

/// The service behind a backend's name, in either registry's form.
fn service_of<'c>(backend: &'c str, plain: &HashSet<&str>) -> &'c str {
    match backend.strip_prefix(BACKEND_PREFIX) {
        Some(service) if !plain.contains(backend) => service,
        _ => backend,
    }
}

/// What one acl line matches.
fn patterns_of(line: &Line<'_>) -> Vec<Pattern> {
    let criterion = line.word(2).to_ascii_lowercase();
    let fetch = criterion.strip_prefix("req.").unwrap_or(&criterion);
    let mut method = None;
    let mut words = line.words.iter().skip(3).map(AsRef::as_ref).peekable();
    while let Some(flag) = words.next_if(|word| word.starts_with('-')) {
        match flag {
            "-m" => method = words.next(),
            "--" => break,
            _ => {}
        }
    }
    let host = fetch.starts_with("hdr(host)") || fetch.starts_with("hdr_end(host)");
    let path = matches!(fetch, "path" | "path_beg" | "url_beg" | "path_dir");
    let end = method.map_or(fetch.starts_with("hdr_end(host)"), |method| method == "end");
    // Others match more than the words say, as `hdr_sub` and `path_reg` do.
    let other = match method {
        None | Some("str") => false,
        Some("end") => !host,
        Some("beg" | "dir") => !path,
        Some(_) => true,
    };
    if words.peek().is_none() {
        // One of several lines of a name would do, so one such as `always_true` is not to be passed over.
        return vec![Pattern::Other(criterion)];
    }
    words
        .map(|word| {
            if other {
                let method = method.unwrap_or_default();
                Pattern::Other(format!("{criterion} -m {method} {word}"))
            } else if host && end {
                Pattern::Host(format!("*{}", word.to_ascii_lowercase()))
            } else if host {
                Pattern::Host(word.to_ascii_lowercase())
            } else if path {
                match word.strip_prefix('/') {
                    Some(path) => Pattern::Path(path.trim_end_matches('/').to_owned()),
                    None => Pattern::Other(format!("{criterion} {word}")),
                }
            } else {
                Pattern::Other(format!("{criterion} {word}"))
            }
        })
        .collect()
}

/// Rules that could both match one request must stand in the payload's order: the first wins.
///
/// Host rules overlap with path rules and with rules of the same host; a path rule with those whose
/// path is the beginning of its own.
fn wrong_order(payload: &Payload, routes: &Routes<'_>) -> Option<String> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    // The built-in registry has a rule of its own for each wildcard of a service.
    let mut of_hosts: HashMap<(&str, &Pattern), usize> = HashMap::new();
    for (place, (service, patterns)) in routes.rules.iter().enumerate() {
        places.entry(service).or_insert(place);
        for pattern in patterns {
            of_hosts.entry((service, pattern)).or_insert(place);
        }
    }
    let mut last_host: Option<(usize, &str)> = None;
    let mut hosts: HashMap<Pattern, (usize, &str)> = HashMap::new();
    let mut paths: Vec<(String, usize, usize, &str)> = Vec::new();
    for (asked, candidate) in payload.candidates.iter().enumerate() {
        let name = candidate.service_name.as_str();
        let place = *places.get(name)?;
        let behind =
            |other: &str| Some(format!("the rule of {name} stands before that of {other}"));
        match candidate.config_mode {
            Mode::Host => {
                if last_host.is_none_or(|(last, _)| place > last) {
                    last_host = Some((place, name));
                }
                for pattern in wanted_patterns(candidate) {
                    let place = *of_hosts.get(&(name, &pattern))?;
                    let (first, other) = *hosts.entry(pattern).or_insert((place, name));
                    if first > place {
                        return behind(other);
                    }
                }
            }
            Mode::Path => {
                if let Some((last, other)) = last_host
                    && place < last
                {
                    return behind(other);
                }
                for path in candidate.patterns() {
                    paths.push((path.trim_matches('/').to_owned(), asked, place, name));
                }
            }
        }
    }
    order::sort(&mut paths);
    let mut outer: Vec<&(String, usize, usize, &str)> = Vec::new();
    for path in &paths {
        while outer
            .last()
            .is_some_and(|last| !path.0.starts_with(&last.0))
        {
            outer.pop();
        }
        for other in &outer {
            let (first, second) = if path.1 < other.1 {
                (path, *other)
            } else {
                (*other, path)
            };
            if first.2 > second.2 {
                return Some(format!(
                    "the rule of {} stands before that of {}",
                    second.3, first.3
                ));
            }
        }
        outer.push(path);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::expected::assert_file;
    use crate::registry::template::Base;
    use crate::registry::{embedded, template};

    const PAYLOAD: &str = r#"{"table":"t",
        "running":[{"serviceName":"web","id":"aaaaaaaaaaaa","ip":"10.0.0.1"},
                   {"serviceName":"old","id":"eeeeeeeeeeee","ip":"10.0.0.9"}],
        "candidates":[
        {"serviceName":"web","port":80,"configMode":"host","predicate":"web.example.com www.example.com","cookie":"SID",
         "containers":[{"id":"aaaaaaaaaaaa","ip":"10.0.0.1"},{"id":"bbbbbbbbbbbb","ip":"fd00::2"}]},
        {"serviceName":"v2","port":8080,"configMode":"path","predicate":"api/v2",
         "containers":[{"id":"cccccccccccc","ip":"10.0.0.3"}]},
        {"serviceName":"api","port":8080,"configMode":"path","predicate":"api",
         "containers":[{"id":"dddddddddddd","ip":"10.0.0.4"}]}]}"#;

    const RIGHT: &str = "\
global
    daemon
frontend http
    bind :80
    acl web hdr(host) -i web.example.com www.example.com
    use_backend web if web
    acl v2 url_beg /api/v2
    use_backend v2 if v2
    acl api url_beg /api
    use_backend api if api
backend web
    cookie SID prefix nocache
    server aaaaaaaaaaaa 10.0.0.1:80 check cookie SID
    server bbbbbbbbbbbb fd00::2:80 check cookie SID
backend v2
    server cccccccccccc 10.0.0.3:8080 check
backend api
    server dddddddddddd 10.0.0.4:8080 check
";

    fn payload() -> Payload {
        serde_json::from_str(PAYLOAD).expect("a payload")
    }

    fn faults(text: &str) -> Vec<String> {
        missing(&payload(), &Config::parse(text), false)
    }

    #[test]
    fn the_right_answer_lacks_nothing() {
        assert_eq!(faults(RIGHT), [""; 0]);
        let bracketed = RIGHT.replace("fd00::2:80", "[fd00::2]:80");
        assert_eq!(faults(&bracketed), [""; 0]);
        // A stored service that we said is running is no surprise.
        let stored = RIGHT.replace(
            "    acl web hdr",
            "    acl old hdr(host) -i old.example.com\n    use_backend old if old\n    acl web hdr",
        ) + "backend old\n    server eeeeeeeeeeee 10.0.0.9:80 check\n";
        assert_eq!(faults(&stored), [""; 0]);
    }

    #[test]
    fn a_service_may_have_the_prefix_of_the_other_registrys_backends() {
        let mut asked = payload();
        let name = |name: &mut String| {
            if name == "v2" {
                *name = "be_v2".to_owned();
            }
        };
        asked
            .candidates
            .iter_mut()
            .for_each(|one| name(&mut one.service_name));
        asked
            .running
            .iter_mut()
            .for_each(|one| name(&mut one.service_name));
        let text = RIGHT
            .replace("acl v2 ", "acl be_v2 ")
            .replace("use_backend v2 if v2", "use_backend be_v2 if be_v2")
            .replace("backend v2\n", "backend be_v2\n");
        let config = Config::parse(&text);
        assert_eq!(missing(&asked, &config, false), [""; 0]);
        let candidate = candidate_of(&config, "be_v2").expect("it is there");
        assert!(asked.candidates.contains(&candidate), "{candidate:?}");
    }

    #[test]
    fn a_config_of_either_form_tells_what_was_asked_for() {
        let (nothing, asked) = (embedded::State::default(), payload());
        let merged = embedded::merge(&nothing, &asked);
        let base = Base::built_in(None).expect("the built-in base");
        let built_in = template::render(&base, &merged.services).text;
        for text in [RIGHT, &built_in] {
            let config = Config::parse(text);
            for candidate in payload().candidates {
                let name = candidate.service_name.clone();
                assert_eq!(candidate_of(&config, &name), Some(candidate), "{text}");
            }
            assert_eq!(candidate_of(&config, "nobody"), None);
        }
        let foreign = RIGHT.replace("hdr(host) -i web", "src 10.0.0.0/8 web");
        assert_eq!(candidate_of(&Config::parse(&foreign), "web"), None);
    }

    #[test]
    fn every_difference_is_named() {
        let cases: &[(&str, &str, &str)] = &[
            (
                "    server bbbbbbbbbbbb fd00::2:80 check cookie SID\n",
                "",
                "server bbbbbbbbbbbb of web is missing",
            ),
            (
                "10.0.0.1:80",
                "10.0.0.5:80",
                "server aaaaaaaaaaaa of web has address 10.0.0.5:80 instead of 10.0.0.1 port 80",
            ),
            (
                "10.0.0.3:8080",
                "10.0.0.3:80",
                "server cccccccccccc of v2 has address 10.0.0.3:80 instead of 10.0.0.3 port 8080",
            ),
            (
                "    acl web hdr(host) -i web.example.com www.example.com\n",
                "",
                "the rule of web is missing",
            ),
            (
                "    use_backend v2 if v2\n",
                "",
                "the rule of v2 is missing",
            ),
            (
                "web.example.com www",
                "web.example.org www",
                "the rule of web matches host web.example.org, host www.example.com instead of host web.example.com, host www.example.com",
            ),
            (
                "-i web.example.com www.example.com",
                "-i www.example.com",
                "the rule of web matches host www.example.com instead of host web.example.com, host www.example.com",
            ),
            (
                "v2 url_beg /api/v2",
                "v2 hdr(host) -i api/v2",
                "the rule of v2 matches host api/v2 instead of path /api/v2",
            ),
            (
                "v2 url_beg /api/v2",
                "v2 url_beg //api/v2",
                "the rule of v2 matches path //api/v2 instead of path /api/v2",
            ),
            (
                "v2 url_beg /api/v2",
                "v2 always_true",
                "the rule of v2 matches always_true instead of path /api/v2",
            ),
            (
                "    acl v2 url_beg",
                "    acl v2 always_true\n    acl v2 url_beg",
                "the rule of v2 matches always_true, path /api/v2 instead of path /api/v2",
            ),
            (
                "v2 url_beg /api/v2",
                "v2 path -m sub /api/v2",
                "the rule of v2 matches path -m sub /api/v2 instead of path /api/v2",
            ),
            (
                "hdr(host) -i web.example.com www",
                "hdr(host) -i -m beg web.example.com www",
                "the rule of web matches hdr(host) -m beg web.example.com, hdr(host) -m beg www.example.com instead of host web.example.com, host www.example.com",
            ),
            ("backend api\n", "backend apx\n", "backend api is missing"),
            (
                "backend v2\n",
                "backend more\n    server x 10.9.9.9:80\nbackend v2\n",
                "backend more was not asked for",
            ),
            (
                "backend v2\n",
                "backend old\n    server x 10.9.9.9:80\nbackend v2\n",
                "backend old was not asked for",
            ),
            (
                "backend v2\n",
                "backend web\nbackend v2\n",
                "backend web is there twice",
            ),
            (
                "    server cccccccccccc",
                "    server x 10.9.9.9:80\n    server cccccccccccc",
                "server x of v2 was not asked for",
            ),
            (
                "    server cccccccccccc",
                "    server cccccccccccc 10.0.0.3:8080\n    server cccccccccccc",
                "server cccccccccccc of v2 is there twice",
            ),
            (
                "    cookie SID prefix nocache\n",
                "",
                "backend web has no cookie instead of cookie SID",
            ),
            (
                "cookie SID prefix",
                "cookie OLD prefix",
                "backend web has cookie OLD instead of cookie SID",
            ),
            (
                "10.0.0.1:80 check cookie SID",
                "10.0.0.1:80 check",
                "server aaaaaaaaaaaa of web has the wrong cookie",
            ),
            (
                "    bind :80\n",
                "    bind :80\n    default_backend web\n",
                "rule `    default_backend web` was not asked for",
            ),
            (
                "    bind :80\n",
                "    bind :80\n    use_backend web if { path_beg /x }\n",
                "rule `    use_backend web if { path_beg /x }` was not asked for",
            ),
            (
                "    bind :80\n",
                "    bind :80\n    use_backend web if TRUE\n",
                "rule `    use_backend web if TRUE` was not asked for",
            ),
        ];
        for (from, to, expected) in cases {
            assert!(RIGHT.contains(from), "{from}");
            let found = faults(&RIGHT.replacen(from, to, 1));
            let expected = expected.replace("`    ", "`");
            assert!(
                found.contains(&expected),
                "{to:?}: {found:?} lacks {expected:?}"
            );
        }
        assert!(!faults("global\n").is_empty());
    }

    #[test]
    fn order_counts_only_where_two_rules_can_match_one_request() {
        let rule = |name: &str, acl: &str| {
            format!("    acl {name} {acl}\n    use_backend {name} if {name}\n")
        };
        let web = rule("web", "hdr(host) -i web.example.com www.example.com");
        let v2 = rule("v2", "url_beg /api/v2");
        let api = rule("api", "url_beg /api");
        let with = |rules: [&str; 3]| {
            let (head, rest) = RIGHT.split_once(&web).expect("the rules are there");
            let (_, tail) = rest.split_once(&api).expect("the rules are there");
            faults(&format!("{head}{}{tail}", rules.concat()))
        };
        assert_eq!(with([&web, &v2, &api]), [""; 0]);
        assert_eq!(
            with([&web, &api, &v2]),
            ["the rule of api stands before that of v2"]
        );
        assert_eq!(
            with([&v2, &web, &api]),
            ["the rule of v2 stands before that of web"]
        );
    }

    #[test]
    fn a_trusted_cosmos_may_add() {
        let more = RIGHT.replace("    bind :80\n", "    bind :80\n    default_backend page\n")
            + "backend page\n    server s 10.9.9.9:80\n";
        assert_eq!(missing(&payload(), &Config::parse(&more), true), [""; 0]);
        let less = more.replace("    server cccccccccccc 10.0.0.3:8080 check\n", "");
        assert_eq!(missing(&payload(), &Config::parse(&less), true).len(), 1);
    }

    #[test]
    fn cookies_get_a_value_of_their_own_and_nothing_else_changes() {
        let own = with_own_cookies(RIGHT.to_owned());
        let expected = RIGHT
            .replace(
                "10.0.0.1:80 check cookie SID",
                "10.0.0.1:80 check cookie aaaaaaaaaaaa",
            )
            .replace(
                "fd00::2:80 check cookie SID",
                "fd00::2:80 check cookie bbbbbbbbbbbb",
            );
        assert_eq!(own, expected);
        assert_eq!(with_own_cookies(own.clone()), own);
        let odd = "backend cookie\n    server cookie 10.0.0.1:80 check  cookie\tcookie weight 5 # cookie x\n";
        assert_eq!(with_own_cookies(odd.to_owned()), odd);
        let odd = "backend b\n    server cookie 10.0.0.1:80 check  cookie\tSID weight 5 # cookie x";
        assert_eq!(
            with_own_cookies(odd.to_owned()),
            odd.replace("SID", "cookie")
        );
    }

    #[test]
    fn entities_are_undone_once() {
        for (escaped, plain) in [
            ("a&amp;b", "a&b"),
            ("&amp;lt;", "&lt;"),
            ("&lt;&gt;&quot;&#39;", "<>\"'"),
            ("&", "&"),
            ("&am", "&am"),
            ("&nbsp;&#40;é&", "&nbsp;&#40;é&"),
        ] {
            assert_eq!(unescaped(escaped), plain);
        }
    }

    #[test]
    fn what_is_no_config_is_named() {
        let json = Some("application/json");
        let cases: &[(u16, Option<&str>, &str, &str, bool)] = &[
            (200, json, "null", "it answered null", true),
            (200, json, "", "the answer is not JSON: it is empty", false),
            (
                200,
                json,
                "\"global\\n    da",
                "it is cut short after 15 bytes",
                false,
            ),
            (200, json, "{}", "the answer is an object, not", false),
            (200, json, "[]", "the answer is an array, not", false),
            (200, json, "42", "the answer is the value 42, not", false),
            (200, json, "\"\"", "a string but no config", false),
            (200, json, "\"hello\"", "begins with \"hello\"", false),
            (
                200,
                json,
                "\"Error: x\\n at y\"",
                "begins with \"Error: x\"",
                false,
            ),
            (
                200,
                json,
                "<html><title>Log in</title>",
                "it is HTML or XML: <html><title>Log in",
                false,
            ),
            (
                200,
                Some("text/html"),
                "<html>",
                "the answer is text/html and not JSON",
                false,
            ),
            (
                200,
                Some("text/html"),
                "\"global\\n\"",
                "the answer is text/html and not JSON",
                false,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"ValidationError: \"cookie\" is not allowed\n    at x"}"#,
                "it failed: ValidationError: \"cookie\" is not allowed",
                false,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"TypeError: Cannot read"}"#,
                "it failed: TypeError: Cannot read",
                false,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"ResourceNotFoundException: x"}"#,
                "ResourceNotFoundException",
                true,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"ResourceInUseException: x"}"#,
                "ResourceInUse",
                true,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"ProvisionedThroughputExceededException"}"#,
                "Throughput",
                true,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"ThrottlingException"}"#,
                "Throttling",
                true,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"2026 id Task timed out after 20.00 seconds"}"#,
                "Task timed out",
                true,
            ),
            (
                200,
                json,
                r#"{"errorMessage":"RequestId: x Process exited before completing"}"#,
                "Process exited",
                true,
            ),
            (
                403,
                json,
                r#"{"message":"Missing Authentication Token"}"#,
                "status 403: Missing Authentication Token",
                false,
            ),
            (404, None, "", "it answered with status 404", false),
            (
                429,
                json,
                r#"{"message":"Too Many Requests"}"#,
                "status 429: Too Many Requests",
                true,
            ),
            (500, json, "oops", "status 500: oops", true),
            (502, None, "", "status 502", true),
            (
                504,
                json,
                r#"{"message":"Endpoint request timed out"}"#,
                "status 504: Endpoint request timed out",
                true,
            ),
            (301, None, "", "status 301", false),
        ];
        for (status, content_type, body, words, passing) in cases {
            let fault = decode(*status, *content_type, body.as_bytes()).expect_err(body);
            assert!(fault.to_string().contains(words), "{body}: {fault}");
            assert_eq!(fault.is_passing(), *passing, "{body}");
        }
        let good = decode(
            200,
            Some("application/json; charset=utf-8"),
            b"\"global\\n    maxconn 5\"",
        );
        assert_eq!(good.as_deref(), Ok("global\n    maxconn 5\n"));
        // Every cut of a good answer is noticed.
        let body = serde_json::to_vec(RIGHT).expect("a string");
        for cut in 0..body.len() {
            assert!(decode(200, None, &body[..cut]).is_err(), "{cut}");
        }
    }

    /// Real requests and answers: what each answer lacks, and that the built-in registry lacks
    /// nothing for the same payloads.
    #[test]
    fn real_answers_are_judged_and_the_built_in_registry_is_right() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/registry/cosmos");
        let mut files: Vec<_> = std::fs::read_dir(folder)
            .expect("the fixtures are there")
            .map(|entry| entry.expect("a file").path())
            .collect();
        files.sort();
        let base = Base::built_in(None).expect("the built-in base is good");
        let mut report = String::new();
        let mut text = |line: String| {
            report.push_str(&line);
            report.push('\n');
        };
        for file in files {
            let bytes = std::fs::read(&file).expect("a fixture");
            let fixture: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
            text(format!(
                "# {}",
                fixture["name"].as_str().unwrap_or_default()
            ));
            let mut state = embedded::State::default();
            for step in fixture["steps"].as_array().into_iter().flatten() {
                text(format!("## {}", step["note"].as_str().unwrap_or_default()));
                let Ok(payload) =
                    serde_json::from_value::<Payload>(step["request"]["json"].clone())
                else {
                    text("not a payload that we would send".to_owned());
                    continue;
                };
                let status = u16::try_from(step["status"].as_u64().unwrap_or(0)).unwrap_or(0);
                let body = step["response"].as_str().unwrap_or_default();
                match decode(status, step["contentType"].as_str(), body.as_bytes()) {
                    Err(fault) => text(format!("cosmos: {fault}")),
                    Ok(config) => {
                        let lacks = missing(&payload, &Config::parse(&config), false);
                        if lacks.is_empty() {
                            text("cosmos: right".to_owned());
                        }
                        for words in lacks {
                            text(format!("cosmos: {words}"));
                        }
                    }
                }
                let merged = embedded::merge(&state, &payload);
                let rendered = template::render(&base, &merged.services);
                for left_out in merged.left_out.iter().chain(&rendered.left_out) {
                    text(format!(
                        "built-in: leaves out {}: {}",
                        left_out.service, left_out.why
                    ));
                }
                let lacks = missing(&payload, &Config::parse(&rendered.text), false);
                if lacks.is_empty() {
                    text("built-in: right".to_owned());
                }
                for words in lacks {
                    text(format!("built-in: {words}"));
                }
                state = merged.state.remembered();
                text(format!(
                    "built-in keeps: {}",
                    state
                        .services
                        .iter()
                        .map(|s| format!("{} {}", s.service_name, s.containers.len()))
                        .collect::<Vec<_>>()
                        .join(", ")
                ));
            }
        }
        assert_file("replays.txt", &report);
    }
}
