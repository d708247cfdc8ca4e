"""Odd options, configuration files, simulations and descriptions of imports: an error with four lines, or a result."""

import dataclasses

import numpy as np
import pytest
import yaml

import ptycho_backend as pb
from ptycho_backend.cli import main
from ptycho_backend.compat.predecessor.migration import migrate
from ptycho_backend.config import from_dict, load_yaml, to_dict
from ptycho_backend.simulation.simulate import SimulationConfig

CONFIGS = (pb.TrainingConfig, pb.ExecutionConfig, pb.InferenceConfig, pb.ImportConfig)


def replaced(values, draw, odd_value, share):
    """Return a nested mapping with some values replaced, and sometimes with an unknown key."""
    changed = {
        key: replaced(value, draw, odd_value, share)
        if isinstance(value, dict)
        else odd_value()
        if draw.random() < share
        else value
        for key, value in values.items()
    }
    return changed | ({str(odd_value()): odd_value()} if draw.random() < share / 10 else {})


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_values_of_a_configuration(config, seed, draw, odd_value, outcome):
    values = replaced(to_dict(config()), draw, odd_value, 0.1)
    result = outcome(from_dict, config, values, "a test")
    assert isinstance(result, (config, pb.PtychoError))
    if isinstance(result, config):
        for field in dataclasses.fields(config):
            number = getattr(result, field.name)
            assert not isinstance(number, float) or np.isfinite(number)


def test_texts_of_a_yaml_file(seed, draw, odd_value, damaged, outcome, tmp_path):
    values = {"training": to_dict(pb.TrainingConfig()), "execution": to_dict(pb.ExecutionConfig())}
    text = yaml.safe_dump(replaced(values, draw, odd_value, 0.05), allow_unicode=True)
    odd = ("&a [*a]", "!!python/object:os.system x", "? [a]: b", "2020-13-45", "0x", "\t", "---", "%YAML 3", "<<: 5")
    content = text.encode() + odd[draw.integers(len(odd))].encode() if draw.random() < 0.5 else damaged(text.encode())
    (tmp_path / "odd.yaml").write_bytes(content)
    result = outcome(load_yaml, tmp_path / "odd.yaml", pb.TrainingConfig)
    assert isinstance(result, (pb.TrainingConfig, pb.PtychoError))


def test_settings_of_a_simulation(seed, draw, odd_value, outcome):
    names = [field.name for field in dataclasses.fields(SimulationConfig)]
    extreme = (1e-300, 1e-6, 1, 2, 16, 17, 100, 10**7, 10**12, 1e30, 1e300)
    fields = {"N": 32, "n_positions": 9}
    for name in draw.choice(names, draw.integers(1, 3), replace=False):
        fields[str(name)] = extreme[draw.integers(len(extreme))] if draw.random() < 0.7 else odd_value()
    result = outcome(pb.simulate_scan, **fields)
    assert isinstance(result, pb.PtychoError) or np.isfinite(result.patterns).all()


def test_options_of_the_predecessor(seed, draw, odd_value, outcome):
    old = {
        "N": 64,
        "n_filters_scale": 2,
        "probe_mask": False,
        "nepochs": 5,
        "mae_weight": 0.0,
        "model": {"gridsize": 1},
    }
    result = outcome(migrate, replaced(old, draw, odd_value, 0.5))
    assert isinstance(result, pb.PtychoError) or isinstance(result.values, dict)


COMMANDS = ("info", "reconstruct", "train", "evaluate", "convert", "simulate", "migrate", "import")
OPTIONS = (
    "--output",
    "--N",
    "--config",
    "--overwrite",
    "--quiet",
    "--json",
    "--help",
    "--training.model.N",
    "--resize",
)


def test_words_of_a_command_line(seed, draw, odd_value, tmp_path, monkeypatch, capsys):
    """Any words end with status 0, 1 or 2, and never with a traceback."""
    monkeypatch.chdir(tmp_path)
    words = [
        *COMMANDS,
        "--output",
        "--N",
        "--config",
        "--overwrite",
        "--quiet",
        "--json",
        "--help",
        "--training.model.N",
    ]
    line = [str(draw.choice(COMMANDS))]
    for _ in range(draw.integers(0, 5)):
        line.append(str(draw.choice(words)) if draw.random() < 0.6 else str(odd_value())[:4000].replace("\0", ""))
    try:
        status = main(line)
    except SystemExit as error:
        status = error.code
    assert status in (0, 1, 2), line
    assert "Traceback" not in capsys.readouterr().err
