//! What DJI writes into a JPEG's XMP packet (ISO 16684-1; in JPEG an APP1 segment, Adobe XMP part 3, 1.1.3): height over the
//! take-off point and how the gimbal held the camera.
//!
//! Promise: the packet is found by walking the segments, never by searching the picture's bytes, and whatever it holds is
//! survived. Properties are read in both of RDF's forms, attribute and element.

use roxmltree::{Document, Node, ParsingOptions};

use super::Orientation;

const HEADER: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";
const DJI: &str = "http://www.dji.com/drone-dji/1.0/";
/// DJI's packets have some thirty nodes, Lightroom's a few hundred.
const MOST_NODES: u32 = 10_000;

/// DJI's part of an XMP packet.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Dji {
    /// `AbsoluteAltitude`, metres above mean sea level.
    pub altitude: Option<f64>,
    /// `RelativeAltitude`, metres above take-off.
    pub height: Option<f64>,
    /// `GimbalYawDegree`, `GimbalPitchDegree`, `GimbalRollDegree`.
    pub camera: Option<Orientation>,
}

/// Reads a JPEG's packet; `None` where there is none, or it is not XML.
pub fn read(jpeg: &[u8]) -> Option<Dji> {
    let text = std::str::from_utf8(packet(jpeg)?).ok()?;
    let options = ParsingOptions { nodes_limit: MOST_NODES, ..ParsingOptions::default() };
    let document = Document::parse_with_options(text, options).ok()?;
    let number = |name| property(&document, name)?.trim().parse::<f64>().ok().filter(|value| value.is_finite());
    let camera = || {
        let angle = |name| number(name).filter(|degrees| degrees.abs() <= 360.0);
        let [yaw, pitch, roll] = ["GimbalYawDegree", "GimbalPitchDegree", "GimbalRollDegree"].map(angle);
        Some(Orientation { yaw: yaw?.rem_euclid(360.0), pitch: pitch?, roll: roll? })
    };
    Some(Dji { altitude: number("AbsoluteAltitude"), height: number("RelativeAltitude"), camera: camera() })
}

/// The first XMP packet among a JPEG's segments, up to the picture itself.
fn packet(jpeg: &[u8]) -> Option<&[u8]> {
    let mut rest = jpeg.strip_prefix(&[0xFF, 0xD8])?;
    loop {
        // A marker may be preceded by any number of fill bytes.
        let [0xFF, marker, after @ ..] = rest else { return None };
        match marker {
            0xFF => rest = &rest[1..],
            // Start of scan, end of image: from here on there are no segments to walk.
            0xDA | 0xD9 => return None,
            // Markers without a length.
            0x01 | 0xD0..=0xD7 => rest = after,
            _ => {
                let length = usize::from(u16::from_be_bytes(*after.first_chunk()?));
                let segment = after.get(2..length)?;
                match segment.strip_prefix(HEADER) {
                    Some(packet) if *marker == 0xE1 => return Some(packet),
                    _ => rest = &after[length..],
                }
            }
        }
    }
}

fn property<'a>(document: &'a Document<'_>, name: &str) -> Option<&'a str> {
    let in_attribute = |node: Node<'a, '_>| node.attribute((DJI, name));
    let in_element = |node: Node<'a, '_>| if node.has_tag_name((DJI, name)) { node.text() } else { None };
    document.descendants().find_map(|node| in_attribute(node).or_else(|| in_element(node)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RDF: &str =
        "xmlns:rdf='http://www.w3.org/1999/02/22-rdf-syntax-ns#' xmlns:d='http://www.dji.com/drone-dji/1.0/'";

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&[0xFF, marker], &length[..], content].concat()
    }

    fn jpeg(xmp: &str) -> Vec<u8> {
        let packet = [HEADER, xmp.as_bytes()].concat();
        // A thumbnail in the EXIF segment holds segments of its own, which are not the picture's.
        let exif = segment(0xE1, b"Exif\0\0 \xFF\xD8\xFF\xE1\0\x08http");
        [&[0xFF, 0xD8][..], &exif, &[0xFF, 0xFF], &segment(0xE1, &packet)[1..], &[0xFF, 0xDA]].concat()
    }

    fn wanted() -> Dji {
        let camera = Orientation { yaw: 315.0, pitch: -89.9, roll: 0.5 };
        Dji { altitude: Some(198.31), height: Some(-2.5), camera: Some(camera) }
    }

    #[test]
    fn attributes_and_elements_say_the_same() {
        let attributes = format!(
            "<rdf:RDF {RDF}><rdf:Description d:AbsoluteAltitude='+198.31' d:RelativeAltitude='-2.50' \
             d:GimbalYawDegree='-45.00' d:GimbalPitchDegree='-89.90' d:GimbalRollDegree='+0.50'/></rdf:RDF>"
        );
        let elements = format!(
            "<rdf:RDF {RDF}><rdf:Description><d:AbsoluteAltitude>+198.31</d:AbsoluteAltitude>\
             <d:RelativeAltitude>-2.50</d:RelativeAltitude><d:GimbalYawDegree>-45.00</d:GimbalYawDegree>\
             <d:GimbalPitchDegree> -89.90 </d:GimbalPitchDegree><d:GimbalRollDegree>0.5</d:GimbalRollDegree>\
             </rdf:Description></rdf:RDF>"
        );
        assert_eq!(read(&jpeg(&attributes)), Some(wanted()));
        assert_eq!(read(&jpeg(&elements)), Some(wanted()));
    }

    #[test]
    fn what_is_missing_or_no_number_is_left_out() {
        let some =
            format!("<rdf:RDF {RDF}><rdf:Description d:RelativeAltitude='NaN' d:GimbalYawDegree='1'/></rdf:RDF>");
        assert_eq!(read(&jpeg(&some)), Some(Dji::default()));
        let wild = format!(
            "<rdf:RDF {RDF}><rdf:Description d:GimbalYawDegree='1' d:GimbalPitchDegree='1e9' d:GimbalRollDegree='0'/></rdf:RDF>"
        );
        assert_eq!(read(&jpeg(&wild)), Some(Dji::default()), "no angle");
        let other = "<a xmlns:d='http://example.org/' d:RelativeAltitude='3'/>";
        assert_eq!(read(&jpeg(other)), Some(Dji::default()), "another namespace");
    }

    #[test]
    fn what_is_no_packet_is_none() {
        assert_eq!(read(b""), None);
        assert_eq!(read(&jpeg("<open>")), None);
        assert_eq!(read(&jpeg("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>")), None, "entities can be made to explode");
        let bomb = format!("<a>{}</a>", "<b/>".repeat(15_000));
        assert_eq!(read(&jpeg(&bomb)), None);
        let behind = [&[0xFF, 0xD8, 0xFF, 0xDA][..], &jpeg("<a/>")[2..]].concat();
        assert_eq!(read(&behind), None, "a packet behind the start of scan is picture data");
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            read(&bytes);
            read(&[&[0xFF, 0xD8, 0xFF, 0xE1][..], &bytes].concat());
            read(&jpeg(&String::from_utf8_lossy(&bytes)));
        }

        #[test]
        fn a_cut_file_is_survived(length in 0usize..600) {
            let whole = jpeg(&format!("<rdf:RDF {RDF}><rdf:Description d:RelativeAltitude='1'/></rdf:RDF>"));
            read(&whole[..length.min(whole.len())]);
        }
    }
}
