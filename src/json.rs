//! Reads JSON, in one way for all: serde_json's reader of text, not of bytes as well.
//!
//! It is compiled once, and that bytes are text is seen at once for all of them, which is faster than string by string.

use serde::Deserialize;
use serde::de::Error as _;

/// Reads the one value that `bytes` are.
///
/// # Errors
/// What is wrong with them, and where; also that they are not UTF-8, be it in a part that nobody asked for.
pub fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> serde_json::Result<T> {
    serde_json::from_str(std::str::from_utf8(bytes).map_err(serde_json::Error::custom)?)
}
