//! The enrolment code: the one text that an operator hands to an agency's IT person.
//!
//! `haidang1.` followed by URL-safe base64 without padding of
//! `length(token id) token-id secret(32) ca-pin(32) crc32(4) host:port`,
//! so that a code which was cut short or mistyped says so before anything is sent.

use std::fmt;
use std::str::FromStr;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::{DecodeError, Engine};
use zeroize::Zeroizing;

const PREFIX: &str = "haidang1.";
/// Bytes of the text that are read at all.
pub const CODE_BYTES_MAX: usize = 1024;
const TOKEN_ID_BYTES_MAX: usize = 32;
const ENDPOINT_BYTES_MAX: usize = 255;

/// What the code carries.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentCode {
    /// Public id of the token.
    pub token_id: String,
    /// 256 random bits; the collector keeps only their SHA-256.
    pub secret: Zeroizing<[u8; 32]>,
    /// SHA-256 of the CA's SubjectPublicKeyInfo (RFC 7469 form of a pin).
    pub ca_pin: [u8; 32],
    /// host:port of the enrolment listener.
    pub endpoint: String,
}

/// Text that is not an enrolment code. Never repeats the text, which may hold a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnrolmentCodeError {
    /// Not our prefix.
    #[error("an enrolment code begins with {PREFIX}; paste the whole line the operator sent")]
    Prefix,
    /// Too long, or not base64.
    #[error("the enrolment code holds characters that do not belong to it; paste it again")]
    Encoding,
    /// Too short, or the checksum is wrong.
    #[error("the enrolment code is incomplete or mistyped; paste the whole line again")]
    Damaged,
}

impl EnrolmentCode {
    /// The text to hand over. It holds the secret: print it once and log it never.
    pub fn reveal(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.body());
        let checksum = crc(&bytes);
        bytes.extend_from_slice(&checksum.to_be_bytes());
        Zeroizing::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(&*bytes)))
    }

    fn body(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(128 + self.endpoint.len());
        bytes.push(u8::try_from(self.token_id.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(self.token_id.as_bytes());
        bytes.extend_from_slice(&*self.secret);
        bytes.extend_from_slice(&self.ca_pin);
        bytes.extend_from_slice(self.endpoint.as_bytes());
        bytes
    }
}

impl FromStr for EnrolmentCode {
    type Err = EnrolmentCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        use EnrolmentCodeError::{Damaged, Encoding, Prefix};
        let text = text.trim();
        if text.len() > CODE_BYTES_MAX {
            return Err(Encoding);
        }
        let encoded = text.strip_prefix(PREFIX).ok_or(Prefix)?;
        let bytes = URL_SAFE_NO_PAD.decode(encoded).map_err(|error| match error {
            DecodeError::InvalidByte(..) => Encoding,
            // What is left after a cut need not be base64 any more.
            DecodeError::InvalidLength(_)
            | DecodeError::InvalidLastSymbol { .. }
            | DecodeError::InvalidPadding => Damaged,
        });
        let bytes = Zeroizing::new(bytes?);
        let (body, checksum) = bytes.split_last_chunk::<4>().ok_or(Damaged)?;
        if crc(body) != u32::from_be_bytes(*checksum) {
            return Err(Damaged);
        }
        let (&id_len, rest) = body.split_first().ok_or(Damaged)?;
        let (token_id, rest) = rest.split_at_checked(id_len.into()).ok_or(Damaged)?;
        let (secret, rest) = rest.split_first_chunk::<32>().ok_or(Damaged)?;
        let (ca_pin, endpoint) = rest.split_first_chunk::<32>().ok_or(Damaged)?;
        let printable = |bytes: &[u8]| bytes.iter().all(u8::is_ascii_graphic);
        if token_id.is_empty()
            || token_id.len() > TOKEN_ID_BYTES_MAX
            || endpoint.is_empty()
            || endpoint.len() > ENDPOINT_BYTES_MAX
            || !printable(token_id)
            || !printable(endpoint)
        {
            return Err(Damaged);
        }
        let ascii = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect();
        Ok(Self {
            token_id: ascii(token_id),
            secret: Zeroizing::new(*secret),
            ca_pin: *ca_pin,
            endpoint: ascii(endpoint),
        })
    }
}

impl fmt::Debug for EnrolmentCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnrolmentCode")
            .field("token_id", &self.token_id)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

fn crc(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code() -> EnrolmentCode {
        EnrolmentCode {
            token_id: "t7k2".into(),
            secret: Zeroizing::new([0xA5; 32]),
            ca_pin: [3; 32],
            endpoint: "198.18.0.10:7444".into(),
        }
    }

    #[test]
    fn a_code_survives_being_pasted() {
        let text = format!("  {}\n", *code().reveal());
        assert_eq!(text.parse(), Ok(code()));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let text = code().reveal();
        for end in PREFIX.len()..text.len() {
            let cut = text[..end].parse::<EnrolmentCode>();
            assert_eq!(cut, Err(EnrolmentCodeError::Damaged), "cut at {end}");
        }
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let shown = format!("{:?}", code());
        assert!(!shown.contains("165") && !shown.contains("A5"), "{shown}");
    }

    proptest! {
        #[test]
        fn nothing_pasted_makes_it_panic(text in "(haidang1\\.)?[A-Za-z0-9_-]{0,200}") {
            let _ = text.parse::<EnrolmentCode>();
        }
    }
}
