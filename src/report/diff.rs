//! The unified diff of two texts, line by line. Pure.
//!
//! Lines that are unique in both texts anchor it (patience diff), so a server moves with its backend; what
//! lies between two anchors is compared exactly as long as it is small. Time and memory stay near linear
//! for configs of any size. Format: POSIX `diff -u`.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::ops::Range;

use crate::order;

/// Unchanged lines shown around a change.
const CONTEXT: usize = 3;
/// Largest stretch that is compared exactly, in pairs of lines; past it the whole stretch counts as changed.
const EXACT_PAIRS_MAX: usize = 1_000_000;

/// One line of the way from the old text to the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step<'t> {
    sign: char,
    line: &'t str,
}

/// The unified diff from `old` to `new` with these names for them; empty when they are equal.
pub fn unified(old: &str, new: &str, old_name: &str, new_name: &str) -> String {
    let steps = steps(&lines(old), &lines(new));
    let mut text = String::new();
    let (mut at, mut old_line, mut new_line) = (0, 0, 0);
    for hunk in hunks(&steps) {
        if text.is_empty() {
            let _ = writeln!(text, "--- {old_name}\n+++ {new_name}");
        }
        let (old_skipped, new_skipped) = count(steps.get(at..hunk.start));
        old_line += old_skipped;
        new_line += new_skipped;
        let shown = steps.get(hunk.clone()).unwrap_or_default();
        let (old_shown, new_shown) = count(Some(shown));
        let _ = writeln!(
            text,
            "@@ -{} +{} @@",
            span(old_line, old_shown),
            span(new_line, new_shown)
        );
        for step in shown {
            text.push(step.sign);
            text.push_str(step.line);
            if !step.line.ends_with('\n') {
                text.push_str("\n\\ No newline at end of file\n");
            }
        }
        old_line += old_shown;
        new_line += new_shown;
        at = hunk.end;
    }
    text
}

/// Lines with their line ends, so that a missing last one counts.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

