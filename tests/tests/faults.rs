//! Crashes and failing stores: nothing that was acknowledged is lost, and nothing is applied twice.

use haidang_tests::binaries::program;
use haidang_tests::{kills, power_cut};
use tokio::sync::RwLock;

/// Who needs the whole machine has it alone.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// The smoke of `haidang-faults kills --runs 1000`.
#[tokio::test(flavor = "multi_thread")]
async fn kills_at_random_lose_no_acknowledged_record_and_apply_none_twice() {
    let _alone = MACHINE.write().await;
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let outcome = kills::run(10, seed, |_| ()).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{outcome:?}");
    assert!(outcome.courier_records > 0 && outcome.agent_records > 0, "{outcome:?}");
}

/// The smoke of `haidang-faults power-cut`.
#[test]
fn a_power_cut_after_any_operation_of_the_store_loses_no_acknowledged_record() {
    let _alone = MACHINE.blocking_write();
    let program = program("haidang-faults").unwrap_or_else(|error| panic!("{error:#}"));
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let plan = power_cut::Plan { program, deliveries: 4, random_losses: 1, seed };
    let outcome = power_cut::run(plan).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    println!("{outcome:?}");
}
