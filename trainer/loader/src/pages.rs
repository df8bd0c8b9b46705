//! Locates the tensor of each row in a file, and copies it from there to the row's slot in a batch without a Parquet
//! reader.
//!
//! An uncompressed row is a byte range of the file and is read directly. Under zstd, the row's page is read and
//! decompressed into the batch. From an object store, the pages of several rows are read at the same time. The offset
//! index contains the positions of pages; only the pages of requested rows are read. Other layouts are read by
//! `arrow_column.rs`.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use wavemill_reader::StreamedFile;
use wavemill_reader::layout::{self, Page, PageForm};

use crate::DatasetError;
use crate::arrow_column::ArrowColumn;
use crate::file::{Chunks, FeatureFile};
use crate::form::Form;
use crate::frames::Excerpt;
use crate::page::{PagesAhead, RowInPage, Scratch, check_page};
use crate::rows::{RowGroup, Rows};
use crate::shard::{Check, Shard};
use crate::store::require_content;

/// Maximum number of files of a dataset that are kept open, if the process may open as many. Other files are opened for
/// each row, which takes some microseconds.
const OPEN_FILES_MAX: usize = 512;

/// The position of a row's bytes in a file.
#[derive(Clone, Copy, Debug)]
struct Place {
    /// Offset in the file of the row's page.
    offset: u64,
    /// Length in bytes of the row's page with its header.
    bytes: u32,
    /// Index of the row within its page, or within its row group if Parquet's Arrow reader reads the row.
    within: u32,
}

/// The method of reading the rows of a file.
#[derive(Clone, Debug)]
enum ReadMethod {
    /// The bytes of a row are stored unchanged and copied from the file.
    Plain,
    /// The page of a row is read and decompressed.
    Zstd,
    /// Parquet's Arrow reader decodes the row.
    Arrow(Box<ArrowColumn>),
}

/// The positions of the rows in one file.
#[derive(Debug)]
pub(crate) struct RowPlaces {
    method: ReadMethod,
    places: Vec<Place>,
}

/// A file whose rows have been located.
#[derive(Debug)]
struct RowFile {
    file: Arc<FeatureFile>,
    method: ReadMethod,
    /// The check of the file's content; `None` if the content is not checked.
    content: Option<ContentCheck>,
    /// True if each page is compared with its checksum.
    checks_pages: bool,
}

/// The comparison of a file with its blake3 hash before its first row is read.
#[derive(Debug)]
struct ContentCheck {
    /// The blake3 hash of the whole file, in lower-case hex.
    blake3: String,
    /// True if the hash is equal; `None` until the file has been compared. Other readers wait on the lock meanwhile.
    is_sound: Mutex<Option<bool>>,
}

/// A row to be copied, and the frames of it that are wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowToRead<'a> {
    /// The index of the row over all rows.
    pub row: u32,
    /// The row group of the row.
    pub group: &'a RowGroup,
    /// The form of the row in host memory.
    pub form: &'a Form,
    /// The frames that are taken if the row has more than `form`.
    pub excerpt: Excerpt,
    /// True if the row is no longer needed.
    pub stop: &'a AtomicBool,
}

/// The locations of all rows' tensors in the files of a feature.
#[derive(Debug)]
pub(crate) struct Pages {
    column: String,
    form: Form,
    /// Number of bytes of a stored row; of no meaning if rows differ in length.
    row_bytes: usize,
    sources: Vec<RowFile>,
    places: Vec<Place>,
    bytes_read: AtomicU64,
}

impl Pages {
    /// Creates an empty collection for a feature with this form.
    pub(crate) fn new(column: &str, form: Form) -> Self {
        Self {
            column: column.to_owned(),
            row_bytes: form.row_bytes(),
            form,
            sources: Vec::new(),
            places: Vec::new(),
            bytes_read: AtomicU64::new(0),
        }
    }

    /// Returns the number of bytes of the tensor column that were read from files so far, including page headers.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// Returns the path of a file.
    pub(crate) fn path(&self, file: u32) -> &Path {
        self.sources[file as usize].path()
    }

