"""Writes the ONNX backend's node tests into a folder: model.onnx and the values of inputs
and outputs. usage: write_cases.py FOLDER"""

import os
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper


def to_proto(value, info):
    kind = info.type.WhichOneof("value")
    if isinstance(value, onnx.TensorProto):
        return value
    if kind == "sequence_type":
        return numpy_helper.from_list(value, info.name)
    if kind == "optional_type":
        return numpy_helper.from_optional(value, info.name)
    return numpy_helper.from_array(np.asarray(value), info.name)


def main(folder):
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    for case in collect_testcases(None):
        path = os.path.join(folder, case.name)
        os.makedirs(path, exist_ok=True)
        onnx.save(case.model, os.path.join(path, "model.onnx"))
        for number, (inputs, outputs) in enumerate(case.data_sets):
            data = os.path.join(path, f"test_data_set_{number}")
            os.makedirs(data, exist_ok=True)
            for kind, values, infos in (
                ("input", inputs, case.model.graph.input),
                ("output", outputs, case.model.graph.output),
            ):
                for i, (value, info) in enumerate(zip(values, infos)):
                    with open(os.path.join(data, f"{kind}_{i}.pb"), "wb") as file:
                        file.write(to_proto(value, info).SerializeToString())


if __name__ == "__main__":
    main(sys.argv[1])
