//! Tables as others publish them: comments, spaces around fields, ragged records, other encodings, unbalanced quotes,
//! and several spellings of one name.

use super::*;

/// Layout of AudioSet's segments.
const AUDIOSET: &str = "# Segments csv created Sun Mar  5 10:54:25 2017\n\
    # num_ytids=3, \"num_segs=3, num_unique_labels=4\n\
    # YTID, start_seconds, end_seconds, positive_labels\n\
    --PJHxphWEs, 30.000, 40.000, \"/m/09x0r,/t/dd00088\"\n\
    -0RWZT-miFs, 420.000, 430.000 , \"/m/03v3yw,\n/m/0k4j\" \n";

/// Layout of MTG-Jamendo's `autotagging.tsv`; the last track has no tags.
const JAMENDO: &str = "TRACK_ID\tARTIST_ID\tALBUM_ID\tPATH\tDURATION\tTAGS\n\
    track_0000214\tartist_000014\talbum_000031\t14/214.mp3\t124.6\tgenre---punkrock\n\
    track_0000215\tartist_000014\talbum_000031\t15/215.mp3\t151.4\tgenre---metal\tmood/theme---dark\n\
    track_0000216\tartist_000014\talbum_000031\t16/216.mp3\t234.9\tgenre---metal\tinstrument---guitar\t\tmood/theme---epic\n\
    track_0000217\tartist_000015\talbum_000032\t17/217.mp3\t10.0\n";

/// Cleans a table in a file of the given name by one query, which makes the columns `clip_key` and `label`.
fn cleaned_by(
    name: &str,
    text: &[u8],
    sql: &str,
    change: impl FnOnce(&mut Recipe),
) -> Result<Catalog, String> {
    let (_folder, path) = folder_with(name, text);

    let mut recipe = with_target(recipe(Dataset::Table, vec![query("keys", sql)]), "label");
    change(&mut recipe);
    run(&recipe, &path).map_err(|error| {
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        error.to_string()
    })
}

fn cells(catalog: &Catalog, column: &str) -> Vec<String> {
    let column = &catalog.tables["tracks"][column];
    let cells =
        (0..column.len()).map(|row| arrow::util::display::array_value_to_string(column, row));
    cells.collect::<Result<_, _>>().unwrap()
}

const YOUTUBE: &str =
    "SELECT *, \"YTID\" || '.wav' AS clip_key, positive_labels AS label FROM input";
const TAGGED: &str =
    "SELECT *, \"PATH\" AS clip_key, split_part(\"TAGS\"[1], '---', 2) AS label FROM input";

#[test]
fn lines_before_the_header_and_spaces_are_not_part_of_records() {
    for text in [
        AUDIOSET.to_owned(),
        AUDIOSET.replace('\n', "\r\n"),
        AUDIOSET.replace('\n', "\r"),
        format!("\u{feff}{AUDIOSET}"),
    ] {
        let catalog = cleaned_by("audioset.csv", text.as_bytes(), YOUTUBE, |recipe| {
            recipe.catalog.csv.skip_lines = 2;
            recipe.catalog.csv.trim = true;
        })
        .unwrap();
        let labels = cells(&catalog, "positive_labels").join(" ");
        let labels = labels.replace("\r\n", "\n").replace('\r', "\n");
        assert_eq!(labels, "/m/09x0r,/t/dd00088 /m/03v3yw,\n/m/0k4j");
        assert_eq!(cells(&catalog, "start_seconds"), ["30.0", "420.0"]);
        assert_eq!(cells(&catalog, "clip_key")[0], "--PJHxphWEs.wav");
        assert_eq!((catalog.rows_read, catalog.rejects.len()), (2, 0));
        // Lines are those of the file.
        let lines = catalog.tables["tracks_all"]["csv_line"].clone();
        let lines = lines.as_primitive::<arrow::datatypes::Int64Type>();
        assert_eq!(lines.values(), &[4, 5]);
    }
}

