use std::path::Path;
use std::thread::JoinHandle;

use haidang_proto::model::record::{Event, Moment};
use haidang_proto::model::refusal::Refusal;
use haidang_proto::model::report::{Report, TrustBundle};
use haidang_proto::model::settings::Settings;
use haidang_proto::model::verdict::{DownCause, Verdict};
use tokio::task::JoinSet;

use super::conversation::delivery::DELIVERY_DEADLINE;
use super::conversation::reporting::REPORT_DEADLINE;
use super::double::{Double, Serves, Shared, Unanswered, state};
use super::*;
use crate::identity::Replace;
use crate::identity::tests::Authority;
use crate::journal::{Journal, keeper};

/// Long enough for a busy machine; nothing waits for it in vain but a failing test.
const PATIENCE: Duration = Duration::from_secs(30);
const COLLECTOR: &str = "spiffe://hanoi.example/collector";

/// An agent's uplink at work, without an observer.
struct Agent {
    place: tempfile::TempDir,
    store: Store,
    live: Live,
    clock: Clock,
    keeper: Keeper,
    status: watch::Receiver<Status>,
    settings: watch::Receiver<Settings>,
    stop: CancellationToken,
    task: JoinSet<()>,
    journal: JoinHandle<()>,
}

fn config(dedicated: &[SocketAddr], fallback: &[SocketAddr], state_dir: &Path) -> Config {
    let text = format!(
        "demo = true\nstate_dir = {state_dir:?}\n[collector]\nendpoints = {dedicated:?}\n\
         fallback_endpoints = {fallback:?}\n[dedicated]\ninterface = {{ name = \"lo\" }}\n\
         local_prefixes = [\"127.0.0.0/8\"]\nnetwork_prefixes = [\"127.0.0.0/8\"]\n"
    );
    let quoted = dedicated.iter().chain(fallback).fold(text, |text, address| {
        text.replace(&address.to_string(), &format!("{:?}", address.to_string()))
    });
    Config::parse(&quoted, Path::new("agent.toml")).unwrap()
}

fn enrolled(authority: &Authority) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(place.path());
    store.install(authority.identity(), Replace::No, SystemTime::now()).unwrap();
    place
}

impl Agent {
    fn enrolled(authority: &Authority, dedicated: &[SocketAddr], fallback: &[SocketAddr]) -> Self {
        Self::start(enrolled(authority), dedicated, fallback)
    }

    fn start(place: tempfile::TempDir, dedicated: &[SocketAddr], fallback: &[SocketAddr]) -> Self {
        let config = Arc::new(config(dedicated, fallback, place.path()));
        let store = Store::new(place.path());
        let clock = Clock::new();
        let journal = Journal::open(&place.path().join("journal"), &config.journal).unwrap();
        let (keeper, requests) = keeper::channel(&journal);
        let journal = std::thread::spawn(move || keeper::keep(journal, requests));
        let live = Live::new(clock.moment());
        let (uplink, Outlets { settings, status, roots: _ }) = Uplink::new(Parts {
            config,
            store: store.clone(),
            clock,
            keeper: keeper.clone(),
            live: live.clone(),
            process: Process { nonce: [7; 16], fingerprint: [8; 32] },
            settings: settings::load(place.path()),
        });
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(uplink.run(stop.clone()));
        Self { place, store, live, clock, keeper, status, settings, stop, task, journal }
    }

    async fn standing(&mut self, wanted: impl FnMut(&Status) -> bool) -> Status {
        let waiting = self.status.wait_for(wanted);
        tokio::time::timeout(PATIENCE, waiting).await.expect("in time").unwrap().clone()
    }

    async fn stop(mut self) -> tempfile::TempDir {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task.join_next()).await.expect("in time");
        self.keeper.stop().await;
        self.journal.join().unwrap();
        self.place
    }
}

/// Waits until what the double saw is as it should be.
async fn seen<T>(state: &Shared, mut look: impl FnMut(&mut double::State) -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = look(&mut state.lock().unwrap()) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("in time")
}

