//! The few values of apt's configuration that are asked for (apt.conf(5)): `A::B "value";`, and
//! the same in blocks, `A { B "value"; };`. Later files and lines win. `//`, `#` and `/* */` are
//! comments; names are not case-sensitive.

use super::super::finding::Unknown;

/// Depth of blocks; apt's own files have three.
const DEPTH_MAX: usize = 16;

/// The last value that a text gives the option; `None` when it gives none.
pub(super) fn value(text: &str, option: &str, path: &str) -> Result<Option<String>, Unknown> {
    let malformed = |problem: &str| Unknown::malformed(path, problem);
    let mut scopes: Vec<String> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut found = None;
    for token in tokens(text).map_err(malformed)? {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open if scopes.len() == DEPTH_MAX => {
                return Err(malformed("is nested too deep"));
            }
            Token::Open => scopes.push(words.drain(..).next().unwrap_or_default()),
            Token::Close => {
                words.clear();
                scopes.pop().ok_or_else(|| malformed("closes a block that is not open"))?;
            }
            Token::End => {
                if let [name, value] = words.as_slice() {
                    let scope = scopes.iter().map(String::as_str).chain([name.as_str()]);
                    let full = scope.collect::<Vec<_>>().join("::");
                    if full.eq_ignore_ascii_case(option) {
                        found = Some(value.clone());
                    }
                }
                words.clear();
            }
        }
    }
    Ok(found)
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn tokens(text: &str) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let used = match first {
            '{' | '}' | ';' => {
                tokens.push(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
                1
            }
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => {
                rest.find("*/").ok_or("has a comment without an end")? + 2
            }
            '"' => {
                let end = rest[1..].find('"').ok_or("has a text without an end")?;
                tokens.push(Token::Word(rest[1..=end].into()));
                end + 2
            }
            _ => {
                let is_end = |c: char| c.is_whitespace() || ['{', '}', ';', '"'].contains(&c);
                let end = rest.find(is_end).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].into()));
                end
            }
        };
        rest = rest[used..].trim_start();
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OPTION: &str = "APT::Periodic::Unattended-Upgrade";

    #[track_caller]
    fn gives(text: &str, expected: Option<&str>) {
        assert_eq!(value(text, OPTION, "20auto-upgrades"), Ok(expected.map(String::from)));
    }

    #[test]
    fn values_are_read_in_each_form_and_the_last_one_wins() {
        gives("APT::Periodic::Unattended-Upgrade \"1\";\n", Some("1"));
        gives("apt { periodic { unattended-upgrade 1; }; };", Some("1"));
        gives("APT::Periodic { Unattended-Upgrade \"1\"; };\n# x\n", Some("1"));
        gives("// APT::Periodic::Unattended-Upgrade \"1\";", None);
        gives("/* APT::Periodic::Unattended-Upgrade \"1\"; */ #", None);
        gives(
            "APT::Periodic::Unattended-Upgrade \"1\"; APT::Periodic::Unattended-Upgrade \"0\";",
            Some("0"),
        );
        gives("Dir::Etc \"//\"; APT::Periodic::Unattended-Upgrade \"1\";", Some("1"));
        gives("DPkg::Post-Invoke { \"rm -f /x || true\"; };", None);
    }

    #[test]
    fn broken_texts_are_malformed() {
        for text in ["A \"x", "}", "/* x"] {
            assert!(value(text, OPTION, "x").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "[A-Z:{}\";/#* \n\u{1ea1}]{0,80}") {
            let _ = value(&text, OPTION, "x");
        }
    }
}
