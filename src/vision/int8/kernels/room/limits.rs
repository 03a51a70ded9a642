//! How large activations may be for two products to fit 16 bits.
//!
//! `vpmaddubsw` adds the products of two unsigned activations with two signed weights, and saturates. It cannot where both
//! activations are at most `32767 / w`, `w` being what the two weights add up to, those of one sign alone: small weights
//! allow any activation, and the largest weights half of the range. Few pairs of a layer have both at once, large weights and
//! large activations, and a kernel can tell beforehand which.

/// Consecutive `k` of one column in a step.
const DEPTH: usize = 4;
/// Pairs of them.
const PAIRS: usize = DEPTH / 2;
/// Steps that a kernel compares at a time: segments are filled up to as many.
pub const TOGETHER: usize = 8;

/// Of each segment the limits of its steps, two each, filled up with as many 0. The panel is `[segment][step][column][4]`.
pub(super) fn of(panel: &[i8], columns: usize, (segments, steps): (usize, usize)) -> Vec<u8> {
    let mut limits = Vec::with_capacity(len(segments, steps));
    for segment in panel.chunks_exact(steps * columns * DEPTH).take(segments) {
        for step in segment.chunks_exact(columns * DEPTH) {
            limits.extend((0..PAIRS).map(|pair| limit(step, pair)));
        }
        limits.resize(limits.len().next_multiple_of(PAIRS * TOGETHER), 0);
    }
    limits
}

/// Those of one segment whose weights are any but -128.
pub(super) fn of_any(steps: usize) -> Vec<u8> {
    let mut limits = vec![limit(&[127; DEPTH], 0); PAIRS * steps];
    limits.resize(of_segment(steps), 0);
    limits
}

/// How many there are.
pub(super) fn len(segments: usize, steps: usize) -> usize {
    segments * of_segment(steps)
}

/// How many there are of one segment.
pub const fn of_segment(steps: usize) -> usize {
    PAIRS * steps.next_multiple_of(TOGETHER)
}

/// The largest activations that fit with a pair of any column.
fn limit(step: &[i8], pair: usize) -> u8 {
    let columns = step.chunks_exact(DEPTH).map(|column| [column[PAIRS * pair], column[PAIRS * pair + 1]]);
    let largest = columns.map(|[one, other]| {
        let (one, other) = (i16::from(one), i16::from(other));
        (one.max(0) + other.max(0)).max(-(one.min(0) + other.min(0)))
    });
    (i16::MAX / largest.max().unwrap_or(0).max(1)).min(255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_the_largest_activation_that_fits() {
        for one in -128..=127i8 {
            for other in [-128, -127, -64, -1, 0, 1, 64, 127i8] {
                let limit = i32::from(of(&[one, other, 0, 0], 1, (1, 1))[0]);
                let fits = |level: i32| {
                    [(level, level), (level, 0), (0, level)]
                        .into_iter()
                        .all(|(a, b)| (-32767..=32767).contains(&(a * i32::from(one) + b * i32::from(other))))
                };
                assert!(fits(limit) && (limit == 255 || !fits(limit + 1)), "{one} {other}: {limit}");
            }
        }
    }

    #[test]
    fn segments_are_filled_up() {
        let panel = [127; 2 * 9 * 3 * DEPTH];
        let limits = of(&panel, 3, (2, 9));
        let segment = [vec![129; 18], vec![0; 14]].concat();
        assert_eq!(limits, [segment.clone(), segment].concat());
        assert_eq!(limits.len(), len(2, 9));
    }
}
