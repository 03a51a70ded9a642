//! Figures about this process and board, from Linux's `/proc` and `/sys`.

use std::fs;

/// Resident memory of this process in bytes (`VmRSS` of proc(5)).
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The hottest thermal zone in degrees Celsius.
pub fn temperature() -> Option<f64> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?;
    let millidegrees =
        |zone: fs::DirEntry| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<f64>().ok();
    zones.flatten().filter_map(millidegrees).map(|value| value / 1000.0).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_running_process_has_resident_memory() {
        assert!(super::resident_memory().unwrap() > 1 << 20);
    }
}
