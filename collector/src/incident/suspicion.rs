//! "Is it us?": many agents late at once, and no parent explains it; or our own anchors fail, or our
//! clock was stepped.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use super::{FALL_WINDOW, Member, Memory, Standing, Tree, share};

/// Share and number of late agents that make us doubt ourselves.
const LATE_SHARE: f64 = 0.2;
const LATE_AGENTS_MIN: usize = 10;
/// Branches over which they must be spread.
const BRANCHES_MIN: usize = 2;
/// So long the suspicion may stand against a majority that is heard: after that, those who are
/// heard have cleared the collector, and the rest are judged by their own facts.
const CLEARED_AFTER: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Suspicion {
    began: Option<(Duration, SystemTime)>,
    /// The majority cleared us; no new suspicion before the lateness is over.
    cleared: bool,
    /// The majority is heard although the anchors fail: then it is the anchors.
    anchors_cleared: bool,
}

/// What speaks for a doubt, apart from the agencies themselves.
#[derive(Debug)]
pub(super) struct Doubt<'a> {
    /// By group: whether its parent explains the lateness below it.
    pub(super) explained: &'a [bool],
    /// Whether our own anchors fail, or our clock cannot be believed.
    pub(super) anchors_fail: bool,
}

impl Suspicion {
    pub(super) fn since(&self) -> Option<SystemTime> {
        self.began.map(|(_, wall)| wall)
    }

    pub(super) fn update(
        &mut self,
        members: &[Member],
        tree: &Tree,
        doubt: &Doubt<'_>,
        rows: &mut [Memory],
        mono: Duration,
        wall: SystemTime,
    ) {
        let Doubt { explained, anchors_fail } = *doubt;
        self.anchors_cleared &= anchors_fail;
        let anchors_fail = anchors_fail && !self.anchors_cleared;
        let is_explained = |row: usize| {
            explained[tree.group_of[row]] || tree.heads[row].is_some_and(|group| explained[group])
        };
        let agents = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        let (mut prompt, mut late, mut unexplained) = (0, 0, 0);
        let (mut up, mut absent) = (0, 0);
        let mut branches = BTreeSet::new();
        for (row, member) in members.iter().enumerate() {
            prompt += agents(member.agents_prompt);
            late += agents(member.agents_late);
            up += usize::from(member.standing == Standing::Up);
            absent += usize::from(rows[row].suspected && is_gone(member.standing));
            if member.agents_late > 0 && !is_explained(row) {
                unexplained += agents(member.agents_late);
                let group = tree.group_of[row];
                // Each unit directly under the city is a branch of its own.
                let own_branch = tree.groups[group].is_city;
                branches.insert((own_branch, if own_branch { row } else { group }));
            }
        }
        let many = unexplained >= LATE_AGENTS_MIN
            && share(unexplained, prompt + late) > LATE_SHARE
            && branches.len() >= BRANCHES_MIN;
        self.cleared &= many;
        if let Some((began, _)) = self.began {
            let back = !many && !anchors_fail && share(absent, absent + up) <= LATE_SHARE;
            let cleared = up > absent && mono.saturating_sub(began) >= CLEARED_AFTER;
            if back || cleared {
                self.began = None;
                self.cleared = many;
                self.anchors_cleared = anchors_fail;
            }
        } else if many && !self.cleared || anchors_fail {
            self.began = Some((mono, wall));
        }
        for (row, (memory, member)) in rows.iter_mut().zip(members).enumerate() {
            let fell_now = memory.fell_at.is_some_and(|at| mono.saturating_sub(at) <= FALL_WINDOW);
            let joins = match member.standing {
                Standing::Missing if anchors_fail => member.agents_late > 0 || fell_now,
                Standing::Missing => member.agents_late > 0 && !is_explained(row),
                Standing::CoreDown => anchors_fail && fell_now,
                Standing::Up | Standing::Down | Standing::Aside => false,
            };
            // Until the suspicion is over: who saw the core go needs a moment to see it back.
            let stays = memory.suspected && is_gone(member.standing);
            memory.suspected = self.began.is_some() && (joins || stays);
        }
    }
}

/// Whether a failure of ours would look like this.
const fn is_gone(standing: Standing) -> bool {
    matches!(standing, Standing::Missing | Standing::CoreDown)
}
