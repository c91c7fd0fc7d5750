//! The text of haproxy.cfg as HAProxy itself reads it: lines, words, sections, servers, rules.
//!
//! Serves three readers: `registry/answer` (does a config hold what was asked for?), `haproxy/`
//! (do two configs differ in servers only? which service made HAProxy refuse the file?) and the
//! fingerprint that proves which config a running HAProxy took. It must not know Docker, files or
//! the registries' wire formats. Every function is linear in the size of the text.
//!
//! Word and quoting rules: HAProxy's configuration manual, section 2.2 "Quoting and escaping".
//! The names of services: the built-in registry writes backend `be_X` and acl `is_X` (or
//! `is_X:SUFFIX` where one service needs several rules), Cosmos writes `X` for both.

use crate::order;
use crate::room;
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

/// What stands before the fingerprint in `global` / `description`.
pub const DESCRIPTION_PREFIX: &str = "cosmonaut:";

/// Comment line under which the built-in registry's rules begin; what stands above it in the
/// same file is the operator's and never taken for a service's.
pub const RULES_MARK: &str = "# cosmonaut: rules";

/// Prefix of the built-in registry's backends: no service can collide with a proxy of the
/// operator, a reserved word or the frontend's name (facts: `default`, `or`, same names).
pub const BACKEND_PREFIX: &str = "be_";

/// Prefix of the built-in registry's acls.
pub const ACL_PREFIX: &str = "is_";

/// Whether a word begins a section wherever it stands first on a line (HAProxy 2.4 to 3.4).
fn is_section_word(word: &[u8]) -> bool {
    // Thousands of lines are asked about in each pass; this is decided by the length of the word for most.
    matches!(
        word,
        b"acme"
            | b"backend"
            | b"cache"
            | b"crt-store"
            | b"defaults"
            | b"fcgi-app"
            | b"frontend"
            | b"global"
            | b"healthcheck"
            | b"http-errors"
            | b"listen"
            | b"log-forward"
            | b"log-profile"
            | b"mailers"
            | b"namespace_list"
            | b"peers"
            | b"program"
            | b"resolvers"
            | b"ring"
            | b"traces"
            | b"userlist"
    )
}

/// Fingerprint of a config: 16 hex digits of a 64-bit hash of its bytes.
///
/// A change detector, not a seal: it tells one config of ours from another.
pub fn fingerprint(text: &str) -> String {
    let mut fingerprint = Fingerprint::default();
    fingerprint.add(text.as_bytes());
    fingerprint.to_string()
}

/// A [`fingerprint`] of texts that come in pieces; where a piece ends counts, too.
///
/// Eight bytes at a time: a config of 10,000 services has megabytes and is read several times in a pass. Each step is
/// a permutation of the state (exclusive or, multiplication by an odd number, rotation), so two texts of one
/// length that differ in one word never meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(u64);

impl Default for Fingerprint {
    fn default() -> Self {
        Fingerprint(0xcbf2_9ce4_8422_2325)
    }
}

impl Fingerprint {
    /// The fractional part of the golden ratio: odd, and its bits are mixed well.
    const FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;
    /// Pieces of this length are read in four rows; names and addresses are not worth it.
    const LANES_FROM: usize = 1 << 10;

    /// Adds one piece.
    pub fn add(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if bytes.len() >= Self::LANES_FROM {
            // A step waits for the one before; four rows of steps wait side by side.
            let (blocks, left) = bytes.as_chunks::<32>();
            let mut lanes = [0, 1, 2, 3].map(|lane| Fingerprint(self.0 ^ lane));
            for block in blocks {
                for (lane, word) in lanes.iter_mut().zip(block.as_chunks::<8>().0) {
                    lane.word(u64::from_le_bytes(*word));
                }
            }
            lanes.iter().for_each(|lane| self.word(lane.0));
            rest = left;
        }
        let (words, rest) = rest.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0; 8];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        self.word(u64::from_le_bytes(last));
        self.word(bytes.len() as u64);
    }

    /// The hash of all that was added.
    pub fn finish(mut self) -> u64 {
        // The last words have reached all bits only after some more steps.
        self.word(0);
        self.word(0);
        self.0
    }

    fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(Self::FACTOR).rotate_left(29);
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.finish())
    }
}