#[test]
fn the_header_after_skipped_lines_determines_the_delimiter() {
    let text =
        "made, by hand\n\n\"twice\nfile;label\na.wav; Rock \n \"b;.wav\" ;\"Jazz \"\nc.wav;\n";
    let sql = "SELECT *, file AS clip_key FROM input";
    let cleaned = |skip_lines| {
        cleaned_by("t.csv", text.as_bytes(), sql, |recipe| {
            recipe.catalog.csv.skip_lines = skip_lines;
            recipe.catalog.csv.trim = true;
        })
    };
    let catalog = cleaned(3).unwrap();
    assert_eq!(cells(&catalog, "clip_key"), ["a.wav", "b;.wav", "c.wav"]);
    // Spaces within quotes are part of a field.
    assert_eq!(cells(&catalog, "label"), ["Rock", "Jazz ", ""]);
    assert!(cleaned(9).unwrap_err().contains("is empty"));
}

#[test]
fn further_fields_are_items_of_the_last_column() {
    let catalog = cleaned_by("jamendo.tsv", JAMENDO.as_bytes(), TAGGED, |recipe| {
        recipe.catalog.csv.ragged = true;
    })
    .unwrap();
    assert_eq!(
        cells(&catalog, "TAGS"),
        [
            "[genre---punkrock]",
            "[genre---metal, mood/theme---dark]",
            "[genre---metal, instrument---guitar, mood/theme---epic]",
            "",
        ]
    );
    assert_eq!(catalog.classes["genre"], ["metal", "punkrock"]);
    assert!(catalog.rejects.is_empty() && !catalog.rows_hash().unwrap().is_empty());

    // Too few fields are still a reject.
    let text = format!("{JAMENDO}track_0000218\tartist_000015\n");
    let catalog = cleaned_by("jamendo.tsv", text.as_bytes(), TAGGED, |recipe| {
        recipe.catalog.csv.ragged = true;
    });
    assert_eq!(catalog.unwrap().rejects[0].line, Some(6));
}

#[test]
fn a_table_of_which_most_rows_are_rejected_is_an_error() {
    let refused = cleaned_by("jamendo.tsv", JAMENDO.as_bytes(), TAGGED, |_| ()).unwrap_err();
    assert_eq!(
        refused,
        "metadata file jamendo.tsv: 3 of 4 rows are rejected, the first on line 3 (jamendo.tsv: 7 fields where the header has \
         6): describe the form of the file in catalog.csv of the recipe, or allow the rejects by --max-reject-fraction 1"
    );

    // The advice works for the file: the recipe describes no table of an option.
    let (_folder, path) = folder_with("jamendo.tsv", JAMENDO);
    let tables = MetadataFiles {
        main: None,
        tables: vec![("tags".to_owned(), path)],
    };
    let (recipe, audio) = (recipe(Dataset::Folders, vec![]), index(["a/b.mp3"]));
    let settings = CatalogSettings::default();
    let error = clean(&recipe, &tables, &audio, settings, &Arc::default());
    assert_eq!(
        error.err().unwrap().to_string(),
        "--table tags: metadata file jamendo.tsv: 3 of 4 rows are rejected, the first on line 3 (jamendo.tsv: 7 fields where \
         the header has 6): correct these rows of the file, or allow the rejects by --max-reject-fraction 1"
    );
    let latin = b"file,label\na.wav,caf\xe9\nb.wav,\xfc\nc.wav,Rock\n";
    let refused = cleaned_by("t.csv", latin, "SELECT 1", |_| ()).unwrap_err();
    assert_eq!(
        refused,
        "metadata file t.csv: 2 of 3 rows are rejected, the first on line 2 (t.csv: not UTF-8 after 3 bytes of the field): \
         convert the file to UTF-8, for example by `iconv -f CP1252 -t UTF-8`, or allow the rejects by --max-reject-fraction 1"
    );

    // Half of the rows may be rejected.
    let half = "file,label\na.wav,Rock\nb.wav,Jazz,more\n";
    let sql = "SELECT *, file AS clip_key FROM input";
    let cleaned = cleaned_by("t.csv", half.as_bytes(), sql, |_| ()).unwrap();
    assert_eq!(cleaned.rejects.len(), 1);
}

