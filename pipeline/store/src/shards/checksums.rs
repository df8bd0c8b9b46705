//! Writes column chunks with a CRC-32 in each page header, which parquet-rs checks (feature `crc`) but does not write.
//!
//! A column writer hands each page to a page store in two parts: header and payload. Here the checksum goes into the
//! header, and the lengths and offsets that the writer recorded are corrected before the chunk joins its row group.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use bytes::{Buf, Bytes};
use parquet::arrow::arrow_writer::{
    ArrowColumnWriter, ArrowLeafColumn, ArrowRowGroupWriterFactory, PageKey, PageStore,
    PageStoreArgs, PageStoreFactory,
};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use wavemill_reader::layout::{DICTIONARY_PAGE, PageHeader};

/// A page with its checksum, as written to the file.
#[derive(Debug)]
struct Page {
    header: Bytes,
    payload: Bytes,
    is_dictionary: bool,
    /// Number of bytes that the checksum added to the header.
    added: usize,
}

type SharedPages = Arc<Mutex<Vec<Page>>>;

/// Encodes one leaf column of a row group as pages with checksums.
pub(super) struct ChecksummedColumn {
    writer: ArrowColumnWriter,
    pages: SharedPages,
}

/// A column chunk whose pages have checksums.
pub struct ChecksummedChunk {
    /// Pages of the chunk, with the dictionary page first, if there is one.
    pages: Vec<Page>,
    close: ColumnCloseResult,
}

impl ChecksummedColumn {
    /// Creates writers for the leaf columns of row group `number` of files such as `file`, in the schema's order.
    ///
    /// # Errors
    /// Fails if the schema cannot be written as Parquet.
    pub(super) fn from_row_group<W: io::Write + Send>(
        file: &SerializedFileWriter<W>,
        schema: &SchemaRef,
        number: usize,
    ) -> Result<Vec<Self>> {
        let stores = Arc::new(PageStores::default());
        let factory = ArrowRowGroupWriterFactory::new(file, Arc::clone(schema))
            .with_page_store_factory(Arc::clone(&stores) as Arc<dyn PageStoreFactory>);
        let writers = factory.create_column_writers(number)?;

        let stores = std::mem::take(&mut *stores.0.lock().unwrap_or_else(PoisonError::into_inner));
        let columns = writers.into_iter().zip(stores);
        Ok(columns
            .map(|(writer, pages)| Self { writer, pages })
            .collect())
    }

    /// Appends the values of an array to the column.
    ///
    /// # Errors
    /// Fails if the values cannot be encoded.
    pub(super) fn write(&mut self, leaf: &ArrowLeafColumn) -> Result<()> {
        self.writer.write(leaf)
    }

    /// Completes the column chunk.
    ///
    /// # Errors
    /// Fails if the last page cannot be encoded.
    pub(super) fn close(self) -> Result<ChecksummedChunk> {
        let mut close = self.writer.close()?.close().clone();
        let mut pages =
            std::mem::take(&mut *self.pages.lock().unwrap_or_else(PoisonError::into_inner));
        // The dictionary is complete, and written, after the last value; in the file its page comes first.
        pages.sort_by_key(|page| !page.is_dictionary);
        correct(&mut close, &pages)?;
        Ok(ChecksummedChunk { pages, close })
    }
}

impl ChecksummedChunk {
    /// Appends the chunk to a row group. The chunk must be that of the row group's next column.
    ///
    /// # Errors
    /// Fails if the file cannot be written.
    pub(super) fn append_to<W: io::Write + Send>(
        self,
        group: &mut SerializedRowGroupWriter<'_, W>,
    ) -> Result<()> {
        let pieces = self.pages.into_iter();
        let pieces = pieces.flat_map(|page| [page.header, page.payload]);
        group.append_column(&Pieces(pieces.collect()), self.close)
    }
}

