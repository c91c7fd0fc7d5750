//! Services -> the full text of haproxy.cfg. Pure: the only place that writes HAProxy syntax.
//!
//! Rules as measured on HAProxy 2.4 to 3.4; accepted without a
//! warning by HAProxy 2.4 to 3.4. Values from containers are checked once more here, stand in single
//! quotes (inside which HAProxy interprets nothing), and every generated name has a prefix.
//! Same services, same bytes.
//!
//! Order of the rules, since the first match wins: exact host names in the services' order, then
//! wildcards (longest first), then path prefixes (longest first).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

use super::Mode;
use crate::config::{ACL_PREFIX, BACKEND_PREFIX, Config, RULES_MARK, Section};
use crate::order;
use crate::room;

/// Patterns on one acl line. HAProxy takes 64 words a line, so the 61st pattern of an acl would
/// make it refuse the whole file; the next line of the same acl is an OR.
const PATTERNS_PER_LINE_MAX: usize = 50;

/// Longest service name.
const NAME_BYTES_MAX: usize = 63;

/// Longest cookie name.
const COOKIE_BYTES_MAX: usize = 64;

/// Everything up to the rules when the operator gives no base of his own.
///
/// No user, group, chroot, daemon, pidfile or socket: the same text runs as root on a host and as
/// uid 99 in the official image. `maxconn` needs twice as many descriptors, and more than the hard
/// limit allows ends HAProxy at its start although `haproxy -c` says nothing; 2,000 fits into the
/// smallest usual hard limit (4,096). Old workers are bounded by time (`hard-stop-after`) and by
/// number (`mworker-max-reloads`). A request is tried again only where it may be sent twice;
/// connections that failed before a byte went out are always tried again. Each time on the next server, and more
/// often than the usual 3 times: of a service that is scaled down most servers may refuse until the reload is through.
/// When all tries are used up, a request that is not the first of its connection gets no answer at all, only the end of
/// the connection (HAProxy leaves it to the client to ask again), and any other one 502 or 503. Servers that are gone
/// for longer are taken out by their checks, so a service without any still answers 503 within seconds.
const BUILT_IN: &str = "\
# Written by cosmonaut; changes made here are overwritten. Own settings: --base PATH.
global
    log stdout format raw local0 info
    maxconn 2000
    hard-stop-after 60s
    mworker-max-reloads 20
{socket}
defaults
    mode http
    log global
    option httplog
    option dontlognull
    option forwardfor
    option redispatch 1
    retries 10
    retry-on conn-failure empty-response
    timeout connect 1s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
    timeout http-keep-alive 10s
    timeout queue 5s
    timeout check 1s
    timeout tunnel 1h
    default-server inter 2s fastinter 500ms downinter 1s fall 2 rise 1
.if version_atleast(2.5)
    option idle-close-on-response
.endif

frontend http_in
    bind :80
    http-request disable-l7-retry if !{ method GET HEAD OPTIONS }
";

/// One service as the template needs it; its words are somebody else's, thousands of services are rendered
/// at each change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service<'s> {
    /// Its name.
    pub name: &'s str,
    /// Host names or path prefixes.
    pub mode: Mode,
    /// The patterns; `*.x` in host mode is any name below `x`; path prefixes without leading `/`.
    pub patterns: Vec<&'s str>,
    /// The port of every server.
    pub port: u16,
    /// The cookie for sticky sessions.
    pub cookie: Option<&'s str>,
    /// Its instances; none is fine, the service then answers 503.
    pub servers: Vec<Server<'s>>,
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server<'s> {
    /// The container's id: the server's name and the value of its cookie.
    pub id: &'s str,
    /// Its address.
    pub ip: IpAddr,
}

/// A service that is not in the config, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The service's name as it was given.
    pub service: String,
    /// The reason, for the operator.
    pub why: String,
}

/// A rendered config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text of haproxy.cfg, with a final newline.
    pub text: String,
    /// Services that could not be written into it.
    pub left_out: Vec<LeftOut>,
    /// Where those that could be stand in it.
    pub places: Places,
}

/// Where the services stand in a rendered text, in their order: enough to exchange one of thousands without
/// writing the others again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Where the rules begin, in bytes.
    rules: usize,
    /// Where the backends begin.
    backends: usize,
    services: Vec<Place>,
}

/// How long one service's words are, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Place {
    /// Its rule by exact names; those of all services stand before all other rules, in the services' order.
    rule: u32,
    /// Its backend.
    backend: u32,
    /// It has rules that stand elsewhere, among those of other services.
    scattered: bool,
}