#[test]
fn utf16_is_named_with_the_command_that_converts_it() {
    let text = "clip_key,label\na.wav,Rock\n";
    let little: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = text.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for (bytes, encoding) in [
        ([&b"\xff\xfe"[..], &little].concat(), "UTF-16"),
        ([&b"\xfe\xff"[..], &big].concat(), "UTF-16"),
        (little, "UTF-16LE"),
        (big, "UTF-16BE"),
    ] {
        for name in ["it's 1.csv", "t.jsonl"] {
            let folder = tempfile::tempdir().unwrap();
            let refused = |file: &str, bytes: &[u8]| {
                let path = put(&folder, file, bytes);
                let error = run(&recipe(Dataset::Table, vec![]), &path).unwrap_err();
                assert_eq!(error.kind(), Kind::Usage);
                let text = error.to_string();
                let (start, command) = text.split_once('`').unwrap();
                assert_eq!(
                    start,
                    format!(
                        "metadata file {name}: it is in {encoding}, not in UTF-8: convert it by "
                    )
                );
                command.trim_end_matches('`').to_owned()
            };

            // The content of a compressed file has no name.
            // A frame of Zstandard with one block that is stored as it is.
            let n = bytes.len() as u8;
            let header = [
                &b"\x28\xb5\x2f\xfd\x20"[..],
                &[n],
                &(u32::from(n) << 3 | 1).to_le_bytes()[..3],
            ];
            let compressed = [&header.concat()[..], &bytes].concat();
            let command = format!("iconv -f {encoding} -t UTF-8");
            assert_eq!(refused(&format!("{name}.zst"), &compressed), command);
            // A shell runs the command as it is.
            let (place, quoted) = (folder.path().display(), name.replace('\'', "'\\''"));
            assert_eq!(
                refused(name, &bytes),
                format!("{command} '{place}/{quoted}' > '{place}/utf8-{quoted}'")
            );
        }
    }
}

#[test]
fn unbalanced_quotes_say_how_many_lines_they_joined() {
    let mut lines: Vec<String> = (1..=20)
        .map(|i| format!("{i}.wav,title {i},Rock"))
        .collect();
    lines.insert(0, "file,title,label".to_owned());
    let sql = "SELECT *, file AS clip_key FROM input";
    let warned = |changes: &[(usize, &str)]| {
        let mut lines = lines.clone();
        for &(line, text) in changes {
            lines[line - 1] = text.to_owned();
        }
        let catalog = cleaned_by("t.csv", lines.join("\n").as_bytes(), sql, |_| ()).unwrap();
        let warnings = catalog.warnings.iter();
        let quotes = warnings.filter(|warning| warning.starts_with("metadata file"));
        let quotes: Vec<String> = quotes.cloned().collect();
        (quotes, catalog.rejects.len(), catalog.clips.len())
    };
    let joined = |line, n, found| {
        format!(
            "metadata file t.csv: a quote on line {line} joins {n} lines: {found} fields where the header has 3, a reject: \
             close the quote, or double it"
        )
    };

    // Up to the end of the file, where the number of fields may be wrong, or right by chance.
    for (line, found) in [("11.wav,\"title,Rock", 2), ("11.wav,title,\"Rock", 3)] {
        let joined = vec![joined(12, 10, found)];
        assert_eq!(warned(&[(12, line)]), (joined, 1, 10));
    }
    // Up to the opening quote of a later field.
    for closing in ["14.wav,\"title\",Rock", "14.wav, \"title\" ,Rock"] {
        let changes = [(12, "11.wav,\"title,Rock"), (15, closing)];
        assert_eq!(warned(&changes), (vec![joined(12, 4, 3)], 1, 16));
    }
    // Up to a quote at the end of a later text, or before a text with a comma, which makes a sound row of all lines.
    for last in ["14.wav,7\",Rock", "14.wav,title,\"Rock, b\""] {
        let joined = "metadata file t.csv: a quote on line 12 joins 4 lines: each of them could be a row: close the \
                      quote, or double it";
        let changes = [(12, "11.wav,\"Heroes,Rock"), (15, last)];
        assert_eq!(warned(&changes), (vec![joined.to_owned()], 0, 17), "{last}");
    }
    // Line breaks of a field that is closed are no fault, whatever follows its quotes.
    for field in [
        "\"title\n\n\"",
        "\"a\nb\" ",
        "\"a\r\nb,\"\t",
        "\"a\n\" ",
        "\"a\nb\"x",
        "\"a,\nb\" (\"live\")",
        "\"a\n\"x",
        "\"a\nb, \"x",
    ] {
        let line = format!("11.wav,{field},Rock");
        assert_eq!(warned(&[(12, &line)]), (vec![], 0, 20), "{field}");
    }
    // Nor is a quote that is not closed on the last line, because it joins no lines.
    assert_eq!(warned(&[(21, "20.wav,title,\"Rock")]), (vec![], 0, 20));
}

