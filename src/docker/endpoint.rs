//! Where the daemon is: `-H`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, or the usual socket.
//!
//! Reads the docker CLI's configuration files and nothing else; the environment is handed in. Connects to nothing.
//! Rules: docker/cli, `cli/command/cli.go`, `cli/context/store` and `opts/hosts.go`. We differ where docker is
//! lax: TLS is always verified unless a context says otherwise, and a bare path is refused.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::version::Version;
use crate::error::{Error, Kind, Result};
use crate::json;
use crate::transport::{Address, Tls};

/// The usual socket of a Docker daemon.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's port without TLS.
const PLAIN_PORT: u16 = 2375;
/// Docker's port with TLS.
const TLS_PORT: u16 = 2376;
/// Port of Weave's proxy, where it does not listen on a socket.
const WEAVE_PROXY_PORT: &str = ":12375";
/// Longest configuration file; `config.json` holds credentials too and can grow.
const CONFIG_BYTES_MAX: u64 = 4 << 20;
/// The name of the context that is stored nowhere: the environment and the usual socket.
const NO_CONTEXT: &str = "default";

/// The environment, by name.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Where the daemon is, and who said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Where to connect.
    pub address: Address,
    /// What decided: `-H`, `DOCKER_HOST`, `ORIG_DOCKER_HOST`, `context NAME` or `default`.
    pub origin: String,
    /// `DOCKER_API_VERSION`, as in `1.41`; nothing is to be negotiated then.
    pub api_version: Option<String>,
}

/// Finds the daemon in the docker CLI's order; `flag` is the value of `-H`. Empty values count as absent.
///
/// # Errors
/// When an address is none or its scheme is not spoken, a context does not exist, a TLS file is missing, or
/// `DOCKER_API_VERSION` is no version. A daemon that is not there is no error here.
pub fn resolve(flag: Option<&str>, env: Env) -> Result<Resolved> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty());
    let api_version = match set("DOCKER_API_VERSION") {
        None => None,
        Some(text) => match Version::parse(&text) {
            Some(version) => Some(version.to_string()),
            None => {
                return Err(Error::new(
                    format!("cannot use DOCKER_API_VERSION={text}"),
                    "no version",
                )
                .hint("it looks like 1.41; unset it to have the version negotiated")
                .kind(Kind::Usage));
            }
        },
    };
    let (address, origin) = locate(flag, &set)?;
    Ok(Resolved {
        address,
        origin,
        api_version,
    })
}

fn locate(flag: Option<&str>, set: Env) -> Result<(Address, String)> {
    // Weave's proxy passes on what we ask, but it ends with the router and its upgrades; the daemon does not.
    let direct = set("DOCKER_HOST")
        .filter(|host| is_weave_proxy(host))
        .and_then(|_| set("ORIG_DOCKER_HOST"));
    for (origin, host) in [
        (
            "-H",
            flag.map(str::to_owned).filter(|host| !host.is_empty()),
        ),
        ("ORIG_DOCKER_HOST", direct),
        ("DOCKER_HOST", set("DOCKER_HOST")),
    ] {
        if let Some(host) = host {
            let tls = environment_tls(set);
            let address = parse(&host, tls.is_some()).map_err(|wrong| wrong.of(origin, &host))?;
            return Ok((with_tls(address, tls)?, origin.to_owned()));
        }
    }
    let folder = config_folder(set);
    let chosen = match set("DOCKER_CONTEXT") {
        Some(name) => Some((name, "DOCKER_CONTEXT".to_owned())),
        None => match &folder {
            Some(folder) => current_context(folder)?,
            None => None,
        },
    };
    match chosen {
        Some((name, origin)) if name != NO_CONTEXT => {
            let address = context(&name, &origin, folder.as_deref())?;
            Ok((address, format!("context {name}")))
        }
        _ => Ok((Address::Unix(DEFAULT_SOCKET.into()), "default".to_owned())),
    }
}

