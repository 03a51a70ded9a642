//! What is known of each vehicle, message by message.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

/// Missing numbers remembered for a vehicle; beyond, only their count grows.
const REMEMBERED: usize = 100_000;

/// Where a message belongs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub vehicle: &'a str,
    /// The levels behind the vehicle.
    pub rest: Vec<&'a str>,
}

impl<'a> Place<'a> {
    /// Of a topic under `<root>/v1/`.
    pub fn of(root: &str, topic: &'a str) -> Option<Self> {
        let mut levels = topic.strip_prefix(root)?.strip_prefix("/v1/")?.split('/');
        Some(Self { vehicle: levels.next()?, rest: levels.collect() })
    }
}

/// All vehicles.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    pub vehicles: BTreeMap<String, Vehicle>,
}

/// One vehicle.
#[derive(Debug, Default)]
pub(super) struct Vehicle {
    /// `online` or `offline`, with the reason.
    pub state: String,
    pub model: String,
    pub prompts: String,
    /// Active tags, by camera.
    pub tags: BTreeMap<String, BTreeSet<String>>,
    pub last: Option<Timestamp>,
    /// Milliseconds from making to receiving of the last live message; tells nothing where clocks differ.
    pub delay_ms: Option<i64>,
    pub fps: Option<f64>,
    pub waiting: Option<u64>,
    pub messages: u64,
    pub replayed: u64,
    pub invalid: u64,
    sequence: Sequence,
}

/// Which numbers of the present boot have come.
#[derive(Debug, Default)]
struct Sequence {
    boot: String,
    first: u64,
    next: u64,
    missing: BTreeSet<u64>,
    forgotten: u64,
}

impl Fleet {
    /// Takes a message into account; how many of this vehicle are missing now.
    pub fn see(&mut self, place: &Place<'_>, payload: Option<&Value>, invalid: bool, now: Timestamp) -> u64 {
        let vehicle = self.vehicles.entry(place.vehicle.to_owned()).or_default();
        vehicle.messages += 1;
        vehicle.invalid += u64::from(invalid);
        vehicle.last = Some(now);
        if let Some(payload) = payload {
            vehicle.read(place, payload, now);
        }
        vehicle.missing()
    }

    /// Messages that broke their schema.
    pub fn invalid(&self) -> u64 {
        self.vehicles.values().map(|vehicle| vehicle.invalid).sum()
    }
}

impl Vehicle {
    fn read(&mut self, place: &Place<'_>, payload: &Value, now: Timestamp) {
        let text = |key: &str| payload[key].as_str().unwrap_or_default().to_owned();
        match place.rest.as_slice() {
            ["status"] => {
                self.state = match payload["reason"].as_str() {
                    Some(reason) => format!("{} ({reason})", text("state")),
                    None if payload["paused"] == true => "paused".to_owned(),
                    None => text("state"),
                };
                for (name, kept) in [("model", &mut self.model), ("prompts", &mut self.prompts)] {
                    if let Some(found) = payload[name]["name"].as_str() {
                        found.clone_into(kept);
                    }
                }
            }
            ["health"] => {
                self.fps = payload["fps"].as_f64();
                self.waiting = payload["events_waiting"].as_u64();
            }
            [camera, "label", _] => {
                let tags = self.tags.entry((*camera).to_owned()).or_default();
                if payload["active"] == true {
                    tags.insert(text("label"));
                } else {
                    tags.remove(&text("label"));
                }
            }
            [_, "result" | "event"] => {
                if let (Some(boot), Some(seq)) = (payload["boot_id"].as_str(), payload["seq"].as_u64()) {
                    self.sequence.came(boot, seq);
                }
                if payload["replayed"] == true {
                    self.replayed += 1;
                } else if let Ok(made) = text("published_at").parse::<Timestamp>() {
                    self.delay_ms = Some(now.as_millisecond() - made.as_millisecond());
                }
            }
            _ => {}
        }
    }

    /// Numbers of the present boot that did not come.
    pub fn missing(&self) -> u64 {
        self.sequence.missing.len() as u64 + self.sequence.forgotten
    }

    /// Share of the present boot's messages that came, since the first one seen.
    pub fn quality(&self) -> Option<f64> {
        let expected = self.sequence.next - self.sequence.first;
        (expected > 0).then(|| 1.0 - self.missing() as f64 / expected as f64)
    }
}

impl Sequence {
    fn came(&mut self, boot: &str, seq: u64) {
        if self.boot != boot {
            // What an earlier boot left in its spool says nothing about this one's gaps; the newest boot is the one that
            // speaks last.
            *self = Self { boot: boot.to_owned(), first: seq, next: seq, ..Self::default() };
        }
        if seq >= self.next {
            for missing in self.next..seq {
                if self.missing.len() < REMEMBERED {
                    self.missing.insert(missing);
                } else {
                    self.forgotten += 1;
                }
            }
            self.next = seq + 1;
        } else {
            self.missing.remove(&seq);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn see(fleet: &mut Fleet, topic: &str, payload: &Value) -> u64 {
        fleet.see(&Place::of("remoteclip", topic).unwrap(), Some(payload), false, Timestamp::UNIX_EPOCH)
    }

    fn result(seq: u64, replayed: bool) -> Value {
        json!({"boot_id": "a", "seq": seq, "replayed": replayed, "published_at": "1970-01-01T00:00:00Z"})
    }

    #[test]
    fn gaps_are_counted_by_seq_and_filled_by_what_comes_late() {
        let mut fleet = Fleet::default();
        let topic = "remoteclip/v1/uav-1/nadir/result";
        assert_eq!(see(&mut fleet, topic, &result(5, false)), 0, "what was before we came is not missing");
        assert_eq!(see(&mut fleet, topic, &result(9, false)), 3);
        assert_eq!(see(&mut fleet, "remoteclip/v1/uav-1/nadir/event", &result(7, true)), 2);
        let vehicle = &fleet.vehicles["uav-1"];
        assert_eq!((vehicle.replayed, vehicle.quality()), (1, Some(0.6)));
        let other_boot = json!({"boot_id": "b", "seq": 1, "replayed": false});
        assert_eq!(see(&mut fleet, topic, &other_boot), 0);
    }

    #[test]
    fn state_and_tags_are_the_last_ones() {
        let mut fleet = Fleet::default();
        see(&mut fleet, "remoteclip/v1/u/status", &json!({"state": "online", "model": {"name": "default"}}));
        let label = |active: bool| json!({"label": "forest", "active": active});
        see(&mut fleet, "remoteclip/v1/u/nadir/label/forest", &label(true));
        assert!(fleet.vehicles["u"].tags["nadir"].contains("forest"));
        see(&mut fleet, "remoteclip/v1/u/nadir/label/forest", &label(false));
        see(&mut fleet, "remoteclip/v1/u/status", &json!({"state": "offline", "reason": "lost"}));
        let vehicle = &fleet.vehicles["u"];
        assert!(vehicle.tags["nadir"].is_empty() && vehicle.state == "offline (lost)" && vehicle.model == "default");
    }

    #[test]
    fn other_topics_have_no_place() {
        assert_eq!(Place::of("remoteclip", "other/v1/u/status"), None);
        assert_eq!(Place::of("a/b", "a/b/v1/u/x/y").unwrap().rest, ["x", "y"]);
    }
}
