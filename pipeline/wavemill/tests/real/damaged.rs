//! Checks every kind of damage to one good clip; each file has a fixed, reviewed outcome.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use wavemill_decode::Pcm;
use wavemill_schemas::reject::Reason::{Damaged, Empty, NoAudio, NotAudio};
use wavemill_tests::{Failed, Trial, real};

use super::decode::Outcome::{self, Reject as No, Row};
use super::decode::{decode, decoder, mismatch};

/// A clip of 1,148 frames at 44.1 kHz. The damaged files are made from it without its Info frame: 1,322,496 samples.
const GOOD_CLIP: &str = "audio/fma_real/000/000002.mp3";
/// Minimum duration of a clip in seconds: one frame is too short, two frames are long enough.
const MIN_DURATION_S: f64 = 0.05;

/// Files that differ only in their tags, or in foreign bytes around the audio.
const SAME_AUDIO: [&str; 14] = [
    "good_no_xing.mp3",
    "ape_id3v1_tail.mp3",
    "id3_huge_2m.mp3",
    "id3_padding_1m.mp3",
    "id3_plain.mp3",
    "id3_twice.mp3",
    "id3_unsync.mp3",
    "id3v1_tail.mp3",
    "id3v24_footer.mp3",
    "is_wav_mp3_inside.mp3",
    "lyrics3_tail.mp3",
    "mid_id3v2.mp3",
    "prefix_html.mp3",
    "suffix_html.mp3",
];

/// Expected outcome of each file: the samples at 44.1 kHz and the seconds lost, or the reason of the reject.
#[rustfmt::skip]
const OUTCOMES: [(&str, Outcome); 84] = [
    ("all_ff_100k.mp3", No(NotAudio)),
    ("all_zero_100k.mp3", No(NotAudio)),
    ("ape_id3v1_tail.mp3", Row(1_322_496, 0.0)),
    ("bitflip_header_60.mp3", Row(1_276_416, 2.3249)),
    ("bitflip_main_300.mp3", Row(1_322_496, 0.0)),
    ("bitflip_side_150.mp3", Row(1_322_496, 0.6531)),
    ("bitrate_index_15.mp3", No(NotAudio)),
    ("bytes_1.mp3", No(NotAudio)),
    ("bytes_2.mp3", No(NotAudio)),
    ("bytes_3.mp3", No(NotAudio)),
    ("bytes_4.mp3", No(NotAudio)),
    ("bytes_5.mp3", No(NotAudio)),
    ("crc_bit_lie.mp3", Row(1_322_496, 28.7216)),
    ("drop_every_50th.mp3", Row(1_296_000, 0.1306)),
    ("dup_every_50th.mp3", Row(1_348_992, 0.1567)),
    ("emphasis_reserved.mp3", Row(1_322_496, 0.0)),
    ("frames_1.mp3", No(Damaged)),
    ("frames_10.mp3", Row(11_520, 0.0)),
    ("frames_2.mp3", Row(2_304, 0.0)),
    ("frames_3.mp3", Row(3_456, 0.0)),
    ("frames_shuffled.mp3", Row(1_322_496, 7.1837)),
    ("free_format.mp3", Row(1_322_496, 0.0)),
    ("good_no_xing.mp3", Row(1_322_496, 0.0)),
    ("good_original.mp3", Row(1_321_967, 0.0)),
    ("good_upper.MP3", Row(1_322_496, 0.0)),
    ("header_and_side_info.mp3", No(NotAudio)),
    ("id3_huge_2m.mp3", Row(1_322_496, 0.0)),
    ("id3_only.mp3", No(NoAudio)),
    ("id3_padding_1m.mp3", Row(1_322_496, 0.0)),
    ("id3_plain.mp3", Row(1_322_496, 0.0)),
    ("id3_size_past_eof.mp3", Row(1_322_496, 0.0)),
    ("id3_size_too_small.mp3", Row(1_322_496, 0.0)),
    ("id3_twice.mp3", Row(1_322_496, 0.0)),
    ("id3_unsync.mp3", Row(1_322_496, 0.0)),
    ("id3v1_tail.mp3", Row(1_322_496, 0.0)),
    ("id3v24_footer.mp3", Row(1_322_496, 0.0)),
    ("is_flac.mp3", No(NotAudio)),
    ("is_html.mp3", No(NotAudio)),
    ("is_lfs_pointer.mp3", No(NotAudio)),
    ("is_mp4.mp3", No(Damaged)),
    ("is_ogg.mp3", No(NotAudio)),
    ("is_wav.mp3", Row(5_000, 0.0)),
    ("is_wav_mp3_inside.mp3", Row(1_322_496, 0.0)),
    ("is_zip.mp3", No(NotAudio)),
    ("joined_twice_with_tags.mp3", Row(2_644_992, 0.0)),
    ("lame_delay_4095_pad_4095.mp3", Row(1_314_306, 0.0)),
    ("lame_delay_576_pad_1000.mp3", Row(1_320_920, 0.0)),
    ("lame_pad_longer_than_file.mp3", No(NoAudio)),
    ("layer_bits_zero.mp3", No(NotAudio)),
    ("lyrics3_tail.mp3", Row(1_322_496, 0.0)),
    ("mid_garbled_3x2k.mp3", Row(1_308_672, 0.3788)),
    ("mid_hole_1234.mp3", Row(1_320_192, 0.0392)),
    ("mid_id3v2.mp3", Row(1_322_496, 0.0)),
    ("mid_insert_3333.mp3", Row(1_321_344, 0.1437)),
    ("mid_zeros_20k.mp3", Row(1_293_696, 0.6792)),
    ("prefix_fake_frame.mp3", Row(1_322_496, 0.0)),
    ("prefix_html.mp3", Row(1_322_496, 0.0)),
    ("prefix_random_4k.mp3", Row(1_322_496, 0.0)),
    ("prefix_random_sync.mp3", Row(1_322_496, 0.0)),
    ("prefix_zeros_2m.mp3", Row(1_322_496, 0.0)),
    ("prefix_zeros_64k.mp3", Row(1_322_496, 0.0)),
    ("private_and_flag_bits.mp3", Row(1_322_496, 0.0)),
    ("random_1m.mp3", No(NotAudio)),
    ("random_sync_storm.mp3", No(Damaged)),
    ("reserved_rate_bits.mp3", No(NotAudio)),
    ("reservoir_cut_at_1.mp3", Row(1_321_344, 0.0)),
    ("reservoir_cut_at_382.mp3", Row(882_432, 0.0)),
    ("reservoir_cut_at_574.mp3", Row(661_248, 0.0)),
    ("reservoir_cut_at_7.mp3", Row(1_314_432, 0.0)),
    ("suffix_html.mp3", Row(1_322_496, 0.0)),
    ("suffix_random_100k.mp3", Row(1_322_496, 0.0)),
    ("suffix_zeros.mp3", Row(1_322_496, 0.0)),
    ("trunc_1s.mp3", Row(43_776, 0.0)),
    ("trunc_in_header.mp3", Row(792_576, 0.0261)),
    ("trunc_mid_frame.mp3", Row(792_576, 0.0261)),
    ("xing_4g.mp3", Row(1_322_496, 0.0)),
    ("xing_only.mp3", No(NoAudio)),
    ("xing_over_10.mp3", Row(1_322_496, 0.0)),
    ("xing_right.mp3", Row(1_322_496, 0.0)),
    ("xing_times_10.mp3", Row(1_322_496, 0.0)),
    ("xing_toc_random.mp3", Row(1_322_496, 0.0)),
    ("xing_twice.mp3", Row(1_322_496, 0.0)),
    ("xing_zero.mp3", Row(1_322_496, 0.0)),
    ("zero_length.mp3", No(Empty)),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![real("damaged::each_of_84_files_has_its_outcome", outcomes)]
}

