//! The choice of instruction set, made once at run time.
//!
//! A kernel is written once as an `#[inline(always)]` body that is generic over [`Isa`]; [`dispatch!`]
//! wraps it in one function for each instruction set, compiled with that set's target features, and calls the
//! best one the processor has. Element-wise bodies are plain loops which the compiler vectorises; the matrix
//! product needs its accumulators in registers and is written with [`Simd`]'s explicit vectors.
//!
//! *Invariant*: a body passes no closure to a function that may not be inlined (`LocalKey::with` is one). Such a
//! closure is compiled without the target features, and every vector instruction in it becomes a call.

/// An instruction set a kernel can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the target architecture has.
    Portable,
    /// AVX2 and FMA: eight lanes.
    Avx2,
    /// AVX-512 F, VL, DQ, BW: sixteen lanes.
    Avx512,
}

/// The best instruction set this processor has.
#[inline]
pub(crate) fn level() -> Level {
    #[cfg(test)]
    if let Some(level) = tests::FORCED.get() {
        return level;
    }
    detected()
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn detected() -> Level {
    use std::sync::atomic::{AtomicU8, Ordering};
    static CACHED: AtomicU8 = AtomicU8::new(0);
    match CACHED.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Avx2,
        3 => Level::Avx512,
        _ => {
            let fma = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let wide = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw");
            let (code, level) = match (fma, wide) {
                (true, true) => (3, Level::Avx512),
                (true, false) => (2, Level::Avx2),
                _ => (1, Level::Portable),
            };
            CACHED.store(code, Ordering::Relaxed);
            level
        }
    }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn detected() -> Level {
    Level::Portable
}

/// Marks the instruction set a generic kernel body is compiled for.
pub(crate) trait Isa: Copy {
    /// Whether a fused multiply-add is one instruction.
    const FMA: bool;

    /// `a * b + c`, fused where that is one instruction.
    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        if Self::FMA { a.mul_add(b, c) } else { a * b + c }
    }
}

/// Vectors of `f32` for bodies that hold them in registers.
///
/// # Safety
/// Every method may only run where the instruction set is present, that is below [`dispatch!`].
pub(crate) trait Simd: Isa {
    /// Numbers in a vector.
    const LANES: usize;
    /// Vectors side by side in a tile of the matrix product, so that accumulators fit the registers.
    const TILE_VECTORS: usize;
    /// A vector.
    type Vector: Copy;

    /// All lanes zero.
    unsafe fn zero() -> Self::Vector;
    /// All lanes `value`.
    unsafe fn splat(value: f32) -> Self::Vector;
    /// Reads `LANES` numbers.
    unsafe fn load(from: *const f32) -> Self::Vector;
    /// Writes `LANES` numbers.
    unsafe fn store(to: *mut f32, value: Self::Vector);
    /// Reads the first `count <= LANES` numbers; other lanes are zero.
    unsafe fn load_first(from: *const f32, count: usize) -> Self::Vector;
    /// Writes the first `count <= LANES` numbers.
    unsafe fn store_first(to: *mut f32, value: Self::Vector, count: usize);
    /// Reads `LANES` numbers that are `stride` apart; all of them lie within `i32::MAX` numbers.
    unsafe fn gather(from: *const f32, stride: usize) -> Self::Vector;
    /// `a + b`.
    unsafe fn add(a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// `max(a, 0)`; NaN stays NaN.
    unsafe fn rectify(a: Self::Vector) -> Self::Vector;
    /// `a * b + c`.
    unsafe fn fma(a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
}

/// The architecture's baseline, as the compiler vectorises it.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

impl Isa for Portable {
    const FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));
}

