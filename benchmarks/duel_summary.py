"""Ranks, wins and ratios to the winner from the lines of a duel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["mean_returns", "print_summary", "ranks", "ratios_to_winner"]

_TIE = 1e-3  # of the winner's return: what rounding and luck of the last digit may differ by


def mean_returns(rows: Sequence[Mapping[str, str]]) -> dict[tuple[str, str], dict[str, float]]:
    """Average over the seeds that all planners of one env have in common.

    Args:
        rows: Lines of a duel; of two with the same env, planner, budget, length and seed the later
            one counts.

    Returns:
        Mean return by planner, by env and by budget (with the number of steps where episodes were
        cut): {(budget, env): {planner: mean}}.
    """
    found: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    for row in rows:
        budget = row["budget"] + (f", {row['max_steps']} steps" if row["max_steps"] else "")
        by_planner = found.setdefault((budget, row["env"]), {})
        by_planner.setdefault(row["planner"], {})[row["seed"]] = float(row["return"])
    means = {}
    for key, by_planner in found.items():
        common = set.intersection(*(set(by_seed) for by_seed in by_planner.values()))
        if common:
            means[key] = {
                name: float(np.mean([by_seed[seed] for seed in sorted(common)]))
                for name, by_seed in by_planner.items()
            }
    return means


def ranks(returns: np.ndarray) -> np.ndarray:
    """Rank returns, 1 for the best; those within 0.1 % of each other's size share their rank.

    Args:
        returns: Mean return of each planner, shape (n,).

    Returns:
        Shape (n,).
    """
    slack = _TIE * np.abs(returns).max()
    ahead = (returns[None] > returns[:, None] + slack).sum(axis=1)
    level = (np.abs(returns[None] - returns[:, None]) <= slack).sum(axis=1)
    return ahead + (level + 1) / 2


def ratios_to_winner(returns: np.ndarray) -> np.ndarray:
    """Compare returns with the best: 1 for the winner, below 1 for the others.

    Where the winner's return is positive, this is the ratio of returns (negative for a negative
    return). Where it is negative, returns are costs, and this is the ratio of costs, the winner's
    on top: with half the winner's score or with twice its cost a planner gets 0.5.

    Args:
        returns: Mean return of each planner, shape (n,).

    Returns:
        Shape (n,).
    """
    best = returns.max()
    if best > 0:
        return returns / best
    if best < 0:
        return best / returns
    return np.where(returns == 0, 1.0, 0.0)


def print_summary(rows: Sequence[Mapping[str, str]], ours: str = "ours") -> None:
    """Print a table per budget and length, then mean rank, wins and lowest ratio of each planner.

    Where a budget has episodes of several lengths, a table of all of them follows.

    Args:
        rows: Lines of a duel.
        ours: The planner whose losses are listed.
    """
    means = mean_returns(rows)
    of_budget: dict[str, list[str]] = {}
    for title in dict.fromkeys(title for title, _ in means):
        of_budget.setdefault(title.partition(",")[0], []).append(title)
        _print_table(
            title, {env: table for (given, env), table in means.items() if given == title}, ours
        )
    for budget, titles in of_budget.items():
        if len(titles) > 1:
            together = {
                f"{env}{title.removeprefix(budget)}": table
                for (title, env), table in means.items()
                if title in titles
            }
            _print_table(f"{budget}, all lengths", together, ours)


def _print_table(title: str, tables: Mapping[str, Mapping[str, float]], ours: str) -> None:
    """Print mean returns by planner, by env, what they sum up to, and where `ours` loses."""
    planners = list(dict.fromkeys(name for table in tables.values() for name in table))
    print(f"\n### {title}\n\n| env | {' | '.join(planners)} |")
    print("|---" * (len(planners) + 1) + "|")
    scores: dict[str, list[tuple[float, float]]] = {name: [] for name in planners}
    lost = []
    for env, table in tables.items():
        returns = np.array(list(table.values()))
        rank, ratio = ranks(returns), ratios_to_winner(returns)
        for i, name in enumerate(table):
            scores[name].append((rank[i], ratio[i]))
        cells = [f"{table[name]:.5g}" if name in table else "" for name in planners]
        print(f"| {env} | {' | '.join(cells)} |")
        mine = dict(zip(table, ratio, strict=True)).get(ours, 1.0)
        if mine < 1 - _TIE:
            lost.append(f"{env} to {list(table)[int(returns.argmax())]} ({mine:.3f})")
    for what, value in _FIGURES.items():
        cells = [value(np.array(scores[name])) for name in planners]
        print(f"| {what} | {' | '.join(cells)} |")
    print(f"\n{ours} loses (ratio to the winner): {'; '.join(lost) or 'nowhere'}")


def _wins(scores: np.ndarray) -> str:
    return f"{int((scores[:, 1] >= 1 - _TIE).sum())} of {len(scores)}"


_FIGURES = {
    "mean rank": lambda scores: f"{scores[:, 0].mean():.2f}",
    "wins, shared ones included": _wins,
    "lowest ratio to the winner": lambda scores: f"{scores[:, 1].min():.2f}",
    "mean ratio to the winner": lambda scores: f"{np.clip(scores[:, 1], 0, 1).mean():.3f}",
}
