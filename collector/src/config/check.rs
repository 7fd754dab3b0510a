//! What a configuration must satisfy beyond its syntax. Each rule answers with the key that
//! breaks it and what to write instead.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use haidang_proto::model::settings::Settings;
use ipnet::IpNet;

use super::{Config, host_of};

/// Shortest certificate that is of use: a renewal has to fit into its second half.
const CERTIFICATE_LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Longest: revocation and renewal should not be forgotten for years.
const CERTIFICATE_LIFETIME_MAX: Duration = Duration::from_secs(397 * 86_400);
/// Addresses of one kind: an agent tries them all in turn.
const ADDRESSES_MAX: usize = 16;

type Broken = (&'static str, String);

pub(super) fn check(config: &Config) -> Result<(), Broken> {
    listen(config)?;
    advertise(config)?;
    http(config)?;
    report(config)?;
    identity(config)?;
    core_check(config)?;
    limits(config)?;
    let goals = &config.goals;
    for (key, ratio) in [
        ("goals.dedicated_network_target_ratio", goals.dedicated_network_target_ratio),
        ("goals.information_security_target_ratio", goals.information_security_target_ratio),
    ] {
        rule((0.0..=1.0).contains(&ratio), key, || {
            format!("{ratio} is no share; write a number from 0 to 1")
        })?;
    }
    Ok(())
}

fn rule(holds: bool, key: &'static str, problem: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err((key, problem())) }
}

fn listen(config: &Config) -> Result<(), Broken> {
    let listen = &config.listen;
    rule(!listen.dedicated.is_empty(), "listen.dedicated", || {
        "is empty; name at least one address on which agents can report".to_owned()
    })?;
    for (key, addresses) in
        [("listen.dedicated", &listen.dedicated), ("listen.fallback", &listen.fallback)]
    {
        rule(addresses.len() <= ADDRESSES_MAX, key, || {
            format!("has more than {ADDRESSES_MAX} addresses")
        })?;
    }
    let mut all: Vec<(&'static str, SocketAddr)> = Vec::new();
    all.extend(listen.dedicated.iter().map(|address| ("listen.dedicated", *address)));
    all.extend(listen.fallback.iter().map(|address| ("listen.fallback", *address)));
    all.extend(listen.enrolment.map(|address| ("listen.enrolment", address)));
    all.extend(listen.recovery.map(|address| ("listen.recovery", address)));
    all.push(("listen.http", listen.http));
    for (at, (key, address)) in all.iter().enumerate() {
        let taken = all[..at].iter().find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = taken {
            return Err((key, format!("{address} is taken by {other} already")));
        }
    }
    Ok(())
}

fn advertise(config: &Config) -> Result<(), Broken> {
    let (listen, told) = (&config.listen, &config.advertise);
    let unspecified =
        |addresses: &[SocketAddr]| addresses.iter().any(|address| address.ip().is_unspecified());
    let enrolment = told.enrolment.as_slice();
    for (key, told, listened) in [
        ("advertise.dedicated", told.dedicated.as_slice(), listen.dedicated.as_slice()),
        ("advertise.fallback", told.fallback.as_slice(), listen.fallback.as_slice()),
        ("advertise.enrolment", enrolment, listen.enrolment.as_slice()),
        ("advertise.recovery", told.recovery.as_slice(), listen.recovery.as_slice()),
    ] {
        rule(!(told.is_empty() && unspecified(listened)), key, || {
            "is needed, because no agent can be told to reach an unspecified address such as \
             0.0.0.0"
                .to_owned()
        })?;
        rule(told.is_empty() || !listened.is_empty(), key, || {
            "names an endpoint that is not listened on".to_owned()
        })?;
        rule(told.len() <= ADDRESSES_MAX, key, || {
            format!("has more than {ADDRESSES_MAX} endpoints")
        })?;
        for endpoint in told {
            rule(host_of(endpoint).is_some() && endpoint.is_ascii(), key, || {
                format!("{endpoint:?} is not host:port, such as 198.18.0.10:7443")
            })?;
        }
    }
    Ok(())
}

fn http(config: &Config) -> Result<(), Broken> {
    let guarded = config.http.bearer_token_file.is_some();
    rule(config.listen.http.ip().is_loopback() || guarded, "http.bearer_token_file", || {
        format!(
            "is needed, because listen.http = {} is not a loopback address; name a file that \
             holds the token",
            config.listen.http
        )
    })?;
    rule(!config.http.allowed_hosts.is_empty(), "http.allowed_hosts", || {
        "is empty; every request would be refused".to_owned()
    })
}

fn report(config: &Config) -> Result<(), Broken> {
    let within = |value: Duration, min: Duration, max: Duration, key| {
        rule((min..=max).contains(&value), key, || {
            format!("{value:?} is outside {min:?} to {max:?}, the limits that agents keep")
        })
    };
    let (interval_min, interval_max) =
        (Settings::REPORT_INTERVAL_MIN, Settings::REPORT_INTERVAL_MAX);
    let (period_min, period_max) = (Settings::PROBE_PERIOD_MIN, Settings::PROBE_PERIOD_MAX);
    within(config.report.interval, interval_min, interval_max, "report.interval")?;
    within(config.report.probe_period, period_min, period_max, "report.probe_period")?;
    within(config.report.confirm_period, period_min, period_max, "report.confirm_period")?;
    rule(
        config.report.confirm_period <= config.report.probe_period,
        "report.confirm_period",
        || "is longer than report.probe_period; confirming must be the quicker of the two".into(),
    )
}

fn identity(config: &Config) -> Result<(), Broken> {
    let identity = &config.identity;
    let lifetime = identity.certificate_lifetime;
    let range = CERTIFICATE_LIFETIME_MIN..=CERTIFICATE_LIFETIME_MAX;
    rule(range.contains(&lifetime), "identity.certificate_lifetime", || {
        "is outside 1min to 397d".to_owned()
    })?;
    let pair = (&identity.ca_certificate_file, &identity.ca_key_file);
    rule(!matches!(pair, (Some(_), None)), "identity.ca_key_file", || {
        "is missing; a given CA needs its certificate and its key".to_owned()
    })?;
    rule(!matches!(pair, (None, Some(_))), "identity.ca_certificate_file", || {
        "is missing; a given CA needs its certificate and its key".to_owned()
    })
}

fn core_check(config: &Config) -> Result<(), Broken> {
    let check = &config.core_check;
    rule(check.enabled || check.anchors.is_empty(), "core_check.anchors", || {
        "are asked only with core_check.enabled = true".to_owned()
    })?;
    if !check.enabled {
        return Ok(());
    }
    rule(check.anchors.len() <= ADDRESSES_MAX, "core_check.anchors", || {
        format!("has more than {ADDRESSES_MAX} addresses")
    })?;
    for anchor in &check.anchors {
        rule(
            check.network_prefixes.iter().any(|prefix| prefix.contains(anchor)),
            "core_check.anchors",
            || format!("{anchor} is outside core_check.network_prefixes, so it is never asked"),
        )?;
    }
    rule(check.device.is_some(), "core_check.device", || {
        "is missing; gateways are only asked over the dedicated interface".to_owned()
    })?;
    rule(!check.network_prefixes.is_empty(), "core_check.network_prefixes", || {
        "is empty; nothing outside the dedicated network's prefixes is ever asked".to_owned()
    })?;
    let loopback = |prefix: &IpNet| match prefix.addr() {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(address) => address.is_loopback(),
    };
    rule(
        config.demo || !check.network_prefixes.iter().any(loopback),
        "core_check.network_prefixes",
        || "holds a loopback prefix, which only a demonstration may (demo = true)".to_owned(),
    )?;
    rule((1..=10_000).contains(&check.packets_per_second), "core_check.packets_per_second", || {
        "is outside 1 to 10000".to_owned()
    })
}

fn limits(config: &Config) -> Result<(), Broken> {
    let limits = &config.limits;
    rule((1..=1_000_000).contains(&limits.connections_max), "limits.connections_max", || {
        "is outside 1 to 1000000".to_owned()
    })?;
    rule(
        (1..=4_096).contains(&limits.handshakes_concurrent_max),
        "limits.handshakes_concurrent_max",
        || "is outside 1 to 4096".to_owned(),
    )?;
    let timeout = Duration::from_millis(100)..=Duration::from_secs(60);
    rule(timeout.contains(&limits.handshake_timeout), "limits.handshake_timeout", || {
        "is outside 100ms to 60s".to_owned()
    })?;
    rule(limits.history_age_max >= Duration::from_secs(86_400), "limits.history_age_max", || {
        "is shorter than a day".to_owned()
    })
}
