mod city;
mod outages;

use std::time::{Duration, UNIX_EPOCH};

use axum::body::to_bytes;
use axum::http::Request;
use futures_util::future::join_all;
use haidang_proto::model::flag::Flag;
use haidang_proto::model::posture::{CHECKS, CheckId};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;
use tower::ServiceExt;

use super::*;
use crate::fleet::AgencyTransition;
use crate::snapshot::{AgencyState, DisconnectCause, Finding, Suppression};
use crate::store::StoreThread;
use city::{at, city};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).expect("JSON")
    }

    #[track_caller]
    fn is_problem(&self, status: StatusCode, says: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.json()["status"], status.as_u16());
        let detail = self.json()["detail"].as_str().map(str::to_owned).unwrap_or_default();
        assert!(detail.contains(says), "{detail}");
    }
}

/// A collector's HTTP side, the senders of what it shows, and a store of its own.
struct Collector {
    router: Router,
    snapshots: watch::Sender<Arc<Snapshot>>,
    listeners: watch::Sender<bool>,
    store: Store,
    /// Of a store that answers no questions.
    hanging: Option<StoreThread>,
    _directory: tempfile::TempDir,
}

impl Collector {
    fn new(token: Option<&str>) -> Self {
        let mut collector = Self::whose_store_hangs(token);
        let reader = collector.hanging.take().expect("it hangs");
        std::thread::spawn(|| reader.run());
        collector
    }

    fn whose_store_hangs(token: Option<&str>) -> Self {
        let (snapshots, snapshot) = watch::channel(Arc::new(city()));
        let (listeners, listeners_bound) = watch::channel(true);
        let directory = tempfile::tempdir().expect("a temporary directory");
        let opened = Store::open(&directory.path().join("store.db")).expect("a new store");
        let store = opened.store;
        // They end when the last handle is dropped.
        std::thread::spawn(|| opened.writer.run());
        let hanging = Some(opened.reader);
        let metrics = CollectorMetrics::new("0.1.0", UNIX_EPOCH).expect("the table is sound");
        let hosts = ["localhost", "127.0.0.1", "[::1]"].map(str::to_owned);
        let token = token.map(|token| BearerToken::parse(token).expect("long enough"));
        let web =
            Web { snapshot, metrics, store: store.clone(), machine_series: false, listeners_bound };
        let router = router(web, Guard::new(&hosts, token));
        Self { router, snapshots, listeners, store, hanging, _directory: directory }
    }

    /// Keeps a fall and a rise of 01-018, at seconds 10 and 20, and a fall of 01-019 at 30.
    async fn remember(&self) {
        let down = AgencyState::Disconnected(DisconnectCause::NoAnswerFromCore);
        let change = |agency: &str, from, to, second| AgencyTransition {
            agency: agency.parse().expect("an id"),
            from,
            to,
            at: at(second),
            suppressed: None,
        };
        let transitions = vec![
            change("01-018", AgencyState::Connected, down, 10),
            change("01-018", down, AgencyState::Connected, 20),
            change("01-019", AgencyState::Connected, AgencyState::OffNetwork, 30),
        ];
        self.store.append_transitions(transitions).await.expect("kept");
    }

    async fn ask(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 << 20).await.expect("a body");
        let text = String::from_utf8(bytes.to_vec()).expect("text");
        Answer { status: parts.status, headers: parts.headers, text }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(request(Method::GET, path)).await
    }
}

