//! Log lines to stderr: text for people and the journal, or JSON for machines.
//!
//! This file shapes the line, `simplelog` locks and writes it. (It could stamp the time too,
//! but a format of ours for it needs its `time` package as one of ours.) Only records of this crate are written: HTTP and TLS packages log the headers that they send,
//! and a key for Cosmos must never reach a log. A line that cannot be written is dropped; the
//! job goes on without its log.
//!
//! Shapes (stable; scripts read them):
//!
//! ```text
//! 2026-11-22T14:30:00Z info  applied haproxy.cfg
//! <6>info  applied haproxy.cfg                        when stderr is the journal
//! {"time":"2026-11-22T14:30:00.123Z","level":"info","target":"haproxy","message":"applied haproxy.cfg"}
//! ```
//!
//! In JSON a record's own fields (`report::record` names those of a pass) follow the message.
//!
//! `<6>` is the priority of sd-daemon(3), which the journal takes off: `journalctl -p warning` works.

use log::kv::{Key, Source, Value, VisitSource, VisitValue};
use log::{Level, LevelFilter, Log, Metadata, Record};
use simplelog::{Config, ConfigBuilder, WriteLogger};
use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::io::{LineWriter, Write, stderr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::decimal::Decimal;

/// Longest message that is written, in bytes; what HAProxy or a script say is cut there.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Lines for people.
    Text,
    /// One JSON object a line: time, level, target, message, all of them strings; then the record's own fields.
    Json,
}

/// Sends what this crate logs at `level` and above to stderr, from now on.
///
/// `to_journal` leaves out the time, which the journal keeps itself, and marks each line with
/// its priority; it has no effect on JSON. A second call changes nothing.
pub fn init(level: LevelFilter, format: Format, to_journal: bool) {
    let logger = Logger::new(level, format, to_journal, LineWriter::new(stderr()));
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
    }
}

/// Whether stderr is the journal's stream, by the value of `JOURNAL_STREAM`: the device and
/// inode of that stream, as `8:12345`.
///
/// The variable is inherited also where stderr was redirected, so the numbers are compared.
///
/// Source: systemd.exec(5), "$JOURNAL_STREAM".
pub fn is_journal(journal_stream: Option<&OsStr>) -> bool {
    let Some((device, inode)) = journal_stream.and_then(device_and_inode) else {
        return false;
    };
    match rustix::fs::fstat(stderr()) {
        Ok(stat) => (stat.st_dev, stat.st_ino) == (device, inode),
        Err(_) => false,
    }
}

fn device_and_inode(value: &OsStr) -> Option<(u64, u64)> {
    let (device, inode) = value.to_str()?.split_once(':')?;
    Some((device.parse().ok()?, inode.parse().ok()?))
}

/// Shapes each record and hands it to `simplelog` as a finished message.
struct Logger<W: Write + Send + 'static> {
    level: LevelFilter,
    shape: Shape,
    writer: Box<WriteLogger<W>>,
}

#[derive(Clone, Copy)]
enum Shape {
    Text,
    Journal,
    Json,
}

impl<W: Write + Send + 'static> Logger<W> {
    fn new(level: LevelFilter, format: Format, to_journal: bool, output: W) -> Self {
        let shape = match (format, to_journal) {
            (Format::Json, _) => Shape::Json,
            (Format::Text, true) => Shape::Journal,
            (Format::Text, false) => Shape::Text,
        };
        Logger {
            level,
            shape,
            writer: WriteLogger::new(level, config(), output),
        }
    }

    fn write(&self, metadata: &Metadata<'_>, line: fmt::Arguments<'_>) {
        let shaped = Record::builder()
            .metadata(metadata.clone())
            .args(line)
            .build();
        self.writer.log(&shaped);
    }
}

/// Nothing of what `simplelog` can put before a message.
fn config() -> Config {
    ConfigBuilder::new()
        .set_time_level(LevelFilter::Off)
        .set_max_level(LevelFilter::Off)
        .set_thread_level(LevelFilter::Off)
        .set_target_level(LevelFilter::Off)
        .set_location_level(LevelFilter::Off)
        .build()
}

