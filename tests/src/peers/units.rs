//! The units under a real systemd: what the agent says by way of its two readers, each in its
//! sandbox, is what root says. An option that hides evidence shows here and nowhere else.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use haidang_proto::model::posture::CHECKS;
use serde::Deserialize;

use crate::binaries::repository;
use crate::wait;

use super::systems::Place;

/// A first pass takes seconds on a busy machine.
const PASS_DEADLINE: Duration = Duration::from_secs(180);
const STARTED: [&str; 3] =
    ["haidang-netfilter.socket", "haidang-posture.socket", "haidang-agent.service"];
const CONFIG: &str = "[dedicated]\ninterface = { name = \"eth0\" }\n\
    local_prefixes = [\"10.99.0.0/24\"]\nnetwork_prefixes = [\"10.99.0.0/16\"]\n\
    gateways = [\"10.99.0.1\"]\n\n[posture]\nfirst_pass_within = \"1s\"\n";

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Said {
    check: String,
    verdict: String,
    reason: String,
}

/// Installs the units in the tree of a running Debian, where the agent's program already is, as
/// its package would, starts them, and names each check of which they say something else than
/// root does.
///
/// # Errors
/// When a unit does not start, or no pass comes.
pub async fn differences(debian: &Place, tree: &Path, directory: &Path) -> Result<Vec<String>> {
    install(tree)?;
    let run = |command: &[&str]| -> Result<String> {
        let (output, _) = debian.run(command, directory)?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let problem = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "{}: {said}{problem}", command.join(" "));
        Ok(said)
    };
    run(&["systemd-sysusers"])?;
    run(&["systemd-tmpfiles", "--create"])?;
    run(&["systemctl", "daemon-reload"])?;
    run(&[&["systemctl", "start"][..], &STARTED].concat())?;
    let by_units = || -> Result<BTreeMap<String, Said>> {
        #[derive(Deserialize)]
        struct Document {
            posture: Posture,
        }
        #[derive(Deserialize)]
        struct Posture {
            checks: Vec<Said>,
        }
        let said = run(&["haidang-agent", "status", "--json"])?;
        let Document { posture } = serde_json::from_str(&said).context("read the status")?;
        let count = posture.checks.len();
        ensure!(count == CHECKS, "{count} of {CHECKS} checks have been made");
        Ok(named(posture.checks))
    };
    let (units, _) = wait::until("the first pass", PASS_DEADLINE, || {
        std::future::ready(by_units().map_err(|error| format!("{error:#}")))
    })
    .await?;
    #[derive(Deserialize)]
    struct Page {
        posture: Vec<Said>,
    }
    // As root of the container: whoever enters it from outside may do more. 1 and 2 say what was
    // found.
    let check = ["systemd-run", "--quiet", "--wait", "--pipe", "haidang-agent", "check", "--json"];
    let (output, _) = debian.run(&check, directory)?;
    let Page { posture } = serde_json::from_slice(&output.stdout).context("read the check")?;
    let root = named(posture);
    ensure!(root.len() == CHECKS, "root made {} checks", root.len());
    let told = |said: Option<&Said>| {
        said.map_or("nothing".into(), |said| format!("{} ({})", said.verdict, said.reason))
    };
    let differing = root.iter().filter(|(check, said)| units.get(*check) != Some(said));
    Ok(differing
        .map(|(check, said)| {
            let unit = units.get(check);
            format!("{check}: {} by the units, {} by root", told(unit), told(Some(said)))
        })
        .collect())
}

fn named(answers: Vec<Said>) -> BTreeMap<String, Said> {
    answers.into_iter().map(|said| (said.check.clone(), said)).collect()
}

fn install(tree: &Path) -> Result<()> {
    let units = repository("deploy/systemd");
    let copy = |from: &str, to: &str| {
        let (from, to) = (units.join(from), tree.join(to));
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))
    };
    for unit in [
        "haidang-agent.service",
        "haidang-netfilter.socket",
        "haidang-netfilter@.service",
        "haidang-posture.socket",
        "haidang-posture@.service",
    ] {
        copy(unit, &format!("etc/systemd/system/{unit}"))?;
    }
    copy("haidang-agent.sysusers", "usr/lib/sysusers.d/haidang-agent.conf")?;
    copy("haidang-agent.tmpfiles", "usr/lib/tmpfiles.d/haidang-agent.conf")?;
    let config = tree.join("etc/haidang/agent.toml");
    fs::create_dir_all(tree.join("etc/haidang")).context("make /etc/haidang")?;
    fs::write(&config, CONFIG).with_context(|| format!("write {}", config.display()))
}
