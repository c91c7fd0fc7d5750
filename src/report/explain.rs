//! `cosmonaut explain`: for each container what became of it, the rule or variable that decided it, and
//! what HAProxy got of it. Pure: what a survey found is handed in, text or JSON comes out.
//!
//! It decides nothing: verdicts are those of `service`, by which the passes route.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::BACKEND_PREFIX;
use crate::description::{self, Said, shown};
use crate::docker::container::{Inspected, State};
use crate::error::{Error, escaped};
use crate::inventory::{Interest, Keyword};
use crate::order;
use crate::registry::{Candidate, Mode};
use crate::service::{Finding, Selection, Verdict, short};
use crate::sorted::Map;
use crate::survey::Survey;

/// The remote registry's name.
const COSMOS: &str = "cosmos";
/// Most containers outside the keyword that are named in the line that counts them.
const NAMED_MAX: usize = 8;

/// All that `explain` says.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// `--keyword`.
    pub keyword: String,
    /// built-in or cosmos.
    pub registry: String,
    /// The containers, by name.
    pub containers: Vec<Account>,
    /// The services that these came to, in the order of their rules.
    pub services: Vec<Service>,
    /// Services that are in each other's way, a sentence each.
    pub conflicts: Vec<String>,
    /// Running containers that are not monitored, by name.
    pub not_monitored: Vec<String>,
}

/// One container.
#[derive(Debug, Serialize)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// The first characters of its id.
    pub id: String,
    /// routed, pending or left out.
    pub verdict: &'static str,
    /// The rule or variable that decided it.
    pub because: String,
    /// Whether somebody must mend something.
    pub fault: bool,
    /// The service that it belongs to.
    pub service: Option<String>,
    /// What it says of itself.
    pub settings: Vec<Setting>,
    /// How HAProxy reaches it.
    pub route: Option<Route>,
    /// Settings of its own that do not count, and other remarks.
    pub notes: Vec<String>,
}

/// One setting that counts for a container.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// `SERVICE_NAME` and so on.
    pub name: &'static str,
    /// Its value.
    pub value: String,
    /// Where it comes from: a variable, a label, or what stands in when there is neither.
    pub from: String,
}

/// How HAProxy reaches a container.
#[derive(Debug, Serialize)]
pub struct Route {
    /// Its address and port.
    pub address: String,
    /// Where the address comes from.
    pub address_from: String,
    /// The backend's name in haproxy.cfg.
    pub backend: String,
    /// The server's name in haproxy.cfg.
    pub server: String,
}

/// One service as it is routed.
#[derive(Debug, Serialize)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// host or path.
    pub mode: Mode,
    /// Host names or path prefixes, joined by one blank.
    pub predicate: String,
    /// Port of every instance.
    pub port: u16,
    /// Cookie of sticky sessions.
    pub cookie: Option<String>,
    /// The backend's name in haproxy.cfg.
    pub backend: String,
    /// Names of its servers.
    pub servers: Vec<String>,
}

/// What is known besides the survey.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Which containers concern us.
    pub interest: &'a Interest,
    /// `--keyword` as given.
    pub keyword: &'a str,
    /// Whether Cosmos makes the config; it names backends otherwise.
    pub cosmos: bool,
    /// Services that HAProxy refuses, with its words, as the last `watch` said.
    pub refused: &'a Map<String, String>,
}

impl Explanation {
    /// Of every container.
    pub fn all(survey: &Survey, selection: &Selection, asked: Asked<'_>) -> Self {
        let backend = |service: &str| backend(service, asked.cosmos);
        let candidate = |name: &str| selection.services.iter().find(|s| s.service_name == name);
        let mut containers: Vec<Account> = selection
            .verdicts
            .iter()
            .map(|verdict| {
                let said = survey.settings.get(&verdict.id).map(Vec::as_slice);
                let exposed = survey.exposed.get(&verdict.id).map(Vec::as_slice);
                account(
                    verdict,
                    said.unwrap_or_default(),
                    exposed.unwrap_or_default(),
                    verdict.service.as_deref().and_then(candidate),
                    asked,
                )
            })
            .collect();
        let judged: Map<&str, ()> = order::gathered(
            selection
                .verdicts
                .iter()
                .map(|verdict| (verdict.id.as_str(), ())),
        );
        let names: Map<&str, &str> = order::gathered(
            survey
                .running
                .iter()
                .map(|row| (row.id.as_str(), row.name.as_str())),
        );
        let mut unread: Vec<&str> = Vec::new();
        for (id, why) in survey.unread.iter() {
            let name = names.get(id.as_str()).copied().unwrap_or(short(id));
            unread.push(id);
            containers.push(Account {
                name: name.to_owned(),
                id: short(id).to_owned(),
                verdict: "pending",
                because: format!("Docker does not tell of it: {why}"),
                fault: true,
                service: None,
                settings: Vec::new(),
                route: None,
                notes: Vec::new(),
            });
        }
        order::sort_by(&mut containers, |a, b| {
            (&a.name, &a.id).cmp(&(&b.name, &b.id))
        });
        let mut not_monitored: Vec<String> = survey
            .running
            .iter()
            .filter(|row| !judged.contains_key(row.id.as_str()))
            .filter(|row| !unread.contains(&row.id.as_str()))
            .map(|row| row.name.clone())
            .collect();
        order::sort(&mut not_monitored);
        Explanation {
            keyword: asked.keyword.to_owned(),
            registry: if asked.cosmos { COSMOS } else { "built-in" }.to_owned(),
            services: selection
                .services
                .iter()
                .map(|service| Service {
                    name: service.service_name.clone(),
                    mode: service.config_mode,
                    predicate: service.predicate.clone(),
                    port: service.port,
                    cookie: service.cookie.clone(),
                    backend: backend(&service.service_name),
                    servers: service.containers.iter().map(|c| c.id.clone()).collect(),
                })
                .collect(),
            containers,
            conflicts: selection
                .conflicts
                .iter()
                .map(|one| one.sentence.clone())
                .collect(),
            not_monitored,
        }
    }