impl<W: Write + Send + 'static> Log for Logger<W> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && module(metadata.target()).is_some()
    }

    fn log(&self, record: &Record<'_>) {
        let Some(module) = module(record.target()) else {
            return;
        };
        if record.level() > self.level {
            return;
        }
        let mut message = record.args().to_string();
        cut(&mut message);
        // A clock before 1970 shows as 1970.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or(Duration::ZERO);
        let line = match self.shape {
            Shape::Json => json(now, record.level(), module, &message, &record.key_values()),
            Shape::Text => {
                let line = text(record.level(), module, &message, "");
                format!("{}Z {line}", seconds(now))
            }
            Shape::Journal => text(record.level(), module, &message, priority(record.level())),
        };
        self.write(record.metadata(), format_args!("{line}"));
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

/// The module of this crate that a record comes from; `None` for other crates.
fn module(target: &str) -> Option<&str> {
    let rest = target.strip_prefix(env!("CARGO_PKG_NAME"))?;
    match rest.strip_prefix("::") {
        Some(module) => Some(module),
        None if rest.is_empty() => Some("main"),
        None => None,
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    }
}

/// Source: sd-daemon(3), SD_ERR and its neighbours.
fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "<3>",
        Level::Warn => "<4>",
        Level::Info => "<6>",
        Level::Debug | Level::Trace => "<7>",
    }
}

/// A line for people. Further lines of the message are indented, so that none can pass for a
/// record of its own; the module is named where a developer reads, at debug and below.
fn text(level: Level, module: &str, message: &str, prefix: &str) -> String {
    let mut line = format!("{prefix}{:<5} ", name(level));
    if level >= Level::Debug {
        line.push_str(module);
        line.push_str(": ");
    }
    for (place, part) in message.trim_end().lines().enumerate() {
        if place > 0 {
            line.push('\n');
            line.push_str(prefix);
            line.push_str("    ");
        }
        for character in part.chars() {
            if character.is_control() && character != '\t' {
                // A terminal must not obey what a container's variable holds.
                line.extend(character.escape_default());
            } else {
                line.push(character);
            }
        }
    }
    line
}

fn json(now: Duration, level: Level, module: &str, message: &str, fields: &dyn Source) -> String {
    let mut line = format!(
        "{{\"time\":\"{}.{:03}Z\",\"level\":\"{}\",\"target\":",
        seconds(now),
        now.subsec_millis(),
        name(level)
    );
    push_string(&mut line, module);
    line.push_str(",\"message\":");
    push_string(&mut line, message);
    // A field that cannot be told is left out; the message holds it in words.
    let _ = fields.visit(&mut Fields(&mut line));
    line.push('}');
    line
}

/// Adds what a record says in fields of its own: numbers and truth values as such, strings as strings.
///
/// Other kinds of values are left out: to print whatever a record may hold brings code for each of them.
struct Fields<'l>(&'l mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), log::kv::Error> {
        let before = self.0.len();
        self.0.push(',');
        push_string(self.0, key.as_str());
        self.0.push(':');
        let told = value.visit(&mut Field(self.0));
        if told.is_err() {
            self.0.truncate(before);
        }
        Ok(())
    }
}

/// Adds one value.
struct Field<'l>(&'l mut String);

impl<'v> VisitValue<'v> for Field<'_> {
    fn visit_any(&mut self, _: Value) -> Result<(), log::kv::Error> {
        Err(log::kv::Error::msg("not a kind that is told"))
    }

    fn visit_u64(&mut self, value: u64) -> Result<(), log::kv::Error> {
        Ok(write!(self.0, "{value}")?)
    }

    fn visit_f64(&mut self, value: f64) -> Result<(), log::kv::Error> {
        Ok(write!(self.0, "{}", Decimal::from(value))?)
    }

    fn visit_bool(&mut self, value: bool) -> Result<(), log::kv::Error> {
        Ok(write!(self.0, "{value}")?)
    }

    fn visit_str(&mut self, value: &str) -> Result<(), log::kv::Error> {
        let mut text = value.to_owned();
        cut(&mut text);
        push_string(self.0, &text);
        Ok(())
    }
}

/// Adds a JSON string; control characters of every kind are escaped, for those who `cat` it.
fn push_string(line: &mut String, value: &str) {
    line.push('"');
    for character in value.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\t' => line.push_str("\\t"),
            _ if character.is_control() => {
                // Control characters end at U+009F; writing to a String does not fail.
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
            _ => line.push(character),
        }
    }
    line.push('"');
}

