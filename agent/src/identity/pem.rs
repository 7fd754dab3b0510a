//! PEM (RFC 7468): the text form of keys and certificates on disk.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// Characters of a line.
const LINE_CHARACTERS: usize = 64;

/// One block. It may hold a key, so it is wiped when dropped.
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let body = Zeroizing::new(STANDARD.encode(der));
    let mut text = Zeroizing::new(Vec::with_capacity(body.len() + body.len() / 32 + 128));
    text.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in body.as_bytes().chunks(LINE_CHARACTERS) {
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    text.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    text
}

/// Every certificate; `None` where one is malformed.
pub(super) fn decode_certificates(text: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(text).collect::<Result<_, _>>().ok()
}

/// The first private key in PKCS #8.
pub(super) fn decode_key(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let key = PrivatePkcs8KeyDer::from_pem_slice(text).ok()?;
    Some(Zeroizing::new(key.secret_pkcs8_der().to_vec()))
}

/// Reads bytes as each kind of file, for [`crate::parsers`].
pub(crate) fn any_bytes(text: &[u8]) {
    if let Some(key) = decode_key(text) {
        assert_eq!(decode_key(&encode("PRIVATE KEY", &key)), Some(key));
    }
    let _ = decode_certificates(text);
}
