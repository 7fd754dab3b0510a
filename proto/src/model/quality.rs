//! Path quality as counts. Counts from different windows and machines can be added;
//! percentiles cannot, so they are computed only where they are shown.

use std::time::Duration;

use crate::wire;

use super::WireError;

/// Number of round-trip buckets. Bucket `i` covers RTTs in microseconds in
/// `[lower(i), lower(i + 1))`: 8 steps to every doubling from 64 µs up (relative width
/// ≤ 1/8), the first bucket starting at 0 and the last, from about 15 s, open.
pub const RTT_BUCKETS: usize = 144;
/// Sub-buckets of one doubling, as a power of two.
const STEP_BITS: u32 = 3;
/// RTTs below this are in bucket 0.
const FIRST_US: u64 = 64;

/// Runs of consecutive losses by length: 1, 2, 3–4, 5–8, 9 and more.
pub const LOSS_RUN_CLASSES: usize = 5;

/// Counts of one window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quality {
    /// Length of the window.
    pub window: Duration,
    /// Echo requests, and TCP handshakes in their stead, whose fate is certain.
    pub sent: u32,
    /// Answered within the packet's own deadline.
    pub received: u32,
    /// Answered after it.
    pub late: u32,
    /// Never answered.
    pub lost: u32,
    /// See [`LOSS_RUN_CLASSES`].
    pub loss_runs: [u32; LOSS_RUN_CLASSES],
    /// Round-trip times of what was received.
    pub rtt: RttHistogram,
    /// Smallest round-trip time, exactly; `None` when nothing was received.
    pub rtt_min: Option<Duration>,
    /// Sum of |RTT(i) − RTT(i−1)| over packets sent one after the other and both answered in
    /// time (RFC 3393).
    pub ipdv_abs_sum: Duration,
    /// Terms of that sum.
    pub ipdv_count: u32,
    /// The prober's worst timer lag.
    pub prober_lag_max: Duration,
    /// Of `sent`, so many were TCP handshakes, where echo is forbidden on the machine or filtered
    /// on the way. Their round trip is the time to connect.
    pub tcp_connects: u32,
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            window: Duration::ZERO,
            sent: 0,
            received: 0,
            late: 0,
            lost: 0,
            loss_runs: [0; LOSS_RUN_CLASSES],
            rtt: RttHistogram::default(),
            rtt_min: None,
            ipdv_abs_sum: Duration::ZERO,
            ipdv_count: 0,
            prober_lag_max: Duration::ZERO,
            tcp_connects: 0,
        }
    }
}

impl Quality {
    /// Adds the counts of another window.
    pub fn merge(&mut self, other: &Self) {
        self.window += other.window;
        self.sent = self.sent.saturating_add(other.sent);
        self.received = self.received.saturating_add(other.received);
        self.late = self.late.saturating_add(other.late);
        self.lost = self.lost.saturating_add(other.lost);
        for (mine, theirs) in self.loss_runs.iter_mut().zip(other.loss_runs) {
            *mine = mine.saturating_add(theirs);
        }
        self.rtt.merge(&other.rtt);
        self.rtt_min = match (self.rtt_min, other.rtt_min) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        self.ipdv_abs_sum = self.ipdv_abs_sum.saturating_add(other.ipdv_abs_sum);
        self.ipdv_count = self.ipdv_count.saturating_add(other.ipdv_count);
        self.prober_lag_max = self.prober_lag_max.max(other.prober_lag_max);
        self.tcp_connects = self.tcp_connects.saturating_add(other.tcp_connects);
    }

    /// Share of packets that never came back; `None` when none was sent.
    pub fn loss_ratio(&self) -> Option<f64> {
        (self.sent > 0).then(|| f64::from(self.lost) / f64::from(self.sent))
    }

    /// Packet delay variation, p95 − min (RFC 5481).
    pub fn pdv(&self) -> Option<Duration> {
        Some(self.rtt.percentile(0.95)?.saturating_sub(self.rtt_min?))
    }

