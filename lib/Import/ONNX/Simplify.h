//===- Simplify.h - ONNX graphs with fewer kinds of nodes -------*- C++ -*-===//
#pragma once

#include "isthmus/Import/OnnxModel.h"

#include <map>
#include <string>

namespace onnx {
class GraphProto;
class NodeProto;
} // namespace onnx

namespace isthmus::import {

/// The domain of operators that the compiler makes for itself. A file's may not
/// be in it: what is made holds what its maker found.
inline constexpr const char *kOwnDomain = "isthmus";
/// Fails with the text `message`.
inline constexpr const char *kImpossible = "Impossible";

/// Replaces each If whose condition follows from constants and known sizes by
/// the branch that is taken, as exporters leave them behind. True if there was
/// one; what was inferred of types is to be inferred again.
bool takeKnownBranches(onnx::GraphProto &graph);

/// Moves what follows an If whose branches give results of different ranks into
/// the branches, so that ranks are known there; a branch that cannot be run to
/// its end becomes a node that fails. At most one change; true if there was
/// one, and what was inferred of types is to be inferred again.
/// \param count of changes so far; each doubles nodes, and there is a limit.
bool continueInBranches(onnx::GraphProto &graph, int &count);

/// Gives values other names, in a node and its bodies: names are unique in a
/// graph and those within it.
void renameValue(std::string &name,
                 const std::map<std::string, std::string> &names);
void renameValues(onnx::NodeProto &node,
                  const std::map<std::string, std::string> &names);

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
