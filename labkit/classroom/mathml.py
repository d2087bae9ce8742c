"""A Sphinx extension: formulas as MathML, which browsers draw and screen readers read without a script.

MathJax, which Sphinx takes otherwise, is asked from the network, so that pages in a folder would show TeX.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml

if TYPE_CHECKING:
    from sphinx.application import Sphinx

# What docutils does not know: brackets grow in MathML by themselves, and dots have one name
PLAINER = ((re.compile(r"\\[bB]igg?[lrm]?(?![a-zA-Z])"), ""), (re.compile(r"\\dots(?![a-zA-Z])"), r"\\ldots"))


def mathml(tex: str, block: bool = False) -> str:
    """TeX as MathML. ValueError: there is a command that docutils doesn't know; the message names it."""
    for command, plainer in PLAINER:
        tex = command.sub(plainer, tex)
    try:
        return tex2mathml(tex, as_block=block)
    except (MathError, SyntaxError) as error:
        raise ValueError(f"The formula {tex.strip()!r} can't be drawn: {error}") from None


def _inline(writer, node: nodes.math) -> None:
    writer.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer, node: nodes.math_block) -> None:
    writer.body.append(f'<div class="math-block">{mathml(node.astext(), block=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx, where the module stands among `extensions`."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
