//! "Is it us?" by the collector's own anchors, with real ICMP echo through the relay: a collector
//! that cannot reach its own anchors suspects itself once, and calls no agency cut off. Fewer
//! agencies fall than its other rule needs, so the anchors alone decide. Needs root.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::time::Duration;

use haidang_tests::collector::{AgencySeen, Tempo};
use haidang_tests::exposition::Exposition;
use haidang_tests::laboratory::{Laboratory, Seat};
use haidang_tests::wait;

const AGENCIES: [&str; 2] = ["01-018", "01-so-y-te"];
/// The WAN's end of the line to the core: the nearest thing beyond the collector's own line.
const OWN_ANCHOR: &str = "198.18.255.1";
/// The core receives nothing from its line any more.
const DEAF: &str = "table ip deaf { chain in { type filter hook input priority 0; \
                    iifname \"tunc\" drop; }; }\n";
const DEADLINE: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_own_anchors_are_silent_suspects_itself_once() {
    let seats =
        AGENCIES.map(|agency| Seat { agency: agency.into(), gateway: true, ..Seat::default() });
    let laboratory = Laboratory::build(&seats, Tempo::Short).await;
    let laboratory = laboratory.unwrap_or_else(|error| panic!("{error:#}"));
    let config = laboratory.collector.plan.config_path();
    let mut config = OpenOptions::new().append(true).open(config).expect("it was written");
    // The table of the core's own checks is the last one.
    writeln!(config, "anchors = [\"{OWN_ANCHOR}\"]").expect("it is written");
    let laboratory = laboratory.restart_collector().await;
    let laboratory = laboratory.unwrap_or_else(|error| panic!("{error:#}"));
    becomes(&laboratory, "connected", None, 0.0).await;

    // The device stays up and the echo requests leave: nothing comes back.
    let core = &laboratory.network.core;
    core.nft(DEAF).unwrap_or_else(|error| panic!("{error:#}"));
    becomes(&laboratory, "unknown", Some("collector_suspected"), 1.0).await;
    let metrics = laboratory.collector.metrics().await.expect("metrics");
    let kinds: Vec<_> = metrics
        .find("haidang_incident_active", &[])
        .filter(|incident| incident.value > 0.0)
        .filter_map(|incident| incident.labels.get("kind").cloned())
        .collect();
    assert_eq!(kinds, ["collector_suspected"], "one incident, and no parent's");
    for state in ["disconnected", "silent"] {
        let in_state = [("state", state)];
        let fallen = metrics.find("haidang_agency_state", &in_state);
        assert_eq!(fallen.map(|agency| agency.value).sum::<f64>(), 0.0, "{state}");
    }

    core.nft("delete table ip deaf\n").unwrap_or_else(|error| panic!("{error:#}"));
    for agency in AGENCIES {
        let is_up = |seen: &AgencySeen| matches!(seen.state.as_str(), "connected" | "degraded");
        let up = laboratory.seen().until(agency, DEADLINE, is_up).await;
        up.unwrap_or_else(|error| panic!("{error:#}"));
    }
    wait::until("the end of the suspicion", DEADLINE, || async {
        let metrics = laboratory.collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        if suspicion(&metrics) == 0.0 { Ok(()) } else { Err("it stands".to_owned()) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

/// Waits until every agency is in the state, with its alerts held back for the reason.
async fn becomes(laboratory: &Laboratory, state: &str, reason: Option<&str>, suspected: f64) {
    wait::until(&format!("both agencies {state}"), DEADLINE, || async {
        let metrics = laboratory.collector.metrics().await.map_err(|error| format!("{error:#}"))?;
        let mut seen = Vec::new();
        for agency in AGENCIES {
            let of_agency = [("agency", agency)];
            let state = AgencySeen::read(&metrics, agency).map(|seen| seen.state);
            let why = metrics.label_of_one("haidang_agency_suppressed", &of_agency, "reason");
            seen.push((state.unwrap_or_default(), why.map(str::to_owned)));
        }
        let expected = vec![(state.to_owned(), reason.map(str::to_owned)); AGENCIES.len()];
        if seen == expected && suspicion(&metrics) == suspected {
            Ok(())
        } else {
            Err(format!("{seen:?}, suspicion {}", suspicion(&metrics)))
        }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

fn suspicion(metrics: &Exposition) -> f64 {
    let kind = [("kind", "collector_suspected")];
    metrics.find("haidang_incident_active", &kind).map(|incident| incident.value).sum()
}
