//! Sums that come out the same on every kernel with fused multiply and add, to the last bit.
//!
//! A sum of floats depends on its order, and one that differs in its last bit moves an activation to the next level now and then: twelve
//! layers of a transformer later the embeddings of two kernels were as far apart as int8 is from f32. So values are added in the same
//! lanes, whatever a register holds of them, and lanes in the same pairs.

use crate::vision::int8::kernels::vector::Vector;

/// Most lanes, and so most registers: where a register is one value.
pub const MOST: usize = 64;

/// The sum of as many registers, a power of two, which together hold the lanes in order: halves are added until one lane is left.
#[inline(always)]
pub fn total<V: Vector>(mut sums: [V; MOST], registers: usize) -> f32 {
    let mut half = registers / 2;
    while half > 0 {
        for i in 0..half {
            sums[i] = sums[i].add(sums[half + i]);
        }
        half /= 2;
    }
    sums[0].total()
}
