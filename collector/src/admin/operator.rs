//! What an operator's requests do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::enrolment_code::EnrolmentCode;

use super::answer::{agent_table, audit_table, done, refused, roster_table, token_table};
use super::{AdminAnswer, AdminRequest, RosterFiles};
use crate::clock::Clock;
use crate::config::Config;
use crate::identity::{IdentityState, Register};
use crate::import::{Files, Imported, Importer};
use crate::live::Live;
use crate::posture::{ExceptionTerms, Scope};
use crate::store::{AuditAction, AuditEntry, Store, StoredRoster};
use crate::token::{NOTE_BYTES_MAX, NewToken, TokenTerms, USES_MAX};

/// Longest life of a token: a roll-out, and no standing invitation.
const TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 86_400);

/// Does what an operator asks.
#[derive(Debug)]
pub struct Operator {
    /// The configuration in force.
    pub config: Config,
    /// host:port of the enrolment listener as agents are told, while it is open.
    pub enrolment_endpoint: Option<String>,
    /// Pin of the CA for enrolment codes.
    pub ca_pin: [u8; 32],
    /// Who is accepted.
    pub register: Arc<Register>,
    /// The store.
    pub store: Store,
    /// The fleet.
    pub live: Live,
    /// What puts rosters in force.
    pub importer: Importer,
    /// Time.
    pub clock: Clock,
}

impl Operator {
    pub(super) async fn answer(&self, request: AdminRequest) -> AdminAnswer {
        let at = self.clock.now().wall;
        let answer = match request {
            AdminRequest::TokenCreate { agency, uses, expires_in_s, note } => {
                let life = Duration::from_secs(expires_in_s);
                self.token_create(agency, uses, life, note, at).await
            }
            AdminRequest::TokenList { agency } => self.token_list(agency, at).await,
            AdminRequest::TokenRevoke { id } => self.token_revoke(id, at).await,
            AdminRequest::AgentList { agency } => self.agent_list(agency).await,
            AdminRequest::AgentRevoke { agent } => self.agent_revoke(agent, at).await,
            AdminRequest::AgentKeep { agent } => self.agent_keep(agent, at).await,
            AdminRequest::RosterImport { files, agreed } => {
                self.roster_import(files, agreed, at).await
            }
            AdminRequest::RosterShow { agency } => Ok(self.roster_show(agency.as_ref())),
            AdminRequest::ExceptionAdd { agency, check, owner, reason, expires_in_s } => {
                let life = Duration::from_secs(expires_in_s);
                let terms = ExceptionTerms { agency, check, owner, reason, life };
                self.exception_add(terms, at).await
            }
            AdminRequest::ExceptionList { agency } => self.exception_list(agency, at).await,
            AdminRequest::ExceptionRemove { agency, check } => {
                self.exception_remove(agency, check, at).await
            }
            AdminRequest::PolicySet { agency, change, owner, reason } => {
                self.policy_set(scope(agency), change, (&owner, &reason), at).await
            }
            AdminRequest::PolicyClear { agency, owner, reason } => {
                self.policy_clear(scope(agency), (&owner, &reason), at).await
            }
            AdminRequest::PolicyShow { agency } => Ok(self.policy_show(&scope(agency))),
            AdminRequest::PolicyList => Ok(self.policy_list()),
            AdminRequest::AuditList { limit } => self.audit_list(limit).await,
            AdminRequest::Backup { to } => self.backup(to).await,
        };
        answer.unwrap_or_else(|error| refused(chain(error.as_ref())))
    }

    async fn token_create(
        &self,
        agency: AgencyId,
        uses: u32,
        life: Duration,
        note: String,
        at: SystemTime,
    ) -> Outcome {
        let Some(endpoint) = self.enrolment_endpoint.clone() else {
            return Ok(refused(
                "enrolment is closed; set listen.enrolment in the configuration and restart",
            ));
        };
        let roster = self.live.roster();
        let Some(row) = roster.row(&agency) else {
            return Ok(refused(format!("{agency} is not in the roster; see roster show")));
        };
        if !(1..=USES_MAX).contains(&uses) {
            return Ok(refused(format!("uses must be 1 to {USES_MAX}")));
        }
        if life.is_zero() || life > TOKEN_LIFE_MAX {
            return Ok(refused("a token lives at most 366 days"));
        }
        if note.len() > NOTE_BYTES_MAX || note.chars().any(char::is_control) {
            return Ok(refused(format!("a note is one line of at most {NOTE_BYTES_MAX} bytes")));
        }
        let terms = TokenTerms { agency, uses, expires: at + life, note };
        let NewToken { token, secret } = NewToken::draw(terms, at)?;
        let code =
            EnrolmentCode { token_id: token.id.clone(), secret, ca_pin: self.ca_pin, endpoint };
        let name = roster.agencies()[row].full_name();
        let note = format!(
            "token {} for {} ({name}): {uses} uses, until {}. The code is shown once; hand it over \
             privately.",
            token.id,
            token.agency,
            super::answer::moment(token.expires),
        );
        self.store.insert_token(token).await?;
        Ok(AdminAnswer::Done { output: format!("{}\n", *code.reveal()), note })
    }

