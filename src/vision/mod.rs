//! Frame → embedding: decode, resize, crop, encode, normalise.
//!
//! Promise: an embedding that comes out is finite and of unit length; a picture that cannot become one is a
//! [`VisionError`] that names the cause, within bounds on bytes, pixels and memory that hold before anything is decoded.

mod decode;
mod encoder;
pub mod golden;
pub mod int8;
mod preprocess;
mod similar;
mod tiles;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use image::RgbImage;

use crate::bundle::{Bundle, BundleError, IMAGE_ONNX};
use crate::camera::Picture;

use decode::pixels_by;
pub use decode::{DecodeError, Decoded, Limits, decode, decode_for, pixels};
pub use encoder::{Encoder, EncoderError, EncoderOptions, InputSpec};
pub use preprocess::{PreprocessError, Preprocessor};
pub use similar::{Similar, SimilarOptions};
pub use tiles::{Area, Cut, Tiling};

/// The image side of a bundle, ready for frames.
pub struct Vision {
    limits: Limits,
    preprocessor: Preprocessor,
    encoder: Encoder,
}

/// An embedded frame.
#[derive(Debug, Clone)]
pub struct Embedded {
    /// The unit vector, of the bundle's `embed_dim`.
    pub vector: Vec<f32>,
    /// How long each stage took.
    pub timings: Timings,
}

/// What the model is to see of a frame: the whole of it and, where that is wanted, its tiles.
pub struct View {
    /// Squares of the model's size, row-major RGB, one after the other.
    squares: Vec<u8>,
    /// The part of the frame that each square shows; of the whole frame, the square in its middle.
    pub areas: Vec<Area>,
    /// Width and height of the upright frame.
    pub frame: (u32, u32),
    /// Width and height of a square.
    size: usize,
    /// Decoding and resizing.
    timings: Timings,
}

impl View {
    /// The squares as pictures, in the order of their areas.
    pub fn squares(&self) -> impl Iterator<Item = RgbImage> {
        let side = self.size as u32;
        self.squares.chunks_exact(self.size * self.size * 3).filter_map(move |square| {
            RgbImage::from_raw(side, side, square.to_vec()) // always as long as it must be
        })
    }

    /// The mean brightness, 0 to 255, of `cells` × `cells` cells of each square, row by row (luma of ITU-R BT.601).
    fn brightness(&self, cells: usize) -> Vec<f64> {
        let mut means = Vec::new();
        for square in self.squares.chunks_exact(self.size * self.size * 3) {
            let mut sums = vec![(0.0, 0u32); cells * cells];
            for (at, pixel) in square.as_chunks::<3>().0.iter().enumerate() {
                let (x, y) = (at % self.size * cells / self.size, at / self.size * cells / self.size);
                let [red, green, blue] = pixel.map(f64::from);
                let (sum, count) = &mut sums[y * cells + x];
                *sum += 0.299 * red + 0.587 * green + 0.114 * blue;
                *count += 1;
            }
            means.extend(sums.iter().map(|(sum, count)| sum / f64::from((*count).max(1))));
        }
        means
    }
}

/// Time spent on one frame, by stage.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Bytes to upright pixels; next to nothing for a frame that came as such.
    pub decode: Duration,
    /// Pixels to the model's square.
    pub resize: Duration,
    /// The square to the unit vector.
    pub encode: Duration,
}

impl Vision {
    /// Loads the verified image tower of a bundle: its packed weights, where [`Vision::pack`] has written them, else
    /// `image.onnx`. Packed weights that cannot be used are told of in the log and left aside.
    ///
    /// # Errors
    /// [`VisionError`] naming the file.
    pub fn load(bundle: &Bundle, limits: Limits, options: &EncoderOptions) -> Result<Self, VisionError> {
        let image = &bundle.manifest().image;
        let input = input(bundle);
        let packed = match Encoder::load_packed(bundle.folder(), bundle.image_sha256(), &input, options) {
            Err(EncoderError::Store(error)) => {
                log::warn!("{error}; image.onnx is loaded instead");
                None
            }
            packed => packed?,
        };
        let encoder = match packed {
            Some(encoder) => encoder,
            None => Encoder::load(&bundle.verified(IMAGE_ONNX)?, &input, options)?,
        };
        if encoder.embed_dim() != bundle.manifest().model.embed_dim {
            return Err(VisionError::Width { found: encoder.embed_dim(), stated: bundle.manifest().model.embed_dim });
        }
        Ok(Self { limits, preprocessor: Preprocessor::new(image.size, image.resize), encoder })
    }

    /// Writes a bundle's weights beside its verified image tower, as this machine's kernel reads them; the file's path. From
    /// then on [`Vision::load`] maps that file: it starts quicker, with less memory.
    ///
    /// # Errors
    /// [`VisionError`] naming the file.
    pub fn pack(bundle: &Bundle, options: &EncoderOptions) -> Result<PathBuf, VisionError> {
        let onnx = bundle.verified(IMAGE_ONNX)?;
        Ok(Encoder::pack(&onnx, bundle.image_sha256(), &input(bundle), options, bundle.folder())?)
    }

