"""Bad input to an operation: what, where and how to mend it, in one sentence that begins with the operation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tinygrad_nm as nm


def ones(*shape: int, dtype: Any = np.float32) -> Any:
    return nm.tensor(np.ones(shape, dtype))


LABELS = np.array([0, 1])

# call, exception, words that the message has to hold
ERRORS: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "conv channels": (
        lambda: nm.conv2d(ones(1, 3, 28, 28), ones(6, 1, 5, 5)),
        ValueError,
        r"conv2d: input has 3 channels, shape \(1, 3, 28, 28\), but weight \(6, 1, 5, 5\) expects 1 \(groups=1\)",
    ),
    "conv kernel": (
        lambda: nm.conv2d(ones(1, 1, 3, 3), ones(1, 1, 5, 5)),
        ValueError,
        r"conv2d: kernel \(5, 5\).*larger",
    ),
    "conv rank": (lambda: nm.conv2d(ones(3, 28, 28), ones(6, 3, 5, 5)), ValueError, r"conv2d: input.*\(N, C, H, W\)"),
    "conv weight": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(5, 5)), ValueError, r"conv2d: weight has shape \(5, 5\)"),
    "conv empty kernel": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 0, 3)), ValueError, "conv2d: weight"),
    "conv bias": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(2, 1, 3, 3), ones(3)), ValueError, r"conv2d: bias.*\(2,\)"),
    "conv stride": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), stride=0), ValueError, "conv2d: stride"),
    "conv dilation": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), dilation=-1), ValueError, "dilation"),
    "conv padding": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), padding=-1), ValueError, "conv2d: padding"),
    "conv padding form": (
        lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), padding=(1, 2, 3)),
        ValueError,
        "padding",
    ),
    "conv stride type": (lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), stride=1.5), TypeError, "stride"),
    "conv groups": (lambda: nm.conv2d(ones(1, 2, 5, 5), ones(2, 1, 3, 3), groups=0), ValueError, "conv2d: groups"),
    "conv filters": (
        lambda: nm.conv2d(ones(1, 2, 5, 5), ones(3, 1, 3, 3), groups=2),
        ValueError,
        "3 filters.*2 groups",
    ),
    "conv dtype": (
        lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3, dtype=np.float64)),
        TypeError,
        "float64.*astype",
    ),
    "conv integers": (lambda: nm.conv2d(ones(1, 1, 5, 5, dtype=int), ones(1, 1, 3, 3, dtype=int)), TypeError, "int64"),
    "conv activation": (
        lambda: nm.conv2d(ones(1, 1, 5, 5), ones(1, 1, 3, 3), activation="swoosh"),
        ValueError,
        "conv2d: activation 'swoosh' is not known; use one of .*tanh",
    ),
    "conv dy": (
        lambda: nm.conv2d_backward_input(ones(1, 1, 5, 5), ones(1, 1, 3, 3), (1, 1, 5, 5)),
        ValueError,
        r"conv2d_backward_input: dy has shape \(1, 1, 5, 5\)",
    ),
    "pool kernel": (
        lambda: nm.max_pool2d(ones(1, 1, 3, 3), 5),
        ValueError,
        r"max_pool2d: kernel \(5, 5\).*larger.*\(3, 3\)",
    ),
    "pool kernel zero": (lambda: nm.avg_pool2d(ones(1, 1, 3, 3), 0), ValueError, "avg_pool2d: kernel_size"),
    "pool stride": (lambda: nm.max_pool2d(ones(1, 1, 3, 3), 2, stride=0), ValueError, "max_pool2d: stride"),
    "pool padding": (lambda: nm.max_pool2d(ones(1, 1, 3, 3), 2, padding=3), ValueError, "max_pool2d: padding"),
    "pool rank": (lambda: nm.max_pool2d(ones(3, 3), 2), ValueError, "max_pool2d"),
    "norm size": (lambda: nm.local_response_norm(ones(1, 3, 2, 2), 0), ValueError, "local_response_norm: size"),
    "norm groups": (lambda: nm.local_response_norm(ones(1, 3, 2, 2), 3, groups=2), ValueError, "local_response_norm"),
    "linear": (lambda: nm.linear(ones(2, 3), ones(4, 5)), ValueError, r"linear: input of shape \(2, 3\).*5 features"),
    "linear bias": (lambda: nm.linear(ones(2, 3), ones(4, 3), ones(3)), ValueError, r"linear: bias.*\(4,\)"),
    "linear weight": (lambda: nm.linear(ones(2, 3), ones(3)), ValueError, "linear: weight"),
    "matmul": (lambda: nm.matmul(ones(2, 3), ones(4, 5)), ValueError, "matmul: .*inner sizes 3 and 4"),
    "matmul scalar": (lambda: nm.matmul(ones(), ones(3)), ValueError, "matmul.*multiply"),
    "label too large": (
        lambda: nm.cross_entropy(ones(2, 3), np.array([0, 3])),
        IndexError,
        "cross_entropy: .*label.* 3",
    ),
    "label negative": (
        lambda: nm.cross_entropy(ones(2, 3), np.array([0, -1])),
        IndexError,
        "cross_entropy: .*label.* -1",
    ),
    "labels shape": (lambda: nm.cross_entropy(ones(2, 3), np.array([0, 1, 2])), ValueError, "cross_entropy"),
    "labels all ignored": (
        lambda: nm.cross_entropy(ones(2, 3), np.full(2, -100)),
        ValueError,
        "cross_entropy: no label",
    ),
    "nll label": (lambda: nm.nll_loss(ones(2, 3), np.array([0, 9])), IndexError, "nll_loss: .*label.* 9"),
    "reduction": (
        lambda: nm.cross_entropy(ones(2, 3), LABELS, reduction="max"),
        ValueError,
        "cross_entropy: reduction 'max'",
    ),
    "mse shapes": (lambda: nm.mse_loss(ones(2, 3), ones(2)), ValueError, "mse_loss"),
    "bce shapes": (lambda: nm.binary_cross_entropy_with_logits(ones(2), ones(3)), ValueError, "binary_cross_entropy"),
    "dropout p": (lambda: nm.dropout(ones(3), 1.5), ValueError, "dropout: p"),
    "slope": (lambda: nm.leaky_relu(ones(3), 0.0), ValueError, "leaky_relu"),
    "alpha": (lambda: nm.elu(ones(3), -1.0), ValueError, "elu"),
    "axis": (lambda: nm.sum(ones(2, 3), axis=2), ValueError, "sum: axis 2 is out of range for 2 dimensions"),
    "axis twice": (lambda: nm.mean(ones(2, 3), axis=(0, -2)), ValueError, "mean: .*twice"),
    "mean of nothing": (lambda: nm.mean(ones(0, 3)), ValueError, "mean: "),
    "max of nothing": (lambda: nm.max(ones(0, 3)), ValueError, "max: "),
    "argmax of nothing": (lambda: nm.argmax(ones(0, 3)), ValueError, "argmax: "),
    "ddof": (lambda: nm.var(ones(1), ddof=1), ValueError, "var: 1 values with ddof=1"),
    "reshape": (lambda: nm.reshape(ones(2, 3), (4,)), ValueError, r"reshape: 6 values.*\(4,\)"),
    "transpose": (lambda: nm.transpose(ones(2, 3), 0, 0), ValueError, "transpose: "),
    "squeeze": (lambda: nm.squeeze(ones(2, 3), 0), ValueError, "squeeze: axis 0"),
    "concatenate": (lambda: nm.concatenate([ones(2, 3), ones(3, 2)]), ValueError, "concatenate: shapes"),
    "concatenate nothing": (lambda: nm.concatenate([]), ValueError, "concatenate: "),
    "concatenate dtypes": (lambda: nm.concatenate([ones(2), ones(2, dtype=np.float64)]), TypeError, "float32.*float64"),
    "stack": (lambda: nm.stack([ones(2), ones(3)]), ValueError, "stack: shapes"),
    "pad": (lambda: nm.pad(ones(2, 3), ((1, 1),)), ValueError, "pad: widths"),
    "broadcast_to": (lambda: nm.broadcast_to(ones(3), (2, 4)), ValueError, "broadcast_to: "),
    "flatten": (lambda: nm.flatten(ones(2, 3), 5), ValueError, "flatten: start_axis"),
    "index": (lambda: ones(2, 3)[5], IndexError, r"getitem: .*\(2, 3\)"),
    "index type": (lambda: ones(2, 3)[np.array([0.5])], TypeError, "getitem: .*float64"),
    "mask": (lambda: ones(2, 3)[np.array([True, False, True])], (ValueError, IndexError), "getitem: "),
    "operand": (lambda: nm.add(ones(2), "two"), TypeError, "add: .*str"),
    "clip bounds": (
        lambda: nm.clip(ones(2), nm.tensor(0.0, requires_grad=True), None),
        RuntimeError,
        "clip: the bounds are constants",
    ),
    "probabilities shape": (
        lambda: nm.cross_entropy(ones(2, 3), np.ones((2, 4), np.float32)),
        ValueError,
        "cross_entropy: probabilities have shape",
    ),
    "no class axis": (lambda: nm.cross_entropy(ones(), np.array(0)), ValueError, "cross_entropy: input of shape"),
    "labels dtype": (lambda: nm.nll_loss(ones(2, 3), np.ones(2)), TypeError, "nll_loss: labels are float64"),
    "index kind": (lambda: ones(2, 3)["a"], TypeError, "getitem: 'a' is not an index"),
    "transpose axes": (lambda: nm.transpose(ones(2, 3), 0), ValueError, "transpose: axes .* not a permutation"),
    "broadcast_to less": (lambda: nm.broadcast_to(ones(2, 3), (3,)), ValueError, "broadcast_to: "),
    "grad argnums": (lambda: nm.grad(nm.sum, argnums=1)(ones(2)), ValueError, "grad: argnums 1 names argument 1"),
    "grad of a number": (lambda: nm.grad(lambda x: 1.0)(ones(2)), RuntimeError, "grad: the function returned float"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_is_said_in_one_sentence(name: str) -> None:
    call, kind, words = ERRORS[name]
    with pytest.raises(kind, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)
