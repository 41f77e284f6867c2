"""The one configuration tree: every setting, its default, its bounds and its meaning.

Defaults stand here and nowhere else. A configuration is frozen once made; it is resolved from the
defaults, then a YAML file, then dotted overrides (`model.layers=4`), each checked as it is applied.
Names that belong to a table elsewhere (optimizers, encoders, metrics) are checked by that table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from srucli.errors import InputMissingError, UsageError, did_you_mean

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1, le=2**31)]
# Bounds of what a network is made of: a stranger's settings must not ask for all there is.
Width = Annotated[int, Field(ge=1, le=2**16)]
Rows = Annotated[int, Field(ge=1, le=2**28)]
Ngram = Annotated[int, Field(ge=1, le=64)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
PoolingName = Literal["last", "mean", "max", "attention"]

DEFAULT_VOCAB_SIZE = 8_000
MAX_DROPOUT = 0.5
# Of YAML that anybody may have written: bytes, and values with its aliases written out.
MAX_YAML, MAX_NODES, MAX_DIGITS = 2**18, 10_000, 300
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class DataConfig(Section):
    """How labelled files are read."""

    format: Literal["auto", "tsv", "csv", "jsonl", "fasttext", "pairs"] = Field(
        "auto", description="file format; auto goes by the file's ending"
    )
    text: str | int | None = Field(
        None, description="column of the text: name, or 1-based number; default 2nd, or 'text'"
    )
    label: str | int | None = Field(
        None, description="column of the label: name, or 1-based number; default 1st, or 'label'"
    )
    header: bool | None = Field(
        None, description="the first row names the columns; default: as the columns are given"
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        None, description="column delimiter; default: comma in csv, tab in tsv"
    )
    quotes: bool | None = Field(
        None, description="quotes around cells are no part of them; default: as the file is written"
    )
    encoding: str = Field("utf-8", description="character encoding of text files")
    errors: Literal["strict", "replace", "ignore"] = Field(
        "strict", description="what to do with bytes that the encoding does not allow"
    )
    multi_label: bool = Field(False, description="a text may have several labels, or none")
    label_delimiter: Annotated[str, Field(min_length=1)] = Field(
        ",", description="what joins the labels of one multi-label text"
    )
    merge_labels: bool = Field(
        False, description="take labels that look the same or are alike, as Pos and pos, for one"
    )
    max_ratio: Annotated[float, Field(ge=1.0)] | None = Field(
        None, description="refuse compressed files that grow beyond this many times their size"
    )


# Of these, what is so in one file and may be otherwise in the next.
OF_LAYOUT = ("format", "text", "label", "header", "delimiter", "quotes", "encoding")


class TokenizerConfig(Section):
    """SentencePiece's training options under SentencePiece's own names."""

    model_type: Literal["unigram", "bpe", "word", "char"] = Field(
        "unigram", description="how pieces are chosen"
    )
    vocab_size: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description=f"number of pieces; default {DEFAULT_VOCAB_SIZE}, or chosen by `train`",
    )
    character_coverage: Annotated[float, Field(ge=0.98, le=1.0)] = Field(
        0.9995, description="share of the text's characters that get a piece; 1.0: all"
    )
    normalization_rule_name: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = (
        Field("nmt_nfkc", description="how text is normalized; _cf folds case")
    )
    normalization_rule_tsv: str = Field(
        "", description="file of normalization rules of your own, instead of a named one"
    )
    byte_fallback: bool = Field(False, description="cut unknown characters into UTF-8 bytes")
    user_defined_symbols: tuple[str, ...] = Field(
        (), description="pieces that are never cut; comma list, quoted as CSV"
    )
    control_symbols: tuple[str, ...] = Field(
        (), description="pieces that no text can contain; comma list, quoted as CSV"
    )
    required_chars: str = Field("", description="characters that get a piece whatever the coverage")
    split_digits: bool = Field(False, description="make every digit a piece of its own")
    split_by_unicode_script: bool = Field(True, description="no piece mixes scripts")
    split_by_whitespace: bool = Field(True, description="no piece crosses a space")
    split_by_number: bool = Field(True, description="no piece mixes numbers and other characters")
    treat_whitespace_as_suffix: bool = Field(
        False, description="spaces stand at the end of pieces, not at their beginning"
    )
    allow_whitespace_only_pieces: bool = Field(
        False, description="runs of spaces may become pieces"
    )
    add_dummy_prefix: bool = Field(True, description="put a space before every text")
    remove_extra_whitespaces: bool = Field(
        True, description="drop spaces at both ends, and repeated ones"
    )
    max_sentencepiece_length: Annotated[int, Field(ge=1, le=512)] = Field(
        16, description="characters of the longest piece"
    )
    max_sentence_length: Annotated[int, Field(ge=10, le=2**30)] = Field(
        4192, description="longer lines (bytes) are left out"
    )
    input_sentence_size: Annotated[int, Field(ge=0)] = Field(
        0, description="lines drawn at random for training; 0 takes all"
    )
    shuffle_input_sentence: bool = Field(
        True, description="draw those lines from the whole input, not from its beginning"
    )
    seed: Seed = Field(0, description="seed of that draw")
    seed_sentencepiece_size: Positive = Field(
        1_000_000, description="unigram: pieces that training starts from"
    )
    shrinking_factor: Annotated[float, Field(ge=0.5, le=0.95)] = Field(
        0.75, description="unigram: share of the pieces that each round keeps"
    )
    num_sub_iterations: Annotated[int, Field(ge=1, le=10)] = Field(
        2, description="unigram: EM iterations of a round"
    )
    num_threads: Annotated[int, Field(ge=1, le=1024)] = Field(
        1, description="threads of the trainer; unigram pieces depend on it, so it is recorded"
    )
    hard_vocab_limit: bool = Field(
        True,
        description="fail where the text does not allow vocab_size pieces; `train`: if given",
    )
    use_all_vocab: bool = Field(False, description="word, char: every word or character is a piece")
    train_extremely_large_corpus: bool = Field(
        False, description="unigram: 64-bit indices, for more than 2 GB of text"
    )
    unk_id: Annotated[int, Field(ge=0)] = Field(0, description="id of the unknown piece")
    bos_id: Annotated[int, Field(ge=-1)] = Field(1, description="id of text begin; -1: none")
    eos_id: Annotated[int, Field(ge=-1)] = Field(2, description="id of text end; -1: none")
    pad_id: Annotated[int, Field(ge=-1)] = Field(-1, description="id of padding; -1: none")
    unk_piece: str = Field("<unk>", description="name of the unknown piece")
    bos_piece: str = Field("<s>", description="name of text begin")
    eos_piece: str = Field("</s>", description="name of text end")
    pad_piece: str = Field("<pad>", description="name of padding")
    unk_surface: str = Field(" ⁇ ", description="what the unknown piece decodes to")


class ModelConfig(Section):
    """The network: embedding, encoder, pooling, head, and branches of hashed n-grams beside it."""

    encoder: str = Field("sru", description="sru, lstm, gru, cnn or bag")
    embedding_size: Width = 128
    hidden: Width = Field(64, description="units of each layer and direction")
    layers: Annotated[int, Field(ge=1, le=256)] = 2
    bidirectional: bool = True
    activation: Literal["identity", "tanh"] = Field(
        "identity", description="g in the SRU's highway: h = r g(c) + (1 - r) x"
    )
    highway_bias: Annotated[float, Field(ge=-100.0, le=100.0)] = Field(
        0.0, description="initial bias of the SRU's reset gate"
    )
    dropout: Fraction | None = Field(
        None,
        description="on the embedding, between layers, before the head; "
        "default: by the number of texts",
    )
    word_dropout: Fraction = Field(0.0, description="share of pieces dropped whole in training")
    pooling: tuple[PoolingName, ...] = Field(("max", "mean", "last"), min_length=1, max_length=4)
    head: Literal["linear", "mlp"] = Field(
        "linear", description="fully connected, or a shallow network with one hidden layer"
    )
    head_hidden: Width = 128
    head_activation: Literal["relu", "gelu", "tanh", "sigmoid", "silu"] = "relu"
    kernel_sizes: tuple[Ngram, ...] = Field(
        (3, 4, 5), description="widths of the cnn encoder", min_length=1, max_length=64
    )
    wide: bool = Field(True, description="add logits of hashed n-grams of pieces")
    wide_ngrams: Ngram = Field(3, description="longest n-gram of the wide branch and of bag")
    wide_buckets: Rows = Field(16_384, description="rows of its hashed n-gram table")
    wide_size: Width = Field(32, description="width of that table's rows")
    characters: bool = Field(True, description="add logits of hashed n-grams of characters")
    character_ngrams: Ngram = Field(5, description="longest n-gram of the character branch")
    character_buckets: Rows = Field(32_768, description="rows of its hashed n-gram table")
    character_size: Width | None = Field(
        None, description="width of that table's rows; default: by the number of labels"
    )

    @property
    def dropout_rate(self) -> float:
        """`dropout`, which training chooses where it is not given."""
        return MAX_DROPOUT if self.dropout is None else self.dropout


class OptimConfig(Section):
    """The optimizer, its schedule and its limits."""

    name: str = Field("adam", description="a name of the table `srucli optimizers` prints")
    lr: Annotated[float, Field(gt=0.0)] | None = Field(
        None, description="peak learning rate; default: the optimizer's own"
    )
    options: dict[str, Any] = Field({}, description="the optimizer's own options")
    weight_decay: Annotated[float, Field(ge=0.0)] | None = Field(
        None,
        description="on matrices, not on biases, SRU vectors and embeddings; "
        "default: the optimizer's own",
    )
    decay_embeddings: bool = Field(False, description="weight decay on embeddings too")
    schedule: Literal["constant", "linear", "cosine", "one-cycle"] = "one-cycle"
    warmup: Fraction = Field(0.1, description="share of the steps in which the learning rate rises")
    clip: Annotated[float, Field(ge=0.0)] = Field(
        1.0, description="largest norm of the gradient; 0 turns clipping off"
    )


class TrainConfig(Section):
    """The training loop."""

    epochs: Positive | None = Field(
        None, description="passes over the data; default: by the numbers of texts and labels"
    )
    steps: Positive | None = Field(
        None, description="steps in all, whatever number of epochs that is; default: by epochs"
    )
    batch_size: Positive = Field(32, description="texts in a step, at most")
    batch_tokens: Positive = Field(8_192, description="pieces in a batch, at most")
    accumulate: Positive = Field(1, description="batches whose gradients make one step")
    max_tokens: Positive | None = Field(
        None,
        description="tokens that are read of a text, from its beginning; default: all, but by the "
        "encoder what memory allows",
    )
    subword_dropout: Fraction = Field(
        0.1, description="how freely texts are cut into pieces, afresh each epoch; 0: never"
    )
    label_smoothing: Fraction = Field(
        0.1, description="share of a true label's target that is spread over all labels"
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: every label's examples weigh the same together; with several labels "
        "an example, the square roots of these weights",
    )
    dev_share: Fraction = Field(
        0.0, description="share of the training texts held out where no --dev is given"
    )
    metric: str = Field("auto", description="what decides which epoch is best")
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="evaluations without improvement before training stops; 0: never"
    )
    keep: Literal["last", "best"] | None = Field(
        None,
        description="the weights that eval and predict use; default: best where patience is set, "
        "else last",
    )
    save_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between checkpoints within an epoch; 0: none by steps"
    )
    save_minutes: Annotated[float, Field(ge=0.0)] = Field(
        5.0, description="minutes between checkpoints within an epoch; 0: none by minutes"
    )
    checkpoints: Positive | None = Field(
        None,
        description="newest checkpoints that stay; default: 2, and 1 once training is finished",
    )
    seed: Seed = 0
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads; 0: all cores"
    )
    kernel: Literal["auto", "reference", "cpu", "triton"] = Field(
        "auto", description="what runs the SRU; auto: Triton on a GPU, Numba on a CPU"
    )
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    detect_anomaly: bool = Field(
        False, description="stop at a gradient that is no number, and name the text it comes from"
    )
    tensorboard: bool = False
    diagnose: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between looks at the optimizer, for `srucli diagnose`; 0: never"
    )

    @property
    def kept(self) -> Literal["last", "best"]:
        """`keep`, which depends on `patience` where it is not given."""
        return self.keep or ("best" if self.patience else "last")


class FilesConfig(Section):
    """What `srucli run` reads and writes; names are taken from where the command is typed."""

    train: str = Field(description="labelled file to train on")
    dev: str | None = Field(None, description="labelled file to evaluate on after each epoch")
    test: str | None = Field(None, description="labelled file to measure the run on")
    tokenizer: str | None = Field(None, description="SentencePiece model; default: trained")
    output: str = Field(description="folder of the run")


class Config(Section):
    """Everything that decides a training run."""

    files: FilesConfig | None = Field(None, description="files of `srucli run`")

    data: DataConfig = DataConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()

    @property
    def metric(self) -> str:
        """The metric that decides which epoch is best: `auto` is what the loss goes for."""
        macro = self.data.multi_label or self.train.class_weights == "balanced"
        named = self.train.metric
        return named if named != "auto" else "macro_f1" if macro else "accuracy"


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-3` as a number, as YAML 1.2 does, and refuses repeated keys.

    It stops at more values than settings can need, and at numbers that take long to work out.
    """

    nodes = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            problem = f"more than {MAX_NODES:,} values"
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, problem, mark)
        return super().compose_node(parent, index)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        if node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
            problem = f"a number of more than {MAX_DIGITS} digits"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return super().construct_scalar(node)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key '{key_node.value}' stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Safe YAML that quotes what `_Loader` would read as a number, and escapes odd line ends."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if text.isprintable() else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
