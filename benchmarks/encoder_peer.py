"""One peer of encoders.py: makes what it runs, then runs it whenever it is told to.

    python encoder_peer.py make KIND FOLDER WORK          exports FOLDER (a Hugging Face folder) to WORK/f32.onnx
    python encoder_peer.py ort-int8 KIND WORK             WORK/int8.onnx: dynamic, by onnxruntime's quantizer
    python encoder_peer.py ov-int8 KIND WORK              WORK/int8.xml: post-training, by NNCF
    python encoder_peer.py run PEER KIND FILE BATCH PRECISION THREADS
        reads lines from stdin: a number of repetitions; answers with the median seconds
"""
import pathlib
import statistics
import sys
import time

import numpy as np

LENGTHS = {"minilm": 128, "clip-text": 77, "gpt2": 128}
NAMES = {True: "input_ids", False: "pixel_values"}


def inputs(kind, batch, vocabulary=30000):
    generator = np.random.default_rng(7)
    if kind in LENGTHS:
        ids = generator.integers(1000, vocabulary, (batch, LENGTHS[kind]))
        if kind == "clip-text":
            ids[:, -1] = 49407
        return {NAMES[True]: ids.astype(np.int64)}
    return {NAMES[False]: generator.standard_normal((batch, 3, 224, 224)).astype(np.float32)}


def make(kind, folder, work):
    import torch
    torch.cuda.is_current_stream_capturing = lambda: False
    import transformers

    class Wrapped(torch.nn.Module):
        def __init__(self):
            super().__init__()
            model = {"vit": "ViTForImageClassification", "clip-image": "CLIPModel", "clip-text": "CLIPModel",
                     "minilm": "AutoModel", "gpt2": "GPT2LMHeadModel"}[kind]
            self.model = getattr(transformers, model).from_pretrained(folder, dtype=torch.float32).eval()

        def forward(self, x):
            if kind == "vit":
                return self.model(pixel_values=x).logits
            if kind == "clip-image":
                pooled = self.model.vision_model(pixel_values=x).pooler_output
                return torch.nn.functional.normalize(self.model.visual_projection(pooled), dim=-1)
            if kind == "clip-text":
                pooled = self.model.text_model(input_ids=x).pooler_output
                return torch.nn.functional.normalize(self.model.text_projection(pooled), dim=-1)
            if kind == "minilm":
                hidden = self.model(input_ids=x).last_hidden_state
                return torch.nn.functional.normalize(hidden.mean(1), dim=-1)
            hidden = self.model.transformer(input_ids=x, attention_mask=torch.ones_like(x), use_cache=False).last_hidden_state
            return self.model.lm_head(hidden[:, -1])

    (name, value), = inputs(kind, 2).items()
    with torch.no_grad():
        torch.onnx.export(Wrapped(), (torch.from_numpy(value),), str(work / "f32.onnx"), input_names=[name],
                          output_names=["out"], dynamic_axes={name: {0: "batch"}, "out": {0: "batch"}},
                          opset_version=17, dynamo=False)


def ort_int8(work):
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process
    quant_pre_process(str(work / "f32.onnx"), str(work / "pre.onnx"), skip_symbolic_shape=True)
    quantize_dynamic(str(work / "pre.onnx"), str(work / "int8.onnx"), per_channel=True, weight_type=QuantType.QInt8)


def ov_int8(kind, work):
    import nncf
    import openvino
    model = openvino.Core().read_model(str(work / "f32.onnx"))
    name = NAMES[kind in LENGTHS]
    samples = [{name: row[None]} for row in inputs(kind, 16)[name]]
    model = nncf.quantize(model, nncf.Dataset(samples), model_type=nncf.ModelType.TRANSFORMER, subset_size=16)
    openvino.save_model(model, str(work / "int8.xml"), compress_to_fp16=False)


def runner(peer, kind, file, batch, precision, threads):
    data = inputs(kind, batch)
    if peer == "ort":
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, data)
    import openvino
    core = openvino.Core()
    hint = {} if precision == "int8" else {"INFERENCE_PRECISION_HINT": precision}
    compiled = core.compile_model(core.read_model(file), "CPU", {
        "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, **hint})
    request = compiled.create_infer_request()
    return lambda: request.infer(data)


def run(*args):
    peer, kind, file, batch, precision, threads = args
    step = runner(peer, kind, file, int(batch), precision, int(threads))
    step()
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - start)
        print(statistics.median(seconds), flush=True)


def main():
    command, *args = sys.argv[1:]
    if command == "run":
        run(*args)
    elif command == "make":
        make(args[0], args[1], pathlib.Path(args[2]))
    elif command == "ort-int8":
        ort_int8(pathlib.Path(args[1]))
    else:
        ov_int8(args[0], pathlib.Path(args[1]))


main()