fn outcomes(data: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    let made = Command::new("python3")
        .args([
            data.join("make_damaged.py"),
            data.join(GOOD_CLIP),
            folder.path().to_path_buf(),
        ])
        .output()?;
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );

    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("manifest.json"))?)?;
    let expect: BTreeMap<&str, &str> = manifest["files"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, file)| (name.as_str(), file["expect"].as_str().unwrap()))
        .collect();
    assert_eq!(
        expect.keys().copied().collect::<Vec<_>>(),
        OUTCOMES.map(|(name, _)| name)
    );

    let mut decoder = decoder(44_100, None, MIN_DURATION_S);
    let mut faults = Vec::new();
    let mut rows = BTreeMap::new();
    for (name, outcome) in &OUTCOMES {
        let decoded = decode(&mut decoder, &folder.path().join(name));
        faults.extend(mismatch(name, outcome, &decoded));
        if let Ok(pcm) = decoded {
            rows.insert(*name, KeyedRow::from_pcm(&pcm));
        }
        assert!(
            fits(expect[name], outcome),
            "{name}: the table does not fit what its maker expects: {}",
            expect[name]
        );
    }

    check_keys(&rows);
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults.join("\n").into())
    }
}

/// The decode key of a file, and the decoded values that the key identifies.
#[derive(Debug, PartialEq)]
struct KeyedRow {
    key: String,
    samples: blake3::Hash,
    lost_s: f32,
}

impl KeyedRow {
    fn from_pcm(pcm: &Pcm) -> Self {
        let mut samples = blake3::Hasher::new();
        for sample in pcm.samples.iter() {
            samples.update(&sample.to_le_bytes());
        }
        Self {
            key: pcm.decode_key.expect("a row").to_hex().to_string(),
            samples: samples.finalize(),
            lost_s: pcm.lost_s,
        }
    }
}

/// Checks that files with equal keys have equal rows, and that all files of the same audio have the same key.
fn check_keys(rows: &BTreeMap<&str, KeyedRow>) {
    let mut by_key: BTreeMap<&str, &KeyedRow> = BTreeMap::new();
    for (name, row) in rows {
        assert_eq!(*by_key.entry(&row.key).or_insert(row), row, "{name}");
    }
    for name in SAME_AUDIO {
        assert_eq!(rows[name], rows[SAME_AUDIO[0]], "{name}");
    }
    // Cuts, holes and announced lengths must change the decode key, unlike tags.
    assert!(by_key.len() > 25, "{} keys", by_key.len());
}

/// Checks an outcome against the coarse expectation of the script that made the file: `fail` must be a reject, `decode`
/// a row; any other file may be either.
fn fits(expect: &str, outcome: &Outcome) -> bool {
    match expect {
        "decode" => matches!(outcome, Row(..)),
        "fail" => matches!(outcome, No(_)),
        _ => true,
    }
}
