//! Rules for configuration values that types cannot express: each with key, value and the allowed values.

use std::fmt::Display;

use wavemill_options::Faults;

use super::Config;
use crate::exit::PlainError;

/// Maximum number of masks of each kind per row: each is drawn, also if it hides nothing new.
const MASKS_MAX: u64 = 1000;

/// Reports an error for the value `found` of `key` unless the rule `holds`. Comparisons with NaN are false, so every
/// rule rejects NaN.
fn rule(faults: &mut Faults, holds: bool, key: &str, found: impl Display, allowed: &str) {
    faults.unless(holds, key, format!("{found}: must be {allowed}"));
}

impl Config {
    /// Checks all rules and reports the first one that is violated.
    pub(super) fn check(&self) -> Result<(), PlainError> {
        let mut faults = Faults::default();
        self.check_counts(&mut faults);
        self.check_ranges(&mut faults);
        self.check_optimizer(&mut faults);
        self.check_augment(&mut faults);
        self.check_finite(&mut faults);
        faults
            .into_result()
            .map_err(|fault| PlainError::usage(format!("{} = {}", fault.key, fault.problem)))
    }

    fn check_counts(&self, faults: &mut Faults) {
        // An absent section is checked with its default values, which follow all rules.
        let step = self.schedule.step.clone().unwrap_or_default();
        for (key, count) in [
            ("data.batch_size", self.data.batch_size as u64),
            ("data.shuffle_window", self.data.shuffle_window as u64),
            ("train.micro_batches", self.train.micro_batches as u64),
            ("train.epochs", self.train.epochs),
            ("schedule.step.every_epochs", step.every_epochs),
        ] {
            rule(faults, count > 0, key, count, "at least 1");
        }

        let frames = self.data.frames.map(|frames| frames as u64);
        for (key, count) in [("data.frames", frames), ("train.steps", self.train.steps)] {
            rule(faults, count != Some(0), key, 0, "at least 1, or absent");
        }
    }

    fn check_ranges(&self, faults: &mut Faults) {
        let step = self.schedule.step.clone().unwrap_or_default();
        let plateau = self.schedule.plateau.clone().unwrap_or_default();
        for (key, value) in [
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("optimizer.eps", self.optimizer.eps),
            // A gamma above 1 increases the learning rate; torch allows this too.
            ("schedule.step.gamma", step.gamma),
            ("schedule.plateau.threshold", plateau.threshold),
        ] {
            rule(faults, value >= 0.0, key, value, "0 or more");
        }

        for (key, value) in [
            ("loss.mixup", self.loss.mixup),
            ("optimizer.momentum", self.optimizer.momentum),
            ("augment.noise_std", self.augment.noise_std),
            ("loss.focal_gamma", self.loss.focal_gamma),
        ] {
            rule(faults, value >= 0.0, key, value, "0 (none) or more");
        }

        for (key, value) in [
            ("loss.label_smoothing", self.loss.label_smoothing),
            ("schedule.plateau.factor", plateau.factor),
        ] {
            let holds = (0.0..1.0).contains(&value);
            rule(faults, holds, key, value, "from 0 to below 1");
        }
    }

    fn check_optimizer(&self, faults: &mut Faults) {
        let optimizer = &self.optimizer;
        let lr = optimizer.lr;
        rule(faults, lr > 0.0, "optimizer.lr", lr, "above 0");

        let holds = optimizer.betas.iter().all(|beta| (0.0..1.0).contains(beta));
        let found = format!("{:?}", optimizer.betas);
        let allowed = "two values from 0 to below 1";
        rule(faults, holds, "optimizer.betas", found, allowed);

        // Nesterov momentum needs a momentum above 0, as in torch's SGD.
        let holds = !optimizer.nesterov || optimizer.momentum > 0.0;
        let allowed = "false if momentum is 0";
        rule(faults, holds, "optimizer.nesterov", true, allowed);

        let decay = optimizer.layer_decay.unwrap_or(1.0);
        let holds = decay > 0.0 && decay <= 1.0;
        let allowed = "above 0, at most 1, or absent";
        rule(faults, holds, "optimizer.layer_decay", decay, allowed);

        for group in &optimizer.groups {
            let (factor, decay) = (group.lr_factor, group.weight_decay.unwrap_or(0.0));
            let key = format!("optimizer.groups, {}: lr_factor", group.names);
            let holds = factor >= 0.0 && factor.is_finite();
            rule(faults, holds, &key, factor, "0 or more");
            let key = format!("optimizer.groups, {}: weight_decay", group.names);
            let holds = decay >= 0.0 && decay.is_finite();
            rule(faults, holds, &key, decay, "0 or more, or absent");
        }

        let decay = self.train.ema_decay.unwrap_or(0.0);
        let holds = (0.0..1.0).contains(&decay);
        let allowed = "from 0 to below 1, or absent";
        rule(faults, holds, "train.ema_decay", decay, allowed);

        let holds = optimizer.clip_norm.is_none_or(|max| max > 0.0);
        let found = format!("{:?}", optimizer.clip_norm);
        let allowed = "above 0, or absent";
        rule(faults, holds, "optimizer.clip_norm", found, allowed);
    }

    fn check_augment(&self, faults: &mut Faults) {
        let [low, high] = self.augment.amplitude;
        let found = format!("{:?}", self.augment.amplitude);
        let allowed = "the lower bound, then the upper bound";
        rule(faults, low <= high, "augment.amplitude", found, allowed);

        let shift = self.augment.time_shift;
        let holds = (0.0..=1.0).contains(&shift);
        rule(faults, holds, "augment.time_shift", shift, "from 0 to 1");

        for (key, masks) in [
            ("augment.frequency_masks", self.augment.frequency_masks),
            ("augment.time_masks", self.augment.time_masks),
        ] {
            let allowed = format!("at most {MASKS_MAX}");
            rule(faults, masks <= MASKS_MAX, key, masks, &allowed);
        }
    }

    /// Rejects infinity for values without an upper bound above. `clip_norm` is excluded: as in torch, an infinite
    /// value disables clipping.
    fn check_finite(&self, faults: &mut Faults) {
        let step = self.schedule.step.clone().unwrap_or_default();
        let plateau = self.schedule.plateau.clone().unwrap_or_default();
        let [low, high] = self.augment.amplitude;
        for (key, value) in [
            ("optimizer.lr", self.optimizer.lr),
            ("optimizer.weight_decay", self.optimizer.weight_decay),
            ("optimizer.eps", self.optimizer.eps),
            ("optimizer.momentum", self.optimizer.momentum),
            ("loss.focal_gamma", self.loss.focal_gamma),
            ("schedule.step.gamma", step.gamma),
            ("schedule.plateau.threshold", plateau.threshold),
            ("loss.mixup", self.loss.mixup),
            ("augment.amplitude", low),
            ("augment.amplitude", high),
            ("augment.noise_std", self.augment.noise_std),
        ] {
            rule(faults, value.is_finite(), key, value, "a finite number");
        }
    }
}
