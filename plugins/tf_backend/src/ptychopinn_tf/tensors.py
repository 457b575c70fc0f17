"""Patterns in TensorFlow's tensors: as much of the array API standard as `ptychopinn.data.patterns` asks for.

Some operations have no kernel for small whole numbers on a GPU, and the host would compute them. So memory is moved in
words of 4 bytes, whatever they hold; only conversion to float32 looks at the numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from ptychopinn.arrays import Array, ArrayLibrary
from ptychopinn.typing import AnyArray
from ptychopinn_tf._tensorflow import tf

_WORD = 4  # bytes


@dataclass(frozen=True, eq=False)
class KeptRows:
    """Rows of an array of any dtype as words."""

    words: tf.Variable
    dtype: tf.DType


def _to_words(array: tf.Tensor) -> tf.Tensor:
    """The same memory as float32; the last axis is as much shorter."""
    a_word = _WORD // array.dtype.size
    if a_word == 1:
        return tf.bitcast(array, tf.float32)
    *leading, last = array.shape
    return tf.bitcast(tf.reshape(array, (*leading, last // a_word, a_word)), tf.float32)


def _from_words(words: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """The inverse of `_to_words`."""
    array = tf.bitcast(words, dtype)
    if dtype.size == _WORD:
        return array
    *leading, last = words.shape
    return tf.reshape(array, (*(-1 if size is None else size for size in leading), last * (_WORD // dtype.size)))


def _roll(array: tf.Tensor, shift: Sequence[int], axis: Sequence[int]) -> tf.Tensor:
    """Along the last two axes, by whole words along the last."""
    a_word = _WORD // array.dtype.size
    down, along = shift
    return _from_words(tf.roll(_to_words(array), (down, along // a_word), axis), array.dtype)


def _take(array: tf.Tensor | KeptRows, index: tf.Tensor, axis: int) -> tf.Tensor:
    if isinstance(array, KeptRows):
        return _from_words(tf.gather(array.words, index, axis=axis), array.dtype)
    return tf.gather(array, index, axis=axis)


_NAMESPACE = SimpleNamespace(
    __name__="tensorflow",
    reshape=tf.reshape,
    where=tf.where,
    zeros_like=tf.zeros_like,
    concat=lambda parts: tf.concat(parts, axis=0),
    roll=_roll,
    take=_take,
)


class TensorLibrary(ArrayLibrary):
    """TensorFlow's tensors on one device, for what a training keeps there; it cannot do more."""

    def __init__(self, device: str) -> None:
        super().__init__(_NAMESPACE, device, f"TensorFlow's {device}")

    @property
    def budget_bytes(self) -> int:
        """No limit: whoever keeps something asks first whether there is room."""
        return 1 << 62

    def from_host(self, array: AnyArray) -> tf.Tensor:
        """A NumPy array as a tensor."""
        with tf.device(self.device):
            return tf.constant(array)

    def to_host(self, array: tf.Tensor) -> AnyArray:
        """A tensor as a NumPy array; it waits for the device."""
        host: AnyArray = array.numpy()
        return host

    def cast(self, array: tf.Tensor, dtype: str) -> tf.Tensor:
        """A tensor in another dtype, by its name."""
        return tf.cast(array, dtype)

    def from_blocks(
        self, shape: tuple[int, ...], blocks: Iterable[AnyArray], prepare: Callable[[Array], Array]
    ) -> KeptRows:
        """Rows that come from the host in blocks, in memory that is taken once."""
        kept: KeptRows | None = None
        row = 0
        with tf.device(self.device):
            for block in blocks:
                array = prepare(self.from_host(block))
                words = _to_words(array)
                if kept is None:
                    zeros = tf.zeros((shape[0], *words.shape[1:]), tf.float32)
                    kept = KeptRows(tf.Variable(zeros, trainable=False), array.dtype)
                kept.words[row : row + len(words)].assign(words)
                row += len(words)
        assert kept is not None  # nobody asks for nothing
        return kept
