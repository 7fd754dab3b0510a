use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use haidang_proto::model::agency::AgentId;
use haidang_proto::model::posture::CHECKS;
use haidang_proto::model::refusal::Refusal;

use super::*;
use crate::fleet::{Fleet, FleetConfig, Listener, Now};
use crate::roster::{Loopback, Source, parse};
use crate::snapshot::{AgencyState, QualityView, Snapshot};

fn city() -> Snapshot {
    let path = format!("{}/../deploy/rosters/hanoi-2020.csv", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("the roster is shipped");
    let source = Source { name: "hanoi-2020.csv", bytes: &bytes };
    let roster = Arc::new(parse(source, None, Loopback::Refused).expect("it is sound"));
    let config = FleetConfig {
        report_interval: Duration::from_secs(10),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    };
    let now = Now {
        mono: Duration::from_secs(100),
        wall: UNIX_EPOCH + Duration::from_millis(1_790_000_000_005),
    };
    let mut fleet = Fleet::new(roster, config, now);
    fleet.tick(now);
    fleet.snapshot(now)
}

fn own() -> CollectorMetrics {
    CollectorMetrics::new("0.1.0", UNIX_EPOCH).expect("the table is sound")
}

fn text(snapshot: Snapshot, series_max: usize) -> String {
    let chunks = Exposition::within(Arc::new(snapshot), &own(), series_max);
    String::from_utf8(chunks.flatten().collect()).expect("it is text")
}

/// Series by name, without comments.
fn counts(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().expect("a name");
        *counts.entry(name).or_insert(0) += 1;
    }
    counts
}

#[test]
fn every_agency_has_its_seven_states_from_the_start() {
    let text = text(city(), usize::MAX);
    let counts = counts(&text);
    assert_eq!(counts["haidang_agency_state"], 631 * 7);
    assert_eq!(text.matches("state=\"not_enrolled\"} 1\n").count(), 631);
    assert_eq!(counts["haidang_agency_finding"], 631 * 5);
    assert!(!counts.contains_key("haidang_agency_partial_ratio"), "nobody was heard");
    assert_eq!(counts["haidang_agency_suppressed"], 631 * 5);
    assert_eq!(counts["haidang_agency_flag"], 631 * 8);
    assert_eq!(counts["haidang_agency_posture_checks"], 631 * 2 * CHECKS);
    assert_eq!(counts["haidang_agency_posture_machines"], 631 * 3);
    assert_eq!(counts["haidang_agency_posture_findings"], 631 * 4);
    assert_eq!(counts["haidang_agency_posture_score_ratio"], 631 * 2);
    assert!(!counts.contains_key("haidang_parent_posture_checks"), "the agencies have them");
    assert!(!counts.contains_key("haidang_agency_rtt_seconds"), "nothing was measured");
    assert!(text.contains("name=\"UBND Quận Ba Đình\""));
    assert!(text.contains("haidang_snapshot_timestamp_seconds 1790000000.005\n"));
    let own_series = text.split_once("\nhaidang_collector_series ").expect("it is there").1;
    let said: usize = own_series.lines().next().expect("a value").parse().expect("a number");
    let fleet = counts.iter().filter(|(name, _)| {
        !name.starts_with("haidang_collector_")
            && !name.starts_with("haidang_build")
            && !name.starts_with("process")
    });
    assert_eq!(said, fleet.map(|(_, count)| count).sum::<usize>() + 3);
}

#[test]
fn every_family_is_in_the_table_and_stands_once() {
    let text = text(city(), usize::MAX);
    let mut written = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a kind");
        let family = FAMILIES.iter().find(|family| family.name == name).expect(name);
        assert_eq!(family.kind.as_str(), kind, "{name}");
        written.push(name);
    }
    written.sort_unstable();
    let mut expected: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
    // It has no series before a certificate is in use.
    expected.retain(|name| *name != "haidang_collector_certificate_expiry_timestamp_seconds");
    expected.sort_unstable();
    assert_eq!(written, expected);
}

#[test]
fn measurements_and_causes_show_while_they_hold() {
    let mut snapshot = city();
    let view = &mut snapshot.agencies[0];
    view.state = AgencyState::from_labels("disconnected", "no_route").expect("a state");
    (view.partial_ratio, view.agents_fresh) = (Some(0.5), 2);
    view.quality = Some(QualityView {
        rtt_p50: Duration::from_micros(1_500),
        rtt_p95: Duration::from_millis(2),
        loss_ratio: 0.25,
        jitter: Duration::ZERO,
    });
    let text = text(snapshot, usize::MAX);
    for line in [
        "haidang_agency_disconnect_cause{agency=\"01-van-phong-ubnd\",cause=\"no_route\"} 1\n",
        "haidang_agency_rtt_seconds{agency=\"01-van-phong-ubnd\",stat=\"p50\"} 0.0015\n",
        "haidang_agency_loss_ratio{agency=\"01-van-phong-ubnd\"} 0.25\n",
        "haidang_agency_partial_ratio{agency=\"01-van-phong-ubnd\"} 0.5\n",
        "haidang_agency_jitter_seconds{agency=\"01-van-phong-ubnd\"} 0.0\n",
    ] {
        assert!(text.contains(line), "{line}");
    }
}

