//! How true the agent's path quality is: its own prober and `fping` measure impaired paths side
//! by side, each on a path of its own with the same impairment, and the relay, which made the
//! impairment, tells what it really lost.
//!
//! Only the way to the core is impaired, so that each round trip takes exactly the delay that was
//! drawn for its request, plus what the machine adds; that part is the `clean` row.

use std::net::IpAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use haidang_agent::clock::Clock;
use haidang_agent::config::Config;
use haidang_agent::connectivity::Detector;
use haidang_agent::probe::Prober;
use haidang_agent::schedule::CyclePlan;
use haidang_probe::LATE_GRACE;
use haidang_proto::model::quality::Quality;

use crate::netns::Netns;
use crate::relay::{Direction, Impairment, Impairments};
use crate::topology::{CORE, DEDICATED, Network, Site, SitePlan};

/// How long a packet may take, for both; the default of the agent and twice that of fping.
const DEADLINE: Duration = Duration::from_secs(1);
/// Packets of one cycle of the prober.
const CYCLE_PACKETS: u32 = 10;

/// An impairment and what has to be seen of it.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Name of its row.
    pub name: &'static str,
    impairment: Impairment,
}

/// The rows of the table.
pub const CASES: [Case; 8] = [
    Case { name: "clean", impairment: Impairment::NONE },
    Case { name: "20 ms", impairment: Impairment { delay_ms: 20, ..Impairment::NONE } },
    Case {
        name: "80 ± 10 ms",
        impairment: Impairment { delay_ms: 80, jitter_ms: 10, ..Impairment::NONE },
    },
    Case {
        name: "1 % lost",
        impairment: Impairment { delay_ms: 20, loss_ratio: 0.01, ..Impairment::NONE },
    },
    Case {
        name: "5 % lost",
        impairment: Impairment { delay_ms: 20, loss_ratio: 0.05, ..Impairment::NONE },
    },
    Case {
        name: "20 % lost",
        impairment: Impairment { delay_ms: 20, loss_ratio: 0.2, ..Impairment::NONE },
    },
    Case {
        name: "10 % lost in runs of 4",
        impairment: Impairment {
            delay_ms: 20,
            loss_ratio: 0.1,
            loss_run_mean: 4.0,
            ..Impairment::NONE
        },
    },
    Case { name: "1.2 s", impairment: Impairment { delay_ms: 1200, ..Impairment::NONE } },
];

/// One row: what was done to the path, and what both saw.
#[derive(Debug, Clone)]
pub struct Row {
    /// What was done.
    pub case: Case,
    /// The agent's prober.
    pub ours: Reading,
    /// fping.
    pub fping: Reading,
}

/// What one prober saw of its path, and what the relay did to it meanwhile.
#[derive(Debug, Clone, Default)]
pub struct Reading {
    /// Packets whose fate is certain.
    pub sent: u32,
    /// Never answered.
    pub lost: u32,
    /// Answered after the deadline; fping cannot tell them from lost ones.
    pub late: u32,
    /// Median round trip of those in time.
    pub rtt_median: Option<Duration>,
    /// 95th percentile.
    pub rtt_p95: Option<Duration>,
    /// Packet delay variation (RFC 5481): p95 − min.
    pub pdv: Option<Duration>,
    /// Mean |IPDV| (RFC 3393).
    pub ipdv_mean: Option<Duration>,
    /// What the relay dropped of what this prober sent through it.
    pub dropped_ratio: f64,
}

impl Reading {
    /// Lost packets over sent ones.
    pub fn loss_ratio(&self) -> f64 {
        f64::from(self.lost) / f64::from(self.sent.max(1))
    }

    fn of_counts(counts: &Quality) -> Self {
        Self {
            sent: counts.sent,
            lost: counts.lost,
            late: counts.late,
            rtt_median: counts.rtt.percentile(0.5),
            rtt_p95: counts.rtt.percentile(0.95),
            pdv: counts.pdv(),
            ipdv_mean: counts.ipdv_mean(),
            dropped_ratio: 0.0,
        }
    }

