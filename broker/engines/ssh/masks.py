"""The masks of a command's streams: the rules that its verdict names, from the active configuration."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from broker.masking import Detectors
from broker.stream_masking import StreamMask
from chalicelib.config.bundle import Bundle
from chalicelib.domain.errors import ConfigurationInvalid
from chalicelib.domain.masking import MaskRule

_MAX_KEPT: Final = 64  # sets of rules; a bundle has a handful, and each set costs some milliseconds to compile


class Configuration(Protocol):
    """``broker.configuration.ActiveConfiguration``: the active bundle, from memory."""

    def current(self) -> Bundle: ...


class StreamMasks:
    """Makes masks. Thread-safe; never blocks."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._lock = threading.Lock()
        self._compiled: OrderedDict[tuple[MaskRule, ...], Detectors] = OrderedDict()

    def of(self, names: Sequence[str]) -> Callable[[], StreamMask]:
        """Return what makes a mask for one stream after another. Raises ConfigurationInvalid where a rule is gone."""
        masks = self._configuration.current().masks
        missing = [name for name in names if name not in masks]
        if missing:
            raise ConfigurationInvalid("a mask that policy requires is not configured any more", masks=missing)
        rules = tuple(masks[name] for name in names)
        detectors = self._detectors(rules)
        return lambda: StreamMask(rules, detectors)

    def _detectors(self, rules: tuple[MaskRule, ...]) -> Detectors:
        with self._lock:
            found = self._compiled.get(rules)
            if found is None:
                found = self._compiled[rules] = Detectors(rules)
                while len(self._compiled) > _MAX_KEPT:
                    self._compiled.popitem(last=False)
            return found
