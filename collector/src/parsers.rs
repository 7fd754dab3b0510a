//! Every parser of outside bytes in this crate by name, for fuzz targets and the tests that
//! replay their corpus.

use std::path::Path;

use haidang_proto::parsers::Parser;
use jiff::civil::date;

use crate::admin::AdminRequest;
use crate::calendar::Calendar;
use crate::config::Config;
use crate::identity::{CertificateRequest, PeerCertificate};
use crate::roster::{self, AgencyKind, Loopback, Source};
use crate::web::BearerToken;
use crate::{enrol, recover, unary};

/// Those of this crate.
pub const ALL: &[Parser] = &[
    ("roster", |bytes| table(Source { name: "roster.csv", bytes }, None)),
    ("prefixes", |bytes| {
        let roster = Source { name: "roster.csv", bytes: ROSTER.as_bytes() };
        table(roster, Some(Source { name: "prefixes.csv", bytes }));
    }),
    ("calendar", calendar),
    ("collector_config", config),
    ("grpc_message", unary::any_bytes),
    ("admin_request", admin_request),
    ("bearer_token", |bytes| _ = BearerToken::parse(&String::from_utf8_lossy(bytes))),
    ("certificate_request", request),
    ("agent_certificate", certificate),
    ("enrol_request", enrol::any_bytes),
    ("renew_expired_request", recover::any_bytes),
];

/// A city of two agencies, for files of prefixes.
const ROSTER: &str = "id,name,kind,parent,gso_code,id_code,lat,lon\n\
    01-001,Quận Ba Đình,quan,01,001,,,\n01-018,Huyện Gia Lâm,huyen,01,018,,,\n";

/// A refusal names at least one problem, and at most as many as a person reads.
fn table(roster: Source<'_>, prefixes: Option<Source<'_>>) {
    for loopback in [Loopback::Refused, Loopback::Demo] {
        match roster::parse(roster, prefixes, loopback) {
            Ok(roster) => {
                for agency in roster.agencies() {
                    assert!(roster.row(&agency.id).is_some());
                }
            }
            Err(error) => assert!((1..=20).contains(&error.problems.len()), "{error}"),
        }
    }
}

fn calendar(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let Ok(calendar) = Calendar::parse(&text, Path::new("calendar.toml")) else { return };
    let agency = "01-018".parse().expect("an id");
    for day in 1..=28 {
        let moment = date(2027, 2, day).at(8, 30, 0, 0);
        calendar.expects(&agency, AgencyKind::Huyen, moment);
    }
    calendar.covers(2027);
}

fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Config::parse(&text, Path::new("collector.toml")) {
        assert!(!error.to_string().is_empty());
    }
}

fn admin_request(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<AdminRequest>(bytes) else { return };
    let again = serde_json::to_vec(&request).expect("it is plain data");
    let again: AdminRequest = serde_json::from_slice(&again).expect("its own text");
    assert_eq!(again, request);
}

/// Nothing is signed by whoever did not make the request.
fn request(bytes: &[u8]) {
    if let Ok(request) = CertificateRequest::parse(bytes) {
        assert!(!request.has_signed(b"another message", &bytes[bytes.len() / 2..]));
    }
}

fn certificate(bytes: &[u8]) {
    let trust_domain = "lab.test".parse().expect("a trust domain");
    let _ = PeerCertificate::parse(bytes, &trust_domain);
}
