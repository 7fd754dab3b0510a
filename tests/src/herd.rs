//! The herd: the collector is killed under a crowd and started again, and everybody comes back. Each
//! agent has to be heard within the window that the agent's own rule and the interval that the
//! server gave leave it, no report may be refused twice, no agency may be anything but unknown or
//! connected, and nobody may be called.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::collector::Tempo;
use crate::cost::Cost;
use crate::duty::Duty;
use crate::figures;
use crate::load::crowd::{Crowd, CrowdPlan, Happening, What};
use crate::load::life::retry_window;
use crate::target::Target;

/// From the end of a window to the answer to a report: a handshake, on cores that the crowd and the
/// collector share.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// Until everybody is back, beyond which something is broken.
const BACK_TIMEOUT: Duration = Duration::from_secs(150);
/// For so many intervals after everybody is back, nobody may be called.
const QUIET_INTERVALS: u32 = 4;
/// Of an agency whose agents have come back, or have not yet.
const STATES: [&str; 3] = ["connected", "unknown", "not_enrolled"];

/// The collector's, until all are back.
const CPU_SECONDS: Target = Target::at_most(3.0).missed_because(
    "a new process knows no session, because keys of tickets are kept on no disk: 10,000 full \
     handshakes alone take more, see Handshakes",
);

/// Who is called, and rightly, when a collector is not started again at once.
const COLLECTOR_DOWN: &str = "CollectorDown";

/// What is done.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Agents, each with its connection.
    pub agents: usize,
    /// How often they report.
    pub tempo: Tempo,
    /// How long the collector is not started again.
    pub away: Duration,
    /// Whether Prometheus and Alertmanager look on.
    pub on_duty: bool,
}

/// What came of it. [`run`] fails when somebody is late or refused twice, or an alert fires.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What was done.
    pub plan: Plan,
    /// From the kill until the collector was ready again.
    pub away: Duration,
    /// From then until each agent's report was taken, shortest first.
    pub back: Vec<Duration>,
    /// The longest window that an agent had, by its own failures.
    pub window: Duration,
    /// Connections that were begun after the collector was ready, and those that failed.
    pub connects: [usize; 2],
    /// The most connections that were begun in a second, and the mean while any was.
    pub connects_per_second: [f64; 2],
    /// Reports that were refused with a reason.
    pub refused: usize,
    /// The collector's processor time from ready until everybody was back.
    pub cpu: Duration,
}

/// Kills the collector under its crowd and starts it again.
///
/// # Errors
/// As [`Outcome`] says.
pub async fn run(plan: Plan) -> Result<Outcome> {
    let Plan { agents, tempo, away, on_duty } = plan;
    let mut crowd = Crowd::gather(CrowdPlan { agents, couriers: 0, tempo }, |_| Ok(())).await?;
    let mut duty = match on_duty {
        true => Some(Duty::begin(crowd.directory(), crowd.collector()?.plan.http).await?),
        false => None,
    };
    let settled = Instant::now();
    crowd.heard_since(settled, BACK_TIMEOUT).await?;
    let killed = Instant::now();
    crowd.restart_after(away).await?;
    let ready = Instant::now();
    let pid = crowd.collector.as_mut().context("it is there")?.process().pid();
    let before = Cost::of(pid)?;
    let watched = async {
        loop {
            if let Err(error) = nobody_is_missed(&crowd).await {
                return error.context("while they came back");
            }
            tokio::time::sleep(tempo.report_interval() / 4).await;
        }
    };
    tokio::select! {
        heard = crowd.heard_since(ready, BACK_TIMEOUT) => heard?,
        missed = watched => return Err(missed),
    }
    let cpu = Cost::of(pid)?.cpu.saturating_sub(before.cpu);
    let quiet = Instant::now();
    while quiet.elapsed() < tempo.report_interval() * QUIET_INTERVALS {
        nobody_is_missed(&crowd).await?;
        tokio::time::sleep(tempo.report_interval() / 4).await;
    }
    crowd.all_connected(BACK_TIMEOUT).await?;
    if let Some(duty) = &mut duty {
        let called = duty.called().await?;
        let of_the_absence = |name: &String| !away.is_zero() && name == COLLECTOR_DOWN;
        ensure!(called.iter().all(of_the_absence), "somebody was called: {called:?}");
    }

    let outcome = Outcome {
        plan,
        away: ready.duration_since(killed),
        cpu,
        ..judged(&crowd.since(settled), plan, killed, ready)?
    };
    crowd.end().await?;
    Ok(outcome)
}

