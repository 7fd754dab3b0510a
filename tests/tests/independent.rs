//! Another implementation of gRPC against a real collector: grpcio, with stubs that grpcio-tools
//! makes from the .proto of this moment (`tests/python/grpc_client.py`). What an agent of other
//! hands would see, well and badly. Needs no root.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use haidang_proto::model::enrolment_code::EnrolmentCode;
use haidang_tests::binaries::repository;
use haidang_tests::collector::{AgencySeen, free_port};
use haidang_tests::loopback::Loopback;
use haidang_tests::peer::{Authority, Terms};
use haidang_tests::python;
use haidang_tests::tcp_tap::TcpTap;
use haidang_tests::tls_wire::Greetings;
use haidang_tests::wait;
use rusqlite::Connection;
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use uuid::Uuid;

const AGENCY: &str = "01-018";
const OTHER: &str = "01-001";
/// Inside the prefix of [`AGENCY`]: grpcio cannot choose its source address, a relay does.
const INSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 66));
/// One case, a thousand reports on a busy machine included.
const DEADLINE: Duration = Duration::from_secs(60);

/// A collector, and a machine that speaks by grpcio.
struct World {
    loopback: Loopback,
    ways: [TcpTap; 2],
    _machine: Child,
    cases: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

/// How a call ended for the client.
#[derive(Debug, Deserialize)]
struct Told {
    code: String,
    reason: Option<String>,
    /// A sentence for people.
    details: Option<String>,
    #[serde(default)]
    answer: Value,
}

/// What one scrape says.
#[derive(Debug)]
struct Seen {
    /// Of the machine's agency, and of the other.
    states: [String; 2],
    refusals: BTreeMap<String, u64>,
    reports: u64,
    /// Of the dedicated listener.
    connections: u64,
}

impl Seen {
    /// The machine's agency is connected, and nobody has spoken for the other.
    fn is_calm(&self) -> bool {
        self.states == ["connected", "not_enrolled"]
    }

    fn refused_since(&self, before: &Self) -> Vec<&str> {
        let grown =
            self.refusals.iter().filter(|(reason, count)| **count > before.refusals[*reason]);
        grown.map(|(reason, _)| &**reason).collect()
    }
}

impl World {
    /// Starts both, and enrols the machine.
    async fn start() -> Self {
        let loopback = Loopback::start(&[AGENCY, OTHER]).await;
        let loopback = loopback.unwrap_or_else(|error| panic!("{error:#}"));
        let plan = &loopback.collector.plan;
        let through = async |to: SocketAddr| {
            TcpTap::start(free_port(INSIDE).expect("a port"), to, Some(INSIDE))
                .await
                .expect("a tap")
        };
        let ways = [through(plan.dedicated[0]).await, through(plan.enrolment).await];

        let directory = loopback.directory.path();
        let code = loopback.collector.create_token(AGENCY, 1, "1h").expect("created");
        let code: EnrolmentCode = code.parse().expect("its own code");
        let foreign = Authority::foreign().expect("a key");
        let foreign = foreign.issue(&Terms::of(AGENCY, Uuid::new_v4())).expect("signed").pem();
        for (name, text) in [("foreign.pem", &foreign.0), ("foreign.key", &foreign.1)] {
            fs::write(directory.join(name), text).expect("written");
        }
        let token_secret: String = code.secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let place = json!({
            "reporting": ways[0].address.to_string(),
            "enrolment": ways[1].address.to_string(),
            "name": plan.dedicated[0].ip().to_string(),
            "ca": plan.directory.join("state/ca/ca.pem"),
            "token_id": code.token_id,
            "token_secret": token_secret,
            "foreign_chain": directory.join("foreign.pem"),
            "foreign_key": directory.join("foreign.key"),
            "other_agency": OTHER,
        });
        let place_path = directory.join("place.json");
        fs::write(&place_path, place.to_string()).expect("written");

        let python = python::interpreter().unwrap_or_else(|error| panic!("{error:#}"));
        let mut stubs = Command::new(&python);
        stubs.args(["-m", "grpc_tools.protoc", "-I"]).arg(repository("proto/proto"));
        stubs.arg(format!("--python_out={}", directory.display()));
        stubs.arg(format!("--grpc_python_out={}", directory.display()));
        let made = stubs.arg("haidang/v1/haidang.proto").status().expect("started");
        assert!(made.success(), "the .proto is taken by grpcio-tools");
        let mut machine = tokio::process::Command::new(&python)
            .arg("-B")
            .arg(repository("tests/python/grpc_client.py"))
            .arg(place_path)
            .env("PYTHONPATH", directory)
            // What it does badly it would complain about.
            .env("GRPC_VERBOSITY", "NONE")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("started");
        let cases = machine.stdin.take().expect("piped");
        let answers = BufReader::new(machine.stdout.take().expect("piped")).lines();
        let mut world = Self { loopback, ways, _machine: machine, cases, answers };
        assert_eq!(world.does("enrol").await["agencyId"], AGENCY);
        world
    }

