//! Two slots for bundles, A and B, and the link that says which one flies.
//!
//! ```text
//! bundles/a/  bundles/b/  bundles/current -> a
//! ```
//!
//! Promise: [`Slots::fill`] never touches the slot that flies, and [`Slots::switch`] is one rename: whenever power fails,
//! `current` names a whole bundle. Whoever is configured with `bundles/current` finds the other slot with [`fallback`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::{Bundle, BundleError, IMAGE_ONNX, MANIFEST};

const NAMES: [&str; 2] = ["a", "b"];
const CURRENT: &str = "current";

/// A folder with two slots.
#[derive(Debug, Clone)]
pub struct Slots {
    folder: PathBuf,
}

impl Slots {
    /// The slots in `folder`, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The path for `vision.bundle`: the link to the slot that flies.
    pub fn current(&self) -> PathBuf {
        self.folder.join(CURRENT)
    }

    /// The slot that does not fly.
    pub fn idle(&self) -> PathBuf {
        let flying = fs::read_link(self.current()).unwrap_or_default();
        let name = if flying == Path::new(NAMES[0]) { NAMES[1] } else { NAMES[0] };
        self.folder.join(name)
    }

    /// Copies what the image side of `bundle` needs, and `extra` files where it has them, into the idle slot, and opens it
    /// there. Every listed file is verified at its new place.
    ///
    /// # Errors
    /// [`BundleError::Write`] when it cannot be copied; as [`Bundle::open`] and [`Bundle::verified`].
    pub fn fill(&self, bundle: &Bundle, extra: &[&str]) -> Result<Bundle, BundleError> {
        let slot = self.idle();
        let failed = |source| BundleError::Write { path: slot.clone(), source };
        match fs::remove_dir_all(&slot) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => fs::create_dir_all(&slot).map_err(failed)?,
        }
        let names =
            [MANIFEST, IMAGE_ONNX].iter().chain(extra.iter().filter(|name| bundle.folder().join(name).exists()));
        for name in names {
            let to = slot.join(name);
            fs::copy(bundle.folder().join(name), &to).map_err(failed)?;
            // On the medium before the link may point to it.
            fs::File::open(&to).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        let copy = Bundle::open(&slot)?;
        copy.verified(IMAGE_ONNX)?;
        Ok(copy)
    }

    /// Lets the idle slot fly, or, called again, the one before; its path.
    ///
    /// # Errors
    /// [`BundleError::Read`] when the idle slot holds no bundle, [`BundleError::Write`] when the link cannot be made.
    pub fn switch(&self) -> Result<PathBuf, BundleError> {
        let slot = self.idle();
        Bundle::open(&slot)?.verified(IMAGE_ONNX)?;
        let link = self.current();
        let failed = |source| BundleError::Write { path: link.clone(), source };
        let new = self.folder.join(".next");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        std::os::unix::fs::symlink(slot.file_name().unwrap_or_default(), &new).map_err(failed)?;
        fs::rename(&new, &link).map_err(failed)?;
        fs::File::open(&self.folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        Ok(slot)
    }
}

/// The slot to fall back on when the bundle at `path` cannot be used: only where `path` is a `current` link and the other
/// slot holds a bundle.
pub fn fallback(path: &Path) -> Option<PathBuf> {
    is_current(path).then(|| Slots::new(path.parent().unwrap_or(Path::new("."))).idle()).filter(|slot| slot.exists())
}

/// Whether `path` is the link of a pair of slots.
pub fn is_current(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == CURRENT)
        && fs::read_link(path).is_ok_and(|slot| NAMES.iter().any(|name| slot == Path::new(name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::manifest;

    fn bundle(name: &str) -> (tempfile::TempDir, Bundle) {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(IMAGE_ONNX), b"model").unwrap();
        let text = manifest::tests::GOOD.replace("name = \"tiny\"", &format!("name = \"{name}\""));
        fs::write(folder.path().join(MANIFEST), text).unwrap();
        let bundle = Bundle::open(folder.path()).unwrap();
        (folder, bundle)
    }

    fn flying(slots: &Slots) -> String {
        Bundle::open(slots.current()).unwrap().manifest().name.clone()
    }

    #[test]
    fn bundles_take_turns_and_the_one_before_can_be_had_back() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::new(folder.path().join("bundles"));
        assert_eq!(fallback(&slots.current()), None);
        let ((_one, one), (_two, two)) = (bundle("one"), bundle("two"));
        slots.fill(&one, &[]).unwrap();
        assert!(!slots.current().exists(), "nothing flies before the switch");
        slots.switch().unwrap();
        assert_eq!(flying(&slots), "one");
        assert_eq!(fallback(&slots.current()), None, "there is one bundle only");
        slots.fill(&two, &["golden.json"]).unwrap();
        assert_eq!(flying(&slots), "one");
        slots.switch().unwrap();
        assert_eq!(flying(&slots), "two");
        assert_eq!(Bundle::open(fallback(&slots.current()).unwrap()).unwrap().manifest().name, "one");
        slots.switch().unwrap();
        assert_eq!(flying(&slots), "one");
    }

    #[test]
    fn a_damaged_bundle_does_not_fly() {
        let folder = tempfile::tempdir().unwrap();
        let slots = Slots::new(folder.path());
        let (source, one) = bundle("one");
        slots.fill(&one, &[]).unwrap();
        slots.switch().unwrap();
        fs::write(source.path().join(IMAGE_ONNX), b"m0del").unwrap();
        assert!(matches!(slots.fill(&one, &[]), Err(BundleError::Changed { .. })));
        assert!(matches!(slots.switch(), Err(BundleError::Changed { .. })));
        assert_eq!(flying(&slots), "one");
    }

    #[test]
    fn a_plain_folder_has_no_fallback() {
        let (folder, _) = bundle("one");
        assert!(!is_current(folder.path()) && fallback(folder.path()).is_none());
    }
}
