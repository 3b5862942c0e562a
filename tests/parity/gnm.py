"""Agreement with recorded outputs of GNM's published code.

A case is a folder:
  config.json: the code's arguments, and what was in force in every step.
  weights.npz: initial weights under PyTorch's names and in its layouts.
  inputs.npz: pictures [B, H, W, C] in [0, 1], and draws by name.
  expected.npz: forward pass, gradients, training steps, a generated scene.
"""

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from iodine import training
from iodine.models.gnm import (
  GNM,
  Background,
  Curriculum,
  ImageEncoder,
  PictureDecoder,
  StructDRAW,
  SymbolHead,
  annealing,
  objective,
)
from iodine.models.gnm import weights as gnm_weights
from iodine.models.gnm.renderer import Covering
from tests.parity import cases, variables
from tests.parity.report import Report
from tests.parity.variables import Variables

# Relative L2 errors per tensor.
_FORWARD, _FORWARD_MEDIAN = 1e-4, 2e-6
_GRADIENTS, _GRADIENTS_MEDIAN = 1e-3, 5e-5
_TRAINING = (1e-4, 1e-3, 1e-2)  # of each step
_FIRST_CHANGE, _CHANGE = 5e-3, 2e-2
_TRAINED = 1e-4  # norms of variables
_SCHEDULES = 1e-6

# Names of the terms: {here: published}.
_TERMS = {
  "presence": "pres",
  "where": "where",
  "depth": "depth",
  "what": "what",
  "background": "bg",
  "global": "global",
}


def is_case(folder: pathlib.Path) -> bool:
  """Whether a folder is a case of GNM."""
  model = cases.read_config(folder).get("model")
  return isinstance(model, Mapping) and "arch" in model


class _RecordedCurriculum(Curriculum):
  """One that holds in the steps that a record says."""

  def __init__(self, alpha: float, flags: annealing.Schedule):
    super().__init__(alpha)
    self._flags = flags

  def __call__(self, step: tf.Tensor) -> Covering:
    return super().__call__(step)._replace(holds=self._flags(step))


def make_model(
  config: Mapping[str, Any],
  of_step: Callable[[str], annealing.Schedule],
) -> GNM:
  """Builds a model of a record's size.

  Args:
    config: the published code's arguments.
    of_step: what was in force, by the record's names.

  Returns:
    The model, without variables.
  """
  z, arch = config["model"]["z"], config["model"]["arch"]
  const = config["model"]["const"]
  conv, mlp, draw = arch["conv"], arch["mlp"], arch["structdraw"]
  background = None
  if arch["phase_background"]:
    background = Background(
      z["z_bg_dim"],
      **_decoder(conv, "p_bg_decoder"),
      prior_sizes=mlp["p_bg_generator_filters"][:-1],
      posterior_sizes=mlp["q_bg_encoder_filters"][:-1],
    )
  train = config["train"]
  curriculum = None
  if train["phase_bg_alpha_curriculum"]:
    curriculum = _RecordedCurriculum(
      train["bg_alpha_curriculum_value"], of_step("alpha_curriculum")
    )
  return GNM(
    encoder=ImageEncoder(
      conv["img_encoder_filters"],
      conv["img_encoder_kernel_sizes"],
      conv["img_encoder_strides"],
      conv["img_encoder_groups"],
    ),
    struct_draw=StructDRAW(
      num_draws=arch["draw_step"],
      n_global=z["z_global_dim"],
      encoder_size=draw["rnn_encoder_hid_dim"],
      decoder_size=draw["rnn_decoder_hid_dim"],
      kernel_size=draw["kernel_size"],
      prior_sizes=mlp["p_global_encoder_filters"][:-1],
      posterior_sizes=mlp["q_global_encoder_filters"][:-1],
      decoder_sizes=mlp["p_global_decoder_filters"][:-1],
      map_channels=draw["hid_to_dec_filters"][:-1],
      map_kernels=draw["hid_to_dec_kernel_sizes"],
    ),
    head=SymbolHead(
      arch["pwdw"]["pwdw_filters"],
      arch["pwdw"]["pwdw_kernel_sizes"],
      arch["pwdw"]["pwdw_groups"],
    ),
    glimpse_decoder=PictureDecoder(**_decoder(conv, "p_what_decoder")),
    n_z=z["z_what_dim"],
    num_cells=arch["num_cell"],
    background=background,
    overlap=arch["phase_overlap"],
    sigma=const["likelihood_sigma"],
    kl_weights={k: of_step(f"beta_{name}") for k, name in _TERMS.items()},
    auxiliary_weights={
      k: of_step(f"beta_aux_{name}")
      for k, name in _TERMS.items()
      if k != "global"
    },
    temperature=of_step("tau_pres"),
    presence_prior=of_step("aux_p_pres"),
    scale_prior=of_step("aux_p_scale_mean"),
    curriculum=curriculum,
  )


