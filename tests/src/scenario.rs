//! Scenarios: each a data file in `tests/scenarios/`, so that a new fault of the network is one
//! file.
//!
//! | key | meaning |
//! |---|---|
//! | `about` | what happens, in words |
//! | `already` | faults that stand before the cut, in this order; nothing is expected of them |
//! | `cut` | the fault of the network, see [`Cut`]; absent when there is none |
//! | `process` | a fault of the agent's process, see [`ProcessFault`] |
//! | `family` | what the site's dedicated network speaks: `ipv4`, `ipv6` or `dual` |
//! | `internet` | whether the site has a second way: the fallback listener and the leak |
//! | `gateway` | whether the roster names the site's gateway, so that the core checks it |
//! | `selector` | how the agent finds the interface: by `name` or by `prefix` |
//! | `stays` | for so long the agent says nothing but the expected states, from the cut on |
//! | `lasts` | so long the fault stands at least, whatever was seen before |
//! | `deadline` | generous; the measured time is a figure, this is a bound |
//! | `agent.states`, `agent.causes` | any of these verdicts, and any of the causes; absent when the agent cannot be asked |
//! | `agent.flags`, `agent.no_flags` | flags that the agent shows with it, and that it does not |
//! | `agent.evidence` | a text that one of its facts holds, as its status tells them |
//! | `agency.states`, `agency.causes` | any of these at the collector |
//! | `agency.never` | never any of these, from the cut to the end of the healing |
//! | `afterwards` | while it heals, the agent says nothing but these |
//! | `check.call`, `check.flag` | whom `check` in the site says to call, about the verdict or about this flag |
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
use crate::topology::Families;

/// One scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name of its file.
    #[serde(skip)]
    pub name: String,
    /// What happens, in words.
    pub about: String,
    /// Faults that stand before the cut.
    #[serde(default)]
    pub already: Vec<Cut>,
    /// The fault of the network.
    pub cut: Option<Cut>,
    /// The fault of the agent's process.
    pub process: Option<ProcessFault>,
    /// What the site's dedicated network speaks.
    #[serde(default)]
    pub family: Families,
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
    /// So long the fault stands at least.
    #[serde(default, with = "humantime_serde")]
    pub lasts: Option<Duration>,
    /// Bound of each of the two waits.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
    /// What the agent says, where it can be asked.
    pub agent: Option<AgentExpected>,
    /// What the collector says.
    pub agency: AgencyExpected,
    /// While it heals, the agent says nothing but these; empty: anything.
    #[serde(default)]
    pub afterwards: Vec<String>,
    /// What `check` says in the site.
    pub check: Option<CheckExpected>,
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
    /// All of these flags.
    #[serde(default)]
    pub flags: Vec<String>,
    /// None of these.
    #[serde(default)]
    pub no_flags: Vec<String>,
    /// A text that one of its facts holds.
    pub evidence: Option<String>,
}

/// What `check` says, for whoever stands before the machine.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckExpected {
    /// Whom to call.
    pub call: String,
    /// About this flag; absent: about the verdict.
    pub flag: Option<String>,
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
    /// Never any of these.
    #[serde(default)]
    pub never: Vec<String>,
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

    #[test]
    fn each_security_flag_is_raised_by_a_scenario_and_by_another_not() {
        let scenarios = all().expect("all files load");
        for flag in ["leak", "dual_homed", "bridging"].map(str::to_owned) {
            let raises = |scenario: &Scenario| scenario.flags.contains(&flag);
            let spares = |scenario: &Scenario| scenario.no_flags.contains(&flag);
            assert!(scenarios.iter().any(raises), "{flag} is never raised");
            assert!(scenarios.iter().any(spares), "{flag} is never spared");
        }
    }

    #[test]
    fn check_is_asked_about_faults_of_every_party() {
        let scenarios = all().expect("all files load");
        for party in ["own_machine", "own_lan", "carrier", "core", "service"] {
            let names = |scenario: &Scenario| {
                scenario.check.as_ref().is_some_and(|check| check.call == party)
            };
            assert!(scenarios.iter().any(names), "{party}");
        }
    }
}
