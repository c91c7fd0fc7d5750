//! One look at every container that concerns us, for the commands that only tell: `explain`, `plan`, `doctor`.
//!
//! Bounded as a whole: one container that hangs, or a daemon that is slow, costs seconds and leaves a reason
//! behind, never minutes. A pass looks in its own way, since it comes back to who was late.

use std::time::{Duration, Instant};

use crate::description::{self, Said};
use crate::docker::container::{Inspected, Row};
use crate::docker::{Answer, Docker};
use crate::error::{Error, Kind, Result};
use crate::inventory::{Inventory, LENDERS_DEEP_MAX};
use crate::sorted::Map;

/// How long late answers are waited for, all of them together; half a millisecond is usual.
const LATE_PATIENCE: Duration = Duration::from_secs(3);
/// How long each is waited for when that is used up.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

/// What a look found besides what went into the inventory.
#[derive(Debug, Default)]
pub struct Survey {
    /// Every running container.
    pub running: Vec<Row>,
    /// What the containers that were inspected say of themselves, by id.
    pub settings: Map<String, Vec<Said>>,
    /// TCP ports that the containers expose, by id.
    pub exposed: Map<String, Vec<u16>>,
    /// Containers that could not be inspected, by id, and why.
    pub unread: Map<String, String>,
}

/// Inspects what concerns us of the containers in the list `running`; the inventory knows nothing yet. Nobody is
/// asked any more when `limit` is over.
///
/// # Errors
/// When Docker goes away. A container that it does not tell of is in [`Survey::unread`].
pub fn take(
    docker: &mut Docker,
    inventory: &mut Inventory,
    running: Vec<Row>,
    limit: Duration,
) -> Result<Survey> {
    let begun = Instant::now();
    let until = begun + limit;
    let mut survey = Survey::default();
    let mut patience = LATE_PATIENCE.min(limit);
    let listed = inventory.listed(running.clone(), begun, true);
    let mut wanted: Vec<String> = listed.into_iter().map(|(id, _)| id).collect();
    for _ in 0..=LENDERS_DEEP_MAX {
        for id in std::mem::take(&mut wanted) {
            match ask(docker, &id, &mut patience, until) {
                Ok(found) => {
                    survey.read(&id, found.as_deref());
                    inventory.inspected(&id, found.map(|found| *found), None);
                }
                Err(error) if error.is(Kind::Unreachable) => return Err(error),
                Err(error) => {
                    inventory.inspect_failed(&id, begun);
                    survey.unread.insert(id, error.cause().to_owned());
                }
            }
        }
        wanted = inventory.lenders_wanted();
    }
    if let Some(name) = inventory.haproxy_wanted().map(str::to_owned)
        && let Ok(found) = ask(docker, &name, &mut patience, until)
    {
        inventory.inspected(&name, found.map(|found| *found), None);
    }
    survey.running = running;
    Ok(survey)
}

impl Survey {
    fn read(&mut self, id: &str, found: Option<&Inspected>) {
        if let Some(found) = found {
            let said = description::said(&found.env, &found.labels);
            self.settings.insert(id.to_owned(), said);
            let exposed = found.container.exposed_tcp_ports.to_vec();
            self.exposed.insert(id.to_owned(), exposed);
        }
    }
}

/// One inspect; `patience` is what is left of it for all.
fn ask(
    docker: &mut Docker,
    id: &str,
    patience: &mut Duration,
    until: Instant,
) -> Result<Option<Box<Inspected>>> {
    let asked = Instant::now();
    let failed = |cause: &str| Error::new(format!("cannot inspect container {id}"), cause);
    if asked >= until {
        return Err(failed(
            "it was not asked for, since the daemon took too long for others",
        ));
    }
    let own = (*patience).max(LEAST_PATIENCE);
    match docker.container_soon(id, own)? {
        Answer::Found(found) => Ok(Some(found)),
        Answer::Gone => Ok(None),
        Answer::Late => {
            *patience = patience.saturating_sub(asked.elapsed());
            Err(failed("its inspect was not answered in time"))
        }
    }
}
