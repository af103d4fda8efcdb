//===- Simplify.h - ONNX graphs with fewer kinds of nodes -------*- C++ -*-===//
#pragma once

namespace onnx {
class GraphProto;
}

namespace isthmus::import {

/// Replaces each If whose condition follows from constants and known sizes by
/// the branch that is taken, as exporters leave them behind. True if there was
/// one; what was inferred of types is to be inferred again.
bool takeKnownBranches(onnx::GraphProto &graph);

/// Replaces operators of onnxruntime's domain com.microsoft, which its
/// optimiser puts into files, by what they are made of: FastGelu,
/// SkipLayerNormalization, FusedMatMul, DynamicQuantizeLSTM (whose weights are
/// dequantised, and activations not quantised). For operators of kOpset.
void replaceContribOperators(onnx::GraphProto &graph);

} // namespace isthmus::import
