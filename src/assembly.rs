//! What the user asked for -> the parts that do it. Each part gets what it needs, never the whole options.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::router::Router;
use crate::address::{poller, router, weave};
use crate::cli::{OnOutage, Options, WeaveUse};
use crate::docker::{Docker, endpoint};
use crate::error::{Error, Kind, Result};
use crate::haproxy::script::Script;
use crate::haproxy::socket::SocketAddr;
use crate::haproxy::{self, Haproxy};
use crate::inventory::{Interest, Keyword};
use crate::overlay::{Asker, Overlay};
use crate::registry::Registry;
use crate::registry::cosmos::{self, Cosmos};
use crate::registry::embedded::Embedded;
use crate::registry::ladder::Ladder;
use crate::registry::store::Store;
use crate::registry::template::Base;
use crate::{lock, program, sync, transport};

/// For how long Cosmos may fail before the built-in registry takes over, with `--on-outage built-in`.
pub(crate) const COSMOS_OUTAGE: Duration = Duration::from_secs(30);
/// How long `explain` and `plan` wait for addresses of Weave's router; what it does not know then is pending.
const LOOK_ADDRESSES: Duration = Duration::from_secs(3);

/// How a command that ends by itself waits for a Cosmos that fails.
pub(crate) fn impatient() -> Patience {
    Patience {
        pause: Box::new(|time| {
            std::thread::sleep(time);
            true
        }),
        // What must end cannot wait: the tries within one question were the wait.
        take_over: Duration::ZERO,
        addresses: poller::DEADLINE,
        stopping: Box::new(|| false),
    }
}

pub(crate) fn interest(options: &Options) -> Interest {
    Interest {
        keyword: Keyword::new(&options.keyword),
        haproxy: options.haproxy_container.clone(),
    }
}

/// How long a pass waits for others.
pub(crate) struct Patience {
    /// The wait between two tries of Cosmos.
    pub(crate) pause: cosmos::Pause,
    /// For how long it may fail before the built-in registry takes over, with `--on-outage built-in`.
    pub(crate) take_over: Duration,
    /// How long a pass waits for addresses that Weave's router does not know yet.
    pub(crate) addresses: Duration,
    /// Whether somebody asked us to end.
    pub(crate) stopping: Box<dyn Fn() -> bool + Send>,
}

/// Builds what a pass joins from what the user asked for.
pub(crate) fn parts(options: &Options, mut patience: Patience) -> Result<sync::Parts> {
    let state_dir = lock::make_state_dir(&options.state_dir)?;
    let addresses = patience.addresses;
    let stopping = std::mem::replace(&mut patience.stopping, Box::new(|| false));
    let registry = registry(options, Store::new(&state_dir), patience)?;
    let parts = joined(options, state_dir.clone(), &state_dir, registry, addresses)?;
    Ok(sync::Parts { stopping, ..parts })
}

/// The same for commands that only look: nothing is made, locked or written in the state folder.
pub(crate) fn looking(options: &Options, registry: Box<dyn Registry>) -> Result<sync::Parts> {
    joined(
        options,
        options.state_dir.clone(),
        &std::env::temp_dir(),
        registry,
        LOOK_ADDRESSES,
    )
}

/// `scratch` is where output of the `weave` command goes.
pub(crate) fn joined(
    options: &Options,
    state_dir: PathBuf,
    scratch: &Path,
    registry: Box<dyn Registry>,
    addresses: Duration,
) -> Result<sync::Parts> {
    Ok(sync::Parts {
        docker: docker(options)?,
        interest: interest(options),
        network: options.network.clone(),
        host: transport::host_address(),
        overlay: overlay(options, scratch)?,
        address_patience: addresses,
        ready: options.ready,
        registry,
        table: options.cosmos_table.clone(),
        haproxy: haproxy(options, &state_dir)?,
        state_dir,
        stopping: Box::new(|| false),
    })
}

/// What we write must be none of the other files: they would be lost with the first pass.
///
/// # Errors
/// Names the two options that have one file.
pub(crate) fn apart(options: &Options) -> Result<()> {
    let mut written = vec![("--config", place(&options.config))];
    for (option, path) in [
        ("--metrics-file", &options.metrics_file),
        ("--base", &options.base),
        ("--script", &options.script),
        ("--cosmos-ca", &options.cosmos_ca),
    ] {
        let Some(path) = path else { continue };
        let here = place(path);
        if let Some((writer, _)) = written.iter().find(|(_, there)| *there == here) {
            let wrong = format!("cannot use {option} {}", path.display());
            return Err(
                Error::new(wrong, format!("it is the file of {writer}, too"))
                    .hint("cosmonaut replaces that file whole: give each one a file of its own")
                    .kind(Kind::Usage),
            );
        }
        if option == "--metrics-file" {
            written.push((option, here));
        }
    }
    Ok(())
}

/// One name for a file, whatever the way to it.
fn place(path: &Path) -> PathBuf {
    std::fs::canonicalize(path)
        .or_else(|_| std::path::absolute(path))
        .unwrap_or_else(|_| path.to_owned())
}

/// A variable of Docker's client. One that is no text is not passed over: another daemon would be taken.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

