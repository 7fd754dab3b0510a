//! Host facts: attributes of the machine, never keys.

use crate::wire;

use super::{WireError, text};

/// Bytes of each text.
const TEXT_BYTES_MAX: usize = 255;

/// What machine this is.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct HostFacts {
    /// Its own name, so that people find it.
    pub hostname: String,
    /// Operating system and version.
    pub os: String,
    /// Kernel release.
    pub kernel: String,
    /// Processor architecture.
    pub architecture: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory.
    pub memory_bytes: u64,
    /// Memory that programs can still get.
    pub memory_available_bytes: u64,
    /// Size of the root file system.
    pub root_disk_bytes: u64,
    /// What is free of it.
    pub root_disk_available_bytes: u64,
    /// Time since the machine started.
    pub uptime_seconds: u64,
}

impl TryFrom<wire::HostFacts> for HostFacts {
    type Error = WireError;

    fn try_from(facts: wire::HostFacts) -> Result<Self, WireError> {
        let wire::HostFacts {
            hostname,
            os,
            kernel,
            architecture,
            cpus,
            memory_bytes,
            memory_available_bytes,
            root_disk_bytes,
            root_disk_available_bytes,
            uptime_seconds,
        } = facts;
        Ok(Self {
            hostname: text(hostname, TEXT_BYTES_MAX, "host.hostname")?,
            os: text(os, TEXT_BYTES_MAX, "host.os")?,
            kernel: text(kernel, TEXT_BYTES_MAX, "host.kernel")?,
            architecture: text(architecture, TEXT_BYTES_MAX, "host.architecture")?,
            cpus,
            memory_bytes,
            memory_available_bytes,
            root_disk_bytes,
            root_disk_available_bytes,
            uptime_seconds,
        })
    }
}

impl From<HostFacts> for wire::HostFacts {
    fn from(facts: HostFacts) -> Self {
        let HostFacts {
            hostname,
            os,
            kernel,
            architecture,
            cpus,
            memory_bytes,
            memory_available_bytes,
            root_disk_bytes,
            root_disk_available_bytes,
            uptime_seconds,
        } = facts;
        Self {
            hostname,
            os,
            kernel,
            architecture,
            cpus,
            memory_bytes,
            memory_available_bytes,
            root_disk_bytes,
            root_disk_available_bytes,
            uptime_seconds,
        }
    }
}