/// A config, and its own fingerprint in a `global` section at its end, readable by
/// `show info` as `description: cosmonaut:<fingerprint>`.
///
/// A second `global` section is legal, and its description wins, on HAProxy 2.4 to 3.4. The
/// fingerprint is that of the config with a final newline, without the added lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed<'t> {
    config: Cow<'t, str>,
    fingerprint: String,
    print: String,
}

impl<'t> Printed<'t> {
    /// Of a config without one.
    pub fn new(config: Cow<'t, str>) -> Printed<'t> {
        let mut config = config;
        if !config.is_empty() && !config.ends_with('\n') {
            config.to_mut().push('\n');
        }
        let fingerprint = fingerprint(&config);
        let print = format!("global\n    description {DESCRIPTION_PREFIX}{fingerprint}\n");
        Printed {
            config,
            fingerprint,
            print,
        }
    }

    /// The config alone.
    pub fn config(&self) -> &str {
        &self.config
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// The whole text, in two pieces: thousands of services are not copied to add a line.
    pub fn pieces(&self) -> [&str; 2] {
        [&self.config, &self.print]
    }

    /// The whole text.
    pub fn whole(&self) -> String {
        self.pieces().concat()
    }

    /// Whether this is the whole text.
    pub fn is(&self, text: &str) -> bool {
        text.strip_prefix(&*self.config) == Some(self.print.as_str())
    }
}

/// The whole text of [`Printed`].
pub fn with_fingerprint(text: &str) -> String {
    Printed::new(Cow::Borrowed(text)).whole()
}

/// Splits what [`with_fingerprint`] made into the config and its fingerprint.
///
/// A text without our last section comes back whole, with `None`.
pub fn split_fingerprint(text: &str) -> (&str, Option<&str>) {
    let whole = (text, None);
    let Some(at) = text.rfind("global\n    description cosmonaut:") else {
        return whole;
    };
    let (config, tail) = text.split_at(at);
    if !(config.is_empty() || config.ends_with('\n')) {
        return whole;
    }
    let print = tail
        .strip_prefix("global\n    description cosmonaut:")
        .and_then(|rest| rest.strip_suffix('\n'));
    match print {
        Some(print) if print.len() == 16 && print.bytes().all(|b| b.is_ascii_hexdigit()) => {
            (config, Some(print))
        }
        _ => whole,
    }
}

/// How many backends a config has, and how many servers are in them; by the first words of its lines alone, which
/// costs a fraction of parsing it.
pub fn size(text: &str) -> (usize, usize) {
    let (mut backends, mut servers, mut inside) = (0, 0, false);
    for line in text.as_bytes().split(|byte| *byte == b'\n') {
        let line = line.trim_ascii_start();
        let end = line.iter().position(u8::is_ascii_whitespace);
        match line.get(..end.unwrap_or(line.len())).unwrap_or_default() {
            b"server" if inside => servers += 1,
            b"backend" => {
                backends += 1;
                inside = true;
            }
            word if is_section_word(word) => inside = false,
            _ => {}
        }
    }
    (backends, servers)
}

/// A parsed view of one config. Never fails: what HAProxy would refuse is for `haproxy -c` to say.
#[derive(Debug, Clone)]
pub struct Config<'a> {
    text: &'a str,
    words: Vec<Cow<'a, str>>,
    lines: Vec<LineAt>,
    sections: Vec<SectionAt>,
    /// Index into `lines` of the first line after [`RULES_MARK`].
    mark: Option<usize>,
}

#[derive(Debug, Clone)]
struct LineAt {
    words: Range<usize>,
    bytes: Range<usize>,
    number: usize,
}

#[derive(Debug, Clone)]
struct SectionAt {
    /// Lines with words, the header first.
    lines: Range<usize>,
    bytes: Range<usize>,
}

/// One line that holds at least one word.
#[derive(Debug, Clone, Copy)]
pub struct Line<'c> {
    /// The words after HAProxy's quoting rules; never empty.
    pub words: &'c [Cow<'c, str>],
    /// Number in the file, from 1.
    pub number: usize,
    /// The line as written, without its line end.
    pub text: &'c str,
    /// Where [`Line::text`] begins in the whole text.
    pub start: usize,
}

