//! What sshd's configuration allows in the worst case, without running sshd.
//!
//! sshd_config(5): the first value of a keyword wins; a `Match` block overrides the global
//! section, and of several that match the first wins. Who matches depends on the connection,
//! so each block alone and each pair of blocks is laid over the global section and the worst
//! counts: no rule judged here reads more than two keywords that may stand in a block.
//! A keyword that no version of sshd knows would keep sshd from starting with this file, so
//! the file says nothing about the sshd that runs: malformed.

use std::collections::BTreeMap;

use super::inclusion::Inclusion;
use super::malformed::{Malformed, lines};

/// Most `Match` blocks; all pairs of them are judged.
const BLOCKS_MAX: usize = 128;

/// Reads the files a pattern of `Include` names, sorted, as (path, content); none is no error.
pub type Included<'a, E> = &'a mut dyn FnMut(&str) -> Result<Vec<(String, Vec<u8>)>, E>;

/// The configuration with all its inclusions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configuration {
    global: Block,
    blocks: Vec<Block>,
    ports: Vec<u16>,
}

/// First values by keyword in lower case; arguments are joined by one space.
type Block = BTreeMap<String, String>;

/// How root may log in, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RootLogin {
    /// Never.
    No,
    /// By key, for a forced command.
    ForcedCommandsOnly,
    /// By key.
    ProhibitPassword,
    /// By any method.
    Yes,
}

impl Configuration {
    /// Reads the main file and what it includes.
    ///
    /// # Errors
    /// What `included` returns, and any line that sshd would not accept.
    pub fn read<E: From<Malformed>>(
        path: &str,
        bytes: &[u8],
        included: Included<'_, E>,
    ) -> Result<Self, E> {
        let mut configuration = Self::default();
        let mut reading = Reading { block: None, inclusion: Inclusion::default() };
        configuration.file(path, bytes, &mut reading, included)?;
        Ok(configuration)
    }

    /// Ports sshd listens on by itself; 22 when the file names none.
    pub fn ports(&self) -> Vec<u16> {
        if self.ports.is_empty() { vec![22] } else { self.ports.clone() }
    }

    /// The worst way in which root may log in. The compiled default is `prohibit-password`
    /// since OpenSSH 7.0 (2015), older than any kernel the agent runs on.
    ///
    /// # Errors
    /// A value sshd does not know.
    pub fn root_login(&self) -> Result<RootLogin, Malformed> {
        self.worst(|scene| match scene.value("permitrootlogin").to_ascii_lowercase().as_str() {
            "no" => Ok(RootLogin::No),
            "forced-commands-only" => Ok(RootLogin::ForcedCommandsOnly),
            "" | "prohibit-password" | "without-password" => Ok(RootLogin::ProhibitPassword),
            "yes" => Ok(RootLogin::Yes),
            _ => Err(Malformed::Whole("unknown value of PermitRootLogin")),
        })
    }

    /// Whether somebody may log in with a password and nothing else. `second_factor` says that
    /// PAM's stack for sshd demands one.
    ///
    /// # Errors
    /// A value sshd does not know.
    pub fn password_alone(&self, second_factor: SecondFactor) -> Result<bool, Malformed> {
        self.worst(|scene| {
            let pam = scene.switch("usepam", false)?;
            let password = scene.switch("passwordauthentication", true)?;
            let interactive = scene.switch("kbdinteractiveauthentication", true)?;
            let asked = second_factor == SecondFactor::Demanded && pam;
            let methods = scene.value("authenticationmethods");
            Ok(!asked
                && (password && methods_allow(methods, &["password"])
                    || interactive && pam && methods_allow(methods, &["keyboard-interactive"])))
        })
    }

    fn file<E: From<Malformed>>(
        &mut self,
        path: &str,
        bytes: &[u8],
        reading: &mut Reading,
        included: Included<'_, E>,
    ) -> Result<(), E> {
        reading.inclusion.enter(path)?;
        let outer = reading.block;
        for (number, line) in lines(bytes)? {
            let Some(directive) = Directive::parse(number, &line)? else { continue };
            match directive.keyword.as_str() {
                "include" => {
                    for pattern in &directive.arguments {
                        for (path, bytes) in included(&absolute(pattern))? {
                            self.file(&path, &bytes, reading, included)?;
                        }
                    }
                }
                "match" => {
                    if self.blocks.len() == BLOCKS_MAX {
                        return Err(Malformed::Whole("too many Match blocks").into());
                    }
                    self.blocks.push(Block::new());
                    reading.block = Some(self.blocks.len() - 1);
                }
                _ => self.set(directive, reading.block)?,
            }
        }
        // A Match inside an included file ends with that file.
        reading.block = outer;
        reading.inclusion.leave();
        Ok(())
    }

