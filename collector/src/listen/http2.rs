//! What a connection watches of HTTP/2 (RFC 9113): that the client begins with its preface, and
//! whether the server took leave of it because it broke the rules or flooded. The frames
//! themselves are hyper's; their end is told in no other way.

/// What a client begins with (section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Length (3), type, flags, stream (4).
const HEADER_BYTES: usize = 9;
/// GOAWAY (section 6.8): last stream (4), then the error code.
const GOAWAY: u8 = 7;
const CODE_AT: usize = 4;
const CODE_END: usize = 8;

/// Follows the frames that are sent.
#[derive(Debug, Default)]
pub(super) struct Sent {
    header: [u8; HEADER_BYTES],
    /// Bytes of the header that are known.
    known: usize,
    /// Bytes of the payload that went by.
    passed: usize,
    /// Whether the code of a GOAWAY has a byte that is not zero.
    has_code: bool,
    has_left: bool,
}

impl Sent {
    /// Whether a GOAWAY with an error is complete with these bytes; at most once.
    pub(super) fn takes_leave(&mut self, mut bytes: &[u8]) -> bool {
        let had_left = self.has_left;
        while !bytes.is_empty() {
            bytes = if self.known < HEADER_BYTES { self.head(bytes) } else { self.payload(bytes) };
        }
        self.has_left && !had_left
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.known));
        self.header[self.known..self.known + taken.len()].copy_from_slice(taken);
        self.known += taken.len();
        self.end_frame();
        rest
    }

    fn payload<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(self.length() - self.passed));
        if self.header[3] == GOAWAY {
            let code = (self.passed..).zip(taken);
            let mut code = code.filter(|(at, _)| (CODE_AT..CODE_END).contains(at));
            self.has_code |= code.any(|(_, byte)| *byte != 0);
        }
        self.passed += taken.len();
        self.end_frame();
        rest
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.header;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn end_frame(&mut self) {
        if self.known == HEADER_BYTES && self.passed == self.length() {
            self.has_left |= self.has_code;
            (self.known, self.passed, self.has_code) = (0, 0, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
    }

    #[track_caller]
    fn leaves(frames: &[Vec<u8>], expected: bool) {
        let bytes = frames.concat();
        for step in 1..=bytes.len() {
            let mut sent = Sent::default();
            let left = bytes.chunks(step).filter(|chunk| sent.takes_leave(chunk)).count();
            assert_eq!(left, usize::from(expected), "in pieces of {step}");
        }
    }

    #[test]
    fn only_a_goaway_with_an_error_is_a_leave_however_it_is_cut() {
        let settings = frame(4, &[0, 3, 0, 0, 0, 8]);
        let flooded = frame(GOAWAY, &[0, 0, 0, 5, 0, 0, 0, 11, b'x']);
        let graceful = frame(GOAWAY, &[0, 0, 0, 5, 0, 0, 0, 0]);
        let data = frame(0, &[7; 40]);
        leaves(&[settings.clone(), frame(4, &[]), data.clone()], false);
        leaves(&[settings.clone(), graceful.clone(), data.clone()], false);
        leaves(&[settings, data, graceful, flooded.clone(), flooded], true);
    }
}
