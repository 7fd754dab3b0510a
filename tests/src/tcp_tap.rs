//! A relay on the path that keeps what both sides of each TCP connection said, byte for byte:
//! what somebody there could record. It changes nothing and ends with its owner.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::peer::tcp;

/// Bytes of one direction of one connection; one that says more is ended, so that whatever is
/// kept is whole. An agent's report has 300, the largest message that a test sends 5 MiB.
const SAID_BYTES_MAX: usize = 16 << 20;
/// Bytes that are passed on at a time.
const PIECE_BYTES: usize = 16 << 10;

/// A running relay.
#[derive(Debug)]
pub struct TcpTap {
    /// Where it listens.
    pub address: SocketAddr,
    kept: Kept,
    _relaying: AbortOnDropHandle<()>,
}

/// What was said on one connection, from its begin.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversation {
    /// By whoever connected.
    pub client: Vec<u8>,
    /// By whoever listens.
    pub server: Vec<u8>,
}

/// Pumps write, the test reads now and then; each section is a copy of some kilobytes.
type Kept = Arc<Mutex<Vec<Conversation>>>;

#[derive(Debug, Clone, Copy)]
enum Side {
    Client,
    Server,
}

impl TcpTap {
    /// Listens at an address and passes connections on to another: from the address of the client
    /// itself, which has to be this machine's, or from a given one.
    ///
    /// # Errors
    /// When it cannot listen.
    pub async fn start(at: SocketAddr, to: SocketAddr, from: Option<IpAddr>) -> Result<Self> {
        let listener =
            TcpListener::bind(at).await.with_context(|| format!("listen on {at} for a tap"))?;
        let address = listener.local_addr().context("ask for the port")?;
        let kept = Kept::default();
        let relaying = tokio::spawn(relay(listener, to, from, Arc::clone(&kept)));
        Ok(Self { address, kept, _relaying: AbortOnDropHandle::new(relaying) })
    }

    /// Every conversation until now, in the order in which they began.
    pub fn conversations(&self) -> Vec<Conversation> {
        lock(&self.kept).clone()
    }
}

impl Conversation {
    /// Whether somebody on the path reads these words in either direction.
    ///
    /// # Panics
    /// Without words: nothing is always there.
    pub fn shows(&self, words: &[u8]) -> bool {
        let within = |said: &[u8]| said.windows(words.len()).any(|window| window == words);
        within(&self.client) || within(&self.server)
    }
}

fn lock(kept: &Kept) -> std::sync::MutexGuard<'_, Vec<Conversation>> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn relay(listener: TcpListener, to: SocketAddr, from: Option<IpAddr>, kept: Kept) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            // How a connection ends is told to its two ends.
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept() => {
                // An error here is a client that went away.
                let Ok((client, source)) = accepted else { continue };
                let (from, kept) = (from.unwrap_or(source.ip()), Arc::clone(&kept));
                connections.spawn(async move {
                    let server = tcp(from, to).await?;
                    let number = {
                        let mut kept = lock(&kept);
                        kept.push(Conversation::default());
                        kept.len() - 1
                    };
                    let (client_read, client_write) = client.into_split();
                    let (server_read, server_write) = server.into_split();
                    tokio::try_join!(
                        pass(client_read, server_write, Side::Client, number, &kept),
                        pass(server_read, client_write, Side::Server, number, &kept),
                    )
                });
            }
        }
    }
}

/// Passes one direction on until it ends; each piece is kept before it is passed on.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    side: Side,
    number: usize,
    kept: &Kept,
) -> Result<()> {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let length = from.read(&mut piece).await.context("read")?;
        if length == 0 {
            return to.shutdown().await.context("pass on the end");
        }
        {
            let mut kept = lock(kept);
            let Conversation { client, server } = &mut kept[number];
            let said = match side {
                Side::Client => client,
                Side::Server => server,
            };
            ensure!(said.len() + length <= SAID_BYTES_MAX, "a connection says more than is kept");
            said.extend_from_slice(&piece[..length]);
        }
        to.write_all(&piece[..length]).await.context("pass on")?;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn what_is_said_in_plain_is_shown_and_passed_on_from_the_given_address() {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("it listens");
        let (at, to) = ((Ipv4Addr::LOCALHOST, 0).into(), server.local_addr().expect("an address"));
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
        let tap = TcpTap::start(at, to, Some(from)).await.expect("it listens");
        let mut client = TcpStream::connect(tap.address).await.expect("connected");
        client.write_all(b"a planted word").await.expect("said");
        client.shutdown().await.expect("ended");
        let (mut stream, source) = server.accept().await.expect("connected");
        assert_eq!(source.ip(), from);
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.expect("heard");
        stream.write_all(b"answered").await.expect("said");
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("heard");
        assert_eq!((&*heard, &*answer), ("a planted word", "answered"));
        let [conversation] = &*tap.conversations() else { panic!("one connection") };
        assert!(conversation.shows(b"planted") && conversation.shows(b"answered"));
        assert!(!conversation.shows(b"painted"));
    }
}
