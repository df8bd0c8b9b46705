//! `wavemill recipe`: lists, shows and checks recipes before any work is done.

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use clap::{Args, Subcommand};
use wavemill_catalog::parse_where;
use wavemill_catalog::statements::parse_query;
use wavemill_extract::features::FeaturePlan;
use wavemill_extract::settings::Settings;
use wavemill_schemas::canonical;
use wavemill_schemas::recipe::{CleanStep, Recipe, SHIPPED, Source};
use wavemill_schemas::text::{shown, shown_lines};
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::output::stdout;

const EXAMPLES: &str = "\
Examples:
  wavemill recipe list
  wavemill recipe show fma-large > mine.toml
  wavemill recipe show fma-large --set features.mfcc=none
  wavemill recipe show demo --set features.log_mel.n_mels=128 --json
  wavemill recipe check mine.toml --set split.rule=artist \\
      --set audio.duration_s=none

The message about an invalid recipe names the line. Warnings of `check` are on stdout.";

/// List, show and check recipes
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RecipeCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the shipped recipes, one per line: name, split rule, features, purpose
    List,
    /// Print the text of a recipe, including comments
    Show {
        #[command(flatten)]
        which: RecipeArgs,
        /// Print canonical JSON, with every default written out
        #[arg(long)]
        json: bool,
    },
    /// Check a recipe for errors, and show its warnings
    Check {
        #[command(flatten)]
        which: RecipeArgs,
    },
}

