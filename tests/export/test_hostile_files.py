"""Files that anybody may give to bench_ort: arrays that lie of their size, graphs that lie of their spikes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import struct
import sys
import zipfile

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from test_export import network

import export
from export.file import add_description
from export.images import load_images, read_images
from export.int8 import calibrate, int8_graph
from export.network import build_graph, take_apart
from zoo import ZooError

# -- arrays

IMAGES = np.arange(4 * 12, dtype=np.uint8).reshape(4, 3, 2, 2)


def npy(shape, dtype="|u1", data=b""):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def damage(place, value):
    """A good archive, one byte of which, counted from its central directory or from its start, is another."""

    def change(path):
        npz(path, images=npy((4, 3, 2, 2), data=IMAGES.tobytes()))
        data = bytearray(path.read_bytes())
        data[place + (data.find(b"PK\1\2") if place < 40 else 0)] = value
        path.write_bytes(data)

    return change


@pytest.mark.parametrize(
    "make",
    [
        lambda path: npz(path, images=npy((10**9, 3, 32, 32))),
        lambda path: npz(path, images=npy((4, 3, 2, 2), "|S2000000000")),
        lambda path: npz(path, images=npy((-1, 3, 2, 2))),
        lambda path: npz(path, images=npy((10**400, 3))),
        lambda path: npz(path, images=npy((4,), "|O")),
        lambda path: npz(path, images=npy("(" * 3000 + ")" * 3000)),
        lambda path: npz(path, images=npy((4, 3, 2, 2), data=b"short")),
        lambda path: npz(path, images=npy((), data=b"1")),
        lambda path: npz(path, images=b"\x93NUMPY\x09\0" + bytes(100)),
        lambda path: npz(path, images=b"\x80\x04."),
        lambda path: npz(path, others=npy((1,), data=b"1")),
        damage(8, 1),  # encrypted
        damage(10, 99),  # an unknown compression
        damage(60, 0xFF),  # broken data
        lambda path: path.write_bytes(b"PK\3\4"),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x80\x04."),
        lambda path: os.mkfifo(path),
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
    ],
)
def test_arrays_that_are_refused(make, tmp_path):
    make(tmp_path / "x.npz")
    with pytest.raises(ZooError, match=r"x\.npz"):
        read_images(tmp_path / "x.npz")


def test_arrays_that_nobody_asks_for_are_not_read(tmp_path):
    """Nor more of the images than the limit."""
    good = npy((4, 3, 2, 2), data=IMAGES.tobytes())
    path = npz(tmp_path / "x.npz", bomb=npy((10**12,)), images=good, labels=npy((4,), data=bytes(4)))
    images, labels = read_images(path)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == [0] * 4
    large = npz(tmp_path / "y.npz", images=npy((10**9, 3, 2, 2), data=IMAGES.tobytes()))
    assert np.array_equal(load_images(str(large), limit=3).images, IMAGES[:3])


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("limit", [None, 2])
def test_arrays_of_numpy_s_own(order, limit, tmp_path):
    array = np.asarray(np.random.default_rng(0).random((4, 3, 2, 2), dtype=np.float32), order=order)
    np.save(tmp_path / "x.npy", array)
    np.savez(tmp_path / "y.npz", images=array, labels=np.arange(4))
    np.savez_compressed(tmp_path / "z.npz", images=array)
    for name in ("x.npy", "y.npz", "z.npz"):
        assert np.array_equal(load_images(str(tmp_path / name), limit=limit).images, array[:limit])
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(2, 0))
    (tmp_path / "v2.npy").write_bytes(stream.getvalue())
    assert np.array_equal(read_images(tmp_path / "v2.npy")[0], array)


# -- graphs


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    """The file of a tiny network, and images for it."""
    path = tmp_path_factory.mktemp("graph") / "model.onnx"
    export.to_onnx(network(timesteps=2), path, verify=False)
    return path


def measure(graph, change, tmp_path):
    proto = onnx.load(graph)
    change(proto)
    (tmp_path / "x.onnx").write_bytes(proto.SerializeToString())
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), dtype=np.uint8)
    return export.benchmark(tmp_path / "x.onnx", images, runs=1)


def layers(proto):
    return json.loads(next(p.value for p in proto.metadata_props if p.key == "spike_values"))


def counting(value):
    """A file that brings counters of its own, which all say the same."""

    def change(proto):
        for layer in layers(proto):
            constants = {"value": np.full((1, 2), value, np.float32), "first": np.array([0]), "two": np.array([2])}
            for name, array in constants.items():
                proto.graph.initializer.append(numpy_helper.from_array(array, f"{layer}/{name}"))
            for kind, inputs, output, more in (
                ("Shape", ["input"], "shape", {}),
                ("Gather", [f"{layer}/shape", f"{layer}/first"], "images", {}),
                ("Concat", [f"{layer}/images", f"{layer}/two"], "both", {"axis": 0}),
            ):
                proto.graph.node.append(helper.make_node(kind, inputs, [f"{layer}/{output}"], **more))
            inputs = [f"{layer}/value", f"{layer}/both"]
            proto.graph.node.append(helper.make_node("Expand", inputs, [f"spikes/{layer}"]))
            info = helper.make_tensor_value_info(f"spikes/{layer}", onnx.TensorProto.FLOAT, ["batch", 2])
            proto.graph.output.append(info)

    return change


def with_nan(proto):
    tensor = next(t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and np.prod(t.dims) > 9)
    array = numpy_helper.to_array(tensor).copy()
    array.flat[3] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def louder(value):
    """Every layer's spikes are multiplied by a number."""

    def change(proto):
        spikes = set(layers(proto).values())
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(value), "factor"))
        nodes = []
        for node in proto.graph.node:
            nodes.append(node)
            for i, output in enumerate(node.output):
                if output in spikes or output.rpartition("/")[0] in spikes:  # whole, or of one time step
                    node.output[i] = f"{output}/before"
                    nodes.append(helper.make_node("Mul", [f"{output}/before", "factor"], [output]))
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)

    return change


