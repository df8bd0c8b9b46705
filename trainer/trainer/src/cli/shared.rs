//! Checks that all ranks see the same run folder: rank 0 writes there, and the others read its checkpoints at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use wavemill_terminal::exit::UsageError;

use crate::strategy::{self, Collective};

/// Maximum time until a file that rank 0 wrote is visible on another machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two attempts to read the token from the run's folder.
const RETRY: Duration = Duration::from_millis(50);
/// Name of the token file, which rank 0 writes to the run's folder and then removes.
const TOKEN: &str = ".ranks";

/// Writes a token file to the run's folder on rank 0. Before the first step, every rank must find the token there.
///
/// # Errors
/// [`UsageError`] on a rank that does not find the token; an error on rank 0 if the folder is not writable.
pub(crate) fn check(folder: &Path, group: &dyn Collective, patience: Duration) -> Result<()> {
    if group.world_size() == 1 {
        return Ok(());
    }
    let file = folder.join(TOKEN);
    let mut token = Vec::new();
    if group.rank() == 0 {
        // The token is random, so that a token left by an earlier start is not mistaken for the new one.
        token = format!("{:032x}", u128::from_le_bytes(strategy::random()?)).into_bytes();
        std::fs::write(&file, &token)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }

    let token = group.gather(&token)?.swap_remove(0);
    let deadline = Instant::now() + patience;
    while std::fs::read(&file).ok().as_ref() != Some(&token) {
        if Instant::now() >= deadline {
            let rank = group.rank();
            let folder = folder.display();
            bail!(UsageError(format!(
                "rank {rank} does not see rank 0's folder {folder}: all machines must use the same folder of runs on a \
                 shared disk; set it with --runs"
            )));
        }
        std::thread::sleep(RETRY);
    }

    // Keep the token file until all ranks have read the token.
    group.barrier()?;
    if group.rank() == 0 {
        std::fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tch::Tensor;

    use super::*;
    use crate::strategy::RankError;

    /// Simulates rank 1 of two, to which rank 0 sends `token`.
    #[derive(Debug)]
    struct Second {
        token: &'static str,
    }

    impl Collective for Second {
        fn rank(&self) -> usize {
            1
        }

        fn world_size(&self) -> usize {
            2
        }

        fn sum(&self, _tensor: &mut Tensor) -> Result<(), RankError> {
            Ok(())
        }

        fn gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, RankError> {
            Ok(vec![self.token.as_bytes().to_vec(), bytes.to_vec()])
        }

        fn finish(&self) -> Result<(), RankError> {
            Ok(())
        }

        fn fail(&self, _reason: &str) {}
    }

    #[test]
    fn a_rank_that_does_not_see_rank_0s_folder_says_so_before_the_first_step() {
        fn look(folder: &Path) -> Result<()> {
            let group = Second {
                token: "this start",
            };
            check(folder, &group, Duration::from_millis(60))
        }

        let folder = tempfile::tempdir().expect("a folder");
        let error = look(folder.path()).expect_err("nothing there").to_string();
        assert!(
            error.starts_with("rank 1 does not see rank 0's folder") && error.contains("--runs"),
            "{error}"
        );

        // The rank sees a copy of the folder, with a token left by an earlier start.
        std::fs::write(folder.path().join(TOKEN), "another start").expect("room");
        look(folder.path()).expect_err("another start");
        std::fs::write(folder.path().join(TOKEN), "this start").expect("room");
        look(folder.path()).expect("seen");
    }
}
