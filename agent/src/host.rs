//! What machine this is, by sysinfo: attributes for people, never keys. Reads files; call it off
//! the runtime.

use haidang_proto::model::host::HostFacts;
use sysinfo::{MemoryRefreshKind, System};

/// Bytes of a text.
const TEXT_BYTES_MAX: usize = 255;

/// Facts as they are now. What the system does not tell is empty or zero.
pub fn facts() -> HostFacts {
    let (memory_bytes, memory_available_bytes) = memory();
    let (root_disk_bytes, root_disk_available_bytes) = root_disk();
    let os = format!(
        "{} {}",
        System::name().unwrap_or_default(),
        System::os_version().unwrap_or_default()
    );
    HostFacts {
        hostname: clean(&System::host_name().unwrap_or_default()),
        os: clean(os.trim()),
        kernel: clean(&System::kernel_version().unwrap_or_default()),
        architecture: clean(&System::cpu_arch()),
        cpus: cpus(),
        memory_bytes,
        memory_available_bytes,
        root_disk_bytes,
        root_disk_available_bytes,
        uptime_seconds: System::uptime().unwrap_or_default(),
    }
}

/// The machine id, which ghost images share; empty where there is none.
pub fn machine_id() -> Vec<u8> {
    std::fs::read("/etc/machine-id").unwrap_or_default().trim_ascii().to_vec()
}

fn memory() -> (u64, u64) {
    let Ok(mut system) = System::new() else { return (0, 0) };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    (system.total_memory(), system.available_memory())
}

/// Asks for the root alone: a list of all disks would touch network mounts that may hang.
fn root_disk() -> (u64, u64) {
    rustix::fs::statvfs("/").map_or((0, 0), |root| {
        let bytes = |blocks: u64| blocks.saturating_mul(root.f_frsize);
        (bytes(root.f_blocks), bytes(root.f_bavail))
    })
}

fn cpus() -> u32 {
    std::thread::available_parallelism().map_or(0, |cpus| u32::try_from(cpus.get()).unwrap_or(0))
}

/// Text within the wire's bound, without control characters.
fn clean(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use haidang_proto::wire;

    use super::*;

    #[test]
    fn facts_of_this_machine_are_accepted_by_the_wire() {
        let facts = facts();
        assert!(facts.memory_bytes > 0 && facts.cpus > 0 && !facts.kernel.is_empty());
        assert_eq!(HostFacts::try_from(wire::HostFacts::from(facts.clone())), Ok(facts));
        assert_eq!(clean(&"á\n".repeat(200)).len(), 254);
    }
}