    /// From the round trips that fping prints, `None` for no answer in time.
    fn of_round_trips(round_trips: &[Option<Duration>]) -> Self {
        let mut sorted: Vec<Duration> = round_trips.iter().flatten().copied().collect();
        sorted.sort();
        let percentile = |share: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a rank between 1 and the number of answers"
            )]
            let rank = ((sorted.len() as f64 * share).ceil() as usize).max(1);
            sorted.get(rank - 1).copied()
        };
        let pairs: Vec<Duration> =
            round_trips.windows(2).filter_map(|pair| Some(pair[0]?.abs_diff(pair[1]?))).collect();
        let pair_count = u32::try_from(pairs.len()).unwrap_or(u32::MAX);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Self {
            sent: count(round_trips.len()),
            lost: count(round_trips.len() - sorted.len()),
            late: 0,
            rtt_median: percentile(0.5),
            rtt_p95: percentile(0.95),
            pdv: percentile(0.95).zip(sorted.first()).map(|(p95, min)| p95 - *min),
            ipdv_mean: pairs.iter().sum::<Duration>().checked_div(pair_count),
            dropped_ratio: 0.0,
        }
    }
}

impl Case {
    /// The share of packets that the path loses in the long run.
    pub fn loss_ratio(&self) -> f64 {
        self.impairment.loss_ratio
    }

    /// The standard error of the loss ratio over so many packets. Losses in runs of mean length m
    /// vary like (2 m − 1) times fewer independent ones.
    pub fn loss_error(&self, packets: u32) -> f64 {
        let Impairment { loss_ratio, loss_run_mean, .. } = self.impairment;
        let inflation = (2.0 * loss_run_mean - 1.0).max(1.0);
        (loss_ratio * (1.0 - loss_ratio) * inflation / f64::from(packets.max(1))).sqrt()
    }

    /// Whether every answer comes after the deadline.
    pub fn is_late(&self) -> bool {
        self.delay() > DEADLINE
    }

    /// The delay in the middle.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.impairment.delay_ms.into())
    }

    /// The delay that 95 % of the packets do not exceed: jitter is uniform.
    pub fn delay_p95(&self) -> Duration {
        self.delay() + self.jitter().mul_f64(0.9)
    }

    /// p95 − min.
    pub fn pdv(&self) -> Duration {
        self.jitter().mul_f64(1.9)
    }

    /// Mean distance of two independent draws from a uniform range of twice the jitter: a third
    /// of the range.
    pub fn ipdv_mean(&self) -> Duration {
        self.jitter().mul_f64(2.0 / 3.0)
    }

    fn jitter(&self) -> Duration {
        Duration::from_millis(self.impairment.jitter_ms.into())
    }
}

/// Measures every case with so many packets, all at the same time. Needs root and fping.
///
/// # Errors
/// When the network cannot be built, or fping says something else than round trips.
pub async fn measure(packets: u32, spacing: Duration) -> Result<Vec<Row>> {
    let network = Network::build(&[SitePlan::default(); 2 * CASES.len()]).await?;
    let mut threads = Vec::new();
    for (case, sites) in CASES.iter().zip(network.sites.chunks(2)) {
        let [mine, theirs] = sites else { continue };
        for site in [mine, theirs] {
            let to_core = case.impairment;
            site.relay.impair(site.octet(), Impairments { to_core, ..Impairments::default() });
        }
        let (site, config) = (Arc::clone(&mine.netns), config(mine)?);
        let ours = tokio::task::spawn_blocking(move || prober(&site, &config, packets, spacing));
        let site = Arc::clone(&theirs.netns);
        threads.push((case, sites, ours, tokio::spawn(fping(site, packets, spacing))));
    }
    let mut rows = Vec::new();
    for (case, sites, ours, fping) in threads {
        let mut ours = ours.await.context("the prober's thread")??;
        let mut fping = fping.await.context("fping's task")??;
        ours.dropped_ratio = sites[0].relay.tally(sites[0].octet(), Direction::ToCore).lost_ratio();
        fping.dropped_ratio =
            sites[1].relay.tally(sites[1].octet(), Direction::ToCore).lost_ratio();
        rows.push(Row { case: *case, ours, fping });
    }
    Ok(rows)
}

/// The agent's configuration at a site, with the core as its only anchor.
fn config(site: &Site) -> Result<Config> {
    let text = format!(
        "[dedicated]\ninterface = {{ name = \"eth0\" }}\nlocal_prefixes = [\"{}\"]\n\
         network_prefixes = [\"{DEDICATED}\"]\n\n\
         [[anchor]]\nname = \"core\"\naddress = \"{CORE}\"\n\n\
         [verdict]\nstarved_lag = \"400ms\"\nwarm_up = \"0s\"\n",
        site.leg().prefix,
    );
    Config::parse(&text, Path::new("agent.toml")).context("the agent's configuration")
}

