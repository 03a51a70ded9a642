//! What a panel's weights let a kernel add in 16 bits, found once when it is packed.

use serde::{Deserialize, Serialize};

use super::Layout;

pub mod fits;
pub mod limits;

/// Whether, and on what terms, a kernel adds products in 16 bits first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Narrow {
    /// It does not, and asks nothing.
    No,
    /// As many as the weights allow whatever the activations are: [`fits`].
    Fits,
    /// Two, as long as the activations are within [`limits`].
    Limits,
}

/// One panel's bytes of the kind that a [`Layout`] asks for.
#[derive(Debug, Clone, Default)]
pub struct Room {
    bytes: Vec<u8>,
}

impl Room {
    /// The room in `panel`, `[segment][step][column][depth]`.
    ///
    /// # Panics
    /// When the panel is shorter than that.
    pub fn of(layout: Layout, panel: &[i8], segments: usize, steps: usize) -> Room {
        assert!(panel.len() >= segments * steps * layout.columns * layout.depth, "a panel shorter than its segments");
        let bytes = match layout.narrow {
            Narrow::No => Vec::new(),
            Narrow::Fits => fits::of(panel, layout.columns, (segments, steps)),
            Narrow::Limits => limits::of(panel, layout.columns, (segments, steps)),
        };
        Room { bytes }
    }

    /// The room in any panel of `steps` steps without a weight of -128: for weights that change with each picture.
    pub fn of_any(layout: Layout, steps: usize) -> Room {
        let bytes = match layout.narrow {
            Narrow::No => Vec::new(),
            Narrow::Fits => fits::of_any(steps),
            Narrow::Limits => limits::of_any(steps),
        };
        Room { bytes }
    }

    /// A room from the bytes of an earlier one, or `None` where they are not in the form that the kernel relies on.
    pub fn restored(layout: Layout, bytes: &[u8], segments: usize, steps: usize) -> Option<Room> {
        let room = Room { bytes: bytes.to_vec() };
        let sound = room.is_of(layout, segments, steps)
            && (layout.narrow != Narrow::Fits || fits::are_sound(&room.bytes, steps));
        sound.then_some(room)
    }

    /// How many bytes a panel with so many segments and steps has.
    pub fn len(layout: Layout, segments: usize, steps: usize) -> usize {
        match layout.narrow {
            Narrow::No => 0,
            Narrow::Fits => fits::len(segments, steps),
            Narrow::Limits => limits::len(segments, steps),
        }
    }

    /// Whether it may be of a panel with so many segments and steps.
    pub fn is_of(&self, layout: Layout, segments: usize, steps: usize) -> bool {
        self.bytes.len() == Self::len(layout, segments, steps)
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_of_any_is_within_that_of_each() {
        for narrow in [Narrow::No, Narrow::Fits, Narrow::Limits] {
            let depth = if narrow == Narrow::Fits { 16 } else { 4 };
            let layout = Layout { rows: 4, columns: 4, depth, offset: 0, together: 1, narrow };
            for steps in 1..20 {
                let of = |weight: i8| Room::of(layout, &vec![weight; steps * 4 * depth], 1, steps);
                assert_eq!(Room::of_any(layout, steps).bytes(), of(127).bytes(), "{narrow:?}");
                assert_eq!(Room::of_any(layout, steps).bytes(), of(-127).bytes(), "{narrow:?}");
            }
        }
    }

    #[test]
    fn a_room_comes_back_only_as_what_it_was() {
        for narrow in [Narrow::No, Narrow::Fits, Narrow::Limits] {
            let depth = if narrow == Narrow::Fits { 16 } else { 4 };
            let layout = Layout { rows: 4, columns: 4, depth, offset: 0, together: 1, narrow };
            let panel = vec![-128; 2 * 5 * 4 * depth];
            let room = Room::of(layout, &panel, 2, 5);
            let again = Room::restored(layout, room.bytes(), 2, 5);
            assert!(again.is_some_and(|again| again.bytes() == room.bytes()), "{narrow:?}");
            assert!(Room::restored(layout, &[room.bytes(), &[0]].concat(), 2, 5).is_none(), "{narrow:?}");
        }
    }
}
