//! The JSON Schemas of `docs/reference/schema`, built in.

use std::collections::BTreeMap;

use anyhow::Context;
use jsonschema::Validator;
use serde_json::Value;

const SCHEMAS: [(&str, &str); 6] = [
    ("remoteclip.event/1", include_str!("../../../docs/reference/schema/event.json")),
    ("remoteclip.health/1", include_str!("../../../docs/reference/schema/health.json")),
    ("remoteclip.label/1", include_str!("../../../docs/reference/schema/label.json")),
    ("remoteclip.reply/1", include_str!("../../../docs/reference/schema/reply.json")),
    ("remoteclip.result/1", include_str!("../../../docs/reference/schema/result.json")),
    ("remoteclip.status/1", include_str!("../../../docs/reference/schema/status.json")),
];

/// Knows every payload by its `schema` field.
pub(super) struct Schemas(BTreeMap<&'static str, Validator>);

impl Schemas {
    pub fn new() -> anyhow::Result<Self> {
        let compile = |(name, text): (&'static str, &str)| {
            let schema: Value = serde_json::from_str(text)?;
            let validator = jsonschema::validator_for(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
            anyhow::Ok((name, validator))
        };
        let all = SCHEMAS.into_iter().map(compile).collect::<anyhow::Result<_>>();
        Ok(Self(all.context("a built-in schema is broken")?))
    }

    /// Payloads without a `schema` (the published configuration) and of kinds we do not know pass.
    pub fn check(&self, payload: &Value) -> Result<(), String> {
        match payload["schema"].as_str().and_then(|name| self.0.get(name)) {
            Some(validator) => validator.validate(payload).map_err(|error| format!("{}: {error}", error.instance_path)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_broken_payload_is_told_by_its_field() {
        let schemas = Schemas::new().unwrap();
        let error = schemas.check(&json!({"schema": "remoteclip.label/1", "label": 7})).unwrap_err();
        assert!(!error.is_empty());
        assert!(schemas.check(&json!({"vehicle": {"id": "u"}})).is_ok());
    }
}
