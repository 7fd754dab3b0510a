//! GVDB, the file format of dconf databases and of compiled GSettings schemas.
//!
//! Shape (gvdb-format.h): a header with signature, version and the place of the root table; a
//! table is a Bloom filter, hash buckets and items; an item has the index of its parent, the
//! rest of its key, and a value, which is a GVariant, a list or another table. Offsets come from
//! the file and are checked against it; the hash is not used, every item is looked at.

use super::malformed::Malformed;

/// Most items of one table; Debian's full set of GNOME schemas has some 700.
const ITEMS_MAX: usize = 20_000;

/// Most parents of a key: `/org/gnome/desktop/session/idle-delay` has five.
const DEPTH_MAX: usize = 32;

const HEADER_BYTES: usize = 24;
const ITEM_BYTES: usize = 24;
const NO_PARENT: u32 = u32::MAX;

/// A hash table inside a file.
#[derive(Debug, Clone, Copy)]
pub struct Table<'a> {
    file: &'a [u8],
    items: &'a [u8],
}

/// A value of one of the types that are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// GVariant type `b`.
    Boolean(bool),
    /// GVariant type `u`.
    Unsigned(u32),
    /// Another type.
    Other,
}

impl<'a> Table<'a> {
    /// The root table of a file.
    ///
    /// # Errors
    /// Another signature, the other byte order, or offsets outside the file.
    pub fn root(file: &'a [u8]) -> Result<Self, Malformed> {
        if file.len() < HEADER_BYTES || !file.starts_with(b"GVariant") {
            return Err(Malformed::Whole("not a GVDB file of this byte order"));
        }
        if word(file, 8)? != 0 {
            return Err(Malformed::Whole("an unknown version of GVDB"));
        }
        Self::at(file, word(file, 16)?, word(file, 20)?)
    }

    /// The value of `key`; `None` when the table has none.
    ///
    /// # Errors
    /// Offsets outside the file, or parents without an end.
    pub fn value(&self, key: &str) -> Result<Option<Value>, Malformed> {
        self.bytes(key, b'v')?.map(variant).transpose()
    }

    /// The default of `key` in a schema: the first member of a tuple.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn schema_default(&self, key: &str) -> Result<Option<Value>, Malformed> {
        self.bytes(key, b'v')?.map(first_of_tuple).transpose()
    }

    /// The table stored as `key`.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn table(&self, key: &str) -> Result<Option<Self>, Malformed> {
        let Some(index) = self.find(key, b'H')? else { return Ok(None) };
        let item = self.item(index)?;
        Self::at(self.file, word(item, 16)?, word(item, 20)?).map(Some)
    }

    /// Whether `key` is there with a value.
    ///
    /// # Errors
    /// As [`Table::value`].
    pub fn contains(&self, key: &str) -> Result<bool, Malformed> {
        Ok(self.find(key, b'v')?.is_some())
    }

    fn at(file: &'a [u8], start: u32, end: u32) -> Result<Self, Malformed> {
        let table = slice(file, start, end)?;
        if table.is_empty() {
            return Ok(Self { file, items: &[] });
        }
        // The upper bits of the first word are the shift of the Bloom filter.
        let bloom_words = usize::try_from(word(table, 0)? & 0x07ff_ffff).unwrap_or(usize::MAX);
        let buckets = usize::try_from(word(table, 4)?).unwrap_or(usize::MAX);
        let skipped = bloom_words
            .checked_add(buckets)
            .and_then(|words| words.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(8))
            .ok_or(OUTSIDE)?;
        let items = table.get(skipped..).ok_or(OUTSIDE)?;
        if items.len() % ITEM_BYTES != 0 || items.len() / ITEM_BYTES > ITEMS_MAX {
            return Err(Malformed::Whole("a GVDB table of an unreasonable size"));
        }
        Ok(Self { file, items })
    }

    fn bytes(&self, key: &str, kind: u8) -> Result<Option<&'a [u8]>, Malformed> {
        let Some(index) = self.find(key, kind)? else { return Ok(None) };
        let item = self.item(index)?;
        slice(self.file, word(item, 16)?, word(item, 20)?).map(Some)
    }

    fn find(&self, key: &str, kind: u8) -> Result<Option<u32>, Malformed> {
        let count = u32::try_from(self.items.len() / ITEM_BYTES).unwrap_or(u32::MAX);
        for index in 0..count {
            if self.item(index)?[14] == kind && self.is_named(index, key.as_bytes())? {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    /// Compares from the end: each item holds the end of its key, its parent what is before.
    fn is_named(&self, index: u32, key: &[u8]) -> Result<bool, Malformed> {
        let mut rest = key;
        let mut index = index;
        for _ in 0..DEPTH_MAX {
            let item = self.item(index)?;
            let start = word(item, 8)?;
            let size = u32::from(u16::from_le_bytes([item[12], item[13]]));
            let end = start.checked_add(size).ok_or(OUTSIDE)?;
            let part = slice(self.file, start, end)?;
            let Some(before) = rest.strip_suffix(part) else { return Ok(false) };
            rest = before;
            index = word(item, 4)?;
            if index == NO_PARENT {
                return Ok(rest.is_empty());
            }
        }
        Err(Malformed::Whole("a GVDB key without an end"))
    }

    fn item(&self, index: u32) -> Result<&'a [u8], Malformed> {
        let at = usize::try_from(index).unwrap_or(usize::MAX).checked_mul(ITEM_BYTES);
        at.and_then(|at| self.items.get(at..at.checked_add(ITEM_BYTES)?)).ok_or(OUTSIDE)
    }
}

const OUTSIDE: Malformed = Malformed::Whole("an offset outside the GVDB file");

fn word(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map(|word| u32::from_le_bytes(*word))
        .ok_or(OUTSIDE)
}

fn slice(file: &[u8], start: u32, end: u32) -> Result<&[u8], Malformed> {
    let range = usize::try_from(start).unwrap_or(usize::MAX)..usize::try_from(end).unwrap_or(0);
    file.get(range).ok_or(OUTSIDE)
}

/// A GVariant of type `v`: the child, a NUL, its type.
fn variant(bytes: &[u8]) -> Result<Value, Malformed> {
    let (child, kind) = child(bytes)?;
    value(child, kind)
}

fn first_of_tuple(bytes: &[u8]) -> Result<Value, Malformed> {
    let (child, kind) = child(bytes)?;
    match kind.strip_prefix(b"(") {
        Some([b'u', ..]) => value(child.get(..4).unwrap_or_default(), b"u"),
        Some([b'b', ..]) => value(child.get(..1).unwrap_or_default(), b"b"),
        Some(_) => Ok(Value::Other),
        None => Err(Malformed::Whole("a schema whose default is not a tuple")),
    }
}

fn child(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let nul = bytes.iter().rposition(|&byte| byte == 0);
    let nul = nul.ok_or(Malformed::Whole("a GVariant without a type"))?;
    Ok((&bytes[..nul], &bytes[nul + 1..]))
}

fn value(child: &[u8], kind: &[u8]) -> Result<Value, Malformed> {
    match (kind, child) {
        (b"b", &[byte]) => Ok(Value::Boolean(byte != 0)),
        (b"u", &[a, b, c, d]) => Ok(Value::Unsigned(u32::from_le_bytes([a, b, c, d]))),
        (b"b" | b"u", _) => Err(Malformed::Whole("a GVariant of the wrong size")),
        _ => Ok(Value::Other),
    }
}

#[cfg(test)]
mod tests;
