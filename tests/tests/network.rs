//! The laboratory itself: each cut breaks what it says, nothing else, and healing undoes it.
//! Needs root.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use haidang_tests::fault::Cut;
use haidang_tests::topology::{CORE_ON_INTERNET, Network, Site, SitePlan};
use haidang_tests::web::Endpoint;
use http::StatusCode;

/// A query for the address of `svc.test`, as a stub resolver sends it.
const QUERY: &[u8] = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0\x03svc\x04test\0\0\x01\0\x01";
/// Long enough for a veth and a relay, short enough for a table of cuts.
const SILENCE: Duration = Duration::from_millis(800);

/// What a user of the site meets.
#[derive(Debug, PartialEq)]
enum Met {
    /// Name and service work; the service saw this source.
    Works { seen_source: String },
    /// The resolver gives another address.
    Lie,
    /// The resolver does not answer.
    NoName,
    /// The service answers so.
    Status(StatusCode),
    /// The service does not answer.
    NoService,
}

async fn meet(site: &Site) -> Result<Met> {
    let resolver = SocketAddr::new(site.leg().resolver, 53);
    let answer = site.netns.inside(|| -> std::io::Result<Vec<u8>> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.connect(resolver)?;
        socket.send(QUERY)?;
        let mut answer = vec![0; 512];
        let length = socket.recv(&mut answer)?;
        answer.truncate(length);
        Ok(answer)
    })?;
    let Ok(answer) = answer else { return Ok(Met::NoName) };
    let std::net::IpAddr::V4(service) = site.leg().service else { unreachable!("it is IPv4") };
    if !answer.ends_with(&service.octets()) {
        return Ok(Met::Lie);
    }
    let endpoint = Endpoint::inside(Arc::clone(&site.netns), (service, 80).into());
    match endpoint.get_with("/", &[("haidang-nonce", "n-1")]).await {
        Err(_) => Ok(Met::NoService),
        Ok(answer) if answer.status != StatusCode::OK => Ok(Met::Status(answer.status)),
        Ok(answer) => {
            assert_eq!(answer.headers["haidang-nonce"], "n-1");
            let seen = answer.headers["haidang-seen-source"].to_str()?.to_owned();
            Ok(Met::Works { seen_source: seen })
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cut_breaks_what_it_says_and_healing_undoes_it() {
    let mut network =
        Network::build(&[SitePlan::default(); 2]).await.expect("the network is built");
    let [site, other] = &mut network.sites[..] else { unreachable!("two were asked for") };
    let works = || Met::Works { seen_source: "198.18.11.10".into() };
    let table = [
        (Cut::Link, Met::NoName),
        (Cut::Peer, Met::NoName),
        (Cut::Addr, Met::NoName),
        (Cut::Route, Met::NoName),
        (Cut::Gw, Met::NoName),
        (Cut::GwArp, Met::NoName),
        (Cut::Core, Met::NoName),
        (Cut::CoreUnreach, Met::NoName),
        (Cut::Dns, Met::NoName),
        (Cut::DnsLie, Met::Lie),
        (Cut::Svc, Met::NoService),
        (Cut::Svc503, Met::Status(StatusCode::SERVICE_UNAVAILABLE)),
        (Cut::Pmtu, works()),
    ];
    assert_eq!(meet(site).await.expect("asked"), works(), "before any cut");
    for (cut, expected) in table {
        site.cut(cut).await.expect("cut");
        assert_eq!(meet(site).await.expect("asked"), expected, "{cut:?}");
        let unharmed = Met::Works { seen_source: "198.18.12.10".into() };
        assert_eq!(meet(other).await.expect("asked"), unharmed, "the other site under {cut:?}");
        site.heal().await.expect("healed");
        // A gateway that had no ARP is asked again after a second or so.
        let (met, _) = haidang_tests::wait::until("healing", Duration::from_secs(10), || async {
            match meet(site).await {
                Ok(met) if met == works() => Ok(met),
                met => Err(format!("{met:?}")),
            }
        })
        .await
        .unwrap_or_else(|error| panic!("after {cut:?}: {error}"));
        assert_eq!(met, works());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_with_internet_leaks_when_its_link_is_cut() {
    let mut network = Network::build(&[SitePlan { internet: true, ..SitePlan::default() }])
        .await
        .expect("the network is built");
    let site = &mut network.sites[0];
    site.cut(Cut::Link).await.expect("cut");
    let leaked = Met::Works { seen_source: "192.0.2.1".into() };
    assert_eq!(meet(site).await.expect("asked"), leaked);
    assert!(site.netns.connect((CORE_ON_INTERNET, 80).into()).is_err(), "nothing listens there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_path_takes_longer_and_a_hole_swallows_large_answers() {
    let mut network = Network::build(&[SitePlan::default()]).await.expect("the network is built");
    let site = &mut network.sites[0];
    let service = SocketAddr::new(site.leg().service, 80);
    site.cut(Cut::Slow).await.expect("cut");
    let started = Instant::now();
    site.netns.connect(service).expect("slow, not dead");
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    site.heal().await.expect("healed");
    ask_largely(site).expect("a large packet passes before the cut");
    site.cut(Cut::Pmtu).await.expect("cut");
    ask_largely(site).expect_err("a large packet passed the hole");
}

/// Sends a query that fills the path's MTU.
fn ask_largely(site: &Site) -> std::io::Result<usize> {
    let ask = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.connect(SocketAddr::new(site.leg().resolver, 53))?;
        let mut query = QUERY.to_vec();
        query.resize(1450, 0);
        socket.send(&query)?;
        socket.recv(&mut [0; 512])
    };
    site.netns.inside(ask).expect("the namespace can be entered")
}
