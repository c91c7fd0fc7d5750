//! The deterministic fuzzer: our fixtures, mutated by a seeded generator, through every reader of outside bytes
//! (`readers.rs`). What once made one fail lies in `found/` and comes first in every run.
//!
//! COSMONAUT_FUZZ_SECONDS  for all targets together, 20 by default; scripts/fuzz runs it for as long as one likes
//! COSMONAUT_FUZZ_SEED     another generator than that of every day
//! COSMONAUT_FUZZ_SEEDS    a folder: the seeds are written there, and nothing is run

mod mutate;
mod readers;

use std::cell::Cell;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::{Duration, Instant};

use mutate::Mutator;
use readers::{TARGETS, Target};

/// For all targets together.
const SECONDS: f64 = 20.0;
/// Fixtures longer than this are left to the readers' own tests: mutants of them would cost too much time.
const SEED_BYTES_MAX: usize = 48 << 10;
/// One input may take this long in a build without optimisation; what takes longer grows faster than its input.
const INPUT_MAX: Duration = Duration::from_secs(2);
/// Configs in one question to HAProxy.
const CONFIGS_CHECKED: usize = 12;

fn seconds() -> f64 {
    let said = std::env::var("COSMONAUT_FUZZ_SECONDS").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(SECONDS)
}

fn seed_of_run() -> u64 {
    let said = std::env::var("COSMONAUT_FUZZ_SEED").ok();
    said.and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, into);
        } else {
            into.push(path);
        }
    }
}

/// The seeds of a target, in one order.
fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut paths = Vec::new();
    files(&top.join("data"), &mut paths);
    files(&top.join("fuzz/seeds"), &mut paths);
    paths.sort();
    let mut all: Vec<Vec<u8>> = paths
        .iter()
        .filter(|path| {
            let name = path.to_string_lossy();
            target.seeds.iter().any(|part| name.contains(part))
        })
        .filter_map(|path| fs::read(path).ok())
        .map(|bytes| {
            if ["http", "docker"].contains(&target.name) {
                bytes
            } else {
                without_head(bytes)
            }
        })
        .filter(|bytes| bytes.len() <= SEED_BYTES_MAX)
        .collect();
    all.dedup();
    assert!(!all.is_empty(), "no fixture for {}", target.name);
    all
}

/// The body of a captured response; other files as they are.
fn without_head(bytes: Vec<u8>) -> Vec<u8> {
    use cosmonaut::http::{Decoder, Item, Limits};
    if !bytes.starts_with(b"HTTP/1.") {
        return bytes;
    }
    let (mut decoder, mut rest, mut body) = (
        Decoder::new(Limits::default()),
        bytes.as_slice(),
        Vec::new(),
    );
    while let Ok((used, item)) = decoder.decode(rest) {
        match item {
            Item::Data(data) => body.extend_from_slice(data),
            Item::Head(_) => {}
            Item::More | Item::End => break,
        }
        rest = rest.get(used..).unwrap_or_default();
    }
    body
}

fn fails(target: &Target, input: &[u8]) -> Option<String> {
    let began = Instant::now();
    let words = panic::catch_unwind(AssertUnwindSafe(|| (target.run)(input)))
        .err()
        .map(|cause| {
            cause
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned()))
                .unwrap_or_default()
        });
    words
        .or_else(|| (began.elapsed() > INPUT_MAX).then(|| format!("it took {:?}", began.elapsed())))
}

/// The input without what the failure does not need.
fn smaller(target: &Target, input: &[u8]) -> Vec<u8> {
    let mut input = input.to_vec();
    let mut length = input.len() / 2;
    let until = Instant::now() + Duration::from_secs(20);
    while length > 0 && Instant::now() < until {
        let mut at = 0;
        while at < input.len() && Instant::now() < until {
            let mut less = input.clone();
            less.drain(at..(at + length).min(input.len()));
            if fails(target, &less).is_some() {
                input = less;
            } else {
                at += length;
            }
        }
        length /= 2;
    }
    input
}

thread_local! {
    /// Each caught panic would print itself; the one that counts is told at the end.
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

fn quietly() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !QUIET.get() {
                usual(info);
            }
        }));
    });
}

