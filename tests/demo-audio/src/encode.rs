//! Encodes samples to MP3 files as found in archives: LAME at many rates and modes, with an ID3v2 tag and an Info
//! frame.

use anyhow::{Context, Result, anyhow};
use mp3lame_encoder::{
    Bitrate, Builder, DualPcm, Encoder, FlushNoGap, Mode, MonoPcm, Quality, VbrMode,
};

use self::Rate::{Constant, Variable};
use crate::synth::Canvas;

/// Encoder settings of a clip.
#[derive(Clone, Copy)]
pub(crate) struct Encoding {
    pub rate_hz: u32,
    pub mode: Mode,
    pub rate: Rate,
}

/// Constant or variable bit rate.
#[derive(Clone, Copy)]
pub(crate) enum Rate {
    /// Constant bit rate; the name states it in kbit/s.
    Constant(Bitrate),
    /// Variable bit rate; V0 has the best quality, V9 the worst.
    Variable(Quality),
}

impl Rate {
    /// Returns the bit rate for the catalogue in bits per second, or `None` if it is variable.
    pub(crate) fn nominal_bps(self) -> Option<u32> {
        match self {
            Constant(rate) => Some(1000 * rate as u32),
            Variable(_) => None,
        }
    }
}

const fn encoding(rate_hz: u32, mode: Mode, rate: Rate) -> Encoding {
    Encoding {
        rate_hz,
        mode,
        rate,
    }
}

/// Encoder settings that are common in practice and in FMA.
pub(crate) const ENCODINGS: [Encoding; 12] = [
    encoding(44_100, Mode::JointStereo, Constant(Bitrate::Kbps128)),
    encoding(44_100, Mode::JointStereo, Constant(Bitrate::Kbps192)),
    encoding(44_100, Mode::JointStereo, Constant(Bitrate::Kbps256)),
    encoding(44_100, Mode::JointStereo, Constant(Bitrate::Kbps320)),
    encoding(44_100, Mode::Stereo, Constant(Bitrate::Kbps160)),
    encoding(44_100, Mode::Mono, Constant(Bitrate::Kbps96)),
    encoding(48_000, Mode::JointStereo, Constant(Bitrate::Kbps224)),
    encoding(22_050, Mode::Mono, Constant(Bitrate::Kbps64)),
    encoding(44_100, Mode::JointStereo, Variable(Quality::Best)),
    encoding(44_100, Mode::JointStereo, Variable(Quality::Nice)),
    encoding(48_000, Mode::Mono, Variable(Quality::NearBest)),
    encoding(22_050, Mode::JointStereo, Variable(Quality::Decent)),
];

/// An encoded clip.
pub(crate) struct Mp3 {
    /// Bytes of the MP3: tag, Info frame and audio frames.
    pub bytes: Vec<u8>,
    /// Offset of the first audio frame in the MP3.
    pub audio_at: usize,
}

/// Encodes a recording and puts `tag` (see [`id3v2`]) in front of it.
///
/// # Errors
/// If LAME rejects a setting or the samples.
pub(crate) fn mp3(canvas: &Canvas, encoding: &Encoding, tag: &[u8]) -> Result<Mp3> {
    let mut encoder = build(encoding)?;

    // The LAME bindings write into the spare capacity of a vector and never grow it.
    let mut frames =
        Vec::with_capacity(mp3lame_encoder::max_required_buffer_size(canvas.left.len()));
    if matches!(encoding.mode, Mode::Mono) {
        let mono: Vec<f32> = canvas
            .left
            .iter()
            .zip(&canvas.right)
            .map(|(left, right)| 0.5 * (left + right))
            .collect();
        encoder.encode_to_vec(MonoPcm(&mono), &mut frames)?;
    } else {
        encoder.encode_to_vec(
            DualPcm {
                left: &canvas.left,
                right: &canvas.right,
            },
            &mut frames,
        )?;
    }

    // Write the samples that the encoder has buffered.
    frames.reserve(mp3lame_encoder::max_required_buffer_size(0));
    encoder.flush_to_vec::<FlushNoGap>(&mut frames)?;

    // LAME reserves space for the Info frame at the start, but only knows its content now.
    let mut info = Vec::with_capacity(encoder.lame_tag_size());
    encoder
        .lame_tag_encode_to_vec(&mut info)
        .context("LAME wrote no Info frame")?;
    frames[..info.len()].copy_from_slice(&info);

    Ok(Mp3 {
        bytes: [tag, &frames].concat(),
        audio_at: tag.len() + info.len(),
    })
}

