//! The command line, and what each command asks of the collector that serves.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use haidang_collector::admin::AdminRequest;
use haidang_collector::posture::PolicyChange;
use haidang_proto::model::agency::{AgencyId, AgentId};
use haidang_proto::model::posture::CheckId;

/// Folds the agents' reports and the roster into the state of every agency.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct CommandLine {
    /// Configuration file.
    #[arg(long, global = true, default_value = "/etc/haidang/collector.toml")]
    pub(crate) config: PathBuf,
    /// Check the configuration and do nothing else.
    #[arg(long, global = true)]
    pub(crate) check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM. SIGHUP reads the roster's files again.
    Serve,
    /// Enrolment tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Enrolled agents.
    #[command(subcommand)]
    Agent(AgentCommand),
    /// The roster.
    #[command(subcommand)]
    Roster(RosterCommand),
    /// Failing checks that somebody answers for.
    #[command(subcommand)]
    Exception(ExceptionCommand),
    /// What is asked of an agency's machines.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// List who did what, the latest first.
    Audit {
        /// How many entries, at most 1000.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Copy the store of the running collector into a new file.
    Backup {
        /// The new file, by an absolute path that the service may write.
        #[arg(long)]
        to: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print its code: one line on standard output, shown once.
    Create {
        /// Whose machines it enrols.
        #[arg(long)]
        agency: AgencyId,
        /// How many.
        #[arg(long, default_value_t = 1)]
        uses: u32,
        /// How long it holds, such as 7d or 12h.
        #[arg(long, default_value = "7d", value_parser = seconds)]
        expires: u64,
        /// For whom or what; one line.
        #[arg(long, default_value = "")]
        note: String,
    },
    /// List tokens.
    List(OfAgency),
    /// Withdraw a token.
    Revoke {
        /// Its id.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
enum AgentCommand {
    /// List agents.
    List(OfAgency),
    /// Withdraw an agent's identity; its next request is refused.
    Revoke {
        /// The agent.
        agent: AgentId,
    },
    /// Decide a conflict of two machines with one identity.
    Decide {
        /// The agent.
        agent: AgentId,
        #[command(flatten)]
        decision: Decision,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Decision {
    /// The machine that enrolled keeps the identity; the other one is refused.
    #[arg(long)]
    keep: bool,
    /// Neither keeps it: both have to enrol anew.
    #[arg(long)]
    revoke: bool,
}

#[derive(Debug, Subcommand)]
enum RosterCommand {
    /// Show what would change, ask before anything is removed, and put it in force.
    Import {
        /// Another file than the configured one.
        file: Option<PathBuf>,
        /// The file's prefixes.
        #[arg(long, requires = "file")]
        prefixes: Option<PathBuf>,
        /// Agree to removals without being asked.
        #[arg(long)]
        yes: bool,
    },
    /// Show the roster in force.
    Show(OfAgency),
}

#[derive(Debug, Subcommand)]
enum ExceptionCommand {
    /// Accept a failing check of an agency for a while. It goes on counting as failed, is shown
    /// apart, and an alert says when it has expired.
    Add {
        /// The agency.
        #[arg(long)]
        agency: AgencyId,
        /// The check, such as screen_lock.
        #[arg(long, value_parser = check)]
        check: CheckId,
        /// Who answers for it; one line.
        #[arg(long)]
        owner: String,
        /// Why; one line.
        #[arg(long)]
        reason: String,
        /// How long it holds, such as 90d; at most 366 days.
        #[arg(long, value_parser = seconds)]
        expires: u64,
    },
    /// List exceptions, expired ones too.
    List(OfAgency),
    /// Remove an exception.
    Remove {
        /// The agency.
        #[arg(long)]
        agency: AgencyId,
        /// The check.
        #[arg(long, value_parser = check)]
        check: CheckId,
    },
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Ask for something else than before, of one agency or of all. What is not named stays. It
    /// reaches the agents within two report intervals; who asked and why is in the audit.
    Set {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        decision: Answerable,
        /// Score from which a machine complies, 50 to 100; 80 where nothing is set.
        #[arg(long)]
        score_min: Option<u8>,
        /// Level of the information system, 1 to 5 (TCVN 14423): how long records are kept, and
        /// from 3 on that the kernel audits.
        #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
        level: Option<u8>,
        /// A check's number, such as dormant_accounts.days_max=60, or =default to give it back;
        /// may be repeated. `policy show` lists them.
        #[arg(long = "threshold", value_name = "CHECK.NAME=VALUE", value_parser = threshold)]
        thresholds: Vec<(String, Option<u32>)>,
        /// Ports that may be open on the dedicated network, such as 22,443, or none. Replaces
        /// the lists in the machines' own configuration.
        #[arg(long, value_parser = ports)]
        allowed_ports: Option<Ports>,
        /// Whether usb_storage_restricted weighs in the score; it does not where nothing is set.
        #[arg(long)]
        weigh_usb_storage: Option<bool>,
    },
    /// Give up what was decided for an agency, or for all.
    Clear {
        #[command(flatten)]
        whom: Whom,
        #[command(flatten)]
        decision: Answerable,
    },
    /// Show what is asked in the end, and what of it is laxer than the catalogue.
    Show(OfAgency),
    /// List what was decided, `*` for all agencies.
    List,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Whom {
    /// Of one agency.
    #[arg(long)]
    agency: Option<AgencyId>,
    /// Of all agencies that have nothing else of their own.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct Answerable {
    /// Who answers for it; one line.
    #[arg(long)]
    owner: String,
    /// Why; one line.
    #[arg(long)]
    reason: String,
}

#[derive(Debug, Clone)]
struct Ports(Vec<u16>);

#[derive(Debug, Args)]
struct OfAgency {
    /// Of one agency alone.
    #[arg(long)]
    agency: Option<AgencyId>,
}

/// What a command line wants done.
pub(crate) enum Task {
    /// Serve.
    Serve,
    /// Put a roster in force, and ask the person before anything is removed.
    Import { file: Option<PathBuf>, prefixes: Option<PathBuf>, yes: bool },
    /// Ask the collector that serves.
    Ask(AdminRequest),
}

impl CommandLine {
    /// What it wants done; nothing where it names no command.
    pub(crate) fn task(self) -> Option<Task> {
        self.command.map(Command::task)
    }
}

impl Command {
    fn task(self) -> Task {
        let request = match self {
            Self::Serve => return Task::Serve,
            Self::Roster(RosterCommand::Import { file, prefixes, yes }) => {
                return Task::Import { file, prefixes, yes };
            }
            Self::Roster(RosterCommand::Show(OfAgency { agency })) => {
                AdminRequest::RosterShow { agency }
            }
            Self::Token(command) => token(command),
            Self::Agent(command) => agent(command),
            Self::Exception(command) => exception(command),
            Self::Policy(command) => policy(command),
            Self::Audit { limit } => AdminRequest::AuditList { limit },
            Self::Backup { to } => AdminRequest::Backup { to },
        };
        Task::Ask(request)
    }
}

fn token(command: TokenCommand) -> AdminRequest {
    match command {
        TokenCommand::Create { agency, uses, expires, note } => {
            AdminRequest::TokenCreate { agency, uses, expires_in_s: expires, note }
        }
        TokenCommand::List(OfAgency { agency }) => AdminRequest::TokenList { agency },
        TokenCommand::Revoke { id } => AdminRequest::TokenRevoke { id },
    }
}

fn agent(command: AgentCommand) -> AdminRequest {
    match command {
        AgentCommand::List(OfAgency { agency }) => AdminRequest::AgentList { agency },
        AgentCommand::Revoke { agent } => AdminRequest::AgentRevoke { agent },
        AgentCommand::Decide { agent, decision: Decision { keep: true, .. } } => {
            AdminRequest::AgentKeep { agent }
        }
        AgentCommand::Decide { agent, .. } => AdminRequest::AgentRevoke { agent },
    }
}

fn exception(command: ExceptionCommand) -> AdminRequest {
    match command {
        ExceptionCommand::Add { agency, check, owner, reason, expires } => {
            AdminRequest::ExceptionAdd { agency, check, owner, reason, expires_in_s: expires }
        }
        ExceptionCommand::List(OfAgency { agency }) => AdminRequest::ExceptionList { agency },
        ExceptionCommand::Remove { agency, check } => {
            AdminRequest::ExceptionRemove { agency, check }
        }
    }
}

fn policy(command: PolicyCommand) -> AdminRequest {
    match command {
        PolicyCommand::Set {
            whom: Whom { agency, .. },
            decision: Answerable { owner, reason },
            score_min,
            level,
            thresholds,
            allowed_ports,
            weigh_usb_storage,
        } => {
            let change = PolicyChange {
                score_min,
                level,
                thresholds,
                allowed_ports: allowed_ports.map(|Ports(ports)| ports),
                weighs_usb_storage: weigh_usb_storage,
            };
            AdminRequest::PolicySet { agency, change, owner, reason }
        }
        PolicyCommand::Clear {
            whom: Whom { agency, .. },
            decision: Answerable { owner, reason },
        } => AdminRequest::PolicyClear { agency, owner, reason },
        PolicyCommand::Show(OfAgency { agency }) => AdminRequest::PolicyShow { agency },
        PolicyCommand::List => AdminRequest::PolicyList,
    }
}

/// A check by its label.
fn check(label: &str) -> Result<CheckId, String> {
    let known = || CheckId::ALL.iter().map(|check| check.as_str()).collect::<Vec<_>>().join(", ");
    CheckId::from_label(label).ok_or_else(|| format!("{label:?} is no check; one of {}", known()))
}

/// A threshold and its number, or `default`.
fn threshold(text: &str) -> Result<(String, Option<u32>), String> {
    let (label, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} is no threshold; write dormant_accounts.days_max=60"))?;
    let value = match value {
        "default" => None,
        number => Some(number.parse().map_err(|_| format!("{number:?} is no number"))?),
    };
    Ok((label.to_owned(), value))
}

/// Ports between commas, or `none`.
fn ports(text: &str) -> Result<Ports, String> {
    if text == "none" {
        return Ok(Ports(Vec::new()));
    }
    let port = |port: &str| port.trim().parse().map_err(|_| format!("{port:?} is no port"));
    text.split(',').map(port).collect::<Result<_, _>>().map(Ports)
}

/// Seconds of a duration such as `7d` or `12h`.
fn seconds(text: &str) -> Result<u64, String> {
    #[derive(serde::Deserialize)]
    struct Span(#[serde(with = "humantime_serde")] std::time::Duration);
    let value = serde_json::Value::String(text.to_owned());
    let Span(duration) = serde_json::from_value(value)
        .map_err(|_| format!("{text:?} is not a duration; write it like 7d, 12h or 30min"))?;
    Ok(duration.as_secs())
}
