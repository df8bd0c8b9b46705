//! Any bytes as a file of music, whatever its format: samples or a reject, and measuring agrees with decoding.

#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use wavemill::decode::{Decode, DecodeArgs, FileDecoder, Pcm};
use wavemill_kernels::Level;

/// Of the wanted rate, so that MP3 at 44.1 kHz takes the band path where it is asked for.
const RATE_HZ: u32 = 22_050;
/// Longer songs are rejects. A few bytes can announce hours of silence.
const LONGEST_S: f64 = 60.0;

struct Decoders {
    exact: FileDecoder,
    band: FileDecoder,
    pcm: Pcm,
}

thread_local! {
    /// Made once, as a worker makes them: what a file leaves behind must not harm the next one.
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

fuzz_target!(|file: &[u8]| {
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
});
