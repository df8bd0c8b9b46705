//! Positions of a clip's segments, in samples. The plan, the memory limits and the extraction all use this module, so
//! that they agree.

use wavemill_schemas::recipe::{AudioSpec, SplitRule, StretchArgs};
use wavemill_schemas::samples::samples_in;
use wavemill_schemas::split::Split;

/// Variant of rows at the recorded tempo.
pub const PLAIN: f64 = 1.0;

/// A segment: the part of a clip that becomes one row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Segment {
    /// [`PLAIN`], or the factor by which the whole clip is stretched before it is cut.
    pub variant: f64,
    /// Number of the segment within the variant, from 0. Segments of other splits are counted too.
    pub number: usize,
    /// First sample of the segment.
    pub start: usize,
    /// Length of the segment in samples. The clip is padded if it ends earlier.
    pub len: usize,
}

/// Returns the segments of a clip with `n_samples` decoded samples: as many complete ones as fit, at most
/// `segments_max`. An incomplete last segment counts only if it has at least `segment_min_s`. Without `segment_s`, the
/// whole clip is one segment, of `duration_s` if given.
pub fn segments(audio: &AudioSpec, n_samples: usize) -> Vec<Segment> {
    let Some(segment_s) = audio.segment_s else {
        let wanted = audio.duration_s.map(|seconds| samples(audio, seconds));
        return vec![Segment {
            variant: PLAIN,
            number: 0,
            start: 0,
            len: wanted.unwrap_or(n_samples),
        }];
    };

    // Segment and hop have at least one sample each, to avoid a division by a hop of 0.
    let len = samples(audio, segment_s).max(1);
    let hop = match audio.segment_hop_s {
        Some(hop_s) => samples(audio, hop_s).max(1),
        None => len,
    };
    let whole = if n_samples < len {
        0
    } else {
        (n_samples - len) / hop + 1
    };

    // The incomplete segment starts where the next segment would start. If segments overlap, the last complete segment
    // contains a part of it.
    let rest = n_samples.saturating_sub(whole * hop);
    let is_padded = audio
        .segment_min_s
        .is_some_and(|least_s| rest >= samples(audio, least_s).max(1) && rest < len);
    let most = audio.segments_max.map_or(usize::MAX, |n| n as usize);
    let count = (whole + usize::from(is_padded)).min(most);
    (0..count)
        .map(|number| Segment {
            variant: PLAIN,
            number,
            start: number * hop,
            len,
        })
        .collect()
}

/// Returns the segments of the stretched copies of a clip with `n_samples` decoded samples, factor by factor. A copy
/// that is too short for a segment has none.
pub fn stretched_segments(audio: &AudioSpec, n_samples: usize) -> Vec<Segment> {
    let mut all = Vec::new();
    for &variant in &audio.stretch {
        let n_stretched = variant_len(n_samples, variant);
        if n_stretched > 0 {
            let of_copy = segments(audio, n_stretched).into_iter();
            all.extend(of_copy.map(|segment| Segment { variant, ..segment }));
        }
    }
    all
}

/// Returns the number of samples in a variant of a clip of `n_samples`.
pub fn variant_len(n_samples: usize, variant: f64) -> usize {
    if variant == PLAIN {
        return n_samples;
    }
    StretchArgs { rate: variant }.output_len(n_samples)
}

/// Returns the variants that have rows in a shard of `split`, in the order of the rows.
pub fn variants_on(audio: &AudioSpec, rule: SplitRule, split: &str) -> Vec<f64> {
    let mut variants = vec![PLAIN];
    // Stretched copies are for training only, except under the leaky rule that distributes them over all splits.
    if split == Split::Training.name() || rule == SplitRule::SegmentStretched {
        variants.extend(&audio.stretch);
    }
    variants
}

/// Returns the segments that are cut from the clip at its recorded tempo. They come first in `segments`.
pub fn plain(segments: &[Segment]) -> &[Segment] {
    let end = segments.iter().position(|s| s.variant != PLAIN);
    &segments[..end.unwrap_or(segments.len())]
}

