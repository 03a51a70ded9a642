use mavlink::Message;
use mavlink_core::MavHeader;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn options(only_while_armed: bool) -> PositionOptions {
    let endpoint = Endpoint::Udp(([127, 0, 0, 1], 0).into());
    let mavlink = MavlinkOptions { endpoint, system_id: 1, mount_pitch: None, report: false };
    PositionOptions { mavlink: Some(mavlink), srt: None, max_age: 2 * SECOND, only_while_armed }
}

/// A frame that is taken in this moment, `ago` by its own account.
fn frame(ago: jiff::SignedDuration) -> Frame {
    Frame {
        picture: Picture::Rgb(image::RgbImage::new(1, 1)),
        name: "a".to_owned(),
        captured_at: Timestamp::now() - ago,
        arrived: Instant::now(),
        media_time: None,
        receipt: None,
    }
}

fn hear(locator: &Locator, message: &Message) {
    let header = MavHeader { system_id: 1, component_id: 1, sequence: 0 };
    locator.telemetry().unwrap().receive(header, message, Instant::now());
}

/// A locator whose vehicle has just said where it is.
fn placed() -> Locator {
    let locator = Locator::new(options(false)).unwrap();
    hear(&locator, &Message::GpsRaw { fix_type: 3, accuracy_mm: 0 });
    let place =
        Message::GlobalPosition { boot_ms: 1, longitude: 25_000_000, latitude: 15_000_000, altitude: 0, height: 0 };
    hear(&locator, &place);
    locator
}

#[test]
fn a_frame_of_this_moment_is_where_the_vehicle_is() {
    let position = placed().locate(&frame(jiff::SignedDuration::ZERO)).unwrap();
    assert_eq!((position.longitude, position.latitude, position.source), (2.5, 1.5, Source::Mavlink));
    assert!(position.age.unwrap() < 2 * SECOND);
}

#[test]
fn a_file_from_before_or_from_the_future_is_not_where_the_vehicle_is_now() {
    let locator = placed();
    for ago in [3600, 30, -30] {
        assert_eq!(locator.locate(&frame(jiff::SignedDuration::from_secs(ago))), None, "{ago} s ago");
    }
}

#[test]
fn without_a_source_there_is_no_position() {
    let mut none = Locator::new(PositionOptions { mavlink: None, ..options(false) }).unwrap();
    assert_eq!(none.locate(&frame(jiff::SignedDuration::ZERO)), None);
    assert!(none.admit(&frame(jiff::SignedDuration::ZERO)));
}

#[test]
fn where_only_armed_flight_counts_silence_is_not_armed() {
    let mut locator = Locator::new(options(true)).unwrap();
    let mut admitted = |message: Option<Message>| {
        message.iter().for_each(|message| hear(&locator, message));
        locator.admit(&frame(jiff::SignedDuration::ZERO))
    };
    let beat = |autopilot, base_mode| Some(Message::Heartbeat { autopilot, base_mode });
    assert!(!admitted(None), "nothing heard");
    assert!(admitted(beat(3, 128 | 1)));
    assert!(admitted(beat(8, 0)), "a gimbal or a camera of the same system beats too, and is never armed");
    assert!(!admitted(beat(3, 81)));
    assert_eq!(locator.telemetry().unwrap().health(Instant::now()).frames_disarmed, 2);
    let mut always = Locator::new(options(false)).unwrap();
    assert!(always.admit(&frame(jiff::SignedDuration::ZERO)), "not asked for");
}

#[test]
fn subtitles_count_from_the_first_frame() {
    let folder = tempfile::tempdir().unwrap();
    let srt = folder.path().join("a.srt");
    let entry = |second: u32| format!("{second}\n00:00:0{second},000 -->\n[latitude: {second}.5] [longitude: 2.5]\n\n");
    std::fs::write(&srt, (0..8).map(entry).collect::<String>()).unwrap();
    let mut locator = Locator::new(PositionOptions { mavlink: None, srt: Some(srt), ..options(false) }).unwrap();
    let mut frame = frame(jiff::SignedDuration::ZERO);
    assert!(locator.admit(&frame));
    assert_eq!(locator.locate(&frame).unwrap().latitude, 0.5);
    frame.arrived += 4 * SECOND;
    let position = locator.locate(&frame).unwrap();
    assert_eq!((position.latitude, position.source, position.age), (4.5, Source::Srt, Some(Duration::ZERO)));
    frame.arrived += 6 * SECOND;
    assert_eq!(locator.locate(&frame), None, "the video is over");
    frame.media_time = Some(2 * SECOND);
    assert_eq!(locator.locate(&frame).unwrap().latitude, 2.5, "whatever the daemon's clock says");
}
