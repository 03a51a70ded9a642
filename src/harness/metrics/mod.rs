//! The tasks: each takes one side's embeddings and says, picture by picture, what adds to which metric.
//!
//! Promise: plain arithmetic, the same on both sides and the same every time. A metric is kept as what each picture adds
//! to it, so that a bootstrap can draw pictures again and a verdict can name the pictures that did it.

pub mod counting;
pub mod neighbours;
pub mod probe;
pub mod retrieval;
pub mod zeroshot;

use std::thread;

/// A metric as what each picture adds to it.
#[derive(Debug, Clone)]
pub struct Estimate {
    /// `clip_benchmark`'s name where it has one.
    pub name: String,
    /// How the pictures' parts make the figure.
    pub form: Form,
    /// False for an error.
    pub higher_is_better: bool,
}

/// How the pictures' parts make the figure.
#[derive(Debug, Clone)]
pub enum Form {
    /// The mean of ratios, each the sum of hits over the sum of trials.
    Ratios(Vec<Ratio>),
    /// The mean over groups of the mean hit of the group's pictures; groups without pictures do not count.
    Groups {
        /// Each picture's group.
        group: Vec<usize>,
        /// Each picture's hit.
        hit: Vec<f32>,
    },
}

/// Hits and trials of each picture.
#[derive(Debug, Clone)]
pub struct Ratio {
    /// What each picture adds above the line.
    pub hits: Vec<f32>,
    /// And below.
    pub trials: Vec<f32>,
}

impl Estimate {
    /// The mean of one value a picture.
    pub fn mean(name: impl Into<String>, hits: Vec<f32>) -> Self {
        let trials = vec![1.0; hits.len()];
        Self::ratios(name, vec![Ratio { hits, trials }])
    }

    /// The mean of ratios.
    pub fn ratios(name: impl Into<String>, ratios: Vec<Ratio>) -> Self {
        Self { name: name.into(), form: Form::Ratios(ratios), higher_is_better: true }
    }

    /// The mean of each group's mean.
    pub fn groups(name: impl Into<String>, group: Vec<usize>, hit: Vec<f32>) -> Self {
        Self { name: name.into(), form: Form::Groups { group, hit }, higher_is_better: true }
    }

    /// The figure.
    pub fn value(&self) -> f64 {
        self.weighted(|_| 1.0)
    }

    /// The figure when picture `i` counts `weight(i)` times; 0 when nothing counts.
    pub fn weighted(&self, weight: impl Fn(usize) -> f64) -> f64 {
        match &self.form {
            Form::Ratios(ratios) => {
                let of =
                    |values: &[f32]| values.iter().enumerate().map(|(i, v)| f64::from(*v) * weight(i)).sum::<f64>();
                mean(ratios.iter().map(|ratio| (of(&ratio.hits), of(&ratio.trials))))
            }
            Form::Groups { group, hit } => {
                let mut sums = vec![(0.0, 0.0); group.iter().max().map_or(0, |most| most + 1)];
                for (i, (group, hit)) in group.iter().zip(hit).enumerate() {
                    sums[*group].0 += f64::from(*hit) * weight(i);
                    sums[*group].1 += weight(i);
                }
                mean(sums.into_iter().filter(|(_, trials)| *trials > 0.0))
            }
        }
    }

    /// What picture `i` adds above the line.
    pub fn hits(&self, i: usize) -> f32 {
        match &self.form {
            Form::Ratios(ratios) => ratios.iter().map(|ratio| ratio.hits[i]).sum(),
            Form::Groups { hit, .. } => hit[i],
        }
    }

    /// Number of pictures.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Ratios(ratios) => ratios.first().map_or(0, |ratio| ratio.hits.len()),
            Form::Groups { hit, .. } => hit.len(),
        }
    }

    /// No pictures.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

fn mean(ratios: impl Iterator<Item = (f64, f64)>) -> f64 {
    let (sum, count) = ratios.fold((0.0, 0.0), |(sum, count), (hits, trials)| {
        (sum + if trials > 0.0 { hits / trials } else { 0.0 }, count + 1.0)
    });
    if count > 0.0 { sum / count } else { 0.0 }
}

/// What a classifier said of some pictures.
#[derive(Debug, Clone, Default)]
pub struct Guesses {
    /// The pictures' rows in the embedding set.
    pub images: Vec<usize>,
    /// Their classes.
    pub truth: Vec<usize>,
    /// The classes by falling score, as many as were kept (five at least, where there are five).
    pub ranked: Vec<Vec<usize>>,
    /// The winner's probability; empty where the classifier gives none.
    pub probability: Vec<f32>,
}

impl Guesses {
    /// Whether picture `i` has its class among the first `k`.
    pub fn hit(&self, i: usize, k: usize) -> bool {
        self.ranked[i].iter().take(k).any(|class| *class == self.truth[i])
    }

    /// The winner for picture `i`.
    pub fn winner(&self, i: usize) -> usize {
        self.ranked[i][0]
    }

    /// `acc1`, `acc5` (with five classes or more) and `mean_per_class_recall`, each with this in front.
    pub fn estimates(&self, prefix: &str, classes: usize) -> Vec<Estimate> {
        let hits = |k| (0..self.truth.len()).map(|i| f32::from(self.hit(i, k))).collect::<Vec<_>>();
        let mut estimates = vec![Estimate::mean(format!("{prefix}acc1"), hits(1))];
        if classes >= 5 {
            estimates.push(Estimate::mean(format!("{prefix}acc5"), hits(5)));
        }
        estimates.push(Estimate::groups(format!("{prefix}mean_per_class_recall"), self.truth.clone(), hits(1)));
        estimates
    }

