//! The page's words in both languages; official terms where there are any.

use haidang_proto::model::goodbye::GoodbyeReason;
use haidang_proto::model::verdict::DownCause;
use jiff::tz::Offset;

use crate::snapshot::{AgencyState, DisconnectCause, IncidentKind};

/// Vietnam has no daylight saving time.
pub(super) const LOCAL_OFFSET: Offset = Offset::constant(7);

/// One thing said twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Words {
    pub(super) vi: &'static str,
    pub(super) en: &'static str,
}

const fn words(vi: &'static str, en: &'static str) -> Words {
    Words { vi, en }
}

/// What the headline divides by what.
pub(super) const DEFINITION: Words = words(
    "(Đã kết nối + Suy giảm chất lượng) / toàn bộ cơ quan trong danh sách. Cơ quan không nhận được \
     tín hiệu, chưa xác định và chưa triển khai đều tính là chưa kết nối.",
    "(Connected + degraded) / all agencies of the roster. Silent, unknown and never-enrolled \
     agencies count as not connected.",
);

/// A state, by its label.
pub(super) fn state(label: &str) -> Words {
    match label {
        "connected" => words("Đã kết nối", "Connected"),
        "degraded" => words("Suy giảm chất lượng", "Degraded"),
        "disconnected" => words("Mất kết nối", "Disconnected"),
        "off_network" => words("Ngoài mạng TSLCD", "Off the dedicated network"),
        "silent" => words("Không nhận được tín hiệu", "Silent (no report)"),
        "not_enrolled" => words("Chưa triển khai", "Not enrolled"),
        _ => words("Chưa xác định", "Unknown"),
    }
}

/// What stands behind a state, if anything is known.
pub(super) fn detail(state: AgencyState) -> Option<Words> {
    match state {
        AgencyState::Disconnected(cause) => Some(disconnect_cause(cause)),
        AgencyState::Silent { stopped: Some(reason) } => Some(stopped(reason)),
        AgencyState::Connected
        | AgencyState::Degraded
        | AgencyState::OffNetwork
        | AgencyState::Silent { stopped: None }
        | AgencyState::Unknown
        | AgencyState::NotEnrolled => None,
    }
}

fn disconnect_cause(cause: DisconnectCause) -> Words {
    match cause {
        DisconnectCause::Agent(DownCause::LinkDown) => {
            words("Đường truyền vật lý mất tín hiệu", "The link is down")
        }
        DisconnectCause::Agent(DownCause::NoAddress) => {
            words("Không có địa chỉ thuộc dải của cơ quan", "No address in the agency's prefixes")
        }
        DisconnectCause::Agent(DownCause::NoRoute) => {
            words("Không có tuyến qua giao diện chuyên dùng", "No route by the dedicated interface")
        }
        DisconnectCause::Agent(DownCause::GatewayUnreachable) => {
            words("Không liên lạc được với thiết bị cổng", "The gateway does not answer")
        }
        DisconnectCause::Agent(DownCause::CoreUnreachable) => {
            words("Không tới được mạng trục", "The core does not answer")
        }
        DisconnectCause::NoAnswerFromCore => {
            words("Thiết bị cổng không trả lời mạng trục", "The gateway does not answer the core")
        }
        DisconnectCause::Unconfirmed => {
            words("Từ trước khi bộ thu thập khởi động lại", "From before the collector's restart")
        }
    }
}

fn stopped(reason: GoodbyeReason) -> Words {
    match reason {
        GoodbyeReason::Shutdown => words("Máy hoặc dịch vụ được tắt", "Shut down"),
        GoodbyeReason::Sleep => words("Máy ở chế độ ngủ", "Asleep"),
        GoodbyeReason::Upgrade => words("Đang nâng cấp", "Being upgraded"),
        GoodbyeReason::Uninstall => words("Đã gỡ cài đặt", "Uninstalled"),
    }
}

/// An incident.
pub(super) fn incident(kind: IncidentKind) -> Words {
    match kind {
        IncidentKind::Parent => words(
            "phần lớn cơ quan trực thuộc mất kết nối cùng lúc",
            "Most agencies beneath it fell together",
        ),
        IncidentKind::CollectorSuspected => words(
            "Nghi ngờ sự cố ở bộ thu thập hoặc mạng trục; chưa kết luận cho từng cơ quan",
            "The collector or the core is suspected; agencies concerned are not judged",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_state_and_detail_has_words_of_its_own() {
        let states: HashSet<&str> =
            AgencyState::LABELS.into_iter().map(|label| state(label).vi).collect();
        assert_eq!(states.len(), AgencyState::LABELS.len());
        let causes: HashSet<&str> = DisconnectCause::LABELS
            .into_iter()
            .map(|label| DisconnectCause::from_label(label).expect(label))
            .map(|cause| disconnect_cause(cause).vi)
            .collect();
        assert_eq!(causes.len(), DisconnectCause::LABELS.len());
    }
}
