#!/usr/bin/env python3
"""Compare our t-SNE map with scikit-learn's of the same vectors: both must preserve neighbourhoods equally well.

usage: map.py --binary PATH
needs: scikit-learn and numpy of requirements.txt

--binary is the built example (`cargo build -p wavemill-scores --example map`). Both programs compute maps
of scikit-learn's 1,797 handwritten digits, of groups in 256 dimensions, and of 100 vectors. The measure is scikit-learn's trustworthiness for
the 12 nearest neighbours: 1 if all neighbours on the map are also neighbours in the original space. Exit code 1 if ours is
more than 0.02 lower, or if a second map of ours differs.
"""
import argparse, json, pathlib, subprocess, sys, tempfile
import numpy as np
from sklearn.datasets import load_digits
from sklearn.manifold import TSNE, trustworthiness

BOUND = 0.02  # maps by scikit-learn itself with different seeds differ by about 0.002
NEIGHBORS = 12
PERPLEXITY = 30
SEED = 1


def cases():
    """Return (name, `[n, width]` f32) of each data set."""
    rng = np.random.default_rng(1)
    yield "digits", load_digits().data.astype(np.float32)
    # Similar to the vectors of a network: not negative, mostly small, with one cluster per class.
    centres = rng.gamma(0.5, 2.0, (12, 256))
    noise = rng.normal(0, 0.8, (1500, 256))
    yield "groups", np.maximum(centres[rng.integers(0, 12, 1500)] + noise, 0).astype(np.float32)
    yield "100 rows", rng.normal(0, 1, (100, 16)).astype(np.float32)


def map_of(binary, vectors, folder):
    """Return our positions as JSON text of x and y."""
    path = pathlib.Path(folder) / "in.f32"
    path.write_bytes(vectors.astype("<f4").tobytes())
    words = [binary, str(path), str(vectors.shape[1]), str(PERPLEXITY), str(SEED)]
    return subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout


def compare(name, vectors, ours):
    """Report whether our positions preserve neighbourhoods as well as scikit-learn's."""
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    theirs = TSNE(perplexity=perplexity, random_state=SEED).fit_transform(vectors)
    neighbors = min(NEIGHBORS, (len(vectors) - 1) // 2)
    own, peer = (trustworthiness(vectors, places, n_neighbors=neighbors) for places in (ours, theirs))
    good = own >= peer - BOUND
    print(f"{'ok  ' if good else 'FAIL'} {name:10} {len(vectors):6} vectors: trustworthiness {own:.4f}, scikit-learn {peer:.4f}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True, help="path of the built example, such as target/debug/examples/map")
    args = parser.parse_args()
    good = True
    with tempfile.TemporaryDirectory() as folder:
        for name, vectors in cases():
            ours = map_of(args.binary, vectors, folder)
            good &= compare(name, vectors, np.array(json.loads(ours)))
            if map_of(args.binary, vectors, folder) != ours:
                print(f"FAIL {name}: a second map has other positions")
                good = False
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
