//! Scenarios: each a data file in `tests/scenarios/`, so that a new fault of the network is one
//! file.
//!
//! | key | meaning |
//! |---|---|
//! | `about` | what happens, in words |
//! | `cut` | the fault of the network, see [`Cut`]; absent when there is none |
//! | `process` | a fault of the agent's process, see [`ProcessFault`] |
//! | `internet` | whether the site has a second way: the fallback listener and the leak |
//! | `gateway` | whether the roster names the site's gateway, so that the core checks it |
//! | `selector` | how the agent finds the interface: by `name` or by `prefix` |
//! | `stays` | for so long the agent says nothing but the expected states, from the cut on |
//! | `deadline` | generous; the measured time is a figure, this is a bound |
//! | `full_length` | runs only in the recorded run: it needs timers that nothing shortens |
//! | `agent.states`, `agent.causes` | any of these verdicts, and any of the causes; absent when the agent cannot be asked |
//! | `agency.states`, `agency.causes` | any of these at the collector |
//! | `flags`, `no_flags` | flags that the collector shows while it stands, and that it does not |

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::binaries::repository;
use crate::fault::Cut;
use crate::laboratory::Selector;
use crate::process_fault::ProcessFault;

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name of its file.
    #[serde(skip)]
    pub name: String,
    /// What happens, in words.
    pub about: String,
    /// The fault of the network.
    pub cut: Option<Cut>,
    /// The fault of the agent's process.
    pub process: Option<ProcessFault>,
    /// Whether the site has a second way.
    #[serde(default)]
    pub internet: bool,
    /// Whether the roster names the site's gateway.
    #[serde(default)]
    pub gateway: bool,
    /// How the agent finds the interface.
    #[serde(default)]
    pub selector: Selector,
    /// For so long the agent says nothing but the expected states.
    #[serde(default, with = "humantime_serde")]
    pub stays: Option<Duration>,
    /// Bound of each of the two waits.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// Only in the recorded run.
    #[serde(default)]
    pub full_length: bool,
    /// What the agent says, where it can be asked.
    pub agent: Option<AgentExpected>,
    /// What the collector says.
    pub agency: AgencyExpected,
    /// Flags at the collector.
    #[serde(default)]
    pub flags: Vec<String>,
    /// Flags that the collector does not show.
    #[serde(default)]
    pub no_flags: Vec<String>,
}

/// What the agent says of itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentExpected {
    /// Any of these states.
    pub states: Vec<String>,
    /// Any of these causes.
    #[serde(default)]
    pub causes: Vec<String>,
}

/// What the collector says of the agency.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgencyExpected {
    /// Any of these states.
    pub states: Vec<String>,
    /// Any of these causes.
    #[serde(default)]
    pub causes: Vec<String>,
}

/// Reads every scenario, in the order of their names.
///
/// # Errors
/// With the file that is wrong, and where.
pub fn all() -> Result<Vec<Scenario>> {
    let directory = repository("tests/scenarios");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("read {}", directory.display()))?;
    let mut paths: Vec<_> =
        entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    paths.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<Scenario> {
    let name = path.file_stem().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{} has no name", path.display()))?;
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let mut scenario: Scenario =
        toml::from_str(&text).with_context(|| format!("read {}", path.display()))?;
    ensure!(!scenario.agency.states.is_empty(), "{}: agency.states is empty", path.display());
    scenario.name = name.into();
    Ok(scenario)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_scenario_file_loads() {
        let scenarios = all().expect("all files load");
        for cut in [Cut::Link, Cut::Route, Cut::Gw, Cut::Core, Cut::Dns, Cut::Svc] {
            assert!(scenarios.iter().any(|scenario| scenario.cut == Some(cut)), "{cut:?}");
        }
    }
}
