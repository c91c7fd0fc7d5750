//! The one table of commands, options, variables, defaults and exit codes.
//!
//! Parsing, `--help` and the completions read it; the man page and the README are compared
//! with it by a test. It knows no value of any user. Rules: design of the command line.

/// Names one option, so that code asks for it without spelling it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // Each is the option of the same name in `OPTIONS`.
pub enum Id {
    CosmosUrl,
    CosmosTable,
    CosmosHeader,
    CosmosCa,
    OnOutage,
    TrustCosmos,
    Keyword,
    DockerHost,
    Network,
    Weave,
    WeaveAddr,
    WeaveCli,
    StateDir,
    Config,
    Base,
    Script,
    ScriptTimeout,
    HaproxyContainer,
    HaproxySocket,
    HaproxyMaster,
    Settle,
    SettleMax,
    Ready,
    Resync,
    MetricsFile,
    LogLevel,
    Verbose,
    Quiet,
    LogFormat,
    Ask,
    Json,
    Help,
    Version,
}

/// What an option takes; completions offer files, folders or words by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On or off; no value is needed, `--name=off` beats a variable that says on.
    Switch,
    /// Raises or lowers something each time it is given; takes no value.
    Count,
    /// Free text: a name, a URL, an address, a duration.
    Text,
    /// One of these words, in any case.
    Words(&'static [&'static str]),
    /// Path of a file.
    File,
    /// Path of a directory.
    Directory,
}

/// One option with everything that is said about it anywhere.
#[derive(Debug)]
pub struct OptionSpec {
    /// Which one it is.
    pub id: Id,
    /// Short form, without the dash.
    pub short: Option<char>,
    /// Long form, without the dashes.
    pub long: &'static str,
    /// What the value is called in help; `None` when it takes none.
    pub value: Option<&'static str>,
    /// Environment variable that stands in for it.
    pub variable: Option<&'static str>,
    /// Value that is parsed when neither the option nor its variable is given.
    pub default: Option<&'static str>,
    /// What help says of the default, also where it is not a value. Empty: nothing to say.
    pub shown_default: &'static str,
    /// Meaning, in sentences; the first one stands alone in completions.
    pub help: &'static str,
    /// The commands that it belongs to; empty: any command takes it.
    pub commands: &'static [&'static str],
    /// What it takes.
    pub kind: Kind,
}

/// One command.
#[derive(Debug)]
pub struct CommandSpec {
    /// Its name.
    pub name: &'static str,
    /// Its argument as help shows it: `[X]` may be left out, empty: takes none.
    pub argument: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// What `help COMMAND` says of it, in sentences.
    pub details: &'static str,
    /// A line to try.
    pub example: &'static str,
    /// Whether this version has it. One that it has not says so and exits 1; help, man page
    /// and README mark it.
    pub built: bool,
}

/// Exit codes and what each says.
pub const EXIT_CODES: &[(u8, &str)] = &[
    (0, "done"),
    (
        1,
        "failed; nothing was broken, the running config stands (doctor: a line fails; status: watch is not running, or owes a reload for over a minute)",
    ),
    (2, "wrong command line"),
    (3, "plan: a pass would change something"),
];

/// Shells that `completions` knows.
pub const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// Levels of the log, from the quietest.
pub const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