/// Whether this is where Weave's proxy listens; `weave env` names it and keeps the daemon's own address in
/// `ORIG_DOCKER_HOST`.
fn is_weave_proxy(host: &str) -> bool {
    host.ends_with("/weave/weave.sock") || host.ends_with(WEAVE_PROXY_PORT)
}

/// Why a text is no address of a daemon: the reason, and what would be right.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    cause: String,
    hint: String,
}

impl Wrong {
    fn new(cause: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong {
            cause: cause.into(),
            hint: hint.into(),
        }
    }

    /// As an error about the setting that held it. A password in it is not repeated.
    fn of(self, origin: &str, host: &str) -> Error {
        let (scheme, rest) = match host.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), host),
        };
        let shown = match rest.rsplit_once('@') {
            Some((user, place)) if user.contains(':') => {
                let name = user.split(':').next().unwrap_or_default();
                format!("{scheme}{name}:…@{place}")
            }
            _ => host.to_owned(),
        };
        Error::new(format!("cannot use {origin} {shown}"), self.cause)
            .hint(self.hint)
            .kind(Kind::Usage)
    }
}

/// Reads an address as docker's `-H` takes it; TLS is added by the caller, here it only decides the port.
fn parse(text: &str, secure: bool) -> std::result::Result<Address, Wrong> {
    let text = text.trim();
    if text.contains(char::is_control) {
        return Err(Wrong::new(
            "it holds a control character",
            "an address has none; unix:///var/run/docker.sock and tcp://HOST:PORT are two"
                .to_owned(),
        ));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        if text.starts_with('/') || text.starts_with('.') || text.ends_with(".sock") {
            return Err(Wrong::new(
                "a path is no address",
                format!("a Unix socket is written unix://{text}"),
            ));
        }
        return tcp(text, secure);
    };
    match scheme {
        "unix" if rest.is_empty() => Ok(Address::Unix(DEFAULT_SOCKET.into())),
        "unix" if rest.starts_with('/') => Ok(Address::Unix(rest.into())),
        "unix" => Err(Wrong::new(
            "the path of a Unix socket must be absolute",
            format!("unix:///{rest} has three slashes"),
        )),
        "tcp" => tcp(rest, secure),
        "ssh" => ssh(rest),
        "http" | "https" => Err(Wrong::new(
            format!("{scheme}:// is not how Docker's address is written"),
            // What stands before an `@` may be a password, and tcp:// takes no user.
            format!(
                "write tcp://{}, with DOCKER_TLS_VERIFY=1 and DOCKER_CERT_PATH for TLS",
                rest.rsplit('@').next().unwrap_or_default()
            ),
        )),
        _ => Err(Wrong::new(
            format!("{scheme}:// is not spoken"),
            "unix:///path, tcp://host:port and ssh://user@host are",
        )),
    }
}

fn tcp(rest: &str, secure: bool) -> std::result::Result<Address, Wrong> {
    let example = "write tcp://host:port, an IPv6 address in brackets";
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if rest.contains('/') {
        return Err(Wrong::new("a tcp:// address has no path", example));
    }
    if rest.contains('@') {
        return Err(Wrong::new("a tcp:// address has no user", example));
    }
    let (host, port) = host_and_port(rest).map_err(|cause| Wrong::new(cause, example))?;
    Ok(Address::Tcp {
        // As docker has it: a port alone is one of this machine.
        host: if host.is_empty() { "localhost" } else { host }.to_owned(),
        port: port.unwrap_or(if secure { TLS_PORT } else { PLAIN_PORT }),
        tls: None,
    })
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address; the host loses its brackets.
fn host_and_port(text: &str) -> std::result::Result<(&str, Option<u16>), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or("a bracket is not closed")?;
            let address = host.split('%').next().unwrap_or_default();
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err("there is no IPv6 address in the brackets".to_owned());
            }
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(format!("{after} is no port")),
            }
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                if text.parse::<std::net::Ipv6Addr>().is_err() {
                    return Err("too many colons".to_owned());
                }
                (text, None)
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host
        .chars()
        .any(|c| c.is_whitespace() || c.is_control() || "?#\\".contains(c))
    {
        return Err(format!("{host} is no host name"));
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => match port.parse() {
            Ok(0) | Err(_) => return Err(format!("{port} is no port")),
            Ok(number) => Some(number),
        },
    };
    if host.is_empty() && port.is_none() {
        return Err("there is no host in it".to_owned());
    }
    Ok((host, port))
}

