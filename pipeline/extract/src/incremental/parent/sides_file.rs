//! Reads the splits of another store from a file (`--sides`): that store's table `sides` in Parquet, or the same table
//! as CSV, as `wavemill sql` writes it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use arrow::array::StringViewArray;
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_catalog::Recordings;
use wavemill_catalog::split::{
    GROUP_KINDS, GroupSplits, KeptRule, KeptSplits, artist_group, recording_group, track_group,
};
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::split::Split;

use super::table::{guarded, text, text_at};
use crate::error::ExtractError;

/// The first bytes of every Parquet file.
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

/// Position of a row in a file of splits: "line" of a CSV file or "row" of a Parquet file, and its number from 1.
type Place = (&'static str, u64);

/// Splits (such as training) of groups, read from a file.
#[derive(Clone, Debug)]
pub(crate) struct GivenSplits {
    /// The splits of groups, which are kept like those of an earlier version.
    pub splits: KeptSplits,
    /// Hash of the file's content. Does not depend on the format of the file or the order of its rows.
    pub id: String,
}

impl GivenSplits {
    /// Reports whether the file assigns any track, artist or recording of `clips` to a split.
    pub(crate) fn name_any_of(&self, clips: &[ClipRow], recordings: &Recordings) -> bool {
        let is_given = |group: &str| {
            let mut by_rule = self.splits.0.iter();
            by_rule.any(|splits| splits.split(group).is_some())
        };
        clips.iter().any(|clip| {
            let artist = clip.artist_id.map(artist_group);
            let hash = recordings.hashes.get(&clip.clip_key);
            let recording = hash.map(|hash| recording_group(&hash.to_hex()));
            let groups = [Some(track_group(&clip.clip_key)), artist, recording];
            groups.iter().flatten().any(|group| is_given(group))
        })
    }
}

/// Reads a file of splits. Without a column `rule`, each row applies to both rules, `artist` and `stratified`.
///
/// # Errors
/// An error that names the path, if the file or one of its rows cannot be used.
pub(crate) fn read_sides(path: &Path) -> Result<GivenSplits, ExtractError> {
    let mut rows = Rows {
        path,
        splits: [Vec::new(), Vec::new()],
        places: HashMap::new(),
    };
    let (file, is_parquet) = rows.open()?;
    if is_parquet {
        rows.read_parquet(file)?;
    } else {
        rows.read_csv(file)?;
    }
    if rows.places.is_empty() {
        return Err(wrong_file(path, "no rows in it: give the table `sides` of a store").into());
    }

    let by_rule = rows.splits.map(GroupSplits::new);
    // The plan ids of existing stores contain the hash of the splits' numbers.
    let numbered = by_rule.each_ref().map(|splits| {
        let groups = splits.iter();
        let groups = groups.map(|(group, split)| (group, split as usize));
        groups.collect::<Vec<_>>()
    });
    Ok(GivenSplits {
        id: canonical::id(&numbered)?,
        splits: KeptSplits(by_rule),
    })
}

/// Rows of a file of splits that were read so far.
struct Rows<'p> {
    path: &'p Path,
    /// Splits of groups under each rule, in the order of [`KeptRule::ALL`].
    splits: [Vec<(Box<str>, Split)>; 2],
    /// Position of each group in the file, by rule.
    places: HashMap<(usize, Box<str>), Place>,
}

