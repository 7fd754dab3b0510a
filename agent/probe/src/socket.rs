//! One datagram ICMP socket, bound to its device and address, with kernel stamps and error queue
//! switched on.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use rustix::net::netdevice::name_to_index;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::binding::Binding;
use crate::clock::Stamp;
use crate::control;
use crate::flight::{Flight, Role};
use crate::packet::{HEADER_BYTES, Nonce, read_quoted_request, read_reply, write_request};
use crate::plan::{EchoError, EchoPlan, IDENTITY_BYTES};

/// A reply is recognised by its beginning; the kernel cuts off the rest.
const RECEIVE_BYTES: usize = HEADER_BYTES + IDENTITY_BYTES as usize;
/// Packets read in one go, so that a flood of forged replies cannot hold up the sending.
const READ_MAX: usize = 256;

/// A socket and what it has in the air.
#[derive(Debug)]
pub(crate) struct EchoSocket {
    socket: AsyncFd<Socket>,
    target: SocketAddr,
    own: Option<IpAddr>,
    sequence: u16,
    packet: Vec<u8>,
    pub(crate) flight: Flight,
}

/// Why there is no socket.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// `ping_group_range` is closed to this process.
    Forbidden,
    Failed(EchoError),
}

impl EchoSocket {
    pub(crate) fn open(target: IpAddr, binding: &Binding) -> Result<Self, Refusal> {
        let (domain, protocol) = match target {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
        };
        let socket =
            Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(|source| {
                match source.kind() {
                    io::ErrorKind::PermissionDenied => Refusal::Forbidden,
                    _ => Refusal::Failed(EchoError::Open { source }),
                }
            })?;
        Self::prepare(socket, target, binding).map_err(Refusal::Failed)
    }

    fn prepare(socket: Socket, target: IpAddr, binding: &Binding) -> Result<Self, EchoError> {
        option("O_NONBLOCK", socket.set_nonblocking(true))?;
        option(
            "SO_TIMESTAMPNS",
            from_nix(setsockopt(&socket, sockopt::ReceiveTimestampns, &true)),
        )?;
        match target {
            IpAddr::V4(_) => {
                option("IP_RECVERR", from_nix(setsockopt(&socket, sockopt::Ipv4RecvErr, &true)))?;
            }
            IpAddr::V6(_) => {
                option("IPV6_RECVERR", from_nix(setsockopt(&socket, sockopt::Ipv6RecvErr, &true)))?;
            }
        }
        binding.apply(&socket).map_err(|source| EchoError::Bind { source })?;
        let target = with_scope(target, binding, &socket)?;
        let socket = register(socket).map_err(|source| EchoError::Wait { source })?;
        Ok(Self {
            socket,
            target,
            own: binding.source,
            sequence: 0,
            packet: Vec::new(),
            flight: Flight::default(),
        })
    }

    /// Sets the options that a plan may change between exchanges.
    pub(crate) fn configure(&self, plan: &EchoPlan) -> Result<(), EchoError> {
        let socket = self.socket.get_ref();
        match self.target {
            SocketAddr::V4(_) => {
                // -1 is the system's default (`ip(7)`).
                let ttl = plan.ttl.map_or(-1, i32::from);
                option("IP_TTL", from_nix(setsockopt(socket, sockopt::Ipv4Ttl, &ttl)))?;
                let discovery = match plan.dont_fragment {
                    true => Ipv4PathMtuDiscovery::PROBE,
                    false => Ipv4PathMtuDiscovery::DONT,
                };
                let set = set_ip_mtu_discover(socket, discovery);
                option("IP_MTU_DISCOVER", set.map_err(Into::into))
            }
            SocketAddr::V6(_) => {
                let hops = plan.ttl.map_or(-1, i32::from);
                option("IPV6_UNICAST_HOPS", from_nix(setsockopt(socket, sockopt::Ipv6Ttl, &hops)))?;
                let discovery = match plan.dont_fragment {
                    true => Ipv6PathMtuDiscovery::PROBE,
                    false => Ipv6PathMtuDiscovery::DONT,
                };
                let set = set_ipv6_mtu_discover(socket, discovery);
                option("IPV6_MTU_DISCOVER", set.map_err(Into::into))?;
                // Without it the kernel would fragment what exceeds the device's MTU.
                let set = setsockopt(socket, sockopt::Ipv6DontFrag, &plan.dont_fragment);
                option("IPV6_DONTFRAG", from_nix(set))
            }
        }
    }

