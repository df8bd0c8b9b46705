//! Leakage between training and test (tracks, recordings, artists or albums in both splits), counted on the rows that
//! were used.
//!
//! A split rule may not keep its promise for the data; an official split may contain the same recording under two ids.
//! So track, recording, artist and album of each test track are looked up among the training rows. Leakage is unknown
//! for missing ids.
//!
//! The training tracks are those of the tested version of the store. A run that was trained on another version has seen
//! other tracks, so its test tracks are compared with the list of the tracks that it was trained on.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use wavemill_schemas::recipe::SplitRule;
use wavemill_schemas::run::{ComparedWith, Leak, Leaks, Noun};
use wavemill_schemas::split::Split;

/// A row of the training or the test split with the ids through which it can leak. Rows of the same track count once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// The id of the row's track.
    pub track_id: i64,
    /// The id of the row's artist.
    pub artist_id: Option<i64>,
    /// The id of the row's album.
    pub album_id: Option<i64>,
    /// The hash of the row's recording.
    pub audio_blake3: Option<&'a str>,
    /// The group of near copies of the row's recording; `None` if it has none, or if they are unknown.
    pub near_group: Option<&'a str>,
}

/// Returns the promise of a split rule as text, with the number of known artists if some artists are unknown.
fn promise(rule: SplitRule, training: &[Member<'_>], test: &[Member<'_>]) -> String {
    let all = training.iter().chain(test);
    let artists = all.filter(|member| member.artist_id.is_some()).count();
    let tracks = training.len() + test.len();
    match rule {
        SplitRule::Artist if artists == 0 && tracks > 0 => {
            "no artist is known: tracks were split one by one".to_owned()
        }
        SplitRule::Artist if artists < tracks => {
            format!(
                "{artists} of {tracks} tracks have a known artist, none of whom is in two splits; the others were split one by one"
            )
        }
        _ => describe_rule(rule).to_owned(),
    }
}

/// Returns the promise of a split rule as text, if all artists are known.
const fn describe_rule(rule: SplitRule) -> &'static str {
    match rule {
        SplitRule::Official => "the data set's own splits",
        SplitRule::Stratified => {
            "tracks drawn class by class: one artist or album is in several splits, which flatters scores"
        }
        SplitRule::Artist => "no artist is in two splits",
        SplitRule::Column => "splits as a column of the metadata says",
        SplitRule::Segment => {
            "segments of one track are in several splits: scores say nothing about new music"
        }
        SplitRule::SegmentStretched => {
            "segments of one track and their stretched copies are in several splits: scores say nothing about new music"
        }
    }
}

/// Counts the ids that the split `test`, called `split`, shares with `training`.
pub fn count_leaks<'a>(
    rule: SplitRule,
    split: Split,
    training: impl IntoIterator<Item = Member<'a>>,
    test: impl IntoIterator<Item = Member<'a>>,
) -> Leaks {
    // Count one row per track, since all segments of a track leak together.
    let training = tracks(training);
    let test = tracks(test);
    let mut counts = shared_with(&training, &test);
    let albums = shared(&training, &test, |member| member.album_id);
    counts.insert("album".to_owned(), albums);
    let mut members = training.iter().chain(&test);
    if members.any(|member| member.near_group.is_some()) {
        let copies = shared(&training, &test, |member| member.near_group);
        // Tracks without near copies are known to have none.
        let known = test.len() as u64;
        counts.insert("near_copy".to_owned(), Leak { known, ..copies });
    }

    Leaks {
        rule,
        promise: promise(rule, &training, &test),
        noun: Noun::Track,
        split: split.to_owned(),
        tracks: test.len() as u64,
        training_tracks: training.len() as u64,
        compared_with: ComparedWith::Training,
        shared: counts,
    }
}

/// Compares the split `test` with the tracks that a run was trained on, which are from another version of the store.
/// `trained` is `None` if those tracks are unknown. Their albums are always unknown.
pub fn compare_with_run<'a>(
    leaks: Leaks,
    trained: Option<&[Member<'a>]>,
    test: impl IntoIterator<Item = Member<'a>>,
) -> Leaks {
    let Some(trained) = trained else {
        return Leaks {
            training_tracks: 0,
            compared_with: ComparedWith::Nothing,
            shared: BTreeMap::new(),
            ..leaks
        };
    };

    // Keep all rows of the run's list: the run may have been trained on two recordings of one track, from different
    // versions.
    let test = tracks(test);
    let training_tracks: HashSet<i64> = trained.iter().map(|member| member.track_id).collect();
    Leaks {
        training_tracks: training_tracks.len() as u64,
        compared_with: ComparedWith::Run,
        shared: shared_with(trained, &test),
        ..leaks
    }
}

