//! One container of the fake daemon, and the JSON that a 20.10 daemon or Podman 4.3 says of it.
//!
//! The inspect answer is a captured one with its fields replaced, so what we do not set
//! looks as it does in life.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::{Value, json};

/// Inspect answer of a 20.10.24 daemon.
const INSPECT: &str = include_str!("../../../data/it/docker/inspect.json");

/// Docker's words for where a container is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Restarting,
    Exited,
}

/// One network of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Net {
    pub ipv4: String,
    pub ipv6: String,
}

/// A container as the fake holds it. Build one with [`Container::new`] and the `with_…` methods.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    /// `KEY=VALUE` strings as Docker keeps them.
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub networks: BTreeMap<String, Net>,
    pub network_mode: String,
    pub status: Status,
    pub health: Option<String>,
    /// Source and destination of what is mounted.
    pub mounts: Vec<(String, String)>,
    /// `80/tcp`
    pub exposed: Vec<String>,
    pub entrypoint: String,
    pub stop_signal: Option<String>,
    /// Seconds that `docker stop` waits.
    pub stop_timeout: Option<u32>,
    pub restarts: u32,
    /// Seconds of the Unix clock.
    pub created: u64,
    pub started: u64,
    /// Until then the list still shows it as running, with its address: the trap of 20.10.
    pub ghost_until: Option<Instant>,
}

impl Container {
    /// A running container on network `apps` with nothing but a name and an address.
    ///
    /// The id is made of the name, 64 hex digits, the same in every run.
    pub fn new(name: &str, ip: &str) -> Container {
        let net = Net {
            ipv4: ip.to_owned(),
            ipv6: String::new(),
        };
        Container {
            id: id_of(name),
            name: name.to_owned(),
            image: "bb:1".to_owned(),
            env: vec!["PATH=/usr/local/sbin:/usr/bin:/bin".to_owned()],
            labels: BTreeMap::new(),
            networks: BTreeMap::from([("apps".to_owned(), net)]),
            network_mode: "apps".to_owned(),
            status: Status::Running,
            health: None,
            mounts: Vec::new(),
            exposed: Vec::new(),
            entrypoint: "sleep".to_owned(),
            stop_signal: None,
            stop_timeout: None,
            restarts: 0,
            created: 1_795_000_000,
            started: 1_795_000_001,
            ghost_until: None,
        }
    }

    /// A container of a service in host mode: what most tests need.
    pub fn serving(name: &str, ip: &str, service: &str, predicate: &str) -> Container {
        Container::new(name, ip)
            .with_env("SERVICE_NAME", service)
            .with_env("PREDICATE", predicate)
    }

    pub fn with_env(mut self, key: &str, value: &str) -> Container {
        self.env.push(format!("{key}={value}"));
        self
    }

