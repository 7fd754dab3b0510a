use std::net::Ipv4Addr;

use hickory_proto::rr::Record;
use hickory_proto::rr::rdata::A;
use proptest::prelude::*;

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);
const INSIDE: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 80);
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 99);

fn loopback() -> Binding {
    Binding { device: Some("lo".into()), source: Some(Ipv4Addr::new(127, 0, 0, 9).into()) }
}

fn question() -> Question {
    Question {
        name: Name::from_ascii("svc.tslcd.test.").unwrap(),
        expected: vec!["198.18.0.0/15".parse().unwrap()],
    }
}

fn answer(id: u16, code: ResponseCode, addresses: &[Ipv4Addr]) -> Vec<u8> {
    let question = question();
    let mut message = question.message(id);
    message.metadata.message_type = MessageType::Response;
    message.metadata.response_code = code;
    for address in addresses {
        let data = RData::A(A(*address));
        message.add_answer(Record::from_rdata(question.name.clone(), 5, data));
    }
    message.to_vec().unwrap()
}

#[track_caller]
fn check(code: ResponseCode, addresses: &[Ipv4Addr], expected: &Dns) {
    let read = question().read(7, &answer(7, code, addresses), Duration::ZERO);
    assert_eq!(read.as_ref(), Some(expected));
}

#[test]
fn only_expected_addresses_are_right() {
    let wrong = |answered: &str| Dns::Wrong { answered: answered.into() };
    check(ResponseCode::NoError, &[INSIDE], &Dns::Right { rtt: Duration::ZERO });
    check(ResponseCode::NoError, &[OUTSIDE], &wrong("203.0.113.99"));
    check(ResponseCode::NoError, &[INSIDE, OUTSIDE], &wrong("198.18.0.80 203.0.113.99"));
    check(ResponseCode::NoError, &[], &wrong("no address"));
    check(ResponseCode::NXDomain, &[], &wrong("NXDOMAIN"));
    check(ResponseCode::Refused, &[], &Dns::Refused);
    check(ResponseCode::ServFail, &[], &Dns::ServerFailure { rcode: 2 });
    check(ResponseCode::NotImp, &[], &Dns::ServerFailure { rcode: 4 });
}

#[test]
fn a_foreign_message_is_no_answer() {
    let question = question();
    let right = answer(7, ResponseCode::NoError, &[INSIDE]);
    assert_eq!(question.read(8, &right, Duration::ZERO), None);
    assert_eq!(question.read(7, &question.message(7).to_vec().unwrap(), Duration::ZERO), None);
    let other = Question { name: Name::from_ascii("other.test.").unwrap(), ..question };
    assert_eq!(other.read(7, &right, Duration::ZERO), None);
    assert_eq!(other.read(7, &right[..20], Duration::ZERO), None);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = question().read(7, &bytes, Duration::ZERO);
    }

    #[test]
    fn any_damage_to_an_answer_is_survived(at in 0_usize..80, value in any::<u8>()) {
        let mut bytes = answer(7, ResponseCode::NoError, &[INSIDE]);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        let _ = question().read(7, &bytes, Duration::ZERO);
    }
}

async fn resolver() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_lost_question_is_asked_again_and_wrong_ids_are_ignored() {
    let (server, address) = resolver().await;
    let serve = async {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        server.recv_from(&mut bytes).await.unwrap();
        let (length, client) = server.recv_from(&mut bytes).await.unwrap();
        let id = Message::from_vec(&bytes[..length]).unwrap().metadata.id;
        let forged = answer(id.wrapping_add(1), ResponseCode::NoError, &[OUTSIDE]);
        server.send_to(&forged, client).await.unwrap();
        let right = answer(id, ResponseCode::NoError, &[INSIDE]);
        server.send_to(&right, client).await.unwrap();
        client
    };
    let (binding, question) = (loopback(), question());
    let (outcome, client) =
        tokio::join!(probe(&binding, address, &question, Duration::from_millis(900)), serve);
    assert!(matches!(outcome, Dns::Right { .. }), "{outcome:?}");
    assert_eq!(Some(client.ip()), binding.source);
}

#[tokio::test]
async fn wrong_names_and_wrong_sources_are_ignored_until_the_deadline() {
    let (server, address) = resolver().await;
    let (stranger, _) = resolver().await;
    let serve = async {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        loop {
            let (length, client) = server.recv_from(&mut bytes).await.unwrap();
            let id = Message::from_vec(&bytes[..length]).unwrap().metadata.id;
            let mut other =
                Message::from_vec(&answer(id, ResponseCode::NoError, &[INSIDE])).unwrap();
            other.queries[0].set_name(Name::from_ascii("other.test.").unwrap());
            server.send_to(&other.to_vec().unwrap(), client).await.unwrap();
            let right = answer(id, ResponseCode::NoError, &[INSIDE]);
            // The right words from the wrong mouth.
            stranger.send_to(&right, client).await.unwrap();
            server.send_to(&[0xff; 64], client).await.unwrap();
        }
    };
    let (binding, question) = (loopback(), question());
    let deadline = Duration::from_millis(300);
    let began = Instant::now();
    let outcome = tokio::select! {
        outcome = probe(&binding, address, &question, deadline) => outcome,
        () = serve => unreachable!("the server never ends"),
    };
    assert_eq!(outcome, Dns::Silent);
    assert!(began.elapsed() >= deadline, "it waited to the end");
}

#[tokio::test]
async fn a_deaf_resolver_is_silent_and_a_closed_port_refuses() {
    let (server, address) = resolver().await;
    let outcome = probe(&loopback(), address, &question(), Duration::from_millis(90)).await;
    assert_eq!(outcome, Dns::Silent);
    drop(server);
    let outcome = probe(&loopback(), address, &question(), DEADLINE).await;
    assert_eq!(outcome, Dns::Refused);
}
