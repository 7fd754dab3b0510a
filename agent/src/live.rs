//! What holds true now: written by the observer after each cycle, read by uplink and status.
//!
//! The counts of quality add up until a report takes them, so that none is sent twice and none is
//! lost with a report that failed. A `watch` channel holds the value: its lock is never kept
//! across a wait.

use std::time::Duration;

use haidang_proto::model::fact::Fact;
use haidang_proto::model::flag::Flags;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::record::Moment;
use haidang_proto::model::verdict::{UnknownCause, Verdict};
use tokio::sync::watch;

/// Counts older than this say nothing of the present: a path that nobody could be told of for
/// days is reported as it is now.
const QUALITY_WINDOW_MAX: Duration = Duration::from_secs(900);

/// The present state of the path.
#[derive(Debug, Clone)]
pub struct View {
    /// The committed verdict.
    pub verdict: Verdict,
    /// Since when.
    pub since: Moment,
    /// When the latest cycle began in which the path carried packets, on CLOCK_BOOTTIME.
    pub proved_at: Option<Duration>,
    /// Findings beside it.
    pub flags: Flags,
    /// Facts behind it.
    pub evidence: Vec<Fact>,
    /// What else this machine is attached to, and what joins the networks.
    pub surroundings: Vec<Fact>,
    /// Counts since the last report that took them.
    pub quality: Quality,
    /// Grows whenever verdict or flags change: that is worth a report of its own.
    pub changes: u64,
}

/// A handle on the present state.
#[derive(Debug, Clone)]
pub struct Live {
    view: watch::Sender<View>,
}

impl Live {
    /// Nothing is known yet.
    pub fn new(now: Moment) -> Self {
        let view = View {
            verdict: Verdict::Unknown(UnknownCause::Starting),
            since: now,
            proved_at: None,
            flags: Flags::default(),
            evidence: Vec::new(),
            surroundings: Vec::new(),
            quality: Quality::default(),
            changes: 0,
        };
        Self { view: watch::Sender::new(view) }
    }

    /// What a cycle has left behind.
    pub fn observe(
        &self,
        verdict: Verdict,
        since: Moment,
        proved_at: Option<Duration>,
        flags: Flags,
        evidence: Vec<Fact>,
        quality: &Quality,
    ) {
        self.view.send_modify(|view| {
            if view.verdict != verdict || view.flags != flags {
                view.changes += 1;
            }
            view.verdict = verdict;
            view.since = since;
            view.proved_at = proved_at;
            view.flags = flags;
            view.evidence = evidence;
            if view.quality.window > QUALITY_WINDOW_MAX {
                view.quality = Quality::default();
            }
            view.quality.merge(quality);
        });
    }

    /// What a cycle saw around the machine. Told together with [`Self::observe`], which follows.
    pub fn surround(&self, surroundings: Vec<Fact>) {
        self.view.send_if_modified(|view| {
            view.surroundings = surroundings;
            false
        });
    }

    /// The present state, with its counts, which start again from nothing.
    pub fn take(&self) -> View {
        let mut taken = None;
        self.view.send_if_modified(|view| {
            taken = Some(view.clone());
            view.quality = Quality::default();
            false
        });
        taken.unwrap_or_else(|| self.view.borrow().clone())
    }

    /// Counts that did not arrive count again.
    pub fn give_back(&self, quality: &Quality) {
        self.view.send_if_modified(|view| {
            view.quality.merge(quality);
            false
        });
    }

    /// The present state, to look at.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Notices every cycle.
    pub fn watch(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use haidang_proto::model::verdict::DownCause;
    use uuid::Uuid;

    use super::*;

    fn live() -> Live {
        let boot_id = Uuid::nil();
        Live::new(Moment { boot_id, boottime: Duration::ZERO, wall: SystemTime::UNIX_EPOCH })
    }

    fn observe(live: &Live, verdict: Verdict, seconds: u64) {
        let window = Duration::from_secs(seconds);
        let quality = Quality { window, sent: 2, lost: 2, ..Quality::default() };
        let since = live.view().since;
        live.observe(verdict, since, None, Flags::default(), Vec::new(), &quality);
    }

    #[test]
    fn counts_are_reported_once_and_return_when_a_report_fails() {
        let live = live();
        observe(&live, Verdict::Connected, 4);
        observe(&live, Verdict::Connected, 4);
        let taken = live.take().quality;
        assert_eq!(taken.sent, 4);
        assert_eq!(live.view().quality.sent, 0);
        live.give_back(&taken);
        observe(&live, Verdict::Connected, 4);
        assert_eq!(live.take().quality.sent, 6);
    }

    #[test]
    fn counts_that_are_too_old_are_forgotten() {
        let live = live();
        observe(&live, Verdict::Connected, 901);
        observe(&live, Verdict::Connected, 4);
        assert_eq!(live.take().quality.sent, 2);
    }

    #[test]
    fn only_a_change_of_verdict_or_flags_counts_as_one() {
        let live = live();
        observe(&live, Verdict::Connected, 4);
        observe(&live, Verdict::Connected, 4);
        observe(&live, Verdict::Disconnected(DownCause::LinkDown), 4);
        assert_eq!(live.view().changes, 2);
    }
}
