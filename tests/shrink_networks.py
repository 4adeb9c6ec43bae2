"""Kinds of networks for real removal: each is built, given inputs, and said to be cut or refused.

A kind is a function that returns a network and its inputs. ``CUT`` are kinds of which at least one layer
can lose outputs; ``REFUSED`` are kinds whose named layer cannot, with words of the reason.
"""

import torch
from coupled_networks import dice
from torch import nn
from torch.nn import functional

CUT, REFUSED = {}, {}
IMAGE, ROW, WORDS = (3, 2, 8, 8), (3, 6), (3, 5, 6)


class Net(nn.Module):
    """Parts by name, and a function of them and the inputs."""

    def __init__(self, way, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.way = way

    def forward(self, x):
        return self.way(self, x)


class Pair(Net):
    """The same with two inputs."""

    def forward(self, x, y):
        return self.way(self, x, y)


def draw(*shapes, seed=5):
    g = dice(seed)
    return tuple(torch.randn(shape, generator=g, dtype=torch.float64) for shape in shapes)


def cut(title, *shapes):
    """Note a kind that can be cut."""

    def note(make):
        CUT[title] = (make, shapes or (IMAGE,))
        return make

    return note


def refused(title, layer, says, *shapes):
    """Note a kind whose layer is refused."""

    def note(make):
        REFUSED[title] = (make, shapes or (IMAGE,), layer, says)
        return make

    return note


def conv(i, o, k=3, **more):
    return nn.Conv2d(i, o, k, padding=k // 2, **more)


def head(way, width=8, **parts):
    """A stem of convolution, a way, then mean and Linear."""

    def forward(m, x):
        return m.out(way(m, m.stem(x)).mean((2, 3)))

    return Net(forward, stem=conv(2, 8), out=nn.Linear(width, 3), **parts)


# Flattening ------------------------------------------------------------------------------------


def ends(way, features=8 * 16):
    return lambda: Net(
        lambda m, x: m.out(way(m, functional.max_pool2d(m.stem(x).relu(), 2))),
        stem=conv(2, 8),
        out=nn.Linear(features, 3),
    )


for _title, _way in {
    "view(x.size(0), -1)": lambda m, x: x.view(x.size(0), -1),
    "view(x.shape[0], -1)": lambda m, x: x.view(x.shape[0], -1),
    "view(len by size, C * H * W)": lambda m, x: x.view(
        x.size(0), x.size(1) * x.size(2) * x.size(3)
    ),
    "reshape(N, -1) of unpacked sizes": lambda m, x: (lambda n, c, h, w: x.reshape(n, c * h * w))(
        *[x.size(i) for i in range(4)]
    ),
    "reshape((n, -1))": lambda m, x: x.reshape((x.size(0), -1)),
    "flatten(1)": lambda m, x: x.flatten(1),
    "flatten(2).flatten(1)": lambda m, x: torch.flatten(x.flatten(2), 1),
    "flatten(start_dim=-3)": lambda m, x: torch.flatten(x, start_dim=-3),
    "permuted to channels last and flattened": lambda m, x: x.permute(0, 2, 3, 1).flatten(1),
    "einops-like rearrange b c (h a) (w b)": lambda m, x: (
        x.view(x.size(0), x.size(1), x.size(2) // 2, 2, x.size(3) // 2, 2)
        .permute(0, 2, 4, 1, 3, 5)
        .reshape(x.size(0), -1)
    ),
    "two transposes": lambda m, x: x.transpose(1, 2).transpose(1, 3).reshape(x.size(0), -1),
}.items():
    cut(_title)(ends(_way))


@refused("view with the product written out", "stem", "'view' is not understood")
def _written():
    return ends(lambda m, x: x.view(-1, 128))()


for _title, _way in {
    "mean((2, 3))": lambda m, x: x.mean((2, 3)),
    "mean of mean": lambda m, x: x.mean(3).mean(2),
    "mean(dim=[-1, -2], keepdim) and flatten": lambda m, x: x.mean(
        dim=[-1, -2], keepdim=True
    ).flatten(1),
    "adaptive pooling and squeeze": lambda m, x: (
        functional.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1)
    ),
    "adaptive pooling and squeeze()": lambda m, x: functional.adaptive_avg_pool2d(x, 1).squeeze(),
    "adaptive pooling and view": lambda m, x: functional.adaptive_max_pool2d(x, (1, 1)).view(
        x.size(0), -1
    ),
    "sum over places": lambda m, x: x.sum((2, 3)),
    "amax over places": lambda m, x: x.flatten(2).amax(-1),
    "indexing a place": lambda m, x: x[:, :, 0, 0],
    "slicing places": lambda m, x: x[..., ::2, 1:].mean((2, 3)),
    "unsqueeze and squeeze": lambda m, x: x.mean(3).mean(2).unsqueeze(-1).squeeze(-1),
    "interpolate": lambda m, x: functional.interpolate(x, scale_factor=2).mean((2, 3)),
    "strided slices padded": lambda m, x: functional.pad(x[:, :, ::2, ::2], (1, 1, 0, 0)).mean(
        (2, 3)
    ),
    "clamp, abs, power": lambda m, x: x.clamp(-1, 1).abs().pow(2).mean((2, 3)),
    "stack and sum": lambda m, x: torch.stack([x, x.relu()], 1).sum(1).mean((2, 3)),
    "maximum": lambda m, x: torch.maximum(x, x.relu() * 0.5).mean((2, 3)),
    "where": lambda m, x: torch.where(x > 0, x, x * 0.1).mean((2, 3)),
}.items():
    cut(_title)(ends(_way, 8))


# Branches --------------------------------------------------------------------------------------


@cut("DenseNet")
def _dense():
    def forward(m, x):
        seen = [m.stem(x)]
        for layer, norm in ((m.a, m.norm_a), (m.b, m.norm_b)):
            seen.append(layer(norm(torch.cat(seen, 1)).relu()))
        return m.out(functional.adaptive_avg_pool2d(m.last(torch.cat(seen, 1)), 1).flatten(1))

    return Net(
        forward,
        stem=conv(2, 6),
        a=conv(6, 4),
        norm_a=nn.BatchNorm2d(6),
        b=conv(10, 4),
        norm_b=nn.BatchNorm2d(10),
        last=nn.BatchNorm2d(14),
        out=nn.Linear(14, 3),
    )


@cut("U-Net")
def _unet():
    def forward(m, x):
        a = m.down1(x).relu()
        b = m.down2(functional.max_pool2d(a, 2)).relu()
        up = torch.cat([m.up(b), a], dim=1)
        return m.out(m.merge(up).relu())

    return Net(
        forward,
        down1=conv(2, 5),
        down2=conv(5, 6),
        up=nn.ConvTranspose2d(6, 4, 2, stride=2),
        merge=conv(9, 4),
        out=conv(4, 1, 1),
    )


@cut("U-Net with Upsample and addition")
def _unet_added():
    def forward(m, x):
        a = m.down1(x).relu()
        return m.out(m.up(m.down2(functional.max_pool2d(a, 2)).relu()) + a)

    up = nn.Upsample(scale_factor=2, mode="bilinear")
    return Net(forward, down1=conv(2, 5), down2=conv(5, 5), up=up, out=conv(5, 1, 1))


@cut("Inception: branches of several widths, flattened and joined")
def _inception():
    def forward(m, x):
        y = torch.cat([m.a(x), m.b(x).relu(), functional.avg_pool2d(m.c(x), 3, 1, 1)], 1)
        return m.out(m.norm(y).mean((2, 3)))

    parts = {"a": conv(2, 3, 1), "b": conv(2, 4), "c": conv(2, 5)}
    return Net(forward, norm=nn.BatchNorm2d(12), out=nn.Linear(12, 3), **parts)


@cut("input joined with features")
def _with_input():
    return Net(lambda m, x: m.out(torch.cat([x, m.a(x).relu()], 1)), a=conv(2, 5), out=conv(7, 2))


@cut("rows joined along 1", ROW)
def _rows_joined():
    return Net(
        lambda m, x: m.out(torch.cat([m.a(x).relu(), m.b(x).tanh()], 1)),
        a=nn.Linear(6, 5),
        b=nn.Linear(6, 4),
        out=nn.Linear(9, 2),
    )


@cut("residual and concatenation mixed")
def _mixed():
    def forward(m, x):
        y = torch.cat([m.a(x), m.b(x)], 1)
        return m.out((y + m.c(x)).relu())

    return Net(forward, a=conv(2, 3), b=conv(2, 4), c=conv(2, 7), out=conv(7, 1))


@cut("product of branches (bilinear gate)", ROW)
def _product():
    return Net(
        lambda m, x: m.out(m.a(x) * m.b(x).sigmoid()),
        a=nn.Linear(6, 7),
        b=nn.Linear(6, 7),
        out=nn.Linear(7, 2),
    )


@cut("maximum of branches (maxout)", ROW)
def _maxout():
    return Net(
        lambda m, x: m.out(torch.maximum(m.a(x), m.b(x))),
        a=nn.Linear(6, 7),
        b=nn.Linear(6, 7),
        out=nn.Linear(7, 2),
    )


@cut("difference and sum over units (two towers)", ROW, ROW)
def _towers():
    return Pair(
        lambda m, x, y: (m.a(x).relu() * m.b(y).relu()).sum(-1),
        a=nn.Linear(6, 7),
        b=nn.Linear(6, 7),
    )


@cut("two inputs and two outputs", ROW, (3, 4))
def _two():
    def forward(m, x, y):
        z = torch.relu(m.a(x) - m.b(y))
        return m.first(z), {"second": m.second(z)}

    return Pair(
        forward,
        a=nn.Linear(6, 7),
        b=nn.Linear(4, 7),
        first=nn.Linear(7, 2),
        second=nn.Linear(7, 1),
    )


@cut("ResNet block with a strided shortcut")
def _resnet():
    def forward(m, x):
        x = m.norm(m.stem(x)).relu()
        y = m.norm_b(m.b(m.norm_a(m.a(x)).relu()))
        y += m.short(x)
        return m.out(torch.flatten(functional.adaptive_avg_pool2d(y.relu_(), 1), 1))

    return Net(
        forward,
        stem=conv(2, 5),
        norm=nn.BatchNorm2d(5),
        a=conv(5, 6, stride=2),
        norm_a=nn.BatchNorm2d(6),
        b=conv(6, 7),
        norm_b=nn.BatchNorm2d(7),
        short=nn.Sequential(nn.Conv2d(5, 7, 1, 2), nn.BatchNorm2d(7)),
        out=nn.Linear(7, 3),
    )


@cut("a shortcut padded with zeros (ResNet option A)")
def _option_a():
    def forward(m, x):
        x = m.stem(x).relu()
        short = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1))
        return m.out((m.b(m.a(x).relu()) + short).mean((2, 3)))

    return Net(forward, stem=conv(2, 4), a=conv(4, 5, stride=2), b=conv(5, 6), out=nn.Linear(6, 2))


