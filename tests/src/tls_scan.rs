//! The TLS of a collector's listeners as sslyze finds it, held against what is promised of it. What
//! could not be found out is as bad as what is wrong.
//!
//! sslyze's OpenSSL knows no post-quantum group: the agreement on one is read off the wire.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::collector::free_port;
use crate::loopback::Loopback;
use crate::peer::{Enrolled, H2, Identity, connect};
use crate::python;
use crate::tcp_tap::TcpTap;
use crate::tls_wire::Greetings;
use crate::wait;

/// Some 600 handshakes a listener, on a busy machine.
const SCAN_TIMEOUT: Duration = Duration::from_secs(120);
/// For one handshake of our own.
const GREETING_TIMEOUT: Duration = Duration::from_secs(30);
/// The agency of the machine that scans, and its address.
const AGENCY: &str = "01-018";
const SCANNER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 18, 11, 66));

const EARLY_DATA: &str = "--early_data";
/// Everything that sslyze looks at but headers of HTTP/1 and RFC 7627, which TLS 1.3 has built in.
const LOOKS: [&str; 15] = [
    "--sslv2",
    "--sslv3",
    "--tlsv1",
    "--tlsv1_1",
    "--tlsv1_2",
    "--tlsv1_3",
    "--elliptic_curves",
    "--certinfo",
    EARLY_DATA,
    "--reneg",
    "--resum",
    "--compression",
    "--heartbleed",
    "--openssl_ccs",
    "--robot",
];

const VERSIONS: [(&str, &str); 6] = [
    ("ssl_2_0_cipher_suites", "SSL 2.0"),
    ("ssl_3_0_cipher_suites", "SSL 3.0"),
    ("tls_1_0_cipher_suites", "TLS 1.0"),
    ("tls_1_1_cipher_suites", "TLS 1.1"),
    ("tls_1_2_cipher_suites", "TLS 1.2"),
    ("tls_1_3_cipher_suites", "TLS 1.3"),
];
/// The suites of RFC 8446, section B.4, without the two for small devices.
const SUITES: [&str; 3] =
    ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"];
/// Of those that sslyze knows.
const GROUPS: [&str; 3] = ["X25519", "secp256r1", "secp384r1"];

/// Whom a listener lets in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demands {
    /// Enrolled machines: a client certificate.
    Certificate,
    /// Newcomers.
    Nothing,
}

/// A listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// What it is for.
    pub name: &'static str,
    /// Its address.
    pub at: SocketAddr,
    /// Whom it lets in.
    pub demands: Demands,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What.
    pub what: &'static str,
    /// What was found.
    pub found: String,
    /// Whether that is what the product promises.
    pub is_promised: bool,
}

/// What was found, and whether it is promised; or why it could not be found out.
type Found = Result<(String, bool), String>;

/// Scans every TLS listener of a collector that is started for it.
///
/// # Errors
/// When something does not start, or sslyze does not end.
pub async fn scan_all() -> Result<Vec<(Listener, Vec<Finding>)>> {
    let world = Loopback::start_with_fallback(&[AGENCY], "").await?;
    let code = world.collector.create_token(AGENCY, 1, "1h")?;
    let machine = Enrolled::with(&code, SCANNER).await?;
    let plan = &world.collector.plan;
    let (certificate, nothing) = (Demands::Certificate, Demands::Nothing);
    let fallback = plan.fallback.context("it was planned")?;
    let listeners = [
        Listener { name: "dedicated", at: plan.dedicated[0], demands: certificate },
        Listener { name: "fallback", at: fallback, demands: certificate },
        Listener { name: "enrolment", at: plan.enrolment, demands: nothing },
        Listener { name: "recovery", at: plan.recovery, demands: nothing },
    ];
    let authority = plan.directory.join("state/ca/ca.pem").display().to_string();
    let mut all = Vec::new();
    for listener in listeners {
        let sslyze = Sslyze { at: listener.at, directory: world.directory.path() };
        let mut looks = vec!["--certinfo_ca_file", authority.as_str()];
        looks.extend(LOOKS);
        let mut scanned = sslyze.scan(&looks, None).await?;
        if listener.demands == Demands::Certificate {
            // Nobody gets a ticket without one; and shown one, sslyze sees no demand.
            let inside = sslyze.scan(&[EARLY_DATA], Some(&machine.identity)).await?;
            let early_data = "tls_1_3_early_data";
            scanned["scan_result"][early_data] = inside["scan_result"][early_data].clone();
        }
        let mut findings = judge(&scanned, listener);
        findings.push(greeting(listener.at).await?);
        all.push((listener, findings));
    }
    Ok(all)
}

