//! What the user asked for, as types: values of flags, of the environment and defaults,
//! read once and never again.
//!
//! Flag beats environment beats default. An empty variable counts as absent; only
//! `COSMONAUT_KEYWORD` may be set and empty, since the empty keyword has a meaning of its own.

use super::closest::closest;
use super::refusal::{Refusal, quoted};
use super::table::{self, Id, Kind, OptionSpec};
use super::{UsageError, duration, url};
use crate::logging::Format;
use log::LevelFilter;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Longest table name, in bytes; it becomes a file name and a DynamoDB key.
const TABLE_BYTES_MAX: usize = 64;

/// Shortest resync: below it the tool would do little but look.
const RESYNC_MIN: Duration = Duration::from_secs(1);

/// Headers that the client sets itself; a second one would change where a message ends.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "content-type",
    "transfer-encoding",
];

/// What happens while Cosmos fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnOutage {
    /// Keep the last good config.
    Hold,
    /// Render with the built-in registry once Cosmos has failed for 30 s.
    BuiltIn,
}

/// Whether containers have addresses of Weave Net.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeaveUse {
    /// Where a container or network says so.
    Auto,
    /// Every container.
    Always,
    /// No container; the router is never asked.
    Never,
}

/// Headers for Cosmos, in the order given: name, value. Its `Debug` shows names only.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(pub Vec<(String, String)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.0.iter().map(|(name, _)| (name, "..."));
        f.debug_map().entries(names).finish()
    }
}

/// Everything that options and variables can say, checked. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// Cosmos to ask, an http or https URL; `None`: the built-in registry.
    pub cosmos_url: Option<String>,
    /// Table of the registry; 1 to 64 of `[A-Za-z0-9_.-]`, no dot first, so a safe file name.
    pub cosmos_table: String,
    /// Extra headers for Cosmos.
    pub cosmos_headers: Headers,
    /// PEM file with the authorities of a private Cosmos.
    pub cosmos_ca: Option<PathBuf>,
    /// What happens while Cosmos fails.
    pub on_outage: OnOutage,
    /// Whether a config from Cosmos is taken unseen.
    pub trust_cosmos: bool,
    /// Word in the names of monitored containers, as written; empty: every container that names a service.
    pub keyword: String,
    /// The flag alone; what the environment says of Docker is read where Docker's contexts are.
    pub docker_host: Option<String>,
    /// Docker network whose addresses are used.
    pub network: Option<String>,
    /// Whether Weave is asked.
    pub weave: WeaveUse,
    /// Where Weave's router answers, in any form that `WEAVE_HTTP_ADDR` takes.
    pub weave_addr: String,
    /// Whether the `weave` command may be asked.
    pub weave_cli: bool,
    /// Directory of what survives a restart.
    pub state_dir: PathBuf,
    /// The file that HAProxy reads.
    pub config: PathBuf,
    /// File with the first sections of the config.
    pub base: Option<PathBuf>,
    /// Program that checks and reloads; `None`: the built-in script.
    pub script: Option<PathBuf>,
    /// Longest run of the script; more than zero.
    pub script_timeout: Duration,
    /// Name of the container that runs HAProxy.
    pub haproxy_container: String,
    /// HAProxy's runtime socket.
    pub haproxy_socket: Option<String>,
    /// HAProxy's master socket.
    pub haproxy_master: Option<String>,
    /// Quiet time that ends a burst; never more than `settle_max`.
    pub settle: Duration,
    /// Longest time that a burst puts a pass off.
    pub settle_max: Duration,
    /// How long a container without a health check may be held out; zero: not at all.
    pub ready: Duration,
    /// Time without an event after which everything is looked at; `None`: never.
    pub resync: Option<Duration>,
    /// File for metrics.
    pub metrics_file: Option<PathBuf>,
    /// What is logged, `-v` and `-q` counted in.
    pub log_level: LevelFilter,
    /// How it is logged.
    pub log_format: Format,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart by name, so that a new field is not forgotten here.
        let Options {
            cosmos_url,
            cosmos_table,
            cosmos_headers,
            cosmos_ca,
            on_outage,
            trust_cosmos,
            keyword,
            docker_host,
            network,
            weave,
            weave_addr,
            weave_cli,
            state_dir,
            config,
            base,
            script,
            script_timeout,
            haproxy_container,
            haproxy_socket,
            haproxy_master,
            settle,
            settle_max,
            ready,
            resync,
            metrics_file,
            log_level,
            log_format,
        } = self;
        let cosmos_url = cosmos_url.as_deref().map(url::without_secrets);
        let docker_host = docker_host.as_deref().map(url::without_secrets);
        f.debug_struct("Options")
            .field("cosmos_url", &cosmos_url)
            .field("cosmos_table", cosmos_table)
            .field("cosmos_headers", cosmos_headers)
            .field("cosmos_ca", cosmos_ca)
            .field("on_outage", on_outage)
            .field("trust_cosmos", trust_cosmos)
            .field("keyword", keyword)
            .field("docker_host", &docker_host)
            .field("network", network)
            .field("weave", weave)
            .field("weave_addr", weave_addr)
            .field("weave_cli", weave_cli)
            .field("state_dir", state_dir)
            .field("config", config)
            .field("base", base)
            .field("script", script)
            .field("script_timeout", script_timeout)
            .field("haproxy_container", haproxy_container)
            .field("haproxy_socket", haproxy_socket)
            .field("haproxy_master", haproxy_master)
            .field("settle", settle)
            .field("settle_max", settle_max)
            .field("ready", ready)
            .field("resync", resync)
            .field("metrics_file", metrics_file)
            .field("log_level", log_level)
            .field("log_format", log_format)
            .finish()
    }
}

