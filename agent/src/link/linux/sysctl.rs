//! What the kernel's files say of forwarding and address translation, without privilege.

use std::io;
use std::path::Path;

use crate::evidence::{Forwarding, LocalFault, Nat};
use crate::link::Device;

/// `/proc/modules` of a machine with everything loaded is a tenth of it.
const MODULES_BYTES_MAX: u64 = 1 << 20;

/// The devices that forward what comes in by them. For IPv4 that is a switch of the device; for
/// IPv6 one of the machine (`net/ipv6/ip6_output.c`, `ip6_forward`), or since Linux 6.17 the
/// device's `force_forwarding`.
pub(super) fn forwarding<'a>(
    sys_net: &Path,
    devices: impl Iterator<Item = &'a Device>,
) -> Result<Vec<(u32, Forwarding)>, LocalFault> {
    let all_v6 = is_on(&sys_net.join("ipv6/conf/all/forwarding"))?;
    let mut found = Vec::new();
    for device in devices {
        let v4 = is_on(&sys_net.join("ipv4/conf").join(&device.name).join("forwarding"))?;
        let forced = sys_net.join("ipv6/conf").join(&device.name).join("force_forwarding");
        let v6 = all_v6 || is_on(&forced)?;
        if v4 || v6 {
            found.push((device.index, Forwarding { v4, v6 }));
        }
    }
    Ok(found)
}

fn is_on(file: &Path) -> Result<bool, LocalFault> {
    match std::fs::read_to_string(file) {
        Ok(value) => Ok(value.trim() != "0"),
        // No IPv6 here, an older kernel, or the device went away: nothing is forwarded by it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LocalFault(format!("cannot read {}: {error}", file.display()))),
    }
}

/// Whether the kernel can translate addresses.
pub(super) fn nat(root: &Path) -> Nat {
    // With /proc/net/nf_conntrack readable by root alone, the modules are what is left.
    let path = root.join("proc/modules");
    let unreadable = |problem: &str| {
        Nat::Unreadable(LocalFault(format!("cannot tell from {}: {problem}", path.display())))
    };
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => return unreadable(&error.to_string()),
    };
    let mut modules = String::new();
    let mut limited = io::Read::take(file, MODULES_BYTES_MAX + 1);
    if let Err(error) = io::Read::read_to_string(&mut limited, &mut modules) {
        return unreadable(&error.to_string());
    }
    if modules.len() as u64 > MODULES_BYTES_MAX {
        return unreadable("it is too long");
    }
    let is_loaded =
        |name: &str| modules.lines().any(|line| line.split_whitespace().next() == Some(name));
    // A kernel with connection tracking built in may have translation built in, too.
    let is_built_in =
        !is_loaded("nf_conntrack") && root.join("proc/sys/net/netfilter/nf_conntrack_max").exists();
    match (is_loaded("nf_nat"), is_built_in) {
        (true, _) => Nat::Loaded,
        (false, true) => unreadable("connection tracking is built into the kernel"),
        (false, false) => Nat::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    #[test]
    fn translation_is_absent_loaded_or_not_known_and_never_guessed() {
        let with = |files: &[(&str, &str)]| nat(written(files).path());
        let loaded = "nf_nat 65536 1 nft_masq, Live 0x0\nnf_conntrack 200704 2 nf_nat, Live 0x0\n";
        assert_eq!(with(&[("proc/modules", loaded)]), Nat::Loaded);
        assert_eq!(with(&[("proc/modules", "nf_nat_ftp 16384 0 - Live 0x0\n")]), Nat::Absent);
        assert!(matches!(with(&[]), Nat::Unreadable(_)));
        let built_in =
            [("proc/modules", ""), ("proc/sys/net/netfilter/nf_conntrack_max", "65536\n")];
        assert!(matches!(with(&built_in), Nat::Unreadable(_)));
    }

    #[test]
    fn forwarding_is_a_devices_switch_in_ipv4_and_the_machines_in_ipv6() {
        let device = |index, name: &str| Device {
            index,
            name: name.into(),
            mac: Vec::new(),
            mtu: None,
            admin_up: true,
            carrier: true,
            loopback: false,
            kind: crate::link::DeviceKind::Hardware,
            controller: None,
        };
        let devices = [device(2, "eth0"), device(3, "eth1")];
        let found = |files: &[(&str, &str)]| forwarding(written(files).path(), devices.iter());
        assert_eq!(found(&[]), Ok(vec![]));
        let v4 = [("ipv4/conf/eth1/forwarding", "1\n"), ("ipv6/conf/eth0/forwarding", "1\n")];
        assert_eq!(found(&v4), Ok(vec![(3, Forwarding { v4: true, v6: false })]));
        let v6 = Forwarding { v4: false, v6: true };
        assert_eq!(found(&[("ipv6/conf/all/forwarding", "1\n")]), Ok(vec![(2, v6), (3, v6)]));
        let forced = [("ipv6/conf/eth0/force_forwarding", "1\n")];
        assert_eq!(found(&forced), Ok(vec![(2, v6)]));
        // A directory in the file's place cannot be read.
        assert!(found(&[("ipv4/conf/eth0/forwarding/x", "")]).is_err());
    }
}
