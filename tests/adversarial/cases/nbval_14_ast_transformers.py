# An AST transformer that empties every later cell
# expect: graded 0 no value came back
import ast


class Empty(ast.NodeTransformer):
    def visit_Module(self, node):
        node.body = []
        return node


get_ipython().ast_transformers.append(Empty())


def dice(prediction, truth):
    return 0.123
