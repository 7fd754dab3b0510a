//! The collector as a whole: what is opened at the start, which tasks there are, and how they
//! end. Nothing else spawns.
//!
//! The start opens everything that can fail (state directory, CA, store, roster, sockets) before
//! a task runs. The tasks stand in two sets: the edge, which talks to peers, and the core, which
//! answers the edge. At the stop signal the edge ends first, with a grace for requests under
//! way, then the core writes what it holds and ends. A task that ends by itself is a fault and
//! stops the process.

mod certificates;
mod grpc;
mod requests;
mod restore;
mod tasks;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use haidang_proto::model::posture::Requirements;
use haidang_proto::model::settings::Settings;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::admin::{self, Operator};
use crate::calendar::Calendar;
use crate::clock::Clock;
use crate::config::Config;
use crate::enrol::Enrol;
use crate::fleet::{Fleet, FleetConfig, Now};
use crate::identity::{Authority, TrustBundle, make_private_dir, read_private, spki_pin};
use crate::import::{Importer, loopback};
use crate::ingest::Ingest;
use crate::listen::{self, Listener};
use crate::live::{LiveTask, live};
use crate::metrics::{CollectorMetrics, Endpoint};
use crate::recover::{Issue, Recover};
use crate::roster::Roster;
use crate::store::{Opened, Store, StoreThread};
use crate::token::AttemptLimiter;
use crate::web::{BearerToken, Guard, Web};
use crate::{core_check, web};
use certificates::Certificates;
use restore::Restored;
use tasks::Tasks;

/// How long requests under way may take after the stop signal.
const EDGE_GRACE: Duration = Duration::from_secs(5);
/// How long the store may take to write what it holds.
const CORE_GRACE: Duration = Duration::from_secs(20);
/// Batches of transitions that may wait for the store; older ones wait in the history task.
const TRANSITION_BATCHES_MAX: usize = 256;
/// A collector that has opened all it needs and runs nothing yet.
pub struct Collector {
    config: Config,
    clock: Clock,
    sockets: Sockets,
    authority: Arc<Authority>,
    store: Store,
    store_threads: [StoreThread; 2],
    restored: Restored,
    calendar: Calendar,
    http_token: Option<BearerToken>,
    /// Held until the process ends: one collector a state directory.
    _lock: std::fs::File,
}

/// Addresses that a collector listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Reports over the dedicated network.
    pub dedicated: Vec<SocketAddr>,
    /// Reports over a second path.
    pub fallback: Vec<SocketAddr>,
    /// Enrolment.
    pub enrolment: Option<SocketAddr>,
    /// Renewal of expired certificates.
    pub recovery: Option<SocketAddr>,
    /// Page, API and metrics.
    pub http: SocketAddr,
}

#[derive(Debug)]
struct Sockets {
    agents: Vec<(Endpoint, TcpListener)>,
    http: TcpListener,
    admin: UnixListener,
}

impl Collector {
    /// Opens everything that can fail. Must run on a tokio runtime.
    ///
    /// # Errors
    /// The first thing that cannot be opened, with what to do about it.
    pub fn open(mut config: Config) -> anyhow::Result<Self> {
        let clock = Clock::start();
        make_private_dir(&config.state_dir)?;
        let lock = lock(&config)?;
        let http_token = config.http.bearer_token_file.as_deref().map(http_token).transpose()?;
        let now = clock.now();
        let authority = Arc::new(Authority::open(&config, now.wall)?);
        let Opened { store, writer, reader } = Store::open(&config.state_dir.join("collector.db"))?;
        let restored = Restored::read(writer.connection(), &config)?;
        let calendar = calendar(&config, &restored.roster, now)?;
        let sockets = Sockets::bind(&mut config)?;
        Ok(Self {
            config,
            clock,
            sockets,
            authority,
            store,
            store_threads: [writer, reader],
            restored,
            calendar,
            http_token,
            _lock: lock,
        })
    }

