//! Tests of whole groups: ranks as threads over loopback, and ranks as processes that are killed.

mod devices;
mod groups;
mod parity;
mod processes;

use std::net::TcpListener;
use std::time::Duration;

use super::*;

/// Returns the settings for the ranks of one job on this machine, which run as threads.
pub(super) fn world(world_size: usize) -> Vec<Ranks> {
    let port = TcpListener::bind("127.0.0.1:0")
        .expect("loopback")
        .local_addr()
        .expect("bound")
        .port();

    let mut world = Vec::new();
    for rank in 0..world_size {
        world.push(Ranks {
            rank,
            world_size,
            local_rank: rank,
            port,
            token: format!("job of port {port}"),
            join_timeout: Duration::from_secs(20),
            ..Ranks::solo()
        });
    }
    world
}

pub(super) fn fingerprint() -> Fingerprint {
    Fingerprint {
        version: "1".to_owned(),
        manifest_hash: "m".to_owned(),
        config_hash: "c".to_owned(),
        feature_id: "f".to_owned(),
        lost_files: "none".to_owned(),
    }
}

/// Watchdog action for tests in which no rank is lost.
pub(super) fn no_loss() -> OnLoss {
    Box::new(|loss| eprintln!("a loss that the test did not expect: {loss}"))
}

/// Runs `body` on each rank of a ring, in a thread per rank. Returns the results in rank order.
pub(super) fn each_rank<R: Send>(
    world_size: usize,
    body: impl Fn(&RingGroup) -> R + Sync,
) -> Vec<R> {
    std::thread::scope(|scope| {
        let body = &body;
        let mut threads = Vec::new();
        for ranks in world(world_size) {
            threads.push(scope.spawn(move || {
                let group =
                    RingGroup::join(&ranks, &fingerprint(), no_loss()).expect("all are there");
                let result = body(&group);
                group.finish().expect("all finish");
                result
            }));
        }

        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}
