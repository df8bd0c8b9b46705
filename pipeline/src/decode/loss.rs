//! What a clip lost to damage, whatever its format.

/// Seconds that are missing or silenced, and where the trouble starts. What lies behind the wanted duration does not count:
/// of each loss, only as much is added as [`super::output::Sink::n_wanted`] says.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Loss {
    /// Seconds of audio lost.
    pub lost_s: f64,
    /// The part of `lost_s` that stands in the output as silence.
    pub silenced_s: f64,
    /// Offset in the file of the first damage.
    pub byte_offset: Option<u64>,
}

impl Loss {
    /// Audio that is gone: the output closes up over it. Of none, the offset is not kept either.
    pub(super) fn add_missing(&mut self, byte_offset: Option<usize>, seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        self.lost_s += seconds;
        self.byte_offset = self.byte_offset.or(byte_offset.map(|offset| offset as u64));
    }

    /// Audio in whose place the output has silence.
    pub(super) fn add_silenced(&mut self, byte_offset: Option<usize>, seconds: f64) {
        self.add_missing(byte_offset, seconds);
        self.silenced_s += seconds;
    }
}

/// How many times as much as is there an announcement may be, and still be believed.
///
/// A count in a header costs its writer nothing, while audio costs bytes. The bytes of a layer III frame span one to ten
/// (32 to 320 kbit/s in MPEG-1). So ten times what is there is about what a file's bytes could hold at the lowest rate of
/// its format. A download that broke off within its first tenth shows by its last frame only.
const ANNOUNCED_TIMES_MAX: u64 = 10;

/// The largest announcement that is believed where so many samples, frames or bytes are `there`. So no announcement counts
/// for more than nine times the audio that came with it.
pub(super) fn credible_max(there: u64) -> u64 {
    there.saturating_mul(ANNOUNCED_TIMES_MAX)
}

/// Whether to believe in `announced` samples, frames or bytes where so many are `there`.
pub(super) fn is_credible(announced: u64, there: u64) -> bool {
    announced <= credible_max(there)
}

#[cfg(test)]
mod tests {
    use wavemill_kernels::Level;

    use crate::decode::key::testing::{FORMATS, joined};
    use crate::decode::wav::testing::{chunk, fmt, riff};
    use crate::decode::{Decode, DecodeArgs, FileDecoder, Pcm};

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

    /// `None`: a reject.
    fn lost_s(decoder: &mut FileDecoder, file: &[u8]) -> Option<f32> {
        let mut out = Pcm::default();
        decoder.decode("", file, &mut out).ok()?;
        Some(out.lost_s)
    }

    /// All decoders get the same duration. They read more than that, each as far as its filter and its blocks reach.
    #[test]
    fn what_is_lost_of_a_duration_depends_on_no_rate_and_no_path() {
        let mut n_less = 0;
        for hundredths in [4, 20, 36] {
            // A whole number of samples at every rate.
            let duration_s = Some(f64::from(hundredths) / 100.0);
            let rates_hz = [44_100, 32_000, 22_050, 8_000];
            let exact = rates_hz.map(|rate_hz| decoder(args(rate_hz, duration_s)));
            let kept = decoder(DecodeArgs {
                keep_rate: true,
                ..args(22_050, duration_s)
            });
            let by_band = decoder(args(11_025, duration_s)).by_band();
            let mut decoders: Vec<_> = exact.into_iter().chain([kept, by_band]).collect();
            let mut whole = decoder(args(22_050, None));

            for (name, make) in FORMATS {
                let sound = joined(&make(300));
                for at in (0..sound.len()).step_by(sound.len() / 16) {
                    let mut file = sound.clone();
                    let end = file.len().min(at + 60);
                    file[at..end].fill(0);

                    let place = format!("{name}, bytes {at} to {end}, {duration_s:?}");
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

    #[test]
    fn of_a_broken_announcement_only_what_is_wanted_is_lost() {
        // Half a second is there, and two are announced.
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
        assert_eq!(lost_s(&mut decoder(args(22_050, None)), &wav), Some(1.5));
    }

    /// 22,050 samples a second make 55,345.5 of this duration.
    #[test]
    fn a_clip_that_is_cut_at_the_least_duration_is_long_enough() {
        let wav = riff(&[fmt(1, 1, 16), chunk(b"data", &vec![7; 88_200 * 4])]);
        for seconds in [2.51, 1.001, 0.000_01] {
            let mut decoder = decoder(DecodeArgs {
                min_duration_s: seconds,
                ..args(22_050, Some(seconds))
            });
            let outcome = decoder.decode("", &wav, &mut Pcm::default());
            // A hundredth of a millisecond has no sample at this rate.
            assert_eq!(outcome.is_ok(), seconds > 0.001, "{seconds} s: {outcome:?}");
        }
    }
}
