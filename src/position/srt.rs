//! DJI's subtitles (`.SRT`) beside a video: a place for every entry, by time since the video's start.
//!
//! Three forms are known, told apart by how they write the place: `[latitude: …] [longitude: …] [altitude: …]` (Air 2S,
//! Mavic Air 2), `GPS (lon, lat, satellites), …, H 200.70m` (Mavic Mini) and `GPS(lon,lat,satellites) BAROMETER:20.1` (Phantom).
//!
//! Promise: an entry that cannot be read costs that entry and is a [`SrtError::Entry`] that names file and line; the good ones
//! are kept.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::track::{Place, Track};
use super::{Position, Source, plausible};

/// Two hours at 60 entries a second are some 150 MB; more is no subtitle file.
const MOST_BYTES: u64 = 256 << 20;

/// A video's subtitles.
#[derive(Debug)]
pub struct Subtitles {
    track: Track<Place>,
    /// What could not be read, in order.
    pub problems: Vec<SrtError>,
}

impl Subtitles {
    /// Reads a subtitle file.
    ///
    /// # Errors
    /// [`SrtError`] if there is no such file or not one usable entry in it.
    pub fn read(path: &Path) -> Result<Self, SrtError> {
        let read = |source| SrtError::Read { path: path.to_owned(), source };
        let bytes = std::fs::metadata(path).map_err(read)?.len();
        if bytes > MOST_BYTES {
            return Err(SrtError::Size { path: path.to_owned(), bytes });
        }
        let text = std::fs::read(path).map_err(read)?;
        let subtitles = Self::parse(path, &String::from_utf8_lossy(&text));
        if subtitles.track.is_empty() {
            return Err(SrtError::Empty { path: path.to_owned() });
        }
        Ok(subtitles)
    }

    /// Reads the text of a subtitle file; `path` is for the problems found.
    pub fn parse(path: &Path, text: &str) -> Self {
        let mut subtitles = Self { track: Track::new(usize::MAX), problems: Vec::new() };
        let mut lines = text.lines().enumerate();
        while let Some((line, times)) = lines.find(|(_, line)| line.contains("-->")) {
            let words: Vec<&str> =
                lines.by_ref().map(|(_, line)| line).take_while(|line| !line.trim().is_empty()).collect();
            if let Err(reason) = subtitles.add(times, &words.join(" ")) {
                subtitles.problems.push(SrtError::Entry { path: path.to_owned(), line: line + 1, reason });
            }
        }
        subtitles
    }

    fn add(&mut self, times: &str, words: &str) -> Result<(), &'static str> {
        let start =
            times.split("-->").next().and_then(time).ok_or("the start is not hours:minutes:seconds,milliseconds")?;
        let place = place(words).ok_or("no place can be read")?;
        if !plausible(place.longitude, place.latitude) {
            return Err("the place is not on earth, or (0, 0): no fix");
        }
        if self.track.push(start, place) { Ok(()) } else { Err("it does not start after the entry before") }
    }

    /// How many places there are.
    pub fn len(&self) -> usize {
        self.track.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.track.is_empty()
    }

    /// Where the video was at a time since its start.
    pub fn at(&self, offset: Duration, max_age: Duration) -> Option<Position> {
        Some(self.track.at(offset, max_age)?.position(Source::Srt))
    }
}

/// `00:01:55,250`; some firmwares write a point.
fn time(text: &str) -> Option<Duration> {
    let (whole, milliseconds) = text.trim().split_once([',', '.'])?;
    let mut parts = whole.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let in_order = parts.next().is_none() && hours < 1000 && minutes < 60 && seconds < 60;
    let milliseconds = milliseconds.parse().ok().filter(|milliseconds| *milliseconds < 1000)?;
    in_order.then(|| {
        Duration::from_secs(u64::from(hours * 3600 + minutes * 60 + seconds)) + Duration::from_millis(milliseconds)
    })
}

fn place(words: &str) -> Option<Place> {
    bracketed(words).or_else(|| in_parentheses(words))
}

/// `[latitude: 41.424724] [longitude: 2.234156] [altitude: 117.000000]`; newer firmwares write `[rel_alt: 1.300 abs_alt: 118.300]`.
/// A plain `altitude` is above take-off: Mavic Air 2 files state 28 m on a hill of 260. The Phantom 4 Pro misspells "longtitude".
fn bracketed(words: &str) -> Option<Place> {
    let named = |name: &str| number_after(words, name);
    let first = |names: &[&str]| names.iter().find_map(|name| named(name));
    Some(Place {
        longitude: first(&["[longitude:", "[longitude :", "[longtitude:", "[longtitude :"])?,
        latitude: first(&["[latitude:", "[latitude :"])?,
        altitude: named("abs_alt:"),
        height: first(&["rel_alt:", "[altitude:"]),
        accuracy: None,
    })
}

/// `GPS (-121.7458, 48.0771, 17)`: longitude, latitude and, whatever some readers make of it, the number of satellites.
fn in_parentheses(words: &str) -> Option<Place> {
    let (_, after) = words.split_once("GPS")?;
    let (inside, after) = after.trim_start().strip_prefix('(')?.split_once(')')?;
    let mut numbers = inside.split(',').map(|number| number.trim().parse::<f64>().ok());
    Some(Place {
        longitude: numbers.next()??,
        latitude: numbers.next()??,
        altitude: None,
        height: number_after(after, " H ").or_else(|| number_after(after, "BAROMETER:")),
        accuracy: None,
    })
}

/// The number behind `name`, up to whatever is not part of a number.
fn number_after(words: &str, name: &str) -> Option<f64> {
    let (_, after) = words.split_once(name)?;
    let after = after.trim_start();
    let end = after.find(|letter: char| !(letter.is_ascii_digit() || "+-.".contains(letter))).unwrap_or(after.len());
    after[..end].parse().ok()
}

