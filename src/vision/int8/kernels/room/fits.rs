//! How many products with signed activations a panel lets a kernel add in 16 bits.
//!
//! A kernel without a dot product adds products in 16 bits first, which is cheaper than 32 the more of them go in. Two
//! products of bytes fit, but for -128 · -128; four fit where the weights are small enough, as nearly all of a trained
//! layer's are: their scale is that of the largest one in a whole column.

/// How many products of a pair of steps may be added in 16 bits: as far as the absolute weights sum up to 255, since an
/// activation byte is at least -128 and 255 · 128 < 2¹⁵.
pub type Fit = u8;
/// Any four that one lane adds.
pub const FOUR: Fit = 0;
/// Any two.
pub const TWO: Fit = 1;
/// No two: there is a -128 among them.
pub const ONE: Fit = 2;
/// Behind a segment's last pair.
pub const END: Fit = 3;

/// Consecutive `k` of one column that fill a register.
const DEPTH: usize = 16;
/// Lanes that a register's products are added in: the lower eight `k` and the upper eight.
const LANES: usize = 8;

/// Of each segment one for each pair of steps, then [`END`], then that of the last step where the steps are odd in number:
/// kernels rely on that form. The panel is `[segment][step][column][16]`.
pub(super) fn of(panel: &[i8], columns: usize, (segments, steps): (usize, usize)) -> Vec<Fit> {
    let mut fits = Vec::with_capacity(len(segments, steps));
    for segment in panel.chunks_exact(steps * columns * DEPTH).take(segments) {
        let pairs = segment.chunks_exact(2 * columns * DEPTH);
        let last = pairs.remainder();
        fits.extend(pairs.map(|pair| pair.split_at(columns * DEPTH)).map(|(first, second)| fit(first, second)));
        fits.push(END);
        if !last.is_empty() {
            fits.push(fit(last, &[]));
        }
    }
    fits
}

/// Those of one segment whose weights are any but -128.
pub(super) fn of_any(steps: usize) -> Vec<Fit> {
    let mut fits = vec![TWO; steps / 2];
    fits.push(END);
    // Its lanes have no more than two to add.
    fits.extend(vec![FOUR; steps % 2]);
    fits
}

/// How many there are.
pub(super) fn len(segments: usize, steps: usize) -> usize {
    segments * (steps.div_ceil(2) + 1)
}

/// Whether they are in the form that kernels rely on.
pub(super) fn are_sound(fits: &[Fit], steps: usize) -> bool {
    let sound = |fits: &[Fit]| {
        let (pairs, rest) = fits.split_at(steps / 2);
        pairs.iter().all(|fit| *fit < END) && rest[0] == END && rest[1..].iter().all(|fit| *fit < END)
    };
    fits.chunks_exact(len(1, steps)).all(sound)
}

/// The fit of `steps`, one or two of them for all columns.
fn fit(first: &[i8], second: &[i8]) -> Fit {
    let (mut two, mut four) = (0, 0);
    let seconds = second.chunks_exact(DEPTH).chain(std::iter::repeat(&[0; DEPTH][..]));
    for (first, second) in first.chunks_exact(DEPTH).zip(seconds) {
        for lane in 0..LANES {
            let sum =
                |steps: &[i8]| u16::from(steps[lane].unsigned_abs()) + u16::from(steps[lane + LANES].unsigned_abs());
            let (first, second) = (sum(first), sum(second));
            two = two.max(first).max(second);
            four = four.max(first + second);
        }
    }
    match (two, four) {
        (_, ..=255) => FOUR,
        (..=255, _) => TWO,
        _ => ONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_fit_as_can_overflow_at_no_activation() {
        // One column, two steps of 16, then one more: lane 3 adds k of 3, 11, 19 and 27.
        for (weights, fits) in [
            ([127, 127, 0, 1], [FOUR, END, FOUR]),
            ([64, -64, 64, -63], [FOUR, END, FOUR]),
            ([64, -64, 64, -64], [TWO, END, FOUR]),
            ([-128, 127, 0, 0], [FOUR, END, FOUR]),
            ([-128, 127, 1, 0], [TWO, END, FOUR]),
            ([0, 0, -128, -128], [ONE, END, FOUR]),
        ] {
            let mut panel = [0i8; 48];
            for (at, weight) in weights.into_iter().enumerate() {
                panel[3 + 8 * at] = weight;
            }
            assert_eq!(of(&panel, 1, (1, 3)), fits, "{weights:?}");
        }
        let panel = [-128; 5 * 4 * 16];
        let fits = of(&panel, 4, (1, 5));
        assert_eq!(fits, [ONE, ONE, END, ONE]);
        assert!(are_sound(&fits, 5));
        for damaged in [[ONE, ONE, END, END], [ONE, END, ONE, ONE], [7, ONE, END, ONE]] {
            assert!(!are_sound(&damaged, 5));
        }
        assert_eq!(of(&panel, 4, (5, 1)), [END, ONE].repeat(5));
    }
}
