//! `[pace]`: how hard the classifier may work.

use super::raw::RawPace;

/// How hard the classifier may work.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaceConfig {
    /// Frames a second at most.
    pub frames_per_second: Option<f64>,
    /// Share of the time, above 0 and at most 1.
    pub duty_cycle: f64,
    /// Degrees Celsius that the hottest thermal zone is not to reach.
    pub max_temperature: Option<f64>,
}

pub(super) fn pace(raw: &RawPace) -> Result<PaceConfig, String> {
    if raw.frames_per_second.is_some_and(|rate| !(0.01..=1000.0).contains(&rate)) {
        return Err("pace.frames_per_second must be between 0.01 and 1000".to_owned());
    }
    if !(0.01..=1.0).contains(&raw.duty_cycle) {
        return Err(format!("pace.duty_cycle = {} must be between 0.01 and 1", raw.duty_cycle));
    }
    if raw.max_temperature_c.is_some_and(|degrees| !(20.0..=150.0).contains(&degrees)) {
        return Err("pace.max_temperature_c must be between 20 and 150 degrees Celsius".to_owned());
    }
    Ok(PaceConfig {
        frames_per_second: raw.frames_per_second,
        duty_cycle: raw.duty_cycle,
        max_temperature: raw.max_temperature_c,
    })
}
