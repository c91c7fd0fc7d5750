//! `cosmonaut plan`: what a pass would change in haproxy.cfg, and what HAProxy would be told. Pure.

use crate::haproxy::{Plan, Told};
use crate::report::diff;

/// The diff, as a patch; what HAProxy would be told stands before it, where patch skips it.
///
/// `stand_in` when the built-in registry answered in the place of Cosmos.
pub fn in_words(plan: &Plan, stand_in: bool) -> String {
    let mut text = String::new();
    if stand_in {
        text.push_str(
            "# Cosmos was not asked, since it stores what it is asked (--ask does it): the built-in registry stands in,\n\
             # so names and order differ from what Cosmos would say.\n",
        );
    }
    let path = plan.path.display().to_string();
    let before = plan.before.as_deref();
    let diff = diff::unified(
        before.unwrap_or_default(),
        &plan.wanted,
        if before.is_some() { &path } else { "/dev/null" },
        &format!("{path} (planned)"),
    );
    text.push_str(match (&plan.told, diff.is_empty()) {
        (Told::Nothing, _) => "# HAProxy would be told nothing: it runs this config already.\n",
        (Told::Commands(_), _) => {
            "# HAProxy would be told by its runtime socket (if it runs what it took last; else to reload):\n"
        }
        (Told::Reload, true) => {
            "# HAProxy would be told to reload: the file is right, but HAProxy has not taken it yet.\n"
        }
        (Told::Reload, false) => "# HAProxy would be told to reload.\n",
    });
    if let Told::Commands(commands) = &plan.told {
        for command in commands {
            text.push_str(&format!("#   {command}\n"));
        }
    }
    text + &diff
}

/// Whether a pass would change something.
pub fn changes(plan: &Plan) -> bool {
    plan.told != Told::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plan_says() {
        for (before, wanted, told, stand_in, lines) in [
            (
                Some("a\n"),
                "a\n",
                Told::Nothing,
                false,
                &["# HAProxy would be told nothing: it runs this config already."][..],
            ),
            (
                None,
                "a\n",
                Told::Reload,
                false,
                &[
                    "# HAProxy would be told to reload.",
                    "--- /dev/null",
                    "+++ /h.cfg (planned)",
                    "@@ -0,0 +1 @@",
                    "+a",
                ],
            ),
            (
                Some("a\n"),
                "b\n",
                Told::Commands(vec!["del server be_a/x".to_owned()]),
                false,
                &[
                    "# HAProxy would be told by its runtime socket (if it runs what it took last; else to reload):",
                    "#   del server be_a/x",
                    "--- /h.cfg",
                    "+++ /h.cfg (planned)",
                    "@@ -1 +1 @@",
                    "-a",
                    "+b",
                ],
            ),
            (
                Some("a\n"),
                "a\n",
                Told::Reload,
                true,
                &[
                    "# Cosmos was not asked, since it stores what it is asked (--ask does it): the built-in registry stands in,",
                    "# so names and order differ from what Cosmos would say.",
                    "# HAProxy would be told to reload: the file is right, but HAProxy has not taken it yet.",
                ],
            ),
        ] {
            let changes_something = told != Told::Nothing;
            let plan = Plan {
                path: "/h.cfg".into(),
                before: before.map(str::to_owned),
                wanted: wanted.to_owned(),
                told,
            };
            let said = in_words(&plan, stand_in);
            assert_eq!(said.lines().collect::<Vec<_>>(), lines);
            assert_eq!(changes(&plan), changes_something);
        }
    }
}
