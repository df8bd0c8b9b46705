//! The catalogue of artists, albums and tracks, including their faults, before anything is rendered. It is a pure
//! function of the options.

use std::iter::repeat_n;

use crate::encode::{ENCODINGS, Encoding};
use crate::genres::{GENRES, Genre};
use crate::names;
use crate::rng::Rng;
use crate::styles::PlayingStyle;

/// Number of artists per genre: six for training, one for validation, one for test.
const ARTISTS_PER_GENRE: usize = 8;

/// Number of tracks of the first genre divided by that of the last one, at difficulty 1.
const IMBALANCE: f32 = 6.0;

/// Fraction of the labelled tracks with an intact clip that have a wrong label, at difficulty 1.
const WRONG_LABELS: f32 = 0.25;

/// Subsets of labelled tracks. FMA's small and medium subsets contain only labelled tracks.
const SUBSETS: [&str; 4] = ["small", "small", "medium", "large"];

/// Options that determine the data set.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Options {
    /// Number of labelled tracks with an intact clip; about 5 % unlabelled and 15 faulty ones are added
    #[arg(long, default_value_t = 320)]
    pub tracks: usize,
    /// Random seed; equal seeds give equal bytes
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Length of a clip in seconds, 2 to 60
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f32,
    /// Difficulty of learning the genres, 0 to 1. At 1, a second genre is up to 80 % as loud as the track's own, noise
    /// is up to 10 dB below the music, the first genre has about six times as many tracks as the last one, and then a
    /// quarter of the labels is replaced by the second genre
    #[arg(long, default_value_t = 0.0)]
    pub difficulty: f32,
}

/// An artist, who plays one genre and whose tracks are all in the same official split.
pub(crate) struct Artist {
    /// Column `artist.id`.
    pub id: u32,
    /// Column `artist.name`.
    pub name: String,
    /// Column `artist.bio`, in HTML.
    pub bio: String,
    /// Genre of all tracks of the artist.
    pub genre: &'static Genre,
    /// Playing style of the artist.
    pub style: PlayingStyle,
    /// Column `set.split`: training, validation or test.
    pub split: &'static str,
    /// Column `album.title`: the title of the artist's only album.
    pub album_title: String,
    /// Column `album.id` of this album; -1 is FMA's "none".
    pub album_id: i64,
}

/// Content of a track's file in the audio folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clip {
    /// An intact MP3.
    Whole,
    /// The audio of the first track with another tag.
    Duplicate,
    /// An intact MP3 of digital silence.
    Silence,
    /// An intact MP3 of 0.4 s.
    Short,
    /// The file is missing.
    Missing,
    /// Truncated within a frame after 60 %; most of the audio is usable.
    Truncated,
    /// Truncated after half a second, which leaves too little audio.
    TruncatedEarly,
    /// A twelfth of the audio is overwritten.
    Damaged,
    /// Only the tag and the Info frame, without audio.
    TagOnly,
    /// An empty file.
    Empty,
    /// Random bytes.
    Garbage,
    /// A web page with the name of an MP3.
    Text,
}

/// Format of a track's line in `tracks.csv`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A valid line: 53 fields in UTF-8.
    Good,
    /// A line without its last fields.
    TooFewFields,
    /// A line with one field too many.
    TooManyFields,
    /// A line with a title in Windows-1252 instead of UTF-8.
    NotUtf8,
}

/// One row of `tracks.csv` and the track's audio file.
pub(crate) struct Track {
    /// Column `track_id`.
    pub id: u32,
    /// Index of the artist in [`Catalog::artists`].
    pub artist: usize,
    /// Column `track.number`.
    pub number: usize,
    /// Column `track.title`.
    pub title: String,
    /// Second genre: about as loud as the artist's genre in an unlabelled track. In a labelled track, it is quiet,
    /// unless the data set is difficult.
    pub guest: &'static Genre,
    /// True if the track has a `genre_top`. Otherwise its two genres are about equally loud, and the column `genres`
    /// contains the roots of both.
    pub labelled: bool,
    /// True if the guest genre is given as the track's genre.
    pub mislabelled: bool,
    /// Column `track.genres`.
    pub genres: Vec<u32>,
    /// Column `set.subset`.
    pub subset: &'static str,
    /// Encoder settings of the track's audio clip.
    pub encoding: &'static Encoding,
    /// Content of the track's audio file.
    pub clip: Clip,
    /// Format of the track's line in `tracks.csv`.
    pub line: Line,
}

