//! What the machine itself does against theft, bootkits and exploits: encryption of its disk,
//! Secure Boot, and the kernel's own protections.

use haidang_proto::model::posture::{CheckId, FailReason};

use super::block::{Device, Storage, storage};
use super::finding::{Finding, Judged, Unknown};
use super::kernel_tables::{Mount, bracketed, mounts, number};
use super::reading::{optional, required};
use super::root::Root;
use super::{Check, Domain, Evidence, Tier};

pub(super) const DOMAIN: Domain = Domain {
    checks: &[
        Check::new(CheckId::DiskEncrypted, Tier::T2, disk_encrypted),
        Check::new(CheckId::SecureBootEnabled, Tier::T2, secure_boot_enabled),
        Check::new(CheckId::KernelIntegrity, Tier::T2, kernel_integrity),
        Check::new(CheckId::MemoryProtection, Tier::T1, memory_protection),
        Check::new(CheckId::MacEnforced, Tier::T1, mac_enforced),
    ],
    catalogue: include_str!("platform.toml"),
};

const MOUNTINFO: &str = "/proc/self/mountinfo";

/// The disks of the system and of what people store: `/`, and `/home` and `/var` where they are
/// mounted by themselves. sysfs tells the layers below each. Where the collector says that those
/// of virtual machines are their host's business, they are not judged.
fn disk_encrypted(evidence: &Evidence<'_>) -> Judged {
    const BLOCK_FILE_SYSTEMS: [&str; 8] =
        ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "jfs", "reiserfs"];
    let root = &evidence.root;
    let mounts = required(root, MOUNTINFO, mounts)?;
    let judges_virtual = evidence.threshold(CheckId::DiskEncrypted, "virtual_disks_judged")? != 0;
    let mut judged = Vec::new();
    for point in ["/", "/home", "/var"] {
        let Some(mount) = seen_at(&mounts, point) else { continue };
        if !BLOCK_FILE_SYSTEMS.contains(&mount.kind.as_str()) {
            let problem = format!("{point} is {}: its encryption is not known", mount.kind);
            return Err(Unknown::Unsupported(problem));
        }
        judged.push((point, device_name(root, mount)?));
    }
    if judged.is_empty() {
        return Err(Unknown::malformed(MOUNTINFO, "has no /"));
    }
    let mut is_by_host = false;
    for (point, device) in &judged {
        match storage(device, &mut |name| block_device(root, name))? {
            Storage::Encrypted => {}
            Storage::Plain(disks) if !judges_virtual && all_virtual(root, &disks)? => {
                is_by_host = true;
            }
            Storage::Plain(_) => {
                let seen = format!("{point} lies on {device}, not encrypted");
                return Ok(Finding::Fail(FailReason::Absent, seen));
            }
            Storage::Endless => {
                return Err(Unknown::malformed("/sys/class/block", "devices without an end"));
            }
        }
    }
    if is_by_host {
        return Ok(Finding::NotApplicable("virtual disks: to be encrypted by the host".into()));
    }
    let points: Vec<_> = judged.iter().map(|(point, _)| *point).collect();
    Ok(Finding::Pass(format!("{} encrypted", points.join(", "))))
}

/// Disks that a hypervisor makes: by their driver's name (virtio_blk, xen-blkfront; kernel's
/// admin-guide/devices.txt), or by the vendor that a SCSI disk tells (INQUIRY, SPC-4 6.6.2).
fn all_virtual(root: &Root, devices: &[String]) -> Result<bool, Unknown> {
    const VENDORS: [&str; 7] = ["QEMU", "VMware", "VMware,", "VBOX", "Msft", "NUTANIX", "Google"];
    const VENDOR_BYTES_MAX: u64 = 64;
    for device in devices {
        if device.starts_with("vd") || device.starts_with("xvd") {
            continue;
        }
        let directory = disk_directory(root, device)?;
        let vendor = root.text(format!("{directory}/device/vendor"), VENDOR_BYTES_MAX)?;
        if !vendor.is_some_and(|vendor| VENDORS.contains(&vendor.trim())) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The mount that is seen at a point: the last one there.
pub(super) fn seen_at<'a>(mounts: &'a [Mount], point: &str) -> Option<&'a Mount> {
    mounts.iter().rev().find(|mount| mount.point == point)
}

