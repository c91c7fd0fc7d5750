//! The output of `weave status dns`, from text to entries.
//!
//! The command is only a fallback for a router whose API we cannot reach: it starts a container of
//! its own for each call and shows less than the API (12 characters of an id, no allocations).
//!
//! A line is Go's `%-12v %-15v %12.12v %v` of name, address, id and peer, unchanged from 1.1.0 to
//! 2.9.0. The name is not truncated and may hold blanks, so a line is read from the right: the
//! peer after the last blank, then exactly twelve characters of id, then the address, and what is
//! left is the name. The fork's command ends its lines in CRLF.

use std::net::Ipv4Addr;

use super::report::{Answer, Entry, Owned};

/// Width of the id column; ids are cut and padded to exactly this many characters.
pub const ID_CHARS: usize = 12;

/// Reads the whole output. A line that makes no sense is skipped and counted; nothing registered is
/// no output at all, so there is no such thing as a malformed whole.
pub fn parse(text: &str) -> Answer {
    let mut answer = Answer {
        short: true,
        owned: Owned::Off,
        // The command leaves out the router's domain, so a name is under it unless it ends in a dot.
        domain: Some(String::new()),
        ..Answer::default()
    };
    for line in text.split('\n') {
        let line = line.trim_end();
        if line.is_empty() {
            continue;
        }
        match entry(line) {
            Some(entry) => answer.entries.push(entry),
            None => answer.skipped += 1,
        }
    }
    answer
}

