#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Loads the weights of a Tessera checkpoint into NumPy and shows their norms, layer by layer.

    python3 read_checkpoint.py runs/quickstart/checkpoints/step-00000300.h5 [--plot norms.png]

Needs h5py and NumPy, and Matplotlib for --plot. A checkpoint is an HDF5 file: load_weights() is all that
it takes to use one elsewhere. The format is described in doc/checkpoint-format.md.
"""
import argparse
import json
import re

import h5py
import numpy as np


def load_weights(path):
    """Every parameter as {name: array}, under its Hugging Face name."""
    with h5py.File(path, "r") as file:
        if file.attrs.get("format") != "tessera":
            raise SystemExit(f"{path} is not a Tessera checkpoint")
        if file.attrs["format_version"] != 1:
            raise SystemExit(f"{path} has format version {file.attrs['format_version']}; this script knows 1")
        return {name: dataset[...] for name, dataset in file["parameters"].items()}


def describe(path):
    """What the file says of itself, in one line."""
    with h5py.File(path, "r") as file:
        model = json.loads(file.attrs["model"])
        return (f"{model['model_type']}, step {file.attrs['step']}, {file.attrs['tokens']} tokens, "
                f"written by tessera {file.attrs['library_version']}")


def split_name(name):
    """transformer.h.3.mlp.c_fc.weight -> (layer 3, kind mlp.c_fc.weight); layer None outside of the blocks."""
    match = re.search(r"\.(\d+)\.(.*)", name)
    return (int(match[1]), match[2]) if match else (None, name)


def norms_by_kind(weights):
    """{kind: {layer: root mean square}}"""
    norms = {}
    for name, values in weights.items():
        layer, kind = split_name(name)
        rms = float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
        norms.setdefault(kind, {})[layer] = rms
    return norms


def print_norms(norms):
    layers = sorted({layer for by_layer in norms.values() for layer in by_layer if layer is not None})
    width = max(len(kind) for kind in norms)
    print(f"{'root mean square':{width}}" + "".join(f"{f'layer {layer}':>11}" for layer in layers))
    for kind, by_layer in sorted(norms.items()):
        if None not in by_layer:
            print(f"{kind:{width}}" + "".join(f"{by_layer[layer]:11.5f}" for layer in layers))
    for kind, by_layer in sorted(norms.items()):
        if None in by_layer:
            print(f"{kind:{width}}{by_layer[None]:11.5f}")


def plot_norms(norms, title, path):
    import matplotlib
    matplotlib.use("Agg")  # draws into a file, without a display
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5))
    for kind, by_layer in sorted(norms.items()):
        if None not in by_layer:
            axes.plot(sorted(by_layer), [by_layer[layer] for layer in sorted(by_layer)], marker="o", label=kind)
    axes.set(xlabel="layer", ylabel="root mean square", title=title, yscale="log")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description="Shows the norms of a Tessera checkpoint's weights.")
    parser.add_argument("checkpoint", help="a file such as runs/quickstart/checkpoints/step-00000300.h5")
    parser.add_argument("--plot", metavar="FILE", help="draw the norms into FILE (.png, .svg, .pdf)")
    arguments = parser.parse_args()
    weights = load_weights(arguments.checkpoint)
    elements = sum(values.size for values in weights.values())
    print(f"{describe(arguments.checkpoint)}: {len(weights)} parameters, {elements} elements")
    norms = norms_by_kind(weights)
    print_norms(norms)
    if arguments.plot:
        plot_norms(norms, describe(arguments.checkpoint), arguments.plot)


if __name__ == "__main__":
    main()
