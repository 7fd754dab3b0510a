//! The agent's counts of path quality against what was done to the path, and against fping.
//! Needs root.

use std::time::Duration;

use haidang_tests::accuracy::{self, CASES, Row};

/// Few enough for a test of every change; the recorded run sends ten times as many.
const PACKETS: u32 = 300;
const SPACING: Duration = Duration::from_millis(50);
/// Of four standard errors, one test in 16,000 exceeds them by chance; the dice of the relay are
/// the same in each run, but not the order in which the paths throw them.
const STANDARD_ERRORS: f64 = 4.0;
/// What two cores under sixteen probers and a relay may add to a round trip.
const MACHINE: Duration = Duration::from_millis(10);
/// Half of a histogram's bucket on either side.
const BUCKET_RATIO: f64 = 1.0 / 16.0;

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_sees_loss_delay_and_variation_as_they_are_and_as_fping_does() {
    let rows = accuracy::measure(PACKETS, SPACING).await.expect("measured");
    println!("{}", accuracy::table(&rows));
    assert_eq!(rows.len(), CASES.len());
    for row in &rows {
        losses_are_true(row);
        if row.case.is_late() {
            let Row { ours, fping, .. } = row;
            assert_eq!((ours.late, ours.lost), (ours.sent, 0), "late is not lost");
            assert_eq!(fping.lost, fping.sent, "which fping cannot tell apart");
        } else {
            times_are_true(row);
        }
    }
}

#[track_caller]
fn losses_are_true(row: &Row) {
    let Row { case, ours, .. } = row;
    let name = case.name;
    assert!(ours.sent >= PACKETS, "{name}: {} packets are certain", ours.sent);
    let error = STANDARD_ERRORS * case.loss_error(ours.sent) + 1.0 / f64::from(ours.sent);
    let (seen, dropped) = (ours.loss_ratio(), ours.dropped_ratio);
    assert!((seen - case.loss_ratio()).abs() <= error, "{name}: {seen} of {}", case.loss_ratio());
    // The relay also carried the warm-up and the last packets, whose fate is not certain.
    let uncounted = 8.0 / f64::from(ours.sent);
    assert!((seen - dropped).abs() <= uncounted, "{name}: {seen} of {dropped} dropped");
}

#[track_caller]
fn times_are_true(row: &Row) {
    let Row { case, ours, fping } = row;
    let near = |what: &str, seen: Option<Duration>, truth: Duration, slack: Duration| {
        let seen = seen.expect("something was answered");
        let slack = slack + truth.mul_f64(BUCKET_RATIO);
        assert!(
            seen + slack >= truth && seen <= truth + slack,
            "{}: {what} {seen:?} of {truth:?}",
            case.name
        );
    };
    near("median", ours.rtt_median, case.delay(), MACHINE);
    near("p95", ours.rtt_p95, case.delay_p95(), 2 * MACHINE);
    near("PDV", ours.pdv, case.pdv(), 2 * MACHINE);
    near("IPDV", ours.ipdv_mean, case.ipdv_mean(), MACHINE);
    near("median of fping", ours.rtt_median, fping.rtt_median.expect("answered"), MACHINE);
}
