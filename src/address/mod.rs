//! address/mod
/// poller
pub mod poller;
/// report
pub mod report;
/// status_dns
pub mod status_dns;
/// weave
pub mod weave;
use std::net::IpAddr;
/// Why
pub fn refusal(ip: IpAddr) -> Option<&'static str> {
    match ip.to_canonical() {
        ip if ip.is_unspecified() => Some("stands for no host"),
        ip if ip.is_loopback() => Some("is a loopback address"),
        ip if ip.is_multicast() => Some("is a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("is the broadcast address"),
        IpAddr::V4(ip) if ip.is_link_local() => Some("is a link-local address"),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("is a link-local address"),
        _ => None,
    }
}
