//! Writes `tracks.csv` and `genres.csv` in the format of FMA: three header lines over 52 columns, lists in Python
//! syntax.

use std::collections::BTreeSet;

use crate::csv;
use crate::genres::GENRES;
use crate::tracks::{Artist, Catalog, Line, Track};

/// The header lines of FMA's `tracks.csv`, as written by pandas: the names of two header levels, then the name of the
/// index.
const HEADER: &str = include_str!("../data/tracks_header.csv");

/// Properties of a clip that are known after encoding.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct EncodedClip {
    /// `track.bit_rate` in bits per second.
    pub bit_rate_bps: u32,
    /// `track.duration` in seconds.
    pub seconds: u32,
}

/// Returns `tracks.csv`; `encoded` has one entry per track. The result is bytes, because one row is not UTF-8.
pub(crate) fn tracks_csv(catalog: &Catalog, encoded: &[EncodedClip]) -> Vec<u8> {
    let mut table = HEADER.as_bytes().to_vec();
    for (track, encoded) in catalog.tracks.iter().zip(encoded) {
        table.extend_from_slice(&line(
            track,
            &fields(track, &catalog.artists[track.artist], *encoded),
        ));
    }
    table
}

/// Returns the record of a track, with the fault chosen by the catalogue.
fn line(track: &Track, fields: &[String]) -> Vec<u8> {
    match track.line {
        Line::Good => csv::record(fields).into_bytes(),
        Line::TooFewFields => csv::record(&fields[..40]).into_bytes(),
        Line::TooManyFields => {
            csv::record(fields.iter().map(String::as_str).chain(["stray"])).into_bytes()
        }
        Line::NotUtf8 => {
            let mut bytes = csv::record(&fields[..fields.len() - 1]).into_bytes();
            // Replace the line feed at the end of the record by a last field that is not UTF-8.
            bytes.pop();
            bytes.extend_from_slice(b",Caf\xE9 noir\n"); // Windows-1252
            bytes
        }
    }
}

/// Returns the fields of a track's row in `tracks.csv`, in the order of the header.
fn fields(track: &Track, artist: &Artist, encoded: EncodedClip) -> Vec<String> {
    let mut lines = HEADER.lines();
    let groups = lines.next().unwrap_or_default().split(',');
    let names = lines.next().unwrap_or_default().split(',');

    let mut fields = Vec::new();
    for (group, name) in groups.zip(names) {
        fields.push(match group {
            "album" => album_value(name, artist),
            "artist" => artist_value(name, artist),
            _ => track_value(name, track, artist, encoded),
        });
    }
    fields
}

// Most fields are derived from ids by modulo instead of drawn, so that adding or removing a column does not change
// other columns. Some are empty in some rows, as in FMA, so that every kind of column contains nulls.
fn album_value(name: &str, artist: &Artist) -> String {
    match name {
        "comments" | "favorites" => "0".to_owned(),
        "date_created" => format!("2008-11-{:02} 01:44:45", 1 + artist.id % 28),
        "date_released" if artist.id.is_multiple_of(2) => {
            format!("{}-01-05 00:00:00", 2000 + artist.id % 9)
        }
        "id" => artist.album_id.to_string(),
        "information" if artist.id.is_multiple_of(4) => "<p></p>".to_owned(),
        "listens" => (artist.id * 37).to_string(),
        "tags" => "[]".to_owned(),
        "title" => artist.album_title.clone(),
        "tracks" => "12".to_owned(),
        "type" => "Album".to_owned(),
        _ => String::new(),
    }
}

fn artist_value(name: &str, artist: &Artist) -> String {
    let has_place = artist.id.is_multiple_of(5);

    match name {
        "active_year_begin" if has_place => "2006-01-01 00:00:00".to_owned(),
        "bio" => artist.bio.clone(),
        "comments" => "0".to_owned(),
        "date_created" => format!("2008-11-{:02} 01:42:32", 1 + artist.id % 28),
        "favorites" => (artist.id % 13).to_string(),
        "id" => artist.id.to_string(),
        "latitude" if has_place => "40.0583238".to_owned(),
        "location" if has_place => "Nowhere, São Synth".to_owned(),
        "longitude" if has_place => "-74.4056612".to_owned(),
        // Line feeds and quotes within a field, which break readers that split at line ends.
        "members" if artist.id.is_multiple_of(7) => {
            "An oscillator,\nan envelope\nand \"the filter\"".to_owned()
        }
        "name" => artist.name.clone(),
        "tags" => format!("['synthetic', '{}']", artist.genre.title.to_lowercase()),
        "website" => format!("http://example.org/{}", artist.id),
        _ => String::new(),
    }
}

