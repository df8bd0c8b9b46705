#!/usr/bin/env python3
"""Compare the trainer's numbers with PyTorch's own.

usage: training.py optim [--trajectory FILE]
       training.py export MODEL.pt ROWS.arrow ANSWERS.jsonl
needs: pip install torch==2.11.0 torchvision==0.26.0, and pyarrow for export

optim: fifty steps of small networks (optimisers, clipping, schedules, losses, average of the weights), from the
trainer's example `trajectory`, which is built and run unless FILE contains its output. Every learning rate, loss, norm and
final weight must agree to 1e-6. Prints the largest difference of each trajectory; exit code 1 if it exceeds the bound.

export: a model written by `wavemill-train export --format torchscript` and loaded by PyTorch, on the rows written by
`wavemill features --format arrow`. Its probabilities must equal those of `wavemill-train predict` on the same rows:

    wavemill features a.mp3 b.mp3 --recipe RUN/recipe.toml --feature log_mel --format arrow --out rows.arrow
    wavemill-train predict --run RUN - <rows.arrow >answers.jsonl
    wavemill-train export RUN --format torchscript --out model.pt
"""
import argparse, fnmatch, json, math, pathlib, subprocess, sys, tempfile
import torch
from torch.nn import functional
from torch.optim import lr_scheduler, swa_utils

BOUND = 1e-6
OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def run_example():
    """Return the document that the trainer's example writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "trajectory.json"
        command = ["cargo", "run", "--quiet", "-p", "wavemill-trainer", "--example", "trajectory", "--", "--out", out]
        subprocess.run([str(word) for word in command], check=True)
        return json.loads(out.read_text())


def largest(differences):
    """Return the largest value, or NaN if any value is NaN, which Python's max would ignore."""
    differences = list(differences)
    return math.nan if any(map(math.isnan, differences)) else max(differences)


def tensor(value, dtype):
    return torch.tensor(value["values"], dtype=torch.float64).reshape(value["shape"]).to(dtype)


def make_groups(settings, weights):
    """Return torch's parameter groups, one per variable, and the number of epochs in which each variable is frozen."""
    layers = ["hidden", "genre", "several"]
    groups, frozen = [], {}
    for name, variable in weights.items():
        own = {"lr_factor": 1.0, "weight_decay": None, "frozen_epochs": 0}
        for group in settings.get("groups", []):
            if fnmatch.fnmatchcase(name, group["names"]):
                own = {"frozen_epochs": 0, "weight_decay": None} | group
        above = len(layers) - 1 - layers.index(name.split(".")[0])
        factor = own["lr_factor"] * settings.get("layer_decay", 1.0) ** above
        decay = settings["weight_decay"] if own["weight_decay"] is None else own["weight_decay"]
        groups.append({"params": [variable], "lr": factor * settings["lr"], "weight_decay": decay})
        frozen[name] = own["frozen_epochs"]
    return groups, frozen


def make_optimizer(settings, variables):
    common = {"lr": settings["lr"], "weight_decay": settings["weight_decay"]}
    if settings["name"] == "sgd":
        own = {"momentum": settings["momentum"], "nesterov": settings["nesterov"]}
    else:
        own = {"betas": settings["betas"], "eps": settings["eps"]}
    return OPTIMIZERS[settings["name"]](variables, **common, **own)


