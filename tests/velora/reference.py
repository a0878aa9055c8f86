"""VELoRA once more, slowly: one image, one head, one sample at a time, straight from the specification.

It shares no code with the package. Weights are plain dictionaries, named as the authors' files and open_clip name them;
everything is computed in the dtype of the images, float64 in the tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
Lora = Callable[[str, Tensor], Tensor]  # the name of a layer and its input, to what LoRA adds to its output


def layer_norm(x: Tensor, weight: Tensor | float, bias: Tensor | float, eps: float) -> Tensor:
    mean = x.mean(dim=-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + eps) * weight + bias


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    return layer_norm(x, w[f"{name}.weight"], w[f"{name}.bias"], eps)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def gelu(x: Tensor) -> Tensor:
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


def attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Of one sequence: q, k, v [N, d], a head after the other."""
    size = q.shape[-1] // heads
    reads = []
    for h in range(heads):
        own = slice(h * size, (h + 1) * size)
        scores = q[:, own] @ k[:, own].T / math.sqrt(size)
        reads.append(torch.softmax(scores, dim=-1) @ v[:, own])
    return torch.cat(reads, dim=-1)


def clip_attention(x: Tensor, w: Weights, block: str, heads: int) -> Tensor:
    """Self-attention of a CLIP block over the rows of x [N, d], which are already normalised."""
    packed = x @ w[f"{block}.attn.in_proj_weight"].T + w[f"{block}.attn.in_proj_bias"]
    q, k, v = packed.chunk(3, dim=-1)
    return linear(attention(q, k, v, heads), w, f"{block}.attn.out_proj")


def clip_mlp(x: Tensor, w: Weights, block: str, lora: Lora) -> Tensor:
    hidden = linear(x, w, f"{block}.mlp.c_fc") + lora(f"{block}.mlp.c_fc", x)
    hidden = quick_gelu(hidden)
    return linear(hidden, w, f"{block}.mlp.c_proj") + lora(f"{block}.mlp.c_proj", hidden)


def clip_block(x: Tensor, w: Weights, block: str, heads: int, lora: Lora) -> Tensor:
    x = x + clip_attention(norm(x, w, f"{block}.ln_1", 1e-5), w, block, heads)
    return x + clip_mlp(norm(x, w, f"{block}.ln_2", 1e-5), w, block, lora)


def embed(image: Tensor, w: Weights) -> Tensor:
    """Tokens [N, d] of one image [3, H, W], after ln_pre: patches row by row, the class token in front."""
    kernel = w["conv1.weight"]  # [d, 3, p, p]
    p = kernel.shape[-1]
    tokens = [w["class_embedding"]]
    for top in range(0, image.shape[1], p):
        for left in range(0, image.shape[2], p):
            patch = image[:, top : top + p, left : left + p]
            tokens.append((kernel * patch).sum(dim=(1, 2, 3)))
    return norm(torch.stack(tokens) + w["positional_embedding"], w, "ln_pre", 1e-5)


def block_count(w: Weights) -> int:
    return 1 + max(int(name.split(".")[2]) for name in w if name.startswith("transformer.resblocks."))


def encode(image: Tensor, w: Weights, blocks: int, heads: int, lora: Lora) -> Tensor:
    x = embed(image, w)
    for i in range(blocks):
        x = clip_block(x, w, f"transformer.resblocks.{i}", heads, lora)
    return x


def differences(rgb: Tensor, event: Tensor) -> list[Tensor]:
    """The motion images of one window [T, 3, H, W]."""
    return [(rgb[j - 1] - rgb[j]).abs() + (event[j - 1] - event[j]).abs() for j in range(1, len(rgb))]


