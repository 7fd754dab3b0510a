//! Every parser of outside bytes in this crate by name, for fuzz targets and the tests that
//! replay their corpus. What is accepted has to come back unchanged from its own encoding: a
//! value that reads differently the second time was understood by nobody.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use prost::Message;

use crate::model::agency::{AgencyId, AgentId};
use crate::model::enrolment_code::EnrolmentCode;
use crate::model::goodbye::Goodbye;
use crate::model::posture::PostureSnapshot;
use crate::model::record::{Delivery, decode_record, encode_record};
use crate::model::report::{Reply, Report};
use crate::model::settings::Settings;
use crate::model::spiffe::{SpiffeId, TrustDomain};
use crate::wire;

/// A parser by name; it takes any bytes and must come to an end without a panic.
pub type Parser = (&'static str, fn(&[u8]));

/// Those of this crate.
pub const ALL: &[Parser] = &[
    ("wire_report", |bytes| comes_back::<wire::ReportRequest, Report>(bytes)),
    ("wire_reply", |bytes| comes_back::<wire::ReportResponse, Reply>(bytes)),
    ("wire_delivery", |bytes| comes_back::<wire::DeliverRequest, Delivery>(bytes)),
    ("wire_goodbye", |bytes| comes_back::<wire::GoodbyeRequest, Goodbye>(bytes)),
    ("wire_posture", |bytes| comes_back::<wire::PostureSnapshot, PostureSnapshot>(bytes)),
    ("wire_settings", settings),
    ("journal_record", record),
    ("enrolment_code", enrolment_code),
    ("identifiers", identifiers),
];

/// Checks of a newer catalogue are counted and not kept, so that encodings are compared.
fn comes_back<Wire, Value>(bytes: &[u8])
where
    Wire: Message + Default + Clone + PartialEq + Debug + TryInto<Value> + From<Value>,
    <Wire as TryInto<Value>>::Error: Debug,
{
    let Ok(message) = Wire::decode(bytes) else { return };
    let Ok(value) = message.try_into() else { return };
    let kept = Wire::from(value);
    let again: Value = kept.clone().try_into().expect("what was accepted once is");
    assert_eq!(Wire::from(again), kept);
}

/// Whatever a collector directs stays within the agent's own limits.
fn settings(bytes: &[u8]) {
    let Ok(message) = wire::Settings::decode(bytes) else { return };
    let Ok(settings) = Settings::try_from(message) else { return };
    let clamped = settings.clamped();
    assert_eq!(clamped.clone().clamped(), clamped);
    assert!(!clamped.probe_period.is_zero() && !clamped.confirm_period.is_zero());
}

fn record(bytes: &[u8]) {
    let Ok(record) = decode_record(bytes) else { return };
    let again = decode_record(&encode_record(&record)).expect("what was accepted once is");
    assert_eq!(encode_record(&again), encode_record(&record));
}

fn enrolment_code(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(code) = text.parse::<EnrolmentCode>() else { return };
    let again: EnrolmentCode = code.reveal().parse().expect("its own code");
    assert!(again == code);
}

fn identifiers(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    shown_as_read::<AgencyId>(&text);
    shown_as_read::<AgentId>(&text);
    shown_as_read::<TrustDomain>(&text);
    shown_as_read::<SpiffeId>(&text);
}

fn shown_as_read<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else { return };
    let Ok(again) = value.to_string().parse::<T>() else { panic!("{value} does not read back") };
    assert_eq!(again, value);
}