impl Places {
    /// How many services are in the text.
    pub fn len(&self) -> usize {
        self.services.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// Those of another text of so many services, in the place of these.
    pub fn make_room(&mut self, services: usize) {
        room::for_all(&mut self.services, services);
    }

    /// Makes `text` what it would be if the service at `at` (`was`: there is one) were `now`, gone or new.
    /// Returns its backend as it was and as it is, empty where there is none; `None` where only a new rendering can
    /// tell, and `text` is as it was then.
    pub fn edit(
        &mut self,
        text: &mut String,
        base: &Base,
        at: usize,
        was: bool,
        now: Option<&Service<'_>>,
    ) -> Option<(String, String)> {
        let old = match self.services.get(at) {
            Some(place) if was => *place,
            _ if !was && at <= self.services.len() => Place::default(),
            _ => return None,
        };
        if old.scattered || now.is_some_and(|now| fault(now).or_else(|| clash(base, now)).is_some())
        {
            return None;
        }
        let (mut rule, mut backend) = (String::new(), String::new());
        if let Some(now) = now {
            if rules_of(now).iter().any(|rule| rule.kind != Kind::Exact) {
                return None;
            }
            push_rules(&mut rule, &[now], &mut [Place::default()]);
            push_backend(&mut backend, now, base.http_defaults);
        }
        let (Ok(rule_length), Ok(backend_length)) =
            (u32::try_from(rule.len()), u32::try_from(backend.len()))
        else {
            return None;
        };
        let before = self.services.iter().take(at);
        let (rules_before, backends_before) = before.fold((0, 0), |(rules, backends), place| {
            (
                rules + place.rule as usize,
                backends + place.backend as usize,
            )
        });
        let rule_at = self.rules + rules_before;
        let backend_at = self.backends + backends_before;
        let (rule_end, backend_end) = (
            rule_at + old.rule as usize,
            backend_at + old.backend as usize,
        );
        // From the end on: what stands before stays where it is.
        text.get(rule_at..rule_end)?;
        let was_backend = text.get(backend_at..backend_end)?.to_owned();
        text.replace_range(backend_at..backend_end, &backend);
        text.replace_range(rule_at..rule_end, &rule);
        self.backends = self.backends - old.rule as usize + rule.len();
        let place = Place {
            rule: rule_length,
            backend: backend_length,
            scattered: false,
        };
        if !was && now.is_some() {
            room::for_one_more(&mut self.services);
        }
        match (was, now) {
            (true, Some(_)) => self.services[at] = place,
            (true, None) => drop(self.services.remove(at)),
            (false, Some(_)) => self.services.insert(at, place),
            (false, None) => {}
        }
        Some((was_backend, backend))
    }
}

/// What stands around the generated rules: global, defaults and the frontend.
#[derive(Debug, Clone)]
pub struct Base {
    /// Up to the end of the last frontend.
    head: String,
    /// What the base has after its last frontend.
    tail: String,
    /// Services whose generated backend would have the name of a proxy of the base.
    backends: HashSet<String>,
    /// Services whose generated acl would have the name of one in the last frontend.
    acls: HashSet<String>,
    /// Whether the defaults that hold at the end of the base are already HTTP.
    http_defaults: bool,
}

impl Base {
    /// The base that comes with the program, with a runtime socket at that path if one is given.
    ///
    /// # Errors
    /// The reason why the path cannot stand in a config.
    pub fn built_in(socket: Option<&str>) -> Result<Base, String> {
        let socket = match socket {
            None => String::new(),
            Some(path)
                if path.is_empty() || path.contains(|c: char| c == '\'' || c.is_control()) =>
            {
                return Err(format!(
                    "{path:?} cannot be the path of a runtime socket: it is empty or holds a quote or a control character"
                ));
            }
            Some(path) => format!(
                "    stats socket '{path}' mode 660 level admin expose-fd listeners\n    stats timeout 30s\n"
            ),
        };
        Base::new(&BUILT_IN.replace("{socket}\n", &format!("{socket}\n")))
    }

