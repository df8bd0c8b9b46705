"""The stub of the native module beside the module itself."""

from __future__ import annotations

import ast
import inspect
import unittest
from pathlib import Path

from wavemill import _wavemill


def parameters(function: ast.FunctionDef) -> list[str]:
    return [argument.arg for argument in function.args.args if argument.arg not in ("self", "cls")]


class StubTest(unittest.TestCase):
    def test_names_and_parameters_are_those_of_the_module(self) -> None:
        stub = ast.parse(Path(_wavemill.__file__).with_name("_wavemill.pyi").read_text())
        stubs = {node.name: node for node in stub.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
        names = {name for name in dir(_wavemill) if not name.startswith("__")}
        constants = {node.target.id for node in stub.body if isinstance(node, ast.AnnAssign)}
        self.assertEqual(set(stubs) | constants, names)

        for name, node in stubs.items():
            native = getattr(_wavemill, name)
            methods = [(name, node, native)]
            if isinstance(node, ast.ClassDef):
                methods = [(f"{name}.{one.name}", one, getattr(native, one.name)) for one in node.body if hasattr(one, "name")]
            for path, function, found in methods:
                if "__" not in path:
                    with self.subTest(path=path):
                        own = [parameter for parameter in inspect.signature(found).parameters if parameter != "self"]
                        self.assertEqual(parameters(function), own)


if __name__ == "__main__":
    unittest.main()
