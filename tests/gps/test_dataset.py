"""Labels with their age, and states to restart from."""

from __future__ import annotations

import numpy as np
import pytest

from mppi_agent.gps.dataset import LabelBatch, LabelDataset, StateArchive, label_batch
from mppi_agent.interfaces import EnvState


def labels(start: int, num: int) -> LabelBatch:
    """Return labels whose observation, action and weight tell their number."""
    numbers = np.arange(start, start + num, dtype=np.float64)
    return LabelBatch(numbers[:, None], 10 * numbers[:, None], numbers + 1)


def states(first: int, num: int) -> list[EnvState]:
    return [EnvState(np.array([i]), np.array([float(i)])) for i in range(first, first + num)]


def test_drawn_labels_stay_together_and_all_are_drawn():
    dataset = LabelDataset(half_life=5, capacity=100)
    dataset.add(labels(0, 4), 0)
    dataset.add(labels(4, 3), 0)
    drawn = dataset.sample(500, 0, np.random.default_rng(0))
    assert len(dataset) == 7 and len(drawn) == 500
    numbers = drawn.observations[:, 0]
    assert set(numbers) == set(range(7))  # missing one of 7 has a chance of 1e-32
    np.testing.assert_array_equal(drawn.actions[:, 0], 10 * numbers)
    np.testing.assert_array_equal(drawn.weights, numbers + 1)


def test_a_label_is_drawn_half_as_often_after_a_half_life():
    dataset = LabelDataset(half_life=4, capacity=100)
    dataset.add(labels(0, 10), 0)
    dataset.add(labels(10, 10), 4)
    num = 20_000
    drawn = dataset.sample(num, 9, np.random.default_rng(0))
    old = (drawn.observations[:, 0] < 10).sum()
    # Binomial with chance 1/3: five standard deviations, failure probability 6e-7.
    assert abs(old - num / 3) < 5 * np.sqrt(num * 2 / 9)


def test_large_rounds_are_drawn_more_often():
    dataset = LabelDataset(half_life=4, capacity=100)
    dataset.add(labels(0, 30), 0)
    dataset.add(labels(30, 10), 0)
    num = 10_000
    drawn = dataset.sample(num, 0, np.random.default_rng(0))
    large = (drawn.observations[:, 0] < 30).sum()
    assert abs(large - 0.75 * num) < 5 * np.sqrt(num * 0.75 * 0.25)


def test_the_oldest_rounds_go_first_when_it_is_full():
    dataset = LabelDataset(half_life=5, capacity=10)
    for number in range(5):
        dataset.add(labels(4 * number, 4), number)
    assert len(dataset) == 8
    drawn = dataset.sample(500, 5, np.random.default_rng(0))
    assert set(drawn.observations[:, 0]) == set(range(12, 20))
    dataset.add(labels(100, 50), 6)  # larger than all the room: kept, alone
    assert len(dataset) == 50


def test_labels_of_another_training_are_not_of_rounds_to_come():
    dataset = LabelDataset(half_life=4, capacity=100)
    dataset.add(labels(0, 10), 596)
    dataset.add(labels(10, 10), 600)
    dataset.date_back_to(0)
    dataset.add(labels(20, 10), 4)
    num = 21_000
    drawn = dataset.sample(num, 4, np.random.default_rng(0)).observations[:, 0]
    # Chances of 1 to 2 to 4; five standard deviations, failure probability 6e-7 each.
    for first, share in ((0, 1 / 7), (10, 2 / 7), (20, 4 / 7)):
        count = ((first <= drawn) & (drawn < first + 10)).sum()
        assert abs(count - num * share) < 5 * np.sqrt(num * share * (1 - share))
    recent = LabelDataset(half_life=4, capacity=100)
    recent.add(labels(0, 10), 3)
    recent.date_back_to(7)  # what is of the past stays as it is
    recent.add(labels(10, 10), 7)
    drawn = recent.sample(num, 7, np.random.default_rng(0)).observations[:, 0]
    assert abs((drawn < 10).sum() - num / 3) < 5 * np.sqrt(num * 2 / 9)


def test_no_labels_no_sample():
    dataset = LabelDataset(half_life=5, capacity=10)
    dataset.add(labels(0, 0), 0)
    assert len(dataset) == 0
    assert dataset.sample(3, 0, np.random.default_rng(0)) is None


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_labels_that_are_all_very_old_are_still_drawn():
    dataset = LabelDataset(half_life=50, capacity=10)
    dataset.add(labels(0, 4), 0)
    drawn = dataset.sample(100, 60_000, np.random.default_rng(0))
    assert set(drawn.observations[:, 0]) == set(range(4))


def test_dict_observations_are_drawn_by_rows():
    dataset = LabelDataset(half_life=5, capacity=100)
    for number in range(2):
        rows = np.arange(3) + 3 * number
        seen = {"a": rows[:, None], "b": 2 * rows}
        dataset.add(LabelBatch(seen, rows[:, None], np.ones(3)), number)
    drawn = dataset.sample(50, 1, np.random.default_rng(0))
    np.testing.assert_array_equal(drawn.observations["b"], 2 * drawn.observations["a"][:, 0])
    np.testing.assert_array_equal(drawn.observations["a"], drawn.actions)


def test_single_labels_become_a_batch():
    batch = label_batch([{"a": np.array([1.0])}, {"a": np.array([2.0])}], [np.zeros(3)] * 2, [1, 2])
    np.testing.assert_array_equal(batch.observations["a"], [[1.0], [2.0]])
    assert batch.actions.shape == (2, 3)
    assert len(batch) == 2 and batch.weights.dtype == np.float64


def test_starts_are_drawn_from_the_expert_as_often_as_asked():
    archive = StateArchive(capacity=100)
    archive.add_student(states(0, 10))
    archive.add_expert(states(100, 10))
    assert len(archive) == 20
    num = 2000
    for share in (0.0, 0.3, 1.0):
        drawn = archive.draw(num, share, np.random.default_rng(0))
        from_expert = sum(state.physics[0] >= 100 for state in drawn)
        assert abs(from_expert - share * num) <= 5 * np.sqrt(num * share * (1 - share))


def test_an_archive_of_one_kind_serves_what_it_has():
    for add, first in (("add_student", 0), ("add_expert", 100)):
        archive = StateArchive(capacity=100)
        getattr(archive, add)(states(first, 3))
        for share in (0.0, 1.0):
            drawn = archive.draw(50, share, np.random.default_rng(0))
            assert {int(state.physics[0]) for state in drawn} == {first, first + 1, first + 2}


def test_the_students_oldest_states_go_first_and_the_experts_stay():
    archive = StateArchive(capacity=5)
    archive.add_expert(states(100, 3))
    archive.add_student(states(0, 20))
    drawn = archive.draw(500, 0.5, np.random.default_rng(0))
    assert {int(state.physics[0]) for state in drawn} == {*range(15, 20), 100, 101, 102}


def test_an_empty_archive_says_so():
    with pytest.raises(ValueError, match="archive is empty: add states"):
        StateArchive(capacity=5).draw(1, 0.5, np.random.default_rng(0))
