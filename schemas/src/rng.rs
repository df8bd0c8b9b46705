//! Random numbers that are a pure function of their key: order, augmentation, mix-up and bootstrap draw from here.
//!
//! No state crosses from one use to the next, so that a run resumed anywhere, on any number of ranks, draws the same.
//! libtorch's own generator serves only initial weights and dropout, and is seeded for each step.

use crate::canonical;

/// A 64-bit key of `parts` in the domain `domain`. Mixed, never added: (1, 1) and (2, 0) are strangers.
pub fn mix(domain: &str, parts: &[u64]) -> u64 {
    let mut hasher = blake3::Hasher::new_derive_key(domain);
    // Eight bytes each, so that (1, 12) and (11, 2) do not run together.
    for part in parts {
        hasher.update(&part.to_le_bytes());
    }
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

/// The key of a feature row: blake3 over (`clip_key`, segment, variant).
pub fn row_key(clip_key: &str, segment: i32, variant: f32) -> u64 {
    // Both numbers keep all their bits: no two pairs of them are one seed.
    canonical::hash(
        "row",
        u64::from(segment as u32) << 32 | u64::from(variant.to_bits()),
        clip_key,
    )
}

/// Philox4x32-10: the n-th block is a function of key and n. Source: Salmon et al., "Parallel random numbers: as easy
/// as 1, 2, 3" (2011).
#[derive(Clone, Debug)]
pub struct Rng {
    key: [u32; 2],
    block: u64,
    words: [u32; 4],
    used: usize,
}

impl Rng {
    /// The stream named by `key`, as [`mix`] makes it.
    pub fn new(key: u64) -> Self {
        Self {
            key: [key as u32, (key >> 32) as u32],
            block: 0,
            words: [0; 4],
            // Nothing is there to be used: the first number makes the first block.
            used: 4,
        }
    }

    /// The stream of one operation on one row in one epoch, whoever draws it.
    pub fn for_row(seed: u64, epoch: u64, row_key: u64, operation: &str) -> Self {
        Self::new(mix(operation, &[seed, epoch, row_key]))
    }

    /// 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.used == 4 {
            // Half of the counter is enough: nobody draws 2⁶⁴ blocks from one stream.
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

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let low = u64::from(self.next_u32());
        low | u64::from(self.next_u32()) << 32
    }

    /// Uniform in 0..n, without bias (Lemire 2019). 0 for n = 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        // 2⁶⁴ mod n: that many of the products are drawn again, and each result has equally many of the others.
        let threshold = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= threshold {
                return (product >> 64) as u64;
            }
        }
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        // As many bits as an f64 holds: nothing is rounded, so that 1 is never reached.
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in [low, high).
    pub fn uniform_in(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// Standard normal (Box and Muller 1958).
    pub fn normal(&mut self) -> f64 {
        // 1 − u is never 0, so its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Fisher and Yates's shuffle.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        // The paper's multipliers and key steps (Random123: `PHILOX_M4x32_0` and `_1`, `PHILOX_W32_0` and `_1`).
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
    fn known_answers_of_random123() {
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
