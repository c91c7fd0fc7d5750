//! Which version of Docker's API to speak.
//!
//! Pure. We take the daemon's newest, but none past the newest that this program knows: from 1.52 on the shape moves,
//! and 1.44 is what every daemon from 25 to 29 takes. Older daemons get their own.

use std::fmt;

/// The newest version that we ask for, and the one for a daemon that does not say its own.
pub(super) const WANTED: Version = Version {
    major: 1,
    minor: 44,
};

/// A version of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u16,
    minor: u16,
}

impl Version {
    /// Reads `1.41`, also with a `v` before it.
    pub(super) fn parse(text: &str) -> Option<Version> {
        let text = text.trim();
        let (major, minor) = text.strip_prefix('v').unwrap_or(text).split_once('.')?;
        let number = |text: &str| {
            text.bytes()
                .all(|byte| byte.is_ascii_digit())
                .then(|| text.parse().ok())
                .flatten()
        };
        Some(Version {
            major: number(major)?,
            minor: number(minor)?,
        })
    }

    /// What to speak with a daemon that says this of itself in `Api-Version`.
    pub(super) fn negotiated(server: Option<&str>) -> Version {
        server
            .and_then(Version::parse)
            .map_or(WANTED, |server| server.min(WANTED))
    }

    /// The version to try after a 400 for `self`; `None` when the version was not the reason.
    ///
    /// Such an answer carries the server's newest version. Ours is too new if it is past that; if it is too
    /// old for the server, its newest is the only one that we know to be taken.
    pub(super) fn after_refusal(self, server: Option<&str>, said: &str) -> Option<Version> {
        let server = server.and_then(Version::parse)?;
        (server < self || (server != self && said.contains("too old"))).then_some(server)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
