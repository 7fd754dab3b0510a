//! What the core learns of an agency's gateway. Its silence means something only if it
//! answered while the agency was verified: many routers ignore echo altogether.

use std::net::IpAddr;
use std::time::Duration;

/// Unanswered checks in a row that count as silence.
const BAD_CHECKS: u32 = 4;
/// Time between checks while the agency is late.
const LATE_PERIOD: Duration = Duration::from_millis(1500);
/// Time between checks while the agency is well, to learn whether the gateway answers.
const CALM_PERIOD: Duration = Duration::from_secs(300);

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) address: IpAddr,
    answered_while_verified: bool,
    bad_checks: u32,
    checked_at: Option<Duration>,
}

impl Gateway {
    pub(super) fn new(address: IpAddr) -> Self {
        Self {
            address,
            answered_while_verified: false,
            bad_checks: 0,
            checked_at: None,
        }
    }

    /// A verified message came in: whatever the checks said before is over.
    pub(super) fn agency_verified(&mut self) {
        self.bad_checks = 0;
    }

    pub(super) fn wants_check(&self, late: bool, mono: Duration) -> bool {
        if late && !self.answered_while_verified {
            return false;
        }
        let period = if late { LATE_PERIOD } else { CALM_PERIOD };
        self.checked_at.is_none_or(|at| mono.saturating_sub(at) >= period)
    }

    pub(super) fn checked(&mut self, answered: bool, agency_verified: bool, mono: Duration) {
        self.checked_at = Some(mono);
        if answered {
            self.bad_checks = 0;
            self.answered_while_verified |= agency_verified;
        } else if !agency_verified {
            self.bad_checks = self.bad_checks.saturating_add(1);
        } else {
            // A gateway that stopped answering a working agency proves nothing any more.
            self.answered_while_verified = false;
        }
    }

    /// It used to answer, and does not now.
    pub(super) fn is_lost(&self) -> bool {
        self.answered_while_verified && self.bad_checks >= BAD_CHECKS
    }
}