/// Corrects the chunk's sizes and offsets for the bytes that checksums added to `pages`, which are in file order.
fn correct(close: &mut ColumnCloseResult, pages: &[Page]) -> Result<()> {
    let added: usize = pages.iter().map(|page| page.added).sum();
    let dictionary_len = match pages.first() {
        Some(page) if page.is_dictionary => page.len(),
        _ => 0,
    };

    let metadata = close.metadata.clone();
    let [compressed, uncompressed] = [metadata.compressed_size(), metadata.uncompressed_size()];
    let builder = metadata
        .into_builder()
        .set_total_compressed_size(compressed + added as i64)
        .set_total_uncompressed_size(uncompressed + added as i64)
        .set_data_page_offset(dictionary_len as i64)
        .set_dictionary_page_offset((dictionary_len > 0).then_some(0));
    close.metadata = builder.build()?;
    close.bytes_written += added as u64;

    let Some(index) = &mut close.offset_index else {
        return Ok(());
    };
    let mut offset = dictionary_len;
    let data_pages = pages.iter().filter(|page| !page.is_dictionary);
    for (location, page) in index.page_locations.iter_mut().zip(data_pages) {
        location.offset = offset as i64;
        location.compressed_page_size = page.len() as i32;
        offset += page.len();
    }
    Ok(())
}

impl Page {
    /// Adds a checksum to a page header. Returns `None` if `header` is not a page header without a checksum.
    fn new(header: &[u8], payload: Bytes) -> Option<Self> {
        let summed = PageHeader::with_checksum(header, &payload)?;
        Some(Self {
            is_dictionary: PageHeader::parse(header)?.kind == DICTIONARY_PAGE,
            added: summed.len() - header.len(),
            header: Bytes::from(summed),
            payload,
        })
    }

    fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// Creates the page stores of one row group and keeps their pages, column by column.
#[derive(Debug, Default)]
struct PageStores(Mutex<Vec<SharedPages>>);

impl PageStoreFactory for PageStores {
    fn create(&self, _args: &PageStoreArgs<'_>) -> Result<Box<dyn PageStore>> {
        let pages = SharedPages::default();
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.push(Arc::clone(&pages));
        Ok(Box::new(PageCollector {
            header: None,
            pages,
        }))
    }
}

/// Page store that receives the pages of one column.
struct PageCollector {
    /// Header of a page whose payload has not been received yet.
    header: Option<Bytes>,
    pages: SharedPages,
}

impl PageStore for PageCollector {
    fn put(&mut self, value: Bytes) -> Result<PageKey> {
        let Some(header) = self.header.take() else {
            self.header = Some(value);
            return Ok(PageKey::new(0));
        };
        let page = Page::new(&header, value)
            .ok_or_else(|| ParquetError::General("unknown page header".to_owned()))?;
        self.pages
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(page);
        Ok(PageKey::new(0))
    }

    fn take(&mut self, _key: PageKey) -> Result<Bytes> {
        let words = "pages with checksums are appended by `ChecksummedChunk`";
        Err(ParquetError::General(words.to_owned()))
    }
}

/// The headers and payloads of a chunk one after another, read like a file from its start.
struct Pieces(Vec<Bytes>);

impl Length for Pieces {
    fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }
}

impl ChunkReader for Pieces {
    type T = PiecesReader;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        if start > 0 {
            return Err(ParquetError::General(
                "a chunk is read as a whole".to_owned(),
            ));
        }
        Ok(PiecesReader {
            piece: Bytes::new(),
            rest: self.0.clone().into_iter(),
        })
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = vec![0; length];
        self.get_read(start)?.read_exact(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}

struct PiecesReader {
    piece: Bytes,
    rest: std::vec::IntoIter<Bytes>,
}

impl Read for PiecesReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.rest.next() {
                Some(next) => self.piece = next,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow::array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::arrow::arrow_writer::compute_leaves;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
    use parquet::file::properties::WriterProperties;

    use super::*;

    /// Creates a batch with a column that gets a dictionary, a column of lists with a null, and a column of numbers.
    fn rows() -> RecordBatch {
        let words = (0..300).map(|n| Some(["one", "two", "three"][n % 3]));
        let lists = (0..300).map(|n| (n != 7).then(|| vec![Some(n); n as usize % 4]));
        let numbers = (0..300).map(|n| n * n);

        let columns: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter(words)),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            Arc::new(Int32Array::from_iter_values(numbers)),
        ];

        let item = Arc::new(Field::new("item", DataType::Int32, true));
        let schema = Schema::new(vec![
            Field::new("words", DataType::Utf8, true),
            Field::new("lists", DataType::List(item), true),
            Field::new("numbers", DataType::Int32, false),
        ]);

