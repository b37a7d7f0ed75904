"""Write the small transformers of `tests/exports`: nine architectures as both exporters of PyTorch write them.

    pip install torch==2.13.0 onnx==1.22.0 onnxscript==0.7.2
    python scripts/export_transformers.py tests/exports            # all, or those named behind the folder
    python scripts/export_transformers.py /tmp vit_small.dynamo    # 88 MB: a ViT-S, which is not among "all"

`<name>.legacy.onnx` is what `torch.onnx.export(dynamo=False)` writes at opset 17, with open batch and length;
`<name>.dynamo.onnx` is that of `dynamo=True` at opset 20, with known dimensions; `<name>.op23.onnx` has the Attention
operator. Weights are random, and have of trained ones what makes them hard to quantize: rows of unequal size,
normalizations with a few large channels, and feed-forward layers that write one channel of the residual stream ten
times as strongly as the others.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY, LENGTH, BATCH, PAST = 40, 12, 2, 5


@dataclass(frozen=True)
class Design:
    """What the architectures differ in.

    norm       "layer", "by hand" (LayerNorm of ReduceMean, Pow, Sqrt, Div) or "rms"
    post_norm  the normalization stands behind the residual addition
    ffn        "erf", "tanh", "relu" or "swiglu"
    mask       "padding" or "causal" of scaled_dot_product_attention; "by hand": -inf where `masked_fill` puts it
    kv_heads   heads of keys and values; fewer than `heads` are shared
    packed     queries, keys and values of one matrix product, as GPT-2 has it
    past       keys and values of earlier tokens are inputs, those of all tokens outputs
    """

    norm: str = "layer"
    post_norm: bool = False
    ffn: str = "erf"
    mask: str | None = None
    rotary: bool = False
    kv_heads: int = 4
    packed: bool = False
    past: bool = False
    bias: bool = True
    width: int = 16
    hidden: int = 32
    heads: int = 4
    layers: int = 2


class NormByHand(nn.Module):
    """LayerNorm, or RMSNorm, of elementary operators."""

    def __init__(self, width: int, centered: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if centered else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            x = x - x.mean(-1, keepdim=True)
        x = self.weight * (x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))
        return x if self.bias is None else x + self.bias


def norm(design: Design) -> nn.Module:
    if design.norm == "layer":
        return nn.LayerNorm(design.width)
    return NormByHand(design.width, centered=design.norm == "by hand")


def rotated(x: Tensor, start: int) -> Tensor:
    """Rotary embedding of (batch, heads, length, size), whose first token is number `start`."""
    half = x.shape[-1] // 2
    frequencies = 100.0 ** (-torch.arange(half, dtype=torch.float32) / half)
    angles = torch.arange(start, start + x.shape[-2]).unsqueeze(1) * frequencies
    angles = torch.cat((angles, angles), -1)
    turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * angles.cos() + turned * angles.sin()


class Attention(nn.Module):
    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design, self.size = design, design.width // design.heads
        self.widths = [design.width, design.kv_heads * self.size, design.kv_heads * self.size]
        if design.packed:
            self.qkv = nn.Linear(design.width, sum(self.widths))
        else:
            self.q, self.k, self.v = (nn.Linear(design.width, width, bias=design.bias) for width in self.widths)
        self.out = nn.Linear(design.width, design.width, bias=design.bias)

    def projected(self, x: Tensor) -> list[Tensor]:
        if self.design.packed:
            flat = torch.addmm(self.qkv.bias, x.reshape(-1, x.shape[-1]), self.qkv.weight.t())
            parts = flat.view(*x.shape[:-1], -1).split(self.widths, -1)
        else:
            parts = (self.q(x), self.k(x), self.v(x))
        return [part.view(*x.shape[:-1], -1, self.size).transpose(1, 2) for part in parts]

    def forward(
        self, x: Tensor, mask: Tensor | None, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k, v = self.projected(x)
        if self.design.rotary:
            start = 0 if past is None else past[0].shape[-2]
            q, k = rotated(q, start), rotated(k, start)
        if past is not None:
            k, v = torch.cat((past[0], k), -2), torch.cat((past[1], v), -2)
        present = (k, v)
        if (share := self.design.heads // self.design.kv_heads) > 1:
            k, v = (t.repeat_interleave(share, 1) for t in (k, v))
        y = attended(q, k, v, mask, self.design.mask)
        return self.out(y.transpose(1, 2).reshape(x.shape)), present


def attended(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kind: str | None) -> Tensor:
    if kind != "by hand":
        return F.scaled_dot_product_attention(q, k, v, mask, is_causal=kind == "causal" and mask is None)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    assert mask is not None
    return torch.softmax(scores.masked_fill(~mask, float("-inf")), -1) @ v


class FeedForward(nn.Module):
    def __init__(self, design: Design) -> None:
        super().__init__()
        self.kind = design.ffn
        self.up = nn.Linear(design.width, design.hidden, bias=design.bias)
        self.down = nn.Linear(design.hidden, design.width, bias=design.bias)
        self.gate = nn.Linear(design.width, design.hidden, bias=False) if design.ffn == "swiglu" else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.up(x)
        if self.gate is not None:
            return self.down(F.silu(self.gate(x)) * h)
        if self.kind == "relu":
            return self.down(F.relu(h))
        return self.down(F.gelu(h, approximate="tanh" if self.kind == "tanh" else "none"))


class Block(nn.Module):
    def __init__(self, design: Design) -> None:
        super().__init__()
        self.post = design.post_norm
        self.attention, self.ffn = Attention(design), FeedForward(design)
        self.norm1, self.norm2 = norm(design), norm(design)

    def forward(
        self, x: Tensor, mask: Tensor | None = None, past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        y, present = self.attention(x if self.post else self.norm1(x), mask, past)
        if self.post:
            x = self.norm1(x + y)
            return self.norm2(x + self.ffn(x)), present
        x = x + y
        return x + self.ffn(self.norm2(x)), present


class Encoder(nn.Module):
    """A sentence → one row of numbers, of the mean over its tokens."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(VOCABULARY, design.width), nn.Embedding(16, design.width)
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.layers))
        self.norm, self.head = norm(design), nn.Linear(design.width, 16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.norm(self.words(input_ids) + self.places(torch.arange(input_ids.shape[1])))
        mask = attention_mask.bool()[:, None, None, :].expand(-1, 1, input_ids.shape[1], -1)
        for block in self.blocks:
            x, _ = block(x, mask)
        weight = attention_mask[:, :, None].to(x.dtype)
        return self.head((x * weight).sum(1) / weight.sum(1))


class Decoder(nn.Module):
    """Tokens → logits of the next ones; with a past also the keys and values of all."""

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.design = design
        self.words = nn.Embedding(VOCABULARY, design.width)
        self.places = None if design.rotary else nn.Embedding(16, design.width)
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.layers))
        self.norm, self.head = norm(design), nn.Linear(design.width, VOCABULARY, bias=False)

    def mask(self, length: int, before: int) -> Tensor | None:
        if self.design.mask == "causal" and not self.design.past:
            return None
        return torch.ones(length, before + length, dtype=torch.bool).tril(before)

    def forward(self, input_ids: Tensor, *past: Tensor) -> Tensor | tuple[Tensor, ...]:
        x = self.words(input_ids)
        if self.places is not None:
            x = x + self.places(torch.arange(input_ids.shape[1]))
        mask = self.mask(input_ids.shape[1], past[0].shape[-2] if past else 0)
        presents: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            x, present = block(x, mask, (past[2 * i], past[2 * i + 1]) if past else None)
            presents += present
        logits = self.head(self.norm(x))
        return (logits, *presents) if past else logits


