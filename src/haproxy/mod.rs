//! A config text -> HAProxy: compare, stage, check, swap, make live, verify, remember; on failure put the
//! last good one back. One path for every change.
//!
//! What must hold at every moment, also when this process is killed between any two steps: the file at the
//! config's path is whole and was accepted, and what HAProxy has not taken yet is known to be owed.
//! So a config is compared with what HAProxy last took, not with what was last written.
//!
//! A config that HAProxy refuses is taken apart by services ([`bisect`]): who makes it refuse is held back,
//! all others are served. A change of servers alone needs no reload where there is a [`runtime`] socket.
//!
//! It knows neither Docker nor registries.

pub mod bisect;
pub mod blocks;
pub mod changes;
pub mod held;
pub mod live;
pub mod master;
pub mod memory;
pub mod on_disk;
pub mod process;
pub mod runtime;
pub mod script;
pub mod servers;
pub mod socket;

use std::borrow::Cow;
use std::cell::LazyCell;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use crate::atomic_file::{self, Installed, Staged};
use crate::config::{self, Config, Printed, Server};
use crate::error::{Error, Kind, Result};
use crate::order;
use crate::sorted::Set;
use bisect::Suspects;
use blocks::Blocks;
use held::Held;
pub use live::By;
use live::Live;
use memory::{Memory, Taken};
use on_disk::{OnDisk, Seen};
use runtime::{Runtime, Shown};
use script::{Checked, Script};
use socket::SocketAddr;

/// What came of handing over a config.
#[derive(Debug)]
pub enum Outcome {
    /// HAProxy runs exactly this already.
    Unchanged,
    /// HAProxy took it, perhaps without the services in [`Haproxy::held`].
    Applied {
        /// How it went live.
        how: Applied,
        /// What changed, in words.
        changes: String,
    },
    /// It is installed, HAProxy is not running and takes it when it starts; it is still owed.
    NotRunning(String),
    /// HAProxy's check refused it, with its words, whatever service was left out; nothing was changed.
    Refused(String),
}

/// How a config went live, and how long each step took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Staging and checking.
    pub check: Duration,
    /// Putting the file in its place.
    pub swap: Duration,
    /// Reload or runtime socket, and verification.
    pub reload: Duration,
    /// Whether HAProxy's own socket confirmed it.
    pub confirmed: bool,
    /// By what it went live.
    pub by: By,
}

/// What handing over a config would come to.
#[derive(Debug)]
pub struct Plan {
    /// Path of haproxy.cfg.
    pub path: PathBuf,
    /// What it holds now, `None` when there is no such file.
    pub before: Option<String>,
    /// What it would hold.
    pub wanted: String,
    /// What HAProxy would be told.
    pub told: Told,
}

/// What HAProxy would be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// It runs exactly this already.
    Nothing,
    /// These words by its runtime socket; to reload where that fails or HAProxy is too old for it.
    Commands(Vec<String>),
    /// To reload.
    Reload,
}

/// Where HAProxy is told what it runs, and by what it is verified.
#[derive(Debug)]
pub struct Settings {
    /// Path of haproxy.cfg.
    pub config: PathBuf,
    /// Folder of ours.
    pub state_dir: PathBuf,
    /// The reload script.
    pub script: Script,
    /// Runtime socket, if any.
    pub socket: Option<SocketAddr>,
    /// Master socket, if any.
    pub master: Option<SocketAddr>,
}

/// HAProxy, as far as it is ours to steer.
#[derive(Debug)]
pub struct Haproxy {
    settings: Settings,
    memory: Memory,
    runtime: Option<Runtime>,
    held: Held,
    /// Why what HAProxy runs is not sure to be what it took last: the next pass reloads.
    doubt: Option<String>,
    /// The last change could not be made. What is tried again goes no step ahead of its check: a server would come
    /// and go with each try.
    failed: bool,
    unchecked_said: bool,
    in_place_said: bool,
    /// The config at its path, as we last read or wrote it.
    seen: Option<Seen>,
    /// HAProxy's container has the very file of the config mounted: another file in its place would never be seen.
    /// `None` where that may be.
    alone: Option<bool>,
}

