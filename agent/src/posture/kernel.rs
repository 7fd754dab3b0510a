//! What the running kernel says, asked once for a whole pass over netlink and by system calls.
//! Checks get it as values, so that a fixture can state it as well as a machine.

use std::path::Path;

use crate::evidence::Surroundings;

use super::finding::Unknown;
use super::kernel_audit::{self, AuditStatus};
use super::kernel_clock::{self, ClockDiscipline, ClockOffset};
use super::listeners::{self, Listener};
use super::netfilter::{self, Ruleset};
use super::readers;
use super::routes;

/// The answers, each by itself: one that is missing leaves the others as they are.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// What else this machine is attached to than the dedicated network.
    pub surroundings: Result<Surroundings, Unknown>,
    /// Who disciplines the clock, and how well.
    pub clock: Result<ClockDiscipline, Unknown>,
    /// How far the clock is from the collector's, where a running agent knows it.
    pub collector_clock: Option<ClockOffset>,
    /// Whether the kernel audits.
    pub audit: Result<AuditStatus, Unknown>,
    /// Rules for packets that come in.
    pub netfilter: Result<Ruleset, Unknown>,
    /// Sockets that wait for strangers.
    pub listeners: Result<Vec<Listener>, Unknown>,
    /// Interfaces that a router advertisement gave an IPv6 default route.
    pub advertised_routes: Result<Vec<u32>, Unknown>,
}

impl Kernel {
    /// Asks this machine's kernel. Takes some milliseconds; each question has its own timeout.
    /// The surroundings come from whoever knows which interface is the dedicated one. What this
    /// process may not ask of the packet filter, the reader at `netfilter_socket` may.
    pub fn ask(surroundings: Result<Surroundings, Unknown>, netfilter_socket: &Path) -> Self {
        Self {
            surroundings,
            clock: kernel_clock::ask(),
            collector_clock: None,
            audit: kernel_audit::ask(),
            netfilter: match netfilter::ask() {
                Err(Unknown::PermissionDenied { .. }) => readers::netfilter::ask(netfilter_socket),
                asked => asked,
            },
            listeners: listeners::ask(),
            advertised_routes: routes::ask(),
        }
    }

    /// A kernel that was asked nothing, for the reason given.
    pub fn unanswered(why: &Unknown) -> Self {
        Self {
            surroundings: Err(why.clone()),
            clock: Err(why.clone()),
            audit: Err(why.clone()),
            netfilter: Err(why.clone()),
            listeners: Err(why.clone()),
            advertised_routes: Err(why.clone()),
            collector_clock: None,
        }
    }
}