fn build(encoding: &Encoding) -> Result<Encoder> {
    let mut lame = Builder::new().ok_or_else(|| anyhow!("LAME cannot allocate memory"))?;
    let channels = if matches!(encoding.mode, Mode::Mono) {
        1
    } else {
        2
    };

    lame.set_num_channels(channels)?;
    lame.set_sample_rate(encoding.rate_hz)?;
    lame.set_output_sample_rate(encoding.rate_hz.try_into().ok())?;
    lame.set_mode(encoding.mode)?;
    // Encoding is ten times faster than at the best quality. The difference does not matter to the demo's network.
    lame.set_quality(Quality::Ok)?;
    lame.set_to_write_vbr_tag(true)?;

    match encoding.rate {
        Constant(rate) => lame.set_brate(rate)?,
        Variable(quality) => {
            lame.set_vbr_mode(VbrMode::Mtrh)?;
            lame.set_vbr_quality(quality)?;
        }
    }
    Ok(lame.build()?)
}

/// Creates an ID3v2.4 tag (id3.org) with title, artist and album in UTF-8.
pub(crate) fn id3v2(title: &str, artist: &str, album: &str) -> Vec<u8> {
    let mut frames = Vec::new();
    for (id, text) in [(b"TIT2", title), (b"TPE1", artist), (b"TALB", album)] {
        frames.extend_from_slice(id);
        frames.extend_from_slice(&sync_safe(text.len() + 1));
        frames.extend_from_slice(&[0, 0, 3]); // no flags; encoding 3 = UTF-8
        frames.extend_from_slice(text.as_bytes());
    }

    [
        b"ID3\x04\x00\x00".as_slice(),
        &sync_safe(frames.len()),
        &frames,
    ]
    .concat()
}

/// Encodes 28 bits with seven bits per byte, so that no size looks like the sync word of a frame.
fn sync_safe(size: usize) -> [u8; 4] {
    [21, 14, 7, 0].map(|shift| (size >> shift & 0x7F) as u8)
}

#[cfg(test)]
mod tests {
    use super::{ENCODINGS, id3v2, mp3};
    use crate::{rng::Rng, synth::Canvas};

    #[test]
    fn every_encoding_gives_a_tag_an_info_frame_and_audio_frames() {
        let mut rng = Rng::keyed(5, &[]);
        for (case, encoding) in ENCODINGS.iter().enumerate() {
            let mut canvas = Canvas::new(encoding.rate_hz, 1.0);
            canvas.left.iter_mut().for_each(|x| *x = 0.1 * rng.noise());
            let tag = id3v2("Título", "Ængus", "東京");
            let clip =
                mp3(&canvas, encoding, &tag).expect("LAME supports every encoding of the table");
            assert!(clip.bytes.starts_with(b"ID3"));

            for at in [tag.len(), clip.audio_at] {
                assert_eq!(
                    (clip.bytes[at], clip.bytes[at + 1] & 0xE0),
                    (0xFF, 0xE0),
                    "encoding {case} at {at}"
                );
            }

            let kbits = clip.bytes.len() * 8 / 1000;
            assert!(
                (16..400).contains(&kbits),
                "encoding {case}: {kbits} kbit for one second"
            );
        }
    }
}