def _decoder(conv: Mapping[str, Any], name: str) -> dict[str, Any]:
  """Arguments of a `PictureDecoder`."""
  channels = conv[f"{name}_filters"][:-1]
  return {
    "output_channels": channels,
    "kernel_shapes": conv[f"{name}_kernel_sizes"],
    "upscales": conv[f"{name}_upscales"],
    "num_groups": conv[f"{name}_groups"][: len(channels)],
  }


class _Case:
  """A recorded run, and what it takes to build the model again."""

  def __init__(self, folder: pathlib.Path):
    self.config = cases.read_config(folder)
    self.steps: list[dict[str, Any]] = self.config["steps"]
    self.first_step = self.steps[0]["step_of_betas_and_tau"]
    if not (folder / "weights.npz").exists():
      raise ValueError("has no weights.npz; make it as the case's README says")
    self.weights = cases.read_arrays(folder / "weights.npz")
    self.expected = cases.read_arrays(folder / "expected.npz")
    inputs = cases.read_arrays(folder / "inputs.npz")
    self.image = tf.constant(inputs["image"])
    self.data = {"image": self.image[:, None]}
    self.draws = {
      name.removeprefix("noise/"): tf.constant(value)
      for name, value in inputs.items()
      if name.startswith("noise/")
    }

  def of_step(self, name: str) -> annealing.Schedule:
    """What was in force, as a function of the step.

    A term that the record does not have did not count.
    """
    values = tf.constant([step.get(name, 0.0) for step in self.steps])
    term = name.replace("beta_aux_", "aux_kl_").replace("beta_", "kl_")
    if term != name and f"forward/mean/{term}" not in self.expected:
      values = tf.zeros_like(values)

    def value(step: tf.Tensor) -> tf.Tensor:
      index = tf.cast(step, tf.int64) - self.first_step
      return values[tf.clip_by_value(index, 0, len(self.steps) - 1)]

    return value

  def noise(self, step: int) -> dict[str, tf.Tensor]:
    """The draws of a training step."""
    draws = {
      name: value[step][None]
      for name, value in self.draws.items()
      if not name.startswith("sample_")
    }
    # Without overlap, depth counts for nothing.
    return {"depth": tf.zeros_like(draws["pres_uniform"]), **draws}

  def trainer(self, report: Report) -> training.Trainer:
    """The model with the recorded weights, and its optimizer."""
    model = make_model(self.config, self.of_step)
    options = self.config["optimizer"]
    optimizer = training.RMSprop(
      options["lr"],
      decay=options["alpha"],
      epsilon=options["eps"],
      clip_norm=options["clip_global_norm"],
      clip_epsilon=1e-6,
    )
    trainer = training.Trainer(model, optimizer, seed=0)
    trainer.initialize(self.image.shape[1:], {})
    optimizer.step.assign(self.first_step)
    self.variables(model).load(report, model)
    return trainer

  def variables(self, model: GNM) -> Variables:
    """The names of the record and of the model."""
    shapes = {name: value.shape for name, value in self.weights.items()}
    table = gnm_weights.table_of(shapes)
    assert table is not None
    return Variables(table, model, self.weights, [], {})


