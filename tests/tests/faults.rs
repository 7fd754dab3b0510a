//! Crashes and failing stores: nothing that was acknowledged is lost, and nothing is applied twice.

use std::time::Duration;

use haidang_tests::binaries::program;
use haidang_tests::collector::Tempo;
use haidang_tests::store_fault::{self, StoreFault};
use haidang_tests::{clocks, herd, kills, power_cut, pressure};
use tokio::sync::RwLock;

/// Crowds that mostly wait share the machine; who needs all of it has it alone.
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

/// The smoke of `haidang-faults store`.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_shows_changes_no_state_loses_no_record_and_heals_by_itself() {
    let _shared = MACHINE.read().await;
    let lasting = Duration::from_secs(2);
    let faults = StoreFault::ALL.into_iter().map(|fault| (fault, lasting)).collect();
    let plan = store_fault::Plan { faults, agents: 60, tempo: Tempo::Brisk, on_duty: false };
    let outcome = store_fault::run(plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{outcome:#?}");
}

/// The smoke of `haidang-faults herd`.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_comes_back_within_its_windows_after_a_restart_and_nobody_is_called() {
    let _shared = MACHINE.read().await;
    let plan =
        herd::Plan { agents: 150, tempo: Tempo::Brisk, away: Duration::ZERO, on_duty: false };
    let outcome = herd::run(plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{outcome:?}");
}

/// The smoke of `haidang-faults pressure`.
#[tokio::test(flavor = "multi_thread")]
async fn no_pressure_of_data_changes_a_state_or_keeps_a_report_or_a_scrape() {
    let _alone = MACHINE.write().await;
    let plan = pressure::Plan {
        agents: 40,
        tempo: Tempo::Brisk,
        // Longer than a reader that never reads is borne.
        lasting: Duration::from_secs(15),
        backlog_agents: 40,
        backlog_days: 1,
        // Beyond the places that there are, answers to those who never read cost a debug build too much.
        readers: 60,
        // A debug build, beside other tests: an interval of the shipped Prometheus longer.
        scrape_within: Duration::from_secs(9),
        on_duty: false,
    };
    let outcome = pressure::run(plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{}", outcome.section().expect("a text"));
}

/// The smoke of `haidang-faults clocks`.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_clock_calls_nobody_down_is_told_and_heals_by_itself() {
    let _shared = MACHINE.read().await;
    let outcome = clocks::run(40, Tempo::Brisk, &clocks::WORST).await;
    let outcome = outcome.unwrap_or_else(|error| panic!("{error:#}"));
    println!("{outcome:?}");
}
