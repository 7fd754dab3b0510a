//! A certificate request (PKCS#10): proof that the sender holds a key. Only its key is used;
//! whatever names, usages or lifetimes it asks for are ignored.

use rcgen::{CertificateSigningRequestParams, PublicKeyData as _, SubjectPublicKeyInfo};
use rustls::SignatureScheme;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateSigningRequestDer;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// Bytes of a request: one with an EC key takes about 250.
const REQUEST_BYTES_MAX: usize = 4 << 10;

/// A request whose signature is right and whose key is of an accepted kind.
#[derive(Debug, Clone)]
pub struct CertificateRequest {
    spki_der: Vec<u8>,
    pub(super) key: SubjectPublicKeyInfo,
}

/// A request that gets no certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateRequestError {
    /// Longer than any request.
    #[error("the certificate request is longer than 4 KiB")]
    TooLarge,
    /// Not PKCS#10, or with extensions that cannot be read.
    #[error("the certificate request cannot be read as PKCS#10")]
    Encoding,
    /// Its signature is not its key's.
    #[error("the certificate request is not signed by its own key")]
    Signature,
    /// RSA, a curve other than P-256, or something unknown.
    #[error("the certificate request's key is neither ECDSA P-256 nor Ed25519")]
    KeyKind,
}

impl CertificateRequest {
    /// Reads and verifies a request.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateRequestError> {
        use CertificateRequestError::{Encoding, KeyKind, Signature, TooLarge};
        if der.len() > REQUEST_BYTES_MAX {
            return Err(TooLarge);
        }
        let (rest, read) = X509CertificationRequest::from_der(der).map_err(|_| Encoding)?;
        if !rest.is_empty() {
            return Err(Encoding);
        }
        let spki_der = read.certification_request_info.subject_pki.raw.to_vec();
        let key = SubjectPublicKeyInfo::from_der(&spki_der).map_err(|_| KeyKind)?;
        let accepted = [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519];
        if !accepted.contains(&key.algorithm()) {
            return Err(KeyKind);
        }
        let request = CertificateSigningRequestDer::from(der);
        CertificateSigningRequestParams::from_der(&request).map_err(|error| match error {
            rcgen::Error::InvalidCertificationRequestSignature => Signature,
            _ => Encoding,
        })?;
        Ok(Self { spki_der, key })
    }

    /// Its SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// Whether its key made this signature of `message`: ASN.1 ECDSA with SHA-256, or Ed25519.
    pub fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        let scheme = if *self.key.algorithm() == rcgen::PKCS_ED25519 {
            SignatureScheme::ED25519
        } else {
            SignatureScheme::ECDSA_NISTP256_SHA256
        };
        let provider = aws_lc_rs::default_provider();
        let supported = provider.signature_verification_algorithms.mapping.iter();
        supported
            .filter(|(named, _)| *named == scheme)
            // The first of a scheme is the one whose curve it names.
            .filter_map(|(_, algorithms)| algorithms.first())
            .any(|with| with.verify_signature(self.key.der_bytes(), message, signature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn request(algorithm: &'static rcgen::SignatureAlgorithm) -> Vec<u8> {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let params = CertificateParams::new(["evil.example".to_owned()]).expect("a name");
        params.serialize_request(&key).expect("a request").der().to_vec()
    }

    #[test]
    fn only_signed_requests_with_accepted_keys_pass() {
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            CertificateRequest::parse(&request(algorithm)).expect("it is accepted");
        }
        let p384 = CertificateRequest::parse(&request(&rcgen::PKCS_ECDSA_P384_SHA384));
        assert_eq!(p384.err(), Some(CertificateRequestError::KeyKind));

        let mut forged = request(&rcgen::PKCS_ED25519);
        *forged.last_mut().expect("not empty") ^= 1;
        let refused = CertificateRequest::parse(&forged).err();
        assert_eq!(refused, Some(CertificateRequestError::Signature));

        let mut longer = request(&rcgen::PKCS_ED25519);
        longer.push(0);
        let refused = CertificateRequest::parse(&longer).err();
        assert_eq!(refused, Some(CertificateRequestError::Encoding));
        let refused = CertificateRequest::parse(&[0x30; 5_000]).err();
        assert_eq!(refused, Some(CertificateRequestError::TooLarge));
    }

    #[test]
    fn a_signature_counts_for_its_key_and_its_message() {
        use rcgen::SigningKey as _;
        for algorithm in [&rcgen::PKCS_ECDSA_P256_SHA256, &rcgen::PKCS_ED25519] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let der = CertificateParams::default().serialize_request(&key).expect("a request");
            let own = CertificateRequest::parse(der.der()).expect("it is accepted");
            let other = CertificateRequest::parse(&request(algorithm)).expect("it is accepted");
            let signature = key.sign(b"nonce").expect("it signs");
            assert!(own.has_signed(b"nonce", &signature));
            assert!(!own.has_signed(b"another", &signature));
            assert!(!own.has_signed(b"nonce", &signature[1..]));
            assert!(!own.has_signed(b"nonce", &[]));
            assert!(!other.has_signed(b"nonce", &signature));
        }
    }

    proptest! {
        /// Bits that no signature covers may change; the key that gets certified never does.
        #[test]
        fn hostile_bytes_never_smuggle_another_key_in(at in 0_usize..200, bit in 0_u8..8) {
            let genuine = request(&rcgen::PKCS_ED25519);
            let mut bytes = genuine.clone();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(read) = CertificateRequest::parse(&bytes) {
                let genuine = CertificateRequest::parse(&genuine).expect("it is accepted");
                prop_assert_eq!(read.spki_der(), genuine.spki_der());
            }
        }
    }
}