fn outage(at: Moment) -> Event {
    Event::ShortOutage { first_seen: at, bad_cycles: 1, cause: DownCause::LinkDown }
}

async fn one_double() -> (Arc<Authority>, Double) {
    let authority = Arc::new(Authority::new());
    let double = Double::start(Serves::Reporting, &state(&authority), COLLECTOR).await;
    (authority, double)
}

#[tokio::test]
async fn state_goes_first_then_records_and_a_stop_says_goodbye() {
    let (authority, double) = one_double().await;
    let place = enrolled(&authority);
    let path = place.path().join("journal");
    let mut journal = Journal::open(&path, &crate::config::Journal::default()).unwrap();
    for _ in 0..300 {
        let at = Clock::new().moment();
        journal.append(at, outage(at)).unwrap();
    }
    drop(journal);
    let agent = Agent::start(place, &[double.address], &[]);
    let seqs = seen(&double.state, |state| {
        let seqs: Vec<u64> = state.records.iter().map(|record| record.seq).collect();
        (seqs.len() >= 200 && !state.reports.is_empty()).then_some(seqs)
    });
    let seqs = seqs.await;
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    let second = seen(&double.state, |state| state.reports.get(1).cloned()).await;
    let first = double.state.lock().unwrap().reports[0].clone();
    assert_eq!((first.sequence, second.sequence), (1, 2));
    assert!(first.host.is_some() && second.host.is_none(), "only the first is a full one");
    assert_eq!(first.journal.waiting_records, 300);
    let mut waits = agent.keeper.status_changes();
    let emptier = waits.wait_for(|status| status.waiting_records <= 100);
    tokio::time::timeout(PATIENCE, emptier).await.expect("in time").unwrap();
    agent.stop().await;
    let goodbye = double.state.lock().unwrap().goodbyes.clone();
    assert_eq!(goodbye.len(), 1);
    assert_eq!(goodbye[0].process_nonce, [7; 16]);
}

#[tokio::test]
async fn a_change_is_reported_at_once_with_its_counts() {
    let (authority, double) = one_double().await;
    let mut agent = Agent::enrolled(&authority, &[double.address], &[]);
    agent.standing(|status| matches!(status.standing, Standing::Reporting(_))).await;
    let down = Verdict::Disconnected(DownCause::LinkDown);
    let quality = haidang_proto::model::quality::Quality {
        sent: 2,
        lost: 2,
        ..haidang_proto::model::quality::Quality::default()
    };
    let since = agent.clock.moment();
    agent.live.observe(down, since, None, Default::default(), Vec::new(), &quality);
    let told = seen(&double.state, |state| {
        state.reports.iter().find(|report| report.connectivity.verdict == down).cloned()
    });
    assert_eq!(told.await.connectivity.quality.sent, 2);
    agent.stop().await;
}

#[tokio::test]
async fn a_delivery_that_hangs_holds_up_no_change() {
    let (authority, double) = one_double().await;
    double.state.lock().unwrap().unanswered = Unanswered::Deliveries;
    let agent = Agent::enrolled(&authority, &[double.address], &[]);
    let at = agent.clock.moment();
    agent.keeper.append(at, outage(at));
    seen(&double.state, |state| (state.swallowed > 0).then_some(())).await;
    let begun = tokio::time::Instant::now();
    let down = Verdict::Disconnected(DownCause::LinkDown);
    agent.live.observe(down, at, None, Default::default(), Vec::new(), &Default::default());
    let is_told = |report: &Report| report.connectivity.verdict == down;
    seen(&double.state, |state| state.reports.iter().any(is_told).then_some(())).await;
    assert!(begun.elapsed() < DELIVERY_DEADLINE, "it waited for the delivery");
    agent.stop().await;
}

