//! Listens on every interface of a namespace (packet(7)): to whom the machine there sends.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netns::Netns;

/// `ETH_P_ALL` in network byte order (linux/if_ether.h).
const EVERY_PROTOCOL: i32 = 0x0003_u16.to_be() as i32;
/// The head of a packet is enough.
const HEAD_BYTES: usize = 128;
/// Longest wait between two looks at the stop flag.
const LOOK_PERIOD: Duration = Duration::from_millis(50);

/// A running tap; it ends when dropped.
#[derive(Debug)]
pub struct WireTap {
    // The thread counts, the test reads now and then.
    sent: Arc<Mutex<Sent>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What was sent from the addresses that are watched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets by destination.
    pub packets: BTreeMap<IpAddr, u64>,
    /// Of all these, ICMP echo requests.
    pub echo_requests: u64,
}

impl WireTap {
    /// Counts what leaves from these addresses.
    ///
    /// # Errors
    /// Without root.
    pub fn start(netns: &Netns, sources: Vec<IpAddr>) -> Result<Self> {
        let open = || {
            let protocol = Some(Protocol::from(EVERY_PROTOCOL));
            let socket = Socket::new(Domain::PACKET, Type::RAW, protocol)?;
            socket.set_read_timeout(Some(LOOK_PERIOD))?;
            std::io::Result::Ok(socket)
        };
        let socket = netns.inside(open)?.context("open a packet socket")?;
        let (sent, stop) =
            (Arc::new(Mutex::new(Sent::default())), Arc::new(AtomicBool::new(false)));
        let thread = thread::Builder::new().name("tap".into()).spawn({
            let (sent, stop) = (Arc::clone(&sent), Arc::clone(&stop));
            move || listen(&socket, &sources, &sent, &stop)
        });
        Ok(Self { sent, stop, thread: Some(thread.context("start a thread")?) })
    }

    /// What was sent since the last time.
    pub fn take(&self) -> Sent {
        std::mem::take(&mut self.sent.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for WireTap {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(mut socket: &Socket, sources: &[IpAddr], sent: &Mutex<Sent>, stop: &AtomicBool) {
    let mut head = [0; HEAD_BYTES];
    while !stop.load(Ordering::Relaxed) {
        // Nothing to read is an error too.
        let Ok(length) = socket.read(&mut head) else { continue };
        let Some(packet) = Packet::read(&head[..length]) else { continue };
        if sources.contains(&packet.source) {
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            *sent.packets.entry(packet.destination).or_default() += 1;
            sent.echo_requests += u64::from(packet.is_echo_request);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Packet {
    source: IpAddr,
    destination: IpAddr,
    is_echo_request: bool,
}

impl Packet {
    /// An Ethernet frame with an IP packet in it.
    fn read(frame: &[u8]) -> Option<Self> {
        let (kind, packet) = (frame.get(12..14)?, frame.get(14..)?);
        match kind {
            [0x08, 0x00] => {
                let at = |from: usize| -> Option<IpAddr> {
                    let octets: [u8; 4] = packet.get(from..from + 4)?.try_into().ok()?;
                    Some(Ipv4Addr::from(octets).into())
                };
                let header_bytes = usize::from(packet.first()? & 0x0f) * 4;
                let is_icmp = packet.get(9) == Some(&1);
                Some(Self {
                    source: at(12)?,
                    destination: at(16)?,
                    is_echo_request: is_icmp && packet.get(header_bytes) == Some(&8),
                })
            }
            [0x86, 0xdd] => {
                let at = |from: usize| -> Option<IpAddr> {
                    let octets: [u8; 16] = packet.get(from..from + 16)?.try_into().ok()?;
                    Some(Ipv6Addr::from(octets).into())
                };
                let is_icmp = packet.get(6) == Some(&58);
                Some(Self {
                    source: at(8)?,
                    destination: at(24)?,
                    is_echo_request: is_icmp && packet.get(40) == Some(&128),
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_request_is_told_from_other_packets() {
        let mut frame = vec![0; 14 + 20 + 8];
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[14 + 9] = 1;
        frame[14 + 12..14 + 20].copy_from_slice(&[198, 18, 11, 10, 198, 18, 0, 10]);
        frame[14 + 20] = 8;
        let source = Ipv4Addr::new(198, 18, 11, 10).into();
        let destination = Ipv4Addr::new(198, 18, 0, 10).into();
        let expected = Packet { source, destination, is_echo_request: true };
        assert_eq!(Packet::read(&frame), Some(expected));
        frame[14 + 9] = 6;
        assert!(Packet::read(&frame).is_some_and(|packet| !packet.is_echo_request));
        for end in 0..34 {
            assert_eq!(Packet::read(&frame[..end]), None, "cut at {end}");
        }
    }
}
