//! OpenSCAP: which rules it is asked, and what it answered.
//!
//! A tailoring file selects exactly the mapped rules, so that nothing else is evaluated: the
//! whole standard profile answers no more of our questions and takes minutes. Each element has
//! its own line: OpenSCAP 1.3.7 passes over every second one otherwise.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, bail};

use super::Theirs;

/// Before the names of rules in the SCAP Security Guide.
const RULE_PREFIX: &str = "xccdf_org.ssgproject.content_rule_";

/// The profile of [`tailoring`].
pub const PROFILE: &str = "xccdf_vn.haidang_profile_peers";

/// Rules that walk the whole disk: hundreds of CPU seconds on a large one.
pub const WALKING: [&str; 2] =
    ["dir_perms_world_writable_sticky_bits", "file_permissions_unauthorized_world_writable"];

/// A tailoring file that selects some rules and nothing else.
pub fn tailoring<'a>(rules: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Tailoring xmlns=\"http://checklists.nist.gov/xccdf/1.2\" \
         id=\"xccdf_vn.haidang_tailoring_peers\">\n\
         <version time=\"2026-11-25T00:00:00\">1</version>\n\
         <Profile id=\"{PROFILE}\">\n<title>Mapped rules</title>\n"
    );
    for rule in rules {
        let _ = writeln!(text, "<select idref=\"{RULE_PREFIX}{rule}\" selected=\"true\"/>");
    }
    text.push_str("</Profile>\n</Tailoring>\n");
    text
}

/// What it says on its standard output, rule by rule.
///
/// # Errors
/// When a line has another form than 1.3.7 writes.
pub fn answers(output: &str) -> Result<BTreeMap<String, Theirs>> {
    let mut answers = BTreeMap::new();
    let mut rule = None;
    // It returns the carriage between a key and its tab, as for a terminal.
    for line in output.lines().map(|line| line.replace('\r', "")) {
        match line.split_once('\t') {
            Some(("Rule", name)) => {
                let name = name.strip_prefix(RULE_PREFIX);
                rule = Some(
                    name.with_context(|| format!("{line:?} is no rule of the guide"))?.to_owned(),
                );
            }
            Some(("Result", result)) => {
                let rule = rule.take().with_context(|| format!("{line:?} belongs to no rule"))?;
                answers.insert(rule, answer(result)?);
            }
            _ => {}
        }
    }
    Ok(answers)
}

/// XCCDF 1.2, 6.6.4.2 (`fixed` and `informational` are no answers to our questions).
fn answer(result: &str) -> Result<Theirs> {
    Ok(match result {
        "pass" => Theirs::Pass,
        "fail" => Theirs::Fail,
        "notapplicable" => Theirs::NotApplicable,
        "notchecked" | "error" | "unknown" | "informational" => Theirs::NotEvaluated,
        other => bail!("OpenSCAP answers {other:?}, which no selected rule may"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_has_its_answer() {
        let output = "--- Starting Evaluation ---\n\nTitle\r\tInstall AIDE\n\
                      Rule\r\txccdf_org.ssgproject.content_rule_package_aide_installed\n\
                      Ident\r\tCCE-0\nResult\r\tnotapplicable\n\nTitle\r\tx\n\
                      Rule\r\txccdf_org.ssgproject.content_rule_check_ufw_active\nResult\r\tpass\n";
        let answers = answers(output).expect("what oscap writes");
        assert_eq!(answers["package_aide_installed"], Theirs::NotApplicable);
        assert_eq!(answers["check_ufw_active"], Theirs::Pass);
    }

    #[test]
    fn an_answer_that_is_not_known_is_refused() {
        let rule = "Rule\txccdf_org.ssgproject.content_rule_a\n";
        assert!(answers(&format!("{rule}Result\tnotselected\n")).is_err());
        assert!(answers("Result\tpass\n").is_err());
    }

    #[test]
    fn a_tailoring_has_one_element_a_line() {
        let text = tailoring(["a", "b"]);
        assert!(text.lines().all(|line| line.matches('<').count() <= 2), "{text}");
        assert_eq!(text.matches("<select ").count(), 2);
    }
}
