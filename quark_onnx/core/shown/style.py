"""How cards look. Each card brings this along, as a notebook may show it alone.

Text has the colour of the page around it; lines and marks have colours that stand out from white and from black. So it
is readable in every theme, without asking which one it is. Rules for tables and lists begin with two classes, because
Jupyter has its own.
"""

from __future__ import annotations

from quark_onnx.core.shown.markup import Html, tag

_RULES = """
.quark-onnx{max-width:62rem;font-size:13px;line-height:1.45;color:inherit;overflow-wrap:anywhere;
 --good:#22955a;--fair:#b7791f;--poor:#d9483b;--mark:#3b82f6;--edge:rgba(128,128,128,.4)}
.quark-onnx p{margin:.4rem 0}
.quark-onnx .list{margin:.4rem 0;padding-left:1.3rem;list-style:disc}
.quark-onnx .quiet{opacity:.75}
.quark-onnx .head b{font-size:1.15em;margin-right:.6rem}
.quark-onnx .badge{display:inline-block;border:1px solid var(--edge);border-left-width:.4rem;border-radius:.3rem;
 padding:0 .5rem;margin-right:.5rem;font-weight:600;white-space:nowrap}
.quark-onnx .tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.5rem;margin:.6rem 0}
.quark-onnx .tile{border:1px solid var(--edge);border-left-width:.25rem;border-radius:.4rem;padding:.3rem .6rem}
.quark-onnx .tile span{display:block;opacity:.75;font-size:.92em}
.quark-onnx .tile b{display:block;font-size:1.3em;font-weight:600;line-height:1.3}
.quark-onnx .good{border-left-color:var(--good);fill:var(--good)}
.quark-onnx .fair{border-left-color:var(--fair);fill:var(--fair)}
.quark-onnx .poor{border-left-color:var(--poor);fill:var(--poor)}
.quark-onnx .mark{fill:var(--mark)}
.quark-onnx .back{fill:var(--edge);fill-opacity:.5}
.quark-onnx .scroll{overflow-x:auto;margin:.6rem 0}
.quark-onnx .rows{border-collapse:collapse;margin:0;width:100%;font-size:12px;table-layout:auto;color:inherit}
.quark-onnx .rows caption{caption-side:top;text-align:left;padding:.2rem 0;color:inherit;opacity:.8}
.quark-onnx .rows th,.quark-onnx .rows td{text-align:left;vertical-align:top;padding:.2rem .5rem;white-space:normal;
 border-bottom:1px solid var(--edge);max-width:26rem}
.quark-onnx .rows thead th{white-space:nowrap;overflow-wrap:normal}
.quark-onnx .rows td{min-width:5rem}
.quark-onnx .rows tbody th{font-weight:500;min-width:8rem}
.quark-onnx .rows .n{min-width:0;text-align:right;white-space:nowrap;overflow-wrap:normal;
 font-variant-numeric:tabular-nums}
.quark-onnx .rows .bar{width:45%;min-width:5rem;vertical-align:middle}
.quark-onnx svg{display:block;width:100%}
"""

STYLE: Html = tag("style", Html(_RULES.replace("\n", "")))