impl<'c> Line<'c> {
    /// The first word: the directive.
    pub fn keyword(&self) -> &'c str {
        self.word(0)
    }

    /// The word at `index`, empty past the end.
    pub fn word(&self, index: usize) -> &'c str {
        self.words.get(index).map_or("", |word| word.as_ref())
    }

    /// Whether HAProxy reads other words than [`Line::words`]: it puts in the value of an environment variable in
    /// double quotes, or the default behind its name, and ends a word at a NUL.
    pub fn reads_otherwise(&self) -> bool {
        let (mut chars, mut quote) = (self.text.chars(), None);
        while let Some(char) = chars.next() {
            match (char, quote) {
                ('\\', None | Some('"')) => drop(chars.next()),
                ('\'' | '"', None) => quote = Some(char),
                ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
                ('$', Some('"')) => return true,
                ('#', None) => break,
                _ => {}
            }
        }
        self.words.iter().any(|word| word.contains('\0'))
    }
}

/// One section: its header line and all up to the next header.
#[derive(Debug, Clone, Copy)]
pub struct Section<'c> {
    config: &'c Config<'c>,
    at: &'c SectionAt,
}

/// One `server` line of a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server<'c> {
    /// Its name: for ours, the container's id.
    pub name: &'c str,
    /// Its address as written, `10.0.0.2:80` or `[fd00::2]:80`.
    pub address: &'c str,
    /// The words after the address.
    pub options: &'c [Cow<'c, str>],
}

impl<'c> Server<'c> {
    /// The word after the option `name`, as in `cookie VALUE`.
    pub fn option(&self, name: &str) -> Option<&'c str> {
        let at = self.options.iter().position(|word| word == name)?;
        self.options.get(at + 1).map(|word| word.as_ref())
    }
}

/// What differs in one backend between two configs that are equal but for servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendChange<'c> {
    /// The backend's name as in the file.
    pub backend: &'c str,
    /// Servers that only the new config has.
    pub added: Vec<Server<'c>>,
    /// Servers that only the old config has.
    pub removed: Vec<Server<'c>>,
    /// Servers of one name whose address or options differ: old, new.
    pub changed: Vec<(Server<'c>, Server<'c>)>,
}

/// What kind of text a [`Part`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// One line of a frontend: an acl or the rule that uses it.
    Rule,
    /// A whole backend.
    Backend,
}

/// A stretch of the text that belongs to one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part<'c> {
    /// The service.
    pub service: &'c str,
    /// A line of its rules, or its backend.
    pub kind: PartKind,
    /// Where it lies in the whole text, line end included.
    pub bytes: Range<usize>,
}

impl<'c> Section<'c> {
    /// `global`, `defaults`, `frontend`, `backend` and so on.
    pub fn keyword(&self) -> &'c str {
        self.header().keyword()
    }

    /// The word after the keyword; empty when there is none.
    pub fn name(&self) -> &'c str {
        self.header().word(1)
    }

    /// The line that opens the section.
    pub fn header(&self) -> Line<'c> {
        self.config.line(self.at.lines.start)
    }

    /// The lines after the header that hold words.
    pub fn lines(&self) -> impl Iterator<Item = Line<'c>> + use<'c> {
        let config = self.config;
        (self.at.lines.start + 1..self.at.lines.end).map(move |index| config.line(index))
    }

    /// The `server` lines, in order.
    pub fn servers(&self) -> impl Iterator<Item = Server<'c>> + use<'c> {
        self.lines()
            .filter(|line| line.keyword() == "server")
            .map(|line| Server {
                name: line.word(1),
                address: line.word(2),
                options: line.words.get(3..).unwrap_or_default(),
            })
    }

    /// The section as written, comments included, up to the next header.
    pub fn text(&self) -> &'c str {
        &self.config.text[self.at.bytes.clone()]
    }

    /// Where [`Section::text`] lies in the whole text.
    pub fn bytes(&self) -> Range<usize> {
        self.at.bytes.clone()
    }

    /// Byte offset behind the last line that is certainly this section's: after it come only
    /// comments, blank lines and conditional blocks (`.if`) that were not opened inside.
    pub fn end_of_own_lines(&self) -> usize {
        let mut depth = 0_i32;
        let mut end = self.at.bytes.start;
        for index in self.at.lines.clone() {
            let line = self.config.line(index);
            match line.keyword() {
                ".if" => depth += 1,
                ".endif" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                end = self.config.lines[index].bytes.end;
            }
        }
        end
    }
}

