//! The network laboratory for people: `up` builds it and tells what happens in it, `cut` and
//! `heal` change it from another shell, `measure` writes figures into `benches/RESULTS.md`.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use haidang_tests::accuracy;
use haidang_tests::agent_cost::{self, Peer};
use haidang_tests::alert_path::{ALERTMANAGER, AlertPath, CUT_AGENCY, Known, PROMETHEUS, Witness};
use haidang_tests::binaries::repository;
use haidang_tests::collector::Tempo;
use haidang_tests::control::{self, Asking, Control, DEFAULT_SOCKET, Order, Outcome};
use haidang_tests::fault::Cut;
use haidang_tests::figures::{self, Times};
use haidang_tests::forward::Forwarder;
use haidang_tests::laboratory::{HTTP, LabAgency, Laboratory, Seat};
use haidang_tests::monitoring::{Monitoring, MonitoringPlan};
use haidang_tests::scenario;
use haidang_tests::topology::SitePlan;
use haidang_tests::trial::{self, HEADING, Measured};
use haidang_tests::web::Endpoint;
use haidang_tests::webhook::{Notification, Webhook};
use haidang_tests::{interrupted, netns, pass_budget};

/// The agencies of the laboratory, of all levels, and whether each has a second way.
const AGENCIES: [(&str, bool); 4] = [
    ("01-018", true),
    ("01-018-00565", true),
    ("01-so-thong-tin-va-truyen-thong", true),
    ("01-001", false),
];
/// A repeated measurement waits this long for one notification.
const MEASURE_DEADLINE: Duration = Duration::from_secs(300);
/// An agent is measured after its warm-up.
const AGENT_SETTLE: Duration = Duration::from_secs(60);

/// Between two packets of an accuracy measurement: more jitter than this would reorder them.
const ACCURACY_SPACING: Duration = Duration::from_millis(100);

#[derive(Parser)]
#[command(about = "The network laboratory: agencies, a WAN, a core and an Internet detour")]
struct Arguments {
    /// Where a running laboratory listens.
    #[arg(long, global = true, default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the laboratory, with real Prometheus and Alertmanager, until Ctrl-C.
    Up,
    /// Cut an agency of the running laboratory.
    Cut {
        /// Its id, such as 01-018.
        agency: String,
        /// The fault.
        cut: Cut,
    },
    /// Undo every cut of an agency.
    Heal {
        /// Its id.
        agency: String,
    },
    /// Measure what the first full posture pass of a running agent costs, and record it.
    Pass {
        /// How many agents, side by side.
        #[arg(long, default_value_t = 5)]
        runs: usize,
    },
    /// Measure what an agent costs beside node_exporter, blackbox_exporter, Zabbix's agent and
    /// netdata, installing those, and record it.
    Agent {
        /// For how long, after a minute of settling.
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Measure cut → collector → webhook and heal → resolved with the default timers, and record
    /// them.
    Measure {
        /// How often.
        #[arg(long, default_value_t = 10)]
        runs: usize,
        /// The fault.
        #[arg(long, default_value = "core")]
        cut: Cut,
        /// How the collector learns of it.
        #[arg(long, value_enum, default_value_t = Witness::Agent)]
        witness: Witness,
    },
    /// Run the simulation of schedule and detector for so many agent-days of each loss pattern,
    /// and record it.
    Simulation {
        /// Agent-days of each pattern.
        #[arg(long, default_value_t = 60)]
        days: u32,
    },
    /// Measure impaired paths with the agent's prober and with fping, and record both.
    Accuracy {
        /// Packets of each prober on each path.
        #[arg(long, default_value_t = 3000)]
        packets: u32,
    },
    /// Run every scenario so many times, and record the time to each verdict.
    Scenarios {
        /// How often.
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Only those whose name contains this.
        #[arg(long, default_value = "")]
        only: String,
    },
}

/// One thread drives everything that starts programs: their parent-death signal follows it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let Arguments { socket, command } = Arguments::parse();
    netns::ends_in_order();
    let task = async {
        match command {
            Task::Up => up(&socket).await,
            Task::Cut { agency, cut } => give(&socket, Order::Cut { agency, cut }).await,
            Task::Heal { agency } => give(&socket, Order::Heal { agency }).await,
            Task::Measure { runs, cut, witness } => measure(runs, cut, witness).await,
            Task::Simulation { days } => simulation(days),
            Task::Accuracy { packets } => accuracy(packets).await,
            Task::Scenarios { runs, only } => scenarios(runs, &only).await,
            Task::Pass { runs } => measure_pass(runs).await,
            Task::Agent { minutes } => measure_agent(minutes).await,
        }
    };
    // What is dropped here removes its processes, namespaces and files.
    tokio::select! {
        done = task => done,
        () = interrupted() => {
            println!("đang dọn dẹp / cleaning up");
            Ok(())
        }
    }
}