fn ssh(rest: &str) -> std::result::Result<Address, Wrong> {
    let example = "write ssh://user@host or ssh://user@host:port";
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    if user.is_some_and(|user| user.contains(':')) {
        return Err(Wrong::new(
            "an ssh:// address takes no password",
            "use a key, with ssh-agent or in ~/.ssh/config",
        ));
    }
    if user.is_some_and(str::is_empty) {
        return Err(Wrong::new("there is no user before the @", example));
    }
    let (host, port) = host_and_port(place).map_err(|cause| Wrong::new(cause, example))?;
    if host.is_empty() || host.starts_with('-') {
        return Err(Wrong::new(format!("{host} is no host name"), example));
    }
    // The path ends up in a command line that a shell on the other side reads.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@:".contains(c);
    if !path.chars().all(plain) {
        return Err(Wrong::new(
            "the socket's path has characters that a shell could take for its own",
            "letters, digits and / . _ - + @ : are taken",
        ));
    }
    Ok(Address::Ssh {
        user: user.map(str::to_owned),
        host: host.to_owned(),
        port,
        socket: Some(path)
            .filter(|path| !matches!(*path, "" | "/"))
            .map(str::to_owned),
    })
}

/// The folder with the certificates if the environment asks for TLS.
///
/// Either variable does. docker itself speaks plain HTTP when only `DOCKER_CERT_PATH` is set, and its library
/// speaks TLS without verifying: the safe reading is neither.
fn environment_tls(set: Env) -> Option<PathBuf> {
    match (set("DOCKER_CERT_PATH"), set("DOCKER_TLS_VERIFY")) {
        (Some(folder), _) => Some(folder.into()),
        (None, Some(_)) => Some(config_folder(set).unwrap_or_default()),
        (None, None) => None,
    }
}

/// Adds TLS to a TCP address; other addresses need none.
fn with_tls(address: Address, folder: Option<PathBuf>) -> Result<Address> {
    match (address, folder) {
        (Address::Tcp { host, port, .. }, Some(folder)) => {
            let ca = folder.join("ca.pem");
            if !ca.exists() {
                return Err(missing(&ca));
            }
            Ok(Address::Tcp {
                host,
                port,
                tls: Some(Tls {
                    ca: Some(ca),
                    identity: identity(&folder)?,
                    verify: true,
                }),
            })
        }
        (address, _) => Ok(address),
    }
}

/// Our certificate and key in a folder; both or neither, since a daemon need not ask for them.
fn identity(folder: &Path) -> Result<Option<(PathBuf, PathBuf)>> {
    let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    match (certificate.exists(), key.exists()) {
        (true, true) => Ok(Some((certificate, key))),
        (false, false) => Ok(None),
        (true, false) => Err(missing(&key)),
        (false, true) => Err(missing(&certificate)),
    }
}

fn missing(path: &Path) -> Error {
    Error::new(
        format!("cannot use TLS to Docker: {}", path.display()),
        "no such file",
    )
    .hint("DOCKER_CERT_PATH names the folder that holds ca.pem, cert.pem and key.pem, readable by this user")
}

/// The docker CLI's folder: `DOCKER_CONFIG`, else `.docker` at home; `None` without a home.
fn config_folder(set: Env) -> Option<PathBuf> {
    set("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".docker")))
}

/// `config.json`, of which only the current context matters.
#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: Option<String>,
}

