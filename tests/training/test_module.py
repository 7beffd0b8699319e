"""The training step: losses by name, scores of several quantities, unrolled windows, noise, divergence."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import lightning
import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from sobolev import Grid, Surrogate
from sobolev.commands.train import trained as train
from sobolev.datasets import NavierStokesRecipe, OperatorDataModule, Recipe, generate
from sobolev.datasets.recipes.navier_stokes import FORCINGS
from sobolev.grids.norms import relative_error
from sobolev.grids.variables import Variable
from sobolev.operators import FNO, Operator, SpecBoost, Trajectory
from sobolev.solvers import NavierStokes
from sobolev.training import FrameLoss, OperatorModule, SobolevLoss
from sobolev.training.boosting.stages import BoostingModule

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*", "ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*treespec.*", "ignore:.*number of training batches.*"),
    pytest.mark.filterwarnings("ignore:.*exists and is not empty.*"),
]


@dataclass(frozen=True)
class Warming(Recipe):
    """A temperature about 300 K and a small concentration carried along, with a source that stays."""

    inputs: ClassVar = (Variable("source", "source", "1"),)
    outputs: ClassVar = (Variable("heat", "temperature", "K"), Variable("salt", "salinity", "1"))
    title = equation = measure = references = "test"
    solver_resolution: int = 16

    @property
    def times(self):
        return tuple(0.25 * i for i in range(7))

    def grid(self, resolution):
        return Grid.periodic(resolution)

    def draw(self, streams, resolution=None):
        return torch.stack([torch.from_numpy(s.standard_normal((1, 16))) for s in streams])

    def solve(self, inputs, grid):
        shifted = [inputs.roll(i, -1) for i in range(7)]
        moving = torch.stack(shifted, dim=2)
        return torch.cat([300 + moving, 1e-3 * moving.flip(-1) ** 2], dim=1)

    def refined(self):
        return self

    def error_estimate(self, streams, outputs):
        return torch.zeros(len(outputs))


@pytest.fixture(scope="module")
def warming(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "warming"
    return generate(Warming(), path, {"train": 6, "valid": 2, "test": 2}, progress=False)


class Means(Operator):
    """Predicts nothing but the training means."""

    ndim = 1

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, u, size=None):
        return self.weight * u[:, :1].expand(-1, self.out_channels, -1)


def trainer(**options):
    defaults = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0,
    }  # fmt: skip
    return lightning.Trainer(**(defaults | options))


def network(channels, out=1, **options):
    return FNO(channels, out, modes=(3, 3), width=4, depth=1, **options)


# Scores


def test_predicting_the_means_scores_one_for_every_quantity(warming):
    """‖μ − y‖ / ‖y − μ‖ = 1; relative to ‖y‖, the temperature alone would score 0.003."""
    data = OperatorDataModule(warming, window=(2, 2))
    module = OperatorModule(Means(5, 2), data)
    scores = trainer().validate(module, data, verbose=False)[0]
    names = ["relative_l2", "relative_l2/heat", "relative_l2/salt", "relative_h1"]
    assert sorted(scores) == sorted(f"valid/{name}" for name in names)
    assert all(scores[f"valid/{name}"] == pytest.approx(1.0, abs=1e-5) for name in names)


def test_each_quantity_is_scored_by_itself(warming):
    """‖p_v − y_v‖ / ‖y_v − μ_v‖ over the predicted frames, in numpy."""
    data = OperatorDataModule(warming, window=(2, 2))
    module = OperatorModule(FNO(5, 2, modes=(3,), width=4, depth=1), data)
    scores = trainer().validate(module, data, verbose=False)[0]
    inputs, y = data.pairs("valid")[:]
    with torch.no_grad():
        p = module.surrogate.unrolled(inputs, 2).double().numpy()
    y = y.double().numpy().reshape(p.shape)
    for i, v in enumerate(data.states):
        error, size = p[:, :, i] - y[:, :, i], y[:, :, i] - data.statistics[v.name][0]
        expected = np.linalg.norm(error, axis=(1, 2)) / np.linalg.norm(size, axis=(1, 2))
        found = scores[f"valid/relative_l2/{v.name}"]
        assert found == pytest.approx(expected.mean(), rel=1e-4)


def test_scores_of_several_quantities_are_those_of_the_formula_in_any_units(warming):
    """(Σ_v ‖p_v − y_v‖²/σ_v²)^½ / (Σ_v ‖y_v − μ_v‖²/σ_v²)^½ over all frames, in numpy."""
    data = OperatorDataModule(warming, window=(1, 3))
    items, grid = data.pairs("valid"), data.grid
    y = items.outputs.double()
    p = y + torch.randn_like(y) * torch.tensor([1.0, 1e-3, 1.0, 1e-3, 1.0, 1e-3])[:, None]
    mean, scale = np.array([data.statistics[v.name] for v in data.states]).T
    scaled = [v.numpy().reshape(-1, 3, 2, 16) for v in (p - y, y)]
    error = scaled[0] / scale[:, None]
    size = (scaled[1] - mean[:, None]) / scale[:, None]
    expected = np.linalg.norm(error.reshape(len(y), -1), axis=1)
    expected = expected / np.linalg.norm(size.reshape(len(y), -1), axis=1)
    whole = Surrogate(
        Means(3, 6), grid, data.inputs, data.outputs, data.statistics, {"data": data.provenance}
    ).double()
    found = relative_error(whole.comparable(p), whole.comparable(y), grid)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    celsius = {
        n: (1.8 * m - 459.67, 1.8 * s) if n.startswith("heat") else (1e6 * m, 1e6 * s)
        for n, (m, s) in data.statistics.items()
    }
    other = Surrogate(
        Means(3, 6), grid, data.inputs, data.outputs, celsius, {"data": data.provenance}
    ).double()
    factor, shift = torch.tensor([1.8, 1e6] * 3)[:, None], torch.tensor([-459.67, 0.0] * 3)[:, None]
    p, y = factor * p + shift, factor * y + shift
    converted = relative_error(other.comparable(p), other.comparable(y), grid)
    np.testing.assert_allclose(converted.numpy(), expected, rtol=1e-4)


def test_frames_of_one_quantity_keep_the_published_relative_error(flow_data):
    """‖p − y‖ / ‖y‖ over the six predicted frames of each window, their mean over the windows, whatever
    the training mean."""
    data = OperatorDataModule(flow_data, window=(2, 6), batch_size=2)
    module = OperatorModule(network(2), data)
    module.surrogate.output_mean.fill_(0.5)
    scores = trainer().validate(module, data, verbose=False)[0]
    inputs, y = data.pairs("valid")[:]
    with torch.no_grad():
        p = module.surrogate.unrolled(inputs, 6)[:, :, 0]
    expected = ((p - y).flatten(1).norm(dim=1) / y.flatten(1).norm(dim=1)).mean()
    assert scores["valid/relative_l2"] == pytest.approx(expected.item(), rel=1e-5)
    assert sorted(scores) == ["valid/relative_h1", "valid/relative_l2"]


# Losses


@pytest.mark.slow
def test_a_loss_is_chosen_and_summed_in_yaml_and_bound_to_the_run(flow_data, tmp_path, capsys):
    settings = {
        "model": {
            "operator": {
                "class_path": "sobolev.operators.FNO",
                "init_args": {"in_channels": 2, "out_channels": 1, "modes": [3, 3], "width": 4},
            },
            "loss": {
                "class_path": "SumLoss",
                "init_args": {
                    "terms": [
                        "SobolevLoss",
                        {"class_path": "FrameLoss", "init_args": {"loss": "SobolevLoss"}},
                    ],
                    "weights": [1.0, 0.5],
                },
            },
            "gradient_frames": 1,
        },
        "data": {"path": str(flow_data), "window": [2, 2], "batch_size": 30},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    arguments = ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "run")]
    train(arguments)
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]["loss"]
    assert saved["init_args"]["terms"][1]["init_args"]["loss"]["init_args"]["order"] == 0.0
    surrogate = Surrogate.load(tmp_path / "run" / "surrogate")
    assert surrogate.provenance["protocol"] == (
        "unrolled: 2 frames in, 2 out, in 2 applications, gradients through 1; scored over all 2"
    )
    with pytest.raises(ValueError, match=r"other settings of model\.loss"):
        train([*arguments, "--resume", "--model.loss", "SobolevLoss", "--model.loss.order", "1"])
    for wrong, message in (
        (["--model.loss", "SobolevLoss", "--model.loss.order", "high"], "Got value: high"),
        (["--model.loss", "sobolev.operators.FNO"], "FieldLoss"),
        (["--model.loss", "SobolevLos"], "SobolevLos"),
    ):
        with pytest.raises(SystemExit):
            train([*arguments, "--overwrite", *wrong])
        assert message in capsys.readouterr().err


def test_the_loss_sees_trajectories_and_the_given_frames_are_not_among_them(flow_data):
    data = OperatorDataModule(flow_data, window=(3, 4))
    seen = []

    class Watching(FrameLoss):
        def per_sample(self, prediction, target):
            seen.append((prediction, target))
            return super().per_sample(prediction, target)

    module = OperatorModule(network(3), data, loss=Watching)
    module.log = lambda *_, **__: None
    module.on_train_start()
    inputs, y = data.pairs("train")[:5]
    loss = module.training_step((inputs, y), 0)
    p = module.surrogate.unrolled(inputs, 4)[:, :, 0]
    frames = (p - y).flatten(2).norm(dim=2) / y.flatten(2).norm(dim=2)
    assert loss.item() == pytest.approx(frames.mean().item(), rel=1e-6)
    scale = data.statistics["vorticity"][1]
    assert torch.allclose(seen[0][1], y[:, :, None] / scale)


def test_what_makes_no_loss_is_refused(burgers_data):
    data, operator = OperatorDataModule(burgers_data), FNO(1, 1, (4,), width=4)
    for wrong in (SobolevLoss(data.grid), lambda grid: 3):
        with pytest.raises(ValueError, match=r"makes a FieldLoss for a grid.*partial"):
            OperatorModule(operator, data, loss=wrong)
    with pytest.raises(ValueError, match="order of a Sobolev norm is a real number, got nan"):
        OperatorModule(operator, data, loss=partial(SobolevLoss, order=float("nan")))


# Trajectories


@pytest.mark.parametrize(
    ("window", "operator", "options", "protocol"),
    [
        ((2, 1), network(2), {}, "one step: 2 frames in, 1 out, scored on that one frame (teacher forcing)"),
        (
            (1, 3, 2), network(1), {"noise": 0.05},
            "unrolled: 1 frame in, 3 out, 2 stored frames apart, in 3 applications, gradients through all; scored over "
            "all 3; noise 0.05 on the given frames in training",
        ),
        (
            (2, 1), network(2), {"noise": 0.05, "noise_spectrum": "pink"},
            "one step: 2 frames in, 1 out, scored on that one frame (teacher forcing); pink noise 0.05 on the given "
            "frames in training",
        ),
        (
            (2, 4), Trajectory(FNO(1, 1, (2, 2, 2), width=4, depth=1), 2, 4), {},
            "one application: 2 frames in, 4 out; scored over all 4",
        ),
    ],
)  # fmt: skip
def test_protocols_have_names(flow_data, window, operator, options, protocol):
    data = OperatorDataModule(flow_data, window=window)
    module = OperatorModule(operator, data, **options)
    assert module.surrogate.provenance["protocol"] == protocol
    frames = operator.out_channels
    stride = (*window, 1)[2]
    assert module.surrogate.provenance["data"]["window"] == [window[0], frames, stride]
    assert module.surrogate.interval == pytest.approx(0.1 * stride)
    assert [v.name for v in module.surrogate.quantities] == ["vorticity"]


def test_maps_without_time_have_a_protocol_too(burgers_data):
    module = OperatorModule(FNO(1, 1, (4,), width=4), OperatorDataModule(burgers_data))
    assert "no time" in module.surrogate.provenance["protocol"]
    assert module.surrogate.window is None


def test_applications_that_do_not_reach_the_horizon_are_refused(flow_data, warming, burgers_data):
    data = OperatorDataModule(flow_data, window=(2, 4))
    with pytest.raises(ValueError, match=r"out_channels=3; .* 4 frames .*out_channels=1 or 2 or 4"):
        OperatorModule(network(2, 3), data)
    with pytest.raises(ValueError, match=r"out_channels=1; .*\(2 per frame\).*out_channels=2 or 4"):
        OperatorModule(Means(5, 1), OperatorDataModule(warming, window=(2, 2)))
    for wrong in ({"gradient_frames": 0}, {"noise": -1.0}, {"noise": float("nan")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            OperatorModule(network(2), data, **wrong)
    module = OperatorModule(network(2), data, noise=0.1)
    module.noise_spectrum = "blue"  # past the annotation, which the tests enforce
    with pytest.raises(ValueError, match="white or pink, got 'blue'"):
        module._check_options()
    module.noise, module.noise_spectrum = 0.0, "pink"
    with pytest.raises(ValueError, match="pink noise needs a noise above 0"):
        module._check_options()
    with pytest.raises(ValueError, match="one application gives all of the window"):
        OperatorModule(network(2, 4), data, gradient_frames=1)
    still = OperatorDataModule(burgers_data)
    for option in ({"gradient_frames": 1}, {"noise": 0.1}):
        with pytest.raises(ValueError, match="not in time"):
            OperatorModule(FNO(1, 1, (4,), width=4), still, **option)


@pytest.mark.parametrize("spectrum", ["white", "pink"])
def test_noise_is_on_the_given_frames_and_depends_on_seed_and_step_alone(warming, spectrum):
    data = OperatorDataModule(warming, window=(2, 2), seed=3)
    options = {"noise": 0.1, "noise_spectrum": spectrum}
    modules = [OperatorModule(Means(5, 2), data, **options) for _ in range(2)]
    inputs = data.pairs("train").inputs[:4].repeat(200, 1, 1)
    noise = modules[0]._noisy(inputs, 0) - inputs
    torch.manual_seed(1)
    assert torch.equal(modules[1]._noisy(inputs, 0) - inputs, noise)
    assert not torch.equal(modules[1]._noisy(inputs, 1) - inputs, noise)
    assert not noise[:, 0].any()  # the source
    scales = torch.tensor([data.statistics[v.name][1] for v in data.inputs[1:]])
    ratio = noise[:, 1:].std((0, 2)) / scales
    assert torch.allclose(ratio, torch.full((4,), 0.1), rtol=0.03)
    frames = noise[:, 1:].transpose(0, 1).flatten(1)  # one from another; white, each node too
    nodes = noise[:, 1:].flatten(1).T if spectrum == "white" else frames
    for independent in (frames, nodes):
        assert independent.corrcoef().fill_diagonal_(0.0).abs().max() < 0.2
    modules[1].seed = 4
    assert not torch.equal(modules[1]._noisy(inputs, 0) - inputs, noise)


@pytest.mark.slow
def test_a_resumed_run_draws_the_noise_of_an_undisturbed_one(flow_data, tmp_path):
    def run(epochs, **options):
        torch.manual_seed(0)
        data = OperatorDataModule(flow_data, window=(2, 3), batch_size=16)
        module = OperatorModule(network(2), data, noise=0.1, gradient_frames=2)
        fitting = trainer(max_epochs=2, callbacks=[Stop(epochs)])
        fitting.fit(module, data, **options)
        fitting.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return module.surrogate.state_dict()

    class Stop(Callback):
        def __init__(self, epochs):
            self.epochs = epochs

        def on_train_epoch_end(self, trainer, pl_module):
            trainer.should_stop = trainer.current_epoch + 1 == self.epochs

    whole = run(2)
    half = run(1)
    resumed = run(2, ckpt_path=tmp_path / "1.ckpt", weights_only=True)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert not all(torch.equal(whole[name], half[name]) for name in whole)


@pytest.mark.parametrize("forcing", list(FORCINGS))
def test_symmetries_turn_all_frames_of_a_window_alike(tmp_path, forcing):
    """The solver goes from the turned input frame to the turned output frames."""
    recipe = NavierStokesRecipe(
        viscosity=0.01, time=0.3, interval=0.1, solver_resolution=16, forcing=forcing
    )
    path = generate(recipe, tmp_path / forcing, {"train": 4, "test": 1}, progress=False)
    data = OperatorDataModule(path, window=(1, 3), augment=True, batch_size=3)
    data.trainer = trainer()
    data.trainer.state.fn, data.trainer.training = "fit", True
    batch = data.pairs("train")[:]
    moved = 0
    for step in range(6):
        data.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = step
        inputs, outputs = data.on_after_batch_transfer(batch, 0)
        equation = NavierStokes(0.01, FORCINGS[forcing], step=recipe.step)
        frames = equation.solve(inputs[:, 0].double(), data.grid, [0.0, 0.1, 0.2, 0.3])
        assert torch.allclose(frames[:, 1:].float(), outputs, atol=1e-5 * outputs.abs().max())
        moved += not torch.allclose(inputs, batch[0])
    assert moved >= 3


# Going on from a trained surrogate


def test_training_goes_on_with_the_function_that_was_saved(flow_data, tmp_path):
    """Its normalisation included, though the new data's is another; unrolled windows after one step."""
    first = OperatorModule(
        network(2), OperatorDataModule(flow_data, window=(2, 1), train_samples=4)
    )
    first.surrogate.record(training={"seconds": 7.0})
    first.surrogate.save(tmp_path / "run" / "surrogate")
    data = OperatorDataModule(flow_data, window=(2, 3))
    inputs = data.pairs("train").inputs[:4]
    assert (
        data.statistics != OperatorDataModule(flow_data, window=(2, 1), train_samples=4).statistics
    )
    for path in (tmp_path / "run", str(tmp_path / "run" / "surrogate")):
        module = OperatorModule(network(2), data, start=path)
        assert torch.equal(module.surrogate(inputs), first.surrogate(inputs))
    trainer().fit(module, data)
    assert not torch.equal(module.surrogate(inputs), first.surrogate(inputs))
    saved = Surrogate.load(tmp_path / "run" / "surrogate")
    assert torch.equal(saved(inputs), first.surrogate(inputs))
    before = module.surrogate.provenance["start"]
    assert module.surrogate.provenance.start.training.seconds == 7.0
    weights = (tmp_path / "run" / "surrogate" / "model.safetensors").read_bytes()
    assert before["sha256"] == hashlib.sha256(weights).hexdigest()


