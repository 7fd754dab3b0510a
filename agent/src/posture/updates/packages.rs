//! What dpkg has installed, and what apt's lists offer: paragraphs of `Field: value` (deb822(5)),
//! read as a stream, because a list has some ten megabytes and this machine's memory is not ours.
//!
//! Lists are read in every form that apt keeps them in: plain, `.gz`, `.xz`, `.lz4`, `.zst`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::finding::Unknown;
use super::super::root::{Root, unknown_at};
use super::version::compare;

const STATUS: &str = "/var/lib/dpkg/status";
const LISTS: &str = "/var/lib/apt/lists";
/// Bytes of dpkg's status: a desktop has 6 MB; the largest that we know, a build farm's, 20 MB.
const STATUS_BYTES_MAX: u64 = 32 << 20;
/// Bytes of one list, as kept and unpacked: Debian's main has 55 MB unpacked, its security 2 MB.
const LIST_BYTES_MAX: u64 = 64 << 20;
/// A line: the longest are dependencies, of some ten KiB.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Memory that an .xz file may ask for; `xz -9` takes 65 MiB.
const XZ_MEMORY_KIB_MAX: u32 = 80 << 10;
/// Window that a .zst file may ask for (RFC 8878 recommends 8 MiB to be supported).
const ZSTD_WINDOW_BYTES_MAX: u64 = 8 << 20;

/// Installed packages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Installed {
    /// By name, for each architecture.
    packages: HashMap<String, Vec<Package>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    architecture: String,
    version: String,
}

/// A newer version of something installed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The package, with its architecture unless that is `all`.
    pub package: String,
    /// The version that is offered.
    pub version: String,
}

impl Installed {
    /// Reads dpkg's status; `None` on a system without dpkg.
    pub(super) fn read(root: &Root) -> Result<Option<Self>, Unknown> {
        let Some(stream) = root.stream(STATUS, STATUS_BYTES_MAX)? else { return Ok(None) };
        let path = stream.path().to_owned();
        let mut installed = Self::default();
        let fields = ["Package", "Status", "Architecture", "Version"];
        paragraphs(
            BufReader::new(stream),
            &path,
            fields,
            |[name, status, architecture, version]| {
                // What is half-installed has files, and their holes.
                let state = status.rsplit(' ').next().unwrap_or("");
                if !matches!(state, "not-installed" | "config-files") && !name.is_empty() {
                    let package = Package { architecture, version };
                    installed.packages.entry(name).or_default().push(package);
                }
            },
        )?;
        if installed.packages.is_empty() {
            return Err(Unknown::malformed(STATUS, "lists no installed package"));
        }
        Ok(Some(installed))
    }

    /// The version of a package of any architecture.
    pub(super) fn version(&self, name: &str) -> Option<&str> {
        self.packages.get(name)?.first().map(|package| package.version.as_str())
    }

    /// Names that begin so.
    pub(super) fn names(&self, prefix: &str) -> impl Iterator<Item = &str> {
        self.packages.keys().map(String::as_str).filter(move |name| name.starts_with(prefix))
    }

    /// What the lists of those names offer that is newer than what is installed, sorted.
    pub(super) fn updates(&self, root: &Root, lists: &[String]) -> Result<Vec<Update>, Unknown> {
        let mut updates: HashMap<String, String> = HashMap::new();
        for list in lists {
            let path = Path::new(LISTS).join(list);
            let stream = root.stream(&path, LIST_BYTES_MAX)?;
            let stream = stream.ok_or_else(|| Unknown::absent(&path))?;
            let list = unpacked(BufReader::new(stream), &path)?;
            let fields = ["Package", "Architecture", "Version"];
            paragraphs(list, &path, fields, |[name, architecture, version]| {
                let own = self.packages.get(&name).into_iter().flatten();
                let mut older = own.filter(|own| {
                    let is_same = own.architecture == architecture
                        || own.architecture == "all"
                        || architecture == "all";
                    is_same && compare(&own.version, &version).is_lt()
                });
                if older.next().is_none() {
                    return;
                }
                let package = match architecture.as_str() {
                    "all" => name,
                    architecture => format!("{name}:{architecture}"),
                };
                // A list holds older fixes of the same package too.
                let held = updates.entry(package).or_default();
                if held.is_empty() || compare(held, &version).is_lt() {
                    *held = version;
                }
            })?;
        }
        let mut updates: Vec<Update> =
            updates.into_iter().map(|(package, version)| Update { package, version }).collect();
        updates.sort_unstable();
        Ok(updates)
    }
}

/// Names of the lists of security updates: Debian's come from an archive, Ubuntu's from a pocket,
/// of that name. Each is taken once, in whatever form.
pub(super) fn security_lists(root: &Root) -> Result<Vec<String>, Unknown> {
    let names = root.names(LISTS)?.ok_or_else(|| Unknown::absent(LISTS))?;
    Ok(names
        .into_iter()
        .filter(|name| is_security(name))
        .filter(|name| {
            let extensions = ["_Packages", ".gz", ".xz", ".lz4", ".zst", ".bz2", ".lzma"];
            name.contains("_Packages") && extensions.iter().any(|end| name.ends_with(end))
        })
        .collect())
}