# Gates and scales ------------------------------------------------------------------------------


def _excite(gate):
    def forward(m, x):
        x = m.norm(m.stem(x)).relu()
        return m.out((x * gate(m, x)).mean((2, 3)))

    return lambda: Net(
        forward,
        stem=conv(2, 8),
        norm=nn.BatchNorm2d(8),
        down=nn.Linear(8, 4),
        up=nn.Linear(4, 8),
        down_conv=nn.Conv2d(8, 4, 1),
        up_conv=nn.Conv2d(4, 8, 1),
        out=nn.Linear(8, 3),
    )


cut("squeeze and excite with Linear and view")(
    _excite(
        lambda m, x: torch.sigmoid(
            m.up(m.down(functional.adaptive_avg_pool2d(x, 1).view(x.size(0), -1)).relu())
        ).view(x.size(0), -1, 1, 1)
    )
)
cut("squeeze and excite with b, c, _, _ = x.size()")(
    _excite(
        lambda m, x: (
            lambda b, c: (
                m.up(m.down(functional.adaptive_avg_pool2d(x, 1).view(b, c)).relu())
                .sigmoid()
                .view(b, c, 1, 1)
            )
        )(x.size(0), x.size(1))
    )
)
cut("squeeze and excite with expand_as")(
    _excite(
        lambda m, x: m.up(m.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None].expand_as(x)
    )
)
cut("squeeze and excite with convolutions")(
    _excite(lambda m, x: m.up_conv(m.down_conv(x.mean((2, 3), keepdim=True)).relu()).sigmoid())
)