    pub fn with_label(mut self, key: &str, value: &str) -> Container {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn with_network(mut self, name: &str, ip: &str) -> Container {
        let net = Net {
            ipv4: ip.to_owned(),
            ipv6: String::new(),
        };
        self.networks.insert(name.to_owned(), net);
        self
    }

    pub fn with_mount(mut self, source: &str, destination: &str) -> Container {
        self.mounts
            .push((source.to_owned(), destination.to_owned()));
        self
    }

    pub fn with_status(mut self, status: Status) -> Container {
        self.status = status;
        self
    }

    pub fn with_health(mut self, health: &str) -> Container {
        self.health = Some(health.to_owned());
        self
    }

    pub fn with_exposed(mut self, port: &str) -> Container {
        self.exposed.push(port.to_owned());
        self
    }

    pub fn with_created(mut self, seconds: u64) -> Container {
        self.created = seconds;
        self
    }

    /// Whether Docker counts it as running: `docker ps` shows it without `-a`.
    pub fn listed(&self, podman: bool) -> bool {
        match self.status {
            Status::Running => true,
            Status::Paused | Status::Restarting => !podman,
            Status::Created | Status::Exited => false,
        }
    }

    fn has_address(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }

    fn networks_json(&self, with_address: bool, aliases: bool) -> Value {
        let all: serde_json::Map<String, Value> = self
            .networks
            .iter()
            .map(|(name, net)| {
                let (ipv4, ipv6) = if with_address {
                    (net.ipv4.as_str(), net.ipv6.as_str())
                } else {
                    ("", "")
                };
                let alias = if aliases {
                    json!([&self.id[..12]])
                } else {
                    Value::Null
                };
                let value = json!({
                    "IPAMConfig": null, "Links": null, "Aliases": alias,
                    "NetworkID": id_of(&format!("network {name}")),
                    "EndpointID": if with_address { id_of(&format!("{name} {}", self.id)) } else { String::new() },
                    "Gateway": if ipv4.is_empty() { "" } else { "172.17.0.1" },
                    "IPAddress": ipv4, "IPPrefixLen": if ipv4.is_empty() { 0 } else { 16 },
                    "IPv6Gateway": "", "GlobalIPv6Address": ipv6,
                    "GlobalIPv6PrefixLen": if ipv6.is_empty() { 0 } else { 64 },
                    "MacAddress": if with_address { "02:42:ac:11:00:06" } else { "" }, "DriverOpts": null,
                });
                (name.clone(), value)
            })
            .collect();
        Value::Object(all)
    }

    /// Its row of `/containers/json`.
    pub fn row(&self, podman: bool, now: Instant) -> Value {
        let ghost = self.ghost_until.is_some_and(|until| now < until);
        let (state, status) = match self.status {
            _ if ghost => ("running", "Up 4 seconds"),
            Status::Created => ("created", "Created"),
            Status::Running => ("running", "Up 4 seconds"),
            Status::Paused => ("paused", "Up 5 seconds (Paused)"),
            Status::Restarting => ("restarting", "Restarting (1) Less than a second ago"),
            Status::Exited => ("exited", "Exited (0) 4 seconds ago"),
        };
        let status = match &self.health {
            Some(health) if state == "running" => format!("{status} ({health})"),
            _ => status.to_owned(),
        };
        let ports: Vec<Value> = self
            .exposed
            .iter()
            .filter(|_| ghost || self.has_address())
            .filter_map(|port| {
                let (port, kind) = port.split_once('/')?;
                Some(json!({"PrivatePort": port.parse::<u16>().ok()?, "Type": kind}))
            })
            .collect();
        let mut row = json!({
            "Id": self.id, "Names": [format!("/{}", self.name)], "Image": self.image,
            "ImageID": format!("sha256:{}", id_of(&self.image)),
            "Command": format!("{} 10000", self.entrypoint), "Created": self.created, "Ports": ports,
            "Labels": self.labels, "State": state, "Status": status,
            "HostConfig": {"NetworkMode": self.network_mode},
            "NetworkSettings": {"Networks": self.networks_json(ghost || self.has_address(), false)},
            "Mounts": [],
        });
        if podman && let Some(row) = row.as_object_mut() {
            row.remove("HostConfig");
            if self.networks.is_empty() {
                row.insert("NetworkSettings".to_owned(), json!({"Networks": null}));
            }
            for key in ["Config", "NetworkingConfig", "Platform"] {
                row.insert(key.to_owned(), Value::Null);
            }
            row.insert("Name".to_owned(), json!(""));
            row.insert("AdjustCPUShares".to_owned(), json!(false));
        }
        row
    }

    /// Its answer to `/containers/ID/json`.
    pub fn inspect(&self, podman: bool) -> Value {
        let mut all: Value = serde_json::from_str(INSPECT).expect("the captured answer is JSON");
        let status = match self.status {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Restarting => "restarting",
            Status::Exited => "exited",
        };
        let running = matches!(
            self.status,
            Status::Running | Status::Paused | Status::Restarting
        );
        all["Id"] = json!(self.id);
        all["Name"] = json!(format!("/{}", self.name));
        all["Created"] = json!(rfc3339(self.created));
        all["Path"] = json!(self.entrypoint);
        all["RestartCount"] = json!(self.restarts);
        all["State"] = json!({
            "Status": status, "Running": running,
            "Paused": self.status == Status::Paused,
            "Restarting": self.status == Status::Restarting,
            "OOMKilled": false, "Dead": false,
            "Pid": if self.has_address() { 4242 } else { 0 },
            "ExitCode": 0, "Error": "",
            "StartedAt": if self.status == Status::Created { "0001-01-01T00:00:00Z".to_owned() } else { rfc3339(self.started) },
            "FinishedAt": if running { "0001-01-01T00:00:00Z".to_owned() } else { rfc3339(self.started + 1) },
        });
        match &self.health {
            Some(health) => {
                all["State"]["Health"] = json!({"Status": health, "FailingStreak": 0, "Log": []});
            }
            None if podman => {
                all["State"]["Health"] = json!({"Status": "", "FailingStreak": 0, "Log": null});
            }
            None => {}
        }
        all["HostConfig"]["NetworkMode"] = json!(self.network_mode);
        let config = &mut all["Config"];
        config["Hostname"] = json!(&self.id[..12]);
        config["Env"] = json!(self.env);
        config["Labels"] = json!(self.labels);
        config["Image"] = json!(self.image);
        config["ExposedPorts"] = if self.exposed.is_empty() {
            Value::Null
        } else {
            self.exposed
                .iter()
                .map(|port| (port.clone(), json!({})))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        if let Some(signal) = &self.stop_signal {
            config["StopSignal"] = json!(signal);
        }
        if let Some(seconds) = self.stop_timeout {
            config["StopTimeout"] = json!(seconds);
        }
        let ports: serde_json::Map<String, Value> = self
            .exposed
            .iter()
            .filter(|_| self.has_address())
            .map(|port| (port.clone(), Value::Null))
            .collect();
        all["NetworkSettings"]["Ports"] = ports.into();
        let mounts: Vec<Value> = self
            .mounts
            .iter()
            .map(|(source, destination)| {
                json!({"Type": "bind", "Source": source, "Destination": destination, "Mode": "ro", "RW": false, "Propagation": "rprivate"})
            })
            .collect();
        all["Mounts"] = mounts.into();
        all["NetworkSettings"]["Networks"] = self.networks_json(self.has_address(), true);
        all
    }
}

/// A made-up id of 64 hex digits, fixed by `text`.
pub fn id_of(text: &str) -> String {
    let digest = |salt: &str| -> String {
        crate::support::md5::md5(format!("{salt}{text}").as_bytes())
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    digest("a") + &digest("b")
}

/// Seconds of the Unix clock as Docker writes a time.
pub fn rfc3339(seconds: u64) -> String {
    let days = seconds / 86_400;
    let rest = seconds % 86_400;
    // Days to civil date, after Howard Hinnant's "chrono-compatible low-level date algorithms".
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.123456789Z",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}

#[test]
fn answers_have_the_fields_of_the_captured_ones() {
    let captured: Value =
        serde_json::from_str(include_str!("../../../data/it/docker/list.json")).expect("JSON");
    let made = Container::serving("asteroid-web", "172.17.0.6", "web", "web.example")
        .with_exposed("80/tcp")
        .row(false, Instant::now());
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|object| object.keys().cloned().collect())
            .unwrap_or_default()
    };
    assert_eq!(keys(&made), keys(&captured[0]));
    assert_eq!(
        keys(&made["NetworkSettings"]["Networks"]["apps"]),
        keys(&captured[0]["NetworkSettings"]["Networks"]["labnet"])
    );
    let podman: Value =
        serde_json::from_str(include_str!("../../../data/it/docker/podman-list.json"))
            .expect("JSON");
    let mut made = Container::new("asteroid-none", "");
    made.networks.clear();
    assert_eq!(keys(&made.row(true, Instant::now())), keys(&podman[0]));
    assert_eq!(
        made.row(true, Instant::now())["NetworkSettings"],
        podman[0]["NetworkSettings"]
    );

    let captured: Value = serde_json::from_str(INSPECT).expect("JSON");
    let made =
        Container::serving("asteroid-web", "172.17.0.6", "web", "web.example").inspect(false);
    assert_eq!(keys(&made), keys(&captured));
    assert_eq!(keys(&made["State"]), keys(&captured["State"]));
    assert_eq!(keys(&made["Config"]), keys(&captured["Config"]));
    assert_eq!(made["Config"]["Env"][1], "SERVICE_NAME=web");
    assert_eq!(
        made["NetworkSettings"]["Networks"]["apps"]["IPAddress"],
        "172.17.0.6"
    );
}

#[test]
fn times_are_written_as_docker_writes_them() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.123456789Z");
    assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00.123456789Z");
    assert_eq!(rfc3339(1_795_345_271), "2026-11-22T11:01:11.123456789Z");
}
