//! Crashes and failing stores: nothing that was acknowledged is lost, and nothing is applied twice.

use haidang_tests::kills;

/// The smoke of `haidang-faults kills --runs 1000`.
#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_lose_no_acknowledged_record_and_apply_none_twice() {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let outcome = kills::run(10, seed, |_| ()).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{outcome:?}");
    assert!(outcome.courier_records > 0 && outcome.agent_records > 0, "{outcome:?}");
}