@cut("a gate from the first channel's mean is joined only by places")
def _spatial():
    return head(lambda m, x: x * m.gate(x).sigmoid(), gate=conv(8, 1))


@cut("a scale for each channel (ConvNeXt's layer scale)")
def _layer_scale():
    return head(lambda m, x: x * m.gamma.view(1, -1, 1, 1), gamma=nn.Parameter(torch.ones(8)))


@cut("a scale of shape (C, 1, 1) and a shift of (1, C, 1, 1)")
def _affine():
    scale, shift = nn.Parameter(torch.ones(8, 1, 1)), nn.Parameter(torch.ones(1, 8, 1, 1))
    return head(lambda m, x: x * m.scale + m.shift, scale=scale, shift=shift)


@cut("a scale for all", ROW)
def _one_scale():
    return Net(
        lambda m, x: m.out(m.a(x) * m.scale),
        a=nn.Linear(6, 5),
        out=nn.Linear(5, 1),
        scale=nn.Parameter(torch.ones(1)),
    )


@cut("a buffer added to units", ROW)
def _buffer():
    net = Net(lambda m, x: m.out(m.a(x) + m.place), a=nn.Linear(6, 5), out=nn.Linear(5, 1))
    net.register_buffer("place", torch.arange(5.0))
    return net