#[test]
fn spellings_of_one_name_are_warned_about_and_can_be_merged() {
    let text = "clip_key,artist,label\n1.wav,The Beatles,hip-hop\n2.wav,the  beatles ,hiphop\n3.wav,Mia,Hip Hop\n\
                4.wav,Bj\u{f6}rk,Rock\n5.wav,Bjo\u{308}rk,\n";
    let separate = cleaned_by("t.csv", text.as_bytes(), "SELECT * FROM input", |_| ()).unwrap();
    assert_eq!(separate.classes["genre"].len(), 4);
    assert_eq!(
        separate.warnings,
        [
            "target `genre`: 1 names have several spellings (case, spaces, hyphens, Unicode form) or ids, such as \
             `Hip Hop`, `hip-hop`, `hiphop`: a cleaning step with sql = '''SELECT * REPLACE (normalized(\"label\") AS \
             \"label\") FROM input''' makes each of them one",
            "split.rule = \"artist\": 2 names have several spellings (case, spaces, hyphens, Unicode form) or ids, such as \
             `Bjo\u{308}rk`, `Bj\u{f6}rk`, `The Beatles`, `the  beatles `: a cleaning step with sql = '''SELECT * REPLACE \
             (normalized(\"artist\") AS \"artist\") FROM input''' makes each of them one",
        ]
    );

    let sql =
        "SELECT * REPLACE (normalized(artist) AS artist, normalized(label) AS label) FROM input";
    let catalog = cleaned_by("t.csv", text.as_bytes(), sql, |_| ()).unwrap();
    assert_eq!(catalog.warnings, [""; 0]);
    assert_eq!(catalog.classes["genre"], ["hiphop", "rock"]);
    let artists: Vec<_> = catalog.clips.iter().map(|clip| clip.artist_id).collect();
    assert!(artists[0] == artists[1] && artists[3] == artists[4] && artists[1] != artists[2]);
    assert_eq!(catalog.clips[0].split, catalog.clips[1].split);

    // Labels outside of the recipe's classes are compared with these, too.
    let listed = cleaned_by("t.csv", text.as_bytes(), "SELECT * FROM input", |recipe| {
        recipe.targets[0].classes = Some(vec!["Rock".into(), "Hip-Hop".into()]);
    });
    let warning = &listed.unwrap().warnings[0];
    assert!(
        warning.contains("`Hip Hop`, `Hip-Hop`, `hip-hop`, `hiphop`")
            && warning.ends_with(
                "makes each of them one, if the target's `classes` are normalized too: `rock` for `Rock`"
            ),
        "{warning}"
    );
}

