//! One message as it lies in a spool file, and the header of such a file.
//!
//! Promise: what decodes is what was encoded, bit for bit (CRC-32 over all of it); after damage the next whole record is
//! found again by its mark.
//!
//! Layout, little-endian: mark (4 bytes), body length u32, CRC-32 of length and body u32, body: sequence number u64,
//! spool clock in milliseconds u64, topic length u16, topic, payload.

/// First bytes of a spool file; the last one is the format's version.
pub(super) const HEADER: [u8; 8] = *b"RCSPOOL\x01";
/// What any version of the header begins with.
const HEADER_NAME: &[u8] = b"RCSPOOL";
/// Begins every record. Not UTF-8, so it does not occur in topics or JSON.
const MARK: [u8; 4] = [0xA7, 0xFE, b'r', b'c'];
const PREFIX: usize = MARK.len() + 4 + 4;
const FIXED_BODY: usize = 8 + 8 + 2;
/// More than any message; keeps a damaged length from reserving memory.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A spooled message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    /// Counts the records of its queue.
    pub seq: u64,
    /// Spool clock when it was put in, milliseconds.
    pub at: u64,
    /// Where to.
    pub topic: String,
    /// As it was put in.
    pub payload: Vec<u8>,
}

/// What stands at a place in a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// A record, and the bytes it takes.
    Whole(Record, usize),
    /// The beginning of one; it needs so many bytes.
    Short(usize),
    /// No record.
    Bad,
}

/// What a file's first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A spool file of this version.
    Ours,
    /// A spool file of a version this daemon does not know.
    Newer(u8),
    /// Cut short before the header was whole: nothing can be in it.
    Empty,
    /// Something else.
    Foreign,
}

pub(super) fn kind(header: &[u8]) -> Kind {
    match header {
        [name @ .., version] if name == HEADER_NAME && *version == HEADER[7] => Kind::Ours,
        [name @ .., version] if name == HEADER_NAME => Kind::Newer(*version),
        short if short.len() < HEADER.len() && HEADER.starts_with(short) => Kind::Empty,
        _ => Kind::Foreign,
    }
}

impl Record {
    /// Bytes it takes in a file.
    pub fn encoded_len(&self) -> usize {
        PREFIX + FIXED_BODY + self.topic.len() + self.payload.len()
    }

    pub fn encode(&self) -> Vec<u8> {
        let body = FIXED_BODY + self.topic.len() + self.payload.len();
        let mut bytes = Vec::with_capacity(PREFIX + body);
        bytes.extend_from_slice(&MARK);
        // A message is bounded far below 4 GiB, a topic below 64 KiB, before it comes here.
        bytes.extend_from_slice(&(body as u32).to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&self.at.to_le_bytes());
        bytes.extend_from_slice(&(self.topic.len() as u16).to_le_bytes());
        bytes.extend_from_slice(self.topic.as_bytes());
        bytes.extend_from_slice(&self.payload);
        let sum = checksum(&bytes[4..8], &bytes[PREFIX..]);
        bytes[8..PREFIX].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Parsed {
        let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX>() else {
            let seen = bytes.len().min(MARK.len());
            return if bytes[..seen] == MARK[..seen] { Parsed::Short(PREFIX) } else { Parsed::Bad };
        };
        let [m0, m1, m2, m3, l0, l1, l2, l3, s0, s1, s2, s3] = *prefix;
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if [m0, m1, m2, m3] != MARK || !(FIXED_BODY..=MAX_BODY).contains(&length) {
            return Parsed::Bad;
        }
        let Some(body) = rest.get(..length) else { return Parsed::Short(PREFIX + length) };
        if checksum(&prefix[4..8], body) != u32::from_le_bytes([s0, s1, s2, s3]) {
            return Parsed::Bad;
        }
        parse_body(body).map_or(Parsed::Bad, |record| Parsed::Whole(record, PREFIX + length))
    }

    /// Where the next mark stands, at or behind `from`; the end when there is none.
    pub fn find(bytes: &[u8], from: usize) -> usize {
        let from = from.min(bytes.len());
        let found = bytes[from..].windows(MARK.len()).position(|window| window == MARK);
        // A mark cut in two by the end must not be skipped.
        found.map_or(bytes.len().saturating_sub(MARK.len() - 1).max(from), |at| from + at)
    }
}

fn parse_body(body: &[u8]) -> Option<Record> {
    let (seq, rest) = body.split_first_chunk::<8>()?;
    let (at, rest) = rest.split_first_chunk::<8>()?;
    let (topic_len, rest) = rest.split_first_chunk::<2>()?;
    let (topic, payload) = rest.split_at_checked(usize::from(u16::from_le_bytes(*topic_len)))?;
    Some(Record {
        seq: u64::from_le_bytes(*seq),
        at: u64::from_le_bytes(*at),
        topic: String::from_utf8(topic.to_vec()).ok()?,
        payload: payload.to_vec(),
    })
}

fn checksum(length: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(length);
    hasher.update(body);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(seq: u64, topic: &str, payload: &[u8]) -> Record {
        Record { seq, at: 7, topic: topic.to_owned(), payload: payload.to_vec() }
    }

    #[test]
    fn headers_are_told_apart() {
        assert_eq!(kind(&HEADER), Kind::Ours);
        assert_eq!(kind(b"RCSPOOL\x02"), Kind::Newer(2));
        assert_eq!(kind(b"RCSP"), Kind::Empty);
        assert_eq!(kind(b"{\"a\": 1}"), Kind::Foreign);
    }

    proptest! {
        #[test]
        fn a_record_survives_the_round_trip(seq: u64, topic in ".{0,80}", payload in prop::collection::vec(any::<u8>(), 0..300)) {
            let record = record(seq, &topic, &payload);
            let bytes = record.encode();
            prop_assert_eq!(bytes.len(), record.encoded_len());
            prop_assert_eq!(Record::decode(&bytes), Parsed::Whole(record, bytes.len()));
        }

        #[test]
        fn a_cut_or_altered_record_is_never_taken_for_whole(payload in prop::collection::vec(any::<u8>(), 0..80), at in 0usize..200, flip in 1u8..) {
            let bytes = record(1, "a/b", &payload).encode();
            let cut = at % bytes.len();
            prop_assert!(!matches!(Record::decode(&bytes[..cut]), Parsed::Whole(..)));
            let mut altered = bytes.clone();
            altered[cut] ^= flip;
            prop_assert!(!matches!(Record::decode(&altered), Parsed::Whole(..)));
        }

        #[test]
        fn the_next_record_is_found_behind_garbage(garbage in prop::collection::vec(any::<u8>(), 0..80)) {
            let whole = record(2, "a", b"x").encode();
            let bytes = [garbage, whole.clone()].concat();
            let mut at = 0;
            loop {
                at = Record::find(&bytes, at);
                prop_assert!(at < bytes.len());
                if let Parsed::Whole(found, _) = Record::decode(&bytes[at..]) {
                    prop_assert_eq!(found.seq, 2);
                    break;
                }
                at += 1;
            }
        }

        #[test]
        fn any_bytes_decode_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
            let _ = kind(&bytes);
        }
    }
}
