//! What a machine is judged by, seen from each privilege: the readers behind really activated
//! sockets, with one capability each; nobody, with none; root. And a file system that never
//! answers. Needs root, and Debian's `systemd` for `systemd-socket-activate`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use haidang_agent::posture::catalogue::Privilege;
use haidang_agent::posture::pass::Guidance;
use haidang_agent::posture::{Catalogue, checks};
use haidang_proto::model::posture::CheckId;
use haidang_tests::binaries::Binaries;
use haidang_tests::netns::{self, Netns};
use haidang_tests::program::{NOBODY, Program};
use haidang_tests::wait;
use serde_json::Value;

/// The group of the agent, which may ask the readers, and their user: of no account here.
const AGENT_GID: u32 = 61_743;
const READER_UID: u32 = 61_744;
/// A socket unit's socket is there at once; a busy machine takes longer.
const SOCKET_DEADLINE: Duration = Duration::from_secs(20);
/// What nftables refuses packets with.
const CLOSED: &str =
    "table inet guard { chain in { type filter hook input priority 0; policy drop; }; }\n";
/// Rules that let in what they do not know.
const OPEN: &str = "flush ruleset\ntable inet guard { chain in { type filter hook input priority 0; policy accept; }; }\n";

/// Verdict and reason of each check.
type Answers = BTreeMap<String, (String, String)>;

/// The programs, a configuration, and a place for sockets.
struct Place {
    directory: tempfile::TempDir,
    agent: PathBuf,
    netns: Netns,
}

impl Place {
    fn new() -> Self {
        netns::prepare().unwrap_or_else(|error| panic!("{error:#}"));
        let directory = tempfile::tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("open");
        let found = Binaries::find().unwrap_or_else(|error| panic!("{error:#}"));
        let agent = found.copy_to(directory.path()).expect("copied").agent;
        let netns = Netns::create(format!("{}r", netns::unique_prefix())).expect("a namespace");
        let place = Self { directory, agent, netns };
        // From level 3 on the kernel's auditing is asked for, which takes a capability.
        let config = format!(
            "[dedicated]\ninterface = {{ name = \"lo\" }}\nlocal_prefixes = [\"198.18.10.0/24\"]\n\
             network_prefixes = [\"198.18.0.0/16\"]\n\n\
             [readers]\nnetfilter_socket = {:?}\nposture_socket = {:?}\n\n\
             [posture]\nthresholds.audit_logging_active.security_level = 3\n",
            place.socket("netfilter"),
            place.socket("posture"),
        );
        fs::write(place.config(), config).expect("written");
        place
    }

    fn config(&self) -> PathBuf {
        self.directory.path().join("agent.toml")
    }

    fn socket(&self, reader: &str) -> PathBuf {
        self.directory.path().join(format!("{reader}.sock"))
    }

    /// A command as a user of a group, with the capability, or none.
    fn command(&self, (uid, gid): (u32, u32), capability: Option<&str>) -> Command {
        let mut command = self.netns.command("setpriv");
        command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--clear-groups"]);
        let set = capability.map_or("-all".into(), |capability| format!("-all,+{capability}"));
        command.arg(format!("--inh-caps={set}")).arg(format!("--bounding-set={set}"));
        if capability.is_some() {
            command.arg(format!("--ambient-caps={set}"));
        }
        command.args(["--no-new-privs"]).arg(&self.agent);
        command
    }

    /// Starts a reader as its socket unit does: a process for each connection, which it has as
    /// standard input; the socket is root's and the agent's group's.
    async fn start(&self, reader: &str, capability: &str) -> Program {
        let path = self.socket(reader);
        let reading = self.command((READER_UID, AGENT_GID), Some(capability));
        let mut command = Command::new("systemd-socket-activate");
        command.args(["--accept", "--inetd", "-l"]).arg(&path);
        command.arg(reading.get_program()).args(reading.get_args());
        command.args(["read", reader, "--config"]).arg(self.config());
        let program = Program::start(reader, &mut command, self.directory.path()).expect("started");
        let listens = || std::future::ready(fs::metadata(&path).map_err(|error| error.to_string()));
        wait::until("the socket", SOCKET_DEADLINE, listens).await.expect("it listens");
        chown(&path, Some(0), Some(AGENT_GID)).expect("given to the group");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660))
            .expect("and closed to others");
        program
    }

    /// What `check` answers to a user of a group without any capability.
    fn check_as(&self, uid: u32, gid: u32) -> Answers {
        let mut command = self.command((uid, gid), None);
        answers(command.args(["check", "--json", "--config"]).arg(self.config()))
    }

    fn check_as_root(&self) -> Answers {
        let mut command = self.netns.command(self.agent.to_str().expect("text"));
        answers(command.args(["check", "--json", "--config"]).arg(self.config()))
    }
}

