//! A captured collector cannot make a real agent do more than its own limits allow, and what it
//! breaks the agent mends by itself. Needs root and strace.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;
use haidang_proto::model::settings::Settings;
use haidang_tests::agent::Agent;
use haidang_tests::captured::{Captured, Orders};
use haidang_tests::collector::Tempo;
use haidang_tests::laboratory::{FALLBACK, LabAgency, Laboratory, REPORTS, Seat};
use haidang_tests::peer::Authority;
use haidang_tests::program::Program;
use haidang_tests::topology::{Leg, SitePlan};
use haidang_tests::wait;
use haidang_tests::wire_tap::{Sent, WireTap};

const AGENCY: &str = "01-018";
/// Reports come every half second, connections that fail are tried again within a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// Three report intervals of half a second, and a minute's grace; and a busy machine.
const TRIAL_PATIENCE: Duration = Duration::from_secs(120);
/// What a cycle in confirm mode sends: four echoes to each of two anchors, one to the gateway.
const CYCLE_ECHOES: f64 = 9.0;
/// Packets of the path MTU, and of the cycles that the window cuts.
const OTHER_ECHOES: f64 = 30.0;

async fn settings_version(agent: &Agent, version: u64, deadline: Duration) {
    let waited = wait::until("the settings' version", deadline, || async {
        let status = agent.status().await.map_err(|error| format!("{error:#}"))?;
        let held = &status["settings"]["version"];
        if *held == version { Ok(()) } else { Err(status.to_string()) }
    });
    waited.await.unwrap_or_else(|error| panic!("{error:#}"));
}

/// Whoever the installer named, and nobody else.
fn named(leg: &Leg) -> BTreeSet<IpAddr> {
    let [first, second] = leg.anchors;
    [first, second, leg.gateway, leg.resolver, leg.service, FALLBACK.ip()].into()
}

fn within_limits(sent: &Sent, leg: &Leg, window: Duration) {
    let strangers: Vec<_> =
        sent.packets.keys().filter(|address| !named(leg).contains(address)).collect();
    assert!(strangers.is_empty(), "{strangers:?} of {sent:?}");
    let cycles = window.as_secs_f64() / Settings::PROBE_PERIOD_MIN.as_secs_f64();
    let echoes_max = cycles * CYCLE_ECHOES + OTHER_ECHOES;
    assert!(sent.echo_requests > 0, "{sent:?}");
    assert!((sent.echo_requests as f64) < echoes_max, "at most {echoes_max:.0}: {sent:?}");
}

/// What a process opens, makes, removes and starts, by strace.
fn traced(agent: &mut Agent, directory: &Path) -> Result<Program> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "strace", "-f", "-qq", "-s", "4096"]);
    command.args(["-e", "trace=%file,execve,execveat", "-e", "signal=none"]);
    command.args(["-p", &agent.process().pid().to_string()]);
    Program::start("strace", &mut command, directory)
}

/// It starts nothing, and changes nothing outside its state directory.
fn touches_only(trace: &str, state_dir: &Path) {
    let state_dir = state_dir.display().to_string();
    assert!(trace.contains(&state_dir), "it looks for its identity, at least:\n{trace}");
    for line in trace.lines() {
        assert!(!line.contains("execve"), "{line}");
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit() || "[]pid ".contains(c));
        let writes = ["O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"];
        let changing = ["unlink", "rename", "mkdir", "rmdir", "link", "symlink", "chmod", "chown"];
        let is_change = writes.iter().any(|flag| line.contains(flag))
            || changing.iter().any(|name| call.starts_with(name));
        assert!(!is_change || line.contains(&state_dir), "outside {state_dir}: {line}");
    }
}

#[tokio::test]
async fn a_captured_collector_moves_an_agent_only_within_its_limits_and_not_for_long() {
    let site = SitePlan { internet: true, ..SitePlan::default() };
    let seat = Seat { agency: AGENCY.into(), site, gateway: true, ..Seat::default() };
    let built = Laboratory::build(&[seat], Tempo::Short).await;
    let Laboratory { mut agencies, collector, network, directory, .. } =
        built.unwrap_or_else(|error| panic!("{error:#}"));
    let LabAgency { site, mut agent, .. } = agencies.remove(0);
    let leg = site.leg();
    let state_dir = agent.plan.state_dir();
    let kept = || fs::read(state_dir.join("settings.json")).expect("settings were kept");
    let are_kept = || {
        let exists = state_dir.join("settings.json").exists();
        std::future::ready(exists.then_some(()).ok_or_else(String::new))
    };
    wait::until("settings that are kept", PATIENCE, are_kept).await.expect("a report succeeds");
    let status = agent.status().await.expect("it runs");
    let known_good = status["settings"]["version"].as_u64().expect("a number");
    let kept_before = kept();
    let authority = Authority::of(&collector.plan).expect("the CA's key");
    collector.stop().await.unwrap_or_else(|error| panic!("{error:#}"));

    let orders = Orders::Silencing(known_good + 1_000);
    let captured = Captured::start(&network.core, REPORTS, &authority, orders).expect("it listens");
    let own = vec![leg.address.addr(), Ipv4Addr::new(203, 0, 113, 6).into()];
    let tap = WireTap::start(&site.netns, own).expect("a packet socket");
    settings_version(&agent, known_good + 1_000, PATIENCE).await;
    let trace = traced(&mut agent, directory.path()).expect("strace is installed");
    let begun = Instant::now();
    tap.take();
    settings_version(&agent, known_good, TRIAL_PATIENCE).await;
    within_limits(&tap.take(), &leg, begun.elapsed());
    assert_eq!(kept(), kept_before, "what never proved itself was never kept");

    // What failed is not tried again at once; another version is, and a crash undoes it.
    let taken = captured.taken();
    let takes_more = || {
        let now = captured.taken();
        std::future::ready(if now > taken + 3 { Ok(()) } else { Err(format!("{now} reports")) })
    };
    wait::until("reports again", PATIENCE, takes_more).await.unwrap_or_else(|e| panic!("{e:#}"));
    settings_version(&agent, known_good, PATIENCE).await;
    let output = trace.output().to_owned();
    trace.stop().await.expect("it ends");
    touches_only(&fs::read_to_string(output).expect("a trace"), &state_dir);
    captured.order(Orders::Silencing(known_good + 1_001));
    settings_version(&agent, known_good + 1_001, PATIENCE).await;
    let plan = agent.kill();
    captured.order(Orders::None);
    let agent = Agent::start(plan).expect("it starts");
    settings_version(&agent, known_good, PATIENCE).await;
    assert_eq!(kept(), kept_before);
    within_limits(&tap.take(), &leg, begun.elapsed());
    agent.stop().await.expect("it stops");
}
