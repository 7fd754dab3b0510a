//! The text exposition of Prometheus (format 0.0.4), read strictly enough for tests: every line
//! is a comment, a sample, or an error.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};

/// The samples of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Families that a `# TYPE` line declares, samples or not.
    declared: BTreeSet<String>,
    samples: Vec<Sample>,
}

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The metric's name.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

impl Exposition {
    /// Reads a scrape.
    ///
    /// # Errors
    /// With the line that is neither comment nor sample.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines
            .map(|line| sample(line).with_context(|| format!("the sample line {line:?}")))
            .collect::<Result<_>>()?;
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let declared = types.filter_map(|line| line.split(' ').next()).map(Into::into).collect();
        Ok(Self { declared, samples })
    }

    /// The samples of a metric whose labels include these.
    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| {
            sample.name == name
                && labels
                    .iter()
                    .all(|(label, value)| sample.labels.get(*label).is_some_and(|has| has == value))
        })
    }

    /// The one value of a label for which the metric is 1, among samples with these labels.
    pub fn label_of_one<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
        label: &str,
    ) -> Option<&'a str> {
        let mut ones = self.find(name, labels).filter(|sample| sample.value == 1.0);
        let one = ones.next()?;
        if ones.next().is_some() { None } else { one.labels.get(label).map(String::as_str) }
    }

    /// The names of all metrics: those with samples, and those declared that have none now, such
    /// as the cause of an outage while there is no outage.
    pub fn names(&self) -> BTreeSet<&str> {
        let sampled = self.samples.iter().map(|sample| sample.name.as_str());
        sampled.chain(self.declared.iter().map(String::as_str)).collect()
    }

    /// All samples, in the order of the scrape.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }
}

fn sample(line: &str) -> Result<Sample> {
    let name_end = line.find(['{', ' ']).context("has no value")?;
    let (name, mut rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label has no value")?;
            let (value, after) = quoted(after).context("a label's value has no end")?;
            let twice = labels.insert(label.to_owned(), value).is_some();
            ensure!(!twice, "the label {label} stands twice");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.trim().split(' ').next().context("has no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        value => value.parse().with_context(|| format!("{value:?} is no number"))?,
    };
    Ok(Sample { name: name.into(), labels, value })
}

/// The text up to the closing quote, and what follows that.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_with_their_labels() {
        let text = "# HELP up Whether.\n# TYPE down gauge\nup{job=\"a b\",note=\"\\\"x\\\"\"} 1\nidle 2.5e-1\n";
        let read = Exposition::parse(text).expect("well formed");
        assert_eq!(read.label_of_one("up", &[("job", "a b")], "note"), Some("\"x\""));
        assert_eq!(read.find("idle", &[]).next().map(|sample| sample.value), Some(0.25));
        assert_eq!(read.names(), BTreeSet::from(["down", "idle", "up"]));
    }

    #[test]
    fn what_is_no_sample_is_an_error() {
        for bad in ["up", "up{job=\"a} 1", "up{job} 1", "up many", "up{a=\"1\",a=\"2\"} 1"] {
            assert!(Exposition::parse(bad).is_err(), "{bad:?}");
        }
    }
}