    /// The operator's own base: rules go to the end of its last frontend, backends behind it all.
    ///
    /// # Errors
    /// The reason why rules cannot be added to it, with the line to look at.
    pub fn new(text: &str) -> Result<Base, String> {
        if text.starts_with('\u{feff}') {
            return Err("it begins with a byte order mark, which HAProxy refuses".into());
        }
        if text.contains('\0') {
            return Err("it holds a NUL byte, which HAProxy refuses".into());
        }
        let mut text = text.to_owned();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let config = Config::parse(&text);
        let is_proxy =
            |section: &Section<'_>| matches!(section.keyword(), "frontend" | "backend" | "listen");
        let Some(last) = config.sections().rfind(is_proxy) else {
            return Err(
                "it has no frontend; the rules of the services go to the end of its last frontend"
                    .into(),
            );
        };
        if last.keyword() != "frontend" {
            return Err(format!(
                "its last proxy is `{} {}` (line {}); the last one must be the frontend that takes the rules of the services, so move that frontend to the end",
                last.keyword(),
                last.name(),
                last.header().number,
            ));
        }
        if !is_http(&config, &last) {
            return Err(format!(
                "its last frontend, `{}` (line {}), is not in `mode http`; requests can only be told apart by host or path in HTTP mode",
                last.name(),
                last.header().number,
            ));
        }
        let http_defaults = config
            .sections()
            .rfind(|section| section.keyword() == "defaults")
            .is_some_and(|defaults| mode_of(&defaults) == Some("http"));
        let split = last.end_of_own_lines();
        Ok(Base {
            head: text[..split].to_owned(),
            tail: text[split..].to_owned(),
            backends: config
                .sections()
                .filter(is_proxy)
                .filter_map(|section| section.name().strip_prefix(BACKEND_PREFIX))
                .map(str::to_owned)
                .collect(),
            acls: last
                .lines()
                .filter(|line| line.keyword() == "acl")
                .filter_map(|line| line.word(1).strip_prefix(ACL_PREFIX))
                .map(|name| name.split(':').next().unwrap_or(name).to_owned())
                .collect(),
            http_defaults,
        })
    }
}

fn mode_of<'c>(section: &Section<'c>) -> Option<&'c str> {
    section
        .lines()
        .filter(|line| line.keyword() == "mode")
        .last()
        .map(|line| line.word(1))
}

/// Whether a frontend is in HTTP mode: by itself, by the defaults it names, or by those before it.
fn is_http(config: &Config<'_>, frontend: &Section<'_>) -> bool {
    if let Some(mode) = mode_of(frontend) {
        return mode == "http";
    }
    let header = frontend.header();
    let from = (header.word(2) == "from").then(|| header.word(3));
    config
        .sections()
        .rfind(|section| {
            section.keyword() == "defaults"
                && match from {
                    Some(name) => section.name() == name,
                    None => section.bytes().start < frontend.bytes().start,
                }
        })
        .is_some_and(|defaults| mode_of(&defaults) == Some("http"))
}

