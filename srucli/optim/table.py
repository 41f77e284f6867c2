"""The table of optimizers, and its rows in words.

A new optimizer is one more row here, and the tests that iterate over OPTIMIZERS test it. The update
rules are torch's wherever torch has them. torch is not imported here, so that a wrong name or
option is reported before torch is loaded. `factory.py` builds an optimizer from a row.

Default learning rates are peaks for a small recurrent classifier with a one-cycle schedule and
gradients clipped at 1. They are the middle of the good rates of a coarse grid, scored on a held-out
tenth of TREC's training set after 4 epochs, since such a short training favours large rates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from srucli.errors import UsageError, did_you_mean
from srucli.optim.effective import ADADELTA, ADAGRAD, ADAM, ADAMAX, RADAM, RMSPROP, SecondMoment
from srucli.optim.options import AT_LEAST_ONE, INNER_SHARE, NEGATIVE, POSITIVE, SHARE, STEPS, Option


@dataclass(frozen=True)
class OptimizerRow:
    """One optimizer.

    target: `module:Class`, which takes parameter groups, and `lr` and the options by keyword.
    lr, weight_decay: used where the configuration sets none.
    rule: the update in plain text; w is a weight, g its gradient (with weight decay added, unless
    stated otherwise), t the step from 1.
    state: what each tensor that it keeps for a parameter means.
    fused: the device types for which every supported torch has a fused kernel; it is then used.
    fixed: arguments that make the class this optimizer.
    captured: arguments with which a CUDA graph can capture a step; None where it cannot.
    second_moment: what diagnostics read, where it divides by a root of squared gradients.
    rows: whether, on a CPU, it updates only those rows of an embedding that have a gradient.
    """

    target: str
    lr: float
    summary: str
    rule: tuple[str, ...]
    paper: str
    options: Mapping[str, Option] = field(default_factory=dict)
    state: Mapping[str, str] = field(default_factory=dict)
    fused: frozenset[str] = frozenset()
    fixed: Mapping[str, Any] = field(default_factory=dict)
    captured: Mapping[str, Any] | None = None
    weight_decay: float = 0.0
    second_moment: SecondMoment | None = None
    rows: bool = False


FUSED = frozenset({"cpu", "cuda"})
CAPTURABLE = {"capturable": True}

STEP = {"step": "steps taken"}
MEAN_SQUARE = "exponential mean of the squared gradients"
MOMENTS = {
    **STEP,
    "exp_avg": "exponential mean of the gradients (first moment, before bias correction)",
    "exp_avg_sq": f"{MEAN_SQUARE} (second moment, before bias correction)",
}

EPS = Option(1e-8, "added to the root of the second moment: bounds the step", POSITIVE)
BETAS = Option((0.9, 0.999), "decay of the first and of the second moment, per step", SHARE)
BETAS_EPS = {"betas": BETAS, "eps": EPS}
AMSGRAD = Option(False, "divide by the largest second moment so far (Reddi et al. 2018)")
ADAM_OPTIONS = {**BETAS_EPS, "amsgrad": AMSGRAD}
DECOUPLED = Option(False, "shrink the weights directly, as adamw does, not through the gradient")
MOMENTUM = Option(0.9, "share of the velocity that is kept, per step", INNER_SHARE)

FIRST_MOMENT = "m <- beta1 m + (1 - beta1) g"
SECOND_MOMENT = "v <- beta2 v + (1 - beta2) g^2"
ADAM_STEP = "w <- w - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps)"

ROWS = "on a CPU, only the rows of an embedding with a gradient, and their m and v, change"

SGD_ROW = OptimizerRow(
    target="torch.optim:SGD",
    lr=3.0,
    summary="steps against the gradient, without memory",
    rule=("w <- w - lr g",),
    paper="Robbins & Monro 1951, Annals of Mathematical Statistics 22(3)",
    fused=FUSED,
    captured={},
)
MOMENTUM_ROW = replace(
    SGD_ROW,
    lr=0.3,
    summary="steps along the velocity, a decaying sum of the gradients (heavy-ball momentum)",
    rule=("v <- momentum v + (1 - dampening) g", "w <- w - lr v"),
    paper="Polyak 1964, USSR Computational Mathematics and Mathematical Physics 4(5)",
    options={
        "momentum": MOMENTUM,
        "dampening": Option(0.0, "share of a gradient kept out of the velocity", SHARE),
    },
    state={"momentum_buffer": "decaying sum of the gradients: the velocity"},
)
ADAM_ROW = OptimizerRow(
    target="srucli.optim.adam:Adam",
    lr=2e-3,
    summary="momentum divided by the root that rmsprop uses, both with bias correction",
    rule=(FIRST_MOMENT, SECOND_MOMENT, ADAM_STEP, ROWS),
    paper="Kingma & Ba 2015, ICLR, arXiv 1412.6980",
    options={
        **ADAM_OPTIONS,
        "bias_correction": Option(True, "correct both moments for their start at zero"),
    },
    state={**MOMENTS, "max_exp_avg_sq": "largest second moment so far (amsgrad only)"},
    fused=FUSED,
    captured=CAPTURABLE,
    second_moment=ADAM,
    rows=True,
)
OPTIMIZERS: dict[str, OptimizerRow] = {
    "sgd": SGD_ROW,
    "momentum": MOMENTUM_ROW,
    "nesterov": replace(
        MOMENTUM_ROW,
        summary="momentum that looks one step of the velocity ahead",
        rule=("v <- momentum v + g", "w <- w - lr (g + momentum v)"),
        paper="Nesterov 1983, Soviet Mathematics Doklady 27(2); as Sutskever et al. 2013, ICML",
        options={"momentum": MOMENTUM},
        fixed={"nesterov": True},
    ),
    "adagrad": OptimizerRow(
        target="torch.optim:Adagrad",
        lr=5e-2,
        summary="divides by the square root of the sum of all squared gradients: steps only shrink",
        rule=("s <- s + g^2", "w <- w - lr / (1 + lr_decay (t - 1)) g / (sqrt(s) + eps)"),
        paper="Duchi, Hazan & Singer 2011, Journal of Machine Learning Research 12",
        options={
            "lr_decay": Option(0.0, "learning rate is divided by 1 + lr_decay * steps taken"),
            "initial_accumulator_value": Option(0.0, "initial value of the sum of squares"),
            "eps": Option(1e-10, "added to the root of the sum: bounds the step", POSITIVE),
        },
        state={**STEP, "sum": "sum of all squared gradients so far"},
        fused=frozenset({"cpu"}),  # for CUDA only since torch 2.12
        second_moment=ADAGRAD,
    ),
    "rmsprop": OptimizerRow(
        target="torch.optim:RMSprop",
        lr=2e-3,
        summary="divides by the root of an exponential moving average of the squared gradients",
        rule=(
            "s <- alpha s + (1 - alpha) g^2",
            "v <- momentum v + g / (sqrt(s) + eps); centered: s minus the squared mean of g",
            "w <- w - lr v",
        ),
        paper="Tieleman & Hinton 2012, Neural Networks for Machine Learning, lecture 6.5",
        options={
            "alpha": Option(0.99, "decay of the mean of squares, per step", SHARE),
            "eps": EPS,
            "momentum": replace(MOMENTUM, default=0.0, range=SHARE),
            "centered": Option(False, "divide by the root of the variance (Graves 2013)"),
        },
        state={
            **STEP,
            "square_avg": MEAN_SQUARE,
            "momentum_buffer": "decaying sum of the scaled gradients (momentum only)",
            "grad_avg": "exponential mean of the gradients (centered only)",
        },
        captured=CAPTURABLE,
        second_moment=RMSPROP,
    ),
    "adam": ADAM_ROW,
    "adam-nobias": replace(
        ADAM_ROW,
        summary="adam without bias correction, which matters in the first steps",
        rule=(FIRST_MOMENT, SECOND_MOMENT, "w <- w - lr m / (sqrt(v) + eps)", ROWS),
        paper=f"{ADAM_ROW.paper}, without section 3",
        options=ADAM_OPTIONS,
        fixed={"bias_correction": False},
        captured=None,
    ),
    "adamw": replace(
        ADAM_ROW,
        target="torch.optim:AdamW",
        summary="adam with decoupled weight decay",
        rule=(
            f"{FIRST_MOMENT}; g without weight decay",
            SECOND_MOMENT,
            "w <- (1 - lr weight_decay) w",
            ADAM_STEP,
        ),
        paper="Loshchilov & Hutter 2019, ICLR, arXiv 1711.05101",
        options=ADAM_OPTIONS,
        weight_decay=0.01,
        rows=False,
    ),
    "adadelta": OptimizerRow(
        target="torch.optim:Adadelta",
        lr=5.0,
        summary="scales the gradient by the RMS of recent updates over the RMS of recent gradients",
        rule=(
            "s <- rho s + (1 - rho) g^2",
            "d <- sqrt(a + eps) / sqrt(s + eps) g",
            "a <- rho a + (1 - rho) d^2",
            "w <- w - lr d",
        ),
        paper="Zeiler 2012, arXiv 1212.5701",
        options={
            "rho": Option(0.9, "decay of both means, per step", SHARE),
            "eps": Option(1e-6, "added under both roots: sets the size of first steps", POSITIVE),
        },
        state={
            **STEP,
            "square_avg": MEAN_SQUARE,
            "acc_delta": "exponential mean of the squared steps (before the learning rate)",
        },
        captured=CAPTURABLE,
        second_moment=ADADELTA,
    ),
    "adamax": OptimizerRow(
        target="torch.optim:Adamax",
        lr=8e-3,
        summary="adam that divides by a decaying maximum of the gradients instead of the root",
        rule=(FIRST_MOMENT, "u <- max(beta2 u, |g| + eps)", "w <- w - lr m / (1 - beta1^t) / u"),
        paper=f"{ADAM_ROW.paper}, section 7.1",
        options=BETAS_EPS,
        state={**STEP, "exp_avg": MOMENTS["exp_avg"], "exp_inf": "decaying maximum of |g|"},
        captured=CAPTURABLE,
        second_moment=ADAMAX,
    ),
    "nadam": OptimizerRow(
        target="torch.optim:NAdam",
        lr=2e-3,
        summary="adam with nesterov's look ahead",
        rule=(
            "m, v as in adam",
            "mu(t) = beta1 (1 - 0.96^(t momentum_decay) / 2); p(t) = mu(1) mu(2) ... mu(t)",
            "n <- (1 - mu(t)) g / (1 - p(t)) + mu(t + 1) m / (1 - p(t + 1))",
            "w <- w - lr n / (sqrt(v / (1 - beta2^t)) + eps)",
        ),
        paper="Dozat 2016, ICLR workshop",
        options={
            **BETAS_EPS,
            "momentum_decay": Option(4e-3, "how fast the momentum rises to its full value"),
            "decoupled_weight_decay": DECOUPLED,
        },
        state={**MOMENTS, "mu_product": "product of the momenta of all steps: corrects the start"},
        captured=CAPTURABLE,
        second_moment=ADAM,
    ),
    "radam": OptimizerRow(
        target="torch.optim:RAdam",
        lr=5e-3,
        summary="adam that scales its first steps down while the second moment is uncertain",
        rule=(
            "m, v as in adam; k = 2 / (1 - beta2) - 1; l = k - 2 t beta2^t / (1 - beta2^t)",
            "r = sqrt((l - 4) (l - 2) k / ((k - 4) (k - 2) l))",
            "w <- w - lr r m / (1 - beta1^t) sqrt(1 - beta2^t) / (sqrt(v) + eps), where l > 5",
            "w <- w - lr m / (1 - beta1^t), before that",
        ),
        paper="Liu et al. 2020, ICLR, arXiv 1908.03265",
        options={**BETAS_EPS, "decoupled_weight_decay": DECOUPLED},
        state=MOMENTS,
        captured=CAPTURABLE,
        second_moment=RADAM,
    ),
    "adafactor": OptimizerRow(
        target="torch.optim:Adafactor",
        lr=3e-2,
        summary="steps relative to the weights' size; keeps squares by row and column only",
        rule=(
            "V <- beta V + (1 - beta) g^2, where beta = 1 - t^beta2_decay",
            "for a matrix, only the means of V over rows and columns are kept, and multiplied",
            "u <- g / sqrt(V), divided by max(1, rms(u) / d)",
            "w <- (1 - lr weight_decay) w - max(eps2, rms(w)) min(lr, 1 / sqrt(t)) u",
        ),
        paper="Shazeer & Stern 2018, ICML, arXiv 1804.04235",
        options={
            "beta2_decay": Option(-0.8, "the squares' decay at step t is 1 - t^this", NEGATIVE),
            "eps": Option(
                (1e-7, 1e-3), "least root of the squares, least size of weights", POSITIVE
            ),
            "d": Option(1.0, "largest root mean square of a step before scaling", AT_LEAST_ONE),
        },
        state={
            **STEP,
            "row_var": f"{MEAN_SQUARE}, averaged over each row (matrices only)",
            "col_var": f"{MEAN_SQUARE}, averaged over each column (matrices only)",
            "variance": f"{MEAN_SQUARE} (vectors only)",
        },
    ),
    "lion": OptimizerRow(
        target="srucli.optim.lion:Lion",
        lr=2e-3,
        summary="moves every weight by the same distance; the momentum's sign gives the direction",
        rule=(
            "d <- sign(beta1 m + (1 - beta1) g); g without weight decay",
            "m <- beta2 m + (1 - beta2) g",
            "w <- (1 - lr weight_decay) w - lr d",
        ),
        paper="Chen et al. 2023, NeurIPS, arXiv 2302.06675",
        options={"betas": Option((0.9, 0.99), "share of the mean in a step, and its decay", SHARE)},
        state={"exp_avg": "exponential mean of the gradients"},
        weight_decay=0.01,
    ),
    "muon": OptimizerRow(
        target="srucli.optim.muon:MuonWithAdamW",
        lr=4e-3,
        summary="makes the momentum of hidden matrices orthogonal; adamw for all other weights",
        rule=(
            "hidden matrices: v <- momentum v + (1 - momentum) g; looks ahead with nesterov",
            "U S V' = v, by ns_steps Newton-Schulz iterations",
            "w <- (1 - lr weight_decay) w - 0.2 sqrt(max(rows, columns)) lr U V'",
            "all other weights: as adamw",
        ),
        paper="Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, "
        "arXiv 2502.16982",
        options={
            "momentum": Option(0.95, "decay of the mean of the matrices' gradients", INNER_SHARE),
            "nesterov": Option(True, "look one step ahead"),
            "ns_steps": Option(5, "Newton-Schulz iterations towards an orthogonal step", STEPS),
            **BETAS_EPS,
        },
        state={
            "momentum_buffer": "exponential mean of the gradients (hidden matrices only)",
            **{key: f"{meaning}; not hidden matrices" for key, meaning in MOMENTS.items()},
        },
        fused=FUSED,
        weight_decay=0.01,
        second_moment=ADAM,  # of all but hidden matrices
    ),
}


def check_name(name: str, setting: str = "optim.name") -> None:
    """Raise UsageError naming `setting` if no row has that name; other packages' names pass."""
    if name not in OPTIMIZERS and ":" not in name:
        hint = did_you_mean(name, list(OPTIMIZERS))
        raise UsageError(f"{setting}: unknown optimizer '{name}'{hint}")


