//! Reads which part of a track is the recording. Encoders add samples before it, and fill the last packet.
//!
//! Sources: ISO/IEC 14496-12 §8.6.6 (edit lists); Technical Note 2258 (Apple) for the tag `iTunSMPB`.

use memchr::memmem;

use super::boxes::{find, number};

/// Time scales of a track and its movie, in units per second.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimeScales {
    pub track: u64,
    pub movie: u64,
    /// Sample rate, Hz.
    pub rate_hz: u32,
}

impl TimeScales {
    /// Reads the time scales of a track; 0 if they are missing.
    pub(super) fn read(moov: &[u8], trak: &[u8], rate_hz: u32) -> Self {
        // Two dates of 32 or 64 bits precede the time scale.
        let scale = |body: &[u8]| number(body, if body.first() == Some(&1) { 20 } else { 12 }, 4);
        let mdhd = find(trak, &[b"mdia", b"mdhd"]);
        Self {
            track: mdhd.and_then(scale).unwrap_or(0),
            movie: find(moov, &[b"mvhd"]).and_then(scale).unwrap_or(0),
            rate_hz,
        }
    }

    /// Converts a time to samples; `None` if the time scale is 0.
    fn samples(&self, time: u64, scale: u64) -> Option<u64> {
        let product = u128::from(time) * u128::from(self.rate_hz);
        let samples = (product + u128::from(scale / 2)).checked_div(u128::from(scale))?;
        u64::try_from(samples).ok()
    }
}

/// The recording within the samples of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recording {
    /// Number of samples before the recording.
    pub start: u64,
    /// Number of samples up to its end; `None` if it ends with the track.
    pub end: Option<u64>,
}

impl Recording {
    /// Returns the recording that an edit list or the tag `iTunSMPB` states. `listed` is the sum of the durations of all
    /// packets; `None` if the file has fragments. Its edit list covers only the packets before them, if it has an end.
    pub(super) fn read(moov: &[u8], trak: &[u8], scales: &TimeScales, listed: Option<u64>) -> Self {
        let stated = edit(trak, scales).or_else(|| gapless(moov));
        let Some(Self { start, end }) = stated else {
            return Self::default();
        };
        let Some(listed) = listed else {
            return Self { start, end: None };
        };
        let listed = scales.samples(listed, scales.track).filter(|&n| n > 0);

        // Most movies have a time scale of milliseconds, so the end of an edit is rounded. The durations are exact.
        let tick = u64::from(scales.rate_hz) / scales.movie.max(1) + 1;
        let end = match (end, listed) {
            (Some(end), Some(listed)) if end.abs_diff(listed) <= tick => Some(listed),
            (None, listed) => listed,
            (end, _) => end,
        };
        Self { start, end }
    }
}

/// Returns the part of the track that an edit list selects; `None` if it selects several parts or none.
fn edit(trak: &[u8], scales: &TimeScales) -> Option<Recording> {
    let elst = find(trak, &[b"edts", b"elst"])?;
    let number_bytes = if elst.first() == Some(&1) { 8 } else { 4 };
    let entry_bytes = 2 * number_bytes + 4;

    let mut selected = None;
    let entries = elst.get(8..)?.chunks_exact(entry_bytes);
    for entry in entries.take(number(elst, 4, 4)? as usize) {
        let duration = number(entry, 0, number_bytes)?;
        let time = number(entry, number_bytes, number_bytes)?;
        // A time of -1 is a pause, which contains nothing of the track.
        if time >> (8 * number_bytes - 1) == 1 {
            continue;
        }
        if selected.replace((time, duration)).is_some() {
            return None;
        }
    }

    let (time, duration) = selected?;
    let start = scales.samples(time, scales.track)?;
    let length = scales.samples(duration, scales.movie).filter(|&n| n > 0);
    Some(Recording {
        start,
        end: length.map(|length| start.saturating_add(length)),
    })
}

/// Returns the recording that iTunes states as hexadecimal numbers in a tag: a zero, the samples before the recording,
/// those after it, and its length.
fn gapless(moov: &[u8]) -> Option<Recording> {
    let name = memmem::find(moov, b"iTunSMPB")?;
    let behind = moov.get(name..)?;
    let data = memmem::find(&behind[..behind.len().min(64)], b"data")?;
    // The kind and the language of the text precede it.
    let text = behind.get(data + 12..)?;
    let text = std::str::from_utf8(text.get(..text.len().min(64))?).ok()?;

    let mut numbers = text.split_ascii_whitespace().skip(1);
    let mut next = || u64::from_str_radix(numbers.next()?, 16).ok();
    let (start, _, length) = (next()?, next()?, next()?);
    Some(Recording {
        start,
        end: (length > 0).then(|| start.saturating_add(length)),
    })
}
