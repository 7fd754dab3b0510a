//! Secrets are planted, and everything that the programs say or show is searched for them: logs at
//! their most talkative, command lines, environments, metrics, page, API, commands, the store and
//! its backup. Needs no root.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_tests::agent::{Agent, AgentPlan};
use haidang_tests::loopback::Loopback;
use haidang_tests::program::Program;
use haidang_tests::wait;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject;

const AGENCY: &str = "01-018";
const DEADLINE: Duration = Duration::from_secs(60);
/// The inner 16 bytes of a P-256 private scalar in PKCS #8: enough to know it by.
const SCALAR: std::ops::Range<usize> = 44..60;

/// A secret and every form in which it could be written.
struct Secret {
    what: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    fn of(what: &'static str, bytes: &[u8]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let spaced: Vec<_> = bytes.iter().map(u8::to_string).collect();
        // Base64 of a part depends on where in the whole it stands; the middle of each is stable.
        let shifted = (0..3).map(|lead| {
            let text = STANDARD_NO_PAD.encode([&vec![0; lead], bytes].concat());
            text.as_bytes()[4..text.len() - 4].to_vec()
        });
        let mut forms: Vec<Vec<u8>> = shifted.collect();
        forms.push(bytes.to_vec());
        forms.push(hex.to_uppercase().into_bytes());
        forms.push(hex.into_bytes());
        forms.push(spaced.join(", ").into_bytes());
        forms.push(URL_SAFE_NO_PAD.encode(bytes).into_bytes());
        forms.push(STANDARD.encode(bytes).into_bytes());
        Self { what, forms }
    }

    fn of_key(what: &'static str, pem: &Path) -> Self {
        let pem = fs::read(pem).unwrap_or_else(|error| panic!("{}: {error}", pem.display()));
        let key = PrivatePkcs8KeyDer::from_pem_slice(&pem).expect("a key");
        Self::of(what, &key.secret_pkcs8_der()[SCALAR])
    }
}

#[track_caller]
fn holds_none(place: &str, said: &[u8], secrets: &[Secret]) {
    // Bytes as characters, one for each: the library's search of texts is fast in any build.
    let as_text = |bytes: &[u8]| bytes.iter().copied().map(char::from).collect::<String>();
    let said = as_text(said);
    for Secret { what, forms } in secrets {
        for form in forms {
            assert!(!said.contains(&as_text(form)), "{place} holds {what}");
        }
    }
}

