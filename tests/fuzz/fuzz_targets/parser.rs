//! One program for every parser of outside bytes: `HAIDANG_PARSER` names the one. The list of them
//! is `haidang_tests::parsers::all`; `haidang-fuzz` builds this program and runs it for each.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let wanted = std::env::var("HAIDANG_PARSER").unwrap_or_default();
    let all = haidang_tests::parsers::all();
    let names = || all.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(" ");
    let found = all.iter().find(|(name, _)| *name == wanted);
    found.unwrap_or_else(|| panic!("set HAIDANG_PARSER to one of: {}", names())).1
});

fuzz_target!(|bytes: &[u8]| PARSER(bytes));
