//! The ways to the anchors, hop by hop, as `check --path` shows them.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::evidence::{Hop, Way, WayLife};
use crate::language::{Key, Language};

use super::table::{WIDTH, wrapped};

/// One way, a line for each hop and one for how it ends.
pub(super) fn lines(way: &Way, language: Language) -> Vec<String> {
    let heading = Key::WayHeading.text(language);
    let mut lines = wrapped(&format!("{heading} {} ({}):", way.anchor, way.address), WIDTH);
    if let WayLife::Followed(hops) = &way.life {
        lines.extend((1..).zip(hops).map(|(number, hop)| hop_line(number, hop, language)));
    }
    let (end, _, detail) = end(way);
    let text = format!("{} {detail}", end.text(language));
    let mut text = wrapped(&text, WIDTH - 4);
    text.iter_mut().for_each(|line| line.insert_str(0, "    "));
    lines.extend(text);
    lines
}

fn hop_line(number: u32, hop: &Hop, language: Language) -> String {
    let (who, rtt) = match hop {
        Hop::Router { by, rtt } => (by.to_string(), Some(*rtt)),
        Hop::Target { rtt } => (Key::WayTarget.text(language).into(), Some(*rtt)),
        Hop::Refused { by, kind, code, rtt } => {
            let rejected = Key::Rejected.text(language);
            (format!("{rejected} {by}, ICMP {kind}/{code}"), Some(*rtt))
        }
        Hop::Silent => (Key::Silent.text(language).into(), None),
    };
    let rtt = rtt.map_or(String::new(), |rtt| format!("{:.1} ms", ms(rtt)));
    format!("{number:>4}  {who:<42}{rtt:>12}").trim_end().into()
}

/// How a way ends: the sentence, the label and the detail.
fn end(way: &Way) -> (Key, &'static str, String) {
    let hops = match &way.life {
        WayLife::Followed(hops) => hops,
        WayLife::Unsendable(fault) => return (Key::WayNotSent, "not_sent", fault.0.clone()),
        WayLife::Forbidden => return (Key::MissingPingGroup, "forbidden", String::new()),
    };
    let told = |hop: &Hop| match hop {
        Hop::Router { by, .. } | Hop::Refused { by, .. } => Some(*by),
        Hop::Target { .. } => Some(way.address),
        Hop::Silent => None,
    };
    match hops.last() {
        Some(Hop::Target { .. }) => (Key::WayReached, "reached", String::new()),
        Some(Hop::Refused { by, .. }) => (Key::WayRefused, "refused", by.to_string()),
        Some(Hop::Router { .. } | Hop::Silent) | None => {
            let last: Option<IpAddr> = hops.iter().rev().find_map(told);
            match last {
                Some(last) => (Key::WaySilentAfter, "silent", last.to_string()),
                None => (Key::WaySilent, "silent", String::new()),
            }
        }
    }
}

pub(super) fn json(ways: &[Way]) -> Value {
    ways.iter().map(way_json).collect()
}

fn way_json(way: &Way) -> Value {
    let hops: Vec<Value> = match &way.life {
        WayLife::Followed(hops) => (1..).zip(hops).map(hop_json).collect(),
        WayLife::Unsendable(_) | WayLife::Forbidden => Vec::new(),
    };
    let (_, end, detail) = end(way);
    json!({
        "anchor": way.anchor,
        "address": way.address,
        "end": end,
        "detail": detail,
        "hops": hops,
    })
}

fn hop_json((number, hop): (u32, &Hop)) -> Value {
    let (answered, by, rtt) = match hop {
        Hop::Router { by, rtt } => ("router", Some(*by), Some(*rtt)),
        Hop::Target { rtt } => ("target", None, Some(*rtt)),
        Hop::Refused { by, rtt, .. } => ("refused", Some(*by), Some(*rtt)),
        Hop::Silent => ("silent", None, None),
    };
    json!({ "hop": number, "answered": answered, "by": by, "rtt_ms": rtt.map(ms) })
}

/// To a microsecond: more is noise.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn way(hops: &[Hop]) -> Way {
        let address = IpAddr::from([198, 18, 0, 10]);
        Way { anchor: "core-a".into(), address, life: WayLife::Followed(hops.to_vec()) }
    }

    #[track_caller]
    fn ends(way: &Way, label: &str, detail: &str) {
        let page = json(std::slice::from_ref(way));
        assert_eq!((&page[0]["end"], &page[0]["detail"]), (&json!(label), &json!(detail)));
        for language in [Language::Vi, Language::En] {
            let lines = lines(way, language);
            assert!(lines.iter().all(|line| line.chars().count() <= WIDTH), "{lines:#?}");
            assert!(lines.last().is_some_and(|line| line.contains(detail)), "{lines:#?}");
        }
    }

    #[test]
    fn a_way_ends_at_the_target_at_a_refusal_or_in_silence_after_somebody() {
        let router = Hop::Router { by: [198, 18, 10, 1].into(), rtt: MS };
        let refused = Hop::Refused { by: [198, 18, 99, 1].into(), kind: 3, code: 13, rtt: MS };
        ends(&way(&[router, Hop::Target { rtt: MS }]), "reached", "");
        ends(&way(&[router, refused]), "refused", "198.18.99.1");
        ends(&way(&[router, Hop::Silent, Hop::Silent]), "silent", "198.18.10.1");
        ends(&way(&[Hop::Silent; 3]), "silent", "");
        ends(&way(&[]), "silent", "");
        let fault = crate::evidence::LocalFault("ENODEV".into());
        ends(&Way { life: WayLife::Unsendable(fault), ..way(&[]) }, "not_sent", "ENODEV");
        ends(&Way { life: WayLife::Forbidden, ..way(&[]) }, "forbidden", "");
    }

    #[test]
    fn hops_are_numbered_from_one_and_a_silent_one_has_no_time() {
        let by = IpAddr::from([198, 18, 10, 1]);
        let found = way(&[Hop::Router { by, rtt: MS }, Hop::Silent]);
        let hops = json(&[found])[0]["hops"].clone();
        assert_eq!(hops[0], json!({ "hop": 1, "answered": "router", "by": by, "rtt_ms": 1.0 }));
        assert_eq!(hops[1]["rtt_ms"], Value::Null);
    }
}
