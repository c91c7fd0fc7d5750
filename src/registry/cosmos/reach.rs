//! Is Cosmos there? For `doctor`: a look that stores nothing, and on request one that does.
//!
//! Cosmos knows one request, a POST that stores what it is asked. A HEAD reaches the gateway in front of it and
//! no further; whatever it answers proves that name, network, proxy and TLS are right, and tells its clock.

use std::time::Duration;

use ureq::{Agent, http};

use super::{Called, Cosmos, Payload, answer, is_certificate};
use crate::error::Result;
use crate::timestamp::Timestamp;

/// What a look at Cosmos found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reached {
    /// Status of the answer. A gateway refuses HEAD, mostly by 403; that proves no more than that it is there.
    pub status: u16,
    /// Its clock, in whole seconds.
    pub clock: Option<Timestamp>,
}

impl Cosmos {
    /// Sends a HEAD, which stores nothing.
    ///
    /// # Errors
    /// When there is no answer within `limit`.
    pub fn reach(&self, limit: Duration) -> Result<Reached> {
        let (head, ()) = self.look(|agent| {
            let mut request = agent.head(&self.target);
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            let request = request.config().timeout_global(Some(limit)).build();
            let (head, _) = request.call().map_err(Called::Ureq)?.into_parts();
            Ok((head, ()))
        })?;
        let date = head.headers.get(http::header::DATE);
        Ok(Reached {
            status: head.status.as_u16(),
            clock: date
                .and_then(|date| date.to_str().ok())
                .and_then(Timestamp::parse_http_date),
        })
    }

    /// Asks for a config for no service at all, which Cosmos stores like any other question; the config's
    /// length in bytes.
    ///
    /// # Errors
    /// When there is no answer within `limit`, or it is no config.
    pub fn ask_empty(&self, table: &str, limit: Duration) -> Result<usize> {
        let payload = Payload {
            table: table.to_owned(),
            running: Vec::new(),
            candidates: Vec::new(),
        };
        // Strings and lists only: nothing that JSON could refuse.
        let body = serde_json::to_vec(&payload).unwrap_or_default();
        let (head, bytes) = self.look(|agent| {
            let mut request = agent
                .post(&self.target)
                .header("Content-Type", "application/json")
                .header("Accept", "application/json");
            for (name, value) in &self.headers {
                request = request.header(name, value);
            }
            let request = request.config().timeout_global(Some(limit)).build();
            let (head, body) = request
                .send(body.as_slice())
                .map_err(Called::Ureq)?
                .into_parts();
            let bytes = body
                .into_with_config()
                .limit(self.body_bytes_max)
                .read_to_vec()
                .map_err(Called::Ureq)?;
            Ok((head, bytes))
        })?;
        let kind = head.headers.get(http::header::CONTENT_TYPE);
        let kind = kind.map(|kind| String::from_utf8_lossy(kind.as_bytes()));
        answer::decode(head.status.as_u16(), kind.as_deref(), &bytes)
            .map(|config| config.len())
            .map_err(|fault| self.failure(Called::Fault(fault)).error)
    }

    /// One look, with each set of authorities until one is trusted.
    fn look<T>(
        &self,
        ask: impl Fn(&Agent) -> std::result::Result<(http::response::Parts, T), Called>,
    ) -> Result<(http::response::Parts, T)> {
        let mut first = None;
        for agent in &self.agents {
            match ask(agent) {
                Err(Called::Ureq(cause)) if is_certificate(&cause) => {
                    first.get_or_insert(cause);
                }
                other => return other.map_err(|called| self.failure(called).error),
            }
        }
        let cause = first.unwrap_or(ureq::Error::ConnectionFailed);
        Err(self.failure(Called::Ureq(cause)).error)
    }
}
