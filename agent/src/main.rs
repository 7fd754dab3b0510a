//! The command line of the agent.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use haidang_agent::check::without_config_json;
use haidang_agent::check::{AgentSays, Checkup, ClockDoubt, Enrolment, Outcome};
use haidang_agent::check::{PostureLook, Style, without_config};
use haidang_agent::config::{Config, ConfigError, DEFAULT_PATH};
use haidang_agent::enrol::{Machine, enrol};
use haidang_agent::identity::{Identity, IdentityError, Replace, Store};
use haidang_agent::language::{Key, Language};
use haidang_agent::posture::Catalogue;
use haidang_agent::posture::pass::Guidance;
use haidang_agent::posture::readers;
use haidang_agent::posture::watch::{Looker, look, subject};
use haidang_agent::probe::Prober;
use haidang_agent::run::{run, runtime};
use haidang_agent::schedule::CyclePlan;
use haidang_agent::{host, settings, status};
use haidang_proto::model::enrolment_code::{CODE_BYTES_MAX, EnrolmentCode};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use zeroize::Zeroizing;

/// Exit status of a command line that cannot be understood (sysexits.h, EX_USAGE).
const EXIT_USAGE: u8 = 64;

/// Watches this machine's path to the dedicated network.
#[derive(Debug, Parser)]
#[command(name = "haidang-agent", version)]
struct Cli {
    /// The configuration file.
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Only checks the configuration file, and says what is wrong with it.
    #[arg(long, global = true)]
    check_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until it is stopped.
    Run {
        /// The unit confines this process, so that what it would see is not the machine: the
        /// security order is what the readers say, and unknown without them.
        #[arg(long)]
        confined: bool,
    },
    /// Enrols this machine with a collector; asks for the code that the operator sent.
    Enroll {
        /// Reads the code from a file, or from standard input for "-".
        #[arg(long)]
        code_file: Option<PathBuf>,
        /// Gives up an existing identity for the new one.
        #[arg(long)]
        replace: bool,
    },
    /// Looks at the path and at this machine's security order once, and says what it sees.
    Check {
        /// Follows the way to each anchor, hop by hop; takes some seconds.
        #[arg(long)]
        path: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Asks the running agent.
    Status(Output),
    /// Reads what needs a privilege, for the agent at the other end of standard input.
    #[command(hide = true)]
    Read {
        /// What.
        #[arg(value_enum)]
        what: What,
    },
}

/// What a reader reads.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum What {
    /// The kernel's packet filter.
    Netfilter,
    /// The machine's security order.
    Posture,
}

#[derive(Debug, Args)]
struct Output {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Language of the table: vi or en.
    #[arg(long, default_value = "vi")]
    lang: Language,
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are printed to standard output, and are no mistake.
            let _ = error.print();
            return if error.use_stderr() { EXIT_USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let outcome = match (&cli.command, cli.check_config) {
        (_, true) => check_config(&cli.config),
        (Some(Command::Run { confined }), false) => {
            serve(&cli.config, if *confined { Looker::Readers } else { Looker::Agent })
        }
        (Some(Command::Read { what }), false) => read(&cli.config, *what),
        (Some(Command::Enroll { code_file, replace }), false) => {
            let replace = if *replace { Replace::Yes } else { Replace::No };
            enroll(&cli.config, code_file.as_deref(), replace)
        }
        (Some(Command::Check { path, output }), false) => {
            check(&cli.config, output, if *path { Ways::Followed } else { Ways::NotAsked })
        }
        (Some(Command::Status(output)), false) => ask(&cli.config, output),
        (None, false) => {
            let _ = writeln!(io::stderr(), "haidang-agent: say what to do; see --help");
            return EXIT_USAGE.into();
        }
    };
    outcome.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "haidang-agent: {error:#}");
        ExitCode::FAILURE
    })
}

