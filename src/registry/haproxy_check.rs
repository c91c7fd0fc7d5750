//! For tests: what the real `haproxy -c` says of a config.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// Asserts that HAProxy takes a config without an error and without a warning.
///
/// Without HAProxy the test fails, unless `COSMONAUT_TEST_WITHOUT` names `haproxy`.
pub(crate) fn assert_accepted(config: &str) {
    match verdict(config) {
        Some(words) => assert!(
            words.is_empty(),
            "haproxy -dW -c says:\n{words}\n---\n{config}"
        ),
        None => eprintln!("haproxy is missing: this config was not checked"),
    }
}

/// HAProxy's words, empty when it accepts; `None` when the test may do without HAProxy.
pub(crate) fn verdict(config: &str) -> Option<String> {
    let started = Command::new("haproxy")
        .args(["-dW", "-c", "-f", "/dev/stdin"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut haproxy = match started {
        Ok(haproxy) => haproxy,
        Err(cause) => {
            let without = std::env::var("COSMONAUT_TEST_WITHOUT").unwrap_or_default();
            assert!(
                without.split([',', ' ']).any(|word| word == "haproxy"),
                "this test needs haproxy ({cause}): install it, or set COSMONAUT_TEST_WITHOUT=haproxy"
            );
            return None;
        }
    };
    haproxy
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(config.as_bytes())
        .expect("haproxy reads its input");
    let output = haproxy.wait_with_output().expect("haproxy ends");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let refused = !output.status.success();
    Some(if refused {
        format!("refused: {words}")
    } else {
        String::new()
    })
}
