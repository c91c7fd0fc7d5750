//! What a container says of itself: environment variables and labels -> a checked [`Description`],
//! or the one variable that is wrong and what would be right.
//!
//! Pure. It is the only gate between text that anybody who can start a container may write and
//! haproxy.cfg, so every value is matched against a grammar that has no blank, quote, control or
//! other character that HAProxy gives a meaning to. Env and labels cannot change during a container's
//! life, so a description is read once.
//!
//! The grammar is the one measured against HAProxy 2.4 to 3.4: names that no version refuses,
//! predicates that are values and never expressions.

use std::fmt;

use crate::registry::Mode;

/// Longest SERVICE_NAME, in bytes: with the prefixes `be_` and `is_` it stays readable in HAProxy's logs.
const SERVICE_NAME_BYTES_MAX: usize = 63;
/// Most patterns in one PREDICATE: HAProxy takes 64 words on a line, an `acl` needs four of them.
const PATTERNS_MAX: usize = 50;
/// Longest host name, in bytes (RFC 1035, 2.3.4).
const HOST_BYTES_MAX: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035, 2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Longest path prefix, in bytes: far below HAProxy's request line buffer, far above real prefixes.
const PATH_BYTES_MAX: usize = 1024;
/// Longest COOKIE, in bytes.
const COOKIE_BYTES_MAX: usize = 64;
/// Longest part of a wrong value that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// Labels of ours start with this.
pub const LABEL_PREFIX: &str = "cosmonaut.";

/// One thing that a container can say, as an environment variable or as a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    ServiceName,
    Predicate,
    ConfigMode,
    Port,
    Cookie,
}

/// Every setting with its variable and its label.
const SETTINGS: [(Setting, &str, &str); 5] = [
    (
        Setting::ServiceName,
        "SERVICE_NAME",
        "cosmonaut.service-name",
    ),
    (Setting::Predicate, "PREDICATE", "cosmonaut.predicate"),
    (Setting::ConfigMode, "CONFIG_MODE", "cosmonaut.config-mode"),
    (Setting::Port, "PORT", "cosmonaut.port"),
    (Setting::Cookie, "COOKIE", "cosmonaut.cookie"),
];

/// The label that leaves a container out.
const ENABLE_LABEL: &str = "cosmonaut.enable";

/// A container's valid account of the service it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// SERVICE_NAME.
    pub service: Box<str>,
    /// CONFIG_MODE; host when not given.
    pub mode: Mode,
    /// PREDICATE, its patterns joined by one blank: host names in lower case, or path prefixes without the
    /// slashes around them. Never empty, no pattern twice.
    pub predicate: Box<str>,
    /// PORT; `None` when not given: the only exposed TCP port, else 80.
    pub port: Option<u16>,
    /// COOKIE; `None` means not sticky.
    pub cookie: Option<Box<str>>,
}

/// Why a description cannot be used: which variable, its value, what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The variable or label as the container spells it.
    pub variable: String,
    /// Its value, `None` when it is missing.
    pub value: Option<String>,
    /// What is wrong and what would be right.
    pub want: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={}: {}", self.variable, shown(value), self.want),
            None => write!(f, "{} is missing: {}", self.variable, self.want),
        }
    }
}

/// What a container's environment and labels came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// A valid description.
    Service(Description),
    /// It names no service. The problem says so, with a hint when a variable looks like a typo.
    NoService(Box<Problem>),
    /// The label `cosmonaut.enable=false` leaves it out.
    Disabled,
    /// One variable is wrong.
    Bad(Box<Problem>),
}

/// A value with the name under which the container gave it.
struct Given<'a> {
    name: &'a str,
    value: &'a str,
}

/// One setting as a container says it, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// The variable that stands for the setting, `SERVICE_NAME` and so on, or the label that leaves out.
    pub setting: &'static str,
    /// The variable or label that was given.
    pub by: String,
    /// Whether it is a label.
    pub label: bool,
    /// Its value as given; it may hold anything.
    pub value: String,
    /// Another value that it beats: a variable's beside a label.
    pub beats: Option<String>,
}

