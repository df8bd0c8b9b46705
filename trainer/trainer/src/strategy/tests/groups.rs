//! Tests of rings whose ranks are threads: sums, gathers, different settings, unknown peers, and lost ranks.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use tch::{Device, Kind, Tensor};
use wavemill_schemas::rng::Rng;

use super::*;

fn values(rank: usize, length: usize) -> Vec<f64> {
    let mut rng = Rng::new(rank as u64);
    (0..length).map(|_| rng.normal()).collect()
}

/// Lengths of the summed tensors: 0, fewer values than ranks, and several chunks that do not divide evenly.
const LENGTHS: [usize; 5] = [0, 1, 3, 1000, 700_001];

fn sums(world_size: usize, kind: Kind) -> Vec<Vec<Vec<f64>>> {
    each_rank(world_size, |group| {
        let mut sums = Vec::new();
        for length in LENGTHS {
            let mut tensor = Tensor::from_slice(&values(group.rank(), length)).to_kind(kind);
            group.sum(&mut tensor).expect("all take part");
            let sum = tensor.to_kind(Kind::Double);
            sums.push(Vec::<f64>::try_from(sum).expect("one dimension"));
        }
        sums
    })
}

#[test]
fn sums_are_right_and_have_the_same_bits_on_every_rank_and_in_every_run() {
    for (kind, epsilon) in [
        (Kind::Float, f64::from(f32::EPSILON)),
        (Kind::Double, f64::EPSILON),
    ] {
        for world_size in [2, 3, 4] {
            let results = sums(world_size, kind);
            assert!(
                results.iter().all(|rank| *rank == results[0]),
                "{kind:?}, {world_size} ranks"
            );
            assert!(
                results == sums(world_size, kind),
                "{kind:?}, {world_size} ranks, again"
            );

            for (sum, &length) in results[0].iter().zip(&LENGTHS) {
                let parts: Vec<_> = (0..world_size).map(|rank| values(rank, length)).collect();
                assert_eq!(sum.len(), length);

                for (at, &value) in sum.iter().enumerate() {
                    let exact: f64 = parts.iter().map(|part| part[at]).sum();
                    let size: f64 = parts.iter().map(|part| part[at].abs()).sum();
                    // Bound of the rounding error: each rank's value is rounded once, and so is each of the n − 1
                    // additions.
                    let most = size * epsilon * world_size as f64;
                    assert!(
                        (value - exact).abs() <= most,
                        "{kind:?} [{at}] of {length}: {value}, {exact}"
                    );
                }
            }
        }
    }
}

#[test]
fn bytes_of_all_lengths_are_gathered_by_rank() {
    let blobs = [vec![0; 0], vec![1; 1_000_003], vec![2; 5]];
    for gathered in each_rank(3, |group| {
        group.gather(&blobs[group.rank()]).expect("all take part")
    }) {
        assert!(gathered == blobs);
    }
}

#[test]
fn barrier_waits_for_all_ranks() {
    let times = each_rank(3, |group| {
        if group.rank() == 2 {
            std::thread::sleep(Duration::from_millis(300));
        }

        let came = Instant::now();
        group.barrier().expect("all take part");
        (came, Instant::now())
    });

    let last = times.iter().map(|(came, _)| *came).max().expect("three");
    assert!(times.iter().all(|(_, left)| *left >= last));
}

#[test]
fn unsupported_tensor_is_rejected_before_communication() {
    each_rank(2, |group| {
        let odd = [
            Tensor::zeros([3], (Kind::Int64, Device::Cpu)),
            Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr(),
        ];

        for mut tensor in odd.into_iter().chain([Tensor::new()]) {
            let error = group.sum(&mut tensor).expect_err("unfit");
            assert!(matches!(error, RankError::Tensor { .. }), "{error}");
        }

        group.barrier().expect("still in step");
    });
}

#[test]
fn differing_tensors_are_reported_with_both_sizes() {
    let heard = each_join(
        world(2),
        |_| fingerprint(),
        |group, _| {
            let mut tensor = Tensor::zeros([5 + group.rank() as i64], (Kind::Float, Device::Cpu));
            let error = group
                .sum(&mut tensor)
                .expect_err("5 and 6 values")
                .to_string();
            group.fail(&error);
            error
        },
    );

    // The slower rank may only notice that the other rank has closed the connection.
    let names_both = heard.iter().any(|error| {
        let error = error.as_ref().expect("both joined");
        error.contains("sum of 5 f32") && error.contains("sum of 6 f32")
    });
    assert!(names_both, "{heard:?}");
}

