//! What is missing for a measurement, in words, with what to do about it.

use std::path::Path;

use crate::config::InterfaceSelector;
use crate::evidence::{Address, Echo, Interface};
use crate::language::Key;

use super::{Checkup, Enrolment, Outcome};

/// One thing that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    /// The label in JSON.
    pub(super) label: &'static str,
    /// What it is and what to do.
    pub(super) key: Key,
    /// The names and addresses it is about.
    pub(super) detail: String,
    outcome: Outcome,
}

impl Missing {
    /// The configuration itself.
    pub(super) fn config(path: &Path, problem: &str) -> Self {
        let detail = format!("{}: {problem}", path.display());
        Self::new("config", Key::MissingConfig, &detail, Outcome::Unknown)
    }

    /// How much it weighs in the exit status.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }

    fn new(label: &'static str, key: Key, detail: &str, outcome: Outcome) -> Self {
        let detail = detail.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        Self { label, key, detail, outcome }
    }
}

/// Everything that is missing, from the lowest layer up.
pub(super) fn missing(checkup: &Checkup<'_>) -> Vec<Missing> {
    let Checkup { config, cycle, enrolment, clock, .. } = checkup;
    let mut list = Vec::new();
    let mut add = |label, key, detail: &str, outcome| {
        list.push(Missing::new(label, key, detail, outcome));
    };
    if cycle.link.interface == Interface::Missing {
        let selector = selector(&config.dedicated.interface);
        add("interface", Key::MissingInterface, &selector, Outcome::Fails);
    } else if let Address::Absent { others } = &cycle.link.address {
        let mut detail = join(&config.dedicated.local_prefixes);
        if !others.is_empty() {
            detail = format!("{detail} ≠ {}", join(others));
        }
        add("address", Key::MissingAddress, &detail, Outcome::Fails);
    }
    match config.anchors.len() {
        0 => add("anchors", Key::MissingAnchors, "", Outcome::Unknown),
        1 => add("second_anchor", Key::MissingSecondAnchor, "", Outcome::Note),
        _ => {}
    }
    if !config.anchors.is_empty() && config.anchors.iter().all(|one| one.tcp_port.is_none()) {
        add("tcp_port", Key::MissingTcpPort, "", Outcome::Note);
    }
    let echoes = cycle.anchors.iter().map(|anchor| &anchor.echo);
    let mut echoes = echoes.chain(cycle.gateways.iter().map(|gateway| &gateway.echo));
    if echoes.any(|echo| *echo == Echo::Forbidden) {
        add("ping_group_range", Key::MissingPingGroup, "", Outcome::Note);
    }
    match enrolment {
        Enrolment::Enrolled(_) => {}
        Enrolment::NotEnrolled => {
            add("enrolment", Key::MissingEnrolment, "", Outcome::Unknown);
        }
        Enrolment::Unreadable(problem) => {
            add("enrolment", Key::UnreadableEnrolment, problem, Outcome::Unknown);
        }
    }
    if let Some(doubt) = clock {
        add("clock", doubt.key, &doubt.detail, Outcome::Fails);
    }
    list
}

fn selector(selector: &InterfaceSelector) -> String {
    match selector {
        InterfaceSelector::Name(name) => format!("name = {name}"),
        InterfaceSelector::Mac(mac) => format!("mac = {mac}"),
        InterfaceSelector::Prefix(prefix) => format!("prefix = {prefix}"),
    }
}

fn join<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
