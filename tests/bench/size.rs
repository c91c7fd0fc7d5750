//! How large the binaries are.

use std::path::Path;

use crate::table::{Row, Unit};

/// `binaries` are `name=path`, as `scripts/bench` built them.
pub fn rows(cosmonaut: &Path, binaries: &[String]) -> Vec<Row> {
    let mut rows = vec![binary("dynamic", cosmonaut, 2.5)];
    for given in binaries {
        let (name, path) = given.split_once('=').unwrap_or((given, ""));
        let budget = if name == "static" { 4.0 } else { 1.0 };
        rows.push(binary(name, Path::new(path), budget));
    }
    rows
}

fn binary(name: &str, path: &Path, budget: f64) -> Row {
    let bytes = std::fs::metadata(path)
        .map(|file| file.len())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    Row::new(
        &format!("size-{name}"),
        &format!("binary, stripped, {name}"),
        Unit::MB,
        vec![bytes as f64 / 1e6],
    )
    .budget(budget)
}