/// sslyze at one listener.
struct Sslyze<'a> {
    at: SocketAddr,
    /// Where its files go.
    directory: &'a Path,
}

impl Sslyze<'_> {
    /// What it says, as its JSON has it.
    async fn scan(&self, looks: &[&str], identity: Option<&Identity>) -> Result<Value> {
        let Self { at, directory } = self;
        let output = directory.join("sslyze.json");
        let mut command = tokio::process::Command::new(python::interpreter()?);
        // Its list of public roots has one that its own library warns of.
        command.args(["-W", "ignore", "-m", "sslyze", "--quiet", "--mozilla_config", "disable"]);
        command.args(looks).arg("--json_out").arg(&output);
        if let Some(identity) = identity {
            let (chain, key) = identity.pem();
            for (option, name, text) in [("--cert", "chain.pem", chain), ("--key", "key.pem", key)]
            {
                let path = directory.join(name);
                fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
                command.arg(option).arg(path);
            }
        }
        command.arg(at.to_string()).kill_on_drop(true);
        let ended = tokio::time::timeout(SCAN_TIMEOUT, command.output()).await;
        let ended = ended.context("sslyze does not end")?.context("start sslyze")?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "sslyze failed: {}", said.trim());
        let text = fs::read_to_string(&output).context("read what sslyze found")?;
        let mut json: Value = serde_json::from_str(&text).context("read what sslyze found")?;
        let result = json["server_scan_results"][0].take();
        if result["scan_status"] != "COMPLETED" {
            bail!("sslyze did not reach {at}: {}", result["connectivity_error_trace"]);
        }
        Ok(result)
    }
}

/// The key exchange with a client that prefers X25519MLKEM768, as somebody on the path reads it.
async fn greeting(at: SocketAddr) -> Result<Finding> {
    let tap = TcpTap::start(free_port(SCANNER)?, at, Some(SCANNER)).await?;
    let stream = connect(SCANNER, tap.address, None, &[H2]).await?;
    let (greetings, _) = wait::until("a handshake on the wire", GREETING_TIMEOUT, || {
        let all = tap.conversations();
        let read = all.first().context("nothing was said").and_then(Greetings::read);
        std::future::ready(read.map_err(|error| format!("{error:#}")))
    })
    .await?;
    drop(stream);
    Ok(Finding {
        what: "group with a client that offers X25519MLKEM768 (0x11ec)",
        found: format!("{:#06x}", greetings.share.group),
        is_promised: greetings.are_post_quantum(),
    })
}

/// Holds what sslyze found of a listener against what is promised of it.
pub fn judge(scanned: &Value, listener: Listener) -> Vec<Finding> {
    let results = &scanned["scan_result"];
    let no = |command, key| move || refuted(results, command, key);
    let looks: [(&'static str, &dyn Fn() -> Found); 12] = [
        ("versions", &|| versions(results)),
        ("cipher suites", &|| suites(results)),
        ("groups that OpenSSL knows", &|| groups(results)),
        ("client certificate", &|| client_certificate(scanned, listener.demands)),
        ("certificate", &|| certificate(results, listener.at.ip())),
        ("early data", &no("tls_1_3_early_data", "supports_early_data")),
        ("compression (CRIME)", &no("tls_compression", "supports_compression")),
        (
            "renegotiation by the client",
            &no("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos"),
        ),
        ("resumption before TLS 1.3", &|| old_resumption(results)),
        ("Heartbleed", &no("heartbleed", "is_vulnerable_to_heartbleed")),
        ("CCS injection", &no("openssl_ccs_injection", "is_vulnerable_to_ccs_injection")),
        ("ROBOT", &|| robot(results)),
    ];
    let findings = looks.into_iter().map(|(what, look)| match look() {
        Ok((found, is_promised)) => Finding { what, found, is_promised },
        Err(why) => Finding { what, found: format!("not found out: {why}"), is_promised: false },
    });
    findings.collect()
}

/// The result of one of sslyze's commands, if it came to one.
fn result<'a>(results: &'a Value, command: &str) -> Result<&'a Value, String> {
    let attempt = &results[command];
    match attempt["status"].as_str() {
        Some("COMPLETED") => Ok(&attempt["result"]),
        Some(status) => Err(format!("{status} {}", attempt["error_reason"])),
        None => Err(format!("there is no {command}")),
    }
}