/// `2026-11-22T14:30:00` of a time since 1970, in UTC.
///
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn seconds(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    // Days since 1 March of the year 0: leap days then end a year, and 400 years repeat.
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn cut(message: &mut String) {
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push_str(" ... (cut)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("sink").extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What one record becomes.
    fn line(format: Format, to_journal: bool, level: Level, target: &str, message: &str) -> String {
        let sink = Sink::default();
        let logger = Logger::new(LevelFilter::Debug, format, to_journal, sink.clone());
        logger.log(
            &Record::builder()
                .level(level)
                .target(target)
                .args(format_args!("{message}"))
                .build(),
        );
        let bytes = sink.0.lock().expect("sink").clone();
        String::from_utf8(bytes).expect("log lines are UTF-8")
    }

    /// Digits to 0, so that times can be compared.
    fn zeroed(line: &str) -> String {
        line.replace(|c: char| c.is_ascii_digit(), "0")
    }

    #[test]
    fn text_lines() {
        for (level, message, expected) in [
            (Level::Info, "applied", "info  applied\n"),
            (Level::Warn, "skipped", "warn  skipped\n"),
            (Level::Error, "a\nb\n", "error a\n    b\n"),
            (
                Level::Info,
                "a\x1b[31m\rb\tc",
                "info  a\\u{0b}[00m\\rb\tc\n",
            ),
            (Level::Debug, "why", "debug docker::events: why\n"),
            (Level::Info, "", "info  \n"),
        ] {
            let line = line(
                Format::Text,
                false,
                level,
                "cosmonaut::docker::events",
                message,
            );
            let stamped = format!("0000-00-00T00:00:00Z {expected}");
            assert_eq!(zeroed(&line), stamped);
        }
    }

    #[test]
    fn dates() {
        // Checked against date -u -d @SECONDS.
        for (since_1970, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (951_868_800, "2000-03-01T00:00:00"),
            (1_709_251_199, "2024-02-29T23:59:59"),
            (1_795_357_800, "2026-11-22T14:30:00"),
            (1_798_761_599, "2026-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
        ] {
            assert_eq!(seconds(Duration::from_secs(since_1970)), expected);
        }
    }

    #[test]
    fn journal_lines_have_a_priority_and_no_time() {
        for (level, expected) in [
            (Level::Error, "<3>error a\n<3>    b\n"),
            (Level::Warn, "<4>warn  a\n<4>    b\n"),
            (Level::Info, "<6>info  a\n<6>    b\n"),
            (Level::Debug, "<7>debug sync: a\n<7>    b\n"),
        ] {
            assert_eq!(
                line(Format::Text, true, level, "cosmonaut::sync", "a\nb"),
                expected
            );
        }
    }

    #[test]
    fn json_lines() {
        let nasty = "a \"b\" \\ \n\t\u{1b}\u{7f}\u{9b} ü";
        for to_journal in [false, true] {
            let line = line(Format::Json, to_journal, Level::Warn, "cosmonaut", nasty);
            assert_eq!(line.matches('\n').count(), 1);
            assert!(!line.trim_end().chars().any(char::is_control));
            let object: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            let fields = object.as_object().expect("an object");
            assert_eq!(fields.len(), 4);
            assert_eq!(fields["level"], "warn");
            assert_eq!(fields["target"], "main");
            assert_eq!(fields["message"], nasty);
            let time = fields["time"].as_str().expect("a time");
            assert_eq!(zeroed(time), "0000-00-00T00:00:00.000Z");
        }
    }

    #[test]
    fn other_crates_and_finer_levels_are_silent() {
        for (level, target) in [
            (Level::Error, "ureq::run"),
            (Level::Warn, "rustls"),
            (Level::Error, "cosmonautics"),
            (Level::Error, ""),
            (Level::Trace, "cosmonaut::sync"),
        ] {
            assert_eq!(
                line(Format::Text, false, level, target, "x-api-key: secret"),
                ""
            );
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let line = line(
            Format::Text,
            true,
            Level::Info,
            "cosmonaut",
            &"ü".repeat(100_000),
        );
        assert!(line.len() < MESSAGE_BYTES_MAX + 64);
        assert!(line.ends_with("ü ... (cut)\n"));
    }

    #[test]
    fn a_closed_output_is_no_panic() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        }
        let logger = Logger::new(
            LevelFilter::Info,
            Format::Text,
            false,
            LineWriter::new(Closed),
        );
        let long = "x".repeat(10_000);
        for _ in 0..100 {
            logger.log(
                &Record::builder()
                    .level(Level::Error)
                    .target("cosmonaut")
                    .args(format_args!("{long}"))
                    .build(),
            );
            logger.flush();
        }
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let stat = rustix::fs::fstat(stderr()).expect("stderr of the test");
        let own = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_journal(Some(OsStr::new(&own))));
        for other in [
            "",
            ":",
            "1",
            "a:b",
            "1:2:3",
            "-1:5",
            "8:18446744073709551616",
        ] {
            assert!(!is_journal(Some(OsStr::new(other))), "{other}");
        }
        let moved = format!("{}:{}", stat.st_dev, stat.st_ino.wrapping_add(1));
        assert!(!is_journal(Some(OsStr::new(&moved))));
        assert!(!is_journal(None));
    }
}
