//! Determines the stores and training runs of an experiment, without duplicates of a recipe or configuration.

use anyhow::Result;
use serde::Serialize;
use wavemill_schemas::canonical;
use wavemill_schemas::experiment::{
    AS_IN_DOCUMENT, BASE, Experiment, ExperimentSource, JOIN, SplitKind, TrainSpec, VariantConfig,
    VariantRecipe, check_pair,
};

/// Number of digits of an identity hash in a folder's name.
const ID_DIGITS: usize = 8;

/// The part of an experiment that the user requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// Variants, each a name or several joined by `+`.
    pub variants: Vec<String>,
    /// Names of the training runs; all of them if empty.
    pub trainings: Vec<String>,
    /// Changes to the recipe of every variant, as `key=value`.
    pub sets: Vec<String>,
    /// Changes to every training configuration, as `key=value`.
    pub train_sets: Vec<String>,
    /// Maximum number of clips in each store, if limited.
    pub limit: Option<u64>,
}

/// A store to extract.
#[derive(Clone, Debug)]
pub(super) struct StoreWork {
    /// Name of the store's folder.
    pub name: String,
    /// Recipe by which the store is extracted.
    pub recipe: VariantRecipe,
}

/// A training run to perform.
#[derive(Clone, Debug)]
pub(super) struct RunWork {
    /// Name of the run's folder.
    pub name: String,
    /// Index of the run's store in [`Work::stores`].
    pub store: usize,
    /// Configuration of the training run.
    pub config: VariantConfig,
}

/// A cell of the score tables, with the index of the run that has its scores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cell {
    /// Name of the variant, without its split.
    pub variant: String,
    /// Split by which the model is trained and tested.
    pub split: SplitKind,
    /// Name of the training run in the experiment's file.
    pub train: String,
    /// Index of the run in [`Work::runs`].
    pub run: usize,
}

/// All stores and runs that an experiment requires.
#[derive(Clone, Debug, Default)]
pub(super) struct Work {
    /// Stores, one for each resolved recipe.
    pub stores: Vec<StoreWork>,
    /// Runs, one for each configuration on each store.
    pub runs: Vec<RunWork>,
    /// Cells of the score tables, one for each variant, split and training run.
    pub cells: Vec<Cell>,
}

/// Returns a requested variant's name without its split, and the splits that are requested for the variant. The name
/// `as-in-document` in it requests only the document's split.
fn parse_variant(asked: &str) -> (String, &'static [SplitKind]) {
    let names = asked.split(JOIN).filter(|name| *name != AS_IN_DOCUMENT);
    let names: Vec<&str> = names.collect();
    let variant = match &names[..] {
        [] => BASE.to_owned(),
        names => names.join(&JOIN.to_string()),
    };
    if names.len() < asked.split(JOIN).count() {
        return (variant, &[SplitKind::AsInDocument]);
    }
    (variant, &[SplitKind::AsInDocument, SplitKind::Recipe])
}

/// The content from which the hash in the name of a store's folder is computed.
#[derive(Serialize)]
struct StoreIdentity<'a> {
    recipe: &'a wavemill_schemas::recipe::Recipe,
    limit: Option<u64>,
}

impl Work {
    /// Determines the stores and runs that `selection` requests.
    ///
    /// # Errors
    /// An error of the experiment if a variant or training does not exist, or a change is invalid.
    pub(super) fn new(source: &ExperimentSource, selection: &Selection) -> Result<Self> {
        let trainings = source.experiment.trainings(&selection.trainings)?;
        let mut work = Self::default();

        for asked in &selection.variants {
            let (variant, splits) = parse_variant(asked);
            for &split in splits {
                let variant = &variant;
                let recipe = source.recipe(variant, split, &selection.sets)?;
                let store = work.store(&source.experiment, recipe, selection.limit)?;

                for train in &trainings {
                    let config = source.config(train, variant, split, &selection.train_sets)?;

                    let recipe = &work.stores[store].recipe.recipe;
                    check_pair(train, variant, &config.config, recipe)?;
                    let run = work.run(train, store, config)?;
                    work.cells.push(Cell {
                        variant: variant.clone(),
                        split,
                        train: train.name.clone(),
                        run,
                    });
                }
            }
        }
        Ok(work)
    }

