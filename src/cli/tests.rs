//! Command lines and what they mean, as data.

use super::*;
use crate::logging::Format;
use log::LevelFilter;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCRIPT: &str = "#!/bin/sh\n# stand-in\n";

/// Parses a line of words against `NAME=VALUE` variables.
fn run(words: &[&str], variables: &[&str]) -> Result<Command, UsageError> {
    let lookup = |name: &str| {
        variables.iter().find_map(|variable| {
            let (key, value) = variable.split_once('=')?;
            (key == name).then(|| OsString::from(value))
        })
    };
    parse(words, &lookup, SCRIPT)
}

fn action(words: &[&str], variables: &[&str]) -> Action {
    match run(words, variables) {
        Ok(Command::Run(action, _)) => action,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn options(words: &[&str], variables: &[&str]) -> Options {
    match run(words, variables) {
        Ok(Command::Run(_, options)) => *options,
        other => panic!("{words:?}: {other:?}"),
    }
}

#[test]
fn the_slash_that_docker_inspect_shows_is_no_part_of_a_name() {
    let options = options(&["sync", "--haproxy-container", "/lb"], &[]);
    assert_eq!(options.haproxy_container, "lb");
    let (message, _) = refused(&["sync", "--haproxy-container", "/"], &[]);
    assert!(message.contains("empty"), "{message}");
}

fn printed(words: &[&str], variables: &[&str]) -> String {
    match run(words, variables) {
        Ok(Command::Print(text)) => text,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn refused(words: &[&str], variables: &[&str]) -> (String, String) {
    match run(words, variables) {
        Err(error) => (
            error.to_string(),
            error.hint_text().unwrap_or("").to_owned(),
        ),
        other => panic!("{words:?}: {other:?}"),
    }
}

/// What `sync` does when nothing is said.
fn defaults() -> Options {
    Options {
        cosmos_url: None,
        cosmos_table: "cosmonaut".into(),
        cosmos_headers: Headers::default(),
        cosmos_ca: None,
        on_outage: OnOutage::Hold,
        trust_cosmos: false,
        keyword: "asteroid".into(),
        docker_host: None,
        network: None,
        weave: WeaveUse::Auto,
        weave_addr: "127.0.0.1:6784".into(),
        weave_cli: false,
        state_dir: "/var/lib/cosmonaut".into(),
        config: "/var/lib/cosmonaut/haproxy.cfg".into(),
        base: None,
        script: None,
        script_timeout: Duration::from_secs(30),
        haproxy_container: "haproxy".into(),
        haproxy_socket: None,
        haproxy_master: None,
        settle: Duration::from_millis(100),
        settle_max: Duration::from_secs(1),
        ready: Duration::ZERO,
        resync: Some(Duration::from_secs(60)),
        metrics_file: None,
        log_level: LevelFilter::Info,
        log_format: Format::Text,
    }
}

#[test]
fn defaults_are_the_pinned_ones() {
    assert_eq!(options(&["sync"], &[]), defaults());
}

#[test]
fn empty_variables_are_absent() {
    let empty: Vec<String> = table::OPTIONS
        .iter()
        .filter_map(|option| option.variable)
        .filter(|name| *name != "COSMONAUT_KEYWORD")
        .map(|name| format!("{name}="))
        .collect();
    let empty: Vec<&str> = empty.iter().map(String::as_str).collect();
    assert_eq!(options(&["sync"], &empty), defaults());
}

/// Each option by flag, `--flag=value`, its variable, and the flag against the variable.
#[test]
fn flag_beats_environment_beats_default() {
    type Check = fn(&Options) -> bool;
    let table = ["COSMONAUT_COSMOS_TABLE=t"];
    let cases: &[(&str, &str, &str, &str, Check)] = &[
        (
            "--cosmos-url",
            "COSMONAUT_COSMOS_URL",
            "http://a",
            "http://b",
            |o| o.cosmos_url.as_deref() == Some("http://a"),
        ),
        ("-u", "COSMONAUT_COSMOS_URL", "http://a", "http://b", |o| {
            o.cosmos_url.as_deref() == Some("http://a")
        }),
        ("--cosmos-ca", "COSMONAUT_COSMOS_CA", "/a", "/b", |o| {
            o.cosmos_ca.as_deref() == Some(Path::new("/a"))
        }),
        (
            "--on-outage",
            "COSMONAUT_ON_OUTAGE",
            "built-in",
            "hold",
            |o| o.on_outage == OnOutage::BuiltIn,
        ),
        ("--keyword", "COSMONAUT_KEYWORD", "Web", "db", |o| {
            o.keyword == "Web"
        }),
        ("-k", "COSMONAUT_KEYWORD", "Web", "db", |o| {
            o.keyword == "Web"
        }),
        ("--network", "COSMONAUT_NETWORK", "a", "b", |o| {
            o.network.as_deref() == Some("a")
        }),
        ("--weave", "COSMONAUT_WEAVE", "never", "always", |o| {
            o.weave == WeaveUse::Never
        }),
        ("--weave", "COSMONAUT_WEAVE", "ALWAYS", "never", |o| {
            o.weave == WeaveUse::Always
        }),
        ("--weave-addr", "WEAVE_HTTP_ADDR", "h:1", "h:2", |o| {
            o.weave_addr == "h:1"
        }),
        ("--state-dir", "COSMONAUT_STATE_DIR", "/s", "/r", |o| {
            o.state_dir == Path::new("/s") && o.config == Path::new("/s/haproxy.cfg")
        }),
        ("--config", "COSMONAUT_CONFIG", "/c d", "/d", |o| {
            o.config == Path::new("/c d") && o.state_dir == Path::new("/var/lib/cosmonaut")
        }),
        ("-c", "COSMONAUT_CONFIG", "/c", "/d", |o| {
            o.config == Path::new("/c")
        }),
        ("--base", "COSMONAUT_BASE", "b.cfg", "/d", |o| {
            o.base.as_deref() == Some(Path::new("b.cfg"))
        }),
        ("--script", "COSMONAUT_SCRIPT", "/s", "/d", |o| {
            o.script.as_deref() == Some(Path::new("/s"))
        }),
        ("-s", "COSMONAUT_SCRIPT", "/s", "/d", |o| {
            o.script.as_deref() == Some(Path::new("/s"))
        }),
        (
            "--script-timeout",
            "COSMONAUT_SCRIPT_TIMEOUT",
            "2m",
            "1s",
            |o| o.script_timeout == Duration::from_secs(120),
        ),
        (
            "--haproxy-container",
            "COSMONAUT_HAPROXY_CONTAINER",
            "lb",
            "x",
            |o| o.haproxy_container == "lb",
        ),
        (
            "--haproxy-socket",
            "COSMONAUT_HAPROXY_SOCKET",
            "/run/h.sock",
            "/x",
            |o| o.haproxy_socket.as_deref() == Some("/run/h.sock"),
        ),
        (
            "--haproxy-master",
            "COSMONAUT_HAPROXY_MASTER",
            "/run/m.sock",
            "/x",
            |o| o.haproxy_master.as_deref() == Some("/run/m.sock"),
        ),
        ("--settle", "COSMONAUT_SETTLE", "250ms", "1ms", |o| {
            o.settle == Duration::from_millis(250)
        }),
        ("--settle-max", "COSMONAUT_SETTLE_MAX", "5s", "2s", |o| {
            o.settle_max == Duration::from_secs(5)
        }),
        ("--ready", "COSMONAUT_READY", "3s", "1s", |o| {
            o.ready == Duration::from_secs(3)
        }),
        ("--resync", "COSMONAUT_RESYNC", "0", "1s", |o| {
            o.resync.is_none()
        }),
        (
            "--metrics-file",
            "COSMONAUT_METRICS_FILE",
            "/m",
            "/n",
            |o| o.metrics_file.as_deref() == Some(Path::new("/m")),
        ),
        ("--log-level", "COSMONAUT_LOG", "DEBUG", "error", |o| {
            o.log_level == LevelFilter::Debug
        }),
        (
            "--log-format",
            "COSMONAUT_LOG_FORMAT",
            "json",
            "text",
            |o| o.log_format == Format::Json,
        ),
        (
            "--trust-cosmos",
            "COSMONAUT_TRUST_COSMOS",
            "on",
            "off",
            |o| o.trust_cosmos,
        ),
        ("--weave-cli", "COSMONAUT_WEAVE_CLI", "1", "0", |o| {
            o.weave_cli
        }),
        ("--weave-cli", "COSMONAUT_WEAVE_CLI", "no", "yes", |o| {
            !o.weave_cli
        }),
        (
            "--cosmos-table",
            "COSMONAUT_COSMOS_TABLE",
            "a.b-c_9",
            "x",
            |o| o.cosmos_table == "a.b-c_9",
        ),
        ("-t", "COSMONAUT_COSMOS_TABLE", "a", "x", |o| {
            o.cosmos_table == "a"
        }),
        (
            "--cosmos-header",
            "COSMONAUT_COSMOS_HEADERS",
            "x-key: v w",
            "y: z",
            |o| o.cosmos_headers.0 == [("x-key".to_owned(), "v w".to_owned())],
        ),
    ];
    for (flag, variable, value, other, check) in cases {
        let joined = if flag.starts_with("--") {
            format!("{flag}={value}")
        } else {
            format!("{flag}{value}")
        };
        let is_switch = ["--trust-cosmos", "--weave-cli"].contains(flag);
        let own = format!("{variable}={value}");
        let against = format!("{variable}={other}");
        let mut lines = vec![
            (vec!["sync", &joined], vec![]),
            (vec![&joined, "sync"], vec![]),
            (vec!["sync", &joined], vec![against.as_str()]),
            (vec!["sync"], vec![own.as_str()]),
        ];
        if !is_switch {
            lines.push((vec!["sync", flag, value], vec![against.as_str()]));
            lines.push((vec![flag, value, "sync"], vec![]));
            // Of a repeated option the last one counts; headers add up.
            if *flag != "--cosmos-header" {
                lines.push((vec!["sync", flag, other, flag, value], vec![]));
            }
        }
        for (words, mut variables) in lines {
            variables.extend(table);
            let options = options(&words, &variables);
            assert!(check(&options), "{words:?} {variables:?} {options:?}");
        }
    }
}

#[test]
fn switches_stand_alone() {
    let options = options(&["--trust-cosmos", "watch", "--weave-cli"], &[]);
    assert!(options.trust_cosmos && options.weave_cli);
}

#[test]
fn docker_host_is_the_flag_alone() {
    assert_eq!(
        options(&["sync"], &["DOCKER_HOST=tcp://h:1"]).docker_host,
        None
    );
    let docker_host = options(&["sync", "-H", "tcp://h:2"], &["DOCKER_HOST=x"]).docker_host;
    assert_eq!(docker_host.as_deref(), Some("tcp://h:2"));
}

#[test]
fn the_empty_keyword_means_every_container() {
    for (words, variables) in [
        (&["sync", "--keyword", ""][..], &[][..]),
        (&["sync", "--keyword="], &["COSMONAUT_KEYWORD=web"]),
        (&["sync", "-k", ""], &[]),
        (&["sync"], &["COSMONAUT_KEYWORD="]),
    ] {
        assert_eq!(options(words, variables).keyword, "", "{words:?}");
    }
    assert_eq!(
        options(&["sync", "-k", "web"], &["COSMONAUT_KEYWORD="]).keyword,
        "web"
    );
}

#[test]
fn log_levels_are_raised_and_lowered() {
    use LevelFilter::{Debug, Error, Info, Trace, Warn};
    for (words, variables, level) in [
        (&["-v"][..], &[][..], Debug),
        (&["-vv"], &[], Trace),
        (&["-vvvvv"], &[], Trace),
        (&["-q"], &[], Warn),
        (&["-qq"], &[], Error),
        (&["-qqqq"], &[], Error),
        (&["-vq"], &[], Info),
        (&["--verbose", "--quiet", "-q"], &[], Warn),
        (&["-v"], &["COSMONAUT_LOG=debug"], Trace),
        (&["-q"], &["COSMONAUT_LOG=error"], Error),
        (
            &["-v", "--log-level", "warn"],
            &["COSMONAUT_LOG=trace"],
            Info,
        ),
    ] {
        let mut line = vec!["sync"];
        line.extend(words);
        assert_eq!(options(&line, variables).log_level, level, "{line:?}");
    }
}

#[test]
fn headers_add_up() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let flags = &[
        "sync",
        "--cosmos-header",
        "A: 1",
        "--cosmos-header=b:  2:3 ",
    ];
    let variable = "COSMONAUT_COSMOS_HEADERS=c: 4\r\n\n d : 5 \n";
    assert_eq!(
        options(flags, &[variable]).cosmos_headers.0,
        [pair("A", "1"), pair("b", "2:3")]
    );
    assert_eq!(
        options(&["sync"], &[variable]).cosmos_headers.0,
        [pair("c", "4"), pair("d", "5")]
    );
}

#[test]
fn settle_and_its_longest_wait_agree() {
    let pair = |words: &[&str], variables: &[&str]| {
        let options = options(words, variables);
        (options.settle.as_millis(), options.settle_max.as_millis())
    };
    assert_eq!(pair(&["sync", "--settle", "3s"], &[]), (3_000, 3_000));
    assert_eq!(pair(&["sync"], &["COSMONAUT_SETTLE=2s"]), (2_000, 2_000));
    assert_eq!(pair(&["sync", "--settle-max", "10ms"], &[]), (10, 10));
    assert_eq!(pair(&["sync", "--settle-max=0"], &[]), (0, 0));
    let (message, _) = refused(&["sync", "--settle=3s"], &["COSMONAUT_SETTLE_MAX=2s"]);
    assert_eq!(
        message,
        "--settle: '3s' is more than '2s' of COSMONAUT_SETTLE_MAX"
    );
}

#[test]
fn commands() {
    for (words, expected) in [
        (&["sync"][..], Action::Sync),
        (&["watch"], Action::Watch),
        (&["plan"], Action::Plan { ask: false }),
        (&["--ask", "plan"], Action::Plan { ask: true }),
        (
            &["explain"],
            Action::Explain {
                container: None,
                json: false,
            },
        ),
        (
            &["explain", "--json", "/web-1"],
            Action::Explain {
                container: Some("web-1".into()),
                json: true,
            },
        ),
        (
            &["explain", "--", "-odd"],
            Action::Explain {
                container: Some("-odd".into()),
                json: false,
            },
        ),
        (
            &["doctor"],
            Action::Doctor {
                ask: false,
                json: false,
            },
        ),
        (
            &["doctor", "--ask", "--json"],
            Action::Doctor {
                ask: true,
                json: true,
            },
        ),
        (&["status", "--json"], Action::Status { json: true }),
        (&["history"], Action::History),
        (&["rollback"], Action::Rollback(None)),
        (&["rollback", "2"], Action::Rollback(Some(2))),
        (&["resume"], Action::Resume),
    ] {
        assert_eq!(action(words, &[]), expected, "{words:?}");
    }
}

#[test]
fn paths_keep_their_bytes() {
    let path = OsString::from_vec(b"/etc/h\xff.cfg".to_vec());
    let mut joined = OsString::from("--config=");
    joined.push(&path);
    for line in [
        vec!["sync".into(), "-c".into(), path.clone()],
        vec!["sync".into(), joined],
    ] {
        let parsed = parse(line, &|_| None, SCRIPT);
        let Ok(Command::Run(_, options)) = parsed else {
            panic!("{parsed:?}");
        };
        assert_eq!(options.config, PathBuf::from(&path));
    }
    let keyword = |name: &str| {
        (name == "COSMONAUT_KEYWORD").then(|| std::ffi::OsStr::from_bytes(b"\xff").to_owned())
    };
    let error = parse(["sync"], &keyword, SCRIPT).expect_err("not text");
    assert_eq!(
        error.to_string(),
        "COSMONAUT_KEYWORD: the value is not UTF-8"
    );
}

#[test]
fn printed_whatever_the_environment_holds() {
    let bad = &["COSMONAUT_SETTLE=x", "COSMONAUT_COSMOS_URL=y"];
    let version = format!("cosmonaut {}\n", env!("CARGO_PKG_VERSION"));
    for words in [&["-V"][..], &["--version"], &["sync", "-V"]] {
        assert_eq!(printed(words, bad), version);
    }
    let all = printed(&["help"], bad);
    for words in [
        &["-h"][..],
        &["--help"],
        &["-h", "--bogus"],
        &["-help"],
        &["frobnicate", "--help"],
    ] {
        assert_eq!(printed(words, bad), all, "{words:?}");
    }
    let plan = printed(&["help", "plan"], bad);
    for words in [
        &["plan", "-h"][..],
        &["--help", "plan"],
        &["plan", "-hV", "x"],
    ] {
        assert_eq!(printed(words, bad), plan, "{words:?}");
    }
    assert_ne!(plan, all);
    assert_eq!(printed(&["help", "script"], bad), SCRIPT);
    assert!(printed(&["completions", "bash"], bad).contains("complete -F"));
}

/// Message, and a piece of the hint.
#[test]
fn wrong_command_lines() {
    let url = "--cosmos-url=https://h";
    for (words, message, hint) in [
        (&[][..], "missing command", "cosmonaut sync"),
        (&[""], "unknown command ''", "lists all commands"),
        (&["snyc"], "unknown command 'snyc'", "did you mean sync?"),
        (&["Watch"], "unknown command 'Watch'", "did you mean watch?"),
        (&["frobnicate"], "unknown command 'frobnicate'", "lists all"),
        (
            &["sync", "watch"],
            "sync: unexpected argument 'watch'",
            "usage: cosmonaut sync",
        ),
        (
            &["explain", "a", "b"],
            "explain: unexpected argument 'b'",
            "[CONTAINER]",
        ),
        (
            &["sync", "--confg", "x"],
            "unknown option '--confg'",
            "did you mean --config?",
        ),
        (
            &["--cosmosUrl", "x"],
            "unknown option '--cosmosUrl'",
            "did you mean --cosmos-url?",
        ),
        (
            &["sync", "--frobnicate=hunter2"],
            "unknown option '--frobnicate'",
            "lists all",
        ),
        (
            &["--watch"],
            "unknown option '--watch'",
            "watch is a command",
        ),
        (
            &["sync", "-C", "x"],
            "unknown option '-C'",
            "-c, --config PATH",
        ),
        (&["sync", "-n"], "unknown option '-n'", "--network NAME"),
        (&["sync", "-é"], "unknown option '-é'", "lists all"),
        (
            &["sync", "--config"],
            "--config: missing PATH",
            "-c, --config PATH",
        ),
        (
            &["sync", "-c"],
            "--config: missing PATH",
            "-c, --config PATH",
        ),
        (
            &["sync", "-c", "-v"],
            "--config: missing PATH",
            "write --config=-v",
        ),
        (
            &["-u", "--cosmos-table=x"],
            "--cosmos-url: missing URL",
            "--cosmos-url=--cosmos-table",
        ),
        (
            &["sync", "--verbose=3"],
            "--verbose: takes no value",
            "leave out",
        ),
        (&["sync", "-v=3"], "-v: takes no value", "leave out"),
        (
            &["sync", "--weave-cli=maybe"],
            "--weave-cli: 'maybe' is neither on nor off",
            "yes",
        ),
        (
            &["sync", "--json"],
            "sync takes no --json",
            "explain, doctor, status",
        ),
        (
            &["status", "--ask"],
            "status takes no --ask",
            "plan, doctor",
        ),
        (
            &["sync", url],
            "missing option: --cosmos-table",
            "--cosmos-url is given",
        ),
        (
            &["sync", "-u", "h", "-t", "x"],
            "--cosmos-url: 'h' is not a URL: it does not begin with https://",
            "https://",
        ),
        (
            &["sync", "-u", "", "-t", "x"],
            "--cosmos-url: '' is not a URL: it does not begin with https://",
            "https://",
        ),
        (
            &["sync", "-t", ""],
            "--cosmos-table: the name is empty",
            "site-a",
        ),
        (
            &["sync", "-t", "a/b"],
            "--cosmos-table: 'a/b' is not a table name",
            "site-a",
        ),
        (
            &["sync", "-t", ".."],
            "--cosmos-table: '..' starts with a dot",
            "site-a",
        ),
        (
            &["sync", "--cosmos-header", "hunter2"],
            "--cosmos-header: the header has no colon",
            "x-api-key",
        ),
        (
            &["sync", "--cosmos-header", "hunter 2: x"],
            "--cosmos-header: the text before the colon is not a header's name",
            "x-api-key",
        ),
        (
            &["sync", "--cosmos-header", "a:"],
            "--cosmos-header: the value of 'a' is empty or holds a control or non-ASCII character",
            "x-api-key",
        ),
        (
            &["sync", "--cosmos-header", "a: b\r\nc: d"],
            "--cosmos-header: the value of 'a' is empty or holds a control or non-ASCII character",
            "x-api-key",
        ),
        (
            &["sync", "--cosmos-header", "Content-Length: 1"],
            "--cosmos-header: 'Content-Length' is set by cosmonaut itself",
            "leave it out",
        ),
        (
            &["sync", "--on-outage", "builtin"],
            "--on-outage: 'builtin' is unknown",
            "did you mean built-in?",
        ),
        (
            &["sync", "--weave", "yes"],
            "--weave: 'yes' is unknown",
            "auto, always, never",
        ),
        (
            &["sync", "--log-level", "warning"],
            "--log-level: 'warning' is unknown",
            "error, warn, info, debug, trace",
        ),
        (
            &["sync", "--log-format", "xml"],
            "--log-format: 'xml' is unknown",
            "text, json",
        ),
        (
            &["sync", "-k", "a b"],
            "--keyword: 'a b' can stand in no container's name",
            "no pattern",
        ),
        (
            &["sync", "--network", ""],
            "--network: the value is empty",
            "leave the option out",
        ),
        (
            &["sync", "--network", "a b"],
            "--network: 'a b' holds a blank or control character",
            "without it",
        ),
        (
            &["sync", "-c", ""],
            "--config: the path is empty",
            "--config /some/path",
        ),
        (
            &["sync", "-c", "/etc/haproxy/"],
            "--config: '/etc/haproxy/' is a directory",
            "name the file",
        ),
        (
            &["sync", "--resync", "60"],
            "--resync: '60' has no unit",
            "did you mean 60s?",
        ),
        (
            &["sync", "--resync", "10ms"],
            "--resync: '10ms' is shorter than 1s",
            "0 means never",
        ),
        (
            &["sync", "--script-timeout", "0"],
            "--script-timeout: '0' leaves the script no time",
            "30s",
        ),
        (
            &["completions"],
            "completions: missing SHELL",
            "cosmonaut completions bash",
        ),
        (
            &["completions", "tcsh"],
            "completions: unknown shell 'tcsh'",
            "bash, zsh, fish",
        ),
        (
            &["help", "snyc"],
            "unknown command 'snyc'",
            "did you mean sync?",
        ),
        (
            &["rollback", "0"],
            "rollback: '0' is no number of the history",
            "counted from 1",
        ),
        (
            &["rollback", "x"],
            "rollback: 'x' is no number of the history",
            "counted from 1",
        ),
        (
            &["explain", ""],
            "explain: '' is no container's name",
            "docker ps",
        ),
    ] {
        let (got, got_hint) = refused(words, &[]);
        assert_eq!(got, message, "{words:?}");
        assert!(got_hint.contains(hint), "{words:?}: {got_hint}");
        assert!(!got.contains("hunter") && !got_hint.contains("hunter"));
    }
}

#[test]
fn bad_variables_are_named() {
    for (variable, message) in [
        ("COSMONAUT_SETTLE=5", "COSMONAUT_SETTLE: '5' has no unit"),
        ("COSMONAUT_LOG=loud", "COSMONAUT_LOG: 'loud' is unknown"),
        (
            "COSMONAUT_TRUST_COSMOS=x",
            "COSMONAUT_TRUST_COSMOS: 'x' is neither on nor off",
        ),
        (
            "COSMONAUT_COSMOS_URL=http://h",
            "missing option: --cosmos-table",
        ),
        (
            "COSMONAUT_COSMOS_TABLE=/",
            "COSMONAUT_COSMOS_TABLE: '/' is not a table name",
        ),
        (
            "COSMONAUT_COSMOS_HEADERS=a: b\nhunter2",
            "COSMONAUT_COSMOS_HEADERS: the header has no colon",
        ),
        (
            "COSMONAUT_KEYWORD=^web",
            "COSMONAUT_KEYWORD: '^web' can stand in no container's name",
        ),
        (
            "COSMONAUT_CONFIG=/etc/",
            "COSMONAUT_CONFIG: '/etc/' is a directory",
        ),
        (
            "WEAVE_HTTP_ADDR=a b",
            "WEAVE_HTTP_ADDR: 'a b' holds a blank or control character",
        ),
    ] {
        assert_eq!(refused(&["sync"], &[variable]).0, message);
    }
}

#[test]
fn debug_shows_no_secret() {
    let options = options(
        &["sync", "-t", "x", "--cosmos-header", "x-key: hunter2"],
        &["COSMONAUT_COSMOS_URL=https://me:hunter2@h/p?k=hunter2"],
    );
    let shown = format!("{options:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(shown.contains("x-key") && shown.contains("https://...@h/p?..."));
}

/// All lines of three words of a nasty vocabulary get an answer, never a panic, and every
/// message stays on one line.
#[test]
fn nasty_lines_get_an_answer() {
    let words: &[&[u8]] = &[
        b"",
        b"-",
        b"--",
        b"---",
        b"=",
        b"--=",
        b"-=",
        b"--config",
        b"--config=",
        b"-c",
        b"-c=",
        b"-vq",
        b"-v=",
        b"-vc",
        b"--verbose=",
        b"--json",
        b"--weave-cli=",
        b"-h",
        b"-V",
        b"sync",
        b"help",
        b"completions",
        b"rollback",
        b"explain",
        b"bash",
        b"-\xff",
        b"--\xff",
        b"\xff",
        b"-u\xff",
        b"\0",
        b"\xc3\xa9",
        b"-\xc3\xa9",
        b"--cosmos-header",
        b"a:b",
    ];
    let word = |bytes: &[u8]| std::ffi::OsStr::from_bytes(bytes).to_owned();
    let mut answers = 0;
    for first in words {
        for second in words {
            for third in words {
                let line = [word(first), word(second), word(third)];
                let parsed = parse(line, &|_| None, SCRIPT);
                answers += 1;
                if let Err(error) = parsed {
                    let message = error.to_string();
                    assert!(!message.is_empty() && !message.chars().any(char::is_control));
                }
            }
        }
    }
    assert_eq!(answers, words.len().pow(3));
}
