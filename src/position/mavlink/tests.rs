use mavlink_core::error::MessageReadError;
use mavlink_core::{MavlinkReader, MavlinkVersion, write_versioned_msg_with_dialect};
use proptest::prelude::*;

use super::dialect::Common;
use super::*;

/// The same six messages as pymavlink 2.4.50 writes them: HEARTBEAT, SYSTEM_TIME, GPS_RAW_INT, ATTITUDE, GLOBAL_POSITION_INT, and
/// VFR_HUD, which we don't read.
const V1: [&str; 6] = [
    "fe0900010100040000000203d104038f40",
    "fe0c0001010238b49be8151a0500dda40000e360",
    "fe1e0001011880de8002000000000723eceaa2e1e858fa0109007900c80003003375030a5913",
    "fe1c0001011ee2a40000cdcccc3dcdcc4cbe0000c0bf0000000000000000000000008ad2",
    "fe1c00010121eca400000723eceaa2e1e858fa01090056270000fdff0000000033751861",
    "fe140001014a0000803f0000004000004040000080405a00320074e4",
];
const V2: [&str; 6] = [
    "fd090000000101000000040000000203d104031583",
    "fd0a000000010102000038b49be8151a0500dda47517",
    "fd2b000000010118000080de8002000000000723eceaa2e1e858fa0109007900c80003003375040aa05609005203000014050000648c5e",
    "fd1000000001011e0000e2a40000cdcccc3dcdcc4cbe0000c0bf9c45",
    "fd1c0000000101210000eca400000723eceaa2e1e858fa01090056270000fdff0000000033751b0d",
    "fd1300000001014a00000000803f0000004000004040000080405a00322663",
];

fn bytes(messages: &[&str]) -> Vec<u8> {
    messages.iter().flat_map(|message| hex::decode(message).unwrap()).collect()
}

/// What is read from these bytes, and how many good and bad messages were counted.
fn read(bytes: &[u8]) -> (Vec<Message>, u64, u64) {
    let dialect = Common::default();
    let mut reader = MavlinkReader::new(bytes);
    let mut messages = Vec::new();
    loop {
        match reader.read_any_message_with_dialect(&dialect) {
            Ok((_, message)) => messages.push(message),
            Err(MessageReadError::Parse(error)) => panic!("{error}"),
            Err(MessageReadError::Io(_)) => return (messages, dialect.good(), dialect.bad()),
        }
    }
}

fn wanted(fix_type: u8, accuracy_mm: u32) -> Vec<Message> {
    vec![
        Message::Heartbeat { autopilot: 3, base_mode: 209 },
        Message::SystemTime { unix_us: 1_436_056_282_707_000, boot_ms: 42_205 },
        Message::GpsRaw { fix_type, accuracy_mm },
        Message::Attitude { boot_ms: 42_210, angles: [0.1, -0.2, -1.5] },
        Message::GlobalPosition {
            boot_ms: 42_220,
            latitude: -353_623_289,
            longitude: 1_491_657_122,
            altitude: 590_330,
            height: 10_070,
        },
        Message::Other,
    ]
}

#[test]
fn both_versions_are_read_as_pymavlink_writes_them() {
    assert_eq!(read(&bytes(&V1)), (wanted(3, 0), 6, 0));
    assert_eq!(read(&bytes(&V2)), (wanted(4, 850), 6, 0));
}

#[test]
fn a_bad_checksum_costs_its_message_and_is_counted() {
    let mut damaged = bytes(&V2);
    damaged[12] ^= 1;
    let (messages, good, bad) = read(&damaged);
    assert_eq!((&messages[..], good, bad), (&wanted(4, 850)[1..], 5, 1));
}

#[test]
fn a_cut_message_costs_itself_alone() {
    let whole = bytes(&V2);
    let [cut, rest] = [&whole[..15], &whole[21..]];
    // It is only known to be cut once as many bytes have come as it promised.
    let (messages, ..) = read(&[cut, rest].concat());
    assert_eq!(messages, wanted(4, 850)[1..]);
}

#[test]
fn what_we_say_is_what_pymavlink_says() {
    let header = MavHeader { system_id: 1, component_id: 191, sequence: 0 };
    let mut written = Vec::new();
    let text = Message::StatusText("enter parking lot 0.97".to_owned());
    write_versioned_msg_with_dialect(&mut written, MavlinkVersion::V2, header, &Common::default(), &text).unwrap();
    assert_eq!(hex::encode(written), "fd1700000001bffd000006656e746572207061726b696e67206c6f7420302e39373406");
}

fn telemetry() -> Telemetry {
    let endpoint = Endpoint::Udp(([127, 0, 0, 1], 0).into());
    let options = MavlinkOptions { endpoint, system_id: 1, mount_pitch: Some(-90.0), report: true };
    Telemetry::new(&options, Duration::from_secs(2))
}

/// A vehicle heard in a time of our own making.
struct Flight {
    telemetry: Telemetry,
    start: Instant,
}

