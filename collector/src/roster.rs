//! The roster: which agencies there are, and from which prefixes each may speak.
//!
//! It is the denominator of every figure, so it is parsed strictly (`parse`): a file with
//! one bad row is refused whole and the roster in force stays. Prefixes have validity dates,
//! because the network's law changes.

mod diff;
mod parse;
mod prefix_index;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use haidang_proto::model::agency::AgencyId;
use ipnet::IpNet;
use jiff::civil::Date;

pub use diff::RosterDiff;
pub use parse::{Loopback, RosterError, RosterProblem, Source, parse};
use prefix_index::PrefixIndex;

/// Agencies a roster may have: the nation had 11,384 people's committees in 2020.
pub const ROWS_MAX: usize = 100_000;

/// A parsed roster.
#[derive(Debug)]
pub struct Roster {
    version: String,
    agencies: Vec<Agency>,
    by_id: HashMap<AgencyId, usize>,
    seen: PrefixIndex,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Agency {
    /// Official code path.
    pub id: AgencyId,
    /// Official unit name, Unicode NFC.
    pub name: String,
    /// Level.
    pub kind: AgencyKind,
    /// Administrative parent; the city root itself has no row.
    pub parent: AgencyId,
    /// General Statistics Office code; empty for departments.
    pub gso_code: String,
    /// Electronic identifier (QĐ 20/2020/QĐ-TTg); empty where unknown.
    pub id_code: String,
    /// WGS84 latitude and longitude in degrees.
    pub position: Option<(f64, f64)>,
    /// Topology parent (POP or circuit), where it is known.
    pub uplink: Option<String>,
    /// Prefixes on the agency's own machines.
    pub local_prefixes: Vec<DatedPrefix>,
    /// Prefixes as the core sees them (behind the agency's NAT, if it has one). Empty: the
    /// local ones.
    pub seen_prefixes: Vec<DatedPrefix>,
    /// The agency's gateways, for checks from the core.
    pub gateways: Vec<IpAddr>,
    /// How many agents should be there.
    pub agents_expected: Option<u32>,
    /// Days on which the row holds.
    pub validity: Validity,
}

/// A prefix and the days on which it is the agency's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DatedPrefix {
    /// The prefix, without host bits.
    pub prefix: IpNet,
    /// The days.
    pub validity: Validity,
}

/// Inclusive range of days; an open end is always valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Validity {
    /// First day.
    pub from: Option<Date>,
    /// Last day.
    pub to: Option<Date>,
}

impl Validity {
    /// Whether the day is within.
    pub fn holds_on(self, day: Date) -> bool {
        self.from.is_none_or(|from| from <= day) && self.to.is_none_or(|to| day <= to)
    }

    /// Whether two ranges share a day.
    pub fn overlaps(self, other: Self) -> bool {
        self.intersection(other).is_some()
    }

    /// The days that two ranges share; `None` when they share none.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let earlier = |a: Option<Date>, b: Option<Date>| match (a, b) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let shared = Self { from: self.from.max(other.from), to: earlier(self.to, other.to) };
        let is_empty = matches!((shared.from, shared.to), (Some(from), Some(to)) if from > to);
        (!is_empty).then_some(shared)
    }
}

/// Levels of the administration, as the official code lists name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AgencyKind {
    /// Sở, ban, ngành: departments and their equals.
    SoBanNganh,
    /// Quận: urban district.
    Quan,
    /// Huyện: rural district.
    Huyen,
    /// Thị xã: district-level town.
    ThiXa,
    /// Phường: ward.
    Phuong,
    /// Xã: commune.
    Xa,
    /// Thị trấn: township.
    ThiTran,
}

impl AgencyKind {
    /// Every kind.
    pub const ALL: &[Self] = &[
        Self::SoBanNganh,
        Self::Quan,
        Self::Huyen,
        Self::ThiXa,
        Self::Phuong,
        Self::Xa,
        Self::ThiTran,
    ];

    /// The label in the roster, in metrics and in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SoBanNganh => "so_ban_nganh",
            Self::Quan => "quan",
            Self::Huyen => "huyen",
            Self::ThiXa => "thi_xa",
            Self::Phuong => "phuong",
            Self::Xa => "xa",
            Self::ThiTran => "thi_tran",
        }
    }

    fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.as_str() == label)
    }
}

impl Agency {
    /// The agency's full official name: a people's committee is named after its unit.
    pub fn full_name(&self) -> String {
        match self.kind {
            AgencyKind::SoBanNganh => self.name.clone(),
            _ => format!("UBND {}", self.name),
        }
    }

    /// Prefixes from which the core sees the agency.
    pub fn source_prefixes(&self) -> &[DatedPrefix] {
        if self.seen_prefixes.is_empty() { &self.local_prefixes } else { &self.seen_prefixes }
    }
}

impl Roster {
    pub(crate) fn new(version: String, agencies: Vec<Agency>) -> Self {
        let by_id =
            agencies.iter().enumerate().map(|(row, agency)| (agency.id.clone(), row)).collect();
        let mut seen = PrefixIndex::default();
        for (row, agency) in agencies.iter().enumerate() {
            for dated in agency.source_prefixes() {
                seen.insert(row, *dated);
            }
        }
        Self { version, agencies, by_id, seen }
    }

    /// First 12 hexadecimal digits of the SHA-256 of what was imported.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All rows, in the order of the file, whether they hold today or not.
    pub fn agencies(&self) -> &[Agency] {
        &self.agencies
    }

    /// The rows that hold on a day.
    pub fn valid_on(&self, day: Date) -> impl Iterator<Item = (usize, &Agency)> {
        let rows = self.agencies.iter().enumerate();
        rows.filter(move |(_, agency)| agency.validity.holds_on(day))
    }

    /// The row of an agency's parent; `None` directly under the city, which has no row.
    pub fn parent_of(&self, row: usize) -> Option<usize> {
        self.row(&self.agencies[row].parent)
    }

    /// The rows directly under an agency, or under the city by its id.
    pub fn children_of(&self, parent: &AgencyId) -> impl Iterator<Item = usize> {
        let rows = self.agencies.iter().enumerate();
        rows.filter(move |(_, agency)| agency.parent == *parent).map(|(row, _)| row)
    }

    /// The row of an agency.
    pub fn row(&self, id: &AgencyId) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    /// Which agency a source address belongs to on a day. Cost grows with the number of
    /// distinct prefix lengths, not with the roster.
    pub fn owner_of(&self, source: IpAddr, day: Date) -> Option<usize> {
        self.seen.owner_of(source, day)
    }

    /// Whether the agency's row names any prefix on that day.
    pub fn has_prefixes(&self, row: usize, day: Date) -> bool {
        self.agencies[row].source_prefixes().iter().any(|dated| dated.validity.holds_on(day))
    }
}

impl fmt::Display for AgencyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