    fn set(&mut self, directive: Directive, block: Option<usize>) -> Result<(), Malformed> {
        let Directive { number, keyword, arguments } = directive;
        if keyword == "port" {
            let port = arguments.first().and_then(|port| port.parse().ok());
            self.ports.push(port.ok_or(Malformed::Line { number, what: "not a port" })?);
            return Ok(());
        }
        let block = match block {
            Some(index) => &mut self.blocks[index],
            None => &mut self.global,
        };
        block.entry(keyword).or_insert_with(|| arguments.join(" "));
        Ok(())
    }

    /// The worst of `judge` over the global section, each block, and each pair of blocks.
    fn worst<T: Ord>(
        &self,
        judge: impl Fn(Scene<'_>) -> Result<T, Malformed>,
    ) -> Result<T, Malformed> {
        let nothing = Block::new();
        let mut worst = judge(Scene([&nothing, &nothing, &self.global]))?;
        for (index, first) in self.blocks.iter().enumerate() {
            for second in &self.blocks[index..] {
                worst = worst.max(judge(Scene([first, second, &self.global]))?);
            }
        }
        Ok(worst)
    }
}

/// Whether PAM demands something beside the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecondFactor {
    /// It does, of everybody.
    Demanded,
    /// It does not.
    None,
}

#[derive(Debug)]
struct Reading {
    block: Option<usize>,
    inclusion: Inclusion,
}

/// Blocks in the order in which the first value wins.
struct Scene<'a>([&'a Block; 3]);

impl Scene<'_> {
    fn value(&self, keyword: &str) -> &str {
        self.0.iter().find_map(|block| block.get(keyword)).map_or("", String::as_str)
    }

    fn switch(&self, keyword: &str, compiled: bool) -> Result<bool, Malformed> {
        match self.value(keyword).to_ascii_lowercase().as_str() {
            "" => Ok(compiled),
            "yes" | "true" => Ok(true),
            "no" | "false" => Ok(false),
            _ => Err(Malformed::Whole("a switch is neither yes nor no")),
        }
    }
}

/// Whether one of the alternatives of AuthenticationMethods consists of `methods` only.
/// Unset or `any` demands nothing. `keyboard-interactive:pam` names a device of the method.
fn methods_allow(alternatives: &str, methods: &[&str]) -> bool {
    const GUESSABLE: [&str; 2] = ["password", "keyboard-interactive"];
    let name = |method: &str| method.split(':').next().unwrap_or_default().to_ascii_lowercase();
    alternatives.is_empty()
        || alternatives.split_whitespace().any(|alternative| {
            alternative.eq_ignore_ascii_case("any")
                || alternative.split(',').all(|method| GUESSABLE.contains(&name(method).as_str()))
                    && alternative.split(',').any(|method| methods.contains(&name(method).as_str()))
        })
}

fn absolute(pattern: &str) -> String {
    if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/ssh/{pattern}") }
}

struct Directive {
    number: usize,
    keyword: String,
    arguments: Vec<String>,
}

impl Directive {
    fn parse(number: usize, line: &str) -> Result<Option<Self>, Malformed> {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let end = line
            .find(|character: char| character.is_whitespace() || character == '=')
            .unwrap_or(line.len());
        let keyword = match line[..end].to_ascii_lowercase().as_str() {
            "challengeresponseauthentication" | "skeyauthentication" => {
                "kbdinteractiveauthentication".to_owned()
            }
            keyword => keyword.to_owned(),
        };
        if !KEYWORDS.contains(&keyword.as_str()) {
            return Err(Malformed::Line { number, what: "a keyword sshd does not know" });
        }
        let rest = line[end..].trim_start();
        let arguments = arguments(number, rest.strip_prefix('=').unwrap_or(rest))?;
        if arguments.is_empty() {
            return Err(Malformed::Line { number, what: "a keyword without a value" });
        }
        Ok(Some(Self { number, keyword, arguments }))
    }
}

