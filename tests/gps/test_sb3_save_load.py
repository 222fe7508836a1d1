"""What SB3's test_save_load.py asks of its algorithms, asked of MPPIGPS.

The name behind "SB3:" is the test there that ours stands for.
"""

from __future__ import annotations

import base64
import io
import json
import pathlib
import tempfile
import zipfile
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv
from toy_envs import make_target
from toy_models import same, small, weights

from mppi_agent.gps import MPPIGPS

SEEN = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)


def answers(model: Any) -> np.ndarray:
    return model.predict(SEEN, deterministic=True)[0]


def scrambled(parameters: dict[str, Any]) -> dict[str, Any]:
    policy = {name: th.rand_like(value) for name, value in parameters["policy"].items()}
    return parameters | {"policy": policy}


def test_parameters_can_be_taken_out_changed_and_put_back():
    """SB3: test_save_load (get_parameters, set_parameters)."""
    model = small().learn(12)
    original = model.get_parameters()
    assert set(original) == {"policy", "policy.optimizer", "label_optimizer"}
    before = weights(model)
    model.set_parameters(scrambled(original))
    assert not same(before, weights(model))
    other = small(seed=9)
    other.set_parameters(original | {"policy": {k: th.tensor(v) for k, v in before.items()}})
    assert same(before, weights(other))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda p: p | {"invisible_network": {}}, ValueError),
        (lambda p: {"policy": p["policy"]}, ValueError),
        (lambda p: p | {"policy": {"log_std": p["policy"]["log_std"]}}, RuntimeError),
    ],
    ids=["unknown object", "missing object", "missing tensor"],
)
def test_parameters_that_do_not_match_exactly_are_refused(spoil, error):
    """SB3: test_save_load (exact_match)."""
    model = small()
    with pytest.raises(error):
        model.set_parameters(spoil(model.get_parameters()), exact_match=True)


def test_some_parameters_may_be_set_alone():
    """SB3: test_save_load (exact_match=False)."""
    model = small()
    model.set_parameters({"policy": {"log_std": th.full((1,), 0.25)}}, exact_match=False)
    assert model.policy.log_std.item() == 0.25


def test_parameters_are_read_from_a_file(tmp_path):
    """SB3: test_save_load (set_parameters with a path)."""
    model, other = small().learn(12), small(seed=5)
    model.save(tmp_path / "model")
    other.set_parameters(str(tmp_path / "model.zip"), device="cpu")
    assert same(weights(model), weights(other))


def test_a_compiled_policy_trains_saves_and_loads(tmp_path):
    """SB3: test_save_load (torch.compile)."""
    model, plain = small(), small()
    model.policy = th.compile(model.policy, backend="eager")
    model.learn(24)
    model.save(tmp_path / "model")
    loaded = MPPIGPS.load(tmp_path / "model", env=make_target(limit=6), device="cpu")
    assert same(weights(plain.learn(24)), weights(loaded))
    np.testing.assert_array_equal(answers(loaded), answers(model))
    loaded.learn(8, reset_num_timesteps=False)


def test_training_goes_on_in_a_new_env_with_exact_counts(tmp_path):
    """SB3: test_set_env."""
    model = small().learn(12)
    assert model.num_timesteps == 12
    model.learn(12, reset_num_timesteps=False)
    assert model.num_timesteps == 24
    model.set_env(make_target(limit=6))
    model.learn(12)
    assert model.num_timesteps == 12
    model.set_env(model.get_env(), force_reset=False)
    model.learn(12, reset_num_timesteps=False)
    assert model.num_timesteps == 24
    model.save(tmp_path / "model")
    two = DummyVecEnv([lambda: make_target(limit=6)] * 2)
    loaded = MPPIGPS.load(tmp_path / "model", env=two, device="cpu")
    assert loaded.n_envs == 2
    loaded.learn(16, reset_num_timesteps=False)
    assert loaded.num_timesteps == 40
    with pytest.raises(AssertionError, match="number of environments"):
        loaded.set_env(make_target())


def test_saved_attributes_can_be_left_out_put_in_and_replaced(tmp_path, capsys):
    """SB3: test_exclude_include_saved_params."""
    model = small(n_epochs=3)
    path = tmp_path / "model"
    model.save(path, exclude=["n_epochs"])
    assert MPPIGPS.load(path).n_epochs == 5  # the default
    model.save(path, exclude=["n_epochs"], include=["n_epochs", "replay_buffer"])
    loaded = MPPIGPS.load(
        path, custom_objects={"learning_rate": 2e-5, "dummy": 1}, print_system_info=True
    )
    assert loaded.n_epochs == 3 and loaded.learning_rate == 2e-5
    assert not hasattr(loaded, "dummy")
    assert "SAVED MODEL SYSTEM INFO" in capsys.readouterr().out


