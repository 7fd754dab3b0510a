//! The snapshot that the tests look at.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::fact::{Fact, FactKind};
use haidang_proto::model::flag::{Flag, Flags};
use haidang_proto::model::posture::CheckId;
use haidang_proto::model::report::JournalStatus;
use haidang_proto::model::verdict::{DegradedCause, DownCause, Verdict};

use crate::posture::{Enrolled, Exception, Exceptions, MachineFigures, Policy, agency_posture};
use crate::roster::{Loopback, Source, parse};
use crate::snapshot::{
    AgencyState, AgencyView, AgentView, DisconnectCause, Finding, Goal, Incident, IncidentKind,
    MachineView, QualityView, ReportView, Snapshot, Suppression,
};

/// A machine that has sent no posture.
const UNHEARD: Enrolled<'static> = Enrolled { posture: None, is_live: true };

/// The city of 2020: the first agency in every state there is, the others connected.
pub(super) fn city() -> Snapshot {
    let path = format!("{}/../deploy/rosters/hanoi-2020.csv", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).expect("the roster is shipped");
    let source = Source { name: "hanoi-2020.csv", bytes: &bytes };
    let roster = Arc::new(parse(source, None, Loopback::Refused).expect("it is sound"));
    let states = [
        AgencyState::Degraded,
        AgencyState::Disconnected(DisconnectCause::Agent(DownCause::LinkDown)),
        AgencyState::OffNetwork,
        AgencyState::Silent { stopped: None },
        AgencyState::Unknown,
        AgencyState::NotEnrolled,
    ];
    let agencies: Vec<AgencyView> = (0..roster.agencies().len())
        .map(|row| {
            let state = states.get(row).copied().unwrap_or(AgencyState::Connected);
            agency(row, state)
        })
        .collect();
    let ids = roster.agencies();
    let agents = (0..23).map(|n| agent(n, &ids[usize::from(n) / 5].id)).collect();
    let incident = Incident {
        kind: IncidentKind::Parent,
        scope: "01-001".into(),
        since: at(5),
        agencies: vec![ids[1].id.clone()],
    };
    let exceptions: Exceptions = [Exception {
        agency: ids[0].id.clone(),
        check: CheckId::ScreenLock,
        owner: "Phòng CNTT".into(),
        reason: "màn hình công cộng".into(),
        created: at(0),
        expires: at(86_400),
    }]
    .into_iter()
    .collect();
    Snapshot {
        taken_at: at(0),
        agencies,
        agents,
        goals: vec![Goal {
            goal: "dedicated_network",
            ratio: 626.0 / 631.0,
            target_ratio: 1.0,
            definition: "(connected + degraded) / agencies of the roster",
        }],
        incidents: vec![incident],
        exceptions: Arc::new(exceptions),
        policies: Arc::default(),
        roster,
    }
}

fn joint() -> Fact {
    let value = "bridge br0: wlan0".to_owned();
    Fact { kind: FactKind::Joint, subject: "bridge".to_owned(), value }
}

fn agency(row: usize, state: AgencyState) -> AgencyView {
    let mut flag_machines = [0; Flag::ALL.len()];
    flag_machines[0] = 2;
    AgencyView {
        row,
        state,
        since: at(1),
        last_verified: state.counts_as_connected().then(|| at(2)),
        verdict: Some(Verdict::Degraded(DegradedCause::Loss)),
        flag_machines,
        findings: vec![Finding::Partial],
        speaks_from: Vec::new(),
        surroundings: vec![joint()],
        partial_ratio: Some(0.5),
        agents_enrolled: 3,
        agents_fresh: 2,
        agents_verified: 1,
        quality: state.counts_as_connected().then(quality),
        certificate_expiry: Some(at(86_400)),
        suppressed: Some(Suppression::WarmUp),
        posture: agency_posture([UNHEARD; 3], Policy::DEFAULT, at(0)),
    }
}

fn agent(n: u8, agency: &AgencyId) -> AgentView {
    let report = ReportView {
        verdict: Verdict::Connected,
        flags: Flags::from_iter([Flag::DualHomed]),
        surroundings: vec![joint()],
        evidence: vec![Fact {
            kind: FactKind::GatewayEcho,
            subject: "<198.18.0.1>".into(),
            value: "silent".into(),
        }],
        quality: Some(quality()),
        agent_version: "0.1.0".into(),
        journal: JournalStatus::default(),
        clock_skew_seconds: -0.5,
        host: None,
    };
    AgentView {
        agent: AgentId(uuid::Uuid::from_bytes([n; 16])),
        agency: agency.clone(),
        last_heard: Some(at(3)),
        last_verified: None,
        fresh: true,
        source: Some([198, 18, 0, 7].into()),
        report: (n > 0).then(|| Arc::new(report)),
        stopped: None,
        certificate_expiry: at(9),
        conflict: None,
        posture: MachineView {
            figures: MachineFigures::of(UNHEARD, Policy::DEFAULT, at(0)),
            held: None,
        },
    }
}

/// So many seconds after the snapshot was taken.
pub(super) fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_790_000_000 + second)
}

fn quality() -> QualityView {
    QualityView {
        rtt_p50: Duration::from_micros(2_100),
        rtt_p95: Duration::from_millis(5),
        loss_ratio: 0.015_625,
        jitter: Duration::from_millis(1),
    }
}