    /// Where it listens; with port 0 in the configuration, the ports that were given.
    pub fn addresses(&self) -> Addresses {
        let listen = &self.config.listen;
        Addresses {
            dedicated: listen.dedicated.clone(),
            fallback: listen.fallback.clone(),
            enrolment: listen.enrolment,
            recovery: listen.recovery,
            http: listen.http,
        }
    }

    /// Serves until the stop signal. Each message of `reloads` has the roster's files read again.
    ///
    /// # Errors
    /// When a task ended by itself, or the store cannot be written at the start.
    pub async fn run(
        self,
        stop: CancellationToken,
        reloads: mpsc::Receiver<()>,
    ) -> anyhow::Result<()> {
        let Self {
            config,
            clock,
            sockets,
            authority,
            store,
            store_threads: [writer, reader],
            restored,
            calendar,
            http_token,
            _lock,
        } = self;
        let mut core = Tasks::default();
        core.spawn_blocking("store writer", move || writer.run());
        core.spawn_blocking("store reader", move || reader.run());
        let metrics = CollectorMetrics::new(env!("CARGO_PKG_VERSION"), clock.now().wall)?;

        let fleet_config = FleetConfig {
            report_interval: config.report.interval,
            goal_target_ratio: config.goals.dedicated_network_target_ratio,
            security_goal_target_ratio: config.goals.information_security_target_ratio,
        };
        let mut fleet = Fleet::new(Arc::clone(&restored.roster), fleet_config, clock.now());
        fleet.set_calendar(calendar);
        let register = Arc::new(restored.fill(&mut fleet));
        restored.keep(&store, clock.now().wall).await?;
        let (transitions, history) = mpsc::channel(TRANSITION_BATCHES_MAX);
        let (live, fleet_task, snapshot) = live(fleet, transitions, clock);
        let core_stop = CancellationToken::new();
        core.spawn("fleet", LiveTask::run(fleet_task, core_stop.clone()));
        core.spawn("history", tasks::history(store.clone(), history));

        let mut edge = Tasks::default();
        let settings = settings(&config, &store).await?;
        let trust_bundle = trust_bundle(&authority, &store).await?;
        let certificates = Certificates::issue(&config, &authority, clock, &metrics)?;
        let importer =
            Importer { store: store.clone(), live: live.clone(), loopback: loopback(&config) };
        let endpoints = config.endpoints();
        let ingest = Arc::new(Ingest {
            register: Arc::clone(&register),
            live: live.clone(),
            store: store.clone(),
            authority: Arc::clone(&authority),
            certificate_lifetime: config.identity.certificate_lifetime,
            settings,
            trust_bundle: trust_bundle.clone(),
            metrics: metrics.clone(),
            clock,
        });
        let enrol = Arc::new(Enrol {
            register: Arc::clone(&register),
            live: live.clone(),
            store: store.clone(),
            authority: Arc::clone(&authority),
            certificate_lifetime: config.identity.certificate_lifetime,
            trust_bundle: trust_bundle.clone(),
            endpoints: endpoints.clone(),
            fresh_for: config.report.interval * 3,
            attempts: Mutex::new(AttemptLimiter::default()),
            clock,
        });
        let recover = Arc::new(Recover::new(
            Arc::clone(&register),
            live.clone(),
            store.clone(),
            Arc::clone(&authority),
            Issue {
                trust_domain: config.trust_domain.clone(),
                certificate_lifetime: config.identity.certificate_lifetime,
                roots: trust_bundle.roots.clone(),
            },
            clock,
        )?);
        let operator = Operator {
            config: config.clone(),
            enrolment_endpoint: endpoints.enrolment.clone(),
            ca_pin: authority.pin(),
            register,
            store: store.clone(),
            live: live.clone(),
            importer: importer.clone(),
            clock,
        };

        let for_agents = listen::for_agents(Arc::clone(&certificates.agents), &trust_bundle.roots)?;
        let for_newcomers = listen::for_newcomers(Arc::clone(&certificates.newcomers))?;
        for (endpoint, socket) in sockets.agents {
            let tls = match endpoint {
                Endpoint::Enrolment | Endpoint::Recovery => &for_newcomers,
                Endpoint::Dedicated | Endpoint::Fallback | Endpoint::Http => &for_agents,
            };
            let listener = Listener {
                endpoint,
                socket,
                tls: Arc::clone(tls),
                trust_domain: config.trust_domain.clone(),
                limits: config.limits.clone(),
                metrics: metrics.clone(),
            };
            let (ready, connections) = listen::queue();
            edge.spawn(endpoint.as_str(), listener.run(ready, stop.clone()));
            let counted = metrics.clone();
            match endpoint {
                Endpoint::Enrolment => {
                    let served =
                        grpc::serve(Arc::clone(&enrol), counted, connections, stop.clone());
                    edge.spawn("enrolment service", served);
                }
                Endpoint::Recovery => {
                    let served =
                        grpc::serve(Arc::clone(&recover), counted, connections, stop.clone());
                    edge.spawn("recovery service", served);
                }
                Endpoint::Dedicated | Endpoint::Fallback | Endpoint::Http => {
                    let served =
                        grpc::serve(Arc::clone(&ingest), counted, connections, stop.clone());
                    edge.spawn("reporting service", served);
                }
            }
        }
        drop((ingest, enrol, recover));

        let (listeners_bound, bound) = watch::channel(true);
        let page = Web {
            snapshot: snapshot.clone(),
            metrics: metrics.clone(),
            store: store.clone(),
            machine_series: config.metrics.machines,
            listeners_bound: bound,
        };
        let guard = Guard::new(&config.http.allowed_hosts, http_token);
        let router = web::router(page, guard);
        let (http, counted, until) = (sockets.http, metrics.clone(), stop.clone());
        edge.spawn_blocking("http", move || {
            if let Err(error) = serve_alone(http, router, counted, until) {
                tracing::error!(error = format!("{error:#}"), "the HTTP side has ended");
            }
        });
        edge.spawn("admin", admin::serve(sockets.admin, operator, stop.clone()));
        if config.core_check.enabled {
            let check = core_check::run(config.core_check.clone(), live.clone(), stop.clone());
            edge.spawn("core check", check);
            let anchors =
                core_check::watch_anchors(config.core_check.clone(), live.clone(), stop.clone());
            edge.spawn("anchors", anchors);
        }
        edge.spawn("vitals", tasks::vitals(store.clone(), metrics.clone(), clock, stop.clone()));
        let keep = tasks::Keeper {
            store: store.clone(),
            snapshot,
            history_age_max: config.limits.history_age_max,
            clock,
        };
        edge.spawn("keeper", keep.run(stop.clone()));
        let renewal = certificates.renew(config.clone(), authority, clock, metrics, stop.clone());
        edge.spawn("own certificate", renewal);
        let reload = tasks::reload(config.clone(), importer, reloads, clock, stop.clone());
        edge.spawn("roster reload", reload);
        drop((store, live));

        tell_service_manager(&[sd_notify::NotifyState::Ready]);
        tracing::info!(
            dedicated = ?config.listen.dedicated,
            http = %config.listen.http,
            agencies = restored.roster.agencies().len(),
            "the collector serves"
        );
        let fault = tokio::select! {
            // A part that has already ended because it was told to is no fault.
            biased;
            () = stop.cancelled() => None,
            fault = edge.first_to_end() => Some(fault),
            fault = core.first_to_end() => Some(fault),
        };
        tell_service_manager(&[sd_notify::NotifyState::Stopping]);
        listeners_bound.send_replace(false);
        stop.cancel();
        edge.drain(EDGE_GRACE).await;
        core_stop.cancel();
        core.drain(CORE_GRACE).await;
        fault.map_or(Ok(()), Err)
    }
}

