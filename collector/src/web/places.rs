//! Who has a place among the connections of the HTTP side, and who gives one up. Pure.
//!
//! A newcomer is let in as long as anybody can be found who does less with a place: there is no
//! queue in which those who never read could stand before Prometheus. When every place is taken,
//! the source with the most gives one up for one that has less. A source that has its share takes
//! from itself alone, so that others cannot drive it out. Who goes is whose answer waits for its
//! reader, and of those the one that took nothing for longest; without two places between the
//! sources, who took something within [`REST_MIN`] stays.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

/// Connections open at a time. A page, a Prometheus pair and a few API clients need a tenth.
pub(super) const PLACES_MAX: usize = 64;
/// Of those, so many for one source: a browser opens six, and a proxy before us has all its
/// clients' together.
pub(super) const PLACES_OF_SOURCE_MAX: usize = 16;
/// Whoever took nothing for so long may be sent away for a newcomer of its own source: longer than
/// a lost packet holds an answer up (RFC 6298, section 2: a second at first), half of the shipped
/// 4 s of a scrape. It bounds what those cost who never read and come back at once: 32 answers a
/// second, all of them together.
pub(super) const REST_MIN: Duration = Duration::from_secs(2);

/// A connection, as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    /// Where it comes from.
    pub(super) source: IpAddr,
    /// Whether an answer waits for its reader.
    pub(super) is_awaited: bool,
    /// Since its reader last took something, or since it was let in.
    pub(super) rest: Duration,
}

/// What becomes of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// There is room.
    Free,
    /// The connection with this position gives way.
    InPlaceOf(usize),
    /// Everybody does more with a place.
    Refused,
}

/// Decides on a newcomer from this source.
pub(super) fn admit(source: IpAddr, taken: &[Standing]) -> Admission {
    let mut counts: HashMap<IpAddr, usize> = HashMap::new();
    for standing in taken {
        *counts.entry(standing.source).or_default() += 1;
    }
    let of_source = |source: &IpAddr| counts.get(source).copied().unwrap_or(0);
    let own = of_source(&source);
    if own < PLACES_OF_SOURCE_MAX && taken.len() < PLACES_MAX {
        return Admission::Free;
    }
    let most = counts.values().max().copied().unwrap_or(0);
    let is_behind = own < PLACES_OF_SOURCE_MAX && most > own + 1;
    let gives = |standing: &Standing| match (is_behind, own) {
        (true, _) => of_source(&standing.source) == most,
        (false, 0) => standing.rest >= REST_MIN,
        (false, _) => standing.source == source && standing.rest >= REST_MIN,
    };
    taken
        .iter()
        .enumerate()
        .filter(|(_, standing)| gives(standing))
        .max_by_key(|(_, standing)| (standing.is_awaited, standing.rest))
        .map_or(Admission::Refused, |(position, _)| Admission::InPlaceOf(position))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMETHEUS: IpAddr = machine(0);

    const fn machine(number: u16) -> IpAddr {
        let [high, low] = number.to_be_bytes();
        IpAddr::V4(std::net::Ipv4Addr::new(198, 18, high, low))
    }

    /// So many connections of a machine whose answers wait, the first of them for longest.
    fn stalled(number: u16, count: usize, longest_ms: u64) -> impl Iterator<Item = Standing> {
        (0..count).map(move |at| Standing {
            source: machine(number),
            is_awaited: true,
            rest: Duration::from_millis(longest_ms - at as u64),
        })
    }

    fn idle(number: u16, rest_ms: u64) -> Standing {
        let rest = Duration::from_millis(rest_ms);
        Standing { source: machine(number), is_awaited: false, rest }
    }

    #[test]
    fn with_room_everybody_is_let_in() {
        assert_eq!(admit(PROMETHEUS, &[]), Admission::Free);
        let taken: Vec<_> = stalled(1, PLACES_OF_SOURCE_MAX - 1, 9_000).collect();
        assert_eq!(admit(machine(1), &taken), Admission::Free);
    }

    #[test]
    fn one_source_gives_way_to_itself_once_it_took_nothing_for_a_while() {
        let taken: Vec<_> = stalled(1, PLACES_OF_SOURCE_MAX, 1_900).collect();
        assert_eq!(admit(machine(1), &taken), Admission::Refused);
        let taken: Vec<_> = stalled(1, PLACES_OF_SOURCE_MAX, 2_000).collect();
        assert_eq!(admit(machine(1), &taken), Admission::InPlaceOf(0));
        assert_eq!(admit(PROMETHEUS, &taken), Admission::Free, "the others have room");
    }

    #[test]
    fn when_all_places_are_taken_the_source_with_the_most_gives_one_up_at_once() {
        let four = (1..=4).flat_map(|number| stalled(number, PLACES_OF_SOURCE_MAX, 100));
        let taken: Vec<_> = four.collect();
        assert_eq!(taken.len(), PLACES_MAX);
        assert!(matches!(admit(PROMETHEUS, &taken), Admission::InPlaceOf(_)));
        let mut mixed: Vec<_> = stalled(1, 3, 50_000).collect();
        mixed.extend((2..=9).flat_map(|number| stalled(number, 7, 200 - u64::from(number))));
        mixed.extend(stalled(10, 5, 60_000));
        assert_eq!(mixed.len(), PLACES_MAX);
        assert_eq!(admit(PROMETHEUS, &mixed), Admission::InPlaceOf(3), "of those with seven");
    }

    #[test]
    fn among_equals_who_never_reads_goes_before_who_is_idle_and_who_has_just_read_stays() {
        let last = PLACES_MAX as u16 - 1;
        let mut taken: Vec<_> = (1..=last).map(|number| idle(number, 20_000)).collect();
        taken.extend(stalled(last + 1, 1, 2_500));
        assert_eq!(admit(PROMETHEUS, &taken), Admission::InPlaceOf(last.into()));
        let taken: Vec<_> = (1..=last + 1).flat_map(|number| stalled(number, 1, 1_900)).collect();
        assert_eq!(admit(PROMETHEUS, &taken), Admission::Refused);
        let taken: Vec<_> = (1..=last + 1).map(|number| idle(number, number.into())).collect();
        assert_eq!(admit(PROMETHEUS, &taken), Admission::Refused);
    }

    #[test]
    fn a_source_with_its_share_takes_from_itself_alone() {
        let mut taken: Vec<_> = (1..=16).flat_map(|number| stalled(number, 4, 500)).collect();
        assert_eq!(admit(machine(1), &taken), Admission::Refused, "all have just read");
        taken[7].rest = Duration::from_secs(60);
        assert_eq!(admit(machine(1), &taken), Admission::Refused, "that is another's");
        assert_eq!(admit(machine(2), &taken), Admission::InPlaceOf(7));
    }
}
