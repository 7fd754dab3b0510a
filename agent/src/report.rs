//! Assembles a report: the present state, who is speaking (never for whom), and what the
//! collector needs to answer. Pure.

use haidang_proto::model::host::HostFacts;
use haidang_proto::model::record::Moment;
use haidang_proto::model::report::{Connectivity, JournalStatus, Report};

use crate::live::View;

/// This agent's version, as reports and records carry it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One process, as its reports present it.
#[derive(Debug, Clone, Copy)]
pub struct Process {
    /// Drawn when the process started.
    pub nonce: [u8; 16],
    /// SHA-256 over machine id and instance id.
    pub fingerprint: [u8; 32],
}

/// Versions in force, by which the collector knows what to send.
#[derive(Debug, Clone, Copy)]
pub struct Versions {
    /// Of the settings; 0 stands for the defaults.
    pub settings: u64,
    /// Of the trust bundle.
    pub trust_bundle: u64,
}

/// Numbers the reports of a process.
#[derive(Debug, Clone)]
pub struct Reporter {
    process: Process,
    sequence: u64,
}

impl Reporter {
    /// The next report is the first.
    pub fn new(process: Process) -> Self {
        Self { process, sequence: 0 }
    }

    /// The next report. `host` makes it a full one.
    pub fn assemble(
        &mut self,
        view: View,
        journal: JournalStatus,
        versions: Versions,
        host: Option<HostFacts>,
        now: Moment,
    ) -> Report {
        self.sequence += 1;
        let View {
            verdict,
            since,
            proved_at: _,
            flags,
            evidence,
            surroundings,
            quality,
            changes: _,
        } = view;
        Report {
            process_nonce: self.process.nonce,
            machine_fingerprint: self.process.fingerprint,
            sequence: self.sequence,
            sent_at: now.wall,
            agent_version: VERSION.into(),
            settings_version: versions.settings,
            trust_bundle_version: versions.trust_bundle,
            connectivity: Connectivity {
                verdict,
                verdict_age: now.boottime.saturating_sub(since.boottime),
                flags,
                quality,
                evidence,
                surroundings,
            },
            journal,
            host,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use haidang_proto::wire;
    use uuid::Uuid;

    use super::*;
    use crate::live::Live;

    fn at(seconds: u64) -> Moment {
        Moment {
            boot_id: Uuid::from_u128(1),
            boottime: Duration::from_secs(seconds),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        }
    }

    #[test]
    fn reports_are_numbered_from_one_and_survive_the_wire() {
        let mut reporter = Reporter::new(Process { nonce: [1; 16], fingerprint: [2; 32] });
        let versions = Versions { settings: 3, trust_bundle: 4 };
        let live = Live::new(at(10));
        for sequence in 1..=2 {
            let status = JournalStatus { waiting_records: 5, ..Default::default() };
            let report = reporter.assemble(live.take(), status, versions, None, at(25));
            assert_eq!(report.sequence, sequence);
            assert_eq!(report.connectivity.verdict_age, Duration::from_secs(15));
            let wire = wire::ReportRequest::from(report.clone());
            assert_eq!(Report::try_from(wire), Ok(report));
        }
    }
}