/// What is known of the way that a change takes before it is checked.
#[derive(Debug, PartialEq, Eq)]
enum Ahead {
    /// The runtime socket may do.
    Open,
    /// Only a reload is right.
    Reload,
}

/// A text that passed the check, or could not be checked.
struct Passed<'t> {
    staged: Staged,
    text: Printed<'t>,
    /// HAProxy itself accepted it.
    accepted: bool,
}

impl Haproxy {
    /// Remembers what an earlier run left in the state folder.
    pub fn new(settings: Settings) -> Self {
        let memory = Memory::new(&settings.state_dir, &settings.config);
        let runtime = settings.socket.clone().map(Runtime::new);
        Haproxy {
            settings,
            memory,
            runtime,
            held: Held::default(),
            doubt: None,
            failed: false,
            unchecked_said: false,
            in_place_said: false,
            seen: None,
            alone: Some(false),
        }
    }

    /// Whether HAProxy last took the answer to the request of this `digest`, and the file still says so.
    pub fn holds(&self, request: &str) -> bool {
        self.doubt.is_none()
            && self.memory.taken().is_some_and(|taken| {
                taken.is_sure()
                    && taken.request == request
                    && self.file().carries(&taken.fingerprint)
                    && !self.runtime.as_ref().is_some_and(|runtime| {
                        let text = self.on_disk();
                        text.is_some_and(|text| runtime.keeps_out(&text))
                    })
            })
    }

    /// Learns what HAProxy's container has mounted from this host; `None` where nobody tells.
    pub fn has_mounted(&mut self, sources: Option<&[String]>) {
        let path = self.target();
        let is_ours = |source: &String| target(Path::new(source)) == path;
        self.alone = sources.map(|sources| sources.iter().any(is_ours));
    }

    /// The services that HAProxy refuses: they have their last good block or none.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// The names of the servers in the services' backends of the config that HAProxy took last.
    pub fn servers(&self) -> Vec<String> {
        self.of_servers(|_, server| Some(server.name.to_owned()))
    }

    /// Service, name and IP of each of these servers.
    pub fn routed(&self) -> Vec<(String, String, IpAddr)> {
        self.of_servers(|service, server| {
            let (ip, _) = server.address.rsplit_once(':')?;
            let ip = ip.trim_start_matches('[').trim_end_matches(']');
            Some((service.to_owned(), server.name.to_owned(), ip.parse().ok()?))
        })
    }

