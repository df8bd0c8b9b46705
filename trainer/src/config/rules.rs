//! Values that no type rules out and that cannot be: a table of key, value and what is allowed.

use super::{Config, ConfigError};

impl Config {
    /// What no type says.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let rules: [(bool, &'static str, String, &'static str); 10] = [
            (self.data.batch_size > 0, "data.batch_size", self.data.batch_size.to_string(), "at least 1"),
            (self.data.shuffle_window > 0, "data.shuffle_window", self.data.shuffle_window.to_string(), "at least 1"),
            (self.data.frames != Some(0), "data.frames", "0".to_owned(), "at least 1, or absent"),
            (self.train.micro_batches > 0, "train.micro_batches", self.train.micro_batches.to_string(), "at least 1"),
            (self.train.epochs > 0, "train.epochs", self.train.epochs.to_string(), "at least 1"),
            (self.train.steps != Some(0), "train.steps", "0".to_owned(), "at least 1, or absent"),
            (self.optimizer.lr > 0.0, "optimizer.lr", self.optimizer.lr.to_string(), "above 0"),
            (
                self.optimizer.weight_decay >= 0.0,
                "optimizer.weight_decay",
                self.optimizer.weight_decay.to_string(),
                "0 or more",
            ),
            (
                (0.0..1.0).contains(&self.loss.label_smoothing),
                "loss.label_smoothing",
                self.loss.label_smoothing.to_string(),
                "from 0 to below 1",
            ),
            (self.loss.mixup >= 0.0, "loss.mixup", self.loss.mixup.to_string(), "0 (none) or more"),
        ];
        match rules.into_iter().chain(self.training_rules()).find(|(holds, ..)| !holds) {
            Some((_, key, found, allowed)) => Err(ConfigError::Value { key, found, allowed }),
            None => Ok(()),
        }
    }

    /// Optimiser, schedule and augmentation: whether a rule holds, then key, value and what is allowed.
    fn training_rules(&self) -> [(bool, &'static str, String, &'static str); 9] {
        let (o, a) = (&self.optimizer, &self.augment);
        let step = self.schedule.step.clone().unwrap_or_default();
        let factor = self.schedule.plateau.clone().unwrap_or_default().factor;
        let [low, high] = a.amplitude;
        let (betas, amplitude) = (format!("{:?}", o.betas), format!("{:?}", a.amplitude));
        let decays = o.betas.iter().all(|b| (0.0..1.0).contains(b));
        let clip = o.clip_norm.is_none_or(|max| max > 0.0);
        [
            (decays, "optimizer.betas", betas, "two values from 0 to below 1"),
            (o.momentum >= 0.0, "optimizer.momentum", o.momentum.to_string(), "0 (none) or more"),
            (!o.nesterov || o.momentum > 0.0, "optimizer.nesterov", "true".to_owned(), "false where momentum is 0"),
            (clip, "optimizer.clip_norm", format!("{:?}", o.clip_norm), "above 0, or absent"),
            (step.every_epochs > 0, "schedule.step.every_epochs", step.every_epochs.to_string(), "at least 1"),
            ((0.0..1.0).contains(&factor), "schedule.plateau.factor", factor.to_string(), "from 0 to below 1"),
            (low <= high, "augment.amplitude", amplitude, "the lower bound, then the upper"),
            ((0.0..=1.0).contains(&a.time_shift), "augment.time_shift", a.time_shift.to_string(), "from 0 to 1"),
            (a.noise_std >= 0.0, "augment.noise_std", a.noise_std.to_string(), "0 (none) or more"),
        ]
    }
}