/// Whether a file of the lists is the security archive's.
pub(super) fn is_security(name: &str) -> bool {
    name.contains("-security_") || name.contains("security.debian.org_")
}

fn unpacked<'a>(list: impl BufRead + 'a, path: &Path) -> Result<Box<dyn BufRead + 'a>, Unknown> {
    let extension = path.extension().and_then(|extension| extension.to_str());
    let list: Box<dyn Read + 'a> = match extension {
        None => return Ok(Box::new(list)),
        Some("gz") => Box::new(flate2::bufread::MultiGzDecoder::new(list)),
        Some("lz4") => Box::new(lz4_flex::frame::FrameDecoder::new(list)),
        Some("xz") => Box::new(lzma_rust2::XzReader::new_mem_limit(list, true, XZ_MEMORY_KIB_MAX)),
        Some("zst") => {
            let decoder = ruzstd::decoding::StreamingDecoder::new_with_max_window_size(
                list,
                ZSTD_WINDOW_BYTES_MAX,
            );
            Box::new(decoder.map_err(|error| Unknown::malformed(path, error.to_string()))?)
        }
        // The name of a plain list may hold points: `deb.example_dists_bookworm_main…_Packages`.
        Some(other) if other.ends_with("_Packages") => return Ok(Box::new(list)),
        Some(other) => {
            return Err(Unknown::Unsupported(format!("apt list kept as .{other}")));
        }
    };
    // An archive bomb ends here.
    Ok(Box::new(BufReader::new(list.take(LIST_BYTES_MAX))))
}

/// Calls `take` for each paragraph with the values of the fields, empty where there is none.
fn paragraphs<const N: usize>(
    mut lines: impl BufRead,
    path: &Path,
    fields: [&str; N],
    mut take: impl FnMut([String; N]),
) -> Result<(), Unknown> {
    let mut values: [String; N] = std::array::from_fn(|_| String::new());
    let mut line = Vec::new();
    let mut read_bytes = 0_u64;
    loop {
        line.clear();
        let mut bounded = (&mut lines).take(LINE_BYTES_MAX);
        let read = bounded.read_until(b'\n', &mut line);
        let read = read.map_err(|error| unknown_at(path, &error))? as u64;
        read_bytes += read;
        if read == LINE_BYTES_MAX {
            return Err(Unknown::malformed(path, "has a line of more than 1 MiB"));
        }
        if read_bytes >= LIST_BYTES_MAX {
            let what = PathBuf::from(path).display().to_string();
            return Err(Unknown::TooLarge { what, bytes_max: LIST_BYTES_MAX });
        }
        let text = line.trim_ascii_end();
        if text.is_empty() {
            if !values[0].is_empty() {
                take(std::mem::replace(&mut values, std::array::from_fn(|_| String::new())));
            }
            if read == 0 {
                return Ok(());
            }
            continue;
        }
        if text[0].is_ascii_whitespace() {
            continue;
        }
        let colon = text.iter().position(|byte| *byte == b':');
        let colon = colon.ok_or_else(|| Unknown::malformed(path, "has a line without a field"))?;
        if let Some(field) = fields.iter().position(|field| field.as_bytes() == &text[..colon]) {
            values[field] = String::from_utf8_lossy(text[colon + 1..].trim_ascii()).into_owned();
        }
    }
}

/// Reads bytes as a list kept in this form, for [`super::PARSERS`].
pub(super) fn any_bytes(bytes: &[u8], extension: &str) {
    let path = PathBuf::from(format!("list_Packages{extension}"));
    if let Ok(list) = unpacked(bytes, &path) {
        let _ = paragraphs(list, &path, ["Package", "Architecture", "Version"], |_| {});
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    const LIST: &str = "Package: openssl\nArchitecture: amd64\nVersion: 3.0.15-1~deb12u2\n\n";

    #[track_caller]
    fn reads(extension: &str, packed: &[u8]) {
        let path = PathBuf::from(format!("list_Packages{extension}"));
        let mut names = Vec::new();
        let list = unpacked(packed, &path).unwrap();
        paragraphs(list, &path, ["Package"], |[name]| names.push(name)).unwrap();
        assert_eq!(names, ["openssl"], "{extension}");
    }

    #[test]
    fn a_list_is_read_in_every_form_that_apt_keeps_it_in() {
        reads("", LIST.as_bytes());
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(LIST.as_bytes()).unwrap();
        reads(".gz", &gz.finish().unwrap());
        let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
        lz4.write_all(LIST.as_bytes()).unwrap();
        reads(".lz4", &lz4.finish().unwrap());
        reads(".xz", include_bytes!("samples/list_Packages.xz"));
        reads(".zst", include_bytes!("samples/list_Packages.zst"));
    }

    #[test]
    fn an_unknown_form_is_said_to_be_unsupported() {
        let list = unpacked(&b""[..], Path::new("list_Packages.bz2"));
        assert!(matches!(list.err(), Some(Unknown::Unsupported(_))));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), form in 0..5_usize) {
            let form = ["", ".gz", ".lz4", ".xz", ".zst"][form];
            let path = PathBuf::from(format!("list_Packages{form}"));
            if let Ok(list) = unpacked(bytes.as_slice(), &path) {
                let _ = paragraphs(list, &path, ["Package"], |_| {});
            }
        }
    }
}
