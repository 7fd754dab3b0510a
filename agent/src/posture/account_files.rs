//! The account databases: passwd(5), shadow(5), group(5), lastlog(5) and utmp(5).
//!
//! Names are compared on the machine and never leave it: callers report counts.

use super::malformed::{Malformed, lines};

/// One line of passwd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Second field: `x` where shadow has the password.
    pub password: Password,
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
    /// Program started at login; an empty field means `/bin/sh`.
    pub shell: String,
}

impl Account {
    /// Whether the shell lets somebody in.
    pub fn has_login_shell(&self) -> bool {
        const CLOSED: [&str; 6] = ["nologin", "false", "sync", "halt", "shutdown", "true"];
        let program = self.shell.rsplit('/').next().unwrap_or_default();
        !CLOSED.contains(&program)
    }
}

/// What a password field says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Password {
    /// No password is asked for.
    Empty,
    /// `x` of passwd: shadow says.
    Shadowed,
    /// No password can match.
    Locked,
    /// A hash.
    Usable,
}

impl Password {
    /// A field of shadow. crypt(5): a hash starts with `$` or `_`, or has 13 characters;
    /// whatever else stands there can match nothing.
    fn of_shadow(field: &str) -> Self {
        match field {
            "" => Self::Empty,
            hash if hash.starts_with(['$', '_']) => Self::Usable,
            des if des.len() == 13 && !des.starts_with(['!', '*']) => Self::Usable,
            _ => Self::Locked,
        }
    }

    fn of_passwd(field: &str) -> Self {
        if field == "x" { Self::Shadowed } else { Self::of_shadow(field) }
    }
}

/// passwd. Lines that begin with `+` or `-` refer to NIS and name no account of this machine.
///
/// # Errors
/// A line without seven fields or with an id that is no number.
pub fn passwd(bytes: &[u8]) -> Result<Vec<Account>, Malformed> {
    let account = |number, fields: &[&str]| {
        let &[name, password, uid, gid, _, home, shell] = fields else {
            return Err(Malformed::Line { number, what: "not the seven fields of passwd" });
        };
        let id = |field: &str| {
            field.parse().map_err(|_| Malformed::Line { number, what: "not a numeric id" })
        };
        Ok(Account {
            name: name.to_owned(),
            password: Password::of_passwd(password),
            uid: id(uid)?,
            gid: id(gid)?,
            home: home.to_owned(),
            shell: shell.to_owned(),
        })
    };
    records(bytes, account)
}

/// One line of shadow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shadow {
    /// Login name.
    pub name: String,
    /// Second field.
    pub password: Password,
    /// Day of the last change of the password, counted from 1970; 0 asks for a change.
    pub changed_day: Option<u32>,
    /// Day from which the account is closed, counted from 1970.
    pub expires_day: Option<u32>,
}

/// shadow.
///
/// # Errors
/// A line without nine fields or with a day that is no number.
pub fn shadow(bytes: &[u8]) -> Result<Vec<Shadow>, Malformed> {
    let entry = |number, fields: &[&str]| {
        let &[name, password, changed, _, _, _, _, expires, _] = fields else {
            return Err(Malformed::Line { number, what: "not the nine fields of shadow" });
        };
        let day = |field: &str| match field {
            "" | "-1" => Ok(None),
            day => day
                .parse()
                .map(Some)
                .map_err(|_| Malformed::Line { number, what: "not a number of days" }),
        };
        Ok(Shadow {
            name: name.to_owned(),
            password: Password::of_shadow(password),
            changed_day: day(changed)?,
            expires_day: day(expires)?,
        })
    };
    records(bytes, entry)
}

/// One line of group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Members beside those who have it as primary group.
    pub members: Vec<String>,
}

/// group.
///
/// # Errors
/// A line without four fields or with an id that is no number.
pub fn group(bytes: &[u8]) -> Result<Vec<Group>, Malformed> {
    let entry = |number, fields: &[&str]| {
        let &[name, _, gid, members] = fields else {
            return Err(Malformed::Line { number, what: "not the four fields of group" });
        };
        Ok(Group {
            name: name.to_owned(),
            gid: gid.parse().map_err(|_| Malformed::Line { number, what: "not a numeric id" })?,
            members: members
                .split(',')
                .map(str::trim)
                .filter(|member| !member.is_empty())
                .map(str::to_owned)
                .collect(),
        })
    };
    records(bytes, entry)
}

fn records<T>(
    bytes: &[u8],
    record: impl Fn(usize, &[&str]) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut records = Vec::new();
    for (number, line) in lines(bytes)? {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with(['#', '+', '-']) {
            continue;
        }
        records.push(record(number, &line.split(':').collect::<Vec<_>>())?);
    }
    if records.is_empty() {
        return Err(Malformed::Whole("no account or group in it"));
    }
    Ok(records)
}

/// Bytes of one record of lastlog: time (4), line (32), host (256). Record n belongs to uid n.
pub const LASTLOG_RECORD_BYTES: usize = 292;

