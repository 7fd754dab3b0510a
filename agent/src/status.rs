//! `haidang-agent status`: what the running agent says of itself.
//!
//! The agent has no open port. It answers on a Unix socket (mode 0660): whoever connects gets one
//! JSON document and the end of the connection; nothing is read from them. One connection is
//! served at a time, each for two seconds at most.

mod table;

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use haidang_proto::model::fact::Fact;
use haidang_proto::model::posture::{CheckId, Outcome};
use haidang_proto::model::report::JournalStatus;
use haidang_proto::model::settings::Settings;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::language::Language;
use crate::live::View;
use crate::posture::kernel_clock::ClockOffset;
use crate::posture::passes::CheckStanding;
use crate::posture::watch::Shown;
use crate::report::VERSION;
use crate::uplink::{self, Standing, Way};

/// Longest time for one reader.
const SERVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Wait after a failed accept: it fails for want of descriptors, which takes time to mend.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait of the command for an answer.
const ASK_TIMEOUT: Duration = Duration::from_secs(3);
/// Bytes of a document that the command reads: 32 facts of 256 bytes fit many times.
const DOCUMENT_BYTES_MAX: u64 = 256 << 10;

/// What the agent says. Times are RFC 3339 in UTC.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it runs.
    pub uptime_seconds: u64,
    /// The path to the dedicated network.
    pub path: PathReport,
    /// Its reports to a collector.
    pub uplink: UplinkReport,
    /// What waits on disk.
    pub journal: JournalReport,
    /// The settings in force.
    pub settings: SettingsReport,
    /// The machine's security order, as of the last pass.
    pub posture: PostureReport,
}

/// The verdict and what stands beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PathReport {
    /// The state's label.
    pub state: String,
    /// The cause's label; null when connected.
    pub cause: Option<String>,
    /// When it was committed.
    pub since: String,
    /// Labels of findings.
    pub flags: Vec<String>,
    /// Facts behind the verdict.
    pub evidence: Vec<FactReport>,
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FactReport {
    /// What sort.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// What was seen.
    pub value: String,
}

/// The uplink.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UplinkReport {
    /// not_enrolled, unusable, connecting, reporting or revoked.
    pub standing: StandingLabel,
    /// Whom it speaks for.
    pub agency: Option<String>,
    /// The agency's name.
    pub agency_name: Option<String>,
    /// Which agent.
    pub agent: Option<String>,
    /// When the certificate ends.
    pub certificate_ends: Option<String>,
    /// The collector that takes the reports.
    pub collector: Option<String>,
    /// Whether that is by the fallback.
    pub is_fallback: bool,
    /// When the last report arrived.
    pub reported_at: Option<String>,
    /// What went wrong last.
    pub problem: Option<String>,
    /// Nothing arrives because, by this machine's clock, the collector's certificate is over.
    #[serde(default)]
    pub is_clock_doubted: bool,
    /// How far this machine's clock is ahead of the collector's.
    pub clock_ahead_ms: Option<i64>,
    /// The same at most, as an answer takes time.
    pub clock_ahead_at_most_ms: Option<i64>,
}

impl UplinkReport {
    /// How far this machine's clock is ahead of the collector's, while reports arrive there.
    pub fn clock_offset(&self) -> Option<ClockOffset> {
        let is_now = self.standing == StandingLabel::Reporting;
        let least_ms = self.clock_ahead_ms.filter(|_| is_now)?;
        Some(ClockOffset { least_ms, most_ms: self.clock_ahead_at_most_ms? })
    }
}

/// Labels of [`Standing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StandingLabel {
    /// No identity.
    NotEnrolled,
    /// One that cannot be used.
    Unusable,
    /// No collector takes reports.
    Connecting,
    /// One does.
    Reporting,
    /// Nothing is sent.
    Revoked,
}

/// The journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JournalReport {
    /// Records not yet acknowledged.
    pub waiting_records: u64,
    /// Records dropped because it was full.
    pub dropped_records: u64,
    /// Damaged journals set aside by this process.
    pub set_aside: u32,
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SettingsReport {
    /// 0 stands for the defaults.
    pub version: u64,
    /// Time between reports.
    pub report_interval_seconds: f64,
    /// Time between probe cycles.
    pub probe_period_seconds: f64,
    /// The same while a change is being confirmed.
    pub confirm_period_seconds: f64,
}

/// The security order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct PostureReport {
    /// Since the last pass; null before the first.
    pub last_pass_age_seconds: Option<u64>,
    /// Processor time that the agent's process spent during it.
    pub last_pass_processor_us: u64,
    /// Each check that was made, at most as many as the catalogue has.
    pub checks: Vec<CheckReport>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Its label.
    pub check: CheckId,
    /// What it found: verdict and reason.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long ago.
    pub age_seconds: u64,
    /// How long the evaluation took.
    pub took_us: u64,
    /// It timed out three times, and is tried once a day.
    pub is_parked: bool,
}

impl PostureReport {
    fn new(shown: &Shown, now: Duration) -> Self {
        let since = shown.at.map(|at| now.saturating_sub(at));
        let check = |standing: &CheckStanding| CheckReport {
            check: standing.check,
            outcome: standing.outcome,
            age_seconds: (standing.age + since.unwrap_or_default()).as_secs(),
            took_us: u64::try_from(standing.took.as_micros()).unwrap_or(u64::MAX),
            is_parked: standing.is_parked,
        };
        Self {
            last_pass_age_seconds: since.map(|since| since.as_secs()),
            last_pass_processor_us: u64::try_from(shown.processor.as_micros()).unwrap_or(u64::MAX),
            checks: shown.standings.iter().map(check).collect(),
        }
    }
}

