"""The one table of the layer kinds that are understood, and how to walk through them.

Whoever treats layers by kind asks this table: a new kind is one entry here, and every engine then
either handles its role or refuses the layer by name. Only exact types count: a subclass may do more
than its parent, and so may a layer that carries hooks or a replaced ``forward``.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.functional import pad, unfold
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.dropout import _DropoutNd

from teachkit.core import door


class UncoveredError(ValueError):
    """A network, a layer or a loss that a fast way does not cover; the message says which part."""


class Kind(NamedTuple):
    """What a layer does.

    ``role``: "linear", "conv" and "transposed" carry prunable weights; "norm" and "prelu" have
    numbers of their own for each channel; "pointwise" is one function of each number; "nothing" does
    nothing in evaluation mode; "max pool", "mean pool", "pad" and "flatten" say what they do.
    ``dims``: how many dimensions of an image it runs over. ``curved``: its second derivative is not
    zero everywhere.
    """

    role: str
    dims: int = 0
    curved: bool = False


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind("linear"),
    nn.Flatten: Kind("flatten"),
    nn.Identity: Kind("nothing"),
    **dict.fromkeys(_DropoutNd.__subclasses__(), Kind("nothing")),
    nn.PReLU: Kind("prelu"),
    **dict.fromkeys(
        (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.Hardtanh, nn.Hardsigmoid), Kind("pointwise")
    ),
    **dict.fromkeys(
        (
            *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Mish, nn.Softplus, nn.Softsign),
            *(nn.ELU, nn.SELU, nn.CELU, nn.LogSigmoid, nn.Hardswish),
        ),
        Kind("pointwise", curved=True),
    ),
    nn.ZeroPad2d: Kind("pad", 2),
}
for _dims, _kinds in enumerate(
    (
        (nn.Conv1d, nn.ConvTranspose1d, nn.BatchNorm1d, nn.MaxPool1d, nn.AvgPool1d),
        (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.MaxPool2d, nn.AvgPool2d),
        (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.MaxPool3d, nn.AvgPool3d),
    ),
    1,
):
    _roles = ("conv", "transposed", "norm", "max pool", "mean pool")
    KINDS |= {kind: Kind(role, _dims) for kind, role in zip(_kinds, _roles, strict=True)}
KINDS |= {
    nn.AdaptiveAvgPool1d: Kind("mean pool", 1),
    nn.AdaptiveAvgPool2d: Kind("mean pool", 2),
    nn.AdaptiveAvgPool3d: Kind("mean pool", 3),
}


# What autograd calls the operations that are linear, or linear in pieces, in all that they read …
PIECEWISE_LINEAR = frozenset(
    """Abs AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D Add Alias Amax
    Amin AvgPool2D AvgPool3D Cat Clamp ClampMax ClampMin Clone ConstantPadNd Expand Flip Gather
    Hardsigmoid Hardtanh Index IndexSelect LeakyRelu Max Maximum MaxPool2DWithIndices
    MaxPool3DWithIndices Mean Min Minimum Narrow Neg Permute PixelShuffle PixelUnshuffle
    ReflectionPad1D ReflectionPad2D Relu Repeat ReplicationPad1D ReplicationPad2D ReshapeAlias Roll
    Rsub Select Slice Split SplitWithSizes Squeeze Stack Sub Sum T ToCopy Transpose Unbind Unsqueeze
    UnsafeView UpsampleBilinear2D UpsampleNearest2D View Where""".split()  # noqa: SIM905 -- to read
)
# … and those that are linear if all but one of what they read is constant: a product of two
# activations is not.
LINEAR_IN_ONE = frozenset(
    ("Addmm", "Addmv", "Baddbmm", "Bmm", "Convolution", "Mm", "Mul", "Mv", "NativeBatchNorm")
) | {"PreluKernel"}


def kind(module: nn.Module) -> Kind:
    """The kind of a layer; its role is "" where the table has none.

    >>> kind(nn.Tanh()), kind(nn.Conv2d(1, 1, 1)).role, kind(nn.GRU(1, 1)).role
    (Kind(role='pointwise', dims=0, curved=True), 'conv', '')
    """
    return KINDS.get(type(module), Kind(""))


def does_more(module: nn.Module) -> str:
    """Why a layer may do more than its class says: hooks or a replaced forward; "" if it does not.

    >>> does_more(nn.ReLU())
    ''
    """
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    if any(hooks) or module._backward_pre_hooks:
        back = "" if any(hooks[:2]) else "backward"
        return f"{type(module).__name__} carries a {back or 'forward'} hook"
    return f"{type(module).__name__} has a replaced forward" if "forward" in vars(module) else ""


def replaced(module: nn.Module) -> str:
    """Why a layer's forward is not that of torch's class; "" where it is.

    >>> replaced(type("Twice", (nn.Linear,), {"forward": lambda layer, x: 2 * x})(1, 1))
    'Twice has a forward of its own'
    """
    if "forward" in vars(module):
        return f"{type(module).__name__} has a replaced forward"
    torchs = next(each for each in type(module).__mro__ if each.__module__.startswith("torch."))
    steps = ("forward", "_conv_forward", "__call__")
    same = all(getattr(type(module), k, 0) is getattr(torchs, k, 0) for k in steps)
    return "" if same else f"{type(module).__name__} has a forward of its own"


def weighted(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules whose weights the course prunes, by name: Linear and Conv layers of any subclass."""
    for name, module in model.named_modules():
        if isinstance(module, (nn.Linear, _ConvNd)):
            yield name, module


