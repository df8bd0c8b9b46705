#!/usr/bin/env python3
"""Compares the batches of a store in an object store with those of its copy on a disk.

usage: scripts/peers/stream.py STORE ADDRESS [--feature NAME] [--batch-size N]

Reads each epoch from the folder, from the address without local copies of rows, with copies that are made meanwhile, and
with copies that exist; the second half of each epoch with a dataset that continues from a state. Prints a line of JSON for
each, with rows per second and the seconds in which requests were not answered. Ends with status 1 if any row differs.
WAVEMILL_CACHE must name an empty folder."""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time

import wavemill as wm

EPOCHS = 2
#: Limits of local copies: the first has room for tables only.
WAYS = {"disk": "", "streamed": "1MiB", "copied meanwhile": "1GiB", "copied before": "1GiB"}


def read(place: str, options: argparse.Namespace) -> dict[str, object]:
    """Returns the hash of all batches, and the time for them."""
    opened = time.monotonic()
    store = wm.open(place)
    first, second = (
        store.dataset(options.feature, target=None, batch_size=options.batch_size, seed=3, shuffle=True)
        for _ in range(2)
    )
    started = time.monotonic()
    hashed, rows = hashlib.blake2b(), 0
    for epoch in range(EPOCHS):
        first.set_epoch(epoch)
        batches = iter(first)
        for _ in range(len(first) // 2):
            rows += add(hashed, next(batches))
        batches.close()
        second.load_state_dict(first.state_dict())
        for batch in second:
            rows += add(hashed, batch)
    seconds = time.monotonic() - started
    traffic = wm.object_store_traffic()
    return {
        "hash": hashed.hexdigest(), "rows": rows, "open_s": round(started - opened, 2), "read_s": round(seconds, 2),
        "rows_per_s": round(rows / seconds), "received_mb": round(traffic["bytes"] / 1e6, 1),
        "waited_s": round(traffic["waited_s"], 2),
    }


def add(hashed: "hashlib.blake2b", batch: dict[str, object]) -> int:
    for name in sorted(batch):
        hashed.update(name.encode() + repr(batch[name].shape).encode())
        hashed.update(batch[name].tobytes() if batch[name].dtype != object else repr(batch[name].tolist()).encode())
    return len(next(iter(batch.values())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("store")
    parser.add_argument("address")
    parser.add_argument("--feature", default="log_mel")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--way", choices=WAYS, help="only one of the ways, in this process")
    options = parser.parse_args()

    if options.way:
        print(json.dumps(read(options.store if options.way == "disk" else options.address, options)))
        return
    hashes = set()
    for way, limit in WAYS.items():
        command = [sys.executable, *sys.argv, "--way", way]
        used = subprocess.run(command, env=os.environ | {"WAVEMILL_CACHE_LIMIT": limit or "1GiB"}, stdout=subprocess.PIPE)
        if used.returncode:
            sys.exit(used.returncode)
        found = json.loads(used.stdout)
        hashes.add(found.pop("hash"))
        print(json.dumps({"way": way} | found), flush=True)
    if len(hashes) > 1:
        sys.exit("rows or their order differ")


if __name__ == "__main__":
    main()