/// The agent's prober and its counts, as its observer joins them.
fn prober(site: &Netns, config: &Config, packets: u32, spacing: Duration) -> Result<Reading> {
    site.inside(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("runtime")?;
        runtime.block_on(async {
            let clock = Clock::new();
            let mut prober = Prober::new(config, &[])?;
            let mut detector = Detector::new(&config.verdict, &config.dedicated, clock.now());
            let mut counts = Quality::default();
            let plan = CyclePlan {
                echoes_per_anchor: CYCLE_PACKETS,
                echo_spacing: spacing,
                echo_deadline: DEADLINE,
                tcp: false,
                climb: false,
                unbound: false,
                path_mtu: false,
                fresh_sockets: false,
                ..CyclePlan::thorough()
            };
            for _ in 0..packets.div_ceil(CYCLE_PACKETS) {
                let started = clock.moment();
                let cycle = prober.cycle(plan).await;
                detector.observe(&cycle, started, clock.now());
                counts.merge(&detector.take_quality());
            }
            // Each cycle finds what came late after the one before, and losses are certain only
            // when nothing can come late any more.
            let last = clock.boottime();
            while clock.boottime() <= last + LATE_GRACE {
                tokio::time::sleep(2 * DEADLINE).await;
                let started = clock.moment();
                let cycle = prober.cycle(CyclePlan { echoes_per_anchor: 1, ..plan }).await;
                detector.observe(&cycle, started, clock.now());
                counts.merge(&detector.take_quality());
            }
            Ok(Reading::of_counts(&counts))
        })
    })?
}

async fn fping(site: Arc<Netns>, packets: u32, spacing: Duration) -> Result<Reading> {
    let core = IpAddr::V4(CORE);
    let output = tokio::process::Command::from(site.command("fping"))
        .args(["-q", "-C", &packets.to_string(), "-p", &spacing.as_millis().to_string()])
        .args(["-t", &DEADLINE.as_millis().to_string(), &core.to_string()])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("start fping")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let round_trips = round_trips(&said).with_context(|| format!("fping said {said:?}"))?;
    ensure!(round_trips.len() == packets as usize, "fping sent {}", round_trips.len());
    Ok(Reading::of_round_trips(&round_trips))
}

/// `198.18.0.10 : 20.1 - 20.3`, in milliseconds.
fn round_trips(said: &str) -> Result<Vec<Option<Duration>>> {
    let (_, values) = said.trim().rsplit_once(" : ").context("no line of round trips")?;
    let one = |value: &str| match value {
        "-" => Ok(None),
        ms => Ok(Some(Duration::from_secs_f64(ms.parse::<f64>()? / 1e3))),
    };
    values.split_whitespace().map(one).collect()
}

/// The table of RESULTS.md.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| path | by | sent | lost % | dropped by the relay % | late % | RTT median ms | p95 ms | \
         PDV ms | mean IPDV ms |\n|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let ms = |value: Option<Duration>| {
        value.map_or_else(|| "–".into(), |value| format!("{:.2}", value.as_secs_f64() * 1e3))
    };
    for Row { case, ours, fping } in rows {
        let truth = |value: Duration| ms((!case.is_late()).then_some(value));
        text += &format!(
            "| {} | set | | {:.1} | | {} | {} | {} | {} | {} |\n",
            case.name,
            case.loss_ratio() * 100.0,
            if case.is_late() { 100 } else { 0 },
            truth(case.delay()),
            truth(case.delay_p95()),
            truth(case.pdv()),
            truth(case.ipdv_mean()),
        );
        for (by, reading) in [("haidang", ours), ("fping", fping)] {
            text += &format!(
                "| | {by} | {} | {:.2} | {:.2} | {:.1} | {} | {} | {} | {} |\n",
                reading.sent,
                reading.loss_ratio() * 100.0,
                reading.dropped_ratio * 100.0,
                f64::from(reading.late) * 100.0 / f64::from(reading.sent.max(1)),
                ms(reading.rtt_median),
                ms(reading.rtt_p95),
                ms(reading.pdv),
                ms(reading.ipdv_mean),
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_fping_is_read_with_its_losses() {
        let read = round_trips("198.18.0.10 : 20.1 - 20.3\n").expect("a line");
        let reading = Reading::of_round_trips(&read);
        assert_eq!((reading.sent, reading.lost), (3, 1));
        assert_eq!(reading.rtt_median, Some(Duration::from_micros(20_100)));
        assert_eq!(reading.ipdv_mean, None, "a loss is between them");
        round_trips("fping: can't create socket").expect_err("no round trips");
        round_trips("198.18.0.10 : 20.1 x").expect_err("no number");
    }
}
