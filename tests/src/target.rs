//! What a figure is held against, and what came of it: met, or missed by how much and why.

/// A target of the design.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    bound: Option<Bound>,
    words: &'static str,
    why_missed: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    /// The design asks for nothing.
    pub const NONE: Self = Self::of_words("–");

    /// Something that no single value meets or misses.
    pub const fn of_words(words: &'static str) -> Self {
        Self { bound: None, words, why_missed: "" }
    }

    /// No more than this.
    pub const fn at_most(bound: f64) -> Self {
        Self { bound: Some(Bound::AtMost(bound)), words: "", why_missed: "" }
    }

    /// No less than this.
    pub const fn at_least(bound: f64) -> Self {
        Self { bound: Some(Bound::AtLeast(bound)), words: "", why_missed: "" }
    }

    /// With words that follow the bound.
    #[must_use]
    pub const fn noting(mut self, words: &'static str) -> Self {
        self.words = words;
        self
    }

    /// With what is known of the reason, for the case that it is missed.
    #[must_use]
    pub const fn missed_because(mut self, why: &'static str) -> Self {
        self.why_missed = why;
        self
    }

    /// The target and what a value makes of it.
    pub fn judge(&self, value: f64) -> String {
        let Self { bound, words, why_missed } = self;
        let (sign, bound, is_met) = match bound {
            None => return (*words).to_owned(),
            Some(Bound::AtMost(most)) => ('≤', most, value <= *most),
            Some(Bound::AtLeast(least)) => ('≥', least, value >= *least),
        };
        if is_met {
            return format!("{sign} {bound}{words}: met");
        }
        let percent = (value / bound - 1.0).abs() * 100.0;
        let why = if why_missed.is_empty() { "not explained" } else { why_missed };
        format!("{sign} {bound}{words}: missed by {percent:.0} %, {why}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_missed_by_so_much() {
        let most = Target::at_most(45.0).noting(", stretch 35").missed_because("of HTTP/2");
        let least = Target::at_least(3_300.0);
        for (target, value, words) in [
            (most, 45.0, "≤ 45, stretch 35: met"),
            (most, 60.1, "≤ 45, stretch 35: missed by 34 %, of HTTP/2"),
            (least, 3_300.5, "≥ 3300: met"),
            (least, 2_970.0, "≥ 3300: missed by 10 %, not explained"),
            (Target::at_most(0.06), 0.045, "≤ 0.06: met"),
            (Target::NONE, 7.0, "–"),
        ] {
            assert_eq!(target.judge(value), words);
        }
    }
}
