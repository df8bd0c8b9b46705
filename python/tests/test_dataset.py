"""Loading for training: order, resume, values, lengths, processes, signals and damage."""

from __future__ import annotations

import copy
import gc
import json
import logging
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import wavemill as wm

import clips


def keys_of(batches: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [batch["key"].tolist() for batch in batches]


def keys_of_epoch(dataset: wm.Dataset) -> list[list[int]]:
    """Return the keys of the batches of an epoch; runs in processes of the tests."""
    return keys_of(dataset)


def send_keys(dataset: wm.Dataset, queue: Any) -> None:
    queue.put(keys_of_epoch(dataset))


def continue_parents_iterator(dataset: wm.Dataset, iterator: Any, queue: Any) -> None:
    """Use a dataset and an iterator of the parent process after a fork, and drop both."""
    try:
        next(iterator)
        queue.put("no error")
    except RuntimeError as error:
        queue.put(str(error))
    queue.put(keys_of_epoch(dataset))
    del dataset, iterator
    gc.collect()
    queue.put("dropped")


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.store = wm.open(clips.store())
        cls.ragged = wm.open(clips.store(same_length=False))


class Order(Case):
    def dataset(self, **arguments: Any) -> wm.Dataset:
        return self.store.dataset("log_mel", batch_size=10, **arguments)

    def test_each_row_occurs_once_per_epoch_in_another_order(self) -> None:
        rows = sorted(self.store.map("log_mel")[:]["key"].tolist())
        dataset = self.dataset(seed=3)
        orders = []
        for epoch in range(3):
            dataset.set_epoch(epoch)
            keys = keys_of(dataset)
            self.assertEqual([len(batch) for batch in keys], [10, 10, 10, 10, 10, 6])
            self.assertEqual(sorted(sum(keys, [])), rows)
            orders.append(keys)
        self.assertNotEqual(orders[0], orders[1])
        self.assertNotEqual(orders[1], orders[2])

        dataset.set_epoch(1)
        self.assertEqual(keys_of(dataset), orders[1], "the same epoch")
        self.assertNotEqual(keys_of(self.dataset(seed=4)), orders[0])
        self.assertEqual(keys_of(self.dataset(seed=3, readers=1, prefetch_batches=1)), orders[0])

    def test_other_splits_are_in_the_order_of_the_files(self) -> None:
        dataset = self.dataset(split="test")
        self.assertEqual(len(dataset), 2)
        rows = self.store.map("log_mel", split="test")
        self.assertEqual(sum(keys_of(dataset), []), [int(row["key"]) for row in rows])
        shuffled = sum(keys_of(self.dataset(split="test", shuffle=True)), [])
        self.assertNotEqual(shuffled, sum(keys_of(dataset), []))

    def test_batches_of_all_ranks_together_are_those_of_one(self) -> None:
        whole = keys_of(self.dataset())
        for world_size in (1, 2, 3, 4):
            ranks = [self.dataset(rank=rank, world_size=world_size) for rank in range(world_size)]
            self.assertEqual({len(dataset) for dataset in ranks}, {6})
            parts = [keys_of(dataset) for dataset in ranks]
            for number, batch in enumerate(whole):
                with self.subTest(world_size=world_size, batch=number):
                    self.assertEqual(sum((part[number] for part in parts), []), batch)

    def test_last_batch_is_dropped_if_asked(self) -> None:
        dataset = self.dataset(drop_last=True)
        self.assertEqual(len(dataset), 5)
        self.assertEqual([len(batch) for batch in keys_of(dataset)], [10] * 5)

    def test_resume_on_another_number_of_ranks_sees_each_row_once(self) -> None:
        whole = keys_of(self.dataset(seed=5))
        for before, after in ((1, 3), (3, 2), (2, 1)):
            for n_batches in (0, 1, 4, 6):
                with self.subTest(before=before, after=after, n_batches=n_batches):
                    seen: list[int] = []
                    states = []
                    for rank in range(before):
                        dataset = self.dataset(seed=5, rank=rank, world_size=before, prefetch_batches=16)
                        iterator = iter(dataset)
                        for _ in range(n_batches):
                            seen += next(iterator)["key"].tolist()
                        # Batches that were only read ahead are not part of the state.
                        states.append(json.dumps(dataset.state_dict()))
                    self.assertEqual(len(set(states)), 1, states)
                    state = json.loads(states[0])
                    self.assertEqual((state["epoch"], state["batch"]), (0, n_batches))

                    for rank in range(after):
                        dataset = self.dataset(seed=5, rank=rank, world_size=after)
                        dataset.load_state_dict(state)
                        dataset.set_epoch(0)
                        for batch in dataset:
                            seen += batch["key"].tolist()
                    self.assertEqual(sorted(seen), sorted(sum(whole, [])))

    def test_position_is_that_of_the_latest_iterator(self) -> None:
        dataset = self.dataset()
        first = iter(dataset)
        next(first)
        next(first)
        self.assertEqual(dataset.state_dict()["batch"], 2)
        second = iter(dataset)
        self.assertEqual(dataset.state_dict()["batch"], 0)
        next(first)
        next(second)
        self.assertEqual(dataset.state_dict()["batch"], 1)

        state = dataset.state_dict()
        dataset.set_epoch(4)
        next(second)
        self.assertEqual((dataset.epoch, dataset.state_dict()["batch"]), (4, 0))
        dataset.load_state_dict(state)
        self.assertEqual(keys_of(dataset), keys_of(self.dataset())[1:])
        self.assertEqual(keys_of(dataset), keys_of(self.dataset()), "only the first iterator continues")
        self.assertEqual(dataset.state_dict()["batch"], 6)

    def test_states_of_other_orders_are_refused(self) -> None:
        state = self.dataset().state_dict()
        for arguments in ({"seed": 1}, {"drop_last": True}, {"split": "test"}, {"shuffle_window": 2}):
            with self.subTest(**arguments), self.assertRaises(wm.UsageError) as caught:
                self.dataset(**arguments).load_state_dict(state)
            self.assertIn(next(iter(arguments)), str(caught.exception))
        with self.assertRaisesRegex(wm.UsageError, "manifest is"):
            self.ragged.dataset("log_mel", batch_size=10).load_state_dict(state)
        with self.assertRaisesRegex(wm.UsageError, "no state of|not a state of"):
            self.dataset().load_state_dict({"epoch": 1, "batch": 1})
        with self.assertRaisesRegex(wm.UsageError, "batch"):
            self.dataset().load_state_dict({**state, "batch": -1})

    def test_ranks_come_from_the_environment(self) -> None:
        dataset = self.dataset()
        self.assertEqual((dataset.rank, dataset.world_size), (0, 1))
        whole = keys_of(dataset)
        passed_on = pickle.loads(pickle.dumps(dataset))
        with mock.patch.dict(os.environ, {"RANK": "1", "WORLD_SIZE": "2"}):
            self.assertEqual((passed_on.rank, passed_on.world_size), (1, 2), "pickled before the ranks were known")
            self.assertEqual((dataset.rank, dataset.world_size), (1, 2))
            self.assertEqual(keys_of(dataset), [batch[len(batch) // 2 :] for batch in whole])
            self.assertEqual(self.dataset(rank=0, world_size=1).world_size, 1)
            moved = pickle.loads(pickle.dumps(dataset))
        self.assertEqual((moved.rank, moved.world_size), (1, 2), "pickled with its rank")
        with mock.patch.dict(os.environ, {"RANK": "2", "WORLD_SIZE": "2"}):
            with self.assertRaisesRegex(wm.UsageError, "RANK=2"):
                iter(dataset)


class Values(Case):
    def test_batches_have_the_rows_of_the_files(self) -> None:
        try:
            import pyarrow.parquet as pq
        except ImportError:
            self.skipTest("pyarrow is not installed")
        cases = [
            ("log_mel", np.float16, (16, 32), "zstd"),
            ("log_mel", np.float16, (16, 32), "none"),
            ("mfcc", np.float32, (32, 5), "zstd"),
            ("picture", np.uint8, (3, 16, 32), "lz4"),
        ]
        for feature, dtype, shape, compression in cases:
            root = clips.store(compression=compression)
            stored = {}
            for file in sorted(root.glob(f"data/*/features/{feature}/split=training/*.parquet")):
                table = pq.read_table(file, partitioning=None).to_pydict()
                for track, genre, value in zip(table["track_id"], table["genre"], table[feature], strict=True):
                    stored[track] = (genre, np.frombuffer(value, dtype).reshape(shape))

            dataset = wm.open(root).dataset(feature, batch_size=10)
            self.assertEqual((dataset.shape, dataset.dtype), (shape, dtype))
            seen = []
            for batch in dataset:
                self.assertEqual((batch[feature].shape[1:], batch[feature].dtype), (shape, dtype))
                for place, track in enumerate(batch["track_id"]):
                    genre, tensor = stored[int(track)]
                    self.assertEqual(batch["label"][place], genre)
                    np.testing.assert_array_equal(batch[feature][place], tensor)
                    seen.append(int(track))
            self.assertEqual(sorted(seen), sorted(stored), (feature, compression))

    def test_labels(self) -> None:
        dataset = self.store.dataset("log_mel")
        self.assertEqual(dataset.classes, clips.GENRES)
        batch = next(iter(dataset))
        kinds = {name: values.dtype.name for name, values in batch.items()}
        numbers = {"label": "int64", "key": "uint64", "track_id": "int64", "segment": "int64"}
        self.assertEqual(kinds, {"log_mel": "float16", **numbers})
        self.assertEqual(np.bincount(batch["label"]).tolist(), dataset.class_counts)
        self.assertNotIn("label", next(iter(self.store.dataset("log_mel", target=None))))

    def test_arrays_own_their_memory_until_they_are_dropped(self) -> None:
        dataset = self.store.dataset("log_mel", batch_size=8, prefetch_batches=2)
        kept = [batch["log_mel"] for batch in dataset]
        copies = [tensor.copy() for tensor in kept]
        del dataset
        gc.collect()
        self.assertEqual(len({tensor.ctypes.data for tensor in kept}), len(kept))
        for tensor, copied in zip(kept, copies, strict=True):
            self.assertFalse(tensor.flags.owndata)
            self.assertTrue(tensor.flags.writeable)
            self.assertEqual(type(tensor.base).__name__, "BatchMemory", "a copy")
            np.testing.assert_array_equal(tensor, copied)

    def test_memory_of_dropped_arrays_is_reused(self) -> None:
        dataset = self.store.dataset("log_mel", batch_size=4, prefetch_batches=2, readers=2)
        addresses = set()
        for epoch in range(4):
            dataset.set_epoch(epoch)
            addresses |= {batch["log_mel"].ctypes.data for batch in dataset}
        self.assertLessEqual(len(addresses), 10, "of 56 batches")

    def test_batches_are_taken_by_dlpack(self) -> None:
        tensor = next(iter(self.store.dataset("mfcc")))["mfcc"]
        taken = np.from_dlpack(tensor)
        self.assertEqual(taken.ctypes.data, tensor.ctypes.data)

    def test_rows_by_index(self) -> None:
        rows = self.store.map("log_mel", split="test")
        self.assertEqual(len(rows), 16)
        batch = next(iter(self.store.dataset("log_mel", split="test")))
        for index in (0, 3, 15, -1, np.int64(7)):
            row = rows[index]
            for name, values in batch.items():
                np.testing.assert_array_equal(row[name], values[index])
        asked = [5, 0, 5, -16]
        for several in (asked, np.array(asked), tuple(asked)):
            np.testing.assert_array_equal(rows[several]["log_mel"], batch["log_mel"][asked])
        for row, key in zip(rows.__getitems__(asked), batch["key"][asked], strict=True):
            self.assertEqual(row["key"], key)
        for part in (slice(2, 9, 3), slice(None, None, -1), slice(20, 30)):
            np.testing.assert_array_equal(rows[part]["log_mel"], batch["log_mel"][part])
        self.assertEqual(len(rows[[]]["key"]), 0)
        self.assertEqual([int(row["key"]) for row in rows], batch["key"].tolist())
        for index in (16, -17):
            with self.assertRaisesRegex(IndexError, "16 rows"):
                rows[index]
        with self.assertRaises(TypeError):
            rows[1.0]  # type: ignore[index]


class Lengths(Case):
    def test_crops_are_drawn_by_seed_epoch_and_row(self) -> None:
        whole = {int(row["key"]): row["log_mel"] for row in self.store.map("log_mel")}

        def crops(epoch: int = 0, **arguments: Any) -> dict[int, bytes]:
            dataset = self.store.dataset("log_mel", crop_frames=20, batch_size=9, **arguments)
            dataset.set_epoch(epoch)
            found = {}
            for batch in dataset:
                self.assertEqual(batch["log_mel"].shape[1:], (16, 20))
                for key, crop in zip(batch["key"].tolist(), batch["log_mel"], strict=True):
                    found[key] = crop.tobytes()
            return found

        first = crops()
        self.assertEqual(len(first), 56)
        starts = set()
        for key, crop in first.items():
            parts = [whole[key][:, start : start + 20].tobytes() for start in range(13)]
            self.assertIn(crop, parts)
            starts.add(parts.index(crop))
        self.assertGreater(len(starts), 8, starts)

        self.assertEqual(crops(readers=1, shuffle=False), first)
        self.assertEqual({**crops(rank=0, world_size=2), **crops(rank=1, world_size=2)}, first)
        self.assertNotEqual(crops(epoch=1), first)
        self.assertNotEqual(crops(seed=1), first)
        rows = self.store.map("log_mel", crop_frames=20)
        self.assertEqual({int(row["key"]): row["log_mel"].tobytes() for row in rows}, first)

    def test_rows_are_padded_to_the_longest_of_the_global_batch(self) -> None:
        whole = {int(row["key"]): row for row in self.ragged.map("mfcc")}
        self.assertGreater(len({row["mfcc"].shape for row in whole.values()}), 10)

        widths = []
        for batch in self.ragged.dataset("mfcc", batch_size=8):
            self.assertEqual(batch["mfcc"].shape, (8, batch["frames"].max(), 5))
            widths.append(batch["mfcc"].shape[1])
            for key, frames, tensor in zip(batch["key"].tolist(), batch["frames"], batch["mfcc"], strict=True):
                np.testing.assert_array_equal(tensor[:frames], whole[key]["mfcc"])
                self.assertFalse(tensor[frames:].any())
        of_rank = [batch["mfcc"].shape[1] for batch in self.ragged.dataset("mfcc", batch_size=8, rank=1, world_size=3)]
        self.assertEqual(of_rank, widths)

    def test_shorter_rows_of_a_crop_are_padded(self) -> None:
        batch = next(iter(self.ragged.dataset("log_mel", crop_frames=40)))
        self.assertEqual(batch["log_mel"].shape, (56, 16, 40))
        self.assertLess(batch["frames"].min(), 40)
        self.assertEqual(batch["frames"].max(), 40)
        for frames, tensor in zip(batch["frames"], batch["log_mel"], strict=True):
            self.assertFalse(tensor[:, frames:].any())
            self.assertTrue(tensor[:, frames - 1].any())

    def test_buckets_save_padding_and_keep_the_rows(self) -> None:
        def read(**arguments: Any) -> tuple[list[list[int]], int]:
            keys, padding = [], 0
            for batch in self.ragged.dataset("log_mel", batch_size=7, **arguments):
                keys.append(batch["key"].tolist())
                padding += int((batch["log_mel"].shape[2] - batch["frames"]).sum())
            return keys, padding

        mixed, padding_of_mixed = read()
        bucketed, padding = read(buckets=4)
        self.assertLess(padding, padding_of_mixed / 2)
        self.assertEqual(sorted(sum(bucketed, [])), sorted(sum(mixed, [])))
        self.assertNotEqual(read(buckets=4, seed=1)[0], bucketed)

        parts = [read(buckets=4, rank=rank, world_size=3)[0] for rank in range(3)]
        for number, batch in enumerate(bucketed):
            self.assertEqual(sum((part[number] for part in parts), []), batch)

        dataset = self.ragged.dataset("log_mel", batch_size=7, buckets=4)
        iterator = iter(dataset)
        seen = keys_of(next(iterator) for _ in range(3))
        resumed = self.ragged.dataset("log_mel", batch_size=7, buckets=4)
        resumed.load_state_dict(dataset.state_dict())
        self.assertEqual(seen + keys_of(resumed), bucketed)


class Processes(Case):
    def dataset(self, **arguments: Any) -> wm.Dataset:
        return self.store.dataset("log_mel", batch_size=4, **arguments)

    def test_a_forked_process_reads_the_same_rows(self) -> None:
        dataset = self.dataset(prefetch_batches=4)
        want = keys_of_epoch(dataset)
        iterator = iter(dataset)
        next(iterator)

        context = multiprocessing.get_context("fork")
        queue = context.Queue()
        process = context.Process(target=continue_parents_iterator, args=(dataset, iterator, queue))
        process.start()
        said = [queue.get(timeout=60) for _ in range(3)]
        process.join(60)
        self.assertEqual(process.exitcode, 0)
        self.assertIn("parent process", said[0])
        self.assertEqual(said[1:], [want, "dropped"])
        self.assertEqual([next(iterator)["key"].tolist() for _ in range(13)], want[1:], "the parent goes on")

    def test_a_spawned_process_reads_the_same_rows(self) -> None:
        dataset = self.dataset(seed=2)
        dataset.set_epoch(3)
        context = multiprocessing.get_context("spawn")
        queue = context.Queue()
        process = context.Process(target=send_keys, args=(dataset, queue))
        process.start()
        got = queue.get(timeout=60)
        process.join(60)
        self.assertEqual(got, keys_of_epoch(dataset))

    def test_copies_continue_where_the_original_is(self) -> None:
        dataset = self.dataset()
        state = {**dataset.state_dict(), "batch": 5}
        dataset.load_state_dict(state)
        want = keys_of(self.dataset())[5:]
        for copied in (copy.deepcopy(dataset), pickle.loads(pickle.dumps(dataset)), dataset):
            self.assertEqual(keys_of(copied), want)
        rows = pickle.loads(pickle.dumps(self.store.map("log_mel")))
        self.assertEqual(len(rows), 56)

    def test_python_threads_share_an_iterator(self) -> None:
        iterator = iter(self.dataset())
        seen: list[list[int]] = []
        lock = threading.Lock()

        def read() -> None:
            while True:
                batch = next(iterator, None)
                if batch is None:
                    return
                with lock:
                    seen.append(batch["key"].tolist())

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(sorted(seen), sorted(keys_of(self.dataset())))

    @unittest.skipUnless(Path("/proc/self/fd").is_dir(), "needs /proc")
    def test_opening_and_closing_leaves_nothing_behind(self) -> None:
        def used() -> tuple[int, int, int]:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), pages * 4096

        def read_one_batch() -> None:
            dataset = self.dataset()
            iterator = iter(dataset)
            next(iterator)
            iterator.close()
            self.assertIsNone(next(iterator, None), "closed")
            next(iter(self.dataset()))

        for _ in range(20):
            read_one_batch()
        before = used()
        for _ in range(200):
            read_one_batch()
        gc.collect()

        # The thread of the last iterator may end a moment after the iterator, also before the first measurement.
        deadline = time.monotonic() + 10
        while (used()[0] > before[0] or used()[1] > before[1]) and time.monotonic() < deadline:
            time.sleep(0.01)
        after = used()
        self.assertLessEqual(after[0], before[0], "threads")
        self.assertLessEqual(after[1], before[1], "descriptors")
        self.assertLess(after[2] - before[2], 4 << 20, "bytes of memory")

    def test_ctrl_c_ends_the_iteration(self) -> None:
        code = """
import signal, sys, threading, wavemill as wm
# A shell's background jobs ignore SIGINT, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
dataset = wm.open(sys.argv[1]).dataset("log_mel", batch_size=2, prefetch_batches=1)
print("ready", flush=True)
try:
    while True:
        for batch in dataset:
            pass
except KeyboardInterrupt:
    print("interrupted", len(next(iter(dataset))["key"]), threading.active_count(), flush=True)
"""
        command = [sys.executable, "-c", code, str(clips.store())]
        for delay_s in (0.05, 0.3):
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "ready\n")
            time.sleep(delay_s)
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            said, _ = process.communicate(timeout=30)
            self.assertEqual((said, process.returncode), ("interrupted 2 1\n", 0))
            self.assertLess(time.monotonic() - sent, 2.0, "until the process ended")

    def test_ctrl_c_ends_waiting_for_a_batch(self) -> None:
        # A pipe in place of a file makes the readers wait for bytes that never come.
        code = """
import os, signal, sys, time, wavemill as wm
from pathlib import Path
# A shell's background jobs ignore SIGINT, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
root = Path(sys.argv[1])
dataset = wm.open(root).dataset("log_mel", batch_size=2)
for file in root.glob("data/*/features/log_mel/split=training/*.parquet"):
    file.unlink()
    os.mkfifo(file)
print("ready", flush=True)
begun = time.monotonic()
try:
    next(iter(dataset))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    os._exit(0)
"""
        with tempfile.TemporaryDirectory() as folder:
            root = shutil.copytree(clips.store(), Path(folder) / "store")
            process = subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True)
            self.addCleanup(process.kill)
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "ready\n")
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
            # The reader threads are still opening the pipes, which nothing but a writer ends.
            time.sleep(0.5)
            for file in root.glob("data/*/features/log_mel/split=training/*.parquet"):
                try:
                    os.close(os.open(file, os.O_WRONLY | os.O_NONBLOCK))
                except OSError:
                    pass
            said, _ = process.communicate(timeout=30)
            self.assertEqual((said, process.returncode), ("interrupted\n", 0))