    /// Locates the rows in a file.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] if the positions of pages are impossible; [`DatasetError::Other`] for a column type
    /// that cannot be a tensor.
    pub(crate) fn locate(&self, shard: &Shard) -> Result<RowPlaces, DatasetError> {
        let groups = shard.metadata.metadata().row_groups();
        let mut columns = Vec::with_capacity(groups.len());
        for group in groups {
            columns.push(self.column_in(shard, group)?);
        }

        // Check all row groups before choosing a method: if one of them has another encoding, Parquet's Arrow reader
        // reads the whole file.
        let chunks: Vec<&ColumnChunkMetaData> = groups
            .iter()
            .zip(&columns)
            .map(|(group, &column)| group.column(column))
            .collect();
        let mut located = RowPlaces {
            method: self.method(shard, &chunks)?,
            places: Vec::new(),
        };

        for (group, column) in columns.into_iter().enumerate() {
            self.locate_group(shard, group, column, &mut located)
                .map_err(|problem| DatasetError::row_group(&shard.file.path, group, problem))?;
        }
        Ok(located)
    }

    /// Returns the index of the tensor column in a row group.
    fn column_in(&self, shard: &Shard, group: &RowGroupMetaData) -> Result<usize, DatasetError> {
        group
            .columns()
            .iter()
            .position(|chunk| chunk.column_path().parts().first() == Some(&self.column))
            .ok_or_else(|| DatasetError::column(&shard.file.path, &self.column, "missing"))
    }

    /// Returns the method of reading all rows of a file, from the metadata of its tensor column in each row group.
    fn method(
        &self,
        shard: &Shard,
        chunks: &[&ColumnChunkMetaData],
    ) -> Result<ReadMethod, DatasetError> {
        // Rows that differ in length may have to be cut or padded, so their bytes cannot be copied directly into the
        // batch.
        let form = match self.form.is_ragged() {
            true => PageForm::Other,
            false => PageForm::of(chunks, self.row_bytes),
        };
        Ok(match form {
            PageForm::Plain => ReadMethod::Plain,
            PageForm::Zstd => ReadMethod::Zstd,
            PageForm::Other => {
                let arrow_column = ArrowColumn::new(shard, &self.column, &self.form)?;
                ReadMethod::Arrow(Box::new(arrow_column))
            }
        })
    }

    /// Adds a file whose rows have been located.
    pub(crate) fn append(&mut self, shard: Shard, located: RowPlaces) {
        // The number of open files per process is limited.
        let closed = match self.sources.len() < OPEN_FILES_MAX {
            true => None,
            false => shard.file.closed().map(Arc::new),
        };
        self.sources.push(RowFile {
            file: closed.unwrap_or(shard.file),
            method: located.method,
            checks_pages: matches!(shard.check, Check::Pages),
            content: match shard.check {
                Check::File(blake3) => Some(ContentCheck {
                    blake3,
                    is_sound: Mutex::default(),
                }),
                Check::None | Check::Pages => None,
            },
        });
        self.places.extend(located.places);
    }

    /// Locates the rows of one row group. The error describes a problem with the group's offset index.
    fn locate_group(
        &self,
        shard: &Shard,
        group: usize,
        column: usize,
        located: &mut RowPlaces,
    ) -> Result<(), String> {
        let metadata = shard.metadata.metadata();
        let n_rows = metadata.row_group(group).num_rows();
        let index = metadata
            .offset_index()
            .and_then(|index| Some(index.get(group)?.get(column)?.page_locations()))
            .ok_or("it has no offset index")?;
        for page in layout::pages(index, n_rows, shard.file.bytes)? {
            self.locate_page(page, located)?;
        }
        Ok(())
    }