/// The commands in the order of help.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec {
        name: "sync",
        argument: "",
        summary: "one pass, then exit (for cron)",
        details: "Looks at the containers once, asks the registry for the config and, if it differs from what HAProxy last took, has it checked, puts it in place and makes it live. Exits 1 when any of that fails; HAProxy then keeps the config that it runs. A HAProxy that does not run takes the file when it starts, which is warned about.",
        example: "cosmonaut sync --config /etc/haproxy/haproxy.cfg",
        built: true,
    },
    CommandSpec {
        name: "watch",
        argument: "",
        summary: "follow Docker until stopped (foreground)",
        details: "Follows Docker's events and makes a pass whenever they matter. Waits for Docker and Cosmos for as long as they are away and never gives up by itself. SIGTERM and SIGINT end it, a second one at once; SIGHUP makes it look now.",
        example: "cosmonaut watch --keyword web --config /etc/haproxy/haproxy.cfg",
        built: true,
    },
    CommandSpec {
        name: "plan",
        argument: "",
        summary: "print what a pass would change, as a diff",
        details: "Prints a unified diff of haproxy.cfg and what HAProxy would be told. Exits 0 when nothing would change and 3 when something would. Writes nothing. Cosmos is asked only with --ask, since it stores what it is asked; else the built-in registry stands in and the output says so.",
        example: "cosmonaut plan || test $? -eq 3",
        built: true,
    },
    CommandSpec {
        name: "explain",
        argument: "[CONTAINER]",
        summary: "each container: routed or not, and what decided it",
        details: "Prints for each container, or for the one named, whether it is routed, pending or left out, and the rule or variable that decided it. Needs no running watch and changes nothing.",
        example: "cosmonaut explain asteroid-web-1",
        built: true,
    },
    CommandSpec {
        name: "doctor",
        argument: "",
        summary: "check everything that a pass needs, with the mend",
        details: "Checks Docker, Cosmos, Weave, the state directory, the config path, the script and HAProxy, one line each: ok, warn or fail, with the mend. Exits 1 when a line fails.",
        example: "cosmonaut doctor",
        built: true,
    },
    CommandSpec {
        name: "status",
        argument: "",
        summary: "what the running watch last did",
        details: "Reads the status file that watch keeps in the state directory. Exits 1 when watch is not running, or owes a reload for over a minute.",
        example: "cosmonaut status --json",
        built: true,
    },
    CommandSpec {
        name: "history",
        argument: "",
        summary: "the last configs, with time and cause",
        details: "Lists the last ten configs that HAProxy took, the newest first, numbered as rollback counts them, with what changed and why; marks the one that is live.",
        example: "cosmonaut history",
        built: true,
    },
    CommandSpec {
        name: "rollback",
        argument: "[N]",
        summary: "give HAProxy an earlier config and hold it",
        details: "Hands config N of the history, or the one before the present one, to HAProxy by the same path as any other; wants the options of watch, --config above all. sync and watch then change nothing until resume, or SIGHUP to watch. Without N while it holds: one further back.",
        example: "cosmonaut rollback 2",
        built: true,
    },
    CommandSpec {
        name: "resume",
        argument: "",
        summary: "end what rollback holds",
        details: "Lets sync and watch follow the containers again after a rollback; a running watch does so at once.",
        example: "cosmonaut resume",
        built: true,
    },
    CommandSpec {
        name: "completions",
        argument: "SHELL",
        summary: "print completions for bash, zsh or fish",
        details: "Prints a completion script for the shell to stdout.",
        example: "cosmonaut completions bash > /etc/bash_completion.d/cosmonaut",
        built: true,
    },
    CommandSpec {
        name: "help",
        argument: "[COMMAND]",
        summary: "this text, or the text of one command",
        details: "Prints the help of a command, or of all. The topic script prints the built-in reload script, as a start for one of your own.",
        example: "cosmonaut help script > my-reload.sh",
        built: true,
    },
];

/// An option with the usual answers, to be changed where it differs.
const PLAIN: OptionSpec = OptionSpec {
    id: Id::Help,
    short: None,
    long: "",
    value: None,
    variable: None,
    default: None,
    shown_default: "",
    help: "",
    commands: &[],
    kind: Kind::Text,
};

