//! `haidang-collector`: serves, or asks the collector that serves.
//!
//! Standard output carries what was asked for and nothing else; everything for people goes to
//! standard error. An error's chain is printed once, here.

#![expect(clippy::print_stderr, reason = "this is the command line")]

mod command_line;

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use clap::Parser as _;
use haidang_collector::admin::{AdminAnswer, AdminRequest, RosterFiles, ask};
use haidang_collector::config::Config;
use haidang_collector::run::Collector;
use haidang_collector::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use command_line::{CommandLine, Task};

/// Exit code of a wrong command line (sysexits.h).
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let code = if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
            // Nobody is left to be told when this fails.
            let _ = error.print();
            return code;
        }
    };
    match dispatch(line) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("haidang-collector: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(line: CommandLine) -> anyhow::Result<ExitCode> {
    let config = Config::read(&line.config)?;
    if line.check_config {
        eprintln!("{} is valid", line.config.display());
        return Ok(ExitCode::SUCCESS);
    }
    match line.task() {
        None => {
            eprintln!("haidang-collector: name a command, such as serve; see --help");
            Ok(ExitCode::from(USAGE))
        }
        Some(Task::Serve) => serve(config).map(|()| ExitCode::SUCCESS),
        Some(Task::Import { file, prefixes, yes }) => {
            import(&config, file.as_deref(), prefixes.as_deref(), yes)
        }
        Some(Task::Ask(request)) => show(ask(&config.state_dir, &request)?),
    }
}

fn serve(config: Config) -> anyhow::Result<()> {
    telemetry::start();
    keep_memory_to_itself()?;
    raise_open_files(&config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let collector = Collector::open(config)?;
        let stop = CancellationToken::new();
        let (reload, reloads) = mpsc::channel(1);
        let signals = watch_signals(stop.clone(), reload)?;
        tokio::select! {
            result = collector.run(stop, reloads) => result,
            () = signals => bail!("the signals can no longer be watched"),
        }
    })
}

/// Turns signals into the stop signal and requests to reload.
fn watch_signals(
    stop: CancellationToken,
    reload: mpsc::Sender<()>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let watched = "cannot watch signals";
    let mut terminate = signal(SignalKind::terminate()).context(watched)?;
    let mut interrupt = signal(SignalKind::interrupt()).context(watched)?;
    let mut hang_up = signal(SignalKind::hangup()).context(watched)?;
    Ok(async move {
        loop {
            tokio::select! {
                Some(()) = terminate.recv() => stop.cancel(),
                Some(()) = interrupt.recv() => stop.cancel(),
                // One request that waits is enough.
                Some(()) = hang_up.recv() => drop(reload.try_send(())),
                else => return,
            }
        }
    })
}

/// The CA's key stays out of core dumps, and out of reach of a debugger of the same user
/// (`PR_SET_DUMPABLE`, prctl(2)).
fn keep_memory_to_itself() -> anyhow::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).context("cannot forbid core dumps")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("cannot forbid core dumps")
}

/// Every connection takes an open file, and the usual soft limit is 1,024.
fn raise_open_files(config: &Config) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
    let wanted = config.limits.connections_max as u64;
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|allowed| *allowed < wanted) {
        tracing::warn!(
            allowed,
            wanted,
            "fewer files may be open than limits.connections_max; raise LimitNOFILE"
        );
    }
}

fn import(
    config: &Config,
    file: Option<&Path>,
    prefixes: Option<&Path>,
    yes: bool,
) -> anyhow::Result<ExitCode> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let named = |path: &Path| Ok::<_, anyhow::Error>((path.display().to_string(), read(path)?));
    let files = match file {
        None => None,
        Some(file) => {
            let (roster_name, roster) = named(file)?;
            Some(RosterFiles { roster_name, roster, prefixes: prefixes.map(named).transpose()? })
        }
    };
    let request = |agreed| AdminRequest::RosterImport { files: files.clone(), agreed };
    match ask(&config.state_dir, &request(None))? {
        AdminAnswer::Confirm { diff, version } => {
            eprint!("{diff}");
            if !yes && !agrees()? {
                eprintln!("nothing was changed");
                return Ok(ExitCode::FAILURE);
            }
            show(ask(&config.state_dir, &request(Some(version)))?)
        }
        answer => show(answer),
    }
}

fn agrees() -> anyhow::Result<bool> {
    eprint!("Put it in force, removals included? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim(), "y" | "yes" | "Y"))
}

fn show(answer: AdminAnswer) -> anyhow::Result<ExitCode> {
    match answer {
        AdminAnswer::Done { output, note } => {
            if !note.is_empty() {
                eprintln!("{note}");
            }
            let mut stdout = std::io::stdout().lock();
            match stdout.write_all(output.as_bytes()) {
                // A reader that has seen enough, such as head.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
                written => written.context("cannot write the answer")?,
            }
            Ok(ExitCode::SUCCESS)
        }
        AdminAnswer::Confirm { .. } => bail!("the collector asks back although nothing was asked"),
        AdminAnswer::Refused { message } => bail!("{message}"),
    }
}