def mse(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return ((torch.stack(a) - torch.stack(b)) ** 2).mean()


# ---------------------------------------------------------------- preset "paper"


def paper(
    tower: Weights, trained: Weights, rgb: Tensor, event: Tensor, *, heads: int, motion: str = "shared"
) -> tuple[Tensor, Tensor]:
    """Logits [B, C] and L_rec of windows [B, T, 3, H, W]; rank 4 and alpha 8, so LoRA's scale is 2."""
    tower = {name: t.to(rgb.dtype) for name, t in tower.items()}
    trained = {name: t.to(rgb.dtype) for name, t in trained.items()}
    last = f"transformer.resblocks.{block_count(tower) - 1}"

    def lora_of(name: str) -> Lora:
        def add(layer: str, x: Tensor) -> Tensor:
            stem = f"{name}.base_model.model.{layer}"
            if f"{stem}.lora_A.weight" not in trained:
                return torch.zeros((), dtype=x.dtype)
            return 2 * (x @ trained[f"{stem}.lora_A.weight"].T @ trained[f"{stem}.lora_B.weight"].T)

        return add

    def pooled(images: list[Tensor], stream: str) -> Tensor:
        codes = [encode(image, tower, block_count(tower) - 1, heads, lora_of(stream)) for image in images]
        return torch.stack(codes).mean(dim=0) + trained[f"fuser.embedding.{stream}"][0]

    def plain(x: Tensor) -> Tensor:
        return layer_norm(x, 1.0, 0.0, 1e-5)

    def shared(x: Tensor) -> Tensor:
        return clip_block(x, tower, last, heads, lora_of("fusion"))

    def no_lora(layer: str, x: Tensor) -> Tensor:
        return torch.zeros((), dtype=x.dtype)

    logits, from_r, from_e, want_r, want_e = [], [], [], [], []
    for r, e in zip(rgb, event, strict=True):
        z = {"rgb": pooled(list(r), "rgb"), "event": pooled(list(e), "event")}
        parts = [z["rgb"], z["event"]]
        if len(r) > 1 and motion != "off":
            parts.insert(0, pooled(differences(r, e), "diff"))
        n = len(parts[0])
        y = shared(torch.cat(parts))
        features = []
        for stream, y_m in (("rgb", y[-2 * n : -n]), ("event", y[-n:])):
            x = z[stream] + clip_attention(norm(z[stream], tower, f"{last}.ln_1", 1e-5), tower, last, heads)
            a, b = (trained[f"fuser.top.{stream}.lora_{k}.weight"] for k in "AB")
            ffn = clip_mlp(norm(x, tower, f"{last}.ln_2", 1e-5), tower, last, no_lora) + 2 * (plain(y_m) @ a.T @ b.T)
            features.append(norm(x + ffn, tower, "ln_post", 1e-5)[0])
        if motion == "head":
            features.append(norm(y[:n], tower, "ln_post", 1e-5)[0])
        logits.append(torch.cat(features) @ trained["fuser.head.weight"].T + trained["fuser.head.bias"])
        from_r.append(plain(shared(z["rgb"])))
        from_e.append(plain(shared(z["event"])))
        want_r.append(plain(z["rgb"]))
        want_e.append(plain(z["event"]))
    return torch.stack(logits), mse(from_e, want_r) + mse(from_r, want_e)


# ---------------------------------------------------------------- preset "released"

PARTS = {"rgb": "ViT_model_state_dict", "event": "Event_ViT_model_state_dict", "diff": "frame_ViT_model_state_dict"}
EMBEDDINGS = {"rgb": "rgb_embed", "event": "event_embed", "diff": "frame_embed"}


def vision_of(part: Weights, dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An encoder's own tensors and its LoRA tensors, by open_clip's names, from any of PEFT's ways of naming."""
    base, lora = {}, {}
    for name, tensor in part.items():
        name = name.removeprefix("module.").removeprefix("base_model.model.").replace(".base_layer", "")
        if not name.startswith("visual."):
            continue
        name = name.removeprefix("visual.").replace(".default", "")
        (lora if ".lora_" in name else base)[name] = tensor.to(dtype)
    return base, lora


def released(
    checkpoint: Mapping[str, Weights], rgb: Tensor, event: Tensor, *, heads: int, attend_over: str = "batch_of_one"
) -> tuple[Tensor, Tensor]:
    """Log-probabilities [B, C] and L_rec of windows [B, T, 3, H, W], from a checkpoint in the authors' layout."""
    encoders = {stream: vision_of(checkpoint[part], rgb.dtype) for stream, part in PARTS.items()}
    w = {name.removeprefix("module."): t.to(rgb.dtype) for name, t in checkpoint["model_state_dict"].items()}
    d = w["norm.weight"].shape[0]
    depth = block_count(encoders["rgb"][0])
    last = f"transformer.resblocks.{depth - 1}"

    def lora_of(stream: str, scale: float) -> Lora:
        def add(layer: str, x: Tensor) -> Tensor:
            a, b = (encoders[stream][1][f"{layer}.lora_{k}.weight"] for k in "AB")
            return scale * (x @ a.T @ b.T)

        return add

    def pooled(images: list[Tensor], stream: str) -> Tensor:  # steps 1 and 2
        base, _ = encoders[stream]
        codes = []
        for image in images:
            x = encode(image, base, depth, heads, lora_of(stream, 2.0))
            codes.append(norm(x, base, "ln_post", 1e-5) @ base["proj"])
        return linear(torch.stack(codes).mean(dim=0), w, "visual_embed") + w[EMBEDDINGS[stream]][0]

    def new_block(x: Tensor, name: str) -> Tensor:
        q, k, v = linear(norm(x, w, f"{name}.norm1", 1e-6), w, f"{name}.attn.qkv").chunk(3, dim=-1)
        x = x + linear(attention(q, k, v, d // 64), w, f"{name}.attn.proj")
        hidden = gelu(linear(norm(x, w, f"{name}.norm2", 1e-6), w, f"{name}.mlp.fc1"))
        return x + linear(hidden, w, f"{name}.mlp.fc2")

    def top_attention(stream: str, z: list[Tensor], sample: int) -> Tensor:
        base = encoders[stream][0]
        normed = [norm(x, base, f"{last}.ln_1", 1e-5) for x in z]
        if attend_over == "tokens":
            return clip_attention(normed[sample], base, last, heads)
        rows = []
        for token in range(len(normed[0])):  # a sequence of samples for each token, of one sample where alone
            mates = normed if attend_over == "batch" else [normed[sample]]
            read = clip_attention(torch.stack([mate[token] for mate in mates]), base, last, heads)
            rows.append(read[sample if attend_over == "batch" else 0])
        return torch.stack(rows)

    def gain(stream: str, y: Tensor) -> Tensor:
        add = lora_of(stream, 1.0)
        return add(f"{last}.mlp.c_proj", quick_gelu(add(f"{last}.mlp.c_fc", y)))

    z_r = [pooled(list(images), "rgb") for images in rgb]
    z_e = [pooled(list(images), "event") for images in event]
    z_f = [pooled(differences(r, e), "diff") for r, e in zip(rgb, event, strict=True)]
    from_r = [norm(new_block(z, "blocks.0"), w, "norm", 1e-6) for z in z_r]  # step 3
    from_e = [norm(new_block(z, "blocks.0"), w, "norm", 1e-6) for z in z_e]
    n = len(z_r[0])
    results = []
    for i in range(len(rgb)):
        y = new_block(torch.cat([z_f[i], z_r[i], z_e[i]]), "fuse_blocks.0")  # step 4
        o = []
        for stream, z, y_m in (("rgb", z_r, y[n : 2 * n]), ("event", z_e, y[2 * n :])):  # step 5
            base = encoders[stream][0]
            x = z[i] + top_attention(stream, z, i)
            h = x + clip_mlp(norm(x, base, f"{last}.ln_2", 1e-5), base, last, lora_of(stream, 2.0))
            o.append(h + y_m + gain(stream, y_m))
        both = torch.cat(o)  # step 6
        q, k, v = (linear(both, w, f"self_attention.{name}") for name in ("query", "key", "value"))
        s = torch.softmax(q @ k.T / math.sqrt(d), dim=-1) @ v
        p = s[:n] + s[n:]
        results.append(torch.log_softmax(linear(p[n - 10 :].flatten(), w, "fc1"), dim=-1))
    return torch.stack(results), mse(from_e, z_r) + mse(from_r, z_e)