/// Time of the last login in seconds since 1970; `None` for never. The field has 32 bits and is
/// read unsigned, so that it lasts until 2106.
///
/// # Errors
/// A truncated record. A file that ends before the record has none: that is `None` to the caller.
pub fn lastlog(record: &[u8]) -> Result<Option<u64>, Malformed> {
    let (time, _) = record
        .split_first_chunk::<4>()
        .filter(|_| record.len() == LASTLOG_RECORD_BYTES)
        .ok_or(Malformed::Whole("a truncated record of lastlog"))?;
    let seconds = u32::from_le_bytes(*time);
    Ok((seconds != 0).then_some(u64::from(seconds)))
}

/// Bytes of one record of utmp and wtmp on 64-bit Linux.
pub const UTMP_RECORD_BYTES: usize = 384;

/// A login that utmp or wtmp tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Login name.
    pub name: String,
    /// Seconds since 1970, read unsigned as in [`lastlog`].
    pub seconds: u64,
}

/// What utmp or wtmp tells: its logins, and the first moment it knows anything of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins {
    /// Logins of users.
    pub logins: Vec<Login>,
    /// The oldest record of any type, in seconds since 1970.
    pub since_seconds: Option<u64>,
}

/// utmp or wtmp, whole records only: a record that is being written may be cut off.
///
/// # Errors
/// A record of no known type, which other byte orders and other files have.
pub fn utmp(bytes: &[u8]) -> Result<Logins, Malformed> {
    const USER_PROCESS: u16 = 7;
    const TYPE_MAX: u16 = 9;
    let mut logins = Logins::default();
    for record in bytes.chunks_exact(UTMP_RECORD_BYTES) {
        let kind = u16::from_le_bytes([record[0], record[1]]);
        if kind > TYPE_MAX {
            return Err(Malformed::Whole("not records of utmp"));
        }
        let seconds =
            u64::from(u32::from_le_bytes([record[340], record[341], record[342], record[343]]));
        if seconds == 0 {
            continue;
        }
        logins.since_seconds =
            Some(logins.since_seconds.map_or(seconds, |since| since.min(seconds)));
        if kind == USER_PROCESS {
            let name = record[44..76].split(|&byte| byte == 0).next().unwrap_or_default();
            logins.logins.push(Login { name: String::from_utf8_lossy(name).into_owned(), seconds });
        }
    }
    Ok(logins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let accounts = passwd(b"root:x:0:0:root:/root:/bin/bash\nsync:x:4:65534:sync:/bin:/bin/sync\n+::::::\nlegacy::1000:1000::/home/legacy:\n").unwrap();
        assert!(accounts[0].has_login_shell() && !accounts[1].has_login_shell());
        assert_eq!(accounts[2].password, Password::Empty);
        assert!(accounts[2].has_login_shell(), "an empty shell is /bin/sh");
        let groups = group(b"sudo:x:27:an,binh\nstaff:x:50:\n").unwrap();
        assert_eq!((groups[0].members.len(), groups[1].members.len()), (2, 0));
    }

    #[track_caller]
    fn password(field: &str, expected: Password) {
        let line = format!("a:{field}:19000:0:99999:7:::\n");
        assert_eq!(shadow(line.as_bytes()).unwrap()[0].password, expected, "{field}");
    }

    #[test]
    fn only_a_hash_is_a_usable_password() {
        password("", Password::Empty);
        password("*", Password::Locked);
        password("!", Password::Locked);
        password("!!", Password::Locked);
        password("!$6$salt$hash", Password::Locked);
        password("!*************", Password::Locked);
        password("x", Password::Locked);
        password("$y$j9T$salt$hash", Password::Usable);
        password("ab01234567890", Password::Usable);
    }

    #[test]
    fn broken_lines_are_refused() {
        assert!(passwd(b"root:x:0:0\n").is_err());
        assert!(passwd(b"root:x:-1:0:::\n").is_err());
        assert!(passwd(b"").is_err());
        assert!(shadow(b"root:*:today:0:99999:7:::\n").is_err());
        assert!(group(b"root:x:0\n").is_err());
    }

    #[test]
    fn the_last_login_outlives_2038() {
        let mut record = [0; LASTLOG_RECORD_BYTES];
        assert_eq!(lastlog(&record), Ok(None));
        record[..4].copy_from_slice(&0x9000_0000_u32.to_le_bytes());
        assert_eq!(lastlog(&record), Ok(Some(0x9000_0000)));
        assert!(lastlog(&record[..200]).is_err());
    }

    #[test]
    fn wtmp_tells_logins_and_how_far_back_it_reaches() {
        let record = |kind: u8, name: &[u8], seconds: u32| {
            let mut record = [0; UTMP_RECORD_BYTES];
            record[0] = kind;
            record[44..44 + name.len()].copy_from_slice(name);
            record[340..344].copy_from_slice(&seconds.to_le_bytes());
            record
        };
        let bytes =
            [record(2, b"reboot", 100), record(7, b"an", 200), record(8, b"", 300)].concat();
        let read = utmp(&bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(read.logins, [Login { name: "an".to_owned(), seconds: 200 }]);
        assert_eq!(read.since_seconds, Some(100));
        assert!(utmp(&[0xff; UTMP_RECORD_BYTES]).is_err());
    }
}
