//! Safetensors files in and out: eight bytes of length, a JSON header, the tensors one after the other.
//!
//! Promise: what was read has every tensor inside the file and of the size its shape says; floats come as f32, whichever
//! width they were stored in. The form: <https://huggingface.co/docs/safetensors>.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::HarnessError;

const METADATA: &str = "__metadata__";

/// A file in memory.
#[derive(Debug)]
pub struct Tensors {
    path: PathBuf,
    sha256: String,
    metadata: BTreeMap<String, String>,
    entries: BTreeMap<String, Entry>,
    data: Vec<u8>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: [usize; 2],
}

/// Rows of one width, one after the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Matrix {
    width: usize,
    values: Vec<f32>,
}

impl Matrix {
    /// Of values that are whole rows.
    pub fn new(width: usize, values: Vec<f32>) -> Self {
        debug_assert!(width > 0 && values.len().is_multiple_of(width));
        Self { width, values }
    }

    /// Of rows of one width.
    pub fn of_rows(width: usize, rows: impl IntoIterator<Item = impl AsRef<[f32]>>) -> Self {
        Self { width, values: rows.into_iter().flat_map(|row| row.as_ref().to_vec()).collect() }
    }

    /// Values a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.values.len().checked_div(self.width).unwrap_or(0)
    }

    /// No rows.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// One row.
    pub fn row(&self, at: usize) -> &[f32] {
        &self.values[at * self.width..(at + 1) * self.width]
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width.max(1))
    }

    /// These rows, in this order.
    pub fn select(&self, rows: &[usize]) -> Self {
        Self::of_rows(self.width, rows.iter().map(|row| self.row(*row)))
    }

    /// Every row brought to unit length; the place of the first that is not finite, or nothing, is the error.
    pub fn normalised(mut self) -> Result<Self, usize> {
        for (at, row) in self.values.chunks_exact_mut(self.width.max(1)).enumerate() {
            let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
            if !norm.is_normal() {
                return Err(at);
            }
            row.iter_mut().for_each(|value| *value /= norm);
        }
        Ok(self)
    }
}

/// A tensor to be written.
pub enum Tensor<'a> {
    /// Any rank; the shape's product is the number of values.
    F32(&'a [usize], &'a [f32]),
    /// Indices, one axis.
    I64(&'a [usize]),
}

impl Tensors {
    /// Reads a whole file.
    ///
    /// # Errors
    /// [`HarnessError::Read`], [`HarnessError::File`] when it is no safetensors file.
    pub fn read(path: &Path) -> Result<Self, HarnessError> {
        let bytes = std::fs::read(path).map_err(|source| HarnessError::Read { path: path.to_owned(), source })?;
        Self::parse(path, bytes).map_err(|reason| HarnessError::File { path: path.to_owned(), reason })
    }

    fn parse(path: &Path, bytes: Vec<u8>) -> Result<Self, String> {
        let not_one = || "is not a safetensors file; models/tools/reference.py makes one".to_owned();
        let sha256 = hex::encode(Sha256::digest(&bytes));
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(not_one)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| not_one())?;
        let (header, data) = rest.split_at_checked(length).ok_or_else(not_one)?;
        let mut header: BTreeMap<String, serde_json::Value> = serde_json::from_slice(header).map_err(|_| not_one())?;
        let text = |error: serde_json::Error| format!("its header is damaged: {error}");
        let metadata = header.remove(METADATA).map(serde_json::from_value).transpose().map_err(text)?;
        let mut entries = BTreeMap::new();
        for (name, value) in header {
            let entry: Entry = serde_json::from_value(value).map_err(text)?;
            let [start, end] = entry.data_offsets;
            let bytes = entry.shape.iter().try_fold(size_of_dtype(&entry.dtype), |size, axis| size.checked_mul(*axis));
            if start > end || end > data.len() || bytes != Some(end - start) {
                return Err(format!("tensor {name} is cut short or not of its shape; copy the file again"));
            }
            entries.insert(name, entry);
        }
        let data = data.to_vec();
        Ok(Self { path: path.to_owned(), sha256, metadata: metadata.unwrap_or_default(), entries, data })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its SHA-256, lower-case hex.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Its metadata.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// An entry of the metadata that is a JSON list; empty when it is not there.
    ///
    /// # Errors
    /// [`HarnessError::File`] when it is no list of strings.
    pub fn list(&self, key: &str) -> Result<Vec<String>, HarnessError> {
        let Some(text) = self.metadata.get(key) else { return Ok(Vec::new()) };
        serde_json::from_str(text).map_err(|error| self.error(format!("metadata {key} is no list of texts: {error}")))
    }

    /// An error about this file.
    pub fn error(&self, reason: impl Into<String>) -> HarnessError {
        HarnessError::File { path: self.path.clone(), reason: reason.into() }
    }

    /// Whether it has this tensor.
    pub fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    fn entry(&self, name: &str, axes: &str) -> Result<(&Entry, &[u8]), HarnessError> {
        let entry = self.entries.get(name).ok_or_else(|| self.error(format!("has no {name} {axes}")))?;
        Ok((entry, &self.data[entry.data_offsets[0]..entry.data_offsets[1]]))
    }

