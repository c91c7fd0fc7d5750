//! A running container as inspect tells of it, for tests to alter.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::container::{Container, Inspected, Network, NetworkMode, State};
use crate::timestamp::Timestamp;

/// A running container of this id and name, made and started at `second`, at 10.0.0.`second` on the
/// network `net`, with these variables (`KEY=value`).
pub(crate) fn inspected(id: &str, name: &str, second: u8, env: &[&str]) -> Inspected {
    let at = Timestamp {
        seconds: i64::from(second),
        nanos: 0,
    };
    let container = Container {
        id: id.to_owned(),
        name: name.to_owned(),
        created: at,
        state: State {
            running: true,
            paused: false,
            restarting: false,
            dead: false,
            started: at,
            health: None,
        },
        networks: vec![Network {
            name: "net".to_owned(),
            ipv4: Some(Ipv4Addr::new(10, 0, 0, second)),
            ipv6: None,
            id: "n".to_owned(),
        }],
        network_mode: NetworkMode::Named("net".to_owned()),
        exposed_tcp_ports: Vec::new(),
        hostname: id.to_owned(),
        domainname: String::new(),
        entrypoint: "sleep".to_owned(),
        image: "bb:1".to_owned(),
        stop_signal: 15,
        stop_timeout: Duration::from_secs(10),
        restarts: 0,
    };
    let pair = |text: &&str| {
        let (key, value) = text.split_once('=').expect("KEY=value");
        (key.to_owned(), value.to_owned())
    };
    Inspected {
        container,
        env: env.iter().map(pair).collect(),
        labels: Vec::new(),
        mounts: Vec::new(),
    }
}