@cut("chunk and a gate (GLU by hand)")
def _glu_by_hand():
    def forward(m, x):
        a, b = m.stem(x).chunk(2, dim=1)
        return m.out((a * b.sigmoid()).mean((2, 3)))

    return Net(forward, stem=conv(2, 8), out=nn.Linear(4, 2))


@cut("nn.GLU")
def _glu():
    return head(lambda m, x: m.glu(x), 4, glu=nn.GLU(1))


@cut("functional.glu and SwiGLU over rows", ROW)
def _swiglu():
    def forward(m, x):
        a, b = m.a(x).chunk(2, -1)
        return m.out(functional.silu(a) * b + functional.glu(m.b(x), -1))

    return Net(forward, a=nn.Linear(6, 10), b=nn.Linear(6, 10), out=nn.Linear(5, 2))


@cut("split in halves, one of which goes on (CSP)")
def _csp():
    def forward(m, x):
        y = m.stem(x)
        a, b = torch.split(y, y.size(1) // 2, 1)
        return m.out(torch.cat([a, m.deep(b).relu()], 1).mean((2, 3)))

    return Net(forward, stem=conv(2, 8), deep=conv(4, 5), out=nn.Linear(9, 2))


@cut("PReLU for each channel")
def _prelu():
    return head(lambda m, x: m.act(x), act=nn.PReLU(8))


# Normalisations --------------------------------------------------------------------------------

for _title, _norm in {
    "InstanceNorm2d": lambda: nn.InstanceNorm2d(8),
    "InstanceNorm2d with numbers of its own": lambda: nn.InstanceNorm2d(8, affine=True),
    "InstanceNorm2d with statistics": lambda: nn.InstanceNorm2d(
        8, affine=True, track_running_stats=True
    ),
    "GroupNorm of single channels": lambda: nn.GroupNorm(8, 8),
    "GroupNorm in pairs": lambda: nn.GroupNorm(4, 8),
    "BatchNorm2d without numbers": lambda: nn.BatchNorm2d(8, affine=False),
    "PixelShuffle": lambda: nn.Sequential(nn.PixelShuffle(2), nn.PixelUnshuffle(2)),
    "Hardshrink, paddings": lambda: nn.Sequential(
        nn.Hardshrink(), nn.ReflectionPad2d(1), nn.ConstantPad2d(1, 0.5)
    ),
}.items():
    cut(_title)(lambda norm=_norm: head(lambda m, x: m.norm(x), norm=norm()))

for _title, _norm in {
    "LayerNorm over channels last": lambda: nn.LayerNorm(6),
    "RMSNorm": lambda: nn.RMSNorm(6),
    "Softmax": lambda: nn.Softmax(-1),
}.items():
    refused(_title, "a", f"{type(_norm()).__name__}\\) is not understood", ROW)(
        lambda norm=_norm: Net(
            lambda m, x: m.out(m.norm(m.a(x))), a=nn.Linear(6, 6), norm=norm(), out=nn.Linear(6, 2)
        )
    )


@refused("GroupNorm over all channels", "stem", r"\(GroupNorm\) is not understood")
def _one_group():
    return head(lambda m, x: m.norm(x), norm=nn.GroupNorm(1, 8))


@refused("an LSTM behind", "a", r"\(LSTM\) is not understood", WORDS)
def _lstm():
    return Net(
        lambda m, x: m.out(m.lstm(m.a(x))[0]),
        a=nn.Linear(6, 5),
        lstm=nn.LSTM(5, 4, batch_first=True),
        out=nn.Linear(4, 2),
    )


@refused("mean over units", "stem", "'mean' is not understood over it")
def _mean_over():
    return head(lambda m, x: x - x.mean(1, keepdim=True))


@refused("a sum over units that say a half", "a", "'sum' is not understood over it", ROW)
def _sum_over():
    return Net(
        lambda m, x: m.out(m.a(x).sigmoid().sum(-1, keepdim=True)),
        a=nn.Linear(6, 5),
        out=nn.Linear(1, 2),
    )


@refused("an index of channels", "stem", "'getitem' is not understood")
def _indexed():
    return head(lambda m, x: x[:, [1, 0, 2]], 3)


@refused("the number of channels computed with", "stem", "computes with how many")
def _counted():
    return head(lambda m, x: x * x.size(1))


@refused("split at a written place", "stem", "whose length the code says")
def _split():
    return head(lambda m, x: torch.cat(torch.split(x, [3, 5], 1)[::-1], 1))


# Convolutions ----------------------------------------------------------------------------------

for _title, _part in {
    "depthwise": lambda: conv(8, 8, groups=8),
    "depthwise, twice as many": lambda: nn.Sequential(conv(8, 16, groups=8), conv(16, 8, 1)),
    "in groups (ResNeXt)": lambda: conv(8, 8, groups=2),
    "in groups of other widths": lambda: nn.Sequential(conv(8, 12, groups=4), conv(12, 8, 1)),
    "transposed": lambda: nn.ConvTranspose2d(8, 8, 2, stride=2),
    "transposed, depthwise": lambda: nn.ConvTranspose2d(8, 8, 2, groups=8),
    "transposed, in groups": lambda: nn.ConvTranspose2d(8, 8, 2, groups=2),
    "inverted residual": lambda: nn.Sequential(
        conv(8, 12, 1), nn.BatchNorm2d(12), nn.ReLU6(), conv(12, 12, groups=12), conv(12, 8, 1)
    ),
}.items():
    cut(_title)(lambda part=_part: head(lambda m, x: m.part(x).relu(), part=part()))


@cut("ShuffleNet: channels shuffled by view and transpose")
def _shuffled():
    def forward(m, x):
        n, h, w = x.size(0), x.size(2), x.size(3)
        y = m.stem(x)
        y = y.view(n, 4, -1, h, w).transpose(1, 2).reshape(n, -1, h, w)
        return m.out(m.deep(y).mean((2, 3)))

    return Net(forward, stem=conv(2, 8), deep=conv(8, 6), out=nn.Linear(6, 3))


@cut("ShuffleNet with c // groups")
def _shuffled_by_size():
    def forward(m, x):
        y = m.stem(x)
        n, c, h, w = y.size()
        y = y.view(n, 4, c // 4, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return m.out(m.deep(y).mean((2, 3)))

    return Net(forward, stem=conv(2, 8), deep=conv(8, 6), out=nn.Linear(6, 3))


@cut("one-dimensional convolutions", (3, 2, 9))
def _one_d():
    return Net(
        lambda m, x: m.out(m.b(m.norm(m.a(x)).relu()).mean(-1)),
        a=nn.Conv1d(2, 6, 3),
        norm=nn.BatchNorm1d(6),
        b=nn.ConvTranspose1d(6, 5, 2),
        out=nn.Linear(5, 2),
    )


@cut("three-dimensional convolutions", (2, 2, 4, 4, 4))
def _three_d():
    return Net(
        lambda m, x: m.out(m.norm(m.a(x)).relu().flatten(2).mean(2)),
        a=nn.Conv3d(2, 6, 3),
        norm=nn.BatchNorm3d(6),
        out=nn.Linear(6, 2),
    )


# Shared layers, words and attention ------------------------------------------------------------


@cut("a layer called twice", ROW)
def _twice():
    return Net(
        lambda m, x: m.out(m.loop(m.loop(m.a(x)).relu()).relu()),
        a=nn.Linear(6, 5),
        loop=nn.Linear(5, 5),
        out=nn.Linear(5, 2),
    )


@cut("tied weights", ROW)
def _tied():
    net = Net(
        lambda m, x: m.out(m.c(m.b(m.a(x)).tanh())),
        a=nn.Linear(6, 5),
        b=nn.Linear(5, 5),
        c=nn.Linear(5, 5),
        out=nn.Linear(5, 2),
    )
    net.c.weight = net.b.weight
    return net


@cut("a network with shared towers (siamese)", ROW, ROW)
def _siamese():
    def forward(m, x, y):
        return m.out((m.b(m.a(x).relu()) - m.b(m.a(y).relu())).abs())

    return Pair(forward, a=nn.Linear(6, 5), b=nn.Linear(5, 4), out=nn.Linear(4, 2))


@cut("an optional input", ROW)
def _optional():
    class Maybe(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.out = nn.Linear(6, 5), nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x, y=None):
            z = self.a(x)
            return self.out(z if y is None else z + self.b(y))

    return Maybe()


@cut("MLP-Mixer without norms", WORDS)
def _mixer():
    def forward(m, x):
        x = x + m.t2(functional.gelu(m.t1(x.transpose(1, 2)))).transpose(1, 2)
        return m.out(x + m.c2(functional.gelu(m.c1(x)))).mean(1)

    return Net(
        forward,
        t1=nn.Linear(5, 7),
        t2=nn.Linear(7, 5),
        c1=nn.Linear(6, 9),
        c2=nn.Linear(9, 6),
        out=nn.Linear(6, 2),
    )


@cut("a matrix of parameters", ROW)
def _matrix():
    net = Net(lambda m, x: m.a(x).relu() @ m.W + m.c, a=nn.Linear(6, 5))
    net.W, net.c = nn.Parameter(torch.ones(5, 2)), nn.Parameter(torch.ones(2))
    return net


@cut("functional.linear and einsum with parameters", ROW)
def _functional():
    net = Net(
        lambda m, x: torch.einsum(
            "nj,ij->ni", functional.linear(m.a(x).relu(), m.W, m.c).relu(), m.V
        ),
        a=nn.Linear(6, 5),
    )
    net.W, net.c = nn.Parameter(torch.ones(4, 5)), nn.Parameter(torch.ones(4))
    net.V = nn.Parameter(torch.ones(2, 4))
    return net


for _first in (True, False):
    for _layer in ("Encoder", "Decoder"):

        def _transformer(first=_first, layer=_layer):
            made = getattr(nn, f"Transformer{layer}Layer")(
                6, 2, 9, batch_first=True, norm_first=first
            )
            way = (
                (lambda m, x: m.out(m.t(x)))
                if layer == "Encoder"
                else (lambda m, x: m.out(m.t(x, x)))
            )
            return Net(way, t=made, out=nn.Linear(6, 2))

        cut(f"nn.Transformer{_layer}Layer, norm_first={_first}", WORDS)(_transformer)


@cut("nn.TransformerEncoder", WORDS)
def _encoder():
    layer = nn.TransformerEncoderLayer(6, 2, 9, activation="gelu", batch_first=True)
    return Net(
        lambda m, x: m.out(m.t(x).mean(1)), t=nn.TransformerEncoder(layer, 2), out=nn.Linear(6, 2)
    )


@cut("nn.Transformer", WORDS, WORDS)
def _whole():
    made = nn.Transformer(6, 2, 1, 1, 9, batch_first=True)
    return Pair(lambda m, x, y: m.out(m.t(x, y)), t=made, out=nn.Linear(6, 2))


@cut("nn.MultiheadAttention beside a hidden layer", WORDS)
def _attention_block():
    def forward(m, x):
        y = m.norm(x)
        x = x + m.attention(y, y, y, need_weights=False)[0]
        return m.out(x + m.down(functional.gelu(m.up(m.norm(x)))))

    return Net(
        forward,
        norm=nn.LayerNorm(6),
        attention=nn.MultiheadAttention(6, 2, batch_first=True),
        up=nn.Linear(6, 9),
        down=nn.Linear(9, 6),
        out=nn.Linear(6, 2),
    )


@refused(
    "what nn.MultiheadAttention reads", "a", r"\(MultiheadAttention\) is not understood", WORDS
)
def _attention_reads():
    def forward(m, x):
        y = m.a(x)
        return m.out(m.attention(y, y, y)[0])

    attention = nn.MultiheadAttention(6, 2, batch_first=True)
    return Net(forward, a=nn.Linear(6, 6), attention=attention, out=nn.Linear(6, 2))


def heads(shape, back, softmax=True):
    """Attention by hand: ``shape`` splits (n, t, C) into heads, ``back`` merges them."""

    def forward(m, x):
        q, k, v = (shape(layer(x)).transpose(1, 2) for layer in (m.q, m.k, m.v))
        weights = q @ k.transpose(-2, -1) * 0.3
        weights = weights.softmax(-1) if softmax else weights
        return m.out(back(x, (weights @ v).transpose(1, 2)))

    parts = {name: nn.Linear(6, 8) for name in "qkv"}
    return lambda: Net(forward, out=nn.Linear(8, 2), **parts)


cut("attention by hand: the width of heads is open", WORDS)(
    heads(lambda y: y.view(y.size(0), y.size(1), 4, -1), lambda x, z: z.flatten(2))
)
cut("attention by hand: the number of heads is open", WORDS)(
    heads(
        lambda y: y.view(y.size(0), y.size(1), -1, 2),
        lambda x, z: z.reshape(z.size(0), z.size(1), -1),
    )
)
cut("attention by hand: width from the size", WORDS)(
    heads(
        lambda y: y.reshape(y.size(0), y.size(1), 4, y.size(2) // 4),
        lambda x, z: z.reshape(x.size(0), x.size(1), -1),
    )
)
refused("attention by hand: all sizes written", "q", "the code says its size", WORDS)(
    heads(lambda y: y.view(y.size(0), y.size(1), 4, 2), lambda x, z: z.flatten(2))
)


@cut("attention by torch's own function, number of heads open", WORDS)
def _sdpa():
    def forward(m, x):
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, -1, 2).transpose(1, 2) for f in (m.q, m.k, m.v))
        y = functional.scaled_dot_product_attention(q, k, v)
        return m.out(y.transpose(1, 2).reshape(n, t, -1))

    parts = {name: nn.Linear(6, 8) for name in "qkv"}
    return Net(forward, out=nn.Linear(8, 2), **parts)


@refused("torch's own attention scales by the width", "q", "it scales by their number", WORDS)
def _sdpa_width():
    def forward(m, x):
        n, t, _ = x.shape
        q, k, v = (f(x).view(n, t, 4, -1).transpose(1, 2) for f in (m.q, m.k, m.v))
        return m.out(
            functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, t, -1)
        )

    parts = {name: nn.Linear(6, 8) for name in "qkv"}
    return Net(forward, out=nn.Linear(8, 2), **parts)