/// Ranges of steps that hold changes with the context around them; two that touch are one.
fn hunks(steps: &[Step<'_>]) -> Vec<Range<usize>> {
    let mut hunks: Vec<Range<usize>> = Vec::new();
    for (at, _) in steps.iter().enumerate().filter(|(_, s)| s.sign != ' ') {
        let (start, end) = (
            at.saturating_sub(CONTEXT),
            (at + 1 + CONTEXT).min(steps.len()),
        );
        match hunks.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

/// How many lines of the old and of the new text these steps hold.
fn count(steps: Option<&[Step<'_>]>) -> (usize, usize) {
    let steps = steps.unwrap_or_default();
    let without = |sign| steps.iter().filter(|step| step.sign != sign).count();
    (without('+'), without('-'))
}

/// `START,COUNT` after so many lines; the start of an empty range is the line before it.
fn span(lines_before: usize, count: usize) -> String {
    match count {
        0 => format!("{lines_before},0"),
        1 => (lines_before + 1).to_string(),
        _ => format!("{},{count}", lines_before + 1),
    }
}

fn steps<'t>(old: &[&'t str], new: &[&'t str]) -> Vec<Step<'t>> {
    let mut pairs = Vec::new();
    common(old, new, 0, 0, &mut pairs);
    let mut steps = Vec::with_capacity(old.len() + new.len());
    let (mut i, mut j) = (0, 0);
    for &(x, y) in pairs.iter().chain([&(old.len(), new.len())]) {
        let signed = |sign, lines: Option<&[&'t str]>| {
            let lines = lines.unwrap_or_default().to_vec();
            lines.into_iter().map(move |line| Step { sign, line })
        };
        steps.extend(signed('-', old.get(i..x)));
        steps.extend(signed('+', new.get(j..y)));
        steps.extend(signed(' ', old.get(x..=x)));
        (i, j) = (x + 1, y + 1);
    }
    steps
}

/// Finds pairs of equal lines, in order; `i` and `j` are where the two stretches begin in their texts.
fn common(old: &[&str], new: &[&str], i: usize, j: usize, pairs: &mut Vec<(usize, usize)>) {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    pairs.extend((0..head).map(|at| (i + at, j + at)));
    let (old, new) = (
        old.get(head..).unwrap_or_default(),
        new.get(head..).unwrap_or_default(),
    );
    let (i, j) = (i + head, j + head);
    let tail = old
        .iter()
        .rev()
        .zip(new.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let (inner_old, inner_new) = (
        old.get(..old_end).unwrap_or_default(),
        new.get(..new_end).unwrap_or_default(),
    );
    if !inner_old.is_empty() && !inner_new.is_empty() {
        let anchors = anchors(inner_old, inner_new);
        if anchors.is_empty() {
            exact(inner_old, inner_new, i, j, pairs);
        } else {
            let (mut x, mut y) = (0, 0);
            let end = [(inner_old.len(), inner_new.len())];
            for (to_x, to_y) in anchors.into_iter().chain(end) {
                let gap = (inner_old.get(x..to_x), inner_new.get(y..to_y));
                if let (Some(gap_old), Some(gap_new)) = gap {
                    common(gap_old, gap_new, i + x, j + y, pairs);
                }
                if to_x < inner_old.len() {
                    pairs.push((i + to_x, j + to_y));
                }
                (x, y) = (to_x + 1, to_y + 1);
            }
        }
    }
    pairs.extend((0..tail).map(|at| (i + old_end + at, j + new_end + at)));
}

/// Lines that occur once on each side, as many of them as stand in the same order on both.
fn anchors(old: &[&str], new: &[&str]) -> Vec<(usize, usize)> {
    let once = |lines: &[&str]| {
        let mut places: HashMap<String, Option<usize>> = HashMap::with_capacity(lines.len());
        for (at, line) in lines.iter().enumerate() {
            places
                .entry((*line).to_owned())
                .and_modify(|place| *place = None)
                .or_insert(Some(at));
        }
        places
    };
    let there = once(new);
    let mut pairs: Vec<(usize, usize)> = once(old)
        .into_iter()
        .filter_map(|(line, at)| Some((at?, (*there.get(&line)?)?)))
        .collect();
    order::sort(&mut pairs);
    longest_rising(&pairs)
}

/// The longest subsequence whose second numbers rise, by patience sorting.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length the index of the pair that ends such a sequence lowest; and each pair's forerunner.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    let second = |index: &usize| pairs.get(*index).map_or(0, |(_, y)| *y);
    for (index, (_, y)) in pairs.iter().enumerate() {
        let length = ends.partition_point(|end| second(end) < *y);
        before.push(length.checked_sub(1).and_then(|l| ends.get(l).copied()));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut rising = Vec::with_capacity(ends.len());
    let mut at = ends.last().copied();
    while let Some(index) = at {
        rising.extend(pairs.get(index));
        at = before.get(index).copied().flatten();
    }
    rising.reverse();
    rising
}

/// The longest common subsequence of two small stretches, by the textbook's table.
fn exact(old: &[&str], new: &[&str], i: usize, j: usize, pairs: &mut Vec<(usize, usize)>) {
    if old.len().saturating_mul(new.len()) > EXACT_PAIRS_MAX {
        return;
    }
    let width = new.len() + 1;
    let mut best = vec![0_u32; (old.len() + 1) * width];
    let cell = |best: &[u32], x: usize, y: usize| best.get(x * width + y).copied().unwrap_or(0);
    for (x, a) in old.iter().enumerate().rev() {
        for (y, b) in new.iter().enumerate().rev() {
            let value = if a == b {
                cell(&best, x + 1, y + 1) + 1
            } else {
                cell(&best, x + 1, y).max(cell(&best, x, y + 1))
            };
            if let Some(cell) = best.get_mut(x * width + y) {
                *cell = value;
            }
        }
    }
    let (mut x, mut y) = (0, 0);
    while let (Some(a), Some(b)) = (old.get(x), new.get(y)) {
        if a == b {
            pairs.push((i + x, j + y));
            (x, y) = (x + 1, y + 1);
        } else if cell(&best, x + 1, y) >= cell(&best, x, y + 1) {
            x += 1;
        } else {
            y += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_diffs() {
        for (old, new, expected) in [
            ("a\n", "a\n", ""),
            ("", "", ""),
            ("", "a\nb\n", "@@ -0,0 +1,2 @@\n+a\n+b\n"),
            ("a\nb\n", "", "@@ -1,2 +0,0 @@\n-a\n-b\n"),
            ("a\n", "b\n", "@@ -1 +1 @@\n-a\n+b\n"),
            (
                "a\n",
                "a",
                "@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n",
            ),
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
                "1\n2\n3\n4\nx\n5\n6\n7\n8\n9\n",
                "@@ -2,6 +2,7 @@\n 2\n 3\n 4\n+x\n 5\n 6\n 7\n",
            ),
            // Two changes far apart are two hunks, near ones are one.
            (
                "1\n2\n3\n4\n5\n6\n7\n8\n9\n",
                "x\n2\n3\n4\n5\n6\n7\n8\ny\n",
                "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -6,4 +6,4 @@\n 6\n 7\n 8\n-9\n+y\n",
            ),
            (
                "backend a\n  server 1\n\nbackend b\n  server 2\n",
                "backend a\n  server 1\n  server 3\n\nbackend b\n  server 2\n",
                "@@ -1,5 +1,6 @@\n backend a\n   server 1\n+  server 3\n \n backend b\n   server 2\n",
            ),
            // Nothing is unique: compared exactly.
            (
                "a\na\nb\nb\n",
                "b\nb\na\na\nb\n",
                "@@ -1,4 +1,5 @@\n+b\n+b\n a\n a\n-b\n b\n",
            ),
        ] {
            let expected = if expected.is_empty() {
                String::new()
            } else {
                format!("--- old\n+++ new\n{expected}")
            };
            assert_eq!(unified(old, new, "old", "new"), expected, "{old:?} {new:?}");
        }
    }

    /// The new text, made of the old one and the diff, every count and context line of it checked.
    fn applied(old: &str, diff: &str) -> String {
        let old = lines(old);
        let mut new = String::new();
        let mut at = 0;
        let mut left = (0, 0);
        for line in diff.lines().skip(2) {
            if let Some(header) = line.strip_prefix("@@ -") {
                assert_eq!(left, (0, 0), "counts before {line}");
                let (old_part, rest) = header.split_once(" +").expect(line);
                let part = |text: &str| -> (usize, usize) {
                    let (start, count) = text.split_once(',').unwrap_or((text, "1"));
                    (start.parse().expect("start"), count.parse().expect("count"))
                };
                let (start, count) = part(old_part);
                let (new_start, new_count) = part(rest.strip_suffix(" @@").expect(line));
                let to = if count == 0 { start } else { start - 1 };
                new.push_str(&old[at..to].concat());
                at = to;
                let lines_so_far = new.lines().count();
                let expected = if new_count == 0 {
                    new_start
                } else {
                    new_start - 1
                };
                assert_eq!(lines_so_far, expected, "{line}");
                left = (count, new_count);
                continue;
            }
            let text = format!("{}\n", line.get(1..).expect("a sign"));
            match line.as_bytes().first() {
                Some(b'+') => left.1 -= 1,
                sign => {
                    assert_eq!(old[at], text, "{line}");
                    at += 1;
                    left.0 -= 1;
                    if sign == Some(&b' ') {
                        left.1 -= 1;
                    } else {
                        continue;
                    }
                }
            }
            new.push_str(&text);
        }
        assert_eq!(left, (0, 0));
        new + &old[at..].concat()
    }

    #[test]
    fn every_diff_makes_the_new_text_of_the_old_one() {
        // All pairs of words of up to five lines out of two, and long ones with changes in many places.
        let mut words = vec![String::new()];
        for length in 1..=5_u32 {
            for bits in 0..2_u32.pow(length) {
                let line = |at: u32| if bits >> at & 1 == 0 { "a\n" } else { "b\n" };
                words.push((0..length).map(line).collect());
            }
        }
        for old in &words {
            for new in &words {
                let diff = unified(old, new, "o", "n");
                assert_eq!(applied(old, &diff), *new, "{diff}");
            }
        }
        let long: Vec<String> = (0..5_000)
            .map(|n| format!("line {}\n", n % 1_700))
            .collect();
        let old = long.concat();
        let changed: String = long
            .iter()
            .enumerate()
            .filter(|(at, _)| at % 97 != 0)
            .map(|(at, line)| if at % 89 == 0 { "new\n" } else { line.as_str() })
            .collect();
        assert_eq!(applied(&old, &unified(&old, &changed, "o", "n")), changed);
        let reversed: String = long.iter().rev().map(String::as_str).collect();
        assert_eq!(applied(&old, &unified(&old, &reversed, "o", "n")), reversed);
    }
}
