//! The security order of machines and agencies as figures. Pure: time is an argument.
//!
//! An agent's snapshots are merged into what is held of its machine (`held`); the machine's score
//! comes from which checks pass, fail, are not applicable or unknown (`machine`), and the agency's
//! figures from all machines that are *enrolled*, heard of or not (`agency`). Whatever is missing
//! (a check, a snapshot, a machine) counts as not passed, so that silence never improves a figure.
//! Exceptions (`exception`) explain a failure and change no figure; a policy (`policy`) says what is
//! asked of an agency.

mod agency;
mod exception;
mod held;
mod machine;
mod policy;

#[cfg(test)]
mod laws;

pub use agency::{AgencyPosture, Enrolled, MachineFigures, Standing, agency_posture};
pub use exception::{EXCEPTIONS_MAX, Exception, ExceptionError, ExceptionTerms, Exceptions};
pub use held::{Answer, HeldPosture, Order};
pub use machine::{CRITICAL_CAP, Findings, MachinePosture, WEIGHED};
pub use policy::{Decision, Policies, Policy, PolicyChange, PolicyError, PolicyTerms, Scope};