fn flag(value: &Value, key: &str) -> Result<bool, String> {
    value[key].as_bool().ok_or_else(|| format!("{key} is no yes or no"))
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str, String> {
    value[key].as_str().ok_or_else(|| format!("{key} is no text"))
}

fn list<'a>(value: &'a Value, key: &str) -> Result<&'a Vec<Value>, String> {
    value[key].as_array().ok_or_else(|| format!("{key} is no list"))
}

/// Something that must not be.
fn refuted(results: &Value, command: &str, key: &str) -> Found {
    let is_so = flag(result(results, command)?, key)?;
    Ok((if is_so { "yes" } else { "no" }.to_owned(), !is_so))
}

fn versions(results: &Value) -> Found {
    let mut accepted = Vec::new();
    for (command, name) in VERSIONS {
        if flag(result(results, command)?, "is_tls_version_supported")? {
            accepted.push(name);
        }
    }
    Ok((accepted.join(", "), accepted == ["TLS 1.3"]))
}

fn suites(results: &Value) -> Found {
    let mut accepted = Vec::new();
    for (command, _) in VERSIONS {
        for suite in list(result(results, command)?, "accepted_cipher_suites")? {
            accepted.push(text(&suite["cipher_suite"], "name")?);
        }
    }
    let is_promised = !accepted.is_empty() && accepted.iter().all(|name| SUITES.contains(name));
    Ok((accepted.join(", "), is_promised))
}

fn groups(results: &Value) -> Found {
    let curves = list(result(results, "elliptic_curves")?, "supported_curves")?;
    let names = curves.iter().map(|curve| text(curve, "name")).collect::<Result<Vec<_>, _>>()?;
    let is_promised = !names.is_empty() && names.iter().all(|name| GROUPS.contains(name));
    Ok((names.join(", "), is_promised))
}

fn client_certificate(scanned: &Value, demands: Demands) -> Found {
    let found = text(&scanned["connectivity_result"], "client_auth_requirement")?;
    let promised = match demands {
        Demands::Certificate => "REQUIRED",
        Demands::Nothing => "DISABLED",
    };
    Ok((found.to_lowercase(), found == promised))
}

fn certificate(results: &Value, address: IpAddr) -> Found {
    let deployments = list(result(results, "certificate_info")?, "certificate_deployments")?;
    let [deployment] = &**deployments else {
        return Err(format!("{} certificates", deployments.len()));
    };
    let leaf = &deployment["received_certificate_chain"][0];
    let curve = text(&leaf["public_key"], "ec_curve_name")?;
    let hash = text(&leaf["signature_hash_algorithm"], "name")?;
    let names = list(&leaf["subject_alternative_name"], "ip_addresses")?;
    let names_it = names.iter().any(|name| *name == *address.to_string());
    let paths = list(deployment, "path_validation_results")?;
    let ours = paths.iter().find(|path| path["trust_store"]["name"] == "Supplied CA file");
    let is_signed = flag(ours.ok_or("our CA was not tried")?, "was_validation_successful")?;
    let in_order = flag(deployment, "received_chain_has_valid_order")?;
    let found = format!(
        "{curve}, {hash}, signed by the CA: {}, names its address: {}",
        if is_signed && in_order { "yes" } else { "no" },
        if names_it { "yes" } else { "no" },
    );
    let is_strong = curve == "secp256r1" && hash == "sha256";
    Ok((found, is_strong && is_signed && in_order && names_it))
}