impl<'a> Config<'a> {
    /// Reads a text into lines, words and sections.
    pub fn parse(text: &'a str) -> Config<'a> {
        let mut config = Config {
            text,
            words: room::passing(text.len() / 8),
            lines: room::passing(text.len() / 32),
            sections: Vec::new(),
            mark: None,
        };
        let mut start = 0;
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let bytes = start..start + line.len();
            start = bytes.end;
            let before = config.words.len();
            split_words(line.trim_end_matches(['\n', '\r']), &mut config.words);
            if config.words.len() == before {
                // Only a frontend takes rules; elsewhere it is a comment like any other, and may be cut out.
                let in_frontend = config.sections.last().is_some_and(|last| {
                    config.words[config.lines[last.lines.start].words.start] == "frontend"
                });
                if in_frontend && line.trim() == RULES_MARK {
                    config.mark = Some(config.lines.len());
                }
                continue;
            }
            let is_header = is_section_word(config.words[before].as_bytes());
            if is_header {
                if let Some(last) = config.sections.last_mut() {
                    last.bytes.end = bytes.start;
                    last.lines.end = config.lines.len();
                }
                config.sections.push(SectionAt {
                    lines: config.lines.len()..config.lines.len(),
                    bytes: bytes.start..text.len(),
                });
            }
            config.lines.push(LineAt {
                words: before..config.words.len(),
                bytes,
                number: index + 1,
            });
        }
        if let Some(last) = config.sections.last_mut() {
            last.bytes.end = text.len();
            last.lines.end = config.lines.len();
        }
        config
    }

    /// The text that was parsed.
    pub fn text(&self) -> &'a str {
        self.text
    }

    fn line<'c>(&'c self, index: usize) -> Line<'c>
    where
        'a: 'c,
    {
        let at = &self.lines[index];
        Line {
            words: &self.words[at.words.clone()],
            number: at.number,
            text: self.text[at.bytes.clone()].trim_end_matches(['\n', '\r']),
            start: at.bytes.start,
        }
    }

    /// All lines that hold words, those before the first section included.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        (0..self.lines.len()).map(|index| self.line(index))
    }

    /// The lines before the first section; HAProxy refuses them unless they are conditionals.
    pub fn preamble(&self) -> impl Iterator<Item = Line<'_>> {
        let end = self
            .sections
            .first()
            .map_or(self.lines.len(), |section| section.lines.start);
        (0..end).map(|index| self.line(index))
    }

    /// The sections in order.
    pub fn sections(&self) -> impl DoubleEndedIterator<Item = Section<'_>> {
        self.sections
            .iter()
            .map(move |at| Section { config: self, at })
    }

    /// The sections `backend NAME`.
    pub fn backends(&self) -> impl Iterator<Item = Section<'_>> {
        self.sections()
            .filter(|section| section.keyword() == "backend")
    }

    /// The backends that the rules of services lead to.
    pub fn service_backends(&self) -> impl Iterator<Item = Section<'_>> {
        let routed: HashSet<&str> = self.service_rules().map(|rule| rule.backend).collect();
        self.backends()
            .filter(move |backend| routed.contains(backend.name()))
    }

    /// The services by the names of the backends that their rules lead to.
    pub fn services_by_backend(&self) -> HashMap<&str, &str> {
        let rules = self.service_rules();
        rules.map(|rule| (rule.backend, rule.service)).collect()
    }

    /// The names of the services that this config routes, in the order of their rules.
    pub fn services(&self) -> Vec<&str> {
        let mut seen = HashSet::new();
        self.service_rules()
            .filter(|rule| seen.insert(rule.service))
            .map(|rule| rule.service)
            .collect()
    }

    /// The `use_backend` lines that route services: (service, acl, backend, index of the line).
    fn service_rules(&self) -> impl Iterator<Item = ServiceRule<'_>> {
        let marked = self.mark.unwrap_or(0);
        self.sections()
            .filter(|section| matches!(section.keyword(), "frontend" | "listen"))
            .flat_map(move |section| {
                (section.at.lines.start.max(marked)..section.at.lines.end)
                    .filter_map(move |index| self.service_rule(index))
            })
    }

    fn service_rule(&self, index: usize) -> Option<ServiceRule<'_>> {
        let line = self.line(index);
        if line.keyword() != "use_backend" || line.word(2) != "if" || line.words.len() != 4 {
            return None;
        }
        let (backend, acl) = (line.word(1), line.word(3));
        let service = match backend.strip_prefix(BACKEND_PREFIX) {
            Some(name) if is_acl_of(acl, name) => name,
            _ if backend == acl && self.mark.is_none() => backend,
            _ => return None,
        };
        Some(ServiceRule {
            service,
            acl,
            backend,
            index,
        })
    }

    /// All that belongs to services, in the order of the text.
    pub fn parts(&self) -> Vec<Part<'_>> {
        let mut acls = HashMap::new();
        let mut backends = HashMap::new();
        let mut parts = Vec::new();
        let mut push = |service, kind, bytes: &Range<usize>| {
            parts.push(Part {
                service,
                kind,
                bytes: bytes.clone(),
            });
        };
        for rule in self.service_rules() {
            acls.insert(rule.acl, rule.service);
            backends.insert(rule.backend, rule.service);
            push(rule.service, PartKind::Rule, &self.lines[rule.index].bytes);
        }
        let marked = self.mark.unwrap_or(0);
        for section in self.sections() {
            if section.keyword() == "backend" {
                if let Some(service) = backends.get(section.name()) {
                    push(service, PartKind::Backend, &section.at.bytes);
                }
                continue;
            }
            if section.keyword() != "frontend" {
                continue;
            }
            for index in section.at.lines.start.max(marked)..section.at.lines.end {
                let line = self.line(index);
                if line.keyword() == "acl"
                    && let Some(service) = acls.get(line.word(1))
                {
                    push(service, PartKind::Rule, &self.lines[index].bytes);
                }
            }
        }
        order::sort_by_key(&mut parts, |part| part.bytes.start);
        parts
    }
}

