//! What a collector may set on an agent: intervals, and what its machine is asked for. The agent
//! clamps each to its own limits.

use std::time::Duration;

use crate::wire;

use super::WireError;
use super::posture::Requirements;

/// Server-directed settings.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Grows with every change; 0 stands for the agent's built-in defaults.
    pub version: u64,
    /// Time between reports.
    pub report_interval: Duration,
    /// Time between probe cycles while all is well.
    pub probe_period: Duration,
    /// Time between probe cycles while a change is being confirmed.
    pub confirm_period: Duration,
    /// What the machine's security order is judged by.
    #[serde(default)]
    pub posture: Requirements,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            version: 0,
            report_interval: Duration::from_secs(10),
            probe_period: Duration::from_secs(4),
            confirm_period: Duration::from_secs(1),
            posture: Requirements::default(),
        }
    }
}

impl Settings {
    /// Shortest report interval an agent accepts.
    pub const REPORT_INTERVAL_MIN: Duration = Duration::from_millis(500);
    /// Longest: beyond it, silence could not be told from health within a shift.
    pub const REPORT_INTERVAL_MAX: Duration = Duration::from_secs(300);
    /// Shortest probe period: the packet rate's ceiling follows from it.
    pub const PROBE_PERIOD_MIN: Duration = Duration::from_millis(200);
    /// Longest probe period.
    pub const PROBE_PERIOD_MAX: Duration = Duration::from_secs(60);

    /// The same settings within the limits that no server can lift.
    #[must_use]
    pub fn clamped(self) -> Self {
        let period = |value: Duration| value.clamp(Self::PROBE_PERIOD_MIN, Self::PROBE_PERIOD_MAX);
        let probe_period = period(self.probe_period);
        Self {
            version: self.version,
            report_interval: self
                .report_interval
                .clamp(Self::REPORT_INTERVAL_MIN, Self::REPORT_INTERVAL_MAX),
            probe_period,
            confirm_period: period(self.confirm_period).min(probe_period),
            posture: self.posture.clamped(),
        }
    }
}

impl TryFrom<wire::Settings> for Settings {
    type Error = WireError;

    fn try_from(settings: wire::Settings) -> Result<Self, WireError> {
        let wire::Settings {
            version,
            report_interval_ms,
            probe_period_ms,
            confirm_period_ms,
            posture,
        } = settings;
        if version == 0 {
            return Err(WireError::new("settings.version", "is zero, which stands for defaults"));
        }
        let period = |ms: u32, field| match ms {
            0 => Err(WireError::new(field, "is zero")),
            ms => Ok(Duration::from_millis(ms.into())),
        };
        Ok(Self {
            version,
            report_interval: period(report_interval_ms, "settings.report_interval_ms")?,
            probe_period: period(probe_period_ms, "settings.probe_period_ms")?,
            confirm_period: period(confirm_period_ms, "settings.confirm_period_ms")?,
            posture: posture.map(Requirements::try_from).transpose()?.unwrap_or_default(),
        }
        .clamped())
    }
}

impl From<Settings> for wire::Settings {
    fn from(settings: Settings) -> Self {
        let Settings { version, report_interval, probe_period, confirm_period, posture } = settings;
        Self {
            version,
            report_interval_ms: millis(report_interval),
            probe_period_ms: millis(probe_period),
            confirm_period_ms: millis(confirm_period),
            posture: Some(posture.into()),
        }
    }
}

/// Milliseconds as the wire carries intervals; an interval beyond 49 days is that long.
pub(crate) fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_setting_leaves_the_local_limits() {
        for ms in [1, 499, 10_000, u32::MAX] {
            let wire = wire::Settings {
                version: 1,
                report_interval_ms: ms,
                probe_period_ms: ms,
                confirm_period_ms: ms,
                posture: None,
            };
            let settings = Settings::try_from(wire).expect("all periods are positive");
            assert_eq!(settings, settings.clone().clamped());
            assert!(settings.confirm_period <= settings.probe_period);
        }
    }
}
