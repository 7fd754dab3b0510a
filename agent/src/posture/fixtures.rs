//! Fixtures: machines as directories, `agent/tests/posture/<check>/<verdict>/`, or one level
//! deeper when a verdict has several ways. Each holds `root/`, the files, and `fixture.toml`:
//!
//! | key | meaning |
//! |---|---|
//! | `origin` | `captured: <distribution, when>` or `constructed: <document>` |
//! | `now` | the wall clock, RFC 3339; default 2026-11-25T12:00:00Z |
//! | `reason` | label of the reason that must be given, if it matters |
//! | `observed` | what must be contained in what was seen, if it matters |
//! | `[[file]]` | what a repository cannot carry: `path` with `mode` (octal text), `uid`, `gid`, `modified` (RFC 3339), `denied = true` (EACCES on its content) |
//! | `[kernel]` | the kernel's answers, see [`KernelAnswers`]; what is not stated could not be asked |
//! | `dedicated_prefixes` | the agency's prefixes; not stated: a machine without configuration |
//! | `[policy]` | as `[posture]` of the configuration |
//! | `[memory]` | when updates were first seen, see [`Memory`] |
//!
//! `mutations` spoils fixtures that pass, one thing at a time; `machines` has whole machines.
//!
//! A verdict that a check cannot reach has a line in `without_fixture` of its data block instead.

mod machines;
mod mutations;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use haidang_proto::model::posture::{CheckId, Outcome};
use serde::Deserialize;

use crate::config::DEFAULT_STATE_DIR;
use crate::evidence::{Forwarding, Joint, LocalFault, Nat, Surroundings};

use super::finding::{Unknown, reported};
use super::kernel::Kernel;
use super::kernel_audit::AuditStatus;
use super::kernel_clock::{ClockDiscipline, ClockOffset};
use super::listeners::{Listener, Transport};
use super::policy::Policy;
use super::root::{Metadata, Root};
use super::updates::Memory;
use super::{Catalogue, Check, Evidence, Sources, checks};

const VERDICTS: [&str; 4] = ["pass", "fail", "not_applicable", "unknown"];

/// What a repository cannot carry, laid over the files of a fixture.
#[derive(Debug, Default)]
pub(super) struct Overlay(BTreeMap<PathBuf, FileEntry>);

impl Overlay {
    pub(super) fn metadata(&self, path: &Path, real: Metadata) -> Metadata {
        // Checked-out files belong to whoever runs the test; a fixture's belong to root.
        let mut shown = Metadata { uid: 0, gid: 0, ..real };
        if let Some(entry) = self.0.get(&Path::new("/").join(path)) {
            shown.mode = entry.mode.as_deref().map_or(shown.mode, |mode| {
                u32::from_str_radix(mode, 8).expect("mode is octal text")
            });
            shown.uid = entry.uid.unwrap_or(shown.uid);
            shown.gid = entry.gid.unwrap_or(shown.gid);
            shown.modified = entry.modified.map_or(shown.modified, system_time);
        }
        shown
    }

