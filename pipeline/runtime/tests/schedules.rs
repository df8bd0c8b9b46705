//! The memory budget under many schedules of its threads, which shuttle chooses: reader, workers and writer of a run never
//! wait for each other without end, and never hold more than the budget.

#[path = "../src/budget.rs"]
#[expect(dead_code, unreachable_pub, reason = "only what a run calls is tried")]
mod budget;

use shuttle::sync;
use shuttle::sync::atomic::{AtomicU64, Ordering};
use shuttle::sync::mpsc::{Receiver, Sender, channel};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;

use budget::{ByteBudget, Permit};

const BUDGET: u64 = 100;
const FILE: u64 = 10;
/// Bytes of the clips, in plan order: with one waiting row, each still fits.
const CLIPS: [u64; 6] = [40, 80, 80, 20, 60, 80];
/// Bytes of a clip's rows, which wait for those of another clip.
const ROWS: u64 = 20;
const GROUP_CLIPS: usize = 2;
/// One in this many clips has no rows.
const REJECTED: usize = 3;
const SCHEDULES: usize = 2_000;
/// Largest number of preemptions that a schedule of `check_pct` has.
const PREEMPTIONS: usize = 3;

/// Bytes that files, clips and rows hold at least: they are added after the budget gave them, and subtracted before it
/// may take them back.
type Held = Arc<AtomicU64>;

/// Adds bytes that the budget gave.
fn hold(held: &Held, bytes: u64) {
    let before = held.fetch_add(bytes, Ordering::SeqCst);
    assert!(before + bytes <= BUDGET);
}

/// Reads a file. It is held for longer, but may have to give way as soon as its clip waits to be admitted.
fn read_file(held: &Held) {
    hold(held, FILE);
    held.fetch_sub(FILE, Ordering::SeqCst);
}

/// Reads and computes clips until there are no more, as each reader of a run does.
fn read(order: &Mutex<usize>, budget: &ByteBudget, held: &Held, rows: &Sender<Permit>) {
    loop {
        // Files are taken in plan order, so the lock is held while this waits.
        let mut next = order.lock().expect("no panic");
        let seq = *next;
        if seq == CLIPS.len() {
            return;
        }
        let mut permit = budget.enter_file(seq, FILE).expect("it fits");
        *next += 1;
        drop(next);

        read_file(held);
        while !permit.admit(seq, CLIPS[seq]).expect("it fits") {
            permit.retake(seq, FILE).expect("it fits");
            read_file(held);
        }
        hold(held, CLIPS[seq]);

        if seq % REJECTED == REJECTED - 1 {
            held.fetch_sub(CLIPS[seq], Ordering::SeqCst);
            continue;
        }
        held.fetch_sub(CLIPS[seq] - ROWS, Ordering::SeqCst);
        permit.holds(ROWS);
        rows.send(permit).expect("the writer waits");
    }
}

/// Writes the rows of two clips at a time.
fn write(rows: &Receiver<Permit>, held: &Held, budget: &ByteBudget) {
    let mut group = Vec::new();
    for permit in rows {
        // Without this guard nothing would be busy between `taken` and the end of the group, and a clip that waits
        // would be refused.
        let busy = budget.busy();
        permit.taken();
        group.push(permit);
        if group.len() == GROUP_CLIPS {
            held.fetch_sub(ROWS * GROUP_CLIPS as u64, Ordering::SeqCst);
            group.clear();
        }
        drop(busy);
    }
}

/// A run with three readers and a writer.
fn run() {
    let budget = ByteBudget::new(BUDGET);
    let held = Held::default();
    let order = Arc::new(Mutex::new(0));
    let (sender, receiver) = channel();

    let mut threads = Vec::new();
    for _ in 0..3 {
        let (order, budget, held) = (order.clone(), budget.clone(), held.clone());
        let sender = sender.clone();
        threads.push(thread::spawn(move || read(&order, &budget, &held, &sender)));
    }
    threads.push(thread::spawn(move || write(&receiver, &held, &budget)));

    drop(sender);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

#[test]
fn under_random_schedules_every_clip_is_admitted() {
    shuttle::check_random(run, SCHEDULES);
}

#[test]
fn under_schedules_with_few_preemptions_every_clip_is_admitted() {
    shuttle::check_pct(run, SCHEDULES, PREEMPTIONS);
}
