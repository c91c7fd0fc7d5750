//! Completion scripts for bash, zsh and fish, written from the table.
//!
//! They offer commands, options, the words of an option that takes words, and paths where a
//! path is wanted. They ask no daemon, so a key press never hangs.

use super::table::{COMMANDS, Kind, OPTIONS, OptionSpec, SHELLS};

/// The script for a shell; `None` for a shell that is not known.
pub(super) fn script(shell: &str) -> Option<String> {
    match shell {
        "bash" => Some(bash()),
        "zsh" => Some(zsh()),
        "fish" => Some(fish()),
        _ => None,
    }
}

/// The names of all commands.
fn command_names() -> Vec<&'static str> {
    COMMANDS.iter().map(|command| command.name).collect()
}

/// `-u|--cosmos-url`.
fn pattern(option: &OptionSpec) -> String {
    match option.short {
        Some(short) => format!("-{short}|--{}", option.long),
        None => format!("--{}", option.long),
    }
}

/// Offers paths line by line, so that a blank in a name does no harm.
fn paths(which: char) -> String {
    format!(
        "mapfile -t COMPREPLY < <(compgen -{which} -- \"$cur\"); compopt -o filenames 2>/dev/null"
    )
}

fn bash() -> String {
    let mut options = Vec::new();
    let mut values = String::new();
    for option in OPTIONS {
        options.extend(option.short.map(|short| format!("-{short}")));
        options.push(option.flag());
        let offer = match option.kind {
            Kind::Switch | Kind::Count => continue,
            Kind::Words(words) => format!(
                "COMPREPLY=($(compgen -W '{}' -- \"$cur\"))",
                words.join(" ")
            ),
            Kind::File => paths('f'),
            Kind::Directory => paths('d'),
            Kind::Text => ":".to_owned(),
        };
        values.push_str(&format!(
            "        {}) {offer}; return ;;\n",
            pattern(option)
        ));
    }
    let takes_value: Vec<String> = OPTIONS
        .iter()
        .filter(|option| option.value.is_some())
        .map(pattern)
        .collect();
    format!(
        r#"# bash completion for cosmonaut, written by cosmonaut completions bash
_cosmonaut() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD-1]}} command='' i
    local IFS=$' \t\n'
    COMPREPLY=()
    # bash splits --name=value into three words
    if [[ $cur == = ]]; then
        cur=''
    elif [[ $prev == = && $COMP_CWORD -ge 2 ]]; then
        prev=${{COMP_WORDS[COMP_CWORD-2]}}
    fi
    case $prev in
{values}    esac
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {takes_value})
            i=$((i + 1))
            [[ ${{COMP_WORDS[i]}} == = ]] && i=$((i + 1)) ;;
        -*|=) ;;
        *)
            command=${{COMP_WORDS[i]}}
            break ;;
        esac
    done
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W '{options}' -- "$cur"))
        return
    fi
    case $command in
        '') COMPREPLY=($(compgen -W '{commands}' -- "$cur")) ;;
        help) COMPREPLY=($(compgen -W '{commands} script' -- "$cur")) ;;
        completions) COMPREPLY=($(compgen -W '{shells}' -- "$cur")) ;;
    esac
}}
complete -F _cosmonaut cosmonaut
"#,
        takes_value = takes_value.join("|"),
        options = options.join(" "),
        commands = command_names().join(" "),
        shells = SHELLS.join(" "),
    )
}

/// A text for single quotes of zsh, inside a specification with brackets and colons.
fn zsh_text(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('[', "\\[")
        .replace(']', "\\]")
        .replace(':', "\\:")
        .replace('\'', "'\\''")
}