/// Runs one target for its share of the time; a failing input is made small, kept and told.
fn fuzz(name: &str) {
    let target = TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of that name");
    let mut found = Vec::new();
    files(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/found"),
        &mut found,
    );
    found.sort();
    let ours = |path: &&PathBuf| {
        path.file_name()
            .is_some_and(|file| file.to_string_lossy().starts_with(&format!("{name}-")))
    };
    for path in found.iter().filter(ours) {
        if let Some(words) = fails(
            target,
            &fs::read(path).expect("a file that was just listed"),
        ) {
            panic!("{} fails again: {words}", path.display());
        }
    }
    let seeds = seeds(target);
    if let Some(folder) = std::env::var_os("COSMONAUT_FUZZ_SEEDS") {
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(Path::new(&folder).join(format!("{number:03}")), seed).expect("written");
        }
        return;
    }
    quietly();
    QUIET.set(true);
    let mut mutator = Mutator::new(seed_of_run(), &seeds);
    let until = Instant::now() + Duration::from_secs_f64(seconds() / TARGETS.len() as f64);
    let mut runs = 0_u64;
    let mut failure = None;
    let mut plain = seeds.iter();
    while failure.is_none() && (runs < seeds.len() as u64 || Instant::now() < until) {
        let input = plain.next().cloned().unwrap_or_else(|| mutator.mutant());
        runs += 1;
        failure = fails(target, &input).map(|words| (input, words));
    }
    let small = failure.as_ref().map(|(input, _)| smaller(target, input));
    let words = small.as_ref().and_then(|small| fails(target, small));
    QUIET.set(false);
    println!("fuzz {name}: {runs} inputs from {} seeds", seeds.len());
    if let (Some((input, first)), Some(small)) = (failure, small) {
        let file = std::env::temp_dir().join(format!("{name}-{runs}"));
        let _ = fs::write(&file, &small);
        panic!(
            "{name} fails: {}\nafter {runs} inputs; {} bytes, made {}, kept as {}; move it to tests/fuzz/found:\n{}",
            words.unwrap_or(first),
            input.len(),
            small.len(),
            file.display(),
            String::from_utf8_lossy(&small)
        );
    }
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            fuzz(stringify!($name));
        })*

        #[test]
        fn each_target_is_run() {
            let run = [$(stringify!($name)),*];
            assert!(TARGETS.iter().all(|target| run.contains(&target.name)));
        }
    };
}

targets!(http events docker list inspect labels answer config base weave state history process runtime socket options endpoint url time);

/// Whatever containers say of themselves: HAProxy itself accepts what it becomes.
#[test]
fn haproxy_accepts_what_labels_become() {
    let without = std::env::var("COSMONAUT_TEST_WITHOUT").unwrap_or_default();
    if without.split([' ', ',']).any(|one| one == "haproxy") {
        println!("left out: COSMONAUT_TEST_WITHOUT names haproxy");
        return;
    }
    let target = TARGETS
        .iter()
        .find(|target| target.name == "labels")
        .expect("the target");
    let seeds = seeds(target);
    let mut mutator = Mutator::new(seed_of_run(), &seeds);
    let file = std::env::temp_dir().join(format!("csm-fuzz-{}.cfg", std::process::id()));
    let until = Instant::now() + Duration::from_secs_f64(seconds() / TARGETS.len() as f64);
    let mut checked = 0;
    while checked < CONFIGS_CHECKED || Instant::now() < until {
        let input = mutator.mutant();
        let Some(text) = readers::config_of_labels(&input) else {
            continue;
        };
        checked += 1;
        fs::write(&file, &text).expect("written");
        let output = Command::new("haproxy")
            .args(["-c", "-f"])
            .arg(&file)
            .env(
                "PATH",
                "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
            )
            .output()
            .expect("haproxy is installed (COSMONAUT_TEST_WITHOUT=haproxy leaves this out)");
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !words.contains("[WARNING]"),
            "HAProxy says:\n{words}\nto\n{text}\nfrom\n{}",
            String::from_utf8_lossy(&input)
        );
    }
    let _ = fs::remove_file(&file);
    println!("haproxy -c accepted {checked} configs");
}