/// The complete catalogue.
pub(crate) struct Catalog {
    /// All artists of the data set.
    pub artists: Vec<Artist>,
    /// All tracks of the data set, sorted by id.
    pub tracks: Vec<Track>,
}

impl Catalog {
    /// Draws the catalogue of artists and tracks for a seed.
    pub(crate) fn draw(options: &Options) -> Self {
        let n_artists = GENRES.played.len() * ARTISTS_PER_GENRE;
        let artists: Vec<Artist> = (0..n_artists).map(|i| artist(options.seed, i)).collect();

        let mut rng = Rng::keyed(options.seed, &[1]);
        let mut requests = requests(options);
        // Fisher–Yates shuffle that keeps the first track, which is the original of the duplicate.
        for i in (2..requests.len()).rev() {
            requests.swap(i, 1 + rng.below(i));
        }

        let mut tracks = Vec::with_capacity(requests.len());
        let mut id = 1;
        for (number, request) in requests.iter().enumerate() {
            // Leave gaps between the ids, as in FMA.
            id += 1 + rng.below(400) as u32;
            tracks.push(track(id, number, *request, &artists, &mut rng));
        }
        Self { artists, tracks }
    }
}

/// Requested properties of a track, from which the track is drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TrackRequest {
    genre: usize,
    artist: usize,
    labelled: bool,
    mislabelled: bool,
    clip: Clip,
    line: Line,
}

/// Kinds of clips in the order of the summary, with their names in the summary, and the number of tracks that is added
/// to every data set regardless of its size.
pub(crate) const CLIPS: [(Clip, &str, usize); 12] = [
    (Clip::Whole, "whole", 0),
    (Clip::Duplicate, "duplicate", 1),
    (Clip::Silence, "silence", 1),
    (Clip::Short, "short", 1),
    (Clip::Missing, "missing", 2),
    (Clip::Truncated, "truncated", 1),
    (Clip::TruncatedEarly, "truncated_early", 1),
    (Clip::Damaged, "damaged", 1),
    (Clip::TagOnly, "tag_only", 1),
    (Clip::Empty, "empty", 1),
    (Clip::Garbage, "garbage", 1),
    (Clip::Text, "text", 1),
];
const FAULTY_LINES: [Line; 3] = [Line::TooFewFields, Line::TooManyFields, Line::NotUtf8];

impl TrackRequest {
    /// Creates a labelled track with an intact clip. With increasing `i`, the genre changes first, then the artist.
    fn good(i: usize) -> Self {
        Self {
            genre: i % GENRES.played.len(),
            artist: i / GENRES.played.len() % ARTISTS_PER_GENRE,
            labelled: true,
            mislabelled: false,
            clip: Clip::Whole,
            line: Line::Good,
        }
    }
}

fn requests(options: &Options) -> Vec<TrackRequest> {
    let tracks = options.tracks;
    let mut requests = labelled_requests(options);

    // One track in twenty is unlabelled. Steps of 3, 7 and 11 spread unlabelled and faulty tracks over genres and
    // artists.
    for i in 0..tracks / 20 {
        requests.push(TrackRequest {
            labelled: false,
            ..TrackRequest::good(i * 3)
        });
    }
    let faulty_clips = CLIPS.iter().flat_map(|(clip, _, n)| repeat_n(*clip, *n));
    for (i, clip) in faulty_clips.enumerate() {
        requests.push(TrackRequest {
            clip,
            ..TrackRequest::good(i * 7)
        });
    }

    // A line that cannot be parsed has no clip, because its file would not belong to any row.
    for (i, line) in FAULTY_LINES.into_iter().enumerate() {
        requests.push(TrackRequest {
            clip: Clip::Missing,
            line,
            ..TrackRequest::good(i * 11)
        });
    }
    requests
}

