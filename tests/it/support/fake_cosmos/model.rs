//! What the real service does with a payload, bugs and all, as measured: one table for
//! everybody, only the first stored service is looked at, candidates overwrite, a refused
//! candidate fails the call while its neighbours are written.
//!
//! Answers are the real ones byte for byte; of an error the first line is (the rest is a stack trace).

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value, json};

use crate::support::md5::md5;

const TOP: &str = "global
    log 127.0.0.1   local0
    log 127.0.0.1   local1 notice
    maxconn 4096
    user haproxy
    group haproxy
    daemon

defaults
    log global
    mode http
    option httplog
    option dontlognull
    option forwardfor
    option http-server-close
    timeout connect 5000
    timeout client 50000
    timeout server 50000

# Define frontends

frontend http
    bind :80
    ";

type Item = Map<String, Value>;

/// The function and its one table.
#[derive(Default)]
pub struct Model {
    /// In the order of a scan.
    table: Mutex<Vec<Item>>,
}

impl Model {
    fn table(&self) -> MutexGuard<'_, Vec<Item>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is stored, in the order of a scan.
    pub fn stored(&self) -> Value {
        Value::Array(self.table().iter().cloned().map(Value::Object).collect())
    }

    /// Forgets everything, or takes a given store.
    pub fn set_stored(&self, items: &Value) {
        let mut table = self.table();
        table.clear();
        drop(table);
        for item in items.as_array().into_iter().flatten() {
            if let Some(item) = item.as_object() {
                self.put(item.clone());
            }
        }
    }

    /// Body of the answer, always with status 200.
    pub fn call(&self, event: &Value) -> String {
        if event.is_null() {
            return json!({
                "errorMessage": "Cannot read property 'table' of null", "errorType": "TypeError",
                "stackTrace": ["exports.handler (/var/task/index.js:300:31)"],
            })
            .to_string();
        }
        match self.handle(event) {
            Ok(config) => Value::String(config).to_string(),
            Err(error) => {
                json!({"errorMessage": format!("{error}\n    at Cosmos (/var/task/index.js)")})
                    .to_string()
            }
        }
    }

    /// The steps of the handler; the table is locked for each of them alone, so calls of several hosts interleave.
    fn handle(&self, event: &Value) -> Result<String, String> {
        // Cleanse: only the first stored service is ever looked at.
        let first = self.table().first().cloned();
        let mut updated: Option<Item> = None;
        if let Some(mut item) = first {
            let live = array(event.get("running"), "map", "liveData.running")?;
            let names = texts(live, "serviceName")?;
            if names.contains(&item.get("serviceName").cloned()) {
                let ids = texts(live, "id")?;
                let Some(Value::Array(containers)) = item.get_mut("containers") else {
                    return Err("TypeError: Cannot read property 'filter' of undefined".to_owned());
                };
                containers.retain(|one| ids.contains(&one.get("id").cloned()));
                updated = Some(item);
            } else {
                let name = item.get("serviceName").cloned();
                self.table()
                    .retain(|one| one.get("serviceName").cloned() != name);
            }
        }
        // Merge: candidates of that service are added to it, all others are new.
        let is_updated = |one: &Value| {
            updated
                .as_ref()
                .is_some_and(|item| item.get("serviceName") == one.get("serviceName"))
        };
        let candidates = array(event.get("candidates"), "filter", "liveData.candidates")?;
        if candidates.iter().any(Value::is_null) {
            return Err("TypeError: Cannot read property 'serviceName' of null".to_owned());
        }
        let live = array(event.get("running"), "filter", "liveData.running")?;
        let mut more: Vec<Value> = Vec::new();
        for one in candidates.iter().filter(|one| is_updated(one)) {
            more.extend(one["containers"].as_array().cloned().unwrap_or_default());
        }
        for one in live.iter().filter(|one| is_updated(one)) {
            more.push(json!({"id": one["id"], "ip": one["ip"]}));
        }
        let new: Vec<Item> = candidates
            .iter()
            .filter(|one| !is_updated(one))
            .filter_map(|one| one.as_object().cloned())
            .collect();
        let mut answer: Vec<Item> = Vec::new();
        if let Some(mut item) = updated {
            if let Some(Value::Array(containers)) = item.get_mut("containers") {
                containers.extend(more);
                *containers = deduped(containers);
            }
            self.put(item.clone());
            answer.push(item);
        }
        // Every valid one is written, whatever becomes of its neighbours.
        let mut refused = None;
        for item in new {
            match refusal(&item) {
                Some(words) => refused = refused.or(Some(words)),
                None => {
                    self.put(item.clone());
                    answer.push(item);
                }
            }
        }
        match refused {
            Some(words) => Err(format!("ValidationError: {words}")),
            None => Ok(render(&answer)),
        }
    }

    /// Writes an item over the one of its name, at the place that the hash of the name gives it.
    fn put(&self, mut item: Item) {
        if item
            .get("containers")
            .and_then(Value::as_array)
            .is_some_and(Vec::is_empty)
        {
            // An empty list is not stored at all, which poisons later calls.
            item.remove("containers");
        }
        // The service stamps its items; the transcripts leave the stamps out.
        item.remove("createdAt");
        item.remove("updatedAt");
        let place = |item: &Item| {
            let name = item
                .get("serviceName")
                .and_then(Value::as_str)
                .unwrap_or_default();
            md5(format!("Outliers{name}").as_bytes())
        };
        let mut table = self.table();
        table.retain(|one| one.get("serviceName") != item.get("serviceName"));
        table.push(item);
        table.sort_by_key(place);
    }
}

