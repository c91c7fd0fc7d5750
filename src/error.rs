//! What went wrong, in words for the operator: what we tried, on what, why, and what to do now.
//!
//! Pure parsers have small closed enums of their own; everything that touches the system
//! returns this `Error`. Only `main.rs` prints one.

use std::fmt;

/// Result of everything that touches the system.
pub type Result<T> = std::result::Result<T, Error>;

/// What kind of failure it was, where a caller must decide by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing more is known than the words.
    Failed,
    /// Nobody answers at that address: refused, missing, not reachable.
    Unreachable,
    /// A time limit ran out.
    TimedOut,
    /// The other side refused for want of rights.
    Denied,
    /// The user's own words cannot be meant: a wrong option or variable.
    Usage,
}

/// One failure: what was tried (with the path or address), the cause, and the mend if we can guess it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    tried: String,
    cause: String,
    hint: Option<String>,
    kind: Kind,
}

impl Error {
    /// `tried` names the action and its object in lower case, without a full stop
    /// (`cannot list containers at tcp://10.0.0.5:2375`); `cause` the most specific reason.
    ///
    /// Both may repeat what came from outside: they become one line without control characters, cut to a
    /// length that can be read.
    pub fn new(tried: impl Into<String>, cause: impl fmt::Display) -> Self {
        Error {
            tried: readable(tried.into()),
            cause: readable(cause.to_string()),
            hint: None,
            kind: Kind::Failed,
        }
    }

    /// The mend, as a sentence or a question for the operator.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(readable(hint.into()));
        self
    }

    /// Marks the kind of failure.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// The mend, if we could guess it.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }

    /// The most specific reason alone.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The kind of failure.
    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind
    }
}

/// Longest part of a message, in bytes: a dozen lines of HAProxy's log with their paths.
const PART_BYTES_MAX: usize = 1_800;

/// What a terminal does not obey and a person can read; most messages are that already. Of long ones the middle is cut
/// out: a program says last what it died of.
pub fn readable(words: String) -> String {
    // Escaped first: a control character becomes up to eight others.
    let words = escaped(words);
    if words.len() <= PART_BYTES_MAX {
        return words;
    }
    let head = words.floor_char_boundary(PART_BYTES_MAX / 2);
    let tail = words.ceil_char_boundary(words.len() - PART_BYTES_MAX / 2);
    let (head, tail) = (words.get(..head), words.get(tail..));
    format!(
        "{} ... (cut) ... {}",
        head.unwrap_or_default(),
        tail.unwrap_or_default()
    )
}

/// The text with its control characters, line feeds too, as a source would spell them.
pub fn escaped(words: String) -> String {
    if !words.contains(char::is_control) {
        return words;
    }
    let mut escaped = String::with_capacity(words.len() + 16);
    for character in words.chars() {
        if character.is_control() {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    escaped
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.cause.is_empty() {
            f.write_str(&self.tried)
        } else {
            write!(f, "{}: {}", self.tried, self.cause)
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_is_one_line_that_no_terminal_obeys() {
        let error =
            Error::new("cannot read\u{1b}[2J", "a\ncosmonaut: hint: x\u{7f}").hint("b\r\nc");
        assert_eq!(
            error.to_string(),
            "cannot read\\u{1b}[2J: a\\ncosmonaut: hint: x\\u{7f}"
        );
        assert_eq!(error.hint_text(), Some("b\\r\\nc"));
        for filling in ["ü", "\u{1b}"] {
            let long = format!("first{}last", filling.repeat(100_000));
            let long = Error::new("cannot read it", long).to_string();
            assert!(long.len() < 2_000, "{} bytes", long.len());
            assert!(long.contains("first") && long.contains("(cut)") && long.ends_with("last"));
        }
    }
}