/// Every option, in the order of help.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        id: Id::CosmosUrl,
        short: Some('u'),
        long: "cosmos-url",
        value: Some("URL"),
        variable: Some("COSMONAUT_COSMOS_URL"),
        shown_default: "none: the built-in registry",
        help: "Ask the Cosmos at this http or https URL for the config.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::CosmosTable,
        short: Some('t'),
        long: "cosmos-table",
        value: Some("NAME"),
        variable: Some("COSMONAUT_COSMOS_TABLE"),
        default: Some("cosmonaut"),
        shown_default: "required with a URL; else cosmonaut",
        help: "Table of the registry that holds the services. With the built-in registry it names the file in the state directory. Up to 64 letters, digits, '_', '.' and '-', not starting with a dot.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::CosmosHeader,
        long: "cosmos-header",
        value: Some("NAME: VALUE"),
        variable: Some("COSMONAUT_COSMOS_HEADERS"),
        shown_default: "none",
        help: "Header to send to Cosmos, such as an API key. May be given several times; the variable holds one a line. The value is never logged; other users of the host can read it in the process list, so prefer the variable.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::CosmosCa,
        long: "cosmos-ca",
        value: Some("PATH"),
        variable: Some("COSMONAUT_COSMOS_CA"),
        shown_default: "none: the usual web roots only",
        help: "File with the certificate authorities of a private Cosmos, in PEM.",
        kind: Kind::File,
        ..PLAIN
    },
    OptionSpec {
        id: Id::OnOutage,
        long: "on-outage",
        value: Some("hold|built-in"),
        variable: Some("COSMONAUT_ON_OUTAGE"),
        default: Some("hold"),
        shown_default: "hold",
        help: "What to do while Cosmos fails: hold keeps the last config, built-in lets the built-in registry take over after 30 s.",
        kind: Kind::Words(&["hold", "built-in"]),
        ..PLAIN
    },
    OptionSpec {
        id: Id::TrustCosmos,
        long: "trust-cosmos",
        variable: Some("COSMONAUT_TRUST_COSMOS"),
        default: Some("off"),
        shown_default: "off",
        help: "Take a config from Cosmos as it is. Without it, directives that run or load code and servers and binds that are not ours are refused.",
        kind: Kind::Switch,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Keyword,
        short: Some('k'),
        long: "keyword",
        value: Some("WORD"),
        variable: Some("COSMONAUT_KEYWORD"),
        default: Some("asteroid"),
        shown_default: "asteroid",
        help: "Watch the containers whose name holds this word, in any case. The empty word, also as an empty variable, means every container that names a service.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::DockerHost,
        short: Some('H'),
        long: "docker-host",
        value: Some("URL"),
        variable: Some("DOCKER_HOST"),
        shown_default: "DOCKER_CONTEXT, the current context, unix:///var/run/docker.sock",
        help: "Docker daemon to follow, such as unix:///run/podman/podman.sock or tcp://10.0.0.5:2375.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::Network,
        long: "network",
        value: Some("NAME"),
        variable: Some("COSMONAUT_NETWORK"),
        shown_default: "none: the network shared with HAProxy, else the only one",
        help: "Docker network whose addresses HAProxy is given.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::Weave,
        long: "weave",
        value: Some("auto|always|never"),
        variable: Some("COSMONAUT_WEAVE"),
        default: Some("auto"),
        shown_default: "auto",
        help: "Whether containers have addresses of Weave Net.",
        kind: Kind::Words(&["auto", "always", "never"]),
        ..PLAIN
    },
    OptionSpec {
        id: Id::WeaveAddr,
        long: "weave-addr",
        value: Some("ADDR"),
        variable: Some("WEAVE_HTTP_ADDR"),
        default: Some("127.0.0.1:6784"),
        shown_default: "127.0.0.1:6784",
        help: "Where Weave's router answers.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::WeaveCli,
        long: "weave-cli",
        variable: Some("COSMONAUT_WEAVE_CLI"),
        default: Some("off"),
        shown_default: "off: the router's API only",
        help: "Ask the weave command too.",
        kind: Kind::Switch,
        ..PLAIN
    },
    OptionSpec {
        id: Id::StateDir,
        long: "state-dir",
        value: Some("DIR"),
        variable: Some("COSMONAUT_STATE_DIR"),
        default: Some("/var/lib/cosmonaut"),
        shown_default: "/var/lib/cosmonaut",
        help: "Directory for what must survive a restart.",
        kind: Kind::Directory,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Config,
        short: Some('c'),
        long: "config",
        value: Some("PATH"),
        variable: Some("COSMONAUT_CONFIG"),
        shown_default: "haproxy.cfg in the state directory",
        help: "The haproxy.cfg that HAProxy reads. Mount its folder into a container, not the file alone.",
        kind: Kind::File,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Base,
        long: "base",
        value: Some("PATH"),
        variable: Some("COSMONAUT_BASE"),
        shown_default: "built in",
        help: "File with the global, defaults and frontend sections of the config; rules and backends are added after it. The built-in registry only.",
        kind: Kind::File,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Script,
        short: Some('s'),
        long: "script",
        value: Some("PATH"),
        variable: Some("COSMONAUT_SCRIPT"),
        shown_default: "built in, see help script",
        help: "Program that checks a config and reloads HAProxy.",
        kind: Kind::File,
        ..PLAIN
    },
    OptionSpec {
        id: Id::ScriptTimeout,
        long: "script-timeout",
        value: Some("DURATION"),
        variable: Some("COSMONAUT_SCRIPT_TIMEOUT"),
        default: Some("30s"),
        shown_default: "30s",
        help: "Longest time that one run of the script may take.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::HaproxyContainer,
        long: "haproxy-container",
        value: Some("NAME"),
        variable: Some("COSMONAUT_HAPROXY_CONTAINER"),
        default: Some("haproxy"),
        shown_default: "haproxy",
        help: "Container that runs HAProxy, if one does.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::HaproxySocket,
        long: "haproxy-socket",
        value: Some("ADDR"),
        variable: Some("COSMONAUT_HAPROXY_SOCKET"),
        shown_default: "none: every change is a reload",
        help: "HAProxy's runtime socket: a path or HOST:PORT.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::HaproxyMaster,
        long: "haproxy-master",
        value: Some("ADDR"),
        variable: Some("COSMONAUT_HAPROXY_MASTER"),
        shown_default: "none: the script reloads",
        help: "HAProxy's master socket: a path or HOST:PORT.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::Settle,
        long: "settle",
        value: Some("DURATION"),
        variable: Some("COSMONAUT_SETTLE"),
        default: Some("100ms"),
        shown_default: "100ms",
        help: "Quiet time that ends a burst of changes. A lone change does not wait.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::SettleMax,
        long: "settle-max",
        value: Some("DURATION"),
        variable: Some("COSMONAUT_SETTLE_MAX"),
        default: Some("1s"),
        shown_default: "1s",
        help: "Longest time that a burst puts a pass off. Not less than the settle time.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::Ready,
        long: "ready",
        value: Some("DURATION"),
        variable: Some("COSMONAUT_READY"),
        default: Some("0"),
        shown_default: "0: a started container is routed at once",
        help: "How long a started container without a health check may be held out until its port answers.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::Resync,
        long: "resync",
        value: Some("DURATION"),
        variable: Some("COSMONAUT_RESYNC"),
        default: Some("60s"),
        shown_default: "60s",
        help: "Look at everything again this often, whatever events say; 0 means never.",
        ..PLAIN
    },
    OptionSpec {
        id: Id::MetricsFile,
        long: "metrics-file",
        value: Some("PATH"),
        variable: Some("COSMONAUT_METRICS_FILE"),
        shown_default: "none",
        help: "File to keep metrics in, for node_exporter's textfile collector.",
        kind: Kind::File,
        ..PLAIN
    },
    OptionSpec {
        id: Id::LogLevel,
        long: "log-level",
        value: Some("LEVEL"),
        variable: Some("COSMONAUT_LOG"),
        default: Some("info"),
        shown_default: "info",
        help: "How much is logged to stderr: error, warn, info, debug or trace.",
        kind: Kind::Words(LEVELS),
        ..PLAIN
    },
    OptionSpec {
        id: Id::Verbose,
        short: Some('v'),
        long: "verbose",
        help: "Log one level more. May be given several times.",
        kind: Kind::Count,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Quiet,
        short: Some('q'),
        long: "quiet",
        help: "Log one level less. May be given several times.",
        kind: Kind::Count,
        ..PLAIN
    },
    OptionSpec {
        id: Id::LogFormat,
        long: "log-format",
        value: Some("text|json"),
        variable: Some("COSMONAUT_LOG_FORMAT"),
        default: Some("text"),
        shown_default: "text",
        help: "Log lines for people, or one JSON object a line.",
        kind: Kind::Words(&["text", "json"]),
        ..PLAIN
    },
    OptionSpec {
        id: Id::Ask,
        long: "ask",
        shown_default: "off",
        help: "Ask Cosmos too, which stores what it is asked.",
        commands: &["plan", "doctor"],
        kind: Kind::Switch,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Json,
        long: "json",
        shown_default: "off",
        help: "Print JSON.",
        commands: &["explain", "doctor", "status"],
        kind: Kind::Switch,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Help,
        short: Some('h'),
        long: "help",
        help: "Print help, of the command if one is given.",
        kind: Kind::Count,
        ..PLAIN
    },
    OptionSpec {
        id: Id::Version,
        short: Some('V'),
        long: "version",
        help: "Print the version.",
        kind: Kind::Count,
        ..PLAIN
    },
];

