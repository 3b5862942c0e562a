"""Agreement with recorded outputs of SLATE's published code.

A case is a folder:
  config.json: the code's arguments.
  weights.npz: initial weights under PyTorch's names and in its layouts.
  inputs.npz: pictures [B, H, W, 3] in [0, 1], and draws: gumbel [S, 2, B, h, w,
    V] and noise [S + 1, B, K, D], the last of which is for generation.
  expected.npz: forward pass, gradients, training steps, generation.
  best_model.pt, lightning.ckpt: the initial weights as the published code
    saves them; may be missing.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from iodine import training
from iodine.models import published
from iodine.models.slate import SLATE
from iodine.models.slate import weights as slate_weights
from iodine.models.slate.transformer import Dropout
from tests.parity import cases, variables
from tests.parity.report import Report, largest_difference
from tests.parity.variables import Variables

_FORWARD = 1e-5
_LOSSES = 1e-5
_MARGINS = 1e-5  # absolute: differences of numbers of about 1

Noise = dict[str, tf.Tensor]


def make_model(
  values: Mapping[str, np.ndarray], config: Mapping[str, Any]
) -> SLATE:
  """Builds a model of the size and version of published weights.

  Args:
    values: the weights by published names.
    config: the published code's arguments; of those that do not follow from the
      weights, num_slots, num_iterations and num_heads have to be there.

  Returns:
    The model, without variables.
  """
  table = slate_weights.table_of(values)
  assert table is not None
  sizes = slate_weights.options(published.shapes(values, table))
  return SLATE(
    n_z=sizes["n_z"],
    num_components=config["num_slots"],
    num_iters=config["num_iterations"],
    vocab_size=sizes["model.vocab_size"],
    d_model=sizes["model.d_model"],
    num_heads=config["num_heads"],
    num_blocks=sizes["model.num_blocks"],
    dropout=config.get("dropout", 0.0),
    mlp_size=sizes["model.mlp_size"],
    num_slot_heads=config.get("num_slot_heads", 1),
    hard=config.get("hard", False),
    tau_start=config.get("tau_start", 1.0),
    tau_final=config.get("tau_final", 0.1),
    tau_steps=config.get("tau_steps", 30_000),
    implicit=table is slate_weights.HHOUSEN,
  )


class _Case:
  """A recorded run, and what it takes to build the model again."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.config = cases.read_config(folder)
    self.weights = cases.read_arrays(folder / "weights.npz")
    self.expected = cases.read_arrays(folder / "expected.npz")
    inputs = cases.read_arrays(folder / "inputs.npz")
    table = slate_weights.table_of(self.weights)
    assert table is not None, folder
    self.table = table
    self.is_original = table is slate_weights.ORIGINAL
    self.image = tf.constant(inputs["image"])
    self.data: dict[str, Any] = {"image": self.image[:, None]}
    self.gumbel = tf.constant(inputs["gumbel"])
    self.slot_noise = tf.constant(inputs["noise"])

  def noise(self, step: int) -> Noise:
    """The draws of a training step."""
    return {"gumbel": self.gumbel[step], "slots": self.slot_noise[step][None]}

  def trainer(
    self, report: Report, hard: bool | None = None
  ) -> training.Trainer:
    """The model with the recorded weights, and its optimizer.

    Args:
      report: of the case.
      hard: whether the dVAE decodes one-hot tokens; None: as in the record.
    """
    config = dict(self.config)
    if hard is not None:
      config["hard"] = hard
    model = make_model(self.weights, config)
    trainer = training.Trainer(model, self._optimizer(), seed=0)
    trainer.initialize(self.image.shape[1:], {})
    self.variables(model).load(report, model)
    return trainer

  def clips_largest(self) -> bool:
    """Whether clipping is by the largest entry, not by the 2-norm."""
    default = "inf" if self.is_original else 2
    return "inf" in str(self.config.get("clip_norm", default))

  def _optimizer(self) -> training.Adam:
    config = self.config
    return training.make_optimizer(
      config["lr_main"],
      beta1=0.9,
      epsilon_form="pytorch",
      decay_steps=None,
      warmup_steps=config["lr_warmup_steps"],
      warmup_from_zero=False,
      clip_norm=float(config.get("clip", 1.0)),
      clip_norm_type="inf" if self.clips_largest() else 2,
      clip_epsilon=1e-6,
      groups={"dvae": {"learn_rate": config["lr_dvae"], "warmup_steps": 0}},
    )

  def variables(self, model: SLATE) -> Variables:
    """The names of the record and of the model."""
    constants = {
      name: np.triu(np.ones_like(value), 1)
      for name, value in self.weights.items()
      if name.endswith(".self_attn_mask")
    }
    undecided = self.config.get("noise_decides", [])
    return Variables(self.table, model, self.weights, undecided, constants)


def check(folder: pathlib.Path) -> Report:
  """Holds the model against a case; see `tests.parity.check`."""
  case = _Case(folder)
  report = Report(folder.name, case.expected)
  _forward(case, report)
  _evaluation(case, report)
  _training(case, report)
  for name in ("best_model.pt", "lightning.ckpt", "checkpoint.pt.tar"):
    path = folder / name
    if path.exists():
      variables.check_torch_file(path, case.trainer(report).model, report)
  leave_out_margins(report)
  return report


def leave_out_margins(report: Report) -> None:
  """Leaves out what is left of the gaps that decided on tokens."""
  margins = [name for name in report.recorded if name.endswith("_margin")]
  report.leave_out(margins, "tells only how close a choice of tokens was")


