//! Latency and memory against the number of containers, as an SVG that needs nothing but a browser.

use std::fmt::Write as _;

use crate::fleet::Point;
use crate::table::median;

/// Size of one panel, and the margins for its labels.
const PANEL: (f64, f64) = (330.0, 220.0);
const MARGIN: (f64, f64) = (62.0, 46.0);

struct Line {
    name: &'static str,
    colour: &'static str,
    points: Vec<(f64, f64)>,
}

/// Two panels: milliseconds from event to file, and MiB of a `watch` that does nothing.
pub fn draw(points: &[Point]) -> String {
    let mut all: Vec<&Point> = points
        .iter()
        .filter(|point| point.size.all == point.size.ours)
        .collect();
    all.sort_by_key(|point| point.size.all);
    let line = |name, colour, value: &dyn Fn(&Point) -> f64| Line {
        name,
        colour,
        points: all
            .iter()
            .map(|point| (point.size.all as f64, value(point)))
            .collect(),
    };
    let latency = [
        line("start", "#1f6feb", &|point| median(&point.start)),
        line("die", "#8250df", &|point| median(&point.die)),
        line("yardstick, start", "#8c959f", &|point| {
            median(&point.floor_start)
        }),
    ];
    let memory = [
        line("resident", "#1f6feb", &|point| point.memory.0),
        line("of it anonymous", "#8250df", &|point| point.memory.1),
        line("yardstick, resident", "#8c959f", &|point| {
            point.floor_memory
        }),
    ];
    let width = 2.0 * (PANEL.0 + MARGIN.0) + 24.0;
    let height = PANEL.1 + 2.0 * MARGIN.1 + 20.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n"
    );
    panel(
        &mut svg,
        MARGIN.0,
        "a lone change: milliseconds from event to file",
        &latency,
    );
    panel(
        &mut svg,
        PANEL.0 + 2.0 * MARGIN.0,
        "watch, idle: MiB",
        &memory,
    );
    svg.push_str("</svg>\n");
    svg
}

/// Both axes are logarithmic.
fn panel(svg: &mut String, left: f64, title: &str, lines: &[Line]) {
    let all = || {
        lines
            .iter()
            .flat_map(|line| &line.points)
            .filter(|(_, y)| y.is_finite() && *y > 0.0)
    };
    let decade = |value: f64, up: bool| {
        let exponent = value.log10();
        if up {
            exponent.ceil()
        } else {
            exponent.floor()
        }
    };
    let span = |values: Vec<f64>| {
        let low = decade(values.iter().copied().fold(f64::INFINITY, f64::min), false);
        let high = decade(
            values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            true,
        );
        (low, high.max(low + 1.0))
    };
    let (x, y) = (
        span(all().map(|point| point.0).collect()),
        span(all().map(|point| point.1).collect()),
    );
    let top = MARGIN.1;
    let at = |point: (f64, f64)| {
        let across = (point.0.log10() - x.0) / (x.1 - x.0);
        let up = (point.1.log10() - y.0) / (y.1 - y.0);
        (left + across * PANEL.0, top + (1.0 - up) * PANEL.1)
    };
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
        top - 12.0
    );
    for exponent in x.0 as i32..=x.1 as i32 {
        let value = 10_f64.powi(exponent);
        let (px, bottom) = at((value, 10_f64.powf(y.0)));
        let _ = writeln!(
            svg,
            "<path d=\"M{px:.1} {top}V{bottom:.1}\" stroke=\"#d0d7de\"/><text x=\"{px:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value}</text>",
            bottom + 15.0
        );
    }
    for exponent in y.0 as i32..=y.1 as i32 {
        let value = 10_f64.powi(exponent);
        let (_, py) = at((10_f64.powf(x.0), value));
        let _ = writeln!(
            svg,
            "<path d=\"M{left} {py:.1}H{:.1}\" stroke=\"#d0d7de\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            left + PANEL.0,
            left - 6.0,
            py + 4.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">containers</text>",
        left + PANEL.0 / 2.0,
        top + PANEL.1 + 30.0
    );
    for (index, line) in lines.iter().enumerate() {
        let path: Vec<String> = line
            .points
            .iter()
            .filter(|point| point.1.is_finite() && point.1 > 0.0)
            .map(|point| {
                let (px, py) = at(*point);
                format!("{px:.1},{py:.1}")
            })
            .collect();
        let colour = line.colour;
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for point in &path {
            let (px, py) = point.split_once(',').unwrap_or_default();
            let _ = writeln!(
                svg,
                "<circle cx=\"{px}\" cy=\"{py}\" r=\"3\" fill=\"{colour}\"/>"
            );
        }
        let row = top + 14.0 + 14.0 * index as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{row:.1}\" fill=\"{colour}\">{}</text>",
            left + 10.0,
            line.name
        );
    }
}
