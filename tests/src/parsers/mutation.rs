//! Mutations of a seed, the same in every run: a failure is seen again by running the test again.

/// What formats treat specially: ends, quotes, separators, lengths.
const TOKENS: [&[u8]; 24] = [
    b"\0",
    b"\n",
    b"\r\n",
    b"\"",
    b"'",
    b"\\",
    b"=",
    b":",
    b";",
    b",",
    b"#",
    b"{",
    b"}",
    b"[",
    b"]",
    b"..",
    b"%00",
    b"-1",
    b"99999999999999999999",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",
    "\u{1ec7}".as_bytes(),
    b"\xc3\x28",
];
/// Bytes of a mutated input: growing must end.
const BYTES_MAX: usize = 64 << 10;

/// An endless sequence of mutations of one seed.
#[derive(Debug)]
pub struct Mutations<'a> {
    seed: &'a [u8],
    /// State of xorshift64*; never zero.
    state: u64,
}

impl<'a> Mutations<'a> {
    /// Those of a seed; `number` tells sequences of one seed apart.
    pub fn of(seed: &'a [u8], number: u64) -> Self {
        let fold = |state: u64, byte: &u8| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        Self { seed, state: seed.iter().fold(0xcbf2_9ce4_8422_2325 ^ number, fold) | 1 }
    }

    fn below(&mut self, bound: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap_or_default() % bound.max(1)
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below((bytes.len() - at).min(64) + 1);
        match self.below(7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, TOKENS[self.below(TOKENS.len())].iter().copied())),
            3 => {
                let copied = bytes[at..end].to_vec();
                let to = self.below(bytes.len() + 1);
                bytes.splice(to..to, copied);
            }
            kind => {
                let Some(byte) = bytes.get_mut(at) else { return };
                match kind {
                    4 => *byte ^= 1 << self.below(8),
                    5 => *byte = [0, 1, 0x7f, 0x80, 0xff][self.below(5)],
                    _ => *byte = byte.wrapping_add(1),
                }
            }
        }
        bytes.truncate(BYTES_MAX);
    }
}

impl Iterator for Mutations<'_> {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.seed.to_vec();
        for _ in 0..=self.below(4) {
            self.mutate(&mut bytes);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_are_many_and_the_same_every_time() {
        let seed = b"Port 22\nPermitRootLogin no\n";
        let first: Vec<_> = Mutations::of(seed, 0).take(200).collect();
        assert_eq!(first, Mutations::of(seed, 0).take(200).collect::<Vec<_>>());
        let mut distinct = first.clone();
        distinct.sort();
        distinct.dedup();
        assert!(distinct.len() > 150, "{}", distinct.len());
        assert_ne!(first, Mutations::of(seed, 1).take(200).collect::<Vec<_>>());
        assert!(Mutations::of(b"", 0).take(100).any(|bytes| !bytes.is_empty()));
    }
}
