use haidang_proto::model::fact::FactKind;
use haidang_proto::model::flag::Flags;
use haidang_proto::model::posture::UnknownReason;
use haidang_proto::model::quality::Quality;
use haidang_proto::model::record::Moment;
use haidang_proto::model::verdict::{DownCause, Verdict};
use tokio::task::JoinSet;

use super::*;
use crate::uplink::{Speaker, Target};

fn document() -> Document {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let fact = Fact {
        kind: FactKind::GatewayEcho,
        subject: "198.18.10.1".into(),
        value: "answered".into(),
    };
    let view = View {
        surroundings: Vec::new(),
        verdict: Verdict::Disconnected(DownCause::CoreUnreachable),
        since: Moment { boot_id: uuid::Uuid::nil(), boottime: Duration::ZERO, wall: at },
        proved_at: None,
        flags: Flags::default(),
        evidence: vec![fact],
        quality: Quality::default(),
        changes: 0,
    };
    let address = "198.18.0.10:7445".parse().unwrap();
    let uplink = uplink::Status {
        standing: Standing::Reporting(Target { address, way: Way::Fallback }),
        speaker: Some(Speaker {
            agency: "01-018".into(),
            agency_name: "Sở Nội vụ".into(),
            agent: "a".into(),
            certificate_ends: at,
        }),
        reported_at: None,
        problem: Some("no answer".into()),
        is_clock_doubted: false,
        clock_ahead_ms: Some(-3),
        clock_ahead_at_most: Some((12, Duration::from_secs(80))),
    };
    let standing = |check, outcome, took_us| CheckStanding {
        check,
        outcome,
        age: Duration::from_secs(1),
        took: Duration::from_micros(took_us),
        is_parked: outcome == Outcome::Unknown(UnknownReason::Timeout),
    };
    let shown = Shown {
        at: Some(Duration::from_secs(60)),
        processor: Duration::from_millis(80),
        standings: vec![
            standing(CheckId::OsSupported, Outcome::Pass, 900),
            standing(CheckId::PasswordPolicy, Outcome::Unknown(UnknownReason::Timeout), 20_400),
        ],
    };
    Document::new(view, uplink, JournalStatus::default(), &Settings::default(), Duration::ZERO)
        .with_posture(&shown, Duration::from_secs(90))
}

#[test]
fn evaluation_times_are_told_for_each_check_and_in_all() {
    let posture = document().posture;
    assert_eq!(posture.last_pass_age_seconds, Some(30));
    assert_eq!((posture.checks[1].took_us, posture.checks[1].age_seconds), (20_400, 31));
    let json = serde_json::to_value(&posture.checks[1]).unwrap();
    assert_eq!((&json["verdict"], &json["reason"]), (&"unknown".into(), &"timeout".into()));
    let table = document().table(Language::En);
    for part in ["21.3 ms", "password_policy 20.4 ms", "Parked (timed out 3 times)"] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

#[tokio::test]
async fn whoever_connects_gets_one_document() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("run").join("status.sock");
    let listener = listen(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, document, stop.clone()));
    for _ in 0..3 {
        let path = path.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&path)).await.unwrap();
        assert_eq!(asked.unwrap(), document());
    }
    assert!(listen(&path).is_err(), "a living socket is not taken over");
    stop.cancel();
    tasks.join_next().await.unwrap().unwrap();
    assert!(matches!(ask(&path), Err(AskError::Connect { .. })));
    listen(&path).expect("a socket left behind is replaced");
}

#[test]
fn the_table_tells_it_in_both_languages() {
    let vi = document().table(Language::Vi);
    for part in ["Mất kết nối", "Sở Nội vụ (01-018)", "đường dự phòng", "2023-11-14T22:13:20Z"]
    {
        assert!(vi.contains(part), "{part} in {vi}");
    }
    let en = document().table(Language::En);
    for part in ["Disconnected", "gateway_echo 198.18.10.1: answered", "none yet", "no answer"] {
        assert!(en.contains(part), "{part} in {en}");
    }
}

/// `check` judges the clock by it.
#[test]
fn the_collectors_clock_is_told_while_reports_arrive_there() {
    let mut uplink = document().uplink;
    let offset = ClockOffset { least_ms: -3, most_ms: 12 };
    assert_eq!(uplink.clock_offset(), Some(offset));
    uplink.standing = StandingLabel::Connecting;
    assert_eq!(uplink.clock_offset(), None);
}