/// What a container says of itself, setting by setting, with the variable or label that it says it by.
pub fn said(env: &[(String, String)], labels: &[(String, String)]) -> Vec<Said> {
    let settings = SETTINGS.iter().filter_map(|(setting, variable, label)| {
        let given = given(*setting, env, labels)?;
        let is_label = given.name == *label;
        let beaten = env
            .iter()
            .rev()
            .find(|(key, _)| is_label && key == variable);
        Some(Said {
            setting: variable,
            by: given.name.to_owned(),
            label: is_label,
            value: given.value.to_owned(),
            beats: beaten.map(|(_, value)| value.clone()),
        })
    });
    let enable = labels.iter().rev().find(|(key, _)| key == ENABLE_LABEL);
    let enable = enable.map(|(key, value)| Said {
        setting: ENABLE_LABEL,
        by: key.clone(),
        label: true,
        value: value.clone(),
        beats: None,
    });
    settings.chain(enable).collect()
}

/// Reads a container's environment (`KEY=value` already split, in Docker's order) and labels.
///
/// Labels override variables, the last duplicate of a variable wins, as inside the container.
pub fn read(env: &[(String, String)], labels: &[(String, String)]) -> Reading {
    match enabled(labels) {
        Ok(true) => {}
        Ok(false) => return Reading::Disabled,
        Err(problem) => return Reading::Bad(problem.into()),
    }
    let Some(service) = given(Setting::ServiceName, env, labels) else {
        return Reading::NoService(missing(Setting::ServiceName, env, labels).into());
    };
    match describe(&service, env, labels) {
        Ok(description) => Reading::Service(description),
        Err(problem) => Reading::Bad(problem.into()),
    }
}

fn describe(
    service: &Given<'_>,
    env: &[(String, String)],
    labels: &[(String, String)],
) -> Result<Description, Problem> {
    let name = service.checked(service_name)?;
    let mode = match given(Setting::ConfigMode, env, labels) {
        Some(given) => given.checked(config_mode)?,
        None => Mode::Host,
    };
    let predicate = match given(Setting::Predicate, env, labels) {
        Some(given) => given.checked(|value| predicate(mode, value))?,
        None => return Err(missing(Setting::Predicate, env, labels)),
    };
    let port = match given(Setting::Port, env, labels) {
        Some(given) => Some(given.checked(port)?),
        None => None,
    };
    let cookie = match given(Setting::Cookie, env, labels) {
        Some(given) if !given.value.is_empty() => Some(given.checked(cookie)?),
        _ => None,
    };
    Ok(Description {
        service: name,
        mode,
        predicate,
        port,
        cookie,
    })
}

impl Given<'_> {
    fn checked<T>(&self, check: impl FnOnce(&str) -> Result<T, String>) -> Result<T, Problem> {
        let wrong = |want| Problem {
            variable: self.name.to_owned(),
            value: Some(self.value.to_owned()),
            want,
        };
        if let Some(found) = self.value.chars().find(|c| c.is_control()) {
            return Err(wrong(format!(
                "it holds the control character {found:?}; remove it"
            )));
        }
        check(self.value).map_err(wrong)
    }
}

fn given<'a>(
    setting: Setting,
    env: &'a [(String, String)],
    labels: &'a [(String, String)],
) -> Option<Given<'a>> {
    let (_, variable, label) = SETTINGS.iter().find(|(known, ..)| *known == setting)?;
    let last = |all: &'a [(String, String)], wanted: &str| {
        all.iter()
            .rev()
            .find(|(key, _)| key == wanted)
            .map(|(key, value)| Given { name: key, value })
    };
    last(labels, label).or_else(|| last(env, variable))
}

