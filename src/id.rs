//! The id of a container where thousands are kept: 64 hexadecimal digits as the 32 bytes that they stand for. Pure.

use std::fmt;
use std::ops::Deref;

/// Length of a whole id of Docker's, in bytes.
const BYTES: usize = 32;

/// An id as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum Id {
    /// 64 hexadecimal digits in lower case.
    Whole([u8; BYTES]),
    /// A short one, a name, or whatever else a daemon gives.
    Other(Box<str>),
}

/// An id as it is read and written.
pub enum Text<'i> {
    /// The digits.
    Digits([u8; 2 * BYTES]),
    /// Kept as it is.
    Other(&'i str),
}

impl Id {
    /// Keeps this text.
    pub fn new(text: &str) -> Id {
        fn digit(byte: u8) -> Option<u8> {
            match byte {
                b'0'..=b'9' => Some(byte - b'0'),
                b'a'..=b'f' => Some(byte - b'a' + 10),
                _ => None,
            }
        }
        let mut bytes = [0; BYTES];
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != BYTES || !rest.is_empty() {
            return Id::Other(text.into());
        }
        for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
            let (Some(high), Some(low)) = (digit(*high), digit(*low)) else {
                return Id::Other(text.into());
            };
            *byte = high << 4 | low;
        }
        Id::Whole(bytes)
    }

    /// The text that was kept.
    pub fn text(&self) -> Text<'_> {
        let bytes = match self {
            Id::Whole(bytes) => bytes,
            Id::Other(text) => return Text::Other(text),
        };
        let digit = |value: u8| match value {
            0..=9 => b'0' + value,
            _ => b'a' + value - 10,
        };
        let mut digits = [0; 2 * BYTES];
        for ([high, low], byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
        Text::Digits(digits)
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (*self.text()).fmt(f)
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            // Digits are text.
            Text::Digits(digits) => str::from_utf8(digits).unwrap_or_default(),
            Text::Other(text) => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_comes_back() {
        let whole = "0123456789abcdef".repeat(4);
        for text in [
            "",
            "a",
            "web-1",
            "0123456789ab",
            &whole,
            &whole.to_uppercase(),
            &whole.replace('0', "g"),
            &whole[1..],
            &format!("{whole}0"),
            &"é".repeat(32),
        ] {
            let id = Id::new(text);
            assert_eq!(&*id.text(), text);
            assert_eq!(matches!(id, Id::Whole(_)), text == whole);
        }
    }
}
