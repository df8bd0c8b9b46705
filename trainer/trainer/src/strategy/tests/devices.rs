//! Tests of groups with different devices. Only the last test needs two GPUs; it is ignored and must be run by name.

use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::groups::each_join;
use super::*;
use crate::strategy::ring::through_host;

/// Runs `body` on each rank of a job with the given devices, each rank in a thread.
fn each_device<R: Send>(
    devices: &[Device],
    body: impl Fn(&'static dyn Collective) -> R + Sync,
) -> Vec<Result<R, String>> {
    std::thread::scope(|scope| {
        let body = &body;
        let mut threads = Vec::new();
        for (ranks, &device) in world(devices.len()).into_iter().zip(devices) {
            threads.push(scope.spawn(move || {
                let joined = join(&ranks, &fingerprint(), device, no_loss(), |_| ());
                let group = joined.map_err(|error| error.to_string())?;
                let result = body(group);
                group.finish().expect("all finish");
                Ok(result)
            }));
        }

        threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"))
            .collect()
    })
}

fn one_and_two(group: &dyn Collective, device: Device) -> f64 {
    let mut tensor = Tensor::full([3], group.rank() as f64 + 1.0, (Kind::Float, device));
    group.sum(&mut tensor).expect("all take part");
    tensor.double_value(&[2])
}

#[test]
fn mixed_devices_are_reported_on_all_ranks() {
    for error in each_device(&[Device::Cpu, Device::Cuda(0), Device::Cpu], |_| ()) {
        let error = error.expect_err("mixed");
        assert_eq!(
            error,
            "rank 1 has device cuda, rank 0 has cpu: it must be the same on all ranks"
        );
    }
}

#[test]
fn ranks_on_cpus_sum_by_the_ring_after_joining() {
    let sums = each_device(&[Device::Cpu; 2], |group| {
        (one_and_two(group, Device::Cpu), format!("{group:?}"))
    });

    for sum in sums {
        let (sum, group) = sum.expect("joined");
        assert!(
            sum == 3.0 && group.starts_with("RingGroup"),
            "{sum}, {group}"
        );
    }
}

#[test]
fn gpus_that_nobody_can_ask_are_joined_without_nccl_and_without_a_panic() {
    // GPU indices that exist on no machine, so the driver, if there is one, reports an error.
    let sums = each_device(&[Device::Cuda(4000), Device::Cuda(4001)], |group| {
        // CPU tensors are summed in the same way in every group.
        (one_and_two(group, Device::Cpu), format!("{group:?}"))
    });

    for sum in sums {
        let (sum, group) = sum.expect("joined");
        assert!(
            sum == 3.0 && group.starts_with("RingGroup"),
            "{sum}, {group}"
        );
    }
}

#[test]
fn a_copy_in_host_memory_is_summed_and_copied_back() {
    let results = each_rank(2, |group| {
        let mut tensor = Tensor::full(
            [2, 3],
            group.rank() as f64 + 1.0,
            (Kind::Double, Device::Cpu),
        );
        let before = tensor.data_ptr();

        through_host(group.rank(), &mut tensor, |copy| {
            assert!(copy.data_ptr() != before, "a copy, or this tests nothing");
            group.sum(copy)
        })
        .expect("all take part");
        assert_eq!(tensor.data_ptr(), before);

        let mut odd = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu)).tr();
        let refused = through_host(group.rank(), &mut odd, |copy| group.sum(copy))
            .expect_err("not contiguous");
        assert!(matches!(refused, RankError::Tensor { .. }), "{refused}");

        Vec::<f64>::try_from(tensor.view(-1)).expect("flat")
    });

    assert_eq!(results, [[3.0; 6], [3.0; 6]]);
}

#[test]
fn failed_check_of_one_rank_ends_all_with_its_message() {
    let heard = each_join(
        world(3),
        |_| fingerprint(),
        |group, heard| {
            if group.rank() == 1 {
                group.watch(Box::new(|| None));
                group.watch(Box::new(|| {
                    Some("NCCL's sum over ranks: a CUDA call failed".to_owned())
                }));
            }

            heard
                .recv_timeout(Duration::from_secs(9))
                .expect("within seconds")
        },
    );

    for message in heard {
        let message = message.expect("joined");
        assert!(
            message.starts_with("rank 1 ended: NCCL's sum over ranks: a CUDA call failed"),
            "{message}"
        );
    }
}

#[test]
#[ignore = "needs two GPUs and NCCL"]
fn gpus_sum_by_nccl() {
    assert!(
        ffi::load_cuda().is_ok() && tch::Cuda::device_count() >= 2,
        "two GPUs"
    );

    let results = each_device(&[Device::Cuda(0), Device::Cuda(1)], |group| {
        assert!(format!("{group:?}").starts_with("NcclGroup"), "{group:?}");

        let device = Device::Cuda(group.rank());
        let variable = Tensor::zeros([7], (Kind::Float, device)).set_requires_grad(true);
        (variable.sum(Kind::Float) * (group.rank() as f64 + 1.0)).backward();

        let mut extras = Tensor::full([1], 0.5, (Kind::Double, device));
        let mut buckets = Buckets::new(&[("v".to_owned(), variable.shallow_clone())]);
        buckets.reduce(group, &mut extras).expect("all take part");

        let own = Tensor::full([1], group.rank() as f64 + 1.0, (Kind::Double, device))
            .set_requires_grad(true);
        let total = ffi::sum_over_ranks(&own, sum_group(group)).expect("all take part");
        (&total * &total).sum(Kind::Double).backward();

        [
            one_and_two(group, device),
            variable.grad().double_value(&[6]),
            extras.double_value(&[0]),
            own.grad().double_value(&[0]),
        ]
    });

    for result in results {
        assert_eq!(result, Ok([3.0, 3.0, 1.0, 12.0]));
    }
}