fn zsh() -> String {
    let mut options = String::new();
    for option in OPTIONS {
        let summary = zsh_text(option.summary());
        let value = match (option.kind, option.value) {
            (Kind::Words(words), Some(value)) => {
                format!(":{}:({})", zsh_text(value), words.join(" "))
            }
            (Kind::File, Some(value)) => format!(":{}:_files", zsh_text(value)),
            (Kind::Directory, Some(value)) => format!(":{}:_files -/", zsh_text(value)),
            (_, Some(value)) => format!(":{}: ", zsh_text(value)),
            (_, None) => String::new(),
        };
        let equals = if value.is_empty() { "" } else { "=" };
        let line = match option.short {
            Some(short) => {
                let plus = if value.is_empty() { "" } else { "+" };
                format!(
                    "        '*'{{-{short}{plus},--{}{equals}}}'[{summary}]{value}' \\\n",
                    option.long
                )
            }
            None => format!(
                "        '*--{}{equals}[{summary}]{value}' \\\n",
                option.long
            ),
        };
        options.push_str(&line);
    }
    let mut commands = String::new();
    for command in COMMANDS {
        commands.push_str(&format!(
            "        '{}:{}'\n",
            command.name,
            command.summary.replace('\'', "'\\''")
        ));
    }
    format!(
        r#"#compdef cosmonaut
# zsh completion for cosmonaut, written by cosmonaut completions zsh
_cosmonaut() {{
    local curcontext="$curcontext" state line
    local -a commands
    commands=(
{commands}    )
    _arguments -C -s \
{options}        '1:command:->command' \
        '2:argument:->argument' && return
    case $state in
        command) _describe command commands ;;
        argument)
            case $line[1] in
                help) _describe command commands; _values topic script ;;
                completions) _values shell {shells} ;;
            esac ;;
    esac
}}
if [ "$funcstack[1]" = _cosmonaut ]; then
    _cosmonaut "$@"
else
    compdef _cosmonaut cosmonaut
fi
"#,
        shells = SHELLS.join(" "),
    )
}

/// A text for single quotes of fish.
fn fish_text(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}

fn fish() -> String {
    let names = command_names().join(" ");
    let mut text =
        String::from("# fish completion for cosmonaut, written by cosmonaut completions fish\n");
    text.push_str("complete -c cosmonaut -f\n");
    for command in COMMANDS {
        text.push_str(&format!(
            "complete -c cosmonaut -n 'not __fish_seen_subcommand_from {names}' -a {} -d '{}'\n",
            command.name,
            fish_text(command.summary)
        ));
    }
    text.push_str(&format!(
        "complete -c cosmonaut -n '__fish_seen_subcommand_from help' -a '{names} script'\n"
    ));
    text.push_str(&format!(
        "complete -c cosmonaut -n '__fish_seen_subcommand_from completions' -a '{}'\n",
        SHELLS.join(" ")
    ));
    for option in OPTIONS {
        let mut line = String::from("complete -c cosmonaut");
        if !option.commands.is_empty() {
            let own = option.commands.join(" ");
            line.push_str(&format!(" -n '__fish_seen_subcommand_from {own}'"));
        }
        if let Some(short) = option.short {
            line.push_str(&format!(" -s {short}"));
        }
        line.push_str(&format!(" -l {}", option.long));
        match option.kind {
            Kind::Switch | Kind::Count => {}
            Kind::Text => line.push_str(" -x"),
            Kind::Words(words) => line.push_str(&format!(" -x -a '{}'", words.join(" "))),
            Kind::File => line.push_str(" -r -F"),
            Kind::Directory => line.push_str(" -x -a '(__fish_complete_directories)'"),
        }
        line.push_str(&format!(" -d '{}'\n", fish_text(option.summary())));
        text.push_str(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_every_option_and_command() {
        for shell in SHELLS {
            let text = script(shell).expect(shell);
            for option in OPTIONS {
                let long = match *shell {
                    "fish" => format!(" -l {} ", option.long),
                    _ => option.flag(),
                };
                assert!(text.contains(&long), "{shell}: {}", option.long);
                if let Kind::Words(words) = option.kind {
                    assert!(text.contains(&words.join(" ")), "{shell}: {}", option.long);
                }
            }
            for command in COMMANDS {
                assert!(text.contains(command.name), "{shell}: {}", command.name);
            }
        }
        assert_eq!(script("tcsh"), None);
    }
}
