//! The plan of the catalogue: artists, albums, tracks, and what is wrong with some of them. Pure: a seed gives one plan.

use crate::encode::{ENCODINGS, Encoding};
use crate::genres::{Genre, PLAYED};
use crate::names;
use crate::rng::Rng;
use crate::styles::Manner;

/// Artists a genre: six train, one validates, one tests.
const ARTISTS_PER_GENRE: usize = 8;

/// Subsets of labelled tracks; FMA's small and medium hold labelled tracks alone.
const SUBSETS: [&str; 4] = ["small", "small", "medium", "large"];

/// What decides the data set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Labelled tracks with a whole clip; the faulty ones come on top.
    pub tracks: usize,
    /// Length of a clip, seconds.
    pub seconds: f32,
}

/// One artist, who plays one genre and is on one side of the official split.
pub struct Artist {
    /// `artist.id`.
    pub id: u32,
    /// `artist.name`.
    pub name: String,
    /// `artist.bio`, HTML.
    pub bio: String,
    /// What they play.
    pub genre: Genre,
    /// How they play it.
    pub manner: Manner,
    /// `set.split`.
    pub split: &'static str,
    /// `album.title`, of their only album.
    pub album_title: String,
    /// `album.id`; -1 is FMA's "none".
    pub album_id: i64,
}

/// What lies at a track's place in the audio folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// A good MP3.
    Whole,
    /// The audio of the plan's first track, under another tag.
    Duplicate,
    /// A good MP3 of digital silence.
    Silence,
    /// A good MP3 of 0.4 s.
    Short,
    /// No file.
    Missing,
    /// Cut in a frame after 60 %: most of it can be used.
    Truncated,
    /// Cut after half a second: too little is left.
    TruncatedEarly,
    /// A twelfth of it overwritten.
    Damaged,
    /// Tag and Info frame, no audio.
    TagOnly,
    /// No byte.
    Empty,
    /// Bytes without meaning.
    Garbage,
    /// A web page under the name of an MP3.
    Text,
}

/// How a track's line in `tracks.csv` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// 53 fields of UTF-8.
    Good,
    /// The last fields are missing.
    TooFewFields,
    /// A comma too many.
    TooManyFields,
    /// A title in Windows-1252.
    NotUtf8,
}

/// One row of `tracks.csv` and its file.
pub struct Track {
    /// `track_id`.
    pub id: u32,
    /// Index into [`Plan::artists`].
    pub artist: usize,
    /// `track.number`.
    pub number: usize,
    /// `track.title`.
    pub title: String,
    /// A second genre: a quiet guest, or the other half of an unlabelled track.
    pub guest: Genre,
    /// Has a `genre_top`. Without one the guest is as loud as the artist, and both roots are in `genres`.
    pub labelled: bool,
    /// `track.genres`.
    pub genres: Vec<u32>,
    /// `set.subset`.
    pub subset: &'static str,
    /// How its clip is encoded.
    pub encoding: &'static Encoding,
    /// What lies in the file.
    pub clip: Clip,
    /// What stands in the table.
    pub line: Line,
}

/// The whole catalogue.
pub struct Plan {
    /// All artists.
    pub artists: Vec<Artist>,
    /// All tracks by id.
    pub tracks: Vec<Track>,
}

/// What is asked of one track before it has an id.
#[derive(Clone, Copy)]
struct Wish {
    genre: usize,
    artist: usize,
    labelled: bool,
    clip: Clip,
    line: Line,
}

/// Draws the catalogue.
pub fn plan(options: &Options) -> Plan {
    let artists: Vec<Artist> = (0..PLAYED.len() * ARTISTS_PER_GENRE).map(|i| artist(options.seed, i)).collect();
    let mut rng = Rng::keyed(options.seed, &[1]);
    let mut wishes = wishes(options.tracks);
    for i in (2..wishes.len()).rev() {
        wishes.swap(i, 1 + rng.below(i)); // the first stays first: the duplicate is of it
    }
    let mut id = 1;
    let mut track = |(number, wish): (usize, &Wish)| {
        id += 1 + rng.below(400) as u32;
        draw(id, number, *wish, &artists, &mut rng)
    };
    let tracks = wishes.iter().enumerate().map(&mut track).collect();
    Plan { artists, tracks }
}

