//! Evidence by a stranger's hand: no bytes make a parser panic, and what the kernel closes to
//! this process is unknown, never pass.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, Outcome, UnknownReason};
use proptest::prelude::*;
use rustix::process::{Gid, Uid};

use crate::config::DEFAULT_STATE_DIR;

use super::finding::{Unknown, reported};
use super::fixtures::cases;
use super::kernel::Kernel;
use super::policy::{Backup, Policy};
use super::root::Root;
use super::{Catalogue, Evidence, Sources, checks};

/// Every parser of bytes in this part, each over the same input.
fn parse_all(bytes: &[u8]) {
    for (_, parse) in super::parsers::all() {
        parse(bytes);
    }
}

/// Words of the formats, so that more of each parser is reached than by bytes alone.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let word = prop::sample::select(vec![
        "Match",
        "Include",
        "PermitRootLogin",
        "AuthenticationMethods",
        "yes",
        "no",
        "\"",
        "'",
        "=",
        ":",
        "\\",
        "\n",
        " ",
        "\t",
        "#",
        "@include",
        "@includedir",
        "auth",
        "password",
        "required",
        "[default=die]",
        "[",
        "]",
        "pam_faillock.so",
        "authfail",
        "preauth",
        "deny=99",
        "minlen=-9",
        "Defaults",
        "!authenticate",
        "ALL",
        "NOPASSWD:",
        "(",
        ")",
        ",",
        "action",
        "type",
        "omfwd",
        "target",
        "@@",
        "@",
        "$IncludeConfig",
        "root",
        "x",
        "0",
        "4294967295",
        "-1",
        " - ",
        "\u{1ef1}",
        "\u{e9}",
        "%",
        ";",
        "/",
        "..",
        "*",
        "01",
        "0100007F:0016",
    ]);
    prop::collection::vec(word, 0..200).prop_map(|words| words.concat().into_bytes())
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
        parse_all(&bytes);
    }

    #[test]
    fn no_words_of_a_format_make_a_parser_panic(bytes in plausible()) {
        parse_all(&bytes);
    }

    #[test]
    fn no_cut_makes_a_parser_panic(
        kind in 0_u8..12,
        fill in any::<u8>(),
        length in 0_usize..1000,
    ) {
        let mut bytes = vec![fill; length];
        if let Some(first) = bytes.first_mut() {
            *first = kind;
        }
        parse_all(&bytes);
        for magic in [&b"LPKSHHRH"[..], b"GVariant"] {
            let mut bytes = magic.to_vec();
            bytes.resize(bytes.len() + length, fill);
            parse_all(&bytes);
        }
    }
}

/// Files as large as are read at all, in the worst shapes that are known. The bound is generous,
/// for a busy machine: each takes a second, a quadratic parser an hour.
#[test]
fn the_largest_files_take_no_quadratic_time() {
    let repeated = |text: &str| text.repeat((1 << 20) / text.len());
    let shapes = [
        "a:x:1:1:::/bin/sh\n",
        "a:*:1:0:9:7:::\n",
        "g:x:1:a,b,c,d\n",
        "\n",
        "\\\n",
        "action(\n",
        "Match all\n",
        "Include *\n",
        "\"",
        "@include a\n",
        "an ALL=NOPASSWD: ALL\n",
        "auth required pam_unix.so\n",
        "1 2 0:1 / / rw - a b\n",
        "[x] ",
    ];
    for shape in shapes {
        let started = std::time::Instant::now();
        parse_all(repeated(shape).as_bytes());
        let took = started.elapsed();
        assert!(took < Duration::from_secs(120), "{shape:?} took {took:?}");
    }
}

/// As nobody, on the files of each fixture that passes, closed to all but root: by the kernel,
/// not by a pretence. What the kernel answers by itself is refused as well.
#[test]
fn what_is_closed_to_nobody_is_unknown_and_never_passes() {
    if !rustix::process::geteuid().is_root() {
        // Only root can make what nobody may not read; tests/run is root.
        return;
    }
    for check in checks().filter(|check| !READS_INODES_ALONE.contains(&check.id)) {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posture");
        let places = cases(&tests.join(check.id.as_str()).join("pass"));
        for root in places.iter().map(|place| place.join("root")).filter(|root| root.exists()) {
            let closed = tempfile::tempdir().unwrap();
            copy_closed(&root, closed.path());
            let (outcome, observed) = as_nobody(check.id, closed.path());
            let denied = Outcome::Unknown(UnknownReason::PermissionDenied);
            assert_eq!(outcome, denied, "{}: {observed}", root.display());
        }
    }
}

/// Whose evidence any user may have: that of an inode, which needs no permission on the file.
const READS_INODES_ALONE: [CheckId; 1] = [CheckId::BackupRecent];

fn as_nobody(id: CheckId, files: &Path) -> (Outcome, String) {
    const NOBODY: u32 = 65_534;
    let judge = || {
        // The credentials of this thread alone: the system call, not the C library's, is made.
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_gid(Gid::from_raw(NOBODY)).unwrap();
        rustix::thread::set_thread_uid(Uid::from_raw(NOBODY)).unwrap();
        let refused = || Unknown::PermissionDenied { what: "kernel".into() };
        let stamp = Backup::Stamp("/var/lib/backup/stamp".into());
        let catalogue = Catalogue::load().unwrap();
        let policy = Policy { backups: vec![stamp], ..Policy::default() };
        let kernel = Kernel::unanswered(&refused());
        let evidence = Evidence::new(Sources {
            root: Root::open(files).unwrap(),
            kernel: &kernel,
            state_dir: Path::new(DEFAULT_STATE_DIR),
            dedicated_prefixes: None,
            policy: &policy,
            catalogue: &catalogue,
            now: SystemTime::now(),
            memory: None,
        });
        let check = checks().find(|check| check.id == id).unwrap();
        reported(&check.judge(&evidence))
    };
    std::thread::scope(|scope| scope.spawn(judge).join().unwrap())
}

/// Directories stay open, files are root's alone.
fn copy_closed(from: &Path, to: &Path) {
    fs::set_permissions(to, Permissions::from_mode(0o755)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            fs::create_dir(&to).unwrap();
            copy_closed(&entry.path(), &to);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), &to).unwrap();
        } else {
            fs::copy(entry.path(), &to).unwrap();
            fs::set_permissions(&to, Permissions::from_mode(0o600)).unwrap();
        }
    }
}
