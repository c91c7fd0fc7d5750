//! Who is to blame for what, and the report in Markdown.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::checker::{Apart, Checked};
use crate::load::{Failed, Requests};
use crate::log::{Away, Log};
use crate::watched::Ended;
use crate::{SERVICES, SLOTS, STEADY_SERVICES, Site};

/// Longest time after the last change of Docker's truth until HAProxy has it, while nothing is away.
const LATE_MAX_S: f64 = 5.0;
/// The same after something was away: daemon and HAProxy, and Cosmos, whose tries have growing waits.
const LATE_AFTER_AWAY_MAX_S: f64 = 20.0;
const LATE_AFTER_COSMOS_MAX_S: f64 = 60.0;
/// How long a restart may still be felt by requests.
const AFTER_AWAY_S: f64 = 10.0;
/// An instance counts as there when nobody touched it for this long before the request.
const SETTLED_S: f64 = 3.0;
/// For how long after the end of a container a request may still be on its way to the container's address: until the
/// reload, and in HAProxy's tries to connect.
const REUSED_S: f64 = 2.0;
/// HAProxy has used up its tries to connect after this time at the earliest: 4 of 1 s, less what a refusal saves.
const TRIES_S: f64 = 3.0;
/// Memory may grow by this much between start and end.
const GROWTH_MAX_KIB: u64 = 512;
/// Most examples that are printed of one kind.
const EXAMPLES_MAX: usize = 10;

pub struct Soak<'a> {
    pub seed: u64,
    pub ran: Duration,
    pub log: &'a Log,
    pub requests: &'a Requests,
    pub checked: &'a Checked,
    pub watched: &'a [Ended],
    pub dead: &'a [String],
    pub sites: &'a [Site],
}

pub struct Report {
    pub body: String,
    pub good: bool,
}

/// Why a request may have failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Blame {
    /// It should not have failed.
    Lost,
    Away,
    NothingToServe,
    Cut,
    Reused,
    TriesUsedUp,
    CosmosConfig,
    CosmosStale,
}

impl Blame {
    fn words(self) -> &'static str {
        match self {
            Blame::Lost => "**should not have failed**",
            Blame::Away => {
                "HAProxy or dockerd (which takes HAProxy along) was away or had just come back"
            }
            Blame::NothingToServe => {
                "no container of the service had been up and untouched for 3 s"
            }
            Blame::Cut => "its container was killed or paused while it answered",
            Blame::Reused => {
                "answered by another service: Docker had given the address of a container that had just ended to the next one"
            }
            Blame::TriesUsedUp => {
                "several of its containers ended at once, and HAProxy's tries (4 of 1 s) all went to them"
            }
            Blame::CosmosConfig => {
                "Cosmos's config has no redispatch: a container that had just ended was asked"
            }
            Blame::CosmosStale => "Cosmos was away: the config could not be changed",
        }
    }
}

impl Soak<'_> {
    fn blame(&self, failed: &Failed) -> Blame {
        let outages = self.log.outages();
        let away = |what: &dyn Fn(Away) -> bool, after: f64| {
            outages
                .iter()
                .any(|(one, span)| what(*one) && span.meets(failed.from - after, failed.to))
        };
        if away(
            &|one| one != Away::Cosmos && one.concerns(failed.site),
            AFTER_AWAY_S,
        ) {
            return Blame::Away;
        }
        let (from, to) = (failed.from - SETTLED_S, failed.to + 1.0);
        let there = |slot: usize| {
            let mut looks = self
                .checked
                .ran
                .iter()
                .filter(|(at, _)| (from - 1.0..=to).contains(at))
                .peekable();
            looks.peek().is_some()
                && looks.all(|(_, slots)| slots.contains(&(failed.service, slot)))
                && !self.log.touched((failed.service, slot), from, to)
        };
        if !(0..SLOTS).any(there) {
            return Blame::NothingToServe;
        }
        let touched = (0..SLOTS).any(|slot| self.log.touched((failed.service, slot), from, to));
        let cosmos = self.sites[failed.site].kind == "cosmos";
        if cosmos && away(&|one| one == Away::Cosmos, LATE_AFTER_COSMOS_MAX_S) {
            return Blame::CosmosStale;
        }
        let refused = failed.how.starts_with("status 503");
        let misrouted = failed.how.starts_with("MISROUTED");
        // Until HAProxy has what Docker says, the address of who ended is still asked; then for as long as a try takes.
        let late_since = self
            .checked
            .apart
            .iter()
            .filter(|apart| apart.site == failed.site && apart.meets(failed.from, failed.to))
            .map(|apart| apart.from)
            .fold(failed.from, f64::min);
        let ended = (0..SLOTS).any(|slot| {
            let slot = (failed.service, slot);
            self.log.touched(slot, late_since - REUSED_S, failed.to)
        });
        let count = (0..SLOTS)
            .filter(|slot| self.log.touched((failed.service, *slot), from, to))
            .count();
        if misrouted && ended {
            Blame::Reused
        } else if misrouted || failed.how.starts_with("connect") {
            Blame::Lost
        } else if refused && count > 1 && failed.to - failed.from >= TRIES_S {
            Blame::TriesUsedUp
        } else if refused && touched && cosmos {
            Blame::CosmosConfig
        } else if touched && !refused {
            Blame::Cut
        } else {
            Blame::Lost
        }
    }

    /// What was away during a difference, or had just been, with the time from which we could have been right.
    fn excuse(&self, apart: &Apart) -> (Option<Away>, f64) {
        let mut found = None;
        let mut from = apart.changed;
        for (what, span) in self.log.outages() {
            let after = if what == Away::Cosmos {
                LATE_AFTER_COSMOS_MAX_S
            } else {
                AFTER_AWAY_S
            };
            if what.concerns(apart.site) && span.meets(apart.from - after, apart.to) {
                found = Some(what);
                from = from.max(span.to.unwrap_or(apart.to));
            }
        }
        (found, from)
    }
}

