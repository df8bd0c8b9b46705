//! Fuzz test: the Arrow stream of feature rows that `wavemill features` writes and `wavemill train predict` reads.

use std::cell::RefCell;
use std::fs::File;

use arrow::ipc::writer::StreamWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use wavemill_schemas::manifest::FeatureEntry;

use crate::stores::SmallStore;

thread_local! {
    static STORE: RefCell<SmallStore> = RefCell::new(SmallStore::new());
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    STORE.with_borrow(|store| {
        let shard = File::open(store.root().join(store.shard())).expect("a shard");
        let reader = ParquetRecordBatchReaderBuilder::try_new(shard).expect("Parquet");
        let mut writer = StreamWriter::try_new(Vec::new(), reader.schema()).expect("memory");
        for batch in reader.build().expect("Parquet") {
            writer.write(&batch.expect("rows")).expect("memory");
        }
        vec![writer.into_inner().expect("memory")]
    })
}

pub(crate) fn run(input: &[u8]) {
    let feature: FeatureEntry = STORE.with_borrow(|store| store.manifest.features[0].clone());
    wavemill_trainer::fuzzing::read_stream(input, &feature);
}