impl Flight {
    fn new() -> Self {
        let telemetry = telemetry();
        let start = telemetry.started;
        Self { telemetry, start }
    }

    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    fn hear(&self, ms: u64, message: &Message) {
        self.telemetry.receive(MavHeader { system_id: 1, component_id: 1, sequence: 0 }, message, self.at(ms));
    }

    fn fix(&self, ms: u64, fix_type: u8) {
        self.hear(ms, &Message::GpsRaw { fix_type, accuracy_mm: 1500 });
    }

    /// The boot clock is half a minute ahead of ours; one degree north a second.
    fn place(&self, ms: u64) {
        self.place_of(ms, ms + 30_000, 10_000_000 + ms as i32 * 10_000);
    }

    fn place_of(&self, ms: u64, boot_ms: u64, latitude: i32) {
        let place =
            Message::GlobalPosition { boot_ms: boot_ms as u32, longitude: 0, latitude, altitude: 5000, height: -100 };
        self.hear(ms, &place);
    }

    fn latitude(&self, ms: u64) -> Option<f64> {
        self.telemetry.position(self.at(ms)).map(|position| position.latitude)
    }

    fn health(&self, ms: u64) -> TelemetryHealth {
        self.telemetry.health(self.at(ms))
    }
}

#[test]
fn a_position_is_interpolated_and_carries_what_is_known_of_it() {
    let flight = Flight::new();
    flight.fix(0, 3);
    flight.place(100);
    flight.place(600);
    let position = flight.telemetry.position(flight.at(350)).unwrap();
    assert!((position.latitude - 1.35).abs() < 1e-4, "{position:?}");
    assert_eq!((position.altitude, position.height, position.accuracy), (Some(5.0), Some(-0.1), Some(1.5)));
    let age = position.age.unwrap();
    assert!(age.abs_diff(Duration::from_millis(250)) < Duration::from_millis(1), "{age:?}");
    assert_eq!(position.camera, None, "no attitude was heard");
    assert_eq!(flight.health(600).state, FixState::Fix);
}

#[test]
fn without_a_fix_there_is_no_position_and_a_lost_one_grows_stale() {
    let flight = Flight::new();
    flight.place(0);
    assert_eq!((flight.latitude(0), flight.health(0).state), (None, FixState::None), "no receiver heard");
    flight.fix(50, 1);
    flight.place(100);
    assert_eq!((flight.latitude(100), flight.health(100).state), (None, FixState::None), "the receiver has none");
    flight.fix(150, 3);
    flight.place_of(200, 30_200, 0);
    assert_eq!(flight.latitude(200), None, "(0, 0)");
    flight.place(300);
    assert!(flight.latitude(300).is_some());
    flight.fix(400, 2);
    flight.place(500);
    assert_eq!(flight.health(500).state, FixState::None);
    assert!((flight.latitude(500).unwrap() - 1.3).abs() < 1e-6, "the last good one, and its age says so");
    assert_eq!(flight.latitude(2301), None, "older than the limit");
}

#[test]
fn silence_grows_stale() {
    let flight = Flight::new();
    flight.fix(0, 3);
    flight.place(0);
    assert_eq!(flight.health(2000).state, FixState::Fix);
    let health = flight.health(2001);
    assert_eq!((health.state, health.age_ms), (FixState::Stale, Some(2001)));
}

#[test]
fn old_repeated_and_foreign_messages_change_nothing_and_are_counted() {
    let flight = Flight::new();
    flight.fix(0, 3);
    flight.place(100);
    flight.place_of(200, 30_100, 900_000_000);
    flight.place_of(200, 30_050, 900_000_000);
    let foreign = Message::GlobalPosition { boot_ms: 30_300, longitude: 1, latitude: 1, altitude: 0, height: 0 };
    let header = MavHeader { system_id: 2, component_id: 1, sequence: 0 };
    assert!(!flight.telemetry.receive(header, &foreign, flight.at(300)));
    assert_eq!(flight.latitude(300), Some(1.1), "the first one stands");
    let health = flight.health(300);
    assert_eq!((health.out_of_order, health.wrong_system), (2, 1));
}

#[test]
fn a_jump_is_no_position_until_the_new_time_is_confirmed() {
    let flight = Flight::new();
    flight.fix(0, 3);
    (0..10).for_each(|tick| flight.place(tick * 200));
    // The flight controller starts anew, elsewhere.
    for tick in 0..5 {
        flight.place_of(4000 + tick * 200, tick * 200, 700_000_000);
        assert_eq!(flight.latitude(4000 + tick * 200), None);
    }
    flight.place_of(5000, 1000, 700_000_000);
    assert_eq!((flight.latitude(5000), flight.health(5000).jumped), (Some(70.0), 5));
}

#[test]
fn a_held_up_place_counts_for_when_it_was_sent() {
    let flight = Flight::new();
    flight.fix(0, 3);
    flight.place(100);
    // Sent at 600, arrived at 3100: it says nothing about 3100.
    flight.place_of(3100, 30_600, 16_000_000);
    assert_eq!(flight.latitude(3100), None);
    assert!((flight.latitude(600).unwrap() - 1.6).abs() < 1e-3);
}

