//! The memory budget: clips wait, give way and are refused.

use std::time::Duration;

use wavemill_runtime::budget::{ByteBudget, Refusal};

/// Asserts that clip `seq` of `bytes` is only admitted after `then` was called.
fn passes_only_after(budget: &ByteBudget, seq: usize, bytes: u64, then: impl FnOnce()) {
    let (sender, receiver) = crossbeam_channel::bounded(1);

    std::thread::scope(|scope| {
        // The sender is dropped with the thread, so a panic in the thread ends the test.
        scope.spawn(move || {
            drop(budget.enter(seq, bytes).expect("it fits in the end"));
            sender.send(()).expect("the receiver is alive");
        });

        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        then();
        receiver.recv().expect("it passes now");
    });
}

#[test]
fn clip_waits_until_enough_memory_is_returned() {
    let budget = ByteBudget::new(100);
    let mut first = budget.enter(0, 80).expect("it fits");
    passes_only_after(&budget, 1, 60, || first.holds(40));
}

#[test]
fn a_clip_waits_for_a_row_group_that_is_being_written() {
    let budget = ByteBudget::new(100);
    let first = budget.enter(0, 80).expect("it fits");
    let group = budget.busy();
    first.taken();
    passes_only_after(&budget, 1, 60, || drop((first, group)));
}

#[test]
fn a_clip_that_fits_beside_no_waiting_rows_is_refused_and_never_overdraws() {
    let budget = ByteBudget::new(100);
    let mut first = budget.enter(0, 80).expect("it fits");
    first.holds(60);
    first.taken();

    assert_eq!(
        budget.enter(1, 41).err(),
        Some(Refusal::Full {
            needed: 101,
            waiting: 60
        })
    );

    drop(budget.enter(1, 40).expect("it fits"));
    assert_eq!(
        budget.take(101).err(),
        Some(Refusal::Full {
            needed: 101,
            waiting: 0
        })
    );
}

#[test]
fn unwritten_rows_block_further_clips() {
    let budget = ByteBudget::new(100);
    let first = budget.enter(0, 80).expect("it fits");
    passes_only_after(&budget, 1, 50, || drop(first));
}

/// A clip that waits while another clip ends sees either all bytes of the other clip released or none.
#[test]
fn finished_clip_returns_its_memory_atomically() {
    for _ in 0..2_000 {
        let budget = ByteBudget::new(100);
        let first = budget.enter(0, 80).expect("it fits");
        let is_waiting = std::sync::Barrier::new(2);

        std::thread::scope(|scope| {
            let second = scope.spawn(|| {
                is_waiting.wait();
                budget.enter(1, 50).map(drop)
            });

            is_waiting.wait();
            drop(first);
            assert_eq!(second.join().expect("no panic"), Ok(()));
        });
    }
}

/// The second file was read ahead. The first clip needs its memory: the file is dropped, and read again after it.
#[test]
fn prefetched_files_yield_to_earlier_clips() {
    let budget = ByteBudget::new(100);
    let mut first = budget.enter_file(0, 20).expect("it fits");
    let mut second = budget.enter_file(1, 20).expect("it fits");

    std::thread::scope(|scope| {
        let admitted = scope.spawn(move || first.admit(0, 90).map(|is_in| (is_in, first)));
        assert_eq!(second.admit(1, 60), Ok(false));

        let (is_in, first) = admitted.join().expect("no panic").expect("it fits");
        assert!(is_in);

        let again = scope.spawn(move || second.retake(1, 20).and_then(|()| second.admit(1, 60)));
        std::thread::sleep(Duration::from_millis(20));
        drop(first);
        assert_eq!(again.join().expect("no panic"), Ok(true));
    });

    // With a file left, this clip would wait for it to give way.
    let full = Refusal::Full {
        needed: 101,
        waiting: 0,
    };
    assert_eq!(budget.enter(2, 101).err(), Some(full));
}

#[test]
fn waiters_are_released_when_the_run_fails() {
    let budget = ByteBudget::new(100);
    let mut second = budget.enter_file(1, 25).expect("it fits");
    std::thread::scope(|scope| {
        let waits = scope.spawn(move || second.admit(1, 60));
        budget.close();
        assert_eq!(waits.join().expect("no panic"), Err(Refusal::Closed));
    });
}
