"""Options: help, precedence, aliases, settings files and errors."""

import dataclasses
import logging
import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ptycho_backend.commands import COMMANDS, info, reconstruct, simulate, train
from ptycho_backend.commands.common import section, yaml_text
from ptycho_backend.commands.help import descriptions
from ptycho_backend.config import (
    ExecutionConfig,
    InferenceConfig,
    ModelConfig,
    TrainingConfig,
    fields_of,
    to_dict,
)
from ptycho_backend.errors import ConfigError, DeprecatedNameWarning
from ptycho_backend.model_file.run import write_config
from ptycho_backend.simulation.simulate import SimulationConfig

CONFIGS = (TrainingConfig, ModelConfig, ExecutionConfig, InferenceConfig, SimulationConfig)


def parsed(*argv, command=train):
    return command.command_line().parse([str(argument) for argument in argv])


def training_of(*argv):
    return section(parsed(*argv), "training", TrainingConfig)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("config_type", CONFIGS)
def test_every_field_has_a_description(config_type):
    texts = descriptions(config_type)
    assert set(texts) == set(fields_of(config_type))
    assert all(texts.values())


def test_descriptions_of_a_numpydoc_docstring():
    class Documented:
        """
        Two things.

        Parameters
        ----------
        first : int
            Count, in
            two lines.
        second : {"a", "b"}
            Choice.

        Notes
        -----
        Not : a parameter.
        """

    assert descriptions(Documented) == {"first": "Count, in two lines.", "second": "Choice."}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command(command, ptychopinn):
    outcome = ptychopinn(command, "--help")
    assert outcome.status == 0
    assert outcome.out.startswith(f"usage: ptychopinn {command}")
    assert "==SUPPRESS==" not in outcome.out
    assert "<class" not in outcome.out
    assert outcome.err == ""


def test_help_lists_every_field(ptychopinn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "112")
    text = ptychopinn("train", "--help-all").out
    for prefix, config_type in (("training", TrainingConfig), ("training.model", ModelConfig)):
        for name, kind in fields_of(config_type).items():
            assert dataclasses.is_dataclass(kind) or f"--{prefix}.{name.replace('_', '-')} " in text
    assert "Groups per evaluation of the network. (default: 32)" in text
    assert "0 takes the scan's. (default: 0)" in text
    assert max(map(len, text.splitlines())) <= 112


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_on_one_page(command, ptychopinn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = ptychopinn(command, "--help").out.splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 80
    assert not any(line.endswith("...") for line in lines)
    assert "--help-all" in lines[-1] + lines[-2]
    complete = ptychopinn(command, "--help-all").out
    assert complete.startswith(f"usage: ptychopinn {command}")
    options = re.findall(r"^  (?:-\w, )?(--[\w.-]+)", "\n".join(lines), re.M)
    assert all(re.search(rf"(?<![\w-]){option}(?![\w-])", complete) for option in options)


def test_help_has_one_spelling(ptychopinn):
    for command in COMMANDS:
        text = ptychopinn(command, "--help-all").out
        assert re.findall(r"--[\w.-]*_[\w.-]*", text) == []
        assert re.findall(r"--[\w.-]+\+", text) == []
        assert not re.search(r"\bNone\b", text)


def test_texts_belong_to_their_own_option(ptychopinn, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    text = " ".join(ptychopinn("train", "--help-all").out.split())
    for option, own in (
        ("--training.batch-size INT", "Groups per batch."),
        ("--inference.batch-size INT", "Groups per evaluation of the network."),
        ("--training.nll-weight FLOAT", "Weight of the Poisson half-deviance of the counts."),
        ("--training.probe-trainable {true,false}", "Training of the probe."),
        ("--inference.probe-iterations INT", "Iterations of probe refinement before the initial object"),
        ("--training.probe-iterations INT", "Iterations of probe refinement before training"),
    ):
        assert f"{option} {own}" in text
    reconstruct_text = ptychopinn("reconstruct", "--help-all").out
    assert "--execution.scheduler" not in reconstruct_text, "an option of the training"
    assert "--execution.device" in reconstruct_text


def test_options_without_effect_are_accepted(ptychopinn):
    outcome = ptychopinn("reconstruct", "--print-config", "--execution.scheduler=constant", "--execution.save-top-k=3")
    assert outcome.status == 0, outcome.err
    execution = yaml.safe_load(outcome.out)["execution"]
    assert (execution["scheduler"], execution["save_top_k"]) == ("constant", 3)


def test_overview_lists_every_command(ptychopinn):
    outcome = ptychopinn("--help")
    assert outcome.status == 0
    assert all(f"  {command} " in outcome.out for command in COMMANDS)
    assert ptychopinn("--version").out.startswith("ptychopinn ")


def test_defaults():
    assert training_of("scan.npz") == TrainingConfig(model=ModelConfig(N=0))


def test_precedence_of_command_line_file_and_default(tmp_path):
    file = write(tmp_path / "run.yaml", "training:\n  nepochs: 7\n  batch_size: 5\n  model: {gridsize: 2}\n")
    for argv in (("--training.nepochs", 9, "--config", file), ("--config", file, "--training.nepochs=9")):
        config = training_of("scan.npz", *argv)
        assert (config.nepochs, config.batch_size, config.seed) == (9, 5, TrainingConfig().seed)
        assert config.model.gridsize == 2


def test_later_file_takes_precedence(tmp_path):
    first = write(tmp_path / "a.yaml", "training: {nepochs: 3, seed: 4, model: {gridsize: 2}}")
    second = write(tmp_path / "b.yaml", "training: {nepochs: 5, model: {N: 64}}")
    config = training_of("--config", first, f"--config={second}")
    assert (config.nepochs, config.seed, config.model) == (5, 4, ModelConfig(N=64, gridsize=2))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        (("--epochs", "3"), ("--training.nepochs", "3")),
        (("--backend=tensorflow",), ("--training.backend", "tensorflow")),
        (("--device", "cpu"), ("--execution.device=cpu",)),
        (("--no-progress",), ("--execution.progress", "false")),
        (("--no_progress",), ("--execution.progress", "false")),
    ],
)
def test_aliases(short, long):
    keys = ("training", "execution")
    assert [parsed(*short)[key] for key in keys] == [parsed(*long)[key] for key in keys]
    assert [parsed(*short)[key] for key in keys] != [parsed()[key] for key in keys]


