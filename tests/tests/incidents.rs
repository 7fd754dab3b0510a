//! One alert per cause: thirty agencies of three districts, each in its own namespace, with real
//! Prometheus and Alertmanager. A district's line, the collector's own line, and a restart of the
//! collector; each is told once, as what it is. Needs root.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use haidang_tests::alert_path::{ALERTMANAGER, PROMETHEUS};
use haidang_tests::binaries::repository;
use haidang_tests::collector::{AgencySeen, Tempo};
use haidang_tests::fault::Cut;
use haidang_tests::figures::{self, Times};
use haidang_tests::laboratory::{HTTP, Laboratory, Seat, agencies_of};
use haidang_tests::monitoring::{Monitoring, MonitoringPlan};
use haidang_tests::topology::Line;
use haidang_tests::webhook::Webhook;

/// Chương Mỹ, Ba Vì and Sóc Sơn.
const DISTRICTS: [&str; 3] = ["01-277", "01-271", "01-016"];
const AGENCIES_EACH: usize = 10;
const DEADLINE: Duration = Duration::from_secs(180);
/// Alerts of single agencies would come within seconds of the incident's own: scrape, evaluation
/// and grouping take one each here.
const QUIET: Duration = Duration::from_secs(20);

/// Alerts that say something of an agency, a parent or the collector. The goal is missed all
/// along, and the heartbeat never ends.
fn is_news(name: &str) -> bool {
    !matches!(name, "Watchdog" | "GoalBelowTarget")
}

/// Status, name, and scope or agency.
type News = (String, String, String);

struct World {
    laboratory: Laboratory,
    webhook: Webhook,
    _monitoring: Monitoring,
}

impl World {
    async fn build() -> Self {
        let mut seats = Vec::new();
        for district in DISTRICTS {
            let agencies = agencies_of(district, AGENCIES_EACH).expect("the roster is there");
            seats.extend(agencies.into_iter().map(|agency| Seat {
                agency,
                gateway: true,
                ..Seat::default()
            }));
        }
        let laboratory = Laboratory::build(&seats, Tempo::Short).await;
        let laboratory = laboratory.unwrap_or_else(|error| panic!("{error:#}"));
        let core = &laboratory.network.core;
        let webhook = Webhook::start(Some(core), ([127, 0, 0, 1], 9095).into()).expect("listens");
        let monitoring = Monitoring::start(&MonitoringPlan {
            directory: laboratory.directory.path().join("monitoring"),
            netns: Some(Arc::clone(core)),
            collector: HTTP,
            prometheus: PROMETHEUS,
            alertmanager: ALERTMANAGER,
            webhook: webhook.address,
            period_seconds: 1,
        })
        .await;
        let monitoring = monitoring.unwrap_or_else(|error| panic!("{error:#}"));
        Self { laboratory, webhook, _monitoring: monitoring }
    }

    /// Every piece of news until it has been quiet for a while, and when it came.
    async fn told(&mut self) -> BTreeMap<News, Instant> {
        let mut told = BTreeMap::new();
        while let Ok(notification) = self.webhook.next(QUIET).await {
            for alert in notification.alerts {
                let label = |label: &str| alert.labels.get(label).cloned();
                let name = label("alertname").unwrap_or_default();
                if is_news(&name) {
                    let about = label("agency").or_else(|| label("scope")).unwrap_or_default();
                    told.entry((alert.status.clone(), name, about)).or_insert_with(Instant::now);
                }
            }
        }
        told
    }

    /// Waits for the alert, then for quiet: it is all that is told. Answers when it came.
    async fn is_told(&mut self, status: &str, name: &str, about: &str) -> Duration {
        let expected = (status.to_owned(), name.to_owned(), about.to_owned());
        let begun = Instant::now();
        let mut told = BTreeMap::new();
        while !told.contains_key(&expected) && begun.elapsed() < DEADLINE {
            for (news, at) in self.told().await {
                told.entry(news).or_insert(at);
            }
        }
        let at = told.get(&expected).copied();
        assert_eq!(told.into_keys().collect::<Vec<_>>(), [expected], "and nothing else");
        at.map_or(Duration::MAX, |at| at - begun)
    }

