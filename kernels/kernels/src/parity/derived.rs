//! Parity of statistics, tempo and pictures, which are computed from another feature's values: the CPU matches the references,
//! and devices refuse them. They apply to every operation alike, so a new operation needs no case here.

use wavemill_options::{ColourMap, Derived, PictureArgs, TempoArgs};

use super::*;
use crate::{picture, statistics, tempo};

/// Tolerance relative to the size of a statistic, or to 1 if larger: rounding to f32, and sums in another order.
const STATISTIC_REL_MAX: f64 = 1e-5;

/// Returns source features whose normalization and axis order must not affect the derived features.
fn sources() -> Vec<FeatureArgs> {
    let in_decibels = options!(
        db: db(DbRef::Max, 80.0), normalize: Normalize::MinMax,
        dim_order: "frame,mel".to_owned(); small_mel()
    );
    let with_deltas = options!(delta: 1, frames: 20, normalize: Normalize::MeanVar; small_mel());
    vec![
        librosa(Op::Mel, in_decibels),
        librosa(Op::Mfcc, with_deltas),
    ]
}

fn coloured() -> Derived {
    Derived::Picture(PictureArgs {
        colour_map: ColourMap::Magma,
        height: None,
        width: Some(17),
    })
}

fn statistics_are_those_of_the_values_before_scaling(on: &Machines) {
    let pcm = signal(4000);
    for source in sources() {
        let derived = source.derive(Derived::Statistics, None).unwrap();
        for backend in &on.cpus {
            let backend = &**backend;
            let unscaled = alone(backend, &source.source_values(), &pcm);
            let rows = rows_of(&unscaled, source.n_frames(pcm.len()));
            let want = statistics::reference::statistics(&rows);

            let got = alone(backend, &derived, &pcm);
            assert_eq!(got.len(), derived.n_values(pcm.len()));
            for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                let most = STATISTIC_REL_MAX * want.abs().max(1.0);
                let is_close = (f64::from(*got) - want).abs() <= most;
                assert!(is_close, "{}: value {at} is {got}, {want}", name(backend));
            }
        }
    }
}

fn tempos_are_those_of_the_tempogram(on: &Machines) {
    // A click every 20 frames.
    let mut pcm = signal(200_000);
    for click in pcm.chunks_mut(20 * 512) {
        click[..20].iter_mut().for_each(|x| *x += 0.9);
    }
    let source = librosa(Op::Tempogram, FeatureSpec::default());
    let per_minute = 60.0 * 22_050.0 / 512.0;
    let slow = TempoArgs {
        start_bpm: 32.3,
        std_bpm: 0.05,
        ..TempoArgs::LIBROSA
    };
    let all_too_fast = TempoArgs {
        max_tempo: 1.0,
        ..TempoArgs::LIBROSA
    };

    for (tempo, lag) in [(TempoArgs::LIBROSA, 20), (slow, 80), (all_too_fast, 20)] {
        let derived = source.derive(Derived::Tempo(tempo), None).unwrap();
        assert_eq!(derived.shape(pcm.len()), [1]);
        for backend in &on.cpus {
            let all = [source.clone(), derived.clone()];
            let got = values(&**backend, &all, &[&pcm]).unwrap().remove(0);
            let rows = rows_of(&got[0], source.n_frames(pcm.len()));
            assert_eq!(tempo::reference::lag(&tempo, per_minute, &rows), lag);
            assert_eq!(got[1], [(per_minute / lag as f64) as f32]);
        }
    }
}

fn a_derived_feature_is_the_same_beside_its_source_and_without_it(on: &Machines) {
    let long = signal(5000);
    let pcm = signal(4000);
    let mut all = Vec::new();
    for source in sources() {
        // Request derived features before and after their source.
        all.push(source.derive(Derived::Statistics, None).unwrap());
        all.push(source.clone());
        all.push(source.derive(coloured(), None).unwrap());
        all.push(source.derive(Derived::Statistics, None).unwrap());
    }

    for backend in &on.cpus {
        let backend = &**backend;
        let together = values(backend, &all, &[&long, &pcm]).unwrap();
        for (args, together) in all.iter().zip(&together[1]) {
            let alone = alone(backend, args, &pcm);
            assert_eq!(&alone, together, "{}: {args:?}", name(backend));
        }
    }
}

fn pictures_are_those_of_the_values_before_scaling(on: &Machines) {
    let pcm = signal(4000);
    // One source is enough: what pictures compute does not depend on the operation before them.
    let source = sources().remove(0);
    let derived = source.derive(coloured(), None).unwrap();
    let Some(Derived::Picture(args)) = &derived.derived else {
        panic!("not a picture: {derived:?}");
    };
    for backend in &on.cpus {
        let backend = &**backend;
        let unscaled = alone(backend, &source.source_values(), &pcm);
        let rows = rows_of(&unscaled, source.n_frames(pcm.len()));
        let want = picture::reference::picture(args, &rows);

        let got = alone(backend, &derived, &pcm);
        assert_eq!(got.len(), want.len());
        // A value near the boundary of two colours may have either colour, so allow some differences.
        let others = got.iter().zip(&want);
        let others = others.filter(|(got, want)| (f64::from(**got) - **want).abs() > 1e-6);
        assert!(others.count() * 100 <= want.len(), "{}", name(backend));
    }
}

fn a_clip_without_a_frame_has_no_derived_tensor(on: &Machines) {
    let overrides = options!(center: false; small_mel());
    let source = librosa(Op::Mel, overrides);
    let all = [
        source.derive(Derived::Statistics, None).unwrap(),
        source.derive(coloured(), None).unwrap(),
    ];
    for backend in &on.cpus {
        let got = values(&**backend, &all, &[&signal(100)]).unwrap();
        assert!(got[0].iter().all(Vec::is_empty), "{}", name(&**backend));
    }
}

fn devices_refuse_what_is_derived(on: &Machines) {
    let derived = sources()[0].derive(Derived::Statistics, None).unwrap();
    for backend in &on.devices {
        let error = backend.plan(0, std::slice::from_ref(&derived)).err();
        assert_eq!(
            error.map(|error| error.to_string()),
            Some("op = \"statistics\" is computed only on the CPU".to_owned())
        );
    }
}

parity!(
    statistics_are_those_of_the_values_before_scaling,
    tempos_are_those_of_the_tempogram,
    pictures_are_those_of_the_values_before_scaling,
    a_derived_feature_is_the_same_beside_its_source_and_without_it,
    a_clip_without_a_frame_has_no_derived_tensor,
    devices_refuse_what_is_derived,
);
