//! The fleet's series, family by family, in chunks that are made only when the reader wants the
//! next one: memory does not grow with the fleet, and a slow reader holds nobody up.
//!
//! Every agency of the roster has its states from the start, so nothing vanishes. Flags, findings
//! and suppressions write their zeros; measurements are absent when stale. When the budget
//! of series would be passed, whole families are left out from the end of the list, and a gauge
//! says how many.

use std::sync::Arc;

use haidang_proto::model::flag::Flag;

use crate::snapshot::{AgencyState, AgencyView, Finding, IncidentKind, Snapshot, Suppression};

use super::collector::CollectorMetrics;
use super::posture;
use super::table::{self, Family};
use super::text::Text;

/// Bytes after which a chunk is handed over: large enough that its overhead does not count.
const CHUNK_BYTES: usize = 64 << 10;
/// Series that a scrape may have unless it is told otherwise: 11,384 agencies with 51 each fit,
/// and one Prometheus still takes them.
const SERIES_MAX: usize = 600_000;

type PerAgency = fn(&mut Text, &Snapshot, &AgencyView);

/// How a family is written for each agency.
struct Written {
    family: Family,
    /// Series of one agency, at most; `None` when the family is never cut.
    series_max: Option<usize>,
    /// Agencies up to which it is written at all.
    agencies_max: usize,
    write: PerAgency,
}

const PER_AGENCY: &[Written] = &[
    always(table::AGENCY_INFO, info),
    always(table::AGENCY_STATE, state),
    always(table::AGENCY_DISCONNECT_CAUSE, disconnect_cause),
    within_budget(table::AGENCY_SUPPRESSED, Suppression::ALL.len(), suppressed),
    within_budget(table::AGENCY_LAST_VERIFIED, 1, last_verified),
    within_budget(table::AGENCY_AGENTS, 4, agents),
    // What alerts rest on stands before what is only looked at, and is cut last.
    within_budget(table::AGENCY_POSTURE_CRITICAL, posture::CRITICAL_SERIES, posture::critical),
    within_budget(table::AGENCY_FINDING, Finding::ALL.len(), findings),
    within_budget(table::AGENCY_PARTIAL, 1, partial),
    within_budget(table::AGENCY_FLAG, Flag::ALL.len(), flags),
    within_budget(table::AGENCY_CERTIFICATE_EXPIRY, 1, certificate_expiry),
    within_budget(table::AGENCY_LOSS, 1, loss),
    within_budget(table::AGENCY_RTT, 2, rtt),
    within_budget(table::AGENCY_JITTER, 1, jitter),
    within_budget(table::AGENCY_POSTURE_MACHINES, 3, posture::machines),
    within_budget(table::AGENCY_POSTURE_SCORE, 2, posture::score),
    within_budget(table::AGENCY_POLICY_LAXER, 1, posture::policy_laxer),
    within_budget(table::AGENCY_UPDATE_PENDING, 1, posture::update_pending),
    within_budget(table::AGENCY_SIGNATURES, 1, posture::signatures),
    within_budget(table::AGENCY_POSTURE_CERTIFICATE, 1, posture::certificate),
    Written {
        agencies_max: posture::CHECKS_AGENCIES_MAX,
        ..within_budget(table::AGENCY_POSTURE_FINDINGS, 4, posture::findings)
    },
    Written {
        agencies_max: posture::CHECKS_AGENCIES_MAX,
        ..within_budget(table::AGENCY_POSTURE_CHECKS, posture::CHECK_SERIES, posture::checks)
    },
];

const fn always(family: Family, write: PerAgency) -> Written {
    Written { family, series_max: None, agencies_max: usize::MAX, write }
}

const fn within_budget(family: Family, series_max: usize, write: PerAgency) -> Written {
    Written { family, series_max: Some(series_max), agencies_max: usize::MAX, write }
}

/// One scrape: an iterator of chunks of text.
#[derive(Debug)]
pub struct Exposition {
    snapshot: Arc<Snapshot>,
    /// The registry's text, handed over last.
    own: String,
    series_max: usize,
    shows_machines: bool,
    next: Next,
    series: usize,
    families_cut: usize,
}

#[derive(Debug, Clone, Copy)]
enum Next {
    PerAgency { family: usize, agency: usize },
    Machines { agent: usize },
    Rest,
    Own,
    End,
}

impl Exposition {
    /// The exposition of a snapshot, joined with the collector's own metrics.
    pub fn new(snapshot: Arc<Snapshot>, own: &CollectorMetrics) -> Self {
        Self::within(snapshot, own, SERIES_MAX)
    }

