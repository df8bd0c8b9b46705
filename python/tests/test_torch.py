"""Loading in PyTorch: workers, epochs, resume, ranks and training."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import tempfile
import unittest
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import wavemill as wm

import clips

try:
    import torch
    import torch.utils.data
    import wavemill.torch as wt
    from torch.utils.data import DataLoader
except ImportError:
    torch = None  # type: ignore[assignment]

try:
    from torchdata.stateful_dataloader import StatefulDataLoader
except ImportError:
    StatefulDataLoader = None


def keys_of(batches: Iterable[dict[str, Any]]) -> list[list[int]]:
    return [batch["key"].tolist() for batch in batches]


def send_two_epochs(data: wt.IterableDataset, queue: Any) -> None:
    """Read epoch 0 and then epoch 5 with persistent workers; runs in processes of the tests."""
    loader = DataLoader(data, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    queue.put(keys_of(loader))
    data.set_epoch(5)
    queue.put(keys_of(loader))


@unittest.skipIf(torch is None, "torch is not installed")
class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.store = wm.open(clips.store())

    def setUp(self) -> None:
        caught = warnings.catch_warnings()
        caught.__enter__()
        self.addCleanup(caught.__exit__, None, None, None)
        # More workers than the machine has cores are intended here.
        warnings.filterwarnings("ignore", message=".*create .* worker processes in total")

    def data(self, **arguments: Any) -> wt.IterableDataset:
        return wt.IterableDataset(self.store.dataset("log_mel", **{"batch_size": 4, "seed": 7, **arguments}))

    def expected(self, epoch: int = 0, **arguments: Any) -> list[list[int]]:
        """Return the keys of an epoch as torch's numbers."""
        dataset = self.store.dataset("log_mel", **{"batch_size": 4, "seed": 7, **arguments})
        dataset.set_epoch(epoch)
        return [batch["key"].view(np.int64).tolist() for batch in dataset]


class Tensors(Case):
    def test_tensors_share_the_memory_of_the_arrays(self) -> None:
        batch = next(iter(DataLoader(self.data(), batch_size=None)))
        arrays = next(iter(self.store.dataset("log_mel", batch_size=4, seed=7)))
        self.assertEqual(set(batch), set(arrays))
        for name, array in arrays.items():
            np.testing.assert_array_equal(batch[name].numpy().view(array.dtype), array)
        self.assertEqual(batch["log_mel"].dtype, torch.float16)
        self.assertEqual(batch["label"].dtype, torch.int64)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tensor = next(iter(self.data()))["log_mel"]
        self.assertEqual(tensor.numpy().ctypes.data, tensor.data_ptr())
        tensor.add_(1.0)

    def test_rows_are_collated(self) -> None:
        rows = wt.Dataset(self.store.map("log_mel", split="test"))
        self.assertEqual(len(rows), 16)
        self.assertEqual(tuple(rows[3]["log_mel"].shape), (16, 32))
        want = next(iter(self.store.dataset("log_mel", split="test")))
        for n_workers in (0, 2):
            context = "fork" if n_workers else None
            loader = DataLoader(rows, batch_size=16, num_workers=n_workers, multiprocessing_context=context)
            batch = next(iter(loader))
            for name, values in want.items():
                np.testing.assert_array_equal(batch[name].numpy().view(values.dtype), values)

    @unittest.skipUnless(torch is not None and torch.cuda.is_available(), "no CUDA device")
    def test_memory_is_pinned_on_request(self) -> None:
        pinned = wt.IterableDataset(self.data().dataset, pin_memory=True)
        for loader in (pinned, DataLoader(self.data(), batch_size=None, pin_memory=True)):
            batch = next(iter(loader))
            self.assertEqual({name: tensor.is_pinned() for name, tensor in batch.items()}, dict.fromkeys(batch, True))
            moved = batch["log_mel"].to("cuda", non_blocking=True)
            torch.cuda.synchronize()
            torch.testing.assert_close(moved.cpu(), batch["log_mel"])


