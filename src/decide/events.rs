//! Scores → which tags are active, and when one is entered or left. Explained with a diagram in `docs/guide/tags.md`.
//!
//! Promise: a tag's changes alternate between enter and exit, and each is backed by `consensus` frames and by
//! `min_duration` of time. Time is what the caller says it is, so the same frames give the same events anywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scores;
use crate::prompts::pack::PackLabel;

/// Most frames a consensus looks back on.
pub const LONGEST_MEMORY: u32 = 64;

/// When a tag is entered and left.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// So many frames must agree …
    pub consensus: u32,
    /// … of the last so many.
    pub window: u32,
    /// For how long they must have agreed.
    pub min_duration: Duration,
    /// For how long a tag that was left is not entered again.
    pub cooldown: Duration,
    /// How far a score must stand above the background's share to count.
    pub margin: f32,
    /// Thresholds in place of the pack's, by label.
    pub thresholds: BTreeMap<String, Thresholds>,
}

/// A label's thresholds; what is absent is the pack's.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Thresholds {
    /// A tag is entered at this score.
    pub enter: Option<f32>,
    /// And left below `enter` less this.
    pub hysteresis: Option<f32>,
}

impl Default for Rules {
    /// Two of three frames: one odd frame changes nothing.
    fn default() -> Self {
        Self {
            consensus: 2,
            window: 3,
            min_duration: Duration::ZERO,
            cooldown: Duration::ZERO,
            margin: 0.0,
            thresholds: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// Every frame decides by itself: the thresholds alone.
    pub fn at_once() -> Self {
        Self { consensus: 1, window: 1, ..Self::default() }
    }

    /// A label's enter and exit scores.
    fn bounds(&self, label: &PackLabel) -> (f32, f32) {
        let own = self.thresholds.get(&label.name).copied().unwrap_or_default();
        let enter = own.enter.unwrap_or(label.enter);
        // Without a hysteresis of its own a moved threshold keeps the pack's distance.
        let hysteresis = own.hysteresis.unwrap_or(label.enter - label.exit);
        (enter, (enter - hysteresis).max(f32::MIN_POSITIVE))
    }
}

/// Which tags are active.
#[derive(Debug, Clone)]
pub struct Tags {
    rules: Rules,
    labels: Vec<State>,
}

/// One label's past.
#[derive(Debug, Clone)]
struct State {
    enter: f32,
    exit: f32,
    active: bool,
    /// The last frames' votes for a change, the newest in the lowest bit.
    votes: u64,
    /// Since when enough of them agree.
    agreed: Option<Duration>,
    left: Option<Duration>,
}

/// A tag that was entered or left.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Change {
    /// Index into the pack's labels.
    pub label: usize,
    /// What happened.
    pub transition: Transition,
    /// The score of the frame that completed it.
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
    pub fn new(labels: &[PackLabel], rules: Rules) -> Self {
        let labels = labels.iter().map(|label| {
            let (enter, exit) = rules.bounds(label);
            State { enter, exit, active: false, votes: 0, agreed: None, left: None }
        });
        Self { labels: labels.collect(), rules }
    }

    /// Other rules from now on; what is active stays so until a frame says otherwise.
    pub fn retune(&mut self, labels: &[PackLabel], rules: Rules) {
        for (state, label) in self.labels.iter_mut().zip(labels) {
            (state.enter, state.exit) = rules.bounds(label);
            (state.votes, state.agreed) = (0, None);
        }
        self.rules = rules;
    }

    /// Takes one frame's scores, seen at `at` on a clock that never steps back; returns what changed, in the pack's order.
    pub fn update(&mut self, at: Duration, scores: &Scores) -> Vec<Change> {
        let rules = &self.rules;
        let mut changes = Vec::new();
        for (label, (state, score)) in self.labels.iter_mut().zip(&scores.labels).enumerate() {
            if state.vote(rules, at, *score, scores.background) {
                let transition = if state.active { Transition::Enter } else { Transition::Exit };
                changes.push(Change { label, transition, score: *score });
            }
        }
        changes
    }

    /// Indices of the active tags, in the pack's order.
    pub fn active(&self) -> impl Iterator<Item = usize> {
        self.labels.iter().enumerate().filter(|(_, state)| state.active).map(|(label, _)| label)
    }
}

impl State {
    /// Counts a frame; true when the tag has changed.
    fn vote(&mut self, rules: &Rules, at: Duration, score: f32, background: f32) -> bool {
        let for_change = match self.active {
            false => score >= self.enter && score - background >= rules.margin,
            true => score < self.exit,
        };
        let memory = u64::MAX >> (64 - rules.window.clamp(1, LONGEST_MEMORY));
        self.votes = (self.votes << 1 | u64::from(for_change)) & memory;
        if self.votes.count_ones() < rules.consensus {
            self.agreed = None;
            return false;
        }
        let agreed = *self.agreed.get_or_insert(at);
        let cooling = !self.active && self.left.is_some_and(|left| at.saturating_sub(left) < rules.cooldown);
        // A frame that speaks against a change must not be the one that completes it.
        if !for_change || cooling || at.saturating_sub(agreed) < rules.min_duration {
            return false;
        }
        self.active = !self.active;
        (self.votes, self.agreed) = (0, None);
        self.left = (!self.active).then_some(at);
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::prompts::pack::tests::axes;

    fn tags(rules: Rules) -> Tags {
        Tags::new(&axes(&["forest", "river"], &[]).header().labels, rules) // enter 0.5, exit 0.4
    }

    fn scores(labels: &[f32], background: f32) -> Scores {
        Scores {
            labels: labels.to_vec(),
            cosines: vec![0.0; labels.len()],
            background,
            background_shares: vec![],
            background_cosines: vec![],
        }
    }

    /// A frame a second; what changed of the first label in each.
    fn play(tags: &mut Tags, frames: &[f32]) -> String {
        let mut change = |(second, score): (usize, &f32)| {
            let changes = tags.update(Duration::from_secs(second as u64), &scores(&[*score, 0.0], 0.2));
            match changes.first().map(|change| change.transition) {
                Some(Transition::Enter) => 'E',
                Some(Transition::Exit) => 'x',
                None => '.',
            }
        };
        frames.iter().enumerate().map(&mut change).collect()
    }

    #[test]
    fn between_the_thresholds_nothing_changes() {
        let frames = [0.45, 0.5, 0.41, 0.49, 0.39, 0.45, 0.5];
        assert_eq!(play(&mut tags(Rules::at_once()), &frames), ".E..x.E");
    }

    #[test]
    fn one_odd_frame_of_three_changes_nothing() {
        let frames = [0.9, 0.1, 0.1, 0.9, 0.9, 0.9, 0.1, 0.9, 0.9, 0.1, 0.1, 0.1];
        assert_eq!(play(&mut tags(Rules::default()), &frames), "....E.....x.");
    }

    #[test]
    fn a_change_must_last() {
        let rules = Rules { min_duration: Duration::from_secs(2), ..Rules::at_once() };
        let frames = [0.9, 0.9, 0.1, 0.9, 0.9, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1];
        assert_eq!(play(&mut tags(rules), &frames), ".....E.....x");
    }

    #[test]
    fn after_a_tag_was_left_it_rests() {
        let rules = Rules { cooldown: Duration::from_secs(3), ..Rules::at_once() };
        let frames = [0.9, 0.1, 0.9, 0.9, 0.9, 0.9];
        assert_eq!(play(&mut tags(rules), &frames), "Ex..E.");
    }

    #[test]
    fn a_score_must_stand_above_the_background() {
        let rules = Rules { margin: 0.4, ..Rules::at_once() };
        // The background's share is 0.2; leaving needs no margin.
        assert_eq!(play(&mut tags(rules), &[0.55, 0.65, 0.45, 0.3]), ".E.x");
    }

    #[test]
    fn a_label_may_have_thresholds_of_its_own() {
        let own = Thresholds { enter: Some(0.8), hysteresis: None };
        let rules = Rules { thresholds: [("forest".to_owned(), own)].into(), ..Rules::at_once() };
        // The pack's distance of 0.1 moves along.
        assert_eq!(play(&mut tags(rules), &[0.7, 0.8, 0.75, 0.69]), ".E.x");
        let own = Thresholds { enter: None, hysteresis: Some(0.3) };
        let rules = Rules { thresholds: [("forest".to_owned(), own)].into(), ..Rules::at_once() };
        assert_eq!(play(&mut tags(rules), &[0.5, 0.3, 0.1]), "E.x");
    }

    #[test]
    fn labels_do_not_disturb_each_other() {
        let mut tags = tags(Rules::at_once());
        assert_eq!(tags.update(Duration::ZERO, &scores(&[0.6, 0.7], 0.0)).len(), 2);
        assert_eq!(tags.active().collect::<Vec<_>>(), [0, 1]);
        let changes = tags.update(Duration::ZERO, &scores(&[0.6, 0.1], 0.0));
        assert_eq!(changes, [Change { label: 1, transition: Transition::Exit, score: 0.1 }]);
    }

    proptest! {
        #[test]
        fn enter_and_exit_alternate_and_each_is_backed_by_a_consensus(
            frames in prop::collection::vec(0.0f32..1.0, 0..200), consensus in 1u32..5, extra in 0u32..4
        ) {
            let rules = Rules { consensus, window: consensus + extra, ..Rules::at_once() };
            let changes = play(&mut tags(rules), &frames);
            let mut since = 0;
            for (number, (at, change)) in changes.char_indices().filter(|(_, change)| *change != '.').enumerate() {
                prop_assert_eq!(change, if number % 2 == 0 { 'E' } else { 'x' });
                let window = &frames[since.max((at + 1).saturating_sub((consensus + extra) as usize))..=at];
                let agree = window.iter().filter(|score| if change == 'E' { **score >= 0.5 } else { **score < 0.4 });
                prop_assert!(agree.count() >= consensus as usize);
                since = at + 1;
            }
        }
    }
}