#[track_caller]
fn answers(command: &mut Command) -> Answers {
    let output = command.stdin(Stdio::null()).output().expect("started");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{command:?}: {error}: {}", String::from_utf8_lossy(&output.stderr))
    });
    let posture = document["posture"].as_array().expect("the checks");
    let text = |answer: &Value, key: &str| answer[key].as_str().expect("text").to_owned();
    posture
        .iter()
        .map(|answer| (text(answer, "check"), (text(answer, "verdict"), text(answer, "reason"))))
        .collect()
}

#[track_caller]
fn firewall(answers: &Answers) -> (&str, &str) {
    let (verdict, reason) = &answers[CheckId::HostFirewallActive.as_str()];
    (verdict, reason)
}

#[tokio::test]
async fn the_kernels_rules_are_judged_through_the_socket_and_by_the_agents_group_alone() {
    let place = Place::new();
    let nobody = || place.check_as(NOBODY, AGENT_GID);
    assert_eq!(firewall(&nobody()), ("unknown", "permission_denied"), "there is no reader");

    let reader = place.start("netfilter", "net_admin").await;
    place.netns.nft(CLOSED).expect("loaded");
    assert_eq!(firewall(&nobody()).0, "pass", "{}", reader.last_lines());
    // Whether iptables-legacy filters instead is in a file that is closed to nobody.
    place.netns.nft(OPEN).expect("loaded");
    assert_eq!(firewall(&nobody()), ("unknown", "permission_denied"));
    place.netns.nft("flush ruleset\n").expect("flushed");
    assert_eq!(firewall(&nobody()), ("unknown", "permission_denied"));

    place.netns.nft(CLOSED).expect("loaded");
    let stranger = || place.check_as(NOBODY, NOBODY);
    assert_eq!(firewall(&stranger()), ("unknown", "permission_denied"), "the mode refuses");
    let everybody = fs::Permissions::from_mode(0o666);
    fs::set_permissions(place.socket("netfilter"), everybody).expect("opened to everybody");
    assert_eq!(firewall(&stranger()).0, "unknown", "the reader refuses where the mode does not");
    assert!(reader.last_lines().contains("may not ask"), "{}", reader.last_lines());
    reader.stop().await.expect("stopped");
}

#[tokio::test]
async fn a_reader_without_its_capability_says_so_and_nothing_passes() {
    let place = Place::new();
    place.netns.nft(CLOSED).expect("loaded");
    let reader = place.start("netfilter", "dac_read_search").await;
    let answers = place.check_as(NOBODY, AGENT_GID);
    assert_eq!(firewall(&answers), ("unknown", "permission_denied"), "{}", reader.last_lines());
    reader.stop().await.expect("stopped");
}

/// Asks the posture reader as the agent does.
/// Asks for checks by name, under what an agent without a collector knows.
fn told(socket: &Path, names: &str) -> Option<Answers> {
    let guidance = serde_json::to_string(&Guidance::default()).expect("a value");
    let question = format!("{guidance}\n{names}");
    let mut stream = UnixStream::connect(socket).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(150))).expect("set");
    stream.write_all(question.as_bytes()).expect("asked");
    stream.shutdown(Shutdown::Write).expect("asked");
    let mut frame = Vec::new();
    // What is left unread when the reader ends resets the connection.
    stream.read_to_end(&mut frame).ok()?;
    let json: Value = serde_json::from_slice(frame.get(4..)?).expect("JSON behind its length");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let answers = json["answers"].as_array().expect("answers").iter().map(|answer| {
        let outcome = &answer["outcome"];
        (text(&answer["check"]), (text(&outcome["verdict"]), text(&outcome["reason"])))
    });
    Some(answers.collect())
}