    async fn case(&mut self, name: &str) -> Told {
        self.cases.write_all(format!("{name}\n").as_bytes()).await.expect("it listens");
        let line = tokio::time::timeout(DEADLINE, self.answers.next_line()).await;
        let line = line.expect("answered in time").expect("read").expect("it has not ended");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"))
    }

    /// A case that goes well, and its answer.
    async fn does(&mut self, name: &str) -> Value {
        let Told { code, reason, details, answer } = self.case(name).await;
        assert_eq!(code, "OK", "{name}: {reason:?}: {details:?}");
        answer
    }

    async fn seen(&self) -> Seen {
        let metrics = self.loopback.collector.metrics().await.expect("metrics");
        let sum = |name, labels: &[_]| {
            metrics.find(name, labels).map(|sample| sample.value as u64).sum::<u64>()
        };
        let refusals = metrics.find("haidang_collector_rejected_total", &[]);
        let refusals =
            refusals.map(|sample| (sample.labels["reason"].clone(), sample.value as u64));
        let state = |agency| AgencySeen::read(&metrics, agency).expect("one state").state;
        Seen {
            states: [state(AGENCY), state(OTHER)],
            refusals: refusals.collect(),
            reports: sum("haidang_collector_reports_total", &[]),
            connections: sum("haidang_collector_connections", &[("listener", "dedicated")]),
        }
    }

    /// Reports, again and again, until what is seen has this.
    async fn reports_until(&mut self, awaited: &str, has: impl Fn(&Seen) -> bool) -> Seen {
        let started = Instant::now();
        loop {
            self.does("report").await;
            let seen = self.seen().await;
            if has(&seen) {
                return seen;
            }
            assert!(started.elapsed() < DEADLINE, "{awaited} does not come: {seen:?}");
        }
    }

    /// Waits until the API shows this.
    async fn shows(&self, path: &str, text: &str) {
        let waited = wait::until(text, DEADLINE, || async {
            let shown = self.api(path).await;
            if shown.contains(text) { Ok(()) } else { Err(shown) }
        });
        waited.await.unwrap_or_else(|error| panic!("{error:#}"));
    }

