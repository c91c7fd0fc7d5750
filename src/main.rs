//! Runs the command line, prints an error with its hint, returns the exit code; nothing else.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cosmonaut::run(std::env::args_os().skip(1)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let hint = failure
                .hint
                .map(|hint| format!("cosmonaut: hint: {hint}\n"))
                .unwrap_or_default();
            // Nobody is left to tell when stderr is gone.
            let _ = write!(
                std::io::stderr(),
                "cosmonaut: error: {}\n{hint}",
                failure.message
            );
            ExitCode::from(failure.exit_code)
        }
    }
}
