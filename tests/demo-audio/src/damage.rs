//! Creates faulty files as they occur in large archives: truncated, overwritten, empty, or without audio.

use crate::encode::Mp3;
use crate::rng::Rng;

/// Keeps the first `seconds` of a clip with a duration of `of_seconds`, and cuts it within a frame. The Info frame
/// still declares the full duration.
pub(crate) fn truncate(clip: &Mp3, seconds: f32, of_seconds: f32) -> Vec<u8> {
    let audio = clip.bytes.len() - clip.audio_at;
    // At a constant bit rate, the cut may be at a frame boundary and cause no damage. With 17 more bytes, it is within
    // a frame.
    let keep = (audio as f32 * seconds / of_seconds) as usize + 17;
    clip.bytes[..clip.bytes.len().min(clip.audio_at + keep)].to_vec()
}

/// Overwrites a twelfth of the audio with noise, starting at the middle.
pub(crate) fn overwrite_middle(clip: &Mp3, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = clip.bytes.clone();
    let audio = bytes.len() - clip.audio_at;
    let start = clip.audio_at + audio / 2;
    for byte in &mut bytes[start..start + audio / 12] {
        *byte = rng.next() as u8;
    }
    bytes
}

/// Keeps only the tag and the Info frame, as left by a stream copy after the end of a song.
pub(crate) fn tag_only(clip: &Mp3) -> Vec<u8> {
    clip.bytes[..clip.audio_at].to_vec()
}

/// Returns random bytes. None is 0xFF, so that no frame can start by chance.
pub(crate) fn garbage(bytes: usize, rng: &mut Rng) -> Vec<u8> {
    (0..bytes).map(|_| (rng.next() % 255) as u8).collect()
}

/// Returns a web page, as sent by a server instead of the file.
pub(crate) fn web_page(id: u32) -> Vec<u8> {
    format!(
        "<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1><p>No track {id}.</p></body></html>\n"
    )
    .into_bytes()
}
