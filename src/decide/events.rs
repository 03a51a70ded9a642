//! Scores → which tags are active, and when one is entered or left.
//!
//! A tag is entered when its score reaches the label's `enter` threshold and left when it falls below `exit`; between
//! the two nothing changes, so that a score at the threshold does not flicker.

use crate::prompts::pack::PackLabel;

/// Which tags are active.
#[derive(Debug, Clone)]
pub struct Tags {
    thresholds: Vec<(f32, f32)>,
    active: Vec<bool>,
}

/// A tag that was entered or left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Index into the pack's labels.
    pub label: usize,
    /// What happened.
    pub transition: Transition,
    /// The score that did it.
    pub score: f32,
}

/// Entered or left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transition {
    /// The tag has become active.
    Enter,
    /// The tag is no longer active.
    Exit,
}

impl Tags {
    /// No tag active.
    pub fn new(labels: &[PackLabel]) -> Self {
        Self {
            thresholds: labels.iter().map(|label| (label.enter, label.exit)).collect(),
            active: vec![false; labels.len()],
        }
    }

    /// Takes one frame's label scores, in the pack's order; returns what changed, in that order.
    pub fn update(&mut self, scores: &[f32]) -> Vec<Change> {
        let mut changes = Vec::new();
        for (label, score) in scores.iter().copied().enumerate().take(self.active.len()) {
            let (enter, exit) = self.thresholds[label];
            let transition = match self.active[label] {
                false if score >= enter => Transition::Enter,
                true if score < exit => Transition::Exit,
                _ => continue,
            };
            self.active[label] = transition == Transition::Enter;
            changes.push(Change { label, transition, score });
        }
        changes
    }

    /// Indices of the active tags, in the pack's order.
    pub fn active(&self) -> impl Iterator<Item = usize> {
        self.active.iter().enumerate().filter(|(_, active)| **active).map(|(label, _)| label)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompts::pack::tests::axes;

    fn tags() -> Tags {
        Tags::new(&axes(&["forest", "river"], &[]).header().labels) // enter 0.5, exit 0.4
    }

    #[test]
    fn a_tag_is_entered_and_left_once() {
        let mut tags = tags();
        let steps =
            [(0.45, None), (0.5, Some(Transition::Enter)), (0.41, None), (0.39, Some(Transition::Exit)), (0.45, None)];
        for (score, expected) in steps {
            let changes = tags.update(&[score, 0.0]);
            assert_eq!(changes.first().map(|change| change.transition), expected, "at {score}");
        }
    }

    #[test]
    fn labels_do_not_disturb_each_other() {
        let mut tags = tags();
        assert_eq!(tags.update(&[0.6, 0.7]).len(), 2);
        assert_eq!(tags.active().collect::<Vec<_>>(), [0, 1]);
        let changes = tags.update(&[0.6, 0.1]);
        assert_eq!(changes, [Change { label: 1, transition: Transition::Exit, score: 0.1 }]);
    }

    proptest! {
        #[test]
        fn enter_and_exit_alternate(scores in proptest::collection::vec(0.0f32..1.0, 0..200)) {
            let mut tags = tags();
            let transitions: Vec<_> =
                scores.iter().flat_map(|score| tags.update(&[*score, 0.0])).map(|change| change.transition).collect();
            for (at, transition) in transitions.iter().enumerate() {
                prop_assert_eq!(*transition == Transition::Enter, at % 2 == 0);
            }
        }
    }
}
