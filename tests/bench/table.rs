//! The rows of the report: what was measured, beside the floor and the budget; as text and as JSON.

use serde_json::{Value, json};

/// What a figure counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Ms,
    MiB,
    MB,
    Count,
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Unit::Ms => "ms",
            Unit::MiB => "MiB",
            Unit::MB => "MB",
            Unit::Count => "",
        }
    }
}

/// One line of the report.
#[derive(Clone)]
pub struct Row {
    /// Short name, for `--only` and for machines.
    pub id: String,
    pub what: String,
    pub unit: Unit,
    /// What the same machine needs at least for the same work.
    pub floor: Option<f64>,
    pub ours: f64,
    /// At most, on the machine that the budgets were made for.
    pub budget: Option<f64>,
    /// At most, as a multiple of the floor, on any machine.
    pub ratio_max: Option<f64>,
    /// All samples, for machines.
    pub samples: Vec<f64>,
}

/// Whether a figure is inside its budget.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Over,
    /// It has no budget of its own.
    Told,
}

impl Row {
    /// A figure without floor and budget.
    pub fn new(id: &str, what: &str, unit: Unit, samples: Vec<f64>) -> Row {
        Row {
            id: id.to_owned(),
            what: what.to_owned(),
            unit,
            floor: None,
            ours: median(&samples),
            budget: None,
            ratio_max: None,
            samples,
        }
    }

    pub fn budget(mut self, budget: f64) -> Row {
        self.budget = Some(budget);
        self
    }

    /// `ratio_max` is what counts with `--quick`, for times.
    pub fn floor(mut self, floor: f64, ratio_max: f64) -> Row {
        self.floor = Some(floor);
        self.ratio_max = Some(ratio_max);
        self
    }

    /// The worst sample counts, not the middle one.
    pub fn worst(mut self) -> Row {
        self.ours = self.samples.iter().copied().fold(0.0, f64::max);
        self
    }

    pub fn ratio(&self) -> Option<f64> {
        self.floor
            .filter(|floor| *floor > 0.0)
            .map(|floor| self.ours / floor)
    }

    /// With `quick`, times are judged by their ratio to the floor alone: any machine may run it.
    pub fn verdict(&self, quick: bool) -> Verdict {
        // Without what it is compared with nothing is known to be good.
        if self.floor.is_some_and(|floor| !floor.is_finite()) {
            return Verdict::Over;
        }
        let over = |limit: Option<f64>, value: Option<f64>| match (limit, value) {
            (Some(limit), Some(value)) => Some(value > limit),
            _ => None,
        };
        let by_ratio = over(self.ratio_max, self.ratio());
        let by_budget = over(self.budget, Some(self.ours));
        let decided = if quick && self.unit == Unit::Ms {
            by_ratio
        } else {
            by_budget
        };
        match decided {
            Some(true) => Verdict::Over,
            Some(false) => Verdict::Ok,
            None => Verdict::Told,
        }
    }
}

pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

fn shown(value: Option<f64>, unit: Unit) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if unit == Unit::Count => format!("{value:.0}"),
        Some(value) => {
            let digits = if value < 10.0 {
                2
            } else {
                usize::from(value < 100.0)
            };
            format!("{value:.digits$} {}", unit.name())
        }
    }
}

pub fn header() -> String {
    format!(
        "{:<58} {:>11} {:>11} {:>7} {:>11}  verdict",
        "what", "floor", "ours", "ratio", "at most"
    )
}

pub fn line(row: &Row, quick: bool) -> String {
    let verdict = match row.verdict(quick) {
        Verdict::Ok => "ok",
        Verdict::Over => "OVER",
        Verdict::Told => "",
    };
    let by_ratio = quick && row.unit == Unit::Ms;
    let most = match (by_ratio, row.ratio_max) {
        (true, Some(ratio)) => format!("{ratio:.1} x"),
        _ => shown(row.budget, row.unit),
    };
    let ratio = row
        .ratio()
        .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
    let line = format!(
        "{:<58} {:>11} {:>11} {ratio:>7} {most:>11}  {verdict}",
        row.what,
        shown(row.floor, row.unit),
        shown(Some(row.ours), row.unit),
    );
    line.trim_end().to_owned()
}

pub fn json(rows: &[Row], facts: Value, quick: bool) -> Value {
    let row = |row: &Row| {
        json!({
            "id": row.id,
            "what": row.what,
            "unit": row.unit.name(),
            "floor": row.floor,
            "ours": row.ours,
            "ratio": row.ratio(),
            "budget": row.budget,
            "ratio_max": row.ratio_max,
            "samples": row.samples,
            "verdict": match row.verdict(quick) {
                Verdict::Ok => "ok",
                Verdict::Over => "over",
                Verdict::Told => "told",
            },
        })
    };
    json!({ "machine": facts, "quick": quick, "rows": rows.iter().map(row).collect::<Vec<_>>() })
}
