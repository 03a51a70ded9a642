//! Prompt packs that come over the air: signed with minisign (Ed25519 over BLAKE2b-512, `https://jedisct1.github.io/minisign`).
//!
//! The signature's trusted comment, itself signed, carries a serial number that grows from pack to pack, so that an old
//! pack recorded on the link cannot be played again.

use minisign_verify::{PublicKey, Signature};

use super::pack::{Pack, PackError};

/// Begins the serial number in the trusted comment.
const SERIAL: &str = "remoteclip-prompts serial:";

/// A pack whose signature is good.
#[derive(Debug, Clone)]
pub struct SignedPack {
    /// The pack.
    pub pack: Pack,
    /// Larger is newer.
    pub serial: u64,
}

impl SignedPack {
    /// Checks the signature, then reads the pack.
    ///
    /// # Errors
    /// [`SignedError`] saying what is wrong; nothing of an unsigned pack is read.
    pub fn verify(bytes: &[u8], signature: &str, key: &PublicKey) -> Result<Self, SignedError> {
        let signature = Signature::decode(signature).map_err(|_| SignedError::NotASignature)?;
        key.verify(bytes, &signature, false).map_err(|_| SignedError::OtherKey)?;
        let serial =
            signature.trusted_comment().strip_prefix(SERIAL).and_then(|rest| rest.split(' ').next()?.parse().ok());
        Ok(Self { serial: serial.ok_or(SignedError::NoSerial)?, pack: Pack::from_bytes(bytes)? })
    }
}

/// The trusted comment to sign a pack with.
pub fn trusted_comment(serial: u64, set: &str) -> String {
    // One line, whatever the set is called.
    let set: String = set.chars().filter(|character| !character.is_control()).collect();
    format!("{SERIAL}{serial} set:{set}")
}

/// Why a signed pack is refused.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The signature's text.
    #[error("the signature is not one of minisign (four lines, the first an untrusted comment)")]
    NotASignature,
    /// The signature does not fit.
    #[error("the signature is not by commands.public_key, or the pack was altered after signing")]
    OtherKey,
    /// Signed by the right key, for something else.
    #[error("the signature carries no serial number; sign with `remoteclipd prompts compile --sign`")]
    NoSerial,
    /// The pack itself.
    #[error(transparent)]
    Pack(#[from] PackError),
}
