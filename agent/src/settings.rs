//! The settings in force: what a collector may direct, within local limits, and the way back.
//!
//! New settings are on trial until a report succeeds under them; only then are they kept on disk
//! as the last known good. Without one within [`trial_time`], the former ones return by
//! themselves, and the same version is not tried again for an hour. Pure but for [`load`] and
//! [`keep`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use haidang_proto::model::settings::Settings;

use crate::durable;

/// How long a version that had to be rolled back is not tried again.
const REFUSAL_TIME: Duration = Duration::from_secs(3600);
/// Grace of a trial beyond three report intervals: a reconnection fits.
const TRIAL_GRACE: Duration = Duration::from_secs(60);
/// Intervals, thresholds and ports, at their most.
const FILE_BYTES_MAX: u64 = 16 << 10;

/// Settings, and whether they have proved themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    current: Settings,
    trial: Option<Trial>,
    refused: Option<Refused>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trial {
    previous: Settings,
    /// On CLOCK_BOOTTIME.
    ends: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Refused {
    version: u64,
    until: Duration,
}

/// The last known good settings could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot keep the settings in {}", path.display())]
pub struct SettingsError {
    path: PathBuf,
    source: std::io::Error,
}

impl InForce {
    /// Starts from the last known good.
    pub fn new(known_good: Settings) -> Self {
        Self { current: known_good.clamped(), trial: None, refused: None }
    }

    /// What is in force.
    pub const fn current(&self) -> &Settings {
        &self.current
    }

    /// When the trial ends without success, on CLOCK_BOOTTIME.
    pub fn trial_ends(&self) -> Option<Duration> {
        self.trial.as_ref().map(|trial| trial.ends)
    }

    /// A collector offers settings. Answers what is in force from now on, if that is new.
    pub fn offer(&mut self, offered: Settings, now: Duration) -> Option<Settings> {
        let offered = offered.clamped();
        let is_refused = self
            .refused
            .is_some_and(|refused| refused.version == offered.version && now < refused.until);
        if offered == self.current || is_refused {
            return None;
        }
        // A second offer during a trial proves nothing yet: the way back stays the same.
        let former = std::mem::replace(&mut self.current, offered.clone());
        let previous = self.trial.take().map_or(former, |trial| trial.previous);
        self.trial = Some(Trial { previous, ends: now + trial_time(&offered) });
        Some(offered)
    }

    /// A report succeeded. Answers what is now the last known good, if that is new.
    pub fn reported(&mut self) -> Option<Settings> {
        self.trial.take().map(|_| self.current.clone())
    }

    /// Time has passed. Answers what is in force again, if the trial failed.
    pub fn tick(&mut self, now: Duration) -> Option<Settings> {
        let trial = self.trial.take_if(|trial| now >= trial.ends)?;
        self.refused = Some(Refused { version: self.current.version, until: now + REFUSAL_TIME });
        self.current = trial.previous;
        Some(self.current.clone())
    }
}

/// How long a trial may take.
fn trial_time(settings: &Settings) -> Duration {
    settings.report_interval * 3 + TRIAL_GRACE
}

/// The last known good settings; the defaults where there are none or they cannot be read.
pub fn load(state_dir: &Path) -> Settings {
    let path = path(state_dir);
    let bytes = match durable::read(&path, FILE_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Settings::default(),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "settings not read; using defaults");
            return Settings::default();
        }
    };
    match parse(&bytes) {
        Ok(settings) => settings,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "settings are damaged; using defaults");
            Settings::default()
        }
    }
}

/// The content of the file, within the limits.
pub(crate) fn parse(bytes: &[u8]) -> serde_json::Result<Settings> {
    serde_json::from_slice(bytes).map(Settings::clamped)
}

/// Keeps the last known good settings.
///
/// # Errors
/// When the disk refuses.
pub fn keep(state_dir: &Path, settings: &Settings) -> Result<(), SettingsError> {
    let path = path(state_dir);
    let json = serde_json::to_vec_pretty(settings).map_err(std::io::Error::other);
    json.and_then(|json| durable::replace(&path, &json, 0o644))
        .map_err(|source| SettingsError { path, source })
}

