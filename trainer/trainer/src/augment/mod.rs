//! Augmentation: random changes to training rows, applied on the device to each batch. A row differs in every epoch.
//!
//! The changes to a row depend only on seed, epoch, row key and operation, and are reproducible to the bit: neither the
//! number of ranks nor the other rows of the batch affect them. Therefore augmentation uses only arithmetic that rounds
//! each element independently (IEEE sums and products, integers, look-ups), no sine or logarithm, whose last bit
//! depends on an element's position in a vector.

use tch::{Device, Kind, Tensor};
use wavemill_schemas::config;
use wavemill_schemas::rng::Rng;

use crate::ffi;

mod noise;

/// Index of the first column of [`Draws::whole_numbers`] that describes masks.
const FIRST_MASK: i64 = 3;

/// Augments batches on one device with the settings of one configuration.
///
/// Each row is changed independently, in this order: rotation in time by up to `time_shift` of its frames in either
/// direction, as `numpy.roll`; a shift by up to `frequency_shift_bands` up or down, with zeros entering at the edge;
/// one factor from `amplitude`; noise on every value; masks of 0, each between 0 and the maximum number of bands or
/// frames wide, anywhere in the row. 0 is silence in min-max features and the mean in normalised ones. No clamping.
#[derive(Debug)]
pub(crate) struct Augmenter {
    settings: config::Augment,
    seed: u64,
    /// Table of noise values from [`noise::table`]; `None` without noise.
    noise: Option<Tensor>,
}

/// Keys of the rows of a batch, and the epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    /// Epoch in progress, from 0.
    pub epoch: u64,
    /// Key of each row, from [`wavemill_schemas::rng::row_key`].
    pub keys: &'a [u64],
}

/// Draws a row's random numbers on the host. The numbers of all rows are combined into one i64 tensor `[n, columns]`.
struct Draws<'a> {
    settings: &'a config::Augment,
    seed: u64,
    epoch: u64,
    bands: u64,
    frames: u64,
    key: u64,
}

impl Augmenter {
    /// Creates an augmenter with a run's settings and seed, for features of `kind` (f32 or f64) on `device`.
    pub(crate) fn new(settings: &config::Augment, seed: u64, kind: Kind, device: Device) -> Self {
        let noise =
            (settings.noise_std > 0.0).then(|| noise::table(settings.noise_std, kind, device));
        Self {
            settings: settings.clone(),
            seed,
            noise,
        }
    }

    /// Returns augmented features `[n, bands, frames]` with the same shape, kind and device. Returns the features
    /// unchanged if augmentation is disabled.
    ///
    /// # Panics
    /// If the number of keys in `rows` differs from the number of rows in `features`.
    pub(crate) fn apply(&self, features: &Tensor, rows: Rows<'_>) -> Tensor {
        if !self.settings.enabled || rows.keys.is_empty() {
            return features.shallow_clone();
        }
        let (n, bands, frames) = features
            .size3()
            .expect("features are [rows, bands, frames]");
        assert_eq!(n as usize, rows.keys.len(), "a key for each row");

        tch::no_grad(|| {
            let mut whole_numbers = Vec::new();
            let mut factors = Vec::with_capacity(rows.keys.len());
            for &key in rows.keys {
                let draws = Draws {
                    settings: &self.settings,
                    seed: self.seed,
                    epoch: rows.epoch,
                    bands: bands as u64,
                    frames: frames as u64,
                    key,
                };
                whole_numbers.extend(draws.whole_numbers());
                factors.push(draws.amplitude());
            }
            // The random numbers are drawn on the host, so they do not depend on the device.
            let drawn = ffi::on(
                &Tensor::from_slice(&whole_numbers).view([n, -1]),
                features.device(),
            );
            let factors = ffi::on(
                &Tensor::from_slice(&factors).to_kind(features.kind()),
                features.device(),
            );

            // `moved` returns a copy, which the following operations change in place.
            let mut out = moved(features, &drawn);
            let _ = out.g_mul_(&factors.view([n, 1, 1]));
            if let Some(table) = &self.noise {
                let keys = drawn.narrow(1, 2, 1);
                let noise = noise::draw(table, &keys, bands * frames);
                let _ = out.g_add_(&noise.view_as(&out));
            }
            self.mask(&mut out, &drawn);
            out
        })
    }