    /// Waits until every agency is up: connected, or degraded because its path was just broken.
    async fn all_up(&self) {
        for place in &self.laboratory.agencies {
            let is_up =
                |agency: &AgencySeen| matches!(agency.state.as_str(), "connected" | "degraded");
            let up = self.laboratory.seen().until(&place.agency, DEADLINE, is_up).await;
            up.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }

    async fn each_site_of(&mut self, district: &str, cut: Option<Cut>) {
        let agencies = agencies_of(district, AGENCIES_EACH).expect("the roster is there");
        let places = self.laboratory.agencies.iter_mut();
        for place in places.filter(|place| agencies.contains(&place.agency)) {
            let done = match cut {
                Some(cut) => place.site.cut(cut).await,
                None => place.site.heal().await,
            };
            done.unwrap_or_else(|error| panic!("{error:#}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_cause_is_told_once() {
    let mut world = World::build().await;
    let quiet = world.told().await;
    assert!(quiet.is_empty(), "before anything happened: {quiet:?}");

    println!("a district's line is cut");
    world.each_site_of(DISTRICTS[0], Some(Cut::Core)).await;
    let cut_told = world.is_told("firing", "ParentIncident", DISTRICTS[0]).await;
    world.each_site_of(DISTRICTS[0], None).await;
    let cut_resolved = world.is_told("resolved", "ParentIncident", DISTRICTS[0]).await;
    world.all_up().await;

    println!("the collector's own line is cut");
    world.laboratory.network.core_line(Line::Cut).unwrap_or_else(|error| panic!("{error:#}"));
    let suspected = world.is_told("firing", "CollectorSuspected", "collector").await;
    world.laboratory.network.core_line(Line::Whole).unwrap_or_else(|error| panic!("{error:#}"));
    let trusted = world.is_told("resolved", "CollectorSuspected", "collector").await;
    world.all_up().await;

    println!("the collector is restarted");
    let World { laboratory, webhook, _monitoring } = world;
    let laboratory = laboratory.restart_collector().await;
    let laboratory = laboratory.unwrap_or_else(|error| panic!("{error:#}"));
    let mut world = World { laboratory, webhook, _monitoring };
    world.all_up().await;
    let told = world.told().await;
    assert!(told.is_empty(), "a restart is no news: {told:?}");

    if std::env::var_os("HAIDANG_RECORD").is_some() {
        let times = [
            ("a district's line is cut → its one notification", cut_told),
            ("it is healed → resolved", cut_resolved),
            ("the collector's own line is cut → its one notification", suspected),
            ("it is whole again → resolved", trusted),
        ];
        record(&times).unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// What this run told, for a reader who was not here.
fn record(times: &[(&str, Duration)]) -> anyhow::Result<()> {
    let times: Vec<_> = times
        .iter()
        .map(|(quantity, time)| Times { quantity: (*quantity).into(), runs: vec![*time] })
        .collect();
    let notes = format!(
        "{} agencies of {} districts, each in its own namespace, one way each, shortened timers; \
         real Prometheus and Alertmanager. Each cause was told by exactly one notification and \
         resolved by one; no agency's own alert came, and a restart of the collector told nothing \
         for {} s. The first and third times hold `for`, scrape, evaluation and grouping.",
        DISTRICTS.len() * AGENCIES_EACH,
        DISTRICTS.len(),
        QUIET.as_secs()
    );
    let command = "HAIDANG_RECORD=1 cargo test --workspace --test incidents";
    let section =
        figures::section("Thirty agencies, one alert per cause", command, &notes, &times)?;
    figures::record(&repository("tests/benches/RESULTS.md"), &section)
}
