//! Whether the wall clock can be believed. Many boards have no battery behind theirs.

use std::path::Path;

/// systemd-timesyncd creates this file once it has set the clock, and after every boot it is absent until then.
const SYNCHRONISED: &str = "/run/systemd/timesync/synchronized";

/// True only when something vouches for the clock; false means "not known", not "wrong".
pub(super) fn synced() -> bool {
    Path::new(SYNCHRONISED).exists()
}
