//! One agency: figures over all of its enrolled machines, whether they speak or not.
//!
//! Never a mean: the share that complies, the tenth percentile and the worst machine, and how many
//! machines the figures rest on.

use std::time::SystemTime;

use haidang_proto::model::posture::{CHECKS, CheckSet};

use super::machine::{Findings, MachinePosture};
use super::policy::Policy;

/// An enrolled machine as the fleet knows it.
#[derive(Debug, Clone, Copy)]
pub struct Enrolled<'a> {
    /// What is held of its posture; `None` when it never sent any, or its identity speaks from two
    /// machines.
    pub posture: Option<&'a MachinePosture>,
    /// Whether its agent was heard within the freshness limit.
    pub is_live: bool,
}

/// How much a machine's posture is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standing {
    /// Recent enough to count.
    Current,
    /// Too old: every check is unknown.
    Stale,
    /// There never was one.
    Never,
}

impl Standing {
    /// The label in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "current",
            Self::Stale => "stale",
            Self::Never => "never",
        }
    }
}

/// The figures of one machine at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineFigures {
    /// What they are worth.
    pub standing: Standing,
    /// What counts: nothing is read of a machine whose posture is not current.
    pub findings: Findings,
    /// 0 to 100.
    pub score: u8,
    /// Current and heard now.
    pub is_covered: bool,
}

impl MachineFigures {
    /// A machine's figures now.
    pub fn of(machine: Enrolled<'_>, policy: Policy, now: SystemTime) -> Self {
        let standing = match machine.posture {
            None => Standing::Never,
            Some(posture) if posture.is_stale(now) => Standing::Stale,
            Some(_) => Standing::Current,
        };
        let findings = match (standing, machine.posture) {
            (Standing::Current, Some(posture)) => posture.findings,
            (Standing::Current | Standing::Stale | Standing::Never, _) => Findings::UNREAD,
        };
        Self {
            standing,
            findings,
            score: findings.score(policy.weighed()),
            is_covered: standing == Standing::Current && machine.is_live,
        }
    }

    /// Whether the machine is in good order: current, nothing critical, and a good score.
    pub fn complies(&self, policy: Policy) -> bool {
        self.standing == Standing::Current
            && self.findings.critical().is_empty()
            && self.score >= policy.score_min
    }
}

/// The figures of one agency at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgencyPosture {
    /// What is asked of it.
    pub policy: Policy,
    /// Machines that are enrolled: what every share is of.
    pub enrolled: u32,
    /// Of these, in good order.
    pub compliant: u32,
    /// Of these, current and heard now.
    pub covered: u32,
    /// Of these, not current: too old, or never sent.
    pub stale: u32,
    /// Of these, with a critical check that fails or is unknown.
    pub critical: u32,
    /// The score that nine of ten machines reach (nearest rank); 0 without machines.
    pub score_p10: u8,
    /// The lowest score; 0 without machines.
    pub score_worst: u8,
    /// Machines with each check failing, in the order of the catalogue.
    pub fail: [u32; CHECKS],
    /// Machines with each check unknown, in the order of the catalogue.
    pub unknown: [u32; CHECKS],
    /// Since when the oldest security update of a current machine is pending.
    pub update_pending_since: Option<SystemTime>,
    /// When the oldest signatures of a current machine were made.
    pub signatures_made: Option<SystemTime>,
    /// End of the first certificate that a current machine watches.
    pub certificate_ends: Option<SystemTime>,
}

impl AgencyPosture {
    /// Whether the agency has reached the goal: machines are enrolled, none has a critical finding,
    /// and nine of ten score enough.
    pub const fn meets_goal(&self) -> bool {
        self.enrolled > 0 && self.critical == 0 && self.score_p10 >= self.policy.score_min
    }
}

/// Folds the enrolled machines of an agency.
pub fn agency_posture<'a>(
    machines: impl IntoIterator<Item = Enrolled<'a>>,
    policy: Policy,
    now: SystemTime,
) -> AgencyPosture {
    let mut sum = AgencyPosture {
        policy,
        enrolled: 0,
        compliant: 0,
        covered: 0,
        stale: 0,
        critical: 0,
        score_p10: 0,
        score_worst: 0,
        fail: [0; CHECKS],
        unknown: [0; CHECKS],
        update_pending_since: None,
        signatures_made: None,
        certificate_ends: None,
    };
    let mut scores = Vec::new();
    for machine in machines {
        let figures = MachineFigures::of(machine, policy, now);
        sum.enrolled += 1;
        sum.compliant += u32::from(figures.complies(policy));
        sum.covered += u32::from(figures.is_covered);
        sum.critical += u32::from(!figures.findings.critical().is_empty());
        count(&mut sum.fail, figures.findings.fail());
        count(&mut sum.unknown, figures.findings.unknown());
        scores.push(figures.score);
        match (figures.standing, machine.posture) {
            (Standing::Current, Some(posture)) => {
                earliest(&mut sum.update_pending_since, posture.update_pending_since);
                earliest(&mut sum.signatures_made, posture.signatures_made);
                earliest(&mut sum.certificate_ends, posture.certificate_ends);
            }
            (Standing::Current | Standing::Stale | Standing::Never, _) => sum.stale += 1,
        }
    }
    scores.sort_unstable();
    sum.score_worst = scores.first().copied().unwrap_or(0);
    let rank = scores.len().div_ceil(10);
    sum.score_p10 = rank.checked_sub(1).and_then(|at| scores.get(at)).copied().unwrap_or(0);
    sum
}

fn count(counts: &mut [u32; CHECKS], checks: CheckSet) {
    for check in checks.iter() {
        counts[check as usize] += 1;
    }
}

fn earliest(of_all: &mut Option<SystemTime>, one: Option<SystemTime>) {
    *of_all = match (*of_all, one) {
        (Some(all), Some(one)) => Some(all.min(one)),
        (all, one) => all.or(one),
    };
}
