//! Every parser of outside bytes in this crate by name, for fuzz targets and the tests that
//! replay their corpus.

use std::path::Path;

use haidang_proto::parsers::Parser;
use rustls::pki_types::CertificateDer;

use crate::config::Config;
use crate::identity::certificate::{Leaf, ca_pin};
use crate::{identity, journal, link, posture, probe, settings};

/// Those of this crate.
pub fn all() -> impl Iterator<Item = Parser> {
    OWN.iter().copied().chain(posture::parsers::all())
}

const OWN: &[Parser] = &[
    ("agent_config", config),
    ("agent_settings_file", |bytes| _ = settings::parse(bytes)),
    ("dns_reply", probe::dns::any_bytes),
    ("journal_segment", journal::frame::any_bytes),
    ("rtnetlink", |bytes| {
        link::parse(bytes);
    }),
    ("collector_certificate", certificate),
    ("identity_pem", identity::any_pem),
];

/// A configuration that is accepted is within the limits; the rest is refused in words.
fn config(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Err(error) = Config::parse(&text, Path::new("agent.toml")) {
        assert!(!error.to_string().is_empty());
    }
}

fn certificate(bytes: &[u8]) {
    if let Ok(leaf) = Leaf::read(bytes) {
        assert!(leaf.not_before < leaf.not_after);
    }
    let _ = ca_pin(&CertificateDer::from(bytes));
}