fn check_config(path: &Path) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    // What the running agent would refuse; without an identity, no authority is pinned yet.
    Prober::new(&config, &[]).with_context(|| path.display().to_string())?;
    print(&format!("{}: ok", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The private key and the enrolment code stay out of core dumps, and out of reach of a debugger of
/// the same user (`PR_SET_DUMPABLE`, prctl(2)).
fn keep_memory_to_itself() -> anyhow::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid core dumps")
}

fn serve(path: &Path, looker: Looker) -> anyhow::Result<ExitCode> {
    keep_memory_to_itself()?;
    let config = Config::load(path)?;
    start_logging();
    run(config, looker)?;
    Ok(ExitCode::SUCCESS)
}

/// A reader, for one question.
fn read(path: &Path, what: What) -> anyhow::Result<ExitCode> {
    match what {
        What::Netfilter => readers::netfilter::serve()?,
        What::Posture => {
            start_logging();
            let connection = readers::whole::Connection::accept()?;
            // A machine that is not configured yet is looked at by the catalogue's own measure.
            let config = Config::load(path).ok();
            let work = subject(config.as_ref(), connection.guidance());
            let subject = runtime()?.block_on(work)?;
            connection.serve(subject)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `HAIDANG_LOG` chooses what is shown: `info` by default; `haidang_agent=debug,warn` names a part
/// and the rest.
fn start_logging() {
    let wanted = std::env::var("HAIDANG_LOG").unwrap_or_else(|_| "info".to_owned());
    let read = wanted.parse::<Targets>();
    let is_bad = read.is_err();
    let filter = read.unwrap_or_else(|_| Targets::new().with_default(LevelFilter::INFO));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    if is_bad {
        tracing::warn!(wanted, "HAIDANG_LOG is no filter, such as info or debug: info is shown");
    }
}

fn enroll(path: &Path, code_file: Option<&Path>, replace: Replace) -> anyhow::Result<ExitCode> {
    keep_memory_to_itself()?;
    let config = Config::load(path)
        .context("the configuration comes first: it says where the identity is kept")?;
    let store = Store::new(&config.state_dir);
    if store.exists() && replace == Replace::No {
        return Err(IdentityError::Exists.into());
    }
    let code: EnrolmentCode = read_code(code_file)?.parse()?;
    let machine = Machine {
        instance: store.instance()?,
        machine_id: host::machine_id(),
        hostname: host::facts().hostname,
    };
    settings::forget(&config.state_dir)?;
    let work = enrol(&code, machine, &store, replace, Some(&config.dedicated));
    let Identity { agency, agency_name, agent, .. } = &runtime()?.block_on(work)?;
    writeln!(
        io::stdout(),
        "Đã đăng ký: {agency_name} ({agency}), mã máy {agent}.\n\
         Enrolled: {agency_name} ({agency}), agent {agent}."
    )?;
    Ok(ExitCode::SUCCESS)
}

/// The code never stands on the command line, where every user of the machine could read it.
fn read_code(code_file: Option<&Path>) -> anyhow::Result<Zeroizing<String>> {
    // One byte more than allowed, so that too long a text is noticed where it is parsed.
    let limit = CODE_BYTES_MAX as u64 + 64;
    let mut code = Zeroizing::new(String::with_capacity(CODE_BYTES_MAX + 64));
    let stdin = io::stdin();
    match code_file {
        Some(path) if path != Path::new("-") => {
            std::fs::File::open(path)
                .and_then(|file| file.take(limit).read_to_string(&mut code))
                .with_context(|| format!("cannot read the code from {}", path.display()))?;
        }
        None if stdin.is_terminal() => {
            let mut stderr = io::stderr();
            write!(stderr, "Mã đăng ký (enrolment code): ")?;
            stderr.flush()?;
            stdin.lock().take(limit).read_line(&mut code).context("cannot read the code")?;
        }
        _ => {
            let read = stdin.lock().take(limit).read_to_string(&mut code);
            read.context("cannot read the code from standard input")?;
        }
    }
    Ok(code)
}

/// Whether the ways to the anchors are followed.
#[derive(Clone, Copy)]
enum Ways {
    Followed,
    NotAsked,
}

fn check(path: &Path, output: &Output, ways: Ways) -> anyhow::Result<ExitCode> {
    let style = if io::stdout().is_terminal() { Style::Coloured } else { Style::Plain };
    let (text, path_outcome, posture) = match Config::load(path) {
        Ok(config) => check_path(&config, output, style, ways)?,
        Err(error) => {
            let problem = problem_of(&error);
            let text = match output.json {
                true => without_config_json(path, &problem),
                false => without_config(path, &problem, output.lang, style),
            };
            (text, Outcome::Unknown, posture_look(None)?)
        }
    };
    let text = match output.json {
        true => posture.added_to(&text).context("the two parts make no JSON document")?,
        false => format!("{}\n\n{}", text.trim_end(), posture.table(output.lang, style)),
    };
    print(text.trim_end())?;
    Ok(path_outcome.max(posture.outcome()).exit_status().into())
}

fn check_path(
    config: &Config,
    output: &Output,
    style: Style,
    ways: Ways,
) -> anyhow::Result<(String, Outcome, PostureLook)> {
    let (enrolment, roots, clock) = match Store::new(&config.state_dir).load() {
        Ok(Some(identity)) => {
            let clock = ClockDoubt::of(SystemTime::now(), &identity, agent_says(config));
            (Enrolment::Enrolled(identity.agency.clone()), identity.roots, clock)
        }
        Ok(None) => (Enrolment::NotEnrolled, Vec::new(), None),
        Err(error) => {
            let problem = format!("{:#}", anyhow::Error::from(error));
            (Enrolment::Unreadable(problem), Vec::new(), None)
        }
    };
    let (cycle, ways) = runtime()?.block_on(async {
        let mut prober = Prober::new(config, &roots)?;
        let cycle = prober.cycle(CyclePlan::thorough()).await;
        let ways = match ways {
            Ways::Followed => prober.ways().await,
            Ways::NotAsked => Vec::new(),
        };
        anyhow::Ok((cycle, ways))
    })?;
    let host = host::facts();
    let checkup = Checkup {
        config,
        cycle: &cycle,
        enrolment: &enrolment,
        host: Some(&host),
        ways: &ways,
        clock: clock.as_ref(),
    };
    let text = match output.json {
        true => checkup.json(),
        false => checkup.table(output.lang, style),
    };
    Ok((text, checkup.outcome(), posture_look(Some(config))?))
}

/// What the running agent met with, if there is one and this account may ask it.
fn agent_says(config: &Config) -> AgentSays {
    match status::ask(&config.status_socket) {
        Ok(document) if document.uplink.is_clock_doubted => AgentSays::CollectorOver,
        Ok(_) | Err(_) => AgentSays::Nothing,
    }
}

fn posture_look(config: Option<&Config>) -> anyhow::Result<PostureLook> {
    let guidance = config.map_or_else(Guidance::default, Guidance::kept);
    let answers = look(runtime()?.block_on(subject(config, &guidance))?);
    Ok(PostureLook { catalogue: Catalogue::load()?, answers })
}

/// What is wrong with a file, without its name, which stands beside it.
fn problem_of(error: &ConfigError) -> String {
    match error {
        ConfigError::Read { source, .. } => source.to_string(),
        error => error.to_string(),
    }
}

fn ask(path: &Path, output: &Output) -> anyhow::Result<ExitCode> {
    let config = Config::load(path)?;
    let document = status::ask(&config.status_socket)
        .with_context(|| Key::StatusNotRunning.text(output.lang))?;
    let text = match output.json {
        true => serde_json::to_string_pretty(&document)?,
        false => document.table(output.lang),
    };
    print(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what was asked for. A reader that has seen enough, such as head, is no error.
fn print(text: &str) -> io::Result<()> {
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
