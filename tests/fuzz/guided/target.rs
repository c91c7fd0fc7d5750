//! One target of `../readers.rs`: the one that has the binary's name.
#![no_main]

#[path = "../readers.rs"]
mod readers;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let target = readers::TARGETS
        .iter()
        .find(|target| target.name == env!("CARGO_BIN_NAME"))
        .expect("a target of the binary's name");
    (target.run)(bytes);
});
