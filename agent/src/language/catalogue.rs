//! The catalogue itself: one line a key, Vietnamese and English side by side.

use super::Language;

/// Declares the keys with their two texts; a key without both does not compile.
macro_rules! catalogue {
    ($($(#[$doc:meta])* $key:ident: $vi:literal, $en:literal;)+) => {
        /// A text of the catalogue.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Key { $($(#[$doc])* #[doc = $en] $key,)+ }

        impl Key {
            /// Every key.
            pub const ALL: &[Self] = &[$(Self::$key,)+];

            /// The text in a language.
            pub const fn text(self, language: Language) -> &'static str {
                match (self, language) {
                    $((Self::$key, Language::Vi) => $vi, (Self::$key, Language::En) => $en,)+
                }
            }
        }
    };
}

catalogue! {
    // States.
    StateConnected: "Đã kết nối", "Connected";
    StateDegraded: "Suy giảm chất lượng", "Degraded";
    StateDnsBroken: "Lỗi phân giải tên miền", "DNS broken";
    StateServiceBroken: "Lỗi dịch vụ", "Service broken";
    StateDisconnected: "Mất kết nối", "Disconnected";
    StateUnknown: "Chưa xác định", "Unknown";

    // Diagnoses.
    Connected: "Máy này đã kết nối tới mạng truyền số liệu chuyên dùng.",
        "This machine is connected to the dedicated network.";
    LinkDown: "Cổng mạng nối tới mạng truyền số liệu chuyên dùng không hoạt động: đã bị tắt, chưa cắm cáp hoặc thiết bị đầu kia mất điện.",
        "The interface to the dedicated network is down: switched off, unplugged, or the device at the other end has no power.";
    NoAddress: "Cổng mạng hoạt động nhưng không có địa chỉ IP thuộc dải của cơ quan: kiểm tra DHCP hoặc cấu hình địa chỉ.",
        "The interface is up but has no address inside the agency's prefixes: check DHCP or the address set by hand.";
    NoRoute: "Bảng định tuyến của máy không dẫn tới mạng truyền số liệu chuyên dùng qua cổng mạng đã khai báo.",
        "This machine's routing table does not lead to the dedicated network through the configured interface.";
    GatewayUnreachable: "Bộ định tuyến của cơ quan không trả lời: kiểm tra nguồn điện, dây mạng và thiết bị của nhà mạng đặt tại cơ quan.",
        "The agency's router does not answer: check its power, the cabling and the carrier's device on the premises.";
    CoreUnreachable: "Bộ định tuyến của cơ quan vẫn hoạt động hoặc không rõ, nhưng không tới được trung tâm mạng: báo đơn vị cung cấp đường truyền.",
        "The router is there or not known, but nothing in the core of the network answers: report it to the carrier of the line.";
    Loss: "Kết nối được nhưng mất gói tin vượt ngưỡng cho phép.",
        "The path works but loses more packets than the threshold allows.";
    Rtt: "Kết nối được nhưng độ trễ khứ hồi vượt ngưỡng cho phép.",
        "The path works but its round-trip time is over the threshold.";
    DelayVariation: "Kết nối được nhưng độ trễ dao động vượt ngưỡng cho phép, họp trực tuyến sẽ giật, ngắt quãng.",
        "The path works but its delay varies more than the threshold allows: online meetings will stutter.";
    PathMtu: "Gói tin nhỏ qua được nhưng gói tin lớn bị mất: kiểm tra MTU trên đường truyền.",
        "Small packets pass but large ones vanish: check the MTU along the line.";
    Recovering: "Kết nối vừa khôi phục, đang theo dõi độ ổn định.",
        "The connection has just come back and is being watched for stability.";
    DnsSilent: "Kết nối được nhưng máy chủ tên miền không trả lời.",
        "The path works but the name servers do not answer.";
    DnsRefused: "Kết nối được nhưng máy chủ tên miền từ chối truy vấn.",
        "The path works but the name servers refuse queries.";
    DnsServerFailure: "Kết nối được nhưng máy chủ tên miền báo lỗi.",
        "The path works but the name servers answer with an error.";
    DnsWrongAnswer: "Kết nối được nhưng máy chủ tên miền trả lời sai: có thể bị cấu hình sai hoặc bị giả mạo.",
        "The path works but a name server gives a wrong answer: misconfigured, or forged.";
    ServiceSilent: "Kết nối và tên miền đều tốt nhưng dịch vụ không trả lời.",
        "Path and names work but a service does not answer.";
    ServiceRefused: "Kết nối và tên miền đều tốt nhưng dịch vụ từ chối kết nối.",
        "Path and names work but a service refuses connections.";
    ServiceWrongStatus: "Kết nối và tên miền đều tốt nhưng dịch vụ trả về mã trạng thái lỗi.",
        "Path and names work but a service answers with an unexpected status.";
    ServiceWrongAnswer: "Kết nối và tên miền đều tốt nhưng dịch vụ trả lời sai nội dung.",
        "Path and names work but a service gives a wrong answer.";
    TlsIntercepted: "Kết nối mã hóa bị một thiết bị ở giữa chặn và thay chứng thư số.",
        "Encrypted connections are intercepted by a device in between that presents its own certificate.";
    Starting: "Chương trình vừa khởi động, chưa đủ số liệu để kết luận.",
        "The agent has just started and has not seen enough yet.";
    Resumed: "Máy vừa thức dậy sau khi ngủ, đang kiểm tra lại.",
        "The machine has just woken from sleep and is being checked again.";
    Starved: "Máy quá tải nên phép đo không đáng tin cậy.",
        "The machine is overloaded, so what was measured cannot be trusted.";
    NotMeasured: "Không đo được: chưa khai báo đủ hoặc phép đo không thực hiện được trên máy này.",
        "Nothing could be measured: something is not configured, or the probes cannot be sent from this machine.";

    // Flags.
    Leak: "Lưu lượng tới mạng truyền số liệu chuyên dùng đang đi qua đường khác.",
        "Traffic for the dedicated network leaves this machine by another way.";
    DualHomed: "Máy nối đồng thời mạng truyền số liệu chuyên dùng và một mạng khác.",
        "This machine is attached to the dedicated network and to another one at the same time.";
    Bridging: "Máy đang nối thông mạng truyền số liệu chuyên dùng với mạng khác: phải ngắt ngay.",
        "This machine joins the dedicated network to another one: separate them at once.";
    InternetReachable: "Từ máy này truy cập được Internet.",
        "The Internet can be reached from this machine.";
    Flapping: "Kết nối chập chờn: ít nhất 4 lần thay đổi trong 30 phút.",
        "The connection flaps: at least 4 changes in 30 minutes.";
    AnchorDown: "Có điểm mốc không trả lời trong khi điểm mốc khác vẫn trả lời.",
        "One anchor does not answer while another does.";
    IcmpUnavailable: "Máy này không được phép gửi ICMP echo, chỉ đo bằng TCP.",
        "This machine may not send ICMP echo; TCP alone is measured.";
    IcmpFiltered: "ICMP echo bị lọc trên đường truyền, chỉ đo bằng TCP.",
        "ICMP echo is filtered on the way; TCP alone is measured.";

    // Whom to call.
    CallNobody: "không cần liên hệ", "nobody";
    CallOwnMachine: "người quản trị máy tính này", "whoever looks after this machine";
    CallOwnLan: "người quản trị mạng nội bộ của cơ quan", "whoever looks after the agency's local network";
    CallCarrier: "đơn vị cung cấp đường truyền", "the carrier of the agency's line";
    CallCore: "đơn vị vận hành trung tâm mạng", "the operator of the network's core";
    CallService: "đơn vị vận hành dịch vụ", "the operator of the service";

    // The table of `check`.
    Title: "Kiểm tra kết nối mạng truyền số liệu chuyên dùng", "Check of the connection to the dedicated network";
    ColumnWhat: "Hạng mục", "What";
    ColumnSubject: "Đối tượng", "Subject";
    ColumnResult: "Kết quả", "Result";
    LayerInterface: "Cổng mạng", "Interface";
    LayerAddress: "Địa chỉ IP", "Address";
    LayerOtherNetworks: "Mạng khác", "Other networks";
    LayerRoute: "Định tuyến", "Route";
    LayerNeighbour: "ARP/NDP", "ARP/NDP";
    LayerGateway: "Bộ định tuyến", "Gateway";
    LayerAnchorEcho: "Điểm mốc, echo", "Anchor, echo";
    LayerAnchorTcp: "Điểm mốc, TCP", "Anchor, TCP";
    LayerDns: "Tên miền", "DNS";
    LayerService: "Dịch vụ", "Service";
    LayerUnbound: "Đường khác", "Other way";
    LayerCanary: "Internet", "Internet";
    LayerPathMtu: "MTU", "Path MTU";
    LayerProber: "Bộ đo", "Prober";
    LayerEnrolment: "Đăng ký", "Enrolment";
    Machine: "Máy", "Machine";
    Verdict: "Kết luận", "Verdict";
    Call: "Liên hệ", "Call";
    Findings: "Lưu ý", "Findings";
    MissingHeading: "Còn thiếu", "Missing";
    AllInPlace: "Không thiếu gì.", "Nothing is missing.";

    // Results.
    Up: "hoạt động", "up";
    AdminDown: "bị tắt", "switched off";
    NoCarrier: "mất tín hiệu cáp", "no carrier";
    NotFound: "không tìm thấy", "not found";
    Present: "có", "present";
    OutsidePrefixes: "ngoài dải của cơ quan", "outside the prefixes";
    Absent: "không có", "absent";
    Apart: "tách biệt", "apart";
    Attached: "có nối, không thông nhau", "attached, not joined";
    Joined: "bị nối thông qua", "joined by";
    ByDedicated: "qua mạng chuyên dùng", "by the dedicated network";
    Elsewhere: "qua cổng khác", "by another interface";
    NotRead: "không đọc được", "could not be read";
    Resolved: "đã phân giải", "resolved";
    Unresolved: "không trả lời", "no answer";
    Answered: "trả lời", "answered";
    AnsweredLate: "trả lời trễ", "answered late";
    Silent: "không trả lời", "no answer";
    Rejected: "bị từ chối bởi", "rejected by";
    NotSent: "không gửi được", "could not be sent";
    Forbidden: "không được phép", "not permitted here";
    NotTried: "không thử", "not tried";
    Proved: "đúng danh tính", "identity proved";
    ConnectedTcp: "kết nối được", "connected";
    Impostor: "sai danh tính", "somebody else answered";
    Refused: "từ chối", "refused";
    Right: "đúng", "right";
    Wrong: "sai", "wrong";
    ServerFailure: "máy chủ báo lỗi", "server failure";
    UnexpectedStatus: "mã trạng thái", "status";
    Intercepted: "chứng thư số của", "certificate by";
    Reached: "tới được", "reached";
    Unreached: "không tới được", "not reached";
    Passes: "gói lớn qua được", "large packets pass";
    Vanishes: "gói lớn bị mất", "large packets vanish";
    Signalled: "bộ định tuyến báo MTU", "a router names the MTU";
    LagFine: "đúng nhịp", "on time";
    LagHigh: "chậm nhịp", "late";
    Enrolled: "đã đăng ký", "enrolled";
    NotEnrolled: "chưa triển khai", "not enrolled";

    // The table of `status`.
    StatusTitle: "Trạng thái chương trình giám sát trên máy này", "State of the agent on this machine";
    StatusPath: "Đường truyền", "Path";
    StatusSince: "Từ lúc", "Since";
    StatusAgency: "Cơ quan", "Agency";
    StatusAgent: "Mã máy", "Agent";
    StatusCertificateEnds: "Chứng thư số hết hạn", "Certificate ends";
    StatusUplink: "Báo cáo", "Reports";
    StatusLastReport: "Báo cáo gần nhất", "Last report";
    StatusPosture: "An ninh máy", "Security order";
    StatusEvaluation: "Thời gian kiểm tra", "Evaluation time";
    StatusLongestCheck: "Mục lâu nhất", "Longest check";
    StatusParked: "Mục tạm gác (quá hạn 3 lần)", "Parked (timed out 3 times)";
    StatusWaiting: "Bản ghi chờ gửi", "Records waiting";
    StatusDropped: "Bản ghi đã bỏ", "Records dropped";
    StatusProblem: "Vấn đề", "Problem";
    StatusNone: "chưa có", "none yet";
    StandingNotEnrolled: "máy chưa đăng ký", "this machine is not enrolled";
    StandingUnusable: "không dùng được thông tin đăng ký", "the identity cannot be used";
    StandingConnecting: "đang kết nối tới trung tâm giám sát", "connecting to the collector";
    StandingReporting: "đang gửi tới", "arriving at";
    StandingReportingFallback: "đang gửi qua đường dự phòng tới", "arriving, by the fallback, at";
    StandingRevoked: "đã bị thu hồi, chờ đăng ký lại", "revoked; waiting to be enrolled again";
    StatusNotRunning: "Chương trình không chạy, hoặc tài khoản này không được phép hỏi nó.",
        "The agent does not run, or this account may not ask it.";

    // The way to an anchor.
    WayHeading: "Đường đi tới", "Way to";
    WayTarget: "điểm mốc", "the anchor";
    WayReached: "Tới được điểm mốc.", "The anchor was reached.";
    WayRefused: "Đường đi kết thúc vì thiết bị này từ chối chuyển tiếp:", "The way ends because this device refuses to pass packets on:";
    WaySilentAfter: "Không có trả lời từ sau thiết bị này; sự cố có thể nằm ở chặng kế tiếp:", "Nothing answers behind this device; the fault may be at the next hop:";
    WaySilent: "Không thiết bị nào trên đường đi trả lời.", "No device on the way answers.";
    WayNotSent: "Không gửi được gói tin nào từ máy này:", "No packet could be sent from this machine:";

    // What is missing, and what to do.
    MissingConfig: "Chưa có cấu hình dùng được. Sao chép tệp mẫu agent.toml vào đường dẫn này và điền thông tin của cơ quan, hoặc chỉ ra tệp khác bằng --config.",
        "There is no usable configuration. Copy the sample agent.toml to this path and fill in the agency's values, or name another file with --config.";
    MissingInterface: "Không tìm thấy cổng mạng đã khai báo. Kiểm tra mục dedicated.interface (xem tên bằng lệnh: ip link).",
        "The configured interface was not found. Check dedicated.interface (ip link lists the names).";
    MissingAddress: "Cổng mạng không có địa chỉ IP nào thuộc dải đã khai báo trong dedicated.local_prefixes. Kiểm tra DHCP, địa chỉ tĩnh hoặc dải đã khai báo.",
        "The interface has no address inside dedicated.local_prefixes. Check DHCP, the static address, or the prefixes.";
    MissingAnchors: "Chưa khai báo điểm mốc nào. Thêm ít nhất hai mục [[anchor]] ở hai nơi khác nhau của trung tâm mạng.",
        "No anchor is configured. Add at least two [[anchor]] entries at different sites of the core.";
    MissingSecondAnchor: "Mới có một điểm mốc: sự cố của nó sẽ bị coi là mất kết nối. Nên thêm điểm mốc thứ hai ở nơi khác.",
        "There is only one anchor: its own failure will look like an outage. Add a second one at another site.";
    MissingTcpPort: "Không điểm mốc nào có tcp_port: khi ICMP bị lọc sẽ không đo được, và kết luận mất kết nối đến chậm hơn.",
        "No anchor has a tcp_port: nothing can be measured where ICMP is filtered, and outages are confirmed more slowly.";
    MissingPingGroup: "Nhân không cho phép nhóm của chương trình gửi ICMP echo (net.ipv4.ping_group_range). Mở rộng dải để gồm nhóm đó, ví dụ: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"; dải này dùng chung cho cả máy, chỉ nên mở rộng, không thu hẹp.",
        "The kernel does not let the agent's group send ICMP echo (net.ipv4.ping_group_range). Widen the range to include that group, for example: sysctl -w net.ipv4.ping_group_range=\"0 2147483647\"; the whole machine shares this range, so only widen it.";
    MissingEnrolment: "Máy chưa đăng ký với trung tâm giám sát. Xin mã đăng ký của cơ quan rồi chạy: haidang-agent enroll.",
        "This machine is not enrolled with the collector. Ask for the agency's enrolment code and run: haidang-agent enroll.";
    UnreadableEnrolment: "Không đọc được thông tin đăng ký của máy. Chạy lại bằng quyền root hoặc người dùng của dịch vụ.",
        "This machine's enrolment could not be read. Run this as root or as the service's user.";
    ClockDoubted: "Theo đồng hồ của máy này, chứng thư số của trung tâm giám sát đã hết hạn, nên máy không gửi được báo cáo. Nhiều khả năng ngày giờ của máy sai: xem và sửa bằng timedatectl (pin CMOS, đồng bộ NTP); máy tự kết nối lại sau chừng một phút. Nếu ngày giờ đúng, báo đơn vị vận hành trung tâm giám sát.",
        "By this machine's clock the collector's certificate is over, so no report can be sent. Most likely the clock is wrong: look at it and set it with timedatectl (CMOS battery, NTP); the agent connects again within a minute or so. If the clock is right, tell the operator of the collector.";
    ClockBehind: "Đồng hồ của máy chậm: ngày giờ hiện tại còn trước ngày máy được cấp chứng thư số. Sửa bằng timedatectl (pin CMOS, đồng bộ NTP).",
        "This machine's clock is behind: it stands before the day on which the machine's certificate was issued. Set it with timedatectl (CMOS battery, NTP).";
    CertificateOver: "Theo đồng hồ của máy, chứng thư số của máy đã hết hạn. Nếu ngày giờ sai, sửa bằng timedatectl; nếu đúng, chương trình sẽ tự xin cấp lại khi đang chạy.",
        "By this machine's clock the machine's own certificate is over. If the clock is wrong, set it with timedatectl; if it is right, the running agent asks for another by itself.";

    // Posture.
    PostureHeading: "AN TOÀN CỦA MÁY", "THIS MACHINE'S SECURITY";
    SeverityCritical: "Nghiêm trọng", "Critical";
    SeverityHigh: "Cao", "High";
    SeverityMedium: "Trung bình", "Medium";
    SeverityLow: "Thấp", "Low";
    VerdictPass: "đạt", "pass";
    VerdictFail: "không đạt", "fail";
    VerdictNotApplicable: "không áp dụng", "not applicable";
    VerdictUnknown: "chưa xác định", "unknown";
    Seen: "Thấy", "Seen";
    Why: "Vì sao", "Why";
    Remedy: "Cần làm", "To do";
    NeedsPrivilege: "Chương trình không đủ quyền đọc mục này: chạy lại bằng sudo.", "This process may not read it: run again with sudo.";
}
