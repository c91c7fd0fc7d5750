//! Captured answers of real daemons, for tests.

use crate::http::{Decoder, Item, Limits};

/// The bytes of a capture under `tests/data/docker`.
pub(super) fn bytes(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/docker/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The body of a captured answer, or of the part of a stream that was captured.
pub(super) fn body(name: &str) -> Vec<u8> {
    let bytes = bytes(name);
    let mut decoder = Decoder::new(Limits::default());
    let mut rest = bytes.as_slice();
    let mut body = Vec::new();
    loop {
        let (used, item) = decoder.decode(rest).expect("an answer");
        match item {
            Item::Head(_) => {}
            Item::Data(data) => body.extend_from_slice(data),
            Item::More | Item::End => return body,
        }
        rest = &rest[used..];
    }
}
