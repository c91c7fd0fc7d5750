//! Tells the linker how to lay out the released program: see `release.ld` beside this file.
//!
//! Only what the linker at hand is seen to take: a program of one line is linked with it first. So a build with
//! another linker, or for another processor, works as it would without this file, and is somewhat larger.

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};

/// Functions with the same bytes are kept once: lld does it, GNU ld cannot. Nothing compares addresses of functions.
const FOLDING: &str = "-Wl,--icf=all";
/// No table of contents of what the script leaves out.
const NO_TABLE: &str = "-Wl,--no-eh-frame-hdr";
/// GCC's unwinder, of which a panic asks for the backtrace, from the archive: as a shared library it is one more that
/// each process maps (0.1 MB).
const UNWINDER: &str = "static:-bundle=gcc_eh";
/// Relocations in a packed form (0.1 MB less). The C library applies them from glibc 2.36 on: where it is inside, and
/// where a program with them is seen to run. What is built here then needs as much where it is installed; on an older
/// one it ends at once, with `GLIBC_ABI_DT_RELR not found`. So it is left out where we build for another machine.
const PACKED: &str = "-Wl,-z,pack-relative-relocs";

fn main() {
    println!("cargo::rerun-if-changed=scripts/build.rs");
    println!("cargo::rerun-if-changed=scripts/release.ld");
    // With debug information it is for debuggers and profilers, which want the unwind tables.
    if !is("PROFILE", "release") || !is("DEBUG", "false") || !is("CARGO_CFG_TARGET_OS", "linux") {
        return;
    }
    let script = Path::new(&variable("CARGO_MANIFEST_DIR")).join("scripts/release.ld");
    let layout = [
        format!("-Clink-arg=-Wl,-T,{}", script.display()),
        format!("-Clink-arg={NO_TABLE}"),
    ];
    let folding = [format!("-Clink-arg={FOLDING}")];
    let unwinder = [format!("-l{UNWINDER}")];
    if links(&layout) {
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{}", script.display());
        println!("cargo::rustc-link-arg-bins={NO_TABLE}");
    }
    if links(&folding) {
        println!("cargo::rustc-link-arg-bins={FOLDING}");
    }
    let features = env::var("CARGO_CFG_TARGET_FEATURE").unwrap_or_default();
    let packed = [format!("-Clink-arg={PACKED}")];
    let inside = features.split(',').any(|feature| feature == "crt-static");
    if (inside || runs_here()) && links(&packed) {
        println!("cargo::rustc-link-arg-bins={PACKED}");
    }
    if is("CARGO_CFG_TARGET_ENV", "gnu") && links(&unwinder) {
        println!("cargo::rustc-link-lib={UNWINDER}");
    }
}

fn is(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|found| found == value)
}

fn variable(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

fn runs_here() -> bool {
    variable("HOST") == variable("TARGET")
}

/// Whether a program can be linked with these options, and runs where it can run here.
fn links(options: &[String]) -> bool {
    let source = Path::new(&variable("OUT_DIR")).join("probe.rs");
    let program = source.with_extension("");
    std::fs::write(&source, "fn main() {}\n").expect("cargo's folder for us can be written");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.arg("--target").arg(variable("TARGET"));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        rustc.arg(option);
    }
    let given = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    rustc.args(given.split('\x1f').filter(|flag| !flag.is_empty()));
    rustc.arg("-Cpanic=abort").args(options);
    rustc.arg("-o").arg(&program).arg(&source);
    let well = |mut command: Command| {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    well(rustc) && (!runs_here() || well(Command::new(&program)))
}
