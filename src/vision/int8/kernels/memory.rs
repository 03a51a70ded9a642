//! Gives the memory that loading took back to the system.
//!
//! While a model is loaded, its file, the parsed tensors and the packed weights exist side by side; glibc keeps what is
//! freed between blocks still in use, so that an 89 MB bundle would stay resident twice over.

/// Returns freed memory to the system, where the C library can.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "one call into the C library")]
pub fn trim() {
    unsafe extern "C" {
        fn malloc_trim(pad: usize) -> i32;
    }
    // SAFETY: the function is thread-safe, takes no pointer and touches only memory that nobody owns.
    unsafe { malloc_trim(0) };
}

/// Returns freed memory to the system, where the C library can; here it cannot.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn trim() {}
