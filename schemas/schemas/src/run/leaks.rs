//! Leakage between the training split and a tested split, as stored with the scores of that split, and its summary.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recipe::{Dataset, SplitRule};
use crate::split::Split;

/// The leakage by one kind of id: track, recording, near copy, artist or album.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leak {
    /// Number of test tracks whose id of this kind also occurs in training.
    pub tracks: u64,
    /// Share of the test tracks whose id also occurs in training, 0 to 1.
    pub share: f64,
    /// Number of test tracks whose id of this kind is known.
    pub known: u64,
}

/// The training tracks that a test split is compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComparedWith {
    /// The training tracks of the same version of the store.
    #[default]
    Training,
    /// The tracks that a run was trained on, from another version of the store.
    Run,
    /// No tracks: the run was trained on another version of the store, and its list of tracks is unavailable.
    Nothing,
}

/// Reports whether a value is the default, which results omit for compatibility.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The word for a clip of a data set, in tables and pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Noun {
    /// A track of FMA.
    #[default]
    Track,
    /// An audio file of any other data set.
    Clip,
    /// A picture.
    Picture,
}

impl Noun {
    /// Returns the word for the clips of a data set.
    pub const fn of(dataset: Dataset) -> Self {
        match dataset {
            Dataset::Fma => Self::Track,
            _ if dataset.is_of_pictures() => Self::Picture,
            _ => Self::Clip,
        }
    }

    /// Returns the word for one clip.
    pub const fn one(self) -> &'static str {
        match self {
            Self::Track => "track",
            Self::Clip => "clip",
            Self::Picture => "picture",
        }
    }

    /// Returns the word for several clips.
    pub const fn many(self) -> &'static str {
        match self {
            Self::Track => "tracks",
            Self::Clip => "clips",
            Self::Picture => "pictures",
        }
    }

    /// Replaces the word for tracks in a fixed text, which contains no names from the data.
    pub fn in_text(self, text: &str) -> String {
        text.replace(Self::Track.one(), self.one())
    }
}

/// The leakage from the training split to a test or validation split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Leaks {
    /// The rule by which tracks were assigned to splits.
    pub rule: SplitRule,
    /// The promise of the split rule, as text.
    pub promise: String,
    /// The word for a clip of the data set.
    #[serde(default, skip_serializing_if = "is_default")]
    pub noun: Noun,
    /// The tested split: `test` or `validation`.
    pub split: Split,
    /// Number of tracks in the tested split.
    pub tracks: u64,
    /// Number of training tracks that the tested split is compared with.
    pub training_tracks: u64,
    /// The origin of the training tracks that the tested split is compared with.
    #[serde(default, skip_serializing_if = "is_default")]
    pub compared_with: ComparedWith,
    /// Leakage by `track`, `recording`, `artist`, `album`, and by `near_copy` if the store has near copies. A run's
    /// list of tracks has no albums and no near copies.
    pub shared: BTreeMap<String, Leak>,
}

/// The kinds of leakage, the worst first: the name, and the text that completes "… is in training".
const KINDS: [(&str, &str); 5] = [
    ("track", "are also in training"),
    ("recording", "have the same recording in training"),
    ("near_copy", "have a near copy in training"),
    ("artist", "share an artist with training"),
    ("album", "share an album with training"),
];

impl Leaks {
    /// Sets the word for a clip of the data set.
    #[must_use]
    pub fn with_noun(self, noun: Noun) -> Self {
        Self {
            promise: noun.in_text(&self.promise),
            noun,
            ..self
        }
    }

    /// Returns the warning to print before the scores of a split that shares ids with the training tracks of `run`,
    /// such as `this run`. The warning has the numbers of shared tracks, recordings and artists. Returns `None` if
    /// there are none, or if the split was not compared with a run.
    pub fn warning(&self, run: &str) -> Option<String> {
        let tracks = self.tracks_that_share("track");
        let recordings = self.tracks_that_share("recording");
        let artists = self.tracks_that_share("artist");
        if self.compared_with != ComparedWith::Run || tracks + recordings + artists == 0 {
            return None;
        }
        Some(format!(
            "of {} {} {noun}, {tracks} are {noun}, {recordings} are recordings and {artists} are by artists that {run} \
             trained on",
            self.tracks,
            self.split,
            noun = self.noun.many()
        ))
    }

    fn tracks_that_share(&self, kind: &str) -> u64 {
        self.shared.get(kind).map_or(0, |leak| leak.tracks)
    }

    /// Returns a summary of the leakage in one sentence.
    pub fn sentence(&self) -> String {
        let mut found = Vec::new();
        let mut unknown = Vec::new();
        for (kind, message) in KINDS {
            let Some(leak) = self.shared.get(kind) else {
                continue;
            };
            if leak.tracks > 0 {
                let percent = 100.0 * leak.share;
                found.push(format!("{} ({percent:.1} %) {message}", leak.tracks));
            }
            if leak.known == 0 {
                unknown.push(kind);
            }
        }

        let found = if self.compared_with == ComparedWith::Nothing {
            "it is unknown how many overlap with training: they are from another version than the run trained \
             on"
            .to_owned()
        } else if found.is_empty() {
            "none is known to overlap with training".to_owned()
        } else {
            found.join(", ")
        };
        let unknown = if unknown.is_empty() {
            String::new()
        } else {
            format!("; unknown: {}", unknown.join(", "))
        };
        let training = if self.compared_with == ComparedWith::Run {
            format!(
                ", by the {} {} that the run trained on",
                self.training_tracks,
                self.noun.many()
            )
        } else {
            String::new()
        };
        format!(
            "split `{}` ({}){training}: of {} {} {}, {found}{unknown}.",
            self.rule.name(),
            self.promise,
            self.tracks,
            self.split,
            self.noun.many()
        )
    }
}
