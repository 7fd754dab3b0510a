//! Binding a socket to the dedicated interface: to the device *and* to an address, and proof of
//! both. An address alone still leaves by whatever interface the routing table prefers; a device
//! alone may carry a foreign source address.
//!
//! Since Linux 5.7 a process needs no capability to bind a socket that is not bound yet
//! (`net/core/sock.c`, `sock_bindtoindex_locked`).

use std::io;
use std::net::{IpAddr, SocketAddr};

use socket2::Socket;

/// Where a socket's packets have to leave.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Binding {
    /// Name of the network device; `None` leaves the choice to the routing table.
    pub device: Option<String>,
    /// Source address; `None` leaves the choice to the kernel.
    pub source: Option<IpAddr>,
}

/// A socket that could not be bound as asked, and must not be used.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The device refused.
    #[error("cannot bind a socket to device {device}; kernels before 5.7 need CAP_NET_RAW for it")]
    Device {
        /// Its name.
        device: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The address refused.
    #[error("cannot bind a socket to source address {address}; it must be on this machine")]
    Address {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel could not say what the socket is bound to.
    #[error("cannot read back what a socket is bound to")]
    ReadBack {
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel accepted the binding and then names another one.
    #[error("a socket for {wanted:?} is bound to {bound:?}")]
    Mismatch {
        /// The binding asked for.
        wanted: Binding,
        /// The binding read back.
        bound: Binding,
    },
}

impl Binding {
    /// Binds `socket`, with source port 0, and reads back that it holds.
    ///
    /// # Errors
    /// When the kernel refuses, or names another binding afterwards.
    pub fn apply(&self, socket: &Socket) -> Result<(), BindError> {
        if let Some(device) = &self.device {
            socket
                .bind_device(Some(device.as_bytes()))
                .map_err(|source| BindError::Device { device: device.clone(), source })?;
        }
        if let Some(address) = self.source {
            socket
                .bind(&SocketAddr::new(address, 0).into())
                .map_err(|source| BindError::Address { address, source })?;
        }
        self.verify(socket)
    }

    /// Reads back what `socket` is bound to, and compares the parts that this binding fixes.
    ///
    /// # Errors
    /// When the kernel cannot say, or names another binding.
    pub fn verify(&self, socket: &Socket) -> Result<(), BindError> {
        let device = socket.device().map_err(|source| BindError::ReadBack { source })?;
        let device = device.map(|name| {
            let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
            String::from_utf8_lossy(&name[..end]).into_owned()
        });
        let local = socket.local_addr().map_err(|source| BindError::ReadBack { source })?;
        let bound = Self { device, source: local.as_socket().map(|address| address.ip()) };
        let device_holds = self.device.is_none() || self.device == bound.device;
        let source_holds = self.source.is_none() || self.source == bound.source;
        if device_holds && source_holds {
            Ok(())
        } else {
            Err(BindError::Mismatch { wanted: self.clone(), bound })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use socket2::{Domain, Type};

    use super::*;

    fn binding(device: &str, source: Ipv4Addr) -> Binding {
        Binding { device: Some(device.into()), source: Some(source.into()) }
    }

    #[test]
    fn device_and_address_hold_together() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let wanted = binding("lo", Ipv4Addr::new(127, 0, 0, 9));
        wanted.apply(&socket).unwrap();
        wanted.verify(&socket).unwrap();
    }

    #[test]
    fn a_foreign_address_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let error = binding("lo", Ipv4Addr::new(198, 51, 100, 1)).apply(&socket).unwrap_err();
        assert!(matches!(error, BindError::Address { .. }), "{error}");
    }

    #[test]
    fn an_absent_device_is_refused() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let error = binding("hd-absent0", Ipv4Addr::LOCALHOST).apply(&socket).unwrap_err();
        assert!(matches!(error, BindError::Device { .. }), "{error}");
    }

    #[test]
    fn another_binding_does_not_verify() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        binding("lo", Ipv4Addr::new(127, 0, 0, 9)).apply(&socket).unwrap();
        for other in [
            binding("lo", Ipv4Addr::new(127, 0, 0, 8)),
            binding("hd-absent0", Ipv4Addr::new(127, 0, 0, 9)),
        ] {
            assert!(matches!(other.verify(&socket), Err(BindError::Mismatch { .. })));
        }
    }
}
