"""The settings: what there is (`sections.py`), and how a `Config` is built (`loading.py`)."""

from srucli.config.loading import build as build
from srucli.config.loading import choices as choices
from srucli.config.loading import default_of as default_of
from srucli.config.loading import describe_settings as describe_settings
from srucli.config.loading import dump as dump
from srucli.config.loading import flat as flat
from srucli.config.loading import given as given
from srucli.config.loading import known_keys as known_keys
from srucli.config.loading import lengths as lengths
from srucli.config.loading import may_change_on_resume as may_change_on_resume
from srucli.config.loading import overridden as overridden
from srucli.config.loading import parse_overrides as parse_overrides
from srucli.config.loading import resolve as resolve
from srucli.config.loading import stored as stored
from srucli.config.loading import with_settings as with_settings
from srucli.config.sections import DEFAULT_VOCAB_SIZE as DEFAULT_VOCAB_SIZE
from srucli.config.sections import MAX_DROPOUT as MAX_DROPOUT
from srucli.config.sections import OF_LAYOUT as OF_LAYOUT
from srucli.config.sections import Config as Config
from srucli.config.sections import DataConfig as DataConfig
from srucli.config.sections import ModelConfig as ModelConfig
from srucli.config.sections import OptimConfig as OptimConfig
from srucli.config.sections import PretrainConfig as PretrainConfig
from srucli.config.sections import Section as Section
from srucli.config.sections import TokenizerConfig as TokenizerConfig
from srucli.config.sections import TrainConfig as TrainConfig
