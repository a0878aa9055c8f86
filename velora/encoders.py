"""The frozen towers and the adapters of the streams: what turns images to tokens.

Usually one tower serves all streams, and all models of this process that have the same backbone. A converted checkpoint
or a fully trained one brings towers of its own, one for all streams or one for each.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from velora.adapter import FUSION, Adapter, Route, adapted_layers
from velora.backbones import backbone
from velora.clora import CLoRA, clora_shapes
from velora.config import STREAMS, VELoRAConfig
from velora.lora import PeftLoRA, StackedLoRA, insert_lora, lora_shapes
from velora.prepared import PreparedLast, PreparedTower
from velora.vit import LastBlock, Tower, VisionTower


class Encoders(nn.Module):
    """Towers and adapters."""

    def __init__(
        self, config: VELoRAConfig, towers: Mapping[str, VisionTower], adapters: Mapping[str, Adapter]
    ) -> None:
        """`towers` by stream, any of which may be the same; `adapters` by "streams" and "fusion", where there are any.

        The tower of "rgb" is there always.
        """
        super().__init__()
        self.streams = config.streams
        self.tower = towers["rgb"]
        self.others = nn.ModuleDict({s: t for s, t in towers.items() if t is not self.tower})
        self.adapters = nn.ModuleDict(dict(adapters))
        self._prepared: dict[VisionTower, PreparedTower] = {}
        self._prepared_last: PreparedLast | None = None
        self._last = config.preset == "released"  # whether images pass the last block too

    def prepare(self, ready: bool = True) -> None:
        """Make encoding without gradients faster, for weights that stay as and where they are; or plain again."""
        adapter = cast("Adapter | None", dict(self.adapters.items()).get("streams"))
        towers = [self.tower, *(self.tower_of(stream) for stream in self.others)] if ready else []
        self._prepared = {tower: PreparedTower(tower, adapter, last=self._last) for tower in towers}
        fusion = cast("Adapter | None", dict(self.adapters.items()).get(FUSION)) if ready else None
        self._prepared_last = PreparedLast(self.tower, fusion) if fusion is not None else None

    def each_adapter(self) -> list[Adapter]:
        """All adapters."""
        return cast("list[Adapter]", list(self.adapters.values()))

    def tower_of(self, stream: str) -> VisionTower:
        """The tower that encodes a stream."""
        return cast(VisionTower, self.others[stream]) if stream in self.others else self.tower

    def route(self, streams: Tensor) -> Route | None:
        """How images of these streams [n] pass the encoders' blocks; None where no adapter is."""
        return self._route("streams", streams)

    def route_to(self, stream: str, count: int) -> Route | None:
        """The same for `count` images of one stream."""
        return self.route(torch.full((count,), STREAMS.index(stream), device=self.tower.device))

    def route_fusion(self, count: int) -> Route | None:
        """How `count` sequences pass the last block where the streams meet there."""
        return self._route(FUSION, torch.zeros(count, dtype=torch.int64, device=self.tower.device))

    def _route(self, name: str, streams: Tensor) -> Route | None:
        return Route(cast(Adapter, self.adapters[name]), streams) if name in self.adapters else None

    def encode(
        self, images: Tensor, streams: Tensor, through: Callable[[Tower, Tensor, Route | None], Tensor]
    ) -> Tensor:
        """What `through` makes of images and route: in one call, or in one call a stream where each has its tower."""
        if not self.others:
            return through(self._fast(self.tower), images, self.route(streams))
        places = [(streams == i).nonzero()[:, 0] for i in range(len(self.streams))]
        codes = [
            through(self._fast(self.tower_of(stream)), images[own], self.route(streams[own]))
            for stream, own in zip(self.streams, places, strict=True)
            if len(own)
        ]
        return torch.cat(codes)[torch.argsort(torch.cat(places))]

    def last_block(self) -> LastBlock:
        """The last block of the RGB images' tower, in which the streams meet."""
        if self._prepared_last is None or torch.is_grad_enabled():
            return self.tower.blocks[-1]
        return self._prepared_last

    def _fast(self, tower: VisionTower) -> Tower:
        return tower if torch.is_grad_enabled() else self._prepared.get(tower, tower)


def blocks_of(config: VELoRAConfig) -> dict[str, range]:
    """Which blocks each stream's adapter changes, and which the fusion's."""
    if config.adapter not in ("lora", "clora"):
        return {}
    layers = backbone(config.backbone).layers
    if config.preset == "released":
        return dict.fromkeys(config.streams, range(layers))
    return {**dict.fromkeys(config.streams, range(layers - 1)), FUSION: range(layers - 1, layers)}


def fresh_encoders(config: VELoRAConfig, towers: Mapping[str, VisionTower]) -> Encoders:
    """Encoders to train, around bare towers; PEFT puts its layers into that of "rgb", which is given always."""
    towers = dict(towers)
    if config.own_towers == len(STREAMS):
        towers = {stream: towers.get(stream) or copy.deepcopy(towers["rgb"]) for stream in config.streams}
    for tower in towers.values():
        tower.requires_grad_(config.adapter == "full")
        if config.preset == "paper":
            tower.proj.requires_grad_(False)  # takes no part
    return Encoders(config, towers, _fresh_adapters(config, towers["rgb"]))


def bare_state(tower: VisionTower) -> dict[str, Tensor]:
    """A tower's own tensors, whether PEFT has put layers into it or not."""
    return {
        name.replace(".base_layer", ""): tensor for name, tensor in tower.state_dict().items() if ".lora_" not in name
    }


def _fresh_adapters(config: VELoRAConfig, tower: VisionTower) -> dict[str, Adapter]:
    adapters: dict[str, Adapter] = {}
    blocks = blocks_of(config)
    if config.adapter == "clora":
        streams, layers = _places(config)["streams"]
        adapters["streams"] = CLoRA(streams, layers, config)
        blocks = {name: own for name, own in blocks.items() if name == FUSION}
    if blocks:
        insert_lora(tower, blocks, config)
    for name, (streams, layers) in _places(config).items():
        if name not in adapters:
            adapters[name] = PeftLoRA(tower, streams, layers, config)
    return adapters


def saved_encoders(config: VELoRAConfig, towers: Mapping[str, VisionTower], tensors: Mapping[str, Tensor]) -> Encoders:
    """Encoders for inference: the adapters of a checkpoint's tensors, around bare towers that stay as they are."""
    adapters: dict[str, Adapter] = {}
    for name, (streams, layers) in _places(config).items():
        if name == "streams" and config.adapter == "clora":
            adapters[name] = clora = CLoRA(streams, layers, config)
            clora.load(tensors)
        else:
            adapters[name] = StackedLoRA(tensors, streams, layers, config)
    return Encoders(config, towers, adapters)


def adapter_shapes(config: VELoRAConfig) -> dict[str, tuple[int, ...]]:
    """Key and shape of the adapters' tensors in a checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (streams, layers) in _places(config).items():
        of = clora_shapes if name == "streams" and config.adapter == "clora" else lora_shapes
        shapes |= of(config, streams, layers)
    return shapes


def _places(config: VELoRAConfig) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """The streams and the layers of each adapter."""
    vit, blocks = backbone(config.backbone), blocks_of(config)
    places = {}
    if streams := tuple(stream for stream in blocks if stream != FUSION):
        places["streams"] = streams, adapted_layers(vit, blocks[streams[0]])
    if FUSION in blocks:
        places[FUSION] = (FUSION,), adapted_layers(vit, blocks[FUSION])
    return places
