//! The PromQL in shipped files, and the metrics that it names.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow};
use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};

/// An expression and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    /// The rule or panel, for messages.
    pub place: String,
    /// The text.
    pub text: String,
}

/// The expressions of a rule file, and the names of the series that it records. Reads the YAML
/// that these files are written in: `- alert:` or `- record:`, then `expr:` on one line or as a
/// block.
pub fn of_rules(yaml: &str) -> (Vec<Expression>, BTreeSet<String>) {
    let mut expressions: Vec<Expression> = Vec::new();
    let mut recorded = BTreeSet::new();
    let mut place = String::new();
    let mut block_indent = None;
    for line in yaml.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(block) = block_indent {
            if text.is_empty() || indent > block {
                if let Some(expression) = expressions.last_mut() {
                    expression.text.push_str(text);
                    expression.text.push('\n');
                }
                continue;
            }
            block_indent = None;
        }
        if let Some(name) = text.strip_prefix("- alert:") {
            place = name.trim().into();
        } else if let Some(name) = text.strip_prefix("- record:") {
            place = name.trim().into();
            recorded.insert(place.clone());
        } else if let Some(expression) = text.strip_prefix("expr:") {
            let expression = expression.trim();
            let is_block = expression.starts_with(['|', '>']);
            let text = if is_block { String::new() } else { expression.to_owned() };
            expressions.push(Expression { place: place.clone(), text });
            block_indent = is_block.then_some(indent);
        }
    }
    (expressions, recorded)
}

/// The expressions of a dashboard: every `expr` in it, with Grafana's variables filled in.
pub fn of_dashboard(dashboard: &serde_json::Value) -> Vec<Expression> {
    let mut found = Vec::new();
    collect(dashboard, "", &mut found);
    found
}

fn collect(value: &serde_json::Value, title: &str, found: &mut Vec<Expression>) {
    match value {
        serde_json::Value::Object(fields) => {
            let title = fields.get("title").and_then(|title| title.as_str()).unwrap_or(title);
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    ("expr", Some(text)) => {
                        found.push(Expression { place: title.into(), text: filled_in(text) });
                    }
                    _ => collect(value, title, found),
                }
            }
        }
        serde_json::Value::Array(values) => {
            for value in values {
                collect(value, title, found);
            }
        }
        _ => {}
    }
}

/// Durations that Grafana puts in; variables inside strings parse as they are.
fn filled_in(text: &str) -> String {
    let mut text = text.to_owned();
    for variable in ["rate_interval", "interval", "range"] {
        text = text.replace(&format!("${{__{variable}}}"), "5m");
        text = text.replace(&format!("$__{variable}"), "5m");
    }
    text
}

/// The metrics that an expression names.
///
/// # Errors
/// When it does not parse, or selects series without naming a metric.
pub fn metrics_of(text: &str) -> Result<BTreeSet<String>> {
    let expression = parser::parse(text).map_err(|error| anyhow!("{error} in {text}"))?;
    let mut names = Names(BTreeSet::new());
    walk_expr(&mut names, &expression)?;
    Ok(names.0)
}

struct Names(BTreeSet<String>);

impl ExprVisitor for Names {
    type Error = anyhow::Error;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool> {
        let selector = match expression {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(selector) => Some(&selector.vs),
            _ => None,
        };
        if let Some(selector) = selector {
            let name = selector.name.clone();
            self.0.insert(name.ok_or_else(|| anyhow!("a selector names no metric: {expression}"))?);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_on_one_line_and_as_blocks() {
        let yaml = "groups:\n- rules:\n  - record: a:b\n    expr: sum(x)\n  - alert: C\n    \
                    expr: |\n      y\n        > 1\n    for: 1m\n";
        let (expressions, recorded) = of_rules(yaml);
        assert_eq!(recorded, BTreeSet::from(["a:b".to_owned()]));
        let texts: Vec<_> =
            expressions.iter().map(|found| (found.place.as_str(), found.text.trim())).collect();
        assert_eq!(texts, [("a:b", "sum(x)"), ("C", "y\n> 1")]);
    }

    #[test]
    fn every_metric_of_an_expression_is_named() {
        let names =
            metrics_of("sum(rate(a_total{x=\"$y\"}[5m])) / on() b unless c:d").expect("parses");
        assert_eq!(names, ["a_total", "b", "c:d"].map(str::to_owned).into());
        metrics_of("sum(").expect_err("does not parse");
        metrics_of("{job=\"x\"}").expect_err("names no metric");
    }
}