for _side in (_Loader, _Dumper):
    _side.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)[eE][-+]?\d+$"),
        list("-+.0123456789"),
    )


# What PyYAML raises for what anybody may have written: for `!!timestamp x` an AttributeError.
_YAML_ERRORS = (
    *(yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError),
    OverflowError,
)


def load_yaml(path: Path) -> Any:
    """Read one YAML document. Raises InputMissingError or UsageError naming file and line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_YAML + 1)
    except OSError as error:
        raise InputMissingError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_yaml(data, str(path))


def parse_yaml(data: bytes, source: str) -> Any:
    """One YAML document in plain values, however it was made. Raises UsageError."""
    if len(data) > MAX_YAML:
        raise UsageError(f"{source}: more than {MAX_YAML:,} bytes; settings need a few thousand")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{source}: not UTF-8 text at byte {error.start}") from error
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_NODES:
            raise UsageError(
                f"{source}: aliases make more than {MAX_NODES:,} values of it; use fewer of them"
            )
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"{source}:{line}: not valid YAML: {error.problem}") from error
    except _YAML_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{source}: not valid YAML: {reason}") from error


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node is, aliases written out: infinitely many where it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        parts: list[Any] = [] if isinstance(node, yaml.ScalarNode) else list(node.value)
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    return known[id(node)]


def known_keys(section: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the tree, such as `model.layers`."""
    for name, field in section.model_fields.items():
        kind = FilesConfig if name == "files" else field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from known_keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def _merge(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in update.items():
        old = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        merged[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return merged


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A tree of settings by dotted keys; the optimizer's options are one of them."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        nested = isinstance(value, Mapping) and key != "options"
        found |= flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return found


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turn `["model.layers=4"]` into a tree. Values are YAML. Raises UsageError."""
    tree: dict[str, Any] = {}
    keys = list(known_keys())
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals:
            raise UsageError(f"'{override}' is not an override; write KEY=VALUE, as model.layers=4")
        if key not in keys and not key.startswith("optim.options."):
            raise UsageError(f"unknown setting '{key}'{did_you_mean(key, keys)}")
        try:
            branch: Any = yaml.load(raw, _Loader) if raw else ""
        except _YAML_ERRORS as error:
            raise UsageError(f"{key}: '{raw}' is not a YAML value") from error
        for part in reversed(key.split(".")):
            branch = {part: branch}
        tree = _merge(tree, branch)
    return tree


_COMPLAINTS = {
    "model_type": "must be a section of settings",
    "tuple_type": "must be a list, as [one, two]",
}


def _explain(first: Mapping[str, Any], source: str) -> str:
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        if key in known_keys():
            section, _, name = key.partition(".")
            return f"{source}: '{key}' is no key of a file; write {section}: {{{name}: VALUE}}"
        words = list(known_keys()) if "." in key else [*Config.model_fields, *known_keys()]
        return f"{source}: unknown setting '{key}'{did_you_mean(key, words)}"
    if first["type"] == "missing":
        return f"{key} is not set; add it, as {key}=VALUE"
    problem = _COMPLAINTS.get(first["type"], first["msg"].replace("Input should", "must"))
    return f"{source}: {key} = {_short(first['input'])}: {problem}"


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def build(tree: Mapping[str, Any], source: str) -> Config:
    """Check a tree of settings against the defaults. Raises UsageError naming `source`."""
    found = _check(tree, source)
    if isinstance(found, ValidationError):
        raise UsageError(_explain(found.errors()[0], source))
    return found


def _check(tree: Mapping[str, Any], source: str) -> Config | ValidationError:
    """A configuration, or what is wrong where settings are missing that may yet come.

    Raises UsageError for whatever is wrong besides.
    """
    if not isinstance(tree, Mapping):
        raise UsageError(f"{source}: expected settings such as 'model:', found {_short(tree)}")
    filled = {key: value for key, value in tree.items() if value is not None}
    try:
        return Config.model_validate(filled)
    except ValidationError as error:
        wrong = [each for each in error.errors() if each["type"] != "missing"]
        if not wrong:
            return error
        raise UsageError(_explain(wrong[0], source)) from None


def given(section: Section) -> list[str]:
    """The names of a section's settings that somebody gave.

    One that sets everything comes from a file that srucli wrote: of it, what is no default.
    """
    fields = type(section).model_fields
    found = [name for name in fields if name in section.model_fields_set]
    if len(found) < len(fields):
        return found
    return [name for name in found if getattr(section, name) != fields[name].default]


def with_settings(config: Config, settings: Mapping[str, Any]) -> Config:
    """A configuration with some dotted settings replaced. Raises UsageError."""
    tree: dict[str, Any] = config.model_dump(exclude_unset=True)
    for key, value in settings.items():
        *path, name = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[name] = value
    return build(tree, ", ".join(f"{key}={value}" for key, value in settings.items()))


def read(data: bytes, source: str) -> Config:
    """A configuration from a YAML document. Raises UsageError naming `source`."""
    return build(parse_yaml(data, source), source)


def resolve(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Config:
    """Defaults, then the YAML `file`, then `flags` (dotted key to value), then `overrides`.

    A flag whose value is None was not given. Each layer is checked on its own, so that an error
    names where the wrong value came from. Raises UsageError, InputMissingError.
    """
    tree: dict[str, Any] = {}
    if file is not None:
        loaded = load_yaml(file)
        tree = {} if loaded is None else loaded
        _check(tree, str(file))
    given = {key: value for key, value in (flags or {}).items() if value is not None}
    for key, value in given.items():
        section, _, name = key.partition(".")
        tree = _merge(tree, {section: {name: value}})
    _check(tree, "flags")
    tree = _merge(tree, parse_overrides(overrides))
    return build(tree, "overrides")


def overridden(overrides: Sequence[str], flags: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each flag whose value an override replaces by another one."""
    chosen = parse_overrides(overrides)
    for key, value in flags.items():
        section, _, name = key.partition(".")
        other = chosen.get(section, {}).get(name, value)
        if value is not None and other != value:
            yield f"{key} is {other}, as {key}= says, and not {value}, as its flag does"


def dump(config: Config) -> str:
    """The whole resolved configuration as YAML that `resolve` reads back to an equal one."""
    tree = config.model_dump(mode="json")
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def describe_settings() -> Iterator[tuple[str, str]]:
    """Every dotted key with its default and meaning."""
    for key in known_keys():
        section, _, name = key.partition(".")
        holder = Config.model_fields[section]
        kind = FilesConfig if section == "files" else type(holder.default)
        field = kind.model_fields[name]
        shown = "required" if field.is_required() else _shown(field.default)
        yield key, f"{shown}  {field.description or ''}".rstrip()


def _shown(value: Any) -> str:
    value = list(value) if isinstance(value, tuple) else value
    return yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