def row_named(name: str) -> OptimizerRow:
    """Return the row of that name. Raises UsageError if there is none."""
    check_name(name)
    return OPTIMIZERS[name]


def second_moment(name: str) -> SecondMoment | None:
    """Return the second moment of an optimizer; None if it has none or is not in the table."""
    return OPTIMIZERS[name].second_moment if name in OPTIMIZERS else None


def describe(name: str) -> dict[str, Any]:
    """Return a row as data that JSON can hold. Raises UsageError for an unknown name."""
    row = row_named(name)
    return {
        "name": name,
        "summary": row.summary,
        "rule": list(row.rule),
        "lr": row.lr,
        "weight_decay": row.weight_decay,
        "options": {key: option.described() for key, option in row.options.items()},
        "state": dict(row.state),
        "fused": sorted(row.fused),
        "captured": row.captured is not None,
        "rows": row.rows,
        "paper": row.paper,
    }


def matching(words: Iterable[str]) -> list[str]:
    """Return the names of the rows that contain every word. Raises UsageError if there is none."""
    wanted = [word.lower() for word in words]
    found = [name for name in OPTIMIZERS if all(word in _text(name) for word in wanted)]
    if not found:
        asked = " ".join(wanted)
        hint = did_you_mean(asked, list(OPTIMIZERS))
        raise UsageError(f"no optimizer is described by '{asked}'{hint}")
    return found


def _text(name: str) -> str:
    row = OPTIMIZERS[name]
    parts = [name, row.summary, row.paper, *row.rule, *row.state, *row.state.values()]
    parts += [word for key, option in row.options.items() for word in (key, option.meaning)]
    return " ".join([*parts, *(f"fused {device}" for device in row.fused)]).lower()