#[tokio::test]
async fn a_delivery_that_hangs_costs_no_report_its_beat() {
    let (authority, double) = one_double().await;
    double.state.lock().unwrap().unanswered = Unanswered::Deliveries;
    let agent = Agent::enrolled(&authority, &[double.address], &[]);
    let at = agent.clock.moment();
    agent.keeper.append(at, outage(at));
    let told = seen(&double.state, |state| (state.swallowed > 0).then_some(state.reports.len()));
    let (told, begun) = (told.await, tokio::time::Instant::now());
    // The double asks for a report every half second.
    seen(&double.state, |state| (state.reports.len() >= told + 3).then_some(())).await;
    assert!(begun.elapsed() < DELIVERY_DEADLINE, "they waited for the delivery");
    assert_eq!(double.state.lock().unwrap().swallowed, 1, "it is still under way");
    agent.stop().await;
}

#[tokio::test]
async fn a_report_that_hangs_is_given_up_soon_after_the_path_went_down() {
    let authority = Arc::new(Authority::new());
    let (direct, detour) = (state(&authority), state(&authority));
    let dedicated = Double::start(Serves::Reporting, &direct, COLLECTOR).await;
    let fallback = Double::start(Serves::Reporting, &detour, COLLECTOR).await;
    let mut agent = Agent::enrolled(&authority, &[dedicated.address], &[fallback.address]);
    agent.standing(|status| matches!(status.standing, Standing::Reporting(_))).await;
    direct.lock().unwrap().unanswered = Unanswered::All;
    seen(&direct, |state| (state.swallowed > 0).then_some(())).await;
    let begun = tokio::time::Instant::now();
    let down = Verdict::Disconnected(DownCause::CoreUnreachable);
    let at = agent.clock.moment();
    agent.live.observe(down, at, None, Default::default(), Vec::new(), &Default::default());
    let is_told = |report: &Report| report.connectivity.verdict == down;
    seen(&detour, |state| state.reports.iter().any(is_told).then_some(())).await;
    assert!(begun.elapsed() < REPORT_DEADLINE, "it waited out the whole deadline");
    agent.stop().await;
}

/// A cut while a report is under way: the dedicated listener fails before the probes are sure.
#[tokio::test]
async fn a_good_path_is_told_over_the_fallback_only_when_seen_after_the_dedicated_listener_failed()
{
    let authority = Arc::new(Authority::new());
    let (direct, detour) = (state(&authority), state(&authority));
    let dedicated = Double::start(Serves::Reporting, &direct, COLLECTOR).await;
    let fallback = Double::start(Serves::Reporting, &detour, COLLECTOR).await;
    let agent = Agent::enrolled(&authority, &[dedicated.address], &[fallback.address]);
    let at = agent.clock.moment();
    let observe = |verdict, proved_at| {
        let (flags, quality) = Default::default();
        agent.live.observe(verdict, at, Some(proved_at), flags, Vec::new(), &quality);
    };
    observe(Verdict::Connected, at.boottime);
    let is_up = |report: &Report| report.connectivity.verdict == Verdict::Connected;
    seen(&direct, |state| state.reports.iter().any(is_up).then_some(())).await;
    direct.lock().unwrap().unanswered = Unanswered::All;
    drop(dedicated);
    seen(&detour, |state| (state.connections > 0).then_some(())).await;
    // More cycles end, and none began after the failure: the last good one was before it.
    for _ in 0..5 {
        observe(Verdict::Connected, at.boottime);
        tokio::task::yield_now().await;
    }
    observe(Verdict::Disconnected(DownCause::CoreUnreachable), at.boottime);
    let first = seen(&detour, |state| state.reports.first().cloned()).await;
    assert_eq!(first.connectivity.verdict, Verdict::Disconnected(DownCause::CoreUnreachable));

    // It heals for the probes and not for the listener.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !detour.lock().unwrap().reports.iter().any(is_up) {
        assert!(tokio::time::Instant::now() < deadline, "a good path is never told");
        observe(Verdict::Connected, agent.clock.boottime());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    agent.stop().await;
}

