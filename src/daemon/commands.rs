//! Commands from the ground: `<root>/v1/<vehicle>/cmd/<name>` → `…/cmd/<name>/reply`. Off unless configured.
//!
//! Promise: every request with an id gets one reply with a result or a reason; one that is refused changes nothing; a
//! request that comes twice is carried out once.

use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign_verify::PublicKey;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pipeline::Order;
use super::retask::Retask;
use crate::config::Config;
use crate::decide::{Decider, Thresholds};
use crate::prompts;
use crate::prompts::pack::Pack;
use crate::prompts::signed::SignedPack;

/// Request ids remembered, so that a message delivered twice is not carried out twice.
const REMEMBERED: usize = 64;
const LONGEST_ID: usize = 128;

/// What a command needs to know about the session, and can do to it.
pub(super) trait Vehicle {
    /// Hands an order to the classifying thread.
    fn order(&self, order: Order);
    /// Stops or resumes classifying.
    fn set_paused(&self, paused: bool);
    /// Whether it is stopped.
    fn paused(&self) -> bool;
    /// Status and health as they would be published now.
    fn report(&self) -> Value;
}

/// Carries out commands and keeps what they have changed.
pub(super) struct Commands {
    config: Config,
    bundle: String,
    text_id: String,
    logit_scale: f32,
    key: Option<PublicKey>,
    pack: Pack,
    retask: Retask,
    seen: VecDeque<String>,
}

/// What to answer.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Now.
    Reply { id: Option<String>, outcome: Result<Value, String> },
    /// Somebody else answers, once it is done.
    Later,
    /// Not at all: it was answered before.
    Nothing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plain {
    #[serde(rename = "id")]
    _id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Threshold {
    #[serde(rename = "id")]
    _id: String,
    label: String,
    threshold: Option<f32>,
    hysteresis: Option<f32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompts {
    #[serde(rename = "id")]
    _id: String,
    pack: Option<String>,
    signature: Option<String>,
    #[serde(default)]
    rollback: bool,
}

impl Commands {
    /// `pack` is the one in use, `retask` what was saved.
    pub fn new(config: &Config, bundle: &crate::bundle::Bundle, pack: Pack, retask: Retask) -> Self {
        Self {
            config: config.clone(),
            bundle: bundle.manifest().name.clone(),
            text_id: bundle.text_id(),
            logit_scale: bundle.manifest().model.logit_scale,
            key: config.commands.as_ref().and_then(|commands| commands.public_key.clone()),
            pack,
            retask,
            seen: VecDeque::new(),
        }
    }

    /// Carries out one command.
    pub fn carry_out(&mut self, name: &str, payload: &[u8], vehicle: &dyn Vehicle) -> Answer {
        let Ok(request) = serde_json::from_slice::<Value>(payload) else {
            return Answer::Reply { id: None, outcome: Err("the request is not JSON".to_owned()) };
        };
        let id = match request["id"].as_str() {
            Some(id) if (1..=LONGEST_ID).contains(&id.len()) => id.to_owned(),
            _ => {
                let reason =
                    format!("\"id\" is missing; it is a string of 1 to {LONGEST_ID} bytes, new for each request");
                return Answer::Reply { id: None, outcome: Err(reason) };
            }
        };
        if self.seen.contains(&id) {
            return Answer::Nothing;
        }
        self.seen.push_back(id.clone());
        if self.seen.len() > REMEMBERED {
            self.seen.pop_front();
        }
        let outcome = match name {
            "pause" => read::<Plain>(request).map(|_| vehicle.set_paused(true)).map(|()| Value::Null),
            "resume" => read::<Plain>(request).map(|_| vehicle.set_paused(false)).map(|()| Value::Null),
            "status" => read::<Plain>(request).map(|_| vehicle.report()),
            "snapshot" if vehicle.paused() => Err("classifying is paused; resume first".to_owned()),
            "snapshot" => match read::<Plain>(request) {
                Ok(_) => {
                    vehicle.order(Order::Snapshot(id));
                    return Answer::Later;
                }
                Err(reason) => Err(reason),
            },
            "threshold" => read(request).and_then(|request| self.threshold(&request, vehicle)),
            "prompts" => read(request).and_then(|request| self.prompts(&request, vehicle)),
            _ => Err("no such command; there are pause, resume, snapshot, threshold, prompts, status".to_owned()),
        };
        Answer::Reply { id: Some(id), outcome }
    }

    fn threshold(&mut self, request: &Threshold, vehicle: &dyn Vehicle) -> Result<Value, String> {
        let Some(label) = self.pack.header().labels.iter().find(|label| label.name == request.label) else {
            return Err(format!("prompt set \"{}\" has no label \"{}\"", self.pack.header().set, request.label));
        };
        let enter = request.threshold.unwrap_or(label.enter);
        if !(enter > 0.0 && enter <= 1.0) {
            return Err(format!("threshold {enter} must be above 0 and at most 1"));
        }
        if request.hysteresis.is_some_and(|hysteresis| !(0.0..enter).contains(&hysteresis)) {
            return Err(format!("hysteresis must be at least 0 and below the threshold {enter}"));
        }
        let own = Thresholds { enter: request.threshold, hysteresis: request.hysteresis };
        let own = (own != Thresholds::default()).then_some(own);
        self.retask.set_thresholds(&request.label, own).map_err(|error| error.to_string())?;
        vehicle.order(Order::Rules(self.retask.rules(&self.config.rules)));
        Ok(json!({"label": request.label, "threshold": enter}))
    }

    fn prompts(&mut self, request: &Prompts, vehicle: &dyn Vehicle) -> Result<Value, String> {
        let key = self.key.clone().ok_or("prompts are refused: the configuration has no commands.public_key")?;
        let pack = match (&request.pack, &request.signature, request.rollback) {
            (Some(pack), Some(signature), false) => self.accept(pack, signature, &key)?,
            (None, None, true) => self.roll_back(&key)?,
            _ => return Err("give either \"pack\" and \"signature\", or \"rollback\": true".to_owned()),
        };
        let answer = json!({"set": pack.header().set, "sha256": pack.id()});
        self.pack = pack.clone();
        let decider = Decider::new(pack, self.logit_scale);
        vehicle.order(Order::Prompts(Box::new((decider, self.retask.rules(&self.config.rules)))));
        Ok(answer)
    }

    fn accept(&mut self, pack: &str, signature: &str, key: &PublicKey) -> Result<Pack, String> {
        let bytes = STANDARD.decode(pack).map_err(|_| "\"pack\" is not base64".to_owned())?;
        let signed = SignedPack::verify(&bytes, signature, key).map_err(|error| error.to_string())?;
        signed.pack.fits(&self.bundle, &self.text_id).map_err(|error| error.to_string())?;
        self.retask.accept(&bytes, signature, &signed).map_err(|error| error.to_string())?;
        Ok(signed.pack)
    }

    fn roll_back(&mut self, key: &PublicKey) -> Result<Pack, String> {
        match self.retask.roll_back(key).map_err(|error| error.to_string())? {
            Some(pack) => Ok(pack),
            None => configured_pack(&self.config).map_err(|error| error.to_string()),
        }
    }
}

/// The pack that the configuration names, or the built-in one.
pub(super) fn configured_pack(config: &Config) -> Result<Pack, prompts::pack::PackError> {
    match &config.pack {
        Some(path) => Pack::read(path),
        None => prompts::built_in(),
    }
}

fn read<T: DeserializeOwned>(request: Value) -> Result<T, String> {
    serde_json::from_value(request).map_err(|error| error.to_string())
}
