//! The position that a camera wrote into the frame: the GPS fields of EXIF (CIPA DC-008, 4.6.6), and beside them what DJI adds
//! in XMP.
//!
//! Promise: whatever the bytes are, the answer is a place that was written there in full, or `None`.

use std::io::Cursor;

use exif::{Exif, In, Rational, Reader, Tag, Value};

use super::{Position, Source, plausible, xmp};

/// The position in the EXIF of a JPEG, PNG or TIFF file.
pub fn position(picture: &[u8]) -> Option<Position> {
    let exif = Reader::new().read_from_container(&mut Cursor::new(picture)).ok()?;
    let longitude = coordinate(&exif, Tag::GPSLongitude, Tag::GPSLongitudeRef, [b'E', b'W'])?;
    let latitude = coordinate(&exif, Tag::GPSLatitude, Tag::GPSLatitudeRef, [b'N', b'S'])?;
    // "V" (void): a receiver without a fix writes its last place, or none.
    if letter(&exif, Tag::GPSStatus) == Some(b'V') || !plausible(longitude, latitude) {
        return None;
    }
    let dji = xmp::read(picture).unwrap_or_default();
    Some(Position {
        longitude,
        latitude,
        altitude: altitude(&exif).or(dji.altitude),
        height: dji.height,
        camera: dji.camera,
        source: Source::Exif,
        age: None,
        accuracy: rationals(&exif, Tag::GPSHPositioningError).and_then(|[error]| number(error)),
    })
}

/// Degrees, minutes and seconds with the letter of their hemisphere.
fn coordinate(exif: &Exif, tag: Tag, reference: Tag, [positive, negative]: [u8; 2]) -> Option<f64> {
    let [degrees, minutes, seconds] = rationals(exif, tag)?;
    let size = number(degrees)? + number(minutes)? / 60.0 + number(seconds)? / 3600.0;
    match letter(exif, reference)? {
        letter if letter == positive => Some(size),
        letter if letter == negative => Some(-size),
        _ => None,
    }
}

fn altitude(exif: &Exif) -> Option<f64> {
    let [altitude] = rationals(exif, Tag::GPSAltitude)?;
    let below = match &exif.get_field(Tag::GPSAltitudeRef, In::PRIMARY)?.value {
        Value::Byte(bytes) => bytes.first() == Some(&1),
        _ => return None,
    };
    number(altitude).map(|altitude| if below { -altitude } else { altitude })
}

fn rationals<const N: usize>(exif: &Exif, tag: Tag) -> Option<[Rational; N]> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Rational(values) => values.as_slice().try_into().ok(),
        _ => None,
    }
}

/// A denominator of zero is EXIF's "unknown".
fn number(rational: Rational) -> Option<f64> {
    (rational.denom != 0).then(|| rational.to_f64())
}

fn letter(exif: &Exif, tag: Tag) -> Option<u8> {
    match &exif.get_field(tag, In::PRIMARY)?.value {
        Value::Ascii(texts) => texts.first()?.first().copied(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use exif::experimental::Writer;
    use exif::{Field, SRational};
    use proptest::prelude::*;

    use super::*;

    fn rational(values: &[(u32, u32)]) -> Value {
        Value::Rational(values.iter().map(|&(num, denom)| Rational { num, denom }).collect())
    }

    fn ascii(text: &str) -> Value {
        Value::Ascii(vec![text.as_bytes().to_vec()])
    }

    /// A TIFF file with nothing but these fields.
    fn tiff(fields: &[(Tag, Value)]) -> Vec<u8> {
        let fields: Vec<Field> =
            fields.iter().map(|(tag, value)| Field { tag: *tag, ifd_num: In::PRIMARY, value: value.clone() }).collect();
        let mut writer = Writer::new();
        fields.iter().for_each(|field| writer.push_field(field));
        let mut file = Cursor::new(Vec::new());
        writer.write(&mut file, false).unwrap();
        file.into_inner()
    }

    fn place() -> Vec<(Tag, Value)> {
        vec![
            (Tag::GPSLatitude, rational(&[(33, 1), (30, 1), (36, 1)])),
            (Tag::GPSLatitudeRef, ascii("S")),
            (Tag::GPSLongitude, rational(&[(70, 1), (15, 1), (0, 1)])),
            (Tag::GPSLongitudeRef, ascii("W")),
        ]
    }

    #[test]
    fn degrees_minutes_and_seconds_take_the_sign_of_their_hemisphere() {
        let position = position(&tiff(&place())).unwrap();
        assert!((position.latitude + 33.51).abs() < 1e-9 && (position.longitude + 70.25).abs() < 1e-9);
        assert_eq!((position.altitude, position.height, position.accuracy), (None, None, None));
    }

    #[test]
    fn altitude_below_the_sea_and_stated_error_are_taken() {
        let mut fields = place();
        fields.push((Tag::GPSAltitude, rational(&[(4305, 10)])));
        fields.push((Tag::GPSAltitudeRef, Value::Byte(vec![1])));
        fields.push((Tag::GPSHPositioningError, rational(&[(25, 10)])));
        let position = position(&tiff(&fields)).unwrap();
        assert_eq!((position.altitude, position.accuracy), (Some(-430.5), Some(2.5)));
    }

    #[test]
    fn what_is_no_place_is_no_position() {
        let with = |at: usize, value: Value| {
            let mut fields = place();
            fields[at].1 = value;
            position(&tiff(&fields))
        };
        let zero = || rational(&[(0, 1), (0, 1), (0, 1)]);
        let origin =
            [(Tag::GPSLatitude, zero()), place().swap_remove(1), (Tag::GPSLongitude, zero()), place().swap_remove(3)];
        assert_eq!(position(&tiff(&origin)), None, "(0, 0)");
        assert_eq!(with(0, rational(&[(33, 0), (30, 1), (0, 1)])), None, "unknown degrees");
        assert_eq!(with(0, rational(&[(91, 1), (0, 1), (0, 1)])), None, "beyond the pole");
        assert_eq!(with(0, rational(&[(33, 1)])), None, "degrees alone");
        assert_eq!(with(0, Value::SRational(vec![SRational { num: -33, denom: 1 }; 3])), None, "another type");
        assert_eq!(with(1, ascii("X")), None, "no hemisphere");
        let mut void = place();
        void.push((Tag::GPSStatus, ascii("V")));
        assert_eq!(position(&tiff(&void)), None, "void");
        void.pop();
        void.push((Tag::GPSStatus, ascii("A")));
        assert!(position(&tiff(&void)).is_some(), "active");
        place().iter().enumerate().for_each(|(at, _)| {
            let mut fields = place();
            fields.remove(at);
            assert_eq!(position(&tiff(&fields)), None, "one field missing");
        });
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            position(&bytes);
        }

        #[test]
        fn a_damaged_file_gives_a_place_on_earth_or_none(at in 0usize..400, byte: u8) {
            let mut file = tiff(&place());
            let at = at % file.len();
            file[at] = byte;
            if let Some(position) = position(&file) {
                prop_assert!(plausible(position.longitude, position.latitude));
            }
        }
    }
}
