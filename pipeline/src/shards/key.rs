//! The key of a feature's file of one shard: everything that decides its bytes. Equal keys, equal files: a later version
//! links them.

use serde::Serialize;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Engine, FeatureEntry, TargetEntry};
use wavemill_schemas::recipe::{AudioSpec, FeatureSpec, Recipe, ShardSpec, SplitSpec};

use crate::catalog::ClipRow;
use crate::plan::Shard;
use crate::plan::segments::variants_on;
use crate::source::{InputId, InputSeen};

/// What decides the bytes of a plan's files, beside what their members' files hold.
#[derive(Clone, Copy)]
pub(crate) struct KeyInputs<'a> {
    /// Cleaned rows.
    pub clips: &'a [ClipRow],
    /// Its sections audio and shards; the feature's own; and the split, where that cuts clips.
    pub recipe: &'a Recipe,
    /// Of which files keys are made, each of the recipe.
    pub features: &'a [FeatureEntry],
    /// With classes.
    pub targets: &'a [TargetEntry],
    /// What computes.
    pub engine: &'a Engine,
}

/// What all members of a shard have in common. No other feature is in it: adding one changes no key.
#[derive(Serialize)]
struct FileIdentity<'a> {
    // Without the factors of time stretch, where no clip of the shard has stretched rows.
    audio: AudioSpec,
    section: Option<&'a FeatureSpec>,
    feature: &'a FeatureEntry,
    // How many clips a shard may have decides who its members are, and no byte beyond that.
    shards: ShardSpec,
    classes: Vec<(&'a str, &'a [String])>,
    engine: &'a Engine,
    split: &'a str,
    // Under the rules by segment the split decides which segments of a clip are kept.
    segments: Option<&'a SplitSpec>,
}

#[derive(Serialize)]
struct Member<'a> {
    clip_key: &'a str,
    track_id: i64,
    targets: &'a [Option<i32>],
    genres_all: &'a [i32],
    artist_id: Option<i64>,
    album_id: Option<i64>,
    input: InputState<'a>,
}

/// What a member's file holds.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum InputState<'a> {
    /// blake3 of the whole file: whatever its time stamp is, wherever it lies.
    Content(&'a str),
    /// It could not be read, and only its stamp tells whether that may be otherwise now. `None`: it is not there.
    Unreadable(Option<&'a InputId>),
}

impl<'a> KeyInputs<'a> {
    /// The key of each feature's file of a shard: blake3 over what all members have in common, and over each member's row
    /// and input. `seen` tells of a member's input by `clip_key`; `None`: nobody has read it yet, so there is no key.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn keys<'s>(
        &self,
        shard: &Shard,
        seen: impl Fn(&str) -> Option<&'s InputSeen>,
    ) -> Result<Option<Vec<String>>, serde_json::Error> {
        // A clip that changes alters the keys of its own shard, and of no other.
        let mut members = blake3::Hasher::new_derive_key("shard members");
        for &row in &shard.members {
            let Some(seen) = seen(&self.clips[row].clip_key) else {
                return Ok(None);
            };
            let member = canonical::to_json(&self.member(row, seen))?;
            members.update(member.as_bytes());
        }
        let members = members.finalize();

        let mut keys = Vec::with_capacity(self.features.len());
        for feature in self.features {
            // Keyed by its purpose, so that no hash made for another one is equal.
            let mut hasher = blake3::Hasher::new_derive_key("shard key");
            let shared = canonical::to_json(&self.shared(shard, feature))?;
            hasher.update(shared.as_bytes());
            hasher.update(members.as_bytes());
            keys.push(hasher.finalize().to_hex().to_string());
        }
        Ok(Some(keys))
    }

    fn shared<'s>(&'s self, shard: &'s Shard, feature: &'s FeatureEntry) -> FileIdentity<'s> {
        let recipe = self.recipe;
        let classes = self.targets.iter();
        let rule = recipe.split.rule;
        let variants = variants_on(&recipe.audio, rule, &shard.split);

        FileIdentity {
            // Only the sections that decide bytes: a recipe of another name makes the same key of the same rows.
            audio: AudioSpec {
                stretch: variants[1..].to_vec(),
                ..recipe.audio.clone()
            },
            section: recipe
                .features
                .iter()
                .find(|section| section.name == feature.name),
            feature,
            shards: ShardSpec {
                clips: 0,
                ..recipe.shards.clone()
            },
            classes: classes
                .map(|target| (target.name.as_str(), target.classes.as_slice()))
                .collect(),
            engine: self.engine,
            split: &shard.split,
            segments: rule.is_by_segment().then_some(&recipe.split),
        }
    }

    fn member<'s>(&'s self, row: usize, seen: &'s InputSeen) -> Member<'s> {
        let clip = &self.clips[row];
        Member {
            clip_key: &clip.clip_key,
            track_id: clip.track_id,
            targets: &clip.targets,
            genres_all: &clip.genres_all,
            artist_id: clip.artist_id,
            album_id: clip.album_id,
            input: if seen.content.is_empty() {
                InputState::Unreadable(seen.id.as_ref())
            } else {
                InputState::Content(&seen.content)
            },
        }
    }
}