def test_last_value_counts():
    assert training_of("--epochs", 3, "--training.nepochs", 4).nepochs == 4
    assert training_of("--training.nepochs", 3, "--epochs", 4).nepochs == 4


def test_hyphens_and_underscores_are_equal():
    assert parsed("--bad_pixels", "off", command=reconstruct).bad_pixels == "off"
    assert parsed("--bad-pixels", "off", command=reconstruct).bad_pixels == "off"
    assert parsed("--n-positions", 9, command=simulate).n_positions == 9
    for name in ("probe-iterations", "probe_iterations"):
        assert training_of(f"--training.{name}", 3).probe_iterations == 3
        assert training_of(f"--training.{name}=4").probe_iterations == 4
    for name in ("--print-config", "--print_config"):
        assert parsed(name).print_config
    assert parsed("--training.model.n-filters_scale", 2).training.model.n_filters_scale == 2
    with pytest.warns(DeprecatedNameWarning):
        assert parsed("--execution.accum-steps", 3).execution.accumulate_grad_batches == 3


def test_suggestions_have_hyphens():
    with pytest.raises(ConfigError, match=r"did you mean '--training\.probe-iterations'"):
        parsed("--training.probe_iteration", 3)


def test_numbers_in_a_file(tmp_path):
    """YAML 1.1 reads 1e-2 as text."""
    file = write(tmp_path / "run.yaml", "training: {learning_rate: 1e-2, nphotons: 100000, nepochs: '4'}")
    config = training_of("--config", file)
    assert (config.learning_rate, config.nphotons, config.nepochs) == (0.01, 1e5, 4)


def test_names_that_look_like_numbers():
    options = parsed("12", "--output", "1e3")
    assert (options.scan, options.output) == ("12", "1e3")


@given(
    st.builds(
        TrainingConfig,
        nepochs=st.integers(1, 10**6),
        learning_rate=st.floats(1e-9, 9.0),
        nphotons=st.none() | st.floats(1e-3, 1e12),
        probe_trainable=st.booleans(),
        model=st.builds(ModelConfig, N=st.sampled_from([0, 32, 512]), architecture=st.sampled_from(["unet", "cnn"])),
    )
)
def test_print_config_round_trip(tmp_path_factory, config):
    text = yaml_text({"training": config, "execution": ExecutionConfig(), "inference": InferenceConfig()})
    assert yaml.safe_load(text)["training"] == to_dict(config)
    file = write(tmp_path_factory.mktemp("config") / "run.yaml", text)
    assert training_of("--config", file) == config


