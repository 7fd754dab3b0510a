//! Enrolment tokens: what an operator hands to one agency so that its machines can enrol.
//!
//! A token has a public id and a secret of 256 random bits, of which only the SHA-256 is kept
//! (so many random bits need no slow hash, which would be a lever on an open listener), compared
//! in constant time. It is bound to one agency, to a number of uses and to an end.

mod limiter;

use std::time::SystemTime;

use haidang_proto::model::agency::AgencyId;
use haidang_proto::model::refusal::Refusal;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

pub use limiter::AttemptLimiter;

/// Uses that one token may have: a large agency's machines, and not a city's.
pub const USES_MAX: u32 = 10_000;
/// Bytes of a note.
pub const NOTE_BYTES_MAX: usize = 200;
/// Letters of a token's id: no vowels and no look-alikes, because people read them out.
const ID_ALPHABET: &[u8; 24] = b"bcdfghjkmnpqrstvwxz23456";
const ID_LENGTH: usize = 8;

/// A token as the collector keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Public id.
    pub id: String,
    /// The agency whose machines it enrols.
    pub agency: AgencyId,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// Uses it was made with.
    pub uses_total: u32,
    /// Uses that are left.
    pub uses_left: u32,
    /// Its end.
    pub expires: SystemTime,
    /// The operator's words.
    pub note: String,
    /// When it was made.
    pub created: SystemTime,
    /// When it was withdrawn.
    pub revoked: Option<SystemTime>,
}

/// A new token and its secret, which is shown once.
#[derive(Debug)]
pub struct NewToken {
    /// What is kept.
    pub token: Token,
    /// What is handed over.
    pub secret: Zeroizing<[u8; 32]>,
}

/// What an operator asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenTerms {
    /// The agency.
    pub agency: AgencyId,
    /// Uses, 1 to [`USES_MAX`].
    pub uses: u32,
    /// The end.
    pub expires: SystemTime,
    /// The operator's words.
    pub note: String,
}

impl NewToken {
    /// Draws a token.
    ///
    /// # Errors
    /// When the kernel gives no random bytes.
    pub fn draw(terms: TokenTerms, now: SystemTime) -> Result<Self, getrandom::Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret)?;
        let mut id_bytes = [0; ID_LENGTH];
        getrandom::fill(&mut id_bytes)?;
        // 24 does not divide 256; an id is public, so the slight preference for some letters
        // costs nothing.
        let letter = |byte: &u8| char::from(ID_ALPHABET[usize::from(*byte) % ID_ALPHABET.len()]);
        let TokenTerms { agency, uses, expires, note } = terms;
        let token = Token {
            id: id_bytes.iter().map(letter).collect(),
            agency,
            secret_sha256: Sha256::digest(*secret).into(),
            uses_total: uses,
            uses_left: uses,
            expires,
            note,
            created: now,
            revoked: None,
        };
        Ok(Self { token, secret })
    }
}

impl Token {
    /// Whether it may be used now by who presents `secret`.
    ///
    /// # Errors
    /// Why not. Who has not the secret learns nothing else.
    pub fn admit(&self, secret: &[u8], now: SystemTime) -> Result<(), Refusal> {
        let presented: [u8; 32] = Sha256::digest(secret).into();
        if !bool::from(presented.ct_eq(&self.secret_sha256)) {
            return Err(Refusal::TokenWrong);
        }
        if self.revoked.is_some() {
            return Err(Refusal::TokenRevoked);
        }
        if now >= self.expires {
            return Err(Refusal::TokenExpired);
        }
        if self.uses_left == 0 {
            return Err(Refusal::TokenUsedUp);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn drawn(now: SystemTime) -> NewToken {
        let terms = TokenTerms {
            agency: "01-018".parse().expect("an id"),
            uses: 1,
            expires: now + Duration::from_secs(60),
            note: String::new(),
        };
        NewToken::draw(terms, now).expect("random bytes")
    }

    #[test]
    fn a_token_admits_its_secret_until_it_is_used_up_expired_or_revoked() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_600_000_000);
        let NewToken { token, secret } = drawn(now);
        let later = now + Duration::from_secs(60);
        let used_up = Token { uses_left: 0, ..token.clone() };
        let revoked = Token { revoked: Some(now), ..token.clone() };
        #[expect(clippy::type_complexity, reason = "a table")]
        let cases: [(&Token, &[u8], SystemTime, Result<(), Refusal>); 7] = [
            (&token, &*secret, now, Ok(())),
            (&token, &[0; 32], now, Err(Refusal::TokenWrong)),
            (&token, &[], now, Err(Refusal::TokenWrong)),
            (&token, &*secret, later, Err(Refusal::TokenExpired)),
            (&used_up, &*secret, now, Err(Refusal::TokenUsedUp)),
            (&revoked, &*secret, now, Err(Refusal::TokenRevoked)),
            // Without the secret nobody learns the token's condition.
            (&revoked, &[1; 32], now, Err(Refusal::TokenWrong)),
        ];
        for (case, (token, secret, at, want)) in cases.into_iter().enumerate() {
            assert_eq!(token.admit(secret, at), want, "case {case}");
        }
    }

    #[test]
    fn two_tokens_share_nothing() {
        let now = SystemTime::UNIX_EPOCH;
        let (one, other) = (drawn(now), drawn(now));
        assert_ne!(one.token.id, other.token.id);
        assert_ne!(*one.secret, *other.secret);
        assert_eq!(one.token.id.len(), ID_LENGTH);
    }
}
