//! A collector that is flooded goes on: its memory and its open files stay bounded, an honest agent
//! is heard all the while, and a newcomer gets in. `haidang-siege` does the same at full size and
//! records it. Needs no root.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use haidang_tests::flood::Flood;
use haidang_tests::peer::{H2, connect, tcp};
use haidang_tests::pressure::readers::HttpReaders;
use haidang_tests::siege::{Endured, Siege, drip};
use haidang_tests::wait;

/// How long each flood lasts.
const LASTING: Duration = Duration::from_millis(1_500);
/// Connections that say nothing; ten times as many by `haidang-siege`.
const HALF_OPEN: usize = 1_000;
/// What an attack may cost beyond what the collector has anyhow: four connections with all their
/// buffers full are 2 MiB, a thousand half-open ones 10 MiB, allocator and debug build included.
const MEMORY_BYTES_MAX: u64 = 64 << 20;
/// The honest agent, the newcomer, the scrapes, and the four of a flood with their successors.
const FILES_MAX: usize = 32;
/// From a greeting to an accepted report, while it is attacked, on a machine of two cores.
const NEWCOMER_MAX: Duration = Duration::from_secs(20);
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 66, 6, 6));

#[track_caller]
fn is_bounded(endured: &Endured, files_max: usize) {
    let (before, peak) = endured.memory_bytes;
    assert!(peak.saturating_sub(before) < MEMORY_BYTES_MAX, "{endured:?}");
    let (before, peak) = endured.files;
    assert!(peak.saturating_sub(before) < files_max, "{endured:?}");
    assert!(endured.newcomer < NEWCOMER_MAX, "{endured:?}");
    #[expect(clippy::print_stdout, reason = "the figures of this run")]
    {
        println!("{endured:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flood_takes_its_memory_or_an_honest_agents_place() {
    let mut siege = Siege::begin().await.unwrap_or_else(|error| panic!("{error:#}"));
    for flood in Flood::ALL {
        let endured = siege.flood(flood, LASTING).await.unwrap_or_else(|error| panic!("{error:#}"));
        is_bounded(&endured, FILES_MAX);
        if flood.breaks_rules() {
            let counted = endured.refused.iter().any(|(reason, _)| reason == "http2");
            assert!(counted && endured.poured.ended_by_server > 0, "{endured:?}");
        }
    }
    let endured = siege.half_open(HALF_OPEN).await.unwrap_or_else(|error| panic!("{error:#}"));
    is_bounded(&endured, HALF_OPEN + FILES_MAX);
    let (_, counted) = endured
        .refused
        .iter()
        .find(|(reason, _)| reason == "handshake_timeout")
        .unwrap_or_else(|| panic!("{endured:?}"));
    assert!(*counted >= HALF_OPEN as u64, "{endured:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_speaks_a_byte_at_a_time_is_cut_off_on_every_port() {
    const PAUSE: Duration = Duration::from_millis(300);
    const DEADLINE: Duration = Duration::from_secs(30);
    let siege = Siege::begin().await.unwrap_or_else(|error| panic!("{error:#}"));
    let plan = &siege.world.collector.plan;
    for port in [plan.dedicated[0], plan.enrolment, plan.recovery] {
        let stream = tcp(STRANGER, port).await.expect("it listens");
        drip(stream, b"\x16\x03\x01\x40\x00\x01", PAUSE, DEADLINE).await.expect("cut off in TLS");
    }
    for port in [plan.enrolment, plan.recovery] {
        let stream = connect(STRANGER, port, None, &[H2]).await.expect("connected");
        drip(stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PAUSE, DEADLINE).await.expect("cut off");
    }
    let reason = [("reason", "handshake_timeout")];
    wait::until("all of them counted", DEADLINE, || async {
        let metrics = siege.world.collector.metrics().await.map_err(|error| error.to_string())?;
        let counted = metrics.find("haidang_collector_rejected_total", &reason);
        let counted: f64 = counted.map(|sample| sample.value).sum();
        if counted >= 5.0 { Ok(()) } else { Err(counted.to_string()) }
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_machine_cannot_take_all_places_of_the_metrics() {
    let siege = Siege::begin().await.unwrap_or_else(|error| panic!("{error:#}"));
    let web = siege.world.collector.plan.http;
    let mut held = Vec::new();
    for _ in 0..200 {
        let stream = tcp(STRANGER, web).await.expect("it listens");
        stream.try_write(b"GET / HTT").expect("taken");
        held.push(stream);
    }
    siege.world.collector.metrics().await.expect("Prometheus is served all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_metrics_and_never_reads_is_sent_away() {
    let siege = Siege::begin().await.unwrap_or_else(|error| panic!("{error:#}"));
    let web = siege.world.collector.plan.http;
    let stream = tcp(STRANGER, web).await.expect("it listens");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {web}\r\n\r\n");
    wait::until("sent away", Duration::from_secs(60), || {
        // More than fits into the buffers between, however often it is asked.
        let asked = stream.try_write(request.as_bytes());
        let full = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        std::future::ready(match asked {
            Err(error) if !full(&error) => Ok(()),
            asked => Err(format!("{asked:?}")),
        })
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_never_read_keep_nobody_from_the_metrics() {
    /// More than five times the places that there are.
    const READERS: usize = 340;
    /// As long as a reader that nobody wants the place of is borne.
    const LASTING: Duration = Duration::from_secs(10);
    /// An interval of the shipped Prometheus, and as much again for a debug build that is busy.
    const SCRAPE_MAX: Duration = Duration::from_secs(10);
    let siege = Siege::begin().await.unwrap_or_else(|error| panic!("{error:#}"));
    let collector = &siege.world.collector;
    let readers = HttpReaders::begin(READERS, collector.plan.http).expect("a few hundred");
    wait::until("all readers", Duration::from_secs(30), || {
        let [connections, _] = readers.counts();
        std::future::ready(match connections >= READERS as u64 {
            true => Ok(()),
            false => Err(connections.to_string()),
        })
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}"));
    let (began, mut slowest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < LASTING {
        let scraped = wait::until("the metrics", SCRAPE_MAX, || async {
            let answered = tokio::time::timeout(SCRAPE_MAX, collector.metrics()).await;
            let metrics = answered.map_err(|_| "no answer".to_owned())?;
            metrics.map_err(|error| format!("{error:#}"))
        });
        let (_, took) = scraped.await.unwrap_or_else(|error| panic!("{error:#}"));
        slowest = slowest.max(took);
    }
    println!("{:?} connections and sent away, the slowest scrape {slowest:?}", readers.counts());
}
