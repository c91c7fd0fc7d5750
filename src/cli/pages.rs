//! Compares the man page and the README with the option table.
//!
//! The pages hold the generated blocks word for word; where one does not, the test prints the
//! block to paste. What a page says beyond them is its own.

use super::table::{self, COMMANDS, EXIT_CODES, OPTIONS, OptionSpec};

const MAN: &str = include_str!("../../man/cosmonaut.1");
const README: &str = include_str!("../../README.md");

/// Text for mdoc: each sentence on its own line, wrapped, and no line that passes for a request.
fn mdoc_text(text: &str) -> String {
    let mut out = String::new();
    for sentence in text.replace('\\', "\\e").split_inclusive(". ") {
        let mut column = 0;
        for word in sentence.split_whitespace() {
            if column > 0 && column + 1 + word.len() > 78 {
                out.push('\n');
                column = 0;
            } else if column > 0 {
                out.push(' ');
                column += 1;
            }
            if column == 0 && word.starts_with(['.', '\'']) {
                out.push_str("\\&");
            }
            out.push_str(word);
            column += word.len();
        }
        out.push('\n');
    }
    out
}

/// `Fl u , Fl -cosmos-url Ar URL`, an argument with a blank in quotes.
fn mdoc_usage(option: &OptionSpec) -> String {
    let mut usage = String::new();
    if let Some(short) = option.short {
        usage.push_str(&format!("Fl {short} , "));
    }
    usage.push_str(&format!("Fl -{}", option.long));
    match option.value {
        Some(value) if value.contains(' ') => usage.push_str(&format!(" Ar \"'{value}'\"")),
        Some(value) => usage.push_str(&format!(" Ar {value}")),
        None => {}
    }
    usage
}

fn mdoc_options() -> String {
    let mut block = String::from(".Bl -tag -width Ds\n");
    for option in OPTIONS {
        block.push_str(&format!(".It {}\n", mdoc_usage(option)));
        block.push_str(&mdoc_text(option.help));
        if !option.commands.is_empty() {
            let commands = option.commands.join(", ");
            block.push_str(&format!("Only with {commands}.\n"));
        }
        if let Some(variable) = option.variable {
            block.push_str(&format!(
                ".br\nVariable:\n.Ev {variable} .\nDefault: {}.\n",
                option.shown_default
            ));
        }
    }
    block.push_str(".El\n");
    block
}

fn mdoc_exit_codes() -> String {
    let mut block = String::from(".Bl -tag -width Ds\n");
    for (code, meaning) in EXIT_CODES {
        block.push_str(&format!(
            ".It {code}\n{}",
            mdoc_text(&format!("{meaning}."))
        ));
    }
    block.push_str(".El\n");
    block
}

fn mdoc_commands() -> String {
    let mut block = String::from(".Bl -tag -width Ds\n");
    for command in COMMANDS {
        let argument = match command.argument {
            "" => String::new(),
            argument => match argument.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
                Some(optional) => format!(" Op Ar {optional}"),
                None => format!(" Ar {argument}"),
            },
        };
        block.push_str(&format!(".It Cm {}{argument}\n", command.name));
        block.push_str(&mdoc_text(command.details));
        if !command.built {
            block.push_str("Not in this version: says so and exits 1.\n");
        }
    }
    block.push_str(".El\n");
    block
}

fn markdown_commands() -> String {
    let mut block = String::from("| command | what it does |\n|---|---|\n");
    for command in COMMANDS {
        let call = match command.argument {
            "" => command.name.to_owned(),
            argument => format!("{} {argument}", command.name),
        };
        let later = if command.built {
            ""
        } else {
            " (not in this version: says so and exits 1)"
        };
        block.push_str(&format!("| `{call}` | {}{later} |\n", command.summary));
    }
    block
}

fn markdown_options() -> String {
    let cell = |text: &str| text.replace('|', "\\|");
    let mut block = String::from("| option | variable | default | meaning |\n|---|---|---|---|\n");
    for option in OPTIONS {
        let variable = option
            .variable
            .map_or(String::new(), |name| format!("`{name}`"));
        block.push_str(&format!(
            "| `{}` | {variable} | {} | {} |\n",
            cell(&option.usage()),
            cell(option.shown_default),
            cell(option.help)
        ));
    }
    block
}

fn markdown_exit_codes() -> String {
    let mut block = String::from("| code | meaning |\n|---|---|\n");
    for (code, meaning) in EXIT_CODES {
        block.push_str(&format!("| {code} | {meaning} |\n"));
    }
    block
}

#[track_caller]
fn check(page: &str, name: &str, block: &str) {
    assert!(page.contains(block), "{name} lacks this block:\n{block}");
}

#[test]
fn the_man_page_says_what_the_table_says() {
    check(MAN, "man/cosmonaut.1, COMMANDS", &mdoc_commands());
    check(MAN, "man/cosmonaut.1, OPTIONS", &mdoc_options());
    check(MAN, "man/cosmonaut.1, EXIT STATUS", &mdoc_exit_codes());
}

#[test]
fn the_readme_says_what_the_table_says() {
    check(README, "README.md", &markdown_options());
    check(README, "README.md", &markdown_exit_codes());
    check(README, "README.md", &markdown_commands());
}

/// The variables that the pages name are ours, Docker's, or the script's: a typo is none of them.
#[test]
fn the_pages_name_no_unknown_variable() {
    let others = [
        "COSMONAUT_CHROOT",
        "COSMONAUT_FINGERPRINT",
        "DOCKER_CONTEXT",
        "DOCKER_CONFIG",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS_VERIFY",
        "DOCKER_API_VERSION",
    ];
    let help = super::help::all();
    for (name, page) in [("man page", MAN), ("README", README), ("help", &help)] {
        let part = |c: char| !(c.is_ascii_uppercase() || c == '_');
        for word in page.split(part) {
            let word = word.trim_matches('_');
            if !word.starts_with("COSMONAUT_") && !word.starts_with("DOCKER_") {
                continue;
            }
            let known = OPTIONS.iter().any(|option| option.variable == Some(word));
            assert!(known || others.contains(&word), "{name}: {word}");
        }
    }
}

/// A long option that a page shows, in prose or in an example, exists.
#[test]
fn the_pages_name_no_unknown_option() {
    let help = super::help::all();
    // Options of the other programs in the README's examples.
    let others = [
        "locked", "name", "network", "now", "only", "open", "release", "restart",
    ];
    for (name, page) in [("README", README), ("help", &help)] {
        for (place, _) in page.match_indices("--") {
            let rest = page.get(place + 2..).unwrap_or("");
            let before = page.get(..place).and_then(|text| text.chars().last());
            let end = rest
                .find(|c: char| !(c.is_ascii_lowercase() || c == '-'))
                .unwrap_or(rest.len());
            let long = rest.get(..end).unwrap_or("");
            if long.is_empty() || long.starts_with('-') || before == Some('-') {
                continue;
            }
            let known = table::by_long(long).is_some();
            assert!(known || others.contains(&long), "{name}: --{long}");
        }
    }
}