def check(folder: pathlib.Path) -> Report:
  """Holds the model against a case; see `tests.parity.check`."""
  case = _Case(folder)
  report = Report(folder.name, case.expected)
  _schedules(case, report)
  _forward(case, report)
  _generation(case, report)
  _training(case, report)
  return report


def _schedules(case: _Case, report: Report) -> None:
  """Compares annealed values with what was in force."""
  options = case.config["train"]
  count = 0
  for name in case.steps[0]:
    key = {"aux_p_pres": "p_pres"}.get(name, name)
    if f"{key}_anneal_start_value" not in options:
      continue
    start, end, from_step, to_step = (
      options[f"{key}_anneal_{part}"]
      for part in ("start_value", "end_value", "start_step", "end_step")
    )
    value: Any = start
    if to_step:  # Without an end, the value stays what it is.
      value = dict(start=start, end=end, from_step=from_step, to_step=to_step)
    schedule = annealing.linear(name, value)
    kind = "prior_and_curriculum" if name == "aux_p_pres" else "betas_and_tau"
    for step in case.steps:
      actual = float(schedule(step[f"step_of_{kind}"]))
      count += 1
      if not abs(actual - step[name]) <= _SCHEDULES * max(abs(step[name]), 1):
        report.fail("schedules", f"{name}: {actual}, recorded {step[name]}")
  report.tell("schedules", f"{count:>4} values")


