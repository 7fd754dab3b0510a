//! The whole path: a real cut, a real agent and collector, real Prometheus and Alertmanager on
//! the shipped rules, and a webhook that is told. Needs root and Debian's prometheus packages.

use std::net::Ipv4Addr;
use std::time::Duration;

use haidang_tests::alert_path::{AlertPath, CUT_AGENCY, Known, Witness};
use haidang_tests::collector::{Tempo, free_port};
use haidang_tests::fault::Cut;
use haidang_tests::monitoring::{Monitoring, MonitoringPlan};
use haidang_tests::prefixes;
use haidang_tests::webhook::Webhook;

/// Generous: the measured time is a figure.
const DEADLINE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_agency_is_named_to_the_webhook_and_resolved_when_it_heals() {
    let path = AlertPath::build(Tempo::Short, Witness::Agent).await;
    let mut path = path.unwrap_or_else(|error| panic!("{error:#}"));
    let name = prefixes::name_of(CUT_AGENCY).expect("it is in the roster");
    // The authority of a district or commune, not the place, is what is cut off.
    let name = format!("UBND {name}");

    path.connected(DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}"));
    let Known { collector, webhook: told, alert } =
        path.cut(Cut::Core, DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}"));
    assert_eq!(alert.labels["name"], name);
    assert_eq!(alert.labels["cause"], "core_unreachable");
    assert_eq!(alert.labels["severity"], "critical");
    let summary = &alert.annotations["summary_vi"];
    assert!(summary.starts_with(&name) && summary.contains("mất kết nối"), "{summary}");
    assert!(summary.contains("không tới được mạng trục"), "{summary}");

    let (_, resolved) = path.heal(DEADLINE).await.unwrap_or_else(|error| panic!("{error:#}"));
    println!("cut → collector {:.1} s", collector.as_secs_f64());
    println!("cut → webhook {:.1} s", told.as_secs_f64());
    println!("heal → resolved {:.1} s", resolved.as_secs_f64());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_told_and_the_heartbeat_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let port = || free_port(Ipv4Addr::LOCALHOST.into()).expect("a port");
    let mut webhook = Webhook::start(None, (Ipv4Addr::LOCALHOST, 0).into()).expect("listens");
    let plan = MonitoringPlan {
        directory: directory.path().join("monitoring"),
        netns: None,
        collector: port(),
        prometheus: port(),
        alertmanager: port(),
        webhook: webhook.address,
        period_seconds: 1,
    };
    let _monitoring = Monitoring::start(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let (mut heartbeat, mut collector_down) = (false, None);
    while !heartbeat || collector_down.is_none() {
        let notification = webhook.next(DEADLINE).await.unwrap_or_else(|e| panic!("{e:#}"));
        for alert in notification.alerts {
            match alert.labels["alertname"].as_str() {
                "Watchdog" => heartbeat = true,
                "CollectorDown" => collector_down = Some(alert),
                other => panic!("nothing is known, and yet {other} fires"),
            }
        }
    }
    let summary = &collector_down.expect("it fires").annotations["summary_vi"];
    assert!(summary.contains("bộ thu thập"), "{summary}");
}
