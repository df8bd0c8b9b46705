//! Rules for values that the types cannot express: each with key, value and a description of the allowed values.

use super::{Config, ConfigError};

/// A condition on a value.
struct Rule {
    holds: bool,
    key: &'static str,
    found: String,
    allowed: &'static str,
}

impl Rule {
    fn new(holds: bool, key: &'static str, found: impl ToString, allowed: &'static str) -> Self {
        Self {
            holds,
            key,
            found: found.to_string(),
            allowed,
        }
    }
}

impl Config {
    /// Checks all rules and reports the first one that is violated.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        // Each rule states a condition that must be true. Comparisons with NaN are false, so every rule rejects NaN.
        let mut rules = self.run_rules();
        rules.extend(self.optimizer_rules());
        rules.extend(self.schedule_rules());
        rules.extend(self.augment_rules());
        rules.extend(self.finite_rules());

        match rules.into_iter().find(|rule| !rule.holds) {
            Some(broken) => Err(ConfigError::Value {
                key: broken.key,
                found: broken.found,
                allowed: broken.allowed,
            }),
            None => Ok(()),
        }
    }

    fn run_rules(&self) -> Vec<Rule> {
        let Self {
            data,
            train,
            optimizer,
            loss,
            ..
        } = self;

        vec![
            Rule::new(
                data.batch_size > 0,
                "data.batch_size",
                data.batch_size,
                "at least 1",
            ),
            Rule::new(
                data.shuffle_window > 0,
                "data.shuffle_window",
                data.shuffle_window,
                "at least 1",
            ),
            Rule::new(
                data.frames != Some(0),
                "data.frames",
                0,
                "at least 1, or absent",
            ),
            Rule::new(
                train.micro_batches > 0,
                "train.micro_batches",
                train.micro_batches,
                "at least 1",
            ),
            Rule::new(train.epochs > 0, "train.epochs", train.epochs, "at least 1"),
            Rule::new(
                train.steps != Some(0),
                "train.steps",
                0,
                "at least 1, or absent",
            ),
            Rule::new(optimizer.lr > 0.0, "optimizer.lr", optimizer.lr, "above 0"),
            Rule::new(
                optimizer.weight_decay >= 0.0,
                "optimizer.weight_decay",
                optimizer.weight_decay,
                "0 or more",
            ),
            Rule::new(
                (0.0..1.0).contains(&loss.label_smoothing),
                "loss.label_smoothing",
                loss.label_smoothing,
                "from 0 to below 1",
            ),
            Rule::new(
                loss.mixup >= 0.0,
                "loss.mixup",
                loss.mixup,
                "0 (none) or more",
            ),
        ]
    }

    fn optimizer_rules(&self) -> Vec<Rule> {
        let optimizer = &self.optimizer;

        vec![
            Rule::new(
                optimizer.betas.iter().all(|beta| (0.0..1.0).contains(beta)),
                "optimizer.betas",
                format!("{:?}", optimizer.betas),
                "two values from 0 to below 1",
            ),
            Rule::new(
                optimizer.eps >= 0.0,
                "optimizer.eps",
                optimizer.eps,
                "0 or more",
            ),
            Rule::new(
                optimizer.momentum >= 0.0,
                "optimizer.momentum",
                optimizer.momentum,
                "0 (none) or more",
            ),
            Rule::new(
                // Same rule as in torch's SGD.
                !optimizer.nesterov || optimizer.momentum > 0.0,
                "optimizer.nesterov",
                true,
                "false if momentum is 0",
            ),
            Rule::new(
                optimizer.clip_norm.is_none_or(|max| max > 0.0),
                "optimizer.clip_norm",
                format!("{:?}", optimizer.clip_norm),
                "above 0, or absent",
            ),
        ]
    }

    fn schedule_rules(&self) -> Vec<Rule> {
        // An absent section is checked with its default values, which are valid.
        let step = self.schedule.step.clone().unwrap_or_default();
        let plateau = self.schedule.plateau.clone().unwrap_or_default();

        vec![
            Rule::new(
                step.every_epochs > 0,
                "schedule.step.every_epochs",
                step.every_epochs,
                "at least 1",
            ),
            Rule::new(
                // A gamma above 1 increases the rate; torch allows this too.
                step.gamma >= 0.0,
                "schedule.step.gamma",
                step.gamma,
                "0 or more",
            ),
            Rule::new(
                (0.0..1.0).contains(&plateau.factor),
                "schedule.plateau.factor",
                plateau.factor,
                "from 0 to below 1",
            ),
            Rule::new(
                plateau.threshold >= 0.0,
                "schedule.plateau.threshold",
                plateau.threshold,
                "0 or more",
            ),
        ]
    }

    fn augment_rules(&self) -> Vec<Rule> {
        let augment = &self.augment;
        let [low, high] = augment.amplitude;

        vec![
            Rule::new(
                low <= high,
                "augment.amplitude",
                format!("{:?}", augment.amplitude),
                "the lower bound, then the upper bound",
            ),
            Rule::new(
                (0.0..=1.0).contains(&augment.time_shift),
                "augment.time_shift",
                augment.time_shift,
                "from 0 to 1",
            ),
            Rule::new(
                augment.noise_std >= 0.0,
                "augment.noise_std",
                augment.noise_std,
                "0 (none) or more",
            ),
        ]
    }

    /// Rejects infinity for values without an upper bound above. `clip_norm` is excluded: as in torch, an infinite
    /// value disables clipping.
    fn finite_rules(&self) -> Vec<Rule> {
        let step = self.schedule.step.clone().unwrap_or_default();
        let plateau = self.schedule.plateau.clone().unwrap_or_default();
        let [low, high] = self.augment.amplitude;

        let values = [
            ("optimizer.lr", self.optimizer.lr),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("optimizer.eps", self.optimizer.eps),
            ("optimizer.momentum", self.optimizer.momentum),
            ("schedule.step.gamma", step.gamma),
            ("schedule.plateau.threshold", plateau.threshold),
            ("loss.mixup", self.loss.mixup),
            ("augment.amplitude", low),
            ("augment.amplitude", high),
            ("augment.noise_std", self.augment.noise_std),
        ];
        values
            .into_iter()
            .map(|(key, value)| Rule::new(value.is_finite(), key, value, "a finite number"))
            .collect()
    }
}
