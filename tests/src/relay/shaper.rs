//! What happens to each packet. Pure: time and randomness come from outside (a seed), so that
//! the figures of an impairment can be tested.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use serde::Deserialize;

/// Packets in flight; what comes on top is lost, as in any router's queue.
const QUEUE_PACKETS_MAX: usize = 10_000;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;

/// Which way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// From a site to the core.
    ToCore,
    /// From the core to a site.
    ToSite,
}

/// What is done to both directions of one site's path.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impairments {
    /// Towards the core.
    pub to_core: Impairment,
    /// Towards the site.
    pub to_site: Impairment,
}

/// What is done to one direction.
#[derive(Debug, Clone, Copy, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Impairment {
    /// Added to each packet's time.
    pub delay_ms: u32,
    /// Uniformly added or taken, never below zero in all.
    pub jitter_ms: u32,
    /// Share of packets lost, 0 to 1.
    pub loss_ratio: f64,
    /// Mean length of a run of losses (Gilbert's model); below 2, losses are independent.
    pub loss_run_mean: f64,
    /// Larger packets vanish without a word; zero stands for no limit.
    pub packet_bytes_max: usize,
}

impl Impairments {
    /// Nothing passes.
    pub const BLACK_HOLE: Self =
        Self { to_core: Impairment::BLACK_HOLE, to_site: Impairment::BLACK_HOLE };
}

impl Impairment {
    /// A direction without a fault.
    pub const NONE: Self = Self {
        delay_ms: 0,
        jitter_ms: 0,
        loss_ratio: 0.0,
        loss_run_mean: 0.0,
        packet_bytes_max: 0,
    };
    const BLACK_HOLE: Self = Self { loss_ratio: 1.0, ..Self::NONE };
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It flies.
    Passed,
    /// It is gone.
    Lost,
}

/// Packets in flight and the state of the losses.
#[derive(Debug)]
pub(crate) struct Shaper {
    random: Random,
    queue: BinaryHeap<Reverse<Flying>>,
    offered: u64,
    /// Paths that are inside a run of losses.
    losing: BTreeMap<(u8, Direction), bool>,
}

/// A packet on its way; ordered by time, then by arrival.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flying {
    due: Duration,
    number: u64,
    direction: Direction,
    packet: Vec<u8>,
}

impl Shaper {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random(seed.max(1)),
            queue: BinaryHeap::new(),
            offered: 0,
            losing: BTreeMap::new(),
        }
    }

    /// Takes a packet in, or loses it; tells whose path it was on and what became of it.
    pub(crate) fn offer(
        &mut self,
        packet: &[u8],
        direction: Direction,
        impairments: &BTreeMap<u8, Impairments>,
        now: Duration,
    ) -> Option<(u8, Fate)> {
        let site = site_of(packet, direction)?;
        let impairment = match (impairments.get(&site), direction) {
            (None, _) => Impairment::NONE,
            (Some(both), Direction::ToCore) => both.to_core,
            (Some(both), Direction::ToSite) => both.to_site,
        };
        let too_big =
            impairment.packet_bytes_max != 0 && packet.len() > impairment.packet_bytes_max;
        let is_full = self.queue.len() >= QUEUE_PACKETS_MAX;
        if too_big || is_full || self.loses(site, direction, impairment) {
            return Some((site, Fate::Lost));
        }
        let jitter = f64::from(impairment.jitter_ms) * (2.0 * self.random.unit() - 1.0);
        let delay_ms = (f64::from(impairment.delay_ms) + jitter).max(0.0);
        self.offered += 1;
        self.queue.push(Reverse(Flying {
            due: now + Duration::from_secs_f64(delay_ms / 1e3),
            number: self.offered,
            direction,
            packet: packet.to_vec(),
        }));
        Some((site, Fate::Passed))
    }

    /// The next packet whose time has come.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<(Direction, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        self.queue.pop().map(|Reverse(flying)| (flying.direction, flying.packet))
    }

    /// When the next packet leaves.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.queue.peek().map(|Reverse(flying)| flying.due)
    }

    /// Gilbert's model: a run of losses goes on with 1 − 1/mean, and begins as often as the loss
    /// ratio in the long run asks for.
    fn loses(&mut self, site: u8, direction: Direction, impairment: Impairment) -> bool {
        let loss = impairment.loss_ratio;
        if loss <= 0.0 || loss >= 1.0 {
            return loss >= 1.0;
        }
        if impairment.loss_run_mean < 2.0 {
            return self.random.unit() < loss;
        }
        let ends = 1.0 / impairment.loss_run_mean;
        let begins = ends * loss / (1.0 - loss);
        let draw = self.random.unit();
        let losing = self.losing.entry((site, direction)).or_insert(false);
        *losing = if *losing { draw >= ends } else { draw < begins };
        *losing
    }
}

/// The third octet of the site's address, which in IPv6 is the end of its fourth group.
fn site_of(packet: &[u8], direction: Direction) -> Option<u8> {
    let (source, destination) = match packet.first()? >> 4 {
        4 if packet.len() >= IPV4_HEADER_BYTES => (14, 18),
        6 if packet.len() >= IPV6_HEADER_BYTES => (15, 31),
        _ => return None,
    };
    packet.get(if direction == Direction::ToCore { source } else { destination }).copied()
}

