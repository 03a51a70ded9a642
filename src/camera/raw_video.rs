//! Frames of raw video as a camera's driver or a decoder lays them out, one after the other without a header.
//!
//! Promise: nothing is converted here. A frame stays as it came until somebody wants its pixels (`vision::decode`), so the
//! frames that a slow model lets go cost no more than their copy.

/// How the samples of one frame follow each other. Names are ffmpeg's `-pix_fmt` and V4L2's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Planar Y, U, V, both chroma planes at half the width and height (I420).
    Yuv420,
    /// Planar Y, then U and V interleaved, at half the width and height.
    Nv12,
    /// Packed Y U Y V, chroma at half the width (YUY2).
    Yuyv,
    /// Packed eight-bit red, green, blue.
    Rgb24,
}

/// How YUV samples become colours. Of no meaning for [`Layout::Rgb24`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colours {
    /// ITU-R BT.601, luma 16 to 235: standard-definition video, most webcams.
    #[default]
    Bt601,
    /// ITU-R BT.709, luma 16 to 235: high-definition video.
    Bt709,
    /// BT.601 with luma 0 to 255, as in JPEG files: what `rpicam-vid --codec yuv420` sends.
    Jpeg,
}

/// Layout, size and colours of every frame of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawFormat {
    /// How the samples follow each other.
    pub layout: Layout,
    /// Width in pixels, 1 to 65,535.
    pub width: u32,
    /// Height in pixels, 1 to 65,535.
    pub height: u32,
    /// What the samples mean.
    pub colours: Colours,
}

impl RawFormat {
    /// Bytes of one frame, rows without padding. Odd sides have their last chroma sample, as ffmpeg writes them.
    pub fn bytes(&self) -> u64 {
        let (width, height) = (u64::from(self.width), u64::from(self.height));
        let half_width = width.div_ceil(2);
        match self.layout {
            Layout::Yuv420 | Layout::Nv12 => width * height + 2 * half_width * height.div_ceil(2),
            Layout::Yuyv => 4 * half_width * height,
            Layout::Rgb24 => 3 * width * height,
        }
    }
}

/// One frame of raw video.
#[derive(Debug, Clone)]
pub struct RawVideo {
    /// What the bytes are.
    pub format: RawFormat,
    /// The samples; [`RawFormat::bytes`] of them, or the frame cannot be decoded.
    pub bytes: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_the_bytes_that_ffmpeg_writes() {
        let bytes = |layout, width, height| RawFormat { layout, width, height, colours: Colours::Bt601 }.bytes();
        assert_eq!(bytes(Layout::Yuv420, 640, 480), 460_800);
        assert_eq!(bytes(Layout::Nv12, 640, 480), 460_800);
        assert_eq!(bytes(Layout::Yuyv, 640, 480), 614_400);
        assert_eq!(bytes(Layout::Rgb24, 640, 480), 921_600);
        assert_eq!(bytes(Layout::Yuv420, 5, 3), 15 + 2 * 3 * 2);
        assert_eq!(bytes(Layout::Rgb24, 65_535, 65_535), 12_884_508_675);
    }
}