/// A running agent that could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody answers.
    #[error("cannot ask the agent at {}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The answer is none.
    #[error("the agent at {} gave no readable answer", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

impl Document {
    /// Puts a document together.
    pub fn new(
        view: View,
        uplink: uplink::Status,
        journal: JournalStatus,
        settings: &Settings,
        uptime: Duration,
    ) -> Self {
        let View { verdict, since, flags, evidence, .. } = view;
        Self {
            version: VERSION.into(),
            pid: std::process::id(),
            uptime_seconds: uptime.as_secs(),
            path: PathReport {
                state: verdict.state().into(),
                cause: Some(verdict.cause()).filter(|cause| !cause.is_empty()).map(Into::into),
                since: rfc3339(since.wall),
                flags: flags.iter().map(|flag| flag.as_str().into()).collect(),
                evidence: evidence.into_iter().map(FactReport::from).collect(),
            },
            uplink: UplinkReport::from(uplink),
            journal: JournalReport {
                waiting_records: journal.waiting_records,
                dropped_records: journal.dropped_records,
                set_aside: journal.set_aside,
            },
            settings: SettingsReport {
                version: settings.version,
                report_interval_seconds: settings.report_interval.as_secs_f64(),
                probe_period_seconds: settings.probe_period.as_secs_f64(),
                confirm_period_seconds: settings.confirm_period.as_secs_f64(),
            },
            posture: PostureReport::default(),
        }
    }

    /// With the checks as they stood after the last pass; `now` is CLOCK_BOOTTIME.
    #[must_use]
    pub fn with_posture(self, shown: &Shown, now: Duration) -> Self {
        Self { posture: PostureReport::new(shown, now), ..self }
    }

    /// The table for a person.
    pub fn table(&self, language: Language) -> String {
        table::render(self, language)
    }
}

impl From<Fact> for FactReport {
    fn from(Fact { kind, subject, value }: Fact) -> Self {
        // The kinds' labels are serde's: `snake_case` of their names.
        let kind = serde_json::to_value(kind).ok();
        let kind = kind.as_ref().and_then(serde_json::Value::as_str).unwrap_or_default().into();
        Self { kind, subject, value }
    }
}

impl From<uplink::Status> for UplinkReport {
    fn from(status: uplink::Status) -> Self {
        let uplink::Status { standing, speaker, reported_at, problem, is_clock_doubted, .. } =
            status;
        let (clock_ahead_ms, at_most) = (status.clock_ahead_ms, status.clock_ahead_at_most);
        let (label, target) = match standing {
            Standing::NotEnrolled => (StandingLabel::NotEnrolled, None),
            Standing::Unusable => (StandingLabel::Unusable, None),
            Standing::Connecting => (StandingLabel::Connecting, None),
            Standing::Reporting(target) => (StandingLabel::Reporting, Some(target)),
            Standing::Revoked => (StandingLabel::Revoked, None),
        };
        let ends = speaker.as_ref().map(|speaker| rfc3339(speaker.certificate_ends));
        let (agency, agency_name, agent) = match speaker {
            Some(speaker) => (Some(speaker.agency), Some(speaker.agency_name), Some(speaker.agent)),
            None => (None, None, None),
        };
        Self {
            standing: label,
            agency,
            agency_name,
            agent,
            certificate_ends: ends,
            collector: target.map(|target| target.address.to_string()),
            is_fallback: target.is_some_and(|target| target.way == Way::Fallback),
            reported_at: reported_at.map(rfc3339),
            problem,
            is_clock_doubted,
            clock_ahead_ms,
            clock_ahead_at_most_ms: at_most.map(|(most_ms, _)| most_ms),
        }
    }
}

/// Listens at `path`. A socket that a crash left behind is replaced, a living one is not.
///
/// # Errors
/// When another agent listens there, or the system refuses.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there"));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Answers whoever connects, until it is stopped.
pub async fn serve(
    listener: UnixListener,
    document: impl Fn() -> Document,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                // A reader who does not read loses the answer, nobody else does.
                let _ = tokio::time::timeout(SERVE_TIMEOUT, answer(stream, &document())).await;
            }
            Err(error) => {
                tracing::warn!(%error, "status socket");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, document: &Document) -> io::Result<()> {
    let json = serde_json::to_vec(document).map_err(io::Error::other)?;
    stream.write_all(&json).await?;
    stream.shutdown().await
}

/// Asks the agent that listens at `path`. Blocks for at most [`ASK_TIMEOUT`] a read.
///
/// # Errors
/// When nobody answers, or not with a document.
pub fn ask(path: &Path) -> Result<Document, AskError> {
    let failed = |source| AskError::Connect { path: path.into(), source };
    let stream = std::os::unix::net::UnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(ASK_TIMEOUT)).map_err(failed)?;
    let mut json = Vec::new();
    stream.take(DOCUMENT_BYTES_MAX).read_to_end(&mut json).map_err(failed)?;
    serde_json::from_slice(&json).map_err(|source| AskError::Answer { path: path.into(), source })
}

pub(crate) fn rfc3339(at: SystemTime) -> String {
    // A clock outside jiff's years is not shown.
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.0}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