    /// Something of each of these servers, of whom the service is told, too.
    fn of_servers<T>(&self, of: impl Fn(&str, &Server<'_>) -> Option<T>) -> Vec<T> {
        let Some(text) = self.last_good() else {
            return Vec::new();
        };
        let config = Config::parse(&text);
        let mut all = Vec::new();
        let services = config.services_by_backend();
        for backend in config.backends() {
            if let Some(service) = services.get(backend.name()) {
                let servers = backend.servers();
                all.extend(servers.filter_map(|server| of(service, &server)));
            }
        }
        all
    }

    /// The config that HAProxy took last, if it is known. Where only a part of that was written down, since we were
    /// killed or the disk was full, it is the one at its path, if that is ours.
    pub fn last_good(&self) -> Option<String> {
        last_good(&self.memory, &self.file())
    }

    /// When HAProxy took the config that [`Haproxy::routed`] is of.
    pub fn routed_at(&self) -> Option<SystemTime> {
        self.memory.last_good_at()
    }

    /// When there is something to do here without any news.
    pub fn next_due(&self) -> Option<Instant> {
        let runtime = self.runtime.as_ref().map(Runtime::next_due);
        let reload = self.doubt.as_ref().map(|_| Instant::now());
        let due = runtime.into_iter().chain(self.held.next_due());
        due.chain(reload).min()
    }

    /// Does what is due here without any news: servers that have finished are deleted, and what HAProxy
    /// runs is compared with its file. A difference is made good by the pass that follows.
    pub fn tend(&mut self, now: Instant) {
        let Some(runtime) = &mut self.runtime else {
            return;
        };
        if runtime.next_due() > now {
            return;
        }
        let taken = self.memory.taken();
        let file = OnDisk::open(&target(&self.settings.config), None);
        let current = file.text().zip(taken.as_ref());
        let current = current.filter(|(text, taken)| carries(text, &taken.fingerprint));
        let config = current.map(|(text, _)| Config::parse(text));
        let shown = current.map(|(_, taken)| shown(taken));
        if let Some(doubt) = runtime.tend(config.as_ref(), shown, now) {
            log::info!("HAProxy does not run what it took last: {doubt}; it reloads");
            self.doubt = Some(doubt);
        }
    }

    /// Fingerprint of the config that HAProxy last took, if that is known.
    pub fn taken(&self) -> Option<String> {
        self.memory.taken().map(|taken| taken.fingerprint)
    }

    /// Whether it was this config file that HAProxy last took, as far as is known.
    ///
    /// # Errors
    /// When it was another one: the options are not those of `watch`.
    pub fn last_took_this_file(&self) -> Result<()> {
        let Some(other) = self.memory.other_config() else {
            return Ok(());
        };
        let (ours, other) = (self.settings.config.display(), other.display());
        Err(Error::new(
            format!("cannot go back to an earlier config in {ours}"),
            format!("the configs of this state directory were in {other}"),
        )
        .hint(format!("give the options of watch: --config {other}"))
        .kind(Kind::Usage))
    }

    /// What [`Haproxy::apply`] would do with this config. Changes nothing.
    pub fn plan(&self, text: &str) -> Plan {
        let wanted = config::with_fingerprint(text);
        let before = self.on_disk();
        let taken = self.taken();
        let runs = before.as_deref().zip(taken.as_deref());
        let runs = runs.filter(|(text, taken)| carries(text, taken));
        let told = match runs {
            Some((text, _)) if text == wanted => Told::Nothing,
            Some((text, _)) if self.runtime.is_some() => {
                let (old, new) = (Config::parse(text), Config::parse(&wanted));
                let changes = config::server_changes(&old, &new);
                changes.map_or(Told::Reload, |changes| {
                    Told::Commands(changes::in_commands(&changes))
                })
            }
            _ => Told::Reload,
        };
        Plan {
            path: self.target(),
            before,
            wanted,
            told,
        }
    }

    /// Hands a config to HAProxy; `request` is the digest of what the registry was asked.
    ///
    /// # Errors
    /// When a step fails. HAProxy then runs what it ran before, and so does the file say.
    pub fn apply(&mut self, text: &str, request: &str) -> Result<Outcome> {
        self.apply_exchanged(text, request, None)
    }

    /// [`Haproxy::apply`] of a text that was made of [`Haproxy::installed`]: `exchanged` are the backends that differ,
    /// as they were and as they are. The earlier text need not be read again to tell what changes then.
    ///
    /// # Errors
    /// As [`Haproxy::apply`].
    pub fn apply_exchanged(
        &mut self,
        text: &str,
        request: &str,
        exchanged: Option<(&str, &str)>,
    ) -> Result<Outcome> {
        let outcome = self.hand_over(text, request, exchanged);
        self.failed = !matches!(outcome, Ok(Outcome::Unchanged | Outcome::Applied { .. }));
        // Nothing is left ahead of a change that was made.
        self.take_back();
        outcome
    }

    fn hand_over(
        &mut self,
        text: &str,
        request: &str,
        exchanged: Option<(&str, &str)>,
    ) -> Result<Outcome> {
        let path = self.target();
        let before = self.file();
        let memory = self.memory.clone();
        let last_good = LazyCell::new(|| last_good(&memory, &before));
        // Taken apart only when services are or have to be held back: at 10,000 services that costs more
        // than all the rest.
        let old = LazyCell::new(|| {
            let last_good = last_good.as_deref().map(config::split_fingerprint);
            last_good.map(|(text, _)| Config::parse(text))
        });
        let new = LazyCell::new(|| Config::parse(text));
        let blocks = LazyCell::new(|| Blocks::new(&new, old.as_ref()));
        let unasked = if self.held.is_empty() {
            Set::default()
        } else {
            self.held.unasked(&new.services(), &blocks, Instant::now())
        };
        let asked = if unasked.is_empty() {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(blocks.holding_back(&unasked))
        };
        let taken = self.memory.taken();
        let wanted = Printed::new(asked);
        if self.runs(&wanted, &before, taken.as_ref()) {
            if !self.held.is_empty() {
                self.held.found(&[], &unasked, &blocks, Instant::now());
            }
            self.seen = before.found(wanted.fingerprint());
            return Ok(self.unchanged(&wanted, taken, request));
        }
        // It is written over, or another file is in its place, before somebody asks for its words.
        if self.alone != Some(false) || atomic_file::is_mount(&path) || !self.memory.has_last_good()
        {
            before.text();
        }

        let started = Instant::now();
        let mut reload = false;
        if self.runtime.is_some() {
            reload = self.go_ahead(&before, taken.as_ref(), &new) == Ahead::Reload;
        }
        let mut checked = started;
        // Put in its place by an earlier pass, which did not get further: HAProxy was down, or we were killed.
        let mut waiting = self.doubt.is_none();
        let mut installed = wanted;
        let mut accepted = true;
        if !before.is(&installed) {
            let passed = match self.check(installed, &path)? {
                Ok(passed) => {
                    if !self.held.is_empty() {
                        self.held.found(&[], &unasked, &blocks, Instant::now());
                    }
                    passed
                }
                Err(words) => {
                    // Many more checks follow, one of the new servers may be to blame, and the text will be another.
                    self.take_back();
                    reload = false;
                    match self.without_offenders(words, &path, &blocks, &unasked)? {
                        Ok(passed) => passed,
                        Err(words) => return Ok(Outcome::Refused(words)),
                    }
                }
            };
            checked = Instant::now();
            (installed, accepted) = (passed.text, passed.accepted);
            // Without the offenders it may be what HAProxy runs already.
            if self.runs(&installed, &before, taken.as_ref()) {
                return Ok(self.unchanged(&installed, taken, request));
            }
            if !before.is(&installed) {
                let inode = passed.staged.inode();
                let how = self.install(passed.staged)?;
                let ours = inode.filter(|_| how == Installed::Renamed);
                self.seen =
                    ours.and_then(|inode| Seen::installed(&path, inode, installed.fingerprint()));
                self.say_in_place(how, &path);
                waiting = false;
            }
        }
        let swapped = Instant::now();
        let fingerprint = installed.fingerprint().to_owned();
        let by_socket = match reload {
            true => None,
            false => self.by_socket(&before, taken.as_ref(), &installed),
        };
        let live = match by_socket {
            Some(loaded) => Ok((By::Socket, true, loaded)),
            // What it shows proves nothing where the runtime socket has changed its servers since it loaded that.
            None if waiting
                && taken
                    .as_ref()
                    .is_none_or(|taken| taken.is_sure() && taken.loaded != fingerprint)
                && live::shows(&self.settings, &fingerprint) =>
            {
                Ok((By::Itself, true, fingerprint.clone()))
            }
            None => match live::reload(&self.settings, &path, &fingerprint) {
                Ok(Live::Yes { by, confirmed }) => Ok((by, confirmed, fingerprint.clone())),
                Ok(Live::NotRunning(words)) => return Ok(Outcome::NotRunning(words)),
                Err(error) => Err(error),
            },
        };
        let (by, confirmed, loaded) = match live {
            Ok(live) => live,
            Err(error) => return Err(self.roll_back(&path, &before, accepted, error)),
        };
        // Against what HAProxy took last, which is the file as it was unless a pass before got stuck half way.
        let was_taken = taken
            .as_ref()
            .is_some_and(|taken| before.carries(&taken.fingerprint));
        let last = || {
            last_good
                .as_deref()
                .map(|text| config::split_fingerprint(text).0)
        };
        let words = Some(&before).filter(|before| was_taken && !before.is_known());
        // It is known to be the text that was edited, and all of the edited one is installed.
        let exchanged =
            exchanged.filter(|_| was_taken && before.is_known() && installed.config() == text);
        let changes = match words.and_then(OnDisk::config) {
            _ if exchanged.is_some() => {
                let words = changes::exchanged(exchanged.unwrap_or_default(), text);
                debug_assert_eq!(words, changes::in_words(last(), text));
                words
            }
            Some(before) => changes::in_words(Some(before), installed.config()),
            // What is known without reading it is what is remembered as the last good one.
            None => changes::in_words(last(), installed.config()),
        };
        self.is_live(by);
        let taken = Taken {
            fingerprint,
            request: self.settled(request),
            loaded,
        };
        if exchanged.is_none() {
            // Read before it is written anew.
            LazyCell::force(&last_good);
        }
        self.memory.remember(&taken, &installed.pieces());
        let how = Applied {
            check: checked - started,
            swap: swapped - checked,
            reload: swapped.elapsed(),
            confirmed,
            by,
        };
        Ok(Outcome::Applied { how, changes })
    }

    /// Whether HAProxy took exactly this last, the file says so, and nothing speaks against it.
    fn runs(&self, wanted: &Printed<'_>, before: &OnDisk, taken: Option<&Taken>) -> bool {
        self.doubt.is_none()
            && before.is(wanted)
            && taken
                .is_some_and(|taken| taken.is_sure() && taken.fingerprint == wanted.fingerprint())
    }

    fn unchanged(&mut self, wanted: &Printed<'_>, taken: Option<Taken>, request: &str) -> Outcome {
        if let Some(runtime) = &mut self.runtime
            && let Err(doubt) = runtime.readmit(&Config::parse(wanted.config()))
        {
            log::info!(
                "a server cannot be let in again by the runtime socket: {doubt}; HAProxy reloads"
            );
            self.doubt = Some(doubt);
        }
        let request = self.settled(request);
        if let Some(taken) = taken.filter(|taken| taken.request != request) {
            let text = wanted.pieces();
            self.memory.remember(&Taken { request, ..taken }, &text);
        }
        Outcome::Unchanged
    }

    /// What is remembered of a request: nothing while a part of its answer is owed.
    fn settled(&self, request: &str) -> String {
        if self.held.is_empty() {
            request.to_owned()
        } else {
            String::new()
        }
    }

    /// Checks a config that HAProxy refuses with these words without the services that make it refuse.
    /// `Err` inside is a refusal that no service is to blame for.
    fn without_offenders(
        &mut self,
        words: String,
        path: &Path,
        blocks: &Blocks<'_>,
        unasked: &Set<&str>,
    ) -> Result<std::result::Result<Passed<'static>, String>> {
        let (changed, others) = blocks.suspects();
        let left = |services: Vec<_>| -> Vec<_> {
            let services = services.into_iter();
            services.filter(|one| !unasked.contains(one)).collect()
        };
        let (changed, others) = (left(changed), left(others));
        // Line numbers are those of the text that was checked; with services held back they are others.
        let named = if unasked.is_empty() {
            blocks.named_in(&words)
        } else {
            Vec::new()
        };
        let suspects = Suspects {
            named,
            changed,
            others,
        };
        let mut good = None;
        let found = bisect::search(&suspects, &words, bisect::CHECKS_MAX, |back| {
            let back: Set<&str> = order::gathered(back.iter().chain(unasked.iter()).copied());
            let text = Printed::new(Cow::Owned(blocks.holding_back(&back)));
            match self.check(text, path)? {
                Ok(passed) => {
                    good = Some(passed);
                    Ok(None)
                }
                Err(words) => Ok::<_, Error>(Some(words)),
            }
        })?;
        let (Some(offenders), Some(passed)) = (found, good) else {
            return Ok(Err(words));
        };
        self.held.found(&offenders, unasked, blocks, Instant::now());
        Ok(Ok(passed))
    }

