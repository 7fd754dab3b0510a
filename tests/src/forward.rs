//! Ports of the host that lead into a namespace, so that a browser reaches what runs there.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use crate::web::Endpoint;

/// Connections of one forwarder at a time: a browser opens six.
const CONNECTIONS_MAX: usize = 64;

/// A running forwarder.
#[derive(Debug)]
pub struct Forwarder {
    /// Its address on the host.
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Forwarder {
    /// Starts one on loopback, on the target's own port if that is free on the host.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(target: Endpoint) -> Result<Self> {
        let preferred = SocketAddr::from((Ipv4Addr::LOCALHOST, target.address.port()));
        let listener = match TcpListener::bind(preferred).await {
            Ok(listener) => listener,
            Err(_) => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("find a free port")?
            }
        };
        let address = listener.local_addr().context("ask for the port")?;
        Ok(Self { address, task: tokio::spawn(forward(listener, target)) })
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(listener: TcpListener, target: Endpoint) {
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        // An error here is the client's, or want of descriptors; the next one may do better.
        let Ok((client, _)) = listener.accept().await else { continue };
        let target = target.clone();
        connections.spawn(async move {
            // Either end closes it; there is nobody to tell.
            let _ = copy(client, &target).await;
            drop(permit);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn copy(mut client: TcpStream, target: &Endpoint) -> Result<()> {
    let server = target.connect()?;
    server.set_nonblocking(true)?;
    let mut server = TcpStream::from_std(server)?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