    /// A float tensor of two axes or more: one matrix for each step of the axes before the last two.
    ///
    /// # Errors
    /// [`HarnessError::File`] naming the tensor.
    pub fn matrices(&self, name: &str) -> Result<Vec<Matrix>, HarnessError> {
        let (entry, bytes) = self.entry(name, "[rows, width]")?;
        let values: Vec<f32> = match entry.dtype.as_str() {
            "F32" => bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
            "F64" => bytes.as_chunks::<8>().0.iter().map(|value| f64::from_le_bytes(*value) as f32).collect(),
            "F16" => bytes.as_chunks::<2>().0.iter().map(|value| f16::from_le_bytes(*value).to_f32()).collect(),
            "BF16" => bytes.as_chunks::<2>().0.iter().map(|value| bf16::from_le_bytes(*value).to_f32()).collect(),
            other => return Err(self.error(format!("{name} is of type {other}; floats are taken"))),
        };
        match entry.shape[..] {
            [.., rows, width] if rows * width > 0 => {
                Ok(values.chunks_exact(rows * width).map(|part| Matrix::new(width, part.to_vec())).collect())
            }
            _ => Err(self.error(format!("{name} has shape {:?}; [rows, width] is taken, both above 0", entry.shape))),
        }
    }

    /// An integer tensor of one axis, as indices below `limit`.
    ///
    /// # Errors
    /// [`HarnessError::File`] naming the tensor and the place.
    pub fn indices(&self, name: &str, limit: usize) -> Result<Vec<usize>, HarnessError> {
        let (entry, bytes) = self.entry(name, "[rows]")?;
        let values: Vec<i64> = match entry.dtype.as_str() {
            "I64" => bytes.as_chunks::<8>().0.iter().map(|value| i64::from_le_bytes(*value)).collect(),
            "I32" => bytes.as_chunks::<4>().0.iter().map(|value| i64::from(i32::from_le_bytes(*value))).collect(),
            other => return Err(self.error(format!("{name} is of type {other}; I64 or I32 is taken"))),
        };
        let index = |(at, value): (usize, i64)| {
            let value = usize::try_from(value).ok().filter(|index| *index < limit);
            value.ok_or_else(|| self.error(format!("{name}[{at}] is not below {limit}")))
        };
        values.into_iter().enumerate().map(index).collect()
    }
}

fn size_of_dtype(dtype: &str) -> usize {
    match dtype {
        "F64" | "I64" | "U64" => 8,
        "F32" | "I32" | "U32" => 4,
        "F16" | "BF16" | "I16" | "U16" => 2,
        _ => 1,
    }
}

/// Writes a file with these tensors.
///
/// # Errors
/// [`HarnessError::Write`] naming the file.
pub fn write(path: &Path, tensors: &[(&str, Tensor)], metadata: &BTreeMap<String, String>) -> Result<(), HarnessError> {
    let mut header = serde_json::Map::new();
    header.insert(METADATA.to_owned(), serde_json::json!(metadata));
    let mut data: Vec<u8> = Vec::new();
    for (name, tensor) in tensors {
        let start = data.len();
        let (dtype, shape) = match tensor {
            Tensor::F32(shape, values) => {
                data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
                ("F32", shape.to_vec())
            }
            Tensor::I64(values) => {
                data.extend(values.iter().flat_map(|value| (*value as i64).to_le_bytes()));
                ("I64", vec![values.len()])
            }
        };
        let entry = Entry { dtype: dtype.to_owned(), shape, data_offsets: [start, data.len()] };
        header.insert((*name).to_owned(), serde_json::json!(entry));
    }
    let mut header = serde_json::Value::Object(header).to_string().into_bytes();
    // The data begins at a multiple of eight, as the form asks.
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(data);
    std::fs::write(path, bytes).map_err(|source| HarnessError::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_file_survives_the_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        let metadata = BTreeMap::from([("files".to_owned(), r#"["a","b"]"#.to_owned())]);
        write(&path, &[("x", Tensor::F32(&[1, 3, 2], &values)), ("labels", Tensor::I64(&[2, 0]))], &metadata).unwrap();
        let read = Tensors::read(&path).unwrap();
        assert_eq!(read.matrices("x").unwrap(), [Matrix::new(2, values.to_vec())]);
        assert_eq!(read.indices("labels", 3).unwrap(), [2, 0]);
        assert_eq!(read.list("files").unwrap(), ["a", "b"]);
        assert!(read.indices("labels", 2).unwrap_err().to_string().contains("labels[0] is not below 2"));
        assert!(read.matrices("labels").unwrap_err().to_string().contains("I64"));
        assert!(read.matrices("y").unwrap_err().to_string().contains("has no y"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), length in 0u64..300) {
            let _ = Tensors::parse(Path::new("x"), bytes.clone());
            let _ = Tensors::parse(Path::new("x"), [&length.to_le_bytes()[..], &bytes].concat());
        }

        #[test]
        fn a_header_that_lies_is_refused(start in 0usize..40, end in 0usize..40, rows in 0usize..9) {
            let header = format!(
                r#"{{"x":{{"dtype":"F32","shape":[{rows},1],"data_offsets":[{start},{end}]}}}}"#
            );
            let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 32]].concat();
            let whole = start <= end && end <= 32 && end - start == rows * 4;
            prop_assert_eq!(Tensors::parse(Path::new("x"), bytes).is_ok(), whole);
        }
    }
}
