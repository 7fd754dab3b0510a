//! The measurement of the agent beside its peers, for a few seconds. Needs root.

use std::time::Duration;

use haidang_tests::agent_cost::{Peer, Plan, measure, section};
use haidang_tests::collector::Tempo;

#[tokio::test]
async fn an_agent_and_a_peer_are_measured_side_by_side() {
    let plan = Plan {
        period: Duration::from_secs(3),
        settle: Duration::from_secs(1),
        tempo: Tempo::Short,
        peers: vec![Peer::Node],
    };
    let costs = measure(&plan).await.unwrap_or_else(|error| panic!("{error:#}"));
    let [agent, peer] = costs.as_slice() else { panic!("two programs: {costs:?}") };
    for cost in [agent, peer] {
        assert!(cost.program_bytes > 1_000_000, "{cost:?}");
        let (resident, proportional) = (cost.resident_kib[0], cost.proportional_kib[0]);
        assert!(resident >= proportional && proportional > 500, "{cost:?}");
        assert!(cost.told_bytes > 0 && cost.told_bytes <= cost.traffic_bytes, "{cost:?}");
    }
    assert!(agent.told_bytes < agent.traffic_bytes, "it probes: {agent:?}");
    let section = section("the smoke", &plan, &costs).expect("the agent's figures come first");
    println!("{section}");
}
