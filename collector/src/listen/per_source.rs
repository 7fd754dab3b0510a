//! How much of something each source has under way, with a bound on each.

use std::collections::HashMap;
use std::net::IpAddr;

/// Counts by source; sources with nothing under way are forgotten.
#[derive(Debug)]
pub(super) struct PerSource {
    counts: HashMap<IpAddr, usize>,
    each_max: usize,
}

impl PerSource {
    /// At most `each_max`, and at least one, for each source.
    pub(super) fn new(each_max: usize) -> Self {
        Self { counts: HashMap::new(), each_max: each_max.max(1) }
    }

    /// Takes one more for a source, if it may have it.
    pub(super) fn enter(&mut self, source: IpAddr) -> bool {
        let count = self.counts.entry(source).or_insert(0);
        let enters = *count < self.each_max;
        *count += usize::from(enters);
        enters
    }

    /// Gives one back.
    pub(super) fn leave(&mut self, source: IpAddr) {
        if let Some(count) = self.counts.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_bound_and_who_left_is_forgotten() {
        let mut per_source = PerSource::new(2);
        let [one, other] = [1, 2].map(|last| IpAddr::from([198, 18, 0, last]));
        assert!(per_source.enter(one) && per_source.enter(one));
        assert!(!per_source.enter(one) && per_source.enter(other));
        per_source.leave(one);
        assert!(per_source.enter(one));
        for source in [one, one, other] {
            per_source.leave(source);
        }
        assert!(per_source.counts.is_empty());
    }
}