async fn nobody_is_missed(crowd: &Crowd) -> Result<()> {
    let metrics = crowd.collector()?.metrics().await?;
    let states = metrics.find("haidang_agency_state", &[]).filter(|sample| sample.value == 1.0);
    let states: BTreeSet<&str> =
        states.filter_map(|sample| sample.labels.get("state")).map(String::as_str).collect();
    ensure!(states.iter().all(|state| STATES.contains(state)), "false states: {states:?}");
    let incidents = metrics.find("haidang_incident_active", &[]);
    let incidents: Vec<_> = incidents.filter(|sample| sample.value > 0.0).collect();
    ensure!(incidents.is_empty(), "false incidents: {incidents:?}");
    Ok(())
}

/// One agent's way back.
#[derive(Debug, Clone, Copy, Default)]
struct WayBack {
    /// Failures before the collector was ready.
    failures: u32,
    refused: usize,
    back: Option<Duration>,
}

/// Whether everybody came back in time, and how.
fn judged(happened: &[Happening], plan: Plan, killed: Instant, ready: Instant) -> Result<Outcome> {
    let mut ways: BTreeMap<usize, WayBack> =
        (0..plan.agents).map(|agent| (agent, WayBack::default())).collect();
    let (mut begun, mut failed) = (Vec::new(), 0);
    for Happening { at, agent, what } in happened {
        let way = ways.get_mut(agent).context("an agent of the crowd")?;
        match what {
            What::Connects if *at >= ready => begun.push(at.duration_since(ready)),
            What::NotConnected if *at >= ready => failed += 1,
            What::NotConnected | What::NotHeard if *at >= killed && *at < ready => {
                way.failures += 1;
            }
            What::Refused if *at >= killed => way.refused += 1,
            What::Heard { .. } if *at >= ready && way.back.is_none() => {
                way.back = Some(at.duration_since(ready));
            }
            _ => {}
        }
    }
    let interval = plan.tempo.report_interval();
    let (mut back, mut window_max, mut refused) = (Vec::new(), Duration::ZERO, 0);
    for (agent, way) in ways {
        let took = way.back.with_context(|| format!("agent {agent} never came back"))?;
        // Who has not noticed yet does so with the next report, an interval and a half away at most.
        let notices = if way.failures == 0 { interval * 3 / 2 } else { Duration::ZERO };
        let window = notices + retry_window(way.failures.max(1), interval);
        ensure!(
            took <= window + ANSWER_WITHIN,
            "agent {agent} was back after {took:?}, and had {window:?} ({} failures before)",
            way.failures
        );
        ensure!(way.refused <= 1, "a report of agent {agent} was refused {} times", way.refused);
        window_max = window_max.max(window);
        refused += way.refused;
        back.push(took);
    }
    back.sort_unstable();
    Ok(Outcome {
        plan,
        away: Duration::ZERO,
        back,
        window: window_max,
        connects: [begun.len(), failed],
        connects_per_second: per_second(&begun),
        refused,
        cpu: Duration::ZERO,
    })
}

/// The most in a second, and the mean from the first to the last second.
fn per_second(times: &[Duration]) -> [f64; 2] {
    let mut seconds: BTreeMap<u64, u32> = BTreeMap::new();
    for time in times {
        *seconds.entry(time.as_secs()).or_default() += 1;
    }
    let span = match (seconds.keys().next(), seconds.keys().next_back()) {
        (Some(first), Some(last)) => last - first + 1,
        _ => return [0.0; 2],
    };
    let most = seconds.values().max().copied().unwrap_or(0);
    [f64::from(most), times.len() as f64 / span as f64]
}

