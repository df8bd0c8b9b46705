//! The README of a dataset: a YAML header for `datasets`, and a description for users.

use super::super::Job;
use super::super::content::{Content, ExportedSplit};
use super::columns::{Column, quoted};

/// The data from which the README is written.
pub(super) struct Readme<'a> {
    /// The export job that the README describes.
    pub job: &'a Job<'a>,
    /// The contents of the export.
    pub content: &'a Content<'a>,
    /// Columns of the dataset, in the order of the files.
    pub columns: &'a [Column<'a>],
    /// Total size of the files of each exported split, in bytes.
    pub bytes: &'a [u64],
}

impl Readme<'_> {
    /// Returns the complete text of the README.
    pub(super) fn text(&self) -> String {
        format!("---\n{}---\n\n{}", self.header(), self.body())
    }

    fn header(&self) -> String {
        let mut text = String::from("configs:\n- config_name: default\n  data_files:\n");
        let splits = &self.content.splits;
        for split in splits {
            // Split names are quoted, because YAML would not read a name such as `null` or `1` as a string.
            text += &format!("  - split: {}\n", quoted(&split.name));
            let files = format!("data/{}-*", split.name);
            text += &format!("    path: {}\n", quoted(&files));
        }

        text += "dataset_info:\n  features:\n";
        for column in self.columns {
            text += &column.yaml();
        }
        text += "  splits:\n";
        for (split, bytes) in splits.iter().zip(self.bytes) {
            text += &format!("  - name: {}\n", quoted(&split.name));
            text += &format!("    num_bytes: {bytes}\n");
            text += &format!("    num_examples: {}\n", split.rows);
        }
        let bytes: u64 = self.bytes.iter().sum();
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

        text += "| split | split in the store | rows |\n|---|---|---|\n";
        for ExportedSplit { stored, name, rows } in &self.content.splits {
            text += &format!("| `{name}` | `{stored}` | {rows} |\n");
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
