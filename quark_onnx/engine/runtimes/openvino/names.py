"""Names by which OpenVINO's own can be read.

It calls what it executes after nodes and tensors of a model, with words of its own around them, several in a row with
commas between (`conv/WithoutBiases`, `y_original`, `x_abcd_acdb_conv`): names that users chose could hold any of these.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from quark_onnx.graph import Model, io

_LABEL = re.compile(r"@(\d+)(?:\.\d+)?@")


class Labelled(NamedTuple):
    """A model whose nodes, and the tensors that they make, have labels for names; and what the nodes are called."""

    model: Model
    names: list[str]

    def named_in(self, text: str) -> tuple[str, ...]:
        """The nodes of the model that a text of OpenVINO names, each once, in the order of the model."""
        places = sorted({int(found) for found in _LABEL.findall(text)})
        return tuple(self.names[place] for place in places if self.names[place])


def labelled(model: Model) -> Labelled:
    """A copy with labels; those of its inputs and constants stay."""
    labels = io.copy(model)
    names = []
    for place, node in enumerate(labels.graph.all_nodes()):
        names.append(node.name or "")
        node.name = f"@{place}@"
        for index, value in enumerate(node.outputs):
            if value.name:
                value.name = f"@{place}.{index}@"
    return Labelled(labels, names)