def _named(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
  return {f"{prefix}{key}": value for key, value in values.items()}


def _normals(which: str, distributions: Any) -> dict[str, Any]:
  """Recorded names of symbols' distributions."""
  values = {f"{which}_pres_logits": distributions.presence}
  for name in ("where", "depth", "what"):
    normal = getattr(distributions, name)
    if normal is not None:
      values[f"{which}_{name}_mean"] = normal.loc
      values[f"{which}_{name}_std"] = normal.scale
  return values


def _forward(case: _Case, report: Report) -> None:
  model = case.trainer(report).model
  step = tf.constant(case.first_step, tf.int64)
  loss = model(case.data, noise=case.noise(0), step=step)
  made = loss.iterations
  rendered, objects = made.scene.rendered, made.scene.objects
  size = made.features.shape[1]
  latent, glimpses = made.global_latent, made.scene.glimpses
  channels = case.image.shape[-1]
  actual = {
    "img_enc": made.features,
    "global_map": latent.map,
    "z_global": latent.z,
    "p_global_mean": latent.prior.loc,
    "p_global_std": latent.prior.scale,
    "q_global_mean": latent.posterior.loc,
    "q_global_std": latent.posterior.scale,
    **_normals("p", made.prior),
    **_normals("q", made.posterior),
    "z_pres": made.symbols.presence,
    "z_where_raw": made.symbols.where,
    "z_where": _grid(objects.where, size),
    "z_depth": made.symbols.depth,
    "z_what": made.symbols.what,
    "glimpse_rgb": glimpses[..., :channels],
    "placed_rgb": rendered.placed,
    "foreground": rendered.foreground,
    "recon": rendered.image,
  }
  if (background := made.background) is not None:
    actual |= {
      "z_bg": background.z,
      "p_bg_mean": background.prior.loc,
      "p_bg_std": background.prior.scale,
      "q_bg_mean": background.posterior.loc,
      "q_bg_std": background.posterior.scale,
      "background": made.scene.background,
    }
  if rendered.masks is not None:
    actual |= {
      "glimpse_alpha": glimpses[..., channels:],
      "placed_importance": rendered.importances,
      "masks": rendered.masks,
      "alpha_map": rendered.alpha,
    }
  actual |= _terms(model, case, made, step)
  actual |= {"mean/" + k: v for k, v in _means(loss.scalars).items()}
  actual["loss"] = loss.total
  report.compare(
    "forward",
    report.known(_named("forward/", actual)),
    _FORWARD,
    _FORWARD_MEDIAN,
  )


def _grid(x: tf.Tensor, size: int) -> tf.Tensor:
  """[B, K, n] to [B, N, N, n]."""
  return tf.reshape(x, [-1, size, size, x.shape[-1]])


def _terms(
  model: GNM, case: _Case, made: Any, step: tf.Tensor
) -> dict[str, Any]:
  """Recorded names of the terms of every image."""
  values = {
    "log_like": objective.log_likelihood(
      case.image, made.scene.rendered.image, model._sigma
    )
  }
  latent = made.global_latent
  annealed = model.annealed(step)
  priors = annealed.presence_prior, annealed.scale_prior
  for prefix, terms in (
    ("kl", objective.kls(made)),
    ("aux_kl", objective.auxiliary_kls(made, *priors)),
    ("log_importance", objective.log_ratios(made)),
  ):
    values |= {f"{prefix}_{_TERMS[k]}": value for k, value in terms.items()}
  values["kl_global"] = objective.kl(latent.posterior, latent.prior)
  return _named("per_image/", values)


def _means(scalars: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
  """Recorded names of the terms, as means over the batch."""
  values = {"log_like": -scalars["loss/nll"]}
  for name, published in _TERMS.items():
    for prefix, here in (("kl", "kl"), ("aux_kl", "kl_auxiliary")):
      if f"loss/{here}_{name}" in scalars:
        values[f"{prefix}_{published}"] = scalars[f"loss/{here}_{name}"]
  return values


def _generation(case: _Case, report: Report) -> None:
  if not report.starting("sample_mode/"):
    return
  model = case.trainer(report).model
  step = case.first_step + len(case.steps) - 1
  latent, scene = model._autoencoder.imagine(
    {"global": case.draws["sample_global"]},
    None,
    case.image.shape[1:],
    model.annealed(step).covering,
  )
  rendered, objects = scene.rendered, scene.objects
  size = latent.map.shape[1]
  actual = {
    "recon": rendered.image,
    "foreground": rendered.foreground,
    "alpha_map": rendered.alpha,
    "background": scene.background,
    "z_global": latent.z,
    "z_pres": _grid(objects.presence, size),
    "z_where": _grid(objects.where, size),
  }
  present = {k: v for k, v in actual.items() if v is not None}
  report.compare(
    "generation",
    report.known(_named("sample_mode/", present)),
    _FORWARD,
    is_optional=True,
  )


def _training(case: _Case, report: Report) -> None:
  trainer = case.trainer(report)
  model, optimizer = trainer.model, trainer.optimizer
  names = case.variables(model)
  before = variables.values_of(model)
  gradients = variables.gradients_of(
    model, case.data, case.noise(0), case.first_step
  )
  if report.starting("grad/"):
    names.compare(report, "gradients", "grad", gradients, _GRADIENTS)
  if report.starting("grad_norm/"):
    names.compare_norms(
      report, "gradient norms", "grad_norm", gradients, _GRADIENTS
    )
  for step in range(len(case.steps)):
    scalars = trainer.step(case.data, noise=case.noise(step))
    actual = {
      "loss": scalars["loss/total"],
      "grad_norm_before_clip": scalars["debug/global_grad_norm"],
      **_means(scalars),
    }
    report.compare(
      f"step {step}",
      report.known(_named(f"train/{step}/", actual)),
      _TRAINING[min(step, len(_TRAINING) - 1)],
      is_optional=True,
    )
    if step == 0 and report.starting("trained_1/"):
      after = variables.values_of(model)
      names.compare_changes(
        report, before, after, prefix="trained_1", bound=_FIRST_CHANGE
      )
  after = variables.values_of(model)
  if report.starting("trained/"):
    names.compare_changes(
      report, before, after, prefix="trained", bound=_CHANGE
    )
  changes = {name: after[name] - before[name] for name in after}
  squares = variables.moments_of(after, optimizer, "v")
  for prefix, own, bound in (
    ("trained_norm", after, _TRAINED),
    ("change_norm", changes, _CHANGE),
    ("rmsprop_norm", squares, _CHANGE),
  ):
    if report.starting(f"{prefix}/"):
      names.compare_norms(report, prefix, prefix, own, bound)
  if report.starting("rmsprop/"):
    names.compare(report, "mean squares", "rmsprop", squares, _CHANGE)
