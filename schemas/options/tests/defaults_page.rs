//! Compares the defaults of every preset with the table in docs/features.md, so that both are changed together.
//!
//! The test parses a table cell as a number, a word, or a formula over other options. An unknown notation equals no
//! default, so it fails the test.

use wavemill_options::{DbRef, FeatureArgs, FeatureSpec, Framing, LogArgs, Op, Preset};
use wavemill_tests::options;

const PAGE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/features.md"
));

/// All options, in the order of the table in docs/features.md.
const KEYS: [&str; 21] = [
    "n_fft",
    "win_length",
    "hop_length",
    "window",
    "center",
    "pad_mode",
    "power",
    "n_mels",
    "fmin",
    "fmax",
    "htk",
    "norm",
    "db",
    "n_mfcc",
    "dct_type",
    "lifter",
    "delta",
    "frames",
    "normalize",
    "dim_order",
    "dtype",
];
/// Options without a default value: `frames` is absent by default, and the page's text describes the defaults of
/// `dim_order` and `dtype`.
const UNLISTED_KEYS: [&str; 3] = ["frames", "dim_order", "dtype"];

/// Table row of one option, with a cell per preset in the order of [`Preset::ALL`].
struct Documented {
    key: String,
    cells: Vec<String>,
}

/// Returns the rows of the table under "Options". A row with two keys, such as `fmin`, `fmax`, is split in two.
fn documented() -> Vec<Documented> {
    let lines = PAGE.lines().skip_while(|line| *line != "## Options");
    let table = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));

    let mut options = Vec::new();
    for line in table.skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [keys, _op, _meaning, presets @ ..] = cells.as_slice() else {
            panic!("a row of the table is too short: {line}");
        };
        assert_eq!(presets.len(), Preset::ALL.len(), "{line}");

        let keys: Vec<&str> = keys.split(", ").collect();
        for (place, key) in keys.iter().enumerate() {
            let mut cells = Vec::new();
            for cell in presets {
                cells.push(match keys.len() {
                    1 => (*cell).to_owned(),
                    _ => cell.split(", ").nth(place).unwrap_or("").to_owned(),
                });
            }
            options.push(Documented {
                key: key.trim_matches('`').to_owned(),
                cells,
            });
        }
    }
    options
}

/// Returns the part of a cell that applies to `op`: `512 (stft: 256)` means 256 for `stft` and 512 for the others, and
/// `2 (stft, mfcc: 1)` means 1 for both. In the page, each name has backticks.
fn cell_of(cell: &str, op: Op) -> &str {
    let Some((usual, exception)) = cell.split_once(" (`") else {
        return cell;
    };
    let Some((names, other)) = exception.split_once("`: ") else {
        return cell;
    };

    let names: Vec<&str> = names.split("`, `").collect();
    let are_ops = names
        .iter()
        .all(|name| Op::ALL.iter().any(|op| op.name() == *name));
    if !are_ops {
        // An explanation, such as `snip_edges`.
        cell
    } else if names.contains(&op.name()) {
        other.trim_end_matches(')')
    } else {
        usual
    }
}

/// Returns the value that the text of a table cell means, if the feature's other options are those of `args`.
fn meaning(text: &str, args: &FeatureArgs) -> String {
    let rate_hz = args.sample_rate_hz as usize;
    let window = args.stft.win_length;

    // Ignore an explanation in parentheses after the value of a table cell.
    let text = text.split(" (").next().unwrap_or(text);
    match text {
        "`n_fft`" => args.stft.n_fft.to_string(),
        "`win_length` / 2" => (window / 2).to_string(),
        "`win_length` / 4" => (window / 4).to_string(),
        "next power of two of `win_length`" => window.next_power_of_two().to_string(),
        "25 ms" => (rate_hz * 25 / 1000).to_string(),
        "10 ms" => (rate_hz * 10 / 1000).to_string(),
        "rate / 2" => (rate_hz as f64 / 2.0).to_string(),
        value => value.to_owned(),
    }
}

/// Formats a logarithm as in the table of docs/features.md.
fn log_words(log: LogArgs) -> String {
    match log {
        LogArgs::Linear => "none".to_owned(),
        LogArgs::Db(db) => {
            let reference = match db.reference {
                DbRef::Max => "max".to_owned(),
                DbRef::Power(power) => power.to_string(),
            };
            let top_db = db.top_db.expect("the presets' decibels have a floor");
            format!("ref {reference}, {top_db} dB")
        }
        LogArgs::Ln { floor } => format!("ln(max(ε, S)), ε = {floor:.2e}"),
        LogArgs::Whisper => "log10, max − 8, (x + 4) / 4".to_owned(),
    }
}

/// Returns the name of an option's value in recipes.
fn word(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_value(value).expect("a plain value");
    json.as_str().expect("a word").to_owned()
}

