//! Random numbers as a pure function of their key, for order, augmentation, mix-up and bootstrap.
//!
//! Draws share no state, so a run that is resumed at any point, on any number of ranks, draws the same numbers.
//! libtorch's own generator is only used for initial weights and dropout, and is seeded for each step.

use crate::canonical;

/// Hashes `parts` to a 64-bit key in the domain `domain`. The parts are not added: (1, 1) and (2, 0) have unrelated
/// keys.
pub fn mix(domain: &str, parts: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    // Eight bytes per part keep parts such as (1, 12) and (11, 2) distinct.
    for part in parts {
        hasher.update(&part.to_le_bytes());
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

/// Computes the key of a feature row: BLAKE3 of (`clip_key`, segment, variant).
pub fn row_key(clip_key: &str, segment: i32, variant: f32) -> u64 {
    // Segment and variant keep all their bits, so that every pair gives a different seed.
    canonical::hash(
        "row",
        u64::from(segment as u32) << 32 | u64::from(variant.to_bits()),
        clip_key,
    )
}

/// Counter-based generator Philox4x32-10: the n-th block is a function of key and n. Source: Salmon et al., "Parallel
/// random numbers: as easy as 1, 2, 3" (2011).
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// Creates the stream for `key`, as computed by [`mix`].
    pub fn new(key: u64) -> Self {
        Self {
            key: [key as u32, (key >> 32) as u32],
            block: 0,
            words: [0; 4],
            // No random words are available yet: the first draw computes the first block.
            used: 4,
        }
    }

    /// Creates the stream of one operation on one row in one epoch, which is the same on every rank.
    pub fn for_row(seed: u64, epoch: u64, row_key: u64, operation: &str) -> Self {
        Self::new(mix(operation, &[seed, epoch, row_key]))
    }

    /// Draws 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            // Half of the counter's 128 bits is sufficient: no stream uses 2⁶⁴ blocks.
            self.words = philox(
                [self.block as u32, (self.block >> 32) as u32, 0, 0],
                self.key,
            );
            self.block += 1;
            self.used = 0;
        }
        self.used += 1;
        self.words[self.used - 1]
    }

    /// Draws 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Draws a uniform integer in 0..n without bias (Lemire 2019). Returns 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // Draws again for 2⁶⁴ mod n of the 2⁶⁴ numbers, so that the others are distributed evenly over all results.
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Draws a uniform number in [0, 1) with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        // An f64 represents 53 bits exactly, so the result is not rounded up to 1.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws a uniform number in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Draws a standard normal number (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        // 1 − u is never 0, so its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Shuffles `items` (Fisher–Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        // Multipliers and key increments of the paper (Random123: `PHILOX_M4x32_0` and `_1`, `PHILOX_W32_0` and `_1`).
        let left = u64::from(counter[0]) * 0xD251_1F53;
        let right = u64::from(counter[2]) * 0xCD9E_8D57;
        counter = [
            (right >> 32) as u32 ^ counter[1] ^ key[0],
            right as u32,
            (left >> 32) as u32 ^ counter[3] ^ key[1],
            left as u32,
        ];
        key = [
            key[0].wrapping_add(0x9E37_79B9),
            key[1].wrapping_add(0xBB67_AE85),
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_matches_random123_known_answers() {
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn below_reaches_every_value_about_equally() {
        let mut counts = [0_u32; 7];
        let mut rng = Rng::new(mix("test", &[1]));
        (0..70_000).for_each(|_| counts[rng.below(7) as usize] += 1);
        assert!(
            counts.iter().all(|&n| (9_500..10_500).contains(&n)),
            "{counts:?}"
        );
    }

    #[test]
    fn normals_have_mean_zero_and_deviation_one() {
        let mut rng = Rng::new(7);
        let draws: Vec<f64> = (0..50_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let deviation =
            (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / draws.len() as f64).sqrt();
        assert!(
            mean.abs() < 0.02 && (deviation - 1.0).abs() < 0.02,
            "{mean} {deviation}"
        );
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_keys_differ_by_position() {
        let mut items: Vec<u32> = (0..1000).collect();
        Rng::new(mix("order", &[1, 1])).shuffle(&mut items);
        let mut again: Vec<u32> = (0..1000).collect();
        Rng::new(mix("order", &[2, 0])).shuffle(&mut again);
        assert_ne!(items, again);
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, &x)| i == x as usize));
        assert_ne!(row_key("a", 1, 1.0), row_key("a", 0, 1.0));
    }
}