def test_labels_survive_in_the_model_where_asked_for_and_in_their_own_file(tmp_path):
    """SB3: test_save_load_replay_buffer."""
    model = small().learn(12)
    num = len(model.replay_buffer)
    assert num > 0
    model.save(tmp_path / "with", include=["replay_buffer"])
    assert len(MPPIGPS.load(tmp_path / "with").replay_buffer) == num
    model.save(tmp_path / "without")
    loaded = MPPIGPS.load(tmp_path / "without")
    assert len(loaded.replay_buffer) == 0
    model.save_replay_buffer(tmp_path / "labels")
    loaded.load_replay_buffer(tmp_path / "labels", truncate_last_traj=False)  # as the zoo calls it
    drawn = [m.replay_buffer.sample(9, 3, np.random.default_rng(0)) for m in (model, loaded)]
    np.testing.assert_array_equal(drawn[0].actions, drawn[1].actions)


def test_a_file_of_something_else_is_no_label_file(tmp_path):
    from stable_baselines3.common.save_util import save_to_pkl

    save_to_pkl(tmp_path / "labels.pkl", [1, 2])
    with pytest.raises(ValueError, match=r"holds a list, not the labels.*save_replay_buffer"):
        small().load_replay_buffer(tmp_path / "labels.pkl")


def test_the_policy_is_saved_and_loaded_by_itself(tmp_path):
    """SB3: test_save_load_policy."""
    model = small().learn(12)
    model.policy.save(tmp_path / "policy")
    policy = type(model.policy).load(tmp_path / "policy", device="cpu")
    np.testing.assert_array_equal(policy.predict(SEEN, deterministic=True)[0], answers(model))


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_paths_of_both_kinds_and_new_folders_work(tmp_path, kind):
    """SB3: test_open_file_str_pathlib."""
    model = small()
    for name in ("new/folder/model", "model.v2", "model.zip"):
        model.save(kind(tmp_path / name))
        assert same(weights(MPPIGPS.load(kind(tmp_path / name))), weights(model))
    names = {path.name for path in tmp_path.rglob("model*")}
    assert names == {"model.zip", "model.v2"}


@pytest.mark.filterwarnings("error")
def test_files_are_closed_and_buffers_are_not(tmp_path):
    """SB3: test_no_resource_warning, test_open_file."""
    model = small()
    model.save(tmp_path / "model")
    MPPIGPS.load(tmp_path / "model")
    with tempfile.TemporaryFile() as file:
        model.save(file)
        MPPIGPS.load(file)
        assert not file.closed
    buffer = io.BytesIO()
    model.save_replay_buffer(buffer)
    buffer.seek(0)
    model.load_replay_buffer(buffer)
    assert not buffer.closed


def test_an_attribute_that_cannot_be_read_is_named_and_may_be_replaced(tmp_path):
    """SB3: test_load_invalid_object."""
    small(learning_rate=lambda _: 1e-3).save(tmp_path / "model")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(files["data"])
    content = base64.b64decode(data["learning_rate"][":serialized:"])
    broken = base64.b64encode(content.replace(b"CodeType", b"CodeTyps"))
    data["learning_rate"][":serialized:"] = broken.decode()
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as archive:
        for name, content in (files | {"data": json.dumps(data).encode()}).items():
            archive.writestr(name, content)
    with pytest.warns(UserWarning, match="deserialize object learning_rate.*custom_objects"):
        MPPIGPS.load(tmp_path / "broken")
    loaded = MPPIGPS.load(tmp_path / "broken", custom_objects={"learning_rate": 1e-4})
    assert loaded.lr_schedule(1.0) == 1e-4


def test_schedules_give_floats_also_after_a_load(tmp_path):
    """SB3: test_cast_lr_schedule."""
    model = small(learning_rate=lambda progress: progress * np.sin(1.0))
    model.save(tmp_path / "model")
    for one in (model, MPPIGPS.load(tmp_path / "model")):
        assert type(one.lr_schedule(1.0)) is float
        assert one.lr_schedule(0.5) == pytest.approx(0.5 * np.sin(1.0))


def test_an_architecture_of_none_loads(tmp_path):
    """SB3: test_save_load_net_arch_none."""
    model = small(policy_kwargs={"net_arch": None})
    model.save(tmp_path / "model")
    assert same(weights(MPPIGPS.load(tmp_path / "model")), weights(model))
