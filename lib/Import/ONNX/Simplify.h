//===- Simplify.h - ONNX graphs with fewer kinds of nodes -------*- C++ -*-===//
#pragma once

#include "isthmus/Import/OnnxModel.h"

namespace onnx {
class GraphProto;
}

namespace isthmus::import {

/// Replaces each If whose condition follows from constants and known sizes by
/// the branch that is taken, as exporters leave them behind. True if there was
/// one; what was inferred of types is to be inferred again.
bool takeKnownBranches(onnx::GraphProto &graph);

/// Operators that onnxruntime has without a domain of their own get its domain,
/// com.microsoft: the ONNX library would look for them in the standard.
void nameContribOperators(onnx::GraphProto &graph);

/// Replaces operators of com.microsoft, which onnxruntime's optimiser and
/// onnxruntime-genai's builder put into files, by standard ones of kOpset:
/// FastGelu, FusedMatMul, the layer norms that are simplified or have a skip,
/// DynamicQuantizeLSTM (whose weights are dequantised, and activations not
/// quantised); RotaryEmbedding and GroupQueryAttention; MatMulNBits and
/// GatherBlockQuantized, whose weights become initializers of 4 or 8 bits at
/// the same place in the file.
void replaceContribOperators(OnnxModel &model);

} // namespace isthmus::import