/// The kernel's name of what is mounted. btrfs has a device number of its own, and names its
/// device as the source.
fn device_name(root: &Root, mount: &Mount) -> Result<String, Unknown> {
    let uevent = format!("/sys/dev/block/{}/uevent", mount.device);
    let text = match root.text(&uevent, 4096)? {
        Some(text) => text,
        None => {
            let number = format!("/sys/class/block/{}/uevent", source_name(root, &mount.source)?);
            root.required_text(number, 4096)?
        }
    };
    text.lines()
        .find_map(|line| line.strip_prefix("DEVNAME="))
        .map(str::to_owned)
        .ok_or_else(|| Unknown::malformed(uevent, "names no device"))
}

/// `/dev/sda1` is sda1; `/dev/mapper/x` is a link to `../dm-0`.
fn source_name(root: &Root, source: &str) -> Result<String, Unknown> {
    let target = root.link(source)?.unwrap_or_else(|| source.to_owned());
    Ok(target.rsplit('/').next().unwrap_or_default().to_owned())
}

fn block_device(root: &Root, name: &str) -> Result<Device, Unknown> {
    const UUID_BYTES_MAX: u64 = 256;
    let directory = disk_directory(root, name)?;
    let uuid = root.text(format!("{directory}/dm/uuid"), UUID_BYTES_MAX)?;
    let slaves = root.names(format!("{directory}/slaves"))?.unwrap_or_default();
    Ok(Device { mapper_uuid: uuid.map(|uuid| uuid.trim_end().to_owned()), slaves })
}

/// Where sysfs tells of a disk, or of the disk of a partition, which lies on what its disk lies on:
/// a partition's entry is a link into the disk's directory.
fn disk_directory(root: &Root, name: &str) -> Result<String, Unknown> {
    let directory = format!("/sys/class/block/{name}");
    // A device that sysfs does not know is not one without encryption.
    if root.metadata(&directory)?.is_none() {
        return Err(Unknown::absent(directory));
    }
    let is_partition = root.metadata(format!("{directory}/partition"))?.is_some();
    Ok(if is_partition { format!("{directory}/..") } else { directory })
}

/// UEFI specification 3.3: variables of the global vendor; efivarfs puts four bytes of attributes
/// before the value. In setup mode anybody may enrol keys, so that Secure Boot proves nothing.
fn secure_boot_enabled(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    if root.metadata("/sys")?.is_none() {
        return Err(Unknown::absent("/sys"));
    }
    if root.metadata("/sys/firmware")?.is_none() {
        return Err(Unknown::absent("/sys/firmware"));
    }
    if root.metadata("/sys/firmware/efi")?.is_none() {
        return Ok(Finding::NotApplicable("the machine did not start by UEFI".into()));
    }
    match root.names("/sys/firmware/efi/efivars")? {
        Some(names) if !names.is_empty() => {}
        _ => return Err(Unknown::absent("/sys/firmware/efi/efivars")),
    }
    let Some(secure_boot) = efi_switch(root, "SecureBoot")? else {
        let seen = "this firmware has no Secure Boot";
        return Ok(Finding::Fail(FailReason::Absent, seen.into()));
    };
    let setup_mode = efi_switch(root, "SetupMode")?
        .ok_or_else(|| Unknown::absent("/sys/firmware/efi/efivars/SetupMode"))?;
    Ok(match (secure_boot, setup_mode) {
        (true, false) => Finding::Pass("SecureBoot=1 SetupMode=0".into()),
        (false, _) => Finding::Fail(FailReason::WeakValue, "SecureBoot=0".into()),
        (true, true) => Finding::Fail(FailReason::WeakValue, "SecureBoot=1 SetupMode=1".into()),
    })
}

