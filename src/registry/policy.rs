//! What a config from outside may not hold. Pure.
//!
//! A config from Cosmos runs with HAProxy's rights, so a Cosmos that somebody else got hold of must
//! not be able to run programs, load code, read files, open further doors or send traffic away.
//! `--trust-cosmos` switches this off. `global` has process rights and is held to a list of what is
//! allowed; the other sections to lists of what is refused, so that a Cosmos with a template of its
//! own may still time out, log, compress and rewrite as it likes. Which servers and rules may stand in
//! it is for `answer.rs`: exactly those that were asked for. Rules: HAProxy's configuration manual,
//! 2.4 to 3.4; versions below say since when a directive exists.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::answer::one_line;
use crate::config::{Config, Line, Section};

/// One line that is refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in the config.
    pub line: usize,
    /// The directive as written, on one line.
    pub directive: String,
    /// The reason.
    pub why: &'static str,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (line {}): {}", self.directive, self.line, self.why)
    }
}

const RUNS: &str = "it starts programs";
const LOADS: &str = "it loads code";
const READS: &str = "it reads files of the host";
const OPENS: &str = "it opens another way into HAProxy";
const HIDES: &str = "HAProxy reads other words there than stand there";
const SENDS: &str = "it sends traffic or data to addresses that are not the containers'";

/// Sections that may be there. All others open sockets, hold secrets, start programs or name servers
/// that nobody compares with the containers.
const SECTIONS_ALLOWED: &[&str] = &["global", "defaults", "frontend", "backend"];

/// Sections whose reason is worth its own words; the rest gets [`OPENS`].
const SECTIONS_REFUSED: &[(&str, &str)] = &[
    ("program", RUNS),         // 2.0 to 3.2
    ("fcgi-app", RUNS),        // 2.1: passes requests to scripts by file name
    ("http-errors", READS),    // 2.2
    ("crt-store", READS),      // 3.0
    ("acme", SENDS),           // 3.2
    ("mailers", SENDS),        // 1.6
    ("resolvers", SENDS),      // 1.6
    ("ring", SENDS),           // 2.2: can forward to a server
    ("peers", SENDS),          // 1.5: opens a socket and sends tables
    ("log-forward", OPENS),    // 2.3
    ("userlist", OPENS),       // 1.4
    ("namespace_list", OPENS), // 1.6
    ("traces", SENDS),         // 3.1
    ("listen", OPENS),         // its servers and rules are not those that were asked for
];

/// Directives of `global` that may be there; a trailing `.` stands for a family.
///
/// Not among them, on purpose: lua-load (1.6), lua-load-per-thread (2.4), lua-prepend-path (2.2),
/// external-check (1.6), insecure-fork-wanted and insecure-setuid-wanted (2.2), ssl-engine (1.8),
/// ssl-provider and ssl-provider-path (2.8), expose-experimental-directives (2.4),
/// 51degrees-data-file (1.6), deviceatlas-json-file (1.6), wurfl-data-file (1.7), stats socket (1.3),
/// chroot, pidfile, setenv, presetenv (1.7), default-path (2.4), ca-base, crt-base, server-state-file
/// (1.6), localpeer, ulimit-n, set-dumpable, uid, gid, httpclient.* (2.5), unix-bind, prealloc-fd.
const GLOBAL_ALLOWED: &[&str] = &[
    "busy-polling",
    "close-spread-time",
    "cpu-map",
    "cpu-policy",
    "daemon",
    "description",
    "fd-hard-limit",
    "grace",
    "group",
    "h1-case-adjust",
    "hard-stop-after",
    "log",
    "log-send-hostname",
    "log-tag",
    "master-worker",
    "max-spread-checks",
    "maxcompcpuusage",
    "maxcomprate",
    "maxconn",
    "maxconnrate",
    "maxpipes",
    "maxsessrate",
    "maxsslconn",
    "maxsslrate",
    "mworker-max-reloads",
    "nbthread",
    "node",
    "noepoll",
    "nosplice",
    "numa-cpu-mapping",
    "quiet",
    "spread-checks",
    "ssl-default-bind-ciphers",
    "ssl-default-bind-ciphersuites",
    "ssl-default-bind-options",
    "ssl-default-server-ciphers",
    "ssl-default-server-ciphersuites",
    "ssl-default-server-options",
    "thread-groups",
    "tune.",
    "user",
    "zero-warning",
];

