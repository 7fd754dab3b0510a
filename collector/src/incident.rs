//! One cause behind many agencies. Pure: called once per tick with every agency's standing.
//!
//! **Root cause first.** When at least 60 % (and three) of the live agencies under one parent fall
//! within 120 s, that is one incident of the parent; its fallen children are listed in it and
//! their alerts are held back. The parent is the `uplink` of the roster (POP, circuit) where
//! there is one, else the administrative parent.
//!
//! **Is it us?** When more than 20 % (and ten) of the agents grow late within 60 s, across at least
//! two branches, and no parent explains them, the core or the collector is the likelier cause:
//! one incident, and the agencies concerned become `unknown`. The city itself (a parent without a
//! row) explains nothing, and when most parents fail at once the cause lies above them all.
//! The same holds while none of the collector's own anchors answers, whatever a parent would explain:
//! then an agency that says "my way ends in the core" is not accused either.
//! After a start, agents that lived until the stop and have not come back in the time that this takes
//! them count as grown late then: a collector that starts on a broken network hears nobody.
//! Lateness (1.5 intervals) is looked at rather than silence (3), so that the suspicion stands
//! before the first agency would be called silent.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use crate::roster::Roster;

mod anchors;
mod suspicion;

use anchors::Anchors;
use suspicion::{Doubt, Suspicion};

/// An agent counts as newly late for so long after it turned silent.
pub(crate) const SILENCE_WINDOW: Duration = Duration::from_secs(60);
/// Falls so far apart still belong together.
const FALL_WINDOW: Duration = Duration::from_secs(120);
/// Share and number of a parent's agencies that make an incident of it.
const PARENT_SHARE: f64 = 0.6;
const PARENT_AGENCIES_MIN: usize = 3;
/// Children that are not back when their parent's incident ends stay listed so long: agents come
/// back spread over up to a minute, and a healing line is no outage of its last few agencies.
const HEAL_WINDOW: Duration = Duration::from_secs(120);

/// One agency as these rules see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// How it stands by its own facts.
    pub(crate) standing: Standing,
    /// Agents whose last message is younger than 1.5 intervals.
    pub(crate) agents_prompt: u32,
    /// Agents that grew late a short while ago and did not stop cleanly.
    pub(crate) agents_late: u32,
    /// Some of these lived until the collector stopped, and have not come back since its start: for
    /// want of a fall that was seen, this is one.
    pub(crate) is_missed: bool,
}

impl Member {
    /// The same without its silence, which is expected: only what an agent says counts.
    pub(crate) const fn not_expected(self) -> Self {
        let standing = match self.standing {
            Standing::Missing => Standing::Aside,
            standing => standing,
        };
        Self { standing, agents_late: 0, is_missed: false, ..self }
    }
}

/// How an agency stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Connected or degraded.
    Up,
    /// An agent says so itself: disconnected with its cause.
    Down,
    /// An agent says so, and that its own side works: the way ends in the core.
    CoreDown,
    /// Nothing is heard, or the gateway answers no more.
    Missing,
    /// Nothing that these rules could explain: never verified, stopped cleanly, off the network,
    /// not in force.
    Aside,
}

impl Standing {
    const fn has_fallen(self) -> bool {
        matches!(self, Self::Down | Self::CoreDown | Self::Missing)
    }
}

/// What the incidents do to one agency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// Listed under its parent's incident.
    Parent,
    /// Listed under the suspicion: its state is `unknown`.
    Suspected,
}

/// Which agencies hang off what.
#[derive(Debug, Default)]
struct Tree {
    groups: Vec<Group>,
    /// By roster row: its group.
    group_of: Vec<usize>,
    /// By roster row: the group whose parent it is.
    heads: Vec<Option<usize>>,
}