async fn give(socket: &Path, order: Order) -> Result<()> {
    println!("{}", control::give(socket, &order).await?);
    Ok(())
}

async fn up(socket: &Path) -> Result<()> {
    println!("đang dựng phòng thí nghiệm mạng / building the network laboratory");
    let control = Control::listen(socket).await?;
    let seats = AGENCIES.map(|(agency, internet)| Seat {
        agency: agency.into(),
        site: SitePlan { internet, ..SitePlan::default() },
        gateway: true,
        ..Seat::default()
    });
    let mut laboratory = Laboratory::build(&seats, Tempo::Default).await?;
    let core = &laboratory.network.core;
    let mut webhook = Webhook::start(Some(core), ([127, 0, 0, 1], 9095).into())?;
    let plan = MonitoringPlan {
        directory: laboratory.directory.path().join("monitoring"),
        netns: Some(Arc::clone(core)),
        collector: HTTP,
        prometheus: PROMETHEUS,
        alertmanager: ALERTMANAGER,
        webhook: webhook.address,
        period_seconds: 1,
    };
    let monitoring = Monitoring::start(&plan).await?;
    let _forwarders = announce(&laboratory, &monitoring, socket).await?;
    // An order that is being read must not be dropped when a notification comes.
    let mut next_order = Box::pin(control.next());
    loop {
        tokio::select! {
            asking = &mut next_order => {
                obey(&mut laboratory.agencies, asking?).await;
                next_order = Box::pin(control.next());
            }
            notification = webhook.next(Duration::MAX) => tell(&notification?),
        }
    }
}

/// Opens the ports on the host, and prints them and what to try.
async fn announce(
    laboratory: &Laboratory,
    monitoring: &Monitoring,
    socket: &Path,
) -> Result<[Forwarder; 3]> {
    let core = Arc::clone(&laboratory.network.core);
    let collector = Forwarder::start(Endpoint::inside(core, HTTP)).await?;
    let prometheus = Forwarder::start(monitoring.prometheus.clone()).await?;
    let alertmanager = Forwarder::start(monitoring.alertmanager.clone()).await?;
    println!("metrics: http://{}/metrics", collector.address);
    println!("api: http://{}/api/v1/agencies", collector.address);
    println!("prometheus: http://{}", prometheus.address);
    println!("alertmanager: http://{}", alertmanager.address);
    println!("\ncơ quan / agencies:");
    for LabAgency { agency, name, site, .. } in &laboratory.agencies {
        let way = if site.plan.internet {
            "có đường Internet / with Internet"
        } else {
            "chỉ TSLCD / TSLCD only"
        };
        println!("  {agency:<32} {name} ({way}); ip netns exec {}", site.netns.name());
    }
    let this = std::env::current_exe().context("ask where this program is")?;
    let this = this.display();
    let socket = match socket {
        path if path == Path::new(DEFAULT_SOCKET) => String::new(),
        path => format!(" --socket {}", path.display()),
    };
    println!("\nthử ngắt rồi nối lại / try to cut and heal, in another shell:");
    for (agency, cut) in [("01-018", "link"), ("01-018-00565", "core"), ("01-001", "gw")] {
        println!("  {this} cut {agency} {cut}{socket}");
        println!("  {this} heal {agency}{socket}");
    }
    println!(
        "  các kiểu ngắt / cuts: link peer addr route gw gwarp core coreunreach \
         dns dnslie svc svc503 pmtu slow gwdeaf icmp anchor lossback lease rename replace forward \
         nat natonly bridge bridgecontainer proxy tunnel tunnelinside tls portal"
    );
    println!("\nthông báo sẽ hiện dưới đây; Ctrl-C để dừng / notifications follow; Ctrl-C stops");
    Ok([collector, prometheus, alertmanager])
}

