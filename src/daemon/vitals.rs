//! Figures about this process and board, from Linux's `/proc` and `/sys`.

use std::fs;
use std::path::Path;

/// Resident memory of this process in bytes (`VmRSS` of proc(5)).
pub fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// The hottest thermal zone of a folder like Linux's `/sys/class/thermal`, in degrees Celsius.
pub fn temperature(zones: &Path) -> Option<f64> {
    let zones = fs::read_dir(zones).ok()?;
    let millidegrees =
        |zone: fs::DirEntry| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse::<f64>().ok();
    zones.flatten().filter_map(millidegrees).map(|value| value / 1000.0).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_hottest_zone_counts_and_other_files_do_not() {
        let folder = tempfile::tempdir().unwrap();
        for (zone, millidegrees) in [("thermal_zone0", "41000"), ("thermal_zone1", "63500\n"), ("cooling_device0", "")]
        {
            std::fs::create_dir(folder.path().join(zone)).unwrap();
            std::fs::write(folder.path().join(zone).join("temp"), millidegrees).unwrap();
        }
        assert_eq!(super::temperature(folder.path()), Some(63.5));
        assert_eq!(super::temperature(&folder.path().join("none")), None);
    }

    #[test]
    fn a_running_process_has_resident_memory() {
        assert!(super::resident_memory().unwrap() > 1 << 20);
    }
}
