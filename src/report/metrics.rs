//! Metrics in Prometheus's text format, for node_exporter's textfile collector.
//!
//! Counters go on from what the file says, so that `sync` from cron counts too and a restart of `watch` is
//! no gap. Moments are given as times, not as ages: an age would have to be written all the time. The whole
//! file is replaced in one step. Rules: the exposition format 0.0.4, and what `promtool check metrics` asks.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::atomic_file::{self, Durability};
use crate::decimal::Decimal;
use crate::error::Result;
use crate::haproxy::By;
use crate::report::record::{Answers, Ended, Record, Stage};
use crate::report::status::Status;

/// Largest file that counters are read back from, in bytes; ours has a few thousand.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The steps of a pass whose durations are summed up.
const STEPS: [&str; 6] = ["look", "ask", "check", "swap", "live", "total"];

/// What counts up.
#[derive(Debug, Clone, Default, PartialEq)]
struct Counters(Vec<(String, Decimal)>);

/// The metrics and where they are kept.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    counters: Counters,
}

impl Metrics {
    /// Metrics in this file; counters go on where it stands.
    pub fn new(path: &Path) -> Self {
        let mut text = String::new();
        // A file that is not there or not ours begins anew; it is about to be replaced.
        if let Ok(file) = File::open(path) {
            let _ = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
        }
        Metrics {
            path: path.to_owned(),
            counters: Counters::read(&text),
        }
    }

