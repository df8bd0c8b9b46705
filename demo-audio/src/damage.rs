//! Files as an archive of a hundred thousand holds them: cut short, overwritten, empty, or no audio at all.

use crate::encode::Mp3;
use crate::rng::Rng;

/// The first `seconds` of a clip that is `of_seconds` long, cut in the middle of a frame; its Info frame still promises the rest.
pub(crate) fn truncate(clip: &Mp3, seconds: f32, of_seconds: f32) -> Vec<u8> {
    let audio = clip.bytes.len() - clip.audio_at;
    // At a constant rate the share may end where a frame does, and show no damage: 17 bytes more are within a frame.
    let keep = (audio as f32 * seconds / of_seconds) as usize + 17;
    clip.bytes[..clip.bytes.len().min(clip.audio_at + keep)].to_vec()
}

/// Noise over a twelfth of the audio, in the middle of it.
pub(crate) fn overwrite_middle(clip: &Mp3, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = clip.bytes.clone();
    let audio = bytes.len() - clip.audio_at;
    let start = clip.audio_at + audio / 2;
    for byte in &mut bytes[start..start + audio / 12] {
        *byte = rng.next() as u8;
    }
    bytes
}

/// Tag and Info frame, and no audio: what a stream copy past the end of a song leaves behind.
pub(crate) fn tag_only(clip: &Mp3) -> Vec<u8> {
    clip.bytes[..clip.audio_at].to_vec()
}

/// Bytes without any meaning; none is 0xFF, so that no frame can start by chance.
pub(crate) fn garbage(bytes: usize, rng: &mut Rng) -> Vec<u8> {
    (0..bytes).map(|_| (rng.next() % 255) as u8).collect()
}

/// What a server sent instead of the file.
pub(crate) fn web_page(id: u32) -> Vec<u8> {
    format!(
        "<!DOCTYPE html>\n<html><body><h1>404 Not Found</h1><p>No track {id}.</p></body></html>\n"
    )
    .into_bytes()
}
