//! As much of the OpenTelemetry protocol as an export of gauges needs
//! (`opentelemetry/proto/collector/metrics/v1`, version 1 of the protocol; fields that stay empty
//! are left out).

use std::time::SystemTime;

use super::pushgateway::SERIES_PER_PUSH;

/// The method.
pub(super) const EXPORT_PATH: &str =
    "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Export {
    #[prost(message, repeated, tag = "1")]
    resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "5")]
    gauge: Option<Gauge>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Gauge {
    #[prost(message, repeated, tag = "1")]
    data_points: Vec<DataPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DataPoint {
    #[prost(fixed64, tag = "3")]
    time_unix_nano: u64,
    #[prost(double, optional, tag = "4")]
    as_double: Option<f64>,
    #[prost(message, repeated, tag = "7")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, optional, tag = "1")]
    string: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_data_points: i64,
}

impl Answer {
    /// Points that were not taken.
    pub(super) fn rejected(&self) -> i64 {
        self.partial_success.as_ref().map_or(0, |partial| partial.rejected_data_points)
    }
}

/// One agency's gauges: as many and with the same names as a push holds.
pub(super) fn gauges(agency: usize, at: SystemTime) -> Export {
    let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time_unix_nano = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX);
    let attribute = |key: &str, value: String| {
        vec![KeyValue { key: key.into(), value: Some(Value { string: Some(value) }) }]
    };
    let point = |number: usize| DataPoint {
        time_unix_nano,
        as_double: Some((number % 2) as f64),
        attributes: attribute("of", format!("state_or_flag_{number:02}")),
    };
    let gauge = Gauge { data_points: (0..SERIES_PER_PUSH).map(point).collect() };
    let metric = Metric { name: "haidang_agency_value".into(), gauge: Some(gauge) };
    let resource = Resource { attributes: attribute("agency", agency.to_string()) };
    Export {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(resource),
            scope_metrics: vec![ScopeMetrics { metrics: vec![metric] }],
        }],
    }
}
