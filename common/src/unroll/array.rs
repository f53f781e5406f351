//! [`Array`]: numbers of an element type that is known at run time.

use crate::space::ElementType;

/// A flat array of one of the element types that cross the wire, in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// Bytes.
    U8(Vec<u8>),
    /// 32-bit integers.
    I32(Vec<i32>),
}

impl Array {
    /// `len` zeros.
    pub fn zeros(dtype: ElementType, len: usize) -> Self {
        match dtype {
            ElementType::F32 => Self::F32(vec![0.0; len]),
            ElementType::U8 => Self::U8(vec![0; len]),
            ElementType::I32 => Self::I32(vec![0; len]),
        }
    }

    /// Element type.
    pub fn dtype(&self) -> ElementType {
        match self {
            Self::F32(_) => ElementType::F32,
            Self::U8(_) => ElementType::U8,
            Self::I32(_) => ElementType::I32,
        }
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::U8(v) => v.len(),
            Self::I32(v) => v.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Size in bytes.
    pub fn bytes(&self) -> usize {
        self.len() * self.dtype().bytes()
    }

    /// No elements yet, and room for `capacity`.
    pub fn with_capacity(dtype: ElementType, capacity: usize) -> Self {
        match dtype {
            ElementType::F32 => Self::F32(Vec::with_capacity(capacity)),
            ElementType::U8 => Self::U8(Vec::with_capacity(capacity)),
            ElementType::I32 => Self::I32(Vec::with_capacity(capacity)),
        }
    }

    /// Removes all elements and keeps their room.
    pub fn clear(&mut self) {
        self.resize(0);
    }

    /// Makes it `len` elements long, filling with zeros.
    pub fn resize(&mut self, len: usize) {
        match self {
            Self::F32(v) => v.resize(len, 0.0),
            Self::U8(v) => v.resize(len, 0),
            Self::I32(v) => v.resize(len, 0),
        }
    }

    /// Appends `source[range]`.
    ///
    /// # Panics
    /// If element types differ or the range lies outside `source`.
    pub fn extend_from(&mut self, source: &Self, range: std::ops::Range<usize>) {
        match (self, source) {
            (Self::F32(to), Self::F32(from)) => to.extend_from_slice(&from[range]),
            (Self::U8(to), Self::U8(from)) => to.extend_from_slice(&from[range]),
            (Self::I32(to), Self::I32(from)) => to.extend_from_slice(&from[range]),
            (to, from) => panic!("cannot append {} to {}", from.dtype(), to.dtype()),
        }
    }

    /// Copies `source[from..from + len]` to `self[to..to + len]`.
    ///
    /// # Panics
    /// If element types differ or a range lies outside its array.
    pub fn copy_from(&mut self, to: usize, source: &Self, from: usize, len: usize) {
        match (self, source) {
            (Self::F32(t), Self::F32(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (Self::U8(t), Self::U8(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (Self::I32(t), Self::I32(f)) => t[to..to + len].copy_from_slice(&f[from..from + len]),
            (t, f) => panic!("cannot copy {} to {}", f.dtype(), t.dtype()),
        }
    }
}
