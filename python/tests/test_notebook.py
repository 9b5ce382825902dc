"""The notebook runs from its first cell to its last, in a kernel of its own."""

import pathlib

import pytest

nbclient = pytest.importorskip("nbclient")
nbformat = pytest.importorskip("nbformat")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_notebook_runs_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setenv("RECKON_NOTEBOOK_STEPS", "3")
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(ROOT / "examples/notebook/countdown.ipynb", as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "it is kept without outputs"
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": tmp_path}}).execute()
    said = "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", []))
    assert "step    3" in said and "held-out accuracy" in said and "completions judged again" in said
    pictures = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 1