/// Serves the HTTP side on this thread, with a runtime of its own: beside thousands of agents that
/// all deliver, a scrape would wait for each of them whenever its reader has taken a piece. Here
/// the kernel gives it a thread's share.
fn serve_alone(
    socket: TcpListener,
    router: axum::Router,
    metrics: CollectorMetrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime of the HTTP side")?;
    runtime.block_on(async {
        let socket = socket.into_std().and_then(TcpListener::from_std);
        let socket = socket.context("cannot take the HTTP socket over")?;
        web::serve(socket, router, metrics, stop).await;
        Ok(())
    })
}

impl std::fmt::Debug for Collector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector").field("addresses", &self.addresses()).finish_non_exhaustive()
    }
}

impl Sockets {
    /// Binds every configured address, and writes ports that the system chose back.
    fn bind(config: &mut Config) -> anyhow::Result<Self> {
        let mut agents = Vec::new();
        let listen = &mut config.listen;
        let dedicated = listen.dedicated.iter_mut().map(|address| (Endpoint::Dedicated, address));
        let fallback = listen.fallback.iter_mut().map(|address| (Endpoint::Fallback, address));
        let enrolment = listen.enrolment.iter_mut().map(|address| (Endpoint::Enrolment, address));
        let recovery = listen.recovery.iter_mut().map(|address| (Endpoint::Recovery, address));
        for (endpoint, address) in dedicated.chain(fallback).chain(enrolment).chain(recovery) {
            let socket = listen::bind(*address, endpoint)?;
            *address = socket.local_addr().context("cannot read a listener's own address")?;
            agents.push((endpoint, socket));
        }
        let http = listen::bind(listen.http, Endpoint::Http)?;
        listen.http = http.local_addr().context("cannot read a listener's own address")?;
        Ok(Self { agents, http, admin: admin::bind(&config.state_dir)? })
    }
}

