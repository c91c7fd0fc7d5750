//! Changes of servers alone, by HAProxy's runtime socket and without a reload.
//!
//! The order: servers that leave are put into maintenance at once, before anything is checked, and servers
//! that come are added at once; then the file is checked and put in its place; then servers are moved, and
//! what HAProxy has is compared with the file.
//!
//! An addition ahead of the check is routed in 5 ms instead of 45, and is as safe as one after it. The running
//! HAProxy's `add server` parses the words of the line itself; only options that mean the same in both places
//! are used; nothing but servers may differ from the file that HAProxy took. So the check can refuse only for
//! what is not in that line, and then the addition is taken back and the file was not touched. A HAProxy that
//! starts anew, or is reloaded by a foreign hand, before the file is in its place has what it would have had
//! with the check first: the old file. If we are killed then, HAProxy has a container more than the file,
//! which runs and answers; the comparison at our next start finds it. Another address of a server waits for
//! the check: it cannot be taken back without the server's being away twice.
//!
//! There are no error codes on this socket: a reply that is not the one expected is a doubt, and a doubt is
//! a verified reload, which is always right since the file is. Measured on 2.6 and 3.0: `add server` from
//! 2.6 on, with a cookie from 3.0 on; it does not inherit `default-server`; a new server is in maintenance
//! and its checks are off; a server with connections cannot be deleted yet, one in maintenance finishes
//! its requests. What was added here is gone after a reload unless it is in the file.

use std::net::SocketAddr as Address;
use std::time::{Duration, Instant};

use super::servers::{self, Rows};
use super::socket::{self, SocketAddr};
use crate::config::{self, BackendChange, Config, Server};
use crate::order;
use crate::sorted::{Map, Set};

/// Time limit of one command; HAProxy answers within 10 ms, also with 5,000 servers.
const COMMAND_LIMIT: Duration = Duration::from_secs(2);
/// First and longest wait before a server in maintenance is deleted (again): it finishes its requests first.
const DELETE_WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// How often HAProxy's servers are compared with the file.
const AUDIT_EVERY: Duration = Duration::from_secs(180);
/// The same, while HAProxy does not answer.
const AUDIT_AGAIN: Duration = Duration::from_secs(15);
/// First version whose servers can be added at run time without experimental mode.
const ADDS_FROM: (u32, u32) = (2, 6);
/// First version that takes `cookie` for such a server.
const ADDS_STICKY_FROM: (u32, u32) = (3, 0);
/// Options of a server that mean the same in `add server` as in the file; `true` with a value. Of others
/// some are refused, and some accepted with another meaning.
const OPTIONS: &[(&str, bool)] = &[
    ("backup", false),
    ("check", false),
    ("cookie", true),
    ("downinter", true),
    ("fall", true),
    ("fastinter", true),
    ("inter", true),
    ("maxconn", true),
    ("rise", true),
    ("weight", true),
];

/// Why a change is not made at run time: then HAProxy reloads.
pub type Doubt = String;

/// The fingerprints that HAProxy may show.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Of the config that it last loaded.
    pub loaded: &'a str,
    /// Of the config whose servers it has had since; it shows this one if it was started again.
    pub current: &'a str,
}

/// A server that is in maintenance and is to be deleted.
#[derive(Debug)]
struct Out {
    /// The words after its address, where they are known.
    options: Option<Vec<String>>,
    again: Instant,
    wait: Duration,
}

/// The runtime socket, and what was done by it.
#[derive(Debug)]
pub struct Runtime {
    address: SocketAddr,
    out: Map<(String, String), Out>,
    audit: Instant,
    /// Nothing was compared yet in this life of ours.
    fresh: bool,
    /// What was added before its file was checked, and is not in the file yet.
    ahead: Ahead,
}

/// Servers that HAProxy has ahead of its file.
#[derive(Debug, Default)]
struct Ahead {
    /// The worker that has them.
    pid: String,
    /// Their options by backend and name; `None` while nobody knows how far one has come.
    servers: Map<(String, String), Option<Vec<String>>>,
}

/// A change that can be made at run time, as far as can be seen before it is begun.
struct Prepared<'c> {
    before: socket::Info,
    loaded: String,
    plans: Vec<Plan<'c>>,
}

