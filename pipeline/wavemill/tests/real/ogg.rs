//! Ogg Vorbis files with missing pages, false lengths, or headers that break decoders.

use std::cell::Cell;
use std::fs;
use std::panic;
use std::path::Path;

use wavemill_decode::{Decode, InputFacts, Pcm};
use wavemill_schemas::reject::Reason::{Damaged, TooLarge};
use wavemill_schemas::reject::Reject;
use wavemill_tests::{Failed, Trial, real};

use super::decode::Outcome::{self, Reject as No, Row};
use super::decode::{decode, decoder, mismatch};

/// Sample rate of the short and the long file, in Hz.
const RATE_HZ: u32 = 22_050;
/// Number of samples of the short file and of the long file.
const SHORT: usize = 33_075;
const LONG: usize = 1_323_000;
/// Maximum number of samples that one packet of the test files adds (half a long block), and its minimum size in bytes.
const PACKET_SAMPLES_MAX: f64 = 512.0;
const PACKET_BYTES_MIN: f64 = 2.0;

/// Expected outcome of each file: the samples and the seconds lost, or the reason of the reject.
#[rustfmt::skip]
const OUTCOMES: [(&str, Outcome); 19] = [
    ("ogg_loss/00_ref.ogg", Row(SHORT, 0.0)),
    ("ogg_loss/01_chain_same.ogg", Row(2 * SHORT, 0.0)),
    ("ogg_loss/02_chain_newserial.ogg", Row(2 * SHORT, 0.0)),
    // The second stream has another sample rate.
    ("ogg_loss/03_chain_otherrate.ogg", Row(2 * SHORT, 0.0)),
    // A page of 22 packets is lost, and with it the packet that overlaps with the page.
    ("ogg_loss/04_crc_mid.ogg", Row(SHORT, 0.5166)),
    ("ogg_loss/05_body_flip_mid.ogg", Row(SHORT, 0.5166)),
    // The false length is ignored, so the samples are not trimmed either.
    ("ogg_loss/10_last_granule_max.ogg", Row(33_280, 0.0)),
    ("ogg_loss/11_last_granule_1h.ogg", Row(33_280, 0.0)),
    ("ogg_loss/long_00_ref.ogg", Row(LONG, 0.0)),
    ("ogg_loss/long_flip50.ogg", Row(LONG, 0.5341)),
    ("ogg_loss/long_flip90.ogg", Row(LONG, 0.5108)),
    ("ogg_loss/long_flip97.ogg", Row(LONG, 0.5341)),
    ("ogg_loss/long_flip99.ogg", Row(LONG, 0.5105)),
    ("ogg_codebook_memory/v10/g/v10.ogg", No(TooLarge)),
    ("ogg_codebook_memory/v100/g/v100.ogg", No(TooLarge)),
    ("ogg_codebook_memory/vmax/g/vmax.ogg", No(TooLarge)),
    ("panic_ogg_codebook/g/v10.ogg", No(TooLarge)),
    ("panic_ogg_fuzz/g/001224_v_8000_1_5-5-5.ogg", No(Damaged)),
    ("panic_ogg_fuzz/g/002714_v_8000_1_5-1-5.ogg", No(Damaged)),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real("ogg::chains_damage_and_lies_have_their_outcome", outcomes),
        real("ogg::the_hash_is_over_all_links", hashes),
        real(
            "ogg::a_page_damaged_or_gone_is_lost_and_time_goes_on",
            pages_lost,
        ),
        real("ogg::a_file_cut_anywhere_says_what_it_lost", cuts),
        real(
            "ogg::mutants_neither_panic_nor_lose_more_than_their_bytes_hold",
            mutants,
        ),
    ]
}

