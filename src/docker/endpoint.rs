//! Where the daemon is: `-H`, `DOCKER_HOST`, `DOCKER_CONTEXT`, the current context, or the usual socket.
//!
//! Reads the docker CLI's configuration files and nothing else; the environment is handed in.
//! Rules: docker/cli, `cli/command/cli.go` and `cli/context/store`.

use std::path::PathBuf;

/// The usual socket of a Docker daemon.
const DEFAULT_SOCKET: &str = "/var/run/docker.sock";

/// Sockets of daemons that are there, for an error about one that is not: rootless Docker, Podman.
pub fn other_sockets(env: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
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
