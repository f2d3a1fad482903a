"""Compiling a chat template so that its loops, texts and values are charged to a meter.

Calls, operators and filters pass through the sandbox on their own; what compiles to plain Python (loops,
output, `~`, comparisons, literals) is given a call of the meter here, in the syntax tree.
"""

from jinja2 import Template, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.visitor import NodeTransformer

from swisd.text.meter import Meter
from swisd.text.sandbox import MeteredSandbox


class GenerationBlock(Extension):
    """`{% generation %}` marks the model's own words for training; here its content just stands."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Charges(NodeTransformer):
    """Puts the meter into a parsed template wherever work or text can multiply."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802
        cost = nodes.Const(_work(node))
        self.generic_visit(node)
        node.iter = _metered("turns", node.iter, cost)
        return node

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [
            _metered("emit", nodes.Const(item.data) if isinstance(item, nodes.TemplateData) else item)
            for item in node.nodes
        ]
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _metered("concat", *node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.expr = _metered("weigh", node.expr)
        for operand in node.ops:
            operand.expr = _metered("weigh", operand.expr)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        # A slice compiles to Python's own and copies what it takes.
        return _metered("weigh", node) if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _metered("weigh", node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _metered("weigh", node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _metered("weigh", node) if node.ctx == "load" else node


def metered_template(source: str, meter: Meter) -> Template:
    """Compile a template so that rendering it is charged to `meter`.

    Raises `jinja2.TemplateError`, or what Python raises for nesting that it cannot compile.
    """
    environment = MeteredSandbox(meter)
    environment.add_extension(GenerationBlock)
    tree = environment.parse(source)
    environment.macro_cost = _work(tree)
    return environment.from_string(_Charges().visit(tree))


def _work(node: nodes.Node) -> int:
    """What one pass over a piece of template costs, in steps: the more is written there, the more."""
    return 1 + sum(1 for _ in node.find_all(nodes.Node)) // 8


def _metered(method: str, *args: nodes.Node) -> nodes.Expr:
    """A call of the meter, by a node that no template text can spell."""
    return nodes.Call(nodes.EnvironmentAttribute(f"meter.{method}"), list(args), [], None, None)