    /// Has a text checked; `Err` inside are HAProxy's words.
    fn check<'t>(
        &mut self,
        text: Printed<'t>,
        path: &Path,
    ) -> Result<std::result::Result<Passed<'t>, String>> {
        let mut staged = atomic_file::stage(path, &text.pieces().map(str::as_bytes))?;
        // On a disk that others write to this takes as long as a small check, and neither needs the other.
        let (at, mut synced) = (staged.path().to_owned(), Ok(()));
        let script = &self.settings.script;
        let (config, fingerprint) = (text.config(), text.fingerprint());
        let checked = script.check(&at, config, fingerprint, || synced = staged.sync())?;
        synced?;
        let accepted = match checked {
            Checked::Accepted => true,
            Checked::Refused(words) => return Ok(Err(words)),
            Checked::Unknown(words) => {
                self.say_unchecked(&words);
                false
            }
        };
        Ok(Ok(Passed {
            staged,
            text,
            accepted,
        }))
    }

    /// Takes servers that are no more out at once, and brings in new ones.
    fn go_ahead(&mut self, before: &OnDisk, taken: Option<&Taken>, new: &Config<'_>) -> Ahead {
        let (Some(runtime), Some(taken)) = (&mut self.runtime, taken) else {
            return Ahead::Open;
        };
        if !before.carries(&taken.fingerprint) {
            return Ahead::Open;
        }
        let Some(before) = before.config() else {
            return Ahead::Open;
        };
        let old = Config::parse(before);
        runtime.drain(&old, new);
        // What services are held back of, or what makes HAProxy reload anyway, is not to be had ahead of it.
        if self.failed || self.doubt.is_some() || !self.held.is_empty() || !taken.is_sure() {
            return Ahead::Open;
        }
        match runtime.add_ahead(&old, new, shown(taken)) {
            Ok(()) => Ahead::Open,
            Err(doubt) => {
                log::debug!("not by the runtime socket: {doubt}");
                Ahead::Reload
            }
        }
    }

    /// Takes out servers that were brought in ahead of a change that is not made.
    fn take_back(&mut self) {
        if let Some(runtime) = &mut self.runtime {
            runtime.take_back();
        }
    }

    /// Makes the change by the runtime socket; returns the fingerprint that HAProxy shows. `None` where
    /// only a reload is right.
    fn by_socket(
        &mut self,
        before: &OnDisk,
        taken: Option<&Taken>,
        installed: &Printed<'_>,
    ) -> Option<String> {
        if self.doubt.is_some() {
            return None;
        }
        let runtime = self.runtime.as_mut()?;
        let taken = taken.filter(|taken| before.carries(&taken.fingerprint))?;
        let (old, new) = (
            Config::parse(before.config()?),
            Config::parse(installed.config()),
        );
        match runtime.apply(&old, &new, shown(taken)) {
            Ok(loaded) => Some(loaded),
            Err(doubt) => {
                log::debug!("not by the runtime socket: {doubt}");
                None
            }
        }
    }

    fn is_live(&mut self, by: By) {
        self.doubt = None;
        if by != By::Socket
            && let Some(runtime) = &mut self.runtime
        {
            runtime.reloaded(Instant::now());
        }
    }

    /// Puts back what HAProxy ran before, and makes it live again in case HAProxy was lost on the way.
    ///
    /// Where nothing was before, a config that HAProxy's check accepted stays: HAProxy can start with it,
    /// and without any file it could not. One that nobody checked is removed.
    fn roll_back(&mut self, path: &Path, before: &OnDisk, accepted: bool, error: Error) -> Error {
        self.seen = None;
        let hint = error.hint_text().map(str::to_owned);
        let good = self
            .memory
            .last_good()
            .map(|(text, fingerprint)| (text.into_bytes(), fingerprint))
            .or_else(|| Some((before.bytes()?.to_owned(), String::new())));
        let now = match good {
            Some((good, fingerprint)) => {
                let text = String::from_utf8_lossy(&good);
                let remember = |memory: &mut Memory, loaded: &str| {
                    if let Some(taken) = memory.taken() {
                        let loaded = loaded.to_owned();
                        memory.remember(&Taken { loaded, ..taken }, &[&text]);
                    }
                };
                // Before the file looks as if nothing had happened: HAProxy may run the new one until it reloads.
                remember(&mut self.memory, "");
                let put_back = atomic_file::stage(path, &[&good])
                    .and_then(|staged| self.install(staged));
                match put_back.map(|_| live::reload(&self.settings, path, &fingerprint)) {
                    Ok(Ok(Live::Yes { by, .. })) => {
                        self.is_live(by);
                        // Whatever the runtime socket had changed before is in the file, and so loaded.
                        remember(&mut self.memory, &fingerprint);
                        "the last good config was put back and is live".to_owned()
                    }
                    Ok(Ok(Live::NotRunning(_))) => {
                        "the last good config was put back; HAProxy is not running".to_owned()
                    }
                    Ok(Err(e)) => format!(
                        "the last good config was put back, but HAProxy does not take it either: {e}"
                    ),
                    Err(e) => format!("the last good config cannot be put back: {e}"),
                }
            }
            None if accepted => {
                "there was none before, and HAProxy's check accepts it, so it stays for HAProxy to start with"
                    .to_owned()
            }
            None => match std::fs::remove_file(path) {
                Ok(()) => "there was none before and nobody could check it, so it was removed".to_owned(),
                Err(e) => format!("it cannot be removed from {}: {e}", path.display()),
            },
        };
        let error = Error::new(error.to_string(), now).kind(Kind::Failed);
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }

    fn say_unchecked(&mut self, words: &str) {
        if !std::mem::replace(&mut self.unchecked_said, true) {
            log::warn!("configs are installed unchecked: {words}");
        }
    }

    fn install(&self, staged: Staged) -> Result<Installed> {
        match self.alone {
            Some(false) => staged.install(),
            _ => staged.install_in_place(),
        }
    }

    fn say_in_place(&mut self, how: Installed, path: &Path) {
        if how == Installed::InPlace && !std::mem::replace(&mut self.in_place_said, true) {
            let folder = path.parent().unwrap_or(path);
            let why = match self.alone {
                Some(true) => {
                    "is mounted as a single file into HAProxy's container, which would not see another one in its place"
                }
                Some(false) => "is a mount of its own and cannot be replaced in one step",
                None => {
                    "may be mounted as a single file into HAProxy's container, of which Docker does not tell"
                }
            };
            log::warn!(
                "{} {why}; it is written in place, and whoever reads it meanwhile sees a part: mount its folder {} instead",
                path.display(),
                folder.display()
            );
        }
    }

    fn target(&self) -> PathBuf {
        target(&self.settings.config)
    }

    /// The config at its path without our fingerprint, if nobody has touched it since we put it there.
    pub fn installed(&self) -> Option<String> {
        let file = self.file();
        let mut text = file.is_known().then(|| file.into_text())??;
        text.truncate(config::split_fingerprint(&text).0.len());
        Some(text)
    }

    /// The config at its path, as HAProxy would read it.
    pub fn on_disk(&self) -> Option<String> {
        read_text(&self.target())
    }

    fn file(&self) -> OnDisk {
        OnDisk::open(&self.target(), self.seen)
    }
}