    /// Returns the index of the store for a recipe, and adds the store if it is new.
    ///
    /// # Errors
    /// An error of the JSON writer, which cannot happen.
    pub(super) fn store(
        &mut self,
        experiment: &Experiment,
        recipe: VariantRecipe,
        limit: Option<u64>,
    ) -> Result<usize> {
        let identity = StoreIdentity {
            recipe: &recipe.recipe,
            limit,
        };
        let name = format!("{}-{}", experiment.name, id(&identity)?);
        if let Some(index) = self.stores.iter().position(|store| store.name == name) {
            return Ok(index);
        }
        self.stores.push(StoreWork { name, recipe });
        Ok(self.stores.len() - 1)
    }

    /// Returns the index of the run of a configuration on a store, and adds the run if it is new.
    fn run(&mut self, train: &TrainSpec, store: usize, config: VariantConfig) -> Result<usize> {
        let identity = (&self.stores[store].name, &config.config);
        let name = format!("{}-{}", train.name, id(&identity)?);
        if let Some(index) = self.runs.iter().position(|run| run.name == name) {
            return Ok(index);
        }
        self.runs.push(RunWork {
            name,
            store,
            config,
        });
        Ok(self.runs.len() - 1)
    }
}

fn id<T: Serialize>(value: &T) -> Result<String> {
    Ok(canonical::id(value)?[..ID_DIGITS].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(experiment: &str, selection: &Selection) -> Work {
        let source = ExperimentSource::find(experiment).expect("shipped");
        Work::new(&source, selection).expect("sound")
    }

    fn selection(variants: &[&str], trainings: &[&str]) -> Selection {
        Selection {
            variants: variants.iter().map(|&name| name.to_owned()).collect(),
            trainings: trainings.iter().map(|&name| name.to_owned()).collect(),
            ..Selection::default()
        }
    }

    #[test]
    fn a_split_that_training_chooses_needs_no_second_store() {
        let work = work("fma-large", &selection(&["base", "mfcc"], &["cnn2d"]));
        assert_eq!(
            (work.stores.len(), work.runs.len(), work.cells.len()),
            (1, 4, 4)
        );

        let sets = &work.runs[0].config.sets;
        assert!(
            sets.contains(&r#"data.split="stratified""#.to_owned()),
            "{sets:?}"
        );
        assert_eq!(work.runs[1].config.config.data.split, None);
    }

    #[test]
    fn a_split_of_segments_has_a_store_of_its_own() {
        let work = work("gtzan-segments", &selection(&["base"], &[]));
        assert_eq!((work.stores.len(), work.runs.len()), (2, 2));
        assert_ne!(work.stores[0].name, work.stores[1].name);
    }

    #[test]
    fn work_is_shared_if_the_documented_split_is_the_recipes() {
        let work = work("fma-small", &selection(&["base"], &["crnn"]));
        assert_eq!(
            (work.stores.len(), work.runs.len(), work.cells.len()),
            (1, 1, 2)
        );
    }

    #[test]
    fn the_documents_split_alone_can_be_asked_for() {
        let one = work(
            "fma-large",
            &selection(&["as-in-document+mfcc"], &["cnn2d"]),
        );

        assert_eq!(
            (one.stores.len(), one.runs.len(), one.cells.len()),
            (1, 1, 1)
        );
        assert_eq!(one.cells[0].variant, "mfcc");

        let split = one.runs[0].config.config.data.split.as_deref();
        assert_eq!(split, Some("stratified"));
    }

    #[test]
    fn variants_can_be_put_on_top_of_each_other() {
        let both = work("fma-large", &selection(&["mfcc+16-classes"], &["cnn2d"]));
        let store = &both.stores[0];

        assert!(
            !store
                .recipe
                .recipe
                .catalog
                .clean
                .iter()
                .any(|step| step.step == "genres")
        );

        assert_eq!(
            both.runs[0].config.config.data.feature.as_deref(),
            Some("mfcc")
        );
    }
}