    /// The same within another budget of series.
    pub fn within(snapshot: Arc<Snapshot>, own: &CollectorMetrics, series_max: usize) -> Self {
        let next = Next::PerAgency { family: 0, agency: 0 };
        Self {
            snapshot,
            own: own.text(),
            series_max,
            shows_machines: false,
            next,
            series: 0,
            families_cut: 0,
        }
    }

    /// With series of every machine besides.
    #[must_use]
    pub fn with_machines(self) -> Self {
        Self { shows_machines: true, ..self }
    }

    /// Writes on with one family until it or the chunk is full.
    fn per_agency(&mut self, text: &mut Text, family: usize, mut agency: usize) -> Next {
        let Some(written) = PER_AGENCY.get(family) else { return Next::Machines { agent: 0 } };
        let agencies = &self.snapshot.agencies;
        let after = Next::PerAgency { family: family + 1, agency: 0 };
        if agencies.len() > written.agencies_max {
            return after;
        }
        if agency == 0 {
            let too_many = written
                .series_max
                .is_some_and(|each| text.series + each * agencies.len() > self.series_max);
            if too_many {
                self.families_cut += 1;
                return after;
            }
            text.header(&written.family);
        }
        for view in &agencies[agency..] {
            if text.chunk.len() >= CHUNK_BYTES {
                return Next::PerAgency { family, agency };
            }
            (written.write)(text, &self.snapshot, view);
            agency += 1;
        }
        after
    }

    /// Writes on with the machines until they or the chunk are full.
    fn machines(&mut self, text: &mut Text, mut agent: usize) -> Next {
        let agents = &self.snapshot.agents;
        if agent == 0 {
            text.header(&table::AGENT_POSTURE_SCORE);
            if !self.shows_machines {
                return Next::Rest;
            }
            if text.series + agents.len() > self.series_max {
                self.families_cut += 1;
                return Next::Rest;
            }
        }
        for view in &agents[agent..] {
            if text.chunk.len() >= CHUNK_BYTES {
                return Next::Machines { agent };
            }
            posture::machine_score(text, view);
            agent += 1;
        }
        Next::Rest
    }
}

impl Iterator for Exposition {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        // One agency's lines may pass the mark; a quarter more spares the reallocation.
        let chunk = Vec::with_capacity(CHUNK_BYTES + CHUNK_BYTES / 4);
        let mut text = Text::after(self.series, chunk);
        while text.chunk.len() < CHUNK_BYTES {
            self.next = match self.next {
                Next::PerAgency { family, agency } => self.per_agency(&mut text, family, agency),
                Next::Machines { agent } => self.machines(&mut text, agent),
                Next::Rest => {
                    posture::exceptions(&mut text, &self.snapshot);
                    if !posture::checks_by_parent(&mut text, &self.snapshot, self.series_max) {
                        self.families_cut += 1;
                    }
                    rest(&mut text, &self.snapshot);
                    budget(&mut text, self.series_max, self.families_cut);
                    Next::Own
                }
                Next::Own => {
                    text.chunk.append(&mut std::mem::take(&mut self.own).into_bytes());
                    Next::End
                }
                Next::End => break,
            };
        }
        self.series = text.series;
        (!text.chunk.is_empty()).then_some(text.chunk)
    }
}

pub(super) fn id<'a>(snapshot: &'a Snapshot, view: &AgencyView) -> &'a str {
    snapshot.roster.agencies()[view.row].id.as_str()
}

fn info(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let agency = &snapshot.roster.agencies()[view.row];
    text.series(&table::AGENCY_INFO)
        .plain("agency", agency.id.as_str())
        .label("name", &agency.full_name())
        .plain("kind", agency.kind.as_str())
        .plain("parent", agency.parent.as_str())
        .truth(true);
}

fn state(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let mut lines = text.lines(&table::AGENCY_STATE, "agency", id(snapshot, view));
    for (at, label) in AgencyState::LABELS.iter().enumerate() {
        lines.series().plain("state", label).truth(view.state.index() == at);
    }
}

fn disconnect_cause(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let AgencyState::Disconnected(cause) = view.state {
        text.series(&table::AGENCY_DISCONNECT_CAUSE)
            .plain("agency", id(snapshot, view))
            .plain("cause", cause.as_str())
            .truth(true);
    }
}

fn suppressed(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let mut lines = text.lines(&table::AGENCY_SUPPRESSED, "agency", id(snapshot, view));
    for reason in Suppression::ALL {
        lines.series().plain("reason", reason.as_str()).truth(view.suppressed == Some(*reason));
    }
}

fn last_verified(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(at) = view.last_verified {
        text.series(&table::AGENCY_LAST_VERIFIED).plain("agency", id(snapshot, view)).time(at);
    }
}

