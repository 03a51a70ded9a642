//! The same pictures through another build of this program: `classify --json --embedding`, started by a launcher such as
//! `qemu-aarch64-static` or `ssh BOARD`, which must see the same paths.

use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::unit;
use crate::bundle::Bundle;
use crate::harness::dataset::DataSet;

/// Pictures of one start of the program.
const TOGETHER: usize = 64;

/// Another program and what starts it.
#[derive(Debug, Clone)]
pub struct Emulated {
    /// The program.
    pub program: PathBuf,
    /// What stands before it: a command and its arguments, parted by blanks; nothing for a program that runs as it is.
    pub runner: String,
}

impl Emulated {
    /// Unit vectors of the pictures, or what went wrong.
    pub(super) fn run(&self, bundle: &Bundle, data: &DataSet, pictures: &[usize]) -> Result<Vec<Vec<f32>>, String> {
        let folder = bundle.folder().canonicalize().map_err(|error| error.to_string())?;
        let mut vectors = Vec::new();
        for pictures in pictures.chunks(TOGETHER) {
            let mut command = self.command();
            command.args(["classify", "--json", "--embedding", "--top", "1", "--bundle"]).arg(&folder);
            for picture in pictures {
                command.arg(data.path(*picture).canonicalize().map_err(|error| error.to_string())?);
            }
            let output = command.output().map_err(|error| format!("{}: {error}", self.named()))?;
            let said = String::from_utf8_lossy(&output.stderr);
            if !output.status.success() {
                let last = said.lines().last().unwrap_or("no reason").to_owned();
                return Err(format!("{} ended with {}: {last}", self.named(), output.status));
            }
            let lines = String::from_utf8_lossy(&output.stdout);
            let found = lines.lines().map(vector).collect::<Option<Vec<_>>>();
            match found.filter(|found| found.len() == pictures.len()) {
                Some(found) => vectors.extend(found),
                None => return Err(format!("{} did not give an embedding for each picture", self.named())),
            }
        }
        Ok(vectors)
    }

    fn command(&self) -> Command {
        let mut words = self.runner.split_whitespace();
        match words.next() {
            None => Command::new(&self.program),
            Some(first) => {
                let mut command = Command::new(first);
                command.args(words).arg(&self.program);
                command
            }
        }
    }

    fn named(&self) -> String {
        format!("{} {}", self.runner, self.program.display()).trim().to_owned()
    }
}

fn vector(line: &str) -> Option<Vec<f32>> {
    let line: Value = serde_json::from_str(line).ok()?;
    let values = line["embedding"].as_array()?;
    Some(unit(values.iter().map(|value| value.as_f64().map(|value| value as f32)).collect::<Option<_>>()?))
}
