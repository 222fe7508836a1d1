"""Measure how well coarse models rank plans, and write benchmarks/fidelity.csv.

python benchmarks/fidelity.py                                # the eleven MuJoCo tasks
python benchmarks/fidelity.py Walker2d-v5 --substeps 1 2 4
"""

from __future__ import annotations

import argparse
from pathlib import Path

from records import append, provenance

from mppi_agent.bench import bench_fidelity

ENVS = (
    *("InvertedPendulum-v5", "InvertedDoublePendulum-v5", "Reacher-v5", "Pusher-v5"),
    *("Swimmer-v5", "HalfCheetah-v5", "Hopper-v5", "Walker2d-v5"),
    *("Ant-v5", "Humanoid-v5", "HumanoidStandup-v5"),
)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="*", metavar="ENV", default=ENVS)
    parser.add_argument("--substeps", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--num-states", type=int, default=8)
    parser.add_argument("--num-samples", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".csv"))
    args = parser.parse_args()
    if args.envs == ENVS:
        args.out.unlink(missing_ok=True)
    for env_id in args.envs:
        reports = bench_fidelity(
            env_id,
            args.substeps,
            num_states=args.num_states,
            num_samples=args.num_samples,
            repeats=args.repeats,
        )
        for report in reports:
            print(f"{env_id:26} {report}", flush=True)
            figures = {
                name: round(value, 4) if isinstance(value, float) else value
                for name, value in report.as_dict().items()
            }
            append(args.out, {"env": env_id, **figures, **provenance()})


if __name__ == "__main__":
    main()
