use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const DEADLINE: Duration = Duration::from_secs(5);

fn loopback() -> Binding {
    Binding { device: Some("lo".into()), source: Some(Ipv4Addr::new(127, 0, 0, 9).into()) }
}

fn question(target: SocketAddr) -> Question {
    Question {
        target,
        path: "/".into(),
        host: "svc.tslcd.test".into(),
        status: 200,
        echoes_nonce: false,
        security: Security::Plain,
    }
}

/// Reads a request's head, and gives its nonce.
async fn request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    assert!(head.contains("host: svc.tslcd.test\r\n"), "{head}");
    let nonce = head.lines().find_map(|line| line.strip_prefix("haidang-nonce: "));
    nonce.unwrap().to_owned()
}

/// Asks a server that answers with what `response` makes of the nonce, and closes.
async fn ask_server(
    change: impl FnOnce(&mut Question),
    response: impl FnOnce(&str) -> String,
) -> ServiceAnswer {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let mut question = question(listener.local_addr().unwrap());
    change(&mut question);
    let serve = async {
        let (mut stream, client) = listener.accept().await.unwrap();
        assert_eq!(client.ip(), Ipv4Addr::new(127, 0, 0, 9));
        let nonce = request(&mut stream).await;
        let response = response(&nonce);
        // The prober may hang up first.
        let _written = stream.write_all(response.as_bytes()).await;
        let _closed = stream.shutdown().await;
    };
    let binding = loopback();
    tokio::join!(probe(&binding, &question, DEADLINE), serve).0
}

#[tokio::test]
async fn an_answer_tells_the_source_that_the_server_saw() {
    let answer = ask_server(
        |question| question.echoes_nonce = true,
        |nonce| {
            format!(
                "HTTP/1.1 200 OK\r\nhaidang-nonce: {nonce}\r\nhaidang-seen-source: 198.18.10.10\r\n\
                 content-length: 2\r\n\r\nOK"
            )
        },
    )
    .await;
    let ServiceAnswer::Right { seen_source, .. } = answer else { panic!("{answer:?}") };
    assert_eq!(seen_source, Some([198, 18, 10, 10].into()));
}

#[tokio::test]
async fn a_status_is_as_expected_or_named() {
    let busy = |_: &str| "HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_owned();
    assert_eq!(ask_server(|_| {}, busy).await, ServiceAnswer::WrongStatus { status: 503 });
    let answer = ask_server(|question| question.status = 503, busy).await;
    assert!(matches!(answer, ServiceAnswer::Right { .. }), "{answer:?}");
}

#[tokio::test]
async fn an_answer_without_the_nonce_is_wrong() {
    for header in ["", "haidang-nonce: 00\r\n"] {
        let answer = ask_server(
            |question| question.echoes_nonce = true,
            |_| format!("HTTP/1.1 200 OK\r\n{header}content-length: 0\r\n\r\n"),
        )
        .await;
        assert!(matches!(answer, ServiceAnswer::WrongAnswer { .. }), "{answer:?}");
    }
}

#[tokio::test]
async fn a_long_or_foreign_answer_is_wrong() {
    let long = "x".repeat(BODY_BYTES_MAX + 1);
    let answer = ask_server(|_| {}, |_| format!("HTTP/1.1 200 OK\r\n\r\n{long}")).await;
    assert!(matches!(answer, ServiceAnswer::WrongAnswer { .. }), "{answer:?}");
    let answer = ask_server(|_| {}, |_| "220 mail.example ESMTP\r\n\r\n".into()).await;
    assert!(matches!(answer, ServiceAnswer::WrongAnswer { .. }), "{answer:?}");
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_refused() {
    assert_eq!(ask_server(|_| {}, |_| String::new()).await, ServiceAnswer::Refused);
    let cut_short = |_: &str| "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nOK".to_owned();
    assert_eq!(ask_server(|_| {}, cut_short).await, ServiceAnswer::Refused);
}

#[tokio::test]
async fn a_service_that_drips_for_ever_is_silent() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let question = question(listener.local_addr().unwrap());
    let drip = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
        while stream.write_all(b"x").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        std::future::pending::<()>().await;
    };
    let binding = loopback();
    let answer = tokio::select! {
        answer = probe(&binding, &question, Duration::from_millis(300)) => answer,
        () = drip => unreachable!("the server never ends"),
    };
    assert_eq!(answer, ServiceAnswer::Silent);
}

#[tokio::test]
async fn a_closed_port_is_refused() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let question = question(listener.local_addr().unwrap());
    drop(listener);
    assert_eq!(probe(&loopback(), &question, DEADLINE).await, ServiceAnswer::Refused);
}