impl Simd for Portable {
    const LANES: usize = 4;
    const TILE_VECTORS: usize = 2;
    type Vector = [f32; 4];

    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 4] {
        [value; 4]
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for four numbers at `from`; the read may be unaligned.
        unsafe { from.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(to: *mut f32, value: [f32; 4]) {
        // SAFETY: the caller vouches for four numbers at `to`; the write may be unaligned.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(value) }
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> [f32; 4] {
        let mut value = [0.0; 4];
        for (lane, slot) in value.iter_mut().enumerate().take(count) {
            // SAFETY: the caller vouches for `count` numbers at `from`.
            *slot = unsafe { *from.add(lane) };
        }
        value
    }
    #[inline(always)]
    unsafe fn store_first(to: *mut f32, value: [f32; 4], count: usize) {
        for (lane, number) in value.into_iter().enumerate().take(count) {
            // SAFETY: the caller vouches for `count` numbers at `to`.
            unsafe { *to.add(lane) = number };
        }
    }
    #[inline(always)]
    unsafe fn gather(from: *const f32, stride: usize) -> [f32; 4] {
        // SAFETY: the caller vouches for four numbers, `stride` apart, from `from` on.
        std::array::from_fn(|lane| unsafe { *from.add(lane * stride) })
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| a[lane] + b[lane])
    }
    #[inline(always)]
    unsafe fn rectify(a: [f32; 4]) -> [f32; 4] {
        a.map(|a| if a < 0.0 { 0.0 } else { a })
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|lane| Self::mul_add(a[lane], b[lane], c[lane]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::{Isa, Simd};

    /// AVX2 with FMA: sixteen registers of eight lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    impl Isa for Avx2 {
        const FMA: bool = true;
    }

    /// Lane masks: the eight numbers that start at `8 - count` select the first `count` lanes.
    static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn mask(count: usize) -> __m256i {
        debug_assert!(count <= 8);
        // SAFETY: `count <= 8`, so that eight numbers follow within `MASKS`; AVX2 is present by `Simd`'s contract.
        unsafe { _mm256_loadu_si256(MASKS.as_ptr().add(8 - count).cast()) }
    }

    impl Simd for Avx2 {
        const LANES: usize = 8;
        const TILE_VECTORS: usize = 2;
        type Vector = __m256;

        #[inline(always)]
        unsafe fn zero() -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract.
            unsafe { _mm256_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract.
            unsafe { _mm256_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract; the caller vouches for eight numbers at `from`.
            unsafe { _mm256_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: __m256) {
            // SAFETY: AVX2 is present by `Simd`'s contract; the caller vouches for eight numbers at `to`.
            unsafe { _mm256_storeu_ps(to, value) }
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract; lanes beyond `count` are not read.
            unsafe { _mm256_maskload_ps(from, mask(count)) }
        }
        #[inline(always)]
        unsafe fn store_first(to: *mut f32, value: __m256, count: usize) {
            // SAFETY: AVX2 is present by `Simd`'s contract; lanes beyond `count` are not written.
            unsafe { _mm256_maskstore_ps(to, mask(count), value) }
        }
        #[inline(always)]
        unsafe fn gather(from: *const f32, stride: usize) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract; the caller vouches for eight numbers, `stride` apart.
            unsafe {
                let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
                _mm256_i32gather_ps::<4>(from, _mm256_mullo_epi32(lanes, _mm256_set1_epi32(stride as i32)))
            }
        }
        #[inline(always)]
        unsafe fn add(a: __m256, b: __m256) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract.
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn rectify(a: __m256) -> __m256 {
            // SAFETY: AVX2 is present by `Simd`'s contract. The second operand is the result where one is NaN.
            unsafe { _mm256_max_ps(_mm256_setzero_ps(), a) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
            // SAFETY: FMA is present by `Simd`'s contract.
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
    }

    /// AVX-512: thirty-two registers of sixteen lanes.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    impl Isa for Avx512 {
        const FMA: bool = true;
    }

    impl Simd for Avx512 {
        const LANES: usize = 16;
        const TILE_VECTORS: usize = 4;
        type Vector = __m512;

        #[inline(always)]
        unsafe fn zero() -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract.
            unsafe { _mm512_setzero_ps() }
        }
        #[inline(always)]
        unsafe fn splat(value: f32) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract.
            unsafe { _mm512_set1_ps(value) }
        }
        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract; the caller vouches for sixteen numbers at `from`.
            unsafe { _mm512_loadu_ps(from) }
        }
        #[inline(always)]
        unsafe fn store(to: *mut f32, value: __m512) {
            // SAFETY: AVX-512 is present by `Simd`'s contract; the caller vouches for sixteen numbers at `to`.
            unsafe { _mm512_storeu_ps(to, value) }
        }
        #[inline(always)]
        unsafe fn load_first(from: *const f32, count: usize) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract; lanes beyond `count` are not read.
            unsafe { _mm512_maskz_loadu_ps(((1u32 << count) - 1) as u16, from) }
        }
        #[inline(always)]
        unsafe fn store_first(to: *mut f32, value: __m512, count: usize) {
            // SAFETY: AVX-512 is present by `Simd`'s contract; lanes beyond `count` are not written.
            unsafe { _mm512_mask_storeu_ps(to, ((1u32 << count) - 1) as u16, value) }
        }
        #[inline(always)]
        unsafe fn gather(from: *const f32, stride: usize) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract; the caller vouches for sixteen numbers, `stride` apart.
            unsafe {
                let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
                _mm512_i32gather_ps::<4>(_mm512_mullo_epi32(lanes, _mm512_set1_epi32(stride as i32)), from)
            }
        }
        #[inline(always)]
        unsafe fn add(a: __m512, b: __m512) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract.
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn rectify(a: __m512) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract. The second operand is the result where one is NaN.
            unsafe { _mm512_max_ps(_mm512_setzero_ps(), a) }
        }
        #[inline(always)]
        unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
            // SAFETY: AVX-512 is present by `Simd`'s contract.
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
    }
}

/// Defines functions that run a generic body on the best instruction set the processor has.
///
/// `fn name(arguments) -> result = body;` where `body` is an `#[inline(always)]` function generic over one
/// [`Isa`] (or [`Simd`]) type and takes the same arguments.
macro_rules! dispatch {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:path;)+) => {$(
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "the arguments of a kernel are its shape and its slices")]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            use $body as body;
            #[cfg(target_arch = "x86_64")]
            {
                use $crate::kernels::simd::{Avx2, Avx512, Level};

                #[allow(clippy::too_many_arguments, reason = "as above")]
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn avx512($($arg: $ty),*) $(-> $ret)? {
                    body::<Avx512>($($arg),*)
                }
                #[allow(clippy::too_many_arguments, reason = "as above")]
                #[target_feature(enable = "avx2,fma")]
                fn avx2($($arg: $ty),*) $(-> $ret)? {
                    body::<Avx2>($($arg),*)
                }
                match $crate::kernels::simd::level() {
                    // SAFETY: `level` names an instruction set only where the processor has it.
                    Level::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    Level::Avx2 => return unsafe { avx2($($arg),*) },
                    Level::Portable => {}
                }
            }
            body::<$crate::kernels::simd::Portable>($($arg),*)
        }
    )+};
}
pub(crate) use dispatch;

#[cfg(test)]
pub(crate) mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        /// The instruction set that tests on this thread pretend to be limited to.
        pub(super) static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    /// Runs `test` once with every instruction set this processor has.
    pub(crate) fn at_every_level(mut test: impl FnMut(Level)) {
        let best = detected();
        for level in [Level::Portable, Level::Avx2, Level::Avx512] {
            if level as u8 <= best as u8 {
                FORCED.set(Some(level));
                test(level);
                FORCED.set(None);
            }
        }
    }
}