/// Requests the labelled tracks with an intact clip. At difficulty 0, these are equal to [`TrackRequest::good`].
fn labelled_requests(options: &Options) -> Vec<TrackRequest> {
    let mut counts = vec![0; GENRES.played.len()];
    let mut requests = Vec::with_capacity(options.tracks);
    let mut may_be_wrong = Vec::new();

    for i in 0..options.tracks {
        let genre = next_genre(&counts, options.difficulty);
        let number = counts[genre];
        counts[genre] += 1;

        // An artist's first track keeps its label, so that every genre occurs in every split.
        if number >= ARTISTS_PER_GENRE {
            may_be_wrong.push(i);
        }
        requests.push(TrackRequest {
            genre,
            artist: number % ARTISTS_PER_GENRE,
            ..TrackRequest::good(i)
        });
    }

    let wrong = (WRONG_LABELS * options.difficulty * options.tracks as f32).round() as usize;
    let mut rng = Rng::keyed(options.seed, &[10]);
    for _ in 0..wrong.min(may_be_wrong.len()) {
        let i = may_be_wrong.swap_remove(rng.below(may_be_wrong.len()));
        requests[i].mislabelled = true;
    }
    requests
}

/// Returns the genre that is the furthest below its share of the tracks (D'Hondt's method). The shares fall
/// geometrically from the first genre to the last one.
fn next_genre(counts: &[usize], difficulty: f32) -> usize {
    let last = (counts.len() - 1) as f32;
    let mut next = 0;
    let mut lowest = f32::INFINITY;

    for (genre, count) in counts.iter().enumerate() {
        let inverse_share = IMBALANCE.powf(difficulty * genre as f32 / last);
        let filled = (count + 1) as f32 * inverse_share;
        if filled < lowest {
            next = genre;
            lowest = filled;
        }
    }
    next
}

fn artist(seed: u64, index: usize) -> Artist {
    let mut rng = Rng::keyed(seed, &[2, index as u64]);
    let name = names::artist(index);

    // Each group of ten artists plays all ten genres: the second group is for validation, the third one for the test.
    let split = match index / GENRES.played.len() {
        1 => "validation",
        2 => "test",
        _ => "training",
    };

    // The order of the fields is the order of the draws: changing it would change the data set.
    Artist {
        id: 10 + 3 * index as u32,
        bio: names::bio(&name, &mut rng),
        name,
        genre: &GENRES.played[index % GENRES.played.len()],
        style: PlayingStyle::draw(&mut rng),
        split,
        album_title: names::title(&mut rng),
        album_id: if rng.chance(0.05) {
            -1
        } else {
            500 + 2 * index as i64
        },
    }
}