class BadInput(Case):
    def test_errors_name_the_argument_and_what_there_is(self) -> None:
        cases: list[tuple[str, dict[str, Any]]] = [
            ("feature = mel: the store has log_mel, mfcc, picture", {"feature": "mel"}),
            ("target = mood: the store has genre, genres_all", {"target": "mood"}),
            ("split: ", {"split": "train"}),
            ("split_rule = mood: the store has ", {"split_rule": "mood"}),
            ("batch_size: 0 is not at least 1", {"batch_size": 0}),
            ("batch_size: 2.5 is not a whole number", {"batch_size": 2.5}),
            ("batch_size: 'many' is not a whole number", {"batch_size": "many"}),
            ("seed: -1 is not at least 0", {"seed": -1}),
            ("rank, world_size: ", {"rank": 0}),
            ("rank: 2 is not between 0 and 1", {"rank": 2, "world_size": 2}),
            ("crop_frames: 33: rows of log_mel have 32 frames", {"crop_frames": 33}),
            ("crop_frames: 0 is not at least 1", {"crop_frames": 0}),
            ("crop_frames: rows of picture have no frames", {"feature": "picture", "crop_frames": 3}),
            ("buckets: rows of log_mel all have the same length", {"buckets": 2}),
            ("shuffle_window: 0 is not at least 1", {"shuffle_window": 0}),
            ("readers: 65 is not between 1 and 64", {"readers": 65}),
            ("prefetch_batches: 0 is not between 1 and 1024", {"prefetch_batches": 0}),
        ]
        for message, arguments in cases:
            with self.subTest(**arguments), self.assertRaises(wm.UsageError) as caught:
                self.store.dataset(arguments.pop("feature", "log_mel"), **arguments)
            self.assertEqual(str(caught.exception)[: len(message)], message)
            self.assertEqual(caught.exception.exit_code, 2)
        with self.assertRaisesRegex(wm.UsageError, "epoch: -1"):
            self.store.dataset("log_mel").set_epoch(-1)
        with self.assertRaisesRegex(wm.UsageError, "feature = x"):
            self.store.map("x")

    def test_huge_crops_are_errors(self) -> None:
        for frames in (2**32 - 1, 2**40):
            with self.subTest(frames=frames), self.assertRaises(wm.Error):
                next(iter(self.ragged.dataset("log_mel", crop_frames=frames, batch_size=2**40)))

    def test_damage_is_named_or_left_out(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = shutil.copytree(clips.store(), Path(folder) / "store")
            file = sorted(root.glob("data/*/features/log_mel/split=training/*.parquet"))[1]
            content = bytearray(file.read_bytes())
            content[100] ^= 1
            file.write_bytes(content)
            store = wm.open(root)

            with self.assertRaises(wm.DamagedStoreError) as caught:
                keys_of(store.dataset("log_mel", batch_size=4))
            self.assertIn(str(file), str(caught.exception))
            with self.assertRaises(wm.DamagedStoreError):
                list(store.map("log_mel"))

            with self.assertLogs("wavemill", logging.INFO) as logs:
                dataset = store.dataset("log_mel", skip_damaged=True)
            self.assertRegex("".join(logs.output), f"{56 - dataset.n_rows} rows passed over: {file}")
            self.assertLess(dataset.n_rows, 56)
            self.assertEqual(len(sum(keys_of(dataset), [])), dataset.n_rows)

            file.unlink()
            with self.assertRaisesRegex(wm.DamagedStoreError, "missing"):
                store.dataset("log_mel")
            with self.assertRaises(wm.Error):
                wm.open(Path(folder) / "no store").dataset("log_mel")


if __name__ == "__main__":
    unittest.main()