/// The context that `docker context use` left, with the file that says so.
fn current_context(folder: &Path) -> Result<Option<(String, String)>> {
    let path = folder.join("config.json");
    let tried = || format!("cannot read {}", path.display());
    let Some(json) = read(&path)? else {
        return Ok(None);
    };
    let config: ConfigFile = json::read(&json).map_err(|error| {
        Error::new(tried(), error)
            .hint("it names docker's current context; mend it, or set DOCKER_HOST")
    })?;
    Ok(config
        .current_context
        .filter(|name| !name.is_empty())
        .map(|name| (name, path.display().to_string())))
}

/// A context's `meta.json`.
#[derive(Deserialize)]
struct Meta {
    #[serde(rename = "Name", default)]
    name: String,
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Deserialize, Default)]
struct Endpoints {
    #[serde(default)]
    docker: Option<DockerEndpoint>,
}

#[derive(Deserialize)]
struct DockerEndpoint {
    #[serde(rename = "Host", default)]
    host: String,
    #[serde(rename = "SkipTLSVerify", default)]
    skip_tls_verify: bool,
}

/// The address of a stored context. Its folder's name is a hash of its own, so all of them are looked through.
fn context(name: &str, origin: &str, folder: Option<&Path>) -> Result<Address> {
    let tried = || format!("cannot use the Docker context {name}");
    let from = || {
        format!(
            "{origin} names it; `docker context ls` shows those of this user, DOCKER_HOST goes before it"
        )
    };
    let Some(folder) = folder else {
        return Err(
            Error::new(tried(), "neither DOCKER_CONFIG nor HOME says where it is").hint(from()),
        );
    };
    let stored = folder.join("contexts/meta");
    let entries = match std::fs::read_dir(&stored) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(
                Error::new(tried(), format!("there is none in {}", stored.display())).hint(from()),
            );
        }
        Err(error) => return Err(unreadable(&stored, &error)),
    };
    for entry in entries {
        let entry = entry.map_err(|error| unreadable(&stored, &error))?;
        // Another context that cannot be read is not ours to complain about.
        let Ok(Some(json)) = read(&entry.path().join("meta.json")) else {
            continue;
        };
        let Ok(meta) = json::read::<Meta>(&json) else {
            continue;
        };
        if meta.name != name {
            continue;
        }
        let Some(endpoint) = meta.endpoints.docker else {
            return Err(Error::new(tried(), "it has no docker endpoint").hint(from()));
        };
        let certificates = folder
            .join("contexts/tls")
            .join(entry.file_name())
            .join("docker");
        return context_address(&format!("context {name}"), &endpoint, &certificates);
    }
    Err(Error::new(
        tried(),
        format!("there is none of that name in {}", stored.display()),
    )
    .hint(from()))
}

fn context_address(
    origin: &str,
    endpoint: &DockerEndpoint,
    certificates: &Path,
) -> Result<Address> {
    let identity = identity(certificates)?;
    let ca = Some(certificates.join("ca.pem")).filter(|ca| ca.exists());
    let secure = identity.is_some() || ca.is_some() || endpoint.skip_tls_verify;
    if endpoint.host.is_empty() {
        return Ok(Address::Unix(DEFAULT_SOCKET.into()));
    }
    let address =
        parse(&endpoint.host, secure).map_err(|wrong| wrong.of(origin, &endpoint.host))?;
    Ok(match address {
        Address::Tcp { host, port, .. } if secure => Address::Tcp {
            host,
            port,
            tls: Some(Tls {
                ca,
                identity,
                verify: !endpoint.skip_tls_verify,
            }),
        },
        other => other,
    })
}

/// A file's bytes; `None` when there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    match std::fs::File::open(path)
        .and_then(|file| file.take(CONFIG_BYTES_MAX).read_to_end(&mut bytes))
    {
        Ok(_) => Ok(Some(bytes)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Failed,
    };
    Error::new(format!("cannot read {}", path.display()), error)
        .kind(kind)
        .hint("docker's configuration is looked at since neither -H nor DOCKER_HOST is set")
}

