//! Bytes on an interface of a namespace, and on the agent's connection to its collector.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};

use crate::laboratory::REPORTS;
use crate::netns::Netns;

/// Where a program's traffic passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    /// It is asked over loopback, and does nothing else.
    Loopback,
    /// It probes over the site's line, and is asked over loopback, if at all.
    Line,
}

/// Bytes so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Traffic {
    pub(super) all: u64,
    /// Of those who asked, and the answers.
    pub(super) told: u64,
}

impl Wire {
    pub(super) fn traffic(self, netns: &Netns) -> Result<Traffic> {
        let told = bytes_on(netns, "lo")?;
        let line = match self {
            Self::Loopback => 0,
            Self::Line => bytes_on(netns, "eth0")?,
        };
        Ok(Traffic { all: told + line, told })
    }
}

/// What an interface has sent and received; on loopback each byte counts once.
fn bytes_on(netns: &Netns, device: &str) -> Result<u64> {
    let text = netns.inside(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
    let text = text.context("read the interfaces' counters")?;
    let line = text.lines().find_map(|line| line.trim_start().strip_prefix(device));
    let line = line.and_then(|line| line.strip_prefix(':'));
    let line = line.with_context(|| format!("{} has no {device}", netns.name()))?;
    let numbers: Vec<u64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let (received, sent) = (numbers.first(), numbers.get(8));
    let (received, sent) = received.zip(sent).context("/proc/net/dev has another shape")?;
    Ok(if device == "lo" { *sent } else { received + sent })
}

/// The agent's connections to the reporting listener. Its probes end there too, but none of theirs
/// lasts from one look to the next.
#[derive(Debug)]
pub(super) struct ReportLine {
    netns: Arc<Netns>,
    /// By local port: at the beginning, and last.
    seen: BTreeMap<u16, (Counts, Counts)>,
    looks: BTreeMap<u16, u32>,
}

/// What the kernel counts of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    payload_bytes: u64,
    segments: u64,
}

impl ReportLine {
    pub(super) fn new(netns: Arc<Netns>) -> Self {
        Self { netns, seen: BTreeMap::new(), looks: BTreeMap::new() }
    }

    /// From now on.
    pub(super) fn begin(&mut self) -> Result<()> {
        self.seen.clear();
        self.look()?;
        self.seen.values_mut().for_each(|(first, last)| *first = *last);
        Ok(())
    }

    pub(super) fn look(&mut self) -> Result<()> {
        let to = REPORTS.to_string();
        let mut command = self.netns.command("ss");
        let output = command.args(["-HntiO", "state", "established", "dst", &to]).output();
        let output = output.context("start ss: apt-get install iproute2")?;
        ensure!(output.status.success(), "ss: {}", String::from_utf8_lossy(&output.stderr).trim());
        for (port, counts) in connections(&String::from_utf8_lossy(&output.stdout)) {
            // One that is new has sent everything since the beginning.
            let (_, last) = self.seen.entry(port).or_default();
            *last = counts;
            *self.looks.entry(port).or_default() += 1;
        }
        Ok(())
    }

    /// Bytes on the wire, with so many for the headers of each segment.
    pub(super) fn bytes(&self, headers: u64) -> u64 {
        let lasting = |port: &u16| self.looks.get(port).is_some_and(|looks| *looks > 1);
        let of = |counts: &Counts| counts.payload_bytes + headers * counts.segments;
        let seen = self.seen.iter().filter(|(port, _)| lasting(port));
        seen.map(|(_, (first, last))| of(last).saturating_sub(of(first))).sum()
    }
}

/// One connection a line: queues, our address, the peer's, then `key:value` words.
fn connections(text: &str) -> Vec<(u16, Counts)> {
    text.lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let port = words.get(2)?.rsplit_once(':')?.1.parse().ok()?;
            let value = |key: &str| -> u64 {
                let found = words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix(':'));
                found.and_then(|value| value.parse().ok()).unwrap_or(0)
            };
            let payload_bytes = value("bytes_sent") + value("bytes_received");
            Some((port, Counts { payload_bytes, segments: value("segs_out") + value("segs_in") }))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_of_a_connection_is_read() {
        let text = "0 0 198.18.11.10:40112 198.18.0.10:7443 cubic wscale:7,7 rto:204 mss:1448 \
                    bytes_sent:5000 bytes_acked:5001 bytes_received:1200 segs_out:40 segs_in:38\n";
        let counts = Counts { payload_bytes: 6_200, segments: 78 };
        assert_eq!(connections(text), [(40_112, counts)]);
        assert_eq!(connections("no connection\n\n"), []);
    }
}
