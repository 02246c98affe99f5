//! The hash slot of a key in a cluster.
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>

/// The number of slots of a cluster.
pub(super) const SLOTS: u16 = 1 << 14;

/// The slot of `key`. A hash tag, which is a text between the first braces, decides instead of the whole key.
pub(crate) fn slot(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
    let hashed = tag.map(|(tag, _)| tag).filter(|tag| !tag.is_empty()).unwrap_or(key);
    crc16(hashed.as_bytes()) % SLOTS
}

/// CRC16, the XMODEM variant.
fn crc16(bytes: &[u8]) -> u16 {
    const POLYNOMIAL: u16 = 0x1021;
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc & 0x8000 == 0 { 0 } else { POLYNOMIAL }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_that_redis_computes() {
        assert_eq!(crc16(b"123456789"), 0x31C3, "the specification's example");
        // As `CLUSTER KEYSLOT` answers.
        for (key, expected) in [("", 0), ("foo", 12182), ("bar", 5061), ("hello", 866)] {
            assert_eq!(slot(key), expected, "{key}");
        }
    }

    #[test]
    fn only_a_hash_tag_counts() {
        assert_eq!(slot("{foo}:a"), slot("foo"));
        assert_eq!(slot("a{foo}{bar}"), slot("foo"));
        assert_eq!(slot("a{foo"), crc16(b"a{foo") % SLOTS);
        assert_eq!(slot("a{}{foo}"), crc16(b"a{}{foo}") % SLOTS);
        assert_eq!(slot("a{{foo}}"), slot("{foo"));
    }
}