/// Where values come from: the flags that were given, in order, and the environment.
pub(super) struct Source<'a> {
    pub given: &'a [(&'static OptionSpec, Option<OsString>)],
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
}

/// A value and the name to blame it on.
struct Found {
    name: String,
    value: OsString,
}

impl Found {
    fn refuse(&self, refusal: Refusal) -> UsageError {
        UsageError::new(format!("{}: {}", self.name, refusal.why)).hint(refusal.hint)
    }

    /// The value as text, for what is no path.
    fn text(&self) -> Result<&str, UsageError> {
        self.value.to_str().ok_or_else(|| {
            let hint = "only paths may hold bytes that are no UTF-8";
            self.refuse(Refusal::new("the value is not UTF-8", hint))
        })
    }
}

impl Source<'_> {
    /// The last value of the flag.
    fn flag(&self, id: Id) -> Option<Found> {
        let (spec, value) = self.given.iter().rev().find(|(spec, _)| spec.id == id)?;
        Some(Found {
            name: spec.flag(),
            value: value.clone().unwrap_or_else(|| OsString::from("on")),
        })
    }

    /// The value of the option's variable, when it counts.
    fn environment(&self, id: Id) -> Option<Found> {
        let name = table::option(id).variable?;
        let value = (self.variable)(name)?;
        if value.is_empty() && id != Id::Keyword {
            return None;
        }
        let name = name.to_owned();
        Some(Found { name, value })
    }

    fn find(&self, id: Id) -> Option<Found> {
        self.flag(id).or_else(|| self.environment(id))
    }

    fn count(&self, id: Id) -> usize {
        self.given.iter().filter(|(spec, _)| spec.id == id).count()
    }

    /// A value that may be absent.
    fn optional<T>(
        &self,
        id: Id,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Result<Option<T>, UsageError> {
        let Some(found) = self.find(id) else {
            return Ok(None);
        };
        let parsed = parse(found.text()?).map_err(|refusal| found.refuse(refusal))?;
        Ok(Some(parsed))
    }

    /// A value that has a default in the table.
    fn with_default<T>(
        &self,
        id: Id,
        parse: impl Fn(&str) -> Result<T, Refusal>,
    ) -> Result<T, UsageError> {
        let spec = table::option(id);
        let found = self.find(id).unwrap_or_else(|| Found {
            name: spec.flag(),
            value: OsString::from(spec.default.unwrap_or("")),
        });
        parse(found.text()?).map_err(|refusal| found.refuse(refusal))
    }

    /// A path, as bytes.
    fn path(&self, id: Id) -> Result<Option<PathBuf>, UsageError> {
        let Some(found) = self.find(id) else {
            return Ok(None);
        };
        let hint = format!("give it as in {} /some/path", table::option(id).flag());
        if found.value.is_empty() {
            return Err(found.refuse(Refusal::new("the path is empty", hint)));
        }
        let is_file = table::option(id).kind == Kind::File;
        if is_file && found.value.as_encoded_bytes().ends_with(b"/") {
            let why = format!("{} is a directory", quoted(&found.value.to_string_lossy()));
            return Err(found.refuse(Refusal::new(why, "name the file in it")));
        }
        Ok(Some(PathBuf::from(found.value)))
    }

    /// One of the words of the table.
    fn word<T: Copy>(&self, id: Id, values: &[(&str, T)]) -> Result<T, UsageError> {
        self.with_default(id, |text| word(text, values))
    }

    fn switch(&self, id: Id) -> Result<bool, UsageError> {
        // A switch without a default is a command's own; it is off unless given.
        match self.find(id) {
            Some(found) => switch(found.text()?).map_err(|refusal| found.refuse(refusal)),
            None => Ok(false),
        }
    }

    /// Whether a switch that belongs to one command was given.
    pub(super) fn own_switch(&self, id: Id) -> Result<bool, UsageError> {
        self.switch(id)
    }

    /// Reads and checks everything.
    pub(super) fn options(&self) -> Result<Options, UsageError> {
        let cosmos_url = self.optional(Id::CosmosUrl, url::parse)?;
        if cosmos_url.is_some() && self.find(Id::CosmosTable).is_none() {
            let from = self
                .find(Id::CosmosUrl)
                .map_or_else(String::new, |found| found.name);
            return Err(
                UsageError::new("missing option: --cosmos-table").hint(format!(
                    "{from} is given, so name the table that Cosmos keeps this site's services in: --cosmos-table NAME or COSMONAUT_COSMOS_TABLE"
                )),
            );
        }
        let (settle, settle_max) = self.settle()?;
        let state_dir = self.path(Id::StateDir)?.unwrap_or_else(|| {
            PathBuf::from(table::option(Id::StateDir).default.unwrap_or_default())
        });
        let config = match self.path(Id::Config)? {
            Some(config) => config,
            None => state_dir.join("haproxy.cfg"),
        };
        Ok(Options {
            cosmos_url,
            cosmos_table: self.with_default(Id::CosmosTable, table_name)?,
            cosmos_headers: self.headers()?,
            cosmos_ca: self.path(Id::CosmosCa)?,
            on_outage: self.word(
                Id::OnOutage,
                &[("hold", OnOutage::Hold), ("built-in", OnOutage::BuiltIn)],
            )?,
            trust_cosmos: self.switch(Id::TrustCosmos)?,
            keyword: self.with_default(Id::Keyword, keyword)?,
            docker_host: match self.flag(Id::DockerHost) {
                Some(found) => Some(
                    plain(found.text()?)
                        .map_err(|refusal| found.refuse(refusal))?
                        .to_owned(),
                ),
                None => None,
            },
            network: self.optional(Id::Network, plain)?,
            weave: self.word(
                Id::Weave,
                &[
                    ("auto", WeaveUse::Auto),
                    ("always", WeaveUse::Always),
                    ("never", WeaveUse::Never),
                ],
            )?,
            weave_addr: self.with_default(Id::WeaveAddr, plain)?,
            weave_cli: self.switch(Id::WeaveCli)?,
            state_dir,
            config,
            base: self.path(Id::Base)?,
            script: self.path(Id::Script)?,
            script_timeout: self.with_default(Id::ScriptTimeout, |text| match duration::parse(
                text,
            )? {
                Duration::ZERO => Err(Refusal::new(
                    format!("{} leaves the script no time", quoted(text)),
                    "the script must have a limit, as in 30s or 2m",
                )),
                limit => Ok(limit),
            })?,
            // docker inspect shows names with a slash, and people copy them.
            haproxy_container: self.with_default(Id::HaproxyContainer, |text| {
                plain(text.strip_prefix('/').unwrap_or(text))
            })?,
            haproxy_socket: self.optional(Id::HaproxySocket, plain)?,
            haproxy_master: self.optional(Id::HaproxyMaster, plain)?,
            settle,
            settle_max,
            ready: self.with_default(Id::Ready, duration::parse)?,
            resync: self.with_default(Id::Resync, |text| match duration::parse(text)? {
                Duration::ZERO => Ok(None),
                short if short < RESYNC_MIN => Err(Refusal::new(
                    format!("{} is shorter than 1s", quoted(text)),
                    "events tell of changes at once; a resync of 60s is usual, 0 means never",
                )),
                pause => Ok(Some(pause)),
            })?,
            metrics_file: self.path(Id::MetricsFile)?,
            log_level: self.log_level()?,
            log_format: self.word(
                Id::LogFormat,
                &[("text", Format::Text), ("json", Format::Json)],
            )?,
        })
    }

    /// Quiet time and longest wait. Where only the quiet time is given, the longest wait is
    /// at least as long; two given values that contradict each other are refused.
    fn settle(&self) -> Result<(Duration, Duration), UsageError> {
        let settle = self.with_default(Id::Settle, duration::parse)?;
        let settle_max = self.with_default(Id::SettleMax, duration::parse)?;
        if settle <= settle_max {
            return Ok((settle, settle_max));
        }
        match (self.find(Id::Settle), self.find(Id::SettleMax)) {
            (Some(short), Some(long)) => Err(UsageError::new(format!(
                "{}: {} is more than {} of {}",
                short.name,
                quoted(&short.value.to_string_lossy()),
                quoted(&long.value.to_string_lossy()),
                long.name,
            ))
            .hint("the quiet time ends a burst, the longest wait ends it anyway: make it the longer one")),
            (Some(_), None) => Ok((settle, settle)),
            (None, _) => Ok((settle_max, settle_max)),
        }
    }

    fn log_level(&self) -> Result<LevelFilter, UsageError> {
        let levels = [
            LevelFilter::Error,
            LevelFilter::Warn,
            LevelFilter::Info,
            LevelFilter::Debug,
            LevelFilter::Trace,
        ];
        let named: Vec<(&str, usize)> = table::LEVELS.iter().copied().zip(0..).collect();
        let place = self.word(Id::LogLevel, &named)?;
        let place = (place + self.count(Id::Verbose)).saturating_sub(self.count(Id::Quiet));
        Ok(*levels.get(place).unwrap_or(&LevelFilter::Trace))
    }

    /// All headers of the flags; without any, those of the variable, one a line.
    fn headers(&self) -> Result<Headers, UsageError> {
        let flags: Vec<Found> = self
            .given
            .iter()
            .filter(|(spec, _)| spec.id == Id::CosmosHeader)
            .map(|(spec, value)| Found {
                name: spec.flag(),
                value: value.clone().unwrap_or_default(),
            })
            .collect();
        let mut headers = Vec::new();
        for found in &flags {
            let parsed = header(found.text()?).map_err(|refusal| found.refuse(refusal))?;
            headers.push(parsed);
        }
        if flags.is_empty()
            && let Some(found) = self.environment(Id::CosmosHeader)
        {
            for line in found.text()?.lines().filter(|line| !line.trim().is_empty()) {
                headers.push(header(line).map_err(|refusal| found.refuse(refusal))?);
            }
        }
        Ok(Headers(headers))
    }
}