pub(crate) fn docker(options: &Options) -> Result<Docker> {
    let found = endpoint::resolve(options.docker_host.as_deref(), &variable)?;
    log::debug!("Docker is at {} ({})", found.address, found.origin);
    Ok(Docker::new(found.address, found.api_version))
}

pub(crate) fn overlay(options: &Options, state_dir: &Path) -> Result<Option<Overlay>> {
    let mode = match options.weave {
        WeaveUse::Auto => weave::Mode::Auto,
        WeaveUse::Always => weave::Mode::Always,
        WeaveUse::Never => return Ok(None),
    };
    let mut router = Router::new(router::address(&options.weave_addr, router::HTTP_PORT)?)
        .command_only(options.weave_cli);
    if let Ok(status) = std::env::var("WEAVE_STATUS_ADDR") {
        router = router.or_else(router::address(&status, router::STATUS_PORT)?);
    }
    let asker = Asker::new(router, program::find("weave"), state_dir.to_owned());
    Ok(Some(Overlay::new(mode, asker)))
}

/// The registry that the options name; `patience` is how the built-in one takes over from Cosmos.
pub(crate) fn registry(
    options: &Options,
    store: Store,
    patience: Patience,
) -> Result<Box<dyn Registry>> {
    let Some(url) = &options.cosmos_url else {
        return Ok(Box::new(built_in(options, store)?));
    };
    let cosmos = cosmos(options, url, patience.pause)?;
    Ok(Box::new(match options.on_outage {
        OnOutage::Hold => Ladder::holding(cosmos),
        OnOutage::BuiltIn => {
            Ladder::falling_back(cosmos, built_in(options, store)?, patience.take_over)
        }
    }))
}

/// Apart in the program: most do without (see `scripts/release.ld`).
#[inline(never)]
pub(crate) fn cosmos(options: &Options, url: &str, pause: cosmos::Pause) -> Result<Cosmos> {
    let settings = cosmos::Settings {
        headers: options.cosmos_headers.0.clone(),
        ca: options.cosmos_ca.clone(),
        trust: options.trust_cosmos,
        ..cosmos::Settings::new(url)
    };
    Cosmos::new(&settings, pause)
}

pub(crate) fn built_in(options: &Options, store: Store) -> Result<Embedded> {
    // Said before anything starts, and not by each pass.
    store
        .path(&options.cosmos_table)
        .map_err(|error| error.kind(Kind::Usage))?;
    let base = base(options)?;
    Ok(Embedded::new(base, Box::new(store)))
}

/// What the built-in registry's config begins with.
pub(crate) fn base(options: &Options) -> Result<Base> {
    let base = match &options.base {
        None => {
            // One that is none is told where it is to be used.
            let socket = options.haproxy_socket.as_deref().map(SocketAddr::parse);
            let path = match socket {
                Some(Ok(SocketAddr::Path(path))) => Some(path.display().to_string()),
                _ => None,
            };
            Base::built_in(path.as_deref())
        }
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Error::new(format!("cannot read the base config {}", path.display()), e)
            })?;
            Base::new(&text)
        }
    };
    base.map_err(|why| Error::new("the base config cannot be used", why))
}

pub(crate) fn haproxy(options: &Options, state_dir: &Path) -> Result<Haproxy> {
    let config = config_path(options)?;
    Ok(Haproxy::new(haproxy::Settings {
        config,
        state_dir: state_dir.to_owned(),
        script: Script::new(
            options.script.clone(),
            options.script_timeout,
            state_dir.to_owned(),
            script_environment(options, state_dir)?,
        ),
        socket: socket_address(&options.haproxy_socket, "--haproxy-socket")?,
        master: socket_address(&options.haproxy_master, "--haproxy-master")?,
    }))
}

pub(crate) fn config_path(options: &Options) -> Result<PathBuf> {
    std::path::absolute(&options.config).map_err(|e| {
        Error::new(
            format!("cannot find the folder of {}", options.config.display()),
            e,
        )
    })
}

/// What the reload script is told.
pub(crate) fn script_environment(
    options: &Options,
    state_dir: &Path,
) -> Result<Vec<(OsString, OsString)>> {
    let config = config_path(options)?;
    let text = |value: &Option<String>| OsString::from(value.clone().unwrap_or_default());
    let mut environment = vec![
        ("COSMONAUT_CONFIG".into(), config.into_os_string()),
        (
            "COSMONAUT_STATE_DIR".into(),
            state_dir.as_os_str().to_owned(),
        ),
        (
            "COSMONAUT_HAPROXY_CONTAINER".into(),
            OsString::from(&options.haproxy_container),
        ),
        (
            "COSMONAUT_HAPROXY_SOCKET".into(),
            text(&options.haproxy_socket),
        ),
        (
            "COSMONAUT_HAPROXY_MASTER".into(),
            text(&options.haproxy_master),
        ),
    ];
    // Without the flag the script finds Docker as we did: by the same variables and contexts.
    if let Some(host) = &options.docker_host {
        environment.push(("DOCKER_HOST".into(), host.into()));
    }
    Ok(environment)
}

pub(crate) fn socket_address(address: &Option<String>, option: &str) -> Result<Option<SocketAddr>> {
    let parse = |text: &String| {
        SocketAddr::parse(text)
            .map_err(|why| Error::new(format!("{option} is not usable"), why).kind(Kind::Usage))
    };
    address.as_ref().map(parse).transpose()
}
