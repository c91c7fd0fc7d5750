//! Why one value is not taken, before it is known whether an option or a variable brought it.

/// Longest piece of a value that a message repeats, in characters.
const QUOTED_MAX: usize = 80;

/// Reason and example for one refused value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// What is wrong, with the value unless it may be secret.
    pub why: String,
    /// What would be right.
    pub hint: String,
}

impl Refusal {
    pub(super) fn new(why: impl Into<String>, hint: impl Into<String>) -> Self {
        Refusal {
            why: why.into(),
            hint: hint.into(),
        }
    }
}

/// The value in quotes, on one line and without control characters, however it came.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::from("'");
    for character in value.chars().take(QUOTED_MAX) {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    if value.chars().nth(QUOTED_MAX).is_some() {
        text.push_str("...");
    }
    text.push('\'');
    text
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_value_stays_on_one_line() {
        assert_eq!(quoted("a\nb\x1b[31m"), r"'a\nb\u{1b}[31m'");
        assert_eq!(quoted(&"x".repeat(81)), format!("'{}...'", "x".repeat(80)));
        assert_eq!(quoted(&"ü".repeat(80)), format!("'{}'", "ü".repeat(80)));
    }
}
