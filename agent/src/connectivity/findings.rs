//! Flags: findings beside the verdict. They never change it.
//!
//! A flag stands until a later cycle proves the contrary: what could not be read or was not
//! asked this time leaves it as it was.

use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::{Flag, Flags};
use ipnet::IpNet;

use crate::evidence::{Anchor, Canary, Cycle, Echo, ServiceAnswer, Surroundings, Unbound};
use crate::schedule::EchoTrust;

use super::facts::surrounding_facts;
use super::ladder::{echo_answered, echo_was_tried, tcp_answered, tcp_was_tried, was_tried};
use super::quality::{ANCHORS_MAX, Protocol};

/// Silent cycles in a row that make an anchor dead, with TCP tried; twice as many without.
const SILENT_CYCLES: u32 = 4;
/// Cycles in a row in which TCP answered and no echo did.
const DEAF_CYCLES: u32 = 3;

/// What stands beside the verdict.
#[derive(Debug)]
pub(super) struct Findings {
    network_prefixes: Vec<IpNet>,
    /// Interfaces to other networks that the site has declared.
    pub(super) declared: Vec<String>,
    surroundings: Vec<Fact>,
    unbound_leaks: bool,
    source_leaks: bool,
    dual_homed: bool,
    bridging: bool,
    internet_reachable: bool,
    echo_forbidden: bool,
    /// Cycles in a row in which TCP alone proved the path, capped.
    deaf_cycles: u32,
    anchors: Vec<Silence>,
}

/// Cycles in which an anchor was silent while another answered.
#[derive(Debug, Clone, Copy, Default)]
struct Silence {
    cycles: u32,
    tcp_cycles: u32,
}

impl Findings {
    pub(super) fn new(network_prefixes: Vec<IpNet>) -> Self {
        Self {
            network_prefixes,
            declared: Vec::new(),
            surroundings: Vec::new(),
            unbound_leaks: false,
            source_leaks: false,
            dual_homed: false,
            bridging: false,
            internet_reachable: false,
            echo_forbidden: false,
            deaf_cycles: 0,
            anchors: Vec::new(),
        }
    }

    pub(super) fn flags(&self) -> Flags {
        let standing = [
            (Flag::Leak, self.unbound_leaks || self.source_leaks),
            (Flag::DualHomed, self.dual_homed),
            (Flag::Bridging, self.bridging),
            (Flag::InternetReachable, self.internet_reachable),
            (Flag::AnchorDown, self.anchors.iter().any(|silence| silence.is_death())),
            (Flag::IcmpUnavailable, self.echo_forbidden),
            (Flag::IcmpFiltered, self.deaf_cycles >= DEAF_CYCLES),
        ];
        standing.into_iter().filter(|(_, stands)| *stands).map(|(flag, _)| flag).collect()
    }

    /// The facts behind `dual_homed` and `bridging`, from the latest cycle that could read all of
    /// them.
    pub(super) fn surroundings(&self) -> &[Fact] {
        &self.surroundings
    }

    /// One deaf cycle is enough to ask TCP each time, before the flag says so.
    pub(super) fn echo_trust(&self) -> EchoTrust {
        if self.echo_forbidden || self.deaf_cycles > 0 {
            EchoTrust::Useless
        } else {
            EchoTrust::Trusted
        }
    }

    /// What the quality of the path is measured by: TCP where echo is forbidden or filtered.
    pub(super) fn measured_by(&self) -> Protocol {
        match self.echo_forbidden || self.deaf_cycles >= DEAF_CYCLES {
            true => Protocol::Tcp,
            false => Protocol::Echo,
        }
    }

    pub(super) fn observe(&mut self, cycle: &Cycle) {
        if let Ok(surroundings) = &cycle.link.surroundings {
            self.dual_homed = !undeclared(surroundings, &self.declared).is_empty();
            let bridging = bridging(surroundings);
            if bridging != Bridging::Unknown {
                self.surroundings = surrounding_facts(surroundings, &self.declared);
            }
            match bridging {
                Bridging::Joined => self.bridging = true,
                Bridging::Apart => self.bridging = false,
                Bridging::Unknown => {}
            }
        }
        match cycle.unbound {
            Some(Unbound::Reached { dedicated, .. }) => self.unbound_leaks = !dedicated,
            Some(Unbound::Unreached) => self.unbound_leaks = false,
            Some(Unbound::Failed(_)) | None => {}
        }
        if let Some(leaks) = source_leaks(cycle, &self.network_prefixes) {
            self.source_leaks = leaks;
        }
        match cycle.canary {
            Some(Canary::Reached) => self.internet_reachable = true,
            Some(Canary::Unreached) => self.internet_reachable = false,
            Some(Canary::Failed(_)) | None => {}
        }
        self.observe_echo(&cycle.anchors);
        self.observe_anchors(&cycle.anchors);
    }

