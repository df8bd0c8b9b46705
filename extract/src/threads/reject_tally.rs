//! Counts rejected clips and ends a run with too many rejects.

use std::collections::BTreeSet;

use wavemill_schemas::manifest::Receipt;
use wavemill_schemas::reject::Reject;

use super::ExtractError;

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
        if self.rejects.len() as f64 <= fraction * planned as f64 {
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
