//! What Prometheus sees, in the text format 0.0.4.
//!
//! Names, help and units of every family stand in one table (`table`). The fleet's series are
//! streamed from one snapshot (`exposition`): no label vector outlives a scrape, so what was
//! removed is gone at the next. The collector's own few metrics live in a registry of the
//! `prometheus` crate (`collector`). Both are joined in one response.

mod collector;
mod exposition;
mod posture;
mod table;
mod text;

pub use collector::{Certificate, CollectorMetrics, Endpoint};
pub use exposition::Exposition;
pub use table::{FAMILIES, Family, Kind, Unit};

/// Content type of the exposition.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[cfg(test)]
mod tests;