    /// A refusal is for the content; metadata is any user's.
    pub(super) fn permits(&self, path: &Path, only_metadata: bool) -> Result<(), Unknown> {
        let path = Path::new("/").join(path);
        match self.0.get(&path) {
            Some(entry) if entry.denied && !only_metadata => {
                Err(Unknown::PermissionDenied { what: path.display().to_string() })
            }
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileEntry {
    path: PathBuf,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    modified: Option<jiff::Timestamp>,
    #[serde(default)]
    denied: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fixture {
    origin: String,
    #[serde(default = "usual_now")]
    now: jiff::Timestamp,
    reason: Option<String>,
    observed: Option<String>,
    #[serde(default)]
    file: Vec<FileEntry>,
    #[serde(default)]
    kernel: KernelAnswers,
    dedicated_prefixes: Option<Vec<ipnet::IpNet>>,
    #[serde(default)]
    policy: Policy,
    memory: Option<Memory>,
}

fn usual_now() -> jiff::Timestamp {
    "2026-11-25T12:00:00Z".parse().expect("a date")
}

fn system_time(stated: jiff::Timestamp) -> SystemTime {
    let seconds = u64::try_from(stated.as_second()).expect("fixtures are not older than 1970");
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The kernel's answers as a fixture states them.
#[derive(Debug, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct KernelAnswers {
    /// A file beside `fixture.toml` with the raw dumps of tables, chains and rules; or
    /// `permission_denied`.
    netfilter: Option<String>,
    /// `tcp 0.0.0.0 22`.
    listeners: Option<Vec<String>>,
    /// Kernel indices.
    advertised_routes: Option<Vec<u32>>,
    surroundings: Option<SurroundingsEntry>,
    clock: Option<ClockAnswer>,
    /// Milliseconds ahead of the collector, at least and at most.
    collector_clock: Option<[i64; 2]>,
    audit: Option<AuditAnswer>,
}

/// `clock = { synchronised = true, error_ms = 3 }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockAnswer {
    synchronised: bool,
    error_ms: u64,
}

/// `audit = { enabled = true, daemon = true }`, or `audit = { denied = true }`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditAnswer {
    #[serde(default)]
    enabled: bool,
    #[serde(default)]
    daemon: bool,
    #[serde(default)]
    denied: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SurroundingsEntry {
    others: Vec<String>,
    #[serde(default)]
    joints: Vec<JointEntry>,
    #[serde(default)]
    unread: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", deny_unknown_fields)]
enum JointEntry {
    Bridge { with: String },
    Forwarding { with: String },
}

impl KernelAnswers {
    fn kernel(self, place: &Path) -> Kernel {
        let Self {
            netfilter,
            listeners,
            advertised_routes,
            surroundings,
            clock,
            collector_clock,
            audit,
        } = self;
        let not_stated = || Unknown::Unsupported("not stated by the fixture".into());
        let netfilter = match netfilter.as_deref() {
            Some("permission_denied") => {
                Err(Unknown::PermissionDenied { what: "nftables tables".into() })
            }
            Some(file) => super::netfilter::parse(&std::fs::read(place.join(file)).unwrap()),
            None => Err(not_stated()),
        };
        let surroundings = surroundings.map(|SurroundingsEntry { others, joints, unread }| {
            let joints = joints.into_iter().map(|joint| match joint {
                JointEntry::Bridge { with } => Joint::Bridge { bridge: "br0".into(), with },
                JointEntry::Forwarding { with } => {
                    let forwarding = Forwarding { v4: true, v6: false };
                    Joint::Forwarding { with, forwarding }
                }
            });
            Surroundings {
                other_routed_interfaces: others,
                forwarding: Forwarding::default(),
                joints: joints.collect(),
                nat: Nat::Absent,
                unread: unread.into_iter().map(LocalFault).collect(),
            }
        });
        Kernel {
            surroundings: surroundings.ok_or_else(not_stated),
            netfilter,
            listeners: listeners
                .map(|lines| lines.iter().map(|line| listener(line)).collect())
                .ok_or_else(not_stated),
            advertised_routes: advertised_routes.ok_or_else(not_stated),
            clock: clock.ok_or_else(not_stated).map(|clock| ClockDiscipline {
                is_synchronised: clock.synchronised,
                error_max: Duration::from_millis(clock.error_ms),
            }),
            collector_clock: collector_clock
                .map(|[least_ms, most_ms]| ClockOffset { least_ms, most_ms }),
            audit: audit.ok_or_else(not_stated).and_then(|audit| {
                let AuditAnswer { enabled, daemon, denied } = audit;
                if denied {
                    return Err(Unknown::PermissionDenied { what: "audit status".into() });
                }
                Ok(AuditStatus { is_enabled: enabled, has_daemon: daemon })
            }),
        }
    }
}

#[track_caller]
fn listener(line: &str) -> Listener {
    let [transport, address, port] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{line:?} is no transport, address and port");
    };
    let transport = match transport {
        "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        other => panic!("{other:?} is no transport"),
    };
    Listener { transport, address: address.parse().unwrap(), port: port.parse().unwrap() }
}

fn place(check: &Check, verdict: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posture");
    tests.join(check.id.as_str()).join(verdict)
}

/// The fixtures of a verdict: its directory, or the directories in it.
pub(super) fn cases(place: &Path) -> Vec<PathBuf> {
    if place.join("fixture.toml").exists() {
        return vec![place.into()];
    }
    let entries = std::fs::read_dir(place).into_iter().flatten();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    cases
}

fn table(place: &Path) -> toml::Table {
    let file = place.join("fixture.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Makes a check on a machine: what `fixture.toml` says, the files that stand beside it, and
/// those of the root.
fn judged(
    check: &Check,
    fixture: Fixture,
    place: &Path,
    files: &Path,
    catalogue: &Catalogue,
) -> (Outcome, String) {
    let overlay = fixture.file.into_iter().map(|entry| (Path::new("/").join(&entry.path), entry));
    let kernel = fixture.kernel.kernel(place);
    let evidence = Evidence::new(Sources {
        root: Root::open(files).unwrap().with_overlay(Overlay(overlay.collect())),
        kernel: &kernel,
        state_dir: Path::new(DEFAULT_STATE_DIR),
        dedicated_prefixes: fixture.dedicated_prefixes.as_deref(),
        policy: &fixture.policy,
        catalogue,
        now: system_time(fixture.now),
        memory: fixture.memory.as_ref(),
    });
    reported(&check.judge(&evidence))
}

#[track_caller]
fn play(check: &Check, verdict: &str, place: &Path, catalogue: &Catalogue) {
    let fixture: Fixture =
        table(place).try_into().unwrap_or_else(|error| panic!("{}: {error}", place.display()));
    let is_stated = ["captured: ", "constructed: "]
        .iter()
        .any(|kind| fixture.origin.strip_prefix(kind).is_some_and(|rest| rest.len() > 8));
    assert!(is_stated, "{}: origin does not say where it is from", place.display());

    // A machine without any file of interest is an empty directory, which no repository carries.
    let empty = tempfile::tempdir().unwrap();
    let files = place.join("root");
    let files = if files.exists() { files.as_path() } else { empty.path() };
    let (expected_reason, expected) = (fixture.reason.clone(), fixture.observed.clone());
    let (outcome, observed) = judged(check, fixture, place, files, catalogue);
    let (reason, place) = (outcome.reason().as_str(), place.display());
    assert_eq!(outcome.as_str(), verdict, "{place}: {reason}: {observed}");
    assert!(!observed.is_empty(), "{place}: nothing was seen");
    if let Some(expected) = expected_reason {
        assert_eq!(reason, expected, "{place}: {observed}");
    }
    if let Some(expected) = expected {
        assert!(observed.contains(&expected), "{place}: saw {observed:?}");
    }
}

#[test]
fn every_check_reaches_each_verdict_on_a_fixture_or_says_why_it_cannot() {
    let catalogue = Catalogue::load().unwrap();
    for check in checks() {
        let entry = catalogue.entry(check.id).expect("a check has its data block");
        for verdict in VERDICTS {
            let place = place(check, verdict);
            let cases = cases(&place);
            let excuse = entry.without_fixture.get(verdict);
            let shown = place.display();
            assert!(excuse.is_none_or(|why| why.len() > 20), "{shown}: say why there is none");
            assert_eq!(cases.is_empty(), excuse.is_some(), "{shown}: a fixture, or the reason");
            for case in cases {
                play(check, verdict, &case, &catalogue);
            }
        }
        for verdict in entry.without_fixture.keys() {
            assert!(VERDICTS.contains(&verdict.as_str()), "{}: {verdict}", check.id);
        }
    }
}

#[test]
fn every_directory_of_fixtures_belongs_to_a_check() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posture");
    for entry in std::fs::read_dir(tests).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(checks().any(|check| check.id.as_str() == name), "{name}");
    }
}

#[test]
fn a_check_is_in_one_domain_and_has_one_data_block() {
    let blocks: Vec<_> = super::DOMAINS
        .iter()
        .flat_map(|domain| super::catalogue::parse(domain.catalogue).unwrap())
        .collect();
    let mut described: Vec<CheckId> = blocks.iter().map(|entry| entry.id).collect();
    let mut made: Vec<CheckId> = checks().map(|check| check.id).collect();
    described.sort();
    made.sort();
    assert_eq!(described, made);
    made.dedup();
    assert_eq!(described, made);
}

#[test]
fn what_is_said_of_a_check_is_said_in_both_languages() {
    use crate::language::Language;
    let catalogue = Catalogue::load().unwrap();
    for check in checks() {
        let entry = catalogue.entry(check.id).unwrap();
        for text in [&entry.title, &entry.why, &entry.remedy] {
            let (vi, en) = (text.text(Language::Vi), text.text(Language::En));
            assert!(!vi.trim().is_empty() && !en.trim().is_empty(), "{}", check.id);
            assert!(en.is_ascii(), "{}: {en}", check.id);
            let is_combining = |c: &char| ('\u{300}'..='\u{36f}').contains(c);
            assert_eq!(vi.chars().find(is_combining), None, "{}: {vi}", check.id);
        }
        let title = entry.title.text(Language::Vi).chars().count();
        assert!(title <= 60, "{}: the title has {title} columns", check.id);
        assert!(!entry.mappings.is_empty(), "{}: no mapping", check.id);
        for mapping in &entry.mappings {
            let known = ["cis_controls", "tcvn_14423", "tcvn_11930", "ssg", "lynis"];
            assert!(known.contains(&mapping.standard.as_str()), "{}", mapping.standard);
            assert!(!mapping.edition.is_empty() && !mapping.control.is_empty(), "{}", check.id);
        }
    }
}

/// Checks that meet a clock or a file from another time must not panic.
#[test]
fn no_clock_makes_a_check_panic() {
    let catalogue = Catalogue::load().unwrap();
    let policy = Policy::default();
    let empty = tempfile::tempdir().unwrap();
    let kernel = KernelAnswers::default().kernel(empty.path());
    for now in [SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33)] {
        let evidence = Evidence::new(Sources {
            root: Root::open(empty.path()).unwrap(),
            kernel: &kernel,
            state_dir: Path::new(DEFAULT_STATE_DIR),
            dedicated_prefixes: None,
            policy: &policy,
            catalogue: &catalogue,
            now,
            memory: None,
        });
        for check in checks() {
            let (outcome, observed) = reported(&check.judge(&evidence));
            assert_ne!(outcome.as_str(), "pass", "{}: {observed} of nothing", check.id);
        }
    }
}