impl Outcome {
    /// The section of `benches/RESULTS.md`.
    ///
    /// # Errors
    /// Never; writing to a text cannot fail.
    pub fn section(&self) -> Result<String> {
        let agents = self.plan.agents;
        let (mut title, mut command) = (
            "The herd after a restart of the collector".to_owned(),
            format!("haidang-faults herd --agents {agents}"),
        );
        let away = self.plan.away.as_secs();
        if away > 0 {
            title += &format!(" that was away for {away} s");
            command += &format!(" --away-seconds {away}");
        }
        let mut text = format!("## {title}\n\n{}\n\n", figures::origin(&command));
        let build = if cfg!(debug_assertions) { "debug" } else { "release" };
        writeln!(
            text,
            "{agents} agents with mTLS connections of their own, which use the agent's own rule of \
             when to connect, report every {} s; the collector ({build} build) is killed and started \
             again on the same two cores. Everybody was back within the window that the rule and \
             the server's interval give, no report was refused twice, no agency was anything but \
             unknown or connected, and nobody was called by the shipped alerts{}.\n",
            self.plan.tempo.report_interval().as_secs(),
            if away > 0 { " but for the absence itself" } else { "" },
        )?;
        let at = |share: f64| {
            let last = self.back.len().saturating_sub(1);
            let back = self.back.get((last as f64 * share).round() as usize);
            back.copied().unwrap_or_default().as_secs_f64()
        };
        let [most, mean] = self.connects_per_second;
        let cpu = self.cpu.as_secs_f64();
        let rows = [
            ("collector away, s", format!("{:.1}", self.away.as_secs_f64())),
            ("back after ready: p50, s", format!("{:.1}", at(0.5))),
            ("back after ready: p99, s", format!("{:.1}", at(0.99))),
            ("back after ready: last, s", format!("{:.1}", at(1.0))),
            ("longest window given, s", format!("{:.1}", self.window.as_secs_f64())),
            ("connections begun / failed", format!("{} / {}", self.connects[0], self.connects[1])),
            (
                "connections a second: peak / mean (target: below 3 times)",
                format!("{most:.0} / {mean:.0} = {:.2}", most / mean),
            ),
            ("reports refused", self.refused.to_string()),
            (
                "collector's CPU-s until all were back",
                // Of a collector that was away, in which a minute of reports is held too, none is asked.
                match away {
                    0 => format!("{cpu:.2} (target {})", CPU_SECONDS.judge(cpu)),
                    _ => format!("{cpu:.2}"),
                },
            ),
        ];
        text += "| what | value |\n|---|---|\n";
        for (what, value) in rows {
            writeln!(text, "| {what} | {value} |")?;
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan =
        Plan { agents: 1, tempo: Tempo::Default, away: Duration::ZERO, on_duty: false };

    /// One agent: killed at 0, ready at 5 s, and what it does, by the second.
    fn judge(steps: &[(u64, What)]) -> Result<Outcome> {
        let killed = Instant::now();
        let at = |second| killed + Duration::from_secs(second);
        let happened: Vec<_> = steps
            .iter()
            .map(|(second, what)| Happening { at: at(*second), agent: 0, what: *what })
            .collect();
        judged(&happened, PLAN, killed, at(5))
    }

    #[test]
    fn who_is_late_refused_twice_or_missing_is_found() {
        let heard = What::Heard { after: Duration::ZERO };
        let unnoticed = judge(&[(20, What::NotHeard), (29, What::Connects), (29, heard)]);
        assert_eq!(unnoticed.expect("in time").back, [Duration::from_secs(24)]);
        assert!(judge(&[(20, What::NotHeard), (34, heard)]).is_err(), "15 s and 10 s were given");
        let noticed =
            |second| judge(&[(1, What::NotHeard), (3, What::NotConnected), (second, heard)]);
        assert_eq!(noticed(25).expect("in time").window.as_secs_f64().round(), 20.0);
        assert!(noticed(29).is_err());
        assert!(judge(&[(6, What::Refused), (7, What::Refused), (8, heard)]).is_err());
        assert!(judge(&[]).is_err());
    }

    #[test]
    fn the_peak_is_of_a_second_and_the_mean_of_the_whole_span() {
        let times = [0, 100, 200, 2_500].map(Duration::from_millis);
        assert_eq!(per_second(&times), [3.0, 4.0 / 3.0]);
        assert_eq!(per_second(&[]), [0.0; 2]);
    }
}