fn efi_switch(root: &Root, name: &str) -> Result<Option<bool>, Unknown> {
    const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
    let path = format!("/sys/firmware/efi/efivars/{name}-{GLOBAL}");
    let Some(bytes) = root.bytes(&path, 64)? else { return Ok(None) };
    match bytes[..] {
        [_, _, _, _, value @ (0 | 1)] => Ok(Some(value == 1)),
        _ => Err(Unknown::malformed(path, "is not four attributes and a switch")),
    }
}

/// kernel_lockdown(7), and the taint bits of Documentation/admin-guide/tainted-kernels.rst.
/// Modules from elsewhere (bit 12) are common drivers and only told.
fn kernel_integrity(evidence: &Evidence<'_>) -> Judged {
    const FORCED_MODULE: u64 = 1 << 1;
    const FOREIGN_MODULE: u64 = 1 << 12;
    const UNSIGNED_MODULE: u64 = 1 << 13;
    let root = &evidence.root;
    let tainted = required(root, "/proc/sys/kernel/tainted", number)?;
    let lockdown = required(root, "/sys/kernel/security/lockdown", bracketed)?;
    let foreign = if tainted & FOREIGN_MODULE == 0 { "" } else { ", a module from elsewhere" };
    let seen = format!("lockdown={lockdown} tainted={tainted}{foreign}");
    let is_broken = tainted & (FORCED_MODULE | UNSIGNED_MODULE) != 0;
    Ok(match lockdown.as_str() {
        "integrity" | "confidentiality" if !is_broken => Finding::Pass(seen),
        "none" | "integrity" | "confidentiality" => Finding::Fail(FailReason::WeakValue, seen),
        _ => return Err(Unknown::malformed("/sys/kernel/security/lockdown", "an unknown level")),
    })
}

/// Documentation/admin-guide/sysctl: randomize_va_space 2 is all, suid_dumpable 0 is none; Yama's
/// ptrace_scope 1 and above restrict who traces whom.
fn memory_protection(evidence: &Evidence<'_>) -> Judged {
    let switch = |path| required(&evidence.root, path, number);
    let aslr = switch("/proc/sys/kernel/randomize_va_space")?;
    let dumpable = switch("/proc/sys/fs/suid_dumpable")?;
    let seen = format!("randomize_va_space={aslr} suid_dumpable={dumpable}");
    // What already fails need not wait for a kernel without Yama.
    if aslr != 2 || dumpable != 0 {
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    }
    let ptrace = switch("/proc/sys/kernel/yama/ptrace_scope")?;
    let seen = format!("{seen} ptrace_scope={ptrace}");
    Ok(if ptrace >= 1 { Finding::Pass(seen) } else { Finding::Fail(FailReason::WeakValue, seen) })
}

/// AppArmor with a profile in enforce mode, or SELinux enforcing.
fn mac_enforced(evidence: &Evidence<'_>) -> Judged {
    const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";
    let root = &evidence.root;
    if root.metadata("/sys/kernel")?.is_none() {
        return Err(Unknown::absent("/sys/kernel"));
    }
    match optional(root, "/sys/fs/selinux/enforce", number)? {
        Some(1) => return Ok(Finding::Pass("SELinux enforces".into())),
        Some(_) => {
            let seen = "SELinux only warns (permissive)";
            return Ok(Finding::Fail(FailReason::WeakValue, seen.into()));
        }
        None => {}
    }
    let enabled = root.text("/sys/module/apparmor/parameters/enabled", 16)?;
    if enabled.is_none_or(|enabled| enabled.trim() != "Y") {
        let seen = "neither AppArmor nor SELinux is on";
        return Ok(Finding::Fail(FailReason::Absent, seen.into()));
    }
    let profiles = root.required_text(PROFILES, 1 << 20)?;
    let in_mode = |mode: &str| profiles.lines().filter(|line| line.ends_with(mode)).count();
    let (enforced, complaining) = (in_mode(" (enforce)"), in_mode(" (complain)"));
    let seen = format!("AppArmor: {enforced} profiles enforce, {complaining} only warn");
    Ok(if enforced > 0 { Finding::Pass(seen) } else { Finding::Fail(FailReason::WeakValue, seen) })
}
