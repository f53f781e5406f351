//! Access to the arrays that cross the environment seam, by element type and by copy.

use std::ops::Range;

use impresario_common::space::ElementType;

use super::{Action, ObservationMut};

impl<'a> ObservationMut<'a> {
    /// The room of an environment whose observation space is `f32`.
    ///
    /// # Panics
    /// If the room is for another element type, which a vector rules out before it steps.
    pub fn into_f32(self) -> &'a mut [f32] {
        match self {
            Self::F32(values) => values,
            other => panic!("an f32 observation was offered room for {}", other.dtype()),
        }
    }

    /// The room of an environment whose observation space is bytes.
    ///
    /// # Panics
    /// If the room is for another element type, which a vector rules out before it steps.
    pub fn into_u8(self) -> &'a mut [u8] {
        match self {
            Self::U8(values) => values,
            other => panic!("a byte observation was offered room for {}", other.dtype()),
        }
    }

    /// The room of an environment whose observation space is discrete or multi-discrete.
    ///
    /// # Panics
    /// If the room is for another element type, which a vector rules out before it steps.
    pub fn into_i32(self) -> &'a mut [i32] {
        match self {
            Self::I32(values) => values,
            other => panic!("an i32 observation was offered room for {}", other.dtype()),
        }
    }

    /// Element type there is room for.
    pub fn dtype(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::U8(_) => ElementType::U8,
            Self::I32(_) => ElementType::I32,
        }
    }

    /// How many numbers there is room for.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::U8(values) => values.len(),
            Self::I32(values) => values.len(),
        }
    }

    /// Whether there is room for nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the room, say that of one copy.
    ///
    /// # Panics
    /// If `range` reaches beyond the room.
    #[inline]
    pub fn part(&mut self, range: Range<usize>) -> ObservationMut<'_> {
        match self {
            Self::F32(values) => ObservationMut::F32(&mut values[range]),
            Self::U8(values) => ObservationMut::U8(&mut values[range]),
            Self::I32(values) => ObservationMut::I32(&mut values[range]),
        }
    }
}

impl<'a> Action<'a> {
    /// The choices of a discrete or multi-discrete action.
    ///
    /// # Panics
    /// If the action is continuous, which a vector rules out before it steps.
    pub fn discrete(self) -> &'a [i32] {
        match self {
            Self::Discrete(choices) => choices,
            Self::Continuous(_) => panic!("a continuous action was given where choices are needed"),
        }
    }

    /// The numbers of a continuous action.
    ///
    /// # Panics
    /// If the action is discrete, which a vector rules out before it steps.
    pub fn continuous(self) -> &'a [f32] {
        match self {
            Self::Continuous(values) => values,
            Self::Discrete(_) => panic!("choices were given where a continuous action is needed"),
        }
    }

    /// How many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Discrete(choices) => choices.len(),
            Self::Continuous(values) => values.len(),
        }
    }

    /// Whether there is no number at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A part of the numbers, say those of one copy.
    ///
    /// # Panics
    /// If `range` reaches beyond them.
    #[inline]
    pub fn part(self, range: Range<usize>) -> Action<'a> {
        match self {
            Self::Discrete(choices) => Action::Discrete(&choices[range]),
            Self::Continuous(values) => Action::Continuous(&values[range]),
        }
    }
}
