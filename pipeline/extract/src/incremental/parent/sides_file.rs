//! Reads the splits of another store from a file (`--sides`): that store's table `sides` in Parquet, or the same table
//! as CSV, as `wavemill sql` writes it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;

use arrow::array::{Array, StringViewArray};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use wavemill_catalog::Recordings;
use wavemill_catalog::split::{
    GROUP_KINDS, GroupSides, KeptRule, KeptSides, artist_group, recording_group, track_group,
};
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::exit::PlainError;
use wavemill_schemas::sides::SIDES;

use super::table::{guarded, text};
use crate::error::ExtractError;

/// The first bytes of every Parquet file.
const PARQUET_MAGIC: &[u8; 4] = b"PAR1";

const RULES: [KeptRule; 2] = [KeptRule::Artist, KeptRule::Stratified];

/// Position of a row in a file of sides.
#[derive(Clone, Copy)]
enum Place {
    /// A line of a CSV file, from 1.
    Line(u64),
    /// A row of a Parquet file, from 1.
    Row(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line(line) => write!(f, "line {line}"),
            Self::Row(row) => write!(f, "row {row}"),
        }
    }
}

/// Sides of the split (such as training) of groups, read from a file.
#[derive(Clone, Debug)]
pub(crate) struct GivenSides {
    /// The sides of groups, which are kept like those of an earlier version.
    pub sides: KeptSides,
    /// Hash of the file's content. Does not depend on the format of the file or the order of its rows.
    pub id: String,
}

impl GivenSides {
    /// Reports whether the file assigns any track, artist or recording of `clips` to a side of the split.
    pub(crate) fn name_any_of(&self, clips: &[ClipRow], recordings: &Recordings) -> bool {
        let is_given = |group: &str| {
            let mut rules = RULES.iter();
            rules.any(|rule| self.sides.by(*rule).side(group).is_some())
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

/// Reads a file of sides. Without a column `rule`, each row applies to both rules, `artist` and `stratified`.
///
/// # Errors
/// An error that names the path, if the file or one of its rows cannot be used.
pub(crate) fn read_sides(path: &Path) -> Result<GivenSides, ExtractError> {
    let mut rows = Rows {
        path,
        sides: [Vec::new(), Vec::new()],
        places: HashMap::new(),
    };
    let file = rows.open()?;
    match file {
        OpenFile::Parquet(file) => rows.read_parquet(file)?,
        OpenFile::Csv(file) => rows.read_csv(file)?,
    }
    if rows.places.is_empty() {
        return Err(wrong_file(path, "no rows in it: give the table `sides` of a store").into());
    }

    let [artist, stratified] = rows.sides.map(GroupSides::new);
    let all: [Vec<_>; 2] = [artist.iter().collect(), stratified.iter().collect()];
    Ok(GivenSides {
        id: canonical::id(&all)?,
        sides: KeptSides { artist, stratified },
    })
}

enum OpenFile {
    Parquet(File),
    Csv(File),
}

/// Rows of a file of sides that were read so far.
struct Rows<'p> {
    path: &'p Path,
    /// Sides of groups under each rule, in the order of [`RULES`].
    sides: [Vec<(Box<str>, usize)>; 2],
    /// Position of each group in the file, by rule.
    places: HashMap<(usize, Box<str>), Place>,
}

impl Rows<'_> {
    fn open(&self) -> Result<OpenFile, ExtractError> {
        let open = || {
            let mut file = File::open(self.path)?;
            let mut magic = Vec::new();
            Read::by_ref(&mut file).take(4).read_to_end(&mut magic)?;
            file.rewind()?;
            Ok(if magic == PARQUET_MAGIC {
                OpenFile::Parquet(file)
            } else {
                OpenFile::Csv(file)
            })
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
        let side = column("side")?.ok_or_else(|| self.no_column("side"))?;

        for record in reader.into_records() {
            let record = record.map_err(failed)?;
            let place = Place::Line(record.position().map_or(0, csv::Position::line));
            // The CSV reader refuses records whose number of fields differs from the header's.
            let cell = |column: usize| record.get(column).unwrap_or_default();
            self.add(place, rule.map(cell), cell(group), cell(side))?;
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
            let side = self.column(&batch, "side")?;
            let rule = match batch.column_by_name("rule") {
                Some(_) => Some(self.column(&batch, "rule")?),
                None => None,
            };

            for row in 0..batch.num_rows() {
                n_rows += 1;
                let rule = rule.as_ref().map(|rule| value(rule, row));
                let (group, side) = (value(&group, row), value(&side, row));
                self.add(Place::Row(n_rows), rule, group, side)?;
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
            "no column `{column}`: give the columns group and side, and rule if there are sides of both rules, as in \
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
        side: &str,
    ) -> Result<(), ExtractError> {
        let Some(side_number) = SIDES.iter().position(|known| *known == side) else {
            let message = format!(
                "`{side}` is not a side: change it to {}, or remove the row",
                SIDES.join(", ")
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

        let named = RULES.iter().position(|known| Some(known.name()) == rule);
        let rules = match (rule, named) {
            (None, _) => 0..RULES.len(),
            (Some(_), Some(named)) => named..named + 1,
            (Some(rule), None) => {
                let message = format!(
                    "`{rule}` is not a rule that keeps sides: change it to {}, or remove the row",
                    RULES.map(KeptRule::name).join(" or ")
                );
                return Err(self.wrong(place, message));
            }
        };
        for rule in rules {
            if let Some(first) = self.places.insert((rule, group.into()), place) {
                let message = format!(
                    "group `{group}` of the rule `{}` already occurs in {first}: remove one of the two",
                    RULES[rule].name()
                );
                return Err(self.wrong(place, message));
            }
            self.sides[rule].push((group.into(), side_number));
        }
        Ok(())
    }

    fn wrong(&self, place: Place, problem: String) -> ExtractError {
        let path = self.path.display();
        ExtractError::usage(format!("--sides {path}, {place}: {problem}"))
    }
}

/// Creates the error for a file of sides that cannot be used.
pub(crate) fn wrong_file(path: &Path, problem: &str) -> PlainError {
    PlainError::usage(format!("--sides {}: {problem}", path.display()))
}

/// Creates the error for a file that is damaged, or of which a column contains no text.
fn not_parquet(path: &Path, source: ParquetError) -> ExtractError {
    let error = wrong_file(path, "not a Parquet file of sides");
    error.caused_by(source).into()
}

/// Returns an empty text for null.
fn value(column: &StringViewArray, row: usize) -> &str {
    if column.is_null(row) {
        return "";
    }
    column.value(row)
}