/// Returns the end of the last of `segments`, in samples of its variant; 0 without segments. The variant may end
/// earlier.
pub fn end_of(segments: &[Segment]) -> usize {
    let ends = segments.iter().map(|s| s.start + s.len);
    ends.max().unwrap_or(0)
}

/// Returns the maximum number of segments of one variant of a clip; `usize::MAX` if only the clip's length limits it.
pub fn segments_at_most(audio: &AudioSpec, variant: f64) -> usize {
    let by_count = audio.segments_max.map_or(usize::MAX, |n| n as usize);
    match (audio.segment_s, audio.duration_s) {
        (None, _) => 1,
        (Some(_), None) => by_count,
        // A shorter clip can end in a padded segment that the longest clip does not have.
        (Some(_), Some(longest_s)) => {
            let padded = usize::from(audio.segment_min_s.is_some());
            let n_samples = variant_len(samples(audio, longest_s), variant);
            (segments(audio, n_samples).len() + padded).min(by_count)
        }
    }
}

/// Reports whether a clip that is cut at `duration_s` has a segment that extends past the cut and is padded there.
pub fn reaches_behind(audio: &AudioSpec) -> bool {
    audio.duration_s.is_some_and(|longest_s| {
        let n_samples = samples(audio, longest_s);
        segments(audio, n_samples)
            .iter()
            .any(|s| s.start + s.len > n_samples)
    })
}

