"""Gradients of time steps by their adjoint: one state is kept of some steps, and the others are made again.

Torch would record every operation of every stage. Here the transpose of a stage is written down; it asks
the nonlinear term for one thing, the transpose of its derivative.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Inexact
from torch import Tensor

from sobolev.solvers.integrators import ExponentialStep, Nonlinear, Parts, Stepper

STEPS = 8
"""Steps of which one state is kept, where a solver has no reason for another number."""

Modes = Inexact[Tensor, "*modes"]
Gradients = tuple[Inexact[Tensor, " ..."] | None, ...]
"""One for each tensor, None where none is wanted."""


@runtime_checkable
class Term(Protocol):
    """A nonlinear term N with the transpose of its derivative.

    Attributes:
        parameters: tensors that N depends on beside the modes, and that may want gradients.
    """

    parameters: tuple[Inexact[Tensor, " ..."], ...]

    def __call__(self, v: Modes) -> Modes:
        """Return N(v)."""

    def pullback(self, v: Modes, cotangent: Modes) -> tuple[Modes, *Gradients]:
        """Return the gradients of ⟨cotangent, N(v)⟩ in ``v`` and in each parameter; the latter may have more
        axes or longer ones, over which they are to be summed."""


class ByAutograd:
    """A term that torch differentiates.

    Args:
        term: N.
        parameters: tensors that it reads.
    """

    def __init__(self, term: Nonlinear, parameters: Iterable[Inexact[Tensor, " ..."]] = ()) -> None:
        self.term = term
        # a tensor in two places is one
        self.parameters = tuple({id(p): p for p in parameters if p.requires_grad}.values())

    @classmethod
    def reading(cls, term: Nonlinear, holder: object, v: Modes) -> ByAutograd:
        """Return a term with all tensors that it reads: attributes of ``holder``, and those that the graph
        of its value at ``v`` leads to, like the weights of a network."""
        held = [h for h in vars(holder).values() if isinstance(h, Tensor) and h.requires_grad]
        if not torch.is_grad_enabled():
            return cls(term, held)
        value = term(v.detach())
        return cls(term, [*held, *_leaves(value, held)])

    def __call__(self, v: Modes) -> Modes:
        return self.term(v)

    def pullback(self, v: Modes, cotangent: Modes) -> tuple[Modes, *Gradients]:
        with torch.enable_grad():
            v = v.detach().requires_grad_()
            value = self.term(v)
        if not value.requires_grad:
            return torch.zeros_like(v), *(None for _ in self.parameters)
        found, *others = torch.autograd.grad(
            value, (v, *self.parameters), cotangent, allow_unused=True,
            retain_graph=True,  # what leads from a leaf to the term is passed at every stage
        )  # fmt: skip
        return torch.zeros_like(v) if found is None else found, *others


def advanced(stepper: ExponentialStep, v: Modes, count: int) -> Modes:
    """Return the modes after some steps of a stepper whose N is a ``Term``.

    Where gradients are wanted, ``v`` alone is kept for them. Gradients have gradients again, for which torch
    records the steps.
    """
    if wants_gradients(stepper, v):
        return _Steps.apply(stepper, count, *_read(stepper, v))
    return stepped(stepper, v, count)


def wants_gradients(stepper: Stepper, v: Modes) -> bool:
    """Return whether steps from ``v`` are to be differentiated in anything that they depend on."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in _read(stepper, v))


def _read(stepper: Stepper, v: Modes) -> tuple[Inexact[Tensor, " ..."], ...]:
    """Return the tensors that steps from ``v`` depend on."""
    return (v, *stepper.coefficients, *_term(stepper).parameters)


def _term(stepper: Stepper) -> Term:
    return cast(Term, stepper.N)


def stepped(stepper: Stepper, v: Modes, count: int) -> Modes:
    """Return the modes after some steps."""
    for _ in range(count):
        v = stepper.step(v)
    return v


class _Steps(torch.autograd.Function):
    """Some steps as one node of the graph, a function of the modes, the coefficients and N's parameters."""

    @staticmethod
    def forward(
        stepper: ExponentialStep, count: int, v: Modes, *rest: Inexact[Tensor, " ..."]
    ) -> Modes:
        return stepped(stepper, v, count)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Modes) -> None:
        ctx.stepper, ctx.count, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, cotangent: Modes) -> Gradients:
        wanted = ctx.needs_input_grad[2:]
        v = ctx.saved_tensors[0]
        if torch.is_grad_enabled():  # the gradient will be differentiated
            inputs = [t for t, w in zip(ctx.saved_tensors, wanted, strict=True) if w]
            end = stepped(ctx.stepper, v, ctx.count)
            found = iter(
                torch.autograd.grad(end, inputs, cotangent, create_graph=True, allow_unused=True)
            )
            return None, None, *(next(found) if w else None for w in wanted)
        adjoint = _Adjoint(ctx.stepper, wanted[1:])
        return None, None, adjoint.gradient(v, ctx.count, cotangent), *adjoint.totals()


