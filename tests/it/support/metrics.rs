//! A strict reader of Prometheus's text format 0.0.4, as far as a textfile may use it: what `promtool check
//! metrics` and the collector would refuse fails the test.

use std::collections::{BTreeMap, BTreeSet};

/// One file.
pub struct Page {
    series: BTreeMap<String, f64>,
}

impl Page {
    /// Reads and checks a whole file. An empty one has no series.
    #[track_caller]
    pub fn parse(text: &str) -> Page {
        assert!(
            text.is_empty() || text.ends_with('\n'),
            "the last line ends"
        );
        let mut series = BTreeMap::new();
        let mut families = BTreeSet::new();
        let mut family = (String::new(), String::new());
        let mut helped = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("help has words");
                assert!(is_name(name) && !words.trim().is_empty(), "{line}");
                helped = name.to_owned();
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!(name, helped, "HELP stands before TYPE");
                assert!(["counter", "gauge", "summary"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                assert!(families.insert(name.to_owned()), "{name} comes twice");
                family = (name.to_owned(), kind.to_owned());
                continue;
            }
            assert!(!line.starts_with('#') && !line.is_empty(), "{line:?}");
            let (id, value) = line.rsplit_once(' ').expect("a value");
            let name = id.split('{').next().unwrap_or(id);
            assert!(is_name(name), "{line}");
            let part = name.strip_prefix(family.0.as_str());
            let belongs = match family.1.as_str() {
                "summary" => matches!(part, Some("_sum" | "_count")),
                _ => part == Some(""),
            };
            assert!(belongs, "{line} stands under {}", family.0);
            if let Some(labels) = id.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                check_labels(labels);
            }
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(
                series.insert(id.to_owned(), value).is_none(),
                "{id} comes twice"
            );
        }
        Page { series }
    }

    /// The value of one series, written as in the file.
    pub fn get(&self, series: &str) -> Option<f64> {
        self.series.get(series).copied()
    }
}

fn is_name(name: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    name.bytes().next().is_some_and(letter) && name.bytes().all(|b| letter(b) || b.is_ascii_digit())
}

/// `{name="value",...}`, each name once, values escaped.
#[track_caller]
fn check_labels(labels: &str) {
    let inner = labels
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .unwrap_or_else(|| panic!("{labels}"));
    let mut names = BTreeSet::new();
    let mut rest = inner;
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").expect(labels);
        assert!(is_name(name) && names.insert(name), "{labels}");
        let mut escaped = false;
        let end = after
            .char_indices()
            .find(|(_, c)| {
                let ends = *c == '"' && !escaped;
                assert!(!escaped || matches!(*c, '"' | '\\' | 'n'), "{labels}");
                escaped = *c == '\\' && !escaped;
                ends
            })
            .expect(labels)
            .0;
        rest = after.get(end + 1..).unwrap_or_default();
        rest = match rest.strip_prefix(',') {
            Some(next) => next,
            None => {
                assert!(rest.is_empty(), "{labels}");
                rest
            }
        };
    }
}