def test_what_training_cannot_start_from_is_refused(flow_data, tmp_path):
    data = OperatorDataModule(flow_data, window=(2, 1))
    OperatorModule(network(2), data).surrogate.save(tmp_path / "surrogate")
    wider = FNO(2, 1, modes=(3, 3), width=5, depth=1)
    with pytest.raises(
        ValueError, match=r"operator\.arguments\.width \(4, now 5\).*Give the settings"
    ):
        OperatorModule(wider, data, start=tmp_path)
    renamed = OperatorModule(network(2), data).surrogate
    outputs = tuple(replace(v, units="s-2") for v in renamed.outputs)
    renamed.meaning = replace(renamed.meaning, outputs=outputs)
    renamed.save(tmp_path / "renamed")
    with pytest.raises(ValueError, match=r"variables \(.*\(s-2\), now "):
        OperatorModule(network(2), data, start=tmp_path / "renamed")
    averaged = OperatorModule(network(2), data).surrogate.symmetrized(["quarter turns"])
    averaged.save(tmp_path / "averaged")
    with pytest.raises(ValueError, match=r"averaged over \(\('quarter turns',\), now \(\)\)"):
        OperatorModule(network(2), data, start=tmp_path / "averaged")
    with pytest.raises(ValueError, match=r"conserve\.\w+ \(None, now vorticity_lag0\)"):
        OperatorModule(network(2), data, start=tmp_path, conserve=True)
    with pytest.raises(FileNotFoundError, match="no surrogate folder at"):
        OperatorModule(network(2), data, start=tmp_path / "nothing")
    with pytest.raises(ValueError, match="stages of a boost begin with fresh weights"):
        BoostingModule(SpecBoost([network(2), network(2)]), data, start=tmp_path)


