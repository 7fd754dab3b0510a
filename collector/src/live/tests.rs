use std::time::SystemTime;

use haidang_proto::model::flag::Flags;
use haidang_proto::model::posture::{CheckId, CheckSet, MachineKind, Outcome};
use haidang_proto::model::quality::Quality;
use haidang_proto::model::report::{Connectivity, JournalStatus};
use haidang_proto::model::verdict::Verdict;
use uuid::Uuid;

use super::*;
use crate::fleet::{FleetConfig, Listener};
use crate::posture::{Findings, Order};
use crate::roster::{Loopback, Source, parse};
use crate::snapshot::{AgencyState, MachineView};

const AGENT: AgentId = AgentId(Uuid::from_u128(1));

fn fleet(clock: Clock) -> Fleet {
    let text = "id,name,kind,parent,gso_code,id_code,lat,lon,local_prefixes\n\
                01-001,Quận Ba Đình,quan,01,001,,,,198.18.1.0/24\n";
    let source = Source { name: "roster.csv", bytes: text.as_bytes() };
    let roster = Arc::new(parse(source, None, Loopback::Refused).expect("sound"));
    let config = FleetConfig {
        report_interval: Duration::from_secs(10),
        goal_target_ratio: 1.0,
        security_goal_target_ratio: 0.8,
    };
    let mut fleet = Fleet::new(roster, config, clock.now());
    fleet.enrolled(AGENT, "01-001".parse().expect("an id"), SystemTime::now());
    fleet
}

fn posture(seq: i64) -> MachinePosture {
    let mut findings = Findings::UNREAD;
    findings.put(CheckId::HostFirewallActive, Outcome::Pass);
    MachinePosture {
        order: Order { journal: 1, seq },
        whole_at: Some(SystemTime::now()),
        machine: MachineKind::Server,
        findings,
        parked: CheckSet::NONE,
        update_pending_since: None,
        signatures_made: None,
        certificate_ends: None,
        unrecognised: 0,
    }
}

fn report() -> Report {
    Report {
        process_nonce: [7; 16],
        machine_fingerprint: [1; 32],
        sequence: 1,
        sent_at: SystemTime::now(),
        agent_version: "0.1.0".into(),
        settings_version: 0,
        trust_bundle_version: 1,
        connectivity: Connectivity {
            verdict: Verdict::Connected,
            verdict_age: Duration::ZERO,
            flags: Flags::NONE,
            quality: Quality::default(),
            evidence: Vec::new(),
            surroundings: Vec::new(),
        },
        journal: JournalStatus::default(),
        host: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_folded_in_is_in_the_next_snapshot_and_a_change_of_state_is_told() {
    let clock = Clock::start();
    let (transitions, mut history) = mpsc::channel(8);
    let (live, task, mut snapshot) = live(fleet(clock), transitions, clock);
    let arrival = Arrival { listener: Listener::Dedicated, source: [198, 18, 1, 9].into() };
    let accepted = live.report(AGENT, report(), arrival);
    assert_eq!(accepted, ReportOutcome::Accepted { full_report_wanted: true });
    for seq in 1..=300 {
        live.posture(AGENT, posture(seq));
    }
    let stop = CancellationToken::new();
    let look = async {
        let all_are_in = |now: &Arc<Snapshot>| {
            let MachineView { figures, held } = now.agents[0].posture;
            figures.is_covered && held.is_some_and(|held| held.order.seq == 300)
        };
        snapshot.wait_for(all_are_in).await.expect("the task runs");
        let told = history.recv().await.expect("the task runs");
        assert_eq!(told[0].to, AgencyState::Connected);
        stop.cancel();
    };
    tokio::join!(task.run(stop.clone()), look);
}
