//! Random sequences of changes: a store whose runs are killed equals one whose runs are not, one that computes every row,
//! and one that is made in steps.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use wavemill_tests::Failed;

use crate::steps;
use crate::support::{files_below, finish, run, same_versions, start, wavemill};
use crate::table::{MFCC, Table, key};

/// Number of changes in one sequence.
const STEPS: u32 = 10;

/// Number of sequences, unless `WAVEMILL_GROW_SEEDS` is set.
const SEEDS: u64 = 5;

const GENRES: [&str; 5] = ["Blues", "Folk", "Jazz", "Pop", "Rock"];

#[apply(trial)]
fn random_changes_give_the_same_store_killed_or_recomputed() -> Result<(), Failed> {
    let seeds = std::env::var("WAVEMILL_GROW_SEEDS").ok();
    let seeds = seeds.and_then(|n| n.parse().ok()).unwrap_or(SEEDS);
    for seed in 0..seeds {
        sequence(seed).map_err(|failed| format!("seed {seed}: {failed:?}"))?;
    }
    Ok(())
}

/// Pseudo-random numbers by the generator of Knuth's MMIX.
struct Dice(u64);

impl Dice {
    /// Returns a number in `0..n`.
    fn below(&mut self, n: u32) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32 % n
    }
}

/// Inputs of a store, and the flags of its runs.
struct Growth {
    table: Table,
    next_track: u32,
    has_mfcc: bool,
    n_mfcc: u32,
    flags: Vec<(&'static str, String)>,
    /// Additional flags for the next run only.
    once: Vec<&'static str>,
}

impl Growth {
    fn arguments(&self) -> Vec<&str> {
        let mut args = vec!["--new-version"];
        for (flag, value) in &self.flags {
            args.extend([*flag, value.as_str()]);
        }
        args.extend(&self.once);
        args
    }

    fn set(&mut self, flag: &'static str, key: &str, value: String) {
        self.flags.retain(|(_, was)| !was.starts_with(key));
        self.flags.push((flag, value));
    }

    fn some_track(&self, dice: &mut Dice) -> String {
        let place = dice.below(self.table.rows.len() as u32) as usize;
        self.table.rows.keys().nth(place).unwrap().clone()
    }

    /// Makes one random change and returns its description.
    fn change(&mut self, dice: &mut Dice) -> Result<&'static str, Failed> {
        self.once.clear();
        let track = self.some_track(dice);
        let genre = GENRES[dice.below(5) as usize];
        let row = self.table.rows.get_mut(&track).unwrap();

        let what = match dice.below(16) {
            0 | 1 => {
                let n = 1 + dice.below(4);
                for _ in 0..n {
                    self.table.add(self.next_track).genre = genre;
                    self.next_track += 1;
                }
                "tracks added"
            }
            2 => {
                self.table.rows.remove(&track);
                "a track removed"
            }
            3 => {
                row.genre = genre;
                "a label"
            }
            4 => {
                row.artist = Some(dice.below(20));
                "an artist"
            }
            5 => {
                row.tag = ["one", "another", "a longer name of an artist"][dice.below(3) as usize];
                "tags"
            }
            6 => {
                row.voice = 1000 + dice.below(1000);
                "another recording"
            }
            7 => {
                row.samples = [100, 1000, 2000][dice.below(3) as usize];
                "another length"
            }
            8 => {
                let row = self.table.rows.remove(&track).unwrap();
                self.table.rows.insert(key(self.next_track), row);
                self.next_track += 1;
                "a renamed track"
            }
            9 => {
                let audio = self.table.written()?.audio;
                let file = File::options().write(true).open(audio.join(&track))?;
                file.set_modified(SystemTime::now() + Duration::from_secs(60))?;
                "a touch"
            }
            10 => {
                self.has_mfcc = !self.has_mfcc;
                "a feature"
            }
            11 => {
                self.n_mfcc = 6 + dice.below(4);
                "a feature's option"
            }
            12 => {
                let seed = format!("split.seed={}", dice.below(3));
                self.set("--set", "split.seed", seed);
                "the seed"
            }
            13 => {
                let clips = format!("shards.clips={}", 4 + dice.below(12));
                self.set("--set", "shards.clips", clips);
                "clips a shard"
            }
            14 => {
                self.once.push("--resplit");
                "new splits"
            }
            _ => {
                let level = ["scalar", "x86-64-v3"][dice.below(2) as usize].to_owned();
                self.flags.retain(|(flag, _)| *flag != "--isa");
                self.flags.push(("--isa", level));
                "the engine"
            }
        };