    /// Sets the masked bands and frames to 0. The masks are the columns of `drawn` from [`FIRST_MASK`] on.
    fn mask(&self, out: &mut Tensor, drawn: &Tensor) {
        let (_, bands, frames) = out.size3().expect("features are [rows, bands, frames]");
        let band_masks = self.settings.frequency_masks as i64;
        let frame_masks = self.settings.time_masks as i64;

        if band_masks > 0 {
            let bounds = drawn.narrow(1, FIRST_MASK, 2 * band_masks);
            let _ = out.masked_fill_(&inside(&bounds, bands).unsqueeze(2), 0.0);
        }
        if frame_masks > 0 {
            let first = FIRST_MASK + 2 * band_masks;
            let bounds = drawn.narrow(1, first, 2 * frame_masks);
            let _ = out.masked_fill_(&inside(&bounds, frames).unsqueeze(1), 0.0);
        }
    }
}

impl Draws<'_> {
    fn rng(&self, operation: &str) -> Rng {
        Rng::for_row(self.seed, self.epoch, self.key, operation)
    }

    /// Returns the frames to rotate by, the bands to shift by, the key of the noise, and start and end of each mask.
    fn whole_numbers(&self) -> Vec<i64> {
        let s = self.settings;
        // Each operation has its own random number stream, so disabling one does not change the others.
        let frames = (s.time_shift * self.frames as f64) as u64;
        let mut drawn = vec![
            self.either_way(frames, "augment.time_shift"),
            self.either_way(s.frequency_shift_bands, "augment.frequency_shift"),
            self.rng("augment.noise").next_u64() as i64,
        ];

        let mut rng = self.rng("augment.frequency_mask");
        let widest = s.frequency_mask_bands.min(self.bands);
        for _ in 0..s.frequency_masks {
            drawn.extend(mask_bounds(&mut rng, widest, self.bands));
        }

        let mut rng = self.rng("augment.time_mask");
        let widest = s.time_mask_frames.min(self.frames);
        for _ in 0..s.time_masks {
            drawn.extend(mask_bounds(&mut rng, widest, self.frames));
        }
        drawn
    }

    /// Draws a whole number from −`most` to `most`.
    fn either_way(&self, most: u64, operation: &str) -> i64 {
        self.rng(operation).below(2 * most + 1) as i64 - most as i64
    }

    fn amplitude(&self) -> f64 {
        let [low, high] = self.settings.amplitude;
        self.rng("augment.amplitude").uniform_in(low, high)
    }
}

/// Draws the start and end of a mask on an axis of `length`. The mask covers at most `widest` positions.
fn mask_bounds(rng: &mut Rng, widest: u64, length: u64) -> [i64; 2] {
    // The width is drawn before the start, so that every start at which the whole mask fits is equally likely.
    let width = rng.below(widest + 1);
    let start = rng.below(length - width + 1);
    [start as i64, (start + width) as i64]
}

/// Rotates rows in time by column 0 of `drawn`, and shifts them in frequency by column 1.
fn moved(features: &Tensor, drawn: &Tensor) -> Tensor {
    let (n, bands, frames) = features
        .size3()
        .expect("features are [rows, bands, frames]");
    let device = features.device();

    // The frame and the band of the input from which the value at each output position is taken.
    let frame_shift = drawn.narrow(1, 0, 1).view([n, 1, 1]);
    let band_shift = drawn.narrow(1, 1, 1).view([n, 1, 1]);
    // `remainder` is never negative here, so frames before the first one are taken from the end of the row.
    let from_frame = (indices(frames, device).view([1, 1, frames]) - frame_shift).remainder(frames);
    let from_band = indices(bands, device).view([1, bands, 1]) - band_shift;
    let outside = from_band.lt(0).logical_or(&from_band.ge(bands));

    let all = [n, bands, frames];
    let rotated = features.gather(2, &from_frame.expand(all, false), false);
    // The clamp only keeps band indices valid: values from bands outside the row are set to 0 below.
    let mut moved = rotated.gather(1, &from_band.clamp(0, bands - 1).expand(all, false), false);
    moved.masked_fill_(&outside, 0.0)
}