    /// Sends one packet.
    pub(crate) fn send(
        &mut self,
        role: Role,
        payload_bytes: u16,
        deadline: Duration,
    ) -> Result<(), EchoError> {
        let mut nonce: Nonce = [0; _];
        getrandom::fill(&mut nonce)
            .map_err(|error| EchoError::Random { source: io::Error::other(error.to_string()) })?;
        self.sequence = self.sequence.wrapping_add(1);
        let to = self.target.ip();
        write_request(to, self.sequence, &nonce, payload_bytes, &mut self.packet);
        let mut sent = Stamp::now();
        let mut outcome = self.socket.get_ref().send_to(&self.packet, &self.target.into());
        if outcome.is_err() {
            // An error about an earlier packet may stand in the socket, and says nothing about
            // this one: take it away and try once more.
            self.read();
            let _cleared = self.socket.get_ref().take_error();
            sent = Stamp::now();
            outcome = self.socket.get_ref().send_to(&self.packet, &self.target.into());
        }
        outcome.map_err(|source| EchoError::Send { target: to, source })?;
        self.flight.sent((self.sequence, nonce), sent, deadline, role);
        Ok(())
    }

    /// Waits until there may be something to read.
    pub(crate) async fn readable(&self) -> Result<(), EchoError> {
        let ready = self.socket.ready(Interest::READABLE | Interest::ERROR).await;
        ready
            .map_err(|source| EchoError::Wait { source })?
            .clear_ready_matching(Ready::READABLE | Ready::ERROR);
        Ok(())
    }

    /// Reads the error queue and the replies that are there.
    ///
    /// Readiness was cleared before, so whatever arrives in between wakes again.
    pub(crate) fn read(&mut self) {
        for flags in [MsgFlags::MSG_ERRQUEUE, MsgFlags::empty()] {
            for _ in 0..READ_MAX {
                if !self.read_one(flags) {
                    break;
                }
            }
        }
    }

    /// Reads one packet; `false` when there is none.
    fn read_one(&mut self, flags: MsgFlags) -> bool {
        let mut bytes = [0; RECEIVE_BYTES];
        let mut control_bytes = [0; control::BUFFER_BYTES];
        let (length, from) = {
            let mut vectors = [IoSliceMut::new(&mut bytes)];
            let received = recvmsg::<SockaddrStorage>(
                self.socket.as_raw_fd(),
                &mut vectors,
                Some(&mut control_bytes),
                flags | MsgFlags::MSG_DONTWAIT,
            );
            match received {
                Ok(message) => (message.bytes, message.address.as_ref().and_then(ip)),
                // An error about an earlier packet, which the error queue tells better.
                Err(nix::errno::Errno::EAGAIN) => return false,
                Err(_) => return flags.is_empty(),
            }
        };
        let read = Stamp::now();
        let control = control::read(&control_bytes);
        let bytes = &bytes[..length.min(RECEIVE_BYTES)];
        let to = self.target.ip();
        if let Some(error) = control.error {
            match read_quoted_request(to, bytes) {
                Some(quoted) => {
                    self.flight.error(quoted, &error, self.own, (control.arrived, read));
                }
                None => self.flight.ignore_error(),
            }
        } else {
            match read_reply(to, bytes).filter(|_| from == Some(to)) {
                Some(identity) => self.flight.reply(identity, control.arrived, read),
                None => self.flight.ignore_reply(),
            }
        }
        true
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| address.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn option(option: &'static str, outcome: io::Result<()>) -> Result<(), EchoError> {
    outcome.map_err(|source| EchoError::Option { option, source })
}

fn from_nix(outcome: nix::Result<()>) -> io::Result<()> {
    outcome.map_err(Into::into)
}

#[expect(unsafe_code, reason = "tokio offers no safe registration that is not deprecated")]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: the socket owns its descriptor and never gives it away or swaps it, so the
    // descriptor stays open, and the same, for as long as the registration lives.
    let registered =
        unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE | Interest::ERROR) };
    registered.map_err(Into::into)
}

/// A link-local IPv6 target means something on one device only.
fn with_scope(target: IpAddr, binding: &Binding, socket: &Socket) -> Result<SocketAddr, EchoError> {
    match (target, &binding.device) {
        (IpAddr::V6(address), Some(device)) if address.is_unicast_link_local() => {
            let index = name_to_index(socket, device)
                .map_err(|error| EchoError::Send { target, source: error.into() })?;
            Ok(SocketAddrV6::new(address, 0, 0, index).into())
        }
        _ => Ok(SocketAddr::new(target, 0)),
    }
}