fn samples(audio: &AudioSpec, seconds: f64) -> usize {
    samples_in(seconds, audio.sample_rate_hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(
        segment_s: Option<f64>,
        segments_max: Option<u32>,
        segment_min_s: Option<f64>,
    ) -> AudioSpec {
        AudioSpec {
            sample_rate_hz: 1000,
            segment_s,
            segments_max,
            segment_min_s,
            ..AudioSpec::default()
        }
    }

    #[test]
    fn segments_are_whole_ones_and_a_long_enough_rest() {
        for (segment, most, least, n_samples, want) in [
            (3.0, None, None, 29_900, 9),
            (3.0, None, Some(1.0), 29_900, 10),
            (3.0, None, Some(2.95), 29_900, 9),
            (3.0, Some(4), Some(1.0), 29_900, 4),
            (3.0, None, None, 2_999, 0),
            (3.0, None, None, 3_000, 1),
            (3.0, None, Some(1.0), 3_000, 1),
            (15.0, None, Some(14.0), 29_980, 2),
        ] {
            let got = segments(&spec(Some(segment), most, least), n_samples);
            assert_eq!(
                got.len(),
                want,
                "{segment} s of {n_samples} ms, at most {most:?}, rest {least:?}"
            );
            assert!(got.iter().enumerate().all(|(i, s)| s.start == i * s.len));
        }
    }

    #[test]
    fn a_clip_without_segments_is_one_of_the_wanted_length() {
        let mut audio = spec(None, None, None);
        let whole = |len| Segment {
            variant: PLAIN,
            number: 0,
            start: 0,
            len,
        };
        assert_eq!(segments(&audio, 1234), [whole(1234)]);

        audio.duration_s = Some(30.0);
        assert_eq!(segments(&audio, 1234), [whole(30_000)]);
    }

    #[test]
    fn no_clip_gives_more_segments_than_the_most() {
        for (duration, segment, hop, least) in [
            (1.2, 0.4, 0.4, None),
            (10.0, 0.4, 0.4, None),
            (10.0, 0.3, 0.1, None),
            (30.0, 3.0, 3.0, Some(2.5)),
        ] {
            let mut audio = spec(Some(segment), None, least);
            (audio.duration_s, audio.segment_hop_s, audio.sample_rate_hz) =
                (Some(duration), Some(hop), 22_050);

            let longest = samples(&audio, duration);
            let most = (0..=longest).map(|n| segments(&audio, n).len()).max();

            assert!(
                most <= Some(segments_at_most(&audio, PLAIN)),
                "{duration} s, {segment} s, {hop} s"
            );
            assert!(most >= Some(segments(&audio, longest).len()));
        }
    }

    #[test]
    fn only_padded_segments_extend_past_the_duration() {
        for (duration, segment, least, want) in [
            (10.0, Some(3.0), None, false),
            (10.0, Some(3.0), Some(0.5), true),
            (9.0, Some(3.0), Some(0.5), false),
        ] {
            let audio = AudioSpec {
                duration_s: Some(duration),
                ..spec(segment, None, least)
            };

            assert_eq!(
                reaches_behind(&audio),
                want,
                "{duration} s, {segment:?} s, rest {least:?}"
            );
        }

        assert!(!reaches_behind(&AudioSpec {
            duration_s: Some(30.0),
            ..spec(None, None, None)
        }));
        assert!(!reaches_behind(&spec(Some(3.0), None, Some(0.5))));
    }

    #[test]
    fn overlapping_segments_advance_by_the_hop() {
        let audio = AudioSpec {
            segment_hop_s: Some(1.5),
            ..spec(Some(3.0), None, None)
        };
        let starts: Vec<usize> = segments(&audio, 7_000).iter().map(|s| s.start).collect();
        assert_eq!(starts, [0, 1500, 3000]);
    }

    /// Returns the number of segments at each tempo, whose segments are numbered from 0.
    fn counts(audio: &AudioSpec, seconds: f64) -> [usize; 2] {
        let stretched = stretched_segments(audio, samples(audio, seconds));
        [0.85, 1.15].map(|tempo| {
            let of_tempo = stretched.iter().filter(|s| s.variant == tempo);
            let numbers: Vec<usize> = of_tempo.map(|s| s.number).collect();
            assert_eq!(numbers, (0..numbers.len()).collect::<Vec<_>>());
            numbers.len()
        })
    }

    /// The clip of 30 s is cut into segments of 3 s, at both tempos of the document, as its recipe cuts clips.
    #[test]
    fn stretched_copies_have_segments_of_their_own_length() {
        let mut audio = AudioSpec {
            sample_rate_hz: 22_050,
            stretch: vec![0.85, 1.15],
            ..spec(Some(3.0), Some(12), Some(2.5))
        };
        // 35.3 s and 26.1 s: the remainders of 2.3 s and 2.1 s are too short for a segment of at least 2.5 s.
        assert_eq!(counts(&audio, 30.0), [11, 8]);
        audio.segment_min_s = Some(2.0);
        assert_eq!(counts(&audio, 30.0), [12, 9]);
        audio.segments_max = Some(10);
        assert_eq!(counts(&audio, 30.0), [10, 9]);
        // A segment of the original fits into 3.1 s, but none of the faster copy.
        audio.segment_min_s = None;
        assert_eq!(counts(&audio, 3.1), [1, 0]);

        // Without segments, a copy is cut or padded to the duration, or keeps its length.
        audio = AudioSpec {
            duration_s: Some(30.0),
            segment_s: None,
            segments_max: None,
            ..audio
        };
        let stretched = stretched_segments(&audio, samples(&audio, 30.0));
        assert!(stretched.iter().all(|s| s.len == 661_500) && stretched.len() == 2);
        audio.duration_s = None;
        let lengths = stretched_segments(&audio, 661_500);
        let lengths: Vec<usize> = lengths.iter().map(|s| s.len).collect();
        assert_eq!(lengths, [778_235, 575_217]);
    }

    #[test]
    fn stretched_copies_are_for_training_alone_but_for_one_rule() {
        let audio = AudioSpec {
            stretch: vec![0.85, 1.15],
            ..AudioSpec::default()
        };

        for (rule, split, want) in [
            (SplitRule::Artist, "training", &[1.0, 0.85, 1.15][..]),
            (SplitRule::Artist, "validation", &[1.0]),
            (SplitRule::Column, "test", &[1.0]),
            (SplitRule::Official, "none", &[1.0]),
            (SplitRule::SegmentStretched, "test", &[1.0, 0.85, 1.15]),
        ] {
            assert_eq!(variants_on(&audio, rule, split), want, "{rule:?} {split}");
        }
    }
}