def _margin(scores: Any) -> np.ndarray:
  """The smallest gap between the best and the second [..., V]."""
  best = np.sort(np.asarray(scores), axis=-1)[..., -2:]
  return np.min(best[..., 1] - best[..., 0])


def _compare_margins(report: Report, margins: dict[str, Any]) -> None:
  report.compare(
    "margins",
    report.known(margins),
    _MARGINS,
    error=largest_difference,
    is_optional=True,
  )


def _pictures(case: _Case, model: SLATE, updates: list) -> tf.Tensor:
  """[B, K, H, W, 3], the image where each slot attends to it, else white."""
  masks = model._masks(updates[-1:])[:, 0]
  return case.image[:, None] * masks + 1.0 - masks


def _stacked(updates: list, field: str) -> np.ndarray:
  return np.stack([getattr(update, field) for update in updates])


def _forward(case: _Case, report: Report) -> None:
  model = case.trainer(report).model
  noise = case.noise(0)
  loss = model(case.data, noise=noise, step=tf.constant(0, tf.int64))
  record = loss.iterations
  recons, updates = record["recons"], record["updates"]
  actual = {
    "dvae_logits": record["dvae_logits"],
    "z": record["codes"],
    "reconstruction_unclamped": recons,
    "reconstruction": tf.clip_by_value(recons, 0.0, 1.0),
    "embeddings": record["embeddings"],
    "slot_inputs": record["inputs"],
    "attention": _stacked(updates, "attention"),
    "slots": _stacked(updates, "slots"),
    "slots_projected": record["slots_projected"],
    "decoder_output": record["decoded"],
    "logits": record["logits"],
    "attention_pictures": _pictures(case, model, updates),
    **{f"block_{i}": x for i, x in enumerate(record["blocks"])},
  }
  report.compare("forward", report.known(actual), _FORWARD)
  report.equal("tokens", report.known({"tokens": record["tokens"]}))
  log_probs = tf.nn.log_softmax(record["dvae_logits"])
  _compare_margins(
    report, {"token_margin": _margin(log_probs + noise["gumbel"][1])}
  )


def _evaluation(case: _Case, report: Report) -> None:
  """Compares losses without dropout, and generation."""
  losses = {}
  for kind, hard in (("relax", False), ("hard", True)):
    model = case.trainer(report, hard=hard).model
    scalars = model(case.data, noise=case.noise(0)).scalars
    losses[f"eval_mse_{kind}"] = scalars["loss/mse_sum"]
    losses[f"eval_cross_entropy_{kind}"] = scalars["loss/cross_entropy"]
  report.compare("evaluation", report.known(losses), _LOSSES, is_optional=True)

  log_probs = tf.nn.log_softmax(model.dvae.encode(case.image))
  tokens = tf.reshape(tf.argmax(log_probs, axis=-1), [len(case.image), -1])
  info = model.infer(case.data, noise={"slots": case.slot_noise[-1:]})
  updates = model._read(tokens, case.slot_noise[-1], Dropout()).updates
  slots = updates[-1].slots
  generated = model._generate(slots)
  decoded, _ = model._transformer(
    model._embed(generated)[:, :-1], model._slot_projection(slots), Dropout()
  )
  logits = model._to_logits(decoded)
  report.equal(
    "generated tokens",
    report.known({"dvae_argmax_tokens": tokens, "generated_tokens": generated}),
  )
  actual = {
    "generated_slots": np.swapaxes(info["latent"]["z"], 0, 1),
    "generated_attention": _stacked(updates, "attention"),
    "generated_attention_pictures": info["outputs"]["components"][:, -1],
    "generated_logits": logits,
    "generated": model.compose(slots).recons,
  }
  report.compare("generation", report.known(actual), _FORWARD, is_optional=True)
  _compare_margins(
    report,
    {
      "dvae_argmax_margin": _margin(log_probs),
      "generated_margin": _margin(logits),
    },
  )


def _training(case: _Case, report: Report) -> None:
  trainer = case.trainer(report)
  model, optimizer = trainer.model, trainer.optimizer
  names = case.variables(model)
  before = variables.values_of(model)
  steps: dict[str, list] = {}
  norms = []
  for step in range(case.config["train_steps"]):
    noise = case.noise(step)
    gradients = variables.gradients_of(model, case.data, noise, step)
    flat = np.concatenate([g.ravel() for g in gradients.values()])
    norms.append(np.linalg.norm(flat, np.inf if case.clips_largest() else 2))
    if step == 0:
      gradients_at_0 = gradients
      names.compare_gradients(report, gradients)
    rates = optimizer.group_learn_rates()
    rate = optimizer.learn_rate()
    scalars = trainer.step(case.data, noise=noise)
    for key, value in {
      "losses": scalars["loss/total"],
      "mse": scalars["loss/mse_sum"],
      "cross_entropy": scalars["loss/cross_entropy"],
      "tau": scalars["tau"],
      "lr_dvae": rates["dvae"],
      "lr_main": rate,
    }.items():
      steps.setdefault(key, []).append(value)
  report.compare("training", report.known(steps), _LOSSES)
  report.compare(
    "global norms",
    report.known({"gradient_norm_before_clipping": norms}),
    variables.GRADIENTS,
    is_optional=True,
  )
  after = variables.values_of(model)
  names.compare_changes(report, before, after)
  names.compare_moments(report, after, optimizer)
  changes = {name: after[name] - before[name] for name in after}
  names.compare_undecided(
    report, gradients_at_0, changes, optimizer, steps["lr_main"]
  )