fn enabled(labels: &[(String, String)]) -> Result<bool, Problem> {
    let Some((_, value)) = labels.iter().rev().find(|(key, _)| key == ENABLE_LABEL) else {
        return Ok(true);
    };
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" | "" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Problem {
            variable: ENABLE_LABEL.to_owned(),
            value: Some(value.clone()),
            want: "want true or false".to_owned(),
        }),
    }
}

/// The problem of a setting that is not there, with a hint if something there looks like it.
fn missing(setting: Setting, env: &[(String, String)], labels: &[(String, String)]) -> Problem {
    let (variable, label, example) = match setting {
        Setting::ServiceName => ("SERVICE_NAME", "cosmonaut.service-name", "web"),
        _ => ("PREDICATE", "cosmonaut.predicate", "web.example.com"),
    };
    let near = env
        .iter()
        .map(|(key, _)| (key, looks_like(key, variable)))
        .chain(labels.iter().map(|(key, _)| {
            let own = key.to_ascii_lowercase();
            (key, own.starts_with("cosmonaut") && looks_like(key, label))
        }))
        .find(|(_, near)| *near);
    let mut want =
        format!("set {variable} (or the label {label}), for example {variable}={example}");
    if let Some((key, _)) = near {
        want = format!("{want}; is {} meant to be it?", shown(key));
    }
    Problem {
        variable: variable.to_owned(),
        value: None,
        want,
    }
}

/// Whether `found` is `wanted` but for case, punctuation, or up to two slips of the finger.
fn looks_like(found: &str, wanted: &str) -> bool {
    let bare = |text: &str| -> Vec<u8> {
        text.bytes()
            .filter(u8::is_ascii_alphanumeric)
            .map(|b| b.to_ascii_lowercase())
            .take(64)
            .collect()
    };
    let (found, wanted) = (bare(found), bare(wanted));
    edit_distance(&found, &wanted) <= if wanted.len() > 8 { 2 } else { 1 }
}

/// Levenshtein distance: fewest insertions, deletions and replacements between two short words.
pub fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.iter().zip(row.iter_mut().skip(1)) {
            let replaced = diagonal + usize::from(x != y);
            diagonal = *cell;
            left = replaced.min(*cell + 1).min(left + 1);
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(0)
}

/// Whether a container has a description at all, and so counts when the keyword is empty.
pub fn names_a_service(reading: &Reading) -> bool {
    !matches!(reading, Reading::NoService(_))
}

fn service_name(value: &str) -> Result<Box<str>, String> {
    let want = format!(
        "want a letter or digit, then letters, digits, `_`, `.` or `-`, {SERVICE_NAME_BYTES_MAX} at most"
    );
    let first = value
        .bytes()
        .next()
        .is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if first && rest && value.len() <= SERVICE_NAME_BYTES_MAX {
        Ok(value.into())
    } else {
        Err(want)
    }
}

fn config_mode(value: &str) -> Result<Mode, String> {
    match value.to_ascii_lowercase().as_str() {
        "host" | "" => Ok(Mode::Host),
        "path" => Ok(Mode::Path),
        _ => Err("want host or path".to_owned()),
    }
}

fn port(value: &str) -> Result<u16, String> {
    let digits = value.bytes().all(|b| b.is_ascii_digit()) && !value.starts_with('0');
    value.parse().ok().filter(|_| digits).ok_or_else(|| {
        "want a number from 1 to 65535, without sign, blank or leading zero".to_owned()
    })
}

fn cookie(value: &str) -> Result<Box<str>, String> {
    let valid = value
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b));
    if valid && value.len() <= COOKIE_BYTES_MAX {
        Ok(value.into())
    } else {
        Err(format!(
            "want a cookie name of letters, digits, `_`, `.` and `-`, {COOKIE_BYTES_MAX} at most"
        ))
    }
}

