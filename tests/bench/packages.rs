//! What the program is made of besides our own code: packages, their licences, what is known against them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::table::{Row, Unit};

/// Most packages in the tree, our own included.
const PACKAGES_MAX: f64 = 50.0;
/// Licences that ask no more of who passes the program on than to name them.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    // Of the web's certificate authorities, as data.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

pub fn rows() -> Vec<Row> {
    let packages = packages();
    let mut versions: BTreeMap<&str, usize> = BTreeMap::new();
    for package in &packages {
        *versions.entry(&package.name).or_default() += 1;
    }
    let twice = versions.values().filter(|versions| **versions > 1).count();
    let of_async = ["tokio", "async-std", "smol", "futures-executor"]
        .iter()
        .filter(|name| versions.contains_key(**name))
        .count();
    let strange: Vec<&Package> = packages
        .iter()
        .filter(|package| !is_allowed(&package.licence))
        .collect();
    for package in &strange {
        eprintln!("{} has the licence '{}'", package.name, package.licence);
    }
    let row =
        |id: &str, what: &str, value: usize| Row::new(id, what, Unit::Count, vec![value as f64]);
    let mut rows = vec![
        row("deps", "packages in the tree", packages.len()).budget(PACKAGES_MAX),
        row(
            "deps-twice",
            "packages that are there in two versions",
            twice,
        )
        .budget(0.0),
        row("deps-async", "async runtimes", of_async).budget(0.0),
        row(
            "deps-licences",
            "packages whose licence asks for more than a notice",
            strange.len(),
        )
        .budget(0.0),
    ];
    match advisories() {
        Ok(known) => {
            let what = "packages with a known vulnerability";
            rows.push(row("deps-advisories", what, known).budget(0.0));
        }
        Err(why) => eprintln!("advisories are not looked at: {why}"),
    }
    rows
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// Packages of the program.
fn packages() -> BTreeSet<Package> {
    let mut cargo = Command::new("cargo");
    cargo.args([
        "tree",
        "--locked",
        "--edges",
        "normal",
        "--prefix",
        "none",
        "--no-dedupe",
        "--format",
        "{p}|{l}",
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
    let package = |line: &str| {
        let (package, licence) = line.split_once('|')?;
        let mut words = package.split(' ');
        Some(Package {
            name: words.next()?.to_owned(),
            version: words.next()?.to_owned(),
            licence: licence.to_owned(),
        })
    };
    text.lines().filter_map(package).collect()
}

/// Whether an SPDX expression lets us choose licences of the list alone. Of brackets it knows those around
/// alternatives, which is all that packages use.
fn is_allowed(expression: &str) -> bool {
    let parts = expression.replace('/', " OR ");
    let mut parts = parts.split(" AND ");
    parts.all(|part| {
        let part = part.trim_start_matches('(').trim_end_matches(')');
        part.split(" OR ")
            .any(|licence| LICENCES.contains(&licence.trim()))
    })
}

/// How many vulnerabilities `cargo audit` knows of; why it cannot be asked.
fn advisories() -> Result<usize, String> {
    let output = Command::new("cargo")
        .args(["audit", "--json"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .map_err(|e| format!("cargo: {e}"))?;
    let found: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let count = found.and_then(|found| found["vulnerabilities"]["count"].as_u64());
    let words = String::from_utf8_lossy(&output.stderr);
    let last = words.lines().rfind(|line| !line.trim().is_empty());
    count
        .and_then(|count| usize::try_from(count).ok())
        .ok_or_else(|| {
            format!(
                "cargo audit has no answer here: {}",
                last.unwrap_or("no word")
            )
        })
}
