"""Layers that commute with the quarter turns, and by option the reflections, of the square.

A field on the group G, v(x, g), is a channels-last tensor ``(batch, *space, channels · |G|)``, the
group index fastest. An element r of G moves it to v(r⁻¹x, r⁻¹g). Every layer's weight is built from
fewer free parameters; how, is a table of indices made once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from sobolev.operators.layers.fourier import FourierModes, Transforms
from sobolev.operators.layers.spectral_conv import full_precision

GROUPS = ("p4", "p4m")


def group_matrices(group: str) -> Int[Tensor, "g 2 2"]:
    """Return the elements of the group as matrices on (y, x), on the CPU: the turns 1, r, r², r³, for
    p4m followed by each of them after the reflection x → −x; ``torch.rot90`` of an array is r.

    >>> group_matrices("p4m").shape, group_matrices("p4")[1].tolist()
    (torch.Size([8, 2, 2]), [[0, -1], [1, 0]])

    Raises:
        ValueError: for another group.
    """
    if group not in GROUPS:
        raise ValueError(
            f"group must be p4 (quarter turns) or p4m (and reflections), got {group!r}"
        )
    turns = torch.tensor(
        [[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]], device="cpu"
    )
    if group == "p4":
        return turns
    return torch.cat([turns, turns * torch.tensor([1, -1], device="cpu")])


def quotients(matrices: Int[Tensor, "g 2 2"]) -> Int[Tensor, "g g"]:
    """Return the number of g⁻¹h at [g, h]; the inverse of an orthogonal matrix is its transpose."""
    products = (matrices.mT[:, None, :, :, None] * matrices[None, :, None]).sum(-2)
    return (products[:, :, None] == matrices).flatten(-2).all(-1).int().argmax(-1)


def representation(
    matrices: Int[Tensor, "g 2 2"], channels: int, vectors: Sequence[Sequence[int]]
) -> Int[Tensor, "g c c"]:
    """Return the matrices by which the elements act on the channels of a field: on pairs in ``vectors``
    as on (u_y, u_x), on others not at all."""
    dtype = matrices.dtype
    device = matrices.device
    action = torch.eye(channels, dtype=dtype, device=device).repeat(len(matrices), 1, 1)
    for y, x in vectors:
        pair = torch.tensor([y, x], device=device)
        action[:, pair[:, None], pair] = matrices
    return action


class _BuiltTensors:
    """Tensors built from parameters, kept until one of the parameters changes; never copied or
    stored along with the layer."""

    def __init__(self) -> None:
        self.key: Sequence[object] = []
        self.sources: list[Tensor] = []  # held, so that no other tensor gets their address
        self.tensors: tuple[Tensor, ...] = ()

    def __reduce__(self) -> tuple[type[_BuiltTensors], tuple[()]]:
        return _BuiltTensors, ()


class BuiltLayer(nn.Module, ABC):
    """A layer whose weights are built from fewer parameters, by tables of indices or signs.

    They are built at every call while parameters may change: training, compiling, with gradients
    recorded or present. Else they are kept until a parameter has another version counter (every
    in-place operation and ``load_state_dict`` moves it on, though not a fused optimizer), memory,
    precision or device. (Writing into ``parameter.data`` moves no counter; write under
    ``torch.no_grad()`` instead.)

    The tables are buffers, for a compiler's sake, but what they hold is known without them: a layer
    that comes from the meta device, by ``to_empty`` or ``load_state_dict``, gets them anew.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept = _BuiltTensors()
        self._tables: dict[str, Tensor] = {}

    @abstractmethod
    def build(self) -> tuple[Float[Tensor, " ..."], ...]:
        """Build the weights from the parameters."""

    def tabulate(self, **tables: Shaped[Tensor, " ..."]) -> None:
        """Register tables, once the parameters are there."""
        self._tables = tables
        self._place_tables()

    def weights(self) -> tuple[Float[Tensor, " ..."], ...]:
        """Return the weights, built anew or kept."""
        parameters: list[Tensor] = list(self.parameters(recurse=False))
        with full_precision(parameters[0]):
            if torch.compiler.is_compiling() or any(map(_is_stand_in, parameters)):
                return self.build()
            if self._may_change(parameters):
                # a fused optimizer will not tell that what is kept is out of date
                self._kept = _BuiltTensors()
                return self.build()
            key = [(p.data_ptr(), p._version, p.dtype, p.device) for p in parameters]
            if key != self._kept.key:
                with torch.inference_mode(False), torch.no_grad():
                    self._kept.sources = [p.detach() for p in parameters]
                    self._kept.tensors = self.build()
                self._kept.key = key
            return self._kept.tensors

    def train(self, mode: bool = True) -> BuiltLayer:
        if mode:
            # the training may be compiled, and then goes past ``weights``
            self._kept = _BuiltTensors()
        return super().train(mode)

    def _may_change(self, parameters: list[Float[Tensor, " ..."]]) -> bool:
        if self.training or any(p.grad is not None for p in parameters):
            return True
        return torch.is_grad_enabled() and any(p.requires_grad for p in parameters)

    def _place_tables(self) -> None:
        device = next(self.parameters(recurse=False)).device
        for name, table in self._tables.items():
            self.register_buffer(name, table.to(device), persistent=False)

    def _apply(
        self, fn: Callable[[Shaped[Tensor, " ..."]], Shaped[Tensor, " ..."]], recurse: bool = True
    ) -> BuiltLayer:
        super()._apply(fn, recurse)
        self._place_tables()
        return self

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._place_tables()


