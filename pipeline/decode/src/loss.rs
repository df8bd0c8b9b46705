//! Counts the audio that a clip lost to damage, for all formats.

/// Seconds of audio missing or silenced, and the position of the first damage. Losses after the requested duration do
/// not count: each loss adds at most [`super::output::Sink::n_wanted`], or at most the whole requested duration if no
/// audio was output yet. An unreplaced gap takes no output time, so the next gap may add as much again.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    /// Duration of lost audio in seconds.
    pub lost_s: f64,
    /// The part of `lost_s` that is replaced by silence in the output.
    pub silenced_s: f64,
    /// File offset of the first damage in bytes.
    pub byte_offset: Option<u64>,
}

impl Loss {
    /// Adds lost audio that is missing from the output, which continues without a gap. If `seconds` is 0, the offset is
    /// ignored too.
    pub(super) fn add_missing(&mut self, byte_offset: Option<usize>, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        self.lost_s += seconds;
        self.byte_offset = self.byte_offset.or(byte_offset.map(|offset| offset as u64));
    }

    /// Adds lost audio that is replaced by silence in the output.
    pub(super) fn add_silenced(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.add_missing(byte_offset, seconds);
        self.silenced_s += seconds;
    }
}

/// Maximum ratio of an announced count to the actual count up to which the announcement is accepted.
///
/// A false count in a header costs no space, while audio takes bytes. The size of a layer III frame varies by a factor
/// of ten (32 to 320 kbit/s in MPEG-1), so ten times the actual count is about as much as the bytes of a file could
/// contain at its format's lowest bit rate. A download that was interrupted within its first tenth is recognised only
/// by its last frame.
const ANNOUNCED_TIMES_MAX: u64 = 10;

/// Returns the largest accepted announced count for a file that contains `there` samples, frames or bytes. This limits
/// the announced loss to nine times the audio in the file.
pub(super) fn credible_max(there: u64) -> u64 {
    there.saturating_mul(ANNOUNCED_TIMES_MAX)
}

/// Reports whether an announced count of `announced` samples, frames or bytes is accepted for a file that contains
/// `there` of them.
pub(super) fn is_credible(announced: u64, there: u64) -> bool {
    announced <= credible_max(there)
}

#[cfg(test)]
mod tests {
    use wavemill_signal::Level;

    use crate::testing::flac::{flac_frames, head};
    use crate::testing::mp3::{Announced, MP3_FRAME_BYTES, mp3_frames};
    use crate::testing::ogg::{self as pages, tagged_tone};
    use crate::testing::wav::{chunk, fmt, riff};
    use crate::testing::{FORMATS, joined, text};
    use crate::{Decode, DecodeArgs, FileDecoder, Pcm};

    fn args(sample_rate_hz: u32, duration_s: Option<f64>) -> DecodeArgs {
        DecodeArgs {
            sample_rate_hz,
            duration_s,
            min_duration_s: 0.0,
            keep_rate: false,
        }
    }

    fn decoder(args: DecodeArgs) -> FileDecoder {
        FileDecoder::new(args, Level::Scalar).expect("rates of the tests")
    }

    /// Decodes a file and returns the lost seconds, or `None` if the file is rejected.
    fn lost_s(decoder: &mut FileDecoder, file: &[u8]) -> Option<f32> {
        let mut out = Pcm::default();
        decoder.decode("", file, &mut out).ok()?;
        Some(out.lost_s)
    }

