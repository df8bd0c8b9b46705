//! Fuzz test: metadata. The first byte of the input selects the file that the rest replaces: tracks.csv or genres.csv of FMA, or
//! a table of the user in one of its formats.

use std::cell::RefCell;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use parquet::arrow::ArrowWriter;
use tempfile::TempDir;
use wavemill_catalog::{CatalogSettings, ClassLists, MetadataFiles, Recordings, clean};
use wavemill_schemas::recipe::Recipe;
use wavemill_source::AudioIndex;

use crate::stores::{in_memory, write};

const TRACKS: &str = "\u{feff},album,artist,set,set,track,track,track\n,id,id,split,subset,genre_top,genres_all,tags\n\
                      track_id,,,,,,,\n2,1,1,training,small,Rock,\"[1, 2]\",\"['a', 'b']\"\n3,1,2,test,small,Jazz,[],[]\n";
const GENRES: &str = "genre_id,#tracks,parent,title,top_level\n1,10,0,Rock,1\n2,4,1,Punk,1\n3,5,0,Jazz,3\n";

/// Names of the files, and what they contain. A seed of the Parquet file is made by [`own_parquet`].
const FILES: [(&str, &str); 5] = [
    ("tracks.csv", TRACKS),
    ("genres.csv", GENRES),
    ("own.csv", "track_id,mood\n2,calm\n3,\"loud\nand long\"\n"),
    ("own.jsonl", "{\"track_id\": 2, \"mood\": [\"calm\", null]}\n{\"track_id\": 3}\n"),
    ("own.parquet", ""),
];

const RECIPE: &str = r#"
name = "fuzz"
[catalog]
dataset = "fma"
require_audio = false
[[catalog.clean]]
step = "own"
sql = "SELECT t.* FROM t LEFT JOIN own ON t.track_id = own.track_id"
[[targets]]
name = "genre"
column = "track_genre_top"
[split]
rule = "artist"
[[features]]
name = "log_mel"
op = "mel"
"#;

thread_local! {
    static FOLDER: RefCell<(TempDir, Recipe)> = RefCell::new((
        in_memory(),
        Recipe::parse(RECIPE, "fuzz", &[]).expect("a valid recipe"),
    ));
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let numbered = (0_u8..).zip(FILES);
    let table = own_parquet();
    let content = |text: &'static str| if text.is_empty() { table.clone() } else { text.into() };
    numbered.map(|(i, (_, text))| [vec![i], content(text)].concat()).collect()
}

fn own_parquet() -> Vec<u8> {
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![2, 3]));
    let moods: ArrayRef = Arc::new(StringArray::from(vec![Some("calm"), None]));
    let rows = RecordBatch::try_from_iter([("track_id", ids), ("mood", moods)]).expect("equal lengths");
    let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), None).expect("memory");
    writer.write(&rows).expect("memory");
    writer.into_inner().expect("memory")
}

pub(crate) fn run(input: &[u8]) {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let choice = usize::from(choice) % FILES.len();

    FOLDER.with_borrow(|(folder, recipe)| {
        for (name, text) in FILES {
            let path = folder.path().join(name);
            let replaced = name == FILES[choice].0;
            write(&path, if replaced { bytes } else { text.as_bytes() });
        }
        // Without a table of its own the recipe still names one, which is an error: so there is always one.
        let own = folder.path().join(FILES[choice.max(2)].0);
        let metadata = MetadataFiles {
            main: Some(folder.path().join("tracks.csv")),
            tables: vec![("own".to_owned(), own)],
        };

        let settings = CatalogSettings { threads: 1, ..CatalogSettings::default() };
        let cleaned = clean(recipe, &metadata, &AudioIndex::new(), settings, &Arc::default());
        // An error is a valid result.
        if let Ok(cleaned) = cleaned {
            let _ = cleaned.split(recipe, &Recordings::default(), None, &ClassLists::new());
        }
    });
}