fn entry(line: &str) -> Option<Entry> {
    let (rest, peer) = line.rsplit_once(' ')?;
    let (id_start, _) = rest.char_indices().rev().nth(ID_CHARS - 1)?;
    let (rest, id) = rest.split_at_checked(id_start)?;
    let (name, address) = rest.strip_suffix(' ')?.trim_end().rsplit_once(' ')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let (name, id) = (name.trim_end_matches(' '), id.trim_start());
    if name.trim_start().is_empty() || id.is_empty() || peer.is_empty() {
        return None;
    }
    Some(Entry {
        name: name.to_owned(),
        origin: peer.to_owned(),
        id: id.to_owned(),
        address,
        removed: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! data {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/weave/", $name))
        };
    }

    fn check(text: &str, skipped: usize, expected: &[(&str, &str, &str)]) {
        let answer = parse(text);
        let seen: Vec<(String, String, String)> = answer
            .entries
            .iter()
            .map(|e| (e.name.clone(), e.address.to_string(), e.id.clone()))
            .collect();
        let expected: Vec<(String, String, String)> = expected
            .iter()
            .map(|(n, a, i)| (n.to_string(), a.to_string(), i.to_string()))
            .collect();
        assert_eq!(seen, expected);
        assert_eq!(answer.skipped, skipped);
        assert!(answer.short);
    }

    const TWO_HOSTS: [(&str, &str, &str); 8] = [
        ("api", "10.44.0.0", "4f890c9f8853"),
        ("api", "10.44.0.2", "88c533fed917"),
        ("api", "10.32.0.1", "bcc85ebcd9a9"),
        ("cache", "10.32.0.3", "312f9dab5e35"),
        ("db", "10.32.0.2", "d8694be562d1"),
        ("host1", "10.32.255.1", "weave:expose"),
        ("host2", "10.40.255.1", "weave:expose"),
        ("worker", "10.44.0.1", "a9567b43ce01"),
    ];

    #[test]
    fn every_captured_output_reads_as_it_was_seen() {
        check(data!("status-dns-empty.txt"), 0, &[]);
        check(
            data!("status-dns-one.txt"),
            0,
            &[("api", "10.32.0.1", "5dd808929436")],
        );
        let mixed = [
            (
                "a-very-long-service-name-7f9c.project",
                "10.47.255.254",
                "2e5b7b80f3d1",
            ),
            ("api", "10.32.0.1", "5dd808929436"),
            ("db", "10.32.0.2", "82e64648d9ab"),
            ("db", "10.40.0.7", "82e64648d9ab"),
            ("Frontend", "10.32.0.11", "75a288c0d689"),
            ("host1", "10.32.0.10", "weave:expose"),
            ("mysql-legacy", "192.168.128.254", "weave:extern"),
            ("shortid", "10.32.0.12", "short"),
            ("web", "10.32.0.3", "659a7fb2af47"),
            ("www", "10.32.0.3", "659a7fb2af47"),
        ];
        check(data!("status-dns-mixed.txt"), 0, &mixed);
        check(data!("status-dns-mixed-fork-2.9.0.txt"), 0, &mixed);
        let left: Vec<_> = mixed
            .into_iter()
            .filter(|e| e.1 != "10.40.0.7" && e.1 != "10.32.0.3")
            .collect();
        check(data!("status-dns-tombstones.txt"), 0, &left);
        check(data!("status-dns-two-hosts-at-host1.txt"), 0, &TWO_HOSTS);
        check(data!("derived-status-dns-crlf.txt"), 0, &TWO_HOSTS);
        check(
            data!("status-dns-docker.txt"),
            0,
            &[
                ("api-v1", "10.32.0.1", "ff7a8ce6a29f"),
                ("api", "10.32.0.1", "ff7a8ce6a29f"),
                ("host1", "10.32.0.8", "weave:expose"),
                ("multi", "10.32.0.3", "d01adc40567b"),
                ("multi", "10.40.1.1", "d01adc40567b"),
                ("multi", "10.99.1.5", "d01adc40567b"),
                ("mysql-legacy", "192.168.128.254", "weave:extern"),
                ("payment-gateway-7f9c", "10.32.0.6", "e33c9a4c9b82"),
                ("web", "10.32.0.2", "af29773d7908"),
                ("www", "10.32.0.2", "af29773d7908"),
            ],
        );
    }

    #[test]
    fn odd_names_keep_their_address_and_id() {
        // A newline in a name makes two lines: the first is skipped, the second keeps id and
        // address, which is all that is looked up by id.
        check(
            data!("status-dns-odd.txt"),
            1,
            &[
                (
                    "a-very-long-service-name-7f9c.project",
                    "10.47.255.254",
                    "2e5b7b80f3d1",
                ),
                ("api", "10.32.0.1", "5dd808929436"),
                ("db", "10.32.0.2", "82e64648d9ab"),
                ("Frontend", "10.32.0.11", "75a288c0d689"),
                ("has space", "10.32.0.13", "be18b85f77fc"),
                ("host1", "10.32.0.10", "weave:expose"),
                ("Mixed.WEAVE.Local.", "10.32.0.15", "3b8b91c75627"),
                ("mysql-legacy", "192.168.128.254", "weave:extern"),
                ("x", "10.32.0.22", "184365349680"),
                ("shortid", "10.32.0.12", "short"),
                ("six", "0.0.0.0", "3e8286044388"),
                ("spid", "10.32.0.18", "sp id"),
                ("tab\tx", "10.32.0.21", "7508386a2056"),
                ("weave.local.", "10.32.0.14", "7e6e9877fff0"),
                ("x.", "10.32.0.20", "0517cf1abcfd"),
                ("тест", "10.32.0.19", "8d9315fc224d"),
            ],
        );
    }

    #[test]
    fn cut_and_junk_lines_are_skipped_and_counted() {
        check(
            data!("derived-status-dns-truncated.txt"),
            1,
            &TWO_HOSTS[..3],
        );
        check(
            data!("derived-status-dns-garbage.txt"),
            5,
            &[
                ("api", "10.32.0.1", "5dd808929436"),
                ("name with three spaces", "10.32.0.30", "0123456789ab"),
            ],
        );
        check(data!("cli-not-running.stderr.txt"), 1, &[]);
    }

    #[test]
    fn the_not_ready_body_is_as_good_as_any() {
        let http = data!("http-status-dns-not-ready.txt");
        let body = http.split_once("\n\n").expect("a head and a body").1;
        check(
            body,
            0,
            &[
                ("api", "10.32.0.1", "bf2cca90931a"),
                ("api", "10.32.0.1", "ff7a8ce6a29f"),
                ("multi", "10.32.0.3", "d01adc40567b"),
                ("multi", "10.40.1.1", "d01adc40567b"),
                ("multi", "10.99.1.5", "d01adc40567b"),
                ("payment-gateway-7f9c", "10.32.0.6", "e33c9a4c9b82"),
            ],
        );
    }

    #[test]
    fn no_words_of_a_nasty_vocabulary_panic() {
        let words = [
            "",
            " ",
            "api",
            "10.32.0.1",
            "5dd808929436",
            "é",
            "\t",
            "\r",
            "\n",
            "\u{0}",
            "0.0.0.0/8",
        ];
        for a in words {
            for b in words {
                for c in words {
                    for d in words {
                        let answer = parse(&format!("{a} {b} {c}{d}"));
                        assert!(answer.entries.len() + answer.skipped <= 4);
                    }
                }
            }
        }
        let whole = data!("status-dns-odd.txt");
        for (end, _) in whole.char_indices() {
            parse(&whole[..end]);
        }
    }
}
