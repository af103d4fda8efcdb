//===- Kernels.h - emitters, one for each kind of kernel --------*- C++ -*-===//
//
// Each emitter appends one function to a module of kernels. Operands are listed
// in the order in which a launch binds them. Activations are rows of f32, each
// row padded to 16 values; `qrows` are described at QRowsLayout.
//
//===----------------------------------------------------------------------===//
#pragma once

#include "isthmus/Codegen/KernelBuilder.h"
#include "isthmus/Weights/KVLayout.h"
#include "isthmus/Weights/PackedLayout.h"

#include <algorithm>
#include <optional>

namespace isthmus {

/// Bytes from a row to the next one: an odd number of lines, so that what a
/// block of rows has at the same place lies in different sets of the caches.
constexpr int64_t rowStride(int64_t bytes) {
  return roundUp(bytes, 64) / 128 * 128 + 64;
}

/// Bytes of one row of `features` f32 values.
constexpr int64_t floatRowBytes(int64_t features) {
  return rowStride(features * 4);
}

/// One row of quantised activations: int8 [features], f32 scale [groups], and
/// what products need beside them: int32 -128 * sum [groups], for instructions
/// that take int8 weights with 128 added, and the sums of 32 values that the
/// offsets of int4 weights multiply: f32 scale * sum [features / 32], or int16
/// sum where all values have one scale (`whole`). Those with scales of groups
/// have int16 sum [features / 16] as well, by which products with blocks count
/// from their zero. A group is int8GroupOf(features) values, or all.
struct QRowsLayout {
  static constexpr int64_t kShortSum = 16; ///< values of a sum of the last kind
  int64_t features;
  bool whole = false;
  int64_t group() const { return whole ? features : int8GroupOf(features); }
  int64_t groups() const { return features / group(); }
  int64_t scaleOffset() const { return features; }
  int64_t correctionOffset() const { return scaleOffset() + 4 * groups(); }
  int64_t sumsOffset() const { return correctionOffset() + 4 * groups(); }
  int64_t sums() const { return features / PackedLayout::kInt4Group; }
  int64_t sumBytes() const { return whole ? 2 : 4; }
  int64_t shortSumsOffset() const { return sumsOffset() + sumBytes() * sums(); }
  int64_t usedBytes() const {
    return shortSumsOffset() + (whole ? 0 : features / kShortSum * 2);
  }
  int64_t rowBytes() const { return rowStride(usedBytes()); }
};

/// How rows of activations are stored.
enum class RowFormat {
  F32,
  BF16, ///< [features]; as f32 where the target widens rows, and room for that
        ///< on all, which share one schedule
  BF16x1, ///< bf16 for a matrix unit: [features]
  BF16x3, ///< f32 as parts: [features / 32][3][32]
  Int8,   ///< qrows in groups
  Int8Row ///< qrows with one scale
};

/// Parts of a value in rows for a matrix unit of floats; 0: other rows.
constexpr int64_t partsOf(RowFormat format) {
  return format == RowFormat::BF16x3   ? kFloatParts
         : format == RowFormat::BF16x1 ? 1
                                       : 0;
}

/// Bytes that hold the `features` values of a row; of bf16 the fewest that a
/// target needs.
constexpr int64_t usedBytes(RowFormat format, int64_t features) {
  switch (format) {
  case RowFormat::F32:
    return features * 4;
  case RowFormat::BF16:
    return features * 2;
  case RowFormat::BF16x1:
  case RowFormat::BF16x3:
    return features * partsOf(format) * 2;
  case RowFormat::Int8:
  case RowFormat::Int8Row:
    return QRowsLayout{features, format == RowFormat::Int8Row}.usedBytes();
  }
  return 0;
}

/// Bytes from one row of `features` values to the next one.
constexpr int64_t rowBytes(RowFormat format, int64_t features) {
  return format == RowFormat::BF16 ? floatRowBytes(features)
                                   : rowStride(usedBytes(format, features));
}

/// How rows are stored that are multiplied with a weight, if not in a matrix
/// unit of floats (tileRowsFor).
constexpr RowFormat rowFormatFor(const PackedLayout &weight) {
  switch (weight.format) {
  case PackedFormat::F32:
  case PackedFormat::F16:
    return RowFormat::F32;
  case PackedFormat::BF16:
    return RowFormat::BF16;
  default:
    return weight.oneScale ? RowFormat::Int8Row : RowFormat::Int8;
  }
}

/// How rows are stored that a matrix unit multiplies with a weight of floats
/// (f32 or bf16).
constexpr RowFormat tileRowsFor(const PackedLayout &weight) {
  return partsOf(weight.format) == 1 ? RowFormat::BF16x1 : RowFormat::BF16x3;
}

/// Runs of rows are whole blocks of 8 and of 12 rows.
inline constexpr int64_t kProductRowsMultiple = 24;
/// The most rows of a run.
inline constexpr int64_t kMostProductRows = 240;

/// A matrix unit takes so many inputs of a run's rows at once: equal shares, of
/// which a second-level cache holds a run's.
constexpr int64_t tileInputsAtOnce(const PackedLayout &weight) {
  const int64_t most = 768 * kFloatParts / partsOf(weight.format);
  const int64_t shares = (weight.inputs + most - 1) / most;
  return roundUp((weight.inputs + shares - 1) / shares, kPartsGroup);
}

/// The most rows of activations that the tiles of a product share: as many as
/// stay in a cache (KernelSchedule::tileBytes) while panels of weights pass by.
/// There are as many runs of rows as if each had so many, about equal ones.
inline int64_t productRowsPerTile(const PackedLayout &weight, bool inTiles,
                                  const TargetDescription &target) {
  constexpr int64_t kLeast = 48;
  // (In tiles: as many as of the values that they are parts of.)
  const int64_t inputs = inTiles ? tileInputsAtOnce(weight) : weight.inputs;
  const int64_t bytes = rowBytes(rowFormatFor(weight), inputs);
  return std::clamp(target.schedule.tileBytes / bytes / kProductRowsMultiple *
                        kProductRowsMultiple,
                    kLeast, kMostProductRows);
}

/// Operands: x, weight, [bias], [residual], y. One tile tilePanels() panels of
/// 16 outputs and productRowsPerTile rows; panels change first. Rows may be
/// made twice (Product::forEachBlock): y shares no memory with the residual.
struct LinearSpec {
  PackedLayout weight;
  bool bias = false, residual = false;
  bool inTiles = false; ///< of a matrix unit of floats: x has such rows
  /// Rows of many inputs pass by in shares, once for the panels of a tile.
  int64_t tilePanels() const { return inTiles ? 4 : 1; }
  int64_t tiles() const {
    return (weight.panels() + tilePanels() - 1) / tilePanels();
  }
};
void emitLinear(KernelBuilder &k, const LinearSpec &spec);

/// Activation functions, as fm.activate describes them.
enum class Function { Silu, GeluTanh, GeluErf, QuickGelu };

/// Operands: x, gate weight, up weight, y: function(x gate) * (x up). Both
/// weights have the layout `weight`. One tile `tileOutputs` outputs, which
/// divide those of the weight, and productRowsPerTile rows; outputs change
/// first.
struct GatedLinearSpec {
  PackedLayout weight;
  RowFormat result = RowFormat::F32;
  Function function = Function::Silu;
  bool inTiles = false; ///< as of LinearSpec
  int64_t tileOutputs() const { return int8GroupOf(weight.outputs); }
};
void emitGatedLinear(KernelBuilder &k, const GatedLinearSpec &spec);

struct NormSpec {
  int64_t features;
  double epsilon;
  RowFormat result = RowFormat::F32;
  int64_t heads = 1; ///< normalised by themselves, of emitRMSNorm
};
/// Operands: x, weight, y. One tile a row.
void emitRMSNorm(KernelBuilder &k, const NormSpec &spec);
/// Operands: x, weight, bias, y. One tile a row.
void emitLayerNorm(KernelBuilder &k, const NormSpec &spec);

struct ActivationSpec {
  int64_t features;
  Function function;
  RowFormat result = RowFormat::F32;
};
/// Operands: x, y: function(x). One tile a row.
void emitActivate(KernelBuilder &k, const ActivationSpec &spec);
/// Operands: gate, up, y: function(gate) * up. One tile a row.
void emitGlu(KernelBuilder &k, const ActivationSpec &spec);

/// Operands: x, y: x * factor. One tile a row.
void emitScale(KernelBuilder &k, int64_t features, double factor);

/// Bytes of scratch that a kernel needs to write rows of the format: the
/// largest magnitude of a whole row is known when its last value is.
constexpr int64_t writeScratchBytes(RowFormat format, int64_t features) {
  return format == RowFormat::Int8Row ? floatRowBytes(features) : 0;
}

/// Operands: x, y. One tile a row; `from` is F32 or BF16, `result` not F32.
void emitQuantizeRows(KernelBuilder &k, int64_t features, RowFormat from,
                      RowFormat result);

/// Operands: a, b, y. One tile a row.
void emitAdd(KernelBuilder &k, int64_t features);

/// Operands: x, y. One tile an output row.
void emitSelectRows(KernelBuilder &k, int64_t features);

/// Operands: x, y: the mean of the sequence's rows, which stand side by side in
/// the step. One tile an output row.
void emitMeanRows(KernelBuilder &k, int64_t features);

/// Operands: x, vector, y: x + vector. One tile a row.
void emitAddVector(KernelBuilder &k, int64_t features);

/// Operands: x, token, y: the token at position 0, else x. One tile a row.
void emitClassToken(KernelBuilder &k, int64_t features);

/// Operands: x, y: rows of length one. One tile a row.
void emitL2Norm(KernelBuilder &k, int64_t features);

/// Operands: table, y. One tile a row.
void emitEmbedding(KernelBuilder &k, const PackedLayout &table);

/// Operands: x, table, y: x plus the row of the table at each row's position.
/// One tile a row.
void emitPositionEmbedding(KernelBuilder &k, const PackedLayout &table);

/// Operands: x, y. One tile a row.
struct RotarySpec {
  int64_t features, headDim;
  llvm::SmallVector<float> frequencies; ///< radians a position, for each pair
};
void emitRotary(KernelBuilder &k, const RotarySpec &spec);

/// Geometry of attention over a paged cache: the cache's, and the queries'.
struct AttentionSpec : KVLayout {
  int64_t heads;
  double scale;
  std::optional<int64_t> sinks, window;
  bool bidirectional = false; ///< rows see their whole sequence
  int64_t partitions = 1;     ///< of the longest sequence the model takes
  /// In a matrix unit (fm::AttentionOp::fitsTiles): of all targets.
  bool inTiles = false;
  /// Rows of a tile of emitAttention: the same on every target, since all share
  /// one schedule. Few, so that a short prompt has tiles for all threads.
  int64_t rowsPerTile() const { return inTiles ? kTileRows : 8; }
  /// Rows that share loads if they belong together: rowsPerTile(), halved as
  /// often as the target's schedule asks for.
  int64_t rowsAtOnce = 1;

  int64_t group() const { return heads / kvHeads; }
  int64_t scratchBytes() const;
  /// One partition's result for one key/value head: for each query head f32
  /// outputs [headDim], maximum [16] and sum [16].
  int64_t partialBytes() const;
  /// A row of results: [kvHeads][partitions].
  int64_t partialRowBytes() const;
};
/// Operands: k, v, state. One tile a row and key/value head.
void emitAppendKV(KernelBuilder &k, const AttentionSpec &spec);
/// Operands: q, state, y. One tile a key/value head and rowsPerTile() rows.
void emitAttention(KernelBuilder &k, const AttentionSpec &spec);
/// Operands: q, state, partial results. One tile a row, key/value head and
/// partition of the step's longest sequence.
void emitAttentionPartitions(KernelBuilder &k, const AttentionSpec &spec);
/// Operands: partial results, y. One tile a row.
void emitAttentionMerge(KernelBuilder &k, const AttentionSpec &spec);

/// Appends the kernels by which a runtime measures what the machine can do:
/// the names in KernelABI.h that begin with `kProbe`.
void emitProbes(mlir::ModuleOp kernels, const TargetDescription &target,
                mlir::Location loc);

} // namespace isthmus
