//! Tables the kernel prints: mountinfo (proc_pid_mountinfo(5)), established TCP connections
//! (proc_net_tcp), the taint bits and bracketed choices.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::malformed::{Malformed, lines};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of what is mounted.
    pub device: String,
    /// Where.
    pub point: String,
    /// File system type.
    pub kind: String,
    /// What, such as `/dev/sda1`.
    pub source: String,
    /// Options of this mount, such as `nosuid`.
    pub options: Vec<String>,
}

/// mountinfo, in the order of mounting: of several mounts on one point the last is seen.
///
/// # Errors
/// A line without the fields of mountinfo.
pub fn mounts(bytes: &[u8]) -> Result<Vec<Mount>, Malformed> {
    let mut mounts = Vec::new();
    for (number, line) in lines(bytes)? {
        if line.is_empty() {
            continue;
        }
        let malformed = Malformed::Line { number, what: "not a line of mountinfo" };
        let (mount, filesystem) = line.split_once(" - ").ok_or(malformed)?;
        let mount: Vec<&str> = mount.split(' ').collect();
        let filesystem: Vec<&str> = filesystem.split(' ').collect();
        let ([_, _, device, _, point, options, ..], [kind, source, ..]) =
            (&mount[..], &filesystem[..])
        else {
            return Err(malformed);
        };
        mounts.push(Mount {
            device: (*device).to_owned(),
            point: unescape(point),
            kind: (*kind).to_owned(),
            source: unescape(source),
            options: options.split(',').map(str::to_owned).collect(),
        });
    }
    if mounts.is_empty() { Err(Malformed::Whole("nothing is mounted")) } else { Ok(mounts) }
}

/// Undoes the kernel's `\040` for space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain + rest
}

/// Remote ends of established connections in `/proc/net/tcp` or `/proc/net/tcp6`.
///
/// # Errors
/// A line without the fields of that table.
pub fn established_tcp(bytes: &[u8]) -> Result<Vec<SocketAddr>, Malformed> {
    const ESTABLISHED: &str = "01";
    let mut remotes = Vec::new();
    for (number, line) in lines(bytes)?.into_iter().skip(1) {
        if line.trim().is_empty() {
            continue;
        }
        let malformed = Malformed::Line { number, what: "not a line of a TCP table" };
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, remote, state, ..] = fields[..] else { return Err(malformed) };
        if state == ESTABLISHED {
            remotes.push(address(remote).ok_or(malformed)?);
        }
    }
    Ok(remotes)
}

/// `0100007F:0016`: each 32-bit word in the byte order of the machine, the port as written.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let mut octets = Vec::with_capacity(16);
    for at in (0..address.len()).step_by(8) {
        let word = u32::from_str_radix(address.get(at..at + 8)?, 16).ok()?;
        octets.extend(word.to_ne_bytes());
    }
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The chosen word of `none [integrity] confidentiality`.
///
/// # Errors
/// No word in brackets.
pub fn bracketed(bytes: &[u8]) -> Result<String, Malformed> {
    let lines = lines(bytes)?;
    let words = lines.iter().flat_map(|(_, line)| line.split_whitespace());
    words
        .filter_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .map(str::to_owned)
        .next()
        .ok_or(Malformed::Whole("no choice in brackets"))
}

/// A file that holds one decimal number.
///
/// # Errors
/// It holds something else.
pub fn number(bytes: &[u8]) -> Result<u64, Malformed> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or(Malformed::Whole("not one number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &[u8] = b"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n\
        30 25 0:27 / /dev/shm rw,nosuid,nodev shared:3 - tmpfs tmpfs rw\n\
        31 27 8:1 / /mnt/a\\040b ro - vfat /dev/sda1 rw\n";

    #[test]
    fn mounts_are_read_with_their_own_options() {
        let mounts = mounts(MOUNTINFO).unwrap();
        assert_eq!((mounts[0].device.as_str(), mounts[0].source.as_str()), ("254:0", "/dev/vda"));
        assert_eq!(mounts[1].options, ["rw", "nosuid", "nodev"]);
        assert_eq!(mounts[2].point, "/mnt/a b");
    }

    #[test]
    fn broken_tables_are_refused() {
        assert!(mounts(b"").is_err());
        assert!(mounts(&MOUNTINFO[..30]).is_err());
        assert!(mounts("1 2 3 4 \\9\u{e9} rw - a b".as_bytes()).is_ok());
        assert!(established_tcp(b"header\n 0: 00000000:0016\n").is_err());
        assert!(established_tcp(b"header\n 0: 0:0 ZZ:0 01\n").is_err());
        assert!(bracketed(b"none integrity\n").is_err());
        assert!(number(b"1 2").is_err());
        assert_eq!(number(b"4096\n"), Ok(4096));
    }

    #[test]
    fn established_connections_of_both_families_are_read() {
        let v4 = b"  sl  local_address rem_address   st\n   0: 0100007F:C350 0200000A:0202 01 0\n   1: 00000000:0016 00000000:0000 0A 0\n";
        assert_eq!(established_tcp(v4).unwrap(), ["10.0.0.2:514".parse().unwrap()]);
        let v6 = b"  sl\n 0: 0000000000000000FFFF00000100007F:0016 0000000000000000FFFF00000200000A:0202 01\n";
        assert_eq!(established_tcp(v6).unwrap(), ["10.0.0.2:514".parse().unwrap()]);
    }

    #[test]
    fn the_choice_in_brackets_is_read() {
        assert_eq!(bracketed(b"none [integrity] confidentiality\n").unwrap(), "integrity");
    }
}