fn request(method: Method, path: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("host", "localhost:7080");
    request.body(Body::empty()).expect("a request")
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_store_that_hangs_takes_no_room_from_metrics_and_page() {
    let collector = Collector::whose_store_hangs(None);
    let ask = |_| collector.get("/api/v1/transitions");
    let waiting = join_all((0..guard::STORE_REQUESTS_MAX).map(ask));
    let others = async {
        let one_more = collector.get("/api/v1/transitions").await;
        one_more.is_problem(StatusCode::SERVICE_UNAVAILABLE, "wait for the store");
        for path in
            ["/metrics", "/", "/api/v1/goals", "/api/v1/agencies", "/api/v1/agencies/01-018"]
        {
            assert_eq!(collector.get(path).await.status, StatusCode::OK, "{path}");
        }
    };
    // In this order: whoever waits has taken all room before another one asks.
    let (waited, ()) = tokio::join!(biased; waiting, others);
    for answer in waited {
        answer.is_problem(StatusCode::GATEWAY_TIMEOUT, "10 s");
    }
}

#[tokio::test]
async fn agencies_are_found_by_state_parent_kind_and_text() {
    let collector = Collector::new(None);
    for (query, total) in [
        ("", 631),
        ("?state=connected", 625),
        ("?state=disconnected", 1),
        ("?kind=quan", 12),
        ("?parent=01-018&limit=1000", 22),
        ("?parent=01-018&kind=xa", 20),
        ("?q=gia%20l%C3%A2m", 1),
        ("?q=GIA%20L%C3%82M", 1),
        ("?q=gia%20la%CC%82m", 1),
        ("?q=01-018", 23),
        ("?q=nothing", 0),
    ] {
        let answer = collector.get(&format!("/api/v1/agencies{query}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{query}: {}", answer.text);
        assert_eq!(answer.json()["total"], total, "{query}");
    }
}

#[tokio::test]
async fn pages_cover_every_agency_once_and_survive_a_new_snapshot() {
    let collector = Collector::new(None);
    let (mut seen, mut query) = (Vec::new(), "?limit=100".to_owned());
    loop {
        let page = collector.get(&format!("/api/v1/agencies{query}")).await.json();
        let items = page["items"].as_array().expect("items").clone();
        assert!(items.len() <= 100);
        seen.extend(items.into_iter().map(|item| item["id"].as_str().map(str::to_owned)));
        match page["next_cursor"].as_str() {
            Some(cursor) => query = format!("?limit=100&cursor={cursor}"),
            None => break,
        }
        collector.snapshots.send_replace(Arc::new(city()));
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 631);
}

#[tokio::test]
async fn an_agency_says_what_is_behind_its_state() {
    let collector = Collector::new(None);
    let answer = collector.get("/api/v1/agencies/01-so-noi-vu").await.json();
    assert_eq!(answer["name"], "Sở Nội vụ");
    assert_eq!(
        (&answer["state"], &answer["detail"]),
        (&"disconnected".into(), &"link_down".into())
    );
    assert_eq!(answer["since"], "2026-09-21T14:13:21.000Z");
    assert_eq!(answer["flags"], serde_json::json!({"leak": 2}));
    assert_eq!(answer["quality"], Value::Null);
    collector.get("/api/v1/agencies/01-999").await.is_problem(StatusCode::NOT_FOUND, "no agency");
}

#[tokio::test]
async fn agents_are_listed_for_an_agency_and_for_all() {
    let collector = Collector::new(None);
    let its = collector.get("/api/v1/agencies/01-so-noi-vu/agents").await.json();
    assert_eq!(its["total"], 5);
    assert_eq!(its["items"][0]["report"]["evidence"][0]["kind"], "gateway_echo");
    let first = collector.get("/api/v1/agents?limit=20").await.json();
    let cursor = first["next_cursor"].as_str().expect("there are more");
    let second = collector.get(&format!("/api/v1/agents?limit=20&cursor={cursor}")).await.json();
    assert_eq!(second["items"].as_array().map(Vec::len), Some(3));
    assert_eq!(second["next_cursor"], Value::Null);
    assert_eq!(first["items"][0]["report"], Value::Null);
}

#[tokio::test]
async fn transitions_are_read_newest_first_by_agency_time_and_page() {
    let collector = Collector::new(None);
    collector.remember().await;
    for (query, agencies) in [
        ("", vec!["01-019", "01-018", "01-018"]),
        ("?agency=01-018", vec!["01-018", "01-018"]),
        ("?since=2026-09-21T14:13:40Z", vec!["01-019", "01-018"]),
        ("?since=2026-09-21T21:13:41%2B07:00", vec!["01-019"]),
        ("?agency=01-018&since=2030-01-01T00:00:00Z", vec![]),
        ("?agency=01-020", vec![]),
    ] {
        let answer = collector.get(&format!("/api/v1/transitions{query}")).await.json();
        let items = answer["items"].as_array().expect("items");
        let seen: Vec<&str> = items.iter().filter_map(|item| item["agency"].as_str()).collect();
        assert_eq!(seen, agencies, "{query}");
        assert_eq!(answer["next_cursor"], Value::Null, "{query}");
    }
    let first = collector.get("/api/v1/transitions?limit=2").await.json();
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let rest = collector.get(&format!("/api/v1/transitions?limit=2&cursor={cursor}")).await.json();
    let items = rest["items"].as_array().expect("items");
    assert_eq!(items.len(), 1);
    let (to, detail) = (&items[0]["to"], &items[0]["detail"]);
    assert_eq!((to, detail), (&"disconnected".into(), &"no_answer_from_core".into()));
}

#[tokio::test]
async fn outages_are_read_latest_first_by_page_as_the_document_says() {
    let collector = Collector::new(None);
    outages::happen(&collector.store).await;
    let path = "/api/v1/agencies/01-018/outages";
    let all = collector.get(path).await.json();
    let items = all["items"].as_array().expect("items");
    let told: Vec<_> = items
        .iter()
        .map(|item| {
            (item["cause"].as_str(), item["end"].as_str(), item["duration_seconds"].as_f64())
        })
        .collect();
    let want =
        [(Some("no_route"), Some("open"), None), (Some("link_down"), Some("healed"), Some(40.0))];
    assert_eq!(told, want);
    assert_eq!(items[1]["began"], "2026-09-21T14:13:30.000Z");
    assert_eq!(items[1]["ended"], "2026-09-21T14:14:10.000Z");
    assert_eq!(items[1]["evidence"][0]["kind"], "link");
    let document: Value = collector.get("/api/v1/openapi.json").await.json();
    let schema = &document["components"]["schemas"]["Outage"]["properties"];
    let keys = |of: &Value| of.as_object().map(|of| of.keys().cloned().collect::<Vec<_>>());
    assert_eq!(keys(&items[0]), keys(schema));

    let first = collector.get(&format!("{path}?limit=1")).await.json();
    let cursor = first["next_cursor"].as_str().expect("there is another");
    let second = collector.get(&format!("{path}?limit=1&cursor={cursor}")).await.json();
    assert_eq!((&first["items"][0], &second["items"][0]), (&items[0], &items[1]));
    assert_eq!(second["next_cursor"], Value::Null);
    let none = collector.get("/api/v1/agencies/01-019/outages").await.json();
    assert_eq!(none["items"], serde_json::json!([]));
    for cursor in ["x", "1", "1-x", "-1-1", "99999999999999999999-1"] {
        let asked = collector.get(&format!("{path}?cursor={cursor}")).await;
        asked.is_problem(StatusCode::BAD_REQUEST, "cursor");
    }
    collector.get("/api/v1/agencies/01-999/outages").await.is_problem(StatusCode::NOT_FOUND, "");
}

#[tokio::test]
async fn a_store_that_cannot_answer_takes_only_the_history_with_it() {
    let collector = Collector::new(None);
    let directory = tempfile::tempdir().expect("a temporary directory");
    let opened = Store::open(&directory.path().join("store.db")).expect("a new store");
    drop((opened.writer, opened.reader));
    let (_, snapshot) = watch::channel(Arc::new(city()));
    let (_, listeners_bound) = watch::channel(true);
    let metrics = CollectorMetrics::new("0.1.0", UNIX_EPOCH).expect("the table is sound");
    let web =
        Web { snapshot, metrics, store: opened.store, machine_series: false, listeners_bound };
    let hosts = ["localhost".to_owned()];
    let collector = Collector { router: router(web, Guard::new(&hosts, None)), ..collector };
    collector.get("/api/v1/transitions").await.is_problem(StatusCode::SERVICE_UNAVAILABLE, "store");
    assert_eq!(collector.get("/api/v1/agencies").await.status, StatusCode::OK);
    assert_eq!(collector.get("/metrics").await.status, StatusCode::OK);
}

#[tokio::test]
async fn absurd_queries_get_a_problem_and_a_reason() {
    let collector = Collector::new(None);
    let long = format!("/api/v1/agencies?q={}", "a".repeat(2000));
    for (path, says) in [
        ("/api/v1/agencies?limit=0", "limit"),
        ("/api/v1/agencies?limit=1001", "limit"),
        ("/api/v1/agencies?limit=-1", "limit"),
        ("/api/v1/agencies?limit=99999999999999999999", "limit"),
        ("/api/v1/agencies?state=green", "not_enrolled"),
        ("/api/v1/agencies?kind=ward", "so_ban_nganh"),
        ("/api/v1/agencies?parent=%F0%9F%92%A5", "parent"),
        ("/api/v1/agencies?stat=connected", "stat"),
        ("/api/v1/agencies?state=silent&state=unknown", "state"),
        ("/api/v1/agencies?cursor=01-999", "cursor"),
        ("/api/v1/agencies?cursor=..%2F..", "cursor"),
        ("/api/v1/agents?cursor=x", "cursor"),
        ("/api/v1/transitions?since=yesterday", "since"),
        ("/api/v1/transitions?cursor=1e3", "cursor"),
        ("/api/v1/transitions?agency=Gia%20L%C3%A2m", "agency"),
        ("/api/v1/agencies/%FF", "UTF-8"),
        (&long, "1024"),
    ] {
        collector.get(path).await.is_problem(StatusCode::BAD_REQUEST, says);
    }
    for path in ["/api/v1/agencies/%00", "/api/v1/agencies/..%2f", "/api/v2", "/index.php"] {
        collector.get(path).await.is_problem(StatusCode::NOT_FOUND, "");
    }
}

#[tokio::test]
async fn only_our_host_names_are_answered() {
    let collector = Collector::new(None);
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:7080", 200),
        ("127.0.0.1:7080", 200),
        ("[::1]:7080", 200),
        ("rebound.example", 421),
        ("localhost.rebound.example:7080", 421),
        ("localhost@rebound.example", 421),
        ("", 421),
        ("[::1", 421),
    ] {
        let asked = Request::get("/api/v1/goals").header("host", host).body(Body::empty());
        let answer = collector.ask(asked.expect("a request")).await;
        assert_eq!(answer.status.as_u16(), status, "{host}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    }
    let none = Request::get("/").body(Body::empty()).expect("a request");
    collector.ask(none).await.is_problem(StatusCode::BAD_REQUEST, "Host");
    let proxied = request(Method::GET, "http://rebound.example/");
    collector.ask(proxied).await.is_problem(StatusCode::MISDIRECTED_REQUEST, "allowed_hosts");
}

#[tokio::test]
async fn a_configured_token_is_asked_for_everywhere() {
    let collector = Collector::new(Some(TOKEN));
    for path in ["/", "/metrics", "/healthz", "/readyz", "/api/v1/agents", "/nothing"] {
        let answer = collector.get(path).await;
        answer.is_problem(StatusCode::UNAUTHORIZED, "bearer");
        assert_eq!(answer.headers["www-authenticate"], "Bearer realm=\"haidang\"");
    }
    for (given, status) in [
        (format!("Bearer {TOKEN}"), 200),
        (format!("bearer  {TOKEN}"), 200),
        (format!("Bearer {TOKEN}0"), 401),
        ("Bearer ".to_owned(), 401),
        (format!("Basic {TOKEN}"), 401),
        (TOKEN.to_owned(), 401),
    ] {
        let mut asked = request(Method::GET, "/api/v1/goals");
        asked.headers_mut().insert("authorization", given.parse().expect("a header"));
        assert_eq!(collector.ask(asked).await.status.as_u16(), status, "{given}");
    }
}

#[tokio::test]
async fn nothing_can_be_written() {
    let collector = Collector::new(None);
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS, Method::TRACE] {
        let answer = collector.ask(request(method, "/api/v1/agencies")).await;
        answer.is_problem(StatusCode::METHOD_NOT_ALLOWED, "only reads");
        assert_eq!(answer.headers["allow"], "GET, HEAD");
    }
    let mut asked = request(Method::GET, "/api/v1/agencies");
    *asked.body_mut() = Body::from("x");
    collector.ask(asked).await.is_problem(StatusCode::PAYLOAD_TOO_LARGE, "body");
    let head = collector.ask(request(Method::HEAD, "/api/v1/agencies")).await;
    assert_eq!((head.status, head.text.as_str()), (StatusCode::OK, ""));
}

#[tokio::test(start_paused = true)]
async fn health_is_a_new_snapshot_and_not_a_promise() {
    let collector = Collector::new(None);
    let stalled = collector.get("/healthz").await;
    stalled.is_problem(StatusCode::SERVICE_UNAVAILABLE, "no snapshot");
    let renew = async |answer: &str| {
        let tick = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            collector.snapshots.send_replace(Arc::new(city()));
        };
        tokio::join!(collector.get(answer), tick).0
    };
    assert_eq!(renew("/healthz").await.text, "ok\n");
    let ready = renew("/readyz").await;
    assert_eq!((ready.status, &ready.json()["ready"]), (StatusCode::OK, &true.into()));
    collector.listeners.send_replace(false);
    let ready = renew("/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["listeners_bound"], false);
    assert_eq!(ready.json()["snapshot_fresh"], true);
}

#[tokio::test]
async fn metrics_are_the_exposition_of_the_current_snapshot() {
    let answer = Collector::new(None).get("/metrics").await;
    assert_eq!(answer.headers["content-type"], metrics::CONTENT_TYPE);
    assert_eq!(answer.text.matches("\nhaidang_agency_state{").count(), 631 * 7);
    assert!(answer.text.contains("\nhaidang_collector_store_up "));
}

#[tokio::test]
async fn the_page_names_who_is_out_and_hides_no_rounding() {
    let answer = Collector::new(None).get("/").await;
    assert!(
        answer.headers["content-security-policy"]
            .to_str()
            .is_ok_and(|policy| policy.starts_with("default-src 'none'"))
    );
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(answer.text.contains("<strong>99,2 %</strong>"), "626 of 631, rounded down");
    assert!(answer.text.contains("Sở Nội vụ") && answer.text.contains("Đường truyền vật lý"));
    assert!(answer.text.contains("UBND Quận Ba Đình: phần lớn"));
    assert!(!answer.text.contains("<script") && !answer.text.contains("style="));
    assert_eq!(answer.text.matches("class=\"state not_enrolled\"").count(), 1, "only in the table");
}

#[tokio::test]
async fn every_path_of_the_document_is_served() {
    let collector = Collector::new(None);
    let document = collector.get("/api/v1/openapi.json").await.json();
    let paths = document["paths"].as_object().expect("paths");
    // Health waits for a new snapshot, so they are made until it has answered.
    let snapshots = async {
        loop {
            collector.snapshots.send_modify(|_| ());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let answers = async {
        let agent = city().agents[0].agent.to_string();
        for path in paths.keys() {
            let id = if path.starts_with("/api/v1/agents/") { &agent } else { "01-018" };
            let answer = collector.get(&path.replace("{id}", id)).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        }
    };
    tokio::select! {
        () = answers => {}
        () = snapshots => {}
    }
    assert_eq!(paths.len(), 13);
}

#[tokio::test]
async fn a_connection_is_served_counted_and_drained() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let collector = Collector::new(None);
    let metrics = CollectorMetrics::new("0.1.0", UNIX_EPOCH).expect("the table is sound");
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
    let address = listener.local_addr().expect("bound");
    let stop = tokio_util::sync::CancellationToken::new();
    let served = serve(listener, collector.router.clone(), metrics.clone(), stop.clone());
    let client = async {
        let mut stream = tokio::net::TcpStream::connect(address).await.expect("listening");
        let asked = "GET /api/v1/goals HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.write_all(asked.as_bytes()).await.expect("sent");
        let mut head = [0; 15];
        stream.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        stop.cancel();
        stream.read_to_end(&mut Vec::new()).await.expect("closed by the server");
    };
    tokio::join!(served, client);
    let snapshot = Arc::clone(&collector.snapshots.borrow());
    let chunks = Exposition::new(snapshot, &metrics);
    let text = String::from_utf8(chunks.flatten().collect()).expect("text");
    assert!(text.contains("haidang_collector_connections{listener=\"http\"} 0\n"));
}

#[test]
fn the_label_sets_of_the_document_are_ours() {
    let document: Value = serde_json::from_str(include_str!("openapi.json")).expect("JSON");
    let schemas = &document["components"]["schemas"];
    assert_eq!(schemas["AgencyState"]["enum"], serde_json::json!(AgencyState::LABELS));
    let flags: Vec<&str> = Flag::ALL.iter().map(|flag| flag.as_str()).collect();
    assert_eq!(schemas["Flag"]["enum"], serde_json::json!(flags));
    let findings: Vec<&str> = Finding::ALL.iter().map(|finding| finding.as_str()).collect();
    let listed = &schemas["Agency"]["properties"]["findings"]["items"]["enum"];
    assert_eq!(*listed, serde_json::json!(findings));
    let reasons: Vec<&str> = Suppression::ALL.iter().map(|reason| reason.as_str()).collect();
    assert_eq!(schemas["Suppression"]["enum"], serde_json::json!(reasons));
    let kinds: Vec<&str> =
        crate::roster::AgencyKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(schemas["AgencyKind"]["enum"], serde_json::json!(kinds));
    let checks: Vec<&str> = CheckId::ALL.iter().map(|check| check.as_str()).collect();
    assert_eq!(schemas["CheckId"]["enum"], serde_json::json!(checks));
    assert_eq!(schemas["CheckList"]["maxItems"], CHECKS);
    for label in DisconnectCause::LABELS {
        let known = schemas["StateDetail"]["enum"].as_array().expect("a list");
        assert!(known.contains(&label.into()), "{label}");
    }
}

#[tokio::test]
async fn an_agencys_posture_names_its_machines_and_who_answers_for_what() {
    let collector = Collector::new(None);
    let first = city().roster.agencies()[0].id.clone();
    let posture = collector.get(&format!("/api/v1/agencies/{first}/posture")).await.json();
    assert_eq!(posture["machines"]["enrolled"], 3);
    assert_eq!((&posture["score_worst"], &posture["meets_goal"]), (&0.into(), &false.into()));
    let known = CHECKS;
    assert_eq!(posture["checks"].as_array().map(Vec::len), Some(known), "unheard is unknown");
    let lock = posture["checks"].as_array().expect("checks").iter();
    let lock = lock.clone().find(|check| check["check"] == "screen_lock").expect("it is there");
    assert_eq!((&lock["unknown"], &lock["is_accepted"]), (&3.into(), &true.into()));
    assert_eq!(posture["exceptions"][0]["owner"], "Phòng CNTT");
    assert_eq!(posture["agents"][0]["standing"], "never");
    collector
        .get("/api/v1/agencies/01-nowhere/posture")
        .await
        .is_problem(StatusCode::NOT_FOUND, "no agency");
}

#[tokio::test]
async fn an_agents_posture_is_empty_until_it_sends_one() {
    let collector = Collector::new(None);
    let id = city().agents[3].agent;
    let posture = collector.get(&format!("/api/v1/agents/{id}/posture")).await.json();
    assert_eq!(
        (&posture["standing"], &posture["checks"]),
        (&"never".into(), &Value::from(Vec::<u8>::new()))
    );
    for nobody in [
        "/api/v1/agents/nonsense/posture",
        "/api/v1/agents/00000000-0000-4000-8000-000000000000/posture",
    ] {
        collector.get(nobody).await.is_problem(StatusCode::NOT_FOUND, "enrolled");
    }
}