@pytest.mark.parametrize("command", ["train", "reconstruct", "simulate"])
def test_print_config_is_a_valid_file(command, ptychopinn, tmp_path):
    printed = ptychopinn(command, "--print_config")
    assert printed.status == 0
    file = write(tmp_path / "run.yaml", printed.out)
    assert ptychopinn(command, "--config", file, "--print_config").out == printed.out


def test_print_config_contains_given_values(ptychopinn):
    argv = ("--epochs", 3, "--execution.scheduler_milestones=[1, 2]")
    values = yaml.safe_load(ptychopinn("train", *argv, "--print_config").out)
    assert list(values) == ["training", "execution", "inference"]
    assert values["training"]["nepochs"] == 3
    assert values["execution"]["scheduler_milestones"] == [1, 2]


def test_configuration_of_a_run_folder(tmp_path):
    written = TrainingConfig(model=ModelConfig(N=96, gridsize=2), nphotons=1e5)
    write_config(tmp_path / "config.yaml", written, ExecutionConfig(device="cpu"))
    assert training_of("--config", tmp_path / "config.yaml") == written


def test_reconstruct_ignores_the_training_section(tmp_path, caplog):
    write_config(tmp_path / "config.yaml", TrainingConfig(), ExecutionConfig(device="cpu"))
    with caplog.at_level(logging.INFO):
        options = parsed("--config", tmp_path / "config.yaml", command=reconstruct)
    assert options.execution.device == "cpu"
    assert "section 'training'" in caplog.text


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("training: {nepoch: 3}", "training.nepoch", "training.nepochs"),
        ("training: {model: {grid_size: 2}}", "training.model.grid_size", "training.model.gridsize"),
        ("trainng: {nepochs: 3}", "trainng", "training"),
        ("nepochs: 3", "nepochs", "training.nepochs"),
        ("training: {gridsize: 2}", "training.gridsize", "training.model.gridsize"),
        ("execution: {devise: cpu}", "execution.devise", "execution.device"),
    ],
)
def test_unknown_key_in_a_file(text, unknown, nearest, ptychopinn, fails_with, tmp_path):
    file = write(tmp_path / "run.yaml", text)
    outcome = ptychopinn("train", "scan.npz", "--output", tmp_path / "run", "--config", file)
    fails_with(outcome, 2, f"'{unknown}' in file '{file}'", f"did you mean '{nearest}'?")
    assert len(outcome.err.splitlines()) == 4
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("unknown", "nearest"),
    [
        ("--training.nepoch", "--training.nepochs"),
        ("--nepochs", "--training.nepochs"),
        ("--gridsize", "--training.model.gridsize"),
        ("--epoch", "--epochs"),
        ("--execution.devise", "--execution.device"),
        ("--overwrit", "--overwrite"),
    ],
)
def test_unknown_option(unknown, nearest, ptychopinn, fails_with):
    outcome = ptychopinn("train", "scan.npz", "--output", "run", unknown, "3")
    fails_with(outcome, 2, f"Unknown option '{unknown}'", f"did you mean '{nearest}'?")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--training.nepochs", "many"], ["a whole number", "'many' from the command line"]),
        (["--training.nepochs", "1.5"], ["a whole number"]),
        (["--training.learning_rate", "fast"], ["a number"]),
        (["--training.nphotons", "many"], ["a number", "'many'"]),
        (["--training.model.architecture", "unett"], ["one of unet, cnn", "did you mean 'unet'?"]),
        (["--training.model.object_big", "perhaps"], ["one of true, false"]),
        (["--training.nepochs", "0"], ["nepochs: Input should be greater than or equal to 1"]),
        (["--training.nepochs=0", "--training.model.gridsize=0"], ["2 invalid value(s)", "nepochs", "model.gridsize"]),
        (["--training.model.N", "100"], ["multiple of 16"]),
        (["--training.nepochs"], ["expected one argument"]),
        (["--config"], ["expected one argument"]),
        (["--config", "nowhere.yaml"], ["nowhere.yaml"]),
        (["a-second-scan.npz"], ["unrecognized arguments: a-second-scan.npz"]),
        (["-z"], ["unrecognized arguments: -z"]),
        (["--training", "{nepochs: 3}"], ["Unknown option '--training'"]),
    ],
)
def test_invalid_values(argv, words, ptychopinn, fails_with, tmp_path):
    outcome = ptychopinn("train", "scan.npz", "--output", tmp_path / "run", *argv)
    fails_with(outcome, 2, *words)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {nepochs: many}", ["a whole number", "run.yaml"]),
        ("training: 3", ["'training' is a section"]),
        ("training: {model: [3]}", ["'training.model' is a section"]),
        ("training: [", ["not valid YAML"]),
        ("- training", ["holds a mapping"]),
        ("training: !!python/object/apply:os.system ['true']", ["not valid YAML"]),
    ],
)
def test_invalid_files(text, words, ptychopinn, fails_with, tmp_path):
    file = write(tmp_path / "run.yaml", text)
    fails_with(ptychopinn("train", "scan.npz", "--output", tmp_path / "run", "--config", file), 2, *words)