/// A recipe and the changes to it: the arguments of every command that takes a recipe by position.
#[derive(Debug, Args)]
struct RecipeArgs {
    /// A shipped recipe's name, or a TOML file
    #[arg(value_name = "NAME|FILE")]
    recipe: String,
    /// Change a value: features.log_mel.n_mels=96, split.seed=7; `none` removes a key, or a feature: features.mfcc=none
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl RecipeCommand {
    /// Writes the requested information to stdout.
    ///
    /// # Errors
    /// An error of the recipe (exit code 2), or an error of stdout.
    pub fn run(&self) -> Result<u8> {
        self.write(&mut stdout()).map(|()| 0)
    }

    fn write(&self, out: &mut impl Write) -> Result<()> {
        match &self.action {
            Action::List => list(out),
            Action::Show { which, json } => {
                let (recipe, text) = Source::find(&which.recipe)?.parse(&which.sets)?;
                match json {
                    true => writeln!(out, "{}", canonical::to_json(&recipe)?)?,
                    // A file receives the text byte for byte; on a terminal, control characters in comments must have
                    // no effect.
                    false if io::stdout().is_terminal() => write!(out, "{}", shown_lines(&text))?,
                    false => write!(out, "{text}")?,
                }
                Ok(())
            }
            Action::Check { which } => check(&Recipe::load(&which.recipe, &which.sets)?, out),
        }
    }
}

fn list(out: &mut impl Write) -> Result<()> {
    for (name, _) in SHIPPED {
        let recipe = Recipe::load(name, &[])?;
        let split = split(&recipe);
        let stored = recipe.stored_features();
        let features: Vec<&str> = stored.map(|feature| feature.name.as_str()).collect();
        let features = match &features[..] {
            [first, more @ ..] if more.len() > 3 => format!("{first}, {} more", more.len()),
            _ => features.join(", "),
        };
        writeln!(
            out,
            "{name:<24}{split:<20}{:<35}{}",
            features, recipe.description
        )?;
    }
    Ok(())
}

/// Formats the split rule of a recipe as `artist` or `stratified (leaky)`.
fn split(recipe: &Recipe) -> String {
    let rule = recipe.split.rule;
    let leak = if rule.leak().is_some() {
        " (leaky)"
    } else {
        ""
    };
    format!("{}{leak}", rule.name())
}

fn check(recipe: &Recipe, out: &mut impl Write) -> Result<()> {
    for warning in recipe.warnings() {
        writeln!(out, "warning: {}", shown(&warning))?;
    }
    // The warnings are already written, so that a user who fixes an error has seen them too.
    check_sql(&recipe.catalog.clean)?;

    let features = FeaturePlan::new(recipe, &Settings::default())?;
    writeln!(out, "{}: ok, split {}", shown(&recipe.name), split(recipe))?;
    for feature in features.entries() {
        writeln!(out, "  {} {}", shown(&feature.name), feature.tensor_type())?;
    }
    Ok(())
}

/// Checks the SQL of the cleaning steps. Only its syntax can be checked, because table and column names are known only
/// with the data.
fn check_sql(steps: &[CleanStep]) -> Result<()> {
    for step in steps {
        let query = match (&step.sql, &step.predicate) {
            (Some(sql), _) => parse_query(sql),
            (None, Some(predicate)) => parse_where("*", predicate),
            (None, None) => continue,
        };
        if let Err(error) = query {
            return Err(UsageError(format!("catalog.clean.{}: {error}", step.step)).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        command: RecipeCommand,
    }

    fn answer(args: &[&str]) -> Result<String> {
        let cli = <Cli as clap::Parser>::try_parse_from([&["recipe"], args].concat())?;
        let mut out = Vec::new();
        cli.command.write(&mut out)?;
        Ok(String::from_utf8(out)?)
    }

    #[test]
    fn list_prints_one_line_per_recipe() {
        let list = answer(&["list"]).expect("shipped recipes are valid");
        assert_eq!(list.lines().count(), SHIPPED.len());

        assert!(
            list.contains(
                "\nfma-large               artist              log_mel, mfcc                      FMA large"
            ),
            "{list}"
        );
        assert!(
            list.contains("\nfma-small               official            log_mel"),
            "{list}"
        );
        assert!(!list.contains("leaky"), "{list}");
    }

    #[test]
    fn show_gives_the_text_that_makes_the_same_recipe() {
        let text = answer(&["show", "fma-large", "--set", "split.seed=7"]).expect("valid");
        let again = Recipe::parse(&text, "shown", &[]).expect("valid");
        assert_eq!(
            again,
            Recipe::load("fma-large", &["split.seed=7".to_owned()]).expect("valid")
        );
        assert!(text.contains("# repository"));

        let json = answer(&["show", "demo", "--json"]).expect("valid");
        assert!(
            json.starts_with(r#"{"audio":{"decode":{"path":"exact"},"duration_s":10.0,"#),
            "{json}"
        );
    }

    #[test]
    fn check_reports_warnings_and_errors() {
        let found = answer(&["check", "gtzan-segments"]).expect("valid");
        assert_eq!(
            found,
            "gtzan-segments: ok, split artist\n  log_mel f16[128,130]\n  picture u8[3,128,130]\n"
        );

        let as_in_document = ["check", "gtzan-segments", "--set", "split.rule=segment"];
        let found = answer(&as_in_document).expect("valid");
        assert_eq!(
            found,
            "warning: split.rule: leaky: segments of one track fall into several splits\n\
             gtzan-segments: ok, split segment (leaky)\n  log_mel f16[128,130]\n  picture u8[3,128,130]\n"
        );

        let set = "catalog.clean.labelled.where=track_genre_top IS NOT";
        let error = answer(&["check", "fma-large", "--set", set]).expect_err("no SQL");
        assert!(
            error
                .to_string()
                .starts_with("catalog.clean.labelled: the SQL is incomplete, after `"),
            "{error}"
        );

        // The last text is one that the parser would read for hours.
        for (predicate, problem) in [
            (
                "track_genre_top IS NOT NULL ORDER BY track_id",
                "SQL, line 1, column ",
            ),
            (
                "true); DROP TABLE input; SELECT (1",
                "SQL, line 1, column 5: expected end of the condition, found )",
            ),
            (&"case -".repeat(40), "the statement is nested too deeply"),
        ] {
            let set = format!("catalog.clean.labelled.where={predicate}");
            let error = answer(&["check", "fma-large", "--set", &set]).expect_err(predicate);
            let want = format!("catalog.clean.labelled: {problem}");
            assert!(error.to_string().starts_with(&want), "{error}");
        }

        let set = "catalog.clean.labelled.where=track_genre_top IS NOT NULL -- a comment";
        answer(&["check", "fma-large", "--set", set]).expect("valid");

        let error = answer(&["check", "demo", "--set", "split.sed=1"]).expect_err("no such key");
        assert!(
            error
                .to_string()
                .starts_with("--set split.sed=1: split.sed: unknown key (did you mean `seed`?)")
        );
    }
}
