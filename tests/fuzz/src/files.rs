//! Fuzz test: decodes arbitrary bytes as an audio file of any format, and as a picture. The result must be samples or an
//! error, and the duration must agree with the decoded samples.

use std::cell::RefCell;

use wavemill_decode::{Decode, DecodeArgs, FileDecoder, Pcm, pictures};
use wavemill_signal::Level;
use wavemill_schemas::recipe::{Dtype, ImageArgs, ImageFilter};

/// Target sample rate in Hz: half of 44.1 kHz, so that the `band` decoder skips the upper sub-bands of such MP3 files.
const RATE_HZ: u32 = 22_050;
/// Maximum duration of a file in seconds, because a few bytes can declare hours of silence.
const LONGEST_S: f64 = 60.0;
/// Maximum number of pixels of a picture.
const PIXELS_MAX: u64 = 1 << 20;
/// The tensor made of a picture.
const IMAGE: ImageArgs = ImageArgs {
    width: 8,
    height: 6,
    crop: None,
    filter: ImageFilter::Lanczos3,
    dtype: Dtype::F32,
};

struct Decoders {
    exact: FileDecoder,
    band: FileDecoder,
    pcm: Pcm,
}

thread_local! {
    /// Decoders are reused for all inputs, as in a worker, so that state left by one file is noticed.
    static DECODERS: RefCell<Decoders> = RefCell::new(Decoders {
        exact: decoder(),
        band: decoder().by_band(),
        pcm: Pcm::default(),
    });
}

fn decoder() -> FileDecoder {
    let args = DecodeArgs {
        sample_rate_hz: RATE_HZ,
        duration_s: None,
        min_duration_s: 0.0,
        keep_rate: false,
    };
    FileDecoder::new(args, Level::detect())
        .expect("a rate in range, and a level that was detected")
        .at_most(LONGEST_S)
}

pub(crate) fn run(file: &[u8]) {
    if let Ok(picture) = pictures::decode(file, PIXELS_MAX) {
        let tensor = pictures::tensor(&picture, &IMAGE);
        assert!(tensor.is_err() || tensor.is_ok_and(|bytes| bytes.len() == IMAGE.row_bytes()));
    }

    DECODERS.with_borrow_mut(|Decoders { exact, band, pcm }| {
        for decoder in [exact, band] {
            decoder.expect(LONGEST_S);
            let decoded = decoder.decode("", file, pcm);
            if decoded.is_ok() {
                let samples = &pcm.samples[..];
                assert_eq!(samples.len(), pcm.n_samples);
                assert!(samples.iter().all(|sample| sample.is_finite()));
            }

            let n_decoded = pcm.n_samples as f64;
            let measured = decoder.measure("", file, pcm);
            match (decoded, measured) {
                (Ok(()), Ok(seconds)) => {
                    assert_eq!((seconds * f64::from(RATE_HZ)).round(), n_decoded);
                }
                (Err(decoded), Err(measured)) => assert_eq!(decoded.reason, measured.reason),
                (decoded, measured) => panic!("decoding: {decoded:?}, measuring: {measured:?}"),
            }
        }
    });
}
