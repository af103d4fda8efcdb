//===- Weights.h - from constants of a graph to parameters of fm -*- C++ -*-==//
#pragma once

#include "Sides.h"

#include "mlir/IR/Builders.h"

#include <set>

namespace isthmus::raise {

/// Constants as they are stored, with the shape that the graph gives them.
struct Stored {
  graph::ConstantOp op;
  std::vector<int64_t> shape;
};

/// A matrix or a vector made of constants: dequantised, turned, changed by a
/// number, and of that some rows.
struct Weight {
  Stored values;
  std::optional<Stored> scales = {}, zeros = {};
  size_t scaleAxis = 0; ///< of a vector of scales
  std::optional<double> zero = {};
  bool transposed = false;
  double added = 0;
  int64_t first = 0;
  std::vector<int64_t> shape; ///< outputs x inputs, or of a vector

  explicit Weight(Stored stored)
      : values(std::move(stored)), shape(values.shape) {}
  Weight transpose() const;
  /// Rows of it; of a vector, values.
  Weight rows(int64_t first, int64_t count) const;
};

class Weights {
public:
  /// Parameters are added at the end of `module`.
  Weights(mlir::ModuleOp module, Sides &sides)
      : module(module), context(module.getContext()), sides(sides) {}

  /// The constant behind a value, as stored; none if it is something else.
  std::optional<Weight> find(mlir::Value value);
  /// The same of a vector of `size` values, whatever dimensions of one it has.
  std::optional<Weight> findVector(mlir::Value value, int64_t size);

  /// The parameter's symbol; equal weights have one.
  std::string parameter(const Weight &weight);
  fm::WeightType typeOf(const Weight &weight) const;

private:
  std::optional<Stored> findStored(mlir::Value value);
  mlir::Value emit(mlir::OpBuilder &b, const Stored &stored, bool transposed);

  mlir::ModuleOp module;
  mlir::MLIRContext *context;
  Sides &sides;
  std::map<std::string, std::string> symbols; ///< by what weights are made of
  std::set<std::string> names;
};

} // namespace isthmus::raise
