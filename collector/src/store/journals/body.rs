//! A record's event as the JSON that is stored: for people and for the history, written once for
//! each record and therefore without a tree in between. Names in the order of the alphabet.

use haidang_proto::model::fact::Fact;
use haidang_proto::model::posture::{CheckSet, MachineKind, Outcome, PostureSnapshot};
use haidang_proto::model::record::{Event, Moment, Record};
use haidang_proto::model::verdict::Verdict;
use serde::Serialize;
use uuid::Uuid;

#[derive(Serialize)]
struct Body<'a> {
    boot_id: Uuid,
    boottime_ms: u64,
    event: EventJson<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum EventJson<'a> {
    Transition {
        evidence: &'a [Fact],
        first_seen: MomentJson,
        from: VerdictJson,
        to: VerdictJson,
    },
    Started {
        agent_version: &'a str,
        previous_stop_was_clean: bool,
    },
    ShortOutage {
        bad_cycles: u32,
        cause: &'static str,
        first_seen: MomentJson,
    },
    /// Which checks a snapshot found bad or could not answer: what a history of them is read for.
    Posture {
        catalogue_version: u32,
        extent: &'static str,
        fail: CheckSet,
        machine: MachineKind,
        not_applicable: CheckSet,
        pass: usize,
        unknown: CheckSet,
        unrecognised: usize,
    },
}

#[derive(Serialize)]
struct MomentJson {
    boot_id: Uuid,
    boottime_ms: u64,
    unix_ms: i64,
}

#[derive(Serialize)]
struct VerdictJson {
    cause: &'static str,
    state: &'static str,
}

/// The event's kind.
pub(super) const fn kind(event: &Event) -> &'static str {
    match event {
        Event::Transition(_) => "transition",
        Event::Started { .. } => "started",
        Event::ShortOutage { .. } => "short_outage",
        Event::Posture(_) => "posture",
    }
}

/// The record's moment and event.
pub(super) fn body(Record { seq: _, at, event }: &Record) -> String {
    let body = Body {
        boot_id: at.boot_id,
        boottime_ms: super::millis(at.boottime),
        event: EventJson::from(event),
    };
    serde_json::to_string(&body).expect("names are text, and memory takes everything")
}

impl<'a> From<&'a Event> for EventJson<'a> {
    fn from(event: &'a Event) -> Self {
        match event {
            Event::Transition(transition) => Self::Transition {
                evidence: &transition.evidence,
                first_seen: (&transition.first_seen).into(),
                from: (&transition.from).into(),
                to: (&transition.to).into(),
            },
            Event::Started { agent_version, previous_stop_was_clean } => {
                Self::Started { agent_version, previous_stop_was_clean: *previous_stop_was_clean }
            }
            Event::ShortOutage { first_seen, bad_cycles, cause } => Self::ShortOutage {
                bad_cycles: *bad_cycles,
                cause: cause.as_str(),
                first_seen: first_seen.into(),
            },
            Event::Posture(snapshot) => posture(snapshot),
        }
    }
}

fn posture(snapshot: &PostureSnapshot) -> EventJson<'_> {
    let PostureSnapshot { extent, catalogue_version, machine, results, measures: _, unrecognised } =
        snapshot;
    let with = |verdict: fn(&Outcome) -> bool| -> CheckSet {
        results.iter().filter(|one| verdict(&one.outcome)).map(|one| one.check).collect()
    };
    EventJson::Posture {
        catalogue_version: *catalogue_version,
        extent: extent.as_str(),
        fail: with(|outcome| matches!(outcome, Outcome::Fail(_))),
        machine: *machine,
        not_applicable: with(|outcome| matches!(outcome, Outcome::NotApplicable)),
        pass: with(|outcome| matches!(outcome, Outcome::Pass)).len(),
        unknown: with(|outcome| matches!(outcome, Outcome::Unknown(_))),
        unrecognised: *unrecognised,
    }
}

impl From<&Moment> for MomentJson {
    fn from(Moment { boot_id, boottime, wall }: &Moment) -> Self {
        Self {
            boot_id: *boot_id,
            boottime_ms: super::millis(*boottime),
            unix_ms: super::super::unix_ms(*wall),
        }
    }
}

impl From<&Verdict> for VerdictJson {
    fn from(verdict: &Verdict) -> Self {
        Self { cause: verdict.cause(), state: verdict.state() }
    }
}
