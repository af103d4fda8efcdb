//===- Interpreter.h - reference semantics of fm ----------------*- C++ -*-===//
#pragma once

#include "isthmus/Dialect/FM/IR/FM.h"
#include "isthmus/Weights/WeightProgram.h"

#include <vector>

namespace isthmus::fm {

/// A plain matrix of rows.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<float> values;
  float &at(int64_t row, int64_t column) {
    return values[size_t(row * columns + column)];
  }
  float at(int64_t row, int64_t column) const {
    return values[size_t(row * columns + column)];
  }
};

/// One sequence from position 0: token ids, or rows of values if that is what
/// the program takes.
struct SequenceInput {
  std::vector<int32_t> tokens;
  Matrix rows = {};
};

/// Runs `program` on one sequence and returns the result of each position, all
/// of them being wanted (`fm.select_rows` keeps all rows). Slow and
/// obvious on purpose: sums in double, no blocking, no sharing. Fails with a
/// diagnostic on operators it does not know.
mlir::FailureOr<Matrix> interpret(ProgramOp program, const SequenceInput &input,
                                  weights::Sources &sources);

} // namespace isthmus::fm
