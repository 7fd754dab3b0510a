//! The HTTP side of a collector as a function over bytes: the first line is what is asked for, each
//! further one a header. Whatever is asked, the answer is no server error and, when it refuses, a
//! problem (RFC 9457) that says why.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use haidang_collector::clock::Clock;
use haidang_collector::fleet::{Fleet, FleetConfig};
use haidang_collector::metrics::CollectorMetrics;
use haidang_collector::roster::{self, Loopback, Source};
use haidang_collector::store::Store;
use haidang_collector::web::{self, Guard, Web};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tokio::sync::watch;

const ROSTER: &str = "id,name,kind,parent,gso_code,id_code,lat,lon\n\
    01-001,Quận Ba Đình,quan,01,001,,,\n01-018,Huyện Gia Lâm,huyen,01,018,,,\n";

/// A collector that nobody has reported to, and what drives it. The senders keep it from closing.
struct Collector {
    router: axum::Router,
    runtime: Runtime,
    _snapshots: watch::Sender<Arc<haidang_collector::snapshot::Snapshot>>,
    _bound: watch::Sender<bool>,
}

/// One for the process: a runtime may be driven by one thread at a time.
static COLLECTOR: LazyLock<Mutex<Collector>> = LazyLock::new(|| Mutex::new(Collector::start()));

impl Collector {
    fn start() -> Self {
        let roster = Source { name: "roster.csv", bytes: ROSTER.as_bytes() };
        let roster = roster::parse(roster, None, Loopback::Refused).expect("it is well formed");
        let config = FleetConfig {
            report_interval: Duration::from_secs(10),
            goal_target_ratio: 1.0,
            security_goal_target_ratio: 0.8,
        };
        let now = Clock::start().now();
        let snapshot = Fleet::new(Arc::new(roster), config, now).snapshot(now);
        let (snapshots, snapshot) = watch::channel(Arc::new(snapshot));
        let (bound_sender, listeners_bound) = watch::channel(true);
        let directory = tempfile::tempdir().expect("a directory");
        let opened = Store::open(&directory.path().join("store.db")).expect("a new store");
        std::thread::spawn(|| opened.writer.run());
        std::thread::spawn(|| opened.reader.run());
        let metrics = CollectorMetrics::new("0.1.0", SystemTime::UNIX_EPOCH).expect("sound");
        let web =
            Web { snapshot, metrics, store: opened.store, machine_series: true, listeners_bound };
        let router = web::router(web, Guard::new(&["localhost".to_owned()], None));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        // The files are open; the process that is killed by a fuzzer would leave them behind.
        drop(directory);
        Self {
            router,
            runtime: runtime.expect("a runtime"),
            _snapshots: snapshots,
            _bound: bound_sender,
        }
    }
}

/// Asks for what the bytes say.
pub(super) fn any_bytes(bytes: &[u8]) {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut request = Request::builder().uri(target);
    let mut has_host = false;
    for line in lines.take(16) {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        has_host |= name.eq_ignore_ascii_case(b"host");
        request = request.header(name, value.strip_prefix(b":").unwrap_or_default());
    }
    if !has_host {
        request = request.header("host", "localhost");
    }
    let Ok(request) = request.body(Body::empty()) else { return };
    let collector = COLLECTOR.lock().unwrap_or_else(PoisonError::into_inner);
    let service = TowerToHyperService::new(collector.router.clone());
    let answer = async {
        let answer = service.call(request).await.expect("it is infallible");
        let (head, body) = answer.into_parts();
        (head, body.collect().await.expect("a whole body").to_bytes())
    };
    let (head, body) = collector.runtime.block_on(answer);
    // Not ready is the truth: nothing has been written to this store.
    let is_readiness = head.status == StatusCode::SERVICE_UNAVAILABLE;
    assert!(is_readiness || !head.status.is_server_error(), "{}", head.status);
    let kind = head.headers.get("content-type").and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.contains("json")) {
        let read: serde_json::Value = serde_json::from_slice(&body).expect("it says JSON");
        assert!(head.status.is_success() || is_readiness || read["detail"].is_string());
    }
    assert_eq!(
        head.headers.get("x-content-type-options").map(http::HeaderValue::as_bytes),
        Some(&b"nosniff"[..])
    );
}