/// xorshift64*: enough for dice, and the same dice on every machine.
#[derive(Debug)]
struct Random(u64);

impl Random {
    /// A number in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        f64::from(u32::try_from(bits).unwrap_or(u32::MAX)) / (f64::from(u32::MAX) + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITE: u8 = 11;

    fn packet(bytes: usize) -> Vec<u8> {
        let mut packet = vec![0; bytes];
        packet[0] = 0x45;
        packet[12..16].copy_from_slice(&[198, 18, SITE, 10]);
        packet[16..20].copy_from_slice(&[198, 18, 0, 10]);
        packet
    }

    fn to_core(impairment: Impairment) -> BTreeMap<u8, Impairments> {
        BTreeMap::from([(SITE, Impairments { to_core: impairment, ..Impairments::default() })])
    }

    /// Sizes of the runs of losses among many packets.
    fn loss_runs(impairment: Impairment) -> Vec<u32> {
        let impairments = to_core(impairment);
        let mut shaper = Shaper::new(7);
        let mut runs = vec![0];
        for _ in 0..100_000 {
            shaper.offer(&packet(84), Direction::ToCore, &impairments, Duration::ZERO);
            match shaper.take_due(Duration::MAX) {
                Some(_) => runs.push(0),
                None => *runs.last_mut().expect("never empty") += 1,
            }
        }
        runs
    }

    #[test]
    fn loss_in_bursts_has_the_ratio_and_the_run_length_that_were_asked_for() {
        let runs =
            loss_runs(Impairment { loss_ratio: 0.1, loss_run_mean: 4.0, ..Impairment::NONE });
        let lost: u32 = runs.iter().sum();
        let bursts = runs.iter().filter(|run| **run > 0).count();
        assert!((9_000..11_000).contains(&lost), "{lost}");
        let mean = f64::from(lost) / bursts as f64;
        assert!((3.6..4.4).contains(&mean), "{mean}");
    }

    #[test]
    fn independent_loss_has_its_ratio() {
        let lost: u32 = loss_runs(Impairment { loss_ratio: 0.5, ..Impairment::NONE }).iter().sum();
        assert!((49_000..51_000).contains(&lost), "{lost}");
    }

    #[test]
    fn a_packet_leaves_after_its_delay_and_not_before() {
        let impairments = to_core(Impairment { delay_ms: 200, ..Impairment::NONE });
        let mut shaper = Shaper::new(7);
        shaper.offer(&packet(84), Direction::ToCore, &impairments, Duration::from_secs(1));
        assert_eq!(shaper.next_due(), Some(Duration::from_millis(1200)));
        assert_eq!(shaper.take_due(Duration::from_millis(1199)), None);
        assert_eq!(
            shaper.take_due(Duration::from_millis(1200)),
            Some((Direction::ToCore, packet(84)))
        );
    }

    #[test]
    fn only_the_site_that_is_cut_loses_anything() {
        let impairments = BTreeMap::from([(SITE, Impairments::BLACK_HOLE)]);
        let mut shaper = Shaper::new(7);
        shaper.offer(&packet(84), Direction::ToCore, &impairments, Duration::ZERO);
        assert_eq!(shaper.next_due(), None);
        let mut other = packet(84);
        other[14] = SITE + 1;
        shaper.offer(&other, Direction::ToCore, &impairments, Duration::ZERO);
        assert_eq!(shaper.next_due(), Some(Duration::ZERO));
    }

    #[test]
    fn a_silent_hole_swallows_what_is_too_big() {
        let impairments = to_core(Impairment { packet_bytes_max: 1400, ..Impairment::NONE });
        let mut shaper = Shaper::new(7);
        shaper.offer(&packet(1401), Direction::ToCore, &impairments, Duration::ZERO);
        assert_eq!(shaper.next_due(), None);
        shaper.offer(&packet(1400), Direction::ToCore, &impairments, Duration::ZERO);
        assert_eq!(shaper.next_due(), Some(Duration::ZERO));
    }

    #[test]
    fn an_ipv6_path_is_found_by_the_fourth_group() {
        let mut packet = vec![0; 104];
        packet[0] = 0x60;
        packet[15] = SITE;
        let cut = BTreeMap::from([(SITE, Impairments::BLACK_HOLE)]);
        let mut shaper = Shaper::new(7);
        shaper.offer(&packet, Direction::ToCore, &cut, Duration::ZERO);
        assert_eq!(shaper.next_due(), None);
        shaper.offer(&packet, Direction::ToSite, &cut, Duration::ZERO);
        assert_eq!(shaper.next_due(), Some(Duration::ZERO), "to another site");
    }

    #[test]
    fn what_is_no_whole_packet_is_dropped() {
        let mut shaper = Shaper::new(7);
        for hostile in [&[][..], &[0x45; 19], &[0x60; 39], &[0x50; 40]] {
            shaper.offer(hostile, Direction::ToCore, &BTreeMap::new(), Duration::ZERO);
        }
        assert_eq!(shaper.next_due(), None);
    }
}