fn indices(length: i64, device: Device) -> Tensor {
    Tensor::arange(length, (Kind::Int64, device))
}

/// Returns, as bool `[n, length]`, whether each position is within any mask of its row. `bounds` `[n, 2 · masks]`
/// contains the start and end of each mask.
fn inside(bounds: &Tensor, length: i64) -> Tensor {
    let n = bounds.size()[0];
    let bounds = bounds.reshape([n, -1, 2]);
    let index = indices(length, bounds.device()).view([1, 1, length]);
    let after_start = index.ge_tensor(&bounds.narrow(2, 0, 1));
    after_start
        .logical_and(&index.lt_tensor(&bounds.narrow(2, 1, 1)))
        .any_dim(1, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(change: impl Fn(&mut config::Augment)) -> config::Augment {
        let mut none = config::Augment {
            enabled: true,
            frequency_masks: 0,
            time_masks: 0,
            amplitude: [1.0, 1.0],
            time_shift: 0.0,
            noise_std: 0.0,
            frequency_shift_bands: 0,
            ..config::Augment::default()
        };

        change(&mut none);
        none
    }

    fn random(n: i64, bands: i64, frames: i64) -> Tensor {
        Tensor::rand([n, bands, frames], (Kind::Float, Device::Cpu)) + 0.5
    }

    fn augmented(settings: &config::Augment, features: &Tensor, keys: &[u64]) -> Tensor {
        Augmenter::new(settings, 11, Kind::Float, Device::Cpu)
            .apply(features, Rows { epoch: 2, keys })
    }

    fn drawn(settings: &config::Augment, key: u64, bands: u64, frames: u64) -> Vec<i64> {
        Draws {
            settings,
            seed: 11,
            epoch: 2,
            bands,
            frames,
            key,
        }
        .whole_numbers()
    }

    fn equal(a: &Tensor, b: &Tensor) -> bool {
        a.view_dtype(Kind::Int) == b.view_dtype(Kind::Int)
    }

    #[test]
    fn a_row_alone_has_the_bits_it_has_among_others() {
        let settings = config::Augment {
            enabled: true,
            ..config::Augment::default()
        };

        for (bands, frames) in [(128, 323), (13, 37)] {
            let (features, keys) = (random(7, bands, frames), [3, 1, 4, 1 << 63, 5, 9, 2]);
            let together = augmented(&settings, &features, &keys);

            for (row, key) in keys.into_iter().enumerate() {
                let one = features.narrow(0, row as i64, 1);
                let alone = augmented(&settings, &one, &[key]);
                assert!(
                    equal(&alone, &together.narrow(0, row as i64, 1)),
                    "row {row} of {bands} x {frames}"
                );
                assert!(!equal(&alone, &one.contiguous()), "row {row} is as it was");
            }
        }
    }

    #[test]
    fn disabled_augmentation_changes_nothing_and_epochs_differ() {
        let features = random(2, 8, 40);
        assert!(equal(
            &augmented(&config::Augment::default(), &features, &[1, 2]),
            &features
        ));
        assert!(equal(
            &augmented(&only(|_| ()), &features, &[1, 2]),
            &features
        ));

        let all = Augmenter::new(
            &config::Augment {
                enabled: true,
                ..config::Augment::default()
            },
            11,
            Kind::Float,
            Device::Cpu,
        );
        let [first, again, other] = [0, 0, 1].map(|epoch| {
            let keys = &[1, 2];
            all.apply(&features, Rows { epoch, keys })
        });

        assert!(equal(&first, &again));
        assert!(!equal(&first, &other));
    }

    #[test]
    fn a_row_is_rolled_in_time_and_moved_in_bands_with_zeros() {
        let settings = only(|a| {
            a.time_shift = 0.15;
            a.frequency_shift_bands = 2;
        });

        let mut seen = std::collections::BTreeSet::new();
        for key in 0..200 {
            let features = random(1, 6, 20);
            let [frames, bands, ..] = drawn(&settings, key, 6, 20)[..] else {
                panic!("two and more columns")
            };

            let want = features.roll([frames, bands], [2, 1]);
            let empty = if bands > 0 { 0..bands } else { 6 + bands..6 };
            empty.for_each(|band| drop(want.select(1, band).zero_()));

            assert!(
                equal(&augmented(&settings, &features, &[key]), &want),
                "{frames} frames, {bands} bands"
            );
            seen.extend([("frames", frames), ("bands", bands)]);
        }

        // With ±3 of 20 frames and ±2 bands, every possible shift occurs.
        assert_eq!(seen.len(), 7 + 5, "{seen:?}");
    }

    #[test]
    fn masks_are_zero_within_their_bounds_alone() {
        let settings = only(|a| {
            a.frequency_masks = 2;
            a.time_masks = 2;
        });

        let mut widths = [0; 11];
        for key in 0..300 {
            let features = random(1, 16, 50);
            let got = augmented(&settings, &features, &[key]);
            let bounds = drawn(&settings, key, 16, 50).split_off(FIRST_MASK as usize);

            for (index, pair) in bounds.chunks(2).enumerate() {
                let (dim, length, widest) = if index < 2 { (1, 16, 10) } else { (2, 50, 20) };
                assert!(
                    0 <= pair[0]
                        && pair[0] <= pair[1]
                        && pair[1] <= length
                        && pair[1] - pair[0] <= widest
                );
                assert_eq!(
                    got.narrow(dim, pair[0], pair[1] - pair[0])
                        .count_nonzero(None)
                        .int64_value(&[]),
                    0
                );

                widths[if index < 2 {
                    (pair[1] - pair[0]) as usize
                } else {
                    0
                }] += 1;
            }

            let masked =
                |dim: i64, pair: &[i64]| features.narrow(dim, pair[0], pair[1] - pair[0]).zero_();
            bounds
                .chunks(2)
                .enumerate()
                .for_each(|(i, pair)| drop(masked(if i < 2 { 1 } else { 2 }, pair)));
            assert!(
                equal(&got, &features),
                "key {key}: cells outside of the masks changed"
            );
        }

        assert!(
            widths.iter().all(|&n| n > 20),
            "every width comes: {widths:?}"
        );
    }

    #[test]
    fn masks_are_at_most_as_wide_as_the_row() {
        let settings = only(|a| {
            a.frequency_masks = 1;
            a.time_masks = 1;
        });
        let keys: Vec<u64> = (0..50).collect();
        assert_eq!(
            augmented(&settings, &random(50, 3, 2), &keys).size(),
            [50, 3, 2]
        );
    }

    #[test]
    fn operations_draw_from_independent_streams() {
        let all = config::Augment::default();
        let fewer = config::Augment {
            time_shift: 0.0,
            frequency_shift_bands: 0,
            noise_std: 0.0,
            ..all.clone()
        };
        let [masks, masks_of_fewer] = [&all, &fewer]
            .map(|settings| drawn(settings, 5, 128, 1292).split_off(FIRST_MASK as usize));
        assert_eq!(masks, masks_of_fewer);
    }

    #[test]
    fn amplitudes_fill_their_range() {
        let settings = only(|a| a.amplitude = [0.8, 1.2]);
        let keys: Vec<u64> = (0..500).collect();
        let factors = augmented(
            &settings,
            &Tensor::ones([500, 1, 1], (Kind::Float, Device::Cpu)),
            &keys,
        );

        let (low, high) = (
            factors.min().double_value(&[]),
            factors.max().double_value(&[]),
        );
        assert!(
            (0.8..0.805).contains(&low) && (1.195..1.2).contains(&high),
            "{low} {high}"
        );
    }
}
