//! What happens to containers: each verb changes the world and sends Docker's events in
//! Docker's order (measured on 20.10.24: see the captured life in tests/data/it/docker).

use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value, json};

use super::container::{Container, Net, Status, id_of};
use super::server::wants;
use super::{Emitted, FakeDocker, Push, RING_MAX, World};
use crate::support::wire;

impl FakeDocker {
    /// Puts a container there as if it had always been: no event.
    pub fn add(&self, container: Container) {
        self.shared.world().containers.push(container);
    }

    /// `docker run`: create, connect, start.
    pub fn run(&self, container: Container) {
        let mut world = self.shared.world();
        let name = container.name.clone();
        world.containers.push(Container {
            status: Status::Created,
            ..container
        });
        emit(&mut world, &name, "create", &[]);
        start(&mut world, &name);
    }

    /// `docker start`.
    pub fn start(&self, name: &str) {
        start(&mut self.shared.world(), name);
    }

    /// The main process ends by itself: die, disconnect.
    pub fn crash(&self, name: &str) {
        die(&mut self.shared.world(), name, "1");
    }

    /// `docker kill`.
    pub fn kill(&self, name: &str) {
        let mut world = self.shared.world();
        emit(&mut world, name, "kill", &[("signal", "9")]);
        die(&mut world, name, "137");
    }

    /// `docker kill -s`: the container lives on.
    pub fn signal(&self, name: &str, signal: &str) {
        emit(
            &mut self.shared.world(),
            name,
            "kill",
            &[("signal", signal)],
        );
    }

    /// `docker stop` of a container that obeys: kill 15, die, disconnect, stop.
    pub fn stop(&self, name: &str) {
        let mut world = self.shared.world();
        emit(&mut world, name, "kill", &[("signal", "15")]);
        die(&mut world, name, "0");
        emit(&mut world, name, "stop", &[]);
    }

    /// `docker restart`; the address may change, as it does in life.
    pub fn restart(&self, name: &str, new_ip: Option<&str>) {
        let mut world = self.shared.world();
        emit(&mut world, name, "kill", &[("signal", "15")]);
        die(&mut world, name, "0");
        emit(&mut world, name, "stop", &[]);
        if let (Some(ip), Some(one)) = (new_ip, find(&mut world, name))
            && let Some(net) = one.networks.values_mut().next()
        {
            net.ipv4 = ip.to_owned();
        }
        start(&mut world, name);
        emit(&mut world, name, "restart", &[]);
    }

    /// `docker rm -f` of a running container.
    pub fn remove(&self, name: &str) {
        let mut world = self.shared.world();
        emit(&mut world, name, "kill", &[("signal", "9")]);
        die(&mut world, name, "137");
        let gone = if world.manner.podman {
            "remove"
        } else {
            "destroy"
        };
        emit(&mut world, name, gone, &[]);
        world.containers.retain(|one| one.name != name);
    }

    pub fn pause(&self, name: &str) {
        let mut world = self.shared.world();
        set(&mut world, name, Status::Paused);
        emit(&mut world, name, "pause", &[]);
    }

    pub fn unpause(&self, name: &str) {
        let mut world = self.shared.world();
        set(&mut world, name, Status::Running);
        emit(&mut world, name, "unpause", &[]);
    }

    pub fn rename(&self, name: &str, new: &str) {
        let mut world = self.shared.world();
        if let Some(one) = find(&mut world, name) {
            one.name = new.to_owned();
        }
        emit(
            &mut world,
            new,
            "rename",
            &[("oldName", &format!("/{name}"))],
        );
    }

    /// A health check changes its mind.
    pub fn health(&self, name: &str, health: &str) {
        let mut world = self.shared.world();
        if let Some(one) = find(&mut world, name) {
            one.health = Some(health.to_owned());
        }
        let action = if world.manner.podman {
            "health_status".to_owned()
        } else {
            format!("health_status: {health}")
        };
        emit(&mut world, name, &action, &[]);
    }

