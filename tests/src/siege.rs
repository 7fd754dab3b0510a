//! A collector under attack: what it costs it, and whether an honest agent notices.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::agent::Agent;
use crate::collector::AgencySeen;
use crate::flood::{Flood, Poured, pour};
use crate::loopback::Loopback;
use crate::peer::{Enrolled, REPORT, Session, report, tcp};
use crate::wait;

/// The attacker's agency, and the honest one.
const AGENCIES: [&str; 2] = ["01-018", "01-001"];
/// Inside the first one's prefix.
const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 66));
/// Connections of one flood.
const FLOOD_CONNECTIONS: usize = 4;
/// Between two looks at the collector's memory.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// For an honest agent's next report, on a machine that the flood keeps busy.
const REPORT_DEADLINE: Duration = Duration::from_secs(60);
/// Short, so that half-open connections come to their end within a test.
const HANDSHAKE_TIMEOUT: &str = "2s";

/// A collector with an honest agent, and somebody who has a valid certificate too.
pub struct Siege {
    /// The collector.
    pub world: Loopback,
    /// Who attacks.
    pub attacker: Arc<Enrolled>,
    honest: Agent,
}

/// What an attack came to.
#[derive(Debug, Clone)]
pub struct Endured {
    /// What was done.
    pub attack: String,
    /// What was sent.
    pub poured: Poured,
    /// Refusals that were counted meanwhile, by reason.
    pub refused: Vec<(String, u64)>,
    /// Resident memory of the collector before, and at most.
    pub memory_bytes: (u64, u64),
    /// Its open files before, and at most.
    pub files: (usize, usize),
    /// Reports of the honest agent that were accepted meanwhile.
    pub honest_reports: u64,
    /// How long a new connection of somebody else took to deliver a report, in the midst of it.
    pub newcomer: Duration,
}

