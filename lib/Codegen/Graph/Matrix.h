//===- Matrix.h - products of matrices that are not packed ------*- C++ -*-===//
#pragma once

#include "isthmus/Codegen/Graph/Operators.h"

namespace isthmus {

/// C = A B, with B as it stands: rows one after another. Each element of C is
/// one sum in the order of the inner dimension, in f32 (fused) or i32, so that
/// it does not depend on how the work is cut.
struct Matrix {
  // Pointers to the first elements, and bytes between neighbours. Elements of a
  // row of B, and of C, stand side by side; up to 60 bytes behind B may be
  // read.
  mlir::Value a, b, c;
  Scalar aRow, aInner, bInner, cRow;
  Scalar rows, columns, inner;
  /// Elements are no f32, but words of two int16 that are multiplied one by
  /// one; sums are i32.
  bool pairs = false;
  /// Of 16 sums, at a row and from a column on, what is stored; null: as they
  /// are.
  std::function<mlir::Value(mlir::Value sums, Scalar row, Scalar column)>
      finish;
};

/// Two numbers of 16 bits, i32, as an element of a matrix of pairs.
Scalar wordOf(NodeBuilder &n, Scalar first, Scalar second);

/// Rows and columns of C that make a tile.
inline constexpr int64_t kMatrixRows = 48, kMatrixColumns = 128;

/// Emits the product. `matrix.rows` and `columns` are those of a tile.
void emitMatrix(NodeBuilder &n, const Matrix &matrix);

/// Tiles of a product with so many rows and columns, and where tile `tile`
/// begins: row, column, and how many of each it has.
Scalar matrixTiles(NodeBuilder &n, Scalar rows, Scalar columns);
struct MatrixTile {
  Scalar row, column, rows, columns;
};
MatrixTile matrixTile(NodeBuilder &n, Scalar tile, Scalar rows, Scalar columns);

/// The sum of products of two runs of f32 that stand side by side: 16 sums,
/// added as a tree, then what is left.
Scalar dotProduct(NodeBuilder &n, mlir::Value a, mlir::Value b, Scalar count);

/// Stores the first `count` of 16 numbers; all if there are more.
void storeLanes(NodeBuilder &n, mlir::Value vector, mlir::Value to,
                Scalar count);

/// 16 elements of an operand from `linear` on, as numbers of `type` (f32 or
/// i32).
mlir::Value loadLanes(NodeBuilder &n, mlir::Value address, DataType stored,
                      DataType type);

} // namespace isthmus