    /// `docker network connect`.
    pub fn connect(&self, name: &str, network: &str, ip: &str) {
        let mut world = self.shared.world();
        if let Some(one) = find(&mut world, name) {
            let net = Net {
                ipv4: ip.to_owned(),
                ipv6: String::new(),
            };
            one.networks.insert(network.to_owned(), net);
        }
        emit_network(&mut world, name, network, "connect");
    }

    /// `docker network disconnect`: Docker says it twice.
    pub fn disconnect(&self, name: &str, network: &str) {
        let mut world = self.shared.world();
        emit_network(&mut world, name, network, "disconnect");
        if let Some(one) = find(&mut world, name) {
            one.networks.remove(network);
        }
        emit_network(&mut world, name, network, "disconnect");
    }

    /// Noise of a health check: three events per probe.
    pub fn probe(&self, name: &str) {
        let mut world = self.shared.world();
        for action in [
            "exec_create: test -f /ok",
            "exec_start: test -f /ok",
            "exec_die",
        ] {
            emit(&mut world, name, action, &[("execID", &id_of(action))]);
        }
    }

    /// Bytes on every open event stream as they are, chunk framing included.
    pub fn emit_bytes(&self, bytes: &[u8]) {
        let mut world = self.shared.world();
        world
            .subscribers
            .retain(|one| one.sender.send(Push::Raw(bytes.to_vec())).is_ok());
    }

    /// One line on every open event stream, whatever it says.
    pub fn emit_raw(&self, line: &str) {
        self.emit_bytes(&wire::chunk(format!("{line}\n").as_bytes(), false));
    }

    /// The line that an event of this container would be, for tests that frame it themselves.
    pub fn event_line(&self, name: &str, action: &str) -> String {
        let mut world = self.shared.world();
        let nano = FakeDocker::now_nano(&mut world);
        let podman = world.manner.podman;
        find(&mut world, name).map_or_else(String::new, |one| {
            container_line(one, action, &[], nano, podman)
        })
    }

    /// `count` events as fast as the socket takes them: renames of a container that nobody asked for.
    pub fn storm(&self, name: &str, action: &str, count: usize) {
        let mut world = self.shared.world();
        for _ in 0..count {
            emit(&mut world, name, action, &[]);
        }
    }

    /// What a daemon restart does to addresses: the running containers of one network swap theirs in a ring.
    pub fn permute_addresses(&self) {
        let mut world = self.shared.world();
        let nets: Vec<Option<Net>> = world
            .containers
            .iter()
            .map(|one| one.networks.values().next().cloned())
            .collect();
        let count = nets.len();
        for (at, one) in world.containers.iter_mut().enumerate() {
            if let (Some(net), Some(new)) =
                (one.networks.values_mut().next(), &nets[(at + 1) % count])
            {
                *net = new.clone();
            }
        }
    }
}

fn find<'a>(world: &'a mut World, name: &str) -> Option<&'a mut Container> {
    world.containers.iter_mut().find(|one| one.name == name)
}

fn set(world: &mut World, name: &str, status: Status) {
    if let Some(one) = find(world, name) {
        one.status = status;
    }
}

fn start(world: &mut World, name: &str) {
    let networks: Vec<String> =
        find(world, name).map_or_else(Vec::new, |one| one.networks.keys().cloned().collect());
    if let Some(one) = find(world, name) {
        one.started += 10;
        one.ghost_until = None;
        if one.health.is_some() {
            one.health = Some("starting".to_owned());
        }
        one.status = Status::Running;
    }
    if !world.manner.podman {
        for network in &networks {
            emit_network(world, name, network, "connect");
        }
    }
    emit(world, name, "start", &[]);
}

fn die(world: &mut World, name: &str, exit_code: &str) {
    let ghost = world.manner.ghost;
    let mut networks = Vec::new();
    if let Some(one) = find(world, name) {
        networks = one.networks.keys().cloned().collect();
        one.status = Status::Exited;
        one.ghost_until = (!ghost.is_zero()).then(|| Instant::now() + ghost);
    }
    emit(world, name, "die", &[("exitCode", exit_code)]);
    if !world.manner.podman {
        for network in &networks {
            emit_network(world, name, network, "disconnect");
        }
    }
}

