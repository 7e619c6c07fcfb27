"""A page on which people see a trained network spike: `python -m export.demo OUT --serve`.

folder.py makes the folder: networks as `export.to_onnx` writes them, ONNX Runtime for browsers, and the page. What one
sees is page.html, page.css, page.js and samples.js; worker.js runs the networks, prepare.js brings pictures to their
size.
"""

from .folder import build

__all__ = ["build"]