fn predicate(mode: Mode, value: &str) -> Result<Box<str>, String> {
    let mut patterns = Vec::new();
    for word in value.split([' ', ',']).filter(|word| !word.is_empty()) {
        let pattern = match mode {
            Mode::Host => host(word)?,
            Mode::Path => path(word)?,
        };
        if !patterns.contains(&pattern) {
            patterns.push(pattern);
        }
    }
    if patterns.is_empty() {
        return Err(match mode {
            Mode::Host => "it is empty; want a host name such as web.example.com".to_owned(),
            Mode::Path => "it is empty; want a path prefix such as api".to_owned(),
        });
    }
    if patterns.len() > PATTERNS_MAX {
        return Err(format!(
            "it has {} patterns; {PATTERNS_MAX} at most",
            patterns.len()
        ));
    }
    Ok(patterns.join(" ").into())
}

fn host(word: &str) -> Result<String, String> {
    if word.contains("://") {
        return Err("want a host name alone, without http:// and path".to_owned());
    }
    if word.contains('/') {
        return Err("want a host name; for a path prefix set CONFIG_MODE=path".to_owned());
    }
    if !word.is_ascii() {
        return Err("want a host name in ASCII; write it in its xn-- form".to_owned());
    }
    if word.contains(':') {
        return Err("want a host name without a port; requests to any port match".to_owned());
    }
    let name = word.strip_prefix("*.").unwrap_or(word);
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    if word.len() > HOST_BYTES_MAX || !name.split('.').all(label) {
        return Err(format!(
            "{} is no host name; want labels of letters, digits, `-` and `_` joined by dots, \
             such as web.example.com or *.example.com",
            shown(word)
        ));
    }
    Ok(word.to_ascii_lowercase())
}

fn path(word: &str) -> Result<String, String> {
    if !word.is_ascii() {
        return Err("want a path in ASCII; percent-encode the rest".to_owned());
    }
    if word.contains('?') {
        return Err("want a path prefix without a query".to_owned());
    }
    let prefix = word.strip_prefix('/').unwrap_or(word);
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() {
        return Err("it would match every path; want a prefix such as api".to_owned());
    }
    let segment = |segment: &str| !matches!(segment, "" | "." | "..");
    let valid = prefix.len() <= PATH_BYTES_MAX
        && !prefix.starts_with('-')
        && prefix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._~!$&()*+=:@%/-".contains(&b))
        && prefix.split('/').all(segment)
        && percent_encoded(prefix);
    if valid {
        Ok(prefix.to_owned())
    } else {
        Err(format!(
            "{} is no path prefix; want segments such as api/v2, without `//`, `.`, `..`, quotes or `#`",
            shown(word)
        ))
    }
}

/// Whether every `%` begins two hexadecimal digits.
fn percent_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| {
        rest.as_bytes()
            .get(..2)
            .is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    })
}