/// Words with their quotes taken off, up to a comment.
fn arguments(number: usize, text: &str) -> Result<Vec<String>, Malformed> {
    let mut arguments = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let mut word = String::new();
        let mut quote = None;
        let mut end = rest.len();
        for (position, character) in rest.char_indices() {
            match (quote, character) {
                (None, '"' | '\'') => quote = Some(character),
                (Some(open), close) if open == close => quote = None,
                (None, space) if space.is_whitespace() => {
                    end = position;
                    break;
                }
                (_, other) => word.push(other),
            }
        }
        if quote.is_some() {
            return Err(Malformed::Line { number, what: "a quote is not closed" });
        }
        arguments.push(word);
        rest = rest[end..].trim_start();
    }
    Ok(arguments)
}

/// Keywords of sshd up to OpenSSH 10, with those of the Debian and Red Hat patches; the
/// retired ones are ignored by sshd with a warning.
#[rustfmt::skip]
const KEYWORDS: [&str; 138] = [
    "acceptenv", "addressfamily", "afstokenpassing", "allowagentforwarding", "allowgroups",
    "allowstreamlocalforwarding", "allowtcpforwarding", "allowusers", "authenticationmethods",
    "authorizedkeyscommand", "authorizedkeyscommanduser", "authorizedkeysfile",
    "authorizedkeysfile2", "authorizedprincipalscommand", "authorizedprincipalscommanduser",
    "authorizedprincipalsfile", "banner", "casignaturealgorithms", "channeltimeout", "checkmail",
    "chrootdirectory", "ciphers", "clientalivecountmax", "clientaliveinterval", "compression",
    "debianbanner", "denygroups", "denyusers", "disableforwarding", "dsaauthentication",
    "exposeauthinfo", "fingerprinthash", "forcecommand", "gatewayports", "gssapiauthentication",
    "gssapicleanupcredentials", "gssapienablek5users", "gssapikexalgorithms",
    "gssapikeyexchange", "gssapistorecredentialsonrekey", "gssapistrictacceptorcheck",
    "gssapiusesessioncredcache", "hostbasedacceptedalgorithms", "hostbasedacceptedkeytypes",
    "hostbasedauthentication", "hostbasedusesnamefrompacketonly", "hostcertificate",
    "hostdsakey", "hostkey", "hostkeyagent", "hostkeyalgorithms", "ignorerhosts",
    "ignoreuserknownhosts", "include", "ipqos", "kbdinteractiveauthentication", "keepalive",
    "kerberosauthentication", "kerberosgetafstoken", "kerberosorlocalpasswd",
    "kerberostgtpassing", "kerberosticketcleanup", "kerberosuniqueccache",
    "kerberosusekuserok", "kexalgorithms", "keyregenerationinterval", "listenaddress",
    "logingracetime", "loglevel", "logverbose", "macs", "match", "maxauthtries", "maxsessions",
    "maxstartups", "modulifile", "pamauthenticationviakbdint", "passwordauthentication",
    "permitblacklistedkeys", "permitemptypasswords", "permitlisten", "permitopen",
    "permitrootlogin", "permittty", "permittunnel", "permituserenvironment", "permituserrc",
    "persourcemaxstartups", "persourcenetblocksize", "persourcepenalties",
    "persourcepenaltyexemptlist", "pidfile", "port", "printlastlog", "printmotd", "protocol",
    "pubkeyacceptedalgorithms", "pubkeyacceptedkeytypes", "pubkeyauthentication",
    "pubkeyauthoptions", "rdomain", "refuseconnection", "rekeylimit", "requiredrsasize",
    "reversemappingcheck", "revokedkeys", "rhostsauthentication", "rhostsrsaauthentication",
    "rsaauthentication", "rsaminsize", "securitykeyprovider", "serverkeybits", "setenv",
    "showpatchlevel", "sshdauthpath", "sshdsessionpath", "streamlocalbindmask",
    "streamlocalbindunlink", "strictmodes", "subsystem", "syslogfacility", "tcpkeepalive",
    "trustedusercakeys", "unusedconnectiontimeout", "usedns", "uselogin", "usepam",
    "useprivilegeseparation", "verifyreversemapping", "versionaddendum", "x11displayoffset",
    "x11forwarding", "x11maxdisplays", "x11uselocalhost", "xauthlocation",
    "gssapicleanupcreds", "gssusesessionccache", "pamservicename",
];

#[cfg(test)]
mod tests;
