//! Packed weights on disk: for a quicker start, and for memory that the system may take back.
//!
//! One file for one kernel, mapped into memory, which is where the kernel reads it. In order: [`MAGIC`]; pieces that begin on
//! cache lines: for each weight its packed bytes, its columns' sums (`i32`) and its rooms, and the model in ONNX, in which a
//! node [`PACKED_WEIGHT`] with the scales alone stands for each of them; a [`Header`] in JSON that says where the pieces are;
//! its length (`u64`); the SHA-256 of all before. Numbers are little-endian.
//!
//! The file vouches for itself only against damage: who may write it may make it say anything, as with the bundle itself.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto};

use super::import::PACKED_WEIGHT;
use super::kernels::memory::Mapped;
use super::kernels::{Kernel, Layout};
use super::packed::{Inner, Packed};

/// The last digit is the form's: it changes with what this file or a panel says.
const MAGIC: &[u8; 8] = b"RCLIPPK3";
const LINE: usize = 64;
const SHA256: usize = 32;

/// What a file's weights are, and for whom: it serves only where all of it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    image_sha256: String,
    kernel: String,
    layout: Layout,
    version: String,
}

impl Key {
    /// For `kernel` and the `image.onnx` with this SHA-256.
    pub fn new(kernel: &Kernel, image_sha256: &str) -> Key {
        Key {
            image_sha256: image_sha256.to_owned(),
            kernel: kernel.name.to_owned(),
            layout: kernel.layout,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The file for them in a bundle's folder.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("image.{}.packed", self.kernel))
    }
}

/// Bytes of the file.
type Span = Range<usize>;

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    key: Key,
    model: Span,
    weights: BTreeMap<String, Weight>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Weight {
    inner: Inner,
    bytes: Span,
    sums: Span,
    rooms: Span,
}

/// An opened file.
#[derive(Debug)]
pub struct Store {
    file: Mapped,
    header: Header,
}

impl Store {
    /// Maps the file at `path`, if there is one.
    ///
    /// # Errors
    /// [`StoreError`], when it cannot be read, is damaged, or is not what `key` says.
    pub fn open(path: &Path, key: &Key) -> Result<Option<Store>, StoreError> {
        let read = |source| StoreError::Read { path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => Mapped::whole(&file).map_err(read)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        let damaged = || StoreError::Damaged { path: path.to_owned() };
        let other = || StoreError::Other { path: path.to_owned() };
        if file.bytes().first_chunk() != Some(MAGIC) && file.bytes().starts_with(&MAGIC[..MAGIC.len() - 1]) {
            return Err(other());
        }
        let header: Header =
            header(file.bytes()).and_then(|json| serde_json::from_slice(json).ok()).ok_or_else(damaged)?;
        if header.key != *key {
            return Err(other());
        }
        let (body, sha256) = file.bytes().split_at(file.bytes().len() - SHA256);
        if Sha256::digest(body)[..] != *sha256 {
            return Err(damaged());
        }
        Ok(Some(Store { file, header }))
    }

    /// The model that refers to the weights.
    ///
    /// # Errors
    /// When the file holds none, in words.
    pub fn model(&self) -> Result<ModelProto, String> {
        ModelProto::decode(self.span(&self.header.model)?.bytes()).map_err(|error| error.to_string())
    }

    /// The weight called `name`.
    ///
    /// # Errors
    /// When the file holds none such, in words.
    pub fn packed(&self, kernel: &Kernel, name: &str, inner: Inner, scale: &[f32]) -> Result<Packed, String> {
        let weight = self.header.weights.get(name).filter(|weight| weight.inner == inner);
        let Weight { bytes, sums, rooms, .. } = weight.ok_or_else(|| format!("{name}: no such packed weight"))?;
        let sums = self.span(sums)?;
        let sums = sums.bytes().as_chunks().0.iter().map(|sum| i32::from_le_bytes(*sum)).collect();
        Packed::restored(kernel, name, inner, scale, (self.span(bytes)?, sums, self.span(rooms)?.bytes()))
    }

    fn span(&self, span: &Span) -> Result<Mapped, String> {
        self.file.part(span.clone()).ok_or_else(|| "a packed weight beyond the file's end".to_owned())
    }
}

/// The header's JSON in a file's bytes.
fn header(file: &[u8]) -> Option<&[u8]> {
    let body = file.strip_prefix(MAGIC)?.split_last_chunk::<SHA256>()?.0;
    let (body, length) = body.split_last_chunk()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    body.get(body.len().checked_sub(length)?..)
}

/// Writes `weights`, which layers of `model` took from it, to `path`. A reader sees the file whole or not at all.
///
/// # Errors
/// [`StoreError::Write`].
pub fn write(path: &Path, key: &Key, mut model: ModelProto, weights: &[Arc<Packed>]) -> Result<(), StoreError> {
    let mut once: BTreeMap<&str, Option<&Packed>> = BTreeMap::new();
    for weight in weights {
        // One that two layers read in two ways stays in the model.
        once.entry(&weight.name).and_modify(|first| *first = None).or_insert(Some(weight));
    }
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|file| {
        let mut out = Out { to: BufWriter::new(file), digest: Sha256::new(), at: 0 };
        out.write(MAGIC)?;
        let mut header = Header { key: key.clone(), model: 0..0, weights: BTreeMap::new() };
        for weight in once.into_values().flatten() {
            let stripped = model.graph.as_mut().is_some_and(|graph| strip(graph, &weight.name));
            if stripped {
                header.weights.insert(weight.name.clone(), out.weight(weight)?);
            }
        }
        if let Some(graph) = &mut model.graph {
            drop_unused(graph);
        }
        header.model = out.piece(&model.encode_to_vec())?;
        out.finish(&header)
    });
    written.and_then(|()| std::fs::rename(&new, path)).map_err(|source| {
        // It is of no use to anyone; that it cannot be removed either is the lesser trouble.
        let _ = std::fs::remove_file(&new);
        StoreError::Write { path: path.to_owned(), source }
    })
}

/// Makes the node that dequantises the tensor called `name` refer to packed weights. False, and nothing done, where there is
/// none.
fn strip(graph: &mut GraphProto, name: &str) -> bool {
    let GraphProto { node, initializer, .. } = graph;
    let reads =
        |node: &&mut NodeProto| node.op_type == "DequantizeLinear" && node.input.len() > 1 && node.input[0] == name;
    let Some(node) = node.iter_mut().find(reads) else { return false };
    let Some(values) = initializer.iter().find(|tensor| tensor.name == name) else { return false };
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(1, |attribute| attribute.i);
    let axis = if axis < 0 { axis + values.dims.len() as i64 } else { axis };
    let attribute = |name: &str, kind: AttributeType| AttributeProto {
        name: name.to_owned(),
        r#type: kind as i32,
        ..Default::default()
    };
    let attributes = [
        AttributeProto { s: name.into(), ..attribute("tensor", AttributeType::String) },
        AttributeProto { i: axis, ..attribute("axis", AttributeType::Int) },
        AttributeProto { ints: values.dims.clone(), ..attribute("shape", AttributeType::Ints) },
    ];
    node.op_type = PACKED_WEIGHT.to_owned();
    node.input = vec![node.input[1].clone()];
    node.attribute = attributes.into();
    true
}

/// Drops constants that no node reads any more.
fn drop_unused(graph: &mut GraphProto) {
    let GraphProto { node, initializer, output, .. } = graph;
    let read: std::collections::HashSet<&String> =
        node.iter().flat_map(|node| &node.input).chain(output.iter().map(|output| &output.name)).collect();
    initializer.retain(|tensor| read.contains(&tensor.name));
}

/// A file being written.
struct Out {
    to: BufWriter<File>,
    digest: Sha256,
    at: usize,
}

impl Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.digest.update(bytes);
        self.at += bytes.len();
        self.to.write_all(bytes)
    }

    fn piece(&mut self, bytes: &[u8]) -> io::Result<Span> {
        self.write(&[0; LINE][..self.at.next_multiple_of(LINE) - self.at])?;
        let from = self.at;
        self.write(bytes)?;
        Ok(from..self.at)
    }

    fn weight(&mut self, weight: &Packed) -> io::Result<Weight> {
        let (bytes, sums, rooms) = weight.parts();
        let bytes: Vec<u8> = bytes.iter().map(|byte| byte.cast_unsigned()).collect();
        let sums: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
        Ok(Weight {
            inner: weight.inner,
            bytes: self.piece(&bytes)?,
            sums: self.piece(&sums)?,
            rooms: self.piece(&rooms)?,
        })
    }

    fn finish(mut self, header: &Header) -> io::Result<()> {
        let json = serde_json::to_vec(header)?;
        self.write(&json)?;
        self.write(&(json.len() as u64).to_le_bytes())?;
        let sha256 = self.digest.finalize();
        self.to.write_all(&sha256)?;
        self.to.into_inner()?.sync_all()
    }
}

/// Why packed weights cannot be used; `image.onnx` can all the same.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file could not be written.
    #[error(
        "cannot write {path}: {source}; packed weights lie beside image.onnx: copy the bundle to a folder that can be written"
    )]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is of another model, kernel or version.
    #[error(
        "{path} was packed from another image.onnx or by another version; `remoteclipd bundle pack` writes it anew"
    )]
    Other {
        /// The file.
        path: PathBuf,
    },
    /// The engine refused what is in the file.
    #[error("{path} cannot be loaded: {reason}; `remoteclipd bundle pack` writes it anew")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the engine said.
        reason: String,
    },
    /// The file is not as it was written.
    #[error("{path} is damaged; `remoteclipd bundle pack` writes it anew")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}
