//! Observations of several parts: Gymnasium's `Dict` and `Tuple` spaces, laid out flat.
//!
//! The network sees one row of numbers. [`Composite::flatten`] says which: the parts one after another, numbers as they
//! are and choices as one-hot codes, as `gymnasium.spaces.utils.flatten` has it; but bytes are divided by the largest of their
//! space, as those of a plain box are. [`Layout`] names where each part lies, and
//! its [`Writer`] fills a row part by part, so that an environment's author computes no offset.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::space::{ElementType, Space};

/// A space, or spaces with names or numbers, which may be composite themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Composite {
    /// A space without parts.
    Leaf(Space),
    /// Parts with names, in alphabetical order (`Dict`).
    Dict(BTreeMap<String, Composite>),
    /// Parts in the order given (`Tuple`).
    Tuple(Vec<Composite>),
}

impl From<Space> for Composite {
    fn from(space: Space) -> Self {
        Self::Leaf(space)
    }
}

impl Composite {
    /// Parts with names.
    pub fn dict<N: Into<String>>(parts: impl IntoIterator<Item = (N, Composite)>) -> Self {
        Self::Dict(parts.into_iter().map(|(name, part)| (name.into(), part)).collect())
    }

    /// The flat box of all parts, `f32` `[N]`, and where in it each part lies.
    ///
    /// Bounds of numbers stay; a one-hot code lies between 0 and 1, and so do bytes.
    pub fn flatten(&self) -> (Space, Layout) {
        let mut layout = Layout::default();
        self.append("", &mut layout);
        (layout.space(), layout)
    }

    /// Appends the fields of this part, which is found at `path`.
    fn append(&self, path: &str, layout: &mut Layout) {
        let inner = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        match self {
            Self::Leaf(space) => layout.push(path.to_owned(), space.clone()),
            Self::Dict(parts) => parts.iter().for_each(|(name, part)| part.append(&inner(name), layout)),
            Self::Tuple(parts) => {
                let parts = parts.iter().enumerate();
                parts.for_each(|(number, part)| part.append(&inner(&number.to_string()), layout));
            }
        }
    }
}

/// A part of a flat observation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Field {
    /// Names and numbers that lead to it, joined by points: `arm.joints`, `camera.0`. Empty if it is the whole.
    pub path: String,
    /// The part's own space.
    pub space: Space,
    /// Where it starts.
    pub offset: usize,
}

impl Field {
    /// Where it lies in the flat observation.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.space.flat_len()
    }
}

/// Where each part of a flat observation lies, in order and without gaps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Layout {
    fields: Vec<Field>,
}

impl FromIterator<(String, Space)> for Layout {
    /// Parts with their paths, one after another.
    fn from_iter<I: IntoIterator<Item = (String, Space)>>(parts: I) -> Self {
        let mut layout = Self::default();
        parts.into_iter().for_each(|(path, space)| layout.push(path, space));
        layout
    }
}

impl Layout {
    fn push(&mut self, path: String, space: Space) {
        self.fields.push(Field { path, space, offset: self.len() });
    }

    /// The flat box of all parts, `f32` `[N]`.
    pub fn space(&self) -> Space {
        let (mut low, mut high) = (vec![], vec![]);
        for field in &self.fields {
            match &field.space {
                Space::Box { low: l, high: h, .. } => {
                    let unit = field.space.unit();
                    low.extend(l.iter().map(|bound| bound / unit));
                    high.extend(h.iter().map(|bound| bound / unit));
                }
                choices => {
                    low.resize(low.len() + choices.alternatives(), 0.0);
                    high.resize(high.len() + choices.alternatives(), 1.0);
                }
            }
        }
        Space::boxed(&low, &high)
    }

    /// The parts, in order.
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Numbers in a flat observation.
    pub fn len(&self) -> usize {
        self.fields.last().map_or(0, |last| last.range().end)
    }

    /// Whether a flat observation has no numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `row` part by part. A part that is left out stays NaN, which whoever reads the row reports.
    ///
    /// # Panics
    /// If `row` has another length.
    pub fn writer<'a>(&'a self, row: &'a mut [f32]) -> Writer<'a> {
        assert_eq!(row.len(), self.len(), "room for a flat observation");
        row.fill(f32::NAN);
        Writer { layout: self, row }
    }
}

/// Fills a flat observation part by part.
#[derive(Debug)]
pub struct Writer<'a> {
    layout: &'a Layout,
    row: &'a mut [f32],
}

impl Writer<'_> {
    /// Writes the numbers of the box at `path`, in C order.
    ///
    /// # Panics
    /// If there is no box of that size at `path`.
    pub fn numbers(&mut self, path: &str, values: &[f32]) -> &mut Self {
        let (space, room) = self.part(path);
        assert!(
            matches!(space, Space::Box { .. }) && room.len() == values.len(),
            "{path} is {space}, not {} numbers",
            values.len()
        );
        room.copy_from_slice(values);
        self
    }

    /// Writes the bytes of the box at `path`, each divided by the largest of its space.
    ///
    /// # Panics
    /// If there is no box of that many bytes at `path`.
    pub fn bytes(&mut self, path: &str, values: &[u8]) -> &mut Self {
        let (space, room) = self.part(path);
        let of_bytes = matches!(space, Space::Box { dtype: ElementType::U8, .. });
        assert!(of_bytes && room.len() == values.len(), "{path} is {space}, not {} bytes", values.len());
        let unit = space.unit();
        room.iter_mut().zip(values).for_each(|(number, byte)| *number = f32::from(*byte) / unit);
        self
    }

    /// Writes the choices at `path`, one of a `Discrete` or one for each of a `MultiDiscrete`, as one-hot codes.
    ///
    /// # Panics
    /// If there are no such choices at `path`.
    pub fn choices(&mut self, path: &str, choices: &[i32]) -> &mut Self {
        let (space, mut room) = self.part(path);
        let counts = space.choices();
        assert!(
            !counts.is_empty() && counts.len() == choices.len(),
            "{path} is {space}, not {} choices",
            choices.len()
        );
        for (&choice, &count) in choices.iter().zip(counts) {
            let (code, rest) = room.split_at_mut(count as usize);
            code.fill(0.0);
            match usize::try_from(choice).ok().and_then(|choice| code.get_mut(choice)) {
                Some(cell) => *cell = 1.0,
                None => panic!("{path} is {space}, of which {choice} is no choice"),
            }
            room = rest;
        }
        self
    }

    /// The space at `path` and the room for it.
    fn part(&mut self, path: &str) -> (&Space, &mut [f32]) {
        let Some(field) = self.layout.fields.iter().find(|field| field.path == path) else {
            let known: Vec<_> = self.layout.fields.iter().map(|field| field.path.as_str()).collect();
            panic!("the observation has no part {path:?}; it has {known:?}")
        };
        (&field.space, &mut self.row[field.range()])
    }
}