impl OptionSpec {
    /// `--cosmos-url`, as messages name it.
    pub fn flag(&self) -> String {
        format!("--{}", self.long)
    }

    /// `-u, --cosmos-url URL`, as help and the README show it.
    pub fn usage(&self) -> String {
        let mut usage = String::new();
        if let Some(short) = self.short {
            usage.push('-');
            usage.push(short);
            usage.push_str(", ");
        }
        usage.push_str(&self.flag());
        match (self.id, self.value) {
            (Id::CosmosHeader, Some(value)) => usage.push_str(&format!(" '{value}'")),
            (_, Some(value)) => usage.push_str(&format!(" {value}")),
            (_, None) => {}
        }
        usage
    }

    /// The first sentence of the help, without its full stop.
    pub fn summary(&self) -> &'static str {
        let first = self.help.split(". ").next().unwrap_or(self.help);
        first.strip_suffix('.').unwrap_or(first)
    }
}

/// The option of that long name.
pub fn by_long(long: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.long == long)
}

/// The option of that short name.
pub fn by_short(short: char) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.short == Some(short))
}

/// The option itself; every `Id` stands in the table, which a test proves.
pub fn option(id: Id) -> &'static OptionSpec {
    OPTIONS
        .iter()
        .find(|option| option.id == id)
        .expect("every Id has its row in OPTIONS, see the test")
}

