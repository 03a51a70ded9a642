//! `remoteclipd prompts compile` and `keygen`: the ground side of re-tasking a vehicle in flight.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use minisign::{KeyPair, SecretKeyBox};

use crate::cli::model::BundleArgs;
use crate::prompts::pack::Pack;
use crate::prompts::set::PromptSet;
use crate::prompts::signed::trusted_comment;
use crate::prompts::text::TextTower;

/// Holds the password of an encrypted signing key.
const PASSWORD: &str = "REMOTECLIPD_KEY_PASSWORD";

/// Options of `prompts compile`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// Prompt set, as docs/reference/prompts.md describes it
    set: PathBuf,
    /// Where the pack goes
    #[arg(long, value_name = "PACK")]
    out: PathBuf,
    /// minisign secret key to sign with: writes PACK.minisig, and PACK.json to be published on …/cmd/prompts
    #[arg(long, value_name = "KEY")]
    sign: Option<PathBuf>,
    /// Serial number; a vehicle takes only larger ones than it had. The time in seconds when left out
    #[arg(long, value_name = "N", requires = "sign", value_parser = clap::value_parser!(u64).range(1..))]
    serial: Option<u64>,
    #[command(flatten)]
    bundle: BundleArgs,
}

/// Options of `prompts keygen`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct KeygenArgs {
    /// Where the secret key goes; the public one goes beside it, with .pub
    #[arg(long, value_name = "KEY")]
    out: PathBuf,
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let set = PromptSet::read(&args.set)?;
    let tower = TextTower::load(&args.bundle.open()?)?;
    for word in tower.unknown_words(&set) {
        eprintln!("the model never saw the word \"{word}\"; a prompt that rests on it means nothing");
    }
    let pack = tower.compile(&set)?;
    let bytes = pack.to_bytes()?;
    write(&args.out, &bytes)?;
    println!("{}: prompt set {} with {} labels", args.out.display(), set.name, set.labels.len());
    if let Some(key) = &args.sign {
        sign(args, key, &pack, &bytes)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn sign(args: &Args, key: &Path, pack: &Pack, bytes: &[u8]) -> anyhow::Result<()> {
    let serial = match args.serial {
        Some(serial) => serial,
        None => u64::try_from(jiff::Timestamp::now().as_second()).context("this machine's clock stands before 1970")?,
    };
    let text = fs::read_to_string(key).with_context(|| format!("cannot read key {}", key.display()))?;
    let boxed = SecretKeyBox::from_string(&text).with_context(|| format!("{} is no minisign key", key.display()))?;
    let secret = match std::env::var(PASSWORD) {
        Ok(password) => boxed.into_secret_key(Some(password)),
        Err(_) => boxed.into_unencrypted_secret_key(),
    };
    let secret = secret.with_context(|| {
        format!("{} cannot be used; an encrypted key needs its password in {PASSWORD}", key.display())
    })?;
    let comment = trusted_comment(serial, &pack.header().set);
    let signature = minisign::sign(None, &secret, bytes, Some(&comment), None)?.to_string();
    let request = serde_json::json!({
        "id": format!("prompts-{serial}"), "pack": STANDARD.encode(bytes), "signature": signature
    });
    for (suffix, content) in [("minisig", signature.clone()), ("json", request.to_string())] {
        let path = PathBuf::from(format!("{}.{suffix}", args.out.display()));
        write(&path, content.as_bytes())?;
        println!("{}", path.display());
    }
    println!("signed with serial {serial}; publish the .json on <root>/v1/<vehicle>/cmd/prompts, not retained");
    Ok(())
}

pub(super) fn keygen(args: &KeygenArgs) -> anyhow::Result<ExitCode> {
    let pair = match std::env::var(PASSWORD) {
        Ok(password) => KeyPair::generate_encrypted_keypair(Some(password))?,
        Err(_) => KeyPair::generate_unencrypted_keypair()?,
    };
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&args.out)
        .with_context(|| format!("cannot make key {} (it must not exist yet)", args.out.display()))?;
    file.write_all(&pair.sk.to_box(None)?.to_bytes())?;
    write(&PathBuf::from(format!("{}.pub", args.out.display())), &pair.pk.to_box()?.to_bytes())?;
    println!("public_key = \"{}\"", pair.pk.to_base64());
    Ok(ExitCode::SUCCESS)
}

fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}
