//! A captive portal, as in a hotel or behind an unpaid subscription: whatever is asked on the way
//! to the Internet, it answers itself. HTTP gets a redirection, names get its own address, and
//! echo is answered in everybody's name.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket};

use anyhow::{Context, Result};
use axum::Router;
use http::{StatusCode, header};
use tokio_util::task::AbortOnDropHandle;

use crate::core_services::{self, Answer};
use crate::netns::Netns;

/// A running portal; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Portal {
    /// Where its web server and its resolver listen.
    pub(crate) port: u16,
    _serving: [AbortOnDropHandle<()>; 2],
}

impl Portal {
    /// Listens inside a namespace. `address` is its own, which it gives for every name.
    ///
    /// # Errors
    /// When it cannot listen.
    pub(crate) fn start(netns: &Netns, address: Ipv4Addr) -> Result<Self> {
        let listener = netns.inside(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
        let listener = listener.context("listen as a portal")?;
        let port = listener.local_addr().context("ask for the port")?.port();
        let resolver = netns.inside(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)))?;
        let resolver = resolver.context("listen as the portal's resolver")?;
        listener.set_nonblocking(true).context("set a socket to non-blocking")?;
        resolver.set_nonblocking(true).context("set a socket to non-blocking")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("register a socket")?;
        let resolver = tokio::net::UdpSocket::from_std(resolver).context("register a socket")?;
        let page = move || async move {
            let to = [(header::LOCATION, format!("http://{address}/login"))];
            (StatusCode::FOUND, to, "<html><title>Đăng nhập / Log in</title></html>")
        };
        let web = tokio::spawn(async move {
            // Ends only when it is stopped.
            let _ = axum::serve(listener, Router::new().fallback(page)).await;
        });
        let answer = Answer { v4: address, v6: Ipv6Addr::LOCALHOST };
        let names = tokio::spawn(core_services::resolve(resolver, answer));
        Ok(Self { port, _serving: [web, names].map(AbortOnDropHandle::new) })
    }
}