fn old_resumption(results: &Value) -> Found {
    let resumption = result(results, "session_resumption")?;
    let by_id = text(resumption, "session_id_resumption_result")?;
    let by_ticket = text(resumption, "tls_ticket_resumption_result")?;
    let only = "SERVER_IS_TLS_1_3_ONLY";
    if (by_id, by_ticket) == (only, only) {
        return Ok(("no".to_owned(), true));
    }
    Ok((format!("by id: {by_id}, by ticket: {by_ticket}"), false))
}

fn robot(results: &Value) -> Found {
    let found = text(result(results, "robot")?, "robot_result")?;
    let is_promised = found == "NOT_VULNERABLE_RSA_NOT_SUPPORTED";
    Ok((if is_promised { "no" } else { found }.to_owned(), is_promised))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// sslyze 6.3.1 of a collector's enrolment listener, without what was rejected.
    const SAMPLE: &str = include_str!("tls_scan/sample.json");

    fn sample() -> (Value, Listener) {
        let at = "127.18.0.10:11444".parse().expect("an address");
        let listener = Listener { name: "enrolment", at, demands: Demands::Nothing };
        (serde_json::from_str(SAMPLE).expect("JSON"), listener)
    }

    #[test]
    fn what_is_promised_is_found_as_promised() {
        let (sample, listener) = sample();
        for finding in judge(&sample, listener) {
            assert!(finding.is_promised, "{finding:?}");
        }
    }

    #[test]
    fn whatever_is_worse_or_unknown_is_told_by_its_own_finding_and_no_other() {
        let tls12 = "/scan_result/tls_1_2_cipher_suites";
        let suites = "/scan_result/tls_1_3_cipher_suites/result/accepted_cipher_suites/0";
        let deployment = "/scan_result/certificate_info/result/certificate_deployments/0";
        let leaf = format!("{deployment}/received_certificate_chain/0");
        let weak = [
            ("versions", format!("{tls12}/result/is_tls_version_supported"), json!(true)),
            ("cipher suites", format!("{suites}/cipher_suite/name"), json!("TLS_AES_128_CCM_8")),
            (
                "groups that OpenSSL knows",
                "/scan_result/elliptic_curves/result/supported_curves/0/name".into(),
                json!("secp192r1"),
            ),
            (
                "client certificate",
                "/connectivity_result/client_auth_requirement".into(),
                json!("OPTIONAL"),
            ),
            ("certificate", format!("{leaf}/signature_hash_algorithm/name"), json!("sha1")),
            ("certificate", format!("{leaf}/subject_alternative_name/ip_addresses"), json!([])),
            (
                "certificate",
                format!("{deployment}/path_validation_results/0/was_validation_successful"),
                json!(false),
            ),
            (
                "early data",
                "/scan_result/tls_1_3_early_data/result/supports_early_data".into(),
                json!(true),
            ),
            ("early data", "/scan_result/tls_1_3_early_data/status".into(), json!("ERROR")),
            (
                "compression (CRIME)",
                "/scan_result/tls_compression/result/supports_compression".into(),
                json!(true),
            ),
            (
                "renegotiation by the client",
                "/scan_result/session_renegotiation/result/\
                 is_vulnerable_to_client_renegotiation_dos"
                    .into(),
                json!(true),
            ),
            (
                "resumption before TLS 1.3",
                "/scan_result/session_resumption/result/tls_ticket_resumption_result".into(),
                json!("FULLY_SUPPORTED"),
            ),
            (
                "Heartbleed",
                "/scan_result/heartbleed/result/is_vulnerable_to_heartbleed".into(),
                json!(true),
            ),
            ("CCS injection", "/scan_result/openssl_ccs_injection".into(), Value::Null),
            (
                "ROBOT",
                "/scan_result/robot/result/robot_result".into(),
                json!("VULNERABLE_STRONG_ORACLE"),
            ),
        ];
        for (what, pointer, value) in weak {
            let (mut spoiled, listener) = sample();
            *spoiled.pointer_mut(&pointer).unwrap_or_else(|| panic!("no {pointer}")) = value;
            let worse = judge(&spoiled, listener).into_iter().filter(|one| !one.is_promised);
            let worse: Vec<_> = worse.map(|finding| finding.what).collect();
            assert_eq!(worse, [what], "{pointer}");
        }
    }
}