/// A value as a message may repeat it: quoted, control characters escaped, cut.
pub fn shown(value: &str) -> String {
    let cut: String = value.chars().take(SHOWN_CHARS_MAX).collect();
    let dots = if cut.len() < value.len() { "..." } else { "" };
    format!("{cut:?}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn check(env: &[(&str, &str)], labels: &[(&str, &str)], expected: &str) {
        let got = match read(&pairs(env), &pairs(labels)) {
            Reading::Service(d) => format!(
                "{} {:?} {} port {:?} cookie {:?}",
                d.service, d.mode, d.predicate, d.port, d.cookie
            ),
            Reading::NoService(problem) => format!("no service: {problem}"),
            Reading::Bad(problem) => format!("bad: {problem}"),
            Reading::Disabled => "disabled".to_owned(),
        };
        assert_eq!(got, expected, "env {env:?}, labels {labels:?}");
    }

    #[test]
    fn reads_variables_and_labels() {
        let web = ("SERVICE_NAME", "web");
        let host = ("PREDICATE", "Web.Example.com, b.example.com");
        check(
            &[web, host],
            &[],
            "web Host web.example.com b.example.com port None cookie None",
        );
        check(
            &[
                web,
                ("PREDICATE", "/api/"),
                ("CONFIG_MODE", "PATH"),
                ("PORT", "8080"),
                ("COOKIE", "SRV"),
            ],
            &[],
            "web Path api port Some(8080) cookie Some(\"SRV\")",
        );
        check(
            &[web, ("SERVICE_NAME", "last"), host, ("COOKIE", "")],
            &[],
            "last Host web.example.com b.example.com port None cookie None",
        );
        check(
            &[web, host, ("PORT", "x")],
            &[
                ("cosmonaut.service-name", "label"),
                ("cosmonaut.port", "81"),
            ],
            "label Host web.example.com b.example.com port Some(81) cookie None",
        );
        check(&[web, host], &[("cosmonaut.enable", "False")], "disabled");
        check(
            &[web, host],
            &[("cosmonaut.enable", "maybe")],
            "bad: cosmonaut.enable=\"maybe\": want true or false",
        );
    }

    #[test]
    fn names_what_is_missing_and_the_likely_typo() {
        let set =
            "set SERVICE_NAME (or the label cosmonaut.service-name), for example SERVICE_NAME=web";
        check(
            &[],
            &[],
            &format!("no service: SERVICE_NAME is missing: {set}"),
        );
        for (env, labels, near) in [
            (&[("SERVICENAME", "web")][..], &[][..], "SERVICENAME"),
            (&[("SERVICE_NAM", "web")], &[], "SERVICE_NAM"),
            (
                &[],
                &[("cosmonaut.servicename", "web")],
                "cosmonaut.servicename",
            ),
            (
                &[],
                &[("cosmonaut.service_name", "web")],
                "cosmonaut.service_name",
            ),
        ] {
            check(
                env,
                labels,
                &format!("no service: SERVICE_NAME is missing: {set}; is {near:?} meant to be it?"),
            );
        }
        check(
            &[("SERVICE_NAME", "web"), ("PREDIKATE", "x")],
            &[],
            "bad: PREDICATE is missing: set PREDICATE (or the label cosmonaut.predicate), for example \
             PREDICATE=web.example.com; is \"PREDIKATE\" meant to be it?",
        );
    }

    /// Every vector that was measured against HAProxy: what must be refused is, the rest passes.
    #[test]
    fn takes_and_refuses_every_measured_vector() {
        #[derive(serde::Deserialize)]
        struct Vector {
            field: String,
            mode: Option<String>,
            value: String,
            verdict: String,
            why: String,
        }
        let mut seen = 0;
        for line in include_str!("../tests/data/inputs.jsonl").lines() {
            let vector: Vector = serde_json::from_str(line).expect("a vector a line");
            let verdict = match vector.field.as_str() {
                "SERVICE_NAME" => {
                    service_name(&vector.value).is_ok() && !vector.value.contains('\n')
                }
                "COOKIE" => !vector.value.is_empty() && cookie(&vector.value).is_ok(),
                "PORT" => port(&vector.value).is_ok(),
                "PREDICATE" => {
                    let mode = if vector.mode.as_deref() == Some("path") {
                        Mode::Path
                    } else {
                        Mode::Host
                    };
                    let given = Given {
                        name: "PREDICATE",
                        value: &vector.value,
                    };
                    given.checked(|value| predicate(mode, value)).is_ok()
                }
                _ => continue,
            };
            seen += 1;
            let wanted = vector.verdict.starts_with("accept");
            assert_eq!(
                verdict, wanted,
                "{} {:?}: {}",
                vector.field, vector.value, vector.why
            );
        }
        assert!(seen > 90, "only {seen} vectors were tried");
    }

    #[test]
    fn distance_counts_slips() {
        for (a, b, distance) in [
            ("", "", 0),
            ("a", "", 1),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("port", "prot", 2),
        ] {
            assert_eq!(
                edit_distance(a.as_bytes(), b.as_bytes()),
                distance,
                "{a} {b}"
            );
        }
    }
}
