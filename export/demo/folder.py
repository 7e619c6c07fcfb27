"""The page as a static folder: networks with what lets one look inside, ONNX Runtime for browsers, and the page."""

import base64
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from timm.data import resolve_data_config
from tqdm import tqdm

import zoo
from zoo.errors import ZooError
from zoo.metrics import OperationCounter, energy

from ..baselines import baseline
from ..commands import NETWORKS
from ..file import add_spike_counts, add_step_logits
from ..to_onnx import to_onnx

RUNTIME = "onnxruntime-web@1.30.0"
"""ONNX Runtime for browsers, a package of npm ..."""
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""... which is exactly this one, as npm writes the checksum of a package."""
SCRIPT, MACHINE_CODE = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The files that the page takes of it; machine code is packed by gzip, to a quarter."""
PAGE = ("page.html", "page.css", "page.js", "samples.js", "worker.js", "prepare.js")


def build(out: str | os.PathLike[str], networks: Iterable[str] = tuple(NETWORKS), *, verify: bool = True) -> None:
    """Makes the folder `out`, which asks nothing of the network when it is opened. Other files in it stay.

    Args:
        out: the folder.
        networks: what `zoo.load` takes, the first one shown first.
        verify: run the gate of `export.verify` on each graph.

    Raises:
        ZooError: a network that the page cannot show; npm is missing, or gave another package.
    """
    models = [shown(source) for source in networks]
    if twice := [name for name, count in Counter(map(_name, models)).items() if count > 1]:
        raise ZooError(f"two networks are called {twice[0]}, and their files as well: show one of them")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    add_runtime(out)
    about = [add_network(out, model, verify) for model in tqdm(models, desc="networks", disable=None)]
    (out / "networks.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    for name in PAGE:
        shutil.copyfile(Path(__file__).with_name(name), out / name.replace("page.html", "index.html"))


def add_runtime(out: Path) -> None:
    """Gets ONNX Runtime from npm, or its cache, and puts what the page needs of it into `out`."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", RUNTIME, "--prefer-offline", "--silent", "--pack-destination", folder]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
        except FileNotFoundError:
            raise ZooError(f"{RUNTIME} is fetched by npm, which is not here: install Node.js") from None
        except subprocess.CalledProcessError as error:
            raise ZooError(f"npm cannot fetch {RUNTIME}: {error.stderr.strip()[-300:] or error}") from error
        package = next(Path(folder).glob("*.tgz")).read_bytes()
    if "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode() != INTEGRITY:
        raise ZooError(f"npm's {RUNTIME} is not the pinned package: nothing of it is used")
    with tarfile.open(fileobj=io.BytesIO(package)) as archive:
        script, code = (archive.extractfile(f"package/dist/{name}") for name in (SCRIPT, MACHINE_CODE))
        (out / SCRIPT).write_bytes(script.read())  # type: ignore[union-attr]  # the checksum says that they are there
        (out / f"{MACHINE_CODE}.gz").write_bytes(gzip.compress(code.read(), mtime=0))  # type: ignore[union-attr]


def shown(source: str) -> zoo.SpikingNetwork:
    """The trained network of a name or a run directory."""
    model = zoo.load(source)
    cfg = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    channels, height, width = cfg["input_size"]
    if model.encoding != "direct" or channels != 3 or height != width or cfg["crop_mode"] != "center":
        raise ZooError(f"the page shows networks of square images, direct encoding and centre crops, not {source}")
    if cfg["interpolation"] not in ("bilinear", "bicubic"):
        raise ZooError(f"the page scales images bilinear or bicubic, not {cfg['interpolation']} as for {source}")
    return model


def add_network(out: Path, model: zoo.SpikingNetwork, verify: bool) -> dict[str, Any]:
    """Writes a network as three files, and returns what the page must know of it.

    NAME.onnx is the network. NAME.look.gz is what the page appends to these bytes to see inside: bytes of protobuf one
    after the other are one message, so this is the same graph with more outputs: "step_logits", "spikes/LAYER" as of
    `to_onnx`; "LAYER/map", the spikes themselves, uint8 [T, C, H, W]; "operations". NAME.relu.onnx is its ReLU twin.
    """
    cfg = resolve_data_config(pretrained_cfg=model.pretrained_cfg)
    name = _name(model)
    file = out / f"{name}.onnx"
    to_onnx(model, file, precision="fp16", verify=verify)
    plain, look = onnx.load(file), onnx.ModelProto()
    inside = add_step_logits(add_spike_counts(plain))  # which append
    for field in ("node", "initializer", "output"):
        parts = getattr(inside.graph, field)
        getattr(look.graph, field).extend(parts[len(getattr(plain.graph, field)) :])
    told = {p.key: p.value for p in plain.metadata_props}
    steps = json.loads(told["timesteps"])
    for layer, value in json.loads(told["spike_values"]).items():
        look.graph.node.append(helper.make_node("Cast", [value], [f"{layer}/map"], to=TensorProto.UINT8))
        look.graph.output.append(helper.make_tensor_value_info(f"{layer}/map", TensorProto.UINT8, None))
    operations, relu_macs = add_operations(plain, look, model, steps)
    twin: Any = baseline("relu", model, "CPUExecutionProvider", "all")
    (out / f"{name}.look.gz").write_bytes(gzip.compress(look.SerializeToString(deterministic=True), mtime=0))
    (out / f"{name}.relu.onnx").write_bytes(twin.data)
    measured = Path(zoo.__file__).with_name("weights") / name / "result.json"
    result = json.loads(measured.read_text()) if measured.is_file() else {}
    return {
        "name": name, "title": NETWORKS.get(name), "timesteps": steps,
        "mean": json.loads(told["mean"]), "std": json.loads(told["std"]),
        "classes": json.loads(told.get("labels", "null")) or [str(i) for i in range(model.num_classes)],
        "prepare": {"size": cfg["input_size"][1]} | {key: cfg[key] for key in ("crop_pct", "interpolation")},
        "layers": [{"name": layer, "shape": shape} for layer, shape in json.loads(told["spike_shapes"]).items()],
        "parameters": sum(p.numel() for p in model.parameters()), "operations": operations, "relu_macs": relu_macs,
        "picojoules": [_picojoules(1, 0), _picojoules(0, 1)],
        "top1": result["top1"] if result.get("weights_sha256") == told["weights_sha256"] else None,
    }  # fmt: skip


def _name(model: zoo.SpikingNetwork) -> str:
    return ".".join(filter(None, (model.pretrained_cfg["architecture"], model.pretrained_cfg.get("tag"))))


def add_operations(
    plain: onnx.ModelProto, look: onnx.ModelProto, model: zoo.SpikingNetwork, steps: int
) -> tuple[list[dict[str, Any]] | None, float]:
    """Adds the output "operations" [N] to `look`: effective operations, as `zoo.metrics` counts them.

    An input that is not 0 takes part in as many operations as weights that are not 0 meet it, its fan-out: fewer at a
    border. The sum of the fan-outs of such inputs is the number.

    Returns:
        Of each number {"steps": those that do these operations, "multiply": whether they are multiply-accumulates};
        None for a network with attention or layers under other names. And the multiply-accumulates of the ReLU twin.
    """
    x = torch.rand(1, *model.pretrained_cfg["input_size"], generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad(), OperationCounter(model) as counter:
        model(x)
    counted, total = counter.layers(), counter.summary()
    stem = total["stem"]["Dense"]
    relu_macs = stem + (total["Dense"] - stem) / steps
    infos = onnx.shape_inference.infer_shapes(plain).graph
    values = [*infos.value_info, *infos.input]
    shapes = {info.name: [d.dim_value for d in info.type.tensor_type.shape.dim][1:] for info in values}
    g, found = look.graph, list[tuple[str, int]]()
    g.initializer.append(helper.make_tensor("operations/one", TensorProto.INT64, [1], [1]))
    for node in plain.graph.node:
        layer = node.input[1].removesuffix("/transposed").removesuffix(".weight") if len(node.input) > 1 else ""
        if node.op_type not in ("Conv", "MatMul", "Gemm") or layer not in counted:
            continue
        value, out = node.input[0], f"operations/{len(found)}"
        fan_out = _fan_out(model.get_submodule(layer), shapes[value])
        g.initializer.append(numpy_helper.from_array(fan_out, f"{out}/fan_out"))
        for kind, inputs, output in (
            ("Sign", [value], f"{out}/sign"),
            ("Abs", [f"{out}/sign"], f"{out}/some"),
            ("Mul", [f"{out}/some", f"{out}/fan_out"], f"{out}/each"),
            ("ReduceSum", [f"{out}/each"], f"{out}/all"),
            ("Reshape", [f"{out}/all", "operations/one"], out),
        ):
            g.node.append(helper.make_node(kind, inputs, [output]))
        step = node.output[0].split("/")[0]
        found.append((layer, int(step) if step.isdecimal() else 0))
    if counter.products() or {layer for layer, _ in found} != counted.keys():
        return None, relu_macs
    g.node.append(helper.make_node("Concat", [f"operations/{i}" for i in range(len(found))], ["operations"], axis=0))
    g.output.append(helper.make_tensor_value_info("operations", TensorProto.FLOAT, [len(found)]))
    session = onnxruntime.InferenceSession(plain.SerializeToString() + look.SerializeToString())
    (numbers,) = session.run(["operations"], {"input": x.numpy()})
    told = []
    for (layer, step), number in zip(found, numbers, strict=True):
        # What is alike in all steps the graph runs once, and the network in each of them, but for the stem.
        again = [name for name, _ in found].count(layer) == 1 and counted[layer].effective > 1.5 * number
        told.append({"steps": list(range(steps)) if again else [step], "multiply": not counted[layer].binary})
    return told, relu_macs


def _fan_out(layer: Any, shape: list[int]) -> NDArray[np.float32]:
    """How many weights that are not 0 each input of a map meets."""
    weight = (layer.weight != 0).float()
    if weight.dim() == 2:
        return weight.sum(0).numpy()
    x = torch.zeros(1, *shape, requires_grad=True)
    fan_out: Any = torch.autograd.grad(layer._conv_forward(x, weight, None).sum(), x)[0]
    return fan_out.numpy()


def _picojoules(acs: int, macs: int) -> float:
    none = {"Effective_ACs": 0, "Effective_MACs": 0}
    cost: Any = energy({"Effective_ACs": acs, "Effective_MACs": macs, "products": none})
    return cost["total"] * 1e6
