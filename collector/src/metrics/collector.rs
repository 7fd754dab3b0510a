//! The collector's own metrics, in a registry of the `prometheus` crate. Every label value of a
//! closed set has its series from the start: a counter that appears with its first error cannot
//! be alerted on.

use std::time::{Duration, SystemTime};

use haidang_proto::model::refusal::Refusal;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::fleet::Listener;

use super::table::{self, Family};

/// Upper bounds of `ingest_seconds`: a report takes tens of microseconds; whatever waits for the
/// store or a lock shows above.
const INGEST_BOUNDS_SECONDS: &[f64] =
    &[0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// What a connection was accepted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// Reports on the dedicated address.
    Dedicated,
    /// Reports over a permitted second path.
    Fallback,
    /// Enrolment.
    Enrolment,
    /// Recovery of expired certificates.
    Recovery,
    /// Page, API and metrics.
    Http,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: &[Self] =
        &[Self::Dedicated, Self::Fallback, Self::Enrolment, Self::Recovery, Self::Http];

    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dedicated => "dedicated",
            Self::Fallback => "fallback",
            Self::Enrolment => "enrolment",
            Self::Recovery => "recovery",
            Self::Http => "http",
        }
    }
}

/// Certificates of the collector itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// Its CA.
    Ca,
    /// What its listeners present.
    Server,
}

impl Certificate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Server => "server",
        }
    }
}

/// The registry and what is in it. Clones share their values.
#[derive(Debug, Clone)]
pub struct CollectorMetrics {
    registry: Registry,
    reports: IntCounterVec,
    rejected: IntCounterVec,
    connections: IntGaugeVec,
    ingest: Histogram,
    store_lag: Gauge,
    store_up: IntGauge,
    clock_step: Gauge,
    certificate_expiry: GaugeVec,
}

impl CollectorMetrics {
    /// All at zero; the store counts as down until it has been written to.
    ///
    /// # Errors
    /// Never in practice: a family of the table with an invalid name or label, which the tests
    /// would have shown.
    pub fn new(version: &str, started: SystemTime) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            reports: IntCounterVec::new(opts(&table::REPORTS), &["listener"])?,
            rejected: IntCounterVec::new(opts(&table::REJECTED), &["reason"])?,
            connections: IntGaugeVec::new(opts(&table::CONNECTIONS), &["listener"])?,
            ingest: Histogram::with_opts(
                HistogramOpts::from(opts(&table::INGEST)).buckets(INGEST_BOUNDS_SECONDS.to_vec()),
            )?,
            store_lag: Gauge::with_opts(opts(&table::STORE_LAG))?,
            store_up: IntGauge::with_opts(opts(&table::STORE_UP))?,
            clock_step: Gauge::with_opts(opts(&table::CLOCK_STEP))?,
            certificate_expiry: GaugeVec::new(opts(&table::CERTIFICATE_EXPIRY), &["certificate"])?,
        };
        let build_info = IntGaugeVec::new(opts(&table::BUILD_INFO), &["version"])?;
        build_info.with_label_values(&[version]).set(1);
        let process_start = Gauge::with_opts(opts(&table::PROCESS_START))?;
        process_start.set(unix_seconds(started));
        metrics.registry.register(Box::new(build_info))?;
        metrics.registry.register(Box::new(process_start))?;
        metrics.registry.register(Box::new(metrics.reports.clone()))?;
        metrics.registry.register(Box::new(metrics.rejected.clone()))?;
        metrics.registry.register(Box::new(metrics.connections.clone()))?;
        metrics.registry.register(Box::new(metrics.ingest.clone()))?;
        metrics.registry.register(Box::new(metrics.store_lag.clone()))?;
        metrics.registry.register(Box::new(metrics.store_up.clone()))?;
        metrics.registry.register(Box::new(metrics.clock_step.clone()))?;
        metrics.registry.register(Box::new(metrics.certificate_expiry.clone()))?;
        for listener in [Listener::Dedicated, Listener::Fallback] {
            metrics.reports.with_label_values(&[listener.as_str()]);
        }
        for refusal in Refusal::ALL {
            metrics.rejected.with_label_values(&[refusal.as_str()]);
        }
        for endpoint in Endpoint::ALL {
            metrics.connections.with_label_values(&[endpoint.as_str()]);
        }
        Ok(metrics)
    }

    /// A report was accepted, so long after it was decoded.
    pub fn report_accepted(&self, listener: Listener, took: Duration) {
        self.reports.with_label_values(&[listener.as_str()]).inc();
        self.ingest.observe(took.as_secs_f64());
    }

    /// A peer or a message was turned away.
    pub fn rejected(&self, refusal: Refusal) {
        self.rejected.with_label_values(&[refusal.as_str()]).inc();
    }

    /// A connection was accepted.
    pub fn connection_opened(&self, endpoint: Endpoint) {
        self.connections.with_label_values(&[endpoint.as_str()]).inc();
    }

    /// A connection ended.
    pub fn connection_closed(&self, endpoint: Endpoint) {
        self.connections.with_label_values(&[endpoint.as_str()]).dec();
    }

    /// A write to the store succeeded; so old was the oldest write that waits still.
    pub fn store_written(&self, lag: Duration) {
        self.store_up.set(1);
        self.store_lag.set(lag.as_secs_f64());
    }

    /// A write to the store failed; so old is the oldest write that waits.
    pub fn store_failed(&self, lag: Duration) {
        self.store_up.set(0);
        self.store_lag.set(lag.as_secs_f64());
    }

    /// The wall clock was stepped so far since the start.
    pub fn clock_stepped(&self, seconds: f64) {
        self.clock_step.set(seconds);
    }

    /// A certificate of our own is in use.
    pub fn certificate_expires(&self, certificate: Certificate, at: SystemTime) {
        self.certificate_expiry.with_label_values(&[certificate.as_str()]).set(unix_seconds(at));
    }

    /// Refusals so far, for one reason.
    pub fn rejections(&self, refusal: Refusal) -> u64 {
        self.rejected.with_label_values(&[refusal.as_str()]).get()
    }

    /// The registry in the text format. It encodes what `new` registered, and a family that could
    /// not be encoded is left out rather than taking the fleet's series with it.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for family in self.registry.gather() {
            let before = text.len();
            if TextEncoder::new().encode_utf8(&[family], &mut text).is_err() {
                text.truncate(before);
            }
        }
        text
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn unix_seconds(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
