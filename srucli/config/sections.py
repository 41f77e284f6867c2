"""The tree of settings: every one with its default, its bounds and its help text.

Names of optimizers and metrics are checked by their tables elsewhere.
`loading.py` builds a configuration.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat

Fraction = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[int, Field(ge=1, le=2**31)]
Count = Annotated[int, Field(ge=0, le=2**31)]
# Bounds on the size of a network, because the settings of an untrusted run are read.
Width = Annotated[int, Field(ge=1, le=2**16)]
Rows = Annotated[int, Field(ge=1, le=2**28)]
Ngram = Annotated[int, Field(ge=1, le=64)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
# The number of tokens that `tokenizer/proto.py` reads, and the ids of so many.
Tokens = Annotated[int, Field(ge=2, le=2**20)]
Id = Annotated[int, Field(ge=0, le=2**20 - 1)]
OptionalId = Annotated[int, Field(ge=-1, le=2**20 - 1)]
PoolingName = Literal["last", "mean", "max", "attention"]
# The rows of `data/formats.py` and `model/encoders.py`, which a wrong name is checked by early.
FormatName = Literal["auto", "tsv", "csv", "fasttext", "jsonl", "pairs", "lines"]
EncoderName = Literal["sru", "lstm", "gru", "cnn", "bag"]

DEFAULT_VOCAB_SIZE = 8_000
# What separates labels must not end their line or column where they are written.
ON_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
MAX_DROPOUT = 0.5
# Rules of a setting: whether it may change on resume, and whether it can end a training.
MAY_CHANGE: dict[str, Any] = {"may_change_on_resume": True}
MAY_NOT_CHANGE: dict[str, Any] = {"may_change_on_resume": False}
LENGTH: dict[str, Any] = {"may_change_on_resume": "if larger", "ends_training": True}


def setting(default: Any, text: str | None = None, rule: Any = None, **bounds: Any) -> Any:
    """Return a field with its default, its help text and its rule."""
    return Field(default, description=text, json_schema_extra=rule, **bounds)


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,
        protected_namespaces=(),  # before 2.10, pydantic warns of `model_type`
    )
    # Whether a training may be resumed with other values. The rule of a setting overrides this.
    may_change_on_resume: ClassVar[bool] = False


class DataConfig(Section):
    """How labelled files are read.

    They may change on resume, because a hash tells whether the examples are the same.
    """

    may_change_on_resume: ClassVar[bool] = True

    format: FormatName = setting(
        "auto",
        "File format: tsv, csv, fasttext, jsonl, pairs (label, space, text), lines (texts) or "
        "auto (detected).",
    )
    text: str | int | tuple[str | int, ...] | None = setting(
        None,
        "Column of the text: its name, or its number from 1; several, as title,body, are joined "
        "by a space. [default: detected, or the 2nd]",
    )
    label: str | int | None = setting(
        None, "Column of the label: its name, or its number from 1. [default: detected, or the 1st]"
    )
    weight: str | int | None = setting(
        None,
        "Column of the weight of each training example: its name, or its number from 1. Metrics do "
        "not use it. [default: none]",
    )
    group: str | int | None = setting(
        None,
        "Column of the group of each example, such as its author: its name, or its number from 1. "
        "All examples of a group are in the same fold. [default: none]",
    )
    header: bool | None = setting(
        None, "The first row is a header. [default: detected, or true with a column name]"
    )
    delimiter: str | None = setting(
        None, "Column delimiter. [default: comma in csv, tab in tsv]", min_length=1, max_length=1
    )
    quotes: bool | None = setting(None, "Remove quotes around cells. [default: detected]")
    encoding: str = setting("utf-8", "Character encoding of text files.")
    errors: Literal["strict", "replace", "ignore"] = setting(
        "strict", "Bytes that are invalid in the encoding: strict (an error), replace or ignore."
    )
    multi_label: bool = setting(False, "A text may have any number of labels.", MAY_NOT_CHANGE)
    label_delimiter: str = setting(
        ",", "Separator of labels in a multi-label text.", min_length=1, pattern=ON_ONE_LINE
    )
    merge_labels: bool = setting(False, "Merge labels that look alike, such as Pos and pos.")
    max_ratio: float | None = setting(
        None,
        "Refuse compressed files that expand to more than this multiple of their size.",
        ge=1.0,
    )


# The settings that name columns, and all in which two files may differ.
OF_COLUMNS = ("text", "label", "weight", "group")
OF_LAYOUT = ("format", *OF_COLUMNS, "header", "delimiter", "quotes", "encoding")


class TokenizerConfig(Section):
    """SentencePiece's training options under SentencePiece's own names."""

    model_type: Literal["unigram", "bpe", "word", "char"] = setting(
        "unigram", "Kind of tokenizer: unigram, bpe, word or char."
    )
    vocab_size: Tokens | None = setting(
        None, f"Number of tokens. [default: {DEFAULT_VOCAB_SIZE}, or chosen by `train`]"
    )
    character_coverage: float = setting(
        0.9995, "Fraction of the text's characters that become tokens; 1.0: all.", ge=0.98, le=1.0
    )
    normalization_rule_name: Literal["nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf", "identity"] = (
        setting(
            "nmt_nfkc",
            "Normalization: nmt_nfkc, nfkc, nmt_nfkc_cf, nfkc_cf (folds case) or identity.",
        )
    )
    normalization_rule_tsv: str = setting(
        "", "File of custom normalization rules; replaces the name."
    )
    byte_fallback: bool = setting(False, "Split unknown characters into UTF-8 bytes.")
    user_defined_symbols: tuple[str, ...] = setting(
        (), "Tokens that are never split; comma-separated, quoted as in CSV."
    )
    control_symbols: tuple[str, ...] = setting(
        (), "Tokens that no text is encoded to; comma-separated, quoted as in CSV."
    )
    required_chars: str = setting("", "Characters that become tokens whatever the coverage.")
    split_digits: bool = setting(False, "Make every digit a separate token.")
    split_by_unicode_script: bool = setting(True, "Tokens do not mix scripts.")
    split_by_whitespace: bool = setting(True, "Tokens do not cross spaces.")
    split_by_number: bool = setting(True, "Tokens do not mix numbers and other characters.")
    treat_whitespace_as_suffix: bool = setting(False, "Mark spaces at the end of tokens.")
    allow_whitespace_only_pieces: bool = setting(False, "Runs of spaces may become tokens.")
    add_dummy_prefix: bool = setting(True, "Add a space before every text.")
    remove_extra_whitespaces: bool = setting(True, "Remove leading, trailing and repeated spaces.")
    max_sentencepiece_length: int = setting(16, "Maximum characters of a token.", ge=1, le=512)
    max_sentence_length: int = setting(
        4192, "Maximum bytes of a line; longer lines are skipped.", ge=10, le=2**30
    )
    input_sentence_size: Count = setting(0, "Number of sampled lines; 0: all lines.")
    shuffle_input_sentence: bool = setting(
        True, "Sample these lines at random, not from the start."
    )
    seed: Seed = setting(0, "Seed of this sample.")
    seed_sentencepiece_size: Positive = setting(1_000_000, "Unigram: initial number of tokens.")
    shrinking_factor: float = setting(
        0.75, "Unigram: fraction of the tokens that each round keeps.", ge=0.5, le=0.95
    )
    num_sub_iterations: int = setting(2, "Unigram: EM iterations per round.", ge=1, le=10)
    num_threads: int = setting(1, "Number of threads; unigram tokens depend on it.", ge=1, le=1024)
    hard_vocab_limit: bool = setting(
        True, "Fail if the text does not allow vocab_size tokens; in `train` only if given."
    )
    use_all_vocab: bool = setting(False, "Word, char: make every word or character a token.")
    train_extremely_large_corpus: bool = setting(False, "Unigram: for more than 2 GB of text.")
    unk_id: Id = setting(0, "Id of the unknown token.")
    bos_id: OptionalId = setting(1, "Id of the begin-of-text token; -1: none.")
    eos_id: OptionalId = setting(2, "Id of the end-of-text token; -1: none.")
    pad_id: OptionalId = setting(-1, "Id of the padding token; -1: none.")
    unk_piece: str = setting("<unk>", "Name of the unknown token.")
    bos_piece: str = setting("<s>", "Name of the begin-of-text token.")
    eos_piece: str = setting("</s>", "Name of the end-of-text token.")
    pad_piece: str = setting("<pad>", "Name of the padding token.")
    unk_surface: str = setting(" ⁇ ", "Text that the unknown token decodes to.")


class ModelConfig(Section):
    """The network: embedding, encoder, pooling, head; and a linear model beside it."""

    encoder: EncoderName = setting(
        "sru", "Encoder of the text: sru, lstm, gru, cnn or bag (of n-grams)."
    )
    embedding_size: Width = setting(128, "Width of a token's embedding.")
    hidden: Width = setting(64, "Units per layer and direction.")
    layers: int = setting(2, "Layers of the encoder.", ge=1, le=256)
    bidirectional: bool = setting(True, "Encode the text in both directions.")
    activation: Literal["identity", "tanh"] = setting(
        "identity", "Activation g in the SRU's highway: h = r g(c) + (1 - r) x."
    )
    highway_bias: float = setting(0.0, "Initial bias of the SRU's reset gate.", ge=-100.0, le=100.0)
    dropout: Fraction | None = setting(
        None,
        "Dropout on the embedding, between layers, before the head. [default: chosen by the data "
        "size]",
    )
    word_dropout: Fraction = setting(0.0, "Probability of dropping a subword in training.")
    pooling: tuple[PoolingName, ...] = setting(
        ("max", "mean", "last"),
        "How states become one vector: any of last, mean, max, attention.",
        min_length=1,
        max_length=4,
    )
    head: Literal["linear", "mlp"] = setting(
        "linear", "The last layers: one fully connected layer (linear), or two (mlp)."
    )
    head_hidden: Width = setting(128, "Units of the hidden layer of the mlp.")
    head_activation: Literal["relu", "gelu", "tanh", "sigmoid", "silu"] = setting(
        "relu", "Activation in the mlp: relu, gelu, tanh, sigmoid or silu."
    )
    kernel_sizes: tuple[Ngram, ...] = setting(
        (3, 4, 5), "Filter widths of the cnn encoder.", min_length=1, max_length=64
    )
    ngrams: bool = setting(
        True, "Add the scores of a linear model of n-grams of words and of characters."
    )
    bag_ngrams: Ngram = setting(3, "Maximum n of the bag's n-grams of tokens.")
    bag_buckets: Rows = setting(16_384, "Rows of the bag's hash table.")

    @property
    def dropout_rate(self) -> float:
        """`dropout`, or the largest rate that training chooses by default."""
        return MAX_DROPOUT if self.dropout is None else self.dropout


class OptimConfig(Section):
    """The optimizer, its schedule and gradient clipping."""

    name: str = setting("adam", "Optimizer: a name that `srucli optimizers` lists.")
    lr: PositiveFloat | None = setting(
        None, "Peak learning rate, above 0. [default: the optimizer's own]"
    )
    options: dict[str, Any] = setting({}, "The optimizer's own options.")
    weight_decay: NonNegativeFloat | None = setting(
        None,
        "Weight decay of matrices, not of biases, SRU vectors or embeddings. [default: the "
        "optimizer's own]",
    )
    decay_embeddings: bool = setting(False, "Weight decay on embeddings too.")
    schedule: Literal["constant", "linear", "cosine", "one-cycle"] = setting(
        "one-cycle", "Schedule of the learning rate: constant, linear, cosine or one-cycle."
    )
    warmup: Fraction = setting(0.1, "Fraction of the steps in which the learning rate rises.")
    clip: NonNegativeFloat = setting(1.0, "Maximum norm of the gradient; 0: no clipping.")
    layer_decay: float = setting(
        1.0,
        "With --from: the learning rate of a layer is this multiple of that of the layer above it; "
        "ULMFiT's is 0.385.",
        gt=0.0,
        le=1.0,
    )


class TrainConfig(Section):
    """The training loop."""

    epochs: Positive | None = setting(
        None,
        "Passes over the data. [default: chosen by the numbers of examples and labels]",
        LENGTH,
    )
    steps: Positive | None = setting(None, "Number of steps, which overrides epochs.", LENGTH)
    batch_size: Positive = setting(32, "Maximum number of examples in a batch.")
    batch_tokens: Positive = setting(8_192, "Maximum number of tokens in a batch.")
    accumulate: Positive = setting(1, "Batches per optimizer step (gradient accumulation).")
    max_tokens: Positive | None = setting(
        None,
        "Maximum number of tokens of a text, from its beginning. [default: what the encoder "
        "allows]",
    )
    subword_dropout: Fraction = setting(
        0.1,
        "Strength of subword sampling (BPE dropout or unigram sampling), below 1; 0: off.",
    )
    label_smoothing: Fraction = setting(
        0.1, "Fraction of the target that is spread over all labels."
    )
    soft_temperature: float = setting(
        1.0,
        "Temperature T of soft labels: a probability p becomes p^(1/T), normalized.",
        ge=0.01,
        le=100.0,
    )
    soft_share: float = setting(
        1.0,
        "Share of the soft label in the target of a text that also has a label.",
        ge=0.0,
        le=1.0,
    )
    class_weights: Literal["none", "balanced"] = setting(
        "none",
        "Weights of labels: none, or balanced: the same total for each (multi-label: its square "
        "root).",
    )
    dev_share: Fraction | None = setting(
        None,
        "Fraction of the training examples held out without --dev FILE. [default: a tenth, at most "
        "2,000 examples; none of fewer than 200]",
    )
    metric: str = setting(
        "auto", "Metric of the best epoch; auto: accuracy, or macro_f1 if multi-label or balanced."
    )
    patience: Count = setting(
        0,
        "Epochs without improvement until early stopping; 0: no early stopping.",
        LENGTH | MAY_CHANGE,
    )
    use_checkpoint: Literal["last", "best"] | None = setting(
        None,
        "Checkpoint that eval and predict use. [default: best with patience, else last]",
        MAY_CHANGE,
    )
    save_steps: Count = setting(0, "Steps between extra checkpoints; 0: none.", MAY_CHANGE)
    save_minutes: NonNegativeFloat = setting(
        5.0, "Minutes between extra checkpoints; 0: none.", MAY_CHANGE
    )
    keep_checkpoints: Positive | None = setting(
        None,
        "Newest checkpoints to keep. [default: 2, and 1 when training is finished]",
        MAY_CHANGE,
    )
    seed: Seed = setting(0, "Seed of all random numbers.")
    device: str = setting("auto", "Where to compute: auto, cpu, cuda or cuda:N.", MAY_CHANGE)
    threads: int = setting(0, "Number of CPU threads; 0: all cores.", MAY_CHANGE, ge=0, le=1024)
    kernel: Literal["auto", "reference", "cpu", "triton"] = setting(
        "auto", "Implementation of the SRU; auto: Triton on a GPU, Numba on a CPU.", MAY_CHANGE
    )
    precision: Literal["float32", "bf16", "fp16"] = setting(
        "float32", "Precision of training: float32, or on a GPU bf16 or fp16."
    )
    detect_anomaly: bool = setting(
        False, "Stop at a non-finite gradient, and name the example that causes it.", MAY_CHANGE
    )
    tensorboard: bool = setting(False, "Also write TensorBoard event files.", MAY_CHANGE)
    mlflow: bool = setting(False, "Also send metrics to MLflow.", MAY_CHANGE)
    wandb: bool = setting(False, "Also send metrics to Weights & Biases.", MAY_CHANGE)
    diagnose: Count = setting(0, "Steps between records for `srucli diagnose`; 0: off.")
    freeze: Literal["none", "encoder", "gradual"] = setting(
        "none",
        "With --from, what is not trained: none; encoder (nor the embedding); gradual: in epoch N "
        "all but the top N layers, the head being the first.",
    )

    @property
    def used_checkpoint(self) -> Literal["last", "best"]:
        """`use_checkpoint`, or its default, which depends on `patience`."""
        return self.use_checkpoint or ("best" if self.patience else "last")


class PretrainConfig(Section):
    """Vectors of tokens, learned from raw text."""

    may_change_on_resume: ClassVar[bool] = True

    epochs: Positive | None = setting(
        None, "Passes over the raw text. [default: chosen by its number of tokens]"
    )
    window: Width = setting(5, "Maximum number of tokens on either side that a token predicts.")
    negatives: Width = setting(5, "Random tokens that each of these is told from.")
    lr: PositiveFloat = setting(0.05, "Learning rate at the start; it falls to 0.")


class FilesConfig(Section):
    """The files of `srucli run`; relative to the current folder."""

    may_change_on_resume: ClassVar[bool] = True

    train: str = Field(description="Labelled file to train on.")
    dev: str | None = setting(None, "Labelled file to evaluate on after each epoch.")
    test: str | None = setting(None, "Labelled file to evaluate the run on.")
    tokenizer: str | None = setting(None, "SentencePiece model. [default: train one]")
    output: str = Field(description="Folder of the run.")


class Config(Section):
    """All settings of a training."""

    files: FilesConfig | None = setting(None, "Files of `srucli run`.")

    data: DataConfig = Field(default_factory=DataConfig)
    tokenizer: TokenizerConfig = Field(default_factory=TokenizerConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    pretrain: PretrainConfig = Field(default_factory=PretrainConfig)

    @property
    def metric(self) -> str:
        """The metric that decides which epoch is best. `auto` is what the loss optimizes."""
        if self.train.metric != "auto":
            return self.train.metric
        macro = self.data.multi_label or self.train.class_weights == "balanced"
        return "macro_f1" if macro else "accuracy"
