"""The training loop: from a configuration and labelled files to a run's folder."""

from __future__ import annotations

import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from srucli import kernels, optim
from srucli import model as models
from srucli.batching import TokenStore, uploaded
from srucli.blend import fit_weights
from srucli.config import MOST_DROPOUT, Config
from srucli.corpus import Corpus, data_hash, find_labels, hold_out, make_tokenizer
from srucli.data import Example, read_examples
from srucli.errors import InterruptedRun, SrucliError, UsageError
from srucli.metrics import Outcome, choose_thresholds, metric_named
from srucli.model import Classifier
from srucli.model_card import model_card
from srucli.optim.diagnostics import Watch
from srucli.optim.effective import rule_of
from srucli.predict import blended, branch_logits, resolve_device, use_threads
from srucli.run_dir import RunDir, Which
from srucli.signals import StopRequest
from srucli.sru import use_kernel
from srucli.step import Readout, Step, loss_function
from srucli.tokenizer import Tokenizer

Observer = Callable[[int, Mapping[str, float]], None]


def say(line: str) -> None:
    """A line for people, above a progress bar where there is one."""
    tqdm.write(line, file=sys.stderr)


def check(config: Config) -> torch.device:
    """Refuse, before any data is read, what can be seen to be wrong. Returns the device."""
    models.check(config.model)
    optim.check(config.optim)
    metric_named(metric_name(config), config.data.multi_label)
    device = resolve_device(config.train.device)
    if config.train.precision != "float32" and device.type == "cpu":
        raise UsageError(f"train.precision={config.train.precision} needs a GPU; use float32")
    if config.model.encoder == "sru":
        kernels.check(config.train.kernel, device.type)
    if config.train.class_weights != "none" and config.data.multi_label:
        raise UsageError("train.class_weights=balanced needs a single label a text")
    if config.train.tensorboard and not find_spec("tensorboard"):
        raise UsageError("train.tensorboard needs TensorBoard: pip install 'srucli[tensorboard]'")
    return device


def metric_name(config: Config) -> str:
    """The figure that decides which epoch is best."""
    if config.train.metric != "auto":
        return config.train.metric
    return "macro_f1" if config.data.multi_label else "accuracy"


def epochs(config: Config, texts: int, classes: int) -> int:
    """The configured number, or 400 / sqrt(texts of a class): many passes over few texts.

    Where the steps are given, as many as those may take.
    Those make at least 32,000 texts in all, so that small sets get steps enough, and at most
    400,000; from 3 to 30 epochs. The rule was fitted to cross-validation on small sets.
    """
    settings = config.train
    if settings.steps is not None:
        return math.ceil(settings.steps * settings.batch_size * settings.accumulate / texts)
    if settings.epochs is not None:
        return settings.epochs
    wanted = min(max(400 / math.sqrt(texts / classes), 32_000 / texts), 400_000 / texts)
    return min(max(round(wanted), 3), 30)


def dropout(config: Config, texts: int) -> float:
    """The configured share, or 0.5 for up to 10,000 texts and 50 / sqrt(texts) for more."""
    if config.model.dropout is not None:
        return config.model.dropout
    return round(MOST_DROPOUT * min(math.sqrt(10_000 / texts), 1.0), 3)


def complete(config: Config, texts: int, classes: int) -> Config:
    """The configuration with what depends on the data, and on the optimizer, filled in."""
    model = config.model.model_copy(update={"dropout": dropout(config, texts)})
    train = config.train.model_copy(update={"epochs": epochs(config, texts, classes)})
    optimizer = optim.resolve(config.optim)
    return config.model_copy(update={"model": model, "train": train, "optim": optimizer})