/// Writes the config: the base, one set of rules and one backend per service.
///
/// A service that cannot be written (a value outside the grammar, a name that the base or another
/// service has taken) is left out with its reason and never harms the others.
pub fn render(base: &Base, services: &[Service<'_>]) -> Rendered {
    render_again(base, services, Places::default())
}

/// [`render`], with the places where those of an earlier text are.
pub fn render_again(base: &Base, services: &[Service<'_>], places: Places) -> Rendered {
    let mut left_out = Vec::new();
    let mut names = HashSet::with_capacity(services.len());
    let mut good = Vec::with_capacity(services.len());
    for service in services {
        let fault = fault(service)
            .or_else(|| clash(base, service))
            .or_else(|| (!names.insert(service.name)).then(|| "it is there twice".to_owned()));
        match fault {
            None => good.push(service),
            Some(why) => left_out.push(LeftOut {
                service: service.name.to_owned(),
                why,
            }),
        }
    }
    let servers: usize = good.iter().map(|service| service.servers.len()).sum();
    let length = base.head.len() + base.tail.len() + good.len() * 256 + servers * 64 + 64;
    let mut text = String::from_utf8(room::passing(length)).unwrap_or_default();
    text.push_str(&base.head);
    text.push_str("    ");
    text.push_str(RULES_MARK);
    text.push('\n');
    let mut places = places;
    places.rules = text.len();
    places.make_room(good.len());
    places.services.resize(good.len(), Place::default());
    push_rules(&mut text, &good, &mut places.services);
    text.push_str(&base.tail);
    places.backends = text.len();
    for (service, place) in good.iter().zip(&mut places.services) {
        let start = text.len();
        push_backend(&mut text, service, base.http_defaults);
        place.backend = length_since(start, &text);
    }
    Rendered {
        text,
        left_out,
        places,
    }
}

/// How much was written since the text was `start` long. A service's words are some KB at most.
fn length_since(start: usize, text: &str) -> u32 {
    u32::try_from(text.len() - start).unwrap_or(u32::MAX)
}

/// Why a service cannot be written, by the grammar that no HAProxy version misreads.
pub fn fault(service: &Service<'_>) -> Option<String> {
    let name = service.name;
    if !is_service_name(name) {
        return Some(format!(
            "{name:?} is no service name: 1 to {NAME_BYTES_MAX} letters, digits, `_`, `.`, `-`, a letter or digit first"
        ));
    }
    if let Some(cookie) = service.cookie
        && !is_cookie_name(cookie)
    {
        return Some(format!(
            "{cookie:?} is no cookie name: 1 to {COOKIE_BYTES_MAX} letters, digits, `_`, `.`, `-`"
        ));
    }
    if service.port == 0 {
        return Some("port 0 is no port: 1 to 65535".to_owned());
    }
    if service.patterns.is_empty() {
        return Some("it has no predicate".to_owned());
    }
    for pattern in &service.patterns {
        let (good, what) = match service.mode {
            Mode::Host => (is_host_pattern(pattern), "host name"),
            Mode::Path => (is_path_pattern(pattern), "path prefix"),
        };
        if !good {
            return Some(format!("{pattern:?} is no {what} to route by"));
        }
    }
    let mut ids = HashSet::new();
    for server in &service.servers {
        if !is_server_name(server.id) {
            return Some(format!("{:?} is no container id", server.id));
        }
        // Most services have one, and there are thousands of them.
        if service.servers.len() > 1 && !ids.insert(server.id) {
            return Some(format!("container {} is there twice", server.id));
        }
        if server.ip.is_unspecified() || server.ip.is_multicast() {
            return Some(format!("{} is no container's address", server.ip));
        }
    }
    None
}

fn clash(base: &Base, service: &Service<'_>) -> Option<String> {
    let name = service.name;
    if base.backends.contains(name) {
        return Some(format!(
            "the base already has a proxy named {BACKEND_PREFIX}{name}"
        ));
    }
    if base.acls.contains(name) {
        return Some(format!(
            "the base's frontend already has an acl named {ACL_PREFIX}{name}"
        ));
    }
    None
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-".contains(&byte)
}

fn is_service_name(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX
        && name.bytes().all(is_token)
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_cookie_name(name: &str) -> bool {
    (1..=COOKIE_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_token)
}

/// A server's name is a container id, or whatever name another host's DNS gives; no more than what
/// HAProxy's names and its command line allow.
pub(super) fn is_server_name(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.bytes().all(|byte| is_token(byte) || byte == b':')
}

fn is_host_pattern(pattern: &str) -> bool {
    let name = pattern.strip_prefix("*.").unwrap_or(pattern);
    (1..=253).contains(&name.len())
        && !name.starts_with('-')
        && name.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        })
}

fn is_path_pattern(pattern: &str) -> bool {
    let path = pattern.strip_suffix('/').unwrap_or(pattern);
    !path.is_empty()
        && !path.starts_with('-')
        && path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._~!$&()*+=:@%/-".contains(&byte))
        && path
            .split('/')
            .all(|segment| !matches!(segment, "" | "." | ".."))
}

/// A condition that sends requests to one service.
struct Rule<'s> {
    service: &'s Service<'s>,
    /// Exact host names, one wildcard, or one path prefix.
    patterns: Vec<&'s str>,
    kind: Kind,
    /// Told apart from the service's other rules by this number; 0 stands for no suffix.
    number: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Exact,
    Wildcard,
    Path,
}

/// The name of a rule's acl.
struct Acl<'s> {
    service: &'s str,
    number: usize,
}

impl std::fmt::Display for Acl<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{ACL_PREFIX}{}", self.service)?;
        match self.number {
            0 => Ok(()),
            // A colon cannot be part of a service's name, so this is nobody else's acl.
            number => write!(f, ":{number}"),
        }
    }
}

