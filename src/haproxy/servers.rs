//! What HAProxy's `show servers state` says: which servers it has, where they are, which are in
//! maintenance. Pure.
//!
//! Columns are found by their names, since versions add some. Source: HAProxy management guide, "show
//! servers state", version 1 of the format (2.4 to 3.4).

use std::net::{IpAddr, SocketAddr};

use crate::order;
use crate::sorted::Map;

/// Bit of the administrative state: forced into maintenance by the runtime socket.
const FORCED_MAINTENANCE: u32 = 1;

/// One server as HAProxy runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Its address, unless it is a name that has none.
    pub address: Option<SocketAddr>,
    /// It was taken out by `state maint`.
    pub maintenance: bool,
}

/// All servers, by backend and name.
pub type Rows = Map<(String, String), Row>;

/// Reads the reply.
///
/// # Errors
/// The line that is not as it should be: the socket said something else.
pub fn read(reply: &str) -> Result<Rows, String> {
    let mut lines = reply.lines().map(str::trim).filter(|line| !line.is_empty());
    let version = lines.next().unwrap_or("nothing");
    if version != "1" {
        return Err(version.to_owned());
    }
    let header = lines.next().unwrap_or_default();
    let names: Vec<&str> = header.trim_start_matches("# ").split(' ').collect();
    let column = |name: &str| {
        names
            .iter()
            .position(|known| *known == name)
            .ok_or_else(|| format!("no column {name} in: {header}"))
    };
    let backend = column("be_name")?;
    let server = column("srv_name")?;
    let ip = column("srv_addr")?;
    let port = column("srv_port")?;
    let admin = column("srv_admin_state")?;
    let mut rows = Vec::new();
    for line in lines {
        let values: Vec<&str> = line.split(' ').collect();
        let value = |at: usize| values.get(at).copied().ok_or_else(|| line.to_owned());
        let ip = value(ip)?.parse::<IpAddr>().ok();
        let port = value(port)?.parse().map_err(|_| line.to_owned())?;
        let admin: u32 = value(admin)?.parse().map_err(|_| line.to_owned())?;
        let row = Row {
            address: ip.map(|ip| SocketAddr::new(ip, port)),
            maintenance: admin & FORCED_MAINTENANCE != 0,
        };
        let key = (value(backend)?.to_owned(), value(server)?.to_owned());
        rows.push((key, row));
    }
    Ok(order::gathered(rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 2.6.12 says it.
    const REPLY: &str = "1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr srv_agent_port
3 be_w 2 b 127.0.0.3 2 0 1 1 1 1 0 0 6 0 0 0 - 9003 - 0 0 - - 0
3 be_w 1 six fd00::2 0 1 1 1 0 1 0 0 0 0 0 0 - 80 - 0 0 - - 0
3 be_w 4 named - 0 32 1 1 0 1 0 0 0 0 0 0 x.example 80 - 0 0 - - 0

";

    #[test]
    fn reads_what_haproxy_says() {
        let rows = read(REPLY).expect("a reply");
        let row = |name: &str| {
            rows.get(&("be_w".to_owned(), name.to_owned()))
                .cloned()
                .expect("a row")
        };
        assert_eq!(rows.len(), 3);
        assert_eq!(
            row("b"),
            Row {
                address: "127.0.0.3:9003".parse().ok(),
                maintenance: false
            }
        );
        assert_eq!(
            row("six"),
            Row {
                address: "[fd00::2]:80".parse().ok(),
                maintenance: true
            }
        );
        assert_eq!(row("named").address, None);
    }

    #[test]
    fn other_replies_are_named() {
        for (reply, expected) in [
            ("", "nothing"),
            ("Permission denied\n", "Permission denied"),
            ("Can't find backend.\n\n", "Can't find backend."),
            ("1\n# be_id\n", "no column be_name in: # be_id"),
        ] {
            assert_eq!(read(reply), Err(expected.to_owned()));
        }
        let short: String = REPLY
            .lines()
            .take(2)
            .map(|line| format!("{line}\n"))
            .collect();
        assert_eq!(read(&short), Ok(Rows::default()));
        assert_eq!(
            read(&format!("{short}3 be_w 2\n")),
            Err("3 be_w 2".to_owned())
        );
    }
}
