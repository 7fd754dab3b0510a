//! What a start takes over from the store and from the roster's files.

use std::sync::Arc;
use std::time::SystemTime;

use haidang_proto::model::agency::AgentId;
use rusqlite::Connection;

use crate::config::Config;
use crate::fleet::{Fleet, RestoredAgent};
use crate::identity::{IdentityState, Register};
use crate::import::{Files, ImportError, loopback};
use crate::posture::{Decision, Exception, MachinePosture, Scope};
use crate::roster::{Roster, RosterDiff};
use crate::store::{self, IdentityRow, LastState, Store, StoreError, StoredRoster};

/// State of the process before, and the roster to begin with.
#[derive(Debug)]
pub(super) struct Restored {
    pub(super) roster: Arc<Roster>,
    /// The roster is new to the store.
    unkept: Option<StoredRoster>,
    /// Version of the configured file, if it could be read.
    file_version: Option<String>,
    identities: Vec<IdentityRow>,
    states: Vec<LastState>,
    postures: Vec<(AgentId, MachinePosture)>,
    exceptions: Vec<Exception>,
    policies: Vec<(Scope, Decision)>,
}

impl Restored {
    /// Reads the store, and the roster's files when they have changed.
    pub(super) fn read(connection: &Connection, config: &Config) -> anyhow::Result<Self> {
        let stored = store::in_force(connection)?.map(Files::stored);
        let stored = stored.map(|files| files.parse(loopback(config))).transpose();
        let stored = stored.unwrap_or_else(|error| {
            tracing::error!(%error, "the stored roster cannot be used; the configured file is");
            None
        });
        let file = Files::read(config)
            .and_then(|files| Ok((files.parse(loopback(config))?, files.content)));
        let seen = store::file_seen(connection)?;
        let file_version = file.as_ref().ok().map(|(roster, _)| roster.version().to_owned());
        let (roster, unkept) = choose(stored, file, seen.as_deref())?;
        Ok(Self {
            roster: Arc::new(roster),
            unkept,
            file_version,
            identities: store::identities(connection, None)?,
            states: store::last_transitions(connection)?,
            postures: store::postures(connection)?,
            exceptions: store::exceptions(connection)?,
            policies: store::policies(connection)?,
        })
    }

    /// Tells the fleet what was known, and makes the register.
    pub(super) fn fill(&self, fleet: &mut Fleet) -> Register {
        for row in &self.identities {
            let identity = &row.identity;
            match identity.state {
                IdentityState::Revoked | IdentityState::Superseded => continue,
                IdentityState::Active | IdentityState::Blocked => {}
            }
            fleet.restore(RestoredAgent {
                agent: identity.agent,
                agency: identity.agency.clone(),
                last_verified: row.last_verified,
                certificate_expiry: identity.not_after,
            });
            if let Some(conflict) = row.conflict {
                fleet.restore_conflict(identity.agent, conflict);
            }
        }
        for (agent, posture) in &self.postures {
            fleet.posture(*agent, *posture);
        }
        fleet.replace_exceptions(self.exceptions.iter().cloned().collect());
        fleet.replace_policies(Arc::new(self.policies.iter().cloned().collect()));
        for LastState { agency, state, since } in &self.states {
            fleet.restore_state(agency, *state, *since);
        }
        Register::new(self.identities.iter().map(|row| row.identity.clone()))
    }

    /// Keeps a roster that is new to the store.
    pub(super) async fn keep(&self, store: &Store, at: SystemTime) -> Result<(), StoreError> {
        if let Some(content) = self.unkept.clone() {
            let version = self.roster.version().to_owned();
            let detail = format!("{} agencies", self.roster.agencies().len());
            store.put_roster(version, content, "file", detail, at).await?;
        }
        match self.file_version.clone() {
            Some(version) => store.note_roster_file(version).await,
            None => Ok(()),
        }
    }
}

/// The stored roster, unless there is none or the file has changed without removing an agency.
fn choose(
    stored: Option<Roster>,
    file: Result<(Roster, StoredRoster), ImportError>,
    seen: Option<&str>,
) -> Result<(Roster, Option<StoredRoster>), ImportError> {
    let (stored, (new, content)) = match (stored, file) {
        (None, file) => return file.map(|(roster, content)| (roster, Some(content))),
        (Some(stored), Err(error)) => {
            tracing::error!(%error, "the roster's file is refused; the old one stays in force");
            return Ok((stored, None));
        }
        (Some(stored), Ok(file)) => (stored, file),
    };
    if seen == Some(new.version()) || stored.version() == new.version() {
        return Ok((stored, None));
    }
    let diff = RosterDiff::between(&stored, &new);
    if diff.removed.is_empty() {
        tracing::info!(version = new.version(), "the roster's file has changed and is in force");
        return Ok((new, Some(content)));
    }
    tracing::warn!(
        removed = diff.removed.len(),
        "the roster's file removes agencies; see them and agree by haidang-collector roster import"
    );
    Ok((stored, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Loopback;

    fn roster(ids: &[&str]) -> (Roster, StoredRoster) {
        let mut text = String::from("id,name,kind,parent,gso_code,id_code,lat,lon\n");
        for id in ids {
            text.push_str(&format!("{id},Sở {id},so_ban_nganh,01,,,,\n"));
        }
        let content = StoredRoster { roster: text.into_bytes(), prefixes: None };
        let roster = Files::stored(content.clone()).parse(Loopback::Refused).expect("a roster");
        (roster, content)
    }

    #[track_caller]
    fn chosen(stored: &[&str], file: &[&str], seen: Option<&str>) -> (usize, bool) {
        let stored = (!stored.is_empty()).then(|| roster(stored).0);
        let (roster, unkept) = choose(stored, Ok(roster(file)), seen).expect("one is chosen");
        (roster.agencies().len(), unkept.is_some())
    }

    #[test]
    fn a_changed_file_is_taken_unless_it_removes_an_agency() {
        let two = ["01-so-a", "01-so-b"];
        assert_eq!(chosen(&[], &two, None), (2, true));
        assert_eq!(chosen(&two[..1], &two, None), (2, true));
        assert_eq!(chosen(&two, &two[..1], None), (2, false), "removals are agreed to first");
        let (file, _) = roster(&two);
        assert_eq!(chosen(&two[..1], &two, Some(file.version())), (1, false), "seen before");
    }

    #[test]
    fn a_refused_file_leaves_the_old_roster_in_force() {
        let broken = || {
            let content = StoredRoster { roster: b"id,name\n".to_vec(), prefixes: None };
            Files::stored(content).parse(Loopback::Refused).map(|roster| (roster, content_of()))
        };
        fn content_of() -> StoredRoster {
            StoredRoster { roster: Vec::new(), prefixes: None }
        }
        let (stored, _) = roster(&["01-so-a"]);
        assert_eq!(choose(Some(stored), broken(), None).expect("kept").0.agencies().len(), 1);
        assert!(choose(None, broken(), None).is_err());
    }
}