    fn observe_echo(&mut self, anchors: &[Anchor]) {
        if anchors.iter().any(|anchor| anchor.echo == Echo::Forbidden) {
            self.echo_forbidden = true;
        } else if anchors.iter().any(|anchor| echo_was_tried(&anchor.echo)) {
            self.echo_forbidden = false;
        }
        if anchors.iter().any(|anchor| echo_answered(&anchor.echo)) {
            self.deaf_cycles = 0;
        } else if anchors
            .iter()
            .any(|anchor| echo_was_tried(&anchor.echo) && tcp_answered(&anchor.tcp))
        {
            self.deaf_cycles = DEAF_CYCLES.min(self.deaf_cycles + 1);
        }
    }

    fn observe_anchors(&mut self, anchors: &[Anchor]) {
        let answered = |anchor: &Anchor| echo_answered(&anchor.echo) || tcp_answered(&anchor.tcp);
        // When none answers, the path is in question and no anchor in particular.
        if !anchors.iter().any(answered) {
            return;
        }
        self.anchors.resize(anchors.len().min(ANCHORS_MAX), Silence::default());
        for (silence, anchor) in self.anchors.iter_mut().zip(anchors) {
            if answered(anchor) {
                *silence = Silence::default();
            } else if was_tried(anchor) {
                silence.cycles = silence.cycles.saturating_add(1);
                silence.tcp_cycles += u32::from(tcp_was_tried(&anchor.tcp) && !silence.is_death());
            }
        }
    }
}

impl Silence {
    fn is_death(self) -> bool {
        let cycles_needed = if self.tcp_cycles > 0 { SILENT_CYCLES } else { 2 * SILENT_CYCLES };
        self.cycles >= cycles_needed
    }
}

/// The flags that a single cycle shows to somebody who looks once.
pub fn flags_of(cycle: &Cycle, network_prefixes: &[IpNet], declared: &[String]) -> Flags {
    let mut findings = Findings::new(network_prefixes.to_vec());
    findings.declared = declared.to_vec();
    findings.observe(cycle);
    // Nothing follows: what was seen once has to do.
    if findings.deaf_cycles > 0 {
        findings.deaf_cycles = DEAF_CYCLES;
    }
    for silence in &mut findings.anchors {
        silence.cycles *= 2 * SILENT_CYCLES;
    }
    findings.flags()
}

/// Other interfaces that are up and lead elsewhere without the site having declared them: the one
/// judgement behind the flag `dual_homed` and behind the posture check.
pub fn undeclared<'a>(surroundings: &'a Surroundings, declared: &[String]) -> Vec<&'a str> {
    let others = surroundings.other_routed_interfaces.iter();
    others.filter(|name| !declared.contains(name)).map(String::as_str).collect()
}

/// Whether this machine joins the dedicated network to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bridging {
    /// It does, by [`Surroundings::joints`].
    Joined,
    /// It does not.
    Apart,
    /// Something could not be read, and what could be read joins nothing.
    Unknown,
}

/// The one judgement behind the flag and behind the posture checks. Forwarding alone joins
/// nothing: containers set it.
pub fn bridging(surroundings: &Surroundings) -> Bridging {
    match (surroundings.joints.is_empty(), surroundings.unread.is_empty()) {
        (false, _) => Bridging::Joined,
        (true, true) => Bridging::Apart,
        (true, false) => Bridging::Unknown,
    }
}

/// Whether a service saw this machine come from outside the dedicated network; `None` when none
/// told. Translation inside the network, at the agency's router, is common and no leak.
fn source_leaks(cycle: &Cycle, network_prefixes: &[IpNet]) -> Option<bool> {
    let seen: Vec<_> = cycle
        .services
        .iter()
        .filter_map(|service| match service.answer {
            ServiceAnswer::Right { seen_source, .. } => seen_source,
            _ => None,
        })
        .collect();
    let is_outside =
        |address| !network_prefixes.iter().any(|prefix: &IpNet| prefix.contains(address));
    (!seen.is_empty()).then(|| seen.iter().any(is_outside))
}

#[cfg(test)]
mod tests;