/// Directives refused in every other section. A second word, where given, must match too.
const REFUSED: &[(&str, &str, &str)] = &[
    ("external-check", "", RUNS),       // 1.6
    ("option", "external-check", RUNS), // 1.6
    ("filter", "", LOADS),              // 1.7: spoe, opentracing, fcgi-app, lua.*
    ("use-fcgi-app", "", RUNS),         // 2.1
    ("stats", "", OPENS),               // 1.3: page and admin
    ("bind-process", "", OPENS),        // to 2.4
    ("dispatch", "", SENDS),            // to 3.2
    ("server-template", "", SENDS),     // 1.8
    ("source", "", SENDS),              // 1.3
    ("option", "http_proxy", SENDS),    // to 2.4: connects wherever the request says
    ("option", "transparent", SENDS),   // connects to the client's destination
    ("transparent", "", SENDS),
    ("email-alert", "", SENDS), // 1.6
    ("errorfile", "", READS),
    ("errorfiles", "", READS), // 2.2
    ("errorloc", "", SENDS),
    ("errorloc302", "", SENDS),
    ("errorloc303", "", SENDS),
    ("http-error", "", READS), // 2.2: file, lf-file, errorfile
    ("load-server-state-from-file", "", READS), // 1.6
    ("server-state-file-name", "", READS), // 1.6
    ("include", "", READS),
    ("use-server", "", SENDS),
    ("appsession", "", SENDS),
    ("reqadd", "", SENDS),
];

/// Actions of `http-request`, `http-response`, `http-after-response`, `tcp-request` and
/// `tcp-response` that are refused wherever they stand on the line.
const ACTIONS_REFUSED: &[(&str, &str)] = &[
    ("use-service", LOADS),     // 1.6: lua.*, the Prometheus exporter
    ("send-spoe-group", SENDS), // 1.9
    ("set-dst", SENDS),         // 1.6: the address that the request goes to
    ("set-dst-port", SENDS),    // 1.6
    ("do-resolve", SENDS),      // 2.0
    ("attach-srv", SENDS),      // 2.8
    ("errorfile", READS),       // 2.2
    ("errorfiles", READS),      // 2.2
    ("file", READS),            // 2.2: http-request return
    ("lf-file", READS),         // 2.2
];

/// Options that a server line may have; those of the second list take a value.
const SERVER_FLAGS: &[&str] = &[
    "check",
    "backup",
    "disabled",
    "enabled",
    "no-backup",
    "no-check",
];
const SERVER_VALUES: &[&str] = &[
    "cookie",
    "downinter",
    "error-limit",
    "fall",
    "fastinter",
    "inter",
    "maxconn",
    "maxqueue",
    "minconn",
    "max-reuse",
    "observe",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "proto",
    "rise",
    "slowstart",
    "weight",
    "init-state",
];

/// Words that HAProxy takes on a line. What a word behind them is read as is not looked into: there may be millions.
const WORDS_MAX: usize = 64;

/// Everything in a config that only a trusted registry may send, in the order of the lines.
pub fn violations(config: &Config<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut refuse = |line: &Line<'_>, why: &'static str| {
        found.push(Violation {
            line: line.number,
            directive: one_line(line.text),
            why,
        });
    };
    for line in config.preamble() {
        refuse(&line, "it stands before the first section");
    }
    for section in config.sections() {
        let header = section.header();
        if !SECTIONS_ALLOWED.contains(&section.keyword()) {
            let why = SECTIONS_REFUSED
                .iter()
                .find(|(keyword, _)| *keyword == section.keyword())
                .map_or(OPENS, |(_, why)| *why);
            refuse(&header, why);
            continue;
        }
        if header.reads_otherwise() {
            refuse(&header, HIDES);
        }
        for line in section.lines() {
            if let Some(why) = violation(&section, &line) {
                refuse(&line, why);
            }
        }
    }
    found
}