def chain(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The layers of a chain in the order in which they run, nested Sequentials opened.

    Raises:
        UncoveredError: a part that is neither a Sequential nor in the table, or one that does more
            than its class says; the message names it.

    >>> [key for key, _ in chain(nn.Sequential(nn.Sequential(nn.Linear(1, 1)), nn.ReLU()))]
    ['0.0', '1']

    """
    why = does_more(model)
    if why:
        raise UncoveredError(why)
    if type(model) is nn.Sequential:
        for key, child in model._modules.items():
            assert child is not None  # noqa: S101 -- a Sequential holds modules only
            yield from chain(child, f"{name}.{key}" if name else key)
    elif kind(model).role:
        yield name, model
    else:
        known = ", ".join(sorted(each.__name__ for each in KINDS))
        raise UncoveredError(
            f"{type(model).__name__} is not covered; a Sequential of these is: {known}"
        )


def patches(layer: nn.Module, x: Tensor) -> Tensor:
    """What each output position of a layer reads, (n, groups, positions, numbers that one reads).

    A Linear or Conv layer is one matrix, its weight flattened to (out, ...), times these rows. A
    Linear layer has a position for each entry of the dimensions between the first and the last.

    Args:
        layer: Linear, Conv1d or Conv2d.
        x: its input, (n, ..., features) or (n, channels, ...).

    Raises:
        UncoveredError: a layer of another kind.

    >>> patches(nn.Conv2d(2, 1, 3, padding=1), Tensor(4, 2, 5, 5).fill_(1)).shape
    torch.Size([4, 1, 25, 18])

    """
    if isinstance(layer, nn.Linear):
        return x.reshape(len(x), 1, -1, x.shape[-1])
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d)):
        raise UncoveredError(
            f"{type(layer).__name__} is not covered; Linear, Conv1d and Conv2d are"
        )
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    wide = pad(x, layer._reversed_padding_repeated_twice, mode)
    if isinstance(layer, nn.Conv1d):  # an image of one row
        sizes = [(1, *each) for each in (layer.kernel_size, layer.dilation, layer.stride)]
        columns = unfold(wide[:, :, None], sizes[0], sizes[1], stride=sizes[2])
    else:
        columns = unfold(wide, layer.kernel_size, layer.dilation, stride=layer.stride)
    return columns.reshape(len(x), layer.groups, -1, columns.shape[2]).mT


def positions(layer: nn.Module, z: Tensor) -> Tensor:
    """A layer's output (n, ..., out, ...) as rows, (n, positions, out), to stand beside :func:`patches`.

    >>> positions(nn.Conv2d(2, 3, 1), Tensor(4, 3, 5, 5).fill_(1)).shape
    torch.Size([4, 25, 3])
    """
    if isinstance(layer, nn.Linear):
        return z.reshape(len(z), -1, z.shape[-1])
    return z.flatten(2).mT


def parameter_name(layer: str, kind: str) -> str:
    """The name of a layer's parameter in named_parameters(); the model itself has the name ''."""
    return f"{layer}.{kind}" if layer else kind


door.hold(globals())
