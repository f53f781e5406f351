//! [`Memory`]: what an actor and its Python worker share.
//!
//! One anonymous file, mapped by both, that goes with the last of them. The arrays of all copies lie in it one after
//! another. Whose turn it is says the bell: the actor touches them only between the worker's answer and its own next ring.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;

use impresario_common::space::{ElementType, EnvironmentSpec};
use memmap2::MmapMut;
use rustix::fs::{MemfdFlags, memfd_create};

/// Arrays begin at multiples of this, so that they are aligned for any element type and share no cache line.
const ALIGNMENT: usize = 64;

/// Most pictures that come of a step: of the state in which an episode ended, and of that in which the next begins.
const PICTURES: usize = 2;

/// Numbers in the observations or actions of all copies together: a bound below which no size overflows.
const MAX_NUMBERS: usize = 1 << 40;

/// The file behind the shared memory, without a size yet.
pub(super) fn create() -> io::Result<File> {
    Ok(File::from(memfd_create("impresario-environments", MemfdFlags::CLOEXEC)?))
}

/// The arrays that are shared.
#[derive(Debug)]
pub(super) struct Memory {
    map: MmapMut,
    places: Places,
    picture_size: [usize; 2],
}

/// Where an array lies.
#[derive(Debug, Clone, Copy)]
struct Place {
    offset: usize,
    bytes: usize,
}

/// Where each array lies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    /// `[E, ...]`: what to act on next.
    observations: Place,
    /// `[E, ...]`: in which episodes ended.
    finals: Place,
    actions: Place,
    /// `[E]` f32.
    rewards: Place,
    /// `[E]` u8.
    terminated: Place,
    /// `[E]` u8.
    truncated: Place,
    /// `[E]` u8: 1 where an episode ended for learning only.
    goes_on: Place,
    /// `[E]` i64: seeds for a reset.
    seeds: Place,
    /// `[2, H, W, 3]` u8: pictures of the first copy; nothing unless it is filmed.
    pictures: Place,
    /// `[1]` u8: how many there are.
    shots: Place,
}

/// Where an array lies and what it is, as numpy understands it: offset, element type, shape.
pub(super) type Layout = BTreeMap<&'static str, (usize, &'static str, Vec<usize>)>;

impl Memory {
    /// Room in `file` for `copies` copies of an environment and pictures of `picture_size`, height and width; and what to tell the
    /// worker about it.
    ///
    /// # Errors
    /// If the operating system has no room.
    pub(super) fn new(
        file: &File,
        spec: &EnvironmentSpec,
        copies: usize,
        picture_size: [usize; 2],
    ) -> io::Result<(Self, Layout)> {
        let (places, layout, end) = Self::plan(spec, copies, picture_size)?;
        file.set_len(end as u64)?;
        // SAFETY: the file is anonymous: nobody truncates it, and nobody but the worker, whose process was started with it,
        // can write to it. The worker writes only between a ring of the bell and its answer, a time in which
        // the actor makes no reference to the bytes (`Process::ring` borrows them exclusively); a worker that breaks its turn
        // by a failure is killed before the bytes are looked at again. Any bytes are valid numbers.
        let map = unsafe { MmapMut::map_mut(file)? };
        Ok((Self { map, places, picture_size }, layout))
    }

