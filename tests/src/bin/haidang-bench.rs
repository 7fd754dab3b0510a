//! The server's figures: one command a figure. Each prints its table with target, floor and a
//! peer's value of the same run, and writes it into `benches/RESULTS.md` where it is told to.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use haidang_tests::bench::exposition::Writer;
use haidang_tests::bench::ingest::IngestPlan;
use haidang_tests::bench::{
    Figure, connections, exposition, handshakes, ingest, raw_tls, records, soak, startup,
};
use haidang_tests::binaries::repository;
use haidang_tests::figures;

#[derive(Parser)]
#[command(about = "Measures the collector beside its targets, floors and peers")]
struct Arguments {
    /// Keep the figures in tests/benches/RESULTS.md; a release build only.
    #[arg(long, global = true)]
    record: bool,
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// A scrape: processor time a series and peak memory, by the size of the roster.
    Exposition {
        /// Agencies, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "631,11384,100000")]
        agencies: Vec<usize>,
        /// Series that the peer gets at most: 2 million take it 2 GB.
        #[arg(long, default_value_t = 2_000_000)]
        peer_series_max: usize,
    },
    /// Reports over mTLS: processor time for a million, by connections.
    Ingest {
        /// Connections, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "100,1000,10000")]
        connections: Vec<usize>,
        /// Reports a second; the same at every size, as far as agents are allowed to.
        #[arg(long, default_value_t = 1_500)]
        rate: u32,
        /// How long reports are sent.
        #[arg(long, default_value_t = 30)]
        seconds: u64,
        /// Pushes to the peer without its consistency check, and a hundredth of them with it.
        #[arg(long, default_value_t = 10_000)]
        pushes: usize,
    },
    /// Memory of idle connections.
    Connections {
        /// Connections, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "1000,15000")]
        connections: Vec<usize>,
    },
    /// Handshakes for a processor second, full and resumed.
    Handshakes {
        /// Handshakes, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "1000,10000")]
        handshakes: Vec<usize>,
    },
    /// Durable records a second, and the time to their acknowledgement.
    Records {
        /// Agents that deliver, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "40,400")]
        couriers: Vec<usize>,
        /// How long each part of it takes.
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// A start with agents and a year of transitions in the store.
    Startup {
        /// Agents, one size after another.
        #[arg(long, value_delimiter = ',', default_value = "10000,100000")]
        agents: Vec<usize>,
        /// Days of transitions with the most agents; fewer agents have fewer in proportion.
        #[arg(long, default_value_t = 365)]
        days: usize,
    },
    /// A steady load for a long time, and whether memory, files or threads grow.
    Soak {
        /// How long.
        #[arg(long, default_value_t = 30)]
        minutes: u64,
        /// Agents, each with its connection.
        #[arg(long, default_value_t = 1_000)]
        agents: usize,
        /// Reports a second of all together.
        #[arg(long, default_value_t = 1_000)]
        rate: u32,
    },
    /// Measures one writer in this process, for `exposition`.
    #[command(hide = true)]
    ExpositionHere {
        #[arg(long, value_enum)]
        writer: Writer,
        #[arg(long)]
        agencies: usize,
        #[arg(long)]
        series_max: usize,
    },
    /// Serves raw mTLS, the floor of the others, until it is killed.
    #[command(hide = true)]
    RawTls {
        #[arg(long)]
        listen: SocketAddr,
        /// Directory with ca.pem, server.pem and server.key.
        #[arg(long)]
        certificates: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let Arguments { record, task } = Arguments::parse();
    ensure!(
        !(record && cfg!(debug_assertions)),
        "figures of a debug build are not recorded; build with --release"
    );
    let (command, measured) = match task {
        Task::Exposition { agencies, peer_series_max } => {
            let sizes = list(&agencies);
            let command =
                format!("exposition --agencies {sizes} --peer-series-max {peer_series_max}");
            (command, exposition::run(&agencies, peer_series_max)?)
        }
        Task::Ingest { connections, rate, seconds, pushes } => {
            let sizes = list(&connections);
            let command = format!(
                "ingest --connections {sizes} --rate {rate} --seconds {seconds} --pushes {pushes}"
            );
            let duration = Duration::from_secs(seconds);
            (command, ingest::run(&IngestPlan { connections, rate, duration, pushes }).await?)
        }
        Task::Connections { connections } => {
            let command = format!("connections --connections {}", list(&connections));
            (command, connections::run(&connections).await?)
        }
        Task::Handshakes { handshakes } => {
            let command = format!("handshakes --handshakes {}", list(&handshakes));
            (command, handshakes::run(&handshakes).await?)
        }
        Task::Records { couriers, seconds } => {
            let command = format!("records --couriers {} --seconds {seconds}", list(&couriers));
            (command, records::run(&couriers, Duration::from_secs(seconds)).await?)
        }
        Task::Startup { agents, days } => {
            let command = format!("startup --agents {} --days {days}", list(&agents));
            (command, startup::run(&agents, days).await?)
        }
        Task::Soak { minutes, agents, rate } => {
            let command =
                format!("haidang-bench soak --minutes {minutes} --agents {agents} --rate {rate}");
            let duration = Duration::from_secs(minutes * 60);
            return tell(&soak::run(agents, rate, duration, &command).await?, record);
        }
        Task::ExpositionHere { writer, agencies, series_max } => {
            let written = exposition::measure_here(writer, agencies, series_max)?;
            println!("{}", serde_json::to_string(&written)?);
            return Ok(());
        }
        Task::RawTls { listen, certificates } => {
            return raw_tls::serve(listen, &certificates).await;
        }
    };
    let figure: Figure = measured;
    tell(&figure.section(&format!("haidang-bench {command}")), record)
}

fn tell(section: &str, record: bool) -> Result<()> {
    println!("{section}");
    if record {
        figures::record(&repository("tests/benches/RESULTS.md"), section)?;
    }
    Ok(())
}

fn list(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
}
