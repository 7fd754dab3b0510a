//! What a recorded connection shows of its TLS to somebody on the path (RFC 8446): the two
//! greetings, which are plain, and whether anything else is.

use anyhow::{Context, Result, bail, ensure};

use crate::tcp_tap::Conversation;

/// TLS 1.3 (RFC 8446, section 4.2.1).
pub const TLS13: u16 = 0x0304;
/// ML-KEM-768 beside X25519 (draft-ietf-tls-ecdhe-mlkem; IANA "TLS Supported Groups").
pub const X25519MLKEM768: u16 = 0x11ec;
/// X25519 alone: what a quantum computer breaks.
pub const X25519: u16 = 0x001d;

/// Bytes of a client's share of [`X25519MLKEM768`]: an encapsulation key of ML-KEM-768 (FIPS 203,
/// table 3) and a key of X25519.
const CLIENT_SHARE_BYTES: usize = 1_184 + 32;
/// Bytes of a server's: a ciphertext of ML-KEM-768 and a key of X25519.
const SERVER_SHARE_BYTES: usize = 1_088 + 32;

/// Content types (RFC 8446, section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
/// Messages of the handshake (section 4).
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Extensions (section 4.2).
const SUPPORTED_GROUPS: u16 = 10;
const SUPPORTED_VERSIONS: u16 = 43;
const KEY_SHARE: u16 = 51;
/// The random of a ServerHello that asks for another greeting (section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91,
    0xc2, 0xa2, 0x11, 0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// A key that one side sends: its group, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its group.
    pub group: u16,
    /// Its length.
    pub bytes: usize,
}

/// What the greetings of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greetings {
    /// Versions that the client offers.
    pub versions: Vec<u16>,
    /// Groups that it would take, the preferred one first.
    pub groups: Vec<u16>,
    /// Keys that it sends.
    pub shares: Vec<Share>,
    /// The version that the server chose.
    pub version: u16,
    /// The key that the server sends: of the group that both use.
    pub share: Share,
}

impl Greetings {
    /// Reads a conversation whose handshake went through without a second greeting.
    ///
    /// # Errors
    /// When it is no such handshake, or when anything but the greetings can be read.
    pub fn read(conversation: &Conversation) -> Result<Self> {
        let hello = only_plain_message(&conversation.client).context("the client's side")?;
        let Hello { extensions, .. } =
            Hello::read(&hello, CLIENT_HELLO).context("the client's greeting")?;
        let mut versions = Bytes(extension(&extensions, SUPPORTED_VERSIONS)?);
        let mut groups = Bytes(extension(&extensions, SUPPORTED_GROUPS)?);
        let mut offered = Bytes(Bytes(extension(&extensions, KEY_SHARE)?).vector16()?);
        let mut shares = Vec::new();
        while !offered.0.is_empty() {
            shares.push(offered.share()?);
        }
        let (versions, groups) = (versions.vector8()?, groups.vector16()?);

        let hello = only_plain_message(&conversation.server).context("the server's side")?;
        let Hello { random, extensions } =
            Hello::read(&hello, SERVER_HELLO).context("the server's greeting")?;
        ensure!(random != RETRY, "the server asks for another greeting");
        let version = Bytes(extension(&extensions, SUPPORTED_VERSIONS)?).u16()?;
        let share = Bytes(extension(&extensions, KEY_SHARE)?).share()?;
        Ok(Self { versions: u16s(versions)?, groups: u16s(groups)?, shares, version, share })
    }

    /// Whether whoever records this connection needs to break ML-KEM-768 too: TLS 1.3 was agreed,
    /// and both sides sent a whole key of X25519MLKEM768.
    pub fn are_post_quantum(&self) -> bool {
        let (group, bytes) = (X25519MLKEM768, CLIENT_SHARE_BYTES);
        self.version == TLS13
            && self.shares.contains(&Share { group, bytes })
            && self.share == Share { group, bytes: SERVER_SHARE_BYTES }
    }
}

/// The message that one side sends in plain. Everything after it has to be encrypted; what the
/// recording cut off is not looked at.
fn only_plain_message(said: &[u8]) -> Result<Vec<u8>> {
    let mut left = Bytes(said);
    let mut message = Vec::new();
    let mut is_encrypted = false;
    while let Ok((content, record)) = left.record() {
        match content {
            HANDSHAKE if !is_encrypted => message.extend_from_slice(record),
            APPLICATION_DATA => is_encrypted = true,
            // For middleboxes, and nothing is in it (section 5).
            CHANGE_CIPHER_SPEC if *record == [1] => {}
            other => bail!("a record of type {other} can be read: {} bytes", record.len()),
        }
    }
    ensure!(is_encrypted, "nothing was encrypted");
    Ok(message)
}

/// What both greetings have.
struct Hello<'a> {
    random: [u8; 32],
    extensions: Vec<(u16, &'a [u8])>,
}

impl<'a> Hello<'a> {
    fn read(message: &'a [u8], kind: u8) -> Result<Self> {
        let mut message = Bytes(message);
        ensure!(message.u8()? == kind, "it is another message");
        let length = usize::from(message.u8()?) << 16 | usize::from(message.u16()?);
        let mut body = Bytes(message.take(length)?);
        ensure!(message.0.is_empty(), "a second message can be read");
        let _legacy_version = body.u16()?;
        let random = body.take(32)?.try_into().context("32 bytes")?;
        let _session_id = body.vector8()?;
        if kind == CLIENT_HELLO {
            let _cipher_suites = body.vector16()?;
            let _compression_methods = body.vector8()?;
        } else {
            let _cipher_suite = body.u16()?;
            let _compression_method = body.u8()?;
        }
        let mut list = Bytes(body.vector16()?);
        let mut extensions = Vec::new();
        while !list.0.is_empty() {
            extensions.push((list.u16()?, list.vector16()?));
        }
        Ok(Self { random, extensions })
    }
}

