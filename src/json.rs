//! Reads JSON, in one way for all: serde_json's reader of text, not of bytes as well.
//!
//! It is compiled once, and that bytes are text is seen at once for all of them, which is faster than string by string.

use std::fmt;

use serde::Deserialize;
use serde::de::Error as _;

use crate::error;

/// What is wrong with a JSON text, and where: one line of a length that a person reads, although serde repeats a
/// string that it did not expect from end to end.
#[derive(Debug)]
pub struct Malformed {
    words: String,
    is_eof: bool,
}

impl Malformed {
    /// Whether it ends before its end.
    pub fn is_eof(&self) -> bool {
        self.is_eof
    }
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Reads the one value that `bytes` are.
///
/// # Errors
/// What is wrong with them, and where; also that they are not UTF-8, be it in a part that nobody asked for.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(serde_json::Error::custom);
    let value = text.and_then(serde_json::from_str);
    value.map_err(|error| Malformed {
        words: error::readable(error.to_string()),
        is_eof: error.is_eof(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_one_line_that_a_person_reads() {
        let long = format!("{:?}", "\u{7}".repeat(5000));
        for bytes in [long.as_bytes(), b"", b"[\xff]", b"{"] {
            let words = read::<u8>(bytes).expect_err("no number").to_string();
            assert!(!words.is_empty() && words.len() < 2000, "{words}");
            assert!(!words.contains(char::is_control), "{words:?}");
        }
        assert_eq!(read::<u8>(b" 7 ").expect("a number"), 7);
    }
}