@pytest.mark.parametrize("text", ["", "training:\n", "training:\n  model:\n"])
def test_empty_sections(text, tmp_path):
    assert training_of("--config", write(tmp_path / "run.yaml", text)) == TrainingConfig(model=ModelConfig(N=0))


@pytest.mark.parametrize(
    "argv", [[], ["tran", "scan.npz"], ["train"], ["train", "scan.npz"], ["info"], ["evaluate", "a.h5"]]
)
def test_incomplete_command(argv, ptychopinn, fails_with):
    fails_with(ptychopinn(*argv), 2)


def test_option_of_another_command():
    with pytest.raises(ConfigError, match="Unknown option '--config'"):
        info.command_line().parse(["file", "--config", "run.yaml"])


@pytest.mark.parametrize(
    "argv",
    [
        ("--scheduler", "MultiStage", "--execution.accum_steps", "3"),
        ("--scheduler=MultiStage", "--execution.accum_steps=3"),
        ("--execution.scheduler=multistep", "--accumulate-grad-batches=3"),
    ],
)
def test_deprecated_names_on_the_command_line(ptychopinn, argv):
    outcome = ptychopinn("train", "--print_config", *argv)
    assert outcome.status == 0, outcome.err
    execution = yaml.safe_load(outcome.out)["execution"]
    assert (execution["scheduler"], execution["accumulate_grad_batches"]) == ("multistep", 3)
    assert ("is now" in outcome.err) == (argv[0] == "--scheduler" or "MultiStage" in argv[0])


@pytest.mark.parametrize(
    ("flag", "value", "field"),
    [
        ("--checkpoint-monitor", "train_loss", "monitor"),
        ("--checkpoint_monitor", "train_loss", "monitor"),
        ("--checkpoint-mode", "max", "monitor_mode"),
        ("--checkpoint-save-top-k", 3, "save_top_k"),
        ("--early-stop-patience", 7, "early_stop_patience"),
    ],
)
def test_deprecated_flags(ptychopinn, flag, value, field):
    for argv in ((flag, value), (f"{flag}={value}",)):
        outcome = ptychopinn("train", "--print_config", *argv)
        assert outcome.status == 0, outcome.err
        assert yaml.safe_load(outcome.out)["execution"][field] == value
        assert f"'{flag}' is now '--execution.{field}'" in outcome.err
    assert ptychopinn("info", flag, value).status == 2, "no option of this command"


def test_deprecated_name_with_present_value(ptychopinn):
    outcome = ptychopinn("train", "--print_config", "--execution.logger_backend=tensorboard")
    assert yaml.safe_load(outcome.out)["execution"]["logger"] == "tensorboard"
    assert [line.partition("'")[2] for line in outcome.err.splitlines() if "is now" in line] == [
        "logger_backend' is now 'logger'"
    ]


def test_deprecated_names_in_a_file(ptychopinn, tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text("execution: {accum_steps: 3, scheduler: Adaptive}", encoding="utf-8")
    outcome = ptychopinn("train", "--print_config", "--config", file)
    assert outcome.status == 0, outcome.err
    execution = yaml.safe_load(outcome.out)["execution"]
    assert (execution["scheduler"], execution["accumulate_grad_batches"]) == ("plateau", 3)
    assert "'accum_steps' is now 'accumulate_grad_batches'" in outcome.err