    /// Mean |IPDV|.
    pub fn ipdv_mean(&self) -> Option<Duration> {
        (self.ipdv_count > 0).then(|| self.ipdv_abs_sum / self.ipdv_count)
    }

    /// The class in `loss_runs` of a run of so many losses, at least 1.
    pub const fn loss_run_class(length: u32) -> usize {
        match length {
            0 | 1 => 0,
            2 => 1,
            3..=4 => 2,
            5..=8 => 3,
            _ => 4,
        }
    }
}

/// A mergeable round-trip histogram, sparse because a window holds few distinct values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RttHistogram {
    /// (bucket, count), by bucket, without zeros.
    buckets: Vec<(u8, u32)>,
}

impl RttHistogram {
    /// Counts one round trip.
    pub fn record(&mut self, rtt: Duration) {
        self.add(bucket_of(rtt), 1);
    }

    /// Number of round trips.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    /// Adds another histogram.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            self.add(*bucket, *count);
        }
    }

    /// The value that `share` (0 to 1) of the round trips do not exceed: the middle of its
    /// bucket. `None` when empty.
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank between 1 and count"
        )]
        let rank = ((count as f64 * share.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += u64::from(*count);
            if seen >= rank {
                let low = lower(u32::from(*bucket));
                let high = lower(u32::from(*bucket) + 1);
                return Some(Duration::from_micros(u64::midpoint(low, high)));
            }
        }
        None
    }

    fn add(&mut self, bucket: u8, count: u32) {
        match self.buckets.binary_search_by_key(&bucket, |(bucket, _)| *bucket) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (bucket, count)),
        }
    }
}

/// The bucket of a round-trip time.
fn bucket_of(rtt: Duration) -> u8 {
    let us = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
    if us < FIRST_US {
        return 0;
    }
    let doubling = us.ilog2() - FIRST_US.ilog2();
    let step = (us >> (us.ilog2() - STEP_BITS)) & ((1 << STEP_BITS) - 1);
    let index = 1 + u64::from(doubling << STEP_BITS) + step;
    u8::try_from(index.min(RTT_BUCKETS as u64 - 1)).expect("there are fewer than 256 buckets")
}

/// Lower bound of a bucket in microseconds.
fn lower(bucket: u32) -> u64 {
    let Some(index) = bucket.checked_sub(1) else { return 0 };
    let doubling = index >> STEP_BITS;
    let step = u64::from(index & ((1 << STEP_BITS) - 1));
    (FIRST_US << doubling) + ((FIRST_US << doubling) >> STEP_BITS) * step
}

impl TryFrom<wire::Quality> for Quality {
    type Error = WireError;

    fn try_from(quality: wire::Quality) -> Result<Self, WireError> {
        let wire::Quality {
            window_ms,
            sent,
            received,
            late,
            lost,
            loss_runs,
            rtt_bucket_index,
            rtt_bucket_count,
            rtt_min_us,
            ipdv_abs_sum_us,
            ipdv_count,
            prober_lag_max_us,
            tcp_connects,
        } = quality;
        let known = u64::from(received) + u64::from(late) + u64::from(lost);
        if known != u64::from(sent) {
            return Err(WireError::new("quality.sent", "is not received + late + lost"));
        }
        if tcp_connects > sent {
            return Err(WireError::new("quality.tcp_connects", "is more than sent"));
        }
        if rtt_bucket_index.len() != rtt_bucket_count.len() || rtt_bucket_index.len() > RTT_BUCKETS
        {
            return Err(WireError::new("quality.rtt_bucket_index", "does not match its counts"));
        }
        let mut rtt = RttHistogram::default();
        for (index, count) in rtt_bucket_index.into_iter().zip(rtt_bucket_count) {
            let bucket = u8::try_from(index)
                .ok()
                .filter(|index| usize::from(*index) < RTT_BUCKETS)
                .ok_or(WireError::new("quality.rtt_bucket_index", "is beyond the last bucket"))?;
            rtt.add(bucket, count);
        }
        if rtt.count() != u64::from(received) {
            return Err(WireError::new("quality.rtt_bucket_count", "does not add up to received"));
        }
        Ok(Self {
            window: Duration::from_millis(window_ms),
            sent,
            received,
            late,
            lost,
            loss_runs: loss_runs
                .try_into()
                .map_err(|_| WireError::new("quality.loss_runs", "has not five classes"))?,
            rtt,
            rtt_min: (received > 0).then(|| Duration::from_micros(rtt_min_us)),
            ipdv_abs_sum: Duration::from_micros(ipdv_abs_sum_us),
            ipdv_count,
            prober_lag_max: Duration::from_micros(prober_lag_max_us),
            tcp_connects,
        })
    }
}