fn word<T: Copy>(text: &str, values: &[(&str, T)]) -> Result<T, Refusal> {
    if let Some((_, value)) = values
        .iter()
        .find(|(word, _)| word.eq_ignore_ascii_case(text))
    {
        return Ok(*value);
    }
    let words: Vec<&str> = values.iter().map(|(word, _)| *word).collect();
    let mut hint = format!("use one of {}", words.join(", "));
    if let Some(meant) = closest(text, words) {
        hint.push_str(&format!("; did you mean {meant}?"));
    }
    Err(Refusal::new(format!("{} is unknown", quoted(text)), hint))
}

fn switch(text: &str) -> Result<bool, Refusal> {
    let is = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is(&["on", "yes", "true", "1"]) {
        Ok(true)
    } else if is(&["off", "no", "false", "0"]) {
        Ok(false)
    } else {
        let why = format!("{} is neither on nor off", quoted(text));
        Err(Refusal::new(
            why,
            "use on, yes, true or 1, or off, no, false or 0",
        ))
    }
}

/// Text that must be there and fits on a line.
fn plain(text: &str) -> Result<String, Refusal> {
    if text.is_empty() {
        let hint = "leave the option out, or give it a value";
        return Err(Refusal::new("the value is empty", hint));
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let why = format!("{} holds a blank or control character", quoted(text));
        return Err(Refusal::new(why, "give the value without it"));
    }
    Ok(text.to_owned())
}

