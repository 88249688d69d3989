# SPDX-License-Identifier: Apache-2.0
"""Checkpoints opened by software that is not ours: h5py, h5dump, and a reader that knows only doc/checkpoint-format.md."""
import importlib.util
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

PROGRAM, MPIRUN, H5DUMP, SOURCE = (os.environ[f"TESSERA_{name}"] for name in ("PROGRAM", "MPIRUN", "H5DUMP", "SOURCE"))
EXAMPLE = f"{SOURCE}/apps/examples/read_checkpoint/read_checkpoint.py"
RUN = """
model: {{model_type: gpt2, n_layer: 3, n_embd: 32, n_head: 2, n_positions: 16, vocab_size: auto}}
data: {{train: ["{source}/test/data/text/tinyshakespeare.txt"], tokenizer: bytes, sequence_length: 16}}
run: {{folder: "{folder}", steps: 4, seed: 7, checkpoint: {{every: 2, keep: 2}}}}
engine:
  train_batch_size: 6
  optimizer: {{type: AdamW, params: {{lr: 1e-3}}}}
  zero_optimization: {{stage: 3}}
"""


def output_of(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# What doc/checkpoint-format.md says, in NumPy.

def name_hash(name):
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return np.uint64(value)


def checksum(name, elements):
    """Of an array, or of bytes."""
    elements = np.frombuffer(elements, np.uint8) if isinstance(elements, bytes) else np.ascontiguousarray(elements)
    words = elements.reshape(-1).view(f"<u{elements.dtype.itemsize}").astype(np.uint64)
    with np.errstate(over="ignore"):
        index = np.arange(words.size, dtype=np.uint64)
        z = (name_hash(name) + index * np.uint64(0x9E3779B97F4A7C15)) ^ words
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
        return int(np.sum(z, dtype=np.uint64))


def tensors(file):
    """{path: dataset} of everything but /state."""
    found = {}
    for group in ("parameters", "optimizer"):
        file[group].visititems(
            lambda name, item, group=group: found.update({f"{group}/{name}": item}) if isinstance(item, h5py.Dataset) else None)
    return found


def checksum_name(path):
    return path.removeprefix("parameters/")


class Checks:
    """The same for a checkpoint of this program and for the ones that are kept."""

    @property
    def file(self):
        opened = h5py.File(self.path, "r")
        self.addCleanup(opened.close)
        return opened

    def test_attributes(self):
        attributes = self.file.attrs
        self.assertEqual(attributes["format"], "tessera")
        self.assertEqual(attributes["format_version"], 1)
        self.assertEqual(attributes["complete"], 1)
        self.assertRegex(attributes["library_version"], r"^\d+\.\d+\.\d+")
        for name in ("format_version", "step", "samples", "tokens", "complete"):
            self.assertEqual(attributes[name].dtype, np.int64, name)
        self.assertEqual(json.loads(attributes["model"])["model_type"], "gpt2")
        self.assertIn("run:", attributes["config"])
        for name, dataset in self.file["state"].items():
            self.assertEqual(dataset.shape, (), name)
            json.loads(dataset[()])

    def test_tensors(self):
        found = tensors(self.file)
        model = json.loads(self.file.attrs["model"])
        width, layers = model["n_embd"], model["n_layer"]
        parameters = {path.removeprefix("parameters/") for path in found if path.startswith("parameters/")}
        self.assertEqual(len(parameters), 12 * layers + 4)
        self.assertEqual(found["parameters/transformer.wte.weight"].shape, (model["vocab_size"], width))
        self.assertEqual(found["parameters/transformer.h.1.attn.c_attn.weight"].shape, (width, 3 * width))
        for state in ("exp_avg", "exp_avg_sq"):
            names = {path.removeprefix(f"optimizer/{state}/") for path in found if path.startswith(f"optimizer/{state}/")}
            self.assertEqual(names, parameters)
        raw = np.memmap(self.path, np.uint8, "r")
        for path, dataset in found.items():
            self.assertEqual(dataset.dtype, np.dtype("<f4"), path)
            self.assertIsNone(dataset.chunks, path)
            begin = dataset.id.get_offset()
            mapped = raw[begin:begin + dataset.nbytes].view("<f4").reshape(dataset.shape)
            np.testing.assert_array_equal(mapped, dataset[...], path)

    def test_checksums(self):
        self.assertEqual(checksum("transformer.wte.weight", np.array([0, 1, -2.5], "<f4")), 0x5FB07B1687172828)
        for path, dataset in tensors(self.file).items():
            self.assertEqual(checksum(checksum_name(path), dataset[...]), int(dataset.attrs["checksum"]), path)
            self.assertEqual(dataset.attrs["checksum"].dtype, np.uint64, path)
        for name, dataset in self.file["state"].items():
            text = bytes(dataset[()]).rstrip(b"\0")
            self.assertEqual(checksum(f"state/{name}", text), int(dataset.attrs["checksum"]), name)

    def test_trailer(self):
        with open(self.path, "rb") as file:
            content = file.read()
        count, expected, magic = struct.unpack("<QQ8s", content[-24:])
        self.assertEqual(magic, b"TESSERA1")
        table = content[-24 - 16 * count:-24]
        ranges = list(struct.iter_unpack("<QQ", table))
        self.assertEqual(ranges, sorted(ranges))
        covered = b"".join(content[begin:end] for begin, end in ranges)
        self.assertEqual(checksum("metadata", covered + table), expected)
        data = sum(dataset.nbytes for dataset in tensors(self.file).values())
        self.assertEqual(len(covered) + data + len(table) + 24, len(content))

    def test_size(self):
        found = tensors(self.file)
        parameters = sum(dataset.size for path, dataset in found.items() if path.startswith("parameters/"))
        texts = sum(len(self.file.attrs[name]) for name in ("model", "config"))
        bound = parameters * 12 * 1.001 + 512 * len(found) + 65536 + texts
        self.assertLessEqual(os.path.getsize(self.path), bound)
        self.assertGreaterEqual(os.path.getsize(self.path), parameters * 12)

    def test_h5dump(self):
        header = output_of(H5DUMP, "-H", self.path)
        found = tensors(self.file)
        self.assertEqual(len(re.findall(r"DATASET \"", header)), len(found) + len(self.file["state"]))
        for path in found:
            self.assertIn(f'DATASET "{path.rsplit("/", 1)[1]}"', header)
        self.assertIn("H5T_IEEE_F32LE", header)
        self.assertRegex(output_of(H5DUMP, "-a", "/format", self.path), r'\(0\): "tessera"')
        for path in ("parameters/transformer.ln_f.weight", "optimizer/exp_avg_sq/transformer.h.1.ln_1.bias"):
            text = output_of(H5DUMP, "-d", f"/{path}", "-y", "-w", "0", "-m", "%.9g", self.path)
            data = text[text.index("DATA {") + 6:text.index("}", text.index("DATA {"))]
            printed = np.array(data.replace(",", " ").split(), dtype=np.float32)
            np.testing.assert_array_equal(printed, found[path][...].reshape(-1), path)

    def test_example(self):
        printed = output_of(sys.executable, EXAMPLE, self.path)
        self.assertRegex(printed, r"gpt2, step \d+")
        row = next(line.split() for line in printed.splitlines() if line.startswith("mlp.c_fc.weight"))
        weights = self.file["parameters"]
        for layer, shown in enumerate(row[1:]):
            values = weights[f"transformer.h.{layer}.mlp.c_fc.weight"][...].astype(np.float64)
            self.assertAlmostEqual(float(shown), np.sqrt(np.mean(values**2)), delta=1e-5)

    def test_example_plots(self):
        if importlib.util.find_spec("matplotlib") is None:
            self.skipTest("Matplotlib is not installed")
        with tempfile.TemporaryDirectory() as folder:
            output_of(sys.executable, EXAMPLE, self.path, "--plot", f"{folder}/norms.png")
            with open(f"{folder}/norms.png", "rb") as image:
                self.assertEqual(image.read(8), b"\x89PNG\r\n\x1a\n")


class KeptCheckpoint(Checks, unittest.TestCase):
    """Of format version 1; test/engine/golden_checkpoint_test.cpp says how it was made."""

    path = f"{SOURCE}/test/data/checkpoints/v1.h5"


class NewCheckpoint(Checks, unittest.TestCase):
    """Of three ranks whose slices cut tensors anywhere."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="tessera-test-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        os.environ["TESSERA_CACHE"] = f"{cls.folder}/cache"
        with open(f"{cls.folder}/run.yaml", "w") as run:
            run.write(RUN.format(source=SOURCE, folder=f"{cls.folder}/run"))
        output_of(MPIRUN, "-n", "3", PROGRAM, "train", f"{cls.folder}/run.yaml")
        cls.path = f"{cls.folder}/run/checkpoints/step-00000004.h5"

    def test_agrees_with_what_the_program_says(self):
        listing = json.loads(output_of(PROGRAM, "inspect", "--json", "--stats", self.path))
        found = tensors(self.file)
        self.assertEqual(set(listing["tensors"]), set(found))
        for path, told in listing["tensors"].items():
            values = found[path][...].astype(np.float64)
            self.assertEqual(told["shape"], list(values.shape), path)
            self.assertEqual((told["min"], told["max"]), (values.min(), values.max()), path)
            self.assertAlmostEqual(told["rms"], np.sqrt(np.mean(values**2)), delta=1e-9)
        with open(f"{self.folder}/run/summary.json") as text:
            summary = json.load(text)
        total = sum(int(dataset.attrs["checksum"]) for path, dataset in found.items() if path.startswith("parameters/"))
        self.assertEqual(f"{total % 2**64:016x}", summary["weights_checksum"])


if __name__ == "__main__":
    unittest.main()