class Workers(Case):
    def test_workers_share_the_batches_in_order(self) -> None:
        for context in ("fork", "spawn"):
            for n_workers in (1, 2, 3):
                data = self.data()
                # Use the dataset before forking, so that it is open.
                self.assertEqual(keys_of(data), self.expected())
                loader = DataLoader(data, batch_size=None, num_workers=n_workers, multiprocessing_context=context)
                self.assertEqual(len(loader), 14)
                with self.subTest(context=context, n_workers=n_workers):
                    self.assertEqual(keys_of(loader), self.expected())
                if context == "spawn" and n_workers == 2:
                    break

    def test_a_fork_during_an_iteration_is_safe(self) -> None:
        data = self.data(prefetch_batches=4)
        iterator = iter(data)
        next(iterator)
        loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
        self.assertEqual(keys_of(loader), self.expected())
        self.assertEqual(keys_of(iterator), self.expected()[1:])

    def test_epochs_reach_workers(self) -> None:
        for persistent in (False, True):
            data = self.data()
            loader = DataLoader(
                data, batch_size=None, num_workers=2, persistent_workers=persistent, multiprocessing_context="fork"
            )
            for epoch in (0, 1, 1, 5):
                with self.subTest(persistent=persistent, epoch=epoch):
                    data.set_epoch(epoch)
                    self.assertEqual(keys_of(loader), self.expected(epoch))

    def test_epochs_reach_only_the_workers_of_their_process(self) -> None:
        for method in ("fork", "spawn"):
            data = self.data()
            loader = DataLoader(
                data, batch_size=None, num_workers=2, persistent_workers=True, multiprocessing_context="fork"
            )
            self.assertEqual(keys_of(loader), self.expected())

            context = multiprocessing.get_context(method)
            queue = context.Queue()
            process = context.Process(target=send_two_epochs, args=(data, queue))
            process.start()
            epochs = [queue.get(timeout=120) for _ in range(2)]
            process.join(60)
            with self.subTest(method=method):
                self.assertEqual(epochs, [self.expected(0), self.expected(5)])
                self.assertEqual(keys_of(loader), self.expected(0))

    def test_workers_of_each_rank_have_its_rows(self) -> None:
        whole = self.expected()
        parts = []
        for rank in range(3):
            data = self.data(rank=rank, world_size=3)
            parts.append(keys_of(DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")))
        for number, batch in enumerate(whole):
            self.assertEqual(sum((part[number] for part in parts), []), batch)

    def test_copies_are_equal(self) -> None:
        data = self.data()
        data.set_epoch(2)
        self.assertEqual(keys_of(pickle.loads(pickle.dumps(data))), self.expected(2))


class Resume(Case):
    def test_state_of_the_dataset(self) -> None:
        data = self.data()
        iterator = iter(DataLoader(data, batch_size=None))
        seen = keys_of(next(iterator) for _ in range(5))
        state = data.state_dict()
        self.assertEqual(state["batch"], 5)
        for n_workers in (0, 2):
            resumed = self.data()
            resumed.load_state_dict(state)
            resumed.set_epoch(0)
            context = "fork" if n_workers else None
            loader = DataLoader(resumed, batch_size=None, num_workers=n_workers, multiprocessing_context=context)
            with self.subTest(n_workers=n_workers):
                self.assertEqual(seen + keys_of(loader), self.expected())

    def test_workers_continue_from_a_state_once(self) -> None:
        for persistent in (False, True):
            data = self.data()
            loader = DataLoader(
                data, batch_size=None, num_workers=2, persistent_workers=persistent, multiprocessing_context="fork"
            )
            with self.subTest(persistent=persistent):
                # Workers that live on learn of the state after their first pass.
                self.assertEqual(keys_of(loader), self.expected())
                for epoch, n_batches in ((0, 3), (2, 13), (2, 0)):
                    data.load_state_dict({**data.state_dict(), "epoch": epoch, "batch": n_batches})
                    self.assertEqual(keys_of(loader), self.expected(epoch)[n_batches:])
                    self.assertEqual(keys_of(loader), self.expected(epoch))

                data.load_state_dict({**data.state_dict(), "epoch": 1, "batch": 4})
                self.assertEqual(keys_of(loader), self.expected(1)[4:])
                # Nor does this process continue there, with or without the epoch.
                self.assertEqual(keys_of(data), self.expected(1))
                data.set_epoch(1)
                self.assertEqual(keys_of(loader), self.expected(1))

    @unittest.skipIf(StatefulDataLoader is None, "torchdata is not installed")
    def test_stateful_data_loader(self) -> None:
        for n_workers in (0, 1, 2, 3):
            for n_batches in (0, 1, 5, 14):
                with self.subTest(n_workers=n_workers, n_batches=n_batches):
                    arguments: dict[str, Any] = {"batch_size": None, "num_workers": n_workers}
                    if n_workers:
                        arguments["multiprocessing_context"] = "fork"
                    data = self.data()
                    data.set_epoch(3)
                    loader = StatefulDataLoader(data, **arguments)
                    iterator = iter(loader)
                    seen = keys_of(next(iterator) for _ in range(n_batches))
                    state = pickle.loads(pickle.dumps(loader.state_dict()))
                    del iterator

                    resumed = StatefulDataLoader(self.data(), **arguments)
                    resumed.load_state_dict(state)
                    self.assertEqual(seen + keys_of(resumed), self.expected(3))


def train(folder: str, store: str, rank: int, world_size: int, n_batches: int, resume: bool) -> None:
    """Train a small CNN for some batches as one of several processes, and save state and keys."""
    meeting = f"file://{folder}/{world_size}"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    torch.manual_seed(0)
    data = wt.IterableDataset(wm.open(store).dataset("log_mel", batch_size=6, seed=1))
    assert (data.dataset.rank, data.dataset.world_size) == (rank, world_size)
    model = torch.nn.Sequential(
        torch.nn.Conv1d(16, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool1d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 4),
    )
    if resume:
        checkpoint = torch.load(f"{folder}/checkpoint.pt", weights_only=True)
        model.load_state_dict(checkpoint["model"])
        data.load_state_dict(checkpoint["data"])
    model = torch.nn.parallel.DistributedDataParallel(model)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    keys: list[int] = []
    for number, batch in enumerate(DataLoader(data, batch_size=None)):
        logits = model(batch["log_mel"].float() / 80.0)
        loss = torch.nn.functional.cross_entropy(logits, batch["label"], ignore_index=-1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        keys += batch["key"].tolist()
        if number + 1 == n_batches:
            break
    torch.save(keys, f"{folder}/keys-{world_size}-{rank}.pt")
    if rank == 0:
        torch.save({"model": model.module.state_dict(), "data": data.state_dict()}, f"{folder}/checkpoint.pt")
    torch.distributed.barrier()
    # The process ends in the middle of the epoch, with batches read ahead.
    os._exit(0)


#: The program `wavemill-train`, which the tests of the package do not build.
TRAINER = os.environ.get("WAVEMILL_TRAINER") or shutil.which("wavemill-train")


class Training(Case):
    @unittest.skipIf(TRAINER is None, "wavemill-train is not on PATH, and WAVEMILL_TRAINER is not set")
    def test_the_trainer_sees_the_same_batches(self) -> None:
        # Weights that do not change give each step of the trainer the loss of its batch.
        settings = ["optimizer.lr=1e-30", "model.dropout=0.0", "train.epochs=2", "data.batch_size=6", "seed=7"]
        for world_size in (1, 2, 3):
            with self.subTest(world_size=world_size), tempfile.TemporaryDirectory() as folder:
                fit = ["fit", "--store", self.store.path, "--model", "lstm", "--nproc", str(world_size), "--runs", folder]
                self.trainer(*fit, *(word for setting in settings for word in ("--set", setting)))
                run = next(Path(folder).iterdir())
                self.trainer("export", str(run), "--format", "torchscript", "--out", f"{folder}/model.pt")
                model = torch.jit.load(f"{folder}/model.pt").eval()

                losses = []
                for epoch in (0, 1):
                    ranks = [self.data(batch_size=6, rank=rank, world_size=world_size) for rank in range(world_size)]
                    for data in ranks:
                        data.set_epoch(epoch)
                    for parts in zip(*ranks):
                        rows, labels = (torch.cat([part[name] for part in parts]) for name in ("log_mel", "label"))
                        with torch.no_grad():
                            losses.append(torch.nn.functional.cross_entropy(model(rows.float()), labels).item())
                log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
                steps = [line["values"]["loss"] for line in log if line["kind"] == "step"]
                np.testing.assert_allclose(losses, steps, atol=1e-6)
                self.assertGreater(np.std(steps), 1e-3)

    def trainer(self, *words: str) -> None:
        ran = subprocess.run([str(TRAINER), "--quiet", *words], capture_output=True, text=True, check=False)
        self.assertEqual(ran.returncode, 0, ran.stderr)

    def test_training_continues_on_another_number_of_ranks(self) -> None:
        if not torch.distributed.is_available():
            self.skipTest("torch.distributed is not available")
        context = multiprocessing.get_context("spawn")
        with tempfile.TemporaryDirectory() as folder:
            for world_size, n_batches, resume in ((2, 4, False), (3, 100, True)):
                processes = []
                for rank in range(world_size):
                    args = (folder, str(clips.store()), rank, world_size, n_batches, resume)
                    processes.append(context.Process(target=train, args=args))
                    processes[-1].start()
                for process in processes:
                    process.join(120)
                self.assertEqual([process.exitcode for process in processes], [0] * world_size)

            seen: list[int] = []
            for world_size in (2, 3):
                for rank in range(world_size):
                    seen += torch.load(f"{folder}/keys-{world_size}-{rank}.pt", weights_only=True)
        self.assertEqual(len(seen), 56)
        self.assertEqual(sorted(seen), sorted(sum(self.expected(), [])))


if __name__ == "__main__":
    unittest.main()
