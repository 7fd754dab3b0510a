//! What the running kernel says, asked once for a whole pass over netlink and by system calls.
//! Checks get it as values, so that a fixture can state it as well as a machine.

use crate::evidence::Surroundings;

use super::finding::Unknown;
use super::kernel_audit::AuditStatus;
use super::kernel_clock::ClockDiscipline;

/// The answers, each by itself: one that is missing leaves the others as they are.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What else this machine is attached to than the dedicated network.
    pub surroundings: Result<Surroundings, Unknown>,
    /// Who disciplines the clock, and how well.
    pub clock: Result<ClockDiscipline, Unknown>,
    /// Whether the kernel audits.
    pub audit: Result<AuditStatus, Unknown>,
}
