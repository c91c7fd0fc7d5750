//! The texts of `help`, for a terminal of 80 columns. Everything in them is the table's.

use super::table::{COMMANDS, CommandSpec, EXIT_CODES, OPTIONS, OptionSpec};

/// Widest line, in columns.
const WIDTH: usize = 80;

/// What stands before the list of commands.
const ABOUT: &str = "Keeps the HAProxy of a Docker host in step with its containers: containers whose name holds the keyword and that say which service they belong to are routed; each config is checked before HAProxy takes it, and the last good one stays if anything fails.";

/// The whole help.
pub(super) fn all() -> String {
    let mut text = String::from("Usage: cosmonaut COMMAND [OPTION...]\n\n");
    wrap(&mut text, "", ABOUT);
    text.push_str("\nCommands:\n");
    let width = COMMANDS.iter().map(|c| call(c).len()).max().unwrap_or(0);
    for command in COMMANDS {
        let call = call(command);
        let mark = if command.built { "" } else { " *" };
        text.push_str(&format!("  {call:width$}  {}{mark}\n", command.summary));
    }
    if COMMANDS.iter().any(|command| !command.built) {
        text.push_str("  * not in this version: says so and exits 1\n");
    }
    text.push_str(
        "\nOptions, before or after the command; each beats its variable, which beats\nthe default. An empty variable counts as not set, but for COSMONAUT_KEYWORD:\n",
    );
    for option in OPTIONS {
        describe(&mut text, option);
    }
    text.push_str(
        "\nDurations are a whole number with ms, s, m or h: 250ms, 30s, 2m. A switch takes\n=on and =off, so that --trust-cosmos=off beats its variable.\n",
    );
    text.push_str(
        "Of Docker's own variables DOCKER_CONTEXT, DOCKER_CONFIG, DOCKER_CERT_PATH,\nDOCKER_TLS_VERIFY and DOCKER_API_VERSION are honoured too.\n",
    );
    exit_codes(&mut text);
    text.push_str(
        "\nThe variables of containers, the reload script and the files: man cosmonaut.\n",
    );
    text.push_str("\nExample:\n");
    text.push_str("  docker run -d --name asteroid-web-1 -e SERVICE_NAME=web \\\n");
    text.push_str("      -e PREDICATE=web.example.com -e PORT=8080 my-web-image\n");
    text.push_str("  cosmonaut watch --config /etc/haproxy/haproxy.cfg\n");
    text
}

/// The help of one command.
pub(super) fn of_command(command: &CommandSpec) -> String {
    let mut text = format!("Usage: {}\n\n", usage(command));
    wrap(&mut text, "", command.details);
    if !command.built {
        text.push_str("\nNot in this version: says so and exits 1.\n");
    }
    let own: Vec<&OptionSpec> = OPTIONS
        .iter()
        .filter(|option| option.commands.contains(&command.name))
        .collect();
    if !own.is_empty() {
        text.push_str("\nOptions of this command:\n");
        for option in own {
            describe(&mut text, option);
        }
    }
    if !matches!(command.name, "help" | "completions") {
        text.push_str("\nThe options that all commands take: cosmonaut help\n");
    }
    exit_codes(&mut text);
    text.push_str(&format!("\nExample:\n  {}\n", command.example));
    text
}

/// `cosmonaut explain [CONTAINER] [OPTION...]`.
pub(super) fn usage(command: &CommandSpec) -> String {
    format!("cosmonaut {} [OPTION...]", call(command))
}

/// The command with its argument.
fn call(command: &CommandSpec) -> String {
    match command.argument {
        "" => command.name.to_owned(),
        argument => format!("{} {argument}", command.name),
    }
}

fn describe(text: &mut String, option: &OptionSpec) {
    text.push_str(&format!("  {}\n", option.usage()));
    wrap(text, "      ", option.help);
    let mut origin = String::new();
    if let Some(variable) = option.variable {
        origin.push_str(variable);
    }
    if !option.shown_default.is_empty() && option.variable.is_some() {
        origin.push_str(&format!("; default: {}", option.shown_default));
    }
    if !option.commands.is_empty() {
        origin.push_str(&format!("only with {}", option.commands.join(", ")));
    }
    if !origin.is_empty() {
        wrap(text, "      ", &format!("[{origin}]"));
    }
}

fn exit_codes(text: &mut String) {
    text.push_str("\nExit codes:\n");
    for (code, meaning) in EXIT_CODES {
        let mut lines = String::new();
        wrap(&mut lines, "     ", meaning);
        text.push_str(&format!("  {code}  {}", lines.trim_start()));
    }
}

/// Adds the words in lines of at most `WIDTH` columns.
fn wrap(text: &mut String, indent: &str, words: &str) {
    let mut column = 0;
    for word in words.split_whitespace() {
        let width = word.chars().count();
        if column == 0 {
            text.push_str(indent);
            column = indent.len();
        } else if column + 1 + width > WIDTH {
            text.push('\n');
            text.push_str(indent);
            column = indent.len();
        } else {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::table::{self, Id};
    use super::*;

    fn check_width(text: &str) {
        for line in text.lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
            assert!(line.trim_end() == line, "{line:?}");
        }
        assert!(text.ends_with('\n') && !text.ends_with("\n\n"));
    }

    #[test]
    fn help_fits_and_holds_everything() {
        let text = all();
        check_width(&text);
        for option in OPTIONS {
            assert!(text.contains(&format!("\n  {}\n", option.usage())));
            if let Some(variable) = option.variable {
                assert!(text.contains(&format!("[{variable}; default: ")));
            }
        }
        for command in COMMANDS {
            assert!(text.contains(&format!("\n  {}", call(command))));
        }
        for (code, _) in EXIT_CODES {
            assert!(text.contains(&format!("\n  {code}  ")));
        }
        let example = text.rfind("\nExample:\n").expect("an example");
        assert!(text[example..].contains("cosmonaut watch"));
    }

    #[test]
    fn each_command_has_its_help() {
        for command in COMMANDS {
            let text = of_command(command);
            check_width(&text);
            assert!(text.starts_with(&format!("Usage: cosmonaut {}", command.name)));
            assert!(text.ends_with(&format!("\nExample:\n  {}\n", command.example)));
        }
        let plan = table::command("plan").expect("plan");
        assert!(of_command(plan).contains(&table::option(Id::Ask).usage()));
        let sync = table::command("sync").expect("sync");
        assert!(!of_command(sync).contains("--ask"));
    }
}
