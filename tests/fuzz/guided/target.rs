//! One target of `../readers.rs`: the one that COSMONAUT_FUZZ_TARGET names.
#![no_main]

#[path = "../readers.rs"]
mod readers;

use std::sync::LazyLock;

static TARGET: LazyLock<&readers::Target> = LazyLock::new(|| {
    let name = std::env::var("COSMONAUT_FUZZ_TARGET").expect("COSMONAUT_FUZZ_TARGET names a target");
    readers::TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of that name")
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));