@cut("one Linear layer for q, k and v (nanoGPT), hidden layer free", WORDS)
def _gpt():
    def forward(m, x):
        n, t, c = x.size()
        q, k, v = m.qkv(m.norm(x)).split(6, dim=2)
        q, k, v = (y.view(n, t, 2, c // 2).transpose(1, 2) for y in (q, k, v))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + m.project(y.transpose(1, 2).contiguous().view(n, t, c))
        return m.out(x + m.down(functional.gelu(m.up(m.norm(x)))))

    return Net(
        forward,
        norm=nn.LayerNorm(6),
        qkv=nn.Linear(6, 18),
        project=nn.Linear(6, 6),
        up=nn.Linear(6, 9),
        down=nn.Linear(9, 6),
        out=nn.Linear(6, 2),
    )


@cut("a vision transformer: patches, a class token, places", IMAGE)
def _vit():
    def forward(m, x):
        x = m.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([m.token.expand(x.size(0), -1, -1), x], 1) + m.places
        x = x + m.down(functional.gelu(m.up(m.norm(x))))
        return m.out(m.norm(x)[:, 0])

    return Net(
        forward,
        patch=nn.Conv2d(2, 6, 4, 4),
        token=nn.Parameter(torch.zeros(1, 1, 6)),
        places=nn.Parameter(torch.zeros(1, 5, 6)),
        norm=nn.LayerNorm(6),
        up=nn.Linear(6, 9),
        down=nn.Linear(9, 6),
        out=nn.Linear(6, 2),
    )


# What mixes units in other ways -----------------------------------------------------------------


def _mixes(way, width=7, back=7):
    def make():
        return Net(lambda m, x: m.b(way(m.a(x))), a=nn.Linear(6, width), b=nn.Linear(back, 2))

    return make


for _title, _says, _way in (
    ("a softmax times the units", "'softmax' is not understood", lambda y: y * y.softmax(-1)),
    ("the largest units", "'topk' is not understood", lambda y: y.topk(7)[0]),
    ("sorted units", "'sort' is not understood", lambda y: y.sort(-1)[0]),
    ("running sums of units", "'cumsum' is not understood", lambda y: y.cumsum(-1)),
    ("rolled units", "'roll' is not understood", lambda y: y.roll(1, -1)),
    ("units below the line", "not understood below the line", lambda y: y / (y.abs() + 1)),
    ("a logarithm of units", "'log' is not understood", lambda y: y.abs().log()),
    ("units of length one", "'normalize' is not", lambda y: functional.normalize(y, dim=-1)),
):
    refused(_title, "a", _says, ROW)(_mixes(_way))

for _title, _back, _way in (
    ("units twice", 14, lambda y: y.repeat(1, 2)),
    ("a logarithm of one and more", 7, lambda y: y.abs().log1p()),
    ("units and their squares", 14, lambda y: torch.cat([y, y**2], -1)),
):
    cut(_title, ROW)(_mixes(_way, back=_back))


@cut("weights that are read back (tied autoencoder)", ROW)
def _autoencoder():
    return Net(lambda m, x: functional.linear(m.a(x).relu(), m.a.weight.t()), a=nn.Linear(6, 5))


@cut("means and spreads side by side")
def _spreads():
    def forward(m, x):
        y = m.a(x)
        return m.b(torch.cat([y.mean((2, 3)), y.std(dim=(2, 3))], 1))

    return Net(forward, a=conv(2, 5), b=nn.Linear(10, 2))


@cut("FiLM: scales and shifts from a branch")
def _film():
    def forward(m, x):
        scale, shift = m.a(x.mean((2, 3))).chunk(2, 1)
        return m.b((m.c(x) * scale[..., None, None] + shift[..., None, None]).mean((2, 3)))

    return Net(forward, a=nn.Linear(2, 8), c=conv(2, 4), b=nn.Linear(4, 2))


@cut("linear attention", WORDS)
def _linear_attention():
    def forward(m, x):
        return m.b(m.q(x).sigmoid() @ (m.k(x).relu().transpose(1, 2) @ m.a(x)))

    return Net(forward, q=nn.Linear(6, 4), k=nn.Linear(6, 4), a=nn.Linear(6, 7), b=nn.Linear(7, 2))
