//! What the core learns of an agency's gateway. Its silence means something only if it
//! answered while the agency was verified: many routers ignore echo altogether.

use std::net::IpAddr;
use std::time::Duration;

/// Unanswered checks in a row that count as silence.
const BAD_CHECKS: u8 = 4;
/// Time between checks while the agency is late, or while one check went unanswered.
const DOUBT_PERIOD: Duration = Duration::from_millis(1500);
/// Time between checks once it is lost: only to see whether it comes back.
const LOST_PERIOD: Duration = Duration::from_secs(15);
/// Time between checks while the agency is well, to learn whether the gateway answers.
const CALM_PERIOD: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    answered_while_verified: bool,
    bad_checks: u8,
    checked_at: Option<Duration>,
}

impl Gateway {
    pub(super) const fn new(address: IpAddr) -> Self {
        Self { address, answered_while_verified: false, bad_checks: 0, checked_at: None }
    }

    /// A verified message came in. If checks went unanswered until now, either the gateway was
    /// mute on a path that works, or the path is just back: what was learnt is void, and is
    /// learnt anew at once.
    pub(super) fn agency_verified(&mut self) {
        if self.bad_checks > 0 {
            self.checked_at = self.checked_at.filter(|_| !self.answered_while_verified);
            self.answered_while_verified = false;
            self.bad_checks = 0;
        }
    }

    /// The office is closed and nothing is heard: its router may be switched off. What was
    /// learnt is void until the agency is verified again; an outage that was seen before stands.
    pub(super) fn office_closed(&mut self) {
        if !self.is_lost() {
            self.answered_while_verified = false;
            self.bad_checks = 0;
        }
    }

    pub(super) fn wants_check(&self, agency_is_late: bool, mono: Duration) -> bool {
        // It never answered: its silence would prove nothing.
        if agency_is_late && !self.answered_while_verified {
            return false;
        }
        let period = if self.is_lost() {
            LOST_PERIOD
        } else if agency_is_late || self.answered_while_verified && self.bad_checks > 0 {
            DOUBT_PERIOD
        } else {
            CALM_PERIOD
        };
        self.checked_at.is_none_or(|at| mono.saturating_sub(at) >= period)
    }

    pub(super) fn checked(&mut self, answered: bool, agency_is_late: bool, mono: Duration) {
        self.checked_at = Some(mono);
        if answered {
            self.bad_checks = 0;
            self.answered_while_verified |= !agency_is_late;
        } else {
            self.bad_checks = self.bad_checks.saturating_add(1);
        }
    }

    /// It used to answer, and does not now.
    pub(super) const fn is_lost(&self) -> bool {
        self.answered_while_verified && self.bad_checks >= BAD_CHECKS
    }
}
