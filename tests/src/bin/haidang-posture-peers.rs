//! Judges this machine and a fresh Debian by Lynis, by OpenSCAP and by us, compares every check,
//! and records the table in `benches/RESULTS.md`. Ends with 1 when a difference is not explained,
//! or an explanation not needed.
//!
//! Needs root, on Debian 12 with its archive; installs what is missing and takes about ten
//! minutes, the first time more. Build with `--release` for figures of the released agent.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use haidang_proto::model::posture::CheckId;
use haidang_tests::binaries::{Binaries, repository};
use haidang_tests::peers::explained::{self, Mapping};
use haidang_tests::peers::openscap::{self, PROFILE, WALKING};
use haidang_tests::peers::systems::{Archive, Container, Place};
use haidang_tests::peers::table::{self, Cost};
use haidang_tests::peers::{
    Cell, Comparison, Ours, Peer, System, Theirs, compare, lynis, units, usage,
};
use haidang_tests::{figures, netns};
use serde::Deserialize;

/// Where our agent is in the Debian.
const AGENT: &str = "/usr/bin/haidang-agent";

#[derive(Parser)]
#[command(about = "Compares our posture checks with Lynis and OpenSCAP on the same systems")]
struct Arguments {
    #[command(subcommand)]
    command: Option<Task>,
    /// Keep the peers' own output in this directory.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Task {
    /// Start the agent's units in the Debian, and compare what they say with what root says.
    Units,
    /// Run a command and leave its cost in a file; the program calls itself so.
    #[command(name = usage::WORD, hide = true)]
    Measured {
        /// The file.
        figures: PathBuf,
        /// The command.
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

/// One thread drives everything that starts programs: their parent-death signal follows it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let Arguments { command, keep } = Arguments::parse();
    match command {
        Some(Task::Measured { figures, command }) => usage::measure_here(&figures, &command),
        Some(Task::Units) => start_units().await,
        None => run(keep.as_deref()).await,
    }
}

async fn run(keep: Option<&Path>) -> Result<ExitCode> {
    netns::prepare()?;
    let mapping = read("tests/peers/mapping.csv")?;
    let mapping = Mapping::parse(&mapping)?;
    let explained = explained::parse(&read("tests/peers/explained.csv")?)?;
    let agent = Binaries::find()?.agent;
    println!("installing and fetching what is missing");
    let archive = Archive::prepare()?;
    let (datastream, version) = archive.datastream()?;
    let lab = netns::directory()?;
    // The Debian sees this part alone, so that nobody finds its tree inside itself.
    let directory = &lab.path().join("work");
    fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
    let mut judge = Judge { mapping: &mapping, datastream, directory, costs: Vec::new() };

    println!("judging this machine");
    let agent_here = agent.to_str().context("the build directory has a plain name")?;
    let mut cells = judge.judge(System::Machine, &Place::Here, agent_here)?;
    println!("making a Debian");
    let tree = archive.debian(lab.path())?;
    let guide = judge.datastream.clone();
    let shown = [(agent.as_path(), Path::new(AGENT)), (guide.as_path(), guide.as_path())];
    let container = Place::Container(Container::start(&tree, directory, &shown).await?);
    let (enabled, _) = container.run(&["ufw", "--force", "enable"], directory)?;
    ensure!(enabled.status.success(), "ufw: {}", String::from_utf8_lossy(&enabled.stderr));
    println!("judging it");
    cells.extend(judge.judge(System::Debian, &container, AGENT)?);
    println!("starting the units");
    let sandboxed = units::differences(&container, &tree, directory).await?;

    if let Some(keep) = keep {
        fs::create_dir_all(keep).with_context(|| format!("make {}", keep.display()))?;
        for name in ["machine", "debian"] {
            for kind in ["lynis.log", "oscap", "ours.json"] {
                let name = format!("{name}.{kind}");
                fs::copy(directory.join(&name), keep.join(&name))
                    .with_context(|| format!("keep {name}"))?;
            }
        }
    }
    let costs = judge.costs;
    let comparison = compare(cells, &explained);
    let section = section(&comparison, &costs, &version)?;
    println!("{section}");
    let problems = [comparison.problems.as_slice(), &sandboxed].concat();
    if !are_none(&problems) {
        println!("{} problems; nothing recorded", problems.len());
        return Ok(ExitCode::FAILURE);
    }
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    Ok(ExitCode::SUCCESS)
}

async fn start_units() -> Result<ExitCode> {
    netns::prepare()?;
    let agent = Binaries::find()?.agent;
    println!("making a Debian");
    let lab = netns::directory()?;
    let directory = &lab.path().join("work");
    fs::create_dir(directory).with_context(|| format!("make {}", directory.display()))?;
    let tree = Archive::prepare()?.debian(lab.path())?;
    let container = Container::start(&tree, directory, &[(&agent, Path::new(AGENT))]).await?;
    println!("starting the units");
    let sandboxed = units::differences(&Place::Container(container), &tree, directory).await?;
    Ok(if are_none(&sandboxed) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn are_none(problems: &[String]) -> bool {
    for problem in problems {
        println!("✗ {problem}");
    }
    problems.is_empty()
}

struct Judge<'a> {
    mapping: &'a Mapping,
    datastream: PathBuf,
    directory: &'a Path,
    costs: Vec<Cost>,
}

impl Judge<'_> {
    /// Asks all three on one system.
    fn judge(&mut self, system: System, place: &Place, agent: &str) -> Result<Vec<Cell>> {
        let name = match system {
            System::Machine => "machine",
            System::Debian => "debian",
        };
        let ours = self.ours(name, place, agent)?;
        let mut theirs = BTreeMap::new();
        let rules = self.mapping.items(Peer::OpenScap);
        let (walking, still): (Vec<&str>, Vec<&str>) =
            rules.into_iter().partition(|rule| WALKING.contains(rule));
        let still = self.openscap(name, place, "OpenSCAP", &still)?;
        let walking = match system {
            System::Machine => {
                walking.into_iter().map(|rule| (rule.to_owned(), Theirs::NotEvaluated)).collect()
            }
            System::Debian => self.openscap(name, place, "OpenSCAP, walking rules", &walking)?,
        };
        for (rule, answer) in still.into_iter().chain(walking) {
            theirs.insert((Peer::OpenScap, rule), answer);
        }
        let log = self.lynis(name, place)?;
        for item in self.mapping.items(Peer::Lynis) {
            theirs.insert((Peer::Lynis, item.to_owned()), lynis::answer(&log, item)?);
        }
        self.mapping.cells(system, &ours, &theirs)
    }

    fn ours(&mut self, name: &str, place: &Place, agent: &str) -> Result<BTreeMap<CheckId, Ours>> {
        #[derive(Deserialize)]
        struct Document {
            posture: Vec<Answer>,
        }
        #[derive(Deserialize)]
        struct Answer {
            check: String,
            verdict: Ours,
        }
        let output =
            self.measured(name, place, "haidang-agent check", &[agent, "check", "--json"])?;
        self.kept(name, "ours.json", &output)?;
        let document: Document =
            serde_json::from_str(&output).context("read what haidang-agent check says")?;
        let answers = document.posture.into_iter().map(|Answer { check, verdict }| {
            let id = CheckId::from_label(&check);
            Ok((id.with_context(|| format!("{check} is no check"))?, verdict))
        });
        answers.collect()
    }

    fn openscap(
        &mut self,
        name: &str,
        place: &Place,
        what: &str,
        rules: &[&str],
    ) -> Result<BTreeMap<String, Theirs>> {
        let tailoring = self.directory.join("tailoring.xml");
        fs::write(&tailoring, openscap::tailoring(rules.iter().copied()))
            .with_context(|| format!("write {}", tailoring.display()))?;
        let plain = |path: &Path| path.to_str().map(str::to_owned).context("a plain path");
        let (tailoring, datastream) = (plain(&tailoring)?, plain(&self.datastream)?);
        let command = ["oscap", "xccdf", "eval", "--profile", PROFILE, "--tailoring-file"];
        let command = [&command[..], &[&tailoring, &datastream]].concat();
        let output = self.measured(name, place, what, &command)?;
        self.kept(name, "oscap", &output)?;
        let answers = openscap::answers(&output)?;
        for rule in rules {
            ensure!(answers.contains_key(*rule), "the guide has no rule {rule}");
        }
        Ok(answers)
    }

    fn lynis(&mut self, name: &str, place: &Place) -> Result<String> {
        let log = self.directory.join(format!("{name}.lynis.log"));
        let report = self.directory.join("lynis-report.dat");
        let plain = |path: &Path| path.to_str().map(str::to_owned).context("a plain path");
        let (log_path, report) = (plain(&log)?, plain(&report)?);
        let audit = ["lynis", "audit", "system", "--quick", "--no-colors", "--quiet"];
        let files = ["--logfile", &log_path, "--report-file", &report];
        self.measured(name, place, "Lynis", &[&audit[..], &files].concat())?;
        let bytes = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Runs it, and notes what it cost. All three end with other statuses than 0 when they find
    /// something; whoever reads the output sees whether it is whole.
    fn measured(
        &mut self,
        name: &str,
        place: &Place,
        what: &str,
        command: &[&str],
    ) -> Result<String> {
        println!("  {what}");
        let (output, usage) = place.run(command, self.directory)?;
        self.costs.push(Cost { what: format!("{what}, {name}"), usage });
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn kept(&self, name: &str, kind: &str, output: &str) -> Result<()> {
        use std::io::Write as _;
        let path = self.directory.join(format!("{name}.{kind}"));
        let file = fs::File::options().create(true).append(true).open(&path);
        let mut file = file.with_context(|| format!("open {}", path.display()))?;
        file.write_all(output.as_bytes()).with_context(|| format!("write {}", path.display()))
    }
}

fn section(comparison: &Comparison, costs: &[Cost], guide: &str) -> Result<String> {
    let notes = format!(
        "Every check beside the rules of `ssg-debian` {guide} and the tests of Lynis that \
         `tests/peers/mapping.csv` maps to it, on this machine and on a Debian 12 with sshd, \
         auditd, ufw (enabled), rsyslog, chrony and unattended-upgrades under systemd-nspawn. \
         {} cells; each agrees or carries explanations of `tests/peers/explained.csv`: E1 they \
         check configuration, we check effect; E2 they have no rule; E3 not applicable to them; \
         E4 another threshold or question; E5 they cannot evaluate it; E6 their ok means no \
         finding. † evidence that a container does not have for itself: there auditd, chrony and \
         the kernel are the machine's. OpenSCAP evaluates the mapped rules alone; the two that \
         walk the disk are asked of the Debian only, whose disk is small, and measured apart. On the same Debian the agent's units were started: by way of their readers they say of each check what root says. The agent is a {} build.",
        comparison.cells.len(),
        if cfg!(debug_assertions) { "debug" } else { "release" },
    );
    let tables = [table::of_checks(comparison), table::of_costs(costs)].join("\n");
    Ok(figures::section_of_tables(
        "Posture beside Lynis and OpenSCAP",
        "haidang-posture-peers",
        &notes,
        &tables,
    ))
}

fn read(path: &str) -> Result<String> {
    let path = repository(path);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