fn agents(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let expected = snapshot.roster.agencies()[view.row].agents_expected;
    let mut lines = text.lines(&table::AGENCY_AGENTS, "agency", id(snapshot, view));
    for (stat, count) in [
        ("enrolled", Some(view.agents_enrolled)),
        ("expected", expected),
        ("fresh", Some(view.agents_fresh)),
        ("verified", Some(view.agents_verified)),
    ] {
        if let Some(count) = count {
            lines.series().plain("stat", stat).count(count);
        }
    }
}

fn findings(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let mut lines = text.lines(&table::AGENCY_FINDING, "agency", id(snapshot, view));
    for finding in Finding::ALL {
        lines.series().plain("finding", finding.as_str()).truth(view.findings.contains(finding));
    }
}

fn partial(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if view.agents_fresh > 0 {
        text.series(&table::AGENCY_PARTIAL)
            .plain("agency", id(snapshot, view))
            .float(view.partial_ratio.unwrap_or(0.0));
    }
}

fn flags(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let mut lines = text.lines(&table::AGENCY_FLAG, "agency", id(snapshot, view));
    for (flag, machines) in Flag::ALL.iter().zip(view.flag_machines) {
        lines.series().plain("flag", flag.as_str()).count(machines);
    }
}

fn certificate_expiry(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(at) = view.certificate_expiry {
        text.series(&table::AGENCY_CERTIFICATE_EXPIRY).plain("agency", id(snapshot, view)).time(at);
    }
}

fn loss(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(quality) = view.quality {
        text.series(&table::AGENCY_LOSS)
            .plain("agency", id(snapshot, view))
            .float(quality.loss_ratio);
    }
}

fn rtt(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    let Some(quality) = view.quality else { return };
    let mut lines = text.lines(&table::AGENCY_RTT, "agency", id(snapshot, view));
    for (stat, rtt) in [("p50", quality.rtt_p50), ("p95", quality.rtt_p95)] {
        lines.series().plain("stat", stat).float(rtt.as_secs_f64());
    }
}

fn jitter(text: &mut Text, snapshot: &Snapshot, view: &AgencyView) {
    if let Some(quality) = view.quality {
        text.series(&table::AGENCY_JITTER)
            .plain("agency", id(snapshot, view))
            .float(quality.jitter.as_secs_f64());
    }
}

/// What is said once.
fn rest(text: &mut Text, snapshot: &Snapshot) {
    let version = snapshot.roster.version();
    text.header(&table::GOAL_RATIO);
    for goal in &snapshot.goals {
        text.series(&table::GOAL_RATIO).plain("goal", goal.goal).float(goal.ratio);
    }
    text.header(&table::GOAL_TARGET);
    for goal in &snapshot.goals {
        text.series(&table::GOAL_TARGET).plain("goal", goal.goal).float(goal.target_ratio);
    }
    text.header(&table::GOAL_INFO);
    for goal in &snapshot.goals {
        text.series(&table::GOAL_INFO)
            .plain("goal", goal.goal)
            .label("definition", goal.definition)
            .plain("roster_version", version)
            .truth(true);
    }
    text.header(&table::INCIDENT_ACTIVE);
    let suspected = IncidentKind::CollectorSuspected;
    if snapshot.incidents.iter().all(|incident| incident.kind != suspected) {
        text.series(&table::INCIDENT_ACTIVE)
            .plain("kind", suspected.as_str())
            .plain("scope", "collector")
            .truth(false);
    }
    for incident in &snapshot.incidents {
        text.series(&table::INCIDENT_ACTIVE)
            .plain("kind", incident.kind.as_str())
            .label("scope", &incident.scope)
            .truth(true);
    }
    text.header(&table::ROSTER_AGENCIES);
    text.series(&table::ROSTER_AGENCIES).count(snapshot.agencies.len());
    text.header(&table::ROSTER_INFO);
    text.series(&table::ROSTER_INFO).plain("version", version).truth(true);
    text.header(&table::SNAPSHOT_TIMESTAMP);
    text.series(&table::SNAPSHOT_TIMESTAMP).time(snapshot.taken_at);
}

fn budget(text: &mut Text, series_max: usize, families_cut: usize) {
    text.header(&table::SERIES_BUDGET);
    text.series(&table::SERIES_BUDGET).count(series_max);
    text.header(&table::FAMILIES_CUT);
    text.series(&table::FAMILIES_CUT).count(families_cut);
    text.header(&table::SERIES);
    let with_itself = text.series + 1;
    text.series(&table::SERIES).count(with_itself);
}
