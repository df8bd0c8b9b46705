//! The key of a feature's file of one shard: a hash over everything that determines the file's bytes. Files with equal
//! keys are equal, so a later version links them.

use serde::Serialize;
use wavemill_schemas::canonical;
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::input::{InputId, InputSeen};
use wavemill_schemas::manifest::{Engine, FeatureEntry, TargetEntry};
use wavemill_schemas::recipe::{AudioSpec, FeatureSpec, Recipe, ShardSpec, SplitSpec};

use crate::plan::Shard;
use crate::plan::segments::variants_on;

/// The part of a plan that determines the bytes of its files, apart from the content of the clips' files.
#[derive(Clone, Copy)]
pub struct KeyInputs<'a> {
    /// The cleaned rows of the catalog.
    pub clips: &'a [ClipRow],
    /// The recipe. Keys depend on its sections audio and shards, the feature's own section, and the split if the rule
    /// cuts clips into segments.
    pub recipe: &'a Recipe,
    /// Features whose files get keys; all of them are features of the recipe.
    pub features: &'a [FeatureEntry],
    /// Targets of the plan with their classes.
    pub targets: &'a [TargetEntry],
    /// The engine that computes the features.
    pub engine: &'a Engine,
}

/// The part of a file's key that all clips of a shard share. It contains no other feature: adding one changes no key.
#[derive(Serialize)]
struct FileIdentity<'a> {
    // Contains only the time-stretch factors that apply to the shard's split.
    audio: AudioSpec,
    section: Option<&'a FeatureSpec>,
    feature: &'a FeatureEntry,
    // `clips` is cleared: it determines the members of a shard and has no other effect on its bytes.
    shards: ShardSpec,
    classes: Vec<(&'a str, &'a [String])>,
    engine: &'a Engine,
    split: &'a str,
    // Under the rules by segment, the split determines which segments of a clip are kept.
    segments: Option<&'a SplitSpec>,
}

#[derive(Serialize)]
struct Member<'a> {
    #[serde(flatten)]
    clip: &'a ClipRow,
    input: InputState<'a>,
}

/// The state of the file of a shard's member.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum InputState<'a> {
    /// blake3 hash of the file's content, independent of its path and modification time.
    Content(&'a str),
    /// The file could not be read; only a different stamp shows that it may be readable now. `None` if it is missing.
    Unreadable(Option<&'a InputId>),
}

impl<'a> KeyInputs<'a> {
    /// Computes the key of each feature's file of a shard: blake3 over the shared part and over each member's row and
    /// input. `seen` returns a member's input by `clip_key`. Returns `None` if the input of a member is not known yet.
    ///
    /// # Errors
    /// Fails if serialization fails, which does not happen in practice.
    pub fn keys<'s>(
        &self,
        shard: &Shard,
        seen: impl Fn(&str) -> Option<&'s InputSeen>,
    ) -> Result<Option<Vec<String>>, serde_json::Error> {
        // A changed clip changes only the keys of its own shard.
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
            // The hash is derived for this purpose, so that no hash computed for another purpose can be equal.
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
            // Only the sections that determine bytes are included: the name of the recipe is not part of the key.
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
        Member {
            clip: &self.clips[row],
            input: if seen.content.is_empty() {
                InputState::Unreadable(seen.id.as_ref())
            } else {
                InputState::Content(&seen.content)
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_a_key_about_a_clip_is_pinned() {
        let member = Member {
            clip: &ClipRow {
                clip_key: "a.mp3".to_owned(),
                track_id: 1,
                targets: vec![Some(0), None],
                genres_all: vec![2, 3],
                artist_id: Some(4),
                album_id: None,
                split: "training".to_owned(),
            },
            input: InputState::Content("5"),
        };
        let expected = concat!(
            r#"{"album_id":null,"artist_id":4,"clip_key":"a.mp3","genres_all":[2,3],"#,
            r#""input":{"content":"5"},"targets":[0,null],"track_id":1}"#
        );
        assert_eq!(canonical::to_json(&member).expect("JSON"), expected);
    }
}