struct ServiceRule<'c> {
    service: &'c str,
    acl: &'c str,
    backend: &'c str,
    index: usize,
}

/// Whether an acl's name is one that the built-in registry gives to `service`.
fn is_acl_of(acl: &str, service: &str) -> bool {
    acl.strip_prefix(ACL_PREFIX)
        .and_then(|rest| rest.strip_prefix(service))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// What differs between two configs that are equal but for the `server` lines of their backends
/// (and our fingerprint): one entry per backend with a difference, none when nothing differs.
///
/// `None` when anything else differs, or where the order of lines could give a server another
/// meaning (a directive after a server, two servers of one name): then only a reload is right.
pub fn server_changes<'c>(
    old: &'c Config<'_>,
    new: &'c Config<'_>,
) -> Option<Vec<BackendChange<'c>>> {
    if old.sections.len() != new.sections.len() || !same(old.preamble(), new.preamble()) {
        return None;
    }
    let mut changes = Vec::new();
    for (old, new) in old.sections().zip(new.sections()) {
        if old.header().words != new.header().words {
            return None;
        }
        if old.keyword() != "backend" {
            if !same(old.lines(), new.lines()) {
                return None;
            }
            continue;
        }
        if same(old.lines(), new.lines()) {
            continue;
        }
        let not_server = |line: &Line<'_>| line.keyword() != "server";
        if !same(
            old.lines().filter(not_server),
            new.lines().filter(not_server),
        ) {
            return None;
        }
        for section in [&old, &new] {
            let directive_after_server = section
                .lines()
                .skip_while(not_server)
                .any(|line| not_server(&line));
            if directive_after_server {
                return None;
            }
        }
        let change = backend_change(&old, &new)?;
        if !(change.added.is_empty() && change.removed.is_empty() && change.changed.is_empty()) {
            changes.push(change);
        }
    }
    Some(changes)
}

fn backend_change<'c>(old: &Section<'c>, new: &Section<'c>) -> Option<BackendChange<'c>> {
    let mut before = HashMap::new();
    for server in old.servers() {
        if before.insert(server.name, server).is_some() {
            return None;
        }
    }
    let mut change = BackendChange {
        backend: new.name(),
        added: Vec::new(),
        removed: Vec::new(),
        changed: Vec::new(),
    };
    let mut names = HashSet::new();
    for server in new.servers() {
        if !names.insert(server.name) {
            return None;
        }
        match before.get(server.name) {
            None => change.added.push(server),
            Some(old) if *old != server => change.changed.push((*old, server)),
            Some(_) => {}
        }
    }
    change.removed = old
        .servers()
        .filter(|server| !names.contains(server.name))
        .collect();
    Some(change)
}

/// Whether two runs of lines hold the same words, our fingerprint aside.
fn same<'c>(old: impl Iterator<Item = Line<'c>>, new: impl Iterator<Item = Line<'c>>) -> bool {
    let print = |line: &Line<'_>| {
        line.keyword() == "description" && line.word(1).starts_with(DESCRIPTION_PREFIX)
    };
    old.filter(|line| !print(line))
        .map(|line| line.words)
        .eq(new.filter(|line| !print(line)).map(|line| line.words))
}

