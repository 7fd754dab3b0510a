//! Simulation of the real schedule and detector with their default timers: how fast a hard cut
//! is found, and how often loss is taken for one.
//!
//! Deterministic by its seed, which `HAIDANG_SIMULATION_SEED` changes. `HAIDANG_SIMULATED_DAYS`
//! sets the agent-days of each loss pattern; the figures are printed, and `haidang-lab simulation`
//! records them.
//!
//! The line loses whole exchanges. A burst takes a fixed number of consecutive packets, whatever
//! they belong to. TCP needs two exchanges and gets no retransmission, which is harsher than a
//! kernel's.

use std::time::Duration;

use haidang_proto::model::record::Event;
use haidang_proto::model::settings::Settings;
use haidang_proto::model::verdict::{DegradedCause, DownCause, Family, Verdict};

use crate::config;
use crate::evidence::{Cycle, Echo, Exchange, Fate, Packet, Tcp};
use crate::schedule::{CyclePlan, Schedule};

use super::scenes::{at, dedicated, healthy, ms, no_carrier};
use super::{Detector, Now};

const SEED_DEFAULT: u64 = 0x4861_6944_616e_6721;
/// Agent-days of each loss pattern in an ordinary test run.
const DAYS_DEFAULT: u64 = 3;
const RTT: Duration = Duration::from_millis(8);

/// SplitMix64: small, and good enough for losses.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn word(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }
}

/// A line that loses packets in bursts of `burst`, `ratio` of them in the long run.
struct Line {
    ratio: f64,
    burst: u32,
    left: u32,
}

impl Line {
    fn new(ratio: f64, burst: u32) -> Self {
        Self { ratio, burst, left: 0 }
    }

    fn passes(&mut self, random: &mut Random) -> bool {
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        // So many bursts start that their packets make up the ratio.
        let start = self.ratio / (f64::from(self.burst) * (1.0 - self.ratio) + self.ratio);
        if random.share() < start {
            self.left = self.burst - 1;
            return false;
        }
        true
    }
}

/// What happens to the path, and when.
#[derive(Clone, Copy)]
enum Cut {
    Never,
    CoreAt(Duration),
    CableAt(Duration),
}

struct World {
    random: Random,
    line: Line,
    cut: Cut,
    now: Duration,
    schedule: Schedule,
    detector: Detector,
}

impl World {
    fn new(seed: u64, line: Line, cut: Cut) -> Self {
        let mut random = Random(seed);
        let identity = random.next().to_le_bytes();
        let start = ms(1_000);
        Self {
            schedule: Schedule::new(
                Settings::default(),
                config::Verdict::default().path_mtu_period,
                &identity,
                start,
            ),
            detector: Detector::new(&config::Verdict::default(), &dedicated(), now(start)),
            random,
            line,
            cut,
            now: start,
        }
    }

    /// One cycle; answers what it committed.
    fn step(&mut self) -> Vec<Event> {
        let mut start = self.schedule.next().max(self.now);
        if let Cut::CableAt(cut) = self.cut {
            // The kernel tells of the cable at once.
            if self.now <= cut && cut < start {
                self.schedule.kernel_event(cut);
                start = self.schedule.next().max(cut);
            }
        }
        let plan = self.schedule.begin(start);
        let (cycle, took) = self.cycle(&plan, start);
        self.now = start + took;
        let events = self.detector.observe(&cycle, now(start).moment, now(self.now));
        self.schedule.finish(self.detector.outlook(), self.now, self.random.word());
        events
    }

    fn cycle(&mut self, plan: &CyclePlan, start: Duration) -> (Cycle, Duration) {
        let cut_at = match self.cut {
            Cut::CableAt(cut) if start >= cut => return (no_carrier(), ms(5)),
            Cut::Never => Duration::MAX,
            Cut::CoreAt(cut) | Cut::CableAt(cut) => cut,
        };
        let mut cycle = healthy();
        let mut took = RTT * 2;
        for anchor in &mut cycle.anchors {
            let mut packets = Vec::new();
            for at in 0..plan.echoes_per_anchor {
                let sent = plan.echo_spacing * at;
                let passes = self.line.passes(&mut self.random) && start + sent < cut_at;
                took = took.max(sent + if passes { RTT } else { plan.echo_deadline });
                let fate = if passes { Fate::Answered(RTT) } else { Fate::Lost };
                packets.push(Packet { sent: start + sent, fate });
            }
            let is_answered = packets.iter().any(|packet| packet.fate != Fate::Lost);
            let exchange = Exchange { packets, ..Exchange::default() };
            anchor.echo = match is_answered {
                true => Echo::Answered(exchange),
                false => Echo::Silent(exchange),
            };
            anchor.tcp = if !plan.tcp {
                Tcp::NotTried
            } else if self.line.passes(&mut self.random)
                && self.line.passes(&mut self.random)
                && start < cut_at
            {
                Tcp::Proved { connect: RTT }
            } else {
                took = took.max(plan.tcp_deadline);
                Tcp::Silent
            };
        }
        if !plan.climb {
            cycle.resolvers.clear();
            cycle.services.clear();
        }
        cycle.unbound = cycle.unbound.filter(|_| plan.unbound);
        cycle.path_mtu = cycle.path_mtu.filter(|_| plan.path_mtu);
        (cycle, took)
    }
}

