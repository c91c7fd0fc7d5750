//! A running container as inspect tells of it, for tests to alter.

use std::net::Ipv4Addr;

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
        id: id.into(),
        name: name.into(),
        created: at,
        state: State {
            running: true,
            paused: false,
            restarting: false,
            dead: false,
            started: at,
            health: None,
        },
        networks: Box::new([Network {
            name: "net".into(),
            ipv4: Some(Ipv4Addr::new(10, 0, 0, second)),
            ipv6: None,
        }]),
        network_mode: NetworkMode::Named("net".into()),
        exposed_tcp_ports: Vec::new().into(),
        own_hostname: None,
        domainname: "".into(),
        entrypoint: "sleep".into(),
        stop_signal: 15,
        stop_seconds: 10,
        restarts: 0,
    };
    let pair = |text: &&str| {
        let (key, value) = text.split_once('=').expect("KEY=value");
        (key.to_owned(), value.to_owned())
    };
    Inspected {
        container,
        image: "bb:1".to_owned(),
        env: env.iter().map(pair).collect(),
        labels: Vec::new(),
        mounts: Vec::new(),
    }
}