/// The change of one backend, with all options of the servers that come.
struct Plan<'c> {
    change: BackendChange<'c>,
    adds: Vec<(Server<'c>, Vec<String>)>,
}

impl Runtime {
    /// The first comparison is due at once.
    pub fn new(address: SocketAddr) -> Self {
        Runtime {
            address,
            out: Map::default(),
            audit: Instant::now(),
            fresh: true,
            ahead: Ahead::default(),
        }
    }

    /// Puts servers that the new config has no more into maintenance, ahead of check and swap. Where that
    /// would leave a backend without servers although new ones come, it waits for them.
    pub fn drain(&mut self, old: &Config<'_>, new: &Config<'_>) {
        let after: Map<&str, Set<&str>> = order::gathered(new.backends().map(|backend| {
            let names = backend.servers().map(|server| server.name);
            (backend.name(), order::gathered(names))
        }));
        for backend in old.backends() {
            let Some(after) = after.get(backend.name()) else {
                continue;
            };
            let (stay, gone): (Vec<Server<'_>>, Vec<Server<'_>>) = backend
                .servers()
                .partition(|server| after.contains(server.name));
            if stay.is_empty() && !after.is_empty() {
                continue;
            }
            for server in gone {
                if let Err(doubt) = self.take_out(backend.name(), &server) {
                    log::debug!("not drained ahead of the change: {doubt}");
                    return;
                }
            }
        }
    }

    /// Adds the servers that the new config has more, ahead of check and swap, if the two differ by servers
    /// alone. [`Runtime::apply`] makes the rest of the change, or [`Runtime::take_back`] its end.
    ///
    /// # Errors
    /// Why the change cannot be made at run time. Nothing was added then, or it was taken back.
    pub fn add_ahead(
        &mut self,
        old: &Config<'_>,
        new: &Config<'_>,
        shown: Shown<'_>,
    ) -> Result<(), Doubt> {
        let added = self.prepare(old, new, shown).and_then(|prepared| {
            self.ahead.pid = prepared.before.pid;
            for Plan { change, adds } in &prepared.plans {
                for (server, options) in adds {
                    // Noted first: where the answer is lost, nobody knows whether it was added.
                    let key = (change.backend.to_owned(), server.name.to_owned());
                    self.ahead.servers.insert(key.clone(), None);
                    self.bring_in(change.backend, server, options)?;
                    let words = server.options.iter().map(|word| word.to_string());
                    self.ahead.servers.insert(key, Some(words.collect()));
                }
            }
            Ok(())
        });
        if added.is_err() {
            self.take_back();
        }
        added
    }

    /// Takes out what was added ahead of a change that was not made. Where that fails, HAProxy is compared
    /// with its file soon.
    pub fn take_back(&mut self) {
        for (key, options) in std::mem::take(&mut self.ahead).servers {
            // One that was in maintenance before may be half way out of it.
            self.out.remove(&key);
            let (backend, name) = key;
            if let Err(doubt) = self.put_in_maintenance(&backend, &name, options) {
                log::debug!("{backend}/{name} is not taken back: {doubt}");
                self.audit = Instant::now();
                return;
            }
        }
    }

    /// Makes the difference between two configs, if it is one of servers alone, and makes sure of it.
    /// Returns the fingerprint that HAProxy shows.
    ///
    /// # Errors
    /// Why a reload is needed. HAProxy may have taken a part of the change by then.
    pub fn apply(
        &mut self,
        old: &Config<'_>,
        new: &Config<'_>,
        shown: Shown<'_>,
    ) -> Result<String, Doubt> {
        let Prepared {
            before,
            loaded,
            plans,
        } = self.prepare(old, new, shown)?;
        if !self.ahead.servers.is_empty() && self.ahead.pid != before.pid {
            return Err("HAProxy was reloaded meanwhile".to_owned());
        }
        for Plan { change, adds } in &plans {
            for (server, options) in adds {
                let key = (change.backend.to_owned(), server.name.to_owned());
                if !self.ahead.servers.contains_key(&key) {
                    self.bring_in(change.backend, server, options)?;
                }
            }
            for (_, server) in &change.changed {
                self.move_to(change.backend, server)?;
            }
            for server in &change.removed {
                self.take_out(change.backend, server)?;
            }
        }
        let rows = self.rows()?;
        let changed: Set<&str> = order::gathered(plans.iter().map(|plan| plan.change.backend));
        if let Some(wrong) = differs(new, &rows, &|backend| changed.contains(backend), true) {
            return Err(wrong);
        }
        let after = self.info()?;
        if (&after.pid, &after.description) != (&before.pid, &before.description) {
            return Err("HAProxy was reloaded meanwhile".to_owned());
        }
        self.ahead = Ahead::default();
        Ok(loaded)
    }