        RecordBatch::try_new(Arc::new(schema), columns.to_vec()).expect("a batch")
    }

    /// Writes [`rows`] twice to a Parquet file, as two row groups of several pages.
    fn file(compression: Compression) -> Bytes {
        let rows = rows();

        let properties = WriterProperties::builder()
            .set_compression(compression)
            .set_data_page_row_count_limit(100)
            .set_write_batch_size(50)
            .build();

        let writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties));
        let (mut writer, _) = writer
            .and_then(ArrowWriter::into_serialized_writer)
            .expect("a writer");

        for number in 0..2 {
            let columns = ChecksummedColumn::from_row_group(&writer, &rows.schema(), number);
            let mut columns = columns.expect("columns");

            for (column, (field, array)) in columns
                .iter_mut()
                .zip(rows.schema().fields().iter().zip(rows.columns()))
            {
                for leaf in compute_leaves(field, array).expect("leaves") {
                    column.write(&leaf).expect("values");
                }
            }

            let mut group = writer.next_row_group().expect("a row group");
            for column in columns {
                let chunk = column.close().expect("a chunk");
                chunk.append_to(&mut group).expect("room");
            }
            group.close().expect("a row group");
        }

        Bytes::from(writer.into_inner().expect("a footer"))
    }

    fn read(file: Bytes) -> std::result::Result<Vec<RecordBatch>, String> {
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|r| r.build());
        let batches = reader.map_err(|error| error.to_string())?;
        batches
            .collect::<std::result::Result<_, _>>()
            .map_err(|error| error.to_string())
    }

    fn metadata(file: &Bytes) -> ParquetMetaData {
        ParquetMetaDataReader::new()
            .with_page_index_policy(PageIndexPolicy::Required)
            .parse_and_finish(file)
            .expect("metadata with a page index")
    }

    /// Returns the byte ranges of all pages with their headers, including dictionary pages.
    fn pages(file: &Bytes) -> Vec<Range<usize>> {
        let metadata = metadata(file);
        let mut pages = Vec::new();

        for (group, columns) in metadata
            .offset_index()
            .expect("an index")
            .iter()
            .enumerate()
        {
            for (column, index) in columns.iter().enumerate() {
                let chunk = metadata.row_group(group).column(column);
                if let Some(start) = chunk.dictionary_page_offset() {
                    pages.push(start as usize..chunk.data_page_offset() as usize);
                }

                for page in index.page_locations() {
                    let start = page.offset as usize;
                    pages.push(start..start + page.compressed_page_size as usize);
                }
            }
        }

        pages
    }

    #[test]
    fn rows_come_back_and_pages_lie_end_to_end() {
        for compression in [
            Compression::UNCOMPRESSED,
            Compression::ZSTD(ZstdLevel::default()),
        ] {
            let file = file(compression);
            let read = read(file.clone()).expect("rows");
            let read = arrow::compute::concat_batches(&rows().schema(), &read).expect("one batch");
            for start in [0, 300] {
                assert_eq!(read.slice(start, 300), rows(), "{compression}");
            }

            let pages = pages(&file);
            assert!(pages.len() > 2 * 6, "{} pages", pages.len());
            assert_eq!(pages[0].start, 4, "behind the magic number");
            for pair in pages.windows(2) {
                assert_eq!(pair[0].end, pair[1].start, "{compression}");
            }

            let metadata = metadata(&file);
            let groups = metadata.row_groups().iter();
            let chunks = groups.flat_map(|group| group.columns());
            let bytes: i64 = chunks.map(|chunk| chunk.compressed_size()).sum();
            assert_eq!(bytes as usize, pages[pages.len() - 1].end - 4);
        }
    }

    #[test]
    fn a_flipped_bit_of_any_payload_is_an_error() {
        let file = file(Compression::ZSTD(ZstdLevel::default()));

        for page in pages(&file) {
            let header = PageHeader::parse(&file[page.clone()]).expect("a header");
            for at in page.end - header.compressed as usize..page.end {
                let mut flipped = file.to_vec();
                flipped[at] ^= 1 << (at % 8);

                let error = read(Bytes::from(flipped)).expect_err("a wrong checksum");
                assert!(error.contains("CRC"), "byte {at}: {error}");
            }
        }
    }
}
