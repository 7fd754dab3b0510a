//! Every parser of outside bytes over its committed corpus and mutations of it: what the fuzz
//! targets do for minutes on nightly, done for a moment with every toolchain. A crash that fuzzing
//! finds is mended and its input committed to the corpus, so that it is replayed here for ever.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use haidang_tests::binaries::repository;
use haidang_tests::parsers::{Mutations, all, corpus};

/// Mutations of all seeds of one parser together.
const MUTATIONS: usize = 1_500;
/// One input, in a debug build on a busy machine. Real ones take microseconds; a quadratic parser
/// takes minutes.
const INPUT_TIME_MAX: Duration = Duration::from_secs(20);

#[test]
fn no_seed_and_no_mutation_of_one_makes_a_parser_panic_or_hang() {
    for (name, parse) in all() {
        let seeds = corpus(name).unwrap_or_else(|error| panic!("{error:#}"));
        let each = MUTATIONS.div_ceil(seeds.len());
        for (file, seed) in &seeds {
            timed(name, file, || parse(seed));
            for (number, input) in Mutations::of(seed, 0).take(each).enumerate() {
                timed(name, &format!("mutation {number} of {file}"), || parse(&input));
            }
        }
    }
}

#[track_caller]
fn timed(parser: &str, input: &str, parse: impl Fn() + std::panic::UnwindSafe) {
    let started = Instant::now();
    let outcome = std::panic::catch_unwind(parse);
    assert!(outcome.is_ok(), "{parser} panicked over {input}");
    let took = started.elapsed();
    assert!(took < INPUT_TIME_MAX, "{parser} took {took:?} over {input}");
}

#[test]
fn each_corpus_belongs_to_a_parser_and_all_of_them_stay_small() {
    const BYTES_MAX: usize = 1 << 20;
    let names: Vec<_> = all().into_iter().map(|(name, _)| name.to_owned()).collect();
    let unique: BTreeSet<_> = names.iter().cloned().collect();
    assert_eq!(names.len(), unique.len(), "a name stands twice");
    let folders = fs::read_dir(repository("tests/fuzz/corpus")).expect("it is there");
    let folders: BTreeSet<_> = folders
        .map(|folder| folder.expect("readable").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders, unique);
    let bytes: usize = names
        .iter()
        .flat_map(|name| corpus(name).expect("seeds"))
        .map(|(_, seed)| seed.len())
        .sum();
    assert!(bytes < BYTES_MAX, "{bytes} bytes of corpus");
}