def elsewhere(proto):
    tensor = proto.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def sparse(proto):
    """ONNX Runtime would take it in place of the dense tensor of that name, which `verify` compares."""
    dense = next(t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 1)
    values = numpy_helper.from_array(np.ones(1, np.float32), dense.name)
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, list(dense.dims)))


def endless(proto):
    """The images come out of a loop that does not end."""
    values = {"i": (7, []), "on": (9, []), "x": (1, None), "on_out": (9, []), "x_out": (1, None)}
    infos = [helper.make_tensor_value_info(name, *value) for name, value in values.items()]
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in ("on", "x")]
    body = helper.make_graph(nodes, "body", infos[:3], infos[3:])
    for node in proto.graph.node:
        node.input[:] = ["looped" if name == "input" else name for name in node.input]
    proto.graph.initializer.append(numpy_helper.from_array(np.array(True), "true"))
    proto.graph.node.insert(0, helper.make_node("Loop", ["", "true", "input"], ["looped"], body=body))


def huge(proto):
    """A constant of 4 GB is computed, from eight bytes."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array([10**9]), "shape"))
    proto.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["huge"]))


def nested(proto):
    """Each of forty functions calls the one before it twice: 2**40 nodes, in a kilobyte."""
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    for i in range(40):
        nodes = [helper.make_node("Identity", ["x"], ["y"])]
        if i:
            calls = (("x", "h"), ("h", "y"))
            nodes = [helper.make_node(f"f{i - 1}", [x], [y], domain="own") for x, y in calls]
        proto.functions.append(helper.make_function("own", f"f{i}", ["x"], ["y"], nodes, opsets))
    proto.opset_import.append(opsets[1])
    proto.graph.node.append(helper.make_node("f39", ["logits"], ["more"], domain="own"))


def itself(proto):
    nested(proto)
    proto.functions[0].node[0].op_type, proto.functions[0].node[0].domain = "f0", "own"


def columns(proto):
    """The logits have one class for each image, whatever the file declares."""
    proto.graph.initializer.append(numpy_helper.from_array(np.array([1]), "axis"))
    last = next(node for node in proto.graph.node if "logits" in node.output)
    last.output[0] = "whole"
    proto.graph.node.append(helper.make_node("ReduceMax", ["whole", "axis"], ["logits"], keepdims=0))


EDITS = {
    "mean": ("oops", "[0.5]", "[0.5, 0.5, NaN]", "[NaN, 0, 0]", "[" * 100_000),
    "std": ("[0.2, 0.2, 0]", "[1e-320, 1, 1]", "{}"),
    "timesteps": ("x", "true", "1", "6", "9" * 20, "9" * 5000),
    "num_classes": ("100", "null"),
    "input_size": ("[3, 8, 8]", "[3]"),
    "spike_values": ("{}", "[]", "[" * 100_000, '{"lif1": 1}', '{"lif1": "absent"}', '{"lif1": "logits"}'),
    "seed": ('"0"',),
    "epochs": ("-1",),
    "precision": ("fp8",),
    "architecture": ("\x1b[31m",),
    "tag": ("x" * 100_000,),
}


def edited(key, text):
    """An entry of the metadata is another, or is not there (None)."""

    def change(proto):
        about = {p.key: p.value for p in proto.metadata_props} | {key: text}
        del proto.metadata_props[:]
        helper.set_model_props(proto, {k: v for k, v in about.items() if v is not None})

    return change


def test_the_good_file_is_measured(graph, tmp_path):
    assert measure(graph, lambda proto: None, tmp_path)["spikes_per_image"] > 0


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_counters_that_lie_are_not_believed(value, graph, tmp_path):
    with pytest.raises(ZooError, match="measured"):
        measure(graph, counting(value), tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_nan, "NaN"),
        (louder(0), "nothing was measured"),
        (louder(0.5), "zeros and ones|whole numbers"),
        (louder(-1), "zeros and ones|whole numbers"),
        (louder(np.inf), "zeros and ones"),
        (endless, "has a Loop, and layout flat has none"),
        (huge, "the value huge is too large to be computed"),
        *((change, "its functions call functions, of more than 1,000,000 nodes") for change in (nested, itself)),
        (columns, "no finite logits"),
        (elsewhere, "another file"),
        (sparse, "sparse tensors"),
        *((edited(key, text), "x.onnx: metadata .* expected ") for key, texts in EDITS.items() for text in texts),
    ],
)
def test_graphs_that_are_refused(change, words, graph, tmp_path):
    with pytest.raises(ZooError, match=words) as caught:
        measure(graph, change, tmp_path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("text", [None, "{", "[]", "9", '{"a": 1}', "[" * 100_000])
@pytest.mark.parametrize("key", ["spike_values", "timesteps", "states", "currents", "layout", "precision", "mean"])
def test_metadata_that_somebody_changed_are_one_error(key, text, steps):
    """Of a step graph, and of one in eight bits."""
    seen = 0
    for net, data in steps:
        proto = onnx.load_model_from_string(data)
        if key not in {p.key for p in proto.metadata_props}:
            continue
        seen += 1
        edited(key, text)(proto)
        with pytest.raises(ZooError):
            export.verify(net, proto.SerializeToString())
        with contextlib.suppress(ZooError):  # it may not need the key
            export.Stream(proto.SerializeToString())
    assert seen


@pytest.mark.parametrize("form", [[0.1, 300, "x"], [0.1, -1, "x"], [0.1, 1.5, "x"], [0, 0, "x"], [0.1, 0], None])
def test_bytes_that_cannot_be_are_one_error(form, steps):
    net, data = steps[1]
    proto = onnx.load_model_from_string(data)
    entry = next(p for p in proto.metadata_props if p.key == "currents")
    entry.value = json.dumps(dict.fromkeys(json.loads(entry.value), form))
    with pytest.raises(ZooError, match="metadata currents is"):
        export.verify(net, proto.SerializeToString())


@pytest.fixture(scope="module")
def steps():
    """A network with its files of one step and in eight bits; `verify` compares with these, and traces nothing."""
    net = network(timesteps=2)
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    parts = take_apart(net, all_steps=True)
    graphs = build_graph(net, "step"), int8_graph(parts, calibrate(parts, images))
    files = [add_description(graph, net).SerializeToString() for graph in graphs]
    verify = sys.modules["export.verify"]  # the function has its name
    with pytest.MonkeyPatch.context() as patch:
        for name, file in zip(("build_graph", "int8_graph"), files, strict=True):
            patch.setattr(verify, name, lambda *_, file=file: onnx.load_model_from_string(file))
        patch.setattr(verify, "take_apart", lambda *_, **__: None)
        yield [(net, file) for file in files]
