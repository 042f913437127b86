"""The engine's second backend, in plain torch: all state on one device, one transfer there and one back per call.

It has the interface of the compiled engine, and runs on the CPU as well, which is how it is tested where there is no
GPU. A row's bits do not depend on its batch (`model/engine_tensors.py`); the two backends differ by about 1e-6.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from model.config import OWN_SCALE, PROPAGATED_SCALE, TYPES, USER, ModelConfig
from model.engine import GraphView
from model.engine_tensors import Product, Transfers, attend, elu, halved, precisely
from model.engine_weights import LayerWeights, Weights, contiguous
from model.engine_windows import DeviceWindows
from model.types import Float32s, Int64s

log = logging.getLogger(__name__)


class DeviceRows:
    """Rows of a tensor on the device, read and written as if they were a NumPy array; what is read is a copy."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Float32s:
        found: Float32s = self.values[self._place(rows)].cpu().numpy()
        return found.copy() if self.values.device.type == "cpu" else found

    def __setitem__(self, rows: Any, values: Any) -> None:
        with torch.no_grad():
            self.values[self._place(rows)] = torch.as_tensor(values, dtype=self.values.dtype).to(self.values.device)

    def _place(self, rows: Any) -> Any:
        if isinstance(rows, int | slice):
            return rows
        place = np.asarray(rows)
        return torch.as_tensor(place if place.size else place.astype(np.int64)).to(self.values.device)


class _Layer:
    """One layer's weights on the device, and what its sources were projected to.

    towards: per type of targets x → `[n, (1 + relations) · H]`, the root's and each relation's. onwards: per type of
    sources → `[n, relations · H]`. projected: `[rows, H]`, relation after relation; base: where each begins.
    """

    def __init__(self, weights: LayerWeights, device: torch.device, dtype: torch.dtype) -> None:
        self.relations = weights.relations
        self.order = [relation for some in weights.relations.values() for relation in some]
        self.reading = weights.reading
        self.towards, self.attention = {}, {}
        for kind, some in weights.relations.items():
            pairs = [weights.root[kind], *(relation.target for relation in some)]
            self.towards[kind] = _side_by_side(pairs, device, dtype)
            attention = torch.from_numpy(np.stack([relation.attention for relation in some]))
            self.attention[kind] = attention.to(device, dtype)
        self.onwards = {
            kind: _side_by_side([relation.project for relation in some], device, dtype)
            for kind, some in enumerate(self.reading)
            if some
        }
        self.width = len(weights.root[next(iter(weights.root))][1])
        self.projected = torch.zeros((0, self.width), device=device)
        self._base = dict.fromkeys((relation.number for relation in self.order), 0)
        self._sizes = dict(self._base)
        self._device = device
        self._place()

    def _place(self) -> None:
        """Tell the device where the sources of each relation are."""
        self.source_base = {kind: self._bases(some) for kind, some in self.relations.items()}
        self.reading_base = {kind: self._bases(some) for kind, some in enumerate(self.reading)}

    def _bases(self, relations: Sequence[Any]) -> Tensor:
        return torch.tensor([self._base[relation.number] for relation in relations], device=self._device)

    def reach(self, capacity: Sequence[int]) -> None:
        """Make room for the sources of each relation."""
        sizes = {relation.number: capacity[relation.source] for relation in self.order}
        if sizes == self._sizes:
            return
        grown, at = self.projected.new_zeros(sum(sizes.values()), self.width), 0
        for number, size in sizes.items():
            old, had = self._base[number], self._sizes[number]
            grown[at : at + had] = self.projected[old : old + had]
            self._base[number], at = at, at + size
        self.projected, self._sizes = grown, sizes
        self._place()


