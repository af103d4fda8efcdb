//===- CacheRows.h - a step's rows in the paged cache -----------*- C++ -*-===//
//
// Which position of which sequence each row of a step is, and in which pages
// its sequence lies (rt::StepRows).
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"
#include "isthmus/Weights/KVLayout.h"

namespace isthmus {

class CacheRows {
public:
  /// Emits loads of the step's fields.
  explicit CacheRows(KernelBuilder &k);

  mlir::Value position(mlir::Value row);
  mlir::Value sequence(mlir::Value row);
  /// The page table of the row's sequence.
  mlir::Value pages(mlir::Value row);
  /// Offset in a cache of page `index` of a page table: of the keys of its
  /// first head.
  mlir::Value pageOffset(const KVLayout &layout, mlir::Value table,
                         mlir::Value index);

  /// Whether row `second` is at the position after that of `first`, in the same
  /// sequence.
  mlir::Value follows(mlir::Value first, mlir::Value second);
  /// Where the rows from `first` on, before `end`, stop to follow each other.
  mlir::Value runEnd(mlir::Value first, mlir::Value end);

private:
  mlir::Value entry(mlir::Value array, mlir::Value index);

  KernelBuilder &k;
  mlir::Value positions, sequences, pageTables, pageStride;
};

} // namespace isthmus