    /// Decoders of several rates have the same requested duration. Each reads past that duration, as far as its filter
    /// and its block size require.
    #[test]
    fn lost_duration_is_independent_of_rate_and_path() {
        let mut n_less = 0;
        for duration_s in [0.04, 0.1056, 0.2003, 0.36] {
            let exact = [44_100, 32_000, 22_050, 8_000]
                .map(|rate_hz| decoder(args(rate_hz, Some(duration_s))));
            let by_band =
                [22_050, 11_025].map(|rate_hz| decoder(args(rate_hz, Some(duration_s))).by_band());
            let kept = decoder(DecodeArgs {
                keep_rate: true,
                ..args(22_050, Some(duration_s))
            });
            let mut decoders: Vec<_> = exact.into_iter().chain(by_band).chain([kept]).collect();
            let mut whole = decoder(args(22_050, None));

            for (name, make) in FORMATS {
                let sound = joined(&make(300));
                for at in (0..sound.len()).step_by(sound.len() / 16) {
                    let mut file = sound.clone();
                    let end = file.len().min(at + 60);
                    file[at..end].fill(0);

                    let place = format!("{name}, bytes {at} to {end}, {duration_s} s");
                    let losses: Vec<_> = decoders
                        .iter_mut()
                        .map(|decoder| lost_s(decoder, &file))
                        .collect();
                    assert!(
                        losses.iter().all(|lost| *lost == losses[0]),
                        "{place}: {losses:?}"
                    );
                    if let (Some(lost), Some(lost_of_all)) = (losses[0], lost_s(&mut whole, &file))
                    {
                        assert!(lost <= lost_of_all, "{place}: {lost} of {lost_of_all} s");
                        n_less += u32::from(lost < lost_of_all);
                    }
                }
            }
        }
        assert!(n_less > 50, "{n_less} files lost less in their beginning");
    }

    /// Compares the loss in the first `n_samples` samples at 44.1 kHz, both at that rate and after resampling.
    fn assert_lost(file: &[u8], n_samples: u32, n_lost: u32) {
        let duration_s = f64::from(n_samples) / 44_100.0;
        for rate_hz in [44_100, 8_000] {
            let lost = lost_s(&mut decoder(args(rate_hz, Some(duration_s))), file);
            let n = lost.map(|lost| (lost * 44_100.0).round() as u32);
            assert_eq!(n, Some(n_lost), "of {n_samples} samples, at {rate_hz} Hz");
        }
    }

    #[test]
    fn only_the_requested_part_of_a_hole_counts() {
        // Nine frames of 1,152 samples. A gap follows the tenth frame and replaces three frames. The frame after the
        // gap lacks its first granule.
        let frames = [mp3_frames(0..10), text(333), mp3_frames(11..22)].concat();
        assert_lost(&frames, 9 * 1_152, 0);
        assert_lost(&frames, 9 * 1_152 + 500, 500 + 500);
        assert_lost(&frames, 15_000, 3 * 1_152 + 576);

        // The file announces five more frames. This overrides the estimate from the gap. 1,105 samples are trimmed.
        let announced = [Announced::with_frames(25).frame(), frames].concat();
        let n_there = 20 * 1_152 - 1_105;
        assert_lost(&announced, 9 * 1_152 - 1_105, 0);
        assert_lost(&announced, n_there, 3 * 1_152 + 576);
        assert_lost(&announced, n_there + 913, 3 * 1_152 + 576 + 913);
        assert_lost(&announced, 44_100, 5 * 1_152 + 576);

        // A file of eight frames of 576 samples, two missing frames, ten more frames, and 3,480 announced samples that
        // are missing.
        let flac = [head(15_000), flac_frames(0..8), flac_frames(10..20)].concat();
        assert_lost(&flac, 8 * 576, 0);
        assert_lost(&flac, 8 * 576 + 392, 392);
        assert_lost(&flac, 18 * 576, 2 * 576);
        assert_lost(&flac, 20 * 576 + 480, 2 * 576 + 480);
        assert_lost(&flac, 44_100, 2 * 576 + 3_480);
    }

    /// The first MP3 frame lacks bits of the frame before it. Those do not count as loss if a complete frame follows
    /// within the requested duration.
    #[test]
    fn undecodable_beginning_is_lost_if_nothing_else_is_requested() {
        let cut = mp3_frames(5..30);
        assert_lost(&cut, 441, 441);
        assert_lost(&cut, 1_152, 576);
        assert_lost(&cut, 1_153, 0);
    }

