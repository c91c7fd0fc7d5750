//! Arguments and environment to a `Command`. Parsing starts nothing: no I/O, no logging;
//! the environment is handed in as a lookup.
//!
//! All names come from the table in `table`. Flag beats environment beats default. Options
//! may stand before or after the command; of a repeated option the last one counts, but for
//! `--cosmos-header`, `-v` and `-q`, where each counts. Help, version and completions are
//! printed whatever the environment holds.

mod closest;
mod completions;
mod duration;
mod help;
mod options;
#[cfg(test)]
mod pages;
mod refusal;
pub mod table;
#[cfg(test)]
mod tests;
mod url;

pub use options::{Headers, OnOutage, Options, WeaveUse};

use closest::closest;
use lexopt::Arg;
use options::{Source, argument_text};
use refusal::quoted;
use std::ffi::{OsStr, OsString};
use std::fmt;
use table::{CommandSpec, Id, Kind, OptionSpec};

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Do this with these options.
    Run(Action, Box<Options>),
    /// Print this text to stdout, as it is, and exit 0.
    Print(String),
}

/// The commands that need options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// One pass.
    Sync,
    /// Follow Docker until stopped.
    Watch,
    /// One pass that changes nothing.
    Plan {
        /// Cosmos may be asked, though it stores what it is asked.
        ask: bool,
    },
    /// Say why containers are routed or not.
    Explain {
        /// Name or id of the only one to explain.
        container: Option<String>,
        /// JSON instead of text.
        json: bool,
    },
    /// Check everything that a pass needs.
    Doctor {
        /// Cosmos may be asked with an empty payload.
        ask: bool,
        /// JSON instead of text.
        json: bool,
    },
    /// What the running watch last did.
    Status {
        /// JSON instead of text.
        json: bool,
    },
    /// The last configs.
    History,
    /// Back to config N of the history, counted from 1; `None`: the one before the present one.
    Rollback(Option<u32>),
    /// End what rollback holds.
    Resume,
}

/// A command line that cannot be meant: exit code 2. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError {
    message: String,
    hint: Option<String>,
}