def make_schedules(settings, optimizer, steps, steps_per_epoch):
    """Return the schedulers called after each step, after each epoch, and after each epoch with its validation loss."""
    by_step, by_epoch, by_validation = [], [], []
    if warmup := settings.get("warmup_steps"):
        # A LambdaLR sets the rate of each step anew, so it includes the step schedule.
        cut = settings["step"]
        by_step.append(lr_scheduler.LambdaLR(
            optimizer, lambda step: min(step / warmup, 1) * cut["gamma"] ** (step // steps_per_epoch // cut["every_epochs"])
        ))
    elif settings.get("step"):
        step = settings["step"]
        by_epoch.append(lr_scheduler.StepLR(optimizer, step["every_epochs"], step["gamma"]))
    if settings.get("cosine"):
        warmup = settings["cosine"]["warmup_steps"]
        parts = [
            lr_scheduler.LambdaLR(optimizer, lambda step: step / warmup),
            lr_scheduler.CosineAnnealingLR(optimizer, steps - warmup),
        ]
        by_step.append(lr_scheduler.SequentialLR(optimizer, parts, [warmup]))
    if settings.get("plateau"):
        plateau = settings["plateau"]
        mode = "min" if plateau["metric"] == "loss" else "max"
        by_validation.append(lr_scheduler.ReduceLROnPlateau(
            optimizer, mode, factor=plateau["factor"], patience=plateau["patience"], threshold=plateau["threshold"],
        ))
    return by_step, by_epoch, by_validation


class Losses:
    """Return the mean loss of both targets, computed by torch's own loss modules if possible."""

    def __init__(self, document, settings, dtype):
        self.smoothing = settings["label_smoothing"]
        self.mixed = settings["mixup"] > 0
        self.classes, self.partners = (tensor(document[k], torch.int64) for k in ("classes", "partner_classes"))
        self.several, self.lambdas = (tensor(document[k], dtype) for k in ("several", "lambda"))
        self.weights = tensor(document["class_weights"], dtype) if settings["class_weights"] == "balanced" else None
        is_balanced = settings.get("pos_weight") == "balanced"
        self.pos_weights = tensor(document["pos_weights"], dtype) if is_balanced else None
        self.gamma = settings.get("focal_gamma", 0)

    def one(self, genre, several):
        if self.gamma:
            return self.focal(genre, several)
        criterion = torch.nn.CrossEntropyLoss(self.weights, ignore_index=-1, label_smoothing=self.smoothing)
        rows = self.several.any(dim=1)
        weights = self.pos_weights
        binary = functional.binary_cross_entropy_with_logits(several[rows], self.several[rows], pos_weight=weights)
        return (criterion(genre, self.classes) + binary) / 2

    def focal(self, genre, several):
        """Return the focal loss: torchvision's for several labels, and (1 - p)^gamma times cross entropy for one."""
        from torchvision.ops import sigmoid_focal_loss

        rows = self.several.any(dim=1)
        binary = sigmoid_focal_loss(several[rows], self.several[rows], alpha=-1, gamma=self.gamma, reduction="mean")
        labelled = self.classes >= 0
        loss = functional.cross_entropy(genre[labelled], self.classes[labelled], reduction="none")
        return (((1 - (-loss).exp()) ** self.gamma * loss).mean() + binary) / 2

    def two(self, genre, several):
        """Return the mixup loss: the losses of both labels, weighted by their shares. torch has no such loss."""
        criterion = torch.nn.CrossEntropyLoss(
            self.weights, ignore_index=-1, label_smoothing=self.smoothing, reduction="none"
        )
        weights = torch.ones(genre.shape[1], dtype=genre.dtype) if self.weights is None else self.weights
        totals, of_rows = [0, 0], [0, 0]
        for share, classes, labels in (
            (self.lambdas, self.classes, self.several),
            (1 - self.lambdas, self.partners, self.several.flip(0)),
        ):
            totals[0] += (share * criterion(genre, classes)).sum()
            of_rows[0] += (share * torch.where(classes >= 0, weights[classes.clamp(min=0)], 0)).sum()
            binary = functional.binary_cross_entropy_with_logits(several, labels, reduction="none").mean(dim=1)
            totals[1] += (share * binary * labels.any(dim=1)).sum()
            of_rows[1] += (share * labels.any(dim=1)).sum()
        return (totals[0] / of_rows[0] + totals[1] / of_rows[1]) / 2

    def __call__(self, genre, several):
        return self.two(genre, several) if self.mixed else self.one(genre, several)


def train(document, case):
    """Return the case's steps, final weights and their average as computed by PyTorch, in the same form."""
    dtype = getattr(torch, case["dtype"])
    weights = {name: tensor(value, dtype).requires_grad_() for name, value in case["initial"].items()}
    inputs, losses = tensor(document["inputs"], dtype), Losses(document, case["loss"], dtype)
    groups, frozen = make_groups(case["optimizer"], weights)
    full_rate = case["optimizer"]["lr"] / groups[-1]["lr"]
    optimizer = make_optimizer(case["optimizer"], groups)
    per_epoch = document["steps_per_epoch"]
    by_step, by_epoch, by_validation = make_schedules(case["schedule"], optimizer, len(case["steps"]), per_epoch)
    shared = torch.nn.ParameterList(weights.values())
    average = swa_utils.AveragedModel(shared, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(document["ema_decay"]))
    linear = lambda x, name: functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])
    steps = []
    for step in range(len(case["steps"])):
        for name, variable in weights.items():
            variable.requires_grad_(step // per_epoch >= frozen[name])
        optimizer.zero_grad()
        hidden = linear(inputs, "hidden").tanh()
        loss = losses(linear(hidden, "genre"), linear(hidden, "several"))
        loss.backward()
        most, norm = case["optimizer"]["clip_norm"], None
        if most is not None:
            norm = torch.nn.utils.clip_grad_norm_(weights.values(), most).item()
        rate = full_rate * optimizer.param_groups[-1]["lr"]
        steps.append({"lr": rate, "loss": loss.item(), "norm": norm})
        optimizer.step()
        average.update_parameters(shared)
        for scheduler in by_step:
            scheduler.step()
        epoch, rest = divmod(step + 1, per_epoch)
        if rest == 0:
            validation = document["validations"][epoch - 1]
            for scheduler in by_epoch:
                scheduler.step()
            for scheduler in by_validation:
                scheduler.step(validation if scheduler.mode == "min" else 1 - validation)
    return steps, weights, dict(zip(weights, average.module, strict=True))


def compare(document, case):
    """Print the case's largest differences; return the largest of all."""
    steps, weights, average = train(document, case)
    found = {}
    for key in ("lr", "loss", "norm"):
        pairs = [(ours[key], theirs[key]) for ours, theirs in zip(case["steps"], steps, strict=True)]
        if pairs[0][0] is not None:
            found[key] = largest(abs(a - b) for a, b in pairs)
    for key, ours, theirs in (("weight", case["final"], weights), ("average", case["average"], average)):
        found[key] = largest(
            (tensor(value, torch.float64) - theirs[name].detach()).abs().max().item() for name, value in ours.items()
        )
    print(f"{case['name']}: " + ", ".join(f"{key} {value:.1e}" for key, value in found.items()))
    return largest(found.values())


def optim(args):
    document = json.loads(args.trajectory.read_text()) if args.trajectory else run_example()
    worst = largest(compare(document, case) for case in document["trajectories"])
    print(f"largest {worst:.1e}, bound {BOUND}")
    return int(not worst <= BOUND)


def export(args):
    import numpy
    import pyarrow

    about = json.loads(pathlib.Path(f"{args.model}.json").read_text())
    feature = about["input"]["feature"]
    with pyarrow.OSFile(str(args.rows)) as file:
        table = pyarrow.ipc.open_stream(file).read_all()
    dtype = {"f16": numpy.float16, "f32": numpy.float32}[feature["dtype"]]
    rows = [numpy.frombuffer(row.as_buffer(), dtype).reshape(feature["shape"]) for row in table[feature["name"]]]
    spectrogram = torch.from_numpy(numpy.stack(rows).astype(numpy.float32))
    with torch.no_grad():
        logits = torch.jit.load(args.model).eval()(spectrogram)
    answers = [json.loads(line) for line in args.answers.read_text().splitlines()]
    worst = 0.0
    for output in about["outputs"]:
        start, classes = output["column"], output["classes"]
        part = logits[:, start:start + len(classes)]
        found = torch.sigmoid(part) if output["multi_label"] else torch.softmax(part, 1)
        wanted = [answer for answer in answers if answer["target"] == output["target"] and "segment" in answer]
        if len(wanted) != len(rows):
            sys.exit(f"{len(wanted)} predictions for {len(rows)} rows")
        tops = [(row, classes.index(top["class"]), top["probability"]) for row, a in enumerate(wanted) for top in a["top"]]
        worst = max(worst, largest(abs(found[row, column].item() - p) for row, column, p in tops))
    print(f"{args.model}: {len(rows)} rows, probabilities differ by at most {worst:.1e}")
    return int(not worst <= BOUND)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("optim", help="optimisers, schedules and losses over fifty steps")
    command.add_argument("--trajectory", type=pathlib.Path, help="output of the trainer's example `trajectory`")
    command.set_defaults(run=optim)
    command = commands.add_parser("export", help="a TorchScript export compared with the trainer's own predictions")
    command.add_argument("model", help="FILE.pt, with FILE.pt.json in the same folder")
    command.add_argument("rows", type=pathlib.Path, help="Arrow stream of feature rows")
    command.add_argument("answers", type=pathlib.Path, help="JSON lines of predict for the same rows")
    command.set_defaults(run=export)
    args = parser.parse_args()
    sys.exit(args.run(args))


if __name__ == "__main__":
    main()