#[tokio::test]
async fn only_a_revocation_stops_reports_and_local_enrolment_starts_them_again() {
    let (authority, double) = one_double().await;
    let mut agent = Agent::enrolled(&authority, &[double.address], &[]);
    seen(&double.state, |state| (!state.reports.is_empty()).then_some(())).await;
    double.state.lock().unwrap().refusal = Some(Refusal::Cloned);
    agent.standing(|status| status.standing == Standing::Connecting).await;
    double.state.lock().unwrap().refusal = None;
    let before = double.state.lock().unwrap().reports.len();
    seen(&double.state, |state| (state.reports.len() > before).then_some(())).await;

    double.state.lock().unwrap().refusal = Some(Refusal::Revoked);
    agent.standing(|status| status.standing == Standing::Revoked).await;
    assert!(agent.store.load().unwrap().is_some(), "nothing from afar clears an identity");
    double.state.lock().unwrap().refusal = None;
    let told = double.state.lock().unwrap().reports.len();
    agent.store.install(authority.identity(), Replace::Yes, SystemTime::now()).unwrap();
    seen(&double.state, |state| (state.reports.len() > told).then_some(())).await;
    agent.stop().await;
}

#[tokio::test]
async fn an_agent_without_identity_waits_for_one() {
    let (authority, double) = one_double().await;
    let mut agent = Agent::start(tempfile::tempdir().unwrap(), &[double.address], &[]);
    agent.standing(|status| status.standing == Standing::NotEnrolled).await;
    agent.store.install(authority.identity(), Replace::No, SystemTime::now()).unwrap();
    agent.standing(|status| matches!(status.standing, Standing::Reporting(_))).await;
    agent.stop().await;
}

#[tokio::test]
async fn the_fallback_is_used_only_while_no_dedicated_listener_answers() {
    let authority = Arc::new(Authority::new());
    let (direct, detour) = (state(&authority), state(&authority));
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let fallback = Double::start(Serves::Reporting, &detour, COLLECTOR).await;
    let mut agent = Agent::enrolled(&authority, &[address], &[fallback.address]);
    let on = |way| {
        move |status: &Status| match status.standing {
            Standing::Reporting(target) => target.way == way,
            _ => false,
        }
    };
    agent.standing(on(Way::Fallback)).await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let _dedicated = Double::serve(listener, Serves::Reporting, &direct, COLLECTOR);
    agent.standing(on(Way::Dedicated)).await;
    assert!(!direct.lock().unwrap().reports.is_empty());
    agent.stop().await;
}

#[tokio::test]
async fn whoever_is_not_the_collector_hears_nothing() {
    let authority = Arc::new(Authority::new());
    let foreign = state(&Arc::new(Authority::new()));
    let own = state(&authority);
    let doubles = [
        Double::start(Serves::Reporting, &foreign, COLLECTOR).await,
        Double::start(Serves::Reporting, &own, "spiffe://other.example/collector").await,
        Double::start(Serves::Reporting, &own, identity_of_an_agent()).await,
    ];
    let addresses: Vec<_> = doubles.iter().map(|double| double.address).collect();
    let mut agent = Agent::enrolled(&authority, &addresses, &[]);
    let told = |text: &'static str| {
        move |status: &Status| status.problem.as_ref().is_some_and(|told| told.contains(text))
    };
    agent.standing(told("BadSignature")).await;
    agent.standing(told("not that of a collector")).await;
    agent.stop().await;
    assert!(own.lock().unwrap().reports.is_empty());
    assert!(foreign.lock().unwrap().reports.is_empty());
}

fn identity_of_an_agent() -> &'static str {
    crate::identity::tests::AGENT
}

