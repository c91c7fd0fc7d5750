//! Mutants of seeds, by a seeded generator: bits, bytes, numbers, words, lines, cuts, splices, repeats, deep nesting.

/// Numbers at the edges of what readers expect.
const NUMBERS: &[&str] = &[
    "0",
    "-1",
    "1",
    "65535",
    "65536",
    "2147483648",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "-9223372036854775809",
    "1e400",
    "1e-400",
    "0.1",
    "00",
    "ffffffffffffffff",
    "99999999999999999999999999",
];
/// Bytes and words that mean something to somebody.
const WORDS: &[&str] = &[
    "\0",
    "\r\n",
    "\n",
    "\r",
    "\t",
    "\u{7f}",
    "\u{1b}[2J",
    "\u{feff}",
    "\u{202e}",
    "\u{b6}",
    "\u{130}",
    "💣",
    "'",
    "\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "#",
    "${HOME}",
    "%[env(X)]",
    "$(id)",
    "*",
    "*.",
    "..",
    "/",
    "//",
    "-",
    ".",
    ":",
    ",",
    " ",
    "null",
    "true",
    "false",
    "{}",
    "[]",
    "\"\"",
    "{\"a\":",
    "global",
    "backend be_web",
    "server",
    "if",
    "unless",
    "use_backend",
    "acl",
    "default",
    "Transfer-Encoding: chunked\r\n",
    "Content-Length: 5\r\n",
    "Connection: close\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 204 No Content\r\n\r\n",
    "0\r\n\r\n",
    "cosmonaut.enable: false",
    "[::1]",
    "::ffff:1.2.3.4",
    "0.0.0.0",
    "255.255.255.255",
    "&amp;",
    "&#39;",
    "&amp;lt;",
];
/// Deeper than any reader should follow.
const NESTING: usize = 5000;
/// A mutant is never longer.
const MUTANT_BYTES_MAX: usize = 128 << 10;
/// Changes in one mutant, at most.
const CHANGES_MAX: usize = 6;

pub struct Mutator<'s> {
    state: u64,
    seeds: &'s [Vec<u8>],
}

impl<'s> Mutator<'s> {
    pub fn new(seed: u64, seeds: &'s [Vec<u8>]) -> Mutator<'s> {
        Mutator {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            seeds,
        }
    }

    fn roll(&mut self) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize
    }

    fn below(&mut self, end: usize) -> usize {
        self.roll() % end.max(1)
    }

    fn some_seed(&mut self) -> &'s [u8] {
        let at = self.below(self.seeds.len());
        &self.seeds[at]
    }

    /// A span of `bytes`, mostly short.
    fn span(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let from = self.below(bytes.len() + 1);
        let most = if self.below(4) == 0 { bytes.len() } else { 24 };
        from..(from + self.below(most + 1)).min(bytes.len())
    }

    /// A whole line or quoted string around a random place.
    fn unit(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let at = self.below(bytes.len() + 1);
        let border = if self.below(2) == 0 { b'\n' } else { b'"' };
        let from = bytes[..at]
            .iter()
            .rposition(|byte| *byte == border)
            .map_or(0, |found| found + 1);
        let to = bytes[at..]
            .iter()
            .position(|byte| *byte == border)
            .map_or(bytes.len(), |found| at + found);
        from..to
    }

    /// A run of digits at or behind a random place.
    fn number(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let at = self.below(bytes.len() + 1);
        let digit = |byte: &u8| byte.is_ascii_digit();
        let from = bytes[at..]
            .iter()
            .position(digit)
            .map_or(at, |found| at + found);
        let to = bytes[from..]
            .iter()
            .position(|byte| !digit(byte))
            .map_or(bytes.len(), |found| from + found);
        from..to
    }

    /// The next mutant.
    pub fn mutant(&mut self) -> Vec<u8> {
        let mut bytes = self.some_seed().to_vec();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes);
            bytes.truncate(MUTANT_BYTES_MAX);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        match self.below(13) {
            0 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] ^= 1 << self.below(8);
            }
            1 if !bytes.is_empty() => {
                let at = self.below(bytes.len());
                bytes[at] = self.roll() as u8;
            }
            2 => {
                let cut = self.span(bytes);
                bytes.drain(cut);
            }
            3 => {
                let from = self.span(bytes);
                let copy = bytes[from].to_vec();
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, copy);
            }
            4 => {
                let other = self.some_seed();
                let piece = self.span(other);
                let at = self.span(bytes);
                bytes.splice(at, other[piece].to_vec());
            }
            5 => {
                let word = WORDS[self.below(WORDS.len())];
                let at = if self.below(2) == 0 {
                    self.span(bytes)
                } else {
                    self.unit(bytes)
                };
                bytes.splice(at, word.bytes());
            }
            6 => {
                let word = WORDS[self.below(WORDS.len())];
                let at = self.below(bytes.len() + 1);
                bytes.splice(at..at, word.bytes());
            }
            7 => {
                let number = NUMBERS[self.below(NUMBERS.len())];
                let at = self.number(bytes);
                bytes.splice(at, number.bytes());
            }
            8 => {
                let unit = self.unit(bytes);
                let copy = bytes[unit.clone()].to_vec();
                let times = 1 + self.below(if copy.len() < 40 { 300 } else { 6 });
                bytes.splice(unit.end..unit.end, copy.repeat(times));
            }
            9 => {
                let unit = self.unit(bytes);
                bytes.drain(unit);
            }
            10 => {
                let other = self.some_seed();
                let piece = self.unit(other);
                let at = self.unit(bytes);
                bytes.splice(at, other[piece].to_vec());
            }
            11 if self.below(8) == 0 => {
                let open = ["[", "{\"a\":", "[{\"Id\":"][self.below(3)];
                let at = self.unit(bytes);
                bytes.splice(at, open.repeat(NESTING / open.len()).into_bytes());
            }
            _ => {
                let keep = self.below(bytes.len() + 1);
                bytes.truncate(keep);
            }
        }
    }
}