/// Counts the shared ids of the kinds that every list of training tracks has.
fn shared_with<'a>(training: &[Member<'a>], test: &[Member<'a>]) -> BTreeMap<String, Leak> {
    let tracks = shared(training, test, |member| Some(member.track_id));
    let recordings = shared(training, test, |member| member.audio_blake3);
    let artists = shared(training, test, |member| member.artist_id);
    let counts = [
        ("track", tracks),
        ("recording", recordings),
        ("artist", artists),
    ];
    BTreeMap::from(counts.map(|(kind, leak)| (kind.to_owned(), leak)))
}

/// Returns the first row of each track.
fn tracks<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Vec<Member<'a>> {
    let mut seen = HashSet::new();
    members
        .into_iter()
        .filter(|member| seen.insert(member.track_id))
        .collect()
}

/// Counts the tracks in `test` whose `id` also occurs in `training`.
fn shared<'a, T: Hash + Eq>(
    training: &[Member<'a>],
    test: &[Member<'a>],
    id: impl Fn(&Member<'a>) -> Option<T>,
) -> Leak {
    let there: HashSet<T> = training.iter().filter_map(&id).collect();
    let known: Vec<T> = test.iter().filter_map(&id).collect();
    let tracks = known.iter().filter(|id| there.contains(id)).count();

    // The share is of all tracks, including those with an unknown id, so it is a lower bound.
    let share = if test.is_empty() {
        0.0
    } else {
        tracks as f64 / test.len() as f64
    };
    Leak {
        tracks: tracks as u64,
        share,
        known: known.len() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(track_id: i64, artist: i64, album: Option<i64>, audio: &str) -> Member<'_> {
        Member {
            track_id,
            artist_id: Some(artist),
            album_id: album,
            audio_blake3: Some(audio),
            near_group: None,
        }
    }

    /// Returns the number of test tracks with a shared id and with a known id of this kind.
    fn count(leaks: &Leaks, kind: &str) -> (u64, u64) {
        (leaks.shared[kind].tracks, leaks.shared[kind].known)
    }

    fn counts<const N: usize>(leaks: &Leaks, kinds: [&str; N]) -> [(u64, u64); N] {
        kinds.map(|kind| count(leaks, kind))
    }

    #[test]
    fn each_kind_is_counted_over_tracks_and_not_over_rows() {
        let training = [
            member(1, 10, Some(100), "a"),
            member(1, 10, Some(100), "a"),
            member(2, 20, None, "b"),
        ];
        let test = [
            member(3, 10, Some(100), "c"),
            member(3, 10, Some(100), "c"),
            member(4, 10, Some(101), "b"),
            member(5, 30, None, "d"),
            member(2, 20, None, "b"),
        ];

        let leaks = count_leaks(SplitRule::Stratified, Split::Test, training, test);

        assert_eq!((leaks.tracks, leaks.training_tracks), (4, 2));
        let counts = counts(&leaks, ["track", "recording", "artist", "album"]);
        assert_eq!(counts, [(1, 4), (2, 4), (3, 4), (1, 2)]);
        assert_eq!(leaks.shared["artist"].share, 0.75);

        assert_eq!(
            leaks.sentence(),
            "split `stratified` (tracks drawn class by class: one artist or album is in several splits, which flatters \
             scores): of 4 test tracks, 1 (25.0 %) are also in training, 2 (50.0 %) have the same recording in \
             training, 3 (75.0 %) share an artist with training, 1 (25.0 %) share an album with training."
        );
    }

    #[test]
    fn near_copies_are_counted_if_a_store_has_some() {
        let training = [
            member(1, 10, None, "a"),
            Member {
                near_group: Some("a.mp3"),
                ..member(2, 20, None, "b")
            },
        ];
        let test = [
            Member {
                near_group: Some("a.mp3"),
                ..member(3, 30, None, "c")
            },
            member(4, 40, None, "d"),
        ];
        let leaks = count_leaks(SplitRule::Stratified, Split::Test, training, test);
        assert_eq!(count(&leaks, "near_copy"), (1, 2));
        let sentence = leaks.sentence();
        assert!(
            sentence.ends_with("1 (50.0 %) have a near copy in training; unknown: album."),
            "{sentence}"
        );

        let leaks = count_leaks(SplitRule::Stratified, Split::Test, [training[0]], [test[1]]);
        assert!(!leaks.shared.contains_key("near_copy"));
    }

    #[test]
    fn artist_promise_requires_known_artists() {
        fn members(artists: &[Option<i64>], first: i64) -> Vec<Member<'static>> {
            let mut members = Vec::new();
            for (n, &artist_id) in (first..).zip(artists) {
                members.push(Member {
                    artist_id,
                    ..member(n, 0, None, "x")
                });
            }
            members
        }

        type Artists = &'static [Option<i64>];
        let cases: [(Artists, Artists, &str); 3] = [
            (
                &[Some(1), Some(2)],
                &[Some(3)],
                "no artist is in two splits",
            ),
            (
                &[None, None],
                &[None],
                "no artist is known: tracks were split one by one",
            ),
            (
                &[Some(1), None, Some(2)],
                &[None],
                "2 of 4 tracks have a known artist, none of whom is in two splits; the others were split one by one",
            ),
        ];
        for (training, test, want) in cases {
            let (training, test) = (members(training, 1), members(test, 100));
            let leaks = count_leaks(SplitRule::Artist, Split::Test, training, test);
            assert_eq!(leaks.promise, want);
        }
    }

    #[test]
    fn a_run_of_another_version_is_compared_by_its_list() {
        fn nobody(audio: &'static str) -> Member<'static> {
            Member {
                artist_id: None,
                ..member(2, 0, None, audio)
            }
        }

        // The run was trained on two recordings of track 2, whose artist is unknown.
        let trained = [member(1, 10, None, "a"), nobody("b"), nobody("c")];

        // In the tested version, track 5 is the only training track.
        let training = [member(5, 10, Some(7), "e")];
        let test = [
            member(1, 10, Some(7), "new"),
            member(1, 10, Some(7), "new"),
            member(3, 30, Some(7), "b"),
            nobody("c"),
            member(4, 10, None, "d"),
        ];

        let leaks = count_leaks(SplitRule::Segment, Split::Test, training, test);
        assert_eq!(leaks.warning("this run"), None, "its own version");
        let json = serde_json::to_string(&leaks).unwrap();
        assert!(!json.contains("compared_with"), "{json}");

        let of_run = compare_with_run(leaks.clone(), Some(&trained), test);
        assert_eq!((of_run.tracks, of_run.training_tracks), (4, 2));
        let counts = counts(&of_run, ["track", "recording", "artist"]);
        assert_eq!(counts, [(2, 4), (2, 4), (2, 3)]);
        assert!(!of_run.shared.contains_key("album"));
        assert_eq!(
            of_run.warning("this run").unwrap(),
            "of 4 test tracks, 2 are tracks, 2 are recordings and 2 are by artists that this run trained on"
        );

        assert_eq!(
            of_run.sentence(),
            "split `segment` (segments of one track are in several splits: scores say nothing about new music), by the \
             2 tracks that the run trained on: of 4 test tracks, 2 (50.0 %) are also in training, 2 (50.0 %) have the \
             same recording in training, 2 (50.0 %) share an artist with training."
        );

        let json = serde_json::to_string(&of_run).unwrap();
        assert!(json.contains(r#""compared_with":"run""#), "{json}");
        assert_eq!(serde_json::from_str::<Leaks>(&json).unwrap(), of_run);

        let unseen = compare_with_run(leaks.clone(), Some(&trained), [member(9, 90, None, "z")]);
        assert_eq!(unseen.warning("this run"), None);
        let unknown = compare_with_run(leaks, None, test);
        assert_eq!(unknown.warning("this run"), None);
        assert!(
            unknown.sentence().ends_with(
                "it is unknown how many overlap with training: they are from another version than the run trained on."
            ),
            "{}",
            unknown.sentence()
        );
    }

    #[test]
    fn unknown_ids_are_not_reported_as_clean() {
        let bare = Member {
            track_id: 1,
            artist_id: None,
            album_id: None,
            audio_blake3: Some("x"),
            near_group: None,
        };

        let leaks = count_leaks(SplitRule::Column, Split::Test, [], [bare]);
        assert_eq!(
            leaks.sentence(),
            "split `column` (splits as a column of the metadata says): of 1 test tracks, none is known to overlap \
             with training; unknown: artist, album."
        );

        let json = serde_json::to_string(&leaks).unwrap();
        assert_eq!(serde_json::from_str::<Leaks>(&json).unwrap(), leaks);
    }
}
