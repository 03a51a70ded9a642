//! Any bytes on the flight controller's line; whatever they are, a position is on earth and within the age limit.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use remoteclipd::position::{Endpoint, MavlinkOptions, Telemetry};

fuzz_target!(|bytes: &[u8]| {
    let endpoint = Endpoint::Udp(([127, 0, 0, 1], 0).into());
    let options = MavlinkOptions { endpoint, system_id: 1, mount_pitch: Some(-90.0), report: false };
    let telemetry = Telemetry::new(&options, Duration::from_secs(2));
    telemetry.take_in(bytes);
    if let Some(position) = telemetry.position(Instant::now()) {
        assert!((-180.0..=180.0).contains(&position.longitude) && (-90.0..=90.0).contains(&position.latitude));
        assert!(position.age.is_some_and(|age| age <= Duration::from_secs(2)));
    }
});