class _Adjoint:
    """The transpose of steps, and the sums over them of gradients in coefficients and N's parameters."""

    def __init__(self, stepper: ExponentialStep, wanted: tuple[bool, ...]) -> None:
        self.stepper = stepper
        self.term = _term(stepper)
        self.coefficients = [stepper.adjoint(c) for c in stepper.coefficients]
        self.twice_Q = 2 * self.coefficients[2]
        self._of_coefficients = any(wanted[: len(self.coefficients)])
        self._totals: list[Inexact[Tensor, " ..."] | None] = [None] * len(wanted)

    def gradient(self, v: Modes, count: int, cotangent: Modes) -> Modes:
        """Return the gradient in ``v`` of ⟨cotangent, v after some steps⟩."""
        stepper, made = self.stepper, []
        u = stepper.parts(v)
        for number in range(count):
            states, values = stepper.stages(u)
            if self._of_coefficients or number < count - 1:
                values = (*values, stepper.right_side(states[-1]))
                u = stepper.end(u, values)
            made.append((states, values if self._of_coefficients else None))
        w = stepper.parts(cotangent.resolve_conj())
        while made:
            w = self._step(*made.pop(), w)
        return stepper.whole(w)

    def totals(self) -> Gradients:
        """Return the gradients in the coefficients and in N's parameters."""
        tensors = (*self.stepper.coefficients, *self.term.parameters)
        summed = zip(self._totals, tensors, strict=True)
        return tuple(None if total is None else _like(total, tensor) for total, tensor in summed)

    def _step(self, states: tuple[Parts, ...], values: tuple[Parts, ...] | None, w: Parts) -> Parts:
        """Return the transpose of one step, applied to ``w``; its names are those of the stages, whose
        gradients they are."""
        E, E2, Q, f1, f2, f3 = self.coefficients
        stepper = self.stepper
        v, a, b, c = states
        gc = self._pulled_back(c, stepper.times(f3, w))
        half = stepper.times(f2, w)
        gb = self._pulled_back(b, stepper.plus(half, self.twice_Q, gc))
        ga = self._pulled_back(a, stepper.plus_(half, Q, gb))
        ga = stepper.plus_(ga, E2, gc)
        ends, starts = ga - gc, ga + gb
        gv = self._pulled_back(v, stepper.plus_(stepper.times(f1, w), Q, ends))
        if values is not None:
            Nv, Na, Nb, Nc = values
            pairs = (
                ((v, w),),
                ((v, starts), (a, gc)),
                ((Nv, ends), (Na, gb), (Nb, 2 * gc)),
                ((Nv, w),),
                ((Na + Nb, w),),
                ((Nc, w),),
            )
            for number, products in enumerate(pairs):
                for x, y in products:
                    total = self._totals[number]
                    self._totals[number] = stepper.plus_outer_(total, x, y)
        return stepper.plus_(stepper.plus_(gv, E, w), E2, starts)

    def _pulled_back(self, state: Parts, w: Parts) -> Parts:
        """Return the transpose of N's derivative at a state, and count its parameters' gradients."""
        stepper = self.stepper
        found, *others = self.term.pullback(stepper.whole(state), stepper.whole(w))
        for number, more in enumerate(others, len(self.coefficients)):
            if more is not None:
                total = self._totals[number]
                self._totals[number] = more if total is None else total + more
        return stepper.parts(found)


def _like(
    total: Inexact[Tensor, " ..."], tensor: Inexact[Tensor, " ..."]
) -> Inexact[Tensor, " ..."]:
    """Return the gradient in a tensor, summed over what it was the same for."""
    total = total.sum_to_size(tensor.shape)
    return total if tensor.is_complex() or not total.is_complex() else total.real


def _leaves(value: Modes, known: list[Inexact[Tensor, " ..."]]) -> list[Inexact[Tensor, " ..."]]:
    """Return the leaves that the graph of a value leads to, other than by way of the ``known`` tensors."""
    passed = {p.grad_fn for p in known}
    found, ahead = [], [value.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in passed:
            continue
        passed.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and not any(leaf is p for p in known):
            found.append(leaf)
        ahead += [following for following, _ in node.next_functions]
    return found
