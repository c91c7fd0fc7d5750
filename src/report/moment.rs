//! Moments in files and in words: the clock read to a millisecond, RFC 3339 in JSON, ages for people.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::timestamp::Timestamp;

/// Nanoseconds of a millisecond.
const MILLISECOND: u32 = 1_000_000;

/// Now, to a millisecond. A clock before 1970 shows as 1970.
pub fn now() -> Timestamp {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp {
        seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        nanos: now.subsec_nanos() / MILLISECOND * MILLISECOND,
    }
}

/// The moment of a later instant, as the clock stands now.
pub fn at(instant: Instant) -> Timestamp {
    let ahead = instant.saturating_duration_since(Instant::now());
    let ahead = i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX / 1_000_000);
    let nanos = now()
        .unix_nanos()
        .saturating_add(ahead.saturating_mul(i64::from(MILLISECOND)));
    Timestamp::from_unix_nanos(nanos)
}

/// How long before `now` a moment was; zero for one to come.
pub fn age(moment: Timestamp, now: Timestamp) -> Duration {
    let nanos = now.unix_nanos().saturating_sub(moment.unix_nanos());
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

/// A length of time in the two largest units that it fills, as `3s`, `12m 5s` or `4d 1h`.
pub fn in_words(time: Duration) -> String {
    let all = time.as_secs();
    let (days, hours, minutes, seconds) = (all / 86_400, all / 3_600 % 24, all / 60 % 60, all % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m {seconds}s"),
        (0, ..) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no RFC 3339 time")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_in_words() {
        for (seconds, words) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m 0s"),
            (3_599, "59m 59s"),
            (3_600, "1h 0m"),
            (90_000, "1d 1h"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn moments_come_back_from_json() {
        let now = now();
        let json = serde_json::to_string(&now).expect("a string");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).expect(&json), now);
        assert!(serde_json::from_str::<Timestamp>("\"soon\"").is_err());
        let later = at(Instant::now() + Duration::from_secs(60));
        assert_eq!(age(later, now), Duration::ZERO);
        assert!(age(now, later) >= Duration::from_secs(59));
    }
}
