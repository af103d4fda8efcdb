//===- Nodes.h - what passes over graphs share ------------------*- C++ -*-===//
#pragma once

#include "isthmus/Dialect/Graph/IR/Graph.h"

namespace isthmus::graph {

inline mlir::RankedTensorType tensorType(mlir::Value value) {
  return llvm::dyn_cast_if_present<mlir::RankedTensorType>(value.getType());
}

/// An attribute of the file.
int64_t integerOf(NodeOp node, llvm::StringRef name, int64_t otherwise);
double realOf(NodeOp node, llvm::StringRef name, double otherwise);

/// An input, or null.
mlir::Value inputOf(NodeOp node, unsigned index);

/// Whether a product is x * w, or x * w^T, and nothing but a bias with it.
bool isPlainProduct(NodeOp node);

/// Whether a tensor is known to have one element.
bool isSingle(mlir::Value value);

/// Whether a value hangs on constants alone.
bool isConstant(mlir::Value value);

/// Takes away nodes whose results nobody reads.
void eraseUnused(ProgramOp program);

/// Makes nodes in the place of another.
class NodeMaker {
public:
  explicit NodeMaker(NodeOp place)
      : b(place), loc(place.getLoc()), name(place.getNameAttr()) {}

  mlir::Value operator()(llvm::StringRef op, mlir::ValueRange inputs,
                         mlir::Type result,
                         llvm::ArrayRef<mlir::NamedAttribute> attributes = {});
  mlir::Value orNone(mlir::Value value);
  /// A constant vector.
  mlir::Value integers(llvm::ArrayRef<int64_t> values);

  mlir::OpBuilder b;

private:
  mlir::Location loc;
  mlir::StringAttr name;
};

} // namespace isthmus::graph
