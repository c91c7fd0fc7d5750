//! A moment as Docker writes it: RFC 3339 in JSON, an IMF-fixdate in the `Date` header.
//!
//! Pure arithmetic on the proleptic Gregorian calendar; knows neither clock nor time zone.
//! Rules: RFC 3339 section 5.6, RFC 9110 section 5.6.7.

use std::fmt;

const SECONDS_PER_DAY: i64 = 86_400;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A moment in UTC; the default is the Unix epoch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z; negative before.
    pub seconds: i64,
    /// Nanoseconds after `seconds`, 0 to 999,999,999.
    pub nanos: u32,
}

impl Timestamp {
    /// Reads an RFC 3339 date and time with any offset; digits past the nanosecond are cut.
    ///
    /// `None` when it is not one, or names a day that does not exist. A leap second is the second before it.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let mut rest = Digits(text.as_bytes());
        let year = rest.number(4)?;
        rest.one_of(b"-")?;
        let month = rest.number(2)?;
        rest.one_of(b"-")?;
        let day = rest.number(2)?;
        rest.one_of(b"Tt ")?;
        let (hour, minute, second) = rest.clock()?;
        let mut nanos = 0;
        if rest.one_of(b".").is_some() {
            let mut digits = 0;
            while let Some(digit) = rest.number(1) {
                if digits < 9 {
                    nanos = nanos * 10 + digit;
                }
                digits += 1;
            }
            if digits == 0 {
                return None;
            }
            for _ in digits..9 {
                nanos *= 10;
            }
        }
        let offset = match rest.one_of(b"Zz+-")? {
            b'Z' | b'z' => 0,
            sign => {
                let hours = rest.number(2)?;
                rest.one_of(b":")?;
                let minutes = rest.number(2)?;
                if hours > 23 || minutes > 59 {
                    return None;
                }
                let seconds = hours * 3600 + minutes * 60;
                if sign == b'-' { -seconds } else { seconds }
            }
        };
        if !rest.0.is_empty() {
            return None;
        }
        let days = days_from_civil(year, month, day)?;
        Some(Timestamp {
            seconds: days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second - offset,
            nanos: u32::try_from(nanos).ok()?,
        })
    }

    /// Reads the value of an HTTP `Date` header (`Sun, 22 Nov 2026 10:52:23 GMT`).
    pub fn parse_http_date(text: &str) -> Option<Timestamp> {
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (_, text) = text.split_once(", ")?;
        let mut words = text.split(' ');
        let day = Digits(words.next()?.as_bytes()).number(2)?;
        let name = words.next()?;
        let month = MONTHS.iter().position(|month| *month == name)?;
        let year = Digits(words.next()?.as_bytes()).number(4)?;
        let (hour, minute, second) = Digits(words.next()?.as_bytes()).clock()?;
        if words.next() != Some("GMT") || words.next().is_some() {
            return None;
        }
        let days = days_from_civil(year, i64::try_from(month).ok()? + 1, day)?;
        Some(Timestamp {
            seconds: days * SECONDS_PER_DAY + hour * 3600 + minute * 60 + second,
            nanos: 0,
        })
    }

    /// Nanoseconds since the Unix epoch; the nearest that fits for years before 1678 or after 2262.
    pub fn unix_nanos(self) -> i64 {
        let nanos =
            i128::from(self.seconds) * i128::from(NANOS_PER_SECOND) + i128::from(self.nanos);
        i64::try_from(nanos).unwrap_or(if nanos < 0 { i64::MIN } else { i64::MAX })
    }

    /// The whole second that it lies in: what people read.
    pub fn to_seconds(self) -> Timestamp {
        Timestamp {
            nanos: 0,
            seconds: self.seconds,
        }
    }

    /// The moment that many nanoseconds after the Unix epoch.
    pub fn from_unix_nanos(nanos: i64) -> Timestamp {
        Timestamp {
            seconds: nanos.div_euclid(NANOS_PER_SECOND),
            nanos: u32::try_from(nanos.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = civil_from_days(self.seconds.div_euclid(SECONDS_PER_DAY));
        let second = self.seconds.rem_euclid(SECONDS_PER_DAY);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            second / 3600,
            second / 60 % 60,
            second % 60
        )?;
        if self.nanos > 0 {
            let fraction = format!("{:09}", self.nanos);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

/// What is left of a text of fixed-width numbers.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// A number of exactly `width` digits; takes nothing when it is not there.
    fn number(&mut self, width: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(width)?;
        let mut number = 0;
        for digit in digits {
            if !digit.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i64::from(digit - b'0');
        }
        self.0 = rest;
        Some(number)
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        if !wanted.contains(first) {
            return None;
        }
        self.0 = rest;
        Some(*first)
    }

    /// `HH:MM:SS`; a leap second counts as the 59th.
    fn clock(&mut self) -> Option<(i64, i64, i64)> {
        let hour = self.number(2)?;
        self.one_of(b":")?;
        let minute = self.number(2)?;
        self.one_of(b":")?;
        let second = self.number(2)?;
        (hour < 24 && minute < 60 && second <= 60).then_some((hour, minute, second.min(59)))
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar; `None` when there is no such day.
///
/// Counts in eras of 400 years that begin in March, so that the leap day is the last of its year.
fn days_from_civil(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let last = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if leap => 29,
        2 => 28,
        _ => return None,
    };
    if !(1..=last).contains(&day) {
        return None;
    }
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    Some(era * 146_097 + day_of_era - 719_468)
}

/// The inverse of [`days_from_civil`]: year, month, day.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_rfc_3339() {
        for (text, seconds, nanos) in [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("2026-11-22T10:52:19.266948407Z", 1_795_344_739, 266_948_407),
            ("2026-11-22T10:52:19.59061431Z", 1_795_344_739, 590_614_310),
            ("2026-11-22t11:52:19+01:00", 1_795_344_739, 0),
            ("2026-11-22 05:22:19.5-05:30", 1_795_344_739, 500_000_000),
            (
                "2026-11-22T10:52:19.1234567899Z",
                1_795_344_739,
                123_456_789,
            ),
            ("0001-01-01T00:00:00Z", -62_135_596_800, 0),
            ("2024-02-29T23:59:60Z", 1_709_251_199, 0),
            ("2000-03-01T00:00:00Z", 951_868_800, 0),
            ("9999-12-31T23:59:59Z", 253_402_300_799, 0),
        ] {
            assert_eq!(
                Timestamp::parse(text),
                Some(Timestamp { seconds, nanos }),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_is_no_moment() {
        for text in [
            "",
            "2026",
            "2026-11-22",
            "2026-11-22T10:52:19",
            "2026-11-22T10:52:19.Z",
            "2026-11-22T10:52:19Zx",
            "2026-11-22T24:00:00Z",
            "2026-11-22T10:60:00Z",
            "2026-11-22T10:52:61Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-00-10T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-11-22T10:52:19+24:00",
            "2026-11-22T10:52:19+0100",
            "+026-11-22T10:52:19Z",
            "２026-11-22T10:52:19Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    #[test]
    fn writes_utc() {
        for text in [
            "1970-01-01T00:00:00Z",
            "0001-01-01T00:00:00Z",
            "2024-02-29T12:00:00.5Z",
            "2026-11-22T10:52:19.266948407Z",
        ] {
            let parsed = Timestamp::parse(text).expect("a moment");
            assert_eq!(parsed.to_string(), text);
            if parsed.seconds >= 0 {
                assert_eq!(Timestamp::from_unix_nanos(parsed.unix_nanos()), parsed);
            }
        }
        let offset = Timestamp::parse("2026-11-22T00:30:00+01:00").expect("a moment");
        assert_eq!(offset.to_string(), "2026-11-21T23:30:00Z");
    }

    /// Found by fuzzing: the fraction was added to a sum that had already met its limit.
    #[test]
    fn a_moment_out_of_reach_is_the_nearest_one() {
        let before = Timestamp::parse("0000-02-29T00:00:00.1Z").expect("a moment");
        let after = Timestamp::parse("9999-12-31T23:59:59.9Z").expect("a moment");
        assert_eq!(
            (before.unix_nanos(), after.unix_nanos()),
            (i64::MIN, i64::MAX)
        );
    }

    #[test]
    fn every_day_of_five_centuries_is_itself_again() {
        for days in -100_000..100_000 {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), Some(days));
        }
    }

    #[test]
    fn reads_http_dates() {
        assert_eq!(
            Timestamp::parse_http_date("Sun, 22 Nov 2026 10:52:23 GMT"),
            Timestamp::parse("2026-11-22T10:52:23Z")
        );
        for text in [
            "",
            "Sun, 22 Nov 2026 10:52:23",
            "Sun, 22 Nov 2026 10:52:23 CET",
            "Sunday, 22-Nov-26 10:52:23 GMT",
            "Sun, 31 Feb 2026 10:52:23 GMT",
            "Sun, 2 Nov 2026 10:52:23 GMT",
        ] {
            assert_eq!(Timestamp::parse_http_date(text), None, "{text}");
        }
    }
}
