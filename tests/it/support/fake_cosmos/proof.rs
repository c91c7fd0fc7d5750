//! The model against what the real service answered: every captured step replayed in order.

use serde_json::Value;

use super::{FakeCosmos, Model};
use crate::support::deadline::SOON;
use crate::support::wire::{self, Place, Reply, Stream};
use std::io::{Read, Write};
use std::path::Path;

/// What of an answer must be the same: all of it, but for the stack trace of an error.
fn gist(body: &str) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Object(map)) => match map.get("errorMessage").and_then(Value::as_str) {
            Some(words) => words.lines().next().unwrap_or_default().to_owned(),
            None => body.to_owned(),
        },
        _ => body.to_owned(),
    }
}

#[test]
fn the_model_answers_what_the_service_answered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/it/cosmos");
    let mut steps_seen = 0;
    let mut files: Vec<_> = std::fs::read_dir(&folder)
        .expect("the captured transcripts")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a transcript");
        let transcript: Value = serde_json::from_str(&text).expect("JSON");
        let model = Model::default();
        for (at, step) in transcript["steps"]
            .as_array()
            .expect("steps")
            .iter()
            .enumerate()
        {
            let request = &step["request"];
            let place = format!("{}, step {at} ({})", file.display(), step["note"]);
            let event = match (request.get("json"), request["raw"].as_str()) {
                (Some(json), _) => json.clone(),
                (None, Some("")) => serde_json::json!({}),
                (None, raw) => match serde_json::from_str(raw.unwrap_or_default()) {
                    Ok(json) => json,
                    Err(_) => continue,
                },
            };
            let answer = model.call(&event);
            let expected = step["response"].as_str().expect("a response");
            assert_eq!(gist(&answer), gist(expected), "{place}");
            if let Some(stored) = step["stored_after"]["services"].as_array() {
                assert_eq!(
                    model.stored(),
                    Value::Array(stored.clone()),
                    "stored after {place}"
                );
            }
            steps_seen += 1;
        }
    }
    assert!(steps_seen >= 150, "only {steps_seen} steps were replayed");
}

/// Sends one request and reads to the end or until nothing comes.
fn exchange(fake: &FakeCosmos, method: &str, target: &str, body: &str) -> String {
    let mut stream = Stream::connect(&Place::Tcp(fake.port())).expect("it listens");
    stream.set_read_timeout(Some(SOON)).expect("a timeout");
    write!(
        stream,
        "{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("sent");
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).expect("an answer in time");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        let whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            head.split("Content-Length: ")
                .nth(1)
                .and_then(|rest| rest.lines().next()?.parse().ok())
                .is_some_and(|length: usize| body.len() >= length)
        });
        if count == 0 || whole {
            return text;
        }
    }
}

#[test]
fn the_gateway_and_the_faults_stand_before_the_model() {
    let fake = FakeCosmos::start();
    let empty = r#"{"table":"t","running":[],"candidates":[]}"#;
    assert!(exchange(&fake, "POST", "/api/generate", empty).contains("200 OK"));
    assert!(exchange(&fake, "GET", "/api/generate", "").contains("403 Forbidden"));
    assert!(exchange(&fake, "POST", "/api", empty).contains("Missing Authentication Token"));
    assert!(exchange(&fake, "POST", "/api/generate", "{\"table\":").contains("400 Bad Request"));
    fake.next(Reply::Raw(wire::answer(
        "500 Internal Server Error",
        "text/html",
        "<html>no</html>",
    )));
    fake.next(Reply::closed());
    assert!(exchange(&fake, "POST", "/api/generate", empty).ends_with("<html>no</html>"));
    assert_eq!(exchange(&fake, "POST", "/api/generate", empty), "");
    assert!(exchange(&fake, "POST", "/api/generate", empty).contains("# Define backends"));
    assert_eq!(fake.calls(), 7);
    assert_eq!(fake.payloads()[0], empty);
    assert_eq!(fake.most_at_once(), 1);
}
