//! [`Places`]: the numbers of the roster, none of which is ever given to two actors, whatever a restart has forgotten.
//!
//! Each life of the run gives out a stretch of numbers of its own. What the life before gave out after its last checkpoint is
//! known by its number alone; an actor that comes back with such a one is taken in under it, once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::pacing::ActorId;

/// Bits of a place within its life's stretch: a million actors a life, four thousand lives.
const STRETCH_BITS: u32 = 20;

/// Actors of former lives that are remembered to have been taken in. Beyond it those of the oldest life are forgotten, together with the
/// possibility that another one of that life comes back: it joins afresh.
const MAX_ADOPTED: usize = 1 << 14;

/// The places that have been given out, as a checkpoint keeps them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Places {
    life: u32,
    /// Places given out in this life.
    given: u32,
    /// For each former life, how many of its places were given out by the last checkpoint of it.
    known: BTreeMap<u32, u32>,
    /// Places of former lives that no checkpoint of theirs knew, and whose actors have been taken in.
    adopted: BTreeSet<ActorId>,
}

impl Places {
    /// The places of life `life`, which goes on from what the checkpoint of a former one has kept.
    pub(super) fn resumed(mut saved: Self, life: u32) -> Self {
        if life > saved.life {
            saved.known.insert(saved.life, saved.given);
            saved.given = 0;
        }
        Self { life, ..saved }
    }

    /// The life whose places these are.
    pub(super) fn life(&self) -> u32 {
        self.life
    }

    /// A place for a new actor; `None` if there are none left.
    pub(super) fn take(&mut self) -> Option<ActorId> {
        let place = self.life.checked_mul(1 << STRETCH_BITS)?.checked_add(self.given)?;
        self.given = self.given.checked_add(1).filter(|given| *given <= 1 << STRETCH_BITS)?;
        Some(place)
    }

    /// The life in which `place` was given out.
    pub(super) fn life_of(place: ActorId) -> u32 {
        place >> STRETCH_BITS
    }

    /// Whether `place` may be that of an actor that joined a former life after its last checkpoint, and has not come back yet.
    pub(super) fn may_adopt(&self, place: ActorId) -> bool {
        let (life, number) = (Self::life_of(place), place & ((1 << STRETCH_BITS) - 1));
        let known = self.known.get(&life).copied().unwrap_or(0);
        life < self.life && number >= known && !self.adopted.contains(&place)
    }

    /// The actor in `place` has come back.
    pub(super) fn adopt(&mut self, place: ActorId) {
        self.adopted.insert(place);
        if self.adopted.len() > MAX_ADOPTED
            && let Some(oldest) = self.adopted.first().copied().map(Self::life_of)
        {
            tracing::warn!(
                life = oldest,
                "{MAX_ADOPTED} actors of former lives have come back that no checkpoint knows: further ones of life {oldest} join afresh"
            );
            self.known.insert(oldest, 1 << STRETCH_BITS);
            // Places count up from life to life.
            self.adopted = self.adopted.split_off(&(oldest + 1).saturating_mul(1 << STRETCH_BITS));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_place_is_given_twice_and_one_that_was_forgotten_is_taken_in_once() {
        let mut first = Places::default();
        assert_eq!([first.take(), first.take()], [Some(0), Some(1)]);
        let checkpoint = first.clone();
        assert_eq!(first.take(), Some(2), "which the checkpoint does not know");
        let mut second = Places::resumed(checkpoint.clone(), 1);
        assert_eq!([0, 1, 2, 3].map(|place| second.may_adopt(place)), [false, false, true, true]);
        second.adopt(2);
        assert!(!second.may_adopt(2));
        let new = second.take().unwrap();
        assert_eq!((new >> STRETCH_BITS, second.may_adopt(new)), (1, false));
        // A third life, from the first one's checkpoint: all of the second is unknown to it.
        let third = Places::resumed(checkpoint, 2);
        assert!(third.may_adopt(2) && third.may_adopt(new) && !third.may_adopt(2 << STRETCH_BITS));
        // Or from one of the second.
        let third = Places::resumed(second, 2);
        assert!(!third.may_adopt(2) && third.may_adopt(3) && !third.may_adopt(new));
    }

    #[test]
    fn made_up_places_take_no_more_room_than_there_is_and_none_is_taken_in_twice() {
        let mut places = Places::resumed(Places::default(), 3);
        let of_life = |life: u32, number: u32| (life << STRETCH_BITS) + number;
        places.adopt(of_life(1, 7));
        let mut taken_in = 0;
        for number in 0..3 * MAX_ADOPTED as u32 {
            let place = of_life(2, number);
            if places.may_adopt(place) {
                places.adopt(place);
                taken_in += 1;
            }
            assert!(places.adopted.len() <= MAX_ADOPTED);
            assert!(!places.may_adopt(place) && !places.may_adopt(of_life(1, 7)));
        }
        assert_eq!(taken_in, MAX_ADOPTED + 1, "then that life is closed, too");
        assert!(places.may_adopt(of_life(0, 5)), "which concerns no other");
    }

    #[test]
    fn a_life_runs_out_of_places_rather_than_take_another_ones() {
        let mut places = Places { given: (1 << STRETCH_BITS) - 1, ..Places::default() };
        assert_eq!(places.take(), Some((1 << STRETCH_BITS) - 1));
        assert_eq!(places.take(), None);
    }
}