    /// Where everything goes, what to tell the worker about it, and bytes that it takes.
    ///
    /// # Errors
    /// If that is more than can be counted.
    pub(super) fn plan(
        spec: &EnvironmentSpec,
        copies: usize,
        picture_size: [usize; 2],
    ) -> io::Result<(Places, Layout, usize)> {
        let numbers = spec.observation.len().max(spec.action.len()).checked_mul(copies);
        if numbers.is_none_or(|numbers| numbers > MAX_NUMBERS) {
            return Err(io::Error::other(format!(
                "{copies} copies of observations {} and actions {} are too many for the memory that is shared",
                spec.observation, spec.action
            )));
        }
        let of_all = |shape: Vec<usize>| [vec![copies], shape].concat();
        let (observation, action) = (&spec.observation, &spec.action);
        let (seen, done) = (numpy_name(observation.dtype()), numpy_name(action.dtype()));
        let mut layout = Layout::new();
        let mut end = 0;
        let mut place = |name, dtype: &'static str, size: usize, shape: Vec<usize>| {
            let place = Place { offset: end, bytes: size * shape.iter().product::<usize>() };
            end = (end + place.bytes).next_multiple_of(ALIGNMENT);
            layout.insert(name, (place.offset, dtype, shape));
            place
        };
        let places = Places {
            observations: place(
                "observations",
                seen,
                observation.dtype().bytes(),
                of_all(observation.shape()),
            ),
            finals: place("finals", seen, observation.dtype().bytes(), of_all(observation.shape())),
            actions: place("actions", done, action.dtype().bytes(), of_all(action.shape())),
            rewards: place("rewards", "<f4", 4, vec![copies]),
            terminated: place("terminated", "u1", 1, vec![copies]),
            truncated: place("truncated", "u1", 1, vec![copies]),
            goes_on: place("goes_on", "u1", 1, vec![copies]),
            seeds: place("seeds", "<i8", 8, vec![copies]),
            pictures: place("pictures", "u1", 1, vec![PICTURES, picture_size[0], picture_size[1], 3]),
            shots: place("shots", "u1", 1, vec![1]),
        };
        Ok((places, layout, end))
    }

    pub(super) fn observations(&mut self) -> &mut [u8] {
        self.part(self.places.observations)
    }

    pub(super) fn finals(&mut self) -> &mut [u8] {
        self.part(self.places.finals)
    }

    pub(super) fn actions(&mut self) -> &mut [u8] {
        self.part(self.places.actions)
    }

    pub(super) fn rewards(&mut self) -> &mut [f32] {
        bytemuck::cast_slice_mut(self.part(self.places.rewards))
    }

    pub(super) fn terminated(&mut self) -> &mut [u8] {
        self.part(self.places.terminated)
    }

    pub(super) fn truncated(&mut self) -> &mut [u8] {
        self.part(self.places.truncated)
    }

    /// Whether every flag that the worker has written is 0 or 1, as those who read them rely on.
    pub(super) fn flags_are_flags(&self) -> bool {
        let Places { terminated, truncated, goes_on, .. } = self.places;
        let flags =
            [terminated, truncated, goes_on].map(|place| &self.map[place.offset..place.offset + place.bytes]);
        flags.iter().all(|flags| flags.iter().all(|&flag| flag <= 1))
    }

    pub(super) fn goes_on(&self) -> &[u8] {
        let Place { offset, bytes } = self.places.goes_on;
        &self.map[offset..offset + bytes]
    }

    pub(super) fn seeds(&mut self) -> &mut [i64] {
        bytemuck::cast_slice_mut(self.part(self.places.seeds))
    }

    /// Height and width of a picture.
    pub(super) fn picture_size(&self) -> [usize; 2] {
        self.picture_size
    }

    /// The pixels of the pictures that were made since the last call, `[H, W, 3]` each.
    pub(super) fn take_pictures(&mut self) -> impl Iterator<Item = &[u8]> {
        let taken = std::mem::take(&mut self.part(self.places.shots)[0]);
        let len = self.picture_size.iter().product::<usize>() * 3;
        self.part(self.places.pictures).chunks_exact(len.max(1)).take(usize::from(taken))
    }

    fn part(&mut self, place: Place) -> &mut [u8] {
        &mut self.map[place.offset..place.offset + place.bytes]
    }
}

impl Memory {
    /// Fills it from its beginning, as a worker may that does not keep to its places.
    pub(super) fn scribble(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.map.len());
        self.map[..count].copy_from_slice(&bytes[..count]);
    }
}

fn numpy_name(dtype: ElementType) -> &'static str {
    match dtype {
        ElementType::F32 => "<f4",
        ElementType::U8 => "u1",
        ElementType::I32 => "<i4",
    }
}
