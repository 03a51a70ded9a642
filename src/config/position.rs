//! `[position]`: where frames are said to be taken.

use super::raw::RawPosition;
use super::seconds;
use crate::position::{MavlinkOptions, PositionOptions};

pub(super) fn position(raw: RawPosition) -> Result<PositionOptions, String> {
    let endpoint = raw.mavlink.as_deref().map(str::parse).transpose();
    let endpoint = endpoint.map_err(|reason: String| format!("position.mavlink = {reason}"))?;
    for (field, set) in [
        ("only_while_armed", raw.only_while_armed),
        ("report", raw.report),
        ("mount_pitch_deg", raw.mount_pitch_deg.is_some()),
    ] {
        if set && endpoint.is_none() {
            return Err(format!("position.{field} needs position.mavlink beside it"));
        }
    }
    if raw.system_id == 0 {
        return Err("position.system_id = 0 is MAVLink's \"everybody\"; name the vehicle's, 1 to 255".to_owned());
    }
    if raw.mount_pitch_deg.is_some_and(|pitch| !(-180.0..=180.0).contains(&pitch)) {
        return Err("position.mount_pitch_deg must be between -180 and 180 degrees".to_owned());
    }
    Ok(PositionOptions {
        mavlink: endpoint.map(|endpoint| MavlinkOptions {
            endpoint,
            system_id: raw.system_id,
            mount_pitch: raw.mount_pitch_deg,
            report: raw.report,
        }),
        srt: raw.srt,
        max_age: seconds("position.max_age_s", raw.max_age_s, 0.1)?,
        only_while_armed: raw.only_while_armed,
    })
}
