//! Embeds the prompt set with the bundle's text tower, so that what flies carries no text model.
//!
//! `REMOTECLIPD_PROMPTS` names the set (default `config/prompts/default.toml`), `REMOTECLIPD_BUNDLE` the bundle (default
//! `models/default`). Runs again only when one of them, or what it names, changes.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

// The daemon's own rooms, so that build time and run time can't come to differ. What only the daemon calls is unused here.
#[allow(dead_code, unused_imports)]
#[path = "src/bundle/mod.rs"]
mod bundle;
#[allow(dead_code)]
#[path = "src/prompts"]
mod prompts {
    pub mod pack;
    pub mod set;
    pub mod text;
}

use bundle::{Bundle, MANIFEST, TEXT_ONNX, TOKENIZER, VOCABULARY};
use prompts::set::PromptSet;
use prompts::text::TextTower;

fn main() -> ExitCode {
    let set = chosen("REMOTECLIPD_PROMPTS", "config/prompts/default.toml");
    let folder = chosen("REMOTECLIPD_BUNDLE", "models/default");
    println!("cargo::rerun-if-changed={}", set.display());
    // Cargo takes a file that is not there for a changed one, and a vocabulary is optional.
    for path in
        [MANIFEST, TEXT_ONNX, TOKENIZER, VOCABULARY].map(|name| folder.join(name)).iter().filter(|path| path.exists())
    {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    match compile(&set, &folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error=prompts: {sentence}");
            ExitCode::FAILURE
        }
    }
}

fn chosen(variable: &str, default: &str) -> PathBuf {
    println!("cargo::rerun-if-env-changed={variable}");
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

fn compile(set: &Path, folder: &Path) -> Result<(), String> {
    let set = PromptSet::read(set).map_err(|error| error.to_string())?;
    let tower = Bundle::open(folder)
        .map_err(|error| error.to_string())
        .and_then(|bundle| TextTower::load(&bundle).map_err(|error| error.to_string()))?;
    for word in tower.unknown_words(&set) {
        println!(
            "cargo::warning=prompt set \"{}\": the model never saw the word \"{word}\"; a prompt that rests on it means nothing",
            set.name
        );
    }
    let pack = tower.compile(&set).and_then(|pack| Ok(pack.to_bytes()?)).map_err(|error| error.to_string())?;
    let out = std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set; build with cargo")?;
    let path = Path::new(&out).join("prompts.pack");
    std::fs::write(&path, pack).map_err(|error| format!("cannot write {}: {error}", path.display()))
}
