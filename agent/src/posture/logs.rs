//! Whether what happens on this machine can be told afterwards: true time, records of security
//! events, kept long enough, and out of an attacker's reach.

mod retention;
mod shipping;

use haidang_proto::model::posture::{CheckId, FailReason};

use super::finding::{Finding, Judged};
use super::reading::root_tasks;
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::TimeSynchronised, Tier::T0, time_synchronised),
        Check::new(CheckId::AuditLoggingActive, Tier::T1, audit_logging_active),
        Check::new(CheckId::LogPersistence, Tier::T2, retention::log_persistence),
        Check::new(CheckId::LogForwarding, Tier::T2, shipping::log_forwarding),
    ],
    catalogue: include_str!("logs.toml"),
};

/// adjtimex(2): the kernel says by STA_UNSYNC that nobody has disciplined its clock for long
/// enough that the error may exceed 16 s; the estimate of the error grows by 500 ppm between
/// corrections, so a limit of some seconds is some hours without any.
///
/// The kernel does not know of a daemon that steers without telling it, or of a host that keeps its
/// guests' time, and believes a daemon that follows a wrong server. The collector's clock breaks the
/// tie: near it an undisciplined clock passes, far from it no clock does.
fn time_synchronised(evidence: &Evidence<'_>) -> Judged {
    let clock = evidence.kernel.clock.clone()?;
    let error_ms_max = evidence.threshold(CheckId::TimeSynchronised, "error_ms_max")?;
    let limit_ms = i64::try_from(error_ms_max).unwrap_or(i64::MAX);
    let offset = evidence.kernel.collector_clock;
    let agrees = offset.and_then(|offset| offset.agrees(limit_ms));
    let ahead_ms = offset.map_or(0, |offset| offset.least_ms.midpoint(offset.most_ms));
    let error_ms = clock.error_max.as_millis();
    if !clock.is_synchronised {
        let undisciplined = "nothing disciplines the kernel's clock (STA_UNSYNC)";
        return Ok(match agrees {
            Some(true) => Finding::Pass(format!(
                "{undisciplined}, but it is {ahead_ms} ms ahead of the collector's"
            )),
            Some(false) => Finding::Fail(
                FailReason::WeakValue,
                format!("{undisciplined}: {ahead_ms} ms ahead of the collector's"),
            ),
            None => Finding::Fail(FailReason::Absent, undisciplined.into()),
        });
    }
    if agrees == Some(false) {
        let seen = format!("disciplined, but {ahead_ms} ms ahead of the collector's clock");
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    }
    let seen = format!("disciplined, error at most {error_ms} ms (limit {error_ms_max} ms)");
    Ok(if error_ms > u128::from(error_ms_max) {
        Finding::Fail(FailReason::Stale, seen)
    } else {
        Finding::Pass(seen)
    })
}

/// Up to level 2 a journal daemon that runs is enough; from level 3 the kernel has to audit, with
/// a daemon that takes its records.
fn audit_logging_active(evidence: &Evidence<'_>) -> Judged {
    const LEVEL_OF_KERNEL_AUDIT: u64 = 3;
    let level = evidence.threshold(CheckId::AuditLoggingActive, "security_level")?;
    match &evidence.kernel.audit {
        Ok(audit) if audit.is_enabled && audit.has_daemon => {
            return Ok(Finding::Pass("the kernel audits and a daemon keeps the records".into()));
        }
        // What cannot be asked may still be settled by the journal.
        Err(unknown) if level >= LEVEL_OF_KERNEL_AUDIT => return Err(unknown.clone()),
        Ok(_) if level >= LEVEL_OF_KERNEL_AUDIT => {
            let seen = format!("level {level}: the kernel does not audit, or no daemon listens");
            return Ok(Finding::Fail(FailReason::Absent, seen));
        }
        Ok(_) | Err(_) => {}
    }
    // The kernel cuts names to 15 bytes: systemd-journald.
    let daemons = ["systemd-journal", "rsyslogd", "syslog-ng", "auditd"];
    let running = root_tasks(&evidence.root, &daemons)?;
    Ok(match running.first() {
        Some((_, daemon)) => Finding::Pass(format!("level {level}: {daemon} runs")),
        None => Finding::Fail(FailReason::Absent, "no log daemon runs".into()),
    })
}
