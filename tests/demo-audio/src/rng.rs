//! Random number generator. It is implemented here, so that a seed gives the same bytes with every release of every
//! crate.

/// SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    /// Creates an independent generator for a seed and keys. Equal arguments give equal numbers, regardless of other
    /// draws.
    pub(crate) fn keyed(seed: u64, keys: &[u64]) -> Self {
        let mut rng = Self(seed);
        for key in keys {
            rng = Self(rng.next() ^ key.wrapping_mul(0xA24B_AED4_963E_E407));
        }
        rng
    }

    /// Draws 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Draws a uniform number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Draws a uniform number in `[low, high)`.
    pub(crate) fn range(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Draws a sample of white noise in `[-1, 1)`.
    pub(crate) fn noise(&mut self) -> f32 {
        self.range(-1.0, 1.0)
    }

    /// Draws a uniform integer below `n`, which must not be 0.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Draws one of `items`, which must not be empty.
    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len())]
    }

    /// Draws a boolean that is true with this probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }
}

#[cfg(test)]
mod tests {
    use super::Rng;

    #[test]
    fn keys_give_independent_streams() {
        fn draw(seed: u64, keys: &[u64]) -> u64 {
            Rng::keyed(seed, keys).next()
        }

        assert_eq!(draw(7, &[1, 2]), draw(7, &[1, 2]));
        assert_ne!(draw(7, &[1, 2]), draw(7, &[2, 1]));
        assert_ne!(draw(7, &[1]), draw(8, &[1]));
    }

    #[test]
    fn uniform_numbers_stay_in_range_and_fill_it() {
        let mut rng = Rng::keyed(2, &[]);
        let drawn: Vec<f32> = (0..100_000).map(|_| rng.range(-2.0, 3.0)).collect();
        assert!(drawn.iter().all(|x| (-2.0..3.0).contains(x)));
        let mean = drawn.iter().sum::<f32>() / 100_000.0;
        assert!((mean - 0.5).abs() < 0.05, "mean {mean}");
    }
}
