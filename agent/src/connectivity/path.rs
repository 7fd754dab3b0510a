//! Reach: is the path up, down or not known? Rows of equal cycles decide, never one cycle.
//!
//! | from | to | when |
//! |---|---|---|
//! | up | down | 4 bad in a row with TCP tried, or twice as many where no anchor offers TCP; a kernel-visible cause that has stood for 3 s |
//! | down | down, other cause | 2 equal cycles; a deeper kernel-visible cause at once |
//! | down | up | 3 good in a row; then recovering until 60 s without a bad cycle |
//! | any | unknown | 4 unclear in a row; twice as many without proof of either kind; a suspend |
//! | unknown | up, down | as above; nothing before the warm-up's end, no `down` soon after a suspend |
//!
//! An unclear cycle breaks every row: bad, unclear, bad is not two bad in a row.

use std::time::Duration;

use haidang_proto::model::record::{Event, Moment};
use haidang_proto::model::verdict::{DownCause, UnknownCause};

use crate::config;
use crate::schedule::Mode;

use super::ladder::{Judgement, Proof, TcpTried, is_kernel_visible};

/// Equal cycles that change one down cause into another.
const EQUAL_CYCLES: u32 = 2;
/// Factor on the bad cycles where the evidence is one protocol only, or of mixed kinds.
const WEAK_EVIDENCE_FACTOR: u32 = 2;

/// Whether the path carries packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    Up,
    Down(DownCause),
    Unknown(UnknownCause),
}

/// What a cycle changed.
#[derive(Debug, Default)]
pub(super) struct Change {
    /// The reach changed, and this is when the new one was first seen.
    pub(super) first_seen: Option<Moment>,
    /// Bad cycles that healed before they were committed.
    pub(super) short_outage: Option<Event>,
}

/// The state machine of reach.
#[derive(Debug)]
pub(super) struct Path {
    limits: config::Verdict,
    reach: Reach,
    /// Whether the last reach that was known was down: the way up leads through recovering.
    fell: bool,
    /// Nothing is called up before.
    up_from: Duration,
    /// Nothing is called down before.
    down_from: Duration,
    /// Start of the clean time that ends recovering.
    clean_since: Option<Duration>,
    row: Row,
    /// Cycles since the last good one.
    unproved: u32,
}

/// The latest run of cycles of one kind.
#[derive(Debug)]
enum Row {
    Empty,
    Good { first_seen: Moment, cycles: u32 },
    Bad(BadRow),
    Unclear { first_seen: Moment, cycles: u32 },
}

#[derive(Debug)]
struct BadRow {
    first_seen: Moment,
    cycles: u32,
    tcp: TcpTried,
    cause: DownCause,
    /// The first cycle with the present cause, and their number.
    cause_seen: Moment,
    equal_cycles: u32,
    /// Since when each cycle shows a cause that the kernel sees.
    kernel_since: Option<Duration>,
}

impl Path {
    pub(super) fn new(limits: config::Verdict, now: Duration) -> Self {
        let from = now + limits.warm_up;
        Self {
            limits,
            reach: Reach::Unknown(UnknownCause::Starting),
            fell: false,
            up_from: from,
            down_from: from,
            clean_since: None,
            row: Row::Empty,
            unproved: 0,
        }
    }

    pub(super) fn reach(&self) -> Reach {
        self.reach
    }

    /// Up, but not yet proved stable.
    pub(super) fn is_recovering(&self) -> bool {
        self.reach == Reach::Up && self.clean_since.is_some()
    }

    /// How closely to watch at `now`.
    pub(super) fn mode(&self, now: Duration) -> Mode {
        match (self.reach, &self.row) {
            (Reach::Up, Row::Bad(_)) => Mode::Confirm,
            (Reach::Up, _) => Mode::Steady,
            (Reach::Down(_), Row::Good { .. }) => Mode::Confirm,
            (Reach::Down(cause), Row::Bad(row)) if row.cause != cause => Mode::Confirm,
            (Reach::Down(_), _) => Mode::Down,
            (Reach::Unknown(_), Row::Bad(_)) => Mode::Confirm,
            (Reach::Unknown(_), Row::Good { .. }) if now >= self.up_from => Mode::Confirm,
            (Reach::Unknown(_), _) => Mode::Steady,
        }
    }

    /// The machine slept: what was seen before says nothing of now. Good cycles may end this as
    /// soon as there are enough; silence is not believed while the network comes back.
    pub(super) fn resume(&mut self, now: Duration) {
        self.set(Reach::Unknown(UnknownCause::Resumed));
        self.row = Row::Empty;
        self.unproved = 0;
        self.down_from = now + self.limits.warm_up;
    }

    /// Takes in what one cycle says.
    pub(super) fn observe(
        &mut self,
        judgement: Judgement,
        started: Moment,
        now: Duration,
    ) -> Change {
        match judgement {
            Judgement::Good { proof, .. } => self.good(proof, started, now),
            Judgement::Bad { cause, tcp } => self.bad(cause, tcp, started, now),
            Judgement::Unclear(cause) => self.unclear(cause, started),
        }
    }

    fn good(&mut self, proof: Proof, started: Moment, now: Duration) -> Change {
        let short_outage = match (&self.row, self.reach) {
            (Row::Bad(row), Reach::Up) => row.healed_by(proof),
            _ => None,
        };
        let (first_seen, cycles) = match self.row {
            Row::Good { first_seen, cycles } => (first_seen, cycles.saturating_add(1)),
            _ => (started, 1),
        };
        self.row = Row::Good { first_seen, cycles };
        self.unproved = 0;
        if self.reach == Reach::Up {
            let is_clean = |since| now.saturating_sub(since) >= self.limits.recovering;
            self.clean_since = self.clean_since.filter(|since| !is_clean(*since));
            return Change { first_seen: None, short_outage };
        }
        if cycles < self.limits.good_cycles || now < self.up_from {
            return Change::default();
        }
        self.clean_since = self.fell.then_some(now);
        self.set(Reach::Up);
        Change { first_seen: Some(first_seen), short_outage: None }
    }