/// What is wrong with a subtitle file.
#[derive(Debug, thiserror::Error)]
pub enum SrtError {
    /// It cannot be read.
    #[error("cannot read subtitles {path}: {source}; correct position.srt")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is larger than any subtitle file.
    #[error(
        "subtitles {path} have {bytes} bytes, more than {MOST_BYTES}; position.srt must name the .SRT beside the video"
    )]
    Size {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It holds no place at all.
    #[error("subtitles {path} hold no place; turn on \"video captions\" in DJI's app, or remove position.srt")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// One entry cannot be used.
    #[error("subtitles {path}, line {line}: {reason}; the entry is left out, mend or delete it")]
    Entry {
        /// The file.
        path: PathBuf,
        /// The line with the entry's times, from 1.
        line: usize,
        /// Why not.
        reason: &'static str,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn real(name: &str) -> Option<PathBuf> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/telemetry/dji_srt").join(name);
        if path.exists() {
            return Some(path);
        }
        assert!(std::env::var_os("CI").is_none(), "CI must not skip: no {}", path.display());
        eprintln!("skipped: no {}", path.display());
        None
    }

    fn at(subtitles: &Subtitles, offset: f64) -> [Option<f64>; 4] {
        let position = subtitles.at(Duration::from_secs_f64(offset), SECOND).unwrap();
        [Some(position.longitude), Some(position.latitude), position.altitude, position.height]
    }

    #[test]
    fn the_three_forms_of_real_files_are_read() {
        let Some(air2s) = real("air2s.srt") else { return };
        let air2s = Subtitles::read(&air2s).unwrap();
        assert_eq!((air2s.len(), air2s.problems.len()), (17, 0));
        assert_eq!(at(&air2s, 0.0), [Some(2.234156), Some(41.424724), None, Some(117.0)]);
        assert_eq!(at(&air2s, 0.533), [Some(2.234102), Some(41.424730), None, Some(117.1)]);

        let mini = Subtitles::read(&real("mavic_mini.SRT").unwrap()).unwrap();
        assert_eq!((mini.len(), mini.problems.len()), (117, 0));
        assert_eq!(at(&mini, 116.0), [Some(-121.7476), Some(48.0775), None, Some(200.8)]);
        assert_eq!(at(&mini, 0.5), [Some(-121.7458), Some(48.0771), None, Some(200.7)]);
        assert!(mini.at(Duration::from_secs(118), SECOND).is_none(), "the video is over");

        let air2 = Subtitles::read(&real("mavic_air2.srt").unwrap()).unwrap();
        assert_eq!((air2.len(), air2.problems.len()), (25, 0));
        assert_eq!(at(&air2, 0.4), [Some(2.162162), Some(41.420686), None, Some(29.2)]);
    }

    #[test]
    fn of_a_file_cut_short_the_good_entries_are_kept_and_the_bad_one_is_named() {
        let Some(path) = real("broken_incomplete.SRT") else { return };
        let subtitles = Subtitles::read(&path).unwrap();
        assert_eq!(subtitles.len(), 19);
        assert_eq!(at(&subtitles, 19.0), [Some(-58.4563), Some(-34.7383), None, Some(7.7)]);
        let problem = subtitles.problems[0].to_string();
        assert_eq!(subtitles.problems.len(), 1);
        assert!(problem.contains("broken_incomplete.SRT, line 116: no place"), "{problem}");
    }

    #[test]
    fn a_file_without_a_place_is_an_error_with_a_cure() {
        let Some(path) = real("broken_empty.SRT") else { return };
        let error = Subtitles::read(&path).unwrap_err().to_string();
        assert!(error.contains("broken_empty.SRT") && error.contains("position.srt"), "{error}");
        let error = Subtitles::read(Path::new("no/such.srt")).unwrap_err().to_string();
        assert!(error.contains("no/such.srt") && error.contains("position.srt"), "{error}");
    }

    #[test]
    fn every_kind_of_bad_entry_is_left_out_by_itself() {
        let text = "1\n00:00:01,000 --> x\n[latitude: 1.5] [longitude: 2.5]\n\n\
                    2\n00:61:01,000 --> x\n[latitude: 1.5] [longitude: 2.5]\n\n\
                    3\n00:00:02,000 --> x\n[latitude: 0.0] [longitude: 0.0]\n\n\
                    4\n00:00:03,000 --> x\n[latitude: 95] [longitude: 2.5]\n\n\
                    5\n00:00:01,000 --> x\n[latitude: 1.5] [longitude: 2.5]\n\n\
                    6\r\n00:00:04,000 --> x\r\n[latitude : 1.5] [longtitude : 2.5] [rel_alt: 1.300 abs_alt: 118.3]\r\n\r\n";
        let subtitles = Subtitles::parse(Path::new("a.srt"), text);
        let lines: Vec<usize> = subtitles
            .problems
            .iter()
            .map(|problem| match problem {
                SrtError::Entry { line, .. } => *line,
                other => panic!("{other}"),
            })
            .collect();
        assert_eq!((subtitles.len(), lines), (2, vec![6, 10, 14, 18]));
        assert_eq!(at(&subtitles, 4.0), [Some(2.5), Some(1.5), Some(118.3), Some(1.3)]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(?s).{0,300}", entry in "[0-9:,.]{0,14}", words in "[\\[\\]()a-zGPS:,. 0-9+-]{0,60}") {
            Subtitles::parse(Path::new("a"), &text);
            let subtitles = Subtitles::parse(Path::new("a"), &format!("{entry} --> \n{words}\n"));
            prop_assert!(subtitles.len() + subtitles.problems.len() == 1);
        }
    }
}