    /// `counts[true][predicted]`.
    pub fn confusion(&self, classes: usize) -> Vec<Vec<usize>> {
        let mut counts = vec![vec![0; classes]; classes];
        for (i, truth) in self.truth.iter().enumerate() {
            counts[*truth][self.winner(i)] += 1;
        }
        counts
    }
}

/// The scalar product, in f64: on real embeddings neighbours in a ranking differ by less than f32 resolves. The order of
/// additions is fixed, so equal vectors have equal products with anything.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    const LANES: usize = 8;
    let product = |a: &f32, b: &f32| f64::from(*a) * f64::from(*b);
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for lane in 0..LANES {
            sums[lane] += product(&a[lane], &b[lane]);
        }
    }
    sums.iter().sum::<f64>() + a_rest.iter().zip(b_rest).map(|(a, b)| product(a, b)).sum::<f64>()
}

/// Places by falling value, equal values by rising place: the first `k`.
pub fn top(values: &[f32], k: usize) -> Vec<usize> {
    let mut places: Vec<usize> = (0..values.len()).collect();
    let order = |a: &usize, b: &usize| values[*b].total_cmp(&values[*a]).then(a.cmp(b));
    let k = k.min(places.len());
    if k < places.len() {
        places.select_nth_unstable_by(k, order);
        places.truncate(k);
    }
    places.sort_unstable_by(order);
    places
}

/// `f` of every number below `count`, on all cores, in order.
pub fn parallel<T: Send>(count: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = count.div_ceil(threads).max(1);
    let starts: Vec<_> = (0..count).step_by(share).collect();
    let f = &f;
    thread::scope(|scope| {
        let parts: Vec<_> = starts
            .into_iter()
            .map(|start| scope.spawn(move || (start..(start + share).min(count)).map(f).collect::<Vec<T>>()))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ratios_and_groups_are_means_of_means() {
        let part = |hits: &[f32], trials: &[f32]| Ratio { hits: hits.to_vec(), trials: trials.to_vec() };
        let ratios = Estimate::ratios("x", vec![part(&[1.0, 0.0], &[1.0, 1.0]), part(&[1.0, 5.0], &[3.0, 5.0])]);
        assert!((ratios.value() - (0.5 + 0.75) / 2.0).abs() < 1e-12);
        let groups = Estimate::groups("x", vec![0, 0, 2], vec![1.0, 0.0, 1.0]);
        assert!((groups.value() - 0.75).abs() < 1e-12, "the empty group does not count");
        assert!((groups.weighted(|i| if i == 1 { 0.0 } else { 2.0 }) - 1.0).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_top_is_the_head_of_a_stable_sort(values in proptest::collection::vec(0u8..6, 1..60), k in 1usize..70) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut sorted: Vec<usize> = (0..values.len()).collect();
            sorted.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
            sorted.truncate(k);
            prop_assert_eq!(top(&values, k), sorted);
        }

        /// Against the definitions, counted one picture after the other.
        #[test]
        fn accuracies_and_recalls_are_those_of_the_definition(
            pictures in proptest::collection::vec((0usize..7, proptest::collection::vec(0u8..9, 7)), 1..40),
        ) {
            let scores: Vec<Vec<f32>> = pictures.iter().map(|(_, row)| row.iter().copied().map(f32::from).collect()).collect();
            let truth: Vec<usize> = pictures.iter().map(|(class, _)| *class).collect();
            let ranked = scores.iter().map(|row| top(row, 5)).collect();
            let guesses = Guesses { truth: truth.clone(), ranked, ..Guesses::default() };
            // A class ranks behind every higher score and every equal one before it.
            let rank = |row: &[f32], class: usize| {
                (0..7).filter(|other| row[*other] > row[class] || (row[*other] == row[class] && *other < class)).count()
            };
            let hit = |at: usize, k: usize| rank(&scores[at], truth[at]) < k;
            let share = |among: Vec<usize>, k: usize| {
                among.iter().filter(|at| hit(**at, k)).count() as f64 / among.len() as f64
            };
            let all: Vec<usize> = (0..truth.len()).collect();
            let of_class = |class: usize| all.iter().copied().filter(|at| truth[*at] == class).collect::<Vec<_>>();
            let there: Vec<Vec<usize>> = (0..7).map(of_class).filter(|class| !class.is_empty()).collect();
            let recall = there.iter().map(|class| share(class.clone(), 1)).sum::<f64>() / there.len() as f64;
            let found: Vec<f64> = guesses.estimates("", 7).iter().map(Estimate::value).collect();
            for (found, expected) in found.iter().zip([share(all.clone(), 1), share(all.clone(), 5), recall]) {
                prop_assert!((found - expected).abs() < 1e-9);
            }
            let confusion = guesses.confusion(7);
            let right: usize = (0..7).map(|class| confusion[class][class]).sum();
            prop_assert_eq!(right, all.iter().filter(|at| hit(**at, 1)).count());
            prop_assert_eq!(confusion.iter().flatten().sum::<usize>(), truth.len());
        }

        #[test]
        fn dot_is_the_scalar_product(a in proptest::collection::vec(-1.0f32..1.0, 0..70)) {
            let naive: f64 = a.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            prop_assert!((dot(&a, &a) - naive).abs() < 1e-12);
        }

        #[test]
        fn parallel_keeps_order(count in 0usize..50) {
            prop_assert_eq!(parallel(count, |i| i * 2), (0..count).map(|i| i * 2).collect::<Vec<_>>());
        }
    }
}