fn now(boottime: Duration) -> Now {
    at(u64::try_from(boottime.as_millis()).expect("a simulated time is short"))
}

fn went_down(events: &[Event]) -> Option<DownCause> {
    events.iter().find_map(|event| match event {
        Event::Transition(transition) => match transition.to {
            Verdict::Disconnected(cause) => Some(cause),
            _ => None,
        },
        _ => None,
    })
}

fn days() -> u64 {
    let days = std::env::var("HAIDANG_SIMULATED_DAYS").ok();
    days.map_or(DAYS_DEFAULT, |days| days.parse().expect("HAIDANG_SIMULATED_DAYS is a number"))
}

/// As it is printed: hexadecimal after `0x`.
fn seed() -> u64 {
    let Ok(text) = std::env::var("HAIDANG_SIMULATION_SEED") else { return SEED_DEFAULT };
    let digits = text.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).expect("HAIDANG_SIMULATION_SEED is hexadecimal")
}

/// Commits of many cuts at random moments, sorted, in seconds.
fn commits(cut_of: fn(Duration) -> Cut, expected: DownCause) -> Vec<f64> {
    let mut random = Random(seed());
    let mut found: Vec<f64> = (0..400)
        .map(|_| {
            let cut = Duration::from_secs_f64(60.0 + 120.0 * random.share());
            let mut world = World::new(random.next(), Line::new(0.0, 1), cut_of(cut));
            let cause = loop {
                let events = world.step();
                if let Some(cause) = went_down(&events) {
                    break cause;
                }
                assert!(world.now < cut + Duration::from_secs(60), "the cut is never found");
            };
            assert!(world.now > cut);
            assert_eq!(cause, expected);
            (world.now - cut).as_secs_f64()
        })
        .collect();
    found.sort_by(f64::total_cmp);
    found
}

fn print(what: &str, sorted: &[f64]) -> f64 {
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share).round() as usize];
    let line = format!(
        "{what}: p50 {:.1} s, p95 {:.1} s, max {:.1} s over {} cuts, seed {:#x}",
        at(0.5),
        at(0.95),
        at(1.0),
        sorted.len(),
        seed()
    );
    #[expect(clippy::print_stdout, reason = "the figures are what a recorded run is for")]
    {
        println!("{line}");
    }
    at(0.95)
}

#[test]
fn a_silent_cut_is_committed_within_ten_seconds() {
    let sorted = commits(Cut::CoreAt, DownCause::CoreUnreachable);
    assert!(print("hard cut beyond the gateway", &sorted) <= 10.0);
}

#[test]
fn a_pulled_cable_is_committed_within_five_seconds() {
    let sorted = commits(Cut::CableAt, DownCause::LinkDown);
    assert!(print("pulled cable", &sorted) <= 5.0);
}

#[test]
fn loss_is_never_taken_for_an_outage() {
    let patterns = [(0.01, 4), (0.05, 4), (0.10, 4), (0.50, 1)];
    for (at, (ratio, burst)) in (0u64..).zip(patterns) {
        let mut world = World::new(seed() ^ at, Line::new(ratio, burst), Cut::Never);
        let end = Duration::from_secs(86_400) * u32::try_from(days()).expect("few days");
        let (mut cycles, mut downs, mut short, mut lossy) = (0u64, 0u64, 0u64, 0u64);
        while world.now < end {
            let events = world.step();
            cycles += 1;
            downs += u64::from(went_down(&events).is_some());
            short += events
                .iter()
                .map(|e| u64::from(matches!(e, Event::ShortOutage { .. })))
                .sum::<u64>();
            let verdict = world.detector.verdict();
            lossy += u64::from(verdict == Verdict::Degraded(DegradedCause::Loss));
        }
        #[expect(clippy::print_stdout, reason = "the figures are what a recorded run is for")]
        {
            println!(
                "loss {:.0} % in bursts of {burst}: {downs} false downs, {short} short outages in \
                 {} agent-days, {cycles} cycles, {:.1} % of them degraded by loss, seed {:#x}",
                ratio * 100.0,
                days(),
                lossy as f64 * 100.0 / cycles as f64,
                seed() ^ at
            );
        }
        assert_eq!(downs, 0, "loss {ratio} in bursts of {burst}");
        assert_eq!(world.detector.verdict().family(), Family::Up);
        assert!(ratio < 0.05 || lossy > cycles / 2, "{lossy} of {cycles} cycles were degraded");
    }
}
