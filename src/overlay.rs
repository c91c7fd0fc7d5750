//! Weave's side of the passes: which containers wait for an address of the router's, and who asks it.
//!
//! The waiting belongs to the main loop, the asking may take seconds and does not: `watch` lends the
//! [`Asker`] to a thread that lives for one question. `sync` asks in its own pass, until nothing waits.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::address::poller::Poller;
use crate::address::report::Answer;
use crate::address::router::{self, Router};
use crate::address::weave::{Mode, View};
use crate::error::{Error, Result};
use crate::order;
use crate::program;
use crate::sorted::Set;

/// Whoever asks the router; the `weave` command is run by it, if there is one.
#[derive(Debug)]
pub struct Asker {
    router: Router,
    command: Option<PathBuf>,
    state_dir: PathBuf,
}

/// An answer, and the asker back.
#[derive(Debug)]
pub struct Asked {
    asker: Asker,
    answer: Result<Answer>,
}

impl Asker {
    /// `command` is the path of the `weave` command, where it may be used.
    pub fn new(router: Router, command: Option<PathBuf>, state_dir: PathBuf) -> Self {
        Asker {
            router,
            command,
            state_dir,
        }
    }

    /// Asks once; takes up to the router's time limits.
    pub fn ask(mut self) -> Asked {
        let answer = self.answer();
        Asked {
            asker: self,
            answer,
        }
    }

    /// Back without an answer: it could not be asked.
    pub fn not_asked(self, error: Error) -> Asked {
        Asked {
            asker: self,
            answer: Err(error),
        }
    }

    fn answer(&mut self) -> Result<Answer> {
        let Some(path) = &self.command else {
            return self.router.ask(None);
        };
        let mut run = || {
            let mut command = Command::new(path);
            command.args(["status", "dns"]);
            let name = format!("{} status dns", path.display());
            let ended = program::run(
                command,
                &name,
                router::COMMAND_TIMEOUT,
                &self.state_dir,
                |error, _| error,
            )?;
            if ended.status.success() {
                return Ok(ended.output);
            }
            Err(Error::new(
                format!("{name} failed"),
                program::last_lines(&ended.output, 3),
            ))
        };
        self.router.ask(Some(&mut run))
    }
}

/// What is waited for, and what is known.
#[derive(Debug)]
pub struct Overlay {
    mode: Mode,
    poller: Poller,
    asker: Option<Asker>,
}

impl Overlay {
    /// Knows nothing yet.
    pub fn new(mode: Mode, asker: Asker) -> Self {
        Overlay {
            mode,
            poller: Poller::default(),
            asker: Some(asker),
        }
    }

    /// `--weave`.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What the router has said so far.
    pub fn view(&self) -> &View {
        self.poller.view()
    }

    /// Whether the router has said nothing yet, not even why it cannot be asked.
    pub fn knows_nothing(&self) -> bool {
        *self.view() == View::default()
    }

    /// Waits for the addresses of these containers (inspect's id, host name, domain name) and of no others.
    pub fn want(&mut self, wanted: &[(String, String, String)], now: Instant) {
        let ids: Set<&str> = order::gathered(wanted.iter().map(|(id, ..)| id.as_str()));
        self.poller.retain(&|id| ids.contains(id));
        for (id, hostname, domainname) in wanted {
            self.poller.want(id, hostname, domainname, now);
        }
    }

    /// A container died: its address is nobody's.
    pub fn died(&mut self, id: &str) {
        self.poller.forget(id);
    }

    /// When the router is to be asked next.
    pub fn due(&self) -> Option<Instant> {
        self.asker.as_ref().and_then(|_| self.poller.next())
    }

    /// Begins to ask; the asker must come back by [`Overlay::answered`].
    pub fn begin(&mut self, now: Instant) -> Option<Asker> {
        let asker = self.asker.take()?;
        self.poller.asked(now);
        Some(asker)
    }

    /// Takes in an answer. True if an address is another than before.
    pub fn answered(&mut self, asked: Asked) -> bool {
        self.asker = Some(asked.asker);
        router::take_in(&mut self.poller, asked.answer)
    }

    /// Asks until nothing waits any more, `limit` is over, or the router has been away for too long.
    pub fn settle(&mut self, limit: Duration) -> bool {
        let Some(asker) = &mut self.asker else {
            return false;
        };
        router::settle(&mut self.poller, limit, &mut || asker.answer())
    }

    /// Asks once more even if nobody waits: for other hosts' names and for addresses that changed.
    pub fn refresh(&mut self, now: Instant) {
        if !self.poller.is_idle() {
            self.poller.refresh(now);
        }
    }
}