class Vit(nn.Module):
    """Patches of an image, behind a class token, → logits of that token."""

    def __init__(self, design: Design, pixels: int, patch: int, classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, design.width, patch, patch)
        self.cls = nn.Parameter(torch.randn(1, 1, design.width))
        self.places = nn.Parameter(torch.randn(1, (pixels // patch) ** 2 + 1, design.width))
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.layers))
        self.norm, self.head = norm(design), nn.Linear(design.width, classes)

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls.expand(x.shape[0], -1, -1), x), 1) + self.places
        for block in self.blocks:
            x, _ = block(x)
        return self.head(self.norm(x)[:, 0])


class Swin(nn.Module):
    """Attention in windows of 4×4 patches, shifted by half in the second block; then patches merged 2×2."""

    window = 4

    def __init__(self, design: Design) -> None:
        super().__init__()
        self.patches, self.norm = nn.Conv2d(3, design.width, 2, 2), norm(design)
        self.blocks = nn.ModuleList(Block(design) for _ in range(design.layers))
        self.merged_norm = nn.LayerNorm(4 * design.width)
        self.merge = nn.Linear(4 * design.width, 2 * design.width, bias=False)
        self.last_norm, self.head = nn.LayerNorm(2 * design.width), nn.Linear(2 * design.width, 10)

    def in_windows(self, x: Tensor, block: nn.Module, shift: int) -> Tensor:
        batch, height, width, channels = x.shape
        w = self.window
        x = torch.roll(x, (-shift, -shift), (1, 2)) if shift else x
        x = (
            x.view(batch, height // w, w, width // w, w, channels)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(-1, w * w, channels)
        )
        x, _ = block(x)
        x = x.view(batch, height // w, width // w, w, w, channels).permute(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, height, width, channels)
        return torch.roll(x, (shift, shift), (1, 2)) if shift else x

    def forward(self, pixel_values: Tensor) -> Tensor:
        x = self.norm(self.patches(pixel_values).permute(0, 2, 3, 1))
        for i, block in enumerate(self.blocks):
            x = self.in_windows(x, block, i % 2 * self.window // 2)
        x = torch.cat((x[:, ::2, ::2], x[:, 1::2, ::2], x[:, ::2, 1::2], x[:, 1::2, 1::2]), -1)
        x = self.merge(self.merged_norm(x))
        return self.head(self.last_norm(x).mean((1, 2)))


BERT = Design(post_norm=True, mask="padding")
GPT = Design(ffn="tanh", mask="causal")
LLAMA = Design(norm="rms", ffn="swiglu", mask="causal", rotary=True, bias=False)
VIT_SMALL = Design(width=384, hidden=1536, heads=6, kv_heads=6, layers=12)

MODELS: dict[str, Callable[[], nn.Module]] = {
    "bert": lambda: Encoder(BERT),
    "bert_relu": lambda: Encoder(Design(ffn="relu", mask="padding")),
    "bert_norm_by_hand": lambda: Encoder(Design(norm="by hand", ffn="tanh", mask="padding")),
    "gpt": lambda: Decoder(GPT),
    "gpt_inf_mask": lambda: Decoder(Design(mask="by hand", packed=True)),
    "llama": lambda: Decoder(LLAMA),
    "llama_past": lambda: Decoder(Design(**{**vars(LLAMA), "kv_heads": 2, "past": True})),
    "vit": lambda: Vit(Design(), pixels=16, patch=4, classes=10),
    "swin": lambda: Swin(Design()),
    "vit_small": lambda: Vit(VIT_SMALL, pixels=224, patch=16, classes=1000),
}
EXPORTS = [
    *(f"{name}.{exporter}" for name in MODELS if name != "vit_small" for exporter in ("legacy", "dynamo")),
    *("bert.op23", "gpt.op23"),
]
OPSETS = {"legacy": 17, "dynamo": 20, "op23": 23}


def like_trained(model: nn.Module) -> None:
    """Random weights that are as unequal as those of trained models."""
    strong = 5  # a channel of the residual stream
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weight = module.weight.data
            rows = torch.exp(0.4 * torch.randn(weight.shape[0]))
            if name.endswith("ffn.down"):
                rows[strong] = 10.0
            elif (
                name.endswith(("ffn.gate", "ffn.up")) and model.get_submodule(name[: name.rindex(".")]).gate is not None
            ):
                rows *= 0.5  # the product of both has the size of what they read
            shape = (-1, *[1] * (weight.dim() - 1))
            weight.copy_(torch.randn(weight.shape) / weight[0].numel() ** 0.5 * rows.view(shape))
            if module.bias is not None:
                module.bias.data.copy_(0.2 * torch.randn(module.bias.shape) * rows)
        elif isinstance(module, nn.LayerNorm | NormByHand):
            scale = torch.exp(0.3 * torch.randn(module.weight.shape))
            scale[torch.randperm(scale.numel())[:2]] *= 4.0
            scale[strong] *= 0.5
            module.weight.data.copy_(scale)
            if module.bias is not None:
                module.bias.data.copy_(0.2 * torch.randn(module.bias.shape))


def inputs(name: str, model: nn.Module) -> dict[str, Tensor]:
    """Example inputs, by name."""
    if isinstance(model, Vit | Swin):
        pixels = 224 if name == "vit_small" else 16
        return {"pixel_values": torch.randn(1 if name == "vit_small" else BATCH, 3, pixels, pixels)}
    feeds = {"input_ids": torch.randint(VOCABULARY, (BATCH, LENGTH))}
    if isinstance(model, Encoder):
        feeds["attention_mask"] = torch.ones(BATCH, LENGTH, dtype=torch.int64)
    elif model.design.past:
        design = model.design
        shape = (BATCH, design.kv_heads, PAST, design.width // design.heads)
        feeds |= {f"past_{i}.{kind}": torch.randn(shape) for i in range(design.layers) for kind in ("key", "value")}
    return feeds


def export(name: str, exporter: str, path: Path) -> None:
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    like_trained(model)
    feeds = inputs(name, model)
    presents = [key.replace("past", "present") for key in feeds if key.startswith("past")]
    open_dims = {key: {0: "batch", 1: "length"} for key in ("input_ids", "attention_mask") if key in feeds}
    open_dims |= {key: {0: "batch", 2: "past"} for key in feeds if key.startswith("past")}
    open_dims |= {key: {0: "batch"} for key in feeds if key == "pixel_values"}
    options: dict[str, object] = {"dynamo": exporter != "legacy", "opset_version": OPSETS[exporter]}
    if exporter == "legacy":
        options["dynamic_axes"] = open_dims
    elif presents:  # what is generated grows: these dimensions are open in any export of it
        first, *others = ({axis: torch.export.Dim.DYNAMIC for axis in dims if axis} for dims in open_dims.values())
        options["dynamic_shapes"] = (first, tuple(others))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, tuple(feeds.values()), path, input_names=list(feeds), output_names=["output", *presents],
            external_data=False, verbose=False, **options,
        )  # fmt: skip
    strip(path)


def strip(path: Path) -> None:
    """Take out what nobody reads: stack traces and names of scopes, which are half of a small file."""
    proto = onnx.load(path)
    proto.ClearField("metadata_props")
    for item in (*proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, proto.graph):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")
    onnx.save(proto, path)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for full in sys.argv[2:] or EXPORTS:
        name, exporter = full.split(".")
        path = folder / f"{full}.onnx"
        export(name, exporter, path)
        print(f"{path}  {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