async fn obey(agencies: &mut [LabAgency], asking: Asking) {
    let (Order::Cut { agency, .. } | Order::Heal { agency }) = &asking.order;
    let place = agencies.iter_mut().find(|place| place.agency == *agency);
    let done = match (place, &asking.order) {
        (None, _) => Err(anyhow::anyhow!("the laboratory has no agency {agency}")),
        (Some(place), Order::Cut { cut, .. }) => {
            place.site.cut(*cut).await.map(|()| format!("{}: {cut:?} cut", place.name))
        }
        (Some(place), Order::Heal { .. }) => {
            place.site.heal().await.map(|()| format!("{}: healed", place.name))
        }
    };
    let outcome = match done {
        Ok(done) => {
            println!("→ {done}");
            Outcome::Done(done)
        }
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    asking.answer(&outcome).await;
}

/// Prints what a person on duty would be told; the heartbeat and the goal are no news here.
fn tell(notification: &Notification) {
    for alert in &notification.alerts {
        let name = alert.labels.get("alertname").map_or("", String::as_str);
        if matches!(name, "Watchdog" | "GoalBelowTarget") {
            continue;
        }
        let status = match alert.status.as_str() {
            "resolved" => "ĐÃ KHÔI PHỤC / RESOLVED",
            _ => "CẢNH BÁO / FIRING",
        };
        println!("[{status}] {name}");
        for text in ["summary_vi", "summary_en"] {
            println!("    {}", alert.annotations.get(text).map_or("", String::as_str));
        }
    }
}

async fn measure_pass(runs: usize) -> Result<()> {
    println!("starting {runs} agents; a first pass comes within two minutes");
    let costs = pass_budget::measure(runs).await?;
    let section = pass_budget::section(&format!("haidang-lab pass --runs {runs}"), &costs)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

async fn measure_agent(minutes: u64) -> Result<()> {
    Peer::install(&Peer::ALL)?;
    println!("measuring for {minutes} minutes, after one of settling");
    let plan = agent_cost::Plan {
        period: Duration::from_secs(minutes * 60),
        settle: AGENT_SETTLE,
        tempo: Tempo::Default,
        peers: Peer::ALL.to_vec(),
    };
    let costs = agent_cost::measure(&plan).await?;
    let command = format!("haidang-lab agent --minutes {minutes}");
    let section = agent_cost::section(&command, &plan, &costs)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

async fn measure(runs: usize, cut: Cut, witness: Witness) -> Result<()> {
    println!("building the laboratory with the default timers");
    let mut path = AlertPath::build(Tempo::Default, witness).await?;
    let times = |quantity: &str| Times { quantity: quantity.into(), runs: Vec::new() };
    let mut known = times("cut → collector");
    let (mut told, mut resolved) = (times("cut → webhook"), times("heal → resolved"));
    for run in 1..=runs {
        path.connected(MEASURE_DEADLINE).await?;
        let Known { collector, webhook, .. } = path.cut(cut, MEASURE_DEADLINE).await?;
        let (_, healed) = path.heal(MEASURE_DEADLINE).await?;
        println!(
            "run {run}: cut → collector {collector:.1?}, webhook {webhook:.1?}; \
             heal → resolved {healed:.1?}"
        );
        known.runs.push(collector);
        told.runs.push(webhook);
        resolved.runs.push(healed);
        path.forget().await?;
    }
    let (title, way) = match witness {
        Witness::Agent => ("From cut to notification", "second way permitted"),
        Witness::Core => (
            "From cut to notification by the core's check",
            "no second way: the collector asks the agency's gateway",
        ),
    };
    let notes = format!(
        "Agency {CUT_AGENCY}, cut `{cut:?}`, {way}, default timers; Prometheus scrapes and \
         evaluates every second, Alertmanager groups for one second. An alert is kept for a \
         minute after healing (`keep_firing_for`), so that a restart of the collector resolves \
         nothing falsely; the time to `resolved` holds that minute."
    );
    let command = format!("haidang-lab measure --runs {runs} --cut {cut:?} --witness {witness:?}");
    let section =
        figures::section(title, &command.to_lowercase(), &notes, &[known, told, resolved])?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

async fn accuracy(packets: u32) -> Result<()> {
    println!("measuring {} paths with {packets} packets each", 2 * accuracy::CASES.len());
    let rows = accuracy::measure(packets, ACCURACY_SPACING).await?;
    let notes = format!(
        "Each path is impaired on its way to the core alone. Packets {} ms apart, deadline 1 s. \
         `set` is what the relay was told; jitter is uniform, so p95, PDV (p95 − min) and the \
         mean distance of neighbours follow from it. `dropped` is what the relay really lost of \
         what that prober sent. fping counts late answers as lost. Our percentiles are the middle \
         of a histogram's bucket, an eighth wide.",
        ACCURACY_SPACING.as_millis()
    );
    let command = format!("haidang-lab accuracy --packets {packets}");
    let table = accuracy::table(&rows);
    let section = figures::section_of_tables("Accuracy of path quality", &command, &notes, &table);
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

/// The simulation is a test of the agent: it fails when anything is false, and prints what it
/// found.
fn simulation(days: u32) -> Result<()> {
    println!("simulating; sixty days take some minutes");
    let tests = ["test", "--workspace", "--locked", "--lib", "simulation", "--", "--nocapture"];
    let output = Command::new("cargo")
        .args(tests)
        .current_dir(repository("."))
        .env("HAIDANG_SIMULATED_DAYS", days.to_string())
        .stderr(Stdio::inherit())
        .output()
        .context("start cargo")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "the simulation failed:\n{said}");
    let figures = said.lines().filter(|line| line.contains("seed 0x"));
    let list: String = figures.map(|line| format!("- {line}\n")).collect();
    ensure!(!list.is_empty(), "the simulation printed no figure:\n{said}");
    let notes = "The real schedule and detector with their default timers, on simulated time. \
        Hard cuts and pulled cables at random moments: from the cut to the agent's commit. Loss: \
        a false down is a verdict `disconnected` while the path only loses packets. \
        `HAIDANG_SIMULATION_SEED` replays another seed.";
    let command = format!("haidang-lab simulation --days {days}");
    let section = figures::section_of_tables("Simulated cuts and losses", &command, notes, &list);
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}

/// A scenario that fails in any run is no figure: nothing is recorded then.
async fn scenarios(runs: usize, only: &str) -> Result<()> {
    let mut scenarios = scenario::all()?;
    scenarios.retain(|scenario| scenario.name.contains(only));
    ensure!(!scenarios.is_empty(), "no scenario's name contains {only:?}");
    let mut measured: BTreeMap<String, Vec<Measured>> = BTreeMap::new();
    let mut failed = Vec::new();
    for run in 1..=runs {
        println!("run {run} of {runs}\n{HEADING}");
        trial::run_all(&scenarios, |outcome| match outcome {
            Ok(one) => {
                println!("{one}");
                measured.entry(one.name.clone()).or_default().push(one);
            }
            Err(error) => failed.push(format!("run {run}: {error}")),
        })
        .await?;
    }
    ensure!(failed.is_empty(), "nothing is recorded, since:\n{}", failed.join("\n"));
    let mut times = Vec::new();
    for (name, runs) in &measured {
        let quantity = |end| format!("{name}: cut → {end}");
        let agent: Vec<_> = runs.iter().filter_map(|one| one.agent).collect();
        if !agent.is_empty() {
            times.push(Times { quantity: quantity("agent"), runs: agent });
        }
        let collector = runs.iter().map(|one| one.collector).collect();
        times.push(Times { quantity: quantity("collector"), runs: collector });
        let healed = runs.iter().map(|one| one.healed).collect();
        times.push(Times { quantity: format!("{name}: heal → connected"), runs: healed });
    }
    let notes = "Shortened timers: reports and probes every second, confirmation every 0.4 s, \
        kernel-visible losses after 0.5 s, recovery after 2 s, quality windows of 10 s, up to 21 \
        sites at a time on this machine. A scenario in which nothing must change ends when its \
        waiting time does. The defaults are proved by the simulation and by \
        \"From cut to notification\"; these times show what is seen first, and by whom.";
    let only = if only.is_empty() { String::new() } else { format!(" --only {only}") };
    let command = format!("haidang-lab scenarios --runs {runs}{only}");
    let section = figures::section("Scenarios", &command, notes, &times)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)?;
    println!("{section}");
    Ok(())
}