def _is_stand_in(parameter: Float[Tensor, " ..."]) -> bool:
    """Return True for torch.func's tensors, which have no memory of their own, and those of inference
    mode, which have no version."""
    return type(parameter) is not nn.Parameter or parameter.is_inference()


class GroupSpectralConv(BuiltLayer):
    """Convolution over G and space, (ψ ∗ v)(x, g) = Σ_h ∫ ψ(g⁻¹(x−y), g⁻¹h) v(y, h) dy, on Fourier
    coefficients: ŵ(k, g) = Σ_h ψ̂(g⁻¹k, g⁻¹h) v̂(k, h), with ψ real and free (Helwig et al. 2023,
    section 4).

    Since ψ is real, ψ̂(−k) is the conjugate of ψ̂(k). With the frequencies of a block numbered
    n(k) = k_y + (2m−1) k_x (+ (2m−1)² k_t), n(−k) = −n(k) and no number is left out: ``constant``
    holds n = 0, which is real, ``waves`` n = 1, 2, …, and ψ̂ of the others is conjugated. G acts on
    (k_y, k_x) alone.
    """

    CHANNEL_AXES: ClassVar = {"constant": (-2, -1), "waves": (-3, -2)}

    def __init__(
        self,
        matrices: Int[Tensor, "g 2 2"],
        in_channels: int,
        out_channels: int,
        modes: FourierModes,
    ) -> None:
        super().__init__()
        self.block = modes.block
        self.order = len(matrices)
        self.positive = (math.prod(self.block[:-1]) * (2 * self.block[-1] - 1) - 1) // 2
        shape = (self.order, in_channels, out_channels)
        self.constant = nn.Parameter(torch.empty(*shape))
        self.waves = nn.Parameter(torch.empty(self.positive, *shape, 2))
        _draw_weights(self.order * in_channels, self.constant, self.waves)
        self.tabulate(table=self._table(matrices))

    def forward(
        self, c: Float[Tensor, "batch 2 modes i"], transforms: Transforms
    ) -> Float[Tensor, "batch 2 modes o"]:
        """Convolve: ``in_channels · |G|`` coefficients per mode to ``out_channels · |G|``."""
        c = transforms.mixed(c, *self.weights())
        return c.unflatten(3, (self.order, -1)).transpose(3, 4).flatten(3)

    def build(self) -> tuple[Float[Tensor, "*block i o 2"]]:
        constant = F.pad(self.constant[None, ..., None], (0, 1))
        conjugate = torch.cat([self.waves[..., :1], -self.waves[..., 1:]], dim=-1)
        whole = torch.cat([constant, self.waves, conjugate]).flatten(0, 1)
        moved = whole.index_select(0, self.get_buffer("table").flatten())
        moved = moved.unflatten(0, (-1, self.order, self.order))  # (modes, h, g, in, out, 2)
        # In the result the group index is slowest, so that no copy has to part neighbours: 20 times faster.
        weight = moved.permute(0, 3, 1, 2, 4, 5).flatten(3, 4).flatten(1, 2)
        return (weight.unflatten(0, self.block),)

    def _table(self, matrices: Int[Tensor, "g 2 2"]) -> Int[Tensor, "modes g g"]:
        """Return the place of ψ̂(g⁻¹k, g⁻¹h) among n = 0, 1, …, −1, −2, … times G; ``(modes, h, g)``."""
        *space, last = self.block
        device = matrices.device
        axes = [torch.arange(n, device=device) - n // 2 for n in space]
        k = torch.cartesian_prod(*axes, torch.arange(last, device=device))
        turned = torch.cat(
            [
                (k[:, None, :2, None] * matrices).sum(-2),  # g⁻¹k, the transpose of g times k
                k[:, None, 2:].expand(-1, self.order, -1),
            ],
            dim=-1,
        )
        number = (turned * space[0] ** torch.arange(len(self.block), device=device)).sum(-1)
        row = torch.where(number < 0, self.positive - number, number)
        return row[:, None, :] * self.order + quotients(matrices).T


class GroupLinear(BuiltLayer):
    """Pointwise map between fields on the group, w(x, g) = Σ_h A(g⁻¹h) v(x, h) + b."""

    def __init__(self, matrices: Int[Tensor, "g 2 2"], in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.order = len(matrices)
        self.free = nn.Parameter(torch.empty(out_channels, in_channels, self.order))
        self.bias = nn.Parameter(torch.empty(out_channels))
        _draw_weights(in_channels * self.order, self.free, self.bias)
        self.tabulate(table=quotients(matrices))

    def forward(self, v: Float[Tensor, "*shape i"]) -> Float[Tensor, "*shape o"]:
        """Map ``in_channels · |G|`` channels to ``out_channels · |G|``."""
        return F.linear(v, *self.weights())

    def build(self) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
        moved = self.free.index_select(2, self.get_buffer("table").flatten())
        moved = moved.unflatten(2, (self.order, self.order))  # (out, in, g, h)
        weight = moved.transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return weight, self.bias.repeat_interleave(self.order)


class Lifting(BuiltLayer):
    """A map from a field on space to one on the group, v(x, g) = A ρ(g)⁻¹ u(x) + b, with ρ the action on
    the channels of u."""

    def __init__(
        self,
        matrices: Int[Tensor, "g 2 2"],
        in_channels: int,
        out_channels: int,
        vectors: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.free = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        _draw_weights(in_channels, self.free, self.bias)
        self.tabulate(action=representation(matrices, in_channels, vectors))

    def forward(self, u: Float[Tensor, "*shape i"]) -> Float[Tensor, "*shape o"]:
        """Map ``in_channels`` channels to ``out_channels · |G|``."""
        return F.linear(u, *self.weights())

    def build(self) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
        inverse = self.get_buffer("action").mT.to(self.free.dtype)
        weight = (self.free @ inverse).transpose(0, 1).flatten(0, 1)
        return weight, self.bias.repeat_interleave(len(inverse))


class Projection(BuiltLayer):
    """A map from a field on the group to one on space, u(x) = Σ_g ρ(g) A v(x, g) + b, with ρ the action on
    the channels of u; only channels that do not turn have a bias."""

    def __init__(
        self,
        matrices: Int[Tensor, "g 2 2"],
        in_channels: int,
        out_channels: int,
        vectors: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        components = {i for pair in vectors for i in pair}
        still = [i for i in range(out_channels) if i not in components]
        self.free = nn.Parameter(torch.empty(out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(len(still)))
        _draw_weights(in_channels * len(matrices), self.free, self.bias)
        self.tabulate(
            action=representation(matrices, out_channels, vectors),
            still=torch.eye(out_channels, device=matrices.device)[:, still],
        )

    def forward(self, v: Float[Tensor, "*shape i"]) -> Float[Tensor, "*shape o"]:
        """Map ``in_channels · |G|`` channels to ``out_channels``."""
        return F.linear(v, *self.weights())

    def build(self) -> tuple[Float[Tensor, "o i"], Float[Tensor, " o"]]:
        action = self.get_buffer("action").to(self.free.dtype)
        weight = (action @ self.free).permute(1, 2, 0).flatten(1, 2)
        return weight, self.get_buffer("still").to(self.bias.dtype) @ self.bias


def _draw_weights(fan_in: int, *parameters: Float[Tensor, " ..."]) -> None:
    """Draw Kaiming-uniform weights with a = √5, between ±1/√fan_in."""
    for parameter in parameters:
        nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))
