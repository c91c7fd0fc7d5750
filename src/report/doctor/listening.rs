//! Which TCP ports a container's processes listen on, by `/proc`: what a wrong PORT is held against.

use std::fs;
use std::path::Path;

use crate::haproxy::process;
use crate::order;

/// State of a socket that listens, as `/proc/PID/net/tcp` has it.
const LISTENS: &str = "0A";

/// Ports that something listens on.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// For everybody.
    pub ports: Vec<u16>,
    /// For its own loopback only.
    pub loopback: Vec<u16>,
}

/// Ports of the container with this id; `None` when no process of it is to be seen here.
pub fn of_container(id: &str) -> Option<Listening> {
    of(Path::new("/proc"), id)
}

fn of(proc: &Path, id: &str) -> Option<Listening> {
    let pid = process::pids(proc)
        .into_iter()
        .find(|pid| process::is_of_container(&proc.join(pid.to_string()), id))?;
    let folder = proc.join(pid.to_string()).join("net");
    let mut all = Listening::default();
    let mut read = false;
    for table in ["tcp", "tcp6"] {
        if let Ok(text) = fs::read_to_string(folder.join(table)) {
            read = true;
            take_in(&text, &mut all);
        }
    }
    for ports in [&mut all.ports, &mut all.loopback] {
        order::sort(ports);
        ports.dedup();
    }
    read.then_some(all)
}

/// Lines as `0: 0100007F:1F90 00000000:0000 0A ...`: address and port in hex, the address in host order.
fn take_in(table: &str, all: &mut Listening) {
    for line in table.lines().skip(1) {
        let mut words = line.split_whitespace().skip(1);
        let (Some(local), Some(_), Some(LISTENS)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let Some((address, port)) = local.split_once(':') else {
            continue;
        };
        let Ok(port) = u16::from_str_radix(port, 16) else {
            continue;
        };
        // A socket of both families, as Java has them, shows an IPv4 address mapped into IPv6.
        let v4 = address
            .strip_prefix("0000000000000000FFFF0000")
            .unwrap_or(address);
        let v4_loopback = v4.len() == 8 && v4.ends_with("7F");
        let v6_loopback = address == "00000000000000000000000001000000";
        // Docker's own name server listens on 127.0.0.11 in every container; it is loopback, too.
        if v4_loopback || v6_loopback {
            all.loopback.push(port);
        } else {
            all.ports.push(port);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let mut all = Listening::default();
        take_in(
            "  sl  local_address rem_address   st tx_queue\n\
             \x20  0: 0B00007F:A1B2 00000000:0000 0A 00000000:00000000\n\
             \x20  1: 00000000:1F90 00000000:0000 0A 00000000:00000000\n\
             \x20  2: 0100007F:0CEA 00000000:0000 0A 00000000:00000000\n\
             \x20  3: 020011AC:C350 030011AC:1F90 01 00000000:00000000\n\
             \x20  4: 00000000000000000000000000000000:01BB 00000000000000000000000000000000:0000 0A x\n\
             \x20  5: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A x\n\
             \x20  6: broken\n",
            &mut all,
        );
        assert_eq!(all.ports, [8080, 443]);
        assert_eq!(all.loopback, [0xA1B2, 3306, 8081]);
    }
}
