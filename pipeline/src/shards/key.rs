//! The shard key: everything that decides a shard's bytes. Equal keys, equal files: a later version links them.

use serde::Serialize;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Engine, FeatureEntry, TargetEntry};
use wavemill_schemas::recipe::{Recipe, SplitRule, SplitSpec};

use crate::catalog::ClipRow;
use crate::plan::Shard;
use crate::source::{AudioIndex, InputId};

/// What decides the bytes of a plan's shards, beside their members.
pub(crate) struct KeyInputs<'a> {
    /// Cleaned rows.
    pub clips: &'a [ClipRow],
    /// Identities of their files.
    pub audio: &'a AudioIndex,
    /// Its sections audio, features, shards; and the split, where that cuts clips.
    pub recipe: &'a Recipe,
    /// What is stored.
    pub features: &'a [FeatureEntry],
    /// With classes.
    pub targets: &'a [TargetEntry],
    /// What computes.
    pub engine: &'a Engine,
}

/// What all members of a shard have in common.
#[derive(Serialize)]
struct ShardIdentity<'a> {
    recipe: [serde_json::Value; 3],
    features: &'a [FeatureEntry],
    classes: Vec<(&'a str, &'a [String])>,
    engine: &'a Engine,
    split: &'a str,
    // Under the rule `segment` the split decides which segments of a clip are kept.
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
    input: Option<&'a InputId>,
}

impl KeyInputs<'_> {
    /// A shard's key: blake3 over what all members have in common, and over each member's row and input.
    ///
    /// # Errors
    /// None in practice.
    pub(crate) fn key(&self, shard: &Shard) -> Result<String, serde_json::Error> {
        // Keyed by its purpose, so that no hash made for another one is equal.
        let mut hasher = blake3::Hasher::new_derive_key("shard key");
        let shared = canonical::to_json(&self.shared(shard)?)?;
        hasher.update(shared.as_bytes());
        // A clip that changes alters the key of its own shard, and of no other.
        for &row in &shard.members {
            let member = canonical::to_json(&self.member(row))?;
            hasher.update(member.as_bytes());
        }
        Ok(hasher.finalize().to_hex().to_string())
    }

    fn shared<'a>(&'a self, shard: &'a Shard) -> Result<ShardIdentity<'a>, serde_json::Error> {
        let recipe = serde_json::to_value(self.recipe)?;
        let classes = self.targets.iter();
        let is_by_segment = self.recipe.split.rule == SplitRule::Segment;
        Ok(ShardIdentity {
            // Only the sections that decide bytes: a recipe of another name makes the same key of the same rows.
            recipe: ["audio", "features", "shards"]
                .map(|section| recipe.get(section).cloned().unwrap_or_default()),
            features: self.features,
            classes: classes
                .map(|target| (target.name.as_str(), target.classes.as_slice()))
                .collect(),
            engine: self.engine,
            split: &shard.split,
            segments: is_by_segment.then_some(&self.recipe.split),
        })
    }

    fn member(&self, row: usize) -> Member<'_> {
        let clip = &self.clips[row];
        Member {
            clip_key: &clip.clip_key,
            track_id: clip.track_id,
            targets: &clip.targets,
            genres_all: &clip.genres_all,
            artist_id: clip.artist_id,
            album_id: clip.album_id,
            input: self.audio.get(&clip.clip_key),
        }
    }
}
