use super::*;

#[test]
fn a_finding_is_one_line_for_people_and_four_fields_for_machines() {
    let findings = [
        Finding::ok("docker", "unix:///run/d.sock is there"),
        Finding::warn("config", "two\nlines", "mend it"),
        Finding::error(
            "cosmos",
            &Error::new("cannot ask", "refused").hint("is it up?"),
            "unused",
        ),
        Finding::error("cosmos", &Error::new("cannot ask", "refused"), "stand-in"),
    ];
    let lines: String = findings.iter().map(line).collect();
    assert_eq!(
        lines,
        "ok   docker: unix:///run/d.sock is there\n\
         warn config: two lines; mend: mend it\n\
         fail cosmos: cannot ask: refused; mend: is it up?\n\
         fail cosmos: cannot ask: refused; mend: stand-in\n"
    );
    let json = serde_json::to_string(&findings[..2]).expect("JSON");
    assert_eq!(
        json,
        r#"[{"check":"docker","verdict":"ok","message":"unix:///run/d.sock is there","mend":null},{"check":"config","verdict":"warn","message":"two\nlines","mend":"mend it"}]"#
    );
}

#[test]
fn no_look_gets_more_time_than_is_left() {
    let over = Budget(Instant::now());
    assert_eq!(over.at_most(Duration::from_secs(1)), None);
    let words = over
        .take("weave", Duration::from_secs(1))
        .expect_err("no time");
    assert_eq!((words.check, words.verdict), ("weave", Verdict::Warn));
    let plenty = Budget(Instant::now() + TIME_MAX);
    assert_eq!(
        plenty.take("x", Duration::from_secs(1)),
        Ok(Duration::from_secs(1))
    );
    assert!(
        plenty
            .at_most(Duration::from_secs(60))
            .is_some_and(|time| time <= TIME_MAX)
    );
}
