//! The closest known word to one that is not known.

/// Longest word that is compared, in bytes; no name of ours comes near it.
const WORD_BYTES_MAX: usize = 64;

/// The candidate that was most likely meant, if any is near enough to be worth naming.
///
/// Case does not count. Near enough: at most a third of the word's letters differ,
/// or the word begins a candidate.
pub(super) fn closest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    if word.is_empty() || word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            let candidate_lower = candidate.to_lowercase();
            let mut edits = distance(&word, &candidate_lower);
            if edits > allowed && word.len() > 2 && candidate_lower.starts_with(&word) {
                edits = allowed;
            }
            (edits, candidate)
        })
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Letters to add, remove, change or swap with their neighbour to turn one word into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous = None;
    for (row, letter) in from.chars().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let changed = last[column] + usize::from(letter != *other);
            let mut best = changed.min(last[column + 1] + 1).min(current[column] + 1);
            if column > 0 && previous == Some(*other) && to[column - 1] == letter {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
        previous = Some(letter);
    }
    last[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (from, to, edits) in [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("sync", "snyc", 1),
            ("kitten", "sitting", 3),
            ("watch", "wacht", 2),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(from, to), edits, "{from} {to}");
        }
    }

    #[test]
    fn names_what_was_meant() {
        let names = ["cosmos-url", "cosmos-table", "config", "settle", "sync"];
        for (word, expected) in [
            ("cosmosUrl", Some("cosmos-url")),
            ("cosmos_table", Some("cosmos-table")),
            ("confg", Some("config")),
            ("CONFIG", Some("config")),
            ("conf", Some("config")),
            ("snyc", Some("sync")),
            ("frobnicate", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(closest(word, names), expected, "{word}");
        }
        assert_eq!(closest(&"a".repeat(100_000), names), None);
    }
}
