//! The benchmarks, shortly: that each measures what it says, on both sides; not how much.

use std::time::Duration;

use haidang_tests::bench::ingest::IngestPlan;
use haidang_tests::bench::{
    Figure, connections, exposition, handshakes, ingest, records, soak, startup,
};

/// Every value was measured, the peer's too, and the table shows them. The runs themselves fail
/// when a count is not as it should be.
#[track_caller]
fn is_measured(figure: &Figure, rows: usize) {
    is_measured_beside(figure, rows, rows);
}

/// The same of a figure in which so many rows have a peer.
#[track_caller]
fn is_measured_beside(figure: &Figure, rows: usize, peers: usize) {
    assert_eq!(figure.rows.len(), rows, "{figure:?}");
    let with_peer = figure.rows.iter().filter(|row| row.peer.is_some());
    assert_eq!(with_peer.count(), peers, "{figure:?}");
    for row in &figure.rows {
        assert!(row.value.is_finite() && row.value >= 0.0, "{row:?}");
        let peer = row.peer.as_ref().map_or(0.0, |(peer, _)| *peer);
        assert!(peer.is_finite() && peer >= 0.0, "{row:?}");
    }
    let section = figure.section("test");
    assert!(section.contains(&format!("| {} | ", figure.rows[0].n)), "{section}");
}

#[test]
fn a_scrape_has_the_same_series_from_both_writers() {
    let figure = exposition::run(&[20, 200], usize::MAX).expect("it measures");
    is_measured(&figure, 6);
    assert!(figure.rows[0].value > 0.0, "a series costs time: {figure:?}");
}

#[test]
fn the_peer_of_a_scrape_is_cut_where_it_is_told_to() {
    let figure = exposition::run(&[20], 100).expect("it measures");
    let (_, note) = figure.rows[0].peer.as_ref().expect("a peer");
    assert!(note.starts_with("100 of "), "{note}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_servers_take_what_was_sent_to_them() {
    let plan = IngestPlan {
        connections: vec![20, 40],
        rate: 200,
        duration: Duration::from_secs(2),
        pushes: 100,
    };
    // Four rows a size, and the growth from the first.
    is_measured_beside(&ingest::run(&plan).await.expect("it measures"), 9, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_held_by_all_three_servers() {
    let figure = connections::run(&[40]).await.expect("it measures");
    is_measured(&figure, 2);
    assert!(figure.rows[0].value > 1.0, "a connection takes memory: {figure:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_are_of_their_kind_with_all_three_servers() {
    is_measured(&handshakes::run(&[300]).await.expect("it measures"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_are_in_both_stores() {
    let figure = records::run(&[4], Duration::from_millis(500)).await.expect("it measures");
    is_measured(&figure, 6);
    for at in [0, 2, 3, 4, 5] {
        assert!(figure.rows[at].value > 0.0, "records were acknowledged: {figure:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_takes_over_every_agent_of_the_store() {
    is_measured(&startup::run(&[50, 500], 2).await.expect("it measures"), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soak_counts_reports_files_and_threads() {
    let section = soak::run(10, 50, Duration::from_secs(3), "test").await.expect("it soaks");
    assert!(
        section.contains("| reports answered, and counted by the collector | 150 |"),
        "{section}"
    );
}
