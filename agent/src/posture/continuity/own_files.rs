//! `agent_integrity`: the agent looks at itself. What it says is only as true as the agent is:
//! the SHA-256 of its program is told, so that the collector can compare it with the released one.

use std::io::Read;

use haidang_proto::model::posture::FailReason;
use md5::Md5;
use sha2::{Digest, Sha256};

use crate::posture::Evidence;
use crate::posture::finding::{Finding, Judged, Unknown};
use crate::posture::malformed::{Malformed, lines};
use crate::posture::reading::optional;
use crate::posture::root::Root;

const PACKAGE_SUMS: &str = "/var/lib/dpkg/info/haidang-agent.md5sums";

/// Bytes of the program: some times what it is.
const PROGRAM_BYTES_MAX: u64 = 128 << 20;

/// Files of the package.
const FILES_MAX: usize = 64;

/// The program and the other files of the package are as dpkg recorded them, belong to root,
/// nobody traces the process, and no unit of the site stands in for the packaged one. dpkg
/// records MD5, which is enough against damage and clumsy changes; a forger meets the SHA-256.
pub(super) fn agent_integrity(evidence: &Evidence<'_>) -> Judged {
    let root = &evidence.root;
    let program = root.link("/proc/self/exe")?.ok_or_else(|| Unknown::absent("/proc/self/exe"))?;
    if program.ends_with(" (deleted)") {
        let seen = "the program was replaced while it runs: restart the agent";
        return Ok(Finding::Fail(FailReason::Stale, seen.into()));
    }
    if let Some(seen) = changed_surroundings(root, &program)? {
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    }
    let (sha256, md5) = digests(root, &program)?;
    let short = &sha256[..16];
    let Some(sums) = optional(root, PACKAGE_SUMS, package_sums)? else {
        let seen = format!("no package records this program (sha256 {short})");
        return Err(Unknown::Unsupported(seen));
    };
    let Some((_, recorded)) = sums.iter().find(|(path, _)| *path == program) else {
        let seen = format!("{program} is not of the package (sha256 {short})");
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    };
    if *recorded != md5 {
        let seen = format!("{program} differs from its package (sha256 {short})");
        return Ok(Finding::Fail(FailReason::WeakValue, seen));
    }
    for (path, recorded) in sums.iter().filter(|(path, _)| *path != program) {
        if digests(root, path)?.1 != *recorded {
            let seen = format!("{path} differs from its package");
            return Ok(Finding::Fail(FailReason::WeakValue, seen));
        }
    }
    Ok(Finding::Pass(format!("{} files as packaged, sha256 {short}", sums.len())))
}

/// What makes the files beside the point.
fn changed_surroundings(root: &Root, program: &str) -> Result<Option<String>, Unknown> {
    const OVERRIDES: [&str; 2] = [
        "/etc/systemd/system/haidang-agent.service",
        "/etc/systemd/system/haidang-agent.service.d",
    ];
    let status = root.required_text("/proc/self/status", 16 << 10)?;
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    let tracer = tracer.ok_or_else(|| Unknown::malformed("/proc/self/status", "no TracerPid"))?;
    if tracer.trim() != "0" {
        return Ok(Some("another process traces the agent".into()));
    }
    for path in OVERRIDES {
        if root.link_metadata(path)?.is_some() {
            return Ok(Some(format!("{path} changes the packaged unit")));
        }
    }
    for path in [program, "/etc/haidang/agent.toml"] {
        let Some(metadata) = root.metadata(path)? else { continue };
        if metadata.uid != 0 || metadata.mode & 0o022 != 0 {
            let mode = metadata.mode;
            return Ok(Some(format!("{path} {mode:o} uid {} can be changed", metadata.uid)));
        }
    }
    Ok(None)
}

/// `<md5>  usr/bin/haidang-agent` lines, as (absolute path, md5).
///
/// # Errors
/// Another form, or an unreasonable number.
pub fn package_sums(bytes: &[u8]) -> Result<Vec<(String, String)>, Malformed> {
    let mut sums = Vec::new();
    for (number, line) in lines(bytes)? {
        if line.is_empty() {
            continue;
        }
        let sum = line.split_once("  ").filter(|(md5, path)| {
            md5.len() == 32 && md5.bytes().all(|byte| byte.is_ascii_hexdigit()) && !path.is_empty()
        });
        let (md5, path) = sum.ok_or(Malformed::Line { number, what: "not a sum and a path" })?;
        sums.push((format!("/{path}"), md5.to_ascii_lowercase()));
        if sums.len() > FILES_MAX {
            return Err(Malformed::Whole("more files than the package has"));
        }
    }
    if sums.is_empty() { Err(Malformed::Whole("no file in it")) } else { Ok(sums) }
}

/// SHA-256 and MD5 in hexadecimal, in one reading of little memory.
fn digests(root: &Root, path: &str) -> Result<(String, String), Unknown> {
    let stream = root.stream(path, PROGRAM_BYTES_MAX)?;
    let mut stream = stream.ok_or_else(|| Unknown::absent(path))?;
    let (mut sha256, mut md5) = (Sha256::new(), Md5::new());
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer).map_err(|error| stream.unknown(&error))?;
        if read == 0 {
            break;
        }
        sha256.update(&buffer[..read]);
        md5.update(&buffer[..read]);
    }
    Ok((hexadecimal(&sha256.finalize()), hexadecimal(&md5.finalize())))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_and_others_refused() {
        let line = "d41d8cd98f00b204e9800998ecf8427e  usr/bin/haidang-agent\n";
        let sums = package_sums(line.as_bytes()).unwrap();
        assert_eq!(sums[0].0, "/usr/bin/haidang-agent");
        for text in ["", "x  y", "\0", &line.repeat(FILES_MAX + 1)] {
            assert!(package_sums(text.as_bytes()).is_err(), "{text}");
        }
    }
}
