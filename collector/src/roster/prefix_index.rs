//! Longest-prefix match from a source address to its agency, by one hash look-up for each
//! prefix length in use.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use jiff::civil::Date;

use super::{DatedPrefix, Validity};

/// Prefix → owners, each with its days.
#[derive(Debug, Default)]
pub(super) struct PrefixIndex {
    owners: HashMap<IpNet, Vec<(usize, Validity)>>,
    lengths_v4: BTreeSet<u8>,
    lengths_v6: BTreeSet<u8>,
}

impl PrefixIndex {
    pub(super) fn insert(&mut self, row: usize, dated: DatedPrefix) {
        let lengths = match dated.prefix {
            IpNet::V4(_) => &mut self.lengths_v4,
            IpNet::V6(_) => &mut self.lengths_v6,
        };
        lengths.insert(dated.prefix.prefix_len());
        self.owners.entry(dated.prefix).or_default().push((row, dated.validity));
    }

    pub(super) fn owner_of(&self, source: IpAddr, day: Date) -> Option<usize> {
        // A dual-stack listener shows IPv4 peers as mapped addresses.
        let source = source.to_canonical();
        let lengths = match source {
            IpAddr::V4(_) => &self.lengths_v4,
            IpAddr::V6(_) => &self.lengths_v6,
        };
        lengths.iter().rev().find_map(|length| {
            let prefix = IpNet::new(source, *length).ok()?.trunc();
            let owners = self.owners.get(&prefix)?;
            owners.iter().find(|(_, validity)| validity.holds_on(day)).map(|(row, _)| *row)
        })
    }
}