/// Sends an event of a container.
fn emit(world: &mut World, name: &str, action: &str, more: &[(&str, &str)]) {
    let nano = FakeDocker::now_nano(world);
    let podman = world.manner.podman;
    let Some(one) = find(world, name) else {
        return;
    };
    let line = container_line(one, action, more, nano, podman);
    // Podman's filter knows the end of a container by another word than its event says.
    let word = if podman && action == "die" {
        "died"
    } else {
        action
    };
    send(world, "container", word, nano, line);
}

fn emit_network(world: &mut World, name: &str, network: &str, action: &str) {
    let nano = FakeDocker::now_nano(world);
    let podman = world.manner.podman;
    let Some(one) = find(world, name) else {
        return;
    };
    let line = if podman {
        let id = json!(one.id);
        format!(
            r#"{{"status":"{action}","id":{id},"from":"","Type":"network","Action":"{action}","Actor":{{"ID":{id},"Attributes":{{"containerExitCode":"0","image":"","name":"","podId":""}}}},"scope":"local","time":{},"timeNano":{nano}}}"#,
            nano / 1_000_000_000
        )
    } else {
        let actor = json!({
            "ID": id_of(&format!("network {network}")),
            "Attributes": {"container": one.id, "name": network, "type": "bridge"},
        });
        format!(
            r#"{{"Type":"network","Action":"{action}","Actor":{actor},"scope":"local","time":{},"timeNano":{nano}}}"#,
            nano / 1_000_000_000
        )
    };
    send(world, "network", action, nano, line);
}

/// One event line without its LF, keys in Docker's order.
fn container_line(
    one: &Container,
    action: &str,
    more: &[(&str, &str)],
    nano: i64,
    podman: bool,
) -> String {
    let mut attributes: Map<String, Value> = Map::new();
    attributes.insert("image".to_owned(), json!(one.image));
    attributes.insert("name".to_owned(), json!(one.name));
    if podman {
        attributes.insert("containerExitCode".to_owned(), json!("0"));
        attributes.insert("podId".to_owned(), json!(""));
    }
    for (key, value) in more {
        attributes.insert((*key).to_owned(), json!(value));
    }
    // A label of the same name wins: Docker writes the labels last. Names are safe.
    for (key, value) in &one.labels {
        if key != "name" && key != "image" {
            attributes.insert(key.clone(), json!(value));
        }
    }
    // Go's encoder writes these three so that the line may stand in HTML.
    let escaped = |value: &Value| {
        value
            .to_string()
            .replace('<', "\\u003c")
            .replace('>', "\\u003e")
            .replace('&', "\\u0026")
    };
    let (id, action, image) = (
        json!(one.id),
        escaped(&json!(action)),
        escaped(&json!(one.image)),
    );
    let health = match &one.health {
        Some(health) if podman && action.contains("health_status") => {
            format!(r#","HealthStatus":"{health}""#)
        }
        _ => String::new(),
    };
    format!(
        r#"{{"status":{action},"id":{id},"from":{image},"Type":"container","Action":{action},"Actor":{{"ID":{id},"Attributes":{}}},"scope":"local","time":{},"timeNano":{nano}{health}}}"#,
        escaped(&Value::Object(attributes)),
        nano / 1_000_000_000
    )
}

fn send(world: &mut World, kind: &str, action: &str, time_nano: i64, line: String) {
    let line: Arc<str> = (line + "\n").into();
    world.subscribers.retain(|one| {
        !wants(one.filters.as_ref(), kind, action)
            || one.sender.send(Push::Event(Arc::clone(&line))).is_ok()
    });
    if world.ring.len() == RING_MAX {
        world.ring.pop_front();
    }
    world.ring.push_back(Emitted {
        kind: kind.to_owned(),
        action: action.to_owned(),
        time_nano,
        line,
    });
}
