"""Engine in torch: all state on one device, one transfer each way per call.

It has the interface of the compiled engine, and also runs on the CPU, where the tests use it without a GPU. A row's
bits do not depend on its batch (`model/engine/torch_ops.py`); the two engines differ by about 1e-6.
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

from model.config import PROPAGATED_SCALE, TYPES, USER, ModelConfig
from model.engine.cpu import GraphView
from model.engine.torch_ops import Product, Transfers, attend, elu, full_precision, pairwise_sum
from model.engine.torch_windows import DeviceWindows
from model.engine.weights import LayerWeights, Weights, contiguous
from model.types import PARTNER, SUMS, Float32s, Int64s, OwnInputs, Population

log = logging.getLogger(__name__)


class DeviceRows:
    """Rows of a tensor on the device, read and written like a NumPy array; reading copies."""

    def __init__(self, values: Tensor) -> None:
        self.values = values

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Float32s:
        values: Float32s = self.values[self._index(rows)].cpu().numpy()
        return values.copy() if self.values.device.type == "cpu" else values

    def __setitem__(self, rows: Any, values: Any) -> None:
        with torch.no_grad():
            self.values[self._index(rows)] = torch.as_tensor(values, dtype=self.values.dtype).to(self.values.device)

    def _index(self, rows: Any) -> Any:
        if isinstance(rows, int | slice):
            return rows
        index = np.asarray(rows)
        return torch.as_tensor(index if index.size else index.astype(np.int64)).to(self.values.device)


class _Layer:
    """Weights of one layer on the device, and the projections of its sources.

    Attributes:
        towards: Per node type of targets, x → `[n, (1 + relations) · hidden]`: the root's output, then each relation's.
        onwards: Per node type of sources, x → `[n, relations · hidden]`.
        projected: Projections `[rows, hidden]`, one relation after the other.
    """

    def __init__(self, weights: LayerWeights, device: torch.device, dtype: torch.dtype) -> None:
        self.relations = weights.relations
        self.order = [relation for relations in weights.relations.values() for relation in relations]
        self.reading = weights.reading
        self.towards, self.attention = {}, {}
        for kind, relations in weights.relations.items():
            pairs = [weights.root[kind], *(relation.target for relation in relations)]
            self.towards[kind] = _side_by_side(pairs, device, dtype)
            attention = torch.from_numpy(np.stack([relation.attention for relation in relations]))
            self.attention[kind] = attention.to(device, dtype)
        self.onwards = {
            kind: _side_by_side([relation.project for relation in relations], device, dtype)
            for kind, relations in enumerate(self.reading)
            if relations
        }
        self.width = len(weights.root[next(iter(weights.root))][1])
        self.projected = torch.zeros((0, self.width), device=device)
        self._base = dict.fromkeys((relation.number for relation in self.order), 0)
        self._sizes = dict(self._base)
        self._device = device
        self._upload_bases()

    def _upload_bases(self) -> None:
        """Upload the first row of each relation in `projected`."""
        self.source_base = {kind: self._bases(relations) for kind, relations in self.relations.items()}
        self.reading_base = {kind: self._bases(relations) for kind, relations in enumerate(self.reading)}

    def _bases(self, relations: Sequence[Any]) -> Tensor:
        return torch.tensor([self._base[relation.number] for relation in relations], device=self._device)

    def ensure_capacity(self, capacity: Sequence[int]) -> None:
        """Grow `projected` to hold the sources of each relation."""
        sizes = {relation.number: capacity[relation.source] for relation in self.order}
        if sizes == self._sizes:
            return
        grown, begin = self.projected.new_zeros(sum(sizes.values()), self.width), 0
        for number, size in sizes.items():
            old, had = self._base[number], self._sizes[number]
            grown[begin : begin + had] = self.projected[old : old + had]
            self._base[number], begin = begin, begin + size
        self.projected, self._sizes = grown, sizes
        self._upload_bases()


class TorchEngine:
    """Embeddings and scores of one graph on a device, updated row by row; see `model.engine.cpu.Backend`."""

    def __init__(self, config: ModelConfig, weights: Weights, device: str = "cpu") -> None:
        self.config = config
        self.device = device
        self._on = torch.device(device)
        self._transfers = Transfers(self._on)
        self._user = TYPES.index(USER)
        self.capacity = [0 for _ in TYPES]
        weights = contiguous(weights)
        targets = tuple(range(len(TYPES))), (self._user,)
        # Float64: the second layer amplifies errors of the first, the more the more peaked its attention is.
        kinds = torch.float64, torch.float32
        self._layers = [
            _Layer(LayerWeights(number, weights, config, kinds_of_layer), self._on, kinds[number])
            for number, kinds_of_layer in enumerate(targets)
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
        self._out_bias = float(weights["head.out.bias"][0])
        self._skip = torch.from_numpy(weights["head.skip"].copy()).to(self._on)
        self._partner, self._columns = torch.from_numpy(PARTNER).to(self._on), torch.arange(len(PARTNER)).to(self._on)
        self.relate(OwnInputs.of(Population.of(np.zeros(SUMS, np.int64))))
        sizes = [len(config.propagated[name]) for name in TYPES]
        self.x = [DeviceRows(torch.zeros((0, size), device=self._on)) for size in sizes]
        self.hidden1 = [DeviceRows(torch.zeros((0, config.hidden), device=self._on)) for _ in TYPES]
        self.hidden2 = DeviceRows(torch.zeros((0, config.hidden), device=self._on))
        self.score: Float32s = np.zeros(0, np.float32)

    @property
    def memory_bytes(self) -> int:
        """Bytes of the state on the device."""
        held = [rows.values.nbytes for rows in (*self.x, *self.hidden1, self.hidden2)]
        held += [layer.projected.nbytes for layer in self._layers]
        return sum(held) + sum(windows.nbytes for windows in self._windows)

    def warm_up(self, graph: GraphView) -> None:
        """Check that the device's products do not depend on a row's position, and compile the code of the host."""
        with full_precision(self._on):
            for product in self._products():
                product.check()
        if self.in_order:
            log.warning("inexact_tiles_detected", extra={"device": self.device, "products": self.in_order})
        self.ensure_capacity(graph)
        none = np.zeros(0, np.int64)
        with full_precision(self._on):
            for kind, windows in enumerate(self._windows):
                views = self._views(graph, kind)
                windows.refresh(views, none)
                list(windows.groups(views, none, self._transfers.send(none)))

    def _products(self) -> list[Product]:
        layers = [
            product
            for layer in self._layers
            for by_kind in (layer.towards, layer.onwards)
            for product in by_kind.values()
        ]
        return [*layers, self._head]

    @property
    def in_order(self) -> int:
        """Number of products that are computed input by input, because `warm_up` found tiles that are not exact."""
        return sum(product.in_order for product in self._products())

    def ensure_capacity(self, graph: GraphView) -> None:
        """Grow the state to hold all rows of a graph."""
        for kind in range(len(TYPES)):
            rows = graph.rows(kind)
            if rows > self.capacity[kind]:
                size = self.capacity[kind] = max(256, rows + rows // 2)
                for held in (self.x[kind], self.hidden1[kind], *([self.hidden2] if kind == self._user else [])):
                    held.values = torch.cat(
                        [held.values, held.values.new_zeros(size - len(held), held.values.shape[1])]
                    )
                self._windows[kind].ensure_capacity(size)
                if kind == self._user:
                    self.score = np.concatenate([self.score, np.zeros(size - len(self.score), np.float32)])
        for layer in self._layers:
            layer.ensure_capacity(self.capacity)

    def load_features(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Load the propagated features of these rows per node type, and project them for their readers."""
        self.ensure_capacity(graph)
        with full_precision(self._on):
            for kind, rows_of_kind in enumerate(rows):
                if len(rows_of_kind):
                    x = self._transfers.send(graph.propagated(kind)[rows_of_kind]).float() * PROPAGATED_SCALE
                    sent = self._transfers.send(rows_of_kind)
                    self.x[kind].values.index_copy_(0, sent, x)
                    self._project(0, kind, sent, x)

    def init_rows(self, graph: GraphView, rows: list[Int64s]) -> None:
        """Reset rows that are new or reused: load their features, and project an all-zero output."""
        self.load_features(graph, rows)
        for kind, rows_of_kind in enumerate(rows):
            self.mirror(kind, rows_of_kind, np.zeros((len(rows_of_kind), self.config.hidden), np.float32))

    def relate(self, inputs: OwnInputs) -> None:
        """Compute later scores from these inputs of own features."""
        self._gain = torch.from_numpy(inputs.gain).to(self._on)
        self._table = torch.from_numpy(inputs.table).to(self._on)

    def mirror(self, kind: int, rows: Int64s, hidden: Float32s) -> None:
        """Store first-layer outputs `[len(rows), hidden]` that another shard computed, and project them."""
        if len(rows):
            with full_precision(self._on):
                sent, values = self._transfers.send(rows), self._transfers.send(hidden)
                self.hidden1[kind].values.index_copy_(0, sent, values)
                self._project(1, kind, sent, values)

    def layer1(self, graph: GraphView, rows: list[Int64s], tolerance: float = 0.0) -> list[Int64s]:
        """Recompute the first layer of these rows per node type.

        Returns:
            The rows whose output moved by more than the tolerance in any number; the others keep their output.
        """
        self.ensure_capacity(graph)
        with full_precision(self._on):
            changed = []
            for kind, rows_of_kind in enumerate(rows):
                if len(rows_of_kind):
                    self._windows[kind].refresh(self._views(graph, kind), rows_of_kind)
                    sent = self._transfers.send(rows_of_kind)
                    new = self._layer(0, graph, kind, rows_of_kind, sent, self.x[kind].values)
                    moved, kept = _store_moved(self.hidden1[kind].values, sent, new, tolerance)
                    changed.append(moved)
                    # Projects unchanged rows too, which gives the same bits: the host need not wait for the flags.
                    self._project(1, kind, sent, kept)
            if not changed:
                return rows
            flags = np.split(
                self._transfers.fetch(torch.cat(changed)), np.cumsum([len(rows_of_kind) for rows_of_kind in rows])[:-1]
            )
        return [rows_of_kind[flag] for rows_of_kind, flag in zip(rows, flags, strict=True)]

    def layer2(self, graph: GraphView, rows: Int64s) -> Int64s:
        """Recompute the second layer of these users; return the users whose embedding changed."""
        if not len(rows):
            return rows
        with full_precision(self._on):
            sent = self._transfers.send(rows)
            new = self._layer(1, graph, self._user, rows, sent, self.hidden1[self._user].values)
            moved, _ = _store_moved(self.hidden2.values, sent, new)
            changed: Int64s = rows[self._transfers.fetch(moved)]
        return changed

    def head(self, graph: GraphView, rows: Int64s) -> None:
        """Recompute the scores of these users."""
        if not len(rows):
            return
        with full_precision(self._on):
            buckets = self._transfers.send(graph.own()[rows]).long()
            entries = self._table[self._columns, buckets.index_select(1, self._partner)]
            own = buckets.float() * self._gain + entries
            embedding = self.hidden2.values.index_select(0, self._transfers.send(rows))
            inner = functional.relu(self._head(torch.cat([embedding, own], 1)))
            z = pairwise_sum(inner * self._out, 1) + self._out_bias + pairwise_sum(own * self._skip, 1)
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
        """Return one layer's outputs `[n, hidden]`: the root's output plus the messages of each relation in turn."""
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
            messages.index_copy_(0, group.number[: group.windows].long(), message[: group.windows])
        out = towards[:, 0]
        for relation in range(relations):
            out = out + messages.view(len(rows), relations, width)[:, relation]
        return elu(out).float()


def _store_moved(old: Tensor, rows: Tensor, new: Tensor, tolerance: float = 0.0) -> tuple[Tensor, Tensor]:
    """Store new values `[n, hidden]` in the rows where any number moves by more than the tolerance.

    Returns:
        Which rows moved `[n]`, and the values that the rows hold now `[n, hidden]`.
    """
    before = old.index_select(0, rows)
    moved = new != before
    if tolerance:
        # A NaN counts as moved.
        moved &= ~((new - before).abs() <= tolerance)
    changed = moved.any(1)
    if tolerance:
        new = torch.where(changed[:, None], new, before)
    old.index_copy_(0, rows, new)
    return changed, new


def _side_by_side(
    pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]], device: torch.device, dtype: torch.dtype
) -> Product:
    """Concatenate products of the same input into one."""
    weights, biases = zip(*pairs, strict=True)
    return Product(np.concatenate(weights, 1), np.concatenate(biases), device, dtype)