fn extension<'a>(extensions: &[(u16, &'a [u8])], kind: u16) -> Result<&'a [u8]> {
    let found = extensions.iter().find(|(one, _)| *one == kind);
    Ok(found.with_context(|| format!("it has no extension {kind}"))?.1)
}

fn u16s(bytes: &[u8]) -> Result<Vec<u16>> {
    let (pairs, rest) = bytes.as_chunks();
    ensure!(rest.is_empty(), "half a number");
    Ok(pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect())
}

/// Bytes that are still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length).context("it breaks off")?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take(2)?.try_into().context("two bytes")?))
    }

    /// A vector behind its length in one byte.
    fn vector8(&mut self) -> Result<&'a [u8]> {
        let length = self.u8()?;
        self.take(length.into())
    }

    /// The same in two bytes.
    fn vector16(&mut self) -> Result<&'a [u8]> {
        let length = self.u16()?;
        self.take(length.into())
    }

    /// Content type and content.
    fn record(&mut self) -> Result<(u8, &'a [u8])> {
        let content = self.u8()?;
        let _legacy_version = self.u16()?;
        Ok((content, self.vector16()?))
    }

    fn share(&mut self) -> Result<Share> {
        Ok(Share { group: self.u16()?, bytes: self.vector16()?.len() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector16(bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
        [&length[..], bytes].concat()
    }

    fn record(content: u8, bytes: &[u8]) -> Vec<u8> {
        [&[content, 3, 3][..], &vector16(bytes)].concat()
    }

    fn hello(kind: u8, suites: &[u8], extensions: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let extensions: Vec<u8> = extensions
            .iter()
            .flat_map(|(kind, bytes)| [kind.to_be_bytes().to_vec(), vector16(bytes)].concat())
            .collect();
        let body = [&[3, 3][..], &[7; 32], &[0], suites, &vector16(&extensions)].concat();
        let length = u32::try_from(body.len()).expect("short").to_be_bytes();
        [&[kind][..], &length[1..], &body].concat()
    }

    fn share(group: u16, bytes: usize) -> Vec<u8> {
        [group.to_be_bytes().to_vec(), vector16(&vec![9; bytes])].concat()
    }

    /// A handshake in which the client offers these keys and the server answers with this one.
    fn said(offered: &[Vec<u8>], chosen: Vec<u8>) -> Conversation {
        let client = hello(
            CLIENT_HELLO,
            &[0, 2, 0x13, 1, 1, 0],
            &[
                (SUPPORTED_VERSIONS, vec![2, 3, 4]),
                (SUPPORTED_GROUPS, vector16(&[0x11, 0xec, 0, 0x1d])),
                (KEY_SHARE, vector16(&offered.concat())),
            ],
        );
        let server = hello(
            SERVER_HELLO,
            &[0x13, 1, 0],
            &[(SUPPORTED_VERSIONS, vec![3, 4]), (KEY_SHARE, chosen)],
        );
        let sealed = [record(CHANGE_CIPHER_SPEC, &[1]), record(APPLICATION_DATA, b"?")].concat();
        // The client's greeting in two records, as a long one may come.
        let (first, second) = client.split_at(100);
        Conversation {
            client: [record(HANDSHAKE, first), record(HANDSHAKE, second), sealed.clone()].concat(),
            server: [record(HANDSHAKE, &server), sealed].concat(),
        }
    }

    fn post_quantum() -> Conversation {
        said(&[share(X25519MLKEM768, 1_216), share(X25519, 32)], share(X25519MLKEM768, 1_120))
    }

    #[test]
    fn the_agreed_group_is_the_one_of_the_servers_key() {
        let read = Greetings::read(&post_quantum()).expect("a handshake");
        assert!(read.are_post_quantum());
        assert_eq!((read.version, &*read.versions), (TLS13, &[TLS13][..]));
        assert_eq!(read.groups, [X25519MLKEM768, X25519]);
        let offered = [share(X25519MLKEM768, 1_216), share(X25519, 32)];
        let classical = Greetings::read(&said(&offered, share(X25519, 32))).expect("a handshake");
        assert!(!classical.are_post_quantum(), "what counts is what the server chose");
        let half = said(&[share(X25519MLKEM768, 1_216)], share(X25519MLKEM768, 32));
        assert!(!Greetings::read(&half).expect("a handshake").are_post_quantum());
    }

    #[test]
    fn what_can_be_read_beside_the_greetings_is_an_error() {
        let mut plain = post_quantum();
        plain.client.extend(record(HANDSHAKE, b"a certificate"));
        assert!(Greetings::read(&plain).is_err());
        let mut alert = post_quantum();
        alert.server.extend(record(21, &[2, 40]));
        assert!(Greetings::read(&alert).is_err());
    }

    #[test]
    fn what_breaks_off_or_asks_again_is_no_handshake() {
        let whole = post_quantum();
        for length in 0..whole.server.len() - 6 {
            let server = whole.server[..length].to_vec();
            let cut = Conversation { server, ..whole.clone() };
            assert!(Greetings::read(&cut).is_err(), "cut at {length}");
        }
        let mut again = whole;
        let random = again.server.windows(32).position(|window| window == [7; 32]).expect("one");
        again.server[random..random + 32].copy_from_slice(&RETRY);
        assert!(Greetings::read(&again).is_err());
    }
}
