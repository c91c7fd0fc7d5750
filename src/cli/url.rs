//! Is this text a URL that Cosmos can be reached at?
//!
//! `ureq`'s own reader decides, so what passes here is what is later called. Credentials and
//! query stay out of every message.

use super::refusal::{Refusal, quoted};
use ureq::http::Uri;

/// What every refusal ends in.
const EXAMPLE: &str = "give it as in https://cosmos.example.com/prod";

/// Takes an absolute http or https URL with a host, and gives it back as it was written.
///
/// # Errors
/// Another scheme or none, no host, a port that is none, a fragment, blanks or control characters.
pub(super) fn parse(text: &str) -> Result<String, Refusal> {
    let refuse = |why: &str| {
        let shown = quoted(&without_secrets(text));
        Refusal::new(format!("{shown} {why}"), EXAMPLE)
    };
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(refuse("is not a URL: it does not begin with https://"));
    };
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(refuse(
            "is not a URL of Cosmos: only http and https are spoken",
        ));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(refuse(
            "is not a URL: it holds a blank or control character",
        ));
    }
    if rest.contains('#') {
        return Err(refuse(
            "is not a URL of Cosmos: a fragment (#) is never sent",
        ));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    let host_and_port = authority.rsplit('@').next().unwrap_or(authority);
    if host_and_port.is_empty() || host_and_port.starts_with(':') {
        return Err(refuse("is not a URL: it has no host"));
    }
    let uri: Uri = text.parse().map_err(|_| refuse("is not a URL"))?;
    let host = uri.host().unwrap_or("");
    if host.is_empty() {
        return Err(refuse("is not a URL: it has no host"));
    }
    let port = host_and_port
        .strip_prefix(host)
        .and_then(|port| port.strip_prefix(':'));
    match port {
        Some(port) if !matches!(port.parse::<u16>(), Ok(1..)) => {
            Err(refuse("has a port that is not 1 to 65535"))
        }
        _ => Ok(text.to_owned()),
    }
}

/// The URL without user name, password and query, for messages. It may be no URL: whatever stands before the last `@`
/// may be a password.
pub(super) fn without_secrets(text: &str) -> String {
    let (before, after, hidden) = match text.rsplit_once('@') {
        Some((before, after)) => (before, after, "...@"),
        None => (text, text, ""),
    };
    let is_scheme = |scheme: &&str| scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let scheme = before
        .split_once("://")
        .map(|(scheme, _)| scheme)
        .filter(is_scheme)
        .map_or(String::new(), |scheme| format!("{scheme}://"));
    let after = if hidden.is_empty() {
        after.strip_prefix(scheme.as_str()).unwrap_or(after)
    } else {
        after
    };
    let (plain, query) = match after.split_once('?') {
        Some((plain, _)) => (plain, "?..."),
        None => (after, ""),
    };
    format!("{scheme}{hidden}{plain}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_cosmos() {
        for text in [
            "http://localhost",
            "https://cosmos.example.com",
            "HTTPS://cosmos.example.com/prod/",
            "http://127.0.0.1:8080/x",
            "http://[::1]:8080/",
            "https://user:secret@cosmos.example.com/prod",
            "https://abc.execute-api.eu-west-1.amazonaws.com/prod?x=1",
        ] {
            assert_eq!(parse(text).as_deref(), Ok(text));
        }
    }

    #[test]
    fn no_urls() {
        for (text, why) in [
            ("cosmos.example.com", "does not begin with https://"),
            ("localhost:8080", "does not begin with https://"),
            ("/prod", "does not begin with https://"),
            ("", "does not begin with https://"),
            ("ftp://cosmos.example.com", "only http and https"),
            ("unix:///run/x.sock", "only http and https"),
            ("http://", "no host"),
            ("https:///prod", "no host"),
            ("https://?x", "no host"),
            ("http://:80/", "no host"),
            ("http://user@/", "no host"),
            ("http://a b/", "blank or control"),
            ("http://a\n/", "blank or control"),
            ("https://h/#x", "fragment"),
            ("http://h:0/", "port"),
            ("http://h:/", "port"),
            ("http://h:99999/", "port"),
            ("http://h:http/", ""),
            ("http://[::1/", ""),
            ("http://<h>/", ""),
        ] {
            let refusal = parse(text).expect_err(text);
            assert!(refusal.why.contains(why), "{}", refusal.why);
            assert!(refusal.hint.contains("https://"));
        }
    }

    #[test]
    fn secrets_stay_out_of_messages() {
        for text in [
            "ftp://me:hunter2@h/",
            "http://me:hunter2@h:0/?key=hunter2",
            "me:hunter2@h",
            "http://me:hun@ter2@h:0/",
            "http://h:0/?key=hunter2",
            "me:hunter2@h?hunter2",
            "http://me:hunter2 @h/",
            "me:hunter2@://",
            "http://me:x?hunter2@h/",
            "hunter2@ftp://me@h",
        ] {
            let refusal = parse(text).expect_err(text);
            assert!(!refusal.why.contains("ter2"), "{}", refusal.why);
        }
    }
}
