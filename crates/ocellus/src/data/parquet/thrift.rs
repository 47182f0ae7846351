//! Thrift's compact protocol, read without a schema, within limits.
//!
//! <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

/// A value; what is of no use here is `Nothing`.
#[derive(Debug)]
pub(super) enum Thrift {
    Nothing,
    Number(i64),
    Bytes(Box<[u8]>),
    List(Vec<Thrift>),
    Struct(Vec<(i64, Thrift)>),
}

/// Structures within structures.
const MAX_DEPTH: u32 = 16;
/// Values of one document.
const MAX_VALUES: u32 = 1 << 21;

static NOTHING: Thrift = Thrift::Nothing;

impl Thrift {
    /// The field of this number.
    pub(super) fn get(&self, field: i64) -> &Thrift {
        match self {
            Self::Struct(fields) => fields.iter().find(|(id, _)| *id == field).map_or(&NOTHING, |(_, value)| value),
            _ => &NOTHING,
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn list(&self) -> &[Thrift] {
        if let Self::List(list) = self { list } else { &[] }
    }

    pub(super) fn text(&self) -> Option<&str> {
        if let Self::Bytes(bytes) = self { std::str::from_utf8(bytes).ok() } else { None }
    }
}

/// The structure that `bytes` begin with, and how long it is.
pub(super) fn parse(bytes: &[u8]) -> Option<(Thrift, usize)> {
    let mut reader = Reader { rest: bytes, values: 0 };
    let value = reader.structure(0)?;
    Some((value, bytes.len() - reader.rest.len()))
}

struct Reader<'a> {
    rest: &'a [u8],
    values: u32,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(byte)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn zigzag(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn structure(&mut self, depth: u32) -> Option<Thrift> {
        let mut fields = Vec::new();
        let mut id = 0i64;
        loop {
            let byte = self.byte()?;
            if byte == 0 {
                return Some(Thrift::Struct(fields));
            }
            id = if byte >> 4 == 0 { self.zigzag()? } else { id.checked_add(i64::from(byte >> 4))? };
            let value = match byte & 15 {
                // It stands in the kind, but is kept as others are.
                kind @ (1 | 2) => self.counted(depth + 1).map(|()| Thrift::Number(i64::from(kind == 1)))?,
                kind => self.value(kind, depth + 1)?,
            };
            fields.push((id, value));
        }
    }

    /// Counts a value, if there may be one more.
    fn counted(&mut self, depth: u32) -> Option<()> {
        self.values += 1;
        (depth <= MAX_DEPTH && self.values <= MAX_VALUES).then_some(())
    }

    fn value(&mut self, kind: u8, depth: u32) -> Option<Thrift> {
        self.counted(depth)?;
        Some(match kind {
            1 | 2 => Thrift::Number(i64::from(self.byte()? == 1)),
            3 => Thrift::Number(i64::from(self.byte()? as i8)),
            4..=6 => Thrift::Number(self.zigzag()?),
            7 => {
                self.rest = self.rest.get(8..)?;
                Thrift::Nothing
            }
            8 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let bytes = self.rest.get(..length)?;
                self.rest = &self.rest[length..];
                Thrift::Bytes(bytes.into())
            }
            9 | 10 => {
                let byte = self.byte()?;
                let count = if byte >> 4 == 15 { self.varint()? } else { u64::from(byte >> 4) };
                // Every element takes a byte or more, so what is stated must be there.
                let count = usize::try_from(count).ok().filter(|&count| count <= self.rest.len())?;
                let mut list = Vec::new();
                for _ in 0..count {
                    list.push(self.value(byte & 15, depth + 1)?);
                }
                Thrift::List(list)
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count == 0 { 0 } else { self.byte()? };
                for _ in 0..count {
                    self.value(kinds >> 4, depth + 1)?;
                    self.value(kinds & 15, depth + 1)?;
                }
                Thrift::Nothing
            }
            12 => self.structure(depth + 1)?,
            _ => return None,
        })
    }
}