pub fn write(soak: &Soak<'_>) -> Report {
    let mut faults = soak.log.faults();
    faults.extend(soak.dead.iter().cloned());
    let mut body = String::new();
    let deeds = soak.log.deeds();
    let minutes = soak.ran.as_secs_f64() / 60.0;
    let _ = write!(
        body,
        "# Soak\n\nMade by `scripts/soak`: {minutes:.0} minutes of random life (seed {}), {} commands: a dockerd of its own, {SERVICES} services of up to \
         {SLOTS} containers,\none container of each of {STEADY_SERVICES} services never touched; two HAProxies in containers, one `watch` for each: `{}` and `{}`.\n\n\
         ## What happened\n\n| what | times |\n|---|---|\n",
        soak.seed,
        deeds.values().sum::<usize>(),
        soak.sites[0].kind,
        soak.sites[1].kind,
    );
    for (what, times) in &deeds {
        let _ = writeln!(body, "| {what} | {times} |");
    }
    requests(soak, &mut body, &mut faults);
    differences(soak, &mut body, &mut faults);
    processes(soak, &mut body, &mut faults);
    body.push_str("\n## Verdict\n\n");
    if faults.is_empty() {
        body.push_str("Nothing was lost.\n");
    }
    for fault in &faults {
        let _ = writeln!(body, "- FAULT: {fault}");
    }
    Report {
        body,
        good: faults.is_empty(),
    }
}

fn requests(soak: &Soak<'_>, body: &mut String, faults: &mut Vec<String>) {
    let mut blamed: BTreeMap<Blame, Vec<&Failed>> = BTreeMap::new();
    for failed in &soak.requests.failed {
        blamed.entry(soak.blame(failed)).or_default().push(failed);
    }
    let _ = write!(
        body,
        "\n## Requests\n\n{} requests, half of them on kept connections; {} got no good answer:\n\n| why | {} | {} |\n|---|---|---|\n",
        soak.requests.done,
        soak.requests.failed.len(),
        soak.sites[0].kind,
        soak.sites[1].kind,
    );
    blamed.entry(Blame::Lost).or_default();
    for (blame, all) in &blamed {
        let at = |site: usize| all.iter().filter(|one| one.site == site).count();
        let _ = writeln!(body, "| {} | {} | {} |", blame.words(), at(0), at(1));
    }
    let lost = &blamed[&Blame::Lost];
    for one in lost.iter().take(EXAMPLES_MAX) {
        faults.push(format!(
            "request to s{} by {} at {:.3} ({:.0} ms): {}",
            one.service,
            soak.sites[one.site].kind,
            one.from,
            (one.to - one.from) * 1e3,
            one.how
        ));
    }
    if lost.len() > EXAMPLES_MAX {
        faults.push(format!("{} requests lost in all", lost.len()));
    }
}