impl Siege {
    /// Starts it all, with short timeouts.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn begin() -> Result<Self> {
        allow_open_files();
        let limits = format!("\n[limits]\nhandshake_timeout = \"{HANDSHAKE_TIMEOUT}\"\n");
        let world = Loopback::start_with(&AGENCIES, &limits).await?;
        let code = world.collector.create_token(AGENCIES[0], 1, "1h")?;
        let attacker = Arc::new(Enrolled::with(&code, ATTACKER).await?);
        let honest = world.start_agent(AGENCIES[1], 1, "honest")?;
        let siege = Self { world, attacker, honest };
        siege.honest_agent_is_heard().await?;
        Ok(siege)
    }

    /// Pours a flood from several connections for a while.
    ///
    /// # Errors
    /// When the collector or the honest agent does not endure it.
    pub async fn flood(&mut self, flood: Flood, lasting: Duration) -> Result<Endured> {
        let to = self.world.collector.plan.dedicated[0];
        let attacker = Arc::clone(&self.attacker);
        let identity = &attacker.identity;
        let attack = async {
            // From when it begins, and not from when it was asked for.
            let until = Instant::now() + lasting;
            let floods = (0..FLOOD_CONNECTIONS).map(|_| pour(flood, ATTACKER, to, identity, until));
            let all = try_join_all(floods).await?;
            let sum = all.into_iter().fold(Poured::default(), |sum, one| Poured {
                connections: sum.connections + one.connections,
                ended_by_server: sum.ended_by_server + one.ended_by_server,
                bytes: sum.bytes + one.bytes,
            });
            ensure!(sum.connections > 0, "{flood:?} never reached the collector");
            Ok(sum)
        };
        self.endure(format!("{flood:?}"), attack).await
    }

    /// Opens connections that say nothing, from as many addresses as it takes, and holds each
    /// until the collector ends it.
    ///
    /// # Errors
    /// As [`Siege::flood`].
    pub async fn half_open(&mut self, count: usize) -> Result<Endured> {
        let to = self.world.collector.plan.dedicated[0];
        let attack = async {
            let mut held = Vec::with_capacity(count);
            for number in 0..count {
                // 200 for each address, as one machine could.
                let machine = u16::try_from(number / 200).unwrap_or(u16::MAX).to_be_bytes();
                let from = Ipv4Addr::new(127, 19, machine[0], machine[1]);
                held.push(tcp(from.into(), to).await?);
            }
            let ended = try_join_all(held.iter().map(until_closed)).await?;
            let number = ended.len() as u64;
            Ok(Poured { connections: number, ended_by_server: number, bytes: 0 })
        };
        self.endure(format!("{count} half-open connections"), attack).await
    }

    async fn endure(
        &mut self,
        attack: String,
        attacking: impl Future<Output = Result<Poured>>,
    ) -> Result<Endured> {
        let before = self.metrics().await?;
        let pid = self.world.collector.process().pid();
        let (memory, files) = (resident_bytes(pid)?, open_files(pid)?);
        let mut peak = (memory, files);
        let watching = async {
            loop {
                tokio::time::sleep(LOOK_PERIOD).await;
                if let (Ok(memory), Ok(files)) = (resident_bytes(pid), open_files(pid)) {
                    peak = (peak.0.max(memory), peak.1.max(files));
                }
            }
        };
        let both = async {
            let newcomer = async {
                // In the midst of it.
                tokio::time::sleep(LOOK_PERIOD * 5).await;
                self.newcomer().await
            };
            tokio::try_join!(attacking, newcomer)
        };
        let (poured, newcomer) = tokio::select! {
            both = both => both.with_context(|| attack.clone())?,
            () = watching => unreachable!("it watches without an end"),
        };
        let after = self.honest_reports_beyond(before.reports + 1).await?;
        self.honest_agent_is_heard().await.with_context(|| attack.clone())?;
        self.honest.process().check_running()?;
        self.world.collector.process().check_running()?;
        let refused = after.refused.iter().zip(&before.refused);
        let refused = refused.map(|((reason, now), (_, then))| (reason.clone(), now - then));
        Ok(Endured {
            attack,
            poured,
            refused: refused.filter(|(_, count)| *count > 0).collect(),
            memory_bytes: (memory, peak.0),
            files: (files, peak.1),
            honest_reports: after.reports - before.reports,
            newcomer,
        })
    }

    /// On cores that a flood keeps busy its own path may be degraded, never lost.
    async fn honest_agent_is_heard(&self) -> Result<()> {
        wait::until("the honest agent", REPORT_DEADLINE, || async {
            let metrics = self.world.collector.metrics().await.map_err(|e| format!("{e:#}"))?;
            match AgencySeen::read(&metrics, AGENCIES[1]) {
                Some(seen) if ["connected", "degraded"].contains(&&*seen.state) => Ok(()),
                seen => Err(format!("{seen:?}")),
            }
        })
        .await?;
        Ok(())
    }

    /// A machine that nobody has seen before makes a connection and reports; when that fails, it
    /// tries again, as an agent does.
    async fn newcomer(&self) -> Result<Duration> {
        let to = self.world.collector.plan.dedicated[0];
        let from = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 77));
        let (told, took) = wait::until("a newcomer's report", REPORT_DEADLINE, || async {
            let attempt = async {
                let mut session = Session::open(from, to, Some(&self.attacker.identity)).await?;
                session.call(REPORT, &report([1; 16], 1), &[]).await
            };
            attempt.await.map_err(|error| format!("{error:#}"))
        })
        .await?;
        ensure!(told.status == "0", "an honest report was refused: {told:?}");
        Ok(took)
    }

    async fn honest_reports_beyond(&self, count: u64) -> Result<Seen> {
        let (seen, _) = wait::until("the honest agent's next report", REPORT_DEADLINE, || async {
            let seen = self.metrics().await.map_err(|error| format!("{error:#}"))?;
            if seen.reports > count { Ok(seen) } else { Err(format!("{} reports", seen.reports)) }
        })
        .await?;
        Ok(seen)
    }

    async fn metrics(&self) -> Result<Seen> {
        let metrics = self.world.collector.metrics().await?;
        let reports = metrics.find("haidang_collector_reports_total", &[]);
        let refused = metrics.find("haidang_collector_rejected_total", &[]);
        Ok(Seen {
            reports: reports.map(|sample| sample.value as u64).sum(),
            refused: refused
                .map(|sample| (sample.labels["reason"].clone(), sample.value as u64))
                .collect(),
        })
    }
}

struct Seen {
    reports: u64,
    /// Every reason is there from the start, in one order.
    refused: Vec<(String, u64)>,
}

/// Waits until the other end closes; a connection that was reset is closed too.
async fn until_closed(stream: &TcpStream) -> Result<()> {
    loop {
        stream.readable().await.context("wait")?;
        match stream.try_read(&mut [0; 64]) {
            Ok(0) => return Ok(()),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Ok(()),
            Ok(_) | Err(_) => {}
        }
    }
}

/// Says something to a server, a byte at a time, until it closes. Answers how long it bore that.
///
/// # Errors
/// When it does not end it.
pub async fn drip(
    stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    words: &[u8],
    pause: Duration,
    deadline: Duration,
) -> Result<Duration> {
    let started = Instant::now();
    let (mut read, mut write) = tokio::io::split(stream);
    let dripping = async {
        for byte in words.iter().cycle() {
            if write.write_all(&[*byte]).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(pause).await;
        }
    };
    let mut sink = tokio::io::sink();
    let listening = tokio::io::copy(&mut read, &mut sink);
    let ended = async {
        tokio::select! {
            () = dripping => {}
            _ = listening => {}
        }
    };
    tokio::time::timeout(deadline, ended).await.context("the server bears it for ever")?;
    Ok(started.elapsed())
}

/// As many open files as the hard limit allows: this process is both ends of every connection but
/// the collector's.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where that is not allowed, what is asked for may still fit.
    let _ = setrlimit(Resource::Nofile, limit);
}

fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS")? << 10)
}

fn open_files(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd")).context("read its open files")?.count())
}