fn track_value(name: &str, track: &Track, artist: &Artist, encoded: EncodedClip) -> String {
    match name {
        "" => track.id.to_string(),
        "split" => artist.split.to_owned(),
        "subset" => track.subset.to_owned(),
        "bit_rate" => encoded.bit_rate_bps.to_string(),
        "comments" => "0".to_owned(),
        "date_created" => format!("2008-11-26 01:{:02}:12", track.id % 60),
        "date_recorded" if track.id.is_multiple_of(3) => "2008-11-26 00:00:00".to_owned(),
        "duration" => encoded.seconds.to_string(),
        "favorites" => (track.id % 23).to_string(),
        "genre_top" if track.mislabelled => track.guest.title.clone(),
        "genre_top" if track.labelled => artist.genre.title.clone(),
        // The `Debug` output of a list of numbers is the same as in Python.
        "genres" => format!("{:?}", track.genres),
        "genres_all" => format!("{:?}", with_ancestors(&track.genres)),
        "interest" => (track.id % 9000).to_string(),
        "language_code" => "en".to_owned(),
        "license" => "CC0 1.0 Universal".to_owned(),
        "listens" => (track.id % 7000).to_string(),
        "number" => track.number.to_string(),
        "tags" if track.id.is_multiple_of(4) => "['synthetic']".to_owned(),
        "tags" => "[]".to_owned(),
        "title" => track.title.clone(),
        _ => String::new(),
    }
}

/// Returns the genres and their root genres, sorted by id and without duplicates.
fn with_ancestors(genres: &[u32]) -> Vec<u32> {
    let mut all: BTreeSet<u32> = genres.iter().copied().collect();
    for node in &GENRES.tree {
        if genres.contains(&node.id) {
            all.insert(node.top_level());
        }
    }
    all.into_iter().collect()
}

/// Returns `genres.csv`; `#tracks` is the number of tracks in the catalogue.
pub(crate) fn genres_csv(catalog: &Catalog) -> String {
    let mut table = csv::record(["genre_id", "#tracks", "parent", "title", "top_level"]);
    for node in &GENRES.tree {
        let tracks = catalog
            .tracks
            .iter()
            .filter(|track| with_ancestors(&track.genres).contains(&node.id))
            .count();
        table += &csv::record([
            node.id.to_string(),
            tracks.to_string(),
            node.parent.to_string(),
            node.title.clone(),
            node.top_level().to_string(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::{EncodedClip, HEADER, fields, line, with_ancestors};
    use crate::tracks::{Catalog, Line, Options};

    #[test]
    fn header_matches_fma() {
        let lines: Vec<&str> = HEADER.lines().collect();

        assert_eq!(
            lines
                .iter()
                .map(|line| line.split(',').count())
                .collect::<Vec<_>>(),
            [53, 53, 53]
        );
        assert!(
            lines[0].starts_with(",album,album")
                && lines[1].starts_with(",comments,")
                && lines[2].starts_with("track_id,")
        );
    }

    #[test]
    fn every_kind_of_faulty_line_is_generated() {
        let catalog = Catalog::draw(&Options {
            seed: 1,
            tracks: 100,
            seconds: 10.0,
            difficulty: 0.0,
        });

        for track in &catalog.tracks {
            let fields = fields(
                track,
                &catalog.artists[track.artist],
                EncodedClip::default(),
            );
            assert_eq!(fields.len(), 53);

            let utf8 = std::str::from_utf8(&line(track, &fields)).is_ok();
            assert_eq!(utf8, track.line != Line::NotUtf8, "track {}", track.id);
        }
    }

    #[test]
    fn ancestors_are_added_once() {
        assert_eq!(with_ancestors(&[297, 12]), [12, 15, 297]);
        assert_eq!(with_ancestors(&[12]), [12]);
    }
}