    async fn api(&self, path: &str) -> String {
        self.loopback.collector.web.text(path).await.unwrap_or_else(|error| panic!("{error:#}"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_implementation_is_served_as_our_own_agents_are() {
    let mut world = World::start().await;
    let first = world.does("report").await;
    assert!(first["settings"]["reportIntervalMs"].is_number(), "{first}");
    assert!(first["trustBundle"]["rootsDer"].is_array(), "{first}");
    let second = world.does("report").await;
    assert_eq!((&second["settings"], &second["trustBundle"]), (&Value::Null, &Value::Null));
    let first = world.reports_until("a connected agency", Seen::is_calm).await;

    // Twice the same two records: both times both are durable.
    for _ in 0..2 {
        assert_eq!(world.does("deliver").await["acknowledgedSeq"], "2");
    }
    let agents = world.api(&format!("/api/v1/agencies/{AGENCY}/agents")).await;
    let agents: Value = serde_json::from_str(&agents).expect("JSON");
    let agent = &agents["items"][0];
    assert_eq!(agent["report"]["agent_version"], "independent", "{agents}");
    let id = agent["id"].as_str().expect("an id");
    world.shows(&format!("/api/v1/agents/{id}/posture"), "told by another implementation").await;

    // Whoever else it says it is, it is its certificate's agency.
    world.does("claim_another_agency").await;
    world.does("renew").await;
    let last = world.reports_until("a connected agency", Seen::is_calm).await;
    assert!(last.reports > first.reports + 1, "{last:?}");
    assert_eq!(last.refusals.values().sum::<u64>(), 0, "nothing was refused: {last:?}");
    world.does("goodbye").await;
    let stopped = "\"stopped\":\"shutdown\"";
    world.shows(&format!("/api/v1/agencies/{AGENCY}/agents"), stopped).await;
    // Its TLS is BoringSSL's: two libraries agree on the post-quantum group.
    for one in world.ways[0].conversations() {
        let greetings = Greetings::read(&one).unwrap_or_else(|error| panic!("{error:#}"));
        assert!(greetings.are_post_quantum(), "{greetings:?}");
    }
    let plan = world.loopback.collector.stop().await.unwrap_or_else(|error| panic!("{error:#}"));
    let store = Connection::open(plan.directory.join("state/collector.db")).expect("its store");
    let kept = store.query_row("SELECT count(*) FROM records", [], |row| row.get::<_, i64>(0));
    assert_eq!(kept.expect("a count"), 2, "what was delivered twice is there once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_implementation_does_badly_is_refused_by_its_status_and_changes_nothing() {
    let mut world = World::start().await;
    // What the client is told, and what the collector counts.
    let cases = [
        ("no_certificate", "UNAVAILABLE", "no_certificate"),
        ("foreign_certificate", "UNAVAILABLE", "handshake"),
        ("unknown_enum", "INVALID_ARGUMENT", "malformed"),
        ("truncated", "INTERNAL", "malformed"),
        ("oversized", "RESOURCE_EXHAUSTED", "too_large"),
        ("compressed", "UNIMPLEMENTED", "malformed"),
        ("wrong_method", "UNIMPLEMENTED", "malformed"),
        ("wrong_service", "UNIMPLEMENTED", "malformed"),
        // It ends the connection; the next call makes another.
        ("huge_metadata", "UNAVAILABLE", "http2"),
    ];
    let mut before = world.reports_until("a connected agency", Seen::is_calm).await;
    for (case, code, reason) in cases {
        let told = world.case(case).await;
        assert_eq!(told.code, code, "{case}: {told:?}");
        // What never came to a request has no reason of ours.
        let is_named = told.reason.as_deref() == Some(reason) || code == "UNAVAILABLE";
        assert!(is_named, "{case}: {told:?}");
        // A connection's end is counted a moment after the client has seen it.
        let counted = |seen: &Seen| seen.is_calm() && seen.refused_since(&before) == [reason];
        before = world.reports_until(&format!("{case} as {reason} alone"), counted).await;
    }

    // While the collector hangs, the deadline is the client's; what it heard of it changes nothing.
    let process = world.loopback.collector.process();
    process.signal(Signal::STOP).expect("it runs");
    let status = format!("/proc/{}/status", process.pid());
    wait::until("a collector that hangs", DEADLINE, || {
        // The thread that takes the signal may have to wait for a core first.
        let status = fs::read_to_string(&status).expect("it is there");
        let is_stopped = status.contains("State:\tT");
        std::future::ready(if is_stopped { Ok(()) } else { Err(status) })
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    let told = world.case("impatient").await;
    world.loopback.collector.process().signal(Signal::CONT).expect("it runs");
    assert_eq!(told.code, "DEADLINE_EXCEEDED", "{told:?}");
    let unrefused = |seen: &Seen| seen.is_calm() && seen.refused_since(&before).is_empty();
    before = world.reports_until("a calm collector", unrefused).await;

    // A thousand at once on one connection: what an agent may ask is taken, the rest is told to
    // come later.
    let ends = world.does("crowd").await;
    let [taken, refused] = ["OK", "rate_limited"].map(|end| ends[end].as_u64().expect("some"));
    assert_eq!(taken + refused, 1_000, "{ends}");
    let after = world.seen().await;
    assert_eq!(after.reports, before.reports + taken);
    assert_eq!(after.refusals["rate_limited"], refused);
    assert_eq!(after.refused_since(&before), ["rate_limited"]);
    assert_eq!(after.connections, 1, "all over one connection");
    assert!(after.is_calm(), "{after:?}");
}
