//! Every metric family there is: name, help, kind and unit. A new metric begins with a line
//! here; dashboards and rules are tested against this table.

/// One family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Name, with prefix and unit.
    pub name: &'static str,
    /// What it says, in one sentence.
    pub help: &'static str,
    /// Kind.
    pub kind: Kind,
    /// Unit.
    pub unit: Unit,
}

/// Kinds of families.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Only grows.
    Counter,
    /// Counts by upper bound.
    Histogram,
}

impl Kind {
    /// The word after `# TYPE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// Units, always base units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Seconds, or a point in time as seconds since 1970.
    Seconds,
    /// A share from 0 to 1.
    Ratio,
    /// 0 or 1.
    Truth,
    /// A number of things.
    Count,
    /// Always 1; the labels carry what is said.
    Info,
}

macro_rules! families {
    ($($id:ident $name:literal $kind:ident $unit:ident $help:literal;)+) => {
        $(pub(super) const $id: Family =
            Family { name: $name, help: $help, kind: Kind::$kind, unit: Unit::$unit };)+

        /// Every family.
        pub const FAMILIES: &[Family] = &[$($id,)+];
    };
}

families! {
    AGENCY_INFO "haidang_agency_info" Gauge Info
        "An agency of the roster that holds today.";
    AGENCY_STATE "haidang_agency_state" Gauge Truth
        "Whether the agency is in the state; exactly one of its states is 1.";
    AGENCY_DISCONNECT_CAUSE "haidang_agency_disconnect_cause" Gauge Truth
        "Why the agency is disconnected; absent while it is not.";
    AGENCY_AGENTS "haidang_agency_agents" Gauge Count
        "Agents of the agency: enrolled, expected by the roster, heard of late, verified of late.";
    AGENCY_SUPPRESSED "haidang_agency_suppressed" Gauge Truth
        "Whether alerts about the agency are held back, by reason.";
    AGENCY_LAST_VERIFIED "haidang_agency_last_verified_timestamp_seconds" Gauge Seconds
        "When the last verified message of the agency was received; absent if there was none.";
    AGENCY_FINDING "haidang_agency_finding" Gauge Truth
        "What the collector noticed about the agency.";
    AGENCY_PARTIAL "haidang_agency_partial_ratio" Gauge Ratio
        "Share of the agency's machines heard of late that do not see the path up, while others do; 0 when they agree, absent when none was heard.";
    AGENCY_FLAG "haidang_agency_flag" Gauge Count
        "Machines of the agency that were heard of late and show the flag.";
    AGENCY_CERTIFICATE_EXPIRY "haidang_agency_certificate_expiry_timestamp_seconds" Gauge Seconds
        "The earliest end of the agency's agent certificates; absent without agents.";
    AGENCY_RTT "haidang_agency_rtt_seconds" Gauge Seconds
        "Round-trip time to the core, the median of the verified agents; absent when stale.";
    AGENCY_LOSS "haidang_agency_loss_ratio" Gauge Ratio
        "Share of echoes lost, the median of the verified agents; absent when stale.";
    AGENCY_JITTER "haidang_agency_jitter_seconds" Gauge Seconds
        "Packet delay variation, p95 - min (RFC 5481), the median of the verified agents; absent when stale.";
    AGENCY_POSTURE_MACHINES "haidang_agency_posture_machines" Gauge Count
        "Enrolled machines of the agency that comply, are covered, or show anything critical.";
    AGENCY_POSTURE_SCORE "haidang_agency_posture_score_ratio" Gauge Ratio
        "Score of the agency's worst machine, and the one that nine of ten reach; 0 without machines.";
    AGENCY_POSTURE_FINDINGS "haidang_agency_posture_findings" Gauge Count
        "Checks of the agency's machines that fail or are unknown, by severity; up to 1,000 agencies.";
    AGENCY_POLICY_LAXER "haidang_agency_policy_laxer" Gauge Count
        "Thresholds, scores and lists in which the agency is asked less than the catalogue asks.";
    AGENCY_UPDATE_PENDING "haidang_agency_security_update_pending_timestamp_seconds" Gauge Seconds
        "Since when the agency's oldest security update is pending; absent when none is known.";
    AGENCY_SIGNATURES "haidang_agency_malware_signatures_timestamp_seconds" Gauge Seconds
        "When the oldest malware signatures in use at the agency were made; absent when not known.";
    AGENCY_POSTURE_CERTIFICATE "haidang_agency_posture_certificate_expiry_timestamp_seconds" Gauge Seconds
        "When the first certificate that the agency's machines watch ends; absent when not known.";
    AGENCY_POSTURE_CRITICAL "haidang_agency_posture_critical_machines" Gauge Count
        "Machines of the agency whose critical check fails; whatever the size of the fleet.";
    AGENCY_EXCEPTION_EXPIRY "haidang_agency_posture_exception_expiry_timestamp_seconds" Gauge Seconds
        "When the agency's exception for the check ends or has ended; absent without one.";
    AGENCY_POSTURE_CHECKS "haidang_agency_posture_checks" Gauge Count
        "Machines of the agency whose check fails or is unknown; up to 1,000 agencies.";
    PARENT_POSTURE_CHECKS "haidang_parent_posture_checks" Gauge Count
        "Machines under the parent whose check fails or is unknown; beyond 1,000 agencies.";
    AGENT_POSTURE_SCORE "haidang_agent_posture_score_ratio" Gauge Ratio
        "Score of one machine; only where series of machines are switched on.";
    GOAL_RATIO "haidang_goal_ratio" Gauge Ratio
        "Share of the goal that is reached.";
    GOAL_TARGET "haidang_goal_target_ratio" Gauge Ratio
        "Share of the goal that is asked for.";
    GOAL_INFO "haidang_goal_info" Gauge Info
        "What the goal divides by what, and over which roster.";
    INCIDENT_ACTIVE "haidang_incident_active" Gauge Truth
        "Whether one cause behind many agencies is seen.";
    ROSTER_AGENCIES "haidang_roster_agencies" Gauge Count
        "Agencies of the roster that hold today.";
    ROSTER_INFO "haidang_roster_info" Gauge Info
        "The roster in force.";
    SNAPSHOT_TIMESTAMP "haidang_snapshot_timestamp_seconds" Gauge Seconds
        "When the fleet's state shown here was taken.";
    SERIES "haidang_collector_series" Gauge Count
        "Series of the fleet in this exposition.";
    SERIES_BUDGET "haidang_collector_series_budget" Gauge Count
        "Series of the fleet that an exposition may have.";
    FAMILIES_CUT "haidang_collector_families_cut" Gauge Count
        "Families left out of this exposition because of the series budget.";
    REPORTS "haidang_collector_reports_total" Counter Count
        "Reports accepted, by listener.";
    REJECTED "haidang_collector_rejected_total" Counter Count
        "Peers and messages turned away, by reason.";
    CONNECTIONS "haidang_collector_connections" Gauge Count
        "Open connections, by listener.";
    INGEST "haidang_collector_ingest_seconds" Histogram Seconds
        "Time from a decoded report to its reply.";
    STORE_LAG "haidang_collector_store_lag_seconds" Gauge Seconds
        "Age of the oldest write that waits for the store, backlogs of machines apart; 0 when nothing does.";
    STORE_UP "haidang_collector_store_up" Gauge Truth
        "Whether the last write to the store succeeded and none but backlogs of machines has waited for ten seconds.";
    CLOCK_STEP "haidang_collector_clock_step_seconds" Gauge Seconds
        "How far the collector's wall clock has been stepped since it started; ahead is positive.";
    CERTIFICATE_EXPIRY "haidang_collector_certificate_expiry_timestamp_seconds" Gauge Seconds
        "End of the collector's own certificates.";
    BUILD_INFO "haidang_build_info" Gauge Info
        "The collector's version.";
    PROCESS_START "process_start_time_seconds" Gauge Seconds
        "When the collector's process started.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_in_what_they_count() {
        for Family { name, help, kind, unit } in FAMILIES {
            let ending = match (kind, unit) {
                (Kind::Counter, _) => "_total",
                (_, Unit::Seconds) => "_seconds",
                (_, Unit::Ratio) => "_ratio",
                (_, Unit::Info) => "_info",
                (_, Unit::Truth | Unit::Count) => "",
            };
            assert!(name.ends_with(ending), "{name}");
            assert!(help.ends_with('.') && !help.contains(['\\', '\n']), "{name}: {help}");
        }
    }

    #[test]
    fn each_name_stands_once() {
        let mut names: Vec<&str> = FAMILIES.iter().map(|family| family.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }
}