/// Returns the value of `key` in `args`; `None` if the operation does not have the option.
fn resolved(args: &FeatureArgs, key: &str) -> Option<String> {
    let mel = args.mel.as_ref();
    let mfcc = args.mfcc.as_ref();

    match key {
        "n_fft" => Some(args.stft.n_fft.to_string()),
        "win_length" => Some(args.stft.win_length.to_string()),
        "hop_length" => Some(args.stft.hop_length.to_string()),
        "window" => Some(word(&args.stft.window)),
        "center" => Some(matches!(args.stft.framing, Framing::Center(_)).to_string()),
        "power" => Some(args.power.to_string()),
        "n_mels" => mel.map(|mel| mel.n_mels.to_string()),
        "fmin" => mel.map(|mel| mel.fmin.to_string()),
        "fmax" => mel.map(|mel| mel.fmax.to_string()),
        "htk" => mel.map(|mel| mel.htk.to_string()),
        "norm" => mel.map(|mel| word(&mel.norm)),
        "db" => Some(log_words(args.log)),
        "n_mfcc" => mfcc.map(|mfcc| mfcc.n_mfcc.to_string()),
        "dct_type" => mfcc.map(|mfcc| mfcc.dct_type.to_string()),
        "lifter" => mfcc.map(|mfcc| mfcc.lifter.to_string()),
        "delta" => Some(args.delta.to_string()),
        "normalize" => Some(word(&args.normalize)),
        _ => panic!("{key}: no such option"),
    }
}

/// Returns a preset's default padding of centred frames, even if its frames are not centred by default (Kaldi).
fn pad_mode(spec: &FeatureSpec, sample_rate_hz: u32) -> String {
    let centred = options!(center: true; spec.clone());
    let args = centred.resolve(&[], sample_rate_hz).expect("sound options");
    match args.stft.framing {
        Framing::Center(pad_mode) => word(&pad_mode),
        framing => panic!("{framing:?} is not centred"),
    }
}

/// Compares a preset's defaults for `op` with the preset's column of the table, except for options in `overrides`.
fn assert_documented(column: usize, op: Op, sample_rate_hz: u32, overrides: &FeatureSpec) {
    let preset = Preset::ALL[column];
    let spec = options!(op, preset; overrides.clone());
    let args = spec.resolve(&[], sample_rate_hz).expect("sound options");
    let options = documented();
    let librosa_db = options.iter().find(|option| option.key == "db");
    let librosa_db = &librosa_db.expect("the table has `db`").cells[0];

    for option in &options {
        let key = option.key.as_str();
        let is_given = (key == "n_fft" && overrides.n_fft.is_some())
            || (key == "win_length" && overrides.win_length.is_some());
        if is_given || UNLISTED_KEYS.contains(&key) {
            continue;
        }

        let cell = match option.cells[column].as_str() {
            "as librosa" => librosa_db,
            cell => cell,
        };
        let want = match key {
            "db" => cell_of(cell, op).to_owned(),
            _ => meaning(cell_of(cell, op), &args),
        };

        let is = match key {
            "pad_mode" => Some(pad_mode(&spec, sample_rate_hz)),
            _ => resolved(&args, key),
        };
        let Some(is) = is else { continue };
        assert_eq!(
            is, want,
            "{preset:?}, {op:?} at {sample_rate_hz} Hz: the default of `{key}`, and docs/features.md"
        );

        // Check the explanations in parentheses: frame positions, and the index of the lifter's first coefficient.
        let has_snip_edges = args.stft.framing == Framing::SnipEdges;
        let counts_from_0 = args.mfcc.as_ref().is_some_and(|mfcc| mfcc.lifter_from == 0);
        if key == "center" {
            assert_eq!(has_snip_edges, cell.contains("`snip_edges`"), "{preset:?}");
        }
        if key == "lifter" {
            assert_eq!(counts_from_0, cell.contains("from 0"), "{preset:?}");
        }
    }
}

#[test]
fn the_table_has_every_option_once() {
    let keys: Vec<String> = documented().into_iter().map(|option| option.key).collect();
    assert_eq!(keys, KEYS);
}

#[test]
fn a_cell_may_name_several_operations_with_another_default() {
    let cell = "2 (`stft`, `mfcc`: `n_fft`)";
    assert_eq!(cell_of(cell, Op::Stft), "`n_fft`");
    assert_eq!(cell_of(cell, Op::Mfcc), "`n_fft`");
    assert_eq!(cell_of(cell, Op::Mel), "2");
    let explained = "false (`snip_edges`: frames of `win_length`)";
    assert_eq!(cell_of(explained, Op::Stft), explained);
}

#[test]
fn the_defaults_of_every_preset_are_those_of_the_table() {
    // Set options on which defaults of other options depend, such as `win_length` for `hop_length`.
    let given = [
        FeatureSpec::default(),
        options!(n_fft: 4096),
        options!(win_length: 300),
    ];

    for (column, preset) in Preset::ALL.into_iter().enumerate() {
        let is_whisper = preset == Preset::Whisper;
        let rates_hz: &[u32] = match is_whisper {
            true => &[16_000],
            false => &[8_000, 16_000, 22_050, 44_100],
        };
        // The operations on levels and shapes have defaults of their own, in another table.
        let ops = [Op::Stft, Op::Mel, Op::Mfcc].into_iter();
        let ops: Vec<Op> = ops.filter(|op| !(is_whisper && *op == Op::Mfcc)).collect();

        for &rate_hz in rates_hz {
            for &op in &ops {
                for overrides in &given {
                    assert_documented(column, op, rate_hz, overrides);
                }
            }
        }
    }
}