impl UsageError {
    fn new(message: impl Into<String>) -> Self {
        UsageError {
            message: message.into(),
            hint: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The mend, if one can be guessed.
    pub fn hint_text(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for UsageError {}

/// Reads the arguments, without the program's name.
///
/// `variable` looks up an environment variable. `script` is the text of the built-in reload
/// script, for `help script`.
///
/// # Errors
/// Anything on the command line, or in a variable that the command reads, that is unknown,
/// missing or malformed; the message names the option or variable.
pub fn parse<I>(
    arguments: I,
    variable: &dyn Fn(&str) -> Option<OsString>,
    script: &str,
) -> Result<Command, UsageError>
where
    I: IntoIterator,
    I::Item: Into<OsString>,
{
    let mut line = Line::default();
    let read = line.read(lexopt::Parser::from_args(arguments));
    let name = line.words.first().map(|word| argument_text(word));
    let command = name.as_deref().and_then(table::command);
    if line.has(Id::Help) {
        // Whoever asks for help gets it, whatever else the line holds.
        return Ok(Command::Print(match command {
            Some(command) => help::of_command(command),
            None => help::all(),
        }));
    }
    read?;
    if line.has(Id::Version) {
        let version = concat!("cosmonaut ", env!("CARGO_PKG_VERSION"), "\n");
        return Ok(Command::Print(version.to_owned()));
    }
    let Some(name) = name else {
        return Err(UsageError::new("missing command")
            .hint("try cosmonaut sync or cosmonaut watch; cosmonaut help lists all"));
    };
    let command = command.ok_or_else(|| unknown_command(&name))?;
    let argument = line.argument(command)?;
    match command.name {
        "help" => return help_topic(argument, script).map(Command::Print),
        "completions" => return shell_completions(argument).map(Command::Print),
        _ => {}
    }
    line.check_belonging(command)?;
    let source = Source {
        given: &line.given,
        variable,
    };
    let ask = source.own_switch(Id::Ask)?;
    let json = source.own_switch(Id::Json)?;
    let action = match command.name {
        "sync" => Action::Sync,
        "watch" => Action::Watch,
        "plan" => Action::Plan { ask },
        "explain" => Action::Explain {
            container: argument.map(container_name).transpose()?,
            json,
        },
        "doctor" => Action::Doctor { ask, json },
        "status" => Action::Status { json },
        "history" => Action::History,
        "rollback" => Action::Rollback(argument.map(history_number).transpose()?),
        "resume" => Action::Resume,
        _ => return Err(unknown_command(&name)),
    };
    Ok(Command::Run(action, Box::new(source.options()?)))
}

/// What stands on the command line, before it is known what it means.
#[derive(Default)]
struct Line {
    given: Vec<(&'static OptionSpec, Option<OsString>)>,
    words: Vec<OsString>,
}

impl Line {
    fn has(&self, id: Id) -> bool {
        self.given.iter().any(|(spec, _)| spec.id == id)
    }

    /// Reads as far as the line makes sense.
    fn read(&mut self, mut parser: lexopt::Parser) -> Result<(), UsageError> {
        while let Some(argument) = parser.next().map_err(surplus_value)? {
            let (spec, is_long) = match argument {
                Arg::Value(word) => {
                    self.words.push(word);
                    continue;
                }
                Arg::Short(short) => {
                    let spec = table::by_short(short).ok_or_else(|| unknown_short(short))?;
                    (spec, false)
                }
                Arg::Long(long) => {
                    let spec = table::by_long(long).ok_or_else(|| unknown_long(long))?;
                    (spec, true)
                }
            };
            let value = match spec.kind {
                Kind::Count => None,
                // A short switch may have others behind it, as in -vq; only = is its value.
                Kind::Switch if is_long => parser.optional_value(),
                Kind::Switch => None,
                _ => Some(value(&mut parser, spec)?),
            };
            self.given.push((spec, value));
        }
        Ok(())
    }

    /// The argument of the command, if it has one and is given one.
    fn argument(&self, command: &CommandSpec) -> Result<Option<&OsStr>, UsageError> {
        let mut rest = self.words.iter().skip(1).map(OsString::as_os_str);
        let argument = match command.argument {
            "" => None,
            usage => {
                let argument = rest.next();
                if argument.is_none() && !usage.starts_with('[') {
                    let message = format!("{}: missing {usage}", command.name);
                    return Err(
                        UsageError::new(message).hint(format!("give it as in {}", command.example))
                    );
                }
                argument
            }
        };
        match rest.next() {
            None => Ok(argument),
            Some(surplus) => {
                let surplus = quoted(&argument_text(surplus));
                let hint = format!(
                    "usage: {}; options begin with --, their values follow them",
                    help::usage(command)
                );
                Err(
                    UsageError::new(format!("{}: unexpected argument {surplus}", command.name))
                        .hint(hint),
                )
            }
        }
    }

    /// Options of other commands are refused, so that none is silently without effect.
    fn check_belonging(&self, command: &CommandSpec) -> Result<(), UsageError> {
        for (spec, _) in &self.given {
            if !spec.commands.is_empty() && !spec.commands.contains(&command.name) {
                let message = format!("{} takes no {}", command.name, spec.flag());
                let hint = format!("it belongs to {}", spec.commands.join(", "));
                return Err(UsageError::new(message).hint(hint));
            }
        }
        Ok(())
    }
}

/// The value of an option; another option in its place means that it was forgotten.
fn value(parser: &mut lexopt::Parser, spec: &OptionSpec) -> Result<OsString, UsageError> {
    if let Some(value) = parser.optional_value() {
        return Ok(value);
    }
    let wanted = spec.value.unwrap_or("value");
    let missing = || UsageError::new(format!("{}: missing {wanted}", spec.flag()));
    let value = parser
        .value()
        .map_err(|_| missing().hint(format!("give it as in {}", spec.usage())))?;
    if is_option(&value) {
        let text = argument_text(&value);
        // What has an `@` in it may be an address with a password.
        let (shown, text) = match text.contains('@') {
            true => ("it", wanted),
            false => (text.as_str(), text.as_str()),
        };
        let hint = format!(
            "if {shown} is meant as the value, write {}={text}",
            spec.flag()
        );
        return Err(missing().hint(hint));
    }
    Ok(value)
}

/// Whether an argument is one of our options, also with `=` and a value.
fn is_option(argument: &OsStr) -> bool {
    let Some(text) = argument.to_str() else {
        return false;
    };
    if let Some(long) = text.strip_prefix("--") {
        let name = long.split('=').next().unwrap_or(long);
        return table::by_long(name).is_some();
    }
    let mut letters = text.chars();
    letters.next() == Some('-')
        && letters.next().and_then(table::by_short).is_some()
        && letters.next().is_none()
}

/// A value behind something that takes none.
fn surplus_value(error: lexopt::Error) -> UsageError {
    match error {
        // The value is left out: it may be a secret meant for another option.
        lexopt::Error::UnexpectedValue { option, .. } => {
            UsageError::new(format!("{option}: takes no value"))
                .hint("leave out what follows the =")
        }
        other => UsageError::new(other.to_string()),
    }
}

fn unknown_long(long: &str) -> UsageError {
    let error = UsageError::new(format!("unknown option {}", quoted(&format!("--{long}"))));
    match closest(long, table::OPTIONS.iter().map(|option| option.long)) {
        Some(meant) => error.hint(format!("did you mean --{meant}?")),
        None => match table::command(long) {
            Some(command) => error.hint(format!(
                "{} is a command: write it without --",
                command.name
            )),
            None => error.hint("cosmonaut help lists all options"),
        },
    }
}

fn unknown_short(short: char) -> UsageError {
    let other_case = if short.is_lowercase() {
        short.to_ascii_uppercase()
    } else {
        short.to_ascii_lowercase()
    };
    // Of one letter, the nearest is the other case; else the long option that begins so.
    let meant = table::by_short(other_case).or_else(|| {
        table::OPTIONS
            .iter()
            .find(|option| option.long.starts_with(other_case.to_ascii_lowercase()))
    });
    let error = UsageError::new(format!("unknown option {}", quoted(&format!("-{short}"))));
    match meant {
        Some(meant) => error.hint(format!("did you mean {}?", meant.usage())),
        None => error.hint("cosmonaut help lists all options"),
    }
}

fn unknown_command(name: &str) -> UsageError {
    let error = UsageError::new(format!("unknown command {}", quoted(name)));
    match closest(name, table::COMMANDS.iter().map(|command| command.name)) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("cosmonaut help lists all commands"),
    }
}

fn help_topic(topic: Option<&OsStr>, script: &str) -> Result<String, UsageError> {
    let Some(topic) = topic.map(argument_text) else {
        return Ok(help::all());
    };
    if topic == "script" {
        return Ok(script.to_owned());
    }
    match table::command(&topic) {
        Some(command) => Ok(help::of_command(command)),
        None => Err(unknown_command(&topic)),
    }
}

fn shell_completions(shell: Option<&OsStr>) -> Result<String, UsageError> {
    let shell = shell.map(argument_text).unwrap_or_default();
    completions::script(&shell).ok_or_else(|| {
        let message = format!("completions: unknown shell {}", quoted(&shell));
        UsageError::new(message).hint(format!("use one of {}", table::SHELLS.join(", ")))
    })
}

fn container_name(name: &OsStr) -> Result<String, UsageError> {
    match name.to_str() {
        Some(name) if !name.is_empty() => {
            // docker inspect shows names with a slash, and people copy them.
            Ok(name.strip_prefix('/').unwrap_or(name).to_owned())
        }
        _ => Err(UsageError::new(format!(
            "explain: {} is no container's name",
            quoted(&argument_text(name))
        ))
        .hint("give it as docker ps shows it")),
    }
}

fn history_number(number: &OsStr) -> Result<u32, UsageError> {
    match number.to_str().map(str::parse) {
        Some(Ok(number @ 1..)) => Ok(number),
        _ => Err(UsageError::new(format!(
            "rollback: {} is no number of the history",
            quoted(&argument_text(number))
        ))
        .hint("cosmonaut history lists them, counted from 1")),
    }
}