/// What parts words: blanks as C's `isspace` has them, vertical tab and form feed among them.
fn is_blank(char: char) -> bool {
    char.is_ascii_whitespace() || char == '\x0b'
}

/// Appends the words of one line.
///
/// HAProxy's rules: blanks part words; `#` outside quotes begins a comment; `'…'` is literal; elsewhere, also in `"…"`,
/// `\` gives the blank, `#`, quote or `\` behind it (and `\n`, `\r`, `\t` and `\xHH` their meaning), and stays as it
/// is before any other; `\$` is one in `"…"` alone, where `$` begins a variable ([`Line::reads_otherwise`]).
fn split_words<'a>(line: &'a str, words: &mut Vec<Cow<'a, str>>) {
    let bytes = line.as_bytes();
    let is_blank = |byte: u8| is_blank(char::from(byte));
    let mut at = 0;
    while at < bytes.len() {
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        if bytes[at] == b'#' {
            return;
        }
        let start = at;
        while at < bytes.len() && !is_blank(bytes[at]) && !b"#'\"\\".contains(&bytes[at]) {
            at += 1;
        }
        if at == bytes.len() || is_blank(bytes[at]) || bytes[at] == b'#' {
            words.push(Cow::Borrowed(&line[start..at]));
            continue;
        }
        let (word, end) = quoted_word(line, start);
        words.push(Cow::Owned(word));
        at = end;
    }
}

