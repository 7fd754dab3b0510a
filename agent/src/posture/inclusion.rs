//! Following `Include` in configuration files, with an end.
//!
//! sshd, PAM, sudo and rsyslog each include files by their own rules; loops, depth and number
//! are bounded here once for all of them.

use super::malformed::Malformed;

/// Deepest nesting; sshd allows 16, PAM 32, sudo 128: nobody nests by hand beyond a few.
const DEPTH_MAX: usize = 16;

/// Most files of one configuration, so that a directory full of them cannot fill the deadline.
const FILES_MAX: usize = 256;

/// Where one reading of a configuration stands.
#[derive(Debug, Default)]
pub struct Inclusion {
    open: Vec<String>,
    files: usize,
}

impl Inclusion {
    /// Begins a file; [`Inclusion::leave`] ends it.
    ///
    /// # Errors
    /// The file includes itself, or there is no reasonable end.
    pub fn enter(&mut self, file: &str) -> Result<(), Malformed> {
        if self.open.iter().any(|open| open == file) {
            return Err(Malformed::Whole("a file includes itself"));
        }
        if self.open.len() >= DEPTH_MAX {
            return Err(Malformed::Whole("files are included too deep"));
        }
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(Malformed::Whole("too many files are included"));
        }
        self.open.push(file.to_owned());
        Ok(())
    }

    /// Ends the file begun last.
    pub fn leave(&mut self) {
        self.open.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_may_come_twice_but_not_inside_itself() {
        let mut inclusion = Inclusion::default();
        inclusion.enter("a").unwrap();
        inclusion.enter("b").unwrap();
        inclusion.leave();
        inclusion.enter("b").unwrap();
        assert!(inclusion.enter("a").is_err());
    }

    #[test]
    fn depth_and_number_have_an_end() {
        let mut deep = Inclusion::default();
        assert!((0..=DEPTH_MAX).any(|n| deep.enter(&n.to_string()).is_err()));
        let mut wide = Inclusion::default();
        let mut enter_and_leave = |n: usize| {
            let entered = wide.enter(&n.to_string());
            wide.leave();
            entered
        };
        assert!((0..=FILES_MAX).any(|n| enter_and_leave(n).is_err()));
    }
}
