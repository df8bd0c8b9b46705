//! The README of a dataset: a YAML header for `datasets`, and a description for users.

use super::super::Job;
use super::super::content::{Content, ExportedSplit};
use super::columns::{Column, quoted};

/// Returns the complete text of the README. `bytes` has the total size of the files of each exported split.
pub(super) fn text(
    job: &Job<'_>,
    content: &Content<'_>,
    columns: &[Column<'_>],
    bytes: &[u64],
) -> String {
    let header = header(content, columns, bytes);
    format!("---\n{header}---\n\n{}", body(job, content))
}

fn header(content: &Content<'_>, columns: &[Column<'_>], bytes: &[u64]) -> String {
    let mut text = String::from("configs:\n- config_name: default\n  data_files:\n");
    let splits = &content.splits;
    for split in splits {
        // Split names are quoted, because YAML would not read a name such as `null` or `1` as a string.
        text += &format!("  - split: {}\n", quoted(&split.name));
        let files = format!("data/{}-*", split.name);
        text += &format!("    path: {}\n", quoted(&files));
    }

    text += "dataset_info:\n  features:\n";
    for column in columns {
        text += &column.yaml();
    }
    text += "  splits:\n";
    for (split, bytes) in splits.iter().zip(bytes) {
        text += &format!("  - name: {}\n", quoted(&split.name));
        text += &format!("    num_bytes: {bytes}\n");
        text += &format!("    num_examples: {}\n", split.rows);
    }
    let bytes: u64 = bytes.iter().sum();
    text += &format!("  download_size: {bytes}\n  dataset_size: {bytes}\n");
    text
}

fn body(job: &Job<'_>, content: &Content<'_>) -> String {
    let feature = content.feature;
    let mut text = format!("# {}\n\n", feature.name);
    text += &format!(
        "Exported by wavemill from version {} (plan {}), recipe {}. `feature_id` {}.\n\n",
        job.version, job.manifest.plan_id, job.manifest.recipe.name, feature.feature_id
    );
    text += "    from datasets import load_dataset\n";
    text += "    dataset = load_dataset(\"this folder\").with_format(\"numpy\")\n\n";

    text += "| split | split in the store | rows |\n|---|---|---|\n";
    for ExportedSplit { stored, name, rows } in &content.splits {
        text += &format!("| `{name}` | `{stored}` | {rows} |\n");
    }
    for (split, rows) in &content.left_out {
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
    for note in content.notes() {
        text += &format!("\n{note}\n");
    }
    text += "\nRows without a class have no value (`None`) in the column of that target. `clip_key`, `segment` and\n";
    text += "`variant` name a row.\n";
    text
}