    /// Of one container alone, monitored or not, running or not.
    pub fn one(found: &Inspected, all: Self, interest: &Interest) -> Self {
        let container = &found.container;
        let own = short(&container.id);
        let mut containers = all.containers;
        containers.retain(|account| account.id == own);
        if containers.is_empty() {
            containers.push(outside(found, interest));
        }
        let services: Vec<Service> = all
            .services
            .into_iter()
            .filter(|s| {
                containers
                    .iter()
                    .any(|c| c.service.as_ref() == Some(&s.name))
            })
            .collect();
        let touches = |sentence: &String| {
            services.iter().any(|service| {
                sentence
                    .split([' ', ':', ','])
                    .any(|word| word == service.name)
            })
        };
        Explanation {
            containers,
            conflicts: all.conflicts.into_iter().filter(touches).collect(),
            services,
            not_monitored: Vec::new(),
            ..all
        }
    }

    /// For people.
    pub fn in_words(&self) -> String {
        let mut text = String::new();
        for account in &self.containers {
            account.put(&mut text);
        }
        for service in self.services.iter().filter(|s| s.servers.is_empty()) {
            let answers = if self.registry == COSMOS {
                "Cosmos leaves its rules out, so another rule may take its requests; else they get 503".to_owned()
            } else {
                format!("backend {} answers 503", service.backend)
            };
            let _ = writeln!(
                text,
                "service {} has no server now: {answers}",
                service.name
            );
        }
        for conflict in &self.conflicts {
            let _ = writeln!(text, "conflict: {}", escaped(conflict.clone()));
        }
        if self.containers.is_empty() {
            let _ = writeln!(
                text,
                "no running container is monitored: {}",
                if self.keyword.is_empty() {
                    "none names a service".to_owned()
                } else {
                    format!(
                        "none has a name that holds {} (--keyword)",
                        shown(&self.keyword)
                    )
                }
            );
        }
        if !self.not_monitored.is_empty() {
            let count = self.not_monitored.len();
            let named: Vec<&str> = self
                .not_monitored
                .iter()
                .take(NAMED_MAX)
                .map(String::as_str)
                .collect();
            let more = if count > NAMED_MAX { ", ..." } else { "" };
            let _ = writeln!(
                text,
                "not monitored: {count} more running ({}{more}); `cosmonaut explain NAME` tells why",
                escaped(named.join(", "))
            );
        }
        text
    }
}

impl Account {
    fn put(&self, text: &mut String) {
        // A terminal must not obey what a container's name or variable holds, and no value may begin a line of its own.
        let (name, id) = (escaped(self.name.clone()), escaped(self.id.clone()));
        let _ = writeln!(text, "{name} ({id}): {}", self.verdict);
        let mut line = |name: &str, words: &str| {
            let words = escaped(words.to_owned());
            let _ = writeln!(text, "    {name:<13}{words}");
        };
        line("because", &self.because);
        for setting in &self.settings {
            let words = format!("{}  [{}]", setting.value, setting.from);
            line(setting.name, &words);
        }
        if let Some(route) = &self.route {
            line(
                "address",
                &format!("{}  [{}]", route.address, route.address_from),
            );
            line(
                "haproxy.cfg",
                &format!("backend {}, server {}", route.backend, route.server),
            );
        }
        for note in &self.notes {
            line("note", note);
        }
    }
}

/// The error for a name that Docker does not know, with the name that was meant.
pub fn unknown(name: &str, survey: &Survey) -> Error {
    let near = survey
        .running
        .iter()
        .map(|row| {
            let distance = description::edit_distance(name.as_bytes(), row.name.as_bytes());
            (distance, &row.name)
        })
        .filter(|(distance, _)| *distance <= 2 + name.len() / 5)
        .min();
    let error = Error::new(
        format!("cannot explain {}", shown(name)),
        "Docker has no container of that name or id",
    );
    match near {
        Some((_, meant)) => error.hint(format!("did you mean {meant}?")),
        None => error.hint("docker ps -a shows them all"),
    }
}

