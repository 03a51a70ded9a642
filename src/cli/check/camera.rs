//! `check --camera`: one frame as it came, and what the model sees of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::camera::Picture;
use crate::daemon::{Photograph, Prepared};
use crate::position::Position;
use crate::vision::pixels;

/// How long the camera may take for its first frame.
const PATIENCE: Duration = Duration::from_secs(15);

/// Takes a frame and says what it is; with `out`, a folder, also writes it: `frame.*` as it came, `seen.png` the model's square
/// of it and `seen-01.png` and so on those of its tiles.
pub(super) fn photograph(prepared: &mut Prepared, out: Option<&Path>) -> anyhow::Result<String> {
    let photograph = prepared.photograph(PATIENCE)?;
    let Photograph { frame, view, position, .. } = &photograph;
    let ((width, height), tiles) = (view.frame, view.areas.len() - 1);
    let mut said = format!("frame {}, {width} x {height} pixels", frame.name);
    if tiles > 0 {
        let tile = view.areas[1];
        said += &format!(", {tiles} tiles of {} x {} pixels", tile.width, tile.height);
    }
    if let Some(Position { longitude, latitude, .. }) = position {
        said += &format!(", taken at {latitude:.6}, {longitude:.6}");
    }
    if let Some(out) = out {
        let written = write(&photograph, out)?;
        let names: Vec<_> = written.iter().map(|path| path.display().to_string()).collect();
        said += &format!("; written to {}", names.join(", "));
    }
    Ok(said)
}

/// The files written; of the tiles only the first and the last are named.
fn write(Photograph { frame, view, limits, .. }: &Photograph, out: &Path) -> anyhow::Result<Vec<PathBuf>> {
    std::fs::create_dir_all(out).with_context(|| format!("--out: cannot make the folder {}", out.display()))?;
    let cannot = |path: &Path| format!("--out: cannot write {}", path.display());
    let mut written = Vec::new();
    let as_it_came = match &frame.picture {
        Picture::Encoded(bytes) => {
            let format = image::guess_format(bytes).context("the frame is not a picture")?;
            let path = out.join("frame").with_extension(format.extensions_str()[0]);
            std::fs::write(&path, bytes).with_context(|| cannot(&path))?;
            path
        }
        picture @ (Picture::Rgb(_) | Picture::Raw(_)) => {
            let path = out.join("frame.png");
            let decoded = pixels(picture, limits, |_| None)?;
            decoded.image.save(&path).with_context(|| cannot(&path))?;
            path
        }
    };
    written.push(as_it_came);
    for (index, square) in view.squares().enumerate() {
        let name = if index == 0 { "seen.png".to_owned() } else { format!("seen-{index:02}.png") };
        let path = out.join(name);
        square.save(&path).with_context(|| cannot(&path))?;
        written.push(path);
    }
    if written.len() > 4 {
        written.drain(3..written.len() - 1);
    }
    Ok(written)
}