fn wishes(tracks: usize) -> Vec<Wish> {
    use Clip::{
        Damaged, Duplicate, Empty, Garbage, Missing, Short, Silence, TagOnly, Text, Truncated, TruncatedEarly, Whole,
    };
    let wish = |i: usize, labelled: bool, clip: Clip, line: Line| Wish {
        genre: i % PLAYED.len(),
        artist: i / PLAYED.len() % ARTISTS_PER_GENRE,
        labelled,
        clip,
        line,
    };
    let good = (0..tracks).map(|i| wish(i, true, Whole, Line::Good));
    let multi_root = (0..tracks / 20).map(|i| wish(i * 3, false, Whole, Line::Good));
    let faults = [
        Duplicate,
        Silence,
        Short,
        Missing,
        Missing,
        Truncated,
        TruncatedEarly,
        Damaged,
        TagOnly,
        Empty,
        Garbage,
        Text,
    ];
    let faulty_clips = faults.into_iter().enumerate().map(|(i, clip)| wish(i * 7, true, clip, Line::Good));
    let faulty_lines = [Line::TooFewFields, Line::TooManyFields, Line::NotUtf8];
    let faulty_lines = faulty_lines.into_iter().enumerate().map(|(i, line)| wish(i * 11, true, Missing, line));
    good.chain(multi_root).chain(faulty_clips).chain(faulty_lines).collect()
}

fn artist(seed: u64, index: usize) -> Artist {
    let mut rng = Rng::keyed(seed, &[2, index as u64]);
    let name = names::artist(index);
    let split = match index / PLAYED.len() {
        1 => "validation",
        2 => "test",
        _ => "training",
    };
    Artist {
        id: 10 + 3 * index as u32,
        bio: names::bio(&name, &mut rng),
        name,
        genre: PLAYED[index % PLAYED.len()],
        manner: Manner::draw(&mut rng),
        split,
        album_title: names::title(&mut rng),
        album_id: if rng.chance(0.05) { -1 } else { 500 + 2 * index as i64 },
    }
}

fn draw(id: u32, number: usize, wish: Wish, artists: &[Artist], rng: &mut Rng) -> Track {
    let artist = wish.artist * PLAYED.len() + wish.genre;
    let genre = artists[artist].genre;
    let guest = PLAYED[(wish.genre + 1 + rng.below(PLAYED.len() - 1)) % PLAYED.len()];
    let children = genre.children();
    let mut genres = if children.is_empty() || rng.chance(0.4) { vec![genre.id()] } else { vec![*rng.pick(&children)] };
    if !wish.labelled {
        genres.push(guest.id());
    }
    Track {
        id,
        artist,
        number: 1 + number % 12,
        title: names::title(rng),
        guest,
        labelled: wish.labelled,
        genres,
        subset: if wish.labelled { SUBSETS[rng.below(SUBSETS.len())] } else { "large" },
        encoding: rng.pick(&ENCODINGS),
        clip: wish.clip,
        line: wish.line,
    }
}

#[cfg(test)]
mod tests {
    use super::{ARTISTS_PER_GENRE, Clip, Options, plan};
    use crate::genres::PLAYED;

    const OPTIONS: Options = Options { seed: 1, tracks: 320, seconds: 10.0 };

    #[test]
    fn every_genre_has_tracks_of_eight_artists_and_no_artist_crosses_the_split() {
        let plan = plan(&OPTIONS);
        assert!(plan.artists.iter().any(|a| a.split == "test") && plan.artists.iter().any(|a| a.split == "validation"));
        for genre in PLAYED {
            let artists = plan.tracks.iter().map(|t| t.artist).filter(|a| plan.artists[*a].genre == genre);
            assert_eq!(artists.collect::<std::collections::BTreeSet<_>>().len(), ARTISTS_PER_GENRE);
        }
    }

    #[test]
    fn ids_rise_and_the_first_track_is_whole_for_the_duplicate() {
        let plan = plan(&OPTIONS);
        assert!(plan.tracks.windows(2).all(|pair| pair[0].id < pair[1].id));
        assert_eq!(plan.tracks[0].clip, Clip::Whole);
        assert!(plan.tracks.iter().all(|t| t.id < 1_000_000));
    }

    #[test]
    fn an_unlabelled_track_has_two_roots() {
        let plan = plan(&OPTIONS);
        let unlabelled: Vec<_> = plan.tracks.iter().filter(|t| !t.labelled).collect();
        assert_eq!(unlabelled.len(), 16);
        assert!(unlabelled.iter().all(|t| t.genres.len() == 2 && t.guest != plan.artists[t.artist].genre));
    }
}