    fn bad(&mut self, cause: DownCause, tcp: TcpTried, started: Moment, now: Duration) -> Change {
        let row = match std::mem::replace(&mut self.row, Row::Empty) {
            Row::Bad(row) => row.extended(cause, tcp, started),
            _ => BadRow::new(cause, tcp, started),
        };
        self.unproved = self.unproved.saturating_add(1);
        self.clean_since = self.clean_since.map(|_| now);
        let may_fall = match self.reach {
            Reach::Up => true,
            Reach::Unknown(_) => now >= self.down_from,
            Reach::Down(_) => false,
        };
        let first_seen = match self.reach {
            Reach::Down(held) if row.replaces(held) => Some(row.cause_seen),
            _ if may_fall && row.convinces(&self.limits, now) => Some(row.first_seen),
            _ => None,
        };
        let cause = row.cause;
        self.row = Row::Bad(row);
        if first_seen.is_some() {
            self.set(Reach::Down(cause));
            return Change { first_seen, short_outage: None };
        }
        self.lose_faith(UnknownCause::NotMeasured, started)
    }

    fn unclear(&mut self, cause: UnknownCause, started: Moment) -> Change {
        let (first_seen, cycles) = match self.row {
            Row::Unclear { first_seen, cycles } => (first_seen, cycles.saturating_add(1)),
            _ => (started, 1),
        };
        self.row = Row::Unclear { first_seen, cycles };
        self.unproved = self.unproved.saturating_add(1);
        if cycles >= self.limits.bad_cycles && self.reach != Reach::Unknown(cause) {
            let is_warming_up = self.reach == Reach::Unknown(UnknownCause::Starting)
                && started.boottime < self.down_from;
            if !is_warming_up {
                self.set(Reach::Unknown(cause));
                return Change { first_seen: Some(first_seen), short_outage: None };
            }
        }
        self.lose_faith(cause, started)
    }

    /// Bad and unclear cycles that alternate convince of nothing, but they do not keep a path up.
    fn lose_faith(&mut self, cause: UnknownCause, started: Moment) -> Change {
        let patience = self.limits.bad_cycles.saturating_mul(WEAK_EVIDENCE_FACTOR);
        if self.reach != Reach::Up || self.unproved < patience {
            return Change::default();
        }
        self.set(Reach::Unknown(cause));
        Change { first_seen: Some(started), short_outage: None }
    }

    fn set(&mut self, reach: Reach) {
        match reach {
            Reach::Up => self.fell = false,
            Reach::Down(_) => self.fell = true,
            // Not known is no way around recovering.
            Reach::Unknown(_) => self.fell |= self.clean_since.is_some(),
        }
        if reach != Reach::Up {
            self.clean_since = None;
        }
        self.reach = reach;
    }
}

impl BadRow {
    fn new(cause: DownCause, tcp: TcpTried, started: Moment) -> Self {
        Self {
            first_seen: started,
            cycles: 1,
            tcp,
            cause,
            cause_seen: started,
            equal_cycles: 1,
            kernel_since: is_kernel_visible(cause).then_some(started.boottime),
        }
    }

    fn extended(self, cause: DownCause, tcp: TcpTried, started: Moment) -> Self {
        let (cause_seen, equal_cycles) = match cause == self.cause {
            true => (self.cause_seen, self.equal_cycles.saturating_add(1)),
            false => (started, 1),
        };
        Self {
            first_seen: self.first_seen,
            cycles: self.cycles.saturating_add(1),
            tcp: if tcp == TcpTried::Yes { tcp } else { self.tcp },
            cause,
            cause_seen,
            equal_cycles,
            kernel_since: is_kernel_visible(cause)
                .then(|| self.kernel_since.unwrap_or(started.boottime)),
        }
    }

    /// Whether the row calls a path down that was not.
    fn convinces(&self, limits: &config::Verdict, now: Duration) -> bool {
        let stands = |since: Duration| now.saturating_sub(since) >= limits.kernel_confirm;
        // The first sight alone does not stand, however slow its cycle was.
        if self.cycles >= EQUAL_CYCLES && self.kernel_since.is_some_and(stands) {
            return true;
        }
        let is_strong = self.tcp == TcpTried::Yes || self.kernel_since.is_some();
        let factor = if is_strong { 1 } else { WEAK_EVIDENCE_FACTOR };
        self.cycles >= limits.bad_cycles.saturating_mul(factor)
    }

    /// Whether the row changes the cause of a path that is down already.
    fn replaces(&self, held: DownCause) -> bool {
        let is_deeper = is_kernel_visible(self.cause) && self.cause < held;
        self.cause != held && (is_deeper || self.equal_cycles >= EQUAL_CYCLES)
    }

    /// The short outage that a good cycle ends. One silent cycle alone is packet loss, which the
    /// quality counts tell; and TCP that answers where only echo was asked heals nothing.
    fn healed_by(&self, proof: Proof) -> Option<Event> {
        let was_seen = self.cycles >= EQUAL_CYCLES || self.kernel_since.is_some();
        let is_healed =
            proof == Proof::Echo || self.tcp == TcpTried::Yes || self.kernel_since.is_some();
        (was_seen && is_healed).then_some(Event::ShortOutage {
            first_seen: self.first_seen,
            bad_cycles: self.cycles,
            cause: self.cause,
        })
    }
}