/// An enrolled agent that logs all it can, and a collector likewise.
async fn talkative() -> (Loopback, AgentPlan, Program, Vec<Secret>) {
    let mut world = Loopback::start(&[AGENCY]).await.unwrap_or_else(|error| panic!("{error:#}"));
    let used = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let unused = world.collector.create_token(AGENCY, 1, "1h").expect("created");
    let plan = world.collector.stop().await.expect("it stops");
    let mut serve = plan.command(&["serve"]);
    let loud = "trace,h2=debug,hyper=debug";
    serve.env("HAIDANG_LOG", loud);
    let collector = Program::start("collector-loud", &mut serve, &plan.directory).expect("started");
    world.collector =
        haidang_tests::collector::Collector::adopt(plan, collector).await.expect("up");

    let agent = world.agent(AGENCY, 0, "agent");
    agent.write_config().expect("written");
    // Refused once, so that refusals are searched too.
    let guess: EnrolmentCode = unused.parse().expect("its own code");
    let wrong = EnrolmentCode { secret: [0x5a; 32].into(), ..guess.clone() };
    let refused = agent.enrol(&wrong.reveal()).expect("started");
    let enrolled = agent.enrol(&used).expect("started");
    assert!(!refused.status.success() && enrolled.status.success());
    let mut run = agent.command(&["run"]);
    run.env("HAIDANG_LOG", loud);
    let program = Program::start("agent-loud", &mut run, &agent.directory).expect("started");
    world.connected(AGENCY).await.unwrap_or_else(|error| panic!("{error:#}"));

    let used: EnrolmentCode = used.parse().expect("its own code");
    let secrets = vec![
        Secret::of("a code that was used", &*used.secret),
        Secret::of("a code that was not used", &*guess.secret),
        Secret::of("a guess", &[0x5a; 32]),
        Secret::of_key("the agent's key", &agent.state_dir().join("identity/key.pem")),
        Secret::of_key("the CA's key", &world.collector.plan.directory.join("state/ca/ca.key")),
    ];
    for output in [refused, enrolled] {
        holds_none("an enrolment", &[output.stdout, output.stderr].concat(), &secrets);
    }
    (world, agent, program, secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_output_of_any_program_holds_a_secret() {
    let (mut world, agent, program, secrets) = talkative().await;
    for target in [
        "/metrics",
        "/",
        "/healthz",
        "/readyz",
        "/api/v1/agencies/01-018",
        "/api/v1/agents",
        "/api/v1/agencies/01-018/agents",
        "/api/v1/agencies/01-018/posture",
        "/api/v1/goals",
        "/api/v1/transitions",
        "/api/v1/agencies/01-018/outages",
    ] {
        let answer = world.collector.web.get(target).await.expect("answered");
        holds_none(target, answer.body.as_bytes(), &secrets);
    }
    let backup = world.collector.plan.directory.join("state/backup.db");
    let backup_path = backup.display().to_string();
    for command in [
        &["token", "list"][..],
        &["agent", "list"],
        &["roster", "show"],
        &["backup", "--to", &backup_path],
    ] {
        let output = world.collector.run(command).expect("started");
        assert!(output.status.success(), "{command:?}");
        holds_none(&command.join(" "), &[output.stdout, output.stderr].concat(), &secrets);
    }
    for command in [&["status", "--json"][..], &["check", "--json"], &["check"]] {
        let output = agent.command(command).stdin(Stdio::null()).output().expect("started");
        holds_none(&command.join(" "), &[output.stdout, output.stderr].concat(), &secrets);
    }
    for pid in [world.collector.process().pid(), program.pid()] {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{file}");
            holds_none(&path, &fs::read(&path).unwrap_or_default(), &secrets);
        }
    }
    // All that is kept, but for the keys themselves.
    for file in files_below(world.directory.path()) {
        let name = file.file_name().unwrap_or_default();
        if name != "key.pem" && name != "ca.key" {
            holds_none(&file.display().to_string(), &fs::read(&file).unwrap_or_default(), &secrets);
        }
    }
    let talked = fs::metadata(program.output()).expect("a log").len();
    assert!(talked > 10_000, "the agent's log has {talked} bytes: it was not talkative");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_is_dumped_nowhere_and_keys_are_their_owners_alone() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let (mut world, agent, program, _) = talkative().await;
    let pids = [world.collector.process().pid(), program.pid()];
    for pid in pids {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable");
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        let core: Vec<_> = core.expect("a limit of cores").split_whitespace().collect();
        assert_eq!(core[4..6], ["0", "0"], "{core:?}");
        // What may not be dumped belongs to root, whoever runs it (proc_pid(5)).
        let owner = fs::metadata(format!("/proc/{pid}/environ")).expect("it runs").uid();
        assert_eq!(owner, 0, "another process of its user may read its memory");
    }
    let keys = [
        agent.state_dir().join("identity/key.pem"),
        world.collector.plan.directory.join("state/ca/ca.key"),
    ];
    for key in &keys {
        let mode = fs::metadata(key).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", key.display());
        fs::set_permissions(key, fs::Permissions::from_mode(0o640)).expect("opened to the group");
    }
    // Neither starts again with a key that others can read, and each says what to do.
    drop(program);
    let collector = world.collector.stop().await.expect("it stops");
    let serve = collector.command(&["serve"]).output().expect("started");
    let serve = String::from_utf8_lossy(&serve.stderr).into_owned();
    assert!(serve.contains("chmod 0600") && serve.contains("ca.key"), "{serve}");
    let run = Agent::start(agent).expect("started");
    let log = run.plan.directory.join("agent.log");
    wait::until("its refusal", DEADLINE, || async {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if said.contains("chmod 600") && said.contains("key.pem") { Ok(()) } else { Err(said) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        let kind = fs::symlink_metadata(&path).expect("it is there").file_type();
        if kind.is_dir() {
            found.extend(files_below(&path));
        } else if kind.is_file() {
            found.push(path);
        }
    }
    found
}