class TorchEngine:
    """Embeddings and scores of one graph, kept up to date row by row; see `model.engine.Backend`."""

    def __init__(self, config: ModelConfig, weights: Weights, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self._on = torch.device(device)
        self._transfers = Transfers(self._on)
        self._user = TYPES.index(USER)
        self.capacity = [0 for _ in TYPES]
        weights = contiguous(weights)
        targets = tuple(range(len(TYPES))), (self._user,)
        # What is wrong with the first layer is multiplied by the second, and the more peaked its attention is.
        kinds = torch.float64, torch.float32
        self._layers = [
            _Layer(LayerWeights(at, weights, config, some), self._on, kinds[at]) for at, some in enumerate(targets)
        ]
        first = self._layers[0].relations
        self._windows = [
            DeviceWindows([relation.number for relation in first[kind]], config.window, config.hidden, self._transfers)
            for kind in range(len(TYPES))
        ]
        self._head = Product(
            np.ascontiguousarray(weights["head.hidden.weight"].T), weights["head.hidden.bias"], self._on
        )
        self._out = torch.from_numpy(weights["head.out.weight"][0].copy()).to(self._on)
        self._out_bias, self._skip = float(weights["head.out.bias"][0]), float(weights["head.skip"][0])
        self._scale = torch.from_numpy(OWN_SCALE.copy()).to(self._on)
        sizes = [len(config.propagated[name]) for name in TYPES]
        self.x = [DeviceRows(torch.zeros((0, size), device=self._on)) for size in sizes]
        self.hidden1 = [DeviceRows(torch.zeros((0, config.hidden), device=self._on)) for _ in TYPES]
        self.hidden2 = DeviceRows(torch.zeros((0, config.hidden), device=self._on))
        self.score: Float32s = np.zeros(0, np.float32)

    @property
    def memory_bytes(self) -> int:
        """Bytes that the state takes on the device."""
        held = [rows.values.nbytes for rows in (*self.x, *self.hidden1, self.hidden2)]
        held += [layer.projected.nbytes for layer in self._layers]
        return sum(held) + sum(windows.nbytes for windows in self._windows)

    def warm_up(self, graph: GraphView) -> None:
        """Try that the device's products do not depend on a row's place, and compile what the host does."""
        with precisely(self._on):
            for product in self._products():
                product.check()
        if self.in_order:
            log.warning("matrix products take the slower way", extra={"device": self.device, "products": self.in_order})
        self.reach(graph)
        none = np.zeros(0, np.int64)
        with precisely(self._on):
            for kind, windows in enumerate(self._windows):
                views = self._views(graph, kind)
                windows.refresh(views, none)
                list(windows.groups(views, none, self._transfers.send(none)))

    def _products(self) -> list[Product]:
        layers = [
            product for layer in self._layers for some in (layer.towards, layer.onwards) for product in some.values()
        ]
        return [*layers, self._head]

    @property
    def in_order(self) -> int:
        """Of how many products the device's tiles did not keep what they promise, since `warm_up`."""
        return sum(product.in_order for product in self._products())

    def reach(self, graph: GraphView) -> None:
        """Make room for all rows of a graph."""
        for kind in range(len(TYPES)):
            rows = graph.rows(kind)
            if rows > self.capacity[kind]:
                size = self.capacity[kind] = max(256, rows + rows // 2)
                for held in (self.x[kind], self.hidden1[kind], *([self.hidden2] if kind == self._user else [])):
                    held.values = torch.cat(
                        [held.values, held.values.new_zeros(size - len(held), held.values.shape[1])]
                    )
                self._windows[kind].reach(size)
                if kind == self._user:
                    self.score = np.concatenate([self.score, np.zeros(size - len(self.score), np.float32)])
        for layer in self._layers:
            layer.reach(self.capacity)

    def take(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Read the propagated features of these rows per node type, and project them for their readers."""
        self.reach(graph)
        with precisely(self._on):
            for kind, some in enumerate(rows):
                if len(some):
                    x = self._transfers.send(graph.propagated(kind)[some]).float() * PROPAGATED_SCALE
                    sent = self._transfers.send(some)
                    self.x[kind].values.index_copy_(0, sent, x)
                    self._project(0, kind, sent, x)

    def fresh(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Prepare rows that are new or reused: what their projections say of an all-zero output."""
        self.take(graph, rows)
        for kind, some in enumerate(rows):
            self.mirror(kind, some, np.zeros((len(some), self.config.hidden), np.float32))

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Take first-layer outputs that were computed elsewhere, `[len(rows), H]`, for the second layer to read."""
        if len(rows):
            with precisely(self._on):
                sent, values = self._transfers.send(rows), self._transfers.send(hidden)
                self.hidden1[kind].values.index_copy_(0, sent, values)
                self._project(1, kind, sent, values)

    def first(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows per node type; returns those whose output changed by more than the
        tolerance, the others keep what they had.
        """
        self.reach(graph)
        with precisely(self._on):
            changed = []
            for kind, some in enumerate(rows):
                if len(some):
                    self._windows[kind].refresh(self._views(graph, kind), some)
                    sent = self._transfers.send(some)
                    new = self._layer(0, graph, kind, some, sent, self.x[kind].values)
                    moved, kept = _settle(self.hidden1[kind].values, sent, new, tolerance)
                    changed.append(moved)
                    # Also where nothing changed, for then it stays as it was: so nothing waits for the comparison.
                    self._project(1, kind, sent, kept)
            if not changed:
                return rows
            flags = np.split(self._transfers.fetch(torch.cat(changed)), np.cumsum([len(some) for some in rows])[:-1])
        return [some[flag] for some, flag in zip(rows, flags, strict=True)]

    def second(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users; returns those whose embedding changed."""
        if not len(rows):
            return rows
        with precisely(self._on):
            sent = self._transfers.send(rows)
            new = self._layer(1, graph, self._user, rows, sent, self.hidden1[self._user].values)
            moved, _ = _settle(self.hidden2.values, sent, new)
            changed: Int64s = rows[self._transfers.fetch(moved)]
        return changed

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        if not len(rows):
            return
        with precisely(self._on):
            own = self._transfers.send(graph.own()[rows]).float() * self._scale
            embedding = self.hidden2.values.index_select(0, self._transfers.send(rows))
            inner = functional.relu(self._head(torch.cat([embedding, own], 1)))
            z = halved(inner * self._out, 1) + self._out_bias + own[:, 0] * self._skip
            self.score[rows] = self._transfers.fetch(z * self.config.target_std + self.config.target_mean)

    def _views(self, graph: GraphView, kind: int) -> list[Any]:
        return [graph.windows(number) for number in self._windows[kind].relations]

    def _project(self, number: int, kind: int, rows: Tensor, x: Tensor) -> None:
        """Project inputs `[n, F]` of these rows for the relations that read them."""
        layer = self._layers[number]
        if kind in layer.onwards:
            places = (rows[:, None] + layer.reading_base[kind]).view(-1)
            layer.projected.index_copy_(0, places, layer.onwards[kind](x).float().reshape(-1, layer.width))

    def _layer(self, number: int, graph: GraphView, kind: int, rows: Int64s, sent: Tensor, x: Tensor) -> Tensor:
        """One layer's outputs `[n, H]`: the root's, and what comes from each relation in turn."""
        layer, width = self._layers[number], self.config.hidden
        attention, base = layer.attention[kind], layer.source_base[kind].to(torch.int32)
        towards = layer.towards[kind](x.index_select(0, sent)).reshape(len(rows), -1, width)
        relations = len(attention)
        messages = towards.new_zeros(len(rows) * relations, width)
        targets = towards[:, 1:].reshape(-1, width)
        for group in self._windows[kind].groups(self._views(graph, kind), rows, sent):
            sources = group.sources + base.index_select(0, group.relation)[:, None]
            message = attend(
                layer.projected, sources, group.degrees, targets.index_select(0, group.number),
                attention.index_select(0, group.relation),
            )  # fmt: skip
            messages.index_copy_(0, group.number[: group.meant].long(), message[: group.meant])
        out = towards[:, 0]
        for relation in range(relations):
            out = out + messages.view(len(rows), relations, width)[:, relation]
        return elu(out).float()


def _settle(old: Tensor, rows: Tensor, new: Tensor, tolerance: float = 0.0) -> tuple[Tensor, Tensor]:
    """Put new values `[n, H]` into those of these rows that they move by more than the tolerance, in any number.

    Returns which rows that is, `[n]`, and what the rows hold now, `[n, H]`.
    """
    before = old.index_select(0, rows)
    moved = new != before
    if tolerance:
        # What is no number counts as moved.
        moved &= ~((new - before).abs() <= tolerance)
    changed = moved.any(1)
    if tolerance:
        new = torch.where(changed[:, None], new, before)
    old.index_copy_(0, rows, new)
    return changed, new


def _side_by_side(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], device: torch.device, dtype: torch.dtype
) -> Product:
    """Products of the same input as one."""
    weights, biases = zip(*pairs, strict=True)
    return Product(np.concatenate(weights, 1), np.concatenate(biases), device, dtype)