/// The word at `start` that holds a quote or a backslash, and where it ends.
fn quoted_word(line: &str, start: usize) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut chars = line[start..].char_indices().peekable();
    while let Some((at, char)) = chars.next() {
        match (char, quote) {
            ('\'', Some('\'')) | ('"', Some('"')) => quote = None,
            (_, Some('\'')) => word.push(char),
            ('\\', _) => {
                let Some(&(_, next)) = chars.peek() else {
                    word.push('\\');
                    continue;
                };
                let escaped = match next {
                    'n' => Some('\n'),
                    'r' => Some('\r'),
                    't' => Some('\t'),
                    ' ' | '#' | '\'' | '\\' | '"' => Some(next),
                    '$' if quote.is_some() => Some(next),
                    _ => None,
                };
                match escaped {
                    Some(escaped) => {
                        word.push(escaped);
                        chars.next();
                    }
                    None if next == 'x' => {
                        let hex = line.get(start + at + 2..start + at + 4);
                        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
                            Some(byte) => {
                                word.push(char::from(byte));
                                chars.by_ref().take(3).for_each(drop);
                            }
                            None => word.push('\\'),
                        }
                    }
                    None => word.push('\\'),
                }
            }
            ('\'' | '"', None) => quote = Some(char),
            (end, None) if end == '#' || is_blank(end) => return (word, start + at),
            _ => word.push(char),
        }
    }
    (word, line.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "\
global
    maxconn 5
frontend http_in
    bind :80
    acl is_own path /own
    use_backend static if static
    # cosmonaut: rules
    acl is_shop hdr(host),field(1,:) -i 'shop.example.com'
    use_backend be_shop if is_shop
    acl is_shop:1 hdr(host),field(1,:) -i -m end '.shop.example.com'
    use_backend be_shop if is_shop:1
    acl is_shop2 path '/shop2'
    use_backend be_shop2 if is_shop2

backend be_shop
    balance roundrobin
    server aaaaaaaaaaaa 10.0.0.1:80 check

backend be_shop2
    balance roundrobin
    server bbbbbbbbbbbb 10.0.0.2:80 check
";

    const COSMOS: &str = "\
global
    daemon
frontend http
    bind :80
    
    acl api url_beg /api
    use_backend api if api
    
    acl web hdr(host) -i web.example.com
    use_backend web if web
    

# Define backends

backend api
    server aaaaaaaaaaaa 10.0.0.1:80 check 
    
backend web
    server bbbbbbbbbbbb 10.0.0.2:80 check 
    
";

    #[test]
    fn words_are_split_as_haproxy_does() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            ("   # comment", &[]),
            ("a b\tc # d", &["a", "b", "c"]),
            ("a#b c", &["a"]),
            ("a\\#b c", &["a#b", "c"]),
            ("'a b' \"c d\"e'f g'", &["a b", "c def g"]),
            ("'a\\n#\"' b", &["a\\n#\"", "b"]),
            (
                r#""a\"b\n\r\t\ \#\'\\\x41\$\q" c"#,
                &["a\"b\n\r\t #'\\A$\\q", "c"],
            ),
            (r#"a\"b\'\$c"#, &["a\"b'\\$c"]),
            ("a\\ b \\x41\\n \\q \\", &["a b", "A\n", "\\q", "\\"]),
            ("'' b", &["", "b"]),
            ("'open b", &["open b"]),
            ("é\\xzz 'ü'", &["é\\xzz", "ü"]),
            ("a\r", &["a"]),
            ("a\x0bb\x0cc 'd'\x0be", &["a", "b", "c", "d", "e"]),
        ];
        for (line, expected) in cases {
            let mut words = Vec::new();
            split_words(line, &mut words);
            assert_eq!(words, *expected, "{line:?}");
        }
    }

    #[test]
    fn words_that_haproxy_reads_otherwise_are_told() {
        for (text, otherwise) in [
            (r#""${NOPE-program}" x"#, true),
            (r#"a "$NOPE"b"#, true),
            (r#"a\"b "$C""#, true),
            (r#"a 'b"' "$C""#, true),
            (r"errorfile\x00z 503", true),
            (r#"a "\$B" '$C' $D '"$E"' \"$F # "$G""#, false),
            (r#"log-format "%ci \"%r\" %{+Q}r""#, false),
        ] {
            let config = Config::parse(text);
            let line = config.lines().next().expect("a line");
            assert_eq!(line.reads_otherwise(), otherwise, "{text}");
        }
    }

    #[test]
    fn nasty_bytes_never_panic() {
        let nasty = [
            "'",
            "\"",
            "\\",
            "\\x",
            "#",
            "é",
            " ",
            "\n",
            "\r",
            "\0",
            "global",
            "backend a",
            ".if",
            "\t",
        ];
        for a in nasty {
            for b in nasty {
                for c in nasty {
                    for d in nasty {
                        let text = [a, b, c, d].concat();
                        let config = Config::parse(&text);
                        let all: usize = config.sections().map(|s| s.text().len()).sum();
                        assert!(all <= text.len());
                        let _ = (config.services(), server_changes(&config, &config));
                    }
                }
            }
        }
    }

    #[test]
    fn services_are_found_in_both_forms_and_the_operators_own_are_not() {
        assert_eq!(Config::parse(OURS).services(), ["shop", "shop2"]);
        assert_eq!(Config::parse(COSMOS).services(), ["api", "web"]);
    }

    #[test]
    fn backends_and_servers_are_counted_as_parsed_ones_are() {
        for text in [
            "",
            "backend a\n server x 1.1.1.1:1\n\tserver y 1.1.1.2:1\n# server z\nbackend b\nlisten l\n server no 1.1.1.1:1\n",
            include_str!("../tests/data/registry/base.cfg"),
        ] {
            let config = Config::parse(text);
            let servers = config.backends().map(|one| one.servers().count()).sum();
            assert_eq!(size(text), (config.backends().count(), servers), "{text}");
        }
    }

    #[test]
    fn the_fingerprint_comes_last_and_comes_off_again() {
        let mut seen = HashSet::new();
        for text in [
            "",
            "a",
            "b",
            "a\0",
            "ab",
            "ba",
            "12345678",
            "123456789",
            "12345678\0",
        ] {
            assert!(seen.insert(fingerprint(text)), "{text:?}");
            assert_eq!(fingerprint(text).len(), 16, "{text:?}");
        }
        // One bit, wherever it is, in a short text and in one that is read in rows.
        let text = "global\n    maxconn 5\nfrontend http_in\n    bind :80\n";
        for text in [text.to_owned(), text.repeat(30)] {
            for at in 0..text.len() {
                let mut other = text.as_bytes().to_vec();
                other[at] ^= 1;
                let other = String::from_utf8(other).expect("ASCII");
                assert!(seen.insert(fingerprint(&other)), "{other:?}");
            }
        }
        let whole = with_fingerprint("global\n    maxconn 5");
        let print = fingerprint("global\n    maxconn 5\n");
        assert_eq!(
            whole,
            format!("global\n    maxconn 5\nglobal\n    description cosmonaut:{print}\n")
        );
        assert_eq!(
            split_fingerprint(&whole),
            ("global\n    maxconn 5\n", Some(print.as_str()))
        );
        for plain in ["", "global\n", "global\n    description cosmonaut:xyz\n"] {
            assert_eq!(split_fingerprint(plain), (plain, None));
        }
    }

    /// What changed, as `+server`, `-server`, `~server` per backend.
    fn changes(old: &str, new: &str) -> Option<String> {
        let (old, new) = (with_fingerprint(old), with_fingerprint(new));
        let (old, new) = (Config::parse(&old), Config::parse(&new));
        let changes = server_changes(&old, &new)?;
        let mut words = Vec::new();
        for change in changes {
            words.push(change.backend.to_owned());
            words.extend(change.added.iter().map(|s| format!("+{}", s.name)));
            words.extend(change.removed.iter().map(|s| format!("-{}", s.name)));
            words.extend(
                change
                    .changed
                    .iter()
                    .map(|(_, s)| format!("~{} {}", s.name, s.address)),
            );
        }
        Some(words.join(" "))
    }

    #[test]
    fn changes_of_servers_alone_are_told_from_all_others() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("", "", Some("")),
            ("# cosmonaut: rules", "# another comment", Some("")),
            (
                "    server aaaaaaaaaaaa",
                "    server cccccccccccc 10.0.0.3:80\n    server aaaaaaaaaaaa",
                Some("be_shop +cccccccccccc"),
            ),
            (
                "    server aaaaaaaaaaaa 10.0.0.1:80 check\n",
                "",
                Some("be_shop -aaaaaaaaaaaa"),
            ),
            (
                "10.0.0.2:80",
                "10.0.0.9:80",
                Some("be_shop2 ~bbbbbbbbbbbb 10.0.0.9:80"),
            ),
            (
                "10.0.0.2:80 check",
                "10.0.0.2:80",
                Some("be_shop2 ~bbbbbbbbbbbb 10.0.0.2:80"),
            ),
            (
                "server aaaaaaaaaaaa",
                "server dddddddddddd",
                Some("be_shop +dddddddddddd -aaaaaaaaaaaa"),
            ),
            (
                "    server aaaaaaaaaaaa",
                "    server bbbbbbbbbbbb 10.0.0.1:80\n    server bbbbbbbbbbbb 10.0.0.2:80\n    server aaaaaaaaaaaa",
                None,
            ),
            ("maxconn 5", "maxconn 6", None),
            ("shop.example.com", "shop.example.org", None),
            ("balance roundrobin", "balance leastconn", None),
            (
                "10.0.0.1:80 check\n",
                "10.0.0.1:80 check\n    option redispatch\n",
                None,
            ),
            ("backend be_shop2", "backend be_shop3", None),
            (
                "backend be_shop2\n",
                "backend be_x\nbackend be_shop2\n",
                None,
            ),
        ];
        for (from, to, expected) in cases {
            let new = OURS.replacen(from, to, 1);
            assert_eq!(
                changes(OURS, &new).as_deref(),
                *expected,
                "{from:?} -> {to:?}"
            );
        }
    }

    #[test]
    fn server_options_are_found_by_name() {
        let config = Config::parse("backend b\n server s 10.0.0.1:80 check cookie s weight 5\n");
        let server = config
            .backends()
            .next()
            .and_then(|b| b.servers().next())
            .expect("a server");
        assert_eq!(
            (server.option("cookie"), server.option("weight")),
            (Some("s"), Some("5"))
        );
        assert_eq!((server.option("inter"), server.option("5")), (None, None));
    }

    /// Linear in the size of the text: a thousand services and one service of a thousand.
    #[test]
    fn large_configs_are_read_in_one_go() {
        let mut text = String::from("frontend f\n");
        for n in 0..1_000 {
            text += &format!(" acl s{n} path /{n}\n use_backend s{n} if s{n}\n");
        }
        for n in 0..1_000 {
            text += &format!("backend s{n}\n server a{n} 10.0.0.1:80\n");
        }
        for n in 0..1_000 {
            text += &format!(" server b{n} 10.0.0.1:80\n");
        }
        let config = Config::parse(&text);
        assert_eq!(config.services().len(), 1_000);
        assert_eq!(config.backends().flat_map(|b| b.servers()).count(), 2_000);
        let other = text.replace(" use_backend s500 if s500\n", "");
        let other = Config::parse(&other);
        assert_eq!(other.services().len(), 999);
        assert_eq!(server_changes(&config, &other), None);
    }
}
