//! Which HTTP proxy stands between us and a URL, by the usual variables. Pure: they are handed in.
//!
//! `https_proxy` or `http_proxy` by the URL's scheme, then `all_proxy`, each in lower case first;
//! `no_proxy` names hosts that are reached directly. Never for loopback, whatever they say. Rules as
//! curl has them (its manual, "Environment" and `--noproxy`).

use std::net::IpAddr;

/// The proxy's URL for a target, if any.
pub fn of(is_https: bool, host: &str, variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if is_loopback(host) {
        return None;
    }
    let first = |names: [&str; 2]| {
        names
            .into_iter()
            .find_map(|name| variable(name).filter(|value| !value.trim().is_empty()))
    };
    let direct = first(["no_proxy", "NO_PROXY"]);
    if direct.is_some_and(|names| is_listed(host, &names)) {
        return None;
    }
    let by_scheme = if is_https {
        ["https_proxy", "HTTPS_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY"]
    };
    first(by_scheme)
        .or_else(|| first(["all_proxy", "ALL_PROXY"]))
        .map(|proxy| proxy.trim().to_owned())
}

/// Whether a host is this machine itself.
pub fn is_loopback(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost"
        || name.ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| match ip {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => {
                ip.is_loopback() || ip.to_ipv4_mapped().is_some_and(|ip| ip.is_loopback())
            }
        })
}

fn is_listed(host: &str, names: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok();
    names
        .split([',', ' ', '\t'])
        .filter(|name| !name.is_empty())
        .any(|name| {
            let name = name.to_ascii_lowercase();
            if name == "*" {
                return true;
            }
            if let Some(ip) = ip {
                return name.parse() == Ok(ip) || is_in_network(ip, &name);
            }
            let suffix = name.trim_start_matches('*').trim_matches('.');
            !suffix.is_empty()
                && host
                    .strip_suffix(suffix)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        })
}

/// Whether an address lies in `ADDRESS/BITS`.
fn is_in_network(ip: IpAddr, network: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else {
        return false;
    };
    let (Ok(base), Ok(bits)) = (base.parse::<IpAddr>(), bits.parse::<u32>()) else {
        return false;
    };
    match (ip, base) {
        (IpAddr::V4(ip), IpAddr::V4(base)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            ip.to_bits() & mask == base.to_bits() & mask
        }
        (IpAddr::V6(ip), IpAddr::V6(base)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            ip.to_bits() & mask == base.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_variables_decide_and_loopback_is_always_direct() {
        let (http, https, all) = ("http://h:1", "http://s:2", "http://a:3");
        type Case<'t> = (&'t str, &'t [(&'t str, &'t str)], Option<&'t str>);
        let cases: &[Case<'_>] = &[
            ("https://c.example.com", &[], None),
            (
                "https://c.example.com",
                &[("HTTPS_PROXY", https)],
                Some(https),
            ),
            ("https://c.example.com", &[("HTTP_PROXY", http)], None),
            ("http://c.example.com", &[("HTTPS_PROXY", https)], None),
            (
                "http://c.example.com",
                &[("http_proxy", http), ("HTTP_PROXY", all)],
                Some(http),
            ),
            ("http://c.example.com", &[("ALL_PROXY", all)], Some(all)),
            ("https://c.example.com", &[("https_proxy", " ")], None),
            (
                "https://c.example.com",
                &[("https_proxy", https), ("no_proxy", "*")],
                None,
            ),
            (
                "https://c.example.com",
                &[("https_proxy", https), ("NO_PROXY", "x, .example.com")],
                None,
            ),
            (
                "https://c.example.com",
                &[("https_proxy", https), ("NO_PROXY", "EXAMPLE.com")],
                None,
            ),
            (
                "https://c.example.com",
                &[("https_proxy", https), ("NO_PROXY", "*.example.com")],
                None,
            ),
            (
                "https://cexample.com",
                &[("https_proxy", https), ("NO_PROXY", "example.com")],
                Some(https),
            ),
            (
                "https://10.1.2.3",
                &[("https_proxy", https), ("NO_PROXY", "10.0.0.0/8")],
                None,
            ),
            (
                "https://11.1.2.3",
                &[("https_proxy", https), ("NO_PROXY", "10.0.0.0/8,x/y")],
                Some(https),
            ),
            (
                "https://11.1.2.3",
                &[("https_proxy", https), ("NO_PROXY", "0.0.0.0/0")],
                None,
            ),
            (
                "https://[fd00::1]",
                &[("https_proxy", https), ("NO_PROXY", "fd00::/16")],
                None,
            ),
            ("https://localhost", &[("https_proxy", https)], None),
            ("http://127.0.0.9", &[("ALL_PROXY", all)], None),
            ("http://[::1]", &[("ALL_PROXY", all)], None),
            ("http://a.localhost", &[("ALL_PROXY", all)], None),
        ];
        for (url, variables, expected) in cases {
            let (scheme, host) = url.split_once("://").expect("a URL");
            let found = of(scheme == "https", host, &|name| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| (*value).to_owned())
            });
            assert_eq!(found.as_deref(), *expected, "{url} {variables:?}");
        }
    }
}
