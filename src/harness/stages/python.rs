//! `models/tools/stages.py` as a child process: Pillow's pixels and onnxruntime's arithmetic.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;

use image::RgbImage;
use serde::{Deserialize, Serialize};

use super::{Options, unit};
use crate::bundle::Bundle;

/// The stages that Python runs.
const NAMES: [&str; 4] = ["weights", "decode", "resize", "onnxruntime"];

/// A running tool, or why there is none.
pub(super) struct Python {
    running: Result<Running, String>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Reads what it complains about, so that it never waits for a reader.
    complaints: JoinHandle<String>,
    hello: Hello,
    vectors: Vec<Vec<Vec<f32>>>,
}

/// The tool's first line.
#[derive(Deserialize)]
struct Hello {
    stages: Vec<String>,
    absent: BTreeMap<String, String>,
    embed_dim: usize,
}

#[derive(Serialize)]
struct Request<'a> {
    path: &'a Path,
    width: u32,
    height: u32,
}

#[derive(Deserialize)]
struct Answer {
    error: Option<String>,
}

impl Python {
    /// Starts the tool.
    pub fn start(options: &Options, bundle: &Bundle) -> Self {
        Self { running: Running::start(options, bundle) }
    }

    /// Sends a picture and takes its vectors. The first trouble ends the tool, with its reason.
    pub fn picture(&mut self, path: &Path, decoded: &RgbImage, square: &RgbImage) {
        let Ok(running) = &mut self.running else { return };
        if let Err(reason) = running.picture(path, decoded, square)
            && let Ok(running) = std::mem::replace(&mut self.running, Err(String::new()))
        {
            self.running = Err(running.end(&reason));
        }
    }

    /// Every stage with its vectors or its reason.
    pub fn finish(self) -> BTreeMap<&'static str, Result<Vec<Vec<f32>>, String>> {
        let mut running = match self.running {
            Ok(running) => running,
            Err(reason) => return NAMES.iter().map(|name| (*name, Err(reason.clone()))).collect(),
        };
        let found = NAMES.iter().map(|name| {
            let place = running.hello.stages.iter().position(|stage| stage == name);
            let absent = || running.hello.absent.get(*name).cloned().unwrap_or_else(|| "not offered".to_owned());
            (*name, place.map(|place| std::mem::take(&mut running.vectors[place])).ok_or_else(absent))
        });
        let found = found.collect();
        running.end("done");
        found
    }
}

impl Running {
    fn start(options: &Options, bundle: &Bundle) -> Result<Self, String> {
        if !options.tool.exists() {
            return Err(format!("no {}; run from the repository", options.tool.display()));
        }
        let mut child = Command::new(&options.python)
            .arg(&options.tool)
            .arg("--bundle")
            .arg(bundle.folder())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error} (--stages-python)", options.python.display()))?;
        let (Some(input), Some(output), Some(mut complaints)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err("its pipes cannot be had".to_owned());
        };
        let complaints = std::thread::spawn(move || {
            let mut said = Vec::new();
            // What was read until an error is all there is to tell.
            let _ = complaints.read_to_end(&mut said);
            String::from_utf8_lossy(&said).into_owned()
        });
        let hello = Hello { stages: Vec::new(), absent: BTreeMap::new(), embed_dim: 0 };
        let mut running = Self { child, input, output: BufReader::new(output), complaints, hello, vectors: Vec::new() };
        match running.line() {
            Ok(hello) => running.hello = hello,
            Err(reason) => return Err(running.end(&reason)),
        }
        running.vectors = vec![Vec::new(); running.hello.stages.len()];
        Ok(running)
    }

    fn picture(&mut self, path: &Path, decoded: &RgbImage, square: &RgbImage) -> Result<(), String> {
        let request = Request { path, width: decoded.width(), height: decoded.height() };
        let mut sent = serde_json::to_vec(&request).map_err(|error| error.to_string())?;
        sent.push(b'\n');
        for part in [&sent[..], decoded.as_raw(), square.as_raw()] {
            self.input.write_all(part).map_err(|error| error.to_string())?;
        }
        self.input.flush().map_err(|error| error.to_string())?;
        if let Answer { error: Some(reason) } = self.line()? {
            return Err(format!("Pillow on {}: {reason}", path.display()));
        }
        for vectors in &mut self.vectors {
            let mut bytes = vec![0; self.hello.embed_dim * 4];
            self.output.read_exact(&mut bytes).map_err(|error| error.to_string())?;
            vectors.push(unit(bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()));
        }
        Ok(())
    }

    fn line<T: for<'a> Deserialize<'a>>(&mut self) -> Result<T, String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(|error| error.to_string())?;
        match line.is_empty() {
            true => Err("it ended".to_owned()),
            false => serde_json::from_str(&line).map_err(|error| error.to_string()),
        }
    }

    /// Ends the tool; gives its last complaint, or `reason` where it had none.
    fn end(self, reason: &str) -> String {
        let Self { mut child, input, output, complaints, .. } = self;
        drop((input, output));
        // It ends when its input does; if it does not, the reason is all that matters.
        let _ = child.wait();
        let said = complaints.join().unwrap_or_default();
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or(reason);
        match last.contains("ModuleNotFoundError") {
            true => format!("{last}; pip install -r models/tools/requirements-light.txt, and --stages-python"),
            false => last.to_owned(),
        }
    }
}
