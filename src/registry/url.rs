//! The URL of a Cosmos: what to post to, whom to greet as, and what of it may be shown. Pure.

use ureq::http::Uri;
use ureq::http::uri::Scheme;

use crate::error::{Error, Result};

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

/// The URL to post to, the credentials in it, and its host.
pub(super) fn target_of(url: &str, shown: &str) -> Result<(String, Option<String>, String)> {
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
pub(super) fn base64(text: &str) -> String {
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
