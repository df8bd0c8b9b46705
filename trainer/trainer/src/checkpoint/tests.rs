//! Tests of checkpoints that are written, interrupted, damaged and read again.

use wavemill_schemas::config::Schedule;
use wavemill_schemas::exit::Classified;
use wavemill_scores::schedule::Schedules;

use super::*;
use crate::dataset::fixture::Fixture;
use crate::dataset::{Needs, Store};

fn state(folder: &Path) -> State {
    Fixture::default().write(folder);
    let config = Config::default();
    let store = Store::open(folder, None).expect("a store");
    let data = Dataset::open(store, &config.data, Needs::default()).expect("a dataset");

    State::first(
        &config,
        &data,
        Schedules::new(&Schedule::default(), 0.1).state().clone(),
        1,
    )
}

fn tensors(value: f64) -> Vec<(String, Tensor)> {
    let odd = Tensor::from_slice(&[value as f32, 2.0, 3.0]);
    let wide = Tensor::from_slice(&[value, -0.0, f64::MIN_POSITIVE, f64::INFINITY]).view([2, 2]);
    let steps = Tensor::from_slice(&[7_i64, i64::MAX]);

    [
        ("b.odd", odd),
        ("a.wide", wide),
        ("steps", steps),
        ("c.scalar", Tensor::from(value as f32)),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

fn save(checkpoints: &Checkpoints, state: &mut State, step: u64) -> PathBuf {
    state.step = step;
    checkpoints
        .save(state, &tensors(step as f64))
        .expect("room")
}

fn names(checkpoints: &Checkpoints) -> Vec<String> {
    let mut names = checkpoints.names().expect("a folder");
    names.sort();
    names
}

#[test]
fn tensors_come_back_bit_for_bit_with_their_shapes() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(&folder.path().join("store"));
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 2).expect("a folder");
    let path = save(&checkpoints, &mut state, 3);

    let back = read_tensors(&path).expect("safetensors");
    assert_eq!(back.len(), 4);
    for (name, tensor) in tensors(3.0) {
        assert_eq!(
            (back[&name].size(), back[&name].kind()),
            (tensor.size(), tensor.kind()),
            "{name}"
        );
        assert!(back[&name].equal(&tensor), "{name}");
    }

    assert_eq!(read_state(&path).expect("JSON"), state);
}

#[test]
fn only_last_and_best_checkpoints_are_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(&folder.path().join("store"));
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 2).expect("a folder");

    assert!(checkpoints.is_empty().expect("a folder"));
    let error = checkpoints.last().expect_err("no checkpoint");
    assert_eq!(error.kind(), Kind::Usage, "{error}");

    save(&checkpoints, &mut state, 1);
    assert_eq!(
        checkpoints.best().expect("the last"),
        checkpoints.last().expect("one")
    );

    state.best = Some(BestEpoch {
        value: 0.5,
        epoch: 0,
        step: 2,
    });
    for step in 2..=5 {
        save(&checkpoints, &mut state, step);
    }

    assert_eq!(
        names(&checkpoints),
        ["step-00000002", "step-00000004", "step-00000005"]
    );
    assert!(
        checkpoints
            .best()
            .expect("step 2")
            .ends_with("step-00000002")
    );

    // The run is resumed with a setting that keeps fewer checkpoints.
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 1).expect("a folder");
    state.best = Some(BestEpoch {
        value: 0.4,
        epoch: 1,
        step: 6,
    });

    save(&checkpoints, &mut state, 6);
    assert_eq!(names(&checkpoints), ["step-00000006"]);
}

