"""Train the demo model and write `quark_onnx/demo/digits.onnx`.

    pip install -e '.[demo]' torch==2.13.0
    python scripts/train_demo.py

A MobileNet-like classifier of 8×8 grey digits. The graph is written node by node, so that it is exactly what a
quantizer has to deal with: BatchNormalization not folded, ReLU6 as Clip(0, 6), depthwise convolutions, a strided one.
The seed and the single thread make a run repeatable on one machine; another processor may round differently. The model
is the one after the last epoch: the test split is read once, to print the accuracy, and chooses nothing.

Training leaves one channel dead (always 0, running variance near 0) before block2.dw.bn and one before block4.dw.bn,
as it does in real MobileNets. Folding BatchNorm makes these channels' weights about 100 times the others', which a
per-tensor weight scale must then cover.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from quark_onnx.demo import MODEL, digits

SEED, EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY = 0, 60, 64, 1e-2, 1e-2
OPSET, IR_VERSION = 17, 8  # the pair that ONNX 1.12 released together: any supported onnxruntime reads it


@dataclass(frozen=True)
class Unit:
    """Conv + BatchNorm + ReLU6; `groups == inputs` makes the convolution depthwise."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    groups: int = 1


def block(name: str, inputs: int, outputs: int, stride: int = 1) -> list[Unit]:
    """A depthwise 3×3 unit, then a pointwise 1×1 one."""
    depthwise = Unit(f"{name}.dw", inputs, inputs, stride=stride, groups=inputs)
    return [depthwise, Unit(f"{name}.pw", inputs, outputs, kernel=1)]


UNITS = [
    Unit("stem", 1, 32),
    *block("block1", 32, 64),
    *block("block2", 64, 128, stride=2),
    *block("block3", 128, 128),
    *block("block4", 128, 128),
]
CLASSES = 10


def network() -> nn.Sequential:
    """UNITS, then global average pooling and a linear layer: (N, 1, 8, 8) -> (N, 10)."""
    layers: list[nn.Module] = []
    for unit in UNITS:
        padding = unit.kernel // 2
        conv = nn.Conv2d(unit.inputs, unit.outputs, unit.kernel, unit.stride, padding, groups=unit.groups, bias=False)
        layers += [conv, nn.BatchNorm2d(unit.outputs), nn.ReLU6()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(UNITS[-1].outputs, CLASSES))


def shifted(images: torch.Tensor) -> torch.Tensor:
    """The batch (N, 1, 8, 8), moved as a whole by at most one pixel each way over the background value -1."""
    down, right = torch.randint(0, 3, (2,)).tolist()
    return nn.functional.pad(images, (1, 1, 1, 1), value=-1.0)[:, :, down : down + 8, right : right + 8]


def train(model: nn.Sequential, images: torch.Tensor, labels: torch.Tensor) -> None:
    """AdamW with a one-cycle learning rate on images (N, 1, 8, 8) and labels (N,); leaves the model in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    steps = EPOCHS * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    model.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(images))
        for start in range(0, len(images) - BATCH + 1, BATCH):  # whole batches only: BatchNorm dislikes a small rest
            chosen = order[start : start + BATCH]
            loss = nn.functional.cross_entropy(model(shifted(images[chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()


def to_onnx(model: nn.Sequential) -> onnx.ModelProto:
    """The trained network as an ONNX graph with the names of UNITS."""
    constants: dict[str, np.ndarray] = {"relu6.min": np.float32(0), "relu6.max": np.float32(6)}
    nodes: list[onnx.NodeProto] = []

    def add(op: str, name: str, source: str, extra: dict[str, object], **attributes: object) -> str:
        constants.update({key: np.asarray(value, np.float32) for key, value in extra.items()})
        nodes.append(helper.make_node(op, [source, *extra], [f"{name}.out"], name=name, **attributes))
        return f"{name}.out"

    value = "input"
    for index, unit in enumerate(UNITS):
        conv, norm = model[3 * index], model[3 * index + 1]
        kernel = f"{unit.name}.conv.weight"
        shape = {"kernel_shape": [unit.kernel] * 2, "strides": [unit.stride] * 2, "pads": [unit.kernel // 2] * 4}
        value = add("Conv", f"{unit.name}.conv", value, {kernel: conv.weight.detach()}, group=unit.groups, **shape)
        statistics = {"scale": norm.weight, "bias": norm.bias, "mean": norm.running_mean, "var": norm.running_var}
        extra = {f"{unit.name}.bn.{key}": tensor.detach() for key, tensor in statistics.items()}
        value = add("BatchNormalization", f"{unit.name}.bn", value, extra, epsilon=norm.eps)
        value = add("Clip", f"{unit.name}.relu6", value, {key: constants[key] for key in ("relu6.min", "relu6.max")})
    value = add("GlobalAveragePool", "head.pool", value, {})
    value = add("Flatten", "head.flatten", value, {}, axis=1)
    linear = {"head.gemm.weight": model[-1].weight.detach(), "head.gemm.bias": model[-1].bias.detach()}
    add("Gemm", "head.gemm", value, linear, transB=1)
    nodes[-1].output[0] = "logits"

    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 8, 8])
    target = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    initializers = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "digits", [source], [target], initializers)
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION, producer_name="train_demo.py")


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_x, train_y, test_x, test_y = (torch.from_numpy(array) for array in digits())
    model = network()
    train(model, train_x, train_y)
    with torch.no_grad():
        right = int((model(test_x).argmax(1) == test_y).sum())
    proto = to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    MODEL.write_bytes(proto.SerializeToString(deterministic=True))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{MODEL}: {parameters} parameters, {MODEL.stat().st_size} bytes")
    print(f"test accuracy {right}/{len(test_y)} = {right / len(test_y):.2%}")


if __name__ == "__main__":
    main()