fn outcomes(data: &Path) -> Result<(), Failed> {
    let mut decoder = decoder(RATE_HZ, None, 0.1);
    let mut faults = Vec::new();
    for (name, outcome) in &OUTCOMES {
        let path = data.join("hostile").join(name);
        faults.extend(mismatch(name, outcome, &decode(&mut decoder, &path)));
    }

    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

fn audio_hash(path: &Path) -> Option<String> {
    let facts = InputFacts::read(&fs::read(path).unwrap());
    facts.audio.map(|hash| hash.to_hex().to_string())
}

fn hashes(data: &Path) -> Result<(), Failed> {
    let [reference, long, same, new_serial, other_rate] = [
        "00_ref.ogg",
        "long_00_ref.ogg",
        "01_chain_same.ogg",
        "02_chain_newserial.ogg",
        "03_chain_otherrate.ogg",
    ]
    .map(|name| audio_hash(&data.join("hostile/ogg_loss").join(name)));

    // These hashes are from before the decoder supported chained streams.
    assert_eq!(reference.as_ref().unwrap()[..8], *"01b76e14");
    assert_eq!(long.unwrap()[..8], *"1dd25e01");

    assert_ne!(same, reference);
    assert_eq!(same, new_serial);
    assert_ne!(other_rate, reference);
    Ok(())
}

/// Damages or removes each page of the long file in turn, and checks the loss that the decoder reports.
fn pages_lost(data: &Path) -> Result<(), Failed> {
    let good = fs::read(data.join("hostile/ogg_loss/long_00_ref.ogg"))?;
    let whole = samples_of(&good).unwrap();
    let pages = pages(&good);
    for (number, &(from, to)) in pages.iter().enumerate().skip(2) {
        let mut flipped = good.clone();
        flipped[(from + to) / 2] ^= 4;
        let mut gone = good.clone();
        gone.drain(from..to);

        let is_last = number + 1 == pages.len();
        for (what, bytes) in [("flipped", flipped), ("gone", gone)] {
            let got = samples_of(&bytes).unwrap();
            let lost = (f64::from(got.lost_s) * f64::from(RATE_HZ)).round() as usize;

            // A missing last page cannot be detected. A missing first page of audio is not replaced by silence.
            if what == "gone" && is_last {
                continue;
            }

            assert!(
                lost > 5_000 && lost < 15_000,
                "page {number} {what}: {lost} samples lost"
            );

            let n_closed = if is_last || (what == "gone" && number == 2) {
                lost
            } else {
                0
            };
            let n_there = got.samples.len() + n_closed;
            assert!(
                n_there.abs_diff(LONG) <= 512 * usize::from(is_last),
                "page {number} {what}: {n_there}"
            );

            // The samples after the lost page are at the same time as in the whole file.
            let n_behind = LONG / 100;
            if number + 2 < pages.len() {
                assert_eq!(
                    tail(&got.samples, n_behind),
                    tail(&whole.samples, n_behind),
                    "page {number} {what}"
                );
            }
        }
    }
    Ok(())
}

fn tail(samples: &[f32], n: usize) -> &[f32] {
    &samples[samples.len() - n..]
}

/// Cuts a file within pages. The decoded and the lost samples must not exceed the whole, and the loss must be reported.
fn cuts(data: &Path) -> Result<(), Failed> {
    let good = fs::read(data.join("hostile/ogg_loss/long_00_ref.ogg"))?;
    let pages = pages(&good);

    for &(from, to) in pages.iter().skip(3).step_by(7) {
        for at in [from + 30, (from + to) / 2, to - 1] {
            let got = samples_of(&good[..at]).unwrap();
            assert!(got.lost_s > 0.0, "cut at {at}");
            let n_told = got.samples.len() as f64 + f64::from(got.lost_s) * f64::from(RATE_HZ);
            assert!(
                n_told < LONG as f64 + 1024.0,
                "cut at {at}: {n_told} samples"
            );
        }
    }
    Ok(())
}

fn samples_of(bytes: &[u8]) -> Result<Pcm, Reject> {
    let mut out = Pcm::default();
    decoder(RATE_HZ, None, 0.0).decode("ogg", bytes, &mut out)?;
    Ok(out)
}

/// Returns the start and end of each page of a valid file.
fn pages(file: &[u8]) -> Vec<(usize, usize)> {
    let mut pages = Vec::new();
    let mut at = 0;
    while at < file.len() {
        assert_eq!(&file[at..at + 4], b"OggS");
        let n_values = usize::from(file[at + 26]);
        let lacing = &file[at + 27..at + 27 + n_values];
        let end = at
            + 27
            + n_values
            + lacing
                .iter()
                .map(|&value| usize::from(value))
                .sum::<usize>();

        pages.push((at, end));
        at = end;
    }
    pages
}

/// Writes the correct checksum into the header of an Ogg page.
fn seal(page: &mut [u8]) {
    page[22..26].fill(0);
    let mut crc = 0_u32;
    for &byte in &*page {
        crc ^= u32::from(byte) << 24;
        for _ in 0..8 {
            crc = crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 };
        }
    }
    page[22..26].copy_from_slice(&crc.to_le_bytes());
}

/// A deterministic pseudo-random number generator.
struct RandomNumbers(u64);

