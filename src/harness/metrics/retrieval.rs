//! Image–text retrieval, both ways.
//!
//! Protocol, that of RemoteCLIP's evaluation and of `clip_benchmark`: image to text (`text_retrieval_recall@K`) is a hit
//! if any of the picture's own captions is among the first K; text to image (`image_retrieval_recall@K`) counts per
//! caption; `mean_recall` is the mean of the six. Equal similarities rank by place, the earlier first (captions repeat
//! word for word in these data sets, so there are many).

use super::{Estimate, Ratio, dot, parallel};
use crate::harness::embeddings::Captions;
use crate::harness::tensors::Matrix;

/// The Ks.
pub const RECALL_AT: [usize; 3] = [1, 5, 10];

/// `text_retrieval_recall@K`, `image_retrieval_recall@K` and `mean_recall`; one row a picture, its captions with it.
pub fn estimates(images: &Matrix, captions: &Captions) -> Vec<Estimate> {
    let (by_image, by_caption) = ranks(images, captions);
    let within = |rank: &usize, k: usize| f32::from(*rank < k);
    let mut ratios = Vec::new();
    let mut estimates = Vec::new();
    for k in RECALL_AT {
        let hits = by_image.iter().map(|rank| rank.map_or(0.0, |rank| within(&rank, k))).collect();
        let trials = by_image.iter().map(|rank| f32::from(rank.is_some())).collect();
        ratios.push((format!("text_retrieval_recall@{k}"), Ratio { hits, trials }));
    }
    for k in RECALL_AT {
        let (mut hits, mut trials) = (vec![0.0; images.len()], vec![0.0; images.len()]);
        for (rank, image) in by_caption.iter().zip(&captions.image) {
            hits[*image] += within(rank, k);
            trials[*image] += 1.0;
        }
        ratios.push((format!("image_retrieval_recall@{k}"), Ratio { hits, trials }));
    }
    for (name, ratio) in &ratios {
        estimates.push(Estimate::ratios(name.clone(), vec![ratio.clone()]));
    }
    estimates.push(Estimate::ratios("mean_recall", ratios.into_iter().map(|(_, ratio)| ratio).collect()));
    estimates
}

/// For each picture the rank of its best own caption (none without captions); for each caption that of its picture.
fn ranks(images: &Matrix, captions: &Captions) -> (Vec<Option<usize>>, Vec<usize>) {
    let mut own = vec![Vec::new(); images.len()];
    captions.image.iter().enumerate().for_each(|(caption, image)| own[*image].push(caption));
    let by_image = parallel(images.len(), |image| {
        let row = images.row(image);
        let scores: Vec<f64> = captions.embeddings.rows().map(|caption| dot(row, caption)).collect();
        own[image].iter().map(|caption| rank(&scores, *caption)).min()
    });
    let by_caption = parallel(captions.image.len(), |caption| {
        let row = captions.embeddings.row(caption);
        let scores: Vec<f64> = images.rows().map(|image| dot(image, row)).collect();
        rank(&scores, captions.image[caption])
    });
    (by_image, by_caption)
}

/// How many stand before `at`: the larger, and the equal ones before it.
fn rank(scores: &[f64], at: usize) -> usize {
    let own = scores[at];
    scores.iter().enumerate().filter(|(i, score)| **score > own || (**score == own && *i < at)).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By sorting whole rows, as the protocol is told.
    fn naive(images: &Matrix, captions: &Captions, k: usize) -> (f64, f64) {
        let sorted = |scores: Vec<f64>| {
            let mut places: Vec<usize> = (0..scores.len()).collect();
            places.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
            places.truncate(k);
            places
        };
        let share = |hits: Vec<bool>| hits.iter().filter(|hit| **hit).count() as f64 / hits.len() as f64;
        let by_image = (0..images.len()).filter(|image| captions.image.contains(image)).map(|image| {
            let scores = captions.embeddings.rows().map(|caption| dot(images.row(image), caption)).collect();
            sorted(scores).iter().any(|caption| captions.image[*caption] == image)
        });
        let by_caption = captions.image.iter().enumerate().map(|(caption, image)| {
            let scores = images.rows().map(|row| dot(row, captions.embeddings.row(caption))).collect();
            sorted(scores).contains(image)
        });
        (share(by_image.collect()), share(by_caption.collect()))
    }

    proptest! {
        /// Coarse values, so that ties are many.
        #[test]
        fn recalls_are_those_of_sorted_rows(
            images in proptest::collection::vec((1i8..4, -2i8..3), 1..14),
            captions in proptest::collection::vec((1i8..4, -2i8..3, any::<prop::sample::Index>()), 1..30),
        ) {
            let rows = |(a, b): (i8, i8)| [f32::from(a), f32::from(b)];
            let image: Vec<usize> = captions.iter().map(|(_, _, at)| at.index(images.len())).collect();
            let embeddings = Matrix::of_rows(2, captions.iter().map(|(a, b, _)| rows((*a, *b))));
            let images = Matrix::of_rows(2, images.into_iter().map(rows));
            let captions = Captions { texts: Vec::new(), embeddings, image };
            let estimates = estimates(&images, &captions);
            let mut mean = 0.0;
            for (at, k) in RECALL_AT.into_iter().enumerate() {
                let (by_image, by_caption) = naive(&images, &captions, k);
                prop_assert!((estimates[at].value() - by_image).abs() < 1e-9);
                prop_assert!((estimates[at + 3].value() - by_caption).abs() < 1e-9);
                mean += (by_image + by_caption) / 6.0;
            }
            prop_assert!((estimates[6].value() - mean).abs() < 1e-9);
        }
    }
}
