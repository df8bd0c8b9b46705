//! Assigns ids to classes. Classes of the previous version keep their ids, and new classes are appended, so that a
//! trained model can use the ids of a later version.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::rows::Labels;

/// Class names in id order, by target.
pub type ClassLists = BTreeMap<String, Vec<String>>;

/// Returns `labels` with the class ids of the list `before`. Classes that the list lacks are appended to it.
pub(super) fn keep_ids(labels: &Labels, before: &[String]) -> Labels {
    let had_ids: HashSet<&String> = before.iter().collect();
    let new_classes = labels
        .classes
        .iter()
        .filter(|class| !had_ids.contains(class));
    let mut classes = before.to_vec();
    classes.extend(new_classes.cloned());

    let id_of: HashMap<&str, i32> = classes.iter().map(String::as_str).zip(0..).collect();
    let ids = labels.ids.iter().map(|id| {
        // Only a row without a label has no new id: each class of `labels` is in `classes`.
        let class = labels.classes.get(usize::try_from((*id)?).ok()?)?;
        id_of.get(class.as_str()).copied()
    });
    Labels {
        ids: ids.collect(),
        unlisted: labels.unlisted,
        classes,
    }
}

/// Returns a warning if some of the classes in `before` no longer occur in any row.
pub(super) fn empty_classes(target: &str, labels: &Labels, before: &[String]) -> Option<String> {
    let found: HashSet<&String> = labels.classes.iter().collect();
    let mut empty = before.to_vec();
    empty.retain(|class| !found.contains(class));
    if empty.is_empty() {
        return None;
    }
    Some(format!(
        "target `{target}`: no row has the class {} any more, and its id is kept: --renumber numbers the classes anew",
        empty.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(classes: &[&str]) -> Vec<String> {
        classes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ids_stay_and_new_classes_follow() {
        let labels = Labels {
            classes: names(&["Blues", "Folk", "Rock"]),
            ids: vec![Some(1), None, Some(0), Some(2)],
            unlisted: 0,
        };
        let before = names(&["Folk", "Jazz", "Rock"]);

        let kept = keep_ids(&labels, &before);
        assert_eq!(kept.classes, names(&["Folk", "Jazz", "Rock", "Blues"]));
        assert_eq!(kept.ids, [Some(0), None, Some(3), Some(2)]);
        let warning = empty_classes("genre", &labels, &before).expect("one is empty");
        assert!(warning.contains("class Jazz any more"), "{warning}");

        let same = keep_ids(&labels, &labels.classes);
        assert_eq!(
            (same.classes, same.ids),
            (labels.classes.clone(), labels.ids.clone())
        );
        assert_eq!(empty_classes("genre", &labels, &labels.classes), None);
    }
}