impl RandomNumbers {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

thread_local! {
    /// Number of panics on this thread, including those that are caught.
    static N_PANICS: Cell<usize> = const { Cell::new(0) };
}

/// Decodes files with damage of every kind. Most of them have correct checksums, so that damaged headers and packets
/// reach the codec. The environment variable `WAVEMILL_OGG_MUTANTS` sets the number of files.
fn mutants(data: &Path) -> Result<(), Failed> {
    let n_mutants = std::env::var("WAVEMILL_OGG_MUTANTS").map_or(1_500, |n| n.parse().unwrap());
    let good = fs::read(data.join("hostile/ogg_loss/00_ref.ogg"))?;
    let bounds = pages(&good);

    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        N_PANICS.set(N_PANICS.get() + 1);
        before(info);
    }));

    let mut numbers = RandomNumbers(0x0995);
    let mut decoder = decoder(RATE_HZ, None, 0.0);
    let mut out = Pcm::default();
    let mut n_rows = 0;
    for round in 0..n_mutants {
        let bytes = mutant(&good, &bounds, &mut numbers);
        let decoded = decoder.decode("ogg", &bytes, &mut out);
        assert_eq!(N_PANICS.get(), 0, "round {round}: a panic");

        let facts = InputFacts::read(&bytes);
        assert_eq!(facts.decode, out.decode_key, "round {round}");

        let Ok(()) = decoded else { continue };
        n_rows += 1;
        assert!(
            out.samples.iter().all(|sample| sample.is_finite()),
            "round {round}"
        );

        // At most, each hole and each packet that cannot be decoded is counted as lost once.
        let held_s =
            2.0 * bytes.len() as f64 / PACKET_BYTES_MIN * PACKET_SAMPLES_MAX / f64::from(RATE_HZ);
        assert!(
            f64::from(out.lost_s) <= held_s,
            "round {round}: {} s lost",
            out.lost_s
        );

        let hash = facts.audio.map(|hash| hash.to_hex().to_string());
        assert_eq!(hash.as_ref(), Some(&out.audio_blake3), "round {round}");
    }

    println!("{n_mutants} mutants: {n_rows} rows, the others rejects");
    assert!(
        n_rows > n_mutants / 10 && n_rows < n_mutants,
        "{n_rows} rows"
    );
    Ok(())
}

fn mutant(good: &[u8], bounds: &[(usize, usize)], numbers: &mut RandomNumbers) -> Vec<u8> {
    let mut pages: Vec<Vec<u8>> = bounds
        .iter()
        .map(|&(from, to)| good[from..to].to_vec())
        .collect();

    for _ in 0..=numbers.below(3) {
        let at = numbers.below(pages.len());
        match numbers.below(8) {
            // Damage anywhere after the page header, in the page header, or in Vorbis headers, where it has the
            // greatest effect.
            0 | 1 => flip(&mut pages[at], 27, numbers),
            2 => flip_range(&mut pages[at], 0, 27, numbers),
            3 | 4 => {
                let headers = pages.get_mut(1).filter(|page| page.len() > 28);
                if let Some(page) = headers {
                    flip(page, 28, numbers);
                }
            }
            // A granule position of any size; or removed, repeated or moved pages.
            5 => {
                let granule = 1_u64 << numbers.below(64);
                if let Some(place) = pages[at].get_mut(6..14) {
                    place.copy_from_slice(&granule.to_le_bytes());
                }
            }
            6 if pages.len() > 2 => drop(pages.remove(at)),
            _ => {
                let page = pages[numbers.below(pages.len())].clone();
                pages.insert(at, page);
            }
        }
    }

    if numbers.below(4) > 0 {
        pages
            .iter_mut()
            .filter(|page| page.len() > 26)
            .for_each(|page| seal(page));
    }

    let mut bytes = pages.concat();
    if numbers.below(8) == 0 {
        bytes.truncate(numbers.below(bytes.len()));
    }
    if numbers.below(8) == 0 {
        bytes.extend_from_slice(good);
    }
    bytes
}

fn flip(page: &mut [u8], from: usize, numbers: &mut RandomNumbers) {
    flip_range(page, from, page.len(), numbers);
}

fn flip_range(page: &mut [u8], from: usize, to: usize, numbers: &mut RandomNumbers) {
    for _ in 0..=numbers.below(4) {
        let at = from + numbers.below(to.min(page.len()).saturating_sub(from));
        if let Some(byte) = page.get_mut(at) {
            *byte ^= 1 << numbers.below(8);
        }
    }
}