    /// Returns an MP3 file with an Info frame and damaged side info in the first frame after `n_frames` frames.
    fn damaged_behind(n_frames: u8, delay_samples: u16) -> Vec<u8> {
        let info = Announced {
            delay_samples,
            padding_samples: 0,
            ..Announced::with_frames(u32::from(n_frames) + 4)
        };
        let mut file = [info.frame(), mp3_frames(0..n_frames + 4)].concat();

        let at = (usize::from(n_frames) + 1) * MP3_FRAME_BYTES;
        file[at + 4..at + 21].fill(0xFF);
        file
    }

    /// The request ends inside damaged frames, but rounding gives the band-limited decoder all its output samples. Five
    /// frames with a delay of 1,105 samples give 4,655 of 4,656 requested samples, and all 2,328 at half the rate. Ten
    /// frames with a delay of 1,107 samples give 10,413 of 10,418 samples, and all 2,604 at a quarter of the rate.
    #[test]
    fn band_path_reports_damage_in_the_last_samples() {
        for (file, duration_s, rate_hz, n_lost) in [
            (damaged_behind(5, 576), 2_328.0 / 22_050.0, 22_050, 1),
            (damaged_behind(10, 578), 2_604.4 / 11_025.0, 11_025, 5),
        ] {
            let args = args(rate_hz, Some(duration_s));

            for mut decoder in [decoder(args.clone()), decoder(args).by_band()] {
                let lost = lost_s(&mut decoder, &file).map(|lost| (lost * 44_100.0).round());
                assert_eq!(lost, Some(n_lost as f32), "{rate_hz} Hz");
            }
        }
    }

    #[test]
    fn loss_before_the_first_decoded_link_is_limited_to_the_request() {
        let mut first = tagged_tone(0);
        // Remove the page with the Vorbis set-up header.
        first.remove(2);
        let mut second = tagged_tone(0);
        for page in &mut second {
            page.serial = 8;
        }
        let file = [pages::bytes(&first), pages::bytes(&second)].concat();

        let of_all = lost_s(&mut decoder(args(22_050, None)), &file);
        assert!(of_all.is_some_and(|lost| lost > 0.1), "{of_all:?}");
        let of_start = lost_s(&mut decoder(args(22_050, Some(0.1))), &file);
        assert_eq!(of_start, Some(0.1));
    }

    #[test]
    fn loss_from_a_broken_announcement_is_limited_to_the_request() {
        // The WAV file contains half a second and announces two seconds.
        let wav = {
            let mut data = chunk(b"data", &vec![7; 44_100]);
            data[4..8].copy_from_slice(&(4 * 44_100_u32).to_le_bytes());
            riff(&[fmt(1, 1, 16), data])
        };

        for (duration_s, want) in [
            (0.25, 0.0),
            (0.5, 0.0),
            (0.76, 0.26),
            (2.0, 1.5),
            (9.0, 1.5),
        ] {
            let lost = lost_s(&mut decoder(args(22_050, Some(duration_s))), &wav);
            assert_eq!(lost, Some(want), "{duration_s} s");
        }

        // Losses count up to the requested duration, even if the maximum duration of a clip is shorter.
        let mut short = decoder(args(22_050, Some(0.76))).at_most(0.6);
        assert_eq!(lost_s(&mut short, &wav), Some(0.26));
        assert_eq!(lost_s(&mut decoder(args(22_050, None)), &wav), Some(1.5));
    }

    /// At 22,050 Hz, 2.51 s are 55,345.5 samples.
    #[test]
    fn clip_cut_at_the_minimum_duration_is_accepted() {
        let wav = riff(&[fmt(1, 1, 16), chunk(b"data", &vec![7; 88_200 * 4])]);
        for seconds in [2.51, 1.001, 0.000_01] {
            let mut decoder = decoder(DecodeArgs {
                min_duration_s: seconds,
                ..args(22_050, Some(seconds))
            });

            let outcome = decoder.decode("", &wav, &mut Pcm::default());
            // 10 µs are less than one sample at this sample rate.
            assert_eq!(outcome.is_ok(), seconds > 0.001, "{seconds} s: {outcome:?}");
        }
    }
}