        let mfcc = MFCC.replace("n_mfcc = 8", &format!("n_mfcc = {}", self.n_mfcc));
        let sections = if self.has_mfcc { mfcc.as_str() } else { "" };
        self.table.set_recipe(sections, &[]);
        Ok(what)
    }

    fn extract(&self, store: &Path) -> Result<Command, Failed> {
        let mut command = self.table.written()?.extract(store);
        command.args(self.arguments());
        Ok(command)
    }

    fn plan(&self, store: &Path) -> Result<Command, Failed> {
        let mut command = self.table.written()?.plan(store);
        command.args(self.arguments());
        Ok(command)
    }

    /// Returns the command for one part of a plan, with the engine of the plan.
    fn work(&self, store: &Path, plan: &str, part: &str) -> Command {
        let mut command = steps::work(store, plan, part);
        let flags = self.flags.iter();
        for (flag, value) in flags.filter(|(flag, _)| *flag == "--isa") {
            command.args([*flag, value.as_str()]);
        }
        command
    }
}

fn sequence(seed: u64) -> Result<(), Failed> {
    let mut dice = Dice(seed.wrapping_mul(7919).wrapping_add(1));
    let mut growth = Growth {
        table: Table::new(&format!("random-{seed}"), 30),
        next_track: 30,
        has_mfcc: false,
        n_mfcc: 8,
        flags: Vec::new(),
        once: Vec::new(),
    };

    let plain = growth.table.store();
    let [killed, recomputed, stepped] =
        ["killed", "recomputed", "stepped"].map(|name| plain.with_file_name(name));
    let mut done: Vec<&str> = Vec::new();
    for step in 0..=STEPS {
        if step > 0 {
            done.push(growth.change(&mut dice)?);
        }

        let began = Instant::now();
        run(&mut growth.extract(&plain)?).exits(0)?;
        let took = began.elapsed();
        run(growth.extract(&recomputed)?.arg("--recompute")).exits(0)?;
        kill_and_finish(&growth, &killed, took, &mut dice)?;
        in_steps(&growth, &stepped, took, &mut dice)?;

        for (name, other) in [
            ("killed", &killed),
            ("recomputed", &recomputed),
            ("in steps", &stepped),
        ] {
            same_versions(&plain, other)
                .map_err(|failed| format!("{name}, after {done:?}: {failed:?}"))?;
        }
    }

    for store in [&plain, &killed, &stepped] {
        verified(store)?;
    }
    Ok(())
}

/// Kills up to two runs at random moments, and then lets a run complete.
fn kill_and_finish(
    growth: &Growth,
    store: &Path,
    took: Duration,
    dice: &mut Dice,
) -> Result<(), Failed> {
    for _ in 0..dice.below(3) {
        let mut child = start(&mut growth.extract(store)?);
        std::thread::sleep(took * dice.below(100) / 100);
        // The run may have ended already.
        let _ = child.kill();
        finish(child);
    }

    run(&mut growth.extract(store)?).exits(0)?;
    remove_temporaries(store)
}

/// Plans, writes the parts in random order, two at a time and some of them twice, kills workers at random moments, and
/// commits.
fn in_steps(growth: &Growth, store: &Path, took: Duration, dice: &mut Dice) -> Result<(), Failed> {
    let plan = steps::planned(&mut growth.plan(store)?)?;
    let parts = 1 + dice.below(4);
    for _ in 0..=dice.below(parts) {
        let mut children = [0; 2].map(|_| {
            let part = format!("{}/{parts}", 1 + dice.below(parts));
            start(&mut growth.work(store, &plan, &part))
        });
        if dice.below(2) == 0 {
            std::thread::sleep(took * dice.below(100) / 100);
            // The worker may have ended already.
            let _ = children[0].kill();
        }
        let [first, second] = children;
        finish(first);
        finish(second).exits(0)?;
    }

    for part in (1..=parts).rev() {
        run(&mut growth.work(store, &plan, &format!("{part}/{parts}"))).exits(0)?;
    }
    run(&mut steps::commit(store, &plan)).exits(0)?;
    remove_temporaries(store)
}

/// Removes temporary manifests. A run that is killed just after its commit leaves one, which readers ignore. The
/// next run may have nothing to do.
fn remove_temporaries(store: &Path) -> Result<(), Failed> {
    let versions = store.join("_wavemill/versions");
    for name in files_below(&versions) {
        if name.starts_with('.') && name.ends_with(".tmp") {
            fs::remove_file(versions.join(name))?;
        }
    }
    Ok(())
}

fn verified(store: &Path) -> Result<(), Failed> {
    run(wavemill(["verify", "--store"]).arg(store)).exits(0)?;
    Ok(())
}
