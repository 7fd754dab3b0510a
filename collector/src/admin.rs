//! The admin socket: how the command line asks a running collector, which alone writes the store.
//!
//! A Unix socket of 0600 in the state directory: whoever may open it is the service's user or
//! root, and there is no other authentication. One connection carries one JSON request, ended by
//! closing that direction, and one JSON answer.

mod answer;
mod client;
mod operator;
mod posture;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::posture::CheckId;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use crate::posture::PolicyChange;

pub use client::{AskError, ask};
pub use operator::Operator;

/// Bytes of a request: the nation's roster with its prefixes takes 2 MB.
const REQUEST_BYTES_MAX: u64 = 16 << 20;
/// Bytes of an answer: the rows of the largest list.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// How long a request may take to arrive, and an answer to be taken.
const TRANSFER_WAIT: Duration = Duration::from_secs(10);
/// How long the work may take: a backup of a large store.
const WORK_WAIT: Duration = Duration::from_secs(60);
/// Name of the socket in the state directory.
const SOCKET_NAME: &str = "admin.sock";

/// What an operator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Make a token for an agency.
    TokenCreate {
        /// The agency.
        agency: AgencyId,
        /// How many machines it enrols.
        uses: u32,
        /// How long it holds, in seconds.
        expires_in_s: u64,
        /// The operator's words.
        note: String,
    },
    /// List tokens.
    TokenList {
        /// Of one agency alone.
        agency: Option<AgencyId>,
    },
    /// Withdraw a token.
    TokenRevoke {
        /// Its id.
        id: String,
    },
    /// List agents.
    AgentList {
        /// Of one agency alone.
        agency: Option<AgencyId>,
    },
    /// Withdraw an agent's identity.
    AgentRevoke {
        /// The agent.
        agent: AgentId,
    },
    /// Let the machine that enrolled keep an identity that two machines speak with.
    AgentKeep {
        /// The agent.
        agent: AgentId,
    },
    /// Put a roster in force.
    RosterImport {
        /// The files; without them, those of the configuration.
        files: Option<RosterFiles>,
        /// The version whose removals were agreed to.
        agreed: Option<String>,
    },
    /// Show the roster in force.
    RosterShow {
        /// One agency alone.
        agency: Option<AgencyId>,
    },
    /// Accept a failing check of an agency for a while.
    ExceptionAdd {
        /// The agency.
        agency: AgencyId,
        /// The check.
        check: CheckId,
        /// Who answers for it.
        owner: String,
        /// Why.
        reason: String,
        /// How long it holds, in seconds.
        expires_in_s: u64,
    },
    /// List exceptions.
    ExceptionList {
        /// Of one agency alone.
        agency: Option<AgencyId>,
    },
    /// Remove an exception.
    ExceptionRemove {
        /// The agency.
        agency: AgencyId,
        /// The check.
        check: CheckId,
    },
    /// Say what is asked of an agency's machines.
    PolicySet {
        /// The agency; without one, all.
        agency: Option<AgencyId>,
        /// What becomes different.
        change: PolicyChange,
        /// Who answers for it.
        owner: String,
        /// Why.
        reason: String,
    },
    /// Give up what was decided.
    PolicyClear {
        /// The agency; without one, what is for all.
        agency: Option<AgencyId>,
        /// Who answers for it.
        owner: String,
        /// Why.
        reason: String,
    },
    /// Show what is asked in the end.
    PolicyShow {
        /// Of an agency; without one, of those with no policy of their own.
        agency: Option<AgencyId>,
    },
    /// List what was decided, for all and for agencies.
    PolicyList,
    /// List who did what, the latest first.
    AuditList {
        /// How many.
        limit: u32,
    },
    /// Copy the store.
    Backup {
        /// The new file.
        to: PathBuf,
    },
}

/// Files of a roster, as the command line has read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RosterFiles {
    /// How messages name roster.csv.
    pub roster_name: String,
    /// Its text.
    pub roster: String,
    /// Name and text of prefixes.csv.
    pub prefixes: Option<(String, String)>,
}

/// What the collector answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum AdminAnswer {
    /// It is done.
    Done {
        /// For standard output: what was asked for, and nothing else.
        output: String,
        /// For standard error: what a person should know besides.
        note: String,
    },
    /// It removes agencies; ask the operator and send the version back.
    Confirm {
        /// What would change.
        diff: String,
        /// The version to agree to.
        version: String,
    },
    /// It was not done.
    Refused {
        /// Why, and what to do.
        message: String,
    },
}

/// The socket cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the admin socket {path}; let the service's user own the directory")]
pub struct AdminBindError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Path of the socket in a state directory.
pub fn socket_path(state_dir: &Path) -> PathBuf {
    state_dir.join(SOCKET_NAME)
}

/// Opens the socket. The caller holds the state directory's lock, so a socket that is there is a
/// dead one.
///
/// # Errors
/// When it cannot be opened.
pub fn bind(state_dir: &Path) -> Result<UnixListener, AdminBindError> {
    let path = socket_path(state_dir);
    let open = || {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    open().map_err(|source| AdminBindError { path: path.clone(), source })
}

/// Answers until the stop signal, one operator at a time.
pub async fn serve(listener: UnixListener, operator: Operator, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let result = match accepted {
            Ok((stream, _)) => exchange(stream, &operator).await,
            Err(error) => {
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(error)
            }
        };
        if let Err(error) = result {
            tracing::warn!(%error, "an exchange on the admin socket failed");
        }
    }
}

async fn exchange(mut stream: UnixStream, operator: &Operator) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut request = Vec::new();
    let mut bounded = read.take(REQUEST_BYTES_MAX + 1);
    tokio::time::timeout(TRANSFER_WAIT, bounded.read_to_end(&mut request)).await??;
    let answer = if request.len() as u64 > REQUEST_BYTES_MAX {
        AdminAnswer::Refused { message: "the request is larger than 16 MiB".into() }
    } else {
        match serde_json::from_slice(&request) {
            Ok(request) => match tokio::time::timeout(WORK_WAIT, operator.answer(request)).await {
                Ok(answer) => answer,
                Err(_) => AdminAnswer::Refused { message: "it takes longer than a minute".into() },
            },
            Err(error) => AdminAnswer::Refused {
                message: format!("the request is not understood ({error}); use the same version"),
            },
        }
    };
    let answer = serde_json::to_vec(&answer)?;
    tokio::time::timeout(TRANSFER_WAIT, write.write_all(&answer)).await??;
    write.shutdown().await
}
