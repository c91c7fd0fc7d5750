//! The registry: Cosmos within reach and in time, or the base of the built-in one.

use std::time::Duration;

use super::docker::clock;
use super::{Ask, Budget, Finding, Registry, Subject};
use crate::registry::cosmos::Cosmos;

/// A look at Cosmos: name, connection, TLS and the gateway's own answer.
const REACH_MAX: Duration = Duration::from_secs(4);
/// A question to Cosmos: the first one of a new table takes over 2 s, a cold function some more.
const ASK_MAX: Duration = Duration::from_secs(10);
/// No such path, where a gateway would refuse the method.
const NOT_FOUND: u16 = 404;

/// Looks at the registry.
pub fn look(subject: &Subject, budget: Budget, tell: &mut dyn FnMut(Finding)) {
    match &subject.registry {
        Registry::BuiltIn(path, Ok(())) => {
            tell(Finding::ok("registry", "the built-in one"));
            tell(Finding::ok(
                "base",
                match path {
                    Some(path) => format!("{} can be used", path.display()),
                    None => "the built-in one".to_owned(),
                },
            ));
        }
        Registry::BuiltIn(_, Err(error)) => tell(Finding::error(
            "base",
            error,
            "--base names a file with global, defaults and a frontend; mend it, or leave --base away",
        )),
        Registry::Cosmos(cosmos, ask) => match cosmos.as_ref() {
            Ok(cosmos) => look_at_cosmos(cosmos, *ask, &subject.table, budget, tell),
            Err(error) => tell(Finding::error(
                "cosmos",
                error,
                "mend --cosmos-url, --cosmos-header or --cosmos-ca",
            )),
        },
    }
}

fn look_at_cosmos(
    cosmos: &Cosmos,
    ask: Ask,
    table: &str,
    budget: Budget,
    tell: &mut dyn FnMut(Finding),
) {
    let shown = cosmos.shown();
    let limit = match budget.take("cosmos", REACH_MAX) {
        Ok(limit) => limit,
        Err(finding) => return tell(finding),
    };
    match cosmos.reach(limit) {
        Err(error) => {
            tell(Finding::error(
                "cosmos",
                &error,
                &format!("is --cosmos-url right? it is {shown}; curl -sI {shown} tries the same"),
            ));
            return;
        }
        Ok(reached) => {
            let not_found = reached.status == NOT_FOUND && ask == Ask::No;
            tell(if not_found {
                Finding::warn(
                    "cosmos",
                    format!("{shown} is within reach, but knows no such path (404)"),
                    "the URL ends at the stage (.../api), /generate is added; doctor --ask makes sure",
                )
            } else {
                Finding::ok(
                    "cosmos",
                    format!("{shown} is within reach (it answers {})", reached.status),
                )
            });
            tell(clock("cosmos-clock", "Cosmos's", reached.clock));
        }
    }
    if ask == Ask::No {
        tell(Finding::ok(
            "cosmos-answer",
            "not asked, since it stores what it is asked; doctor --ask sends an empty question",
        ));
        return;
    }
    let limit = match budget.take("cosmos-answer", ASK_MAX) {
        Ok(limit) => limit,
        Err(finding) => return tell(finding),
    };
    tell(match cosmos.ask_empty(table, limit) {
        Ok(bytes) => Finding::ok(
            "cosmos-answer",
            format!("an empty question to table {table} gave a config of {bytes} bytes"),
        ),
        Err(error) => Finding::error(
            "cosmos-answer",
            &error,
            "is --cosmos-url right up to the stage (.../api)?",
        ),
    });
}
