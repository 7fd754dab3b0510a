//! A soak: a steady load for a long time, and whether anything grows.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::figures;
use crate::load::{self, LoadOutcome, LoadPlan, Sample};

/// Share of the time in which everything that is filled once is filled.
const WARM_UP_SHARE: f64 = 0.2;
/// Looks that are averaged into one value, so that the scrapes' saw-tooth is none of the noise.
const LOOKS_PER_VALUE: usize = 10;
/// Half-width of the interval that holds the slope with 95 % probability, in standard errors.
const STANDARD_ERRORS: f64 = 1.96;

/// Growth, by least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    /// For an hour.
    pub kib_per_hour: f64,
    /// With 95 % probability it is within so much of that, if the deviations are independent.
    pub plus_minus: f64,
}

/// Runs it; the section of the results.
///
/// # Errors
/// When a report is not answered, or the collector does not run to the end.
pub async fn run(agents: usize, rate: u32, duration: Duration, command: &str) -> Result<String> {
    let outcome = load::run(LoadPlan { agents, rate, duration }).await?;
    ensure!(outcome.errors == 0, "{} reports were not answered", outcome.errors);
    ensure!(outcome.counted == outcome.reports + agents, "the collector counted other reports");
    Ok(section(&outcome, command))
}

fn section(outcome: &LoadOutcome, command: &str) -> String {
    let warm = warm(&outcome.samples);
    let mut table = String::from("| what | value |\n|---|---|\n");
    let mut line = |what: &str, value: String| {
        writeln!(table, "| {what} | {value} |").expect("a string takes everything");
    };
    line("reports answered, and counted by the collector", outcome.reports.to_string());
    line("reports held back", outcome.held_back.to_string());
    let grows = |samples: &[Sample]| {
        slope(samples).map_or("–".into(), |slope| {
            let is_certain = slope.kib_per_hour > slope.plus_minus;
            let judged = if is_certain { "grows" } else { "no growth that is certain" };
            format!("{:.0} ± {:.0}: {judged}", slope.kib_per_hour, slope.plus_minus)
        })
    };
    line("RSS slope after the warm-up, KiB / hour", grows(warm));
    line("of the last half of it", grows(&warm[warm.len() / 2..]));
    let ends = |of: fn(&Sample) -> u64| {
        let values = || outcome.samples.iter().map(of);
        let (first, last) = (values().next(), values().next_back());
        let most = values().max();
        format!(
            "{} / {} / {}",
            first.unwrap_or_default(),
            last.unwrap_or_default(),
            most.unwrap_or_default()
        )
    };
    line("RSS KiB, first / last / most", ends(|sample| sample.cost.resident_bytes >> 10));
    line("open files, first / last / most", ends(|sample| sample.open_files as u64));
    line("threads, first / last / most", ends(|sample| sample.cost.threads));
    let cost = outcome.cpu_seconds_per_million();
    line("CPU-s / million reports, median of 5 s", format!("{cost:.1}"));
    let LoadPlan { agents, rate, .. } = outcome.plan;
    figures::section_of_tables(
        "Soak",
        command,
        &format!(
            "{agents} agents with a connection each, {rate} reports a second together, a scrape \
             every five seconds. Slope of the least squares over means of {LOOKS_PER_VALUE} \
             seconds after the first fifth of the time, with its 95 % interval. Target: nothing \
             grows without bound. A peer has no such figure: its memory grows with what its \
             collector of garbage leaves."
        ),
        &table,
    )
}

fn warm(samples: &[Sample]) -> &[Sample] {
    &samples[(samples.len() as f64 * WARM_UP_SHARE).ceil() as usize..]
}

/// `None` with fewer than three values: no deviation can be known.
fn slope(samples: &[Sample]) -> Option<Slope> {
    let points: Vec<(f64, f64)> = samples
        .chunks_exact(LOOKS_PER_VALUE)
        .map(|looks| {
            let mean =
                |of: fn(&Sample) -> f64| looks.iter().map(of).sum::<f64>() / looks.len() as f64;
            let hours = mean(|sample| sample.at.as_secs_f64() / 3_600.0);
            (hours, mean(|sample| sample.cost.resident_bytes as f64 / 1_024.0))
        })
        .collect();
    let count = points.len() as f64;
    if points.len() < 3 {
        return None;
    }
    let mean_at = points.iter().map(|(at, _)| at).sum::<f64>() / count;
    let mean = points.iter().map(|(_, kib)| kib).sum::<f64>() / count;
    let spread: f64 = points.iter().map(|(at, _)| (at - mean_at).powi(2)).sum();
    let rise: f64 = points.iter().map(|(at, kib)| (at - mean_at) * (kib - mean)).sum();
    let kib_per_hour = rise / spread;
    let left = points.iter().map(|(at, kib)| kib - mean - kib_per_hour * (at - mean_at));
    let deviation = left.map(|left| left * left).sum::<f64>() / (count - 2.0);
    Some(Slope { kib_per_hour, plus_minus: STANDARD_ERRORS * (deviation / spread).sqrt() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Cost;

    fn samples(kib: impl Fn(u64) -> u64) -> Vec<Sample> {
        let sample = |second| Sample {
            at: Duration::from_secs(second),
            answered: 0,
            cost: Cost { cpu: Duration::ZERO, resident_bytes: kib(second) << 10, threads: 1 },
            open_files: 1,
        };
        (0..360).map(sample).collect()
    }

    #[test]
    fn a_steady_growth_is_its_slope_without_doubt() {
        let slope = slope(&samples(|second| 1_000 + second)).expect("enough");
        assert!((slope.kib_per_hour - 3_600.0).abs() < 1e-6, "{slope:?}");
        assert!(slope.plus_minus < 1e-3, "{slope:?}");
    }

    #[test]
    fn noise_around_a_level_is_no_growth_within_its_doubt() {
        let noise = |second: u64| 1_000 + second / 10 * 7_919 % 13;
        let slope = slope(&samples(noise)).expect("enough");
        assert!(slope.kib_per_hour.abs() < slope.plus_minus * 2.0, "{slope:?}");
        assert!(slope.plus_minus > 0.0);
    }

    #[test]
    fn what_is_filled_once_is_left_out() {
        let filled = samples(|second| if second < 60 { second } else { 60 });
        assert_eq!(slope(warm(&filled)).map(|slope| slope.kib_per_hour), Some(0.0));
        assert_eq!(slope(&filled[..20]), None);
    }
}