    /// Looks at everything that may be in doubt before anything is done.
    fn prepare<'c>(
        &self,
        old: &'c Config<'_>,
        new: &'c Config<'_>,
        shown: Shown<'_>,
    ) -> Result<Prepared<'c>, Doubt> {
        let changes = config::server_changes(old, new)
            .ok_or_else(|| "more than servers changed".to_owned())?;
        let before = self.info()?;
        let loaded = [shown.current, shown.loaded]
            .into_iter()
            .find(|print| is_shown(print, &before.description))
            .ok_or_else(|| format!("HAProxy runs another config ({})", before.description))?
            .to_owned();
        let version = version(&before.version)
            .ok_or_else(|| format!("HAProxy's version {:?} is not known", before.version))?;
        if version < ADDS_FROM {
            return Err(format!(
                "HAProxy {} cannot add servers at run time",
                before.version
            ));
        }
        let mut plans = Vec::new();
        for change in changes {
            let adds = self.plan(new, &change, version)?;
            plans.push(Plan { change, adds });
        }
        Ok(Prepared {
            before,
            loaded,
            plans,
        })
    }

    /// A reload has made an end of all that was done here.
    pub fn reloaded(&mut self, now: Instant) {
        self.out.clear();
        self.ahead = Ahead::default();
        self.fresh = false;
        self.audit = now + AUDIT_EVERY;
    }

    /// Servers of this config that are in maintenance by our hand are let in again: their containers
    /// survived. What came of it is compared.
    ///
    /// # Errors
    /// Why a reload is needed.
    pub fn readmit(&mut self, config: &Config<'_>) -> Result<(), Doubt> {
        if self.out.is_empty() {
            return Ok(());
        }
        for backend in config.backends() {
            for server in backend.servers() {
                let key = (backend.name().to_owned(), server.name.to_owned());
                if self.out.contains_key(&key) {
                    let options = self.options(config, backend.name(), &server)?;
                    self.bring_in(backend.name(), &server, &options)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a server that this config has is out of service by our doing: it must be let in again.
    pub fn keeps_out(&self, text: &str) -> bool {
        if self.out.is_empty() {
            return false;
        }
        let config = Config::parse(text);
        config.backends().any(|backend| {
            backend.servers().any(|server| {
                let key = (backend.name().to_owned(), server.name.to_owned());
                self.out.contains_key(&key)
            })
        })
    }

    /// When there is something to tend to.
    pub fn next_due(&self) -> Instant {
        let delete = self.out.values().map(|out| out.again);
        delete.chain([self.audit]).min().unwrap_or(self.audit)
    }

    /// Deletes servers that have finished, and compares HAProxy with its config now and then. Returns a
    /// difference that only a reload mends.
    pub fn tend(
        &mut self,
        config: Option<&Config<'_>>,
        shown: Option<Shown<'_>>,
        now: Instant,
    ) -> Option<Doubt> {
        if let Err(doubt) = self.delete_due(config, now) {
            log::debug!("servers in maintenance are not deleted yet: {doubt}");
            self.audit = self.audit.max(now.max(Instant::now()) + AUDIT_AGAIN);
            return None;
        }
        let (Some(config), Some(shown)) = (config, shown) else {
            // Nothing to compare with before HAProxy has taken a config of ours.
            self.audit = self.audit.max(now + AUDIT_AGAIN);
            return None;
        };
        if self.audit > now {
            return None;
        }
        match self.compare(config, shown) {
            Ok(difference) => {
                self.audit = now + AUDIT_EVERY;
                self.fresh = false;
                difference
            }
            Err(doubt) => {
                log::debug!("HAProxy's servers cannot be compared with its config: {doubt}");
                self.audit = now + AUDIT_AGAIN;
                None
            }
        }
    }

    fn compare(&mut self, config: &Config<'_>, shown: Shown<'_>) -> Result<Option<Doubt>, Doubt> {
        let info = self.info()?;
        if ![shown.current, shown.loaded]
            .iter()
            .any(|print| is_shown(print, &info.description))
        {
            return Ok(Some(format!(
                "HAProxy runs another config ({})",
                info.description
            )));
        }
        let rows = self.rows()?;
        let ours: Set<&str> = order::gathered(config.service_backends().map(|one| one.name()));
        // A server of the config in maintenance: at our start it may be a drain that was cut short, later
        // it is the operator's doing.
        let wrong = differs(config, &rows, &|backend| ours.contains(backend), self.fresh);
        let listed = servers_of(config, &|_| true);
        for (key, row) in rows {
            if row.maintenance
                && ours.contains(key.0.as_str())
                && !listed.contains(&(key.0.as_str(), key.1.as_str()))
            {
                self.out.or_insert(
                    key,
                    Out {
                        options: None,
                        again: Instant::now(),
                        wait: DELETE_WAITS.0,
                    },
                );
            }
        }
        Ok(wrong)
    }

    /// A server that the file still has (its removal is owed) is not deleted: it may be let in again.
    ///
    /// # Errors
    /// When HAProxy does not answer. One server's wait was enough; the others come later.
    fn delete_due(&mut self, config: Option<&Config<'_>>, now: Instant) -> Result<(), Doubt> {
        let in_file = config.map_or_else(Set::default, |config| servers_of(config, &|_| true));
        let due: Vec<(String, String)> = self
            .out
            .iter()
            .filter(|(_, out)| out.again <= now)
            .map(|(key, _)| key.clone())
            .collect();
        let mut asked = Ok(());
        for key in due {
            let name = format!("{}/{}", key.0, key.1);
            let stays = in_file.contains(&(key.0.as_str(), key.1.as_str()));
            if asked.is_ok() && !stays {
                match self.ask(&format!("del server {name}")).as_deref() {
                    Ok("Server deleted." | "No such server." | "No such backend.") => {
                        self.out.remove(&key);
                        continue;
                    }
                    Ok(answer) => log::debug!("{name} is not deleted yet: {answer}"),
                    Err(doubt) => asked = Err(doubt.to_owned()),
                }
            }
            if let Some(out) = self.out.get_mut(&key) {
                out.wait = (out.wait * 2).min(DELETE_WAITS.1);
                out.again = now.max(Instant::now()) + out.wait;
            }
        }
        asked
    }

    /// The servers to bring in with all their options, or why they cannot be.
    fn plan<'c>(
        &self,
        new: &'c Config<'_>,
        change: &BackendChange<'c>,
        version: (u32, u32),
    ) -> Result<Vec<(Server<'c>, Vec<String>)>, Doubt> {
        for (old, new) in &change.changed {
            if old.options != new.options {
                return Err(format!("the options of server {} changed", new.name));
            }
            address(new)?;
        }
        let mut adds = Vec::new();
        for server in &change.added {
            address(server)?;
            if !is_word(server.name) || !is_word(change.backend) {
                return Err(format!("the name {:?} has odd characters", server.name));
            }
            let options = self.options(new, change.backend, server)?;
            let known = self.as_taken_out(change.backend, server);
            if !known && version < ADDS_STICKY_FROM && options.iter().any(|word| word == "cookie") {
                return Err(format!(
                    "HAProxy {}.{} cannot add sticky servers at run time",
                    version.0, version.1
                ));
            }
            adds.push((*server, options));
        }
        Ok(adds)
    }

    /// The options of a server with those of the `default-server` lines that hold for it.
    fn options(
        &self,
        config: &Config<'_>,
        backend: &str,
        server: &Server<'_>,
    ) -> Result<Vec<String>, Doubt> {
        let mut options = default_server(config, backend);
        options.extend(server.options.iter().map(|word| word.to_string()));
        let mut words = options.iter();
        while let Some(word) = words.next() {
            let with_value = OPTIONS.iter().find(|(name, _)| name == word);
            let Some((_, with_value)) = with_value else {
                return Err(format!("the server option {word:?} needs a reload"));
            };
            if *with_value && !words.next().is_some_and(|value| is_word(value)) {
                return Err(format!("the value of server option {word:?} is odd"));
            }
        }
        Ok(options)
    }

    /// Whether the server is still there as we took it out.
    fn as_taken_out(&self, backend: &str, server: &Server<'_>) -> bool {
        self.out
            .get(&(backend.to_owned(), server.name.to_owned()))
            .and_then(|out| out.options.as_ref())
            .is_some_and(|known| known.iter().eq(server.options.iter()))
    }

    fn bring_in(
        &mut self,
        backend: &str,
        server: &Server<'_>,
        options: &[String],
    ) -> Result<(), Doubt> {
        let key = (backend.to_owned(), server.name.to_owned());
        let name = format!("{backend}/{}", server.name);
        if self.as_taken_out(backend, server) {
            self.set_address(&name, server)?;
            self.expect(&format!("set server {name} state ready"), &[""])?;
            self.out.remove(&key);
            return Ok(());
        }
        let add = format!("add server {name} {} {}", server.address, options.join(" "));
        let mut answer = self.ask(&add)?;
        if answer.starts_with("Already exists") {
            // Left by somebody before us; if it cannot be deleted now, nobody knows its options.
            self.expect(&format!("set server {name} state maint"), &[""])?;
            self.expect(&format!("del server {name}"), &["Server deleted."])?;
            answer = self.ask(&add)?;
        }
        if answer != "New server registered." {
            return Err(format!("`add server {name}` was answered by: {answer}"));
        }
        self.out.remove(&key);
        if options.iter().any(|word| word == "check") {
            self.expect(&format!("enable health {name}"), &[""])?;
        }
        self.expect(&format!("set server {name} state ready"), &[""])
    }

    /// Another address of a server: in maintenance meanwhile, so that its health starts anew.
    fn move_to(&mut self, backend: &str, server: &Server<'_>) -> Result<(), Doubt> {
        let name = format!("{backend}/{}", server.name);
        self.expect(&format!("set server {name} state maint"), &[""])?;
        self.set_address(&name, server)?;
        self.expect(&format!("set server {name} state ready"), &[""])
    }

    fn set_address(&self, name: &str, server: &Server<'_>) -> Result<(), Doubt> {
        let to = address(server)?;
        let command = format!("set server {name} addr {} port {}", to.ip(), to.port());
        let answer = self.ask(&command)?;
        let known = [
            "IP changed",
            "port changed",
            "no need to change",
            "nothing changed",
        ];
        if known.iter().any(|known| answer.starts_with(known)) {
            Ok(())
        } else {
            Err(format!("`{command}` was answered by: {answer}"))
        }
    }

    fn take_out(&mut self, backend: &str, server: &Server<'_>) -> Result<(), Doubt> {
        let options = server.options.iter().map(|word| word.to_string());
        self.put_in_maintenance(backend, server.name, Some(options.collect()))
    }

    fn put_in_maintenance(
        &mut self,
        backend: &str,
        name: &str,
        options: Option<Vec<String>>,
    ) -> Result<(), Doubt> {
        let key = (backend.to_owned(), name.to_owned());
        if self.out.contains_key(&key) || !is_word(backend) || !is_word(name) {
            return Ok(());
        }
        let command = format!("set server {backend}/{name} state maint");
        let gone = ["No such server.", "No such backend."];
        let answer = self.ask(&command)?;
        if gone.contains(&answer.as_str()) {
            return Ok(());
        }
        if !answer.is_empty() {
            return Err(format!("`{command}` was answered by: {answer}"));
        }
        self.out.insert(
            key,
            Out {
                options,
                again: Instant::now() + DELETE_WAITS.0,
                wait: DELETE_WAITS.0,
            },
        );
        Ok(())
    }

    fn expect(&self, command: &str, answers: &[&str]) -> Result<(), Doubt> {
        let answer = self.ask(command)?;
        if answers.contains(&answer.as_str()) {
            Ok(())
        } else {
            Err(format!("`{command}` was answered by: {answer}"))
        }
    }

    /// One command; its answer without blank lines around it.
    fn ask(&self, command: &str) -> Result<String, Doubt> {
        socket::command(&self.address, command, COMMAND_LIMIT)
            .map(|reply| reply.trim().to_owned())
            .map_err(|error| error.to_string())
    }

    fn info(&self) -> Result<socket::Info, Doubt> {
        socket::info(&self.address, false, COMMAND_LIMIT).map_err(|error| error.to_string())
    }

    fn rows(&self) -> Result<Rows, Doubt> {
        let reply = self.ask("show servers state")?;
        servers::read(&reply)
            .map_err(|line| format!("`show servers state` was answered by: {line}"))
    }
}

/// The servers of some backends, behind the backends' names.
fn servers_of<'c>(
    config: &'c Config<'_>,
    concerns: &dyn Fn(&str) -> bool,
) -> Set<(&'c str, &'c str)> {
    let backends = config.backends().filter(|backend| concerns(backend.name()));
    order::gathered(backends.flat_map(|backend| {
        let name = backend.name();
        backend.servers().map(move |server| (name, server.name))
    }))
}

/// How the servers of some backends differ from what the config says; `None` when they do not.
fn differs(
    config: &Config<'_>,
    rows: &Rows,
    concerns: &dyn Fn(&str) -> bool,
    maintenance_counts: bool,
) -> Option<String> {
    let listed = servers_of(config, concerns);
    for backend in config.backends().filter(|backend| concerns(backend.name())) {
        for server in backend.servers() {
            let key = (backend.name().to_owned(), server.name.to_owned());
            let name = format!("{}/{}", key.0, key.1);
            match rows.get(&key) {
                None => return Some(format!("HAProxy has no server {name}")),
                Some(row) if row.maintenance && maintenance_counts => {
                    return Some(format!("server {name} is in maintenance"));
                }
                Some(row) => {
                    let wanted = address(&server).ok();
                    if wanted.is_some() && row.address != wanted {
                        return Some(format!("server {name} has another address"));
                    }
                }
            }
        }
    }
    rows.iter()
        .find(|(key, row)| {
            !row.maintenance
                && concerns(&key.0)
                && !listed.contains(&(key.0.as_str(), key.1.as_str()))
        })
        .map(|((backend, server), _)| format!("HAProxy has a server {backend}/{server} too many"))
}

fn is_shown(fingerprint: &str, description: &str) -> bool {
    !fingerprint.is_empty()
        && description.strip_prefix(config::DESCRIPTION_PREFIX) == Some(fingerprint)
}

/// A server's address as HAProxy will know it; names and ranges of ports are none.
fn address(server: &Server<'_>) -> Result<Address, Doubt> {
    server
        .address
        .parse()
        .map_err(|_| format!("the address {:?} is not an IP and a port", server.address))
}

/// What needs no quotes on the socket, where `;` and line feeds part commands.
fn is_word(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte))
}

/// The words of the `default-server` lines that hold for a backend's servers.
fn default_server(config: &Config<'_>, backend: &str) -> Vec<String> {
    let Some(section) = config.backends().find(|one| one.name() == backend) else {
        return Vec::new();
    };
    let header = section.header();
    let from = (header.word(2) == "from").then(|| header.word(3));
    let defaults = config.sections().rfind(|one| {
        one.keyword() == "defaults"
            && match from {
                Some(name) => one.name() == name,
                None => one.bytes().start < section.bytes().start,
            }
    });
    defaults
        .into_iter()
        .chain([section])
        .flat_map(|one| one.lines())
        .filter(|line| line.keyword() == "default-server")
        .flat_map(|line| line.words.get(1..).unwrap_or_default())
        .map(|word| word.to_string())
        .collect()
}

/// `2.6` of `2.6.12-1+deb12u4`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.split(['.', '-']);
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((major, minor))
}

#[cfg(test)]
#[path = "runtime_tests.rs"]
mod tests;