/// The config's own file, past symbolic links: a link is not to be replaced by a file.
fn target(config: &Path) -> PathBuf {
    std::fs::canonicalize(config).unwrap_or_else(|_| config.to_owned())
}

fn shown(taken: &Taken) -> Shown<'_> {
    Shown {
        loaded: &taken.loaded,
        current: &taken.fingerprint,
    }
}

/// Whether a text is the config of this fingerprint: it says so, and its content agrees.
fn carries(text: &str, fingerprint: &str) -> bool {
    let (config, said) = config::split_fingerprint(text);
    said == Some(fingerprint) && config::fingerprint(config) == fingerprint
}

/// See [`Haproxy::last_good`]; `file` is the one at the config's path.
fn last_good(memory: &Memory, file: &OnDisk) -> Option<String> {
    let remembered = memory.last_good().map(|(text, _)| text);
    remembered.or_else(|| {
        let text = file.text().filter(|text| is_ours(text))?;
        Some(text.to_owned())
    })
}

/// Whether a text is a config of ours, and whole.
fn is_ours(text: &str) -> bool {
    let said = config::split_fingerprint(text).1;
    said.is_some_and(|fingerprint| carries(text, fingerprint))
}

/// A text file of sane size, `None` when there is none.
fn read_text(path: &Path) -> Option<String> {
    OnDisk::open(path, None).into_text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_is_due_at_once() {
        let dir = std::env::temp_dir().join(format!("csm-doubt-{}", std::process::id()));
        let mut haproxy = Haproxy::new(Settings {
            config: dir.join("haproxy.cfg"),
            state_dir: dir.clone(),
            script: Script::new(None, Duration::from_secs(1), dir, Vec::new()),
            socket: None,
            master: None,
        });
        assert_eq!(haproxy.next_due(), None);
        haproxy.doubt = Some("a server cannot be let in again".to_owned());
        assert!(haproxy.next_due().is_some_and(|due| due <= Instant::now()));
    }
}