fn violation(section: &Section<'_>, line: &Line<'_>) -> Option<&'static str> {
    // `no option …` and `default option …` are held to the same rules as the option.
    let skip = usize::from(matches!(line.keyword(), "no" | "default"));
    let (keyword, argument) = (line.word(skip), line.word(skip + 1));
    // Conditions and diagnostics of the configuration language itself.
    if keyword.starts_with('.') {
        return None;
    }
    if line.reads_otherwise() {
        return Some(HIDES);
    }
    let mut words = line.words.iter().enumerate();
    if let Some(why) = words.find_map(|(index, word)| word_violation(word, read_as(line, index))) {
        return Some(why);
    }
    if section.keyword() == "global" {
        return global_violation(keyword, argument, line);
    }
    if keyword.starts_with("lua") {
        return Some(LOADS);
    }
    let refused = REFUSED
        .iter()
        .find(|(first, second, _)| *first == keyword && (second.is_empty() || *second == argument));
    if let Some((_, _, why)) = refused {
        return Some(why);
    }
    match keyword {
        "log" => log_violation(argument),
        "bind" => bind_violation(line),
        "server" => server_violation(line.word(2), line.words.get(3..).unwrap_or_default()),
        "default-server" => server_options(line.words.get(1..).unwrap_or_default()),
        "http-request"
        | "http-response"
        | "http-after-response"
        | "tcp-request"
        | "tcp-response"
        | "http-check"
        | "tcp-check" => pattern_file(line).or_else(|| {
            // Checks must go to the server itself.
            let check = keyword.ends_with("-check");
            line.words.iter().skip(1).find_map(|word| {
                if check && matches!(word.as_ref(), "addr" | "port" | "socks4" | "via-socks4") {
                    return Some(SENDS);
                }
                ACTIONS_REFUSED
                    .iter()
                    .find(|(action, _)| {
                        let name = word.split('(').next().unwrap_or_default();
                        name == *action
                    })
                    .map(|(_, why)| *why)
            })
        }),
        // Most of the others take conditions, too.
        _ => pattern_file(line),
    }
}

/// What HAProxy makes of a word.
#[derive(PartialEq, Eq)]
enum ReadAs {
    /// It takes it as it stands, be it `lua.example.com`: a name, or what an expression is compared with.
    Literal,
    /// It looks for expressions in it, behind `%[`.
    Format,
    /// It may evaluate it. So does a word of which we are not sure.
    Expression,
}

fn read_as(line: &Line<'_>, index: usize) -> ReadAs {
    let literal = match line.keyword() {
        _ if index >= WORDS_MAX => false,
        // acl NAME EXPRESSION [FLAGS] [VALUES]; flags that read files are looked for elsewhere. Behind a blank an
        // expression goes on as long as words name converters, which no flag and no path does.
        "acl" => {
            let ends = |word: &Cow<'_, str>| word.starts_with(['-', '/']);
            index < 2 || line.words.iter().take(index + 1).skip(3).any(ends)
        }
        // use_backend NAME if NAMES; in braces stands an expression, and whatever follows it there.
        "use_backend" => {
            let mut before = line.words.iter().take(index).rev();
            let brace = before.find(|word| word.ends_with('{') || *word == "}");
            brace.is_none_or(|brace| brace == "}") && !line.word(index).contains('[')
        }
        "cookie" => index == 1,
        "http-request" | "http-response" | "http-after-response"
            if index == 3 && matches!(line.word(1), "add-header" | "set-header") =>
        {
            return ReadAs::Format;
        }
        _ => false,
    };
    if literal {
        ReadAs::Literal
    } else {
        ReadAs::Expression
    }
}

/// Lua, environment and file-reading converters can stand inside any expression.
fn word_violation(word: &str, read_as: ReadAs) -> Option<&'static str> {
    const MAPS: &[&str] = &["map", "map_"];
    if read_as == ReadAs::Literal {
        return None;
    }
    let begins = |what: &str| read_as == ReadAs::Expression && word.starts_with(what);
    if begins("lua.") || word.contains(",lua.") || word.contains("[lua.") {
        return Some(LOADS);
    }
    if begins("env(") || word.contains("[env(") {
        return Some("it shows the environment of HAProxy");
    }
    let expression = word.trim_start_matches("%[");
    // A whole word may be the next converter of the expression before it.
    let first = usize::from(read_as == ReadAs::Format);
    let reads = expression.split(',').skip(first).any(|converter| {
        let name = converter.split('(').next().unwrap_or_default();
        converter.contains('(') && (name == MAPS[0] || name.starts_with(MAPS[1]))
    });
    reads.then_some(READS)
}