    /// Locates the rows of one page.
    fn locate_page(&self, page: Page, located: &mut RowPlaces) -> Result<(), String> {
        let Page {
            offset,
            bytes,
            rows,
        } = page;
        let n_rows = rows.end - rows.start;
        let is_plain = matches!(located.method, ReadMethod::Plain);
        // The page's header is before its rows.
        if is_plain && u64::from(bytes) <= u64::from(n_rows) * self.row_bytes as u64 {
            return Err("a page is smaller than its rows".to_owned());
        }

        // Arrow's reader finds the page itself, and counts rows within the row group.
        let is_arrow = matches!(located.method, ReadMethod::Arrow(_));
        for within in if is_arrow { rows } else { 0..n_rows } {
            located.places.push(Place {
                offset,
                bytes,
                within,
            });
        }
        Ok(())
    }

    /// Reports whether a file has been compared with its hash, or is not to be compared.
    pub(crate) fn is_checked(&self, file: u32) -> bool {
        let content = self.sources[file as usize].content.as_ref();
        content.is_none_or(|content| {
            let known = content.is_sound.lock();
            known.unwrap_or_else(PoisonError::into_inner).is_some()
        })
    }

    /// Compares a file with its hash, unless this was done before.
    ///
    /// # Errors
    /// [`DatasetError::Store`] if the file cannot be read, or if `stop` is set meanwhile.
    pub(crate) fn check(&self, file: u32, stop: &AtomicBool) -> Result<(), DatasetError> {
        self.sources[file as usize].is_sound(stop)?;
        Ok(())
    }

    /// Reads the pages of `wanted` rows that are in an object store, until `stop` is set.
    pub(crate) fn read_ahead(
        &self,
        rows: &Rows,
        wanted: &[u32],
        ahead: &mut PagesAhead,
        stop: &AtomicBool,
    ) -> Result<(), DatasetError> {
        ahead.clear();
        let mut keys = Vec::new();
        let mut parts = Vec::new();
        for &row in wanted {
            let file = rows.file_of(row);
            let Some(streamed) = self.sources[file as usize].file.in_object_store() else {
                continue;
            };
            let Place { offset, bytes, .. } = self.places[row as usize];
            let key = (file, offset);
            // Rows of one page are contiguous in the manifest's order, but not in others.
            if !keys.contains(&key) {
                keys.push(key);
                parts.push((streamed, offset..offset + u64::from(bytes)));
            }
        }

        if !parts.is_empty() {
            let pages = StreamedFile::read_all(parts, stop).map_err(DatasetError::of_remote)?;
            ahead.extend(keys.into_iter().zip(pages.unwrap_or_default()));
        }
        Ok(())
    }