/// JavaScript's view of a value that should be an array.
fn array<'a>(value: Option<&'a Value>, method: &str, name: &str) -> Result<&'a [Value], String> {
    match value {
        Some(Value::Array(all)) => Ok(all),
        None => Err(format!(
            "TypeError: Cannot read property '{method}' of undefined"
        )),
        Some(Value::Null) => Err(format!(
            "TypeError: Cannot read property '{method}' of null"
        )),
        Some(_) => Err(format!("TypeError: {name}.{method} is not a function")),
    }
}

/// One property of every element, as JavaScript's `map` gives it.
fn texts(all: &[Value], key: &str) -> Result<Vec<Option<Value>>, String> {
    if all.iter().any(Value::is_null) {
        return Err(format!("TypeError: Cannot read property '{key}' of null"));
    }
    Ok(all.iter().map(|one| one.get(key).cloned()).collect())
}

/// By the joined values; the last one of a key stands at the place of the first.
fn deduped(all: &[Value]) -> Vec<Value> {
    let key = |one: &Value| -> String {
        let text = |name: &str| one.get(name).map(shown).unwrap_or_default();
        text("id") + &text("ip")
    };
    let mut kept: Vec<Value> = Vec::new();
    for one in all {
        match kept.iter_mut().find(|old| key(old) == key(one)) {
            Some(old) => *old = one.clone(),
            None => kept.push(one.clone()),
        }
    }
    kept
}

/// Why the schema refuses a candidate, in its words.
fn refusal(item: &Item) -> Option<String> {
    let text = |key: &str, value: &Value| match value {
        Value::String(text) if text.is_empty() => {
            Some(format!("\"{key}\" is not allowed to be empty"))
        }
        Value::String(_) => None,
        _ => Some(format!("\"{key}\" must be a string")),
    };
    for key in ["serviceName", "configMode", "cookie", "predicate"] {
        if let Some(words) = item.get(key).and_then(|value| text(key, value)) {
            return Some(words);
        }
    }
    match item.get("port") {
        None | Some(Value::Number(_)) => {}
        Some(Value::String(port)) if !port.is_empty() => {}
        Some(Value::String(_)) => {
            return Some(
                "\"port\" is not allowed to be empty. \"port\" must be a number".to_owned(),
            );
        }
        Some(_) => return Some("\"port\" must be a string. \"port\" must be a number".to_owned()),
    }
    for (at, one) in item
        .get("containers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .enumerate()
    {
        let all = one.as_object()?;
        for (key, value) in all {
            if key != "id" && key != "ip" {
                return Some(format!(
                    "\"containers\" at position {at} fails because [\"{key}\" is not allowed]"
                ));
            }
            if let Some(words) = text(key, value) {
                return Some(format!(
                    "\"containers\" at position {at} fails because [child \"{key}\" fails because [{words}]]"
                ));
            }
        }
    }
    const KNOWN: [&str; 8] = [
        "serviceName",
        "configMode",
        "cookie",
        "predicate",
        "port",
        "containers",
        "createdAt",
        "updatedAt",
    ];
    item.keys()
        .find(|key| !KNOWN.contains(&key.as_str()))
        .map(|key| format!("{key} is not allowed"))
}

/// A value as a template shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// The template, with its four blanks, its entities and without a final newline.
fn render(services: &[Item]) -> String {
    let value = |item: &Item, key: &str| escaped(&item.get(key).map(shown).unwrap_or_default());
    let mut text = TOP.to_owned();
    for item in services {
        let name = value(item, "serviceName");
        if let Some(rule) = rule(item) {
            text.push_str(&format!("\n    {rule}\n    "));
        }
        text.push_str(&format!("use_backend {name} if {name}\n    "));
    }
    text.push_str("\n\n# Define backends\n");
    for item in services {
        let name = value(item, "serviceName");
        text.push_str(&format!(
            "\nbackend {name}\n    mode http\n    balance roundrobin\n    option forwardfor\n    "
        ));
        let cookie = value(item, "cookie");
        let mut of_server = String::new();
        if !cookie.is_empty() {
            text.push_str(&format!("cookie {cookie} prefix nocache\n    "));
            of_server = format!("cookie {cookie}");
        }
        for one in item
            .get("containers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let part = |key: &str| escaped(&one.get(key).map(shown).unwrap_or_default());
            text.push_str(&format!(
                "\n    server {} {}:{} check {of_server}\n    ",
                part("id"),
                part("ip"),
                value(item, "port")
            ));
        }
    }
    text
}

/// The `acl` line of a service; none for a mode that the template does not know.
fn rule(item: &Item) -> Option<String> {
    let name = escaped(&item.get("serviceName").map(shown).unwrap_or_default());
    let predicate = escaped(&item.get("predicate").map(shown).unwrap_or_default());
    match item.get("configMode").and_then(Value::as_str)? {
        "host" => Some(format!("acl {name} hdr(host) -i {predicate}")),
        "path" => Some(format!("acl {name} url_beg /{predicate}")),
        _ => None,
    }
}

/// The template engine's autoescape: exactly these five.
fn escaped(text: &str) -> String {
    let mut all = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => all.push_str("&amp;"),
            '<' => all.push_str("&lt;"),
            '>' => all.push_str("&gt;"),
            '"' => all.push_str("&quot;"),
            '\'' => all.push_str("&#39;"),
            other => all.push(other),
        }
    }
    all
}
