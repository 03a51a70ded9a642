//! What is handed to the link, and its form on the wire.

use serde_json::Value;

use crate::config::Encoding;

/// Something to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// JSON.
    pub payload: Vec<u8>,
    /// What happens to it without a link.
    pub urgency: Urgency,
}

/// What a message means to those who miss it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Worth something now or never: QoS 0.
    Now,
    /// A classified frame: as `Now`, and thinned first on a thin link; or spooled, if the configuration wants it.
    Result,
    /// Must arrive: through the spool, QoS 1.
    Event,
    /// The newest of its topic counts: QoS 1, retained.
    State,
}

impl Encoding {
    /// MQTT 5 content type. JSON is what everybody expects, and a thin link need not be told.
    pub(super) fn content_type(self) -> Option<String> {
        (self == Self::Cbor).then(|| "application/cbor".to_owned())
    }

    /// A JSON payload as it goes on the wire.
    pub(super) fn encode(self, json: Vec<u8>) -> Vec<u8> {
        if self == Self::Json {
            return json;
        }
        let mut cbor = Vec::with_capacity(json.len());
        match serde_json::from_slice::<Value>(&json) {
            // Writing to memory cannot fail.
            Ok(value) if ciborium::into_writer(&value, &mut cbor).is_ok() => cbor,
            // Not JSON (a picture): as it is.
            _ => json,
        }
    }
}

/// A payload from the wire as JSON values, whichever of the two it is; `None` for a picture.
pub fn decode_payload(payload: &[u8]) -> Option<Value> {
    serde_json::from_slice(payload).ok().or_else(|| ciborium::from_reader(payload).ok())
}

const PROMPT: &[u8] = br#""replayed":false"#;
const DELAYED: &[u8] = br#""replayed":true"#;

/// Says in the payload that delivery was delayed. A quote inside a JSON string is escaped, so these bytes can only be
/// the field itself; a payload without it stays as it is.
pub(super) fn mark_replayed(payload: &mut Vec<u8>) {
    if let Some(at) = payload.windows(PROMPT.len()).position(|window| window == PROMPT) {
        payload.splice(at..at + PROMPT.len(), DELAYED.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_field_is_marked() {
        let text = serde_json::json!({"frame": "\"replayed\":false", "replayed": false, "z": 1});
        let mut payload = serde_json::to_vec(&text).unwrap();
        mark_replayed(&mut payload);
        let marked: Value = serde_json::from_slice(&payload).unwrap();
        assert_eq!(marked, serde_json::json!({"frame": "\"replayed\":false", "replayed": true, "z": 1}));
        let before = payload.clone();
        mark_replayed(&mut payload);
        assert_eq!(payload, before);
    }

    #[test]
    fn cbor_says_the_same_in_fewer_bytes() {
        let json =
            br#"{"schema":"remoteclip.result/1","seq":70000,"replayed":false,"margin":0.5,"position":null}"#.to_vec();
        let cbor = Encoding::Cbor.encode(json.clone());
        assert!(cbor.len() < json.len());
        assert_eq!(decode_payload(&cbor), decode_payload(&json));
        assert_eq!(Encoding::Cbor.encode(vec![0xFF, 0xD8]), [0xFF, 0xD8]);
    }
}