@pytest.mark.slow
def test_a_curriculum_on_the_command_line(flow_data, tmp_path):
    """One step first, then from there unrolled; the second run resumes where it was, not at the start."""
    settings = {
        "model": {
            "operator": {
                "class_path": "sobolev.operators.FNO",
                "init_args": {"in_channels": 1, "out_channels": 1, "modes": [3, 3], "width": 4},
            },
        },
        "data": {"path": str(flow_data), "window": [1, 1], "batch_size": 30},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    first = ["--config", str(tmp_path / "config.yaml"), "--run", str(tmp_path / "one")]
    train(first)
    second = [*first[:2], "--model.start", str(tmp_path / "one"), "--data.window", "[1, 2]"]
    whole, cut = (train([*second, "--run", str(tmp_path / name)]) for name in ("whole", "cut"))
    record = Surrogate.load(whole / "surrogate").provenance
    assert record["start"]["training"]["epochs"] == 2
    assert record["start"]["protocol"].startswith("one step")
    assert record["protocol"].startswith("unrolled")
    shutil.rmtree(cut / "surrogate")
    train([*second, "--run", str(tmp_path / "cut"), "--resume"])
    states = [Surrogate.load(run / "surrogate").state_dict() for run in (whole, cut)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


# Divergence


class Failing(SobolevLoss):
    """A loss whose value or gradient becomes NaN in one step."""

    step: ClassVar[int]
    in_gradient: ClassVar[bool]
    calls: ClassVar[int]

    def per_sample(self, prediction, target):
        value = super().per_sample(prediction, target)
        bad = type(self).calls == type(self).step
        type(self).calls += 1
        if bad and self.in_gradient:
            return value + (value - value.detach()).abs().sqrt()  # 0, with gradient 0 · ∞
        return value * torch.nan if bad else value


@pytest.mark.parametrize(
    ("step", "in_gradient", "often"),
    [(5, False, False), (7, False, False), (7, True, False), (5, False, True), (5, True, True)],
)
def test_a_diverging_run_names_the_step_and_leaves_the_last_good_checkpoints(
    flow_data, tmp_path, step, in_gradient, often
):
    """Four steps an epoch, so that step 5 or 7 spoils the second. A loss whose gradient alone is NaN
    spoils the weights; checkpoints of every step stop the run in that step."""
    Failing.step, Failing.in_gradient, Failing.calls = step, in_gradient, 0
    data = OperatorDataModule(flow_data, window=(4, 2), batch_size=9)
    module = OperatorModule(network(4), data, loss=Failing)
    checkpoints = [
        ModelCheckpoint(tmp_path, "last", every_n_epochs=1, enable_version_counter=False),
        ModelCheckpoint(
            tmp_path, "best", monitor="valid/relative_l2", enable_version_counter=False
        ),
    ]
    validated = []

    class Counting(Callback):
        def on_validation_epoch_start(self, trainer, pl_module):
            validated.append(trainer.current_epoch)

    checkpoints.append(Counting())
    kept = {"last": 4, "best": 4}
    if often:
        checkpoints.append(
            ModelCheckpoint(tmp_path, "often", every_n_train_steps=1, enable_version_counter=False)
        )
        kept["often"] = 5
    fitting = trainer(max_epochs=4, callbacks=checkpoints, enable_checkpointing=True)
    with pytest.raises(ArithmeticError, match=rf"from step {step} on \(epoch 1"):
        fitting.fit(module, data)
    assert Failing.calls == (6 if often else 8)
    assert validated == [0]
    for name, steps in kept.items():
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        assert checkpoint["global_step"] == steps
        assert all(
            bool(v.isfinite().all())
            for v in checkpoint["state_dict"].values()
            if v.is_floating_point()
        )