/// Sockets of daemons that are there, for an error about one that is not: the usual one, rootless Docker, Podman.
pub fn other_sockets(env: Env) -> Vec<PathBuf> {
    let runtime = env("XDG_RUNTIME_DIR")
        .filter(|folder| !folder.is_empty())
        .map_or_else(
            || PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw())),
            PathBuf::from,
        );
    [
        PathBuf::from(DEFAULT_SOCKET),
        runtime.join("docker.sock"),
        PathBuf::from("/run/podman/podman.sock"),
        runtime.join("podman/podman.sock"),
    ]
    .into_iter()
    .filter(|path| path.exists())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address as text, with `+tls` where there is TLS, `+unverified` where it is not verified.
    fn shown(address: &Address) -> String {
        match address {
            Address::Tcp { tls: Some(tls), .. } if tls.verify => format!("{address} +tls"),
            Address::Tcp { tls: Some(_), .. } => format!("{address} +tls +unverified"),
            _ => address.to_string(),
        }
    }

    #[test]
    fn addresses_are_read_as_docker_writes_them() {
        for (text, secure, expected) in [
            ("unix://", false, "unix:///var/run/docker.sock"),
            (
                "unix:///run/user/1000/docker.sock",
                false,
                "unix:///run/user/1000/docker.sock",
            ),
            ("tcp://10.0.0.5:2375", false, "tcp://10.0.0.5:2375"),
            ("tcp://host", false, "tcp://host:2375"),
            ("tcp://host", true, "tcp://host:2376"),
            ("tcp://host:", true, "tcp://host:2376"),
            ("tcp://host:1234/", true, "tcp://host:1234"),
            ("1.2.3.4:2376", false, "tcp://1.2.3.4:2376"),
            ("host", false, "tcp://host:2375"),
            (":2375", false, "tcp://localhost:2375"),
            ("tcp://:4243", false, "tcp://localhost:4243"),
            ("tcp://[::1]:2375", false, "tcp://[::1]:2375"),
            ("tcp://[fe80::1%eth0]", false, "tcp://[fe80::1%eth0]:2375"),
            ("tcp://::1", false, "tcp://[::1]:2375"),
            (" tcp://host:1 ", false, "tcp://host:1"),
            ("ssh://host", false, "ssh://host"),
            (
                "ssh://me@example.com:2222",
                false,
                "ssh://me@example.com:2222",
            ),
            (
                "ssh://u@h/run/user/1000/docker.sock",
                false,
                "ssh://u@h/run/user/1000/docker.sock",
            ),
            ("ssh://u@[::1]:22/", false, "ssh://u@[::1]:22"),
            (
                "ssh://-oProxyCommand=x@h",
                false,
                "ssh://-oProxyCommand=x@h",
            ),
        ] {
            let parsed = parse(text, secure).map(|address| address.to_string());
            assert_eq!(parsed.as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_right_spelling() {
        for (text, cause, hint) in [
            (
                "/var/run/docker.sock",
                "a path",
                "unix:///var/run/docker.sock",
            ),
            ("./docker.sock", "a path", "unix://"),
            ("docker.sock", "a path", "unix://"),
            (
                "unix://run/docker.sock",
                "absolute",
                "unix:///run/docker.sock",
            ),
            ("https://host:2376", "https://", "tcp://host:2376"),
            ("http://host", "http://", "tcp://host"),
            ("npipe:////./pipe/docker_engine", "npipe://", "unix:///"),
            ("fd://", "fd://", "unix:///"),
            ("tcp://", "no host", "tcp://host:port"),
            ("", "no host", "tcp://host:port"),
            ("tcp://host:0", "0 is no port", "tcp://"),
            ("tcp://host:65536", "65536 is no port", "tcp://"),
            ("tcp://host:x", "x is no port", "tcp://"),
            ("tcp://a:b:1", "colons", "brackets"),
            ("tcp://[::1", "bracket", "brackets"),
            ("tcp://[[]", "no IPv6 address", "brackets"),
            ("tcp://[host]:1", "no IPv6 address", "brackets"),
            ("tcp://[::1]x", "x is no port", "brackets"),
            ("tcp://host/path", "no path", "tcp://host:port"),
            ("tcp://u@host", "no user", "tcp://host:port"),
            ("tcp://a b", "no host name", "tcp://host:port"),
            ("ssh://", "no host", "ssh://user@host"),
            ("ssh://u:secret@h", "no password", "key"),
            ("ssh://@h", "no user", "ssh://user@host"),
            ("ssh://u@-oProxyCommand=x", "no host name", "ssh://"),
            ("ssh://u@h/run/$(x)", "shell", "letters"),
            ("ssh://u@h/run/a;b", "shell", "letters"),
        ] {
            let wrong = parse(text, false).expect_err(text);
            assert!(wrong.cause.contains(cause), "{text}: {}", wrong.cause);
            assert!(wrong.hint.contains(hint), "{text}: {}", wrong.hint);
        }
        for text in [
            "ssh://u:secret@h",
            "tcp://u:secret@h",
            "https://u:secret@h:2376",
            "u:secret@h:2375",
        ] {
            let error = resolve(Some(text), &|_| None).expect_err("a password");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    /// A folder of docker's configuration, with certificates where asked for.
    fn config() -> String {
        format!("{}/tests/data/docker/contexts", env!("CARGO_MANIFEST_DIR"))
    }

    fn certs() -> String {
        format!("{}/tests/data/tls", env!("CARGO_MANIFEST_DIR"))
    }

    fn check(
        flag: Option<&str>,
        env: &[(&str, &str)],
        expected: std::result::Result<(&str, &str), &str>,
    ) {
        let lookup = |name: &str| {
            env.iter()
                .find(|(known, _)| *known == name)
                .map(|(_, value)| (*value).to_owned())
        };
        match (resolve(flag, &lookup), expected) {
            (Ok(found), Ok((address, origin))) => {
                assert_eq!(
                    (shown(&found.address).as_str(), found.origin.as_str()),
                    (address, origin),
                    "{flag:?} {env:?}"
                );
            }
            (Err(error), Err(part)) => {
                let text = format!("{error} | {}", error.hint_text().unwrap_or_default());
                assert!(text.contains(part), "{flag:?} {env:?}: {text}");
            }
            (found, _) => panic!("{flag:?} {env:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn the_daemon_is_found_in_dockers_order() {
        let (config, certs) = (config(), certs());
        let (config, certs) = (("DOCKER_CONFIG", config.as_str()), certs.as_str());
        let usual = Ok(("unix:///var/run/docker.sock", "default"));
        check(None, &[], usual);
        check(None, &[("HOME", "/nonexistent")], usual);
        check(
            Some(""),
            &[("DOCKER_HOST", ""), ("DOCKER_CONTEXT", "")],
            usual,
        );
        check(
            None,
            &[config],
            Ok(("unix:///srv/docker-lab/d.sock", "context lab-unix")),
        );
        check(None, &[config, ("DOCKER_CONTEXT", "default")], usual);
        check(
            None,
            &[config, ("DOCKER_CONTEXT", "lab-ssh")],
            Ok(("ssh://me@example.com:2222", "context lab-ssh")),
        );
        check(
            None,
            &[config, ("DOCKER_CONTEXT", "lab-skip")],
            Ok(("tcp://127.0.0.1:2376 +tls +unverified", "context lab-skip")),
        );
        check(
            None,
            &[config, ("DOCKER_CONTEXT", "lab-tls")],
            Ok(("tcp://127.0.0.1:2376 +tls", "context lab-tls")),
        );
        check(
            None,
            &[
                config,
                ("DOCKER_HOST", "tcp://a"),
                ("DOCKER_CONTEXT", "lab-ssh"),
            ],
            Ok(("tcp://a:2375", "DOCKER_HOST")),
        );
        check(
            Some("unix:///x"),
            &[config, ("DOCKER_HOST", "tcp://a")],
            Ok(("unix:///x", "-H")),
        );
        let weave = "unix:///var/run/weave/weave.sock";
        let orig = ("ORIG_DOCKER_HOST", "tcp://b");
        for (host, orig, expected) in [
            (weave, orig, ("tcp://b:2375", "ORIG_DOCKER_HOST")),
            ("tcp://a:12375", orig, ("tcp://b:2375", "ORIG_DOCKER_HOST")),
            // It lets through what we ask, so it does where nothing else is known.
            (weave, ("ORIG_DOCKER_HOST", ""), (weave, "DOCKER_HOST")),
            ("tcp://a", orig, ("tcp://a:2375", "DOCKER_HOST")),
        ] {
            check(None, &[("DOCKER_HOST", host), orig], Ok(expected));
        }
        check(
            None,
            &[config, ("DOCKER_CONTEXT", "gone")],
            Err("none of that name"),
        );
        check(
            None,
            &[("DOCKER_CONFIG", "/nonexistent"), ("DOCKER_CONTEXT", "lab")],
            Err("DOCKER_CONTEXT names it"),
        );
        check(None, &[("DOCKER_CONTEXT", "lab")], Err("HOME"));
        check(
            None,
            &[("DOCKER_HOST", "/run/docker.sock")],
            Err("cannot use DOCKER_HOST /run/docker.sock"),
        );
        check(
            None,
            &[
                ("DOCKER_HOST", "tcp://a"),
                ("DOCKER_TLS_VERIFY", "0"),
                ("DOCKER_CERT_PATH", certs),
            ],
            Ok(("tcp://a:2376 +tls", "DOCKER_HOST")),
        );
        check(
            None,
            &[("DOCKER_HOST", "tcp://a"), ("DOCKER_CERT_PATH", certs)],
            Ok(("tcp://a:2376 +tls", "DOCKER_HOST")),
        );
        check(
            Some("tcp://a:1"),
            &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CONFIG", certs)],
            Ok(("tcp://a:1 +tls", "-H")),
        );
        check(
            Some("unix:///x"),
            &[
                ("DOCKER_TLS_VERIFY", "1"),
                ("DOCKER_CERT_PATH", "/nonexistent"),
            ],
            Ok(("unix:///x", "-H")),
        );
        check(
            Some("tcp://a"),
            &[("DOCKER_CERT_PATH", "/nonexistent")],
            Err("/nonexistent/ca.pem: no such file"),
        );
        check(
            None,
            &[("DOCKER_API_VERSION", "new")],
            Err("DOCKER_API_VERSION=new"),
        );
    }

    #[test]
    fn the_version_is_taken_with_or_without_a_v() {
        for text in ["1.41", "v1.41"] {
            let found = resolve(None, &|name| {
                (name == "DOCKER_API_VERSION").then(|| text.to_owned())
            });
            assert_eq!(
                found.expect("resolves").api_version.as_deref(),
                Some("1.41")
            );
        }
    }

    #[test]
    fn a_context_brings_its_certificates() {
        let config = config();
        let lookup = |name: &str| match name {
            "DOCKER_CONFIG" => Some(config.clone()),
            "DOCKER_CONTEXT" => Some("lab-tls".to_owned()),
            _ => None,
        };
        let Address::Tcp { tls: Some(tls), .. } = resolve(None, &lookup).expect("resolves").address
        else {
            panic!("no TLS");
        };
        let folder = PathBuf::from(format!(
            "{config}/contexts/tls/edc3330015eb85359db5ec1f3ad21defde2d6d3d009dee5a08c63162f7364035/docker"
        ));
        assert_eq!(tls.ca, Some(folder.join("ca.pem")));
        assert_eq!(
            tls.identity,
            Some((folder.join("cert.pem"), folder.join("key.pem")))
        );
    }
}
