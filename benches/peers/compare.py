#!/usr/bin/env python3
"""Times a bundle's image tower in remoteclipd and in other CPU engines, interleaved in one run, and prints ratios.

    compare.py --bundle DIR --remoteclipd FILE --peers FILE --work DIR [--threads N] [--rounds R] [--pictures DIR]

Each round runs every engine once, a burst of `--burst` pictures each; `least` is the least of all, `median` the median of
the bursts' medians, the ratio that of the leasts. Batch 1; `--threads` counts the calling thread.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
from PIL import Image

import forms


def pictures(folder: Path | None, image: dict) -> np.ndarray:
    """Normalised squares [N,3,S,S] of the pictures of `folder`; patterns where there is none."""
    size, files = image["size"], sorted(folder.glob("*.[jJ][pP]*[gG]")) if folder else []
    squares = [np.asarray(Image.open(f).convert("RGB").crop((0, 0, 2048, 2048)).resize((size, size))) for f in files[:8]]
    if not squares:
        y, x, seed = np.mgrid[0:size, 0:size, 0:8][[0, 1, 2]]
        waves = 127 + 80 * np.sin(x * (0.05 + 0.02 * seed) + y * 0.09) + 40 * np.cos(y * 0.3 - x * 0.11 * seed)
        squares = [np.repeat(waves[:, :, i, None], 3, axis=2) for i in range(8)]
    pixels = np.stack(squares).astype(np.float32).clip(0, 255) / 255
    return np.ascontiguousarray(((pixels - image["mean"]) / image["std"]).transpose(0, 3, 1, 2), dtype=np.float32)


class OnnxRuntime:
    def __init__(self, form: Path, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.session = onnxruntime.InferenceSession(form, options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return self.session.run(None, {self.name: picture})[0][0]


class OpenVino:
    def __init__(self, form: Path, threads: int, size: int):
        core = openvino.Core()
        model = core.read_model(form)
        model.reshape([1, 3, size, size])
        config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
        self.request = core.compile_model(model, "CPU", config).create_infer_request()

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        return next(iter(self.request.infer([picture]).values()))[0].copy()


def burst(engine, picture: np.ndarray, count: int) -> list[float]:
    engine(picture)
    times = []
    for _ in range(count):
        began = time.perf_counter()
        engine(picture)
        times.append((time.perf_counter() - began) * 1e3)
    return times


def summary(times: list[float]) -> tuple[float, float]:
    return min(times), statistics.median(times)


def peer(program: Path, engine: str, form: Path, picture: np.ndarray, options) -> tuple[np.ndarray, list[float]]:
    command = [program, engine, form, str(picture.shape[-1]), str(options.burst)]
    environment = os.environ | {"RTEN_NUM_THREADS": str(options.threads)}
    answer = json.loads(subprocess.run(command, input=picture.tobytes(), capture_output=True, check=True, env=environment).stdout)
    return np.array(answer["embedding"], np.float32), answer["ms"]


def ours(options) -> dict:
    # --raw: as the peers' pictures, ours come ready to the tower. A decoder between them would empty the caches for one engine only.
    command = [options.remoteclipd, "bench", "--raw", "--bundle", options.bundle, "--json", "--iterations", str(options.burst), "--threads", str(options.threads)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--remoteclipd", type=Path, required=True)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True, help="where the peers' forms of the model are kept")
    parser.add_argument("--pictures", type=Path, help="photographs to calibrate static forms with; patterns without")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--burst", type=int, default=20)
    parser.add_argument("--int8", action="store_true", help="only what is fastest: the int8 forms in onnxruntime and OpenVINO")
    parser.add_argument("--slow", action="store_true", help="also stock tract's int8 forms, up to twenty times as slow")
    options = parser.parse_args()
    image = tomllib.loads((options.bundle / "manifest.toml").read_text())["image"]
    squares = pictures(options.pictures, image)
    made = forms.make(options.bundle, options.work, squares[1:])
    picture, size = squares[:1], image["size"]
    truth = OnnxRuntime(made["f32"], options.threads)(picture)

    here = {
        "onnxruntime f32": OnnxRuntime(made["f32"], options.threads),
        "onnxruntime int8 dynamic": OnnxRuntime(made["dynamic"], options.threads),
        "onnxruntime int8 static u8s8": OnnxRuntime(made["static_u8s8"], options.threads),
        "onnxruntime int8 static s8s8": OnnxRuntime(made["static_s8s8"], options.threads),
        "openvino f32": OpenVino(made["f32"], options.threads, size),
        "openvino int8 static u8s8": OpenVino(made["static_u8s8"], options.threads, size),
        "openvino int8 static s8s8": OpenVino(made["static_s8s8"], options.threads, size),
    }
    apart = {"rten f32": ("rten", "f32"), "rten int8 dynamic": ("rten", "dynamic")}
    if options.threads == 1:
        apart["tract f32"] = ("tract", "f32")
    if options.slow:
        apart |= {"tract int8 dynamic": ("tract", "dynamic"), "tract int8 static s8s8": ("tract", "static_s8s8")}
    if options.int8:
        here = {name: engine for name, engine in here.items() if "int8" in name}
        apart = {}
    bursts: dict[str, list[tuple[float, float]]] = {}
    cosines = {name: cosine(engine(picture), truth) for name, engine in here.items()}
    failed, report = {}, {}
    for _ in range(options.rounds):
        report = ours(options)
        bursts.setdefault("remoteclipd int8", []).append((report["encode_ms"]["min"], report["encode_ms"]["median"]))
        for name, engine in here.items():
            bursts.setdefault(name, []).append(summary(burst(engine, picture, options.burst)))
        for name, (engine, form) in apart.items():
            if name in failed:
                continue
            try:
                embedding, took = peer(options.peers, engine, made[form], picture, options)
            except subprocess.CalledProcessError as error:
                failed[name] = error.stderr.decode().strip().splitlines()[-1:]
                continue
            bursts.setdefault(name, []).append(summary(took))
            cosines[name] = cosine(embedding, truth)

    figures = {name: (min(least for least, _ in rows), statistics.median(median for _, median in rows)) for name, rows in bursts.items()}
    ours_least = figures["remoteclipd int8"][0]
    print(f"\n{options.bundle.name}: {size} px, {options.threads} thread(s), kernel {report['kernel']}, {options.rounds} rounds of {options.burst}\n")
    print("| engine | least ms | median ms | ours / it | cosine to f32 |\n|---|---|---|---|---|")
    for name, (least, median) in sorted(figures.items(), key=lambda row: row[1]):
        near = f"{cosines[name]:.4f}" if name in cosines else "see the tests"
        print(f"| {name} | {least:.2f} | {median:.2f} | {ours_least / least:.2f} | {near} |")
    for name, why in failed.items():
        print(f"| {name} | did not run: {' '.join(why)} | | | |")
    print(f"\nremoteclipd: ready in {report['ready_ms']:.0f} ms, resident {report['resident_bytes'] / 2**20:.0f} MiB, {report['share_of_kernel'] * 100:.0f} % of its kernel's {report['kernel_gmacs']:.0f} GMAC/s a thread")
    return 0


if __name__ == "__main__":
    sys.exit(main())