/// The command of that name.
pub fn command(name: &str) -> Option<&'static CommandSpec> {
    COMMANDS.iter().find(|command| command.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_one_row_at_its_place() {
        for (place, option) in OPTIONS.iter().enumerate() {
            assert_eq!(option.id as usize, place, "--{}", option.long);
        }
        assert_eq!(OPTIONS.len(), Id::Version as usize + 1);
    }

    #[test]
    fn names_and_variables_are_unique() {
        for (place, option) in OPTIONS.iter().enumerate() {
            for other in OPTIONS.iter().skip(place + 1) {
                assert_ne!(option.long, other.long);
                assert!(option.short.is_none() || option.short != other.short);
                assert!(option.variable.is_none() || option.variable != other.variable);
            }
        }
    }

    #[test]
    fn what_is_shown_agrees_with_what_is_parsed() {
        for option in OPTIONS {
            if let Some(default) = option.default {
                assert!(option.shown_default.contains(default), "{}", option.long);
            }
            if let (Kind::Words(words), Some(value)) = (option.kind, option.value) {
                assert!(value == "LEVEL" || value == words.join("|"), "{value}");
            }
            let takes_none = matches!(option.kind, Kind::Switch | Kind::Count);
            assert_eq!(takes_none, option.value.is_none(), "{}", option.long);
            for name in option.commands {
                assert!(command(name).is_some(), "{name}");
            }
            assert!(option.help.ends_with('.'), "{}", option.long);
        }
    }

    #[test]
    fn the_pinned_names_are_all_here() {
        // The definition of the command line, retyped: users' scripts rely on these names.
        let pinned = [
            ("-u", "cosmos-url", "COSMONAUT_COSMOS_URL", ""),
            ("-t", "cosmos-table", "COSMONAUT_COSMOS_TABLE", "cosmonaut"),
            ("", "cosmos-header", "COSMONAUT_COSMOS_HEADERS", ""),
            ("", "cosmos-ca", "COSMONAUT_COSMOS_CA", ""),
            ("", "on-outage", "COSMONAUT_ON_OUTAGE", "hold"),
            ("", "trust-cosmos", "COSMONAUT_TRUST_COSMOS", "off"),
            ("-k", "keyword", "COSMONAUT_KEYWORD", "asteroid"),
            ("-H", "docker-host", "DOCKER_HOST", ""),
            ("", "network", "COSMONAUT_NETWORK", ""),
            ("", "weave", "COSMONAUT_WEAVE", "auto"),
            ("", "weave-addr", "WEAVE_HTTP_ADDR", "127.0.0.1:6784"),
            ("", "weave-cli", "COSMONAUT_WEAVE_CLI", "off"),
            ("", "state-dir", "COSMONAUT_STATE_DIR", "/var/lib/cosmonaut"),
            ("-c", "config", "COSMONAUT_CONFIG", ""),
            ("", "base", "COSMONAUT_BASE", ""),
            ("-s", "script", "COSMONAUT_SCRIPT", ""),
            ("", "script-timeout", "COSMONAUT_SCRIPT_TIMEOUT", "30s"),
            (
                "",
                "haproxy-container",
                "COSMONAUT_HAPROXY_CONTAINER",
                "haproxy",
            ),
            ("", "haproxy-socket", "COSMONAUT_HAPROXY_SOCKET", ""),
            ("", "haproxy-master", "COSMONAUT_HAPROXY_MASTER", ""),
            ("", "settle", "COSMONAUT_SETTLE", "100ms"),
            ("", "settle-max", "COSMONAUT_SETTLE_MAX", "1s"),
            ("", "ready", "COSMONAUT_READY", "0"),
            ("", "resync", "COSMONAUT_RESYNC", "60s"),
            ("", "metrics-file", "COSMONAUT_METRICS_FILE", ""),
            ("", "log-level", "COSMONAUT_LOG", "info"),
            ("", "log-format", "COSMONAUT_LOG_FORMAT", "text"),
            ("-v", "verbose", "", ""),
            ("-q", "quiet", "", ""),
            ("", "ask", "", ""),
            ("", "json", "", ""),
            ("-h", "help", "", ""),
            ("-V", "version", "", ""),
        ];
        assert_eq!(pinned.len(), OPTIONS.len());
        for (short, long, variable, default) in pinned {
            let option = by_long(long).unwrap_or_else(|| panic!("--{long}"));
            let own_short = option.short.map(|short| format!("-{short}"));
            assert_eq!(own_short.as_deref().unwrap_or(""), short, "{long}");
            assert_eq!(option.variable.unwrap_or(""), variable, "{long}");
            assert_eq!(option.default.unwrap_or(""), default, "{long}");
        }
    }
}
