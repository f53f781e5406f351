//! Arrays as they come from the wire: taken out of bytes, and checked.

use bytemuck::Pod;

use super::{Isa, dispatch};

/// The elements that lie in `bytes` in this machine's byte order, which need not be aligned; what is left over of a last
/// one is ignored.
pub fn elements<T: Pod>(bytes: &[u8]) -> Vec<T> {
    let count = bytes.len() / size_of::<T>().max(1);
    let mut elements = Vec::<T>::with_capacity(count);
    // SAFETY: `bytes` holds at least `count` elements' bytes, the vector has room for as many, and they do not overlap
    // as one is borrowed and the other new. Any bits are a value of a `Pod` type, and `count` of them are written.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), elements.as_mut_ptr().cast(), count * size_of::<T>());
        elements.set_len(count);
    }
    elements
}

dispatch! {
    /// Whether every element is one of `0..n`.
    pub fn all_below(xs: &[i32], n: u32) -> bool = all_below_body;

    /// How many steps are flagged in `cut` and not in `end`, both 0 or 1 and of the same length.
    pub fn count_cut(end: &[u8], cut: &[u8]) -> usize = count_cut_body;
}

#[inline(always)]
fn all_below_body<S: Isa>(xs: &[i32], n: u32) -> bool {
    // A negative number becomes a large one.
    xs.chunks(1024).all(|chunk| chunk.iter().fold(0, |bad, &x| bad | u32::from(x as u32 >= n)) == 0)
}

#[inline(always)]
fn count_cut_body<S: Isa>(end: &[u8], cut: &[u8]) -> usize {
    // As many as a byte can count.
    const STRETCH: usize = u8::MAX as usize;
    let stretches = end.chunks(STRETCH).zip(cut.chunks(STRETCH));
    stretches.map(|(end, cut)| end.iter().zip(cut).fold(0u8, |n, (&e, &c)| n + (c & !e & 1)) as usize).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::simd::tests::at_every_level;

    #[test]
    fn elements_are_found_wherever_their_bytes_lie() {
        let values: Vec<f32> = (0..1000).map(|i| i as f32 * 0.37 - 99.0).collect();
        for offset in 0..4 {
            let mut bytes = vec![0xAA; offset];
            bytes.extend(values.iter().flat_map(|v| v.to_ne_bytes()));
            assert_eq!(elements::<f32>(&bytes[offset..]), values);
            bytes.extend([1, 2, 3]);
            assert_eq!(elements::<f32>(&bytes[offset..]), values, "three bytes are no element");
        }
        assert!(elements::<i32>(&[]).is_empty());
    }

    #[test]
    fn one_number_out_of_range_anywhere_is_found() {
        at_every_level(|_| {
            let mut xs = vec![6; 3000];
            assert!(all_below(&xs, 7) && all_below(&[], 0) && !all_below(&xs, 6));
            for bad in [7, i32::MAX, -1, i32::MIN] {
                for at in [0, 1023, 1024, 2999] {
                    xs[at] = bad;
                    assert!(!all_below(&xs, 7), "{bad} at {at}");
                    xs[at] = 6;
                }
            }
        });
    }

    #[test]
    fn cut_steps_are_counted_one_by_one() {
        at_every_level(|_| {
            for length in [0, 1, 254, 255, 256, 511, 3000] {
                let end: Vec<u8> = (0..length).map(|i| u8::from(i % 5 == 0)).collect();
                let some: Vec<u8> = (0..length).map(|i| u8::from(i % 3 == 0)).collect();
                let expected = (0..length).filter(|i| i % 3 == 0 && i % 5 != 0).count();
                assert_eq!(count_cut(&end, &some), expected);
                assert_eq!(count_cut(&vec![0; length], &vec![1; length]), length, "all of {length}");
            }
        });
    }
}