#[test]
fn the_budget_cuts_whole_families_but_never_a_state() {
    let text = text(city(), 8_000);
    let counts = counts(&text);
    assert_eq!(counts["haidang_agency_state"], 631 * 7);
    assert!(!counts.contains_key("haidang_agency_flag"));
    assert!(text.contains("haidang_collector_series_budget 8000\n"));
    let cut = text.split_once("\nhaidang_collector_families_cut ").expect("it is there").1;
    assert!(!cut.starts_with("0\n"), "{cut:.20}");
}

#[test]
fn a_label_is_escaped() {
    let family = FAMILIES[0];
    let mut text = text::Text::default();
    text.series(&family).label("name", "a \"b\" \\ c\nd").truth(true);
    let expected = "haidang_agency_info{name=\"a \\\"b\\\" \\\\ c\\nd\"} 1\n";
    assert_eq!(String::from_utf8(text.chunk).expect("text"), expected);
}

#[test]
fn chunks_stay_small() {
    let largest = Exposition::new(Arc::new(city()), &own()).map(|chunk| chunk.len()).max();
    assert!(largest.is_some_and(|bytes| bytes < 80 << 10), "{largest:?}");
}

#[test]
fn every_reason_to_refuse_is_counted_from_zero() {
    let metrics = own();
    metrics.rejected(Refusal::Malformed);
    metrics.report_accepted(Listener::Dedicated, Duration::from_micros(80));
    let text = metrics.text();
    for refusal in Refusal::ALL {
        let count = u64::from(*refusal == Refusal::Malformed);
        assert_eq!(metrics.rejections(*refusal), count);
        let line = format!("{{reason=\"{}\"}} {count}\n", refusal.as_str());
        assert!(text.contains(&line), "{line}");
    }
    assert!(text.contains("haidang_collector_ingest_seconds_count 1\n"));
}

/// As many communes under two parents, of which every tenth has a machine that never sent any
/// posture.
fn nation(agencies: u32) -> Snapshot {
    let mut rows = String::from("id,name,kind,parent,gso_code,id_code,lat,lon\n");
    for row in 0..agencies {
        let parent = if row % 2 == 0 { "01" } else { "01-00000" };
        rows.push_str(&format!("01-{row:05},Xã {row},xa,{parent},,,,\n"));
    }
    let source = Source { name: "roster.csv", bytes: rows.as_bytes() };
    let roster = Arc::new(parse(source, None, Loopback::Refused).expect("it is sound"));
    let config = FleetConfig {
        report_interval: Duration::from_secs(10),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    };
    let now = Now { mono: Duration::from_secs(100), wall: UNIX_EPOCH + Duration::from_secs(9) };
    let mut fleet = Fleet::new(Arc::clone(&roster), config, now);
    for (number, entry) in roster.agencies().iter().enumerate().step_by(10) {
        let agent = AgentId(uuid::Uuid::from_u128(number as u128));
        fleet.enrolled(agent, entry.id.clone(), now.wall);
    }
    fleet.tick(now);
    fleet.snapshot(now)
}

#[test]
fn beyond_a_thousand_agencies_checks_are_added_up_by_parent_and_critical_ones_stay() {
    let text = text(nation(1_010), usize::MAX);
    let counts = counts(&text);
    assert!(!counts.contains_key("haidang_agency_posture_checks"));
    assert_eq!(counts["haidang_parent_posture_checks"], 2 * 2 * CHECKS);
    assert!(!counts.contains_key("haidang_agency_posture_findings"));
    assert_eq!(counts["haidang_agency_posture_critical_machines"], 1_010 * 6);
    assert_eq!(counts["haidang_agency_policy_laxer"], 1_010);
    let line = "haidang_parent_posture_checks{parent=\"01\",check=\"os_supported\",result=\"unknown\"} 101\n";
    assert!(text.contains(line), "every tenth commune is under the first parent");
    assert!(text.contains("haidang_collector_families_cut 0\n"));
}

#[test]
fn machines_have_series_only_where_they_are_switched_on() {
    let snapshot = Arc::new(nation(1_010));
    let chunks = Exposition::new(Arc::clone(&snapshot), &own()).with_machines();
    let with = String::from_utf8(chunks.flatten().collect()).expect("it is text");
    assert_eq!(counts(&with)["haidang_agent_posture_score_ratio"], 101);
    let without = text((*snapshot).clone(), usize::MAX);
    assert!(!counts(&without).contains_key("haidang_agent_posture_score_ratio"));
    let series = without.lines().filter(|line| line.starts_with("haidang_agency_")).count();
    let chunks = Exposition::within(snapshot, &own(), series).with_machines();
    let cut = String::from_utf8(chunks.flatten().collect()).expect("it is text");
    assert!(!counts(&cut).contains_key("haidang_agent_posture_score_ratio"));
}
