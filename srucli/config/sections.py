"""The tree of settings: every one with its default, its bounds and its meaning.

Defaults stand here and nowhere else. Names that belong to a table elsewhere (optimizers, encoders,
metrics) are checked by that table. How a tree is put together is in `loading.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

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
# A field may say whether a training may be resumed with another value, and whether it ends one.
MAY_CHANGE: dict[str, Any] = {"may_change_on_resume": True}
LENGTH: dict[str, Any] = {"may_change_on_resume": "if larger", "ends_training": True}


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Whether a training may be resumed with other values of these settings; a field may differ.
    may_change_on_resume: ClassVar[bool] = False


class DataConfig(Section):
    """How labelled files are read.

    They may change on resume: a hash tells whether the examples are the same.
    """

    may_change_on_resume: ClassVar[bool] = True

    format: str = Field(
        "auto",
        description="tsv, csv, fasttext, jsonl, pairs or lines; auto goes by ending and first line",
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
    multi_label: bool = Field(
        False,
        description="a text may have several labels, or none",
        json_schema_extra={"may_change_on_resume": False},
    )
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
    layers: Annotated[int, Field(ge=1, le=256)] = Field(2, description="layers of the encoder")
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
        None,
        description="passes over the data; default: by the numbers of texts and labels",
        json_schema_extra=LENGTH,
    )
    steps: Positive | None = Field(
        None,
        description="steps in all, whatever number of epochs that is; default: by epochs",
        json_schema_extra=LENGTH,
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
        0,
        description="evaluations without improvement before training stops; 0: never",
        json_schema_extra=LENGTH | MAY_CHANGE,
    )
    use_checkpoint: Literal["last", "best"] | None = Field(
        None,
        description="the one that eval and predict use; default: best with patience, else last",
        json_schema_extra=MAY_CHANGE,
    )
    save_steps: Annotated[int, Field(ge=0)] = Field(
        0,
        description="steps between checkpoints within an epoch; 0: none by steps",
        json_schema_extra=MAY_CHANGE,
    )
    save_minutes: Annotated[float, Field(ge=0.0)] = Field(
        5.0,
        description="minutes between checkpoints within an epoch; 0: none by minutes",
        json_schema_extra=MAY_CHANGE,
    )
    keep_checkpoints: Positive | None = Field(
        None,
        description="newest checkpoints that stay; default: 2, and 1 once training is finished",
        json_schema_extra=MAY_CHANGE,
    )
    seed: Seed = Field(0, description="seed of everything random")
    device: str = Field(
        "auto", description="auto, cpu, cuda or cuda:N", json_schema_extra=MAY_CHANGE
    )
    threads: Annotated[int, Field(ge=0, le=1024)] = Field(
        0, description="CPU threads; 0: all cores", json_schema_extra=MAY_CHANGE
    )
    kernel: Literal["auto", "reference", "cpu", "triton"] = Field(
        "auto",
        description="what runs the SRU; auto: Triton on a GPU, Numba on a CPU",
        json_schema_extra=MAY_CHANGE,
    )
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    detect_anomaly: bool = Field(
        False,
        description="stop at a gradient that is no number, and name the text it comes from",
        json_schema_extra=MAY_CHANGE,
    )
    tensorboard: bool = Field(False, json_schema_extra=MAY_CHANGE)
    diagnose: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between looks at the optimizer, for `srucli diagnose`; 0: never"
    )

    @property
    def used_checkpoint(self) -> Literal["last", "best"]:
        """`use_checkpoint`, which depends on `patience` where it is not given."""
        return self.use_checkpoint or ("best" if self.patience else "last")


class FilesConfig(Section):
    """What `srucli run` reads and writes; names are taken from where the command is typed."""

    may_change_on_resume: ClassVar[bool] = True

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