fn global_violation(keyword: &str, argument: &str, line: &Line<'_>) -> Option<&'static str> {
    let allowed = GLOBAL_ALLOWED
        .iter()
        .any(|name| match name.strip_suffix('.') {
            Some(_) => keyword.starts_with(name),
            None => keyword == *name,
        });
    match keyword {
        "tune.lua.openlibs" => Some(LOADS),
        "log" => log_violation(argument),
        "user" | "group" if matches!(argument, "root" | "0") => {
            Some("it keeps HAProxy's workers running as root")
        }
        "stats" if argument == "timeout" || argument == "maxconn" => None,
        "stats" => Some(OPENS),
        "external-check" => Some(RUNS),
        "insecure-fork-wanted" | "insecure-setuid-wanted" => Some(RUNS),
        "ssl-engine" | "ssl-provider" | "ssl-provider-path" => Some(LOADS),
        _ if keyword.starts_with("lua-") => Some(LOADS),
        _ if !allowed => Some("it is not among the global settings that a registry may send"),
        _ => pattern_file(line),
    }
}

/// Logs hold every request: they stay on this host.
fn log_violation(target: &str) -> Option<&'static str> {
    let local = matches!(target, "global" | "stdout" | "stderr" | "/dev/log" | "")
        || target == "localhost"
        || target.starts_with("localhost:")
        || target.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || target
            .parse::<SocketAddr>()
            .is_ok_and(|address| address.ip().is_loopback());
    (!local).then_some(SENDS)
}