#[derive(Debug)]
struct Group {
    name: String,
    /// The city itself, which has no row.
    is_city: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Memory {
    was_up: bool,
    fell_at: Option<Duration>,
    in_parent_incident: bool,
    /// The parent's incident is over, and this child is given so long to follow.
    heals_until: Option<Duration>,
    suspected: bool,
}

/// The incidents that hold, and what is needed to see new ones.
#[derive(Debug, Default)]
pub(crate) struct Incidents {
    tree: Tree,
    rows: Vec<Memory>,
    /// By the parent's name, so that they outlive a change of roster.
    parents: BTreeMap<String, SystemTime>,
    suspicion: Suspicion,
    anchors: Anchors,
    clock_doubted: bool,
}

impl Incidents {
    /// Whether the collector's clock was stepped so far that it may turn agents away by mistake:
    /// who is missed then is doubted as when its own anchors fail.
    pub(crate) const fn doubt_clock(&mut self, doubted: bool) {
        self.clock_doubted = doubted;
    }

    /// Whether any of the collector's own anchors answered.
    pub(crate) fn anchors_checked(&mut self, answered: bool, mono: Duration) {
        self.anchors.checked(answered, mono);
    }

    /// Takes over another roster; `former` gives each new row its old one.
    pub(crate) fn replace_roster(&mut self, roster: &Roster, former: &[Option<usize>]) {
        self.tree = Tree::of(roster);
        let old = std::mem::take(&mut self.rows);
        self.rows = former
            .iter()
            .map(|row| row.and_then(|row| old.get(row).copied()).unwrap_or_default())
            .collect();
        let names: BTreeSet<&str> = self.tree.groups.iter().map(|g| g.name.as_str()).collect();
        self.parents.retain(|name, _| names.contains(name.as_str()));
    }

    /// Looks at every agency, in roster order.
    pub(crate) fn update(&mut self, members: &[Member], mono: Duration, wall: SystemTime) {
        for (memory, member) in self.rows.iter_mut().zip(members) {
            let falls = memory.was_up || member.is_missed && memory.fell_at.is_none();
            if falls && member.standing.has_fallen() {
                memory.fell_at = Some(mono);
            } else if !member.standing.has_fallen() {
                memory.fell_at = None;
                memory.in_parent_incident = false;
                memory.heals_until = None;
            }
            memory.heals_until = memory.heals_until.filter(|until| mono < *until);
            memory.was_up = member.standing == Standing::Up;
        }
        // What a parent explains is settled first, from lateness; what it does not may be us.
        let explained = self.tree.explained(members);
        let anchors_fail = self.anchors.fail(mono) || self.clock_doubted;
        let doubt = Doubt { explained: &explained, anchors_fail };
        self.suspicion.update(members, &self.tree, &doubt, &mut self.rows, mono, wall);
        self.update_parents(members, mono, wall);
    }

    /// What holds for one row.
    pub(crate) fn effect(&self, row: usize) -> Effect {
        match self.rows.get(row) {
            Some(memory) if memory.suspected => Effect::Suspected,
            Some(memory) if memory.in_parent_incident || memory.heals_until.is_some() => {
                Effect::Parent
            }
            Some(_) | None => Effect::None,
        }
    }

    /// Parents with an incident: name, since when, rows.
    pub(crate) fn of_parents(&self) -> impl Iterator<Item = (&str, SystemTime, Vec<usize>)> {
        self.parents.iter().map(|(name, since)| {
            let rows = self.rows_where(|row, memory| {
                memory.in_parent_incident && self.tree.group_name(row) == name
            });
            (name.as_str(), *since, rows)
        })
    }

    /// The suspicion against ourselves: since when, rows.
    pub(crate) fn suspicion(&self) -> Option<(SystemTime, Vec<usize>)> {
        let since = self.suspicion.since()?;
        Some((since, self.rows_where(|_, memory| memory.suspected)))
    }

    fn rows_where(&self, wanted: impl Fn(usize, &Memory) -> bool) -> Vec<usize> {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(row, memory)| wanted(*row, memory)).map(|(row, _)| row).collect()
    }