/// A word that can stand in a container's name, or nothing.
fn keyword(text: &str) -> Result<String, Refusal> {
    let in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    match text.chars().find(|c| !in_names(*c)) {
        None => Ok(text.to_owned()),
        Some(_) => Err(Refusal::new(
            format!("{} can stand in no container's name", quoted(text)),
            "a keyword is a plain word of letters, digits, '_', '.' and '-', no pattern; '' means every container that names a service",
        )),
    }
}

fn table_name(text: &str) -> Result<String, Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let why = if text.is_empty() {
        "the name is empty".to_owned()
    } else if text.len() > TABLE_BYTES_MAX {
        format!("{} is longer than 64 characters", quoted(text))
    } else if text.starts_with('.') {
        format!("{} starts with a dot", quoted(text))
    } else if !text.bytes().all(allowed) {
        format!("{} is not a table name", quoted(text))
    } else {
        return Ok(text.to_owned());
    };
    Err(Refusal::new(
        why,
        "a table name is up to 64 letters, digits, '_', '.' and '-', not starting with a dot, as in site-a",
    ))
}

/// `NAME: VALUE`. The value never shows up in a refusal; nor does the text when it has no
/// colon, since then it may be the key alone.
fn header(text: &str) -> Result<(String, String), Refusal> {
    let example = "give it as in 'x-api-key: VALUE'";
    let Some((name, value)) = text.split_once(':') else {
        return Err(Refusal::new("the header has no colon", example));
    };
    let (name, value) = (name.trim(), value.trim());
    // RFC 9110, section 5.6.2: the characters of a token.
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Refusal::new(
            "the text before the colon is not a header's name",
            example,
        ));
    }
    if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) {
        let why = format!("{} is set by cosmonaut itself", quoted(name));
        return Err(Refusal::new(why, "leave it out"));
    }
    // RFC 9110, section 5.5, without the obsolete bytes above ASCII.
    let printable = |b: u8| b == b'\t' || (0x20..0x7f).contains(&b);
    if value.is_empty() || !value.bytes().all(printable) {
        let why = format!(
            "the value of {} is empty or holds a control or non-ASCII character",
            quoted(name)
        );
        return Err(Refusal::new(why, example));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The text of a positional argument, for messages and for names.
pub(super) fn argument_text(argument: &OsStr) -> String {
    argument.to_string_lossy().into_owned()
}