#[tokio::test]
async fn the_readers_with_one_capability_each_say_what_root_says() {
    let place = Place::new();
    place.netns.nft(CLOSED).expect("loaded");
    let netfilter = place.start("netfilter", "net_admin").await;
    let posture = place.start("posture", "dac_read_search").await;
    let every: String = checks().map(|check| format!("{}\n", check.id)).collect();
    let socket = place.socket("posture");
    let told_all = told(&socket, &every).unwrap_or_else(|| panic!("{}", posture.last_lines()));
    let by_root = place.check_as_root();
    for (check, answer) in &by_root {
        let told = &told_all[check];
        // Neither reader has CAP_AUDIT_CONTROL.
        if check == CheckId::AuditLoggingActive.as_str() {
            assert_eq!((told.0.as_str(), told.1.as_str()), ("unknown", "permission_denied"));
        } else {
            assert_eq!(told, answer, "{check}");
        }
    }
    assert_eq!(told_all.len(), by_root.len());
    assert_eq!(firewall(&told_all).0, "pass");
    let told_firewall = || told(&socket, "host_firewall_active\n").expect("answered");
    place.netns.nft(OPEN).expect("loaded");
    assert_eq!(firewall(&told_firewall()), ("fail", "weak_value"));
    place.netns.nft("flush ruleset\n").expect("flushed");
    assert_eq!(firewall(&told_firewall()), ("fail", "absent"));
    assert_eq!(told(&socket, "no_such_check\n"), None, "nonsense is answered with nothing");
    assert_eq!(told(&socket, &every.repeat(40)), None, "and so is too long a question");
    for reader in [posture, netfilter] {
        reader.stop().await.expect("stopped");
    }
}

#[test]
fn nobody_passes_nothing_that_takes_a_privilege_and_differs_from_root_by_refusals_only() {
    let place = Place::new();
    place.netns.nft(CLOSED).expect("loaded");
    let (by_nobody, by_root) = (place.check_as(NOBODY, NOBODY), place.check_as_root());
    let catalogue = Catalogue::load().expect("the catalogue");
    let mut refused = 0;
    for check in checks() {
        let privilege = catalogue.entry(check.id).expect("described").privilege;
        let (nobody, root) = (&by_nobody[check.id.as_str()], &by_root[check.id.as_str()]);
        let is_refused = nobody.1 == "permission_denied";
        refused += usize::from(is_refused);
        assert!(is_refused || nobody == root, "{}: {nobody:?}, root {root:?}", check.id);
        if privilege != Privilege::None {
            assert_ne!(nobody.0, "pass", "{} takes {privilege:?}", check.id);
        }
    }
    assert_eq!(firewall(&by_root).0, "pass");
    assert_eq!(firewall(&by_nobody), ("unknown", "permission_denied"));
    assert!(refused >= 3, "shadow, nftables and audit are closed to nobody: {by_nobody:?}");
}

/// A FUSE whose server has the device open and reads nothing: every look below `/var/lib/apt` waits
/// in the kernel.
#[test]
fn a_file_system_that_never_answers_costs_its_own_checks_and_no_other() {
    let place = Place::new();
    let sound = place.check_as_root();
    let script = "exec 9<>/dev/fuse && \
        mount -i -t fuse -o fd=9,rootmode=40000,user_id=0,group_id=0 hung /var/lib/apt && \
        exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    let inside = place.netns.command(place.agent.to_str().expect("text"));
    // `ip netns exec` mounts /sys anew, which a hanging mount does not hinder.
    command.arg(inside.get_program()).args(inside.get_args());
    let hung = answers(command.args(["check", "--json", "--config"]).arg(place.config()));
    let timeout = ("unknown".to_owned(), "timeout".to_owned());
    assert_eq!(hung[CheckId::UpdateMetadataFresh.as_str()], timeout);
    for (check, answer) in &sound {
        let is_the_same = hung[check] == *answer;
        assert!(is_the_same || hung[check] == timeout, "{check}: {:?}", hung[check]);
    }
    let late = hung.values().filter(|answer| **answer == timeout).count();
    assert!(late <= 3, "{late} checks waited for /var/lib/apt");
}
