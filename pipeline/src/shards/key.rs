//! The shard key: everything that decides a shard's bytes. Equal keys, equal files: a later version links them.

use serde::Serialize;
use wavemill_schemas::canonical;
use wavemill_schemas::manifest::{Engine, FeatureEntry, TargetEntry};
use wavemill_schemas::recipe::{Recipe, SplitRule, SplitSpec};

use crate::catalog::ClipRow;
use crate::plan::Shard;
use crate::source::{AudioIndex, InputId};

/// blake3 over audio, features and shards sections, class lists, engine, and per member its row and input identity.
///
/// # Errors
/// None in practice.
pub fn shard_key(
    shard: &Shard,
    clips: &[ClipRow],
    audio: &AudioIndex,
    recipe: &Recipe,
    (features, targets, engine): (&[FeatureEntry], &[TargetEntry], &Engine),
) -> Result<String, serde_json::Error> {
    #[derive(Serialize)]
    struct Fixed<'a> {
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
    let json = serde_json::to_value::<&Recipe>(recipe)?;
    let section = |name: &str| json.get(name).cloned().unwrap_or_default();
    let fixed = Fixed {
        recipe: ["audio", "features", "shards"].map(section),
        features,
        classes: targets.iter().map(|t| (t.name.as_str(), t.classes.as_slice())).collect(),
        engine,
        split: &shard.split,
        segments: (recipe.split.rule == SplitRule::Segment).then_some(&recipe.split),
    };
    let mut hasher = blake3::Hasher::new_derive_key("shard key");
    hasher.update(canonical::to_json(&fixed)?.as_bytes());
    for &member in &shard.members {
        let row = &clips[member];
        let member = Member {
            clip_key: &row.clip_key,
            track_id: row.track_id,
            targets: &row.targets,
            genres_all: &row.genres_all,
            artist_id: row.artist_id,
            album_id: row.album_id,
            input: audio.get(&row.clip_key),
        };
        hasher.update(canonical::to_json(&member)?.as_bytes());
    }
    Ok(hasher.finalize().to_hex().to_string())
}
