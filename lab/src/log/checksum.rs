//! Checksums of frames: CRC-32C, which TensorBoard's records carry, and CRC-32 as zlib has it, which those of Weights &
//! Biases carry.

/// Castagnoli's polynomial, bits reversed.
const CASTAGNOLI: [u32; 256] = table(0x82f6_3b78);
/// That of IEEE 802.3, bits reversed.
const IEEE: [u32; 256] = table(0xedb8_8320);

const fn table(polynomial: u32) -> [u32; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let (mut value, mut bit) = (byte as u32, 0);
        while bit < 8 {
            value = if value & 1 == 1 { (value >> 1) ^ polynomial } else { value >> 1 };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
}

fn crc(table: &[u32; 256], bytes: impl Iterator<Item = u8>) -> u32 {
    !bytes.fold(!0, |crc: u32, byte| table[((crc ^ u32::from(byte)) & 0xff) as usize] ^ (crc >> 8))
}

/// CRC-32C, turned by 15 bits and shifted, so that a checksum of data that holds checksums is not one of them.
pub(super) fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc(&CASTAGNOLI, bytes.iter().copied()).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32 of a byte and what follows it.
pub(super) fn crc32(first: u8, bytes: &[u8]) -> u32 {
    crc(&IEEE, std::iter::once(first).chain(bytes.iter().copied()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_published_check_values() {
        // "123456789", the check value of the catalogue of CRC algorithms for each.
        assert_eq!(crc(&CASTAGNOLI, b"123456789".iter().copied()), 0xe306_9283);
        assert_eq!(crc32(b'1', b"23456789"), 0xcbf4_3926);
        // RFC 3720, B.4: 32 bytes of zeros.
        assert_eq!(crc(&CASTAGNOLI, std::iter::repeat_n(0, 32)), 0x8a91_36aa);
    }
}
