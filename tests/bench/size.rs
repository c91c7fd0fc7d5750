//! What is installed: binaries and packages.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use crate::table::{Row, Unit};

/// Most packages in the tree, our own included.
const PACKAGES_MAX: f64 = 50.0;

/// `binaries` are `name=path`, as `scripts/bench` built them.
pub fn rows(cosmonaut: &Path, binaries: &[String]) -> Vec<Row> {
    let mut rows = vec![binary("dynamic", cosmonaut, 2.5)];
    for given in binaries {
        let (name, path) = given.split_once('=').unwrap_or((given, ""));
        let budget = if name == "static" { 4.0 } else { 1.0 };
        rows.push(binary(name, Path::new(path), budget));
    }
    let packages = packages();
    let twice = packages.values().filter(|versions| **versions > 1).count() as f64;
    let all = packages.values().sum::<usize>() as f64;
    let row = |id: &str, what: &str, value: f64| Row::new(id, what, Unit::Count, vec![value]);
    rows.push(row("deps", "packages in the tree", all).budget(PACKAGES_MAX));
    rows.push(
        row(
            "deps-twice",
            "packages that are there in two versions",
            twice,
        )
        .budget(0.0),
    );
    let of_async = ["tokio", "async-std", "smol", "futures-executor"]
        .iter()
        .filter(|name| packages.contains_key(**name))
        .count();
    rows.push(row("deps-async", "async runtimes", of_async as f64).budget(0.0));
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

/// Packages of the program by name, with how many versions of each there are.
fn packages() -> BTreeMap<String, usize> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}",
    ]);
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo");
    assert!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: std::collections::BTreeSet<String> = text
        .lines()
        .map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    let mut packages = BTreeMap::new();
    for line in lines {
        let name = line.split(' ').next().unwrap_or_default();
        *packages.entry(name.to_owned()).or_default() += 1;
    }
    packages
}