#[tokio::test]
async fn a_certificate_past_half_its_life_is_renewed_and_used() {
    let (authority, double) = one_double().await;
    let mut identity = authority.identity();
    // Made two days ago for three: two thirds of its life are over.
    let (from, to) = (Duration::from_secs(2 * 86_400), Duration::from_secs(86_400));
    let request = identity.key.request().unwrap();
    identity.chain = vec![authority.sign_for(&request, identity_of_an_agent(), from, to)];
    let old = identity.chain.clone();
    let place = tempfile::tempdir().unwrap();
    Store::new(place.path()).install(identity, Replace::No, SystemTime::now()).unwrap();
    let agent = Agent::start(place, &[double.address], &[]);
    seen(&double.state, |state| (state.renewals == 1).then_some(())).await;
    let told = double.state.lock().unwrap().reports.len();
    seen(&double.state, |state| (state.reports.len() > told + 1).then_some(())).await;
    assert_ne!(agent.store.load().unwrap().unwrap().chain, old);
    assert_eq!(double.state.lock().unwrap().renewals, 1);
    agent.stop().await;
}

#[tokio::test]
async fn an_expired_certificate_is_renewed_by_the_recovery_listener() {
    let authority = Arc::new(Authority::new());
    let (state, outside) = (state(&authority), state(&authority));
    let reporting = Double::start(Serves::Reporting, &state, COLLECTOR).await;
    let recovery = Double::start(Serves::Recovery, &state, COLLECTOR).await;
    // What a captured collector told of, and no installer.
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let elsewhere = listener.local_addr().unwrap();
    let _elsewhere = Double::serve(listener, Serves::Recovery, &outside, COLLECTOR);
    let mut identity = authority.identity();
    let request = identity.key.request().unwrap();
    let (from, to) = (Duration::from_secs(9 * 86_400), Duration::from_secs(3));
    identity.chain = vec![authority.sign_for(&request, identity_of_an_agent(), from, to)];
    identity.contacts.recovery_endpoints = vec![elsewhere, recovery.address];
    let place = tempfile::tempdir().unwrap();
    let store = Store::new(place.path());
    let ends = store.install(identity, Replace::No, SystemTime::now()).unwrap().not_after;
    // Certificates count in whole seconds.
    while SystemTime::now() <= ends + Duration::from_secs(1) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut agent = Agent::start(place, &[reporting.address], &[]);
    seen(&state, |state| (state.recoveries == 1).then_some(())).await;
    agent.standing(|status| matches!(status.standing, Standing::Reporting(_))).await;
    assert!(agent.store.load().unwrap().unwrap().not_after > SystemTime::now());
    assert_eq!(outside.lock().unwrap().connections, 0, "outside the pinned prefixes");
    agent.stop().await;
}

#[tokio::test]
async fn settings_are_kept_when_they_have_proved_themselves() {
    let (authority, double) = one_double().await;
    let settings =
        Settings { version: 5, report_interval: Duration::from_millis(600), ..Settings::default() };
    double.state.lock().unwrap().settings = Some(settings.clone());
    let mut agent = Agent::enrolled(&authority, &[double.address], &[]);
    let applied = agent.settings.wait_for(|held| *held == settings);
    tokio::time::timeout(PATIENCE, applied).await.expect("in time").unwrap();
    seen(&double.state, |state| {
        state.reports.iter().filter(|report| report.settings_version == 5).nth(1).map(|_| ())
    })
    .await;
    let place = agent.stop().await;
    assert_eq!(settings::load(place.path()), settings);
}

#[tokio::test]
async fn a_new_trust_bundle_is_kept_and_told() {
    let (authority, double) = one_double().await;
    let roots_der = vec![authority.root.to_vec(), Authority::new().root.to_vec()];
    double.state.lock().unwrap().trust_bundle = Some(TrustBundle { version: 2, roots_der });
    let agent = Agent::enrolled(&authority, &[double.address], &[]);
    seen(&double.state, |state| {
        state.reports.iter().find(|report| report.trust_bundle_version == 2).map(|_| ())
    })
    .await;
    assert_eq!(agent.store.load().unwrap().unwrap().roots.len(), 2);
    agent.stop().await;
}