/// The calendar, and what its operator should mend before it misleads.
fn calendar(config: &Config, roster: &Roster, now: Now) -> anyhow::Result<Calendar> {
    let Some(path) = &config.calendar else { return Ok(Calendar::default()) };
    let calendar = Calendar::read(path)?;
    let year = now.day().year();
    if !calendar.covers(year) {
        let path = path.display();
        tracing::warn!(%path, year, "the calendar has no holiday of this year; carry it on");
    }
    for agency in calendar.unknown(roster) {
        tracing::warn!(%agency, "the calendar names an agency that is not in the roster");
    }
    Ok(calendar)
}

/// Settings with their version, to which the revisions of an agency's policy are added.
async fn settings(config: &Config, store: &Store) -> anyhow::Result<Settings> {
    let asked = Settings {
        version: 0,
        report_interval: config.report.interval,
        probe_period: config.report.probe_period,
        confirm_period: config.report.confirm_period,
        posture: Requirements::default(),
    };
    let content = serde_json::to_string(&asked)?;
    let version = store.version_of("settings", content).await?;
    Ok(Settings { version, ..asked })
}

/// The roots with their version.
async fn trust_bundle(authority: &Authority, store: &Store) -> anyhow::Result<TrustBundle> {
    let root = authority.certificate().clone();
    let digest = spki_pin(&root).iter().map(|byte| format!("{byte:02x}")).collect();
    let version = store.version_of("trust_bundle", digest).await?;
    Ok(TrustBundle { version, roots: vec![root] })
}

fn lock(config: &Config) -> anyhow::Result<std::fs::File> {
    let path = config.state_dir.join("lock");
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| {
            format!("cannot open {}; let the service's user own it", path.display())
        })?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).with_context(
        || {
            let dir = config.state_dir.display();
            format!("another collector runs on {dir}; stop it, or give this one its own state_dir")
        },
    )?;
    Ok(file)
}

fn http_token(path: &std::path::Path) -> anyhow::Result<BearerToken> {
    let text = read_private(path)?;
    BearerToken::parse(&text).with_context(|| format!("cannot use {}", path.display()))
}

fn tell_service_manager(states: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}