fn differences(soak: &Soak<'_>, body: &mut String, faults: &mut Vec<String>) {
    let _ = write!(
        body,
        "\n## Out of step\n\n{} looks ({} of them blind: Docker or a HAProxy did not answer). A difference counts from the look that saw it to the one that\n\
         saw it gone; lateness from Docker's last change, or from the return of what was away.\n\n\
         | HAProxy | meanwhile | differences | s in all | lateness median, s | 95 % | longest |\n|---|---|---|---|---|---|---|\n",
        soak.checked.looks, soak.checked.blind
    );
    // (lateness, length) of each.
    let mut rows: BTreeMap<(usize, &str), Vec<(f64, f64)>> = BTreeMap::new();
    for apart in &soak.checked.apart {
        let (away, from) = soak.excuse(apart);
        let late = (apart.to - from).max(0.0);
        let limit = match away {
            None => LATE_MAX_S,
            Some(Away::Cosmos) => LATE_AFTER_COSMOS_MAX_S,
            Some(_) => LATE_AFTER_AWAY_MAX_S,
        };
        if late > limit {
            faults.push(format!(
                "{} was {late:.1} s late from {:.1} on ({}): {}",
                soak.sites[apart.site].kind,
                apart.from,
                away.map_or("nothing was away", Away::word),
                apart.what
            ));
        }
        rows.entry((apart.site, away.map_or("nothing away", Away::word)))
            .or_default()
            .push((late, apart.to - apart.from));
    }
    for ((site, away), mut all) in rows {
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let late = |share: usize| all[(all.len() * share / 100).min(all.len() - 1)].0;
        let _ = writeln!(
            body,
            "| {} | {away} | {} | {:.1} | {:.2} | {:.2} | {:.2} |",
            soak.sites[site].kind,
            all.len(),
            all.iter().map(|one| one.1).sum::<f64>(),
            late(50),
            late(95),
            late(100)
        );
    }
}

fn processes(soak: &Soak<'_>, body: &mut String, faults: &mut Vec<String>) {
    body.push_str(
        "\n## The two `watch`\n\n| | at the start | most | at the end |\n|---|---|---|---|\n",
    );
    for one in soak.watched {
        let kind = one.kind;
        let mut row = |what: &str, of: [String; 3]| {
            let _ = writeln!(
                body,
                "| {kind}: {what} | {} | {} | {} |",
                of[0], of[1], of[2]
            );
        };
        let all = [one.start, one.most, one.end];
        row("memory (RSS), KiB", all.map(|one| one.rss_kib.to_string()));
        row(
            "of it anonymous, KiB",
            all.map(|one| one.anonymous_kib.to_string()),
        );
        row("descriptors", all.map(|one| one.descriptors.to_string()));
        row("threads", all.map(|one| one.threads.to_string()));
        row("children", all.map(|one| one.children.to_string()));
        row(
            "CPU time, s",
            all.map(|one| format!("{:.2}", one.cpu_cs as f64 / 100.0)),
        );
        let _ = writeln!(
            body,
            "| {kind}: configs applied, warnings, errors in its log | | | {}, {}, {} |",
            one.applied,
            one.warnings,
            one.errors.len()
        );
        if one.end.anonymous_kib > one.start.anonymous_kib + GROWTH_MAX_KIB {
            faults.push(format!(
                "{kind}: anonymous memory grew from {} to {} KiB",
                one.start.anonymous_kib, one.end.anonymous_kib
            ));
        }
        if one.end.descriptors > one.start.descriptors.max(8) + 1 {
            faults.push(format!(
                "{kind}: descriptors grew from {} to {}",
                one.start.descriptors, one.end.descriptors
            ));
        }
        if one.end.children > 0 {
            faults.push(format!(
                "{kind}: {} children after the end of all passes",
                one.end.children
            ));
        }
    }
    for one in soak.watched.iter().filter(|one| !one.errors.is_empty()) {
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for line in &one.errors {
            *kinds.entry(shape(line)).or_default() += 1;
        }
        let mut kinds: Vec<_> = kinds.into_iter().collect();
        kinds.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
        let _ = write!(body, "\nErrors in the log of `{}`, by kind:\n\n", one.kind);
        for (kind, times) in kinds.iter().take(EXAMPLES_MAX) {
            let _ = writeln!(body, "- {times}: {kind}");
        }
    }
}

/// A log line without what differs from line to line: time, names, numbers.
fn shape(line: &str) -> String {
    let start = line.to_lowercase().find("error").unwrap_or(0);
    line.chars()
        .skip(line.get(..start).map_or(0, |head| head.chars().count()))
        .map(|one| if one.is_ascii_digit() { '#' } else { one })
        .take(240)
        .collect()
}