    /// Counts one pass.
    pub fn count(&mut self, record: &Record) {
        let counters = &mut self.counters;
        let one = Decimal::whole(1);
        counters.add(&passes(record.ended), one);
        if record.ended == Ended::Failed {
            counters.add(&failures(record.stage), one);
        }
        let mut step = |name, time: Option<Duration>| {
            if let Some(time) = time {
                counters.add(&duration("sum", name), Decimal::seconds(time));
                counters.add(&duration("count", name), one);
            }
        };
        step("look", record.look);
        step("ask", record.ask);
        if let Some(applied) = &record.applied {
            step("check", Some(applied.check));
            step("swap", Some(applied.swap));
            step("live", Some(applied.reload));
        }
        step("total", Some(record.took));
        match record.applied.as_ref().map(|applied| applied.by) {
            Some(By::Socket) => counters.add(RUNTIME_UPDATES, one),
            Some(By::Script | By::Master) => counters.add(RELOADS, one),
            Some(By::Itself) | None => {}
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When it cannot be written; the old one stands.
    pub fn write(&self, status: &Status) -> Result<()> {
        let text = self.counters.render(status);
        atomic_file::replace_with(&self.path, &[text.as_bytes()], Durability::Kernel).map(drop)
    }
}

const RELOADS: &str = "cosmonaut_reloads_total";
const RUNTIME_UPDATES: &str = "cosmonaut_runtime_updates_total";

fn passes(ended: Ended) -> String {
    format!("cosmonaut_passes_total{{outcome=\"{}\"}}", ended.word())
}

fn failures(stage: Stage) -> String {
    format!("cosmonaut_failures_total{{stage=\"{}\"}}", stage.word())
}

fn duration(what: &str, step: &str) -> String {
    format!("cosmonaut_step_duration_seconds_{what}{{step=\"{step}\"}}")
}

impl Counters {
    fn add(&mut self, series: &str, amount: Decimal) {
        match self.0.iter_mut().find(|(name, _)| name == series) {
            Some((_, sum)) => *sum = sum.plus(amount),
            None => self.0.push((series.to_owned(), amount)),
        }
    }

    fn get(&self, series: &str) -> Decimal {
        let found = self.0.iter().find(|(name, _)| name == series);
        found.map(|(_, sum)| *sum).unwrap_or_default()
    }

    /// Every series that we count.
    fn series() -> Vec<String> {
        let mut all: Vec<String> = Ended::ALL.map(passes).into();
        all.extend(Stage::ALL.map(failures));
        all.extend([RELOADS.to_owned(), RUNTIME_UPDATES.to_owned()]);
        for step in STEPS {
            all.push(duration("sum", step));
            all.push(duration("count", step));
        }
        all
    }

    /// The counters in a file of ours; what is not understood counts from zero.
    fn read(text: &str) -> Self {
        let known = Self::series();
        let value = |line: &str| -> Option<(String, Decimal)> {
            let (series, value) = line.rsplit_once(' ')?;
            let value = Decimal::parse(value)?;
            let ours = known.iter().any(|k| k == series);
            ours.then(|| (series.to_owned(), value))
        };
        Counters(text.lines().filter_map(value).collect())
    }

    fn render(&self, status: &Status) -> String {
        let mut page = Page(String::new());
        page.family(
            "cosmonaut_build_info",
            "gauge",
            "The version that wrote this file.",
            [(
                format!(
                    "cosmonaut_build_info{{version=\"{}\"}}",
                    escaped(&status.version)
                ),
                Decimal::whole(1),
            )],
        );
        let counted = |series: Vec<String>| series.into_iter().map(|s| (s.clone(), self.get(&s)));
        page.family(
            "cosmonaut_passes_total",
            "counter",
            "Passes by how they ended.",
            counted(Ended::ALL.map(passes).into()),
        );
        page.family(
            "cosmonaut_failures_total",
            "counter",
            "Failed passes by the stage that failed.",
            counted(Stage::ALL.map(failures).into()),
        );
        page.family(
            RELOADS,
            "counter",
            "Configs that HAProxy took by a reload.",
            counted(vec![RELOADS.to_owned()]),
        );
        page.family(
            RUNTIME_UPDATES,
            "counter",
            "Configs that HAProxy took by commands to its runtime socket.",
            counted(vec![RUNTIME_UPDATES.to_owned()]),
        );
        let durations = STEPS
            .iter()
            .flat_map(|step| [duration("sum", step), duration("count", step)]);
        page.family(
            "cosmonaut_step_duration_seconds",
            "summary",
            "Time spent in each step of the passes.",
            counted(durations.collect()),
        );
        page.gauges(status);
        page.0
    }
}

/// The text as it grows.
struct Page(String);

impl Page {
    /// One metric with its series; without any it is left out.
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        series: impl IntoIterator<Item = (String, Decimal)>,
    ) {
        let mut series = series.into_iter().peekable();
        if series.peek().is_none() {
            return;
        }
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (name, value) in series {
            let _ = writeln!(self.0, "{name} {value}");
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<Decimal>) {
        self.family(name, "gauge", help, value.map(|v| (name.to_owned(), v)));
    }

    fn gauges(&mut self, status: &Status) {
        let flag = |is: bool| Decimal::whole(usize::from(is));
        let registry = status.registry.as_ref();
        let states = registry.into_iter().flat_map(|registry| {
            Answers::ALL.map(|state| {
                let series = format!(
                    "cosmonaut_registry_state{{registry=\"{}\",state=\"{}\"}}",
                    escaped(&registry.name),
                    state.word()
                );
                (series, flag(registry.state == state.word()))
            })
        });
        self.family(
            "cosmonaut_registry_state",
            "gauge",
            "How it stands with the registry: 1 for the present state.",
            states,
        );
        let containers = status.containers.iter().flat_map(|counts| {
            [
                ("routed", counts.routed),
                ("pending", counts.pending),
                ("left_out", counts.left_out),
            ]
        });
        self.family(
            "cosmonaut_containers",
            "gauge",
            "Monitored containers by verdict.",
            containers.map(|(verdict, count)| {
                let series = format!("cosmonaut_containers{{verdict=\"{verdict}\"}}");
                (series, Decimal::whole(count))
            }),
        );
        self.gauge(
            "cosmonaut_services",
            "Services that are routed.",
            status
                .containers
                .as_ref()
                .map(|c| Decimal::whole(c.services)),
        );
        self.gauge(
            "cosmonaut_refused_services",
            "Services that HAProxy refuses while all others are served.",
            Some(Decimal::whole(status.refused.len())),
        );
        let docker = status.docker.as_ref();
        self.gauge(
            "cosmonaut_docker_connected",
            "Whether Docker's event stream is open.",
            docker.map(|docker| flag(docker.connected)),
        );
        self.gauge(
            "cosmonaut_docker_since_timestamp_seconds",
            "Since when the event stream is open, or is not.",
            docker.map(|docker| Decimal::since_1970(docker.since)),
        );
        self.gauge(
            "cosmonaut_docker_last_event_timestamp_seconds",
            "When the last event that concerned us came.",
            docker.and_then(|d| d.last_event).map(Decimal::since_1970),
        );
        self.gauge(
            "cosmonaut_last_pass_timestamp_seconds",
            "When the last pass began.",
            status.last_pass.as_ref().map(|p| Decimal::since_1970(p.at)),
        );
        self.gauge(
            "cosmonaut_last_change_timestamp_seconds",
            "When the last pass that changed something began.",
            status
                .last_change
                .as_ref()
                .map(|p| Decimal::since_1970(p.at)),
        );
        self.gauge(
            "cosmonaut_owed_since_timestamp_seconds",
            "Since when HAProxy has not taken a config that it should have; absent when nothing is owed.",
            status.owed.as_ref().map(|owed| Decimal::since_1970(owed.since)),
        );
        self.gauge(
            "cosmonaut_owed",
            "Whether HAProxy has not taken a config that it should have.",
            Some(flag(status.owed.is_some())),
        );
        self.gauge(
            "cosmonaut_held",
            "Whether a rollback holds the config.",
            Some(flag(status.hold.is_some())),
        );
        self.gauge(
            "cosmonaut_start_timestamp_seconds",
            "When this process started.",
            Some(Decimal::since_1970(status.started)),
        );
    }
}

/// A label's value. Rule: backslash, quote and line feed are escaped.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
