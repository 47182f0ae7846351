//! Snappy's raw format: <https://github.com/google/snappy/blob/main/format_description.txt>.

/// Unpack `bytes`, which must give `length` bytes; `None` where they do not.
pub(super) fn unpack(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut rest = bytes;
    let mut next = |count: usize| {
        let (taken, after) = rest.split_at_checked(count)?;
        rest = after;
        Some(taken)
    };
    let mut stated = 0u64;
    for shift in (0..35).step_by(7) {
        let byte = next(1)?[0];
        stated |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if stated != length as u64 {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0usize, |value, &byte| value << 8 | usize::from(byte));
    let mut out = Vec::new();
    out.try_reserve_exact(length).ok()?;
    while let Some(&[tag]) = next(1) {
        let upper = usize::from(tag >> 2);
        if tag & 3 == 0 {
            let count = if upper < 60 { upper + 1 } else { number(next(upper - 59)?) + 1 };
            let literal = next(count)?;
            if literal.len() > length - out.len() {
                return None;
            }
            out.extend_from_slice(literal);
            continue;
        }
        let (count, back) = match tag & 3 {
            1 => ((upper & 7) + 4, (upper >> 3) << 8 | number(next(1)?)),
            2 => (upper + 1, number(next(2)?)),
            _ => (upper + 1, number(next(4)?)),
        };
        let start = out.len().checked_sub(back).filter(|_| back > 0)?;
        if count > length - out.len() {
            return None;
        }
        // What is copied may include what this very copy has written.
        for at in start..start + count {
            out.push(out[at]);
        }
    }
    (out.len() == length).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::unpack;

    #[test]
    fn literals_and_copies() {
        // "Wikipedia is a free, web-based, collaborative, multilingual encyclopedia project." begins with a literal.
        let mut packed = vec![12, 3 << 2];
        packed.extend(b"abcd");
        // Four bytes from four back, then four from eight back, overlapping nothing.
        packed.extend([0b0000_0001, 4, 3 << 2 | 2, 8, 0]);
        assert_eq!(unpack(&packed, 12).unwrap(), b"abcdabcdabcd");
        // One byte, repeated.
        assert_eq!(unpack(&[6, 0, b'x', 4 << 2 | 2, 1, 0], 6).unwrap(), b"xxxxxx");
        for (wrong, length) in [
            (&[][..], 0),
            (&[5, 0, b'x'], 5),
            (&[2, 0, b'x'], 1),
            (&[2, 3 << 2, b'x'], 2),
            (&[5, 0, b'x', 1, 2], 5),
            (&[5, 0, b'x', 1, 0], 5),
            (&[3, 0, b'x', 1, 1], 3),
        ] {
            assert!(unpack(wrong, length).is_none(), "{wrong:?}");
        }
    }
}
