//! A number with a fraction, in whole billionths: what metrics, logs and the status tell times in.
//!
//! To print floating point and to read it is 30 KB of code; this is a division by ten.

use std::fmt;
use std::time::Duration;

use crate::timestamp::Timestamp;

const ONE: u64 = 1_000_000_000;
/// Digits of a fraction.
const DIGITS: usize = 9;

/// A number from 0 to 18 billion; what is more stays there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    billionths: u64,
}

impl Decimal {
    /// So many, without a fraction.
    pub fn whole(count: usize) -> Self {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        Decimal {
            billionths: count.saturating_mul(ONE),
        }
    }

    /// The seconds of a length of time.
    pub fn seconds(time: Duration) -> Self {
        Decimal {
            billionths: u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
        }
    }

    /// The milliseconds of a length of time, to a tenth.
    pub fn milliseconds(time: Duration) -> Self {
        let tenths = time.as_nanos().saturating_add(50_000) / 100_000;
        let billionths = tenths.saturating_mul(u128::from(ONE / 10));
        Decimal {
            billionths: u64::try_from(billionths).unwrap_or(u64::MAX),
        }
    }

    /// Seconds since 1970; 0 before.
    pub fn since_1970(moment: Timestamp) -> Self {
        let whole = u64::try_from(moment.seconds).unwrap_or(0);
        Decimal {
            billionths: whole
                .saturating_mul(ONE)
                .saturating_add(moment.nanos.into()),
        }
    }

    /// Reads digits, with or without a point and more digits; those past the ninth are cut.
    pub fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return None;
        }
        let whole: u64 = whole.parse().ok()?;
        let places = fraction.bytes().chain(std::iter::repeat(b'0'));
        let fraction = places
            .take(DIGITS)
            .fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        Some(Decimal {
            billionths: whole.saturating_mul(ONE).saturating_add(fraction),
        })
    }

    /// The sum.
    pub fn plus(self, other: Self) -> Self {
        Decimal {
            billionths: self.billionths.saturating_add(other.billionths),
        }
    }
}

/// As JSON and logs carry it.
impl From<Decimal> for f64 {
    fn from(decimal: Decimal) -> f64 {
        decimal.billionths as f64 / ONE as f64
    }
}

/// Nothing below 0, and nothing that is no number.
impl From<f64> for Decimal {
    fn from(number: f64) -> Decimal {
        Decimal {
            billionths: (number * ONE as f64).round() as u64,
        }
    }
}

/// With as many digits of the fraction as it has, or as the format asks for; those past them are cut.
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fraction = self.billionths % ONE;
        let mut digits = DIGITS;
        let wanted = f.precision().map_or(0, |wanted| wanted.min(DIGITS));
        while digits > wanted && (f.precision().is_some() || fraction.is_multiple_of(10)) {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, "{}", self.billionths / ONE)?;
        if digits > 0 {
            write!(f, ".{fraction:0digits$}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_from_text() {
        for text in [
            "0",
            "1",
            "0.5",
            "12.000000001",
            "1795357800.125",
            "18446744073.709551615",
        ] {
            let decimal = Decimal::parse(text).expect(text);
            assert_eq!(decimal.to_string(), text);
        }
        for (text, read) in [
            ("0.30000000000000004", "0.3"),
            ("007.10", "7.1"),
            ("99999999999", "18446744073.709551615"),
        ] {
            assert_eq!(Decimal::parse(text).expect(text).to_string(), read);
        }
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1.2.3",
            "NaN",
            "inf",
            "1 ",
            "99999999999999999999",
        ] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_floating_point_where_others_read_them() {
        for (number, text) in [
            (0.0, "0"),
            (12.5, "12.5"),
            (0.1 + 0.2, "0.3"),
            (-1.0, "0"),
            (f64::NAN, "0"),
        ] {
            assert_eq!(Decimal::from(number).to_string(), text);
        }
        let ms = Decimal::milliseconds(Duration::from_micros(12_349));
        assert_eq!(
            format!("{ms} {ms:.1} {ms:.0} {ms:.3}"),
            "12.3 12.3 12 12.300"
        );
        assert_eq!(f64::from(ms).to_string(), "12.3");
        let none = Decimal::default();
        assert_eq!(format!("{none} {none:.1}"), "0 0.0");
    }

    #[test]
    fn times_are_in_seconds_or_milliseconds() {
        assert_eq!(
            Decimal::seconds(Duration::from_millis(1_250)).to_string(),
            "1.25"
        );
        assert_eq!(
            Decimal::milliseconds(Duration::from_nanos(50_000)).to_string(),
            "0.1"
        );
        assert_eq!(
            Decimal::milliseconds(Duration::from_nanos(49_999)).to_string(),
            "0"
        );
        assert_eq!(Decimal::whole(3).plus(Decimal::whole(4)).to_string(), "7");
        let moment = Timestamp {
            seconds: 1_795_357_800,
            nanos: 125_000_000,
        };
        assert_eq!(Decimal::since_1970(moment).to_string(), "1795357800.125");
    }
}