def tensorboard(folder: Path) -> Any:
    """A writer of TensorBoard's event files into the run's folder."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(folder / "tensorboard")


@dataclass
class Progress:
    """What the loop has done so far."""

    step: int = 0
    texts: int = 0
    pieces: int = 0
    best: float = -math.inf
    stale: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self.started


class Trainer:
    """One training: model, optimizer, data and what is done at each step and epoch."""

    def __init__(
        self,
        config: Config,
        device: torch.device,
        run: RunDir,
        tokenizer: Tokenizer,
        train: Corpus,
        dev: Corpus | None,
        labels: list[str],
        observe: Observer | None = None,
    ) -> None:
        self.observe = observe
        classes = len(labels)
        self.config, self.device, self.run, self.tokenizer = config, device, run, tokenizer
        self.train_set, self.dev_set, self.labels = train, dev, labels
        torch.manual_seed(config.train.seed)
        self.model = Classifier(config.model, tokenizer.spelling, classes).to(device)
        use_kernel(self.model, config.train.kernel)
        self.step = Step(config, self.model, loss_function(config, train.targets, classes))
        self.readout = Readout()
        assert config.train.epochs is not None  # `complete` saw to it
        self.epochs = config.train.epochs
        self.metric = metric_name(config)
        self.board = tensorboard(run.path) if config.train.tensorboard else None
        self.done = Progress()
        self.dev_store = None
        if dev is not None:
            longest = config.train.max_tokens
            self.dev_store = TokenStore.encode(tokenizer, dev.texts, longest=longest)

    @property
    def parameters(self) -> int:
        """Trained numbers."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _store(self, epoch: int) -> TokenStore:
        """The training texts in pieces, cut afresh for each epoch."""
        settings = self.config.train
        return TokenStore.encode(
            self.tokenizer,
            self.train_set.texts,
            self.train_set.targets,
            longest=settings.max_tokens,
            subword_dropout=settings.subword_dropout,
            seed=settings.seed * 1_000_003 + epoch,
        )

    def _stores(self) -> Iterator[TokenStore]:
        """The texts in pieces for each epoch; where a GPU trains, cut while it still does."""
        if self.device.type == "cpu":
            yield from map(self._store, range(self.epochs))
            return
        with ThreadPoolExecutor(1) as cutter:
            ahead = cutter.submit(self._store, 0)
            for number in range(1, self.epochs):
                store = ahead.result()
                ahead = cutter.submit(self._store, number)
                yield store
            yield ahead.result()

    def _rate(self) -> float:
        """As a share of the peak; by the share of texts that were seen, as batches vary in size."""
        settings = self.config.optim
        done, planned = self.done.texts, len(self.train_set.texts) * self.epochs
        if self.config.train.steps is not None:
            done, planned = self.done.step, self.config.train.steps
        return optim.factor(settings.schedule, done, planned, settings.warmup)

    @property
    def finished(self) -> bool:
        """Whether all the steps that were asked for are taken."""
        return self.done.step == self.config.train.steps

    def epoch(self, store: TokenStore, number: int, bar: tqdm[Any], stop: StopRequest) -> float:
        """One pass over the texts. Returns the mean loss. Raises SrucliError where it diverges."""
        settings = self.config.train
        if settings.diagnose and not self.step.watch:
            self.step.watch = self._watch(store)
        self.step.total.zero_()
        self.model.train()
        optim.use(self.step.optimizer, training=True)
        texts = 0
        batches = store.batches(settings.batch_size, settings.batch_tokens, (settings.seed, number))
        spelled = np.diff(self.tokenizer.spelling[1])
        for count, batch in enumerate(uploaded(batches, self.device, spelled), start=1):
            texts += batch.texts
            self.done.texts += batch.texts
            self.done.pieces += batch.tokens.numel()
            update = count % settings.accumulate == 0 or texts == len(store.lengths)
            self.step(batch, self._rate(), update)
            self.done.step += update
            if self.step.watch and (record := self.step.watch.taken()):
                self.run.add("diagnostics.jsonl", record)
            bar.update(batch.texts)
            if count % 20 == 0:
                self._report(bar, self.readout.latest(self.step.total / texts))
            if stop.wanted or self.finished:
                break
        loss = float(self.step.total) / max(texts, 1)
        self._report(bar, loss)
        return loss

    def _watch(self, store: TokenStore) -> Watch:
        """What looks at the optimizer; a first line of diagnostics.jsonl says how to read it."""
        settings = self.config.optim
        counts = np.bincount(store.ids, minlength=self.tokenizer.vocab_size)
        rule = rule_of(settings.name, settings.options)
        watch = Watch(self.model, self.step.optimizer, rule, self.config.train.diagnose, counts)
        facts = {"optimizer": settings.model_dump(mode="json"), "counts": watch.counts}
        self.run.add("diagnostics.jsonl", facts)
        return watch

    def _report(self, bar: tqdm[Any], loss: float | None) -> None:
        """Show the loss so far, where it is known; stop where it is not a number."""
        if loss is None:
            return
        if not math.isfinite(loss):
            raise self._diverged(f"the loss is {loss}")
        speed = self.done.pieces / max(self.done.seconds, 1e-9)
        bar.set_postfix_str(f"loss {loss:.4f}, {speed:,.0f} pieces/s", refresh=False)

    def _diverged(self, sign: str) -> SrucliError:
        rate = self.step.optimizer.param_groups[0]["initial_lr"]
        clip = self.config.optim.clip
        return SrucliError(
            f"{sign} at step {self.done.step}: training diverged; lower optim.lr (now {rate:g}) "
            f"or {f'optim.clip (now {clip:g})' if clip else 'set optim.clip=1'}"
        )

    def evaluate(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Figures on the dev texts, and what belongs beside the weights (thresholds).

        How much each branch of the model counts is fitted to them first.
        """
        multi_label = self.config.data.multi_label
        state: dict[str, Any] = {}
        if self.dev_set is None or self.dev_store is None:
            if multi_label:
                state["thresholds"] = [0.5] * len(self.labels)
            return {}, state
        logits = branch_logits(self.model, self.dev_store, self.device)
        thresholds, targets = None, self.dev_set.targets
        targets = targets.astype(bool) if multi_label else targets
        blend = fit_weights(logits.double().cpu().numpy(), targets, multi_label)
        self.model.blend.copy_(torch.tensor(blend))
        probabilities = blended(logits, self.model.blend, multi_label)
        if multi_label:
            thresholds = choose_thresholds(probabilities, targets)
            state["thresholds"] = [float(value) for value in thresholds]
        outcome = Outcome(probabilities, targets, thresholds)
        names = dict.fromkeys([self.metric, "accuracy", "macro_f1", "log_loss"])
        return {name: metric_named(name, multi_label)(outcome) for name in names}, state

    def _record(self, number: int, loss: float, figures: dict[str, float]) -> None:
        """One line in metrics.jsonl, and the same for TensorBoard where it is asked for."""
        rate = float(self.step.optimizer.param_groups[0]["lr"])
        defined = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self.run.add(
            "metrics.jsonl",
            {
                "step": self.done.step,
                "epoch": number + 1,
                "train_loss": loss,
                "lr": rate,
                "seconds": round(self.done.seconds, 3),
                "dev": defined,
            },
        )
        if self.board is not None:
            shown = {"train/loss": loss, "train/lr": rate}
            shown |= {f"dev/{name}": value for name, value in figures.items()}
            for name, value in shown.items():
                self.board.add_scalar(name, value, self.done.step)
            self.board.flush()

    def finish_epoch(self, number: int, loss: float) -> dict[str, float]:
        """Evaluate, record, save. Raises SrucliError where the last step broke the weights."""
        optim.use(self.step.optimizer, training=False)
        if not all(bool(weight.isfinite().all()) for weight in self.model.parameters()):
            raise self._diverged("a weight is not a number")
        figures, state = self.evaluate()
        self._record(number, loss, figures)
        which: set[Which] = {"last"}
        if self._improved(figures):
            which.add("best")
        self.run.save(
            self.done.step, self.model.state_dict(), {"epoch": number + 1, **state}, which
        )
        card = model_card(self.run.path.name, self.config, self.labels, self.run.facts(), figures)
        self.run.write("README.md", card.encode())
        shown = "".join(f"  {name} {value:.4f}" for name, value in figures.items())
        say(
            f"epoch {number + 1}/{self.epochs}  loss {loss:.4f}{shown and '  dev'}{shown}"
            f"{'  *' if figures and 'best' in which else ''}  {self.done.seconds:.0f} s"
        )
        return figures

    def _improved(self, figures: dict[str, float]) -> bool:
        """Whether the weights are the best so far; always while there is no figure to go by."""
        if not figures:
            return True
        value = figures[self.metric]
        value = value if metric_named(self.metric).larger_is_better else -value
        if self.done.best == -math.inf or value > self.done.best:
            value = -math.inf if math.isnan(value) else value
            self.done.best, self.done.stale = value, 0
            return True
        self.done.stale += 1
        return False

    def train(self) -> None:
        """All of it. Raises InterruptedRun, with the weights saved, where a stop was asked for."""
        patience = self.config.train.patience
        texts = len(self.train_set.texts) * self.epochs
        with (
            StopRequest(say).listening() as stop,
            tqdm(total=texts, unit="text", unit_scale=True, disable=None, leave=False) as bar,
        ):
            for number, store in enumerate(self._stores()):
                loss = self.epoch(store, number, bar, stop)
                figures = self.finish_epoch(number, loss)
                if stop.wanted:
                    raise InterruptedRun(
                        f"{self.run.path}: stopped in epoch {number + 1} of {self.epochs}; the "
                        "weights so far are saved and can be used"
                    )
                if self.observe:
                    self.observe(number + 1, figures)
                if self.finished:
                    return
                if patience and self.done.stale >= patience:
                    say(f"no better {self.metric} for {patience} epochs: stopping early")
                    return


def train(
    config: Config,
    train_source: str,
    dev_source: str | None,
    output: Path,
    *,
    tokenizer: Path | None = None,
    force: bool = False,
    observe: Observer | None = None,
) -> Path:
    """Train a classifier and return its folder. Raises every kind of SrucliError.

    `observe` sees the number of each epoch, from 1, and its figures on dev; what it raises ends the
    training.
    """
    device = check(config)
    given = Tokenizer.load(tokenizer) if tokenizer else None
    RunDir.check_free(output, force=force)
    use_threads(config.train.threads)
    examples = list(read_examples(train_source, config.data))
    dev_examples = list(read_examples(dev_source, config.data)) if dev_source else []
    hashes = {"train": data_hash(examples), "dev": data_hash(dev_examples)}
    source = "<stdin>" if train_source == "-" else train_source
    labels = find_labels(examples, source)
    if not dev_source and config.train.dev_share:
        examples, dev_examples = hold_out(examples, config.train.dev_share, config.train.seed)
    config = complete(config, len(examples), len(labels))
    _describe(examples, dev_examples, labels)
    if config.data.multi_label and not dev_examples:
        say("no dev texts: labels are given from 0.5; --dev FILE lets their thresholds be chosen")
    corpus = Corpus.make(examples, labels, config.data.multi_label)
    dev = Corpus.make(dev_examples, labels, config.data.multi_label) if dev_examples else None
    pieces = given
    if pieces is None:
        trained = make_tokenizer(config, corpus.texts, source)
        say(f"tokenizer: {trained.describe()}")
        pieces = trained.tokenizer
    with RunDir.create(output, force=force) as run:
        trainer = Trainer(config, device, run, pieces, corpus, dev, labels, observe)
        data = {"texts": len(examples), "dev_texts": len(dev_examples), "sha256": hashes}
        facts = {
            "parameters": trainer.parameters,
            "data": data,
            "epochs": trainer.epochs,
            "device": str(device),
        }
        run.begin(config, pieces, labels, facts)
        how = ", steps as CUDA graphs" if trainer.step.captured else ""
        say(f"model: {trainer.parameters:,} parameters, {_encoder(config, device)}, {device}{how}")
        trainer.train()
    return output


def _encoder(config: Config, device: torch.device) -> str:
    """The encoder, and what runs it where there is a choice."""
    if config.model.encoder != "sru":
        return config.model.encoder
    return f"sru ({kernels.check(config.train.kernel, device.type)} kernel)"


def _describe(train: Sequence[Example], dev: Sequence[Example], labels: list[str]) -> None:
    counts = Counter(label for example in train for label in example.labels)
    common = ", ".join(f"{label} {count:,}" for label, count in counts.most_common(6))
    more = ", ..." if len(labels) > 6 else ""
    held = f", {len(dev):,} dev texts" if dev else ""
    say(f"data: {len(train):,} texts{held}, {len(labels)} labels ({common}{more})")
    unknown = {label for example in dev for label in example.labels} - set(labels)
    if unknown:
        say(f"dev has labels that the training texts lack: {', '.join(sorted(unknown)[:6])}")
