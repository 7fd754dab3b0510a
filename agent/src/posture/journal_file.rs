//! The header of a systemd journal file (systemd.io/JOURNAL_FILE_FORMAT).

use super::malformed::Malformed;

/// Bytes of a file that have to be read.
pub const HEADER_BYTES: usize = 208;

/// What the header says of the entries in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Number of entries.
    pub entries: u64,
    /// Wall-clock time of the oldest entry, in microseconds since 1970.
    pub oldest_microseconds: u64,
    /// Wall-clock time of the newest entry, in microseconds since 1970.
    pub newest_microseconds: u64,
}

/// The header at the start of a file.
///
/// # Errors
/// Another signature, or a truncated header.
pub fn header(bytes: &[u8]) -> Result<Header, Malformed> {
    if !bytes.starts_with(b"LPKSHHRH") {
        return Err(Malformed::Whole("not a journal file"));
    }
    let number = |at: usize| {
        bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk::<8>())
            .map(|number| u64::from_le_bytes(*number))
            .ok_or(Malformed::Whole("a truncated journal header"))
    };
    Ok(Header {
        entries: number(152)?,
        oldest_microseconds: number(184)?,
        newest_microseconds: number(192)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_tells_the_span() {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(b"LPKSHHRH");
        bytes[152] = 7;
        bytes[184] = 1;
        bytes[192] = 2;
        let expected = Header { entries: 7, oldest_microseconds: 1, newest_microseconds: 2 };
        assert_eq!(header(&bytes), Ok(expected));
        assert!(header(&bytes[..190]).is_err());
        assert!(header(&[0; HEADER_BYTES]).is_err());
    }
}