fn track(
    id: u32,
    number: usize,
    request: TrackRequest,
    artists: &[Artist],
    rng: &mut Rng,
) -> Track {
    let played = &GENRES.played;
    let artist = request.artist * played.len() + request.genre;
    let genre = artists[artist].genre;
    // Draw any genre except for the artist's own.
    let guest = &played[(request.genre + 1 + rng.below(played.len() - 1)) % played.len()];

    let children = genre.children();
    let mut genres = if children.is_empty() || rng.chance(0.4) {
        vec![genre.id]
    } else {
        vec![*rng.pick(&children)]
    };
    if !request.labelled {
        genres.push(guest.id);
    }
    if request.mislabelled {
        genres = vec![guest.id];
    }

    Track {
        id,
        artist,
        number: 1 + number % 12,
        title: names::title(rng),
        guest,
        labelled: request.labelled,
        mislabelled: request.mislabelled,
        genres,
        subset: if request.labelled {
            SUBSETS[rng.below(SUBSETS.len())]
        } else {
            "large"
        },
        encoding: rng.pick(&ENCODINGS),
        clip: request.clip,
        line: request.line,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{
        ARTISTS_PER_GENRE, Catalog, Clip, Line, Options, Track, TrackRequest, labelled_requests,
    };
    use crate::genres::GENRES;

    const OPTIONS: Options = Options {
        seed: 1,
        tracks: 320,
        seconds: 10.0,
        difficulty: 0.0,
    };
    const DIFFICULT: Options = Options {
        difficulty: 1.0,
        ..OPTIONS
    };

    #[test]
    fn every_genre_has_tracks_of_eight_artists_and_no_artist_crosses_the_split() {
        let catalog = Catalog::draw(&OPTIONS);
        assert!(
            catalog.artists.iter().any(|a| a.split == "test")
                && catalog.artists.iter().any(|a| a.split == "validation")
        );

        for genre in &GENRES.played {
            let artists = catalog
                .tracks
                .iter()
                .map(|t| t.artist)
                .filter(|a| catalog.artists[*a].genre.id == genre.id);
            assert_eq!(artists.collect::<BTreeSet<_>>().len(), ARTISTS_PER_GENRE);
        }
    }

    #[test]
    fn ids_ascend_and_the_duplicated_track_is_undamaged() {
        let catalog = Catalog::draw(&OPTIONS);
        assert!(
            catalog
                .tracks
                .windows(2)
                .all(|pair| pair[0].id < pair[1].id)
        );
        assert_eq!(catalog.tracks[0].clip, Clip::Whole);
        assert!(catalog.tracks.iter().all(|t| t.id < 1_000_000));
    }

    #[test]
    fn an_unlabelled_track_has_two_roots() {
        let catalog = Catalog::draw(&OPTIONS);
        let unlabelled: Vec<_> = catalog.tracks.iter().filter(|t| !t.labelled).collect();
        assert_eq!(unlabelled.len(), 16);
        assert!(
            unlabelled
                .iter()
                .all(|t| t.genres.len() == 2 && t.guest.id != catalog.artists[t.artist].genre.id)
        );
    }
    #[test]
    fn difficulty_0_requests_balanced_genres_with_right_labels() {
        let balanced: Vec<_> = (0..OPTIONS.tracks).map(TrackRequest::good).collect();
        assert_eq!(labelled_requests(&OPTIONS), balanced);
    }

    #[test]
    fn difficulty_1_has_unequal_genres_and_a_quarter_of_wrong_labels() {
        let catalog = Catalog::draw(&DIFFICULT);
        let intact = intact(&catalog);
        assert_eq!(intact.len(), 320);

        let wrong: Vec<_> = intact.iter().filter(|t| t.mislabelled).collect();
        assert_eq!(wrong.len(), 80);
        for track in wrong {
            assert_ne!(track.guest.id, catalog.artists[track.artist].genre.id);
            assert_eq!(track.genres, [track.guest.id]);
        }

        let count = |id| {
            intact
                .iter()
                .filter(|t| catalog.artists[t.artist].genre.id == id)
                .count()
        };
        let counts: Vec<_> = GENRES.played.iter().map(|genre| count(genre.id)).collect();
        assert!(counts.is_sorted_by(|a, b| a >= b), "{counts:?}");
        let ratio = counts[0] as f32 / counts[9] as f32;
        assert!((5.5..7.0).contains(&ratio), "{counts:?}");
    }

    #[test]
    fn difficulty_1_keeps_right_labels_of_every_artist() {
        let catalog = Catalog::draw(&DIFFICULT);
        let right = intact(&catalog).into_iter().filter(|t| !t.mislabelled);
        let artists: BTreeSet<_> = right.map(|t| t.artist).collect();
        assert_eq!(artists.len(), GENRES.played.len() * ARTISTS_PER_GENRE);
    }

    /// Returns the labelled tracks with an intact clip and a valid line.
    fn intact(catalog: &Catalog) -> Vec<&Track> {
        let tracks = catalog.tracks.iter();
        tracks
            .filter(|t| t.labelled && t.clip == Clip::Whole && t.line == Line::Good)
            .collect()
    }
}