impl From<Quality> for wire::Quality {
    fn from(quality: Quality) -> Self {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let (rtt_bucket_index, rtt_bucket_count) =
            quality.rtt.buckets.iter().map(|(bucket, count)| (u32::from(*bucket), *count)).unzip();
        Self {
            window_ms: u64::try_from(quality.window.as_millis()).unwrap_or(u64::MAX),
            sent: quality.sent,
            received: quality.received,
            late: quality.late,
            lost: quality.lost,
            loss_runs: quality.loss_runs.to_vec(),
            rtt_bucket_index,
            rtt_bucket_count,
            rtt_min_us: quality.rtt_min.map_or(0, micros),
            ipdv_abs_sum_us: micros(quality.ipdv_abs_sum),
            ipdv_count: quality.ipdv_count,
            prober_lag_max_us: micros(quality.prober_lag_max),
            tcp_connects: quality.tcp_connects,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_contiguous_and_narrow() {
        for bucket in 1..RTT_BUCKETS as u32 - 1 {
            let (low, high) = (lower(bucket), lower(bucket + 1));
            assert!(low < high);
            assert_eq!(u32::from(bucket_of(Duration::from_micros(low))), bucket);
            assert_eq!(u32::from(bucket_of(Duration::from_micros(high - 1))), bucket);
            assert!((high - low) * 8 <= low.max(8), "bucket {bucket} is {low}..{high}");
        }
        assert_eq!(bucket_of(Duration::ZERO), 0);
        assert_eq!(usize::from(bucket_of(Duration::from_secs(u64::MAX / 2))), RTT_BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn merging_equals_recording_together(a in proptest::collection::vec(0u64..20_000_000, 0..60),
                                             b in proptest::collection::vec(0u64..20_000_000, 0..60)) {
            let record = |values: &[u64]| {
                let mut histogram = RttHistogram::default();
                for us in values { histogram.record(Duration::from_micros(*us)); }
                histogram
            };
            let mut merged = record(&a);
            merged.merge(&record(&b));
            prop_assert_eq!(merged, record(&[a, b].concat()));
        }

        #[test]
        fn a_percentile_is_within_an_eighth(mut values in proptest::collection::vec(64u64..9_000_000, 1..200), share in 0.0f64..=1.0) {
            let mut histogram = RttHistogram::default();
            for us in &values { histogram.record(Duration::from_micros(*us)); }
            values.sort_unstable();
            let rank = ((values.len() as f64 * share).ceil() as usize).max(1);
            let exact = values[rank - 1] as f64;
            let seen = histogram.percentile(share).expect("not empty").as_micros() as f64;
            prop_assert!((seen - exact).abs() <= exact / 8.0 + 1.0, "{} {}", seen, exact);
        }

        #[test]
        fn quality_survives_the_wire(rtts in proptest::collection::vec(0u64..5_000_000, 0..40), lost in 0u32..5) {
            let sent = lost + rtts.len() as u32;
            let mut quality = Quality { lost, sent, received: rtts.len() as u32, tcp_connects: sent / 2, ..Quality::default() };
            for us in &rtts { quality.rtt.record(Duration::from_micros(*us)); }
            quality.rtt_min = rtts.iter().min().map(|us| Duration::from_micros(*us));
            prop_assert_eq!(Quality::try_from(wire::Quality::from(quality.clone())), Ok(quality));
        }
    }
}