#[test]
fn kill_during_saving_loses_no_checkpoint() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(&folder.path().join("store"));
    let checkpoints = Checkpoints::open(folder.path().join("checkpoints"), 1).expect("a folder");
    let path = save(&checkpoints, &mut state, 9);

    let within = folder.path().join("checkpoints");
    fs::rename(&path, within.join(".old-00000009")).expect("a folder");
    let part = within.join(".part-00000009");
    fs::create_dir(&part).expect("a folder");
    fs::write(part.join("tensors.safetensors"), "half").expect("room");

    let last = checkpoints.last().expect("under its other name");
    assert_eq!(read_state(&last).expect("whole").step, 9);

    // Write a checkpoint of the same step again, then one of the next step.
    for step in [9, 10] {
        save(&checkpoints, &mut state, step);
        assert_eq!(names(&checkpoints), [format!("step-{step:08}")]);
    }
}

/// Writes a checkpoint of step 3 and returns its path.
fn one(folder: &Path) -> PathBuf {
    let mut state = state(&folder.join("store"));
    save(
        &Checkpoints::open(folder.join("checkpoints"), 2).expect("a folder"),
        &mut state,
        3,
    )
}

#[test]
fn every_flipped_byte_of_a_checkpoint_is_damage_with_file_and_remedy() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = one(folder.path());

    for name in [TENSORS, STATE] {
        let file = path.join(name);
        let whole = fs::read(&file).expect("a file");

        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&file, flipped).expect("room");

            let error = read_tensors(&path).expect_err("another byte");
            assert_eq!(error.kind(), Kind::Damaged, "{name}, byte {at}: {error}");
            let message = error.to_string();
            assert!(
                message.contains(name) && message.contains("--resume"),
                "{message}"
            );
        }

        fs::write(&file, &whole[..whole.len() - 1]).expect("room");
        let error = read_tensors(&path).expect_err("it is cut off");
        assert_eq!(error.kind(), Kind::Damaged, "{name}: {error}");

        fs::write(&file, &whole).expect("room");
        read_tensors(&path).expect("as it was");
    }
}

#[test]
fn a_missing_file_is_damage() {
    for name in [TENSORS, STATE] {
        let folder = tempfile::tempdir().expect("a folder");
        let path = one(folder.path());
        fs::remove_file(path.join(name)).expect("a file");

        let error = read_state(&path)
            .and_then(|_| read_tensors(&path))
            .expect_err("half of it");
        assert_eq!(error.kind(), Kind::Damaged, "{error}");
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn a_checkpoint_of_the_first_format_is_read_without_a_hash_and_a_later_one_is_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = one(folder.path());
    let text = fs::read(path.join(STATE)).expect("a file");
    let mut state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");

    state
        .as_object_mut()
        .expect("a map")
        .remove("tensors_blake3")
        .expect("a hash");

    let [first, second, later] = [1, 2, FORMAT_VERSION + 1].map(|version| {
        state["format_version"] = version.into();
        fs::write(path.join(STATE), state.to_string()).expect("room");
        read_tensors(&path).map(|tensors| tensors.len())
    });

    assert_eq!(first.expect("as before"), 4);
    let second = second.expect_err("no hash");
    assert_eq!(second.kind(), Kind::Damaged, "{second}");
    let later = later.expect_err("another format").to_string();
    assert!(later.ends_with("use a newer one"), "{later}");
}

#[test]
fn an_epoch_of_ten_times_the_first_loss_diverges() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut state = state(&folder.path().join("store"));
    state.epoch = 4;
    state.sums = EpochSums {
        loss: 2000.0,
        rows: 100,
        ..EpochSums::default()
    };

    assert_eq!(Divergence::detect(&state), None, "no first loss");

    state.first_loss = Some(2.0);
    assert_eq!(Divergence::detect(&state), None, "just ten times");

    state.first_loss = Some(1.5);
    let diverged = Divergence::detect(&state).expect("more");
    assert_eq!(
        diverged,
        Divergence {
            epoch: 4,
            mean: 20.0,
            first: 1.5
        }
    );
    assert!(
        diverged
            .to_string()
            .contains("20.0000 in epoch 5 and 1.5000"),
        "{diverged}"
    );
}
