"""Settings as files and as a line of the presets table."""

from __future__ import annotations

import ast
import json

import pytest

from mppi_agent.planning import (
    PRESETS,
    MPPIConfig,
    cubic_basis,
    load_preset,
    preset_line,
    save_preset,
)

CONFIG = MPPIConfig(horizon=40, knot_spacing=8, noise_std=0.3, knot_interpolation=cubic_basis)


def test_what_was_saved_is_read_back(tmp_path):
    path = tmp_path / "new" / "preset.json"
    save_preset(CONFIG, path, env_id="Hopper-v5", measured={"mean_return": 3.5})
    assert load_preset(path) == CONFIG
    content = json.loads(path.read_text())
    assert content["env"] == "Hopper-v5" and content["measured"] == {"mean_return": 3.5}
    assert "num_samples" not in content["settings"]  # a default: it may change


def test_every_built_in_preset_survives_a_file(tmp_path):
    for settings in PRESETS.values():
        config = MPPIConfig(**settings)
        save_preset(config, tmp_path / "preset.json", env_id="any")
        assert load_preset(tmp_path / "preset.json") == config


def test_the_line_for_the_table_is_python_that_gives_the_settings():
    config = MPPIConfig(horizon=40, noise_std=0.3)
    line = preset_line("some.package:some/Env-v0", config, "12.0 in 3 episodes")
    assert line.startswith("# 12.0 in 3 episodes\n")
    (env_id, settings), *_ = ast.literal_eval("{" + line + "\n}").items()
    assert env_id == "some/Env-v0" and MPPIConfig(**settings) == config


@pytest.mark.parametrize(
    "text",
    ["no json", "[]", "{}", '{"settings": {"horizn": 3}}', '{"settings": 3}'],
)
def test_a_file_that_is_no_preset_is_refused(text, tmp_path):
    path = tmp_path / "preset.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"preset.json is no preset.*mppi-agent tune"):
        load_preset(path)


def test_settings_out_of_range_keep_their_own_error(tmp_path):
    path = tmp_path / "preset.json"
    path.write_text('{"settings": {"horizon": 0}}')
    with pytest.raises(ValueError, match="horizon=0 must be"):
        load_preset(path)


def test_a_schedule_cannot_be_written(tmp_path):
    config = MPPIConfig(temperature=lambda i: 1.0)
    with pytest.raises(ValueError, match=r"temperature=.* cannot be written to a file"):
        save_preset(config, tmp_path / "preset.json", env_id="any")
