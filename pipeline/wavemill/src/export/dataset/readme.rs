//! The README of a dataset: a YAML header for `datasets`, and a description for users.

use super::super::Job;
use super::super::content::Content;
use super::columns::{Column, quoted};

/// A split of the dataset.
#[derive(Debug)]
pub(super) struct SplitLine {
    /// Name of the side in the store.
    pub split: String,
    /// Name of the split in the dataset.
    pub name: String,
    /// Number of rows in the split.
    pub rows: u64,
    /// Total size of the split's files in bytes.
    pub bytes: u64,
}

/// The data from which the README is written.
pub(super) struct Readme<'a> {
    /// The export job that the README describes.
    pub job: &'a Job<'a>,
    /// The contents of the export.
    pub content: &'a Content<'a>,
    /// Columns of the dataset, in the order of the files.
    pub columns: &'a [Column<'a>],
    /// Splits of the dataset, in the order of the store's sides.
    pub splits: &'a [SplitLine],
}

impl Readme<'_> {
    /// Returns the complete text of the README.
    pub(super) fn text(&self) -> String {
        format!("---\n{}---\n\n{}", self.header(), self.body())
    }

    fn header(&self) -> String {
        let mut text = String::from("configs:\n- config_name: default\n  data_files:\n");
        for line in self.splits {
            // Split names are quoted, because YAML would not read a name such as `null` or `1` as a string.
            text += &format!("  - split: {}\n", quoted(&line.name));
            text += &format!("    path: {}\n", quoted(&format!("data/{}-*", line.name)));
        }

        text += "dataset_info:\n  features:\n";
        for column in self.columns {
            text += &column.yaml();
        }
        text += "  splits:\n";
        for line in self.splits {
            text += &format!("  - name: {}\n", quoted(&line.name));
            text += &format!("    num_bytes: {}\n", line.bytes);
            text += &format!("    num_examples: {}\n", line.rows);
        }
        let bytes: u64 = self.splits.iter().map(|line| line.bytes).sum();
        text += &format!("  download_size: {bytes}\n  dataset_size: {bytes}\n");
        text
    }

    fn body(&self) -> String {
        let feature = self.content.feature;
        let mut text = format!("# {}\n\n", feature.name);
        text += &format!(
            "Exported by wavemill from version {} (plan {}), recipe {}. `feature_id` {}.\n\n",
            self.job.version,
            self.job.manifest.plan_id,
            self.job.manifest.recipe.name,
            feature.feature_id
        );
        text += "    from datasets import load_dataset\n";
        text += "    dataset = load_dataset(\"this folder\").with_format(\"numpy\")\n\n";

        text += "| split | side in the store | rows |\n|---|---|---|\n";
        for line in self.splits {
            text += &format!("| `{}` | `{}` | {} |\n", line.name, line.split, line.rows);
        }
        for (split, rows) in &self.content.left_out {
            text += &format!("| left out | `{split}` | {rows} |\n");
        }

        text += &format!(
            "\n`{}` is {} ({})",
            feature.name,
            feature.tensor_type(),
            feature.dim_names.join(", ")
        );
        // Picture files have no sample rate, and samples no hop.
        if let Some(rate) = feature.sample_rate_hz {
            text += &format!(", {rate} Hz");
        }
        if let Some(hop) = feature.hop_length {
            text += &format!(", hop {hop}, preset {}", feature.preset);
        }
        text += ".\n";
        for note in self.content.notes() {
            text += &format!("\n{note}\n");
        }
        text += "\nRows without a class have no value (`None`) in the column of that target. `clip_key`, `segment` and\n";
        text += "`variant` name a row.\n";
        text
    }
}
