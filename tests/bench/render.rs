//! The built-in registry's rendering, called directly: no daemon, no files.

use cosmonaut::registry::embedded::{self, State};
use cosmonaut::registry::template::{self, Base};
use cosmonaut::registry::{Candidate, Instance, Mode, Payload, Running};

use crate::floor::timed;
use crate::table::{Row, Unit};

/// Services of the row with the budget, and of the one that it is compared with.
const SERVICES: (usize, usize) = (10_000, 1_000);

/// What a registry is asked by a host with that many services of one container each.
pub fn payload(services: usize) -> Payload {
    let mut payload = Payload {
        table: "bench".to_owned(),
        ..Payload::default()
    };
    for n in 0..services {
        let (name, id) = (format!("s{n:05}"), format!("{n:012x}"));
        let ip = format!("10.{}.{}.{}", n / 62_500 + 1, n / 250 % 250, n % 250 + 2);
        payload.running.push(Running {
            service_name: name.clone(),
            id: id.clone(),
            ip: ip.clone(),
        });
        payload.candidates.push(Candidate {
            predicate: format!("{name}.example.com"),
            service_name: name,
            port: 8080,
            config_mode: Mode::Host,
            cookie: None,
            containers: vec![Instance { id, ip }],
        });
    }
    payload
}

/// A payload and an empty state into the text of haproxy.cfg; its length.
pub fn render(base: &Base, payload: &Payload) -> usize {
    let nothing = State::default();
    let merged = embedded::merge(&nothing, payload);
    template::render(base, &merged.services).text.len()
}

pub fn rows(runs: usize) -> Vec<Row> {
    let base = Base::built_in(None).expect("the built-in base is good");
    let time = |services: usize| {
        let payload = payload(services);
        // As long as a config of that many services at least, so that nothing was left out.
        timed(runs, || {
            assert!(
                render(&base, &payload) > services * 150,
                "services are left out"
            )
        })
    };
    let (many, few) = (time(SERVICES.0), time(SERVICES.1));
    let linear = crate::table::median(&few) * (SERVICES.0 / SERVICES.1) as f64;
    vec![
        // The floor is ten times a thousand services: it must be linear.
        Row::new(
            "render",
            "built-in registry, 10,000 services: render",
            Unit::Ms,
            many,
        )
        .floor(linear, 2.0)
        .budget(50.0),
    ]
}
