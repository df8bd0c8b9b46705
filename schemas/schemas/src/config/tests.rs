//! Tests of rejected configurations and of the merging of layers.

use super::*;

#[test]
fn a_set_wins_over_the_file_and_bare_words_are_text() {
    let sets = ["optimizer.lr=0.5".to_owned(), "model.name=crnn".to_owned()];
    let config = Config::parse("[optimizer]\nlr = 0.1", "c.toml", &sets).expect("valid");
    assert_eq!(
        (config.optimizer.lr, config.model.name.as_str()),
        (0.5, "crnn")
    );
}

#[test]
fn unknown_key_error_lists_valid_keys() {
    let error = Config::parse("[optimizer]\nrate = 0.1", "c.toml", &[])
        .expect_err("no such key")
        .to_string();
    assert_eq!(
        error,
        "c.toml, line 2: unknown key `rate`; allowed: name, lr, weight_decay, betas, eps, momentum, nesterov, clip_norm, \
         groups, layer_decay"
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_key_that_is_meant() {
    for (set, problem) in [
        ("lr=0.1", "unknown key `lr` (did you mean `optimizer.lr`?)"),
        (
            "learning_rate=0.1",
            "unknown key `learning_rate` (did you mean `optimizer.lr`?)",
        ),
        (
            "optimizer.learning_rate=0.1",
            "unknown key `learning_rate` (did you mean `optimizer.lr`?)",
        ),
        (
            "epochs=3",
            "unknown key `epochs` (did you mean `train.epochs`?)",
        ),
        // A key without a default.
        ("init=x", "unknown key `init` (did you mean `model.init`?)"),
        (
            "optimiser.lr=1",
            "unknown key `optimiser` (did you mean `optimizer`?)",
        ),
        (
            "train.epoch=3",
            "unknown key `epoch` (did you mean `epochs`?)",
        ),
        (
            "schedule.step.factor=2",
            "unknown key `factor`; allowed: every_epochs, gamma",
        ),
        (
            "optimizer=adam",
            "is a table: set one of its keys, such as optimizer.name=adam",
        ),
        ("optimizer.lr=fast", "must be a number, not \"fast\""),
        (
            "train.epochs=ten",
            "must be a whole number, 0 or more, not \"ten\"",
        ),
        ("model.channels=two", "must be a whole number, not \"two\""),
        (
            "train.precision=f16",
            "`f16` is unknown (did you mean `bf16`?)",
        ),
    ] {
        let error = Config::parse("", "", &[set.to_owned()]).expect_err(set);
        assert_eq!(error.to_string(), format!("--set {set}: {problem}"));
    }
}

#[test]
fn widths_of_layers_are_lists_of_numbers_in_their_range() {
    let sets = ["model.filters=[32, 64]".to_owned()];
    let config = Config::parse("[model]\nhidden = [16]", "c.toml", &sets).expect("valid");
    assert_eq!(config.model.filters, [32, 64]);
    assert_eq!(config.model.hidden, [16]);
    let read: Config = serde_json::from_value(serde_json::to_value(&config).expect("JSON"))
        .expect("a configuration");
    assert_eq!(read, config);

    // Empty lists are the defaults, so that earlier configurations keep their hash.
    let empty = ["model.filters=[]".to_owned(), "model.hidden=[]".to_owned()];
    let empty = Config::parse("", "", &empty).expect("valid");
    assert_eq!(empty.hash(), Config::default().hash());
    assert_ne!(config.hash(), empty.hash());
    let text = toml::to_string(&empty).expect("TOML");
    assert!(
        !text.contains("filters") && !text.contains("hidden"),
        "{text}"
    );

    let allowed = "must be a list of whole numbers from 1 to 4096, such as [32, 64]";
    for wrong in [
        "32", "abc", "32,64", "[0]", "[32, -1]", "[4097]", "[1.5]", "[[1]]", "true",
    ] {
        let set = format!("model.filters={wrong}");
        let error = Config::parse("", "", std::slice::from_ref(&set)).expect_err(wrong);
        assert_eq!(
            error.to_string(),
            format!("--set {set}: model.filters {allowed}")
        );
    }
    let error = Config::parse("[model]\nname = \"lstm\"\nhidden = \"64\"", "c.toml", &[]);
    let error = error.expect_err("text").to_string();
    assert_eq!(error, format!("c.toml, line 3: model.hidden {allowed}"));
}

#[test]
fn a_section_of_schedules_stands_alone_and_sets_change_the_defaults() {
    let schedule = |text: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::parse(text, "", &sets).map(|config| config.schedule)
    };
    let alone = schedule("[schedule.cosine]\nwarmup_steps = 5", &[]).expect("valid");
    let only_cosine = Schedule {
        step: None,
        plateau: None,
        cosine: Some(Cosine { warmup_steps: 5 }),
        warmup_steps: 0,
    };
    assert_eq!(alone, only_cosine);

    let set = schedule("", &["schedule.cosine.warmup_steps=5"]).expect("valid");
    let with_defaults = Schedule {
        cosine: Some(Cosine { warmup_steps: 5 }),
        ..Schedule::default()
    };
    assert_eq!(set, with_defaults);

    let sets = [
        "schedule.step=false",
        "schedule.plateau=false",
        "schedule.cosine=true",
        "schedule.warmup_steps=7",
    ];
    let switched = Schedule {
        step: None,
        plateau: None,
        cosine: Some(Cosine::default()),
        warmup_steps: 7,
    };
    assert_eq!(schedule("", &sets).expect("valid"), switched);
    let error = schedule("", &["schedule.step.factor=2"]).expect_err("no such key");
    assert_eq!(
        error.to_string(),
        "--set schedule.step.factor=2: unknown key `factor`; allowed: every_epochs, gamma"
    );

    let none = Config::parse("[schedule]", "", &[]).expect("valid");
    let text = toml::to_string(&none).expect("tables");
    assert_eq!(Config::parse(&text, "", &[]).expect("valid"), none);

    assert!(Config::default().schedule.step.is_some());
}

#[test]
fn groups_contain_the_variables_that_their_pattern_matches() {
    let group = |names: &str| ParameterGroup {
        names: names.to_owned(),
        lr_factor: 1.0,
        weight_decay: None,
        frozen_epochs: 0,
    };
    for (names, name, is_in) in [
        ("fc.*", "fc.weight", true),
        ("fc.*", "layer1.fc.weight", false),
        ("*.bias", "conv1.0.bias", true),
        ("*", "conv1.0.bias", true),
        ("layer*.conv1.*", "layer1.0.conv1.weight", true),
        ("layer*.conv1.*", "layer1.0.conv2.weight", false),
        ("fc.weight", "fc.weight", true),
        ("fc.weight", "fc.weight2", false),
    ] {
        assert_eq!(group(names).contains(name), is_in, "{names} {name}");
    }
}

#[test]
fn keys_that_are_not_set_do_not_change_the_hash() {
    let text = toml::to_string(&Config::default()).expect("tables");
    for key in [
        "sampler",
        "groups",
        "layer_decay",
        "pos_weight",
        "focal_gamma",
        "ema_decay",
    ] {
        assert!(!text.contains(key), "{text}");
    }
    let set = ["train.ema_decay=0.99".to_owned()];
    assert_ne!(
        Config::parse("", "", &set).expect("valid").hash(),
        Config::default().hash()
    );
}

#[test]
fn an_impossible_value_is_named_with_its_key() {
    let error = Config::parse("", "c.toml", &["data.batch_size=0".to_owned()])
        .expect_err("zero")
        .to_string();
    assert_eq!(error, "data.batch_size = 0: must be at least 1");

    let error = Config::parse("[augment]\namplitude = [1.2, 0.8]", "", &[])
        .expect_err("turned round")
        .to_string();
    assert_eq!(
        error,
        "augment.amplitude = [1.2, 0.8]: must be the lower bound, then the upper bound"
    );
}

#[test]
fn invalid_optimizer_and_schedule_values_are_rejected() {
    let refusals = [
        ("optimizer.eps=-1", "optimizer.eps = -1: must be 0 or more"),
        (
            "optimizer.eps=nan",
            "optimizer.eps = NaN: must be 0 or more",
        ),
        ("optimizer.lr=0", "optimizer.lr = 0: must be above 0"),
        (
            "optimizer.lr=inf",
            "optimizer.lr = inf: must be a finite number",
        ),
        (
            "schedule.step.gamma=-0.5",
            "schedule.step.gamma = -0.5: must be 0 or more",
        ),
        (
            "schedule.step.gamma=inf",
            "schedule.step.gamma = inf: must be a finite number",
        ),
        (
            "schedule.plateau.threshold=-1",
            "schedule.plateau.threshold = -1: must be 0 or more",
        ),
        (
            "loss.mixup=inf",
            "loss.mixup = inf: must be a finite number",
        ),
        (
            "augment.amplitude=[0, inf]",
            "augment.amplitude = inf: must be a finite number",
        ),
    ];
    for (set, refusal) in refusals {
        let error = Config::parse("", "", &[set.to_owned()]).expect_err(set);
        assert_eq!(error.to_string(), refusal);
    }

    for set in [
        "optimizer.eps=0",
        "schedule.step.gamma=1.5",
        "schedule.plateau.threshold=0",
    ] {
        assert!(Config::parse("", "", &[set.to_owned()]).is_ok(), "{set}");
    }

    // An infinite maximum is none, as in a checkpoint, which is JSON.
    let infinite = Config::parse("", "", &["optimizer.clip_norm=inf".to_owned()]);
    assert_eq!(infinite.expect("none"), Config::default());
}

#[test]
fn only_the_invalid_set_argument_is_named() {
    let sets = ["optimizer.lr=0.1", "optimizer.eps=small", "seed=1"].map(str::to_owned);
    let error = Config::parse("", "defaults", &sets)
        .expect_err("no number")
        .to_string();
    assert_eq!(
        error,
        "--set optimizer.eps=small: must be a number, not \"small\""
    );
}

#[test]
fn metrics_are_written_with_their_names() {
    for metric in Metric::ALL {
        let set = format!("train.select={}", metric.name());
        let config = Config::parse("", "", &[set]).expect("a metric");
        assert_eq!(config.train.select, metric);
    }
}
