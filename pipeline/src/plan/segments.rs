//! Where a clip's segments lie, in samples. Plan, memory bounds and extraction all count here, and so agree.

use wavemill_schemas::recipe::AudioSpec;
use wavemill_schemas::samples::samples_in;

/// Part of a clip that becomes one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// From 0 within the clip, also where earlier ones lie on another side.
    pub number: usize,
    /// First sample.
    pub start: usize,
    /// Samples; the clip is padded where it ends earlier.
    pub len: usize,
}

/// Segments of `n_samples` decoded samples: as many as fit whole, at most `segments_max`; a last part counts only if it
/// is at least `segment_min_s`. Without `segment_s` the clip is one, of `duration_s` where that is given.
#[must_use]
pub(crate) fn segments(audio: &AudioSpec, n_samples: usize) -> Vec<Segment> {
    let Some(segment_s) = audio.segment_s else {
        let wanted = audio.duration_s.map(|seconds| samples(audio, seconds));
        return vec![Segment {
            number: 0,
            start: 0,
            len: wanted.unwrap_or(n_samples),
        }];
    };

    // At least one sample each: a hop of 0 could not be divided by.
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

    // Counted from where the next segment would start: where segments overlap, the last whole one holds a part of it.
    let rest = n_samples.saturating_sub(whole * hop);
    let is_padded = audio
        .segment_min_s
        .is_some_and(|least_s| rest >= samples(audio, least_s).max(1) && rest < len);
    let most = audio.segments_max.map_or(usize::MAX, |n| n as usize);
    let count = (whole + usize::from(is_padded)).min(most);
    (0..count)
        .map(|number| Segment {
            number,
            start: number * hop,
            len,
        })
        .collect()
}

/// Where the last of `segments` ends, in samples; 0 without any. The clip may end earlier.
#[must_use]
pub(crate) fn end_of(segments: &[Segment]) -> usize {
    let ends = segments.iter().map(|s| s.start + s.len);
    ends.max().unwrap_or(0)
}

/// The most segments that one clip can give; `usize::MAX` where its length alone decides.
#[must_use]
pub(crate) fn segments_at_most(audio: &AudioSpec) -> usize {
    let by_count = audio.segments_max.map_or(usize::MAX, |n| n as usize);
    match (audio.segment_s, audio.duration_s) {
        (None, _) => 1,
        (Some(_), None) => by_count,
        // A shorter clip can end in a padded part that the longest one lacks.
        (Some(_), Some(longest_s)) => {
            let padded = usize::from(audio.segment_min_s.is_some());
            (segments(audio, samples(audio, longest_s)).len() + padded).min(by_count)
        }
    }
}

/// A clip that is cut at `duration_s` has a segment that reaches behind the cut, and is padded there.
#[must_use]
pub(crate) fn reaches_behind(audio: &AudioSpec) -> bool {
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
        assert_eq!(
            segments(&audio, 1234),
            [Segment {
                number: 0,
                start: 0,
                len: 1234
            }]
        );
        audio.duration_s = Some(30.0);
        assert_eq!(
            segments(&audio, 1234),
            [Segment {
                number: 0,
                start: 0,
                len: 30_000
            }]
        );
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
                most <= Some(segments_at_most(&audio)),
                "{duration} s, {segment} s, {hop} s"
            );
            assert!(most >= Some(segments(&audio, longest).len()));
        }
    }

    #[test]
    fn only_a_padded_rest_reaches_behind_the_duration() {
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
}