/// Writes the rules of these services, and in `places`, one for each, where they stand.
fn push_rules(text: &mut String, services: &[&Service<'_>], places: &mut [Place]) {
    // Most are exact and stay in the services' order, before all others: only those have to be gathered.
    let mut others = Vec::new();
    for (at, service) in services.iter().enumerate() {
        for rule in rules_of(service) {
            if rule.kind != Kind::Exact {
                others.push((at, rule));
                continue;
            }
            let start = text.len();
            push_rule(text, &rule);
            if let Some(place) = places.get_mut(at) {
                place.rule = length_since(start, text);
            }
        }
    }
    // Stable: equal ones stay in the services' order.
    order::sort_by_key(&mut others, |(_, rule)| {
        let length = rule.patterns.first().map_or(0, |pattern| pattern.len());
        (rule.kind, Reverse(length))
    });
    for (at, rule) in others {
        push_rule(text, &rule);
        if let Some(place) = places.get_mut(at) {
            place.scattered = true;
        }
    }
}

fn push_rule(text: &mut String, rule: &Rule<'_>) {
    let acl = Acl {
        service: rule.service.name,
        number: rule.number,
    };
    match rule.kind {
        Kind::Exact => {
            for patterns in rule.patterns.chunks(PATTERNS_PER_LINE_MAX) {
                push(text, format_args!("    acl {acl} hdr(host),field(1,:) -i"));
                for pattern in patterns {
                    push_all(text, &[" '", pattern, "'"]);
                }
                text.push('\n');
            }
        }
        Kind::Wildcard => {
            for pattern in &rule.patterns {
                push(
                    text,
                    format_args!("    acl {acl} hdr(host),field(1,:) -i -m end '{pattern}'\n"),
                );
            }
        }
        // `path` and not `url`: over HTTP/2 and in absolute form the URL begins with the
        // scheme. Equal or with a slash behind it: `/api` is not `/apis`.
        Kind::Path => {
            for pattern in &rule.patterns {
                push(
                    text,
                    format_args!(
                        "    acl {acl} path '/{pattern}'\n    acl {acl} path_beg '/{pattern}/'\n"
                    ),
                );
            }
        }
    }
    push(
        text,
        format_args!(
            "    use_backend {BACKEND_PREFIX}{} if {acl}\n",
            rule.service.name
        ),
    );
}

/// The exact names of a service are one rule; each wildcard and each path prefix is one of its own,
/// so that the longest of all services can stand first.
fn rules_of<'s>(service: &'s Service<'s>) -> Vec<Rule<'s>> {
    let mut exact = Vec::new();
    let mut single = Vec::new();
    for pattern in &service.patterns {
        match (service.mode, pattern.strip_prefix('*')) {
            (Mode::Host, None) => exact.push(*pattern),
            (Mode::Host, Some(suffix)) => single.push((Kind::Wildcard, suffix)),
            (Mode::Path, _) => {
                single.push((Kind::Path, pattern.strip_suffix('/').unwrap_or(pattern)));
            }
        }
    }
    let mut rules = Vec::with_capacity(1 + single.len());
    if !exact.is_empty() {
        rules.push((Kind::Exact, exact));
    }
    rules.extend(
        single
            .into_iter()
            .map(|(kind, pattern)| (kind, vec![pattern])),
    );
    rules
        .into_iter()
        .enumerate()
        .map(|(number, (kind, patterns))| Rule {
            service,
            patterns,
            kind,
            number,
        })
        .collect()
}

fn push_backend(text: &mut String, service: &Service<'_>, http_defaults: bool) {
    push_all(text, &["\nbackend ", BACKEND_PREFIX, service.name, "\n"]);
    if !http_defaults {
        text.push_str("    mode http\n");
    }
    text.push_str("    balance roundrobin\n");
    if let Some(cookie) = service.cookie {
        push_sticky(text, cookie);
    }
    for Server { id, ip } in &service.servers {
        push_all(text, &["    server ", id, " "]);
        push(
            text,
            format_args!("{} check", SocketAddr::new(*ip, service.port)),
        );
        if service.cookie.is_some() {
            push_all(text, &[" cookie ", id]);
        }
        text.push('\n');
    }
}

/// Sticky sessions that hold whether or not the application sets the cookie itself.
///
/// `prefix` alone is sticky only when the application sets that very cookie. `insert` needs no
/// help, but takes a cookie of that name away from the application that has one (`JSESSIONID`), and
/// with it everybody's session. So: `prefix`, which leaves the application's value alone, and where
/// the application sent no cookie we add one, which HAProxy then prefixes like the application's
/// own. A client whose server is gone gets its old value for the new server, so that a session
/// shared between instances survives. The added value may be taken for a session id by an
/// application, so nobody must be able to guess it: a hash of a random UUID.
/// `srv_name`, `strcmp`, `uuid`, `sha1`, `regsub` exist in all of 2.4 to 3.4.
fn push_sticky(text: &mut String, cookie: &str) {
    push(
        text,
        format_args!(
            "    cookie {cookie} prefix nocache
    http-request set-var(txn.cookie) req.cook({cookie}),regsub([^~]*~,)
    http-request set-var(txn.cookie_server) req.cook({cookie}),field(1,~)
    http-response set-var(txn.server) srv_name
    acl cookie_set res.cook({cookie}) -m found
    acl cookie_known var(txn.cookie) -m found
    acl cookie_right var(txn.cookie_server),strcmp(txn.server) 0
    http-response add-header Set-Cookie '{cookie}=%[uuid(),sha1,hex]; path=/' if !cookie_set !cookie_known
    http-response add-header Set-Cookie '{cookie}=%[var(txn.cookie)]; path=/' if !cookie_set cookie_known !cookie_right
"
        ),
    );
}

/// What [`push`] does for words alone, in a fraction of its time.
fn push_all(text: &mut String, words: &[&str]) {
    for word in words {
        text.push_str(word);
    }
}

/// Writing to a String cannot fail.
fn push(text: &mut String, args: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(args);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::registry::expected::assert_file;
    use crate::registry::haproxy_check::assert_accepted;

    fn service<'s>(name: &'s str, mode: Mode, patterns: &[&'s str]) -> Service<'s> {
        Service {
            name,
            mode,
            patterns: patterns.to_vec(),
            port: 8080,
            cookie: None,
            servers: vec![Server {
                id: "0123456789ab",
                ip: IpAddr::from([10, 0, 0, 1]),
            }],
        }
    }

    fn built_in() -> Base {
        Base::built_in(None).expect("the built-in base is good")
    }

    /// The rules and backends of a rendered text, without the base.
    fn generated(text: &str) -> &str {
        let at = text.find(RULES_MARK).expect("the mark is there");
        &text[at + RULES_MARK.len() + 1..]
    }

    /// A thousand edits, each at once compared with a new rendering.
    #[test]
    fn an_edited_text_is_what_is_rendered_anew() {
        let base = Base::new(
            "defaults\n    mode http\nfrontend f\n    bind :80\n.if true\n# tail\n.endif\n",
        )
        .expect("a good base");
        let names: Vec<String> = (0..12).map(|n| format!("s{n:02}")).collect();
        let hosts: Vec<String> = names.iter().map(|n| format!("{n}.example.com")).collect();
        let mut services: Vec<Service<'_>> = vec![service("zz", Mode::Path, &["always/there"])];
        let Rendered {
            mut text,
            mut places,
            ..
        } = render(&base, &services);
        let (mut random, mut edited) = (7_u32, 0);
        for _ in 0..1000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (which, kind) = ((random >> 8) as usize % names.len(), (random >> 16) % 5);
            let mut now = service(&names[which], Mode::Host, &[&hosts[which]]);
            now.port = 80 + (random >> 24) as u16;
            match kind {
                0 => now.servers.clear(),
                1 => now.cookie = Some("c"),
                2 => now.patterns.push("*.wild.example.com"),
                _ => {}
            }
            let now = (kind != 3).then_some(now);
            let found = services.binary_search_by(|one| one.name.cmp(&names[which]));
            let was = found.is_ok();
            let (Ok(at) | Err(at)) = found;
            let scattered = |one: &Service<'_>| one.patterns.len() > 1;
            let elsewhere = now.as_ref().is_some_and(scattered)
                || (was && services.get(at).is_some_and(scattered));
            let can = !elsewhere;
            let exchanged = places.edit(&mut text, &base, at, was, now.as_ref());
            assert_eq!(exchanged.is_some(), can);
            for (backend, service) in exchanged.iter().flat_map(|(before, after)| {
                [
                    (before, was.then(|| services.get(at)).flatten()),
                    (after, now.as_ref()),
                ]
            }) {
                let mut expected = String::new();
                if let Some(service) = service {
                    push_backend(&mut expected, service, base.http_defaults);
                }
                assert_eq!(*backend, expected);
            }
            if was {
                services.remove(at);
            }
            if let Some(now) = now {
                services.insert(at, now);
            }
            let anew = render(&base, &services);
            if can {
                edited += 1;
                assert_eq!(text, anew.text);
                assert_eq!(places, anew.places);
            }
            (text, places) = (anew.text, anew.places);
        }
        assert!(edited > 500, "{edited}");
        let reserved = service("zz", Mode::Host, &["x.example.com"]);
        assert!(
            places
                .edit(&mut text, &base, services.len(), true, Some(&reserved))
                .is_none(),
            "there is none"
        );
    }

    #[test]
    fn rules_and_backends_of_every_kind() {
        let mut shop = service(
            "shop",
            Mode::Host,
            &["shop.example.com", "*.shop.example.com"],
        );
        shop.cookie = Some("JSESSIONID");
        shop.servers.push(Server {
            id: "89abcdef0123",
            ip: "fd00::2".parse().expect("an address"),
        });
        let mut out = service("out", Mode::Host, &["out.example.com"]);
        out.servers.clear();
        let services = [
            service("any", Mode::Host, &["*.example.com"]),
            shop,
            out,
            service("api", Mode::Path, &["api", "b/"]),
            service("v2", Mode::Path, &["api/v2"]),
        ];
        let rendered = render(&built_in(), &services);
        assert_eq!(rendered.left_out, []);
        assert_file("every-kind.cfg", generated(&rendered.text));
        assert_accepted(&rendered.text);
        assert_eq!(
            Config::parse(&rendered.text).services(),
            ["shop", "out", "any", "v2", "api"]
        );
    }

    #[test]
    fn no_services_and_a_socket_are_accepted() {
        assert_accepted(&render(&built_in(), &[]).text);
        let base = Base::built_in(Some("/run/haproxy/admin.sock")).expect("a good path");
        let text = render(&base, &[]).text;
        assert!(text.contains(
            "\n    stats socket '/run/haproxy/admin.sock' mode 660 level admin expose-fd listeners\n"
        ));
        assert_accepted(&text);
        assert!(Base::built_in(Some("/run/it's")).is_err());
        assert!(Base::built_in(Some("/run/a\nb")).is_err());
    }

    /// `inputs.jsonl` holds values with the verdict that a validator should give; what the template
    /// lets through is accepted by HAProxy word for word, what it refuses harms nobody.
    #[test]
    fn measured_inputs_are_accepted_or_left_out() {
        let mut cases = 0;
        for line in include_str!("../../tests/data/registry/inputs.jsonl").lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("a JSON line");
            let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
            let (field, value, verdict) = (text("field"), text("value"), text("verdict"));
            let mut asked = service("web", Mode::Host, &["web.example.com"]);
            match field.as_str() {
                "SERVICE_NAME" => asked.name = &value,
                "COOKIE" if !value.is_empty() => asked.cookie = Some(&value),
                "PREDICATE" => {
                    if text("mode") == "path" {
                        asked.mode = Mode::Path;
                    }
                    // As the description splits it; control characters it refuses at once.
                    asked.patterns = match value.contains(char::is_control) {
                        true => vec![value.as_str()],
                        false => value
                            .split([' ', ','])
                            .filter(|pattern| !pattern.is_empty())
                            .map(|pattern| pattern.trim_start_matches('/'))
                            .collect(),
                    };
                }
                _ => continue,
            }
            cases += 1;
            let rendered = render(&built_in(), std::slice::from_ref(&asked));
            if verdict.starts_with("accept") {
                assert_eq!(rendered.left_out, [], "{field} {value:?}");
                assert_accepted(&rendered.text);
            } else if !rendered.left_out.is_empty() {
                assert_eq!(rendered.text, render(&built_in(), &[]).text, "{value:?}");
            } else {
                // Refused by the description for another reason; still nothing but one service.
                assert_accepted(&rendered.text);
                assert_eq!(
                    Config::parse(&rendered.text).services().len(),
                    1,
                    "{value:?}"
                );
            }
        }
        assert!(cases > 30, "{cases} cases");
    }

    /// Every character and every pair from the nastiest part of the grammar, in every field: the
    /// text parses back to exactly the lines that were asked for.
    #[test]
    fn hostile_but_valid_values_stay_values() {
        let nasty: Vec<char> = "aZ0._~!$&()*+=:@%-".chars().collect();
        let mut patterns = Vec::new();
        for &first in &nasty {
            for &second in &nasty {
                for pattern in [format!("{first}{second}"), format!("x/{first}{second}/y")] {
                    if is_path_pattern(&pattern) {
                        patterns.push(pattern);
                    }
                }
            }
        }
        assert!(patterns.len() > 500);
        let chunks = patterns.chunks(40).enumerate();
        let named: Vec<_> = chunks
            .map(|(index, patterns)| (format!("s.-_{index}"), patterns))
            .collect();
        let services: Vec<_> = named
            .iter()
            .map(|(name, patterns)| {
                let patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
                service(name, Mode::Path, &patterns)
            })
            .collect();
        let rendered = render(&built_in(), &services);
        assert_eq!(rendered.left_out, []);
        assert_accepted(&rendered.text);
        let config = Config::parse(&rendered.text);
        let mut found: Vec<_> = config
            .lines()
            .filter(|line| line.keyword() == "acl" && line.word(2) == "path")
            .map(|line| {
                assert_eq!(line.words.len(), 4, "{}", line.text);
                line.word(3).trim_start_matches('/').to_owned()
            })
            .collect();
        found.sort();
        patterns.sort();
        assert_eq!(found, patterns);
    }

    #[test]
    fn more_patterns_than_a_line_takes() {
        let names: Vec<_> = (0..200).map(|n| format!("n{n}.example.com")).collect();
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let rendered = render(&built_in(), &[service("many", Mode::Host, &names)]);
        assert_accepted(&rendered.text);
        assert_eq!(rendered.text.matches("    acl is_many ").count(), 4);
    }

    #[test]
    fn a_service_that_cannot_be_written_is_left_out_alone() {
        let good = service("web", Mode::Host, &["web.example.com"]);
        let mut port = good.clone();
        port.port = 0;
        let mut double = good.clone();
        double.servers.push(double.servers[0].clone());
        let mut wildcard = good.clone();
        wildcard.servers[0].ip = IpAddr::from([0, 0, 0, 0]);
        let bad = [
            service("web", Mode::Host, &["other.example.com"]),
            service("a b", Mode::Host, &["a.example.com"]),
            service("a", Mode::Host, &[]),
            service("b", Mode::Host, &["x'y"]),
            service("c", Mode::Path, &["a//b"]),
            service("d", Mode::Path, &["../b"]),
            service("e", Mode::Path, &["-f"]),
            service("f", Mode::Host, &["-i"]),
            service("g", Mode::Host, &["a..b"]),
            service("h", Mode::Host, &["*"]),
            port,
            double,
            wildcard,
        ];
        for bad in bad {
            let rendered = render(&built_in(), &[good.clone(), bad.clone()]);
            assert_eq!(rendered.left_out.len(), 1, "{bad:?}");
            assert_eq!(
                rendered.text,
                render(&built_in(), std::slice::from_ref(&good)).text
            );
        }
    }

    #[test]
    fn an_operators_base_keeps_every_line_and_takes_the_rules_in_its_last_frontend() {
        let base = include_str!("../../tests/data/registry/base.cfg");
        let parsed = Base::new(base).expect("a good base");
        let services = [
            service("web", Mode::Host, &["web.example.com"]),
            service("static", Mode::Host, &["s.example.com"]),
            service("admin", Mode::Host, &["admin.example.com"]),
        ];
        let rendered = render(&parsed, &services);
        assert_file("base-rendered.cfg", &rendered.text);
        let why: Vec<_> = rendered.left_out.iter().map(|l| l.why.as_str()).collect();
        assert_eq!(
            why,
            [
                "the base already has a proxy named be_static",
                "the base's frontend already has an acl named is_admin"
            ]
        );
        assert_accepted(&rendered.text);
        assert_eq!(Config::parse(&rendered.text).services(), ["web"]);
    }

    #[test]
    fn a_base_without_room_for_rules_is_refused_with_the_reason() {
        let cases = [
            ("", "it has no frontend"),
            ("global\n", "it has no frontend"),
            ("\u{feff}global\n", "byte order mark"),
            ("global\0\n", "NUL byte"),
            (
                "defaults\n mode http\nfrontend a\n bind :80\nbackend b\n",
                "its last proxy is `backend b` (line 5)",
            ),
            (
                "defaults\n mode http\nfrontend a\n bind :80\nlisten l\n bind :81\n",
                "its last proxy is `listen l` (line 5)",
            ),
            (
                "frontend a\n bind :80\n",
                "`a` (line 1), is not in `mode http`",
            ),
            (
                "defaults tcp\n mode tcp\ndefaults\n mode http\nfrontend a from tcp\n bind :80\n",
                "is not in `mode http`",
            ),
        ];
        for (base, words) in cases {
            let why = Base::new(base).expect_err(base);
            assert!(why.contains(words), "{base:?}: {why}");
        }
        let no_newline = Base::new("frontend a\n mode http\n bind :80").expect("a good base");
        let text = render(&no_newline, &[service("web", Mode::Host, &["a.b"])]).text;
        assert!(
            text.contains("\n bind :80\n    # cosmonaut: rules\n"),
            "{text}"
        );
        assert!(text.contains("backend be_web\n    mode http\n"), "{text}");
    }
}
