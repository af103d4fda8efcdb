//===- Operators.h - operators of graphs that become code -------*- C++ -*-===//
//
// Each operator is two functions over a NodeBuilder: one writes the code that
// works out the sizes of the results, the other the kernel. Semantics are those
// of the newest version in https://onnx.ai/onnx/operators/.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/Graph/NodeBuilder.h"

#include <span>
#include <string_view>

namespace isthmus {

/// Elements of the first output that a tile computes, where each costs little,
/// and where each is a loop of its own.
inline constexpr int64_t kLightGrain = 4096, kHeavyGrain = 32;

/// One element of the result of a node with `spec`, from those of its inputs.
using Element = Scalar (*)(NodeBuilder &n, const NodeSpec &spec,
                           llvm::ArrayRef<Scalar> in);

struct Operator {
  std::string_view name;
  void (*shape)(NodeBuilder &n);
  /// Null: the result is the first input with other sizes.
  void (*compute)(NodeBuilder &n);
  int64_t grain = kLightGrain;
  /// False: not for these types or attributes, then a function's body or the
  /// host has to do. Null: for all.
  bool (*supports)(const NodeSpec &spec) = nullptr;
  /// Of operators that go element by element.
  Element element = nullptr;
};

using OperatorTable = std::span<const Operator>;
OperatorTable elementwiseOperators();
OperatorTable reductionOperators();
OperatorTable movementOperators();
OperatorTable indexingOperators();
OperatorTable sizeOperators();
OperatorTable productOperators();
OperatorTable packedProductOperators();
OperatorTable convolutionOperators();
OperatorTable packedConvolutionOperators();
OperatorTable transposedConvolutionOperators();
OperatorTable poolingOperators();
OperatorTable normalizationOperators();
OperatorTable quantizationOperators();
OperatorTable recurrentOperators();
OperatorTable signalOperators();
OperatorTable visionOperators();

/// The operator with this name, or null.
const Operator *findOperator(std::string_view name);

/// Whether the node may be a step of one that computes several, element by
/// element ("isthmus.Fused").
bool canFuse(const NodeSpec &spec);

/// True if code can be made for the node: the operator is known, and all
/// operands are tensors of numbers (aliases: of anything) of known rank.
bool canEmit(const NodeSpec &spec);

/// Appends the functions of a node to `module`; returns the names of the shape
/// function and, unless the result is an alias, of the kernel.
std::pair<std::string, std::string> emitNode(mlir::ModuleOp module,
                                             const NodeSpec &spec,
                                             llvm::StringRef name,
                                             const TargetDescription &target);

/// Replaces functions of f32 by polynomials (MLIR's): kernels link against
/// nothing.
mlir::LogicalResult approximateMath(mlir::ModuleOp kernels);

// What many operators share.

/// The first output is as large as input `number`.
void sameSizes(NodeBuilder &n, size_t number = 0);
/// All outputs have the sizes of input 0.
void shapeAsInput(NodeBuilder &n);
/// All inputs broadcast together.
void shapeBroadcast(NodeBuilder &n);
/// For outputs that differ in size from the first: tiles count all of `number`.
void shapeOf(NodeBuilder &n, size_t output, llvm::ArrayRef<Scalar> sizes);
/// Input 0 as lines along a dimension, which may be known only when the node
/// runs.
struct Lines {
  Scalar length, inner, count; ///< elements of one, between two of them, lines
  Lines(NodeBuilder &n, Scalar axis);
  /// Element 0 of line `i`.
  Scalar start(Scalar i) const;
};
/// Of `rank` dimensions, which ones an input of integers names.
NodeBuilder::Scalars namedAxes(NodeBuilder &n, size_t input, size_t rank);
/// Wraps an index that may count from the end, and requires that it is inside.
Scalar checkedIndex(NodeBuilder &n, Scalar index, Scalar size);

// Functions of numbers: f32 within a few ulp, f64 too where it says so.
Scalar expOf(Scalar x);  ///< f64 too
Scalar logOf(Scalar x);  ///< f64 too
Scalar sqrtOf(Scalar x); ///< f64 too
Scalar sinOf(Scalar x);  ///< f64 too, as the next two; angles up to 1e9
Scalar cosOf(Scalar x);
Scalar tanOf(Scalar x);
Scalar asinOf(Scalar x); ///< f64 too, as the next two
Scalar acosOf(Scalar x);
Scalar atanOf(Scalar x);
Scalar erfOf(Scalar x);
Scalar tanhOf(Scalar x);            ///< f64 too
Scalar sigmoidOf(Scalar x);         ///< f64 too
Scalar powerOf(Scalar x, Scalar y); ///< f64 and integers too
Scalar floorOf(Scalar x);           ///< f64 too
Scalar ceilOf(Scalar x);            ///< f64 too
Scalar roundOf(Scalar x);           ///< half to even, f64 too
Scalar truncOf(Scalar x);           ///< f64 too
/// An activation by its name in recurrent operators, with its two parameters.
Scalar activationOf(llvm::StringRef name, Scalar x, double alpha, double beta);

} // namespace isthmus