    /// Copies the frames of a row to `slot` and returns their number.
    ///
    /// # Errors
    /// [`DatasetError::Damaged`] with file and row group if the row is damaged; [`DatasetError::Store`] if the
    /// operating system cannot read the file.
    pub(crate) fn read(
        &self,
        row: RowToRead<'_>,
        slot: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<usize, DatasetError> {
        let RowToRead { group, form, .. } = row;
        let place = self.places[row.row as usize];
        let source = &self.sources[group.file as usize];
        let number = group.number as usize;
        if !source.is_sound(row.stop)? {
            let problem = "the file is missing, or its blake3 differs";
            return Err(DatasetError::row_group(source.path(), number, problem));
        }

        let mut frames = form.host_frames;
        match &source.method {
            ReadMethod::Plain | ReadMethod::Zstd if form.is_as_stored() => {
                self.read_direct(row, slot, scratch)?;
            }
            ReadMethod::Plain | ReadMethod::Zstd => {
                let mut whole = std::mem::take(&mut scratch.row);
                whole.resize(self.row_bytes, 0);
                let read = self.read_direct(row, &mut whole, scratch);
                scratch.row = whole;
                read?;
                frames = form
                    .fill_excerpt(&scratch.row, row.excerpt, slot)
                    .map_err(|problem| DatasetError::row_group(source.path(), number, problem))?;
            }
            ReadMethod::Arrow(arrow_column) => {
                // Read the bytes before Arrow's reader does, whose errors do not distinguish a failed read from damaged
                // bytes.
                self.read_page(row, scratch)?;
                let page = Bytes::from(std::mem::take(&mut scratch.page));
                let chunks = Chunks::new(&source.file, place.offset, page);
                let value = arrow_column.row(chunks, number, place.within as usize);
                frames = value
                    .and_then(|value| form.fill_excerpt(&value, row.excerpt, slot))
                    .map_err(|problem| DatasetError::row_group(source.path(), number, problem))?;
            }
        }
        Ok(frames)
    }

    fn count(&self, bytes: usize) {
        // The number of bytes is only used for reports and tests, so `Relaxed` suffices.
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Reads the page of a row to `scratch.page`.
    fn read_page(&self, row: RowToRead<'_>, scratch: &mut Scratch) -> Result<(), DatasetError> {
        let RowToRead { row, group, .. } = row;
        let Place { offset, bytes, .. } = self.places[row as usize];
        let source = &self.sources[group.file as usize];

        let page = &mut scratch.page;
        match scratch.ahead.get(&(group.file, offset)) {
            Some(read) => {
                page.clear();
                page.extend_from_slice(read);
            }
            None => {
                page.resize(bytes as usize, 0);
                source.read_at(page, offset, group)?;
            }
        }
        self.count(page.len());

        if !source.checks_pages {
            return Ok(());
        }
        let number = group.number as usize;
        let mut checked = check_page(page);
        let streamed = source.file.in_object_store();
        if checked.is_err() && streamed.is_some_and(StreamedFile::forget_copy) {
            // The local copy may be damaged, and the object intact.
            source.read_at(page, offset, group)?;
            checked = check_page(page);
        }
        checked.map_err(|problem| DatasetError::row_group(source.path(), number, problem))
    }

    /// Copies the bytes of a row, in a file that Parquet's Arrow reader does not have to read, to `slot`, which must be
    /// `row_bytes` long.
    fn read_direct(
        &self,
        row: RowToRead<'_>,
        slot: &mut [u8],
        scratch: &mut Scratch,
    ) -> Result<(), DatasetError> {
        let group = row.group;
        let source = &self.sources[group.file as usize];
        let in_page = self.row_in_page(row.row);

        if matches!(source.method, ReadMethod::Zstd) {
            self.read_page(row, scratch)?;
            return scratch.decompress(in_page, slot).map_err(|problem| {
                DatasetError::row_group(source.path(), group.number as usize, problem)
            });
        }

        // The rows are at the end of their page.
        let place = self.places[row.row as usize];
        let start = place.bytes as usize - (in_page.page_rows - in_page.within) * slot.len();
        // A page may have been read ahead.
        if source.file.in_object_store().is_some() {
            self.read_page(row, scratch)?;
            slot.copy_from_slice(&scratch.page[start..][..slot.len()]);
            return Ok(());
        }
        self.count(slot.len());
        source.read_at(slot, place.offset + start as u64, group)
    }

    /// Returns the index of a row in its zstd page, and the number of rows in the page.
    fn row_in_page(&self, row: u32) -> RowInPage {
        let row = row as usize;
        let within = self.places[row].within as usize;
        // Row indices of each page start at 0 and pages are contiguous, so the next row with index 0 is the first of
        // another page. Most pages have one row, so this usually examines one entry.
        let behind = &self.places[row + 1..];
        let n_behind = behind.iter().take_while(|place| place.within > 0).count();
        RowInPage {
            within,
            page_rows: within + 1 + n_behind,
        }
    }
}

impl RowFile {
    fn path(&self) -> &Path {
        &self.file.path
    }

    /// Reports whether the hash of the file is the one that was committed. Computing the hash ends with an error if
    /// `stop` is set meanwhile.
    fn is_sound(&self, stop: &AtomicBool) -> Result<bool, DatasetError> {
        let Some(content) = &self.content else {
            return Ok(true);
        };
        let mut known = content
            .is_sound
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(is_sound) = *known {
            return Ok(is_sound);
        }

        let is_sound = match require_content(self.path(), &content.blake3, Some(stop)) {
            Err(error) if error.is_damage() => false,
            compared => compared.map(|()| true)?,
        };
        *known = Some(is_sound);
        Ok(is_sound)
    }

    /// Fills `bytes`, which are part of row group `group`, from the file's bytes at `offset`.
    fn read_at(&self, bytes: &mut [u8], offset: u64, group: &RowGroup) -> Result<(), DatasetError> {
        match self.file.read_at(bytes, offset) {
            // `locate` compared the position with the file's length, so the file was truncated since then: it is
            // damaged, and the disk works.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let problem = "the file ends within it";
                let number = group.number as usize;
                Err(DatasetError::row_group(self.path(), number, problem))
            }
            other => other.map_err(DatasetError::io_at(self.path(), "read")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
    use parquet::file::page_index::offset_index::PageLocation;
    use wavemill_schemas::config::Data;
    use wavemill_schemas::manifest::FeatureEntry;
    use wavemill_schemas::recipe::Compression;

    use super::*;
    use crate::fixture::{FEATURE, Fixture};
    use crate::{InputSpec, Store};

    fn form_of(feature: &FeatureEntry) -> Form {
        let spec = InputSpec::new(feature, &Data::default(), None).expect("rows of one length");
        Form::new(&spec).expect("a form")
    }

    /// Returns the error message of locating rows in a file whose offset index was changed by `damage`, or `located` if
    /// there is no error.
    fn located(compression: Compression, damage: impl Fn(&mut [PageLocation])) -> String {
        let fixture = Fixture {
            compression,
            ..Fixture::default()
        };
        let folder = tempfile::tempdir().expect("a folder");
        fixture.write(folder.path());
        let store = Store::open(folder.path(), None).expect("a store");
        let feature = store.feature(None).expect("a feature");
        let entry = store.manifest().files_of(FEATURE).next().expect("a file");
        let mut shard = Shard::open(&store, entry, feature).expect("a file of the store");

        let metadata = shard.metadata.metadata();
        let mut index = metadata.offset_index().expect("an offset index").clone();
        let column = shard.metadata.schema().index_of(FEATURE).expect("a column");
        damage(&mut index[0][column].page_locations);

        let damaged = metadata.as_ref().clone().into_builder();
        let damaged = damaged.set_offset_index(Some(index)).build();

        let options = ArrowReaderOptions::new();
        shard.metadata =
            ArrowReaderMetadata::try_new(Arc::new(damaged), options).expect("a schema");

        match Pages::new(FEATURE, form_of(feature)).locate(&shard) {
            Ok(_) => "located".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn oversized_offset_index_is_damage() {
        for compression in [Compression::Zstd, Compression::None, Compression::Lz4] {
            // Lz4 pages are read by Arrow's reader.
            assert_eq!(located(compression, |_| {}), "located");

            type Damage = fn(&mut [PageLocation]);
            let damages: [Damage; 5] = [
                |pages| pages[1].first_row_index = 4_294_967_294,
                |pages| pages[1].first_row_index = i64::MIN,
                |pages| pages[0].first_row_index = i64::MIN,
                |pages| {
                    pages[0].first_row_index = 4_294_967_288;
                    pages[1].first_row_index = 4_294_967_304;
                },
                |pages| pages.swap(0, 1),
            ];
            for (number, damage) in damages.into_iter().enumerate() {
                let said = located(compression, damage);
                assert!(
                    said.contains("row group 0 is damaged (its offset index is out of order)"),
                    "{compression:?}, damage {number}: {said}"
                );
            }
        }
    }

    #[test]
    fn rows_of_a_page_are_counted_up_to_the_next_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = Fixture::default().write(folder.path());
        let mut pages = Pages::new(FEATURE, form_of(&manifest.features[0]));
        // Three pages: of three rows, one row, and two rows.
        pages.places = [0, 1, 2, 0, 0, 1]
            .map(|within| Place {
                offset: 4,
                bytes: 100,
                within,
            })
            .to_vec();

        let found = [0, 1, 2, 3, 4, 5].map(|row| {
            let RowInPage { within, page_rows } = pages.row_in_page(row);
            (within, page_rows)
        });
        assert_eq!(found, [(0, 3), (1, 3), (2, 3), (0, 1), (0, 2), (1, 2)]);
    }
}
