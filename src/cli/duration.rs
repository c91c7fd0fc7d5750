//! Durations as users write them: `250ms`, `30s`, `2m`, `1h` or a plain `0`.
//!
//! One whole number and one unit, so that nobody has to guess what `1.5` or `90` means.

use super::refusal::{Refusal, quoted};
use std::time::Duration;

/// Longest duration taken; a longer one is a slip, and adding it to a clock stays safe.
pub const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// What every refusal ends in.
const EXAMPLE: &str =
    "a duration is a whole number with ms, s, m or h, as in 250ms, 30s or 2m; 0 needs no unit";

/// Reads a duration.
///
/// # Errors
/// No number, no unit or an unknown one, a fraction, a sign, blanks, or more than 24 hours.
pub(super) fn parse(text: &str) -> Result<Duration, Refusal> {
    let refuse = |why: &str| Refusal::new(format!("{} {why}", quoted(text)), EXAMPLE);
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(refuse("is not a duration"));
    }
    let too_long = || refuse("is longer than 24h");
    let number: u64 = number.parse().map_err(|_| too_long())?;
    let milliseconds = match unit {
        "" if number == 0 => Some(0),
        "" => {
            let hint = format!("{EXAMPLE}; did you mean {number}s?");
            return Err(Refusal::new(format!("{} has no unit", quoted(text)), hint));
        }
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ if unit.starts_with(['.', ',']) => return Err(refuse("is not a whole number")),
        _ => return Err(refuse("has an unknown unit")),
    };
    match milliseconds.map(Duration::from_millis) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        _ => Err(too_long()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, milliseconds) in [
            ("0", 0),
            ("00", 0),
            ("0s", 0),
            ("250ms", 250),
            ("30s", 30_000),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("24h", 86_400_000),
            ("007ms", 7),
        ] {
            let expected = Duration::from_millis(milliseconds);
            assert_eq!(parse(text).map_err(|refusal| refusal.why), Ok(expected));
        }
    }

    #[test]
    fn refused_with_an_example() {
        for (text, why) in [
            ("", "'' is not a duration"),
            ("s", "'s' is not a duration"),
            ("-1s", "'-1s' is not a duration"),
            ("+1s", "'+1s' is not a duration"),
            (" 1s", "' 1s' is not a duration"),
            ("never", "'never' is not a duration"),
            ("60", "'60' has no unit"),
            ("1.5s", "'1.5s' is not a whole number"),
            ("1,5s", "'1,5s' is not a whole number"),
            ("1m30s", "'1m30s' has an unknown unit"),
            ("1S", "'1S' has an unknown unit"),
            ("1 s", "'1 s' has an unknown unit"),
            ("1s ", "'1s ' has an unknown unit"),
            ("1d", "'1d' has an unknown unit"),
            ("٣s", "'٣s' is not a duration"),
            ("25h", "'25h' is longer than 24h"),
            (
                "18446744073709551615h",
                "'18446744073709551615h' is longer than 24h",
            ),
            (
                "99999999999999999999s",
                "'99999999999999999999s' is longer than 24h",
            ),
        ] {
            let refusal = parse(text).expect_err(text);
            assert_eq!(refusal.why, why);
            assert!(refusal.hint.contains("250ms, 30s or 2m"));
        }
        let refusal = parse("60").expect_err("no unit");
        assert!(refusal.hint.ends_with("did you mean 60s?"));
    }
}
