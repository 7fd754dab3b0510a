//! Whether all storage below a file system is encrypted, by walking sysfs.
//!
//! A device-mapper target tells its kind by the prefix of `dm/uuid`; what it is made of are its
//! `slaves`. A volume is encrypted when every way down ends in encryption: a volume group with
//! one plain disk is not.

use std::collections::BTreeSet;

/// Most devices below one file system; the largest disk shelves have some dozens.
const DEVICES_MAX: usize = 256;

/// What sysfs says of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `dm/uuid`, without its newline; `None` where it is no device-mapper target.
    pub mapper_uuid: Option<String>,
    /// Names in `slaves`.
    pub slaves: Vec<String>,
}

/// How the storage below a file system is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// Every way down ends in encryption.
    Encrypted,
    /// Some end in plain storage: these devices.
    Plain(Vec<String>),
    /// More devices than can be: a loop, or not this machine's sysfs.
    Endless,
}

/// Walks down from the device called `name`.
///
/// # Errors
/// What `read` returns.
pub fn storage<E>(
    name: &str,
    read: &mut dyn FnMut(&str) -> Result<Device, E>,
) -> Result<Storage, E> {
    let mut seen = BTreeSet::new();
    let mut pending = vec![name.to_owned()];
    let (mut encrypted, mut plain) = (false, Vec::new());
    while let Some(name) = pending.pop() {
        if !seen.insert(name.clone()) {
            continue;
        }
        if seen.len() > DEVICES_MAX {
            return Ok(Storage::Endless);
        }
        let Device { mapper_uuid, slaves } = read(&name)?;
        if mapper_uuid.as_deref().is_some_and(encrypts) {
            encrypted = true;
            continue;
        }
        if slaves.is_empty() {
            plain.push(name);
        }
        pending.extend(slaves);
    }
    Ok(match (plain.is_empty(), encrypted) {
        (false, _) => Storage::Plain(plain),
        (true, true) => Storage::Encrypted,
        // Devices that only name each other end nowhere.
        (true, false) => Storage::Endless,
    })
}

/// cryptsetup names its targets `CRYPT-<type>-…`; verity and integrity protect without hiding.
fn encrypts(uuid: &str) -> bool {
    [
        "CRYPT-LUKS1-",
        "CRYPT-LUKS2-",
        "CRYPT-PLAIN-",
        "CRYPT-BITLK-",
        "CRYPT-TCRYPT-",
        "CRYPT-FVAULT2-",
    ]
    .iter()
    .any(|prefix| uuid.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn judged(devices: &[(&str, &str, &[&str])], expected: Storage) {
        let found = storage::<()>(devices[0].0, &mut |name| {
            let (_, uuid, slaves) = devices.iter().find(|device| device.0 == name).unwrap();
            Ok(Device {
                mapper_uuid: (!uuid.is_empty()).then(|| (*uuid).to_owned()),
                slaves: slaves.iter().map(|&slave| slave.to_owned()).collect(),
            })
        });
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn every_way_down_must_be_encrypted() {
        let plain = |device: &str| Storage::Plain(vec![device.to_owned()]);
        judged(&[("sda1", "", &[])], plain("sda1"));
        judged(&[("dm-0", "CRYPT-LUKS2-a-root", &["sda1"])], Storage::Encrypted);
        let lvm = [("dm-1", "LVM-x", &["dm-0"][..]), ("dm-0", "CRYPT-LUKS1-a-b", &["sda2"])];
        judged(&lvm, Storage::Encrypted);
        let half = [
            ("dm-1", "LVM-x", &["dm-0", "sdb1"][..]),
            ("dm-0", "CRYPT-LUKS2-a-b", &["sda2"]),
            ("sdb1", "", &[]),
        ];
        judged(&half, plain("sdb1"));
        let verity = [("dm-0", "CRYPT-VERITY-a-b", &["sda1"][..]), ("sda1", "", &[])];
        judged(&verity, plain("sda1"));
    }

    #[test]
    fn a_loop_ends_and_is_not_green_without_encryption() {
        let endless = storage::<()>("0", &mut |name| {
            let next = name.parse::<u32>().unwrap() + 1;
            Ok(Device { mapper_uuid: None, slaves: vec![next.to_string()] })
        });
        assert_eq!(endless, Ok(Storage::Endless));
        judged(&[("dm-0", "LVM-x", &["dm-0"])], Storage::Endless);
    }
}
