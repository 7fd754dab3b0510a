use haidang_proto::wire;
use proptest::prelude::*;

use super::*;

const BYTES_MAX: usize = 1_000;

fn framed(flag: u8, length: u32, rest: &[u8]) -> Vec<u8> {
    [&[flag], &length.to_be_bytes()[..], rest].concat()
}

/// Reads a body of these frames, which ends or breaks off after them.
fn read(frames: Vec<Vec<u8>>, breaks_off: bool) -> Result<Bytes, Status> {
    let frames = frames.into_iter().map(|bytes| Ok(Frame::data(Bytes::from(bytes))));
    let end = breaks_off.then_some(Err("reset"));
    let body = StreamBody::new(stream::iter(frames.chain(end)));
    futures_util::FutureExt::now_or_never(message_of(body, BYTES_MAX))
        .expect("it waits for nothing")
}

fn reason(read: Result<Bytes, Status>) -> (Code, Option<Refusal>) {
    let status = read.expect_err("it is refused");
    (status.code(), refusal_of(&status))
}

proptest! {
    #[test]
    fn a_message_is_the_same_however_it_is_cut(
        message in prop::collection::vec(any::<u8>(), 0..=BYTES_MAX),
        cuts in prop::collection::vec(0..=BYTES_MAX + PREFIX_BYTES, 0..8),
    ) {
        let whole = framed(0, u32::try_from(message.len()).expect("short"), &message);
        let mut cuts: Vec<_> = cuts.into_iter().map(|at| at.min(whole.len())).collect();
        cuts.extend([0, whole.len()]);
        cuts.sort_unstable();
        let frames = cuts.windows(2).map(|pair| whole[pair[0]..pair[1]].to_vec()).collect();
        prop_assert_eq!(read(frames, false).expect("it is whole"), message);
    }

    #[test]
    fn no_bytes_get_past_the_limit(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let length = declared(&bytes);
        if let Ok(message) = read(vec![bytes], false) {
            prop_assert_eq!(Some(message.len()), length);
            prop_assert!(message.len() <= BYTES_MAX);
        }
    }
}

#[test]
fn what_is_no_single_whole_message_is_refused_by_its_reason() {
    let malformed = (Code::InvalidArgument, Some(Refusal::Malformed));
    let too_large = (Code::ResourceExhausted, Some(Refusal::TooLarge));
    let compressed = (Code::Unimplemented, Some(Refusal::Malformed));
    for (what, frames, want) in [
        ("nothing", vec![], malformed),
        ("half a prefix", vec![vec![0, 0, 0]], malformed),
        ("a message that is cut off", vec![framed(0, 4, b"abc")], malformed),
        ("two messages", vec![[framed(0, 1, b"a"), framed(0, 1, b"b")].concat()], malformed),
        ("a second message in a frame of its own", vec![framed(0, 1, b"a"), vec![0]], malformed),
        ("a flag that there is not", vec![framed(2, 1, b"a")], malformed),
        ("a compressed message", vec![framed(1, 1, b"a")], compressed),
        ("one byte too many", vec![framed(0, 1_001, &[])], too_large),
        ("a gibibyte", vec![framed(0, 1 << 30, b"a")], too_large),
    ] {
        assert_eq!(reason(read(frames, false)), want, "{what}");
    }
}

#[test]
fn a_message_that_is_too_long_is_refused_before_it_has_come() {
    // The sender would go on for ever: the refusal must not wait for the end.
    let endless = stream::iter(std::iter::repeat_with(|| {
        Ok::<_, Infallible>(Frame::data(Bytes::from(framed(0, u32::MAX, b"more"))))
    }));
    let refused = message_of(StreamBody::new(endless), BYTES_MAX).now_or_never();
    let refused = refused.expect("it does not wait for the end");
    assert_eq!(reason(refused).1, Some(Refusal::TooLarge));
}

#[test]
fn a_request_that_its_sender_takes_back_is_nobodys_refusal() {
    assert_eq!(reason(read(vec![framed(0, 4, b"ab")], true)), (Code::Cancelled, None));
}

#[test]
fn an_answer_is_a_framed_message_and_then_its_status() {
    let message = wire::RenewResponse { certificate_chain_der: vec![vec![7; 300]] };
    let mut body = Answer::of(&message);
    assert!(!body.is_end_stream());
    let mut next = || {
        let frame = body.frame().now_or_never().expect("it is there");
        frame.map(|frame| frame.expect("it cannot fail"))
    };
    let data = next().expect("a message").into_data().expect("data first");
    let read = read(vec![data.to_vec()], false).expect("its own frame");
    assert_eq!(wire::RenewResponse::decode(read).expect("it is one"), message);
    let trailers = next().expect("trailers").into_trailers().expect("then trailers");
    assert_eq!(trailers[Status::GRPC_STATUS], "0");
    assert!(next().is_none());
    assert!(body.is_end_stream() && Answer::default().is_end_stream());
}

#[test]
fn only_a_post_of_grpc_is_a_call() {
    let request = |method, kind: Option<&str>| {
        let mut request = Request::builder().method(method);
        if let Some(kind) = kind {
            request = request.header(CONTENT_TYPE, kind);
        }
        request.body(()).expect("a request")
    };
    assert!(is_grpc(&request(Method::POST, Some("application/grpc"))));
    assert!(is_grpc(&request(Method::POST, Some("application/grpc+proto"))));
    for (method, kind) in [
        (Method::GET, Some("application/grpc")),
        (Method::POST, Some("application/json")),
        (Method::POST, None),
    ] {
        assert!(!is_grpc(&request(method.clone(), kind)), "{method} {kind:?}");
    }
    assert_eq!(not_grpc().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
}
