//! The fleet as a table.

use std::fmt::Write;

use jiff::Timestamp;

use super::fleet::{Fleet, Vehicle};

/// A line a vehicle, and one a camera with its tags.
pub(super) fn render(fleet: &Fleet, now: Timestamp) -> String {
    let mut table = format!(
        "{:<16} {:<18} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}\n",
        "vehicle", "state", "seen s", "fps", "delay ms", "link %", "missing", "replayed", "waiting", "invalid"
    );
    for (name, vehicle) in &fleet.vehicles {
        // Writing to a string cannot fail.
        let _ = writeln!(table, "{}", line(name, vehicle, now));
        for (camera, tags) in &vehicle.tags {
            let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
            let _ =
                writeln!(table, "  {camera:<14} {}", if tags.is_empty() { "-".to_owned() } else { tags.join(", ") });
        }
    }
    table
}

fn line(name: &str, vehicle: &Vehicle, now: Timestamp) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    format!(
        "{name:<16} {:<18} {:>6} {:>6} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
        if vehicle.state.is_empty() { "?" } else { &vehicle.state },
        or_dash(vehicle.last.map(|last| (now.as_second() - last.as_second()).to_string())),
        or_dash(vehicle.fps.map(|fps| format!("{fps:.1}"))),
        or_dash(vehicle.delay_ms.map(|delay| delay.to_string())),
        or_dash(vehicle.quality().map(|quality| format!("{:.1}", quality * 100.0))),
        vehicle.missing(),
        vehicle.replayed,
        or_dash(vehicle.waiting.map(|waiting| waiting.to_string())),
        vehicle.invalid,
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fleet::Place;
    use super::*;

    #[test]
    fn a_fleet_looks_like_this() {
        let mut fleet = Fleet::default();
        let mut see = |topic: &str, payload: serde_json::Value| {
            fleet.see(&Place::of("remoteclip", topic).unwrap(), Some(&payload), false, Timestamp::UNIX_EPOCH);
        };
        see("remoteclip/v1/uav-1/status", json!({"state": "online"}));
        see("remoteclip/v1/uav-1/health", json!({"fps": 4.25, "events_waiting": 2}));
        see("remoteclip/v1/uav-1/nadir/label/parking-lot", json!({"label": "parking lot", "active": true}));
        for seq in [1, 2, 4] {
            let payload =
                json!({"boot_id": "a", "seq": seq, "replayed": false, "published_at": "1970-01-01T00:00:00Z"});
            see("remoteclip/v1/uav-1/nadir/result", payload);
        }
        see("remoteclip/v1/uav-2/status", json!({"state": "offline", "reason": "lost"}));
        insta::assert_snapshot!(render(&fleet, Timestamp::from_second(3).unwrap()));
    }
}