fn account(
    verdict: &Verdict,
    said: &[Said],
    exposed: &[u16],
    service: Option<&Candidate>,
    asked: Asked<'_>,
) -> Account {
    let mut route = None;
    let mut notes = verdict.notes.clone();
    if let Some((name, words)) = verdict
        .service
        .as_ref()
        .and_then(|service| Some((service, asked.refused.get(service)?)))
    {
        notes.push(format!(
            "HAProxy refuses what is new of service {name}, as watch last saw: {words}"
        ));
    }
    let (word, because, fault) = match &verdict.finding {
        Finding::Routed {
            server,
            ip,
            source,
            port,
        } => {
            let name = verdict.service.as_deref().unwrap_or_default();
            route = Some(Route {
                address: std::net::SocketAddr::new(*ip, *port).to_string(),
                address_from: source.to_string(),
                backend: backend(name, asked.cosmos),
                server: server.clone(),
            });
            if !exposed.is_empty() && !exposed.contains(port) {
                notes.push(format!(
                    "it exposes TCP port {}, but requests go to {port}: is PORT right?",
                    listed(exposed)
                ));
            }
            (
                "routed",
                format!("{} and it describes a service", by_name(asked.keyword)),
                false,
            )
        }
        Finding::Pending(why) => ("pending", why.clone(), false),
        Finding::LeftOut { why, fault } => ("left out", why.clone(), *fault),
    };
    Account {
        name: verdict.name.clone(),
        id: short(&verdict.id).to_owned(),
        verdict: word,
        because,
        fault,
        service: verdict.service.clone(),
        settings: settings(said, exposed, service, &verdict.finding),
        route,
        notes,
    }
}

/// A container that the passes do not look at.
fn outside(found: &Inspected, interest: &Interest) -> Account {
    let container = &found.container;
    let said = description::said(&found.env, &found.labels);
    let because = if !interest.keyword.matches(&container.name) {
        let lacks = "its name does not hold the keyword (--keyword)";
        if *container.name == interest.haproxy {
            "it is HAProxy's own container (--haproxy-container)".to_owned()
        } else {
            lacks.to_owned()
        }
    } else {
        match exists_not(&container.state) {
            Some(why) => why.to_owned(),
            None if *container.name == interest.haproxy => {
                "it is HAProxy's own container (--haproxy-container) and names no service"
                    .to_owned()
            }
            None => "the keyword is empty and it names no service".to_owned(),
        }
    };
    let mut notes = Vec::new();
    match description::read(&found.env, &found.labels) {
        description::Reading::Bad(problem) => notes.push(problem.to_string()),
        description::Reading::NoService(problem) if interest.keyword.matches(&container.name) => {
            notes.push(problem.to_string());
        }
        _ => {}
    }
    Account {
        name: container.name.to_string(),
        id: short(&container.id).to_owned(),
        verdict: "left out",
        because,
        fault: false,
        service: None,
        settings: settings(&said, &[], None, &Finding::Pending(String::new())),
        route: None,
        notes,
    }
}

fn exists_not(state: &State) -> Option<&'static str> {
    if state.dead {
        Some("it is dead")
    } else if state.running || state.paused || state.restarting {
        None
    } else {
        Some("it is not running")
    }
}

fn by_name(keyword: &str) -> String {
    if Keyword::new(keyword).is_empty() {
        "the keyword is empty".to_owned()
    } else {
        format!("its name holds {} (--keyword)", shown(keyword))
    }
}

/// What the container says, and what stands in where it says nothing.
fn settings(
    said: &[Said],
    exposed: &[u16],
    service: Option<&Candidate>,
    finding: &Finding,
) -> Vec<Setting> {
    let mut settings: Vec<Setting> = said
        .iter()
        .map(|said| {
            let kind = if said.label { "label" } else { "variable" };
            let beats = said.beats.as_ref().map_or(String::new(), |value| {
                format!(", beats the variable's {}", shown(value))
            });
            Setting {
                name: said.setting,
                value: said.value.clone(),
                from: format!("{kind} {}{beats}", said.by),
            }
        })
        .collect();
    let given = |name: &str| said.iter().any(|said| said.setting == name);
    let mut stands_in = |name, value: String, from: &str| {
        if !given(name) {
            settings.push(Setting {
                name,
                value,
                from: from.to_owned(),
            });
        }
    };
    if let Some(service) = service {
        let mode = match service.config_mode {
            Mode::Host => "host",
            Mode::Path => "path",
        };
        stands_in("CONFIG_MODE", mode.to_owned(), "default");
    }
    if let Finding::Routed { port, .. } = finding {
        let from = match exposed {
            [_] => "default: the only exposed TCP port".to_owned(),
            [] => "default: no TCP port is exposed".to_owned(),
            several => format!(
                "default: several TCP ports are exposed ({})",
                listed(several)
            ),
        };
        stands_in("PORT", port.to_string(), &from);
    }
    settings
}

fn listed(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    words.join(", ")
}

fn backend(service: &str, cosmos: bool) -> String {
    if cosmos {
        service.to_owned()
    } else {
        format!("{BACKEND_PREFIX}{service}")
    }
}