impl Rows<'_> {
    /// Opens the file, and reports whether it is a Parquet file.
    fn open(&self) -> Result<(File, bool), ExtractError> {
        let open = || {
            let mut file = File::open(self.path)?;
            let mut magic = Vec::new();
            Read::by_ref(&mut file).take(4).read_to_end(&mut magic)?;
            file.rewind()?;
            Ok((file, magic == PARQUET_MAGIC))
        };
        open().map_err(|source: io::Error| {
            let error = wrong_file(self.path, "cannot read it");
            error.caused_by(source).into()
        })
    }

    fn read_csv(&mut self, file: File) -> Result<(), ExtractError> {
        let path = self.path;
        let failed = |source| wrong_file(path, "not a CSV file").caused_by(source);
        let mut reader = csv::Reader::from_reader(file);
        let header = reader.headers().map_err(failed)?;
        let column = |name: &'static str| {
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, column)| *column == name);
            match (found.next(), found.next()) {
                (Some(_), Some(_)) => {
                    let problem = format!("several columns `{name}`: keep only one of them");
                    Err(wrong_file(path, &problem))
                }
                (first, _) => Ok(first.map(|(place, _)| place)),
            }
        };
        let rule = column("rule")?;
        let group = column("group")?.ok_or_else(|| self.no_column("group"))?;
        let split = column("side")?.ok_or_else(|| self.no_column("side"))?;

        for record in reader.into_records() {
            let record = record.map_err(failed)?;
            let place = ("line", record.position().map_or(0, csv::Position::line));
            // The CSV reader refuses records whose number of fields differs from the header's.
            let cell = |column: usize| record.get(column).unwrap_or_default();
            self.add(place, rule.map(cell), cell(group), cell(split))?;
        }
        Ok(())
    }

    fn read_parquet(&mut self, file: File) -> Result<(), ExtractError> {
        let path = self.path;
        let batches = guarded(|| {
            let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
            Ok(reader.collect::<Result<Vec<RecordBatch>, _>>()?)
        });

        let mut n_rows = 0;
        for batch in batches.map_err(|source| not_parquet(path, source))? {
            let group = self.column(&batch, "group")?;
            let split = self.column(&batch, "side")?;
            let rule = match batch.column_by_name("rule") {
                Some(_) => Some(self.column(&batch, "rule")?),
                None => None,
            };

            for row in 0..batch.num_rows() {
                n_rows += 1;
                let rule = rule.as_ref().map(|rule| text_at(rule, row));
                let (group, split) = (text_at(&group, row), text_at(&split, row));
                self.add(("row", n_rows), rule, group, split)?;
            }
        }
        Ok(())
    }

    fn column(
        &self,
        batch: &RecordBatch,
        name: &'static str,
    ) -> Result<StringViewArray, ExtractError> {
        if batch.column_by_name(name).is_none() {
            return Err(self.no_column(name));
        }
        text(batch, name).map_err(|source| not_parquet(self.path, source))
    }

    fn no_column(&self, column: &str) -> ExtractError {
        let problem = format!(
            "no column `{column}`: give the columns group and side, and rule if there are splits of both rules, as in \
             `wavemill sql 'SELECT * FROM sides'`"
        );
        wrong_file(self.path, &problem).into()
    }

    /// Checks and adds a row of the file. `rule` is `None` if the file has no column `rule`.
    fn add(
        &mut self,
        place: Place,
        rule: Option<&str>,
        group: &str,
        name: &str,
    ) -> Result<(), ExtractError> {
        let Some(split) = Split::named(name) else {
            let message = format!(
                "`{name}` is not a split: change it to {}, or remove the row",
                Split::ALL.map(Split::name).join(", ")
            );
            return Err(self.wrong(place, message));
        };
        if !GROUP_KINDS.iter().any(|kind| group.starts_with(kind)) {
            let message = format!(
                "`{group}` is not a group: groups begin with {}, as in the table `sides` of a store",
                GROUP_KINDS.join(", ")
            );
            return Err(self.wrong(place, message));
        }

        let rules = KeptRule::ALL.map(KeptRule::name);
        let named = rules.iter().position(|known| Some(*known) == rule);
        let numbers = match (rule, named) {
            (None, _) => 0..rules.len(),
            (Some(_), Some(named)) => named..named + 1,
            (Some(rule), None) => {
                let message = format!(
                    "`{rule}` is not a rule that keeps splits: change it to {}, or remove the row",
                    rules.join(" or ")
                );
                return Err(self.wrong(place, message));
            }
        };
        for rule in numbers {
            if let Some((unit, first)) = self.places.insert((rule, group.into()), place) {
                let message = format!(
                    "group `{group}` of the rule `{}` already occurs in {unit} {first}: remove one of the two",
                    rules[rule]
                );
                return Err(self.wrong(place, message));
            }
            self.splits[rule].push((group.into(), split));
        }
        Ok(())
    }

    fn wrong(&self, (unit, number): Place, problem: String) -> ExtractError {
        let path = self.path.display();
        ExtractError::usage(format!("--sides {path}, {unit} {number}: {problem}"))
    }
}

/// Creates the error for a file of splits that cannot be used.
pub(crate) fn wrong_file(path: &Path, problem: &str) -> PlainError {
    PlainError::usage(format!("--sides {}: {problem}", path.display()))
}

/// Creates the error for a file that is damaged, or of which a column contains no text.
fn not_parquet(path: &Path, source: ParquetError) -> ExtractError {
    let error = wrong_file(path, "not a Parquet file of splits");
    error.caused_by(source).into()
}
