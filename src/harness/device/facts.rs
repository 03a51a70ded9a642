//! Which device answers, and whether it is the one to be judged: read from its retained `status` and `config`.

use std::collections::BTreeMap;
use std::time::Instant;

use serde_json::Value;

use super::Address;
use super::listener::Listener;

/// The device under test.
#[derive(Debug)]
pub(super) struct Device {
    /// Its status topic.
    pub status: String,
    /// Where its camera's topics begin.
    pub camera: String,
    /// The id of the bundle it runs.
    pub model: String,
    /// Kernel and version.
    pub engine: String,
}

impl Device {
    /// Finds the device and checks that it runs `model`, watches a folder and publishes embeddings.
    ///
    /// # Errors
    /// What is not so, and how to mend it.
    pub fn find(listener: &mut Listener, address: &Address, model: &str, deadline: Instant) -> Result<Self, String> {
        let vehicle = address.vehicle.as_deref().unwrap_or("+");
        let topics = ["status", "config"].map(|name| format!("{}/v1/{vehicle}/{name}", address.root));
        listener.subscribe(&topics, deadline)?;
        let mut seen = Seen::default();
        // Retained messages come at once. Where no vehicle is named, a moment shows whether there are two.
        let named = address.vehicle.is_some();
        let settled = Instant::now() + std::time::Duration::from_secs(1);
        let until = if named { deadline } else { settled.min(deadline) };
        while !(named && seen.whole()) {
            match listener.next(until)? {
                Some(message) => seen.take(&message.topic, message.payload),
                None => break,
            }
        }
        seen.device(address, model)
    }
}

/// Status and config of every vehicle that was heard of, by the beginning of its topics.
#[derive(Default)]
struct Seen {
    vehicles: BTreeMap<String, [Value; 2]>,
}

impl Seen {
    fn take(&mut self, topic: &str, payload: Value) {
        if let Some((vehicle, kind)) = topic.rsplit_once('/') {
            let place = usize::from(kind == "config");
            self.vehicles.entry(vehicle.to_owned()).or_default()[place] = payload;
        }
    }

    fn whole(&self) -> bool {
        self.vehicles.values().any(|both| both.iter().all(|message| !message.is_null()))
    }

    fn device(self, address: &Address, model: &str) -> Result<Device, String> {
        let asked = address.vehicle.as_deref().map_or("any vehicle".to_owned(), |vehicle| format!("vehicle {vehicle}"));
        let known: Vec<String> = self.vehicles.keys().cloned().collect();
        let mut online = self.vehicles.into_iter().filter(|(_, [status, _])| status["state"] == "online");
        let (prefix, [status, config]) = online.next().ok_or_else(|| {
            let others = if known.is_empty() {
                "none is known there".to_owned()
            } else {
                format!("known but offline: {}", known.join(", "))
            };
            format!("--via: {asked} below {}/v1 is not online ({others})", address.root)
        })?;
        if let Some((other, _)) = online.next() {
            return Err(format!("--via: {prefix} and {other} are both online; say which with mqtt://HOST/VEHICLE"));
        }
        let refuse = |what: String| Err(format!("--via: {prefix} {what}"));
        let runs = status["model"]["sha256"].as_str().unwrap_or("nothing");
        if runs != model {
            return refuse(format!(
                "runs model {} ({runs}), not the one to be judged ({model}); give --bundle the device's, or the device this one",
                status["model"]["name"].as_str().unwrap_or("?")
            ));
        }
        if config["camera"]["folder"]["path"].as_str().is_none() || config["camera"]["folder"]["once"] == true {
            return refuse("watches no folder; give it [camera.folder] with a path, without once".to_owned());
        }
        if config["publish"]["embedding"] != true {
            return refuse("publishes no embeddings; set publish.embedding = true in its configuration".to_owned());
        }
        let camera = config["camera"]["name"].as_str().unwrap_or("nadir");
        Ok(Device {
            status: format!("{prefix}/status"),
            camera: format!("{prefix}/{camera}"),
            model: runs.to_owned(),
            engine: format!(
                "{} on {prefix}, remoteclipd {}",
                status["model"]["kernel"].as_str().unwrap_or("?"),
                status["version"].as_str().unwrap_or("?")
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(vehicles: &[(&str, &str)], config: &Value) -> Seen {
        let mut seen = Seen::default();
        for (vehicle, state) in vehicles {
            let status =
                json!({"state": state, "version": "1", "model": {"name": "m", "sha256": "abc", "kernel": "neon"}});
            seen.take(&format!("remoteclip/v1/{vehicle}/status"), status);
            seen.take(&format!("remoteclip/v1/{vehicle}/config"), config.clone());
        }
        seen
    }

    #[test]
    fn a_device_that_is_not_the_one_to_be_judged_is_refused_with_the_cure() {
        let address = Address::parse("mqtt://x").unwrap();
        let good = json!({"camera": {"name": "nadir", "folder": {"path": "/x", "once": false}}, "publish": {"embedding": true}});
        let device = seen(&[("a", "online"), ("b", "offline")], &good).device(&address, "abc").unwrap();
        assert_eq!(
            (device.camera.as_str(), device.status.as_str()),
            ("remoteclip/v1/a/nadir", "remoteclip/v1/a/status")
        );
        let silent = json!({"camera": good["camera"], "publish": {"embedding": false}});
        let once = json!({"camera": {"folder": {"path": "/x", "once": true}}, "publish": {"embedding": true}});
        for (vehicles, config, model, named) in [
            (&[][..], &good, "abc", "none is known"),
            (&[("a", "offline")], &good, "abc", "known but offline: remoteclip/v1/a"),
            (&[("a", "online"), ("b", "online")], &good, "abc", "both online"),
            (&[("a", "online")], &good, "other", "not the one to be judged"),
            (&[("a", "online")], &silent, "abc", "publish.embedding = true"),
            (&[("a", "online")], &once, "abc", "watches no folder"),
        ] {
            let error = seen(vehicles, config).device(&address, model).unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }
}