/// Forgets the last known good settings: they are an agency's, and another one's follow.
///
/// # Errors
/// When the disk refuses.
pub fn forget(state_dir: &Path) -> Result<(), SettingsError> {
    let path = path(state_dir);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(SettingsError { path, source })
        }
        _ => Ok(()),
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join("settings.json")
}

#[cfg(test)]
mod tests {
    use haidang_proto::model::posture::Threshold;
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn settings(version: u64) -> Settings {
        Settings { version, report_interval: seconds(30), ..Settings::default() }
    }

    #[test]
    fn a_successful_report_makes_settings_the_last_known_good() {
        let mut held = InForce::new(Settings::default());
        assert_eq!(held.offer(settings(1), seconds(0)), Some(settings(1)));
        assert_eq!(held.reported(), Some(settings(1)));
        assert_eq!(held.reported(), None);
        assert_eq!(held.tick(seconds(9_999)), None);
        assert_eq!(*held.current(), settings(1));
    }

    #[test]
    fn without_a_report_the_former_settings_return_and_the_version_has_to_wait() {
        let mut held = InForce::new(Settings::default());
        held.offer(settings(1), seconds(0));
        held.offer(settings(2), seconds(10));
        assert_eq!(held.tick(seconds(159)), None);
        assert_eq!(held.tick(seconds(160)), Some(Settings::default()));
        assert_eq!(held.offer(settings(2), seconds(200)), None);
        assert_eq!(held.offer(settings(3), seconds(200)), Some(settings(3)));
        assert_eq!(held.tick(seconds(350)), Some(Settings::default()));
        assert_eq!(held.offer(settings(2), seconds(4_000)), Some(settings(2)));
    }

    #[test]
    fn nothing_offered_leaves_the_local_limits() {
        let mut held = InForce::new(Settings::default());
        let wild = Settings { version: 1, probe_period: Duration::ZERO, ..Settings::default() };
        assert_eq!(held.offer(wild.clone(), seconds(0)), Some(wild.clamped()));
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Offer(u64),
        Report,
        Wait(u64),
        Restart,
    }

    fn any_steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1u64..6).prop_map(Step::Offer),
            Just(Step::Report),
            (0u64..400).prop_map(Step::Wait),
            Just(Step::Restart),
        ];
        proptest::collection::vec(step, 1..60)
    }

    proptest! {
        #[test]
        fn only_a_report_makes_settings_last_and_without_one_the_known_good_return(
            steps in any_steps(),
        ) {
            let (mut held, mut known_good) = (InForce::new(Settings::default()), Settings::default());
            let mut now = seconds(0);
            for step in steps {
                match step {
                    // Replies carry offers, and follow the success of a report.
                    Step::Offer(version) => {
                        held.offer(settings(version), now);
                    }
                    Step::Report => known_good = held.reported().unwrap_or(known_good),
                    Step::Wait(waited) => now += seconds(waited),
                    // The process dies in the middle of a trial: only the disk remains.
                    Step::Restart => held = InForce::new(known_good.clone()),
                }
                held.tick(now);
                let is_on_trial = held.trial_ends().is_some_and(|ends| now < ends);
                if !is_on_trial {
                    prop_assert_eq!(held.current(), &known_good);
                }
            }
            let ends = now + trial_time(held.current());
            held.tick(ends);
            prop_assert_eq!(held.current(), &known_good, "silence always leads back");
        }
    }

    #[test]
    fn they_survive_on_disk_and_damage_means_defaults() {
        let place = tempfile::tempdir().unwrap();
        assert_eq!(load(place.path()), Settings::default());
        let mut kept = settings(7);
        kept.posture.thresholds.insert(Threshold::DormantDaysMax, 60);
        keep(place.path(), &kept).unwrap();
        assert_eq!(load(place.path()), kept);
        std::fs::write(path(place.path()), "{\"version\":").unwrap();
        assert_eq!(load(place.path()), Settings::default());
        forget(place.path()).unwrap();
        assert!(!path(place.path()).exists());
        forget(place.path()).unwrap();
    }

    #[test]
    fn settings_of_a_version_before_requirements_are_read() {
        let place = tempfile::tempdir().unwrap();
        let mut json = serde_json::to_value(settings(3)).unwrap();
        json.as_object_mut().unwrap().remove("posture");
        std::fs::write(path(place.path()), json.to_string()).unwrap();
        assert_eq!(load(place.path()), settings(3));
    }
}
