//===- Ranks.h - ranks that ONNX's shape inference leaves open --*- C++ -*-===//
#pragma once

namespace onnx {
class GraphProto;
}

namespace isthmus::import {

/// Notes ranks, without sizes, of results whose rank follows from the sizes of
/// inputs or from attributes, though their sizes follow from values. True if it
/// found any.
bool inferRanks(onnx::GraphProto &graph);

} // namespace isthmus::import