    /// Embeds one picture.
    ///
    /// # Errors
    /// [`VisionError::Decode`] for a picture that is broken or beyond the limits; the rest means a damaged model.
    pub fn embed(&mut self, picture: &Picture) -> Result<Embedded, VisionError> {
        let (vectors, timings) = self.embed_batch(std::slice::from_ref(picture))?;
        Ok(Embedded { vector: vectors.into_iter().next().ok_or(VisionError::NotFinite)?, timings })
    }

    /// Embeds at most [`EncoderOptions::batch`] pictures in one pass of the tower; the timings are the batch's.
    ///
    /// # Errors
    /// As [`Vision::embed`]; one broken picture fails its batch.
    pub fn embed_batch(&mut self, pictures: &[Picture]) -> Result<(Vec<Vec<f32>>, Timings), VisionError> {
        let size = self.preprocessor.size() as usize;
        let mut all = View { squares: Vec::new(), areas: Vec::new(), frame: (0, 0), size, timings: Timings::default() };
        for picture in pictures {
            let view = self.look(picture, None)?;
            all.squares.extend(view.squares);
            all.areas.extend(view.areas);
            all.timings.decode += view.timings.decode;
            all.timings.resize += view.timings.resize;
        }
        self.embed_view(all)
    }

    /// Pixels on a side of the square that the model sees.
    pub fn square(&self) -> u32 {
        self.preprocessor.size()
    }

    /// Decodes a picture and cuts out what the model is to see: the whole, as CLIP sees it, and then the tiles.
    ///
    /// # Errors
    /// [`VisionError::Decode`] for a picture that is broken or beyond the limits, [`VisionError::Preprocess`] for one of
    /// an impossible shape.
    pub fn look(&mut self, picture: &Picture, tiling: Option<&Tiling>) -> Result<View, VisionError> {
        let started = Instant::now();
        let size = self.preprocessor.size();
        let needed = |frame| Some(tiling.map_or(size, |tiling| tiling.least_side(frame, size)));
        let decoded = pixels_by(self.encoder.pool(), picture, &self.limits, needed)?;
        let decode = started.elapsed();
        let mut squares = self.preprocessor.square(&decoded)?.into_raw();
        let mut areas = vec![Area::centre(decoded.full)];
        for area in tiling.map(|tiling| tiling.areas(decoded.full)).unwrap_or_default() {
            squares.extend(self.preprocessor.part(&decoded, &area)?.as_raw());
            areas.push(area);
        }
        let resize = started.elapsed() - decode;
        let timings = Timings { decode, resize, encode: Duration::ZERO };
        Ok(View { squares, areas, frame: decoded.full, size: size as usize, timings })
    }

    /// Embeds the squares of a view in one pass of the tower, a vector each; the timings are those of the whole way.
    ///
    /// # Errors
    /// [`VisionError::Encoder`] for more squares than [`EncoderOptions::batch`]; the rest means a damaged model.
    pub fn embed_view(&mut self, view: View) -> Result<(Vec<Vec<f32>>, Timings), VisionError> {
        let View { mut squares, areas, mut timings, .. } = view;
        let started = Instant::now();
        // The plan's shape is fixed: places that nothing takes are run empty.
        squares.resize(squares.len().max(self.encoder.input_len()), 0);
        let embeddings = self.encoder.encode(&squares)?;
        let rows = embeddings.chunks_exact(self.encoder.embed_dim()).take(areas.len());
        let vectors = rows.map(|row| unit(row.to_vec())).collect::<Result<_, _>>()?;
        timings.encode = started.elapsed();
        Ok((vectors, timings))
    }

    /// The image tower itself.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }
}

/// What a bundle's image tower expects.
fn input(bundle: &Bundle) -> InputSpec {
    let image = &bundle.manifest().image;
    InputSpec { size: image.size as usize, mean: image.mean, std: image.std }
}

fn unit(mut vector: Vec<f32>) -> Result<Vec<f32>, VisionError> {
    let norm = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if !norm.is_normal() {
        return Err(VisionError::NotFinite);
    }
    vector.iter_mut().for_each(|value| *value /= norm);
    Ok(vector)
}

/// Why a frame has no embedding.
#[derive(Debug, thiserror::Error)]
pub enum VisionError {
    /// The bundle's image tower is missing or altered.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The picture cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The picture cannot be brought to the model's size.
    #[error(transparent)]
    Preprocess(#[from] PreprocessError),
    /// The image tower cannot be loaded or run.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// The tower's output is not as wide as the manifest says.
    #[error("image.onnx gives {found} values, its manifest says embed_dim = {stated}; re-export the bundle")]
    Width {
        /// Values found.
        found: usize,
        /// Values stated.
        stated: usize,
    },
    /// NaN, infinity or nothing came out.
    #[error("the image tower's output is not finite; the bundle is damaged (remoteclipd check)")]
    NotFinite,
}