/// Returns the SQL that a warning advises.
fn advised(warning: &str) -> String {
    let sql = warning.split("'''").nth(1);
    sql.unwrap_or_else(|| panic!("no SQL: {warning}"))
        .to_owned()
}

#[test]
fn advised_sql_of_spellings_runs_for_any_name_of_a_column() {
    for column in ["Genre", "my genre", "it's \"x\"", "order"] {
        let header = column.replace('"', "\"\"");
        let text = format!("clip_key,\"{header}\"\n1.wav,hip-hop\n2.wav,Hip Hop\n");
        let cleaned = |sql: &str| {
            let target = |recipe: &mut Recipe| recipe.targets[0].column = column.into();
            cleaned_by("t.csv", text.as_bytes(), sql, target).unwrap()
        };
        let sql = advised(&cleaned("SELECT * FROM input").warnings[0]);
        assert_eq!(cleaned(&sql).classes["genre"], ["hiphop"], "{sql}");
    }
}

#[test]
fn artists_of_several_ids_are_warned_about_and_can_be_merged() {
    let named = "3,Mia,Rock\n2,the  beatles ,Rock\n1,The Beatles,Rock\n4,\"Beatles, The\",Rock\n5,,Rock\n6,,Rock\n\
                 7,Mia,Rock\n3,Mia,Rock\n8,abc,Rock\n8,ABC,Rock\n";
    for prefix in ["", "a-"] {
        let rows = named.lines().zip(1..);
        let rows = rows.map(|(row, i)| format!("{i}.wav,{prefix}{row}\n"));
        let text = format!(
            "clip_key,artist_id,artist_name,label\n{}",
            rows.collect::<String>()
        );
        let cleaned = |sql| cleaned_by("t.csv", text.as_bytes(), sql, |_| ()).unwrap();
        let separate = cleaned("SELECT * FROM input");
        let [warning] = &separate.warnings[..] else {
            panic!("{:?}", separate.warnings);
        };
        assert!(
            warning.starts_with(
                "split.rule = \"artist\": 2 names have several spellings (case, spaces, hyphens, Unicode form) or ids, such \
                 as `Mia`, `The Beatles`, `the  beatles `: a cleaning step with sql"
            ),
            "{warning}"
        );

        let merged = cleaned(&advised(warning));
        assert_eq!(merged.warnings, [""; 0]);
        let ids: BTreeMap<_, _> = merged
            .clips
            .iter()
            .map(|clip| (&*clip.clip_key, clip.artist_id))
            .collect();
        let distinct: std::collections::BTreeSet<_> = ids.values().collect();
        assert_eq!((ids["2.wav"], ids["1.wav"]), (ids["3.wav"], ids["7.wav"]));
        assert_eq!(distinct.len(), 6, "{ids:?}");
    }
}

#[test]
fn normalized_names_differ_only_in_their_letters() {
    for (one, other) in [
        ("The Beatles", "the  beatles "),
        ("Bj\u{f6}rk", "BJO\u{308}RK"),
        ("\u{ff21}BBA", "Abba"),
        ("Sigur\u{a0}R\u{f3}s", "sigur r\u{f3}s"),
        ("Die Stra\u{df}e", "DIE STRASSE"),
        ("hip-hop", "Hip Hop"),
        ("hip_hop", "hiphop"),
        ("lo\u{2011}fi", "lo-fi"),
    ] {
        assert_eq!(spelling::normalized(one), spelling::normalized(other));
    }
    for (one, other) in [
        ("-1", "1"),
        ("1-2", "12"),
        ("C#", "C"),
        ("1.5", "15"),
        ("AC/DC", "ACDC"),
    ] {
        assert_ne!(spelling::normalized(one), spelling::normalized(other));
    }
}