    async fn token_list(&self, agency: Option<AgencyId>, at: SystemTime) -> Outcome {
        let tokens = self.store.tokens(agency).await?;
        Ok(done(token_table(&tokens, at)))
    }

    async fn token_revoke(&self, id: String, at: SystemTime) -> Outcome {
        if self.store.revoke_token(id.clone(), at).await? {
            Ok(done(format!("token {id} is revoked; machines that enrolled with it stay\n")))
        } else {
            Ok(refused(format!("there is no token {id} that could be revoked; see token list")))
        }
    }

    async fn agent_list(&self, agency: Option<AgencyId>) -> Outcome {
        Ok(done(agent_table(&self.store.identities(agency).await?)))
    }

    async fn agent_revoke(&self, agent: AgentId, at: SystemTime) -> Outcome {
        let audit = audit(AuditAction::Revoked, agent, at);
        let register = Arc::clone(&self.register);
        let revoked = move || register.set_state(agent, IdentityState::Revoked);
        if !self.store.revoke_identity(agent, audit, revoked).await? {
            return Ok(refused(format!("there is no agent {agent}; see agent list")));
        }
        self.live.retired(agent);
        Ok(done(format!("agent {agent} is revoked; its next request is refused\n")))
    }

    async fn agent_keep(&self, agent: AgentId, at: SystemTime) -> Outcome {
        let Some(identity) = self.register.identity(agent) else {
            return Ok(refused(format!("there is no agent {agent}; see agent list")));
        };
        if identity.state != IdentityState::Blocked {
            let state = identity.state.as_str();
            return Ok(refused(format!("agent {agent} is {state}; there is nothing to decide")));
        }
        self.store.keep_enrolled_machine(agent, audit(AuditAction::Decided, agent, at)).await?;
        let decided =
            crate::identity::Identity { state: IdentityState::Active, pinned: true, ..identity };
        self.register.put(decided);
        self.live.settled(agent);
        Ok(done(format!(
            "agent {agent} goes on on the machine that enrolled; another machine is refused\n"
        )))
    }

    async fn roster_import(
        &self,
        files: Option<RosterFiles>,
        agreed: Option<String>,
        at: SystemTime,
    ) -> Outcome {
        let files = match files {
            None => Files::read(&self.config)?,
            Some(RosterFiles { roster_name, roster, prefixes }) => {
                let (prefixes_name, prefixes) = prefixes.unzip();
                Files {
                    roster_name,
                    prefixes_name: prefixes_name.unwrap_or_default(),
                    content: StoredRoster {
                        roster: roster.into_bytes(),
                        prefixes: prefixes.map(String::into_bytes),
                    },
                }
            }
        };
        Ok(match self.importer.import(files, agreed.as_deref(), "admin", at).await? {
            Imported::Same => done("the roster is the one in force already\n"),
            Imported::InForce(diff) => done(format!("{diff}\n")),
            Imported::Unconfirmed { diff, version } => {
                AdminAnswer::Confirm { diff: format!("{diff}\n"), version }
            }
        })
    }

    fn roster_show(&self, agency: Option<&AgencyId>) -> AdminAnswer {
        let roster = self.live.roster();
        match agency {
            Some(agency) if roster.row(agency).is_none() => {
                refused(format!("{agency} is not in the roster"))
            }
            _ => AdminAnswer::Done {
                output: roster_table(&roster, agency),
                note: format!("roster {}, {} agencies", roster.version(), roster.agencies().len()),
            },
        }
    }

    async fn audit_list(&self, limit: u32) -> Outcome {
        Ok(done(audit_table(&self.store.audit(None, limit).await?)))
    }

    async fn backup(&self, to: std::path::PathBuf) -> Outcome {
        if !to.is_absolute() {
            return Ok(refused("name the backup by an absolute path"));
        }
        self.store.backup(to.clone()).await?;
        let ca = self.config.state_dir.join("ca");
        Ok(AdminAnswer::Done {
            output: format!("{}\n", to.display()),
            note: format!("the CA is not in it; keep a copy of {} as well", ca.display()),
        })
    }
}

fn scope(agency: Option<AgencyId>) -> Scope {
    agency.map_or(Scope::All, Scope::Agency)
}

pub(super) type Outcome = Result<AdminAnswer, Box<dyn std::error::Error + Send + Sync>>;

fn audit(action: AuditAction, agent: AgentId, at: SystemTime) -> AuditEntry {
    AuditEntry {
        at,
        action,
        subject: agent.to_string(),
        source: "admin".into(),
        detail: String::new(),
    }
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
