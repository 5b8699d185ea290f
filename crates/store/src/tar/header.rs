//! Fields of a header block.

use super::{BLOCK_BYTES, TarError};

/// The text before the first zero byte.
pub(super) fn until_nul(field: &[u8]) -> Vec<u8> {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    field.iter().take(end).copied().collect()
}

/// True when the block's checksum is right. Some old writers summed signed characters.
pub(super) fn is_sealed(block: &[u8; BLOCK_BYTES]) -> bool {
    let Some(stated) = signed_number(&block[148..156]) else {
        return false;
    };
    let field = &block[148..156];
    let spaces = 8 * i64::from(b' ');
    // Narrow numbers are added several at a time.
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
    if stated == i64::from(sum(block) - sum(field)) + spaces {
        return true;
    }
    let signed = |bytes: &[u8]| bytes.iter().map(|&b| i64::from(b as i8)).sum::<i64>();
    stated == signed(block) - signed(field) + spaces
}

/// `prefix` and `name` of a ustar header; GNU headers use the prefix for something else, and star's have a
/// shorter one.
pub(super) fn path(block: &[u8; BLOCK_BYTES]) -> Vec<u8> {
    let name = until_nul(&block[..100]);
    let end = if &block[508..512] == b"tar\0" {
        476
    } else {
        500
    };
    let prefix = until_nul(&block[345..end]);
    if prefix.is_empty() || &block[257..263] != b"ustar\0" {
        return name;
    }
    [prefix.as_slice(), b"/", name.as_slice()].concat()
}

/// Octal text, or base 256 when the first bit is set.
pub(super) fn number(field: &[u8], name: &'static str, at: u64) -> Result<u64, TarError> {
    signed_number(field)
        .and_then(|n| u64::try_from(n).ok())
        .ok_or(TarError::Number { field: name, at })
}

pub(super) fn signed_number(field: &[u8]) -> Option<i64> {
    let (&first, rest) = field.split_first()?;
    if first & 0x80 != 0 {
        // Two's complement, big-endian; bit 6 of the first byte is the sign.
        let start = if first & 0x40 != 0 { -1_i64 } else { 0 };
        let start = (start << 6) | i64::from(first & 0x3f);
        return rest
            .iter()
            .try_fold(start, |n, &b| n.checked_mul(256).map(|n| n | i64::from(b)));
    }
    let text = field.split(|&b| b == 0).next().unwrap_or_default();
    let text = text.trim_ascii();
    text.iter().try_fold(0_i64, |n, &b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_octal_and_base_256() {
        assert_eq!(signed_number(b"0000644\0"), Some(0o644));
        assert_eq!(signed_number(b"   17 \0 "), Some(0o17));
        assert_eq!(signed_number(b"\0\0\0\0"), Some(0));
        assert_eq!(
            signed_number(b"\x80\0\0\0\0\0\0\x01\0\0\0\0"),
            Some(1 << 32)
        );
        assert_eq!(signed_number(&[0xff; 12]), Some(-1));
        assert_eq!(signed_number(b"12x"), None);
        assert_eq!(signed_number(&[0xbf; 12]), None);
    }
}