#[test]
fn armed_is_forgotten_after_five_seconds_of_silence() {
    let flight = Flight::new();
    assert_eq!(flight.health(0).armed, None);
    flight.hear(0, &Message::Heartbeat { autopilot: 3, base_mode: 209 });
    assert_eq!((flight.health(5000).armed, flight.health(5001).armed), (Some(true), None));
}

#[test]
fn a_fixed_camera_looks_where_the_airframe_turns_it() {
    let look = |yaw, pitch, roll, mount| {
        let Orientation { yaw, pitch, roll } = turned(Orientation { yaw, pitch, roll }, mount);
        [yaw, pitch, roll].map(|angle| (angle * 1e6).round() / 1e6 + 0.0)
    };
    assert_eq!(look(30.0, 0.0, 0.0, 0.0), [30.0, 0.0, 0.0], "ahead");
    assert_eq!(look(30.0, 10.0, 5.0, 0.0), [30.0, 10.0, 5.0], "ahead, turned as the airframe");
    assert_eq!(look(-60.0, 0.0, 0.0, -90.0), [300.0, -90.0, 0.0], "down, the top of the picture to the nose");
    assert_eq!(look(30.0, 0.0, 0.0, -45.0), [30.0, -45.0, 0.0]);
    assert_eq!(look(30.0, -10.0, 0.0, -35.0), [30.0, -45.0, 0.0], "nose down");
    // Nose up by ten degrees: a camera that looks down looks ten degrees ahead of the vertical.
    assert_eq!(look(0.0, 10.0, 0.0, -90.0), [0.0, -80.0, 0.0]);
    // Right wing down by ten: it looks to the left of the track, its top still along the track.
    let [yaw, pitch, roll] = look(0.0, 0.0, 10.0, -90.0);
    assert_eq!((yaw, pitch, roll), (270.0, -80.0, 90.0));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (messages, good, _) = read(&noise);
        prop_assert_eq!(messages.len() as u64, good);
    }

    #[test]
    fn any_bytes_are_taken_in(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let flight = Flight::new();
        flight.telemetry.take_in(&[&noise, &bytes(&V1)[..]].concat());
        // Noise may promise a long message and swallow what is behind it, for it is not known yet that it does not come.
        prop_assert!(flight.health(0).messages <= 6);
        flight.telemetry.take_in(&bytes(&V1));
        let health = flight.health(0);
        prop_assert!(health.messages >= 6 && health.armed == Some(true) && health.state == FixState::Fix, "{health:?}");
    }

    #[test]
    fn noise_between_messages_costs_none_of_them(noise in proptest::collection::vec(0u8..0xFD, 0..40)) {
        let stream: Vec<u8> = V1.iter().chain(&V2).flat_map(|message| [noise.clone(), bytes(&[message])].concat()).collect();
        let (messages, _, bad) = read(&stream);
        prop_assert_eq!(messages, [wanted(3, 0), wanted(4, 850)].concat());
        prop_assert_eq!(bad, 0);
    }

    #[test]
    fn a_flipped_bit_never_makes_another_message(at in 0usize..1000, bit in 0u8..8) {
        let mut stream = bytes(&V2);
        let at = at % stream.len();
        stream[at] ^= 1 << bit;
        for message in read(&stream).0 {
            prop_assert!(wanted(4, 850).contains(&message), "{message:?}");
        }
    }

    #[test]
    fn whatever_is_heard_memory_is_bounded_and_no_age_is_over_the_limit(
        heard in proptest::collection::vec((0u64..3000, any::<u32>(), any::<i32>(), any::<i32>(), 0u8..8), 0..200)
    ) {
        let flight = Flight::new();
        let mut now = 0;
        for (wait, boot_ms, longitude, latitude, fix) in heard {
            now += wait;
            flight.fix(now, fix);
            flight.hear(now, &Message::GlobalPosition { boot_ms, longitude, latitude, altitude: 0, height: 0 });
            if let Some(position) = flight.telemetry.position(flight.at(now)) {
                prop_assert!(position.age.unwrap() <= Duration::from_secs(2));
                prop_assert!(plausible(position.longitude, position.latitude));
            }
        }
        prop_assert!(flight.telemetry.lock().places.len() <= KEPT);
    }

    #[test]
    fn a_camera_ahead_looks_as_the_airframe_lies(yaw in 0.0..360.0, pitch in -89.0..89.0, roll in -179.0..179.0) {
        let airframe = Orientation { yaw, pitch, roll };
        let seen = turned(airframe, 0.0);
        let apart = |a: f64, b: f64| ((a - b + 180.0).rem_euclid(360.0) - 180.0).abs();
        prop_assert!(apart(seen.yaw, yaw) < 1e-6 && apart(seen.pitch, pitch) < 1e-6 && apart(seen.roll, roll) < 1e-6, "{seen:?}");
    }
}
