//! Compression of what unrolls carry most of: their observations.
//!
//! A rollout worker compresses on its own thread, and the learner decompresses on one that may block. What an array must come
//! to is known from the run's layout before a byte of it is read: nothing larger is ever made room for.

use crate::config::Compression;
use crate::wire::v1;

/// zstd's level: the fastest of the customary ones. On pictures of games higher ones gain a tenth.
const ZSTD_LEVEL: i32 = 1;

/// Most bytes that one byte of LZ4 stands for.
const LZ4_MAX_RATIO: usize = 255;

impl Compression {
    /// `bytes` compressed, if that makes them fewer.
    pub fn compress(self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut compressed = match self {
            Self::None => return None,
            Self::Lz4 => lz4_flex::block::compress(bytes),
            // It fails where memory does not suffice.
            Self::Zstd => zstd::bulk::compress(bytes, ZSTD_LEVEL).ok()?,
        };
        // The room was for the worst case, and an unroll may wait for long.
        compressed.shrink_to_fit();
        (compressed.len() < bytes.len()).then_some(compressed)
    }

    /// The `len` bytes that `compressed` stands for.
    ///
    /// # Errors
    /// If it stands for fewer or more bytes, in which case no room is made for more than `len`, or for nothing.
    pub fn decompress(self, compressed: &[u8], len: usize) -> Result<Vec<u8>, String> {
        let other = |found: String| Err(format!("{found}, expected {len} when decompressed"));
        let bytes = match self {
            Self::None => return Err("compressed in a run without compression".into()),
            Self::Lz4 => {
                if compressed.len().saturating_mul(LZ4_MAX_RATIO) < len {
                    return other(format!("{} bytes of LZ4 are too few", compressed.len()));
                }
                lz4_flex::block::decompress(compressed, len)
                    .map_err(|e| format!("not LZ4 as expected: {e}"))?
            }
            Self::Zstd => match zstd::zstd_safe::get_frame_content_size(compressed) {
                Ok(Some(size)) if size == len as u64 => zstd::bulk::decompress(compressed, len)
                    .map_err(|e| format!("not zstd as expected: {e}"))?,
                Ok(Some(size)) => return other(format!("{size} bytes")),
                Ok(None) => return Err("a zstd frame does not say its size".into()),
                Err(_) => return Err("not a frame of zstd".into()),
            },
        };
        if bytes.len() == len { Ok(bytes) } else { other(format!("{} bytes", bytes.len())) }
    }
}

impl From<Compression> for v1::Compression {
    fn from(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Unspecified,
            Compression::Lz4 => Self::Lz4,
            Compression::Zstd => Self::Zstd,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOTH: [Compression; 2] = [Compression::Lz4, Compression::Zstd];

    proptest! {
        #[test]
        fn whatever_gets_smaller_comes_back_as_it_was(
            pattern in proptest::collection::vec(0u8.., 1..40),
            length in 1usize..20_000,
        ) {
            let bytes: Vec<u8> = pattern.iter().copied().cycle().take(length).collect();
            for compression in BOTH {
                if let Some(compressed) = compression.compress(&bytes) {
                    prop_assert!(compressed.len() < bytes.len());
                    prop_assert_eq!(compression.decompress(&compressed, length), Ok(bytes.clone()));
                }
            }
        }

        #[test]
        fn garbage_is_refused_or_comes_to_the_size_expected(
            garbage in proptest::collection::vec(0u8.., 0..200),
            len in 0usize..500,
        ) {
            for compression in BOTH {
                if let Ok(bytes) = compression.decompress(&garbage, len) {
                    prop_assert_eq!(bytes.len(), len);
                }
            }
        }
    }

    #[test]
    fn pictures_shrink_and_noise_is_left_alone() {
        let picture: Vec<u8> = (0..7056).map(|i| if i / 84 == 20 { 236 } else { 87 }).collect();
        let mut state = 1u32;
        let noise: Vec<u8> = (0..7056)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        for compression in BOTH {
            let compressed = compression.compress(&picture).unwrap();
            assert!(compressed.len() < 200 && compressed.capacity() < 1000, "{}", compressed.len());
            assert_eq!(compression.compress(&noise), None);
        }
        assert_eq!(Compression::None.compress(&picture), None);
    }

    #[test]
    fn bombs_are_refused() {
        let zeros = vec![0u8; 50 << 20];
        for compression in BOTH {
            let bomb = compression.compress(&zeros).unwrap();
            let error = compression.decompress(&bomb, 1000).unwrap_err();
            assert!(error.contains("expected"), "{error}");
            let error = compression.decompress(&bomb[..bomb.len() / 2], zeros.len()).unwrap_err();
            assert!(error.contains("expected"), "{error}");
        }
        // Claims of far more than so few bytes can stand for.
        let few = Compression::Lz4.compress(&[7; 100]).unwrap();
        let error = Compression::Lz4.decompress(&few, 1 << 40).unwrap_err();
        assert!(error.contains("too few"), "{error}");
        let frame = Compression::Zstd.compress(&[7; 100]).unwrap();
        let error = Compression::Zstd.decompress(&frame, 1 << 40).unwrap_err();
        assert!(error.contains("100 bytes, expected 1099511627776"), "{error}");
        let error = Compression::None.decompress(&frame, 100).unwrap_err();
        assert!(error.contains("without compression"), "{error}");
    }
}
