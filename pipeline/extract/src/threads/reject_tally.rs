//! Counts rejected clips and ends a run with too many rejects.

use std::collections::BTreeSet;

use wavemill_schemas::manifest::Receipt;
use wavemill_schemas::reject::Reject;

use crate::error::ExtractError;

/// Clips rejected so far, including clips rejected in earlier runs of the plan. Each clip is counted once.
#[derive(Debug, Default)]
pub(crate) struct RejectTally {
    clip_keys: BTreeSet<String>,
    rejects: Vec<Reject>,
}

impl RejectTally {
    /// Creates a tally of the rejects of finished shards.
    pub(crate) fn from_receipts<'a>(receipts: impl IntoIterator<Item = &'a Receipt>) -> Self {
        let mut tally = Self::default();
        for receipt in receipts {
            for reject in &receipt.rejects {
                tally.insert(reject);
            }
        }
        tally
    }

    // Under the rule `segment` a clip is a member of several shards, and each of them rejects the clip.
    fn insert(&mut self, reject: &Reject) {
        let clip_key = reject.clip_key.clone().unwrap_or_default();
        if self.clip_keys.insert(clip_key) {
            self.rejects.push(reject.clone());
        }
    }

    /// Adds the reject of one of the `planned` clips, of which at most `fraction` may be rejected.
    ///
    /// # Errors
    /// [`ExtractError::TooManyRejects`] as soon as there are too many rejects for a commit.
    pub(crate) fn add(
        &mut self,
        reject: &Reject,
        planned: u64,
        fraction: f64,
    ) -> Result<(), ExtractError> {
        self.insert(reject);
        // Not `fraction * planned`, which is less than 29 for 0.29 of 100. A quotient is the number that was written.
        if self.rejects.len() as f64 / planned as f64 <= fraction {
            return Ok(());
        }

        Err(ExtractError::TooManyRejects {
            planned,
            fraction,
            rejects: std::mem::take(&mut self.rejects),
            list: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::reject::{Reason, Stage};

    use super::*;

    #[test]
    fn a_fraction_allows_as_many_rejects_as_it_says() {
        for (allowed, planned, fraction) in [(29, 100, 0.29), (58, 100, 0.58), (0, 3, 0.3)] {
            let mut tally = RejectTally::default();
            let mut add = |number: u64| {
                let mut reject = Reject::new(Stage::Read, Reason::Empty, "no bytes");
                reject.clip_key = Some(number.to_string());
                tally.add(&reject, planned, fraction)
            };
            for number in 0..allowed {
                assert!(add(number).is_ok(), "{number} of {planned}");
            }
            assert!(add(allowed).is_err(), "{allowed} of {planned}");
        }
    }
}
