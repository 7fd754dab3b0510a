//! Where rsyslog sends messages: legacy selectors (`@@host:port`), `action(type="omfwd" …)` and
//! `omrelp`, with `$IncludeConfig` and `include(file="…")`.

use super::inclusion::Inclusion;
use super::malformed::{LINE_BYTES_MAX, Malformed, logical_lines};

/// One destination off the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// How it travels.
    pub transport: Transport,
    /// Host name or address as written.
    pub host: String,
    /// Port; 514 where none is written.
    pub port: u16,
}

/// How messages travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A connection that can be seen: plain TCP, TLS over it, or RELP.
    Tcp,
    /// Datagrams; nothing on this machine shows whether they arrive.
    Udp,
}

/// Reads the files a pattern names, sorted, as (path, content); none is no error.
pub type Included<'a, E> = &'a mut dyn FnMut(&str) -> Result<Vec<(String, Vec<u8>)>, E>;

/// All destinations of a configuration.
///
/// # Errors
/// What `included` returns, inclusions without an end, an object that is not closed.
pub fn forwards<E: From<Malformed>>(
    path: &str,
    bytes: &[u8],
    included: Included<'_, E>,
) -> Result<Vec<Forward>, E> {
    let mut found = Vec::new();
    file(path, bytes, &mut Inclusion::default(), included, &mut found)?;
    Ok(found)
}

fn file<E: From<Malformed>>(
    path: &str,
    bytes: &[u8],
    inclusion: &mut Inclusion,
    included: Included<'_, E>,
    found: &mut Vec<Forward>,
) -> Result<(), E> {
    inclusion.enter(path)?;
    for statement in statements(bytes)? {
        match statement {
            Statement::Forward(forward) => found.push(forward),
            Statement::Include(pattern) => {
                for (path, bytes) in included(&pattern)? {
                    file(&path, &bytes, inclusion, included, found)?;
                }
            }
        }
    }
    inclusion.leave();
    Ok(())
}

enum Statement {
    Forward(Forward),
    Include(String),
}

fn statements(bytes: &[u8]) -> Result<Vec<Statement>, Malformed> {
    let mut statements = Vec::new();
    let mut object: Option<(usize, String)> = None;
    for (number, line) in logical_lines(bytes)? {
        let line = without_comment(&line);
        if let Some((number, text)) = &mut object {
            text.push(' ');
            text.push_str(line);
            if text.len() > LINE_BYTES_MAX {
                return Err(Malformed::Line { number: *number, what: "an object without an end" });
            }
        } else if let Some(at) = object_start(line) {
            object = Some((number, line[at..].to_owned()));
        } else if let Some(statement) = legacy(number, line)? {
            statements.push(statement);
        }
        if let Some((number, text)) = &object
            && let Some(end) = object_end(text)
        {
            statements.extend(from_object(*number, &text[..end])?);
            object = None;
        }
    }
    match object {
        Some((number, _)) => Err(Malformed::Line { number, what: "a parenthesis is not closed" }),
        None => Ok(statements),
    }
}

fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, character) in line.char_indices() {
        match character {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

/// Where an object that matters begins on a line.
fn object_start(line: &str) -> Option<usize> {
    let lower = line.to_ascii_lowercase();
    ["action", "include"]
        .iter()
        .filter_map(|word| {
            let at = lower.find(word)?;
            lower[at + word.len()..].trim_start().starts_with('(').then_some(at)
        })
        .min()
}

/// Where it ends: after the parenthesis that closes outside quotes.
fn object_end(text: &str) -> Option<usize> {
    let mut quoted = false;
    text.char_indices().find_map(|(at, character)| {
        quoted ^= character == '"';
        (character == ')' && !quoted).then_some(at + 1)
    })
}

fn from_object(number: usize, text: &str) -> Result<Option<Statement>, Malformed> {
    if text.to_ascii_lowercase().starts_with("include") {
        return Ok(parameter(text, "file").map(Statement::Include));
    }
    let transport = match parameter(text, "type").map(|kind| kind.to_ascii_lowercase()).as_deref() {
        Some("omrelp") => Transport::Tcp,
        Some("omfwd") => match parameter(text, "protocol") {
            Some(protocol) if protocol.eq_ignore_ascii_case("tcp") => Transport::Tcp,
            _ => Transport::Udp,
        },
        _ => return Ok(None),
    };
    let Some(host) = parameter(text, "target") else {
        return Err(Malformed::Line { number, what: "forwarding without a target" });
    };
    let port = parameter(text, "port").unwrap_or_else(|| "514".to_owned());
    Ok(Some(Statement::Forward(Forward { transport, host, port: port_of(number, &port)? })))
}

/// `name="value"` inside an object; names are not case sensitive.
fn parameter(text: &str, name: &str) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    lower.match_indices(name).find_map(|(at, _)| {
        let before = lower[..at].chars().next_back()?;
        if before.is_alphanumeric() || before == '.' || before == '_' {
            return None;
        }
        let rest = text[at + name.len()..].trim_start().strip_prefix('=')?.trim_start();
        let rest = rest.strip_prefix('"')?;
        rest.find('"').map(|end| rest[..end].to_owned())
    })
}

fn legacy(number: usize, line: &str) -> Result<Option<Statement>, Malformed> {
    let line = line.trim();
    if let Some(rest) = line.get(..14).filter(|word| word.eq_ignore_ascii_case("$IncludeConfig")) {
        return Ok(Some(Statement::Include(line[rest.len()..].trim().to_owned())));
    }
    let Some(target) = line.split_whitespace().find(|word| word.starts_with('@')) else {
        return Ok(None);
    };
    let (transport, target) = match target.strip_prefix("@@") {
        Some(target) => (Transport::Tcp, target),
        None => (Transport::Udp, &target[1..]),
    };
    // `(o,z9)` are options, `;RSYSLOG_…` is a template.
    let target = match target.strip_prefix('(') {
        Some(rest) => rest.split_once(')').map_or("", |(_, target)| target),
        None => target,
    };
    let target = target.split(';').next().unwrap_or_default();
    let (host, port) = match target.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(host, port)| (host, port.trim_start_matches(':'))),
        None => Some(target.split_once(':').unwrap_or((target, ""))),
    }
    .ok_or(Malformed::Line { number, what: "a bracket is not closed" })?;
    if host.is_empty() {
        return Err(Malformed::Line { number, what: "forwarding without a target" });
    }
    let port = if port.is_empty() { "514" } else { port };
    let port = port_of(number, port)?;
    Ok(Some(Statement::Forward(Forward { transport, host: host.to_owned(), port })))
}

fn port_of(number: usize, text: &str) -> Result<u16, Malformed> {
    match text {
        "syslog-tls" => Ok(6514),
        "syslog" | "shell" => Ok(514),
        _ => text.parse().map_err(|_| Malformed::Line { number, what: "not a port" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Forward>, Malformed> {
        forwards("main", text.as_bytes(), &mut |pattern| {
            let path = pattern.replace('*', "a");
            Ok(vec![(path, b"$IncludeConfig /loop/*.conf".to_vec())])
        })
    }

    #[track_caller]
    fn one(text: &str, transport: Transport, host: &str, port: u16) {
        assert_eq!(
            read(text),
            Ok(vec![Forward { transport, host: host.to_owned(), port }]),
            "{text}"
        );
    }

    #[test]
    fn every_way_to_write_it_is_read() {
        one("*.* @@10.0.0.1", Transport::Tcp, "10.0.0.1", 514);
        one(
            "*.* @log.example:10514;RSYSLOG_SyslogProtocol23Format",
            Transport::Udp,
            "log.example",
            10514,
        );
        one("auth.* @@(o)[2001:db8::1]:6514", Transport::Tcp, "2001:db8::1", 6514);
        one(
            "*.* action(type=\"omfwd\"\n  # why\n  Target=\"a)b\" Port=\"601\" Protocol=\"tcp\")",
            Transport::Tcp,
            "a)b",
            601,
        );
        one("action(type=\"omfwd\" target=\"a\" port=\"514\")", Transport::Udp, "a", 514);
        one(
            "if $x == 'y' then { action(type=\"omrelp\" target=\"a\" port=\"2514\") }",
            Transport::Tcp,
            "a",
            2514,
        );
    }

    #[test]
    fn what_stays_on_the_machine_is_no_forwarding() {
        assert_eq!(
            read("*.* /var/log/syslog\n#*.* @@host\naction(type=\"omfile\" file=\"/x\")"),
            Ok(vec![])
        );
    }

    #[test]
    fn broken_input_and_loops_are_refused() {
        for text in [
            "action(type=\"omfwd\"",
            "action(type=\"omfwd\" port=\"1\")",
            "*.* @@",
            "*.* @@h:x",
            "*.* @[::1",
            "$IncludeConfig /loop/*.conf",
            "\0",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
