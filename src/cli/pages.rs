//! Compares the man page and the README with the option table.
//!
//! The pages hold the generated blocks word for word: on a failure the test prints the block
//! to paste.
