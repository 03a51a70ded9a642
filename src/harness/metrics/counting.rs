//! Counting by prompt ranking, as RemoteCLIP's RemoteCount does: which of "a photo of N airplanes" is nearest.
//! The folders are the counts.

use super::{Estimate, Guesses};

/// The number that each class name is.
///
/// # Errors
/// The first name that is none.
pub fn numbers(classes: &[String]) -> Result<Vec<u32>, String> {
    classes.iter().map(|name| name.parse().map_err(|_| name.clone())).collect()
}

/// A number in words up to twenty, as RemoteCount's prompts have it; in digits beyond.
pub fn in_words(number: u32) -> String {
    const WORDS: [&str; 21] = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
        "twenty",
    ];
    WORDS.get(number as usize).map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

/// `count_acc1`, `count_within_1` (off by one at most) and `count_mae` (mean absolute error, in objects).
pub fn estimates(guesses: &Guesses, numbers: &[u32]) -> Vec<Estimate> {
    let off = (0..guesses.truth.len()).map(|i| numbers[guesses.truth[i]].abs_diff(numbers[guesses.winner(i)]));
    let off: Vec<u32> = off.collect();
    let hits = |most: u32| off.iter().map(|off| f32::from(*off <= most)).collect();
    let error = Estimate {
        higher_is_better: false,
        ..Estimate::mean("count_mae", off.iter().map(|off| *off as f32).collect())
    };
    vec![Estimate::mean("count_acc1", hits(0)), Estimate::mean("count_within_1", hits(1)), error]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn being_off_is_measured_in_objects() {
        let numbers = numbers(&["1".to_owned(), "10".to_owned(), "2".to_owned()]).unwrap();
        let guesses = Guesses { truth: vec![0, 0, 1], ranked: vec![vec![0], vec![2], vec![2]], ..Guesses::default() };
        let values: Vec<f64> = estimates(&guesses, &numbers).iter().map(Estimate::value).collect();
        for (found, expected) in values.iter().zip([1.0 / 3.0, 2.0 / 3.0, 3.0]) {
            assert!((found - expected).abs() < 1e-6, "{values:?}");
        }
        assert_eq!((in_words(9), in_words(21)), ("nine".to_owned(), "21".to_owned()));
        assert_eq!(super::numbers(&["a1".to_owned()]), Err("a1".to_owned()));
    }
}
