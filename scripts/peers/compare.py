"""Shared by the scripts that compare features with those of another library on clips. Each prints a line per comparison and
ends with exit code 1 if one exceeds its bound.
"""
import argparse, pathlib, subprocess, sys, tempfile, wave
import numpy as np
from scipy import stats

RECIPE = """
name = "peer"
[catalog]
dataset = "folders"
[audio]
sample_rate_hz = {rate}
min_duration_s = 0.1
max_duration_s = 3600
{features}
"""

# Statistics of the rows of an array, in the order in which a tensor and the columns of FMA have them.
STATISTICS = {
    "kurtosis": lambda x: stats.kurtosis(x, axis=1),
    "max": lambda x: x.max(1),
    "mean": lambda x: x.mean(1),
    "median": lambda x: np.median(x, axis=1),
    "min": lambda x: x.min(1),
    "skew": lambda x: stats.skew(x, axis=1),
    "std": lambda x: x.std(1),
}
#: Their differences are relative to the value, or to 1 if it is smaller: near 0 a relative difference means nothing.
MOMENTS = ("kurtosis", "skew")


def moment_scale(wanted):
    return np.maximum(np.abs(wanted), 1.0)


def read_wav(path):
    """Return samples in -1..1 and the sample rate of a 16-bit mono WAV."""
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2), f"{path}: not 16-bit mono"
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(np.float32) / np.float32(32768), file.getframerate()


class Comparison:
    """The command line, a temporary folder, and the result of all comparisons."""

    def __init__(self, doc, add_options=lambda parser: None, n_clips="+"):
        parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--wavemill", default="target/debug/wavemill", help="path of wavemill (default: %(default)s)")
        parser.add_argument("clips", nargs=n_clips, type=pathlib.Path, metavar="CLIP")
        add_options(parser)
        self.options = parser.parse_args()
        self.clips, self.failed = self.options.clips, False
        self._folder = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self._folder.name)

    def run(self, *words):
        subprocess.run([self.options.wavemill, *map(str, words)], check=True)

    def feature(self, clip, rate, features, name):
        """Return the tensor of a feature of a clip; `features` is the recipe's TOML of all features."""
        recipe, out = self.folder / "recipe.toml", self.folder / "out.npy"
        recipe.write_text(RECIPE.format(rate=rate, features=features))
        self.run("features", clip, "--recipe", recipe, "--feature", name, "--format", "npy", "--out", out)
        return np.load(out)[0]

    def line(self, is_ok, text):
        """Print the result of one comparison."""
        self.failed |= not is_ok
        print(f"{'ok  ' if is_ok else 'FAIL'} {text}")

    def end(self):
        self._folder.cleanup()
        sys.exit(1 if self.failed else 0)