    fn update_parents(&mut self, members: &[Member], mono: Duration, wall: SystemTime) {
        #[derive(Clone, Copy, Default)]
        struct Count {
            up: usize,
            fell_together: usize,
            listed: usize,
        }
        let mut counts = vec![Count::default(); self.tree.groups.len()];
        let recent = |memory: &Memory| {
            let in_time = |at| mono.saturating_sub(at) <= FALL_WINDOW;
            !memory.suspected && memory.fell_at.is_some_and(in_time)
        };
        for (row, (memory, member)) in self.rows.iter().zip(members).enumerate() {
            let count = &mut counts[self.tree.group_of[row]];
            count.up += usize::from(member.standing == Standing::Up);
            count.fell_together += usize::from(recent(memory));
            count.listed += usize::from(memory.in_parent_incident);
        }
        let mut holds = vec![false; counts.len()];
        for (at, (group, count)) in self.tree.groups.iter().zip(&counts).enumerate() {
            let begins = most(count.fell_together, count.fell_together + count.up);
            // It ends when no more than half of what it may explain is still down.
            let goes_on = self.parents.contains_key(&group.name) && count.listed > count.up;
            holds[at] = begins || goes_on;
            if !holds[at] {
                self.parents.remove(&group.name);
            } else if begins && !self.parents.contains_key(&group.name) {
                self.parents.insert(group.name.clone(), wall);
            }
        }
        for (row, memory) in self.rows.iter_mut().enumerate() {
            let holds = holds[self.tree.group_of[row]];
            let (fell_in_time, was_listed) = (recent(memory), memory.in_parent_incident);
            memory.in_parent_incident = holds && (was_listed || fell_in_time);
            if was_listed && !memory.in_parent_incident {
                memory.heals_until = Some(mono + HEAL_WINDOW);
            }
        }
    }
}

impl Tree {
    fn of(roster: &Roster) -> Self {
        let mut tree = Self::default();
        let mut by_name: HashMap<String, usize> = HashMap::new();
        for agency in roster.agencies() {
            let name = agency.uplink.clone().unwrap_or_else(|| agency.parent.to_string());
            let is_city = agency.uplink.is_none() && roster.row(&agency.parent).is_none();
            let next = tree.groups.len();
            let group = *by_name.entry(name.clone()).or_insert(next);
            if group == next {
                tree.groups.push(Group { name, is_city });
            }
            tree.group_of.push(group);
        }
        tree.heads =
            roster.agencies().iter().map(|a| by_name.get(a.id.as_str()).copied()).collect();
        tree
    }

    fn group_name(&self, row: usize) -> &str {
        &self.groups[self.group_of[row]].name
    }

    /// By group: whether its parent explains the lateness below it. When most parents would,
    /// none does.
    fn explained(&self, members: &[Member]) -> Vec<bool> {
        let mut late = vec![0; self.groups.len()];
        let mut live = vec![0; self.groups.len()];
        for (row, member) in members.iter().enumerate() {
            let is_late = member.agents_late > 0 && member.agents_prompt == 0;
            late[self.group_of[row]] += usize::from(is_late);
            live[self.group_of[row]] += usize::from(is_late || member.agents_prompt > 0);
        }
        let mut explained: Vec<bool> = self
            .groups
            .iter()
            .enumerate()
            .map(|(at, group)| !group.is_city && most(late[at], live[at]))
            .collect();
        let parents = self.groups.iter().zip(&live).filter(|(g, live)| !g.is_city && **live > 0);
        if most(explained.iter().filter(|failing| **failing).count(), parents.count()) {
            explained.fill(false);
        }
        explained
    }
}

/// Whether so many of so many are "most of the parent".
fn most(part: usize, whole: usize) -> bool {
    part >= PARENT_AGENCIES_MIN && share(part, whole) >= PARENT_SHARE
}

fn share(part: usize, whole: usize) -> f64 {
    let count = |n: usize| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    if whole == 0 { 0.0 } else { count(part) / count(whole) }
}