/// Joins the group on each of `ranks`, in a thread per rank. `body` receives the group and the messages of its
/// watchdog.
pub(super) fn each_join<R: Send>(
    ranks: Vec<Ranks>,
    fingerprint: impl Fn(usize) -> Fingerprint + Sync,
    body: impl Fn(RingGroup, Receiver<String>) -> R + Sync,
) -> Vec<Result<R, RankError>> {
    std::thread::scope(|scope| {
        let (fingerprint, body) = (&fingerprint, &body);
        let mut threads = Vec::new();
        for ranks in ranks {
            threads.push(scope.spawn(move || {
                let (said, heard) = crossbeam_channel::unbounded();
                let on_loss: OnLoss = Box::new(move |loss| drop(said.send(loss.to_string())));
                RingGroup::join(&ranks, &fingerprint(ranks.rank), on_loss)
                    .map(|group| body(group, heard))
            }));
        }

        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

fn refusals(ranks: Vec<Ranks>, fingerprint: impl Fn(usize) -> Fingerprint + Sync) -> Vec<String> {
    let joined = each_join(ranks, fingerprint, |_, _| ());
    joined
        .into_iter()
        .map(|result| result.expect_err("no start").to_string())
        .collect()
}

fn assert_all_say(errors: &[String], message: &str) {
    let all_say = errors.iter().all(|error| error.contains(message));
    assert!(all_say, "{errors:?}");
}

/// Waits for a message of the watchdog.
fn told(heard: &Receiver<String>) -> String {
    let message = heard.recv_timeout(Duration::from_secs(9));
    message.expect("the watchdog")
}

#[test]
fn ranks_that_differ_all_stop_at_the_start_with_rank_field_and_both_values() {
    fn change(field: &str, rank: usize) -> Fingerprint {
        let mut one = fingerprint();

        let place = match field {
            "wavemill" => &mut one.version,
            "manifest" => &mut one.manifest_hash,
            "config" => &mut one.config_hash,
            "damaged files" => &mut one.lost_files,
            _ => &mut one.feature_id,
        };
        *place = format!("r{rank}");
        one
    }

    for field in [
        "wavemill",
        "manifest",
        "config",
        "feature_id",
        "damaged files",
    ] {
        let all = refusals(world(3), |rank| {
            change(field, if rank == 2 { 2 } else { 0 })
        });

        assert_all_say(&all, &format!("rank 2 has {field} r2, rank 0 has r0"));
    }
}

#[test]
fn a_rank_that_counts_another_number_of_ranks_is_named() {
    let mut ranks = world(2);
    ranks[1].world_size = 4;
    let all = refusals(ranks, |_| fingerprint());
    assert_all_say(&all, "rank 1 has WORLD_SIZE 4, rank 0 has 2");
}

#[test]
fn missing_rank_is_named_to_all_others() {
    let mut ranks = world(4);
    ranks.remove(2);
    for rank in &mut ranks {
        rank.join_timeout = Duration::from_secs(1);
    }

    let all = refusals(ranks, |_| fingerprint());
    assert_all_say(&all, "did not connect to rank 0 within 1 s: 2;");
}

#[test]
fn duplicate_ranks_are_rejected() {
    let mut ranks = world(3);
    ranks[2].rank = 1;
    let all = refusals(ranks, |_| fingerprint());
    assert_all_say(&all, "two processes claim to be rank 1");
}

#[test]
fn missing_rank_0_error_names_the_address() {
    let mut ranks = world(2);
    ranks.remove(0);
    ranks[0].join_timeout = Duration::from_millis(300);
    let address = format!("127.0.0.1:{}", ranks[0].port);
    let all = refusals(ranks, |_| fingerprint());
    assert!(
        all[0].contains("rank 1 cannot reach rank 0 at") && all[0].contains(&address),
        "{all:?}"
    );
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let mut ranks = world(2);
    ranks.truncate(1);
    ranks[0].port = taken.local_addr().expect("bound").port();
    let all = refusals(ranks, |_| fingerprint());
    assert!(
        all[0].contains("cannot listen on 127.0.0.1:") && all[0].contains("WAVEMILL_PORT"),
        "{all:?}"
    );
}

#[test]
fn unrelated_connections_are_ignored() {
    let ranks = world(2);
    let address = ("127.0.0.1", ranks[0].port);

    let mut other = ranks[1].clone();
    other.token = "another job".to_owned();
    other.join_timeout = Duration::from_secs(1);

    let take_part = |group: RingGroup, _| group.barrier().and_then(|()| group.finish()).is_ok();
    let (first, second) = (ranks[0].clone(), ranks[1].clone());
    let (here, joined) = std::thread::scope(|scope| {
        let host = scope.spawn(|| each_join(vec![first], |_| fingerprint(), take_part));

        let silent = std::iter::repeat_with(|| TcpStream::connect(address))
            .find_map(Result::ok)
            .expect("rank 0 listens at some time");

        let mut talker = TcpStream::connect(address).expect("rank 0 listens");
        talker
            .write_all(b"GET / HTTP/1.1\r\n\r\n")
            .expect("it reads");

        let turned_away = refusals(vec![other], |_| fingerprint());
        assert!(
            turned_away[0].contains("another job is listening there"),
            "{turned_away:?}"
        );

        let guest = each_join(vec![second], |_| fingerprint(), take_part);

        drop((silent, talker));
        (host.join().expect("no panic"), guest)
    });

    assert!(
        here.into_iter()
            .chain(joined)
            .all(|result| result.expect("joined"))
    );
}

#[test]
fn silently_lost_rank_is_reported_to_all_others() {
    let heard = each_join(
        world(3),
        |_| fingerprint(),
        |group, heard| {
            if group.rank() == 1 {
                return None;
            }

            let error = group.barrier().expect_err("one is missing").to_string();
            Some((told(&heard), error))
        },
    );

    for (watchdog, barrier) in heard
        .into_iter()
        .filter_map(|result| result.expect("joined"))
    {
        assert!(
            watchdog.contains("rank 1 ended: its connection closed"),
            "{watchdog}"
        );
        assert!(barrier.contains("rank 1 ended"), "{barrier}");
    }
}

#[test]
fn error_message_of_a_failed_rank_reaches_all_others() {
    for failing in [0, 2] {
        let heard = each_join(
            world(3),
            |_| fingerprint(),
            |group, heard| {
                if group.rank() == failing {
                    group.fail("disk full");
                    return None;
                }

                Some(told(&heard))
            },
        );

        for message in heard
            .into_iter()
            .filter_map(|result| result.expect("joined"))
        {
            assert!(
                message.contains(&format!("rank {failing} ended: disk full")),
                "{message}"
            );
        }
    }
}

#[test]
fn ranks_may_end_at_different_times() {
    let heard = each_join(
        world(3),
        |_| fingerprint(),
        |group, heard| {
            std::thread::sleep(Duration::from_millis(200) * group.rank() as u32);
            group.finish().expect("all finish");
            drop(group);
            heard.recv_timeout(Duration::from_millis(500)).ok()
        },
    );

    for loss in heard {
        assert_eq!(loss.expect("joined"), None);
    }
}

#[test]
fn autograd_sums_over_ranks_forward_and_backward() {
    let results = each_join(
        world(2),
        |_| fingerprint(),
        |group, _| {
            let group: &'static RingGroup = Box::leak(Box::new(group));
            let own = Tensor::from_slice(&[1.0 + group.rank() as f64]).set_requires_grad(true);
            let total = ffi::sum_over_ranks(&own, sum_group(group)).expect("all take part");

            // Expected gradient of Σ over ranks of weight · total²: 2 · 3 · (1 + 10).
            let weight = [1.0, 10.0][group.rank()];
            (&total * &total * weight).sum(Kind::Double).backward();

            group.finish().expect("all finish");
            (total.double_value(&[0]), own.grad().double_value(&[0]))
        },
    );

    for result in results {
        assert_eq!(result.expect("joined"), (3.0, 66.0));
    }
}