/// The one door is plain HTTP on port 80, as in the real service's template.
fn bind_violation(line: &Line<'_>) -> Option<&'static str> {
    let ours = matches!(
        line.word(1),
        ":80" | "*:80" | "0.0.0.0:80" | "[::]:80" | ":::80"
    ) && line
        .words
        .iter()
        .skip(2)
        .all(|option| matches!(option.as_ref(), "v4v6" | "v6only"));
    (!ours).then_some(OPENS)
}

/// Servers are plain addresses; the options that send their traffic elsewhere are refused.
fn server_violation(address: &str, options: &[Cow<'_, str>]) -> Option<&'static str> {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    if host.parse::<IpAddr>().is_err() {
        return Some(SENDS);
    }
    server_options(options)
}

fn server_options(options: &[Cow<'_, str>]) -> Option<&'static str> {
    let mut options = options.iter().map(AsRef::as_ref);
    while let Some(option) = options.next() {
        if SERVER_VALUES.contains(&option) {
            options.next();
        } else if !SERVER_FLAGS.contains(&option) {
            return Some(
                "a server has an option that can send its traffic elsewhere or read files",
            );
        }
    }
    None
}

/// `-f FILE` reads patterns, `-M -f FILE` a map, from any file that HAProxy may read.
fn pattern_file(line: &Line<'_>) -> Option<&'static str> {
    line.words
        .iter()
        .any(|word| word == "-f" || word == "-M")
        .then_some(READS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "\
global
    log 127.0.0.1   local0
    log 127.0.0.1   local1 notice
    maxconn 4096
    user haproxy
    group haproxy
    daemon
    tune.bufsize 16384
defaults
    log global
    mode http
    option httplog
    option http-server-close
    timeout connect 5000
.if version_atleast(2.5)
    option idle-close-on-response
.endif
frontend http
    bind :80
    acl web hdr(host) -i web.example.com
    http-request set-header X-Forwarded-Proto http
    use_backend web if web
backend web
    mode http
    balance roundrobin
    option httpchk GET /
    default-server inter 2s fall 2
    cookie SRV prefix nocache
    server 0123456789ab 10.0.0.1:80 check cookie SRV weight 5
    server 0123456789ac fd00::1:80 check
    server 0123456789ad [fd00::1]:80
";

    #[test]
    fn the_real_template_and_ordinary_directives_pass() {
        assert_eq!(violations(&Config::parse(GOOD)), []);
    }

    #[test]
    fn a_name_or_a_value_is_no_expression() {
        let text = GOOD
            .replace(
                "web.example.com",
                "lua.example.com 'env(x' map.example,map_x(y)",
            )
            .replace("acl web ", "acl lua.web ")
            .replace("use_backend web if web", "use_backend lua.web if lua.web")
            .replace("cookie SRV prefix", "cookie lua.SRV prefix")
            .replace("X-Forwarded-Proto http", "X-From 'lua.a=%[src]; env(x)'");
        assert_eq!(violations(&Config::parse(&text)), []);
        for directive in [
            "acl lua.web lua.fetch -i a",
            "acl web hdr(host),lua.convert -i a",
            "acl web hdr(host),map(/etc/passwd) -i a",
            "acl web env(HOME) -i a",
            "acl web hdr(host) -f /etc/passwd",
            "use_backend web if { lua.fetch -i a }",
            "use_backend web unless !{ lua.fetch -i a }",
            "use_backend web if lua.web { hdr(host),lua.convert -i a }",
            "use_backend %[lua.fetch] if web",
            "use_backend %[hdr(host),lua.convert] if web",
            "cookie SRV lua.x",
            "http-request set-header X a%[lua.fetch]",
            "http-request set-header X a%[src,lua.convert]",
            "http-request set-header X a%[env(HOME)]",
            "http-request set-header X a%[src,map(/etc/passwd)]",
            "http-request set-header X lua.a if { lua.fetch }",
            "http-request set-var(txn.x) lua.fetch",
            "http-request set-var(txn.x) path map_beg(/etc/passwd)",
            "http-request track-sc0 path lower,map(/etc/passwd)",
            "acl web str(a) map(/etc/passwd) -m found",
            "acl web str(a) lower map(/etc/passwd) -m found",
            "use_backend web if { str(a) map(/etc/passwd) -m found }",
            "use_backend web if web !{ str(a) lower map(/etc/passwd) -m found }",
            "force-persist if { src -f /etc/passwd }",
            "stick on src if { src -f /etc/passwd }",
        ] {
            let text = GOOD.replace("use_backend web if web", directive);
            assert_eq!(violations(&Config::parse(&text)).len(), 1, "{directive}");
        }
    }

    #[test]
    fn a_line_without_end_is_read_once() {
        for begins in ["acl web str(a)", "use_backend web if"] {
            let text = GOOD.replace(
                "use_backend web if web",
                &format!("{begins}{}", " a".repeat(1_000_000)),
            );
            // It would take hours if each word looked at those before it.
            assert_eq!(violations(&Config::parse(&text)), []);
        }
    }

    #[test]
    fn each_directive_is_refused_with_its_line() {
        let cases = include_str!("../../tests/data/registry/refused.txt");
        let mut count = 0;
        for case in cases.lines().filter(|line| !line.starts_with('#')) {
            let (section, directive) = case.split_once(": ").expect("SECTION: DIRECTIVE");
            count += 1;
            let text = match section {
                "section" => format!("{GOOD}{directive}\n"),
                _ => {
                    let header = GOOD
                        .split_inclusive('\n')
                        .find(|line| line.starts_with(section))
                        .expect("a section of the good config");
                    let (before, after) = GOOD
                        .split_once(&format!("\n{header}"))
                        .unwrap_or(("", &GOOD[header.len()..]));
                    format!("{before}\n{header}    {directive}\n{after}")
                }
            };
            let found = violations(&Config::parse(&text));
            let [violation] = found.as_slice() else {
                panic!("{case}: {found:?}");
            };
            assert_eq!(violation.directive.trim(), directive, "{case}");
            let line = text.lines().nth(violation.line - 1).unwrap_or_default();
            assert_eq!(line.trim(), directive, "{case}");
        }
        assert!(count > 50, "{count} cases");
    }

    #[test]
    fn quoting_does_not_hide_a_directive() {
        for directive in ["'lua-load' x.lua", "lua\\-load x.lua", "\"lua-load\" x"] {
            let text = GOOD.replacen("global\n", &format!("global\n    {directive}\n"), 1);
            assert_eq!(violations(&Config::parse(&text)).len(), 1, "{directive}");
        }
        for header in [
            "'program'",
            r"\x70rogram",
            r#""\x70rogram""#,
            r#""${NOPE-program}""#,
            r#""$NOPE"program"#,
            r"program\x00z",
            "program\x0b",
            "\x0cprogram\x0c",
        ] {
            let text = format!("{GOOD}{header} x\n    command /bin/sh\n");
            assert_eq!(violations(&Config::parse(&text)).len(), 1, "{header}");
        }
        for directive in [
            r#""${NOPE-errorfile}" 503 /etc/shadow"#,
            r#"http-request "${NOPE-use-service}" x"#,
            r"errorfile\x00z 503 /etc/shadow",
        ] {
            let text = GOOD.replace("use_backend web if web", directive);
            assert_eq!(violations(&Config::parse(&text)).len(), 1, "{directive}");
        }
        let text = GOOD.replace("frontend http", "frontend \"$NOPE\"http");
        assert_eq!(violations(&Config::parse(&text)).len(), 1);
    }
}
