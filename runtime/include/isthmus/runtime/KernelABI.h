//===- KernelABI.h - the contract between kernels and runtime ---*- C++ -*-===//
//
// Part of the bundle format: changing anything here needs a new ABI number
// (docs/bundle-format.md).
//
//===----------------------------------------------------------------------===//
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::rt {

inline constexpr uint32_t kKernelABI = 6;

/// Positions that one page of the KV cache holds.
inline constexpr int64_t kPagePositions = 32;

/// Positions over which attention keeps one softmax state before merging
/// (docs/numerics.md).
inline constexpr int64_t kPartitionPositions = 256;

/// Pages of a cache lie in groups of as many as a partition reads: a cache has
/// whole groups (isthmus/Weights/KVLayout.h).
inline constexpr int64_t kPartitionPages = kPartitionPositions / kPagePositions;

/// Most operands that a launch may have.
inline constexpr size_t kMaxOperands = 10;

/// What the rows of a step are. All arrays are in host memory and constant
/// while the step runs. Rows of a sequence stand side by side, positions
/// ascending. Every field is 8 bytes.
struct StepRows {
  int64_t tokens;            ///< rows of the step
  int64_t outputs;           ///< rows whose logits are wanted
  const int32_t *ids;        ///< [tokens] token id
  const int32_t *positions;  ///< [tokens] absolute position, from 0
  const int32_t *sequence;   ///< [tokens] row of `pageTables`
  const int32_t *pageTables; ///< [sequences][pageStride] page numbers
  int64_t pageStride;        ///< entries in one row of `pageTables`
  const int32_t *outputRows; ///< [outputs] row number
  int64_t partitions;        ///< of the longest sequence of the step
  const int32_t *lengths; ///< [sequences] positions, those of the step included
};

/// Index of each field of StepRows, as kernels address them.
enum StepField : unsigned {
  kStepTokens,
  kStepOutputs,
  kStepIds,
  kStepPositions,
  kStepSequence,
  kStepPageTables,
  kStepPageStride,
  kStepOutputRows,
  kStepPartitions,
  kStepLengths,
};

/// Arguments of one launch. They do not change between steps.
struct Args {
  const int64_t *rowCount; ///< StepRows::tokens or ::outputs
  const StepRows *step;
  void *operands[kMaxOperands];
};

/// Computes tiles [begin, end). Kernels allocate nothing, call nothing, hold no
/// state and start no threads; tiles of a launch may run at the same time.
/// `scratch` is private to the calling thread and 64-byte aligned.
using Kernel = void (*)(const Args *args, int64_t begin, int64_t end,
                        void *scratch);

/// A tensor of a graph: its elements in C order, and the size of each
/// dimension. Both are null for an input or output that the node does not have.
struct GraphOperand {
  void *data;
  int64_t *sizes;
};

/// Why a node of a graph could not be run.
enum GraphError : int64_t {
  kGraphOk = 0,
  kGraphSizes = 1, ///< sizes of its inputs do not fit one another
  kGraphIndex = 2, ///< an index lies outside of the tensor it points into
  kGraphValue = 3, ///< an input has a value that the operator does not take
};

/// Arguments of a node of a graph. Two functions take them. The *shape
/// function* writes the sizes of the outputs, `tiles` and `scratchBytes`; it
/// may read the inputs' elements. The kernel computes tiles [begin, end).
/// Either may set `error`; what it writes then does not count.
struct GraphArgs {
  int64_t tiles;
  int64_t scratchBytes;   ///< that each thread needs
  int64_t error;          ///< a GraphError
  GraphOperand *operands; ///< inputs, then outputs
};
using GraphKernel = void (*)(GraphArgs *args, int64_t begin, int64_t end,
                             void *scratch);

/// Kernels of every library that measure the limits of a machine with the
/// instructions of its target. `probe_read` reads operand 0 in tiles of
/// kProbeReadBytes, `probe_read_ahead` with prefetch instructions too; a tile
/// of the others makes kProbeMultiplyAdds multiply-adds out of registers or the
/// first cache. They need kProbeScratchBytes of scratch.
inline constexpr const char *kProbeRead = "probe_read";
inline constexpr const char *kProbeReadAhead = "probe_read_ahead";
inline constexpr const char *kProbeF32 = "probe_f32";
inline constexpr const char *kProbeBF16 = "probe_bf16";
inline constexpr const char *kProbeInt8 = "probe_int8";
/// Where a target has a matrix unit of bf16; of bf16x6 six products count as
/// one.
inline constexpr const char *kProbeBF16x1 = "probe_bf16x1";
inline constexpr const char *kProbeBF16x6 = "probe_bf16x6";
inline constexpr int64_t kProbeReadBytes = 16384;
inline constexpr int64_t kProbeMultiplyAdds = 1 << 20;
inline constexpr int64_t kProbeScratchBytes = 4096;

} // namespace isthmus::rt
