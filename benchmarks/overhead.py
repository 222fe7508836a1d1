"""Measure what MPPIGPS costs as an SB3 model, and append one CSV line per figure.

    python benchmarks/overhead.py

`predict` is timed beside PPO's in one process, alternately, so that both meet the same noise of the
machine; medians of `--rounds`. Times are of the CPU, save for the files, which are wall-clock.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from records import append, provenance
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import (
    CallbackList,
    CheckpointCallback,
    LogEveryNTimesteps,
    StopTrainingOnMaxEpisodes,
)

from mppi_agent.gps import MPPIGPS
from mppi_agent.gps.callbacks import ResumableCheckpoint
from mppi_agent.gps.dataset import LabelBatch, LabelDataset

ENV = "Pendulum-v1"
NUM_LABELS = 100_000
LABELS_PER_ROUND = 100


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=1_000, help="of predict, per round")
    parser.add_argument("--steps", type=int, default=1_000, help="of each training, per round")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for what in args.what:
        for name, value, unit, target in PARTS[what](args):
            row = {"figure": name, "value": float(f"{value:.4g}"), "unit": unit, "target": target}
            append(args.out, {**row, "rounds": args.rounds, **provenance()})
            print(f"{name}: {value:.4g} {unit} (target {target})", flush=True)


Figures = list[tuple[str, float, str, str]]


def predict(args: argparse.Namespace) -> Figures:
    """Compare single predictions with PPO's, of SB3's default size and of ours."""
    ours = MPPIGPS("MlpPolicy", ENV, device="cpu", seed=0)
    same_size = {"net_arch": {"pi": [128, 128], "vf": [128, 128]}}
    models = {
        "MPPIGPS": ours,
        "PPO": PPO("MlpPolicy", ENV, device="cpu", seed=0),
        "PPO of the same size": PPO("MlpPolicy", ENV, policy_kwargs=same_size, device="cpu"),
    }
    observation = np.zeros(3, dtype=np.float32)

    def call(model: Any) -> Callable[[], None]:
        def repeat() -> None:
            for _ in range(args.calls):
                model.predict(observation, deterministic=True)

        return repeat

    seconds = alternate({name: call(model) for name, model in models.items()}, args.rounds)
    median = {name: float(np.median(times)) for name, times in seconds.items()}
    figures = [
        (f"predict, {name}", 1e6 * value / args.calls, "us", "") for name, value in median.items()
    ]
    for name in ("PPO", "PPO of the same size"):
        # Of the ratios of neighbours in time, not of the medians: noise comes in waves.
        ratio = float(np.median(seconds["MPPIGPS"] / seconds[name]))
        figures.append((f"predict, MPPIGPS against {name}", ratio, "ratio", "<= 1.1"))
    return figures


def files(args: argparse.Namespace) -> Figures:
    """Save and load a model that has many labels, without and with them."""
    model = MPPIGPS("MlpPolicy", ENV, device="cpu", seed=0).learn(64)
    model.replay_buffer = _labels()
    plain, labelled = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        for _ in range(args.rounds):
            started = time.perf_counter()
            model.save(path / "model")
            loaded = MPPIGPS.load(path / "model", device="cpu")
            plain.append(time.perf_counter() - started)
            model.save_replay_buffer(path / "labels")
            loaded.load_replay_buffer(path / "labels")
            labelled.append(time.perf_counter() - started)
            assert len(loaded.replay_buffer) == NUM_LABELS
    name = f"save and load, {NUM_LABELS:,} labels"
    return [
        (f"{name}, left out", float(np.median(plain)), "s", "< 2"),
        (f"{name}, kept", float(np.median(labelled)), "s", "< 10"),
    ]


def callbacks(args: argparse.Namespace) -> Figures:
    """Train with the callbacks that do not act in an env of their own, and without any."""
    with tempfile.TemporaryDirectory() as folder:

        def train(callback: Callable[[], CallbackList | None]) -> Callable[[], None]:
            def run() -> None:
                model = MPPIGPS("MlpPolicy", ENV, device="cpu", seed=0)
                model.learn(args.steps, callback())

            return run

        def everything() -> CallbackList:
            freq = 500  # real steps: every few seconds here
            return CallbackList(
                [
                    CheckpointCallback(freq, folder, save_replay_buffer=True),
                    ResumableCheckpoint(f"{folder}/checkpoint.zip", freq),
                    LogEveryNTimesteps(freq),
                    StopTrainingOnMaxEpisodes(10**6),
                ]
            )

        runs = {"without": train(lambda: None), "with": train(everything)}
        seconds = alternate(runs, args.rounds)
    ratio = float(np.median(seconds["with"] / seconds["without"]))
    return [("training with callbacks against one without", ratio, "ratio", "<= 1.05")]


PARTS: dict[str, Callable[[argparse.Namespace], Figures]] = {
    "predict": predict,
    "files": files,
    "callbacks": callbacks,
}


def alternate(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, np.ndarray]:
    """Run each in turn, once to warm up and then `rounds` times; return CPU seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            started = time.process_time()
            run()
            seconds[name].append(time.process_time() - started)
    return {name: np.array(times[1:]) for name, times in seconds.items()}


def _labels() -> LabelDataset:
    """Return labels of `ENV` as a long training leaves them: many small batches."""
    rng = np.random.default_rng(0)
    dataset = LabelDataset(half_life=50.0, capacity=NUM_LABELS)
    for round_number in range(NUM_LABELS // LABELS_PER_ROUND):
        observations = rng.normal(size=(LABELS_PER_ROUND, 3))
        actions = rng.uniform(-1, 1, (LABELS_PER_ROUND, 1))
        labels = LabelBatch(observations.astype(np.float32), actions, np.ones(LABELS_PER_ROUND))
        dataset.add(labels, round_number)
    return dataset


if __name__ == "__main__":
    main()
